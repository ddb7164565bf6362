//! The view: what one job sees, and what it has made of it.
//!
//! A [`View`] is pure. It does no I/O, reads no clock, starts no thread and knows nothing of FUSE.
//! What backs a file that the job wrote is the type parameter `S`: an owned staging file in
//! production, a number in tests.
//!
//! # How it is made
//!
//! The declared inputs are an immutable [`Tree`]. Node `n` of the tree *is* inode `n + 1`; nothing
//! is allocated for an input that is only looked at. On top lies a table of inodes that exist
//! because the job made them, and of declared directories that it made something in. So the cost
//! of a job does not grow with the inputs that it does not change, and an inode's number is the
//! same in every `stat` and `readdir`, before and after.
//!
//! # Invariants
//!
//! [`View::check_invariants`] holds after every call:
//!
//! - An inode is in the table under its own number, and new numbers only grow.
//! - `links` of an inode equals the number of names that point at it; a directory has one name.
//! - A name is unique in its directory, whether declared or made.
//! - A directory's `parent` holds it, up to the root; `subdirectories` counts those it holds.
//! - An inode without a name is in the table only while the kernel knows it.
//!
//! Declared inputs are read-only: no operation gives their content, names or attributes another
//! value. Directories that are declared can be written *into*.

mod access;
mod change;
mod entries;
mod fault;
mod inode;
mod invariants;
mod read;
mod rename;
mod report;

use cas::tree::{NodeIndex, NodeKind, Tree};
use cas::{Name, NameBuf};
use rustc_hash::{FxHashMap, FxHashSet};

pub use access::{Access, Caller};
pub use change::{AttributeChange, NewNode, SetTime};
pub use fault::Fault;
pub use inode::{Attributes, FileKind, InodeId, Meta, SpecialKind, Time};
pub use read::{Listed, OpenIntent, Opened};
pub use rename::RenameMode;
pub use report::{OutputKind, ViewReport};

use entries::Entries;
use inode::{Directory, Inode, Kind};

/// A file view of one job. See the module's documentation.
#[derive(Debug)]
pub struct View<S> {
    tree: Tree,
    /// Inodes that differ from what the tree says, or that the tree does not have.
    table: FxHashMap<InodeId, Inode<S>>,
    next: u64,
    owner: Caller,
    born: Time,
    /// Declared files and links whose content the job has asked for.
    read: FxHashSet<NodeIndex>,
}

/// What a change let go of. The view has forgotten it already; dropping it may unlink a file, so
/// drop it after the lock around the view is released.
#[derive(Debug)]
#[must_use = "drop it after the view's lock is released"]
pub struct Released<S>(pub Vec<S>);

impl<S> Default for Released<S> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// A refusal, or what was asked for.
pub type Result<T> = std::result::Result<T, Fault>;

impl<S: Clone> View<S> {
    /// A view of declared inputs. Everything in it belongs to `owner`; inputs count as changed
    /// (`ctime`) at `born`, because their own times say nothing of when they got here.
    pub fn new(tree: Tree, owner: Caller, born: Time) -> Self {
        let next = tree.len() as u64 + 1;
        Self {
            tree,
            table: FxHashMap::default(),
            next,
            owner,
            born,
            read: FxHashSet::default(),
        }
    }

    fn node_of(&self, id: InodeId) -> Option<NodeIndex> {
        let index = u32::try_from(id.0.checked_sub(1)?).ok()?;
        ((index as usize) < self.tree.len()).then_some(NodeIndex(index))
    }

    fn id_of(node: NodeIndex) -> InodeId {
        InodeId(u64::from(node.0) + 1)
    }

    /// Whether an inode is a declared input (files, links and directories alike).
    pub fn is_declared(&self, id: InodeId) -> bool {
        self.node_of(id).is_some()
    }

    fn meta_of_node(&self, node: &cas::tree::Node<'_>) -> Meta {
        let mtime = Time::from_nanoseconds(node.mtime);
        // A symbolic link's own permission bits mean nothing; every file system shows these.
        let perm = if matches!(node.kind, NodeKind::Symlink { .. }) {
            0o777
        } else {
            node.mode
        };
        let Caller { uid, gid } = self.owner;
        Meta {
            perm,
            uid,
            gid,
            atime: mtime,
            mtime,
            ctime: self.born,
        }
    }

    /// Finds the directory part of an inode, taking a declared directory into the table.
    fn directory_mut(&mut self, id: InodeId) -> Result<(&mut Meta, &mut Directory)> {
        if !self.table.contains_key(&id) {
            let inode = self.declared_directory(id)?;
            self.table.insert(id, inode);
        }
        let inode = self.table.get_mut(&id).ok_or(Fault::Stale)?;
        match &mut inode.kind {
            Kind::Directory(directory) => Ok((&mut inode.meta, directory)),
            _ => Err(Fault::NotADirectory),
        }
    }

    fn declared_directory(&self, id: InodeId) -> Result<Inode<S>> {
        let node = self
            .node_of(id)
            .and_then(|index| self.tree.get(index))
            .ok_or(Fault::Stale)?;
        let NodeKind::Directory { subdirectories } = node.kind else {
            return Err(Fault::NotADirectory);
        };
        let directory = Directory {
            parent: Self::id_of(node.parent),
            name: Name::new(node.name).ok().map(Name::to_owned),
            made: Entries::default(),
            subdirectories,
        };
        let meta = self.meta_of_node(&node);
        Ok(Inode {
            meta,
            links: 1,
            lookups: 0,
            kind: Kind::Directory(directory),
        })
    }

    /// Whether an inode is a directory, and whether it still has a name.
    fn directory_state(&self, id: InodeId) -> Result<bool> {
        match self.table.get(&id) {
            Some(Inode {
                kind: Kind::Directory(_),
                links,
                ..
            }) => Ok(*links > 0),
            Some(_) => Err(Fault::NotADirectory),
            None => match self.node_of(id).and_then(|index| self.tree.get(index)) {
                Some(cas::tree::Node {
                    kind: NodeKind::Directory { .. },
                    ..
                }) => Ok(true),
                Some(_) => Err(Fault::NotADirectory),
                None => Err(Fault::Stale),
            },
        }
    }

    /// What a name in a directory points at.
    fn child(&self, parent: InodeId, name: Name<'_>) -> Option<InodeId> {
        let declared = self
            .node_of(parent)
            .and_then(|node| self.tree.child(node, name));
        match self.table.get(&parent) {
            _ if declared.is_some() => declared.map(Self::id_of),
            Some(Inode {
                kind: Kind::Directory(directory),
                ..
            }) => directory.made.get(name),
            _ => None,
        }
    }

    /// Takes one name off an inode, and the inode out of the table if nobody knows it any more.
    fn unname(&mut self, id: InodeId, now: Time) -> Released<S> {
        if let Some(inode) = self.table.get_mut(&id) {
            inode.links = inode.links.saturating_sub(1);
            inode.meta.ctime = now;
        }
        self.collect(id)
    }

    fn collect(&mut self, id: InodeId) -> Released<S> {
        let unreachable = |inode: &Inode<S>| inode.links == 0 && inode.lookups == 0;
        if !self.table.get(&id).is_some_and(unreachable) {
            return Released::default();
        }
        match self.table.remove(&id).map(|inode| inode.kind) {
            Some(Kind::Staged(staged)) => Released(vec![staged]),
            _ => Released::default(),
        }
    }

    /// The kernel has dropped `count` references that lookups gave it.
    pub fn forget(&mut self, id: InodeId, count: u64) -> Released<S> {
        if let Some(inode) = self.table.get_mut(&id) {
            inode.lookups = inode.lookups.saturating_sub(count);
        }
        self.collect(id)
    }

    /// Gives a new inode its number and puts it into the table.
    fn insert(&mut self, meta: Meta, kind: Kind<S>) -> InodeId {
        let id = InodeId(self.next);
        self.next += 1;
        self.table.insert(
            id,
            Inode {
                meta,
                links: 1,
                lookups: 0,
                kind,
            },
        );
        id
    }

    /// Adds a name to a directory, or points one that the job made at another inode, and moves
    /// the directory's times.
    fn add_name(&mut self, parent: InodeId, name: NameBuf, id: InodeId, now: Time) -> Result<()> {
        let is_directory = |id| self.kind_of(id) == Ok(FileKind::Directory);
        let gained = is_directory(id);
        let lost = self.child(parent, name.as_name()).is_some_and(is_directory);
        let (meta, directory) = self.directory_mut(parent)?;
        directory.made.insert(name, id);
        directory.subdirectories += u32::from(gained);
        directory.subdirectories -= u32::from(lost);
        (meta.mtime, meta.ctime) = (now, now);
        Ok(())
    }

    /// Takes a name that the job made out of a directory and moves the directory's times.
    fn remove_name(&mut self, parent: InodeId, name: Name<'_>, now: Time) -> Result<InodeId> {
        let (meta, directory) = self.directory_mut(parent)?;
        let id = directory.made.remove(name).ok_or(Fault::NotFound)?;
        (meta.mtime, meta.ctime) = (now, now);
        if self.kind_of(id)? == FileKind::Directory {
            self.directory_mut(parent)?.1.subdirectories -= 1;
        }
        Ok(id)
    }
}
