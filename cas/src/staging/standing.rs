//! Staging directories that outlive the process that fills them.

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::{FLAGS, StagedFile, StagingDirectory};
use crate::error::{Context, Error, Result};
use crate::hold::lock_within;

impl StagingDirectory {
    /// Opens `name` in `parent` as a directory whose files stay when their owners go; makes it if
    /// it is missing. One process has it at a time: another is waited for as long as `patience`,
    /// because umount(2) returns before the daemon behind the mount is gone.
    ///
    /// New files get numbers above all that are there. Call [`StagingDirectory::retain`] before
    /// the first.
    pub fn open_standing(parent: BorrowedFd<'_>, name: &str, patience: Duration) -> Result<Self> {
        let what = "open the standing staging directory";
        let parent = parent.try_clone_to_owned().context(what, name)?;
        match rustix::fs::mkdirat(&parent, name, Mode::RWXU) {
            Ok(()) => rustix::fs::fsync(&parent).context(what, name)?,
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(Error::io(what, name, errno)),
        }
        let fd = rustix::fs::openat(&parent, name, FLAGS, Mode::empty()).context(what, name)?;
        lock_within(
            fd.as_fd(),
            FlockOperation::NonBlockingLockExclusive,
            patience,
        )
        .context("use, while another mount does, the staging directory", name)?;
        let highest = numbers(&fd).context(what, name)?.into_iter().max();
        Ok(Self {
            parent,
            name: name.into(),
            fd,
            next: AtomicU64::new(highest.map_or(1, |highest| highest + 1)),
            kept: AtomicBool::new(true),
            standing: true,
        })
    }

    /// Removes all files but those with these numbers, and returns the ones among these that were
    /// missing, in order. They are there now, empty, as a file is that was made and not flushed
    /// before a power failure.
    pub fn retain(&self, named: &HashSet<u64>) -> Result<Vec<u64>> {
        let found = numbers(&self.fd).context("list the staging directory", &self.name)?;
        for id in found.difference(named) {
            rustix::fs::unlinkat(&self.fd, id.to_string(), AtFlags::empty())
                .context("remove an orphan from the staging directory", &self.name)?;
        }
        let mut missing: Vec<u64> = named.difference(&found).copied().collect();
        missing.sort_unstable();
        for id in &missing {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            rustix::fs::openat(&self.fd, id.to_string(), flags, Mode::RUSR | Mode::WUSR)
                .context("replace a lost file of the staging directory", &self.name)?;
        }
        let above = named.iter().max().map_or(1, |highest| highest + 1);
        self.next.fetch_max(above, Ordering::Relaxed);
        Ok(missing)
    }

    /// An owner of a file that an earlier process made. Costs nothing: that the file is there is
    /// known from [`StagingDirectory::retain`].
    pub fn reopen(self: &Arc<Self>, id: u64) -> StagedFile {
        self.handle(id)
    }

    /// Flushes the numbers of the files, not their content, to disk.
    pub fn sync(&self) -> rustix::io::Result<()> {
        rustix::fs::fsync(&self.fd)
    }
}

/// The numbers of the files in a directory. What has no number for a name is not ours.
fn numbers(fd: &OwnedFd) -> rustix::io::Result<HashSet<u64>> {
    let mut numbers = HashSet::new();
    for entry in rustix::fs::Dir::read_from(fd)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy();
        let number = name.parse().ok();
        numbers.extend(number.filter(|number: &u64| number.to_string() == name));
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;

    const NOW: Duration = Duration::ZERO;

    fn open(root: &tempfile::TempDir, patience: Duration) -> Result<Arc<StagingDirectory>> {
        let parent = File::open(root.path()).unwrap();
        StagingDirectory::open_standing(parent.as_fd(), "files", patience).map(Arc::new)
    }

    #[test]
    fn files_outlive_their_owners_unless_doomed() {
        let root = tempfile::tempdir().unwrap();
        let directory = open(&root, NOW).unwrap();
        let (kept, mut file) = directory.create_file(OFlags::RDWR).unwrap();
        file.write_all(b"kept").unwrap();
        let (doomed, _) = directory.create_file(OFlags::RDWR).unwrap();
        let (kept_id, doomed_id) = (kept.id(), doomed.id());
        doomed.doom();
        drop((kept, doomed, directory));
        let path = |id: u64| root.path().join("files").join(id.to_string());
        assert!(!path(doomed_id).exists());

        let directory = open(&root, NOW).unwrap();
        let again = directory.reopen(kept_id);
        assert_eq!(again.stat().unwrap().st_size, 4);
        let (new, _) = directory.create_file(OFlags::RDWR).unwrap();
        assert_eq!(new.id(), kept_id + 1, "above the highest number there");
        again.doom();
        drop(again);
        assert!(!path(kept_id).exists());
    }

    #[test]
    fn orphans_go_and_lost_files_come_back_empty() {
        let root = tempfile::tempdir().unwrap();
        let directory = open(&root, NOW).unwrap();
        for _ in 0..4 {
            directory.create_file(OFlags::RDWR).unwrap();
        }
        let stranger = root.path().join("files/007");
        File::create(&stranger).unwrap();
        let missing = directory.retain(&HashSet::from([2, 3, 90, 70])).unwrap();
        assert_eq!(missing, [70, 90]);
        let expected = HashSet::from([2, 3, 70, 90]);
        assert_eq!(numbers(&directory.fd).unwrap(), expected);
        assert!(stranger.exists(), "not a number of ours");
        let (next, _) = directory.create_file(OFlags::RDWR).unwrap();
        assert_eq!(next.id(), 91);
        directory.sync().unwrap();
    }

    #[test]
    fn a_directory_in_use_is_waited_for_but_not_for_ever() {
        let root = tempfile::tempdir().unwrap();
        let first = open(&root, NOW).unwrap();
        let refused = open(&root, Duration::from_millis(30)).unwrap_err();
        assert!(
            refused.to_string().contains("while another mount does"),
            "{refused}"
        );
        let waited = std::thread::scope(|scope| {
            let second = scope.spawn(|| open(&root, Duration::from_secs(10)).map(drop));
            std::thread::sleep(Duration::from_millis(30));
            drop(first);
            second.join().unwrap()
        });
        waited.unwrap();
    }
}
