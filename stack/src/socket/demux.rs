//! Demultiplexing: from a packet's local address and port to its socket, in one lookup.
//!
//! A socket bound to any address has an entry for each address we have, so the lookup that finds a
//! socket has also found out that the destination is ours. A dual-stack socket has entries in the
//! tables of both versions. A socket that comes or goes is a matter of its own entries; the tables are
//! rebuilt when they grow or our addresses change, which is rare.

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
    /// Address and port, as they stand in packets.
    type Key: Copy + Debug + Eq + Default;

    /// The key of a local address and port.
    fn key(address: Self::Addr, port: u16) -> Self::Key;

    /// A word to hash: of two keys of one table, rarely the same.
    fn word(key: Self::Key) -> u64;
}

impl DemuxKey for Ipv4 {
    type Key = u64;

    #[inline]
    fn key(address: Ipv4Addr, port: u16) -> u64 {
        u64::from(u32::from_ne_bytes(address.octets())) | u64::from(port.to_be()) << 32
    }

    #[inline]
    fn word(key: u64) -> u64 {
        key
    }
}

impl DemuxKey for Ipv6 {
    type Key = (u64, u64, u16);

    #[inline]
    fn key(address: Ipv6Addr, port: u16) -> Self::Key {
        let octets = address.octets();
        let (words, _) = octets.as_chunks::<8>();
        let [high, low] = [words[0], words[1]].map(u64::from_ne_bytes);
        (high, low, port.to_be())
    }

    #[inline]
    fn word((high, low, port): Self::Key) -> u64 {
        high ^ low.rotate_left(32) ^ u64::from(port)
    }
}

#[derive(Clone, Copy, Debug)]
struct Slot<K> {
    key: K,
    entry: Entry,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Free,
    Socket(u16),
    Elsewhere(u16),
}

impl<K: Default> Slot<K> {
    fn free() -> Self {
        Self {
            key: K::default(),
            entry: Entry::Free,
        }
    }
}

/// The table of one version: open addressing, linear probing, at most half full.
///
/// Its hash needs no secret: which addresses and ports are in the table is ours to choose. A sender
/// chooses only what is looked for, and a search ends at the first free place.
#[derive(Debug)]
pub struct Demux<I: DemuxKey> {
    slots: Box<[Slot<I::Key>]>,
    /// How many of them are not free.
    used: usize,
    /// The socket that was found last: most packets of a batch are for one service.
    last: Slot<I::Key>,
}

impl<I: DemuxKey> Demux<I> {
    /// A table for at most `entries` pairs of address and port.
    #[must_use]
    pub fn new(entries: usize) -> Self {
        Self {
            slots: vec![Slot::free(); slot_count(entries)].into_boxed_slice(),
            used: 0,
            last: Slot::free(),
        }
    }

    /// Where the search for a key begins.
    #[inline]
    fn start(&self, key: I::Key) -> usize {
        // Multiplied by 2^64 divided by the golden ratio, its high bits depend on all of its bits.
        let hash = I::word(key).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        // The mask keeps the low bits; losing the high ones is the point.
        hash as usize & (self.slots.len() - 1)
    }

    /// Who receives packets for this address and port.
    #[inline]
    #[must_use]
    pub fn lookup(&self, address: I::Addr, port: u16) -> Option<Target> {
        match self.find(I::key(address, port)) {
            Entry::Free => None,
            Entry::Socket(socket) => Some(Target::Socket(socket)),
            Entry::Elsewhere(tag) => Some(Target::Elsewhere(tag)),
        }
    }

    /// The socket that receives packets for this address and port, if it is one of this worker.
    #[inline]
    #[must_use]
    pub fn lookup_socket(&mut self, address: I::Addr, port: u16) -> Option<u16> {
        let key = I::key(address, port);
        if self.last.key == key
            && let Entry::Socket(socket) = self.last.entry
        {
            return Some(socket);
        }
        let entry = self.find(key);
        let Entry::Socket(socket) = entry else {
            return None;
        };
        self.last = Slot { key, entry };
        Some(socket)
    }

    #[inline]
    fn find(&self, key: I::Key) -> Entry {
        let mut at = self.start(key);
        // Half of the places are free: there is an end.
        while let Some(slot) = self.slots.get(at) {
            if slot.key == key {
                return slot.entry;
            }
            if slot.entry == Entry::Free {
                break;
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
        Entry::Free
    }

    /// Adds an entry for a port other than 0, unless there is one already or the table is half
    /// full; says whether it did.
    pub fn insert(&mut self, address: I::Addr, port: u16, target: Target) -> bool {
        if !self.has_room(1) || port == 0 || self.lookup(address, port).is_some() {
            return false;
        }
        let key = I::key(address, port);
        let mask = self.slots.len() - 1;
        let mut at = self.start(key);
        while self.slots[at].entry != Entry::Free {
            at = (at + 1) & mask;
        }
        self.slots[at] = Slot {
            key,
            entry: match target {
                Target::Socket(socket) => Entry::Socket(socket),
                Target::Elsewhere(tag) => Entry::Elsewhere(tag),
            },
        };
        self.used += 1;
        true
    }

    /// Whether so many more entries leave half of the places free.
    #[must_use]
    pub fn has_room(&self, entries: usize) -> bool {
        (self.used + entries) * 2 <= self.slots.len()
    }

    /// Takes an entry out; says whether it was there.
    pub fn remove(&mut self, address: I::Addr, port: u16) -> bool {
        let key = I::key(address, port);
        let mask = self.slots.len() - 1;
        let mut hole = self.start(key);
        while self.slots[hole].entry != Entry::Free && self.slots[hole].key != key {
            hole = (hole + 1) & mask;
        }
        if self.slots[hole].entry == Entry::Free {
            return false;
        }
        // Close the hole: an entry further on comes forward unless that would put it before the place
        // where the search for it begins.
        let mut place = hole;
        loop {
            place = (place + 1) & mask;
            let slot = self.slots[place];
            if slot.entry == Entry::Free {
                break;
            }
            let from_start = place.wrapping_sub(self.start(slot.key)) & mask;
            let from_hole = place.wrapping_sub(hole) & mask;
            if from_start >= from_hole {
                self.slots[hole] = slot;
                hole = place;
            }
        }
        self.slots[hole] = Slot::free();
        self.used -= 1;
        self.last = Slot::free();
        true
    }

    /// Empties the table and makes room for at least `entries`.
    pub fn reset(&mut self, entries: usize) {
        self.last = Slot::free();
        self.used = 0;
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

    fn is_socket(target: &Target) -> bool {
        matches!(target, Target::Socket(_))
    }

    proptest! {
        #[test]
        fn agrees_with_a_map(
            tight: bool,
            keys in proptest::collection::vec((any::<[u8; 2]>(), 1u16..8), 0..64),
            probes in proptest::collection::vec((any::<[u8; 2]>(), 0u16..8), 0..64),
            gone in proptest::collection::vec((any::<[u8; 2]>(), 1u16..8), 0..64),
        ) {
            let address = |[a, b]: [u8; 2]| Ipv4Addr::new(10, 0, a & 1, b & 7);
            // Room for all of them, and hardly any or plenty beside.
            let mut table = Demux::<Ipv4>::new(if tight { 64 } else { 500 });
            let mut oracle = BTreeMap::new();
            for (index, (a, port)) in keys.iter().enumerate() {
                let index = u16::try_from(index).unwrap();
                let target = if index % 3 == 0 { Target::Elsewhere(index) } else { Target::Socket(index) };
                let added = table.insert(address(*a), *port, target);
                prop_assert_eq!(added, !oracle.contains_key(&(address(*a), *port)));
                oracle.entry((address(*a), *port)).or_insert(target);
            }
            for (a, port) in &gone {
                // What was found last is remembered, and must not be when it is gone.
                let _ = table.lookup_socket(address(*a), *port);
                let removed = table.remove(address(*a), *port);
                prop_assert_eq!(removed, oracle.remove(&(address(*a), *port)).is_some());
            }
            prop_assert_eq!(table.used, oracle.len());
            for (a, port) in keys.iter().chain(&probes).chain(&gone) {
                let expected = oracle.get(&(address(*a), *port)).copied();
                prop_assert_eq!(table.lookup(address(*a), *port), expected);
                let socket = table.lookup_socket(address(*a), *port);
                prop_assert_eq!(socket.map(Target::Socket), expected.filter(is_socket));
            }
        }
    }

    #[test]
    fn a_full_table_refuses_and_still_answers() {
        let mut table = Demux::<Ipv6>::new(4);
        let address = |n: u128| Ipv6Addr::from_bits(n);
        let added = (0..100)
            .filter(|&n| table.insert(address(n), 7, Target::Socket(1)))
            .count();
        assert_eq!(added, 4);
        assert_eq!(table.lookup(address(99), 7), None);
        assert_eq!(table.lookup_socket(address(3), 7), Some(1));
        table.reset(200);
        // Not even what was found last.
        assert_eq!(table.lookup_socket(address(3), 7), None);
        assert_eq!(table.lookup_socket(address(0), 0), None);
        assert_eq!(table.lookup(address(0), 7), None);
        assert!((0..100).all(|n| table.insert(address(n), 7, Target::Socket(1))));
    }
}
