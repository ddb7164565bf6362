//! Directories that are opened one by one, changed, and stored again.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{DEPTH_MAX, DeltaError, Result};
use crate::digest::Digest;
use crate::directory::{Child, ChildKind, Directory, LoadError, Root};
use crate::name::{Name, NameBuf, RelPath};
use crate::staging::StagingDirectory;
use crate::store::Store;
use crate::tree::{Entry, EntryKind};

/// A directory: as it is stored, or opened to be changed.
#[derive(Debug)]
pub(super) enum Folder {
    Stored(Root),
    Open(Open),
}

/// What a directory holds.
#[derive(Debug)]
pub(super) struct Open {
    mode: u16,
    mtime: i64,
    items: BTreeMap<NameBuf, Item>,
}

/// An entry of a directory.
#[derive(Debug)]
pub(super) enum Item {
    Leaf(ChildKind),
    Folder(Folder),
}

/// Something of another kind has a name already.
#[derive(Debug)]
pub(super) struct Taken;

impl Folder {
    pub(super) fn stored(root: Root) -> Self {
        Self::Stored(root)
    }

    /// Opens a directory; `path` is for errors.
    pub(super) fn open(&mut self, path: Option<&RelPath>, store: &Store) -> Result<&mut Open> {
        if let Self::Stored(root) = *self {
            let read = Directory::read(root.digest, root.size, store);
            let directory = read.map_err(|error| LoadError::of(path.cloned(), error))?;
            *self = Self::Open(directory.into());
        }
        match self {
            Self::Open(open) => Ok(open),
            Self::Stored(_) => unreachable!("it has just been opened"),
        }
    }

    /// Opens all directories down to the one that a path is in, and returns that one and the
    /// path's last name.
    pub(super) fn above<'p>(
        &mut self,
        path: &'p RelPath,
        store: &Store,
    ) -> Result<(&mut Open, Name<'p>)> {
        let mut names: Vec<_> = path.names().collect();
        if names.len() > DEPTH_MAX {
            return Err(DeltaError::TooDeep(path.clone()));
        }
        let missing = || DeltaError::NoDirectory(path.clone());
        let last = names.pop().ok_or_else(missing)?;
        let mut at = self.open(None, store)?;
        for (count, name) in names.iter().enumerate() {
            let item = at.items.get_mut(name.as_bytes());
            let Some(Item::Folder(folder)) = item else {
                return Err(missing());
            };
            let so_far = RelPath::from_names(names[..=count].iter().copied());
            at = folder.open(so_far.as_ref(), store)?;
        }
        Ok((at, last))
    }

    /// Stores what was opened, the deepest first, and returns the name of the whole.
    pub(super) fn store(
        self,
        store: &Store,
        staging: &Arc<StagingDirectory>,
    ) -> crate::error::Result<Root> {
        let open = match self {
            Self::Stored(root) => return Ok(root),
            Self::Open(open) => open,
        };
        let mut children = Vec::with_capacity(open.items.len());
        for (name, item) in open.items {
            let kind = match item {
                Item::Leaf(kind) => kind,
                Item::Folder(folder) => {
                    let Root { digest, size } = folder.store(store, staging)?;
                    let size = size.unwrap_or_default();
                    ChildKind::Directory { digest, size }
                }
            };
            children.push(Child { name, kind });
        }
        let directory = Directory {
            mode: open.mode,
            mtime: open.mtime,
            children,
        };
        let bytes = directory.encode();
        let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
        if store.stat(digest)?.is_none_or(|stat| stat.size != size) {
            store.put_bytes(&bytes, staging)?;
        }
        let size = Some(size);
        Ok(Root { digest, size })
    }
}

impl Open {
    pub(super) fn set_attributes(&mut self, mode: u16, mtime: i64) {
        (self.mode, self.mtime) = (mode, mtime);
    }

    pub(super) fn take(&mut self, name: Name<'_>) -> Option<Item> {
        self.items.remove(name.as_bytes())
    }

    /// Puts something under a name that is free.
    pub(super) fn put(&mut self, name: Name<'_>, item: Item) -> std::result::Result<(), Taken> {
        if self.items.contains_key(name.as_bytes()) {
            return Err(Taken);
        }
        self.items.insert(name.to_owned(), item);
        Ok(())
    }

    /// Writes an entry under a name that is free or has something of the same kind.
    pub(super) fn write(
        &mut self,
        name: Name<'_>,
        entry: &Entry,
        path: &RelPath,
        store: &Store,
    ) -> Result<std::result::Result<(), Taken>> {
        let there = self.items.get_mut(name.as_bytes());
        let item = match (leaf(entry), there) {
            (None, Some(Item::Folder(folder))) => {
                folder
                    .open(Some(path), store)?
                    .set_attributes(entry.mode, entry.mtime);
                return Ok(Ok(()));
            }
            (None, Some(Item::Leaf(_))) | (Some(_), Some(Item::Folder(_))) => {
                return Ok(Err(Taken));
            }
            (None, None) => Item::Folder(Folder::Open(Open {
                mode: entry.mode,
                mtime: entry.mtime,
                items: BTreeMap::new(),
            })),
            (Some(leaf), _) => Item::Leaf(leaf),
        };
        self.items.insert(name.to_owned(), item);
        Ok(Ok(()))
    }
}

/// What an entry is in its directory, unless it is a directory itself.
fn leaf(entry: &Entry) -> Option<ChildKind> {
    let Entry { mode, mtime, .. } = *entry;
    match &entry.kind {
        &EntryKind::File { digest, size } => Some(ChildKind::File {
            digest,
            size,
            mode,
            mtime,
        }),
        EntryKind::Symlink { target } => Some(ChildKind::Symlink {
            target: target.clone(),
            mode,
            mtime,
        }),
        EntryKind::Directory => None,
    }
}

impl From<Directory> for Open {
    fn from(directory: Directory) -> Self {
        let items = directory.children.into_iter().map(|child| {
            let item = match child.kind {
                ChildKind::Directory { digest, size } => {
                    let size = Some(size);
                    Item::Folder(Folder::Stored(Root { digest, size }))
                }
                leaf => Item::Leaf(leaf),
            };
            (child.name, item)
        });
        Self {
            mode: directory.mode,
            mtime: directory.mtime,
            items: items.collect(),
        }
    }
}
