//! What is left when the job has ended.

use cas::changes::{Change, ChangedInput, InputChanges, RootAttributes};
use cas::tree::{NodeIndex, NodeKind};
use cas::{Digest, Name, RelPath};
use rustc_hash::FxHashMap;

use super::View;
use super::inode::{Directory, Inode, InodeId, Input, Kind, Meta, Time};

/// What a job used and what it owns, sorted by path.
#[derive(Clone, Debug)]
pub struct ViewReport<S> {
    /// Declared files and links whose content was asked for.
    pub inputs: Vec<RelPath>,
    /// Sizes of the files among them, in bytes.
    pub in_bytes: u64,
    /// What the job made and did not remove, and declared inputs that are not what or where they
    /// were. Fifos, sockets and devices are left out.
    pub outputs: Vec<(RelPath, OutputKind<S>)>,
    /// What became of declared inputs that may be changed.
    pub changes: InputChanges,
}

/// What an output is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputKind<S> {
    /// A regular file: what backs it, and its permission bits.
    File(S, u16),
    /// A declared file with its content: permission bits and modification time.
    Input(InodeId, Digest, u64, u16, Time),
    /// A symbolic link: its target and modification time.
    Symlink(Box<[u8]>, Time),
    /// A directory: its permission bits and modification time.
    Directory(u16, Time),
}

/// What has been found so far.
struct Found<S> {
    outputs: Vec<(RelPath, OutputKind<S>)>,
    changes: InputChanges,
    /// The first path of each declared inode that has one where it was not declared.
    elsewhere: FxHashMap<InodeId, RelPath>,
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
        let mut found = self.find_changes();
        found.outputs.sort_by(|(a, _), (b, _)| a.cmp(b));
        found.changes.changed.sort_by(|a, b| a.path.cmp(&b.path));
        found.changes.deleted.sort();
        ViewReport {
            inputs,
            in_bytes,
            outputs: found.outputs,
            changes: found.changes,
        }
    }

    fn find_changes(&self) -> Found<S> {
        let mut found = Found {
            outputs: Vec::new(),
            changes: InputChanges::default(),
            elsewhere: FxHashMap::default(),
        };
        for (&id, inode) in self.table.iter().filter(|(_, inode)| inode.links > 0) {
            if let Kind::Directory(directory) = &inode.kind {
                self.report_names(id, directory, &mut found);
            }
            self.report_at_home(id, inode, &mut found);
        }
        for (id, path) in std::mem::take(&mut found.elsewhere) {
            found.changes.changed.extend(self.moved(id, path));
        }
        found
    }

    /// What lies in a directory where something else or nothing was declared.
    fn report_names(&self, id: InodeId, directory: &Directory, found: &mut Found<S>) {
        if directory.made.is_empty() && directory.replaced.is_empty() {
            return;
        }
        let above = self.directory_path(id);
        for (_, name, made) in directory.made.starting_at(0) {
            self.report_entry(made, child_path(above.as_ref(), name), found);
        }
        for (&node, &now) in &directory.replaced {
            let name = self
                .tree
                .get(node)
                .and_then(|node| Name::new(node.name).ok());
            let Some(name) = name.filter(|_| now != Some(Self::id_of(node))) else {
                continue;
            };
            let path = child_path(above.as_ref(), name);
            self.report_displaced(node, now, path.as_ref(), found);
            if let Some(now) = now {
                self.report_entry(now, path, found);
            }
        }
    }

    fn report_entry(&self, id: InodeId, path: Option<RelPath>, found: &mut Found<S>) {
        let output = self.table.get(&id).and_then(|inode| output(id, inode));
        let (Some(path), Some(output)) = (path, output) else {
            return;
        };
        if self.node_of(id).is_some_and(|node| !self.is_at_home(node)) {
            let first = found.elsewhere.entry(id).or_insert_with(|| path.clone());
            if path < *first {
                first.clone_from(&path);
            }
        }
        found.outputs.push((path, output));
    }

    /// Tells of an input whose name points at something else, or at nothing.
    fn report_displaced(
        &self,
        node: NodeIndex,
        now: Option<InodeId>,
        path: Option<&RelPath>,
        found: &mut Found<S>,
    ) {
        if self.has_name(node) {
            return; // told of where it is
        }
        let made = now.filter(|id| !self.is_declared(*id));
        let made = made.and_then(|id| self.table.get(&id));
        match (made.and_then(|made| self.rewritten(node, made)), path) {
            (Some(change), Some(path)) => found.changes.changed.push(ChangedInput {
                path: path.clone(),
                renamed_from: None,
                change,
            }),
            _ => found.changes.deleted.extend(self.tree.path(node)),
        }
    }

    /// What it does to a declared file or link that one of the job's has taken its place.
    fn rewritten(&self, node: NodeIndex, by: &Inode<S>) -> Option<Change> {
        let node = self.tree.get(node)?;
        match (node.kind, &by.kind) {
            (NodeKind::Directory { .. }, _) | (_, Kind::Directory(_) | Kind::Special(..)) => None,
            (NodeKind::File { digest, .. }, Kind::Staged(_)) => Some(Change::Written {
                digest,
                mode: node.mode,
            }),
            (NodeKind::Symlink { target }, Kind::Symlink(now)) if *target == **now => {
                Some(Change::Unchanged)
            }
            _ => Some(Change::Modified),
        }
    }

    /// Tells of a declared inode that is where it was declared, if something of it has changed.
    fn report_at_home(&self, id: InodeId, inode: &Inode<S>, found: &mut Found<S>) {
        let Some((node, declared)) = self.declared(id).ok().filter(|_| !self.is_read_only(id))
        else {
            return;
        };
        let Some(change) = self.change_of(node, inode) else {
            return;
        };
        if id == InodeId::ROOT {
            found.changes.root = Some(root_attributes(&inode.meta));
        } else if self.is_at_home(node) {
            let above = self.directory_path(Self::id_of(declared.parent));
            let path = Name::new(declared.name).ok();
            let path = path.and_then(|name| child_path(above.as_ref(), name));
            let (Some(path), Some(output)) = (path, output(id, inode)) else {
                return;
            };
            found.outputs.push((path.clone(), output));
            found.changes.changed.push(ChangedInput {
                path,
                renamed_from: None,
                change,
            });
        }
    }

    /// Tells of a declared inode whose declared name is gone.
    fn moved(&self, id: InodeId, path: RelPath) -> Option<ChangedInput> {
        let (node, inode) = (self.node_of(id)?, self.table.get(&id)?);
        Some(ChangedInput {
            path,
            renamed_from: self.tree.path(node),
            change: self.change_of(node, inode).unwrap_or(Change::Unchanged),
        })
    }

    fn change_of(&self, node: NodeIndex, inode: &Inode<S>) -> Option<Change> {
        let declared = self.tree.get(node)?;
        let of = |meta: &Meta| (meta.perm, meta.uid, meta.gid, meta.mtime);
        match (declared.kind.clone(), &inode.kind) {
            (NodeKind::File { digest, .. }, Kind::Staged(_)) => Some(Change::Written {
                digest,
                mode: declared.mode,
            }),
            _ if of(&inode.meta) != of(&self.meta_of_node(&declared)) => Some(Change::Metadata),
            _ => None,
        }
    }

    /// Whether a declared inode has a name, wherever.
    fn has_name(&self, node: NodeIndex) -> bool {
        match self.table.get(&Self::id_of(node)) {
            Some(inode) => inode.links > 0,
            None => !self.gone.contains(&node),
        }
    }

    /// Whether a declared inode still has its declared name, in the directory where it was declared.
    fn is_at_home(&self, node: NodeIndex) -> bool {
        let parent = self.tree.get(node).map(|node| node.parent);
        parent.is_some_and(|parent| {
            let id = Self::id_of(node);
            self.has_name(parent) && self.in_place_of(Self::id_of(parent), node) == Some(id)
        })
    }

    /// The path of a directory that still has one; `None` for the root.
    pub(super) fn directory_path(&self, mut id: InodeId) -> Option<RelPath> {
        let mut names = Vec::new();
        while id != InodeId::ROOT {
            names.push(self.directory_name(id)?);
            id = self.parent_of(id);
        }
        RelPath::from_names(names.iter().rev().map(|name| name.as_name()))
    }
}

fn child_path(above: Option<&RelPath>, name: Name<'_>) -> Option<RelPath> {
    match above {
        Some(above) => Some(above.join(name)),
        None => RelPath::from_names([name]),
    }
}

/// What an inode is as an output, if it can be one.
fn output<S: Clone>(id: InodeId, inode: &Inode<S>) -> Option<OutputKind<S>> {
    let Meta { perm, mtime, .. } = inode.meta;
    match &inode.kind {
        Kind::Staged(staged) => Some(OutputKind::File(staged.clone(), perm)),
        Kind::Input(Input { digest, size }) => {
            Some(OutputKind::Input(id, *digest, *size, perm, mtime))
        }
        Kind::Symlink(target) => Some(OutputKind::Symlink(target.clone(), mtime)),
        Kind::Directory(_) => Some(OutputKind::Directory(perm, mtime)),
        Kind::Special(..) => None,
    }
}

fn root_attributes(meta: &Meta) -> RootAttributes {
    RootAttributes {
        mode: meta.perm,
        mtime_sec: meta.mtime.seconds,
        mtime_nsec: meta.mtime.nanoseconds,
    }
}
