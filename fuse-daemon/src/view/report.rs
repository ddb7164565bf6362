//! What is left when the job has ended.

use cas::RelPath;
use cas::tree::NodeKind;

use super::View;
use super::inode::{Directory, InodeId, Kind, Time};

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
        let Some(Kind::Directory(directory)) = self.table.get(&id).map(|inode| &inode.kind) else {
            return Vec::new();
        };
        if directory.made.is_empty() {
            return Vec::new();
        }
        let path = self.directory_path(id);
        self.made_in(directory, path.as_ref()).collect()
    }

    fn made_in<'a>(
        &'a self,
        directory: &'a Directory,
        path: Option<&'a RelPath>,
    ) -> impl Iterator<Item = (RelPath, OutputKind<S>)> + 'a {
        directory.made.iter().filter_map(move |(name, id)| {
            let inode = self.table.get(&id)?;
            let output = match &inode.kind {
                Kind::Staged(staged) => OutputKind::File(staged.clone(), inode.meta.perm),
                Kind::Symlink(target) => OutputKind::Symlink(target.clone(), inode.meta.mtime),
                Kind::Directory(_) => OutputKind::Directory(inode.meta.perm, inode.meta.mtime),
                Kind::Special(..) => return None,
            };
            let path = match path {
                Some(path) => path.join(name),
                None => RelPath::from_names([name])?,
            };
            Some((path, output))
        })
    }

    /// The path of a directory that still has one; `None` for the root.
    fn directory_path(&self, mut id: InodeId) -> Option<RelPath> {
        let mut names = Vec::new();
        while id != InodeId::ROOT {
            let name = match self.directory_name(id) {
                Some(name) => name,
                None => {
                    let node = self.tree.get(self.node_of(id)?)?;
                    cas::Name::new(node.name).ok()?.to_owned()
                }
            };
            names.push(name);
            id = self.parent_of(id);
        }
        RelPath::from_names(names.iter().rev().map(|name| name.as_name()))
    }
}
