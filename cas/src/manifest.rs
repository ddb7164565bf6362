//! What a job declares: the document that goes from the client to the daemon.
//!
//! Binary, not JSON: a job may declare 300,000 paths, and each byte is read once by the client
//! and once by the daemon. The digest of the document names it, so a daemon that has seen it
//! neither receives nor parses it again. All numbers are little-endian:
//!
//! ```text
//! "wakebox manifest 1\n"
//! with an input root: 'r' · 32 bytes of digest · 'n', or 's' and its size u64
//! per entry: kind u8 · mode u16 · mtime i64 · path length u32 · path · 32 bytes of digest, not for 'd'
//! kind: 'f' file, 'F' file that the job may rewrite, 'l' symbolic link, 'd' directory
//! ```
//!
//! A link's blob holds its target.

use std::collections::HashSet;

use crate::digest::Digest;
use crate::directory::{self, LoadError, Root};
use crate::error::Error;
use crate::name::{InvalidPath, RelPath};
use crate::store::Store;
use crate::tree::{self, Tree, TreeError};

const MAGIC: &[u8] = b"wakebox manifest 1\n";

/// Longest link target that `symlink(2)` accepts.
const TARGET_MAX: u64 = 4095;

/// Everything a job declares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// A stored tree that the job sees under the declared paths.
    pub input_root: Option<Root>,
    /// The declared paths, in the order of declaration.
    pub entries: Vec<Declared>,
}

/// One declared path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// Where it appears in the view.
    pub path: RelPath,
    /// Permission bits.
    pub mode: u16,
    /// Modification time, nanoseconds since the epoch.
    pub mtime: i64,
    /// What it is.
    pub kind: DeclaredKind,
}

/// What a [`Declared`] path is, by digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeclaredKind {
    /// A file that the job can only read.
    File(Digest),
    /// A file that the job gets a private copy of, and may change or remove.
    WritableFile(Digest),
    /// A symbolic link; the blob holds the target.
    Symlink(Digest),
    /// A directory.
    Directory,
}

/// Why a manifest is not usable.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The bytes are no manifest.
    #[error("the manifest is damaged at byte {0}")]
    Damaged(usize),
    /// A path that cannot be declared.
    #[error("path '{path}' {reason}")]
    Path {
        /// The path as it was written.
        path: String,
        /// What is wrong with it.
        reason: InvalidPath,
    },
    /// The paths do not form a tree.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The stored tree cannot be had.
    #[error(transparent)]
    Stored(#[from] LoadError),
    /// A blob is missing or cannot be read.
    #[error("input '{path}': {source}{}", and_more(*more))]
    Blob {
        /// The first path, in the order of declaration, that cannot be had.
        path: RelPath,
        /// What is wrong with its blob.
        source: Box<Error>,
        /// How many more inputs cannot be had.
        more: usize,
    },
    /// A blob that is no link target.
    #[error("input '{path}': blob {digest} is not the target of a symbolic link")]
    Target {
        /// The link.
        path: RelPath,
        /// Its blob.
        digest: Digest,
    },
}

fn and_more(more: usize) -> String {
    if more == 0 {
        String::new()
    } else {
        format!(" (and {more} more inputs)")
    }
}

/// A manifest whose blobs have been found.
#[derive(Debug)]
pub struct Resolved {
    /// What the job can only read.
    pub tree: Tree,
    /// The files that it gets private copies of.
    pub writable: Vec<tree::Entry>,
}

impl Manifest {
    /// The document's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(MAGIC.len() + self.entries.len() * 96);
        bytes.extend_from_slice(MAGIC);
        if let Some(root) = &self.input_root {
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
        for entry in &self.entries {
            let (kind, digest) = match &entry.kind {
                DeclaredKind::File(digest) => (b'f', Some(digest)),
                DeclaredKind::WritableFile(digest) => (b'F', Some(digest)),
                DeclaredKind::Symlink(digest) => (b'l', Some(digest)),
                DeclaredKind::Directory => (b'd', None),
            };
            bytes.push(kind);
            bytes.extend_from_slice(&entry.mode.to_le_bytes());
            bytes.extend_from_slice(&entry.mtime.to_le_bytes());
            bytes.extend_from_slice(&(entry.path.as_bytes().len() as u32).to_le_bytes());
            bytes.extend_from_slice(entry.path.as_bytes());
            bytes.extend_from_slice(digest.map_or(&[], |digest| digest.as_bytes()));
        }
        bytes
    }

    /// Whether a document wants to be a manifest, whole or damaged, of this version or another.
    pub fn is_one(bytes: &[u8]) -> bool {
        bytes.starts_with(b"wakebox manifest ")
    }

    /// Reads a document. Nothing about the bytes is trusted.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        let mut reader = Reader { bytes, at: 0 };
        if reader.take(MAGIC.len())? != MAGIC {
            return Err(ManifestError::Damaged(0));
        }
        let input_root = reader.root()?;
        let mut entries = Vec::new();
        while reader.at < bytes.len() {
            entries.push(reader.entry()?);
        }
        Ok(Self {
            input_root,
            entries,
        })
    }

    /// Finds every blob and builds the tree. Blobs that are missing or unreadable are refused
    /// here, before anything runs.
    pub fn resolve(&self, store: &Store) -> Result<Resolved, ManifestError> {
        let load = |root: &Root| {
            let tree = directory::load(root, store)?;
            directory::check(&tree, store)?;
            Ok(tree)
        };
        self.resolve_with(store, load, |digest| claim(store, digest))
    }

    /// As [`Manifest::resolve`], with the tree of the input root from somebody who may have it
    /// already, and the sizes of blobs from somebody who may know them. A manifest that declares
    /// nothing but an input root shares its tree.
    pub fn resolve_with(
        &self,
        store: &Store,
        load: impl FnOnce(&Root) -> Result<Tree, LoadError>,
        size: impl Fn(Digest) -> Result<u64, Error> + Send + Sync,
    ) -> Result<Resolved, ManifestError> {
        let base = self.input_root.as_ref().map(load).transpose()?;
        match base {
            Some(tree) if self.entries.is_empty() => Ok(Resolved {
                tree,
                writable: Vec::new(),
            }),
            base => self.resolve_entries(store, base, size),
        }
    }

    fn resolve_entries(
        &self,
        store: &Store,
        base: Option<Tree>,
        size: impl Fn(Digest) -> Result<u64, Error> + Send + Sync,
    ) -> Result<Resolved, ManifestError> {
        let found = crate::parallel::map(&self.entries, |entry| entry.resolve(store, &size));
        let failures = found.iter().filter(|result| result.is_err()).count();
        let mut tree = Vec::with_capacity(found.len());
        let mut writable = Vec::new();
        for (declared, resolved) in self.entries.iter().zip(found) {
            match (
                resolved.map_err(|error| count(error, failures - 1))?,
                &declared.kind,
            ) {
                (entry, DeclaredKind::WritableFile(_)) => writable.push(entry),
                (entry, _) => tree.push(entry),
            }
        }
        let parents = parents_of(&writable, &tree, base.as_ref());
        tree.extend(parents);
        let tree = match base {
            Some(base) => base.under(tree, &writable)?,
            None => Tree::build(tree)?,
        };
        Ok(Resolved { tree, writable })
    }
}

/// Writable files are no part of the tree, but the directories that they lie in are. One that is not
/// declared takes the time of the first file that needs it, as all implied directories do.
fn parents_of(
    writable: &[tree::Entry],
    tree: &[tree::Entry],
    base: Option<&Tree>,
) -> Vec<tree::Entry> {
    let declared = tree.iter().filter(|_| !writable.is_empty());
    let mut known: HashSet<_> = declared.map(|entry| entry.path.clone()).collect();
    let mut parents = Vec::new();
    for file in writable {
        let names: Vec<_> = file.path.names().collect();
        let Some(path) = RelPath::from_names(names[..names.len() - 1].iter().copied()) else {
            continue; // the root, which every tree has
        };
        let is_below = base.is_some_and(|base| base.has_directory(&path));
        if !is_below && known.insert(path.clone()) {
            parents.push(tree::Entry {
                path,
                mode: tree::IMPLICIT_DIRECTORY_MODE,
                mtime: file.mtime,
                kind: tree::EntryKind::Directory,
            });
        }
    }
    parents
}

/// The size of a blob, which counts as used from now on.
fn claim(store: &Store, digest: Digest) -> Result<u64, Error> {
    let found = store.claim(digest)?;
    found.map(|stat| stat.size).ok_or(Error::Missing(digest))
}

fn count(error: ManifestError, more: usize) -> ManifestError {
    match error {
        ManifestError::Blob { path, source, .. } => ManifestError::Blob { path, source, more },
        other => other,
    }
}

impl Declared {
    fn resolve(
        &self,
        store: &Store,
        size: impl Fn(Digest) -> Result<u64, Error>,
    ) -> Result<tree::Entry, ManifestError> {
        let size = |digest| size(digest).map_err(|error| self.blob_error(error));
        let kind = match self.kind {
            DeclaredKind::File(digest) | DeclaredKind::WritableFile(digest) => {
                tree::EntryKind::File {
                    digest,
                    size: size(digest)?,
                }
            }
            DeclaredKind::Symlink(digest) => tree::EntryKind::Symlink {
                target: self.target(digest, size(digest)?, store)?,
            },
            DeclaredKind::Directory => tree::EntryKind::Directory,
        };
        Ok(tree::Entry {
            path: self.path.clone(),
            mode: self.mode,
            mtime: self.mtime,
            kind,
        })
    }

    fn target(&self, digest: Digest, size: u64, store: &Store) -> Result<Box<[u8]>, ManifestError> {
        let unusable = || ManifestError::Target {
            path: self.path.clone(),
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

    fn blob_error(&self, source: Error) -> ManifestError {
        ManifestError::Blob {
            path: self.path.clone(),
            source: Box::new(source),
            more: 0,
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
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
        let at = self.at;
        self.take(N)?
            .try_into()
            .map_err(|_| ManifestError::Damaged(at))
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

    fn entry(&mut self) -> Result<Declared, ManifestError> {
        let start = self.at;
        let [kind] = self.array()?;
        let mode = u16::from_le_bytes(self.array()?);
        let mtime = i64::from_le_bytes(self.array()?);
        let length = u32::from_le_bytes(self.array()?) as usize;
        let path = self.take(length)?;
        let path = RelPath::parse(path).map_err(|reason| ManifestError::Path {
            path: String::from_utf8_lossy(path).into_owned(),
            reason,
        })?;
        let kind = match kind {
            b'f' => DeclaredKind::File(Digest::from_bytes(self.array()?)),
            b'F' => DeclaredKind::WritableFile(Digest::from_bytes(self.array()?)),
            b'l' => DeclaredKind::Symlink(Digest::from_bytes(self.array()?)),
            b'd' => DeclaredKind::Directory,
            _ => return Err(ManifestError::Damaged(start)),
        };
        Ok(Declared {
            path,
            mode: mode & 0o7777,
            mtime,
            kind,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(entries: Vec<Declared>) -> Manifest {
        let input_root = None;
        Manifest {
            input_root,
            entries,
        }
    }

    fn declared(path: &str, kind: DeclaredKind) -> Declared {
        Declared {
            path: RelPath::parse(path.as_bytes()).unwrap(),
            mode: 0o644,
            mtime: -5,
            kind,
        }
    }

    fn store() -> (tempfile::TempDir, Store) {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        (root, store)
    }

    #[test]
    fn missing_blobs_are_named_with_path_and_hash_and_counted() {
        let (_root, store) = store();
        let digest = Digest::of(b"gone");
        let entries = ["a", "b", "c"].map(|path| declared(path, DeclaredKind::File(digest)));
        let error = Manifest {
            entries: entries.into(),
            ..Manifest::default()
        }
        .resolve(&store)
        .unwrap_err()
        .to_string();
        let expected = format!("input 'a': blob {digest} is not in the store (and 2 more inputs)");
        assert_eq!(error, expected);
    }

    #[test]
    fn link_targets_come_from_blobs_and_must_be_targets() {
        let (_root, store) = store();
        let staging = store.new_staging("test").unwrap();
        let link = |target: &[u8]| {
            let digest = store.put_bytes(target, &staging).unwrap();
            Manifest {
                entries: vec![declared("l", DeclaredKind::Symlink(digest))],
                ..Manifest::default()
            }
            .resolve(&store)
        };
        let tree = link(b"x/y").unwrap().tree;
        let node = tree.get(tree::NodeIndex(1)).unwrap();
        assert_eq!(node.kind, tree::NodeKind::Symlink { target: b"x/y" });
        for bad in [&b""[..], b"a\0b", &[b'x'; 5000]] {
            assert!(matches!(link(bad), Err(ManifestError::Target { .. })));
        }
    }

    #[test]
    fn a_writable_file_is_not_in_the_tree_but_its_directory_is() {
        let (_root, store) = store();
        let digest = store
            .put_bytes(b"x", &store.new_staging("test").unwrap())
            .unwrap();
        let entries = vec![declared("d/w", DeclaredKind::WritableFile(digest))];
        let resolved = of(entries).resolve(&store).unwrap();
        assert_eq!(resolved.tree.len(), 2);
        assert_eq!(resolved.writable.len(), 1);
    }

    /// Regression: each of them asked for the directory, with its own time, and the tree refused a
    /// directory with two.
    #[test]
    fn writable_files_of_different_times_share_an_undeclared_directory() {
        let (_root, store) = store();
        let digest = store
            .put_bytes(b"x", &store.new_staging("test").unwrap())
            .unwrap();
        let file = |path, mtime| Declared {
            mtime,
            ..declared(path, DeclaredKind::WritableFile(digest))
        };
        let entries = vec![file("d/a", 7), file("d/b", 8), file("d/e/c", 9)];
        let resolved = of(entries).resolve(&store).unwrap();
        let directory = resolved.tree.get(tree::NodeIndex(1)).unwrap();
        assert_eq!((directory.name, directory.mtime), (&b"d"[..], 7));
        assert_eq!(resolved.tree.len(), 3);
        assert_eq!(resolved.writable.len(), 3);
    }

    #[test]
    fn an_input_root_lies_under_what_is_declared() {
        let (_root, store) = store();
        let staging = store.new_staging("test").unwrap();
        let digest = store.put_bytes(b"x", &staging).unwrap();
        let file = |path| declared(path, DeclaredKind::File(digest));
        let base = of(vec![file("d/a"), file("d/b"), file("w/x")])
            .resolve(&store)
            .unwrap();
        let root = directory::store(&base.tree.with_root(0o711, 3), &store).unwrap();
        let writable = |path| declared(path, DeclaredKind::WritableFile(digest));
        let manifest = |entries| Manifest {
            input_root: Some(root),
            entries,
        };
        let resolved = manifest(vec![]).resolve(&store).unwrap();
        assert_eq!(
            resolved.tree.get(tree::NodeIndex::ROOT).unwrap().mode,
            0o711
        );
        let entries = vec![writable("d/a"), writable("w/y"), file("d/c")];
        let resolved = manifest(entries).resolve(&store).unwrap();
        let path = |index| {
            resolved
                .tree
                .path(tree::NodeIndex(index))
                .unwrap()
                .to_string()
        };
        let paths: Vec<_> = (1..resolved.tree.len() as u32).map(path).collect();
        assert_eq!(paths, ["d", "w", "d/b", "d/c", "w/x"]);
        assert_eq!(resolved.writable.len(), 2);
    }

    proptest! {
        #[test]
        fn documents_survive_the_round_trip(
            rows in prop::collection::vec(("[a-z/]{1,8}", any::<u16>(), any::<i64>(), 0..4u8), 0..20),
            root: Option<(u8, Option<u64>)>,
        ) {
            let entries: Vec<_> = rows.into_iter().filter_map(|(path, mode, mtime, kind)| {
                let digest = Digest::of(path.as_bytes());
                let kind = match kind {
                    0 => DeclaredKind::File(digest),
                    1 => DeclaredKind::WritableFile(digest),
                    2 => DeclaredKind::Symlink(digest),
                    _ => DeclaredKind::Directory,
                };
                let path = RelPath::parse(path.as_bytes()).ok()?;
                Some(Declared { path, mode: mode & 0o7777, mtime, kind })
            }).collect();
            let input_root = root.map(|(byte, size)| Root { digest: Digest::of(&[byte]), size });
            let manifest = Manifest { input_root, entries };
            prop_assert_eq!(Manifest::decode(&manifest.encode()).unwrap(), manifest);
        }

        #[test]
        fn damaged_documents_are_refused_without_panic(mut bytes: Vec<u8>, cut in 0..60usize) {
            let entries = vec![declared("a/b", DeclaredKind::File(Digest::of(b"")))];
            let good = of(entries).encode();
            prop_assert!(Manifest::decode(&good[..cut.min(good.len() - 1)]).is_err() || cut == MAGIC.len());
            bytes.splice(0..0, MAGIC.iter().copied());
            let _ = Manifest::decode(&bytes);
        }
    }
}
