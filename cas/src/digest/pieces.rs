//! Hashing a large file by all cores, each piece read by the thread that hashes it.
//!
//! BLAKE3 is a tree, so pieces can be hashed in any order; its own hasher does the same for what is
//! in memory. A memory map would bring the file there, but turns a read error, or a file system
//! without room for a hole (tmpfs), into SIGBUS, and fills the page cache with the zeros of holes.

use std::fs::{File, Metadata};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root,
};
use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// Bytes that a thread reads and hashes at once: fits into a core's second cache, and on a stack.
const PIECE: usize = 64 << 10;

/// What a hole holds.
static ZEROS: [u8; PIECE] = [0; PIECE];

/// A file of more than one piece.
pub(super) struct Pieces<'f> {
    file: &'f File,
    size: u64,
    /// Where holes are looked for, if there are any. A description of its own, because that moves
    /// its offset.
    holes: Option<File>,
}

impl<'f> Pieces<'f> {
    /// `is` is what the file system says of the file.
    pub(super) fn of(file: &'f File, is: &Metadata) -> io::Result<Self> {
        let size = is.len();
        let is_sparse = is.blocks().saturating_mul(512) < size;
        let again = || File::open(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let holes = is_sparse.then(again).transpose()?;
        Ok(Self { file, size, holes })
    }

    pub(super) fn hash(&self) -> io::Result<blake3::Hash> {
        let (left, right) = self.halves(0, self.size)?;
        Ok(merge_subtrees_root(&left, &right, Mode::Hash))
    }

    fn halves(&self, at: u64, length: u64) -> io::Result<(ChainingValue, ChainingValue)> {
        let left = left_subtree_len(length);
        let halves = rayon::join(
            || self.subtree(at, left),
            || self.subtree(at + left, length - left),
        );
        Ok((halves.0?, halves.1?))
    }

    fn subtree(&self, at: u64, length: u64) -> io::Result<ChainingValue> {
        match usize::try_from(length) {
            Ok(length) if length <= PIECE => self.piece(at, length),
            _ => {
                let (left, right) = self.halves(at, length)?;
                Ok(merge_subtrees_non_root(&left, &right, Mode::Hash))
            }
        }
    }

    fn piece(&self, at: u64, length: usize) -> io::Result<ChainingValue> {
        let mut hasher = blake3::Hasher::new();
        hasher.set_input_offset(at);
        if self.is_hole(at, length) {
            hasher.update(&ZEROS[..length]);
            return Ok(hasher.finalize_non_root());
        }
        let mut buffer = [MaybeUninit::uninit(); PIECE];
        let mut done = 0;
        while done < length {
            let rest = &mut buffer[..length - done];
            let read = rustix::io::pread(self.file, rest, at + done as u64);
            match read.map(|(bytes, _)| bytes) {
                Ok([]) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => {
                    hasher.update(bytes);
                    done += bytes.len();
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(hasher.finalize_non_root())
    }

    /// Whether there is nothing but a hole. Who cannot say is read.
    fn is_hole(&self, at: u64, length: usize) -> bool {
        let Some(holes) = &self.holes else {
            return false;
        };
        match rustix::fs::seek(holes, SeekFrom::Data(at)) {
            Ok(data) => data >= at + length as u64,
            // No data behind this; or behind the end, which reading will find out.
            Err(errno) => errno == Errno::NXIO && at + (length as u64) <= self.size,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Digest;
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn holes_count_as_zeros_wherever_they_are() {
        let mut bytes = vec![0; 40 * PIECE + 77];
        let file = tempfile::tempfile().unwrap();
        file.set_len(bytes.len() as u64).unwrap();
        for at in [PIECE - 1, 9 * PIECE + 4096, 33 * PIECE] {
            bytes[at..at + 3].copy_from_slice(b"abc");
            file.write_all_at(b"abc", at as u64).unwrap();
            let (digest, size) = Digest::of_file(&file).unwrap();
            assert_eq!((digest, size), (Digest::of(&bytes), bytes.len() as u64));
        }
    }

    #[test]
    fn a_file_that_has_shrunk_is_an_error_and_no_signal() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[1; 3 * PIECE], 0).unwrap();
        let before = Pieces::of(&file, &file.metadata().unwrap()).unwrap();
        file.set_len(PIECE as u64).unwrap();
        let error = before.hash().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
