//! IP versions as types, addresses, and witnesses of what is known about an address.
//!
//! Code that is the same for both versions is generic over [`Ip`]; what differs is a method of
//! [`IpAddress`], so that no caller matches on the version.

use crate::hash::HashKey;
use crate::link::MacAddr;
use core::fmt::{Debug, Display};
use core::hash::Hash;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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
    /// Length of an address, in bytes.
    const ADDR_BYTES: usize;
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
    const ADDR_BYTES: usize = 4;
    const ADDR_BITS: u8 = 32;
    const HEADER_BYTES: usize = 20;
    const MIN_MTU: u32 = 68;
}

impl Ip for Ipv6 {
    type Addr = Ipv6Addr;
    const VERSION: u8 = 6;
    const ADDR_BYTES: usize = 16;
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

    /// Whether it is [`UNSPECIFIED`](Self::UNSPECIFIED).
    #[inline]
    fn is_unspecified_addr(self) -> bool {
        self == Self::UNSPECIFIED
    }

    /// `127.0.0.0/8` (RFC 1122 §3.2.1.3 (g)) or `::1` (RFC 4291 §2.5.3).
    fn is_loopback_addr(self) -> bool;

    /// `224.0.0.0/4` (RFC 1112 §4) or `ff00::/8` (RFC 4291 §2.7).
    fn is_multicast_addr(self) -> bool;

    /// `255.255.255.255` (RFC 919 §7). IPv6 has no broadcast. Whether an address is the broadcast
    /// address of a subnet is a question to [`Subnet::is_broadcast`].
    fn is_limited_broadcast(self) -> bool;

    /// `169.254.0.0/16` (RFC 3927) or `fe80::/10` (RFC 4291 §2.5.6).
    fn is_link_local_addr(self) -> bool;

    /// Whether a packet that came from the link may have this source. The unspecified address
    /// may not: the few protocols that need it (DHCP, duplicate address detection) ask first.
    fn may_be_source(self) -> bool;

    /// Whether a packet that came from the link may be for this address.
    fn may_be_destination(self) -> bool;

    /// The Ethernet address that a multicast group is sent to; meaningless for other addresses.
    fn multicast_mac(self) -> MacAddr;

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
    fn is_loopback_addr(self) -> bool {
        self.is_loopback()
    }

    #[inline]
    fn is_multicast_addr(self) -> bool {
        self.is_multicast()
    }

    #[inline]
    fn is_limited_broadcast(self) -> bool {
        self.is_broadcast()
    }

    #[inline]
    fn is_link_local_addr(self) -> bool {
        self.is_link_local()
    }

    #[inline]
    fn may_be_source(self) -> bool {
        match self.octets()[0] {
            // RFC 1122 §3.2.1.3 (a), (b): "this network" only while a host learns its address.
            0 => false,
            // RFC 1122 §3.2.1.3 (g): loopback must not appear outside a host.
            127 => false,
            // RFC 1112 §7.2: a group is never a source.
            224..=239 => false,
            // RFC 1122 §3.2.1.3 (c): broadcast is never a source. The rest of 240.0.0.0/4 is
            // accepted against RFC 6890 §2.2.2, as Linux does: some networks use it inside.
            240..=255 => !self.is_broadcast(),
            _ => true,
        }
    }

    #[inline]
    fn may_be_destination(self) -> bool {
        // RFC 1122 §3.2.1.3 (a), (b), (g).
        !matches!(self.octets()[0], 0 | 127)
    }

    #[inline]
    fn multicast_mac(self) -> MacAddr {
        // RFC 1112 §6.4: the low 23 bits of the group behind 01-00-5e.
        let [_, b, c, d] = self.octets();
        [0x01, 0x00, 0x5e, b & 0x7f, c, d]
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
    fn is_loopback_addr(self) -> bool {
        self.is_loopback()
    }

    #[inline]
    fn is_multicast_addr(self) -> bool {
        self.is_multicast()
    }

    #[inline]
    fn is_limited_broadcast(self) -> bool {
        false
    }

    #[inline]
    fn is_link_local_addr(self) -> bool {
        self.is_unicast_link_local()
    }

    #[inline]
    fn may_be_source(self) -> bool {
        // RFC 4291 §2.5.2, §2.5.3, §2.7: not on a link, or not a source at all.
        // RFC 6890 §2.2.3: mapped addresses never travel; `::ffff:127.0.0.1` would fool filters.
        !(self.is_multicast() || is_unspecified_or_loopback(self) || is_mapped(self))
    }

    #[inline]
    fn may_be_destination(self) -> bool {
        match self.octets() {
            // RFC 4291 §2.7 (and erratum 3480): scope 0 is reserved, scope 1 never leaves a host.
            [0xff, flags_and_scope, ..] => flags_and_scope & 0x0f > 1,
            _ => !(is_unspecified_or_loopback(self) || is_mapped(self)),
        }
    }

    #[inline]
    fn multicast_mac(self) -> MacAddr {
        // RFC 2464 §7: the low 32 bits of the group behind 33-33.
        let [.., a, b, c, d] = self.octets();
        [0x33, 0x33, a, b, c, d]
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

#[inline]
fn is_unspecified_or_loopback(address: Ipv6Addr) -> bool {
    address.to_bits() <= 1
}

/// Whether it is in `::ffff:0:0/96` (RFC 4291 §2.5.5.2): an IPv4 address in IPv6 clothes, used
/// between an application and its dual-stack socket, and never on a link.
#[inline]
#[must_use]
pub fn is_mapped(address: Ipv6Addr) -> bool {
    address.to_bits() >> 32 == 0xffff
}

/// The IPv4 address inside a mapped one; everything else stays as it is.
#[inline]
#[must_use]
pub fn unmapped(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// The group that a node with this address listens to for neighbour solicitations
/// (RFC 4291 §2.7.1): `ff02::1:ff00:0/104` and the address's low 24 bits.
#[inline]
#[must_use]
pub fn solicited_node_multicast(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::from_octets([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// The link-local address made from an Ethernet address (RFC 4291 appendix A, RFC 2464 §5): the
/// universal/local bit inverted, `ff:fe` in the middle, `fe80::/64` in front.
#[inline]
#[must_use]
pub fn link_local_from_mac([a, b, c, d, e, f]: MacAddr) -> Ipv6Addr {
    Ipv6Addr::from_octets([
        0xfe,
        0x80,
        0,
        0,
        0,
        0,
        0,
        0,
        a ^ 0x02,
        b,
        c,
        0xff,
        0xfe,
        d,
        e,
        f,
    ])
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

    /// Whether packets to `address` reach every host of this subnet: the limited broadcast, the
    /// directed one, or its old form with all host bits clear (RFC 1122 §3.3.6: be ready for it).
    #[inline]
    #[must_use]
    pub fn is_broadcast(self, address: Ipv4Addr) -> bool {
        address.is_broadcast()
            || self.broadcast().is_some_and(|broadcast| {
                address == broadcast || (self.prefix_len > 0 && address == self.network)
            })
    }
}

/// Makes a witness: an address about which something was checked once.
macro_rules! witness {
    ($(#[$doc:meta])* $name:ident, $holds:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name<A>(A);

        impl<A: IpAddress> $name<A> {
            /// The witness, if the address qualifies.
            #[inline]
            #[must_use]
            pub fn new(address: A) -> Option<Self> {
                let holds: fn(A) -> bool = $holds;
                holds(address).then_some(Self(address))
            }

            /// The address.
            #[inline]
            #[must_use]
            pub fn get(self) -> A {
                self.0
            }
        }

        impl<A: IpAddress> From<$name<A>> for IpAddr {
            #[inline]
            fn from(witness: $name<A>) -> IpAddr {
                witness.0.into()
            }
        }

        impl<A: Display> Display for $name<A> {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

witness! {
    /// An address other than the unspecified one.
    SpecifiedAddr, |address| !address.is_unspecified_addr()
}
witness! {
    /// An address of a single host: specified, no multicast group, not the limited broadcast.
    /// Whether it is some subnet's broadcast address only that [`Subnet`] knows.
    UnicastAddr, |address| {
        !(address.is_unspecified_addr()
            || address.is_multicast_addr()
            || address.is_limited_broadcast())
    }
}
witness! {
    /// The address of a multicast group.
    MulticastAddr, |address| address.is_multicast_addr()
}

impl<A> From<UnicastAddr<A>> for SpecifiedAddr<A> {
    #[inline]
    fn from(witness: UnicastAddr<A>) -> Self {
        Self(witness.0)
    }
}

impl<A> From<MulticastAddr<A>> for SpecifiedAddr<A> {
    #[inline]
    fn from(witness: MulticastAddr<A>) -> Self {
        Self(witness.0)
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
            "255.255.255.255",
        ] {
            assert!(!v4(bad).may_be_source(), "{bad}");
        }
        for good in [
            "1.0.0.1",
            "10.0.0.1",
            "128.0.0.1",
            "223.255.255.254",
            "240.0.0.1",
        ] {
            assert!(v4(good).may_be_source(), "{good}");
        }
        for bad in [
            "::",
            "::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "::ffff:127.0.0.1",
        ] {
            assert!(!v6(bad).may_be_source(), "{bad}");
        }
        for good in [
            "::2",
            "fe80::1",
            "2001:db8::1",
            "fc00::1",
            "::1:ffff:10.0.0.1",
        ] {
            assert!(v6(good).may_be_source(), "{good}");
        }
    }

    #[test]
    fn destinations_that_never_travel_are_refused() {
        for bad in ["0.0.0.0", "0.0.0.1", "127.0.0.1"] {
            assert!(!v4(bad).may_be_destination(), "{bad}");
        }
        for good in ["10.0.0.1", "224.0.0.1", "255.255.255.255"] {
            assert!(v4(good).may_be_destination(), "{good}");
        }
        for bad in [
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "ff00::1",
            "ff01::1",
            "ff11::1",
        ] {
            assert!(!v6(bad).may_be_destination(), "{bad}");
        }
        for good in ["fe80::1", "ff02::1", "ff0e::1", "2001:db8::1"] {
            assert!(v6(good).may_be_destination(), "{good}");
        }
    }

    #[test]
    fn broadcast_is_relative_to_a_subnet() {
        let subnet = Subnet::new(v4("10.1.2.3"), 24).unwrap();
        assert_eq!(subnet.network(), v4("10.1.2.0"));
        assert_eq!(subnet.broadcast(), Some(v4("10.1.2.255")));
        assert!(subnet.is_broadcast(v4("10.1.2.255")));
        assert!(subnet.is_broadcast(v4("10.1.2.0")));
        assert!(subnet.is_broadcast(v4("255.255.255.255")));
        assert!(!subnet.is_broadcast(v4("10.1.2.1")));
        assert!(!subnet.is_broadcast(v4("10.1.3.255")));
        // RFC 3021: both addresses of a /31 are hosts.
        let point_to_point = Subnet::new(v4("10.0.0.0"), 31).unwrap();
        assert!(!point_to_point.is_broadcast(v4("10.0.0.0")));
        assert!(!point_to_point.is_broadcast(v4("10.0.0.1")));
        let host = Subnet::new(v4("10.0.0.1"), 32).unwrap();
        assert!(!host.is_broadcast(v4("10.0.0.1")));
        assert_eq!(Subnet::new(v4("10.0.0.1"), 33), None);
        let all = Subnet::new(v4("10.0.0.1"), 0).unwrap();
        assert_eq!(all.broadcast(), Some(Ipv4Addr::BROADCAST));
        assert!(!all.is_broadcast(v4("0.0.0.0")));
    }

    #[test]
    fn multicast_addresses_on_ethernet() {
        assert_eq!(
            v4("224.0.0.251").multicast_mac(),
            [0x01, 0, 0x5e, 0, 0, 251]
        );
        assert_eq!(
            v4("239.255.1.2").multicast_mac(),
            [0x01, 0, 0x5e, 0x7f, 1, 2]
        );
        assert_eq!(
            v6("ff02::1:ff28:9c5a").multicast_mac(),
            [0x33, 0x33, 0xff, 0x28, 0x9c, 0x5a]
        );
    }

    #[test]
    fn derived_addresses() {
        // The examples of RFC 4291 §2.7.1 and RFC 2464 §5.
        assert_eq!(
            solicited_node_multicast(v6("4037::1:800:200e:8c6c")),
            v6("ff02::1:ff0e:8c6c")
        );
        assert_eq!(
            link_local_from_mac([0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde]),
            v6("fe80::3656:78ff:fe9a:bcde")
        );
    }

    #[test]
    fn mapped_addresses() {
        assert!(is_mapped(v6("::ffff:1.2.3.4")));
        assert!(!is_mapped(v6("::1.2.3.4")));
        assert!(!is_mapped(v6("::1:ffff:1.2.3.4")));
        assert_eq!(
            unmapped(IpAddr::V6(v6("::ffff:1.2.3.4"))),
            IpAddr::V4(v4("1.2.3.4"))
        );
        assert_eq!(
            unmapped(IpAddr::V6(v6("fe80::1"))),
            IpAddr::V6(v6("fe80::1"))
        );
    }

    #[test]
    fn witnesses() {
        assert!(SpecifiedAddr::new(v4("0.0.0.0")).is_none());
        assert!(SpecifiedAddr::new(v4("224.0.0.1")).is_some());
        assert!(UnicastAddr::new(v4("10.0.0.1")).is_some());
        assert!(UnicastAddr::new(v4("255.255.255.255")).is_none());
        assert!(UnicastAddr::new(v4("224.0.0.1")).is_none());
        assert!(UnicastAddr::new(v6("::")).is_none());
        assert!(UnicastAddr::new(v6("ff02::1")).is_none());
        assert!(MulticastAddr::new(v6("ff02::1")).is_some());
        assert!(MulticastAddr::new(v6("fe80::1")).is_none());
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
        fn a_source_is_always_unicast(bits: u128, small: u32) {
            // Half of the cases among the low addresses, where the special ones are.
            for address in [Ipv6Addr::from_bits(bits), Ipv6Addr::from_bits(u128::from(small % 4))] {
                prop_assert!(!address.may_be_source() || UnicastAddr::new(address).is_some());
            }
            let address = Ipv4Addr::from_bits(small);
            prop_assert!(!address.may_be_source() || UnicastAddr::new(address).is_some());
        }
    }
}
