//! Showing differences by diffoscope, where that is installed.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use cas::{Digest, RelPath, Store};

use super::Difference;
use crate::cli::Environment;
use crate::error::{Error, Result};

/// The most files that are shown: it takes seconds for each.
const FILES_MAX: usize = 3;

/// Shows the first contents that differ, if diffoscope is in the caller's `PATH`.
pub(super) fn show(
    store: &Store,
    environment: &Environment,
    differences: &[Difference],
) -> Result<()> {
    let contents = differences
        .iter()
        .filter_map(|difference| match difference {
            Difference::Content(path, one, two) => Some((path, [one, two])),
            _ => None,
        });
    let Some(program) = find(environment) else {
        return Ok(());
    };
    for (path, digests) in contents.take(FILES_MAX) {
        let place = tempfile::tempdir().map_err(|e| Error::io("make", "a directory", e))?;
        let mut command = Command::new(&program);
        for (run, digest) in ["first", "second"].into_iter().zip(digests) {
            command.arg(copy(store, *digest, &place.path().join(run), path)?);
        }
        // That it found differences is no news, and what else it says it says itself.
        let _ = command.status();
    }
    Ok(())
}

fn find(environment: &Environment) -> Option<PathBuf> {
    let path = environment.variables.get(OsStr::new("PATH"))?;
    let mut places = std::env::split_paths(path).map(|place| place.join("diffoscope"));
    places.find(|program| program.is_file())
}

/// Under its own name: what kind of file it is, diffoscope concludes from that, too.
fn copy(store: &Store, digest: Digest, to: &Path, path: &RelPath) -> Result<PathBuf> {
    let failed = |error| Error::io("copy an output to", to, error);
    std::fs::create_dir(to).map_err(failed)?;
    let name = path.as_path().file_name().unwrap_or_default();
    let copy = to.join(name);
    std::fs::copy(store.path(digest), &copy).map_err(failed)?;
    Ok(copy)
}
