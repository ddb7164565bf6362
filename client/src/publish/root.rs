//! The workspace as seen by publishing: a tree in which no link is ever followed.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use cas::{Name, RelPath};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, Timespec, Timestamps};
use rustix::io::Errno;

use crate::publish::error::{Obstacle, PublishError, Tried};

/// Paths in the workspace are resolved by the kernel in one step that refuses links, so there is
/// no moment between a check and its use at which somebody could put a link in the way.
const RESOLVE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);

/// A descriptor of the workspace.
#[derive(Debug)]
pub(super) struct Root(OwnedFd);

impl Root {
    /// Opens the workspace, which itself may be named through links.
    pub(super) fn open(workspace: &Path) -> Result<Self, PublishError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::openat(CWD, workspace, flags, Mode::empty()) {
            Ok(fd) => Ok(Self(fd)),
            Err(error) => Err(PublishError::Workspace {
                path: workspace.into(),
                source: error.into(),
            }),
        }
    }

    /// Opens a directory; `None` if it does not exist. `access` is `O_PATH` or `O_RDONLY`.
    pub(super) fn directory(
        &self,
        path: Option<&RelPath>,
        access: OFlags,
    ) -> Result<Option<OwnedFd>, Obstacle> {
        let path = path.map_or(Path::new("."), RelPath::as_path);
        let flags = access | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::openat2(&self.0, path, flags, Mode::empty(), RESOLVE) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::LOOP) => Err(Obstacle::Link),
            Err(Errno::NOTDIR) => Err(Obstacle::NotADirectory),
            Err(error) => Err(error).tried("open the directory"),
        }
    }

    /// Opens the directory that holds a path, which must exist, and says under which name.
    pub(super) fn parent<'p>(&self, path: &'p RelPath) -> Result<(OwnedFd, Name<'p>), Obstacle> {
        let (parent, name) = split(path);
        match self.directory(parent.as_ref(), OFlags::PATH)? {
            Some(directory) => Ok((directory, name)),
            None => Err(Errno::NOENT).tried("open its directory"),
        }
    }
}

/// The directory that holds a path, `None` for the workspace, and the path's name in it.
pub(super) fn split(path: &RelPath) -> (Option<RelPath>, Name<'_>) {
    let mut names: Vec<_> = path.names().collect();
    let name = names.pop().expect("a path has at least one name");
    (RelPath::from_names(names), name)
}

/// The name in the form that system calls take.
pub(super) fn os(name: Name<'_>) -> &OsStr {
    OsStr::from_bytes(name.as_bytes())
}

/// Access and modification time, both the given nanoseconds since the epoch.
pub(super) fn times(nanoseconds: i64) -> Timestamps {
    let time = Timespec {
        tv_sec: nanoseconds.div_euclid(1_000_000_000),
        tv_nsec: nanoseconds.rem_euclid(1_000_000_000),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}
