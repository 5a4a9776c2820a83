//! Once it is set up, the stack allocates nothing, whatever comes and whatever applications do: good
//! packets, broken ones, fragments, pings, ARP and neighbour discovery, unknown neighbours, full
//! queues, timers, TCP connections in every state. Each kind is shown to have happened: every reason to drop and every event.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

#[path = "support/allocator.rs"]
mod allocator;
#[path = "properties/conversation/mod.rs"]
mod conversation;
mod support;

use allocator::{Random, allocations};
use conversation::choices::Choices;
use conversation::{SETTINGS_BYTES, World};
use stack::counters::{DropCounters, DropReason, Event, EventCounters};
use stack::frame::{Frame, FramePool};
use stack::heap::HeapPool;
use stack::link::{MacAddr, NeighborUpdate};
use stack::socket::bind::Bind;
use stack::time::Duration;
use stack::udp::UdpSocketId;
use stack::wire::checksum::Sum;
use stack::wire::{arp, ethernet, icmpv4, icmpv6, ipv4, ipv6, ndp, protocol, udp};
use stack::{Config, Origin, SendTo, Stack};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use support::*;

/// A packet on its way to be broken, in a buffer of fixed size.
struct Mutant {
    bytes: [u8; 2048],
    len: usize,
}

impl Mutant {
    fn of(packet: &[u8]) -> Self {
        let mut bytes = [0; 2048];
        bytes[..packet.len()].copy_from_slice(packet);
        Self {
            bytes,
            len: packet.len(),
        }
    }

    fn packet(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Changes some bytes, most of them in headers, or the length.
    fn mutate(&mut self, random: &mut Random) {
        for _ in 0..random.below(3) {
            let reach = if random.below(4) == 0 { self.len } else { 80 };
            let at = random.below(u32::try_from(reach.min(self.len)).unwrap()) as usize;
            self.bytes[at] = match random.below(4) {
                0 => 0,
                1 => 0xff,
                2 => self.bytes[at] ^ 1 << random.below(8),
                _ => random.next().to_le_bytes()[0],
            };
        }
        if random.below(16) == 0 {
            self.len = 1 + random.below(u32::try_from(self.len).unwrap()) as usize;
        }
    }

    /// Makes the checksums right again where the packet still looks like one, so that what was
    /// changed is what the packet is judged by.
    fn repair(&mut self) {
        let packet = &mut self.bytes[..self.len];
        let ether_type = packet.get(12..14).map(|bytes| [bytes[0], bytes[1]]);
        let (message, pseudo, protocol) = match ether_type {
            Some([0x08, 0x00]) if self.len >= 34 => {
                let header_len = usize::from(packet[14] & 15) * 4;
                if header_len < 20 || 14 + header_len > self.len {
                    return;
                }
                let header = &mut packet[14..14 + header_len];
                header[10..12].fill(0);
                let sum = Sum::ZERO.add_bytes(header).checksum();
                header[10..12].copy_from_slice(&sum);
                let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
                let end = 14 + total_len.min(self.len - 14);
                let addresses = Sum::ZERO.add_bytes(&header[12..20]);
                (14 + header_len..end, addresses, header[9])
            }
            Some([0x86, 0xdd]) if self.len >= 54 => {
                let payload_len = usize::from(u16::from_be_bytes([packet[18], packet[19]]));
                let end = 54 + payload_len.min(self.len - 54);
                let addresses = Sum::ZERO.add_bytes(&packet[22..54]);
                (54..end, addresses, packet[20])
            }
            _ => return,
        };
        let field = match protocol {
            protocol::UDP => 6,
            protocol::ICMPV4 | protocol::ICMPV6 => 2,
            _ => return,
        };
        let Some(message) = packet.get_mut(message).filter(|bytes| bytes.len() >= 8) else {
            return;
        };
        let len = match protocol {
            protocol::UDP => u16::from_be_bytes([message[4], message[5]]),
            _ => u16::try_from(message.len()).unwrap(),
        };
        let pseudo = match protocol {
            protocol::ICMPV4 => Sum::ZERO,
            _ => pseudo.add_be16(protocol.into()).add_be16(len),
        };
        message[field..field + 2].fill(0);
        let covered = message.get(..usize::from(len)).unwrap_or(&[]);
        let sum = pseudo.add_bytes(covered).checksum_udp();
        message[field..field + 2].copy_from_slice(&sum);
    }
}

fn v4(address: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::new(address.into(), port)
}

fn v6(address: Ipv6Addr, port: u16) -> SocketAddr {
    SocketAddr::new(address.into(), port)
}

fn icmp(to: IpAddr, kind: u8, code: u8, rest: [u8; 4], body: &[u8]) -> Vec<u8> {
    let mut message = vec![0; 8 + body.len()];
    message[8..].copy_from_slice(body);
    match to {
        IpAddr::V4(_) => {
            icmpv4::emit(&mut message, 0, kind, code, rest, body.len()).unwrap();
            ip_packet(PEER_V4.into(), to, protocol::ICMPV4, &message)
        }
        IpAddr::V6(to) => {
            let addresses = (PEER_V6, to);
            icmpv6::emit(&mut message, 0, addresses, (kind, code), rest, body.len()).unwrap();
            ip_packet(PEER_V6.into(), to.into(), protocol::ICMPV6, &message)
        }
    }
}

fn arp_packet(operation: arp::Operation, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0; 14 + arp::LEN];
    ethernet::Repr {
        destination: ethernet::BROADCAST,
        source: PEER_MAC,
        vlans: ethernet::VlanIds::NONE,
        ether_type: ethernet::TYPE_ARP,
    }
    .emit(&mut packet)
    .unwrap();
    let arp = arp::Repr {
        operation,
        sender_mac: PEER_MAC,
        sender,
        target_mac: OUR_MAC,
        target,
    };
    arp.emit(&mut packet, 14).unwrap();
    packet
}

fn ndp_packet(repr: ndp::Repr) -> Vec<u8> {
    let mut message = vec![0; ndp::LEN_WITH_OPTION];
    let len = repr.emit(&mut message, 0, PEER_V6, OWN_V6).unwrap();
    let mut packet = ip_packet(
        PEER_V6.into(),
        OWN_V6.into(),
        protocol::ICMPV6,
        &message[..len],
    );
    packet[14 + 7] = ndp::HOP_LIMIT;
    packet
}

/// A good packet of every kind.
fn corpus() -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    let payload: Vec<u8> = (0..=255).cycle().take(1400).collect();
    for (from, to) in [
        (v4(PEER_V4, 4000), v4(OUR_V4, 7)),
        (v6(PEER_V6, 4000), v6(OUR_V6, 7)),
        // Answered elsewhere; and nobody listens.
        (v4(PEER_V4, 4000), v4(OUR_V4, 9)),
        (v6(PEER_V6, 4000), v6(OUR_V6, 9)),
        (v4(PEER_V4, 4000), v4(OWN_V4, 5)),
        (v6(PEER_V6, 4000), v6(OWN_V6, 5)),
        // From neighbours that nobody knows, and from beyond every route.
        (v4(Ipv4Addr::new(192, 0, 2, 200), 4000), v4(OWN_V4, 7)),
        (v4(Ipv4Addr::new(192, 0, 2, 201), 4000), v4(OUR_V4, 7)),
        (v6("2001:db8::200".parse().unwrap(), 1), v6(OWN_V6, 7)),
        (v4(Ipv4Addr::new(203, 0, 113, 1), 4000), v4(OUR_V4, 7)),
    ] {
        for len in [0, 1, 64, 1400] {
            packets.push(udp_packet(from, to, &payload[..len]));
        }
        packets.extend(fragments(from, to, &payload, 504));
        let mut unknown = udp_packet(from, to, b"of a protocol nobody speaks");
        unknown[if from.is_ipv4() { 23 } else { 20 }] = 132;
        packets.push(unknown);
    }
    // Checksums that are not there, that a NIC was to finish, and a tag of somebody else's VLAN.
    for (from, to) in [
        (v4(PEER_V4, 4000), v4(OUR_V4, 7)),
        (v6(PEER_V6, 4000), v6(OUR_V6, 7)),
    ] {
        let mut packet = udp_packet(from, to, b"unsummed");
        let at = packet.len() - b"unsummed".len() - 2;
        packet[at..at + 2].fill(0);
        packets.push(packet.clone());
        let incomplete = pseudo(from.ip(), to.ip(), protocol::UDP, 8 + 8).incomplete();
        packet[at..at + 2].copy_from_slice(&incomplete);
        packets.push(packet.clone());
        packet.splice(12..12, [0x81, 0x00, 0, 7]);
        packets.push(packet);
    }
    let options = udp_segment(v4(PEER_V4, 4000), v4(OUR_V4, 7), b"behind options");
    for option in [[148, 4, 0, 0], [1, 1, 1, 0], [131, 3, 4, 0]] {
        let mut packet = ip_packet(PEER_V4.into(), OUR_V4.into(), protocol::UDP, &options);
        packet.splice(34..34, option);
        packet[14] = 0x46;
        packet[17] += 4;
        packets.push(packet);
    }
    let segment = udp_segment(v6(PEER_V6, 4000), v6(OUR_V6, 7), b"behind extensions");
    for (header, kind) in [
        (protocol::HOP_BY_HOP, [5, 2, 0, 0]),
        (protocol::DESTINATION_OPTIONS, [0xc2, 2, 0, 0]),
        (protocol::ROUTING, [0, 1, 0, 0]),
        (protocol::ROUTING, [0, 0, 0, 0]),
    ] {
        let [a, b, c, d] = kind;
        let mut message = vec![protocol::UDP, 0, a, b, c, d, 1, 0];
        message.extend_from_slice(&segment);
        packets.push(ip_packet(PEER_V6.into(), OWN_V6.into(), header, &message));
    }
    for len in [0, 56, 1400] {
        let (four, six) = (icmpv4::kind::ECHO_REQUEST, icmpv6::kind::ECHO_REQUEST);
        packets.push(icmp(OWN_V4.into(), four, 0, [1, 2, 3, 4], &payload[..len]));
        packets.push(icmp(OWN_V6.into(), six, 0, [1, 2, 3, 4], &payload[..len]));
    }
    let sent = |from, to| udp_packet(from, to, b"sent").split_off(14);
    let four = sent(v4(OUR_V4, 7), v4(PEER_V4, 4000));
    let six = sent(v6(OUR_V6, 7), v6(PEER_V6, 4000));
    for mtu in [1400, 68, 0] {
        let unreachable = icmpv4::kind::UNREACHABLE;
        let needed = icmpv4::unreachable::FRAGMENTATION_NEEDED;
        let [high, low] = u16::to_be_bytes(mtu);
        packets.push(icmp(
            OUR_V4.into(),
            unreachable,
            needed,
            [0, 0, high, low],
            &four,
        ));
        let too_big = icmpv6::kind::PACKET_TOO_BIG;
        packets.push(icmp(OUR_V6.into(), too_big, 0, [0, 0, high, low], &six));
    }
    packets.push(icmp(
        OUR_V4.into(),
        icmpv4::kind::UNREACHABLE,
        3,
        [0; 4],
        &four,
    ));
    packets.push(icmp(
        OUR_V6.into(),
        icmpv6::kind::UNREACHABLE,
        4,
        [0; 4],
        &six,
    ));
    let asked = Ipv4Addr::new(192, 0, 2, 201);
    packets.push(arp_packet(arp::Operation::Request, PEER_V4, OWN_V4));
    packets.push(arp_packet(arp::Operation::Reply, asked, OWN_V4));
    packets.push(arp_packet(arp::Operation::Request, OWN_V4, OWN_V4));
    let source_mac = Some(PEER_MAC);
    let target = OWN_V6;
    packets.push(ndp_packet(ndp::Repr::Solicitation { target, source_mac }));
    for target in [PEER_V6, OWN_V6, "2001:db8::200".parse().unwrap()] {
        packets.push(ndp_packet(ndp::Repr::Advertisement {
            target,
            target_mac: Some(PEER_MAC),
            router: false,
            solicited: true,
            overrides: true,
        }));
    }
    packets
}

/// The peer's fragments of a datagram, `room` bytes of payload each.
fn fragments(from: SocketAddr, to: SocketAddr, payload: &[u8], room: usize) -> Vec<Vec<u8>> {
    let segment = udp_segment(from, to, payload);
    let pieces: Vec<&[u8]> = segment.chunks(room).collect();
    let cut = |(index, piece): (usize, &&[u8])| {
        let offset = u16::try_from(index * room).unwrap();
        let more = index + 1 < pieces.len();
        let IpAddr::V4(source) = from.ip() else {
            let mut message = vec![0; ipv6::FRAGMENT_HEADER_LEN];
            ipv6::emit_fragment_header(&mut message, 0, protocol::UDP, 77, offset, more).unwrap();
            message.extend_from_slice(piece);
            return ip_packet(from.ip(), to.ip(), protocol::FRAGMENT, &message);
        };
        let mut packet = ip_packet(from.ip(), to.ip(), protocol::UDP, piece);
        let IpAddr::V4(destination) = to.ip() else {
            unreachable!("both are of one version")
        };
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
    };
    pieces.iter().enumerate().map(cut).collect()
}

/// Longer than a datagram can be.
static PAYLOAD: [u8; 66_000] = [5; 66_000];

/// What an application does: answers as it is, answers changed, longer, or not at all; and sends
/// something of its own, which may be too long for one packet or have nowhere to go.
fn applications(host: &mut Host, socket: UdpSocketId, random: &mut Random) {
    let Host { stack, pool, now } = host;
    let now = *now;
    stack.udp_serve(socket, |stack, mut datagram| match random.below(4) {
        0 => stack.udp_release(pool, datagram),
        1 => stack.udp_discard(pool, datagram, DropReason::UdpNoReply),
        2 => {
            datagram.set_payload_len(random.below(3000) as usize);
            datagram.payload_mut().fill(7);
            let _ = stack.udp_reply(pool, datagram, now);
        }
        _ => {
            let _ = stack.udp_reply(pool, datagram, now);
        }
    });
    if random.below(4) > 0 {
        return;
    }
    let [last, to, port, _] = random.next().to_le_bytes();
    let local = match last & 15 {
        13 => PEER_V4,
        bits if bits & 1 == 0 => OUR_V4,
        _ => OWN_V4,
    };
    let remote = Ipv4Addr::new(192, 0, if to == 0 { 3 } else { 2 }, to);
    let (local_v6, mut remote_v6) = (
        if last & 1 == 0 { OUR_V6 } else { OWN_V6 },
        PEER_V6.octets(),
    );
    remote_v6[15] = to;
    let port = u16::from(port);
    let four = (v4(local, 7), v4(remote, port));
    let six = (v6(local_v6, 7), v6(remote_v6.into(), port));
    let (local, remote) = if last & 2 == 0 { four } else { six };
    let len = [10, 1400, 5000, PAYLOAD.len()][random.below(4) as usize];
    let to = SendTo {
        local,
        remote,
        tos: 0,
    };
    let _ = stack.udp_send(pool, to, &PAYLOAD[..len], now);
    let _ = stack.udp_take_error(socket);
}

#[test]
fn nothing_is_allocated_whatever_comes() {
    let mut host = Host::new(Config::default());
    host.stack = Stack::new(Config {
        neighbors: 16,
        egress_queue: 64,
        reassembly_bytes: 8 << 10,
        reassembly_datagrams: 4,
        reassembly_timeout: Duration::from_secs(1),
        announce: true,
        ..Config::default()
    });
    host.stack.set_link(Box::new(link()), host.now);
    let bind = |port| Bind {
        local: SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port),
        v6only: false,
    };
    let socket = host.stack.udp_bind(bind(7), 8).unwrap();
    host.stack.udp_bind_elsewhere(bind(9), 1).unwrap();
    // More than may wait for other workers.
    host.pool = HeapPool::new(1024, 2048);
    let corpus = corpus();
    let kinds = u32::try_from(corpus.len()).unwrap();
    let mut random = Random(1);
    let mut held = Vec::with_capacity(1024);

    let calls = allocations(|| {
        for round in 0..100_000 {
            let mut mutant = Mutant::of(&corpus[random.below(kinds) as usize]);
            if random.below(2) == 0 {
                mutant.mutate(&mut random);
                if random.below(8) > 0 {
                    mutant.repair();
                }
            }
            // Now and then there is no frame for anything.
            if round % 4096 == 0 {
                while let Some(frame) = host.pool.take() {
                    held.push(frame);
                }
            } else if round % 4096 == 64 {
                for frame in held.drain(..) {
                    host.pool.give(frame);
                }
            }
            let origin = if random.below(8) == 0 {
                Origin::Handoff { visited: 1 }
            } else {
                Origin::Ring
            };
            let frame = host.pool.receive(mutant.packet()).or_else(|| {
                let mut frame = held.pop()?;
                frame.set_len(mutant.len);
                frame.data_mut().copy_from_slice(mutant.packet());
                Some(frame)
            });
            if let Some(frame) = frame {
                host.stack.ingest(&mut host.pool, frame, origin, host.now);
            }
            if random.below(16) == 0 {
                applications(&mut host, socket, &mut random);
            }
            // The driver takes some or all of what there is, the other workers now and then.
            if random.below(64) == 0 {
                let (pool, mut room) = (&mut host.pool, random.below(64));
                host.stack.egress(|frame| {
                    if room == 0 {
                        return Err(frame);
                    }
                    room -= 1;
                    pool.give(frame);
                    Ok(())
                });
            }
            if random.below(8192) == 0 {
                while let Some((_, frame)) = host.stack.next_handoff() {
                    host.pool.give(frame);
                }
            }
            if random.below(64) == 0 {
                while host.stack.next_wanted_neighbor().is_some() {}
                let [a, b, ..] = random.next().to_le_bytes();
                let address = IpAddr::V4(Ipv4Addr::new(192, 0, 2, a));
                let mac: MacAddr = [2, 0, 0, 0, 1, b];
                let update = if b & 1 == 0 {
                    NeighborUpdate::Set { address, mac }
                } else {
                    NeighborUpdate::Remove { address }
                };
                host.stack.set_neighbor(&mut host.pool, update);
            }
            if random.below(8) == 0 {
                host.advance(random.below(100).into());
            }
        }
    });
    assert_eq!(calls, 0);

    let mut drops = host.stack.drops().clone();
    let mut events = host.stack.events().clone();
    tcp(&mut drops, &mut events);

    // Switched off, mended by the driver, or counted by the caller. And a connection that has ended is
    // not found any more, so its segments are of no connection.
    let cannot = [
        DropReason::TcpClosed.name(),
        DropReason::ReassemblyDisabled.name(),
        DropReason::UdpSocketClosed.name(),
        DropReason::FrameTooLong.name(),
    ];
    let never = drops.iter().filter(|(_, count)| *count == 0);
    let never = never.map(|(reason, _)| reason.name());
    let never: Vec<_> = never.filter(|name| !cannot.contains(name)).collect();
    assert_eq!(never, [""; 0], "reasons to drop that never occurred");
    // Counted by the caller.
    let cannot = [
        Event::HandoffTx.name(),
        Event::HandoffRx.name(),
        Event::TcpConnectFailed.name(),
    ];
    let never = events.iter().filter(|(_, count)| *count == 0);
    let never = never.map(|(event, _)| event.name());
    let never: Vec<_> = never.filter(|name| !cannot.contains(name)).collect();
    assert_eq!(never, [""; 0], "events that never occurred");
}

/// Conversations of all kinds over TCP, with large and small limits and all choices of options.
fn tcp(drops: &mut DropCounters, events: &mut EventCounters) {
    /// Bytes of a program: a few hundred steps.
    const PROGRAM_BYTES: usize = 4096;
    let mut random = Random(2);
    let mut program = [0; PROGRAM_BYTES];
    for _ in 0..1000 {
        let settings: [u8; SETTINGS_BYTES] =
            std::array::from_fn(|_| random.next().to_le_bytes()[0]);
        let mut world = World::new(&settings);
        for byte in &mut program {
            *byte = random.next().to_le_bytes()[0];
        }
        let calls = allocations(|| {
            world.steps(&mut Choices::new(&program));
            world.finish();
        });
        assert_eq!(calls, 0, "{settings:?}");
        drops.merge(world.stack.drops());
        events.merge(world.stack.events());
    }
}

#[test]
fn an_echo_allocates_nothing() {
    for vlans in [&[][..], &[7], &[7, 8]] {
        let vlans = ethernet::VlanIds::new(vlans).unwrap();
        let mut host = Host::new(Config {
            vlans,
            ..Config::default()
        });
        let socket = host.bind("[::]:7");
        for (from, to) in [
            (v4(PEER_V4, 4000), v4(OUR_V4, 7)),
            (v6(PEER_V6, 4000), v6(OUR_V6, 7)),
        ] {
            let mut packet = udp_packet(from, to, &[7; 64]);
            let ether_type = u16::from_be_bytes([packet[12], packet[13]]);
            packet.splice(12..14, vec![0; vlans.header_len() - 12]);
            ethernet::Repr {
                destination: OUR_MAC,
                source: PEER_MAC,
                vlans,
                ether_type,
            }
            .emit(&mut packet)
            .unwrap();
            let sent = host.stack.events().get(Event::FrameTx);
            let calls = allocations(|| {
                for _ in 0..1000 {
                    host.receive(&packet);
                    host.echo(socket);
                    let pool = &mut host.pool;
                    host.stack.egress(|frame| {
                        pool.give(frame);
                        Ok(())
                    });
                }
            });
            assert_eq!(calls, 0);
            assert_eq!(host.stack.events().get(Event::FrameTx), sent + 1000);
            let echoed = udp::HEADER_LEN + 64;
            assert_eq!(
                packet.len() % 2,
                echoed % 2,
                "nothing was added to the packet"
            );
        }
    }
}
