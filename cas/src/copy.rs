//! Moving bytes between files the cheapest way the file systems allow.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// Copies files between one pair of file systems: by reflink where that works, else by
/// `copy_file_range`, else through memory. Whether reflinks work is found out once.
///
/// Never by hard link: an edit of the copy would then change the original.
#[derive(Debug, Default)]
pub struct Copier {
    no_reflink: AtomicBool,
}

impl Copier {
    /// Fills the empty file `to` with the content of `from`, which is read from its start.
    pub fn copy(&self, from: &File, to: &File) -> io::Result<()> {
        if !self.no_reflink.load(Ordering::Relaxed) {
            match rustix::fs::ioctl_ficlone(to, from) {
                Ok(()) => return Ok(()),
                // What the kernel answers where the file system, or this pair of them, has no
                // reflinks. Anything else (ENOSPC, EIO, ...) is a real failure.
                Err(
                    Errno::OPNOTSUPP | Errno::NOTTY | Errno::INVAL | Errno::XDEV | Errno::NOSYS,
                ) => {
                    self.no_reflink.store(true, Ordering::Relaxed);
                }
                Err(error) => return Err(error.into()),
            }
        }
        let is = from.metadata()?;
        if is.blocks().saturating_mul(512) < is.len() {
            return copy_data(from, to, is.len());
        }
        // std copies between files by copy_file_range, and falls back by itself.
        io::copy(&mut &*from, &mut &*to).map(drop)
    }
}

/// Copies what is data, and leaves out what is a hole: a disk image of 20 GiB may be a megabyte.
fn copy_data(from: &File, to: &File, size: u64) -> io::Result<()> {
    let mut at = 0;
    while let Some(data) = data_behind(from, at)? {
        // There is a hole at the end of each file.
        at = rustix::fs::seek(from, SeekFrom::Hole(data))?;
        rustix::fs::seek(from, SeekFrom::Start(data))?;
        rustix::fs::seek(to, SeekFrom::Start(data))?;
        io::copy(&mut from.take(at - data), &mut &*to)?;
    }
    to.set_len(size)
}

/// Where data begins at or behind a place. A file system without holes says that all is data.
fn data_behind(file: &File, at: u64) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(data) => Ok(Some(data)),
        Err(Errno::NXIO) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, Write};
    use std::os::unix::fs::FileExt;

    #[test]
    fn a_copy_has_the_bytes_and_is_independent() {
        let mut from = tempfile::tempfile().unwrap();
        from.write_all(b"content").unwrap();
        from.rewind().unwrap();
        let mut to = tempfile::tempfile().unwrap();
        Copier::default().copy(&from, &to).unwrap();
        from.write_all(b"more").unwrap();
        let mut copied = String::new();
        to.rewind().unwrap();
        to.read_to_string(&mut copied).unwrap();
        assert_eq!(copied, "content");
    }

    #[test]
    fn holes_stay_holes() {
        let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let size = 64 << 20;
        from.set_len(size).unwrap();
        for at in [0, 5 << 20, size - 3] {
            from.write_all_at(b"abc", at).unwrap();
        }
        Copier::default().copy(&from, &to).unwrap();
        let is = to.metadata().unwrap();
        assert_eq!(is.len(), size);
        assert!(is.blocks() * 512 < 1 << 20, "{} blocks", is.blocks());
        assert_eq!(
            crate::Digest::of_file(&to).unwrap(),
            crate::Digest::of_file(&from).unwrap()
        );
    }

    #[test]
    fn nothing_but_a_hole_is_copied_too() {
        let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        from.set_len(1 << 20).unwrap();
        Copier::default().copy(&from, &to).unwrap();
        assert_eq!(to.metadata().unwrap().len(), 1 << 20);
    }
}
