//! Bytes and names that are to outlast a power failure.
//!
//! The order is the one that POSIX asks for, and no file system in particular: first the bytes of
//! each file, then the directory that has its name, then the directories above. Files are flushed
//! one by one and not by `syncfs`, which would wait for all that others have written to the disk.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};

use crate::error::{Context, Error, Result};
use crate::store::blob_name;
use crate::{Digest, Store, parallel};

const FILE: OFlags = OFlags::RDONLY
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOFOLLOW);
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

impl Store {
    /// Flushes blobs and their names. What was there before counts: who has put it there may not
    /// have flushed it.
    ///
    /// # Errors
    /// A blob that is missing, or of which the disk has refused a byte.
    pub fn sync_blobs(&self, digests: &BTreeSet<Digest>) -> Result<()> {
        let digests: Vec<_> = digests.iter().copied().collect();
        parallel::try_map(&digests, |&digest| {
            let file = self.open_blob(digest)?.file;
            rustix::fs::fsync(file).context("flush blob", self.path(digest))
        })?;
        let fan_outs: BTreeSet<_> = digests
            .iter()
            .map(|d| blob_name(*d)[..2].to_owned())
            .collect();
        let place = self.root().join("blobs");
        for fan_out in &fan_outs {
            let path = place.join(fan_out);
            let directory = open(self.blobs(), Path::new(fan_out), DIRECTORY, &path)?;
            rustix::fs::fsync(directory).context("flush", &path)?;
        }
        rustix::fs::fsync(self.blobs()).context("flush", &place)
    }

    /// Flushes files of a staging directory and their names.
    ///
    /// # Errors
    /// A file that is missing, or of which the disk has refused a byte.
    pub fn sync_staged(&self, directory: &str, files: &[&str]) -> Result<()> {
        let place = self.root().join("staging").join(directory);
        let fd = open(self.staging(), Path::new(directory), DIRECTORY, &place)?;
        parallel::try_map(files, |name| {
            let path = place.join(name);
            let file = open(fd.as_fd(), Path::new(name), FILE, &path)?;
            rustix::fs::fsync(file).context("flush", &path)
        })?;
        rustix::fs::fsync(fd).context("flush", &place)?;
        rustix::fs::fsync(self.staging()).context("flush", self.root().join("staging"))
    }

    /// Flushes the names of the store and of the directories above it, which may be as new as what
    /// is in them.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn sync_root(&self) -> Result<()> {
        sync_names(self.root())
    }
}

fn open(at: BorrowedFd<'_>, name: &Path, flags: OFlags, path: &Path) -> Result<OwnedFd> {
    rustix::fs::openat(at, name, flags, Mode::empty()).context("flush", path)
}

/// Flushes a directory and those above it on its file system, so that a path that leads to what it
/// has is there after a power failure. Those that may not be read are somebody else's, and older.
///
/// # Errors
/// The disk refuses, or there is no such directory.
pub fn sync_names(directory: &Path) -> Result<()> {
    let path = directory.canonicalize().context("flush", directory)?;
    let device = path.metadata().context("flush", &path)?.dev();
    for above in path.ancestors() {
        if above.metadata().map(|is| is.dev()).ok() != Some(device) {
            break;
        }
        match rustix::fs::openat(CWD, above, DIRECTORY, Mode::empty()) {
            Ok(fd) => rustix::fs::fsync(fd).context("flush", above)?,
            Err(_) if above != path => break,
            Err(errno) => return Err(Error::io("flush", above, errno)),
        }
    }
    Ok(())
}
