//! What a job declares: the document that goes from the client to the daemon.
//!
//! Binary, not JSON: a job may declare 300,000 paths, and each byte is read once by the client
//! and once by the daemon. The digest of the document names it, so a daemon that has seen it
//! neither receives nor parses it again. Where there may be many, it is written as a [`Document`] and
//! read as it lies there, as [`Listed`]; a [`Manifest`] has its entries one by one, to be changed. All
//! numbers are little-endian:
//!
//! ```text
//! "wakebox manifest 1\n"
//! with an input root: 'r' · 32 bytes of digest · 'n', or 's' and its size u64
//! per entry: kind u8 · mode u16 · mtime i64 · path length u32 · path · 32 bytes of digest, not for 'd'
//! kind: 'f' file, 'F' file that the job may rewrite, 'l' symbolic link, 'd' directory
//! ```
//!
//! A link's blob holds its target.

pub mod cache;
mod document;
mod resolve;

use crate::digest::Digest;
use crate::directory::{LoadError, Root};
use crate::error::Error;
use crate::name::{InvalidPath, RelPath};
use crate::store::Store;
use crate::tree::{self, Tree, TreeError};

pub use document::{Document, Listed, Row};

/// Everything a job declares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// A stored tree that the job sees under the declared paths.
    pub input_root: Option<Root>,
    /// The declared paths, in the order of declaration.
    pub entries: Vec<Declared>,
}

/// One declared path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// Where it appears in the view.
    pub path: RelPath,
    /// Permission bits.
    pub mode: u16,
    /// Modification time, nanoseconds since the epoch.
    pub mtime: i64,
    /// What it is.
    pub kind: DeclaredKind,
}

/// What a [`Declared`] path is, by digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeclaredKind {
    /// A file that the job can only read.
    File(Digest),
    /// A file that the job gets a private copy of, and may change or remove.
    WritableFile(Digest),
    /// A symbolic link; the blob holds the target.
    Symlink(Digest),
    /// A directory.
    Directory,
}

/// Why a manifest is not usable.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The bytes are no manifest.
    #[error("the manifest is damaged at byte {0}")]
    Damaged(usize),
    /// The bytes are not those of the manifest that was asked for.
    #[error("what was sent is not the manifest {0}; run the job again")]
    Other(Digest),
    /// A path that cannot be declared.
    #[error("path '{path}' {reason}")]
    Path {
        /// The path as it was written.
        path: String,
        /// What is wrong with it.
        reason: InvalidPath,
    },
    /// The paths do not form a tree.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The stored tree cannot be had.
    #[error(transparent)]
    Stored(#[from] LoadError),
    /// A blob is missing or cannot be read.
    #[error("input '{path}': {source}{}", and_more(*more))]
    Blob {
        /// The first path, in the order of declaration, that cannot be had.
        path: RelPath,
        /// What is wrong with its blob.
        source: Box<Error>,
        /// How many more inputs cannot be had.
        more: usize,
    },
    /// A blob that is no link target.
    #[error("input '{path}': blob {digest} is not the target of a symbolic link")]
    Target {
        /// The link.
        path: RelPath,
        /// Its blob.
        digest: Digest,
    },
}

fn and_more(more: usize) -> String {
    if more == 0 {
        String::new()
    } else {
        format!(" (and {more} more inputs)")
    }
}

/// A manifest whose blobs have been found.
#[derive(Debug)]
pub struct Resolved {
    /// What the job can only read.
    pub tree: Tree,
    /// The files that it gets private copies of.
    pub writable: Vec<tree::Entry>,
}

impl Manifest {
    /// The document's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut document = Document::new(self.input_root.as_ref(), self.entries.len());
        for entry in &self.entries {
            document.push(entry.as_row());
        }
        document.finish()
    }

    /// Whether a document wants to be a manifest, whole or damaged, of this version or another.
    pub fn is_one(bytes: &[u8]) -> bool {
        bytes.starts_with(b"wakebox manifest ")
    }

    /// Reads a document. Nothing about the bytes is trusted.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        let listed = Listed::read(bytes)?;
        Ok(Self {
            input_root: listed.input_root(),
            entries: listed.rows().map(Row::to_declared).collect(),
        })
    }

    /// Finds every blob and builds the tree. Blobs that are missing or unreadable are refused
    /// here, before anything runs.
    pub fn resolve(&self, store: &Store) -> Result<Resolved, ManifestError> {
        Listed::read(&self.encode())?.resolve(store)
    }
}

impl Declared {
    fn as_row(&self) -> Row<'_> {
        Row {
            path: self.path.as_bytes(),
            mode: self.mode,
            mtime: self.mtime,
            kind: self.kind,
        }
    }
}

#[cfg(test)]
mod tests;
