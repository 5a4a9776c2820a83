//! Numbers of records that wait for something, each at most once.

use super::table::Id;
use alloc::boxed::Box;
use alloc::vec;

/// A queue of ids below a limit. An id that is in it is not added again, so that it never is longer
/// than there are ids, and never allocates. Takes 5 bytes an id.
#[derive(Debug)]
pub(crate) struct IdQueue {
    /// As many places as there are ids.
    ring: Box<[Id]>,
    /// Of each id, whether it is in the queue. By id and not in the record: a record may be gone, and
    /// another one in its place, while the id still waits.
    waiting: Box<[bool]>,
    /// The place of the one that was added first.
    first: u32,
    len: u32,
}

impl IdQueue {
    /// For the ids 0 to `ids` − 1.
    pub(crate) fn new(ids: usize) -> Self {
        Self {
            ring: vec![0; ids].into_boxed_slice(),
            waiting: vec![false; ids].into_boxed_slice(),
            first: 0,
            len: 0,
        }
    }

    /// Adds an id, unless it is there.
    #[inline(always)]
    pub(crate) fn push(&mut self, id: Id) {
        // An id beyond the limit there is not.
        let Some(waiting @ false) = self.waiting.get_mut(id as usize) else {
            return;
        };
        *waiting = true;
        let mut place = (self.first + self.len) as usize;
        if place >= self.ring.len() {
            place -= self.ring.len();
        }
        self.ring[place] = id;
        self.len += 1;
    }

    /// The one that was added first.
    #[inline]
    pub(crate) fn first(&self) -> Option<Id> {
        if self.len == 0 {
            return None;
        }
        self.ring.get(self.first as usize).copied()
    }

    /// Takes out the one that was added first.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Id> {
        let id = self.first()?;
        self.len -= 1;
        self.first += 1;
        if self.first as usize == self.ring.len() {
            self.first = 0;
        }
        if let Some(waiting) = self.waiting.get_mut(id as usize) {
            *waiting = false;
        }
        Some(id)
    }

    /// How many there are.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there is none.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::VecDeque;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    proptest! {
        /// A queue that refuses what it has.
        #[test]
        fn as_a_queue_without_duplicates(ids in 1usize..9, steps: Vec<(bool, u8)>) {
            let mut queue = IdQueue::new(ids);
            let mut model = VecDeque::new();
            for (push, id) in steps {
                if push {
                    let id = u32::from(id) % u32::try_from(ids).unwrap();
                    queue.push(id);
                    if !model.contains(&id) {
                        model.push_back(id);
                    }
                } else {
                    prop_assert_eq!(queue.first(), model.front().copied());
                    prop_assert_eq!(queue.pop(), model.pop_front());
                }
                prop_assert_eq!((queue.len(), queue.is_empty()), (model.len(), model.is_empty()));
            }
        }
    }

    #[test]
    fn without_ids() {
        let mut queue = IdQueue::new(0);
        queue.push(0);
        assert_eq!(queue.pop(), None);
    }
}
