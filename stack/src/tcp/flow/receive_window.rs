//! What this end is ready to take, and when it is worth telling the peer that it is more.
//!
//! ```text
//!    read by the      RCV.USER           RCV.WND
//!    application  ├──────────────┼──────────────────────┤
//!  ───────────────┼──────────────┼──────────────────────┼────────┼────► sequence numbers
//!                 │           RCV.NXT                 edge       │
//!                 └───────────────── RCV.BUFF, capacity ─────────┘
//!                                                       └ not told yet ┘
//! ```
//!
//! The right edge never moves left (SHLD-14): what was promised can be sent, and is accepted.
//!
//! The capacity grows while the application reads as fast as data comes (dynamic right-sizing, as
//! in Linux): what it read in one round trip, the peer could send in one; so twice that, for the
//! window not to be what limits the peer.

use super::{WINDOW_MAX, WINDOW_SCALE_MAX};
use crate::tcp::seq::SeqNum;
use crate::time::Instant;

/// The round-trip time that counts where none was measured, in microseconds: a path once around
/// half the earth. Too long a guess makes the buffer grow faster, up to its limit.
const RTT_UNKNOWN_US: u32 = 100_000;

/// A capacity grows by this many segments beyond twice what was read in a round trip, so that the
/// smallest windows grow too; Linux has the same number.
const HEADROOM_SEGMENTS: u32 = 16;

/// Our window: RCV.WND, and how large RCV.BUFF may become.
// Packed: nothing of a connection, of which there are very many, is padding.
#[derive(Clone, Debug)]
#[repr(Rust, packed)]
pub struct ReceiveWindow {
    /// The first sequence number nothing was promised for: the right edge, RCV.NXT + RCV.WND.
    edge: SeqNum,
    /// RCV.BUFF: bytes that may wait to be read.
    capacity: u32,
    /// Bytes the application has read in this round trip.
    consumed: u32,
    /// The most it read in one round trip before.
    consumed_max: u32,
    /// When this round trip began, in units of 1024 ns; wraps after 73 minutes, after which one
    /// round may be taken for longer or shorter than it was.
    round_start: u32,
    /// Rcv.Wind.Shift (RFC 7323 §2.2).
    scale: u8,
}

/// How full the receive buffer is.
#[derive(Clone, Copy, Debug)]
pub struct Space {
    /// RCV.NXT.
    pub next: SeqNum,
    /// RCV.USER: bytes in order that wait to be read.
    pub buffered: u32,
    /// Bytes that memory still allows, however large the capacity is.
    pub memory: u32,
    /// Bytes of data in a full segment.
    pub mss: u16,
}

/// The shift with which a window of `limit` bytes fits its field: 0 to 14.
#[must_use]
pub const fn scale_for(limit: u32) -> u8 {
    let mut scale = 0;
    while scale < WINDOW_SCALE_MAX && limit >> scale > u16::MAX as u32 {
        scale += 1;
    }
    scale
}

impl ReceiveWindow {
    /// `next`: the sequence number after the peer's SYN. `capacity`: bytes that may wait to be
    /// read, at first; `limit`: and at most, 2³⁰ − 2¹⁴ or less. `scale`: the shift this end has
    /// offered, or 0 if either end did not. The segment with SYN has promised
    /// [`syn_field`]`(capacity)`.
    #[must_use]
    pub fn new(next: SeqNum, capacity: u32, limit: u32, scale: u8, now: Instant) -> Self {
        let limit = limit.min(WINDOW_MAX);
        let capacity = capacity.min(limit);
        Self {
            edge: next + u32::from(syn_field(capacity)),
            capacity,
            consumed: 0,
            // What is read before there was a first full round of `capacity` / 2 is no reason to
            // grow.
            consumed_max: capacity / 2,
            round_start: ticks(now),
            scale: scale.min(WINDOW_SCALE_MAX),
        }
    }

    /// The right edge: segments at or after it are outside the window.
    #[inline]
    #[must_use]
    pub const fn edge(&self) -> SeqNum {
        self.edge
    }

    /// RCV.WND: bytes from `next` (RCV.NXT) to the right edge.
    #[inline]
    #[must_use]
    pub const fn window(&self, next: SeqNum) -> u32 {
        if next.before(self.edge) {
            self.edge.offset_from(next)
        } else {
            0
        }
    }

    /// RCV.BUFF, in bytes: what may wait to be read. Grows, up to its limit.
    #[must_use]
    pub const fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Rcv.Wind.Shift: 0 to 14.
    #[must_use]
    pub const fn scale(&self) -> u8 {
        self.scale
    }

    /// The window field of a segment that is sent now, without SYN; what it promises is kept.
    #[inline]
    pub fn advertise(&mut self, space: &Space) -> u16 {
        let current = self.window(space.next);
        // Most of the time the edge could not move far enough if the whole buffer were free.
        let window = if self.capacity < current.saturating_add(self.worth(space)) {
            current
        } else {
            self.next_window(space, current)
        };
        let field = if window > current {
            window >> self.scale
        } else {
            self.kept_field(space, current)
        };
        // Fits: `next_window` is at most 2¹⁶−1 shifted, and the edge only came from it.
        let field = u16::try_from(field).unwrap_or(u16::MAX);
        let promised = space.next + (u32::from(field) << self.scale);
        self.edge = self.edge.later(promised);
        field
    }

    /// Whether a segment is worth sending only to tell that the window is larger, after the
    /// application has read: it is at least twice what the peer knows of, and by as much as silly
    /// window avoidance asks for.
    #[inline]
    #[must_use]
    pub fn update_due(&self, space: &Space) -> bool {
        let current = self.window(space.next);
        // Most reads: the peer still has more than half of the buffer ahead.
        current <= self.capacity / 2 && {
            let window = self.next_window(space, current);
            window > current && window / 2 >= current
        }
    }

    /// The window that silly window avoidance allows: `current`, or all there is
    /// (MUST-39; RFC 9293 §3.8.6.2.2).
    #[inline]
    fn next_window(&self, space: &Space, current: u32) -> u32 {
        let free = self
            .capacity
            .saturating_sub(space.buffered)
            .min(space.memory)
            .min(u32::from(u16::MAX) << self.scale);
        // What the field can tell.
        let open = free >> self.scale << self.scale;
        // "RCV.BUFF - RCV.USER - RCV.WND >= min( Fr * RCV.BUFF, Eff.snd.MSS )", Fr = 1/2. A
        // window that cannot grow by a unit of the field's does not.
        if open >= current.saturating_add(self.worth(space)) {
            open
        } else {
            current
        }
    }

    /// By how many bytes the window has to grow for it to be told: see
    /// [`next_window`](Self::next_window).
    #[inline]
    fn worth(&self, space: &Space) -> u32 {
        (self.capacity / 2).min(u32::from(space.mss)).max(1)
    }

    /// The field for a right edge that stays where it is.
    #[inline]
    fn kept_field(&self, space: &Space, current: u32) -> u32 {
        let unit = 1 << self.scale;
        let floor = current >> self.scale;
        // RFC 7323 §2.4: a window that is no multiple of the unit would shrink when rounded down.
        // Rounded up it promises at most a unit more than the buffer holds; only where that was
        // promised already it does shrink, in the field and not in what is accepted.
        let up = current.saturating_add(unit - 1) >> self.scale;
        let most = (self.capacity + unit).saturating_sub(space.buffered);
        if up << self.scale <= most { up } else { floor }
    }

    /// The application has read `bytes`. `rtt_us`: a round-trip time in microseconds, 0 if none is
    /// known; `mss`: bytes of data in a full segment; `limit`: as for [`new`](Self::new). Once a round
    /// trip this may enlarge the capacity.
    #[inline]
    pub fn on_consumed(&mut self, bytes: u32, mss: u16, rtt_us: u32, limit: u32, now: Instant) {
        self.consumed = self.consumed.saturating_add(bytes);
        let rtt_us = if rtt_us == 0 { RTT_UNKNOWN_US } else { rtt_us };
        // 1/1.024 is 1 - 1/64 - 1/128.
        let round = rtt_us - rtt_us / 64 - rtt_us / 128;
        let now = ticks(now);
        if now.wrapping_sub(self.round_start) >= round {
            self.end_round(mss, limit.min(WINDOW_MAX));
            self.round_start = now;
        }
    }

    /// A round trip is over: was it more than any before?
    fn end_round(&mut self, mss: u16, limit: u32) {
        let consumed = self.consumed;
        self.consumed = 0;
        if consumed <= self.consumed_max {
            return;
        }
        // The peer's window doubles in a round trip of slow start, and the application reads what
        // was sent a round trip ago: four times, while it grows by more than a half each time.
        let growing = consumed / 3 * 2 > self.consumed_max;
        let wanted = consumed
            .saturating_mul(if growing { 4 } else { 2 })
            .saturating_add(HEADROOM_SEGMENTS * u32::from(mss));
        self.consumed_max = consumed;
        self.capacity = self.capacity.max(wanted.min(limit));
    }
}

/// The window field of a segment with SYN, which is not scaled (RFC 7323 §2.2). `capacity`: bytes
/// that may wait to be read.
#[must_use]
pub const fn syn_field(capacity: u32) -> u16 {
    if capacity > u16::MAX as u32 {
        u16::MAX
    } else {
        #[expect(clippy::cast_possible_truncation, reason = "compared just above")]
        {
            capacity as u16
        }
    }
}

/// `now` in units of 1024 ns.
#[expect(
    clippy::cast_possible_truncation,
    reason = "differences are taken modulo 2³²"
)]
const fn ticks(now: Instant) -> u32 {
    (now.as_nanos() >> 10) as u32
}

const _: () = assert!(size_of::<ReceiveWindow>() <= 24);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;
    use proptest::prelude::*;

    const NEXT: SeqNum = SeqNum::new(u32::MAX - 1000);
    const MSS: u16 = 1000;

    fn fixed(capacity: u32, scale: u8) -> ReceiveWindow {
        ReceiveWindow::new(NEXT, capacity, capacity, scale, Instant::ZERO)
    }

    fn space(received: u32, buffered: u32) -> Space {
        Space {
            next: NEXT + received,
            buffered,
            memory: u32::MAX,
            mss: MSS,
        }
    }

    /// RFC 7323 §2.2, §2.3.
    #[test]
    fn the_scale_fits_the_limit() {
        for (limit, scale) in [
            (0, 0),
            (65_535, 0),
            (65_536, 1),
            (131_071, 1),
            (131_072, 2),
            (6 << 20, 7),
            (WINDOW_MAX, 14),
            (u32::MAX, 14),
        ] {
            assert_eq!(scale_for(limit), scale, "{limit}");
        }
        assert_eq!((syn_field(65_535), syn_field(65_536)), (65_535, 65_535));
        assert_eq!(syn_field(1234), 1234);
    }

    /// SHLD-14: whatever is buffered, the right edge does not move left.
    #[test]
    fn shld_14_the_window_does_not_shrink() {
        let mut w = fixed(8000, 0);
        assert_eq!(w.advertise(&space(0, 0)), 8000);
        // 1000 came and were not read: the edge stays.
        assert_eq!(w.advertise(&space(1000, 1000)), 7000);
        // Memory ran short: what was promised stays promised.
        let short = Space {
            memory: 0,
            ..space(1000, 1000)
        };
        assert_eq!(w.advertise(&short), 7000);
        assert_eq!(w.advertise(&space(8000, 8000)), 0);
        assert_eq!(w.window(NEXT + 8000), 0);
    }

    /// MUST-39: the window opens by a segment or by half of the buffer, and not by less.
    #[test]
    fn must_39_the_window_opens_by_more_than_a_little() {
        let mut w = fixed(8000, 0);
        w.advertise(&space(0, 0));
        assert_eq!(w.advertise(&space(8000, 8000)), 0);
        assert_eq!(w.advertise(&space(8000, 7001)), 0);
        assert!(!w.update_due(&space(8000, 7001)));
        assert!(w.update_due(&space(8000, 7000)));
        assert_eq!(w.advertise(&space(8000, 7000)), 1000);
        // A buffer smaller than two segments: half of it.
        let mut w = fixed(1200, 0);
        w.advertise(&space(0, 0));
        assert_eq!(w.advertise(&space(1200, 1200)), 0);
        assert_eq!(w.advertise(&space(1200, 601)), 0);
        assert_eq!(w.advertise(&space(1200, 600)), 600);
    }

    /// An ACK of its own for a larger window is sent rarely, and before the peer must stop.
    #[test]
    fn window_updates_are_rare_and_in_time() {
        let mut w = fixed(64_000, 0);
        w.advertise(&space(0, 0));
        let (mut updates, mut received) = (0, 0_u32);
        // The peer fills the window; the application reads a segment at a time.
        let mut buffered = 0;
        for _ in 0..1000 {
            while w.window(NEXT + received) >= 1000 {
                received += 1000;
                buffered += 1000;
            }
            buffered -= 1000;
            if w.update_due(&space(received, buffered)) {
                updates += 1;
                w.advertise(&space(received, buffered));
            }
        }
        assert!(received > 900_000, "the peer never stops for long");
        assert!(updates > 0 && updates <= 1000, "{updates}");
        // With more than half of the buffer ahead nothing is due.
        let w = fixed(64_000, 0);
        assert!(!w.update_due(&space(20_000, 0)));
        assert!(w.update_due(&space(40_000, 0)));
    }

    /// Reading what filled the buffer, a segment at a time: an update each time the window is twice
    /// what the peer knows of, until it is half of the buffer.
    #[test]
    fn updates_double_the_window() {
        let mut w = fixed(64_000, 0);
        w.advertise(&space(0, 0));
        assert_eq!(w.advertise(&space(64_000, 64_000)), 0);
        let mut told = alloc::vec::Vec::new();
        for read in 1..=64 {
            let space = space(64_000, 64_000 - read * 1000);
            if w.update_due(&space) {
                told.push(w.advertise(&space));
            }
        }
        assert_eq!(told, [1000, 2000, 4000, 8000, 16_000, 32_000, 64_000]);
    }

    /// Memory that is short keeps the window from opening.
    #[test]
    fn the_window_opens_only_as_far_as_memory_allows() {
        let mut w = fixed(64_000, 0);
        let short = |memory| Space {
            memory,
            ..space(64_000, 0)
        };
        assert_eq!(w.advertise(&short(0)), 0);
        assert_eq!(w.advertise(&short(5000)), 5000);
    }

    /// RFC 7323 §2.4: with a scale, too, what the peer sees does not move left, as long as the
    /// buffer allows; and bytes that come one by one do not keep a window open for ever.
    #[test]
    fn rounding_neither_shrinks_nor_keeps_the_window_open() {
        let mut w = fixed(1 << 20, 7);
        let mut edge = NEXT + (u32::from(w.advertise(&space(0, 0))) << 7);
        for received in (0..500_000).step_by(1001) {
            // Read at once, but never enough of it at once for the window to open.
            let space = Space {
                mss: u16::MAX,
                ..space(received, 0)
            };
            let seen = space.next + (u32::from(w.advertise(&space)) << 7);
            assert!(seen.at_or_after(edge), "at {received}");
            edge = seen;
        }
        let mut w = fixed(100_000, 14);
        w.advertise(&space(0, 0));
        let mut received = 0;
        while u32::from(w.advertise(&space(received, received))) > 0 {
            received += 1;
            assert!(received <= 100_000 + (1 << 14));
        }
    }

    /// MUST-1 on the sending side: a full field, and the largest shift.
    #[test]
    fn the_largest_window_there_is() {
        let mut w = fixed(u32::MAX, 14);
        assert_eq!(w.capacity(), WINDOW_MAX);
        assert_eq!(w.advertise(&space(0, 0)), u16::MAX);
        assert_eq!(w.window(NEXT), WINDOW_MAX);
        // Without a scale the field is the limit, not the capacity.
        let mut w = fixed(1 << 20, 0);
        assert_eq!(w.advertise(&space(0, 0)), u16::MAX);
    }

    /// An application that keeps up gets a larger window, one that does not keeps what it has.
    #[test]
    fn the_capacity_follows_what_is_read_in_a_round_trip() {
        const RTT_US: u32 = 20_000;
        // A little longer than a round trip, for the coarser unit rounds are measured in.
        const STEP: Duration = Duration::from_micros(20_010);
        let mut w = ReceiveWindow::new(NEXT, 64 << 10, 4 << 20, 7, Instant::ZERO);
        let mut now = Instant::ZERO;
        // 10 000 bytes a round trip: 64 KiB are enough.
        for _ in 0..100 {
            now = now + STEP;
            w.on_consumed(10_000, MSS, RTT_US, 4 << 20, now);
        }
        assert_eq!(w.capacity(), 64 << 10);
        // 60 000: twice that, and growing fast at first.
        now = now + STEP;
        w.on_consumed(60_000, MSS, RTT_US, 4 << 20, now);
        assert_eq!(w.capacity(), 4 * 60_000 + 16_000);
        // Many small reads in a round count together; a little more is doubled only.
        for _ in 0..7 {
            w.on_consumed(10_000, MSS, RTT_US, 4 << 20, now);
        }
        assert_eq!(w.capacity(), 4 * 60_000 + 16_000, "the round is not over");
        now = now + STEP;
        w.on_consumed(60_000, MSS, RTT_US, 4 << 20, now);
        assert_eq!(w.capacity(), 4 * 130_000 + 16_000);
        now = now + STEP;
        w.on_consumed(180_000, MSS, RTT_US, 4 << 20, now);
        assert_eq!(w.capacity(), 4 * 130_000 + 16_000, "2 * 180 000 is less");
        // Up to the limit, whatever is read.
        now = now + STEP;
        w.on_consumed(u32::MAX, MSS, RTT_US, 4 << 20, now);
        assert_eq!(w.capacity(), 4 << 20);
    }

    /// The units of 1024 ns come to a round of the length that was asked for.
    #[test]
    fn a_round_lasts_a_round_trip() {
        for rtt_us in [0, 1000, 20_000, 1_000_000] {
            let lasts_us = if rtt_us == 0 { RTT_UNKNOWN_US } else { rtt_us };
            let ends = |us: u32| {
                let mut w = ReceiveWindow::new(NEXT, 1000, 1 << 20, 7, Instant::ZERO);
                w.on_consumed(
                    5000,
                    MSS,
                    rtt_us,
                    1 << 20,
                    Instant::ZERO + Duration::from_micros(us.into()),
                );
                w.capacity() > 1000
            };
            assert!(!ends(lasts_us - lasts_us / 100 - 2), "{rtt_us}");
            assert!(ends(lasts_us + lasts_us / 100 + 2), "{rtt_us}");
        }
    }

    proptest! {
        /// A peer that sends any amount within what it was told, an application that reads any
        /// amount, memory that comes and goes: what the peer was told is accepted, the buffer
        /// overflows by less than a unit of the field, and the peer's view shrinks by less than
        /// that.
        #[test]
        fn promises_are_kept(
            capacity in 1_u32..3_000_000, scale in 0_u8..=14,
            steps in proptest::collection::vec((0_u32..70_000, 0_u32..70_000, any::<bool>()), 1..200),
        ) {
            let unit = 1_u32 << scale;
            let mut w = ReceiveWindow::new(NEXT, capacity, capacity, scale, Instant::ZERO);
            let mut peer_edge = w.edge();
            let (mut next, mut buffered) = (NEXT, 0);
            for (sent, read, short) in steps {
                let allowed = if next.before(peer_edge) { peer_edge.offset_from(next) } else { 0 };
                let sent = sent.min(allowed);
                next += sent;
                buffered += sent;
                prop_assert!(next.at_or_before(w.edge()), "promised and outside the window");
                prop_assert!(buffered <= capacity + unit, "{buffered} of {capacity}");
                buffered -= read.min(buffered);
                let memory = if short { 0 } else { u32::MAX };
                let space = Space { next, buffered, memory, mss: MSS };
                let due = w.update_due(&space);
                let before = w.window(next);
                let told = u32::from(w.advertise(&space)) << scale;
                let edge = next + told;
                let fallen = if edge.before(peer_edge) { peer_edge.offset_from(edge) } else { 0 };
                prop_assert!(fallen < unit, "shrunk by {fallen}");
                prop_assert!(!due || told > before);
                peer_edge = edge;
            }
            // Read everything: it opens again, unless not even a unit of the field fits.
            let space = Space { next, buffered: 0, memory: u32::MAX, mss: MSS };
            let told = u32::from(w.advertise(&space)) << scale;
            prop_assert!(told > 0 || capacity < unit);
        }
    }
}
