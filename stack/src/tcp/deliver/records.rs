//! Transmission records: what the sender knows about each segment it has sent and that is neither
//! acknowledged nor selectively acknowledged yet (RFC 8985 §5.1).
//!
//! All connections of a worker share one pool, so that a connection with nothing under way holds
//! no record. A record is 32 bytes, two to a cache line, and stands in two lists: in order of
//! sequence numbers, and in order of time (or, once it was taken for lost, in the list of what is
//! to be retransmitted). The lists live in the records; see [`scoreboard`](super::scoreboard).

use crate::tcp::seq::SeqNum;
use crate::time::Instant;
use alloc::vec::Vec;

/// No record.
pub(super) const NONE: u32 = u32::MAX;

/// The most records of a pool: leaves room for [`NONE`].
pub(super) const RECORDS_MAX: u32 = 1 << 30;

/// One segment, as it was sent last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    /// Its first sequence number.
    pub(super) seq: SeqNum,
    /// The sequence number behind its last; includes FIN.
    pub(super) end: SeqNum,
    /// When it was sent last.
    pub(super) sent: Instant,
    /// Neighbours in a ring: the one sent before (or taken for lost before) this one …
    pub(super) earlier: u32,
    /// … and the one after it.
    pub(super) later: u32,
    /// The next in order of sequence numbers; in a free record the next free one.
    pub(super) next: u32,
    /// It was taken for lost and waits to be sent again.
    pub(super) lost: bool,
    /// It was sent more than once.
    pub(super) retransmitted: bool,
    /// Only its first bytes were sent again: there was no record for the others.
    pub(super) partial: bool,
}

const _: () = assert!(size_of::<Record>() == 32);

impl Record {
    const FREE: Self = Self {
        seq: SeqNum::new(0),
        end: SeqNum::new(0),
        sent: Instant::ZERO,
        earlier: NONE,
        later: NONE,
        next: NONE,
        lost: false,
        retransmitted: false,
        partial: false,
    };

    /// How much of the sequence space it takes.
    #[inline]
    pub(super) fn len(&self) -> u32 {
        self.end.offset_from(self.seq)
    }
}

/// A fixed number of records.
#[derive(Debug)]
pub(super) struct RecordPool {
    records: Vec<Record>,
    first_free: u32,
    free: u32,
}

impl RecordPool {
    /// Of `records` (at most [`RECORDS_MAX`]), 32 bytes each. One is needed for each segment under
    /// way; with none free a connection still sends one segment at a time.
    pub(super) fn new(records: u32) -> Self {
        let count = records.min(RECORDS_MAX);
        let chain = (1..=count).map(|next| Record {
            next: if next < count { next } else { NONE },
            ..Record::FREE
        });
        Self {
            records: chain.collect(),
            first_free: if count == 0 { NONE } else { 0 },
            free: count,
        }
    }

    /// How many nobody holds.
    #[inline]
    pub(super) fn free(&self) -> u32 {
        self.free
    }

    /// Whether [`take`](Self::take) would give one.
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.first_free != NONE
    }

    /// A record in no list; the most recently returned one, which is likely in the cache.
    #[inline]
    pub(super) fn take(&mut self, seq: SeqNum, end: SeqNum, sent: Instant) -> Option<u32> {
        let id = self.first_free;
        let record = self.records.get_mut(id as usize)?;
        self.first_free = record.next;
        self.free -= 1;
        *record = Record {
            seq,
            end,
            sent,
            earlier: id,
            later: id,
            next: NONE,
            lost: false,
            retransmitted: false,
            partial: false,
        };
        Some(id)
    }

    /// Takes back a record that is in no list any more.
    #[inline]
    pub(super) fn give(&mut self, id: u32) {
        self.get_mut(id).next = self.first_free;
        self.first_free = id;
        self.free += 1;
    }

    /// The record `id`, which the caller holds.
    #[inline]
    pub(super) fn get(&self, id: u32) -> &Record {
        &self.records[id as usize]
    }

    /// The record `id`, which the caller holds.
    #[inline]
    pub(super) fn get_mut(&mut self, id: u32) -> &mut Record {
        &mut self.records[id as usize]
    }
}

/// A ring of records through [`Record::earlier`] and [`Record::later`], by its first one. The last
/// is the one before the first, so that a list costs a connection four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ring {
    pub(super) first: u32,
}

impl Ring {
    pub(super) const EMPTY: Ring = Ring { first: NONE };

    /// Puts `id`, which is in no ring, behind the last.
    #[inline]
    pub(super) fn push_last(&mut self, pool: &mut RecordPool, id: u32) {
        if self.first == NONE {
            let record = pool.get_mut(id);
            (record.earlier, record.later) = (id, id);
            self.first = id;
        } else {
            Self::link_before(pool, self.first, id);
        }
    }

    /// Puts `id`, which is in no ring, before the first.
    #[inline]
    pub(super) fn push_first(&mut self, pool: &mut RecordPool, id: u32) {
        self.push_last(pool, id);
        self.first = id;
    }

    /// Puts `id`, which is in no ring, before `place`, which is in this one and not its first.
    #[inline]
    pub(super) fn link_before(pool: &mut RecordPool, place: u32, id: u32) {
        let before = pool.get(place).earlier;
        pool.get_mut(before).later = id;
        pool.get_mut(place).earlier = id;
        let record = pool.get_mut(id);
        (record.earlier, record.later) = (before, place);
    }

    /// Takes `id`, which is in this ring, out of it.
    #[inline]
    pub(super) fn remove(&mut self, pool: &mut RecordPool, id: u32) {
        let Record { earlier, later, .. } = *pool.get(id);
        if later == id {
            self.first = NONE;
            return;
        }
        pool.get_mut(earlier).later = later;
        pool.get_mut(later).earlier = earlier;
        if self.first == id {
            self.first = later;
        }
    }

    /// The one after `id`, unless that is the last.
    #[inline]
    pub(super) fn after(self, pool: &RecordPool, id: u32) -> u32 {
        let later = pool.get(id).later;
        if later == self.first { NONE } else { later }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::VecDeque;
    use proptest::prelude::*;

    fn take(pool: &mut RecordPool) -> Option<u32> {
        pool.take(SeqNum::new(1), SeqNum::new(2), Instant::ZERO)
    }

    #[test]
    fn a_pool_gives_each_record_once() {
        let mut pool = RecordPool::new(3);
        let mut all: Vec<u32> = (0..3).map(|_| take(&mut pool).unwrap()).collect();
        assert_eq!((take(&mut pool), pool.free()), (None, 0));
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2]);
        pool.give(1);
        assert_eq!(take(&mut pool), Some(1));
        assert_eq!(take(&mut RecordPool::new(0)), None);
    }

    proptest! {
        #[test]
        fn a_ring_agrees_with_a_queue(steps in prop::collection::vec((0u8..4, 0usize..8), 0..100)) {
            let mut pool = RecordPool::new(8);
            let mut ring = Ring::EMPTY;
            let mut model: VecDeque<u32> = VecDeque::new();
            for (step, at) in steps {
                match step {
                    0 => if let Some(id) = take(&mut pool) {
                        ring.push_last(&mut pool, id);
                        model.push_back(id);
                    },
                    1 => if let Some(id) = take(&mut pool) {
                        ring.push_first(&mut pool, id);
                        model.push_front(id);
                    },
                    2 if at > 0 && at < model.len() => if let Some(id) = take(&mut pool) {
                        Ring::link_before(&mut pool, model[at], id);
                        model.insert(at, id);
                    },
                    _ => if let Some(id) = model.remove(at) {
                        ring.remove(&mut pool, id);
                        pool.give(id);
                    },
                }
                let mut found = Vec::new();
                let mut id = ring.first;
                while id != NONE {
                    found.push(id);
                    id = ring.after(&pool, id);
                }
                prop_assert_eq!(&found, &Vec::from(model.clone()));
                    prop_assert_eq!(pool.free(), 8 - u32::try_from(model.len()).unwrap());
            }
        }
    }
}
