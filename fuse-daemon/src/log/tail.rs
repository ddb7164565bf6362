//! The end of the log's file, where frames are added.

use std::fs::File;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, Mode, OFlags, fallocate};
use rustix::io::{Errno, Result};

use super::error::{Error, Trying};
use super::frame::{FRAME, Framing, HEADER, Header, Scan};
use super::{FILE, codec};
use crate::view::Fact;

/// The name of a file that is not the log yet.
pub(super) const NEW: &str = "view.log.new";

/// Space that is allocated ahead, so that on a full disk files can still be removed: to remove is
/// to write a frame. The half that is always left has room for some two thousand removals of 250
/// bytes each.
const RESERVE: u64 = 1 << 20;

/// Facts that wait to be framed: one length and one payload per change.
#[derive(Debug, Default)]
pub(super) struct Payloads(pub(super) Vec<u8>);

impl Payloads {
    /// Adds the facts of one change, and returns what was added.
    pub(super) fn push<S>(&mut self, facts: &[Fact<S>], number: impl Fn(&S) -> u64) -> &[u8] {
        let start = self.0.len();
        self.0.extend([0; 4]);
        codec::encode(facts, number, &mut self.0);
        let length = (self.0.len() - start - 4) as u32;
        self.0[start..start + 4].copy_from_slice(&length.to_le_bytes());
        &self.0[start..]
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || {
            let (length, behind) = rest.split_first_chunk()?;
            let (payload, behind) = behind.split_at(u32::from_le_bytes(*length) as usize);
            rest = behind;
            Some(payload)
        })
    }
}

/// A file of frames, and how far it is written.
#[derive(Debug)]
pub(super) struct Tail {
    pub(super) file: Arc<File>,
    framing: Framing,
    salt: [u8; 16],
    /// Bytes of the facts that the file began with.
    pub(super) base: u64,
    /// Where the last whole frame ends.
    pub(super) end: u64,
    /// Up to where the file is on disk for certain.
    pub(super) durable: u64,
    /// Up to where the file itself says so.
    vouched: u64,
    /// Up to where space is allocated.
    reserved: u64,
    /// Whether the disk is too full to allocate ahead.
    pub(super) short: bool,
    /// Grows with each replacement, because offsets mean another file then.
    pub(super) generation: u64,
    buffer: Vec<u8>,
}

impl Tail {
    /// The end of a file that has been read, cut to its whole frames and flushed.
    pub(super) fn behind(scan: Scan, file: File) -> Self {
        Self {
            base: scan.base,
            vouched: scan.durable,
            ..Self::new(file, scan.framing, [0; 16], scan.end as u64)
        }
    }

    fn new(file: File, framing: Framing, salt: [u8; 16], end: u64) -> Self {
        Self {
            file: Arc::new(file),
            framing,
            salt,
            base: end,
            end,
            durable: end,
            vouched: end,
            reserved: end,
            short: false,
            generation: 0,
            buffer: Vec::new(),
        }
    }

    /// A new file without facts, not yet under the log's name.
    pub(super) fn create(
        directory: BorrowedFd<'_>,
        header: &Header,
    ) -> std::result::Result<Self, Error> {
        let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::RDWR;
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::openat(directory, NEW, flags, Mode::RUSR | Mode::WUSR)
            .trying("create a new log")?;
        let mut salt = [0; 16];
        let flags = rustix::rand::GetRandomFlags::empty();
        rustix::rand::getrandom(&mut salt, flags).trying("get random bytes")?;
        let framing = Framing::new(&header.encode(salt, 0));
        Ok(Self::new(File::from(fd), framing, salt, HEADER as u64))
    }

    /// Puts the file under the log's name, whole and on disk. The second result is whether the
    /// name is on disk as well.
    pub(super) fn adopt(
        &mut self,
        directory: BorrowedFd<'_>,
        header: &Header,
    ) -> std::result::Result<Result<()>, Error> {
        let header = header.encode(self.salt, self.end);
        (self.file.write_all_at(&header, 0)).trying("write the header of a new log")?;
        rustix::fs::fsync(&self.file).trying("flush a new log")?;
        rustix::fs::renameat(directory, NEW, directory, FILE).trying("rename a new log")?;
        (self.base, self.durable, self.vouched) = (self.end, self.end, self.end);
        Ok(rustix::fs::fsync(directory))
    }

    /// Adds a frame for each payload, by one write. Adds all or none.
    pub(super) fn write(&mut self, payloads: &Payloads) -> Result<()> {
        self.buffer.clear();
        for payload in payloads.iter() {
            let at = self.end + self.buffer.len() as u64;
            self.framing
                .frame(at, self.durable, payload, &mut self.buffer);
        }
        if let Err(error) = self.file.write_all_at(&self.buffer, self.end) {
            // A part of it may be there. If that cannot be cut off now, the next write goes over
            // it with the same frames, or the next mount cuts it off.
            let _ = rustix::fs::ftruncate(&self.file, self.end);
            self.reserved = self.end;
            return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
        }
        self.end += self.buffer.len() as u64;
        if !self.buffer.is_empty() {
            self.vouched = self.durable;
        }
        self.buffer.shrink_to(RESERVE as usize);
        self.reserve();
        Ok(())
    }

    /// Allocates ahead when half of what was allocated is used. Where the file system cannot,
    /// nothing is gained and nothing lost.
    pub(super) fn reserve(&mut self) {
        if self.reserved >= self.end + RESERVE / 2 {
            return;
        }
        let done = fallocate(&self.file, FallocateFlags::KEEP_SIZE, self.end, RESERVE);
        self.short = matches!(done, Err(Errno::NOSPC | Errno::DQUOT));
        if !self.short {
            self.reserved = self.end + RESERVE;
        }
    }

    /// Adds an empty frame that says that all before it is on disk, if it is and no frame says so.
    pub(super) fn seal(&mut self) -> Result<()> {
        let unsaid = self.end.saturating_sub(self.vouched);
        if self.durable < self.end || unsaid <= FRAME as u64 {
            return Ok(());
        }
        let mut empty = Payloads::default();
        empty.push::<u64>(&[], |number| *number);
        self.write(&empty)
    }
}
