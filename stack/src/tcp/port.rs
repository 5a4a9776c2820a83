//! Source ports of connections opened from here (RFC 6056 §3.3.4, algorithm 4: two hashes).
//!
//! Towards each peer ports are used one after the other, so that one comes again as late as possible;
//! where the row starts is a secret of its own for each pair of addresses and peer's port, and how
//! far it has come is counted in one of many counters, so that who connects to one peer of ours
//! cannot tell how many connections go to others.

use crate::ip::address::IpAddress;
use crate::tcp::isn::{Purpose, Secret};
use crate::tcp::tuple::Tuple;
use alloc::boxed::Box;
use alloc::vec;
use core::ops::RangeInclusive;

/// Counters. The more there are, the less somebody's connections tell of others'; 256 take one
/// kilobyte, and RFC 6056 §3.3.4 finds even ten useful.
const COUNTERS: usize = 256;

/// Chooses source ports.
#[derive(Clone, Debug)]
pub struct PortSelector {
    secret: Secret,
    first: u16,
    /// How many ports there are, 1 to 65,535.
    ports: u32,
    counters: Box<[u32]>,
}

impl PortSelector {
    /// Out of `range`; `None` if it is empty or contains port 0, which nobody can have.
    #[must_use]
    pub fn new(secret: Secret, range: RangeInclusive<u16>) -> Option<Self> {
        if range.is_empty() || *range.start() == 0 {
            return None;
        }
        Some(Self {
            secret,
            first: *range.start(),
            ports: u32::from(*range.end() - *range.start()) + 1,
            counters: vec![0; COUNTERS].into_boxed_slice(),
        })
    }

    /// Ports to try for a connection from `local` to `remote_port` of `remote`: each of the range,
    /// once. Take the first that is free; those passed over are not tried first by the next.
    pub fn candidates<A: IpAddress>(
        &mut self,
        local: A,
        remote: A,
        remote_port: u16,
    ) -> Candidates<'_> {
        let tuple = Tuple {
            local,
            remote,
            local_port: 0,
            remote_port,
        };
        let Self {
            secret,
            first,
            ports,
            counters,
        } = self;
        let [a, b, c, d, ..] = secret.hash(Purpose::Port, &tuple, &[]).to_le_bytes();
        let [index, ..] = secret.hash(Purpose::PortTable, &tuple, &[]).to_le_bytes();
        Candidates {
            // Reduced before anything is added, so that the sum does not wrap around on the way.
            offset: u32::from_le_bytes([a, b, c, d]) % *ports,
            counter: &mut counters[usize::from(index) % COUNTERS],
            first: *first,
            ports: *ports,
            left: *ports,
        }
    }
}

/// Ports to try, see [`PortSelector::candidates`].
#[derive(Debug)]
pub struct Candidates<'a> {
    offset: u32,
    /// Below `ports`.
    counter: &'a mut u32,
    first: u16,
    ports: u32,
    left: u32,
}

impl Iterator for Candidates<'_> {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        self.left = self.left.checked_sub(1)?;
        let step = (self.offset + *self.counter) % self.ports;
        *self.counter = (*self.counter + 1) % self.ports;
        Some(
            self.first
                + u16::try_from(step).expect("invariant: there are not more ports than u16 has"),
        )
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.left as usize;
        (left, Some(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use alloc::vec::Vec;
    use core::net::Ipv4Addr;
    use proptest::prelude::*;

    const SECRET: Secret = Secret::new([11, 12]);
    const LOCAL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

    fn remote(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(198, 51, 100, last)
    }

    #[test]
    fn an_impossible_range_is_refused() {
        #[expect(clippy::reversed_empty_ranges, reason = "that is the point")]
        let backwards = 2..=1;
        assert!(PortSelector::new(SECRET, backwards).is_none());
        assert!(PortSelector::new(SECRET, 0..=5).is_none());
        assert!(PortSelector::new(SECRET, 1..=u16::MAX).is_some());
    }

    #[test]
    fn ports_to_one_peer_come_again_as_late_as_possible() {
        let mut selector = PortSelector::new(SECRET, 1000..=1099).unwrap();
        let mut connect = || selector.candidates(LOCAL, remote(1), 80).next().unwrap();
        let first: Vec<u16> = core::iter::repeat_with(&mut connect).take(100).collect();
        assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 100);
        assert_eq!(connect(), first[0]);
    }

    #[test]
    fn what_was_passed_over_is_not_tried_first_again() {
        let mut selector = PortSelector::new(SECRET, 1000..=1099).unwrap();
        let taken: Vec<u16> = selector.candidates(LOCAL, remote(1), 80).take(10).collect();
        let next = selector.candidates(LOCAL, remote(1), 80).next().unwrap();
        assert!(!taken.contains(&next));
    }

    /// RFC 6056 §3.3.3: the row starts elsewhere for each address and port.
    #[test]
    fn rows_to_different_peers_start_anywhere() {
        let mut selector = PortSelector::new(SECRET, 32_768..=60_999).unwrap();
        let mut starts = BTreeSet::new();
        for last in 0..=255 {
            starts.extend(selector.candidates(LOCAL, remote(last), 80).next());
            starts.extend(selector.candidates(LOCAL, remote(last), 443).next());
        }
        // Of 512 out of 28,232 about five meet by chance.
        assert!(starts.len() > 490, "{}", starts.len());
    }

    proptest! {
        #[test]
        fn every_port_of_the_range_comes_once(
            start in 1u16.., len in 0u16..300, earlier in 0usize..400, secret: [u64; 2],
        ) {
            let range = start..=start.saturating_add(len);
            let mut selector = PortSelector::new(Secret::new(secret), range.clone()).unwrap();
            let _ = selector.candidates(LOCAL, remote(1), 80).take(earlier).count();
            let mut ports: Vec<u16> = selector.candidates(LOCAL, remote(1), 80).collect();
            ports.sort_unstable();
            prop_assert_eq!(ports, range.collect::<Vec<_>>());
        }
    }
}
