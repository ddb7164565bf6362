//! Staging directories that dead processes have left.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{AtFlags, FlockOperation, Mode, flock};

use super::{RECOVERABLE, own_directories};
use crate::error::Result;
use crate::kept::Kept;
use crate::recovery::{JobState, Recovery};
use crate::staging::{FLAGS, is_staged_name};
use crate::store::{OURS, Store};

/// A staging directory that nobody has locked. We have, as long as this lives.
#[derive(Debug)]
pub struct Dead {
    name: String,
    fd: OwnedFd,
}

/// What becomes of a dead directory.
pub(super) enum Fate {
    /// Nobody can make anything of it.
    Goes,
    /// Somebody may still recover outputs.
    Waits,
    /// It was kept on purpose.
    Kept,
    /// It belongs to the reader of a result.
    NotOurs,
}

impl Dead {
    /// Locks a directory of the staging area, if it is there and nobody else has.
    pub fn find(store: &Store, name: &str) -> Option<Self> {
        let fd = rustix::fs::openat(store.staging(), name, FLAGS, Mode::empty()).ok()?;
        flock(&fd, FlockOperation::NonBlockingLockExclusive).ok()?;
        // If it is gone, its name may be another's by now.
        let is_there = rustix::fs::fstat(&fd).is_ok_and(|is| is.st_nlink > 0);
        let name = name.to_owned();
        is_there.then_some(Self { name, fd })
    }

    /// All that could be ours.
    ///
    /// # Errors
    /// A staging area that cannot be listed.
    pub fn all(store: &Store) -> Result<Vec<Self>> {
        let names = own_directories(store)?;
        Ok(names
            .iter()
            .filter_map(|name| Self::find(store, name))
            .collect())
    }

    /// Its name in the staging area.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// When its process last changed it, seconds since the epoch.
    pub fn changed(&self) -> i64 {
        rustix::fs::fstat(&self.fd).map_or(0, |is| is.st_mtime)
    }

    /// Sizes of the files in it, added up, bytes.
    pub fn size(&self) -> u64 {
        let entries = rustix::fs::Dir::read_from(&self.fd).into_iter().flatten();
        let sizes = entries.flatten().filter_map(|entry| {
            let name = entry.file_name();
            let is = rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
            let is_file = rustix::fs::FileType::from_raw_mode(is.st_mode).is_file();
            is_file.then_some(is.st_size as u64)
        });
        sizes.sum()
    }

    /// What is known of its job.
    pub fn recovery(&self) -> Option<Recovery> {
        Recovery::read(self.fd.as_fd())
    }

    /// What is said of it if its job failed and was kept.
    pub fn kept(&self) -> Option<Kept> {
        Kept::read(self.fd.as_fd())
    }

    pub(super) fn fate(&self, older_than: Option<Duration>) -> Fate {
        if self.name.starts_with(OURS) {
            return Fate::Goes;
        }
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec;
        if let Some(kept) = self.kept() {
            return match kept.is_over(older_than, now) {
                true => Fate::Goes,
                false => Fate::Kept,
            };
        }
        let patience = older_than.unwrap_or(RECOVERABLE);
        let is_young = now - self.changed() < patience.as_secs() as i64;
        match self.recovery().map(|recovery| recovery.job) {
            // Its result has been written, and whoever reads that removes it, at last when empty.
            None if is_young || self.has_staged_files() => Fate::NotOurs,
            Some(JobState::Ended(_)) if is_young => Fate::Waits,
            // Of the first, somebody was killed who was just making or removing it.
            None | Some(JobState::Running | JobState::Ended(_)) => Fate::Goes,
        }
    }

    fn has_staged_files(&self) -> bool {
        let entries = rustix::fs::Dir::read_from(&self.fd).into_iter().flatten();
        entries
            .flatten()
            .any(|entry| is_staged_name(entry.file_name().to_bytes()))
    }
}

impl AsFd for Dead {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
