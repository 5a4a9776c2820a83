//! What an application chooses for a connection, or for all those of a listener: what Linux has as
//! socket options.

use super::manage::states::CloseReason;
use crate::time::Duration;

/// A choice, for `tcp_set_option` and `tcp_listener_set_option`. Each says the option of Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketOption {
    /// Small segments are not held back (RFC 9293 §3.7.4, MUST-17; `TCP_NODELAY`).
    NoDelay(bool),
    /// An idle peer is probed, at the intervals of [`TcpConfig`](super::config::TcpConfig) (RFC 9293
    /// §3.8.4, MUST-24; `SO_KEEPALIVE`).
    KeepAlive(bool),
    /// To close is to abort: what was not sent is lost, and the peer is told by a RST (RFC 9293
    /// §3.10.5; `SO_LINGER` with no time).
    LingerZero(bool),
    /// Type of service or traffic class of what is sent (RFC 9293 §3.9.1.9, MUST-48; `IP_TOS`,
    /// `IPV6_TCLASS`). The two bits of ECN are TCP's own and do not count.
    TrafficClass(u8),
    /// Time to live or hop limit of what is sent (RFC 9293 §3.9.2, MUST-49; `IP_TTL`,
    /// `IPV6_UNICAST_HOPS`); `None`, like 0: that of the stack.
    HopLimit(Option<u8>),
    /// How long data may go unacknowledged before the connection is given up: R2 (RFC 9293 §3.8.3,
    /// MUST-21; RFC 5482; `TCP_USER_TIMEOUT`). Counted in whole seconds, rounded up, at most
    /// [`USER_TIMEOUT_MAX`]; `None`: that of the stack.
    UserTimeout(Option<Duration>),
}

/// The longest user timeout of one connection: 18 hours. RFC 5482 §3 has 9 hours in units of minutes.
pub const USER_TIMEOUT_MAX: Duration = Duration::from_secs(u16::MAX as u64);

/// All choices, as a connection or a listener keeps them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketOptions {
    /// See [`SocketOption::NoDelay`].
    pub nodelay: bool,
    /// See [`SocketOption::KeepAlive`].
    pub keepalive: bool,
    /// See [`SocketOption::LingerZero`].
    pub linger_zero: bool,
    /// What IP headers say.
    pub ip: IpFields,
    /// See [`SocketOption::UserTimeout`]; in seconds, 0: that of the stack.
    pub user_timeout_s: u16,
}

/// What an application says of the IP headers of what it sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IpFields {
    /// Differentiated services field, above two bits that are 0.
    traffic_class: u8,
    /// 0: that of the stack.
    hop_limit: u8,
}

/// The bits of a traffic class that are ECN's (RFC 3168 §5).
const ECN_BITS: u8 = 0b11;

impl SocketOptions {
    /// Takes a choice.
    pub fn set(&mut self, option: SocketOption) {
        match option {
            SocketOption::NoDelay(on) => self.nodelay = on,
            SocketOption::KeepAlive(on) => self.keepalive = on,
            SocketOption::LingerZero(on) => self.linger_zero = on,
            SocketOption::TrafficClass(_) | SocketOption::HopLimit(_) => self.ip.set(option),
            SocketOption::UserTimeout(time) => self.user_timeout_s = seconds(time),
        }
    }
}

/// A user timeout as it is kept.
pub(super) fn seconds(time: Option<Duration>) -> u16 {
    time.map_or(0, |time| {
        let seconds = time.as_micros().div_ceil(1_000_000).max(1);
        u16::try_from(seconds).unwrap_or(u16::MAX)
    })
}

impl IpFields {
    /// Takes a choice, if it is about IP headers.
    pub fn set(&mut self, option: SocketOption) {
        match option {
            SocketOption::TrafficClass(class) => self.traffic_class = class & !ECN_BITS,
            SocketOption::HopLimit(limit) => self.hop_limit = limit.unwrap_or(0),
            _ => {}
        }
    }

    /// Differentiated services field, above two bits that are 0.
    #[inline]
    #[must_use]
    pub const fn traffic_class(self) -> u8 {
        self.traffic_class
    }

    /// Time to live or hop limit, if it is not `default`.
    #[inline]
    #[must_use]
    pub const fn hop_limit(self, default: u8) -> u8 {
        if self.hop_limit == 0 {
            default
        } else {
            self.hop_limit
        }
    }
}

/// An error that did not end a connection, and may pass (RFC 9293 §3.9.1.8). Each says the `errno`
/// that Linux has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SoftError {
    /// No route to the network (`ENETUNREACH`).
    NetworkUnreachable,
    /// No route to the host, a source route that failed, or a hop limit that was too low
    /// (`EHOSTUNREACH`).
    HostUnreachable,
    /// Nobody there speaks TCP (`ENOPROTOOPT`).
    ProtocolUnreachable,
    /// Nobody is at the port (`ECONNREFUSED`).
    PortUnreachable,
    /// A filter on the way (`EACCES`).
    Prohibited,
    /// A header that somebody on the way cannot process (`EPROTO`).
    ParameterProblem,
    /// Data was sent again [`R1`] times without an answer (`ETIMEDOUT`).
    Unanswered,
}

/// Retransmissions of the same data after which the application may learn of it: R1 of RFC 9293 §3.8.3
/// (SHLD-9, SHLD-10: at least 3).
pub const R1: u8 = 3;

/// An ICMP error about a segment that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpError {
    /// What it says.
    pub error: SoftError,
    /// RFC 9293 §3.9.2.2 (SHLD-26): it will not pass by itself. It ends what is not open yet; for what is
    /// open it is soft as well, because it may be forged (RFC 5927 §5.2).
    pub hard: bool,
}

impl SoftError {
    /// Why an attempt to open a connection failed that this was the last news of.
    #[must_use]
    pub const fn close_reason(self) -> CloseReason {
        match self {
            Self::PortUnreachable | Self::ProtocolUnreachable => CloseReason::Refused,
            Self::Unanswered => CloseReason::TimedOut,
            Self::NetworkUnreachable
            | Self::HostUnreachable
            | Self::Prohibited
            | Self::ParameterProblem => CloseReason::Unreachable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ecn_bits_are_not_the_applications() {
        let mut options = SocketOptions::default();
        options.set(SocketOption::TrafficClass(0xbb));
        assert_eq!(options.ip.traffic_class(), 0xb8);
    }

    #[test]
    fn no_hop_limit_is_that_of_the_stack() {
        let mut ip = IpFields::default();
        assert_eq!(ip.hop_limit(64), 64);
        ip.set(SocketOption::HopLimit(Some(1)));
        assert_eq!(ip.hop_limit(64), 1);
        ip.set(SocketOption::HopLimit(None));
        assert_eq!(ip.hop_limit(64), 64);
    }

    #[test]
    fn user_timeouts_are_rounded_up_and_never_none() {
        assert_eq!(seconds(None), 0);
        assert_eq!(seconds(Some(Duration::ZERO)), 1);
        assert_eq!(seconds(Some(Duration::from_millis(1001))), 2);
        assert_eq!(seconds(Some(Duration::from_secs(100_000))), u16::MAX);
        assert_eq!(seconds(Some(USER_TIMEOUT_MAX)), u16::MAX);
    }
}
