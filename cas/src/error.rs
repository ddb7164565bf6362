//! What can go wrong with a store.

use std::io;
use std::path::{Path, PathBuf};

use crate::digest::Digest;

/// An error of the store. Every variant names the blob or the path it is about.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No blob has this digest.
    #[error("blob {0} is not in the store")]
    Missing(Digest),
    /// The content of a blob does not match its name.
    #[error("blob {expected} is corrupt: its content has the hash {found}")]
    Corrupt {
        /// The name of the blob.
        expected: Digest,
        /// The hash of what is in the file.
        found: Digest,
    },
    /// The operating system refused something.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb phrase.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// The refusal.
        source: io::Error,
    },
}

impl Error {
    /// An I/O error with the action and the path it is about.
    pub fn io(what: &'static str, path: impl AsRef<Path>, source: impl Into<io::Error>) -> Self {
        Self::Io {
            what,
            path: path.as_ref().into(),
            source: source.into(),
        }
    }
}

/// Says what was tried, on which path, when the operating system refuses it.
pub trait Context<T> {
    /// Names the action, as a verb phrase, and the path.
    fn context(self, what: &'static str, path: impl AsRef<Path>) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, what: &'static str, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|source| Error::io(what, path, source))
    }
}

/// A result of the store.
pub type Result<T> = std::result::Result<T, Error>;
