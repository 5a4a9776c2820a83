//! Deadlines that are not the sender's: the handshake, keep-alive, the user timeout, FIN-WAIT-2.

use super::super::config::{Keepalive, TcpConfig};
use super::super::congestion::CongestionControl;
use super::super::deliver::Expired;
use super::super::flow::Probe;
use super::super::manage::State;
use super::super::manage::states::{CloseReason, SynReceived, SynSent};
use super::super::socket_options::{R1, SoftError};
use super::{Connection, Context, Fate};
use crate::counters::Event;
use crate::ip::address::Ip;
use crate::time::{Duration, Instant};

/// One deadline, whose meaning is the state's, and what it is measured from.
// Packed: nothing of a connection, of which there are very many, is padding.
#[derive(Clone, Copy, Debug)]
#[repr(Rust, packed)]
pub(super) struct StateTimer {
    /// SYN-SENT, SYN-RECEIVED: the SYN goes out again. FIN-WAIT-2: the peer has had its time. Else:
    /// keep-alive. [`Instant::NEVER`] if it is not set.
    at: Instant,
    /// When the peer was last heard of.
    heard: Ticks,
    /// When what is sent again, or probed for, was sent first.
    begun: Ticks,
    /// Keep-alive probes without an answer.
    probes: u8,
    /// What the persist timer wants sent.
    window_probe: Option<Probe>,
}

const _: () = assert!(size_of::<StateTimer>() <= 18);

/// A time in units of 2^23 ns, 8.4 ms, for what lasts seconds or hours. It wraps after 417 days.
#[derive(Clone, Copy, Debug)]
struct Ticks(u32);

impl Ticks {
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "differences are taken modulo 2³²"
    )]
    const fn new(at: Instant) -> Self {
        Self((at.as_nanos() >> 23) as u32)
    }

    /// So long before `now`.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "differences are taken modulo 2³²"
    )]
    const fn before(now: Instant, time: Duration) -> Self {
        Self(
            Self::new(now)
                .0
                .wrapping_sub((time.as_nanos() >> 23) as u32),
        )
    }

    /// How long ago that was, to a unit.
    const fn until(self, now: Instant) -> Duration {
        let units = Self::new(now).0.wrapping_sub(self.0);
        Duration::from_nanos((units as u64) << 23)
    }
}

/// Timeouts in a row after which the path may be a black hole for what is that long: it drops it and
/// says nothing (RFC 4821 §7.7, RFC 8899 §4.3). One is any loss; Linux (`tcp_mtu_probing`) waits for three
/// by default, which is seconds more.
const BLACK_HOLE_TIMEOUTS: u8 = 2;

/// Text no longer than this, in bytes, arrives or does not whatever its length.
const BLACK_HOLE_LEN_MIN: u32 = 512;

/// First wait for the answer to a SYN, doubled with each one sent again (RFC 6298 §2.1).
const SYN_TIMEOUT: Duration = Duration::from_secs(1);

/// The back-off of a handshake: 1, 2, 4, … 64 s.
fn handshake_timeout(retransmissions: u8) -> Duration {
    SYN_TIMEOUT.saturating_mul(1 << retransmissions.min(6))
}

impl StateTimer {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            at: Instant::NEVER,
            heard: Ticks::new(now),
            begun: Ticks::new(now),
            probes: 0,
            window_probe: None,
        }
    }

    #[inline]
    pub(super) fn deadline(&self) -> Option<Instant> {
        let at = self.at;
        (at != Instant::NEVER).then_some(at)
    }

    /// Whether a SYN is to leave, because none of this state has, or the last had its time.
    pub(super) fn is_syn_due(&self) -> bool {
        self.deadline().is_none()
    }

    /// A SYN,ACK is to leave now in place of the SYN.
    pub(super) fn on_syn_due(&mut self) {
        self.at = Instant::NEVER;
    }

    /// The connection is gone: nothing is due.
    pub(super) fn stop(&mut self) {
        self.at = Instant::NEVER;
        self.window_probe = None;
    }

    /// A SYN left.
    pub(super) fn on_syn_sent(&mut self, retransmissions: u8, now: Instant) {
        self.at = now + handshake_timeout(retransmissions);
    }

    /// How long the answer to our SYN took, in microseconds; unknown if it was sent again (Karn's
    /// algorithm, RFC 6298 §3).
    pub(super) fn since_syn_us(&self, retransmissions: u8, now: Instant) -> Option<u32> {
        if retransmissions > 0 || self.deadline().is_none() {
            return None;
        }
        // It was sent when the timer was set.
        let left = self.at.saturating_since(now).as_micros();
        let us = SYN_TIMEOUT.as_micros().checked_sub(left)?;
        u32::try_from(us).ok()
    }

    /// What the persist timer wants sent, once.
    #[inline]
    pub(super) fn take_window_probe(&mut self) -> Option<Probe> {
        self.window_probe.take()
    }

    /// Whether the persist timer wants something sent.
    #[inline]
    pub(super) const fn wants_window_probe(&self) -> bool {
        self.window_probe.is_some()
    }

    /// The handshake is over, and its timer with it.
    pub(super) fn on_established(&mut self, now: Instant) {
        self.heard = Ticks::new(now);
        self.at = Instant::NEVER;
    }

    /// The application has gone, and all that is awaited is the peer's FIN.
    pub(super) fn on_orphan_fin_wait_2(&mut self, config: &TcpConfig, now: Instant) {
        self.at = now + config.fin_wait_2;
    }

    /// Something acceptable came from the peer.
    #[inline]
    pub(super) fn on_peer_alive(&mut self, now: Instant) {
        self.heard = Ticks::new(now);
        self.probes = 0;
    }
}

impl<I: Ip, C: CongestionControl> Connection<I, C> {
    /// When [`on_timer`](Self::on_timer) is to be called next.
    #[inline]
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        // RFC 9293 §3.10.7.1: in CLOSED there is nothing to wait for, whatever was left running.
        if matches!(self.state, State::Closed(_)) {
            return None;
        }
        let at = |deadline: Option<Instant>| deadline.unwrap_or(Instant::NEVER);
        let sending = at(self.sender.deadline()).min(at(self.persist.deadline()));
        let others = at(self.acks.deadline()).min(at(self.timer.deadline()));
        Some(sending.min(others)).filter(|&at| at != Instant::NEVER)
    }

    /// Runs whatever is due. Nothing is, as often as not: deadlines move without the timer being told.
    pub fn on_timer(&mut self, cx: &mut Context<'_>) -> Fate {
        if matches!(self.state, State::Closed(_)) {
            return Fate::Alive;
        }
        let now = cx.now;
        let due = |deadline: Option<Instant>| deadline.is_some_and(|at| at <= now);
        if due(self.acks.deadline()) {
            self.acks.on_timer(now);
        }
        if due(self.sender.deadline()) {
            let expired = self.sender.on_timer(&mut cx.pools.send, now);
            if let Some(fate) = self.after_expiry(cx, expired) {
                return fate;
            }
        }
        if due(self.persist.deadline()) {
            // RFC 9293 §3.8.6.1 (MUST-37): for as long as probes are answered. R2 (MUST-20) counts from the
            // first that was not; for a connection that its application has left, from the first of all, or
            // peers that never read would hold memory for ever (RFC 6429 §3).
            let patient = !self.application.is_gone() || self.persist.is_first();
            if self.persist.unanswered() == 0 && patient {
                self.timer.begun = Ticks::new(now);
            } else if self.has_timed_out(cx) {
                return self.abort_with_reset(cx, CloseReason::TimedOut);
            }
            let rto = self.sender.rtt().rto();
            self.timer.window_probe = self.persist.on_timer(rto, now);
        }
        if due(self.timer.deadline()) {
            return self.on_state_timer(cx);
        }
        Fate::Alive
    }

    fn after_expiry(&mut self, cx: &mut Context<'_>, expired: Expired) -> Option<Fate> {
        match expired {
            Expired::Nothing => {}
            Expired::Rto { count } => {
                cx.events.count(Event::TcpRto);
                if count == 1 {
                    // It was sent an RTO ago, which has been doubled since.
                    let rto = self.sender.rtt().rto() / 2;
                    self.timer.begun = Ticks::before(cx.now, rto);
                }
                // RFC 9293 §3.8.6 (SHLD-17, MUST-37): what lies beyond an edge that the peer drew back may stay
                // unacknowledged for as long as it answers. R2 counts from the first time it did not; for a
                // connection that its application has left, from the first of all (RFC 6429 §3).
                let closed = self.send_window.window(self.sender.una()) == 0;
                let patient = !self.application.is_gone();
                if closed
                    && patient
                    && self.timer.heard.until(cx.now) <= self.timer.begun.until(cx.now)
                {
                    self.timer.begun = Ticks::new(cx.now);
                }
                // RFC 9293 §3.8.3 (MUST-20): R2.
                if self.has_timed_out(cx) {
                    return Some(self.abort_with_reset(cx, CloseReason::TimedOut));
                }
                if count == R1 {
                    // SHLD-9: from R1 on, and before R2.
                    self.application.on_soft_error(SoftError::Unanswered);
                }
                // An edge that was drawn back is no black hole.
                if !closed
                    && count % BLACK_HOLE_TIMEOUTS == 0
                    && self.sender.first_len(&cx.pools.send) > BLACK_HOLE_LEN_MIN
                {
                    self.application.on_black_hole();
                }
            }
            Expired::Tlp => cx.events.count(Event::TcpTailLossProbe),
            Expired::Reordering => {}
        }
        None
    }

    fn has_timed_out(&self, cx: &Context<'_>) -> bool {
        self.timer.begun.until(cx.now) >= self.application.user_timeout(cx.config)
    }

    /// RFC 9293 §3.8.4: keep-alive begins, or ends, with the silence there was before.
    pub(super) fn start_keepalive(&mut self, cx: &Context<'_>) {
        if matches!(self.state, State::FinWait2(_)) && self.application.is_gone() {
            return;
        }
        self.timer.probes = 0;
        self.timer.at = if self.application.has_keepalive() {
            let silence = self.timer.heard.until(cx.now);
            cx.now + cx.config.keepalive.idle.saturating_sub(silence)
        } else {
            Instant::NEVER
        };
    }

    fn on_state_timer(&mut self, cx: &mut Context<'_>) -> Fate {
        self.timer.at = Instant::NEVER;
        match self.state {
            State::SynSent(state) => {
                if state.retransmissions >= cx.config.syn_retries {
                    // What was last heard of it says more than that nobody answered.
                    let soft = self.application.soft_error();
                    let reason = soft.map_or(CloseReason::TimedOut, SoftError::close_reason);
                    return self.end(cx, reason);
                }
                self.state = State::SynSent(SynSent {
                    retransmissions: state.retransmissions + 1,
                    ..state
                });
                self.repeat_syn(cx);
            }
            State::SynReceived(state) => {
                if state.retransmissions >= cx.config.syn_ack_retries {
                    return self.end(cx, CloseReason::TimedOut);
                }
                self.state = State::SynReceived(SynReceived {
                    retransmissions: state.retransmissions + 1,
                    ..state
                });
                self.repeat_syn(cx);
            }
            State::FinWait2(_) if self.application.is_gone() => {
                return self.end(cx, CloseReason::Finished);
            }
            _ => return self.on_keepalive(cx),
        }
        Fate::Alive
    }

    fn repeat_syn(&mut self, cx: &mut Context<'_>) {
        cx.events.count(Event::TcpSynRetransmitted);
        self.acks.owe(cx.now);
    }

    /// RFC 9293 §3.8.4: only when asked for, and only after long silence.
    fn on_keepalive(&mut self, cx: &mut Context<'_>) -> Fate {
        if !self.application.has_keepalive() {
            return Fate::Alive;
        }
        let Keepalive {
            idle,
            interval,
            probes,
            ..
        } = cx.config.keepalive;
        // MUST-26: only after silence, and data under way is its own probe. Probes are silence, too.
        let silence = self.timer.heard.until(cx.now);
        if silence < idle {
            self.timer.at = cx.now + idle.saturating_sub(silence);
            return Fate::Alive;
        }
        if self.sender.unacked() > 0 {
            self.timer.at = cx.now + interval;
            return Fate::Alive;
        }
        if self.timer.probes >= probes {
            return self.abort_with_reset(cx, CloseReason::TimedOut);
        }
        self.timer.probes += 1;
        self.timer.at = cx.now + interval;
        self.application.want_keepalive();
        cx.events.count(Event::TcpKeepaliveTx);
        Fate::Alive
    }
}
