//! What of a job's outputs is wanted, and what is published of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use cas::changes::InputChanges;
use cas::manifest::{Declared, DeclaredKind};
use cas::{RelPath, Store};

use super::cow;
use crate::error::{Error, Result, say};
use crate::output::{Hashed, HashedEntry};
use crate::publish::{Obstacle, Publish, PublishError, PublishKind};

pub(crate) fn wanted(workspace: &Path, outputs: &[OsString]) -> Result<Vec<RelPath>> {
    let parse = |output: &OsString| {
        let path = Path::new(output);
        let path = path.strip_prefix(workspace).unwrap_or(path);
        RelPath::parse(path.as_os_str().as_bytes()).map_err(|reason| {
            Error::Usage(format!("output '{}' {reason}", output.to_string_lossy()))
        })
    };
    outputs.iter().map(parse).collect()
}

/// What the job made, and what it moved along with a directory that it renamed.
pub(super) fn publishable(
    declared: &[Declared],
    outputs: &[Hashed],
    changes: &InputChanges,
    store: &Store,
) -> Result<Vec<Publish>> {
    let made: BTreeSet<_> = outputs.iter().map(|output| &output.path).collect();
    let moved = cow::moved_along(declared, changes, store)?;
    let moved = moved
        .into_iter()
        .filter(|moved| !made.contains(&moved.path));
    Ok(outputs.iter().map(to_publish).chain(moved).collect())
}

/// A file that the job was free to rewrite, and left as it was, is no output.
pub(super) fn has_changed(output: &Hashed, writable: &BTreeMap<RelPath, Declared>) -> bool {
    match (&output.entry, writable.get(&output.path)) {
        (HashedEntry::File { hash, mode, .. }, Some(before)) => {
            DeclaredKind::WritableFile(*hash) != before.kind || *mode != before.mode
        }
        _ => true,
    }
}

pub(super) fn is_wanted(output: &Publish, wanted: &[RelPath]) -> bool {
    wanted.is_empty() || wanted.iter().any(|path| output.path.starts_with(path))
}

/// Every wanted path must have been made, or hold something that was.
pub(crate) fn check_wanted<'p>(
    wanted: &[RelPath],
    made: impl Iterator<Item = &'p RelPath> + Clone,
) -> Result<()> {
    let is_made = |path: &&RelPath| made.clone().any(|made| made.starts_with(path));
    match wanted.iter().find(|path| !is_made(path)) {
        Some(path) => Err(Error::NotMade(path.clone())),
        None => Ok(()),
    }
}

/// Refuses to replace what a git repository of the workspace remembers, unless it was asked for. A
/// job that works with git makes a repository of its own in its view, and never sees that there is
/// one in the workspace: publishing it would lose the history.
pub(super) fn spare_repositories(
    workspace: &Path,
    wanted: &[RelPath],
    outputs: &[Publish],
) -> Result<()> {
    let refuse = |output: &Publish| {
        let names: Vec<_> = output.path.names().collect();
        let at = names.iter().position(|name| name.as_bytes() == b".git")?;
        let repository = RelPath::from_names(names[..=at].iter().copied())?;
        let asked = wanted.iter().any(|path| path.starts_with(&repository));
        let there = workspace
            .join(repository.as_path())
            .symlink_metadata()
            .is_ok();
        (there && !asked).then(|| output.path.clone())
    };
    match outputs.iter().find_map(refuse) {
        Some(path) => Err(PublishError::Refused {
            path,
            obstacle: Obstacle::Repository,
        }
        .into()),
        None => Ok(()),
    }
}

/// Bits by which a file lends the rights of whoever has published it.
const LENT: u16 = 0o6000;

/// Says which outputs lose such bits.
pub(super) fn tell_lent(outputs: &[Hashed], wanted: &[RelPath]) {
    for output in outputs {
        let lends = matches!(output.entry, HashedEntry::File { mode, .. } if mode & LENT != 0);
        if lends && is_wanted(&to_publish(output), wanted) {
            let path = &output.path;
            say(format_args!(
                "'{path}' is published without its set-user-ID and set-group-ID bits"
            ));
        }
    }
}

pub(crate) fn to_publish(output: &Hashed) -> Publish {
    let kind = match &output.entry {
        HashedEntry::File {
            hash, mode, mtime, ..
        } => PublishKind::File {
            digest: *hash,
            mode: *mode & !LENT,
            mtime: mtime.in_nanoseconds(),
        },
        HashedEntry::Symlink { target, mtime } => PublishKind::Symlink {
            target: target.0.clone().into(),
            mtime: mtime.in_nanoseconds(),
        },
        HashedEntry::Directory { mode, mtime } => PublishKind::Directory {
            mode: *mode,
            mtime: mtime.in_nanoseconds(),
        },
    };
    Publish {
        path: output.path.clone(),
        kind,
    }
}
