//! A document of which nothing is to be seen until it is whole.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use serde::Serialize;

use crate::error::{Error, Result};

/// Reading and writing for owner and group, less the umask, as with the original.
const MODE: u32 = 0o664;

/// A file that will be written. Prepared before the job runs, so that a path that cannot be
/// written is found out before and not after. It appears under its name whole, or not at all, and
/// a process that is killed leaves nothing else behind.
#[derive(Debug)]
pub struct Pending {
    path: PathBuf,
    target: Target,
    durable: bool,
}

#[derive(Debug)]
enum Target {
    /// A regular file that has no name yet.
    Unnamed(File),
    /// A regular file on a file system where all files have names; made when there is something
    /// to write, and renamed.
    Named,
    /// A pipe, a device, our own output, or what a link points to that leads nowhere yet. It cannot
    /// be replaced.
    Direct(File),
}

impl Pending {
    /// Prepares to write to a path. A file that is there stays until it is replaced.
    pub fn create(path: &Path) -> Result<Self> {
        if let Some(own) = own_output(path).map_err(|error| failed(path, error))? {
            return Ok(Self::new(path.into(), Target::Direct(own)));
        }
        // Through a link: the name that is replaced is that of the file.
        let path = path.canonicalize().unwrap_or_else(|_| path.into());
        let target = target(&path).map_err(|error| failed(&path, error))?;
        Ok(Self::new(path, target))
    }

    fn new(path: PathBuf, target: Target) -> Self {
        let durable = false;
        Self {
            path,
            target,
            durable,
        }
    }

    /// From now on, a document that was written is on disk, and so is its name.
    pub fn make_durable(&mut self) {
        self.durable = true;
    }

    /// Whether [`Pending::make_durable`] was called.
    pub fn is_durable(&self) -> bool {
        self.durable
    }

    /// Gives up. A file of that name is of an earlier job and must not be taken for this one's.
    pub fn withdraw(self) {
        if !matches!(self.target, Target::Direct(_)) {
            let _ = std::fs::remove_file(self.path);
        }
    }

    /// Writes the document and gives it its name.
    pub fn commit(self, document: &impl Serialize) -> Result<()> {
        let bytes = serde_json::to_vec(document).map_err(|error| failed(&self.path, error))?;
        self.commit_bytes(&bytes)
    }

    /// A file of almost the same name for what belongs to the document; `None` if that is no file.
    pub fn beside(&self, suffix: &str) -> Option<PathBuf> {
        let mut path = self.path.clone().into_os_string();
        path.push(suffix);
        (!matches!(self.target, Target::Direct(_))).then(|| path.into())
    }

    /// Writes the document, given as it is to stand there, and gives it its name.
    pub fn commit_bytes(self, bytes: &[u8]) -> Result<()> {
        let Self {
            path,
            target,
            durable,
        } = self;
        let replace = || replace(&path, bytes, durable);
        let done = match target {
            // What is no file has no disk.
            Target::Direct(mut file) => file.write_all(bytes),
            Target::Unnamed(mut file) => write(&mut file, bytes, durable)
                .and_then(|()| name(&file, &path).or_else(|_| replace())),
            Target::Named => replace(),
        };
        let named = done.and_then(|()| match durable {
            true => File::open(directory(&path)).and_then(|directory| directory.sync_all()),
            false => Ok(()),
        });
        named.map_err(|error| failed(&path, error))
    }
}

fn failed(path: &Path, error: impl Into<io::Error>) -> Error {
    Error::io("write the result to", path, error)
}

/// Our own standard output or error, if the path names it, as `/dev/stdout` does. What the job
/// printed is in the same file, so the document goes behind it and replaces nothing.
fn own_output(path: &Path) -> io::Result<Option<File>> {
    let Ok(named) = path.metadata() else {
        return Ok(None);
    };
    for own in [rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let Ok(is) = rustix::fs::fstat(own) else {
            continue;
        };
        if (is.st_dev, is.st_ino) == (named.dev(), named.ino()) {
            return Ok(Some(own.try_clone_to_owned()?.into()));
        }
    }
    Ok(None)
}

fn target(path: &Path) -> io::Result<Target> {
    match path.symlink_metadata() {
        Ok(is) if is.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
        Ok(is) if is.is_file() => {}
        Ok(_) => {
            let mut options = OpenOptions::new();
            let file = options.write(true).create(true).truncate(true).open(path)?;
            return Ok(Target::Direct(file));
        }
        Err(_) => {} // what it is will be met again
    }
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    match rustix::fs::open(directory(path), flags, Mode::from_raw_mode(MODE)) {
        Ok(file) => Ok(Target::Unnamed(file.into())),
        // A file system without such files says that the one or the other is not supported.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR) => {
            temporary(path).map(|_removed_at_once| Target::Named)
        }
        Err(errno) => Err(errno.into()),
    }
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn name(file: &File, path: &Path) -> rustix::io::Result<()> {
    let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::linkat(CWD, unnamed, CWD, path, AtFlags::SYMLINK_FOLLOW)
}

fn temporary(path: &Path) -> io::Result<tempfile::NamedTempFile> {
    tempfile::Builder::new()
        .prefix(".wakebox-result-")
        .permissions(Permissions::from_mode(MODE))
        .tempfile_in(directory(path))
}

/// The bytes are on disk before the name is, or a power failure could leave the name of an empty
/// file.
fn write(file: &mut File, bytes: &[u8], durable: bool) -> io::Result<()> {
    file.write_all(bytes)?;
    if durable { file.sync_all() } else { Ok(()) }
}

/// In place of another file, or where there is no `/proc`.
fn replace(path: &Path, bytes: &[u8], durable: bool) -> io::Result<()> {
    let mut file = temporary(path)?;
    write(file.as_file_mut(), bytes, durable)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "the tests play callers, who write plainly"
)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).unwrap().flatten();
        let mut names: Vec<_> = entries
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn nothing_is_there_until_all_is() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("result");
        std::fs::write(&path, "of an earlier job").unwrap();
        let pending = Pending::create(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"of an earlier job");
        assert_eq!(names(place.path()), ["result"]);
        pending.commit(&[1, 2]).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"[1,2]");
        assert_eq!(names(place.path()), ["result"]);
        Pending::create(&path).unwrap().withdraw();
        assert_eq!(names(place.path()), [""; 0]);
    }

    #[test]
    fn the_last_of_two_wins() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("result");
        let (a, b) = (Pending::create(&path), Pending::create(&path));
        a.unwrap().commit(&1).unwrap();
        b.unwrap().commit(&2).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"2");
        assert_eq!(names(place.path()), ["result"]);
    }

    #[test]
    fn a_link_is_followed_and_stays() {
        let place = tempfile::tempdir().unwrap();
        let (path, link) = (place.path().join("result"), place.path().join("link"));
        std::os::unix::fs::symlink("result", &link).unwrap();
        for text in ["1", "2"] {
            let pending = Pending::create(&link).unwrap();
            pending.commit(&text.parse::<u32>().unwrap()).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), text.as_bytes());
            assert!(link.is_symlink());
        }
    }

    #[test]
    fn a_path_that_cannot_be_written_is_found_out_at_once() {
        let place = tempfile::tempdir().unwrap();
        for path in ["", "no/such"] {
            let path = place.path().join(path);
            let error = Pending::create(&path).unwrap_err();
            assert!(error.to_string().contains("cannot write the result to"));
        }
    }
}
