//! The result document.

use std::collections::BTreeMap;
use std::path::Path;

use cas::report::DataPath;
use cas::{RelPath, text::Text};
use serde::{Serialize, Serializer};

use crate::delta::DeltaDocument;
use crate::error::{Error, Kind};
use crate::exec::Ended;
use crate::exit_code;
use crate::mount_ops::Compiled;
use crate::output::{Hashed, HashedEntry, Mtime};
use crate::record::Told;

/// The result of a job, in the order of keys that the original writes; our own keys come last.
#[derive(Debug, Serialize)]
pub struct ResultDocument {
    /// How the job ended and what it cost.
    pub usage: Usage,
    /// Declared files whose content was asked for, sorted.
    pub inputs: Vec<RelPath>,
    /// Paths that the job owns at its end, sorted.
    pub outputs: Vec<RelPath>,
    /// Whether the time limit passed.
    #[serde(rename = "timed-out")]
    pub timed_out: bool,
    /// Where each output is kept, if staging is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub staging_files: Option<BTreeMap<String, Staged>>,
    /// The directory to remove once the staged files are gone, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub staging_root: Option<Text>,
    /// The host's name.
    #[serde(rename = "run-host")]
    pub run_host: String,
    /// Each output by content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hashed_files: Option<BTreeMap<String, HashedEntry>>,
    /// Whether the job had a view. Without one nothing was tracked.
    pub view: bool,
    /// How far the job was kept from the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// How file data moved.
    #[serde(rename = "data-path", skip_serializing_if = "Option::is_none")]
    pub data_path: Option<DataPath>,
    /// How many requests of each kind the kernel has sent to the view.
    #[serde(rename = "fuse-ops", skip_serializing_if = "Option::is_none")]
    pub fuse_ops: Option<BTreeMap<String, u64>>,
    /// A process outside the sandbox may have gone on writing.
    #[serde(rename = "late-writer", skip_serializing_if = "std::ops::Not::not")]
    pub late_writer: bool,
    /// What became of inputs that the job was free to change, if any.
    #[serde(flatten)]
    pub delta: Option<DeltaDocument>,
    /// Why there is no true result. Then the job's status is none, and nothing else is true either.
    #[serde(rename = "sandbox-error", skip_serializing_if = "Option::is_none")]
    pub sandbox_error: Option<SandboxFailure>,
    /// What the job touched, if that was asked for.
    #[serde(flatten)]
    pub record: Told,
    /// Outputs that were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub wanted: Vec<RelPath>,
    /// The id of the job, if it failed and was kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
    /// The last names that a failed job looked for in vain, in that order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub absent: Option<Vec<RelPath>>,
}

/// How far a job was kept from the host, beside its view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// Not at all: the host is what it is outside the workspace.
    Host,
    /// It had a root of its own, made of what the caller mounted.
    Root,
    /// It had programs of the host, and what the caller opened.
    Hermetic,
}

impl Isolation {
    /// Of a job with these mounts, as its caller has listed them.
    pub fn of(mounts: &Compiled) -> Self {
        match mounts.new_root {
            true => Self::Root,
            false => Self::Host,
        }
    }
}

/// A failure that is not the job's.
#[derive(Debug, Serialize)]
pub struct SandboxFailure {
    /// One line for the user.
    pub message: String,
    /// Whose failure it is.
    pub kind: Kind,
}

impl SandboxFailure {
    /// Tells of an error.
    pub fn new(error: &Error) -> Self {
        Self {
            message: error.to_string(),
            kind: error.kind(),
        }
    }
}

/// How a job ended and what it cost.
#[derive(Debug, Serialize)]
pub struct Usage {
    /// Exit status, or minus the number of the signal, or 124 after the time limit.
    pub status: i32,
    /// Largest resident set of a process, bytes.
    pub membytes: u64,
    /// Sizes of the input files that were opened, added up.
    pub inbytes: u64,
    /// Sizes of the output files, added up.
    pub outbytes: u64,
    /// Wall time from the start of the sandbox to its end, seconds.
    #[serde(serialize_with = "six_decimals")]
    pub runtime: f64,
    /// Processor time, user and system, seconds.
    #[serde(serialize_with = "six_decimals")]
    pub cputime: f64,
}

/// The original prints times with six decimals.
fn six_decimals<S: Serializer>(
    seconds: &f64,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_f64((seconds * 1e6).round() / 1e6)
}

/// One entry of `staging_files`.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Staged {
    /// A regular file.
    File {
        /// Its staging file, relative to where the job was started, or absolute.
        staging_path: Text,
        /// Permission bits as the job sees them.
        mode: u16,
        /// When it was last modified.
        #[serde(flatten)]
        mtime: Mtime,
    },
    /// A symbolic link.
    Symlink {
        /// Its target.
        target: Text,
        /// When it was last modified.
        #[serde(flatten)]
        mtime: Mtime,
    },
    /// A directory.
    Directory {
        /// Permission bits.
        mode: u16,
        /// When it was last modified.
        #[serde(flatten)]
        mtime: Mtime,
    },
}

impl Usage {
    /// What an end cost.
    pub fn new(ended: &Ended, inbytes: u64, outputs: &[Hashed]) -> Self {
        Self {
            status: exit_code::result_status(ended),
            membytes: ended.max_rss_bytes,
            inbytes,
            outbytes: out_bytes(outputs),
            runtime: ended.wall.as_secs_f64(),
            cputime: ended.cpu.as_secs_f64(),
        }
    }

    /// Of a job that was not run, or not truly: all figures are there, and none means anything.
    pub fn failed() -> Self {
        Self {
            status: exit_code::SANDBOX.into(),
            membytes: 0,
            inbytes: 0,
            outbytes: 0,
            runtime: 0.0,
            cputime: 0.0,
        }
    }
}

/// Sizes of the files among some outputs, added up; a hard-linked file counts once, and an input
/// that was never written to not at all.
pub fn out_bytes(outputs: &[Hashed]) -> u64 {
    let mut files = BTreeMap::new();
    for output in outputs {
        if let HashedEntry::File {
            staged: Some(staged),
            size,
            ..
        } = output.entry
        {
            files.insert(staged, size);
        }
    }
    files.values().sum()
}

/// The outputs by content, for the document.
pub fn hashed_files(outputs: &[Hashed]) -> BTreeMap<String, HashedEntry> {
    let key = |path: &RelPath| cas::text::encode(path.as_bytes()).into_owned();
    outputs
        .iter()
        .map(|output| (key(&output.path), output.entry.clone()))
        .collect()
}

/// The outputs by staging file, for the document.
pub fn staging_files(
    outputs: &[Hashed],
    names: &BTreeMap<RelPath, String>,
    root: &Path,
) -> BTreeMap<String, Staged> {
    let key = |path: &RelPath| cas::text::encode(path.as_bytes()).into_owned();
    let staged = |output: &Hashed| match &output.entry {
        // The content of a renamed input is in the store, and nowhere else.
        HashedEntry::File { mode, mtime, .. } => Some(Staged::File {
            staging_path: path_text(&root.join(names.get(&output.path)?)),
            mode: *mode,
            mtime: *mtime,
        }),
        HashedEntry::Symlink { target, mtime } => Some(Staged::Symlink {
            target: target.clone(),
            mtime: *mtime,
        }),
        HashedEntry::Directory { mode, mtime } => Some(Staged::Directory {
            mode: *mode,
            mtime: *mtime,
        }),
    };
    outputs
        .iter()
        .filter_map(|output| Some((key(&output.path), staged(output)?)))
        .collect()
}

/// A path of the real file system, as documents have it.
pub fn path_text(path: &Path) -> Text {
    use std::os::unix::ffi::OsStrExt;
    Text(path.as_os_str().as_bytes().into())
}

/// The host's name.
pub fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}
