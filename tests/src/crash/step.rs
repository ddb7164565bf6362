//! One change, as it stands in a journal.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, XattrFlags};
use rustix::io::Result;
use serde::{Deserialize, Serialize};

use super::Random;

/// A change of a directory's content; paths are relative to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "operands are those of the system call")]
pub enum Step {
    /// A new file.
    Create { path: String, mode: u32 },
    /// `pwrite(2)` of `bytes`.
    Write {
        path: String,
        at: u64,
        seed: u64,
        length: usize,
    },
    /// `ftruncate(2)`.
    Truncate { path: String, size: u64 },
    /// One byte through a shared mapping, and `msync(2)`.
    Store { path: String, at: u64, byte: u8 },
    /// `rename(2)`, perhaps over something.
    Rename { from: String, to: String },
    /// `RENAME_EXCHANGE`.
    Exchange { from: String, to: String },
    /// `link(2)`.
    Link { from: String, to: String },
    /// `unlink(2)`; `held` keeps the file open.
    Unlink { path: String, held: bool },
    /// `mkdir(2)`.
    MakeDirectory { path: String, mode: u32 },
    /// `rmdir(2)`.
    RemoveDirectory { path: String },
    /// `symlink(2)`.
    Symlink { target: String, path: String },
    /// `chmod(2)`.
    Chmod { path: String, mode: u32 },
    /// `setxattr(2)`.
    SetAttribute {
        path: String,
        name: String,
        value: String,
    },
    /// `fsync(2)`, of files and of directories.
    Sync { path: String },
}

/// What [`Step::Write`] writes.
pub(super) fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    (0..length).map(|_| random.below(256) as u8).collect()
}

fn open(path: &str, flags: OFlags) -> Result<File> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::open(path, flags, Mode::empty()).map(File::from)
}

impl Step {
    /// Does it in the current directory. What is held open goes to `held`.
    pub(super) fn perform(&self, held: &mut Vec<File>) -> Result<()> {
        match self {
            Step::Create { path, mode } => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                rustix::fs::open(path, flags, Mode::from_raw_mode(*mode)).map(drop)
            }
            Step::Write {
                path,
                at,
                seed,
                length,
            } => {
                let file = open(path, OFlags::WRONLY)?;
                let written = file.write_all_at(&bytes(*seed, *length), *at);
                written.map_err(|error| errno(&error))
            }
            Step::Truncate { path, size } => {
                let file = std::fs::OpenOptions::new().write(true).open(path);
                let file = file.map_err(|error| errno(&error))?;
                file.set_len(*size).map_err(|error| errno(&error))
            }
            Step::Store { path, at, byte } => {
                let file = open(path, OFlags::RDWR)?;
                crate::operation::store(file.as_fd(), *at, *byte, true).map(drop)
            }
            Step::Unlink { path, held: true } => {
                held.push(open(path, OFlags::RDWR)?);
                rustix::fs::unlink(path)
            }
            Step::Unlink { path, held: false } => rustix::fs::unlink(path),
            Step::Sync { path } => rustix::fs::fsync(open(path, OFlags::RDONLY)?),
            naming => naming.perform_naming(),
        }
    }

    fn perform_naming(&self) -> Result<()> {
        let exchange = RenameFlags::EXCHANGE;
        match self {
            Step::Rename { from, to } => rustix::fs::rename(from, to),
            Step::Exchange { from, to } => rustix::fs::renameat_with(CWD, from, CWD, to, exchange),
            Step::Link { from, to } => rustix::fs::linkat(CWD, from, CWD, to, AtFlags::empty()),
            Step::MakeDirectory { path, mode } => {
                rustix::fs::mkdir(path, Mode::from_raw_mode(*mode))
            }
            Step::RemoveDirectory { path } => rustix::fs::rmdir(path),
            Step::Symlink { target, path } => rustix::fs::symlink(target, path),
            Step::Chmod { path, mode } => {
                rustix::fs::chmod(Path::new(path), Mode::from_raw_mode(*mode))
            }
            Step::SetAttribute { path, name, value } => {
                rustix::fs::setxattr(path, name, value.as_bytes(), XattrFlags::empty())
            }
            _ => unreachable!("{self:?} changes content"),
        }
    }
}

fn errno(error: &std::io::Error) -> rustix::io::Errno {
    rustix::io::Errno::from_io_error(error).unwrap_or(rustix::io::Errno::IO)
}
