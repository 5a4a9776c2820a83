//! Which address of ours a connection or datagram comes from when nobody chose one.

use super::address::{Ip, IpAddress};
use crate::link::LocalAddress;
use core::net::IpAddr;

/// The source address towards `destination`, over a route whose next hop is `next_hop` and which prefers
/// `preferred`; `None` if none of `addresses` will do.
///
/// IPv4 as Linux chooses (`inet_select_addr` in net/ipv4/devinet.c): the route's own, else the first one
/// that has the next hop on its subnet, else the first. IPv6 by those rules of RFC 6724 §5 that our
/// addresses tell enough for: the right scope (rule 2), then the longest common prefix (rule 8). In both
/// versions an address of the link alone serves only peers on the link.
#[must_use]
pub fn select<I: Ip>(
    addresses: &[LocalAddress],
    preferred: Option<IpAddr>,
    next_hop: IpAddr,
    destination: I::Addr,
) -> Option<I::Addr> {
    let destination_ip: IpAddr = destination.into();
    let candidates = || {
        addresses.iter().filter_map(|local| {
            let address = I::Addr::from_ip(local.address)?;
            Some((address, local.prefix_len))
        })
    };
    // RFC 9293 leaves the choice to routing (MUST-44): what the route says comes first.
    if let Some(preferred) = preferred.and_then(I::Addr::from_ip)
        && candidates().any(|(address, _)| address == preferred)
    {
        return Some(preferred);
    }
    let link_only = is_link_local(destination_ip);
    let mut best: Option<(I::Addr, u32)> = None;
    for (address, prefix_len) in candidates() {
        let ip: IpAddr = address.into();
        // RFC 6724 §5, rule 2: with a smaller scope than the destination's no answer would find us. Towards
        // the link, any other address would do and is worse.
        let is_narrow = is_link_local(ip);
        if is_narrow && !link_only {
            continue;
        }
        let in_scope = u32::from(is_narrow == link_only);
        let on_subnet = match I::Addr::from_ip(next_hop) {
            Some(hop) => hop.masked(prefix_len) == address.masked(prefix_len),
            // An IPv4 route through an IPv6 gateway (RFC 5549).
            None => false,
        };
        let alike = match ip {
            // Linux does not compare bits.
            IpAddr::V4(_) => 0,
            IpAddr::V6(_) => common_prefix(ip, destination_ip),
        };
        let worth = in_scope << 16 | u32::from(on_subnet) << 8 | alike;
        if best.is_none_or(|(_, other)| worth > other) {
            best = Some((address, worth));
        }
    }
    best.map(|(address, _)| address)
}

/// RFC 3927 §2.1, RFC 4291 §2.5.6.
fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// Leading bits that two IPv6 addresses share, 128 at most.
fn common_prefix(one: IpAddr, other: IpAddr) -> u32 {
    match (one, other) {
        (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ip::address::{Ipv4, Ipv6};
    use crate::link::AddressOwner;
    use alloc::vec::Vec;

    fn locals(list: &[&str]) -> Vec<LocalAddress> {
        let local = |text: &&str| {
            let (address, len) = text.split_once('/').unwrap();
            LocalAddress {
                address: address.parse().unwrap(),
                prefix_len: len.parse().unwrap(),
                broadcast: None,
                owner: AddressOwner::Kernel,
            }
        };
        list.iter().map(local).collect()
    }

    fn select_text(list: &[&str], preferred: &str, hop: &str, to: &str) -> Option<IpAddr> {
        let preferred = preferred.parse().ok();
        let hop = hop.parse().unwrap();
        match to.parse().unwrap() {
            IpAddr::V4(to) => select::<Ipv4>(&locals(list), preferred, hop, to).map(IpAddr::V4),
            IpAddr::V6(to) => select::<Ipv6>(&locals(list), preferred, hop, to).map(IpAddr::V6),
        }
    }

    #[track_caller]
    fn is(found: Option<IpAddr>, wanted: &str) {
        assert_eq!(found, wanted.parse().ok());
    }

    #[test]
    fn ipv4_has_the_subnet_of_the_next_hop() {
        let all = [
            "169.254.1.1/16",
            "192.0.2.1/24",
            "198.51.100.1/24",
            "2001:db8::1/64",
        ];
        is(select_text(&all, "", "192.0.2.9", "192.0.2.9"), "192.0.2.1");
        is(
            select_text(&all, "", "198.51.100.254", "203.0.113.5"),
            "198.51.100.1",
        );
        // A gateway on no subnet of ours: the first.
        is(
            select_text(&all, "", "10.0.0.1", "203.0.113.5"),
            "192.0.2.1",
        );
        is(select_text(&all, "", "fe80::1", "203.0.113.5"), "192.0.2.1");
        is(
            select_text(&all, "198.51.100.1", "192.0.2.9", "192.0.2.9"),
            "198.51.100.1",
        );
        // The route's address went: it is not chosen.
        is(
            select_text(&all, "203.0.113.1", "192.0.2.9", "192.0.2.9"),
            "192.0.2.1",
        );
        is(
            select_text(&all, "", "169.254.7.7", "169.254.7.7"),
            "169.254.1.1",
        );
        is(select_text(&all[..1], "", "192.0.2.9", "192.0.2.9"), "none");
    }

    #[test]
    fn ipv6_has_the_scope_and_then_the_longest_prefix() {
        let all = [
            "fe80::1/64",
            "2001:db8:1::1/64",
            "2001:db8:2::1/64",
            "192.0.2.1/24",
        ];
        is(select_text(&all, "", "fe80::9", "fe80::9"), "fe80::1");
        is(
            select_text(&all, "", "fe80::9", "2001:db8:2:7::1"),
            "2001:db8:2::1",
        );
        is(
            select_text(&all, "", "2001:db8:1::9", "2001:db8:1::9"),
            "2001:db8:1::1",
        );
        is(
            select_text(&all[1..], "", "fe80::9", "fe80::9"),
            "2001:db8:1::1",
        );
        is(
            select_text(&all[..1], "", "fe80::9", "2001:db8:2:7::1"),
            "none",
        );
        is(
            select_text(&all[3..], "", "fe80::9", "2001:db8:2:7::1"),
            "none",
        );
    }
}
