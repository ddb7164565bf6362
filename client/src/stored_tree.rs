//! Directories of the host as stored trees: `wakebox cas import`, `tree` and `export`.

mod export;
mod list;

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use cas::Store;
use cas::directory::{self, Root};

use crate::commands::print;
use crate::error::{Error, Result, say};
use crate::ingest::{self, Attributes, Coverage, FoundKind, Index, Ingestion, Progress};
use crate::{sandbox, workspace};

pub(crate) use export::export;
pub(crate) use list::list;

/// Reads the name of a stored tree.
pub(crate) fn root(text: &str) -> Result<Root> {
    text.parse()
        .map_err(|error: directory::InvalidRoot| Error::Usage(error.to_string()))
}

/// Stores a directory and prints the name of its tree. The store itself is left out if it lies in
/// the directory; so is what has no content, with a line for each.
pub(crate) fn import(store: &Path, directory: &Path) -> Result<u8> {
    let now_ns = workspace::coarse_now();
    let own = attributes(directory)?;
    sandbox::start_hashing_threads();
    let store = Store::open_own(store)?;
    let _hold = store.hold()?;
    let place = store.root().metadata();
    let place = place.map_err(|error| Error::io("open the store", store.root(), error))?;
    let (found, special) = ingest::everything(directory, &[(place.dev(), place.ino())])?;
    for path in special {
        say(format_args!(
            "'{path}' is left out: it is a socket, a fifo or a device"
        ));
    }
    let index = Index::load(store.root(), directory);
    let job = Ingestion {
        store: &store,
        workspace: directory,
        index: &index,
        writable: &|_| false,
        now_ns,
        progress: &Progress::on_terminal(),
    };
    let manifest = ingest::ingest(&job, &found)?.manifest;
    if let Err(error) = index.save(&store, Coverage::Everything) {
        tracing::warn!("the index of unchanged files is not saved: {error}");
    }
    let resolved = manifest
        .resolve(&store)
        .map_err(|error| Error::Outcome(error.to_string()))?;
    let tree = resolved.tree.with_root(own.mode, own.stamp.mtime);
    let root = directory::store(&tree, &store)?;
    print(format_args!("{root}"))?;
    Ok(0)
}

/// What a directory is like that was named by the caller, so a link to it is followed.
fn attributes(directory: &Path) -> Result<Attributes> {
    let metadata = directory.metadata();
    let metadata = metadata.map_err(|error| Error::io("open", directory, error))?;
    match Attributes::of(&metadata) {
        Some(attributes) if attributes.kind == FoundKind::Directory => Ok(attributes),
        _ => Err(Error::Usage(format!(
            "{} is not a directory",
            directory.display()
        ))),
    }
}
