//! Who may do what.
//!
//! A job's mount does not ask the kernel to check permissions (`default_permissions`): the kernel
//! goes by mode bits alone, and to root it would call a read-only input writable. So the view
//! checks, and `access(2)` tells the truth about inputs. There is a single user in a job, so the
//! gap that this leaves (the kernel does not re-check search permission on names it has cached)
//! is one that only the owner of the directory could notice. Where many users share a mount the
//! kernel checks, and the view only says what nobody may do.

use super::inode::{FileKind, InodeFlags, InodeId, Meta};
use super::policy::Permissions;
use super::{Fault, Result, View};

/// Who asks: the file-system user and group of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// User number, as the job sees it. 0 is not subject to permission bits.
    pub uid: u32,
    /// Group number.
    pub gid: u32,
}

/// What is asked: the three permission bits of `access(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access(pub u16);

impl Access {
    /// Only existence.
    pub const NONE: Access = Access(0);
    /// Run a file, or look names up in a directory.
    pub const EXECUTE: Access = Access(1);
    /// Change content.
    pub const WRITE: Access = Access(2);
    /// Read content, or list a directory.
    pub const READ: Access = Access(4);
    /// Change a directory's names.
    pub const CHANGE_NAMES: Access = Access(3);

    fn includes(self, other: Access) -> bool {
        self.0 & other.0 != 0
    }
}

impl Meta {
    /// Whether the permission bits let a caller in.
    pub(super) fn allows(&self, kind: FileKind, caller: Caller, access: Access) -> bool {
        if caller.uid == 0 {
            // CAP_DAC_OVERRIDE stops at running a file that nobody may run.
            let runnable = kind == FileKind::Directory || self.perm & 0o111 != 0;
            return runnable || !access.includes(Access::EXECUTE);
        }
        let bits = if caller.uid == self.uid {
            self.perm >> 6
        } else if caller.gid == self.gid {
            self.perm >> 3
        } else {
            self.perm
        };
        access.0 & !bits & 0o7 == 0
    }

    /// Whether a caller may change attributes.
    pub(super) fn owned_by(&self, caller: Caller) -> bool {
        caller.uid == 0 || caller.uid == self.uid
    }
}

impl<S: Clone> View<S> {
    /// Who asks, as far as permissions go: where the kernel has checked them, anyone is as root.
    pub(super) fn judged(&self, caller: Caller) -> Caller {
        match self.policy.permissions {
            Permissions::View => caller,
            Permissions::Kernel => Caller { uid: 0, ..caller },
        }
    }

    /// Answers `access(2)`. To write to a read-only input is refused, whatever its bits say.
    pub fn access(&self, id: InodeId, caller: Caller, access: Access) -> Result<()> {
        let (kind, meta) = (self.kind_of(id)?, self.meta_of(id)?);
        let writes = access.includes(Access::WRITE);
        let read_only = kind != FileKind::Directory && self.is_read_only(id);
        match () {
            () if read_only && writes => Err(Fault::ReadOnlyInput),
            () if writes && self.flags(id).has_any(InodeFlags::IMMUTABLE) => {
                Err(Fault::NotPermitted)
            }
            () if meta.allows(kind, self.judged(caller), access) => Ok(()),
            () => Err(Fault::Denied),
        }
    }

    /// Checks that a caller may add and remove names in a directory that still exists.
    pub(super) fn may_change_names(&self, parent: InodeId, caller: Caller) -> Result<()> {
        if !self.directory_state(parent)? {
            return Err(Fault::NotFound);
        }
        self.access(parent, caller, Access::CHANGE_NAMES)
    }

    /// Checks that an entry may be taken out of a directory: it is no read-only input, no flag
    /// keeps it or its directory, and a sticky directory leaves it to the owners.
    pub(super) fn may_remove(&self, parent: InodeId, id: InodeId, caller: Caller) -> Result<()> {
        if self.is_read_only(id) {
            return Err(Fault::ReadOnlyInput);
        }
        let (directory, caller) = (self.meta_of(parent)?, self.judged(caller));
        let sticky = directory.perm & 0o1000 != 0;
        let foreign = !directory.owned_by(caller) && !self.meta_of(id)?.owned_by(caller);
        let kept = self.flags(parent).has_any(InodeFlags::APPEND_ONLY) || self.flags(id).pins();
        if kept || (sticky && foreign) {
            return Err(Fault::NotPermitted);
        }
        Ok(())
    }
}
