//! From files of the workspace to a [`Manifest`]: which files are inputs, and their content in
//! the store.
//!
//! [`select()`] finds the inputs, by patterns or by asking git. [`ingest`] puts their content into
//! the store, in parallel, and skips what the [`Index`] knows to be unchanged. A file that changes
//! while it is read is read again; a manifest never holds a mixture of two states of a file.

pub mod attributes;
mod content;
mod git;
pub mod index;
pub mod progress;
pub mod select;
mod walk;

use std::collections::HashSet;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cas::manifest::{Declared, DeclaredKind, Manifest};
use cas::parallel;
use cas::staging::StagingDirectory;
use cas::{Digest, RelPath, Store};

pub use attributes::{Attributes, FoundKind, Stamp};
pub use index::{Coverage, Index};
pub use progress::Progress;
pub use select::{Found, SelectError, everything, select};

use content::Refusal;

/// Which of the input files a job may rewrite.
pub type Writable<'a> = &'a (dyn Fn(&RelPath) -> bool + Sync);

/// From where to where inputs go.
#[derive(Clone, Copy)]
pub struct Ingestion<'a> {
    /// Receives the content.
    pub store: &'a Store,
    /// Paths are relative to this directory.
    pub workspace: &'a Path,
    /// What earlier runs hashed. Saving it afterwards is up to the caller.
    pub index: &'a Index,
    /// Files for which this is true become [`DeclaredKind::WritableFile`].
    pub writable: Writable<'a>,
    /// The time now, nanoseconds since the epoch, read before the ingestion starts. It counts as
    /// the time of hashing, so an earlier one only makes the index more careful.
    pub now_ns: i64,
    /// Is told how far the ingestion is.
    pub progress: &'a Progress,
}

/// What was ingested.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ingested {
    /// The inputs, in the order in which they were given.
    pub manifest: Manifest,
    /// How many regular files there are among them.
    pub files: u64,
    /// The bytes of those files.
    pub bytes: u64,
    /// How many of those files were read, because the index did not know them.
    pub hashed: u64,
}

/// Why inputs could not be ingested. Every variant is one line and names the path.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// There is no such path.
    #[error("input '{0}' does not exist")]
    Missing(RelPath),
    /// Not a file, a link or a directory.
    #[error(
        "input '{0}' is a socket, a fifo or a device; only files, links and directories can be inputs"
    )]
    Special(RelPath),
    /// Somebody keeps writing to it.
    #[error("input '{0}' changes while it is being read")]
    Unsteady(RelPath),
    /// The operating system refused to let it be read.
    #[error("cannot read input '{path}': {source}")]
    Read {
        /// The input.
        path: RelPath,
        /// The refusal.
        source: io::Error,
    },
    /// The store refused it: it is full, say.
    #[error("input '{path}': {source}")]
    Store {
        /// The input.
        path: RelPath,
        /// The refusal, which names the store.
        source: cas::Error,
    },
    /// Nothing at all can be written to the store.
    #[error(transparent)]
    Staging(cas::Error),
}

impl std::fmt::Debug for Ingestion<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ingestion")
            .field("store", &self.store.root())
            .field("workspace", &self.workspace)
            .field("now_ns", &self.now_ns)
            .finish_non_exhaustive()
    }
}

/// Puts the content of inputs that [`select()`] found into the store.
pub fn ingest(job: &Ingestion<'_>, found: &[Found]) -> Result<Ingested, IngestError> {
    let staging = job
        .store
        .new_staging("ingest")
        .map_err(IngestError::Staging)?;
    let (files, bytes) = totals(found);
    job.progress.expect(files, bytes);
    let taken = parallel::try_map(found, |found| job.take(found, &staging))?;
    Ok(summary(taken))
}

/// Puts exactly these paths into the store: a directory stands for itself and not for what it
/// holds. Paths that are repeated count once; the order stays, because the first path below an
/// undeclared directory gives it its time. Parents may be symbolic links, and are followed.
pub fn ingest_named(job: &Ingestion<'_>, paths: &[RelPath]) -> Result<Ingested, IngestError> {
    let mut known = HashSet::with_capacity(paths.len());
    let paths: Vec<_> = paths.iter().filter(|path| known.insert(*path)).collect();
    let found = parallel::try_map(&paths, |path| examine(job.workspace, path))?;
    ingest(job, &found)
}

fn examine(workspace: &Path, path: &RelPath) -> Result<Found, IngestError> {
    let metadata = match workspace.join(path.as_path()).symlink_metadata() {
        Ok(metadata) => metadata,
        Err(error) if walk::is_absence(&error) => return Err(IngestError::Missing(path.clone())),
        Err(source) => {
            let path = path.clone();
            return Err(IngestError::Read { path, source });
        }
    };
    match Attributes::of(&metadata) {
        Some(attributes) => Ok(Found {
            path: path.clone(),
            attributes,
        }),
        None => Err(IngestError::Special(path.clone())),
    }
}

/// One declared input and what it took to get it.
struct Input {
    declared: Declared,
    bytes: u64,
    hashed: bool,
}

impl Ingestion<'_> {
    fn take(&self, found: &Found, staging: &Arc<StagingDirectory>) -> Result<Input, IngestError> {
        let input = match found.attributes.kind {
            FoundKind::File => self.take_file(found, staging),
            FoundKind::Symlink => self.take_symlink(found, staging),
            FoundKind::Directory => Ok(input(found, DeclaredKind::Directory)),
        };
        self.progress.advance(file_size(found));
        input.map_err(|refusal| refused(&found.path, refusal))
    }

    fn take_file(&self, found: &Found, staging: &Arc<StagingDirectory>) -> Result<Input, Refusal> {
        if let Some(digest) = self.unchanged(&found.attributes.stamp)? {
            let kind = self.file_kind(&found.path, digest);
            let bytes = file_size(found);
            return Ok(Input {
                bytes,
                ..input(found, kind)
            });
        }
        let taken = content::take(self.store, staging, &self.full_path(found))?;
        let attributes = taken.attributes;
        self.index
            .record(attributes.stamp, self.now_ns, taken.digest);
        let kind = self.file_kind(&found.path, taken.digest);
        let path = found.path.clone();
        Ok(Input {
            bytes: taken.size,
            hashed: true,
            ..input(&Found { path, attributes }, kind)
        })
    }

    /// The digest of a file that the index knows, if its blob is still there.
    fn unchanged(&self, stamp: &Stamp) -> Result<Option<Digest>, Refusal> {
        match self.index.lookup(stamp) {
            Some(digest) if content::is_stored(self.store, digest, stamp.size)? => Ok(Some(digest)),
            _ => Ok(None),
        }
    }

    fn take_symlink(
        &self,
        found: &Found,
        staging: &Arc<StagingDirectory>,
    ) -> Result<Input, Refusal> {
        let target = std::fs::read_link(self.full_path(found))?;
        let target = target.into_os_string().into_vec();
        let digest = Digest::of(&target);
        if !content::is_stored(self.store, digest, target.len() as u64)? {
            let put = self.store.put_bytes(&target, staging);
            put.map_err(Refusal::Store)?;
        }
        Ok(input(found, DeclaredKind::Symlink(digest)))
    }

    fn file_kind(&self, path: &RelPath, digest: Digest) -> DeclaredKind {
        if (self.writable)(path) {
            DeclaredKind::WritableFile(digest)
        } else {
            DeclaredKind::File(digest)
        }
    }

    fn full_path(&self, found: &Found) -> PathBuf {
        self.workspace.join(found.path.as_path())
    }
}

fn input(found: &Found, kind: DeclaredKind) -> Input {
    let declared = Declared {
        path: found.path.clone(),
        mode: found.attributes.mode,
        mtime: found.attributes.stamp.mtime,
        kind,
    };
    Input {
        declared,
        bytes: 0,
        hashed: false,
    }
}

fn refused(path: &RelPath, refusal: Refusal) -> IngestError {
    let path = path.clone();
    match refusal {
        Refusal::Unsteady => IngestError::Unsteady(path),
        Refusal::Io(source) if walk::is_absence(&source) => IngestError::Missing(path),
        Refusal::Io(source) => IngestError::Read { path, source },
        Refusal::Store(source) => IngestError::Store { path, source },
    }
}

fn file_size(found: &Found) -> u64 {
    match found.attributes.kind {
        FoundKind::File => found.attributes.stamp.size,
        FoundKind::Symlink | FoundKind::Directory => 0,
    }
}

fn totals(found: &[Found]) -> (u64, u64) {
    let files = found
        .iter()
        .filter(|found| found.attributes.kind == FoundKind::File);
    (files.count() as u64, found.iter().map(file_size).sum())
}

fn summary(inputs: Vec<Input>) -> Ingested {
    let mut ingested = Ingested::default();
    ingested.manifest.entries.reserve_exact(inputs.len());
    for input in inputs {
        let is_file = matches!(
            input.declared.kind,
            DeclaredKind::File(_) | DeclaredKind::WritableFile(_)
        );
        ingested.files += u64::from(is_file);
        ingested.bytes += input.bytes;
        ingested.hashed += u64::from(input.hashed);
        ingested.manifest.entries.push(input.declared);
    }
    ingested
}

#[cfg(test)]
mod tests;
