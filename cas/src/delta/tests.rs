use super::*;
use crate::digest::Digest;
use crate::tree::{NodeIndex, NodeKind, Tree};

fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

/// An entry: a directory if the path ends in `/`, a link if it has `>`, else a file with this
/// content.
fn entry(text: &str, mtime: i64) -> Entry {
    let (at, kind) = match text.split_once('>') {
        Some((at, target)) => {
            let target = target.as_bytes().into();
            (at, EntryKind::Symlink { target })
        }
        None if text.ends_with('/') => (text, EntryKind::Directory),
        None => {
            let (at, content) = text.split_once('=').unwrap_or((text, ""));
            let (digest, size) = (Digest::of(content.as_bytes()), content.len() as u64);
            (at, EntryKind::File { digest, size })
        }
    };
    Entry {
        path: path(at),
        mode: 0o755,
        mtime,
        kind,
    }
}

struct World {
    store: Store,
    base: Root,
    _place: tempfile::TempDir,
}

fn world(entries: &[&str]) -> World {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(place.path()).unwrap();
    let tree = Tree::build(entries.iter().map(|text| entry(text, 1)).collect()).unwrap();
    let base = directory::store(&tree, &store).unwrap();
    World {
        store,
        base,
        _place: place,
    }
}

/// All paths of a stored tree with their times.
fn listed(root: &Root, store: &Store) -> Vec<String> {
    let tree = directory::load(root, store).unwrap();
    let mut all: Vec<_> = (1..tree.len() as u32)
        .map(NodeIndex)
        .map(|index| {
            let node = tree.get(index).unwrap();
            let slash = if matches!(node.kind, NodeKind::Directory { .. }) {
                "/"
            } else {
                ""
            };
            format!("{}{slash} {}", tree.path(index).unwrap(), node.mtime)
        })
        .collect();
    all.sort();
    all
}

fn delta(deleted: &[&str], renamed: &[(&str, &str)], written: &[&str]) -> Delta {
    let written = written.iter().map(|text| entry(text, 2));
    Delta {
        deleted: deleted.iter().map(|text| path(text)).collect(),
        renamed: renamed
            .iter()
            .map(|(to, from)| (path(to), path(from)))
            .collect(),
        entries: written.map(|entry| (entry.path.clone(), entry)).collect(),
        root: None,
    }
}

const BASE: [&str; 6] = ["a=1", "d/x=2", "d/s/y=3", "d/s/z=4", "l>a", "o/q=5"];

#[track_caller]
fn makes(delta: &Delta, expected: &[&str]) {
    let world = world(&BASE);
    let next = delta.apply(&world.base, &world.store).unwrap();
    let mut expected: Vec<_> = expected.iter().map(|&text| text.to_owned()).collect();
    expected.sort();
    assert_eq!(listed(&next, &world.store), expected);
}

#[test]
fn an_empty_delta_leaves_the_very_tree() {
    let world = world(&BASE);
    assert_eq!(
        Delta::default().apply(&world.base, &world.store).unwrap(),
        world.base
    );
}

#[test]
fn what_is_not_named_stays_and_is_not_even_read() {
    let world = world(&BASE);
    let tree = directory::load(&world.base, &world.store).unwrap();
    let o = Directory::of_path(&world, "o");
    std::fs::remove_file(world.store.path(o)).unwrap();
    let delta = delta(&["d/s/z"], &[], &["a=9", "n/", "n/f=7"]);
    let next = delta.apply(&world.base, &world.store).unwrap();
    assert_ne!(next, world.base);
    assert!(tree.len() > 1);
    assert!(directory::load(&next, &world.store).is_err(), "'o' is gone");
}

/// The digest of a directory's object.
struct Directory;

impl Directory {
    fn of_path(world: &World, name: &str) -> Digest {
        let digest = world.base.digest;
        let root = directory::Directory::read(digest, None, &world.store).unwrap();
        let child = root
            .children
            .iter()
            .find(|child| child.name.as_bytes() == name.as_bytes());
        match child.unwrap().kind {
            directory::ChildKind::Directory { digest, .. } => digest,
            _ => panic!("{name} is no directory"),
        }
    }
}

#[test]
fn what_is_renamed_out_does_not_go_with_its_directory() {
    let renamed = [("e", "d"), ("s2", "d/s"), ("s2/y2", "d/s/y")];
    makes(
        &delta(&["d/x"], &renamed, &["e/new=1"]),
        &[
            "a 1", "e/ 1", "e/new 2", "l 1", "o/ 1", "o/q 1", "s2/ 1", "s2/y2 1", "s2/z 1",
        ],
    );
    makes(
        &delta(&["d", "o"], &[("y", "d/s/y")], &[]),
        &["a 1", "l 1", "y 1"],
    );
}

#[test]
fn directories_change_places_and_go_into_each_other() {
    makes(
        &delta(&[], &[("d", "o"), ("o", "d")], &[]),
        &[
            "a 1", "d/ 1", "d/q 1", "l 1", "o/ 1", "o/s/ 1", "o/s/y 1", "o/s/z 1", "o/x 1",
        ],
    );
    makes(
        &delta(&["o", "a", "l"], &[("s", "d/s"), ("s/d", "d")], &[]),
        &["s/ 1", "s/d/ 1", "s/d/x 1", "s/y 1", "s/z 1"],
    );
    makes(
        &delta(&["a", "l", "o"], &[("n/d", "d")], &["n/"]),
        &[
            "n/ 2",
            "n/d/ 1",
            "n/d/s/ 1",
            "n/d/s/y 1",
            "n/d/s/z 1",
            "n/d/x 1",
        ],
    );
}

#[test]
fn a_directory_takes_the_place_of_a_file_and_the_other_way_round() {
    makes(
        &delta(&["a", "d"], &[], &["a/", "a/in=1", "d=file", "l>b", "o/"]),
        &["a/ 2", "a/in 2", "d 2", "l 2", "o/ 2", "o/q 1"],
    );
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let world = world(&BASE);
    let cases = [
        (delta(&["nope"], &[], &[]), "'nope' is deleted"),
        (delta(&["a/b"], &[], &[]), "'a/b' is deleted"),
        (delta(&[], &[("x", "q")], &[]), "'q' is deleted or renamed"),
        (delta(&[], &[], &["q/x=1"]), "'q/x' is to be put"),
        (delta(&[], &[], &["a/x=1"]), "'a/x' is to be put"),
        (delta(&[], &[], &["d=1"]), "'d' is in the way"),
        (delta(&[], &[], &["a/"]), "'a' is in the way"),
        (delta(&[], &[("a", "l")], &[]), "'a' is in the way"),
        (
            delta(&["d", "d/s"], &[("o/s", "d/s")], &[]),
            "'d/s' is deleted",
        ),
    ];
    for (delta, words) in cases {
        let told = delta
            .apply(&world.base, &world.store)
            .unwrap_err()
            .to_string();
        assert!(told.starts_with(words), "{told}");
    }
    let missing = delta(&[], &[], &["a=absent"]);
    let told = missing.check(&world.store).unwrap_err().to_string();
    assert!(
        told.starts_with("'a': ") && told.contains("absent") | told.contains("blob"),
        "{told}"
    );
    let deep = RelPath::parse("d/".repeat(DEPTH_MAX + 1).as_bytes()).unwrap();
    let mut delta = Delta::default();
    delta.deleted.insert(deep);
    let told = delta.apply(&world.base, &world.store).unwrap_err();
    assert!(matches!(told, DeltaError::TooDeep(_)), "{told}");
}

#[test]
fn a_part_of_a_delta_stands_for_itself() {
    let whole = delta(
        &["a", "d/x"],
        &[("out", "d/s/y"), ("d/in", "o/q")],
        &["d/in=5", "b=1"],
    );
    let part = whole.only(&path("d")).unwrap();
    assert_eq!(part, delta(&["d/x", "d/s/y"], &[], &["d/in=5"]));
    let crossing = delta(&[], &[("d/o", "o")], &["d/o/"]);
    let told = crossing.only(&path("d")).unwrap_err().to_string();
    assert!(told.starts_with("'d/o' was renamed from 'o'"), "{told}");
}

#[test]
fn the_root_has_attributes_too() {
    let world = world(&BASE);
    let delta = Delta {
        root: Some((0o700, -5)),
        ..Delta::default()
    };
    let next = delta.apply(&world.base, &world.store).unwrap();
    let tree = directory::load(&next, &world.store).unwrap();
    let root = tree.get(NodeIndex::ROOT).unwrap();
    assert_eq!((root.mode, root.mtime, tree.len()), (0o700, -5, 10));
}
