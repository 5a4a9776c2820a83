//! The memory that fragments wait in: a fixed number of blocks of 1024 bytes.
//!
//! ```text
//!  datagram   0        1024      2048      3072          65536
//!             ├─ block ─┼─ none ──┼─ block ─┼── …           ┤
//!                 │                   │
//!  block      ┌───▼──────────────┐┌───▼──────────────┐
//!  bytes      │▒▒▒▒▒▒▒▒▒▒        ││▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒│
//!  received   1111111111000000000 1111111111111111111   one bit for each 8 bytes
//!  starts     1000010000000000000 0000000100000000000   one bit where a fragment begins
//! ```

use alloc::vec;
use alloc::vec::Vec;

/// Fragment offsets count in units of this many bytes (RFC 791 §3.1, RFC 8200 §4.5).
pub(super) const UNIT_BYTES: usize = 8;

/// Length of a block: 128 units, one bit each in a `u128`. A smaller block wastes less on short
/// fragments but needs more bookkeeping; a fragment of an Ethernet packet takes two or three.
pub(super) const BLOCK_BYTES: usize = 128 * UNIT_BYTES;

/// Blocks of the longest datagram.
pub(super) const BLOCKS_MAX: usize = 65_536 / BLOCK_BYTES;

/// No block.
const NONE: u32 = u32::MAX;

/// The blocks of one datagram, by their place in it.
#[derive(Clone, Debug)]
pub(super) struct BlockMap([u32; BLOCKS_MAX]);

impl BlockMap {
    pub(super) const EMPTY: Self = Self([NONE; BLOCKS_MAX]);
}

/// What is known about one block's units.
#[derive(Clone, Copy, Debug, Default)]
struct Units {
    received: u128,
    starts: u128,
}

/// How a fragment relates to what came before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    /// Nothing of it was there.
    New,
    /// The same fragment was there: the same place, length and bytes.
    Duplicate,
    /// It overlaps others.
    Overlap,
}

/// All blocks, and which are free.
#[derive(Debug)]
pub(super) struct Blocks {
    bytes: Vec<u8>,
    units: Vec<Units>,
    free: Vec<u32>,
}

impl Blocks {
    pub(super) fn new(count: u32) -> Self {
        Self {
            bytes: vec![0; count as usize * BLOCK_BYTES],
            units: vec![Units::default(); count as usize],
            free: (0..count).rev().collect(),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.units.len()
    }

    pub(super) fn free_count(&self) -> usize {
        self.free.len()
    }

    /// How many blocks a datagram lacks to hold `len` bytes from `offset` on.
    pub(super) fn lacking(&self, map: &BlockMap, offset: usize, len: usize) -> usize {
        pieces(offset, len)
            .filter(|piece| map.0[piece.place] == NONE)
            .count()
    }

    /// Gives a datagram the blocks it lacks; false if there are too few free ones.
    pub(super) fn provide(&mut self, map: &mut BlockMap, offset: usize, len: usize) -> bool {
        for piece in pieces(offset, len) {
            if map.0[piece.place] == NONE {
                let Some(block) = self.free.pop() else {
                    return false;
                };
                self.units[block as usize] = Units::default();
                map.0[piece.place] = block;
            }
        }
        true
    }

    /// Takes all blocks of a datagram back.
    pub(super) fn release(&mut self, map: &mut BlockMap) {
        for place in &mut map.0 {
            if *place != NONE {
                self.free.push(*place);
                *place = NONE;
            }
        }
    }

    /// Compares a fragment with what a datagram has. `last` says that the datagram ends with it.
    pub(super) fn relation(
        &self,
        map: &BlockMap,
        offset: usize,
        payload: &[u8],
        last: bool,
    ) -> Relation {
        let (mut any, mut same) = (false, true);
        for piece in pieces(offset, payload.len()) {
            let Some(units) = self.units(map, piece.place) else {
                same = false;
                continue;
            };
            any |= units.received & piece.mask != 0;
            // Where the fragment begins another one began, and none in its middle.
            let expected = if piece.first { piece.lowest } else { 0 };
            same &= units.received & piece.mask == piece.mask
                && units.starts & piece.mask == expected
                && self.slice(map, &piece) == Some(&payload[piece.from..piece.to]);
        }
        // Where the fragment ends, the other ends as well: nothing came from there on, or another
        // fragment begins there.
        let end = offset + payload.len();
        let ends = last || {
            let unit = 1u128 << (end % BLOCK_BYTES / UNIT_BYTES);
            self.units(map, end / BLOCK_BYTES)
                .is_none_or(|units| units.received & unit == 0 || units.starts & unit != 0)
        };
        match (any, same && ends) {
            (false, _) => Relation::New,
            (true, true) => Relation::Duplicate,
            (true, false) => Relation::Overlap,
        }
    }

    /// Stores a fragment, for which blocks were provided.
    pub(super) fn store(&mut self, map: &BlockMap, offset: usize, payload: &[u8]) {
        for piece in pieces(offset, payload.len()) {
            let block = map.0[piece.place] as usize;
            let at = block * BLOCK_BYTES + piece.at;
            self.bytes[at..at + (piece.to - piece.from)]
                .copy_from_slice(&payload[piece.from..piece.to]);
            self.units[block].received |= piece.mask;
            if piece.first {
                self.units[block].starts |= piece.lowest;
            }
        }
    }

    /// Copies the first bytes of a datagram out, all of which must have come.
    pub(super) fn copy_out(&self, map: &BlockMap, to: &mut [u8]) {
        for piece in pieces(0, to.len()) {
            if let Some(bytes) = self.slice(map, &piece) {
                to[piece.from..piece.to].copy_from_slice(bytes);
            }
        }
    }

    /// The first `len` bytes of a datagram, as far as the first block goes.
    pub(super) fn head(&self, map: &BlockMap, len: usize) -> &[u8] {
        let piece = pieces(0, len.min(BLOCK_BYTES)).next();
        piece
            .and_then(|piece| self.slice(map, &piece))
            .unwrap_or(&[])
    }

    fn units(&self, map: &BlockMap, place: usize) -> Option<&Units> {
        // A map has a place for every offset; none behind its end, where an end may point.
        let block = *map.0.get(place)?;
        self.units.get(block as usize)
    }

    fn slice(&self, map: &BlockMap, piece: &Piece) -> Option<&[u8]> {
        let at = map.0[piece.place] as usize * BLOCK_BYTES + piece.at;
        self.bytes.get(at..at + (piece.to - piece.from))
    }
}

/// The part of a fragment that falls into one block.
struct Piece {
    /// Which block of the datagram.
    place: usize,
    /// Where in the block it begins, in bytes.
    at: usize,
    /// Which bytes of the fragment.
    from: usize,
    to: usize,
    /// The units it covers.
    mask: u128,
    /// The first of them.
    lowest: u128,
    /// Whether the fragment begins here.
    first: bool,
}

/// Cuts `len` bytes from `offset` on, a multiple of 8, at the borders of blocks. At most 65536
/// bytes in all.
fn pieces(offset: usize, len: usize) -> impl Iterator<Item = Piece> {
    let end = offset + len;
    debug_assert!(offset.is_multiple_of(UNIT_BYTES) && end <= BLOCKS_MAX * BLOCK_BYTES);
    (offset / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES))
        .filter(move |_| len > 0)
        .map(move |place| {
            let start = offset.max(place * BLOCK_BYTES);
            let stop = end.min((place + 1) * BLOCK_BYTES);
            let at = start - place * BLOCK_BYTES;
            let count = (stop - start).div_ceil(UNIT_BYTES);
            let shift = at / UNIT_BYTES;
            Piece {
                place,
                at,
                from: start - offset,
                to: stop - offset,
                mask: (u128::MAX >> (128 - count)) << shift,
                lowest: 1 << shift,
                first: start == offset,
            }
        })
}
