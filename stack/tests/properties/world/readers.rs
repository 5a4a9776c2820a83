//! Our parsers beside those of `etherparse`: what both read is the same, and what only we refuse we
//! refuse for a reason that `etherparse` does not look for.

use super::packets::*;
use etherparse::{EtherType, IpNumber, Ipv4Slice, Ipv6Slice};
use stack::counters::DropReason;
use stack::wire::checksum::Sum;
use stack::wire::{arp, ethernet, ipv4, ipv6, udp};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// All of them that have something to read in this frame.
pub fn compare(frame: &[u8]) {
    compare_ethernet(frame);
    compare_udp(frame);
    if let Some((at, ether_type, _)) = payload_of(frame) {
        match ether_type {
            0x0806 => compare_arp(frame, at),
            0x0800 => compare_ipv4(frame, at),
            0x86dd => compare_ipv6(frame, at),
            _ => {}
        }
    }
}

/// Our sum of the pseudo-header of a UDP datagram of `len` bytes.
pub fn pseudo_sum(ends: Ends, len: u16) -> Sum {
    match (ends.source, ends.destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => Sum::pseudo_v4(from, to, 17, len),
        (IpAddr::V6(from), IpAddr::V6(to)) => Sum::pseudo_v6(from, to, 17, len),
        _ => unreachable!("one version"),
    }
}

/// An Ethernet header and its tags.
pub fn compare_ethernet(frame: &[u8]) {
    let ours = ethernet::Packet::new_checked(frame);
    let theirs = etherparse::Ethernet2Slice::from_slice_without_fcs(frame);
    let (Ok(ours), Ok(theirs)) = (&ours, &theirs) else {
        // Only tags, which are not in their slice, can be truncated as well.
        let tagged = matches!(frame.get(12..14), Some([0x81, 0] | [0x88, 0xa8]));
        assert!(theirs.is_err() == ours.is_err() || tagged);
        return;
    };
    assert_eq!(ours.destination(), theirs.destination());
    assert_eq!(ours.source(), theirs.source());
    if ours.payload_offset() == 14 {
        assert_eq!(ours.ether_type(), theirs.ether_type().0);
    }
    let (at, ether_type, vlans) = payload_of(frame).expect("we read it");
    assert_eq!((ours.payload_offset(), ours.ether_type()), (at, ether_type));
    assert_eq!(ours.vlans().as_slice(), vlans);
}

/// The ARP packet at `at` of a frame.
pub fn compare_arp(frame: &[u8], at: usize) {
    let ours = arp::Repr::parse(frame, at);
    let theirs = etherparse::ArpPacketSlice::from_slice(&frame[at..]);
    let (Ok(ours), Ok(theirs)) = (ours, &theirs) else {
        if let Ok(theirs) = theirs {
            let ethernet_ipv4 = theirs.hw_addr_type().0 == 1
                && theirs.proto_addr_type() == EtherType::IPV4
                && (theirs.hw_addr_size(), theirs.proto_addr_size()) == (6, 4);
            let known = matches!(theirs.operation().0, 1 | 2);
            let group = theirs.sender_hw_addr().first().is_some_and(|b| b & 1 != 0);
            assert!(!ethernet_ipv4 || !known || group);
        }
        return assert!(ours.is_err());
    };
    let request = ours.operation == arp::Operation::Request;
    assert_eq!(theirs.operation().0, if request { 1 } else { 2 });
    assert_eq!(theirs.sender_hw_addr(), ours.sender_mac);
    assert_eq!(theirs.sender_protocol_addr(), ours.sender.octets());
    assert_eq!(theirs.target_hw_addr(), ours.target_mac);
    assert_eq!(theirs.target_protocol_addr(), ours.target.octets());
}

/// The IPv4 packet at `at` of a frame.
pub fn compare_ipv4(frame: &[u8], at: usize) {
    let ours = ipv4::Packet::new_checked(frame, at);
    let theirs = Ipv4Slice::from_slice(&frame[at..]);
    let theirs = match (&ours, theirs) {
        (Ok(_), Ok(theirs)) => theirs,
        (Ok(ours), Err(error)) => {
            // They step over an authentication header, which we do not speak over IPv4.
            return assert_eq!(ours.protocol(), 51, "{error}");
        }
        (Err(reason), Ok(theirs)) => {
            use DropReason::{Ipv4Checksum, Ipv4Options, Ipv4SourceRoute};
            let header = theirs.header();
            // They would make it anew without the reserved flag.
            let right = checksum(&[header.slice()]) == 0;
            return match reason {
                Ipv4Checksum => assert!(!right),
                Ipv4Options | Ipv4SourceRoute => assert!(!header.options().is_empty()),
                other => panic!("{other:?}: {frame:02x?}"),
            };
        }
        (Err(_), Err(_)) => return,
    };
    let (ours, header) = (ours.expect("checked above"), theirs.header());
    assert_eq!(checksum(&[header.slice()]), 0);
    assert_eq!(ours.source(), Ipv4Addr::from(header.source()));
    assert_eq!(ours.destination(), Ipv4Addr::from(header.destination()));
    assert_eq!(ours.protocol(), header.protocol().0);
    assert_eq!(ours.ttl(), header.ttl());
    assert_eq!(ours.identification(), header.identification());
    assert_eq!(ours.header_len(), header.slice().len());
    assert_eq!(ours.total_len(), usize::from(header.total_len()));
    assert_eq!(ours.dont_fragment(), header.dont_fragment());
    assert_eq!(ours.more_fragments(), header.more_fragments());
    let offset = u32::from(header.fragments_offset().value()) * 8;
    assert_eq!(ours.fragment_offset(), usize::try_from(offset).unwrap());
    assert_eq!(ours.is_fragment(), header.is_fragmenting_payload());
    assert_eq!(
        ours.tos(),
        (header.dcp().value() << 2) | header.ecn().value()
    );
    if theirs.extensions().auth.is_none() {
        assert_eq!(&frame[ours.payload()], theirs.payload().payload);
    }
}

/// The IPv6 packet at `at` of a frame.
pub fn compare_ipv6(frame: &[u8], at: usize) {
    let ours = ipv6::Packet::new_checked(frame, at);
    let theirs = Ipv6Slice::from_slice(&frame[at..]);
    let theirs = match (&ours, theirs) {
        (Ok(_), Ok(theirs)) => theirs,
        // They take a length of 0 in front of more bytes for a jumbogram, and read on.
        (Ok(ours), Err(error)) => {
            let jumbo = ours.total_len() == 40;
            let in_pieces = ours.fragment().is_some();
            return assert!(jumbo || in_pieces, "{error}: {frame:02x?}");
        }
        (Err(problem), Ok(theirs)) => {
            use DropReason::{Ipv6ExtensionHeader, Ipv6Option, Ipv6RoutingHeader};
            let chained = theirs.header().next_header() != IpNumber::UDP;
            return match problem.reason {
                Ipv6Option | Ipv6ExtensionHeader | Ipv6RoutingHeader => assert!(chained),
                other => panic!("{other:?}: {frame:02x?}"),
            };
        }
        (Err(_), Err(_)) => return,
    };
    let (ours, header) = (ours.expect("checked above"), theirs.header());
    assert_eq!(ours.source(), Ipv6Addr::from(header.source()));
    assert_eq!(ours.destination(), Ipv6Addr::from(header.destination()));
    assert_eq!(ours.hop_limit(), header.hop_limit());
    assert_eq!(ours.traffic_class(), header.traffic_class());
    let jumbo = ours.total_len() == 40;
    let fragments = ours.fragment().is_some();
    if !jumbo && !fragments {
        // What follows a piece of a datagram they may read on, and we do not.
        assert_eq!(
            ours.protocol(),
            theirs.payload().ip_number.0,
            "{frame:02x?}"
        );
        assert_eq!(&frame[ours.payload()], theirs.payload().payload);
    }
}

/// The UDP datagram in a frame, if there is one.
pub fn compare_udp(frame: &[u8]) {
    let Some(view) = View::of(frame) else { return };
    if view.protocol != 17 {
        return;
    }
    let ours = udp::Packet::new_checked(frame, view.transport.clone());
    let theirs = etherparse::UdpSlice::from_slice(&frame[view.transport.clone()]);
    let (Ok(ours), Ok(theirs)) = (&ours, &theirs) else {
        // They read a length of 0 as "to the end", which is a jumbogram's (RFC 2675 §4).
        let zero = theirs.as_ref().is_ok_and(|theirs| theirs.length() == 0);
        assert!(zero || theirs.is_err(), "{frame:02x?}");
        return assert!(ours.is_err());
    };
    assert_eq!(ours.source_port(), theirs.source_port());
    assert_eq!(ours.destination_port(), theirs.destination_port());
    assert_eq!(&frame[ours.payload()], theirs.payload());
    let header = theirs.to_header();
    let expected = match (view.ends.source, view.ends.destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            header.calc_checksum_ipv4_raw(from.octets(), to.octets(), theirs.payload())
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            header.calc_checksum_ipv6_raw(from.octets(), to.octets(), theirs.payload())
        }
        _ => unreachable!("one version"),
    };
    match ours.verify(|len| pseudo_sum(view.ends, len)) {
        Ok(udp::Verified::Right) => assert_eq!(expected.unwrap(), theirs.checksum()),
        Ok(udp::Verified::Absent) => assert_eq!(theirs.checksum(), 0),
        _ => assert_ne!(expected.unwrap(), theirs.checksum()),
    }
}
