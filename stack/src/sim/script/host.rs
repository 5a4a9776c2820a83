//! What a script runs on: a TCP with an application's verbs, frames in and frames out, and a clock
//! that the script turns.

use super::frame::Addresses;
use crate::time::{Duration, Instant};
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

/// An error as a script names it: the name of its `errno`, such as `ECONNRESET`.
pub type Errno = &'static str;

/// What [`TcpHost::read`] and the like answer when there is nothing to be done now.
pub const WOULD_BLOCK: Errno = "EAGAIN";

/// Which congestion control a connection uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Congestion {
    /// RFC 5681, RFC 6582.
    NewReno,
    /// RFC 9438.
    Cubic,
}

/// An option of a socket: `option NAME VALUE` for all sockets of a script, `set NAME VALUE` for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketOption {
    /// `nodelay on|off`: without the Nagle algorithm (RFC 9293 MUST-17).
    NoDelay(bool),
    /// `send_buffer N`: bytes.
    SendBuffer(u32),
    /// `receive_buffer N`: bytes; no automatic tuning then.
    ReceiveBuffer(u32),
    /// `congestion newreno|cubic`.
    Congestion(Congestion),
    /// `mss N`: largest segment that is sent and announced, bytes (`TCP_MAXSEG`).
    Mss(u16),
    /// `keepalive on|off` (MUST-24).
    KeepAlive(bool),
    /// `keepalive_idle T`: idle time before the first probe (MUST-27).
    KeepAliveIdle(Duration),
    /// `keepalive_interval T`: time between probes.
    KeepAliveInterval(Duration),
    /// `keepalive_count N`: unanswered probes before the connection is given up (MUST-29).
    KeepAliveCount(u32),
    /// `user_timeout T`: R2, how long data may stay unacknowledged (MUST-21, RFC 5482).
    UserTimeout(Duration),
    /// `ttl N`: time to live, hop limit (MUST-49).
    Ttl(u8),
    /// `tos N`: type of service, traffic class; the low two bits are ECN's (MUST-48).
    Tos(u8),
    /// `ecn on|off`: explicit congestion notification (RFC 3168).
    Ecn(bool),
    /// `sack on|off`: selective acknowledgments (RFC 2018).
    Sack(bool),
    /// `timestamps on|off` (RFC 7323).
    Timestamps(bool),
    /// `window_scaling on|off` (RFC 7323).
    WindowScaling(bool),
    /// `delayed_ack T`: how long an acknowledgment may wait; 0 for not at all.
    DelayedAck(Duration),
    /// `quick_ack N`: segments acknowledged at once after the start of a connection.
    QuickAck(u32),
    /// `rto_min T`: floor of the retransmission timeout.
    RtoMin(Duration),
    /// `linger T`: `close` waits so long for data to be acknowledged; 0 resets (`SO_LINGER`).
    Linger(Duration),
}

/// What the host of a script is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// From the peer to the host.
    pub addresses: Addresses,
    /// Everybody the script lets speak, all at the peer's Ethernet address. The host knows that from
    /// the start.
    pub peers: Vec<IpAddr>,
    /// MTU of the link, in bytes.
    pub mtu: u32,
    /// For every socket and listener.
    pub options: Vec<SocketOption>,
    /// `config NAME VALUE`: the stack's own settings. Durations are in nanoseconds.
    pub config: Vec<(String, i64)>,
    /// When the script starts.
    pub start: Instant,
}

/// A TCP under a script. Verbs happen at the time that [`advance`](Self::advance) set last.
pub trait TcpHost {
    /// A connection, as applications know it.
    type Socket: Copy;
    /// A listening socket.
    type Listener: Copy;

    /// Listens on `local`, whose address may be unspecified.
    ///
    /// # Errors
    /// The `errno` of the same call on Linux.
    fn listen(
        &mut self,
        local: SocketAddr,
        backlog: Option<u32>,
        options: &[SocketOption],
    ) -> Result<Self::Listener, Errno>;
    /// The next connection that was established; `None` if there is none.
    fn accept(&mut self, listener: Self::Listener) -> Option<Self::Socket>;
    /// Closes a listener.
    fn unlisten(&mut self, listener: Self::Listener);
    /// Starts to connect. Port 0 of `local` means: choose one.
    ///
    /// # Errors
    /// The `errno` of the same call on Linux.
    fn connect(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        options: &[SocketOption],
    ) -> Result<Self::Socket, Errno>;
    /// Queues bytes to be sent; says how many were taken.
    ///
    /// # Errors
    /// [`WOULD_BLOCK`], or why nothing can be sent any more.
    fn write(&mut self, socket: Self::Socket, bytes: &[u8]) -> Result<usize, Errno>;
    /// Reads bytes; 0 when the peer has closed.
    ///
    /// # Errors
    /// [`WOULD_BLOCK`], or how the connection ended.
    fn read(&mut self, socket: Self::Socket, bytes: &mut [u8]) -> Result<usize, Errno>;
    /// Sends no more (`SHUT_WR`).
    ///
    /// # Errors
    /// The `errno` of the same call on Linux.
    fn shutdown(&mut self, socket: Self::Socket) -> Result<(), Errno>;
    /// Closes; what was written is still delivered.
    fn close(&mut self, socket: Self::Socket);
    /// Resets.
    fn abort(&mut self, socket: Self::Socket);
    /// Changes an option.
    ///
    /// # Errors
    /// The `errno` of the same call on Linux.
    fn set(&mut self, socket: Self::Socket, option: SocketOption) -> Result<(), Errno>;
    /// The last error that did not end the connection, once (`SO_ERROR`).
    fn take_error(&mut self, socket: Self::Socket) -> Option<Errno>;
    /// The state as RFC 9293 writes it, `SYN-RECEIVED`; `None` if there is no such connection, half
    /// open or lingering in TIME-WAIT.
    fn state(&mut self, local: SocketAddr, remote: SocketAddr) -> Option<&'static str>;
    /// A figure of a connection, by name: `cwnd`, `ssthresh`, `srtt_us`, `rto_us`, `unacked`, …
    fn info(&mut self, local: SocketAddr, remote: SocketAddr, name: &str) -> Option<u64>;
    /// A counter of the stack, by the name of its drop reason or event.
    fn counter(&self, name: &str) -> Option<u64>;

    /// A frame arrives, at the time of the last [`advance`](Self::advance).
    fn inject(&mut self, frame: &[u8]);
    /// Time goes on: runs what is due, and has frames sent.
    fn advance(&mut self, to: Instant);
    /// When the next timer is due, if it can say; else the script asks every millisecond.
    fn next_deadline(&self) -> Option<Instant>;
    /// What was sent since the last call, oldest first.
    fn emitted(&mut self) -> Vec<Vec<u8>>;
    /// The script is over: whether everything is as it should be, such as no frame lost.
    ///
    /// # Errors
    /// What is not.
    fn finish(&mut self) -> Result<(), String> {
        Ok(())
    }
}
