//! The state directory of a mount: its lock, and what is kept in it of the inputs.

use std::ffi::OsString;
use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cas::manifest::Manifest;
use cas::owners::Owned;
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock};

use crate::error::{Error, Result};

/// How long a mount waits for the last one on the same state: umount(2) returns before the
/// process that served it has flushed and gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often it looks. flock(2) has no time limit of its own.
const INTERVAL: Duration = Duration::from_millis(10);

/// What inputs are: read by the process that serves, too.
pub(super) const MANIFEST: &str = "manifest";

/// The directories that inputs came from, each with a NUL behind it.
const SOURCES: &str = "inputs";

/// Whom inputs belong to that are not the user's who took them.
const OWNERS: &str = "owners";

/// The file system that serves the state while it is locked, by its device number.
const SERVED: &str = "served";

/// Whose a state is.
#[derive(Debug)]
pub(super) enum Claim<M> {
    /// It was nobody's, and is ours now.
    Ours(State),
    /// It is served by a file system, of which this is a mount.
    Mounted(M),
}

/// A state directory that nobody else uses.
#[derive(Debug)]
pub(super) struct State {
    path: PathBuf,
    directory: OwnedFd,
}

impl State {
    /// Makes the directory if it is missing, for this user alone, and locks it; waits for a
    /// previous mount that is just ending, unless `find` finds the file system mounted. The lock
    /// goes with the descriptor, to whoever has a copy of it.
    pub(super) fn open<M>(path: &Path, find: impl Fn((u32, u32)) -> Option<M>) -> Result<Claim<M>> {
        let failed = |what| move |error: io::Error| Error::io(what, path, error);
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(path);
        made.map_err(failed("make the state directory"))?;
        let path = path
            .canonicalize()
            .map_err(failed("find the state directory"))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(CWD, &path, flags, Mode::empty());
        let directory = directory.map_err(|e| Error::io("open the state directory", &path, e))?;
        let state = Self { path, directory };
        Ok(match state.lock(find)? {
            Some(mounted) => Claim::Mounted(mounted),
            None => Claim::Ours(state),
        })
    }

    fn lock<M>(&self, find: impl Fn((u32, u32)) -> Option<M>) -> Result<Option<M>> {
        let start = Instant::now();
        while flock(&self.directory, FlockOperation::NonBlockingLockExclusive).is_err() {
            if let Some(mounted) = self.served().and_then(&find) {
                return Ok(Some(mounted));
            }
            if start.elapsed() > PATIENCE {
                return Err(Error::Mount(format!(
                    "the state {} is in use by another mount; unmount that one, or name another \
                     state",
                    self.path.display()
                )));
            }
            std::thread::sleep(INTERVAL);
        }
        Ok(None)
    }

    /// Tells others by which file system the state is served.
    pub(super) fn serve_by(&self, (major, minor): (u32, u32)) -> Result<()> {
        self.write(SERVED, format!("{major}:{minor}").as_bytes())
    }

    fn served(&self) -> Option<(u32, u32)> {
        let text = std::fs::read_to_string(self.path.join(SERVED)).ok()?;
        let (major, minor) = text.split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    }

    /// Where it is, as an absolute path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory, with its lock.
    pub(super) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// A file that the process that serves appends its log to.
    pub(super) fn log(&self) -> Result<(File, PathBuf)> {
        let path = self.path.join("log");
        let file = File::options().create(true).append(true).open(&path);
        let file = file.map_err(|error| Error::io("open the log", &path, error))?;
        Ok((file, path))
    }

    /// The directories that inputs were taken from; `None` if none were taken yet.
    pub(super) fn sources(&self) -> Result<Option<Vec<PathBuf>>> {
        let path = self.path.join(SOURCES);
        if !self.path.join(MANIFEST).exists() {
            return Ok(None);
        }
        let bytes = std::fs::read(&path).map_err(|error| Error::io("read", &path, error))?;
        let parts = bytes
            .split(|&byte| byte == 0)
            .filter(|part| !part.is_empty());
        let sources = parts.map(|part| OsString::from_vec(part.to_vec()).into());
        Ok(Some(sources.collect()))
    }

    /// Keeps the inputs. The manifest comes last: with it they are complete.
    pub(super) fn keep_inputs(
        &self,
        sources: &[PathBuf],
        manifest: &Manifest,
        owners: &[Owned],
    ) -> Result<()> {
        let mut list = Vec::new();
        for source in sources {
            list.extend_from_slice(source.as_os_str().as_bytes());
            list.push(0);
        }
        self.write(SOURCES, &list)?;
        let owners = serde_json::to_vec(owners).map_err(std::io::Error::other);
        let owners = owners.map_err(|error| Error::io("write", self.path.join(OWNERS), error))?;
        self.write(OWNERS, &owners)?;
        self.write(MANIFEST, &manifest.encode())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path.join(name);
        let write = || -> io::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(&self.path)?;
            file.write_all(bytes)?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            Ok(rustix::fs::fsync(&self.directory)?)
        };
        write().map_err(|error| Error::io("write", &path, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn open(path: &Path) -> State {
        match State::open(path, |_| None::<()>).unwrap() {
            Claim::Ours(state) => state,
            Claim::Mounted(()) => panic!("nothing is mounted"),
        }
    }

    #[test]
    fn a_state_in_use_is_mounted_again_where_its_file_system_is_found() {
        let root = tempfile::tempdir().unwrap();
        let first = open(root.path());
        first.serve_by((0, 42)).unwrap();
        let claim = State::open(root.path(), |number| (number == (0, 42)).then_some("it"));
        assert!(matches!(claim.unwrap(), Claim::Mounted("it")));
        drop(first);
        let claim = State::open(root.path(), |_| Some("it"));
        assert!(matches!(claim.unwrap(), Claim::Ours(_)));
    }

    #[test]
    fn a_state_is_made_for_its_user_alone_and_keeps_where_inputs_came_from() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/state");
        let state = open(&path);
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700);
        assert_eq!(state.sources().unwrap(), None);
        let sources = [PathBuf::from("/a b"), PathBuf::from("/c\n")];
        state
            .keep_inputs(&sources, &Manifest::default(), &[])
            .unwrap();
        assert_eq!(state.sources().unwrap(), Some(sources.to_vec()));
        state.keep_inputs(&[], &Manifest::default(), &[]).unwrap();
        assert_eq!(state.sources().unwrap(), Some(Vec::new()));
    }

    #[test]
    fn a_state_waits_for_its_predecessor() {
        let root = tempfile::tempdir().unwrap();
        let first = open(root.path());
        let start = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(200));
                drop(first);
            });
            open(root.path());
        });
        assert!(start.elapsed() >= Duration::from_millis(200));
    }
}
