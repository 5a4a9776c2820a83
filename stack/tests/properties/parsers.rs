//! Our parsers beside those of `etherparse`, over right packets and lies: what both read is the same,
//! and what only we refuse we refuse for a reason that `etherparse` does not look for.

use crate::world::packets::*;
use etherparse::{EtherType, IpNumber, Ipv4Slice, Ipv6Slice, SlicedPacket};
use proptest::prelude::*;
use stack::counters::DropReason;
use stack::wire::{arp, ethernet, ipv4, ipv6, udp};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fn frames() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(any::<u8>(), 4..64).prop_map(|bytes| packets(&mut Choices::new(&bytes)))
}

fn compare_ethernet(frame: &[u8]) {
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

fn compare_arp(frame: &[u8], at: usize) {
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

fn compare_ipv4(frame: &[u8], at: usize) {
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
            let right = header.to_header().calc_header_checksum() == header.header_checksum();
            return match reason {
                Ipv4Checksum => assert!(!right),
                Ipv4Options | Ipv4SourceRoute => assert!(!header.options().is_empty()),
                other => panic!("{other:?}: {frame:02x?}"),
            };
        }
        (Err(_), Err(_)) => return,
    };
    let (ours, header) = (ours.expect("checked above"), theirs.header());
    assert_eq!(
        header.to_header().calc_header_checksum(),
        header.header_checksum()
    );
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

fn compare_ipv6(frame: &[u8], at: usize) {
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

fn compare_udp(frame: &[u8]) {
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
    let sum = |len| match (view.ends.source, view.ends.destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            stack::wire::checksum::Sum::pseudo_v4(from, to, 17, len)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            stack::wire::checksum::Sum::pseudo_v6(from, to, 17, len)
        }
        _ => unreachable!("one version"),
    };
    match ours.verify(sum) {
        Ok(udp::Verified::Right) => assert_eq!(expected.unwrap(), theirs.checksum()),
        Ok(udp::Verified::Absent) => assert_eq!(theirs.checksum(), 0),
        _ => assert_ne!(expected.unwrap(), theirs.checksum()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn our_parsers_agree_with_others(frames in frames()) {
        for frame in frames {
            compare_ethernet(&frame);
            compare_udp(&frame);
            let Some((at, ether_type, _)) = payload_of(&frame) else { continue };
            match ether_type {
                0x0806 => compare_arp(&frame, at),
                0x0800 => compare_ipv4(&frame, at),
                0x86dd => compare_ipv6(&frame, at),
                _ => {}
            }
        }
    }

    /// What we build, others read without a complaint.
    #[test]
    fn others_read_what_we_build(bytes in prop::collection::vec(any::<u8>(), 0..64), payload: Vec<u8>) {
        let mut choices = Choices::new(&bytes);
        let v6 = choices.byte() & 1 != 0;
        let mut frame = vec![0; 14];
        let ends = if v6 {
            Ends::new(choices.of(&ADDRESSES_V6), choices.of(&ADDRESSES_V6))
        } else {
            Ends::new(choices.of(&ADDRESSES_V4), choices.of(&ADDRESSES_V4))
        };
        ethernet::Repr {
            destination: OUR_MAC,
            source: PEER_MAC,
            vlans: ethernet::VlanIds::NONE,
            ether_type: if v6 { ethernet::TYPE_IPV6 } else { ethernet::TYPE_IPV4 },
        }.emit(&mut frame).unwrap();
        let len = u16::try_from(8 + payload.len()).unwrap();
        frame.resize(14 + if v6 { 40 } else { 20 }, 0);
        let (tos, ttl) = (choices.byte(), choices.byte());
        match (ends.source, ends.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => ipv4::Repr {
                source, destination, protocol: 17, tos, ttl, payload_len: len, fragment: None,
            }.emit(&mut frame, 14),
            (IpAddr::V6(source), IpAddr::V6(destination)) => ipv6::Repr {
                source, destination, next_header: 17, traffic_class: tos, flow_label: 5,
                hop_limit: ttl, payload_len: len,
            }.emit(&mut frame, 14),
            _ => None,
        }.unwrap();
        let at = frame.len();
        frame.resize(at + 8, 0);
        frame.extend(&payload);
        let pseudo = |len| match (ends.source, ends.destination) {
            (IpAddr::V4(from), IpAddr::V4(to)) => stack::wire::checksum::Sum::pseudo_v4(from, to, 17, len),
            (IpAddr::V6(from), IpAddr::V6(to)) => stack::wire::checksum::Sum::pseudo_v6(from, to, 17, len),
            _ => unreachable!("one version"),
        };
        udp::emit(&mut frame, at, choices.word(), choices.word(), payload.len(), pseudo).unwrap();
        let parsed = SlicedPacket::from_ethernet(&frame);
        prop_assert!(parsed.is_ok(), "{:?}", parsed);
        let message = udp(ends, u16::from_be_bytes([frame[at], frame[at + 1]]),
            u16::from_be_bytes([frame[at + 2], frame[at + 3]]), &payload);
        prop_assert_eq!(&frame[at..], message);
        compare_udp(&frame);
        if v6 { compare_ipv6(&frame, 14) } else { compare_ipv4(&frame, 14) }
    }
}
