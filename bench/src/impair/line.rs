//! One direction: frames go in at one interface and come out, late, damaged or not at all, at the
//! other. Knows no sockets and no clock: time comes in with every call.
//!
//! ```text
//!            queue        wire                              held, until they are due
//!  frame ─► full? rate ─► lost? ─► a bit flipped? ─► delay, jitter, held back, twice ─► frame
//! ```

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use serde::Serialize;

use super::decide::{Decider, Fate, Loss};
use crate::clock::SECOND_NS;

/// Bytes of frames that one direction holds at most: half a second at 1 Gb/s. What comes beyond is
/// dropped and counted, so that a delay asked for by mistake does not take all memory.
pub const HELD_BYTES_MAX: usize = 64 << 20;

/// Memory of a frame is taken in pieces of this size and its powers of two, so that it can be used
/// again for another one. Ordinary frames have 1514 bytes.
const BUFFER_BYTES_MIN: usize = 2048;

/// Length of an Ethernet header without tags.
const ETHERNET_LEN: usize = 14;
const TYPE_IPV4: u16 = 0x0800;
const TYPE_IPV6: u16 = 0x86dd;
/// A tag of IEEE 802.1Q, and one of 802.1ad before it.
const TYPES_VLAN: [u16; 2] = [0x8100, 0x88a8];
const VLAN_LEN: usize = 4;

/// What became of the frames of one direction.
///
/// Whenever no frame is held: `received + duplicated == sent + refused` and all the losses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Frames that came in, as they are on a wire: large sends count once for each frame.
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Frames that went out.
    pub sent: u64,
    /// Frames the outgoing interface did not take: it is down, its queue full, its MTU too small.
    pub refused: u64,
    /// Lost because they were listed.
    pub lost_listed: u64,
    /// Lost in bursts.
    pub lost_burst: u64,
    /// Lost by themselves.
    pub lost_single: u64,
    /// Dropped because the queue before the rate was full.
    pub dropped_queue_full: u64,
    /// Dropped because so many were held that memory ran out, see [`HELD_BYTES_MAX`].
    pub dropped_memory_full: u64,
    /// Copies made.
    pub duplicated: u64,
    /// Frames with a flipped bit.
    pub corrupted: u64,
    /// Frames held back for others to pass.
    pub held_back: u64,
    /// Frames still held when the program ended.
    pub held_at_end: u64,
}

impl Counters {
    /// Frames that were meant to be lost or did not fit.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost_listed
            + self.lost_burst
            + self.lost_single
            + self.dropped_queue_full
            + self.dropped_memory_full
    }
}

/// What [`Line::offer`] did with a frame, for a capture to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What was decided.
    pub fate: Fate,
    /// What the queue or the memory decided instead.
    pub dropped: Option<Full>,
}

/// What there was no room in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The queue before the rate.
    Queue,
    /// The memory for held frames.
    Memory,
}

/// A frame on its way, ordered by when it is due and then by when it came.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    due_ns: u64,
    sequence: u64,
    bytes: Vec<u8>,
}

/// One direction.
#[derive(Debug)]
pub struct Line {
    decider: Decider,
    held: BinaryHeap<Reverse<Held>>,
    /// Memory of frames that left, of [`BUFFER_BYTES_MIN`] each.
    spare: Vec<Vec<u8>>,
    /// Memory of held and spare frames.
    memory_bytes: usize,
    /// When the frames in the queue will have left it, in order.
    leaving_ns: VecDeque<u64>,
    /// When the last frame that was not held back is due: none that is not either comes before it.
    last_due_ns: u64,
    sequence: u64,
    counters: Counters,
}

impl Line {
    /// A direction with nothing under way.
    #[must_use]
    pub fn new(decider: Decider) -> Self {
        Self {
            decider,
            held: BinaryHeap::new(),
            spare: Vec::new(),
            memory_bytes: 0,
            leaving_ns: VecDeque::new(),
            last_due_ns: 0,
            sequence: 0,
            counters: Counters::default(),
        }
    }

    /// What was asked for.
    #[must_use]
    pub fn impairment(&self) -> &super::decide::Impairment {
        self.decider.impairment()
    }

    /// Takes a frame in at `now_ns`, which never decreases.
    pub fn offer(&mut self, frame: &[u8], now_ns: u64) -> Outcome {
        self.counters.received += 1;
        self.counters.received_bytes += frame.len() as u64;
        let fate = self.decider.decide();
        let dropped = self.carry(frame, now_ns, &fate).err();
        match dropped {
            Some(Full::Queue) => self.counters.dropped_queue_full += 1,
            Some(Full::Memory) => self.counters.dropped_memory_full += 1,
            None => {}
        }
        Outcome { fate, dropped }
    }

    fn carry(&mut self, frame: &[u8], now_ns: u64, fate: &Fate) -> Result<(), Full> {
        let left_ns = self.through_the_queue(frame.len(), now_ns)?;
        match fate.lost {
            Some(Loss::Listed) => self.counters.lost_listed += 1,
            Some(Loss::Burst) => self.counters.lost_burst += 1,
            Some(Loss::Single) => self.counters.lost_single += 1,
            None => {}
        }
        if fate.lost.is_some() {
            return Ok(());
        }
        let mut bytes = self.buffer(frame.len())?;
        bytes.extend_from_slice(frame);
        if let Some(draw) = fate.corrupt
            && flip_a_bit(&mut bytes, draw)
        {
            self.counters.corrupted += 1;
        }
        let delay_ns = nanoseconds(self.decider.impairment().delay);
        let mut due_ns = left_ns
            .saturating_add(delay_ns)
            .saturating_add(nanoseconds(fate.jitter))
            .max(self.last_due_ns);
        match fate.held_back {
            Some(by) => {
                self.counters.held_back += 1;
                due_ns = due_ns.saturating_add(nanoseconds(by));
            }
            None => self.last_due_ns = due_ns,
        }
        if fate.is_duplicated {
            let mut copy = self.buffer(bytes.len())?;
            copy.extend_from_slice(&bytes);
            self.counters.duplicated += 1;
            self.hold(due_ns, copy);
        }
        self.hold(due_ns, bytes);
        Ok(())
    }

    /// When the last bit of a frame that comes now has been sent at the rate.
    fn through_the_queue(&mut self, len: usize, now_ns: u64) -> Result<u64, Full> {
        let Some(rate) = self.decider.impairment().rate_bits_per_s else {
            return Ok(now_ns);
        };
        while self.leaving_ns.front().is_some_and(|left| *left <= now_ns) {
            self.leaving_ns.pop_front();
        }
        if self.leaving_ns.len() >= self.decider.impairment().queue_frames {
            return Err(Full::Queue);
        }
        let begins_ns = self.leaving_ns.back().copied().unwrap_or(now_ns);
        let bits = len as u64 * 8;
        // 64 KiB times 8 bits times 10⁹ stays below 2⁶⁴.
        let left_ns = begins_ns.saturating_add((bits * SECOND_NS).div_ceil(rate.max(1)));
        self.leaving_ns.push_back(left_ns);
        Ok(left_ns)
    }

    /// When the next frame is due.
    #[must_use]
    pub fn next_due_ns(&self) -> Option<u64> {
        self.held.peek().map(|Reverse(held)| held.due_ns)
    }

    /// Moves up to `limit` frames that are due at `now_ns` to the end of `out`, in order.
    /// [`Line::sent`] gives their memory back.
    pub fn take_due(&mut self, now_ns: u64, limit: usize, out: &mut Vec<Vec<u8>>) {
        for _ in 0..limit {
            if self.next_due_ns().is_none_or(|due_ns| due_ns > now_ns) {
                return;
            }
            out.extend(self.held.pop().map(|Reverse(held)| held.bytes));
        }
    }

    /// Counts frames that were taken out, and keeps their memory for others.
    pub fn sent(&mut self, frames: impl Iterator<Item = Vec<u8>>, refused: u64) {
        for mut bytes in frames {
            self.counters.sent += 1;
            if bytes.capacity() == BUFFER_BYTES_MIN {
                bytes.clear();
                self.spare.push(bytes);
            } else {
                // A jumbo frame's memory, kept, might never be used again.
                self.memory_bytes -= bytes.capacity();
            }
        }
        self.counters.sent -= refused;
        self.counters.refused += refused;
    }

    /// What became of the frames so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters {
            held_at_end: self.held.len() as u64,
            ..self.counters
        }
    }

    fn hold(&mut self, due_ns: u64, bytes: Vec<u8>) {
        self.sequence += 1;
        self.held.push(Reverse(Held {
            due_ns,
            sequence: self.sequence,
            bytes,
        }));
    }

    /// Empty memory for a frame of this length.
    fn buffer(&mut self, len: usize) -> Result<Vec<u8>, Full> {
        let capacity = len.next_power_of_two().max(BUFFER_BYTES_MIN);
        if capacity == BUFFER_BYTES_MIN
            && let Some(spare) = self.spare.pop()
        {
            return Ok(spare);
        }
        if self.memory_bytes + capacity > HELD_BYTES_MAX {
            // Spare memory is worth less than a frame.
            let freed = self.spare.len() * BUFFER_BYTES_MIN;
            self.spare = Vec::new();
            self.memory_bytes -= freed;
        }
        if self.memory_bytes + capacity > HELD_BYTES_MAX {
            return Err(Full::Memory);
        }
        // Exactly: what `with_capacity` adds would not be counted.
        let bytes = Vec::with_capacity(capacity);
        let capacity = bytes.capacity();
        self.memory_bytes += capacity;
        Ok(bytes)
    }
}

fn nanoseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Flips a bit of the IP packet in an Ethernet frame, if there is one.
fn flip_a_bit(frame: &mut [u8], draw: u64) -> bool {
    let Some(packet) = ip_packet(frame) else {
        return false;
    };
    let bits = packet.len() as u64 * 8;
    if bits == 0 {
        return false;
    }
    let bit = draw % bits;
    let byte = usize::try_from(bit / 8).expect("invariant: below the packet's length");
    packet[byte] ^= 1 << (bit % 8);
    true
}

/// The IP packet of a frame, without the padding that Ethernet may add: a bit flipped there would be
/// flipped for nobody.
fn ip_packet(frame: &mut [u8]) -> Option<&mut [u8]> {
    let be16 = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
    let mut at = ETHERNET_LEN;
    let mut ether_type = be16(at - 2)?;
    while TYPES_VLAN.contains(&ether_type) {
        at += VLAN_LEN;
        ether_type = be16(at - 2)?;
    }
    let len = match ether_type {
        // The total length (RFC 791 §3.1).
        TYPE_IPV4 => usize::from(be16(at + 2)?),
        // The payload length does not count the header (RFC 8200 §3).
        TYPE_IPV6 => 40 + usize::from(be16(at + 4)?),
        _ => return None,
    };
    let end = frame.len().min(at + len);
    frame.get_mut(at..end)
}

#[cfg(test)]
mod tests {
    use super::super::decide::{Direction, Impairment, Probability, Reorder};
    use super::*;
    use std::time::Duration;

    const MS: u64 = 1_000_000;

    fn line(impairment: Impairment) -> Line {
        Line::new(Decider::new(impairment, 1, Direction::AToB))
    }

    /// A frame with a number in it.
    fn frame(number: u16, len: usize) -> Vec<u8> {
        let mut frame = vec![0; len];
        frame[12..14].copy_from_slice(&TYPE_IPV4.to_be_bytes());
        let total = u16::try_from(len - ETHERNET_LEN).unwrap();
        frame[16..18].copy_from_slice(&total.to_be_bytes());
        frame[18..20].copy_from_slice(&number.to_be_bytes());
        frame
    }

    /// Everything that leaves up to a time, as (when, number).
    fn leaving(line: &mut Line, until_ns: u64) -> Vec<(u64, u16)> {
        let mut left = Vec::new();
        while let Some(due_ns) = line.next_due_ns().filter(|due_ns| *due_ns <= until_ns) {
            let mut out = Vec::new();
            line.take_due(due_ns, 1, &mut out);
            let number = u16::from_be_bytes([out[0][18], out[0][19]]);
            left.push((due_ns, number));
            line.sent(out.into_iter(), 0);
        }
        left
    }

    #[test]
    fn a_perfect_line_hands_frames_on_at_once_and_in_order() {
        let mut line = line(Impairment::default());
        for number in 0..100 {
            line.offer(&frame(number, 60 + usize::from(number)), 7);
        }
        let mut out = Vec::new();
        line.take_due(7, 1000, &mut out);
        let expected: Vec<Vec<u8>> = (0..100)
            .map(|number| frame(number, 60 + usize::from(number)))
            .collect();
        assert_eq!(out, expected);
        line.sent(out.into_iter(), 1);
        let counters = line.counters();
        assert_eq!((counters.received, counters.sent), (100, 99));
        assert_eq!((counters.refused, counters.held_at_end), (1, 0));
    }

    #[test]
    fn delay_and_jitter_keep_the_order() {
        let mut line = line(Impairment {
            delay: Duration::from_millis(10),
            jitter: Duration::from_millis(5),
            ..Impairment::default()
        });
        for number in 0..1000 {
            line.offer(&frame(number, 60), u64::from(number) * 1000);
        }
        assert_eq!(leaving(&mut line, 10 * MS - 1), []);
        let left = leaving(&mut line, u64::MAX);
        let numbers: Vec<u16> = left.iter().map(|(_, number)| *number).collect();
        assert_eq!(numbers, (0..1000).collect::<Vec<_>>());
        for (due_ns, number) in left {
            let came_ns = u64::from(number) * 1000;
            assert!((came_ns + 10 * MS..=1000 * 1000 + 15 * MS).contains(&due_ns));
        }
    }

    #[test]
    fn frames_held_back_are_overtaken_and_only_they() {
        let mut line = line(Impairment {
            reorder: Some(Reorder {
                share: Probability::new(0.2).unwrap(),
                by: Duration::from_millis(1),
            }),
            ..Impairment::default()
        });
        let mut late = Vec::new();
        for number in 0..1000 {
            let outcome = line.offer(&frame(number, 60), u64::from(number) * 100_000);
            if outcome.fate.held_back.is_some() {
                late.push(number);
            }
        }
        assert!(!late.is_empty());
        let left = leaving(&mut line, u64::MAX);
        let in_time = left.iter().filter(|(_, number)| !late.contains(number));
        assert!(in_time.is_sorted());
        for (due_ns, number) in &left {
            let came_ns = u64::from(*number) * 100_000;
            let by_ns = if late.contains(number) { MS } else { 0 };
            assert_eq!(*due_ns, came_ns + by_ns, "frame {number}");
        }
        assert_eq!(line.counters().held_back, late.len() as u64);
    }

    #[test]
    fn the_rate_spaces_frames_and_its_queue_is_bounded() {
        // 1000 bytes at 8 Mb/s are a millisecond.
        let mut line = line(Impairment {
            rate_bits_per_s: Some(8_000_000),
            queue_frames: 4,
            ..Impairment::default()
        });
        for number in 0..6 {
            line.offer(&frame(number, 1000), 0);
        }
        assert_eq!(line.counters().dropped_queue_full, 2);
        // One has been sent, and there is room for one.
        line.offer(&frame(6, 1000), MS);
        line.offer(&frame(7, 1000), MS);
        assert_eq!(line.counters().dropped_queue_full, 3);
        let expected = [(MS, 0), (2 * MS, 1), (3 * MS, 2), (4 * MS, 3), (5 * MS, 6)];
        assert_eq!(leaving(&mut line, u64::MAX), expected);
        // An idle line owes nothing for the time before.
        line.offer(&frame(8, 1000), 100 * MS);
        assert_eq!(leaving(&mut line, u64::MAX), [(101 * MS, 8)]);
    }

    #[test]
    fn duplicates_are_the_same_frame() {
        let mut line = line(Impairment {
            duplicate: Probability::new(1.0).unwrap(),
            corrupt: Probability::new(1.0).unwrap(),
            ..Impairment::default()
        });
        line.offer(&frame(1, 100), 0);
        let mut out = Vec::new();
        line.take_due(0, 10, &mut out);
        assert_eq!(out.len(), 2);
        assert_eq!(out[0], out[1]);
        let counters = line.counters();
        assert_eq!((counters.duplicated, counters.corrupted), (1, 1));
    }

    #[test]
    fn corruption_flips_one_bit_of_the_ip_packet() {
        let original = frame(7, 60);
        // Ethernet's padding behind a packet of 30 bytes.
        let mut padded = original.clone();
        padded[16..18].copy_from_slice(&30_u16.to_be_bytes());
        let mut tagged = original.clone();
        tagged.splice(12..12, [0x81, 0, 0, 5]);
        for (frame, range) in [(original, 14..60), (padded, 14..44), (tagged, 18..64)] {
            let mut touched = vec![false; frame.len()];
            for draw in 0..10_000 {
                let mut corrupted = frame.clone();
                assert!(flip_a_bit(&mut corrupted, draw));
                let changed = frame.iter().zip(&corrupted).enumerate();
                let changed = changed.filter(|(_, (one, two))| one != two);
                let [(at, (one, two))] = changed.collect::<Vec<_>>()[..] else {
                    panic!("one byte");
                };
                assert_eq!((one ^ two).count_ones(), 1);
                touched[at] = true;
            }
            let touched: Vec<usize> = (0..frame.len()).filter(|at| touched[*at]).collect();
            assert_eq!(touched, range.collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_is_not_ip_and_what_is_cut_short_is_spared() {
        let mut arp = frame(7, 60);
        arp[12..14].copy_from_slice(&[8, 6]);
        assert!(!flip_a_bit(&mut arp, 1));
        for len in 0..16 {
            let mut short = frame(7, 60);
            short.truncate(len);
            assert!(!flip_a_bit(&mut short, 1), "{len} bytes");
        }
    }

    #[test]
    fn memory_is_bounded_and_used_again() {
        let mut line = line(Impairment {
            delay: Duration::from_secs(1),
            ..Impairment::default()
        });
        let fit = HELD_BYTES_MAX / BUFFER_BYTES_MIN;
        for round in 0..3 {
            let now_ns = round * 2 * SECOND_NS;
            for number in 0..fit + 10 {
                let outcome = line.offer(&frame(1, 1514), now_ns);
                assert_eq!(outcome.dropped.is_some(), number >= fit);
            }
            assert_eq!(line.memory_bytes, HELD_BYTES_MAX);
            let left = leaving(&mut line, now_ns + SECOND_NS);
            assert_eq!(left.len(), fit);
        }
        assert_eq!(line.counters().dropped_memory_full, 30);
        // Jumbo frames find room where ordinary ones left theirs.
        for _ in 0..HELD_BYTES_MAX / (1 << 14) {
            let outcome = line.offer(&frame(1, 9014), 10 * SECOND_NS);
            assert_eq!(outcome.dropped, None);
        }
        assert_eq!(line.memory_bytes, HELD_BYTES_MAX);
        leaving(&mut line, u64::MAX);
        assert_eq!(line.memory_bytes, 0);
    }
}
