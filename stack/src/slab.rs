//! Records in numbered slots, with handles that know when their record is gone.

use alloc::vec::Vec;
use core::fmt;

/// No slot: the end of a list of free ones.
const NONE: u32 = u32::MAX;

/// Names one record of one [`Slab`] for ever: a slot that is used again has another generation.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Handle {
    /// The slot.
    pub slot: u32,
    generation: u32,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot, self.generation)
    }
}

/// At most `capacity` records. Room for all of them is asked for when it is made, and touched only as
/// far as it was ever used.
#[derive(Debug)]
pub struct Slab<T> {
    slots: Vec<Slot<T>>,
    capacity: usize,
    free: u32,
    len: usize,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    content: Content<T>,
}

#[derive(Debug)]
enum Content<T> {
    Vacant { next: u32 },
    Occupied(T),
}

impl<T> Slab<T> {
    /// For at most `capacity` records.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.min(crate::table::SLOTS_MAX);
        Self {
            slots: Vec::with_capacity(capacity),
            capacity,
            free: NONE,
            len: 0,
        }
    }

    /// How many there are.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether there is no room for another.
    #[inline]
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.len == self.capacity
    }

    /// How many there can be.
    #[inline]
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Adds a record; hands it back if there is no room.
    ///
    /// # Errors
    /// The record.
    pub fn insert(&mut self, record: T) -> Result<Handle, T> {
        if self.free != NONE {
            let index = self.free;
            let slot = &mut self.slots[index as usize];
            if let Content::Vacant { next } = slot.content {
                self.free = next;
            }
            slot.content = Content::Occupied(record);
            self.len += 1;
            return Ok(Handle {
                slot: index,
                generation: slot.generation,
            });
        }
        if self.slots.len() == self.capacity {
            return Err(record);
        }
        #[expect(clippy::cast_possible_truncation, reason = "at most SLOTS_MAX")]
        let index = self.slots.len() as u32;
        self.slots.push(Slot {
            generation: 0,
            content: Content::Occupied(record),
        });
        self.len += 1;
        Ok(Handle {
            slot: index,
            generation: 0,
        })
    }

    /// The record of a handle, if it is still there.
    #[inline]
    #[must_use]
    pub fn get(&self, handle: Handle) -> Option<&T> {
        match self.slots.get(handle.slot as usize)? {
            Slot {
                generation,
                content: Content::Occupied(record),
            } if *generation == handle.generation => Some(record),
            _ => None,
        }
    }

    /// The record of a handle, if it is still there.
    #[inline]
    pub fn get_mut(&mut self, handle: Handle) -> Option<&mut T> {
        match self.slots.get_mut(handle.slot as usize)? {
            Slot {
                generation,
                content: Content::Occupied(record),
            } if *generation == handle.generation => Some(record),
            _ => None,
        }
    }

    /// The record in a slot, whatever its generation.
    #[inline]
    #[must_use]
    pub fn at(&self, slot: u32) -> Option<&T> {
        match &self.slots.get(slot as usize)?.content {
            Content::Occupied(record) => Some(record),
            Content::Vacant { .. } => None,
        }
    }

    /// The record in a slot, whatever its generation.
    #[inline]
    pub fn at_mut(&mut self, slot: u32) -> Option<&mut T> {
        match &mut self.slots.get_mut(slot as usize)?.content {
            Content::Occupied(record) => Some(record),
            Content::Vacant { .. } => None,
        }
    }

    /// The handle of the record in a slot.
    #[inline]
    #[must_use]
    pub fn handle(&self, slot: u32) -> Option<Handle> {
        let Slot {
            generation,
            content,
        } = self.slots.get(slot as usize)?;
        matches!(content, Content::Occupied(_)).then_some(Handle {
            slot,
            generation: *generation,
        })
    }

    /// Takes the record out of a slot.
    pub fn remove(&mut self, slot: u32) -> Option<T> {
        let entry = self.slots.get_mut(slot as usize)?;
        if let Content::Vacant { .. } = entry.content {
            return None;
        }
        let vacant = Content::Vacant { next: self.free };
        let Content::Occupied(record) = core::mem::replace(&mut entry.content, vacant) else {
            return None;
        };
        // After 2³² uses of one slot an old handle would name a new record; at a million connections
        // a second through one slot that takes over an hour, and nobody keeps a handle so long.
        entry.generation = entry.generation.wrapping_add(1);
        self.free = slot;
        self.len -= 1;
        Some(record)
    }

    /// Slots that were ever used: all records are below.
    #[must_use]
    pub fn extent(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    /// All records with their slots.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..).zip(&self.slots).filter_map(|(slot, entry)| {
            let Content::Occupied(record) = &entry.content else {
                return None;
            };
            Some((slot, record))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use proptest::prelude::*;

    proptest! {
        /// Like a map of which at most four keys are there at once; old handles find nothing.
        #[test]
        fn a_slab_is_a_bounded_map(steps in prop::collection::vec((any::<bool>(), 0..6_u32), 0..60)) {
            let mut slab = Slab::new(4);
            let mut map = BTreeMap::new();
            let mut gone: Vec<Handle> = Vec::new();
            for (index, (add, slot)) in steps.into_iter().enumerate() {
                if add {
                    match slab.insert(index) {
                        Ok(handle) => { prop_assert!(map.insert(handle.slot, (handle, index)).is_none()); }
                        Err(back) => { prop_assert_eq!((back, map.len()), (index, 4)); }
                    }
                } else {
                    let removed = map.remove(&slot);
                    prop_assert_eq!(slab.remove(slot), removed.map(|(_, value)| value));
                    gone.extend(removed.map(|(handle, _)| handle));
                }
                prop_assert_eq!((slab.len(), slab.is_full()), (map.len(), map.len() == 4));
                for (slot, (handle, value)) in &map {
                    prop_assert_eq!((slab.get(*handle), slab.at(*slot)), (Some(value), Some(value)));
                    prop_assert_eq!(slab.handle(*slot), Some(*handle));
                }
                for handle in &gone {
                    prop_assert_eq!(slab.get(*handle), None);
                }
                prop_assert_eq!(slab.iter().count(), map.len());
            }
        }
    }
}
