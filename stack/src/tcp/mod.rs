//! TCP (RFC 9293): a connection is the sum of four parts, each in a room of its own.
//!
//! * [`table`]: all connections of one IP version, found by their tuple, woken by their timers
//! * [`listener`]: passive opens; [`time_wait`]: what is left of a closed connection
//! * [`connection`]: the sum of the four parts, and what it does with a segment
//! * [`manage`]: connection management: states, and which segments may be looked at
//! * [`deliver`]: reliable delivery in order: what waits to be read or acknowledged
//! * [`flow`]: windows, silly window avoidance, delayed acknowledgments, zero-window probes
//! * [`congestion`]: how much may be in flight
//! * [`config`]: limits and choices; [`pools`]: the memory of what is under way
//! * [`socket_options`]: what an application chooses for a connection
//! * [`segment`], [`options`]: what comes and goes on the wire
//! * [`buffer`]: bytes that wait, in pooled chunks
//! * [`Tuple`](tuple::Tuple): the name of a connection; [`isn`], [`syn_cookie`], [`port`]: numbers
//!   that nobody else can guess
//! * [`seq`]: sequence numbers

pub mod buffer;
pub mod config;
pub mod congestion;
pub mod connection;
pub mod deliver;
pub mod flow;
mod id_queue;
pub mod info;
pub mod isn;
pub mod listener;
pub mod manage;
pub mod options;
pub mod pools;
pub mod port;
pub mod segment;
pub mod seq;
pub mod socket_options;
pub mod syn_cookie;
pub mod table;
pub mod time_wait;
pub mod tuple;

use crate::slab::Handle;
use crate::udp::Version;

/// A handle to a connection. One whose connection was let go of finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TcpId {
    pub(crate) version: Version,
    pub(crate) id: table::ConnectionId,
}

impl TcpId {
    /// Where an application that keeps records of its connections finds this one's: a kind (IPv4 with
    /// CUBIC, with NewReno, IPv6 with CUBIC, with NewReno: 0 to 3), and a slot below the limit that
    /// [`config::TcpConfig`] has for the kind. A later connection may have the same place, but never
    /// the same id.
    #[inline]
    #[must_use]
    pub const fn place(self) -> (usize, u32) {
        let version = match self.version {
            Version::V4 => 0,
            Version::V6 => 2,
        };
        let congestion = match self.id.kind {
            listener::CongestionKind::Cubic => 0,
            listener::CongestionKind::NewReno => 1,
        };
        (version + congestion, self.id.handle.slot)
    }
}

/// A handle to a listening socket. One whose socket was closed finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TcpListenerId(pub(crate) Handle);

/// Why a connection cannot be opened. Each says the `errno` of the same call on Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// The two addresses are of different versions (`EAFNOSUPPORT`).
    FamilyMismatch,
    /// No connection can be opened to this address and port (`EINVAL`).
    Invalid,
    /// The local address is not ours (`EADDRNOTAVAIL`).
    AddressNotAvailable,
    /// There is a connection with these addresses and ports (`EADDRINUSE`).
    AddressInUse,
    /// No port is free (`EADDRNOTAVAIL`).
    NoPort,
    /// There is no route (`ENETUNREACH`).
    Unreachable,
    /// As many connections as the configuration allows (`ENOBUFS`).
    TooManyConnections,
}

impl core::fmt::Display for ConnectError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::FamilyMismatch => "the two addresses are of different IP versions",
            Self::Invalid => "no connection can be opened to this address and port",
            Self::AddressNotAvailable => "the local address is not ours",
            Self::AddressInUse => "there is a connection with these addresses and ports",
            Self::NoPort => "no port is free",
            Self::Unreachable => "there is no route to the address",
            Self::TooManyConnections => "as many connections as the configuration allows",
        })
    }
}

impl core::error::Error for ConnectError {}
