//! Listing directories.
//!
//! A listing ends where the directory ended when the listing began, as opendir(3) and rewinddir(3)
//! say: what is renamed meanwhile moves to the end, and who renames all that is listed would never
//! come there.

use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;

use crate::job::{ListedStat, Result};
use crate::view::{Caller, InodeId};

use super::JobFileSystem;
use super::abi::{self, fopen};
use super::convert::{directory_entry, entry, now};
use super::reply::{ENTRY_MIN, ENTRY_PLUS_MIN, Reply};

/// Where listings end that have begun, by the handle of the open directory.
#[derive(Debug, Default)]
pub(super) struct Listings {
    opened: AtomicU64,
    ends: DashMap<u64, u64>,
}

impl Listings {
    fn open(&self) -> u64 {
        self.opened.fetch_add(1, Ordering::Relaxed)
    }

    /// Where to stop reading from an offset on. At offset 0 a listing begins anew, and ends where
    /// `now` says.
    fn end(&self, handle: u64, offset: u64, now: impl FnOnce() -> Result<u64>) -> Result<u64> {
        match self.ends.get(&handle) {
            Some(end) if offset > 0 => return Ok(*end),
            _ => {}
        }
        let end = now()?;
        self.ends.insert(handle, end);
        Ok(end)
    }

    pub(super) fn close(&self, handle: u64) {
        self.ends.remove(&handle);
    }
}

impl JobFileSystem {
    pub(super) fn open_directory(&self, id: InodeId, by: Caller, reply: &mut Reply) -> Result<()> {
        self.job.open_directory(id, by)?;
        let cached = self.job.may_cache_listings();
        reply.push(&abi::OpenOut {
            fh: self.listings.open(),
            open_flags: if cached {
                fopen::CACHE_DIR | fopen::KEEP_CACHE
            } else {
                0
            },
            ..Default::default()
        });
        Ok(())
    }

    fn listed(&self, id: InodeId, read: &abi::ReadIn, limit: usize) -> Result<Vec<ListedStat>> {
        let ends = || self.job.end_of_listing(id);
        let end = self.listings.end(read.fh, read.offset, ends)?;
        self.job.list(id, read.offset..end, limit, now())
    }

    pub(super) fn list(&self, id: InodeId, read: &abi::ReadIn, reply: &mut Reply) -> Result<()> {
        let limit = read.size as usize;
        let mut full = false;
        for listed in self.listed(id, read, limit / ENTRY_MIN)? {
            let (name, next) = (&listed.name, listed.next);
            let entry = directory_entry(&listed.stat, next, name);
            full = full || !reply.entry(limit, &entry, name);
            self.give_back(&listed);
        }
        Ok(())
    }

    pub(super) fn list_with_attributes(
        &self,
        id: InodeId,
        read: &abi::ReadIn,
        reply: &mut Reply,
    ) -> Result<()> {
        let limit = read.size as usize;
        let mut full = false;
        for listed in self.listed(id, read, limit / ENTRY_PLUS_MIN)? {
            let (name, next) = (&listed.name, listed.next);
            let (stat, dirent) = (&listed.stat, directory_entry(&listed.stat, next, name));
            full = full || !reply.entry_plus(limit, &entry(stat), &dirent, name);
            if full {
                self.give_back(&listed);
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_ends_where_the_directory_did_when_it_began() {
        let listings = Listings::default();
        let (one, two) = (listings.open(), listings.open());
        let end = |handle, offset, now| listings.end(handle, offset, || Ok(now)).expect("an end");
        assert_eq!(end(one, 0, 5), 5);
        assert_eq!(end(two, 0, 6), 6);
        assert_eq!((end(one, 3, 7), end(two, 4, 7)), (5, 6));
        assert_eq!((end(one, 0, 8), end(one, 1, 9)), (8, 8));
        listings.close(one);
        listings.close(two);
        assert!(listings.ends.is_empty());
    }
}
