//! What goes in and out of a [`Sender`](super::Sender): ACKs, segments, timers.

use super::rtt::RTO_MIN_DEFAULT_MS;
use crate::tcp::options::SackBlocks;
use crate::tcp::seq::SeqNum;
use crate::time::Instant;

/// How a connection was established, as far as sending goes.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Payload of the largest segment we may send, in bytes, without options. 0 counts as 1.
    pub mss: u16,
    /// Both sides sent SACK-permitted (RFC 2018 §2).
    pub sack: bool,
    /// Both sides sent timestamps (RFC 7323 §3.2).
    pub timestamps: bool,
    /// The least retransmission timeout, in milliseconds: at least 1.
    pub rto_min_ms: u16,
    /// Our SYN or SYN-ACK had to be sent again.
    pub syn_retransmitted: bool,
    /// Microseconds from our SYN or SYN-ACK to its ACK, if it was sent once.
    pub handshake_us: Option<u32>,
}

impl Default for Setup {
    /// What two modern hosts agree on over a path of 1500 bytes (IPv4, timestamps on).
    fn default() -> Self {
        Self {
            mss: 1448,
            sack: true,
            timestamps: true,
            rto_min_ms: RTO_MIN_DEFAULT_MS,
            syn_retransmitted: false,
            handshake_us: None,
        }
    }
}

/// What an acceptable segment says to the sender.
#[derive(Clone, Copy, Debug)]
pub struct AckInput<'a> {
    /// SEG.ACK.
    pub ack: SeqNum,
    /// The window it announces is not the one announced before.
    pub window_changed: bool,
    /// SEG.LEN is not 0.
    pub has_data: bool,
    /// Its SACK blocks; None rather than none at all.
    pub sack: Option<&'a SackBlocks>,
    /// Its `TSecr`, after the checks of RFC 7323 §5. None on connections without timestamps.
    pub ts_echo: Option<u32>,
    /// What our timestamp clock shows now, in milliseconds.
    pub ts_now: u32,
    /// It has ECE, on a connection with ECN (RFC 3168).
    pub ece: bool,
    /// When it arrived.
    pub now: Instant,
}

/// What an ACK did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acked {
    /// What kind it was.
    pub kind: Acknowledged,
    /// Bytes of data acknowledged for the first time: so much room is in the send buffer again.
    pub bytes: u32,
    /// Our FIN was acknowledged, now.
    pub fin: bool,
    /// A recovery turned out to have been needless, and was undone.
    pub undone: bool,
}

/// Kinds of ACKs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledged {
    /// It acknowledges something new: SND.UNA < SEG.ACK.
    New,
    /// It acknowledges nothing new but tells that something arrived: a duplicate ACK of
    /// RFC 5681 §2, or with SACK of RFC 6675 §2.
    Duplicate,
    /// It acknowledges nothing new: a window update, data, a keep-alive.
    Current,
    /// It is before SND.UNA.
    Old,
    /// It acknowledges what was never sent: SND.NXT < SEG.ACK (RFC 9293 §3.10.7.4: answer with an
    /// ACK, and drop it). Nothing was changed.
    NeverSent,
}

/// What may be sent apart from what congestion control allows.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// Bytes of the next segment of new data, as the peer's window, silly window avoidance and
    /// Nagle allow it: see [`SendWindow::next_segment`](crate::tcp::flow::SendWindow::next_segment).
    /// 0 if none.
    pub segment: u32,
    /// Usable window: SND.UNA + SND.WND − SND.NXT, 0 if that is negative. In bytes; FIN takes one.
    pub window: u32,
    /// Payload a segment has room for, in bytes: the MSS less options. 0 counts as 1.
    pub mss: u16,
    /// What time it is.
    pub now: Instant,
}

/// A segment to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its first sequence number.
    pub seq: SeqNum,
    /// Bytes of payload; copy them with [`Sender::copy_out`](super::Sender::copy_out).
    pub len: u16,
    /// It has FIN, behind the payload.
    pub fin: bool,
    /// It should have PSH: it empties the send buffer (RFC 9293 §3.9.1.2).
    pub push: bool,
    /// It should have CWR: the window was reduced (RFC 3168 §6.1.2). Never on retransmissions
    /// (§6.1.5), which must not have ECT either.
    pub cwr: bool,
    /// It was sent before.
    pub retransmission: bool,
    /// What it is for.
    pub(super) purpose: Purpose,
    /// The record it was sent with before; `NONE` if it is new or there is none.
    pub(super) record: u32,
}

impl Plan {
    /// The sequence number behind it.
    #[inline]
    #[must_use]
    pub fn end(&self) -> SeqNum {
        self.seq + u32::from(self.len) + u32::from(self.fin)
    }

    /// Whether it probes for the tail of the data (RFC 8985 §7.3).
    #[must_use]
    pub fn is_tail_probe(&self) -> bool {
        self.purpose == Purpose::TailProbe
    }

    /// Whether it probes a closed window.
    #[must_use]
    pub fn is_window_probe(&self) -> bool {
        self.purpose == Purpose::WindowProbe
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Data,
    TailProbe,
    WindowProbe,
}

/// Which of its timers a sender waits for: there is at most one at a time (RFC 8985 §8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// None: nothing is outstanding.
    None,
    /// The retransmission timeout (RFC 6298).
    Rto,
    /// The probe timeout (RFC 8985 §7).
    Tlp,
    /// The reordering window of the last suspect (RFC 8985 §6.2).
    Reordering,
}

/// What a timer did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired {
    /// It was not due.
    Nothing,
    /// Everything outstanding is taken for lost, or nearly.
    Rto {
        /// How many times in a row, with nothing acknowledged: R1 and R2 of RFC 9293 §3.8.3 count
        /// this. Stays at 255.
        count: u8,
    },
    /// A probe is to be sent.
    Tlp,
    /// Segments whose reordering window passed may be lost.
    Reordering,
}

/// What the sender is doing about losses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaState {
    /// Nothing is known to be lost.
    Open,
    /// The window was reduced for a congestion mark, within this round trip (RFC 3168).
    Cwr,
    /// Fast recovery (RFC 6675, RFC 9937).
    Recovery,
    /// The retransmission timer expired, and what was outstanding then still is in part.
    Loss,
}
