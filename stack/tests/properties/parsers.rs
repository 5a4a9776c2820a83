//! Our parsers and builders beside those of others.

use crate::world::packets::*;
use crate::world::readers::{compare, pseudo_sum};
use etherparse::SlicedPacket;
use proptest::prelude::*;
use stack::wire::{ethernet, ipv4, ipv6, udp};
use std::net::IpAddr;

fn frames() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(any::<u8>(), 4..64).prop_map(|bytes| packets(&mut Choices::new(&bytes)))
}

/// A datagram in a frame, written by us.
fn built(choices: &mut Choices<'_>, ends: Ends, payload: &[u8]) -> Vec<u8> {
    let payload_len = u16::try_from(udp::HEADER_LEN + payload.len()).unwrap();
    let (tos, ttl) = (choices.byte(), choices.byte());
    let mut frame = vec![0; 14 + 40 + udp::HEADER_LEN];
    let ether_type = if ends.source.is_ipv4() {
        ethernet::TYPE_IPV4
    } else {
        ethernet::TYPE_IPV6
    };
    let header = ethernet::Repr {
        destination: OUR_MAC,
        source: PEER_MAC,
        vlans: ethernet::VlanIds::NONE,
        ether_type,
    };
    header.emit(&mut frame).unwrap();
    let header_len = match (ends.source, ends.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => ipv4::Repr {
            source,
            destination,
            protocol: 17,
            tos,
            ttl,
            payload_len,
            fragment: None,
        }
        .emit(&mut frame, 14),
        (IpAddr::V6(source), IpAddr::V6(destination)) => ipv6::Repr {
            source,
            destination,
            next_header: 17,
            traffic_class: tos,
            flow_label: 5,
            hop_limit: ttl,
            payload_len,
        }
        .emit(&mut frame, 14),
        _ => None,
    };
    let at = 14 + header_len.unwrap();
    frame.truncate(at + udp::HEADER_LEN);
    frame.extend(payload);
    let (from, to) = (choices.word(), choices.word());
    let pseudo = |len| pseudo_sum(ends, len);
    udp::emit(&mut frame, at, from, to, payload.len(), pseudo).unwrap();
    assert_eq!(
        frame[at..],
        crate::world::packets::udp(ends, from, to, payload)
    );
    frame
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn our_parsers_agree_with_others(frames in frames()) {
        for frame in frames {
            compare(&frame);
        }
    }

    #[test]
    fn others_read_what_we_build(
        bytes in prop::collection::vec(any::<u8>(), 0..16),
        payload: Vec<u8>,
    ) {
        let mut choices = Choices::new(&bytes);
        let ends = if choices.byte() & 1 != 0 {
            Ends::new(choices.of(&ADDRESSES_V6), choices.of(&ADDRESSES_V6))
        } else {
            Ends::new(choices.of(&ADDRESSES_V4), choices.of(&ADDRESSES_V4))
        };
        let frame = built(&mut choices, ends, &payload);
        let parsed = SlicedPacket::from_ethernet(&frame);
        prop_assert!(parsed.is_ok(), "{:?}", parsed);
        compare(&frame);
    }
}
