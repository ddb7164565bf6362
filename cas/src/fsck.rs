//! Whether blobs are what their names say, and what becomes of those that are not.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use rayon::prelude::*;
use rustix::fs::{AtFlags, CWD, RenameFlags};
use rustix::io::Errno;

use crate::digest::Digest;
use crate::error::{Context, Error, Result};
use crate::store::{Store, blob_name};

/// What a check has found.
#[derive(Debug, Default)]
pub struct Checked {
    /// Bytes of the blobs that are sound.
    pub bytes: u64,
    /// The others, in the order asked for: corrupt, missing, or on a part of the disk that cannot
    /// be read.
    pub bad: Vec<Error>,
}

/// Hashes blobs in parallel. `progress` is told the size of each when it is done.
///
/// # Errors
/// One that this user may not read: nothing is known of it.
pub fn check(
    store: &Store,
    digests: &[Digest],
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Checked> {
    let verify = |&digest: &Digest| {
        let verified = store.verify(digest);
        progress(*verified.as_ref().unwrap_or(&0));
        verified
    };
    let results: Vec<_> = digests.par_iter().map(verify).collect();
    let mut checked = Checked::default();
    for result in results {
        match result {
            Ok(size) => checked.bytes += size,
            Err(error) if is_bad(&error) => checked.bad.push(error),
            Err(error) => return Err(error),
        }
    }
    Ok(checked)
}

/// Whether an error is about the blob and not about us.
fn is_bad(error: &Error) -> bool {
    match error {
        Error::Corrupt { .. } | Error::Missing(_) => true,
        Error::Io { source, .. } => Errno::from_io_error(source) == Some(Errno::IO),
    }
}

/// Moves a blob out of the way if it is still bad, so that its name is free for the true content,
/// and says where to: `quarantine/<hash>` in the store. `None` if it is sound by now, or gone.
///
/// # Errors
/// A store that cannot be written to.
pub fn quarantine(store: &Store, digest: Digest) -> Result<Option<PathBuf>> {
    let what = "move to the quarantine";
    let Ok(blob) = store.open_blob(digest) else {
        return Ok(None);
    };
    if Digest::of_file(&blob.file).is_ok_and(|(found, _)| found == digest) {
        return Ok(None);
    }
    let directory = store.root().join("quarantine");
    std::fs::create_dir_all(&directory).context("create", &directory)?;
    let path = directory.join(digest.to_string());
    rustix::fs::renameat(store.blobs(), blob_name(digest), CWD, &path).context(what, &path)?;
    let moved = path.metadata().context(what, &path)?;
    let meant = blob.file.metadata().context(what, &path)?;
    if moved.ino() == meant.ino() {
        return Ok(Some(path));
    }
    // Another check was faster, and the name was the true content's already.
    let back = RenameFlags::NOREPLACE;
    match rustix::fs::renameat_with(CWD, &path, store.blobs(), blob_name(digest), back) {
        Ok(()) => Ok(None),
        Err(Errno::EXIST) => {
            rustix::fs::unlinkat(CWD, &path, AtFlags::empty()).context(what, &path)?;
            Ok(None)
        }
        Err(errno) => Err(Error::io(what, &path, errno)),
    }
}
