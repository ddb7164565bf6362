//! What is asked of the kernel: a new mount, its attachment, other flags.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, XattrFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
};

use super::options::{Options, atime_policy, attributes, flags_of};
use crate::error::{Error, Result};

/// Tells the process that serves when times of access move: FUSE leaves them to it (the kernel
/// marks all its inodes S_NOATIME, fs/fuse/inode.c) and does not pass the mount's flags on.
const ATIME_ATTRIBUTE: &str = "trusted.wakebox.atime";

/// Flags that belong to the file system, by the words that fsconfig(2) has for them.
const OF_FILE_SYSTEM: [(MountFlags, &str); 2] = [
    (MountFlags::RDONLY, "ro"),
    (MountFlags::SYNCHRONOUS, "sync"),
];

/// A new file system with a mount that is attached nowhere, and the device that serves it.
#[derive(Debug)]
pub(super) struct Detached {
    /// The mount. When it is dropped unattached, the file system ends.
    pub(super) mount: OwnedFd,
    /// `/dev/fuse`. As long as we have it, the death of the process that serves goes unnoticed.
    pub(super) device: OwnedFd,
    /// Device number of the file system.
    pub(super) number: (u32, u32),
}

/// Makes a file system that is attached nowhere yet.
pub(super) fn make(source: &OsStr, options: &Options) -> Result<Detached> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let device = rustix::fs::openat(CWD, "/dev/fuse", flags, Mode::empty());
    let device = device.map_err(|errno| {
        let hint = match errno {
            Errno::ACCESS | Errno::PERM => "; this user may not, and its mode should be 0666",
            _ => "; is the kernel's module 'fuse' loaded?",
        };
        let error = io::Error::from(errno);
        Error::Mount(format!("cannot open /dev/fuse: {error}{hint}"))
    })?;
    let mount = configured(source, options, device.as_fd()).map_err(explain)?;
    // Asks for nothing but what the kernel knows by itself: nobody serves yet.
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let is = rustix::fs::statx(&mount, "", flags, StatxFlags::empty()).map_err(explain)?;
    let number = (is.stx_dev_major, is.stx_dev_minor);
    Ok(Detached {
        mount,
        device,
        number,
    })
}

fn configured(
    source: &OsStr,
    options: &Options,
    device: BorrowedFd<'_>,
) -> std::result::Result<OwnedFd, Errno> {
    let context = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let set = |key: &str, value: &[u8]| {
        let value = CString::new(value).map_err(|_| Errno::INVAL)?;
        fsconfig_set_string(&context, key, value)
    };
    set("source", source.as_bytes())?;
    if !options.plain_type {
        set("subtype", b"wakebox")?;
    }
    set("fd", device.as_raw_fd().to_string().as_bytes())?;
    set("rootmode", b"40000")?; // S_IFDIR, in octal
    set(
        "user_id",
        rustix::process::geteuid().as_raw().to_string().as_bytes(),
    )?;
    set(
        "group_id",
        rustix::process::getegid().as_raw().to_string().as_bytes(),
    )?;
    // The kernel knows all groups and capabilities of a caller; a request names one of each.
    fsconfig_set_flag(&context, "default_permissions")?;
    // A mount of root's is for everyone, as those of other file systems are.
    if rustix::process::geteuid().is_root() || options.allow_other {
        fsconfig_set_flag(&context, "allow_other")?;
    }
    for (_, word) in OF_FILE_SYSTEM
        .iter()
        .filter(|(flag, _)| options.flags().contains(*flag))
    {
        fsconfig_set_flag(&context, *word)?;
    }
    fsconfig_create(&context)?;
    fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        attributes(options.flags()),
    )
}

fn explain(errno: Errno) -> Error {
    Error::Mount(match errno {
        Errno::PERM | Errno::ACCESS => "this user may not mount; do it as root, or in a namespace \
            of your own: unshare --user --map-root-user --mount wakebox mount ..."
            .into(),
        Errno::NODEV => "the kernel has no FUSE; load its module 'fuse'".into(),
        _ => format!("cannot make the mount: {}", io::Error::from(errno)),
    })
}

/// Opens the directory to mount on.
pub(super) fn mount_point(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = || {
        let directory = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
        // A mount whose server has died lies there as if it lived, until it is asked.
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC;
        rustix::fs::statx(&directory, "", flags, StatxFlags::BASIC_STATS)?;
        Ok(directory)
    };
    open().map_err(|errno| cannot("mount on", path, errno))
}

/// Attaches a mount that is being served, and has one request answered: whoever comes next finds
/// a file system that works.
pub(super) fn attach(mount: OwnedFd, directory: OwnedFd, path: &Path) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    let moved = move_mount(&mount, "", &directory, "", flags);
    moved.map_err(|errno| cannot("mount on", path, errno))?;
    drop((mount, directory));
    rustix::fs::stat(path).map(drop).map_err(|errno| {
        let _ = rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        cannot("use the new mount", path, errno)
    })
}

/// Changes the flags of a mount and of its file system; those that no option speaks of stay.
pub(super) fn remount(path: &Path, options: &Options) -> Result<()> {
    let failed = |errno| cannot("remount", path, errno);
    let now = flags_of(rustix::fs::statvfs(path).map_err(failed)?.f_flag);
    let wanted = options.apply(now);
    // The file system must be able to take note, which it is not once it is read-only.
    tell_atime_policy(path, wanted);
    rustix::mount::mount_remount(path, wanted, c"").map_err(failed)?;
    if now.contains(MountFlags::RDONLY) {
        tell_atime_policy(path, wanted);
    }
    Ok(())
}

/// Tells the process that serves about the flags of a new mount.
pub(super) fn announce(path: &Path) {
    if let Ok(is) = rustix::fs::statvfs(path) {
        tell_atime_policy(path, flags_of(is.f_flag));
    }
}

/// Where it cannot be told (a read-only file system, a user without the privilege for trusted
/// attributes) the usual policy holds, which is no failure of a mount.
fn tell_atime_policy(path: &Path, flags: MountFlags) {
    let policy = atime_policy(flags);
    let told = rustix::fs::setxattr(
        path,
        ATIME_ATTRIBUTE,
        policy.as_bytes(),
        XattrFlags::empty(),
    );
    if let Err(errno) = told {
        tracing::debug!("the policy for atime is not taken: {errno}");
    }
}

/// What the kernel refuses, in one line, and what can be done about it.
pub(super) fn cannot(what: &str, path: &Path, errno: Errno) -> Error {
    let hint = match errno {
        Errno::NOTCONN | Errno::CONNABORTED => "; a dead mount lies there: unmount it first",
        Errno::PERM | Errno::ACCESS => "; this user may not",
        Errno::BUSY => "; files of it are open for writing",
        Errno::INVAL => "; is anything mounted there?",
        _ => "",
    };
    let error = io::Error::from(errno);
    Error::Mount(format!("cannot {what} {}: {error}{hint}", path.display()))
}
