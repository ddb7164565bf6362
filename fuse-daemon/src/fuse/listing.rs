//! Listing directories.
//!
//! Nothing is kept of who lists what: the kernel says where a listing is to go on, and offsets stay
//! right whatever is made and removed meanwhile. So an open directory needs no handle, and where
//! nobody is to be refused, the kernel need not ask for one.

use crate::job::{ListedStat, Refusal, Result};
use crate::view::{Caller, InodeId};

use rustix::io::Errno;
use rustix::param::page_size;

use super::JobFileSystem;
use super::abi::{self, fopen};
use super::convert::{directory_entry, entry, now};
use super::reply::{ENTRY_MIN, ENTRY_PLUS_MIN, Reply, dirent_size};

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
        self.end(id, &listed, reply)
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
        self.end(id, &listed, reply)
    }

    /// When a listing has come to its end, the kernel takes what it has of the directory for all
    /// of it (fs/fuse/readdir.c, `fuse_readdir_cache_end`), and does not ask again. Where that would
    /// be wrong, it finds its pages gone, begins anew and asks:
    ///
    /// - Each listing moves a time, and so has to be seen.
    /// - Names have changed since somebody began to list and left. What he was told is the beginning
    ///   of the cache; only who begins a listing, and not who is in the middle of one, makes the
    ///   kernel look whether it is still so.
    /// - The cache fills its last page. Who is in the middle, behind an entry that was removed, does
    ///   not find his place there; the kernel then asks, but at the end of a full page it takes him
    ///   for having read all (`fuse_readdir_cached`).
    fn end(&self, id: InodeId, listed: &[ListedStat], reply: &mut Reply) -> Result<()> {
        if !listed.is_empty() {
            return Ok(());
        }
        let current = self.job.end_listing(id)?;
        let names = self.job.changed_names(id)?;
        if !current || names.is_some_and(|names| fills_pages(&names, page_size())) {
            self.forget_content(id, reply);
        }
        Ok(())
    }

    /// Takes back the reference of an entry that was listed but not delivered with attributes.
    fn give_back(&self, entry: &ListedStat) {
        if entry.counted {
            self.job.forget(entry.stat.attributes.id, 1);
        }
    }
}

/// Whether a listing of names of some lengths ends with a page of the kernel's cache, where no entry
/// lies in two pages (fs/fuse/readdir.c, `fuse_add_dirent_to_cache`).
fn fills_pages(names: &[usize], page: usize) -> bool {
    let dots = [1, 2];
    let names = dots.iter().chain(names);
    let used = names.fold(0, |used, name| {
        let entry = dirent_size(*name);
        if used + entry > page {
            entry
        } else {
            used + entry
        }
    });
    used == page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_fills_pages_only_exactly() {
        // Names of up to eight bytes take 32, and so do the dots.
        for count in 0..1000 {
            let full = (count + 2) % 128 == 0;
            assert_eq!(fills_pages(&vec![8; count], 4096), full, "{count}");
        }
        // 64 bytes for the dots, and 17 entries of 224; the last ends at 3872, 224 before the end.
        assert!(!fills_pages(&[200; 17], 4096));
        assert!(fills_pages(&[200; 18], 4096));
        // What does not fit begins a page.
        assert!(!fills_pages(&[vec![200; 17], vec![201]].concat(), 4096));
        assert!(!fills_pages(&[200; 19], 4096));
    }
}
