//! One function per question. None says yes without having done it.

use std::ffi::{CStr, c_int};
use std::os::fd::AsRawFd;

use cas::Store;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};
use rustix::process::{Resource, getrlimit};

use super::Finding;
use crate::daemon::{Daemons, Lease};
use crate::error::Result;
use crate::sandbox::{Namespace, default_child_signal, reap, spawn};

/// The oldest kernel that all is tested with.
const KERNEL: (u32, u32) = (6, 9);

/// What a large job opens at once in the daemon, and a margin.
const DESCRIPTORS: u64 = 4096;

/// Room that a build should have, bytes.
const FREE: u64 = 1 << 30;

pub(super) fn kernel() -> Finding {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || {
        numbers
            .next()
            .and_then(|number| number.parse().ok())
            .unwrap_or(0)
    };
    let version: (u32, u32) = (next(), next());
    let found = format!("Linux {release}");
    let found = if version >= KERNEL {
        Ok(found)
    } else {
        Err(found)
    };
    Finding::new("kernel", found).or("Linux 6.9 is the oldest that is tested")
}

pub(super) fn user_namespaces() -> Finding {
    let why = |errno: Errno| {
        let setting = |name: &str| std::fs::read_to_string(format!("/proc/sys/{name}"));
        let is = |name, value: &str| setting(name).is_ok_and(|is| is.trim() == value);
        let sysctl = [
            ("user/max_user_namespaces", "0"),
            ("kernel/unprivileged_userns_clone", "0"),
            ("kernel/apparmor_restrict_unprivileged_userns", "1"),
        ];
        let cause = sysctl.into_iter().find(|(name, value)| is(name, value));
        match cause {
            Some((name, value)) => format!("{errno}: sysctl {} is {value}", name.replace('/', ".")),
            None => errno.to_string(),
        }
    };
    let made = within(&[Namespace::User, Namespace::Mount], || Ok(()));
    let found = made
        .map(|()| "made one, with a mount namespace".into())
        .map_err(why);
    let advice = "sandboxes are made of them: set the sysctl named, or in a container allow unshare \
                  (docker: --security-opt seccomp=unconfined --security-opt apparmor=unconfined)";
    Finding::new("user namespaces", found).needed().or(advice)
}

pub(super) fn pid_namespaces() -> Finding {
    let made = within(&[Namespace::User, Namespace::Pid], || Ok(()));
    let found = made
        .map(|()| "made one".into())
        .map_err(|errno| errno.to_string());
    let advice = "by them no process outlives its job: set sysctl user.max_pid_namespaces";
    Finding::new("pid namespaces", found).needed().or(advice)
}

pub(super) fn device() -> Finding {
    let found = open_device().map(|_| "/dev/fuse opened".into());
    let advice = "views need it: load the kernel's module 'fuse' and give it mode 0666, or in a \
                  container pass the device (docker: --device /dev/fuse)";
    Finding::new("fuse device", found.map_err(|errno| errno.to_string()))
        .needed()
        .or(advice)
}

pub(super) fn mount() -> Finding {
    let mounted = within(&[Namespace::User, Namespace::Mount], mount_fuse);
    let found = mounted.map(|()| "mounted in a user namespace".into());
    let advice = "views need it: in a container, allow the mount calls (docker: --cap-add SYS_ADMIN \
                  or --security-opt seccomp=unconfined)";
    Finding::new("fuse mount", found.map_err(|errno| errno.to_string()))
        .needed()
        .or(advice)
}

pub(super) fn overlay() -> Finding {
    let mounted = within(&[Namespace::User, Namespace::Mount], mount_overlay);
    let found = mounted.map(|()| "mounted in a user namespace".into());
    let advice = "costs nothing: wakebox has no use for it yet";
    Finding::new("overlayfs", found.map_err(|errno| errno.to_string())).or(advice)
}

fn open_device() -> rustix::io::Result<std::os::fd::OwnedFd> {
    rustix::fs::openat(
        CWD,
        c"/dev/fuse",
        OFlags::RDWR | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

fn mount_fuse() -> rustix::io::Result<()> {
    let device = open_device()?;
    let context = fsopen(c"fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, c"fd", device.as_raw_fd().to_string())?;
    fsconfig_set_string(&context, c"rootmode", c"40000")?;
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    fsconfig_set_string(&context, c"user_id", uid.as_raw().to_string())?;
    fsconfig_set_string(&context, c"group_id", gid.as_raw().to_string())?;
    fsconfig_create(&context)?;
    let flags = MountAttrFlags::empty();
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags).map(drop)
}

fn mount_overlay() -> rustix::io::Result<()> {
    let context = fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, c"lowerdir", c"/usr:/etc")?;
    fsconfig_create(&context)?;
    let flags = MountAttrFlags::empty();
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags).map(drop)
}

/// Does something in new namespaces, as the user that we are.
fn within(
    namespaces: &[Namespace],
    body: impl FnOnce() -> rustix::io::Result<()>,
) -> rustix::io::Result<()> {
    let line = |id: u32| format!("{id} {id} 1\n").into_bytes();
    let user = line(rustix::process::geteuid().as_raw());
    let group = line(rustix::process::getegid().as_raw());
    default_child_signal();
    let (pid, _) = spawn(namespaces.iter().copied(), move || {
        let done = write(c"/proc/self/setgroups", b"deny")
            .and_then(|()| write(c"/proc/self/uid_map", &user))
            .and_then(|()| write(c"/proc/self/gid_map", &group))
            .and_then(|()| body());
        done.map_or_else(Errno::raw_os_error, |()| 0)
    })?;
    let end: c_int = reap(Some(pid))?.status;
    match (libc::WIFEXITED(end), libc::WEXITSTATUS(end)) {
        (true, 0) => Ok(()),
        (true, errno) => Err(Errno::from_raw_os_error(errno)),
        (false, _) => Err(Errno::CHILD),
    }
}

fn write(path: &CStr, bytes: &[u8]) -> rustix::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
    rustix::io::write(&file, bytes).map(drop)
}

pub(super) fn descriptors() -> Finding {
    let most = getrlimit(Resource::Nofile).maximum;
    let found = most.map_or("no limit".into(), |most| format!("{most} (hard limit)"));
    let enough = most.is_none_or(|most| most >= DESCRIPTORS);
    let found = if enough { Ok(found) } else { Err(found) };
    Finding::new("descriptors", found)
        .or("jobs that open many files at once get EMFILE: raise the hard limit, `ulimit -Hn`")
}

pub(super) fn watches() -> Finding {
    let limit = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/fs/inotify/{name}"));
        text.ok().and_then(|text| text.trim().parse::<u64>().ok())
    };
    let found = match (limit("max_user_watches"), limit("max_user_instances")) {
        (Some(watches), Some(instances)) if watches >= 8192 && instances >= 64 => {
            Ok(format!("{watches} watches, {instances} instances"))
        }
        (Some(watches), Some(instances)) => {
            Err(format!("{watches} watches, {instances} instances"))
        }
        _ => Err("the kernel has none".into()),
    };
    Finding::new("inotify", found)
        .or("jobs that watch files get ENOSPC or EMFILE: set sysctl fs.inotify.max_user_*")
}

pub(super) fn store(store: &Store) -> Vec<Finding> {
    let reflinks = reflink(store).map(|()| "made one".into());
    let place = match store.network() {
        Some(kind) => Err(format!("{} is on {kind}", store.root().display())),
        None => Ok(format!("{} is on this host", store.root().display())),
    };
    vec![
        Finding::new("store", place)
            .or("slower, and `wakebox gc` does not see jobs of other hosts: give --store DIR"),
        space(store),
        Finding::new("reflinks", reflinks.map_err(|errno| errno.to_string()))
            .or("copies into and out of the store move all bytes: use btrfs, XFS or bcachefs"),
    ]
}

fn reflink(store: &Store) -> cas::Result<()> {
    let staging = store.new_staging("doctor")?;
    let (_from, mut file) = staging.create_file(OFlags::RDWR)?;
    let failed = |error| cas::Error::io("clone a file in", store.root(), error);
    std::io::Write::write_all(&mut file, &[0; 4096]).map_err(failed)?;
    let (_to, clone) = staging.create_file(OFlags::RDWR)?;
    rustix::fs::ioctl_ficlone(&clone, &file).map_err(|errno| failed(errno.into()))
}

fn space(store: &Store) -> Finding {
    let found = match rustix::fs::fstatvfs(store.staging()) {
        Err(errno) => Err(errno.to_string()),
        Ok(is) => {
            let free = is.f_bavail.saturating_mul(is.f_frsize);
            let found = format!(
                "{} free, {} inodes",
                indicatif::HumanBytes(free),
                is.f_favail
            );
            if free >= FREE { Ok(found) } else { Err(found) }
        }
    };
    Finding::new("space", found).or("`wakebox gc --max-size SIZE` makes room")
}

/// Those that do not answer, and what dead ones have left.
pub(super) fn daemons(daemons: &Daemons) -> Result<Vec<Finding>> {
    let (mut answer, mut stuck, mut stale) = (0, Vec::new(), 0);
    for socket in daemons.runtime.sockets()? {
        match Lease::at(&socket).map(|lease| (lease.status().is_ok(), lease.pid())) {
            None => stale += 1,
            Some((true, _)) => answer += 1,
            Some((false, pid)) => stuck.push(pid.unwrap_or(0).to_string()),
        }
    }
    let found = match stuck.is_empty() {
        true => Ok(format!("{answer} running")),
        false => Err(format!("process {} does not answer", stuck.join(", "))),
    };
    let left = match stale {
        0 => Ok("no sockets of dead daemons".into()),
        _ => Err(format!("{stale} in {}", daemons.runtime.path().display())),
    };
    Ok(vec![
        Finding::new("daemons", found)
            .or("jobs of its store fail: `kill -CONT` or `kill -KILL` it"),
        Finding::new("stale sockets", left)
            .or("costs nothing: the next job of that store replaces its socket"),
    ])
}
