//! Addresses that the stack owns: ARP, neighbour discovery, ping, conflicts, solicitations.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod support;

use stack::counters::{DropReason, Event};
use stack::link::AddressOwner;
use stack::wire::{arp, ethernet, icmpv4, icmpv6, ipv6, ndp, protocol};
use stack::{Config, Handoff, SendTo};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use support::*;

fn arp_packet(repr: arp::Repr) -> Vec<u8> {
    let mut packet = vec![0; 14 + arp::LEN];
    ethernet::Repr {
        destination: ethernet::BROADCAST,
        source: repr.sender_mac,
        vlans: ethernet::VlanIds::NONE,
        ether_type: ethernet::TYPE_ARP,
    }
    .emit(&mut packet)
    .unwrap();
    repr.emit(&mut packet, 14).unwrap();
    packet
}

fn who_has(target: Ipv4Addr) -> Vec<u8> {
    arp_packet(arp::Repr {
        operation: arp::Operation::Request,
        sender_mac: PEER_MAC,
        sender: PEER_V4,
        target_mac: [0; 6],
        target,
    })
}

fn ndp_packet(repr: ndp::Repr, source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
    let mut message = vec![0; ndp::LEN_WITH_OPTION];
    let len = repr.emit(&mut message, 0, source, destination).unwrap();
    message.truncate(len);
    let mut packet = ip_packet(
        source.into(),
        destination.into(),
        protocol::ICMPV6,
        &message,
    );
    packet[14 + 7] = ndp::HOP_LIMIT;
    if destination.is_multicast() {
        let octets = destination.octets();
        packet[..6].copy_from_slice(&[0x33, 0x33, octets[12], octets[13], octets[14], octets[15]]);
    }
    packet
}

fn read_ndp(packet: &[u8]) -> (Ipv6Addr, Ipv6Addr, ndp::Repr) {
    let ip = ipv6::Packet::new_checked(packet, 14).unwrap();
    let (source, destination) = (ip.source(), ip.destination());
    let message = icmpv6::Packet::new_checked(packet, ip.payload(), source, destination).unwrap();
    let repr = ndp::Repr::parse(packet, &message, ip.hop_limit(), source, destination);
    (source, destination, repr.unwrap().unwrap())
}

#[test]
fn arp_is_answered_for_own_addresses_and_left_to_the_kernel_for_shared_ones() {
    let mut host = Host::new(Config::default());
    host.receive(&who_has(OWN_V4));
    let sent = host.sent();
    assert_eq!(sent.len(), 1);
    assert_eq!(
        (&sent[0][..6], &sent[0][6..12]),
        (&PEER_MAC[..], &OUR_MAC[..])
    );
    let reply = arp::Repr::parse(&sent[0], 14).unwrap();
    assert_eq!(reply.operation, arp::Operation::Reply);
    assert_eq!((reply.sender, reply.sender_mac), (OWN_V4, OUR_MAC));
    assert_eq!((reply.target, reply.target_mac), (PEER_V4, PEER_MAC));

    host.receive(&who_has(OUR_V4));
    host.receive(&who_has(Ipv4Addr::new(192, 0, 2, 77)));
    assert!(host.sent().is_empty());
    assert_eq!(host.drops(), [("arp_not_for_us", 2)]);
}

#[test]
fn solicitations_are_answered_for_own_addresses() {
    let mut host = Host::new(Config::default());
    let ask = ndp::Repr::Solicitation {
        target: OWN_V6,
        source_mac: Some(PEER_MAC),
    };
    host.receive(&ndp_packet(ask, PEER_V6, "ff02::1:ff00:9".parse().unwrap()));
    let sent = host.sent();
    let (source, destination, repr) = read_ndp(&sent[0]);
    assert_eq!((source, destination), (OWN_V6, PEER_V6));
    let expected = ndp::Repr::Advertisement {
        target: OWN_V6,
        target_mac: Some(OUR_MAC),
        router: false,
        solicited: true,
        overrides: true,
    };
    assert_eq!(repr, expected);
    assert_eq!(sent[0][..6], PEER_MAC);

    // Duplicate address detection by somebody else: the answer goes to all nodes.
    let probe = ndp::Repr::Solicitation {
        target: OWN_V6,
        source_mac: None,
    };
    let group = "ff02::1:ff00:9".parse().unwrap();
    host.receive(&ndp_packet(probe, Ipv6Addr::UNSPECIFIED, group));
    let (_, destination, repr) = read_ndp(&host.sent()[0]);
    assert_eq!(destination, "ff02::1".parse::<Ipv6Addr>().unwrap());
    assert!(matches!(
        repr,
        ndp::Repr::Advertisement {
            solicited: false,
            ..
        }
    ));

    let other = ndp::Repr::Solicitation {
        target: OUR_V6,
        source_mac: Some(PEER_MAC),
    };
    host.receive(&ndp_packet(
        other,
        PEER_V6,
        "ff02::1:ff00:1".parse().unwrap(),
    ));
    assert!(host.sent().is_empty());
}

#[test]
fn ping_of_own_addresses_is_answered_with_the_same_data() {
    let mut host = Host::new(Config::default());
    for len in [0, 1, 56, 1400] {
        let data: Vec<u8> = (0..len).map(|i| u8::try_from(i % 256).unwrap()).collect();
        let rest = [0x12, 0x34, 0, 7];
        let mut message = vec![0; 8];
        message.extend(&data);
        icmpv4::emit(&mut message, 0, icmpv4::kind::ECHO_REQUEST, 0, rest, len).unwrap();
        host.receive(&ip_packet(
            PEER_V4.into(),
            OWN_V4.into(),
            protocol::ICMPV4,
            &message,
        ));
        let (source, destination, _, reply) = read_ip(&host.sent()[0]);
        assert_eq!(
            (source, destination),
            (IpAddr::V4(OWN_V4), IpAddr::V4(PEER_V4))
        );
        assert_eq!(
            (reply[0], &reply[4..8], &reply[8..]),
            (0, &rest[..], &data[..])
        );
        icmpv4::Packet::new_checked(&reply, 0..reply.len()).unwrap();

        let kind = (icmpv6::kind::ECHO_REQUEST, 0);
        icmpv6::emit(&mut message, 0, (PEER_V6, OWN_V6), kind, rest, len).unwrap();
        host.receive(&ip_packet(
            PEER_V6.into(),
            OWN_V6.into(),
            protocol::ICMPV6,
            &message,
        ));
        let (_, _, _, reply) = read_ip(&host.sent()[0]);
        assert_eq!(
            (reply[0], &reply[4..8], &reply[8..]),
            (129, &rest[..], &data[..])
        );
        icmpv6::Packet::new_checked(&reply, 0..reply.len(), OWN_V6, PEER_V6).unwrap();
    }
    assert_eq!(host.drops(), []);
    assert_eq!(host.pool.in_use(), 0);
}

#[test]
fn ping_of_shared_addresses_is_the_kernels() {
    let mut host = Host::new(Config::default());
    let mut message = vec![0; 16];
    icmpv4::emit(&mut message, 0, icmpv4::kind::ECHO_REQUEST, 0, [0; 4], 8).unwrap();
    host.receive(&ip_packet(
        PEER_V4.into(),
        OUR_V4.into(),
        protocol::ICMPV4,
        &message,
    ));
    assert!(host.sent().is_empty());
    assert_eq!(host.drops(), [("icmp_not_for_us", 1)]);
}

#[test]
fn a_neighbour_is_solicited_the_packet_waits_and_leaves_when_the_answer_comes() {
    let mut host = Host::new(Config::default());
    let stranger_mac = [2, 0, 0, 0, 0, 50];
    let v4 = Ipv4Addr::new(192, 0, 2, 50);
    let to = SendTo {
        local: SocketAddr::new(OWN_V4.into(), 7),
        remote: SocketAddr::new(v4.into(), 4000),
        tos: 0,
    };
    host.stack
        .udp_send(&mut host.pool, to, b"wait", host.now)
        .unwrap();
    let sent = host.sent();
    assert_eq!(sent.len(), 1);
    let request = arp::Repr::parse(&sent[0], 14).unwrap();
    assert_eq!(
        (request.operation, request.target),
        (arp::Operation::Request, v4)
    );
    assert_eq!(request.sender, OWN_V4);
    let reply = arp_packet(arp::Repr {
        operation: arp::Operation::Reply,
        sender_mac: stranger_mac,
        sender: v4,
        target_mac: OUR_MAC,
        target: OWN_V4,
    });
    host.receive(&reply);
    let sent = host.sent();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0][..6], stranger_mac);
    assert_eq!(read_udp(&sent[0]), (to.local, to.remote, b"wait".to_vec()));
    // What it learned concerns the other workers too.
    let (who, frame) = host.stack.next_handoff().unwrap();
    assert_eq!(who, Handoff::Everyone);
    stack::frame::FramePool::give(&mut host.pool, frame);
    assert_eq!(host.pool.in_use(), 0);

    let v6: Ipv6Addr = "2001:db8::50".parse().unwrap();
    let to = SendTo {
        local: SocketAddr::new(OWN_V6.into(), 7),
        remote: SocketAddr::new(v6.into(), 4000),
        tos: 0,
    };
    host.stack
        .udp_send(&mut host.pool, to, b"wait", host.now)
        .unwrap();
    let (source, destination, repr) = read_ndp(&host.sent()[0]);
    assert_eq!(source, OWN_V6);
    assert_eq!(destination, "ff02::1:ff00:50".parse::<Ipv6Addr>().unwrap());
    assert_eq!(
        repr,
        ndp::Repr::Solicitation {
            target: v6,
            source_mac: Some(OUR_MAC)
        }
    );
    let reply = ndp::Repr::Advertisement {
        target: v6,
        target_mac: Some(stranger_mac),
        router: false,
        solicited: true,
        overrides: true,
    };
    host.receive(&ndp_packet(reply, v6, OWN_V6));
    let sent = host.sent();
    assert_eq!(sent[0][..6], stranger_mac);
    assert_eq!(read_udp(&sent[0]).2, b"wait");
}

#[test]
fn a_neighbour_that_does_not_answer_is_given_up() {
    let mut host = Host::new(Config::default());
    let to = SendTo {
        local: SocketAddr::new(OWN_V4.into(), 7),
        remote: "192.0.2.50:4000".parse().unwrap(),
        tos: 0,
    };
    host.stack
        .udp_send(&mut host.pool, to, b"lost", host.now)
        .unwrap();
    for _ in 0..100 {
        host.advance(100);
    }
    let requests = host.sent();
    assert_eq!(requests.len(), 3, "RFC 4861 §10: MAX_MULTICAST_SOLICIT");
    assert_eq!(host.stack.drops().get(DropReason::TxNeighborFailed), 1);
    assert_eq!(host.pool.in_use(), 0);
}

#[test]
fn another_host_with_our_address_is_noticed_and_answered_once_in_ten_seconds() {
    let mut host = Host::new(Config::default());
    host.stack = stack::Stack::new(Config::default());
    host.stack.set_link(Box::new(link()), host.now);
    let said: Vec<u64> = (0..60)
        .filter(|_| {
            host.advance(100);
            !host.sent().is_empty()
        })
        .collect();
    assert_eq!(said, [1, 11, 31], "probe, announcement, announcement");
    assert_eq!(host.stack.events().get(Event::AddressAnnounced), 4);

    let claim = arp_packet(arp::Repr {
        operation: arp::Operation::Request,
        sender_mac: PEER_MAC,
        sender: OWN_V4,
        target_mac: [0; 6],
        target: OWN_V4,
    });
    for _ in 0..5 {
        host.receive(&claim);
    }
    assert_eq!(host.stack.events().get(Event::AddressConflict), 5);
    assert_eq!(host.sent().len(), 1);
    let advert = ndp::Repr::Advertisement {
        target: OWN_V6,
        target_mac: Some(PEER_MAC),
        router: false,
        solicited: false,
        overrides: true,
    };
    host.receive(&ndp_packet(advert, OWN_V6, "ff02::1".parse().unwrap()));
    assert_eq!(host.stack.events().get(Event::AddressConflict), 6);
    assert_eq!(host.sent().len(), 1);
}

#[test]
fn unknown_protocols_to_own_addresses_are_refused_politely() {
    let mut host = Host::new(Config::default());
    host.receive(&ip_packet(PEER_V4.into(), OWN_V4.into(), 132, &[0; 20]));
    let (_, _, protocol, message) = read_ip(&host.sent()[0]);
    assert_eq!((protocol, message[0], message[1]), (protocol::ICMPV4, 3, 2));
    host.receive(&ip_packet(PEER_V6.into(), OWN_V6.into(), 132, &[0; 20]));
    let (_, _, protocol, message) = read_ip(&host.sent()[0]);
    assert_eq!(
        (protocol, message[0], message[1], message[7]),
        (protocol::ICMPV6, 4, 1, 6)
    );
    // Shared addresses: the kernel speaks for itself.
    host.receive(&ip_packet(PEER_V4.into(), OUR_V4.into(), 132, &[0; 20]));
    assert!(host.sent().is_empty());
    assert_eq!(host.stack.link().addresses[0].owner, AddressOwner::Kernel);
}
