//! The store on disk: the only writer of `blobs/`.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{
    Access, AtFlags, CWD, Mode, OFlags, RenameFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT,
};
use rustix::io::Errno;

use crate::blob::{Blob, BlobStat};
use crate::copy::Copier;
use crate::digest::Digest;
use crate::error::{Context, Error, Result};
use crate::recovery::{self, JobState, Recovery};
use crate::staging::{StagingDirectory, path_of};

/// A content-addressed store. See the crate's documentation for its layout and its rules.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    blobs: OwnedFd,
    /// The same directory by the way of the staging area: a read-only mount refuses to move the
    /// time of last use. Nothing is ever opened by it.
    uses: OwnedFd,
    staging: OwnedFd,
    copier: Copier,
    names: AtomicU64,
}

/// How exact the time of last use is, in seconds. What was used within it is not marked again: a
/// job with 300,000 inputs would change as many inodes.
const USE_PRECISION: i64 = 3600;

/// What the names of staging directories begin with that are no job's.
pub(crate) const OURS: &str = "wakebox-";

/// Whether a name in the staging area is one that this program makes. All others are their
/// makers' business.
pub fn is_own_staging(name: &str) -> bool {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    name.starts_with(OURS) || name.len() == 16 && name.bytes().all(is_digit)
}

impl Store {
    /// Opens the store at `root`, making its directories where they are missing.
    pub fn open(root: &Path) -> Result<Self> {
        for name in ["blobs", "staging"] {
            let path = root.join(name);
            std::fs::create_dir_all(&path).context("create the store's directory", &path)?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd =
            rustix::fs::openat(CWD, root, flags, Mode::empty()).context("open the store", root)?;
        let store = Self::from_descriptors(&fd, &fd)?;
        Ok(Self {
            root: root.into(),
            ..store
        })
    }

    /// Opens a store through two descriptors of its root: blobs are reached through one, staging
    /// through the other. With a read-only mount as the first, no blob can be opened for writing
    /// by way of this store, not even by the kernel on its behalf.
    pub fn from_descriptors(blobs: impl AsFd, staging: impl AsFd) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = path_of(staging.as_fd());
        let open = |fd: BorrowedFd<'_>, name: &str| {
            rustix::fs::openat(fd, name, flags, Mode::empty())
                .context("open the store's directory", root.join(name))
        };
        let (blobs, uses) = (
            open(blobs.as_fd(), "blobs")?,
            open(staging.as_fd(), "blobs")?,
        );
        let staging = open(staging.as_fd(), "staging")?;
        Ok(Self {
            blobs,
            uses,
            staging,
            root,
            copier: Copier::default(),
            names: AtomicU64::new(0),
        })
    }

    /// Where the store is, as it was named when it was opened.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The path of a blob, whether it exists or not.
    pub fn path(&self, digest: Digest) -> PathBuf {
        self.root.join("blobs").join(blob_name(digest))
    }

    /// Size of a blob, or `None` if the store does not have it. Fails if it may not be read.
    pub fn stat(&self, digest: Digest) -> Result<Option<BlobStat>> {
        let name = blob_name(digest);
        let stat = match rustix::fs::statat(&self.blobs, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(Error::io("examine blob", self.path(digest), error)),
        };
        // What a power failure leaves of a file that was given its name and never flushed, where
        // room for bytes is found when they are written out (ext4, XFS, btrfs). Who has the
        // content puts it in its place.
        if stat.st_size == 0 && digest != Digest::of(b"") {
            return Ok(None);
        }
        // Mode 0444 is what this store writes. Another program's blob may have any mode, and
        // only then is the question worth a system call.
        if stat.st_mode & 0o444 != 0o444 {
            rustix::fs::accessat(&self.blobs, &name, Access::READ_OK, AtFlags::EACCESS)
                .context("read blob", self.path(digest))?;
        }
        Ok(Some(BlobStat {
            size: stat.st_size as u64,
            used: stat.st_atime,
        }))
    }

    /// As [`Store::stat`], for a blob that somebody relies on from now on: it counts as used. To
    /// be called with a [`Hold`](crate::hold::Hold), or a collector may remove it at once.
    pub fn claim(&self, digest: Digest) -> Result<Option<BlobStat>> {
        let found = self.stat(digest)?;
        let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse).tv_sec;
        let is_recent = |stat: BlobStat| (0..USE_PRECISION).contains(&(now - stat.used));
        if !found.is_none_or(is_recent) {
            // Another user's blob, or a file system that is read-only: it is found all the same.
            let _ = mark_used(self.uses.as_fd(), &blob_name(digest));
        }
        Ok(found)
    }

    /// Opens a blob for reading.
    pub fn open_blob(&self, digest: Digest) -> Result<Blob> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NOATIME;
        let name = blob_name(digest);
        let open = |flags| rustix::fs::openat(&self.blobs, &name, flags, Mode::empty());
        // O_NOATIME is for the owner of the file; another program's blob may be someone else's.
        let opened = match open(flags) {
            Err(Errno::PERM) => open(flags.difference(OFlags::NOATIME)),
            other => other,
        };
        match opened {
            Ok(fd) => Ok(Blob {
                digest,
                file: File::from(fd),
            }),
            Err(Errno::NOENT) => Err(Error::Missing(digest)),
            Err(error) => Err(Error::io("open blob", self.path(digest), error)),
        }
    }

    /// Reads a whole blob into memory.
    pub fn read(&self, digest: Digest) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut self.open_blob(digest)?.file, &mut bytes)
            .context("read blob", self.path(digest))?;
        Ok(bytes)
    }

    /// A new, empty staging directory with a name that no other process uses. No other program's
    /// either: callers have directories of their own in the staging area.
    pub fn new_staging(&self, purpose: &str) -> Result<Arc<StagingDirectory>> {
        loop {
            let number = self.names.fetch_add(1, Ordering::Relaxed);
            let name = format!("{OURS}{purpose}.{}.{number}", std::process::id());
            match StagingDirectory::create(self.staging.as_fd(), &name) {
                // A process of the same number, in another PID namespace or before a crash.
                Err(Error::Io { source, .. })
                    if source.kind() == std::io::ErrorKind::AlreadyExists => {}
                other => return other.map(Arc::new),
            }
        }
    }

    /// Says in a staging directory what its owner uses; see [`recovery::write_inputs`].
    pub fn write_inputs(&self, staging: &str, manifest: &[u8]) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let directory = rustix::fs::openat(&self.staging, staging, flags, Mode::empty());
        let directory = directory.context("open the staging directory", staging)?;
        recovery::write_inputs(directory.as_fd(), manifest)
    }

    /// Removes what imports that were killed have left in the staging area.
    pub fn sweep_imports(&self) {
        let is_import = |name: &str| name.starts_with(OURS);
        crate::staging::sweep(self.staging.as_fd(), is_import, |_| true);
    }

    /// Removes what jobs have left whose daemon was killed while they ran: nobody knows what the
    /// files are. Those of jobs that had ended can be recovered, or belong to who ran them.
    pub fn sweep_jobs(&self) {
        let is_job = |name: &str| is_own_staging(name) && !name.starts_with(OURS);
        let is_lost = |directory: BorrowedFd<'_>| {
            Recovery::read(directory).is_some_and(|manifest| manifest.job == JobState::Running)
        };
        crate::staging::sweep(self.staging.as_fd(), is_job, is_lost);
    }

    /// The directory that holds all blobs.
    pub(crate) fn blobs(&self) -> BorrowedFd<'_> {
        self.blobs.as_fd()
    }

    /// The directory that holds all staging directories.
    pub fn staging(&self) -> BorrowedFd<'_> {
        self.staging.as_fd()
    }

    /// Puts the content of a file, read from its start, into the store. The copy is made first
    /// and then hashed, so a file that changes meanwhile gives a whole blob of some state of it.
    pub fn put_file(&self, file: &File, staging: &Arc<StagingDirectory>) -> Result<(Digest, u64)> {
        let (staged, copy) = staging.create_file(OFlags::RDWR)?;
        self.copier
            .copy(file, &copy)
            .context("copy into the store", &self.root)?;
        self.hash_and_adopt(staging, staged, &copy)
    }

    /// Puts bytes into the store.
    pub fn put_bytes(&self, bytes: &[u8], staging: &Arc<StagingDirectory>) -> Result<Digest> {
        let (staged, mut copy) = staging.create_file(OFlags::RDWR)?;
        copy.write_all(bytes)
            .context("write into the store", &self.root)?;
        Ok(self.hash_and_adopt(staging, staged, &copy)?.0)
    }

    /// Puts everything that a reader yields into the store.
    pub fn put_reader(
        &self,
        reader: &mut dyn std::io::Read,
        staging: &Arc<StagingDirectory>,
    ) -> Result<(Digest, u64)> {
        let (staged, mut copy) = staging.create_file(OFlags::RDWR)?;
        std::io::copy(reader, &mut copy).context("write into the store", &self.root)?;
        self.hash_and_adopt(staging, staged, &copy)
    }

    fn hash_and_adopt(
        &self,
        staging: &StagingDirectory,
        staged: crate::staging::StagedFile,
        copy: &File,
    ) -> Result<(Digest, u64)> {
        let (digest, size) = Digest::of_file(copy).context("hash a copy in", &self.root)?;
        self.adopt(staging.as_fd(), &staged.id().to_string(), digest)?;
        staged.keep(); // renamed away, or removed as a duplicate
        Ok((digest, size))
    }

    /// Makes a finished file the blob of its digest, by rename: a reader never sees half a blob.
    /// The file must be on the store's file system, and nobody may be able to write to it any
    /// more. If the blob exists it stays, and the file is removed; unless it has another length,
    /// as a power failure leaves it: then it is replaced.
    pub fn adopt(&self, directory: BorrowedFd<'_>, name: &str, digest: Digest) -> Result<()> {
        let path = self.path(digest);
        let blob = blob_name(digest);
        // Readers must not find a blob that its owner could open for writing by accident.
        rustix::fs::chmodat(
            directory,
            name,
            Mode::from_raw_mode(0o444),
            AtFlags::empty(),
        )
        .context("protect", &path)?;
        // The job may have set any time of access.
        let _ = mark_used(directory, name);
        let rename = || {
            rustix::fs::renameat_with(directory, name, &self.blobs, &blob, RenameFlags::NOREPLACE)
        };
        let renamed = match rename() {
            Err(Errno::NOENT) => {
                self.make_fan_out(&blob[..2])
                    .context("create the directory of", &path)?;
                rename()
            }
            other => other,
        };
        match renamed {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) if self.is_cut(directory, name, &blob) => {
                rustix::fs::renameat(directory, name, &self.uses, &blob).context("replace", path)
            }
            Err(Errno::EXIST) => {
                self.claim(digest)?;
                rustix::fs::unlinkat(directory, name, AtFlags::empty())
                    .context("remove the duplicate of", &path)
            }
            Err(error) => Err(Error::io("insert", path, error)),
        }
    }

    /// Whether a blob has another length than a file of the same hash.
    fn is_cut(&self, directory: BorrowedFd<'_>, name: &str, blob: &str) -> bool {
        let size = |at: BorrowedFd<'_>, name: &str| {
            rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW).map(|is| is.st_size)
        };
        match (size(directory, name), size(self.blobs.as_fd(), blob)) {
            (Ok(whole), Ok(there)) => whole != there,
            _ => false,
        }
    }

    fn make_fan_out(&self, name: &str) -> rustix::io::Result<()> {
        match rustix::fs::mkdirat(&self.blobs, name, Mode::from_raw_mode(0o755)) {
            Err(Errno::EXIST) => Ok(()),
            other => other,
        }
    }

    /// Re-hashes a blob.
    pub fn verify(&self, expected: Digest) -> Result<u64> {
        let blob = self.open_blob(expected)?;
        let (found, size) =
            Digest::of_file(&blob.file).context("read blob", self.path(expected))?;
        if found == expected {
            Ok(size)
        } else {
            Err(Error::Corrupt { expected, found })
        }
    }

    /// All blobs, in no order. Files that are not named like a blob are passed over.
    pub fn list(&self) -> Result<Vec<Digest>> {
        let mut found = Vec::new();
        for fan_out in 0..=255u8 {
            let name = format!("{fan_out:02x}");
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let directory = match rustix::fs::openat(&self.blobs, &name, flags, Mode::empty()) {
                Err(Errno::NOENT) => continue,
                other => other.context("open", self.root.join("blobs").join(&name))?,
            };
            for entry in rustix::fs::Dir::read_from(&directory)
                .context("list", self.root.join("blobs").join(&name))?
            {
                let entry = entry.context("list", self.root.join("blobs").join(&name))?;
                let rest = entry.file_name().to_string_lossy();
                found.extend(format!("{name}{rest}").parse::<Digest>());
            }
        }
        Ok(found)
    }
}

/// Says by the time of last access that a file was used now. Nobody else says so: blobs are read
/// with `O_NOATIME`, and file systems are mounted without such times or with few of them.
fn mark_used(directory: BorrowedFd<'_>, name: &str) -> rustix::io::Result<()> {
    let time = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
    let times = Timestamps {
        last_access: time(UTIME_NOW),
        last_modification: time(UTIME_OMIT),
    };
    rustix::fs::utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW)
}

/// `<2 hex>/<62 hex>` below `blobs/`.
pub(crate) fn blob_name(digest: Digest) -> String {
    let mut name = digest.to_string();
    name.insert(2, '/');
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn store() -> (tempfile::TempDir, Store) {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        (root, store)
    }

    /// What a power failure leaves of blobs that were not flushed.
    #[test]
    fn a_blob_that_is_cut_is_noticed_and_replaced_by_the_whole() {
        let (_root, store) = store();
        let staging = store.new_staging("put").unwrap();
        let digest = store.put_bytes(b"hello", &staging).unwrap();
        let path = store.path(digest);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        for length in [0, 3] {
            let file = File::options().write(true).open(&path).unwrap();
            file.set_len(length).unwrap();
            let found = store.claim(digest).unwrap();
            assert_eq!(found.is_none(), length == 0, "{found:?}");
            assert_eq!(store.put_bytes(b"hello", &staging).unwrap(), digest);
            assert_eq!(store.verify(digest).unwrap(), 5);
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        }
        let empty = store.put_bytes(b"", &staging).unwrap();
        assert_eq!(store.claim(empty).unwrap().unwrap().size, 0);
    }

    #[test]
    fn what_is_put_is_read_back_once_and_protected() {
        let (root, store) = store();
        let staging = store.new_staging("put").unwrap();
        let digest = store.put_bytes(b"hello", &staging).unwrap();
        assert_eq!(store.put_bytes(b"hello", &staging).unwrap(), digest);
        drop(staging);
        assert_eq!(store.read(digest).unwrap(), b"hello");
        assert_eq!(store.stat(digest).unwrap().map(|stat| stat.size), Some(5));
        assert_eq!(store.list().unwrap(), [digest]);
        let hex = digest.to_string();
        let path = root.path().join("blobs").join(&hex[..2]).join(&hex[2..]);
        assert_eq!(store.path(digest), path);
        assert_eq!(
            path.metadata().unwrap().permissions().mode() & 0o7777,
            0o444
        );
        assert_eq!(
            std::fs::read_dir(root.path().join("staging"))
                .unwrap()
                .count(),
            0
        );
    }

    /// Regression: a caller's directory `name.pid.number` was taken for that of a dead process.
    #[test]
    fn a_sweep_leaves_the_directories_of_callers_alone() {
        let (root, store) = store();
        let staging = root.path().join("staging");
        let of_callers = ["job-4.7.0", "put.1.0", "A123456789abcdef", "x"];
        for name in of_callers {
            std::fs::create_dir(staging.join(name)).unwrap();
            File::create(staging.join(name).join("in")).unwrap();
            assert!(!is_own_staging(name), "{name}");
        }
        let left = staging.join(format!("{OURS}put.1.0"));
        std::fs::create_dir(&left).unwrap();
        let alive = store.new_staging("put").unwrap();
        store.sweep_imports();
        store.sweep_jobs();
        assert!(!left.exists() && staging.join(alive.name()).exists());
        for name in of_callers {
            assert!(staging.join(name).join("in").exists(), "{name}");
        }
        assert!(is_own_staging("0123456789abcdef") && is_own_staging(alive.name()));
    }

    #[test]
    fn a_missing_and_a_corrupt_blob_are_told_apart() {
        let (_root, store) = store();
        let digest = Digest::of(b"hello");
        assert!(matches!(store.verify(digest), Err(Error::Missing(missing)) if missing == digest));
        let staging = store.new_staging("put").unwrap();
        store.put_bytes(b"hello", &staging).unwrap();
        assert_eq!(store.verify(digest).unwrap(), 5);
        std::fs::remove_file(store.path(digest)).unwrap();
        std::fs::copy("/proc/self/comm", store.path(digest)).unwrap();
        assert!(matches!(store.verify(digest), Err(Error::Corrupt { .. })));
    }

    #[test]
    fn sixteen_threads_inserting_the_same_blobs_leave_one_of_each_and_no_debris() {
        let (root, store) = store();
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let staging = store.new_staging("put").unwrap();
                    for i in 0..50u32 {
                        store.put_bytes(&i.to_le_bytes(), &staging).unwrap();
                    }
                });
            }
        });
        assert_eq!(store.list().unwrap().len(), 50);
        for digest in store.list().unwrap() {
            store.verify(digest).unwrap();
        }
        assert_eq!(
            std::fs::read_dir(root.path().join("staging"))
                .unwrap()
                .count(),
            0
        );
    }
}
