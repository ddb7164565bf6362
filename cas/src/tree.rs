//! Immutable trees: what a job declares, as directories of named nodes.
//!
//! One table per tree, not one map per directory: rows of fixed size in breadth-first order, all
//! names in one arena. The children of a directory are neighbours, sorted by name, so a lookup is
//! a binary search and a listing is a range. 300,000 inputs take about 30 MB this way; boxed maps
//! take three times that. A row's number is known without touching the row, which is what lets a
//! view give inode numbers to inputs that nobody has looked up yet.

mod layout;
mod under;

use std::ops::Range;
use std::sync::Arc;

use crate::digest::Digest;
use crate::name::{Name, RelPath};

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
        let mut order: Vec<u32> = (0..index(entries.len())?).collect();
        order.sort_by(|&a, &b| {
            entries[a as usize]
                .path
                .cmp(&entries[b as usize].path)
                .then(a.cmp(&b))
        });
        let mtime = entries.first().map_or(0, |entry| entry.mtime);
        Builder {
            entries: &entries,
            layout: Layout::new(IMPLICIT_DIRECTORY_MODE, mtime, entries.len()),
        }
        .build(&order)
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

struct Builder<'e> {
    entries: &'e [Entry],
    layout: Layout,
}

/// A directory whose children are still to be laid out: its row, the sorted entries below it,
/// and how many bytes of their paths lead to it.
struct Pending<'o> {
    row: NodeIndex,
    below: &'o [u32],
    prefix: usize,
}

impl Builder<'_> {
    fn build(mut self, order: &[u32]) -> Result<Tree, TreeError> {
        let mut queue = std::collections::VecDeque::new();
        queue.push_back(Pending {
            row: NodeIndex::ROOT,
            below: order,
            prefix: 0,
        });
        while let Some(directory) = queue.pop_front() {
            self.lay_out(&directory, &mut queue)?;
        }
        Ok(self.layout.finish())
    }

    /// Adds the rows of one directory's children and queues those that are directories.
    fn lay_out<'o>(
        &mut self,
        directory: &Pending<'o>,
        queue: &mut std::collections::VecDeque<Pending<'o>>,
    ) -> Result<(), TreeError> {
        let first = self.layout.len();
        let mut rest = directory.below;
        while let Some(&start) = rest.first() {
            let name = self.component(start, directory.prefix);
            let end = name.end;
            let (group, after) = self.split_group(rest, directory.prefix, name.len());
            let (own, below) = self.split_own(group, end)?;
            let (row, is_directory) = self.add_row(directory.row, name, own, below)?;
            if is_directory {
                queue.push_back(Pending {
                    row,
                    below,
                    prefix: end + 1,
                });
            }
            rest = after;
        }
        self.layout.close(directory.row, first)
    }

    /// The name that an entry's path has at byte `prefix`.
    fn component(&self, entry: u32, prefix: usize) -> Range<usize> {
        let path = self.entries[entry as usize].path.as_bytes();
        let len = path[prefix..]
            .iter()
            .position(|&b| b == b'/')
            .unwrap_or(path.len() - prefix);
        prefix..prefix + len
    }

    /// Splits the entries that share the first one's next name from those behind them.
    fn split_group<'o>(
        &self,
        order: &'o [u32],
        prefix: usize,
        len: usize,
    ) -> (&'o [u32], &'o [u32]) {
        let name_of = |entry: u32| {
            let path = self.entries[entry as usize].path.as_bytes();
            &path[prefix..path.len().min(prefix + len + 1)]
        };
        let name = &name_of(order[0])[..len];
        let same = |entry: &u32| {
            let other = name_of(*entry);
            other.starts_with(name) && (other.len() == len || other[len] == b'/')
        };
        order.split_at(order.partition_point(same))
    }

    /// Splits a group into the entry of that very path, if declared, and those below it.
    fn split_own<'o>(
        &self,
        group: &'o [u32],
        end: usize,
    ) -> Result<(Option<u32>, &'o [u32]), TreeError> {
        let ends_here = |entry: &u32| self.entries[*entry as usize].path.as_bytes().len() == end;
        let (own, below) = group.split_at(group.partition_point(ends_here));
        let Some(&first) = own.first() else {
            return Ok((None, below));
        };
        let entry = &self.entries[first as usize];
        if own
            .iter()
            .any(|&other| self.entries[other as usize] != *entry)
        {
            return Err(TreeError::Duplicate(entry.path.clone()));
        }
        match below.first() {
            Some(&child) if entry.kind != EntryKind::Directory => Err(TreeError::NotADirectory {
                path: entry.path.clone(),
                below: self.entries[child as usize].path.clone(),
            }),
            _ => Ok((Some(first), below)),
        }
    }

    /// Adds a row for a declared entry, or for a directory that is only implied by those below, and
    /// says whether it is a directory.
    fn add_row(
        &mut self,
        parent: NodeIndex,
        name: Range<usize>,
        own: Option<u32>,
        below: &[u32],
    ) -> Result<(NodeIndex, bool), TreeError> {
        // The first entry, in the order of declaration, that needs an undeclared directory.
        let source = own
            .or_else(|| below.iter().copied().min())
            .unwrap_or_default();
        let entry = &self.entries[source as usize];
        let directory = NodeKind::Directory { subdirectories: 0 };
        let (mode, kind) = match own {
            None => (IMPLICIT_DIRECTORY_MODE, directory),
            Some(_) => (entry.mode, entry.kind.as_node()),
        };
        let is_directory = matches!(kind, NodeKind::Directory { .. });
        let row = self.layout.add(&Node {
            name: &entry.path.as_bytes()[name],
            parent,
            mode,
            mtime: entry.mtime,
            kind,
        })?;
        Ok((row, is_directory))
    }
}

impl EntryKind {
    fn as_node(&self) -> NodeKind<'_> {
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
    fn to_entry(&self) -> EntryKind {
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
