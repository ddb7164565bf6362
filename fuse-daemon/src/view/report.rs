//! What is left when the job has ended.

use cas::RelPath;
use cas::tree::NodeKind;

use super::View;
use super::inode::{InodeId, Kind, Time};

/// What a job used and what it owns, sorted by path.
#[derive(Clone, Debug)]
pub struct ViewReport<S> {
    /// Declared files and links whose content was asked for.
    pub inputs: Vec<RelPath>,
    /// Sizes of the files among them, in bytes.
    pub in_bytes: u64,
    /// What the job made and did not remove. Fifos, sockets and devices are left out.
    pub outputs: Vec<(RelPath, OutputKind<S>)>,
}

/// What an output is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputKind<S> {
    /// A regular file: what backs it, and its permission bits.
    File(S, u16),
    /// A symbolic link: its target and modification time.
    Symlink(Box<[u8]>, Time),
    /// A directory: its permission bits and modification time.
    Directory(u16, Time),
}

impl<S: Clone> View<S> {
    /// Tells what the job used and made. Costs as much as the job touched, not as it declared.
    pub fn report(&self) -> ViewReport<S> {
        let mut inputs: Vec<_> = self
            .read
            .iter()
            .filter_map(|&node| self.tree.path(node))
            .collect();
        inputs.sort();
        let in_bytes = self
            .read
            .iter()
            .filter_map(|&node| match self.tree.get(node)?.kind {
                NodeKind::File { size, .. } => Some(size),
                _ => None,
            });
        let in_bytes = in_bytes.sum();
        let mut outputs: Vec<_> = self
            .table
            .keys()
            .flat_map(|&id| self.outputs_in(id))
            .collect();
        outputs.sort_by(|(a, _), (b, _)| a.cmp(b));
        ViewReport {
            inputs,
            in_bytes,
            outputs,
        }
    }

    /// What the job made in one directory.
    fn outputs_in(&self, id: InodeId) -> Vec<(RelPath, OutputKind<S>)> {
        let Some(inode) = self.table.get(&id).filter(|inode| inode.links > 0) else {
            return Vec::new();
        };
        let Kind::Directory(directory) = &inode.kind else {
            return Vec::new();
        };
        if directory.made.is_empty() && directory.replaced.is_empty() {
            return Vec::new();
        }
        let path = self.directory_path(id);
        let made = self.all_names(id).filter_map(|entry| {
            let output = self.output(entry.id)?;
            let path = match &path {
                Some(path) => path.join(entry.name),
                None => RelPath::from_names([entry.name])?,
            };
            Some((path, output))
        });
        made.collect()
    }

    /// What an inode is as an output, if it is one.
    fn output(&self, id: InodeId) -> Option<OutputKind<S>> {
        if self.is_declared(id) {
            return None;
        }
        let inode = self.table.get(&id)?;
        match &inode.kind {
            Kind::Staged(staged) => Some(OutputKind::File(staged.clone(), inode.meta.perm)),
            Kind::Symlink(target) => Some(OutputKind::Symlink(target.clone(), inode.meta.mtime)),
            Kind::Directory(_) => Some(OutputKind::Directory(inode.meta.perm, inode.meta.mtime)),
            Kind::Special(..) | Kind::Input(_) => None,
        }
    }

    /// The path of a directory that still has one; `None` for the root.
    fn directory_path(&self, mut id: InodeId) -> Option<RelPath> {
        let mut names = Vec::new();
        while id != InodeId::ROOT {
            names.push(self.directory_name(id)?);
            id = self.parent_of(id);
        }
        RelPath::from_names(names.iter().rev().map(|name| name.as_name()))
    }
}
