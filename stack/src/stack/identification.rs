//! Numbers for datagrams that may come in pieces.
//!
//! A receiver puts together what has the same number, so two datagrams of one pair of hosts must not
//! have the same one while their pieces may live (RFC 6864 §4, RFC 8200 §4.5); and what one host sees
//! of the numbers must not tell it how much we send to another (RFC 7739).

use super::Config;
use crate::hash::HashKey;
use alloc::boxed::Box;
use core::net::IpAddr;

/// Counters that pairs of hosts share by keyed hash (RFC 7739 §5.3): enough that a stranger hardly
/// ever shares one with whom he wants to observe.
const COUNTERS: usize = 1024;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Identifications {
    counters: Box<[u32; COUNTERS]>,
    key: HashKey,
    /// Numbers of this worker are those that leave `worker` when divided by `stride`.
    worker: u32,
    /// A power of two, so that it divides the 16 bits of IPv4 as well.
    stride: u32,
}

impl Identifications {
    pub(super) fn new(config: &Config, key: HashKey) -> Self {
        Self {
            counters: Box::new([0; COUNTERS]),
            key,
            worker: config.worker.into(),
            stride: u32::from(config.workers.max(1)).next_power_of_two(),
        }
    }

    /// The next number from `source` to `destination`; IPv4 uses its lower 16 bits.
    pub(super) fn next(&mut self, source: IpAddr, destination: IpAddr) -> u32 {
        // Only SipHash may be seen outside, see `hash`.
        let mut message = [0; 34];
        message[0] = b'i';
        for (at, address) in [(1, source), (17, destination)] {
            let octets = match address {
                IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                IpAddr::V6(address) => address.octets(),
            };
            message[at..at + 16].copy_from_slice(&octets);
        }
        let hash = self.key.hash_bytes(&message);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "one half starts the count, the other chooses the counter"
        )]
        let (start, choice) = (hash as u32, (hash >> 32) as usize);
        let counter = &mut self.counters[choice % COUNTERS];
        *counter = counter.wrapping_add(1);
        let number = counter.wrapping_add(start);
        number.wrapping_mul(self.stride).wrapping_add(self.worker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;

    #[test]
    fn workers_never_share_a_number_even_of_16_bits() {
        let config = |worker| Config {
            worker,
            workers: 3,
            ..Config::default()
        };
        let key = HashKey::new([3, 4]);
        let [source, destination] = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse().unwrap());
        let mut seen = BTreeSet::new();
        for worker in 0..3 {
            let mut numbers = Identifications::new(&config(worker), key);
            for _ in 0..10_000 {
                let number = numbers.next(source, destination) & 0xffff;
                assert!(seen.insert(number), "worker {worker} repeats {number}");
            }
        }
    }

    #[test]
    fn pairs_of_hosts_count_apart() {
        let mut numbers = Identifications::new(&Config::default(), HashKey::new([3, 4]));
        let address = |n: u8| IpAddr::from([192, 0, 2, n]);
        let first = numbers.next(address(1), address(2));
        let other = numbers.next(address(1), address(3));
        assert_ne!(first.wrapping_add(1), other);
        assert_eq!(numbers.next(address(1), address(2)), first.wrapping_add(1));
    }
}
