//! What becomes of fragments. Limits and properties have files of their own.

use super::*;
use crate::ip::address::{Ipv4, Ipv6};
use core::net::{Ipv4Addr, Ipv6Addr};

mod limits;
mod properties;

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
