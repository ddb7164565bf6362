//! Which jobs there are, and what is known of their inputs.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cas::directory::{self, LoadError, Root};
use cas::manifest::{Listed, ManifestError, Resolved};
use cas::protocol::{CopyOnWrite, Registration};
use cas::recovery::{JobState, Recovery};
use cas::staging::StagingDirectory;
use cas::tree::Tree;
use cas::{Digest, Store};
use dashmap::DashMap;

use crate::found::Found;
use crate::job::Job;
use crate::known::{Key, Known};
use crate::process;
use crate::view::{Caller, InputPolicy, Time};

/// Trees that were used lately are kept, up to this many nodes in all: about 100
/// bytes each.
const NODES_MAX: usize = 1_000_000;

/// The number of a job: given by the daemon, unlike every other it or another daemon gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct JobId(pub u64);

/// Why a job cannot be registered.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// Its inputs cannot be had.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The store refused something.
    #[error(transparent)]
    Store(#[from] cas::Error),
    /// No randomness for a job's name.
    #[error("cannot name the job: {0}")]
    Name(#[from] rustix::io::Errno),
}

/// All jobs of one store.
#[derive(Debug)]
pub struct Registry {
    store: Arc<Store>,
    jobs: DashMap<JobId, Arc<Job>>,
    served: AtomicU64,
    requests: DashMap<String, u64>,
    known: Known,
    found: Found,
    /// Stored trees that are being loaded: who wants one of them waits for the first who did.
    loading: DashMap<Digest, Arc<Mutex<()>>>,
}

impl Registry {
    /// No jobs yet, on a store.
    pub fn new(store: Store) -> Self {
        store.sweep_imports();
        store.sweep_jobs();
        Self {
            store: Arc::new(store),
            jobs: DashMap::new(),
            served: AtomicU64::new(0),
            requests: DashMap::new(),
            known: Known::new(NODES_MAX),
            found: Found::default(),
            loading: DashMap::new(),
        }
    }

    /// The inputs of a manifest that was seen before.
    pub fn known(&self, manifest: Key) -> Option<Arc<Resolved>> {
        self.known.get(manifest)
    }

    /// Reads the manifest that was asked for, finds its blobs, and remembers the outcome by its digest.
    pub fn learn(&self, bytes: &[u8], key: Key) -> Result<Arc<Resolved>, ManifestError> {
        // A file that it was kept in may have changed.
        if Digest::of_large(bytes) != key.digest {
            return Err(ManifestError::Other(key.digest));
        }
        let manifest = Listed::read(bytes)?;
        if let (Some(root), true) = (manifest.input_root(), manifest.is_empty()) {
            let (digest, inputs) = (root.digest, self.stored(&root, key)?);
            self.known.insert_same_as(key, Key { digest, ..key });
            return Ok(inputs);
        }
        let load = |root: &Root| Ok(self.stored(root, key)?.tree.clone());
        let finder = self.found.at(key, &self.store, manifest.len());
        let size = |at, digest| finder.size(at, digest);
        let (resolved, sizes) = manifest.resolve_with(&self.store, load, size)?;
        finder.remember(&manifest, &sizes);
        let resolved = Arc::new(resolved);
        self.known.insert(key, resolved.clone());
        Ok(resolved)
    }

    /// A stored tree, of which every blob has been found once.
    fn stored(&self, root: &Root, asked: Key) -> Result<Arc<Resolved>, LoadError> {
        directory::find_root(root, &self.store)?;
        let digest = root.digest;
        let key = Key { digest, ..asked };
        if let Some(known) = self.known.get(key) {
            return Ok(known);
        }
        let turn = self.loading.entry(root.digest).or_default().clone();
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = self.known.get(key) {
            return Ok(known);
        }
        let loaded = self.load(root, key);
        // Whoever comes from now on finds the tree known, or tries again.
        self.loading.remove(&root.digest);
        loaded
    }

    fn load(&self, root: &Root, key: Key) -> Result<Arc<Resolved>, LoadError> {
        let tree = directory::load(root, &self.store)?;
        directory::check(&tree, &self.store)?;
        let writable = Vec::new();
        let inputs = Arc::new(Resolved { tree, writable });
        self.known.insert(key, inputs.clone());
        Ok(inputs)
    }

    /// Starts a job.
    pub fn register(
        &self,
        registration: &Registration,
        inputs: &Resolved,
        now: Time,
    ) -> Result<(JobId, Arc<Job>), RegisterError> {
        let id = JobId(random()?);
        let name = format!("{:016x}", id.0);
        let staging = Arc::new(StagingDirectory::create(self.store.staging(), &name)?);
        Recovery::new(JobState::Running).write(staging.as_fd())?;
        let owner = Caller {
            uid: registration.uid,
            gid: registration.gid,
        };
        let changeable = changeable(&registration.copy_on_write, &inputs.tree);
        let store = self.store.clone();
        let job = Job::new(store, staging, inputs, changeable, owner, now)?;
        let job = job.recorded(registration.record, process::precise_now);
        let job = job.labelled(&registration.label);
        let job = Arc::new(match registration.listing_seed {
            Some(seed) => job.shuffled(seed),
            None => job,
        });
        self.jobs.insert(id, job.clone());
        self.served.fetch_add(1, Ordering::Relaxed);
        Ok((id, job))
    }

    /// Lets go of a job. Its staging directory goes too, unless it was given away.
    pub fn release(&self, id: JobId) {
        drop(self.jobs.remove(&id));
    }

    /// The job with a staging directory of this name.
    pub fn find(&self, staging: &str) -> Option<Arc<Job>> {
        let id = JobId(u64::from_str_radix(staging, 16).ok()?);
        Some(self.jobs.get(&id)?.clone())
    }

    /// All jobs.
    pub fn all(&self) -> Vec<Arc<Job>> {
        let jobs = self.jobs.iter();
        jobs.map(|entry| entry.value().clone()).collect()
    }

    /// Adds what a job has asked of its view.
    pub fn add_requests(&self, requests: &BTreeMap<String, u64>) {
        for (name, count) in requests {
            *self.requests.entry(name.clone()).or_default() += count;
        }
    }

    /// What all jobs that have ended have asked, by the kernel's names of requests.
    pub fn requests(&self) -> BTreeMap<String, u64> {
        let counts = self.requests.iter();
        counts
            .map(|entry| (entry.key().clone(), *entry.value()))
            .collect()
    }

    /// Jobs that are registered now, and jobs that ever were.
    pub fn counts(&self) -> (u64, u64) {
        (self.jobs.len() as u64, self.served.load(Ordering::Relaxed))
    }
}

/// The declared nodes that a job may change. A path that is not declared is none: what the job makes
/// there is its own anyway.
fn changeable(wanted: &CopyOnWrite, tree: &Tree) -> InputPolicy {
    match wanted {
        CopyOnWrite::Nothing => InputPolicy::ReadOnly,
        CopyOnWrite::Everything => InputPolicy::CopyOnWrite,
        CopyOnWrite::Below(paths) => {
            let tops = paths.iter().filter_map(|path| tree.find(path));
            InputPolicy::CopyOnWriteBelow(tops.collect())
        }
    }
}

/// 64 random bits: unlike a counter or a process number, no other daemon on the same store, in
/// another container or after a crash, comes to the same.
fn random() -> Result<u64, rustix::io::Errno> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u64::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cas::RelPath;
    use cas::manifest::Manifest;
    use cas::tree::{Entry, EntryKind};

    #[test]
    fn a_manifest_other_than_the_one_asked_for_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let registry = Registry::new(Store::open(place.path()).unwrap());
        let bytes = Manifest::default().encode();
        let key = |digest| Key {
            generation: 0,
            hour: 0,
            digest,
        };
        let other = registry.learn(&bytes, key(Digest::of(b"other")));
        assert!(matches!(other, Err(ManifestError::Other(_))), "{other:?}");
        assert!(registry.learn(&bytes, key(Digest::of(&bytes))).is_ok());
    }

    #[test]
    fn many_who_want_a_stored_tree_at_once_get_the_same_one() {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(place.path()).unwrap();
        let entry = |i: u32| Entry {
            path: RelPath::parse(format!("d{i}/e").as_bytes()).unwrap(),
            mode: 0o755,
            mtime: 0,
            kind: EntryKind::Directory,
        };
        let tree = Tree::build((0..500).map(entry).collect()).unwrap();
        let input_root = Some(directory::store(&tree, &store).unwrap());
        let entries = Vec::new();
        let manifest = Manifest {
            input_root,
            entries,
        };
        let (bytes, registry) = (manifest.encode(), Registry::new(store));
        let key = Key {
            generation: 0,
            hour: 0,
            digest: Digest::of(&bytes),
        };
        let learned = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| registry.learn(&bytes, key).unwrap()))
                .collect();
            let learned = threads.into_iter().map(|thread| thread.join().unwrap());
            learned.collect::<Vec<_>>()
        });
        assert_eq!(learned[0].tree.len(), tree.len());
        assert!(
            learned
                .iter()
                .all(|inputs| Arc::ptr_eq(inputs, &learned[0]))
        );
        let known = registry.known(key).unwrap();
        assert!(Arc::ptr_eq(&known, &learned[0]));
        assert!(registry.loading.is_empty());
    }
}
