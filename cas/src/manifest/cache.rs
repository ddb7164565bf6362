//! Manifests of large jobs, kept in the store's index: written once for the daemon, which reads it
//! there, for collectors, which find it in the staging directory by another name, and for the next job
//! that declares the same.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};

use crate::digest::Digest;
use crate::error::{Context, Result};
use crate::recovery::{self, INPUTS, INPUTS_HASH};
use crate::store::Store;

/// Manifests below this size, in bytes, are sooner written twice than kept: 10,000 inputs or so.
pub const WORTH_IT: usize = 1 << 20;

/// The most bytes that are kept in all, 3 million inputs or so, and in how many files.
const BYTES_MAX: u64 = 256 << 20;
const FILES_MAX: usize = 64;

const PLACE: &str = "index/manifests";

/// How many bytes are compared at a time.
const CHUNK: usize = 64 << 10;

/// The directory `index/manifests` of a store. All in it may be deleted at any time.
#[derive(Debug)]
pub struct Cache(OwnedFd);

impl Cache {
    /// That of the store at `root`, if it has one.
    pub fn at(root: &Path) -> Option<Self> {
        Self::open(&root.join(PLACE)).ok()
    }

    /// That of a store; made if it is not there.
    ///
    /// # Errors
    /// It cannot be made or opened. A job can do without.
    pub fn of(store: &Store) -> Result<Self> {
        let path = store.root().join(PLACE);
        if let Ok(cache) = Self::open(&path) {
            return Ok(cache);
        }
        std::fs::create_dir_all(&path).context("create the directory", &path)?;
        Self::open(&path).context("open the directory", &path)
    }

    fn open(path: &Path) -> rustix::io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(CWD, path, flags, Mode::empty()).map(Self)
    }

    /// A manifest that was kept, if it still is and has so many bytes. Whether it has the right ones,
    /// the digest of what is read tells.
    pub fn find(&self, manifest: Digest, size: u64) -> Option<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let found = rustix::fs::openat(&self.0, name(manifest), flags, Mode::empty());
        let file = File::from(found.ok()?);
        let is = file.metadata().ok()?;
        (is.is_file() && is.len() == size).then_some(file)
    }

    /// Keeps the bytes of a manifest, and lets go of the oldest if there are too many. One that is kept
    /// already and was damaged is written anew.
    ///
    /// # Errors
    /// The disk is full, or may not be written to. A job can do without.
    pub fn keep(&self, manifest: Digest, bytes: &[u8]) -> Result<File> {
        let kept = self.find(manifest, bytes.len() as u64);
        if let Some(file) = kept.filter(|file| holds(file, bytes)) {
            return Ok(file);
        }
        self.make_room(bytes.len() as u64);
        let what = "keep a manifest in the index";
        let name = name(manifest);
        let (new, mut file) = self.create(&name).context(what, &name)?;
        let written = file.write_all(bytes).context(what, &new);
        let renamed = written.and_then(|()| {
            rustix::fs::renameat(&self.0, &new, &self.0, &name).context(what, &name)
        });
        if renamed.is_err() {
            let _ = rustix::fs::unlinkat(&self.0, &new, AtFlags::empty());
        }
        renamed.map(|()| file)
    }

    /// A file that nobody else writes to, and its name. A number of a process would not do: containers
    /// that share a store have the same ones.
    fn create(&self, name: &str) -> rustix::io::Result<(String, File)> {
        let mut random = [0; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        let new = format!("{name}.{:016x}", u64::from_ne_bytes(random));
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.0, &new, flags, Mode::RUSR | Mode::WUSR)?;
        Ok((new, file.into()))
    }

    /// Says in a staging directory what its owner uses, as [`Store::write_inputs`] does, of a manifest
    /// that is kept: by a further name of the file, which stays when it is kept no more. Nobody has read
    /// it by now, so its digest is put beside it, for whoever does.
    ///
    /// # Errors
    /// It is not kept any more; or the file system refuses, a link too many for example.
    pub fn link_inputs(&self, manifest: Digest, store: &Store, staging: &str) -> Result<()> {
        let what = "say what the job uses in";
        let (from, flags) = (name(manifest), AtFlags::empty());
        let hash = format!("{staging}/{INPUTS_HASH}");
        recovery::write(store.staging(), &hash, from.as_bytes(), what)?;
        let to = format!("{staging}/{INPUTS}");
        rustix::fs::linkat(&self.0, from, store.staging(), &to, flags).context(what, to)
    }

    /// Forgets a manifest.
    pub fn remove(&self, manifest: Digest) {
        let _ = rustix::fs::unlinkat(&self.0, name(manifest), AtFlags::empty());
    }

    /// Removes the oldest until there is room for one more file of some size. What cannot be examined
    /// is not counted.
    fn make_room(&self, size: u64) {
        let Ok(entries) = Dir::read_from(&self.0) else {
            return;
        };
        let files = entries.filter_map(|entry| {
            let name = entry.ok()?.file_name().to_owned();
            let is = rustix::fs::statat(&self.0, &name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
            let is_file = FileType::from_raw_mode(is.st_mode).is_file();
            is_file.then_some((is.st_mtime, is.st_mtime_nsec, name, is.st_size as u64))
        });
        let mut files: Vec<_> = files.collect();
        files.sort();
        let mut bytes = size + files.iter().map(|file| file.3).sum::<u64>();
        let mut count = files.len() + 1;
        for (_, _, name, size) in files {
            if bytes <= BYTES_MAX && count <= FILES_MAX {
                break;
            }
            let _ = rustix::fs::unlinkat(&self.0, name, AtFlags::empty());
            (bytes, count) = (bytes - size, count - 1);
        }
    }
}

/// Whether a file has these bytes. Not by mapping it: it may be cut meanwhile.
fn holds(file: &File, bytes: &[u8]) -> bool {
    let mut buffer = vec![0; CHUNK];
    let mut chunks = (0..).step_by(CHUNK).zip(bytes.chunks(CHUNK));
    chunks.all(|(at, chunk)| {
        let read = &mut buffer[..chunk.len()];
        file.read_exact_at(read, at).is_ok() && read == chunk
    })
}

fn name(manifest: Digest) -> String {
    manifest.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Manifest;
    use crate::staging::StagingDirectory;
    use std::os::fd::AsFd;

    fn cache() -> (tempfile::TempDir, Store, Cache) {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        assert!(Cache::at(root.path()).is_none());
        let cache = Cache::of(&store).unwrap();
        (root, store, cache)
    }

    fn names(cache: &Cache) -> usize {
        let entries = Dir::read_from(&cache.0)
            .unwrap()
            .map(|entry| entry.unwrap());
        entries
            .filter(|entry| !entry.file_name().to_bytes().starts_with(b"."))
            .count()
    }

    fn damage(root: &Path, manifest: Digest, bytes: &[u8]) {
        let mut options = File::options();
        let options = options.write(true).truncate(true);
        let kept = options.open(root.join(PLACE).join(name(manifest)));
        kept.unwrap().write_all(bytes).unwrap();
    }

    #[test]
    fn what_is_kept_is_found_unless_it_was_cut() {
        let (root, store, cache) = cache();
        let digest = Digest::of(b"words");
        assert!(cache.find(digest, 5).is_none());
        cache.keep(digest, b"words").unwrap();
        cache.keep(digest, b"words").unwrap();
        assert_eq!(names(&cache), 1);
        assert!(cache.find(digest, 5).is_some());
        assert!(cache.find(digest, 4).is_none());
        let staging = store.new_staging("test").unwrap();
        let directory = std::fs::read_dir(root.path().join("staging")).unwrap();
        let directory = directory.map(|entry| entry.unwrap()).next().unwrap();
        let place = directory.file_name().into_string().unwrap();
        cache.link_inputs(digest, &store, &place).unwrap();
        cache.remove(digest);
        assert!(Cache::at(root.path()).unwrap().find(digest, 5).is_none());
        let linked = std::fs::read(directory.path().join("inputs")).unwrap();
        assert_eq!(linked, b"words");
        drop(staging);
        assert!(cache.link_inputs(digest, &store, &place).is_err());
    }

    /// The blobs that it does not name any more would be collected while the job uses them.
    #[test]
    fn collectors_do_not_believe_what_was_damaged() {
        let (root, store, cache) = cache();
        let bytes = Manifest::default().encode();
        let digest = Digest::of(&bytes);
        cache.keep(digest, &bytes).unwrap();
        let staging = StagingDirectory::create(store.staging(), "0123456789abcdef").unwrap();
        cache
            .link_inputs(digest, &store, "0123456789abcdef")
            .unwrap();
        assert!(recovery::read_inputs(staging.as_fd()).is_some());
        // Still a manifest, of a stored tree.
        let other = [&bytes[..], b"r", &[0; 32], b"n"].concat();
        damage(root.path(), digest, &other);
        assert!(recovery::read_inputs(staging.as_fd()).is_none());
        recovery::Recovery::remove(staging.as_fd()).unwrap();
        let left = Dir::read_from(staging.as_fd()).unwrap();
        assert_eq!(left.count(), 2, "the dots");
    }

    #[test]
    fn what_was_damaged_is_kept_anew() {
        let (root, _store, cache) = cache();
        let digest = Digest::of(b"words");
        let bytes = vec![7; CHUNK + 5];
        let mut other = bytes.clone();
        *other.last_mut().unwrap() = 8;
        for before in [&other[..], &bytes[..CHUNK], &[]] {
            let file = cache.keep(digest, &bytes).unwrap();
            assert!(holds(&file, &bytes) && !holds(&file, &other));
            damage(root.path(), digest, before);
            assert!(holds(&cache.keep(digest, &bytes).unwrap(), &bytes));
            assert_eq!(names(&cache), 1);
        }
    }

    /// In two containers, say.
    #[test]
    fn two_processes_of_one_number_do_not_write_into_one_file() {
        let (_root, _store, cache) = cache();
        let (one, mut first) = cache.create("name").unwrap();
        first.write_all(b"words").unwrap();
        let (other, _second) = cache.create("name").unwrap();
        assert_ne!(one, other);
        assert_eq!(first.metadata().unwrap().len(), 5);
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many() {
        let (_root, _store, cache) = cache();
        let digest = |i: usize| Digest::of(&i.to_le_bytes());
        for i in 0..FILES_MAX + 3 {
            cache.keep(digest(i), b"x").unwrap();
            let file = cache.find(digest(i), 1).unwrap();
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(i as u64);
            file.set_modified(time).unwrap();
        }
        assert_eq!(names(&cache), FILES_MAX);
        assert!(cache.find(digest(2), 1).is_none());
        assert!(cache.find(digest(3), 1).is_some());
        cache.make_room(BYTES_MAX);
        assert_eq!(names(&cache), 0);
    }
}
