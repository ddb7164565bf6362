//! Random operations, made from bytes so that they are cheap to generate and shrink to zeros.

use cas::tree::{Entry, EntryKind};
use cas::{Digest, RelPath};
use fuse_daemon::view::{AttributeChange, Caller, OpenIntent, RenameMode, SetMode, SetTime, Time};
use proptest::prelude::*;

/// Few names, so that they collide; the last is as long as a name may be.
const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", LONG];
const LONG: &str = match std::str::from_utf8(&[b'l'; 255]) {
    Ok(name) => name,
    Err(_) => "",
};

/// Names of extended attributes.
pub(crate) const EXTENDED: [&str; 2] = ["user.a", "user.b"];

const MODES: [u16; 16] = [
    0o755, 0o777, 0o644, 0o700, 0o1777, 0o2775, 0o600, 0o500, 0o444, 0o000, 0o4755, 0o6777, 0o2744,
    0o070, 0o007, 0o3773,
];

pub(crate) const OWNER: Caller = Caller {
    uid: 1000,
    gid: 1000,
};

/// The owner most often, root, a stranger, and a stranger of the owner's group.
const CALLERS: [Caller; 8] = [
    OWNER,
    ROOT,
    OWNER,
    STRANGER,
    OWNER,
    ROOT,
    Caller {
        gid: 1000,
        ..STRANGER
    },
    OWNER,
];
pub(crate) const ROOT: Caller = Caller { uid: 0, gid: 0 };
pub(crate) const STRANGER: Caller = Caller {
    uid: 2000,
    gid: 2000,
};

/// Which inode an operation is about; decided when it is run, by what there is then.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pick {
    /// Of the directories that have a name.
    Directory(u8),
    /// Of all that has a name.
    Named(u8),
    /// Of all that has a name; as the directory of a place, the place that this one is in.
    Existing(u8),
    /// Of what was removed and is still referenced.
    Removed(u8),
    /// Of all that ever was.
    Ever(u8),
    /// A number that was never given out.
    Invented(u8),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
    File,
    Directory,
    Symlink,
    Fifo,
    Device(u8),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) directory: Pick,
    pub(crate) name: &'static str,
}

#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Lookup(Place),
    Make(Place, What, u16),
    Preload(Place, u16),
    Link(Pick, Place),
    Remove { place: Place, directory: bool },
    Rename(Place, Place, RenameMode),
    SetAttributes(Pick, AttributeChange),
    Open(Pick, OpenIntent),
    OpenDirectory(Pick),
    Access(Pick, u16),
    ReadLink(Pick),
    List { cursor: u8, from: Pick, limit: u8 },
    Forget(Pick, u8),
    MakeUnnamed(Pick, u16),
    CopyUp(Pick),
    SetExtended(Pick, &'static str, Option<Vec<u8>>, SetMode),
}

/// An operation and who asks for it.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) operation: Operation,
    pub(crate) caller: Caller,
}

/// The constant that equals a name.
pub(crate) fn constant(name: &str) -> &'static str {
    let found = NAMES.iter().find(|known| **known == name);
    found.expect("names are of the alphabet")
}

/// A place that is often taken.
fn taken(how: u8, which: u8, byte: u8) -> Place {
    Place {
        directory: match how % 2 {
            0 => directory(how / 2, which),
            _ => Pick::Existing(which),
        },
        name: name(byte),
    }
}

fn name(byte: u8) -> &'static str {
    // The long one seldom.
    NAMES[if byte > 250 { 5 } else { usize::from(byte) % 5 }]
}

fn inode(how: u8, which: u8) -> Pick {
    match how % 16 {
        0..=9 => Pick::Named(which),
        10..=12 => Pick::Removed(which),
        13 => Pick::Directory(which),
        14 => Pick::Ever(which),
        _ => Pick::Invented(which),
    }
}

fn directory(how: u8, which: u8) -> Pick {
    match how % 32 {
        0..=26 => Pick::Directory(which),
        27..=29 => Pick::Removed(which),
        30 => Pick::Named(which),
        _ => Pick::Ever(which),
    }
}

fn change(bytes: &[u8]) -> AttributeChange {
    let user = |byte: u8| CALLERS[usize::from(byte) % 8].uid;
    let group = |byte: u8| CALLERS[usize::from(byte) % 8].gid;
    let time = |byte: u8| match byte % 4 {
        0 => Some(SetTime::To(Time {
            seconds: i64::from(byte) - 100,
            nanoseconds: 999_999_999,
        })),
        1 => Some(SetTime::Now),
        _ => None,
    };
    let mode = MODES[usize::from(bytes[1]) % 16];
    let only = AttributeChange::default();
    match bytes[0] % 8 {
        0 | 1 => AttributeChange {
            perm: Some(mode),
            ..only
        },
        2 => AttributeChange {
            uid: Some(user(bytes[1])),
            ..only
        },
        3 => AttributeChange {
            uid: bytes[1].is_multiple_of(4).then(|| user(bytes[2])),
            gid: Some(group(bytes[3])),
            ..only
        },
        4 => AttributeChange {
            atime: time(bytes[1]),
            mtime: time(bytes[2]),
            ..only
        },
        5 => AttributeChange {
            size: Some(u64::from(bytes[1])),
            mtime: bytes[2].is_multiple_of(2).then_some(SetTime::Now),
            ..only
        },
        6 => AttributeChange {
            atime: Some(SetTime::Now),
            mtime: Some(SetTime::Now),
            ..only
        },
        _ => AttributeChange {
            perm: bytes[2].is_multiple_of(2).then_some(mode),
            gid: bytes[2].is_multiple_of(3).then(|| group(bytes[3])),
            size: bytes[2].is_multiple_of(5).then_some(9),
            mtime: time(bytes[4]),
            ..only
        },
    }
}

fn what(byte: u8) -> What {
    match byte % 8 {
        0..=2 => What::File,
        3..=5 => What::Directory,
        6 => What::Symlink,
        _ if byte < 128 => What::Fifo,
        _ => What::Device(byte),
    }
}

impl Step {
    fn decode(bytes: [u8; 10]) -> Self {
        let [kind, caller, a, b, c, d, e, f, g, _] = bytes;
        let place = Place {
            directory: directory(a, b),
            name: name(c),
        };
        let mode = MODES[usize::from(e) % 16];
        let operation = match kind {
            0..=19 => Operation::Lookup(place),
            20..=69 => Operation::Make(place, what(d), mode),
            70..=79 => Operation::Preload(place, mode),
            80..=94 => Operation::Link(inode(d, e), place),
            95..=124 => Operation::Remove {
                place: taken(a, b, c),
                directory: d % 2 == 0,
            },
            125..=164 => {
                let modes = [
                    RenameMode::Replace,
                    RenameMode::Replace,
                    RenameMode::Exchange,
                    RenameMode::NoReplace,
                    RenameMode::Whiteout,
                ];
                Operation::Rename(taken(a, b, c), taken(d, e, f), modes[usize::from(g) % 5])
            }
            165..=184 => Operation::SetAttributes(inode(a, b), change(&bytes[4..])),
            185..=199 => Operation::Open(
                inode(a, b),
                OpenIntent {
                    read: c % 2 == 0,
                    write: c % 4 < 2,
                    truncate: c % 16 < 4 && c % 4 < 2,
                    append: c % 32 > 15,
                    execute: c % 8 > 5,
                },
            ),
            200..=202 => Operation::OpenDirectory(directory(a, b)),
            203..=208 => Operation::Access(inode(a, b), u16::from(c % 8)),
            209..=212 => Operation::ReadLink(inode(a, b)),
            213..=232 => Operation::List {
                cursor: c % 3,
                from: directory(a, b),
                limit: d % 5,
            },
            233..=236 => Operation::MakeUnnamed(directory(a, b), mode),
            237..=241 => Operation::CopyUp(inode(a, b)),
            242..=246 => {
                let modes = [SetMode::Any, SetMode::Create, SetMode::Replace];
                let value = (d % 3 != 0).then(|| vec![e; usize::from(e)]);
                let mode = modes[usize::from(f) % 3];
                Operation::SetExtended(inode(a, b), EXTENDED[usize::from(c) % 2], value, mode)
            }
            _ => Operation::Forget(inode(a, b), c),
        };
        Self {
            operation,
            caller: CALLERS[usize::from(caller) % 8],
        }
    }
}

/// Sequences of steps, `count` long on average.
pub(crate) fn steps(count: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = prop::array::uniform10(any::<u8>()).prop_map(Step::decode);
    // From one on, so that a failure shrinks to the steps that it needs.
    prop::collection::vec(step, 1..=2 * count)
}

pub(crate) fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).expect("a path of the tests")
}

fn file(text: &str, mode: u16, size: u64) -> Entry {
    Entry {
        path: path(text),
        mode,
        mtime: 1_500_000_000 + size as i64,
        kind: EntryKind::File {
            digest: Digest::of(text.as_bytes()),
            size,
        },
    }
}

fn other(text: &str, mode: u16, kind: EntryKind) -> Entry {
    Entry {
        path: path(text),
        mode,
        mtime: -7 - i64::from(mode),
        kind,
    }
}

/// All that may be declared: implied, nested and empty directories, an empty file, links.
pub(crate) fn all_entries() -> Vec<Entry> {
    let link = |target: &str| EntryKind::Symlink {
        target: target.as_bytes().into(),
    };
    vec![
        file("d/a/b", 0o644, 3),
        file("a/a", 0o644, 11),
        file("a/b", 0o600, 0),
        other("a/c", 0o644, link("../b")),
        other("a", 0o755, EntryKind::Directory),
        other("b", 0o1777, EntryKind::Directory),
        file("b/c", 0o4755, 5),
        other("b/a", 0o777, EntryKind::Directory),
        other("b/b/c", 0o2777, EntryKind::Directory),
        other("b/b", 0o3777, EntryKind::Directory),
        other("c", 0o500, EntryKind::Directory),
        file("c/a", 0o000, 1),
        file("e", 0o555, 99),
        other("d/c", 0o777, link("nowhere")),
    ]
}

/// A part of what may be declared, some of it with other modes.
pub(crate) fn entries() -> impl Strategy<Value = Vec<Entry>> {
    (any::<u16>(), any::<u16>(), any::<u8>()).prop_map(|(leave, change, mode)| {
        let mut all = all_entries();
        // Nothing left out is the simplest, and the most frequent.
        let leave = if leave % 2 == 0 { 0 } else { leave };
        for (at, entry) in all.iter_mut().enumerate() {
            if change >> at & 3 == 3 {
                entry.mode = MODES[(usize::from(mode) + at) % 16];
            }
        }
        let kept = all.into_iter().enumerate();
        kept.filter(|(at, _)| leave >> (at + 1) & 1 == 0)
            .map(|(_, entry)| entry)
            .collect()
    })
}

/// Below what the declared may be changed: nothing, everything, or some of it.
pub(crate) fn changeable() -> impl Strategy<Value = Vec<String>> {
    let some = ["a", "b/b", "e"].map(String::from).to_vec();
    prop_oneof![
        Just(Vec::new()),
        Just(vec![String::new()]),
        Just(vec![String::new()]),
        Just(some),
    ]
}
