//! The log's file: a header, then frames.
//!
//! ```text
//! header  magic 8 · version u32 · inputs' digest in hex 64 · uid u32 · gid u32
//!         · born i64 + u32 · salt 16 · base u64 · check 8
//! frame   mark 4 · length u32 · durable u64 · check 8 · payload
//! ```
//!
//! A check is BLAKE3, keyed and cut to 8 bytes, over where the frame lies and all of it. The key
//! comes from the header with its random salt, so neither a frame that was moved, nor one of an
//! older log whose blocks the file system has given to this one, nor one that somebody stored as
//! an attribute's value, is ever taken for a frame of this log. CRC-32 knows no key, misses one
//! torn frame in 2^32, and would save about 0.1 µs.
//!
//! What tells a torn tail from corruption is `durable`: each frame says how far the log was on
//! disk for certain when the frame was written. The pages behind that may reach the disk in any
//! order, so bad bytes there, even with good frames behind, are an ordinary power failure; bad
//! bytes before it are not. `base` says the same of the facts that the file began with.

use std::ops::Range;

use cas::Digest;

use super::Error;
use crate::view::{Caller, Time};

/// What a saved view was made of. A log is replayed on nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The digest of the manifest of the inputs.
    pub inputs: Digest,
    /// Whom the inputs belong to.
    pub owner: Caller,
    /// When the view was first made, which is when its inputs count as changed.
    pub born: Time,
}

const MAGIC: &[u8; 8] = b"wakeview";

/// The version of the format that is written and understood here.
pub(super) const VERSION: u32 = 1;

/// Bytes of a header.
pub(super) const HEADER: usize = 128;
const SALT: Range<usize> = 96..112;
const BASE: Range<usize> = 112..120;
const CHECK: Range<usize> = 120..128;

/// Bytes of a frame without its payload.
pub(super) const FRAME: usize = 24;

/// What makes frames of one file and knows them again.
#[derive(Clone, Debug)]
pub(super) struct Framing {
    key: [u8; 32],
    mark: [u8; 4],
}

/// All that a file says.
pub(super) struct Scan {
    pub(super) framing: Framing,
    /// Where each payload lies.
    pub(super) payloads: Vec<Range<usize>>,
    /// Where the last whole frame ends.
    pub(super) end: usize,
    /// Up to where the file was on disk for certain when it got its name.
    pub(super) base: u64,
    /// Up to where some frame says that it was on disk.
    pub(super) durable: u64,
}

impl Header {
    /// The bytes of a header, for a file whose first `base` bytes are on disk when it gets its
    /// name.
    pub(super) fn encode(&self, salt: [u8; 16], base: u64) -> [u8; HEADER] {
        let mut bytes = Vec::with_capacity(HEADER);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(self.inputs.to_string().as_bytes());
        bytes.extend(self.owner.uid.to_le_bytes());
        bytes.extend(self.owner.gid.to_le_bytes());
        bytes.extend(self.born.seconds.to_le_bytes());
        bytes.extend(self.born.nanoseconds.to_le_bytes());
        let mut header = [0; HEADER];
        header[..SALT.start].copy_from_slice(&bytes);
        header[SALT].copy_from_slice(&salt);
        header[BASE].copy_from_slice(&base.to_le_bytes());
        let check = blake3::hash(&header[..CHECK.start]);
        header[CHECK].copy_from_slice(&check.as_bytes()[..8]);
        header
    }

    /// Reads a header and the file's base.
    pub(super) fn decode(bytes: &[u8]) -> Result<(Self, u64), Error> {
        if bytes.get(..8).is_some_and(|magic| magic != MAGIC) {
            return Err(Error::NotALog);
        }
        let header: &[u8; HEADER] = bytes.first_chunk().ok_or(Error::Corrupt { offset: 0 })?;
        let u32_at = |at| u32::from_le_bytes(array(header, at));
        let version = u32_at(8);
        if version != VERSION {
            return Err(Error::Version { found: version });
        }
        let check = blake3::hash(&header[..CHECK.start]);
        let inputs = std::str::from_utf8(&header[12..76]).ok();
        let inputs = inputs.and_then(|hex| hex.parse().ok());
        let (Some(inputs), true) = (inputs, header[CHECK] == check.as_bytes()[..8]) else {
            return Err(Error::Corrupt { offset: 0 });
        };
        let header = Self {
            inputs,
            owner: Caller {
                uid: u32_at(76),
                gid: u32_at(80),
            },
            born: Time {
                seconds: i64::from_le_bytes(array(header, 84)),
                nanoseconds: u32_at(92),
            },
        };
        Ok((header, u64::from_le_bytes(array(bytes, BASE.start))))
    }
}

/// `N` bytes at an offset that the caller knows to be inside.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|i| bytes[at + i])
}

impl Framing {
    /// That of a file with this header.
    pub(super) fn new(header: &[u8; HEADER]) -> Self {
        let key = blake3::derive_key("wakebox view log, keys of frames, 1", &header[..SALT.end]);
        let mark = blake3::derive_key("wakebox view log, mark of frames, 1", &header[..SALT.end]);
        Self {
            key,
            mark: array(&mark, 0),
        }
    }

    fn check(&self, at: u64, durable: u64, payload: &[u8]) -> [u8; 8] {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&at.to_le_bytes());
        hasher.update(&durable.to_le_bytes());
        hasher.update(payload);
        array(hasher.finalize().as_bytes(), 0)
    }

    /// Appends the frame of a payload, which will lie at offset `at` of the file.
    pub(super) fn frame(&self, at: u64, durable: u64, payload: &[u8], out: &mut Vec<u8>) {
        out.extend(self.mark);
        out.extend((payload.len() as u32).to_le_bytes());
        out.extend(durable.to_le_bytes());
        out.extend(self.check(at, durable, payload));
        out.extend(payload);
    }

    /// Where the payload of the frame at an offset lies, and what the frame says of the disk.
    fn frame_at(&self, bytes: &[u8], at: usize) -> Option<(Range<usize>, u64)> {
        let head = bytes.get(at..)?.first_chunk::<FRAME>()?;
        let length = u32::from_le_bytes(array(head, 4)) as usize;
        let range = at + FRAME..at + FRAME + length;
        let payload = bytes.get(range.clone())?;
        let durable = u64::from_le_bytes(array(head, 8));
        let good = head[..4] == self.mark && head[16..] == self.check(at as u64, durable, payload);
        good.then_some((range, durable))
    }

    /// The highest `durable` of all frames at or behind an offset, wherever they begin.
    fn durable_behind(&self, bytes: &[u8], from: usize) -> u64 {
        let starts = (from..bytes.len()).filter(|&at| bytes[at..].starts_with(&self.mark));
        let frames = starts.filter_map(|at| self.frame_at(bytes, at));
        frames.map(|(_, durable)| durable).max().unwrap_or(0)
    }
}

/// Finds the frames of a file, with its header.
pub(super) fn scan(bytes: &[u8]) -> Result<(Header, Scan), Error> {
    let (header, base) = Header::decode(bytes)?;
    let framing = Framing::new(&array(bytes, 0));
    let mut scan = Scan {
        framing,
        payloads: Vec::new(),
        end: HEADER,
        base,
        durable: base,
    };
    while let Some((payload, durable)) = scan.framing.frame_at(bytes, scan.end) {
        scan.end = payload.end;
        scan.durable = scan.durable.max(durable);
        scan.payloads.push(payload);
    }
    if scan.end < bytes.len() {
        let behind = scan.framing.durable_behind(bytes, scan.end);
        scan.durable = scan.durable.max(behind);
    }
    if (scan.end as u64) < scan.durable {
        let offset = scan.end as u64;
        return Err(Error::Corrupt { offset });
    }
    Ok((header, scan))
}
