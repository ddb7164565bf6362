//! What documents, trees and manifests name.

use std::collections::HashSet;

use super::GcError;
use crate::digest::Digest;
use crate::directory::{ChildKind, Directory, Root};
use crate::manifest::{DeclaredKind, Manifest};
use crate::store::Store;

/// Adds everything that a document names to a set of digests: a result, a spec, a list of hashes,
/// or a manifest. Every 64 hexadecimal digits by themselves are a blob; with a size behind them,
/// `HASH/SIZE`, or if it is the object of a directory, a stored tree with all that is below it.
///
/// # Errors
/// A manifest that is damaged; directory objects that are missing or damaged.
pub fn add_document(
    bytes: &[u8],
    store: &Store,
    into: &mut HashSet<Digest>,
) -> std::result::Result<(), GcError> {
    if Manifest::is_one(bytes) {
        let manifest = Manifest::decode(bytes);
        let manifest = manifest.map_err(|error| GcError::Manifest(error.to_string()))?;
        return add_manifest(&manifest, store, into);
    }
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'/';
    for word in bytes.split(|byte| !is_part(byte)) {
        let Some(root) = std::str::from_utf8(word)
            .ok()
            .and_then(|word| word.parse::<Root>().ok())
        else {
            continue;
        };
        if root.size.is_some() || is_directory(root.digest, store) {
            add_tree(root, store, into)?;
        } else {
            into.insert(root.digest);
        }
    }
    Ok(())
}

/// Whether a blob is the object of a directory. Few other files look like one: the first byte is
/// the tag of one of its four fields.
fn is_directory(digest: Digest, store: &Store) -> bool {
    let mut first = [0];
    let Ok(blob) = store.open_blob(digest) else {
        return false;
    };
    let is_tag = rustix::io::pread(&blob.file, &mut first, 0) == Ok(1)
        && matches!(first, [0x0a | 0x12 | 0x1a | 0x2a]);
    is_tag && Directory::read(digest, None, store).is_ok()
}

/// Adds a stored tree and all that is below it to a set of digests.
///
/// # Errors
/// Directory objects that are missing or damaged.
pub fn add_tree(
    root: Root,
    store: &Store,
    into: &mut HashSet<Digest>,
) -> std::result::Result<(), GcError> {
    let mut open = vec![(root.digest, root.size)];
    // A directory may be there already as a mere blob, so what was opened is remembered apart.
    let mut opened = HashSet::new();
    while let Some((digest, size)) = open.pop() {
        if !opened.insert(digest) {
            continue;
        }
        into.insert(digest);
        let directory = Directory::read(digest, size, store).map_err(|source| GcError::Tree {
            root: root.digest,
            source: Box::new(source),
        })?;
        for child in directory.children {
            match child.kind {
                ChildKind::File { digest, .. } => drop(into.insert(digest)),
                ChildKind::Directory { digest, size } => open.push((digest, Some(size))),
                ChildKind::Symlink { .. } => {}
            }
        }
    }
    Ok(())
}

/// Adds everything that a manifest names to a set of digests.
///
/// # Errors
/// Directory objects of its input root that are missing or damaged.
pub fn add_manifest(
    manifest: &Manifest,
    store: &Store,
    into: &mut HashSet<Digest>,
) -> std::result::Result<(), GcError> {
    for entry in &manifest.entries {
        match entry.kind {
            DeclaredKind::File(digest)
            | DeclaredKind::WritableFile(digest)
            | DeclaredKind::Symlink(digest) => drop(into.insert(digest)),
            DeclaredKind::Directory => {}
        }
    }
    match manifest.input_root {
        Some(root) => add_tree(root, store, into),
        None => Ok(()),
    }
}
