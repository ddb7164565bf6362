//! Manifests: what they say, and what becomes of them.

use super::*;
use crate::directory;
use crate::manifest::document::MAGIC;
use crate::tree::{Entry, EntryKind, NodeIndex};
use proptest::prelude::*;

fn of(entries: Vec<Declared>) -> Manifest {
    let input_root = None;
    Manifest {
        input_root,
        entries,
    }
}

fn declared(path: &str, kind: DeclaredKind) -> Declared {
    Declared {
        path: RelPath::parse(path.as_bytes()).unwrap(),
        mode: 0o644,
        mtime: -5,
        kind,
    }
}

fn store() -> (tempfile::TempDir, Store) {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    (root, store)
}

#[test]
fn missing_blobs_are_named_with_path_and_hash_and_counted() {
    let (_root, store) = store();
    let digest = Digest::of(b"gone");
    let entries = ["a", "b", "c"].map(|path| declared(path, DeclaredKind::File(digest)));
    let error = Manifest {
        entries: entries.into(),
        ..Manifest::default()
    }
    .resolve(&store)
    .unwrap_err()
    .to_string();
    let expected = format!("input 'a': blob {digest} is not in the store (and 2 more inputs)");
    assert_eq!(error, expected);
}

/// What cannot be had is told of the first path, be it a blob or what is in it.
#[test]
fn the_first_of_several_failures_is_told() {
    let (_root, store) = store();
    let staging = store.new_staging("test").unwrap();
    let empty = store.put_bytes(b"", &staging).unwrap();
    let gone = Digest::of(b"gone");
    let link = declared("z", DeclaredKind::Symlink(empty));
    let file = declared("a", DeclaredKind::File(gone));
    let told = |entries: [&Declared; 2]| {
        let manifest = of(entries.map(Declared::clone).into());
        manifest.resolve(&store).unwrap_err().to_string()
    };
    assert!(told([&link, &file]).contains("'z'"));
    assert!(told([&file, &link]).contains("'a'"));
}

#[test]
fn a_path_that_nobody_writes_so_is_damage() {
    let good = of(vec![declared("a/b", DeclaredKind::Directory)]).encode();
    assert_eq!(Manifest::decode(&good).unwrap().entries.len(), 1);
    for (path, reason) in [
        ("a//", "damaged"),
        ("./a", "damaged"),
        ("../", "contains '..'"),
    ] {
        let mut bytes = good.clone();
        let at = bytes.len() - 3;
        bytes[at..].copy_from_slice(path.as_bytes());
        let error = Manifest::decode(&bytes).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn link_targets_come_from_blobs_and_must_be_targets() {
    let (_root, store) = store();
    let staging = store.new_staging("test").unwrap();
    let link = |target: &[u8]| {
        let digest = store.put_bytes(target, &staging).unwrap();
        Manifest {
            entries: vec![declared("l", DeclaredKind::Symlink(digest))],
            ..Manifest::default()
        }
        .resolve(&store)
    };
    let tree = link(b"x/y").unwrap().tree;
    let node = tree.get(tree::NodeIndex(1)).unwrap();
    assert_eq!(node.kind, tree::NodeKind::Symlink { target: b"x/y" });
    for bad in [&b""[..], b"a\0b", &[b'x'; 5000]] {
        assert!(matches!(link(bad), Err(ManifestError::Target { .. })));
    }
}

#[test]
fn a_writable_file_is_not_in_the_tree_but_its_directory_is() {
    let (_root, store) = store();
    let digest = store
        .put_bytes(b"x", &store.new_staging("test").unwrap())
        .unwrap();
    let entries = vec![declared("d/w", DeclaredKind::WritableFile(digest))];
    let resolved = of(entries).resolve(&store).unwrap();
    assert_eq!(resolved.tree.len(), 2);
    assert_eq!(resolved.writable.len(), 1);
}

/// Regression: each of them asked for the directory, with its own time, and the tree refused a
/// directory with two.
#[test]
fn writable_files_of_different_times_share_an_undeclared_directory() {
    let (_root, store) = store();
    let digest = store
        .put_bytes(b"x", &store.new_staging("test").unwrap())
        .unwrap();
    let file = |path, mtime| Declared {
        mtime,
        ..declared(path, DeclaredKind::WritableFile(digest))
    };
    let entries = vec![file("d/a", 7), file("d/b", 8), file("d/e/c", 9)];
    let resolved = of(entries).resolve(&store).unwrap();
    let directory = resolved.tree.get(tree::NodeIndex(1)).unwrap();
    assert_eq!((directory.name, directory.mtime), (&b"d"[..], 7));
    assert_eq!(resolved.tree.len(), 3);
    assert_eq!(resolved.writable.len(), 3);
}

#[test]
fn an_input_root_lies_under_what_is_declared() {
    let (_root, store) = store();
    let staging = store.new_staging("test").unwrap();
    let digest = store.put_bytes(b"x", &staging).unwrap();
    let file = |path| declared(path, DeclaredKind::File(digest));
    let base = of(vec![file("d/a"), file("d/b"), file("w/x")])
        .resolve(&store)
        .unwrap();
    let root = directory::store(&base.tree.with_root(0o711, 3), &store).unwrap();
    let writable = |path| declared(path, DeclaredKind::WritableFile(digest));
    let manifest = |entries| Manifest {
        input_root: Some(root),
        entries,
    };
    let resolved = manifest(vec![]).resolve(&store).unwrap();
    assert_eq!(
        resolved.tree.get(tree::NodeIndex::ROOT).unwrap().mode,
        0o711
    );
    let entries = vec![writable("d/a"), writable("w/y"), file("d/c")];
    let resolved = manifest(entries).resolve(&store).unwrap();
    let path = |index| {
        resolved
            .tree
            .path(tree::NodeIndex(index))
            .unwrap()
            .to_string()
    };
    let paths: Vec<_> = (1..resolved.tree.len() as u32).map(path).collect();
    assert_eq!(paths, ["d", "w", "d/b", "d/c", "w/x"]);
    assert_eq!(resolved.writable.len(), 2);
}

/// A tree of these entries, made one by one: what is read from a document has to become the same.
fn by_entries(manifest: &Manifest, size: u64) -> Result<Tree, TreeError> {
    let mut writable = Vec::new();
    let mut entries = Vec::new();
    for entry in &manifest.entries {
        let kind = match entry.kind {
            DeclaredKind::File(digest) => EntryKind::File { digest, size },
            DeclaredKind::Symlink(_) => EntryKind::Symlink {
                target: b"x"[..].into(),
            },
            DeclaredKind::Directory => EntryKind::Directory,
            DeclaredKind::WritableFile(_) => {
                writable.push(entry);
                continue;
            }
        };
        let (path, mode, mtime) = (entry.path.clone(), entry.mode, entry.mtime);
        entries.push(Entry {
            path,
            mode,
            mtime,
            kind,
        });
    }
    for file in writable {
        let mut names: Vec<_> = file.path.names().collect();
        names.pop();
        let Some(path) = RelPath::from_names(names) else {
            continue;
        };
        if entries.iter().all(|entry| entry.path != path) {
            entries.push(Entry {
                path,
                mode: tree::IMPLICIT_DIRECTORY_MODE,
                mtime: file.mtime,
                kind: EntryKind::Directory,
            });
        }
    }
    Tree::build(entries)
}

fn nodes(tree: &Tree) -> Vec<String> {
    let all = (0..tree.len() as u32).map(NodeIndex);
    all.map(|at| format!("{:?} {:?}", tree.path(at), tree.get(at)))
        .collect()
}

proptest! {
    #[test]
    fn a_document_becomes_the_tree_of_its_entries(
        rows in prop::collection::vec(("[ab]{1,2}(/[ab.]{1,2}){0,2}", 0..3i64, 0..9u8), 0..12),
    ) {
        let (_root, store) = store();
        let digest = store.put_bytes(b"x", &store.new_staging("test").unwrap()).unwrap();
        let entries = rows.iter().filter_map(|(path, mtime, kind)| {
            let kind = match kind {
                0..4 => DeclaredKind::File(digest),
                4..6 => DeclaredKind::WritableFile(digest),
                6 => DeclaredKind::Symlink(digest),
                _ => DeclaredKind::Directory,
            };
            let path = RelPath::parse(path.as_bytes()).ok()?;
            Some(Declared { path, mode: 0o640, mtime: *mtime, kind })
        });
        let manifest = of(entries.collect());
        match (manifest.resolve(&store), by_entries(&manifest, 1)) {
            (Ok(resolved), Ok(expected)) => {
                prop_assert_eq!(nodes(&resolved.tree), nodes(&expected));
                let is_writable = |row: &&Declared| matches!(row.kind, DeclaredKind::WritableFile(_));
                let writable = manifest.entries.iter().filter(is_writable).map(|row| &row.path);
                prop_assert!(resolved.writable.iter().map(|entry| &entry.path).eq(writable));
            }
            (Err(error), Err(expected)) => prop_assert_eq!(error.to_string(), expected.to_string()),
            (one, other) => prop_assert!(false, "{:?} {:?}", one, other),
        }
    }

    #[test]
    fn documents_survive_the_round_trip(
        rows in prop::collection::vec(("[a-z/]{1,8}", any::<u16>(), any::<i64>(), 0..4u8), 0..20),
        root: Option<(u8, Option<u64>)>,
    ) {
        let entries: Vec<_> = rows.into_iter().filter_map(|(path, mode, mtime, kind)| {
            let digest = Digest::of(path.as_bytes());
            let kind = match kind {
                0 => DeclaredKind::File(digest),
                1 => DeclaredKind::WritableFile(digest),
                2 => DeclaredKind::Symlink(digest),
                _ => DeclaredKind::Directory,
            };
            let path = RelPath::parse(path.as_bytes()).ok()?;
            Some(Declared { path, mode: mode & 0o7777, mtime, kind })
        }).collect();
        let input_root = root.map(|(byte, size)| Root { digest: Digest::of(&[byte]), size });
        let manifest = Manifest { input_root, entries };
        prop_assert_eq!(Manifest::decode(&manifest.encode()).unwrap(), manifest);
    }

    #[test]
    fn damaged_documents_are_refused_without_panic(mut bytes: Vec<u8>, cut in 0..60usize) {
        let entries = vec![declared("a/b", DeclaredKind::File(Digest::of(b"")))];
        let good = of(entries).encode();
        prop_assert!(Manifest::decode(&good[..cut.min(good.len() - 1)]).is_err() || cut == MAGIC.len());
        bytes.splice(0..0, MAGIC.iter().copied());
        let _ = Manifest::decode(&bytes);
    }
}
