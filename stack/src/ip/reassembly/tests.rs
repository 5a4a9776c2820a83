use super::*;
use crate::ip::address::{Ipv4, Ipv6};
use core::net::{Ipv4Addr, Ipv6Addr};
use proptest::prelude::*;

const HEADER: [u8; 20] = [0x45; 20];

fn reassembler(config: ReassemblyConfig) -> Reassembler<Ipv4> {
    Reassembler::new(config, HashKey::new([7, 8]))
}

fn default() -> Reassembler<Ipv4> {
    reassembler(ReassemblyConfig::default())
}

fn key(source: u8, identification: u32) -> FragmentKey<Ipv4> {
    FragmentKey {
        source: Ipv4Addr::new(10, 0, 0, source),
        destination: Ipv4Addr::new(10, 0, 1, 1),
        identification,
        protocol: 17,
    }
}

fn at(ms: u64) -> Instant {
    Instant::from_nanos(ms * 1_000_000)
}

fn fragment(offset_bytes: usize, more: bool, payload: &[u8]) -> Fragment<'_> {
    Fragment {
        offset_bytes,
        more,
        ecn: 0,
        header: &HEADER,
        payload,
    }
}

/// An outcome without borrowed bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Got {
    Queued,
    Complete(Vec<u8>),
    Dropped(FragmentDrop),
}

fn give<I: Ip>(
    reassembler: &mut Reassembler<I>,
    key: FragmentKey<I>,
    fragment: &Fragment<'_>,
    now: Instant,
) -> (Got, u32) {
    let Insertion { outcome, evicted } = reassembler.insert(key, fragment, now);
    let got = match outcome {
        FragmentOutcome::Queued => Got::Queued,
        FragmentOutcome::Dropped(reason) => Got::Dropped(reason),
        FragmentOutcome::Complete(Reassembled {
            packet, header_len, ..
        }) => {
            assert_eq!(header_len, HEADER.len());
            assert_eq!(packet[..header_len], HEADER);
            Got::Complete(packet[header_len..].to_vec())
        }
    };
    (got, evicted)
}

fn put(reassembler: &mut Reassembler<Ipv4>, offset: usize, more: bool, payload: &[u8]) -> Got {
    let (got, evicted) = give(
        reassembler,
        key(1, 1),
        &fragment(offset, more, payload),
        at(0),
    );
    assert_eq!(evicted, 0);
    got
}

fn counting(len: usize) -> Vec<u8> {
    (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect()
}

#[test]
fn fragments_in_any_order_make_the_datagram() {
    let whole = counting(3001);
    let cuts = [(0, 1480), (1480, 2960), (2960, 3001)];
    for order in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ] {
        let mut reassembler = default();
        for (n, which) in order.into_iter().enumerate() {
            let (from, to) = cuts[which];
            let got = put(&mut reassembler, from, to < whole.len(), &whole[from..to]);
            let expected = if n == 2 {
                Got::Complete(whole.clone())
            } else {
                Got::Queued
            };
            assert_eq!(got, expected, "{order:?}");
        }
        assert!(reassembler.is_empty());
        assert_eq!(
            (reassembler.payload_bytes(), reassembler.next_deadline()),
            (0, None)
        );
    }
}

#[test]
fn the_first_fragments_header_counts() {
    let mut reassembler = default();
    let other = Fragment {
        header: &[9; 24],
        ..fragment(8, false, &[2; 5])
    };
    assert_eq!(
        give(&mut reassembler, key(1, 1), &other, at(0)).0,
        Got::Queued
    );
    let Insertion {
        outcome: FragmentOutcome::Complete(whole),
        ..
    } = reassembler.insert(key(1, 1), &fragment(0, true, &[1; 8]), at(0))
    else {
        panic!("incomplete");
    };
    assert_eq!(whole.header_len, 20);
    assert_eq!(whole.packet[..20], HEADER);
    assert_eq!(whole.packet[20..], [1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2]);
}

#[test]
fn a_single_fragment_that_is_the_whole_datagram() {
    let mut reassembler = default();
    assert_eq!(
        put(&mut reassembler, 0, false, &[1, 2, 3]),
        Got::Complete(vec![1, 2, 3])
    );
}

#[test]
fn different_keys_do_not_mix() {
    let mut reassembler = default();
    let keys = [
        key(1, 1),
        key(2, 1),
        key(1, 2),
        FragmentKey {
            destination: Ipv4Addr::new(10, 0, 1, 2),
            ..key(1, 1)
        },
        FragmentKey {
            protocol: 6,
            ..key(1, 1)
        },
    ];
    for key in keys {
        let got = give(&mut reassembler, key, &fragment(0, true, &[1; 8]), at(0));
        assert_eq!(got, (Got::Queued, 0));
    }
    assert_eq!(reassembler.len(), 5);
    for (left, key) in keys.into_iter().enumerate().rev() {
        let last = [u8::try_from(left).unwrap(); 3];
        let (got, _) = give(&mut reassembler, key, &fragment(8, false, &last), at(0));
        assert_eq!(got, Got::Complete([&[1; 8][..], &last].concat()));
        assert_eq!(reassembler.len(), left);
    }
}

#[test]
fn malformed_fragments_leave_nothing_behind() {
    let mut reassembler = default();
    let dropped = Got::Dropped;
    assert_eq!(
        put(&mut reassembler, 0, true, &[]),
        dropped(FragmentDrop::Empty)
    );
    assert_eq!(
        put(&mut reassembler, 8, false, &[]),
        dropped(FragmentDrop::Empty)
    );
    assert_eq!(
        put(&mut reassembler, 0, true, &[1; 9]),
        dropped(FragmentDrop::Unaligned)
    );
    assert_eq!(
        put(&mut reassembler, 4, false, &[1; 8]),
        dropped(FragmentDrop::Unaligned)
    );
    let too_long = dropped(FragmentDrop::TooLong);
    assert_eq!(put(&mut reassembler, 65_528, false, &[1; 8]), too_long);
    assert_eq!(
        put(&mut reassembler, usize::MAX & !7, false, &[1; 8]),
        too_long
    );
    // The header counts for IPv4: 65515 bytes of payload are the most.
    assert_eq!(put(&mut reassembler, 0, false, &vec![1; 65_516]), too_long);
    let header = [0; HEADER_BYTES_MAX + 1];
    let got = give(
        &mut reassembler,
        key(1, 1),
        &Fragment {
            header: &header,
            ..fragment(0, true, &[1; 8])
        },
        at(0),
    );
    assert_eq!(got.0, dropped(FragmentDrop::HeaderTooLong));
    assert!(reassembler.is_empty());
    assert_eq!(
        put(&mut reassembler, 0, false, &vec![1; 65_515]),
        Got::Complete(vec![1; 65_515])
    );
}

#[test]
fn a_datagram_too_long_with_its_header_is_refused_when_that_shows() {
    let mut reassembler = default();
    // Alone the last fragment fits; with a header of 20 bytes the datagram would not.
    assert_eq!(put(&mut reassembler, 65_512, false, &[1; 8]), Got::Queued);
    let mut offset = 0;
    let mut last = Got::Queued;
    while offset < 65_512 {
        assert_eq!(last, Got::Queued);
        let len = 1024.min(65_512 - offset);
        last = put(&mut reassembler, offset, true, &vec![1; len]);
        offset += len;
    }
    assert_eq!(last, Got::Dropped(FragmentDrop::TooLong));
    assert_eq!(reassembler.payload_bytes(), 0);
}

#[test]
fn ipv6_counts_the_payload_only() {
    let mut reassembler: Reassembler<Ipv6> =
        Reassembler::new(ReassemblyConfig::default(), HashKey::new([7, 8]));
    let key = FragmentKey {
        source: Ipv6Addr::LOCALHOST,
        destination: Ipv6Addr::LOCALHOST,
        identification: u32::MAX,
        protocol: 0,
    };
    let header = [6; 48];
    let payload = vec![1; 65_535];
    let fragment = Fragment {
        offset_bytes: 0,
        more: false,
        ecn: 0,
        header: &header,
        payload: &payload,
    };
    let Insertion {
        outcome: FragmentOutcome::Complete(whole),
        evicted: 0,
    } = reassembler.insert(key, &fragment, at(0))
    else {
        panic!("incomplete");
    };
    assert_eq!((whole.header_len, whole.packet.len()), (48, 48 + 65_535));
    // Extension headers before the fragment header count.
    let header = [6; 56];
    let fragment = Fragment {
        header: &header,
        ..fragment
    };
    let Insertion { outcome, .. } = reassembler.insert(key, &fragment, at(0));
    assert_eq!(outcome, FragmentOutcome::Dropped(FragmentDrop::TooLong));
}

#[test]
fn copies_are_ignored() {
    let mut reassembler = default();
    let whole = counting(2040);
    assert_eq!(put(&mut reassembler, 0, true, &whole[..1000]), Got::Queued);
    assert_eq!(
        put(&mut reassembler, 0, true, &whole[..1000]),
        Got::Dropped(FragmentDrop::Duplicate)
    );
    assert_eq!(
        put(&mut reassembler, 1200, false, &whole[1200..]),
        Got::Queued
    );
    assert_eq!(
        put(&mut reassembler, 1200, false, &whole[1200..]),
        Got::Dropped(FragmentDrop::Duplicate)
    );
    assert_eq!(
        put(&mut reassembler, 1000, true, &whole[1000..1200]),
        Got::Complete(whole)
    );
}

#[test]
fn overlaps_refuse_the_datagram_and_what_still_comes() {
    let x = counting(4096);
    // Each time after fragments 1000..2000 (more) and 3000..3100 (last).
    for (offset, more, payload) in [
        (1000, true, &vec![9; 1000][..]), // other bytes
        (1000, true, &x[1000..1992]),     // shorter
        (1000, true, &x[1000..2008]),     // longer
        (1008, true, &x[1008..2000]),     // its end
        (1200, true, &x[1200..1208]),     // its middle
        (0, true, &x[..1008]),            // over its beginning
        (1992, true, &x[1992..2096]),     // over its end
        (0, true, &x[..2504]),            // around it
        (3000, true, &x[3000..3104]),     // beyond the end
        (2048, false, &x[2048..2100]),    // another end
        (3200, true, &x[3200..3208]),     // behind the end
        (1000, false, &x[1000..2000]),    // the same, but the last
    ] {
        let mut reassembler = default();
        assert_eq!(
            put(&mut reassembler, 1000, true, &x[1000..2000]),
            Got::Queued
        );
        assert_eq!(
            put(&mut reassembler, 3000, false, &x[3000..3100]),
            Got::Queued
        );
        let overlap = Got::Dropped(FragmentDrop::Overlap);
        let case = (offset, more, payload.len());
        assert_eq!(
            put(&mut reassembler, offset, more, payload),
            overlap,
            "{case:?}"
        );
        assert_eq!(reassembler.payload_bytes(), 0, "its memory is free");
        // RFC 5722 §4: also fragments that overlap nothing, until the time is over.
        assert_eq!(put(&mut reassembler, 2400, true, &x[2400..2408]), overlap);
        let mut expired = 0;
        reassembler.expire(at(30_000), |_| expired += 1);
        assert_eq!(
            (expired, reassembler.len()),
            (0, 0),
            "no error is sent for it"
        );
        assert_eq!(
            put(&mut reassembler, 2400, true, &x[2400..2408]),
            Got::Queued
        );
    }
}

#[test]
fn an_end_before_what_came_already_refuses() {
    let mut reassembler = default();
    assert_eq!(put(&mut reassembler, 800, true, &[1; 8]), Got::Queued);
    assert_eq!(
        put(&mut reassembler, 0, false, &[1; 8]),
        Got::Dropped(FragmentDrop::Overlap)
    );
}

#[test]
fn the_same_bytes_as_last_and_not_last_contradict() {
    for more in [true, false] {
        let mut reassembler = default();
        assert_eq!(put(&mut reassembler, 800, more, &[1; 8]), Got::Queued);
        assert_eq!(
            put(&mut reassembler, 800, !more, &[1; 8]),
            Got::Dropped(FragmentDrop::Overlap)
        );
    }
}

#[test]
fn time_exceeded_quotes_the_first_fragment_if_it_came() {
    let mut reassembler = default();
    let first = counting(1480);
    let with_first = key(1, 1);
    let without_first = key(1, 2);
    let _ = give(
        &mut reassembler,
        with_first,
        &fragment(0, true, &first),
        at(0),
    );
    let _ = give(
        &mut reassembler,
        without_first,
        &fragment(8, true, &[1; 8]),
        at(10),
    );
    // Later fragments do not extend the time.
    let _ = give(
        &mut reassembler,
        with_first,
        &fragment(1480, true, &[2; 8]),
        at(29_000),
    );
    assert_eq!(reassembler.next_deadline(), Some(at(30_000)));
    reassembler.expire(at(29_999), |expired| panic!("{expired:?}"));
    let mut seen = vec![];
    reassembler.expire(at(30_000), |Expired { key, first }| {
        let first = first.expect("the first fragment came");
        seen.push((key, first.header.to_vec(), first.payload.to_vec()));
    });
    assert_eq!(
        seen,
        [(with_first, HEADER.to_vec(), first[..1024].to_vec())]
    );
    let mut seen = vec![];
    reassembler.expire(at(30_010), |expired| {
        seen.push((expired.key, expired.first.is_some()))
    });
    assert_eq!(seen, [(without_first, false)]);
    assert_eq!((reassembler.len(), reassembler.payload_bytes()), (0, 0));
}

#[test]
fn a_short_first_fragment_is_quoted_as_long_as_it_is() {
    let mut reassembler = default();
    assert_eq!(put(&mut reassembler, 0, true, &[1; 8]), Got::Queued);
    assert_eq!(put(&mut reassembler, 8, true, &[2; 8]), Got::Queued);
    reassembler.expire(at(30_000), |expired| {
        assert_eq!(
            expired.first,
            Some(FirstFragment {
                header: &HEADER,
                payload: &[1; 8]
            })
        );
    });
    assert!(reassembler.is_empty());
}

#[test]
fn ecn_bits_are_combined() {
    // RFC 3168 §5.3. Not-ECT 0, ECT(1) 1, ECT(0) 2, CE 3.
    for (first, second, expected) in [
        (0, 0, Some(false)),
        (2, 2, Some(false)),
        (1, 2, Some(false)),
        (0, 2, None),
        (1, 0, None),
        (2, 3, Some(true)),
        (3, 1, Some(true)),
        (3, 3, Some(true)),
        (0, 3, None),
        (3, 0, None),
    ] {
        let mut reassembler = default();
        let one = Fragment {
            ecn: first,
            ..fragment(0, true, &[1; 8])
        };
        assert_eq!(
            give(&mut reassembler, key(1, 1), &one, at(0)).0,
            Got::Queued
        );
        let two = Fragment {
            ecn: second,
            ..fragment(8, false, &[1; 8])
        };
        let Insertion { outcome, .. } = reassembler.insert(key(1, 1), &two, at(0));
        match (outcome, expected) {
            (FragmentOutcome::Complete(whole), Some(expected)) => {
                assert_eq!(whole.congestion_experienced, expected, "{first} {second}");
            }
            (FragmentOutcome::Dropped(reason), None) => {
                assert_eq!(reason, FragmentDrop::EcnMismatch);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_oldest_datagram_makes_room_for_a_new_one() {
    let config = ReassemblyConfig {
        datagrams_max: 2,
        ..ReassemblyConfig::default()
    };
    let mut reassembler = reassembler(config);
    let half = fragment(0, true, &[1; 8]);
    assert_eq!(
        give(&mut reassembler, key(1, 1), &half, at(1)),
        (Got::Queued, 0)
    );
    assert_eq!(
        give(&mut reassembler, key(2, 2), &half, at(2)),
        (Got::Queued, 0)
    );
    assert_eq!(
        give(&mut reassembler, key(3, 3), &half, at(3)),
        (Got::Queued, 1)
    );
    let rest = fragment(8, false, &[2; 1]);
    let whole = Got::Complete(vec![1, 1, 1, 1, 1, 1, 1, 1, 2]);
    assert_eq!(
        give(&mut reassembler, key(2, 2), &rest, at(4)),
        (whole.clone(), 0)
    );
    assert_eq!(give(&mut reassembler, key(3, 3), &rest, at(4)), (whole, 0));
    assert_eq!(
        give(&mut reassembler, key(1, 1), &rest, at(4)),
        (Got::Queued, 0),
        "is gone"
    );
}

#[test]
fn the_oldest_datagram_makes_room_in_memory() {
    let config = ReassemblyConfig {
        payload_bytes_max: 4096,
        ..ReassemblyConfig::default()
    };
    let mut reassembler = reassembler(config);
    let long = vec![1; 2048];
    let long = fragment(0, true, &long);
    assert_eq!(
        give(&mut reassembler, key(1, 1), &long, at(1)),
        (Got::Queued, 0)
    );
    assert_eq!(
        give(&mut reassembler, key(2, 2), &long, at(2)),
        (Got::Queued, 0)
    );
    assert_eq!(reassembler.payload_bytes(), 4096);
    let next = fragment(2048, true, &[1; 8]);
    assert_eq!(
        give(&mut reassembler, key(2, 2), &next, at(3)),
        (Got::Queued, 1)
    );
    assert_eq!(reassembler.payload_bytes(), 3072);
    // The oldest cannot displace younger ones.
    assert_eq!(
        give(&mut reassembler, key(3, 3), &next, at(4)),
        (Got::Queued, 0)
    );
    let more = vec![1; 1024];
    let more = fragment(4096, true, &more);
    let no_memory = Got::Dropped(FragmentDrop::NoMemory);
    assert_eq!(
        give(&mut reassembler, key(2, 2), &more, at(5)),
        (no_memory, 0)
    );
    assert_eq!(reassembler.payload_bytes(), 1024);
}

#[test]
fn a_datagram_larger_than_all_memory_is_given_up() {
    let config = ReassemblyConfig {
        payload_bytes_max: 1024,
        ..ReassemblyConfig::default()
    };
    let mut reassembler = reassembler(config);
    let long = vec![1; 1032];
    assert_eq!(
        put(&mut reassembler, 0, true, &long),
        Got::Dropped(FragmentDrop::NoMemory)
    );
    assert!(reassembler.is_empty());
}

#[test]
fn a_source_that_exceeds_its_share_loses_its_own_oldest() {
    let config = ReassemblyConfig {
        datagrams_per_source_max: 2,
        ..ReassemblyConfig::default()
    };
    let mut reassembler = reassembler(config);
    let half = fragment(0, true, &[1; 8]);
    assert_eq!(
        give(&mut reassembler, key(9, 0), &half, at(0)),
        (Got::Queued, 0)
    );
    for id in 1..=2 {
        assert_eq!(
            give(&mut reassembler, key(1, id), &half, at(id.into())),
            (Got::Queued, 0)
        );
    }
    assert_eq!(
        give(&mut reassembler, key(1, 3), &half, at(3)),
        (Got::Queued, 1)
    );
    let rest = fragment(8, false, &[2; 1]);
    let complete = |reassembler: &mut Reassembler<Ipv4>, key| {
        matches!(give(reassembler, key, &rest, at(4)).0, Got::Complete(_))
    };
    assert!(
        complete(&mut reassembler, key(9, 0)),
        "others are not affected"
    );
    assert!(complete(&mut reassembler, key(1, 2)));
    assert!(complete(&mut reassembler, key(1, 3)));
    assert!(!complete(&mut reassembler, key(1, 1)));
}

#[test]
fn a_sources_queue_stays_in_order_when_datagrams_leave_it() {
    let config = ReassemblyConfig {
        datagrams_per_source_max: 3,
        ..ReassemblyConfig::default()
    };
    let half = fragment(0, true, &[1; 8]);
    let rest = fragment(8, false, &[2; 1]);
    // One of three leaves from the front, the middle or the back, and others come: always the oldest
    // that is left goes.
    for (leaves, order) in [(1, [2, 3, 4]), (2, [1, 3, 4]), (3, [1, 2, 4])] {
        let mut reassembler = reassembler(config);
        for id in 1..=3 {
            let _ = give(&mut reassembler, key(1, id), &half, at(id.into()));
        }
        let (got, _) = give(&mut reassembler, key(1, leaves), &rest, at(4));
        assert!(matches!(got, Got::Complete(_)));
        assert_eq!(
            give(&mut reassembler, key(1, 4), &half, at(4)),
            (Got::Queued, 0)
        );
        for (id, oldest) in (5..).zip(order) {
            assert!(reassembler.find(&key(1, oldest)).is_some());
            assert_eq!(
                give(&mut reassembler, key(1, id), &half, at(id.into())),
                (Got::Queued, 1)
            );
            assert!(
                reassembler.find(&key(1, oldest)).is_none(),
                "{leaves} {oldest}"
            );
        }
    }
}

#[test]
fn sizes_of_zero_refuse_politely() {
    let defaults = ReassemblyConfig::default();
    for config in [
        ReassemblyConfig {
            datagrams_max: 0,
            ..defaults
        },
        ReassemblyConfig {
            datagrams_per_source_max: 0,
            ..defaults
        },
        ReassemblyConfig {
            payload_bytes_max: 0,
            ..defaults
        },
    ] {
        let mut reassembler = reassembler(config);
        let got = put(&mut reassembler, 0, true, &[1; 8]);
        assert_eq!(got, Got::Dropped(FragmentDrop::NoMemory), "{config:?}");
    }
}

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
