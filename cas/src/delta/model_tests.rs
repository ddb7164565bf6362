//! Random changes of a plain directory: base and delta make exactly the tree that a store of what is
//! there has.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::digest::Digest;
use crate::name::{Name, NameBuf};
use crate::tree::Tree;

/// A thing in a directory.
#[derive(Clone, Debug)]
struct Node {
    /// Where it is; the root is in itself, and has no name.
    at: Option<(usize, NameBuf)>,
    mode: u16,
    mtime: i64,
    kind: EntryKind,
    /// Whether it is not what it was in the base, wherever it is.
    changed: bool,
    /// Where it was in the base, if it was there.
    base: Option<(RelPath, usize, NameBuf)>,
    alive: bool,
}

/// A plain directory; what is removed stays known.
#[derive(Clone, Debug)]
struct Plain(Vec<Node>);

/// A change. Numbers choose among what there is.
#[derive(Clone, Debug)]
enum Change {
    Make {
        directory: usize,
        name: u8,
        kind: u8,
    },
    Remove(usize),
    Move {
        what: usize,
        directory: usize,
        name: u8,
    },
    Write {
        file: usize,
        content: u8,
    },
    Touch {
        what: usize,
        mode: u16,
    },
}

fn changes(most: usize) -> impl Strategy<Value = Vec<Change>> {
    let at = || 0..1000_usize;
    let make = (at(), 0..6_u8, 0..6_u8);
    let change = prop_oneof![
        5 => make.prop_map(|(directory, name, kind)| Change::Make { directory, name, kind }),
        2 => at().prop_map(Change::Remove),
        4 => (at(), at(), 0..6_u8)
            .prop_map(|(what, directory, name)| Change::Move { what, directory, name }),
        1 => (at(), any::<u8>()).prop_map(|(file, content)| Change::Write { file, content }),
        1 => (at(), 0..0o1000_u16).prop_map(|(what, mode)| Change::Touch { what, mode }),
    ];
    proptest::collection::vec(change, 0..most)
}

fn name(number: u8) -> NameBuf {
    Name::new(&[b'a' + number]).expect("a letter").to_owned()
}

fn content(number: u8) -> EntryKind {
    let (digest, size) = (Digest::of(&[number]), 1);
    EntryKind::File { digest, size }
}

impl Plain {
    fn empty() -> Self {
        Self(vec![Node {
            at: None,
            mode: 0o755,
            mtime: 5,
            kind: EntryKind::Directory,
            changed: false,
            base: None,
            alive: true,
        }])
    }

    /// One of those that are there and fit.
    fn choose(&self, number: usize, fits: impl Fn(&Node) -> bool) -> Option<usize> {
        let fits = |&index: &usize| self.0[index].alive && fits(&self.0[index]);
        let all: Vec<_> = (0..self.0.len()).filter(fits).collect();
        (!all.is_empty()).then(|| all[number % all.len()])
    }

    fn directory(&self, number: usize) -> usize {
        self.choose(number, |node| node.kind == EntryKind::Directory)
            .expect("the root")
    }

    fn is_free(&self, directory: usize, name: &NameBuf) -> bool {
        let at = Some((directory, name.clone()));
        !self.0.iter().any(|node| node.alive && node.at == at)
    }

    fn is_below(&self, mut index: usize, above: usize) -> bool {
        loop {
            match &self.0[index].at {
                _ if index == above => return true,
                Some((parent, _)) => index = *parent,
                None => return false,
            }
        }
    }

    fn path(&self, mut index: usize) -> Option<RelPath> {
        let mut names = Vec::new();
        while let Some((parent, name)) = &self.0[index].at {
            names.push(name.as_name());
            index = *parent;
        }
        RelPath::from_names(names.into_iter().rev())
    }

    fn apply(&mut self, change: &Change) {
        let is_no_root = |node: &Node| node.at.is_some();
        match *change {
            Change::Make {
                directory,
                name: number,
                kind,
            } => {
                let (directory, name) = (self.directory(directory), name(number));
                if self.is_free(directory, &name) {
                    self.make(directory, name, kind);
                }
            }
            Change::Remove(what) => {
                if let Some(what) = self.choose(what, is_no_root) {
                    self.remove(what);
                }
            }
            Change::Move {
                what,
                directory,
                name: number,
            } => {
                let (directory, name) = (self.directory(directory), name(number));
                if let Some(what) = self.choose(what, is_no_root)
                    && !self.is_below(directory, what)
                    && self.is_free(directory, &name)
                {
                    self.0[what].at = Some((directory, name));
                }
            }
            Change::Write {
                file,
                content: number,
            } => {
                let is_file = |node: &Node| matches!(node.kind, EntryKind::File { .. });
                if let Some(file) = self.choose(file, is_file) {
                    let node = &mut self.0[file];
                    (node.kind, node.changed) = (content(number), true);
                }
            }
            Change::Touch { what, mode } => {
                let has_mode = |node: &Node| {
                    node.at.is_some() && !matches!(node.kind, EntryKind::Symlink { .. })
                };
                if let Some(what) = self.choose(what, has_mode) {
                    let node = &mut self.0[what];
                    (node.mode, node.mtime, node.changed) = (mode, 7, true);
                }
            }
        }
    }

    fn make(&mut self, directory: usize, name: NameBuf, kind: u8) {
        let (mode, kind) = match kind {
            0..=2 => (0o750, EntryKind::Directory),
            3 => (
                0o777,
                EntryKind::Symlink {
                    target: b"target"[..].into(),
                },
            ),
            _ => (0o640, content(kind)),
        };
        self.0.push(Node {
            at: Some((directory, name)),
            mode,
            mtime: 6,
            kind,
            changed: true,
            base: None,
            alive: true,
        });
    }

    fn remove(&mut self, what: usize) {
        let gone: Vec<_> = (0..self.0.len())
            .filter(|index| self.is_below(*index, what))
            .collect();
        for index in gone {
            self.0[index].alive = false;
        }
    }

    /// Takes what is there for the base of what follows.
    fn settle(&mut self) {
        let alive = self.0.iter().enumerate().filter(|(_, node)| node.alive);
        let alive: Vec<_> = alive.map(|(index, _)| index).collect();
        let new = |old: usize| alive.binary_search(&old).expect("its directory lives");
        let moved = alive.iter().map(|&index| {
            let mut node = self.0[index].clone();
            node.at = node.at.map(|(parent, name)| (new(parent), name));
            let path = self.path(index);
            node.base = path
                .zip(node.at.clone())
                .map(|(path, (parent, name))| (path, parent, name));
            node.changed = false;
            node
        });
        self.0 = moved.collect();
    }

    fn entry(&self, index: usize) -> Option<Entry> {
        let node = &self.0[index];
        Some(Entry {
            path: self.path(index)?,
            mode: node.mode,
            mtime: node.mtime,
            kind: node.kind.clone(),
        })
    }

    fn alive(&self) -> impl Iterator<Item = usize> {
        (0..self.0.len()).filter(|index| self.0[*index].alive)
    }

    fn stored(&self, store: &Store) -> Root {
        let tree = Tree::build(self.alive().filter_map(|index| self.entry(index)).collect());
        let tree = tree.expect("a tree").with_root(0o755, 5);
        directory::store(&tree, store).expect("stored")
    }

    /// What has become of the base.
    fn delta(&self) -> Delta {
        let mut delta = Delta::default();
        for (index, node) in self.0.iter().enumerate() {
            if let Some((from, parent, name)) = &node.base {
                let home = Some((*parent, name.clone()));
                match (node.alive, self.path(index)) {
                    (true, Some(path)) if node.at != home => {
                        drop(delta.renamed.insert(path, from.clone()))
                    }
                    // What was in a directory that is no more went with it.
                    (false, _) if self.0[*parent].alive => drop(delta.deleted.insert(from.clone())),
                    _ => {}
                }
            }
            if let (true, Some(entry)) = (node.alive && node.changed, self.entry(index)) {
                delta.entries.insert(entry.path.clone(), entry);
            }
        }
        delta
    }
}

#[test]
fn base_and_delta_make_the_next_base() {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(place.path()).unwrap();
    let mut runner = TestRunner::new(Config {
        cases: 400,
        failure_persistence: None,
        ..Config::default()
    });
    let jobs = (changes(40), proptest::collection::vec(changes(20), 1..4));
    let outcome = runner.run(&jobs, |(first, jobs)| {
        let mut plain = Plain::empty();
        first.iter().for_each(|change| plain.apply(change));
        let mut base = plain.stored(&store);
        // Each job begins with what the one before has left.
        for changes in jobs {
            plain.settle();
            changes.iter().for_each(|change| plain.apply(change));
            let delta = plain.delta();
            let next = delta.apply(&base, &store);
            let next = next.map_err(|error| TestCaseError::fail(format!("{error}: {delta:?}")))?;
            prop_assert_eq!(next, plain.stored(&store), "{:?}", delta);
            base = next;
        }
        Ok(())
    });
    outcome.unwrap();
}
