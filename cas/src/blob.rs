//! Immutable content, opened.

use std::fs::File;

use crate::digest::Digest;

/// A blob opened for reading.
#[derive(Debug)]
pub struct Blob {
    /// Its name.
    pub digest: Digest,
    /// A read-only descriptor of its bytes.
    pub file: File,
}

/// What is known of a blob without opening it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobStat {
    /// Length in bytes.
    pub size: u64,
    /// When it was last used: seconds since the epoch, exact to the hour, the time of last access
    /// of its file.
    pub used: i64,
}
