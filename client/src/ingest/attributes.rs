//! What `lstat` and `fstat` say about an input.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

/// The identity and state of a file, by which a later run recognises it unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Length in bytes.
    pub size: u64,
    /// Modification time, nanoseconds since the epoch.
    pub mtime: i64,
    /// Time of the last change of content or attributes, nanoseconds since the epoch.
    pub ctime: i64,
}

/// The kinds of files that can be inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundKind {
    /// A regular file.
    File,
    /// A symbolic link, never followed.
    Symlink,
    /// A directory.
    Directory,
}

/// What is known of an input without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// What it is.
    pub kind: FoundKind,
    /// Permission bits, `0o7777` at most.
    pub mode: u16,
    /// Its identity and state.
    pub stamp: Stamp,
}

impl Attributes {
    /// Takes over what the kernel said; `None` for sockets, fifos and devices, which have no
    /// content that could be an input.
    pub fn of(metadata: &Metadata) -> Option<Self> {
        let kind = metadata.file_type();
        let kind = match (kind.is_file(), kind.is_symlink(), kind.is_dir()) {
            (true, ..) => FoundKind::File,
            (_, true, _) => FoundKind::Symlink,
            (.., true) => FoundKind::Directory,
            _ => return None,
        };
        let mode = (metadata.mode() & 0o7777) as u16;
        let stamp = Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            mtime: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            ctime: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        };
        Some(Self { kind, mode, stamp })
    }
}

/// Saturates: `i64` nanoseconds end in the year 2262, some file systems' times do not.
fn nanoseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_cannot_be_an_input_and_far_times_saturate() {
        assert!(Attributes::of(&std::fs::metadata("/dev/null").unwrap()).is_none());
        assert_eq!(nanoseconds(i64::MAX, 5), i64::MAX);
        assert_eq!(nanoseconds(-1, 999_999_999), -1);
    }
}
