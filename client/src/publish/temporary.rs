//! Outputs under temporary names, beside the places that they are meant for.

use std::fs::File;
use std::os::fd::OwnedFd;

use cas::copy::Copier;
use cas::{Digest, Name, RelPath, Store};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;

use crate::publish::error::{Obstacle, Tried};
use crate::publish::root::{Root, os, times};
use crate::publish::{Publish, PublishKind};

/// What all outputs of a job have in common.
#[derive(Debug)]
pub(super) struct Job<'a> {
    pub(super) root: &'a Root,
    pub(super) store: &'a Store,
    pub(super) copier: Copier,
    /// Nanoseconds since the epoch. What changed later was changed by somebody else.
    pub(super) started: i64,
    pub(super) id: &'a str,
}

/// A complete output that has only to be renamed. Dropping it removes it, unless it was.
#[derive(Debug)]
pub(super) struct Temporary<'a> {
    job: &'a Job<'a>,
    path: &'a RelPath,
    name: String,
    /// Length of the content in bytes.
    pub(super) bytes: u64,
    /// Whether a file of this name is there, and is ours to remove.
    on_disk: bool,
}

impl<'a> Job<'a> {
    /// Checks the destination of a file or link, and makes it under a temporary name there.
    /// `None` for a directory: those are made elsewhere.
    pub(super) fn stage(
        &'a self,
        number: usize,
        output: &'a Publish,
    ) -> Result<Option<Temporary<'a>>, Obstacle> {
        if matches!(output.kind, PublishKind::Directory { .. }) {
            return Ok(None);
        }
        let (directory, name) = self.root.parent(&output.path)?;
        self.check(&directory, name)?;
        let mut temporary = Temporary {
            job: self,
            path: &output.path,
            name: temporary_name(self.id, number),
            bytes: 0,
            on_disk: false,
        };
        temporary.fill(&directory, &output.kind)?;
        Ok(Some(temporary))
    }

    /// Says whether there is something to replace, which must not have changed since the start.
    ///
    /// A change is stamped with the last tick of the clock, a few milliseconds old, or, by kernels
    /// since 6.13 if the file was examined after the change before, with the very time. So what
    /// was changed before the start is never taken for later; what was changed in the same tick,
    /// but after it, may be taken for earlier.
    fn check(&self, directory: &OwnedFd, name: Name<'_>) -> Result<bool, Obstacle> {
        match rustix::fs::statat(directory, os(name), AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error).tried("examine what is there"),
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                Err(Obstacle::IsDirectory)
            }
            Ok(stat) if changed_at(&stat) > self.started => Err(Obstacle::Changed),
            Ok(_) => Ok(true),
        }
    }
}

/// In one directory the number is what differs: two outputs may be meant for one directory.
pub(super) fn temporary_name(id: &str, number: usize) -> String {
    format!(".wakebox-{id}-{number}")
}

fn changed_at(stat: &Stat) -> i64 {
    let seconds = stat.st_ctime.saturating_mul(1_000_000_000);
    seconds.saturating_add(i64::try_from(stat.st_ctime_nsec).unwrap_or(0))
}

impl Temporary<'_> {
    fn fill(&mut self, directory: &OwnedFd, kind: &PublishKind) -> Result<(), Obstacle> {
        match kind {
            PublishKind::File {
                digest,
                mode,
                mtime,
            } => self.fill_file(directory, *digest, *mode, *mtime),
            PublishKind::Symlink { target, mtime } => self.fill_link(directory, target, *mtime),
            PublishKind::Directory { .. } => Ok(()),
        }
    }

    /// Never by a hard link, which would let an edit of the output change the blob.
    fn fill_file(
        &mut self,
        directory: &OwnedFd,
        digest: Digest,
        mode: u16,
        mtime: i64,
    ) -> Result<(), Obstacle> {
        let blob = self.job.store.open_blob(digest)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mode_meanwhile = Mode::RUSR | Mode::WUSR;
        let fd = rustix::fs::openat(directory, &self.name, flags, mode_meanwhile);
        let file = File::from(fd.tried("create a file beside it")?);
        self.on_disk = true;
        let copied = self.job.copier.copy(&blob.file, &file);
        copied.tried("copy its content out of the store")?;
        self.bytes = file.metadata().tried("examine its copy")?.len();
        let mode = Mode::from_raw_mode((mode & 0o7777).into());
        // After the content: writing clears the set-user-ID bits and moves the times.
        rustix::fs::fchmod(&file, mode).tried("set its mode")?;
        rustix::fs::futimens(&file, &times(mtime)).tried("set its times")
    }

    fn fill_link(
        &mut self,
        directory: &OwnedFd,
        target: &[u8],
        mtime: i64,
    ) -> Result<(), Obstacle> {
        rustix::fs::symlinkat(target, directory, &self.name).tried("create a link beside it")?;
        self.on_disk = true;
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(directory, &self.name, &times(mtime), flags).tried("set its times")
    }

    /// The output that this is.
    pub(super) fn path(&self) -> &RelPath {
        self.path
    }

    /// Whether the output is in its place.
    pub(super) fn is_published(&self) -> bool {
        !self.on_disk
    }

    /// Checks the destination once more.
    pub(super) fn check_again(&self) -> Result<(), Obstacle> {
        let (directory, name) = self.job.root.parent(self.path)?;
        self.job.check(&directory, name).map(drop)
    }

    /// Moves the output to its place. What is to be replaced is examined directly before.
    pub(super) fn rename(&mut self) -> Result<(), Obstacle> {
        let (directory, name) = self.job.root.parent(self.path)?;
        let replaces = self.job.check(&directory, name)?;
        self.place(&directory, name, replaces)
    }

    /// Where nothing is to be replaced nothing is, whatever has appeared there meanwhile.
    fn place(
        &mut self,
        directory: &OwnedFd,
        name: Name<'_>,
        replaces: bool,
    ) -> Result<(), Obstacle> {
        let plain = || rustix::fs::renameat(directory, &self.name, directory, os(name));
        let careful = RenameFlags::NOREPLACE;
        let careful =
            || rustix::fs::renameat_with(directory, &self.name, directory, os(name), careful);
        match if replaces { plain() } else { careful() } {
            Err(Errno::EXIST) if !replaces => return Err(Obstacle::Changed),
            // Network file systems do not have the flag (rename(2), EINVAL).
            Err(Errno::INVAL) if !replaces => plain(),
            other => other,
        }
        .tried("rename it to its place")?;
        self.on_disk = false;
        Ok(())
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.on_disk {
            return;
        }
        if let Ok((directory, _)) = self.job.root.parent(self.path) {
            let _ = rustix::fs::unlinkat(&directory, &self.name, AtFlags::empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_appears_after_the_last_look_is_not_replaced() {
        let workspace = tempfile::tempdir().unwrap();
        let store_root = tempfile::tempdir().unwrap();
        let store = Store::open(store_root.path()).unwrap();
        let root = Root::open(workspace.path()).unwrap();
        let job = Job {
            root: &root,
            store: &store,
            copier: Copier::default(),
            started: i64::MAX,
            id: "7",
        };
        let target: Box<[u8]> = (*b"ours").into();
        let kind = PublishKind::Symlink { target, mtime: 0 };
        let path = RelPath::parse(b"l").unwrap();
        let output = Publish { path, kind };
        let mut temporary = job.stage(0, &output).unwrap().unwrap();
        std::os::unix::fs::symlink("theirs", workspace.path().join("l")).unwrap();
        let (directory, name) = root.parent(&output.path).unwrap();
        let placed = temporary.place(&directory, name, false);
        assert!(matches!(placed, Err(Obstacle::Changed)));
        assert!(!temporary.is_published());
        temporary.place(&directory, name, true).unwrap();
        let target = std::fs::read_link(workspace.path().join("l")).unwrap();
        assert_eq!(target.to_str(), Some("ours"));
    }
}
