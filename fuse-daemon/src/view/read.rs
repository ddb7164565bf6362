//! Looking without changing: lookup, attributes, listing, links, and the decision of `open`.

use cas::tree::{NodeIndex, NodeKind};
use cas::{Digest, Name, NameBuf};

use super::access::{Access, Caller};
use super::inode::{Attributes, FileKind, Inode, InodeId, Input, Kind, Meta};
use super::{Fault, Result, View};

/// Size that directories show, as ext4 does. Tools take 0 for a sign of a special file system.
const DIRECTORY_SIZE: u64 = 4096;

/// Offsets of `.` and `..` come first in a listing; see [`View::list`].
const FIRST_CHILD: u64 = 2;

/// What an `open` is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenIntent {
    /// Content will be read.
    pub read: bool,
    /// Content may be changed, by any of `O_WRONLY`, `O_RDWR` and `O_TRUNC`.
    pub write: bool,
    /// The file will be executed (`FMODE_EXEC`).
    pub execute: bool,
}

/// What backs an opened file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened<S> {
    /// A blob, to be read.
    Input {
        /// Its name.
        digest: Digest,
        /// Its length in bytes, as declared.
        size: u64,
    },
    /// A file that the job wrote.
    Staged(S),
}

/// One entry of a listing.
#[derive(Clone, Debug)]
pub struct Listed<S> {
    /// Its name, or `.` or `..`.
    pub name: Box<[u8]>,
    /// Where to go on behind it.
    pub next: u64,
    /// Its attributes.
    pub attributes: Attributes,
    /// What backs it, if the job wrote it.
    pub staged: Option<S>,
    /// Whether the kernel takes a reference when this entry is delivered with attributes.
    pub counted: bool,
}

impl<S: Clone> View<S> {
    /// Finds a name, and counts a reference for the kernel. Also tells what backs it, if the job
    /// wrote it.
    pub fn lookup(
        &mut self,
        parent: InodeId,
        name: Name<'_>,
        caller: Caller,
    ) -> Result<(Attributes, Option<S>)> {
        self.directory_state(parent)?;
        self.access(parent, caller, Access::EXECUTE)?;
        let id = self.child(parent, name).ok_or(Fault::NotFound)?;
        self.reference(id);
        self.attributes(id)
    }

    /// Counts a reference of the kernel to an inode. Declared files and links are never removed,
    /// so theirs are not counted.
    pub(super) fn reference(&mut self, id: InodeId) {
        if let Some(inode) = self.table.get_mut(&id) {
            inode.lookups += 1;
        }
    }

    /// What `stat` shows. For a file that the job wrote, the second value backs it and has the
    /// size and the times of content.
    pub fn attributes(&self, id: InodeId) -> Result<(Attributes, Option<S>)> {
        match self.table.get(&id) {
            Some(inode) => Ok(table_attributes(id, inode)),
            None => self
                .declared_attributes(id)
                .map(|attributes| (attributes, None)),
        }
    }

    fn declared_attributes(&self, id: InodeId) -> Result<Attributes> {
        let node = self
            .node_of(id)
            .and_then(|index| self.tree.get(index))
            .ok_or(Fault::Stale)?;
        let (kind, links, size) = match node.kind {
            NodeKind::File { size, .. } => (FileKind::Regular, 1, size),
            NodeKind::Symlink { target } => (FileKind::Symlink, 1, target.len() as u64),
            NodeKind::Directory { subdirectories } => {
                (FileKind::Directory, 2 + subdirectories, DIRECTORY_SIZE)
            }
        };
        Ok(Attributes {
            id,
            kind,
            meta: self.meta_of_node(&node),
            links,
            size,
            rdev: 0,
        })
    }

    pub(super) fn kind_of(&self, id: InodeId) -> Result<FileKind> {
        match self.table.get(&id) {
            Some(inode) => Ok(inode.kind.file_kind()),
            None => self
                .declared_attributes(id)
                .map(|attributes| attributes.kind),
        }
    }

    pub(super) fn meta_of(&self, id: InodeId) -> Result<Meta> {
        match self.table.get(&id) {
            Some(inode) => Ok(inode.meta),
            None => self
                .declared_attributes(id)
                .map(|attributes| attributes.meta),
        }
    }

    /// The target of a symbolic link. Reading a declared one makes it a used input.
    pub fn read_link(&mut self, id: InodeId) -> Result<Box<[u8]>> {
        match self.table.get(&id).map(|inode| &inode.kind) {
            Some(Kind::Symlink(target)) => return Ok(target.clone()),
            Some(_) => return Err(Fault::WrongKind),
            None => {}
        }
        let index = self.node_of(id).ok_or(Fault::Stale)?;
        let target: Box<[u8]> = match self.tree.get(index).ok_or(Fault::Stale)?.kind {
            NodeKind::Symlink { target } => target.into(),
            _ => return Err(Fault::WrongKind),
        };
        self.read.insert(index);
        Ok(target)
    }

    /// Decides an `open`: whether it is allowed, and what backs the file. Opening a declared file
    /// for reading makes it a used input, even if it is empty.
    pub fn open(&mut self, id: InodeId, caller: Caller, intent: OpenIntent) -> Result<Opened<S>> {
        match self.kind_of(id)? {
            FileKind::Directory => return Err(Fault::IsADirectory),
            FileKind::Symlink | FileKind::Special(_) => return Err(Fault::WrongKind),
            FileKind::Regular => {}
        }
        self.access(id, caller, intent.access())?;
        if let Some(Inode {
            meta,
            kind: Kind::Staged(staged),
            ..
        }) = self.table.get_mut(&id)
        {
            if intent.write && caller.uid != 0 {
                meta.perm &= !meta.privileges_lost_by_write();
            }
            return Ok(Opened::Staged(staged.clone()));
        }
        let index = self.node_of(id).ok_or(Fault::Stale)?;
        let Input { digest, size } = self.input(index)?;
        self.read.insert(index);
        Ok(Opened::Input { digest, size })
    }

    pub(super) fn input(&self, index: NodeIndex) -> Result<Input> {
        match self.tree.get(index).ok_or(Fault::Stale)?.kind {
            NodeKind::File { digest, size } => Ok(Input { digest, size }),
            _ => Err(Fault::WrongKind),
        }
    }

    /// The parent of a directory; the root is its own.
    pub(super) fn parent_of(&self, directory: InodeId) -> InodeId {
        match self.table.get(&directory).map(|inode| &inode.kind) {
            Some(Kind::Directory(directory)) => directory.parent,
            _ => self
                .node_of(directory)
                .and_then(|index| self.tree.get(index))
                .map_or(InodeId::ROOT, |node| Self::id_of(node.parent)),
        }
    }

    /// Lists up to `limit` entries of a directory from an offset on, and counts a reference for
    /// each that says `counted`.
    ///
    /// Offsets are stable: 0 and 1 are `.` and `..`, then come the declared children by their
    /// place in the tree, then what the job made, by cookie. Neither kind is ever renumbered.
    pub fn list(
        &mut self,
        directory: InodeId,
        offset: u64,
        limit: usize,
    ) -> Result<Vec<Listed<S>>> {
        // As getdents(2): a removed directory has not even `.` and `..`. Its parent may be gone.
        if !self.directory_state(directory)? {
            return Err(Fault::NotFound);
        }
        let mut places = self.dots(directory, offset);
        places.extend(self.declared_children(directory, offset).take(limit));
        let room = limit.saturating_sub(places.len());
        places.extend(self.made_children(directory, offset).take(room));
        places.truncate(limit);
        places.into_iter().map(|place| self.listed(place)).collect()
    }

    /// Checks that a caller may list a directory.
    pub fn open_directory(&self, directory: InodeId, caller: Caller) -> Result<()> {
        self.directory_state(directory)?;
        self.access(directory, caller, Access::READ)
    }

    fn dots(&self, directory: InodeId, offset: u64) -> Vec<Place> {
        let dot = Place {
            name: (*b".").into(),
            next: 1,
            id: directory,
            counted: false,
        };
        let parent = self.parent_of(directory);
        let dots = Place {
            name: (*b"..").into(),
            next: 2,
            id: parent,
            counted: false,
        };
        [dot, dots]
            .into_iter()
            .skip(offset.min(FIRST_CHILD) as usize)
            .collect()
    }

    fn declared_children(&self, directory: InodeId, offset: u64) -> impl Iterator<Item = Place> {
        let range = self
            .node_of(directory)
            .map_or(0..0, |node| self.tree.children(node));
        let first = range.start;
        let skip = usize::try_from(offset.saturating_sub(FIRST_CHILD)).unwrap_or(usize::MAX);
        range.skip(skip).filter_map(move |index| {
            let name = self.tree.get(NodeIndex(index))?.name.into();
            let next = FIRST_CHILD + u64::from(index - first) + 1;
            Some(Place {
                name,
                next,
                id: Self::id_of(NodeIndex(index)),
                counted: true,
            })
        })
    }

    fn made_children(&self, directory: InodeId, offset: u64) -> impl Iterator<Item = Place> {
        let declared = self
            .node_of(directory)
            .map_or(0..0, |node| self.tree.children(node));
        let base = FIRST_CHILD + declared.len() as u64;
        let made = match self.table.get(&directory).map(|inode| &inode.kind) {
            Some(Kind::Directory(directory)) => Some(&directory.made),
            _ => None,
        };
        let from = offset.saturating_sub(base);
        made.into_iter()
            .flat_map(move |made| made.starting_at(from))
            .map(move |(cookie, name, id)| Place {
                name: name.as_bytes().into(),
                next: base + cookie + 1,
                id,
                counted: true,
            })
    }

    fn listed(&mut self, place: Place) -> Result<Listed<S>> {
        if place.counted {
            self.reference(place.id);
        }
        let (attributes, staged) = self.attributes(place.id)?;
        let Place {
            name,
            next,
            counted,
            ..
        } = place;
        Ok(Listed {
            name,
            next,
            attributes,
            staged,
            counted,
        })
    }

    /// A name of a directory that the job made, for tests and messages.
    pub(super) fn directory_name(&self, directory: InodeId) -> Option<NameBuf> {
        match &self.table.get(&directory)?.kind {
            Kind::Directory(directory) => directory.name.clone(),
            _ => None,
        }
    }
}

/// A place in a listing, before its attributes are known.
struct Place {
    name: Box<[u8]>,
    next: u64,
    id: InodeId,
    counted: bool,
}

impl OpenIntent {
    fn access(self) -> Access {
        let bit = |wanted: bool, access: Access| if wanted { access.0 } else { 0 };
        // Running does not need read permission. Without `default_permissions` the kernel checks
        // only that somebody may run the file (`fuse_permission`, S_IXUGO), not who.
        Access(
            bit(self.read && !self.execute, Access::READ)
                | bit(self.write, Access::WRITE)
                | bit(self.execute, Access::EXECUTE),
        )
    }
}

impl Meta {
    /// The set-user-ID and set-group-ID bits that a write by anyone but root takes away. They are
    /// taken at the open for writing already: with passthrough no later request shows the write.
    pub(super) fn privileges_lost_by_write(&self) -> u16 {
        let set_group = if self.perm & 0o010 != 0 { 0o2000 } else { 0 };
        0o4000 | set_group
    }
}

impl<S> Kind<S> {
    pub(super) fn file_kind(&self) -> FileKind {
        match self {
            Kind::Directory(_) => FileKind::Directory,
            Kind::Staged(_) => FileKind::Regular,
            Kind::Symlink(_) => FileKind::Symlink,
            Kind::Special(kind, _) => FileKind::Special(*kind),
        }
    }
}

fn table_attributes<S: Clone>(id: InodeId, inode: &Inode<S>) -> (Attributes, Option<S>) {
    let (links, size, rdev, staged) = match &inode.kind {
        Kind::Directory(_) if inode.links == 0 => (0, DIRECTORY_SIZE, 0, None),
        Kind::Directory(directory) => (2 + directory.subdirectories, DIRECTORY_SIZE, 0, None),
        Kind::Staged(staged) => (inode.links, 0, 0, Some(staged.clone())),
        Kind::Symlink(target) => (inode.links, target.len() as u64, 0, None),
        Kind::Special(_, rdev) => (inode.links, 0, *rdev, None),
    };
    let kind = inode.kind.file_kind();
    (
        Attributes {
            id,
            kind,
            meta: inode.meta,
            links,
            size,
            rdev,
        },
        staged,
    )
}
