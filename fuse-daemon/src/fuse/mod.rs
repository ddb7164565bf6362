//! The kernel's side: each callback decodes, makes one call on the [`Job`], and replies.
//!
//! # What the kernel may keep, and why
//!
//! Only this mount changes this view, so whatever the kernel was told stays true until the kernel
//! itself changes it. Names (present and absent) and attributes are therefore valid for ever
//! (`FOREVER`), and listings are cached with their directory. The one exception are attributes
//! of a file that may still be written through a mapping: see [`Stat::settled`](crate::job::Stat).
//!
//! # What is not here
//!
//! Extended attributes, ioctls and `copy_file_range`: fuser answers ENOSYS, which ends each kind of
//! request for good. The kernel then says EOPNOTSUPP or ENOTTY by itself, and copies by itself.

mod convert;
mod errno;
mod passthrough;
mod session;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs,
    ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::FallocateFlags;

use crate::job::{Job, ListedStat, Refusal, Result};
use crate::view::{Access, AttributeChange, Fault, InodeId, NewMode, NewNode, Opened, RenameMode};

use convert::{attributes, caller, file_type, intent, new_special, now, seek_from, set_time};
use errno::errno;
use passthrough::{BackedBy, Backings};
pub use session::{Session, serve};

/// Longer than any job. The kernel clamps it to what its clock can hold.
const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);

/// Inode numbers are never reused, so one generation is enough.
const GENERATION: Generation = Generation(0);

/// How many entries are prepared for one listing, without and with attributes. The reply does not
/// tell how much it takes, but the C library lists with 32 KiB at a time, and an entry takes at
/// least 32 bytes, with attributes 160.
const LISTED: usize = (32 << 10) / 32;
const LISTED_PLUS: usize = (32 << 10) / 160;

/// A job as the kernel sees it.
#[derive(Debug)]
struct JobFileSystem {
    job: Arc<Job>,
    backings: Backings,
}

impl JobFileSystem {
    fn new(job: Arc<Job>) -> Self {
        Self {
            job,
            backings: Backings::default(),
        }
    }

    /// Opens a file that the view has allowed, in the way that this session moves data. On a
    /// refusal the open is given back.
    fn open_file(&self, id: InodeId, flags: OpenFlags, request: &Request, reply: ReplyOpen) {
        let intent = intent(flags);
        let opened = match self.job.open(id, caller(request), intent) {
            Ok(opened) => opened,
            Err(refusal) => return reply.error(errno(&refusal)),
        };
        let backed_by = BackedBy {
            opened: &opened,
            file: None,
        };
        match self
            .backings
            .open(&self.job, id, backed_by, |file| reply.open_backing(file))
        {
            Ok(Some(backing)) => {
                reply.opened_passthrough(FileHandle(0), FopenFlags::FOPEN_NOFLUSH, &backing);
            }
            Ok(None) => reply.opened(
                FileHandle(0),
                FopenFlags::FOPEN_NOFLUSH | FopenFlags::FOPEN_KEEP_CACHE,
            ),
            Err(refusal) => {
                self.job.close(id, intent.write);
                reply.error(errno(&refusal));
            }
        }
    }
}

fn reply_entry(reply: ReplyEntry, result: Result<crate::job::Stat>) {
    match result {
        Ok(stat) => {
            let attr_ttl = if stat.settled {
                FOREVER
            } else {
                Duration::ZERO
            };
            reply.entry_with_ttls(&attr_ttl, &FOREVER, &attributes(&stat), GENERATION);
        }
        // A reply with inode 0 makes the kernel remember that the name is absent; ENOENT does not.
        Err(Refusal::Fault(Fault::NotFound)) => {
            reply.entry(&FOREVER, &convert::absent(), GENERATION);
        }
        Err(refusal) => reply.error(errno(&refusal)),
    }
}

/// Like [`reply_entry`] for calls that make a name: there is no absent entry to remember.
fn reply_made(reply: ReplyEntry, result: Result<crate::job::Stat>) {
    match result {
        Err(refusal) => reply.error(errno(&refusal)),
        made => reply_entry(reply, made),
    }
}

fn reply_attributes(reply: ReplyAttr, result: Result<crate::job::Stat>) {
    match result {
        Ok(stat) => {
            let ttl = if stat.settled {
                FOREVER
            } else {
                Duration::ZERO
            };
            reply.attr(&ttl, &attributes(&stat));
        }
        Err(refusal) => reply.error(errno(&refusal)),
    }
}

fn reply_empty(reply: ReplyEmpty, result: Result<()>) {
    match result {
        Ok(()) => reply.ok(),
        Err(refusal) => reply.error(errno(&refusal)),
    }
}

fn inode(number: INodeNo) -> InodeId {
    InodeId(number.0)
}

impl Filesystem for JobFileSystem {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        session::negotiate(config, &self.backings);
        Ok(())
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        reply_entry(
            reply,
            self.job.lookup(inode(parent), name.as_bytes(), caller(req)),
        );
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.job.forget(inode(ino), nlookup);
        self.backings.forget(inode(ino));
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        reply_attributes(reply, self.job.stat(inode(ino)));
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let change = AttributeChange {
            perm: mode.map(|mode| mode as u16 & 0o7777),
            uid,
            gid,
            atime: atime.map(set_time),
            mtime: mtime.map(set_time),
            size,
            by_descriptor: fh.is_some(),
        };
        reply_attributes(
            reply,
            self.job
                .set_attributes(inode(ino), change, caller(req), now()),
        );
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        match self.job.read_link(inode(ino), now()) {
            Ok(target) => reply.data(&target),
            Err(refusal) => reply.error(errno(&refusal)),
        }
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let node = match new_special(mode, rdev) {
            Some(special) => Ok(special),
            None => self.job.new_file().map(|(staged, _)| NewNode::File(staged)),
        };
        let (parent, perm) = (inode(parent), NewMode::from(mode as u16));
        let made = node.and_then(|node| {
            self.job
                .make(parent, name.as_bytes(), node, perm, caller(req), now())
        });
        reply_made(reply, made);
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let (parent, name) = (inode(parent), name.as_bytes());
        let made = self.job.make(
            parent,
            name,
            NewNode::Directory,
            NewMode::from(mode as u16),
            caller(req),
            now(),
        );
        reply_made(reply, made);
    }

    fn symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        link_name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let node = NewNode::Symlink(target.as_os_str().as_bytes().into());
        let made = self.job.make(
            inode(parent),
            link_name.as_bytes(),
            node,
            NewMode::from(0o777),
            caller(req),
            now(),
        );
        reply_made(reply, made);
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply_empty(
            reply,
            self.job
                .unlink(inode(parent), name.as_bytes(), caller(req), now()),
        );
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed = self
            .job
            .remove_directory(inode(parent), name.as_bytes(), caller(req), now());
        reply_empty(reply, removed);
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mode = match flags {
            _ if flags.is_empty() => RenameMode::Replace,
            RenameFlags::RENAME_NOREPLACE => RenameMode::NoReplace,
            RenameFlags::RENAME_EXCHANGE => RenameMode::Exchange,
            // A whiteout is a node of a layered file system; this one has no use for them.
            _ => return reply.error(Errno::EINVAL),
        };
        let (from, to) = (inode(parent), inode(newparent));
        let (name, newname) = (name.as_bytes(), newname.as_bytes());
        reply_empty(
            reply,
            self.job
                .rename(from, name, to, newname, mode, caller(req), now()),
        );
    }

    fn link(
        &self,
        req: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let (id, parent) = (inode(ino), inode(newparent));
        reply_made(
            reply,
            self.job
                .link(id, parent, newname.as_bytes(), caller(req), now()),
        );
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.open_file(inode(ino), flags, req, reply);
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let write = intent(OpenFlags(flags)).write;
        let (parent, perm) = (inode(parent), NewMode::from(mode as u16));
        let made = self
            .job
            .create(parent, name.as_bytes(), perm, write, caller(req), now());
        let (stat, staged, file) = match made {
            Ok(made) => made,
            Err(refusal) => return reply.error(errno(&refusal)),
        };
        let (id, attr) = (stat.attributes.id, attributes(&stat));
        let backed_by = BackedBy {
            opened: &Opened::Staged(staged),
            file: Some(file),
        };
        let fopen = FopenFlags::FOPEN_NOFLUSH;
        // The attributes of a new file may be kept: it is empty, and before a mapping of it can
        // be written it must grow, by a write or a truncation that invalidates them.
        match self
            .backings
            .open(&self.job, id, backed_by, |file| reply.open_backing(file))
        {
            Ok(Some(backing)) => {
                reply.created_passthrough(
                    &FOREVER,
                    &attr,
                    GENERATION,
                    FileHandle(0),
                    fopen,
                    &backing,
                );
            }
            Ok(None) => {
                let fopen = fopen | FopenFlags::FOPEN_KEEP_CACHE;
                reply.created(&FOREVER, &attr, GENERATION, FileHandle(0), fopen);
            }
            Err(refusal) => {
                self.job.close(id, write);
                reply.error(errno(&refusal));
            }
        }
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.backings.read(inode(ino), offset, size as usize) {
            Ok(bytes) => reply.data(&bytes),
            Err(refusal) => reply.error(errno(&refusal)),
        }
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.backings.write(inode(ino), offset, data) {
            Ok(()) => reply.written(data.len() as u32),
            Err(refusal) => reply.error(errno(&refusal)),
        }
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock: LockOwner,
        reply: ReplyEmpty,
    ) {
        // Nothing is buffered here; one ENOSYS ends these requests for good.
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.backings.close(inode(ino));
        self.job.close(inode(ino), intent(flags).write);
        reply.ok();
    }

    fn fsync(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        reply_empty(reply, self.job.sync(inode(ino), datasync));
    }

    fn opendir(&self, req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.job.open_directory(inode(ino), caller(req)) {
            Ok(()) => {
                let keep = FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE;
                reply.opened(FileHandle(0), keep);
            }
            Err(refusal) => reply.error(errno(&refusal)),
        }
    }

    fn readdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let listed = match self.job.list(inode(ino), offset, LISTED, now()) {
            Ok(listed) => listed,
            Err(refusal) => return reply.error(errno(&refusal)),
        };
        let mut full = false;
        for entry in listed {
            let attributes = entry.stat.attributes;
            let (number, kind) = (INodeNo(attributes.id.0), file_type(attributes.kind));
            full = full || reply.add(number, entry.next, kind, OsStr::from_bytes(&entry.name));
            self.give_back(&entry);
        }
        reply.ok();
    }

    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let listed = match self.job.list(inode(ino), offset, LISTED_PLUS, now()) {
            Ok(listed) => listed,
            Err(refusal) => return reply.error(errno(&refusal)),
        };
        let mut full = false;
        for entry in listed {
            let attr = attributes(&entry.stat);
            let ttl = if entry.stat.settled {
                FOREVER
            } else {
                Duration::ZERO
            };
            let name = OsStr::from_bytes(&entry.name);
            full = full || reply.add(attr.ino, entry.next, name, &ttl, &attr, GENERATION);
            if full {
                self.give_back(&entry);
            }
        }
        reply.ok();
    }

    fn fsyncdir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        // Names live in memory until the job ends; there is nothing to flush.
        reply.error(Errno::ENOSYS);
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        match self.job.file_system() {
            Ok(s) => reply.statfs(
                s.f_blocks,
                s.f_bfree,
                s.f_bavail,
                s.f_files,
                s.f_ffree,
                s.f_bsize as u32,
                cas::name::NAME_MAX as u32,
                s.f_frsize as u32,
            ),
            Err(refusal) => reply.error(errno(&refusal)),
        }
    }

    fn access(&self, req: &Request, ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        let access = Access(mask.bits() as u16 & 0o7);
        reply_empty(reply, self.job.access(inode(ino), caller(req), access));
    }

    fn fallocate(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let mode = FallocateFlags::from_bits_retain(mode as u32);
        reply_empty(reply, self.job.allocate(inode(ino), mode, offset, length));
    }

    fn lseek(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let Some(to) = seek_from(offset, whence) else {
            return reply.error(Errno::EINVAL);
        };
        match self.job.seek(inode(ino), to, caller(req)) {
            Ok(found) => reply.offset(found as i64),
            Err(refusal) => reply.error(errno(&refusal)),
        }
    }
}

impl JobFileSystem {
    /// Takes back the reference of an entry that was listed but not delivered with attributes.
    fn give_back(&self, entry: &ListedStat) {
        if entry.counted {
            self.job.forget(entry.stat.attributes.id, 1);
        }
    }
}
