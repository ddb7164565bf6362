//! Outputs of a job, from the store into the workspace.
//!
//! First everything is made under temporary names in the directories where it belongs, then
//! everything is renamed. What can fail, fails in the first phase, and then nothing has been
//! published and nothing is left behind. Nothing is published over a file that somebody changed
//! since the job started, or through a symbolic link.

mod directories;
pub mod error;
mod root;
mod temporary;

use std::path::Path;

use cas::copy::Copier;
use cas::{Digest, Name, RelPath, Store, parallel};

pub use error::{Obstacle, Partial, PublishError};

use directories::Created;
use error::At;
use root::Root;
use temporary::{Job, Temporary, temporary_name};

/// One output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Where it goes.
    pub path: RelPath,
    /// What it is.
    pub kind: PublishKind,
}

/// What an output is. Modes are permission bits, `0o7777` at most; times are nanoseconds since
/// the epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishKind {
    /// A regular file.
    File {
        /// Its content, which the store has.
        digest: Digest,
        /// Its mode.
        mode: u16,
        /// Its modification time.
        mtime: i64,
    },
    /// A symbolic link.
    Symlink {
        /// The bytes of its target.
        target: Box<[u8]>,
        /// Its modification time.
        mtime: i64,
    },
    /// A directory. One that exists keeps its mode and time.
    Directory {
        /// Its mode.
        mode: u16,
        /// Its modification time.
        mtime: i64,
    },
}

/// What was published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Files and links.
    pub files: u64,
    /// The bytes of those files.
    pub bytes: u64,
}

/// Publishes all outputs, or none.
///
/// `started` is `CLOCK_REALTIME`, in nanoseconds since the epoch, read before the first input was:
/// a file or link that changed later is not replaced. `id` becomes part of temporary names, and no other job that runs in
/// this workspace may have it.
pub fn publish(
    workspace: &Path,
    store: &Store,
    outputs: &[Publish],
    started: i64,
    id: &str,
) -> Result<Published, PublishError> {
    check_id(id)?;
    check_duplicates(outputs)?;
    let root = Root::open(workspace)?;
    let copier = Copier::default();
    let job = Job {
        root: &root,
        store,
        copier,
        started,
        id,
    };
    // Declared before the temporaries, so it is dropped after them, when they are empty.
    let created = Created::make(&root, store, outputs)?;
    let mut staged = stage_all(&job, outputs)?;
    parallel::try_map(&staged, |temporary| {
        temporary.check_again().at(temporary.path())
    })?;
    let moved = rename_all(&mut staged);
    match moved.and_then(|()| created.finish()) {
        Ok(()) => {
            created.keep();
            Ok(summary(&staged))
        }
        Err(failure) => Err(give_up(failure, outputs, staged, created)),
    }
}

fn check_id(id: &str) -> Result<(), PublishError> {
    let longest = temporary_name(id, usize::MAX);
    match Name::new(longest.as_bytes()) {
        Ok(_) => Ok(()),
        Err(reason) => Err(PublishError::Id {
            id: id.into(),
            reason,
        }),
    }
}

fn check_duplicates(outputs: &[Publish]) -> Result<(), PublishError> {
    let mut known = std::collections::HashSet::with_capacity(outputs.len());
    match outputs.iter().find(|output| !known.insert(&output.path)) {
        Some(output) => Err(PublishError::Duplicate(output.path.clone())),
        None => Ok(()),
    }
}

fn stage_all<'a>(
    job: &'a Job<'a>,
    outputs: &'a [Publish],
) -> Result<Vec<Temporary<'a>>, PublishError> {
    let numbered: Vec<_> = outputs.iter().enumerate().collect();
    let staged = parallel::try_map(&numbered, |&(number, output)| {
        job.stage(number, output).at(&output.path)
    })?;
    Ok(staged.into_iter().flatten().collect())
}

/// By one thread: renames in one directory exclude each other in the kernel, and one that fails
/// is followed by none.
fn rename_all(staged: &mut [Temporary<'_>]) -> Result<(), (RelPath, Obstacle)> {
    for temporary in staged {
        let renamed = temporary.rename();
        renamed.map_err(|obstacle| (temporary.path().clone(), obstacle))?;
    }
    Ok(())
}

fn summary(staged: &[Temporary<'_>]) -> Published {
    Published {
        files: staged.len() as u64,
        bytes: staged.iter().map(|temporary| temporary.bytes).sum(),
    }
}

/// Leaves the workspace as tidy as can be after a failure among the renames, and says what is
/// published.
fn give_up(
    (path, obstacle): (RelPath, Obstacle),
    outputs: &[Publish],
    staged: Vec<Temporary<'_>>,
    mut created: Created<'_>,
) -> PublishError {
    let renamed = staged.iter().filter(|temporary| temporary.is_published());
    let renamed: std::collections::HashSet<_> =
        renamed.map(|temporary| temporary.path().clone()).collect();
    drop(staged);
    if renamed.is_empty() {
        return PublishError::Refused { path, obstacle };
    }
    created.remove_empty();
    // The failure that is reported is the one before, and this may well be the same.
    let _ = created.finish();
    let is_published = |output: &&Publish| match output.kind {
        _ if output.path == path => false,
        PublishKind::Directory { .. } => created.exists(&output.path),
        PublishKind::File { .. } | PublishKind::Symlink { .. } => renamed.contains(&output.path),
    };
    let (published, unpublished): (Vec<_>, Vec<_>) = outputs.iter().partition(is_published);
    let paths = |outputs: Vec<&Publish>| outputs.into_iter().map(|o| o.path.clone()).collect();
    let (published, unpublished) = (paths(published), paths(unpublished));
    created.keep();
    PublishError::Partial(Box::new(Partial {
        path,
        obstacle,
        published,
        unpublished,
    }))
}

#[cfg(test)]
mod tests;
