//! Deadlines that are not the sender's: the handshake, keep-alive, the user timeout, FIN-WAIT-2.

use super::super::config::{Keepalive, TcpConfig};
use super::super::congestion::CongestionControl;
use super::super::deliver::Expired;
use super::super::flow::Probe;
use super::super::manage::State;
use super::super::manage::states::{CloseReason, SynReceived, SynSent};
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
    /// keep-alive.
    /// [`Instant::NEVER`]: not set.
    at: Instant,
    /// When the peer was last heard of, in [ticks](ticks).
    heard: u32,
    /// When something of ours was last acknowledged, or there was nothing to acknowledge.
    progress: Instant,
    /// Keep-alive probes without an answer.
    probes: u8,
    /// What the persist timer wants sent.
    window_probe: Option<Probe>,
}

/// First wait for the answer to a SYN, doubled with each one sent again (RFC 6298 §2.1).
const SYN_TIMEOUT: Duration = Duration::from_secs(1);

/// The back-off of a handshake: 1, 2, 4, … 64 s.
fn handshake_timeout(retransmissions: u8) -> Duration {
    SYN_TIMEOUT.saturating_mul(1 << retransmissions.min(6))
}

/// log₂ of a tick in nanoseconds: 1.05 ms. Silence is judged by the second, and 32 bits of them wrap
/// around after 52 days.
const TICK_SHIFT: u32 = 20;

/// A time in ticks.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "differences are taken modulo 2³²"
)]
const fn ticks(at: Instant) -> u32 {
    (at.as_nanos() >> TICK_SHIFT) as u32
}

impl StateTimer {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            at: Instant::NEVER,
            heard: ticks(now),
            progress: now,
            probes: 0,
            window_probe: None,
        }
    }

    #[inline]
    pub(super) fn deadline(&self) -> Option<Instant> {
        let at = self.at;
        (at != Instant::NEVER).then_some(at)
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
        let us = now.saturating_since(self.progress).as_micros();
        u32::try_from(us).ok().filter(|_| retransmissions == 0)
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

    /// The connection is there.
    pub(super) fn on_established(&mut self, config: &TcpConfig, now: Instant) {
        self.heard = ticks(now);
        self.progress = now;
        self.at = config
            .keepalive
            .map_or(Instant::NEVER, |keepalive| now + keepalive.idle);
    }

    /// The application has gone, and all that is awaited is the peer's FIN.
    pub(super) fn on_orphan_fin_wait_2(&mut self, config: &TcpConfig, now: Instant) {
        self.at = now + config.fin_wait_2;
    }

    /// Something acceptable came from the peer.
    #[inline]
    pub(super) fn on_peer_alive(&mut self, now: Instant) {
        self.heard = ticks(now);
        self.probes = 0;
    }

    /// When the peer was last heard of, or up to a tick before.
    fn heard(&self, now: Instant) -> Instant {
        let silent = ticks(now).wrapping_sub(self.heard);
        let heard = (now.as_nanos() >> TICK_SHIFT).saturating_sub(silent.into());
        Instant::from_nanos(heard << TICK_SHIFT)
    }

    /// Something of ours was acknowledged.
    #[inline]
    pub(super) fn on_progress(&mut self, now: Instant) {
        self.progress = now;
    }
}

impl<I: Ip, C: CongestionControl> Connection<I, C> {
    /// When [`on_timer`](Self::on_timer) is to be called next.
    #[inline]
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let at = |deadline: Option<Instant>| deadline.unwrap_or(Instant::NEVER);
        let sending = at(self.sender.deadline()).min(at(self.persist.deadline()));
        let others = at(self.acks.deadline()).min(at(self.timer.deadline()));
        Some(sending.min(others)).filter(|&at| at != Instant::NEVER)
    }

    /// Runs whatever is due. Nothing is, as often as not: deadlines move without the timer being told.
    pub fn on_timer(&mut self, cx: &mut Context<'_>) -> Fate {
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
            if self.has_timed_out(cx, self.timer.heard(now)) {
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
            Expired::Rto { count: _ } => {
                cx.events.count(Event::TcpRto);
                // RFC 9293 §3.8.3 (MUST-20): R2.
                if self.has_timed_out(cx, self.timer.progress) {
                    return Some(self.abort_with_reset(cx, CloseReason::TimedOut));
                }
            }
            Expired::Tlp => cx.events.count(Event::TcpTailLossProbe),
            Expired::Reordering => {}
        }
        None
    }

    fn has_timed_out(&self, cx: &Context<'_>, since: Instant) -> bool {
        cx.now.saturating_since(since) >= cx.config.user_timeout
    }

    fn on_state_timer(&mut self, cx: &mut Context<'_>) -> Fate {
        self.timer.at = Instant::NEVER;
        match self.state {
            State::SynSent(state) => {
                if state.retransmissions >= cx.config.syn_retries {
                    return self.end(cx, CloseReason::TimedOut);
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
        let Some(Keepalive {
            idle,
            interval,
            probes,
        }) = cx.config.keepalive
        else {
            return Fate::Alive;
        };
        let due = self.timer.heard(cx.now) + idle;
        // Data under way is its own probe.
        if due > cx.now || self.sender.unacked() > 0 {
            self.timer.at = due.max(cx.now + interval);
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
