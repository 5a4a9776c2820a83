//! The one timer of a sender, which is the retransmission timeout, the probe timeout, or the
//! reordering window of a suspect (RFC 8985 §8).

use super::SendPools;
use super::interface::{CaState, Expired, Timer};
use super::rtt::later;
use super::sender::{Flags, Sender};
use super::undo::Frto;
use crate::tcp::congestion::{CongestionControl, Signal};
use crate::time::Instant;

/// How long a peer may keep an ACK back that covers one segment only: what PTO waits longer if one
/// segment is in flight (RFC 8985 §7.2, `TLP.max_ack_delay`). Linux and Windows delay up to 200 ms;
/// with less, single segments to them are sent twice.
const ACK_DELAY_MAX_US: u32 = 200_000;

/// The shortest probe timeout. Within a millisecond peers answer or not by how their threads are
/// scheduled, and a probe would say nothing.
const PTO_MIN_US: u32 = 1000;

/// The probe timeout before anything was measured (RFC 8985 §7.2).
const PTO_INITIAL_US: u32 = 1_000_000;

impl<C: CongestionControl> Sender<C> {
    /// Waits for the probe timeout if a tail loss probe makes sense, else for the retransmission
    /// timeout. Something is outstanding.
    #[inline]
    pub(super) fn arm(&mut self, now: Instant) {
        self.deadline = self.rto_at;
        self.timer = Timer::Rto;
        // RFC 8985 §7.2: with SACK, outside of recovery, with nothing SACKed; and not again before
        // the last probe was answered.
        let unacked = self.nxt.offset_from(self.una);
        if !self.flags.has(
            Flags::NOT_OPEN
                .and(Flags::TAIL_PROBE_SENT)
                .and(Flags::TAIL_PROBE_DUE),
        ) && self.flags.has(Flags::SACK)
            && self.board.in_flight() == unacked
            && !self.board.bare()
        {
            self.timer = Timer::Tlp;
            self.deadline = self.rto_at.min(later(now, self.probe_timeout_us()));
        }
    }

    /// PTO (RFC 8985 §7.2).
    #[inline]
    fn probe_timeout_us(&self) -> u32 {
        if !self.rtt.is_measured() {
            return PTO_INITIAL_US;
        }
        let mut us = 2 * self.rtt.srtt_us();
        if self.board.is_single() {
            us += ACK_DELAY_MAX_US;
        }
        us.max(PTO_MIN_US)
    }

    /// An ACK of one segment alone came although more were under way, and took `rtt_us`: if that is no
    /// more than usual, the peer does not delay its ACKs at present, and the last segment of a flight need
    /// not be waited for as if it did. RFC 8985 §7.2 adds the delay for a peer that may; this one has just
    /// shown that it does not. Without it a lost tail of an answer takes 200 ms longer to be noticed.
    pub(super) fn expect_prompt_ack(&mut self, rtt_us: u32, now: Instant) {
        let srtt_us = self.rtt.srtt_us();
        let prompt = rtt_us <= srtt_us.saturating_add(srtt_us / 4);
        if self.timer == Timer::Tlp && self.board.is_single() && prompt {
            let us = srtt_us.saturating_mul(2).max(PTO_MIN_US);
            self.deadline = self.rto_at.min(later(now, us));
        }
    }

    /// After an ACK. `told`: it told of arrivals or losses.
    pub(super) fn set_timer(
        &mut self,
        advanced: bool,
        told: bool,
        suspects: Option<Instant>,
        now: Instant,
    ) {
        if advanced {
            // RFC 6298 §5.3.
            self.rto_at = later(now, self.rtt.rto_us());
        }
        if self.una == self.nxt {
            // RFC 6298 §5.2.
            self.timer = Timer::None;
            return;
        }
        if advanced || told || self.timer == Timer::Reordering {
            self.arm(now);
        }
        self.wait_for_suspects(suspects);
    }

    fn wait_for_suspects(&mut self, suspects: Option<Instant>) {
        if let Some(at) = suspects
            && at < self.rto_at
        {
            self.timer = Timer::Reordering;
            self.deadline = at;
        }
    }

    /// Time has come to `now`.
    pub fn on_timer(&mut self, pools: &mut SendPools, now: Instant) -> Expired {
        if self.timer == Timer::None || now < self.deadline {
            return Expired::Nothing;
        }
        if self.una == self.nxt {
            self.timer = Timer::None;
            return Expired::Nothing;
        }
        match self.timer {
            Timer::None => Expired::Nothing,
            Timer::Tlp => {
                self.flags.insert(Flags::TAIL_PROBE_DUE);
                // Should the probe not get out, this remains.
                self.rto_at = later(now, self.rtt.rto_us());
                self.arm(now);
                Expired::Tlp
            }
            Timer::Reordering => {
                self.on_reordering_timer(pools, now);
                Expired::Reordering
            }
            Timer::Rto => {
                self.on_rto(pools, now);
                Expired::Rto {
                    count: self.timeouts,
                }
            }
        }
    }

    fn on_reordering_timer(&mut self, pools: &mut SendPools, now: Instant) {
        let outstanding = self.board.in_flight() + self.board.lost();
        let lost_before = self.board.lost();
        let suspects = self.detect_losses(pools, false, now);
        if self.board.lost() > lost_before {
            if matches!(self.state, CaState::Open | CaState::Cwr) {
                self.enter_recovery(outstanding, now);
            }
            if self.state == CaState::Recovery {
                // No ACK comes with it, but what is lost is out of the network.
                let (in_flight, ssthresh) = (self.in_flight(), self.cc.cwnd());
                self.prr.on_ack(0, in_flight, ssthresh, self.mss, false);
            }
        }
        self.arm(now);
        self.wait_for_suspects(suspects);
    }

    /// RFC 6298 §5.4 to §5.6, RFC 8985 §6.3, RFC 5682 §3.1 step 1.
    fn on_rto(&mut self, pools: &mut SendPools, now: Instant) {
        let anew = matches!(self.state, CaState::Open | CaState::Cwr);
        let again = self.timeouts != 0;
        self.cc.on_signal(
            Signal::Rto {
                flight_size: self.unacked(),
                // Of losses in one window the window falls once.
                first: !again && self.state != CaState::Recovery,
            },
            now,
        );
        if anew {
            self.undo.begin(self.una, true);
        }
        let sack = self.flags.has(Flags::SACK);
        let reneged = sack && self.board.is_reneged(&pools.records, self.una);
        if reneged {
            // RFC 2018 §8: what was SACKed at the left edge is not there any more.
            self.board.renege(&mut pools.records, self.una, self.nxt);
            self.rack.on_nothing_sacked(self.una);
        } else if self.board.bare() {
            self.board.mark_bare_lost();
        } else if sack {
            let reo_wnd_us = self.rack.reo_wnd_us(&self.rtt, true);
            self.rack
                .mark_on_rto(&mut self.board, &mut pools.records, reo_wnd_us, now);
        } else {
            self.board.mark_all_lost(&mut pools.records);
        }
        self.point = self.nxt;
        self.set_state(CaState::Loss);
        self.undo.frto = if sack && anew && !reneged && !again {
            Frto::Retransmitted
        } else {
            Frto::Off
        };
        self.timeouts = self.timeouts.saturating_add(1);
        self.rtt.back_off();
        self.duplicates = 0;
        self.flags.insert(Flags::SEND_FIRST.and(Flags::CWR_DUE));
        self.flags.remove(
            Flags::TAIL_PROBE_SENT
                .and(Flags::TAIL_PROBE_DUE)
                .and(Flags::TAIL_PROBE_REPEATED)
                .and(Flags::DUPLICATES),
        );
        self.rto_at = later(now, self.rtt.rto_us());
        self.arm(now);
    }
}
