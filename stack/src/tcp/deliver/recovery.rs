//! The long way of an ACK: losses are found, and answered by congestion control once in a window.
//!
//! ```text
//!              first loss: cwnd falls once             RecoveryPoint acknowledged
//!      ┌──────┐  RACK, or 3 duplicate ACKs  ┌──────────┐            ┌──────┐
//!      │ Open ├────────────────────────────►│ Recovery ├───────────►│ Open │
//!      │ Cwr  │                             └────┬─────┘            └──▲───┘
//!      └──┬───┘          RTO expires             │                     │
//!         │   ┌──────────────────────────────────┘                     │
//!         │   ▼   RTO expires                                          │
//!         │ ┌──────┐      everything outstanding then acknowledged, or  │
//!         └►│ Loss ├─────────────────────────────────────────────────────┘
//!           └──────┘      shown to have been spurious (see `undo`)
//! ```

use super::SendPools;
use super::arrivals::{Arrivals, Sacked};
use super::interface::{AckInput, Acked, Acknowledged, CaState};
use super::records::NONE;
use super::rtt::earlier;
use super::sender::{Flags, Sender};
use super::undo::Proof;
use crate::tcp::congestion::{CongestionControl, Signal};
use crate::tcp::seq::SeqNum;
use crate::time::Instant;

/// As many duplicate ACKs tell of a loss on connections without SACK (RFC 5681 §3.2).
const DUP_THRESH: u16 = 3;

impl<C: CongestionControl> Sender<C> {
    /// An ACK that is not just the next one in order.
    #[cold]
    #[inline(never)]
    pub(super) fn on_ack_long_way(&mut self, pools: &mut SendPools, input: &AckInput<'_>) -> Acked {
        let AckInput {
            ack,
            window_changed,
            has_data,
            sack,
            ts_echo,
            ts_now,
            ece,
            now,
        } = *input;
        if ack.after(self.nxt) && !self.accept_window_probe(pools, ack, now) {
            return Acked {
                kind: Acknowledged::NeverSent,
                bytes: 0,
                fin: false,
                undone: false,
            };
        }
        let una_before = self.una;
        let in_flight_before = self.in_flight();
        let outstanding = self.board.in_flight() + self.board.lost();
        if outstanding == self.unacked() {
            self.rack.on_nothing_sacked(self.una);
        }
        let advanced = ack.after(self.una);
        let una = self.una.later(ack);
        let sacked = match sack {
            Some(sack) if self.flags.has(Flags::SACK) => Sacked::new(sack, ack, una, self.nxt),
            _ => Sacked::NONE,
        };

        // What arrived: the lowest first.
        let mut arrivals = Arrivals::new(&mut self.rack, &self.rtt, now);
        arrivals.gaps = true;
        arrivals.point = Some(self.point);
        if let Some(echo) = ts_echo {
            // A tick less, because both ends of the interval are rounded down.
            let age_ms = ts_now.wrapping_sub(echo);
            if age_ms.cast_signed() > 1 {
                arrivals.echo_age_us = (age_ms - 1).saturating_mul(1000);
            }
        }
        if advanced && self.board.bare() {
            // Without a record the timer tells when it was sent, if it was sent once: else
            // nothing would ever end the back-off.
            let once = self.timeouts == 0
                && self.state == CaState::Open
                && ack == self.nxt
                && outstanding <= u32::from(self.mss) + 1;
            if once {
                arrivals.on_bare(earlier(self.rto_at, self.rtt.rto_us()));
            } else {
                arrivals.retransmitted_acked = true;
            }
            self.board.acknowledge_bare(self.nxt.offset_from(ack));
        } else if advanced {
            self.board
                .acknowledge(&mut pools.records, ack, &mut arrivals);
        }
        let mut newly_sacked = 0;
        for block in sacked.blocks() {
            newly_sacked +=
                self.board
                    .sack(&mut pools.records, block.left, block.right, &mut arrivals);
        }
        let (oldest, newest) = (arrivals.oldest(), arrivals.newest());
        let (retransmitted_acked, original_arrived) =
            (arrivals.retransmitted_acked, arrivals.original_arrived);
        let mut delivered = outstanding - (self.board.in_flight() + self.board.lost());
        let (bytes, fin) = if advanced {
            self.advance(pools, ack)
        } else {
            (0, false)
        };

        // Round-trip time.
        let round_ended = advanced && ack.at_or_after(self.round_end);
        let mut rtt_us = None;
        if oldest.is_some() {
            rtt_us = self.on_samples(oldest, newest, round_ended, now);
        } else if advanced && let Some(echo) = ts_echo {
            // RFC 7323 §4.1: the echo tells even where Karn's algorithm forbids to measure.
            let age_ms = ts_now.wrapping_sub(echo);
            if age_ms.cast_signed() >= 0 {
                self.rtt.sample(age_ms.max(1).saturating_mul(1000));
            }
        }

        // Without SACK duplicate ACKs are all there is.
        let duplicate = if self.flags.has(Flags::SACK) {
            newly_sacked != 0
        } else {
            // RFC 5681 §2.
            ack == una_before && !advanced && self.una != self.nxt && !has_data && !window_changed
        };
        if !self.flags.has(Flags::SACK) {
            delivered = self.count_duplicates(advanced, duplicate, delivered);
        }

        let probe_dsack = self.on_probe_answer(ack, advanced, duplicate, &sacked, now);
        if advanced {
            let sacked_bytes = self.sacked();
            self.rack.on_advance(self.una, sacked_bytes, self.mss);
        }
        if sacked.dsack.is_some() && !probe_dsack {
            self.rack.on_dsack(self.una, self.nxt);
        }
        let undone = self.undo_if_refuted(
            pools,
            &Proof {
                advanced,
                duplicate,
                retransmitted_acked,
                original_arrived,
                echo: ts_echo,
                dsack: sacked.dsack.filter(|_| !probe_dsack),
            },
            now,
        );
        if self.state != CaState::Open && self.una.at_or_after(self.point) {
            self.exit_recovery(now);
        }

        // What is lost, and what that means.
        let lost_before = self.board.lost();
        let suspects = self.detect_losses(pools, advanced, now);
        let newly_lost = self.board.lost() > lost_before;
        if newly_lost && matches!(self.state, CaState::Open | CaState::Cwr) {
            self.enter_recovery(outstanding, now);
        }
        // RFC 3168 §6.1.2: once in a window. The mark was on something of this one if the ACK is of
        // something new, or anything is still under way.
        if ece && self.state == CaState::Open && (advanced || self.una != self.nxt) {
            self.enter_cwr(now);
        }
        if self.state == CaState::Recovery {
            // While in recovery cwnd is what it will end with.
            let (in_flight, ssthresh) = (self.in_flight(), self.cc.cwnd());
            let safe = advanced && !newly_lost;
            self.prr
                .on_ack(delivered, in_flight, ssthresh, self.mss, safe);
        }
        if advanced {
            let advance = self.una.offset_from(una_before);
            self.tell_congestion(advance, in_flight_before, rtt_us, round_ended, now);
        }
        if round_ended {
            self.begin_round();
            if self.state == CaState::Open && self.undo.is_possible() {
                self.undo.on_round();
                self.set_state(CaState::Open);
            }
        }

        self.set_timer(
            advanced,
            delivered != 0 || newly_lost || undone,
            suspects,
            now,
        );
        Acked {
            kind: if advanced {
                Acknowledged::New
            } else if duplicate {
                Acknowledged::Duplicate
            } else if ack == una_before {
                Acknowledged::Current
            } else {
                Acknowledged::Old
            },
            bytes,
            fin,
            undone,
        }
    }

    /// RFC 9293 §3.8.6.1: whether `ack` is for the byte that was sent to probe a closed window,
    /// which the peer had room for after all. It then counts as sent.
    fn accept_window_probe(&mut self, pools: &mut SendPools, ack: SeqNum, now: Instant) -> bool {
        if !self.flags.has(Flags::WINDOW_PROBED) || ack != self.nxt + 1 {
            return false;
        }
        self.flags.remove(Flags::WINDOW_PROBED);
        if self.unsent() == 0 {
            self.flags.insert(Flags::FIN_SENT);
        }
        // As sent twice: when, nobody knows.
        let end = self.nxt + 1;
        self.board.push(&mut pools.records, self.nxt, end, now);
        let last = self.board.last();
        if last != NONE {
            pools.records.get_mut(last).retransmitted = true;
        }
        self.nxt = end;
        true
    }

    /// SND.UNA becomes `ack`. Returns how many bytes of data that were, and whether FIN was behind
    /// them.
    fn advance(&mut self, pools: &mut SendPools, ack: SeqNum) -> (u32, bool) {
        let count = ack.offset_from(self.una);
        let bytes = self.consume(pools, count);
        let fin = bytes < count;
        if fin {
            self.flags.remove(Flags::FIN_SENT);
            self.flags.insert(Flags::FIN_ACKED);
        }
        self.una = ack;
        self.timeouts = 0;
        if self.una == self.nxt {
            self.board.clear(&mut pools.records);
        }
        (bytes, fin)
    }

    /// Without SACK: a duplicate ACK says that a segment left the network, and what is acknowledged
    /// says which. Returns how many bytes this ACK tells to have arrived.
    fn count_duplicates(&mut self, advanced: bool, duplicate: bool, acked: u32) -> u32 {
        let mss = u32::from(self.mss);
        let mut delivered = acked;
        if advanced {
            let known = u32::from(self.duplicates) * mss;
            delivered = acked.saturating_sub(known).max(mss.min(acked));
            let segments = acked.div_ceil(mss);
            self.duplicates = self
                .duplicates
                .saturating_sub(u16::try_from(segments.saturating_sub(1)).unwrap_or(u16::MAX));
            if self.una.at_or_after(self.point) {
                self.duplicates = 0;
            }
        } else if duplicate && self.state != CaState::Loss {
            // Of what is outstanding one segment is missing; who sends more duplicates makes them
            // up (RFC 5681 §3.2: limit the artificial inflation).
            let limit = (self.unacked() / mss).saturating_sub(1);
            if u32::from(self.duplicates) < limit.max(u32::from(DUP_THRESH)) {
                self.duplicates = self.duplicates.saturating_add(1);
                delivered = mss;
            }
        }
        self.flags.set(Flags::DUPLICATES, self.duplicates != 0);
        delivered
    }

    /// RFC 8985 §7.4.2: what an ACK tells of a tail loss probe. Whether it is the report that the
    /// probe arrived twice.
    fn on_probe_answer(
        &mut self,
        ack: SeqNum,
        advanced: bool,
        duplicate: bool,
        sacked: &Sacked,
        now: Instant,
    ) -> bool {
        if advanced || duplicate {
            self.flags.remove(Flags::TAIL_PROBE_DUE);
        }
        if !self.flags.has(Flags::TAIL_PROBE_SENT) || ack.before(self.probe_end) {
            return false;
        }
        let mut reported_twice = false;
        if self.flags.has(Flags::TAIL_PROBE_REPEATED) {
            reported_twice = sacked
                .dsack
                .is_some_and(|block| block.right == self.probe_end);
            let pure_duplicate = !advanced && sacked.dsack.is_none() && sacked.len == 0;
            if reported_twice || pure_duplicate {
                // Cases 1 and 2: both arrived, nothing was lost.
            } else if ack.after(self.probe_end) {
                // Case 3: no second ACK for what was sent twice, so the probe repaired a loss,
                // which has to be answered as any other.
                self.repaired_by_probe(now);
            } else {
                return false;
            }
        }
        self.flags
            .remove(Flags::TAIL_PROBE_SENT.and(Flags::TAIL_PROBE_REPEATED));
        reported_twice
    }

    fn repaired_by_probe(&mut self, now: Instant) {
        if self.state == CaState::Open {
            self.cc.on_signal(
                Signal::Loss {
                    flight_size: self.unacked(),
                },
                now,
            );
            self.cc.on_signal(Signal::RecoveryExit, now);
            // What else of this window turns out to be lost was answered with it.
            self.point = self.nxt;
            self.undo.forget();
            self.set_state(CaState::Cwr);
            self.flags.insert(Flags::CWR_DUE);
        }
    }

    /// Marks what is lost. Returns when more may be.
    pub(super) fn detect_losses(
        &mut self,
        pools: &mut SendPools,
        advanced: bool,
        now: Instant,
    ) -> Option<Instant> {
        if self.una == self.nxt {
            return None;
        }
        if self.flags.has(Flags::SACK) {
            let in_recovery = matches!(self.state, CaState::Recovery | CaState::Loss);
            let reo_wnd_us = self.rack.reo_wnd_us(&self.rtt, in_recovery);
            return self
                .rack
                .detect(&mut self.board, &mut pools.records, reo_wnd_us, now)
                .deadline;
        }
        let lost = match self.state {
            // RFC 6582 §3.2 step 2: not because of what was sent again before.
            CaState::Open | CaState::Cwr => {
                self.duplicates >= DUP_THRESH && self.una.after(self.point)
            }
            // RFC 6582 §3.2 step 3: a partial ACK shows the next hole.
            CaState::Recovery => advanced,
            CaState::Loss => false,
        };
        if lost {
            self.mark_first_lost(pools);
        }
        None
    }

    fn mark_first_lost(&mut self, pools: &mut SendPools) {
        let first = self.board.first();
        if first == NONE {
            self.board.mark_bare_lost();
        } else if !pools.records.get(first).lost {
            self.board.mark_lost(&mut pools.records, first);
        }
    }

    /// RFC 6675 §5: the first loss in a window. `outstanding` bytes were not known to have arrived
    /// before the ACK that told.
    pub(super) fn enter_recovery(&mut self, outstanding: u32, now: Instant) {
        // In a window that a mark reduced already, a loss does not reduce it again
        // (RFC 3168 §6.1.2).
        if self.state == CaState::Open {
            self.cc.on_signal(
                Signal::Loss {
                    flight_size: self.unacked(),
                },
                now,
            );
            self.undo.begin(self.una, false);
        } else {
            self.undo.forget();
        }
        self.point = self.nxt;
        self.prr.begin(outstanding);
        self.set_state(CaState::Recovery);
        self.flags.insert(Flags::CWR_DUE);
        self.flags.remove(
            Flags::TAIL_PROBE_SENT
                .and(Flags::TAIL_PROBE_DUE)
                .and(Flags::TAIL_PROBE_REPEATED),
        );
    }

    /// RFC 3168 §6.1.2: the peer echoes a congestion mark.
    fn enter_cwr(&mut self, now: Instant) {
        self.cc.on_signal(
            Signal::Ecn {
                flight_size: self.unacked(),
            },
            now,
        );
        self.undo.forget();
        self.flags.insert(Flags::CWR_DUE);
        // With nothing under way the window that had the mark is over already.
        if self.una != self.nxt {
            self.point = self.nxt;
            self.set_state(CaState::Cwr);
        }
    }

    /// Everything that was outstanding when it began is acknowledged.
    fn exit_recovery(&mut self, now: Instant) {
        if self.state != CaState::Cwr {
            self.cc.on_signal(Signal::RecoveryExit, now);
            self.rack.on_recovery_exit();
        }
        self.duplicates = 0;
        self.flags.remove(Flags::DUPLICATES.and(Flags::SEND_FIRST));
        self.set_state(CaState::Open);
    }
}
