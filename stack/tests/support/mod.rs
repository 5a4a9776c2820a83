//! A stack with a link, and the packets a peer would send it.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]
#![allow(dead_code, unreachable_pub, reason = "each test file uses some of it")]

use stack::frame::Frame;
use stack::heap::{HeapFrame, HeapPool};
use stack::ip::route::{Route, RouteTable};
use stack::link::{AddressOwner, LinkState, LocalAddress, MacAddr, NeighborUpdate};
use stack::socket::bind::Bind;
use stack::time::Instant;
use stack::udp::UdpSocketId;
use stack::wire::checksum::Sum;
use stack::wire::{ethernet, ipv4, ipv6, protocol, udp};
use stack::{Config, Origin, Stack};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub const OUR_MAC: MacAddr = [2, 0, 0, 0, 0, 1];
pub const PEER_MAC: MacAddr = [2, 0, 0, 0, 0, 2];
/// Shared with the kernel.
pub const OUR_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const PEER_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub const OUR_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
pub const PEER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
/// The stack's own.
pub const OWN_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
pub const OWN_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);
pub const MTU: u32 = 1500;

pub struct Host {
    pub stack: Stack<HeapPool>,
    pub pool: HeapPool,
    pub now: Instant,
}

pub fn local(address: impl Into<IpAddr>, prefix_len: u8, owner: AddressOwner) -> LocalAddress {
    LocalAddress {
        address: address.into(),
        prefix_len,
        broadcast: None,
        owner,
    }
}

pub fn link() -> LinkState {
    let on_link = |network: &str, prefix_len| Route::on_link(network.parse().unwrap(), prefix_len);
    let mut shared_v4 = local(OUR_V4, 24, AddressOwner::Kernel);
    shared_v4.broadcast = Some(Ipv4Addr::new(192, 0, 2, 255));
    LinkState {
        mac: OUR_MAC,
        mtu: MTU,
        up: true,
        addresses: vec![
            shared_v4,
            local(OUR_V6, 64, AddressOwner::Kernel),
            local(OWN_V4, 24, AddressOwner::Stack),
            local(OWN_V6, 64, AddressOwner::Stack),
        ],
        routes: RouteTable::new(
            vec![on_link("192.0.2.0", 24), on_link("2001:db8::", 64)],
            16,
        )
        .unwrap(),
    }
}

impl Host {
    pub fn new(config: Config) -> Self {
        let mut host = Self {
            stack: Stack::new(Config {
                announce: false,
                ..config
            }),
            pool: HeapPool::new(256, 2048),
            now: Instant::from_nanos(1_000_000_000),
        };
        host.stack.set_link(Box::new(link()), host.now);
        for address in [IpAddr::V4(PEER_V4), IpAddr::V6(PEER_V6)] {
            let known = NeighborUpdate::Set {
                address,
                mac: PEER_MAC,
            };
            host.stack.set_neighbor(&mut host.pool, known);
        }
        host
    }

    pub fn bind(&mut self, local: &str) -> UdpSocketId {
        let bind = Bind {
            local: local.parse().unwrap(),
            v6only: false,
        };
        self.stack.udp_bind(bind, 16).unwrap()
    }

    pub fn receive(&mut self, packet: &[u8]) {
        let frame = self.pool.receive(packet).expect("a free frame");
        self.stack
            .ingest(&mut self.pool, frame, Origin::Ring, self.now);
    }

    /// Answers everything that waits in `socket` with itself.
    pub fn echo(&mut self, socket: UdpSocketId) -> usize {
        let mut answers = 0;
        while let Some(datagram) = self.stack.udp_recv(socket) {
            if self
                .stack
                .udp_reply(&mut self.pool, datagram, self.now)
                .is_ok()
            {
                answers += 1;
            }
        }
        answers
    }

    /// What left.
    pub fn sent(&mut self) -> Vec<Vec<u8>> {
        let mut frames: Vec<HeapFrame> = Vec::new();
        self.stack.egress(|frame| {
            frames.push(frame);
            Ok(())
        });
        let packets = frames.iter().map(|frame| frame.data().to_vec()).collect();
        for frame in frames {
            stack::frame::FramePool::give(&mut self.pool, frame);
        }
        packets
    }

    pub fn advance(&mut self, ms: u64) {
        self.now = self.now + std::time::Duration::from_millis(ms);
        self.stack.expire(&mut self.pool, self.now);
    }

    /// Every counted drop, by name.
    pub fn drops(&self) -> Vec<(&'static str, u64)> {
        let drops = self.stack.drops().iter().filter(|(_, count)| *count > 0);
        drops
            .map(|(reason, count)| (reason.name(), count))
            .collect()
    }
}

/// A UDP datagram in an Ethernet frame from the peer.
pub fn udp_packet(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    ip_packet(
        from.ip(),
        to.ip(),
        protocol::UDP,
        &udp_segment(from, to, payload),
    )
}

/// Header and payload, checksum made.
pub fn udp_segment(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut segment = vec![0; udp::HEADER_LEN + payload.len()];
    segment[udp::HEADER_LEN..].copy_from_slice(payload);
    let pseudo = |len| pseudo(from.ip(), to.ip(), protocol::UDP, len);
    udp::emit(
        &mut segment,
        0,
        from.port(),
        to.port(),
        payload.len(),
        pseudo,
    )
    .unwrap();
    segment
}

pub fn pseudo(from: IpAddr, to: IpAddr, protocol: u8, len: u16) -> Sum {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => Sum::pseudo_v4(from, to, protocol, len),
        (IpAddr::V6(from), IpAddr::V6(to)) => Sum::pseudo_v6(from, to, protocol, len),
        _ => panic!("one version"),
    }
}

/// An IP packet in an Ethernet frame from the peer.
pub fn ip_packet(from: IpAddr, to: IpAddr, protocol: u8, message: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; 14 + 40];
    let payload_len = u16::try_from(message.len()).unwrap();
    let ether_type = if from.is_ipv4() {
        ethernet::TYPE_IPV4
    } else {
        ethernet::TYPE_IPV6
    };
    let vlans = ethernet::VlanIds::NONE;
    ethernet::Repr {
        destination: OUR_MAC,
        source: PEER_MAC,
        vlans,
        ether_type,
    }
    .emit(&mut packet)
    .unwrap();
    let header = match (from, to) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let repr = ipv4::Repr {
                source,
                destination,
                protocol,
                tos: 0,
                ttl: 64,
                payload_len,
                fragment: None,
            };
            repr.emit(&mut packet, 14).unwrap()
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let repr = ipv6::Repr {
                source,
                destination,
                next_header: protocol,
                traffic_class: 0,
                flow_label: 0,
                hop_limit: 64,
                payload_len,
            };
            repr.emit(&mut packet, 14).unwrap()
        }
        _ => panic!("one version"),
    };
    packet.truncate(14 + header);
    packet.extend_from_slice(message);
    packet
}

/// Reads a UDP packet that the stack sent, and checks everything about it.
pub fn read_udp(packet: &[u8]) -> (SocketAddr, SocketAddr, Vec<u8>) {
    let (source, destination, protocol, message) = read_ip(packet);
    assert_eq!(protocol, protocol::UDP);
    let udp = udp::Packet::new_checked(&message, 0..message.len()).unwrap();
    let verified = udp.verify(|len| pseudo(source, destination, protocol, len));
    assert_eq!(verified, Ok(udp::Verified::Right));
    let payload = message[udp.payload()].to_vec();
    assert_eq!(
        payload.len() + udp::HEADER_LEN,
        message.len(),
        "nothing behind the datagram"
    );
    (
        SocketAddr::new(source, udp.source_port()),
        SocketAddr::new(destination, udp.destination_port()),
        payload,
    )
}

/// Reads an IP packet that the stack sent to the peer: source, destination, protocol, message.
pub fn read_ip(packet: &[u8]) -> (IpAddr, IpAddr, u8, Vec<u8>) {
    let ethernet = ethernet::Packet::new_checked(packet).unwrap();
    assert_eq!(ethernet.source(), OUR_MAC);
    let at = ethernet.payload_offset();
    if ethernet.ether_type() == ethernet::TYPE_IPV4 {
        let ip = ipv4::Packet::new_checked(packet, at).unwrap();
        assert_eq!(ip.payload().end, packet.len(), "nothing behind the packet");
        let message = packet[ip.payload()].to_vec();
        (
            ip.source().into(),
            ip.destination().into(),
            ip.protocol(),
            message,
        )
    } else {
        let ip = ipv6::Packet::new_checked(packet, at).unwrap();
        assert_eq!(ip.payload().end, packet.len(), "nothing behind the packet");
        let message = packet[ip.payload()].to_vec();
        (
            ip.source().into(),
            ip.destination().into(),
            ip.protocol(),
            message,
        )
    }
}

pub fn v4(address: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::new(address.into(), port)
}

pub fn v6(address: Ipv6Addr, port: u16) -> SocketAddr {
    SocketAddr::new(address.into(), port)
}

/// The peer's fragments of a datagram, `room` bytes of payload each.
pub fn fragments(from: SocketAddr, to: SocketAddr, payload: &[u8], room: usize) -> Vec<Vec<u8>> {
    let segment = udp_segment(from, to, payload);
    let pieces: Vec<&[u8]> = segment.chunks(room).collect();
    let count = pieces.len();
    let cut = |(index, piece): (usize, &&[u8])| {
        let offset = u16::try_from(index * room).unwrap();
        let more = index + 1 < count;
        match (from.ip(), to.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut packet = ip_packet(from.ip(), to.ip(), protocol::UDP, piece);
                let repr = ipv4::Repr {
                    source,
                    destination,
                    protocol: protocol::UDP,
                    tos: 0,
                    ttl: 64,
                    payload_len: u16::try_from(piece.len()).unwrap(),
                    fragment: Some(ipv4::Fragment {
                        identification: 77,
                        offset,
                        more,
                    }),
                };
                repr.emit(&mut packet, 14).unwrap();
                packet
            }
            _ => {
                let mut message = vec![0; 8];
                ipv6::emit_fragment_header(&mut message, 0, protocol::UDP, 77, offset, more)
                    .unwrap();
                message.extend_from_slice(piece);
                ip_packet(from.ip(), to.ip(), protocol::FRAGMENT, &message)
            }
        }
    };
    pieces.iter().enumerate().map(cut).collect()
}

/// Puts the fragments that the stack sent together again.
pub fn defragment(packets: &[Vec<u8>]) -> Vec<u8> {
    let mut whole = Vec::new();
    for packet in packets {
        assert!(packet.len() <= 14 + MTU as usize);
        if packet[12..14] == [0x08, 0x00] {
            let ip = ipv4::Packet::new_checked(packet, 14).unwrap();
            assert_eq!(ip.fragment_offset(), whole.len());
            whole.extend_from_slice(&packet[ip.payload()]);
        } else {
            let ip = ipv6::Packet::new_checked(packet, 14).unwrap();
            assert_eq!(usize::from(ip.fragment().unwrap().offset), whole.len());
            whole.extend_from_slice(&packet[ip.payload()]);
        }
    }
    whole
}

/// The packet with another type of service or traffic class.
pub fn with_tos(packet: &[u8], tos: u8) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[12..14] == [0x08, 0x00] {
        packet[15] = tos;
        packet[24..26].fill(0);
        let sum = Sum::ZERO.add_bytes(&packet[14..34]);
        packet[24..26].copy_from_slice(&sum.checksum());
    } else {
        packet[14] = 0x60 | (tos >> 4);
        packet[15] = (packet[15] & 0x0f) | (tos << 4);
    }
    packet
}
