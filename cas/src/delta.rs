//! From the stored tree that a job started from to the one that it leaves.
//!
//! A [`Delta`] names what was by its path in the first tree, and what is by its path in the next,
//! so the order in which it is applied is part of what it means:
//!
//! 1. Everything deleted or renamed is cut out of the first tree, the deepest path first. So what
//!    is renamed out of a directory that is deleted or renamed itself does not go with it.
//! 2. From the root downwards, at each path: what was renamed to it is put there, and then what is
//!    listed there is written. A file or link takes the place of a file or link; of a directory that
//!    is there the attributes are set, and one that is not is made.
//!
//! Only the objects of directories on the way to a change are read and written. Everything else is
//! taken over by digest, so the cost is that of the delta and not of the tree.

mod folder;

use std::collections::{BTreeMap, BTreeSet};

use crate::directory::{self, DirectoryError, LoadError, Root};
use crate::error::Error;
use crate::name::RelPath;
use crate::store::Store;
use crate::tree::{Entry, EntryKind};

use folder::{Folder, Item};

/// Deepest path that is taken: a little more than a path name can have.
const DEPTH_MAX: usize = 4096;

/// What makes the next tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// What is no more, by its path in the first tree. A directory goes with all that it holds and
    /// that is not renamed.
    pub deleted: BTreeSet<RelPath>,
    /// What is elsewhere: its path in the next tree, and that in the first.
    pub renamed: BTreeMap<RelPath, RelPath>,
    /// What was made or is different, by its path in the next tree.
    pub entries: BTreeMap<RelPath, Entry>,
    /// Permission bits of the root and its time in nanoseconds since the epoch, if they changed.
    pub root: Option<(u16, i64)>,
}

/// Why a delta cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum DeltaError {
    /// The tree lacks what is to be taken out of it.
    #[error("'{0}' is deleted or renamed, but the tree does not have it; is it another tree?")]
    NotThere(RelPath),
    /// The directory of a path is none.
    #[error("'{0}' is to be put where there is no directory; is it another tree?")]
    NoDirectory(RelPath),
    /// Something of another kind is where something is to be put.
    #[error("'{0}' is in the way of what is to be put there; is it another tree?")]
    InTheWay(RelPath),
    /// A directory has come from outside the part that is wanted.
    #[error("'{path}' was renamed from '{from}', of which not all is wanted")]
    FromOutside {
        /// Where it is.
        path: RelPath,
        /// Where it was.
        from: RelPath,
    },
    /// A path with too many names.
    #[error("'{0}' is deeper than {DEPTH_MAX} directories")]
    TooDeep(RelPath),
    /// The content of a file cannot be had.
    #[error("'{path}': {source}")]
    Content {
        /// The file.
        path: RelPath,
        /// What is wrong with its blob.
        source: Box<DirectoryError>,
    },
    /// A directory of the tree cannot be had.
    #[error(transparent)]
    Tree(#[from] LoadError),
    /// The store refuses something.
    #[error(transparent)]
    Store(#[from] Error),
}

/// A result of this module.
pub type Result<T> = std::result::Result<T, DeltaError>;

impl Delta {
    /// What of this delta is at or below a path. A file that has come from outside is listed anyway;
    /// of a directory that has, it is not known what it holds, so it is refused.
    pub fn only(self, top: &RelPath) -> Result<Self> {
        let inside = |path: &RelPath| path.starts_with(top);
        let mut part = Self {
            deleted: self.deleted.into_iter().filter(inside).collect(),
            ..Self::default()
        };
        part.entries = self.entries;
        part.entries.retain(|path, _| inside(path));
        for (path, from) in self.renamed {
            match (inside(&path), inside(&from)) {
                (true, true) => drop(part.renamed.insert(path, from)),
                (true, false) if !part.holds_all_of(&path) => {
                    return Err(DeltaError::FromOutside { path, from });
                }
                (false, true) => drop(part.deleted.insert(from)),
                _ => {}
            }
        }
        Ok(part)
    }

    fn holds_all_of(&self, path: &RelPath) -> bool {
        let entry = self.entries.get(path);
        entry.is_some_and(|entry| entry.kind != EntryKind::Directory)
    }

    /// Finds the content of all files. The first that the store does not have is named.
    pub fn check(&self, store: &Store) -> Result<()> {
        for entry in self.entries.values() {
            if let EntryKind::File { digest, size } = entry.kind {
                let found = directory::find(digest, Some(size), store);
                found.map_err(|source| DeltaError::Content {
                    path: entry.path.clone(),
                    source: Box::new(source),
                })?;
            }
        }
        Ok(())
    }

    /// Makes the next tree of a stored one, and returns its name. The content of files is not looked
    /// for: that is [`Delta::check`].
    pub fn apply(&self, base: &Root, store: &Store) -> Result<Root> {
        let size = directory::find(base.digest, base.size, store);
        let size = size.map_err(|error| LoadError::of(None, error))?;
        let mut root = Folder::stored(Root {
            size: Some(size),
            ..*base
        });
        let mut kept = self.cut(&mut root, store)?;
        let paths: BTreeSet<_> = self.renamed.keys().chain(self.entries.keys()).collect();
        for path in paths {
            let (folder, name) = root.above(path, store)?;
            if let Some(item) = kept.remove(path) {
                folder.put(name, item).map_err(|_| in_the_way(path))?;
            }
            if let Some(entry) = self.entries.get(path) {
                let written = folder.write(name, entry, path, store)?;
                written.map_err(|_| in_the_way(path))?;
            }
        }
        if let Some((mode, mtime)) = self.root {
            root.open(None, store)?.set_attributes(mode, mtime);
        }
        let staging = store.new_staging("tree")?;
        Ok(root.store(store, &staging)?)
    }

    /// Takes out what is not to stay where it is. What is renamed is returned, by its new path.
    fn cut<'d>(&'d self, root: &mut Folder, store: &Store) -> Result<BTreeMap<&'d RelPath, Item>> {
        let deleted = self.deleted.iter().map(|from| (from, None));
        let renamed = self.renamed.iter().map(|(to, from)| (from, Some(to)));
        let mut cuts: Vec<_> = deleted.chain(renamed).collect();
        cuts.sort_by_key(|(from, _)| std::cmp::Reverse(from.names().count()));
        let mut kept = BTreeMap::new();
        for (from, to) in cuts {
            let not_there = || DeltaError::NotThere(from.clone());
            let (folder, name) = match root.above(from, store) {
                Err(DeltaError::NoDirectory(_)) => return Err(not_there()),
                other => other?,
            };
            let item = folder.take(name).ok_or_else(not_there)?;
            if let Some(to) = to {
                kept.insert(to, item);
            }
        }
        Ok(kept)
    }
}

fn in_the_way(path: &RelPath) -> DeltaError {
    DeltaError::InTheWay(path.clone())
}

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
