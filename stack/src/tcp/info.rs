//! What there is to tell of a connection, for operators: the names are those of `ss -ti` and of Linux's
//! `struct tcp_info` (include/uapi/linux/tcp.h).

use core::net::SocketAddr;

/// A connection, half-open or in TIME-WAIT, too, or a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpInfo {
    /// The state, as `ss` names it.
    pub state: &'static str,
    /// Our end.
    pub local: SocketAddr,
    /// The peer's; unspecified for a listener.
    pub remote: SocketAddr,
    /// Bytes that wait for the application; of a listener, connections that do.
    pub recv_q: u32,
    /// Bytes that were not acknowledged yet, or not sent; of a listener, its backlog.
    pub send_q: u32,
    /// What a connection beyond its handshake has.
    pub detail: Option<TcpDetail>,
}

/// What a connection beyond its handshake has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpDetail {
    /// The congestion control: `cubic`, `reno`.
    pub congestion: &'static str,
    /// Congestion window, in bytes (Linux counts segments).
    pub cwnd_bytes: u32,
    /// Slow-start threshold, in bytes; `u32::MAX` until there was a loss.
    pub ssthresh_bytes: u32,
    /// Smoothed round-trip time, in microseconds; 0 before the first sample (RFC 6298).
    pub rtt_us: u32,
    /// Its variation, in microseconds.
    pub rttvar_us: u32,
    /// The least of late, in microseconds.
    pub minrtt_us: u32,
    /// Retransmission timeout, in microseconds, backed off.
    pub rto_us: u32,
    /// Timeouts since the last acknowledgement of something new.
    pub backoff: u8,
    /// Bytes that were sent and not acknowledged.
    pub unacked_bytes: u32,
    /// Bytes that were not sent.
    pub notsent_bytes: u32,
    /// Bytes of the former taken for lost, and not sent again yet.
    pub lost_bytes: u32,
    /// Bytes of the former that the peer has behind a hole.
    pub sacked_bytes: u32,
    /// Payload of a full segment, in bytes.
    pub mss: u16,
    /// Longest IP packet of the path, in bytes.
    pub pmtu: u16,
    /// What the peer takes, in bytes.
    pub snd_wnd: u32,
    /// What we take, in bytes.
    pub rcv_wnd: u32,
    /// Window scales: the peer's, ours; none if they were not agreed upon.
    pub wscale: Option<(u8, u8)>,
    /// Both sides have timestamps.
    pub ts: bool,
    /// Both sides have selective acknowledgements.
    pub sack: bool,
    /// Both sides have ECN.
    pub ecn: bool,
}

/// How far a walk over all connections is; it goes on while connections come and go, and sees each that is
/// there all the time once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpCursor {
    /// 0 to 7: IPv4 and IPv6, four kinds of records each.
    pub(crate) kind: u8,
    /// Slots of the kind that were looked at.
    pub(crate) slot: u32,
}

impl TcpCursor {
    /// Whether everything was looked at.
    #[must_use]
    pub const fn is_at_end(&self) -> bool {
        self.kind >= 8
    }
}
