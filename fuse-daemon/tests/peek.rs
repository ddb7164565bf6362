//! Looks into a view from outside: what they show, and that they leave no trace.

use cas::look::{EntryKind, Origin};
use cas::record::{Level, Recording};
use cas::tree::{Entry, EntryKind as Declared, Tree};
use cas::{Digest, Name, RelPath};
use fuse_daemon::view::{Caller, Fault, InputPolicy, NewMode, NewNode, Policy, Time, View};

const OWNER: Caller = Caller { uid: 1, gid: 1 };
const NOW: Time = Time {
    seconds: 5,
    nanoseconds: 0,
};
const MODE: NewMode = NewMode {
    perm: 0o755,
    umask: 0,
};

fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).expect("a path")
}

fn name(text: &str) -> Name<'_> {
    Name::new(text.as_bytes()).expect("a name")
}

fn entry(at: &str, kind: Declared) -> Entry {
    Entry {
        path: path(at),
        mode: 0o640,
        mtime: 7_000_000_000,
        kind,
    }
}

/// `d/a`, `d/b`, `link`, and a full record.
fn view() -> View<u32> {
    let file = |at| {
        let digest = Digest::of(b"four");
        entry(at, Declared::File { digest, size: 4 })
    };
    let target = b"d/a"[..].into();
    let link = entry("link", Declared::Symlink { target });
    let tree = Tree::build(vec![file("d/a"), file("d/b"), link]).expect("a tree");
    let policy = Policy {
        inputs: InputPolicy::CopyOnWrite,
        ..Policy::default()
    };
    let mut view = View::new(tree, OWNER, NOW, policy);
    view.keep_record(Recording {
        level: Level::Full,
        absent: true,
        ..Recording::default()
    });
    view
}

#[test]
fn pages_show_everything_once_and_leave_no_trace() {
    let mut view = view();
    let directory = view.peek(Some(&path("d"))).expect("there");
    let made = NewNode::File(9);
    view.make(directory, name("made"), made, MODE, OWNER, NOW)
        .expect("made");
    let (rows, absent) = (view.record(), view.absent());
    let report = format!("{:?}", view.report());

    let d = path("d");
    let (mut seen, mut from) = (Vec::new(), Some(0));
    while let Some(at) = from {
        let (page, next) = view.peek_at(Some(&d), at, 1).expect("a page");
        let row = |p: fuse_daemon::view::Peeked<u32>| (p.entry.name.0, p.entry.origin, p.staged);
        seen.extend(page.into_iter().map(row));
        from = next;
    }
    let expected = [
        (b"a".to_vec(), Origin::Input, None),
        (b"b".to_vec(), Origin::Input, None),
        (b"made".to_vec(), Origin::Made, Some(9)),
    ];
    assert_eq!(seen, expected);
    let (link, next) = view.peek_at(Some(&path("link")), 0, 10).expect("a link");
    assert_eq!((link[0].entry.kind, next), (EntryKind::Symlink, None));
    assert_eq!(link[0].entry.target.as_ref().expect("a target").0, b"d/a");
    view.peek_file(&path("d/a")).expect("a file");

    let refused = |at: &str| view.peek_file(&path(at)).expect_err("no file");
    assert_eq!(refused("no"), Fault::NotFound);
    assert_eq!(refused("d"), Fault::IsADirectory);
    assert_eq!(refused("d/a/x"), Fault::NotADirectory);
    assert_eq!(refused("link"), Fault::WrongKind);
    assert_eq!((view.record(), view.absent()), (rows, absent));
    assert_eq!(format!("{:?}", view.report()), report);
    view.check_invariants().expect("consistent");
}
