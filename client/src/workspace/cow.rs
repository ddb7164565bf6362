//! Inputs of `run` that the job may change.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use cas::changes::InputChanges;
use cas::manifest::{Declared, DeclaredKind};
use cas::protocol::CopyOnWrite;
use cas::{RelPath, Store};

use crate::error::{Error, Result, say};
use crate::publish::{Publish, PublishKind};
use crate::spec::changeable;

/// The rule for what `--cow` names.
pub(super) fn rule(workspace: &Path, paths: &[OsString]) -> Result<CopyOnWrite> {
    let parse = |path: &OsString| {
        let inside = Path::new(path).strip_prefix(workspace);
        let inside = inside.unwrap_or(Path::new(path)).as_os_str();
        RelPath::parse(inside.as_bytes())
            .map_err(|reason| Error::Usage(format!("--cow '{}' {reason}", path.to_string_lossy())))
    };
    let paths = paths.iter().map(parse).collect::<Result<_>>()?;
    changeable::below(paths).map_err(Error::Usage)
}

/// Those of the paths that are there. One that is not will be the job's own if it makes it.
pub(super) fn existing(workspace: &Path, paths: &[OsString]) -> Vec<OsString> {
    let exists = |path: &&OsString| workspace.join(path).symlink_metadata().is_ok();
    paths.iter().filter(exists).cloned().collect()
}

/// What lies at another path only because a directory above it was renamed: no output tells of it,
/// and it is to be published all the same.
pub(super) fn moved_along(
    declared: &[Declared],
    changes: &InputChanges,
    store: &Store,
) -> Result<Vec<Publish>> {
    let deleted = changes.deleted.iter().map(|from| (from, None));
    let renamed = changes.changed.iter();
    let renamed = renamed.filter_map(|row| Some((row.renamed_from.as_ref()?, Some(&row.path))));
    let mut cuts: Vec<_> = deleted.chain(renamed).collect();
    // What was renamed out of a directory did not move along with it.
    cuts.sort_by_key(|(from, _)| std::cmp::Reverse(from.names().count()));
    let mut left: BTreeMap<&RelPath, &Declared> =
        declared.iter().map(|entry| (&entry.path, entry)).collect();
    let mut moved = Vec::new();
    for (from, to) in cuts {
        let below = left.range::<RelPath, _>(from..).map(|(path, _)| *path);
        let below: Vec<_> = below.take_while(|path| path.starts_with(from)).collect();
        for entry in below.iter().filter_map(|path| left.remove(*path)) {
            if let Some(path) = to.and_then(|to| rebased(&entry.path, from, to)) {
                moved.extend(published(entry, path, store)?);
            }
        }
    }
    Ok(moved)
}

fn rebased(path: &RelPath, from: &RelPath, to: &RelPath) -> Option<RelPath> {
    let rest = path.names().skip(from.names().count());
    RelPath::from_names(to.names().chain(rest))
}

fn published(entry: &Declared, path: RelPath, store: &Store) -> Result<Option<Publish>> {
    let Declared { mode, mtime, .. } = *entry;
    let kind = match entry.kind {
        DeclaredKind::File(digest) => PublishKind::File {
            digest,
            mode,
            mtime,
        },
        DeclaredKind::Symlink(target) => PublishKind::Symlink {
            target: store.read(target)?.into(),
            mtime,
        },
        DeclaredKind::Directory => PublishKind::Directory { mode, mtime },
        DeclaredKind::WritableFile(_) => return Ok(None),
    };
    Ok(Some(Publish { path, kind }))
}

/// Says what was not done in the workspace: nothing is ever deleted there.
pub(super) fn tell(changes: &InputChanges) {
    let renamed = changes.changed.iter();
    let renamed = renamed.filter(|row| row.renamed_from.is_some()).count();
    let deleted = changes.deleted.len();
    if deleted + renamed > 0 {
        say(format_args!(
            "the job deleted {deleted} inputs and renamed {renamed}; the workspace keeps them \
             under their old names"
        ));
    }
}
