//! The tables of the internet layer allocate when they are made and never again: whatever packets
//! do to them, the allocator is not called.

#[path = "support/allocator.rs"]
mod allocator;

use allocator::{Random, allocations};
use core::net::Ipv4Addr;
use stack::hash::HashKey;
use stack::ip::address::Ipv4;
use stack::ip::neighbor::{NeighborCache, NeighborConfig};
use stack::ip::path_mtu::{PathMtuCache, TooBig};
use stack::ip::rate_limit::{IcmpErrorLimiter, IcmpErrorLimits};
use stack::ip::reassembly::{
    Fragment, FragmentKey, FragmentOutcome, Insertion, Reassembler, ReassemblyConfig,
};
use stack::ip::route::{Route, RouteTable};
use stack::link::AddressOwner;
use stack::time::{Duration, Instant};

fn key() -> HashKey {
    HashKey::new([1, 2])
}

const ROUNDS: u32 = 50_000;

#[test]
fn neighbors_do_not_allocate() {
    let config = NeighborConfig {
        capacity: 64,
        waiting_max: 16,
        ..NeighborConfig::default()
    };
    let mut cache: NeighborCache<Ipv4, u32> = NeighborCache::new(config, key());
    let mut random = Random(1);
    let mut now = Instant::ZERO;
    let (mut resolved, mut failed) = (0, 0);
    let calls = allocations(|| {
        for n in 0..ROUNDS {
            let address = Ipv4Addr::from_bits(0x0a00_0001 + random.below(200));
            let mac = [2, 0, 0, 0, 0, random.next().to_le_bytes()[0]];
            match random.below(10) {
                0 => drop(cache.mirror(address, mac)),
                1 => drop(cache.unmirror(address)),
                2 => drop(cache.learn(address, mac, now)),
                3 => drop(cache.advertise(address, Some(mac), true, true, now)),
                4 => cache.confirm(address, now),
                5 | 6 => resolved += u32::from(cache.lookup(address, now).is_some()),
                7 => drop(cache.resolve(address, AddressOwner::Kernel, n, now)),
                _ => drop(cache.resolve(address, AddressOwner::Stack, n, now)),
            }
            now = now + Duration::from_millis(random.below(100).into());
            cache.expire(now, |_| failed += 1);
        }
        cache.clear(|_| {});
    });
    assert_eq!(calls, 0);
    assert!(
        resolved > 0 && failed > 0,
        "{resolved} {failed}: nothing happened"
    );
}

#[test]
fn reassembly_does_not_allocate() {
    let config = ReassemblyConfig {
        datagrams_max: 16,
        datagrams_per_source_max: 4,
        payload_bytes_max: 64 << 10,
        timeout: Duration::from_secs(1),
    };
    let mut reassembler: Reassembler<Ipv4> = Reassembler::new(config, key());
    let mut random = Random(2);
    let mut now = Instant::ZERO;
    let payload = [7; 1480];
    let (mut complete, mut dropped, mut evictions, mut expired) = (0, 0, 0, 0);
    let calls = allocations(|| {
        for _ in 0..ROUNDS {
            let key = FragmentKey {
                source: Ipv4Addr::from_bits(random.below(8)),
                destination: Ipv4Addr::LOCALHOST,
                identification: random.below(8),
                protocol: 17,
            };
            let part = random.below(3);
            let offset_bytes = if random.below(20) == 0 {
                8
            } else {
                part as usize * 1480
            };
            let fragment = Fragment {
                offset_bytes,
                more: part < 2,
                ecn: random.below(4).to_le_bytes()[0],
                header: &payload[..20],
                payload: &payload,
            };
            let Insertion { outcome, evicted } = reassembler.insert(key, &fragment, now);
            match outcome {
                FragmentOutcome::Queued => {}
                FragmentOutcome::Complete(_) => complete += 1,
                FragmentOutcome::Dropped(_) => dropped += 1,
            }
            evictions += evicted;
            now = now + Duration::from_millis(random.below(100).into());
            reassembler.expire(now, |_| expired += 1);
        }
    });
    assert_eq!(calls, 0);
    let happened = [complete, dropped, evictions, expired];
    assert!(
        happened.iter().all(|&count| count > 0),
        "{happened:?}: something never happened"
    );
}

#[test]
fn path_mtu_does_not_allocate() {
    let mut cache: PathMtuCache<Ipv4> = PathMtuCache::new(64, key());
    let mut random = Random(3);
    let mut now = Instant::ZERO;
    let mut known = 0;
    let calls = allocations(|| {
        for _ in 0..ROUNDS {
            let destination = Ipv4Addr::from_bits(random.below(200));
            let message = TooBig {
                next_hop_mtu: random.below(2000),
                packet_len: 1500,
            };
            cache.too_big(destination, message, 1500, now);
            known += u32::from(cache.get(Ipv4Addr::from_bits(random.below(200))).is_some());
            now = now + Duration::from_millis(random.below(10_000).into());
            cache.expire(now);
        }
    });
    assert_eq!(calls, 0);
    assert!(known > 0);
}

#[test]
fn limits_and_routes_do_not_allocate() {
    let mut limiter = IcmpErrorLimiter::new(IcmpErrorLimits::default(), 256, key());
    let routes = (0..=24).map(|len| Route::on_link(Ipv4Addr::new(10, 1, 2, 3).into(), len));
    let table = RouteTable::new(routes.collect(), 100).unwrap();
    let mut random = Random(4);
    let mut now = Instant::ZERO;
    let (mut allowed, mut routed) = (0, 0);
    let calls = allocations(|| {
        for _ in 0..ROUNDS {
            let address = Ipv4Addr::from_bits(random.next());
            allowed += u32::from(limiter.allow::<Ipv4>(address, now));
            routed += u32::from(table.lookup::<Ipv4>(address).is_some());
            now = now + Duration::from_micros(random.below(100).into());
        }
    });
    assert_eq!(calls, 0);
    assert!(allowed > 0 && allowed < ROUNDS && routed == ROUNDS);
}
