//! The receiving half of reliable delivery: what is in order waits to be read, what came out of
//! order waits for what is missing (RFC 9293 §3.10.7.4), and the sender is told which is which
//! (SACK, RFC 2018; duplicates: D-SACK, RFC 2883).
//!
//! ```text
//!        read already     waits to be read      missing     out of order     missing
//!     ──────────────────┼▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒┼─────────────▒▒▒▒▒▒▒▒▒▒▒▒▒▒─────────────►
//!                       │     ByteQueue      │             left       right
//!                       └── readable() ──────┘             └─── Range ───┘
//!                                          RCV.NXT = next()
//! ```
//!
//! A byte that was received is never replaced by another one with the same number. A hole that is
//! filled joins what is behind it by links, without copying it.
//!
//! **When memory gets short**, data in order goes first. Data out of order is taken only as long
//! as an eighth of the pool is free; and if data in order finds nothing free, what its own
//! connection has out of order is given up for it, from the far end (RFC 2018 §8 permits it: the
//! sender keeps everything until it is acknowledged by number). If there is none, it is refused,
//! by name, and the sender sends it again. RCV.NXT never goes past a byte that is not kept.

mod ranges;

use self::ranges::{NONE, Range, RangePool};
use crate::tcp::buffer::{ByteQueue, CHUNK_BYTES, ChunkPool, QUEUE_BYTES_MAX};
use crate::tcp::options::{SACK_BLOCKS_MAX, SackBlock, SackBlocks};
use crate::tcp::seq::SeqNum;

/// Most ranges out of order of one connection. A sender with a window of hundreds of segments and
/// 3 % loss has about this many; looking for the right one takes a step for each, so that with
/// more of them somebody who sends every second byte would cost more.
pub const RANGES_MAX: u8 = 32;

/// Data out of order leaves this part of the chunks free for data in order: of eight, one. Less
/// would not last for the connections that go on; more would give holes less than they need.
const SPARED_PART: u32 = 8;

/// What a shortage of memory has cost, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shortages {
    /// Bytes in order that were refused because no chunk was free.
    pub in_order_bytes: u64,
    /// Bytes out of order that were refused because too few chunks or ranges were free.
    pub out_of_order_bytes: u64,
    /// Bytes that were refused because the connection had [`RANGES_MAX`] ranges.
    pub ranges_bytes: u64,
    /// Bytes out of order that were taken, and given up for data in order later.
    pub given_up_bytes: u64,
}

/// The memory of all receivers.
#[derive(Debug)]
pub struct ReceivePools {
    chunks: ChunkPool,
    ranges: RangePool,
    shortages: Shortages,
}

impl ReceivePools {
    /// Room for `chunks` chunks of [`CHUNK_BYTES`], and for `ranges` ranges of data out of order
    /// (32 bytes each), all of it allocated now.
    #[must_use]
    pub fn new(chunks: u32, ranges: u32) -> Self {
        Self {
            chunks: ChunkPool::new(chunks),
            ranges: RangePool::new(ranges),
            shortages: Shortages::default(),
        }
    }

    /// Chunks that are free.
    #[must_use]
    pub fn free_chunks(&self) -> u32 {
        self.chunks.free()
    }

    /// Ranges that are free.
    #[must_use]
    pub fn free_ranges(&self) -> u32 {
        self.ranges.free()
    }

    /// What was refused or given up.
    #[must_use]
    pub fn shortages(&self) -> Shortages {
        self.shortages
    }

    /// Chunks that data out of order must leave free.
    fn spared(&self) -> u32 {
        self.chunks.count().div_ceil(SPARED_PART)
    }
}

/// What became of a segment's payload and FIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Received {
    /// It was the next one.
    InOrder {
        /// How far RCV.NXT went on, without a FIN: what can be read now and could not before. If
        /// chunks ran out, it is less than was sent. If data out of order followed, it is more.
        bytes: u32,
        /// Data out of order was there when it came: it filled a hole, or a part of one, and is
        /// to be acknowledged at once (RFC 5681 §4.2).
        hole: bool,
        /// The FIN was reached, by this or an earlier segment: nothing follows. Said once.
        finished: bool,
    },
    /// Something before it is missing; it was kept (or the first part of it). To be acknowledged at
    /// once (RFC 5681 §4.2), as are all the following.
    OutOfOrder,
    /// All of it was there already.
    Duplicate,
    /// Nothing of it was kept, because memory is short.
    NoMemory,
    /// Nothing of it was kept, because there are [`RANGES_MAX`] ranges and it would be one more.
    TooManyRanges,
    /// It is behind the FIN (RFC 9293 §3.10.7.4, eighth check: it should not occur).
    BehindFin,
}

/// What one connection has received. What is dropped without [`clear`](Self::clear) is lost to the
/// pools.
#[derive(Debug)]
pub struct Receiver {
    /// RCV.NXT.
    next: SeqNum,
    /// In order, not read yet.
    queue: ByteQueue,
    /// The first range out of order.
    first: u32,
    /// What the next acknowledgement reports as received twice; empty if both are equal.
    duplicate: SackBlock,
    /// The number of the FIN, if one came.
    fin: SeqNum,
    /// How many ranges there are.
    ranges: u8,
    fin_came: bool,
    /// RCV.NXT is behind the FIN.
    finished: bool,
    /// There are ranges, or a FIN came: what follows needs more than putting it into the queue.
    special: bool,
}

const _: () = assert!(size_of::<Receiver>() <= 40);

impl Receiver {
    /// Expects `next` as the first byte: the number behind the peer's SYN.
    #[must_use]
    pub const fn new(next: SeqNum) -> Self {
        Self {
            next,
            queue: ByteQueue::EMPTY,
            first: NONE,
            duplicate: SackBlock {
                left: next,
                right: next,
            },
            fin: next,
            ranges: 0,
            fin_came: false,
            finished: false,
            special: false,
        }
    }

    /// RCV.NXT: everything before it was received, and it is what an acknowledgement says.
    #[inline]
    #[must_use]
    pub fn next(&self) -> SeqNum {
        self.next
    }

    /// Bytes that can be read.
    #[inline]
    #[must_use]
    pub fn readable(&self) -> u32 {
        self.queue.len()
    }

    /// Whether the peer's FIN was reached; there may still be bytes to read.
    #[inline]
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Whether something is missing before what was received.
    #[inline]
    #[must_use]
    pub fn has_hole(&self) -> bool {
        self.first != NONE
    }

    /// Bytes that came out of order.
    #[must_use]
    pub fn out_of_order(&self, pools: &ReceivePools) -> u32 {
        let ranges = pools.ranges.iter(self.first);
        ranges.map(|range| range.queue.len()).sum()
    }

    /// The first readable bytes, as far as they lie together; empty if there are none.
    #[inline]
    #[must_use]
    pub fn front<'a>(&self, pools: &'a ReceivePools) -> &'a [u8] {
        self.queue.front(&pools.chunks)
    }

    /// Removes up to `count` readable bytes; returns how many.
    #[inline]
    pub fn consume(&mut self, pools: &mut ReceivePools, count: u32) -> u32 {
        self.queue.consume(&mut pools.chunks, count)
    }

    /// Moves readable bytes to `out`; returns how many.
    pub fn read(&mut self, pools: &mut ReceivePools, out: &mut [u8]) -> usize {
        self.queue.read(&mut pools.chunks, out)
    }

    /// Takes the payload and the FIN of a segment that begins with `seq`. What is behind the right
    /// edge of the window the caller has cut off, with the FIN; what was received before may be in
    /// it, and a segment that is nothing but that is to be passed as well, since it is reported.
    #[inline]
    pub fn receive(
        &mut self,
        pools: &mut ReceivePools,
        seq: SeqNum,
        payload: &[u8],
        fin: bool,
    ) -> Received {
        if seq == self.next && !self.special && !fin {
            let kept = self.queue.push_back(&mut pools.chunks, payload);
            self.next += len32(kept);
            if kept == payload.len() {
                return Received::InOrder {
                    bytes: len32(kept),
                    hole: false,
                    finished: false,
                };
            }
            return refused_in_order(pools, kept, payload.len() - kept);
        }
        self.receive_special(pools, seq, payload, fin)
    }

    /// Whether the payload of a segment that begins with `seq` may be read where it is, in the
    /// frame: it is the next one, and nothing before it waits to be read. Who has read some of it
    /// calls [`receive_in_place`](Self::receive_in_place) instead of [`receive`](Self::receive).
    #[inline]
    #[must_use]
    pub fn can_read_in_place(&self, seq: SeqNum) -> bool {
        seq == self.next && !self.special && self.queue.is_empty()
    }

    /// [`receive`](Self::receive) of a payload whose first `read` bytes were read in the frame; only
    /// the rest is copied. [`can_read_in_place`](Self::can_read_in_place) must have been true, and
    /// nothing received since. `bytes` of the answer counts what was read. No memory is needed if
    /// everything was read, and what was read cannot be refused.
    #[inline]
    pub fn receive_in_place(
        &mut self,
        pools: &mut ReceivePools,
        payload: &[u8],
        read: usize,
        fin: bool,
    ) -> Received {
        debug_assert!(self.can_read_in_place(self.next), "misuse: not in place");
        let (read, rest) = payload.split_at(read.min(payload.len()));
        self.next += len32(read.len());
        let read = len32(read.len());
        if rest.is_empty() && !fin {
            return Received::InOrder {
                bytes: read,
                hole: false,
                finished: false,
            };
        }
        match self.receive(pools, self.next, rest, fin) {
            Received::InOrder {
                bytes,
                hole,
                finished,
            } => Received::InOrder {
                bytes: bytes + read,
                hole,
                finished,
            },
            _ if read > 0 => Received::InOrder {
                bytes: read,
                hole: false,
                finished: false,
            },
            refused => refused,
        }
    }

    /// Whether nothing came out of order and no FIN: what is next goes straight into the queue.
    #[inline]
    #[must_use]
    pub fn is_plain(&self) -> bool {
        !self.special
    }

    /// [`receive`](Self::receive) of the next bytes, without FIN, which fit into a chunk, where
    /// [`is_plain`](Self::is_plain) holds and a chunk is free: all of them are kept. Returns how many.
    #[inline]
    pub fn receive_plain(&mut self, pools: &mut ReceivePools, payload: &[u8]) -> u32 {
        debug_assert!(self.is_plain(), "misuse: not plain");
        let kept = self.queue.push_back(&mut pools.chunks, payload);
        debug_assert_eq!(kept, payload.len(), "invariant: there is a chunk for them");
        let kept = len32(kept);
        self.next += kept;
        kept
    }

    /// Whether an acknowledgement has something to say by SACK.
    #[inline]
    #[must_use]
    pub fn has_sack(&self) -> bool {
        self.first != NONE || self.duplicate.left != self.duplicate.right
    }

    /// The SACK blocks of an acknowledgement that is sent now, at most `max`: a duplicate, which is
    /// reported this once, then the ranges out of order, those first in which a segment came last.
    pub fn sack_blocks(&mut self, pools: &ReceivePools, max: usize) -> SackBlocks {
        let mut blocks = SackBlocks::EMPTY;
        let max = max.min(SACK_BLOCKS_MAX);
        let duplicate = core::mem::replace(
            &mut self.duplicate,
            SackBlock {
                left: self.next,
                right: self.next,
            },
        );
        if max == 0 {
            return blocks;
        }
        // RFC 2883 §4: first the duplicate, in one acknowledgement only, ...
        let reported = blocks.push(duplicate.left, duplicate.right);
        // ... and if it is part of a block above the acknowledgement number, that block next.
        let around = |range: &Range| {
            reported
                && duplicate.left.at_or_after(range.left)
                && duplicate.right.at_or_before(range.right())
        };
        // RFC 2018 §4: the block with the segment that came last is the first one, and the others
        // follow in the order in which they were the first one: blocks are repeated as long as
        // there is room, so that the loss of an acknowledgement does no harm.
        let mut latest: [Option<(u64, &Range)>; SACK_BLOCKS_MAX] = [None; SACK_BLOCKS_MAX];
        for range in pools.ranges.iter(self.first) {
            let rank = if around(range) {
                u64::MAX
            } else {
                range.touched
            };
            let mut moving = Some((rank, range));
            for place in &mut latest {
                if place.is_none_or(|(other, _)| moving.is_some_and(|(rank, _)| rank > other)) {
                    core::mem::swap(place, &mut moving);
                }
            }
        }
        for (_, range) in latest.into_iter().flatten() {
            if blocks.len() == max {
                break;
            }
            let right = range.right();
            // The FIN has a number too, and came.
            let fin = u32::from(self.fin_came && right == self.fin);
            blocks.push(range.left, right + fin);
        }
        blocks
    }

    /// Gives everything back that is kept, read or not; RCV.NXT stays.
    pub fn clear(&mut self, pools: &mut ReceivePools) {
        self.queue.clear(&mut pools.chunks);
        while let Some((mut queue, next)) = pools.ranges.give(self.first) {
            queue.clear(&mut pools.chunks);
            self.first = next;
        }
        self.ranges = 0;
        self.special = self.fin_came;
    }

    /// [`receive`](Self::receive) in all cases.
    #[cold]
    fn receive_special(
        &mut self,
        pools: &mut ReceivePools,
        seq: SeqNum,
        payload: &[u8],
        fin: bool,
    ) -> Received {
        let len = len32(payload.len());
        // SEG.LEN without SYN: the FIN has a number of its own (RFC 9293 §3.4).
        let segment_len = len + u32::from(fin);
        let mut duplicate = None;
        let mut seq = seq;
        let mut payload = payload;
        if seq.before(self.next) {
            let old = segment_len.min(self.next.offset_from(seq));
            note(&mut duplicate, seq, old);
            if old == segment_len {
                self.report(duplicate);
                return Received::Duplicate;
            }
            // Not more than the payload: the FIN is new.
            payload = &payload[old as usize..];
            seq += old;
        }
        match self.cut_at_fin(pools, seq, payload, fin) {
            Some(rest) => payload = rest,
            None => {
                self.report(duplicate);
                return Received::BehindFin;
            }
        }
        let received = if seq == self.next {
            self.receive_in_order(pools, payload, &mut duplicate)
        } else if payload.is_empty() {
            // A FIN alone: it is remembered, but there is nothing to report as a block.
            Received::OutOfOrder
        } else {
            self.receive_out_of_order(pools, seq, payload, &mut duplicate)
        };
        self.report(duplicate);
        self.special = self.first != NONE || self.fin_came;
        received
    }

    /// Remembers a FIN, and returns what of `payload` is before the one that is known; `None` if
    /// nothing of the segment is.
    fn cut_at_fin<'a>(
        &mut self,
        pools: &ReceivePools,
        seq: SeqNum,
        payload: &'a [u8],
        fin: bool,
    ) -> Option<&'a [u8]> {
        let end = seq + len32(payload.len());
        if self.fin_came {
            if self.finished || seq.after(self.fin) {
                return None;
            }
            let before = self.fin.offset_from(seq) as usize;
            let payload = &payload[..payload.len().min(before)];
            let same_fin = fin && end == self.fin;
            return (!payload.is_empty() || same_fin).then_some(payload);
        }
        // A FIN that contradicts data that was received is not one.
        let last = pools.ranges.iter(self.first).last();
        if fin && last.is_none_or(|last| last.right().at_or_before(end)) {
            self.fin = end;
            self.fin_came = true;
        }
        Some(payload)
    }

    /// Takes what begins with RCV.NXT.
    fn receive_in_order(
        &mut self,
        pools: &mut ReceivePools,
        payload: &[u8],
        duplicate: &mut Option<SackBlock>,
    ) -> Received {
        let start = self.next;
        let hole = self.has_hole();
        let mut rest = payload;
        loop {
            let left = pools.ranges.get(self.first).map(|range| range.left);
            if left == Some(self.next)
                && let Some((queue, next)) = pools.ranges.give(self.first)
            {
                // The hole is filled: what is behind it is in order now.
                self.first = next;
                self.ranges -= 1;
                let len = queue.len();
                let again = rest.len().min(len as usize);
                note(duplicate, self.next, len32(again));
                rest = &rest[again..];
                self.queue.append(&mut pools.chunks, queue);
                self.next += len;
                continue;
            }
            let missing = left.map_or(usize::MAX, |left| left.offset_from(self.next) as usize);
            let piece = &rest[..rest.len().min(missing)];
            if piece.is_empty() {
                break;
            }
            let kept = self.queue.push_back(&mut pools.chunks, piece);
            self.next += len32(kept);
            rest = &rest[kept..];
            if kept < piece.len() && !(pools.chunks.free() == 0 && self.give_up(pools)) {
                break;
            }
        }
        let finished = self.fin_came && self.next == self.fin;
        let bytes = self.next.offset_from(start);
        if finished {
            self.next += 1;
            self.finished = true;
        }
        pools.shortages.in_order_bytes += rest.len() as u64;
        if bytes == 0 && !rest.is_empty() {
            return Received::NoMemory;
        }
        Received::InOrder {
            bytes,
            hole,
            finished,
        }
    }

    /// Keeps what does not begin with RCV.NXT, but behind it.
    fn receive_out_of_order(
        &mut self,
        pools: &mut ReceivePools,
        seq: SeqNum,
        payload: &[u8],
        duplicate: &mut Option<SackBlock>,
    ) -> Received {
        let end = seq + len32(payload.len());
        let spared = pools.spared();
        // All of it must fit into the queue once the holes are filled.
        if u64::from(end.offset_from(self.next)) + u64::from(self.queue.len())
            > u64::from(QUEUE_BYTES_MAX)
        {
            pools.shortages.out_of_order_bytes += payload.len() as u64;
            return Received::NoMemory;
        }
        // The last range that begins before the segment or with it, and the one after that.
        let (mut before, mut after) = (NONE, self.first);
        while let Some(range) = pools.ranges.get(after)
            && range.left.at_or_before(seq)
        {
            (before, after) = (after, range.next);
        }
        let touches_before = pools
            .ranges
            .get(before)
            .is_some_and(|range| range.right().at_or_after(seq));
        let touches_after = pools
            .ranges
            .get(after)
            .is_some_and(|range| range.left.at_or_before(end));

        let (at, seq, payload) = if touches_before {
            (before, seq, payload)
        } else {
            if !touches_after && self.ranges == RANGES_MAX {
                pools.shortages.ranges_bytes += payload.len() as u64;
                return Received::TooManyRanges;
            }
            let new = match pools.ranges.get(after) {
                Some(range) if touches_after => range.left.offset_from(seq) as usize,
                _ => payload.len(),
            };
            let (new, rest) = payload.split_at(new.min(payload.len()));
            match self.insert(pools, seq, new, before, after, touches_after) {
                Some(at) => (at, seq + len32(new.len()), rest),
                None => {
                    pools.shortages.out_of_order_bytes += payload.len() as u64;
                    return Received::NoMemory;
                }
            }
        };
        pools.ranges.touch(at);

        let mut stored = !touches_before;
        let (mut seq, mut rest) = (seq, payload);
        while let Some(range) = pools.ranges.get(at) {
            // What is there already.
            let again = rest.len().min(range.right().offset_from(seq) as usize);
            note(duplicate, seq, len32(again));
            rest = &rest[again..];
            seq += len32(again);
            // What is missing up to the next range.
            let next = range.next;
            let left = pools.ranges.get(next).map(|next| next.left);
            let missing = left.map_or(usize::MAX, |left| left.offset_from(range.right()) as usize);
            let piece = &rest[..rest.len().min(missing)];
            let kept = pools.ranges.extend(at, &mut pools.chunks, piece, spared);
            stored |= kept > 0;
            rest = &rest[kept..];
            seq += len32(kept);
            if kept < missing {
                break;
            }
            // The next range is reached.
            let Some((queue, next)) = pools.ranges.give(next) else {
                break;
            };
            self.ranges -= 1;
            if let Some(range) = pools.ranges.get_mut(at) {
                range.next = next;
                range.queue.append(&mut pools.chunks, queue);
            }
        }
        pools.shortages.out_of_order_bytes += rest.len() as u64;
        match (stored, rest.is_empty()) {
            (true, _) => Received::OutOfOrder,
            (false, true) => Received::Duplicate,
            (false, false) => Received::NoMemory,
        }
    }

    /// Makes a range of `bytes`, between the ranges `before` and `after`; or puts them in front of
    /// `after`, if `joined`. `None` if memory is short.
    fn insert(
        &mut self,
        pools: &mut ReceivePools,
        seq: SeqNum,
        bytes: &[u8],
        before: u32,
        after: u32,
        joined: bool,
    ) -> Option<u32> {
        let spared = pools.spared();
        let chunks = &mut pools.chunks;
        let mut queue = ByteQueue::EMPTY;
        if queue.push_back_sparing(chunks, bytes, spared) < bytes.len() {
            queue.clear(chunks);
            return None;
        }
        if joined {
            let range = pools.ranges.get_mut(after)?;
            let behind = core::mem::replace(&mut range.queue, queue);
            range.queue.append(chunks, behind);
            range.left = seq;
            return Some(after);
        }
        let range = Range {
            left: seq,
            queue,
            next: after,
            touched: 0,
        };
        let at = match pools.ranges.take(range) {
            Ok(at) => at,
            Err(mut queue) => {
                queue.clear(chunks);
                return None;
            }
        };
        match pools.ranges.get_mut(before) {
            Some(before) => before.next = at,
            None => self.first = at,
        }
        self.ranges += 1;
        Some(at)
    }

    /// Gives up data out of order: the last range, or the second half of it if it is long, so that
    /// walking to its end is paid for by what that frees. False if there is nothing.
    fn give_up(&mut self, pools: &mut ReceivePools) -> bool {
        let (mut before, mut last) = (NONE, self.first);
        while let Some(range) = pools.ranges.get(last)
            && range.next != NONE
        {
            (before, last) = (last, range.next);
        }
        let Some(range) = pools.ranges.get_mut(last) else {
            return false;
        };
        let len = range.queue.len();
        if len as usize > CHUNK_BYTES {
            range.queue.truncate(&mut pools.chunks, len / 2);
            pools.shortages.given_up_bytes += u64::from(len - len / 2);
            return true;
        }
        if let Some((mut queue, _)) = pools.ranges.give(last) {
            queue.clear(&mut pools.chunks);
        }
        match pools.ranges.get_mut(before) {
            Some(before) => before.next = NONE,
            None => self.first = NONE,
        }
        self.ranges -= 1;
        pools.shortages.given_up_bytes += u64::from(len);
        true
    }

    /// Has the next acknowledgement report a duplicate.
    fn report(&mut self, duplicate: Option<SackBlock>) {
        // RFC 2883 §4: what the most recent segment repeated.
        if let Some(duplicate) = duplicate {
            self.duplicate = duplicate;
        }
    }
}

/// Notes that `len` bytes from `seq` on were there already.
fn note(duplicate: &mut Option<SackBlock>, seq: SeqNum, len: u32) {
    // RFC 2883 §4.2: of several pieces of a segment that were there already, the first is reported.
    if len > 0 && duplicate.is_none() {
        *duplicate = Some(SackBlock {
            left: seq,
            right: seq + len,
        });
    }
}

/// The answer when only `kept` bytes in order found a place, and `refused` did not.
#[cold]
fn refused_in_order(pools: &mut ReceivePools, kept: usize, refused: usize) -> Received {
    pools.shortages.in_order_bytes += refused as u64;
    if kept == 0 {
        return Received::NoMemory;
    }
    Received::InOrder {
        bytes: len32(kept),
        hole: false,
        finished: false,
    }
}

/// The length of a payload, or of what is kept of it.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "an IP packet has at most 2^32 bytes, even as a jumbogram (RFC 2675 §2)"
)]
fn len32(bytes: usize) -> u32 {
    debug_assert!(u32::try_from(bytes).is_ok(), "invariant: of one packet");
    bytes as u32
}

#[cfg(test)]
mod tests;
