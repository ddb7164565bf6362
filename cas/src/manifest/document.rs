//! The bytes of a manifest: written entry by entry, and read where they lie.

use super::{Declared, DeclaredKind, ManifestError};
use crate::digest::Digest;
use crate::directory::Root;
use crate::name::{NormalPaths, RelPath};

pub(super) const MAGIC: &[u8] = b"wakebox manifest 1\n";

/// Bytes of an entry before its path: kind, mode, time, length.
const HEAD: usize = 1 + 2 + 8 + 4;

/// What an entry takes with a path of ordinary length.
const USUAL: usize = HEAD + 49 + 32;

/// One entry, its path somewhere else: as a [`Declared`], of which nothing was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row<'d> {
    /// Where it appears in the view; what [`RelPath::as_bytes`] would give.
    pub path: &'d [u8],
    /// Permission bits.
    pub mode: u16,
    /// Modification time, nanoseconds since the epoch.
    pub mtime: i64,
    /// What it is.
    pub kind: DeclaredKind,
}

/// A manifest that is being written.
#[derive(Clone, Debug)]
pub struct Document {
    bytes: Vec<u8>,
    /// Where the entries begin.
    entries: usize,
}

impl Document {
    /// One without entries, and with room for so many.
    pub fn new(input_root: Option<&Root>, entries: usize) -> Self {
        let mut bytes = Vec::with_capacity(MAGIC.len() + 42 + entries * USUAL);
        bytes.extend_from_slice(MAGIC);
        if let Some(root) = input_root {
            bytes.push(b'r');
            bytes.extend_from_slice(root.digest.as_bytes());
            match root.size {
                None => bytes.push(b'n'),
                Some(size) => {
                    bytes.push(b's');
                    bytes.extend_from_slice(&size.to_le_bytes());
                }
            }
        }
        let entries = bytes.len();
        Self { bytes, entries }
    }

    /// Adds the entries of another.
    pub fn append(&mut self, other: &Self) {
        self.bytes.extend_from_slice(&other.bytes[other.entries..]);
    }

    /// Adds an entry. Its path has to be that of a [`RelPath`]: who reads refuses any other.
    pub fn push(&mut self, row: Row<'_>) {
        let (kind, digest) = match &row.kind {
            DeclaredKind::File(digest) => (b'f', Some(digest)),
            DeclaredKind::WritableFile(digest) => (b'F', Some(digest)),
            DeclaredKind::Symlink(digest) => (b'l', Some(digest)),
            DeclaredKind::Directory => (b'd', None),
        };
        let mut head = [kind; HEAD];
        head[1..3].copy_from_slice(&row.mode.to_le_bytes());
        head[3..11].copy_from_slice(&row.mtime.to_le_bytes());
        head[11..].copy_from_slice(&(row.path.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(&head);
        self.bytes.extend_from_slice(row.path);
        self.bytes
            .extend_from_slice(digest.map_or(&[], |digest| digest.as_bytes()));
    }

    /// The bytes.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// A manifest whose bytes were looked at once and make sense. It remembers where each entry begins,
/// and nothing else: 300,000 of them would be 60 MB more, beside 25 MB of bytes.
#[derive(Clone, Debug)]
pub struct Listed<'d> {
    bytes: &'d [u8],
    input_root: Option<Root>,
    starts: Vec<u32>,
}

impl<'d> Listed<'d> {
    /// Looks at a document. Nothing about the bytes is trusted.
    pub fn read(bytes: &'d [u8]) -> Result<Self, ManifestError> {
        let mut reader = Reader {
            bytes,
            at: 0,
            paths: NormalPaths::default(),
        };
        if reader.take(MAGIC.len())? != MAGIC {
            return Err(ManifestError::Damaged(0));
        }
        let input_root = reader.root()?;
        let mut starts = Vec::with_capacity((bytes.len() - reader.at) / USUAL);
        while reader.at < bytes.len() {
            let start = u32::try_from(reader.at);
            starts.push(start.map_err(|_| ManifestError::Damaged(reader.at))?);
            reader.pass_entry()?;
        }
        starts.shrink_to_fit();
        Ok(Self {
            bytes,
            input_root,
            starts,
        })
    }

    /// The stored tree that lies under the entries.
    pub fn input_root(&self) -> Option<Root> {
        self.input_root
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// All entries, in the order of declaration.
    pub fn rows(&self) -> impl Iterator<Item = Row<'d>> + '_ {
        self.starts.iter().map(|&start| self.row(start))
    }

    /// Where the entries begin, in the order of declaration.
    pub(super) fn starts(&self) -> &[u32] {
        &self.starts
    }

    /// The path of the entry that begins there. By itself, because a tree is built by many looks at
    /// paths and one at the rest.
    pub(super) fn path(&self, start: u32) -> &'d [u8] {
        let bytes = &self.bytes[start as usize..];
        let length = u32::from_le_bytes(array(bytes, 11)) as usize;
        &bytes[HEAD..HEAD + length]
    }

    /// The entry that begins there.
    pub(super) fn row(&self, start: u32) -> Row<'d> {
        let path = self.path(start);
        let bytes = &self.bytes[start as usize..];
        let digest = || Digest::from_bytes(array(bytes, HEAD + path.len()));
        Row {
            path,
            mode: u16::from_le_bytes(array(bytes, 1)) & 0o7777,
            mtime: i64::from_le_bytes(array(bytes, 3)),
            kind: match bytes[0] {
                b'f' => DeclaredKind::File(digest()),
                b'F' => DeclaredKind::WritableFile(digest()),
                b'l' => DeclaredKind::Symlink(digest()),
                _ => DeclaredKind::Directory,
            },
        }
    }
}

/// The bytes at some place, which have to be there.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

impl Row<'_> {
    /// The entry by itself.
    pub(super) fn to_declared(self) -> Declared {
        Declared {
            path: self.to_path(),
            mode: self.mode,
            mtime: self.mtime,
            kind: self.kind,
        }
    }

    /// The path by itself, of an entry that was [read](Listed::read).
    pub(super) fn to_path(self) -> RelPath {
        RelPath::of_normal(self.path)
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    paths: NormalPaths<'a>,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], ManifestError> {
        let end = self
            .at
            .checked_add(count)
            .filter(|&end| end <= self.bytes.len());
        let taken = &self.bytes[self.at..end.ok_or(ManifestError::Damaged(self.at))?];
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ManifestError> {
        Ok(array(self.take(N)?, 0))
    }

    fn root(&mut self) -> Result<Option<Root>, ManifestError> {
        if self.bytes.get(self.at) != Some(&b'r') {
            return Ok(None);
        }
        let [_] = self.array()?;
        let digest = Digest::from_bytes(self.array()?);
        let at = self.at;
        let size = match self.array()? {
            [b'n'] => None,
            [b's'] => Some(u64::from_le_bytes(self.array()?)),
            _ => return Err(ManifestError::Damaged(at)),
        };
        Ok(Some(Root { digest, size }))
    }

    /// Goes over one entry.
    fn pass_entry(&mut self) -> Result<(), ManifestError> {
        let start = self.at;
        let head: [u8; HEAD] = self.array()?;
        let path = self.take(u32::from_le_bytes(array(&head, 11)) as usize)?;
        if !self.paths.is_next(path) {
            return Err(Self::refuse(path, start));
        }
        match head[0] {
            b'f' | b'F' | b'l' => drop(self.take(32)?),
            b'd' => {}
            _ => return Err(ManifestError::Damaged(start)),
        }
        Ok(())
    }

    /// A path that no job can have; or one that nobody writes so, as `a//b`: a manifest has one form.
    fn refuse(path: &[u8], start: usize) -> ManifestError {
        match RelPath::parse(path) {
            Ok(_) => ManifestError::Damaged(start),
            Err(reason) => ManifestError::Path {
                path: String::from_utf8_lossy(path).into_owned(),
                reason,
            },
        }
    }
}
