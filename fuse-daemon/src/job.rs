//! One job: a view, the bytes behind it, and one lock.
//!
//! Every method is *prepare* (I/O, no lock), *commit* (the view decides, under the lock) and
//! *dispose* (what the view let go of is dropped after the lock). No lock is held across I/O.

mod ends;
mod extended;
mod files;
mod look;
mod saved;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Instant;

use cas::copy::Copier;
use cas::manifest::Resolved;
use cas::record::Recording;
use cas::staging::{StagedFile, StagingDirectory};
use cas::tree::Tree;
use cas::{Name, Store};
use dashmap::DashMap;
use rustix::fs::{OFlags, StatVfs, Timespec, Timestamps};
use rustix::io::Errno;

use ends::preload;
use files::{Writing, open_staged};
pub use saved::Standing;

use crate::view::{
    Access, AtimePolicy, AttributeChange, Attributes, Caller, Fault, InodeId, InputPolicy, Listed,
    NewMode, NewNode, Order, Policy, RenameMode, SetTime, Time, View,
};

/// A handle of a file that the job wrote. It is unlinked when the last owner drops it: the view
/// while the file has a name, and every open of it.
pub type Staged = Arc<StagedFile>;

/// Why a request of the kernel is not met.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The view says no: an ordinary answer.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The file system below says no.
    #[error("the file system below refuses: {0}")]
    Os(#[from] Errno),
    /// The job cannot be served any more, and its result will say so.
    #[error("the job's view is broken")]
    Broken,
}

/// A result for the kernel.
pub type Result<T> = std::result::Result<T, Refusal>;

/// Attributes as the kernel wants them.
#[derive(Clone, Copy, Debug)]
pub struct Stat {
    /// The view's attributes, with size and times of what backs the file.
    pub attributes: Attributes,
    /// 512-byte blocks in use.
    pub blocks: u64,
    /// Whether the kernel may keep this until it changes something itself. It may not while a
    /// mapping could be writing, because stores to a mapping move size and times of the backing
    /// file with no request that would tell.
    pub settled: bool,
}

/// A listed entry, with complete attributes.
#[derive(Debug)]
pub struct ListedStat {
    /// Its name, or `.` or `..`.
    pub name: Box<[u8]>,
    /// Where to go on behind it.
    pub next: u64,
    /// Its attributes.
    pub stat: Stat,
    /// Whether the kernel takes a reference if it is delivered with attributes.
    pub counted: bool,
}

/// A job that is being served.
#[derive(Debug)]
pub struct Job {
    store: Arc<Store>,
    staging: Arc<StagingDirectory>,
    tree: Tree,
    view: Mutex<View<Staged>>,
    /// Files that are or may still be written, by descriptor or by mapping.
    writing: DashMap<InodeId, Writing>,
    /// Programs that run, by how many opens.
    running: DashMap<InodeId, u32>,
    copier: Copier,
    /// What a view has that is to outlive this process.
    standing: Option<Standing>,
    passthrough: AtomicBool,
    failure: OnceLock<String>,
    /// By which the record goes, if one is kept.
    clock: Option<fn() -> Time>,
    names_only: bool,
    /// What people call it.
    label: String,
    started: Instant,
    /// Descriptors of regular files that are open.
    open: AtomicU64,
}

impl Job {
    /// A job on resolved inputs, of which it may change those that `changeable` says. Files that it
    /// may rewrite are copied into its staging directory.
    pub fn new(
        store: Arc<Store>,
        staging: Arc<StagingDirectory>,
        inputs: &Resolved,
        changeable: InputPolicy,
        owner: Caller,
        now: Time,
    ) -> cas::Result<Self> {
        let policy = Policy {
            inputs: changeable,
            ..Policy::default()
        };
        let mut view = View::new(inputs.tree.clone(), owner, now, policy);
        for entry in &inputs.writable {
            preload(&mut view, &store, &staging, entry, owner, now)?;
        }
        Ok(Self::with(store, staging, inputs.tree.clone(), view))
    }

    fn with(
        store: Arc<Store>,
        staging: Arc<StagingDirectory>,
        tree: Tree,
        view: View<Staged>,
    ) -> Self {
        Self {
            store,
            staging,
            tree,
            view: Mutex::new(view),
            writing: DashMap::new(),
            running: DashMap::new(),
            copier: Copier::default(),
            standing: None,
            passthrough: AtomicBool::new(false),
            failure: OnceLock::new(),
            clock: None,
            names_only: false,
            label: String::new(),
            started: Instant::now(),
            open: AtomicU64::new(0),
        }
    }

    /// Gives the job a name for people.
    #[must_use]
    pub fn labelled(mut self, label: &str) -> Self {
        self.label = cas::look::label(label);
        self
    }

    /// Records what this job touches, from now on and by a clock.
    #[must_use]
    pub fn recorded(mut self, recording: Recording, clock: fn() -> Time) -> Self {
        if recording != Recording::default()
            && let Ok(view) = self.view.get_mut()
        {
            view.keep_record(recording);
            self.clock = Some(clock);
            self.names_only = recording.each_look;
        }
        self
    }

    /// Lists directories in another order.
    #[must_use]
    pub fn shuffled(mut self, seed: u64) -> Self {
        if let Ok(view) = self.view.get_mut() {
            view.set_order(Order::Shuffled(seed));
        }
        self
    }

    /// Whether listings tell names only, so that whoever wants to know more has to ask.
    pub fn lists_names_only(&self) -> bool {
        self.names_only
    }

    /// A poisoned lock means that pure code panicked: the view may be inconsistent, so this job
    /// gets no more answers. Other jobs have views of their own.
    fn view(&self) -> Result<MutexGuard<'_, View<Staged>>> {
        let mut view = self.view.lock().map_err(|_| {
            self.fail("a bug in wakebox: the job's view is inconsistent".into());
            Refusal::Broken
        })?;
        if let Some(clock) = self.clock {
            view.tick(clock());
        }
        Ok(view)
    }

    /// Records why what the job saw cannot be trusted. The first reason stands.
    fn fail(&self, reason: String) {
        tracing::error!(staging = self.staging.name(), "{reason}");
        let _ = self.failure.set(reason);
    }

    /// Looks for contradictions in the view, all of which it visits.
    ///
    /// # Errors
    /// What contradicts what.
    pub fn check_invariants(&self) -> std::result::Result<(), String> {
        let view = self.view().map_err(|refusal| refusal.to_string())?;
        view.check_invariants()
    }

    /// Notes that a request was not answered as it should have been.
    pub fn broke(&self, reason: String) {
        self.fail(reason);
    }

    /// Notes that file data moves past the daemon.
    pub fn use_passthrough(&self) {
        self.passthrough.store(true, Ordering::Relaxed);
    }

    /// Looks a name up.
    pub fn lookup(&self, parent: InodeId, name: &[u8], caller: Caller) -> Result<Stat> {
        let name = Name::new(name).map_err(Fault::from)?;
        let found = self.view()?.lookup(parent, name, caller)?;
        self.complete(found)
    }

    /// Looks a name up for the sandbox, before the job has begun: the job has touched nothing.
    pub fn lookup_for_sandbox(&self, parent: InodeId, name: &[u8], caller: Caller) -> Result<Stat> {
        let name = Name::new(name).map_err(Fault::from)?;
        let look = |view: &mut View<Staged>| view.lookup(parent, name, caller);
        let found = self.view()?.unrecorded(look)?;
        self.complete(found)
    }

    /// Looks an inode up by its number, for a file handle.
    pub fn lookup_id(&self, id: InodeId) -> Result<Stat> {
        let found = self.view()?.lookup_id(id)?;
        self.complete(found)
    }

    /// Looks the parent of a directory up, for a file handle.
    pub fn lookup_parent(&self, id: InodeId) -> Result<Stat> {
        let found = self.view()?.lookup_parent(id)?;
        self.complete(found)
    }

    /// Drops references that the kernel had.
    pub fn forget(&self, id: InodeId, count: u64) {
        let Ok(released) = self.commit(|view| Ok(view.forget(id, count))) else {
            return;
        };
        if !released.0.is_empty() {
            self.writing.remove(&id);
        }
        self.dispose(released);
    }

    /// What `stat` shows.
    pub fn stat(&self, id: InodeId) -> Result<Stat> {
        let found = self.view()?.attributes(id)?;
        self.complete(found)
    }

    /// Adds what only the backing file knows.
    fn complete(&self, (mut attributes, staged): (Attributes, Option<Staged>)) -> Result<Stat> {
        let Some(staged) = staged else {
            let blocks = attributes.size.div_ceil(512);
            return Ok(Stat {
                attributes,
                blocks,
                settled: true,
            });
        };
        let settled = self.is_settled(attributes.id, &staged);
        let stat = staged.stat()?;
        let time = |seconds, nanoseconds| Time {
            seconds,
            nanoseconds: nanoseconds as u32,
        };
        attributes.size = stat.st_size as u64;
        attributes.meta.mtime = time(stat.st_mtime, stat.st_mtime_nsec);
        attributes.meta.atime = time(stat.st_atime, stat.st_atime_nsec);
        attributes.meta.ctime = attributes
            .meta
            .ctime
            .max(time(stat.st_ctime, stat.st_ctime_nsec));
        Ok(Stat {
            attributes,
            blocks: stat.st_blocks as u64,
            settled,
        })
    }

    /// Sets attributes and returns the new ones.
    pub fn set_attributes(
        &self,
        id: InodeId,
        change: AttributeChange,
        caller: Caller,
        now: Time,
    ) -> Result<Stat> {
        let set = |view: &mut View<Staged>| view.set_attributes(id, change, caller, now);
        let mut staged = self.change(set)?;
        if let Some(size) = change.size {
            let file = self.writable(id)?;
            rustix::fs::ftruncate(open_staged(&file, OFlags::WRONLY)?, size)?;
            staged = Some(file);
        }
        if let Some(staged) = staged
            && (change.atime.is_some() || change.mtime.is_some())
        {
            staged.set_times(&timestamps(&change))?;
        }
        self.stat(id)
    }

    /// The target of a symbolic link.
    pub fn read_link(&self, id: InodeId, now: Time) -> Result<Box<[u8]>> {
        self.commit(|view| {
            view.accessed(id, now);
            view.read_link(id)
        })
    }

    /// Makes a directory, a link, a special file, or a regular file that is not opened.
    pub fn make(
        &self,
        parent: InodeId,
        name: &[u8],
        node: NewNode<Staged>,
        mode: NewMode,
        caller: Caller,
        now: Time,
    ) -> Result<Stat> {
        let name = Name::new(name).map_err(Fault::from)?;
        let backing = match &node {
            NewNode::File(staged) => Some(staged.clone()),
            _ => None,
        };
        let made = self.change(|view| view.make(parent, name, node, mode, caller, now));
        if let (Err(_), Some(unused)) = (&made, &backing) {
            unused.doom();
        }
        self.complete((made?, backing))
    }

    /// Adds a name to a file.
    pub fn link(
        &self,
        id: InodeId,
        parent: InodeId,
        name: &[u8],
        caller: Caller,
        now: Time,
    ) -> Result<Stat> {
        let name = Name::new(name).map_err(Fault::from)?;
        let linked = self.change(|view| view.link(id, parent, name, caller, now))?;
        self.complete(linked)
    }

    /// Removes a name of anything but a directory.
    pub fn unlink(&self, parent: InodeId, name: &[u8], caller: Caller, now: Time) -> Result<()> {
        let name = Name::new(name).map_err(Fault::from)?;
        let released = self.commit(|view| view.unlink(parent, name, caller, now))?;
        self.dispose(released);
        Ok(())
    }

    /// Removes an empty directory.
    pub fn remove_directory(
        &self,
        parent: InodeId,
        name: &[u8],
        caller: Caller,
        now: Time,
    ) -> Result<()> {
        let name = Name::new(name).map_err(Fault::from)?;
        let released = self.commit(|view| view.remove_directory(parent, name, caller, now))?;
        self.dispose(released);
        Ok(())
    }

    /// Renames.
    #[expect(
        clippy::too_many_arguments,
        reason = "the operands of renameat2(2), who asks, and when"
    )]
    pub fn rename(
        &self,
        parent: InodeId,
        name: &[u8],
        new_parent: InodeId,
        new_name: &[u8],
        mode: RenameMode,
        caller: Caller,
        now: Time,
    ) -> Result<()> {
        let name = Name::new(name).map_err(Fault::from)?;
        let new_name = Name::new(new_name).map_err(Fault::from)?;
        let released =
            self.change(|view| view.rename(parent, name, new_parent, new_name, mode, caller, now))?;
        self.dispose(released);
        Ok(())
    }

    /// Answers `access(2)`.
    pub fn access(&self, id: InodeId, caller: Caller, access: Access) -> Result<()> {
        Ok(self.view()?.access(id, caller, access)?)
    }

    /// Checks that a directory may be listed.
    pub fn open_directory(&self, id: InodeId, caller: Caller) -> Result<()> {
        Ok(self.view()?.open_directory(id, caller)?)
    }

    /// Whether nobody has to ask whether a caller may list a directory: the kernel has checked, or
    /// the caller is user 0. The users of a job's view are one (fs/fuse/dir.c,
    /// `fuse_allow_current_process`), so this is true of all of a view's callers or of none.
    pub fn may_list_all(&self, caller: Caller) -> bool {
        self.view().is_ok_and(|view| view.may_list_all(caller))
    }

    /// Whether the kernel may answer for a directory that it has listed before. Not if each listing
    /// moves a time.
    pub fn may_cache_listings(&self) -> bool {
        let moves = |policy: &Policy| policy.directory_atime && policy.atime == AtimePolicy::Always;
        self.view().is_ok_and(|view| !moves(view.policy()))
    }

    /// Tells of a listing that has come to its end whether the kernel may keep it: if listings may
    /// be kept, and nothing in the directory has changed since anybody began to list it.
    pub fn end_listing(&self, directory: InodeId) -> Result<bool> {
        let current = self.view()?.end_listing(directory);
        Ok(current && self.may_cache_listings())
    }

    /// How long the names of a directory are, in the order of its listing, if it is not as declared.
    pub fn changed_names(&self, directory: InodeId) -> Result<Option<Vec<usize>>> {
        Ok(self.view()?.changed_names(directory))
    }

    /// Directories that the kernel may have listings of.
    pub fn known_directories(&self) -> Result<Vec<InodeId>> {
        Ok(self.view()?.known_directories())
    }

    /// Lists part of a directory.
    pub fn list(
        &self,
        directory: InodeId,
        offset: u64,
        limit: usize,
        now: Time,
    ) -> Result<Vec<ListedStat>> {
        let listed = self.commit(|view| {
            view.accessed(directory, now);
            view.list(directory, offset, limit)
        })?;
        let complete = |entry: Listed<Staged>| {
            let stat = self.complete((entry.attributes, entry.staged))?;
            Ok(ListedStat {
                name: entry.name,
                next: entry.next,
                stat,
                counted: entry.counted,
            })
        };
        listed.into_iter().map(complete).collect()
    }

    /// Numbers of the file system that the job's files lie on.
    pub fn file_system(&self) -> Result<StatVfs> {
        self.free_removed();
        Ok(rustix::fs::fstatvfs(&*self.staging)?)
    }

    /// What file system the job's files lie on, by its number in linux/magic.h.
    pub fn file_system_type(&self) -> std::io::Result<i64> {
        Ok(rustix::fs::fstatfs(&*self.staging)?.f_type)
    }

    /// The name of the job's directory in the staging area.
    pub fn staging_name(&self) -> &str {
        self.staging.name()
    }
}

fn timespec(time: Time) -> Timespec {
    Timespec {
        tv_sec: time.seconds,
        tv_nsec: time.nanoseconds.into(),
    }
}

fn timestamps(change: &AttributeChange) -> Timestamps {
    let resolve = |time: Option<SetTime>| match time {
        None => Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_OMIT,
        },
        Some(SetTime::Now) => Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_NOW,
        },
        Some(SetTime::To(time)) => timespec(time),
    };
    Timestamps {
        last_access: resolve(change.atime),
        last_modification: resolve(change.mtime),
    }
}
