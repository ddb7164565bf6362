//! Documents: specs, manifests, directories of stored trees, and what is in JSON.

use cas::directory::{self, Directory, Root};
use cas::manifest::Manifest;
use cas::{Digest, Store};
use client::spec::Spec;

use super::Bytes;

/// The spec of a job. What is refused is refused by words that name something.
pub(super) fn spec(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match Spec::parse(text) {
        Ok(spec) => assert!(!spec.command.is_empty() && !spec.command[0].is_empty()),
        Err(refusal) => assert!(!refusal.is_empty()),
    }
}

/// A manifest: what is read and written is read as the same, and becomes a tree or is refused.
pub(super) fn manifest(bytes: &[u8]) {
    // Most made-up bytes would already end at the first words.
    let whole = [b"wakebox manifest 1\n", bytes].concat();
    for bytes in [bytes, &whole] {
        if let Ok(manifest) = Manifest::decode(bytes) {
            // Not always these bytes: of a mode, what is no permission is left out.
            let written = manifest.encode();
            let again = Manifest::decode(&written).expect("what we write");
            assert_eq!(again.encode(), written);
            with_store(|store| drop(manifest.resolve(store)));
        }
    }
}

/// Objects of a stored tree: the first is its root, and names the others as it likes.
pub(super) fn directory(bytes: &[u8]) {
    if let Ok(directory) = Directory::decode(bytes) {
        let written = directory.encode();
        let again = Directory::decode(&written).expect("what we write");
        assert_eq!(again.encode(), written);
    }
    with_store(|store| {
        let staging = store.new_staging("fuzz").expect("room");
        let digest = store.put_bytes(bytes, &staging).expect("room");
        let root = Root { digest, size: None };
        if let Ok(tree) = directory::load(&root, store) {
            let stored = directory::store(&tree, store).expect("room");
            let again = directory::load(&stored, store).expect("what we have stored");
            assert_eq!(again.len(), tree.len());
        }
        let _ = std::fs::remove_file(store.path(digest));
    });
}

/// What else is read: packets of the control protocol, reports, recovery manifests, digests.
pub(super) fn others(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let kind = bytes.byte();
    let text = bytes.0;
    fn again<T: serde::de::DeserializeOwned + serde::Serialize>(text: &[u8]) {
        if let Ok(read) = serde_json::from_slice::<T>(text) {
            let written = serde_json::to_vec(&read).expect("it was JSON");
            let read: T = serde_json::from_slice(&written).expect("what we write");
            assert_eq!(serde_json::to_vec(&read).expect("again"), written);
        }
    }
    match kind % 5 {
        0 => again::<cas::protocol::Request>(text),
        1 => again::<cas::protocol::Reply>(text),
        2 => again::<cas::report::Report>(text),
        3 => again::<cas::recovery::Recovery>(text),
        _ => {
            let text = String::from_utf8_lossy(text);
            if let Ok(digest) = text.parse::<Digest>() {
                assert_eq!(digest.to_string(), text.to_ascii_lowercase());
            }
            let _ = text.parse::<Root>();
        }
    }
}

/// A store for all runs of this thread, without blobs but for the empty one.
fn with_store<T>(run: impl FnOnce(&Store) -> T) -> T {
    thread_local! {
        static STORE: (tempfile::TempDir, Store) = {
            let place = super::kernel::place();
            let store = Store::open(place.path()).expect("a store");
            let staging = store.new_staging("fuzz").expect("room");
            store.put_bytes(b"", &staging).expect("room");
            (place, store)
        };
    }
    STORE.with(|(_, store)| run(store))
}
