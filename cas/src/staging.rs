//! Files that are being written and belong to nobody's workspace yet.
#![expect(unsafe_code, reason = "no crate offers fcntl(F_SETLEASE)")]

mod standing;

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;

use crate::error::{Context, Result};

/// `fcntl` command of linux/fcntl.h that the libc crate does not name.
const F_SETSIG: libc::c_int = 10;

/// A flat directory of numbered files, one per job, beside the blobs on the same file system.
///
/// Flat and numbered, so that renames in a view touch no disk and neither the length of a name
/// nor the depth of a path is ever a limit. It is on disk exactly as long as someone owns it:
/// dropping it removes it, unless [`StagingDirectory::keep`] gave it away, or it was opened to
/// outlive us by [`StagingDirectory::open_standing`].
#[derive(Debug)]
pub struct StagingDirectory {
    parent: OwnedFd,
    name: String,
    fd: OwnedFd,
    next: AtomicU64,
    kept: AtomicBool,
    /// Whether files are kept from the start.
    standing: bool,
}

/// A file in a [`StagingDirectory`]. Unlinked when the last owner drops it, unless kept. In a
/// standing directory it is kept unless [`StagedFile::doom`] said otherwise.
#[derive(Debug)]
pub struct StagedFile {
    directory: Arc<StagingDirectory>,
    id: u64,
    kept: AtomicBool,
}

impl StagingDirectory {
    /// Makes `name` in the staging area `parent`. The name must be new.
    pub fn create(parent: BorrowedFd<'_>, name: &str) -> Result<Self> {
        let parent = parent
            .try_clone_to_owned()
            .context("keep the staging area of", name)?;
        let what = "create the staging directory";
        let fd = loop {
            rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)).context(what, name)?;
            // Until it is locked, `sweep` may take it for a dead process's.
            match lock(parent.as_fd(), name).context("lock the staging directory", name)? {
                Some(fd) => break fd,
                None => continue,
            }
        };
        let (next, kept) = (AtomicU64::new(1), AtomicBool::new(false));
        Ok(Self {
            parent,
            name: name.into(),
            fd,
            next,
            kept,
            standing: false,
        })
    }

    /// Its name in the staging area.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Leaves the directory and its files on disk for whoever is told its name.
    pub fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }

    /// Makes a new, empty file. `flags` gives the access mode of the returned descriptor.
    ///
    /// On disk the owner may always read and write it, whatever mode the job asked for: the mode
    /// that the job sees lives in the view.
    pub fn create_file(self: &Arc<Self>, flags: OFlags) -> Result<(StagedFile, File)> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let flags = flags | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mode = Mode::RUSR | Mode::WUSR;
        let fd = rustix::fs::openat(&self.fd, id.to_string(), flags, mode)
            .context("create a staging file in", &self.name)?;
        Ok((self.handle(id), File::from(fd)))
    }

    /// An owner of the file of a number.
    fn handle(self: &Arc<Self>, id: u64) -> StagedFile {
        StagedFile {
            directory: self.clone(),
            id,
            kept: AtomicBool::new(self.standing),
        }
    }
}

impl AsFd for StagingDirectory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for StagingDirectory {
    fn drop(&mut self) {
        if !self.kept.load(Ordering::Relaxed) {
            let _ = remove_flat_directory(self.parent.as_fd(), &self.name);
        }
    }
}

/// Whether a name in a staging directory is that of a staged file, which is a number.
pub(crate) fn is_staged_name(name: &[u8]) -> bool {
    name.first().is_some_and(u8::is_ascii_digit)
}

/// Removes a directory of the staging area with the files in it. What is gone already is fine.
pub fn remove_flat_directory(parent: BorrowedFd<'_>, name: &str) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd = match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other.context("open the staging directory", name)?,
    };
    // What says whose the files are goes last: if we are killed in between, it can still be told.
    for staged in [true, false] {
        let entries =
            rustix::fs::Dir::read_from(&fd).context("list the staging directory", name)?;
        for entry in entries {
            let entry = entry.context("list the staging directory", name)?;
            let entry = entry.file_name();
            let is_itself = matches!(entry.to_bytes(), b"." | b"..");
            if !is_itself && is_staged_name(entry.to_bytes()) == staged {
                rustix::fs::unlinkat(&fd, entry, AtFlags::empty()).context("empty", name)?;
            }
        }
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR).context("remove", name)
}

/// Opens and locks a new directory, which tells [`sweep`] that someone is at home; the lock is
/// given back by the kernel, however we end. `None` if a sweep was faster.
fn lock(parent: BorrowedFd<'_>, name: &str) -> rustix::io::Result<Option<OwnedFd>> {
    let fd = match rustix::fs::openat(parent, name, FLAGS, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        other => other?,
    };
    flock(&fd, FlockOperation::LockExclusive)?;
    Ok(is_there(&fd)?.then_some(fd))
}

/// Whether an open directory still has its name.
fn is_there(directory: &OwnedFd) -> rustix::io::Result<bool> {
    Ok(rustix::fs::fstat(directory)?.st_nlink > 0)
}

/// How staging directories are opened.
pub const FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOFOLLOW);

/// Removes staging directories of processes that ended without a chance to do it. `is_ours` says
/// which names may be looked at, and `may_go` looks into a directory that nobody has locked.
pub fn sweep(
    parent: BorrowedFd<'_>,
    is_ours: impl Fn(&str) -> bool,
    may_go: impl Fn(BorrowedFd<'_>) -> bool,
) {
    let Ok(entries) = rustix::fs::Dir::read_from(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy();
        if !is_ours(&name) {
            continue;
        }
        let Ok(fd) = rustix::fs::openat(parent, &*name, FLAGS, Mode::empty()) else {
            continue;
        };
        // Only who has the lock removes it. If it is gone, its name may be another's by now.
        let locked = flock(&fd, FlockOperation::NonBlockingLockExclusive).is_ok();
        if locked && is_there(&fd).unwrap_or(false) && may_go(fd.as_fd()) {
            let _ = remove_flat_directory(parent, &name);
        }
    }
}

impl StagedFile {
    /// The number of the file, which is also its name in its directory.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Opens the file. Only access mode and `O_TRUNC` of `flags` count: the kernel has already
    /// applied the others, and `O_DIRECT` would make unaligned page write-back fail.
    pub fn open(&self, flags: OFlags) -> Result<File> {
        let flags = flags & (OFlags::RWMODE | OFlags::TRUNC) | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::openat(&self.directory, self.id.to_string(), flags, Mode::empty())
            .map(File::from)
            .context("open a staging file of", &self.directory.name)
    }

    /// Size, times and blocks as the file system has them; one system call, no descriptor.
    pub fn stat(&self) -> rustix::io::Result<rustix::fs::Stat> {
        rustix::fs::statat(
            &self.directory,
            self.id.to_string(),
            AtFlags::SYMLINK_NOFOLLOW,
        )
    }

    /// Sets access and modification time, each as `utimensat` takes it.
    pub fn set_times(&self, times: &rustix::fs::Timestamps) -> rustix::io::Result<()> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(&self.directory, self.id.to_string(), times, flags)
    }

    /// Leaves the file on disk when its last owner goes.
    pub fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }

    /// Lets the file go with its last owner.
    pub fn doom(&self) {
        self.kept.store(false, Ordering::Relaxed);
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if !self.kept.load(Ordering::Relaxed) {
            let _ = rustix::fs::unlinkat(&self.directory, self.id.to_string(), AtFlags::empty());
        }
    }
}

/// Whether nobody can write to a file any more: no descriptor and no mapping of it is open for
/// writing. `file` must be open read-only, and belong to the caller.
///
/// A read lease is granted exactly then (fs/locks.c, `check_conflicting_open`), mappings included,
/// because they hold the inode's write count. A FUSE RELEASE does not say so: a passthrough
/// mapping outlives it.
pub fn is_quiet(file: &File) -> bool {
    // Whoever opens the file for writing while we have the lease makes the kernel signal us, by
    // SIGIO if not told otherwise, which kills. SIGURG is ignored unless someone wants it.
    // SAFETY: as below.
    unsafe { libc::fcntl(file.as_raw_fd(), F_SETSIG, libc::SIGURG) };
    // SAFETY: fcntl with F_SETLEASE takes integers only and touches no memory of ours.
    let granted = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK) } == 0;
    if granted {
        // SAFETY: as above.
        unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_UNLCK) };
    }
    granted
}

/// The path of a descriptor as `/proc` tells it, for messages.
pub fn path_of(fd: BorrowedFd<'_>) -> PathBuf {
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    match rustix::fs::readlinkat(CWD, link, Vec::new()) {
        Ok(path) => std::ffi::OsString::from_vec(path.into_bytes()).into(),
        Err(_) => PathBuf::from("<unknown>"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn staging() -> (tempfile::TempDir, Arc<StagingDirectory>) {
        let root = tempfile::tempdir().unwrap();
        let parent = File::open(root.path()).unwrap();
        let directory = Arc::new(StagingDirectory::create(parent.as_fd(), "job").unwrap());
        (root, directory)
    }

    #[test]
    fn files_and_directory_are_on_disk_exactly_as_long_as_owned() {
        let (root, directory) = staging();
        let (a, _) = directory.create_file(OFlags::RDONLY).unwrap();
        let (b, _) = directory.create_file(OFlags::RDWR).unwrap();
        let path = |staged: &StagedFile| root.path().join("job").join(staged.id().to_string());
        let (path_a, path_b) = (path(&a), path(&b));
        assert!(path_a.exists() && path_b.exists());
        b.keep();
        drop((a, b));
        assert!(!path_a.exists() && path_b.exists());
        drop(directory);
        assert!(!root.path().join("job").exists());
    }

    #[test]
    fn a_sweep_removes_what_a_dead_process_left_and_nothing_else() {
        let (root, alive) = staging();
        let path = root.path().join("left.1.0");
        std::fs::create_dir(&path).unwrap();
        File::create(path.join("7")).unwrap();
        let parent = File::open(root.path()).unwrap();
        sweep(parent.as_fd(), |_| true, |_| true);
        assert!(!path.exists());
        assert!(root.path().join(alive.name()).exists());
    }

    /// Regression: between its making and its locking a directory looked like a dead process's.
    #[test]
    fn a_sweep_leaves_those_alone_who_just_come() {
        let (root, _) = staging();
        let parent = File::open(root.path()).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        sweep(parent.as_fd(), |_| true, |_| true);
                    }
                });
            }
            let come = |n: usize| {
                let name = format!("come.{n}.0");
                let directory = Arc::new(StagingDirectory::create(parent.as_fd(), &name)?);
                let (file, _) = directory.create_file(OFlags::WRONLY)?;
                let there = root.path().join(name).join(file.id().to_string()).exists();
                Ok::<_, crate::Error>(there)
            };
            let came: Vec<_> = (0..1000).map(come).collect();
            done.store(true, Ordering::Relaxed);
            assert!(came.iter().all(|came| matches!(came, Ok(true))), "{came:?}");
        });
    }

    #[test]
    fn a_file_is_quiet_only_when_no_writer_and_no_shared_writable_mapping_is_left() {
        let (_root, directory) = staging();
        let (staged, mut writer) = directory.create_file(OFlags::RDWR).unwrap();
        writer.write_all(&[0; 4096]).unwrap();
        let reader = staged.open(OFlags::RDONLY).unwrap();
        assert!(!is_quiet(&reader), "a descriptor is open for writing");
        // SAFETY: a fresh mapping of a file of one page, unmapped below, never dereferenced.
        let mapping = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(
                std::ptr::null_mut(),
                4096,
                access,
                libc::MAP_SHARED,
                writer.as_raw_fd(),
                0,
            )
        };
        assert_ne!(mapping, libc::MAP_FAILED);
        drop(writer);
        assert!(!is_quiet(&reader), "a shared mapping is writable");
        // SAFETY: exactly the mapping made above.
        unsafe { libc::munmap(mapping, 4096) };
        assert!(is_quiet(&reader));
    }
}
