//! Taking a file's content into the store while others may be writing to the file.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;
use std::sync::Arc;

use cas::staging::StagingDirectory;
use cas::{Digest, Store};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::ingest::attributes::{Attributes, FoundKind};

/// Reading a file is tried so often before its writer is taken to be permanent.
const ATTEMPTS: usize = 3;

/// Files up to this many bytes are first hashed in memory, and copied only if the store lacks
/// them. performance.md: open, read and hash take 9 µs, a copy into the store 37-46 µs; so after
/// a lost index, or soon after a checkout, when no record can be trusted, most files cost a
/// quarter. Larger files gain little, as the read then is most of the work, and is done twice.
const PROBED_UP_TO: u64 = 128 << 10;

/// A file's content in the store, and the state of the file that has this content.
pub(super) struct Taken {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) attributes: Attributes,
}

/// Why a file could not be taken.
pub(super) enum Refusal {
    /// It kept changing, or became something else.
    Unsteady,
    /// It cannot be opened or read.
    Io(io::Error),
    /// The store cannot hold it.
    Store(cas::Error),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Takes the file, again if it changed meanwhile.
pub(super) fn take(
    store: &Store,
    staging: &Arc<StagingDirectory>,
    path: &Path,
) -> Result<Taken, Refusal> {
    take_steady(path, &mut |file, size| put(store, staging, file, size))
}

/// Stores what an open file holds, of about the given size, and says how much that was.
type Put<'a> = dyn FnMut(&mut File, u64) -> Result<(Digest, u64), Refusal> + 'a;

fn take_steady(path: &Path, put: &mut Put<'_>) -> Result<Taken, Refusal> {
    for _ in 0..ATTEMPTS {
        let mut file = open(path)?;
        let before = regular(&file)?;
        let (digest, size) = put(&mut file, before.stamp.size)?;
        // A rename over the file shows here too: it lowers the link count, which moves the ctime.
        if regular(&file)? == before && size == before.stamp.size {
            return Ok(Taken {
                digest,
                size,
                attributes: before,
            });
        }
    }
    Err(Refusal::Unsteady)
}

fn open(path: &Path) -> Result<File, Refusal> {
    // O_NONBLOCK: what was a file when it was found may be a fifo by now, and opening that would
    // wait for a writer.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
        Ok(fd) => Ok(File::from(fd)),
        Err(Errno::LOOP) => Err(Refusal::Unsteady),
        Err(error) => Err(Refusal::Io(error.into())),
    }
}

fn regular(file: &File) -> Result<Attributes, Refusal> {
    match Attributes::of(&file.metadata()?) {
        Some(attributes) if attributes.kind == FoundKind::File => Ok(attributes),
        _ => Err(Refusal::Unsteady),
    }
}

fn put(
    store: &Store,
    staging: &Arc<StagingDirectory>,
    file: &mut File,
    size: u64,
) -> Result<(Digest, u64), Refusal> {
    if size <= PROBED_UP_TO {
        let mut bytes = Vec::with_capacity(size as usize + 1);
        file.take(PROBED_UP_TO + 1).read_to_end(&mut bytes)?;
        let (digest, length) = (Digest::of(&bytes), bytes.len() as u64);
        if is_stored(store, digest, length)? {
            return Ok((digest, length));
        }
        file.rewind()?;
    }
    store.put_file(file, staging).map_err(Refusal::Store)
}

/// Whether the store has a blob of this name and, as far as that can be seen cheaply, whole.
pub(super) fn is_stored(store: &Store, digest: Digest, size: u64) -> Result<bool, Refusal> {
    let stat = store.claim(digest).map_err(Refusal::Store)?;
    Ok(stat.is_some_and(|stat| stat.size == size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(content: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        file
    }

    #[test]
    fn a_file_that_changes_once_is_read_again_and_one_that_never_rests_is_refused() {
        let mut input = file(b"old");
        let path = input.path().to_path_buf();
        let mut calls = 0;
        let mut change_until = |last: usize| {
            take_steady(&path, &mut |file, _| {
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes)?;
                calls += 1;
                if calls <= last {
                    input.write_all(b"!").unwrap();
                }
                Ok((Digest::of(&bytes), bytes.len() as u64))
            })
        };
        let taken = change_until(1).ok().unwrap();
        assert_eq!((taken.digest, taken.size), (Digest::of(b"old!"), 4));
        assert!(matches!(change_until(usize::MAX), Err(Refusal::Unsteady)));
    }

    #[test]
    fn a_replaced_file_is_read_again() {
        let (input, other) = (file(b"old"), file(b"new"));
        let (path, other) = (input.path().to_path_buf(), other.into_temp_path());
        let mut calls = 0;
        let taken = take_steady(&path, &mut |file, _| {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            calls += 1;
            if calls == 1 {
                // Longer than a tick of the clock that kernels before 6.13 stamp changes with.
                std::thread::sleep(std::time::Duration::from_millis(20));
                std::fs::rename(&other, &path).unwrap();
            }
            Ok((Digest::of(&bytes), 3))
        });
        assert_eq!(taken.ok().unwrap().digest, Digest::of(b"new"));
    }

    #[test]
    fn links_and_fifos_in_place_of_the_file_neither_block_nor_are_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (link, fifo) = (directory.path().join("l"), directory.path().join("f"));
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let mut never = |_: &mut File, _| panic!("nothing to read");
        for path in [link, fifo] {
            assert!(matches!(
                take_steady(&path, &mut never),
                Err(Refusal::Unsteady)
            ));
        }
    }

    #[test]
    fn content_on_both_sides_of_the_probing_limit_is_stored() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let staging = store.new_staging("test").unwrap();
        for size in [0, PROBED_UP_TO, PROBED_UP_TO + 1] {
            let content = vec![b'x'; size as usize];
            let input = file(&content);
            for _ in 0..2 {
                let taken = take(&store, &staging, input.path()).ok().unwrap();
                assert_eq!(taken.digest, Digest::of(&content));
                assert_eq!(store.read(taken.digest).unwrap(), content);
            }
        }
    }
}
