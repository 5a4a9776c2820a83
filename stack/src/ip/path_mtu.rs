//! Path MTU learned from ICMP: "fragmentation needed" (RFC 1191) and "packet too big" (RFC 8201).
//!
//! The messages are easy to forge, so the caller first makes sure that the packet one quotes
//! belongs to a flow of ours (RFC 8201 §4, RFC 8899 §4.6.1). Here a message can only lower a path's
//! MTU, never below what a path must carry, and what it did is forgotten after a while.

use crate::hash::HashKey;
use crate::ip::address::{Ip, IpAddress};
use crate::table::{Index, SLOTS_MAX, TimeOrder};
use crate::time::{Duration, Instant};
use alloc::vec::Vec;

/// How long a lowered MTU is believed: then the path is tried in full again, in case it has changed
/// (RFC 1191 §6.3 and RFC 8201 §4 recommend 10 minutes and forbid less than 5).
pub const PATH_MTU_LIFETIME: Duration = Duration::from_secs(600);

/// Below this an IPv4 path's MTU is not lowered, in bytes: 512 of payload and some header, Linux's
/// `min_pmtu`. Links below that are extinct, but a forged 68 would multiply our packets.
pub const IPV4_PATH_MTU_MIN: u32 = 552;

/// MTUs that links used to have, in bytes (RFC 1191 §7.1): what to try when an old router says that
/// a packet was too long, and not how long it may be.
const PLATEAUS: [u32; 11] = [
    65_535, 32_000, 17_914, 8_166, 4_352, 2_002, 1_492, 1_006, 508, 296, 68,
];

/// What is known about the path to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathMtu {
    /// The longest IP packet it carries, in bytes.
    pub mtu: u32,
    /// Whether packets must leave without "don't fragment" (IPv4 only): the path claims to carry
    /// less than [`IPV4_PATH_MTU_MIN`], so routers fragment what we send.
    pub may_fragment: bool,
}

/// What an ICMP message says about a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooBig {
    /// The next hop's MTU in bytes; zero if an old IPv4 router does not say.
    pub next_hop_mtu: u32,
    /// Length of our packet that was too big, in bytes, as its quoted header says: the total length
    /// of IPv4, or the payload length of IPv6 and 40.
    pub packet_len: u32,
}

/// What became of an ICMP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooBigOutcome {
    /// The path's MTU is lower now.
    Lowered(PathMtu),
    /// It is no news: the packet was sent before the path's MTU was lowered.
    NotLower,
    /// It makes no sense: the packet was not longer than what it says the path carries, or shorter
    /// than any packet; or the path carries more than its first hop, where the packet never was.
    Absurd,
    /// It claims less than IPv6 guarantees, and is to be ignored (RFC 8201 §4).
    BelowMinimum,
    /// The table has no room at all.
    Full,
}

/// What is known about one path.
#[derive(Clone, Copy, Debug)]
struct Path<A> {
    destination: A,
    known: PathMtu,
}

/// The paths whose MTU is lower than that of our link, for one IP version. Its memory is fixed when
/// it is made; a full table forgets the path that was lowered the longest time ago.
#[derive(Clone, Debug)]
pub struct PathMtuCache<I: Ip> {
    key: HashKey,
    slots: Vec<Option<Path<I::Addr>>>,
    free: Vec<u32>,
    index: Index,
    /// When each path is tried in full again; so the first is also the oldest.
    deadlines: TimeOrder,
    generation: u64,
}

impl<I: Ip> PathMtuCache<I> {
    /// For at most `capacity` destinations, of 70 to 90 bytes each.
    #[must_use]
    pub fn new(capacity: usize, key: HashKey) -> Self {
        let capacity = capacity.min(SLOTS_MAX);
        let mut slots = Vec::new();
        slots.resize_with(capacity, || None);
        Self {
            key,
            slots,
            free: (0u32..)
                .take(capacity)
                .collect::<Vec<_>>()
                .into_iter()
                .rev()
                .collect(),
            index: Index::new(capacity),
            deadlines: TimeOrder::new(capacity),
            generation: 0,
        }
    }

    /// What is known about the path to `destination`; `None` if nothing is, so that the route and
    /// the link decide. What this answers is never above them when they were told at
    /// [`too_big`](Self::too_big), but they may have changed since: take the least.
    #[inline]
    #[must_use]
    pub fn get(&self, destination: I::Addr) -> Option<PathMtu> {
        // Most of the time no path is known to be narrow.
        if self.index.is_empty() {
            return None;
        }
        let slot = self.find(destination)?;
        self.slots[slot as usize].map(|path| path.known)
    }

    /// Changes whenever an answer of [`get`](Self::get) may change.
    #[inline]
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// A packet of ours to `destination` was too big somewhere. `first_hop_mtu` is what route and
    /// link allow.
    pub fn too_big(
        &mut self,
        destination: I::Addr,
        message: TooBig,
        first_hop_mtu: u32,
        now: Instant,
    ) -> TooBigOutcome {
        let TooBig {
            next_hop_mtu,
            packet_len,
        } = message;
        let header_len = u32::try_from(I::HEADER_BYTES).unwrap_or(0);
        let absurd = next_hop_mtu >= packet_len || next_hop_mtu > first_hop_mtu;
        if packet_len < header_len || absurd {
            return TooBigOutcome::Absurd;
        }
        let found = self.find(destination);
        let current = found
            .and_then(|slot| self.slots[slot as usize])
            .map_or(first_hop_mtu, |path| path.known.mtu.min(first_hop_mtu));
        let claimed = match (I::VERSION, next_hop_mtu) {
            // RFC 1191 §5: the longest plateau below the packet that did not fit. Some old routers
            // count its header twice, so a length above what we send now is one header too long.
            (4, 0) if packet_len > current => plateau_below(packet_len - header_len),
            (4, 0) => plateau_below(packet_len),
            (_, mtu) => mtu,
        };
        let known = match I::VERSION {
            4 if claimed < IPV4_PATH_MTU_MIN => PathMtu {
                mtu: IPV4_PATH_MTU_MIN,
                may_fragment: true,
            },
            // RFC 8201 §4: such a message must be ignored.
            6 if claimed < I::MIN_MTU => return TooBigOutcome::BelowMinimum,
            _ => PathMtu {
                mtu: claimed,
                may_fragment: false,
            },
        };
        let may_fragment_already = found
            .and_then(|slot| self.slots[slot as usize])
            .is_some_and(|path| path.known.may_fragment);
        // RFC 1191 §6.3, RFC 8201 §4: no message raises an MTU.
        if known.mtu >= current && (!known.may_fragment || may_fragment_already) {
            return TooBigOutcome::NotLower;
        }
        let known = PathMtu {
            mtu: known.mtu.min(current),
            ..known
        };
        let Some(slot) = found.or_else(|| self.add(destination)) else {
            return TooBigOutcome::Full;
        };
        self.slots[slot as usize] = Some(Path { destination, known });
        self.deadlines.set(slot, now + PATH_MTU_LIFETIME);
        self.generation += 1;
        TooBigOutcome::Lowered(known)
    }

    /// Forgets the paths that are to be tried in full again.
    pub fn expire(&mut self, now: Instant) {
        while let Some(slot) = self.deadlines.pop_due(now) {
            self.remove(slot);
        }
    }

    /// When [`expire`](Self::expire) has something to do next.
    #[inline]
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| at)
    }

    /// All paths, in no particular order.
    #[cfg(test)]
    fn iter(&self) -> impl Iterator<Item = (I::Addr, PathMtu)> + '_ {
        self.slots
            .iter()
            .flatten()
            .map(|path| (path.destination, path.known))
    }

    /// How many paths are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    #[inline]
    fn find(&self, destination: I::Addr) -> Option<u32> {
        self.index.find(destination.keyed_hash(&self.key), |slot| {
            self.slots[slot as usize].is_some_and(|path| path.destination == destination)
        })
    }

    /// A slot for a destination that has none, if need be the oldest path's.
    fn add(&mut self, destination: I::Addr) -> Option<u32> {
        if self.free.is_empty() {
            let (_, oldest) = self.deadlines.first()?;
            self.remove(oldest);
        }
        let slot = self.free.pop()?;
        self.index.insert(destination.keyed_hash(&self.key), slot);
        Some(slot)
    }

    fn remove(&mut self, slot: u32) {
        let Some(path) = self.slots[slot as usize].take() else {
            return;
        };
        self.index
            .remove(path.destination.keyed_hash(&self.key), slot);
        self.deadlines.remove(slot);
        self.free.push(slot);
        self.generation += 1;
    }
}

/// The highest plateau below `len`; the lowest if there is none.
fn plateau_below(len: u32) -> u32 {
    let [.., lowest] = PLATEAUS;
    PLATEAUS
        .into_iter()
        .find(|&plateau| plateau < len)
        .unwrap_or(lowest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ip::address::{Ipv4, Ipv6};
    use alloc::collections::BTreeMap;
    use core::net::{Ipv4Addr, Ipv6Addr};
    use proptest::prelude::*;

    const A: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const B: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

    fn at(s: u64) -> Instant {
        Instant::from_nanos(s * 1_000_000_000)
    }

    fn v4() -> PathMtuCache<Ipv4> {
        PathMtuCache::new(4, HashKey::new([1, 2]))
    }

    fn lowered(mtu: u32) -> TooBigOutcome {
        TooBigOutcome::Lowered(PathMtu {
            mtu,
            may_fragment: false,
        })
    }

    fn big(next_hop_mtu: u32, packet_len: u32) -> TooBig {
        TooBig {
            next_hop_mtu,
            packet_len,
        }
    }

    #[test]
    fn messages_only_lower() {
        let mut cache = v4();
        assert_eq!(cache.get(A), None);
        assert_eq!(
            cache.too_big(A, big(1400, 1500), 1500, at(0)),
            lowered(1400)
        );
        let known = PathMtu {
            mtu: 1400,
            may_fragment: false,
        };
        assert_eq!(cache.get(A), Some(known));
        let generation = cache.generation();
        // Sent before the first message came.
        assert_eq!(
            cache.too_big(A, big(1400, 1500), 1500, at(1)),
            TooBigOutcome::NotLower
        );
        assert_eq!(
            cache.too_big(A, big(1450, 1500), 1500, at(1)),
            TooBigOutcome::NotLower
        );
        // Nor does it help to lie about the packet.
        assert_eq!(
            cache.too_big(A, big(1500, 9000), 1500, at(1)),
            TooBigOutcome::NotLower
        );
        assert_eq!(
            cache.too_big(A, big(1501, 9000), 1500, at(1)),
            TooBigOutcome::Absurd
        );
        assert_eq!(
            (cache.get(A), cache.generation()),
            (Some(known), generation)
        );
        assert_eq!(
            cache.too_big(A, big(1300, 1400), 1500, at(2)),
            lowered(1300)
        );
        assert_ne!(cache.generation(), generation);
    }

    #[test]
    fn a_narrower_first_hop_makes_messages_no_news() {
        let mut cache = v4();
        assert_eq!(
            cache.too_big(A, big(1400, 1500), 1500, at(0)),
            lowered(1400)
        );
        assert_eq!(
            cache.too_big(A, big(1300, 1400), 1300, at(1)),
            TooBigOutcome::NotLower
        );
        assert_eq!(
            cache.too_big(A, big(1250, 1300), 1300, at(1)),
            lowered(1250)
        );
    }

    #[test]
    fn absurd_messages_are_ignored() {
        let mut cache = v4();
        for message in [
            big(1400, 1400),
            big(1400, 1000),
            big(0, 0),
            big(0, 19),
            big(1, 19),
        ] {
            let outcome = cache.too_big(A, message, 1500, at(0));
            assert_eq!(outcome, TooBigOutcome::Absurd, "{message:?}");
        }
        // Above what the first hop carries, whatever it says of the packet.
        for mtu in [1501, 4000, u32::MAX - 1] {
            let outcome = cache.too_big(A, big(mtu, u32::MAX), 1500, at(0));
            assert_eq!(outcome, TooBigOutcome::Absurd, "{mtu}");
        }
        assert!(cache.is_empty());
    }

    #[test]
    fn below_the_minimum_ipv4_lets_routers_fragment() {
        let mut cache = v4();
        let known = PathMtu {
            mtu: 552,
            may_fragment: true,
        };
        assert_eq!(
            cache.too_big(A, big(68, 1500), 1500, at(0)),
            TooBigOutcome::Lowered(known)
        );
        assert_eq!(cache.get(A), Some(known));
        assert_eq!(
            cache.too_big(A, big(68, 552), 1500, at(0)),
            TooBigOutcome::NotLower
        );
        // From the minimum exactly, too.
        let mut cache = v4();
        assert_eq!(cache.too_big(A, big(552, 1500), 1500, at(0)), lowered(552));
        assert_eq!(
            cache.too_big(A, big(300, 552), 1500, at(0)),
            TooBigOutcome::Lowered(known)
        );
        // A link narrower than the minimum stays as narrow.
        let mut cache = v4();
        let narrow = PathMtu {
            mtu: 400,
            may_fragment: true,
        };
        assert_eq!(
            cache.too_big(A, big(300, 400), 400, at(0)),
            TooBigOutcome::Lowered(narrow)
        );
    }

    #[test]
    fn below_the_minimum_ipv6_ignores() {
        let mut cache: PathMtuCache<Ipv6> = PathMtuCache::new(4, HashKey::new([1, 2]));
        for mtu in [0, 68, 1279] {
            let outcome = cache.too_big(B, big(mtu, 1500), 1500, at(0));
            assert_eq!(outcome, TooBigOutcome::BelowMinimum);
        }
        assert_eq!(cache.get(B), None);
        assert_eq!(
            cache.too_big(B, big(1280, 1500), 1500, at(0)),
            lowered(1280)
        );
    }

    #[test]
    fn old_routers_lead_down_the_plateaus() {
        let mut cache = v4();
        let mut packet_len = 9000;
        for expected in [8166, 4352, 2002, 1492, 1006] {
            let outcome = cache.too_big(A, big(0, packet_len), 9000, at(0));
            assert_eq!(outcome, lowered(expected));
            packet_len = expected;
        }
        let last = PathMtu {
            mtu: 552,
            may_fragment: true,
        };
        assert_eq!(
            cache.too_big(A, big(0, packet_len), 9000, at(0)),
            TooBigOutcome::Lowered(last)
        );
        // RFC 1191 §5: a length one header above what was sent counts that header twice.
        let mut cache = v4();
        assert_eq!(cache.too_big(A, big(0, 1520), 1500, at(0)), lowered(1492));
        let mut cache = v4();
        assert_eq!(cache.too_big(A, big(0, 1512), 1492, at(0)), lowered(1006));
        assert_eq!(
            [plateau_below(0), plateau_below(68), plateau_below(69)],
            [68; 3]
        );
    }

    #[test]
    fn a_path_is_tried_in_full_again_ten_minutes_after_it_was_lowered() {
        let mut cache = v4();
        assert_eq!(
            cache.too_big(A, big(1400, 1500), 1500, at(0)),
            lowered(1400)
        );
        assert_eq!(
            cache.too_big(A, big(1400, 1500), 1500, at(100)),
            TooBigOutcome::NotLower
        );
        assert_eq!(cache.next_deadline(), Some(at(600)));
        cache.expire(at(599));
        assert!(cache.get(A).is_some());
        assert_eq!(
            cache.too_big(A, big(1300, 1400), 1500, at(599)),
            lowered(1300)
        );
        cache.expire(at(1198));
        assert!(cache.get(A).is_some());
        let generation = cache.generation();
        cache.expire(at(1199));
        assert_eq!((cache.get(A), cache.next_deadline()), (None, None));
        assert_ne!(cache.generation(), generation);
    }

    #[test]
    fn a_full_table_forgets_the_oldest() {
        let mut cache = v4();
        let address = |n: u8| Ipv4Addr::new(10, 0, 0, n);
        for n in 0..4 {
            let now = at(n.into());
            assert_eq!(
                cache.too_big(address(n), big(1400, 1500), 1500, now),
                lowered(1400)
            );
        }
        assert_eq!(
            cache.too_big(address(0), big(1300, 1400), 1500, at(10)),
            lowered(1300)
        );
        assert_eq!(
            cache.too_big(address(9), big(1400, 1500), 1500, at(11)),
            lowered(1400)
        );
        assert_eq!(cache.get(address(1)), None);
        assert!(
            [0, 2, 3, 9]
                .into_iter()
                .all(|n| cache.get(address(n)).is_some())
        );
        cache.expire(at(10_000));
        assert!(cache.is_empty() && cache.next_deadline().is_none());
        let mut none: PathMtuCache<Ipv4> = PathMtuCache::new(0, HashKey::new([1, 2]));
        assert_eq!(
            none.too_big(A, big(1400, 1500), 1500, at(0)),
            TooBigOutcome::Full
        );
    }

    proptest! {
        /// Against a map without limits: what is known only falls until it expires, stays between
        /// the minimum and the first hop, and answers change only with the generation.
        #[test]
        fn what_is_known_only_falls(
            steps in prop::collection::vec(
                (0u8..6, prop_oneof![Just(0u32), 0u32..2000, any::<u32>()],
                 prop_oneof![0u32..2000, any::<u32>()], 0u64..300), 1..100),
            first_hop_mtu in 552u32..9000,
        ) {
            let mut cache = v4();
            let mut now = 0;
            for (n, next_hop_mtu, packet_len, pause) in steps {
                now += pause;
                let due = cache.next_deadline().is_some_and(|deadline| deadline <= at(now));
                let len = cache.len();
                cache.expire(at(now));
                prop_assert_eq!(due, cache.len() < len);
                let before: BTreeMap<_, _> = cache.iter().collect();
                let generation = cache.generation();
                let destination = Ipv4Addr::new(10, 0, 0, n);
                let outcome =
                    cache.too_big(destination, big(next_hop_mtu, packet_len), first_hop_mtu, at(now));
                let after: BTreeMap<_, _> = cache.iter().collect();
                prop_assert!(after.len() <= 4);
                prop_assert_eq!(before == after, cache.generation() == generation);
                let was = before.get(&destination);
                match outcome {
                    TooBigOutcome::Lowered(known) => {
                        prop_assert_eq!(cache.get(destination), Some(known));
                        prop_assert!((552..=first_hop_mtu).contains(&known.mtu));
                        prop_assert!(known.mtu < packet_len || known.may_fragment);
                        prop_assert!(was.is_none_or(|was| known.mtu < was.mtu
                            || known.may_fragment && !was.may_fragment));
                        prop_assert!(next_hop_mtu == 0 || known.mtu <= next_hop_mtu.max(552));
                    }
                    _ => prop_assert_eq!(before, after),
                }
            }
        }
    }
}
