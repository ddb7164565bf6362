//! How opened files are backed: one backing object per inode, whoever opens it how often.
//!
//! With passthrough the kernel reads and writes the backing file itself, through a *backing id*
//! that all opens of an inode must share (fs/fuse/iomode.c answers EIO otherwise). Without it,
//! all opens of an inode share one descriptor of the daemon, and the kernel caches pages. Where
//! descriptors have run short an inode has none, and each of its requests opens one.
//!
//! The first open of a session finds out whether the kernel lets this daemon register backing files
//! (it needs CAP_SYS_ADMIN in the first user namespace). If so, all that is opened passes through,
//! with one exception: an input that may be changed. Another file is to back it as soon as it is,
//! while it is open, and a backing id cannot be exchanged under an open file. So it goes through
//! the daemon until nobody has it open any more, and its copy, if there is one by then, passes.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use dashmap::DashMap;
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::job::{Job, Refusal, Result, Staged};
use crate::view::{InodeId, Opened};

use super::descriptors::Descriptor;
use super::device::BackingId;

/// Backing objects of files that nobody has open are kept for the next open, up to this many a
/// session. Those of the kernel pin inodes of the store's file system but no descriptors of the
/// daemon; blobs that the daemon reads itself do, until descriptors run short.
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
    /// The kernel's own.
    Registered(Arc<BackingId>),
    /// A blob, to be read, that stays what it is or may be copied up.
    Blob {
        file: Arc<Descriptor>,
        changeable: bool,
    },
    /// A staging file, to be read and written.
    Staged(Arc<Descriptor>),
    /// Nothing: there are no descriptors left to be held.
    Unheld,
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
        if let Some(object) = self.reopen(id, backed_by.opened) {
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

    /// Counts one more open of what backs an inode already. A blob that nobody has open and that
    /// has been copied up since is none.
    fn reopen(&self, id: InodeId, opened: &Opened<Staged>) -> Option<Object> {
        if let Opened::Staged(_) = opened {
            let outdated = |_: &InodeId, backing: &Backing| {
                backing.opens == 0 && matches!(backing.object, Object::Blob { .. })
            };
            drop(self.by_inode.remove_if(&id, outdated));
        }
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
        let changeable = match backed_by.opened {
            Opened::Input { changeable, .. } => *changeable,
            Opened::Staged(_) => false,
        };
        if self.mode.load(Ordering::Relaxed) != CACHED && !changeable {
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
        self.hold(job, id, backed_by.opened)
    }

    /// Opens what the daemon is to read and write itself.
    fn hold(&self, job: &Job, id: InodeId, opened: &Opened<Staged>) -> Result<Object> {
        let file = job.backing(id, opened, access(opened))?;
        let held = Descriptor::hold(file).or_else(|file| {
            self.give_idle_back();
            Descriptor::hold(file)
        });
        Ok(match (held.map(Arc::new), opened) {
            (Err(_), _) => Object::Unheld,
            (Ok(file), Opened::Staged(_)) => Object::Staged(file),
            (Ok(file), &Opened::Input { changeable, .. }) => Object::Blob { file, changeable },
        })
    }

    /// Closes the descriptors of files that nobody has open. Their places in the list of idle ones
    /// mean nothing then.
    fn give_idle_back(&self) {
        let ids = |idle: &VecDeque<(InodeId, u64)>| idle.iter().map(|(id, _)| *id).collect();
        let idle: Vec<InodeId> = self.idle.lock().as_deref().map(ids).unwrap_or_default();
        let is_held = |_: &InodeId, backing: &Backing| {
            backing.opens == 0 && backing.object.registered().is_none()
        };
        for id in idle {
            drop(self.by_inode.remove_if(&id, is_held));
        }
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
        let Some((oldest, then)) = idle.then(|| self.oldest_idle_after(id, now)).flatten() else {
            return self.let_go_of_staged(id);
        };
        let unused = |_: &InodeId, backing: &Backing| backing.opens == 0 && backing.closed == then;
        drop(self.by_inode.remove_if(&oldest, unused));
        self.let_go_of_staged(id);
    }

    /// Closes a staging file that nobody has open: with a descriptor of ours it would never count
    /// as settled, and where files pass through, its next open may. What had no descriptor may
    /// have one next time.
    fn let_go_of_staged(&self, id: InodeId) {
        let unused = |_: &InodeId, backing: &Backing| {
            backing.opens == 0 && matches!(backing.object, Object::Staged(_) | Object::Unheld)
        };
        drop(self.by_inode.remove_if(&id, unused));
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
    pub(super) fn read(
        &self,
        job: &Job,
        id: InodeId,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize> {
        let file = self.file(job, id, false)?;
        let mut filled = 0;
        while filled < buffer.len() {
            match rustix::io::pread(&**file, &mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Refusal::Os(errno)),
            }
        }
        Ok(filled)
    }

    /// Writes to an inode that is not passed through. Returns how many bytes of `data` fitted: all,
    /// or an error, if `whole`.
    pub(super) fn write(
        &self,
        job: &Job,
        id: InodeId,
        offset: u64,
        data: &[u8],
        whole: bool,
    ) -> Result<usize> {
        let file = self.file(job, id, true)?;
        let mut written = 0;
        while written < data.len() {
            match rustix::io::pwrite(&**file, &data[written..], offset + written as u64) {
                Ok(0) => return Err(Refusal::Os(Errno::IO)), // or this would never end
                Ok(count) => written += count,
                Err(Errno::INTR) => {}
                Err(_) if written > 0 && !whole => break,
                Err(errno) => return Err(Refusal::Os(errno)),
            }
        }
        Ok(written)
    }

    /// What is to be read or written.
    fn file(&self, job: &Job, id: InodeId, write: bool) -> Result<Arc<Descriptor>> {
        let object = self.by_inode.get(&id).map(|backing| backing.object.clone());
        let object = match object {
            Some(Object::Blob {
                file,
                changeable: true,
            }) => match current(job, id, write)? {
                Opened::Input { .. } => return Ok(file),
                copy => self.put_in_place(job, id, &copy)?,
            },
            Some(object) => object,
            None => return Err(Refusal::Os(Errno::BADF)),
        };
        match object {
            Object::Staged(file) | Object::Blob { file, .. } => Ok(file),
            Object::Unheld => {
                let opened = current(job, id, write)?;
                let file = job.backing(id, &opened, access(&opened))?;
                Ok(Arc::new(file.into()))
            }
            Object::Registered(_) => Err(Refusal::Os(Errno::BADF)),
        }
    }

    /// Has the copy of an input back it from now on.
    fn put_in_place(&self, job: &Job, id: InodeId, copy: &Opened<Staged>) -> Result<Object> {
        let object = self.hold(job, id, copy)?;
        if let Some(mut backing) = self.by_inode.get_mut(&id) {
            backing.object = object.clone();
        }
        Ok(object)
    }
}

/// What backs an inode now. An input is copied up when it is to be written.
fn current(job: &Job, id: InodeId, write: bool) -> Result<Opened<Staged>> {
    match write {
        true => job.writable(id).map(Opened::Staged),
        false => job.current(id),
    }
}

/// How the daemon opens what it reads and writes itself, whatever its user wants to do now.
fn access(opened: &Opened<Staged>) -> OFlags {
    match opened {
        Opened::Staged(_) => OFlags::RDWR,
        Opened::Input { .. } => OFlags::RDONLY,
    }
}

impl Object {
    fn registered(&self) -> Option<Arc<BackingId>> {
        match self {
            Object::Registered(id) => Some(id.clone()),
            Object::Blob { .. } | Object::Staged(_) | Object::Unheld => None,
        }
    }
}
