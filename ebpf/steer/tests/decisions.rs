//! The decision, rule by rule.

mod common;

use common::corpus::corpus;
use common::{frame, ip_frame, ipv4, tables, tcp, udp};
use proptest::prelude::*;
use steer::parse::{ethertype, protocol};
use steer::tables::{flag, vlan_stack};
use steer::{Verdict, stamp, steer};

#[test]
fn every_packet_of_the_corpus_gets_its_verdict() {
    let tables = tables();
    for case in corpus() {
        assert_eq!(
            steer(&case.frame[..], &tables),
            case.verdict,
            "{}",
            case.name
        );
    }
}

#[test]
fn the_corpus_reaches_every_verdict_the_function_can_give() {
    let given: Vec<Verdict> = corpus().iter().map(|case| case.verdict).collect();
    for verdict in Verdict::ALL {
        // The kill switch is tested below; that no worker is there only the program knows.
        let elsewhere = matches!(verdict, Verdict::PassDisabled | Verdict::PassNoWorker);
        assert_eq!(given.contains(verdict), !elsewhere, "{}", verdict.name());
    }
}

#[test]
fn names_are_unique_and_say_what_happens() {
    for verdict in Verdict::ALL {
        assert_eq!(
            Verdict::ALL
                .iter()
                .filter(|other| other.name() == verdict.name())
                .count(),
            1
        );
        assert_eq!(verdict.name().starts_with("redirect_"), verdict.redirects());
        assert_eq!(
            verdict.help().starts_with("Redirected"),
            verdict.redirects()
        );
        assert_eq!(Verdict::ALL[*verdict as usize], *verdict);
    }
}

#[test]
fn the_kill_switch_passes_everything() {
    let mut tables = tables();
    tables.config.flags &= !flag::ENABLED;
    for case in corpus() {
        assert_eq!(
            steer(&case.frame[..], &tables),
            Verdict::PassDisabled,
            "{}",
            case.name
        );
    }
}

#[test]
fn without_rules_nothing_is_looked_at() {
    let mut tables = tables();
    tables.exact.clear();
    tables.ports.clear();
    tables.prefixes.clear();
    tables.sync_flags();
    for case in corpus() {
        assert_eq!(
            steer(&case.frame[..], &tables),
            Verdict::PassUnmatched,
            "{}",
            case.name
        );
    }
    assert_eq!(steer(&[][..], &tables), Verdict::PassUnmatched);
}

#[test]
fn a_table_whose_flag_is_clear_is_not_consulted() {
    for (bit, verdict) in [
        (flag::EXACT, Verdict::RedirectExact),
        (flag::PORTS, Verdict::RedirectPort),
        (flag::PORTS_ANY, Verdict::RedirectPortAny),
        (flag::PREFIXES, Verdict::RedirectPrefix),
    ] {
        let mut tables = tables();
        tables.config.flags &= !bit;
        for case in corpus().into_iter().filter(|case| case.verdict == verdict) {
            assert!(
                !steer(&case.frame[..], &tables).redirects(),
                "{}",
                case.name
            );
        }
    }
}

#[test]
fn without_a_mac_address_any_will_do() {
    let mut tables = tables();
    tables.config.mac = [0; 2];
    for case in corpus() {
        if case.verdict == Verdict::PassNotOurMac {
            assert!(steer(&case.frame[..], &tables).redirects(), "{}", case.name);
        }
    }
}

#[test]
fn the_vlan_tags_must_be_the_configured_ones() {
    let packet = ipv4(
        "10.0.0.9",
        "10.0.0.1",
        protocol::UDP,
        &common::V4::default(),
        &udp(5000, 7),
    );
    let stacks: [&[u16]; 5] = [&[], &[100], &[200], &[100, 200], &[200, 100]];
    for wanted in stacks {
        let mut tables = tables();
        tables.config.vlan_stack = vlan_stack(wanted).expect("valid identifiers");
        for sent in stacks {
            let mut tags: Vec<_> = sent.iter().map(|vid| (0x8100, 0xe000 | vid)).collect();
            let expected = if sent == wanted {
                Verdict::RedirectPort
            } else {
                Verdict::PassVlan
            };
            let verdict = steer(&frame(&tags, ethertype::IPV4, &packet)[..], &tables);
            assert_eq!(verdict, expected, "{sent:?} sent, {wanted:?} wanted");
            if let [first] = &mut tags[..] {
                first.0 = 0x88a8;
                let verdict = steer(&frame(&tags, ethertype::IPV4, &packet)[..], &tables);
                assert_eq!(verdict, expected, "either tag protocol will do");
            }
        }
    }
    assert_eq!(vlan_stack(&[0]), None);
    assert_eq!(vlan_stack(&[4095]), None);
    assert_eq!(vlan_stack(&[1, 2, 3]), None);
}

#[test]
fn deny_entries_of_every_shape_hold() {
    let packet = ip_frame(&ipv4(
        "10.0.0.9",
        "10.0.0.1",
        protocol::TCP,
        &common::V4::default(),
        &tcp(5000, 8080),
    ));
    for kind in 0..8_u32 {
        let mut tables = tables();
        tables.deny.clear();
        tables.deny.insert(steer::tables::LocalKey {
            address: common::address(if kind & 2 == 0 { "10.0.0.1" } else { "0.0.0.0" }),
            port: if kind & 4 == 0 { 8080 } else { 0 },
            protocol: if kind & 1 == 0 {
                protocol::TCP.into()
            } else {
                0
            },
        });
        tables.sync_flags();
        assert_eq!(tables.config.deny_shapes, 1 << kind);
        assert_eq!(
            steer(&packet[..], &tables),
            Verdict::PassDenied,
            "shape {kind}"
        );
        // The other family is another matter.
        let other = corpus()
            .into_iter()
            .find(|case| case.name == "exact, IPv6")
            .expect("it is there");
        assert_eq!(
            steer(&other.frame[..], &tables),
            Verdict::RedirectExact,
            "shape {kind}"
        );
    }
}

#[test]
fn a_truncated_packet_is_never_ours_unless_its_address_is() {
    for case in corpus() {
        for len in 0..case.frame.len() {
            let tables = tables();
            let verdict = steer(&case.frame[..len], &tables);
            if len < 14 {
                assert_eq!(
                    verdict,
                    Verdict::PassMalformed,
                    "{} cut to {len}",
                    case.name
                );
            }
            // Padding may be cut off, and an ICMP error quotes as much as it likes; but the outer
            // lengths are checked, so no other cut leaves a packet of ours.
            let ip_is_whole = case.name.contains("padd") || case.frame.len() == len;
            if !ip_is_whole && case.verdict != Verdict::RedirectArp {
                assert!(
                    !verdict.redirects(),
                    "{} cut to {len}: {verdict:?}",
                    case.name
                );
            }
        }
    }
}

#[test]
fn a_stamp_is_read_once() {
    let mut headroom = [0xaa_u8; 64];
    assert_eq!(stamp::take(&mut headroom), None);
    headroom[48..56].copy_from_slice(&stamp::STAMP_MAGIC.to_ne_bytes());
    headroom[56..].copy_from_slice(&12345_u64.to_ne_bytes());
    assert_eq!(stamp::take(&mut headroom), Some(12345));
    assert_eq!(stamp::take(&mut headroom), None);
    assert_eq!(stamp::take(&mut headroom[..8]), None);
}

/// A packet of the corpus with a few bytes changed, inserted or cut.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    let cut = prop::option::weighted(0.3, any::<prop::sample::Index>());
    let frames: Vec<_> = corpus().into_iter().map(|case| case.frame).collect();
    (any::<prop::sample::Index>(), edits, cut).prop_map(move |(which, edits, cut)| {
        let mut frame = which.get(&frames).clone();
        for (at, value) in edits {
            let at = at.index(frame.len());
            frame[at] = value;
        }
        if let Some(cut) = cut {
            frame.truncate(cut.index(frame.len()));
        }
        frame
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        steer(&bytes[..], &tables());
    }

    #[test]
    fn mutated_packets_never_panic_and_the_kill_switch_holds(frame in mutated()) {
        let mut tables = tables();
        steer(&frame[..], &tables);
        tables.config.flags &= !flag::ENABLED;
        prop_assert_eq!(steer(&frame[..], &tables), Verdict::PassDisabled);
    }

    /// An order that a reader can check: whatever is denied whole is never redirected.
    #[test]
    fn what_is_denied_whole_is_never_ours(frame in mutated()) {
        let mut tables = tables();
        for any in [steer::Address::ANY_V4, steer::Address::ANY_V6] {
            tables.deny.insert(steer::tables::LocalKey { address: any, port: 0, protocol: 0 });
        }
        tables.sync_flags();
        prop_assert!(!steer(&frame[..], &tables).redirects());
    }
}
