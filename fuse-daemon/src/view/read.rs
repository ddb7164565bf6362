//! Looking without changing: lookup, attributes, listing, links, and the decision of `open`.

use cas::record::Class;
use cas::tree::NodeKind;
use cas::{Digest, Name};

use super::access::{Access, Caller};
use super::inode::{
    Attributes, FileKind, Inode, InodeFlags, InodeId, Input, Kind, Listing, Meta, Time,
};
use super::names::{Entry, Place};
use super::policy::AtimePolicy;
use super::{Fault, Result, View};

/// Size that directories show, as ext4 does. Tools take 0 for a sign of a special file system.
const DIRECTORY_SIZE: u64 = 4096;

/// Seconds after which `relatime` moves an access time in any case.
const DAY: i64 = 24 * 60 * 60;

/// Offsets of `.` and `..` come first in a listing; see [`View::list`].
pub(super) const FIRST_CHILD: u64 = 2;

/// What an `open` is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenIntent {
    /// Content will be read.
    pub read: bool,
    /// Content may be changed, by any of `O_WRONLY`, `O_RDWR` and `O_TRUNC`.
    pub write: bool,
    /// Content is thrown away first (`O_TRUNC`).
    pub truncate: bool,
    /// Content is only added to (`O_APPEND`).
    pub append: bool,
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
        /// Whether it may be copied up while it is open, and something else back the file then.
        changeable: bool,
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
        let Some(id) = self.child(parent, name) else {
            self.note_absent(parent, name);
            return Err(Fault::NotFound);
        };
        self.reference(id);
        self.note_found(parent, name, id);
        self.attributes(id)
    }

    /// Finds an inode by its number, and counts a reference for the kernel: it does so for file
    /// handles whose inode it has forgotten.
    pub fn lookup_id(&mut self, id: InodeId) -> Result<(Attributes, Option<S>)> {
        let found = self.attributes(id)?;
        self.reference(id);
        Ok(found)
    }

    /// Finds the parent of a directory, and counts a reference for the kernel.
    pub fn lookup_parent(&mut self, id: InodeId) -> Result<(Attributes, Option<S>)> {
        self.directory_state(id)?;
        self.lookup_id(self.parent_of(id))
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
        let (_, node) = self.declared(id)?;
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
            born: self.born,
        })
    }

    pub(super) fn kind_of(&self, id: InodeId) -> Result<FileKind> {
        match self.table.get(&id) {
            Some(inode) => Ok(inode.kind.file_kind()),
            None => self.declared_attributes(id).map(|shown| shown.kind),
        }
    }

    pub(super) fn meta_of(&self, id: InodeId) -> Result<Meta> {
        match self.table.get(&id) {
            Some(inode) => Ok(inode.meta),
            None => self.declared_attributes(id).map(|shown| shown.meta),
        }
    }

    /// The target of a symbolic link. Reading a declared one makes it a used input.
    pub fn read_link(&mut self, id: InodeId) -> Result<Box<[u8]>> {
        let target: Box<[u8]> = match self.table.get(&id).map(|inode| &inode.kind) {
            Some(Kind::Symlink(target)) => target.clone(),
            Some(_) => return Err(Fault::WrongKind),
            None => match self.declared(id)?.1.kind {
                NodeKind::Symlink { target } => target.into(),
                _ => return Err(Fault::WrongKind),
            },
        };
        self.read.extend(self.node_of(id));
        self.note(id, Class::Readlink);
        Ok(target)
    }

    /// Decides an `open`: whether it is allowed, and what backs the file. Opening a declared file
    /// makes it a used input, even if it is empty.
    pub fn open(&mut self, id: InodeId, caller: Caller, intent: OpenIntent) -> Result<Opened<S>> {
        match self.kind_of(id)? {
            FileKind::Directory => return Err(Fault::IsADirectory),
            FileKind::Symlink | FileKind::Special(_) => return Err(Fault::WrongKind),
            FileKind::Regular => {}
        }
        self.access(id, caller, intent.access())?;
        let rewrites = intent.write && (intent.truncate || !intent.append);
        if rewrites && self.flags(id).has_any(InodeFlags::APPEND_ONLY) {
            return Err(Fault::NotPermitted);
        }
        if intent.truncate {
            self.lose_privileges(id, caller)?;
        }
        self.read.extend(self.node_of(id));
        let opened = self.backing(id)?;
        self.note_open(id, intent, matches!(opened, Opened::Staged(_)));
        Ok(opened)
    }

    /// What backs a file now.
    pub fn backing(&self, id: InodeId) -> Result<Opened<S>> {
        let input = match self.table.get(&id).map(|inode| &inode.kind) {
            Some(Kind::Staged(staged)) => return Ok(Opened::Staged(staged.clone())),
            Some(Kind::Input(input)) => *input,
            Some(_) => return Err(Fault::WrongKind),
            None => match self.declared(id)?.1.kind {
                NodeKind::File { digest, size } => Input { digest, size },
                _ => return Err(Fault::WrongKind),
            },
        };
        let Input { digest, size } = input;
        let changeable = !self.is_read_only(id);
        Ok(Opened::Input {
            digest,
            size,
            changeable,
        })
    }

    /// Notes that something was read at a time, where the policy wants that to be seen. Nothing to
    /// do for staging files: the file system below sees their readers.
    pub fn accessed(&mut self, id: InodeId, now: Time) {
        let Ok(kind) = self.kind_of(id) else { return };
        if self.policy.atime == AtimePolicy::Never
            || (kind == FileKind::Directory && !self.policy.directory_atime)
            || self.is_read_only(id)
        {
            return;
        }
        let due = |meta: Meta| match self.policy.atime {
            AtimePolicy::Never => false,
            AtimePolicy::Always => true,
            AtimePolicy::Relative => {
                meta.atime <= meta.mtime.max(meta.ctime) || meta.atime.seconds + DAY <= now.seconds
            }
        };
        if self.meta_of(id).is_ok_and(due)
            && let Ok(inode) = self.inode_mut(id)
        {
            inode.meta.atime = now;
        }
    }

    /// Lists up to `limit` entries of a directory from an offset on, and counts a reference for
    /// each that says `counted`.
    ///
    /// Offsets are stable, so nothing is kept of who reads: 0 and 1 are `.` and `..`, then come the
    /// declared children by their place in the tree, then what the job made, by cookie. Neither kind
    /// is renumbered as long as the directory and the entry are there.
    pub fn list(
        &mut self,
        directory: InodeId,
        offset: u64,
        limit: usize,
    ) -> Result<Vec<Listed<S>>> {
        let found = self.listing(directory, offset, limit)?;
        if offset == 0 {
            self.listing_of(directory).map(Listing::begin);
        }
        self.note(directory, Class::List);
        found.into_iter().map(|found| self.listed(found)).collect()
    }

    /// Tells of a listing that has come to its end whether all that was told of the directory since
    /// anybody began to list it is still so.
    pub fn end_listing(&mut self, directory: InodeId) -> bool {
        self.listing_of(directory).is_none_or(Listing::end)
    }

    fn listing_of(&mut self, directory: InodeId) -> Option<&mut Listing> {
        match &mut self.table.get_mut(&directory)?.kind {
            Kind::Directory(directory) => Some(&mut directory.listing),
            _ => None,
        }
    }

    /// What a listing holds, before anybody is told of it.
    pub(super) fn listing(
        &self,
        directory: InodeId,
        offset: u64,
        limit: usize,
    ) -> Result<Vec<Found>> {
        // As getdents(2): a removed directory has not even `.` and `..`. Its parent may be gone.
        if !self.directory_state(directory)? {
            return Err(Fault::NotFound);
        }
        let declared = self.declared_places(directory);
        let behind_dots = offset.saturating_sub(FIRST_CHILD);
        let (from, made_from) = (
            behind_dots.min(declared),
            behind_dots.saturating_sub(declared),
        );
        let next = |place| match place {
            Place::Declared(at) => FIRST_CHILD + u64::from(at) + 1,
            Place::Made(cookie) => FIRST_CHILD + declared + cookie + 1,
        };
        let place = |entry: Entry<'_>| Found {
            name: entry.name.as_bytes().into(),
            next: next(entry.place),
            id: entry.id,
            counted: true,
        };
        let children = self.ordered(directory, from as u32, made_from);
        let found = self.dots(directory, offset).into_iter();
        Ok(found.chain(children.map(place)).take(limit).collect())
    }

    /// How many places of a directory's listing belong to declared names.
    fn declared_places(&self, directory: InodeId) -> u64 {
        self.node_of(directory)
            .map_or(0, |node| self.tree.children(node).len() as u64)
    }

    /// Checks that a caller may list a directory.
    pub fn open_directory(&self, directory: InodeId, caller: Caller) -> Result<()> {
        self.directory_state(directory)?;
        self.access(directory, caller, Access::READ)
    }

    /// Directories that the kernel knows, but for those among inputs that cannot go away.
    pub fn known_directories(&self) -> Vec<InodeId> {
        let known = self.references.keys().copied();
        let is_directory = |id: &InodeId| self.kind_of(*id) == Ok(FileKind::Directory);
        known.chain([InodeId::ROOT]).filter(is_directory).collect()
    }

    /// Whether no directory can be refused to a caller.
    pub fn may_list_all(&self, caller: Caller) -> bool {
        self.judged(caller).uid == 0
    }

    fn dots(&self, directory: InodeId, offset: u64) -> Vec<Found> {
        let parent = self.parent_of(directory);
        let dots = [(&b"."[..], 1, directory), (b"..", 2, parent)];
        let dots = dots.map(|(name, next, id)| Found {
            name: name.into(),
            next,
            id,
            counted: false,
        });
        dots.into_iter()
            .skip(offset.min(FIRST_CHILD) as usize)
            .collect()
    }

    fn listed(&mut self, found: Found) -> Result<Listed<S>> {
        let Found {
            name,
            next,
            id,
            counted,
        } = found;
        if counted {
            self.reference(id);
        }
        let (attributes, staged) = self.attributes(id)?;
        Ok(Listed {
            name,
            next,
            attributes,
            staged,
            counted,
        })
    }
}

/// A place in a listing, before its attributes are known.
pub(super) struct Found {
    pub(super) name: Box<[u8]>,
    pub(super) next: u64,
    pub(super) id: InodeId,
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

impl<S> Kind<S> {
    pub(super) fn file_kind(&self) -> FileKind {
        match self {
            Kind::Directory(_) => FileKind::Directory,
            Kind::Staged(_) | Kind::Input(_) => FileKind::Regular,
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
        Kind::Input(input) => (inode.links, input.size, 0, None),
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
            born: inode.born,
        },
        staged,
    )
}
