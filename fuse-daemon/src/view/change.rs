//! Making, linking, removing, and changing attributes.

use cas::Name;

use super::access::Caller;
use super::entries::Entries;
use super::inode::{
    Attributes, Directory, FileKind, Inode, InodeId, Kind, Meta, SpecialKind, Time,
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

impl<S: Clone> View<S> {
    /// Makes something under a new name, and counts a reference for the kernel.
    pub fn make(
        &mut self,
        parent: InodeId,
        name: Name<'_>,
        node: NewNode<S>,
        perm: u16,
        caller: Caller,
        now: Time,
    ) -> Result<Attributes> {
        self.may_add(parent, name, caller)?;
        let meta = self.new_meta(parent, &node, perm, caller, now)?;
        let kind = match node {
            NewNode::File(staged) => Kind::Staged(staged),
            NewNode::Symlink(target) => Kind::Symlink(target),
            NewNode::Special(kind, rdev) => Kind::Special(kind, rdev),
            NewNode::Directory => {
                let made = Entries::default();
                Kind::Directory(Directory {
                    parent,
                    name: Some(name.to_owned()),
                    made,
                    subdirectories: 0,
                })
            }
        };
        let id = self.insert(meta, kind);
        self.add_name(parent, name.to_owned(), id, now)?;
        self.reference(id);
        self.attributes(id).map(|(attributes, _)| attributes)
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
        let id = self.insert(meta, Kind::Staged(staged));
        self.add_name(parent, name.to_owned(), id, meta.ctime)?;
        let (restored, _) = self.directory_mut(parent)?;
        (restored.mtime, restored.ctime) = (parent_times.mtime, parent_times.ctime);
        Ok(id)
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

    fn new_meta(
        &self,
        parent: InodeId,
        node: &NewNode<S>,
        perm: u16,
        caller: Caller,
        now: Time,
    ) -> Result<Meta> {
        let parent = self.meta_of(parent)?;
        // A set-group-ID directory hands down its group, and to directories the bit itself.
        let inherits = parent.perm & 0o2000 != 0;
        let gid = if inherits { parent.gid } else { caller.gid };
        let perm = match node {
            NewNode::Directory if inherits => perm | 0o2000,
            NewNode::Symlink(_) => 0o777,
            _ => perm,
        } & 0o7777;
        Ok(Meta {
            perm,
            uid: caller.uid,
            gid,
            atime: now,
            mtime: now,
            ctime: now,
        })
    }

    /// Gives an inode that the job made one more name, and counts a reference for the kernel.
    /// A declared file cannot be linked: the link would be a second way to what is read-only.
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
        let inode = self.table.get_mut(&id).ok_or(Fault::NotPermitted)?;
        if inode.links == 0 {
            // As link(2): what lost its last name does not come back.
            return Err(Fault::NotFound);
        }
        inode.links = inode.links.checked_add(1).ok_or(Fault::TooManyLinks)?;
        inode.meta.ctime = now;
        self.add_name(parent, name.to_owned(), id, now)?;
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
        self.remove_name(parent, name, now)?;
        Ok(self.unname(id, now))
    }

    /// Checks that an entry may be taken out of a directory: it is not declared, and a sticky
    /// directory leaves it to the owners.
    pub(super) fn may_remove(&self, parent: InodeId, id: InodeId, caller: Caller) -> Result<()> {
        if self.is_declared(id) {
            return Err(Fault::ReadOnlyInput);
        }
        let directory = self.meta_of(parent)?;
        let sticky = directory.perm & 0o1000 != 0;
        if sticky && !directory.owned_by(caller) && !self.meta_of(id)?.owned_by(caller) {
            return Err(Fault::NotPermitted);
        }
        Ok(())
    }

    pub(super) fn directory_is_empty(&self, id: InodeId) -> bool {
        let declared = self
            .node_of(id)
            .map_or(0, |node| self.tree.children(node).len());
        let made = match self.table.get(&id).map(|inode| &inode.kind) {
            Some(Kind::Directory(directory)) => !directory.made.is_empty(),
            _ => false,
        };
        declared == 0 && !made
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
        if self.is_declared(id) {
            return Err(Fault::ReadOnlyInput);
        }
        let inode = self.table.get_mut(&id).ok_or(Fault::Stale)?;
        check_change(inode, &change, caller)?;
        let kind = inode.kind.file_kind();
        apply_change(&mut inode.meta, kind, &change, caller, now);
        match &inode.kind {
            Kind::Staged(staged) => Ok(Some(staged.clone())),
            _ => Ok(None),
        }
    }
}

fn check_change<S>(inode: &Inode<S>, change: &AttributeChange, caller: Caller) -> Result<()> {
    let meta = &inode.meta;
    let kind = inode.kind.file_kind();
    let writable = change.by_descriptor || meta.allows(kind, caller, super::Access::WRITE);
    let owned = meta.owned_by(caller);
    let chown = change.uid.is_some() || change.gid.is_some();
    let gives_away = change.uid.is_some_and(|uid| uid != meta.uid)
        || change
            .gid
            .is_some_and(|gid| gid != meta.gid && gid != caller.gid);
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
        () if change.perm.is_some() && !owned => Err(Fault::NotPermitted),
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
            meta.perm &= !meta.privileges_lost_by_write();
        }
    }
    if let Some(perm) = change.perm {
        meta.perm = perm & 0o7777;
        // chmod(2): a set-group-ID bit for a group that the caller is not in does not take.
        if caller.uid != 0 && caller.gid != meta.gid && kind == FileKind::Regular {
            meta.perm &= !0o2000;
        }
    }
    if change.size.is_some() && caller.uid != 0 {
        meta.perm &= !meta.privileges_lost_by_write();
    }
    meta.atime = change.atime.map_or(meta.atime, resolve);
    meta.mtime = change.mtime.map_or(meta.mtime, resolve);
    meta.ctime = now;
}
