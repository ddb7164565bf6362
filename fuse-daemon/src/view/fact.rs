//! A view as a list of facts, to be kept on disk and read back.
//!
//! A fact tells what is now, not what was done: replayed in order, the last one about a thing
//! counts. So a log of facts may be cut short after any change, told twice, or be replaced by the
//! shorter list that [`View::snapshot`] makes.

use cas::tree::Tree;
use cas::{Name, NameBuf};
use rustc_hash::FxHashMap;

use super::access::Caller;
use super::inode::{
    Directory, FileKind, Inode, InodeFlags, InodeId, Input, Kind, Meta, SpecialKind, Time,
};
use super::policy::Policy;
use super::{Fault, Result, View};
use cas::tree::NodeKind;

/// One thing that is so in a view and was not declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact<S> {
    /// What an inode is, but for its names and extended attributes.
    Inode {
        /// Which.
        id: InodeId,
        /// Permissions, owner, times.
        meta: Meta,
        /// When it was made.
        born: Time,
        /// Its flags.
        flags: InodeFlags,
        /// What it holds.
        content: Content<S>,
    },
    /// An inode is no more.
    Gone(InodeId),
    /// What a name of a directory points at; at nothing if it was removed.
    Name {
        /// The directory.
        directory: InodeId,
        /// The name.
        name: NameBuf,
        /// The inode.
        id: Option<InodeId>,
    },
    /// An extended attribute, or that there is none.
    Extended {
        /// Whose.
        id: InodeId,
        /// Its name.
        name: Box<[u8]>,
        /// Its value.
        value: Option<Box<[u8]>>,
    },
    /// The number that the next inode will get. Numbers are never used again.
    Next(u64),
}

/// What an inode holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content<S> {
    /// What the declared file of this number holds.
    Input,
    /// What a staging file holds.
    Staged(S),
    /// The target of a symbolic link.
    Symlink(Box<[u8]>),
    /// Nothing: a fifo, a socket or a device with its number.
    Special(SpecialKind, u32),
    /// Names.
    Directory,
}

/// What a change has touched. It is looked up when facts are asked for.
#[derive(Clone, Debug)]
pub(super) enum Touched {
    Inode(InodeId),
    Name(InodeId, NameBuf),
    Extended(InodeId, Box<[u8]>),
}

impl<S: Clone> View<S> {
    /// Begins to note what changes, for [`View::take_facts`].
    pub fn keep_facts(&mut self) {
        self.touched.get_or_insert_default();
    }

    /// All that has changed since this was last called. Empty unless [`View::keep_facts`] was.
    pub fn take_facts(&mut self) -> Vec<Fact<S>> {
        let touched = self
            .touched
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default();
        touched
            .into_iter()
            .map(|touched| self.fact(touched))
            .collect()
    }

    pub(super) fn touch(&mut self, what: Touched) {
        if let Some(touched) = &mut self.touched {
            touched.push(what);
        }
    }

    fn fact(&self, touched: Touched) -> Fact<S> {
        match touched {
            Touched::Inode(id) => self
                .table
                .get(&id)
                .map_or(Fact::Gone(id), |inode| inode.fact(id)),
            Touched::Name(directory, name) => {
                let id = self.child(directory, name.as_name());
                Fact::Name {
                    directory,
                    name,
                    id,
                }
            }
            Touched::Extended(id, name) => {
                let value = self.extended(id, &name).ok();
                Fact::Extended { id, name, value }
            }
        }
    }

    /// Facts that tell all of the view. Inodes without a name are left out.
    pub fn snapshot(&self) -> Vec<Fact<S>> {
        let mut named: Vec<_> = self
            .table
            .iter()
            .filter(|(_, inode)| inode.links > 0)
            .collect();
        named.sort_by_key(|(id, _)| **id);
        let inodes = named.iter().map(|(id, inode)| inode.fact(**id));
        let extended = named.iter().flat_map(|(id, inode)| {
            inode.extended.iter().map(|(name, value)| Fact::Extended {
                id: **id,
                name: name.clone(),
                value: Some(value.clone()),
            })
        });
        let names = named.iter().flat_map(|(id, inode)| match &inode.kind {
            Kind::Directory(directory) => self.names_told(**id, directory),
            _ => Vec::new(),
        });
        let gone = self.table.iter().filter(|(_, inode)| inode.links == 0);
        let gone = gone.map(|(id, _)| *id).filter(|id| self.is_declared(*id));
        let gone = gone.chain(self.gone.iter().map(|node| Self::id_of(*node)));
        let next = Fact::Next(self.next);
        inodes
            .chain(extended)
            .chain(names)
            .chain(gone.map(Fact::Gone))
            .chain([next])
            .collect()
    }

    fn names_told(&self, id: InodeId, directory: &Directory) -> Vec<Fact<S>> {
        let replaced = directory.replaced.iter().filter_map(|(node, now)| {
            let name = Name::new(self.tree.get(*node)?.name).ok()?;
            Some((name, *now))
        });
        let made = directory.made.starting_at(0);
        replaced
            .chain(made.map(|(_, name, id)| (name, Some(id))))
            .map(|(name, to)| Fact::Name {
                directory: id,
                name: name.to_owned(),
                id: to,
            })
            .collect()
    }

    /// A view as facts tell it, with the tree, owner and birth time that it was made with. Inodes
    /// without a name are forgotten. Fails on facts that no view has told of this tree.
    pub fn restore(
        tree: Tree,
        owner: Caller,
        born: Time,
        policy: Policy,
        facts: impl IntoIterator<Item = Fact<S>>,
    ) -> Result<Self> {
        let mut view = Self::new(tree, owner, born, policy);
        for fact in facts {
            view.believe(fact)?;
        }
        view.recount()?;
        Ok(view)
    }

    fn believe(&mut self, fact: Fact<S>) -> Result<()> {
        match fact {
            Fact::Inode {
                id,
                meta,
                born,
                flags,
                content,
            } => {
                let behind = id.0.checked_add(1).ok_or(Fault::Stale)?;
                self.next = self.next.max(behind);
                let kind = self.kind_told(id, content)?;
                let before = self.table.remove(&id);
                let mut inode =
                    before.unwrap_or_else(|| Inode::new(meta, born, Kind::Symlink([].into())));
                // A directory that is told of again keeps its names.
                let both = (&inode.kind, &kind);
                if !matches!(both, (Kind::Directory(_), Kind::Directory(_))) {
                    inode.kind = kind;
                }
                (inode.meta, inode.born, inode.flags) = (meta, born, flags);
                self.table.insert(id, inode);
            }
            Fact::Gone(id) => {
                self.table.remove(&id);
                self.gone.extend(self.node_of(id));
            }
            Fact::Name {
                directory,
                name,
                id,
            } => self.believe_name(directory, name, id)?,
            Fact::Extended { id, name, value } => {
                let extended = &mut self.inode_mut(id)?.extended;
                match value {
                    Some(value) => drop(extended.insert(name, value)),
                    None => drop(extended.remove(&name)),
                }
            }
            Fact::Next(next) => self.next = self.next.max(next),
        }
        Ok(())
    }

    fn kind_told(&self, id: InodeId, content: Content<S>) -> Result<Kind<S>> {
        Ok(match content {
            Content::Input => match self.declared(id)?.1.kind {
                NodeKind::File { digest, size } => Kind::Input(Input { digest, size }),
                _ => return Err(Fault::WrongKind),
            },
            Content::Staged(staged) => Kind::Staged(staged),
            Content::Symlink(target) => Kind::Symlink(target),
            Content::Special(kind, rdev) => Kind::Special(kind, rdev),
            Content::Directory => match self.declared_inode(id) {
                Ok(inode) => inode.kind,
                Err(_) => Kind::Directory(Directory::new(InodeId::ROOT, None, 0)),
            },
        })
    }

    fn believe_name(&mut self, id: InodeId, name: NameBuf, to: Option<InodeId>) -> Result<()> {
        let node = self.node_of(id);
        let declared = node.and_then(|node| self.tree.child(node, name.as_name()));
        let Kind::Directory(directory) = &mut self.inode_mut(id)?.kind else {
            return Err(Fault::NotADirectory);
        };
        match (declared, to) {
            (Some(node), to) => drop(directory.replaced.insert(node, to)),
            (None, Some(to)) => directory.made.insert(name, to),
            (None, None) => drop(directory.made.remove(name.as_name())),
        }
        Ok(())
    }

    /// Finds from all names what follows from them: link counts, parents, and who is left.
    fn recount(&mut self) -> Result<()> {
        let mut links: FxHashMap<InodeId, u32> = FxHashMap::default();
        let mut below: Vec<(InodeId, NameBuf, InodeId)> = Vec::new();
        for &id in self.table.keys() {
            for entry in self.all_names(id) {
                *links.entry(entry.id).or_default() += 1;
                if self.kind_of(entry.id)? == FileKind::Directory {
                    below.push((id, entry.name.to_owned(), entry.id));
                }
            }
        }
        // A declared inode keeps its name in a directory that nothing is told of.
        let untouched = |id: InodeId| {
            let parent = self.declared(id).map(|(_, node)| Self::id_of(node.parent));
            parent.is_ok_and(|parent| {
                !self.table.contains_key(&parent) && self.declared(parent).is_ok()
            })
        };
        let kept = self
            .table
            .keys()
            .filter(|id| **id == InodeId::ROOT || untouched(**id));
        kept.for_each(|id| *links.entry(*id).or_default() += 1);
        self.settle(&links, below)
    }

    fn settle(
        &mut self,
        links: &FxHashMap<InodeId, u32>,
        below: Vec<(InodeId, NameBuf, InodeId)>,
    ) -> Result<()> {
        let mut nameless = Vec::new();
        for (&id, inode) in &mut self.table {
            inode.links = links.get(&id).copied().unwrap_or(0);
            if inode.links == 0 {
                nameless.push(id);
            }
            if let Kind::Directory(directory) = &mut inode.kind {
                directory.subdirectories = 0;
            }
        }
        for (parent, name, id) in below {
            if let Some(Kind::Directory(directory)) =
                self.table.get_mut(&id).map(|inode| &mut inode.kind)
            {
                (directory.parent, directory.name) = (parent, Some(name));
            }
            if let Some(Kind::Directory(directory)) =
                self.table.get_mut(&parent).map(|inode| &mut inode.kind)
            {
                directory.subdirectories += 1;
            }
        }
        for id in nameless {
            self.table.remove(&id);
            self.gone.extend(self.node_of(id));
        }
        Ok(())
    }
}

impl<S: Clone> Inode<S> {
    fn fact(&self, id: InodeId) -> Fact<S> {
        let content = match &self.kind {
            Kind::Directory(_) => Content::Directory,
            Kind::Input(_) => Content::Input,
            Kind::Staged(staged) => Content::Staged(staged.clone()),
            Kind::Symlink(target) => Content::Symlink(target.clone()),
            Kind::Special(kind, rdev) => Content::Special(*kind, *rdev),
        };
        Fact::Inode {
            id,
            meta: self.meta,
            born: self.born,
            flags: self.flags,
            content,
        }
    }
}
