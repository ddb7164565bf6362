//! Why outputs could not be published.

use std::io;
use std::path::PathBuf;

use cas::RelPath;
use cas::name::InvalidPath;

/// Why outputs were not published. Every variant is one line and names the path. Except for
/// [`PublishError::Partial`], the workspace is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The workspace itself cannot be opened.
    #[error("cannot open the workspace {}: {source}", path.display())]
    Workspace {
        /// Its path.
        path: PathBuf,
        /// The refusal.
        source: io::Error,
    },
    /// The job's id cannot be part of a file name.
    #[error("job id {id:?} {reason}")]
    Id {
        /// The id.
        id: String,
        /// What is wrong with it.
        reason: InvalidPath,
    },
    /// The same output twice.
    #[error("output '{0}' is given twice")]
    Duplicate(RelPath),
    /// One output cannot be published, so none was.
    #[error("cannot publish '{path}': {obstacle}; nothing was published")]
    Refused {
        /// The output, or the directory that is to hold it.
        path: RelPath,
        /// What is in the way.
        obstacle: Obstacle,
    },
    /// One output could not be moved to its place after others had been.
    #[error(transparent)]
    Partial(Box<Partial>),
}

/// What is published and what is not, after a failure among the last steps.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot publish '{path}': {obstacle}; {} of {} outputs were published, not these: {}",
    published.len(), published.len() + unpublished.len(), shortened(unpublished)
)]
pub struct Partial {
    /// The output that failed first.
    pub path: RelPath,
    /// What was in the way.
    pub obstacle: Obstacle,
    /// What is in the workspace now, complete.
    pub published: Vec<RelPath>,
    /// What is not, the failed one included. What was there before still is.
    pub unpublished: Vec<RelPath>,
}

/// What is in the way of one output.
#[derive(Debug, thiserror::Error)]
pub enum Obstacle {
    /// Somebody else changed the destination.
    #[error("it was changed in the workspace since the job started")]
    Changed,
    /// The destination is a blob, or what else the store keeps.
    #[error("the store is there, which only wakebox writes to")]
    InStore,
    /// The destination is the history of a git repository.
    #[error("it belongs to a git repository of the workspace; name it with -o to replace it")]
    Repository,
    /// The destination of a file or link is a directory.
    #[error("a directory is in the way")]
    IsDirectory,
    /// The destination of a directory, or a parent, is something else.
    #[error("it is to be a directory, but a file is in the way")]
    NotADirectory,
    /// A directory of the workspace is a symbolic link.
    #[error("it is to be a directory, but is a symbolic link, and links are not followed")]
    Link,
    /// The content cannot be read.
    #[error(transparent)]
    Store(#[from] cas::Error),
    /// The operating system refused something.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried, as a verb phrase.
        what: &'static str,
        /// The refusal.
        source: io::Error,
    },
}

/// Names what was tried when the operating system refuses it.
pub(super) trait Tried<T> {
    fn tried(self, what: &'static str) -> Result<T, Obstacle>;
}

impl<T, E: Into<io::Error>> Tried<T> for Result<T, E> {
    fn tried(self, what: &'static str) -> Result<T, Obstacle> {
        self.map_err(|source| Obstacle::Io {
            what,
            source: source.into(),
        })
    }
}

/// Attaches the path to an obstacle.
pub(super) trait At<T> {
    fn at(self, path: &RelPath) -> Result<T, PublishError>;
}

impl<T> At<T> for Result<T, Obstacle> {
    fn at(self, path: &RelPath) -> Result<T, PublishError> {
        self.map_err(|obstacle| PublishError::Refused {
            path: path.clone(),
            obstacle,
        })
    }
}

/// The first paths of a list, as one line.
fn shortened(paths: &[RelPath]) -> String {
    const MOST: usize = 5;
    let named = paths.iter().take(MOST);
    let named: Vec<_> = named.map(|path| format!("'{path}'")).collect();
    match paths.len().saturating_sub(MOST) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_publication_says_what_is_missing_in_one_short_line() {
        let path = |n: usize| RelPath::parse(n.to_string().as_bytes()).unwrap();
        let error = Partial {
            path: path(1),
            obstacle: Obstacle::IsDirectory,
            published: vec![path(0)],
            unpublished: (1..8).map(path).collect(),
        };
        let expected = "cannot publish '1': a directory is in the way; 1 of 8 outputs were \
                        published, not these: '1', '2', '3', '4', '5' and 2 more";
        assert_eq!(error.to_string(), expected);
    }
}
