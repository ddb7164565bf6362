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

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cas::text::Text;
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, FlockOperation, Gid, Mode, OFlags, RawMode,
    RenameFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use effect::{deep, last_errno, lock_range, probe, seek, store, timestamps};

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
            None => on_names(operation),
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

/// Operations that use names only.
#[expect(clippy::too_many_lines, reason = "one arm for each system call")]
fn on_names(operation: &Operation) -> Answer {
    let follow_not = AtFlags::SYMLINK_NOFOLLOW;
    match operation {
        Operation::Truncate { path: file, size } => {
            let file = std::ffi::CString::new(&*file.0).map_err(|_| Errno::INVAL)?;
            // SAFETY: a string that ends in NUL and lives past the call.
            match unsafe { libc::truncate(file.as_ptr(), *size as i64) } {
                0 => Ok(String::new()),
                _ => Err(last_errno()),
            }
        }
        Operation::Rename { from, to, flags } => {
            let flags = RenameFlags::from_bits_retain(*flags);
            done(rustix::fs::renameat_with(
                CWD,
                path(from),
                CWD,
                path(to),
                flags,
            ))
        }
        Operation::Link { from, to } => done(rustix::fs::linkat(
            CWD,
            path(from),
            CWD,
            path(to),
            AtFlags::empty(),
        )),
        Operation::Symlink { target, path: link } => {
            done(rustix::fs::symlink(path(target), path(link)))
        }
        Operation::ReadLink { path: link } => {
            let target = rustix::fs::readlink(path(link), Vec::new())?;
            Ok(cas::text::encode(target.as_bytes()).into_owned())
        }
        Operation::Unlink { path: file } => done(rustix::fs::unlink(path(file))),
        Operation::MakeDirectory {
            path: directory,
            mode,
        } => done(rustix::fs::mkdir(
            path(directory),
            Mode::from_raw_mode(*mode),
        )),
        Operation::RemoveDirectory { path: directory } => done(rustix::fs::rmdir(path(directory))),
        Operation::MakeSpecial {
            path: special,
            socket,
            mode,
        } => {
            let kind = if *socket {
                FileType::Socket
            } else {
                FileType::Fifo
            };
            let mode = Mode::from_raw_mode(*mode);
            done(rustix::fs::mknodat(CWD, path(special), kind, mode, 0))
        }
        Operation::Chmod { path: file, mode } => {
            done(rustix::fs::chmod(path(file), Mode::from_raw_mode(*mode)))
        }
        Operation::Chown { path: file } => {
            let (uid, gid): (Uid, Gid) = (rustix::process::geteuid(), rustix::process::getegid());
            done(rustix::fs::chownat(
                CWD,
                path(file),
                Some(uid),
                Some(gid),
                follow_not,
            ))
        }
        Operation::SetTimes {
            path: file,
            atime,
            mtime,
        } => {
            let set = |time: &Option<i64>| match time {
                Some(seconds) => Timespec {
                    tv_sec: *seconds,
                    tv_nsec: 123_456_789,
                },
                None => Timespec {
                    tv_sec: 0,
                    tv_nsec: rustix::fs::UTIME_OMIT,
                },
            };
            let times = Timestamps {
                last_access: set(atime),
                last_modification: set(mtime),
            };
            done(rustix::fs::utimensat(CWD, path(file), &times, follow_not))
        }
        _ => on_names_looking(operation),
    }
}

/// Operations that look, or do several things.
fn on_names_looking(operation: &Operation) -> Answer {
    match operation {
        Operation::Stat {
            path: file,
            follow: true,
        } => rustix::fs::stat(path(file)).map(|stat| describe(&stat)),
        Operation::Stat { path: file, .. } => {
            rustix::fs::lstat(path(file)).map(|stat| describe(&stat))
        }
        Operation::Same { path: file, other } => {
            let (a, b) = (
                rustix::fs::lstat(path(file))?,
                rustix::fs::lstat(path(other))?,
            );
            Ok(((a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)).to_string())
        }
        Operation::Access { path: file, mode } => {
            let access = rustix::fs::Access::from_bits_retain(*mode);
            done(rustix::fs::access(path(file), access))
        }
        Operation::List { path: directory } => Ok(listing::sorted(path(directory))?.join(" ")),
        Operation::ListAndRemove { path: directory } => listing::and_remove(path(directory)),
        Operation::ListAgain { path: directory } => listing::again(path(directory)),
        Operation::NameMax { path: file } => {
            Ok(rustix::fs::statvfs(path(file))?.f_namemax.to_string())
        }
        Operation::Attribute { path: file } => {
            let (name, flags) = ("user.test", XattrFlags::empty());
            rustix::fs::setxattr(path(file), name, b"value", flags)?;
            let mut value = [0u8; 16];
            Ok(rustix::fs::getxattr(path(file), name, &mut value[..])?.to_string())
        }
        Operation::Execute { path: program } => {
            let status = std::process::Command::new(Path::new(".").join(path(program))).status();
            let status =
                status.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
            Ok(status.code().unwrap_or(-1).to_string())
        }
        Operation::Deep { name, levels } => deep(path(name), *levels),
        Operation::Tree => listing::tree(),
        other => unreachable!("{other:?} is done above"),
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
