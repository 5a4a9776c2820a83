use super::*;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

const CHUNKS: u32 = 64;
const RANGES: u32 = 40;

/// A receiver whose first byte has the number `base`, and pools.
fn receiver(base: u32) -> (Receiver, ReceivePools) {
    (
        Receiver::new(SeqNum::new(base)),
        ReceivePools::new(CHUNKS, RANGES),
    )
}

fn in_order(bytes: u32, hole: bool) -> Received {
    Received::InOrder {
        bytes,
        hole,
        finished: false,
    }
}

/// Receives the bytes `from..to` of a stream of zeroes.
fn get(receiver: &mut Receiver, pools: &mut ReceivePools, from: u32, to: u32) -> Received {
    let payload = vec![0; (to - from) as usize];
    receiver.receive(pools, SeqNum::new(from), &payload, false)
}

/// The blocks of an acknowledgement sent now.
fn sack(receiver: &mut Receiver, pools: &ReceivePools, max: usize) -> Vec<(u32, u32)> {
    let had = receiver.has_sack();
    let blocks = receiver.sack_blocks(pools, max);
    assert_eq!(had && max > 0, !blocks.is_empty());
    blocks
        .iter()
        .map(|block| (block.left.get(), block.right.get()))
        .collect()
}

/// Every chunk and every range can be taken again, and none twice.
fn assert_whole(pools: &mut ReceivePools) {
    let (chunks, ranges) = (pools.free_chunks(), pools.free_ranges());
    assert_eq!(chunks, pools.chunks.count());
    let mut queue = ByteQueue::EMPTY;
    let all = vec![0; (chunks as usize + 1) * CHUNK_BYTES];
    let pushed = queue.push_back(&mut pools.chunks, &all);
    assert_eq!(pushed, chunks as usize * CHUNK_BYTES);
    queue.clear(&mut pools.chunks);
    let empty = || Range {
        left: SeqNum::new(0),
        queue: ByteQueue::EMPTY,
        next: NONE,
        touched: 0,
    };
    let mut taken = Vec::new();
    while let Ok(at) = pools.ranges.take(empty()) {
        assert!(!taken.contains(&at));
        taken.push(at);
    }
    assert_eq!(taken.len(), ranges as usize);
    for at in taken {
        assert!(pools.ranges.give(at).is_some());
    }
    assert_eq!(pools.free_ranges(), ranges);
}

#[test]
fn in_order_is_read_in_order() {
    let (mut r, mut pools) = receiver(u32::MAX - 2);
    let first = r.receive(&mut pools, SeqNum::new(u32::MAX - 2), b"hello", false);
    assert_eq!(first, in_order(5, false));
    assert_eq!(r.next(), SeqNum::new(2));
    assert_eq!(
        r.receive(&mut pools, SeqNum::new(2), b" you", false),
        in_order(4, false)
    );
    assert_eq!(r.front(&pools), b"hello you");
    assert_eq!(r.consume(&mut pools, 6), 6);
    let mut out = [0; 8];
    assert_eq!(r.read(&mut pools, &mut out), 3);
    assert_eq!(&out[..3], b"you");
    assert!(!r.has_sack() && !r.has_hole());
    assert_whole(&mut pools);
}

#[test]
fn what_came_first_is_never_replaced() {
    let (mut r, mut pools) = receiver(0);
    assert_eq!(
        r.receive(&mut pools, SeqNum::new(4), b"bb", false),
        Received::OutOfOrder
    );
    assert_eq!(
        r.receive(&mut pools, SeqNum::new(2), b"cccccc", false),
        Received::OutOfOrder
    );
    assert_eq!(
        r.receive(&mut pools, SeqNum::new(0), b"aaaaaaaaaa", false),
        in_order(10, true)
    );
    assert_eq!(
        r.receive(&mut pools, SeqNum::new(8), b"dddd", false),
        in_order(2, false)
    );
    let mut out = [0; 16];
    assert_eq!(r.read(&mut pools, &mut out), 12);
    assert_eq!(&out[..12], b"aaccbbccaadd");
}

/// RFC 2018 §4: the block of the last segment first, then those that were first before.
#[test]
fn sack_blocks_are_the_most_recent_ones() {
    let (mut r, mut pools) = receiver(0);
    for from in [1000, 3000, 5000, 7000, 9000] {
        assert_eq!(
            get(&mut r, &mut pools, from, from + 500),
            Received::OutOfOrder
        );
    }
    let all = [(9000, 9500), (7000, 7500), (5000, 5500), (3000, 3500)];
    assert_eq!(sack(&mut r, &pools, 4), all);
    assert_eq!(sack(&mut r, &pools, 3), all[..3]);
    assert_eq!(sack(&mut r, &pools, 0), []);
    // Growing brings a block to the front, at either end.
    let _ = get(&mut r, &mut pools, 3500, 4000);
    let _ = get(&mut r, &mut pools, 500, 1000);
    let expected = [(500, 1500), (3000, 4000), (9000, 9500), (7000, 7500)];
    assert_eq!(sack(&mut r, &pools, 4), expected);
    // Two that meet are one.
    let _ = get(&mut r, &mut pools, 7500, 9000);
    let expected = [(7000, 9500), (500, 1500), (3000, 4000), (5000, 5500)];
    assert_eq!(sack(&mut r, &pools, 4), expected);
    // What gets in order is no block any more, and the others keep their order.
    assert_eq!(get(&mut r, &mut pools, 0, 500), in_order(1500, true));
    let expected = [(7000, 9500), (3000, 4000), (5000, 5500)];
    assert_eq!(sack(&mut r, &pools, 4), expected);
}

/// RFC 2883 §4.1.1: a segment below the acknowledgement number.
#[test]
fn a_full_duplicate_is_reported_once() {
    let (mut r, mut pools) = receiver(3000);
    assert_eq!(get(&mut r, &mut pools, 3000, 4000), in_order(1000, false));
    assert_eq!(get(&mut r, &mut pools, 3000, 3500), Received::Duplicate);
    assert_eq!(sack(&mut r, &pools, 3), [(3000, 3500)]);
    assert_eq!(sack(&mut r, &pools, 3), []);
    // Twice sent again is twice reported.
    assert_eq!(get(&mut r, &mut pools, 3000, 3500), Received::Duplicate);
    assert_eq!(sack(&mut r, &pools, 3), [(3000, 3500)]);
}

/// RFC 2883 §4.1.2: a duplicate below the acknowledgement number, and a block above.
#[test]
fn a_duplicate_comes_before_the_blocks() {
    let (mut r, mut pools) = receiver(3000);
    assert_eq!(get(&mut r, &mut pools, 3000, 4000), in_order(1000, false));
    assert_eq!(get(&mut r, &mut pools, 4500, 5000), Received::OutOfOrder);
    assert_eq!(sack(&mut r, &pools, 3), [(4500, 5000)]);
    assert_eq!(get(&mut r, &mut pools, 3000, 3500), Received::Duplicate);
    assert_eq!(sack(&mut r, &pools, 3), [(3000, 3500), (4500, 5000)]);
    assert_eq!(sack(&mut r, &pools, 3), [(4500, 5000)]);
}

/// RFC 2883 §4.1.3 and §4 rule 4: a duplicate of something out of order, and the block around it
/// behind it, wherever that was before.
#[test]
fn a_duplicate_within_a_block_is_followed_by_the_block() {
    let (mut r, mut pools) = receiver(3000);
    let _ = get(&mut r, &mut pools, 4500, 5500);
    let _ = get(&mut r, &mut pools, 8000, 9000);
    assert_eq!(get(&mut r, &mut pools, 5000, 5500), Received::Duplicate);
    let expected = [(5000, 5500), (4500, 5500), (8000, 9000)];
    assert_eq!(sack(&mut r, &pools, 3), expected);
    assert_eq!(sack(&mut r, &pools, 3), expected[1..]);
    // Also when another segment came before the acknowledgement was sent.
    let _ = get(&mut r, &mut pools, 5000, 5500);
    let _ = get(&mut r, &mut pools, 9000, 9500);
    let expected = [(5000, 5500), (4500, 5500), (8000, 9500)];
    assert_eq!(sack(&mut r, &pools, 3), expected);
}

/// RFC 2883 §4.2.1: a segment some of which is new.
#[test]
fn of_a_partial_duplicate_the_old_part_is_reported() {
    let (mut r, mut pools) = receiver(500);
    let _ = get(&mut r, &mut pools, 500, 1000);
    // Its beginning was there.
    assert_eq!(get(&mut r, &mut pools, 500, 1500), in_order(500, false));
    assert_eq!(sack(&mut r, &pools, 3), [(500, 1000)]);
    // Its end was there, in order.
    let _ = get(&mut r, &mut pools, 2000, 2500);
    assert_eq!(get(&mut r, &mut pools, 1500, 2250), in_order(1000, true));
    assert_eq!(sack(&mut r, &pools, 3), [(2000, 2250)]);
    // The same, above the acknowledgement number.
    let _ = get(&mut r, &mut pools, 4000, 5000);
    assert_eq!(get(&mut r, &mut pools, 3500, 4500), Received::OutOfOrder);
    assert_eq!(sack(&mut r, &pools, 3), [(4000, 4500), (3500, 5000)]);
    assert_eq!(get(&mut r, &mut pools, 4500, 5500), Received::OutOfOrder);
    assert_eq!(sack(&mut r, &pools, 3), [(4500, 5000), (3500, 5500)]);
}

/// RFC 2883 §4.2.2: two pieces were there, and get in order now; §4.2.3: they do not.
#[test]
fn of_several_old_parts_the_first_is_reported() {
    let (mut r, mut pools) = receiver(500);
    let _ = get(&mut r, &mut pools, 1000, 1500);
    let _ = get(&mut r, &mut pools, 2000, 2500);
    assert_eq!(get(&mut r, &mut pools, 500, 3000), in_order(2500, true));
    assert_eq!(sack(&mut r, &pools, 3), [(1000, 1500)]);

    let _ = get(&mut r, &mut pools, 4000, 4500);
    let _ = get(&mut r, &mut pools, 5000, 5500);
    assert_eq!(get(&mut r, &mut pools, 3500, 6000), Received::OutOfOrder);
    assert_eq!(sack(&mut r, &pools, 3), [(4000, 4500), (3500, 6000)]);
    assert_eq!(r.out_of_order(&pools), 2500);
}

#[test]
fn a_fin_is_reached_once() {
    let (mut r, mut pools) = receiver(0);
    let fin = |bytes, hole| Received::InOrder {
        bytes,
        hole,
        finished: true,
    };
    assert_eq!(
        r.receive(&mut pools, SeqNum::new(0), b"end", true),
        fin(3, false)
    );
    assert!(r.is_finished());
    assert_eq!(r.next(), SeqNum::new(4));
    assert_eq!(r.front(&pools), b"end");
    // Sent again, it is a duplicate with its number (RFC 8985 §7.4.2 needs that).
    assert_eq!(
        r.receive(&mut pools, SeqNum::new(2), b"d", true),
        Received::Duplicate
    );
    assert_eq!(sack(&mut r, &pools, 3), [(2, 4)]);
    // Nothing follows it.
    assert_eq!(
        r.receive(&mut pools, SeqNum::new(4), b"more", false),
        Received::BehindFin
    );
    assert_eq!(
        r.receive(&mut pools, SeqNum::new(3), b"xmore", true),
        Received::BehindFin
    );
    assert_eq!((r.next(), r.readable()), (SeqNum::new(4), 3));

    // Alone.
    let (mut r, mut pools) = receiver(0);
    assert_eq!(
        r.receive(&mut pools, SeqNum::new(0), b"", true),
        fin(0, false)
    );
    assert_whole(&mut pools);
}

#[test]
fn a_fin_out_of_order_waits() {
    let (mut r, mut pools) = receiver(0);
    assert_eq!(
        r.receive(&mut pools, SeqNum::new(2), b"cd", true),
        Received::OutOfOrder
    );
    // It has a number, which came.
    assert_eq!(sack(&mut r, &pools, 3), [(2, 5)]);
    // What is said to be behind it is not taken; what is before it is.
    assert_eq!(
        r.receive(&mut pools, SeqNum::new(4), b"ef", false),
        Received::BehindFin
    );
    assert_eq!(
        r.receive(&mut pools, SeqNum::new(0), b"abcdef", false),
        Received::InOrder {
            bytes: 4,
            hole: true,
            finished: true
        }
    );
    assert_eq!(r.next(), SeqNum::new(5));
    assert_eq!(r.front(&pools), b"abcd");
    r.clear(&mut pools);
    assert_whole(&mut pools);
}

#[test]
fn a_fin_alone_out_of_order_waits() {
    let (mut r, mut pools) = receiver(0);
    assert_eq!(
        r.receive(&mut pools, SeqNum::new(2), b"", true),
        Received::OutOfOrder
    );
    assert_eq!(sack(&mut r, &pools, 3), []);
    assert!(!r.can_read_in_place(SeqNum::new(0)));
    let received = r.receive(&mut pools, SeqNum::new(0), b"ab", false);
    assert_eq!(
        received,
        Received::InOrder {
            bytes: 2,
            hole: false,
            finished: true
        }
    );
}

/// A FIN before bytes that were received already is a lie of somebody; the bytes count.
#[test]
fn a_fin_that_contradicts_data_is_none() {
    let (mut r, mut pools) = receiver(0);
    let _ = r.receive(&mut pools, SeqNum::new(4), b"ef", false);
    assert_eq!(
        r.receive(&mut pools, SeqNum::new(0), b"ab", true),
        in_order(2, true)
    );
    assert_eq!(
        r.receive(&mut pools, SeqNum::new(2), b"cd", false),
        in_order(4, true)
    );
    assert!(!r.is_finished());
}

#[test]
fn in_place_copies_the_rest_only() {
    let (mut r, mut pools) = receiver(0);
    assert!(r.can_read_in_place(SeqNum::new(0)) && !r.can_read_in_place(SeqNum::new(1)));
    assert_eq!(
        r.receive_in_place(&mut pools, b"request", 7, false),
        in_order(7, false)
    );
    assert_whole(&mut pools);
    assert_eq!((r.next(), r.readable()), (SeqNum::new(7), 0));
    assert_eq!(
        r.receive_in_place(&mut pools, b"request", 3, false),
        in_order(7, false)
    );
    assert_eq!(r.front(&pools), b"uest");
    assert!(!r.can_read_in_place(SeqNum::new(14)));
    r.consume(&mut pools, 4);
    assert!(r.can_read_in_place(SeqNum::new(14)));
    let last = r.receive_in_place(&mut pools, b"bye", 9, true);
    assert_eq!(
        last,
        Received::InOrder {
            bytes: 3,
            hole: false,
            finished: true
        }
    );

    // Without memory: what was read stays received, the rest is refused.
    let mut pools = ReceivePools::new(0, 0);
    let mut r = Receiver::new(SeqNum::new(0));
    assert_eq!(
        r.receive_in_place(&mut pools, b"request", 3, false),
        in_order(3, false)
    );
    assert_eq!(r.next(), SeqNum::new(3));
    assert_eq!(
        r.receive_in_place(&mut pools, b"uest", 0, true),
        Received::NoMemory
    );
    assert_eq!(pools.shortages().in_order_bytes, 8);
}

/// A range more than allowed is refused; one that grows or joins is not one more.
#[test]
fn ranges_are_limited() {
    let (mut r, mut pools) = receiver(0);
    for index in 1..=u32::from(RANGES_MAX) {
        let received = get(&mut r, &mut pools, 10 * index, 10 * index + 2);
        assert_eq!(received, Received::OutOfOrder);
    }
    assert_eq!(get(&mut r, &mut pools, 5, 7), Received::TooManyRanges);
    assert_eq!(get(&mut r, &mut pools, 1000, 1007), Received::TooManyRanges);
    assert_eq!(pools.shortages().ranges_bytes, 9);
    assert_eq!(get(&mut r, &mut pools, 8, 10), Received::OutOfOrder);
    assert_eq!(get(&mut r, &mut pools, 12, 20), Received::OutOfOrder);
    assert_eq!(get(&mut r, &mut pools, 1000, 1007), Received::OutOfOrder);
    r.clear(&mut pools);
    assert_whole(&mut pools);
}

#[test]
fn ranges_of_all_connections_are_limited() {
    let mut pools = ReceivePools::new(16, 1);
    let mut one = Receiver::new(SeqNum::new(0));
    let mut other = Receiver::new(SeqNum::new(0));
    assert_eq!(get(&mut one, &mut pools, 5, 7), Received::OutOfOrder);
    assert_eq!(get(&mut other, &mut pools, 5, 7), Received::NoMemory);
    assert!(!other.has_hole());
    // The front of the range there is needs none of its own.
    assert_eq!(get(&mut one, &mut pools, 3, 5), Received::OutOfOrder);
    assert_eq!(get(&mut one, &mut pools, 0, 3), in_order(7, true));
    assert_eq!(get(&mut other, &mut pools, 5, 7), Received::OutOfOrder);
    one.clear(&mut pools);
    other.clear(&mut pools);
    assert_whole(&mut pools);
}

/// Data out of order leaves chunks free for others' data in order.
#[test]
fn out_of_order_cannot_take_the_last_chunks() {
    let mut pools = ReceivePools::new(16, 8);
    let mut one = Receiver::new(SeqNum::new(0));
    let mut other = Receiver::new(SeqNum::new(0));
    assert_eq!(get(&mut one, &mut pools, 1, 40_001), Received::NoMemory);
    assert_eq!(pools.free_chunks(), 16);
    assert_eq!(get(&mut one, &mut pools, 1, 1001), Received::OutOfOrder);
    assert_eq!(
        get(&mut one, &mut pools, 1001, 40_001),
        Received::OutOfOrder
    );
    assert_eq!(pools.free_chunks(), 2);
    assert_eq!(
        pools.shortages().out_of_order_bytes,
        40_000 + 40_000 - 14 * 2048
    );
    assert_eq!(get(&mut other, &mut pools, 0, 4096), in_order(4096, false));
    assert_eq!(pools.free_chunks(), 0);
    assert_eq!(get(&mut other, &mut pools, 4096, 4097), Received::NoMemory);
    assert_eq!(pools.shortages().in_order_bytes, 1);
    // Who has data out of order gives that up, and no more of it than is needed.
    let before = one.out_of_order(&pools);
    assert_eq!(
        get(&mut one, &mut pools, 0, 1),
        in_order(before / 2 + 1, true)
    );
    assert_eq!(
        pools.shortages().given_up_bytes,
        u64::from(before - before / 2)
    );
    // What was refused is taken later.
    assert_eq!(get(&mut other, &mut pools, 4096, 4097), in_order(1, false));
    one.clear(&mut pools);
    other.clear(&mut pools);
    assert_whole(&mut pools);
}

#[test]
fn in_order_goes_before_everything_out_of_order() {
    let mut pools = ReceivePools::new(8, 8);
    let mut r = Receiver::new(SeqNum::new(0));
    for from in [20_000, 30_000, 40_000, 50_000] {
        let _ = get(&mut r, &mut pools, from, from + 1000);
    }
    // Six of eight chunks would be enough for this; four are free.
    assert_eq!(get(&mut r, &mut pools, 0, 12_000), in_order(12_000, true));
    let blocks = sack(&mut r, &pools, 4);
    assert_eq!(blocks, [(30_000, 31_000), (20_000, 21_000)]);
    // The queue has all of them, and no more comes in.
    assert_eq!(
        get(&mut r, &mut pools, 12_000, 30_000),
        in_order(8 * 2048 - 12_000, true)
    );
    assert!(!r.has_hole());
    let next = r.next().get();
    assert_eq!(get(&mut r, &mut pools, next, next + 1), Received::NoMemory);
    assert_eq!(r.next().get(), next);
    r.consume(&mut pools, 2048);
    assert_eq!(get(&mut r, &mut pools, next, next + 1), in_order(1, false));
    r.clear(&mut pools);
    assert_whole(&mut pools);
}

/// Whoever sends every second byte, and then the others, does not make us keep a chunk for each.
#[test]
fn single_bytes_do_not_take_a_chunk_each() {
    let (mut r, mut pools) = receiver(0);
    for start in (0..6400).step_by(64) {
        for at in (start + 1..start + 64).step_by(2) {
            assert_eq!(get(&mut r, &mut pools, at, at + 1), Received::OutOfOrder);
        }
        for at in (start..start + 64).step_by(2) {
            assert_eq!(get(&mut r, &mut pools, at, at + 1), in_order(2, true));
        }
    }
    assert_eq!(CHUNKS - pools.free_chunks(), 6400_u32.div_ceil(2048));
}

#[test]
fn more_than_a_queue_holds_is_refused() {
    let (mut r, mut pools) = receiver(0);
    let received = get(&mut r, &mut pools, QUEUE_BYTES_MAX, QUEUE_BYTES_MAX + 1);
    assert_eq!(received, Received::NoMemory);
    let received = get(&mut r, &mut pools, QUEUE_BYTES_MAX - 1, QUEUE_BYTES_MAX);
    assert_eq!(received, Received::OutOfOrder);
}

/// What a receiver must do, byte by byte.
struct Oracle {
    /// What was received first at each place; at the last one, whether the FIN was reached.
    bytes: Vec<Option<u8>>,
    /// The number of the last segment that touched a range with this byte.
    touched: Vec<u32>,
    next: usize,
    read: usize,
    fin_came: bool,
    segments: u32,
    duplicate: Option<(usize, usize)>,
}

impl Oracle {
    fn new(len: usize) -> Self {
        Self {
            bytes: vec![None; len + 1],
            touched: vec![0; len + 1],
            next: 0,
            read: 0,
            fin_came: false,
            segments: 0,
            duplicate: None,
        }
    }

    /// What came out of order: `(left, right)`.
    fn ranges(&self) -> Vec<(usize, usize)> {
        let mut ranges = Vec::new();
        let mut at = self.next;
        while at < self.bytes.len() {
            let len = self.bytes[at..]
                .iter()
                .take_while(|byte| byte.is_some())
                .count();
            if len > 0 {
                ranges.push((at, at + len));
            }
            at += len + 1;
        }
        ranges
    }

    fn receive(&mut self, from: usize, payload: &[u8], fin: bool) -> Received {
        let (to, len) = (from + payload.len(), self.bytes.len() - 1);
        let end = to + usize::from(fin);
        let there: Vec<bool> = (from..end).map(|at| self.bytes[at].is_some()).collect();
        let first = there.iter().position(|&there| there);
        let duplicate = first.map(|first| {
            let count = there[first..].iter().take_while(|&&there| there).count();
            (from + first, from + first + count)
        });
        if end <= self.next {
            self.duplicate = duplicate.or(self.duplicate);
            return Received::Duplicate;
        }
        self.fin_came |= fin;
        let hole = !self.ranges().is_empty();
        if from > self.next && from < to {
            let touching = |&(left, right): &(usize, usize)| left <= to && right >= from;
            let ranges = self.ranges();
            if ranges.len() == usize::from(RANGES_MAX) && !ranges.iter().any(touching) {
                return Received::TooManyRanges;
            }
        }
        self.duplicate = duplicate.or(self.duplicate);
        let new = (from..to).any(|at| self.bytes[at].is_none());
        for (at, &byte) in (from..to).zip(payload) {
            self.bytes[at].get_or_insert(byte);
        }
        self.segments += 1;
        self.touched[from..to].fill(self.segments);
        let start = self.next;
        while self.next < len && self.bytes[self.next].is_some() {
            self.next += 1;
        }
        if from > start {
            return if new || from == to {
                Received::OutOfOrder
            } else {
                Received::Duplicate
            };
        }
        let bytes = u32::try_from(self.next - start).unwrap();
        let finished = self.next == len && self.fin_came;
        if finished {
            self.bytes[len] = Some(0);
            self.next += 1;
        }
        Received::InOrder {
            bytes,
            hole,
            finished,
        }
    }

    fn sack(&mut self, max: usize) -> Vec<(usize, usize)> {
        let duplicate = self.duplicate.take();
        let mut ranges = self.ranges();
        let rank = |&(left, right): &(usize, usize)| {
            let around = duplicate.is_some_and(|(from, to)| left <= from && to <= right);
            (around, self.touched[left..right].iter().max().copied())
        };
        ranges.sort_by_key(|range| core::cmp::Reverse(rank(range)));
        for range in &mut ranges {
            range.1 += usize::from(self.fin_came && range.1 == self.bytes.len() - 1);
        }
        duplicate.into_iter().chain(ranges).take(max).collect()
    }
}

#[derive(Clone, Debug)]
enum Op {
    /// A segment from so many bytes before (negative) or behind RCV.NXT on.
    Segment {
        at: i32,
        len: usize,
        fin: bool,
    },
    /// The next bytes, read in the frame if that is possible.
    InPlace {
        len: usize,
        read: usize,
    },
    Read {
        len: usize,
    },
    Sack {
        max: usize,
    },
}

fn op(scale: i32) -> impl Strategy<Value = Op> {
    let len = usize::try_from(scale).unwrap();
    prop_oneof![
        8 => (-2 * scale..12 * scale, 0..2 * len, any::<bool>())
            .prop_map(|(at, len, fin)| Op::Segment { at, len, fin }),
        3 => (0..len, any::<bool>()).prop_map(|(len, fin)| Op::Segment { at: 0, len, fin }),
        1 => (0..len, 0..len).prop_map(|(len, read)| Op::InPlace { len, read }),
        2 => (0..4 * len).prop_map(|len| Op::Read { len }),
        3 => (0..5_usize).prop_map(|max| Op::Sack { max }),
    ]
}

/// Steps at three scales: bytes, where many ranges come about; segments; and several chunks.
fn ops() -> impl Strategy<Value = Vec<Op>> {
    let ops = |scale| prop::collection::vec(op(scale), 1..60);
    prop_oneof![ops(4), ops(200), ops(2000)]
}

/// Bytes that differ from one segment to the next.
fn payload(segment: usize, len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| u8::try_from((at * 7 + segment * 31) % 251).unwrap())
        .collect()
}

proptest! {
    /// Whatever comes, wherever the numbers wrap: the outcome, RCV.NXT, what can be read and the SACK
    /// blocks are those of a map of bytes, and in the end all memory is there again.
    #[test]
    fn it_is_like_a_map_of_bytes(
        base in prop_oneof![any::<u32>(), u32::MAX - 20_000..=u32::MAX],
        len in 1..9000_usize,
        ops in ops(),
    ) {
        let mut pools = ReceivePools::new(96, u32::from(RANGES_MAX));
        let mut r = Receiver::new(SeqNum::new(base));
        let mut oracle = Oracle::new(len);
        let seq = |at: usize| SeqNum::new(base) + u32::try_from(at).unwrap();
        for (index, op) in ops.into_iter().enumerate() {
            match op {
                Op::Segment { at, len: segment_len, fin } => {
                    let next = i64::try_from(oracle.next).unwrap();
                    let from = usize::try_from((next + i64::from(at)).max(0)).unwrap().min(len);
                    let to = (from + segment_len).min(len);
                    let fin = fin && to == len;
                    if from == to && !fin {
                        continue;
                    }
                    let payload = payload(index, to - from);
                    let received = r.receive(&mut pools, seq(from), &payload, fin);
                    prop_assert_eq!(received, oracle.receive(from, &payload, fin));
                }
                Op::InPlace { len: segment_len, read } => {
                    let from = oracle.next;
                    let possible = oracle.ranges().is_empty()
                        && !oracle.fin_came
                        && oracle.read == from;
                    prop_assert_eq!(r.can_read_in_place(seq(from)), possible);
                    let to = (from + segment_len).min(len);
                    if !possible || from == to {
                        continue;
                    }
                    let payload = payload(index, to - from);
                    let received = r.receive_in_place(&mut pools, &payload, read, to == len);
                    prop_assert_eq!(received, oracle.receive(from, &payload, to == len));
                    oracle.read += read.min(payload.len());
                }
                Op::Read { len } => check_read(&mut r, &mut pools, &mut oracle, len)?,
                Op::Sack { max } => {
                    let blocks = r.sack_blocks(&pools, max);
                    let expected = oracle.sack(max);
                    prop_assert_eq!(blocks.len(), expected.len());
                    for (block, (left, right)) in blocks.iter().zip(expected) {
                        prop_assert_eq!((block.left, block.right), (seq(left), seq(right)));
                    }
                }
            }
            prop_assert_eq!(r.next(), seq(oracle.next));
            prop_assert_eq!(r.readable() as usize, oracle.next.min(len) - oracle.read);
            let ranges = oracle.ranges();
            let bytes: usize = ranges.iter().map(|(left, right)| right - left).sum();
            prop_assert_eq!(r.out_of_order(&pools) as usize, bytes);
            prop_assert_eq!(r.has_hole(), !ranges.is_empty());
            prop_assert_eq!(usize::from(r.ranges), ranges.len());
            prop_assert_eq!(r.has_sack(), !ranges.is_empty() || oracle.duplicate.is_some());
        }
        while !r.is_finished() {
            let from = oracle.next;
            let to = (from + 1448).min(len);
            let payload = payload(from, to - from);
            let received = r.receive(&mut pools, seq(from), &payload, to == len);
            prop_assert_eq!(received, oracle.receive(from, &payload, to == len));
        }
        check_read(&mut r, &mut pools, &mut oracle, len)?;
        prop_assert_eq!(oracle.read, len);
        prop_assert_eq!(pools.shortages().in_order_bytes, 0);
        assert_whole(&mut pools);
    }

    /// Two connections with far too little memory: nothing is lost that was acknowledged, nothing
    /// is kept that nobody has, and whoever reads gets on.
    #[test]
    fn short_memory_delays_but_does_not_corrupt(
        chunks in 1..12_u32,
        ranges in 0..6_u32,
        steps in prop::collection::vec(
            (0..2_usize, -3000..12_000_i32, 1..5000_usize, 0..6000_usize),
            1..80,
        ),
    ) {
        const LEN: usize = 40_000;
        let stream: Vec<u8> = payload(1, LEN);
        let base = SeqNum::new(u32::MAX - 10_000);
        let mut pools = ReceivePools::new(chunks, ranges);
        let mut both = [(Receiver::new(base), 0), (Receiver::new(base), 0)];
        let mut get = |who: usize, at: i32, len: usize, read: usize| {
            let (r, done) = &mut both[who];
            let next = r.next().offset_from(base).min(u32::try_from(LEN).unwrap()) as usize;
            let from = next.saturating_add_signed(isize::try_from(at).unwrap()).min(LEN);
            let to = (from + len).min(LEN);
            let seq = base + u32::try_from(from).unwrap();
            let before = pools.shortages();
            let received = r.receive(&mut pools, seq, &stream[from..to], to == LEN);
            // What is refused has a number of bytes, and nothing else has.
            let refused = pools.shortages().in_order_bytes > before.in_order_bytes
                || pools.shortages().out_of_order_bytes > before.out_of_order_bytes;
            if received == Received::NoMemory {
                assert!(refused);
                assert_eq!(r.next().offset_from(base) as usize, next);
            }
            let mut last = None;
            for range in pools.ranges.iter(r.first) {
                assert!(range.left.after(last.unwrap_or(r.next())) && !range.queue.is_empty());
                last = Some(range.right());
            }
            assert_eq!(pools.ranges.iter(r.first).count(), usize::from(r.ranges));
            let mut out = vec![0; read];
            let count = r.read(&mut pools, &mut out);
            assert_eq!(out[..count], stream[*done..*done + count]);
            *done += count;
            (received, r.is_finished() && *done == LEN)
        };
        for (who, at, len, read) in steps {
            let _ = get(who, at, len, read);
        }
        // Once both are read, a chunk is free, or data out of order can be given up; whoever has
        // none waits for the other.
        for _ in 0..2 {
            for who in [0, 1] {
                let mut rounds = 0;
                while !get(who, 0, 1448, LEN).1 && rounds < 4 * LEN / 1448 {
                    rounds += 1;
                }
            }
        }
        let done = [get(0, 0, 1448, LEN).1, get(1, 0, 1448, LEN).1];
        prop_assert_eq!(done, [true, true]);
        assert_whole(&mut pools);
    }
}

fn check_read(
    r: &mut Receiver,
    pools: &mut ReceivePools,
    oracle: &mut Oracle,
    len: usize,
) -> Result<(), TestCaseError> {
    let front = r.front(pools).len();
    prop_assert_eq!(front == 0, r.readable() == 0);
    let mut out = vec![0; len];
    let count = r.read(pools, &mut out);
    let end = oracle.next.min(oracle.bytes.len() - 1);
    prop_assert_eq!(count, len.min(end - oracle.read));
    let expected = &oracle.bytes[oracle.read..oracle.read + count];
    prop_assert!(
        out[..count]
            .iter()
            .zip(expected)
            .all(|(&got, &byte)| Some(got) == byte)
    );
    oracle.read += count;
    Ok(())
}
