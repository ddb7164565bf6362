//! The saved log of a standing view: what differs from the inputs, on disk.
//!
//! A view that outlives its daemon is told as [`Fact`]s, and the facts of each change are one
//! frame of an append-only file, [`FILE`], in the state directory. Replayed in order, the last fact
//! about a thing counts. So the log may end after any frame, and a shorter list of facts may
//! replace it. The bytes of files are in the staging directory beside it; facts name them by
//! number.
//!
//! # How it is used
//!
//! ```text
//! lock the view · change it · append(take_facts) · unlock · write · doom(what it released)
//! ```
//!
//! `append` copies to memory, so the lock is not held over I/O and the order of frames is that of
//! the changes. `write` returns when the caller's frame is in the file; whoever gets there first
//! writes the frames of all who wait, by one system call.
//!
//! # What is there after what
//!
//! - **A crash of the daemon** (SIGKILL too) loses nothing that was answered: an answer follows
//!   `write`, and what is written is the kernel's. A change is there whole or not at all.
//! - **A power failure** loses changes from some frame on, at most those since the last flush:
//!   - `fsync` of a file: flush the staging file, [`StagingDirectory::sync`] if the file may be
//!     new, then [`Log::sync`], in this order, so that the log never names what is not there.
//!     The content, the attributes and *all names* of all changes so far are durable.
//!   - `fsync` of a directory: [`StagingDirectory::sync`], then [`Log::sync`]. Names and
//!     attributes are durable; the content of files is not, as on any file system.
//!   - `syncfs`: [`Log::write`], `syncfs(2)` of the staging directory, then [`Log::sync`].
//!   - without any of these: [`Log::settle`], to be called every [`PERIOD`] at least.
//! - **A file that a change released** is unlinked only when that change is on disk
//!   ([`Log::doom`], [`Log::settle`]). Else a rename over a file and a power failure could leave
//!   the old name without a file behind it. So space comes back up to [`PERIOD`] late: who is
//!   refused space, or tells how much there is, should call [`Log::settle`] first.
//! - **An error** of `write` is the caller's to report. The frame stays in memory and goes first
//!   next time, since the view has changed and later frames build on it. A failed flush stays
//!   failed (the kernel forgets what it could not write) until a replacement has written all anew.
//!
//! At mount: [`StagingDirectory::open_standing`] (the lock), [`Log::open`], `View::restore` with
//! [`reopen`]ed files, and [`StagingDirectory::retain`] the [`numbers`] of its snapshot. At the end
//! [`Log::close`]. When [`Log::wants_replacement`], at mount or later,
//! [`Log::begin_replacement`] with a snapshot.
//!
//! # Locks
//!
//! `syncing`, then `tail`, then `pending`. The last is a leaf and never held over I/O; it is the
//! only one that is taken under the view's lock.
//!
//! [`StagingDirectory::sync`]: cas::staging::StagingDirectory::sync
//! [`StagingDirectory::open_standing`]: cas::staging::StagingDirectory::open_standing
//! [`StagingDirectory::retain`]: cas::staging::StagingDirectory::retain

mod codec;
mod error;
mod files;
mod frame;
mod periodic;
mod replace;
mod tail;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use cas::staging::{StagedFile, path_of};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::{Errno, Result};

pub use error::Error;
use error::Trying;
pub use files::{numbers, reopen};
pub use frame::Header;
pub use periodic::Periodic;
pub use replace::Replacement;
use tail::{NEW, Payloads, Tail};

use crate::view::Fact;

/// The log's name in the state directory.
pub const FILE: &str = "view.log";

/// How often a log is settled at least; as often as ext4 commits its journal.
pub const PERIOD: Duration = Duration::from_secs(5);

/// Below this many bytes a log is not worth replacing.
const SMALL: u64 = 1 << 20;

/// When a log is looked after.
#[derive(Clone, Copy, Debug)]
pub struct Upkeep {
    /// How long changes may stay unflushed, and released files undeleted.
    pub period: Duration,
    /// Up to how many bytes a log is left as long as it is.
    pub small: u64,
}

impl Default for Upkeep {
    fn default() -> Self {
        Self {
            period: PERIOD,
            small: SMALL,
        }
    }
}

/// The log of one view. See the module's documentation.
#[derive(Debug)]
pub struct Log {
    directory: OwnedFd,
    header: Header,
    pending: Mutex<Pending>,
    tail: Mutex<Tail>,
    /// [`Upkeep::small`].
    small: u64,
    /// Held while the file is flushed; why the last flush failed.
    syncing: Mutex<Option<Errno>>,
    doomed: Mutex<Vec<Arc<StagedFile>>>,
}

/// What was appended and not yet written.
#[derive(Debug, Default)]
struct Pending {
    payloads: Payloads,
    /// What was appended since a replacement began.
    since: Option<Payloads>,
}

/// What a log said when it was opened.
#[derive(Debug)]
pub struct Saved {
    /// What the view was made of, to make it of the same again. Owner and time of birth are those
    /// of the first mount.
    pub header: Header,
    /// All facts, in order.
    pub facts: Vec<Fact<u64>>,
    /// Bytes at the end that were cut off, because a crash had left them incomplete.
    pub cut: u64,
}

/// Reads what one frame holds, whose check was right; `None` if no log has written it.
pub fn decode_facts(payload: &[u8]) -> Option<Vec<Fact<u64>>> {
    codec::decode(payload)
}

/// Locks. A poisoned lock means a bug in wakebox while a frame was half made; nothing may follow.
fn locked<T>(mutex: &Mutex<T>) -> Result<MutexGuard<'_, T>> {
    mutex.lock().map_err(|_| Errno::IO)
}

impl Log {
    /// Opens the log in a state directory, or makes it. Only one process may do so at a time: the
    /// lock of the staging directory sees to that.
    ///
    /// Fails, with nothing changed, if the view is of other inputs than `header` says, or is
    /// corrupt before what was safely on disk. An incomplete end is cut off, with a warning. All
    /// that it returns is on disk, so orphaned staging files may go.
    pub fn open(
        directory: BorrowedFd<'_>,
        header: Header,
    ) -> std::result::Result<(Self, Saved), Error> {
        let path = path_of(directory);
        Self::open_in(directory, header).map_err(|error| error.at(path))
    }

    fn open_in(
        directory: BorrowedFd<'_>,
        header: Header,
    ) -> std::result::Result<(Self, Saved), Error> {
        let directory = directory.try_clone_to_owned().trying("open")?;
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let (tail, saved) = match rustix::fs::openat(&directory, FILE, flags, Mode::empty()) {
            Err(Errno::NOENT) => {
                let mut tail = Tail::create(directory.as_fd(), &header)?;
                let named = tail.adopt(directory.as_fd(), &header)?;
                named.trying("flush the state directory")?;
                let saved = Saved {
                    header,
                    facts: Vec::new(),
                    cut: 0,
                };
                (tail, saved)
            }
            found => read(found.trying("open")?.into(), directory.as_fd(), &header)?,
        };
        let log = Self {
            directory,
            header: saved.header,
            pending: Mutex::default(),
            tail: Mutex::new(tail),
            small: SMALL,
            syncing: Mutex::default(),
            doomed: Mutex::default(),
        };
        Ok((log, saved))
    }

    /// Is replaced as soon as it has more bytes than this (and is four times as long as it need
    /// be) from now on.
    pub fn replace_above(&mut self, small: u64) {
        self.small = small;
    }

    /// The state directory, for messages.
    fn path(&self) -> PathBuf {
        path_of(self.directory.as_fd())
    }

    /// Adds the facts of one change, in memory; `number` is that of a staging file. To be called
    /// under the view's lock, so that frames are in the order of the changes, and followed by
    /// [`Log::write`] without it.
    pub fn append<S>(&self, facts: &[Fact<S>], number: impl Fn(&S) -> u64) {
        if facts.is_empty() {
            return;
        }
        // If it is poisoned, `write` will say so.
        if let Ok(mut pending) = locked(&self.pending) {
            let Pending { payloads, since } = &mut *pending;
            let added = payloads.push(facts, number);
            since.iter_mut().for_each(|since| since.0.extend(added));
        }
    }

    /// Writes all that was appended. It survives a crash of the daemon then.
    pub fn write(&self) -> Result<()> {
        self.write_pending(&mut *locked(&self.tail)?)
    }

    fn write_pending(&self, tail: &mut Tail) -> Result<()> {
        let mut payloads = std::mem::take(&mut locked(&self.pending)?.payloads);
        if payloads.0.is_empty() {
            return Ok(());
        }
        let written = tail.write(&payloads);
        if written.is_err() {
            // Nobody else has taken any: that needs the tail.
            let mut pending = locked(&self.pending)?;
            payloads.0.append(&mut pending.payloads.0);
            pending.payloads = payloads;
        }
        written
    }

    /// Writes all that was appended and flushes it to disk. It survives a power failure then.
    pub fn sync(&self) -> Result<()> {
        let (generation, end) = {
            let mut tail = locked(&self.tail)?;
            self.write_pending(&mut tail)?;
            (tail.generation, tail.end)
        };
        let mut failure = locked(&self.syncing)?;
        if let Some(errno) = *failure {
            return Err(errno);
        }
        let (file, target) = {
            let tail = locked(&self.tail)?;
            // Somebody else's flush, or a replacement, may have done it while we waited.
            if tail.generation != generation || tail.durable >= end {
                return Ok(());
            }
            (tail.file.clone(), tail.end)
        };
        if let Err(errno) = rustix::fs::fdatasync(&file) {
            *failure = Some(errno);
            return Err(errno);
        }
        // Still the same file: to replace it takes `syncing`.
        locked(&self.tail)?.durable = target;
        Ok(())
    }

    /// Takes staging files that a change has released, after its facts were appended. They are
    /// removed when the change is on disk, by [`Log::settle`].
    pub fn doom(&self, released: Vec<Arc<StagedFile>>) {
        // Where this fails they are orphans, removed at the next mount.
        if let Ok(mut doomed) = locked(&self.doomed) {
            doomed.extend(released);
        }
    }

    /// Whether released staging files wait to be removed.
    pub fn owes_space(&self) -> bool {
        locked(&self.doomed).is_ok_and(|doomed| !doomed.is_empty())
    }

    /// Flushes, and removes the staging files that were released before.
    pub fn settle(&self) -> Result<()> {
        let released = std::mem::take(&mut *locked(&self.doomed)?);
        if let Err(errno) = self.sync() {
            locked(&self.doomed)?.extend(released);
            return Err(errno);
        }
        released.iter().for_each(|staged| staged.doom());
        Ok(())
    }

    /// Settles every [`PERIOD`] as long as the result lives.
    pub fn settle_regularly(self: &Arc<Self>) -> std::io::Result<Periodic> {
        let log = self.clone();
        Periodic::start(PERIOD, move || {
            if let Err(errno) = log.settle() {
                tracing::warn!(
                    "cannot flush the saved view {}: {errno}",
                    log.path().display()
                );
            }
        })
    }

    /// Whether there is room on disk for changes that do not free any. While there is not, what is
    /// left is for removals; whatever else wants to change the view should get ENOSPC *before* it
    /// does.
    pub fn has_room(&self) -> bool {
        let Ok(mut tail) = locked(&self.tail) else {
            return false;
        };
        if tail.short {
            tail.reserve();
        }
        !tail.short
    }

    /// Whether the log should be replaced by a snapshot: it is four times as long as its facts
    /// were when it was made, or a flush has failed.
    pub fn wants_replacement(&self) -> bool {
        let long = locked(&self.tail).is_ok_and(|tail| tail.end > self.small.max(4 * tail.base));
        long || locked(&self.syncing).is_ok_and(|failure| failure.is_some())
    }

    /// Settles, and notes in the file that all of it is on disk, so that any damage to it will be
    /// noticed. For the end of a mount.
    pub fn close(&self) -> Result<()> {
        self.settle()?;
        locked(&self.tail)?.seal()
    }
}

/// Reads a log and makes it ready to be added to.
fn read(
    mut file: File,
    directory: BorrowedFd<'_>,
    given: &Header,
) -> std::result::Result<(Tail, Saved), Error> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).trying("read")?;
    let (header, scan) = frame::scan(&bytes)?;
    let (saved, given) = (header.inputs, given.inputs);
    if saved != given {
        return Err(Error::OtherInputs { saved, given });
    }
    let mut facts = Vec::new();
    for payload in &scan.payloads {
        let offset = payload.start as u64;
        let understood = codec::decode(&bytes[payload.clone()]);
        facts.extend(understood.ok_or(Error::NotUnderstood { offset })?);
    }
    let cut = (bytes.len() - scan.end) as u64;
    if cut > 0 {
        let path = path_of(directory);
        tracing::warn!(
            "saved view {}: its last {cut} bytes were cut off by a crash and are forgotten",
            path.join(FILE).display()
        );
        rustix::fs::ftruncate(&file, scan.end as u64).trying("cut the end off")?;
    }
    // An earlier process may have been killed before it had flushed either.
    rustix::fs::fdatasync(&file).trying("flush")?;
    let _ = rustix::fs::unlinkat(directory, NEW, AtFlags::empty());
    rustix::fs::fsync(directory).trying("flush the state directory")?;
    let saved = Saved { header, facts, cut };
    Ok((Tail::behind(scan, file), saved))
}
