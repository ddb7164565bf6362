//! The garbage collector: removes blobs that were not used lately, and what dead jobs have left.
//!
//! It runs beside jobs, imports and other collectors. What is kept in any case:
//!
//! - what a live job or mount uses: its staging directory is locked, and holds the manifest;
//! - what a failed job used that is kept: its staging directory says so, and holds the manifest;
//! - what the caller names ([`Plan::keep`]), stored trees with all that is below them;
//! - what was used since the collector looked.
//!
//! First everything is looked at, without any lock. Then what may go is removed, a few blobs at a
//! time, each time under an [`Exclusion`], with a new look at live jobs. So whoever found a blob
//! before has said so by then, or looks again after.

mod dead;
mod names;

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rayon::prelude::*;
use rustix::fs::{AtFlags, FlockOperation, Mode, flock};
use rustix::io::Errno;

use crate::digest::Digest;
use crate::directory::DirectoryError;
use crate::error::{Context, Error, Result};
use crate::hold::Exclusion;
use crate::kept::Kept;
use crate::recovery;
use crate::staging::{FLAGS, remove_flat_directory};
use crate::store::{OURS, Store, blob_name, is_own_staging};

pub use dead::Dead;
use dead::Fate;
pub use names::{add_document, add_manifest, add_tree};

/// So many blobs are removed under one exclusion: some milliseconds.
const BATCH: usize = 500;

/// How long a collector waits for those who rely on blobs without having said on which.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a live job may not say what it uses: one that ends has its files removed one by one.
const SILENCE: Duration = Duration::from_secs(3);

/// The purpose in the name of a mount's staging directory: it says what the mount uses.
pub const MOUNT: &str = "mount";

/// How long the outputs of jobs that ended without a result wait for somebody to recover them,
/// unless told otherwise.
const RECOVERABLE: Duration = Duration::from_secs(24 * 3600);

/// What is to be removed.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Blobs that were not used for so long.
    pub older_than: Option<Duration>,
    /// As many blobs, the least recently used first, as it takes for the rest to have together no
    /// more bytes than this.
    pub max_size: Option<u64>,
    /// Blobs that stay.
    pub keep: HashSet<Digest>,
    /// Whether to remove nothing and tell what would be.
    pub dry_run: bool,
}

/// What was removed and what stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Blobs that were removed.
    pub blobs: u64,
    /// Their sizes, added up, bytes.
    pub bytes: u64,
    /// Blobs that stay.
    pub kept: u64,
    /// Their sizes, added up, bytes.
    pub kept_bytes: u64,
    /// Staging directories of dead processes that were removed.
    pub staging: u64,
    /// Sizes of the files in them, added up, bytes.
    pub staging_bytes: u64,
    /// Staging directories that stay for a while because their outputs can be recovered.
    pub recoverable: u64,
    /// Failed jobs that are kept for a while.
    pub kept_jobs: u64,
}

/// Why nothing, or no more, is removed.
#[derive(Debug, thiserror::Error)]
pub enum GcError {
    /// The store refused something.
    #[error(transparent)]
    Store(#[from] Error),
    /// A manifest that names what is to be kept.
    #[error("{0}")]
    Manifest(String),
    /// A stored tree that is to be kept cannot be read, so what is below it is not known.
    #[error("what is to be kept of tree {root} is not known: {source}")]
    Tree {
        /// The tree.
        root: Digest,
        /// What is wrong with it.
        source: Box<DirectoryError>,
    },
    /// Somebody has relied on blobs all the time.
    #[error("the store is in use: somebody has been taking files in for a minute; try again later")]
    Busy,
    /// A job lives and does not say what it uses.
    #[error(
        "job {0} is running and does not say what it uses; is it of another version of wakebox? \
         try again when it has ended"
    )]
    Silent(String),
}

/// One blob.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    digest: Digest,
    size: u64,
    used: i64,
}

/// Collects.
///
/// # Errors
/// See [`GcError`]. What was removed until then is gone.
pub fn collect(store: &Store, plan: &Plan) -> std::result::Result<Freed, GcError> {
    let mut freed = Freed::default();
    reclaim_staging(store, plan, &mut freed)?;
    let mut live = Live::default();
    live.look_patiently(store)?;
    let all = scan(store)?;
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec;
    let stays = |digest| plan.keep.contains(&digest) || live.uses.contains(&digest);
    let going = choose(&all, plan, now, stays);
    for batch in going.chunks(BATCH) {
        if plan.dry_run {
            batch.iter().for_each(|blob| freed.count(blob.size));
        } else {
            remove(store, batch, &mut live, &mut freed)?;
        }
    }
    freed.kept = all.len() as u64 - freed.blobs;
    freed.kept_bytes = all.iter().map(|blob| blob.size).sum::<u64>() - freed.bytes;
    Ok(freed)
}

impl Freed {
    fn count(&mut self, size: u64) {
        self.blobs += 1;
        self.bytes += size;
    }
}

/// All blobs with when they were used.
fn scan(store: &Store) -> Result<Vec<Candidate>> {
    let candidate = |&digest: &Digest| match store.stat(digest) {
        // One that this user may not read is none that this user removes.
        Ok(None) | Err(_) => None,
        Ok(Some(stat)) => Some(Candidate {
            digest,
            size: stat.size,
            used: stat.used,
        }),
    };
    Ok(store.list()?.par_iter().filter_map(candidate).collect())
}

/// What is to go, the least recently used first.
fn choose(
    all: &[Candidate],
    plan: &Plan,
    now: i64,
    stays: impl Fn(Digest) -> bool,
) -> Vec<Candidate> {
    let mut free: Vec<_> = all.iter().filter(|blob| !stays(blob.digest)).collect();
    free.sort_by_key(|blob| (blob.used, blob.digest));
    let mut total: u64 = all.iter().map(|blob| blob.size).sum();
    let limit = plan
        .older_than
        .map(|age| now.saturating_sub_unsigned(age.as_secs()));
    let goes = |blob: &&&Candidate| {
        let is_old = limit.is_some_and(|limit| blob.used <= limit);
        let is_over = plan.max_size.is_some_and(|most| total > most);
        if is_old || is_over {
            total -= blob.size;
        }
        is_old || is_over
    };
    free.iter().filter(goes).map(|blob| **blob).collect()
}

/// Removes a batch, but for what is used by now.
fn remove(
    store: &Store,
    batch: &[Candidate],
    live: &mut Live,
    freed: &mut Freed,
) -> std::result::Result<(), GcError> {
    let exclusion = live.exclude(store)?;
    store.begin_generation(&exclusion)?;
    for blob in batch {
        let is_unused = match store.stat(blob.digest)? {
            None => continue, // another collector's
            Some(stat) => stat.used <= blob.used && !live.uses.contains(&blob.digest),
        };
        if is_unused {
            let name = blob_name(blob.digest);
            rustix::fs::unlinkat(store.blobs(), name, AtFlags::empty())
                .context("remove blob", store.path(blob.digest))?;
            freed.count(blob.size);
        }
    }
    Ok(())
}

/// What live jobs and mounts use.
#[derive(Debug, Default)]
struct Live {
    /// Directories whose manifest was read. Their names are never used again.
    seen: HashSet<String>,
    uses: HashSet<Digest>,
}

impl Live {
    /// Excludes users, and learns what is used then.
    fn exclude(&mut self, store: &Store) -> std::result::Result<Exclusion, GcError> {
        let start = Instant::now();
        loop {
            let exclusion = store.exclude(PATIENCE)?.ok_or(GcError::Busy)?;
            match self.look(store) {
                // A job that is just ending, most likely. It may need us out of its way for that.
                Err(GcError::Silent(_)) if start.elapsed() < SILENCE => drop(exclusion),
                other => return other.map(|()| exclusion),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// As [`Live::look`], for when jobs are just being started and ended.
    fn look_patiently(&mut self, store: &Store) -> std::result::Result<(), GcError> {
        let start = Instant::now();
        loop {
            match self.look(store) {
                Err(GcError::Silent(_)) if start.elapsed() < SILENCE => {}
                other => return other,
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Reads the manifests of those that were not seen yet.
    fn look(&mut self, store: &Store) -> std::result::Result<(), GcError> {
        for name in own_directories(store)? {
            let is_import = name.starts_with(OURS) && !name.starts_with(&format!("{OURS}{MOUNT}."));
            if is_import || self.seen.contains(&name) {
                continue;
            }
            let Ok(fd) = rustix::fs::openat(store.staging(), &name, FLAGS, Mode::empty()) else {
                continue; // gone
            };
            let is_dead = flock(&fd, FlockOperation::NonBlockingLockShared).is_ok();
            if is_dead && Kept::read(fd.as_fd()).is_none() {
                continue; // nobody is at home
            }
            let manifest = match recovery::read_inputs(fd.as_fd()) {
                Some(manifest) => manifest,
                None if is_dead => continue, // damaged: there is nothing to be known
                None => return Err(GcError::Silent(name)),
            };
            add_manifest(&manifest, store, &mut self.uses)?;
            self.seen.insert(name);
        }
        Ok(())
    }
}

fn own_directories(store: &Store) -> Result<Vec<String>> {
    let what = "list the staging area of";
    let entries = rustix::fs::Dir::read_from(store.staging()).context(what, store.root())?;
    let names = entries.filter_map(|entry| match entry {
        Ok(entry) => {
            let name = entry.file_name().to_string_lossy().into_owned();
            is_own_staging(&name).then_some(Ok(name))
        }
        Err(errno) => Some(Err(errno)),
    });
    let names: std::result::Result<Vec<_>, Errno> = names.collect();
    names.context(what, store.root())
}

/// Removes staging directories of dead processes: imports, jobs that nobody knows any more what
/// they made, and jobs that ended long ago and whose result was never written.
fn reclaim_staging(
    store: &Store,
    plan: &Plan,
    freed: &mut Freed,
) -> std::result::Result<(), GcError> {
    for name in own_directories(store)? {
        let Some(directory) = Dead::find(store, &name) else {
            continue;
        };
        match directory.fate(plan.older_than) {
            Fate::NotOurs => {}
            Fate::Waits => freed.recoverable += 1,
            Fate::Kept => freed.kept_jobs += 1,
            Fate::Goes => {
                freed.staging += 1;
                freed.staging_bytes += directory.size();
                if !plan.dry_run {
                    remove_flat_directory(store.staging(), &name)?;
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Declared, Manifest};
    use crate::name::RelPath;

    fn store() -> (tempfile::TempDir, Store) {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open_own(root.path()).unwrap();
        (root, store)
    }

    fn put(store: &Store, content: &[u8]) -> Digest {
        let staging = store.new_staging("put").unwrap();
        store.put_bytes(content, &staging).unwrap()
    }

    fn everything() -> Plan {
        Plan {
            older_than: Some(Duration::ZERO),
            ..Plan::default()
        }
    }

    #[test]
    fn the_oldest_go_first_and_only_as_many_as_it_takes() {
        let candidate = |name: &[u8], size, used| Candidate {
            digest: Digest::of(name),
            size,
            used,
        };
        let all = [
            candidate(b"new", 10, 90),
            candidate(b"old", 10, 10),
            candidate(b"kept", 10, 5),
            candidate(b"middle", 10, 50),
        ];
        let chosen = |older_than, max_size| {
            let older_than: Option<u64> = older_than;
            let plan = Plan {
                older_than: older_than.map(Duration::from_secs),
                max_size,
                ..Plan::default()
            };
            let going = choose(&all, &plan, 100, |digest| digest == Digest::of(b"kept"));
            going.iter().map(|blob| blob.used).collect::<Vec<_>>()
        };
        assert_eq!(chosen(None, None), [0i64; 0]);
        assert_eq!(chosen(Some(50), None), [10, 50]);
        assert_eq!(chosen(None, Some(40)), [0i64; 0]);
        assert_eq!(chosen(None, Some(39)), [10]);
        assert_eq!(chosen(None, Some(0)), [10, 50, 90]);
        assert_eq!(chosen(Some(90), Some(20)), [10, 50]);
        assert_eq!(chosen(Some(u64::MAX), None), [0i64; 0]);
    }

    #[test]
    fn a_live_job_keeps_what_it_says_and_one_that_says_nothing_keeps_all() {
        let (_root, store) = store();
        let (used, unused) = (put(&store, b"used"), put(&store, b"unused"));
        let name = "0123456789abcdef";
        let job = crate::staging::StagingDirectory::create(store.staging(), name).unwrap();
        let refused = collect(&store, &everything());
        assert!(matches!(refused, Err(GcError::Silent(silent)) if silent == name));
        let manifest = Manifest {
            input_root: None,
            entries: vec![Declared {
                path: RelPath::parse(b"in").unwrap(),
                mode: 0o444,
                mtime: 0,
                kind: crate::manifest::DeclaredKind::File(used),
            }],
        };
        recovery::write_inputs(job.as_fd(), &manifest.encode()).unwrap();
        let freed = collect(&store, &everything()).unwrap();
        assert_eq!((freed.blobs, freed.bytes, freed.kept), (1, 6, 1));
        assert_eq!(store.stat(unused).unwrap(), None);
        assert_eq!(store.hold().unwrap().generation(), 1);
        drop(job);
        assert_eq!(collect(&store, &everything()).unwrap().blobs, 1);
        assert_eq!(store.list().unwrap(), []);
    }

    #[test]
    fn what_is_used_after_the_choice_stays() {
        let (_root, store) = store();
        let digest = put(&store, b"used again");
        let chosen = [Candidate {
            digest,
            size: 10,
            used: 0,
        }];
        let (mut live, mut freed) = (Live::default(), Freed::default());
        remove(&store, &chosen, &mut live, &mut freed).unwrap();
        assert_eq!(freed.blobs, 0);
        assert!(store.stat(digest).unwrap().is_some());
    }
}
