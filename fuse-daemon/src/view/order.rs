//! In which order listings tell names.
//!
//! A job whose output depends on the order of a directory works until it meets another file system.
//! A view with a seed is one: `wakebox check` runs a job in two orders.

use cas::tree::NodeIndex;

use super::View;
use super::inode::InodeId;
use super::names::{Entry, Place};

/// The order of listings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Declared names as they are in the tree, then made ones by a hash of each.
    #[default]
    Plain,
    /// The same two parts, each in another order: of declared names the seed and the directory choose
    /// it, and made ones come backwards. In each of more than one name it is not that of
    /// [`Order::Plain`].
    Shuffled(u64),
}

/// A rearrangement of the numbers below `count`: `k` goes to `k * factor + offset`, modulo `count`. It
/// needs no table, so a listing can go on anywhere in a directory of any size.
#[derive(Clone, Copy, Debug)]
struct Shuffle {
    count: u64,
    factor: u64,
    offset: u64,
}

impl Shuffle {
    fn new(seed: u64, count: u64) -> Self {
        let below = |bits: u64| bits % count.max(1);
        let mut factor = below(mix(seed)).max(1);
        while gcd(factor, count.max(1)) != 1 {
            factor += 1;
        }
        let mut offset = below(mix(!seed));
        if (below(factor), offset) == (below(1), 0) {
            offset = below(1);
        }
        Self {
            count,
            factor,
            offset,
        }
    }

    fn at(self, position: u64) -> u64 {
        let wide = u128::from(position) * u128::from(self.factor) + u128::from(self.offset);
        (wide % u128::from(self.count)) as u64
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    match b {
        0 => a,
        b => gcd(b, a % b),
    }
}

/// Spreads a number over 64 bits (the finisher of `SplitMix64`).
pub(super) fn mix(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

impl<S: Clone> View<S> {
    /// Chooses the order of listings. Not for a view that is being listed.
    pub fn set_order(&mut self, order: Order) {
        self.policy.order = order;
    }

    /// The names of a directory from two places on, in the order of its listing.
    pub(super) fn ordered(
        &self,
        parent: InodeId,
        declared_from: u32,
        made_from: u64,
    ) -> Box<dyn Iterator<Item = Entry<'_>> + '_> {
        match self.policy.order {
            Order::Plain => Box::new(self.names(parent, declared_from, made_from)),
            Order::Shuffled(seed) => {
                let seed = seed ^ mix(parent.0);
                let declared = self.shuffled_declared(parent, declared_from, seed);
                let made = self.directory(parent).map(|directory| &directory.made);
                let made = made
                    .into_iter()
                    .flat_map(move |made| made.reversed_from(made_from));
                Box::new(declared.chain(made.map(Entry::made)))
            }
        }
    }

    fn shuffled_declared(
        &self,
        parent: InodeId,
        from: u32,
        seed: u64,
    ) -> impl Iterator<Item = Entry<'_>> {
        let nodes = self
            .node_of(parent)
            .map_or(0..0, |node| self.tree.children(node));
        let shuffle = Shuffle::new(seed, nodes.len() as u64);
        let first = nodes.start;
        (from..nodes.len() as u32).filter_map(move |position| {
            let node = NodeIndex(first + shuffle.at(position.into()) as u32);
            self.declared_entry(parent, node, Place::Declared(position))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_shuffle_keeps_everything_and_changes_the_order() {
        for count in 0..200 {
            for seed in [0, 1, 7, u64::MAX] {
                let shuffle = Shuffle::new(seed, count);
                let places: Vec<_> = (0..count).map(|k| shuffle.at(k)).collect();
                let all: BTreeSet<_> = places.iter().copied().collect();
                assert!(all.into_iter().eq(0..count), "{count}, {seed}: {places:?}");
                assert!(count < 2 || !places.is_sorted(), "{count}, {seed}");
            }
        }
    }

    #[test]
    fn seeds_differ() {
        let order = |seed| (0..50).map(move |k| Shuffle::new(seed, 50).at(k));
        assert!(!order(1).eq(order(2)));
    }
}
