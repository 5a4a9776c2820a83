//! Whatever comes: against an oracle, within limits, without a panic.

use super::*;
use proptest::prelude::*;

/// A list of fragments, compared one by one.
#[derive(Default)]
struct Oracle {
    fragments: Vec<(usize, bool, Vec<u8>)>,
    refused: bool,
}

impl Oracle {
    fn give(&mut self, offset: usize, more: bool, payload: &[u8]) -> Got {
        if payload.is_empty() {
            return Got::Dropped(FragmentDrop::Empty);
        }
        if more && !payload.len().is_multiple_of(8) {
            return Got::Dropped(FragmentDrop::Unaligned);
        }
        let end = offset + payload.len();
        let header_len = if offset == 0 { HEADER.len() } else { 0 };
        if header_len + end > 65_535 {
            return Got::Dropped(FragmentDrop::TooLong);
        }
        if self.refused {
            return Got::Dropped(FragmentDrop::Overlap);
        }
        let this = (offset, more, payload.to_vec());
        if self.fragments.contains(&this) {
            return Got::Dropped(FragmentDrop::Duplicate);
        }
        self.refused = self.fragments.iter().any(|(other, other_more, bytes)| {
            let other_end = other + bytes.len();
            let overlaps = offset < other_end && *other < end;
            let beyond = (!more && other_end > end) || (!other_more && end > other_end);
            overlaps || beyond || (!more && !other_more)
        });
        if self.refused {
            return Got::Dropped(FragmentDrop::Overlap);
        }
        self.fragments.push(this);
        self.fragments.sort();
        let mut whole = vec![];
        for (offset, more, bytes) in &self.fragments {
            if *offset != whole.len() {
                return Got::Queued;
            }
            whole.extend(bytes);
            if !more {
                if HEADER.len() + whole.len() > 65_535 {
                    self.refused = true;
                    return Got::Dropped(FragmentDrop::TooLong);
                }
                *self = Self::default();
                return Got::Complete(whole);
            }
        }
        Got::Queued
    }
}

/// A datagram cut up and shuffled, with copies, and with strays that may overlap.
fn arbitrary_fragments() -> impl Strategy<Value = Vec<(usize, bool, Vec<u8>)>> {
    let len = prop_oneof![
        1usize..200,
        1000usize..1100,
        1usize..5000,
        65_400usize..65_540
    ];
    let cuts = prop::collection::vec(any::<prop::sample::Index>(), 0..8);
    let copies = prop::collection::vec(any::<prop::sample::Index>(), 0..4);
    let place = (
        0usize..1300,
        0usize..1500,
        any::<bool>(),
        prop::option::of(any::<u8>()),
    );
    let strays = prop_oneof![2 => Just(vec![]), 1 => prop::collection::vec(place, 1..3)];
    // One that claims to be the last, or not to be.
    let turned = prop_oneof![3 => Just(None), 1 => any::<prop::sample::Index>().prop_map(Some)];
    (len, cuts, copies, strays, turned)
        .prop_map(|(len, cuts, copies, strays, turned)| {
            let whole = counting(len.max(1));
            let mut borders: Vec<usize> = cuts
                .iter()
                .map(|cut| cut.index(len / 8 + 1) * 8)
                .filter(|&cut| cut < len)
                .collect();
            borders.extend([0, len]);
            borders.sort_unstable();
            borders.dedup();
            let mut fragments: Vec<(usize, bool, Vec<u8>)> = borders
                .windows(2)
                .map(|w| (w[0], w[1] < len, whole[w[0]..w[1]].to_vec()))
                .collect();
            for copy in copies {
                fragments.push(fragments[copy.index(fragments.len())].clone());
            }
            if let Some(turned) = turned {
                let (offset, more, bytes) = fragments[turned.index(fragments.len())].clone();
                fragments.push((offset, !more, bytes));
            }
            for (unit, stray_len, more, fill) in strays {
                let offset = unit * 8;
                let stray_len = if more { stray_len & !7 } else { stray_len };
                let bytes = match (fill, whole.get(offset..offset + stray_len)) {
                    (None, Some(bytes)) => bytes.to_vec(),
                    (fill, _) => vec![fill.unwrap_or(0); stray_len],
                };
                fragments.push((offset, more, bytes));
            }
            fragments
        })
        .prop_shuffle()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn agrees_with_a_list_of_fragments(fragments in arbitrary_fragments()) {
        let mut reassembler = default();
        let mut oracle = Oracle::default();
        for (offset, more, payload) in fragments {
            let expected = oracle.give(offset, more, &payload);
            let got = put(&mut reassembler, offset, more, &payload);
            prop_assert_eq!(got, expected, "{} {} {}", offset, more, payload.len());
        }
    }

    /// In too little memory, with many datagrams at once: whatever is complete is right, limits
    /// hold, and nothing leaks.
    #[test]
    fn limits_hold_and_nothing_leaks(
        steps in prop::collection::vec((0u8..4, 0u32..6, 0usize..5, 0u64..3000), 1..150),
        datagrams_max in 1usize..8, datagrams_per_source_max in 1usize..4, kib in 1usize..12,
    ) {
        let config = ReassemblyConfig {
            datagrams_max,
            datagrams_per_source_max,
            payload_bytes_max: kib << 10,
            timeout: Duration::from_secs(15),
        };
        let mut reassembler = reassembler(config);
        let mut now = 0;
        let mut begun = 0i64;
        for (source, id, part, ms) in steps {
            now += ms;
            let mut expired = 0;
            reassembler.expire(at(now), |_| expired += 1);
            begun -= expired;
            // Five parts of 700 bytes, each datagram with bytes of its own.
            let fill = source * 16 + u8::try_from(id).unwrap();
            let payload = [fill; 704];
            let part = fragment(part * 704, part < 4, &payload);
            let known = reassembler.find(&key(source, id)).is_some();
            let (got, evicted) = give(&mut reassembler, key(source, id), &part, at(now));
            begun += i64::from(!known) - i64::from(evicted);
            match got {
                Got::Queued | Got::Dropped(FragmentDrop::Duplicate) => {}
                Got::Complete(whole) => {
                    prop_assert_eq!(whole, vec![fill; 5 * 704]);
                    begun -= 1;
                }
                Got::Dropped(reason) => {
                    prop_assert_eq!(reason, FragmentDrop::NoMemory);
                    begun -= 1;
                }
            }
            prop_assert_eq!(i64::try_from(reassembler.len()).unwrap(), begun);
            prop_assert!(reassembler.len() <= datagrams_max);
            prop_assert!(reassembler.payload_bytes() <= kib << 10);
            for source in reassembler.sources.iter().flatten() {
                prop_assert!((1..=datagrams_per_source_max).contains(&source.count));
            }
        }
        reassembler.expire(at(now + 15_000), |_| {});
        prop_assert!(reassembler.is_empty());
        prop_assert_eq!(reassembler.payload_bytes(), 0);
        prop_assert_eq!(reassembler.free_sources.len(), datagrams_max);
        prop_assert!(reassembler.source_index.is_empty());
    }

    #[test]
    fn no_fragment_panics(
        offset_bytes: usize, more: bool, ecn: u8,
        header in prop::collection::vec(any::<u8>(), 0..300),
        payload in prop::collection::vec(any::<u8>(), 0..2000),
        near in 65_000usize..66_000,
    ) {
        let mut reassembler = default();
        for offset_bytes in [offset_bytes, near, near & !7, offset_bytes & !7] {
            let fragment =
                Fragment { offset_bytes, more, ecn, header: &header, payload: &payload };
            let _ = reassembler.insert(key(1, 1), &fragment, at(0));
        }
        reassembler.expire(Instant::from_nanos(u64::MAX), |_| {});
        prop_assert!(reassembler.is_empty());
    }
}
