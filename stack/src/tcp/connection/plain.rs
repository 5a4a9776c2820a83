//! The short way of the segments that come and go by the million: on an open connection, in order,
//! with text, an acknowledgement or both, and nothing else to say.
//!
//! ```text
//!   comes    RCV.NXT ─► on_plain_segment ─┬─ all of it in order, and kept
//!                                         └─ else: nothing was changed, and `on_segment` takes it
//!   leaves   SND.NXT ◄─ plain_output ─────┬─ new text, in a window that is open
//!                                         ├─ an acknowledgement alone
//!                                         └─ else: `transmit` decides
//! ```
//!
//! Whatever is decided here is decided as `input` and `output` decide it; this is the same with all
//! questions answered beforehand that an ordinary segment does not raise. It is compiled into its
//! callers, where most of what it says of a segment never is in memory.

use super::super::buffer::CHUNK_BYTES;
use super::super::congestion::CongestionControl;
use super::super::flow::{AckDelay, Arrival};
use super::super::manage::State;
use super::super::options::Timestamps;
use super::super::pools::Pools;
use super::super::seq::SeqNum;
use super::{Connection, seconds};
use crate::ip::address::Ip;
use crate::time::Instant;

/// A segment with ACK, perhaps PSH, and no other flag; with timestamps at most among its options.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlainSegment<'a> {
    /// SEG.SEQ.
    pub(crate) seq: SeqNum,
    /// SEG.ACK.
    pub(crate) ack: SeqNum,
    /// SEG.WND as the field has it.
    pub(crate) window: u16,
    /// The timestamps option.
    pub(crate) timestamps: Option<Timestamps>,
    /// The bytes of the stream.
    pub(crate) payload: &'a [u8],
}

/// What is to be done after a plain segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// It takes the long way: nothing was changed.
    LongWay,
    /// There is something to read, and may be something to send.
    News,
    /// There may be something to send, or news.
    Touch,
    /// Neither: all that may have changed is when the timer is due.
    Schedule,
}

/// An ordinary segment that leaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlainOutput {
    /// SEG.SEQ.
    pub(crate) seq: SeqNum,
    /// SEG.ACK.
    pub(crate) ack: SeqNum,
    /// SEG.WND as the field has it.
    pub(crate) window: u16,
    /// The timestamps option.
    pub(crate) timestamps: Option<Timestamps>,
    /// Length of its text; 0: an acknowledgement alone.
    pub(crate) len: u16,
    /// It empties the send buffer: PSH.
    pub(crate) push: bool,
}

/// What [`Connection::plain_output`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// So many bytes of new text.
    Text(u16),
    /// An acknowledgement alone.
    Ack,
    /// Nothing.
    Done,
    /// That is not for this way to say.
    LongWay,
}

impl<I: Ip, C: CongestionControl> Connection<I, C> {
    /// Whether both directions are open.
    #[inline]
    pub(crate) const fn is_open(&self) -> bool {
        matches!(self.state, State::Established(_))
    }

    /// Takes a segment of a connection that [is open](Self::is_open), if it is what nearly every
    /// segment is.
    // By itself: with what finds the connection it would have too few registers.
    #[inline(never)]
    pub(crate) fn on_plain_segment(
        &mut self,
        pools: &mut Pools,
        ack_delay: AckDelay,
        now: Instant,
        segment: &PlainSegment<'_>,
    ) -> Then {
        let PlainSegment {
            seq,
            ack,
            window,
            timestamps,
            payload,
        } = *segment;
        debug_assert!(self.is_open(), "misuse: not open");
        // All of it is new, in order, in the window, and there is memory for it.
        if seq != self.receiver.next()
            || !self.receiver.is_plain()
            || payload.len() > CHUNK_BYTES
            || payload.len() > self.receive_window.window(seq) as usize
            || pools.receive.free_chunks() == 0
            || self.options.ecn
            || self.application.is_gone()
            || timestamps.is_some() != self.options.timestamps
        {
            return Then::LongWay;
        }
        // RFC 7323 §5.3: not older than the last.
        let value = timestamps.map_or(0, |timestamps| timestamps.value);
        if self.options.timestamps && value.wrapping_sub(self.options.recent).cast_signed() < 0 {
            return Then::LongWay;
        }
        let has_text = !payload.is_empty();
        let sender = &mut self.sender;
        let Some(acked) = sender.on_plain_ack(&mut pools.send, ack, has_text, now) else {
            return Then::LongWay;
        };
        if seq.at_or_before(self.options.last_ack_sent) {
            // Without timestamps nobody looks at it.
            self.options.recent = value;
            self.options.recent_at_s = seconds(now);
        }
        let _ = self.send_window.update(seq, ack, window);
        self.persist.on_ack();
        self.timer.on_peer_alive(now);
        if acked > 0 {
            self.application.on_room();
        }
        if has_text {
            let len = self.receiver.receive_plain(&mut pools.receive, payload);
            let _ = self.acks.on_data(len, Arrival::InOrder, ack_delay, now);
            self.application.on_data();
            return Then::News;
        }
        if self.sender.unsent() == 0 && !self.application.has_news() {
            // Most acknowledgements: there is nothing they let go.
            return Then::Schedule;
        }
        Then::Touch
    }

    /// Whether what leaves next can leave by the short way; if so, with `path_mtu` as it is.
    #[inline(always)]
    pub(crate) fn leaves_plainly(&self, path_mtu: u16) -> bool {
        matches!(self.state, State::Established(_) | State::CloseWait(_))
            && self.options.path_mtu == path_mtu
            && !self.options.ecn
            && !self.receiver.has_sack()
            && self.sender.is_plain()
            && !self.persist.is_running()
            && !self.timer.wants_window_probe()
            && !self.application.wants_keepalive()
            && !self.application.has_black_hole()
    }

    /// What leaves next. [`leaves_plainly`](Self::leaves_plainly) holds.
    #[inline(always)]
    pub(crate) fn next_plain(&mut self, pools: &Pools, now: Instant) -> Next {
        let queued = self.sender.unsent();
        if queued == 0 {
            return if self.acks.is_due(now) {
                Next::Ack
            } else {
                Next::Done
            };
        }
        let (nxt, mss) = (self.sender.nxt(), self.options.mss);
        let len = queued.min(mss.into());
        let idle = self.sender.unacked() == 0;
        // Less than full: only where Nagle does not hold it back (RFC 9293 §3.7.4), which with
        // nothing in flight it never does.
        let may_be_small = idle || self.application.nodelay();
        if self.send_window.room_from(nxt) < len
            || len < u32::from(mss) && !may_be_small
            || !self.sender.may_send_plain(&pools.send, len)
        {
            return Next::LongWay;
        }
        if idle {
            self.sender.resume(now);
        }
        #[expect(clippy::cast_possible_truncation, reason = "not more than `mss`")]
        Next::Text(len as u16)
    }

    /// The header of what leaves next: `len` bytes of text, or an acknowledgement alone.
    #[inline(always)]
    pub(crate) fn plain_output(&mut self, pools: &Pools, len: u16, now: Instant) -> PlainOutput {
        let space = self.space_in(pools);
        PlainOutput {
            seq: self.sender.nxt(),
            ack: space.next,
            window: self.receive_window.advertise(&space),
            timestamps: self.options.timestamps.then(|| Timestamps {
                value: self.options.clock.value(now),
                echo: self.options.recent,
            }),
            len,
            push: u32::from(len) == self.sender.unsent(),
        }
    }

    /// The text of what leaves next.
    #[inline(always)]
    pub(crate) fn copy_plain(&mut self, pools: &Pools, out: &mut [u8]) {
        self.sender.copy_next(&pools.send, out);
    }

    /// It left.
    #[inline(always)]
    pub(crate) fn on_plain_sent(&mut self, pools: &mut Pools, sent: &PlainOutput, now: Instant) {
        let len = u32::from(sent.len);
        if len > 0 {
            self.sender.on_plain_sent(&mut pools.send, len, now);
            self.send_window
                .on_sent(sent.seq + len, len, self.options.mss);
        }
        self.after_ack(sent.ack, len > 0);
    }
}
