//! Directories as objects of the store: a tree that one digest names.
//!
//! The objects are the Remote Execution API's `Directory` messages, with BLAKE3 digests, so that a
//! digest means the same to a cluster. Each is an ordinary blob. A directory's own mode and time are
//! in its own object (`node_properties`), those of files and links in the object of the directory
//! that holds them; so the digest of the root covers every byte, mode and nanosecond below it.
//!
//! One tree has one digest: what is written is in canonical form (sorted by name, no field that is
//! not needed), and what is read has to be sorted, too. A message holds text, and file names are bytes:
//! those that are no UTF-8 stand there as [`text`](crate::text) has them, and so do the targets of links.
//!
//! Objects made by other programs may lack modes and times. Then files have mode 0444 or 0555,
//! directories 0755, links 0777, and all the time 0.

mod convert;
mod load;
mod message;

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use prost::Message;

use crate::digest::{Digest, InvalidDigest};
use crate::error::{Error, Result};
use crate::name::{InvalidPath, Name, NameBuf};
use crate::parallel;
use crate::store::Store;
use crate::tree::{IMPLICIT_DIRECTORY_MODE, Node, NodeIndex, NodeKind, Tree};

use convert::{attributes, properties, written};
pub(crate) use load::find;
pub use load::{LoadError, check, find_root, load};

/// Longest object that is read. A directory of 600,000 files with names of 20 bytes has one of 100 MB.
const OBJECT_MAX: u64 = 128 << 20;

/// The name of a stored tree: the digest of its root's object, written `<hash>` or `<hash>/<size>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Root {
    /// The digest of the object.
    pub digest: Digest,
    /// Length of the object in bytes, where it is known. It is checked.
    pub size: Option<u64>,
}

/// Text that is not `<hash>` or `<hash>/<size>`.
#[derive(Debug, thiserror::Error)]
pub enum InvalidRoot {
    /// The part before the slash.
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
    /// The part behind it.
    #[error("{0:?} is not a size: expected HASH or HASH/SIZE, the size in bytes")]
    Size(String),
}

/// What one object holds: the content of one directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Permission bits of the directory itself.
    pub mode: u16,
    /// Its modification time, nanoseconds since the epoch.
    pub mtime: i64,
    /// What is in it, sorted by name, each name once.
    pub children: Vec<Child>,
}

/// An entry of a [`Directory`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    /// Its name.
    pub name: NameBuf,
    /// What it is.
    pub kind: ChildKind,
}

/// What a [`Child`] is. Modes are permission bits, times nanoseconds since the epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChildKind {
    /// A regular file.
    File {
        /// Name of the content.
        digest: Digest,
        /// Length in bytes.
        size: u64,
        /// Permission bits.
        mode: u16,
        /// Modification time.
        mtime: i64,
    },
    /// A symbolic link.
    Symlink {
        /// Its target.
        target: Box<[u8]>,
        /// Permission bits.
        mode: u16,
        /// Modification time.
        mtime: i64,
    },
    /// A directory, whose mode and time are in its own object.
    Directory {
        /// Name of the object.
        digest: Digest,
        /// Length of the object.
        size: u64,
    },
}

/// Why a directory cannot be had from the store.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Its blob, or that of a file in it, is missing, corrupt or unreadable.
    #[error(transparent)]
    Store(#[from] Error),
    /// A blob that is not as long as the tree says.
    #[error("blob {digest} has {found} bytes, and not {expected}")]
    Size {
        /// The blob.
        digest: Digest,
        /// Its length, as the tree has it.
        expected: u64,
        /// Its length in the store.
        found: u64,
    },
    /// The object is no directory, or not a valid one.
    #[error("directory object {digest} {reason}")]
    Malformed {
        /// The object.
        digest: Digest,
        /// What is wrong with it.
        reason: Malformed,
    },
}

/// What is wrong with the bytes of an object.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// No protocol buffer of that form.
    #[error("is no Directory message: {0}")]
    Message(#[from] prost::DecodeError),
    /// Longer than any that is read.
    #[error("is longer than {OBJECT_MAX} bytes")]
    TooLong,
    /// An entry whose name is none.
    #[error("has an entry {name:?} whose name {reason}")]
    Name {
        /// As it is written there.
        name: String,
        /// What is wrong with it.
        reason: InvalidPath,
    },
    /// Not in canonical form.
    #[error("has its entry {0:?} twice or out of order")]
    Order(String),
    /// No BLAKE3 digest, or a size below 0.
    #[error("has an entry {0:?} without a valid digest")]
    Digest(String),
    /// A target that no link can have.
    #[error("has a link {0:?} with a target that is empty, too long or contains a NUL byte")]
    Target(String),
    /// A time that is none.
    #[error("has an entry {0:?} with a time that is not within the years 1678 to 2262")]
    Time(String),
}

impl Directory {
    /// The bytes of the object. The children must be sorted, each name once.
    pub fn encode(&self) -> Vec<u8> {
        let mut message = message::Directory {
            node_properties: Some(properties(self.mode, self.mtime)),
            ..message::Directory::default()
        };
        for child in &self.children {
            child.add_to(&mut message);
        }
        // Names that had to be escaped sort differently as text.
        message.files.sort_by(|a, b| a.name.cmp(&b.name));
        message.directories.sort_by(|a, b| a.name.cmp(&b.name));
        message.symlinks.sort_by(|a, b| a.name.cmp(&b.name));
        message.encode_to_vec()
    }

    /// Reads the bytes of an object. Nothing about them is trusted.
    pub fn decode(bytes: &[u8]) -> std::result::Result<Self, Malformed> {
        let message = message::Directory::decode(bytes)?;
        check_order(message.files.iter().map(|node| &node.name))?;
        check_order(message.directories.iter().map(|node| &node.name))?;
        check_order(message.symlinks.iter().map(|node| &node.name))?;
        let (mode, mtime) = attributes(".", message.node_properties, IMPLICIT_DIRECTORY_MODE)?;
        let files = message.files.into_iter().map(Child::from_file);
        let directories = message.directories.into_iter().map(Child::from_directory);
        let symlinks = message.symlinks.into_iter().map(Child::from_symlink);
        let children = files.chain(directories).chain(symlinks);
        let mut children: Vec<_> = children.collect::<std::result::Result<_, _>>()?;
        children.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(pair) = children
            .windows(2)
            .find(|pair| pair[0].name == pair[1].name)
        {
            return Err(Malformed::Order(written(&pair[0].name)));
        }
        Ok(Self {
            mode,
            mtime,
            children,
        })
    }

    /// Reads an object from the store. Its bytes are checked against its digest, which is cheap
    /// beside everything else that is done with a directory, and against its size if that is known.
    pub fn read(
        digest: Digest,
        size: Option<u64>,
        store: &Store,
    ) -> std::result::Result<Self, DirectoryError> {
        let malformed = |reason| DirectoryError::Malformed { digest, reason };
        let found = find(digest, size, store)?;
        if found > OBJECT_MAX {
            return Err(malformed(Malformed::TooLong));
        }
        let bytes = store.read(digest)?;
        let found = Digest::of(&bytes);
        if found != digest {
            let expected = digest;
            return Err(Error::Corrupt { expected, found }.into());
        }
        Self::decode(&bytes).map_err(malformed)
    }

    /// A directory of a tree, given the objects of the directories in it.
    fn of(tree: &Tree, index: NodeIndex, stored: &HashMap<NodeIndex, (Digest, u64)>) -> Self {
        let child = |row| {
            let node = tree.get(NodeIndex(row))?;
            let name = Name::new(node.name).ok()?.to_owned();
            let kind = ChildKind::of(&node, stored.get(&NodeIndex(row)).copied())?;
            Some(Child { name, kind })
        };
        let (mode, mtime) = tree
            .get(index)
            .map_or((IMPLICIT_DIRECTORY_MODE, 0), |node| (node.mode, node.mtime));
        Self {
            mode,
            mtime,
            children: tree.children(index).filter_map(child).collect(),
        }
    }
}

/// Puts the objects of a tree into the store and returns the name of its root. Files are not
/// touched: their blobs are the caller's business.
pub fn store(tree: &Tree, store: &Store) -> Result<Root> {
    let staging = store.new_staging("tree")?;
    let mut stored = HashMap::new();
    for level in levels(tree).into_iter().rev() {
        let put = parallel::try_map(&level, |&index| {
            let bytes = Directory::of(tree, index, &stored).encode();
            let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
            if store.claim(digest)?.is_none_or(|stat| stat.size != size) {
                store.put_bytes(&bytes, &staging)?;
            }
            Ok::<_, Error>((index, (digest, size)))
        })?;
        stored.extend(put);
    }
    let (digest, size) = stored[&NodeIndex::ROOT];
    let size = Some(size);
    Ok(Root { digest, size })
}

/// The directories of a tree by their depth. Rows are in breadth-first order, so each level is a
/// range behind that of the level above.
fn levels(tree: &Tree) -> Vec<Vec<NodeIndex>> {
    let is_directory = |&index: &NodeIndex| {
        let node = tree.get(index);
        node.is_some_and(|node| matches!(node.kind, NodeKind::Directory { .. }))
    };
    let mut levels = Vec::new();
    let (mut start, mut end) = (0, 1);
    while start < end {
        let level: Vec<_> = (start..end).map(NodeIndex).filter(is_directory).collect();
        let below: u32 = level.iter().map(|&d| tree.children(d).len() as u32).sum();
        (start, end) = (end, end + below);
        levels.push(level);
    }
    levels
}

impl ChildKind {
    fn of(node: &Node<'_>, stored: Option<(Digest, u64)>) -> Option<Self> {
        let (mode, mtime) = (node.mode, node.mtime);
        Some(match node.kind {
            NodeKind::File { digest, size } => Self::File {
                digest,
                size,
                mode,
                mtime,
            },
            NodeKind::Symlink { target } => Self::Symlink {
                target: target.into(),
                mode,
                mtime,
            },
            NodeKind::Directory { .. } => {
                let (digest, size) = stored?;
                Self::Directory { digest, size }
            }
        })
    }
}

fn check_order<'a>(names: impl Iterator<Item = &'a String>) -> std::result::Result<(), Malformed> {
    let mut last: Option<&String> = None;
    for name in names {
        if last.is_some_and(|last| last >= name) {
            return Err(Malformed::Order(name.clone()));
        }
        last = Some(name);
    }
    Ok(())
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.size {
            Some(size) => write!(f, "{}/{size}", self.digest),
            None => write!(f, "{}", self.digest),
        }
    }
}

impl FromStr for Root {
    type Err = InvalidRoot;

    fn from_str(text: &str) -> std::result::Result<Self, InvalidRoot> {
        let (hash, size) = match text.split_once('/') {
            Some((hash, size)) => (hash, Some(size)),
            None => (text, None),
        };
        let digest = hash.parse()?;
        // Digits only: `parse` takes a sign, too.
        let number = |size: &str| {
            let digits = size.bytes().all(|byte| byte.is_ascii_digit());
            let number = size.parse().ok().filter(|_| digits);
            number.ok_or_else(|| InvalidRoot::Size(size.chars().take(80).collect()))
        };
        let size = size.map(number).transpose()?;
        Ok(Self { digest, size })
    }
}

#[cfg(test)]
mod tests;
