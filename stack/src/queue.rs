//! A queue in fixed memory, made for batches: filled one by one, emptied at once.
//!
//! ```text
//!   usually          fresh │ 1st  2nd  3rd …  │ ◄── push          emptied from front to back
//!   something left   rest  │ 3rd  4th  5th …  │ ◄── push          taken from the front
//! ```
//!
//! Whoever takes everything walks through an array, which is half the work of wrapping round in a
//! ring. Only when something is left over, or items are taken one by one, do they move to the ring,
//! once, and others follow them there until it is empty.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// See the [module](self). It allocates when it is made, and never again.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    /// Has room for `limit` items while `rest` is empty, and for none while it is not.
    fresh: Vec<T>,
    rest: VecDeque<T>,
    /// What `fresh` gives away while it has no room.
    spare: Vec<T>,
}

impl<T> Queue<T> {
    /// A queue without room.
    pub(crate) const NONE: Self = Self {
        fresh: Vec::new(),
        rest: VecDeque::new(),
        spare: Vec::new(),
    };

    /// Room for `limit` items.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            fresh: Vec::with_capacity(limit),
            rest: VecDeque::with_capacity(limit),
            spare: Vec::new(),
        }
    }

    /// Adds an item, or hands it back when there is no room.
    #[inline]
    pub(crate) fn push(&mut self, item: T) -> Result<(), T> {
        // Nothing here is a call: it would want the item in memory, all the times it is not made too.
        if self.fresh.len() < self.fresh.capacity() {
            self.fresh.push(item);
            Ok(())
        } else if !self.rest.is_empty() && self.rest.len() < self.rest.capacity() {
            self.rest.push_back(item);
            Ok(())
        } else {
            Err(item)
        }
    }

    /// Whether the next [`push`](Self::push) adds its item.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        self.fresh.len() < self.fresh.capacity()
            || (!self.rest.is_empty() && self.rest.len() < self.rest.capacity())
    }

    /// Takes the oldest item.
    pub(crate) fn pop(&mut self) -> Option<T> {
        if self.rest.is_empty() {
            self.rest.extend(self.fresh.drain(..));
        }
        let item = self.rest.pop_front();
        self.make_room();
        item
    }

    /// Gives `fresh` room, or none, as `rest` demands.
    #[inline]
    fn make_room(&mut self) {
        if self.rest.is_empty() == (self.fresh.capacity() == 0) {
            core::mem::swap(&mut self.fresh, &mut self.spare);
        }
    }

    /// Hands all items to `take`, oldest first, until none is left or `take` hands one back.
    #[inline]
    pub(crate) fn take_all(&mut self, mut take: impl FnMut(T) -> Result<(), T>) {
        let mut fresh = self.fresh.drain(..);
        // One loop for both, so that `take` is compiled into one place. One of them is empty.
        let in_rest = !self.rest.is_empty();
        loop {
            let next = if in_rest {
                self.rest.pop_front()
            } else {
                fresh.next()
            };
            let Some(item) = next else { break };
            if let Err(item) = take(item) {
                self.rest.push_front(item);
                self.rest.extend(fresh.by_ref());
                break;
            }
        }
        drop(fresh);
        self.make_room();
    }

    /// How many items wait.
    pub(crate) fn len(&self) -> usize {
        self.rest.len() + self.fresh.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_a_deque(
            limit in 0usize..6,
            steps in proptest::collection::vec(0usize..12, 0..200),
        ) {
            let mut queue = Queue::new(limit);
            let mut oracle = VecDeque::new();
            for (n, step) in steps.into_iter().enumerate() {
                match step {
                    0 => prop_assert_eq!(queue.pop(), oracle.pop_front()),
                    // Takes at most so many.
                    1..6 => {
                        let mut taken = Vec::new();
                        queue.take_all(|item| {
                            if taken.len() == step - 1 {
                                return Err(item);
                            }
                            taken.push(item);
                            Ok(())
                        });
                        let expected: Vec<_> = oracle.drain(..oracle.len().min(step - 1)).collect();
                        prop_assert_eq!(taken, expected);
                    }
                    _ => {
                        let room = oracle.len() < limit;
                        prop_assert_eq!(queue.has_room(), room);
                        prop_assert_eq!(queue.push(n), if room { Ok(()) } else { Err(n) });
                        oracle.extend(room.then_some(n));
                    }
                }
                prop_assert_eq!(queue.len(), oracle.len());
                // Nothing has grown, and the ring is never used beside the array.
                prop_assert_eq!(queue.fresh.capacity() + queue.spare.capacity(), limit);
                prop_assert_eq!(queue.rest.capacity(), limit);
                prop_assert!(queue.fresh.is_empty() || queue.rest.is_empty());
            }
        }
    }

    #[test]
    fn one_without_room_takes_nothing() {
        let mut queue = Queue::NONE;
        assert_eq!(queue.push(1), Err(1));
        assert_eq!((queue.pop(), queue.len()), (None, 0));
    }
}
