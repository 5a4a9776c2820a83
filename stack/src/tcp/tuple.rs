//! The name of a connection: two addresses and two ports (RFC 9293 §3.3.1).

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
