//! Where daemons listen: a directory of this user's own, and a name for each store.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use cas::Digest;

use crate::BUILD_ID;
use crate::cli::Environment;
use crate::error::{Error, Result};

/// The directory with the sockets of this user's daemons.
#[derive(Clone, Debug)]
pub struct RuntimeDirectory {
    path: PathBuf,
    candidates: Vec<PathBuf>,
}

impl RuntimeDirectory {
    /// Finds or makes it: `$XDG_RUNTIME_DIR/wakebox`, else `/tmp/wakebox-<uid>`. It must belong
    /// to this user alone, because whoever can put a socket there can feed jobs anything.
    ///
    /// Inside a job of wakebox the caller's directory is hidden, empty and read-only; there the
    /// next candidate serves.
    pub fn find(environment: &Environment) -> Result<Self> {
        let uid = rustix::process::geteuid().as_raw();
        let runtime = environment
            .runtime_directory
            .as_ref()
            .map(|path| path.join("wakebox"));
        let fallback = PathBuf::from(format!("/tmp/wakebox-{uid}"));
        let nested = PathBuf::from(format!("/tmp/wakebox-{uid}.{}", mount_namespace()));
        let mut last = None;
        let candidates: Vec<_> = runtime.into_iter().chain([fallback, nested]).collect();
        for path in candidates.clone() {
            match usable(&path, uid) {
                Ok(()) => return Ok(Self { path, candidates }),
                Err(error) => last = Some(Error::io("use the directory for sockets", path, error)),
            }
        }
        last.map_or_else(|| Err(Error::Usage("no directory for sockets".into())), Err)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All directories that may have sockets of this user's daemons; the others were, or will be,
    /// used with other environments.
    pub fn candidates(&self) -> &[PathBuf] {
        &self.candidates
    }

    /// The socket of the daemon for a store. Another boot, user, mount namespace or build of
    /// wakebox has another daemon: a store may be shared by hosts and containers, and daemons of
    /// different builds need not understand each other. So has a store whose directories were
    /// removed and made again: a daemon holds on to those that it has opened.
    pub fn socket(&self, store: &Path) -> Result<PathBuf> {
        let identity = |path: PathBuf| match std::fs::metadata(&path) {
            Ok(is) => Ok(format!("{} {}", is.dev(), is.ino())),
            Err(error) => Err(Error::io("open the store", path, error)),
        };
        let parts = [store.into(), store.join("blobs"), store.join("staging")];
        let parts = parts
            .map(identity)
            .into_iter()
            .collect::<Result<Vec<_>>>()?;
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let uid = rustix::process::geteuid().as_raw();
        let namespace = mount_namespace();
        let (parts, boot) = (parts.join(" "), boot.trim());
        let key = format!("{parts} {boot} {uid} {namespace} {BUILD_ID}");
        let name = &Digest::of(key.as_bytes()).to_string()[..16];
        Ok(self.path.join(format!("{name}.sock")))
    }

    /// The sockets of all daemons that are or were here.
    pub fn sockets(&self) -> Result<Vec<PathBuf>> {
        let failed = |error| Error::io("list", &self.path, error);
        let mut sockets = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "sock")
            {
                sockets.push(path);
            }
        }
        sockets.sort();
        Ok(sockets)
    }
}

fn mount_namespace() -> String {
    let link = std::fs::read_link("/proc/self/ns/mnt").unwrap_or_default();
    link.to_string_lossy()
        .chars()
        .filter(char::is_ascii_digit)
        .collect()
}

fn usable(path: &Path, uid: u32) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => other?,
    }
    let is = std::fs::symlink_metadata(path)?;
    if !is.is_dir() || is.uid() != uid || is.mode() & 0o077 != 0 {
        let what = "it is not a directory of this user alone; remove it, or set XDG_RUNTIME_DIR";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    let access = rustix::fs::Access::WRITE_OK;
    Ok(rustix::fs::accessat(
        rustix::fs::CWD,
        path,
        access,
        rustix::fs::AtFlags::EACCESS,
    )?)
}
