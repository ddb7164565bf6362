//! The directories that outputs need.

use std::collections::BTreeMap;

use cas::tree::IMPLICIT_DIRECTORY_MODE;
use cas::{RelPath, Store};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::publish::error::{At, Obstacle, PublishError, Tried};
use crate::publish::root::{Root, os, split, times};
use crate::publish::{Publish, PublishKind};

/// Permission bits and modification time of a directory that the job made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    mode: u16,
    mtime: i64,
}

/// Directories that were made for outputs. Dropping it removes those that are still empty,
/// which is all of them if nothing was published.
#[derive(Debug)]
pub(super) struct Created<'r> {
    root: &'r Root,
    /// Device and inode of the store, which may lie in the workspace.
    store: Option<(u64, u64)>,
    /// Parents before their children.
    made: Vec<(RelPath, Option<Wanted>)>,
}

impl<'r> Created<'r> {
    /// Makes every directory that the outputs are or lie in, where it is missing.
    pub(super) fn make(
        root: &'r Root,
        store: &Store,
        outputs: &[Publish],
    ) -> Result<Self, PublishError> {
        let made = Vec::new();
        let store = rustix::fs::stat(store.root()).ok();
        let store = store.map(|store| (store.st_dev, store.st_ino));
        let mut created = Self { root, store, made };
        for (path, wanted) in needed(outputs) {
            if created.make_one(&path, wanted).at(&path)? {
                created.made.push((path, wanted));
            }
        }
        Ok(created)
    }

    /// Says whether the directory was missing.
    fn make_one(&self, path: &RelPath, wanted: Option<Wanted>) -> Result<bool, Obstacle> {
        if let Some(found) = self.root.directory(Some(path), OFlags::PATH)? {
            let found = rustix::fs::fstat(found).tried("examine the directory")?;
            if self.store == Some((found.st_dev, found.st_ino)) {
                return Err(Obstacle::InStore);
            }
            return Ok(false);
        }
        // Until it is finished, a directory of the job's is nobody else's: its mode may be
        // narrower than any default, or forbid us to fill it.
        let mode = wanted.map_or(IMPLICIT_DIRECTORY_MODE, |_| 0o700);
        let (parent, name) = self.root.parent(path)?;
        match rustix::fs::mkdirat(&parent, os(name), Mode::from_raw_mode(mode.into())) {
            Ok(()) => Ok(true),
            // Somebody else made it just now.
            Err(Errno::EXIST) => self.root.directory(Some(path), OFlags::PATH).map(|_| false),
            Err(error) => Err(error).tried("create the directory"),
        }
    }

    /// Gives the directories that the job made its modes and times, deepest first, because to
    /// fill a directory moves its time. The others keep the time at which they were filled.
    pub(super) fn finish(&self) -> Result<(), (RelPath, Obstacle)> {
        for (path, wanted) in self.made.iter().rev() {
            if let Some(wanted) = wanted {
                let finished = self.finish_one(path, *wanted);
                finished.map_err(|obstacle| (path.clone(), obstacle))?;
            }
        }
        Ok(())
    }

    fn finish_one(&self, path: &RelPath, wanted: Wanted) -> Result<(), Obstacle> {
        let directory = self.root.directory(Some(path), OFlags::RDONLY)?;
        let directory = directory.ok_or(Errno::NOENT).tried("open the directory")?;
        let mode = Mode::from_raw_mode((wanted.mode & 0o7777).into());
        rustix::fs::fchmod(&directory, mode).tried("set its mode")?;
        rustix::fs::futimens(&directory, &times(wanted.mtime)).tried("set its times")
    }

    /// Leaves the directories in the workspace.
    pub(super) fn keep(mut self) {
        self.made.clear();
    }

    /// Removes the directories in which nothing has been published.
    pub(super) fn remove_empty(&mut self) {
        let made = std::mem::take(&mut self.made);
        let kept = made
            .into_iter()
            .rev()
            .filter(|(path, _)| !self.remove(path));
        let mut kept: Vec<_> = kept.collect();
        kept.reverse();
        self.made = kept;
    }

    fn remove(&self, path: &RelPath) -> bool {
        let Ok((parent, name)) = self.root.parent(path) else {
            return false;
        };
        rustix::fs::unlinkat(&parent, os(name), AtFlags::REMOVEDIR).is_ok()
    }

    /// Whether a directory is in the workspace, made for the outputs or not.
    pub(super) fn exists(&self, path: &RelPath) -> bool {
        let found = self.root.directory(Some(path), OFlags::PATH);
        found.is_ok_and(|directory| directory.is_some())
    }
}

impl Drop for Created<'_> {
    fn drop(&mut self) {
        self.remove_empty();
    }
}

/// All directories that outputs are or lie in, parents first.
fn needed(outputs: &[Publish]) -> BTreeMap<RelPath, Option<Wanted>> {
    let mut needed = BTreeMap::new();
    for output in outputs {
        if let PublishKind::Directory { mode, mtime } = output.kind {
            needed.insert(output.path.clone(), Some(Wanted { mode, mtime }));
        }
        let mut parent = split(&output.path).0;
        while let Some(path) = parent {
            parent = split(&path).0;
            // What is known has its parents known.
            if needed.contains_key(&path) {
                continue;
            }
            needed.insert(path, None);
        }
    }
    needed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_come_first_and_declared_directories_keep_their_attributes() {
        let output = |path: &str, kind: PublishKind| Publish {
            path: RelPath::parse(path.as_bytes()).unwrap(),
            kind,
        };
        let link = |target: &[u8]| PublishKind::Symlink {
            target: target.into(),
            mtime: 0,
        };
        let (mode, mtime) = (0o500, 7);
        let outputs = [
            output("a/b/c", link(b"x")),
            output("a/b", PublishKind::Directory { mode, mtime }),
            output("top", link(b"x")),
        ];
        let needed: Vec<_> = needed(&outputs).into_iter().collect();
        let names: Vec<_> = needed.iter().map(|(path, _)| path.to_string()).collect();
        assert_eq!(names, ["a", "a/b"]);
        assert_eq!(needed[0].1, None);
        assert_eq!(needed[1].1, Some(Wanted { mode, mtime }));
    }
}
