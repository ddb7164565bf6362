//! Random operations, on few names so that they meet.
//!
//! What is left out here is where the view differs on purpose; `fuse-daemon/SEMANTICS.md` says why.
//! Directories keep search permission (the kernel does not ask again about names that it knows),
//! no set-user-ID bits (they go at the open, not at the write).

use proptest::prelude::*;
use proptest::sample::{Select, select};
use wakebox_tests::operation::{Operation, text};

/// Modes in which a directory may be searched.
const MODES: [u32; 6] = [0o755, 0o700, 0o555, 0o311, 0o1777, 0o755];

fn pick<T: Clone + std::fmt::Debug + 'static>(values: impl Into<Vec<T>>) -> Select<T> {
    select(values.into())
}

fn name() -> impl Strategy<Value = cas::text::Text> {
    let usual = [
        "a", "b", "c", "l", "d", "e", "d/a", "d/b", "d/e", "e/a", "d/e/a", "d/e/b",
    ];
    let odd: Vec<Vec<u8>> = vec![
        b"caf\xe9".to_vec(),
        vec![b'n'; 255],
        vec![b'n'; 256],
        [&b"d/"[..], &[0xff; 255]].concat(),
        b"a/x".to_vec(),
        b"nope/x".to_vec(),
        b"l/a".to_vec(),
        b"d/e/..".to_vec(),
        b"".to_vec(),
        b"d/.".to_vec(),
        b"a/".to_vec(),
        b"d/".to_vec(),
    ];
    prop_oneof![
        12 => pick(usual).prop_map(text),
        1 => pick(odd).prop_map(text),
    ]
}

/// Names of what is opened and stored into: fewer, so that descriptors meet on one file.
fn file() -> impl Strategy<Value = cas::text::Text> {
    prop_oneof![3 => pick(["a", "b", "d/a"]).prop_map(text), 1 => name()]
}

fn slot() -> impl Strategy<Value = usize> {
    0..4usize
}

fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![pick([0, 1, 4095, 4096, 8192, 65_536]), 0..100_000u64]
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![pick([0, 1, 4096, 20_000]), 0..10_000usize]
}

fn mode() -> impl Strategy<Value = u32> {
    pick(MODES)
}

fn flags() -> impl Strategy<Value = u32> {
    let access = pick([libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR, libc::O_RDWR]);
    let more = [
        0,
        0,
        libc::O_TRUNC,
        libc::O_APPEND,
        libc::O_NOFOLLOW,
        libc::O_DIRECTORY,
    ];
    let create = [
        0,
        libc::O_CREAT,
        libc::O_CREAT,
        libc::O_CREAT | libc::O_EXCL,
    ];
    (access, pick(more), pick(create))
        .prop_map(|(access, more, create)| match (access, more) {
            // What O_RDONLY with O_TRUNC does is not said anywhere.
            (libc::O_RDONLY, libc::O_TRUNC) => access | create,
            // The kernel refuses to make directories by open.
            (_, libc::O_DIRECTORY) => access | more,
            _ => access | more | create,
        })
        // Opening a fifo must not wait for its other end.
        .prop_map(|flags| (flags | libc::O_NONBLOCK) as u32)
}

fn on_open_files() -> impl Strategy<Value = Operation> {
    let whence = pick([libc::SEEK_SET, libc::SEEK_CUR, libc::SEEK_END]);
    let allocate = [
        0,
        libc::FALLOC_FL_KEEP_SIZE,
        libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
        libc::FALLOC_FL_ZERO_RANGE,
        libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE,
    ];
    let (byte, flag) = (any::<u8>(), any::<bool>());
    prop_oneof![
        3 => (slot(), file(), flags(), pick([0o644, 0o600, 0o444, 0o000, 0o777]))
            .prop_map(|(slot, path, flags, mode)| Operation::Open { slot, path, flags, mode }),
        1 => slot().prop_map(|slot| Operation::Close { slot }),
        1 => (slot(), slot()).prop_map(|(slot, from)| Operation::Dup { slot, from }),
        1 => (slot(), length()).prop_map(|(slot, length)| Operation::Read { slot, length }),
        2 => (slot(), offset(), length())
            .prop_map(|(slot, offset, length)| Operation::ReadAt { slot, offset, length }),
        2 => (slot(), length(), byte)
            .prop_map(|(slot, length, byte)| Operation::Write { slot, length, byte }),
        2 => (slot(), offset(), length(), byte).prop_map(|(slot, offset, length, byte)| {
            Operation::WriteAt { slot, offset, length, byte }
        }),
        2 => (slot(), -10i64..80_000, whence)
            .prop_map(|(slot, offset, whence)| Operation::Seek { slot, offset, whence }),
        2 => (slot(), offset(), any::<bool>())
            .prop_map(|(slot, offset, hole)| Operation::Probe { slot, offset, hole }),
        1 => (slot(), offset()).prop_map(|(slot, size)| Operation::Resize { slot, size }),
        1 => (slot(), mode()).prop_map(|(slot, mode)| Operation::ChmodOpen { slot, mode }),
        1 => slot().prop_map(|slot| Operation::Touch { slot }),
        3 => slot().prop_map(|slot| Operation::StatOpen { slot }),
        2 => (slot(), pick(allocate), offset(), length()).prop_map(
            |(slot, flags, offset, length)| {
                Operation::Allocate { slot, flags: flags as u32, offset, length: length as u64 }
            }
        ),
        2 => (slot(), offset(), byte, flag)
            .prop_map(|(slot, at, byte, sync)| Operation::Map { slot, at, byte, sync }),
        1 => (slot(), offset(), slot(), offset(), length()).prop_map(
            |(slot, offset, from, from_offset, length)| {
                Operation::CopyRange { slot, offset, from, from_offset, length }
            }
        ),
        1 => (slot(), flag).prop_map(|(slot, data_only)| Operation::Sync { slot, data_only }),
    ]
}

fn on_names() -> impl Strategy<Value = Operation> {
    let rename = [0, 0, 0, libc::RENAME_NOREPLACE, libc::RENAME_EXCHANGE];
    let target = prop_oneof![name(), Just(text([b't'; 4095])), Just(text([b't'; 4096]))];
    let time = proptest::option::of(pick([0, 1, -1_000, 1_000_000_000]));
    let times = (time.clone(), time);
    prop_oneof![
        4 => (name(), name(), pick(rename))
            .prop_map(|(from, to, flags)| Operation::Rename { from, to, flags }),
        2 => (name(), name()).prop_map(|(from, to)| Operation::Link { from, to }),
        1 => (target, name()).prop_map(|(target, path)| Operation::Symlink { target, path }),
        1 => name().prop_map(|path| Operation::ReadLink { path }),
        2 => name().prop_map(|path| Operation::Unlink { path }),
        3 => (name(), mode()).prop_map(|(path, mode)| Operation::MakeDirectory { path, mode }),
        1 => name().prop_map(|path| Operation::RemoveDirectory { path }),
        1 => (name(), mode()).prop_map(|(path, mode)| Operation::Chmod { path, mode }),
        1 => name().prop_map(|path| Operation::Chown { path }),
        2 => (name(), times)
            .prop_map(|(path, (atime, mtime))| Operation::SetTimes { path, atime, mtime }),
        1 => (file(), offset()).prop_map(|(path, size)| Operation::Truncate { path, size }),
        3 => (name(), any::<bool>()).prop_map(|(path, follow)| Operation::Stat { path, follow }),
        1 => (name(), name()).prop_map(|(path, other)| Operation::Same { path, other }),
        1 => (name(), 0..8u32).prop_map(|(path, mode)| Operation::Access { path, mode }),
        1 => name().prop_map(|path| Operation::List { path }),
        1 => Just(Operation::NameMax { path: text(".") }),
    ]
}

/// Special files have names of their own, because nobody asks for their permissions at an open.
fn on_special() -> impl Strategy<Value = Operation> {
    let special = || pick(["p", "q", "d/p"]).prop_map(text);
    prop_oneof![
        (special(), any::<bool>(), Just(0o700))
            .prop_map(|(path, socket, mode)| Operation::MakeSpecial { path, socket, mode }),
        special().prop_map(|path| Operation::Unlink { path }),
        special().prop_map(|path| Operation::Stat { path, follow: true }),
        (special(), special()).prop_map(|(from, to)| Operation::Link { from, to }),
        (special(), special()).prop_map(|(from, to)| Operation::Rename { from, to, flags: 0 }),
        (special(), flags()).prop_map(|(path, flags)| Operation::Open {
            slot: 9,
            path,
            flags,
            mode: 0o700
        }),
    ]
}

/// What every sequence begins with, so that most of what follows finds something.
pub(super) fn beginning() -> Vec<Operation> {
    let directory = |path| Operation::MakeDirectory {
        path: text(path),
        mode: 0o755,
    };
    let flags = (libc::O_RDWR | libc::O_CREAT) as u32;
    let open = |(slot, path)| Operation::Open {
        slot,
        path: text(path),
        flags,
        mode: 0o644,
    };
    let directories = ["d", "e", "d/e"].map(directory);
    let files = [(0, "a"), (1, "b"), (2, "d/a"), (3, "a")].map(open);
    directories.into_iter().chain(files).collect()
}

/// Any one operation.
pub(super) fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        100 => on_open_files(),
        100 => on_names(),
        10 => on_special(),
        4 => Just(Operation::Tree),
        1 => (1..60usize).prop_map(|levels| Operation::Deep { name: text([b'n'; 200]), levels }),
    ]
}
