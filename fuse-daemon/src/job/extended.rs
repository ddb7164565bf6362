//! Extended attributes and inode flags of a job's files, where its view has any.

use super::{Job, Result};
use crate::view::{Caller, InodeFlags, InodeId, SetMode, Time};

/// xattr(7): who lacks CAP_SYS_ADMIN does not see these, and the kernel leaves that to us.
const ROOTS_OWN: &[u8] = b"trusted.";

impl Job {
    /// Whether extended attributes and inode flags are served at all.
    pub fn serves_extended(&self) -> bool {
        self.view().is_ok_and(|view| view.policy().extended)
    }

    /// The value of an extended attribute.
    pub fn extended(&self, id: InodeId, name: &[u8]) -> Result<Box<[u8]>> {
        Ok(self.view()?.extended(id, name)?)
    }

    /// The names of all extended attributes that a caller may know of, each ended by a NUL.
    pub fn list_extended(&self, id: InodeId, caller: Caller) -> Result<Vec<u8>> {
        let names = self.view()?.list_extended(id)?;
        let names = names.split_inclusive(|byte| *byte == 0);
        let known = names.filter(|name| caller.uid == 0 || !name.starts_with(ROOTS_OWN));
        Ok(known.flatten().copied().collect())
    }

    /// Sets an extended attribute.
    pub fn set_extended(
        &self,
        id: InodeId,
        name: &[u8],
        value: &[u8],
        mode: SetMode,
        now: Time,
    ) -> Result<()> {
        self.change(|view| view.set_extended(id, name, value, mode, now))
    }

    /// Takes set-group-ID away, because someone who is not in the group sets an access list.
    pub fn drop_set_group(&self, id: InodeId) -> Result<()> {
        self.commit(|view| view.drop_set_group(id))
    }

    /// Removes an extended attribute.
    pub fn remove_extended(&self, id: InodeId, name: &[u8], now: Time) -> Result<()> {
        self.change(|view| view.remove_extended(id, name, now))
    }

    /// The inode flags.
    pub fn flags(&self, id: InodeId) -> Result<InodeFlags> {
        let view = self.view()?;
        view.attributes(id)?;
        Ok(view.flags(id))
    }

    /// Sets the inode flags.
    pub fn set_flags(
        &self,
        id: InodeId,
        flags: InodeFlags,
        caller: Caller,
        now: Time,
    ) -> Result<()> {
        self.change(|view| view.set_flags(id, flags, caller, now))
    }
}
