//! Segments as bytes: what a scripted peer sends. It can also be wrong in the ways that a stack has
//! to notice.

use crate::link::MacAddr;
use crate::sim::packet::{checksum, pseudo_header};
use crate::wire::{ethernet, ipv6, protocol};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Ethernet address of the host under test.
pub const HOST_MAC: MacAddr = [2, 0, 0, 0, 0, 1];
/// Ethernet address of its peer, and of everybody else.
pub const PEER_MAC: MacAddr = [2, 0, 0, 0, 0, 2];

/// Who sends to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Ethernet source.
    pub source_mac: MacAddr,
    /// Ethernet destination.
    pub destination_mac: MacAddr,
    /// IP source.
    pub source: IpAddr,
    /// IP destination, of the same version.
    pub destination: IpAddr,
}

impl Addresses {
    /// From the peer to the host, IPv4 (RFC 5737).
    pub const V4: Addresses = Addresses {
        source_mac: PEER_MAC,
        destination_mac: HOST_MAC,
        source: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)),
        destination: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    };
    /// From the peer to the host, IPv6 (RFC 3849).
    pub const V6: Addresses = Addresses {
        source_mac: PEER_MAC,
        destination_mac: HOST_MAC,
        source: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2)),
        destination: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    };

    /// The other way.
    #[must_use]
    pub const fn reversed(&self) -> Self {
        Self {
            source_mac: self.destination_mac,
            destination_mac: self.source_mac,
            source: self.destination,
            destination: self.source,
        }
    }
}

/// What is wrong with a segment, or unusual about its packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Oddities {
    /// The checksum is off by one.
    pub bad_checksum: bool,
    /// The data offset field, in words of 32 bits, if not the right one.
    pub data_offset: Option<u8>,
    /// The three reserved bits.
    pub reserved: u8,
    /// Options of the IPv4 header, of a length divisible by four.
    pub ip_options: Vec<u8>,
    /// Cut the packet off so many bytes behind its IP header, lengths adjusted.
    pub cut: Option<usize>,
}

/// A TCP segment, and what of its IP packet may vary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Port of the sender.
    pub source_port: u16,
    /// Port of the receiver.
    pub destination_port: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgment number.
    pub ack: u32,
    /// Of [`flag`](crate::sim::packet::flag).
    pub flags: u16,
    /// Window field.
    pub window: u16,
    /// Urgent pointer.
    pub urgent: u16,
    /// Options; padded with zeros to a multiple of four bytes.
    pub options: Vec<u8>,
    /// Payload.
    pub payload: Vec<u8>,
    /// Type of service or traffic class.
    pub tos: u8,
    /// Time to live or hop limit; `None` for 64.
    pub ttl: Option<u8>,
    /// What is wrong with it.
    pub oddities: Oddities,
}

impl Segment {
    /// The TCP header and payload; `None` if the options are longer than 40 bytes or the segment
    /// longer than 65,535.
    #[must_use]
    pub fn bytes(&self, source: IpAddr, destination: IpAddr) -> Option<Vec<u8>> {
        let mut options = self.options.clone();
        options.resize(options.len().next_multiple_of(4), 0);
        let words = u8::try_from((20 + options.len()) / 4).ok()?;
        if words > 15 {
            return None;
        }
        let odd = &self.oddities;
        let offset = odd.data_offset.unwrap_or(words) & 15;
        let [ae, flags] = self.flags.to_be_bytes();
        let mut bytes = Vec::with_capacity(60 + self.payload.len());
        bytes.extend_from_slice(&self.source_port.to_be_bytes());
        bytes.extend_from_slice(&self.destination_port.to_be_bytes());
        bytes.extend_from_slice(&self.seq.to_be_bytes());
        bytes.extend_from_slice(&self.ack.to_be_bytes());
        bytes.push(offset << 4 | (odd.reserved & 7) << 1 | ae & 1);
        bytes.push(flags);
        bytes.extend_from_slice(&self.window.to_be_bytes());
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(&self.urgent.to_be_bytes());
        bytes.extend_from_slice(&options);
        bytes.extend_from_slice(&self.payload);
        bytes.truncate(odd.cut.unwrap_or(usize::MAX));
        if bytes.len() > 65_535 {
            return None;
        }
        if bytes.len() >= 18 {
            let pseudo = pseudo_header(source, destination, protocol::TCP, bytes.len());
            let mut sum = checksum(&[&pseudo, &bytes]);
            if odd.bad_checksum {
                // 0 and 0xffff are the same number: a change by one is a real one.
                sum = sum.wrapping_add(1);
            }
            bytes[16..18].copy_from_slice(&sum.to_be_bytes());
        }
        Some(bytes)
    }

    /// The frame; `None` if it cannot be written down.
    #[must_use]
    pub fn frame(&self, addresses: &Addresses) -> Option<Vec<u8>> {
        let segment = self.bytes(addresses.source, addresses.destination)?;
        let packet = ip_packet(
            addresses,
            protocol::TCP,
            (self.tos, self.ttl.unwrap_or(64)),
            &self.oddities.ip_options,
            &segment,
        )?;
        Some(packet)
    }
}

/// An IP packet in an Ethernet frame; `None` if it cannot be written down.
#[must_use]
pub fn ip_packet(
    addresses: &Addresses,
    protocol: u8,
    (tos, ttl): (u8, u8),
    options: &[u8],
    payload: &[u8],
) -> Option<Vec<u8>> {
    let mut frame = alloc::vec![0; ethernet::HEADER_LEN];
    let ether_type = match addresses.source {
        IpAddr::V4(_) => ethernet::TYPE_IPV4,
        IpAddr::V6(_) => ethernet::TYPE_IPV6,
    };
    ethernet::Repr {
        destination: addresses.destination_mac,
        source: addresses.source_mac,
        vlans: ethernet::VlanIds::NONE,
        ether_type,
    }
    .emit(&mut frame)?;
    match (addresses.source, addresses.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let header_len = 20 + options.len();
            let words = u8::try_from(header_len / 4).ok()?;
            let total = u16::try_from(header_len + payload.len()).ok()?;
            if words > 15 || !options.len().is_multiple_of(4) {
                return None;
            }
            let mut header = Vec::with_capacity(header_len);
            header.extend_from_slice(&[0x40 | words, tos]);
            header.extend_from_slice(&total.to_be_bytes());
            // No identification, DF.
            header.extend_from_slice(&[0, 0, 0x40, 0, ttl, protocol, 0, 0]);
            header.extend_from_slice(&source.octets());
            header.extend_from_slice(&destination.octets());
            header.extend_from_slice(options);
            let sum = checksum(&[&header]);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            frame.extend_from_slice(&header);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let at = frame.len();
            frame.resize(at + ipv6::HEADER_LEN, 0);
            ipv6::Repr {
                source,
                destination,
                next_header: protocol,
                traffic_class: tos,
                flow_label: 0,
                hop_limit: ttl,
                payload_len: u16::try_from(payload.len()).ok()?,
            }
            .emit(&mut frame, at)?;
        }
        _ => return None,
    }
    frame.extend_from_slice(payload);
    Some(frame)
}
