//! Laying a tree out, row by row.

use std::sync::Arc;

use super::{Node, NodeIndex, NodeKind, Payload, Row, Table, Tree, TreeError, index};

/// A tree that is being made, directory by directory in breadth-first order: the children of one
/// directory are added one after the other, sorted by name, and then the directory is closed.
#[derive(Debug)]
pub(crate) struct Layout(Table);

impl Layout {
    /// A root with these permission bits and time, and room for so many nodes below it.
    pub(crate) fn new(mode: u16, mtime: i64, capacity: usize) -> Self {
        let mut rows = Vec::with_capacity(capacity + 1);
        rows.push(Row {
            payload: EMPTY,
            mtime,
            parent: 0,
            name: 0,
            name_len: 0,
            mode,
        });
        let arena = Vec::new();
        Self(Table { arena, rows })
    }

    /// How many nodes there are, the root included.
    pub(crate) fn len(&self) -> usize {
        self.0.rows.len()
    }

    /// Adds a node. A directory has no children until it is closed.
    pub(crate) fn add(&mut self, node: &Node<'_>) -> Result<NodeIndex, TreeError> {
        let name = self.write(node.name)?;
        let payload = match node.kind {
            NodeKind::File { digest, size } => Payload::File { digest, size },
            NodeKind::Symlink { target } => Payload::Symlink {
                target: self.write(target)?,
                len: index(target.len())?,
            },
            NodeKind::Directory { .. } => EMPTY,
        };
        let row = index(self.len())?;
        self.0.rows.push(Row {
            payload,
            mtime: node.mtime,
            parent: node.parent.0,
            name,
            name_len: node.name.len() as u8,
            mode: node.mode,
        });
        Ok(NodeIndex(row))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<u32, TreeError> {
        let start = index(self.0.arena.len())?;
        self.0.arena.extend_from_slice(bytes);
        Ok(start)
    }

    /// All nodes from row `first` on are the children of a directory.
    pub(crate) fn close(&mut self, directory: NodeIndex, first: usize) -> Result<(), TreeError> {
        let is_directory = |row: &&Row| matches!(row.payload, Payload::Directory { .. });
        let subdirectories = self.0.rows[first..].iter().filter(is_directory).count();
        self.0.rows[directory.0 as usize].payload = Payload::Directory {
            first: index(first)?,
            count: index(self.len() - first)?,
            subdirectories: index(subdirectories)?,
        };
        Ok(())
    }

    /// Changes permission bits and modification time of a node.
    pub(crate) fn set_attributes(&mut self, node: NodeIndex, mode: u16, mtime: i64) {
        let row = &mut self.0.rows[node.0 as usize];
        (row.mode, row.mtime) = (mode, mtime);
    }

    /// The tree.
    pub(crate) fn finish(mut self) -> Tree {
        // Kept for long, and grown by doubling: up to half of it would lie idle.
        self.0.rows.shrink_to_fit();
        self.0.arena.shrink_to_fit();
        Tree(Arc::new(self.0))
    }
}

const EMPTY: Payload = Payload::Directory {
    first: 0,
    count: 0,
    subdirectories: 0,
};

impl From<Tree> for Layout {
    fn from(tree: Tree) -> Self {
        Self(Arc::unwrap_or_clone(tree.0))
    }
}
