//! A segment arrived while our SYN is not acknowledged: RFC 9293 §3.10.7.3, and §3.10.7.4 in SYN-RECEIVED.

use super::super::config::Ecn;
use super::super::congestion::CongestionControl;
use super::super::deliver::Sender;
use super::super::deliver::receive::Receiver;
use super::super::flow::{ReceiveWindow, SendWindow};
use super::super::listener::agree;
use super::super::manage::State;
use super::super::manage::states::{CloseReason, SynReceived, SynSent};
use super::super::segment::{Flags, Segment};
use super::input::Processed;
use super::{Connection, Context, Fate};
use crate::counters::{DropReason, Event};
use crate::ip::address::Ip;

impl<I: Ip, C: CongestionControl> Connection<I, C> {
    #[cold]
    pub(super) fn on_segment_in_syn_sent(
        &mut self,
        cx: &mut Context<'_>,
        state: SynSent,
        segment: &Segment<'_>,
    ) -> Processed {
        let flags = segment.flags;
        let acknowledges = flags.contains(Flags::ACK);
        // First: the acknowledgement is of our SYN, or the segment is not for this connection, and is
        // answered by RST.
        if acknowledges && segment.ack != state.iss + 1 {
            return Err(if flags.contains(Flags::RST) {
                DropReason::TcpResetOutOfWindow
            } else {
                DropReason::TcpAckUnacceptable
            });
        }
        // Second: RST. Only one that acknowledges our SYN can be the peer's.
        if flags.contains(Flags::RST) {
            if !acknowledges {
                return Err(DropReason::TcpResetOutOfWindow);
            }
            cx.events.count(Event::TcpResetRx);
            return Ok(self.end(cx, CloseReason::Refused));
        }
        // Fifth: neither SYN nor RST.
        if !flags.contains(Flags::SYN) {
            return Err(DropReason::TcpNoSyn);
        }
        // Fourth: SYN.
        self.synchronize(cx, state, segment);
        if acknowledges {
            self.establish(cx, State::Established(state.established()));
        } else {
            // Both open at once (RFC 9293 §3.5, figure 7; MUST-10).
            self.state = State::SynReceived(state.syn());
            self.timer.on_syn_due();
        }
        // RFC 9293 §3.10.7.3: the ACK of the SYN,ACK, or our SYN,ACK, goes out at once.
        self.acks.owe(cx.now);
        Ok(Fate::Alive)
    }

    /// Takes over what the peer's SYN says.
    fn synchronize(&mut self, cx: &mut Context<'_>, state: SynSent, segment: &Segment<'_>) {
        let agreed = agree(segment.syn_options(), cx.config);
        let irs = segment.seq;
        let recent = agreed.timestamps.map_or(0, |theirs| theirs.value);
        let handshake_us = self.timer.since_syn_us(state.retransmissions, cx.now);
        self.agree(cx, &agreed, recent, irs);
        // RFC 3168 §6.1.1: an ECN-setup SYN,ACK has ECE and not CWR; an ECN-setup SYN has both.
        let both = Flags::ECE.union(Flags::CWR);
        let asked = segment.flags.intersection(both);
        self.options.ecn = if segment.flags.contains(Flags::ACK) {
            asked == Flags::ECE && cx.config.ecn == Ecn::Offer
        } else {
            asked == both && cx.config.ecn != Ecn::Off
        };
        self.receiver = Receiver::new(irs + 1);
        // RFC 7323 §2.2: both sides offer it, or neither scales; and the window of a SYN is not scaled.
        let scale = agreed.window_scale;
        let ours = scale.map_or(0, |_| self.receive_window.scale());
        self.receive_window = ReceiveWindow::new(
            irs + 1,
            cx.config.receive_buffer,
            cx.config.receive_buffer_max,
            ours,
            cx.now,
        );
        let window = u32::from(segment.window);
        self.send_window = SendWindow::new(irs, state.iss + 1, window, scale.unwrap_or(0));
        let setup = self.setup(cx, state.retransmissions > 0, handshake_us);
        self.sender = Sender::new(state.iss + 1, &setup, cx.now);
    }

    /// Our SYN is acknowledged and the peer's is known.
    pub(super) fn establish(&mut self, cx: &mut Context<'_>, state: State) {
        cx.events.count(Event::TcpEstablished);
        self.timer.on_established(cx.now);
        self.start_keepalive(cx);
        self.application.on_data();
        if matches!(state, State::FinWait1(_)) {
            self.sender.close();
        }
        self.enter(cx, state);
    }

    /// RFC 9293 §3.10.7.4 in SYN-RECEIVED of a simultaneous open.
    #[cold]
    pub(super) fn on_segment_in_syn_received(
        &mut self,
        cx: &mut Context<'_>,
        state: SynReceived,
        segment: &Segment<'_>,
    ) -> Processed {
        let syn_ack = Flags::SYN.union(Flags::ACK);
        let kind = segment.flags.intersection(syn_ack.union(Flags::RST));
        // §3.5, figure 7, line 6: the peer's SYN once more, now with the ACK of ours.
        if kind == syn_ack
            && segment.seq + 1 == self.receiver.next()
            && segment.ack == state.iss + 1
        {
            self.establish(cx, state.established());
            self.timer.on_peer_alive(cx.now);
            self.acks.owe(cx.now);
            return Ok(Fate::Alive);
        }
        if let Some(fate) = self.examine(cx, segment)? {
            return Ok(fate);
        }
        // Fifth: SND.UNA < SEG.ACK ≤ SND.NXT: our SYN is acknowledged, or the segment is answered by RST.
        if segment.ack != state.iss + 1 {
            return Err(DropReason::TcpAckUnacceptable);
        }
        self.establish(cx, state.established());
        self.on_acceptable(cx, segment)
    }
}
