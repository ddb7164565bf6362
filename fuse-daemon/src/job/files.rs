//! Files of a job that are open, and what backs them.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cas::RelPath;
use cas::staging::is_quiet;
use cas::tree::NodeIndex;
use rustix::fs::{FallocateFlags, OFlags, SeekFrom, Timestamps};
use rustix::io::Errno;

use super::{Job, Refusal, Result, Staged, Stat, timespec};
use crate::view::{Caller, Fault, InodeId, Meta, NewMode, NewNode, OpenIntent, Opened, Time};

/// Writers of a staged file.
#[derive(Debug, Default)]
pub(super) struct Writing {
    /// Descriptors that the job has open for writing.
    open: u32,
    /// Grows with each open for writing, so that a check of quietness can see that it is late.
    opens: u64,
}

impl Job {
    /// Decides an open for everything but directories. An open for writing is counted, and must
    /// be given back by [`Job::close`].
    pub fn open(&self, id: InodeId, caller: Caller, intent: OpenIntent) -> Result<Opened<Staged>> {
        // With ATOMIC_O_TRUNC the kernel looks whether a program runs only when we have truncated it.
        // Opens for writing it refuses before (`file_get_write_access`).
        if intent.truncate && self.running.get(&id).is_some_and(|count| *count > 0) {
            return Err(Refusal::Os(Errno::TXTBSY));
        }
        let opened = self.commit(|view| view.open(id, caller, intent))?;
        self.open.fetch_add(1, Ordering::Relaxed);
        if intent.execute {
            *self.running.entry(id).or_default() += 1;
        }
        if intent.write {
            self.count_writer(id);
        }
        if !intent.truncate {
            return Ok(opened);
        }
        self.truncate(id, opened)
            .inspect_err(|_| self.close(id, intent.write))
    }

    fn truncate(&self, id: InodeId, opened: Opened<Staged>) -> Result<Opened<Staged>> {
        match opened {
            Opened::Staged(staged) => {
                open_staged(&staged, OFlags::WRONLY | OFlags::TRUNC)?;
                Ok(Opened::Staged(staged))
            }
            Opened::Input { .. } => self.copy_up(id, Keep::Nothing).map(Opened::Staged),
        }
    }

    fn count_writer(&self, id: InodeId) {
        let mut writing = self.writing.entry(id).or_default();
        writing.open += 1;
        writing.opens += 1;
    }

    /// Gives the open of a program back: nobody runs it by that any more.
    pub fn stop_running(&self, id: InodeId) {
        if let Some(mut count) = self.running.get_mut(&id) {
            *count = count.saturating_sub(1);
        }
        self.running.remove_if(&id, |_, count| *count == 0);
    }

    /// Gives an open back.
    pub fn close(&self, id: InodeId, write: bool) {
        self.open.fetch_sub(1, Ordering::Relaxed);
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

    /// What backs a file now. An input that may be changed can have been copied up since it was
    /// opened.
    pub fn current(&self, id: InodeId) -> Result<Opened<Staged>> {
        Ok(self.view()?.backing(id)?)
    }

    /// The staging file that backs a file from now on, for a change of its content.
    pub fn writable(&self, id: InodeId) -> Result<Staged> {
        match self.current(id)? {
            Opened::Staged(staged) => Ok(staged),
            Opened::Input { .. } => self.copy_up(id, Keep::Content),
        }
    }

    /// Gives an input a staging file of its own. Two threads may do that at once: both copy, which
    /// needs no lock because a blob does not change, and the view takes the first.
    fn copy_up(&self, id: InodeId, keep: Keep) -> Result<Staged> {
        if self.view()?.is_read_only(id) {
            return Err(Fault::ReadOnlyInput.into());
        }
        let (attributes, _) = self.view()?.attributes(id)?;
        let opened = self.current(id)?;
        let (staged, copy) = self.create_staging_file(OFlags::RDWR)?;
        let mine = staged.clone();
        let filled = match keep {
            Keep::Content => self.fill(id, &opened, attributes.meta, &staged, &copy),
            Keep::Nothing => Ok(()),
        };
        let placed = filled.and_then(|()| self.change(|view| view.copy_up(id, staged)));
        let (there, released) = placed.inspect_err(|_| mine.doom())?;
        self.dispose(released);
        Ok(there)
    }

    /// Gives a copy the bytes and the times of an input.
    fn fill(
        &self,
        id: InodeId,
        input: &Opened<Staged>,
        meta: Meta,
        staged: &Staged,
        copy: &File,
    ) -> Result<()> {
        let blob = self.backing(id, input, OFlags::RDONLY)?;
        let copied = self.copier.copy(&blob, copy);
        copied.map_err(|error| os_refusal(&error))?;
        Ok(staged.set_times(&Timestamps {
            last_access: timespec(meta.atime),
            last_modification: timespec(meta.mtime),
        })?)
    }

    /// Allocates, frees or zeroes space.
    pub fn allocate(
        &self,
        id: InodeId,
        mode: FallocateFlags,
        offset: u64,
        length: u64,
    ) -> Result<()> {
        let grows = mode.difference(FallocateFlags::KEEP_SIZE).is_empty();
        self.view()?.may_change_content(id, grows)?;
        let file = open_staged(&self.writable(id)?, OFlags::RDWR)?;
        Ok(rustix::fs::fallocate(file, mode, offset, length)?)
    }

    /// Copies a range of bytes from one file to another, and tells how many it were.
    pub fn copy_range(&self, from: (InodeId, u64), to: (InodeId, u64), length: u64) -> Result<u64> {
        // As on other file systems: to what may only grow, a copy is a write like any other, which
        // the open has judged (fs/read_write.c, `generic_copy_file_checks`).
        self.view()?.may_change_content(to.0, true)?;
        let target = open_staged(&self.writable(to.0)?, OFlags::WRONLY)?;
        let source = self.backing(from.0, &self.current(from.0)?, OFlags::RDONLY)?;
        let (mut read_at, mut write_at, mut left) = (from.1, to.1, length);
        while left > 0 {
            let count = usize::try_from(left).unwrap_or(usize::MAX);
            let offsets = (Some(&mut read_at), Some(&mut write_at));
            match rustix::fs::copy_file_range(&source, offsets.0, &target, offsets.1, count) {
                Ok(0) => break,
                Ok(copied) => left -= copied as u64,
                Err(_) if left < length => break,
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(length - left)
    }

    /// Flushes a file to disk. Inputs are on disk.
    pub fn sync(&self, id: InodeId, data_only: bool) -> Result<()> {
        let (_, staged) = self.view()?.attributes(id)?;
        let Some(staged) = staged else {
            return self.flush_log();
        };
        let file = open_staged(&staged, OFlags::RDONLY)?;
        match data_only {
            true => rustix::fs::fdatasync(file)?,
            false => rustix::fs::fsync(file)?,
        }
        self.flush_log()
    }

    /// Finds data or a hole.
    pub fn seek(&self, id: InodeId, to: SeekFrom, caller: Caller) -> Result<u64> {
        let opened = match self.current(id)? {
            Opened::Staged(staged) => Opened::Staged(staged),
            Opened::Input { .. } => {
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

    /// Whether nobody can be writing to a staged file. Costs a lookup in a map, unless the file
    /// was written and closed since it was last asked.
    pub(super) fn is_settled(&self, id: InodeId, staged: &Staged) -> bool {
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

    /// A new staging file, to be put under a name, and a read-only descriptor of it.
    pub fn new_file(&self) -> Result<(Staged, File)> {
        self.create_staging_file(OFlags::RDONLY)
    }

    fn create_staging_file(&self, flags: OFlags) -> Result<(Staged, File)> {
        let created = self.staging.create_file(flags);
        let (staged, file) = created.map_err(|error| self.os_error(&error))?;
        Ok((Arc::new(staged), file))
    }

    /// Makes a regular file without a name that is open from the start (`O_TMPFILE`), and counts
    /// it as written.
    pub fn create_unnamed(
        &self,
        parent: InodeId,
        mode: NewMode,
        caller: Caller,
        now: Time,
    ) -> Result<(Stat, Staged, File)> {
        let (staged, file) = self.new_file()?;
        let backing = staged.clone();
        let made = self.change(|view| view.make_unnamed(parent, backing, mode, caller, now));
        let made = made.inspect_err(|_| staged.doom())?;
        self.count_writer(made.id);
        self.open.fetch_add(1, Ordering::Relaxed);
        Ok((self.complete((made, Some(staged.clone())))?, staged, file))
    }

    /// Makes a regular file that is open from the start, and counts it as written if that is intended.
    pub fn create(
        &self,
        parent: InodeId,
        name: &[u8],
        mode: NewMode,
        intent: OpenIntent,
        caller: Caller,
        now: Time,
    ) -> Result<(Stat, Staged, File)> {
        let (staged, file) = self.new_file()?;
        let stat = self.make(
            parent,
            name,
            NewNode::File(staged.clone()),
            mode,
            caller,
            now,
        )?;
        if intent.write {
            self.count_writer(stat.attributes.id);
        }
        if self.clock.is_some() {
            self.view()?.note_new(stat.attributes.id, intent);
        }
        self.open.fetch_add(1, Ordering::Relaxed);
        Ok((stat, staged, file))
    }

    pub(super) fn os_error(&self, error: &cas::Error) -> Refusal {
        tracing::warn!("{error}");
        match error {
            cas::Error::Io { source, .. } => {
                Refusal::Os(Errno::from_io_error(source).unwrap_or(Errno::IO))
            }
            _ => Refusal::Os(Errno::IO),
        }
    }
}

pub(super) fn open_staged(staged: &Staged, flags: OFlags) -> Result<File> {
    staged.open(flags).map_err(|error| match error {
        cas::Error::Io { source, .. } => {
            Refusal::Os(Errno::from_io_error(&source).unwrap_or(Errno::IO))
        }
        _ => Refusal::Os(Errno::IO),
    })
}

fn os_refusal(error: &std::io::Error) -> Refusal {
    Refusal::Os(Errno::from_io_error(error).unwrap_or(Errno::IO))
}

/// What of an input's content its copy is to have.
enum Keep {
    /// All.
    Content,
    /// Nothing: it is truncated.
    Nothing,
}
