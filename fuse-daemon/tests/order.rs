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

/// All names, asked for so many at a time.
fn listed(view: &mut View<u32>, limit: usize) -> Vec<String> {
    let mut offset = 0;
    let mut names = Vec::new();
    loop {
        let part = view.list(InodeId::ROOT, offset, limit);
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

fn sorted(names: &[String]) -> Vec<String> {
    let mut names = names.to_vec();
    names.sort();
    names
}

#[test]
fn a_seed_changes_the_order_and_nothing_else() {
    let plain = listed(&mut worked_on(Order::Plain), 100);
    assert_eq!(plain[..5], [".", "..", "a", "c", "e"]);
    let made = sorted(&plain[5..]);
    assert_eq!(made, ["m1", "m2", "m4", "m5", "m6"]);
    for seed in 0..20 {
        let order = Order::Shuffled(seed);
        let whole = listed(&mut worked_on(order), 100);
        assert_eq!(whole[..2], plain[..2], "the dots come first");
        assert_eq!(sorted(&whole[2..5]), plain[2..5], "declared ones are first");
        assert_eq!(sorted(&whole[5..]), made, "{seed}");
        for limit in 1..5 {
            assert_eq!(listed(&mut worked_on(order), limit), whole, "{seed}");
        }
    }
}

#[test]
fn declared_and_made_names_are_both_shuffled() {
    for seed in 0..20 {
        let (mut plain, mut other) = (view(Order::Plain), view(Order::Shuffled(seed)));
        for name in ["m1", "m2", "m3"] {
            make(&mut plain, name);
            make(&mut other, name);
        }
        let (plain, other) = (listed(&mut plain, 100), listed(&mut other, 100));
        let made = 2 + DECLARED.len();
        assert_eq!(plain[2..made], DECLARED);
        assert_ne!(other[2..made], DECLARED, "{seed}");
        assert!(
            other[made..].iter().eq(plain[made..].iter().rev()),
            "{seed}"
        );
    }
}

#[test]
fn seeds_give_different_orders() {
    let orders = (0..20).map(|seed| listed(&mut view(Order::Shuffled(seed)), 100));
    let distinct: std::collections::BTreeSet<_> = orders.collect();
    assert!(distinct.len() > 5, "{distinct:?}");
}

#[test]
fn what_is_made_during_a_listing_leaves_all_else_where_it_is() {
    for order in [Order::Plain, Order::Shuffled(3)] {
        for limit in 1..10 {
            let mut view = worked_on(order);
            let whole = listed(&mut view, 100);
            let first = view.list(InodeId::ROOT, 0, limit).expect("a listing");
            (0..20).for_each(|late| make(&mut view, &format!("late{late}")));
            let next = first.last().expect("an entry").next;
            let rest = view.list(InodeId::ROOT, next, 100);
            let names = first.iter().chain(rest.as_ref().expect("a listing"));
            let names = names.map(|entry| String::from_utf8_lossy(&entry.name).into_owned());
            let early: Vec<_> = names.filter(|name| !name.starts_with("late")).collect();
            assert_eq!(early, whole);
        }
    }
}
