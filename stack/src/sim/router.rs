//! What a router does with a packet that is longer than the next link carries.

use super::packet;
use crate::wire::{ethernet, icmpv4, icmpv6, ipv4, ipv6, protocol};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The router's Ethernet address.
pub const MAC: [u8; 6] = [2, 0, 0, 0, 0xff, 0xfe];
/// Its IPv4 address.
pub const IPV4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
/// Its IPv6 address.
pub const IPV6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xfffe);

const ETHERNET_LEN: usize = ethernet::HEADER_LEN;

/// The fragments of an IPv4 packet without options that may be cut (RFC 791 §3.2); `None` if it may
/// not be, or is of IPv6.
pub(super) fn fragments(frame: &[u8], mtu: u32) -> Option<Vec<Vec<u8>>> {
    let ip = packet::ip(frame).ok()??;
    if ip.dont_fragment || !ip.source.is_ipv4() {
        return None;
    }
    let (header, payload) = frame.split_at(ETHERNET_LEN + ipv4::HEADER_LEN);
    let old = u16::from_be_bytes([header[ETHERNET_LEN + 6], header[ETHERNET_LEN + 7]]);
    let room = usize::try_from(mtu).ok()?.checked_sub(ipv4::HEADER_LEN)? & !7;
    if room == 0 || header[ETHERNET_LEN] != 0x45 {
        return None;
    }
    let pieces = payload.chunks(room).enumerate().map(|(i, piece)| {
        let mut fragment = header.to_vec();
        let ip = &mut fragment[ETHERNET_LEN..];
        let is_last = (i + 1) * room >= payload.len();
        // A piece of a piece keeps its own "more fragments", but for its last piece.
        let more = if is_last { old & 0x2000 } else { 0x2000 };
        let offset = (old & 0x1fff) + u16::try_from(i * room / 8).unwrap_or(0);
        let total = u16::try_from(ipv4::HEADER_LEN + piece.len()).unwrap_or(u16::MAX);
        ip[2..4].copy_from_slice(&total.to_be_bytes());
        ip[6..8].copy_from_slice(&(more | offset).to_be_bytes());
        packet::repair_ipv4_checksum(ip);
        fragment.extend_from_slice(piece);
        fragment
    });
    Some(pieces.collect())
}

/// The message to the sender of a packet that is too big: "fragmentation needed" (RFC 1191 §4) or
/// "packet too big" (RFC 4443 §3.2). `None` if there is none to be sent.
pub(super) fn report(frame: &[u8], mtu: u32) -> Option<Vec<u8>> {
    let source = packet::ip(frame).ok()??.source;
    let (kind, code) = match source {
        IpAddr::V4(_) => (
            icmpv4::kind::UNREACHABLE,
            icmpv4::unreachable::FRAGMENTATION_NEEDED,
        ),
        IpAddr::V6(_) => (icmpv6::kind::PACKET_TOO_BIG, 0),
    };
    let mut answer = icmp_error(frame.get(ETHERNET_LEN..)?, source, (kind, code), mtu)?;
    let (_, sender) = packet::stations(frame)?;
    answer[..6].copy_from_slice(&sender);
    Some(answer)
}

/// An ICMP error of this router about an IP packet that `to` sent, for nobody's Ethernet address yet.
/// `rest` is the last word of the ICMP header.
pub(super) fn icmp_error(
    packet: &[u8],
    to: IpAddr,
    (kind, code): (u8, u8),
    rest: u32,
) -> Option<Vec<u8>> {
    let rest = rest.to_be_bytes();
    let mut frame = alloc::vec![0; ETHERNET_LEN + ipv6::HEADER_LEN];
    let (ether_type, ip_len, message) = match to {
        IpAddr::V4(to) => {
            // RFC 1812 §4.3.2.3: as much as fits into 576 bytes.
            let quote = &packet[..packet.len().min(576 - 28)];
            let message = icmpv4::header(kind, code, rest, quote);
            let repr = ipv4::Repr {
                source: IPV4,
                destination: to,
                protocol: protocol::ICMPV4,
                tos: 0,
                ttl: 64,
                payload_len: u16::try_from(message.len() + quote.len()).ok()?,
                fragment: None,
            };
            let len = repr.emit(&mut frame, ETHERNET_LEN)?;
            (ethernet::TYPE_IPV4, len, [&message[..], quote].concat())
        }
        IpAddr::V6(to) => {
            // RFC 4443 §2.4 (c): as much as fits into the minimum MTU.
            let quote = &packet[..packet.len().min(ipv6::MTU_MIN - 48)];
            let message = icmpv6::header((IPV6, to), (kind, code), rest, quote)?;
            let repr = ipv6::Repr {
                source: IPV6,
                destination: to,
                next_header: protocol::ICMPV6,
                traffic_class: 0,
                flow_label: 0,
                hop_limit: 64,
                payload_len: u16::try_from(message.len() + quote.len()).ok()?,
            };
            let len = repr.emit(&mut frame, ETHERNET_LEN)?;
            (ethernet::TYPE_IPV6, len, [&message[..], quote].concat())
        }
    };
    ethernet::Repr {
        destination: [0; 6],
        source: MAC,
        vlans: ethernet::VlanIds::NONE,
        ether_type,
    }
    .emit(&mut frame)?;
    frame.truncate(ETHERNET_LEN + ip_len);
    frame.extend_from_slice(&message);
    Some(frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::script::frame::{Addresses, Segment};

    fn frame(addresses: &Addresses) -> Vec<u8> {
        let segment = Segment {
            source_port: 1,
            destination_port: 2,
            flags: packet::flag::ACK,
            payload: (0..1440_u32)
                .map(|i| i.to_le_bytes()[0])
                .collect::<Vec<u8>>(),
            ..Segment::default()
        };
        segment.frame(addresses).unwrap()
    }

    #[test]
    fn a_report_quotes_the_packet_and_names_the_mtu() {
        for addresses in [Addresses::V4, Addresses::V6] {
            let frame = frame(&addresses);
            assert!(packet::is_longer_than(&frame, 1400));
            assert!(!packet::is_longer_than(&frame, 1500));
            assert!(fragments(&frame, 1400).is_none(), "not to be fragmented");
            let answer = report(&frame, 1400).unwrap();
            packet::check(&answer).unwrap();
            let sent = packet::ip(&frame).unwrap().unwrap();
            let ip = packet::ip(&answer).unwrap().unwrap();
            assert_eq!(ip.destination, sent.source);
            assert_eq!(ip.payload[4..8], [0, 0, 5, 120]);
            let quote = &ip.payload[8..];
            assert_eq!(quote, &frame[14..14 + quote.len()]);
            assert_eq!(answer[..6], frame[6..12]);
        }
    }

    #[test]
    fn fragments_make_the_datagram_again() {
        let mut frame = frame(&Addresses::V4);
        frame[14 + 6] = 0;
        packet::repair_ipv4_checksum(&mut frame[14..]);
        let pieces = fragments(&frame, 600).unwrap();
        assert_eq!(pieces.len(), 3);
        let mut whole = Vec::new();
        for (i, piece) in pieces.iter().enumerate() {
            assert!(!packet::is_longer_than(piece, 600));
            let word = u16::from_be_bytes([piece[20], piece[21]]);
            assert_eq!(usize::from(word & 0x1fff) * 8, whole.len());
            assert_eq!(word & 0x2000 == 0, i == 2);
            whole.extend_from_slice(packet::ip(piece).unwrap().unwrap().payload);
        }
        assert_eq!(whole, frame[34..]);
    }
}
