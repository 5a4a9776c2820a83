//! The least an echo can be: headers read, both checksums verified, addresses and ports swapped,
//! both checksums made. No sockets, no routes, no neighbours, no limits, no counters.

use super::Subject;
use super::packet::{OUR_MAC, OUR_PORT};
use crate::frame::{BenchFrame, BenchPool};
use stack::frame::Frame as _;
use stack::time::Instant;
use stack::wire::checksum::Sum;
use stack::wire::{ethernet, ipv4, ipv6, protocol, udp};

pub(crate) struct Reflector;

impl Subject for Reflector {
    #[inline(never)]
    fn turn(
        &mut self,
        _pool: &mut BenchPool,
        received: &mut Vec<BenchFrame>,
        sent: &mut Vec<BenchFrame>,
        _now: Instant,
    ) {
        for mut frame in received.drain(..) {
            if reflect(frame.data_mut()).is_some() {
                sent.push(frame);
            }
        }
    }
}

fn reflect(data: &mut [u8]) -> Option<()> {
    let ethernet = ethernet::Packet::new_checked(data).ok()?;
    if ethernet.destination() != OUR_MAC {
        return None;
    }
    let peer = ethernet.source();
    match ethernet.ether_type() {
        ethernet::TYPE_IPV4 => reflect_v4(data)?,
        ethernet::TYPE_IPV6 => reflect_v6(data)?,
        _ => return None,
    }
    data.get_mut(..6)?.copy_from_slice(&peer);
    data.get_mut(6..12)?.copy_from_slice(&OUR_MAC);
    Some(())
}

fn reflect_v4(data: &mut [u8]) -> Option<()> {
    let ip = ipv4::Packet::new_checked(data, ethernet::HEADER_LEN).ok()?;
    let (source, destination) = (ip.source(), ip.destination());
    if ip.protocol() != protocol::UDP {
        return None;
    }
    let pseudo = |len| Sum::pseudo_v4(source, destination, protocol::UDP, len);
    let udp_at = ip.payload().start;
    let (ports, payload_len) =
        verify_udp(udp::Packet::new_checked(data, ip.payload()).ok()?, pseudo)?;
    let reply = ipv4::Repr {
        source: destination,
        destination: source,
        protocol: protocol::UDP,
        tos: 0,
        ttl: 64,
        payload_len: u16::try_from(udp::HEADER_LEN + payload_len).ok()?,
        fragment: None,
    };
    reply.emit(data, ethernet::HEADER_LEN)?;
    udp::emit(data, udp_at, ports.1, ports.0, payload_len, pseudo)?;
    Some(())
}

fn reflect_v6(data: &mut [u8]) -> Option<()> {
    let ip = ipv6::Packet::new_checked(data, ethernet::HEADER_LEN).ok()?;
    let (source, destination) = (ip.source(), ip.destination());
    if ip.protocol() != protocol::UDP {
        return None;
    }
    let pseudo = |len| Sum::pseudo_v6(source, destination, protocol::UDP, len);
    let udp_at = ip.payload().start;
    let (ports, payload_len) =
        verify_udp(udp::Packet::new_checked(data, ip.payload()).ok()?, pseudo)?;
    let reply = ipv6::Repr {
        source: destination,
        destination: source,
        next_header: protocol::UDP,
        traffic_class: 0,
        flow_label: 0,
        hop_limit: 64,
        payload_len: u16::try_from(udp::HEADER_LEN + payload_len).ok()?,
    };
    reply.emit(data, ethernet::HEADER_LEN)?;
    udp::emit(data, udp_at, ports.1, ports.0, payload_len, pseudo)?;
    Some(())
}

/// Ports and payload length of a datagram to our port whose checksum is right.
fn verify_udp(
    udp: udp::Packet<'_>,
    pseudo: impl FnOnce(u16) -> Sum,
) -> Option<((u16, u16), usize)> {
    if udp.destination_port() != OUR_PORT || udp.verify(pseudo) != Ok(udp::Verified::Right) {
        return None;
    }
    let ports = (udp.source_port(), udp.destination_port());
    Some((ports, udp.payload_len()))
}
