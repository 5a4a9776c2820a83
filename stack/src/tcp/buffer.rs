//! Bytes that wait, to be sent or to be read: queues of chunks out of one pool.
//!
//! ```text
//!  ByteQueue          head                                     tail
//!                      │                                        │
//!  chunks        ┌─────▼──────────┐   ┌────────────────┐   ┌────▼───────────┐
//!                │......▒▒▒▒▒▒▒▒▒▒├──►│▒▒▒▒▒▒▒▒▒▒▒▒....├──►│▒▒▒▒▒▒▒.........│
//!                └──────┬─────────┘   └────────────┬───┘   └───────┬────────┘
//!                    start: consumed            end: joined     end: filled
//!                    so far                     here            so far
//! ```
//!
//! A queue that is empty holds no chunk, so that a connection on which nothing is under way costs
//! its own 12 bytes and nothing here. A chunk that was given back is the next one taken: data that
//! is read at once stays in the same 2 KiB, and in the cache.
//!
//! Every chunk knows where its own bytes begin and end. Thus a segment that fits into a chunk need
//! not be cut, and a queue is joined to another one by a link ([`ByteQueue::append`]), which is how
//! data that came out of order moves into the stream: it is not copied again. So that nobody makes us
//! keep many chunks with little in each, two chunks that meet and would fit into one become one: of
//! two neighbours in a queue, neither of which is its first one, there are always more than 2048
//! bytes, and more than half of all that memory is in use.

use alloc::vec;
use alloc::vec::Vec;

/// Length of a chunk, in bytes: the payload of one packet of 1500 bytes fits, and a page holds two.
/// Shorter ones break packets into pieces; longer ones leave more unused where little waits on
/// many connections.
pub const CHUNK_BYTES: usize = 2048;

/// [`CHUNK_BYTES`], as the type of places in a chunk.
const CHUNK: u16 = 2048;

const _: () = assert!(CHUNK as usize == CHUNK_BYTES);

/// The longest queue, in bytes: a window has at most 2³⁰ bytes (RFC 7323 §2.3), and offsets in a
/// queue must not reach 2³² even when a chunk is added to that.
pub const QUEUE_BYTES_MAX: u32 = 1 << 30;

/// No chunk.
const NONE: u32 = u32::MAX;

/// What is known of a chunk: its bytes in use are `start..end`; `next` is the one that follows in
/// its queue, or in the list of free ones.
#[derive(Clone, Copy, Debug)]
struct Link {
    next: u32,
    start: u16,
    end: u16,
}

impl Link {
    #[inline]
    fn len(self) -> u16 {
        self.end - self.start
    }
}

/// A fixed number of chunks, allocated at the start.
#[derive(Debug)]
pub struct ChunkPool {
    bytes: Vec<[u8; CHUNK_BYTES]>,
    links: Vec<Link>,
    /// The first free one, which was given back last.
    first_free: u32,
    free: u32,
}

impl ChunkPool {
    /// A pool of `chunks` chunks of [`CHUNK_BYTES`] each; `u32::MAX` chunks are one too many and
    /// become one less.
    #[must_use]
    pub fn new(chunks: u32) -> Self {
        let chunks = chunks.min(NONE - 1);
        Self {
            bytes: vec![[0; CHUNK_BYTES]; chunks as usize],
            links: (1..=chunks)
                .map(|next| Link {
                    next: if next < chunks { next } else { NONE },
                    start: 0,
                    end: 0,
                })
                .collect(),
            first_free: if chunks > 0 { 0 } else { NONE },
            free: chunks,
        }
    }

    /// Chunks that are free.
    #[inline]
    #[must_use]
    pub fn free(&self) -> u32 {
        self.free
    }

    /// Chunks in all, free or not.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::try_from(self.links.len()).expect("invariant: made with a u32")
    }

    /// Takes a chunk with `bytes` in it, the last one of its queue. They must fit.
    #[inline]
    fn take(&mut self, bytes: &[u8]) -> Option<u32> {
        let chunk = self.first_free;
        let link = self.links.get_mut(chunk as usize)?;
        self.first_free = link.next;
        self.free -= 1;
        *link = Link {
            next: NONE,
            start: 0,
            end: len16(bytes),
        };
        self.bytes[chunk as usize][..bytes.len()].copy_from_slice(bytes);
        Some(chunk)
    }

    /// Takes a chunk back; returns the one that followed it.
    #[inline]
    fn give(&mut self, chunk: u32) -> u32 {
        let link = &mut self.links[chunk as usize];
        let next = link.next;
        link.next = self.first_free;
        self.first_free = chunk;
        self.free += 1;
        next
    }

    #[inline]
    fn link(&self, chunk: u32) -> Link {
        self.links[chunk as usize]
    }

    /// The bytes in a chunk.
    #[inline]
    fn slice(&self, chunk: u32) -> &[u8] {
        let link = self.link(chunk);
        &self.bytes[chunk as usize][usize::from(link.start)..usize::from(link.end)]
    }

    /// Bytes that still fit behind those in a chunk.
    #[inline]
    fn room(&self, chunk: u32) -> usize {
        usize::from(CHUNK - self.link(chunk).end)
    }

    /// Fills a chunk's rest; returns how many bytes fitted.
    #[inline]
    fn fill(&mut self, chunk: u32, bytes: &[u8]) -> u16 {
        let link = &mut self.links[chunk as usize];
        let end = usize::from(link.end);
        let count = bytes.len().min(CHUNK_BYTES - end);
        let filled = len16(&bytes[..count]);
        link.end += filled;
        self.bytes[chunk as usize][end..end + count].copy_from_slice(&bytes[..count]);
        filled
    }

    /// Joins the chunk `second` to `first`, one by copying if they fit into one; returns whether
    /// it is that.
    fn join(&mut self, first: u32, second: u32) -> bool {
        let (to, from) = (self.link(first), self.link(second));
        if from.len() > CHUNK - to.end {
            self.links[first as usize].next = second;
            return false;
        }
        let start = second as usize * CHUNK_BYTES + usize::from(from.start);
        let at = first as usize * CHUNK_BYTES + usize::from(to.end);
        self.bytes
            .as_flattened_mut()
            .copy_within(start..start + usize::from(from.len()), at);
        let next = self.give(second);
        let link = &mut self.links[first as usize];
        link.end += from.len();
        link.next = next;
        true
    }
}

/// The length of what fits into a chunk.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "a chunk's bytes are 2048 at most"
)]
fn len16(bytes: &[u8]) -> u16 {
    debug_assert!(bytes.len() <= CHUNK_BYTES, "invariant: cut to a chunk");
    bytes.len() as u16
}

/// A queue of bytes, whose memory is in a [`ChunkPool`]; all its methods must be given the same
/// one. What is dropped without [`clear`](Self::clear) is lost to the pool.
#[derive(Debug)]
pub struct ByteQueue {
    /// The first chunk; [`NONE`] when empty.
    head: u32,
    /// The last chunk; any value when empty.
    tail: u32,
    /// Bytes in all.
    len: u32,
}

const _: () = assert!(size_of::<ByteQueue>() == 12);

impl Default for ByteQueue {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl ByteQueue {
    /// The empty queue.
    pub const EMPTY: Self = Self {
        head: NONE,
        tail: NONE,
        len: 0,
    };

    /// How many bytes there are.
    #[inline]
    #[must_use]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there are none.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.head == NONE
    }

    /// Adds `bytes` at the end, as many as the pool has room for and [`QUEUE_BYTES_MAX`] allows;
    /// returns how many.
    #[inline(always)]
    pub fn push_back(&mut self, pool: &mut ChunkPool, bytes: &[u8]) -> usize {
        // The usual case: a request into an empty queue.
        if self.head == NONE
            && bytes.len().wrapping_sub(1) < CHUNK_BYTES
            && let Some(chunk) = pool.take(bytes)
        {
            *self = Self {
                head: chunk,
                tail: chunk,
                len: u32::from(len16(bytes)),
            };
            return bytes.len();
        }
        self.push_back_behind(pool, bytes)
    }

    /// [`push_back`](Self::push_back) to a queue that is, usually, not empty.
    #[inline(never)]
    fn push_back_behind(&mut self, pool: &mut ChunkPool, bytes: &[u8]) -> usize {
        // The second usual case: a segment in a stream of them.
        if self.head != NONE
            && bytes.len() <= CHUNK_BYTES
            && self.len <= QUEUE_BYTES_MAX - u32::from(CHUNK)
        {
            let len = u32::from(len16(bytes));
            if bytes.len() <= pool.room(self.tail) {
                pool.fill(self.tail, bytes);
                self.len += len;
                return bytes.len();
            }
            if let Some(chunk) = pool.take(bytes) {
                pool.links[self.tail as usize].next = chunk;
                self.tail = chunk;
                self.len += len;
                return bytes.len();
            }
        }
        self.push_back_sparing(pool, bytes, 0)
    }

    /// [`push_back`](Self::push_back) that leaves `spared` chunks of the pool free.
    pub fn push_back_sparing(&mut self, pool: &mut ChunkPool, bytes: &[u8], spared: u32) -> usize {
        let room = QUEUE_BYTES_MAX.saturating_sub(self.len) as usize;
        let bytes = &bytes[..bytes.len().min(room)];
        let mut rest = bytes;
        if self.head != NONE {
            // What fits into one chunk is not cut, so that a segment is copied at once, and read in
            // one piece.
            let fits = rest.len() <= pool.room(self.tail);
            if fits || rest.len() > CHUNK_BYTES || pool.free() <= spared {
                let filled = pool.fill(self.tail, rest);
                self.len += u32::from(filled);
                rest = &rest[usize::from(filled)..];
            }
        }
        while !rest.is_empty() && pool.free() > spared {
            let (now, later) = rest.split_at(rest.len().min(CHUNK_BYTES));
            let Some(chunk) = pool.take(now) else {
                break;
            };
            if self.head == NONE {
                self.head = chunk;
            } else {
                pool.links[self.tail as usize].next = chunk;
            }
            self.tail = chunk;
            self.len += u32::from(len16(now));
            rest = later;
        }
        bytes.len() - rest.len()
    }

    /// The first bytes, as far as they lie together; empty if there are none.
    #[inline]
    #[must_use]
    pub fn front<'a>(&self, pool: &'a ChunkPool) -> &'a [u8] {
        if self.head == NONE {
            return &[];
        }
        pool.slice(self.head)
    }

    /// Removes `count` bytes from the front, or all there are; returns how many. Chunks that get
    /// empty go back to the pool.
    #[inline]
    pub fn consume(&mut self, pool: &mut ChunkPool, count: u32) -> u32 {
        // The usual case: a request that came in one piece was read.
        if self.head == self.tail && count >= self.len && self.head != NONE {
            pool.give(self.head);
            return core::mem::take(self).len;
        }
        self.consume_part(pool, count.min(self.len))
    }

    /// [`consume`](Self::consume) of not more than there is.
    #[inline(never)]
    fn consume_part(&mut self, pool: &mut ChunkPool, count: u32) -> u32 {
        self.len -= count;
        let mut rest = count;
        while rest > 0 {
            let link = &mut pool.links[self.head as usize];
            let len = link.len();
            match u16::try_from(rest) {
                Ok(few) if few < len => {
                    link.start += few;
                    break;
                }
                _ => {
                    rest -= u32::from(len);
                    self.head = pool.give(self.head);
                }
            }
        }
        count
    }

    /// Moves up to `out.len()` bytes from the front to `out`; returns how many.
    pub fn read(&mut self, pool: &mut ChunkPool, out: &mut [u8]) -> usize {
        let count = self.copy_out(pool, &mut Cursor::default(), 0, out);
        self.consume(pool, u32::try_from(count).unwrap_or(u32::MAX));
        count
    }

    /// Copies the bytes from `offset` on (0 is the front) to `out`; returns how many there were.
    /// See [`Cursor`] for `cursor`.
    #[inline]
    pub fn copy_out(
        &self,
        pool: &ChunkPool,
        cursor: &mut Cursor,
        offset: u32,
        out: &mut [u8],
    ) -> usize {
        let Some(skip) = self.find(pool, cursor, offset) else {
            return 0;
        };
        // The usual case: it lies together.
        if let Some(piece) = pool.slice(cursor.chunk).get(skip..skip + out.len()) {
            out.copy_from_slice(piece);
            return out.len();
        }
        let mut at = 0;
        for piece in self.pieces(pool, cursor, offset, out.len()) {
            out[at..at + piece.len()].copy_from_slice(piece);
            at += piece.len();
        }
        at
    }

    /// Up to `len` bytes from `offset` on (0 is the front), in the pieces in which they lie there.
    #[inline]
    pub fn pieces<'a>(
        &self,
        pool: &'a ChunkPool,
        cursor: &mut Cursor,
        offset: u32,
        len: usize,
    ) -> Pieces<'a> {
        match self.find(pool, cursor, offset) {
            Some(skip) => Pieces {
                pool,
                chunk: cursor.chunk,
                skip,
                len: len.min((self.len - offset) as usize),
            },
            None => Pieces {
                pool,
                chunk: NONE,
                skip: 0,
                len: 0,
            },
        }
    }

    /// Moves the cursor to the chunk with the byte `offset`; returns how many of that chunk's bytes
    /// are before it. `None` if the queue ends before.
    #[inline]
    fn find(&self, pool: &ChunkPool, cursor: &mut Cursor, offset: u32) -> Option<usize> {
        if offset >= self.len {
            return None;
        }
        if cursor.chunk == NONE || cursor.start > offset {
            *cursor = Cursor {
                chunk: self.head,
                start: 0,
            };
        }
        loop {
            let link = pool.link(cursor.chunk);
            let skip = offset - cursor.start;
            if skip < u32::from(link.len()) {
                return Some(skip as usize);
            }
            *cursor = Cursor {
                chunk: link.next,
                start: cursor.start + u32::from(link.len()),
            };
        }
    }

    /// Puts all of `other` behind what is here, at the cost of one link and at most 2047 bytes
    /// copied. Both together must not exceed [`QUEUE_BYTES_MAX`]. A first chunk of `other` that was
    /// consumed in part stays as it is, and holds less than what is promised above.
    pub fn append(&mut self, pool: &mut ChunkPool, other: Self) {
        if other.is_empty() {
            return;
        }
        if self.is_empty() {
            *self = other;
            return;
        }
        debug_assert!(self.len + other.len <= QUEUE_BYTES_MAX);
        let became_one = pool.join(self.tail, other.head);
        if !(became_one && other.head == other.tail) {
            self.tail = other.tail;
        }
        self.len += other.len;
    }

    /// Keeps the first `len` bytes. Every [`Cursor`] of this queue must be reset. It takes a step
    /// for each chunk.
    pub fn truncate(&mut self, pool: &mut ChunkPool, len: u32) {
        if len == 0 {
            self.clear(pool);
        }
        if len >= self.len {
            return;
        }
        let (mut before, mut last, mut rest) = (NONE, self.head, len);
        let mut link = pool.link(last);
        while rest > u32::from(link.len()) {
            rest -= u32::from(link.len());
            before = last;
            last = link.next;
            link = pool.link(last);
        }
        let mut beyond = link.next;
        while beyond != NONE {
            beyond = pool.give(beyond);
        }
        let link = &mut pool.links[last as usize];
        link.next = NONE;
        // What is left is not more than what was in the chunk.
        link.end = link.start + u16::try_from(rest).unwrap_or(CHUNK);
        let became_one = before != NONE && pool.join(before, last);
        self.tail = if became_one { before } else { last };
        self.len = len;
    }

    /// Removes all bytes. Every [`Cursor`] of this queue must be reset. It takes a step for each
    /// chunk.
    pub fn clear(&mut self, pool: &mut ChunkPool) {
        while self.head != NONE {
            self.head = pool.give(self.head);
        }
        *self = Self::EMPTY;
    }
}

/// Remembers where in a queue somebody read last, so that who reads on from there need not go
/// through all chunks again. The default one begins at the front; a cursor that is further on than
/// what is asked for begins there again. It is of one queue only, and must be told what is
/// consumed.
#[derive(Clone, Copy, Debug)]
pub struct Cursor {
    chunk: u32,
    /// The offset in the queue of the first byte of `chunk`.
    start: u32,
}

impl Default for Cursor {
    fn default() -> Self {
        Self {
            chunk: NONE,
            start: 0,
        }
    }
}

impl Cursor {
    /// To be called when `count` bytes are consumed from the front of the queue, with what
    /// [`ByteQueue::consume`] returned.
    #[inline]
    pub fn on_consumed(&mut self, count: u32) {
        // With `count == start` the chunk is the first one now. With more, the front is in this
        // chunk or behind it, and looking for it from the front takes no longer.
        match self.start.checked_sub(count) {
            Some(start) => self.start = start,
            None => *self = Self::default(),
        }
    }
}

/// Pieces of a queue: see [`ByteQueue::pieces`].
#[derive(Clone, Debug)]
pub struct Pieces<'a> {
    pool: &'a ChunkPool,
    chunk: u32,
    /// Bytes of the chunk to skip.
    skip: usize,
    /// Bytes to come, all of which are there.
    len: usize,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        if self.len == 0 {
            return None;
        }
        let piece = &self.pool.slice(self.chunk)[self.skip..];
        let piece = &piece[..piece.len().min(self.len)];
        self.chunk = self.pool.link(self.chunk).next;
        self.skip = 0;
        self.len -= piece.len();
        Some(piece)
    }
}

#[cfg(test)]
mod tests;
