//! One job: a view, the bytes behind it, and one lock.
//!
//! Every method is *prepare* (I/O, no lock), *commit* (the view decides, under the lock) and
//! *dispose* (what the view let go of is dropped after the lock). No lock is held across I/O.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use cas::manifest::Resolved;
use cas::report::{DataPath, Output, Report, StagingEntry};
use cas::staging::{StagedFile, StagingDirectory, is_quiet};
use cas::tree::{Entry, EntryKind, NodeIndex, Tree};
use cas::{Name, RelPath, Store, text};
use dashmap::DashMap;
use rustix::fs::{FallocateFlags, OFlags, SeekFrom, StatVfs, Timespec, Timestamps};
use rustix::io::Errno;

use crate::view::{
    Access, AttributeChange, Attributes, Caller, Fault, InodeId, Listed, Meta, NewNode, OpenIntent,
    Opened, OutputKind, Released, RenameMode, SetTime, Time, View,
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

/// Writers of a staged file.
#[derive(Debug, Default)]
struct Writing {
    /// Descriptors that the job has open for writing.
    open: u32,
    /// Grows with each open for writing, so that a check of quietness can see that it is late.
    opens: u64,
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
    passthrough: AtomicBool,
    failure: OnceLock<String>,
}

impl Job {
    /// A job on resolved inputs. Files that it may rewrite are copied into its staging directory.
    pub fn new(
        store: Arc<Store>,
        staging: Arc<StagingDirectory>,
        inputs: &Resolved,
        owner: Caller,
        now: Time,
    ) -> cas::Result<Self> {
        let mut view = View::new(inputs.tree.clone(), owner, now);
        for entry in &inputs.writable {
            preload(&mut view, &store, &staging, entry, owner, now)?;
        }
        Ok(Self {
            store,
            staging,
            tree: inputs.tree.clone(),
            view: Mutex::new(view),
            writing: DashMap::new(),
            passthrough: AtomicBool::new(false),
            failure: OnceLock::new(),
        })
    }

    /// A poisoned lock means that pure code panicked: the view may be inconsistent, so this job
    /// gets no more answers. Other jobs have views of their own.
    fn view(&self) -> Result<MutexGuard<'_, View<Staged>>> {
        self.view.lock().map_err(|_| {
            self.fail("a bug in wakebox: the job's view is inconsistent".into());
            Refusal::Broken
        })
    }

    /// Records why what the job saw cannot be trusted. The first reason stands.
    fn fail(&self, reason: String) {
        tracing::error!(staging = self.staging.name(), "{reason}");
        let _ = self.failure.set(reason);
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

    /// Drops references that the kernel had. Tells whether the inode is gone for good.
    pub fn forget(&self, id: InodeId, count: u64) -> bool {
        let Ok(mut view) = self.view() else {
            return false;
        };
        let released = view.forget(id, count);
        drop(view);
        if !released.0.is_empty() {
            self.writing.remove(&id);
        }
        !released.0.is_empty()
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

    /// Whether nobody can be writing to a staged file. Costs a lookup in a map, unless the file
    /// was written and closed since it was last asked.
    fn is_settled(&self, id: InodeId, staged: &Staged) -> bool {
        let opens = match self.writing.get(&id) {
            None => return true,
            Some(writing) if writing.open > 0 => return false,
            Some(writing) => writing.opens,
        };
        let quiet = staged
            .open(OFlags::RDONLY)
            .is_ok_and(|file| is_quiet(&file));
        if quiet {
            self.writing.remove_if(&id, |_, writing| {
                writing.open == 0 && writing.opens == opens
            });
        }
        quiet
    }

    /// Sets attributes and returns the new ones.
    pub fn set_attributes(
        &self,
        id: InodeId,
        change: AttributeChange,
        caller: Caller,
        now: Time,
    ) -> Result<Stat> {
        let staged = self.view()?.set_attributes(id, change, caller, now)?;
        if let Some(staged) = staged {
            if let Some(size) = change.size {
                rustix::fs::ftruncate(open_staged(&staged, OFlags::WRONLY)?, size)?;
            }
            if change.atime.is_some() || change.mtime.is_some() {
                staged.set_times(&timestamps(&change))?;
            }
        }
        self.stat(id)
    }

    /// The target of a symbolic link.
    pub fn read_link(&self, id: InodeId) -> Result<Box<[u8]>> {
        Ok(self.view()?.read_link(id)?)
    }

    /// Makes a directory, a link, a special file, or a regular file that is not opened.
    pub fn make(
        &self,
        parent: InodeId,
        name: &[u8],
        node: NewNode<Staged>,
        perm: u16,
        caller: Caller,
        now: Time,
    ) -> Result<Stat> {
        let name = Name::new(name).map_err(Fault::from)?;
        let backing = match &node {
            NewNode::File(staged) => Some(staged.clone()),
            _ => None,
        };
        let made = self.view()?.make(parent, name, node, perm, caller, now)?;
        self.complete((made, backing))
    }

    /// A new staging file, to be put under a name, and a read-only descriptor of it.
    pub fn new_file(&self) -> Result<(Staged, File)> {
        let (staged, file) = self
            .staging
            .create_file(OFlags::RDONLY)
            .map_err(|error| self.os_error(&error))?;
        Ok((Arc::new(staged), file))
    }

    /// Makes a regular file that is open from the start, and counts it as written if `write`.
    pub fn create(
        &self,
        parent: InodeId,
        name: &[u8],
        perm: u16,
        write: bool,
        caller: Caller,
        now: Time,
    ) -> Result<(Stat, Staged, File)> {
        let (staged, file) = self.new_file()?;
        let stat = self.make(
            parent,
            name,
            NewNode::File(staged.clone()),
            perm,
            caller,
            now,
        )?;
        if write {
            self.count_writer(stat.attributes.id);
        }
        Ok((stat, staged, file))
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
        let linked = self.view()?.link(id, parent, name, caller, now)?;
        self.complete(linked)
    }

    /// Removes a name of anything but a directory.
    pub fn unlink(&self, parent: InodeId, name: &[u8], caller: Caller, now: Time) -> Result<()> {
        let name = Name::new(name).map_err(Fault::from)?;
        let released = self.view()?.unlink(parent, name, caller, now)?;
        dispose(released);
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
        let released = self.view()?.remove_directory(parent, name, caller, now)?;
        dispose(released);
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
        let mut view = self.view()?;
        let released = view.rename(parent, name, new_parent, new_name, mode, caller, now)?;
        drop(view);
        dispose(released);
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

    /// Lists part of a directory.
    pub fn list(&self, directory: InodeId, offset: u64, limit: usize) -> Result<Vec<ListedStat>> {
        let listed = self.view()?.list(directory, offset, limit)?;
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

    /// Decides an open for everything but directories. An open for writing is counted, and must
    /// be given back by [`Job::close`].
    pub fn open(
        &self,
        id: InodeId,
        caller: Caller,
        intent: OpenIntent,
        truncate: bool,
    ) -> Result<Opened<Staged>> {
        let opened = self.view()?.open(id, caller, intent)?;
        if let Opened::Staged(staged) = &opened {
            if intent.write {
                self.count_writer(id);
            }
            if truncate && let Err(refusal) = open_staged(staged, OFlags::WRONLY | OFlags::TRUNC) {
                self.close(id, intent.write);
                return Err(refusal);
            }
        }
        Ok(opened)
    }

    fn count_writer(&self, id: InodeId) {
        let mut writing = self.writing.entry(id).or_default();
        writing.open += 1;
        writing.opens += 1;
    }

    /// Gives an open back.
    pub fn close(&self, id: InodeId, write: bool) {
        if write && let Some(mut writing) = self.writing.get_mut(&id) {
            writing.open = writing.open.saturating_sub(1);
        }
    }

    /// The file behind an inode, opened. A blob is always read-only; a staged file is opened as
    /// `flags` say.
    pub fn backing(&self, id: InodeId, opened: &Opened<Staged>, flags: OFlags) -> Result<File> {
        match opened {
            Opened::Staged(staged) => open_staged(staged, flags),
            Opened::Input { digest, .. } => match self.store.open_blob(*digest) {
                Ok(blob) => Ok(blob.file),
                Err(error) => {
                    self.fail(format!("input '{}': {error}", self.declared_path(id)));
                    Err(Refusal::Broken)
                }
            },
        }
    }

    fn declared_path(&self, id: InodeId) -> String {
        let index = u32::try_from(id.0.saturating_sub(1)).map(NodeIndex);
        let path = index.ok().and_then(|index| self.tree.path(index));
        path.map_or_else(String::new, |path: RelPath| path.to_string())
    }

    fn staged(&self, id: InodeId) -> Result<Staged> {
        let (_, staged) = self.view()?.attributes(id)?;
        staged.ok_or(Refusal::Fault(Fault::ReadOnlyInput))
    }

    /// Allocates, frees or zeroes space.
    pub fn allocate(
        &self,
        id: InodeId,
        mode: FallocateFlags,
        offset: u64,
        length: u64,
    ) -> Result<()> {
        let file = open_staged(&self.staged(id)?, OFlags::RDWR)?;
        Ok(rustix::fs::fallocate(file, mode, offset, length)?)
    }

    /// Flushes a file to disk. Inputs are on disk.
    pub fn sync(&self, id: InodeId, data_only: bool) -> Result<()> {
        let (_, staged) = self.view()?.attributes(id)?;
        let Some(staged) = staged else { return Ok(()) };
        let file = open_staged(&staged, OFlags::RDONLY)?;
        Ok(if data_only {
            rustix::fs::fdatasync(file)
        } else {
            rustix::fs::fsync(file)
        }?)
    }

    /// Finds data or a hole.
    pub fn seek(&self, id: InodeId, to: SeekFrom, caller: Caller) -> Result<u64> {
        let (_, staged) = self.view()?.attributes(id)?;
        let opened = match staged {
            Some(staged) => Opened::Staged(staged),
            None => {
                let intent = OpenIntent {
                    read: true,
                    ..OpenIntent::default()
                };
                self.view()?.open(id, caller, intent)?
            }
        };
        let file = self.backing(id, &opened, OFlags::RDONLY)?;
        Ok(rustix::fs::seek(file, to)?)
    }

    /// Numbers of the file system that the job's files lie on.
    pub fn file_system(&self) -> Result<StatVfs> {
        Ok(rustix::fs::fstatvfs(&*self.staging)?)
    }

    fn os_error(&self, error: &cas::Error) -> Refusal {
        tracing::warn!("{error}");
        match error {
            cas::Error::Io { source, .. } => {
                Refusal::Os(Errno::from_io_error(source).unwrap_or(Errno::IO))
            }
            _ => Refusal::Os(Errno::IO),
        }
    }

    /// Everything that is known now that the job has ended. The staging files are left to the
    /// reader of the report.
    pub fn report(&self, late_writer: bool) -> Result<Report> {
        let report = self.view()?.report();
        let outputs = report.outputs.into_iter().map(|(path, kind)| Output {
            path,
            entry: staging_entry(kind),
        });
        let passthrough = self.passthrough.load(Ordering::Relaxed);
        Ok(Report {
            inputs: report.inputs,
            in_bytes: report.in_bytes,
            outputs: outputs.collect(),
            data_path: if passthrough {
                DataPath::Passthrough
            } else {
                DataPath::Cached
            },
            late_writer,
            failure: self.failure.get().cloned(),
        })
    }

    /// Leaves the staging directory, with the files that have names, to someone else.
    pub fn give_away(&self) -> Result<()> {
        let report = self.view()?.report();
        for (_, kind) in report.outputs {
            if let OutputKind::File(staged, _) = kind {
                staged.keep();
            }
        }
        self.staging.keep();
        Ok(())
    }

    /// The name of the job's directory in the staging area.
    pub fn staging_name(&self) -> &str {
        self.staging.name()
    }
}

/// Drops what a change let go of, which may unlink files. The view's lock is released by now: a
/// guard that is a temporary lives to the end of its own statement, so the change is always one
/// statement and this the next.
fn dispose(released: Released<Staged>) {
    drop(released);
}

fn open_staged(staged: &Staged, flags: OFlags) -> Result<File> {
    staged.open(flags).map_err(|error| match error {
        cas::Error::Io { source, .. } => {
            Refusal::Os(Errno::from_io_error(&source).unwrap_or(Errno::IO))
        }
        _ => Refusal::Os(Errno::IO),
    })
}

/// Copies a declared file that the job may rewrite, and puts the copy in its place.
fn preload(
    view: &mut View<Staged>,
    store: &Store,
    staging: &Arc<StagingDirectory>,
    entry: &Entry,
    owner: Caller,
    now: Time,
) -> cas::Result<()> {
    let EntryKind::File { digest, .. } = entry.kind else {
        return Ok(());
    };
    let (staged, copy) = staging.create_file(OFlags::RDWR)?;
    let refused = |source: std::io::Error| {
        cas::Error::io("prepare the writable input", entry.path.as_path(), source)
    };
    cas::copy::Copier::default()
        .copy(&store.open_blob(digest)?.file, &copy)
        .map_err(refused)?;
    let mtime = Time::from_nanoseconds(entry.mtime);
    let times = Timestamps {
        last_access: timespec(mtime),
        last_modification: timespec(mtime),
    };
    staged
        .set_times(&times)
        .map_err(|errno| refused(errno.into()))?;
    let meta = Meta {
        perm: entry.mode,
        uid: owner.uid,
        gid: owner.gid,
        atime: mtime,
        mtime,
        ctime: now,
    };
    let names: Vec<_> = entry.path.names().collect();
    let placed = names
        .split_last()
        .ok_or(Fault::InvalidName)
        .and_then(|(name, parents)| {
            let parent = view.resolve_directory(parents.iter().copied())?;
            view.preload(parent, *name, Arc::new(staged), meta)
        });
    placed
        .map_err(|fault| refused(std::io::Error::other(fault)))
        .map(drop)
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

fn staging_entry(kind: OutputKind<Staged>) -> StagingEntry {
    match kind {
        OutputKind::File(staged, mode) => StagingEntry::File {
            staged: staged.id(),
            mode,
        },
        OutputKind::Symlink(target, mtime) => StagingEntry::Symlink {
            target: text::Text(target.into()),
            mtime_sec: mtime.seconds,
            mtime_nsec: mtime.nanoseconds,
        },
        OutputKind::Directory(mode, mtime) => StagingEntry::Directory {
            mode,
            mtime_sec: mtime.seconds,
            mtime_nsec: mtime.nanoseconds,
        },
    }
}

/// Reads from a file at an offset until the buffer is full or the file ends.
pub fn read_at(file: &File, mut offset: u64, size: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; size];
    let mut filled = 0;
    while filled < size {
        match file.read_at(&mut bytes[filled..], offset) {
            Ok(0) => break,
            Ok(count) => {
                filled += count;
                offset += count as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => {
                return Err(Refusal::Os(
                    Errno::from_io_error(&error).unwrap_or(Errno::IO),
                ));
            }
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}
