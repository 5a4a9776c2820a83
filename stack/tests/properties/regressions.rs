//! What the properties beside it, or a fuzzer, found once. The world's judge looks at every frame
//! that leaves; these tests say what must come out besides.

use crate::world::World;
use crate::world::packets::*;
use std::net::Ipv6Addr;

/// No options, no extension headers, from the peer's station.
fn plain(ends: Ends, protocol: u8, message: &[u8]) -> Vec<u8> {
    let mut frame = ip_frame(ends, protocol, message, &mut Choices::new(&[]));
    repair(&mut frame);
    frame
}

fn to_own_v6() -> Ends {
    Ends::new(PEER_V6, OWN_V6)
}

/// An ICMPv6 error with nothing in it but zeros.
const ERROR_V6: [u8; 16] = [1, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const PING_V6: [u8; 8] = [128, 0, 0, 0, 0, 0, 0, 1];
const ICMPV6: u8 = 58;
const DESTINATION_OPTIONS: u8 = 60;
const FRAGMENT: u8 = 44;

fn behind(extension: &[u8], message: &[u8]) -> Vec<u8> {
    [extension, message].concat()
}

#[test]
fn an_error_behind_an_option_that_asks_for_a_report_is_not_answered() {
    let mut world = World::usual();
    let extension = [ICMPV6, 0, 0x9e, 4, 0, 0, 0, 0];
    let error = behind(&extension, &ERROR_V6);
    let frame = plain(to_own_v6(), DESTINATION_OPTIONS, &error);
    assert_eq!(world.tell(&[frame]), ["ipv6_option"]);
    assert_eq!(world.sent(), 0);
    let ping = plain(
        to_own_v6(),
        DESTINATION_OPTIONS,
        &behind(&extension, &PING_V6),
    );
    assert_eq!(world.tell(&[ping]), ["ipv6_option"]);
    assert_eq!(world.sent(), 1, "but a ping there is");
    world.finish();
}

#[test]
fn a_fragment_that_is_the_whole_message_is_read_as_one() {
    let mut world = World::usual();
    let atomic = [ICMPV6, 0, 0, 0, 0, 0, 0, 5];
    let frame = |message: &[u8]| plain(to_own_v6(), FRAGMENT, &behind(&atomic, message));
    assert_eq!(world.tell(&[frame(&PING_V6)]), [""; 0]);
    assert_eq!(world.sent(), 1);
    assert_eq!(world.tell(&[frame(&ERROR_V6)]), ["icmp_embedded"]);
    // RFC 6980 §5: not neighbour discovery.
    let mut solicitation = vec![135, 0, 0, 0, 0, 0, 0, 0];
    solicitation.extend(OWN_V6.octets());
    let mut ask = frame(&solicitation);
    ask[21] = 255;
    assert_eq!(world.tell(&[ask]), ["ndp_malformed"]);
    assert_eq!(world.sent(), 1);
    world.finish();
}

#[test]
fn pieces_of_an_error_that_stay_alone_are_not_reported() {
    let mut world = World::usual();
    let frames = pieces(to_own_v6(), ICMPV6, &ERROR_V6, 8, 7);
    world.tell(&frames[..1]);
    world.pass(31_000);
    assert_eq!(world.tell(&[]), [""; 0]);
    assert_eq!(world.sent(), 0);
    world.finish();
}

#[test]
fn a_datagram_in_pieces_for_nobody_is_quoted_from_its_start() {
    let mut world = World::usual();
    for ends in [to_own_v6(), Ends::new(PEER_V4, OWN_V4)] {
        let message = udp(ends, 4000, 4001, &[7; 40]);
        let frames = pieces(ends, 17, &message, 16, 8);
        assert_eq!(world.tell(&frames), ["udp_no_socket"]);
    }
    assert_eq!(world.sent(), 2);
    world.finish();
}

#[test]
fn a_datagram_in_pieces_for_another_worker_goes_there_in_pieces() {
    let mut world = World::usual();
    world.bind_elsewhere("[::]:4001");
    for ends in [to_own_v6(), Ends::new(PEER_V4, OWN_V4)] {
        let message = udp(ends, 4000, 4001, &[7; 40]);
        let frames = pieces(ends, 17, &message, 16, 8);
        assert_eq!(world.tell(&frames), [""; 0]);
    }
    assert_eq!(world.sent(), 0);
    world.finish();
}

#[test]
fn padding_is_neither_quoted_nor_sent_back() {
    let mut world = World::usual();
    let ends = Ends::new(PEER_V4, OWN_V4);
    let mut refused = plain(ends, 17, &udp(ends, 4000, 4001, b""));
    refused.resize(60, 0xee);
    assert_eq!(world.tell(&[refused]), ["udp_no_socket"]);
    let mut arp = [
        &[0xff; 6][..],
        &PEER_MAC,
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
        &PEER_MAC,
    ]
    .concat();
    arp.extend(PEER_V4.octets());
    arp.extend([0; 6]);
    arp.extend(OWN_V4.octets());
    arp.resize(1500, 0xee);
    assert_eq!(world.tell(&[arp]), [""; 0]);
    assert_eq!(world.sent(), 2);
    world.finish();
}

#[test]
fn a_ping_longer_than_the_path_back_is_answered_in_pieces() {
    let mut world = World::usual();
    // 2001:db8:2::/48 has a route with an MTU of 1300 bytes.
    let far = ADDRESSES_V6[6];
    let ends = Ends::new(far, OWN_V6);
    let mut ping = PING_V6.to_vec();
    ping.resize(1448, 0x55);
    assert_eq!(world.tell(&[plain(ends, ICMPV6, &ping)]), [""; 0]);
    assert_eq!(world.sent(), 3, "a question for the gateway and two pieces");
    world.finish();
}

#[test]
fn nothing_is_sent_to_mapped_addresses() {
    let mut world = World::usual();
    let mapped: Ipv6Addr = "::ffff:192.0.2.2".parse().unwrap();
    let ends = Ends::new(mapped, OWN_V6);
    let odd = plain(ends, DESTINATION_OPTIONS, &[17, 0, 0x9e, 4, 0, 0, 0, 0]);
    assert_eq!(world.tell(&[odd]), ["ipv6_option"]);
    let mut solicitation = vec![135, 0, 0, 0, 0, 0, 0, 0];
    solicitation.extend(OWN_V6.octets());
    let mut ask = plain(ends, ICMPV6, &solicitation);
    ask[21] = 255;
    assert_eq!(world.tell(&[ask]), ["ipv6_source_invalid"]);
    assert_eq!(world.sent(), 0);
    world.finish();
}

#[test]
fn nothing_is_sent_to_stations_that_cannot_be() {
    for source in [[0xff; 6], [0; 6], OUR_MAC] {
        let mut world = World::usual();
        // A stranger, so that the frame's own sender would be the way back.
        let ends = Ends::new(ADDRESSES_V4[3], OWN_V4);
        let ping = plain(ends, 1, &[8, 0, 0, 0, 0, 0, 0, 1]);
        let mut solicitation = vec![135, 0, 0, 0, 0, 0, 0, 0];
        solicitation.extend(OWN_V6.octets());
        let mut ask = plain(to_own_v6(), ICMPV6, &solicitation);
        ask[21] = 255;
        for mut frame in [ping, ask] {
            frame[6..12].copy_from_slice(&source);
            assert_eq!(world.tell(&[frame]), ["ethernet_source_invalid"]);
        }
        world.finish();
    }
}

#[test]
fn who_asks_from_our_address_is_a_conflict_and_learns_nothing() {
    let mut world = World::usual();
    let ends = Ends::new(OWN_V6, OWN_V6);
    let mut solicitation = vec![135, 0, 0, 0, 0, 0, 0, 0];
    solicitation.extend(OWN_V6.octets());
    let mut ask = plain(ends, ICMPV6, &solicitation);
    ask[21] = 255;
    assert_eq!(world.tell(&[ask]), [""; 0]);
    assert_eq!(world.sent(), 0);
    world.finish();
}

#[test]
fn a_packet_with_nothing_in_it_is_counted() {
    let mut world = World::usual();
    let frame = plain(to_own_v6(), 59, &[]);
    assert_eq!(world.tell(&[frame]), ["ip_protocol_unknown"]);
    assert_eq!(world.sent(), 0);
    world.finish();
}

#[test]
fn an_authentication_header_shorter_than_one_can_be_is_refused() {
    let mut world = World::usual();
    let ping = behind(&[ICMPV6, 0, 0, 0, 0, 0, 0, 1], &PING_V6);
    let frame = plain(to_own_v6(), 51, &ping);
    assert_eq!(world.tell(&[frame]), ["ipv6_extension_header"]);
    world.finish();
}

#[test]
fn nobody_makes_us_send_to_ourselves() {
    let mut world = World::usual();
    // A datagram waits for the gateway, which is then said to be at our own station.
    world.send_to("198.18.0.1:4000".parse().unwrap());
    let mut advertisement = vec![136, 0, 0, 0, 0x60, 0, 0, 0];
    advertisement.extend(GATEWAY_V6.octets());
    advertisement.extend([2, 1]);
    advertisement.extend(OUR_MAC);
    let mut lie = plain(Ends::new(GATEWAY_V6, SHARED_V6), ICMPV6, &advertisement);
    lie[21] = 255;
    assert_eq!(world.tell(&[lie]), ["icmp_not_for_us"]);
    assert_eq!(world.sent(), 0);
    world.finish();
}
