//! Between the kernel's words and ours. Pure, but for reading the clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo, OpenFlags, Request, TimeOrNow};
use rustix::fs::SeekFrom;
use rustix::time::{ClockId, clock_gettime};

use crate::job::{Staged, Stat};
use crate::view::{Caller, FileKind, NewNode, OpenIntent, SetTime, SpecialKind, Time};

/// `FMODE_EXEC` of the kernel (include/linux/fs.h), which FUSE passes in an open's flags.
const FMODE_EXEC: i32 = 0x20;

/// The time, as the file systems below take it for their own stamps: the coarse clock, so that
/// times of names and of contents compare.
pub(super) fn now() -> Time {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    Time {
        seconds: now.tv_sec,
        nanoseconds: now.tv_nsec as u32,
    }
}

pub(super) fn caller(request: &Request) -> Caller {
    Caller {
        uid: request.uid(),
        gid: request.gid(),
    }
}

pub(super) fn intent(flags: OpenFlags) -> OpenIntent {
    let access = flags.0 & libc::O_ACCMODE;
    let writes = access != libc::O_RDONLY || flags.0 & libc::O_TRUNC != 0;
    OpenIntent {
        read: access != libc::O_WRONLY,
        write: writes,
        truncate: flags.0 & libc::O_TRUNC != 0,
        append: flags.0 & libc::O_APPEND != 0,
        execute: flags.0 & FMODE_EXEC != 0,
    }
}

pub(super) fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::To(from_system_time(time)),
    }
}

fn from_system_time(time: SystemTime) -> Time {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => Time {
            seconds: after.as_secs() as i64,
            nanoseconds: after.subsec_nanos(),
        },
        // fuser takes the nanoseconds of a time before the epoch away from it, where the kernel
        // adds them to the second. So they are what the kernel said, and the sum is not.
        Err(error) => Time {
            seconds: -(error.duration().as_secs() as i64),
            nanoseconds: error.duration().subsec_nanos(),
        },
    }
}

fn system_time(time: Time) -> SystemTime {
    let part = Duration::from_nanos(time.nanoseconds.into());
    let seconds = Duration::from_secs(time.seconds.unsigned_abs());
    let whole = if time.seconds < 0 {
        UNIX_EPOCH.checked_sub(seconds)
    } else {
        UNIX_EPOCH.checked_add(seconds)
    };
    whole
        .and_then(|whole| whole.checked_add(part))
        .unwrap_or(UNIX_EPOCH)
}

/// What a node made by `mknod` is, unless it is a regular file.
pub(super) fn new_special(mode: u32, rdev: u32) -> Option<NewNode<Staged>> {
    let kind = match mode & libc::S_IFMT {
        libc::S_IFIFO => SpecialKind::Fifo,
        libc::S_IFSOCK => SpecialKind::Socket,
        libc::S_IFCHR => SpecialKind::Character,
        libc::S_IFBLK => SpecialKind::Block,
        _ => return None,
    };
    Some(NewNode::Special(kind, rdev))
}

pub(super) fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Regular => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Special(SpecialKind::Fifo) => FileType::NamedPipe,
        FileKind::Special(SpecialKind::Socket) => FileType::Socket,
        FileKind::Special(SpecialKind::Character) => FileType::CharDevice,
        FileKind::Special(SpecialKind::Block) => FileType::BlockDevice,
    }
}

pub(super) fn attributes(stat: &Stat) -> FileAttr {
    let a = &stat.attributes;
    FileAttr {
        ino: INodeNo(a.id.0),
        size: a.size,
        blocks: stat.blocks,
        atime: system_time(a.meta.atime),
        mtime: system_time(a.meta.mtime),
        ctime: system_time(a.meta.ctime),
        crtime: UNIX_EPOCH,
        kind: file_type(a.kind),
        perm: a.meta.perm,
        nlink: a.links,
        uid: a.meta.uid,
        gid: a.meta.gid,
        rdev: a.rdev,
        blksize: 4096,
        flags: 0,
    }
}

/// Attributes with inode 0: the name does not exist, and the kernel may remember that.
pub(super) fn absent() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

/// Where to seek; the kernel asks only for data and holes.
pub(super) fn seek_from(offset: i64, whence: i32) -> Option<SeekFrom> {
    let offset = u64::try_from(offset).ok()?;
    match whence {
        libc::SEEK_DATA => Some(SeekFrom::Data(offset)),
        libc::SEEK_HOLE => Some(SeekFrom::Hole(offset)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What fuser makes of the kernel's words (its `system_time_from_time`).
    fn as_told(time: Time) -> SystemTime {
        let part = |seconds| Duration::new(seconds, time.nanoseconds);
        match u64::try_from(time.seconds) {
            Ok(seconds) => UNIX_EPOCH + part(seconds),
            Err(_) => UNIX_EPOCH - part(time.seconds.unsigned_abs()),
        }
    }

    #[test]
    fn times_are_understood_as_the_kernel_means_them() {
        for seconds in [0, 1, -1, -86_400 * 365, 4_102_444_800, 9_223_372_036] {
            for nanoseconds in [0, 1, 999_999_999] {
                let time = Time {
                    seconds,
                    nanoseconds,
                };
                assert_eq!(from_system_time(as_told(time)), time);
            }
        }
    }
}
