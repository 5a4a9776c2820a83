//! Ranges of bytes that came out of order: a list for each connection that has some, in one pool.
//!
//! ```text
//!  RCV.NXT                left          right         left    right
//!    │                     │              │             │        │
//!    ▼        hole         ▼              ▼     hole    ▼        ▼
//! ───┼─────────────────────▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒──────────────▒▒▒▒▒▒▒▒▒─────►
//!                      Receiver::first ──────── next ──► Range
//! ```
//!
//! A list is in the order of the sequence numbers, and between two of its ranges at least one byte
//! is missing, as it is between RCV.NXT and the first one.

use crate::tcp::buffer::{ByteQueue, ChunkPool};
use crate::tcp::seq::SeqNum;
use alloc::vec::Vec;

/// No range.
pub(super) const NONE: u32 = u32::MAX;

/// Bytes that are there, from `left` on, as many as are in `queue`: at least one.
#[derive(Debug)]
pub(super) struct Range {
    pub(super) left: SeqNum,
    pub(super) queue: ByteQueue,
    /// The next range of the connection; of a free one, the next free one.
    pub(super) next: u32,
    /// When the last segment of it came, by the pool's count of segments.
    pub(super) touched: u64,
}

const _: () = assert!(size_of::<Range>() == 32);

impl Range {
    /// The sequence number behind the last byte.
    #[inline]
    pub(super) fn right(&self) -> SeqNum {
        self.left + self.queue.len()
    }
}

/// A fixed number of ranges for all connections.
#[derive(Debug)]
pub(super) struct RangePool {
    ranges: Vec<Range>,
    first_free: u32,
    free: u32,
    /// Segments that came out of order so far. It does not wrap in the life of a machine.
    segments: u64,
}

impl RangePool {
    pub(super) fn new(ranges: u32) -> Self {
        let ranges = ranges.min(NONE - 1);
        Self {
            ranges: (1..=ranges)
                .map(|next| Range {
                    left: SeqNum::new(0),
                    queue: ByteQueue::EMPTY,
                    next: if next < ranges { next } else { NONE },
                    touched: 0,
                })
                .collect(),
            first_free: if ranges > 0 { 0 } else { NONE },
            free: ranges,
            segments: 0,
        }
    }

    pub(super) fn free(&self) -> u32 {
        self.free
    }

    /// The range `at`; `None` for [`NONE`].
    #[inline]
    pub(super) fn get(&self, at: u32) -> Option<&Range> {
        self.ranges.get(at as usize)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, at: u32) -> Option<&mut Range> {
        self.ranges.get_mut(at as usize)
    }

    /// All ranges from `first` on.
    pub(super) fn iter(&self, first: u32) -> impl Iterator<Item = &Range> {
        core::iter::successors(self.get(first), |range| self.get(range.next))
    }

    /// Makes a range, to be linked by the caller; gives the bytes back if there is none left.
    pub(super) fn take(&mut self, range: Range) -> Result<u32, ByteQueue> {
        let at = self.first_free;
        let Some(free) = self.ranges.get_mut(at as usize) else {
            return Err(range.queue);
        };
        self.first_free = core::mem::replace(free, range).next;
        self.free -= 1;
        Ok(at)
    }

    /// Takes a range back; returns its bytes and which range followed. `None` for [`NONE`].
    pub(super) fn give(&mut self, at: u32) -> Option<(ByteQueue, u32)> {
        let range = self.ranges.get_mut(at as usize)?;
        let queue = core::mem::take(&mut range.queue);
        let next = core::mem::replace(&mut range.next, self.first_free);
        self.first_free = at;
        self.free += 1;
        Some((queue, next))
    }

    /// Notes that a segment of range `at` came.
    pub(super) fn touch(&mut self, at: u32) {
        self.segments += 1;
        let segments = self.segments;
        if let Some(range) = self.get_mut(at) {
            range.touched = segments;
        }
    }

    /// Puts `bytes` at the end of range `at`, leaving `spared` chunks free; returns how many fitted.
    pub(super) fn extend(
        &mut self,
        at: u32,
        chunks: &mut ChunkPool,
        bytes: &[u8],
        spared: u32,
    ) -> usize {
        self.get_mut(at).map_or(0, |range| {
            range.queue.push_back_sparing(chunks, bytes, spared)
        })
    }
}
