//! Datagrams in and out: both versions, dual stack, options, fragments, errors.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod support;

use stack::counters::{DropReason, Event};
use stack::frame::{Frame, FramePool, Stamps};
use stack::heap::HeapPool;
use stack::link::NeighborUpdate;
use stack::wire::{icmpv4, icmpv6, ipv4, ipv6, ndp, protocol};
use stack::{Config, Handoff, Origin};
use std::net::{IpAddr, SocketAddr};
use support::*;

fn v4(address: std::net::Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::new(address.into(), port)
}

fn v6(address: std::net::Ipv6Addr, port: u16) -> SocketAddr {
    SocketAddr::new(address.into(), port)
}

#[test]
fn an_echo_over_both_versions_goes_back_where_it_came_from() {
    let mut host = Host::new(Config::default());
    let socket = host.bind("[::]:7");
    for (from, to) in [
        (v4(PEER_V4, 4000), v4(OUR_V4, 7)),
        (v6(PEER_V6, 4000), v6(OUR_V6, 7)),
        (v4(PEER_V4, 4001), v4(OWN_V4, 7)),
        (v6(PEER_V6, 4001), v6(OWN_V6, 7)),
    ] {
        for len in [0, 1, 2, 63, 64, 65, 1400] {
            let payload: Vec<u8> = (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect();
            host.receive(&udp_packet(from, to, &payload));
            assert_eq!(host.echo(socket), 1);
            let sent = host.sent();
            assert_eq!(sent.len(), 1);
            assert_eq!(sent[0][..6], PEER_MAC);
            assert_eq!(read_udp(&sent[0]), (to, from, payload));
        }
    }
    assert_eq!(host.drops(), []);
    assert_eq!(host.pool.in_use(), 0);
}

#[test]
fn a_datagram_tells_who_sent_it_and_to_which_address() {
    let mut host = Host::new(Config::default());
    let socket = host.bind("[::]:7");
    for (from, to) in [
        (v4(PEER_V4, 4000), v4(OWN_V4, 7)),
        (v6(PEER_V6, 4001), v6(OWN_V6, 7)),
    ] {
        host.receive(&udp_packet(from, to, b"hello"));
        let mut datagram = host.stack.udp_recv(socket).unwrap();
        assert_eq!((datagram.remote(), datagram.local()), (from, to));
        assert_eq!(datagram.ports(), (from.port(), to.port()));
        assert_eq!(datagram.payload(), b"hello");
        assert_eq!(datagram.set_payload_len(7), 7);
        datagram.payload_mut().copy_from_slice(b"goodbye");
        host.stack
            .udp_reply(&mut host.pool, datagram, host.now)
            .unwrap();
        assert_eq!(read_udp(&host.sent()[0]), (to, from, b"goodbye".to_vec()));
    }
}

#[test]
fn a_socket_is_served_at_once_oldest_first() {
    let mut host = Host::new(Config::default());
    let socket = host.bind("[::]:7");
    for round in 0..3u8 {
        for n in 0..5 {
            host.receive(&udp_packet(v4(PEER_V4, 1), v4(OUR_V4, 7), &[round, n]));
        }
        // One by one and all at once, mixed.
        let first = host.stack.udp_recv(socket).unwrap();
        assert_eq!(first.payload(), [round, 0]);
        host.stack.udp_release(&mut host.pool, first);
        host.receive(&udp_packet(v6(PEER_V6, 1), v6(OUR_V6, 7), &[round, 5]));
        let (pool, now, mut served) = (&mut host.pool, host.now, Vec::new());
        let count = host.stack.udp_serve(socket, |stack, datagram| {
            served.push(datagram.payload().to_vec());
            stack.udp_reply(pool, datagram, now).unwrap();
        });
        assert_eq!(count, 5);
        assert_eq!(served, (1..6).map(|n| vec![round, n]).collect::<Vec<_>>());
        assert_eq!(host.stack.udp_recv_len(socket), 0);
        let sent: Vec<_> = host
            .sent()
            .iter()
            .map(|packet| read_udp(packet).2)
            .collect();
        assert_eq!(sent, served);
    }
    assert_eq!(host.pool.in_use(), 0);
}

#[test]
fn a_socket_closed_while_it_is_served_stays_closed() {
    let mut host = Host::new(Config::default());
    let socket = host.bind("0.0.0.0:7");
    for _ in 0..3 {
        host.receive(&udp_packet(v4(PEER_V4, 1), v4(OUR_V4, 7), b"x"));
    }
    let pool = &mut host.pool;
    let served = host.stack.udp_serve(socket, |stack, datagram| {
        stack.udp_release(pool, datagram);
        stack.udp_close(pool, socket);
    });
    assert_eq!(served, 3);
    assert_eq!(host.stack.udp_serve(socket, |_, _| panic!("closed")), 0);
    host.receive(&udp_packet(v4(PEER_V4, 1), v4(OUR_V4, 7), b"x"));
    let again = host.bind("0.0.0.0:7");
    assert!(host.stack.udp_recv(again).is_none());
    assert_eq!(host.pool.in_use(), 0);
}

#[test]
fn the_checksum_of_a_reply_is_right_whatever_the_requests_was() {
    let mut host = Host::new(Config::default());
    let socket = host.bind("0.0.0.0:7");
    for len in 0..70 {
        let payload: Vec<u8> = (1..).take(len).collect();
        let mut packet = udp_packet(v4(PEER_V4, 4000), v4(OUR_V4, 7), &payload);
        // As it came; changed; and without a checksum, which RFC 768 allows.
        for change in [false, true] {
            host.receive(&packet);
            host.stack.udp_serve(socket, |stack, mut datagram| {
                if change {
                    datagram.payload_mut().fill(0xa5);
                }
                stack.udp_reply(&mut host.pool, datagram, host.now).unwrap();
            });
            let expected = if change {
                vec![0xa5; len]
            } else {
                payload.clone()
            };
            assert_eq!(read_udp(&host.sent()[0]).2, expected);
        }
        packet[40..42].fill(0);
        host.receive(&packet);
        assert_eq!(host.echo(socket), 1);
        assert_eq!(read_udp(&host.sent()[0]).2, payload);
    }
}

#[test]
fn v6only_and_v4_sockets_share_a_port_and_get_their_own() {
    let mut host = Host::new(Config::default());
    let bind = stack::socket::bind::Bind {
        local: "[::]:7".parse().unwrap(),
        v6only: true,
    };
    let six = host.stack.udp_bind(bind, 4).unwrap();
    let four = host.bind("0.0.0.0:7");
    host.receive(&udp_packet(v4(PEER_V4, 1), v4(OUR_V4, 7), b"4"));
    host.receive(&udp_packet(v6(PEER_V6, 1), v6(OUR_V6, 7), b"6"));
    for (socket, payload) in [(four, b"4"), (six, b"6")] {
        let datagram = host.stack.udp_recv(socket).unwrap();
        assert_eq!(datagram.payload(), payload);
        host.stack.udp_release(&mut host.pool, datagram);
        assert!(host.stack.udp_recv(socket).is_none());
    }
}

#[test]
fn ip_options_and_extension_headers_are_not_echoed() {
    let mut host = Host::new(Config::default());
    let socket = host.bind("[::]:7");
    // IPv4: four NOPs in front of the datagram.
    let (from, to) = (v4(PEER_V4, 4000), v4(OUR_V4, 7));
    let mut packet = udp_packet(from, to, b"with options");
    packet.splice(34..34, [1, 1, 1, 1]);
    packet[14] = 0x46;
    packet[17] += 4;
    packet[24..26].fill(0);
    let sum = stack::wire::checksum::Sum::ZERO
        .add_bytes(&packet[14..38])
        .checksum();
    packet[24..26].copy_from_slice(&sum);
    host.receive(&packet);
    assert_eq!(host.echo(socket), 1);
    assert_eq!(
        read_udp(&host.sent()[0]),
        (to, from, b"with options".to_vec())
    );

    // IPv6: destination options with padding.
    let (from, to) = (v6(PEER_V6, 4000), v6(OUR_V6, 7));
    let mut message = vec![protocol::UDP, 0, 1, 4, 0, 0, 0, 0];
    message.extend(udp_segment(from, to, b"with options"));
    host.receive(&ip_packet(
        from.ip(),
        to.ip(),
        protocol::DESTINATION_OPTIONS,
        &message,
    ));
    assert_eq!(host.echo(socket), 1);
    assert_eq!(
        read_udp(&host.sent()[0]),
        (to, from, b"with options".to_vec())
    );
    assert_eq!(host.pool.in_use(), 0);
}

#[test]
fn padding_behind_a_short_datagram_is_not_echoed() {
    let mut host = Host::new(Config::default());
    let socket = host.bind("0.0.0.0:7");
    let mut packet = udp_packet(v4(PEER_V4, 4000), v4(OUR_V4, 7), b"x");
    packet.resize(60, 0xee);
    host.receive(&packet);
    assert_eq!(host.echo(socket), 1);
    let sent = host.sent();
    assert_eq!(sent[0].len(), 14 + 20 + 8 + 1);
    assert_eq!(read_udp(&sent[0]).2, b"x");
}

/// The peer's fragments of a datagram, `room` bytes of payload each.
fn fragments(from: SocketAddr, to: SocketAddr, payload: &[u8], room: usize) -> Vec<Vec<u8>> {
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
fn defragment(packets: &[Vec<u8>]) -> Vec<u8> {
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

#[test]
fn fragmented_datagrams_are_echoed_in_fragments() {
    let mut host = Host::new(Config::default());
    let socket = host.bind("[::]:7");
    for (from, to) in [
        (v4(PEER_V4, 4000), v4(OUR_V4, 7)),
        (v6(PEER_V6, 4000), v6(OUR_V6, 7)),
    ] {
        for len in [1473, 3000, 9000, 60_000] {
            let payload: Vec<u8> = (0..len).map(|i| u8::try_from(i % 253).unwrap()).collect();
            let mut pieces = fragments(from, to, &payload, 1400);
            pieces.reverse();
            for piece in &pieces {
                host.receive(piece);
            }
            assert_eq!(host.echo(socket), 1, "{len} bytes");
            let sent = host.sent();
            assert!(sent.len() > 1);
            let segment = defragment(&sent);
            assert_eq!(segment, udp_segment(to, from, &payload));
        }
    }
    assert_eq!(host.drops(), []);
    assert_eq!(host.pool.in_use(), 0);
    assert_eq!(host.stack.events().get(Event::DatagramReassembled), 8);
}

/// Which service a datagram in pieces is for shows when it is whole, and then it no longer fits a frame.
#[test]
fn a_datagram_in_pieces_for_another_worker_goes_there_in_pieces() {
    let bind = stack::socket::bind::Bind {
        local: "[::]:7".parse().unwrap(),
        v6only: false,
    };
    let stamps = Stamps {
        arrival_ns: 5,
        taken_ns: 6,
    };
    for (from, to) in [
        (v4(PEER_V4, 4000), v4(OUR_V4, 7)),
        (v6(PEER_V6, 4000), v6(OUR_V6, 7)),
    ] {
        for len in [100, 3000, 60_000] {
            let [mut one, mut other] = [0, 1].map(|_| Host::new(Config::default()));
            one.stack.udp_bind_elsewhere(bind, 3).unwrap();
            let socket = other.bind("[::]:7");
            let payload: Vec<u8> = (0..len).map(|i| u8::try_from(i % 253).unwrap()).collect();
            for piece in fragments(from, to, &payload, 1400.min((len / 2) & !7)) {
                let mut frame = one.pool.receive(&with_tos(&piece, 0xba)).unwrap();
                frame.set_stamps(stamps);
                let (stack, pool) = (&mut one.stack, &mut one.pool);
                stack.ingest(pool, frame, Origin::Ring, one.now);
            }
            let mut flows = Vec::new();
            while let Some((handoff, frame)) = one.stack.next_handoff() {
                flows.push(handoff);
                let mut copy = other.pool.receive(frame.data()).unwrap();
                copy.set_stamps(frame.stamps());
                one.pool.give(frame);
                let (stack, pool) = (&mut other.stack, &mut other.pool);
                stack.ingest(pool, copy, Origin::Handoff, other.now);
            }
            assert!(matches!(flows[0], Handoff::Service { tag: 3, .. }));
            assert!(flows.iter().all(|flow| *flow == flows[0]), "to one worker");
            let datagram = other.stack.udp_recv(socket).unwrap();
            assert_eq!((datagram.remote(), datagram.local()), (from, to));
            assert_eq!((datagram.tos(), datagram.stamps()), (0xba, stamps));
            assert_eq!(datagram.payload(), payload);
            let (stack, pool) = (&mut other.stack, &mut other.pool);
            stack.udp_reply(pool, datagram, other.now).unwrap();
            let sent = other.sent();
            assert!(sent.iter().all(|packet| packet[..6] == PEER_MAC));
            for host in [&one, &other] {
                assert_eq!(host.drops(), []);
                assert_eq!(host.pool.in_use(), 0);
            }
        }
    }
}

/// Half a datagram is worth nothing to the other worker.
#[test]
fn a_datagram_in_pieces_for_another_worker_goes_whole_or_not_at_all() {
    let bind = stack::socket::bind::Bind {
        local: "[::]:7".parse().unwrap(),
        v6only: false,
    };
    let (from, to) = (v4(PEER_V4, 4000), v4(OUR_V4, 7));
    let pieces = fragments(from, to, &[1; 60_000], 1400);
    let handed = |host: &mut Host| {
        let mut count = 0;
        while let Some((_, frame)) = host.stack.next_handoff() {
            host.pool.give(frame);
            count += 1;
        }
        count
    };
    // Too few frames.
    let mut host = Host::new(Config::default());
    host.pool = HeapPool::new(8, 2048);
    host.stack.udp_bind_elsewhere(bind, 3).unwrap();
    for piece in &pieces {
        host.receive(piece);
    }
    assert_eq!(host.drops(), [("tx_no_frame", 1)]);
    assert_eq!((handed(&mut host), host.pool.in_use()), (0, 0));
    // Nobody takes what is handed over: the last of several finds no room.
    let mut host = Host::new(Config::default());
    host.pool = HeapPool::new(512, 2048);
    host.stack.udp_bind_elsewhere(bind, 3).unwrap();
    for piece in pieces.iter().cycle().take(pieces.len() * 9) {
        host.receive(piece);
    }
    let whole = 256 / 30;
    assert_eq!(host.drops(), [("handoff_full", 9 - whole)]);
    assert_eq!((handed(&mut host), host.pool.in_use()), (whole * 30, 0));
    // Where nobody serves it after all, it ends.
    host.receive(&pieces[0]);
    for piece in &pieces[1..] {
        let frame = host.pool.receive(piece).unwrap();
        let (stack, pool) = (&mut host.stack, &mut host.pool);
        stack.ingest(pool, frame, Origin::Handoff, host.now);
    }
    assert_eq!(host.stack.drops().get(DropReason::UdpNoSocket), 1);
    assert_eq!((handed(&mut host), host.pool.in_use()), (0, 0));
}

#[test]
fn a_datagram_that_stays_incomplete_is_reported_to_its_sender() {
    let mut host = Host::new(Config::default());
    host.bind("[::]:7");
    for (from, to) in [
        (v4(PEER_V4, 4000), v4(OUR_V4, 7)),
        (v6(PEER_V6, 4000), v6(OUR_V6, 7)),
    ] {
        let pieces = fragments(from, to, &[1; 3000], 1400);
        host.receive(&pieces[0]);
        host.advance(29_000);
        assert!(host.sent().is_empty());
        host.advance(2_000);
        let sent = host.sent();
        assert_eq!(sent.len(), 1);
        let (_, _, kind, message) = read_ip(&sent[0]);
        let expected = if from.is_ipv4() {
            (protocol::ICMPV4, icmpv4::kind::TIME_EXCEEDED)
        } else {
            (protocol::ICMPV6, icmpv6::kind::TIME_EXCEEDED)
        };
        assert_eq!((kind, message[0], message[1]), (expected.0, expected.1, 1));
    }
    assert_eq!(host.stack.drops().get(DropReason::FragmentTimeout), 2);
}

/// The packet with another type of service or traffic class.
fn with_tos(packet: &[u8], tos: u8) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[12..14] == [0x08, 0x00] {
        packet[15] = tos;
        packet[24..26].fill(0);
        let sum = stack::wire::checksum::Sum::ZERO.add_bytes(&packet[14..34]);
        packet[24..26].copy_from_slice(&sum.checksum());
    } else {
        packet[14] = 0x60 | (tos >> 4);
        packet[15] = (packet[15] & 0x0f) | (tos << 4);
    }
    packet
}

/// RFC 3168 §5.3: DSCP comes from the first piece, whichever comes last; congestion from any of them.
#[test]
fn a_reassembled_datagram_has_the_first_pieces_dscp_and_everybodys_ecn() {
    let (af41, ef) = (0x88, 0xb8);
    let (not_ect, ect, ce) = (0, 2, 3);
    for (from, to) in [
        (v4(PEER_V4, 4000), v4(OUR_V4, 7)),
        (v6(PEER_V6, 4000), v6(OUR_V6, 7)),
    ] {
        for (first, second, expected) in [
            (not_ect, not_ect, Some(not_ect)),
            (ect, ect, Some(ect)),
            (ect, ce, Some(ce)),
            (ce, ect, Some(ce)),
            (not_ect, ect, None),
            (ce, not_ect, None),
        ] {
            let mut host = Host::new(Config::default());
            let socket = host.bind("[::]:7");
            let pieces = fragments(from, to, &[1; 2000], 1400);
            host.receive(&with_tos(&pieces[1], ef | second));
            host.receive(&with_tos(&pieces[0], af41 | first));
            let datagram = host.stack.udp_recv(socket);
            let tos = datagram.as_ref().map(|datagram| datagram.tos());
            assert_eq!(tos, expected.map(|ecn| af41 | ecn), "{first} {second}");
            let refused = host.stack.drops().get(DropReason::FragmentEcn);
            assert_eq!(refused, u64::from(expected.is_none()));
            if let Some(datagram) = datagram {
                host.stack.udp_release(&mut host.pool, datagram);
            }
            // The other way round the last piece to come is not the first one either.
            host.receive(&with_tos(&pieces[0], af41 | first));
            host.receive(&with_tos(&pieces[1], ef | second));
            let datagram = host.stack.udp_recv(socket);
            let tos = datagram.as_ref().map(|datagram| datagram.tos());
            assert_eq!(tos, expected.map(|ecn| af41 | ecn), "{first} {second}");
        }
    }
}

/// RFC 1122 §3.2.2.1, RFC 8200 §4: also when it came in pieces.
#[test]
fn a_protocol_that_nobody_speaks_is_refused_in_pieces_as_well() {
    let sctp = 132;
    for (from, to) in [
        (v4(PEER_V4, 0), v4(OWN_V4, 0)),
        (v6(PEER_V6, 0), v6(OWN_V6, 0)),
        (v4(PEER_V4, 0), v4(OUR_V4, 0)),
        (v6(PEER_V6, 0), v6(OUR_V6, 0)),
    ] {
        let mut host = Host::new(Config::default());
        for mut piece in fragments(from, to, &[1; 2000], 1400) {
            let at = if from.is_ipv4() { 14 + 9 } else { 14 + 40 };
            piece[at] = sctp;
            host.receive(&with_tos(&piece, 0));
        }
        assert_eq!(host.drops(), [("ip_protocol_unknown", 1)]);
        let sent = host.sent();
        if to.ip() == IpAddr::V4(OUR_V4) || to.ip() == IpAddr::V6(OUR_V6) {
            assert!(sent.is_empty(), "the kernel may speak it");
            continue;
        }
        let (source, destination, protocol, message) = read_ip(&sent[0]);
        assert_eq!((source, destination), (to.ip(), from.ip()));
        if from.is_ipv4() {
            let unreachable = [icmpv4::kind::UNREACHABLE, icmpv4::unreachable::PROTOCOL];
            assert_eq!(
                (protocol, &message[..2]),
                (protocol::ICMPV4, &unreachable[..])
            );
        } else {
            // It points to the next header field of the datagram it quotes.
            assert_eq!(protocol, protocol::ICMPV6);
            assert_eq!(message[..8], [4, 1, message[2], message[3], 0, 0, 0, 6]);
            assert_eq!(message[8 + 6], sctp);
        }
    }
}

#[test]
fn overlapping_fragments_kill_the_datagram() {
    let mut host = Host::new(Config::default());
    let socket = host.bind("[::]:7");
    let (from, to) = (v6(PEER_V6, 4000), v6(OUR_V6, 7));
    let pieces = fragments(from, to, &[1; 3000], 1400);
    let other = fragments(from, to, &[1; 3000], 800);
    host.receive(&pieces[0]);
    host.receive(&other[1]);
    host.receive(&pieces[1]);
    host.receive(&pieces[2]);
    assert_eq!(host.echo(socket), 0);
    assert!(host.stack.drops().get(DropReason::FragmentOverlap) > 0);
}

#[test]
fn what_lies_is_dropped_for_its_reason() {
    let (from, to) = (v4(PEER_V4, 4000), v4(OUR_V4, 7));
    let good = udp_packet(from, to, b"hello");
    let good6 = udp_packet(v6(PEER_V6, 4000), v6(OUR_V6, 7), b"hello");
    let reason = |packet: Vec<u8>| {
        let mut host = Host::new(Config::default());
        host.bind("[::]:7");
        host.receive(&packet);
        assert!(host.sent().is_empty());
        assert_eq!(host.pool.in_use(), 0);
        host.drops()
    };
    let changed = |packet: &[u8], at: usize, byte: u8| {
        let mut packet = packet.to_vec();
        packet[at] = byte;
        packet
    };
    assert_eq!(reason(good[..10].to_vec()), [("ethernet_truncated", 1)]);
    assert_eq!(reason(changed(&good, 5, 9)), [("ethernet_not_for_us", 1)]);
    assert_eq!(reason(changed(&good, 12, 9)), [("ethertype_unknown", 1)]);
    assert_eq!(reason(good[..30].to_vec()), [("ipv4_truncated", 1)]);
    assert_eq!(reason(good[..40].to_vec()), [("ipv4_total_length", 1)]);
    assert_eq!(reason(changed(&good, 22, 63)), [("ipv4_checksum", 1)]);
    assert_eq!(reason(changed(&good, 44, b'x')), [("udp_checksum", 1)]);
    assert_eq!(reason(changed(&good, 39, 99)), [("udp_length", 1)]);
    assert_eq!(reason(changed(&good6, 14 + 47, 0)), [("udp_checksum", 1)]);
    assert_eq!(
        reason(changed(&good6, 14 + 5, 99)),
        [("ipv6_payload_length", 1)]
    );
    let mut tagged = good.clone();
    tagged.splice(12..12, [0x81, 0, 0, 5]);
    assert_eq!(reason(tagged), [("vlan_mismatch", 1)]);
    let mut bare = good6;
    bare[60..62].fill(0);
    assert_eq!(reason(bare), [("udp_checksum_missing", 1)]);
    let from_loopback = udp_packet(v4("127.0.0.1".parse().unwrap(), 1), to, b"x");
    assert_eq!(reason(from_loopback), [("ipv4_source_invalid", 1)]);
    let from_broadcast = udp_packet(v4("192.0.2.255".parse().unwrap(), 1), to, b"x");
    assert_eq!(reason(from_broadcast), [("ipv4_source_invalid", 1)]);
    let not_ours = udp_packet(from, v4("192.0.2.77".parse().unwrap(), 7), b"x");
    assert_eq!(reason(not_ours), [("ip_not_local", 1)]);
}

/// RFC 1122 §3.3.6: nor is it answered.
#[test]
fn a_packet_for_us_alone_in_a_frame_for_everybody_is_dropped() {
    let mut ping = vec![0; 8];
    icmpv4::emit(&mut ping, 0, icmpv4::kind::ECHO_REQUEST, 0, [0; 4], 0).unwrap();
    let mut ping6 = vec![0; 8];
    let ends = (PEER_V6, OWN_V6);
    icmpv6::emit(
        &mut ping6,
        0,
        ends,
        (icmpv6::kind::ECHO_REQUEST, 0),
        [0; 4],
        0,
    )
    .unwrap();
    let (own, own6): (IpAddr, IpAddr) = (OWN_V4.into(), OWN_V6.into());
    let (peer, peer6): (IpAddr, IpAddr) = (PEER_V4.into(), PEER_V6.into());
    let solicitation = ndp::Repr::Solicitation {
        target: OWN_V6,
        source_mac: Some(PEER_MAC),
    };
    let mut ask = vec![0; ndp::LEN_WITH_OPTION];
    solicitation.emit(&mut ask, 0, PEER_V6, OWN_V6).unwrap();
    let mut ask = ip_packet(peer6, own6, protocol::ICMPV6, &ask);
    ask[14 + 7] = ndp::HOP_LIMIT;
    let packets = [
        udp_packet(v4(PEER_V4, 4000), v4(OWN_V4, 7), b"x"),
        udp_packet(v6(PEER_V6, 4000), v6(OWN_V6, 7), b"x"),
        udp_packet(v4(PEER_V4, 4000), v4(OWN_V4, 9), b"nobody"),
        udp_packet(v6(PEER_V6, 4000), v6(OWN_V6, 9), b"nobody"),
        ip_packet(peer, own, protocol::ICMPV4, &ping),
        ip_packet(peer6, own6, protocol::ICMPV6, &ping6),
        ask,
    ];
    for group in [[0xff; 6], [0x33, 0x33, 0, 0, 0, 1], [1, 0, 0x5e, 0, 0, 1]] {
        for mut packet in packets.clone() {
            let mut host = Host::new(Config::default());
            let socket = host.bind("[::]:7");
            packet[..6].copy_from_slice(&group);
            host.receive(&packet);
            assert_eq!(host.drops(), [("ip_in_group_frame", 1)], "{packet:02x?}");
            assert_eq!(host.echo(socket), 0);
            assert!(host.sent().is_empty());
        }
        // What is for everybody is for nobody here.
        let mut host = Host::new(Config::default());
        host.bind("[::]:7");
        for address in ["192.0.2.255", "255.255.255.255", "224.0.0.1", "ff02::1"] {
            let address: IpAddr = address.parse().unwrap();
            let from = if address.is_ipv4() { peer } else { peer6 };
            let (from, to) = (SocketAddr::new(from, 4000), SocketAddr::new(address, 7));
            let mut packet = udp_packet(from, to, b"x");
            packet[..6].copy_from_slice(&group);
            host.receive(&packet);
        }
        assert_eq!(host.drops(), [("ip_not_local", 4)]);
        assert!(host.sent().is_empty());
    }
}

/// RFC 768: a sender that wants no reply may leave its port open.
#[test]
fn a_datagram_without_a_source_port_is_delivered_and_not_answered() {
    for (from, to) in [
        (v4(PEER_V4, 0), v4(OUR_V4, 7)),
        (v6(PEER_V6, 0), v6(OUR_V6, 7)),
    ] {
        let mut host = Host::new(Config::default());
        let socket = host.bind("[::]:7");
        // So that the next hop is known, and the short way open.
        host.receive(&udp_packet(SocketAddr::new(from.ip(), 1), to, b"x"));
        assert_eq!(host.echo(socket), 1);
        let whole = udp_packet(from, to, b"hello");
        for packets in [vec![whole], fragments(from, to, &[1; 3000], 1400)] {
            for packet in packets {
                host.receive(&packet);
            }
            let datagram = host.stack.udp_recv(socket).unwrap();
            assert_eq!((datagram.remote(), datagram.local()), (from, to));
            assert_eq!(datagram.ports(), (0, 7));
            let result = host.stack.udp_reply(&mut host.pool, datagram, host.now);
            assert_eq!(result, Err(stack::SendError(DropReason::UdpPortZero)));
        }
        assert_eq!(host.drops(), [("udp_port_zero", 2)]);
        assert_eq!(host.sent().len(), 1);
        assert_eq!(host.pool.in_use(), 0);
    }
}

#[test]
fn incomplete_checksums_are_named_and_accepted_only_when_configured() {
    for (from, to) in [
        (v4(PEER_V4, 4000), v4(OUR_V4, 7)),
        (v6(PEER_V6, 4000), v6(OUR_V6, 7)),
    ] {
        let mut packet = udp_packet(from, to, b"hello");
        let at = packet.len() - 5 - 2;
        let partial = pseudo(from.ip(), to.ip(), protocol::UDP, 13).incomplete();
        packet[at..at + 2].copy_from_slice(&partial);

        let mut strict = Host::new(Config::default());
        let socket = strict.bind("[::]:7");
        strict.receive(&packet);
        assert_eq!(strict.echo(socket), 0);
        assert_eq!(strict.drops(), [("udp_checksum_incomplete", 1)]);

        let mut lenient = Host::new(Config {
            accept_incomplete_checksums: true,
            ..Config::default()
        });
        let socket = lenient.bind("[::]:7");
        lenient.receive(&packet);
        assert_eq!(lenient.echo(socket), 1);
        assert_eq!(read_udp(&lenient.sent()[0]).2, b"hello");
        assert_eq!(
            lenient
                .stack
                .events()
                .get(Event::ChecksumIncompleteAccepted),
            1
        );
    }
}

#[test]
fn a_full_queue_drops_and_counts() {
    let mut host = Host::new(Config::default());
    let socket = host.bind("0.0.0.0:7");
    for _ in 0..20 {
        host.receive(&udp_packet(v4(PEER_V4, 4000), v4(OUR_V4, 7), b"x"));
    }
    assert_eq!(host.drops(), [("udp_queue_full", 4)]);
    assert_eq!(host.echo(socket), 16);
    host.sent();
    assert_eq!(host.pool.in_use(), 0);
}

#[test]
fn an_unknown_neighbour_is_asked_for_and_the_answer_goes_to_the_sender_meanwhile() {
    let mut host = Host::new(Config::default());
    let socket = host.bind("0.0.0.0:7");
    let stranger = v4("192.0.2.50".parse().unwrap(), 4000);
    host.receive(&udp_packet(stranger, v4(OUR_V4, 7), b"x"));
    assert_eq!(host.echo(socket), 1);
    assert_eq!(host.sent()[0][..6], PEER_MAC);
    assert_eq!(host.stack.next_wanted_neighbor(), Some(stranger.ip()));
    assert_eq!(host.stack.next_wanted_neighbor(), None);

    let mac = [2, 0, 0, 0, 0, 50];
    let known = NeighborUpdate::Set {
        address: stranger.ip(),
        mac,
    };
    host.stack.set_neighbor(&mut host.pool, known);
    host.receive(&udp_packet(stranger, v4(OUR_V4, 7), b"x"));
    assert_eq!(host.echo(socket), 1);
    assert_eq!(host.sent()[0][..6], mac);
}

/// RFC 3493 §3.7: a dual-stack socket says mapped addresses for IPv4, and one of IPv6 alone has no way
/// there.
#[test]
fn mapped_addresses_are_for_dual_stack_sockets() {
    let mapped = |address: std::net::Ipv4Addr, port| v6(address.to_ipv6_mapped(), port);
    let bind = |local: &str, v6only| stack::socket::bind::Bind {
        local: local.parse().unwrap(),
        v6only,
    };
    let mut host = Host::new(Config::default());
    for bind in [
        bind("[::]:7", false),
        bind("[::ffff:192.0.2.9]:8", false),
        bind("[::]:9", true),
        bind("0.0.0.0:10", false),
    ] {
        host.stack.udp_bind(bind, 1).unwrap();
    }
    let mut send = |local, remote| {
        let to = stack::SendTo {
            local,
            remote,
            tos: 0,
        };
        let result = host.stack.udp_send(&mut host.pool, to, b"x", host.now);
        let sent = host.sent();
        assert_eq!(sent.len(), usize::from(result.is_ok()));
        match result {
            Ok(()) => Ok(read_udp(&sent[0])),
            Err(stack::SendError(reason)) => Err(reason.name()),
        }
    };
    let peer = v4(PEER_V4, 4000);
    let sent = |local| Ok((local, peer, b"x".to_vec()));
    let far = mapped(PEER_V4, 4000);
    assert_eq!(send(mapped(OUR_V4, 7), far), sent(v4(OUR_V4, 7)));
    assert_eq!(send(v4(OUR_V4, 7), far), sent(v4(OUR_V4, 7)));
    assert_eq!(send(mapped(OWN_V4, 7), peer), sent(v4(OWN_V4, 7)));
    assert_eq!(send(mapped(OWN_V4, 8), far), sent(v4(OWN_V4, 8)));
    // From an address of IPv6; where nobody is; of IPv6 alone; of IPv4 alone.
    for local in [
        v6(OUR_V6, 7),
        mapped(OUR_V4, 8),
        mapped(OUR_V4, 9),
        mapped(OUR_V4, 10),
    ] {
        assert_eq!(send(local, far), Err("tx_no_route"), "{local}");
    }
}

/// What the kernel knows is never given up, and what then finds no room says so.
#[test]
fn a_table_full_of_the_kernels_neighbours_is_told_and_answers_go_out_all_the_same() {
    // The two that the host knows.
    let mut host = Host::new(Config {
        neighbors: 1,
        ..Config::default()
    });
    let socket = host.bind("[::]:7");
    for (stranger, ours) in [
        (v4("192.0.2.50".parse().unwrap(), 4000), v4(OUR_V4, 7)),
        (v6("2001:db8::50".parse().unwrap(), 4000), v6(OWN_V6, 7)),
    ] {
        host.receive(&udp_packet(stranger, ours, b"x"));
        assert_eq!(host.echo(socket), 1);
        for piece in fragments(stranger, ours, &[1; 3000], 1400) {
            host.receive(&piece);
        }
        assert_eq!(host.echo(socket), 1);
        let sent = host.sent();
        assert_eq!(sent.len(), 4);
        assert!(sent.iter().all(|packet| packet[..6] == PEER_MAC));
        assert_eq!(host.drops(), []);
    }
    let to = stack::SendTo {
        local: v4(OUR_V4, 7),
        remote: v4("192.0.2.50".parse().unwrap(), 4000),
        tos: 0,
    };
    let result = host.stack.udp_send(&mut host.pool, to, b"x", host.now);
    let reason = DropReason::TxNeighborTableFull;
    assert_eq!(result, Err(stack::SendError(reason)));
    assert_eq!(host.drops(), [(reason.name(), 1)]);
    assert_eq!(host.pool.in_use(), 0);
    // The kernel gives one up, and there is room.
    let gone = NeighborUpdate::Remove {
        address: PEER_V4.into(),
    };
    host.stack.set_neighbor(&mut host.pool, gone);
    host.stack
        .udp_send(&mut host.pool, to, b"x", host.now)
        .unwrap();
    assert_eq!(host.stack.next_wanted_neighbor(), Some(to.remote.ip()));
}

/// The kernel does not see our packets: it is told every 15 s which neighbours are in use, however many
/// share a place among the cached next hops, and however often it speaks of them itself.
#[test]
fn the_kernel_is_asked_to_look_after_every_neighbour_in_use() {
    let mut host = Host::new(Config::default());
    let socket = host.bind("[::]:7");
    let peer = |n: u16| {
        let [high, low] = n.to_be_bytes();
        let v4 = IpAddr::from([192, 0, 2, low]);
        let v6 = IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 1, 0, 0, n));
        ([2, 0, 0, 1, high, low], if n < 60 { v4 } else { v6 })
    };
    let mut asked = std::collections::BTreeMap::new();
    for second in 0..=50 {
        for n in 20..320 {
            let (mac, address) = peer(n);
            // The kernel repeats itself.
            if second % 5 == 0 {
                let known = NeighborUpdate::Set { address, mac };
                host.stack.set_neighbor(&mut host.pool, known);
            }
            let to: IpAddr = if address.is_ipv4() {
                OUR_V4.into()
            } else {
                OUR_V6.into()
            };
            let (from, to) = (SocketAddr::new(address, 4000), SocketAddr::new(to, 7));
            host.receive(&udp_packet(from, to, b"x"));
            assert_eq!(host.echo(socket), 1);
            assert_eq!(host.sent()[0][..6], mac);
            // Now and then nobody listens.
            if n % 100 == 0 {
                while let Some(wanted) = host.stack.next_wanted_neighbor() {
                    asked.entry(wanted).or_insert(Vec::new()).push(second);
                }
            }
        }
        host.advance(1000);
    }
    assert_eq!(asked.len(), 300);
    for (address, seconds) in asked {
        assert_eq!(seconds.len(), 3, "{address}: {seconds:?}");
    }
}

/// Only one packet may wait for a neighbour, and a datagram in fragments is several.
#[test]
fn an_answer_in_fragments_goes_to_the_sender_while_the_neighbour_is_unknown() {
    let mut host = Host::new(Config::default());
    let socket = host.bind("[::]:7");
    let strangers = [
        (v4("192.0.2.50".parse().unwrap(), 4000), v4(OUR_V4, 7)),
        (v6("2001:db8::50".parse().unwrap(), 4000), v6(OUR_V6, 7)),
    ];
    for (from, to) in strangers {
        for piece in fragments(from, to, &[1; 3000], 1400) {
            host.receive(&piece);
        }
        assert_eq!(host.echo(socket), 1);
        let sent = host.sent();
        assert!(sent.iter().all(|packet| packet[..6] == PEER_MAC));
        assert_eq!(defragment(&sent), udp_segment(to, from, &[1; 3000]));
        assert_eq!(host.stack.next_wanted_neighbor(), Some(from.ip()));
    }
    assert_eq!(host.drops(), []);
}

#[test]
fn a_packet_too_big_lowers_the_path_mtu_of_both_versions() {
    let mut host = Host::new(Config::default());
    let socket = host.bind("[::]:7");
    for (peer, ours, mtu) in [
        (v4(PEER_V4, 4000), v4(OUR_V4, 7), 1000),
        (v6(PEER_V6, 4000), v6(OUR_V6, 7), 1300),
    ] {
        let payload = [5; 1400];
        let request = udp_packet(peer, ours, &payload);
        host.receive(&request);
        assert_eq!(host.echo(socket), 1);
        let reply = host.sent().remove(0);
        let router: IpAddr = if peer.is_ipv4() {
            PEER_V4.into()
        } else {
            PEER_V6.into()
        };
        let quoted = &reply[14..14 + 100];
        let message = too_big(router, ours.ip(), mtu, quoted);
        host.receive(&message);
        assert_eq!(
            host.stack.events().get(Event::PathMtuLearned),
            if peer.is_ipv4() { 1 } else { 2 }
        );
        host.receive(&request);
        assert_eq!(host.echo(socket), 1);
        let sent = host.sent();
        assert_eq!(sent.len(), 2);
        assert!(
            sent.iter()
                .all(|packet| packet.len() <= 14 + usize::from(mtu))
        );
        let error = host.stack.udp_take_error(socket).unwrap();
        assert_eq!(error.remote, peer);
    }
    assert_eq!(host.drops(), []);
}

/// Who forges one can say what he likes about our packet, but not about our link.
#[test]
fn a_packet_too_big_that_makes_no_sense_changes_nothing() {
    for (peer, ours, mtus) in [
        (v4(PEER_V4, 4000), v4(OUR_V4, 7), &[1501, 9000][..]),
        (v6(PEER_V6, 4000), v6(OUR_V6, 7), &[1501, 9000, 1279, 0]),
    ] {
        let mut host = Host::new(Config::default());
        let socket = host.bind("[::]:7");
        // What it quotes says to be as long as can be.
        let mut quoted = udp_packet(ours, peer, &[5; 100])[14..].to_vec();
        let at = if peer.is_ipv4() { 2 } else { 4 };
        quoted[at..at + 2].fill(0xff);
        for mtu in mtus {
            host.receive(&too_big(peer.ip(), ours.ip(), *mtu, &quoted));
        }
        let refused = host.stack.events().get(Event::PathMtuRefused);
        assert_eq!(refused, mtus.len() as u64);
        assert_eq!(host.stack.udp_take_error(socket), None);
        assert!(host.stack.next_handoff().is_none());
    }
}

fn too_big(router: IpAddr, to: IpAddr, mtu: u16, quoted: &[u8]) -> Vec<u8> {
    let mut message = vec![0; 8];
    message.extend_from_slice(quoted);
    let [high, low] = mtu.to_be_bytes();
    match (router, to) {
        (IpAddr::V4(_), IpAddr::V4(_)) => {
            let rest = [0, 0, high, low];
            icmpv4::emit(
                &mut message,
                0,
                icmpv4::kind::UNREACHABLE,
                4,
                rest,
                quoted.len(),
            )
            .unwrap();
            ip_packet(router, to, protocol::ICMPV4, &message)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let kind = (icmpv6::kind::PACKET_TOO_BIG, 0);
            let rest = [0, 0, high, low];
            icmpv6::emit(
                &mut message,
                0,
                (source, destination),
                kind,
                rest,
                quoted.len(),
            )
            .unwrap();
            ip_packet(router, to, protocol::ICMPV6, &message)
        }
        _ => panic!("one version"),
    }
}

#[test]
fn nobody_listening_is_told_within_the_limit() {
    let mut host = Host::new(Config::default());
    for (from, to, kind) in [
        (v4(PEER_V4, 4000), v4(OWN_V4, 9), (protocol::ICMPV4, 3, 3)),
        (v6(PEER_V6, 4000), v6(OWN_V6, 9), (protocol::ICMPV6, 1, 4)),
    ] {
        let packet = udp_packet(from, to, b"anybody?");
        host.receive(&packet);
        let sent = host.sent();
        let (source, destination, protocol, message) = read_ip(&sent[0]);
        assert_eq!((source, destination), (to.ip(), from.ip()));
        assert_eq!((protocol, message[0], message[1]), kind);
        // RFC 1122 §3.2.2: the quoted octets are those received.
        assert_eq!(message[8..], packet[14..]);
        for _ in 0..100 {
            host.receive(&packet);
        }
        assert!(host.sent().len() <= 10);
    }
    assert!(host.stack.drops().get(DropReason::IcmpRateLimited) >= 180);
    assert_eq!(host.stack.drops().get(DropReason::UdpNoSocket), 202);
}

/// What found no room on the way out was not sent, whatever it was, and its sender hears of it.
#[test]
fn a_full_egress_queue_is_a_drop_and_nothing_else() {
    let mut host = Host::new(Config {
        egress_queue: 1,
        ..Config::default()
    });
    let socket = host.bind("0.0.0.0:7");
    let request = udp_packet(v4(PEER_V4, 4000), v4(OUR_V4, 7), b"hello");
    let large = fragments(v4(PEER_V4, 4000), v4(OUR_V4, 7), &[1; 3000], 1400);
    let refused = udp_packet(v4(PEER_V4, 4000), v4(OWN_V4, 9), b"hello");
    let mut ping = vec![0; 8];
    icmpv4::emit(&mut ping, 0, icmpv4::kind::ECHO_REQUEST, 0, [0; 4], 0).unwrap();
    let ping = ip_packet(PEER_V4.into(), OWN_V4.into(), protocol::ICMPV4, &ping);
    let full = |host: &Host| host.stack.drops().get(DropReason::TxQueueFull);

    // The short way, and the long way for the first answer, whose next hop is looked for.
    for (round, sent) in [(0, 1), (1, 0), (2, 0)] {
        host.receive(&request);
        assert_eq!(host.echo(socket), sent);
        assert_eq!(full(&host), round);
    }
    let to = stack::SendTo {
        local: v4(OUR_V4, 7),
        remote: v4(PEER_V4, 4000),
        tos: 0,
    };
    let result = host.stack.udp_send(&mut host.pool, to, b"x", host.now);
    assert_eq!(result, Err(stack::SendError(DropReason::TxQueueFull)));
    for piece in large {
        host.receive(&piece);
    }
    assert_eq!(host.echo(socket), 0);
    host.receive(&refused);
    host.receive(&ping);
    assert_eq!(full(&host), 6);
    let events = host.stack.events();
    assert_eq!(events.get(Event::UdpTx), 1);
    assert_eq!(events.get(Event::UdpTxBytes), 5);
    for event in [
        Event::FragmentTx,
        Event::IcmpErrorTx,
        Event::IcmpEchoReplied,
    ] {
        assert_eq!(events.get(event), 0, "{}", event.name());
    }
    assert_eq!(host.sent().len(), 1);
    assert_eq!(host.pool.in_use(), 0);
}
