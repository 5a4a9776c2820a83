//! smoltcp with one UDP socket that takes both versions: one Ethernet interface, neighbours known,
//! all checksums verified and made by it. Fragmentation, multicast and logging are compiled out.

use super::packet::{OUR_MAC, OUR_PORT, OUR_V4, OUR_V6, Peer};
use super::{BATCH, Subject};
use crate::frame::{BenchFrame, BenchPool};
use smoltcp::iface::{
    self, Interface, PollIngressSingleResult, PollResult, SocketHandle, SocketSet,
};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::udp;
use smoltcp::time::Instant as SmolInstant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};
use stack::frame::{Frame as _, FramePool as _};
use stack::time::Instant;
use stack::wire::{arp, ethernet, ipv6, ndp, protocol};

const PEER: Peer = Peer(0);
/// The longest payload the benchmark sends.
const PAYLOAD_MAX: usize = 1500;

pub(crate) struct SmoltcpEcho {
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    read: Vec<BenchFrame>,
}

impl SmoltcpEcho {
    pub(crate) fn new() -> Self {
        let buffer = || {
            udp::PacketBuffer::new(
                vec![udp::PacketMetadata::EMPTY; 2 * BATCH],
                vec![0; 2 * BATCH * PAYLOAD_MAX],
            )
        };
        let mut socket = udp::Socket::new(buffer(), buffer());
        socket.bind(OUR_PORT).expect("a fresh socket");
        let mut sockets = SocketSet::new(vec![]);
        let socket = sockets.add(socket);
        Self {
            interface: interface(),
            sockets,
            socket,
            read: Vec::with_capacity(BATCH),
        }
    }
}

/// An interface with both addresses that knows its peer.
pub(crate) fn interface() -> Interface {
    let mut pool = BenchPool::new(4, super::FRAME_BYTES);
    let (mut received, mut sent) = (Vec::new(), Vec::new());
    let mut read = Vec::with_capacity(BATCH);
    for packet in [arp_request(), neighbor_solicitation()] {
        received.extend(pool.receive(&packet));
    }
    let mut rings = Rings {
        pool: &mut pool,
        received: received.drain(..),
        read: &mut read,
        sent: &mut sent,
    };
    let config = iface::Config::new(HardwareAddress::Ethernet(EthernetAddress(OUR_MAC)));
    let now = SmolInstant::ZERO;
    let mut interface = Interface::new(config, &mut rings, now);
    interface.update_ip_addrs(|addresses| {
        addresses
            .push(IpCidr::new(OUR_V4.into(), 24))
            .expect("room for two");
        addresses
            .push(IpCidr::new(OUR_V6.into(), 64))
            .expect("room for two");
    });
    // Whoever asks for our addresses is known from then on.
    interface.poll(now, &mut rings, &mut SocketSet::new(vec![]));
    drop(rings);
    assert_eq!(sent.len(), 2, "ARP and neighbour discovery are answered");
    interface
}

/// The time as smoltcp has it.
pub(crate) fn smoltcp_time(now: Instant) -> SmolInstant {
    let us = i64::try_from(now.as_nanos() / 1000).expect("early in the clock's life");
    SmolInstant::from_micros(us)
}

impl Subject for SmoltcpEcho {
    #[inline(never)]
    fn turn(
        &mut self,
        pool: &mut BenchPool,
        received: &mut Vec<BenchFrame>,
        sent: &mut Vec<BenchFrame>,
        now: Instant,
    ) {
        let Self {
            interface,
            sockets,
            socket,
            read,
        } = self;
        let now = smoltcp_time(now);
        let mut rings = Rings {
            pool,
            received: received.drain(..),
            read,
            sent,
        };
        interface.poll_maintenance(now);
        while interface.poll_ingress_single(now, &mut rings, sockets)
            != PollIngressSingleResult::None
        {}
        let udp = sockets.get_mut::<udp::Socket<'_>>(*socket);
        let mut payload = [0; PAYLOAD_MAX];
        while let Ok((len, metadata)) = udp.recv_slice(&mut payload) {
            // An answer that is not sent is missed by the harness.
            let _ = udp.send_slice(&payload[..len], metadata);
        }
        while interface.poll_egress(now, &mut rings, sockets) != PollResult::None {}
        drop(rings);
        for frame in read.drain(..) {
            pool.give(frame);
        }
    }
}

/// A device over the harness's frames.
pub(crate) struct Rings<'a> {
    pub(crate) pool: &'a mut BenchPool,
    pub(crate) received: std::vec::Drain<'a, BenchFrame>,
    /// Frames whose packets have been read.
    pub(crate) read: &'a mut Vec<BenchFrame>,
    pub(crate) sent: &'a mut Vec<BenchFrame>,
}

pub(crate) struct Received<'a> {
    frame: BenchFrame,
    read: &'a mut Vec<BenchFrame>,
}

pub(crate) struct ToSend<'a> {
    pool: &'a mut BenchPool,
    sent: &'a mut Vec<BenchFrame>,
}

impl Device for Rings<'_> {
    type RxToken<'b>
        = Received<'b>
    where
        Self: 'b;
    type TxToken<'b>
        = ToSend<'b>
    where
        Self: 'b;

    fn receive(&mut self, _now: SmolInstant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        let Self {
            pool,
            received,
            read,
            sent,
        } = self;
        let frame = received.next()?;
        Some((Received { frame, read }, ToSend { pool, sent }))
    }

    fn transmit(&mut self, _now: SmolInstant) -> Option<Self::TxToken<'_>> {
        Some(ToSend {
            pool: self.pool,
            sent: self.sent,
        })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = ethernet::HEADER_LEN + 1500;
        // As by default: all verified and made by the stack.
        capabilities.checksum = ChecksumCapabilities::default();
        capabilities
    }
}

impl RxToken for Received<'_> {
    #[inline]
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        let result = read(self.frame.data());
        self.read.push(self.frame);
        result
    }
}

impl TxToken for ToSend<'_> {
    #[inline]
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut frame = self
            .pool
            .take()
            .expect("the pool has a frame for every answer");
        frame.set_len(len);
        let result = write(frame.data_mut());
        self.sent.push(frame);
        result
    }
}

/// The peer asks for our IPv4 address.
fn arp_request() -> Vec<u8> {
    let mut packet = vec![0; ethernet::HEADER_LEN + arp::LEN];
    let request = arp::Repr {
        operation: arp::Operation::Request,
        sender_mac: PEER.mac(),
        sender: PEER.v4(),
        target_mac: [0; 6],
        target: OUR_V4,
    };
    let at = ethernet_header(&mut packet, ethernet::TYPE_ARP);
    request.emit(&mut packet, at).expect("room for ARP");
    packet
}

/// The peer asks for our IPv6 address.
fn neighbor_solicitation() -> Vec<u8> {
    let mut packet = vec![0; ethernet::HEADER_LEN + ipv6::HEADER_LEN + ndp::LEN_WITH_OPTION];
    let at = ethernet_header(&mut packet, ethernet::TYPE_IPV6);
    let header = ipv6::Repr {
        source: PEER.v6(),
        destination: OUR_V6,
        next_header: protocol::ICMPV6,
        traffic_class: 0,
        flow_label: 0,
        // RFC 4861 §7.1.1: proof that no router was in between.
        hop_limit: 255,
        payload_len: u16::try_from(ndp::LEN_WITH_OPTION).expect("a few bytes"),
    };
    let at = at + header.emit(&mut packet, at).expect("room for IPv6");
    let ask = ndp::Repr::Solicitation {
        target: OUR_V6,
        source_mac: Some(PEER.mac()),
    };
    ask.emit(&mut packet, at, PEER.v6(), OUR_V6)
        .expect("room for the question");
    packet
}

fn ethernet_header(packet: &mut [u8], ether_type: u16) -> usize {
    let header = ethernet::Repr {
        destination: OUR_MAC,
        source: PEER.mac(),
        vlans: ethernet::VlanIds::NONE,
        ether_type,
    };
    header.emit(packet).expect("room for Ethernet")
}
