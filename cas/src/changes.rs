//! What a job did to inputs that it was free to change.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::name::RelPath;

/// Inputs that are not what or where they were declared to be. Both lists are sorted by path.
///
/// The paths of what is there are those at the end of the job. The paths of what was there are
/// those of the declaration, even where a directory above has been renamed since. A directory that
/// was renamed has one row: what it held and is not told of has moved with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputChanges {
    /// Inputs that are still there, or whose place a file or link of the job has taken.
    pub changed: Vec<ChangedInput>,
    /// Inputs that are no more, by their declared paths. A directory stands for all that was
    /// declared in it, but for what has been renamed.
    pub deleted: Vec<RelPath>,
    /// The attributes of the root, if they are not the declared ones.
    pub root: Option<RootAttributes>,
}

/// One input that is not what or where it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedInput {
    /// Where it is.
    pub path: RelPath,
    /// Where it was declared, if its name there is gone.
    pub renamed_from: Option<RelPath>,
    /// What became of it.
    pub change: Change,
}

/// What became of an input, wherever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Nothing: same content, same attributes. One that was written anew, with the bytes and the mode
    /// that it had, counts as unchanged, too, whatever its time.
    Unchanged,
    /// Mode, owner or time; not the content.
    Metadata,
    /// The content: other bytes, another target, or a link where a file was.
    Modified,
    /// The job has written to it. Whether that has changed it is for who hashes it to find out.
    Written {
        /// The bytes that it had.
        digest: Digest,
        /// The mode that it had.
        mode: u16,
    },
}

/// Attributes of the root directory, which has no path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootAttributes {
    /// Permission bits.
    pub mode: u16,
    /// Modification time, whole seconds since the epoch.
    pub mtime_sec: i64,
    /// Modification time, nanoseconds on top.
    pub mtime_nsec: u32,
}
