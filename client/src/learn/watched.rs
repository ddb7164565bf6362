//! What a job has seen that is no input: names that were not there, and directories that it listed.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use cas::{Digest, RelPath};

use super::used::{Shown, above};
use crate::error::{Error, Result};
use crate::ingest::{self, FoundKind};
use crate::spec::learned::Learned;

/// What of a spec's surroundings is not as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A path that was looked for in vain exists.
    Appeared(RelPath),
    /// Names have come to a directory or gone from it, or became something else. `None` is the
    /// workspace.
    Listing(Option<RelPath>),
}

/// The files of a workspace that a job without a list of its inputs would see, less what it makes.
#[derive(Debug, Default)]
pub struct Surroundings {
    shown: Shown,
    outputs: BTreeSet<RelPath>,
}

/// Device and inode of a file.
pub type Identity = (u64, u64);

impl Surroundings {
    /// Looks at a workspace. The store is no part of it, wherever it lies, nor are directories that
    /// hold nothing else; `spec` is the file of the spec, which the job does not know.
    ///
    /// # Errors
    /// The workspace cannot be read.
    pub fn new(
        workspace: &Path,
        store: &Path,
        spec: Option<Identity>,
        outputs: &[RelPath],
    ) -> Result<Self> {
        let exclude = if store.exists() {
            vec![identity(store)?]
        } else {
            Vec::new()
        };
        let mut found = ingest::select(workspace, &[], &exclude)?;
        found.retain(|found| {
            let stamp = found.attributes.stamp;
            spec != Some((stamp.device, stamp.inode))
        });
        let mut shown = Shown::new(&found);
        if let Some(store) = below(workspace, store) {
            shown.forget_empty(&store);
        }
        Ok(Self {
            shown,
            outputs: outputs.iter().cloned().collect(),
        })
    }

    /// Whether a path is there and not what the job makes.
    pub fn has(&self, path: &RelPath) -> bool {
        self.shown.has(path) && !self.is_made(path)
    }

    fn is_made(&self, path: &RelPath) -> bool {
        self.outputs.contains(path) || above(path).any(|above| self.outputs.contains(&above))
    }

    /// The digest of a directory's entries. `None` is the workspace.
    ///
    /// It is that of one line per entry, sorted by name: `f`, `l` or `d` for what it is, a space, the
    /// name, a NUL.
    pub fn listing(&self, directory: Option<&RelPath>) -> Digest {
        let mut lines = Vec::new();
        for (path, kind) in self.shown.entries(directory) {
            let Some(name) = path.names().last().filter(|_| !self.is_made(path)) else {
                continue;
            };
            lines.extend_from_slice(match kind {
                FoundKind::File => b"f ",
                FoundKind::Symlink => b"l ",
                FoundKind::Directory => b"d ",
            });
            lines.extend_from_slice(name.as_bytes());
            lines.push(0);
        }
        Digest::of(&lines)
    }

    /// The digests of some directories.
    pub fn listings(
        &self,
        directories: &BTreeSet<Option<RelPath>>,
    ) -> BTreeMap<Option<RelPath>, Digest> {
        let digest =
            |directory: &Option<RelPath>| (directory.clone(), self.listing(directory.as_ref()));
        directories.iter().map(digest).collect()
    }

    /// What is not as a spec says: paths that have appeared, then directories.
    pub fn changes(&self, learned: &Learned) -> Vec<Change> {
        let appeared = learned.probes.iter().filter(|path| self.has(path));
        let listed = learned
            .listed
            .iter()
            .filter(|(directory, digest)| self.listing(directory.as_ref()) != **digest);
        let appeared = appeared.cloned().map(Change::Appeared);
        let listed = listed.map(|(directory, _)| Change::Listing(directory.clone()));
        appeared.chain(listed).collect()
    }
}

/// A directory as the key of `listed`.
pub(super) fn key(directory: Option<&RelPath>) -> String {
    match directory {
        None => ".".into(),
        Some(path) => cas::text::encode(path.as_bytes()).into_owned(),
    }
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Appeared(path) => {
                write!(f, "`{path}` exists now; the job has looked for it in vain")
            }
            Self::Listing(None) => f.write_str("the entries of `.` changed; the job has listed it"),
            Self::Listing(Some(path)) => {
                write!(f, "the entries of `{path}` changed; the job has listed it")
            }
        }
    }
}

/// Where a directory is in a workspace, if it is there.
fn below(workspace: &Path, directory: &Path) -> Option<RelPath> {
    let (workspace, directory) = (
        workspace.canonicalize().ok()?,
        directory.canonicalize().ok()?,
    );
    let below = directory.strip_prefix(workspace).ok()?;
    RelPath::parse(below.as_os_str().as_bytes()).ok()
}

/// Device and inode of what is at a path.
///
/// # Errors
/// It cannot be examined.
pub fn identity(path: &Path) -> Result<Identity> {
    let metadata = path.metadata();
    let metadata = metadata.map_err(|error| Error::io("examine", path, error))?;
    Ok((metadata.dev(), metadata.ino()))
}
