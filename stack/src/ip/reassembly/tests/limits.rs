//! Memory and slots run out: who has to go.

use super::*;

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
