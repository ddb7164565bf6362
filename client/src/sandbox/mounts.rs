//! Mounts, mount points and the root of a job, inside its namespaces.
//!
//! Every mount is made detached and then attached to a descriptor of its mount point. So a new
//! root needs no directory on the host: what is to be the root is attached on top of the old
//! one, where nobody sees it, and is known by its descriptor. Sources are found in the old root,
//! mount points in the new one, with its symbolic links kept inside (`RESOLVE_IN_ROOT`).

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    CWD, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, open, openat, openat2, symlinkat,
};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree, unmount,
};
use rustix::process::{chdir, fchdir, pivot_root};

use super::apply::{Depth, make_read_only};
use super::prepare::{Bind, Entry, Target};
use super::report::{At, Failure, Stage};

/// What the kernel lets root of the machine write in `/proc`, without any capability.
const GUARDED: [&CStr; 10] = [
    c"acpi",
    c"bus",
    c"driver",
    c"dynamic_debug",
    c"fs",
    c"irq",
    c"mtrr",
    c"scsi",
    c"sys",
    c"sysrq-trigger",
];

/// Mode of what is created, before the umask.
const CREATED: Mode = Mode::from_raw_mode(0o777);

/// Where mount points are looked for.
#[derive(Debug, Default)]
pub(super) struct Root {
    /// The new root, once there is one: the uppermost of those attached over the old.
    new: Option<OwnedFd>,
    proc: Option<Proc>,
}

/// A `/proc` of the job's own.
#[derive(Debug)]
struct Proc {
    mount: OwnedFd,
    is_attached: bool,
}

impl Root {
    /// Attaches a detached mount. One whose target is the root is the new root from now on.
    pub(super) fn attach(&mut self, mount: &OwnedFd, target: &Target) -> Result<(), Failure> {
        if !target.is_root {
            let point = self.find(&target.path, OFlags::empty());
            return place_at(mount, &point.at(Stage::MountPoint)?).at(Stage::Attach);
        }
        match &self.new {
            Some(root) => place(mount, root.as_fd()),
            None => place_on_root(mount),
        }
        .at(Stage::Attach)?;
        self.new = Some(fcntl_dupfd_cloexec(mount, 0).at(Stage::Attach)?);
        Ok(())
    }

    /// A descriptor that does no more than name a file.
    fn find(&self, path: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::PATH | OFlags::CLOEXEC;
        let Some(root) = &self.new else {
            return open(path, flags, Mode::empty());
        };
        loop {
            match openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
                // Somebody on this machine renamed something while we were at a `..`.
                Err(Errno::AGAIN) => {}
                found => return found,
            }
        }
    }

    /// Whether there is such a directory.
    pub(super) fn has(&self, path: &CStr) -> bool {
        self.find(path, OFlags::DIRECTORY).is_ok()
    }

    /// Creates directories, each in the one before it; those that exist are fine.
    pub(super) fn create_directories(&self, path: &[Entry]) -> Result<(), Errno> {
        for entry in path {
            let parent = self.find(&entry.parent, OFlags::DIRECTORY)?;
            match mkdirat(&parent, &entry.name, CREATED) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
        }
        let Some(last) = path.last() else {
            return Ok(());
        };
        self.find(&last.path, OFlags::DIRECTORY).map(drop)
    }

    /// Creates an empty file; one that exists stays as it is.
    pub(super) fn create_file(&self, entry: &Entry) -> Result<(), Errno> {
        let parent = self.find(&entry.parent, OFlags::DIRECTORY)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        match openat(&parent, &entry.name, flags, CREATED) {
            Ok(_) => Ok(()),
            Err(Errno::EXIST) => self.must_be_no_directory(&entry.path),
            Err(errno) => Err(errno),
        }
    }

    /// Creates a symbolic link; whatever has that name stays as it is.
    pub(super) fn create_symlink(&self, target: &CStr, entry: &Entry) -> Result<(), Errno> {
        let parent = self.find(&entry.parent, OFlags::DIRECTORY)?;
        match symlinkat(target, &parent, &entry.name) {
            Err(Errno::EXIST) => Ok(()),
            created => created,
        }
    }

    /// Makes the new root itself read-only.
    pub(super) fn seal(&self) -> Result<(), Errno> {
        match &self.new {
            Some(root) => make_read_only(root.as_fd(), Depth::One),
            None => Ok(()),
        }
    }

    fn must_be_no_directory(&self, path: &CStr) -> Result<(), Errno> {
        let found = fstat(self.find(path, OFlags::empty())?)?;
        if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
            return Err(Errno::ISDIR);
        }
        Ok(())
    }

    /// Covers a directory with an empty one; what is no directory needs no covering.
    pub(super) fn hide(&self, path: &CStr) -> Result<(), Errno> {
        let point = match self.find(path, OFlags::DIRECTORY) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            found => found?,
        };
        let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        place(&new_mount(c"tmpfs", c"0555", attributes)?, point.as_fd())
    }

    /// Mounts a `/proc` of the job's own; returns the one that it has in the end. The kernel refuses
    /// one where the old one is partly covered, as in containers (`mount_too_revealing`); a job then
    /// sees the old one, as it does in the original. Of processes outside it shows what ps(1) does:
    /// for more, the kernel asks for rights over their user namespace.
    pub(super) fn mount_proc(&mut self, required: bool) -> Result<Option<OwnedFd>, Errno> {
        let point = match self.find(c"/proc", OFlags::DIRECTORY) {
            Err(Errno::NOENT | Errno::NOTDIR) if !required => return Ok(None),
            found => found?,
        };
        let mount = match self.unattached_proc() {
            Err(Errno::PERM | Errno::BUSY) if self.new.is_none() => return Ok(Some(point)),
            Err(Errno::PERM | Errno::BUSY) => copy_tree(c"/proc"),
            made => made,
        }?;
        place(&mount, point.as_fd()).map(|()| Some(mount))
    }

    /// A `/proc` of the job's own that is attached nowhere. The job's processes are seen in it, too,
    /// when it is.
    fn unattached_proc(&mut self) -> Result<OwnedFd, Errno> {
        let mount = match self.proc.take() {
            Some(Proc {
                mount,
                is_attached: false,
            }) => mount,
            _ => new_proc()?,
        };
        let same = fcntl_dupfd_cloexec(&mount, 0)?;
        self.proc = Some(Proc {
            mount: same,
            is_attached: true,
        });
        Ok(mount)
    }

    /// The `/proc` of the job's own, made now if need be; `None` where the kernel refuses one.
    pub(super) fn processes(&mut self) -> Option<BorrowedFd<'_>> {
        if self.proc.is_none() {
            let mount = new_proc().ok()?;
            self.proc = Some(Proc {
                mount,
                is_attached: false,
            });
        }
        self.proc.as_ref().map(|proc| proc.mount.as_fd())
    }

    /// Makes the new root, if there is one, the only one. The old one is put on top of it for a
    /// moment, as pivot_root(2) shows, and then detached.
    pub(super) fn enter(&self) -> Result<(), Errno> {
        let Some(root) = &self.new else { return Ok(()) };
        fchdir(root)?;
        pivot_root(c".", c".")?;
        unmount(c".", UnmountFlags::DETACH)?;
        chdir(c"/")
    }
}

/// A copy of a file or of a directory and all that is mounted below it, attached nowhere.
/// Always recursive: in a user namespace the kernel refuses to uncover anything.
pub(super) fn copy(bind: &Bind) -> Result<OwnedFd, Failure> {
    if let Some(early) = bind.early.take() {
        return Ok(early);
    }
    let tree = copy_tree(&bind.source).at(Stage::BindSource)?;
    if bind.read_only {
        make_read_only(tree.as_fd(), Depth::All).at(Stage::ReadOnly)?;
    }
    Ok(tree)
}

fn copy_tree(source: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    open_tree(CWD, source, flags)
}

/// Covers what does not belong to processes with read-only mounts of itself. Once they are locked,
/// the kernel lets nobody inside mount a `/proc` without them.
pub(super) fn guard_proc(proc: BorrowedFd<'_>) -> Result<(), Errno> {
    for name in GUARDED {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let point = match openat(proc, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => continue,
            found => found?,
        };
        // With what a container has mounted there, which the kernel would not uncover.
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH
            | OpenTreeFlags::AT_RECURSIVE;
        let copy = open_tree(&point, c"", flags)?;
        make_read_only(copy.as_fd(), Depth::All)?;
        place(&copy, point.as_fd())?;
    }
    Ok(())
}

/// Terminals of the job's own, attached nowhere. Their `ptmx` is for everybody inside.
pub(super) fn terminals() -> Result<OwnedFd, Errno> {
    let context = fsopen(c"devpts", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in [
        (c"source", c"wakebox"),
        (c"mode", c"620"),
        (c"ptmxmode", c"666"),
    ] {
        fsconfig_set_string(&context, key, value)?;
    }
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// An empty file system in memory, attached nowhere. The root of a job looks like a root.
pub(super) fn tmpfs(is_root: bool) -> Result<OwnedFd, Errno> {
    let mode = if is_root { c"0755" } else { c"1777" };
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    new_mount(c"tmpfs", mode, attributes)
}

fn new_proc() -> Result<OwnedFd, Errno> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    new_mount(c"proc", c"", attributes)
}

fn new_mount(kind: &CStr, mode: &CStr, attributes: MountAttrFlags) -> Result<OwnedFd, Errno> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, c"source", c"wakebox")?;
    if !mode.is_empty() {
        fsconfig_set_string(&context, c"mode", mode)?;
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// The kernel says `EINVAL` to many things; the commonest is told apart.
fn place_at(mount: &OwnedFd, point: &OwnedFd) -> Result<(), Errno> {
    let is_directory = |file: &OwnedFd| {
        let found = fstat(file)?.st_mode;
        Ok::<_, Errno>(FileType::from_raw_mode(found) == FileType::Directory)
    };
    match place(mount, point.as_fd()) {
        Err(Errno::INVAL) if is_directory(mount)? != is_directory(point)? => Err(Errno::NOTDIR),
        placed => placed,
    }
}

fn place(mount: &OwnedFd, point: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, c"", point, c"", flags)
}

fn place_on_root(mount: &OwnedFd) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(mount, c"", CWD, c"/", flags)
}
