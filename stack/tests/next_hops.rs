//! Where packets go next: neighbours that are asked for or looked after, paths that carry less.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod support;

use stack::Config;
use stack::counters::{DropReason, Event};
use stack::link::NeighborUpdate;
use stack::wire::{icmpv4, icmpv6, protocol};
use std::net::{IpAddr, SocketAddr};
use support::*;

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
