//! Demultiplexing: from a packet's local address and port to its socket, in one lookup.
//!
//! A socket bound to any address has an entry for each address we have, so the lookup that finds a
//! socket has also found out that the destination is ours. A dual-stack socket has entries in the
//! tables of both versions. The tables are rebuilt when addresses or sockets change, which is rare.

use crate::hash::HashKey;
use crate::ip::address::{Ip, Ipv4, Ipv6};
use alloc::boxed::Box;
use alloc::vec;
use core::fmt::Debug;
use core::net::{Ipv4Addr, Ipv6Addr};

/// Where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The socket of this index.
    Socket(u16),
    /// Another worker serves it: the service of this tag, which means something to the caller.
    Elsewhere(u16),
}

/// What a version's table is searched by: address and port in as few words as they fit. The key
/// of port 0, which nobody can be bound to, marks a place that is free.
pub trait DemuxKey: Ip {
    /// Address and port.
    type Key: Copy + Debug + Eq + Default;

    /// The key of a local address and port.
    fn key(address: Self::Addr, port: u16) -> Self::Key;

    /// A keyed hash of it.
    fn hash(secret: &HashKey, key: Self::Key) -> u64;
}

impl DemuxKey for Ipv4 {
    type Key = u64;

    #[inline]
    fn key(address: Ipv4Addr, port: u16) -> u64 {
        u64::from(u32::from_ne_bytes(address.octets())) | u64::from(port) << 32
    }

    #[inline]
    fn hash(secret: &HashKey, key: u64) -> u64 {
        secret.hash_u64(key)
    }
}

impl DemuxKey for Ipv6 {
    type Key = (u64, u64, u16);

    #[inline]
    fn key(address: Ipv6Addr, port: u16) -> Self::Key {
        let octets = address.octets();
        let (words, _) = octets.as_chunks::<8>();
        let [high, low] = [words[0], words[1]].map(u64::from_ne_bytes);
        (high, low, port)
    }

    #[inline]
    fn hash(secret: &HashKey, (high, low, port): Self::Key) -> u64 {
        // Which addresses and ports are in the table is ours to choose, not the sender's.
        secret.hash_u128(u128::from(high) << 64 | u128::from(low ^ u64::from(port)))
    }
}

#[derive(Clone, Copy, Debug)]
struct Slot<K> {
    key: K,
    /// `None` in a free place.
    target: Option<Target>,
}

impl<K: Default> Slot<K> {
    fn free() -> Self {
        Self {
            key: K::default(),
            target: None,
        }
    }
}

/// The table of one version: open addressing, linear probing, at most half full.
#[derive(Debug)]
pub struct Demux<I: DemuxKey> {
    slots: Box<[Slot<I::Key>]>,
    secret: HashKey,
}

impl<I: DemuxKey> Demux<I> {
    /// A table for at most `entries` pairs of address and port.
    #[must_use]
    pub fn new(entries: usize, secret: HashKey) -> Self {
        Self {
            slots: vec![Slot::free(); slot_count(entries)].into_boxed_slice(),
            secret,
        }
    }

    /// Where a key is, or the free place where it would be.
    #[inline]
    fn find(&self, key: I::Key) -> usize {
        let mask = self.slots.len() - 1;
        // The mask keeps the low bits; losing the high ones is the point.
        #[expect(
            clippy::cast_possible_truncation,
            reason = "masked to the table's size"
        )]
        let mut at = <I as DemuxKey>::hash(&self.secret, key) as usize & mask;
        // Half of the places are free: there is an end.
        while self.slots[at].key != key && self.slots[at].target.is_some() {
            at = (at + 1) & mask;
        }
        at
    }

    /// Who receives packets for this address and port.
    #[inline]
    #[must_use]
    pub fn lookup(&self, address: I::Addr, port: u16) -> Option<Target> {
        self.slots[self.find(I::key(address, port))].target
    }

    /// Adds an entry for a port other than 0, unless there is one already or the table is half
    /// full; says whether it did.
    pub fn insert(&mut self, address: I::Addr, port: u16, target: Target) -> bool {
        let used = self.slots.iter().filter(|slot| slot.target.is_some());
        let half_full = (used.count() + 1) * 2 > self.slots.len();
        let key = I::key(address, port);
        let slot = self.find(key);
        let slot = &mut self.slots[slot];
        if half_full || port == 0 || slot.target.is_some() {
            return false;
        }
        *slot = Slot {
            key,
            target: Some(target),
        };
        true
    }

    /// Empties the table and makes room for at least `entries`.
    pub fn reset(&mut self, entries: usize) {
        let slots = slot_count(entries);
        if slots == self.slots.len() {
            self.slots.fill(Slot::free());
        } else {
            self.slots = vec![Slot::free(); slots].into_boxed_slice();
        }
    }
}

/// Twice as many places as there will be entries: a power of two, so that a mask finds a place, and
/// never none.
const fn slot_count(entries: usize) -> usize {
    let entries = if entries < 4 { 4 } else { entries };
    (entries * 2).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_a_map(
            keys in proptest::collection::vec((any::<[u8; 2]>(), 1u16..8), 0..64),
            probes in proptest::collection::vec((any::<[u8; 2]>(), 0u16..8), 0..64),
        ) {
            let address = |[a, b]: [u8; 2]| Ipv4Addr::new(10, 0, a & 1, b & 7);
            let mut table = Demux::<Ipv4>::new(64, HashKey::new([1, 2]));
            let mut oracle = BTreeMap::new();
            for (index, (a, port)) in keys.iter().enumerate() {
                let target = Target::Socket(u16::try_from(index).unwrap());
                let added = table.insert(address(*a), *port, target);
                prop_assert_eq!(added, !oracle.contains_key(&(address(*a), *port)));
                oracle.entry((address(*a), *port)).or_insert(target);
            }
            for (a, port) in keys.iter().chain(&probes) {
                let found = table.lookup(address(*a), *port);
                prop_assert_eq!(found, oracle.get(&(address(*a), *port)).copied());
            }
        }
    }

    #[test]
    fn a_full_table_refuses_and_still_answers() {
        let mut table = Demux::<Ipv6>::new(4, HashKey::new([1, 2]));
        let address = |n: u128| Ipv6Addr::from_bits(n);
        let added = (0..100)
            .filter(|&n| table.insert(address(n), 7, Target::Socket(1)))
            .count();
        assert_eq!(added, 4);
        assert_eq!(table.lookup(address(99), 7), None);
        table.reset(200);
        assert_eq!(table.lookup(address(0), 7), None);
        assert!((0..100).all(|n| table.insert(address(n), 7, Target::Socket(1))));
    }
}
