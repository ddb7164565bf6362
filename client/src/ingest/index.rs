//! The index of unchanged files: what was hashed before, so that it need not be read again.
//!
//! `<store root>/index/<32 hex digits of the workspace's path>`, binary, little-endian:
//!
//! ```text
//! "wakebox index 1\n"
//! per file: device u64 · inode u64 · size u64 · mtime i64 · ctime i64 · hashed i64 · digest
//! BLAKE3 of all the above
//! ```
//!
//! Records are sorted by device and inode. The index is a cache and nothing else: one that is
//! missing, damaged or of another version counts as empty, and is never an error.
//!
//! # What is dropped
//!
//! A run that selected everything replaces the index with what it saw. A run that selected a part
//! says nothing about the rest, so it merges. Records of deleted files may linger until the next
//! whole run, within a million records; beyond that the files hashed longest ago go first, of those
//! that this run did not see.

use std::cmp::Reverse;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use cas::error::Context;
use cas::{Digest, Store};
use rustix::fs::{CWD, OFlags};

use crate::ingest::attributes::Stamp;

const MAGIC: &[u8] = b"wakebox index 1\n";
const RECORD: usize = 80;
const CHECKSUM: usize = 32;

/// Most files that an index remembers: 80 MB on disk.
const MAX_RECORDS: usize = 1_000_000;

/// A file that was hashed within this time of its last change, in nanoseconds, may have changed
/// again afterwards without its times showing it ("racy git"). Two seconds is the coarsest
/// granularity of times on any file system in use (FAT); ext4's is one timer tick.
const RACY: i64 = 2_000_000_000;

/// The digests of files as they were at earlier runs. Shared by the threads of one ingestion.
#[derive(Debug)]
pub struct Index {
    path: PathBuf,
    old: Vec<Old>,
    fresh: Mutex<Vec<Record>>,
}

/// How much of the workspace a run looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coverage {
    /// All of it: a file that was not seen is gone.
    Everything,
    /// Some of it: a file that was not seen may still be there.
    Part,
}

#[derive(Debug)]
struct Old {
    record: Record,
    seen: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    stamp: Stamp,
    hashed_at: i64,
    digest: [u8; 32],
}

impl Index {
    /// Reads the index of a workspace, which is known by its canonical path. Never fails: what
    /// cannot be read is an empty index.
    pub fn load(store_root: &Path, workspace: &Path) -> Self {
        let canonical = std::fs::canonicalize(workspace).unwrap_or_else(|_| workspace.into());
        let name = Digest::of(canonical.as_os_str().as_bytes()).to_string();
        let path = store_root.join("index").join(&name[..32]);
        let records = read(&path).unwrap_or_default();
        let old = records.into_iter().map(|record| Old {
            record,
            seen: AtomicBool::new(false),
        });
        Self {
            old: old.collect(),
            path,
            fresh: Mutex::default(),
        }
    }

    /// The digest of a file that has not changed since it was hashed, if that is certain.
    pub fn lookup(&self, stamp: &Stamp) -> Option<Digest> {
        let found = self
            .old
            .binary_search_by_key(&key(stamp), |old| key(&old.record.stamp));
        let old = &self.old[found.ok()?];
        if old.record.stamp != *stamp || !old.record.is_certain() {
            return None;
        }
        old.seen.store(true, Ordering::Relaxed);
        digest(&old.record.digest)
    }

    /// Remembers a file that was hashed. `hashed_at` is in nanoseconds since the epoch, and not
    /// later than the moment at which reading the file began. What could not be trusted later is
    /// not remembered.
    pub fn record(&self, stamp: Stamp, hashed_at: i64, digest: Digest) {
        let record = Record {
            stamp,
            hashed_at,
            digest: *digest.as_bytes(),
        };
        if record.is_certain() {
            self.lock().push(record);
        }
    }

    /// Writes the index if this run changed it, and says whether it did. Two runs that end at the
    /// same time leave the index of one of them.
    ///
    /// Fails if the store cannot be written to; a caller may go on, the next run is only slower.
    pub fn save(&self, store: &Store, coverage: Coverage) -> cas::Result<bool> {
        let fresh = std::mem::take(&mut *self.lock());
        let kept: Vec<&Old> = self
            .old
            .iter()
            .filter(|old| coverage == Coverage::Part || old.seen.load(Ordering::Relaxed))
            .collect();
        if fresh.is_empty() && kept.len() == self.old.len() {
            return Ok(false);
        }
        let records = bounded(merge(fresh, &kept), MAX_RECORDS);
        self.replace(store, &encode(&records)).map(|()| true)
    }

    /// By way of a staging file, which is removed with its directory if anything fails.
    fn replace(&self, store: &Store, bytes: &[u8]) -> cas::Result<()> {
        let directory = self.path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory).context("create the index directory", directory)?;
        let staging = store.new_staging("index")?;
        let (staged, mut file) = staging.create_file(OFlags::WRONLY)?;
        file.write_all(bytes)
            .context("write the index", &self.path)?;
        rustix::fs::renameat(&staging, staged.id().to_string(), CWD, &self.path)
            .context("replace the index", &self.path)?;
        staged.keep();
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Record>> {
        // A push cannot leave the vector half-changed, so a poisoned lock means nothing here.
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    fn is_certain(&self) -> bool {
        self.stamp.ctime.saturating_add(RACY) <= self.hashed_at
    }
}

fn key(stamp: &Stamp) -> (u64, u64) {
    (stamp.device, stamp.inode)
}

/// `cas` makes digests by hashing and from hexadecimal digits only.
fn digest(bytes: &[u8; 32]) -> Option<Digest> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 64];
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    std::str::from_utf8(&text).ok()?.parse().ok()
}

/// All records, each with whether this run saw it, sorted; a fresh one replaces that of before.
fn merge(fresh: Vec<Record>, kept: &[&Old]) -> Vec<(bool, Record)> {
    let fresh = fresh.into_iter().map(|record| (true, record));
    let kept = kept
        .iter()
        .map(|old| (old.seen.load(Ordering::Relaxed), old.record));
    let mut all: Vec<_> = fresh.chain(kept).collect();
    all.sort_by_key(|(_, record)| key(&record.stamp)); // stable: fresh ones stay in front
    all.dedup_by_key(|(_, record)| key(&record.stamp));
    all
}

fn bounded(mut records: Vec<(bool, Record)>, most: usize) -> Vec<Record> {
    if records.len() > most {
        records.sort_by_key(|(seen, record)| Reverse((*seen, record.hashed_at)));
        records.truncate(most);
        records.sort_by_key(|(_, record)| key(&record.stamp));
    }
    records.into_iter().map(|(_, record)| record).collect()
}

fn encode(records: &[Record]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(MAGIC.len() + records.len() * RECORD + CHECKSUM);
    bytes.extend_from_slice(MAGIC);
    for Record {
        stamp,
        hashed_at,
        digest,
    } in records
    {
        for number in [stamp.device, stamp.inode, stamp.size] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for time in [stamp.mtime, stamp.ctime, *hashed_at] {
            bytes.extend_from_slice(&time.to_le_bytes());
        }
        bytes.extend_from_slice(digest);
    }
    let checksum = Digest::of(&bytes);
    bytes.extend_from_slice(checksum.as_bytes());
    bytes
}

fn read(path: &Path) -> Option<Vec<Record>> {
    let longest = MAGIC.len() + MAX_RECORDS * RECORD + CHECKSUM;
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    file.take(longest as u64 + 1).read_to_end(&mut bytes).ok()?;
    let records = decode(&bytes);
    if records.is_none() {
        tracing::warn!(path = %path.display(), "the index is damaged and is not used");
    }
    records
}

fn decode(bytes: &[u8]) -> Option<Vec<Record>> {
    let (content, checksum) = bytes.split_last_chunk::<CHECKSUM>()?;
    let records = content.strip_prefix(MAGIC)?;
    if Digest::of(content).as_bytes() != checksum || records.len() % RECORD != 0 {
        return None;
    }
    records.chunks_exact(RECORD).map(decode_record).collect()
}

fn decode_record(bytes: &[u8]) -> Option<Record> {
    let (numbers, digest) = bytes.split_last_chunk::<32>()?;
    let (words, _) = numbers.as_chunks::<8>();
    let [device, inode, size, mtime, ctime, hashed_at] = *words.first_chunk::<6>()?;
    let stamp = Stamp {
        device: u64::from_le_bytes(device),
        inode: u64::from_le_bytes(inode),
        size: u64::from_le_bytes(size),
        mtime: i64::from_le_bytes(mtime),
        ctime: i64::from_le_bytes(ctime),
    };
    Some(Record {
        stamp,
        hashed_at: i64::from_le_bytes(hashed_at),
        digest: *digest,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LATER: i64 = 10 * RACY;

    fn stamp(inode: u64) -> Stamp {
        let (size, mtime, ctime) = (1, 5, RACY);
        Stamp {
            device: 1,
            inode,
            size,
            mtime,
            ctime,
        }
    }

    struct Fixture {
        root: tempfile::TempDir,
        store: Store,
    }

    fn fixture() -> Fixture {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        Fixture { root, store }
    }

    impl Fixture {
        fn load(&self) -> Index {
            Index::load(self.root.path(), self.root.path())
        }

        fn saved(&self, inodes: &[u64]) -> Index {
            let index = self.load();
            for &inode in inodes {
                index.record(stamp(inode), LATER, Digest::of(&inode.to_le_bytes()));
            }
            assert!(index.save(&self.store, Coverage::Part).unwrap());
            self.load()
        }
    }

    #[test]
    fn an_unchanged_file_is_recognised_and_a_changed_one_is_not() {
        let fixture = fixture();
        let index = fixture.saved(&[7, 3]);
        assert_eq!(
            index.lookup(&stamp(3)),
            Some(Digest::of(&3u64.to_le_bytes()))
        );
        for change in [
            |stamp: &mut Stamp| stamp.size += 1,
            |stamp: &mut Stamp| stamp.mtime += 1,
            |stamp: &mut Stamp| stamp.ctime += 1,
            |stamp: &mut Stamp| stamp.inode += 1,
            |stamp: &mut Stamp| stamp.device += 1,
        ] {
            let mut changed = stamp(3);
            change(&mut changed);
            assert_eq!(index.lookup(&changed), None);
        }
    }

    #[test]
    fn a_file_hashed_within_two_seconds_of_its_change_is_not_trusted() {
        let racy = |hashed_at| Record {
            stamp: stamp(1),
            hashed_at,
            digest: [0; 32],
        };
        assert!(!racy(RACY + RACY - 1).is_certain());
        assert!(racy(RACY + RACY).is_certain());
        assert!(!racy(0).is_certain(), "changed after it was hashed");
        let fixture = fixture();
        let index = fixture.load();
        index.record(stamp(1), RACY + 1, Digest::of(b""));
        assert!(!index.save(&fixture.store, Coverage::Part).unwrap());
        // Even if some other version of this program wrote such a record:
        index
            .replace(&fixture.store, &encode(&[racy(RACY + 1)]))
            .unwrap();
        assert_eq!(fixture.load().old.len(), 1);
        assert_eq!(fixture.load().lookup(&stamp(1)), None);
    }

    #[test]
    fn it_is_written_only_when_changed_and_a_whole_run_forgets_what_it_did_not_see() {
        let fixture = fixture();
        let index = fixture.saved(&[1, 2]);
        index.lookup(&stamp(1)).unwrap();
        assert!(!index.save(&fixture.store, Coverage::Part).unwrap());
        assert!(index.save(&fixture.store, Coverage::Everything).unwrap());
        let index = fixture.load();
        assert_eq!(index.lookup(&stamp(2)), None);
        index.lookup(&stamp(1)).unwrap();
        assert!(!index.save(&fixture.store, Coverage::Everything).unwrap());
        let staging = fixture.root.path().join("staging");
        assert_eq!(std::fs::read_dir(staging).unwrap().count(), 0);
    }

    #[test]
    fn a_fresh_record_replaces_that_of_the_same_inode() {
        let fixture = fixture();
        let index = fixture.saved(&[1]);
        let changed = Stamp {
            size: 9,
            ..stamp(1)
        };
        index.record(changed, LATER, Digest::of(b"new"));
        index.save(&fixture.store, Coverage::Part).unwrap();
        let index = fixture.load();
        assert_eq!(index.old.len(), 1);
        assert_eq!(index.lookup(&changed), Some(Digest::of(b"new")));
    }

    #[test]
    fn beyond_the_bound_unseen_and_old_records_go_first() {
        let record = |inode, hashed_at| Record {
            stamp: stamp(inode),
            hashed_at,
            digest: [0; 32],
        };
        let all = vec![
            (true, record(1, 1)),
            (false, record(2, 9)),
            (false, record(3, 2)),
        ];
        assert_eq!(bounded(all.clone(), 2), [record(1, 1), record(2, 9)]);
        assert_eq!(bounded(all, 3).len(), 3);
    }

    proptest! {
        #[test]
        fn a_damaged_index_is_ignored(at in 0..(MAGIC.len() + 2 * RECORD + CHECKSUM), cut: bool) {
            let record = Record { stamp: stamp(1), hashed_at: LATER, digest: [3; 32] };
            let mut bytes = encode(&[record, Record { stamp: stamp(2), ..record }]);
            prop_assert_eq!(decode(&bytes).unwrap().len(), 2);
            if cut { bytes.truncate(at) } else { bytes[at] ^= 4 }
            prop_assert!(decode(&bytes).is_none());
        }

        #[test]
        fn digests_survive_the_way_through_hexadecimal(bytes: Vec<u8>) {
            prop_assert_eq!(digest(Digest::of(&bytes).as_bytes()), Some(Digest::of(&bytes)));
        }
    }
}
