//! Names that a job made in one directory, findable by name and in a stable order.

use std::collections::BTreeMap;

use cas::{Name, NameBuf};

use super::inode::InodeId;

/// A set of names. Each has a cookie that only grows, so that a listing which goes on from a
/// cookie misses nothing and repeats nothing, whatever was added or removed meanwhile.
///
/// Two maps that agree, because only [`Entries::insert`] and [`Entries::remove`] change them.
#[derive(Debug, Default)]
pub(super) struct Entries {
    by_name: BTreeMap<NameBuf, Slot>,
    by_cookie: BTreeMap<u64, NameBuf>,
    next: u64,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    cookie: u64,
    id: InodeId,
}

impl Entries {
    pub(super) fn get(&self, name: Name<'_>) -> Option<InodeId> {
        self.by_name.get(name.as_bytes()).map(|slot| slot.id)
    }

    /// Adds a name. One that is here already keeps its cookie and points at another inode: a
    /// rename onto it never takes it away (rename(2)), so a listing must not come by it again.
    pub(super) fn insert(&mut self, name: NameBuf, id: InodeId) {
        if let Some(slot) = self.by_name.get_mut(name.as_bytes()) {
            slot.id = id;
            return;
        }
        let cookie = self.next;
        self.next += 1;
        self.by_cookie.insert(cookie, name.clone());
        self.by_name.insert(name, Slot { cookie, id });
    }

    pub(super) fn remove(&mut self, name: Name<'_>) -> Option<InodeId> {
        let slot = self.by_name.remove(name.as_bytes())?;
        self.by_cookie.remove(&slot.cookie);
        Some(slot.id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The cookie that the next new name gets.
    pub(super) fn end(&self) -> u64 {
        self.next
    }

    /// The name with a cookie, if it is still there.
    pub(super) fn at(&self, cookie: u64) -> Option<(Name<'_>, InodeId)> {
        let name = self.by_cookie.get(&cookie)?;
        let slot = self.by_name.get(name.as_bytes())?;
        Some((name.as_name(), slot.id))
    }

    /// Names in the order in which they were made, from a cookie on.
    pub(super) fn starting_at(
        &self,
        cookie: u64,
    ) -> impl Iterator<Item = (u64, Name<'_>, InodeId)> {
        self.by_cookie.range(cookie..).map(|(&cookie, name)| {
            let id = self
                .by_name
                .get(name.as_bytes())
                .map_or(InodeId(0), |slot| slot.id);
            (cookie, name.as_name(), id)
        })
    }

    /// Whether both maps say the same.
    pub(super) fn agree(&self) -> bool {
        self.by_name.len() == self.by_cookie.len()
            && self.by_name.iter().all(|(name, slot)| {
                slot.cookie < self.next && self.by_cookie.get(&slot.cookie) == Some(name)
            })
    }
}
