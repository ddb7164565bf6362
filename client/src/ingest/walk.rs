//! Walking a workspace, and what its directories are.

use std::collections::HashMap;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use cas::RelPath;
use walkdir::{DirEntry, WalkDir};

use crate::ingest::select::SelectError;

/// A workspace and the directories in it that are never entered.
#[derive(Clone, Copy)]
pub(super) struct Terrain<'a> {
    pub(super) workspace: &'a Path,
    /// Device and inode of the directories that are left out, such as the store.
    pub(super) exclude: &'a [(u64, u64)],
}

/// What a walk meets.
pub(super) struct Step {
    pub(super) path: RelPath,
    /// How many names the path has more than the start of the walk.
    pub(super) depth: usize,
}

impl Terrain<'_> {
    /// The full path of something in the workspace, or of the workspace itself.
    pub(super) fn full_path(&self, path: Option<&RelPath>) -> PathBuf {
        match path {
            Some(path) => self.workspace.join(path.as_path()),
            None => self.workspace.into(),
        }
    }

    /// Everything below a directory, without the directory itself; links are not followed.
    /// Names for which `pass_over` is true are left out, with everything below them. What
    /// vanishes during the walk counts as never having been there.
    pub(super) fn walk(
        &self,
        start: Option<&RelPath>,
        pass_over: fn(&[u8]) -> bool,
        visit: &mut dyn FnMut(Step),
    ) -> Result<(), SelectError> {
        // A workspace may be named through a link. A start below it has been found to be none.
        let start = self.full_path(start);
        let walk = WalkDir::new(&start).follow_links(false);
        let entries = walk
            .into_iter()
            .filter_entry(|entry| self.enters(entry, pass_over));
        for entry in entries {
            match entry {
                Ok(entry) if entry.depth() == 0 => {}
                Ok(entry) => visit(self.step(&entry)?),
                Err(error) if is_vanished(&error) => {}
                Err(error) => return Err(unreadable(error, &start)),
            }
        }
        Ok(())
    }

    fn enters(&self, entry: &DirEntry, pass_over: fn(&[u8]) -> bool) -> bool {
        if entry.depth() > 0 && pass_over(entry.file_name().as_bytes()) {
            return false;
        }
        // Not by the inode number that the listing holds: for a mount point that is the number
        // of the directory underneath.
        self.exclude.is_empty()
            || !entry.file_type().is_dir()
            || !entry
                .metadata()
                .is_ok_and(|metadata| self.exclude.contains(&(metadata.dev(), metadata.ino())))
    }

    fn step(&self, entry: &DirEntry) -> Result<Step, SelectError> {
        let path = entry.path();
        let below = path.strip_prefix(self.workspace).unwrap_or(path);
        let below = RelPath::parse(below.as_os_str().as_bytes());
        Ok(Step {
            path: below.map_err(|reason| SelectError::Name {
                path: path.into(),
                reason,
            })?,
            depth: entry.depth(),
        })
    }
}

/// Whether an error says that there is no such path.
pub(super) fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn is_vanished(error: &walkdir::Error) -> bool {
    error.depth() > 0 && error.io_error().is_some_and(is_absence)
}

/// walkdir names the directory if it cannot be opened, but not if reading it fails later.
fn unreadable(error: walkdir::Error, start: &Path) -> SelectError {
    SelectError::Io {
        what: "list",
        path: error.path().unwrap_or(start).into(),
        source: error.into(),
    }
}

/// What a path is whose names are all that can lead to an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// A directory that is reached through directories only.
    Directory,
    /// This link is on the way, or is the path itself.
    Link(RelPath),
    /// A directory that is left out is on the way, or is the path itself.
    Excluded,
    /// Missing, not a directory, or not to be examined.
    Absent,
}

/// Finds out what directories are, each once.
pub(super) struct Directories<'a> {
    terrain: Terrain<'a>,
    known: HashMap<RelPath, Standing>,
}

impl<'a> Directories<'a> {
    pub(super) fn new(terrain: Terrain<'a>) -> Self {
        Self {
            terrain,
            known: HashMap::new(),
        }
    }

    /// What the directory is that holds a path.
    pub(super) fn of_parent(&mut self, path: &RelPath) -> Standing {
        match parent(path) {
            None => Standing::Directory,
            Some(parent) => self.of(&parent),
        }
    }

    /// What a directory is.
    pub(super) fn of(&mut self, path: &RelPath) -> Standing {
        if let Some(standing) = self.known.get(path) {
            return standing.clone();
        }
        let standing = match self.of_parent(path) {
            Standing::Directory => self.examine(path),
            other => other,
        };
        self.known.insert(path.clone(), standing.clone());
        standing
    }

    fn examine(&self, path: &RelPath) -> Standing {
        let metadata = self.terrain.full_path(Some(path)).symlink_metadata();
        match metadata {
            Ok(metadata) if metadata.is_symlink() => Standing::Link(path.clone()),
            Ok(metadata) if !metadata.is_dir() => Standing::Absent,
            Ok(metadata)
                if self
                    .terrain
                    .exclude
                    .contains(&(metadata.dev(), metadata.ino())) =>
            {
                Standing::Excluded
            }
            Ok(_) => Standing::Directory,
            Err(_) => Standing::Absent,
        }
    }
}

/// The directory that holds a path; `None` for the workspace.
pub(super) fn parent(path: &RelPath) -> Option<RelPath> {
    let parent = path.as_path().parent()?;
    RelPath::parse(parent.as_os_str().as_bytes()).ok()
}
