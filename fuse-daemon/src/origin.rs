//! Finding back to the mount table that a serving process was started from.
//!
//! A process that serves leaves that table, because its presence there would keep the namespace
//! and every mount in it alive. A descriptor of the namespace would do the same, so none is kept:
//! only its number, by which `/proc` tells at the end who still lives in it. Nobody does if it is
//! gone, and then so is the mount.
#![expect(
    unsafe_code,
    reason = "unshare(2) is unsafe for what it can do to descriptors"
)]

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use cas::text::unmangle;
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags};
use rustix::mount::UnmountFlags;
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

/// A mount namespace, known by its number.
#[derive(Debug)]
pub struct Origin {
    proc: OwnedFd,
    inode: u64,
}

impl Origin {
    /// The namespace that this process is in. Fails where `/proc` is not mounted.
    pub fn here() -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = rustix::fs::openat(CWD, c"/proc", flags, Mode::empty())?;
        let inode = rustix::fs::statat(&proc, c"self/ns/mnt", AtFlags::empty())?.st_ino;
        Ok(Self { proc, inode })
    }

    /// Detaches every mount of a file system, named by its device number, from the namespace. The
    /// calling thread stays there, and must not return to other work.
    ///
    /// # Errors
    /// `NotFound` if no process lives in the namespace any more; else what the kernel refuses.
    pub fn detach(&self, device: (u32, u32)) -> io::Result<()> {
        self.enter()?;
        let mut table = Vec::new();
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.proc, c"thread-self/mountinfo", flags, Mode::empty())?;
        std::fs::File::from(file).read_to_end(&mut table)?;
        for path in mount_points(&table, device) {
            rustix::mount::unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
        }
        Ok(())
    }

    fn enter(&self) -> io::Result<()> {
        let namespace = self.find()?;
        // setns(2) refuses a mount namespace to whoever shares root and working directory with
        // other threads (fs/namespace.c, mntns_install).
        // SAFETY: CLONE_FS concerns this thread's root, working directory and umask only.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }?;
        rustix::thread::move_into_link_name_space(
            std::os::fd::AsFd::as_fd(&namespace),
            Some(LinkNameSpaceType::Mount),
        )?;
        Ok(())
    }

    fn find(&self) -> io::Result<OwnedFd> {
        for entry in Dir::read_from(&self.proc)?.flatten() {
            let name = entry.file_name().to_string_lossy();
            if !name.bytes().all(|byte| byte.is_ascii_digit()) {
                continue;
            }
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let link = format!("{name}/ns/mnt");
            let Ok(namespace) = rustix::fs::openat(&self.proc, link, flags, Mode::empty()) else {
                continue; // it has ended, or is none of ours to look at
            };
            if rustix::fs::fstat(&namespace).is_ok_and(|is| is.st_ino == self.inode) {
                return Ok(namespace);
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }
}

/// Where a file system is mounted according to `/proc/self/mountinfo`, the latest mount first: it
/// may lie on an earlier one.
fn mount_points(table: &[u8], (major, minor): (u32, u32)) -> Vec<PathBuf> {
    let device = format!("{major}:{minor}").into_bytes();
    let lines = table.split(|&byte| byte == b'\n').rev();
    let points = lines.filter_map(|line| {
        let mut fields = line.split(|&byte| byte == b' ');
        let is_ours = fields.nth(2)? == device;
        let path = fields.nth(1)?;
        is_ours.then(|| PathBuf::from(std::ffi::OsString::from_vec(unmangle(path))))
    });
    points.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_a_device_are_found_whatever_their_path_the_latest_first() {
        let table = b"21 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            30 21 0:42 / /mnt/a\\040b\\134c rw,relatime shared:1 - fuse.wakebox w rw\n\
            31 21 0:4 / /proc rw - proc proc rw\n\
            32 30 0:42 /sub /bound rw - fuse.wakebox w rw\n";
        let points = mount_points(table, (0, 42));
        assert_eq!(
            points,
            [PathBuf::from("/bound"), PathBuf::from("/mnt/a b\\c")]
        );
        assert!(mount_points(table, (0, 43)).is_empty());
    }
}
