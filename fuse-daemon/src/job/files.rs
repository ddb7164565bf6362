//! Files of a job that are open, and what backs them.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use cas::RelPath;
use cas::staging::is_quiet;
use cas::tree::NodeIndex;
use rustix::fs::{FallocateFlags, OFlags, SeekFrom};
use rustix::io::Errno;

use super::{Job, Refusal, Result, Staged, Stat};
use crate::view::{Caller, Fault, InodeId, NewNode, OpenIntent, Opened, Time};

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

    fn os_error(&self, error: &cas::Error) -> Refusal {
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
