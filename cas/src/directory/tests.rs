use super::convert::written_digest;
use super::*;
use crate::name::RelPath;
use crate::tree::{Entry, EntryKind};
use proptest::prelude::*;

fn fixture() -> (tempfile::TempDir, Store) {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    (root, store)
}

fn put(store: &Store, bytes: &[u8]) -> Digest {
    store
        .put_bytes(bytes, &store.new_staging("test").unwrap())
        .unwrap()
}

/// What a bad disk does.
fn overwrite(store: &Store, digest: Digest, bytes: &[u8]) {
    let path = store.path(digest);
    let _ = std::fs::remove_file(&path);
    let mut file = std::fs::File::create(path).unwrap();
    std::io::Write::write_all(&mut file, bytes).unwrap();
}

fn entry(path: &[u8], mode: u16, mtime: i64, kind: EntryKind) -> Entry {
    Entry {
        path: RelPath::parse(path).unwrap(),
        mode,
        mtime,
        kind,
    }
}

fn file(path: &[u8], content: &[u8]) -> Entry {
    let (digest, size) = (Digest::of(content), content.len() as u64);
    entry(path, 0o644, 5, EntryKind::File { digest, size })
}

/// Everything that can be told of a tree.
fn told(tree: &Tree) -> Vec<(Option<RelPath>, String)> {
    let nodes = (0..tree.len() as u32).map(NodeIndex);
    nodes
        .map(|node| (tree.path(node), format!("{:?}", tree.get(node))))
        .collect()
}

/// The object as another implementation of protocol buffers writes it, byte by byte: tags, lengths
/// and the order of fields.
#[test]
fn an_object_has_the_bytes_that_the_interface_prescribes() {
    let directory = Directory {
        mode: 0o755,
        mtime: -1,
        children: vec![Child {
            name: Name::new(b"x").unwrap().to_owned(),
            kind: ChildKind::File {
                digest: Digest::of(b""),
                size: 0,
                mode: 0o755,
                mtime: 7_000_000_009,
            },
        }],
    };
    let digest = [
        &[0x12, 66, 0x0a, 64][..],
        Digest::of(b"").to_string().as_bytes(),
    ]
    .concat();
    let times = [
        0x32, 11, 0x12, 4, 0x08, 7, 0x10, 9, 0x1a, 3, 0x08, 0xed, 0x03,
    ];
    let file = [&[0x0a, 1, b'x'][..], &digest, &[0x20, 1], &times].concat();
    // Seconds of -1 take ten bytes as a varint, 999,999,999 nanoseconds five.
    let seconds = [&[0x08][..], &[0xff; 9], &[0x01]].concat();
    let before = [&seconds[..], &[0x10, 0xff, 0x93, 0xeb, 0xdc, 0x03]].concat();
    let own = [&[0x12, 17][..], &before, &[0x1a, 3, 0x08, 0xed, 0x03]].concat();
    let expected = [&[0x0a, file.len() as u8][..], &file, &[0x2a, 24], &own].concat();
    assert_eq!(directory.encode(), expected);
    assert_eq!(Directory::decode(&expected).unwrap(), directory);
}

#[test]
fn what_other_programs_leave_out_has_defaults() {
    let executable = message::FileNode {
        is_executable: true,
        ..node("b")
    };
    let message = files(vec![node("a"), executable]);
    let directory = Directory::decode(&message.encode_to_vec()).unwrap();
    assert_eq!((directory.mode, directory.mtime), (0o755, 0));
    let modes = directory.children.iter().map(|child| match child.kind {
        ChildKind::File { mode, mtime, .. } => (mode, mtime),
        _ => panic!("{child:?}"),
    });
    assert_eq!(modes.collect::<Vec<_>>(), [(0o444, 0), (0o555, 0)]);
    assert_eq!(Directory::decode(b"").unwrap().children, []);
}

fn node(name: &str) -> message::FileNode {
    message::FileNode {
        name: name.into(),
        digest: Some(written_digest(Digest::of(b""), 0)),
        ..message::FileNode::default()
    }
}

fn files(files: Vec<message::FileNode>) -> message::Directory {
    message::Directory {
        files,
        ..message::Directory::default()
    }
}

#[track_caller]
fn refused(message: &message::Directory, expected: &str) {
    let bytes = message.encode_to_vec();
    let error = Directory::decode(&bytes).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}\n{expected}");
    let (_root, store) = fixture();
    let digest = put(&store, &bytes);
    let told = load(&Root { digest, size: None }, &store).unwrap_err();
    let expected = format!("input root: directory object {digest} {error}");
    assert_eq!(told.to_string(), expected);
}

#[test]
fn names_that_are_none_and_names_out_of_order_are_told() {
    let cases = [
        (vec![".."], "entry \"..\" whose name is not a single name"),
        (vec!["a/b"], "entry \"a/b\" whose name is not a single name"),
        (vec![""], "entry \"\" whose name names no entry"),
        (vec!["b", "a"], "entry \"a\" twice or out of order"),
        (vec!["a", "a"], "entry \"a\" twice or out of order"),
    ];
    for (names, expected) in cases {
        refused(&files(names.into_iter().map(node).collect()), expected);
    }
}

#[test]
fn a_file_without_a_digest_and_times_that_are_none_are_told() {
    let timed = |seconds, nanos| message::FileNode {
        node_properties: Some(message::NodeProperties {
            mtime: Some(message::Timestamp { seconds, nanos }),
            unix_mode: None,
        }),
        ..node("t")
    };
    for (seconds, nanos) in [(1 << 40, 0), (i64::MAX, 0), (0, -1), (0, 1_000_000_000)] {
        refused(
            &files(vec![timed(seconds, nanos)]),
            "entry \"t\" with a time",
        );
    }
    let digest = |hash: &str, size_bytes| {
        let hash = hash.into();
        Some(message::Digest { hash, size_bytes })
    };
    let hash = Digest::of(b"").to_string();
    for digest in [None, digest("12", 0), digest(&hash, -1)] {
        let node = message::FileNode {
            digest,
            ..node("n")
        };
        refused(&files(vec![node]), "entry \"n\" without a valid digest");
    }
}

#[test]
fn links_that_lead_nowhere_and_names_of_two_kinds_are_told() {
    let link = |name: &str, target: &str| message::Directory {
        files: vec![node("l")],
        symlinks: vec![message::SymlinkNode {
            name: name.into(),
            target: target.into(),
            node_properties: None,
        }],
        ..message::Directory::default()
    };
    refused(&link("l", "x"), "entry \"l\" twice or out of order");
    for target in ["", "a\0", &"x".repeat(4096)] {
        refused(&link("m", target), "link \"m\" with a target that is empty");
    }
}

#[test]
fn names_that_are_no_text_come_back_and_the_object_stays_sorted() {
    let (_root, store) = fixture();
    // As bytes the first name sorts behind the second, as text before it.
    let names = ["\u{10FFFD}".as_bytes(), b"\xff", b"a\xe9"];
    let tree = Tree::build(names.map(|name| file(name, b"")).into()).unwrap();
    let root = super::store(&tree, &store).unwrap();
    assert_eq!(told(&load(&root, &store).unwrap()), told(&tree));
}

#[test]
fn missing_objects_and_blobs_are_named_with_their_path() {
    let (_dir, store) = fixture();
    put(&store, b"here");
    let entries = vec![
        file(b"d/gone", b"gone"),
        file(b"d/here", b"here"),
        file(b"e/gone", b"gone"),
    ];
    let root = super::store(&Tree::build(entries).unwrap(), &store).unwrap();
    let tree = load(&root, &store).unwrap();
    let gone = Digest::of(b"gone");
    let error = check(&tree, &store).unwrap_err().to_string();
    let expected = format!("input 'd/gone': blob {gone} is not in the store (and 1 more inputs)");
    assert_eq!(error, expected);
    put(&store, b"gone");
    check(&tree, &store).unwrap();

    let top = Directory::read(root.digest, root.size, &store).unwrap();
    let ChildKind::Directory { digest, .. } = top.children[0].kind else {
        panic!("{top:?}");
    };
    std::fs::remove_file(store.path(digest)).unwrap();
    let error = load(&root, &store).unwrap_err().to_string();
    assert_eq!(
        error,
        format!("input 'd': blob {digest} is not in the store")
    );
    overwrite(&store, digest, &vec![b'x'; top.encode().len()]);
    let error = load(&root, &store).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("input 'd': blob {digest} ")),
        "{error}"
    );

    let wrong = Root {
        size: Some(1),
        ..root
    };
    let error = load(&wrong, &store).unwrap_err().to_string();
    let found = root.size.unwrap();
    let expected = format!(
        "input root: blob {} has {found} bytes, and not 1",
        root.digest
    );
    assert_eq!(error, expected);
}

#[test]
fn a_corrupt_object_is_told() {
    let (_dir, store) = fixture();
    let root = super::store(&Tree::build(vec![file(b"a", b"")]).unwrap(), &store).unwrap();
    let mut bytes = store.read(root.digest).unwrap();
    bytes[2] = b'b';
    overwrite(&store, root.digest, &bytes);
    let error = load(&root, &store).unwrap_err().to_string();
    assert!(error.contains("is corrupt"), "{error}");
}

/// Forty objects of a few hundred bytes that stand for a million million directories.
#[test]
fn a_tree_that_is_larger_than_memory_is_refused() {
    let (_dir, store) = fixture();
    let mut root = None;
    for _ in 0..40 {
        let child = |(name, &(digest, size)): (&[u8], &(Digest, u64))| Child {
            name: Name::new(name).unwrap().to_owned(),
            kind: ChildKind::Directory { digest, size },
        };
        let children = root
            .iter()
            .flat_map(|below| [(&b"a"[..], below), (b"b", below)]);
        let directory = Directory {
            mode: 0o755,
            mtime: 0,
            children: children.map(child).collect(),
        };
        let bytes = directory.encode();
        root = Some((put(&store, &bytes), bytes.len() as u64));
    }
    let (digest, size) = root.unwrap();
    let size = Some(size);
    let error = load::load_up_to(1000, &Root { digest, size }, &store).unwrap_err();
    let told = error.to_string();
    assert_eq!(
        told,
        format!("input root {digest} has more than 1000 entries")
    );
}

#[test]
fn the_name_of_a_root_is_a_hash_with_or_without_a_size() {
    let hash = Digest::of(b"").to_string();
    for text in [hash.clone(), format!("{hash}/0"), format!("{hash}/77")] {
        assert_eq!(text.parse::<Root>().unwrap().to_string(), text);
    }
    for wrong in [
        "",
        "x",
        "/5",
        &format!("{hash}/"),
        &format!("{hash}/+5"),
        &format!("{hash}/5/6"),
    ] {
        assert!(wrong.parse::<Root>().is_err(), "{wrong}");
    }
}

fn kinds() -> impl Strategy<Value = EntryKind> {
    prop_oneof![
        any::<u64>().prop_map(|n| EntryKind::File {
            digest: Digest::of(&n.to_le_bytes()),
            size: n >> 1,
        }),
        prop::collection::vec(1..=255u8, 1..9).prop_map(|target| EntryKind::Symlink {
            target: target.into()
        }),
        Just(EntryKind::Directory),
    ]
}

/// Entries of which no directory is only implied, because the time of those depends on the order.
fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let name = prop::collection::vec(
        prop_oneof![Just(b'a'), Just(b'.'), Just(0xe9), Just(0xf4)],
        1..4,
    );
    let path = prop::collection::vec(name, 1..4).prop_map(|names| names.join(&b'/'));
    let row = (path, 0..0o10000u16, any::<i64>(), kinds());
    prop::collection::vec(row, 0..30).prop_map(|rows| {
        let mut entries = std::collections::BTreeMap::new();
        for (path, mode, mtime, kind) in rows {
            let Ok(path) = RelPath::parse(&path) else {
                continue;
            };
            let names: Vec<_> = path.names().collect();
            for depth in 1..names.len() {
                let above = RelPath::from_names(names[..depth].iter().copied()).unwrap();
                let directory = entry(above.as_bytes(), mode, mtime, EntryKind::Directory);
                let above = entries.entry(above).or_insert(directory);
                above.kind = EntryKind::Directory;
            }
            let new = entry(path.as_bytes(), mode, mtime, kind);
            entries.entry(path).or_insert(new);
        }
        entries.into_values().collect()
    })
}

proptest! {
    #[test]
    fn a_tree_comes_back_and_has_one_digest_in_any_order(
        entries in entries().prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
        mode in 0..0o10000u16,
        mtime: i64,
    ) {
        let (_dir, store) = fixture();
        let build = |entries| Tree::build(entries).unwrap().with_root(mode, mtime);
        let tree = build(entries.0);
        let root = super::store(&tree, &store).unwrap();
        prop_assert_eq!(told(&load(&root, &store).unwrap()), told(&tree));
        prop_assert_eq!(super::store(&build(entries.1), &store).unwrap(), root);
    }

    #[test]
    fn random_bytes_are_refused_or_read_and_never_a_panic(bytes: Vec<u8>) {
        if let Ok(directory) = Directory::decode(&bytes) {
            let encoded = directory.encode();
            prop_assert_eq!(Directory::decode(&encoded).unwrap(), directory);
        }
    }

    #[test]
    fn damaged_objects_are_refused_or_read_and_never_a_panic(
        entries in entries(), at: prop::sample::Index, to: u8, cut: bool
    ) {
        let (_dir, store) = fixture();
        let root = super::store(&Tree::build(entries).unwrap(), &store).unwrap();
        let mut bytes = store.read(root.digest).unwrap();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = to }
        if let Ok(directory) = Directory::decode(&bytes) {
            prop_assert_eq!(Directory::decode(&directory.encode()).unwrap(), directory);
        }
    }
}
