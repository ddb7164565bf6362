//! What a job's file system is made of, besides the view.

use std::path::PathBuf;

/// One mount operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountOp {
    /// The view of the workspace.
    Workspace {
        /// Where.
        destination: PathBuf,
    },
    /// A directory or file of the host.
    Bind {
        /// What.
        source: PathBuf,
        /// Where.
        destination: PathBuf,
        /// Whether it cannot be written to.
        read_only: bool,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// Where.
        destination: PathBuf,
    },
    /// A directory, with those above it.
    CreateDir {
        /// Where.
        destination: PathBuf,
    },
    /// An empty file.
    CreateFile {
        /// Where.
        destination: PathBuf,
    },
    /// An image.
    Squashfs {
        /// Its file.
        source: PathBuf,
        /// Where; the image itself may say.
        destination: Option<PathBuf>,
    },
}
