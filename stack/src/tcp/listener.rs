//! Passive opens: who listens, and who is half-way in (RFC 9293 §3.10.7.2, §3.10.7.4 in SYN-RECEIVED).
//!
//! ```text
//!            SYN                          ACK                      accept
//!   peer ──────────► HalfOpen record ──────────────► Connection ──────────► application
//!            │            │ full, or as configured        ▲
//!            └────────────┴──► SYN cookie ─── ACK ────────┘
//! ```
//!
//! A half-open connection is a small record of its own, not a connection: a flood of SYNs costs neither
//! connections nor buffers, and when the table is full a cookie costs nothing at all (RFC 4987 §3.6).

use super::config::TcpConfig;
use super::flow::receive_window::{scale_for, syn_field};
use super::manage::acceptance::{self, ReceiveSpace};
use super::manage::challenge::LastChallenge;
use super::options::{OptionsOut, SynOptions, Timestamps, TsClock};
use super::segment::{Flags, Header, Segment};
use super::seq::SeqNum;
use super::socket_options::{IpFields, SocketOption, SocketOptions};
use super::table::Answer;
use super::tuple::Tuple;
use super::{TcpId, TcpListenerId};
use crate::counters::DropReason;
use crate::ip::address::Ip;
use crate::slab::{Handle, Slab};
use crate::socket::bind::Bind;
use crate::time::{Duration, Instant};
use alloc::collections::VecDeque;

/// What a listener wants for the connections it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenOptions {
    /// Connections at most that are half-open, or wait to be accepted.
    pub backlog: u32,
    /// Which congestion control they have.
    pub congestion: CongestionKind,
    /// Small segments are not held back (RFC 9293 §3.7.4).
    pub nodelay: bool,
}

/// Which congestion control a connection has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CongestionKind {
    /// RFC 9438.
    #[default]
    Cubic,
    /// RFC 5681, RFC 6582.
    NewReno,
}

/// A listening socket.
#[derive(Clone, Debug)]
pub struct Listener {
    /// What it is bound to.
    pub bind: Bind,
    /// See [`ListenOptions`].
    pub options: ListenOptions,
    /// What its connections begin with.
    pub socket: SocketOptions,
    /// Connections that are half-open.
    pub half_open: u32,
    /// Connections that wait to be accepted.
    waiting: VecDeque<TcpId>,
}

impl Listener {
    /// Whether no more half-open connections may begin.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.half_open as usize + self.waiting.len() >= self.options.backlog as usize
    }

    /// Connections that wait to be accepted.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether no more connections may wait to be accepted.
    #[must_use]
    pub fn is_accept_queue_full(&self) -> bool {
        self.waiting.len() >= self.options.backlog as usize
    }
}

/// All listening sockets of a worker.
#[derive(Debug)]
pub struct Listeners {
    slab: Slab<Listener>,
}

impl Listeners {
    /// For at most `capacity` sockets.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            slab: Slab::new(capacity),
        }
    }

    /// Adds a socket; none if there is no room. Takes the memory for its backlog now.
    pub fn insert(&mut self, bind: Bind, options: ListenOptions) -> Option<TcpListenerId> {
        let listener = Listener {
            bind,
            options,
            socket: SocketOptions {
                nodelay: options.nodelay,
                ..SocketOptions::default()
            },
            half_open: 0,
            waiting: VecDeque::with_capacity(options.backlog as usize),
        };
        self.slab.insert(listener).ok().map(TcpListenerId)
    }

    /// Takes a socket out; what waited in it is the caller's to abort.
    pub fn remove(&mut self, id: TcpListenerId) -> Option<VecDeque<TcpId>> {
        self.slab.get(id.0)?;
        self.slab.remove(id.0.slot).map(|listener| listener.waiting)
    }

    /// The socket in a slot.
    #[must_use]
    pub fn at(&self, slot: u16) -> Option<&Listener> {
        self.slab.at(slot.into())
    }

    /// The handle of the socket in a slot.
    #[must_use]
    pub fn handle(&self, slot: u16) -> Option<Handle> {
        self.slab.handle(slot.into())
    }

    /// All sockets, with their slots.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Listener)> {
        self.slab.iter()
    }

    /// What all are bound to, with their slots.
    pub fn binds(&self) -> impl Iterator<Item = (u16, Bind)> {
        self.slab.iter().map(|(slot, listener)| {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "TcpConfig::listeners is a u16"
            )]
            let slot = slot as u16;
            (slot, listener.bind)
        })
    }

    /// A half-open connection of this socket begins.
    pub fn on_half_open(&mut self, slot: u16) {
        if let Some(listener) = self.slab.at_mut(slot.into()) {
            listener.half_open += 1;
        }
    }

    /// One of this socket is complete, or given up.
    pub fn on_half_open_gone(&mut self, handle: Handle) {
        if let Some(listener) = self.slab.get_mut(handle) {
            listener.half_open = listener.half_open.saturating_sub(1);
        }
    }

    /// A connection waits to be accepted.
    pub fn on_complete(&mut self, handle: Handle, id: TcpId) {
        let Some(listener) = self.slab.get_mut(handle) else {
            return;
        };
        listener.waiting.push_back(id);
    }

    /// Whether a connection of this socket may become complete now.
    ///
    /// # Errors
    /// [`DropReason::TcpNoSocket`] if the socket was closed, [`DropReason::TcpBacklogFull`] if too many
    /// wait to be accepted.
    pub fn may_complete(&self, handle: Handle) -> Result<(), DropReason> {
        let listener = self.slab.get(handle).ok_or(DropReason::TcpNoSocket)?;
        if listener.is_accept_queue_full() {
            return Err(DropReason::TcpBacklogFull);
        }
        Ok(())
    }

    /// What this socket wants for its connections.
    ///
    /// # Errors
    /// [`DropReason::TcpNoSocket`] if the socket was closed.
    pub fn options(&self, handle: Handle) -> Result<(CongestionKind, SocketOptions), DropReason> {
        let listener = self.slab.get(handle).ok_or(DropReason::TcpNoSocket)?;
        Ok((listener.options.congestion, listener.socket))
    }

    /// Takes a choice for the connections this socket will have. Whether there is such a socket.
    pub fn set_option(&mut self, id: TcpListenerId, option: SocketOption) -> bool {
        let Some(listener) = self.slab.get_mut(id.0) else {
            return false;
        };
        listener.socket.set(option);
        true
    }

    /// The next connection to accept.
    pub fn accept(&mut self, id: TcpListenerId) -> Option<TcpId> {
        self.slab.get_mut(id.0)?.waiting.pop_front()
    }
}

/// A connection that waits for the last segment of its handshake: SYN-RECEIVED of a passive open.
#[derive(Clone, Copy, Debug)]
pub struct HalfOpen<I: Ip> {
    /// Both ends.
    pub tuple: Tuple<I::Addr>,
    /// Our initial sequence number.
    pub iss: SeqNum,
    /// The peer's.
    pub irs: SeqNum,
    /// What timestamps begin with.
    pub clock: TsClock,
    /// What the SYN offered and we agreed to.
    pub agreed: SynOptions,
    /// The last timestamp of the peer.
    pub recent: u32,
    /// Both sides speak ECN.
    pub ecn: bool,
    /// Our window scale.
    pub window_scale: u8,
    /// Our window field.
    pub window: u16,
    /// How often the SYN,ACK was sent again.
    pub retransmissions: u8,
    /// When the SYN,ACK was sent first.
    pub begun: Instant,
    /// Which listener.
    pub listener: Handle,
    /// Longest IP packet the path carries.
    pub path_mtu: u16,
    /// When it last answered.
    pub last_challenge: LastChallenge,
    /// What the application wants in IP headers.
    pub ip: IpFields,
}

/// What a segment for a half-open connection leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnSegment {
    /// Nothing.
    Drop,
    /// The SYN,ACK again: the peer's SYN came again.
    RepeatSynAck,
    /// An ACK: the segment is out of the window.
    Acknowledge,
    /// The peer gave up.
    Forget,
    /// The segment has an acknowledgement of something else: answered by RST.
    Reset,
    /// The handshake is complete; the segment goes on to the connection.
    Establish,
}

/// First wait for the ACK of a SYN,ACK, doubled with each one sent again (RFC 6298 §2.1, §5.5).
pub const SYN_ACK_TIMEOUT: Duration = Duration::from_secs(1);

impl<I: Ip> HalfOpen<I> {
    /// RFC 9293 §3.10.7.4 in SYN-RECEIVED.
    #[must_use]
    pub fn on_segment(&self, segment: &Segment<'_>) -> OnSegment {
        let flags = segment.flags;
        let space = ReceiveSpace {
            next: self.irs + 1,
            window: self.window.into(),
        };
        // The same SYN again: its SYN,ACK was lost.
        if flags.contains(Flags::SYN) && !flags.contains(Flags::ACK) && segment.seq == self.irs {
            return if flags.contains(Flags::RST) {
                OnSegment::Drop
            } else {
                OnSegment::RepeatSynAck
            };
        }
        // RFC 7323 §5.3: an old duplicate.
        let old = match (self.agreed.timestamps, segment.timestamps) {
            (Some(_), Some(theirs)) => acceptance::is_old_duplicate(theirs.value, self.recent, 0),
            // RFC 7323 §3.2: once agreed upon, every segment but a RST has them.
            (Some(_), None) => !flags.contains(Flags::RST),
            (None, _) => false,
        };
        if !space.accepts(segment.seq, segment.len()) || old {
            return if flags.contains(Flags::RST) {
                OnSegment::Drop
            } else {
                OnSegment::Acknowledge
            };
        }
        if flags.contains(Flags::RST) {
            // RFC 5961 §3.2 counts for this state as well: exact, or nothing.
            return if segment.seq == space.next {
                OnSegment::Forget
            } else {
                OnSegment::Acknowledge
            };
        }
        if flags.contains(Flags::SYN) {
            // RFC 5961 §4.2: a SYN within the window is answered with an ACK.
            return OnSegment::Acknowledge;
        }
        if !flags.contains(Flags::ACK) {
            return OnSegment::Drop;
        }
        // RFC 9293 §3.10.7.4, fifth: SND.UNA < SEG.ACK ≤ SND.NXT, and SND.NXT is behind our SYN.
        if segment.ack == self.iss + 1 {
            OnSegment::Establish
        } else {
            OnSegment::Reset
        }
    }

    /// How long to wait for the ACK of the SYN,ACK that was sent last.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        SYN_ACK_TIMEOUT.saturating_mul(1 << self.retransmissions.min(6))
    }
}

impl<I: Ip> HalfOpen<I> {
    /// The SYN,ACK.
    #[must_use]
    pub fn syn_ack(&self, config: &TcpConfig, now: Instant) -> Answer<I> {
        // RFC 3168 §6.1.1: ECE alone says yes. One that is sent again does not, in case that was what
        // a broken router dropped (§6.1.1.1).
        let ecn = if self.ecn && self.retransmissions == 0 {
            Flags::ECE
        } else {
            Flags::NONE
        };
        let scale = self.agreed.window_scale.map(|_| self.window_scale);
        let options = OptionsOut {
            mss: Some(our_mss::<I>(self.path_mtu)),
            window_scale: scale,
            sack_permitted: self.agreed.sack_permitted && config.sack,
            ..OptionsOut::timestamps(self.timestamps(now))
        };
        let flags = Flags::SYN.union(Flags::ACK).union(ecn);
        self.segment(self.iss, flags, self.window, options)
    }

    /// An ACK of the peer's SYN, to a segment that is out of place.
    #[must_use]
    pub fn acknowledgement(&self, now: Instant) -> Answer<I> {
        let options = OptionsOut::timestamps(self.timestamps(now));
        let window = if self.agreed.window_scale.is_some() {
            self.window >> self.window_scale
        } else {
            self.window
        };
        self.segment(self.iss + 1, Flags::ACK, window, options)
    }

    fn timestamps(&self, now: Instant) -> Option<Timestamps> {
        self.agreed.timestamps.map(|_| Timestamps {
            value: self.clock.value(now),
            echo: self.recent,
        })
    }

    fn segment(&self, seq: SeqNum, flags: Flags, window: u16, options: OptionsOut) -> Answer<I> {
        Answer {
            tuple: self.tuple,
            header: Header {
                source_port: self.tuple.local_port,
                destination_port: self.tuple.remote_port,
                seq,
                ack: self.irs + 1,
                flags,
                window,
                urgent: 0,
            },
            options,
            ip: self.ip,
        }
    }
}

/// What our SYN says we take in a segment: what a path of this MTU carries (RFC 9293 §3.7.1, MUST-67).
#[must_use]
pub const fn our_mss<I: Ip>(path_mtu: u16) -> u16 {
    #[expect(clippy::cast_possible_truncation, reason = "20 or 40")]
    let ip = I::HEADER_BYTES as u16;
    path_mtu.saturating_sub(ip + 20)
}

/// The window field of our SYN,ACK, which is not scaled.
#[must_use]
pub const fn syn_window(config: &TcpConfig) -> u16 {
    syn_field(config.receive_buffer)
}

/// The window scale we offer: what the largest receive buffer takes.
#[must_use]
pub const fn window_scale(config: &TcpConfig) -> u8 {
    scale_for(config.receive_buffer_max)
}

/// What of a peer's offer we agree to.
#[must_use]
pub fn agree(offer: SynOptions, config: &TcpConfig) -> SynOptions {
    let SynOptions {
        mss,
        window_scale,
        sack_permitted,
        timestamps,
        fast_open,
    } = offer;
    SynOptions {
        mss,
        window_scale: window_scale.filter(|_| config.window_scaling),
        sack_permitted: sack_permitted && config.sack,
        timestamps: timestamps.filter(|_| config.timestamps),
        // RFC 7413 §4.1: without a cookie in our SYN,ACK the peer sends data only after the
        // handshake, as ever.
        fast_open,
    }
}
