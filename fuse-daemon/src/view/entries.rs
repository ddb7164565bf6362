//! Names that a job made in one directory, findable by name and in a stable order.

use std::collections::BTreeMap;
use std::hash::Hasher;

use cas::{Name, NameBuf};
use rustc_hash::FxHasher;

use super::inode::InodeId;
use super::order::mix;

/// How many bits cookies have. Offsets of listings stay below 2^31 then, which is what programs of
/// 32 bits can take.
const COOKIE_BITS: u32 = 30;

/// How many cookies there are.
pub(super) const COOKIES: u64 = 1 << COOKIE_BITS;

/// A set of names. Each has a cookie for as long as it is here, so that a listing which goes on from
/// a cookie misses nothing and repeats nothing, whatever was added or removed meanwhile.
///
/// The cookie is a hash of the name, as in the directories of ext4 and XFS. If cookies grew, a
/// listing would come to whatever is made or renamed because of what it lists, and who copies every
/// file that is listed would never come to its end; to stop it, each reader's end had to be
/// remembered. And the order does not tell in which order the threads of a job came.
///
/// Two maps that agree, because only [`Entries::insert`] and [`Entries::remove`] change them.
#[derive(Debug, Default)]
pub(super) struct Entries {
    by_name: BTreeMap<NameBuf, Slot>,
    by_cookie: BTreeMap<u64, NameBuf>,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    cookie: u64,
    id: InodeId,
}

/// The cookie that a name gets unless another one has it.
fn cookie(name: Name<'_>) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(name.as_bytes());
    mix(hasher.finish()) >> (u64::BITS - COOKIE_BITS)
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
        let cookie = self.free_from(cookie(name.as_name()));
        self.by_cookie.insert(cookie, name.clone());
        self.by_name.insert(name, Slot { cookie, id });
    }

    fn free_from(&self, mut cookie: u64) -> u64 {
        while self.by_cookie.contains_key(&cookie) {
            cookie = (cookie + 1) % COOKIES;
        }
        cookie
    }

    pub(super) fn remove(&mut self, name: Name<'_>) -> Option<InodeId> {
        let slot = self.by_name.remove(name.as_bytes())?;
        self.by_cookie.remove(&slot.cookie);
        Some(slot.id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Names in the order of their cookies, from one on.
    pub(super) fn starting_at(
        &self,
        cookie: u64,
    ) -> impl Iterator<Item = (u64, Name<'_>, InodeId)> {
        let found = self.by_cookie.range(cookie..);
        found.map(|(cookie, name)| self.entry(*cookie, name))
    }

    /// Names in the opposite order, from one of [`COOKIES`] positions on, which are counted from
    /// the greatest cookie downwards.
    pub(super) fn reversed_from(
        &self,
        position: u64,
    ) -> impl Iterator<Item = (u64, Name<'_>, InodeId)> {
        let found = self.by_cookie.range(..COOKIES.saturating_sub(position));
        found.rev().map(|(cookie, name)| {
            let (cookie, name, id) = self.entry(*cookie, name);
            (COOKIES - 1 - cookie, name, id)
        })
    }

    fn entry<'a>(&'a self, cookie: u64, name: &'a NameBuf) -> (u64, Name<'a>, InodeId) {
        let slot = self.by_name.get(name.as_bytes());
        (
            cookie,
            name.as_name(),
            slot.map_or(InodeId(0), |slot| slot.id),
        )
    }

    /// Whether both maps say the same.
    pub(super) fn agree(&self) -> bool {
        self.by_name.len() == self.by_cookie.len()
            && self.by_name.iter().all(|(name, slot)| {
                slot.cookie < COOKIES && self.by_cookie.get(&slot.cookie) == Some(name)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NameBuf {
        Name::new(text.as_bytes()).expect("a name").to_owned()
    }

    fn cookies(entries: &Entries) -> Vec<(u64, String)> {
        let text = |name: Name<'_>| String::from_utf8_lossy(name.as_bytes()).into_owned();
        let found = entries.starting_at(0);
        found
            .map(|(cookie, name, _)| (cookie, text(name)))
            .collect()
    }

    #[test]
    fn names_with_one_hash_have_cookies_of_their_own() {
        let mut entries = Entries::default();
        let taken = [name("a"), name("b"), name("c")];
        // As if all but one of these hashes were that of "x".
        let hash = cookie(name("x").as_name());
        for (cookie, name) in (hash..).zip(&taken) {
            let slot = Slot {
                cookie,
                id: InodeId(1),
            };
            entries.by_cookie.insert(cookie, name.clone());
            entries.by_name.insert(name.clone(), slot);
        }
        entries.insert(name("x"), InodeId(2));
        assert_eq!(cookies(&entries).last(), Some(&(hash + 3, "x".to_owned())));
        assert!(entries.agree());
        // What is there stays where it is when the others go.
        assert_eq!(entries.remove(taken[0].as_name()), Some(InodeId(1)));
        entries.insert(name("x"), InodeId(3));
        assert_eq!(cookies(&entries).last(), Some(&(hash + 3, "x".to_owned())));
        assert_eq!(entries.get(name("x").as_name()), Some(InodeId(3)));
    }

    #[test]
    fn the_last_cookie_is_followed_by_the_first() {
        let mut entries = Entries::default();
        entries.by_cookie.insert(COOKIES - 1, name("last"));
        assert_eq!(entries.free_from(COOKIES - 1), 0);
        assert_eq!(entries.free_from(5), 5);
    }

    #[test]
    fn the_order_is_that_of_the_names_whichever_came_first() {
        let names: Vec<_> = (0..1000).map(|n| name(&n.to_string())).collect();
        let (mut one, mut other) = (Entries::default(), Entries::default());
        names
            .iter()
            .for_each(|name| one.insert(name.clone(), InodeId(1)));
        names
            .iter()
            .rev()
            .for_each(|name| other.insert(name.clone(), InodeId(1)));
        assert_eq!(cookies(&one), cookies(&other));
        let spread = cookies(&one)
            .iter()
            .filter(|(cookie, _)| *cookie < COOKIES / 2)
            .count();
        assert!((400..600).contains(&spread), "{spread} of 1000");
    }
}
