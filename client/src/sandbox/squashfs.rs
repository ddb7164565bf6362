//! Images, mounted inside the namespaces of the job and served by a `squashfuse` of the client's.
//!
//! The kernel lets nobody but the real root mount a squashfs, so it is a FUSE mount. It is made
//! here and not by squashfuse, which gets the device as its standard input and is told so by the
//! mount point `/dev/fd/0` (fuse_session_mount of libfuse 3.3). So nothing has to be found out by
//! looking again and again: the first question to the mount is answered when squashfuse serves,
//! and fails when it has ended.

use std::ffi::c_int;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, fstat, open};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use rustix::process::Pid;
use rustix::stdio::dup2_stdin;
use rustix::thread::set_no_new_privs;

use super::apply::{close_all_on_exec, default_signals, execute, reap, vfork};
use super::command::{CANNOT_RUN, NOT_FOUND, drop_capabilities, is_missing};
use super::prepare::Image;
use super::report::{At, Failure, Stage};
use super::view::{FuseOptions, make};

/// A served mount of an image, attached nowhere.
pub(super) fn mount(image: &Image) -> Result<OwnedFd, Failure> {
    let device = open(c"/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    let device = device.at(Stage::OpenFuse)?;
    let options = FuseOptions {
        subtype: c"squashfuse",
        user_id: &image.user_id,
        group_id: &image.group_id,
        default_permissions: false,
        allow_other: false,
        attributes: MountAttrFlags::MOUNT_ATTR_RDONLY
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV,
    };
    let detached = make(&options, device.as_fd())?;
    let server = vfork(|| serve(image, device.as_fd())).at(Stage::Fork)?;
    // The server's is now the only one: its death ends the connection, and our question with it.
    drop(device);
    if fstat(&detached).is_err() {
        return Err(gone(server));
    }
    image.served_by.set(Some(server));
    Ok(detached)
}

/// Why the server of an image ended: its exit code stands in for an errno.
fn gone(server: Pid) -> Failure {
    let status = reap(Some(server)).map_or(0, |ended| ended.status);
    Failure {
        errno: libc::WEXITSTATUS(status),
        ..Failure::without_errno(Stage::ImageNotServed)
    }
}

fn serve(image: &Image, device: BorrowedFd<'_>) -> c_int {
    default_signals();
    if get_ready(device).is_err() {
        return CANNOT_RUN;
    }
    let errno = execute(&image.program, &image.argv, &image.env);
    if is_missing(errno) {
        NOT_FOUND
    } else {
        CANNOT_RUN
    }
}

/// It is a program of the host that reads a file that anybody may have made.
fn get_ready(device: BorrowedFd<'_>) -> Result<(), Errno> {
    set_no_new_privs(true)?;
    drop_capabilities()?;
    dup2_stdin(device)?;
    close_all_on_exec()
}
