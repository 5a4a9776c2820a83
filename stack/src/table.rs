//! The two halves of every table whose memory is fixed when it is made.
//!
//! The owner keeps its entries in an array of slots. [`Index`] finds the slot that a key is in, and
//! [`TimeOrder`] knows which slot is due, or oldest. Neither knows the entries, and neither
//! allocates after it was made.
//!
//! ```text
//!   key ──hash──► Index ──slot──► owner's array ◄──slot── TimeOrder ◄── "what is due?"
//! ```

use crate::time::Instant;
use alloc::vec;
use alloc::vec::Vec;

/// No slot: the mark of an empty cell or position.
const NONE: u32 = u32::MAX;

/// The most slots a table can have. Leaves room for a mark of no slot and for twice as many cells.
pub const SLOTS_MAX: usize = 1 << 30;

/// From hashes to slots: open addressing with linear probing, at most half full, so that a search
/// looks at one or two neighbouring cells. Removal moves the cells behind forward; no tombstones
/// pile up, and a table under churn stays as fast as a fresh one.
#[derive(Clone, Debug)]
pub struct Index {
    /// A power of two of them, at least twice the capacity.
    cells: Vec<Cell>,
    mask: usize,
    len: usize,
    capacity: usize,
}

/// 8 bytes: eight cells in a cache line.
#[derive(Clone, Copy, Debug)]
struct Cell {
    /// The low half of the key's hash. Spares most looks at entries of other keys, and tells where
    /// the cell belongs when its neighbours move.
    tag: u32,
    slot: u32,
}

const EMPTY: Cell = Cell { tag: 0, slot: NONE };

impl Index {
    /// For at most `capacity` entries ([`SLOTS_MAX`] if it is more). Takes 16 to 32 bytes each.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.min(SLOTS_MAX);
        // Two cells at least, so that a search always meets an empty one.
        let len = (capacity * 2).next_power_of_two().max(2);
        Self {
            cells: vec![EMPTY; len],
            mask: len - 1,
            len: 0,
            capacity,
        }
    }

    /// How many entries it holds.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The slot of the entry with this hash for which `is_key(slot)` holds.
    #[inline]
    pub fn find(&self, hash: u64, mut is_key: impl FnMut(u32) -> bool) -> Option<u32> {
        let tag = tag(hash);
        let mut place = self.home(tag);
        loop {
            let cell = self.cells[place];
            if cell.slot == NONE {
                return None;
            }
            if cell.tag == tag && is_key(cell.slot) {
                return Some(cell.slot);
            }
            place = (place + 1) & self.mask;
        }
    }

    /// Adds an entry, whose key must not be there yet.
    ///
    /// # Panics
    ///
    /// If it is full: the owner has as many slots as this has capacity, so it cannot be.
    pub fn insert(&mut self, hash: u64, slot: u32) {
        assert!(
            self.len < self.capacity,
            "invariant: an index has a cell for every slot"
        );
        let tag = tag(hash);
        let mut place = self.home(tag);
        while self.cells[place].slot != NONE {
            place = (place + 1) & self.mask;
        }
        self.cells[place] = Cell { tag, slot };
        self.len += 1;
    }

    /// Takes the entry in `slot` out; `hash` must be the one it was inserted with. False if it is
    /// not there.
    pub fn remove(&mut self, hash: u64, slot: u32) -> bool {
        let mut hole = self.home(tag(hash));
        loop {
            match self.cells[hole].slot {
                NONE => return false,
                found if found == slot => break,
                _ => hole = (hole + 1) & self.mask,
            }
        }
        // Close the hole: a cell further on may come forward unless that would put it before its
        // home, where no search would look for it.
        let mut place = hole;
        loop {
            place = (place + 1) & self.mask;
            let cell = self.cells[place];
            if cell.slot == NONE {
                break;
            }
            let from_home = place.wrapping_sub(self.home(cell.tag)) & self.mask;
            let from_hole = place.wrapping_sub(hole) & self.mask;
            if from_home >= from_hole {
                self.cells[hole] = cell;
                hole = place;
            }
        }
        self.cells[hole] = EMPTY;
        self.len -= 1;
        true
    }

    /// Takes everything out.
    pub fn clear(&mut self) {
        self.cells.fill(EMPTY);
        self.len = 0;
    }

    #[inline]
    fn home(&self, tag: u32) -> usize {
        tag as usize & self.mask
    }
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "takes the low half")]
fn tag(hash: u64) -> u32 {
    hash as u32
}

/// Slots in order of a point in time each: a binary heap that also knows where each slot stands,
/// so that a time can be changed or taken back. O(log n), and O(1) to see the first.
#[derive(Clone, Debug)]
pub struct TimeOrder {
    heap: Vec<(Instant, u32)>,
    /// Of each slot, its place in the heap, or [`NONE`].
    places: Vec<u32>,
}

impl TimeOrder {
    /// For slots `0..capacity` (at most [`SLOTS_MAX`]). Takes 20 bytes each.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.min(SLOTS_MAX);
        Self {
            heap: Vec::with_capacity(capacity),
            places: vec![NONE; capacity],
        }
    }

    /// How many slots have a time.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether no slot has a time.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// The earliest time and its slot; any one of several that are equal.
    #[inline]
    #[must_use]
    pub fn first(&self) -> Option<(Instant, u32)> {
        self.heap.first().copied()
    }

    /// The slot with the earliest time, if that is `now` or before. Its time is taken away.
    pub fn pop_due(&mut self, now: Instant) -> Option<u32> {
        let (at, slot) = self.first()?;
        if at > now {
            return None;
        }
        self.remove(slot);
        Some(slot)
    }

    /// The time of a slot.
    #[must_use]
    pub fn get(&self, slot: u32) -> Option<Instant> {
        let place = *self.places.get(slot as usize)?;
        self.heap.get(place as usize).map(|&(at, _)| at)
    }

    /// Gives a slot its time, in place of any earlier one.
    ///
    /// # Panics
    ///
    /// If `slot` is beyond the capacity: the owner has no such slot.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the heap is not longer than SLOTS_MAX"
    )]
    pub fn set(&mut self, slot: u32, at: Instant) {
        let place = self.places[slot as usize];
        let place = if place == NONE {
            self.heap.push((at, slot));
            self.heap.len() - 1
        } else {
            self.heap[place as usize].0 = at;
            place as usize
        };
        self.places[slot as usize] = place as u32;
        let place = self.sift_up(place);
        self.sift_down(place);
    }

    /// Takes a slot's time away. False if it had none.
    pub fn remove(&mut self, slot: u32) -> bool {
        let Some(&place) = self
            .places
            .get(slot as usize)
            .filter(|&&place| place != NONE)
        else {
            return false;
        };
        let place = place as usize;
        self.places[slot as usize] = NONE;
        self.heap.swap_remove(place);
        if place < self.heap.len() {
            self.note(place);
            let place = self.sift_up(place);
            self.sift_down(place);
        }
        true
    }

    /// Takes all times away.
    pub fn clear(&mut self) {
        self.heap.clear();
        self.places.fill(NONE);
    }

    fn sift_up(&mut self, mut place: usize) -> usize {
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.heap[parent].0 <= self.heap[place].0 {
                break;
            }
            self.swap(place, parent);
            place = parent;
        }
        place
    }

    fn sift_down(&mut self, mut place: usize) {
        loop {
            let [left, right] = [2 * place + 1, 2 * place + 2];
            let mut earliest = place;
            for child in [left, right] {
                if child < self.heap.len() && self.heap[child].0 < self.heap[earliest].0 {
                    earliest = child;
                }
            }
            if earliest == place {
                return;
            }
            self.swap(place, earliest);
            place = earliest;
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.note(a);
        self.note(b);
    }

    /// Writes down where the slot at this place of the heap now is.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the heap is not longer than SLOTS_MAX"
    )]
    fn note(&mut self, place: usize) {
        let (_, slot) = self.heap[place];
        self.places[slot as usize] = place as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use proptest::prelude::*;

    #[test]
    fn an_index_without_capacity_finds_nothing() {
        let index = Index::new(0);
        assert_eq!(index.find(1, |_| true), None);
        assert!(index.is_empty());
    }

    #[test]
    fn a_full_index_still_ends_its_searches() {
        let mut index = Index::new(4);
        (0..4).for_each(|slot| index.insert(7, slot));
        assert_eq!(index.find(7, |_| false), None);
        assert_eq!(index.find(6, |_| true), None);
        index.clear();
        assert_eq!(index.find(7, |_| true), None);
        assert!(index.is_empty());
    }

    #[test]
    fn due_slots_come_in_order_and_once() {
        let at = Instant::from_nanos;
        let mut order = TimeOrder::new(4);
        order.set(0, at(30));
        order.set(1, at(10));
        order.set(2, at(20));
        order.set(3, at(40));
        order.set(1, at(35));
        assert!(order.remove(2));
        assert!(!order.remove(2));
        assert_eq!(order.get(1), Some(at(35)));
        assert_eq!(order.pop_due(at(29)), None);
        assert_eq!(order.pop_due(at(35)), Some(0));
        assert_eq!(order.pop_due(at(35)), Some(1));
        assert_eq!(order.pop_due(at(35)), None);
        assert_eq!(order.first(), Some((at(40), 3)));
        order.clear();
        assert!(order.is_empty());
        assert_eq!(order.get(3), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        /// Eight hashes in sixteen slots: cells collide, wrap around and move all the time.
        #[test]
        fn index_agrees_with_a_map(
            steps in prop::collection::vec((any::<bool>(), 0u32..16, 0u64..8), 0..200),
            spread in prop_oneof![Just(1u64), Just(31), Just(u64::MAX)],
        ) {
            let mut index = Index::new(16);
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            for (insert, slot, hash) in steps {
                let hash = hash.wrapping_mul(spread);
                match model.get(&slot).copied() {
                    None if insert => {
                        index.insert(hash, slot);
                        model.insert(slot, hash);
                    }
                    None => prop_assert!(!index.remove(hash, slot)),
                    Some(hash) => {
                        prop_assert!(index.remove(hash, slot));
                        model.remove(&slot);
                    }
                }
                prop_assert_eq!(index.len(), model.len());
                for slot in 0..16 {
                    for hash in (0..8u64).map(|hash| hash.wrapping_mul(spread)) {
                        let expected = (model.get(&slot) == Some(&hash)).then_some(slot);
                        prop_assert_eq!(index.find(hash, |found| found == slot), expected);
                    }
                }
            }
        }

        #[test]
        fn time_order_agrees_with_a_map(
            steps in prop::collection::vec((0u8..4, 0u32..12, 0u64..20), 0..300),
        ) {
            let mut order = TimeOrder::new(12);
            let mut model: BTreeMap<u32, Instant> = BTreeMap::new();
            for (step, slot, at) in steps {
                let at = Instant::from_nanos(at);
                match step {
                    0 => prop_assert_eq!(order.remove(slot), model.remove(&slot).is_some()),
                    1 => {
                        let due = order.pop_due(at);
                        let earliest = model.values().min().copied();
                        let time = due.and_then(|slot| model.remove(&slot));
                        prop_assert_eq!(time, earliest.filter(|&earliest| earliest <= at));
                    }
                    _ => {
                        order.set(slot, at);
                        model.insert(slot, at);
                    }
                }
                prop_assert_eq!(order.len(), model.len());
                prop_assert_eq!(order.first().map(|(at, _)| at), model.values().min().copied());
                for slot in 0..14 {
                    prop_assert_eq!(order.get(slot), model.get(&slot).copied());
                }
            }
        }
    }
}
