//! One header at a time. A checksum would keep nearly every input out, so each is read twice: as
//! it is, and with its checksums made right.

use crate::world::packets::{
    Choices, Ends, OUR_MAC, OWN_V4, OWN_V6, PEER_MAC, PEER_V4, PEER_V6, View, checksum as slow,
    icmp_pseudo, pseudo_header, repair,
};
use crate::world::readers;
use stack::wire::checksum::Sum;
use stack::wire::{self, icmpv4 as icmp4, icmpv6 as icmp6};
use std::net::Ipv6Addr;

/// A frame.
pub fn ethernet(data: &[u8]) {
    readers::compare_ethernet(data);
}

/// An ARP packet.
pub fn arp(data: &[u8]) {
    readers::compare_arp(data, 0);
    if let Ok(repr) = wire::arp::Repr::parse(data, 0) {
        let mut again = vec![0; wire::arp::LEN];
        assert_eq!(repr.emit(&mut again, 0), Some(wire::arp::LEN));
        assert_eq!(again, data[..wire::arp::LEN], "what is read is written");
    }
}

/// `packet` in a frame, as it is and repaired.
fn frames(ether_type: [u8; 2], packet: &[u8]) -> [Vec<u8>; 2] {
    let frame = [&OUR_MAC, &PEER_MAC, &ether_type[..], packet].concat();
    let mut repaired = frame.clone();
    repair(&mut repaired);
    [frame, repaired]
}

/// An IPv4 packet.
pub fn ipv4(data: &[u8]) {
    for frame in frames([8, 0], data) {
        readers::compare_ipv4(&frame, 14);
        let whole = wire::ipv4::Packet::new_checked(&frame, 14);
        let quoted = wire::ipv4::Packet::new_embedded(&frame, 14);
        if let Ok(whole) = whole {
            let quoted = quoted.expect("what is right can be quoted");
            assert_eq!(quoted.payload(), whole.payload());
            assert!(whole.payload().end <= frame.len());
        }
        if let Ok(quoted) = quoted {
            assert!(14 + quoted.header_len() <= frame.len());
            assert!(quoted.total_len() >= quoted.header_len());
        }
    }
}

/// An IPv6 packet.
pub fn ipv6(data: &[u8]) {
    let [frame, _] = frames([0x86, 0xdd], data);
    readers::compare_ipv6(&frame, 14);
    let whole = wire::ipv6::Packet::new_checked(&frame, 14);
    let quoted = wire::ipv6::Packet::new_embedded(&frame, 14);
    match whole {
        Ok(whole) => {
            let view = View::of(&frame).expect("what we read, a lenient reader reads");
            assert_eq!(whole.payload(), view.transport);
            assert_eq!(whole.protocol(), view.protocol);
            // A quoted first piece is read on: its ports are looked for.
            if whole.fragment().is_none() {
                let quoted = quoted.expect("what is right can be quoted");
                assert_eq!(quoted.payload(), whole.payload());
            }
            if let Some(piece) = whole.fragment() {
                let named = frame[14 + usize::from(piece.named_at)];
                assert_eq!(named, wire::protocol::FRAGMENT, "where the header is named");
            }
        }
        Err(problem) => {
            if let Some(report) = problem.report {
                let pointer = usize::try_from(report.pointer).expect("an offset");
                assert!(14 + pointer < frame.len(), "points into the packet");
                assert!(report.code <= 2);
            }
        }
    }
    if let Ok(quoted) = quoted {
        let payload = quoted.payload();
        assert!(payload.start <= payload.end && payload.end <= frame.len());
    }
}

/// `message` as it is, and with its checksum made right over `pseudo`.
fn messages(pseudo: &[u8], message: &[u8]) -> [Vec<u8>; 2] {
    let mut repaired = message.to_vec();
    if repaired.len() >= 8 {
        repaired[2..4].fill(0);
        let sum = slow(&[pseudo, &repaired]).to_be_bytes();
        repaired[2..4].copy_from_slice(&sum);
    }
    [message.to_vec(), repaired]
}

/// An ICMP message.
pub fn icmpv4(data: &[u8]) {
    for message in messages(&[], data) {
        let read = icmp4::Packet::new_checked(&message, 0..message.len());
        let right = message.len() >= 8 && slow(&[&message]) == 0;
        assert_eq!(read.is_ok(), right);
        let Ok(packet) = read else { continue };
        assert_eq!(packet.body(), 8..message.len());
        let rest = [message[4], message[5], message[6], message[7]];
        assert_eq!((packet.kind(), packet.code()), (message[0], message[1]));
        assert_eq!(packet.rest(), rest);
        let header = icmp4::header(packet.kind(), packet.code(), rest, &message[8..]);
        // The one's complement has two zeros: 0xffff is never made, but may be received.
        let both_zero = message[2..4] == [0xff; 2] && header[2..4] == [0; 2];
        assert!(header == message[..8] || both_zero);
        let _ = wire::ipv4::Packet::new_embedded(&message, 8);
    }
}

/// An ICMPv6 message between two addresses.
pub fn icmpv6(data: &[u8]) {
    let ends = Ends::new(PEER_V6, OWN_V6);
    let pseudo = icmp_pseudo(ends, data.len());
    for message in messages(&pseudo, data) {
        if message.len() > usize::from(u16::MAX) {
            continue;
        }
        let read = icmp6::Packet::new_checked(&message, 0..message.len(), PEER_V6, OWN_V6);
        let right = message.len() >= 8 && slow(&[&pseudo, &message]) == 0;
        assert_eq!(read.is_ok(), right);
        let Ok(packet) = read else { continue };
        assert_eq!(packet.body(), 8..message.len());
        let kind = (packet.kind(), packet.code());
        let header = icmp6::header((PEER_V6, OWN_V6), kind, packet.rest(), &message[8..]);
        let header = header.expect("short enough");
        let both_zero = message[2..4] == [0xff; 2] && header[2..4] == [0; 2];
        assert!(header == message[..8] || both_zero);
        let _ = wire::ipv6::Packet::new_embedded(&message, 8);
    }
}

/// The first bytes choose hop limit and addresses, the rest is an ICMPv6 message.
pub fn ndp(data: &[u8]) {
    let mut choices = Choices::new(data);
    let hop_limit = choices.of(&[255, 255, 255, 254]);
    let source = choices.of(&[PEER_V6, Ipv6Addr::UNSPECIFIED]);
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 9);
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let destination = choices.of(&[group, OWN_V6, all_nodes]);
    let data = choices.rest();
    let pseudo = icmp_pseudo(Ends::new(source, destination), data.len());
    let [_, message] = messages(&pseudo, data);
    let Ok(packet) = icmp6::Packet::new_checked(&message, 0..message.len(), source, destination)
    else {
        return;
    };
    let read = wire::ndp::Repr::parse(&message, &packet, hop_limit, source, destination);
    let Ok(Some(repr)) = read else { return };
    assert_eq!((hop_limit, message[1]), (255, 0), "RFC 4861 §7.1");
    let (target, mac) = match repr {
        wire::ndp::Repr::Solicitation { target, source_mac } => {
            assert_eq!(message[0], 135);
            assert!(!source.is_unspecified() || (source_mac.is_none() && destination == group));
            (target, source_mac)
        }
        wire::ndp::Repr::Advertisement {
            target,
            target_mac,
            solicited,
            ..
        } => {
            assert_eq!(message[0], 136);
            assert!(!solicited || !destination.is_multicast());
            (target, target_mac)
        }
    };
    assert_eq!(message[8..24], target.octets());
    assert!(!target.is_multicast());
    assert!(mac.is_none_or(|mac| mac[0] & 1 == 0));
    // Written again it means the same.
    let mut again = vec![0; wire::ndp::LEN_WITH_OPTION];
    let len = repr.emit(&mut again, 0, source, destination).expect("room");
    let packet = icmp6::Packet::new_checked(&again, 0..len, source, destination);
    let packet = packet.expect("its checksum was made");
    let reread = wire::ndp::Repr::parse(&again[..len], &packet, 255, source, destination);
    assert_eq!(reread, Ok(Some(repr)));
}

/// A UDP datagram over both versions.
pub fn udp(data: &[u8]) {
    let Ok(len) = u16::try_from(data.len()) else {
        return;
    };
    let mut packet_v4 = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
    packet_v4[2..4].copy_from_slice(&len.saturating_add(20).to_be_bytes());
    packet_v4.extend(PEER_V4.octets());
    packet_v4.extend(OWN_V4.octets());
    packet_v4.extend(data);
    let mut packet_v6 = vec![0x60, 0, 0, 0, 0, 0, 17, 64];
    packet_v6[4..6].copy_from_slice(&len.to_be_bytes());
    packet_v6.extend(PEER_V6.octets());
    packet_v6.extend(OWN_V6.octets());
    packet_v6.extend(data);
    for frame in frames([8, 0], &packet_v4) {
        readers::compare_udp(&frame);
    }
    for frame in frames([0x86, 0xdd], &packet_v6) {
        readers::compare_udp(&frame);
    }
}

/// The sum in any even cuts is the sum word by word.
pub fn checksum(data: &[u8]) {
    let mut choices = Choices::new(data);
    let cuts = [choices.byte(), choices.byte()].map(usize::from);
    let shift = choices.below(8);
    let bytes = choices.rest();
    // Where in memory the bytes lie must not matter.
    let moved = [&[0xaa; 8][..shift], bytes].concat();
    let bytes = &moved[shift..];
    let expected = slow(&[bytes]);
    let (mut sum, mut rest) = (Sum::ZERO, bytes);
    for cut in cuts {
        let (head, tail) = rest.split_at((cut * 2).min(rest.len() & !1));
        sum = sum.add_bytes(head);
        rest = tail;
    }
    sum = sum.add_bytes(rest);
    assert_eq!(sum.checksum(), expected.to_be_bytes());
    assert_eq!(sum.is_valid(), expected == 0);
    let for_udp = if expected == 0 { 0xffff } else { expected };
    assert_eq!(sum.checksum_udp(), for_udp.to_be_bytes());
    assert_eq!(sum.incomplete(), (!expected).to_be_bytes());
    if let Some(ends) = bytes.first_chunk::<32>() {
        let (from, to) = ends.split_at(16);
        let octets = |bytes: &[u8]| <[u8; 16]>::try_from(bytes).expect("half of 32 bytes");
        let ends = Ends::new(octets(from), octets(to));
        let len = u16::try_from(cuts[0]).expect("a byte");
        let sum = Sum::pseudo_v6(octets(from).into(), octets(to).into(), 17, len);
        let pseudo = pseudo_header(ends, 17, cuts[0]);
        assert_eq!(sum.checksum(), slow(&[&pseudo]).to_be_bytes());
    }
}
