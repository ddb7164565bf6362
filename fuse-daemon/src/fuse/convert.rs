//! Between the kernel's words and ours. Pure, but for reading the clock.

use rustix::fs::{SeekFrom, StatVfs};
use rustix::time::{ClockId, clock_gettime};

use crate::job::{Staged, Stat};
use crate::view::{
    AttributeChange, Caller, FileKind, NewNode, OpenIntent, SetTime, SpecialKind, Time,
};

use super::abi::{self, fattr};

/// `FMODE_EXEC` of the kernel (include/linux/fs.h), which FUSE passes in an open's flags.
const FMODE_EXEC: u32 = 0x20;

/// Longer than any job, in seconds. The kernel clamps it to what its clock can hold.
const FOREVER: u64 = u32::MAX as u64;

/// The time, as the file systems below take it for their own stamps: the coarse clock, so that
/// times of names and of contents compare.
pub(super) fn now() -> Time {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    Time {
        seconds: now.tv_sec,
        nanoseconds: now.tv_nsec as u32,
    }
}

pub(super) fn caller(header: &abi::InHeader) -> Caller {
    Caller {
        uid: header.uid,
        gid: header.gid,
    }
}

pub(super) fn intent(flags: u32) -> OpenIntent {
    let access = flags as i32 & libc::O_ACCMODE;
    let has = |bit| flags as i32 & bit != 0;
    OpenIntent {
        read: access != libc::O_WRONLY,
        write: access != libc::O_RDONLY || has(libc::O_TRUNC),
        truncate: has(libc::O_TRUNC),
        append: has(libc::O_APPEND),
        execute: flags & FMODE_EXEC != 0,
    }
}

pub(super) fn change(set: &abi::SetAttrIn) -> AttributeChange {
    let has = |bit| set.valid & bit != 0;
    AttributeChange {
        perm: has(fattr::MODE).then_some(set.mode as u16 & 0o7777),
        uid: has(fattr::UID).then_some(set.uid),
        gid: has(fattr::GID).then_some(set.gid),
        atime: has(fattr::ATIME).then(|| set_time(has(fattr::ATIME_NOW), set.atime, set.atimensec)),
        mtime: has(fattr::MTIME).then(|| set_time(has(fattr::MTIME_NOW), set.mtime, set.mtimensec)),
        size: has(fattr::SIZE).then_some(set.size),
        by_descriptor: has(fattr::FH),
    }
}

/// Seconds are signed, whatever the header says, and nanoseconds always count forward.
fn set_time(now: bool, seconds: u64, nanoseconds: u32) -> SetTime {
    if now {
        return SetTime::Now;
    }
    SetTime::To(Time {
        seconds: seconds as i64,
        nanoseconds,
    })
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

/// The bits of a mode that say what a file is.
fn type_bits(kind: FileKind) -> u32 {
    match kind {
        FileKind::Regular => libc::S_IFREG,
        FileKind::Directory => libc::S_IFDIR,
        FileKind::Symlink => libc::S_IFLNK,
        FileKind::Special(SpecialKind::Fifo) => libc::S_IFIFO,
        FileKind::Special(SpecialKind::Socket) => libc::S_IFSOCK,
        FileKind::Special(SpecialKind::Character) => libc::S_IFCHR,
        FileKind::Special(SpecialKind::Block) => libc::S_IFBLK,
    }
}

fn attributes(stat: &Stat) -> abi::Attr {
    let a = &stat.attributes;
    abi::Attr {
        ino: a.id.0,
        size: a.size,
        blocks: stat.blocks,
        atime: a.meta.atime.seconds as u64,
        mtime: a.meta.mtime.seconds as u64,
        ctime: a.meta.ctime.seconds as u64,
        atimensec: a.meta.atime.nanoseconds,
        mtimensec: a.meta.mtime.nanoseconds,
        ctimensec: a.meta.ctime.nanoseconds,
        mode: type_bits(a.kind) | u32::from(a.meta.perm),
        nlink: a.links,
        uid: a.meta.uid,
        gid: a.meta.gid,
        rdev: a.rdev,
        blksize: 4096,
        flags: 0,
    }
}

/// How long the kernel may keep attributes, in seconds.
fn validity(stat: &Stat) -> u64 {
    if stat.settled { FOREVER } else { 0 }
}

pub(super) fn attributes_reply(stat: &Stat) -> abi::AttrOut {
    abi::AttrOut {
        attr_valid: validity(stat),
        attr: attributes(stat),
        ..Default::default()
    }
}

pub(super) fn statx_reply(stat: &Stat) -> abi::StatxOut {
    let (a, shown) = (&stat.attributes, attributes(stat));
    let time = |time: Time| abi::StatxTime {
        seconds: time.seconds,
        nanoseconds: time.nanoseconds,
        reserved: 0,
    };
    let (major, minor) = device_numbers(a.rdev);
    abi::StatxOut {
        attr_valid: validity(stat),
        stat: abi::Statx {
            mask: abi::STATX_BASIC_AND_BTIME,
            blksize: shown.blksize,
            nlink: shown.nlink,
            uid: shown.uid,
            gid: shown.gid,
            mode: shown.mode as u16,
            ino: shown.ino,
            size: shown.size,
            blocks: shown.blocks,
            atime: time(a.meta.atime),
            btime: time(a.born),
            ctime: time(a.meta.ctime),
            mtime: time(a.meta.mtime),
            rdev_major: major,
            rdev_minor: minor,
            ..Default::default()
        },
        ..Default::default()
    }
}

/// Major and minor number of a device, which the kernel sends in one word
/// (include/linux/kdev_t.h, `new_encode_dev`).
fn device_numbers(rdev: u32) -> (u32, u32) {
    (rdev >> 8 & 0xfff, rdev & 0xff | rdev >> 12 & 0xfff00)
}

/// A name that exists. Inode numbers are never reused, so one generation is enough.
pub(super) fn entry(stat: &Stat) -> abi::EntryOut {
    abi::EntryOut {
        nodeid: stat.attributes.id.0,
        entry_valid: FOREVER,
        attr_valid: validity(stat),
        attr: attributes(stat),
        ..Default::default()
    }
}

/// A name that does not exist, and that the kernel may remember as such.
pub(super) fn absent() -> abi::EntryOut {
    abi::EntryOut {
        entry_valid: FOREVER,
        ..Default::default()
    }
}

pub(super) fn directory_entry(stat: &Stat, next: u64, name: &[u8]) -> abi::Dirent {
    abi::Dirent {
        ino: stat.attributes.id.0,
        off: next,
        namelen: name.len() as u32,
        kind: type_bits(stat.attributes.kind) >> 12,
    }
}

pub(super) fn file_system(below: &StatVfs) -> abi::StatfsOut {
    abi::StatfsOut {
        blocks: below.f_blocks,
        bfree: below.f_bfree,
        bavail: below.f_bavail,
        files: below.f_files,
        ffree: below.f_ffree,
        bsize: below.f_bsize as u32,
        namelen: cas::name::NAME_MAX as u32,
        frsize: below.f_frsize as u32,
        ..Default::default()
    }
}

/// Where to seek; the kernel asks only for data and holes.
pub(super) fn seek_from(seek: &abi::LseekIn) -> Option<SeekFrom> {
    match seek.whence as i32 {
        libc::SEEK_DATA => Some(SeekFrom::Data(seek.offset)),
        libc::SEEK_HOLE => Some(SeekFrom::Hole(seek.offset)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;

    fn set(valid: u32) -> abi::SetAttrIn {
        let mut set = abi::SetAttrIn::new_zeroed();
        set.valid = valid;
        set
    }

    #[test]
    fn only_what_is_said_to_count_is_changed() {
        assert_eq!(change(&set(0)), AttributeChange::default());
        let mut some = set(fattr::MODE | fattr::SIZE | fattr::FH);
        (some.mode, some.size, some.uid) = (libc::S_IFREG | 0o4755, 9, 5);
        let expected = AttributeChange {
            perm: Some(0o4755),
            size: Some(9),
            by_descriptor: true,
            ..AttributeChange::default()
        };
        assert_eq!(change(&some), expected);
    }

    #[test]
    fn times_are_understood_as_the_kernel_means_them() {
        for seconds in [0, 1, -1, -86_400 * 365, 4_102_444_800, i64::MIN] {
            let mut past = set(fattr::MTIME | fattr::ATIME | fattr::ATIME_NOW);
            (past.mtime, past.mtimensec) = (seconds as u64, 999_999_999);
            let time = Time {
                seconds,
                nanoseconds: 999_999_999,
            };
            let change = change(&past);
            assert_eq!(change.mtime, Some(SetTime::To(time)));
            assert_eq!(change.atime, Some(SetTime::Now));
        }
    }

    #[test]
    fn device_numbers_come_apart_as_the_kernel_puts_them_together() {
        for (major, minor) in [(1, 3), (8, 0x12345), (0xfff, 0xfffff)] {
            let encoded = minor & 0xff | major << 8 | (minor & !0xff) << 12;
            assert_eq!(device_numbers(encoded), (major, minor));
        }
    }

    #[test]
    fn an_open_is_for_what_its_flags_say() {
        let write = OpenIntent {
            write: true,
            ..OpenIntent::default()
        };
        assert_eq!(intent(libc::O_WRONLY as u32), write);
        let read = OpenIntent {
            read: true,
            ..OpenIntent::default()
        };
        assert_eq!(intent(0), read);
        let truncated = OpenIntent {
            write: true,
            truncate: true,
            ..read
        };
        assert_eq!(intent(libc::O_TRUNC as u32), truncated);
        let executed = OpenIntent {
            execute: true,
            ..read
        };
        assert_eq!(intent(FMODE_EXEC), executed);
    }
}
