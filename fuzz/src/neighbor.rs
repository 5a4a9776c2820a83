//! The neighbour cache, with a ledger of the packets it was given.

use crate::world::packets::Choices;
use stack::hash::HashKey;
use stack::ip::address::Ipv4;
use stack::ip::neighbor::{NeighborAction, NeighborCache, NeighborConfig, Resolve};
use stack::link::{AddressOwner, MacAddr};
use stack::time::{Duration, Instant};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Operations of three bytes: which, on which neighbour, with which address or time.
pub fn neighbor(data: &[u8]) {
    let mut choices = Choices::new(data);
    let config = NeighborConfig {
        capacity: choices.below(8),
        waiting_max: choices.below(4),
        solicits_burst: 1 + u32::from(choices.byte() % 16),
        ..NeighborConfig::default()
    };
    let mut cache = NeighborCache::<Ipv4, u32>::new(config, HashKey::new([5, 6]));
    let mut now = Instant::from_nanos(1_000_000_000);
    let mut mirrored: BTreeMap<Ipv4Addr, MacAddr> = BTreeMap::new();
    let (mut given, mut returned) = (0u32, Vec::new());
    for step in choices.rest().chunks(3).take(512) {
        let mut choices = Choices::new(step);
        let what = choices.byte();
        let address = Ipv4Addr::new(10, 0, 0, choices.byte() % 12);
        let value = choices.byte();
        let mac = [2 | (value >> 7), 0, 0, 0, 0, value % 4];
        let owner = match value & 1 {
            0 => AddressOwner::Stack,
            _ => AddressOwner::Kernel,
        };
        let answer = cache
            .iter()
            .find(|entry| entry.0 == address)
            .and_then(|entry| entry.1);
        match what % 10 {
            0 => assert_eq!(cache.lookup(address, now), answer),
            1 | 2 => {
                given += 1;
                match cache.resolve(address, owner, given, now) {
                    Resolve::Resolved(mac, packet) => {
                        assert_eq!((Some(mac), packet), (answer, given));
                        returned.push(packet);
                    }
                    Resolve::Waiting { ask: _, displaced } => {
                        assert_eq!(answer, None);
                        returned.extend(displaced);
                    }
                    Resolve::Full(packet) => {
                        assert_eq!(mirrored.len(), config.capacity);
                        assert_eq!(packet, given);
                        returned.push(packet);
                    }
                }
            }
            3 => match cache.inquire(address, owner, now) {
                Some((_, evicted)) => returned.extend(evicted),
                None => assert_eq!(mirrored.len(), config.capacity),
            },
            4 | 5 => {
                let update = match what % 10 {
                    4 => cache.learn(address, mac, now),
                    _ => cache.refresh(address, mac, now),
                };
                returned.extend(update.ready);
                returned.extend(update.evicted);
            }
            6 => {
                let mac = (value & 2 == 0).then_some(mac);
                let (solicited, overrides) = (value & 4 == 0, value & 8 == 0);
                returned.extend(cache.advertise(address, mac, solicited, overrides, now));
            }
            7 => {
                let mac = [2, 0, 0, 0, 1, value];
                let update = cache.mirror(address, mac);
                returned.extend(update.ready);
                returned.extend(update.evicted);
                if !update.full {
                    mirrored.insert(address, mac);
                }
            }
            8 => {
                mirrored.remove(&address);
                returned.extend(cache.unmirror(address));
            }
            _ => {
                now = now + Duration::from_millis(u64::from(value) * 150);
                let due = cache.next_deadline().is_some_and(|at| at <= now);
                cache.expire(now, |action| {
                    assert!(due, "nothing happens before its time");
                    if let NeighborAction::Failed { address, waiting } = action {
                        assert!(!mirrored.contains_key(&address));
                        returned.extend(waiting);
                    }
                });
            }
        }
        assert!(cache.len() <= config.capacity);
        for (address, mac) in &mirrored {
            assert_eq!(
                cache.lookup(*address, now),
                Some(*mac),
                "the kernel's word holds"
            );
        }
    }
    cache.clear(|packet| returned.push(packet));
    returned.sort_unstable();
    assert_eq!(
        returned,
        (1..=given).collect::<Vec<_>>(),
        "none lost, none twice"
    );
}
