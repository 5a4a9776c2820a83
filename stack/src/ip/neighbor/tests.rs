use super::*;
use crate::ip::address::{Ipv4, Ipv6};
use alloc::collections::BTreeMap;
use alloc::vec;
use core::net::{Ipv4Addr, Ipv6Addr};
use proptest::prelude::*;

const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const C: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);
const MAC: MacAddr = [2, 0, 0, 0, 0, 1];
const OTHER_MAC: MacAddr = [2, 0, 0, 0, 0, 2];

type Cache = NeighborCache<Ipv4, u32>;
type Action = NeighborAction<Ipv4Addr, u32>;

fn cache(capacity: usize) -> Cache {
    let config = NeighborConfig {
        capacity,
        ..NeighborConfig::default()
    };
    NeighborCache::new(config, HashKey::new([3, 4]))
}

/// Milliseconds after some start.
fn at(ms: u64) -> Instant {
    Instant::from_nanos((1_000_000 + ms) * 1_000_000)
}

fn expire(cache: &mut Cache, now: Instant) -> Vec<Action> {
    let mut actions = vec![];
    cache.expire(now, |action| actions.push(action));
    actions
}

fn state(cache: &Cache, address: Ipv4Addr) -> Option<NeighborState> {
    cache
        .iter()
        .find(|entry| entry.0 == address)
        .map(|entry| entry.2)
}

fn waiting(ask: Ask, displaced: Option<u32>) -> Resolve<u32> {
    Resolve::Waiting { ask, displaced }
}

fn reachable(cache: &mut Cache, address: Ipv4Addr, mac: MacAddr, now: Instant) {
    let _ = cache.resolve(address, AddressOwner::Stack, 0, now);
    assert_eq!(
        cache.advertise(address, Some(mac), true, true, now),
        Some(0)
    );
    assert_eq!(state(cache, address), Some(NeighborState::Reachable));
}

fn stale(cache: &mut Cache, address: Ipv4Addr, mac: MacAddr, now: Instant) {
    assert_eq!(cache.learn(address, mac, now), Update::NOTHING);
    assert_eq!(state(cache, address), Some(NeighborState::Stale));
}

#[test]
fn resolution_asks_three_times_and_fails_with_the_latest_packet() {
    let mut cache = cache(4);
    assert_eq!(cache.lookup(A, at(0)), None);
    let stack = AddressOwner::Stack;
    assert_eq!(
        cache.resolve(A, stack, 1, at(0)),
        waiting(Ask::Neighbor, None)
    );
    // RFC 1122 §2.3.2.2: the latest packet is kept; §2.3.2.1: nobody is flooded.
    assert_eq!(
        cache.resolve(A, stack, 2, at(1)),
        waiting(Ask::Nobody, Some(1))
    );
    assert_eq!(cache.next_deadline(), Some(at(1000)));
    assert_eq!(expire(&mut cache, at(999)), []);
    for ms in [1000, 2000] {
        assert_eq!(
            expire(&mut cache, at(ms)),
            [Action::SolicitMulticast { address: A }]
        );
        assert_eq!(cache.lookup(A, at(ms)), None);
    }
    let failed = Action::Failed {
        address: A,
        waiting: Some(2),
    };
    assert_eq!(expire(&mut cache, at(3000)), [failed]);
    assert!(cache.is_empty());
    assert_eq!(cache.next_deadline(), None);
    // The next packet begins anew.
    assert_eq!(
        cache.resolve(A, stack, 3, at(3001)),
        waiting(Ask::Neighbor, None)
    );
}

#[test]
fn an_answer_makes_reachable_then_stale_and_use_leads_to_probes() {
    let mut cache = cache(4);
    reachable(&mut cache, A, MAC, at(0));
    let generation = cache.generation();
    assert_eq!(cache.lookup(A, at(29_999)), Some(MAC));
    assert_eq!(expire(&mut cache, at(29_999)), []);
    assert_eq!(cache.generation(), generation);
    assert_eq!(expire(&mut cache, at(30_000)), []);
    assert_eq!(state(&cache, A), Some(NeighborState::Stale));
    // Cached answers are asked again, so that use shows.
    assert_ne!(cache.generation(), generation);
    assert_eq!(cache.next_deadline(), None);
    assert_eq!(cache.lookup(A, at(60_000)), Some(MAC));
    assert_eq!(state(&cache, A), Some(NeighborState::Delay));
    // Further use does not push the deadline away.
    assert_eq!(cache.lookup(A, at(62_000)), Some(MAC));
    assert_eq!(cache.next_deadline(), Some(at(65_000)));
    for ms in [65_000, 66_000, 67_000] {
        assert_eq!(expire(&mut cache, at(ms - 1)), []);
        assert_eq!(
            expire(&mut cache, at(ms)),
            [Action::SolicitUnicast {
                address: A,
                mac: MAC
            }]
        );
        assert_eq!(state(&cache, A), Some(NeighborState::Probe));
        assert_eq!(cache.lookup(A, at(ms)), Some(MAC));
    }
    let generation = cache.generation();
    let failed = Action::Failed {
        address: A,
        waiting: None,
    };
    assert_eq!(expire(&mut cache, at(68_000)), [failed]);
    assert_eq!(cache.lookup(A, at(68_000)), None);
    assert_ne!(cache.generation(), generation);
}

#[test]
fn confirmations_from_above_and_answers_to_probes_make_reachable() {
    for confirm_from_above in [true, false] {
        for probing in [true, false] {
            let mut cache = cache(4);
            stale(&mut cache, A, MAC, at(0));
            assert_eq!(cache.lookup(A, at(0)), Some(MAC));
            if probing {
                assert_eq!(expire(&mut cache, at(5000)).len(), 1);
                assert_eq!(state(&cache, A), Some(NeighborState::Probe));
            }
            if confirm_from_above {
                cache.confirm(A, at(5500));
            } else {
                // RFC 4861 §7.2.5: also without the option, and without override.
                assert_eq!(cache.advertise(A, None, true, false, at(5500)), None);
            }
            assert_eq!(state(&cache, A), Some(NeighborState::Reachable));
            assert_eq!(cache.next_deadline(), Some(at(35_500)));
        }
    }
}

#[test]
fn confirmations_extend_reachability() {
    let mut cache = cache(4);
    reachable(&mut cache, A, MAC, at(0));
    let generation = cache.generation();
    cache.confirm(A, at(999));
    assert_eq!(
        cache.next_deadline(),
        Some(at(30_000)),
        "not for every acknowledgement"
    );
    cache.confirm(A, at(1000));
    assert_eq!(cache.next_deadline(), Some(at(31_000)));
    assert_eq!(cache.generation(), generation);
    // Nothing to confirm about these.
    cache.confirm(B, at(1000));
    let _ = cache.resolve(B, AddressOwner::Stack, 1, at(1000));
    cache.confirm(B, at(1000));
    assert_eq!(state(&cache, B), Some(NeighborState::Incomplete));
}

#[test]
fn advertisements_to_an_incomplete_neighbor() {
    for (solicited, expected) in [
        (true, NeighborState::Reachable),
        (false, NeighborState::Stale),
    ] {
        for override_ in [true, false] {
            let mut cache = cache(4);
            let _ = cache.resolve(A, AddressOwner::Stack, 7, at(0));
            assert_eq!(cache.advertise(A, None, solicited, override_, at(1)), None);
            assert_eq!(state(&cache, A), Some(NeighborState::Incomplete));
            assert_eq!(
                cache.advertise(A, Some(MAC), solicited, override_, at(1)),
                Some(7)
            );
            assert_eq!(state(&cache, A), Some(expected));
            assert_eq!(cache.lookup(A, at(1)), Some(MAC));
        }
    }
}

/// The whole table of RFC 4861 appendix C for advertisements to a known neighbour.
#[test]
fn advertisements_to_a_known_neighbor() {
    use NeighborState::{Delay, Probe, Reachable, Stale};
    for before in [Reachable, Stale, Delay, Probe] {
        for (mac, solicited, override_, after, answer) in [
            // The same address, or none given.
            (Some(MAC), true, false, Reachable, MAC),
            (Some(MAC), true, true, Reachable, MAC),
            (None, true, false, Reachable, MAC),
            (Some(MAC), false, false, before, MAC),
            (Some(MAC), false, true, before, MAC),
            (None, false, true, before, MAC),
            // Another address.
            (Some(OTHER_MAC), true, true, Reachable, OTHER_MAC),
            (Some(OTHER_MAC), false, true, Stale, OTHER_MAC),
            (
                Some(OTHER_MAC),
                true,
                false,
                if before == Reachable { Stale } else { before },
                MAC,
            ),
            (
                Some(OTHER_MAC),
                false,
                false,
                if before == Reachable { Stale } else { before },
                MAC,
            ),
        ] {
            let mut cache = cache(4);
            match before {
                Reachable => reachable(&mut cache, A, MAC, at(0)),
                _ => stale(&mut cache, A, MAC, at(0)),
            }
            if matches!(before, Delay | Probe) {
                let _ = cache.lookup(A, at(0));
            }
            if before == Probe {
                assert_eq!(expire(&mut cache, at(5000)).len(), 1);
            }
            assert_eq!(state(&cache, A), Some(before));
            let generation = cache.generation();
            assert_eq!(
                cache.advertise(A, mac, solicited, override_, at(5001)),
                None
            );
            let case = (before, mac, solicited, override_);
            assert_eq!(state(&cache, A), Some(after), "{case:?}");
            assert_eq!(cache.iter().next().unwrap().1, Some(answer), "{case:?}");
            if answer != MAC || (after == Stale && before != Stale) {
                assert_ne!(cache.generation(), generation, "{case:?}");
            }
        }
    }
}

#[test]
fn advertisements_about_strangers_are_ignored() {
    let mut cache = cache(4);
    assert_eq!(cache.advertise(A, Some(MAC), true, true, at(0)), None);
    assert_eq!(cache.refresh(A, MAC, at(0)), Update::NOTHING);
    assert!(cache.is_empty());
}

#[test]
fn learning() {
    let mut cache = cache(4);
    // A new neighbour is stale; the same news changes nothing.
    stale(&mut cache, A, MAC, at(0));
    let generation = cache.generation();
    assert_eq!(cache.learn(A, MAC, at(1)), Update::NOTHING);
    assert_eq!(cache.generation(), generation);
    // Other news are taken over, and doubted.
    reachable(&mut cache, B, MAC, at(2));
    assert_eq!(cache.learn(B, MAC, at(3)), Update::NOTHING);
    assert_eq!(state(&cache, B), Some(NeighborState::Reachable));
    assert_eq!(cache.refresh(B, OTHER_MAC, at(4)), Update::NOTHING);
    assert_eq!(state(&cache, B), Some(NeighborState::Stale));
    assert_eq!(cache.lookup(B, at(5)), Some(OTHER_MAC));
    // A waiting packet can go.
    let _ = cache.resolve(C, AddressOwner::Stack, 9, at(6));
    assert_eq!(
        cache.learn(C, MAC, at(7)),
        Update {
            ready: Some(9),
            ..Update::NOTHING
        }
    );
    assert_eq!(state(&cache, C), Some(NeighborState::Stale));
}

#[test]
fn impossible_addresses_are_not_learned() {
    let mut cache = cache(4);
    for mac in [
        [0; 6],
        [0xff; 6],
        [1, 0, 0x5e, 0, 0, 1],
        [0x33, 0x33, 0, 0, 0, 1],
    ] {
        assert_eq!(cache.learn(A, mac, at(0)), Update::NOTHING);
    }
    for address in [
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::BROADCAST,
        Ipv4Addr::new(224, 0, 0, 1),
    ] {
        assert_eq!(cache.learn(address, MAC, at(0)), Update::NOTHING);
    }
    assert!(cache.is_empty());
    stale(&mut cache, A, MAC, at(0));
    assert_eq!(cache.refresh(A, [0xff; 6], at(0)), Update::NOTHING);
    assert_eq!(
        cache.advertise(A, Some([1, 0, 0, 0, 0, 0]), true, true, at(0)),
        None
    );
    assert_eq!(
        cache.iter().next(),
        Some((A, Some(MAC), NeighborState::Stale))
    );
}

#[test]
fn the_kernel_is_asked_once_a_second_and_answers() {
    let mut cache = cache(4);
    let kernel = AddressOwner::Kernel;
    assert_eq!(
        cache.resolve(A, kernel, 1, at(0)),
        waiting(Ask::Kernel, None)
    );
    assert_eq!(
        cache.resolve(A, kernel, 2, at(999)),
        waiting(Ask::Nobody, Some(1))
    );
    assert_eq!(
        cache.resolve(A, kernel, 3, at(1000)),
        waiting(Ask::Kernel, Some(2))
    );
    assert_eq!(expire(&mut cache, at(2999)), [], "the stack sends nothing");
    let generation = cache.generation();
    assert_eq!(
        cache.mirror(A, MAC),
        Update {
            ready: Some(3),
            ..Update::NOTHING
        }
    );
    assert_ne!(cache.generation(), generation);
    assert_eq!(cache.lookup(A, at(3000)), Some(MAC));
    assert_eq!(cache.next_deadline(), None);
    // For a neighbour that is known, nobody waits.
    assert_eq!(
        cache.resolve(A, kernel, 4, at(3000)),
        Resolve::Resolved(MAC, 4)
    );
}

#[test]
fn the_kernel_does_not_answer_or_says_no() {
    let mut cache = cache(4);
    let _ = cache.resolve(A, AddressOwner::Kernel, 1, at(0));
    let failed = Action::Failed {
        address: A,
        waiting: Some(1),
    };
    assert_eq!(expire(&mut cache, at(3000)), [failed]);
    assert!(cache.is_empty());
    let _ = cache.resolve(A, AddressOwner::Kernel, 2, at(4000));
    assert_eq!(cache.unmirror(A), Some(2));
    assert!(cache.is_empty());
    assert_eq!(cache.unmirror(A), None);
}

#[test]
fn the_stack_asks_itself_when_it_may() {
    let mut cache = cache(4);
    let _ = cache.resolve(A, AddressOwner::Kernel, 1, at(0));
    assert_eq!(
        cache.resolve(A, AddressOwner::Stack, 2, at(10)),
        waiting(Ask::Neighbor, Some(1))
    );
    assert_eq!(
        cache.resolve(A, AddressOwner::Kernel, 3, at(20)),
        waiting(Ask::Nobody, Some(2))
    );
    // The kernel's failure is not ours.
    assert_eq!(cache.unmirror(A), None);
    assert_eq!(
        expire(&mut cache, at(1010)),
        [Action::SolicitMulticast { address: A }]
    );
}

#[test]
fn mirrored_neighbors_hold_until_removed() {
    let mut cache = cache(4);
    assert_eq!(cache.mirror(A, MAC), Update::NOTHING);
    let generation = cache.generation();
    assert_eq!(cache.mirror(A, MAC), Update::NOTHING);
    assert_eq!(cache.learn(A, OTHER_MAC, at(0)), Update::NOTHING);
    assert_eq!(cache.refresh(A, OTHER_MAC, at(0)), Update::NOTHING);
    assert_eq!(cache.advertise(A, Some(OTHER_MAC), true, true, at(0)), None);
    cache.confirm(A, at(0));
    assert_eq!(cache.lookup(A, at(1_000_000_000)), Some(MAC));
    assert_eq!(state(&cache, A), Some(NeighborState::Mirrored));
    assert_eq!(cache.generation(), generation);
    assert_eq!(cache.mirror(A, OTHER_MAC), Update::NOTHING);
    assert_ne!(cache.generation(), generation);
    let generation = cache.generation();
    assert_eq!(cache.unmirror(A), None);
    assert_ne!(cache.generation(), generation);
    assert_eq!(cache.lookup(A, at(0)), None);
}

#[test]
fn mirroring_takes_an_own_neighbor_over() {
    let mut cache = cache(1);
    reachable(&mut cache, A, MAC, at(0));
    assert_eq!(cache.mirror(A, OTHER_MAC), Update::NOTHING);
    assert_eq!(cache.lookup(A, at(0)), Some(OTHER_MAC));
    assert_eq!(cache.next_deadline(), None);
    // And it is not evicted any more.
    assert_eq!(
        cache.learn(B, MAC, at(0)),
        Update {
            full: true,
            ..Update::NOTHING
        }
    );
    assert_eq!(
        cache.resolve(B, AddressOwner::Stack, 1, at(0)),
        Resolve::Full(1)
    );
    assert_eq!(
        cache.mirror(B, MAC),
        Update {
            full: true,
            ..Update::NOTHING
        }
    );
    assert_eq!(cache.lookup(A, at(0)), Some(OTHER_MAC));
}

#[test]
fn the_oldest_unresolved_goes_first_then_the_least_used() {
    let mut cache = cache(3);
    let address = |n| Ipv4Addr::new(10, 0, 1, n);
    stale(&mut cache, A, MAC, at(0));
    stale(&mut cache, B, MAC, at(1));
    let _ = cache.resolve(address(1), AddressOwner::Stack, 1, at(2));
    // Full: inventions displace inventions.
    assert_eq!(
        cache.resolve(address(2), AddressOwner::Stack, 2, at(3)),
        waiting(Ask::Neighbor, Some(1))
    );
    assert_eq!(
        cache.learn(C, MAC, at(4)),
        Update {
            evicted: Some(2),
            ..Update::NOTHING
        }
    );
    // Only resolved ones are left. A was used last.
    assert_eq!(cache.lookup(A, at(2000)), Some(MAC));
    let generation = cache.generation();
    assert_eq!(cache.mirror(address(3), MAC), Update::NOTHING);
    assert_ne!(cache.generation(), generation);
    assert_eq!(state(&cache, B), None);
    assert!(state(&cache, A).is_some() && state(&cache, C).is_some());
}

#[test]
fn few_packets_wait_whoever_they_are_for() {
    let config = NeighborConfig {
        capacity: 8,
        waiting_max: 2,
        ..NeighborConfig::default()
    };
    let mut cache: Cache = NeighborCache::new(config, HashKey::new([3, 4]));
    let stack = AddressOwner::Stack;
    assert_eq!(
        cache.resolve(A, stack, 1, at(0)),
        waiting(Ask::Neighbor, None)
    );
    assert_eq!(
        cache.resolve(B, stack, 2, at(1)),
        waiting(Ask::Neighbor, None)
    );
    assert_eq!(
        cache.resolve(C, stack, 3, at(2)),
        waiting(Ask::Neighbor, Some(1))
    );
    // The neighbour without its packet is resolved all the same.
    assert_eq!(cache.advertise(A, Some(MAC), true, true, at(3)), None);
    assert_eq!(cache.lookup(A, at(3)), Some(MAC));
    let none = NeighborConfig {
        waiting_max: 0,
        ..config
    };
    let mut cache: Cache = NeighborCache::new(none, HashKey::new([3, 4]));
    assert_eq!(
        cache.resolve(A, stack, 1, at(0)),
        waiting(Ask::Neighbor, Some(1))
    );
}

#[test]
fn a_scan_of_the_subnet_is_no_flood_of_broadcasts() {
    let config = NeighborConfig {
        capacity: 64,
        solicits_per_s: 10,
        solicits_burst: 5,
        ..NeighborConfig::default()
    };
    let mut cache: Cache = NeighborCache::new(config, HashKey::new([3, 4]));
    let mut solicits = 0;
    for ms in 0..10_000u32 {
        let address = Ipv4Addr::from_bits(0x0a00_0000 + ms % 5000);
        let now = at(ms.into());
        if let Resolve::Waiting {
            ask: Ask::Neighbor, ..
        } = cache.resolve(address, AddressOwner::Stack, 1, now)
        {
            solicits += 1;
        }
        solicits += expire(&mut cache, now)
            .iter()
            .filter(|action| matches!(action, Action::SolicitMulticast { .. }))
            .count();
    }
    // 10 a second for 10 seconds, and the burst.
    assert!((95..=105).contains(&solicits), "{solicits}");
}

#[test]
fn clearing_hands_the_packets_out() {
    let mut cache = cache(4);
    let _ = cache.mirror(A, MAC);
    let _ = cache.resolve(B, AddressOwner::Stack, 5, at(0));
    let generation = cache.generation();
    let mut packets = vec![];
    cache.clear(|packet| packets.push(packet));
    assert_eq!(packets, [5]);
    assert!(cache.is_empty());
    assert_eq!(
        (cache.next_deadline(), cache.lookup(A, at(0))),
        (None, None)
    );
    assert_ne!(cache.generation(), generation);
}

#[test]
fn a_cache_without_room_refuses_politely() {
    let mut cache = cache(0);
    assert_eq!(cache.lookup(A, at(0)), None);
    assert_eq!(
        cache.resolve(A, AddressOwner::Stack, 1, at(0)),
        Resolve::Full(1)
    );
    assert_eq!(
        cache.learn(A, MAC, at(0)),
        Update {
            full: true,
            ..Update::NOTHING
        }
    );
    assert_eq!(
        cache.mirror(A, MAC),
        Update {
            full: true,
            ..Update::NOTHING
        }
    );
}

#[test]
fn the_end_of_time_ends() {
    let mut cache = cache(4);
    let end = Instant::from_nanos(u64::MAX);
    for (packet, address) in [(1, A), (2, B), (3, C)] {
        let _ = cache.resolve(address, AddressOwner::Stack, packet, end);
    }
    let mut actions = 0;
    while !cache.is_empty() && actions < 100 {
        cache.expire(end, |_| actions += 1);
    }
    assert!(cache.is_empty());
}

#[test]
fn ipv6_works_the_same() {
    let mut cache: NeighborCache<Ipv6, u32> =
        NeighborCache::new(NeighborConfig::default(), HashKey::new([3, 4]));
    let address: Ipv6Addr = "fe80::1".parse().unwrap();
    assert_eq!(
        cache.resolve(address, AddressOwner::Stack, 1, at(0)),
        waiting(Ask::Neighbor, None)
    );
    assert_eq!(
        cache.advertise(address, Some(MAC), true, false, at(1)),
        Some(1)
    );
    assert_eq!(cache.lookup(address, at(1)), Some(MAC));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Lookup(u8),
    Resolve(u8, AddressOwner),
    Learn(u8, u8),
    Refresh(u8, u8),
    Advertise(u8, Option<u8>, bool, bool),
    Confirm(u8),
    Mirror(u8, u8),
    Unmirror(u8),
    Pass(u64),
}

fn arbitrary_step() -> impl Strategy<Value = Step> {
    let address = 0u8..10;
    let mac = 0u8..3;
    let owner = prop_oneof![Just(AddressOwner::Kernel), Just(AddressOwner::Stack)];
    prop_oneof![
        2 => address.clone().prop_map(Step::Lookup),
        4 => (address.clone(), owner).prop_map(|(a, owner)| Step::Resolve(a, owner)),
        1 => (address.clone(), mac.clone()).prop_map(|(a, mac)| Step::Learn(a, mac)),
        1 => (address.clone(), mac.clone()).prop_map(|(a, mac)| Step::Refresh(a, mac)),
        2 => (address.clone(), prop::option::of(mac.clone()), any::<bool>(), any::<bool>())
            .prop_map(|(a, mac, s, o)| Step::Advertise(a, mac, s, o)),
        1 => address.clone().prop_map(Step::Confirm),
        1 => (address.clone(), mac).prop_map(|(a, mac)| Step::Mirror(a, mac)),
        1 => address.prop_map(Step::Unmirror),
        4 => prop_oneof![0u64..400, Just(1000), 0u64..40_000].prop_map(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever happens: no packet is lost or doubled, mirrored neighbours stay, nobody is asked
    /// more than once a second, answers change only with the generation, and nothing is due before
    /// it was announced.
    #[test]
    fn invariants_hold(
        steps in prop::collection::vec(arbitrary_step(), 1..150),
        capacity in 1usize..12, waiting_max in 0usize..6, solicits_burst in 1u32..50,
    ) {
        let config =
            NeighborConfig { capacity, waiting_max, solicits_burst, ..NeighborConfig::default() };
        let mut cache: Cache = NeighborCache::new(config, HashKey::new([5, 6]));
        let address = |n: u8| Ipv4Addr::new(10, 0, 0, n + 1);
        let mac = |n: u8| [2, 0, 0, 0, 0, n];
        let answers = |cache: &Cache| {
            cache.iter().filter_map(|(a, mac, _)| Some((a, mac?))).collect::<BTreeMap<_, _>>()
        };
        let mut now = at(0);
        let (mut given, mut returned) = (0u32, vec![]);
        let mut mirrored: BTreeMap<Ipv4Addr, MacAddr> = BTreeMap::new();
        let mut asked: BTreeMap<(Ipv4Addr, bool), Instant> = BTreeMap::new();
        let mut failed_or_evicted = false;
        for step in steps {
            let before = (answers(&cache), cache.generation());
            match step {
                Step::Lookup(a) => {
                    let expected = before.0.get(&address(a)).copied();
                    prop_assert_eq!(cache.lookup(address(a), now), expected);
                }
                Step::Resolve(a, owner) => {
                    given += 1;
                    let len = cache.len();
                    let known = cache.iter().any(|entry| entry.0 == address(a));
                    match cache.resolve(address(a), owner, given, now) {
                        Resolve::Resolved(mac, packet) => {
                            prop_assert_eq!(before.0.get(&address(a)), Some(&mac));
                            prop_assert_eq!(packet, given);
                            returned.push(packet);
                        }
                        Resolve::Waiting { ask, displaced } => {
                            failed_or_evicted |= !known && len == capacity;
                            returned.extend(displaced);
                            if ask != Ask::Nobody {
                                let who = (address(a), ask == Ask::Kernel);
                                if let Some(last) = asked.insert(who, now) && !failed_or_evicted {
                                    prop_assert!(now - last >= ONCE_A);
                                }
                            }
                        }
                        Resolve::Full(packet) => {
                            prop_assert_eq!(mirrored.len(), capacity);
                            returned.push(packet);
                        }
                    }
                }
                Step::Learn(a, m) | Step::Refresh(a, m) => {
                    failed_or_evicted |= cache.len() == capacity;
                    let update = match step {
                        Step::Learn(..) => cache.learn(address(a), mac(m), now),
                        _ => cache.refresh(address(a), mac(m), now),
                    };
                    returned.extend(update.ready);
                    returned.extend(update.evicted);
                    prop_assert!(!update.full || mirrored.len() == capacity);
                }
                Step::Advertise(a, m, solicited, override_) => {
                    let ready = cache.advertise(address(a), m.map(mac), solicited, override_, now);
                    returned.extend(ready);
                }
                Step::Confirm(a) => cache.confirm(address(a), now),
                Step::Mirror(a, m) => {
                    failed_or_evicted |= cache.len() == capacity;
                    let update = cache.mirror(address(a), mac(m));
                    returned.extend(update.ready);
                    returned.extend(update.evicted);
                    prop_assert_eq!(
                        update.full,
                        mirrored.len() == capacity && !mirrored.contains_key(&address(a))
                    );
                    if !update.full {
                        mirrored.insert(address(a), mac(m));
                    }
                }
                Step::Unmirror(a) => {
                    // The kernel said no and may be asked again at once; and what was mirrored
                    // starts without a past.
                    asked.remove(&(address(a), true));
                    if mirrored.remove(&address(a)).is_some() {
                        asked.remove(&(address(a), false));
                    }
                    returned.extend(cache.unmirror(address(a)));
                }
                Step::Pass(ms) => {
                    let due = cache.next_deadline();
                    now = now + Duration::from_millis(ms);
                    let mut actions = vec![];
                    cache.expire(now, |action| actions.push(action));
                    prop_assert!(actions.is_empty() || due.is_some_and(|due| due <= now));
                    for action in actions {
                        match action {
                            Action::SolicitMulticast { address } => {
                                let last = asked.insert((address, false), now);
                                if !failed_or_evicted {
                                    prop_assert!(last.is_none_or(|last| now - last >= ONCE_A));
                                }
                            }
                            Action::SolicitUnicast { address, mac } => {
                                prop_assert_eq!(before.0.get(&address), Some(&mac));
                            }
                            Action::Failed { address, waiting } => {
                                prop_assert!(!mirrored.contains_key(&address));
                                returned.extend(waiting);
                            }
                        }
                    }
                }
            }
            if answers(&cache) != before.0 {
                prop_assert_ne!(cache.generation(), before.1, "{:?}", step);
            }
            prop_assert!(cache.len() <= capacity);
            prop_assert!(cache.waiting.len() <= waiting_max);
            for (address, mac) in &mirrored {
                prop_assert_eq!(cache.lookup(*address, now), Some(*mac));
            }
        }
        cache.clear(|packet| returned.push(packet));
        returned.sort_unstable();
        prop_assert_eq!(returned, (1..=given).collect::<Vec<_>>());
    }
}
