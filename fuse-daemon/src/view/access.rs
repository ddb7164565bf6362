//! Who may do what.
//!
//! A job's mount does not ask the kernel to check permissions (`default_permissions`): the kernel
//! goes by mode bits alone, and to root it would call a read-only input writable. So the view
//! checks, and `access(2)` tells the truth about inputs. There is a single user in a job, so the
//! gap that this leaves (the kernel does not re-check search permission on names it has cached)
//! is one that only the owner of the directory could notice.

use super::inode::{FileKind, InodeId, Meta};
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
    /// Answers `access(2)`. To write to a declared file is refused, whatever its bits say.
    pub fn access(&self, id: InodeId, caller: Caller, access: Access) -> Result<()> {
        let (kind, meta) = (self.kind_of(id)?, self.meta_of(id)?);
        let read_only = self.is_declared(id) && kind != FileKind::Directory;
        match () {
            () if read_only && access.includes(Access::WRITE) => Err(Fault::ReadOnlyInput),
            () if meta.allows(kind, caller, access) => Ok(()),
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
}
