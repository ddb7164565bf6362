//! A result, read back to be applied.

use std::collections::BTreeMap;
use std::path::Path;

use cas::delta::Delta;
use cas::directory::Root;
use cas::text::Text;
use cas::tree::{Entry, EntryKind};
use cas::{Digest, RelPath, Store, text};
use serde::Deserialize;

use crate::commands::print;
use crate::error::{Error, Result};

/// Longest link target that `symlink(2)` accepts.
const TARGET_MAX: usize = 4095;

/// What of a result makes the next tree. Everything else in it is passed over.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Document {
    view: bool,
    #[serde(default)]
    late_writer: bool,
    #[serde(rename = "hashed_files", default)]
    entries: BTreeMap<String, TypedEntry>,
    input_root: Option<String>,
    #[serde(default)]
    changed: BTreeMap<String, TypedChange>,
    #[serde(default)]
    deleted: Vec<RelPath>,
    root: Option<TypedRoot>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct TypedChange {
    renamed_from: Option<RelPath>,
}

#[derive(Debug, Deserialize)]
struct TypedRoot {
    mode: u16,
    #[serde(flatten)]
    mtime: TypedTime,
}

#[derive(Debug, Deserialize)]
struct TypedTime {
    mtime_sec: i64,
    mtime_nsec: i64,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum TypedEntry {
    File {
        hash: Digest,
        size: u64,
        mode: u16,
        #[serde(flatten)]
        mtime: TypedTime,
    },
    Symlink {
        target: Text,
        #[serde(flatten)]
        mtime: TypedTime,
    },
    Directory {
        mode: u16,
        #[serde(flatten)]
        mtime: TypedTime,
    },
}

/// Makes the next tree of a stored one and of the result of a job that started from it, and prints
/// its name. With `only`, what the job did elsewhere is left out.
pub(crate) fn apply(
    store: &Store,
    base: &Root,
    result: &Path,
    only: Option<&RelPath>,
) -> Result<u8> {
    let refuse = |why: String| Error::Outcome(format!("{}: {why}", result.display()));
    let document = read(result)?;
    document.check(base).map_err(refuse)?;
    let delta = document.mean().map_err(refuse)?;
    let applied = match only {
        Some(top) => delta.only(top),
        None => Ok(delta),
    };
    let applied = applied.and_then(|delta| {
        delta.check(store)?;
        delta.apply(base, store)
    });
    let next = applied.map_err(|error| refuse(error.to_string()))?;
    print(format_args!("{next}"))?;
    Ok(0)
}

fn read(path: &Path) -> Result<Document> {
    let bytes = std::fs::read(path).map_err(|error| Error::io("read", path, error))?;
    serde_json::from_slice(&bytes).map_err(|error| Error::Spec {
        path: path.into(),
        message: format!("is no result of a job: {error}"),
    })
}

impl Document {
    fn check(&self, base: &Root) -> std::result::Result<(), String> {
        let root: Option<Root> = self.input_root.as_ref().and_then(|root| root.parse().ok());
        match root {
            _ if !self.view => Err("the job had no view, or there is no true result".into()),
            _ if self.late_writer => Err("a process may have gone on writing".into()),
            Some(root) if root.digest != base.digest => {
                Err(format!("the job started from another tree, {root}"))
            }
            _ => Ok(()),
        }
    }

    fn mean(self) -> std::result::Result<Delta, String> {
        let mut delta = Delta {
            deleted: self.deleted.into_iter().collect(),
            ..Delta::default()
        };
        for (path, change) in self.changed {
            if let Some(from) = change.renamed_from {
                delta.renamed.insert(parse(&path)?, from);
            }
        }
        for (path, entry) in self.entries {
            let path = parse(&path)?;
            let entry = entry.mean(path.clone())?;
            delta.entries.insert(path, entry);
        }
        if let Some(root) = self.root {
            delta.root = Some((root.mode & 0o7777, root.mtime.nanoseconds()?));
        }
        Ok(delta)
    }
}

fn parse(path: &str) -> std::result::Result<RelPath, String> {
    RelPath::parse(&text::decode(path)).map_err(|reason| format!("path {path:?} {reason}"))
}

impl TypedTime {
    fn nanoseconds(&self) -> std::result::Result<i64, String> {
        let seconds = self.mtime_sec.checked_mul(1_000_000_000);
        let time = seconds.and_then(|seconds| seconds.checked_add(self.mtime_nsec));
        time.ok_or_else(|| {
            format!(
                "time {} is not within the years 1678 to 2262",
                self.mtime_sec
            )
        })
    }
}

impl TypedEntry {
    fn mean(self, path: RelPath) -> std::result::Result<Entry, String> {
        let (mode, mtime, kind) = match self {
            Self::File {
                hash,
                size,
                mode,
                mtime,
            } => {
                let digest = hash;
                (mode, mtime, EntryKind::File { digest, size })
            }
            // As every file system shows it: a link's own bits mean nothing.
            Self::Symlink { target, mtime } => {
                let target = target.0;
                if target.is_empty() || target.len() > TARGET_MAX || target.contains(&0) {
                    return Err(format!("'{path}': no link can have this target"));
                }
                let target = target.into();
                (0o777, mtime, EntryKind::Symlink { target })
            }
            Self::Directory { mode, mtime } => (mode, mtime, EntryKind::Directory),
        };
        let mtime = mtime.nanoseconds();
        Ok(Entry {
            mode: mode & 0o7777,
            mtime: mtime.map_err(|reason| format!("'{path}': {reason}"))?,
            kind,
            path,
        })
    }
}
