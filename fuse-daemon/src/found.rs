//! Which blobs were found lately: a manifest that differs little from others costs little, though it
//! is a new one. Asking the file system for a size takes more than a microsecond, this a tenth.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cas::manifest::{Listed, Row};
use cas::{Digest, Error, Result, Store};
use dashmap::DashMap;
use rustc_hash::FxBuildHasher;

use crate::known::Key;

/// Sizes that are remembered, at most: about 60 bytes each, and 40 in order. When there are more, all go.
const SIZES_MAX: usize = 110_000;

/// Manifests of so many entries are remembered in their order, the latest of them. The next is mostly the
/// same but for a few entries. To go along it misses no cache of the processor, as a look into the table
/// does: a manifest of 100,000 takes the daemon 26 ms of processor time and not 39.
const LONG: usize = 10_000;

/// How many entries more or fewer there may be between two places where manifests are the same.
const SHIFT_MAX: usize = 8;

/// Stands for the size where there is no blob, but a directory.
const NOT_FOUND: u64 = u64::MAX;

#[derive(Debug, Default)]
struct Sizes {
    table: DashMap<Digest, u64, FxBuildHasher>,
    /// Of the table: its own count asks all its shards.
    count: AtomicUsize,
    /// The blobs of the latest long manifest, in its order, and what they are in the table.
    long: Mutex<Arc<Vec<(Digest, u64)>>>,
}

/// Sizes of blobs by digest, for as long as what was found may be relied on.
#[derive(Debug, Default)]
pub struct Found {
    latest: Mutex<(Period, Arc<Sizes>)>,
}

/// Generation and hour of a [`Key`].
type Period = (u64, i64);

/// Finds the blobs of one manifest.
#[derive(Debug)]
pub struct Finder<'s> {
    store: &'s Store,
    /// `None` if there are more blobs than can be remembered.
    sizes: Option<Arc<Sizes>>,
    long: Arc<Vec<(Digest, u64)>>,
    /// By how much the manifest is behind the long one, where it was looked at last.
    shift: AtomicUsize,
}

impl Found {
    /// How to find so many blobs at the time of a key. What is found goes with that time: whoever
    /// began before blobs were removed does not tell those who begin after.
    pub fn at<'s>(&self, key: Key, store: &'s Store, blobs: usize) -> Finder<'s> {
        // More than can be remembered would drive out what is.
        let fits = blobs <= SIZES_MAX;
        let sizes = fits.then(|| self.sizes((key.generation, key.hour)));
        let long = sizes.as_ref().filter(|_| blobs >= LONG);
        Finder {
            store,
            long: long.map(|sizes| sizes.long().clone()).unwrap_or_default(),
            sizes,
            shift: AtomicUsize::new(SHIFT_MAX),
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

impl Finder<'_> {
    /// The size of a blob, that of an entry of this number.
    pub fn size(&self, at: usize, digest: Digest) -> Result<u64> {
        let known = self.in_order(at, digest);
        let table = self.sizes.as_ref();
        if let Some(size) = known.or_else(|| table?.get(digest)) {
            return Ok(size);
        }
        let found = self.store.claim(digest)?.ok_or(Error::Missing(digest))?;
        if let Some(sizes) = table {
            sizes.insert(digest, found.size);
        }
        Ok(found.size)
    }

    /// Looks where the entry has to be, if the long manifest goes on as this one does; then around.
    fn in_order(&self, at: usize, digest: Digest) -> Option<u64> {
        let look = |shift: usize| {
            let place = (at + shift).checked_sub(SHIFT_MAX)?;
            let (there, size) = self.long.get(place)?;
            (*there == digest && *size != NOT_FOUND).then_some(*size)
        };
        // Only where to begin: any value is right.
        let shift = self.shift.load(Ordering::Relaxed);
        look(shift).or_else(|| {
            let (shift, size) =
                (0..=2 * SHIFT_MAX).find_map(|shift| Some((shift, look(shift)?)))?;
            self.shift.store(shift, Ordering::Relaxed);
            Some(size)
        })
    }

    /// Remembers a manifest of many entries, of which all sizes are known now.
    pub fn remember(&self, manifest: &Listed<'_>, found: &[u64]) {
        let Some(sizes) = self.sizes.as_ref().filter(|_| manifest.len() >= LONG) else {
            return;
        };
        let entry = |(row, size): (Row<'_>, &u64)| match row.blob() {
            Some(digest) => (digest, *size),
            None => (Digest::of(b""), NOT_FOUND),
        };
        let long = Arc::new(manifest.rows().zip(found).map(entry).collect());
        let _before = std::mem::replace(&mut *sizes.long(), long);
    }
}

impl Sizes {
    /// No method leaves it half-changed, so a poisoned lock means nothing here.
    fn long(&self) -> MutexGuard<'_, Arc<Vec<(Digest, u64)>>> {
        self.long.lock().unwrap_or_else(PoisonError::into_inner)
    }

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
    use cas::RelPath;
    use cas::manifest::{Declared, DeclaredKind, Manifest};

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
        assert_eq!(early.size(0, digest).unwrap(), 4);
        std::fs::remove_file(store.path(digest)).unwrap();
        assert_eq!(found.at(key, &store, 1).size(0, digest).unwrap(), 4);
        let next = Key {
            generation: 1,
            ..key
        };
        assert!(matches!(
            found.at(next, &store, 1).size(0, digest),
            Err(Error::Missing(_))
        ));
        // Still at work since before, it has nothing to say to who comes now.
        assert_eq!(early.size(0, digest).unwrap(), 4);
        assert!(matches!(
            found.at(next, &store, 1).size(0, digest),
            Err(Error::Missing(_))
        ));
    }

    /// Of a long manifest, and of one that has some more and fewer entries, the store is not asked again;
    /// of what is new in it, it is.
    #[test]
    fn a_long_manifest_is_known_though_entries_come_and_go() {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(place.path()).unwrap();
        let (found, digest) = (Found::default(), Digest::of(b""));
        let (generation, hour) = (0, 0);
        let key = Key {
            generation,
            hour,
            digest,
        };
        let name = |i: usize| Digest::of(&i.to_le_bytes());
        let declared = |i: usize| Declared {
            path: RelPath::parse(format!("f{i}").as_bytes()).unwrap(),
            mode: 0o644,
            mtime: 0,
            kind: match i % 3 {
                0 => DeclaredKind::Directory,
                _ => DeclaredKind::File(name(i)),
            },
        };
        let entries = (0..LONG).map(declared).collect();
        let manifest = Manifest {
            input_root: None,
            entries,
        };
        let bytes = manifest.encode();
        let sizes: Vec<_> = (0..LONG as u64).map(|i| i % 3 * i).collect();
        let finder = found.at(key, &store, LONG);
        finder.remember(&Listed::read(&bytes).unwrap(), &sizes);
        let finder = found.at(key, &store, LONG);
        for (at, i) in (4..2000).chain(2003..LONG - 1).enumerate() {
            match (i % 3, finder.size(at, name(i))) {
                (0, Err(Error::Missing(_))) => {}
                (_, Ok(size)) => assert_eq!(size, sizes[i]),
                (_, other) => panic!("{i}: {other:?}"),
            }
        }
        assert!(
            finder.size(5, Digest::of(b"")).is_err(),
            "nobody has found it"
        );
        assert!(finder.size(5, name(LONG)).is_err());
        let next = Key { hour: 1, ..key };
        assert!(found.at(next, &store, LONG).size(1, name(1)).is_err());
    }
}
