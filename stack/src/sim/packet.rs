//! Reads frames as plainly as possible, to judge what the stack sends: nothing here is shared with
//! [`wire`](crate::wire), so a mistake there is not repeated here.

use crate::link::MacAddr;
use alloc::format;
use alloc::string::String;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const ETHERNET_LEN: usize = 14;
const TYPE_IPV4: u16 = 0x0800;
const TYPE_ARP: u16 = 0x0806;
const TYPE_IPV6: u16 = 0x86dd;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV4: u8 = 1;
const ICMPV6: u8 = 58;

/// TCP flags as they stand in the header, from FIN (bit 0) to AE (bit 8).
pub mod flag {
    /// No more data.
    pub const FIN: u16 = 0x001;
    /// Synchronise sequence numbers.
    pub const SYN: u16 = 0x002;
    /// Reset.
    pub const RST: u16 = 0x004;
    /// Push.
    pub const PSH: u16 = 0x008;
    /// The acknowledgment field counts.
    pub const ACK: u16 = 0x010;
    /// The urgent pointer counts.
    pub const URG: u16 = 0x020;
    /// ECN-Echo.
    pub const ECE: u16 = 0x040;
    /// Congestion window reduced.
    pub const CWR: u16 = 0x080;
    /// Accurate ECN (RFC 9768).
    pub const AE: u16 = 0x100;
}

/// What an IP packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip<'a> {
    /// Who sent it.
    pub source: IpAddr,
    /// Who it is for.
    pub destination: IpAddr,
    /// Type of service or traffic class.
    pub tos: u8,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// Whether routers may not fragment it; always so for IPv6.
    pub dont_fragment: bool,
    /// Whether it is a piece of a datagram.
    pub is_fragment: bool,
    /// What the payload is, behind extension headers.
    pub protocol: u8,
    /// The payload.
    pub payload: &'a [u8],
}

/// What a TCP segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp<'a> {
    /// Port of the sender.
    pub source_port: u16,
    /// Port of the receiver.
    pub destination_port: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgment number.
    pub ack: u32,
    /// Of [`flag`].
    pub flags: u16,
    /// Window, as it stands in the header.
    pub window: u16,
    /// Urgent pointer.
    pub urgent: u16,
    /// Options, raw.
    pub options: &'a [u8],
    /// Payload.
    pub payload: &'a [u8],
}

/// Why a frame is not as it should be: one sentence.
pub type Fault = String;

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from(be16(bytes, at)) << 16 | u32::from(be16(bytes, at + 2))
}

/// The Internet checksum of pieces that are all of even length but the last (RFC 1071 §4.1): zero if
/// their own checksum is right.
#[must_use]
pub fn checksum(pieces: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for piece in pieces {
        for pair in piece.chunks(2) {
            let low = pair.get(1).copied().unwrap_or(0);
            sum += u32::from(pair[0]) << 8 | u32::from(low);
            sum = (sum & 0xffff) + (sum >> 16);
        }
    }
    !u16::try_from(sum).expect("invariant: folded after every word")
}

/// The pseudo-header of RFC 9293 §3.1 or RFC 8200 §8.1.
#[must_use]
pub fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, len: usize) -> [u8; 40] {
    let mut header = [0; 40];
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            header[..4].copy_from_slice(&source.octets());
            header[16..20].copy_from_slice(&destination.octets());
        }
        (source, destination) => {
            let octets = |address: IpAddr| match address {
                IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                IpAddr::V6(address) => address.octets(),
            };
            header[..16].copy_from_slice(&octets(source));
            header[16..32].copy_from_slice(&octets(destination));
        }
    }
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    header[32..36].copy_from_slice(&len.to_be_bytes());
    header[39] = protocol;
    header
}

/// Destination and source of a frame; `None` if it is too short.
#[must_use]
pub fn stations(frame: &[u8]) -> Option<(MacAddr, MacAddr)> {
    let header: &[u8; ETHERNET_LEN] = frame.first_chunk()?;
    let (destination, rest) = header.split_first_chunk()?;
    Some((*destination, *rest.first_chunk()?))
}

/// The IP packet in a frame; `None` if it holds none.
///
/// # Errors
/// What is wrong with it.
pub fn ip(frame: &[u8]) -> Result<Option<Ip<'_>>, Fault> {
    if frame.len() < ETHERNET_LEN {
        return Err(format!("{} bytes are no Ethernet frame", frame.len()));
    }
    let packet = &frame[ETHERNET_LEN..];
    match be16(frame, 12) {
        TYPE_IPV4 => ipv4(packet).map(Some),
        TYPE_IPV6 => ipv6(packet).map(Some),
        _ => Ok(None),
    }
}

fn ipv4(packet: &[u8]) -> Result<Ip<'_>, Fault> {
    if packet.len() < 20 || packet[0] >> 4 != 4 {
        return Err("no IPv4 header".into());
    }
    let header_len = usize::from(packet[0] & 15) * 4;
    let total_len = usize::from(be16(packet, 2));
    if header_len < 20 || total_len < header_len || total_len != packet.len() {
        return Err(format!(
            "IPv4 header length {header_len}, total length {total_len}, but {} bytes",
            packet.len()
        ));
    }
    if checksum(&[&packet[..header_len]]) != 0 {
        return Err("wrong IPv4 header checksum".into());
    }
    let address = |at| IpAddr::V4(Ipv4Addr::from(be32(packet, at)));
    Ok(Ip {
        source: address(12),
        destination: address(16),
        tos: packet[1],
        ttl: packet[8],
        dont_fragment: be16(packet, 6) & 0x4000 != 0,
        is_fragment: be16(packet, 6) & 0x3fff != 0,
        protocol: packet[9],
        payload: &packet[header_len..],
    })
}

fn ipv6(packet: &[u8]) -> Result<Ip<'_>, Fault> {
    if packet.len() < 40 || packet[0] >> 4 != 6 {
        return Err("no IPv6 header".into());
    }
    if usize::from(be16(packet, 4)) != packet.len() - 40 {
        return Err(format!(
            "IPv6 payload length {}, but {} bytes",
            be16(packet, 4),
            packet.len() - 40
        ));
    }
    let address = |at| {
        let words: [u16; 8] = core::array::from_fn(|i| be16(packet, at + 2 * i));
        IpAddr::V6(Ipv6Addr::from(words))
    };
    let (mut protocol, mut at, mut is_fragment) = (packet[6], 40, false);
    // Hop-by-hop options, routing, fragment, destination options.
    while let 0 | 43 | 44 | 60 = protocol {
        let header = packet
            .get(at..at + 8)
            .ok_or("an IPv6 extension header is cut")?;
        is_fragment |= protocol == 44;
        at += if protocol == 44 {
            8
        } else {
            8 + 8 * usize::from(header[1])
        };
        protocol = header[0];
    }
    Ok(Ip {
        source: address(8),
        destination: address(24),
        tos: (be16(packet, 0) >> 4 & 0xff).to_be_bytes()[1],
        ttl: packet[7],
        dont_fragment: true,
        is_fragment,
        protocol,
        payload: packet.get(at..).ok_or("an IPv6 extension header is cut")?,
    })
}

/// The TCP segment in a frame; `None` if it holds none.
///
/// # Errors
/// What is wrong with it.
pub fn tcp(frame: &[u8]) -> Result<Option<(Ip<'_>, Tcp<'_>)>, Fault> {
    match ip(frame)? {
        Some(ip) if ip.protocol == TCP && !ip.is_fragment => {
            segment(&ip).map(|tcp| Some((ip, tcp)))
        }
        _ => Ok(None),
    }
}

fn segment<'a>(ip: &Ip<'a>) -> Result<Tcp<'a>, Fault> {
    let bytes = ip.payload;
    if bytes.len() < 20 {
        return Err("no TCP header".into());
    }
    let header_len = usize::from(bytes[12] >> 4) * 4;
    if header_len < 20 || header_len > bytes.len() {
        return Err(format!("TCP data offset {header_len} of {}", bytes.len()));
    }
    let pseudo = pseudo_header(ip.source, ip.destination, TCP, bytes.len());
    if checksum(&[&pseudo, bytes]) != 0 {
        return Err("wrong TCP checksum".into());
    }
    Ok(Tcp {
        source_port: be16(bytes, 0),
        destination_port: be16(bytes, 2),
        seq: be32(bytes, 4),
        ack: be32(bytes, 8),
        flags: be16(bytes, 12) & 0x01ff,
        window: be16(bytes, 14),
        urgent: be16(bytes, 18),
        options: &bytes[20..header_len],
        payload: &bytes[header_len..],
    })
}

/// Judges a frame that a host sends: every length, every checksum, and of TCP what holds for all
/// segments.
///
/// # Errors
/// What is wrong with it.
pub fn check(frame: &[u8]) -> Result<(), Fault> {
    let (destination, source) = stations(frame).ok_or("shorter than an Ethernet header")?;
    if source[0] & 1 != 0 {
        return Err("sent by a group".into());
    }
    if be16(frame, 12) == TYPE_ARP {
        return check_arp(&frame[ETHERNET_LEN..]);
    }
    let Some(ip) = ip(frame)? else {
        return Err(format!("EtherType {:#06x}", be16(frame, 12)));
    };
    // RFC 1122 §3.2.1.7.
    if ip.ttl == 0 {
        return Err("sent with a time to live of 0".into());
    }
    // RFC 1122 §3.3.6: a group's frame is for a group's packet, and the other way round.
    let is_group = match ip.destination {
        IpAddr::V4(address) => address.is_multicast() || address.octets()[3] == 255,
        IpAddr::V6(address) => address.is_multicast(),
    };
    if (destination[0] & 1 != 0) != is_group {
        return Err(format!(
            "{} in a frame for {destination:02x?}",
            ip.destination
        ));
    }
    if ip.is_fragment {
        return Ok(());
    }
    let pseudo = pseudo_header(ip.source, ip.destination, ip.protocol, ip.payload.len());
    match ip.protocol {
        TCP => check_segment(&segment(&ip)?, &ip),
        UDP => {
            let len = ip.payload.len();
            if len < 8 || usize::from(be16(ip.payload, 4)) != len {
                return Err("wrong UDP length".into());
            }
            if be16(ip.payload, 6) == 0 || checksum(&[&pseudo, ip.payload]) != 0 {
                return Err("wrong UDP checksum".into());
            }
            Ok(())
        }
        ICMPV4 if checksum(&[ip.payload]) != 0 => Err("wrong ICMP checksum".into()),
        ICMPV6 if checksum(&[&pseudo, ip.payload]) != 0 => Err("wrong ICMPv6 checksum".into()),
        ICMPV4 | ICMPV6 => Ok(()),
        other => Err(format!("IP protocol {other}")),
    }
}

fn check_arp(packet: &[u8]) -> Result<(), Fault> {
    match packet.first_chunk::<8>() {
        Some([0, 1, 8, 0, 6, 4, 0, 1 | 2]) if packet.len() == 28 => Ok(()),
        _ => Err("a malformed ARP packet".into()),
    }
}

/// What RFC 9293 asks of every segment.
fn check_segment(tcp: &Tcp<'_>, ip: &Ip<'_>) -> Result<(), Fault> {
    let is_syn = tcp.flags & flag::SYN != 0;
    if is_syn && tcp.flags & (flag::FIN | flag::RST) != 0 {
        return Err("SYN together with FIN or RST".into());
    }
    // §3.5.2: after the first SYN everything but some resets carries an acknowledgment.
    if tcp.flags & (flag::SYN | flag::ACK | flag::RST) == 0 {
        return Err("neither SYN nor ACK nor RST".into());
    }
    if tcp.flags & flag::URG == 0 && tcp.urgent != 0 {
        return Err("an urgent pointer without URG".into());
    }
    // §3.1: the reserved bits are zero in what we make.
    if ip.payload[12] & 0x0e != 0 {
        return Err("a reserved bit is set".into());
    }
    if tcp.source_port == 0 || tcp.destination_port == 0 {
        return Err("port 0".into());
    }
    let mut options = tcp.options;
    loop {
        match *options {
            [] => break,
            // MUST-69: zeros behind the end of the list.
            [0, ref padding @ ..] => {
                if padding.iter().any(|byte| *byte != 0) {
                    return Err("padding that is not zero".into());
                }
                break;
            }
            [1, ref rest @ ..] => options = rest,
            [kind, len, ..] if len >= 2 && usize::from(len) <= options.len() => {
                let fits = match kind {
                    2 => len == 4,
                    3 => len == 3,
                    4 => len == 2,
                    5 => len >= 10 && len % 8 == 2,
                    8 => len == 10,
                    _ => true,
                };
                if !fits {
                    return Err(format!("option {kind} with length {len}"));
                }
                // MUST-65, RFC 7323 §2.1, RFC 2018 §2.
                if matches!(kind, 2..=4) && !is_syn {
                    return Err(format!("option {kind} in a segment without SYN"));
                }
                options = &options[usize::from(len)..];
            }
            // MUST-68.
            [kind, ..] => return Err(format!("option {kind} has no right length")),
        }
    }
    Ok(())
}

/// Whether a frame holds an IP packet longer than `mtu` bytes.
pub(super) fn is_longer_than(frame: &[u8], mtu: u32) -> bool {
    frame.len() > ETHERNET_LEN
        && matches!(be16(frame, 12), TYPE_IPV4 | TYPE_IPV6)
        && frame.len() - ETHERNET_LEN > usize::try_from(mtu).unwrap_or(usize::MAX)
}

/// Marks a packet "congestion experienced" if its sender knows of ECN (RFC 3168 §5); says whether it
/// did.
pub(super) fn mark_ce(frame: &mut [u8]) -> bool {
    let Ok(Some(Ip { tos, source, .. })) = ip(frame) else {
        return false;
    };
    // 00 is "not capable", 11 "congestion experienced".
    if tos & 3 == 0 {
        return false;
    }
    match source {
        IpAddr::V4(_) => {
            frame[ETHERNET_LEN + 1] |= 3;
            repair_ipv4_checksum(&mut frame[ETHERNET_LEN..]);
        }
        // The low bits of the traffic class are the high ones of the second byte's lower half.
        IpAddr::V6(_) => frame[ETHERNET_LEN + 1] |= 0x30,
    }
    true
}

/// Makes the header checksum of an IPv4 packet anew.
pub(super) fn repair_ipv4_checksum(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let header_len = usize::from(packet[0] & 15) * 4;
    let sum = checksum(&[&packet[..header_len]]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::script::frame::{Addresses, Segment};
    use alloc::vec::Vec;

    fn frames() -> [Vec<u8>; 2] {
        let segment = Segment {
            source_port: 1,
            destination_port: 2,
            seq: 3,
            ack: 4,
            flags: flag::ACK | flag::PSH,
            window: 5,
            options: [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2].into(),
            payload: b"odd".to_vec(),
            ..Segment::default()
        };
        [Addresses::V4, Addresses::V6].map(|addresses| segment.frame(&addresses).unwrap())
    }

    /// Another parser sees the same, and every flipped bit behind Ethernet that a checksum covers is
    /// noticed.
    #[test]
    fn a_right_segment_passes_and_flipped_bits_do_not() {
        for frame in frames() {
            check(&frame).unwrap();
            let (_, tcp) = tcp(&frame).unwrap().unwrap();
            let theirs = etherparse::SlicedPacket::from_ethernet(&frame).unwrap();
            let Some(etherparse::TransportSlice::Tcp(theirs)) = theirs.transport else {
                panic!("{theirs:?}");
            };
            assert_eq!(theirs.sequence_number(), tcp.seq);
            assert_eq!(theirs.options(), tcp.options);
            assert_eq!(theirs.payload(), tcp.payload);
            let transport = frame.len() - ip(&frame).unwrap().unwrap().payload.len();
            for bit in transport * 8..frame.len() * 8 {
                let mut bad = frame.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(check(&bad).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn marking_keeps_the_packet_right() {
        for mut frame in frames() {
            assert!(!mark_ce(&mut frame), "not ECN-capable");
            let is_v4 = frame[12..14] == TYPE_IPV4.to_be_bytes();
            if is_v4 {
                frame[15] |= 2;
                repair_ipv4_checksum(&mut frame[14..]);
            } else {
                frame[15] |= 0x20;
            }
            assert_eq!(ip(&frame).unwrap().unwrap().tos, 2);
            assert!(mark_ce(&mut frame));
            check(&frame).unwrap();
            assert_eq!(ip(&frame).unwrap().unwrap().tos, 3);
        }
    }

    #[test]
    fn segments_nobody_may_send_are_refused() {
        let base = Segment {
            source_port: 1,
            destination_port: 2,
            flags: flag::ACK,
            ..Segment::default()
        };
        let fault = |segment: Segment| check(&segment.frame(&Addresses::V4).unwrap()).unwrap_err();
        let with_options = |options: &[u8]| {
            fault(Segment {
                options: options.into(),
                ..base.clone()
            })
        };
        assert!(with_options(&[2, 4, 5, 180]).contains("without SYN"));
        assert!(with_options(&[0, 0, 0, 1]).contains("padding"));
        assert!(with_options(&[8, 10, 0, 0]).contains("no right length"));
        assert!(with_options(&[8, 3, 0, 0]).contains("option 8 with length 3"));
        let flags = |flags| {
            fault(Segment {
                flags,
                ..base.clone()
            })
        };
        assert!(flags(flag::SYN | flag::FIN).contains("SYN together"));
        assert!(flags(flag::PSH).contains("neither"));
        let urgent = Segment {
            urgent: 1,
            ..base.clone()
        };
        assert!(fault(urgent).contains("urgent"));
    }
}
