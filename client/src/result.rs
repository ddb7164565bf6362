//! The result document, and how it comes to its place whole.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use cas::report::DataPath;
use cas::{RelPath, text::Text};
use serde::{Serialize, Serializer};

use crate::error::{Error, Result};
use crate::exec::Ended;
use crate::exit_code;
use crate::output::{Hashed, HashedEntry};

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
    /// How file data moved.
    #[serde(rename = "data-path", skip_serializing_if = "Option::is_none")]
    pub data_path: Option<DataPath>,
    /// A process outside the sandbox may have gone on writing.
    #[serde(rename = "late-writer", skip_serializing_if = "std::ops::Not::not")]
    pub late_writer: bool,
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
        /// Modification time, whole seconds since the epoch.
        mtime_sec: i64,
        /// Modification time, nanoseconds on top.
        mtime_nsec: i64,
    },
    /// A symbolic link.
    Symlink {
        /// Its target.
        target: Text,
        /// Modification time, whole seconds since the epoch.
        mtime_sec: i64,
        /// Modification time, nanoseconds on top.
        mtime_nsec: i64,
    },
    /// A directory.
    Directory {
        /// Permission bits.
        mode: u16,
        /// Modification time, whole seconds since the epoch.
        mtime_sec: i64,
        /// Modification time, nanoseconds on top.
        mtime_nsec: i64,
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
}

/// Sizes of the files among some outputs, added up; a hard-linked file counts once.
pub fn out_bytes(outputs: &[Hashed]) -> u64 {
    let mut files = BTreeMap::new();
    for output in outputs {
        if let HashedEntry::File { staged, size, .. } = output.entry {
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
        HashedEntry::File {
            mode,
            mtime_sec,
            mtime_nsec,
            ..
        } => Some(Staged::File {
            staging_path: path_text(&root.join(names.get(&output.path)?)),
            mode: *mode,
            mtime_sec: *mtime_sec,
            mtime_nsec: *mtime_nsec,
        }),
        HashedEntry::Symlink {
            target,
            mtime_sec,
            mtime_nsec,
        } => Some(Staged::Symlink {
            target: target.clone(),
            mtime_sec: *mtime_sec,
            mtime_nsec: *mtime_nsec,
        }),
        HashedEntry::Directory {
            mode,
            mtime_sec,
            mtime_nsec,
        } => Some(Staged::Directory {
            mode: *mode,
            mtime_sec: *mtime_sec,
            mtime_nsec: *mtime_nsec,
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

/// A file that will be written. Made before the job runs, so that a path that cannot be written
/// is found out before and not after; it appears under its name whole, or not at all.
#[derive(Debug)]
pub enum Pending {
    /// A regular file, or none yet: a temporary one beside it.
    Beside(tempfile::NamedTempFile, PathBuf),
    /// A pipe or device, which cannot be replaced.
    Direct(std::fs::File, PathBuf),
}

impl Pending {
    /// Prepares to write to a path.
    pub fn create(path: &Path) -> Result<Self> {
        let failed = |error| Error::io("write the result to", path, error);
        if let Some(own) = own_output(path).map_err(failed)? {
            return Ok(Self::Direct(own, path.into()));
        }
        // Through a link: the name that is replaced is that of the file.
        let resolved = path.canonicalize();
        let path = resolved.as_deref().unwrap_or(path);
        let failed = |error| Error::io("write the result to", path, error);
        if path
            .metadata()
            .is_ok_and(|is| !is.is_file() && !is.is_dir())
        {
            let file = std::fs::OpenOptions::new()
                .write(true)
                .open(path)
                .map_err(failed)?;
            return Ok(Self::Direct(file, path.into()));
        }
        if path.is_dir() {
            return Err(failed(std::io::ErrorKind::IsADirectory.into()));
        }
        let directory = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let temporary = tempfile::Builder::new()
            .prefix(".wakebox-result-")
            .permissions(std::fs::Permissions::from_mode(0o664))
            .tempfile_in(directory)
            .map_err(failed)?;
        Ok(Self::Beside(temporary, path.into()))
    }

    /// Writes the document and gives it its name.
    pub fn commit(self, document: &impl Serialize) -> Result<()> {
        let path = match &self {
            Self::Beside(_, path) | Self::Direct(_, path) => path.clone(),
        };
        let failed = |error| Error::io("write the result to", &path, error);
        let bytes = serde_json::to_vec(document).map_err(|error| failed(error.into()))?;
        match self {
            Self::Direct(mut file, _) => file.write_all(&bytes).map_err(failed),
            Self::Beside(mut temporary, _) => {
                temporary.write_all(&bytes).map_err(failed)?;
                temporary
                    .persist(&path)
                    .map(drop)
                    .map_err(|error| failed(error.error))
            }
        }
    }
}

/// Our own standard output or error, if the path names it, as `/dev/stdout` does. What the job
/// printed is in the same file, so the document goes behind it and replaces nothing.
fn own_output(path: &Path) -> std::io::Result<Option<std::fs::File>> {
    let Ok(named) = path.metadata() else {
        return Ok(None);
    };
    for own in [rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let Ok(is) = rustix::fs::fstat(own) else {
            continue;
        };
        if (is.st_dev, is.st_ino) == (named.dev(), named.ino()) {
            return Ok(Some(own.try_clone_to_owned()?.into()));
        }
    }
    Ok(None)
}
