//! What is remembered of manifests and stored trees, so that none is read twice.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cas::Digest;
use cas::manifest::Resolved;

/// What a digest is asked for by, and when: what was found to be there may be gone once blobs were
/// removed from the store, and has to count as used again from time to time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// How often blobs were removed.
    pub generation: u64,
    /// Whole hours since the epoch.
    pub hour: i64,
    /// Of a manifest or a stored tree.
    pub digest: Digest,
}

/// The inputs of manifests and of stored trees, by digest. Those used least lately are forgotten
/// when there are too many nodes in all.
#[derive(Debug)]
pub struct Known {
    nodes_max: usize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    entries: HashMap<Key, Entry>,
    /// All entries by when they were last used, the oldest first.
    order: BTreeMap<u64, Key>,
    /// Counts uses.
    clock: u64,
    /// Of all entries.
    nodes: usize,
}

#[derive(Debug)]
struct Entry {
    meaning: Meaning,
    nodes: usize,
    used: u64,
}

#[derive(Clone, Debug)]
enum Meaning {
    Inputs(Arc<Resolved>),
    /// Whatever is known of this stored tree. An entry of its own would count the tree twice, and
    /// keep it when it is forgotten.
    SameAs(Key),
}

/// What an entry costs beside its tree, as if it were nodes of one: a kilobyte at forty bytes for a
/// node. Without it a million jobs of different manifests, one file each, would be remembered.
const ENTRY_NODES: usize = 25;

impl Known {
    /// Knows nothing, and will keep trees of so many nodes in all.
    pub fn new(nodes_max: usize) -> Self {
        let table = Mutex::default();
        Self { nodes_max, table }
    }

    /// The inputs that a digest stood for then.
    pub fn get(&self, key: Key) -> Option<Arc<Resolved>> {
        let mut table = self.lock();
        match table.touch(key)? {
            Meaning::Inputs(inputs) => Some(inputs),
            Meaning::SameAs(root) => match table.touch(root)? {
                Meaning::Inputs(inputs) => Some(inputs),
                Meaning::SameAs(_) => None,
            },
        }
    }

    /// Remembers inputs.
    pub fn insert(&self, key: Key, inputs: Arc<Resolved>) {
        let nodes = inputs.tree.len() + inputs.writable.len() + ENTRY_NODES;
        self.add(key, Meaning::Inputs(inputs), nodes);
    }

    /// Remembers that a manifest declares a stored tree and nothing else.
    pub fn insert_same_as(&self, manifest: Key, root: Key) {
        self.add(manifest, Meaning::SameAs(root), ENTRY_NODES);
    }

    fn add(&self, key: Key, meaning: Meaning, nodes: usize) {
        // What is forgotten may be large, and is dropped after the lock.
        let _forgotten = {
            let mut table = self.lock();
            let mut forgotten: Vec<_> = table.remove(key).into_iter().collect();
            table.insert(key, meaning, nodes);
            while table.nodes > self.nodes_max && table.entries.len() > 1 {
                forgotten.extend(table.remove_oldest());
            }
            forgotten
        };
    }

    /// No method leaves the table half-changed, so a poisoned lock means nothing here.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn touch(&mut self, key: Key) -> Option<Meaning> {
        let entry = self.entries.get_mut(&key)?;
        self.order.remove(&entry.used);
        self.clock += 1;
        entry.used = self.clock;
        self.order.insert(self.clock, key);
        Some(entry.meaning.clone())
    }

    fn insert(&mut self, key: Key, meaning: Meaning, nodes: usize) {
        self.clock += 1;
        let used = self.clock;
        self.order.insert(used, key);
        self.nodes += nodes;
        let entry = Entry {
            meaning,
            nodes,
            used,
        };
        self.entries.insert(key, entry);
    }

    fn remove(&mut self, key: Key) -> Option<Entry> {
        let entry = self.entries.remove(&key)?;
        self.order.remove(&entry.used);
        self.nodes -= entry.nodes;
        Some(entry)
    }

    fn remove_oldest(&mut self) -> Option<Entry> {
        let oldest = *self.order.first_key_value()?.1;
        self.remove(oldest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cas::RelPath;
    use cas::tree::{Entry, EntryKind, Tree};

    fn key(name: &[u8]) -> Key {
        Key {
            generation: 0,
            hour: 0,
            digest: Digest::of(name),
        }
    }

    /// Inputs of three nodes.
    fn inputs() -> Arc<Resolved> {
        let entry = |path: &[u8]| Entry {
            path: RelPath::parse(path).unwrap(),
            mode: 0o755,
            mtime: 0,
            kind: EntryKind::Directory,
        };
        Arc::new(Resolved {
            tree: Tree::build(vec![entry(b"a"), entry(b"b")]).unwrap(),
            writable: Vec::new(),
        })
    }

    #[test]
    fn the_least_lately_used_is_forgotten() {
        let known = Known::new(2 * ENTRY_NODES + 7);
        let [a, b, c] = [b"a", b"b", b"c"].map(|name| key(name));
        known.insert(a, inputs());
        known.insert(b, inputs());
        assert!(known.get(a).is_some());
        known.insert(c, inputs());
        assert!(known.get(b).is_none() && known.get(a).is_some() && known.get(c).is_some());
        known.insert(c, inputs());
        assert!(
            known.get(a).is_some(),
            "what is known already takes no further room"
        );
    }

    #[test]
    fn a_manifest_of_a_root_is_known_as_long_as_the_root_is() {
        let known = Known::new(3 * ENTRY_NODES + 7);
        let [root, manifest, a, b] = [b"r", b"m", b"a", b"b"].map(|name| key(name));
        known.insert(root, inputs());
        known.insert_same_as(manifest, root);
        known.insert(a, inputs());
        assert!(known.get(manifest).is_some(), "and using it keeps the root");
        known.insert(b, inputs());
        assert!(known.get(manifest).is_some() && known.get(a).is_none());
        known.insert(a, inputs());
        known.insert(b, inputs());
        assert!(known.get(root).is_none() && known.get(manifest).is_none());
    }

    #[test]
    fn one_that_is_larger_than_all_there_may_be_is_kept_alone() {
        let known = Known::new(1);
        let [a, b] = [b"a", b"b"].map(|name| key(name));
        known.insert(a, inputs());
        assert!(known.get(a).is_some());
        known.insert(b, inputs());
        assert!(known.get(a).is_none() && known.get(b).is_some());
    }

    #[test]
    fn nothing_is_known_of_before_a_removal() {
        let known = Known::new(7);
        let a = key(b"a");
        known.insert(a, inputs());
        assert!(known.get(Key { generation: 1, ..a }).is_none());
        assert!(known.get(Key { hour: 1, ..a }).is_none());
        assert!(known.get(a).is_some());
    }
}
