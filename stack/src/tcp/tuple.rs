//! The name of a connection: two addresses and two ports (RFC 9293 §3.3.1).

use crate::hash::HashKey;
use crate::ip::address::IpAddress;
use core::net::SocketAddr;

/// Both ends of a connection, seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple<A> {
    /// Our address.
    pub local: A,
    /// The peer's address.
    pub remote: A,
    /// Our port.
    pub local_port: u16,
    /// The peer's port.
    pub remote_port: u16,
}

impl<A: IpAddress> Tuple<A> {
    /// A cheap keyed hash for tables: not to be seen by anybody ([`crate::hash`]).
    #[inline]
    #[must_use]
    pub fn hash(&self, key: &HashKey) -> u64 {
        let ports = u32::from(self.local_port) << 16 | u32::from(self.remote_port);
        A::flow_hash(key, self.local, self.remote, ports)
    }

    /// Our end.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        SocketAddr::new(self.local.into(), self.local_port)
    }

    /// The peer's end.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        SocketAddr::new(self.remote.into(), self.remote_port)
    }
}
