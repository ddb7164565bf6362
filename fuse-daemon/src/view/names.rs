//! The names of a directory: declared ones, those that point at something else by now, made ones.

use cas::tree::NodeIndex;
use cas::{Name, NameBuf};

use super::fact::Touched;
use super::inode::{Directory, FileKind, InodeId, Kind, Time};
use super::{Fault, Result, View};

/// A name of a directory, and where it stands in its listing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub(super) name: Name<'a>,
    pub(super) id: InodeId,
    pub(super) place: Place,
}

/// Where a name stands in the listing of its directory, for as long as the directory lives.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// Among the declared ones, from 0 on.
    Declared(u32),
    /// Among the made ones, behind the declared.
    Made(u64),
}

impl<'a> Entry<'a> {
    pub(super) fn made((position, name, id): (u64, Name<'a>, InodeId)) -> Self {
        let place = Place::Made(position);
        Self { name, id, place }
    }
}

impl<S: Clone> View<S> {
    pub(super) fn directory(&self, id: InodeId) -> Option<&Directory> {
        match &self.table.get(&id)?.kind {
            Kind::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    /// What a name in a directory points at.
    pub(super) fn child(&self, parent: InodeId, name: Name<'_>) -> Option<InodeId> {
        match self.declared_name(parent, name) {
            Some(node) => self.in_place_of(parent, node),
            None => self.directory(parent)?.made.get(name),
        }
    }

    /// The declared node of a name, whatever the name points at by now.
    fn declared_name(&self, parent: InodeId, name: Name<'_>) -> Option<NodeIndex> {
        self.tree.child(self.node_of(parent)?, name)
    }

    /// What the name of a declared node points at.
    pub(super) fn in_place_of(&self, parent: InodeId, node: NodeIndex) -> Option<InodeId> {
        match self
            .directory(parent)
            .and_then(|directory| directory.replaced.get(&node))
        {
            Some(replaced) => *replaced,
            None => Some(Self::id_of(node)),
        }
    }

    /// A declared name of a directory, if it points at anything.
    pub(super) fn declared_entry(
        &self,
        parent: InodeId,
        node: NodeIndex,
        place: Place,
    ) -> Option<Entry<'_>> {
        let id = self.in_place_of(parent, node)?;
        let name = Name::new(self.tree.get(node)?.name).ok()?;
        Some(Entry { name, id, place })
    }

    /// The names of a directory from a place on: declared ones, then made ones.
    pub(super) fn names(
        &self,
        parent: InodeId,
        declared_from: u32,
        made_from: u64,
    ) -> impl Iterator<Item = Entry<'_>> {
        let declared = self
            .node_of(parent)
            .map_or(0..0, |node| self.tree.children(node));
        let first = declared.start;
        let declared = declared
            .skip(declared_from as usize)
            .filter_map(move |index| {
                let place = Place::Declared(index - first);
                self.declared_entry(parent, NodeIndex(index), place)
            });
        let made = self.directory(parent).into_iter();
        let made = made.flat_map(move |directory| directory.made.starting_at(made_from));
        declared.chain(made.map(Entry::made))
    }

    /// All names of a directory.
    pub(super) fn all_names(&self, parent: InodeId) -> impl Iterator<Item = Entry<'_>> {
        self.names(parent, 0, 0)
    }

    /// How long the names of a directory are, in the order of its listing, if any of them were made,
    /// removed or replaced.
    pub fn changed_names(&self, id: InodeId) -> Option<Vec<usize>> {
        self.directory(id)?;
        let names = self.ordered(id, 0, 0);
        Some(names.map(|entry| entry.name.as_bytes().len()).collect())
    }

    pub(super) fn directory_is_empty(&self, id: InodeId) -> bool {
        self.all_names(id).next().is_none()
    }

    /// Points a name at an inode, or at nothing, and moves the directory's times. What it pointed
    /// at loses nothing but this name.
    pub(super) fn set_name(
        &mut self,
        parent: InodeId,
        name: Name<'_>,
        id: Option<InodeId>,
        now: Time,
    ) -> Result<()> {
        let is_directory = |id| self.kind_of(id) == Ok(FileKind::Directory);
        let gained = id.is_some_and(is_directory);
        let lost = self.child(parent, name).is_some_and(is_directory);
        let declared = self.declared_name(parent, name);
        self.follow_name(parent, name, id);
        let (meta, directory) = self.directory_mut(parent)?;
        match (declared, id) {
            (Some(node), id) => drop(directory.replaced.insert(node, id)),
            (None, Some(id)) => directory.made.insert(name.to_owned(), id),
            (None, None) => drop(directory.made.remove(name)),
        }
        directory.subdirectories += u32::from(gained);
        directory.subdirectories -= u32::from(lost);
        directory.listing.change();
        (meta.mtime, meta.ctime) = (now, now);
        self.touch(Touched::Name(parent, name.to_owned()));
        Ok(())
    }

    /// Takes a name out of a directory.
    pub(super) fn remove_name(
        &mut self,
        parent: InodeId,
        name: Name<'_>,
        now: Time,
    ) -> Result<InodeId> {
        let id = self.child(parent, name).ok_or(Fault::NotFound)?;
        self.set_name(parent, name, None, now)?;
        Ok(id)
    }

    /// The parent of a directory; the root is its own.
    pub(super) fn parent_of(&self, id: InodeId) -> InodeId {
        match self.directory(id) {
            Some(directory) => directory.parent,
            None => self
                .declared(id)
                .map_or(InodeId::ROOT, |(_, node)| Self::id_of(node.parent)),
        }
    }

    /// The name of a directory in its parent; `None` for the root.
    pub(super) fn directory_name(&self, id: InodeId) -> Option<NameBuf> {
        match self.directory(id) {
            Some(directory) => directory.name.clone(),
            None => {
                let (_, node) = self.declared(id).ok()?;
                Name::new(node.name).ok().map(Name::to_owned)
            }
        }
    }
}
