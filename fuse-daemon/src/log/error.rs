//! Why a saved view cannot be opened or replaced.

use std::io;
use std::path::PathBuf;

use cas::Digest;

use super::{FILE, frame};

/// What is wrong, without where.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused something.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried, as a verb phrase.
        what: &'static str,
        /// The refusal.
        source: io::Error,
    },
    /// The file is something else.
    #[error("it is not a saved view; choose another state directory")]
    NotALog,
    /// Another version of wakebox wrote it.
    #[error(
        "it has format {found}, and this wakebox reads format {}; \
         use the wakebox that wrote it",
        frame::VERSION
    )]
    Version {
        /// The version of the format.
        found: u32,
    },
    /// The view was made of other inputs.
    #[error(
        "it is a view of the inputs {saved}, and these are {given}; \
         mount the same inputs, or choose another state directory"
    )]
    OtherInputs {
        /// The digest of the manifest that the view was made of.
        saved: Digest,
        /// The digest of the manifest that was asked for.
        given: Digest,
    },
    /// Bytes that were safely on disk are not what was written.
    #[error(
        "it is corrupt at byte {offset}, and what is behind that was safely on disk; \
         restore the state directory from a backup"
    )]
    Corrupt {
        /// Where the first bad frame begins.
        offset: u64,
    },
    /// A frame is as it was written and makes no sense.
    #[error("its facts at byte {offset} are of no known kind; use the wakebox that wrote it")]
    NotUnderstood {
        /// Where the frame's payload begins.
        offset: u64,
    },
    /// Any of these, with where.
    #[error("saved view {}: {source}", path.join(FILE).display())]
    At {
        /// The state directory.
        path: PathBuf,
        /// What is wrong.
        source: Box<Error>,
    },
}

impl Error {
    /// Says in which state directory.
    pub(super) fn at(self, path: PathBuf) -> Self {
        let source = Box::new(self);
        Self::At { path, source }
    }
}

/// Says what was tried when the operating system refuses it.
pub(super) trait Trying<T> {
    fn trying(self, what: &'static str) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> Trying<T> for Result<T, E> {
    fn trying(self, what: &'static str) -> Result<T, Error> {
        self.map_err(|source| Error::Io {
            what,
            source: source.into(),
        })
    }
}
