//! Documents that name what is to be kept, or to be checked.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use cas::gc::{self, GcError};
use cas::{Digest, Store};

use crate::error::{Error, Result};

/// A document and what it names.
#[derive(Debug)]
pub(crate) struct Root {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// What it names, trees with all that is below them.
    pub(crate) names: HashSet<Digest>,
    /// Why that is not all: an object of a tree cannot be had.
    pub(crate) broken: Option<GcError>,
}

/// Reads documents, and all files of directories among them, and the store's own pins.
pub(crate) fn read(paths: &[PathBuf], store: &Store) -> Result<Vec<Root>> {
    let pins = files(&store.pins());
    let mut documents: Vec<_> = match pins {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        pins => pins.map_err(|error| Error::io("list", store.pins(), error))?,
    };
    // One that leads nowhere belongs to what was removed.
    documents.retain(|pin| !pin.is_symlink() || pin.symlink_metadata().is_ok() && pin.exists());
    for path in paths {
        match path.is_dir() {
            false => documents.push(path.clone()),
            true => {
                let files = files(path).map_err(|error| Error::io("list", path, error))?;
                documents.extend(files);
            }
        }
    }
    documents
        .into_iter()
        .map(|path| root(path, store))
        .collect()
}

fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn root(path: PathBuf, store: &Store) -> Result<Root> {
    let failed = |error| Error::io("read the root", &path, error);
    let bytes = std::fs::read(&path).map_err(failed)?;
    let mut names = HashSet::new();
    let broken = match gc::add_document(&bytes, store, &mut names) {
        Ok(()) => None,
        Err(broken @ (GcError::Tree { .. } | GcError::Manifest(_))) => Some(broken),
        Err(error) => return Err(error.into()),
    };
    Ok(Root {
        path,
        names,
        broken,
    })
}
