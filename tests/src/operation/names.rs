//! Operations on names.

use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, RenameFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::effect::{deep, last_errno};
use super::{Answer, Operation, describe, done, listing, path};

/// Operations that use names only.
#[expect(clippy::too_many_lines, reason = "one arm for each system call")]
pub(super) fn on_names(operation: &Operation) -> Answer {
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
        Operation::MakeRegular { path: file, mode } => {
            let mode = Mode::from_raw_mode(*mode);
            done(rustix::fs::mknodat(
                CWD,
                path(file),
                FileType::RegularFile,
                mode,
                0,
            ))
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
