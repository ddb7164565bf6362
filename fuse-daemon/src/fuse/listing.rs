//! Listing directories.
//!
//! Nothing is kept of who lists what: the kernel says where a listing is to go on, and offsets stay
//! right whatever is made and removed meanwhile. So an open directory needs no handle, and where
//! nobody is to be refused, the kernel need not ask for one.

use crate::job::{ListedStat, Refusal, Result};
use crate::view::{Caller, InodeId};

use rustix::io::Errno;

use super::JobFileSystem;
use super::abi::{self, fopen};
use super::convert::{directory_entry, entry, now};
use super::reply::{ENTRY_MIN, ENTRY_PLUS_MIN, Reply};

impl JobFileSystem {
    /// Opens a directory, if that can fail. Else the kernel is told once that there is nothing to be
    /// opened, and then opens and closes directories by itself, as if `CACHE_DIR` and `KEEP_CACHE`
    /// had been said (fs/fuse/file.c, `fuse_file_open`).
    pub(super) fn open_directory(&self, id: InodeId, by: Caller, reply: &mut Reply) -> Result<()> {
        if self.job.may_list_all(by) {
            return Err(Refusal::Os(Errno::NOSYS));
        }
        self.job.open_directory(id, by)?;
        reply.push(&abi::OpenOut {
            open_flags: fopen::CACHE_DIR | fopen::KEEP_CACHE,
            ..Default::default()
        });
        Ok(())
    }

    fn listed(&self, id: InodeId, read: &abi::ReadIn, limit: usize) -> Result<Vec<ListedStat>> {
        self.job.list(id, read.offset, limit, now())
    }

    pub(super) fn list(&self, id: InodeId, read: &abi::ReadIn, reply: &mut Reply) -> Result<()> {
        let limit = read.size as usize;
        let listed = self.listed(id, read, limit / ENTRY_MIN)?;
        let mut full = false;
        for listed in &listed {
            let (name, next) = (&listed.name, listed.next);
            let entry = directory_entry(&listed.stat, next, name);
            full = full || !reply.entry(limit, &entry, name);
            self.give_back(listed);
        }
        self.end(id, &listed, reply);
        Ok(())
    }

    pub(super) fn list_with_attributes(
        &self,
        id: InodeId,
        read: &abi::ReadIn,
        reply: &mut Reply,
    ) -> Result<()> {
        let limit = read.size as usize;
        let listed = self.listed(id, read, limit / ENTRY_PLUS_MIN)?;
        let mut full = false;
        for listed in &listed {
            let (name, next) = (&listed.name, listed.next);
            let (stat, dirent) = (&listed.stat, directory_entry(&listed.stat, next, name));
            full = full || !reply.entry_plus(limit, &entry(stat), &dirent, name);
            if full {
                self.give_back(listed);
            }
        }
        self.end(id, &listed, reply);
        Ok(())
    }

    /// When a listing has come to its end, the kernel takes what it has of the directory for all
    /// of it (fs/fuse/readdir.c, `fuse_readdir_cache_end`), and does not ask again. Where each
    /// listing is to be seen, it finds its pages gone.
    fn end(&self, id: InodeId, listed: &[ListedStat], reply: &mut Reply) {
        if listed.is_empty() && !self.job.may_cache_listings() {
            self.forget_content(id, reply);
        }
    }

    /// Takes back the reference of an entry that was listed but not delivered with attributes.
    fn give_back(&self, entry: &ListedStat) {
        if entry.counted {
            self.job.forget(entry.stat.attributes.id, 1);
        }
    }
}
