//! What the kernel asks of such a file system, and what another one says to that.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps};

use super::State;

/// Nothing may be remembered by the kernel: every question is one that can fail.
const NEVER: Duration = Duration::ZERO;

/// What the kernel asks.
pub(super) struct Served {
    state: Arc<Mutex<State>>,
    /// Inodes, by number, as descriptors that need no path, and how often the kernel was told.
    nodes: Mutex<HashMap<u64, (OwnedFd, u64)>>,
    root: PathBuf,
}

type Answer<T> = Result<T, Errno>;

impl Served {
    pub(super) fn new(state: Arc<Mutex<State>>, root: PathBuf) -> Self {
        Self {
            state,
            nodes: Mutex::default(),
            root,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an operation, which may be the one to fail.
    fn admit(&self, needs_room: bool) -> Answer<()> {
        let mut state = self.state();
        let Some(fault) = state.fault else {
            return Ok(());
        };
        if fault.only_room && !needs_room {
            return Ok(());
        }
        let number = state.operations;
        state.operations += 1;
        match (fault.from..fault.from.saturating_add(fault.count)).contains(&number) {
            true => Err(Errno::from_i32(fault.errno)),
            false => Ok(()),
        }
    }

    /// A path that leads to an inode, whatever it is called by now.
    fn path(&self, ino: INodeNo) -> Answer<PathBuf> {
        if ino == INodeNo::ROOT {
            return Ok(self.root.clone());
        }
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let (fd, _) = nodes.get(&ino.0).ok_or(Errno::ESTALE)?;
        Ok(format!("/proc/self/fd/{}", fd.as_raw_fd()).into())
    }

    fn at(&self, parent: INodeNo, name: &OsStr) -> Answer<PathBuf> {
        Ok(self.path(parent)?.join(name))
    }

    /// To be told to the kernel, which counts.
    fn find(&self, parent: INodeNo, name: &OsStr) -> Answer<FileAttr> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(self.at(parent, name)?, flags, Mode::empty()).map_err(io)?;
        let is = attributes(&rustix::fs::fstat(&fd).map_err(io)?);
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.entry(is.ino.0).or_insert((fd, 0)).1 += 1;
        Ok(is)
    }

    fn attributes(&self, ino: INodeNo) -> Answer<FileAttr> {
        let is = rustix::fs::stat(self.path(ino)?).map_err(io)?;
        Ok(FileAttr {
            ino,
            ..attributes(&is)
        })
    }

    /// The number by which a directory is known outside, where the root has its own.
    fn directory(&self, ino: INodeNo) -> u64 {
        match ino == INodeNo::ROOT {
            true => 1,
            false => ino.0,
        }
    }

    fn named(&self, directory: INodeNo, name: &OsStr, ino: u64) {
        let directory = self.directory(directory);
        let mut state = self.state();
        state
            .unflushed
            .names
            .entry(directory)
            .or_default()
            .insert(ino);
        if state.watched.as_deref().map(OsStr::new) == Some(name) {
            state.at_watched = Some(state.unflushed.clone());
        }
    }

    fn changed(&self, ino: INodeNo) {
        self.state().unflushed.bytes.insert(ino.0);
    }
}

fn io(error: impl Into<io::Error>) -> Errno {
    Errno::from(error.into())
}

fn time(seconds: i64, nanoseconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::new(seconds.max(0) as u64, nanoseconds as u32)
}

fn attributes(is: &rustix::fs::Stat) -> FileAttr {
    let kind = match rustix::fs::FileType::from_raw_mode(is.st_mode) {
        rustix::fs::FileType::Directory => FileType::Directory,
        rustix::fs::FileType::Symlink => FileType::Symlink,
        _ => FileType::RegularFile,
    };
    FileAttr {
        ino: INodeNo(is.st_ino),
        size: is.st_size as u64,
        blocks: is.st_blocks as u64,
        atime: time(is.st_atime, is.st_atime_nsec),
        mtime: time(is.st_mtime, is.st_mtime_nsec),
        ctime: time(is.st_ctime, is.st_ctime_nsec),
        crtime: UNIX_EPOCH,
        kind,
        perm: (is.st_mode & 0o7777) as u16,
        nlink: is.st_nlink as u32,
        uid: is.st_uid,
        gid: is.st_gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn timespec(time: Option<TimeOrNow>) -> Timespec {
    let (tv_sec, tv_nsec) = match time {
        None => (0, rustix::fs::UTIME_OMIT),
        Some(TimeOrNow::Now) => (0, rustix::fs::UTIME_NOW),
        Some(TimeOrNow::SpecificTime(time)) => {
            let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            (since.as_secs() as i64, since.subsec_nanos().into())
        }
    };
    Timespec { tv_sec, tv_nsec }
}

macro_rules! answer {
    ($reply:expr, $outcome:expr, $with:expr) => {
        match (|| $outcome)() {
            Ok(value) => $with($reply, value),
            Err(errno) => $reply.error(errno),
        }
    };
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        answer!(
            reply,
            {
                self.admit(false)?;
                self.find(parent, name)
            },
            |reply: ReplyEntry, is| reply.entry(&NEVER, &is, Generation(0))
        );
    }

    fn forget(&self, _: &Request, ino: INodeNo, count: u64) {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, told)) = nodes.get_mut(&ino.0) {
            *told = told.saturating_sub(count);
            if *told == 0 {
                nodes.remove(&ino.0);
            }
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        answer!(
            reply,
            {
                self.admit(false)?;
                self.attributes(ino)
            },
            |reply: ReplyAttr, is| reply.attr(&NEVER, &is)
        );
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        answer!(
            reply,
            {
                self.admit(size.is_some())?;
                let path = self.path(ino)?;
                if let Some(mode) = mode {
                    rustix::fs::chmod(&path, Mode::from_raw_mode(mode)).map_err(io)?;
                }
                if let Some(size) = size {
                    let file = File::options().write(true).open(&path).map_err(io)?;
                    file.set_len(size).map_err(io)?;
                    self.changed(ino);
                }
                let times = Timestamps {
                    last_access: timespec(atime),
                    last_modification: timespec(mtime),
                };
                rustix::fs::utimensat(rustix::fs::CWD, &path, &times, AtFlags::empty())
                    .map_err(io)?;
                self.attributes(ino)
            },
            |reply: ReplyAttr, is| reply.attr(&NEVER, &is)
        );
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        answer!(
            reply,
            {
                self.admit(true)?;
                rustix::fs::mkdir(self.at(parent, name)?, Mode::from_raw_mode(mode)).map_err(io)?;
                let is = self.find(parent, name)?;
                self.named(parent, name, is.ino.0);
                Ok(is)
            },
            |reply: ReplyEntry, is| reply.entry(&NEVER, &is, Generation(0))
        );
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer!(
            reply,
            {
                self.admit(false)?;
                std::fs::remove_file(self.at(parent, name)?).map_err(io)
            },
            |reply: ReplyEmpty, ()| reply.ok()
        );
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer!(
            reply,
            {
                self.admit(false)?;
                std::fs::remove_dir(self.at(parent, name)?).map_err(io)
            },
            |reply: ReplyEmpty, ()| reply.ok()
        );
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        answer!(
            reply,
            {
                self.admit(true)?;
                let (from, to) = (self.at(parent, name)?, self.at(new_parent, new_name)?);
                let flags = rustix::fs::RenameFlags::from_bits_retain(flags.bits());
                let here = rustix::fs::CWD;
                rustix::fs::renameat_with(here, from, here, to, flags).map_err(io)?;
                let moved = rustix::fs::lstat(self.at(new_parent, new_name)?).map_err(io)?;
                self.named(new_parent, new_name, moved.st_ino);
                Ok(())
            },
            |reply: ReplyEmpty, ()| reply.ok()
        );
    }

    fn link(&self, _: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        answer!(
            reply,
            {
                self.admit(true)?;
                let (from, to) = (self.path(ino)?, self.at(parent, name)?);
                let here = rustix::fs::CWD;
                rustix::fs::linkat(here, from, here, to, AtFlags::SYMLINK_FOLLOW).map_err(io)?;
                self.named(parent, name, ino.0);
                self.find(parent, name)
            },
            |reply: ReplyEntry, is| reply.entry(&NEVER, &is, Generation(0))
        );
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        answer!(
            reply,
            {
                self.admit(false)?;
                if flags.0 & libc::O_TRUNC != 0 {
                    File::options()
                        .write(true)
                        .truncate(true)
                        .open(self.path(ino)?)
                        .map_err(io)?;
                    self.changed(ino);
                }
                Ok(())
            },
            |reply: ReplyOpen, ()| reply.opened(FileHandle(0), FopenFlags::empty())
        );
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        answer!(
            reply,
            {
                self.admit(true)?;
                let flags = OFlags::from_bits_retain(flags as u32) & (OFlags::EXCL | OFlags::TRUNC);
                let flags = flags | OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
                let mode = Mode::from_raw_mode(mode & 0o7777);
                rustix::fs::open(self.at(parent, name)?, flags, mode).map_err(io)?;
                let is = self.find(parent, name)?;
                self.changed(is.ino);
                self.named(parent, name, is.ino.0);
                Ok(is)
            },
            |reply: ReplyCreate, is| {
                let (generation, flags) = (Generation(0), FopenFlags::empty());
                reply.created(&NEVER, &is, generation, FileHandle(0), flags);
            }
        );
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        answer!(
            reply,
            {
                self.admit(false)?;
                let mut bytes = vec![0; size as usize];
                let file = File::open(self.path(ino)?).map_err(io)?;
                let count = file.read_at(&mut bytes, offset).map_err(io)?;
                bytes.truncate(count);
                Ok(bytes)
            },
            |reply: ReplyData, bytes: Vec<u8>| reply.data(&bytes)
        );
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        answer!(
            reply,
            {
                self.admit(true)?;
                let file = File::options()
                    .write(true)
                    .open(self.path(ino)?)
                    .map_err(io)?;
                file.write_all_at(data, offset).map_err(io)?;
                self.changed(ino);
                Ok(data.len() as u32)
            },
            |reply: ReplyWrite, count| reply.written(count)
        );
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer!(
            reply,
            {
                self.admit(false)?;
                self.state().unflushed.bytes.remove(&ino.0);
                Ok(())
            },
            |reply: ReplyEmpty, ()| reply.ok()
        );
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer!(
            reply,
            {
                self.admit(false)?;
                let directory = self.directory(ino);
                self.state().unflushed.names.remove(&directory);
                Ok(())
            },
            |reply: ReplyEmpty, ()| reply.ok()
        );
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let entries = self.admit(false).and_then(|()| {
            let entries = std::fs::read_dir(self.path(ino)?).map_err(io)?;
            Ok(entries.flatten().collect::<Vec<_>>())
        });
        let entries = match entries {
            Ok(entries) => entries,
            Err(errno) => return reply.error(errno),
        };
        for (number, entry) in entries.iter().enumerate().skip(offset as usize) {
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let kind = if is_directory {
                FileType::Directory
            } else {
                FileType::RegularFile
            };
            let ino = entry.metadata().map_or(0, |is| is.ino());
            if reply.add(INodeNo(ino), number as u64 + 1, kind, entry.file_name()) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let (blocks, files) = (1 << 20, 1 << 20);
        reply.statfs(blocks, blocks, blocks, files, files, 4096, 255, 4096);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }
}
