//! Listings in another order: everything once, wherever a listing goes on.

use cas::tree::{Entry, EntryKind, Tree};
use cas::{Digest, Name, RelPath};
use fuse_daemon::view::{
    Caller, InodeId, InputPolicy, NewMode, NewNode, Order, Policy, Time, View,
};

const OWNER: Caller = Caller {
    uid: 1000,
    gid: 1000,
};

const DECLARED: [&str; 5] = ["a", "b", "c", "d", "e"];

fn view(order: Order) -> View<u32> {
    let file = |path: &str| Entry {
        path: RelPath::parse(path.as_bytes()).expect("a path"),
        mode: 0o644,
        mtime: 0,
        kind: EntryKind::File {
            digest: Digest::of(b""),
            size: 0,
        },
    };
    let tree = Tree::build(DECLARED.map(file).into()).expect("a tree");
    let policy = Policy {
        inputs: InputPolicy::CopyOnWrite,
        ..Policy::default()
    };
    let mut view = View::new(tree, OWNER, Time::default(), policy);
    view.set_order(order);
    view
}

fn name(text: &str) -> Name<'_> {
    Name::new(text.as_bytes()).expect("a name")
}

fn make(view: &mut View<u32>, text: &str) {
    let (mode, now) = (NewMode::from(0o755), Time::default());
    let node = NewNode::Directory;
    view.make(InodeId::ROOT, name(text), node, mode, OWNER, now)
        .expect("a directory");
}

/// All names, asked for so many at a time, up to where the directory ends now.
fn listed(view: &mut View<u32>, limit: usize) -> Vec<String> {
    let (end, mut offset) = (view.end_of_listing(InodeId::ROOT), 0);
    let mut names = Vec::new();
    loop {
        let part = view.list(InodeId::ROOT, offset..end, limit);
        let part = part.expect("a listing");
        let Some(last) = part.last() else {
            return names;
        };
        assert!(last.next > offset, "backwards");
        offset = last.next;
        let text = part
            .iter()
            .map(|entry| String::from_utf8_lossy(&entry.name).into_owned());
        names.extend(text);
    }
}

fn worked_on(order: Order) -> View<u32> {
    let mut view = view(order);
    for made in ["m1", "m2", "m3", "m4", "m5", "m6"] {
        make(&mut view, made);
    }
    let now = Time::default();
    for gone in ["b", "d"] {
        let released = view.unlink(InodeId::ROOT, name(gone), OWNER, now);
        assert!(released.is_ok());
    }
    let released = view.remove_directory(InodeId::ROOT, name("m3"), OWNER, now);
    assert!(released.is_ok());
    view
}

#[test]
fn a_seed_changes_the_order_and_nothing_else() {
    let plain = listed(&mut worked_on(Order::AsMade), 100);
    assert_eq!(
        plain,
        [".", "..", "a", "c", "e", "m1", "m2", "m4", "m5", "m6"]
    );
    for seed in 0..20 {
        let order = Order::Shuffled(seed);
        let whole = listed(&mut worked_on(order), 100);
        assert_eq!(whole[..2], plain[..2], "the dots come first");
        let mut sorted = whole.clone();
        sorted.sort();
        assert_eq!(sorted, plain, "{seed}");
        for limit in 1..5 {
            assert_eq!(listed(&mut worked_on(order), limit), whole, "{seed}");
        }
    }
}

#[test]
fn declared_and_made_names_are_both_shuffled() {
    for seed in 0..20 {
        let mut view = view(Order::Shuffled(seed));
        assert_ne!(listed(&mut view, 100)[2..], DECLARED, "{seed}");
        let made = ["m1", "m2", "m3"];
        for name in made {
            make(&mut view, name);
        }
        assert_ne!(listed(&mut view, 100)[2 + DECLARED.len()..], made, "{seed}");
    }
}

#[test]
fn seeds_give_different_orders() {
    let orders = (0..20).map(|seed| listed(&mut view(Order::Shuffled(seed)), 100));
    let distinct: std::collections::BTreeSet<_> = orders.collect();
    assert!(distinct.len() > 5, "{distinct:?}");
}

#[test]
fn what_is_made_during_a_listing_comes_behind_its_end() {
    let mut view = worked_on(Order::Shuffled(3));
    let whole = listed(&mut view, 100);
    let end = view.end_of_listing(InodeId::ROOT);
    let first = view.list(InodeId::ROOT, 0..end, 4).expect("a listing");
    make(&mut view, "late");
    let next = first.last().expect("an entry").next;
    let rest = view.list(InodeId::ROOT, next..end, 100);
    let names = first.iter().chain(rest.as_ref().expect("a listing"));
    let names: Vec<_> = names
        .map(|entry| String::from_utf8_lossy(&entry.name).into_owned())
        .collect();
    assert_eq!(names, whole);
}
