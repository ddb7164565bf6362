//! How opened files are backed: one backing object per inode, whoever opens it how often.
//!
//! With passthrough the kernel reads and writes the backing file itself, through a *backing id*
//! that all opens of an inode must share (fs/fuse/iomode.c answers EIO otherwise). Without it,
//! all opens of an inode share one descriptor of the daemon, and the kernel caches pages.
//!
//! A session does one or the other, never both: the first open finds out whether the kernel lets
//! this daemon register backing files (it needs CAP_SYS_ADMIN in the first user namespace).

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use dashmap::DashMap;
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::job::{Job, Refusal, Result, Staged};
use crate::view::{InodeId, Opened};

use super::device::BackingId;

/// Backing objects of files that nobody has open are kept for the next open, up to this many a
/// session. They pin inodes of the store's file system but no descriptors of the daemon.
const IDLE_MAX: usize = 1024;

/// How a session moves data; 0 while no file was opened yet.
const PASSTHROUGH: u8 = 1;
const CACHED: u8 = 2;

/// The backing objects of one session.
#[derive(Debug, Default)]
pub(super) struct Backings {
    mode: AtomicU8,
    by_inode: DashMap<InodeId, Backing>,
    closes: AtomicU64,
    /// Inodes that became idle and when, oldest first. One that was used again since has a later
    /// place, too; the earlier one then means nothing.
    idle: Mutex<VecDeque<(InodeId, u64)>>,
}

#[derive(Debug)]
struct Backing {
    object: Object,
    opens: u32,
    /// When it was last closed, in closes of the session.
    closed: u64,
}

/// What is to back an open.
#[derive(Debug)]
pub(super) struct BackedBy<'o> {
    /// The view's decision.
    pub(super) opened: &'o Opened<Staged>,
    /// A read-only descriptor of it, if there is one already.
    pub(super) file: Option<File>,
}

#[derive(Debug, Clone)]
enum Object {
    Registered(Arc<BackingId>),
    Descriptor(Arc<File>),
}

impl Backings {
    /// Gives up passthrough for this session before any file is opened.
    pub(super) fn without_passthrough(&self) {
        self.mode.store(CACHED, Ordering::Relaxed);
    }

    /// Backs one more open of an inode. Returns the backing id to reply with, or `None` if reads
    /// and writes are to come to the daemon.
    pub(super) fn open(
        &self,
        job: &Job,
        id: InodeId,
        backed_by: BackedBy<'_>,
        register: impl FnOnce(&File) -> rustix::io::Result<BackingId>,
    ) -> Result<Option<Arc<BackingId>>> {
        if let Some(object) = self.reopen(id) {
            return Ok(object.registered());
        }
        let made = self.back(job, id, backed_by, register)?;
        // Another thread may have been faster: then its object is the inode's, and ours is
        // dropped. No guard of the map was held while files were opened.
        let mut backing = self.by_inode.entry(id).or_insert(Backing {
            object: made,
            opens: 0,
            closed: 0,
        });
        backing.opens += 1;
        Ok(backing.object.registered())
    }

    fn reopen(&self, id: InodeId) -> Option<Object> {
        let mut backing = self.by_inode.get_mut(&id)?;
        backing.opens += 1;
        Some(backing.object.clone())
    }

    fn back(
        &self,
        job: &Job,
        id: InodeId,
        backed_by: BackedBy<'_>,
        register: impl FnOnce(&File) -> rustix::io::Result<BackingId>,
    ) -> Result<Object> {
        if self.mode.load(Ordering::Relaxed) != CACHED {
            // Read-only, whatever the job asked for: the kernel opens the path anew with the
            // job's flags, and the daemon must not count as a writer of the staging file.
            let file = match backed_by.file {
                Some(file) => file,
                None => job.backing(id, backed_by.opened, OFlags::RDONLY)?,
            };
            match register(&file) {
                Ok(registered) => {
                    self.mode.store(PASSTHROUGH, Ordering::Relaxed);
                    job.use_passthrough();
                    return Ok(Object::Registered(Arc::new(registered)));
                }
                Err(error) if self.mode.load(Ordering::Relaxed) == PASSTHROUGH => {
                    return Err(Refusal::Os(error));
                }
                Err(error) => {
                    tracing::debug!("no passthrough: {error}");
                    self.without_passthrough();
                }
            }
        }
        let access = if matches!(backed_by.opened, Opened::Staged(_)) {
            OFlags::RDWR
        } else {
            OFlags::RDONLY
        };
        Ok(Object::Descriptor(Arc::new(job.backing(
            id,
            backed_by.opened,
            access,
        )?)))
    }

    /// One open less. The object stays for the next one.
    pub(super) fn close(&self, id: InodeId) {
        let now = self.closes.fetch_add(1, Ordering::Relaxed);
        let idle = match self.by_inode.get_mut(&id) {
            Some(mut backing) => {
                backing.opens = backing.opens.saturating_sub(1);
                backing.closed = now;
                backing.opens == 0
            }
            None => false,
        };
        if idle && let Some((oldest, then)) = self.oldest_idle_after(id, now) {
            let unused =
                |_: &InodeId, backing: &Backing| backing.opens == 0 && backing.closed == then;
            drop(self.by_inode.remove_if(&oldest, unused));
        }
    }

    fn oldest_idle_after(&self, id: InodeId, now: u64) -> Option<(InodeId, u64)> {
        let mut idle = self.idle.lock().ok()?;
        idle.push_back((id, now));
        if idle.len() > IDLE_MAX {
            idle.pop_front()
        } else {
            None
        }
    }

    /// Drops the object of an inode that nobody has open.
    pub(super) fn forget(&self, id: InodeId) {
        let removed = self
            .by_inode
            .remove_if(&id, |_, backing| backing.opens == 0);
        drop(removed); // closes the backing id, with no guard of the map held
    }

    /// Reads from an inode that is not passed through, until the buffer is full or the file ends.
    /// Returns how many bytes came.
    pub(super) fn read(&self, id: InodeId, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let file = self.descriptor(id)?;
        let mut filled = 0;
        while filled < buffer.len() {
            match rustix::io::pread(&*file, &mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Refusal::Os(errno)),
            }
        }
        Ok(filled)
    }

    /// Writes all of `data` to an inode that is not passed through.
    pub(super) fn write(&self, id: InodeId, offset: u64, data: &[u8]) -> Result<()> {
        let file = self.descriptor(id)?;
        file.write_all_at(data, offset)
            .map_err(|error| Refusal::Os(Errno::from_io_error(&error).unwrap_or(Errno::IO)))
    }

    fn descriptor(&self, id: InodeId) -> Result<Arc<File>> {
        match self.by_inode.get(&id).map(|backing| backing.object.clone()) {
            Some(Object::Descriptor(file)) => Ok(file),
            _ => Err(Refusal::Os(Errno::BADF)),
        }
    }
}

impl Object {
    fn registered(&self) -> Option<Arc<BackingId>> {
        match self {
            Object::Registered(id) => Some(id.clone()),
            Object::Descriptor(_) => None,
        }
    }
}
