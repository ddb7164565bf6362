//! Why a call of `wakebox` fails: one line for the user, and an exit code.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::exit_code;
use crate::sandbox::SandboxError;

/// A failure of `wakebox` itself. The job's own failure is never one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The call makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The spec makes no sense.
    #[error("{}: {message}", path.display())]
    Spec {
        /// The spec's file.
        path: PathBuf,
        /// What is wrong, and where.
        message: String,
    },
    /// The sandbox could not be made, or fell apart.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The store refused something.
    #[error(transparent)]
    Store(#[from] cas::Error),
    /// A stored tree cannot be had.
    #[error(transparent)]
    Tree(#[from] cas::directory::LoadError),
    /// The collector refuses, or cannot go on.
    #[error(transparent)]
    Gc(#[from] cas::gc::GcError),
    /// The daemon cannot be had, or refuses.
    #[error(transparent)]
    Daemon(#[from] crate::daemon::DaemonError),
    /// The inputs cannot be had.
    #[error(transparent)]
    Ingest(#[from] crate::ingest::IngestError),
    /// The inputs cannot be found.
    #[error(transparent)]
    Select(#[from] crate::ingest::SelectError),
    /// The outputs cannot be put into the workspace.
    #[error(transparent)]
    Publish(#[from] crate::publish::PublishError),
    /// A mount failed: what, where, and what can be done.
    #[error("{0}")]
    Mount(String),
    /// What was asked cannot be had, or was not served truly.
    #[error("{0}")]
    Outcome(String),
    /// A signal told us to stop, and the job with us.
    #[error("stopped by signal {0}")]
    Stopped(i32),
    /// An output that was asked for.
    #[error("the job did not make the wanted output '{0}'")]
    NotMade(cas::RelPath),
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
    /// Names the action and the path of an I/O error.
    pub fn io(what: &'static str, path: impl AsRef<Path>, source: impl Into<io::Error>) -> Self {
        Self::Io {
            what,
            path: path.as_ref().into(),
            source: source.into(),
        }
    }

    /// The exit code, which for wrong usage depends on the kind of call.
    pub fn exit_code(&self, original: bool) -> u8 {
        match self {
            Self::Usage(_) | Self::Spec { .. } if original => exit_code::ORIGINAL_USAGE,
            Self::Usage(_) | Self::Spec { .. } | Self::Select(_) => exit_code::USAGE,
            Self::NotMade(_) => exit_code::NOT_MADE,
            Self::Stopped(signal) => exit_code::of_signal(*signal),
            _ => exit_code::SANDBOX,
        }
    }
}

/// Whose failure it is, as `sandbox-error` of the result has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The spec asks for something that makes no sense.
    Spec,
    /// The store.
    Store,
    /// The daemon, or the way to it.
    Daemon,
    /// The sandbox: namespaces, mounts, the job's first process.
    Sandbox,
    /// A declared input cannot be had.
    Input,
}

impl Error {
    /// Whose failure it is.
    pub fn kind(&self) -> Kind {
        use crate::daemon::DaemonError;
        match self {
            Self::Usage(_) | Self::Spec { .. } => Kind::Spec,
            Self::Store(_) | Self::Tree(_) | Self::Gc(_) => Kind::Store,
            // What it refuses is a manifest, for content that the store does not have.
            Self::Daemon(DaemonError::Refused(_)) | Self::Ingest(_) | Self::Select(_) => {
                Kind::Input
            }
            Self::Daemon(_) | Self::Outcome(_) | Self::Sandbox(SandboxError::DaemonGone) => {
                Kind::Daemon
            }
            Self::Sandbox(_)
            | Self::Publish(_)
            | Self::NotMade(_)
            | Self::Stopped(_)
            | Self::Mount(_)
            | Self::Io { .. } => Kind::Sandbox,
        }
    }
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Tells the user one line. That nobody listens, or that there is no room for it, is no reason to
/// end in the middle of a job, as `eprintln!` would.
pub fn say(line: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "wakebox: {line}");
}
