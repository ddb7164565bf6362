//! File operations as data: what a test wants done inside a job, and in a plain directory.
//!
//! [`Machine::perform`] does one operation and tells its [`Outcome`]: an errno, or what can be seen
//! of its effect in words that are the same on every file system that does it right. Inode numbers
//! and current times are never told, only what they must be equal to.
#![expect(
    unsafe_code,
    reason = "mappings and a few calls have no safe interface"
)]

mod effect;
mod listing;
mod names;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cas::text::Text;
use rustix::fs::{FallocateFlags, FileType, FlockOperation, Mode, OFlags, RawMode, Stat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

pub(crate) use effect::store;
use effect::{lock_range, probe, seek, timestamps};

/// What an operation did: a description, or an errno.
pub type Outcome = Result<String, i32>;

/// Seconds before this are told exactly, because a test set them; later ones are just "now".
const NOW_BEGINS: i64 = 1_600_000_000;

/// One operation. Descriptors live in numbered slots.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "operands are those of the system call")]
pub enum Operation {
    /// Closes all slots and goes to a directory.
    Enter { path: Text },
    /// `openat(2)`.
    Open {
        slot: usize,
        path: Text,
        flags: u32,
        mode: u32,
    },
    /// Opens what a slot has open anew, by `/proc/self/fd`.
    Reopen {
        slot: usize,
        from: usize,
        flags: u32,
    },
    /// `close(2)`.
    Close { slot: usize },
    /// `dup(2)`.
    Dup { slot: usize, from: usize },
    /// `read(2)`.
    Read { slot: usize, length: usize },
    /// `pread(2)`.
    ReadAt {
        slot: usize,
        offset: u64,
        length: usize,
    },
    /// `write(2)`.
    Write {
        slot: usize,
        length: usize,
        byte: u8,
    },
    /// `pwrite(2)`.
    WriteAt {
        slot: usize,
        offset: u64,
        length: usize,
        byte: u8,
    },
    /// `lseek(2)`, with a raw `whence`.
    Seek {
        slot: usize,
        offset: i64,
        whence: i32,
    },
    /// Looks for data, or for a hole, and tells whether the answer is true. Where exactly a hole
    /// begins is a matter of what the page cache holds once space was allocated.
    Probe {
        slot: usize,
        offset: u64,
        hole: bool,
    },
    /// `ftruncate(2)`.
    Resize { slot: usize, size: u64 },
    /// `truncate(2)`.
    Truncate { path: Text, size: u64 },
    /// `renameat2(2)`.
    Rename { from: Text, to: Text, flags: u32 },
    /// `linkat(2)`.
    Link { from: Text, to: Text },
    /// `symlinkat(2)`.
    Symlink { target: Text, path: Text },
    /// `readlinkat(2)`.
    ReadLink { path: Text },
    /// `unlinkat(2)`.
    Unlink { path: Text },
    /// `mkdirat(2)`.
    MakeDirectory { path: Text, mode: u32 },
    /// `unlinkat(2)` with `AT_REMOVEDIR`.
    RemoveDirectory { path: Text },
    /// `mknodat(2)` of a fifo or a socket.
    MakeSpecial { path: Text, socket: bool, mode: u32 },
    /// `mknodat(2)` of a regular file.
    MakeRegular { path: Text, mode: u32 },
    /// `fchmodat(2)`.
    Chmod { path: Text, mode: u32 },
    /// `fchmod(2)`.
    ChmodOpen { slot: usize, mode: u32 },
    /// `fchownat(2)` to the caller itself.
    Chown { path: Text },
    /// `utimensat(2)`; `None` leaves a time, without following links.
    SetTimes {
        path: Text,
        atime: Option<i64>,
        mtime: Option<i64>,
    },
    /// `futimens(2)`, both times now.
    Touch { slot: usize },
    /// `lstat(2)` or `stat(2)`.
    Stat { path: Text, follow: bool },
    /// `fstat(2)`.
    StatOpen { slot: usize },
    /// Whether two paths are the same inode.
    Same { path: Text, other: Text },
    /// `access(2)`.
    Access { path: Text, mode: u32 },
    /// `getdents(2)`, sorted.
    List { path: Text },
    /// Lists a directory in the order it comes, removing each entry while the listing goes on.
    ListAndRemove { path: Text },
    /// Lists once more after `lseek` to 0, and from the offset of each entry on.
    ListAgain { path: Text },
    /// `fallocate(2)`.
    Allocate {
        slot: usize,
        flags: u32,
        offset: u64,
        length: u64,
    },
    /// A store through a shared mapping, with `msync(2)` if `sync`.
    Map {
        slot: usize,
        at: u64,
        byte: u8,
        sync: bool,
    },
    /// `copy_file_range(2)`.
    CopyRange {
        slot: usize,
        offset: u64,
        from: usize,
        from_offset: u64,
        length: usize,
    },
    /// `fsync(2)` or `fdatasync(2)`.
    Sync { slot: usize, data_only: bool },
    /// The longest name, by `statvfs(3)`.
    NameMax { path: Text },
    /// `setxattr(2)`, then `getxattr(2)` if that worked.
    Attribute { path: Text },
    /// `flock(2)`, exclusive, without waiting.
    Lock { slot: usize },
    /// `fcntl(2)` lock of open file descriptions, exclusive, without waiting.
    LockRange { slot: usize },
    /// Runs a program and tells its exit code.
    Execute { path: Text },
    /// Makes nested directories by relative steps, writes a file at the end, and comes back.
    Deep { name: Text, levels: usize },
    /// Everything below the current directory: attributes, hard links, contents.
    Tree,
}

/// An operation's operand from bytes or text.
pub fn text(name: impl AsRef<[u8]>) -> Text {
    Text(name.as_ref().to_vec())
}

fn path(text: &Text) -> &Path {
    Path::new(OsStr::from_bytes(&text.0))
}

/// Open descriptors, and where relative paths begin.
#[derive(Debug)]
pub struct Machine {
    root: PathBuf,
    slots: BTreeMap<usize, OwnedFd>,
}

type Answer = rustix::io::Result<String>;

fn done<T>(result: rustix::io::Result<T>) -> Answer {
    result.map(|_| String::new())
}

impl Machine {
    /// Starts in the current directory.
    pub fn new() -> std::io::Result<Self> {
        rustix::process::umask(Mode::from_raw_mode(0o022));
        let slots = BTreeMap::new();
        Ok(Self {
            root: std::env::current_dir()?,
            slots,
        })
    }

    /// Does one operation.
    pub fn perform(&mut self, operation: &Operation) -> Outcome {
        let answer = match self.on_descriptors(operation) {
            Some(answer) => answer,
            None => names::on_names(operation),
        };
        answer.map_err(Errno::raw_os_error)
    }

    fn slot(&self, slot: usize) -> rustix::io::Result<BorrowedFd<'_>> {
        self.slots.get(&slot).map(AsFd::as_fd).ok_or(Errno::BADF)
    }

    fn keep(&mut self, slot: usize, fd: rustix::io::Result<OwnedFd>) -> Answer {
        done(fd.map(|fd| self.slots.insert(slot, fd)))
    }

    /// Operations that use slots.
    fn on_descriptors(&mut self, operation: &Operation) -> Option<Answer> {
        Some(match *operation {
            Operation::Enter { path: ref to } => {
                self.slots.clear();
                done(rustix::process::chdir(self.root.join(path(to))))
            }
            Operation::Open {
                slot,
                path: ref file,
                flags,
                mode,
            } => {
                let flags = OFlags::from_bits_retain(flags) | OFlags::CLOEXEC;
                let opened = rustix::fs::open(path(file), flags, Mode::from_raw_mode(mode));
                self.keep(slot, opened)
            }
            Operation::Reopen { slot, from, flags } => {
                let fd = match self.slot(from) {
                    Ok(fd) => format!("/proc/self/fd/{}", fd.as_raw_fd()),
                    Err(errno) => return Some(Err(errno)),
                };
                let flags = OFlags::from_bits_retain(flags) | OFlags::CLOEXEC;
                self.keep(slot, rustix::fs::open(fd, flags, Mode::empty()))
            }
            Operation::Close { slot } => done(self.slots.remove(&slot).ok_or(Errno::BADF)),
            Operation::Dup { slot, from } => {
                let copy = self
                    .slot(from)
                    .and_then(|fd| rustix::io::fcntl_dupfd_cloexec(fd, 3));
                self.keep(slot, copy)
            }
            _ => return self.on_open_file(operation),
        })
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each system call")]
    fn on_open_file(&self, operation: &Operation) -> Option<Answer> {
        Some(match *operation {
            Operation::Read { slot, length } => self.slot(slot).and_then(|fd| {
                let mut bytes = vec![0; length];
                let count = rustix::io::read(fd, &mut bytes[..])?;
                Ok(content(&bytes[..count]))
            }),
            Operation::ReadAt {
                slot,
                offset,
                length,
            } => self.slot(slot).and_then(|fd| {
                let mut bytes = vec![0; length];
                let count = rustix::io::pread(fd, &mut bytes[..], offset)?;
                Ok(content(&bytes[..count]))
            }),
            Operation::Write { slot, length, byte } => self.slot(slot).and_then(|fd| {
                let count = rustix::io::write(fd, &vec![byte; length])?;
                Ok(count.to_string())
            }),
            Operation::WriteAt {
                slot,
                offset,
                length,
                byte,
            } => self.slot(slot).and_then(|fd| {
                let count = rustix::io::pwrite(fd, &vec![byte; length], offset)?;
                Ok(count.to_string())
            }),
            Operation::Seek {
                slot,
                offset,
                whence,
            } => self.slot(slot).and_then(|fd| seek(fd, offset, whence)),
            Operation::Probe { slot, offset, hole } => {
                self.slot(slot).and_then(|fd| probe(fd, offset, hole))
            }
            Operation::Resize { slot, size } => done(
                self.slot(slot)
                    .and_then(|fd| rustix::fs::ftruncate(fd, size)),
            ),
            Operation::ChmodOpen { slot, mode } => {
                let mode = Mode::from_raw_mode(mode);
                done(self.slot(slot).and_then(|fd| rustix::fs::fchmod(fd, mode)))
            }
            Operation::Touch { slot } => {
                let now = timestamps(rustix::fs::UTIME_NOW, rustix::fs::UTIME_NOW);
                done(
                    self.slot(slot)
                        .and_then(|fd| rustix::fs::futimens(fd, &now)),
                )
            }
            Operation::StatOpen { slot } => self
                .slot(slot)
                .and_then(rustix::fs::fstat)
                .map(|stat| describe(&stat)),
            Operation::Allocate {
                slot,
                flags,
                offset,
                length,
            } => {
                let flags = FallocateFlags::from_bits_retain(flags);
                done(
                    self.slot(slot)
                        .and_then(|fd| rustix::fs::fallocate(fd, flags, offset, length)),
                )
            }
            Operation::Map {
                slot,
                at,
                byte,
                sync,
            } => self.slot(slot).and_then(|fd| store(fd, at, byte, sync)),
            Operation::CopyRange {
                slot,
                offset,
                from,
                from_offset,
                length,
            } => self.copy_range(slot, offset, from, from_offset, length),
            Operation::Sync {
                slot,
                data_only: true,
            } => done(self.slot(slot).and_then(rustix::fs::fdatasync)),
            Operation::Sync { slot, .. } => done(self.slot(slot).and_then(rustix::fs::fsync)),
            Operation::Lock { slot } => {
                let operation = FlockOperation::NonBlockingLockExclusive;
                done(
                    self.slot(slot)
                        .and_then(|fd| rustix::fs::flock(fd, operation)),
                )
            }
            Operation::LockRange { slot } => self.slot(slot).and_then(lock_range),
            _ => return None,
        })
    }

    fn copy_range(
        &self,
        slot: usize,
        mut offset: u64,
        from: usize,
        mut from_offset: u64,
        length: usize,
    ) -> Answer {
        let (source, target) = (self.slot(from)?, self.slot(slot)?);
        let offsets = (Some(&mut from_offset), Some(&mut offset));
        let count = rustix::fs::copy_file_range(source, offsets.0, target, offsets.1, length)?;
        Ok(count.to_string())
    }
}

/// A short fingerprint of bytes.
fn content(bytes: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    format!("{} bytes {:08x}", bytes.len(), hasher.finish() as u32)
}

/// The attributes that must be the same everywhere.
fn describe(stat: &Stat) -> String {
    let kind = FileType::from_raw_mode(stat.st_mode as RawMode);
    let mut text = format!(
        "{kind:?} {:o} links {}",
        stat.st_mode & 0o7777,
        stat.st_nlink
    );
    if kind != FileType::Directory {
        let _ = write!(text, " size {}", stat.st_size);
    }
    let _ = match stat.st_mtime {
        now if now >= NOW_BEGINS => write!(text, " mtime now"),
        set => write!(text, " mtime {set}.{:09}", stat.st_mtime_nsec),
    };
    let own = (stat.st_uid, stat.st_gid)
        == (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        );
    text + if own { "" } else { " not mine" }
}
