//! Mounting the daemon's view, inside the namespaces of the job.
//!
//! The order is what matters. `/dev/fuse` is opened in the user namespace that mounts it, or
//! the kernel answers `EINVAL` (`fuse_fill_super` compares the opener's namespace). The
//! descriptor is given to the daemon, and ours closed, before anything touches the mount:
//! a copy kept here would keep the connection alive after the daemon's death, and whoever
//! uses the mount would wait for ever instead of getting `ENOTCONN`.

use std::ffi::CStr;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, fstat, open};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, open_tree,
};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, sendmsg};
use rustix::path::DecInt;

use super::Serve;
use super::apply::close_in_child;
use super::mounts::Root;
use super::prepare::{Target, View};
use super::report::{At, Failure, Stage, Words};

/// Longest answer of the daemon that is read, in bytes.
const ANSWER: usize = 4096;

/// Mounts the view, has it served, and attaches it to its destinations; returns the first of
/// these mounts. What a daemon says when it refuses is left in `refusal`.
///
/// # Errors
/// The first call that failed, or the refusal.
pub(super) fn mount(
    view: &View<'_>,
    root: &mut Root,
    refusal: &mut Words,
) -> Result<OwnedFd, Failure> {
    let device = open(c"/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    let device = device.at(Stage::OpenFuse)?;
    let options = FuseOptions {
        subtype: c"wakebox",
        user_id: &view.user_id,
        group_id: &view.group_id,
        default_permissions: view.default_permissions,
        allow_other: view.allow_other,
        attributes: MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV,
    };
    let mount = make(&options, device.as_fd())?;
    hand_over(view.serve, device.as_fd(), root.processes(), refusal)?;
    drop(device);
    close_in_child(view.serve.socket);
    // Until the kernel has asked for the root's attributes, the root belongs to user 0. Where
    // that user is mapped to none, nothing can be made in it (`HAS_UNMAPPED_ID`: EACCES).
    // A daemon that is gone by now is noticed by the client.
    let _asked = fstat(&mount);
    attach(&mount, view, root)?;
    Ok(mount)
}

/// What a FUSE file system is mounted with.
#[derive(Debug)]
pub(super) struct FuseOptions<'a> {
    pub(super) subtype: &'a CStr,
    pub(super) user_id: &'a CStr,
    pub(super) group_id: &'a CStr,
    pub(super) default_permissions: bool,
    pub(super) allow_other: bool,
    pub(super) attributes: MountAttrFlags,
}

/// A mount of a new superblock, attached nowhere.
pub(super) fn make(options: &FuseOptions<'_>, device: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    let context = fsopen(c"fuse", FsOpenFlags::FSOPEN_CLOEXEC).at(Stage::FuseContext)?;
    configure(options, context.as_fd(), device).at(Stage::FuseOption)?;
    fsconfig_create(&context).at(Stage::FuseCreate)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, options.attributes).at(Stage::FuseMount)
}

fn configure(
    options: &FuseOptions<'_>,
    context: BorrowedFd<'_>,
    device: BorrowedFd<'_>,
) -> Result<(), Errno> {
    let set = |key: &CStr, value: &CStr| fsconfig_set_string(context, key, value);
    set(c"source", c"wakebox")?;
    set(c"subtype", options.subtype)?;
    // As a string: kernels before 6.10 do not take the descriptor itself for this key.
    fsconfig_set_string(context, c"fd", DecInt::from_fd(device))?;
    // S_IFDIR, in octal.
    set(c"rootmode", c"40000")?;
    set(c"user_id", options.user_id)?;
    set(c"group_id", options.group_id)?;
    if options.default_permissions {
        fsconfig_set_flag(context, c"default_permissions")?;
    }
    if options.allow_other {
        fsconfig_set_flag(context, c"allow_other")?;
    }
    Ok(())
}

/// Gives the daemon the other end of the mount, and where it finds those who ask for something,
/// and waits until it says that it serves it.
fn hand_over(
    serve: Serve<'_>,
    device: BorrowedFd<'_>,
    processes: Option<BorrowedFd<'_>>,
    refusal: &mut Words,
) -> Result<(), Failure> {
    match processes {
        Some(processes) => send_devices(serve, &[device, processes]),
        None => send_devices(serve, &[device]),
    }
    .at(Stage::SendView)?;
    let mut answer = [0; ANSWER];
    let length = receive(serve.socket, &mut answer).at(Stage::AwaitDaemon)?;
    let answer = answer.get(..length).unwrap_or_default();
    if answer == serve.ack {
        return Ok(());
    }
    if answer.is_empty() {
        return Err(Failure::without_errno(Stage::DaemonGone));
    }
    *refusal = Words::from_start_of(answer);
    Err(Failure::without_errno(Stage::Refused))
}

fn send_devices(serve: Serve<'_>, devices: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(devices)) {
        return Err(Errno::NOBUFS);
    }
    let data = [IoSlice::new(serve.request)];
    sendmsg(serve.socket, &data, &mut ancillary, SendFlags::NOSIGNAL).map(drop)
}

/// Waits first: the socket is the client's, which may have made it non-blocking.
fn receive(socket: BorrowedFd<'_>, answer: &mut [u8]) -> Result<usize, Errno> {
    poll(&mut [PollFd::from_borrowed_fd(socket, PollFlags::IN)], None)?;
    match recv(socket, answer, RecvFlags::empty()) {
        // A daemon that dies with our request unread.
        Err(Errno::CONNRESET) => Ok(0),
        other => other.map(|(length, _full_length)| length),
    }
}

/// The mount itself goes to the first destination, clones of it to the others. They are
/// cloned once it is attached: cloning a detached mount needs Linux 6.15.
fn attach(mount: &OwnedFd, view: &View<'_>, root: &mut Root) -> Result<(), Failure> {
    for (item, destination) in view.destinations.iter().enumerate() {
        let placed = if item == 0 {
            root.attach(mount, destination)
        } else {
            attach_again(mount, destination, root)
        };
        placed.map_err(|failure| Failure { item, ..failure })?;
    }
    Ok(())
}

/// Attaches the mount of a view, which is attached already, at one more place.
pub(super) fn attach_again(
    mount: &OwnedFd,
    destination: &Target,
    root: &mut Root,
) -> Result<(), Failure> {
    let copy = clone_mount(mount.as_fd()).at(Stage::Attach)?;
    root.attach(&copy, destination)
}

fn clone_mount(mount: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(mount, c"", flags)
}
