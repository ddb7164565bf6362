//! The inputs of a mount: one tree of several directories, of which the first wins.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use cas::manifest::Manifest;
use cas::owners::Owned;
use cas::{RelPath, Store};

use crate::error::{Error, Result};
use crate::ingest::{self, Coverage, Found, FoundKind, Index, Ingestion, Progress};
use crate::sandbox;
use crate::workspace::coarse_now;

/// Puts everything below the directories into the store. Directories of the same path become one,
/// with the attributes of the first; anything else hides what has its path further down.
/// `exclude` are directories that are passed over wherever they are met.
pub(super) fn take(
    store: &Store,
    sources: &[PathBuf],
    exclude: &[&Path],
) -> Result<(Manifest, Vec<Owned>)> {
    let now_ns = coarse_now();
    sandbox::start_hashing_threads();
    store.sweep_imports();
    let exclude = exclude.iter().map(|path| identity(path));
    let exclude = exclude.collect::<Result<Vec<_>>>()?;
    let mut union = Union::default();
    let mut manifest = Manifest::default();
    let mut owners = Vec::new();
    let progress = Progress::on_terminal();
    for source in sources {
        let mut found = ingest::select(source, &[".".into()], &exclude)?;
        found.retain(|found| union.admits(&found.path));
        union.add(&found);
        owners.extend(owners_of(source, &found, owners.is_empty()));
        let index = Index::load(store.root(), source);
        let ingestion = Ingestion {
            store,
            workspace: source,
            index: &index,
            writable: &|_| false,
            now_ns,
            progress: &progress,
        };
        let ingested = ingest::ingest(&ingestion, &found)?;
        manifest.entries.extend(ingested.manifest.entries);
        if let Err(error) = index.save(store, Coverage::Part) {
            tracing::warn!("the index of unchanged files is not saved: {error}");
        }
    }
    Ok((manifest, owners))
}

/// Whom inputs belong to that are not ours. What is gone by now is found missing elsewhere.
fn owners_of(source: &Path, found: &[Found], with_root: bool) -> Vec<Owned> {
    let ours = (
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    );
    let paths = found.iter().map(|found| Some(&found.path));
    let paths = with_root.then_some(None).into_iter().chain(paths);
    let owned = paths.filter_map(|path| {
        let place = path.map_or(source.to_owned(), |path| source.join(path.as_path()));
        let is = place.symlink_metadata().ok()?;
        let (uid, gid) = (is.uid(), is.gid());
        let path = path.cloned();
        ((uid, gid) != ours).then_some(Owned { path, uid, gid })
    });
    owned.collect()
}

fn identity(path: &Path) -> Result<(u64, u64)> {
    let is = path.metadata();
    let is = is.map_err(|error| Error::io("examine", path, error))?;
    Ok((is.dev(), is.ino()))
}

/// The paths of the directories so far.
#[derive(Default)]
struct Union {
    kinds: HashMap<RelPath, FoundKind>,
}

impl Union {
    /// Whether a path can be seen below what is there already.
    fn admits(&self, path: &RelPath) -> bool {
        if self.kinds.is_empty() {
            return true; // the first directory, and most mounts have no other
        }
        let depth = path.names().count();
        let is_open = |length| {
            let above = RelPath::from_names(path.names().take(length));
            let kind = above.and_then(|above| self.kinds.get(&above));
            kind.is_none_or(|kind| *kind == FoundKind::Directory)
        };
        !self.kinds.contains_key(path) && (1..depth).all(is_open)
    }

    fn add(&mut self, found: &[Found]) {
        let kinds = found
            .iter()
            .map(|found| (found.path.clone(), found.attributes.kind));
        self.kinds.extend(kinds);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cas::manifest::{Declared, DeclaredKind};

    fn write(root: &Path, path: &str, content: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::File::create(&path).unwrap();
        std::io::Write::write_all(
            &mut std::fs::File::options().write(true).open(&path).unwrap(),
            content.as_bytes(),
        )
        .unwrap();
    }

    fn content(store: &Store, declared: &Declared) -> String {
        match declared.kind {
            DeclaredKind::File(digest) | DeclaredKind::Symlink(digest) => {
                String::from_utf8(store.read(digest).unwrap()).unwrap()
            }
            _ => "/".into(),
        }
    }

    #[test]
    fn directories_merge_and_the_first_wins() {
        let root = tempfile::tempdir().unwrap();
        let place = |name: &str| root.path().join(name);
        for (path, text) in [
            ("a/both/f", "upper"),
            ("a/file", "a file"),
            ("a/.wakebox/log", "not an input"),
            ("b/both/f", "lower"),
            ("b/both/g", "lower"),
            ("b/file/below", "hidden by a file"),
            ("b/only/h", "lower"),
            ("c/only/h", "lowest"),
            ("c/link/x", "hidden by a link"),
        ] {
            write(root.path(), path, text);
        }
        std::os::unix::fs::symlink("both", place("b/link")).unwrap();
        let store = Store::open(&place("store")).unwrap();
        let sources = [place("a"), place("b"), place("c")];
        let (manifest, owners) = take(&store, &sources, &[&place("a/.wakebox")]).unwrap();
        assert_eq!(owners, []);
        let mut entries: Vec<_> = manifest
            .entries
            .iter()
            .map(|entry| {
                (
                    entry.path.as_path().display().to_string(),
                    content(&store, entry),
                )
            })
            .collect();
        entries.sort();
        let expected = [
            ("both", "/"),
            ("both/f", "upper"),
            ("both/g", "lower"),
            ("file", "a file"),
            ("link", "both"),
            ("only", "/"),
            ("only/h", "lower"),
        ];
        let expected = expected.map(|(path, text)| (path.to_owned(), text.to_owned()));
        assert_eq!(entries, expected);
        assert!(manifest.resolve(&store).is_ok());
    }
}
