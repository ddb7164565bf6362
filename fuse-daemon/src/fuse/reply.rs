//! What the kernel is told: replies, encoded into a buffer that is used again. Pure.

use rustix::io::Errno;
use zerocopy::{Immutable, IntoBytes};

use super::abi;

/// The most that one request reads or writes, in bytes. The kernel's own limit, too, unless
/// `fs.fuse.max_pages_limit` is raised.
pub(super) const MAX_IO: usize = 1 << 20;

const HEADER: usize = size_of::<abi::OutHeader>();

/// Entries of a listing begin at multiples of this.
const ALIGNMENT: usize = 8;

/// The smallest entries of a listing, without and with attributes.
pub(super) const ENTRY_MIN: usize = size_of::<abi::Dirent>() + ALIGNMENT;
pub(super) const ENTRY_PLUS_MIN: usize = size_of::<abi::EntryOut>() + ENTRY_MIN;

/// What an entry of a listing without attributes takes, in bytes.
pub(super) fn dirent_size(name: usize) -> usize {
    size_of::<abi::Dirent>() + name.next_multiple_of(ALIGNMENT)
}

/// What the kernel is to forget of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outdated {
    /// What `stat` shows.
    Attributes,
    /// That, and its pages: of a directory, the names that were listed.
    Content,
}

/// A reply that is being made.
#[derive(Debug)]
pub(super) struct Reply {
    /// A header, and room for the longest reply. Pages that no reply reached are not in memory.
    buffer: Box<[u8]>,
    length: usize,
}

impl Reply {
    pub(super) fn new() -> Self {
        Self {
            buffer: vec![0; HEADER + MAX_IO].into(),
            length: HEADER,
        }
    }

    /// Begins anew.
    pub(super) fn clear(&mut self) {
        self.length = HEADER;
    }

    /// Adds words of the protocol. What does not fit is left out, which never happens to a reply
    /// that the kernel has room for.
    pub(super) fn push(&mut self, words: &(impl IntoBytes + Immutable)) {
        self.push_bytes(words.as_bytes());
    }

    /// Adds bytes, for example a link's target.
    pub(super) fn push_bytes(&mut self, bytes: &[u8]) {
        let room = &mut self.buffer[self.length..];
        if let Some(room) = room.get_mut(..bytes.len()) {
            room.copy_from_slice(bytes);
            self.length += bytes.len();
        }
    }

    /// Room for at most `size` bytes of content. How many came is told to [`Reply::filled`].
    pub(super) fn room(&mut self, size: usize) -> &mut [u8] {
        let room = &mut self.buffer[self.length..];
        let size = size.min(room.len());
        &mut room[..size]
    }

    /// Keeps the first `count` bytes of the room.
    pub(super) fn filled(&mut self, count: usize) {
        self.length = (self.length + count).min(self.buffer.len());
    }

    /// Adds an entry to a listing of at most `limit` bytes. `false` if it has no room.
    pub(super) fn entry(&mut self, limit: usize, entry: &abi::Dirent, name: &[u8]) -> bool {
        self.fits(limit, ENTRY_MIN - ALIGNMENT, name) && {
            self.push_entry(entry, name);
            true
        }
    }

    /// Adds an entry with attributes to a listing of at most `limit` bytes. `false` if it has no
    /// room.
    pub(super) fn entry_plus(
        &mut self,
        limit: usize,
        attributes: &abi::EntryOut,
        entry: &abi::Dirent,
        name: &[u8],
    ) -> bool {
        self.fits(limit, ENTRY_PLUS_MIN - ALIGNMENT, name) && {
            self.push(attributes);
            self.push_entry(entry, name);
            true
        }
    }

    fn fits(&self, limit: usize, fixed: usize, name: &[u8]) -> bool {
        let listed = self.length - HEADER;
        listed + fixed + name.len().next_multiple_of(ALIGNMENT) <= limit.min(MAX_IO)
    }

    fn push_entry(&mut self, entry: &abi::Dirent, name: &[u8]) {
        self.push(entry);
        self.push_bytes(name);
        let padding = name.len().next_multiple_of(ALIGNMENT) - name.len();
        self.push_bytes(&[0; ALIGNMENT][..padding]);
    }

    /// The bytes to send, when all has been added.
    pub(super) fn finish(&mut self, unique: u64) -> &[u8] {
        self.head(unique, 0)
    }

    /// The bytes of a refusal. What has been added is dropped.
    pub(super) fn refuse(&mut self, unique: u64, errno: Errno) -> &[u8] {
        self.clear();
        self.head(unique, -errno.raw_os_error())
    }

    /// The bytes of a message that nobody asked for: the kernel is to ask for what it knows of an
    /// inode before it tells that again. What has been added is dropped.
    pub(super) fn outdated(&mut self, inode: u64, what: Outdated) -> &[u8] {
        self.clear();
        let off = match what {
            Outdated::Attributes => -1,
            Outdated::Content => 0,
        };
        // A length of 0 is up to the end (fs/fuse/inode.c, `fuse_reverse_inval_inode`).
        self.push(&abi::NotifyInvalInodeOut {
            ino: inode,
            off,
            len: 0,
        });
        self.head(0, abi::NOTIFY_INVAL_INODE)
    }

    fn head(&mut self, unique: u64, error: i32) -> &[u8] {
        let header = abi::OutHeader {
            len: self.length as u32,
            error,
            unique,
        };
        self.buffer[..HEADER].copy_from_slice(header.as_bytes());
        &self.buffer[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromBytes;

    use super::*;

    fn header(bytes: &[u8]) -> (u32, i32, u64) {
        let (header, _) = abi::OutHeader::read_from_prefix(bytes).expect("a header");
        (header.len, header.error, header.unique)
    }

    #[test]
    fn a_reply_is_a_header_and_what_was_added() {
        let mut reply = Reply::new();
        reply.push(&abi::WriteOut {
            size: 12,
            padding: 0,
        });
        reply.push_bytes(b"and");
        let bytes = reply.finish(9);
        assert_eq!(header(bytes), (27, 0, 9));
        assert_eq!(&bytes[16..], b"\x0c\0\0\0\0\0\0\0and");
        reply.clear();
        assert_eq!(header(reply.finish(10)), (16, 0, 10));
    }

    #[test]
    fn a_message_about_outdated_attributes_is_no_reply() {
        let mut reply = Reply::new();
        reply.push_bytes(b"half an answer");
        let bytes = reply.outdated(7, Outdated::Attributes);
        assert_eq!((header(bytes), bytes.len()), ((40, 2, 0), 40));
        assert_eq!(&bytes[16..], [7u64, u64::MAX, 0].as_bytes());
        let bytes = reply.outdated(7, Outdated::Content);
        assert_eq!((header(bytes), bytes.len()), ((40, 2, 0), 40));
        assert_eq!(&bytes[16..], [7u64, 0, 0].as_bytes());
    }

    #[test]
    fn a_refusal_has_no_body() {
        let mut reply = Reply::new();
        reply.push_bytes(b"half an answer");
        let bytes = reply.refuse(3, Errno::NOENT);
        assert_eq!((header(bytes), bytes.len()), ((16, -2, 3), 16));
    }

    #[test]
    fn content_is_read_in_place_and_never_past_the_end() {
        let mut reply = Reply::new();
        reply.room(10)[..4].copy_from_slice(b"read");
        reply.filled(4);
        assert_eq!(&reply.finish(1)[16..], b"read");
        reply.clear();
        assert_eq!(reply.room(usize::MAX).len(), MAX_IO);
        reply.filled(usize::MAX - HEADER);
        assert_eq!(reply.finish(1).len(), HEADER + MAX_IO);
        reply.push_bytes(b"too much");
        assert_eq!(reply.finish(1).len(), HEADER + MAX_IO);
    }

    /// A listing as the kernel reads it (fs/fuse/readdir.c, `parse_dirfile`).
    fn parse(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let mut found = Vec::new();
        while let Ok((entry, rest)) = abi::Dirent::read_from_prefix(bytes) {
            let length = entry.namelen as usize;
            found.push((entry.off, rest[..length].to_vec()));
            bytes = &rest[length.next_multiple_of(8)..];
        }
        assert!(bytes.is_empty(), "{} bytes are left", bytes.len());
        found
    }

    fn dirent(off: u64, name: &[u8]) -> abi::Dirent {
        abi::Dirent {
            ino: 1,
            off,
            namelen: name.len() as u32,
            kind: 8,
        }
    }

    #[test]
    fn a_listing_is_aligned_and_ends_at_its_limit() {
        let names: [&[u8]; 4] = [b"a", b"exactly8", b"nine char", &[b'x'; 255]];
        let mut reply = Reply::new();
        for (off, name) in names.into_iter().enumerate() {
            assert!(reply.entry(4096, &dirent(off as u64, name), name));
        }
        let listed = parse(&reply.finish(1)[16..]);
        let expected: Vec<_> = (0..).zip(names.map(<[u8]>::to_vec)).collect();
        assert_eq!(listed, expected);

        reply.clear();
        assert!(!reply.entry(ENTRY_MIN - 1, &dirent(0, b"a"), b"a"));
        assert!(reply.entry(ENTRY_MIN, &dirent(0, b"a"), b"a"));
        assert!(
            !reply.entry(ENTRY_MIN, &dirent(0, b"b"), b"b"),
            "it is full"
        );
        assert_eq!(reply.finish(1).len(), 16 + ENTRY_MIN);
    }

    #[test]
    fn a_listing_with_attributes_has_them_before_each_entry() {
        let (mut reply, found) = (Reply::new(), abi::EntryOut::default());
        let entry = dirent(5, b"name");
        assert!(!reply.entry_plus(ENTRY_PLUS_MIN - 1, &found, &entry, b"name"));
        assert!(reply.entry_plus(ENTRY_PLUS_MIN, &found, &entry, b"name"));
        let bytes = reply.finish(1);
        assert_eq!(bytes.len(), 16 + ENTRY_PLUS_MIN);
        assert_eq!(parse(&bytes[16 + 128..]), [(5, b"name".to_vec())]);
    }
}
