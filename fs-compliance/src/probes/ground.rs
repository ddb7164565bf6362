//! Where probes are run, what may be expected there, and as whom.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, StatVfsMountFlags, statvfs};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{DumpableBehavior, chdir, getegid, geteuid, set_dumpable_behavior, umask};
use rustix::thread::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::check::{Outcome, not_supported};
use super::process::in_child;
use super::raw;

/// A directory of the file system that is tried, and what may be expected of it.
#[derive(Debug, Clone)]
pub struct Ground {
    /// Where each probe gets a new directory. Other users need not reach it: probes work by names
    /// relative to their own directory.
    pub directory: PathBuf,
    /// A directory of another file system, if there is one.
    pub elsewhere: Option<PathBuf>,
    /// A directory of a file system of the tried kind that has at most
    /// [`SMALL`](Self::SMALL) bytes free. It is filled to the brim and emptied again.
    pub small: Option<PathBuf>,
    /// Whether the caller is root, so can be other users and make devices and mounts.
    pub root: bool,
    /// Whether device nodes can be opened there.
    pub dev: bool,
    /// Whether programs with set-user-ID run as their owner.
    pub suid: bool,
    /// When reading moves the time of last access.
    pub atime: Atime,
}

/// When reading moves the time of last access, by the options of the mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Atime {
    /// `noatime`, or a mount that is read-only.
    Never,
    /// `relatime`: if it is not later than that of the last change, or is a day old.
    Relative,
    /// `strictatime`.
    Always,
}

/// An ordinary user that nothing else in a probe belongs to, by number: no account is needed.
pub(super) const STRANGER: u32 = 65_534;
/// A group that neither root nor the stranger is in.
pub(super) const OTHER_GROUP: u32 = 65_432;

impl Ground {
    /// The most that may be free where [`small`](Self::small) lies, in bytes.
    pub const SMALL: u64 = 256 << 20;

    /// Asks the mount of `directory` what can be expected of it; nothing is tried.
    ///
    /// # Errors
    /// If `directory` cannot be reached.
    pub fn survey(directory: &Path) -> io::Result<Self> {
        let flags = statvfs(directory)?.f_flag;
        let atime = if flags.intersects(StatVfsMountFlags::NOATIME | StatVfsMountFlags::RDONLY) {
            Atime::Never
        } else if flags.contains(StatVfsMountFlags::RELATIME) {
            Atime::Relative
        } else {
            Atime::Always
        };
        Ok(Self {
            directory: directory.canonicalize()?,
            elsewhere: None,
            small: None,
            root: geteuid().is_root(),
            dev: !flags.contains(StatVfsMountFlags::NODEV),
            suid: !flags.contains(StatVfsMountFlags::NOSUID),
            atime,
        })
    }

    /// Does `work` in a new directory, in which every user may write, and removes it. What cannot
    /// be removed is a failure as well. Changes the directory and umask of this process.
    pub(super) fn on_plot(&self, name: &str, work: impl FnOnce() -> Outcome) -> Outcome {
        umask(Mode::from_raw_mode(0o022));
        let plot = self.directory.join(name);
        std::fs::create_dir(&plot)?;
        chdir(&plot)?;
        super::check::chmod(".", 0o777)?;
        let found = work();
        chdir("/")?;
        let removed = std::fs::remove_dir_all(&plot);
        found?;
        Ok(removed?)
    }

    pub(super) fn needs_root(&self) -> Outcome {
        if self.root {
            Ok(())
        } else {
            not_supported("needs root")
        }
    }

    pub(super) fn needs_elsewhere(&self) -> Outcome<&Path> {
        match &self.elsewhere {
            Some(directory) => Ok(directory),
            None => not_supported("needs a directory of another file system"),
        }
    }

    /// As an ordinary user: the stranger if we are root, else the caller.
    pub(super) fn as_ordinary(&self, work: impl FnOnce(Uid, Gid) -> Outcome) -> Outcome {
        if !self.root {
            return in_child(|| work(geteuid(), getegid()));
        }
        self.as_stranger(|| work(Uid::from_raw(STRANGER), Gid::from_raw(STRANGER)))
    }

    /// As a user to whom nothing belongs.
    pub(super) fn as_stranger(&self, work: impl FnOnce() -> Outcome) -> Outcome {
        self.as_stranger_in(&[], work)
    }

    /// As a user to whom nothing belongs, but who is in these groups.
    pub(super) fn as_stranger_in(&self, groups: &[u32], work: impl FnOnce() -> Outcome) -> Outcome {
        self.needs_root()?;
        in_child(|| {
            become_stranger(groups)?;
            work()
        })
    }

    /// In a mount namespace of its own, so that what is mounted is gone afterwards.
    pub(super) fn with_own_mounts(&self, work: impl FnOnce() -> Outcome) -> Outcome {
        self.needs_root()?;
        in_child(|| {
            if let Err(errno) = raw::unshare_mounts() {
                return not_supported(format_args!("needs a mount namespace: {errno}"));
            }
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            mount_change("/", private)?;
            work()
        })
    }
}

/// Makes this process, which must have one thread only, the stranger's.
pub(super) fn become_stranger(groups: &[u32]) -> Outcome {
    let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(STRANGER), Gid::from_raw(STRANGER));
    set_thread_groups(&groups)?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    // A change of user makes /proc/self root's, and with it the maps of a user namespace.
    Ok(set_dumpable_behavior(DumpableBehavior::Dumpable)?)
}
