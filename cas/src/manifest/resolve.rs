//! From a manifest to a tree: its blobs are found, and nothing of it is copied but what the tree
//! keeps.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{DeclaredKind, Listed, ManifestError, Resolved, Row};
use crate::digest::Digest;
use crate::directory::{self, LoadError, Root};
use crate::error::Error;
use crate::name::RelPath;
use crate::parallel;
use crate::store::Store;
use crate::tree::{self, Entries, Entry, EntryKind, NodeKind, Tree, TreeError};

/// Longest link target that `symlink(2)` accepts.
const TARGET_MAX: u64 = 4095;

impl Listed<'_> {
    /// Finds every blob and builds the tree. Blobs that are missing or unreadable are refused
    /// here, before anything runs.
    pub fn resolve(&self, store: &Store) -> Result<Resolved, ManifestError> {
        let load = |root: &Root| {
            let tree = directory::load(root, store)?;
            directory::check(&tree, store)?;
            Ok(tree)
        };
        let resolved = self.resolve_with(store, load, |_, digest| claim(store, digest));
        resolved.map(|(resolved, _)| resolved)
    }

    /// As [`Listed::resolve`], with the tree of the input root from somebody who may have it
    /// already, and the sizes of blobs from somebody who may know them, by the numbers of entries and
    /// the blobs' digests. Gives the sizes, too, one for each entry, 0 for a directory. A manifest that
    /// declares nothing but an input root shares its tree.
    pub fn resolve_with(
        &self,
        store: &Store,
        load: impl FnOnce(&Root) -> Result<Tree, LoadError>,
        size: impl Fn(usize, Digest) -> Result<u64, Error> + Send + Sync,
    ) -> Result<(Resolved, Vec<u64>), ManifestError> {
        let base = self.input_root().as_ref().map(load).transpose()?;
        if let (Some(tree), true) = (&base, self.is_empty()) {
            let (tree, writable) = (tree.clone(), Vec::new());
            return Ok((Resolved { tree, writable }, Vec::new()));
        }
        let found = Found::find(self, store, size)?;
        let (in_tree, writable) = found.split();
        let parents = self.parents_of(&writable, base.as_ref());
        let tree = match base {
            None => found.and(&parents).tree(in_tree)?,
            Some(base) => {
                let entries = in_tree.iter().map(|&at| found.entry(at));
                base.under(entries.chain(parents).collect(), &writable)?
            }
        };
        Ok((Resolved { tree, writable }, found.sizes))
    }

    /// Writable files are no part of the tree, but the directories that they lie in are. One that is
    /// not declared takes the time of the first file that needs it, as all implied directories do.
    fn parents_of(&self, writable: &[Entry], base: Option<&Tree>) -> Vec<Entry> {
        let mut parents = Vec::new();
        let mut known = HashSet::<Box<[u8]>>::new();
        for file in writable {
            let names: Vec<_> = file.path.names().collect();
            let Some(path) = RelPath::from_names(names[..names.len() - 1].iter().copied()) else {
                continue; // the root, which every tree has
            };
            let is_below = base.is_some_and(|base| base.has_directory(&path));
            if !is_below && known.insert(path.as_bytes().into()) {
                parents.push(implied(path, file.mtime));
            }
        }
        if !parents.is_empty() {
            let in_tree = self.rows().filter(|row| !row.is_writable());
            let declared = in_tree.filter(|row| known.contains(row.path));
            let declared: HashSet<_> = declared.map(|row| row.path).collect();
            parents.retain(|parent| !declared.contains(parent.path.as_bytes()));
        }
        parents
    }
}

fn implied(path: RelPath, mtime: i64) -> Entry {
    Entry {
        path,
        mode: tree::IMPLICIT_DIRECTORY_MODE,
        mtime,
        kind: EntryKind::Directory,
    }
}

/// The size of a blob, which counts as used from now on.
fn claim(store: &Store, digest: Digest) -> Result<u64, Error> {
    let found = store.claim(digest)?;
    found.map(|stat| stat.size).ok_or(Error::Missing(digest))
}

impl Row<'_> {
    fn is_writable(&self) -> bool {
        matches!(self.kind, DeclaredKind::WritableFile(_))
    }

    /// The blob of what is no directory.
    pub fn blob(&self) -> Option<Digest> {
        match self.kind {
            DeclaredKind::File(digest)
            | DeclaredKind::WritableFile(digest)
            | DeclaredKind::Symlink(digest) => Some(digest),
            DeclaredKind::Directory => None,
        }
    }
}

/// No thread leaves what it adds to half-changed, so a poisoned lock means nothing here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A manifest whose blobs have been found.
struct Found<'m> {
    listed: &'m Listed<'m>,
    /// Of each entry's blob; 0 of a directory.
    sizes: Vec<u64>,
    /// Of links, by where their entries begin.
    targets: HashMap<u32, Box<[u8]>>,
}

/// Entries that cannot be had, by where they begin: the first is told.
#[derive(Default)]
struct Failures(Mutex<Vec<(u32, ManifestError)>>);

impl Failures {
    fn into_result(self) -> Result<(), ManifestError> {
        let all = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        let others = all.len().saturating_sub(1);
        match all.into_iter().min_by_key(|(start, _)| *start) {
            None => Ok(()),
            Some((_, ManifestError::Blob { path, source, .. })) => Err(ManifestError::Blob {
                path,
                source,
                more: others,
            }),
            Some((_, other)) => Err(other),
        }
    }
}

impl<'m> Found<'m> {
    fn find(
        listed: &'m Listed<'m>,
        store: &Store,
        size: impl Fn(usize, Digest) -> Result<u64, Error> + Send + Sync,
    ) -> Result<Self, ManifestError> {
        let failures = Failures::default();
        let targets = Mutex::new(HashMap::new());
        let find = |at: usize, start: u32| {
            let row = listed.row(start);
            let Some(digest) = row.blob() else {
                return Ok(0);
            };
            let size = size(at, digest).map_err(|error| row.blob_error(error))?;
            if matches!(row.kind, DeclaredKind::Symlink(_)) {
                let target = row.target(digest, size, store)?;
                lock(&targets).insert(start, target);
            }
            Ok(size)
        };
        let sizes = parallel::map_numbers(listed.len(), |at| {
            let start = listed.starts()[at];
            find(at, start).unwrap_or_else(|error| {
                lock(&failures.0).push((start, error));
                0
            })
        });
        failures.into_result()?;
        Ok(Self {
            listed,
            sizes,
            targets: targets.into_inner().unwrap_or_else(PoisonError::into_inner),
        })
    }

    /// The numbers of the entries that make the tree, and the files that the job may rewrite.
    fn split(&self) -> (Vec<u32>, Vec<Entry>) {
        let mut in_tree = Vec::with_capacity(self.listed.len());
        let mut writable = Vec::new();
        for (at, row) in (0..).zip(self.listed.rows()) {
            match row.is_writable() {
                true => writable.push(self.entry(at)),
                false => in_tree.push(at),
            }
        }
        (in_tree, writable)
    }

    fn start(&self, at: u32) -> u32 {
        self.listed.starts()[at as usize]
    }

    fn row(&self, at: u32) -> Row<'m> {
        self.listed.row(self.start(at))
    }

    fn entry(&self, at: u32) -> Entry {
        let row = self.row(at);
        Entry {
            path: row.to_path(),
            mode: row.mode,
            mtime: row.mtime,
            kind: self.kind(at).to_entry(),
        }
    }

    fn kind(&self, at: u32) -> NodeKind<'_> {
        let size = self.sizes[at as usize];
        match self.row(at).kind {
            DeclaredKind::File(digest) | DeclaredKind::WritableFile(digest) => {
                NodeKind::File { digest, size }
            }
            DeclaredKind::Symlink(_) => NodeKind::Symlink {
                target: self
                    .targets
                    .get(&self.start(at))
                    .map_or(&[], |target| target),
            },
            DeclaredKind::Directory => NodeKind::Directory { subdirectories: 0 },
        }
    }

    /// These and further entries.
    fn and<'f>(&'f self, further: &'f [Entry]) -> Together<'f> {
        Together {
            found: self,
            further,
        }
    }
}

impl Row<'_> {
    fn target(self, digest: Digest, size: u64, store: &Store) -> Result<Box<[u8]>, ManifestError> {
        let unusable = || ManifestError::Target {
            path: self.to_path(),
            digest,
        };
        if size == 0 || size > TARGET_MAX {
            return Err(unusable());
        }
        let target = store.read(digest).map_err(|error| self.blob_error(error))?;
        if target.contains(&0) {
            Err(unusable())
        } else {
            Ok(target.into())
        }
    }

    fn blob_error(self, source: Error) -> ManifestError {
        ManifestError::Blob {
            path: self.to_path(),
            source: Box::new(source),
            more: 0,
        }
    }
}

/// What was found, and entries that have numbers behind those.
struct Together<'f> {
    found: &'f Found<'f>,
    further: &'f [Entry],
}

impl Together<'_> {
    /// The tree of these of the entries that were found, and of all others.
    fn tree(&self, mut in_tree: Vec<u32>) -> Result<Tree, TreeError> {
        let behind = self.found.listed.len();
        in_tree.extend((behind..behind + self.further.len()).map(|at| at as u32));
        Tree::of(self, in_tree)
    }

    /// The entry behind those that were found.
    fn further(&self, at: u32) -> Option<&Entry> {
        let behind = (at as usize).checked_sub(self.found.listed.len())?;
        self.further.get(behind)
    }
}

impl Entries for Together<'_> {
    fn path(&self, at: u32) -> &[u8] {
        match self.further(at) {
            Some(entry) => entry.path.as_bytes(),
            None => self.found.listed.path(self.found.start(at)),
        }
    }

    fn attributes(&self, at: u32) -> (u16, i64) {
        match self.further(at) {
            Some(entry) => (entry.mode, entry.mtime),
            None => {
                let row = self.found.row(at);
                (row.mode, row.mtime)
            }
        }
    }

    fn kind(&self, at: u32) -> NodeKind<'_> {
        match self.further(at) {
            Some(entry) => entry.kind.as_node(),
            None => self.found.kind(at),
        }
    }
}
