//! Names of contents: BLAKE3 digests of 256 bits.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::str::FromStr;

mod pieces;

use pieces::Pieces;

/// Files up to this many bytes are hashed by one thread; larger ones by all cores: rayon's
/// fork-join only pays above a megabyte.
const PARALLEL_ABOVE: u64 = 1 << 20;

/// The BLAKE3 hash of some bytes: the only name content has in the store.
///
/// Made by hashing or by parsing 64 hexadecimal digits, in no other way. The bytes are *not*
/// checked against the digest when a blob is read: callers that need it ask
/// [`Store::verify`](crate::Store::verify).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

/// Text that is not 64 hexadecimal digits.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is not a BLAKE3 hash: expected 64 hexadecimal digits")]
pub struct InvalidDigest {
    text: String,
}

impl Digest {
    /// Hashes bytes in memory.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// As [`Digest::of`], by all cores if there is much to hash: by the threads of rayon's pool.
    pub fn of_large(bytes: &[u8]) -> Self {
        if bytes.len() as u64 <= PARALLEL_ABOVE {
            return Self::of(bytes);
        }
        let mut hasher = blake3::Hasher::new();
        Self(*hasher.update_rayon(bytes).finalize().as_bytes())
    }

    /// Hashes a file from its start to its end and returns the digest and the number of bytes.
    ///
    /// A file that shrinks meanwhile is an error, and so is one that cannot be read: nothing is
    /// mapped into memory, where both would be a signal that kills the process.
    pub fn of_file(file: &File) -> io::Result<(Self, u64)> {
        let is = file.metadata()?;
        if is.len() > PARALLEL_ABOVE {
            let hash = Pieces::of(file, &is)?.hash()?;
            return Ok((Self(*hash.as_bytes()), is.len()));
        }
        let mut hasher = blake3::Hasher::new();
        io::copy(&mut RewoundFile { file, at: 0 }, &mut hasher)?;
        Ok((Self(*hasher.finalize().as_bytes()), hasher.count()))
    }

    /// The raw 32 bytes, for documents that store digests in binary.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads back what [`Digest::as_bytes`] gave. Only documents of this crate may do so.
    pub(crate) fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

/// Reads a file from its start without moving the descriptor's own offset, which others share.
struct RewoundFile<'a> {
    file: &'a File,
    at: u64,
}

impl Read for RewoundFile<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = std::os::unix::fs::FileExt::read_at(self.file, buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        decode_hex(text.as_bytes())
            .map(Self)
            .ok_or_else(|| InvalidDigest {
                text: text.chars().take(80).collect(),
            })
    }
}

/// What a byte that is no hexadecimal digit stands for in [`NIBBLES`].
const NO_DIGIT: u8 = 0x80;

/// The value of every hexadecimal digit. By table, because a spec may hold 300,000 hashes:
/// `blake3::Hash::from_hex` takes 0.3 µs for each, a quarter of what reading such a spec took.
const NIBBLES: [u8; 256] = {
    let mut values = [NO_DIGIT; 256];
    let mut digit = 0;
    while digit < 16 {
        values[b"0123456789abcdef"[digit] as usize] = digit as u8;
        values[b"0123456789ABCDEF"[digit] as usize] = digit as u8;
        digit += 1;
    }
    values
};

/// `None` unless the text is 64 hexadecimal digits.
fn decode_hex(text: &[u8]) -> Option<[u8; 32]> {
    let (pairs, _) = text.as_chunks::<2>();
    let mut bytes = [0; 32];
    // All digits are looked at before any is judged: no branch but the last.
    let mut wrong = 0;
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        let (high, low) = (NIBBLES[usize::from(*high)], NIBBLES[usize::from(*low)]);
        wrong |= high | low;
        *byte = high << 4 | low;
    }
    (text.len() == 64 && wrong & NO_DIGIT == 0).then_some(bytes)
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const EMPTY: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

    #[test]
    fn the_empty_file_has_the_published_hash() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(
            EMPTY.to_uppercase().parse::<Digest>().unwrap(),
            Digest::of(b"")
        );
    }

    #[test]
    fn every_byte_of_a_digest_is_read() {
        let digest = Digest(std::array::from_fn(|i| (i * 37) as u8));
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        for at in 0..64 {
            for wrong in ["/", ":", "@", "`", "G", " "] {
                let mut text = digest.to_string();
                text.replace_range(at..=at, wrong);
                assert!(text.parse::<Digest>().is_err(), "{text}");
            }
        }
    }

    #[test]
    fn only_64_hex_digits_are_a_digest() {
        for text in [
            "",
            "af13",
            &EMPTY[1..],
            &format!("{EMPTY}0"),
            &EMPTY.replace('a', "g"),
        ] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_file_hashes_like_its_bytes_on_both_sides_of_the_limit() {
        let limit = PARALLEL_ABOVE as usize;
        for size in [0, 1, 4096, limit, limit + 1, 3 * limit + 1025] {
            let bytes: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&bytes).unwrap();
            let expected = (Digest::of(&bytes), size as u64);
            assert_eq!(Digest::of_file(&file).unwrap(), expected);
            assert_eq!(Digest::of_large(&bytes), expected.0);
        }
    }
}
