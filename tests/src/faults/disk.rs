//! A file system that fails when told to, and knows what a power failure would take: a directory of
//! another one, passed on by FUSE.

mod served;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fuser::{Config, Session, SessionACL};
use rustix::fs::{Mode, OFlags};
use served::Served;

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// With what.
    pub errno: i32,
    /// From the how many-th operation on, counted from 0.
    pub from: u64,
    /// How many operations fail: one, or `u64::MAX` for all from then on.
    pub count: u64,
    /// Whether only operations count that need room: making, writing, growing.
    pub only_room: bool,
}

/// What would be lost in a power failure, by the rules of POSIX: bytes until their file is flushed,
/// names until their directory is.
#[derive(Clone, Debug, Default)]
pub struct Unflushed {
    bytes: BTreeSet<u64>,
    /// By directory, which files have a new name there.
    names: BTreeMap<u64, BTreeSet<u64>>,
}

#[derive(Debug, Default)]
struct State {
    fault: Option<Fault>,
    operations: u64,
    unflushed: Unflushed,
    /// What was unflushed at the moment when a name appeared that is watched.
    at_watched: Option<Unflushed>,
    watched: Option<String>,
}

/// A mounted file system. The mount belongs to whoever mounts in a namespace of their own, and ends
/// with it.
#[derive(Clone, Debug)]
pub struct Disk {
    state: Arc<Mutex<State>>,
}

impl Disk {
    /// Mounts `below` at `at`, from where it can be seen by this process's mount namespace.
    ///
    /// # Errors
    /// Whoever is not root may not.
    pub fn mount(below: &Path, at: &Path) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let device = rustix::fs::open("/dev/fuse", flags, Mode::empty())?;
        let options = format!(
            "fd={},rootmode=40755,user_id=0,group_id=0,allow_other",
            device.as_raw_fd()
        );
        let options = std::ffi::CString::new(options)?;
        let none = rustix::mount::MountFlags::empty();
        rustix::mount::mount("disk", at, "fuse", none, Some(&*options))?;
        let disk = Self {
            state: Arc::default(),
        };
        let served = Served::new(disk.state.clone(), below.into());
        let session = Session::from_fd(served, device, SessionACL::All, Config::default())?;
        std::thread::spawn(move || session.run());
        Ok(disk)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, operations are counted from 0 and fail as told.
    pub fn set_fault(&self, fault: Option<Fault>) {
        let mut state = self.state();
        (state.fault, state.operations) = (fault, 0);
    }

    /// Operations since the fault was set; with one that is about room, those that need some.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Notes what is unflushed when this name appears in any directory.
    pub fn watch(&self, name: &str) {
        let mut state = self.state();
        (state.watched, state.at_watched) = (Some(name.into()), None);
    }

    /// What was unflushed when the watched name appeared.
    pub fn at_watched(&self) -> Option<Unflushed> {
        self.state().at_watched.clone()
    }

    /// What is unflushed now.
    pub fn unflushed(&self) -> Unflushed {
        self.state().unflushed.clone()
    }
}

impl Unflushed {
    /// Whether the bytes of a file are.
    pub fn has_bytes(&self, path: &Path) -> bool {
        self.bytes.contains(&number(path))
    }

    /// The first of a path's names that is, counted from the file up to `root`.
    pub fn name<'p>(&self, path: &'p Path, root: &Path) -> Option<&'p Path> {
        let mut names = path.ancestors().take_while(|above| *above != root);
        names.find(|path| {
            let directory = path.parent().map_or(0, number);
            let new = self.names.get(&directory);
            new.is_some_and(|new| new.contains(&number(path)))
        })
    }
}

fn number(path: &Path) -> u64 {
    path.symlink_metadata().map_or(0, |is| is.ino())
}
