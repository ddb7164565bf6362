//! Whose a store is, and what is to stay in it.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Context, Result};
use crate::store::Store;

/// The file that says that blobs are ours to remove.
const MARKER: &str = "wakebox-store";

/// What it says to whoever looks.
const MARKER_TEXT: &[u8] = b"This store is wakebox's own: `wakebox gc` may remove blobs from it.\n";

impl Store {
    /// Opens the store at `root`, which belongs to this program if it is made now: whoever made the
    /// blobs that are there already may have a database of them.
    pub fn open_own(root: &Path) -> Result<Self> {
        // The mark comes first: a store without it is never taken for ours, nor ours for another's.
        if !root.join("blobs").exists() {
            std::fs::create_dir_all(root).context("create the store's directory", root)?;
            let path = root.join(MARKER);
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
            let marker = rustix::fs::openat(CWD, &path, flags, Mode::from_raw_mode(0o644));
            let marker = File::from(marker.context("mark the store as ours by", &path)?);
            (&marker).write_all(MARKER_TEXT).context("write", &path)?;
        }
        Self::open(root)
    }

    /// Whether blobs are ours to remove.
    pub fn is_own(&self) -> bool {
        self.root().join(MARKER).exists()
    }

    /// Where files lie that name blobs to be kept, or links to such files.
    pub fn pins(&self) -> PathBuf {
        self.root().join("pins")
    }

    /// Makes a link in [`Store::pins`], unless one of that name is there.
    pub fn pin(&self, name: &str, target: &Path) -> Result<()> {
        let what = "make a pin in";
        std::fs::create_dir_all(self.pins()).context(what, self.pins())?;
        match rustix::fs::symlinkat(target, CWD, self.pins().join(name)) {
            Err(Errno::EXIST) => Ok(()),
            other => other.context(what, self.pins()),
        }
    }
}
