//! Saved views: the file of a log, and the facts in it when its checks are right.

use std::os::fd::AsFd;

use cas::Digest;
use cas::tree::{Entry, EntryKind, Tree};
use fuse_daemon::log::{self, Header, Log};
use fuse_daemon::view::{Caller, Policy, Time, View};

use super::Bytes;

const OWNER: Caller = Caller { uid: 0, gid: 0 };
const BORN: Time = Time {
    seconds: 7,
    nanoseconds: 0,
};

/// The first byte says which.
pub(super) fn saved(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    match bytes.byte() % 4 {
        0 => file(bytes.0),
        _ => facts(bytes.0),
    }
}

/// A file of any bytes, with the header and some frames of a true one before them.
fn file(bytes: &[u8]) {
    let place = super::kernel::place();
    let directory = std::fs::File::open(place.path()).expect("a directory");
    let header = Header {
        inputs: Digest::of(b""),
        owner: OWNER,
        born: BORN,
    };
    drop(Log::open(directory.as_fd(), header).expect("a new log"));
    let path = place.path().join(log::FILE);
    let mut whole = std::fs::read(&path).expect("a log");
    let mut bytes = Bytes(bytes);
    for _ in 0..bytes.byte() % 4 {
        let at = bytes.number() as usize % whole.len();
        whole[at] = bytes.byte();
    }
    whole.extend_from_slice(bytes.0);
    std::fs::write(&path, whole).expect("room");
    if let Ok((log, _)) = Log::open(directory.as_fd(), header) {
        drop(log);
        // What was cut off stays cut off.
        let (_, again) = Log::open(directory.as_fd(), header).expect("what was opened");
        assert_eq!(again.cut, 0);
    }
}

/// Facts of any kind, in one frame: a view is made of them that is sound, or none.
fn facts(bytes: &[u8]) {
    let Some(facts) = log::decode_facts(bytes) else {
        return;
    };
    let entry = |path: &str, kind| Entry {
        path: cas::RelPath::parse(path.as_bytes()).expect("a path"),
        mode: 0o755,
        mtime: 5,
        kind,
    };
    let digest = Digest::of(b"");
    let file = || EntryKind::File { digest, size: 0 };
    let entries = vec![
        entry("dir", EntryKind::Directory),
        entry("dir/file", file()),
        entry("file", file()),
    ];
    let tree = Tree::build(entries).expect("a tree");
    let restored = View::restore(tree, OWNER, BORN, Policy::default(), facts);
    if let Ok(view) = restored {
        // A frame that nobody wrote may contradict itself: then it is found out, and no panic.
        let _ = view.check_invariants();
        drop(view.report());
    }
}
