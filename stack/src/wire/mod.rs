//! One file per header, in the order they stand in a packet. Each has a checked view of the bytes
//! (`Packet`: once made, reading it cannot fail) and, where we also build it, its meaning (`Repr`).
//!
//! | file | header | source |
//! |---|---|---|
//! | [`ethernet`] | Ethernet II, 802.1Q and 802.1ad tags | IEEE 802.3, 802.1Q |
//! | [`arp`] | ARP | RFC 826, RFC 5227 |
//! | [`ipv4`] | IPv4 and its options | RFC 791, RFC 1122 |
//! | [`ipv6`] | IPv6 and its extension headers | RFC 8200 |
//! | [`icmpv4`] | ICMP | RFC 792, RFC 1122 |
//! | [`icmpv6`] | ICMPv6 | RFC 4443 |
//! | [`ndp`] | neighbour discovery | RFC 4861 |
//! | [`tcp`] | TCP | RFC 9293 |
//! | [`udp`] | UDP | RFC 768, RFC 8200 §8.1 |
//! | [`checksum`] | the Internet checksum of them all | RFC 1071 |

pub mod arp;
pub mod checksum;
pub mod ethernet;
pub mod icmpv4;
pub mod icmpv6;
pub mod ipv4;
pub mod ipv6;
pub mod ndp;
pub mod tcp;
pub mod udp;

/// IP protocol numbers (IANA "Protocol Numbers").
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP for IPv4.
    pub const ICMPV4: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// Authentication header.
    pub const AUTHENTICATION: u8 = 51;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6: nothing follows.
    pub const NO_NEXT_HEADER: u8 = 59;
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: u8 = 60;
}

/// A big-endian `u16` at `offset` of a header whose length was checked at compile time.
#[inline]
pub(crate) const fn be16<const N: usize>(bytes: &[u8; N], offset: usize) -> u16 {
    u16::from_be_bytes([bytes[offset], bytes[offset + 1]])
}

/// `N` bytes at `offset` of a header whose length was checked at compile time.
#[inline]
pub(crate) const fn array_at<const M: usize, const N: usize>(
    bytes: &[u8; M],
    offset: usize,
) -> [u8; N] {
    let mut out = [0; N];
    let mut i = 0;
    while i < N {
        out[i] = bytes[offset + i];
        i += 1;
    }
    out
}

/// Writes `value` at `offset` of a header whose length was checked at compile time.
#[inline]
pub(crate) const fn put<const M: usize, const N: usize>(
    bytes: &mut [u8; M],
    offset: usize,
    value: [u8; N],
) {
    let mut i = 0;
    while i < N {
        bytes[offset + i] = value[i];
        i += 1;
    }
}

/// The bytes from `offset` on as an array of `N`, if there are as many.
#[inline]
pub(crate) fn chunk_at<const N: usize>(bytes: &[u8], offset: usize) -> Option<&[u8; N]> {
    bytes.get(offset..)?.first_chunk()
}

/// The same, writable.
#[inline]
pub(crate) fn chunk_at_mut<const N: usize>(
    bytes: &mut [u8],
    offset: usize,
) -> Option<&mut [u8; N]> {
    bytes.get_mut(offset..)?.first_chunk_mut()
}
