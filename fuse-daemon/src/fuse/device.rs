//! The device: requests in, replies out, and the few controls that it has.
#![expect(unsafe_code, reason = "no crate offers the ioctls of /dev/fuse")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Weak};

use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, Result};
use zerocopy::{Immutable, IntoBytes};

use super::abi;

/// `FUSE_DEV_IOC_CLONE`: `_IOR(229, 0, uint32_t)`.
const CLONE: libc::Ioctl = 0x8004_e500_u32 as libc::Ioctl;
/// `FUSE_DEV_IOC_BACKING_OPEN`: `_IOW(229, 1, struct fuse_backing_map)`.
const BACKING_OPEN: libc::Ioctl = 0x4010_e501;
/// `FUSE_DEV_IOC_BACKING_CLOSE`: `_IOW(229, 2, uint32_t)`.
const BACKING_CLOSE: libc::Ioctl = 0x4004_e502;

/// An open `/dev/fuse`. When the last one of a mount is closed, the kernel ends the mount's
/// requests (fs/fuse/dev.c, `fuse_dev_release`).
#[derive(Debug)]
pub(super) struct Device(OwnedFd);

/// A file that the kernel reads and writes itself. Dropping it makes the kernel let go of it,
/// as soon as no open file uses it.
#[derive(Debug)]
pub(super) struct BackingId {
    id: u32,
    /// Not a strong one: what is idle must not keep a mount alive.
    device: Weak<Device>,
}

impl Device {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Another open device of the same mount. Requests are taken from one queue, but each open
    /// device has its own list of those being answered, and its own lock.
    pub(super) fn another(&self) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let fd = rustix::fs::open("/dev/fuse", flags, Mode::empty())?;
        let other = Self(fd);
        other.control(CLONE, &(self.0.as_raw_fd() as u32))?;
        Ok(other)
    }

    /// Waits for a request. `NODEV` says that the mount has ended.
    pub(super) fn read(&self, buffer: &mut [u8]) -> Result<usize> {
        rustix::io::read(&self.0, buffer)
    }

    /// Sends a reply, whole or not at all.
    pub(super) fn write(&self, reply: &[u8]) -> Result<()> {
        rustix::io::write(&self.0, reply).map(drop)
    }

    /// Lets the kernel read and write `file` itself. Needs CAP_SYS_ADMIN in the first user
    /// namespace.
    pub(super) fn register(self: &Arc<Self>, file: &File) -> Result<BackingId> {
        let map = abi::BackingMap {
            fd: file.as_raw_fd(),
            ..Default::default()
        };
        let id = self.control(BACKING_OPEN, &map)?;
        let device = Arc::downgrade(self);
        Ok(BackingId { id, device })
    }

    fn control<T: IntoBytes + Immutable>(&self, request: libc::Ioctl, operand: &T) -> Result<u32> {
        // SAFETY: each request above reads as many bytes as its operand has (the kernel's
        // `_IOC_SIZE`; u32 or `BackingMap`), and writes none. The descriptor is open.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), request, operand as *const T) };
        u32::try_from(result).map_err(|_| {
            let error = io::Error::last_os_error();
            Errno::from_io_error(&error).unwrap_or(Errno::IO)
        })
    }
}

impl BackingId {
    /// What a reply to an open names it by.
    pub(super) fn number(&self) -> i32 {
        self.id as i32
    }
}

impl Drop for BackingId {
    fn drop(&mut self) {
        // Without a device the mount has ended, and the kernel has let go of everything.
        if let Some(device) = self.device.upgrade()
            && let Err(error) = device.control(BACKING_CLOSE, &self.id)
        {
            tracing::debug!("a backing file is not let go of: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `_IOC` of asm-generic/ioctl.h.
    fn request(direction: libc::Ioctl, number: libc::Ioctl, size: usize) -> libc::Ioctl {
        (direction << 30) | ((size as libc::Ioctl) << 16) | (229 << 8) | number
    }

    #[test]
    fn requests_tell_the_kernel_the_size_of_their_operand() {
        assert_eq!(CLONE, request(2, 0, size_of::<u32>()));
        assert_eq!(BACKING_OPEN, request(1, 1, size_of::<abi::BackingMap>()));
        assert_eq!(BACKING_CLOSE, request(1, 2, size_of::<u32>()));
    }

    #[test]
    fn a_device_that_is_not_mounted_refuses() {
        let file = tempfile::tempfile().expect("a file");
        let device = Arc::new(Device::new(file.try_clone().expect("a descriptor").into()));
        assert_eq!(device.register(&file).expect_err("no device"), Errno::NOTTY);
    }
}
