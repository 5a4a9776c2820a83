//! Binding: what a socket asks for, and who is in the way (RFC 3493 §3.7, `bind(2)`).

use crate::ip::address::unmapped;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};

/// What a socket asks to be bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind {
    /// Address and port; the unspecified address means all of ours.
    pub local: SocketAddr,
    /// An IPv6 socket that does not take IPv4 (`IPV6_V6ONLY`). Without it, `[::]:port` receives
    /// IPv4 packets too. Means nothing for an IPv4 address.
    pub v6only: bool,
}

/// Why a socket cannot be bound. Each says the `errno` of the same call on Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindError {
    /// Another socket has this address and port (`EADDRINUSE`).
    AddressInUse,
    /// No socket can have this address: multicast, or mapped with `v6only` (`EINVAL`).
    AddressInvalid,
    /// Port 0 here means no port; choosing one is the caller's business (`EINVAL`).
    PortZero,
    /// As many sockets as the configuration allows (`ENOBUFS`).
    TooManySockets,
}

impl core::fmt::Display for BindError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::AddressInUse => "another socket is bound to this address and port",
            Self::AddressInvalid => "no socket can be bound to this address",
            Self::PortZero => "a socket needs a port other than 0",
            Self::TooManySockets => "as many sockets as limits.udp_sockets allows",
        })
    }
}

impl core::error::Error for BindError {}

impl Bind {
    /// Checks what can be checked without looking at other sockets.
    ///
    /// # Errors
    /// [`BindError::PortZero`], [`BindError::AddressInvalid`].
    pub fn validate(self) -> Result<Self, BindError> {
        let address = self.local.ip();
        let mapped = address != unmapped(address);
        if self.local.port() == 0 {
            return Err(BindError::PortZero);
        }
        if address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST) {
            return Err(BindError::AddressInvalid);
        }
        // RFC 3493 §5.3: a socket for IPv6 alone cannot have a mapped address.
        if mapped && self.v6only {
            return Err(BindError::AddressInvalid);
        }
        Ok(self)
    }

    /// Whether the socket receives packets for `address` (one of ours, never a mapped one).
    #[must_use]
    pub fn covers(&self, address: IpAddr) -> bool {
        match unmapped(self.local.ip()) {
            IpAddr::V4(any) if any.is_unspecified() => address.is_ipv4(),
            IpAddr::V6(any) if any.is_unspecified() => address.is_ipv6() || !self.v6only,
            specific => specific == address,
        }
    }

    /// Whether the two cannot be bound at once: some packet would be for both.
    #[must_use]
    pub fn conflicts_with(&self, other: &Self) -> bool {
        if self.local.port() != other.local.port() {
            return false;
        }
        let (mine, theirs) = (unmapped(self.local.ip()), unmapped(other.local.ip()));
        match (mine.is_unspecified(), theirs.is_unspecified()) {
            (false, _) => other.covers(mine),
            (true, false) => self.covers(theirs),
            // Two wildcards share no packet only if one is IPv4 and the other IPv6 alone.
            (true, true) => {
                mine.is_ipv4() == theirs.is_ipv4()
                    || !(if mine.is_ipv6() {
                        self.v6only
                    } else {
                        other.v6only
                    })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(local: &str, v6only: bool) -> Bind {
        Bind {
            local: local.parse().unwrap(),
            v6only,
        }
    }

    #[test]
    fn conflicts_are_those_of_linux() {
        // Each line was asked of Linux 6.18 with UDP sockets without SO_REUSEADDR.
        for (a, b, conflict) in [
            (bind("0.0.0.0:7", false), bind("0.0.0.0:7", false), true),
            (bind("0.0.0.0:7", false), bind("0.0.0.0:8", false), false),
            (bind("0.0.0.0:7", false), bind("10.0.0.1:7", false), true),
            (bind("10.0.0.2:7", false), bind("10.0.0.1:7", false), false),
            (bind("0.0.0.0:7", false), bind("[::]:7", false), true),
            (bind("0.0.0.0:7", false), bind("[::]:7", true), false),
            (bind("10.0.0.1:7", false), bind("[::]:7", false), true),
            (bind("10.0.0.1:7", false), bind("[::]:7", true), false),
            (bind("[::]:7", true), bind("[::]:7", false), true),
            (bind("[2001:db8::1]:7", false), bind("[::]:7", true), true),
            (
                bind("[2001:db8::1]:7", false),
                bind("0.0.0.0:7", false),
                false,
            ),
            (
                bind("[::ffff:10.0.0.1]:7", false),
                bind("10.0.0.1:7", false),
                true,
            ),
            (
                bind("[::ffff:10.0.0.1]:7", false),
                bind("[::]:7", true),
                false,
            ),
        ] {
            assert_eq!(a.conflicts_with(&b), conflict, "{a:?} {b:?}");
            assert_eq!(b.conflicts_with(&a), conflict, "{b:?} {a:?}");
        }
    }

    #[test]
    fn invalid_binds_are_refused() {
        for (bind, error) in [
            (bind("10.0.0.1:0", false), BindError::PortZero),
            (bind("224.0.0.1:7", false), BindError::AddressInvalid),
            (bind("255.255.255.255:7", false), BindError::AddressInvalid),
            (bind("[ff02::1]:7", false), BindError::AddressInvalid),
            (bind("[::ffff:10.0.0.1]:7", true), BindError::AddressInvalid),
        ] {
            assert_eq!(bind.validate(), Err(error));
        }
    }

    #[test]
    fn a_dual_stack_socket_covers_both_versions() {
        let v4 = "10.0.0.1".parse().unwrap();
        let v6 = "2001:db8::1".parse().unwrap();
        assert!(bind("[::]:7", false).covers(v4) && bind("[::]:7", false).covers(v6));
        assert!(!bind("[::]:7", true).covers(v4));
        assert!(bind("0.0.0.0:7", false).covers(v4) && !bind("0.0.0.0:7", false).covers(v6));
        assert!(bind("[::ffff:10.0.0.1]:7", false).covers(v4));
    }
}
