//! Which blobs were found lately: a manifest that differs little from others costs little, though it
//! is a new one. Asking the file system for a size takes more than a microsecond, this a tenth.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cas::{Digest, Error, Result, Store};
use dashmap::DashMap;
use rustc_hash::FxBuildHasher;

use crate::known::Key;

/// Sizes that are remembered, at most: about 60 bytes each. When there are more, all go.
const SIZES_MAX: usize = 110_000;

#[derive(Debug, Default)]
struct Sizes {
    table: DashMap<Digest, u64, FxBuildHasher>,
    /// Of the table: its own count asks all its shards.
    count: AtomicUsize,
}

/// Sizes of blobs by digest, for as long as what was found may be relied on.
#[derive(Debug, Default)]
pub struct Found {
    latest: Mutex<(Period, Arc<Sizes>)>,
}

/// Generation and hour of a [`Key`].
type Period = (u64, i64);

impl Found {
    /// How to find so many blobs at the time of a key. What is found goes with that time: whoever
    /// began before blobs were removed does not tell those who begin after.
    pub fn at(&self, key: Key, store: &Store, blobs: usize) -> impl Fn(Digest) -> Result<u64> {
        // More than can be remembered would drive out what is.
        let fits = blobs <= SIZES_MAX;
        let sizes = fits.then(|| self.sizes((key.generation, key.hour)));
        move |digest| {
            let known = sizes.as_ref().and_then(|sizes| sizes.get(digest));
            if let Some(size) = known {
                return Ok(size);
            }
            let found = store.claim(digest)?.ok_or(Error::Missing(digest))?;
            if let Some(sizes) = &sizes {
                sizes.insert(digest, found.size);
            }
            Ok(found.size)
        }
    }

    fn sizes(&self, period: Period) -> Arc<Sizes> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.0 != period || latest.1.count.load(Ordering::Relaxed) > SIZES_MAX {
            *latest = (period, Arc::default());
        }
        latest.1.clone()
    }
}

impl Sizes {
    fn get(&self, digest: Digest) -> Option<u64> {
        self.table.get(&digest).map(|size| *size)
    }

    fn insert(&self, digest: Digest, size: u64) {
        if self.count.fetch_add(1, Ordering::Relaxed) < SIZES_MAX {
            self.table.insert(digest, size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_is_not_looked_for_again_until_blobs_were_removed() {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(place.path()).unwrap();
        let staging = store.new_staging("test").unwrap();
        let digest = store.put_bytes(b"word", &staging).unwrap();
        let (found, key) = (
            Found::default(),
            Key {
                generation: 0,
                hour: 0,
                digest,
            },
        );
        let early = found.at(key, &store, 1);
        assert_eq!(early(digest).unwrap(), 4);
        std::fs::remove_file(store.path(digest)).unwrap();
        assert_eq!(found.at(key, &store, 1)(digest).unwrap(), 4);
        let next = Key {
            generation: 1,
            ..key
        };
        assert!(matches!(
            found.at(next, &store, 1)(digest),
            Err(Error::Missing(_))
        ));
        // Still at work since before, it has nothing to say to who comes now.
        assert_eq!(early(digest).unwrap(), 4);
        assert!(matches!(
            found.at(next, &store, 1)(digest),
            Err(Error::Missing(_))
        ));
    }
}
