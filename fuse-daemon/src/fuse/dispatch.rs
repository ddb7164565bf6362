//! One short method per operation: the operands, one call on the job, the reply.

use std::fs::File;

use rustix::fs::{FallocateFlags, RenameFlags};
use rustix::io::Errno;

use crate::job::{Refusal, Result, Staged, Stat};
use crate::view::{
    Access, Caller, Fault, InodeId, NewMode, NewNode, OpenIntent, Opened, RenameMode,
};

use super::abi::{self, fopen};
use super::convert::{
    absent, attributes_reply, caller, change, entry, file_system, intent, new_special, now,
    seek_from, statx_reply,
};
use super::passthrough::BackedBy;
use super::reply::{Outdated, Reply};
use super::request::{Operation, Request};
use super::{Device, JobFileSystem};

/// The most that one copy tells of in 32 bits, and a multiple of what file systems share.
const COPY_MAX: u64 = 1 << 31;

/// The number of the process that makes a job's sandbox, in the job's PID namespace, by which the
/// kernel counts (fs/fuse/dev.c, `fuse_get_req`). It looks names up in the view, to hide the store.
const INIT: u32 = 1;

/// A name that makes the answer panic, in tests of this crate.
#[cfg(test)]
pub(super) const PANIC: &[u8] = b"panic";

/// Whether the kernel waits for a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// It does, and the reply is in the buffer.
    Reply,
    /// It does not.
    Nothing,
}

impl JobFileSystem {
    /// Answers one request into an empty reply.
    pub(super) fn answer(&self, request: &Request<'_>, reply: &mut Reply) -> Result<Answered> {
        let (id, by) = (InodeId(request.header.nodeid), caller(&request.header));
        #[cfg(test)]
        if matches!(request.operation, Operation::Lookup(PANIC)) {
            panic!("asked for by a test");
        }
        match &request.operation {
            Operation::Forget(forget) => return Ok(self.forget(id, forget.nlookup)),
            Operation::BatchForget(forgotten) => {
                for one in *forgotten {
                    self.forget(InodeId(one.nodeid), one.nlookup);
                }
                return Ok(Answered::Nothing);
            }
            Operation::Lookup(name) if request.header.pid == INIT && !self.job.is_standing() => {
                self.lookup_for_sandbox(id, name, by, reply)
            }
            Operation::Lookup(name) => self.lookup(id, name, by, reply),
            Operation::GetAttr(_) => self.attributes(self.job.stat(id), reply),
            Operation::SetAttr(set) => {
                let set = self.job.set_attributes(id, change(set), by, now());
                self.attributes(set, reply)
            }
            Operation::ReadLink => self
                .job
                .read_link(id, now())
                .map(|to| reply.push_bytes(&to)),
            Operation::Open(open) => self.open(id, open, by, reply),
            Operation::Read(read) => self.read(id, read, reply),
            Operation::Write(write, data) => self.write(id, write, data, reply),
            Operation::Release(release) => self.release(id, release),
            Operation::Sync(sync) => {
                let data_only = sync.fsync_flags & abi::FSYNC_FDATASYNC != 0;
                self.job.sync(id, data_only)
            }
            Operation::SyncDirectory | Operation::SyncFileSystem if !self.job.is_standing() => {
                // Names live in memory until the job ends.
                Err(Refusal::Os(Errno::NOSYS))
            }
            Operation::SyncDirectory => self.job.sync_directory(),
            Operation::SyncFileSystem => self.job.sync_all(),
            Operation::OpenDirectory => self.open_directory(id, by, reply),
            Operation::ReadDirectory(read) => self.list(id, read, reply),
            Operation::ReadDirectoryPlus(read) => self.list_with_attributes(id, read, reply),
            Operation::ReleaseDirectory | Operation::Destroy => Ok(()),
            Operation::FileSystem => {
                let below = self.job.file_system();
                below.map(|below| reply.push(&file_system(&below)))
            }
            Operation::Access(access) => self.job.access(id, by, Access(access.mask as u16 & 0o7)),
            Operation::Allocate(allocate) => self.allocate(id, allocate),
            Operation::Seek(seek) => self.seek(id, seek, by, reply),
            Operation::Init { .. } => Err(Refusal::Os(Errno::PROTO)), // once is enough
            // A job is not told times of birth: those of its inputs are those of the run, and the
            // kernel would ask for each inode's (fs/fuse/dir.c, `fuse_update_get_attr`), once told
            // that it can.
            Operation::Statx(_) if !self.job.is_standing() => Err(Refusal::Os(Errno::NOSYS)),
            Operation::Statx(_) => {
                let stat = self.job.stat(id)?;
                reply.push(&statx_reply(&stat));
                Ok(())
            }
            Operation::CopyRange { copy, wide } => self.copy_range(id, copy, *wide, reply),
            Operation::Extended(extended) => self.extended(id, extended, by, reply),
            // FLUSH: nothing is buffered here. INTERRUPT: no answer waits for anything. The rest:
            // the kernel does without.
            Operation::Other => Err(Refusal::Os(Errno::NOSYS)),
            making => self.make(id, making, by, reply),
        }
        .map(|()| Answered::Reply)
    }

    /// Operations that make, move or remove a name.
    fn make(
        &self,
        id: InodeId,
        making: &Operation<'_>,
        by: Caller,
        reply: &mut Reply,
    ) -> Result<()> {
        match *making {
            Operation::Symlink { name, target } => {
                let node = NewNode::Symlink(target.into());
                let made = self
                    .job
                    .make(id, name, node, NewMode::from(0o777), by, now());
                self.made(made, reply)
            }
            Operation::MakeNode(ref node, name) => self.make_node(id, node, name, by, reply),
            Operation::MakeDirectory(ref make, name) => {
                let (node, mode) = (NewNode::Directory, new_mode(make.mode, make.umask));
                let made = self.job.make(id, name, node, mode, by, now());
                self.made(made, reply)
            }
            Operation::Unlink(name) => self.job.unlink(id, name, by, now()),
            Operation::RemoveDirectory(name) => self.job.remove_directory(id, name, by, now()),
            Operation::Rename {
                name,
                new_parent,
                new_name,
                flags,
            } => {
                let (to, mode) = (InodeId(new_parent), rename_mode(flags)?);
                self.job.rename(id, name, to, new_name, mode, by, now())
            }
            Operation::Link(ref link, name) => {
                let linked = InodeId(link.oldnodeid);
                let made = self.job.link(linked, id, name, by, now());
                self.made(made, reply)
            }
            Operation::Create(ref create, name) => self.create(id, create, name, by, reply),
            Operation::CreateUnnamed(ref create) => self.create_unnamed(id, create, by, reply),
            _ => Err(Refusal::Os(Errno::NOSYS)),
        }
    }

    fn forget(&self, id: InodeId, count: u64) -> Answered {
        self.job.forget(id, count);
        self.backings.forget(id);
        Answered::Nothing
    }

    fn lookup(&self, parent: InodeId, name: &[u8], by: Caller, reply: &mut Reply) -> Result<()> {
        let found = match name {
            // For file handles (fs/fuse/inode.c, `fuse_get_dentry`, `fuse_get_parent`).
            b"." => self.job.lookup_id(parent),
            b".." => self.job.lookup_parent(parent),
            _ => self.job.lookup(parent, name, by),
        };
        match found {
            // A reply with inode 0 makes the kernel remember that the name is absent; ENOENT
            // does not.
            Err(Refusal::Fault(Fault::NotFound)) => reply.push(&absent()),
            found => reply.push(&entry(&found?)),
        }
        Ok(())
    }

    /// The job has not begun. When it asks for the same name, the kernel shall not know it to be
    /// absent, because that question is to be seen.
    fn lookup_for_sandbox(
        &self,
        parent: InodeId,
        name: &[u8],
        by: Caller,
        reply: &mut Reply,
    ) -> Result<()> {
        let found = self.job.lookup_for_sandbox(parent, name, by)?;
        reply.push(&entry(&found));
        Ok(())
    }

    fn attributes(&self, stat: Result<Stat>, reply: &mut Reply) -> Result<()> {
        reply.push(&attributes_reply(&stat?));
        Ok(())
    }

    /// Of calls that make a name: there is no absent entry to remember.
    fn made(&self, made: Result<Stat>, reply: &mut Reply) -> Result<()> {
        reply.push(&entry(&made?));
        Ok(())
    }

    fn make_node(
        &self,
        parent: InodeId,
        make: &abi::MknodIn,
        name: &[u8],
        by: Caller,
        reply: &mut Reply,
    ) -> Result<()> {
        let node = match new_special(make.mode, make.rdev) {
            Some(special) => special,
            None => NewNode::File(self.job.new_file()?.0),
        };
        let mode = new_mode(make.mode, make.umask);
        let made = self.job.make(parent, name, node, mode, by, now());
        self.made(made, reply)
    }

    /// Opens a file that the view has allowed, in the way that this session moves data. On a
    /// refusal the open is given back.
    fn open(&self, id: InodeId, open: &abi::OpenIn, by: Caller, reply: &mut Reply) -> Result<()> {
        let intent = intent(open.flags);
        let opened = self.job.open(id, by, intent)?;
        let backed_by = BackedBy {
            opened: &opened,
            file: None,
        };
        let out = self
            .back(id, backed_by)
            .inspect_err(|_| self.give_up(id, intent))?;
        if intent.write && out.open_flags & fopen::PASSTHROUGH != 0 {
            // It was told to keep them while nobody was writing, and of stores to a mapping it
            // notes nothing (fs/fuse/passthrough.c, `fuse_passthrough_mmap`).
            self.forget_attributes(id, reply);
        }
        reply.push(&out);
        Ok(())
    }

    fn give_up(&self, id: InodeId, intent: OpenIntent) {
        self.job.close(id, intent.write);
        if intent.execute {
            self.job.stop_running(id);
        }
    }

    /// Makes the kernel forget attributes that it was told to keep.
    pub(super) fn forget_attributes(&self, id: InodeId, reply: &mut Reply) {
        self.outdate(id, Outdated::Attributes, reply);
    }

    /// Makes the kernel forget what it has of a directory's names, or a file's pages, as well.
    pub(super) fn forget_content(&self, id: InodeId, reply: &mut Reply) {
        self.outdate(id, Outdated::Content, reply);
    }

    fn outdate(&self, id: InodeId, what: Outdated, reply: &mut Reply) {
        // NOENT: the kernel knows nothing of the inode.
        if let Err(error) = self.device.write(reply.outdated(id.0, what))
            && error != Errno::NOENT
        {
            tracing::warn!("the kernel keeps what is outdated: {error}");
        }
        reply.clear();
    }

    fn create(
        &self,
        parent: InodeId,
        create: &abi::CreateIn,
        name: &[u8],
        by: Caller,
        reply: &mut Reply,
    ) -> Result<()> {
        let intent = intent(create.flags);
        let mode = new_mode(create.mode, create.umask);
        let made = self.job.create(parent, name, mode, intent, by, now())?;
        self.opened(made, intent.write, reply)
    }

    fn create_unnamed(
        &self,
        parent: InodeId,
        create: &abi::CreateIn,
        by: Caller,
        reply: &mut Reply,
    ) -> Result<()> {
        let mode = new_mode(create.mode, create.umask);
        let made = self.job.create_unnamed(parent, mode, by, now())?;
        self.opened(made, true, reply)
    }

    /// A new file that is open from the start.
    fn opened(
        &self,
        (mut stat, staged, file): (Stat, Staged, File),
        write: bool,
        reply: &mut Reply,
    ) -> Result<()> {
        let id = stat.attributes.id;
        let backed_by = BackedBy {
            opened: &Opened::Staged(staged),
            file: Some(file),
        };
        let out = self
            .back(id, backed_by)
            .inspect_err(|_| self.job.close(id, write))?;
        // The attributes of a new file may be kept: it is empty, and before a mapping of it can
        // be written it must grow, by a write or a truncation that invalidates them.
        stat.settled = true;
        reply.push(&entry(&stat));
        reply.push(&out);
        Ok(())
    }

    fn back(&self, id: InodeId, backed_by: BackedBy<'_>) -> Result<abi::OpenOut> {
        let register = |file: &_| Device::register(&self.device, file);
        let backing = self.backings.open(&self.job, id, backed_by, register)?;
        let (flag, backing_id) = match backing {
            Some(backing) => (fopen::PASSTHROUGH, backing.number()),
            None => (fopen::KEEP_CACHE, 0),
        };
        Ok(abi::OpenOut {
            fh: 0,
            open_flags: fopen::NOFLUSH | flag,
            backing_id,
        })
    }

    fn read(&self, id: InodeId, read: &abi::ReadIn, reply: &mut Reply) -> Result<()> {
        let room = reply.room(read.size as usize);
        let count = self.backings.read(&self.job, id, read.offset, room)?;
        reply.filled(count);
        Ok(())
    }

    fn write(
        &self,
        id: InodeId,
        write: &abi::WriteIn,
        data: &[u8],
        reply: &mut Reply,
    ) -> Result<()> {
        // Who calls write(2) is told how much fitted. For pages that were written to in memory the
        // kernel looks at errors only (fs/fuse/file.c, `fuse_writepage_end`).
        let whole = write.write_flags & abi::WRITE_CACHE != 0;
        let written = self
            .backings
            .write(&self.job, id, write.offset, data, whole)?;
        let size = written as u32; // no more than the kernel sent
        reply.push(&abi::WriteOut { size, padding: 0 });
        Ok(())
    }

    fn release(&self, id: InodeId, release: &abi::ReleaseIn) -> Result<()> {
        self.backings.close(id);
        self.give_up(id, intent(release.flags));
        Ok(())
    }

    fn allocate(&self, id: InodeId, allocate: &abi::FallocateIn) -> Result<()> {
        let mode = FallocateFlags::from_bits_retain(allocate.mode);
        self.job
            .allocate(id, mode, allocate.offset, allocate.length)
    }

    fn copy_range(
        &self,
        id: InodeId,
        copy: &abi::CopyFileRangeIn,
        wide: bool,
        reply: &mut Reply,
    ) -> Result<()> {
        let (from, to) = ((id, copy.off_in), (InodeId(copy.nodeid_out), copy.off_out));
        if wide {
            let bytes_copied = self.job.copy_range(from, to, copy.len)?;
            reply.push(&abi::CopyFileRangeOut { bytes_copied });
        } else {
            let copied = self.job.copy_range(from, to, copy.len.min(COPY_MAX))?;
            let size = copied as u32; // no more than was asked for
            reply.push(&abi::WriteOut { size, padding: 0 });
        }
        Ok(())
    }

    fn seek(&self, id: InodeId, seek: &abi::LseekIn, by: Caller, reply: &mut Reply) -> Result<()> {
        let to = seek_from(seek).ok_or(Refusal::Os(Errno::INVAL))?;
        let offset = self.job.seek(id, to, by)?;
        reply.push(&abi::LseekOut { offset });
        Ok(())
    }
}

fn rename_mode(flags: u32) -> Result<RenameMode> {
    let without = RenameFlags::from_bits_retain(flags).difference(RenameFlags::WHITEOUT);
    let leaves_whiteout = RenameFlags::from_bits_retain(flags).contains(RenameFlags::WHITEOUT);
    match (without, leaves_whiteout) {
        (none, false) if none.is_empty() => Ok(RenameMode::Replace),
        (none, true) if none.is_empty() => Ok(RenameMode::Whiteout),
        (RenameFlags::NOREPLACE, false) => Ok(RenameMode::NoReplace),
        (RenameFlags::EXCHANGE, false) => Ok(RenameMode::Exchange),
        _ => Err(Refusal::Os(Errno::INVAL)),
    }
}

fn new_mode(mode: u32, umask: u32) -> NewMode {
    NewMode {
        perm: mode as u16 & 0o7777,
        umask: umask as u16 & 0o777,
    }
}
