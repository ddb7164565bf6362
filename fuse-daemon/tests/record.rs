//! What the record of a view tells, by levels. What it tells of random jobs is compared with the
//! model.

use cas::record::{Class, Level, Record, Recording, Row};
use cas::tree::{Entry, EntryKind, Tree};
use cas::{Digest, Name, RelPath};
use fuse_daemon::view::{
    Caller, InodeId, InputPolicy, NewNode, OpenIntent, Policy, RenameMode, Time, View,
};

const OWNER: Caller = Caller {
    uid: 1000,
    gid: 1000,
};

const READ: OpenIntent = OpenIntent {
    read: true,
    write: false,
    truncate: false,
    append: false,
    execute: false,
};

fn at(milliseconds: u32) -> Time {
    Time {
        seconds: 100,
        nanoseconds: milliseconds * 1_000_000,
    }
}

fn name(text: &str) -> Name<'_> {
    Name::new(text.as_bytes()).expect("a name")
}

fn file(path: &str, content: &str) -> Entry {
    Entry {
        path: RelPath::parse(path.as_bytes()).expect("a path"),
        mode: 0o755,
        mtime: 0,
        kind: EntryKind::File {
            digest: Digest::of(content.as_bytes()),
            size: content.len() as u64,
        },
    }
}

fn link(path: &str) -> Entry {
    let target = b"a"[..].into();
    Entry {
        kind: EntryKind::Symlink { target },
        ..file(path, "")
    }
}

/// `a`, `d/b`, `d/e/c`, `empty`, `link`, `z/1`, `z/2`, and a record of them.
fn view(recording: Recording, inputs: InputPolicy) -> View<u32> {
    let files = ["a", "d/b", "d/e/c", "z/1", "z/2"].map(|path| file(path, "four"));
    let others = [file("empty", ""), link("link")];
    let tree = Tree::build(files.into_iter().chain(others).collect()).expect("a tree");
    let policy = Policy {
        inputs,
        ..Policy::default()
    };
    let mut view = View::new(tree, OWNER, at(0), policy);
    view.keep_record(recording);
    view
}

fn full() -> View<u32> {
    let recording = Recording {
        level: Level::Full,
        absent: false,
        each_look: false,
    };
    view(recording, InputPolicy::ReadOnly)
}

fn find(view: &mut View<u32>, path: &str) -> InodeId {
    path.split('/').fold(InodeId::ROOT, |parent, part| {
        let found = view.lookup(parent, name(part), OWNER);
        found.expect(path).0.id
    })
}

fn open(view: &mut View<u32>, path: &str, intent: OpenIntent) {
    let id = find(view, path);
    view.open(id, OWNER, intent).expect(path);
}

fn make(view: &mut View<u32>, path: &str, staged: u32) -> InodeId {
    let made = NewNode::File(staged);
    let made = view.make(InodeId::ROOT, name(path), made, 0o644.into(), OWNER, at(0));
    made.expect(path).id
}

fn record(view: &View<u32>) -> Record {
    view.record().expect("a record")
}

fn row(view: &View<u32>, path: &str) -> Option<Row> {
    let path = RelPath::parse(path.as_bytes()).ok();
    let mut rows = record(view).rows.into_iter();
    rows.find(|row| row.path == path)
}

#[track_caller]
fn assert_is(view: &View<u32>, path: &str, class: Class, also: &[Class]) {
    let row = row(view, path).unwrap_or_else(|| panic!("no row of {path}"));
    assert_eq!((row.class, &row.also[..]), (class, also), "{path}");
}

#[test]
fn each_class_is_told_by_what_was_done() {
    let mut view = full();
    open(&mut view, "a", READ);
    open(&mut view, "empty", READ);
    let execute = OpenIntent {
        execute: true,
        ..READ
    };
    open(&mut view, "d/b", execute);
    let link = find(&mut view, "link");
    view.read_link(link).expect("a link");
    let d = find(&mut view, "d/e");
    view.list(d, 0, 9).expect("a listing");
    find(&mut view, "z/1");
    let absent = view.lookup(InodeId::ROOT, name("no"), OWNER);
    assert!(absent.is_err());
    assert_is(&view, "a", Class::Read, &[Class::Stat]);
    assert_is(&view, "empty", Class::Read, &[Class::Stat]);
    assert_is(&view, "d/b", Class::Exec, &[Class::Stat]);
    assert_is(&view, "link", Class::Readlink, &[Class::Stat]);
    assert_is(&view, "d/e", Class::List, &[Class::Stat]);
    assert_is(&view, "z/1", Class::Stat, &[]);
    assert_is(&view, "no", Class::ProbeAbsent, &[]);
    let bytes = |path| row(&view, path).and_then(|row| row.bytes);
    assert_eq!(
        [bytes("a"), bytes("empty"), bytes("d/b")],
        [Some(4), Some(0), Some(4)]
    );
    assert_eq!([bytes("z/1"), bytes("no")], [None, None]);
    let declared = |path| row(&view, path).is_some_and(|row| row.declared);
    assert!(declared("a") && declared("d/e") && !declared("no"));
}

#[test]
fn what_a_job_makes_is_told_by_its_names() {
    let mut view = full();
    let id = make(&mut view, "made", 1);
    let write = OpenIntent {
        read: false,
        write: true,
        ..READ
    };
    open(&mut view, "made", write);
    view.link(id, InodeId::ROOT, name("second"), OWNER, at(1))
        .expect("a link");
    let (mode, root) = (RenameMode::Replace, InodeId::ROOT);
    let moved = view.rename(root, name("made"), root, name("moved"), mode, OWNER, at(1));
    drop(moved.expect("moved"));
    drop(
        view.unlink(root, name("second"), OWNER, at(1))
            .expect("removed"),
    );
    // Whoever has it open knows it by no name, and its other one is what it counts under.
    view.open(id, OWNER, READ).expect("open");
    assert_is(
        &view,
        "made",
        Class::Create,
        &[Class::Rename, Class::Write, Class::Stat],
    );
    assert_is(&view, "moved", Class::Rename, &[Class::Read]);
    assert_is(&view, "second", Class::Create, &[Class::Delete]);
}

#[test]
fn directories_that_were_only_walked_through_are_not_told() {
    let mut view = full();
    find(&mut view, "d/e/c");
    assert_eq!(row(&view, "d"), None);
    assert_eq!(row(&view, "d/e"), None);
    assert_is(&view, "d/e/c", Class::Stat, &[]);
}

#[test]
fn what_is_fetched_ahead_is_not_touched() {
    let mut view = full();
    view.list(InodeId::ROOT, 0, 99).expect("a listing");
    let rows = record(&view).rows;
    assert_eq!(rows.len(), 1);
    assert_eq!((&rows[0].path, rows[0].class), (&None, Class::List));
}

#[test]
fn the_first_touch_has_its_time() {
    let mut view = full();
    view.tick(at(5));
    find(&mut view, "a");
    view.tick(at(9));
    open(&mut view, "a", READ);
    find(&mut view, "empty");
    let first = |path| row(&view, path).map(|row| row.first);
    assert_eq!([first("a"), first("empty")], [Some(5000), Some(9000)]);
}

#[test]
fn an_input_that_may_be_changed_counts_as_written_when_it_is() {
    let recording = Recording {
        level: Level::Full,
        absent: false,
        each_look: false,
    };
    let mut view = view(recording, InputPolicy::CopyOnWrite);
    let id = find(&mut view, "a");
    let both = OpenIntent {
        write: true,
        ..READ
    };
    view.open(id, OWNER, both).expect("open");
    assert_is(&view, "a", Class::Read, &[Class::Stat]);
    drop(view.copy_up(id, 7).expect("copied"));
    assert_is(&view, "a", Class::Write, &[Class::Read, Class::Stat]);
    assert!(row(&view, "a").is_some_and(|row| row.declared));
}

#[test]
fn inputs_are_told_alone_if_no_more_is_asked_for() {
    let recording = Recording {
        level: Level::Inputs,
        absent: false,
        each_look: false,
    };
    let mut view = view(recording, InputPolicy::ReadOnly);
    open(&mut view, "a", READ);
    find(&mut view, "d/b");
    make(&mut view, "made", 1);
    open(&mut view, "made", READ);
    assert!(view.lookup(InodeId::ROOT, name("no"), OWNER).is_err());
    let rows = record(&view).rows;
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_is(&view, "a", Class::Read, &[]);
}

#[test]
fn what_was_not_used_is_told_with_directories_for_all_that_they_hold() {
    let mut view = full();
    open(&mut view, "d/b", READ);
    find(&mut view, "empty");
    let unused: Vec<_> = record(&view)
        .unused
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(unused, ["a", "d/e", "link", "z"]);
}

#[test]
fn the_last_absent_names_are_kept_without_a_record_and_no_more() {
    let recording = Recording {
        level: Level::None,
        absent: true,
        each_look: false,
    };
    let mut view = view(recording, InputPolicy::ReadOnly);
    for number in 0..5000 {
        let absent = view.lookup(InodeId::ROOT, name(&format!("n{number}")), OWNER);
        assert!(absent.is_err());
    }
    open(&mut view, "a", READ);
    let absent = view.absent();
    assert_eq!(absent.len(), 4096);
    let ends = [&absent[0], &absent[4095]].map(ToString::to_string);
    assert_eq!(ends, ["n904", "n4999"]);
    assert_eq!(view.record(), None);
}

#[test]
fn nothing_is_kept_that_nobody_asked_for() {
    let mut view = view(Recording::default(), InputPolicy::ReadOnly);
    open(&mut view, "a", READ);
    assert!(view.lookup(InodeId::ROOT, name("no"), OWNER).is_err());
    assert_eq!(view.record(), None);
    assert!(view.absent().is_empty());
}
