//! Moving bytes between files the cheapest way the file systems allow.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

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
        // std copies between files by copy_file_range, and falls back by itself.
        io::copy(&mut &*from, &mut &*to).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};

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
}
