//! The scoreboard: which of the bytes between SND.UNA and SND.NXT are in flight, which were taken
//! for lost, and which the peer has (RFC 6675 §3, RFC 8985 §5).
//!
//! ```text
//!        SND.UNA                                                        SND.NXT
//!           │  A   │  B   │//////│  C   │  D   │////////////│  E   │  F   │
//!           ▼──────┴──────┴──────┴──────┴──────┴────────────┴──────┴──────▼──► sequence space
//!             lost   sent   SACKed sent   lost     SACKed     sent   sent
//!                    again
//!
//!   by sequence   first ─► A ─► B ─► C ─► D ─► E ─► F ◄─ last      a chain
//!   by time       in flight ─► C ⇄ E ⇄ F ⇄ B ⇄                      a ring, oldest first
//!   by finding    lost ─► A ⇄ D ⇄                                  a ring, sent again in this order
//! ```
//!
//! What was selectively acknowledged needs no record: it is the gap between two records, so a
//! record goes back to the pool as soon as its bytes arrived. In order of time there are only
//! segments that are in flight, which is all that RACK has to look at. SACK blocks are looked up
//! along the chain, among what is *not* yet acknowledged.
//!
//! Bytes between SND.UNA and SND.NXT are `in_flight + lost + SACKed`, and the last is never stored.
//!
//! Without a free record a connection sends one segment and no more until that is acknowledged: the
//! scoreboard is then [`bare`](Scoreboard::bare), and everything outstanding is one thing, in
//! flight or lost.

use super::records::{NONE, Record, RecordPool, Ring};
use crate::tcp::seq::SeqNum;
use crate::time::Instant;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Scoreboard {
    /// The chain in order of sequence numbers.
    first: u32,
    last: u32,
    /// What is in flight, in order of time.
    time: Ring,
    /// What is to be retransmitted.
    lost_ring: Ring,
    /// Bytes (FIN counts as one) in flight: `pipe` of RFC 6675.
    in_flight: u32,
    /// Bytes taken for lost and not sent again.
    lost: u32,
}

/// What left the scoreboard because the peer has it.
pub(super) trait OnDelivered {
    /// A whole segment arrived, as `record` describes it. `selectively`: by SACK.
    fn on_segment(&mut self, record: &Record, selectively: bool);
}

impl Scoreboard {
    pub(super) const EMPTY: Self = Self {
        first: NONE,
        last: NONE,
        time: Ring::EMPTY,
        lost_ring: Ring::EMPTY,
        in_flight: 0,
        lost: 0,
    };

    /// Bytes sent and neither acknowledged nor taken for lost.
    #[inline]
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Bytes taken for lost and not sent again.
    #[inline]
    pub(super) fn lost(&self) -> u32 {
        self.lost
    }

    /// Whether what is outstanding has no records.
    #[inline]
    pub(super) fn bare(&self) -> bool {
        self.first == NONE && self.in_flight + self.lost != 0
    }

    /// Whether exactly one segment is outstanding.
    #[inline]
    pub(super) fn is_single(&self) -> bool {
        self.first == self.last
    }

    /// The record with the lowest sequence numbers.
    #[inline]
    pub(super) fn first(&self) -> u32 {
        self.first
    }

    /// The record with the highest sequence numbers.
    #[inline]
    pub(super) fn last(&self) -> u32 {
        self.last
    }

    /// What to send again first.
    #[inline]
    pub(super) fn first_lost(&self) -> u32 {
        self.lost_ring.first
    }

    /// The oldest transmission in flight.
    #[inline]
    pub(super) fn oldest(&self) -> u32 {
        self.time.first
    }

    /// The transmission in flight after `id`.
    #[inline]
    pub(super) fn later(&self, pool: &RecordPool, id: u32) -> u32 {
        self.time.after(pool, id)
    }

    /// New data was sent, behind all that was sent before. Without a free record, and with nothing
    /// outstanding, becomes bare; the caller sends nothing if something is.
    #[inline]
    pub(super) fn push(&mut self, pool: &mut RecordPool, seq: SeqNum, end: SeqNum, now: Instant) {
        self.in_flight += end.offset_from(seq);
        let Some(id) = pool.take(seq, end, now) else {
            return;
        };
        if self.last == NONE {
            (self.first, self.last, self.time.first) = (id, id, id);
        } else {
            self.push_behind(pool, id);
        }
    }

    #[inline(never)]
    fn push_behind(&mut self, pool: &mut RecordPool, id: u32) {
        pool.get_mut(self.last).next = id;
        self.last = id;
        self.time.push_last(pool, id);
    }

    /// The only record, which is in flight, and arrived: it goes back.
    #[inline]
    pub(super) fn acknowledge_only(&mut self, pool: &mut RecordPool) {
        pool.give(self.first);
        (self.first, self.last, self.time.first) = (NONE, NONE, NONE);
        self.in_flight = 0;
    }

    /// Everything before `ack` arrived.
    #[inline]
    pub(super) fn acknowledge(
        &mut self,
        pool: &mut RecordPool,
        ack: SeqNum,
        delivered: &mut impl OnDelivered,
    ) {
        while self.first != NONE {
            let id = self.first;
            let record = *pool.get(id);
            if record.end.after(ack) {
                if record.seq.before(ack) {
                    self.trim_front(pool, id, ack);
                }
                return;
            }
            delivered.on_segment(&record, false);
            self.forget(pool, NONE, id);
        }
    }

    /// Without records: everything before the new SND.UNA arrived, and `left` bytes are still
    /// outstanding. Those are sent again, segment by segment.
    #[cold]
    pub(super) fn acknowledge_bare(&mut self, left: u32) {
        (self.in_flight, self.lost) = (0, left);
    }

    /// The peer has what is between `left` and `right` (RFC 2018). Returns the bytes it had not
    /// reported before.
    ///
    /// Of a segment of which only the middle arrived nothing is noted: that would take a record
    /// more, and a peer could make us spend one for every other byte.
    pub(super) fn sack(
        &mut self,
        pool: &mut RecordPool,
        left: SeqNum,
        right: SeqNum,
        delivered: &mut impl OnDelivered,
    ) -> u32 {
        let before = self.in_flight + self.lost;
        let mut previous = NONE;
        let mut id = self.first;
        while id != NONE {
            let record = *pool.get(id);
            if record.seq.at_or_after(right) {
                break;
            }
            if record.end.at_or_before(left) {
                previous = id;
            } else if record.seq.at_or_after(left) && record.end.at_or_before(right) {
                delivered.on_segment(&record, true);
                self.forget(pool, previous, id);
            } else {
                if record.seq.at_or_after(left) {
                    self.trim_front(pool, id, right);
                } else if record.end.at_or_before(right) {
                    self.shrink(&record, record.end.offset_from(left));
                    pool.get_mut(id).end = left;
                }
                previous = id;
            }
            id = record.next;
        }
        before - (self.in_flight + self.lost)
    }

    /// `id` was not answered in time.
    pub(super) fn mark_lost(&mut self, pool: &mut RecordPool, id: u32) {
        self.time.remove(pool, id);
        let record = pool.get_mut(id);
        record.lost = true;
        record.partial = false;
        let len = record.len();
        self.in_flight -= len;
        self.lost += len;
        self.link_lost(pool, id);
    }

    /// What fills the hole at the left edge goes first: everything behind waits for it at the peer.
    fn link_lost(&mut self, pool: &mut RecordPool, id: u32) {
        let first = self.lost_ring.first;
        if first != NONE && pool.get(id).seq.before(pool.get(first).seq) {
            self.lost_ring.push_first(pool, id);
        } else {
            self.lost_ring.push_last(pool, id);
        }
    }

    /// Nothing that is in flight was answered in time.
    #[cold]
    pub(super) fn mark_all_lost(&mut self, pool: &mut RecordPool) {
        let mut id = self.first;
        while id != NONE {
            let Record { next, lost, .. } = *pool.get(id);
            if !lost {
                self.mark_lost(pool, id);
            }
            id = next;
        }
    }

    /// What is outstanding without records was not answered in time.
    #[cold]
    pub(super) fn mark_bare_lost(&mut self) {
        self.lost += self.in_flight;
        self.in_flight = 0;
    }

    /// What is outstanding without records was sent again, at least its first segment.
    #[cold]
    pub(super) fn retransmit_bare(&mut self) {
        self.in_flight += self.lost;
        self.lost = 0;
    }

    /// The bytes of `id` from `seq` to `end` were sent again. What is before `seq` or behind `end`
    /// becomes a record of its own as long as there is one, and stays what it was.
    pub(super) fn retransmit(
        &mut self,
        pool: &mut RecordPool,
        id: u32,
        seq: SeqNum,
        end: SeqNum,
        now: Instant,
    ) {
        let mut id = id;
        if pool.get(id).seq.before(seq)
            && let Some(tail) = self.split(pool, id, seq)
        {
            id = tail;
        }
        let whole = !pool.get(id).end.after(end) || self.split(pool, id, end).is_some();
        let Record { lost, .. } = *pool.get(id);
        let record = pool.get_mut(id);
        record.sent = now;
        record.retransmitted = true;
        record.lost = false;
        record.partial = !whole;
        let len = record.len();
        if lost {
            self.lost_ring.remove(pool, id);
            self.lost -= len;
            self.in_flight += len;
        } else {
            self.time.remove(pool, id);
        }
        self.time.push_last(pool, id);
    }

    /// Cuts `id` in two at `at`, and returns the second. None if there is no record for it.
    fn split(&mut self, pool: &mut RecordPool, id: u32, at: SeqNum) -> Option<u32> {
        let record = *pool.get(id);
        let tail = pool.take(at, record.end, record.sent)?;
        let second = pool.get_mut(tail);
        second.next = record.next;
        second.lost = record.lost;
        second.retransmitted = record.retransmitted;
        let first = pool.get_mut(id);
        first.end = at;
        first.next = tail;
        if self.last == id {
            self.last = tail;
        }
        // Behind `id` in its ring. A ring has no end but its first, so behind the last one is
        // before the first.
        let later = pool.get(id).later;
        Ring::link_before(pool, later, tail);
        Some(tail)
    }

    /// Nothing was lost after all: what was taken for lost and not sent again is in flight, as of
    /// when it was sent.
    pub(super) fn unmark_lost(&mut self, pool: &mut RecordPool) {
        if self.first == NONE {
            return self.retransmit_bare();
        }
        // Both rings are in order of time, this one but for exceptions, so one walk does mostly.
        let mut place = self.time.first;
        let mut last = Instant::ZERO;
        while self.lost_ring.first != NONE {
            let id = self.lost_ring.first;
            self.lost_ring.remove(pool, id);
            let record = pool.get_mut(id);
            record.lost = false;
            let (sent, len) = (record.sent, record.len());
            self.lost -= len;
            self.in_flight += len;
            if sent < last {
                place = self.time.first;
            }
            last = sent;
            while place != NONE && pool.get(place).sent <= sent {
                place = self.time.after(pool, place);
            }
            if place == NONE {
                self.time.push_last(pool, id);
            } else if place == self.time.first {
                self.time.push_first(pool, id);
            } else {
                Ring::link_before(pool, place, id);
            }
        }
    }

    /// Whether the peer reported bytes at SND.UNA, which it does not acknowledge: it threw away
    /// what it had (RFC 2018 §8).
    pub(super) fn is_reneged(&self, pool: &RecordPool, una: SeqNum) -> bool {
        match self.first {
            NONE => self.in_flight + self.lost == 0,
            first => pool.get(first).seq.after(una),
        }
    }

    /// Forgets all that was selectively acknowledged: all between `una` and `next` is lost
    /// (RFC 2018 §8).
    #[cold]
    pub(super) fn renege(&mut self, pool: &mut RecordPool, una: SeqNum, next: SeqNum) {
        self.clear(pool);
        self.lost = next.offset_from(una);
        let Some(id) = pool.take(una, next, Instant::ZERO) else {
            return;
        };
        let record = pool.get_mut(id);
        record.lost = true;
        record.retransmitted = true;
        (self.first, self.last) = (id, id);
        self.lost_ring.push_last(pool, id);
    }

    /// Gives all records back.
    pub(super) fn clear(&mut self, pool: &mut RecordPool) {
        while self.first != NONE {
            let id = self.first;
            self.first = pool.get(id).next;
            pool.give(id);
        }
        *self = Self::EMPTY;
    }

    /// Takes `id`, which is behind `previous` in the chain, out of everything.
    #[inline]
    fn forget(&mut self, pool: &mut RecordPool, previous: u32, id: u32) {
        let Record { next, lost, .. } = *pool.get(id);
        let len = pool.get(id).len();
        if lost {
            self.lost_ring.remove(pool, id);
            self.lost -= len;
        } else {
            self.time.remove(pool, id);
            self.in_flight -= len;
        }
        if previous == NONE {
            self.first = next;
        } else {
            pool.get_mut(previous).next = next;
        }
        if self.last == id {
            self.last = previous;
        }
        pool.give(id);
    }

    /// The first bytes of `id`, up to `to`, arrived.
    fn trim_front(&mut self, pool: &mut RecordPool, id: u32, to: SeqNum) {
        let record = *pool.get(id);
        self.shrink(&record, to.offset_from(record.seq));
        pool.get_mut(id).seq = to;
        if record.partial {
            // The rest was not sent again with them.
            self.mark_lost(pool, id);
        }
    }

    fn shrink(&mut self, record: &Record, by: u32) {
        if record.lost {
            self.lost -= by;
        } else {
            self.in_flight -= by;
        }
    }

    /// Checks all that the rest relies on.
    #[cfg(test)]
    pub(super) fn check(&self, pool: &RecordPool, una: SeqNum, next: SeqNum) {
        let (mut in_flight, mut lost, mut records) = (0, 0, 0);
        let mut edge = una;
        let mut last = NONE;
        let mut id = self.first;
        while id != NONE {
            let record = pool.get(id);
            assert!(record.seq.at_or_after(edge), "in order");
            assert!(record.end.after(record.seq), "not empty");
            edge = record.end;
            *if record.lost {
                &mut lost
            } else {
                &mut in_flight
            } += record.len();
            records += 1;
            (last, id) = (id, record.next);
        }
        assert!(edge.at_or_before(next));
        assert_eq!(self.last, last);
        let (mut found, mut id, mut sent) = (0, self.time.first, Instant::ZERO);
        while id != NONE {
            assert!(!pool.get(id).lost);
            assert!(pool.get(id).sent >= sent, "in order of time");
            sent = pool.get(id).sent;
            found += 1;
            id = self.time.after(pool, id);
        }
        id = self.lost_ring.first;
        while id != NONE {
            assert!(pool.get(id).lost);
            found += 1;
            id = self.lost_ring.after(pool, id);
        }
        assert_eq!(found, records, "each record is in one ring");
        if self.bare() {
            assert_eq!(self.in_flight + self.lost, next.offset_from(una));
        } else {
            assert_eq!((self.in_flight, self.lost), (in_flight, lost));
        }
    }
}
