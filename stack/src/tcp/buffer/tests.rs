use super::*;
use alloc::collections::VecDeque;
use proptest::prelude::*;

/// A queue beside what it must contain.
#[derive(Default)]
struct Pair {
    queue: ByteQueue,
    oracle: VecDeque<u8>,
    cursor: Cursor,
}

impl Pair {
    /// Checks the content, both ways to read it, and what each chunk holds; returns how many
    /// chunks there are.
    fn check(&mut self, pool: &ChunkPool) -> u32 {
        let oracle = self.oracle.make_contiguous();
        assert_eq!(self.queue.len() as usize, oracle.len());
        assert_eq!(self.queue.is_empty(), oracle.is_empty());
        let front = self.queue.front(pool);
        assert_eq!(front, &oracle[..front.len()]);
        assert_eq!(front.is_empty(), oracle.is_empty());
        let mut out = vec![0; oracle.len() + 1];
        let count = self
            .queue
            .copy_out(pool, &mut Cursor::default(), 0, &mut out);
        assert_eq!(&out[..count], &*oracle);

        let (mut chunk, mut chunks, mut before) = (self.queue.head, 0, None);
        while chunk != NONE {
            let len = usize::from(pool.link(chunk).len());
            assert!(len > 0, "no chunk is empty");
            if let Some(before) = before {
                assert!(before + len > CHUNK_BYTES, "both would fit into one");
            }
            // The first one may have been consumed in part.
            before = (chunks > 0).then_some(len);
            chunks += 1;
            if pool.link(chunk).next == NONE {
                assert_eq!(chunk, self.queue.tail);
            }
            chunk = pool.link(chunk).next;
        }
        chunks
    }
}

#[derive(Clone, Debug)]
enum Op {
    Push {
        queue: usize,
        len: usize,
        spared: u32,
    },
    Consume {
        queue: usize,
        len: u32,
    },
    Read {
        queue: usize,
        len: usize,
    },
    Look {
        queue: usize,
        offset: u32,
        len: usize,
    },
    Append {
        queue: usize,
    },
    Truncate {
        queue: usize,
        len: u32,
    },
    Clear {
        queue: usize,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let queue = 0..3_usize;
    // Some of a few bytes, some about a chunk long, some longer.
    let len = prop_oneof![0..70_usize, 2040..2056_usize, 0..7000_usize];
    let short = len.clone().prop_map(|len| u32::try_from(len).unwrap());
    prop_oneof![
        4 => (queue.clone(), len.clone(), 0..4_u32)
            .prop_map(|(queue, len, spared)| Op::Push { queue, len, spared }),
        2 => (queue.clone(), short.clone()).prop_map(|(queue, len)| Op::Consume { queue, len }),
        1 => (queue.clone(), len.clone()).prop_map(|(queue, len)| Op::Read { queue, len }),
        3 => (queue.clone(), short.clone(), len)
            .prop_map(|(queue, offset, len)| Op::Look { queue, offset, len }),
        2 => queue.clone().prop_map(|queue| Op::Append { queue }),
        1 => (queue.clone(), short).prop_map(|(queue, len)| Op::Truncate { queue, len }),
        1 => queue.prop_map(|queue| Op::Clear { queue }),
    ]
}

proptest! {
    /// Three queues of one small pool do what three `VecDeque`s do, except that they are full when
    /// the pool is empty; and no chunk is lost or in two places.
    #[test]
    fn queues_are_like_deques(ops in prop::collection::vec(op(), 1..120)) {
        const CHUNKS: u32 = 16;
        let mut pool = ChunkPool::new(CHUNKS);
        let mut pairs: [Pair; 3] = Default::default();
        let mut byte = 0_u8;
        for op in ops {
            match op {
                Op::Push { queue, len, spared } => {
                    let bytes: Vec<u8> = (0..len)
                        .map(|_| {
                            byte = byte.wrapping_mul(5).wrapping_add(1);
                            byte
                        })
                        .collect();
                    let pair = &mut pairs[queue];
                    let room_in_tail = if pair.queue.is_empty() {
                        0
                    } else {
                        CHUNK_BYTES - usize::from(pool.link(pair.queue.tail).end)
                    };
                    let room = room_in_tail
                        + pool.free().saturating_sub(spared) as usize * CHUNK_BYTES;
                    let pushed = if spared == 0 {
                        pair.queue.push_back(&mut pool, &bytes)
                    } else {
                        pair.queue.push_back_sparing(&mut pool, &bytes, spared)
                    };
                    prop_assert_eq!(pushed, len.min(room));
                    pair.oracle.extend(&bytes[..pushed]);
                }
                Op::Consume { queue, len } => {
                    let pair = &mut pairs[queue];
                    let consumed = pair.queue.consume(&mut pool, len);
                    pair.cursor.on_consumed(consumed);
                    prop_assert_eq!(consumed as usize, pair.oracle.len().min(len as usize));
                    pair.oracle.drain(..consumed as usize);
                }
                Op::Read { queue, len } => {
                    let pair = &mut pairs[queue];
                    let mut out = vec![0; len];
                    let count = pair.queue.read(&mut pool, &mut out);
                    pair.cursor.on_consumed(u32::try_from(count).unwrap());
                    let expected: Vec<u8> = pair.oracle.drain(..count).collect();
                    prop_assert_eq!(&out[..count], &expected[..]);
                    prop_assert!(count == len || pair.oracle.is_empty());
                }
                Op::Look { queue, offset, len } => {
                    let pair = &mut pairs[queue];
                    let mut out = vec![0; len];
                    let count = pair.queue.copy_out(&pool, &mut pair.cursor, offset, &mut out);
                    let offset = (offset as usize).min(pair.oracle.len());
                    let expected: Vec<u8> =
                        pair.oracle.iter().skip(offset).take(len).copied().collect();
                    prop_assert_eq!(&out[..count], &expected[..]);
                }
                Op::Append { queue } => {
                    let head = pairs[(queue + 1) % 3].queue.head;
                    if head != NONE && pool.link(head).start > 0 {
                        continue;
                    }
                    let other = core::mem::take(&mut pairs[(queue + 1) % 3]);
                    let free = pool.free();
                    let pair = &mut pairs[queue];
                    pair.queue.append(&mut pool, other.queue);
                    pair.oracle.extend(other.oracle);
                    prop_assert!(pool.free() - free <= 1);
                }
                Op::Truncate { queue, len } => {
                    let pair = &mut pairs[queue];
                    pair.queue.truncate(&mut pool, len);
                    pair.oracle.truncate(len as usize);
                    pair.cursor = Cursor::default();
                }
                Op::Clear { queue } => {
                    let pair = &mut pairs[queue];
                    pair.queue.clear(&mut pool);
                    pair.oracle.clear();
                    pair.cursor = Cursor::default();
                }
            }
            let used: u32 = pairs.iter_mut().map(|pair| pair.check(&pool)).sum();
            prop_assert_eq!(used + pool.free(), CHUNKS);
        }
        for pair in &mut pairs {
            pair.queue.consume(&mut pool, u32::MAX);
        }
        prop_assert_eq!(pool.free(), CHUNKS);
        // All of them can be taken again: none is in the list twice.
        let mut queue = ByteQueue::EMPTY;
        let all = vec![7; (CHUNKS as usize + 1) * CHUNK_BYTES];
        prop_assert_eq!(queue.push_back(&mut pool, &all), CHUNKS as usize * CHUNK_BYTES);
        prop_assert_eq!(pool.free(), 0);
    }
}

#[test]
fn an_empty_pool_takes_nothing() {
    let mut pool = ChunkPool::new(0);
    assert_eq!((pool.free(), pool.count()), (0, 0));
    let mut queue = ByteQueue::EMPTY;
    assert_eq!(queue.push_back(&mut pool, b"bytes"), 0);
    assert!(queue.is_empty());
    assert_eq!(queue.front(&pool), b"");
    assert_eq!(queue.consume(&mut pool, 5), 0);
}

#[test]
fn what_is_read_at_once_stays_in_one_chunk() {
    let mut pool = ChunkPool::new(4);
    let mut queue = ByteQueue::EMPTY;
    queue.push_back(&mut pool, b"first");
    let chunk = queue.head;
    for _ in 0..10 {
        assert_eq!(queue.consume(&mut pool, 5), 5);
        assert_eq!(pool.free(), 4);
        assert_eq!(queue.push_back(&mut pool, b"again"), 5);
        assert_eq!(queue.head, chunk);
    }
}

#[test]
fn nothing_pushed_holds_nothing() {
    let mut pool = ChunkPool::new(1);
    let mut queue = ByteQueue::EMPTY;
    assert_eq!(queue.push_back(&mut pool, b""), 0);
    assert!(queue.is_empty());
    assert_eq!(pool.free(), 1);
}

/// The price of a queue of single bytes that were joined one by one is a chunk for all, not one
/// for each.
#[test]
fn many_short_queues_become_few_chunks() {
    let mut pool = ChunkPool::new(8);
    let mut queue = ByteQueue::EMPTY;
    for byte in 0..3000_u32 {
        let mut other = ByteQueue::EMPTY;
        other.push_back(&mut pool, &byte.to_be_bytes()[3..]);
        queue.append(&mut pool, other);
    }
    assert_eq!(queue.len(), 3000);
    assert_eq!(pool.free(), 6);
}

/// Reading on with a cursor does not begin at the front.
#[test]
fn a_cursor_follows() {
    let mut pool = ChunkPool::new(64);
    let mut queue = ByteQueue::EMPTY;
    let bytes: Vec<u8> = (0..64 * CHUNK_BYTES)
        .map(|at| (at >> 8 & 0xff).try_into().unwrap())
        .collect();
    queue.push_back(&mut pool, &bytes);
    let (mut cursor, mut out) = (Cursor::default(), [0; 1448]);
    for offset in (0..queue.len()).step_by(1448) {
        let before = cursor;
        let count = queue.copy_out(&pool, &mut cursor, offset, &mut out);
        assert_eq!(&out[..count], &bytes[offset as usize..][..count]);
        assert!(offset - cursor.start < 2048 && cursor.start - before.start <= 2048);
    }
    // Consumed up to within the cursor's chunk, beyond it, and less than that.
    let at = cursor.start;
    cursor.on_consumed(at);
    assert_eq!(cursor.start, 0);
    cursor.on_consumed(1);
    assert_eq!(cursor.chunk, NONE);
}

#[test]
fn a_queue_is_at_most_a_window_long() {
    let mut pool = ChunkPool::new(2);
    let mut queue = ByteQueue::EMPTY;
    queue.push_back(&mut pool, b"abc");
    queue.len = QUEUE_BYTES_MAX - 2;
    assert_eq!(queue.push_back(&mut pool, b"defg"), 2);
    assert_eq!(queue.push_back(&mut pool, b"h"), 0);
}

/// Segments of usual length can be read one by one as they came.
#[test]
fn segments_are_not_cut() {
    let mut pool = ChunkPool::new(3);
    let mut queue = ByteQueue::EMPTY;
    for byte in 1..=3 {
        assert_eq!(queue.push_back(&mut pool, &[byte; 1448]), 1448);
    }
    // Unless there is no other room.
    assert_eq!(queue.push_back(&mut pool, &[4; 1448]), 600);
    for byte in 1..=2 {
        assert_eq!(queue.front(&pool), [byte; 1448]);
        queue.consume(&mut pool, 1448);
    }
    assert_eq!(queue.front(&pool).len(), 2048);
}
