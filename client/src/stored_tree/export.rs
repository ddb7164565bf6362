//! Writing a stored tree out.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cas::copy::Copier;
use cas::directory::{self, Root};
use cas::parallel;
use cas::tree::{Node, NodeIndex, NodeKind, Tree};
use cas::{Digest, Store};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Timespec, Timestamps};

use crate::error::{Error, Result};
use crate::sandbox;

const NANOSECONDS: i64 = 1_000_000_000;

/// Writes a stored tree into a directory, which is made, or must be empty. Files are copies of
/// their blobs, or share their extents where the file system can do that.
pub(crate) fn export(store: &Store, root: &Root, directory: &Path) -> Result<u8> {
    let tree = directory::load(root, store)?;
    directory::check(&tree, store)?;
    make_empty(directory)?;
    sandbox::start_hashing_threads();
    let export = Export {
        store,
        tree: &tree,
        directory,
        copier: Copier::default(),
    };
    // Rows are in breadth-first order: a directory comes before what it holds.
    let nodes = (0..tree.len() as u32).map(NodeIndex);
    let (directories, others): (Vec<_>, Vec<_>) =
        nodes.partition(|&index| export.is_directory(index));
    for &index in &directories[1..] {
        let path = export.path(index);
        std::fs::create_dir(&path).map_err(|error| Error::io("create", &path, error))?;
    }
    parallel::try_map(&others, |&index| export.write(index))?;
    // At the end, for making entries moves the time, and a mode may forbid it.
    for &index in directories.iter().rev() {
        export.set_attributes(index)?;
    }
    Ok(0)
}

fn make_empty(directory: &Path) -> Result<()> {
    match std::fs::create_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => return other.map_err(|error| Error::io("create", directory, error)),
    }
    let mut entries =
        std::fs::read_dir(directory).map_err(|error| Error::io("list", directory, error))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(Error::Usage(format!(
            "{} is not empty",
            directory.display()
        ))),
    }
}

struct Export<'a> {
    store: &'a Store,
    tree: &'a Tree,
    directory: &'a Path,
    copier: Copier,
}

impl Export<'_> {
    fn is_directory(&self, index: NodeIndex) -> bool {
        let node = self.tree.get(index);
        node.is_some_and(|node| matches!(node.kind, NodeKind::Directory { .. }))
    }

    fn path(&self, index: NodeIndex) -> PathBuf {
        match self.tree.path(index) {
            Some(path) => self.directory.join(path.as_path()),
            None => self.directory.into(),
        }
    }

    fn write(&self, index: NodeIndex) -> Result<()> {
        let path = self.path(index);
        let Some(node) = self.tree.get(index) else {
            return Ok(());
        };
        match node.kind {
            NodeKind::File { digest, .. } => self.write_file(&path, digest, &node),
            NodeKind::Symlink { target } => {
                std::os::unix::fs::symlink(OsStr::from_bytes(target), &path)
                    .map_err(|error| Error::io("create", &path, error))?;
                set_time(&path, node.mtime)
            }
            NodeKind::Directory { .. } => Ok(()),
        }
    }

    fn write_file(&self, path: &Path, digest: Digest, node: &Node<'_>) -> Result<()> {
        let blob = self.store.open_blob(digest)?.file;
        let failed = |what| move |error: io::Error| Error::io(what, path, error);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(CWD, path, flags, Mode::RUSR | Mode::WUSR);
        let file = File::from(file.map_err(|errno| Error::io("create", path, errno))?);
        self.copier.copy(&blob, &file).map_err(failed("write"))?;
        let mode = Mode::from_raw_mode(node.mode.into());
        rustix::fs::fchmod(file.as_fd(), mode)
            .map_err(|errno| Error::io("set the mode of", path, errno))?;
        rustix::fs::futimens(&file, &times(node.mtime))
            .map_err(|errno| Error::io("set the time of", path, errno))
    }

    fn set_attributes(&self, index: NodeIndex) -> Result<()> {
        let path = self.path(index);
        let Some(node) = self.tree.get(index) else {
            return Ok(());
        };
        let mode = Mode::from_raw_mode(node.mode.into());
        rustix::fs::chmodat(CWD, &path, mode, AtFlags::empty())
            .map_err(|errno| Error::io("set the mode of", &path, errno))?;
        set_time(&path, node.mtime)
    }
}

fn set_time(path: &Path, mtime: i64) -> Result<()> {
    rustix::fs::utimensat(CWD, path, &times(mtime), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| Error::io("set the time of", path, errno))
}

fn times(mtime: i64) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: mtime.div_euclid(NANOSECONDS),
            tv_nsec: mtime.rem_euclid(NANOSECONDS),
        },
    }
}
