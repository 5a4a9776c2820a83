//! A segment arrived, and both sides know each other's sequence numbers: RFC 9293 §3.10.7.4.
//!
//! ```text
//!   timestamps ─► sequence number ─► RST ─► SYN ─► ACK ─► text ─► FIN
//!     (PAWS)                          │      │      │
//!                              RFC 5961: challenged unless exact
//! ```

use super::super::congestion::CongestionControl;
use super::super::deliver::receive::Received;
use super::super::deliver::{AckInput, Acknowledged};
use super::super::flow::{Arrival, WindowUpdate};
use super::super::manage::State;
use super::super::manage::acceptance::{self, OnAck, OnReset, ReceiveSpace};
use super::super::manage::states::{CloseReason, OnFin, OnFinAcknowledged};
use super::super::segment::{Ecn, Flags, Segment};
use super::super::seq::SeqNum;
use super::{Connection, Context, Fate};
use crate::counters::{DropReason, Event};
use crate::ip::address::Ip;

/// What became of a segment.
pub(super) type Processed = Result<Fate, DropReason>;

impl<I: Ip, C: CongestionControl> Connection<I, C> {
    /// Takes a segment of this connection.
    ///
    /// # Errors
    /// Why it was dropped. The connection may have something to send all the same.
    #[inline]
    pub fn on_segment(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>) -> Processed {
        match self.state {
            State::SynSent(state) => self.on_segment_in_syn_sent(cx, state, segment),
            State::SynReceived(state) => self.on_segment_in_syn_received(cx, state, segment),
            State::Closed(_) => Err(DropReason::TcpClosed),
            _ => self.on_segment_synchronized(cx, segment),
        }
    }

    #[inline]
    fn on_segment_synchronized(
        &mut self,
        cx: &mut Context<'_>,
        segment: &Segment<'_>,
    ) -> Processed {
        let flags = segment.flags;
        // What nearly every segment is: an ACK with or without text at the place where we are.
        let plain = Flags::ACK.union(Flags::PSH);
        let expected = segment.seq == self.receiver.next() && flags.without(plain) == Flags::NONE;
        let plain = expected && flags.contains(Flags::ACK) && self.timestamps_are_new(cx, segment);
        if !plain && let Some(fate) = self.examine(cx, segment)? {
            return Ok(fate);
        }
        self.on_acceptable(cx, segment)
    }

    /// From the acknowledgement on: everything before was in order.
    #[inline]
    pub(super) fn on_acceptable(
        &mut self,
        cx: &mut Context<'_>,
        segment: &Segment<'_>,
    ) -> Processed {
        let flags = segment.flags;
        let fate = self.on_ack(cx, segment)?;
        if fate != Fate::Alive {
            return Ok(fate);
        }
        if segment.payload.is_empty() && !flags.contains(Flags::FIN) {
            return Ok(Fate::Alive);
        }
        self.on_text(cx, segment)
    }

    /// RFC 7323 §5.3: whether the timestamps are there, if they were agreed upon, and are not older
    /// than the last.
    #[inline]
    fn timestamps_are_new(&self, cx: &Context<'_>, segment: &Segment<'_>) -> bool {
        if !self.options.timestamps {
            return true;
        }
        let Some(timestamps) = segment.timestamps else {
            return false;
        };
        let recent = self.options.recent;
        timestamps.value.wrapping_sub(recent).cast_signed() >= 0 || {
            let idle_s = cx.now_s().wrapping_sub(self.options.recent_at_s);
            !acceptance::is_old_duplicate(timestamps.value, recent, u64::from(idle_s) * 1000)
        }
    }

    /// Everything that can be wrong with a segment, in the order of RFC 9293 §3.10.7.4. Returns what
    /// becomes of the connection if that ends it.
    #[cold]
    pub(super) fn examine(
        &mut self,
        cx: &mut Context<'_>,
        segment: &Segment<'_>,
    ) -> Result<Option<Fate>, DropReason> {
        let flags = segment.flags;
        let reset = flags.contains(Flags::RST);
        if !reset && !self.timestamps_are_new(cx, segment) {
            if segment.timestamps.is_none() && !flags.contains(Flags::SYN) {
                // RFC 7323 §3.2: a segment without them SHOULD be dropped.
                return Err(DropReason::TcpTimestampMissing);
            }
            // R1: not acceptable: an ACK, and nothing else. A SYN without timestamps may be that of a peer
            // that has started anew, and finds out by the ACK (RFC 9293 §3.5.1; RFC 5961 §4.2).
            self.answer(cx);
            return Err(DropReason::TcpOldDuplicate);
        }
        // First: the sequence number.
        let space = self.receive_space();
        // RFC 9293 §3.10.7.4, MUST-66: of a RST only the number counts, whatever text it has (SHLD-2) and
        // however small the window is.
        let len = if reset { 0 } else { segment.len() };
        if !space.accepts(segment.seq, len) {
            if reset {
                return Err(DropReason::TcpResetOutOfWindow);
            }
            return self.out_of_window(cx, segment, space);
        }
        // Second: RST. RFC 5961 §3.2.
        if reset {
            return match acceptance::on_reset(space, segment.seq) {
                OnReset::Reset => {
                    let refused = matches!(self.state, State::SynReceived(_));
                    cx.events.count(Event::TcpResetRx);
                    let reason = if refused {
                        CloseReason::Refused
                    } else {
                        CloseReason::Reset
                    };
                    Ok(Some(self.end(cx, reason)))
                }
                OnReset::Challenge => {
                    self.challenge(cx);
                    Err(DropReason::TcpResetChallenged)
                }
                OnReset::Drop => Err(DropReason::TcpResetOutOfWindow),
            };
        }
        // Fourth: SYN. RFC 5961 §4.2: whatever its sequence number, an ACK lets the peer say what it
        // means.
        if flags.contains(Flags::SYN) {
            self.challenge(cx);
            return Err(DropReason::TcpSynChallenged);
        }
        // Fifth: without an ACK there is nothing to do.
        if !flags.contains(Flags::ACK) {
            return Err(DropReason::TcpNoAck);
        }
        Ok(None)
    }

    /// A segment with nothing in the window: the answer is where we are, so that a peer that lost our
    /// ACK, or has a probe of ours to answer, learns it (RFC 9293 §3.10.7.4, first).
    fn out_of_window(
        &mut self,
        cx: &mut Context<'_>,
        segment: &Segment<'_>,
        space: ReceiveSpace,
    ) -> Result<Option<Fate>, DropReason> {
        if segment.len() > 0 && segment.end().at_or_before(space.next) {
            // RFC 2883 §4: what came twice is reported.
            let _ = self.take_text(cx, segment, payload_len(segment), false);
            self.acks.owe(cx.now);
            return Err(DropReason::TcpDuplicate);
        }
        // A probe of a closed window (RFC 9293 §3.8.6.1), or beyond the window: the same limit as for
        // challenges, or two confused ends would answer each other for ever. But an ACK that comes
        // with it is looked at (§3.10.7.4: "special allowance" when RCV.WND is 0).
        if space.window == 0 && segment.seq == space.next && segment.flags.contains(Flags::ACK) {
            self.acks.owe(cx.now);
            return match self.on_ack(cx, segment)? {
                Fate::Alive => Err(DropReason::TcpOutOfWindow),
                ended => Ok(Some(ended)),
            };
        }
        self.answer(cx);
        Err(DropReason::TcpOutOfWindow)
    }

    /// Fifth: the acknowledgement, with window and timestamps.
    #[inline]
    fn on_ack(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>) -> Processed {
        let una = self.sender.una();
        match acceptance::on_ack(una, self.sender.nxt(), self.send_window.max(), segment.ack) {
            OnAck::Acceptable => {}
            // A probe of a closed window leaves SND.NXT where it was.
            OnAck::Unsent if self.sender.is_of_window_probe(segment.ack) => {}
            OnAck::Unsent => {
                // RFC 9293 §3.10.7.4: an ACK of something not yet sent is answered by an ACK.
                self.challenge(cx);
                return Err(DropReason::TcpAckUnsent);
            }
            OnAck::TooOld => {
                self.challenge(cx);
                return Err(DropReason::TcpAckOld);
            }
        }
        if let Some(timestamps) = segment.timestamps
            && self.options.timestamps
        {
            self.note_timestamp(cx, segment.seq, timestamps.value);
        }
        let update = self
            .send_window
            .update(segment.seq, segment.ack, segment.window);
        let window_changed = matches!(update, WindowUpdate::Changed | WindowUpdate::Shrunk);
        let ece = self.options.ecn && segment.flags.contains(Flags::ECE);
        if segment.flags.contains(Flags::CWR) && !segment.payload.is_empty() {
            // RFC 3168 §6.1.3: the peer has reduced its window.
            self.options.echo_ce = false;
        }
        let sack =
            (self.options.sack && !segment.has_plain_options()).then(|| segment.sack_blocks());
        let sack = sack.filter(|blocks| !blocks.is_empty());
        let acked = self.sender.on_ack(
            &mut cx.pools.send,
            &AckInput {
                ack: segment.ack,
                window_changed,
                has_data: !segment.payload.is_empty(),
                sack: sack.as_ref(),
                ts_echo: segment
                    .timestamps
                    .filter(|_| self.options.timestamps)
                    .map(|timestamps| timestamps.echo),
                ts_now: self.options.clock.value(cx.now),
                ece,
                now: cx.now,
            },
        );
        if acked.kind == Acknowledged::NeverSent {
            self.challenge(cx);
            return Err(DropReason::TcpAckUnsent);
        }
        self.persist.on_ack();
        self.timer.on_peer_alive(cx.now);
        if acked.bytes > 0 || acked.fin {
            self.application.on_room();
        }
        if acked.fin {
            return Ok(self.on_fin_acknowledged(cx));
        }
        Ok(Fate::Alive)
    }

    /// RFC 7323 §4.3: TS.Recent follows the segment that the last ACK was waiting for.
    #[inline]
    fn note_timestamp(&mut self, cx: &Context<'_>, seq: SeqNum, value: u32) {
        if seq.at_or_before(self.options.last_ack_sent) {
            self.options.recent = value;
            self.options.recent_at_s = cx.now_s();
        }
    }

    /// Seventh and eighth: text and FIN.
    #[inline]
    fn on_text(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>) -> Processed {
        if segment.ecn == Ecn::Ce && self.options.ecn {
            self.options.echo_ce = true;
            self.acks.owe(cx.now);
        }
        if !self.state.may_receive() {
            // RFC 9293 §3.10.7.4, seventh: after the peer's FIN there is no text.
            return Err(DropReason::TcpTextAfterFin);
        }
        let fresh = segment.end().after(self.receiver.next());
        if self.application.is_gone() && !segment.payload.is_empty() && fresh {
            // RFC 9293 §3.6.1, RFC 2525 §2.17: nobody will ever read this; the peer must know.
            return Ok(self.abort_with_reset(cx, CloseReason::Aborted));
        }
        let space = self.receive_space();
        let len = payload_len(segment);
        let trimmed = space.trim(segment.seq, len);
        let fin = segment.flags.contains(Flags::FIN) && trimmed.cut == 0;
        if trimmed.cut > 0 {
            // RFC 9293 §3.8.6.1, §3.10.7.4: the peer hears at once where the window ends, as it asks by a
            // probe of a closed one.
            self.acks.owe(cx.now);
        }
        self.take_text(cx, segment, len - trimmed.cut, fin)
    }

    /// Gives the first `len` bytes of a segment's text to the receiver, and its FIN if `fin`.
    #[inline]
    fn take_text(
        &mut self,
        cx: &mut Context<'_>,
        segment: &Segment<'_>,
        len: u32,
        fin: bool,
    ) -> Processed {
        let text = segment.payload.get(..len as usize).unwrap_or(&[]);
        let pools = &mut cx.pools.receive;
        match self.receiver.receive(pools, segment.seq, text, fin) {
            Received::InOrder {
                bytes,
                hole,
                finished,
            } => {
                let arrival = if hole {
                    Arrival::FillsGap
                } else {
                    Arrival::InOrder
                };
                if bytes > 0 {
                    self.application.on_data();
                    // RFC 9293 §3.8.6.3 (SHLD-19) counts segments: what waited behind a gap came in
                    // others, and must not make this one look like a larger one than there is.
                    self.acks
                        .on_data(bytes.min(len), arrival, cx.config.ack_delay, cx.now);
                }
                if finished {
                    return Ok(self.on_fin(cx));
                }
                Ok(Fate::Alive)
            }
            Received::OutOfOrder => {
                cx.events.count(Event::TcpOutOfOrderRx);
                self.acks
                    .on_data(len, Arrival::OutOfOrder, cx.config.ack_delay, cx.now);
                Ok(Fate::Alive)
            }
            Received::Duplicate => {
                self.acks
                    .on_data(len, Arrival::Duplicate, cx.config.ack_delay, cx.now);
                Err(DropReason::TcpDuplicate)
            }
            // Where we are says it all: it will be sent again.
            Received::NoMemory => {
                self.acks.owe(cx.now);
                Err(DropReason::TcpNoMemory)
            }
            Received::TooManyRanges => {
                self.acks.owe(cx.now);
                Err(DropReason::TcpTooManyRanges)
            }
            Received::BehindFin => Err(DropReason::TcpTextAfterFin),
        }
    }

    /// Eighth: the peer's FIN is next.
    #[cold]
    fn on_fin(&mut self, cx: &mut Context<'_>) -> Fate {
        match self.state.on_fin() {
            OnFin::Ignore => Fate::Alive,
            OnFin::Enter(state) => {
                self.acks.owe(cx.now);
                self.application.on_data();
                self.enter(cx, state);
                Fate::Alive
            }
            OnFin::EnterTimeWait => {
                self.acks.owe(cx.now);
                self.application.on_data();
                Fate::TimeWait
            }
        }
    }

    #[cold]
    fn on_fin_acknowledged(&mut self, cx: &mut Context<'_>) -> Fate {
        match self.state.on_fin_acknowledged() {
            OnFinAcknowledged::Ignore => Fate::Alive,
            OnFinAcknowledged::Enter(state) => {
                self.enter(cx, state);
                Fate::Alive
            }
            OnFinAcknowledged::EnterTimeWait => Fate::TimeWait,
            OnFinAcknowledged::Closed(closed) => {
                self.state = State::Closed(closed);
                Fate::Closed(closed.reason)
            }
        }
    }

    /// What the peer may send.
    #[inline]
    pub(super) fn receive_space(&self) -> ReceiveSpace {
        let next = self.receiver.next();
        ReceiveSpace {
            next,
            window: self.receive_window.window(next),
        }
    }

    /// An ACK of what is not acceptable, not too often, or two confused ends would answer each other for
    /// ever. The limit that all connections share does not count here: whoever exhausts it must not keep
    /// us from answering the keep-alive probes of others.
    fn answer(&mut self, cx: &mut Context<'_>) {
        if self.options.last_challenge.allow(cx.now) {
            self.acks.owe(cx.now);
        }
    }

    /// RFC 5961: an ACK that lets the true peer show itself, if the limits allow one.
    pub(super) fn challenge(&mut self, cx: &mut Context<'_>) {
        if cx
            .challenges
            .allow(&mut self.options.last_challenge, cx.now)
        {
            cx.events.count(Event::TcpChallengeAckTx);
            self.acks.owe(cx.now);
        }
    }
}

/// Length of a segment's text: never more than an IP packet holds.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "at most 65,535")]
fn payload_len(segment: &Segment<'_>) -> u32 {
    segment.payload.len() as u32
}
