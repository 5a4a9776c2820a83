//! NewReno: slow start, congestion avoidance, half the window at a loss (RFC 5681, RFC 6582),
//! counting bytes and not ACKs (RFC 3465).

use super::window::Window;
use super::{AckInfo, CongestionControl, Signal};
use crate::time::Instant;

/// NewReno's state.
#[derive(Clone, Debug)]
pub struct NewReno {
    window: Window,
    /// Bytes acknowledged in congestion avoidance since cwnd last grew: `bytes_acked` of
    /// RFC 3465 §2.1.
    bytes_acked: u32,
}

impl NewReno {
    /// The window was in full use: it grows.
    fn grow(&mut self, ack: &AckInfo) {
        if self.window.in_slow_start() {
            self.window.slow_start(ack);
            return;
        }
        // RFC 3465 §2.1: one segment for every cwnd of bytes acknowledged.
        self.bytes_acked = self.bytes_acked.saturating_add(ack.bytes_acked);
        let cwnd = self.window.cwnd();
        if self.bytes_acked >= cwnd {
            // An ACK for more than a window's worth still adds one segment only.
            self.bytes_acked = (self.bytes_acked - cwnd).min(cwnd - 1);
            self.window.grow_to(cwnd + self.window.mss());
        }
    }

    /// RFC 5681 §3.1 (4): half of what is in flight.
    fn half(&self, flight_size: u32) -> u32 {
        self.window.reducible(flight_size) / 2
    }
}

impl CongestionControl for NewReno {
    const NAME: &'static str = "reno";

    fn new(mss: u16, _now: Instant) -> Self {
        Self {
            window: Window::new(mss),
            bytes_acked: 0,
        }
    }

    #[inline]
    fn on_ack(&mut self, ack: &AckInfo) {
        if !(ack.app_limited || ack.in_recovery) {
            self.grow(ack);
        }
    }

    fn on_signal(&mut self, signal: Signal, _now: Instant) {
        match signal {
            Signal::Loss { flight_size } => {
                self.window.on_loss(self.half(flight_size));
                self.bytes_acked = 0;
            }
            Signal::Rto { flight_size, first } => {
                self.window.on_rto(self.half(flight_size), first);
                self.bytes_acked = 0;
            }
            Signal::Ecn { flight_size } => {
                self.window.on_ecn(self.half(flight_size));
                self.bytes_acked = 0;
            }
            Signal::Undo => {
                self.window.undo();
            }
            Signal::RecoveryExit => self.window.exit_recovery(),
            Signal::SynLost => self.window.on_syn_lost(),
        }
    }

    fn after_idle(&mut self, _now: Instant) {
        self.window.after_idle();
        self.bytes_acked = 0;
    }

    #[inline]
    fn cwnd(&self) -> u32 {
        self.window.cwnd()
    }

    #[inline]
    fn ssthresh(&self) -> u32 {
        self.window.ssthresh()
    }

    fn set_mss(&mut self, mss: u16) {
        self.window.set_mss(mss);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1448;

    fn reno() -> NewReno {
        NewReno::new(1448, Instant::ZERO)
    }

    fn ack(bytes_acked: u32) -> AckInfo {
        AckInfo {
            bytes_acked,
            in_flight: bytes_acked,
            rtt_us: Some(10_000),
            srtt_us: 10_000,
            min_rtt_us: 10_000,
            app_limited: false,
            in_recovery: false,
            round_ended: false,
            now: Instant::ZERO,
        }
    }

    fn loss(cc: &mut NewReno) {
        let flight_size = cc.cwnd();
        cc.on_signal(Signal::Loss { flight_size }, Instant::ZERO);
    }

    /// One round trip: all of cwnd acknowledged, `segments` with each ACK.
    fn round(cc: &mut NewReno, segments: u32) {
        let mut left = cc.cwnd();
        while left > 0 {
            let bytes = left.min(segments * MSS);
            cc.on_ack(&ack(bytes));
            left -= bytes;
        }
    }

    /// RFC 5681 §3.1: with an ACK for every second segment the window still doubles in a round
    /// trip; RFC 9406 §4.3: an ACK for ten segments counts for eight.
    #[test]
    fn slow_start_doubles_every_round_trip() {
        let mut cc = reno();
        assert_eq!(cc.cwnd(), 10 * MSS);
        round(&mut cc, 2);
        assert_eq!(cc.cwnd(), 20 * MSS);
        round(&mut cc, 1);
        assert_eq!(cc.cwnd(), 40 * MSS);
        cc.on_ack(&ack(10 * MSS));
        assert_eq!(cc.cwnd(), 48 * MSS);
        // An ACK for less than a segment counts for what it covers.
        cc.on_ack(&ack(100));
        assert_eq!(cc.cwnd(), 48 * MSS + 100);
    }

    /// RFC 5681 §3.1: one segment a round trip, however the ACKs divide it.
    #[test]
    fn congestion_avoidance_adds_a_segment_every_round_trip() {
        for segments in [1, 2, 3, 7, 100] {
            let mut cc = reno();
            round(&mut cc, 2);
            loss(&mut cc);
            cc.on_signal(Signal::RecoveryExit, Instant::ZERO);
            assert_eq!((cc.cwnd(), cc.ssthresh()), (10 * MSS, 10 * MSS));
            for grown in 1..=20 {
                round(&mut cc, segments);
                assert_eq!(cc.cwnd(), (10 + grown) * MSS, "{segments} segments an ACK");
            }
        }
    }

    /// An ACK for many windows adds one segment, and leaves less than one more to its successors.
    #[test]
    fn a_stretch_ack_adds_one_segment() {
        let mut cc = reno();
        loss(&mut cc);
        cc.on_signal(Signal::RecoveryExit, Instant::ZERO);
        cc.on_ack(&ack(50 * MSS));
        assert_eq!(cc.cwnd(), 6 * MSS);
        for _ in 0..3 {
            cc.on_ack(&ack(2 * MSS));
        }
        assert_eq!(cc.cwnd(), 7 * MSS);
    }

    /// RFC 9406: what was learned before an idle period says nothing about the path after it.
    #[test]
    fn idling_forgets_that_the_round_trip_grew() {
        let mut cc = reno();
        let slow_start = |cc: &mut NewReno, rtt_us| {
            for n in 1..=10 {
                let mut ack = ack(2 * MSS);
                ack.rtt_us = Some(rtt_us);
                ack.round_ended = n == 10;
                cc.on_ack(&ack);
            }
        };
        slow_start(&mut cc, 40_000);
        slow_start(&mut cc, 50_000);
        cc.after_idle(Instant::ZERO);
        cc.on_ack(&ack(4 * MSS));
        assert_eq!(cc.cwnd(), 14 * MSS, "by all of it, not by a quarter");
    }

    /// RFC 5681 §3.1 (4): half the flight size, not half of cwnd, and at least two segments.
    #[test]
    fn a_loss_halves_what_was_in_flight() {
        let mut cc = reno();
        let flight_size = 7 * MSS;
        cc.on_signal(Signal::Loss { flight_size }, Instant::ZERO);
        assert_eq!(cc.ssthresh(), 7 * MSS / 2);
        assert_eq!(cc.cwnd(), 7 * MSS / 2);

        let mut cc = reno();
        let flight_size = MSS;
        cc.on_signal(Signal::Loss { flight_size }, Instant::ZERO);
        assert_eq!((cc.cwnd(), cc.ssthresh()), (2 * MSS, 2 * MSS));

        // §3.2 step 2: what limited transmit sent beyond cwnd does not count.
        let mut cc = reno();
        let flight_size = 12 * MSS;
        cc.on_signal(Signal::Loss { flight_size }, Instant::ZERO);
        assert_eq!(cc.cwnd(), 5 * MSS);
    }

    /// In fast recovery, and while the window is not in use, ACKs do not open it.
    #[test]
    fn the_window_grows_only_when_it_is_in_use_and_nothing_is_lost() {
        let mut cc = reno();
        let mut idle = ack(2 * MSS);
        idle.app_limited = true;
        cc.on_ack(&idle);
        assert_eq!(cc.cwnd(), 10 * MSS);
        loss(&mut cc);
        let before = cc.cwnd();
        let mut recovering = ack(5 * MSS);
        recovering.in_recovery = true;
        for _ in 0..10 {
            cc.on_ack(&recovering);
        }
        assert_eq!(cc.cwnd(), before);
    }

    /// RFC 5681 §3.1: after a timeout slow start from one segment up to half of what was in
    /// flight; RFC 3465 §2.3: one segment an ACK; a second timeout of the same segment leaves
    /// ssthresh alone.
    #[test]
    fn a_timeout_starts_again_from_one_segment() {
        let mut cc = reno();
        let flight_size = 10 * MSS;
        let rto = |first| Signal::Rto { flight_size, first };
        cc.on_signal(rto(true), Instant::ZERO);
        assert_eq!((cc.cwnd(), cc.ssthresh()), (MSS, 5 * MSS));
        cc.on_signal(rto(false), Instant::ZERO);
        assert_eq!((cc.cwnd(), cc.ssthresh()), (MSS, 5 * MSS));
        cc.on_ack(&ack(9 * MSS));
        assert_eq!(cc.cwnd(), 2 * MSS);
        cc.on_signal(Signal::RecoveryExit, Instant::ZERO);
        cc.on_ack(&ack(2 * MSS));
        assert_eq!(cc.cwnd(), 3 * MSS);
        for _ in 0..2 {
            cc.on_ack(&ack(2 * MSS));
        }
        assert_eq!(cc.cwnd(), 5 * MSS, "slow start ends at ssthresh");
        cc.on_ack(&ack(2 * MSS));
        assert_eq!(
            cc.cwnd(),
            5 * MSS,
            "past it a whole window is to be acknowledged first"
        );
    }

    /// RFC 5681 §4.3 allows a timeout in fast recovery to reduce once more; an undo restores what
    /// was before both.
    #[test]
    fn an_undo_restores_what_was_before_the_recovery() {
        let mut cc = reno();
        loss(&mut cc);
        let flight_size = cc.cwnd();
        cc.on_signal(
            Signal::Rto {
                flight_size,
                first: true,
            },
            Instant::ZERO,
        );
        assert_eq!(cc.cwnd(), MSS);
        cc.on_signal(Signal::Undo, Instant::ZERO);
        assert_eq!((cc.cwnd(), cc.ssthresh()), (10 * MSS, u32::MAX));
        // Only once: a second one has nothing to restore.
        loss(&mut cc);
        cc.on_signal(Signal::RecoveryExit, Instant::ZERO);
        cc.on_signal(Signal::Undo, Instant::ZERO);
        assert_eq!(cc.cwnd(), 10 * MSS);
        round(&mut cc, 2);
        let grown = (cc.cwnd(), cc.ssthresh());
        cc.on_signal(Signal::Undo, Instant::ZERO);
        assert_eq!((cc.cwnd(), cc.ssthresh()), grown);
    }

    /// The next recovery's undo restores that recovery's window, not an older one.
    #[test]
    fn each_recovery_has_its_own_undo() {
        let mut cc = reno();
        loss(&mut cc);
        cc.on_signal(Signal::RecoveryExit, Instant::ZERO);
        loss(&mut cc);
        assert_eq!(cc.cwnd(), 5 * MSS / 2);
        cc.on_signal(Signal::Undo, Instant::ZERO);
        assert_eq!((cc.cwnd(), cc.ssthresh()), (5 * MSS, 5 * MSS));
    }

    /// RFC 3168 §6.1.2: as a loss. A mark is no mistake: an undo does not restore the window.
    #[test]
    fn a_congestion_mark_halves_the_window_for_good() {
        let mut cc = reno();
        let flight_size = 10 * MSS;
        cc.on_signal(Signal::Ecn { flight_size }, Instant::ZERO);
        assert_eq!((cc.cwnd(), cc.ssthresh()), (5 * MSS, 5 * MSS));
        cc.on_signal(Signal::Undo, Instant::ZERO);
        assert_eq!((cc.cwnd(), cc.ssthresh()), (5 * MSS, 5 * MSS));
    }

    /// RFC 5681 §4.1: not more than the initial window after idling; a smaller one stays small.
    #[test]
    fn idling_restarts_from_the_initial_window() {
        let mut cc = reno();
        for _ in 0..3 {
            round(&mut cc, 2);
        }
        loss(&mut cc);
        cc.on_signal(Signal::RecoveryExit, Instant::ZERO);
        let ssthresh = cc.ssthresh();
        assert_eq!(cc.cwnd(), 40 * MSS);
        cc.after_idle(Instant::ZERO);
        assert_eq!((cc.cwnd(), cc.ssthresh()), (10 * MSS, ssthresh));
        assert!(cc.in_slow_start());
        // RFC 3465 §2.2: an ACK for ten segments counts for two.
        cc.on_ack(&ack(10 * MSS));
        assert_eq!(cc.cwnd(), 12 * MSS);

        let mut cc = reno();
        let flight_size = 4 * MSS;
        cc.on_signal(Signal::Loss { flight_size }, Instant::ZERO);
        cc.after_idle(Instant::ZERO);
        assert_eq!(cc.cwnd(), 2 * MSS);
    }

    /// RFC 9406: the round trip grows, slow start becomes slower, and ends without a loss.
    #[test]
    fn hystart_ends_the_first_slow_start() {
        let mut cc = reno();
        let mut rounds = 0;
        while cc.in_slow_start() {
            rounds += 1;
            let before = cc.cwnd();
            let acks = before / (2 * MSS);
            for n in 1..=acks {
                let mut ack = ack(2 * MSS);
                ack.rtt_us = Some(if rounds < 3 { 40_000 } else { 50_000 });
                ack.round_ended = n == acks;
                cc.on_ack(&ack);
            }
            let grown = cc.cwnd() - before;
            if rounds < 3 {
                assert_eq!(grown, before);
            } else {
                assert!(
                    grown <= before / 3 + 8 * MSS,
                    "a quarter, once it was noticed"
                );
            }
        }
        assert_eq!(rounds, 7, "two fast ones and five slow ones");
        assert_eq!(cc.ssthresh(), cc.cwnd());
    }

    /// RFC 5681 §3.1: a lost SYN leaves one segment and says nothing about ssthresh.
    #[test]
    fn a_lost_syn_leaves_one_segment() {
        let mut cc = reno();
        cc.on_signal(Signal::SynLost, Instant::ZERO);
        assert_eq!((cc.cwnd(), cc.ssthresh()), (MSS, u32::MAX));
    }

    /// The peer's MSS option comes after the window was made.
    #[test]
    fn an_unused_window_follows_the_segment_size() {
        let mut cc = reno();
        cc.set_mss(536);
        assert_eq!(cc.cwnd(), 5360);
        round(&mut cc, 1);
        let used = cc.cwnd();
        cc.set_mss(1220);
        assert_eq!(cc.cwnd(), used);
        cc.set_mss(u16::MAX);
        assert_eq!(cc.cwnd(), u32::from(u16::MAX));
    }

    /// However much is acknowledged, the window stays within what can ever be in flight.
    #[test]
    fn the_window_is_bounded() {
        let mut cc = NewReno::new(u16::MAX, Instant::ZERO);
        for _ in 0..20_000 {
            cc.on_ack(&ack(u32::MAX));
        }
        assert_eq!(cc.cwnd(), super::super::window::CWND_MAX);
        loss(&mut cc);
        cc.on_signal(Signal::RecoveryExit, Instant::ZERO);
        for _ in 0..20_000 {
            cc.on_ack(&ack(u32::MAX));
        }
        assert_eq!(cc.cwnd(), super::super::window::CWND_MAX);
    }
}
