//! A connection: the sum of four parts, and what it does with a segment, a timer, the application.
//!
//! * `input`: a segment arrived (RFC 9293 §3.10.7.4)
//! * `syn_sent`: the same before both sides are synchronized (§3.10.7.3)
//! * `output`: what to send now
//! * `plain`: the short way of ordinary segments, both in and out
//! * `timer`: deadlines that are not the sender's
//! * `application`: read, write, close, abort
//!
//! ```text
//!               ┌───────────── manage: State ─────────────┐
//!   segment ──► │ deliver: Receiver ──► application reads │
//!               │ deliver: Sender   ◄── application writes│ ──► segments
//!               │   └ congestion: C     flow: windows, ACKs│
//!               └─────────────────────────────────────────┘
//! ```
//!
//! It allocates nothing: data under way is in the pools that all connections share.

mod application;
mod info;
mod input;
mod output;
mod plain;
mod syn_sent;
mod timer;

pub use application::Misuse;
pub use output::{Blocked, Outgoing, Output, Transmitted};
pub(crate) use plain::{Next, PlainOutput, PlainSegment, Then};

use super::config::TcpConfig;
use super::congestion::{CongestionControl, Cubic};
use super::deliver::receive::Receiver;
use super::deliver::{Sender, Setup};
use super::flow::{self, AckPolicy, Persist, ReceiveWindow, SendWindow};
use super::listener::Listeners;
use super::manage::State;
use super::manage::challenge::{ChallengeLimiter, LastChallenge};
use super::manage::states::{CloseReason, Established, SynReceived, SynSent};
use super::options::{OptionsOut, SynOptions, TsClock};
use super::pools::Pools;
use super::segment::{Flags, Header};
use super::seq::SeqNum;
use super::socket_options::{IcmpError, IpFields, SocketOptions};
use super::table::Answer;
use super::time_wait::{TimeWait, TimeWaitTimestamps};
use super::tuple::Tuple;
use crate::counters::{Event, EventCounters};
use crate::ip::address::{Ip, Ipv6};
use crate::time::Instant;

/// One connection. `I` is what its addresses are, `C` how it answers congestion.
#[derive(Debug)]
pub struct Connection<I: Ip, C> {
    tuple: Tuple<I::Addr>,
    state: State,
    sender: Sender<C>,
    receiver: Receiver,
    send_window: SendWindow,
    receive_window: ReceiveWindow,
    persist: Persist,
    acks: AckPolicy,
    options: Negotiated,
    timer: timer::StateTimer,
    application: application::Application,
}

/// What both sides agreed upon in the handshake, and what goes with it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Negotiated {
    clock: TsClock,
    /// TS.Recent (RFC 7323 §4.3).
    recent: u32,
    /// When it was set, in seconds of the stack's clock.
    recent_at_s: u32,
    /// Last.ACK.sent.
    last_ack_sent: SeqNum,
    last_challenge: LastChallenge,
    /// Payload a segment may carry to the peer: its MSS option.
    peer_mss: u16,
    /// Longest IP packet the path carries.
    path_mtu: u16,
    /// Payload a segment carries without SACK blocks: of both, less options.
    mss: u16,
    timestamps: bool,
    sack: bool,
    ecn: bool,
    /// CE was seen: every ACK says so until the peer reduced its window (RFC 3168 §6.1.3).
    echo_ce: bool,
    /// Both sides scale their windows.
    scaling: bool,
    /// Its tuple is free: another connection may have it.
    detached: bool,
}

/// What a connection is told of the stack it lives in.
pub struct Context<'a> {
    /// Limits and choices.
    pub config: &'a TcpConfig,
    /// Memory for what is under way.
    pub pools: &'a mut Pools,
    /// Challenge ACKs of all connections.
    pub challenges: &'a mut ChallengeLimiter,
    /// Who listens.
    pub listeners: &'a mut Listeners,
    /// What happened.
    pub events: &'a mut EventCounters,
    /// The time.
    pub now: Instant,
}

/// How a connection begins.
#[derive(Clone, Copy, Debug)]
pub struct Opening<I: Ip> {
    /// Both ends.
    pub tuple: Tuple<I::Addr>,
    /// Our initial sequence number.
    pub iss: SeqNum,
    /// What our timestamps begin with.
    pub clock: TsClock,
    /// Longest IP packet the path carries, in bytes.
    pub path_mtu: u16,
    /// What the application wants.
    pub options: SocketOptions,
}

/// What a passive open learnt from the handshake.
#[derive(Clone, Copy, Debug)]
pub struct Handshake {
    /// The peer's initial sequence number.
    pub irs: SeqNum,
    /// What its SYN offered and we agreed to.
    pub agreed: SynOptions,
    /// Both sides speak ECN.
    pub ecn: bool,
    /// The peer's last timestamp.
    pub recent: u32,
    /// What its ACK acknowledged: behind our SYN.
    pub ack: SeqNum,
    /// How long the handshake took in microseconds, if that is beyond doubt (RFC 6298 §3: not if the SYN,ACK was sent
    /// again).
    pub handshake_us: Option<u32>,
}

/// What has become of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on.
    Alive,
    /// Both directions are closed, and ours was first: only a record stays.
    TimeWait,
    /// It is gone, for this reason.
    Closed(CloseReason),
    /// The same, and the peer is to be told by a RST.
    Reset {
        /// Why.
        reason: CloseReason,
        /// The sequence number of the RST: SND.NXT.
        seq: SeqNum,
    },
}

/// What is to be done about a connection that is no more.
pub(crate) struct Retired<I: Ip> {
    /// Its tuple is free now.
    pub leaves: bool,
    /// The peer is to be told this.
    pub answer: Option<Answer<I>>,
    /// What stays in its place.
    pub time_wait: Option<TimeWait<I>>,
    /// Nobody needs the record any more.
    pub remove: bool,
}

impl<'a> Context<'a> {
    /// See [`seconds`].
    #[inline]
    pub(super) fn now_s(&self) -> u32 {
        seconds(self.now)
    }
}

/// A time in seconds (of 2³⁰ ns): for what lives long and need not be exact.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "136 years")]
const fn seconds(at: Instant) -> u32 {
    (at.as_nanos() >> 30) as u32
}

/// RFC 9293 §3.7.1 (MUST-15): what a peer takes that does not say: 536 bytes over IPv4, 1,220 over IPv6.
pub(super) const fn default_mss<I: Ip>() -> u16 {
    if I::VERSION == 4 { 536 } else { 1220 }
}

/// Headers of IP and TCP without options, in bytes.
const fn headers_len<I: Ip>() -> u16 {
    #[expect(clippy::cast_possible_truncation, reason = "20 or 40")]
    let ip = I::HEADER_BYTES as u16;
    ip + 20
}

impl<I: Ip, C: CongestionControl> Connection<I, C> {
    /// Begins to open a connection: a SYN leaves with the next [`transmit`](Self::transmit).
    #[must_use]
    pub fn connect(cx: &mut Context<'_>, opening: Opening<I>) -> Self {
        let state = State::SynSent(SynSent {
            iss: opening.iss,
            retransmissions: 0,
        });
        let mut connection = Self::new(cx, state, opening, SeqNum::new(0), ScaleOffered::Yes);
        connection.acks.owe(cx.now);
        connection
    }

    /// A connection whose handshake a listener has completed.
    #[must_use]
    pub fn accept(cx: &mut Context<'_>, opening: Opening<I>, handshake: &Handshake) -> Self {
        let Handshake {
            irs,
            agreed,
            ecn,
            recent,
            ack,
            handshake_us,
        } = *handshake;
        let state = State::Established(Established);
        let offered = if agreed.window_scale.is_some() {
            ScaleOffered::Yes
        } else {
            ScaleOffered::No
        };
        let iss = opening.iss;
        let mut it = Self::new(cx, state, opening, irs + 1, offered);
        it.agree(cx, &agreed, recent, irs);
        it.options.ecn = ecn;
        // RFC 7323 §2.2: of the ACK, whose window is scaled, the segment itself tells.
        it.send_window = SendWindow::new(irs, ack, 0, agreed.window_scale.unwrap_or(0));
        let setup = it.setup(cx, handshake_us.is_none(), handshake_us);
        it.sender = Sender::new(iss + 1, &setup, cx.now);
        it.timer.on_established(cx.now);
        it.start_keepalive(cx);
        it.application.on_data();
        cx.events.count(Event::TcpEstablished);
        it
    }

    fn new(
        cx: &mut Context<'_>,
        state: State,
        opening: Opening<I>,
        receive_next: SeqNum,
        offered: ScaleOffered,
    ) -> Self {
        let Opening {
            tuple,
            iss,
            clock,
            path_mtu,
            options,
        } = opening;
        let config = cx.config;
        let mss = default_mss::<I>();
        let scale = match offered {
            ScaleOffered::Yes if config.window_scaling => {
                flow::receive_window::scale_for(config.receive_buffer_max)
            }
            _ => 0,
        };
        Self {
            tuple,
            state,
            sender: Sender::new(iss + 1, &Setup::default(), cx.now),
            receiver: Receiver::new(receive_next),
            send_window: SendWindow::new(receive_next - 1, iss + 1, 0, 0),
            receive_window: ReceiveWindow::new(
                receive_next,
                config.receive_buffer,
                config.receive_buffer_max,
                scale,
                cx.now,
            ),
            persist: Persist::new(),
            acks: AckPolicy::new(cx.now),
            options: Negotiated {
                clock,
                recent: 0,
                recent_at_s: 0,
                last_ack_sent: receive_next,
                last_challenge: LastChallenge::default(),
                peer_mss: default_mss::<I>(),
                path_mtu,
                mss,
                timestamps: false,
                sack: false,
                ecn: false,
                echo_ce: false,
                scaling: false,
                detached: false,
            },
            timer: timer::StateTimer::new(cx.now),
            application: application::Application::new(options),
        }
    }

    /// Takes over what both sides agreed upon.
    fn agree(&mut self, cx: &Context<'_>, agreed: &SynOptions, recent: u32, irs: SeqNum) {
        let options = &mut self.options;
        options.sack = agreed.sack_permitted;
        options.timestamps = agreed.timestamps.is_some();
        options.recent = recent;
        options.recent_at_s = cx.now_s();
        options.last_ack_sent = irs + 1;
        options.peer_mss = agreed.mss.unwrap_or(default_mss::<I>()).max(MSS_MIN);
        options.scaling = agreed.window_scale.is_some();
        self.update_mss();
    }

    /// RFC 9293 §3.7.1 (MUST-16): the smaller of what the peer takes and the path carries, less the
    /// options every segment has.
    fn update_mss(&mut self) {
        let path = self.options.path_mtu.saturating_sub(headers_len::<I>());
        let options = if self.options.timestamps { 12 } else { 0 };
        let mss = self.options.peer_mss.min(path).saturating_sub(options);
        self.options.mss = mss.max(MSS_MIN);
    }

    /// What the sender has to know of the handshake.
    fn setup(&self, cx: &Context<'_>, syn_retransmitted: bool, handshake_us: Option<u32>) -> Setup {
        Setup {
            mss: self.options.mss,
            sack: self.options.sack,
            timestamps: self.options.timestamps,
            rto_min_ms: cx.config.rto_min_ms,
            syn_retransmitted,
            handshake_us,
        }
    }

    /// The path carries IP packets of this many bytes now. What was too long for it is sent again at
    /// once (RFC 8201 §4, RFC 1191 §6.4).
    #[inline]
    pub fn set_path_mtu(&mut self, cx: &mut Context<'_>, path_mtu: u16) {
        if path_mtu != self.options.path_mtu {
            self.on_path_mtu(cx, path_mtu);
        }
    }

    #[cold]
    fn on_path_mtu(&mut self, cx: &mut Context<'_>, path_mtu: u16) {
        let shrank = path_mtu < self.options.path_mtu;
        self.options.path_mtu = path_mtu;
        self.update_mss();
        if !self.state.is_synchronized() {
            return;
        }
        if shrank {
            self.sender
                .on_mtu_reduced(&mut cx.pools.send, self.options.mss, cx.now);
        } else {
            // RFC 1191 §6.3, RFC 8899 §5.1.1: what was learnt is forgotten after a while, in case the path is
            // another now.
            self.sender.set_mss(self.options.mss);
        }
    }

    /// What our SYN says we take: as much as our link carries.
    #[inline]
    fn our_mss(&self) -> u16 {
        self.options.path_mtu.saturating_sub(headers_len::<I>())
    }

    /// Both ends.
    #[inline]
    #[must_use]
    pub const fn tuple(&self) -> &Tuple<I::Addr> {
        &self.tuple
    }

    /// Its state.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// Whether an ICMP error quotes a segment that is under way (RFC 5927 §4.1).
    #[must_use]
    pub fn has_under_way(&self, seq: SeqNum) -> bool {
        match self.state {
            State::SynSent(SynSent { iss, .. }) => seq == iss,
            State::SynReceived(SynReceived { iss, .. }) => seq == iss,
            _ => seq.at_or_after(self.sender.una()) && seq.before(self.sender.nxt()),
        }
    }

    /// An ICMP error about what is under way. A hard one ends an attempt to open a connection; what is
    /// open goes on whatever it says (RFC 5927 §5.2), and what is soft never ends anything (RFC 9293
    /// §3.9.2.2: MUST-56). The application may ask for it (SHLD-25).
    pub fn on_icmp(&mut self, cx: &mut Context<'_>, icmp: IcmpError) -> Fate {
        match self.state {
            State::SynSent(_) | State::SynReceived(_) if icmp.hard => {
                self.end(cx, icmp.error.close_reason())
            }
            _ => {
                self.application.on_soft_error(icmp.error);
                Fate::Alive
            }
        }
    }

    /// What the application wants in IP headers.
    #[inline]
    #[must_use]
    pub(crate) const fn ip_fields(&self) -> IpFields {
        self.application.ip()
    }

    /// It ended this way: what is to be done about it.
    pub(crate) fn retire(&mut self, cx: &mut Context<'_>, fate: Fate) -> Retired<I> {
        let leaves = !core::mem::replace(&mut self.options.detached, true);
        let owes_ack = self.acks.is_owed();
        // Nothing is due any more, however long the application keeps the record.
        self.persist.stop();
        self.acks = AckPolicy::new(cx.now);
        self.timer.stop();
        let answer = match fate {
            // Once: what has left may not speak for a tuple that another connection may have.
            Fate::Reset { seq, .. } if leaves => Some(self.reset(seq)),
            _ => None,
        };
        let time_wait = (fate == Fate::TimeWait && leaves).then(|| {
            let next = self.receiver.next();
            TimeWait {
                tuple: self.tuple,
                send_next: self.sender.nxt(),
                receive_next: next,
                window: self.receive_window.advertise(&self.space(cx)),
                timestamps: self.options.timestamps.then_some(TimeWaitTimestamps {
                    clock: self.options.clock,
                    recent: self.options.recent,
                }),
                last_challenge: LastChallenge::default(),
                ip: self.application.ip(),
            }
        });
        if let Some(record) = &time_wait {
            // The peer's FIN is acknowledged from here; an ACK of ours, which leads here from CLOSING,
            // is not (RFC 9293 §3.10.7.4, fifth).
            let answer = owes_ack.then(|| record.acknowledgement(cx.now));
            self.end(cx, CloseReason::Finished);
            return Retired {
                leaves,
                answer,
                time_wait,
                remove: self.application.is_gone(),
            };
        }
        Retired {
            leaves,
            answer,
            time_wait,
            remove: self.application.is_gone(),
        }
    }

    /// `<SEQ=SND.NXT><ACK=RCV.NXT><CTL=RST,ACK>` (RFC 9293 §3.10.5).
    fn reset(&self, seq: SeqNum) -> Answer<I> {
        Answer {
            tuple: self.tuple,
            header: Header {
                source_port: self.tuple.local_port,
                destination_port: self.tuple.remote_port,
                seq,
                ack: self.receiver.next(),
                flags: Flags::RST.union(Flags::ACK),
                window: 0,
                urgent: 0,
            },
            options: OptionsOut::NONE,
            ip: self.application.ip(),
        }
    }
}

/// Whether a window scale was in our SYN.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ScaleOffered {
    Yes,
    No,
}

/// Payload of a segment, at least: less than this from a hostile peer or path would cost more in
/// headers and work than it carries (CVE-2019-11479; Linux has 48 as well).
const MSS_MIN: u16 = 48;

// What an idle connection takes, beside 4 bytes in its slab, 17 in the index, 16 in the timer wheel and
// 15 in the three queues. The goal is 512 for all of it.
const _: () = assert!(size_of::<Connection<Ipv6, Cubic>>() <= 460);
