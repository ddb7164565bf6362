//! The daemon's own mounts: how it reaches the store, and how little else it holds on to.
#![expect(unsafe_code, reason = "no crate offers mount_setattr(2)")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use cas::Store;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags,
};
use rustix::thread::UnshareFlags;

use crate::view::AtimePolicy;

/// `struct mount_attr` of linux/mount.h.
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Whether a descriptor is one of `/dev/fuse`. Reading a mounted one for the first time never waits:
/// the kernel has put a request there when it was mounted. What is not mounted is an error.
pub fn is_fuse(device: BorrowedFd<'_>) -> bool {
    // Misc devices, and FUSE_MINOR of linux/miscdevice.h.
    const FUSE: (u32, u32) = (10, 229);
    rustix::fs::fstat(device).is_ok_and(|is| {
        let number = (rustix::fs::major(is.st_rdev), rustix::fs::minor(is.st_rdev));
        rustix::fs::FileType::from_raw_mode(is.st_mode).is_char_device() && number == FUSE
    })
}

/// Whether a descriptor is of a `/proc`, whose files never keep a reader waiting.
pub fn is_proc(directory: BorrowedFd<'_>) -> bool {
    rustix::fs::fstatfs(directory).is_ok_and(|below| below.f_type == rustix::fs::PROC_SUPER_MAGIC)
}

/// A detached mount of a directory: reachable through the descriptor and in no other way.
pub fn detached_clone(directory: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(rustix::mount::open_tree(directory, c"", flags)?)
}

/// A detached, read-only mount of a directory.
///
/// The kernel opens the backing file of a passthrough inode itself: by path, with the *job's*
/// flags and the daemon's credentials. Neither the daemon's own read-only descriptor nor mode
/// 0444 would keep it from handing a job a writable blob. This mount does: the kernel's own open
/// fails with EROFS, whatever the daemon replies, and the job's with EIO.
pub fn read_only_clone(directory: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let clone = detached_clone(directory)?;
    set_attributes(
        clone.as_fd(),
        &MountAttr {
            attr_set: libc::MOUNT_ATTR_RDONLY,
            ..MountAttr::default()
        },
    )?;
    Ok(clone)
}

/// Says when reading moves access times, for a mount of the daemon's own that has a file or
/// directory of it open. Files that the kernel opens by passthrough go by the mount of the
/// descriptor that was registered, so a view's own option holds for what is read past the daemon.
pub fn set_atime(of: impl AsFd, policy: AtimePolicy) -> io::Result<()> {
    let attr_set = match policy {
        AtimePolicy::Never => libc::MOUNT_ATTR_NOATIME,
        AtimePolicy::Relative => libc::MOUNT_ATTR_RELATIME,
        AtimePolicy::Always => libc::MOUNT_ATTR_STRICTATIME,
    };
    set_attributes(
        of.as_fd(),
        &MountAttr {
            attr_set,
            attr_clr: libc::MOUNT_ATTR__ATIME,
            ..MountAttr::default()
        },
    )
}

fn set_attributes(mount: BorrowedFd<'_>, attributes: &MountAttr) -> io::Result<()> {
    // SAFETY: the path is a static C string, and `attributes` is a struct of the size given,
    // which the kernel only reads during the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            attributes as *const MountAttr,
            size_of::<MountAttr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Leaves the mount namespace of whoever started the daemon for one that holds nothing but
/// `/dev/fuse`. Otherwise the daemon would keep that namespace, and every file system in it,
/// alive for as long as it lives.
pub fn leave_namespace() -> io::Result<()> {
    let device = rustix::mount::open_tree(
        CWD,
        c"/dev/fuse",
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
    )?;
    // SAFETY: a new mount namespace changes no descriptors; no other thread exists yet that could
    // rely on the paths that go away.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change(c"/", private)?;
    let root = empty_root()?;
    attach(root.as_fd(), CWD, c"/dev")?;
    rustix::fs::mkdirat(&root, c"dev", Mode::from_raw_mode(0o755))?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::WRONLY;
    drop(rustix::fs::openat(
        &root,
        c"dev/fuse",
        flags,
        Mode::from_raw_mode(0o666),
    )?);
    attach(device.as_fd(), root.as_fd(), c"dev/fuse")?;
    rustix::process::fchdir(&root)?;
    rustix::process::pivot_root(c".", c".")?;
    rustix::mount::unmount(c".", UnmountFlags::DETACH)?;
    rustix::process::chdir(c"/")?;
    Ok(())
}

/// Opens the store, and lets go of everything else of the namespace that the caller came from but
/// one more directory. Without the privilege to mount there is nothing to let go of by mounts,
/// and no passthrough: whether there may be is the last of what is returned.
pub fn settle(store: BorrowedFd<'_>, directory: OwnedFd) -> cas::Result<(Store, OwnedFd, bool)> {
    let clones = || -> io::Result<_> {
        let blobs = read_only_clone(store)?;
        let staging = detached_clone(store)?;
        let directory = detached_clone(directory.as_fd())?;
        Ok((blobs, staging, directory))
    };
    match clones() {
        Ok((blobs, staging, directory)) => {
            if let Err(error) = leave_namespace() {
                tracing::info!("staying in the caller's mount namespace: {error}");
            }
            Ok((Store::from_descriptors(blobs, staging)?, directory, true))
        }
        Err(error) => {
            tracing::info!("no mounts of its own, so no passthrough: {error}");
            Ok((Store::from_descriptors(store, store)?, directory, false))
        }
    }
}

fn empty_root() -> io::Result<OwnedFd> {
    let tmpfs = rustix::mount::fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(&tmpfs)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(rustix::mount::fsmount(
        &tmpfs,
        FsMountFlags::FSMOUNT_CLOEXEC,
        attributes,
    )?)
}

fn attach(
    mount: BorrowedFd<'_>,
    directory: BorrowedFd<'_>,
    path: &std::ffi::CStr,
) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(rustix::mount::move_mount(
        mount, c"", directory, path, flags,
    )?)
}
