//! What TCP is told at start: limits of memory, and choices.

use super::flow::AckDelay;
use crate::time::Duration;

/// Everything TCP is told at start. Every limit is memory taken at start or a bound kept.
#[derive(Clone, Debug)]
pub struct TcpConfig {
    /// Connections with CUBIC of each IP version, the half-open ones apart.
    pub connections: u32,
    /// Connections with NewReno of each IP version.
    pub connections_new_reno: u32,
    /// Connections that wait for the last segment of their handshake, of each IP version. Beyond it
    /// SYN cookies are sent (RFC 4987 §3.6).
    pub half_open: u32,
    /// Records of closed connections, of each IP version. Beyond it the oldest goes.
    pub time_wait: u32,
    /// Memory for bytes to be sent or acknowledged, in chunks of
    /// [`CHUNK_BYTES`](super::buffer::CHUNK_BYTES), of all connections.
    pub send_chunks: u32,
    /// Memory for bytes to be read, likewise.
    pub receive_chunks: u32,
    /// Transmissions remembered until they are acknowledged, of all connections.
    pub transmissions: u32,
    /// Stretches of data out of order, of all connections.
    pub out_of_order: u32,
    /// Listening sockets.
    pub listeners: u16,
    /// Bytes a connection may hold to be sent, at most.
    pub send_buffer: u32,
    /// Bytes a connection offers to receive at first.
    pub receive_buffer: u32,
    /// Bytes a connection offers to receive, at most: what autotuning may grow to.
    pub receive_buffer_max: u32,
    /// The least retransmission timeout, in milliseconds: at least 1. RFC 6298 §2.4 says 1 s; 200 ms is what Linux has.
    pub rto_min_ms: u16,
    /// The longest time an ACK is held back (RFC 9293 §3.8.6.3: less than 500 ms).
    pub ack_delay: AckDelay,
    /// How often a SYN is sent again before a connection is given up. RFC 9293 §3.8.3 (MUST-23) wants it
    /// repeated for 3 minutes at least: seven times, at 1, 3, 7, 15, 31, 63 and 127 s, and the last has
    /// until 191 s.
    pub syn_retries: u8,
    /// How often a SYN,ACK is.
    pub syn_ack_retries: u8,
    /// How long data may go unacknowledged before a connection is given up (RFC 5482, RFC 9293 §3.8.3 R2).
    pub user_timeout: Duration,
    /// How idle connections are probed whose application asks for it; none is by default (RFC 9293 §3.8.4,
    /// MUST-24, MUST-25).
    pub keepalive: Keepalive,
    /// How long the memory of a closed connection stays.
    pub time_wait_period: Duration,
    /// How long a connection that the application has closed waits for the peer's FIN.
    pub fin_wait_2: Duration,
    /// When SYN cookies are sent.
    pub syn_cookies: SynCookies,
    /// Challenge ACKs a second, about, of all connections (RFC 5961 §7).
    pub challenge_acks_per_s: u32,
    /// Offer and accept selective acknowledgements (RFC 2018).
    pub sack: bool,
    /// Offer and accept timestamps (RFC 7323 §3).
    pub timestamps: bool,
    /// Offer and accept window scaling (RFC 7323 §2).
    pub window_scaling: bool,
    /// Offer and accept ECN (RFC 3168).
    pub ecn: Ecn,
    /// Ports for connections that we open: first and last.
    pub ports: (u16, u16),
    /// 128 secret bits for initial sequence numbers, ports and cookies, from a cryptographic source.
    pub secret: [u64; 2],
}

/// See [`TcpConfig::keepalive`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Every connection is probed, unless its application asks for it not to be.
    pub always: bool,
    /// Silence before the first probe (RFC 9293 §3.8.4, MUST-27: at least 2 hours by default).
    pub idle: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// Unanswered probes after which the connection is dead.
    pub probes: u8,
}

impl Keepalive {
    /// Not unless asked for (MUST-25), and only after two hours (MUST-28); probes as on Linux.
    pub const DEFAULT: Self = Self {
        always: false,
        idle: Duration::from_secs(7200),
        interval: Duration::from_secs(75),
        probes: 9,
    };
}

/// When SYN cookies are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SynCookies {
    /// Never: SYNs beyond the limits are dropped.
    Never,
    /// When the table of half-open connections, or a listener's backlog, is full.
    WhenFull,
    /// Always: no SYN costs memory.
    Always,
}

/// What is done about ECN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ecn {
    /// Nothing.
    Off,
    /// Agreed to when the peer asks: what Linux does by default.
    Accept,
    /// Asked for, too.
    Offer,
}

impl TcpConfig {
    /// No listener, no connection, and no memory for any: for a stack that serves datagrams alone.
    #[must_use]
    pub fn none() -> Self {
        Self {
            connections: 0,
            connections_new_reno: 0,
            half_open: 0,
            time_wait: 0,
            send_chunks: 0,
            receive_chunks: 0,
            transmissions: 0,
            out_of_order: 0,
            listeners: 0,
            ..Self::default()
        }
    }
}

impl Default for TcpConfig {
    /// The defaults of the service's configuration. The secret is fixed: for tests only.
    fn default() -> Self {
        Self {
            connections: 16_384,
            connections_new_reno: 1024,
            half_open: 4096,
            time_wait: 16_384,
            send_chunks: 16_384,
            receive_chunks: 16_384,
            transmissions: 65_536,
            out_of_order: 4096,
            listeners: 64,
            send_buffer: 1 << 20,
            receive_buffer: 64 << 10,
            receive_buffer_max: 4 << 20,
            rto_min_ms: 200,
            ack_delay: AckDelay::DEFAULT,
            syn_retries: 7,
            syn_ack_retries: 5,
            user_timeout: Duration::from_secs(15 * 60),
            keepalive: Keepalive::DEFAULT,
            time_wait_period: Duration::from_secs(60),
            fin_wait_2: Duration::from_secs(60),
            syn_cookies: SynCookies::WhenFull,
            challenge_acks_per_s: 1000,
            sack: true,
            timestamps: true,
            window_scaling: true,
            ecn: Ecn::Accept,
            ports: (32_768, 60_999),
            secret: [3, 4],
        }
    }
}
