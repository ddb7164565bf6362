//! A shorter log in place of a long one.

use std::os::fd::AsFd;

use rustix::fs::AtFlags;

use super::error::{Error, Trying};
use super::tail::{NEW, Payloads, Tail};
use super::{Log, locked};
use crate::view::Fact;

/// Facts per frame of a snapshot: some 50 KB, so that a snapshot is never in memory twice.
const PER_FRAME: usize = 512;

/// A replacement that has begun. What is appended from now on will be in the old file and behind
/// the snapshot in the new one. Dropped, it has not happened.
#[derive(Debug)]
#[must_use = "finish it with the snapshot that was taken under the same lock"]
pub struct Replacement<'a>(&'a Log);

impl Log {
    /// Begins to replace the log by a snapshot. To be called under the view's lock, when all facts
    /// of the view have been appended, and together with taking the snapshot. `None` if another
    /// replacement is under way.
    pub fn begin_replacement(&self) -> Option<Replacement<'_>> {
        let mut pending = locked(&self.pending).ok()?;
        if pending.since.is_some() {
            return None;
        }
        pending.since = Some(Payloads::default());
        drop(pending);
        Some(Replacement(self))
    }
}

impl Replacement<'_> {
    /// Writes the new file and puts it in the old one's place. Others go on writing to the old one
    /// until the end, which takes as long as flushing what they wrote meanwhile. To be called
    /// without the view's lock. If it fails, the old log stays and nothing is lost.
    ///
    /// All that was appended before is on disk afterwards, even if an earlier flush had failed.
    pub fn finish<S>(
        self,
        snapshot: &[Fact<S>],
        number: impl Fn(&S) -> u64,
    ) -> std::result::Result<(), Error> {
        let done = self.replace(snapshot, number);
        if done.is_err() {
            // After the rename there is nothing of that name.
            let _ = rustix::fs::unlinkat(&self.0.directory, NEW, AtFlags::empty());
        }
        done.map_err(|error| error.at(self.0.path()))
    }

    fn replace<S>(
        &self,
        snapshot: &[Fact<S>],
        number: impl Fn(&S) -> u64,
    ) -> std::result::Result<(), Error> {
        let log = self.0;
        let mut fresh = Tail::create(log.directory.as_fd(), &log.header)?;
        let mut payloads = Payloads::default();
        for facts in snapshot.chunks(PER_FRAME) {
            payloads.0.clear();
            payloads.push(facts, &number);
            fresh.write(&payloads).trying("write a new log")?;
        }
        // Most of it goes to disk while others still write to the old file.
        rustix::fs::fdatasync(&fresh.file).trying("flush a new log")?;
        self.switch(fresh)
    }

    fn switch(&self, mut fresh: Tail) -> std::result::Result<(), Error> {
        let log = self.0;
        let mut failure = locked(&log.syncing).trying("replace the log")?;
        let mut tail = locked(&log.tail).trying("replace the log")?;
        let (covered, since) = {
            let mut pending = locked(&log.pending).trying("replace the log")?;
            // The empty buffer left here goes on being filled until we are dropped, for nothing;
            // but it keeps a second replacement away.
            let since = pending.since.as_mut().map(std::mem::take);
            (pending.payloads.0.len(), since.unwrap_or_default())
        };
        fresh.write(&since).trying("write a new log")?;
        fresh.generation = tail.generation + 1;
        let named = fresh.adopt(log.directory.as_fd(), &log.header)?;
        *failure = named.err();
        // What waited to be written is in the snapshot or in `since`.
        let mut pending = locked(&log.pending).trying("replace the log")?;
        pending.payloads.0.drain(..covered);
        drop(pending);
        let old = std::mem::replace(&mut *tail, fresh);
        drop((tail, failure));
        // This gives the old file's blocks back, which may take a while.
        drop(old);
        named.trying("flush the state directory")
    }
}

impl Drop for Replacement<'_> {
    fn drop(&mut self) {
        if let Ok(mut pending) = locked(&self.0.pending) {
            pending.since = None;
        }
    }
}
