//! When an acknowledgment goes (RFC 9293 §3.8.6.3, RFC 5681 §4.2).
//!
//! Data that arrived is acknowledged at once, or a little later in the hope that a segment with
//! data can carry the ACK, or that one ACK does for two segments. "At once" means after everything
//! else that arrived with it was processed (MUST-59), and unless data goes out before that.

use crate::time::{Duration, Instant};

/// How many ACKs are not delayed at the start and after idling: the peer is in slow start, which
/// runs on ACKs. Sixteen cover an initial window (RFC 6928) and a half; Linux has the same number.
pub const QUICK_ACKS: u8 = 16;

/// A full segment is at least this large: what a host may send that knows nothing of the path
/// (RFC 9293 §3.7.1). Below it segments are small because there is little to send.
const FULL_SEGMENT_MIN: u16 = 536;

/// `last` counts in units of 2^26 ns, 67 ms.
const LAST_SHIFT: u32 = 26;

/// Four units, 201 to 268 ms: about the least retransmission timeout in use (Linux: 200 ms), after
/// which an idle peer starts from a small window again (RFC 5681 §4.1).
const IDLE_UNITS: u16 = 4;

/// How long an ACK may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckDelay(Duration);

impl AckDelay {
    /// MUST-40: less than half a second, whatever it takes to notice that the time is up. 50 ms
    /// are left for that.
    pub const MAX: Duration = Duration::from_millis(450);

    /// Long enough for an application to answer, and short enough not to be mistaken for a loss
    /// by a peer whose retransmission timeout is 200 ms. Linux starts from 40 ms too.
    pub const DEFAULT: Self = Self(Duration::from_millis(40));

    /// None if it is longer than [`MAX`](Self::MAX). Zero: ACKs are never delayed.
    #[must_use]
    pub const fn new(delay: Duration) -> Option<Self> {
        if delay.as_nanos() <= Self::MAX.as_nanos() {
            Some(Self(delay))
        } else {
            None
        }
    }

    /// The delay.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl Default for AckDelay {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// How a segment's data fits what came before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// At RCV.NXT, and nothing waits behind it.
    InOrder,
    /// At RCV.NXT, and it fills all or part of a gap.
    FillsGap,
    /// Beyond a gap.
    OutOfOrder,
    /// Nothing new.
    Duplicate,
}

/// When the ACK is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckDue {
    /// As soon as everything that arrived together is processed.
    Now,
    /// At this time.
    Delayed(Instant),
}

/// Whether an ACK is owed, and until when.
#[derive(Clone, Debug)]
pub struct AckPolicy {
    /// When the owed ACK is due; [`NOT_OWED`] if none is.
    due: Instant,
    /// Bytes that arrived since the last ACK went. Saturates.
    pending: u16,
    /// The largest segment seen, in bytes: what a full one is here.
    full_segment: u16,
    /// When data arrived last, in units of 2^26 ns; wraps after 73 minutes.
    last: u16,
    /// How many more ACKs go at once.
    quick: u8,
    /// The application answers: its data carries the ACKs.
    interactive: bool,
}

/// Later than any time: no ACK is owed.
const NOT_OWED: Instant = Instant::NEVER;

impl AckPolicy {
    /// For a connection that has just been established.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            due: NOT_OWED,
            pending: 0,
            full_segment: FULL_SEGMENT_MIN,
            last: units(now),
            quick: QUICK_ACKS,
            interactive: false,
        }
    }

    /// A segment with `len` bytes of data arrived. The answer holds until the next call.
    #[inline(always)]
    pub fn on_data(&mut self, len: u32, arrival: Arrival, delay: AckDelay, now: Instant) -> AckDue {
        let len = u16::try_from(len).unwrap_or(u16::MAX);
        self.full_segment = self.full_segment.max(len);
        self.pending = self.pending.saturating_add(len);
        let unit = units(now);
        if unit.wrapping_sub(self.last) >= IDLE_UNITS {
            self.quick = QUICK_ACKS;
        }
        self.last = unit;

        // RFC 5681 §4.2: out of order, or filling a gap: the sender waits for this.
        // SHLD-19: at least every second full segment.
        let at_once = arrival != Arrival::InOrder
            || self.pending >= self.full_segment.saturating_mul(2)
            || (self.quick > 0 && !self.interactive);
        if at_once {
            return self.owe(now);
        }
        if self.due == NOT_OWED {
            // MUST-40: counted from the first segment that is not acknowledged; later ones do not
            // put it off.
            self.due = now + delay.get();
        }
        AckDue::Delayed(self.due)
    }

    /// An ACK is owed at once for another reason: a FIN, a segment outside the window, a window
    /// update.
    pub fn owe(&mut self, now: Instant) -> AckDue {
        self.due = self.due.min(now);
        AckDue::Now
    }

    /// A segment with an ACK went; every segment but a first SYN or an RST has one.
    /// `with_data`: it carried data.
    #[inline]
    pub fn on_ack_sent(&mut self, with_data: bool) {
        if self.due == NOT_OWED {
            return;
        }
        self.due = NOT_OWED;
        self.pending = 0;
        if with_data {
            self.interactive = true;
        } else {
            self.quick = self.quick.saturating_sub(1);
        }
    }

    /// Whether an ACK is due at `now`. The caller sends it, or data, and says so with
    /// [`on_ack_sent`](Self::on_ack_sent).
    #[inline]
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        self.due <= now
    }

    /// Whether an ACK is owed, now or later.
    #[inline]
    #[must_use]
    pub fn is_owed(&self) -> bool {
        self.due != NOT_OWED
    }

    /// When the owed ACK is due, if one is.
    #[inline]
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.is_owed().then_some(self.due)
    }

    /// The timer expired, perhaps: whether an ACK is due. If it is, waiting was in vain: the
    /// application does not answer that soon, and the next ACKs are worth more than the hope.
    pub fn on_timer(&mut self, now: Instant) -> bool {
        let due = self.is_due(now);
        if due {
            self.interactive = false;
        }
        due
    }
}

/// `now` in units of 2^26 ns.
#[expect(
    clippy::cast_possible_truncation,
    reason = "differences are taken modulo 2¹⁶"
)]
const fn units(now: Instant) -> u16 {
    (now.as_nanos() >> LAST_SHIFT) as u16
}

const _: () = assert!(size_of::<AckPolicy>() <= 16);

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: AckDelay = AckDelay::DEFAULT;

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    /// A connection past its first, quick ACKs.
    fn calm() -> AckPolicy {
        let mut policy = AckPolicy::new(at(0));
        for _ in 0..QUICK_ACKS {
            assert_eq!(
                policy.on_data(10, Arrival::InOrder, DELAY, at(0)),
                AckDue::Now
            );
            policy.on_ack_sent(false);
        }
        policy
    }

    /// MUST-40: less than half a second, and counted from the first segment.
    #[test]
    fn must_40_acks_wait_less_than_half_a_second() {
        assert!(AckDelay::MAX < Duration::from_millis(500));
        assert_eq!(AckDelay::new(Duration::from_millis(500)), None);
        let longest = AckDelay::new(AckDelay::MAX).unwrap();
        let mut policy = calm();
        let due = AckDue::Delayed(at(450));
        assert_eq!(policy.on_data(10, Arrival::InOrder, longest, at(0)), due);
        assert_eq!(policy.on_data(10, Arrival::InOrder, longest, at(100)), due);
        assert!(!policy.is_due(at(449)));
        assert!(policy.is_due(at(450)) && policy.on_timer(at(450)));
        policy.on_ack_sent(false);
        assert_eq!(policy.deadline(), None);
        assert!(!policy.on_timer(at(10_000)));
    }

    /// SHLD-19: every second full segment, or as many bytes in more pieces.
    #[test]
    fn shld_19_every_second_full_segment() {
        let mut policy = calm();
        for _ in 0..5 {
            let first = policy.on_data(1448, Arrival::InOrder, DELAY, at(0));
            assert_eq!(first, AckDue::Delayed(at(40)));
            let second = policy.on_data(1448, Arrival::InOrder, DELAY, at(1));
            assert_eq!(second, AckDue::Now);
            assert!(policy.is_due(at(1)));
            policy.on_ack_sent(false);
        }
        for piece in 1..=8 {
            let due = policy.on_data(362, Arrival::InOrder, DELAY, at(2));
            assert_eq!(due == AckDue::Now, piece == 8, "piece {piece}");
        }
    }

    /// RFC 5681 §4.2: duplicates, gaps and what fills them are acknowledged at once.
    #[test]
    fn what_the_peer_waits_for_is_acknowledged_at_once() {
        for arrival in [Arrival::OutOfOrder, Arrival::FillsGap, Arrival::Duplicate] {
            let mut policy = calm();
            assert_eq!(policy.on_data(10, arrival, DELAY, at(5)), AckDue::Now);
            assert!(policy.is_due(at(5)));
        }
        let mut policy = calm();
        policy.on_data(10, Arrival::InOrder, DELAY, at(5));
        assert_eq!(policy.owe(at(6)), AckDue::Now);
        assert!(policy.is_due(at(6)));
    }

    /// MUST-58: data that goes carries the ACK, and then none is owed.
    #[test]
    fn must_58_data_carries_the_ack() {
        let mut policy = AckPolicy::new(at(0));
        assert_eq!(
            policy.on_data(64, Arrival::InOrder, DELAY, at(0)),
            AckDue::Now
        );
        policy.on_ack_sent(true);
        assert!(!policy.is_owed());
        // The application answers: from now on its answer is waited for, also after idling.
        for request in 1..50 {
            let now = at(request * 1000);
            assert_eq!(
                policy.on_data(64, Arrival::InOrder, DELAY, now),
                AckDue::Delayed(now + DELAY.get())
            );
            policy.on_ack_sent(true);
        }
        // Until once it does not.
        policy.on_data(64, Arrival::InOrder, DELAY, at(60_000));
        assert!(policy.on_timer(at(60_040)));
        policy.on_ack_sent(false);
        assert_eq!(
            policy.on_data(64, Arrival::InOrder, DELAY, at(60_041)),
            AckDue::Now
        );
    }

    /// MUST-59: several segments of one batch leave one ACK owed.
    #[test]
    fn must_59_one_ack_for_a_batch() {
        let mut policy = calm();
        for _ in 0..10 {
            policy.on_data(1448, Arrival::InOrder, DELAY, at(0));
        }
        assert!(policy.is_due(at(0)));
        policy.on_ack_sent(false);
        assert!(!policy.is_owed());
        // Data sent while none is owed says nothing about the application's answers.
        policy.on_ack_sent(true);
        policy.on_data(10, Arrival::InOrder, DELAY, at(500));
        assert!(policy.is_due(at(500)), "quick again after idling");
    }

    /// A peer that starts again from a small window needs its ACKs soon.
    #[test]
    fn after_idling_acks_are_quick_again() {
        let mut policy = calm();
        assert!(matches!(
            policy.on_data(10, Arrival::InOrder, DELAY, at(150)),
            AckDue::Delayed(_)
        ));
        policy.on_ack_sent(false);
        assert_eq!(
            policy.on_data(10, Arrival::InOrder, DELAY, at(500)),
            AckDue::Now
        );
    }

    /// A jumbo segment saturates nothing but the count.
    #[test]
    fn huge_segments_do_not_overflow() {
        let mut policy = calm();
        let due = policy.on_data(u32::MAX, Arrival::InOrder, DELAY, at(0));
        assert_eq!(due, AckDue::Now);
        policy.on_ack_sent(false);
        policy.on_data(65_000, Arrival::InOrder, DELAY, at(0));
        assert_eq!(
            policy.on_data(65_000, Arrival::InOrder, DELAY, at(0)),
            AckDue::Now
        );
    }
}
