//! Datagrams in and out: both versions, dual stack, options, what is refused and why.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod support;

use stack::Config;
use stack::counters::{DropReason, Event};
use stack::wire::{icmpv4, icmpv6, ndp, protocol};
use std::net::{IpAddr, SocketAddr};
use support::*;

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

/// Each socket costs what its own entries cost: if binding one looked at all others, this would not
/// come to an end.
#[test]
fn many_sockets_are_bound_found_and_closed() {
    let mut host = Host::new(Config {
        udp_sockets: 60_000,
        ..Config::default()
    });
    let bind = |port: u16, v6only| stack::socket::bind::Bind {
        local: SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), port),
        v6only,
    };
    let sockets: Vec<_> = (1..=60_000)
        .map(|port| host.stack.udp_bind(bind(port, false), 1).unwrap())
        .collect();
    let again = host.stack.udp_bind(bind(7, true), 1);
    assert_eq!(again, Err(stack::socket::bind::BindError::AddressInUse));
    let deliver = |host: &mut Host, port: u16| {
        for (from, to) in [
            (v4(PEER_V4, 1), v4(OWN_V4, port)),
            (v6(PEER_V6, 1), v6(OUR_V6, port)),
        ] {
            host.receive(&udp_packet(from, to, b"x"));
            let socket = sockets[usize::from(port) - 1];
            assert_eq!(host.echo(socket), 1, "{port}");
            assert_eq!(read_udp(&host.sent()[0]).0, to);
        }
    };
    for port in (1..=60_000).step_by(997) {
        deliver(&mut host, port);
    }
    for (port, socket) in (1..).zip(&sockets) {
        if port % 2 == 0 {
            host.stack.udp_close(&mut host.pool, *socket);
        }
    }
    for port in (1..=60_000).step_by(997) {
        if port % 2 == 1 {
            deliver(&mut host, port);
        } else {
            let before = host.stack.drops().get(DropReason::UdpNoSocket);
            host.receive(&udp_packet(v4(PEER_V4, 1), v4(OUR_V4, port), b"x"));
            let after = host.stack.drops().get(DropReason::UdpNoSocket);
            assert_eq!(after - before, 1);
        }
    }
    let socket = host.stack.udp_bind(bind(8, false), 1).unwrap();
    host.receive(&udp_packet(v4(PEER_V4, 1), v4(OUR_V4, 8), b"x"));
    assert_eq!(host.echo(socket), 1);
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
