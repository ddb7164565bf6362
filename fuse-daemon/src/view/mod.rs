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
//! because the job made them, and of declared ones that it changed or made something in. So the
//! cost of a job does not grow with the inputs that it does not change, and an inode's number is
//! the same in every `stat` and `readdir`, before and after.
//!
//! Whether inputs may be changed is a matter of [`Policy`]. Where they may, a declared inode that
//! is renamed, linked or given other attributes goes into the table under its own number, with its
//! content still declared; what it holds, if it is a directory, follows it, because the tree is
//! asked by number and not by path. A declared name that was removed or given to something else
//! is noted with its directory: nothing like a whiteout is ever a node.
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

mod access;
mod acl;
mod change;
mod entries;
mod extended;
mod fact;
mod fault;
mod inode;
mod invariants;
mod names;
mod order;
mod peek;
mod policy;
mod read;
mod record;
mod rename;
mod report;

use cas::Name;
use cas::tree::{Node, NodeIndex, NodeKind, Tree};
use rustc_hash::{FxHashMap, FxHashSet};

pub use access::{Access, Caller};
pub use change::{AttributeChange, NewMode, NewNode, SetTime};
pub use extended::SetMode;
pub use fact::{Content, Fact};
pub use fault::Fault;
pub use inode::{Attributes, FileKind, InodeFlags, InodeId, Meta, SpecialKind, Time};
pub use order::Order;
pub use peek::Peeked;
pub use policy::{AtimePolicy, InputPolicy, Permissions, Policy};
pub use read::{Listed, OpenIntent, Opened};
pub use rename::RenameMode;
pub use report::{OutputKind, ViewReport};

use fact::Touched;
use inode::{Directory, Inode, Input, Kind, Listing};
use record::Record;

/// A file view of one job. See the module's documentation.
#[derive(Debug)]
pub struct View<S> {
    tree: Tree,
    /// Inodes that differ from what the tree says, or that the tree does not have.
    table: FxHashMap<InodeId, Inode<S>>,
    /// References that the kernel holds, by lookups it has not forgotten. Not to inputs that
    /// cannot go away.
    references: FxHashMap<InodeId, u64>,
    /// Declared inodes that nobody can reach any more.
    gone: FxHashSet<NodeIndex>,
    next: u64,
    owner: Caller,
    born: Time,
    policy: Policy,
    /// Declared files and links whose content the job has asked for.
    read: FxHashSet<NodeIndex>,
    /// What has changed since it was last asked, if anyone asks.
    touched: Option<Vec<Touched>>,
    /// Which paths the job touched, if anyone asks.
    record: Option<Box<Record>>,
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
    pub fn new(tree: Tree, owner: Caller, born: Time, policy: Policy) -> Self {
        let next = tree.len() as u64 + 1;
        Self {
            tree,
            table: FxHashMap::default(),
            references: FxHashMap::default(),
            gone: FxHashSet::default(),
            next,
            owner,
            born,
            policy,
            read: FxHashSet::default(),
            touched: None,
            record: None,
        }
    }

    /// The rules of this view.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Changes when reading moves access times.
    pub fn set_atime_policy(&mut self, files: AtimePolicy, directories: bool) {
        (self.policy.atime, self.policy.directory_atime) = (files, directories);
    }

    fn node_of(&self, id: InodeId) -> Option<NodeIndex> {
        let index = u32::try_from(id.0.checked_sub(1)?).ok()?;
        ((index as usize) < self.tree.len()).then_some(NodeIndex(index))
    }

    fn id_of(node: NodeIndex) -> InodeId {
        InodeId(u64::from(node.0) + 1)
    }

    /// The node of a declared inode that is still there.
    fn declared(&self, id: InodeId) -> Result<(NodeIndex, Node<'_>)> {
        let index = self.node_of(id).filter(|node| !self.gone.contains(node));
        let index = index.ok_or(Fault::Stale)?;
        let node = self.tree.get(index).ok_or(Fault::Stale)?;
        Ok((index, node))
    }

    /// Whether an inode is a declared input (files, links and directories alike).
    pub fn is_declared(&self, id: InodeId) -> bool {
        self.node_of(id).is_some()
    }

    /// Whether an inode is a declared input that stays as it was declared.
    pub fn is_read_only(&self, id: InodeId) -> bool {
        self.node_of(id)
            .is_some_and(|node| !self.policy.inputs.may_change(&self.tree, node))
    }

    fn meta_of_node(&self, node: &Node<'_>) -> Meta {
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

    /// An inode that is about to change. A declared one is taken into the table.
    fn inode_mut(&mut self, id: InodeId) -> Result<&mut Inode<S>> {
        if !self.table.contains_key(&id) {
            let inode = self.declared_inode(id)?;
            self.table.insert(id, inode);
        }
        self.touch(Touched::Inode(id));
        self.table.get_mut(&id).ok_or(Fault::Stale)
    }

    fn declared_inode(&self, id: InodeId) -> Result<Inode<S>> {
        let (_, node) = self.declared(id)?;
        let kind = match node.kind {
            NodeKind::File { digest, size } => Kind::Input(Input { digest, size }),
            NodeKind::Symlink { target } => Kind::Symlink(target.into()),
            NodeKind::Directory { subdirectories } => {
                let name = Name::new(node.name).ok().map(Name::to_owned);
                let above = Self::id_of(node.parent);
                Kind::Directory(Directory {
                    listing: Listing::UNKNOWN,
                    ..Directory::new(above, name, subdirectories)
                })
            }
        };
        Ok(Inode {
            links: 1,
            ..Inode::new(self.meta_of_node(&node), self.born, kind)
        })
    }

    /// The directory part of an inode that is about to change.
    fn directory_mut(&mut self, id: InodeId) -> Result<(&mut Meta, &mut Directory)> {
        self.directory_state(id)?;
        let inode = self.inode_mut(id)?;
        match &mut inode.kind {
            Kind::Directory(directory) => Ok((&mut inode.meta, directory)),
            _ => Err(Fault::NotADirectory),
        }
    }

    /// Whether an inode is a directory, and whether it still has a name.
    fn directory_state(&self, id: InodeId) -> Result<bool> {
        let (is_directory, named) = match self.table.get(&id) {
            Some(inode) => (
                inode.kind.file_kind() == FileKind::Directory,
                inode.links > 0,
            ),
            None => {
                let (_, node) = self.declared(id)?;
                (matches!(node.kind, NodeKind::Directory { .. }), true)
            }
        };
        is_directory.then_some(named).ok_or(Fault::NotADirectory)
    }

    /// Counts a reference of the kernel to an inode.
    fn reference(&mut self, id: InodeId) {
        if id != InodeId::ROOT && !self.is_read_only(id) {
            *self.references.entry(id).or_default() += 1;
        }
    }

    /// The kernel has dropped `count` references that lookups gave it.
    pub fn forget(&mut self, id: InodeId, count: u64) -> Released<S> {
        match self.references.get_mut(&id) {
            Some(references) if *references > count => *references -= count,
            Some(_) => {
                self.references.remove(&id);
            }
            None => {}
        }
        self.collect(id)
    }

    /// Takes one name off an inode, and the inode out of the table if nobody knows it any more.
    fn unname(&mut self, id: InodeId, now: Time) -> Released<S> {
        if let Ok(inode) = self.inode_mut(id) {
            inode.links = inode.links.saturating_sub(1);
            inode.meta.ctime = now;
        }
        self.collect(id)
    }

    fn collect(&mut self, id: InodeId) -> Released<S> {
        let nameless = self.table.get(&id).is_some_and(|inode| inode.links == 0);
        if !nameless || self.references.contains_key(&id) {
            return Released::default();
        }
        self.touch(Touched::Inode(id));
        self.gone.extend(self.node_of(id));
        match self.table.remove(&id).map(|inode| inode.kind) {
            Some(Kind::Staged(staged)) => Released(vec![staged]),
            _ => Released::default(),
        }
    }

    /// Gives a new inode its number and puts it into the table.
    fn insert(&mut self, inode: Inode<S>) -> InodeId {
        let id = InodeId(self.next);
        self.next += 1;
        self.touch(Touched::Inode(id));
        for name in inode.extended.keys() {
            self.touch(Touched::Extended(id, name.clone()));
        }
        self.table.insert(id, inode);
        id
    }
}
