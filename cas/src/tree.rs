//! Immutable trees: what a job declares, as directories of named nodes.
//!
//! One table per tree, not one map per directory: rows of fixed size in breadth-first order, all
//! names in one arena. The children of a directory are neighbours, sorted by name, so a lookup is
//! a binary search and a listing is a range. 300,000 inputs take about 30 MB this way; boxed maps
//! take three times that. A row's number is known without touching the row, which is what lets a
//! view give inode numbers to inputs that nobody has looked up yet.

mod build;
mod layout;
mod under;

use std::ops::Range;
use std::sync::Arc;

use crate::digest::Digest;
use crate::name::{Name, RelPath};

use build::Builder;
pub(crate) use layout::Layout;

/// Permission bits of a directory that exists only because something below it is declared.
pub const IMPLICIT_DIRECTORY_MODE: u16 = 0o755;

/// One declared path, before it becomes part of a [`Tree`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it appears.
    pub path: RelPath,
    /// Permission bits, `0o7777` at most.
    pub mode: u16,
    /// Modification time, nanoseconds since the epoch.
    pub mtime: i64,
    /// What it is.
    pub kind: EntryKind,
}

/// Entries by number, wherever they lie: 300,000 that were read from a document need not be made one by
/// one to become a tree. Paths are [normal](RelPath::is_normal).
pub(crate) trait Entries {
    /// Where it appears.
    fn path(&self, at: u32) -> &[u8];
    /// Permission bits and modification time.
    fn attributes(&self, at: u32) -> (u16, i64);
    /// What it is. How many subdirectories it has is not asked for.
    fn kind(&self, at: u32) -> NodeKind<'_>;
}

impl Entries for [Entry] {
    fn path(&self, at: u32) -> &[u8] {
        self[at as usize].path.as_bytes()
    }

    fn attributes(&self, at: u32) -> (u16, i64) {
        let entry = &self[at as usize];
        (entry.mode, entry.mtime)
    }

    fn kind(&self, at: u32) -> NodeKind<'_> {
        self[at as usize].kind.as_node()
    }
}

/// What an [`Entry`] is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file: the digest and length of its bytes.
    File {
        /// Name of the content.
        digest: Digest,
        /// Length of the content in bytes.
        size: u64,
    },
    /// A symbolic link and its target.
    Symlink {
        /// The bytes of the target.
        target: Box<[u8]>,
    },
    /// A directory.
    Directory,
}

/// Why entries do not form a tree.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TreeError {
    /// The same path twice, with different meanings.
    #[error("'{0}' is declared twice, differently")]
    Duplicate(RelPath),
    /// A path below something that is no directory.
    #[error("'{below}' is declared below '{path}', which is not a directory")]
    NotADirectory {
        /// The file or symbolic link.
        path: RelPath,
        /// What is declared below it.
        below: RelPath,
    },
    /// More rows or name bytes than 32-bit indices reach.
    #[error("more than four billion entries or bytes of names")]
    TooLarge,
}

/// The number of a node in its [`Tree`]; 0 is the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIndex(pub u32);

impl NodeIndex {
    /// The root directory of every tree.
    pub const ROOT: NodeIndex = NodeIndex(0);
}

/// An immutable tree of declared inputs. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Tree(Arc<Table>);

#[derive(Clone, Debug)]
struct Table {
    /// Names of nodes and targets of links, end to end.
    arena: Vec<u8>,
    rows: Vec<Row>,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    payload: Payload,
    mtime: i64,
    parent: u32,
    name: u32,
    name_len: u8,
    mode: u16,
}

#[derive(Debug, Clone, Copy)]
enum Payload {
    File {
        digest: Digest,
        size: u64,
    },
    Symlink {
        target: u32,
        len: u32,
    },
    Directory {
        first: u32,
        count: u32,
        subdirectories: u32,
    },
}

/// A node of a tree, as seen by its readers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node<'a> {
    /// Its name in its directory; empty for the root only.
    pub name: &'a [u8],
    /// The directory that holds it; the root is its own.
    pub parent: NodeIndex,
    /// Permission bits.
    pub mode: u16,
    /// Modification time, nanoseconds since the epoch.
    pub mtime: i64,
    /// What it is.
    pub kind: NodeKind<'a>,
}

/// What a [`Node`] is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeKind<'a> {
    /// A regular file.
    File {
        /// Name of the content.
        digest: Digest,
        /// Length in bytes.
        size: u64,
    },
    /// A symbolic link.
    Symlink {
        /// Its target.
        target: &'a [u8],
    },
    /// A directory.
    Directory {
        /// How many of its children are directories.
        subdirectories: u32,
    },
}

impl Tree {
    /// Builds a tree. Ancestors that are not declared become directories of mode
    /// [`IMPLICIT_DIRECTORY_MODE`] with the time of the first entry that needs them. An entry
    /// that is repeated exactly is taken once.
    pub fn build(entries: Vec<Entry>) -> Result<Self, TreeError> {
        let order = 0..index(entries.len())?;
        Self::of(&entries[..], order.collect())
    }

    /// As [`Tree::build`], of some of many entries: those of these numbers, which are in the order of
    /// declaration.
    pub(crate) fn of<E: Entries + ?Sized>(
        entries: &E,
        mut numbers: Vec<u32>,
    ) -> Result<Self, TreeError> {
        let mtime = numbers.first().map_or(0, |&at| entries.attributes(at).1);
        numbers.sort_by(|&a, &b| {
            let order = RelPath::order(entries.path(a), entries.path(b));
            order.then(a.cmp(&b))
        });
        Builder {
            entries,
            layout: Layout::new(IMPLICIT_DIRECTORY_MODE, mtime, numbers.len()),
        }
        .build(&numbers)
    }

    /// The same tree with other attributes of its root: permission bits, and the modification time
    /// in nanoseconds since the epoch.
    #[must_use]
    pub fn with_root(self, mode: u16, mtime: i64) -> Self {
        let mut layout = Layout::from(self);
        layout.set_attributes(NodeIndex::ROOT, mode, mtime);
        layout.finish()
    }

    /// The number of nodes, the root included.
    #[expect(clippy::len_without_is_empty, reason = "a tree always has its root")]
    pub fn len(&self) -> usize {
        self.0.rows.len()
    }

    /// A node by its number, or `None` if this tree has no such number.
    pub fn get(&self, index: NodeIndex) -> Option<Node<'_>> {
        let row = self.0.rows.get(index.0 as usize)?;
        let kind = match row.payload {
            Payload::File { digest, size } => NodeKind::File { digest, size },
            Payload::Symlink { target, len } => NodeKind::Symlink {
                target: self.bytes(target, len as usize),
            },
            Payload::Directory { subdirectories, .. } => NodeKind::Directory { subdirectories },
        };
        let name = self.bytes(row.name, row.name_len as usize);
        Some(Node {
            name,
            parent: NodeIndex(row.parent),
            mode: row.mode,
            mtime: row.mtime,
            kind,
        })
    }

    /// The numbers of a directory's children, in order of their names; empty for what is no directory.
    pub fn children(&self, directory: NodeIndex) -> Range<u32> {
        match self.0.rows.get(directory.0 as usize).map(|row| row.payload) {
            Some(Payload::Directory { first, count, .. }) => first..first + count,
            _ => 0..0,
        }
    }

    /// Finds a name in a directory.
    pub fn child(&self, directory: NodeIndex, name: Name<'_>) -> Option<NodeIndex> {
        let range = self.children(directory);
        let rows = &self.0.rows[range.start as usize..range.end as usize];
        let found = rows.binary_search_by(|row| {
            self.bytes(row.name, row.name_len as usize)
                .cmp(name.as_bytes())
        });
        found.ok().map(|at| NodeIndex(range.start + at as u32))
    }

    /// Finds a path.
    pub fn find(&self, path: &RelPath) -> Option<NodeIndex> {
        let mut names = path.names();
        names.try_fold(NodeIndex::ROOT, |at, name| self.child(at, name))
    }

    /// Whether there is a directory of this path.
    pub fn has_directory(&self, path: &RelPath) -> bool {
        let node = self.find(path).and_then(|index| self.get(index));
        node.is_some_and(|node| matches!(node.kind, NodeKind::Directory { .. }))
    }

    /// The path of a node; `None` for the root, which has none.
    pub fn path(&self, mut index: NodeIndex) -> Option<RelPath> {
        let mut names = Vec::new();
        while index != NodeIndex::ROOT {
            let node = self.get(index)?;
            names.push(Name::new(node.name).ok()?);
            index = node.parent;
        }
        RelPath::from_names(names.into_iter().rev())
    }

    fn bytes(&self, start: u32, len: usize) -> &[u8] {
        &self.0.arena[start as usize..start as usize + len]
    }
}

fn index(value: usize) -> Result<u32, TreeError> {
    u32::try_from(value).map_err(|_| TreeError::TooLarge)
}

impl EntryKind {
    pub(crate) fn as_node(&self) -> NodeKind<'_> {
        match self {
            Self::File { digest, size } => NodeKind::File {
                digest: *digest,
                size: *size,
            },
            Self::Symlink { target } => NodeKind::Symlink { target },
            Self::Directory => NodeKind::Directory { subdirectories: 0 },
        }
    }
}

impl NodeKind<'_> {
    pub(crate) fn to_entry(&self) -> EntryKind {
        match *self {
            Self::File { digest, size } => EntryKind::File { digest, size },
            Self::Symlink { target } => EntryKind::Symlink {
                target: target.into(),
            },
            Self::Directory { .. } => EntryKind::Directory,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(path: &str, mtime: i64) -> Entry {
        let kind = EntryKind::File {
            digest: Digest::of(path.as_bytes()),
            size: path.len() as u64,
        };
        Entry {
            path: RelPath::parse(path.as_bytes()).unwrap(),
            mode: 0o644,
            mtime,
            kind,
        }
    }

    fn directory(path: &str, mode: u16) -> Entry {
        Entry {
            mode,
            kind: EntryKind::Directory,
            ..file(path, 7)
        }
    }

    fn find(tree: &Tree, path: &str) -> Option<NodeIndex> {
        tree.find(&RelPath::parse(path.as_bytes()).unwrap())
    }

    #[test]
    fn undeclared_parents_take_the_time_of_the_entry_that_first_needs_them() {
        let tree = Tree::build(vec![
            file("z/q/1", 5),
            file("z/a", 3),
            directory("d", 0o700),
        ])
        .unwrap();
        let node = tree.get(find(&tree, "z").unwrap()).unwrap();
        assert_eq!((node.mode, node.mtime), (IMPLICIT_DIRECTORY_MODE, 5));
        assert_eq!(node.kind, NodeKind::Directory { subdirectories: 1 });
        assert_eq!(tree.get(find(&tree, "d").unwrap()).unwrap().mode, 0o700);
        assert!(find(&tree, "z/q/2").is_none());
    }

    #[test]
    fn duplicates_and_files_as_parents_are_refused() {
        let twice = Tree::build(vec![file("a", 1), file("a", 1)]);
        assert_eq!(twice.unwrap().len(), 2);
        let differently = Tree::build(vec![file("a", 1), file("a", 2)]);
        assert!(matches!(differently, Err(TreeError::Duplicate(_))));
        let below = Tree::build(vec![file("a/b", 1), file("a", 1)]);
        assert!(matches!(below, Err(TreeError::NotADirectory { .. })));
    }

    proptest! {
        #[test]
        fn every_declared_path_is_found_and_names_itself(
            paths in prop::collection::btree_set("[ab.-]{1,2}(/[ab.-]{1,2}){0,3}", 0..40)
        ) {
            let entries: Vec<_> = paths
                .iter()
                .filter(|path| RelPath::parse(path.as_bytes()).is_ok_and(|p| p.to_string() == **path))
                .map(|path| file(path, 1))
                .collect();
            let Ok(tree) = Tree::build(entries.clone()) else { return Ok(()) };
            for entry in &entries {
                let index = find(&tree, &entry.path.to_string()).expect("declared");
                prop_assert_eq!(tree.path(index), Some(entry.path.clone()));
                let parent = tree.get(index).unwrap().parent;
                prop_assert!(tree.children(parent).contains(&index.0));
            }
        }
    }
}
