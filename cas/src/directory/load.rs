//! From the objects of a stored tree to a [`Tree`].

use std::ops::Range;

use super::{ChildKind, Directory, DirectoryError, Root};
use crate::digest::Digest;
use crate::error::Error;
use crate::name::RelPath;
use crate::parallel;
use crate::store::Store;
use crate::tree::{Layout, Node, NodeIndex, NodeKind, Tree, TreeError};

/// Most nodes that are loaded: 1.2 GB. A few small objects that name each other could stand for
/// any number.
const NODES_MAX: usize = 1 << 24;

/// So many objects are decoded at once: parsed, a file takes four times what it takes in a tree.
const OBJECTS_AT_ONCE: usize = 256;

/// So many files are looked for by one task.
const FILES_AT_ONCE: u32 = 64;

/// Why a stored tree cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// An object or a blob is missing or wrong.
    #[error("{}: {source}{}", place(path.as_ref()), and_more(*more))]
    Entry {
        /// The first path that it is about; `None` for the root.
        path: Option<RelPath>,
        /// What is wrong.
        source: Box<DirectoryError>,
        /// How many more paths something is wrong with.
        more: usize,
    },
    /// More than a tree can hold.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// More than is loaded.
    #[error("input root {root} has more than {most} entries")]
    TooLarge {
        /// The root's object.
        root: Digest,
        /// So many would be loaded.
        most: usize,
    },
}

impl LoadError {
    /// That something is wrong with one path; `None` is the root.
    pub fn of(path: Option<RelPath>, source: DirectoryError) -> Self {
        let source = Box::new(source);
        let more = 0;
        Self::Entry { path, source, more }
    }
}

fn place(path: Option<&RelPath>) -> String {
    match path {
        Some(path) => format!("input '{path}'"),
        None => "input root".into(),
    }
}

fn and_more(more: usize) -> String {
    match more {
        0 => String::new(),
        _ => format!(" (and {more} more inputs)"),
    }
}

/// What was wrong first, and how often something was.
#[derive(Default)]
struct Failures {
    first: Option<(NodeIndex, DirectoryError)>,
    count: usize,
}

impl Failures {
    fn add(&mut self, node: NodeIndex, error: DirectoryError) {
        self.first.get_or_insert((node, error));
        self.count += 1;
    }

    fn join(mut self, later: Self) -> Self {
        self.first = self.first.or(later.first);
        self.count += later.count;
        self
    }

    fn refuse(self, tree: &Tree) -> Result<(), LoadError> {
        match self.first {
            None => Ok(()),
            Some((node, error)) => Err(LoadError::Entry {
                path: tree.path(node),
                source: Box::new(error),
                more: self.count - 1,
            }),
        }
    }
}

/// Looks for the object of a root, without reading it.
///
/// Fails if the store does not have it, or if it has another size than the name says.
pub fn find_root(root: &Root, store: &Store) -> Result<(), LoadError> {
    let found = find(root.digest, root.size, store);
    found.map(drop).map_err(|error| LoadError::of(None, error))
}

/// Looks for a blob, of a given size if that is known, and returns its size.
pub(crate) fn find(
    digest: Digest,
    size: Option<u64>,
    store: &Store,
) -> Result<u64, DirectoryError> {
    let stat = store.claim(digest)?.ok_or(Error::Missing(digest))?;
    match size {
        Some(expected) if expected != stat.size => Err(DirectoryError::Size {
            digest,
            expected,
            found: stat.size,
        }),
        _ => Ok(stat.size),
    }
}

/// Reads the objects of a stored tree, each checked against its digest. The blobs of its files are
/// not looked for: that is [`check`].
pub fn load(root: &Root, store: &Store) -> Result<Tree, LoadError> {
    load_up_to(NODES_MAX, root, store)
}

pub(super) fn load_up_to(most: usize, root: &Root, store: &Store) -> Result<Tree, LoadError> {
    let mut loading = Loading {
        root: *root,
        most,
        layout: Layout::new(0, 0, 0),
        failures: Failures::default(),
        next: Vec::new(),
    };
    let mut level = vec![(NodeIndex::ROOT, *root)];
    while !level.is_empty() {
        for some in level.chunks(OBJECTS_AT_ONCE) {
            let read = parallel::map(some, |(_, object)| {
                Directory::read(object.digest, object.size, store)
            });
            for ((node, _), read) in some.iter().zip(read) {
                match read {
                    Ok(directory) => loading.lay_out(*node, directory)?,
                    Err(error) => loading.failures.add(*node, error),
                }
            }
        }
        level = std::mem::take(&mut loading.next);
    }
    let tree = loading.layout.finish();
    loading.failures.refuse(&tree)?;
    Ok(tree)
}

struct Loading {
    root: Root,
    most: usize,
    layout: Layout,
    failures: Failures,
    /// The directories of the level below, and their objects.
    next: Vec<(NodeIndex, Root)>,
}

impl Loading {
    fn lay_out(&mut self, node: NodeIndex, directory: Directory) -> Result<(), LoadError> {
        let first = self.layout.len();
        if first + directory.children.len() > self.most {
            let (root, most) = (self.root.digest, self.most);
            return Err(LoadError::TooLarge { root, most });
        }
        self.layout
            .set_attributes(node, directory.mode, directory.mtime);
        for child in &directory.children {
            let (mode, mtime, kind) = child.kind.as_node();
            let added = self.layout.add(&Node {
                name: child.name.as_bytes(),
                parent: node,
                mode,
                mtime,
                kind,
            })?;
            if let ChildKind::Directory { digest, size } = child.kind {
                let size = Some(size);
                self.next.push((added, Root { digest, size }));
            }
        }
        Ok(self.layout.close(node, first)?)
    }
}

impl ChildKind {
    /// Mode, time and kind of a node; those of a directory are not known yet.
    fn as_node(&self) -> (u16, i64, NodeKind<'_>) {
        match *self {
            Self::File {
                digest,
                size,
                mode,
                mtime,
            } => (mode, mtime, NodeKind::File { digest, size }),
            Self::Symlink {
                ref target,
                mode,
                mtime,
            } => (mode, mtime, NodeKind::Symlink { target }),
            Self::Directory { .. } => (0, 0, NodeKind::Directory { subdirectories: 0 }),
        }
    }
}

/// Looks for the blobs of all files of a tree. The first that is missing, unreadable or not as long
/// as the tree says is named with its path.
pub fn check(tree: &Tree, store: &Store) -> Result<(), LoadError> {
    let count = tree.len() as u32;
    let starts = (0..count).step_by(FILES_AT_ONCE as usize);
    let ranges: Vec<_> = starts
        .map(|start| start..count.min(start + FILES_AT_ONCE))
        .collect();
    let failures = parallel::map(&ranges, |range| missing(tree, range.clone(), store));
    let failures = failures.into_iter().reduce(Failures::join);
    failures.unwrap_or_default().refuse(tree)
}

fn missing(tree: &Tree, nodes: Range<u32>, store: &Store) -> Failures {
    let mut failures = Failures::default();
    for index in nodes.map(NodeIndex) {
        let Some(NodeKind::File { digest, size }) = tree.get(index).map(|node| node.kind) else {
            continue;
        };
        if let Err(error) = find(digest, Some(size), store) {
            failures.add(index, error);
        }
    }
    failures
}
