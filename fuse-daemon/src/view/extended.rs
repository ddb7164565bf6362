//! Extended attributes and inode flags. They live in the table, so they have the limits of the
//! kernel's interface and not those of the file system below.

use super::access::Caller;
use super::acl::{self, Acl};
use super::change::NewMode;
use super::fact::Touched;
use super::inode::{Extended, FileKind, Inode, InodeFlags, InodeId, Time};
use super::{Fault, Result, View};

/// Bytes of a name of an attribute at most (`XATTR_NAME_MAX`).
const NAME_MAX: usize = 255;

/// Bytes of a value, and of the list of all names, at most (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const SIZE_MAX: usize = 64 << 10;

/// What a program may do that its user may not.
const CAPABILITIES: &[u8] = b"security.capability";

/// What `setxattr` may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetMode {
    /// Make it or replace it.
    Any,
    /// Only make it (`XATTR_CREATE`).
    Create,
    /// Only replace it (`XATTR_REPLACE`).
    Replace,
}

impl<S: Clone> View<S> {
    /// The value of an extended attribute.
    pub fn extended(&self, id: InodeId, name: &[u8]) -> Result<Box<[u8]>> {
        let inode = self.known(id)?;
        let value = inode.and_then(|inode| inode.extended.get(name));
        value.cloned().ok_or(Fault::NoAttribute)
    }

    /// The names of all extended attributes, each ended by a NUL.
    pub fn list_extended(&self, id: InodeId) -> Result<Vec<u8>> {
        let names = self
            .known(id)?
            .into_iter()
            .flat_map(|inode| inode.extended.keys());
        Ok(names
            .flat_map(|name| name.iter().copied().chain([0]))
            .collect())
    }

    /// Sets an extended attribute.
    pub fn set_extended(
        &mut self,
        id: InodeId,
        name: &[u8],
        value: &[u8],
        mode: SetMode,
        now: Time,
    ) -> Result<()> {
        self.may_change_extended(id)?;
        if name.is_empty() || name.len() > NAME_MAX {
            return Err(Fault::AttributeRange);
        }
        let others = self.list_extended(id)?.len();
        if value.len() > SIZE_MAX || others + name.len() + 1 > SIZE_MAX {
            return Err(Fault::AttributeTooBig);
        }
        match (mode, self.extended(id, name)) {
            (SetMode::Create, Ok(_)) => return Err(Fault::Exists),
            (SetMode::Replace, Err(fault)) => return Err(fault),
            _ => {}
        }
        let value = match name {
            acl::ACCESS | acl::DEFAULT => self.set_list(id, name, value)?,
            _ => Some(value.into()),
        };
        self.put_extended(id, name, value)?;
        self.inode_mut(id)?.meta.ctime = now;
        Ok(())
    }

    fn put_extended(&mut self, id: InodeId, name: &[u8], value: Option<Box<[u8]>>) -> Result<()> {
        let extended = &mut self.inode_mut(id)?.extended;
        match value {
            Some(value) => drop(extended.insert(name.into(), value)),
            None => drop(extended.remove(name)),
        }
        self.touch(Touched::Extended(id, name.into()));
        Ok(())
    }

    /// Checks an access control list, gives the inode the permission bits that go with it, and
    /// returns what is left to be kept: nothing, if the bits say it all.
    fn set_list(&mut self, id: InodeId, name: &[u8], value: &[u8]) -> Result<Option<Box<[u8]>>> {
        let mut list = Acl::parse(value).ok_or(Fault::WrongKind)?;
        match (name, self.kind_of(id)?) {
            (_, FileKind::Symlink) => return Err(Fault::Unsupported),
            (acl::DEFAULT, FileKind::Directory) => return Ok(Some(list.to_bytes())),
            (acl::DEFAULT, _) => return Err(Fault::Denied),
            _ => {}
        }
        let meta = &mut self.inode_mut(id)?.meta;
        meta.perm = meta.perm & !0o777 | list.perm();
        Ok((!list.is_minimal()).then(|| list.to_bytes()))
    }

    /// Takes the capabilities of a program away (capabilities(7)).
    pub(super) fn lose_capabilities(&mut self, id: InodeId) -> Result<()> {
        match self.extended(id, CAPABILITIES) {
            Ok(_) => self.put_extended(id, CAPABILITIES, None),
            Err(_) => Ok(()),
        }
    }

    /// Takes set-group-ID away.
    pub fn drop_set_group(&mut self, id: InodeId) -> Result<()> {
        self.inode_mut(id)?.meta.perm &= !0o2000;
        Ok(())
    }

    /// Keeps the access control list in step with a change of permission bits.
    pub(super) fn follow_chmod(&mut self, id: InodeId, perm: u16) {
        let list = self.extended(id, acl::ACCESS).ok();
        if let Some(mut list) = list.and_then(|bytes| Acl::parse(&bytes)) {
            list.set_perm(perm);
            let _ = self.put_extended(id, acl::ACCESS, Some(list.to_bytes()));
        }
    }

    /// The permission bits of something new in a directory, and the access control lists that the
    /// directory hands down to it.
    pub(super) fn inherited(
        &self,
        parent: InodeId,
        mode: NewMode,
        is_directory: bool,
    ) -> (u16, Extended) {
        let default = self.extended(parent, acl::DEFAULT);
        let Some(mut list) = default.ok().and_then(|bytes| Acl::parse(&bytes)) else {
            return (mode.perm & !mode.umask, Extended::new());
        };
        let handed_down = is_directory.then(|| (acl::DEFAULT.into(), list.to_bytes()));
        let perm = list.restrict(mode.perm);
        let access = (!list.is_minimal()).then(|| (acl::ACCESS.into(), list.to_bytes()));
        (perm, handed_down.into_iter().chain(access).collect())
    }

    /// Removes an extended attribute.
    pub fn remove_extended(&mut self, id: InodeId, name: &[u8], now: Time) -> Result<()> {
        self.may_change_extended(id)?;
        self.extended(id, name)?;
        self.put_extended(id, name, None)?;
        self.inode_mut(id)?.meta.ctime = now;
        Ok(())
    }

    fn may_change_extended(&self, id: InodeId) -> Result<()> {
        self.known(id)?;
        match () {
            () if self.is_read_only(id) => Err(Fault::ReadOnlyInput),
            () if self.flags(id).pins() => Err(Fault::NotPermitted),
            () => Ok(()),
        }
    }

    /// The inode flags.
    pub fn flags(&self, id: InodeId) -> InodeFlags {
        self.table
            .get(&id)
            .map_or(InodeFlags::default(), |inode| inode.flags)
    }

    /// Sets the inode flags, all of them. Those that keep an inode from changing are root's to
    /// give and take.
    pub fn set_flags(
        &mut self,
        id: InodeId,
        flags: InodeFlags,
        caller: Caller,
        now: Time,
    ) -> Result<()> {
        let meta = self.meta_of(id)?;
        let guarded =
            |flags: InodeFlags| flags.0 & (InodeFlags::IMMUTABLE.0 | InodeFlags::APPEND_ONLY.0);
        match () {
            () if self.is_read_only(id) => return Err(Fault::ReadOnlyInput),
            () if flags.0 & !InodeFlags::SETTABLE.0 != 0 => return Err(Fault::Unsupported),
            () if !meta.owned_by(caller) => return Err(Fault::NotPermitted),
            () if guarded(flags) != guarded(self.flags(id)) && caller.uid != 0 => {
                return Err(Fault::NotPermitted);
            }
            () => {}
        }
        let inode = self.inode_mut(id)?;
        (inode.flags, inode.meta.ctime) = (flags, now);
        Ok(())
    }

    /// Checks that no inode flag keeps content from being changed through a descriptor that is
    /// older than the flag. `grows` says that nothing that is there can be lost.
    pub fn may_change_content(&self, id: InodeId, grows: bool) -> Result<()> {
        let flags = self.flags(id);
        match flags.has_any(InodeFlags::IMMUTABLE) || (flags.pins() && !grows) {
            true => Err(Fault::NotPermitted),
            false => Ok(()),
        }
    }

    /// An inode of the table, or nothing for one that is as declared.
    fn known(&self, id: InodeId) -> Result<Option<&Inode<S>>> {
        match self.table.get(&id) {
            Some(inode) => Ok(Some(inode)),
            None => self.declared(id).map(|_| None),
        }
    }
}
