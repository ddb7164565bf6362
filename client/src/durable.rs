//! `--durable`: what a result names is on disk before the result is.

use std::collections::BTreeSet;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use cas::durable::sync_names;
use cas::{Digest, Error, Result, Store};

use crate::output::{Hashed, HashedEntry};
use crate::publish::{Publish, PublishKind};

/// Flushes the blobs of outputs, as far as the store has them.
///
/// # Errors
/// The disk has refused a byte.
pub fn sync_outputs(store: &Store, outputs: &[Hashed]) -> Result<()> {
    let blob = |output: &Hashed| match output.entry {
        HashedEntry::File { hash, adopted, .. } => adopted.then_some(hash),
        _ => None,
    };
    let blobs: BTreeSet<Digest> = outputs.iter().filter_map(blob).collect();
    if !blobs.is_empty() {
        store.sync_blobs(&blobs)?;
    }
    store.sync_root()
}

/// Flushes what was published into a workspace.
///
/// # Errors
/// The disk has refused a byte.
pub fn sync_published(workspace: &Path, published: &[Publish]) -> Result<()> {
    let failed = |path: &Path, error| Error::io("flush", path, error);
    let mut directories = BTreeSet::from([workspace.to_owned()]);
    for output in published {
        let path = workspace.join(output.path.as_path());
        match output.kind {
            PublishKind::Directory { .. } => directories.insert(path.clone()),
            PublishKind::File { .. } => {
                let mut options = std::fs::File::options();
                let open = options
                    .read(true)
                    .custom_flags(libc::O_NOFOLLOW)
                    .open(&path);
                open.and_then(|file| file.sync_all())
                    .map_err(|error| failed(&path, error))?;
                true
            }
            PublishKind::Symlink { .. } => true,
        };
        let above = path.ancestors().skip(1);
        let inside = above.take_while(|above| above.starts_with(workspace));
        directories.extend(inside.map(Path::to_owned));
    }
    for directory in &directories {
        let flushed = std::fs::File::open(directory).and_then(|open| open.sync_all());
        flushed.map_err(|error| failed(directory, error))?;
    }
    sync_names(workspace)
}
