//! From sorted entries to a table.

use std::collections::VecDeque;
use std::ops::Range;

use super::{Entries, IMPLICIT_DIRECTORY_MODE, Layout, Node, NodeIndex, NodeKind, Tree, TreeError};
use crate::name::RelPath;

/// Sorted entries on their way into a table.
pub(super) struct Builder<'e, E: ?Sized> {
    pub(super) entries: &'e E,
    pub(super) layout: Layout,
}

/// A directory whose children are still to be laid out: its row, the sorted entries below it,
/// and how many bytes of their paths lead to it.
struct Pending<'o> {
    row: NodeIndex,
    below: &'o [u32],
    prefix: usize,
}

impl<E: Entries + ?Sized> Builder<'_, E> {
    pub(super) fn build(mut self, order: &[u32]) -> Result<Tree, TreeError> {
        let mut queue = VecDeque::new();
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
        queue: &mut VecDeque<Pending<'o>>,
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
        let path = self.entries.path(entry);
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
            let path = self.entries.path(entry);
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
        let ends_here = |entry: &u32| self.entries.path(*entry).len() == end;
        let (own, below) = group.split_at(group.partition_point(ends_here));
        let Some(&first) = own.first() else {
            return Ok((None, below));
        };
        let path = |entry| RelPath::of_normal(self.entries.path(entry));
        let what = |entry| (self.entries.attributes(entry), self.entries.kind(entry));
        if own[1..].iter().any(|&other| what(other) != what(first)) {
            return Err(TreeError::Duplicate(path(first)));
        }
        match below.first() {
            Some(&child) if !is_directory(&self.entries.kind(first)) => {
                Err(TreeError::NotADirectory {
                    path: path(first),
                    below: path(child),
                })
            }
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
        let (mode, mtime) = self.entries.attributes(source);
        let directory = NodeKind::Directory { subdirectories: 0 };
        let (mode, kind) = match own {
            None => (IMPLICIT_DIRECTORY_MODE, directory),
            Some(own) => (mode, self.entries.kind(own)),
        };
        let is_directory = is_directory(&kind);
        let row = self.layout.add(&Node {
            name: &self.entries.path(source)[name],
            parent,
            mode,
            mtime,
            kind,
        })?;
        Ok((row, is_directory))
    }
}

fn is_directory(kind: &NodeKind<'_>) -> bool {
    matches!(kind, NodeKind::Directory { .. })
}
