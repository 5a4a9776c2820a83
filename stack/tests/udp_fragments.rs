//! Datagrams in pieces: put together, answered in pieces, handed to another worker, refused.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod support;

use stack::counters::{DropReason, Event};
use stack::frame::{Frame, FramePool, Stamps};
use stack::heap::HeapPool;
use stack::wire::{icmpv4, icmpv6, protocol};
use stack::{Config, Handoff, Origin};
use std::net::IpAddr;
use support::*;

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
                stack.ingest(pool, copy, Origin::Handoff { visited: 1 }, other.now);
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
        stack.ingest(pool, frame, Origin::Handoff { visited: 1 }, host.now);
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
