//! Effects that take more than one call.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, SeekFrom, Timespec, Timestamps};
use rustix::io::Errno;

use super::{Answer, describe};

const PAGE: usize = 4096;

pub(super) fn timestamps(atime: rustix::fs::Nsecs, mtime: rustix::fs::Nsecs) -> Timestamps {
    let at = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
    Timestamps {
        last_access: at(atime),
        last_modification: at(mtime),
    }
}

pub(super) fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

pub(super) fn seek(fd: BorrowedFd<'_>, offset: i64, whence: i32) -> Answer {
    // Offsets in directories are the file system's own.
    if FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode) == FileType::Directory {
        return Ok("directory".into());
    }
    let absolute = offset.unsigned_abs();
    let to = match whence {
        libc::SEEK_SET => SeekFrom::Start(absolute),
        libc::SEEK_CUR => SeekFrom::Current(offset),
        libc::SEEK_END => SeekFrom::End(offset),
        libc::SEEK_DATA => SeekFrom::Data(absolute),
        _ => SeekFrom::Hole(absolute),
    };
    Ok(rustix::fs::seek(fd, to)?.to_string())
}

/// Checks what `lseek(2)` says of data and holes against the content, and keeps the position.
pub(super) fn probe(fd: BorrowedFd<'_>, offset: u64, hole: bool) -> Answer {
    let stat = rustix::fs::fstat(fd)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Ok("directory".into());
    }
    let size = stat.st_size as u64;
    let position = rustix::fs::tell(fd)?;
    let to = if hole {
        SeekFrom::Hole(offset)
    } else {
        SeekFrom::Data(offset)
    };
    let found = rustix::fs::seek(fd, to);
    rustix::fs::seek(fd, SeekFrom::Start(position))?;
    let zeros = match found {
        Ok(found) if hole => found..(found + 1).min(size),
        Ok(found) => offset..found,
        Err(Errno::NXIO) if !hole && offset < size => offset..size,
        Err(errno) => return Err(errno),
    };
    let mut bytes = vec![0; zeros.end.saturating_sub(zeros.start) as usize];
    match rustix::io::pread(fd, &mut bytes[..], zeros.start) {
        // Open for writing only.
        Err(Errno::BADF) => Ok("true".into()),
        Err(errno) => Err(errno),
        Ok(_) => Ok((zeros.end <= size && bytes.iter().all(|&byte| byte == 0)).to_string()),
    }
}

/// Stores a byte through a shared mapping of its page. Past the end of the file that would be a
/// SIGBUS, so there it is only mapped.
pub(crate) fn store(fd: BorrowedFd<'_>, at: u64, byte: u8, sync: bool) -> Answer {
    let size = rustix::fs::fstat(fd)?.st_size as u64;
    let (page, within) = (at / PAGE as u64 * PAGE as u64, at as usize % PAGE);
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a fresh mapping at an address of the kernel's choice.
    let mapping = unsafe {
        let (anywhere, raw) = (std::ptr::null_mut(), fd.as_raw_fd());
        libc::mmap(anywhere, PAGE, access, libc::MAP_SHARED, raw, page as i64)
    };
    if mapping == libc::MAP_FAILED {
        return Err(last_errno());
    }
    if at < size {
        // SAFETY: inside the mapping of one page, of which the file has at least this byte.
        unsafe { mapping.cast::<u8>().add(within).write_volatile(byte) };
    }
    // SAFETY: exactly the mapping made above, which nothing refers to any more.
    let result = unsafe {
        let synced = if sync {
            libc::msync(mapping, PAGE, libc::MS_SYNC)
        } else {
            0
        };
        libc::munmap(mapping, PAGE) | synced
    };
    if result == 0 {
        Ok((at < size).to_string())
    } else {
        Err(last_errno())
    }
}

pub(super) fn lock_range(fd: BorrowedFd<'_>) -> Answer {
    // SAFETY: a plain struct for which zero is a value: the whole file.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as i16;
    // SAFETY: the kernel only reads the struct, which lives past the call.
    match unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) } {
        0 => Ok(String::new()),
        _ => Err(last_errno()),
    }
}

/// A path longer than `PATH_MAX` exists only by relative steps.
pub(super) fn deep(name: &Path, levels: usize) -> Answer {
    let start = rustix::fs::open(".", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let go = || {
        for _ in 0..levels {
            rustix::fs::mkdir(name, Mode::from_raw_mode(0o755))?;
            rustix::process::chdir(name)?;
        }
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::open("bottom", flags, Mode::from_raw_mode(0o644))?;
        rustix::io::write(&file, b"deep")?;
        let bottom = rustix::fs::stat("bottom").map(|stat| describe(&stat))?;
        rustix::fs::unlink("bottom")?;
        for _ in 0..levels {
            rustix::process::chdir("..")?;
            rustix::fs::rmdir(name)?;
        }
        Ok(bottom)
    };
    let result = go();
    rustix::process::fchdir(&start)?;
    result
}
