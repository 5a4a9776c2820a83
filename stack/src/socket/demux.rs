//! Demultiplexing: from a packet's local address and port to its socket, in one lookup.
//!
//! A socket bound to any address has an entry for each address we have, so the lookup that finds a
//! socket has also found out that the destination is ours. A dual-stack socket has entries in the
//! tables of both versions. The tables are rebuilt when addresses or sockets change, which is rare.

use crate::hash::HashKey;
use crate::ip::address::{Ip, Ipv4, Ipv6};
use alloc::boxed::Box;
use alloc::vec;
use core::net::{Ipv4Addr, Ipv6Addr};

/// Where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The socket of this index.
    Socket(u16),
    /// Another worker serves it: the service of this tag, which means something to the caller.
    Elsewhere(u16),
}

/// How addresses of a version are hashed.
pub trait DemuxKey: Ip {
    /// A keyed hash of (address, port).
    fn demux_hash(key: &HashKey, address: Self::Addr, port: u16) -> u64;
}

impl DemuxKey for Ipv4 {
    #[inline]
    fn demux_hash(key: &HashKey, address: Ipv4Addr, port: u16) -> u64 {
        key.hash_flow_v4(u32::from_ne_bytes(address.octets()), 0, u32::from(port))
    }
}

impl DemuxKey for Ipv6 {
    #[inline]
    fn demux_hash(key: &HashKey, address: Ipv6Addr, port: u16) -> u64 {
        // Local addresses are few and ours, so the sender cannot choose among many: the port is
        // folded in, and the table bounds its probes by its load anyway.
        key.hash_u128(u128::from_ne_bytes(address.octets()) ^ u128::from(port) << 56)
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry<A> {
    address: A,
    port: u16,
    target: Target,
}

/// The table of one version: open addressing, linear probing, at most half full.
#[derive(Debug)]
pub struct Demux<I: Ip> {
    slots: Box<[Option<Entry<I::Addr>>]>,
    key: HashKey,
}

impl<I: DemuxKey> Demux<I> {
    /// A table for at most `entries` pairs of address and port.
    #[must_use]
    pub fn new(entries: usize, key: HashKey) -> Self {
        let slots = (entries.max(4) * 2).next_power_of_two();
        Self {
            slots: vec![None; slots].into_boxed_slice(),
            key,
        }
    }

    #[inline]
    fn start(&self, address: I::Addr, port: u16) -> usize {
        // The mask keeps the low bits; losing the high ones is the point.
        #[expect(
            clippy::cast_possible_truncation,
            reason = "masked to the table's size"
        )]
        let hash = I::demux_hash(&self.key, address, port) as usize;
        hash & (self.slots.len() - 1)
    }

    /// Who receives packets for this address and port.
    #[inline]
    #[must_use]
    pub fn lookup(&self, address: I::Addr, port: u16) -> Option<Target> {
        let mask = self.slots.len() - 1;
        let mut at = self.start(address, port);
        while let Some(Some(entry)) = self.slots.get(at & mask) {
            if entry.address == address && entry.port == port {
                return Some(entry.target);
            }
            at += 1;
        }
        None
    }

    /// Adds an entry, unless there is one already or the table is half full; says whether it did.
    pub fn insert(&mut self, address: I::Addr, port: u16, target: Target) -> bool {
        let used = self.slots.iter().flatten().count();
        if (used + 1) * 2 > self.slots.len() || self.lookup(address, port).is_some() {
            return false;
        }
        let mask = self.slots.len() - 1;
        let mut at = self.start(address, port) & mask;
        while self.slots[at].is_some() {
            at = (at + 1) & mask;
        }
        self.slots[at] = Some(Entry {
            address,
            port,
            target,
        });
        true
    }

    /// Empties the table and makes room for at least `entries`.
    pub fn reset(&mut self, entries: usize) {
        let slots = (entries.max(4) * 2).next_power_of_two();
        if slots == self.slots.len() {
            self.slots.fill(None);
        } else {
            self.slots = vec![None; slots].into_boxed_slice();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_a_map(
            keys in proptest::collection::vec((any::<[u8; 2]>(), 0u16..8), 0..64),
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
