//! What a job did: the document that goes from the daemon to the client.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::changes::InputChanges;
use crate::digest::Digest;
use crate::name::RelPath;
use crate::record::Record;
use crate::text::Text;

/// Everything a view knows when its job has ended. All lists are sorted by path, and equal jobs
/// give equal reports but for `requests`: processes that ask at the same time may ask twice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Declared files that were opened for reading or executed, and links that were followed or
    /// read, unless the job owns that path at the end.
    pub inputs: Vec<RelPath>,
    /// Sizes of the files among `inputs`, added up. Bytes, at the time of opening: with
    /// passthrough the daemon does not see reads.
    pub in_bytes: u64,
    /// What the job made and did not remove, and what it changed of its inputs.
    pub outputs: Vec<Output>,
    /// What became of inputs that the job was free to change.
    pub changes: InputChanges,
    /// Whether reads and writes went through the daemon or straight to the files.
    pub data_path: DataPath,
    /// A process outside the sandbox may still be writing: the file system could not be shut
    /// down in time.
    pub late_writer: bool,
    /// How many requests of each kind the kernel has sent, by its names for them. What it answers
    /// from its caches is not among them.
    pub requests: BTreeMap<String, u64>,
    /// Why what the job saw cannot be trusted: an input could not be served.
    pub failure: Option<String>,
    /// What it touched, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<Record>,
    /// The last names that it looked for in vain, in that order, if they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<RelPath>,
}

/// How file data moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DataPath {
    /// The kernel moves it between the job and the backing file.
    Passthrough,
    /// The daemon answers reads and writes; the kernel caches pages.
    #[default]
    Cached,
}

/// One path that the job owns at its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Where it is in the view.
    pub path: RelPath,
    /// What it is.
    #[serde(flatten)]
    pub entry: StagingEntry,
}

/// What an [`Output`] is. Sockets, fifos and devices are never outputs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum StagingEntry {
    /// A regular file. Size and modification time are those of the staging file.
    File {
        /// Name of the staging file in the job's staging directory. Names of one hard-linked
        /// file share it.
        staged: u64,
        /// Permission bits as the job sees them.
        mode: u16,
    },
    /// A regular file whose content is an input's: one that was renamed, linked or given other
    /// attributes, and never written to.
    Input {
        /// The input's content, which the store has.
        digest: Digest,
        /// Length in bytes.
        size: u64,
        /// Permission bits as the job sees them.
        mode: u16,
        /// Modification time, whole seconds since the epoch.
        mtime_sec: i64,
        /// Modification time, nanoseconds on top.
        mtime_nsec: u32,
        /// Names of one hard-linked file share this number.
        inode: u64,
    },
    /// A symbolic link.
    Symlink {
        /// Its target.
        target: Text,
        /// Modification time, whole seconds since the epoch.
        mtime_sec: i64,
        /// Modification time, nanoseconds on top.
        mtime_nsec: u32,
    },
    /// A directory.
    Directory {
        /// Permission bits.
        mode: u16,
        /// Modification time, whole seconds since the epoch.
        mtime_sec: i64,
        /// Modification time, nanoseconds on top.
        mtime_nsec: u32,
    },
}
