//! Making, linking, removing, and changing attributes.

use cas::Name;
use cas::record::Class;

use super::access::{Access, Caller};
use super::inode::{
    Attributes, Directory, Extended, FileKind, Inode, InodeFlags, InodeId, Kind, Meta, SpecialKind,
    Time,
};
use super::{Fault, Released, Result, View};

/// What is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewNode<S> {
    /// A regular file, backed by `S`.
    File(S),
    /// A directory.
    Directory,
    /// A symbolic link with this target.
    Symlink(Box<[u8]>),
    /// A fifo, socket or device, with its device number.
    Special(SpecialKind, u32),
}

/// The mode that something new is asked to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewMode {
    /// Permission bits.
    pub perm: u16,
    /// Bits that the caller wants nobody to have, unless the directory has a default access
    /// control list, which then decides.
    pub umask: u16,
}

impl From<u16> for NewMode {
    /// Permission bits to be taken as they are.
    fn from(perm: u16) -> Self {
        Self { perm, umask: 0 }
    }
}

/// A new value for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// The current time.
    Now,
    /// A given time.
    To(Time),
}

/// Attributes to set; `None` leaves one as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttributeChange {
    /// Permission bits.
    pub perm: Option<u16>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Access time.
    pub atime: Option<SetTime>,
    /// Modification time.
    pub mtime: Option<SetTime>,
    /// Length; only of files that the job wrote.
    pub size: Option<u64>,
    /// Whether the length is set through a descriptor. Then the open has decided that the file
    /// may be written, whatever its mode is now (ftruncate(2)).
    pub by_descriptor: bool,
}

impl AttributeChange {
    /// Whether both times, and nothing else, are set to the present.
    fn only_touches(&self) -> bool {
        let now = Some(SetTime::Now);
        let touch = Self {
            atime: now,
            mtime: now,
            by_descriptor: self.by_descriptor,
            ..Self::default()
        };
        *self == touch
    }
}

impl InodeFlags {
    /// Whether they forbid a change. What may only grow may still be touched, as writing to it
    /// would (fs/attr.c, `may_setattr`).
    fn keep_from(self, change: &AttributeChange) -> bool {
        self.has_any(Self::IMMUTABLE) || (self.pins() && !change.only_touches())
    }
}

impl<S: Clone> View<S> {
    /// Makes something under a new name, and counts a reference for the kernel.
    pub fn make(
        &mut self,
        parent: InodeId,
        name: Name<'_>,
        node: NewNode<S>,
        mode: NewMode,
        caller: Caller,
        now: Time,
    ) -> Result<Attributes> {
        self.may_add(parent, name, caller)?;
        let kind = match node {
            NewNode::File(staged) => Kind::Staged(staged),
            NewNode::Symlink(target) => Kind::Symlink(target),
            NewNode::Special(kind, rdev) => Kind::Special(kind, rdev),
            NewNode::Directory => Kind::Directory(Directory::new(parent, Some(name.to_owned()), 0)),
        };
        let inode = self.new_inode(parent, kind, mode, caller, now)?;
        let id = self.insert(Inode { links: 1, ..inode });
        self.set_name(parent, name, Some(id), now)?;
        self.note_name(parent, name, Class::Create);
        self.reference(id);
        self.attributes(id).map(|(attributes, _)| attributes)
    }

    /// Makes a regular file without a name (`O_TMPFILE`), which may be given one later, and counts
    /// a reference for the kernel.
    pub fn make_unnamed(
        &mut self,
        parent: InodeId,
        staged: S,
        mode: NewMode,
        caller: Caller,
        now: Time,
    ) -> Result<Attributes> {
        self.may_change_names(parent, caller)?;
        let inode = self.new_inode(parent, Kind::Staged(staged), mode, caller, now)?;
        let id = self.insert(Inode {
            linkable: true,
            ..inode
        });
        self.reference(id);
        self.attributes(id).map(|(attributes, _)| attributes)
    }

    fn new_inode(
        &self,
        parent: InodeId,
        kind: Kind<S>,
        mode: NewMode,
        caller: Caller,
        now: Time,
    ) -> Result<Inode<S>> {
        let above = self.meta_of(parent)?;
        let is_directory = matches!(kind, Kind::Directory(_));
        let flags = match kind {
            Kind::Staged(_) | Kind::Directory(_) => self.flags(parent).inherited(),
            _ => InodeFlags::default(),
        };
        let (perm, extended) = match kind {
            Kind::Symlink(_) => (0o777, Extended::new()),
            _ => self.inherited(parent, mode, is_directory),
        };
        // A set-group-ID directory hands down its group, and to directories the bit itself.
        let inherits = above.perm & 0o2000 != 0;
        let set_group = if inherits && is_directory { 0o2000 } else { 0 };
        let meta = Meta {
            perm: (perm | set_group) & 0o7777,
            uid: caller.uid,
            gid: if inherits { above.gid } else { caller.gid },
            atime: now,
            mtime: now,
            ctime: now,
        };
        Ok(Inode {
            extended,
            flags,
            ..Inode::new(meta, now, kind)
        })
    }

    /// Puts a staging file that holds an input's content, or as much of it as matters, in the
    /// place of the input. Returns what backs the file from now on: another thread may have been
    /// faster, and then the given one is released.
    pub fn copy_up(&mut self, id: InodeId, staged: S) -> Result<(S, Released<S>)> {
        if self.is_read_only(id) {
            return Err(Fault::ReadOnlyInput);
        }
        let inode = self.inode_mut(id)?;
        match &inode.kind {
            Kind::Staged(there) => Ok((there.clone(), Released(vec![staged]))),
            Kind::Input(_) => {
                inode.kind = Kind::Staged(staged.clone());
                self.note(id, Class::Write);
                Ok((staged, Released::default()))
            }
            _ => Err(Fault::WrongKind),
        }
    }

    /// Puts a file in place before the job starts, with attributes of its own: a declared file
    /// that the job may rewrite. Missing directories are not made.
    pub fn preload(
        &mut self,
        parent: InodeId,
        name: Name<'_>,
        staged: S,
        meta: Meta,
    ) -> Result<InodeId> {
        match (self.directory_state(parent)?, self.child(parent, name)) {
            (false, _) => return Err(Fault::NotFound),
            (true, Some(_)) => return Err(Fault::Exists),
            (true, None) => {}
        }
        let parent_times = self.meta_of(parent)?;
        let id = self.insert(Inode {
            links: 1,
            ..Inode::new(meta, meta.ctime, Kind::Staged(staged))
        });
        self.set_name(parent, name, Some(id), meta.ctime)?;
        let (restored, _) = self.directory_mut(parent)?;
        (restored.mtime, restored.ctime) = (parent_times.mtime, parent_times.ctime);
        Ok(id)
    }

    /// Gives a declared inode the owner that it has where it came from, before anyone looks.
    pub fn own<'n>(&mut self, names: impl Iterator<Item = Name<'n>>, owner: Caller) -> Result<()> {
        let mut id = InodeId::ROOT;
        for name in names {
            id = self.child(id, name).ok_or(Fault::NotFound)?;
        }
        let meta = &mut self.inode_mut(id)?.meta;
        (meta.uid, meta.gid) = (owner.uid, owner.gid);
        Ok(())
    }

    /// Finds a directory by path, for [`View::preload`].
    pub fn resolve_directory<'n>(&self, names: impl Iterator<Item = Name<'n>>) -> Result<InodeId> {
        let mut at = InodeId::ROOT;
        for name in names {
            at = self.child(at, name).ok_or(Fault::NotFound)?;
        }
        self.directory_state(at)?;
        Ok(at)
    }

    fn may_add(&self, parent: InodeId, name: Name<'_>, caller: Caller) -> Result<()> {
        self.may_change_names(parent, caller)?;
        match self.child(parent, name) {
            Some(_) => Err(Fault::Exists),
            None => Ok(()),
        }
    }

    /// Gives an inode one more name, and counts a reference for the kernel. A read-only input
    /// cannot be linked: the link would be a second way to what is read-only.
    pub fn link(
        &mut self,
        id: InodeId,
        parent: InodeId,
        name: Name<'_>,
        caller: Caller,
        now: Time,
    ) -> Result<(Attributes, Option<S>)> {
        if self.kind_of(id)? == FileKind::Directory {
            return Err(Fault::NotPermitted);
        }
        self.may_add(parent, name, caller)?;
        if self.is_read_only(id) || self.flags(id).pins() {
            return Err(Fault::NotPermitted);
        }
        let inode = self.inode_mut(id)?;
        if inode.links == 0 && !inode.linkable {
            // As link(2): what lost its last name does not come back.
            return Err(Fault::NotFound);
        }
        inode.links = inode.links.checked_add(1).ok_or(Fault::TooManyLinks)?;
        inode.linkable = false;
        inode.meta.ctime = now;
        self.set_name(parent, name, Some(id), now)?;
        self.note_name(parent, name, Class::Create);
        self.reference(id);
        self.attributes(id)
    }

    /// Removes a name of anything but a directory.
    pub fn unlink(
        &mut self,
        parent: InodeId,
        name: Name<'_>,
        caller: Caller,
        now: Time,
    ) -> Result<Released<S>> {
        self.may_change_names(parent, caller)?;
        let id = self.child(parent, name).ok_or(Fault::NotFound)?;
        if self.kind_of(id)? == FileKind::Directory {
            return Err(Fault::IsADirectory);
        }
        self.may_remove(parent, id, caller)?;
        self.note_name(parent, name, Class::Delete);
        self.remove_name(parent, name, now)?;
        Ok(self.unname(id, now))
    }

    /// Removes an empty directory.
    pub fn remove_directory(
        &mut self,
        parent: InodeId,
        name: Name<'_>,
        caller: Caller,
        now: Time,
    ) -> Result<Released<S>> {
        self.may_change_names(parent, caller)?;
        let id = self.child(parent, name).ok_or(Fault::NotFound)?;
        if self.kind_of(id)? != FileKind::Directory {
            return Err(Fault::NotADirectory);
        }
        self.may_remove(parent, id, caller)?;
        if !self.directory_is_empty(id) {
            return Err(Fault::NotEmpty);
        }
        self.note_name(parent, name, Class::Delete);
        self.remove_name(parent, name, now)?;
        Ok(self.unname(id, now))
    }

    /// Sets attributes. For a file that the job wrote, the returned `S` is what backs it: size and
    /// times are for the caller to apply there, because that is where they live.
    pub fn set_attributes(
        &mut self,
        id: InodeId,
        change: AttributeChange,
        caller: Caller,
        now: Time,
    ) -> Result<Option<S>> {
        let (meta, kind) = (self.meta_of(id)?, self.kind_of(id)?);
        if self.is_read_only(id) {
            return Err(Fault::ReadOnlyInput);
        }
        if self.flags(id).keep_from(&change) {
            return Err(Fault::NotPermitted);
        }
        check_change(&meta, kind, &change, self.judged(caller))?;
        // Who does not own the file only takes privileges from it by writing. The kernel then goes by
        // the bits (fs/fuse/dir.c, `fuse_setattr`), and of whose groups they are, by nobody.
        let judged = match meta.owned_by(caller) {
            true => self.judged(caller),
            false => caller,
        };
        if let Some(perm) = change.perm {
            self.follow_chmod(id, perm);
        }
        let inode = self.inode_mut(id)?;
        apply_change(&mut inode.meta, kind, &change, judged, now);
        let staged = match &inode.kind {
            Kind::Staged(staged) => Some(staged.clone()),
            _ => None,
        };
        self.note(id, Class::Write);
        Ok(staged)
    }

    /// Takes from a file that is truncated what gives privileges to whoever runs it: capabilities
    /// always, set-user-ID and set-group-ID unless the caller may keep them.
    pub(super) fn lose_privileges(&mut self, id: InodeId, caller: Caller) -> Result<()> {
        self.lose_capabilities(id)?;
        let keeps = caller.uid == 0 && self.policy.root_keeps_privileges;
        if !keeps && self.meta_of(id)?.privileges() & self.meta_of(id)?.perm != 0 {
            let meta = &mut self.inode_mut(id)?.meta;
            meta.perm &= !meta.privileges();
        }
        Ok(())
    }
}

impl Meta {
    /// The set-user-ID and set-group-ID bits that a change of content or owner takes away.
    fn privileges(&self) -> u16 {
        let set_group = if self.perm & 0o010 != 0 { 0o2000 } else { 0 };
        0o4000 | set_group
    }
}

fn check_change(
    meta: &Meta,
    kind: FileKind,
    change: &AttributeChange,
    caller: Caller,
) -> Result<()> {
    let writable = change.by_descriptor || meta.allows(kind, caller, Access::WRITE);
    let owned = meta.owned_by(caller);
    let chown = change.uid.is_some() || change.gid.is_some();
    let gives_away = change.uid.is_some_and(|uid| uid != meta.uid)
        || change
            .gid
            .is_some_and(|gid| gid != meta.gid && gid != caller.gid);
    // The kernel takes privileges from a file that is written to in the name of the writer.
    let drops = |perm: u16| perm & !meta.perm == 0 && meta.perm & !perm & !meta.privileges() == 0;
    let only_drops = |perm| kind == FileKind::Regular && writable && drops(perm);
    // Both times, or the one that goes with a truncation.
    let only_now = match (change.atime, change.mtime) {
        (Some(SetTime::Now), Some(SetTime::Now)) => true,
        (None, Some(SetTime::Now)) => change.size.is_some(),
        _ => false,
    };
    match () {
        () if change.size.is_some() && kind == FileKind::Directory => Err(Fault::IsADirectory),
        () if change.size.is_some() && kind != FileKind::Regular => Err(Fault::WrongKind),
        () if change.size.is_some() && !writable => Err(Fault::Denied),
        () if change.perm.is_some_and(|perm| !owned && !only_drops(perm)) => {
            Err(Fault::NotPermitted)
        }
        // chown(2): only root gives away, and only the owner chooses among own groups.
        () if gives_away && caller.uid != 0 => Err(Fault::NotPermitted),
        () if chown && !owned => Err(Fault::NotPermitted),
        () if change.atime.or(change.mtime).is_none() || owned => Ok(()),
        // utimensat(2): "now" for both needs write permission, all else ownership.
        () if only_now && writable => Ok(()),
        () if only_now => Err(Fault::Denied),
        () => Err(Fault::NotPermitted),
    }
}

fn apply_change(
    meta: &mut Meta,
    kind: FileKind,
    change: &AttributeChange,
    caller: Caller,
    now: Time,
) {
    let resolve = |time: SetTime| match time {
        SetTime::Now => now,
        SetTime::To(time) => time,
    };
    if change.uid.is_some() || change.gid.is_some() {
        meta.uid = change.uid.unwrap_or(meta.uid);
        meta.gid = change.gid.unwrap_or(meta.gid);
        if kind == FileKind::Regular {
            meta.perm &= !meta.privileges();
        }
    }
    if let Some(perm) = change.perm {
        meta.perm = perm & 0o7777;
        // chmod(2): a set-group-ID bit for a group that the caller is not in does not take.
        if caller.uid != 0 && caller.gid != meta.gid && kind == FileKind::Regular {
            meta.perm &= !0o2000;
        }
    }
    meta.atime = change.atime.map_or(meta.atime, resolve);
    meta.mtime = change.mtime.map_or(meta.mtime, resolve);
    meta.ctime = now;
}
