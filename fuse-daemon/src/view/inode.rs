//! Inodes: what a name points at.

use std::collections::BTreeMap;

use cas::tree::NodeIndex;
use cas::{Digest, NameBuf};

use super::entries::Entries;

/// The number of an inode in its view. One per path, or per group of hard links; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeId(pub u64);

impl InodeId {
    /// The root directory. FUSE fixes this number.
    pub const ROOT: InodeId = InodeId(1);
}

/// A point in time, as file systems keep it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Seconds since the epoch; negative before it.
    pub seconds: i64,
    /// Nanoseconds on top, below 1,000,000,000.
    pub nanoseconds: u32,
}

impl Time {
    /// From nanoseconds since the epoch.
    pub fn from_nanoseconds(total: i64) -> Self {
        let (seconds, rest) = (
            total.div_euclid(1_000_000_000),
            total.rem_euclid(1_000_000_000),
        );
        Self {
            seconds,
            nanoseconds: rest as u32,
        }
    }
}

/// Attributes that every inode has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits, `0o7777` at most.
    pub perm: u16,
    /// Owner, as the job sees it.
    pub uid: u32,
    /// Group, likewise.
    pub gid: u32,
    /// Last access, as far as it is kept.
    pub atime: Time,
    /// Last change of content.
    pub mtime: Time,
    /// Last change of the inode.
    pub ctime: Time,
}

/// What kind of file an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A fifo, socket or device.
    Special(SpecialKind),
}

/// Kinds of inodes that have no content. The kernel serves them; the view only names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialKind {
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    Character,
    /// A block device.
    Block,
}

/// Everything `stat` shows. For a file that the job wrote, size, blocks, `mtime` and `atime` are
/// those of what backs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Its number.
    pub id: InodeId,
    /// What it is.
    pub kind: FileKind,
    /// Permissions, owner, times.
    pub meta: Meta,
    /// Names that point at it. A directory has two, and one more for each it holds.
    pub links: u32,
    /// Bytes.
    pub size: u64,
    /// Device number of a device.
    pub rdev: u32,
    /// When it was made, or came into the view.
    pub born: Time,
}

/// The inode flags that are kept, as `FS_IOC_GETFLAGS` has them (linux/fs.h).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InodeFlags(pub u32);

impl InodeFlags {
    /// Nothing of it may be changed (`FS_IMMUTABLE_FL`).
    pub const IMMUTABLE: InodeFlags = InodeFlags(0x10);
    /// It may only grow (`FS_APPEND_FL`).
    pub const APPEND_ONLY: InodeFlags = InodeFlags(0x20);
    /// What is handed down to new files and directories, as ext4 does: `SYNC`, `NODUMP`, `NOATIME`
    /// and `DAX`. They are only remembered.
    pub const INHERITED: InodeFlags = InodeFlags(0x08 | 0x40 | 0x80 | 0x0200_0000);
    /// What may be set.
    pub const SETTABLE: InodeFlags = InodeFlags(0x10 | 0x20 | Self::INHERITED.0);

    /// Whether any of some flags is set.
    pub fn has_any(self, of: InodeFlags) -> bool {
        self.0 & of.0 != 0
    }

    /// Those of a directory that something new in it gets.
    pub(super) fn inherited(self) -> Self {
        Self(self.0 & Self::INHERITED.0)
    }

    /// Whether it may not be removed, moved, linked, or given other attributes.
    pub(super) fn pins(self) -> bool {
        self.has_any(Self(Self::IMMUTABLE.0 | Self::APPEND_ONLY.0))
    }
}

/// Extended attributes by name.
pub(super) type Extended = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// An inode of the table.
#[derive(Debug)]
pub(super) struct Inode<S> {
    pub(super) meta: Meta,
    pub(super) born: Time,
    pub(super) flags: InodeFlags,
    /// Names that point here. A directory's own `.` and its children's `..` are not counted.
    pub(super) links: u32,
    /// Whether it may get a first name: made by `O_TMPFILE`. What lost its last name may not.
    pub(super) linkable: bool,
    pub(super) extended: Extended,
    pub(super) kind: Kind<S>,
}

/// The one answer to where an inode's content comes from.
#[derive(Debug)]
pub(super) enum Kind<S> {
    Directory(Directory),
    /// A declared file whose attributes or names are not the declared ones, but whose content is.
    Input(Input),
    Staged(S),
    Symlink(Box<[u8]>),
    Special(SpecialKind, u32),
}

/// A directory of the table.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) parent: InodeId,
    /// Its name in `parent`; `None` for the root.
    pub(super) name: Option<NameBuf>,
    /// What the job made in it, under names that are not declared.
    pub(super) made: Entries,
    /// Declared names that point at something else now, by their place in the tree; `None` is a
    /// whiteout. Whatever gets such a name keeps its place in listings.
    pub(super) replaced: BTreeMap<NodeIndex, Option<InodeId>>,
    /// Directories in it, declared ones included.
    pub(super) subdirectories: u32,
    pub(super) listing: Listing,
}

/// What is known of those who list a directory, without knowing them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    /// How many have begun and not come to an end: they go on, or have left.
    begun: u32,
    /// Others may have begun before anything was noted, and nobody has come to an end since.
    others: bool,
    /// Whether names have changed since one of them began.
    overtaken: bool,
}

impl Listing {
    /// Of a directory of which nothing was noted so far.
    pub(super) const UNKNOWN: Self = Self {
        begun: 0,
        others: true,
        overtaken: false,
    };

    pub(super) fn begin(&mut self) {
        self.begun = self.begun.saturating_add(1);
    }

    pub(super) fn change(&mut self) {
        self.overtaken |= self.begun > 0 || self.others;
    }

    /// Whether all that anybody was told who has begun is still so. It is said once that it is not:
    /// the kernel then lets go of what it has.
    pub(super) fn end(&mut self) -> bool {
        self.begun = self.begun.saturating_sub(1);
        self.others = false;
        !std::mem::take(&mut self.overtaken)
    }
}

impl Directory {
    pub(super) fn new(parent: InodeId, name: Option<NameBuf>, subdirectories: u32) -> Self {
        Self {
            parent,
            name,
            made: Entries::default(),
            replaced: BTreeMap::new(),
            subdirectories,
            listing: Listing::default(),
        }
    }
}

/// A declared file, by content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Input {
    pub(super) digest: Digest,
    pub(super) size: u64,
}

impl<S> Inode<S> {
    /// An inode without a name.
    pub(super) fn new(meta: Meta, born: Time, kind: Kind<S>) -> Self {
        Self {
            meta,
            born,
            flags: InodeFlags::default(),
            links: 0,
            linkable: false,
            extended: BTreeMap::new(),
            kind,
        }
    }
}
