//! The words of the kernel's FUSE protocol (linux/fuse.h), as far as they are used here.
//!
//! Names follow the header's, so that they can be looked up there. Versions: everything decoded
//! here has had its size since 7.31; what came later is negotiated, or has an opcode of its own.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The protocol's major version.
pub(super) const MAJOR: u32 = 7;
/// The newest minor version that is understood here (Linux 6.18).
pub(super) const MINOR: u32 = 45;
/// The oldest one (Linux 5.4).
pub(super) const MINOR_MIN: u32 = 31;

/// Names each operation of the kernel, and how it is called in counts.
macro_rules! opcodes {
    ($($name:ident = $number:literal $word:literal)*) => {
        /// Numbers of operations.
        #[allow(dead_code, reason = "some are only counted")]
        pub(super) mod opcode {
            $(pub(crate) const $name: u32 = $number;)*
        }
        /// What operations are called.
        pub(super) const OPERATIONS: &[(u32, &str)] = &[$(($number, $word)),*];
    };
}

opcodes! {
    LOOKUP = 1 "lookup"
    FORGET = 2 "forget"
    GETATTR = 3 "getattr"
    SETATTR = 4 "setattr"
    READLINK = 5 "readlink"
    SYMLINK = 6 "symlink"
    MKNOD = 8 "mknod"
    MKDIR = 9 "mkdir"
    UNLINK = 10 "unlink"
    RMDIR = 11 "rmdir"
    RENAME = 12 "rename"
    LINK = 13 "link"
    OPEN = 14 "open"
    READ = 15 "read"
    WRITE = 16 "write"
    STATFS = 17 "statfs"
    RELEASE = 18 "release"
    FSYNC = 20 "fsync"
    SETXATTR = 21 "setxattr"
    GETXATTR = 22 "getxattr"
    LISTXATTR = 23 "listxattr"
    REMOVEXATTR = 24 "removexattr"
    FLUSH = 25 "flush"
    INIT = 26 "init"
    OPENDIR = 27 "opendir"
    READDIR = 28 "readdir"
    RELEASEDIR = 29 "releasedir"
    FSYNCDIR = 30 "fsyncdir"
    ACCESS = 34 "access"
    CREATE = 35 "create"
    INTERRUPT = 36 "interrupt"
    DESTROY = 38 "destroy"
    IOCTL = 39 "ioctl"
    BATCH_FORGET = 42 "batch_forget"
    FALLOCATE = 43 "fallocate"
    READDIRPLUS = 44 "readdirplus"
    RENAME2 = 45 "rename2"
    LSEEK = 46 "lseek"
    COPY_FILE_RANGE = 47 "copy_file_range"
    SYNCFS = 50 "syncfs"
    TMPFILE = 51 "tmpfile"
    STATX = 52 "statx"
    COPY_FILE_RANGE_64 = 53 "copy_file_range_64"
}

/// What is agreed on at the start. Bits from 32 on travel in `flags2`.
pub(super) mod init {
    pub(crate) const ASYNC_READ: u64 = 1;
    pub(crate) const ATOMIC_O_TRUNC: u64 = 1 << 3;
    pub(crate) const EXPORT_SUPPORT: u64 = 1 << 4;
    pub(crate) const BIG_WRITES: u64 = 1 << 5;
    pub(crate) const DONT_MASK: u64 = 1 << 6;
    pub(crate) const DO_READDIRPLUS: u64 = 1 << 13;
    pub(crate) const PARALLEL_DIROPS: u64 = 1 << 18;
    pub(crate) const POSIX_ACL: u64 = 1 << 20;
    pub(crate) const MAX_PAGES: u64 = 1 << 22;
    pub(crate) const CACHE_SYMLINKS: u64 = 1 << 23;
    pub(crate) const EXPLICIT_INVAL_DATA: u64 = 1 << 25;
    pub(crate) const SETXATTR_EXT: u64 = 1 << 29;
    pub(crate) const INIT_EXT: u64 = 1 << 30;
    pub(crate) const PASSTHROUGH: u64 = 1 << 37;
}

/// Which members of [`SetAttrIn`] count.
pub(super) mod fattr {
    pub(crate) const MODE: u32 = 1;
    pub(crate) const UID: u32 = 1 << 1;
    pub(crate) const GID: u32 = 1 << 2;
    pub(crate) const SIZE: u32 = 1 << 3;
    pub(crate) const ATIME: u32 = 1 << 4;
    pub(crate) const MTIME: u32 = 1 << 5;
    pub(crate) const FH: u32 = 1 << 6;
    pub(crate) const ATIME_NOW: u32 = 1 << 7;
    pub(crate) const MTIME_NOW: u32 = 1 << 8;
}

/// How an opened file behaves.
pub(super) mod fopen {
    pub(crate) const KEEP_CACHE: u32 = 1 << 1;
    pub(crate) const CACHE_DIR: u32 = 1 << 3;
    pub(crate) const NOFLUSH: u32 = 1 << 5;
    pub(crate) const PASSTHROUGH: u32 = 1 << 7;
}

/// The ioctl(2) requests that are served, of linux/fs.h: `FS_IOC_GETFLAGS`, `FS_IOC_SETFLAGS`,
/// and the same in the words of XFS, `FS_IOC_FSGETXATTR`, `FS_IOC_FSSETXATTR`.
pub(super) mod ioctl {
    pub(crate) const GET_FLAGS: u32 = 0x8008_6601;
    pub(crate) const SET_FLAGS: u32 = 0x4008_6602;
    pub(crate) const GET_XFLAGS: u32 = 0x801c_581f;
    pub(crate) const SET_XFLAGS: u32 = 0x401c_5820;
}

/// `FUSE_SETXATTR_ACL_KILL_SGID`: take set-group-ID away as well.
pub(super) const SETXATTR_ACL_KILL_SGID: u32 = 1;

/// What of [`Statx`] is told: what stat(2) tells, and `STATX_BTIME`.
pub(super) const STATX_BASIC_AND_BTIME: u32 = 0x0fff;

/// `FSYNC_FDATASYNC`: data only.
pub(super) const FSYNC_FDATASYNC: u32 = 1;
/// `FUSE_NOTIFY_INVAL_INODE`, where a reply has its error: the kernel is to forget what it knows of
/// an inode.
pub(super) const NOTIFY_INVAL_INODE: i32 = 2;
/// `FUSE_WRITE_CACHE`: pages of a mapping, or such as nobody waits for.
pub(super) const WRITE_CACHE: u32 = 1;

/// Words that the kernel says.
macro_rules! received {
    ($($(#[$doc:meta])* $name:ident { $($member:ident: $type:ty),* })*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
        #[repr(C)]
        pub(super) struct $name { $(pub(super) $member: $type),* }
    )* };
}

received! {
    /// Before each request. `total_extlen` counts eight bytes each.
    InHeader {
        len: u32, opcode: u32, unique: u64, nodeid: u64, uid: u32, gid: u32, pid: u32,
        total_extlen: u16, padding: u16
    }
    /// The part of an INIT that every kernel sends; `flags2` may follow.
    InitIn { major: u32, minor: u32, max_readahead: u32, flags: u32 }
    ForgetIn { nlookup: u64 }
    BatchForgetIn { count: u32, dummy: u32 }
    ForgetOne { nodeid: u64, nlookup: u64 }
    GetAttrIn { getattr_flags: u32, dummy: u32, fh: u64 }
    StatxIn { getattr_flags: u32, reserved: u32, fh: u64, sx_flags: u32, sx_mask: u32 }
    SetAttrIn {
        valid: u32, padding: u32, fh: u64, size: u64, lock_owner: u64,
        atime: u64, mtime: u64, ctime: u64, atimensec: u32, mtimensec: u32, ctimensec: u32,
        mode: u32, unused4: u32, uid: u32, gid: u32, unused5: u32
    }
    MknodIn { mode: u32, rdev: u32, umask: u32, padding: u32 }
    MkdirIn { mode: u32, umask: u32 }
    RenameIn { newdir: u64 }
    Rename2In { newdir: u64, flags: u32, padding: u32 }
    LinkIn { oldnodeid: u64 }
    OpenIn { flags: u32, open_flags: u32 }
    CreateIn { flags: u32, mode: u32, umask: u32, open_flags: u32 }
    ReadIn {
        fh: u64, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: u32, padding: u32
    }
    WriteIn {
        fh: u64, offset: u64, size: u32, write_flags: u32, lock_owner: u64, flags: u32, padding: u32
    }
    ReleaseIn { fh: u64, flags: u32, release_flags: u32, lock_owner: u64 }
    FsyncIn { fh: u64, fsync_flags: u32, padding: u32 }
    /// With `SETXATTR_EXT`, which is asked for wherever attributes are served.
    SetXattrIn { size: u32, flags: u32, setxattr_flags: u32, padding: u32 }
    GetXattrIn { size: u32, padding: u32 }
    AccessIn { mask: u32, padding: u32 }
    IoctlIn { fh: u64, flags: u32, cmd: u32, arg: u64, in_size: u32, out_size: u32 }
    FallocateIn { fh: u64, offset: u64, length: u64, mode: u32, padding: u32 }
    LseekIn { fh: u64, offset: u64, whence: u32, padding: u32 }
    CopyFileRangeIn {
        fh_in: u64, off_in: u64, nodeid_out: u64, fh_out: u64, off_out: u64, len: u64, flags: u64
    }
}

/// Words that the kernel is told.
macro_rules! sent {
    ($($(#[$doc:meta])* $name:ident { $($member:ident: $type:ty),* })*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
        #[repr(C)]
        pub(super) struct $name { $(pub(super) $member: $type),* }
    )* };
}

sent! {
    /// Before each reply. An error is a negative errno.
    OutHeader { len: u32, error: i32, unique: u64 }
    InitOut {
        major: u32, minor: u32, max_readahead: u32, flags: u32,
        max_background: u16, congestion_threshold: u16, max_write: u32, time_gran: u32,
        max_pages: u16, map_alignment: u16, flags2: u32, max_stack_depth: u32,
        request_timeout: u16, unused: [u16; 11]
    }
    Attr {
        ino: u64, size: u64, blocks: u64, atime: u64, mtime: u64, ctime: u64,
        atimensec: u32, mtimensec: u32, ctimensec: u32, mode: u32, nlink: u32,
        uid: u32, gid: u32, rdev: u32, blksize: u32, flags: u32
    }
    /// With inode 0 it says that the name does not exist, and for how long that is true.
    EntryOut {
        nodeid: u64, generation: u64, entry_valid: u64, attr_valid: u64,
        entry_valid_nsec: u32, attr_valid_nsec: u32, attr: Attr
    }
    AttrOut { attr_valid: u64, attr_valid_nsec: u32, dummy: u32, attr: Attr }
    OpenOut { fh: u64, open_flags: u32, backing_id: i32 }
    WriteOut { size: u32, padding: u32 }
    StatfsOut {
        blocks: u64, bfree: u64, bavail: u64, files: u64, ffree: u64,
        bsize: u32, namelen: u32, frsize: u32, padding: u32, spare: [u32; 6]
    }
    LseekOut { offset: u64 }
    CopyFileRangeOut { bytes_copied: u64 }
    GetXattrOut { size: u32, padding: u32 }
    /// `struct fsxattr` of linux/fs.h.
    FsXattr { xflags: u32, extsize: u32, nextents: u32, projid: u32, cowextsize: u32, pad: [u8; 8] }
    IoctlOut { result: i32, flags: u32, in_iovs: u32, out_iovs: u32 }
    StatxTime { seconds: i64, nanoseconds: u32, reserved: i32 }
    Statx {
        mask: u32, blksize: u32, attributes: u64, nlink: u32, uid: u32, gid: u32,
        mode: u16, spare0: u16, ino: u64, size: u64, blocks: u64, attributes_mask: u64,
        atime: StatxTime, btime: StatxTime, ctime: StatxTime, mtime: StatxTime,
        rdev_major: u32, rdev_minor: u32, dev_major: u32, dev_minor: u32, spare2: [u64; 14]
    }
    StatxOut { attr_valid: u64, attr_valid_nsec: u32, flags: u32, spare: [u64; 2], stat: Statx }
    Dirent { ino: u64, off: u64, namelen: u32, kind: u32 }
    /// With a negative offset it is about attributes only.
    NotifyInvalInodeOut { ino: u64, off: i64, len: i64 }
    BackingMap { fd: i32, flags: u32, padding: u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes as `sizeof` has them for the structures of linux/fuse.h.
    #[test]
    fn words_have_the_kernels_sizes() {
        let received = [
            (size_of::<InHeader>(), 40),
            (size_of::<SetAttrIn>(), 88),
            (size_of::<ReadIn>(), 40),
            (size_of::<WriteIn>(), 40),
            (size_of::<CreateIn>(), 16),
            (size_of::<ReleaseIn>(), 24),
            (size_of::<IoctlIn>(), 32),
            (size_of::<FallocateIn>(), 32),
            (size_of::<CopyFileRangeIn>(), 56),
            (size_of::<StatxIn>(), 24),
            (size_of::<SetXattrIn>(), 16),
        ];
        let sent = [
            (size_of::<OutHeader>(), 16),
            (size_of::<InitOut>(), 64),
            (size_of::<Attr>(), 88),
            (size_of::<EntryOut>(), 128),
            (size_of::<AttrOut>(), 104),
            (size_of::<OpenOut>(), 16),
            (size_of::<StatfsOut>(), 80),
            (size_of::<Dirent>(), 24),
            (size_of::<Statx>(), 256),
            (size_of::<StatxOut>(), 288),
            (size_of::<IoctlOut>(), 16),
            (size_of::<FsXattr>(), 28),
            (size_of::<NotifyInvalInodeOut>(), 24),
            (size_of::<BackingMap>(), 16),
        ];
        for (ours, kernels) in received.into_iter().chain(sent) {
            assert_eq!(ours, kernels);
        }
    }

    #[test]
    fn operations_are_sorted_and_none_is_named_twice() {
        for (place, (number, word)) in OPERATIONS.iter().enumerate() {
            for (other, name) in &OPERATIONS[..place] {
                assert!(number > other && word != name, "{word}");
            }
        }
    }
}
