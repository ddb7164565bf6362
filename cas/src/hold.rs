//! Users of a store and its garbage collectors, kept apart by two locks.
//!
//! Whoever finds a blob and relies on it without having said so yet has a *hold* meanwhile: a
//! client while it hashes inputs, until its job's staging directory names them, and again while
//! it takes outputs in, until its result is written. A hold is a shared `flock` on `blobs/`. A
//! collector removes under the exclusive lock, a few blobs at a time, so it waits for those who
//! have a hold, and they for it, but never for long and never for a whole job.
//!
//! `flock` is not fair: with many short jobs there is always one that has the shared lock, and who
//! wants it exclusively would wait for ever. So there is a gate before it, a second lock, on
//! `staging/`. Users pass it; a collector shuts it and then waits until the last one inside is out.
//!
//! Directories are locked and not files, because they are always there, and in every store. The
//! locks go with their process, however it ends. On a network file system directory locks hold
//! for one host only: [`Store::network`] says so.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, flock};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};
use crate::staging::FLAGS;
use crate::store::Store;

/// How often a lock that another has is tried again. `flock` itself cannot wait for a limited
/// time, but for a signal.
const RETRY: Duration = Duration::from_millis(2);

/// How long a collector may keep a user waiting. It lets go after some milliseconds; one that was
/// stopped by a signal does not.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a collector shuts the gate to wait for those inside, before it lets others through
/// and tries again: somebody may be hashing for minutes.
const TURN: Duration = Duration::from_millis(500);

/// Counts removals.
const GENERATION: &str = "generation";

/// Keeps collectors from removing anything as long as it lives.
#[derive(Debug)]
pub struct Hold {
    _lock: OwnedFd,
    generation: u64,
}

impl Hold {
    /// How often blobs were removed from this store. What was found at another count may be gone.
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

/// Keeps everyone from relying on blobs as long as it lives.
#[derive(Debug)]
pub struct Exclusion {
    _gate: OwnedFd,
    _lock: OwnedFd,
}

impl Store {
    /// Relies on blobs from now on. Waits for a collector that is removing some.
    pub fn hold(&self) -> Result<Hold> {
        let what = "use, while `wakebox gc` is stuck in it, the store";
        let shared = FlockOperation::NonBlockingLockShared;
        let gate = reopen(self.staging()).context(what, self.root())?;
        lock_within(gate.as_fd(), shared, PATIENCE).context(what, self.root())?;
        let lock = reopen(self.blobs()).context(what, self.root())?;
        lock_within(lock.as_fd(), shared, PATIENCE).context(what, self.root())?;
        Ok(Hold {
            _lock: lock,
            generation: self.generation()?,
        })
    }

    /// Waits until nobody relies on blobs, as long as `patience`, and keeps it so. `None` if
    /// somebody did all the time.
    pub fn exclude(&self, patience: Duration) -> Result<Option<Exclusion>> {
        let what = "lock the store";
        let exclusive = FlockOperation::NonBlockingLockExclusive;
        let start = Instant::now();
        while start.elapsed() < patience {
            let gate = reopen(self.staging()).context(what, self.root())?;
            let lock = reopen(self.blobs()).context(what, self.root())?;
            let locked = lock_within(gate.as_fd(), exclusive, patience)
                .and_then(|()| lock_within(lock.as_fd(), exclusive, TURN.min(patience)));
            match locked {
                Ok(()) => {
                    return Ok(Some(Exclusion {
                        _gate: gate,
                        _lock: lock,
                    }));
                }
                Err(Errno::WOULDBLOCK) => drop((gate, lock)),
                Err(errno) => return Err(Error::io(what, self.root(), errno)),
            }
            std::thread::sleep(TURN);
        }
        Ok(None)
    }

    /// How often blobs were removed.
    fn generation(&self) -> Result<u64> {
        let path = self.root().join(GENERATION);
        match std::fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map_err(std::io::Error::other),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
        .context("read", &path)
    }

    /// Says that blobs are going to be removed, before any is: whoever remembers that one was
    /// there looks again. The exclusion is proof that nobody looks right now.
    pub(crate) fn begin_generation(&self, _: &Exclusion) -> Result<()> {
        let path = self.root().join(GENERATION);
        let next = self.generation()?.wrapping_add(1);
        let staging = self.new_staging("gc")?;
        let (staged, mut file) = staging.create_file(rustix::fs::OFlags::WRONLY)?;
        std::io::Write::write_all(&mut file, next.to_string().as_bytes())
            .context("write", &path)?;
        let from = staged.id().to_string();
        rustix::fs::renameat(&*staging, from, rustix::fs::CWD, &path).context("write", &path)?;
        staged.keep();
        Ok(())
    }

    /// The kind of network file system that the store is on, if it is on one: locks that other
    /// hosts have are not seen here.
    pub fn network(&self) -> Option<&'static str> {
        let kind = rustix::fs::fstatfs(self.blobs()).ok()?.f_type as u64;
        // linux/magic.h, and fs/{nfs,smb,ceph,9p}; Lustre and GPFS have theirs outside.
        let known = [
            (0x6969, "nfs"),
            (0x517b, "smb"),
            (0xfe53_4d42, "smb2"),
            (0xff53_4d42, "cifs"),
            (0x00c3_6400, "ceph"),
            (0x0102_1997, "9p"),
            (0x5346_414f, "afs"),
            (0x0bd0_0bd0, "lustre"),
            (0x4750_4653, "gpfs"),
        ];
        let found = known.into_iter().find(|(magic, _)| *magic == kind);
        found.map(|(_, name)| name)
    }
}

/// A descriptor with a lock of its own: `flock` belongs to the open file description.
fn reopen(directory: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(directory, c".", FLAGS, Mode::empty())
}

/// Takes a lock, and waits for it as long as `patience`; `EWOULDBLOCK` when that is over.
///
/// # Errors
/// What flock(2) refuses.
pub fn lock_within(
    fd: BorrowedFd<'_>,
    operation: FlockOperation,
    patience: Duration,
) -> rustix::io::Result<()> {
    let start = Instant::now();
    loop {
        match flock(fd, operation) {
            Err(Errno::WOULDBLOCK) if start.elapsed() < patience => std::thread::sleep(RETRY),
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    const NOW: Duration = Duration::from_millis(1);

    #[test]
    fn holds_are_shared_and_an_exclusion_waits_for_all_of_them() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let (a, b) = (store.hold().unwrap(), store.hold().unwrap());
        assert!(store.exclude(NOW).unwrap().is_none());
        drop(a);
        assert!(store.exclude(NOW).unwrap().is_none());
        drop(b);
        let exclusion = store.exclude(NOW).unwrap().unwrap();
        store.begin_generation(&exclusion).unwrap();
        let late = std::thread::scope(|scope| {
            let late = scope.spawn(|| store.hold().unwrap().generation());
            std::thread::sleep(Duration::from_millis(50));
            assert!(!late.is_finished());
            drop(exclusion);
            late.join().unwrap()
        });
        assert_eq!(late, 1);
    }

    /// Without the gate one of sixteen always has the lock.
    #[test]
    fn a_collector_gets_its_turn_however_many_come() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        let _hold = store.hold().unwrap();
                        std::thread::sleep(Duration::from_millis(3));
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(20));
            let turns = (0..20).map(|_| store.exclude(Duration::from_secs(10)).unwrap().is_some());
            let turns = turns.filter(|&is| is).count();
            done.store(true, Ordering::Relaxed);
            assert_eq!(turns, 20);
        });
    }
}
