//! System calls that no crate of ours offers as safe functions.
#![expect(unsafe_code, reason = "mmap, and calls that only libc has")]

use std::ffi::{CString, c_int};
use std::io;
use std::mem::{size_of, zeroed};
use std::ptr;

use rustix::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use rustix::io::Errno;
use rustix::thread::{UnshareFlags, unshare_unsafe};

type Result<T> = rustix::io::Result<T>;

fn checked(result: c_int) -> Result<c_int> {
    if result < 0 {
        let code = io::Error::last_os_error().raw_os_error();
        return Err(Errno::from_raw_os_error(code.unwrap_or(libc::EIO)));
    }
    Ok(result)
}

/// A shared, writable mapping of the first bytes of a file.
#[derive(Debug)]
pub(super) struct Mapping {
    start: *mut u8,
    length: usize,
}

impl Mapping {
    pub(super) fn shared(file: impl AsFd, length: usize) -> Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let file = file.as_fd().as_raw_fd();
        // SAFETY: a new mapping at a place that the kernel chooses; `Drop` takes it away.
        let start =
            unsafe { libc::mmap(ptr::null_mut(), length, access, libc::MAP_SHARED, file, 0) };
        if start == libc::MAP_FAILED {
            return checked(-1).map(|_| unreachable!("-1 is an error"));
        }
        Ok(Self {
            start: start.cast(),
            length,
        })
    }

    fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset < self.length, "outside of the mapping");
        self.start.wrapping_add(offset)
    }

    pub(super) fn load(&self, offset: usize) -> u8 {
        // SAFETY: inside the mapping, by `at`; volatile, as others change the file.
        unsafe { self.at(offset).read_volatile() }
    }

    pub(super) fn store(&self, offset: usize, byte: u8) {
        // SAFETY: as for `load`; the mapping is writable.
        unsafe { self.at(offset).write_volatile(byte) }
    }

    pub(super) fn sync(&self) -> Result<()> {
        // SAFETY: exactly this mapping.
        checked(unsafe { libc::msync(self.start.cast(), self.length, libc::MS_SYNC) }).map(drop)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly this mapping, to which no reference was given out.
        unsafe { libc::munmap(self.start.cast(), self.length) };
    }
}

/// Which kind of lock or lease, and its end.
#[derive(Debug, Clone, Copy)]
pub(super) enum Hold {
    Read,
    Write,
    None,
}

impl Hold {
    fn number(self) -> c_int {
        match self {
            Self::Read => libc::F_RDLCK,
            Self::Write => libc::F_WRLCK,
            Self::None => libc::F_UNLCK,
        }
    }
}

/// Locks a whole file for its open file description, without waiting.
pub(super) fn lock_description(file: impl AsFd, hold: Hold) -> Result<()> {
    lock(file.as_fd(), libc::F_OFD_SETLK, hold, 0, 0)
}

/// Locks bytes of a file for this process, without waiting.
pub(super) fn lock_bytes(file: impl AsFd, hold: Hold, start: i64, length: i64) -> Result<()> {
    lock(file.as_fd(), libc::F_SETLK, hold, start, length)
}

fn lock(file: BorrowedFd<'_>, command: c_int, hold: Hold, start: i64, length: i64) -> Result<()> {
    // SAFETY: plain numbers, for which zero is a value.
    let mut request: libc::flock = unsafe { zeroed() };
    request.l_type = hold.number() as _;
    request.l_start = start;
    request.l_len = length;
    // SAFETY: the request lives through the call, which keeps nothing of it.
    checked(unsafe { libc::fcntl(file.as_raw_fd(), command, &raw const request) }).map(drop)
}

/// Takes or gives back a lease.
pub(super) fn lease(file: impl AsFd, hold: Hold) -> Result<()> {
    let file = file.as_fd().as_raw_fd();
    // SAFETY: numbers only.
    checked(unsafe { libc::fcntl(file, libc::F_SETLEASE, hold.number()) }).map(drop)
}

/// Lets a signal that would end the process pass.
pub(super) fn ignore(signal: c_int) {
    // SAFETY: no handler is installed, the signal is only ignored.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Gives this process a mount namespace of its own.
pub(super) fn unshare_mounts() -> Result<()> {
    // SAFETY: only unsharing of descriptors could surprise other code.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }
}

/// Gives this process a user namespace of its own.
pub(super) fn unshare_users() -> Result<()> {
    // SAFETY: as above.
    unsafe { unshare_unsafe(UnshareFlags::NEWUSER) }
}

/// What stands for a file without a path; room for the largest that the kernel makes.
#[derive(Debug)]
#[repr(C, align(8))]
pub(super) struct Handle {
    length: u32,
    kind: i32,
    bytes: [u8; libc::MAX_HANDLE_SZ as usize],
}

impl Handle {
    pub(super) fn of(directory: impl AsFd, name: &str) -> Result<Self> {
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        let bytes = [0; libc::MAX_HANDLE_SZ as usize];
        let mut handle = Self {
            length: bytes.len() as u32,
            kind: 0,
            bytes,
        };
        let mut mount = 0;
        // SAFETY: the handle has the layout of `file_handle` with the room that it states.
        let result = unsafe {
            libc::name_to_handle_at(
                directory.as_fd().as_raw_fd(),
                name.as_ptr(),
                (&raw mut handle).cast(),
                &raw mut mount,
                0,
            )
        };
        checked(result).map(|_| handle)
    }

    pub(super) fn open(&mut self, mount: impl AsFd) -> Result<OwnedFd> {
        let flags = libc::O_RDONLY | libc::O_CLOEXEC;
        let mount = mount.as_fd().as_raw_fd();
        // SAFETY: as above.
        let result = unsafe { libc::open_by_handle_at(mount, ptr::from_mut(self).cast(), flags) };
        // SAFETY: a new descriptor that nothing else owns.
        checked(result).map(|file| unsafe { OwnedFd::from_raw_fd(file) })
    }
}

#[derive(Debug, Default, Clone, Copy)]
#[repr(C)]
pub(super) struct Extent {
    pub(super) logical: u64,
    pub(super) physical: u64,
    pub(super) length: u64,
    reserved: [u64; 2],
    flags: u32,
    more: [u32; 3],
}

#[derive(Debug, Default)]
#[repr(C)]
struct ExtentMap {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    count: u32,
    reserved: u32,
    extents: [Extent; 16],
}

/// Where the data of a file lies, its first 16 extents; the file is written to disk before.
pub(super) fn extents(file: impl AsFd) -> Result<Vec<Extent>> {
    const FIEMAP: libc::Ioctl = 0xc020_660b; // _IOWR('f', 11, struct fiemap)
    const SYNC: u32 = 1;
    const { assert!(size_of::<ExtentMap>() == 32 + 16 * 56) };
    let mut map = ExtentMap {
        length: u64::MAX,
        flags: SYNC,
        count: 16,
        ..Default::default()
    };
    // SAFETY: the structure is that of the call, with the room that it states.
    checked(unsafe { libc::ioctl(file.as_fd().as_raw_fd(), FIEMAP, &raw mut map) })?;
    Ok(map.extents[..map.mapped.min(16) as usize].to_vec())
}

/// Lets the kernel swap to a file, and stops that at once.
pub(super) fn swap_on_and_off(name: &str) -> Result<()> {
    let name = CString::new(name).map_err(|_| Errno::INVAL)?;
    // SAFETY: names only; the file holds nothing but an empty swap area.
    checked(unsafe { libc::swapon(name.as_ptr(), 0) })?;
    // SAFETY: as above.
    checked(unsafe { libc::swapoff(name.as_ptr()) }).map(drop)
}
