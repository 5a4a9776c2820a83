//! IP versions as types, and their addresses.
//!
//! Code that is the same for both versions is generic over [`Ip`]; what differs is a method of
//! [`IpAddress`], so that no caller matches on the version.

use crate::hash::HashKey;
use core::fmt::{Debug, Display};
use core::hash::Hash;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use crate::wire::ndp::solicited_node_multicast;

mod sealed {
    /// There are two IP versions, and generic code relies on both being here.
    pub trait Sealed {}
    impl Sealed for super::Ipv4 {}
    impl Sealed for super::Ipv6 {}
    impl Sealed for core::net::Ipv4Addr {}
    impl Sealed for core::net::Ipv6Addr {}
}

/// IP version 4 (RFC 791), as a type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ipv4;

/// IP version 6 (RFC 8200), as a type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ipv6;

/// An IP version: [`Ipv4`] or [`Ipv6`].
pub trait Ip:
    sealed::Sealed + Copy + Debug + Default + Eq + Ord + Hash + Send + Sync + 'static
{
    /// Its addresses.
    type Addr: IpAddress<Version = Self>;
    /// What stands in the header's version field.
    const VERSION: u8;
    /// Length of an address, in bits: the longest prefix.
    const ADDR_BITS: u8;
    /// Length of a header without options or extension headers, in bytes.
    const HEADER_BYTES: usize;
    /// The smallest MTU a link may have, in bytes (RFC 791 §3.1: 68; RFC 8200 §5: 1280).
    const MIN_MTU: u32;
}

impl Ip for Ipv4 {
    type Addr = Ipv4Addr;
    const VERSION: u8 = 4;
    const ADDR_BITS: u8 = 32;
    const HEADER_BYTES: usize = 20;
    const MIN_MTU: u32 = 68;
}

impl Ip for Ipv6 {
    type Addr = Ipv6Addr;
    const VERSION: u8 = 6;
    const ADDR_BITS: u8 = 128;
    const HEADER_BYTES: usize = 40;
    const MIN_MTU: u32 = 1280;
}

/// What both kinds of address can do. Implemented by [`Ipv4Addr`] and [`Ipv6Addr`] only.
pub trait IpAddress:
    sealed::Sealed
    + Copy
    + Eq
    + Ord
    + Hash
    + Debug
    + Display
    + Into<IpAddr>
    + Send
    + Sync
    + Unpin
    + 'static
{
    /// The version it belongs to.
    type Version: Ip<Addr = Self>;
    /// `0.0.0.0` or `::`, which stands for no address or for any.
    const UNSPECIFIED: Self;

    /// The address, if it is of this version.
    fn from_ip(address: IpAddr) -> Option<Self>;

    /// The network of `prefix_len` bits it is in: everything behind the prefix is zero. A length
    /// beyond the address counts as the whole address.
    #[must_use]
    fn masked(self, prefix_len: u8) -> Self;

    /// Whether it is a single host's: specified, no group, not the limited broadcast. Whether it is some
    /// subnet's broadcast address only that [`Subnet`] knows.
    fn is_single_host(self) -> bool;

    /// Whether no packet on a link may come from it, nor go there but for groups (RFC 1122 §3.2.1.3,
    /// RFC 4291 §2.5.2, §2.5.3, §2.7). The few protocols that need the unspecified address (DHCP,
    /// duplicate address detection) ask first.
    fn is_invalid_source(self) -> bool;

    /// A cheap keyed hash of the address ([`crate::hash`]).
    fn keyed_hash(self, key: &HashKey) -> u64;

    /// A cheap keyed hash of a flow ([`crate::hash`]); `ports` holds both ports.
    fn flow_hash(key: &HashKey, local: Self, remote: Self, ports: u32) -> u64;
}

impl IpAddress for Ipv4Addr {
    type Version = Ipv4;
    const UNSPECIFIED: Self = Ipv4Addr::UNSPECIFIED;

    #[inline]
    fn from_ip(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        }
    }

    #[inline]
    fn masked(self, prefix_len: u8) -> Self {
        let host_bits = 32u32.saturating_sub(u32::from(prefix_len));
        Ipv4Addr::from_bits(self.to_bits() & u32::MAX.checked_shl(host_bits).unwrap_or(0))
    }

    #[inline]
    fn is_single_host(self) -> bool {
        !(self.is_unspecified() || self.is_multicast() || self.is_broadcast())
    }

    #[inline]
    fn is_invalid_source(self) -> bool {
        // 0.0.0.0/8, 127.0.0.0/8, and everything from 224.0.0.0 up: groups, the limited broadcast, and
        // 240.0.0.0/4, which is nobody's (RFC 6890 §2.2.2). Linux lets that pass.
        let first = self.octets()[0];
        !matches!(first, 1..224) || first == 127
    }

    #[inline]
    fn keyed_hash(self, key: &HashKey) -> u64 {
        key.hash_u32(u32::from_le_bytes(self.octets()))
    }

    #[inline]
    fn flow_hash(key: &HashKey, local: Self, remote: Self, ports: u32) -> u64 {
        let [local, remote] = [local, remote].map(|a| u32::from_le_bytes(a.octets()));
        key.hash_flow_v4(local, remote, ports)
    }
}

impl IpAddress for Ipv6Addr {
    type Version = Ipv6;
    const UNSPECIFIED: Self = Ipv6Addr::UNSPECIFIED;

    #[inline]
    fn from_ip(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(address),
        }
    }

    #[inline]
    fn masked(self, prefix_len: u8) -> Self {
        let host_bits = 128u32.saturating_sub(u32::from(prefix_len));
        Ipv6Addr::from_bits(self.to_bits() & u128::MAX.checked_shl(host_bits).unwrap_or(0))
    }

    #[inline]
    fn is_single_host(self) -> bool {
        !(self.is_unspecified() || self.is_multicast())
    }

    #[inline]
    fn is_invalid_source(self) -> bool {
        // Unspecified, loopback and mapped addresses all begin with 64 zero bits, and no others are
        // in use that do. RFC 4038 §4.2: mapped ones never travel; `::ffff:127.0.0.1` would fool filters.
        let octets = self.octets();
        octets[..8] == [0; 8] || octets[0] == 0xff
    }

    #[inline]
    fn keyed_hash(self, key: &HashKey) -> u64 {
        key.hash_u128(u128::from_le_bytes(self.octets()))
    }

    #[inline]
    fn flow_hash(key: &HashKey, local: Self, remote: Self, ports: u32) -> u64 {
        let [local, remote] = [local, remote].map(|a| u128::from_le_bytes(a.octets()));
        key.hash_flow_v6(local, remote, ports)
    }
}

/// The IPv4 address inside a mapped one; everything else stays as it is.
#[inline]
#[must_use]
pub fn unmapped(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// An address with the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet<A> {
    network: A,
    prefix_len: u8,
}

impl<A: IpAddress> Subnet<A> {
    /// The network of `prefix_len` bits that `address` is in; `None` if the address is shorter.
    #[inline]
    #[must_use]
    pub fn new(address: A, prefix_len: u8) -> Option<Self> {
        (prefix_len <= A::Version::ADDR_BITS).then(|| Self {
            network: address.masked(prefix_len),
            prefix_len,
        })
    }

    /// Its first address.
    #[inline]
    #[must_use]
    pub fn network(self) -> A {
        self.network
    }

    /// Length of its prefix, in bits.
    #[inline]
    #[must_use]
    pub fn prefix_len(self) -> u8 {
        self.prefix_len
    }

    /// Whether `address` is in it.
    #[inline]
    #[must_use]
    pub fn contains(self, address: A) -> bool {
        address.masked(self.prefix_len) == self.network
    }
}

impl Subnet<Ipv4Addr> {
    /// The directed broadcast address (RFC 922 §7), all host bits set. Subnets of one or two
    /// addresses have none (RFC 3021 §2.1).
    #[inline]
    #[must_use]
    pub fn broadcast(self) -> Option<Ipv4Addr> {
        let host_bits = u32::MAX
            .checked_shr(u32::from(self.prefix_len))
            .unwrap_or(0);
        (self.prefix_len < 31).then(|| Ipv4Addr::from_bits(self.network.to_bits() | host_bits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v4(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    fn v6(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    #[test]
    fn sources_that_never_travel_are_refused() {
        for bad in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "127.255.255.255",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
        ] {
            assert!(v4(bad).is_invalid_source(), "{bad}");
        }
        for good in ["1.0.0.1", "10.0.0.1", "128.0.0.1", "223.255.255.254"] {
            assert!(!v4(good).is_invalid_source(), "{good}");
        }
        for bad in [
            "::",
            "::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "::ffff:127.0.0.1",
        ] {
            assert!(v6(bad).is_invalid_source(), "{bad}");
        }
        for good in ["fe80::1", "2001:db8::1", "fc00::1"] {
            assert!(!v6(good).is_invalid_source(), "{good}");
        }
    }

    #[test]
    fn broadcast_is_relative_to_a_subnet() {
        let subnet = Subnet::new(v4("10.1.2.3"), 24).unwrap();
        assert_eq!(subnet.network(), v4("10.1.2.0"));
        assert_eq!(subnet.broadcast(), Some(v4("10.1.2.255")));
        // RFC 3021: both addresses of a /31 are hosts.
        let point_to_point = Subnet::new(v4("10.0.0.0"), 31).unwrap();
        assert_eq!(point_to_point.broadcast(), None);
        let host = Subnet::new(v4("10.0.0.1"), 32).unwrap();
        assert_eq!(host.broadcast(), None);
        assert_eq!(Subnet::new(v4("10.0.0.1"), 33), None);
        let all = Subnet::new(v4("10.0.0.1"), 0).unwrap();
        assert_eq!(all.broadcast(), Some(Ipv4Addr::BROADCAST));
    }

    #[test]
    fn mapped_addresses() {
        assert_eq!(
            unmapped(IpAddr::V6(v6("::ffff:1.2.3.4"))),
            IpAddr::V4(v4("1.2.3.4"))
        );
        for other in ["fe80::1", "::1.2.3.4", "::1:ffff:1.2.3.4"] {
            assert_eq!(unmapped(IpAddr::V6(v6(other))), IpAddr::V6(v6(other)));
        }
    }

    #[test]
    fn single_hosts() {
        assert!(v4("10.0.0.1").is_single_host() && v6("fe80::1").is_single_host());
        for several in ["0.0.0.0", "255.255.255.255", "224.0.0.1"] {
            assert!(!v4(several).is_single_host(), "{several}");
        }
        for several in ["::", "ff02::1"] {
            assert!(!v6(several).is_single_host(), "{several}");
        }
    }

    proptest! {
        #[test]
        fn masked_keeps_exactly_the_prefix(bits: u128, len: u8) {
            let masked = Ipv6Addr::from_bits(bits).masked(len).to_bits();
            for bit in 0..128u32 {
                let kept = bit < u32::from(len);
                let mask = 1u128 << (127 - bit);
                prop_assert_eq!(masked & mask, if kept { bits & mask } else { 0 });
            }
            let [.., a, b, c, d] = bits.to_be_bytes();
            let masked = Ipv4Addr::new(a, b, c, d).masked(len).to_bits();
            for bit in 0..32u32 {
                let kept = bit < u32::from(len);
                let mask = 1u32 << (31 - bit);
                let original = u32::from_be_bytes([a, b, c, d]);
                prop_assert_eq!(masked & mask, if kept { original & mask } else { 0 });
            }
        }

        #[test]
        fn a_source_is_always_a_single_host(bits: u128, small: u32) {
            // Half of the cases among the low addresses, where the special ones are.
            for address in [Ipv6Addr::from_bits(bits), Ipv6Addr::from_bits(u128::from(small % 4))] {
                prop_assert!(address.is_invalid_source() || address.is_single_host());
            }
            let address = Ipv4Addr::from_bits(small);
            prop_assert!(address.is_invalid_source() || address.is_single_host());
        }
    }
}
