//! The request, and what a right answer to it is.

use crate::frame::BenchFrame;
use stack::frame::Frame as _;
use stack::link::MacAddr;
use stack::wire::checksum::Sum;
use stack::wire::{ethernet, ipv4, ipv6, protocol, udp};
use std::net::{Ipv4Addr, Ipv6Addr};

pub(crate) const OUR_MAC: MacAddr = [2, 0, 0, 0, 0, 1];
pub(crate) const OUR_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(crate) const OUR_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// The echo port (RFC 862).
pub(crate) const OUR_PORT: u16 = 7;
/// A second one, for packets that alternate.
pub(crate) const OTHER_PORT: u16 = 11;
const PEER_PORT: u16 = 40_000;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V4,
    V6,
}

/// A host that sends requests, by number.
#[derive(Clone, Copy)]
pub(crate) struct Peer(pub(crate) u8);

impl Peer {
    pub(crate) const fn v4(self) -> Ipv4Addr {
        Ipv4Addr::new(192, 0, 2, 2 + self.0)
    }

    pub(crate) const fn v6(self) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2 + self.0 as u16)
    }

    pub(crate) const fn mac(self) -> MacAddr {
        [2, 0, 0, 0, 1, self.0]
    }
}

/// A datagram from a peer's port to ours, in an Ethernet frame.
pub(crate) struct Request {
    version: Version,
    peer: Peer,
    payload_len: usize,
    pub(crate) bytes: Vec<u8>,
}

/// Addresses and ports, from the sender's side.
type Endpoints = ((Vec<u8>, u16), (Vec<u8>, u16));

impl Request {
    pub(crate) fn new(version: Version, payload_len: usize, peer: Peer, port: u16) -> Self {
        let headers_len = ethernet::HEADER_LEN + version.header_len() + udp::HEADER_LEN;
        let mut bytes = vec![0; headers_len + payload_len];
        for (byte, value) in bytes[headers_len..].iter_mut().zip((1..=251).cycle()) {
            *byte = value;
        }
        write_headers(version, &mut bytes, payload_len, peer, port)
            .expect("room was made for them");
        Self {
            version,
            peer,
            payload_len,
            bytes,
        }
    }

    /// Panics unless `answer` is from us to the peer with right checksums. What is in the payload
    /// is the application's affair.
    pub(crate) fn check_answer(&self, answer: &BenchFrame) {
        let data = answer.data();
        assert_eq!(data.len(), self.bytes.len(), "length of the answer");
        let (to, from) = (self.peer.mac(), OUR_MAC);
        assert_eq!((&data[..6], &data[6..12]), (&to[..], &from[..]));
        let (from, to) = self.endpoints(data);
        assert_eq!((to, from), self.endpoints(&self.bytes));
    }

    /// Source and destination of a packet whose lengths and checksums are right.
    fn endpoints(&self, data: &[u8]) -> Endpoints {
        let at = ethernet::HEADER_LEN;
        let (source, destination, payload) = match self.version {
            Version::V4 => {
                let ip = ipv4::Packet::new_checked(data, at).expect("an IPv4 packet");
                assert_eq!(ip.protocol(), protocol::UDP);
                let addresses = (ip.source().octets(), ip.destination().octets());
                (addresses.0.to_vec(), addresses.1.to_vec(), ip.payload())
            }
            Version::V6 => {
                let ip = ipv6::Packet::new_checked(data, at).expect("an IPv6 packet");
                assert_eq!(ip.protocol(), protocol::UDP);
                let addresses = (ip.source().octets(), ip.destination().octets());
                (addresses.0.to_vec(), addresses.1.to_vec(), ip.payload())
            }
        };
        let udp = udp::Packet::new_checked(data, payload).expect("a UDP datagram");
        assert_eq!(udp.payload_len(), self.payload_len);
        let pseudo = |len: u16| {
            Sum::ZERO
                .add_bytes(&source)
                .add_bytes(&destination)
                .add_be16(protocol::UDP.into())
                .add_be16(len)
        };
        assert_eq!(udp.verify(pseudo), Ok(udp::Verified::Right));
        (
            (source, udp.source_port()),
            (destination, udp.destination_port()),
        )
    }
}

impl Version {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name {
            "ipv4" => Some(Self::V4),
            "ipv6" => Some(Self::V6),
            _ => None,
        }
    }

    pub(crate) const fn header_len(self) -> usize {
        match self {
            Self::V4 => ipv4::HEADER_LEN,
            Self::V6 => ipv6::HEADER_LEN,
        }
    }
}

fn write_headers(
    version: Version,
    data: &mut [u8],
    payload_len: usize,
    peer: Peer,
    port: u16,
) -> Option<()> {
    let ether_type = match version {
        Version::V4 => ethernet::TYPE_IPV4,
        Version::V6 => ethernet::TYPE_IPV6,
    };
    let header = ethernet::Repr {
        destination: OUR_MAC,
        source: peer.mac(),
        vlans: ethernet::VlanIds::NONE,
        ether_type,
    };
    let ip_at = header.emit(data)?;
    let udp_len = u16::try_from(udp::HEADER_LEN + payload_len).ok()?;
    let ip_len = match version {
        Version::V4 => ipv4::Repr {
            source: peer.v4(),
            destination: OUR_V4,
            protocol: protocol::UDP,
            tos: 0,
            ttl: 64,
            payload_len: udp_len,
            fragment: None,
        }
        .emit(data, ip_at)?,
        Version::V6 => ipv6::Repr {
            source: peer.v6(),
            destination: OUR_V6,
            next_header: protocol::UDP,
            traffic_class: 0,
            flow_label: 0,
            hop_limit: 64,
            payload_len: udp_len,
        }
        .emit(data, ip_at)?,
    };
    let pseudo = |len| match version {
        Version::V4 => Sum::pseudo_v4(peer.v4(), OUR_V4, protocol::UDP, len),
        Version::V6 => Sum::pseudo_v6(peer.v6(), OUR_V6, protocol::UDP, len),
    };
    udp::emit(data, ip_at + ip_len, PEER_PORT, port, payload_len, pseudo)?;
    Some(())
}
