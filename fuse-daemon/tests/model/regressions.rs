//! Bugs that the model has found in the view, each by name.

use cas::Name;
use cas::tree::Tree;
use fuse_daemon::view::{
    AttributeChange, Caller, Fault, InodeFlags, InodeId, Meta, NewNode, OpenIntent, Permissions,
    Policy, RenameMode, SetMode, SetTime, Time, View,
};

use super::operation::{OWNER, ROOT, STRANGER, all_entries};

const NOW: Time = Time {
    seconds: 9,
    nanoseconds: 0,
};

fn view() -> View<u32> {
    let tree = Tree::build(all_entries()).expect("a tree");
    View::new(tree, OWNER, Time::default(), Policy::default())
}

fn name(text: &str) -> Name<'_> {
    Name::new(text.as_bytes()).expect("a name")
}

fn make(
    view: &mut View<u32>,
    parent: InodeId,
    text: &str,
    node: NewNode<u32>,
    perm: u16,
) -> InodeId {
    let made = view.make(parent, name(text), node, perm.into(), OWNER, NOW);
    made.expect("made").id
}

fn directory(view: &mut View<u32>, parent: InodeId, text: &str) -> InodeId {
    make(view, parent, text, NewNode::Directory, 0o777)
}

fn find(view: &mut View<u32>, path: &str) -> InodeId {
    path.split('/').fold(InodeId::ROOT, |parent, text| {
        view.lookup(parent, name(text), ROOT).expect("there").0.id
    })
}

fn rename(
    view: &mut View<u32>,
    from: (InodeId, &str),
    to: (InodeId, &str),
    mode: RenameMode,
    caller: Caller,
) -> Result<(), Fault> {
    let (old, new) = (name(from.1), name(to.1));
    let renamed = view.rename(from.0, old, to.0, new, mode, caller, NOW);
    renamed.map(drop)
}

/// Names from an offset on, and where to go on.
fn list(view: &mut View<u32>, directory: InodeId, offset: u64) -> (Vec<String>, u64) {
    let listed = view.list(directory, offset, 100).expect("listed");
    let end = listed.last().map_or(offset, |entry| entry.next);
    let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    (listed.iter().map(|entry| text(&entry.name)).collect(), end)
}

#[test]
fn a_name_that_is_replaced_or_exchanged_is_not_listed_again() {
    for mode in [
        RenameMode::Replace,
        RenameMode::Exchange,
        RenameMode::Whiteout,
    ] {
        let mut view = view();
        let parent = directory(&mut view, InodeId::ROOT, "p");
        make(&mut view, parent, "x", NewNode::File(1), 0o644);
        make(&mut view, parent, "y", NewNode::File(2), 0o644);
        let (names, end) = list(&mut view, parent, 0);
        assert_eq!(names.len(), 4);
        assert_eq!(
            rename(&mut view, (parent, "y"), (parent, "x"), mode, OWNER),
            Ok(())
        );
        assert_eq!(list(&mut view, parent, end).0, [""; 0], "{mode:?}");
        assert_eq!(view.check_invariants(), Ok(()));
    }
}

#[test]
fn a_rename_onto_itself_does_nothing_even_to_an_input() {
    let mut view = view();
    let (root, before) = (InodeId::ROOT, view.attributes(InodeId::ROOT));
    for mode in [RenameMode::Replace, RenameMode::Exchange] {
        assert_eq!(
            rename(&mut view, (root, "e"), (root, "e"), mode, OWNER),
            Ok(())
        );
    }
    assert_eq!(view.attributes(root), before);
    let refused = rename(
        &mut view,
        (root, "e"),
        (root, "e"),
        RenameMode::NoReplace,
        OWNER,
    );
    assert_eq!(refused, Err(Fault::Exists));
}

#[test]
fn a_directory_changes_its_parent_only_for_who_may_write_to_it() {
    let mut view = view();
    let root = InodeId::ROOT;
    let to = directory(&mut view, root, "to");
    make(&mut view, root, "closed", NewNode::Directory, 0o555);
    for mode in [RenameMode::Replace, RenameMode::NoReplace] {
        let refused = rename(&mut view, (root, "closed"), (to, "x"), mode, OWNER);
        assert_eq!(refused, Err(Fault::Denied), "{mode:?}");
    }
    directory(&mut view, to, "x");
    for (from, to) in [((root, "closed"), (to, "x")), ((to, "x"), (root, "closed"))] {
        let refused = rename(&mut view, from, to, RenameMode::Exchange, OWNER);
        assert_eq!(refused, Err(Fault::Denied));
    }
    let mode = RenameMode::Replace;
    assert_eq!(
        rename(&mut view, (root, "closed"), (root, "same"), mode, OWNER),
        Ok(())
    );
    assert_eq!(
        rename(&mut view, (root, "same"), (to, "x"), mode, ROOT),
        Ok(())
    );
}

#[test]
fn a_truncating_open_takes_privileges_and_only_the_machines_root_keeps_some() {
    let intent = OpenIntent {
        write: true,
        truncate: true,
        ..OpenIntent::default()
    };
    let capabilities = b"security.capability";
    for (caller, root_keeps_privileges, left) in [
        (OWNER, false, 0o755),
        (OWNER, true, 0o755),
        (ROOT, false, 0o755),
        (ROOT, true, 0o6755),
    ] {
        let tree = Tree::build(all_entries()).expect("a tree");
        let policy = Policy {
            root_keeps_privileges,
            ..Policy::default()
        };
        let mut view = View::new(tree, OWNER, Time::default(), policy);
        let file = make(&mut view, InodeId::ROOT, "f", NewNode::File(1), 0o6755);
        let set = view.set_extended(file, capabilities, b"x", SetMode::Any, NOW);
        assert_eq!(set, Ok(()));
        assert!(view.open(file, caller, intent).is_ok());
        assert_eq!(view.attributes(file).expect("there").0.meta.perm, left);
        assert_eq!(view.extended(file, capabilities), Err(Fault::NoAttribute));
    }
}

#[test]
fn a_stranger_cannot_give_a_file_to_the_own_group() {
    let mut view = view();
    let file = make(&mut view, InodeId::ROOT, "f", NewNode::File(1), 0o666);
    for change in [
        AttributeChange {
            gid: Some(STRANGER.gid),
            ..AttributeChange::default()
        },
        AttributeChange {
            uid: Some(OWNER.uid),
            gid: Some(OWNER.gid),
            ..AttributeChange::default()
        },
    ] {
        let refused = view.set_attributes(file, change, STRANGER, NOW);
        assert_eq!(refused, Err(Fault::NotPermitted));
    }
}

#[test]
fn one_time_alone_is_for_the_owner_to_set_even_to_now() {
    let mut view = view();
    let file = make(&mut view, InodeId::ROOT, "f", NewNode::File(1), 0o666);
    let (one, both) = (
        AttributeChange {
            atime: Some(SetTime::Now),
            ..AttributeChange::default()
        },
        AttributeChange {
            atime: Some(SetTime::Now),
            mtime: Some(SetTime::Now),
            ..AttributeChange::default()
        },
    );
    let truncation = AttributeChange {
        size: Some(0),
        mtime: Some(SetTime::Now),
        ..AttributeChange::default()
    };
    let refused = view.set_attributes(file, one, STRANGER, NOW);
    assert_eq!(refused, Err(Fault::NotPermitted));
    for change in [both, truncation] {
        let set = view.set_attributes(file, change, STRANGER, NOW);
        assert_eq!(set, Ok(Some(1)));
    }
}

#[test]
fn a_file_is_run_only_by_whom_its_bits_name() {
    let mut view = view();
    let file = make(&mut view, InodeId::ROOT, "f", NewNode::File(1), 0o711);
    let private = make(&mut view, InodeId::ROOT, "g", NewNode::File(2), 0o700);
    let run = OpenIntent {
        read: true,
        write: false,
        execute: true,
        ..OpenIntent::default()
    };
    assert!(view.open(file, STRANGER, run).is_ok());
    assert!(view.open(private, OWNER, run).is_ok());
    assert_eq!(view.open(private, STRANGER, run), Err(Fault::Denied));
    let input = find(&mut view, "a/a");
    assert_eq!(view.open(input, ROOT, run), Err(Fault::Denied));
}

#[test]
fn a_removed_directory_whose_parent_is_gone_too_lists_nothing() {
    let mut view = view();
    let parent = directory(&mut view, InodeId::ROOT, "p");
    let child = directory(&mut view, parent, "x");
    for (above, text) in [(parent, "x"), (InodeId::ROOT, "p")] {
        let removed = view.remove_directory(above, name(text), OWNER, NOW);
        drop(removed.expect("removed"));
    }
    drop(view.forget(parent, 1));
    assert_eq!(view.list(child, 0, 9).unwrap_err(), Fault::NotFound);
    assert_eq!(view.attributes(child).expect("known").0.links, 0);
}

#[test]
fn what_lost_its_last_name_cannot_be_linked() {
    let mut view = view();
    let file = make(&mut view, InodeId::ROOT, "f", NewNode::File(1), 0o644);
    let released = view.unlink(InodeId::ROOT, name("f"), OWNER, NOW);
    assert_eq!(released.expect("removed").0, [0; 0]);
    let linked = view.link(file, InodeId::ROOT, name("g"), OWNER, NOW);
    assert_eq!(linked.unwrap_err(), Fault::NotFound);
    assert!(view.report().outputs.is_empty());
    assert_eq!(view.forget(file, 1).0, [1]);
}

#[test]
fn a_preload_that_is_refused_leaves_nothing_behind() {
    let mut view = view();
    let file = find(&mut view, "e");
    let removed = directory(&mut view, InodeId::ROOT, "p");
    let gone = view.remove_directory(InodeId::ROOT, name("p"), OWNER, NOW);
    drop(gone.expect("removed"));
    let meta = Meta {
        perm: 0o644,
        uid: 1000,
        gid: 1000,
        atime: NOW,
        mtime: NOW,
        ctime: NOW,
    };
    let refused = view.preload(file, name("x"), 1, meta);
    assert_eq!(refused, Err(Fault::NotADirectory));
    let refused = view.preload(removed, name("x"), 2, meta);
    assert_eq!(refused, Err(Fault::NotFound));
    assert_eq!(view.check_invariants(), Ok(()));
}

/// xfstests generic/079.
#[test]
fn what_may_only_grow_may_be_touched() {
    let mut view = view();
    let file = make(&mut view, InodeId::ROOT, "f", NewNode::File(1), 0o644);
    let touch = AttributeChange {
        atime: Some(SetTime::Now),
        mtime: Some(SetTime::Now),
        ..AttributeChange::default()
    };
    let chosen = AttributeChange {
        mtime: Some(SetTime::To(NOW)),
        ..touch
    };
    let set = |view: &mut View<u32>, change| view.set_attributes(file, change, ROOT, NOW);
    let flagged = view.set_flags(file, InodeFlags::APPEND_ONLY, ROOT, NOW);
    assert_eq!(flagged, Ok(()));
    assert_eq!(set(&mut view, touch), Ok(Some(1)));
    assert_eq!(set(&mut view, chosen), Err(Fault::NotPermitted));
    let flagged = view.set_flags(file, InodeFlags::IMMUTABLE, ROOT, NOW);
    assert_eq!(flagged, Ok(()));
    assert_eq!(set(&mut view, touch), Err(Fault::NotPermitted));
}

/// xfstests generic/553.
#[test]
fn an_older_descriptor_changes_no_content_that_a_flag_protects() {
    let mut view = view();
    let file = make(&mut view, InodeId::ROOT, "f", NewNode::File(1), 0o644);
    let refused = Err(Fault::NotPermitted);
    for (flags, growth, loss) in [
        (InodeFlags::default(), Ok(()), Ok(())),
        (InodeFlags::APPEND_ONLY, Ok(()), refused),
        (InodeFlags::IMMUTABLE, refused, refused),
    ] {
        assert_eq!(view.set_flags(file, flags, ROOT, NOW), Ok(()));
        assert_eq!(view.may_change_content(file, true), growth);
        assert_eq!(view.may_change_content(file, false), loss);
    }
}

/// xfstests generic/683: the kernel asks for less than a write of a stranger takes away.
#[test]
fn a_stranger_who_writes_takes_set_group_id_away_where_the_kernel_checks_permissions() {
    let tree = Tree::build(all_entries()).expect("a tree");
    let policy = Policy {
        permissions: Permissions::Kernel,
        ..Policy::default()
    };
    let mut view = View::new(tree, OWNER, Time::default(), policy);
    for (caller, left) in [(STRANGER, 0o666), (OWNER, 0o2666), (ROOT, 0o2666)] {
        let name = format!("{}", caller.uid);
        let file = make(&mut view, InodeId::ROOT, &name, NewNode::File(1), 0o6666);
        let kill = AttributeChange {
            perm: Some(0o2666),
            ..AttributeChange::default()
        };
        let set = view.set_attributes(file, kill, caller, NOW);
        assert_eq!(set, Ok(Some(1)));
        let (shown, _) = view.attributes(file).expect("there");
        assert_eq!(shown.meta.perm, left, "{caller:?}");
    }
}

/// xfstests generic/736: whoever renames what is listed, there and back, would list it for ever.
#[test]
fn a_listing_comes_to_an_end_while_all_that_is_listed_is_renamed() {
    let mut view = view();
    let parent = directory(&mut view, InodeId::ROOT, "p");
    for text in ["x", "y", "z"] {
        make(&mut view, parent, text, NewNode::File(1), 0o644);
    }
    let (mut seen, mut offset) = (Vec::new(), 2);
    while let Some(entry) = view.list(parent, offset, 1).expect("listed").pop() {
        let text = String::from_utf8(entry.name.into()).expect("a name");
        for (from, to) in [(&*text, "t"), ("t", &*text)] {
            let mode = RenameMode::Replace;
            let renamed = rename(&mut view, (parent, from), (parent, to), mode, OWNER);
            assert_eq!(renamed, Ok(()));
        }
        seen.push(text);
        offset = entry.next;
    }
    assert_eq!(list(&mut view, parent, 2).0, seen);
    seen.sort();
    assert_eq!(seen, ["x", "y", "z"]);
}

fn directory_of_files(view: &mut View<u32>, count: usize) -> InodeId {
    let parent = directory(view, InodeId::ROOT, "p");
    for number in 0..count {
        let name = number.to_string();
        make(view, parent, &name, NewNode::File(1), 0o644);
    }
    parent
}

/// As `rm -r` does it.
#[test]
fn whoever_removes_all_that_is_listed_comes_by_all_of_it() {
    let mut view = view();
    let parent = directory_of_files(&mut view, 50_000);
    let (mut seen, mut offset) = (0, 2);
    loop {
        let listed = view.list(parent, offset, 25).expect("listed");
        let Some(last) = listed.last() else { break };
        offset = last.next;
        for entry in listed {
            let name = Name::new(&entry.name).expect("a name");
            let removed = view.unlink(parent, name, OWNER, NOW).map(drop);
            assert_eq!(removed, Ok(()));
            seen += 1;
        }
    }
    assert_eq!(seen, 50_000);
    let removed = view.remove_directory(InodeId::ROOT, name("p"), OWNER, NOW);
    assert!(removed.is_ok());
}

/// Whoever copies each file that is listed meets some of the copies, and comes to an end.
#[test]
fn a_listing_comes_to_an_end_while_all_that_is_listed_is_copied() {
    let mut view = view();
    let parent = directory_of_files(&mut view, 100);
    let (mut seen, mut offset) = (0, 2);
    while let Some(entry) = view.list(parent, offset, 1).expect("listed").pop() {
        let copy = format!("{}+", String::from_utf8_lossy(&entry.name));
        make(&mut view, parent, &copy, NewNode::File(1), 0o644);
        (seen, offset) = (seen + 1, entry.next);
    }
    assert!((100..1000).contains(&seen), "{seen}");
}

/// xfstests generic/607.
#[test]
fn new_files_and_directories_inherit_the_flags_of_their_directory() {
    const DAX: InodeFlags = InodeFlags(0x0200_0000);
    let mut view = view();
    let parent = directory(&mut view, InodeId::ROOT, "p");
    let older = make(&mut view, parent, "older", NewNode::File(1), 0o644);
    assert_eq!(view.set_flags(parent, DAX, ROOT, NOW), Ok(()));
    let file = make(&mut view, parent, "f", NewNode::File(2), 0o644);
    let below = directory(&mut view, parent, "d");
    let link = NewNode::Symlink(b"f".as_slice().into());
    let link = make(&mut view, parent, "l", link, 0o777);
    let flags = [older, file, below, link].map(|id| view.flags(id));
    let none = InodeFlags::default();
    assert_eq!(flags, [none, DAX, DAX, none]);
}
