//! A sender alone, against a network and a peer out of one seed: see [`world`].

mod world;

use crate::tcp::congestion::CongestionControl;
use crate::tcp::deliver::{CaState, Setup};
use alloc::vec;
use world::{Counts, Dice, Scenario, World};

/// How many networks `make test` tries; the soak below goes on from there.
const SEEDS: u64 = 1000;

fn run(scenario: Scenario) -> (Counts, World) {
    let mut world = World::new(scenario);
    let counts = world.run();
    (counts, world)
}

/// Whatever a network does.
fn scenario(seed: u64) -> Scenario {
    let mut dice = Dice::new(seed);
    let d = &mut dice;
    let some = |d: &mut Dice, of: u64, most: u64| if d.one_in(of) { d.below(most) } else { 0 };
    let mut scenario = Scenario {
        seed,
        bytes: u32::try_from(d.below(150_000) + 1).unwrap(),
        write_max: u32::try_from(d.below(30_000) + 1).unwrap(),
        pause_us: some(d, 2, 20_000),
        delay_us: d.below(50_000) + 20,
        jitter_us: some(d, 3, 20_000),
        loss: some(d, 2, 150),
        ack_loss: some(d, 2, 150),
        duplication: some(d, 3, 100),
        late: some(d, 3, 100),
        late_us: d.below(300_000),
        burst: some(d, 3, 900),
        stall_every: if d.one_in(4) { d.below(100) + 10 } else { 0 },
        stall_us: d.below(1_500_000),
        delayed_ack: d.one_in(2),
        dsack: !d.one_in(4),
        renege: some(d, 6, 50),
        lies: if d.one_in(4) { d.below(5) + 1 } else { 0 },
        window: if d.one_in(4) { 4000 } else { 1 << 20 },
        records: match d.below(8) {
            0 => 0,
            1 => 1,
            2 => 3,
            _ => 4096,
        },
        marks: some(d, 5, 100),
        mtu_falls: some(d, 6, 20),
        ..Scenario::default()
    };
    scenario.setup.sack = !d.one_in(4);
    scenario.setup.timestamps = !d.one_in(3);
    scenario.setup.rto_min_ms = [1, 10, 200][usize::try_from(d.below(3)).unwrap()];
    scenario.setup.syn_retransmitted = d.one_in(10);
    scenario.setup.handshake_us = d.one_in(2).then_some(50_000);
    scenario
}

#[test]
fn everything_arrives_whatever_the_network_does() {
    for seed in 0..SEEDS {
        run(scenario(seed));
    }
}

#[test]
#[ignore = "takes minutes: cargo test -p stack --release deliver -- --ignored"]
fn everything_arrives_whatever_the_network_does_for_long() {
    for seed in SEEDS..100_000 {
        run(scenario(seed));
    }
}

/// Ten segments and FIN at once, over a path that does nothing unless told.
fn ten_segments() -> Scenario {
    Scenario {
        bytes: 10_000,
        write_max: 1,
        // The handshake measured the path, so that PTO is not a second.
        setup: Setup {
            mss: 1000,
            handshake_us: Some(10_000),
            ..Setup::default()
        },
        at_once: true,
        ..Scenario::default()
    }
}

#[test]
fn without_losses_nothing_is_sent_twice() {
    for delayed_ack in [false, true] {
        let (counts, world) = run(Scenario {
            delayed_ack,
            ..Scenario::default()
        });
        assert_eq!(counts.retransmitted, 0);
        assert_eq!((counts.rto, counts.tlp, counts.losses), (0, 0, 0));
        assert_eq!(world.got_twice(), 0);
    }
}

/// RFC 8985 §7: the end of the data is lost, and no ACK would ever tell.
#[test]
fn a_lost_tail_is_repaired_without_a_timeout() {
    for (lose, tlp) in [(vec![9], 1), (vec![8, 9], 1), (vec![7, 8, 9], 1)] {
        let mut world = World::new(ten_segments());
        world.lose.clone_from(&lose);
        let counts = world.run();
        assert_eq!((counts.tlp, counts.rto), (tlp, 0), "{lose:?}");
        assert_eq!(counts.retransmitted, u32::try_from(lose.len()).unwrap());
        // RFC 8985 §7.4: the loss that the probe repaired is answered too, once it is sure, and
        // that takes an ACK beyond it.
        assert_eq!(counts.losses, u32::from(lose.len() > 1));
        // One or two round trips after a PTO of two. A single segment may be one whose ACK is
        // delayed, and is waited for longer.
        let most = if lose.len() == 1 { 230 } else { 70 };
        let took = (world.finish - world.start).as_millis();
        assert!(took < most, "{lose:?}: {took} ms");
    }
}

/// RFC 8985 §7.3: probes are made of new data, if there is some.
#[test]
fn a_probe_that_repaired_a_loss_reduces_the_window() {
    let mut world = World::new(Scenario {
        bytes: 9001,
        more_after_us: 300_000,
        ..ten_segments()
    });
    world.lose = vec![8];
    let counts = world.run();
    assert_eq!((counts.tlp, counts.rto, counts.losses), (1, 0, 1));
    // The same, but the original was late only: the peer reports it twice.
    let mut world = World::new(Scenario {
        bytes: 9001,
        more_after_us: 400_000,
        ..ten_segments()
    });
    world.delay = vec![(8, 220_000)];
    let counts = world.run();
    assert_eq!((counts.tlp, counts.rto, counts.losses), (1, 0, 0));
    assert_eq!(world.got_twice(), 1);
}

/// Three duplicate ACKs never come here; RACK needs one SACK and a fourth of a round trip.
#[test]
fn two_segments_are_enough_to_find_a_loss() {
    let mut world = World::new(Scenario {
        bytes: 2000,
        ..ten_segments()
    });
    world.lose = vec![0];
    let counts = world.run();
    assert_eq!((counts.retransmitted, counts.rto, counts.tlp), (1, 0, 0));
    assert_eq!(counts.reordering_timer, 1);
    assert!((world.finish - world.start).as_millis() < 24);
}

/// RFC 8985 §3.1: without RACK only a timeout would find that.
#[test]
fn a_lost_retransmission_is_found_without_a_timeout() {
    let mut world = World::new(Scenario {
        bytes: 60_000,
        ..ten_segments()
    });
    // The first window is ten segments; what is sent again first is somewhere behind it.
    world.lose = vec![2];
    world.lose_retransmissions = 2;
    let counts = world.run();
    assert_eq!((counts.rto, counts.losses), (0, 1));
    assert_eq!(counts.retransmitted, 3);
}

/// A path that reorders by less than a round trip: once RACK knows, it waits long enough.
#[test]
fn reordering_is_learned() {
    let mut world = World::new(Scenario {
        bytes: 2_000_000,
        write_max: 20_000,
        pause_us: 2000,
        delay_us: 20_000,
        late: 30,
        late_us: 9000,
        ..Scenario::default()
    });
    while world.acknowledged() < 200_000 {
        world.step();
    }
    let before = world.counts;
    assert!(world.sender.reordering_seen());
    let counts = world.run();
    assert_eq!(counts.retransmitted, before.retransmitted);
    assert_eq!(counts.losses, before.losses);
    // And by more than a fourth of a round trip: DSACKs widen the window, up to SRTT.
    let mut world = World::new(Scenario {
        late_us: 25_000,
        ..world.scenario.clone()
    });
    while world.acknowledged() < 1_000_000 {
        world.step();
    }
    let before = world.counts;
    let counts = world.run();
    assert!(before.retransmitted > 0, "it had to be learned");
    assert_eq!(counts.retransmitted, before.retransmitted);
}

/// A path that stands still for longer than the RTO: RFC 3522 by the echo, RFC 5682 without
/// timestamps, and RFC 3708 where neither knows.
#[test]
fn a_spurious_timeout_is_undone() {
    for (timestamps, dsack) in [(true, true), (true, false), (false, true), (false, false)] {
        let scenario = Scenario {
            bytes: 400_000,
            write_max: 4000,
            pause_us: 1000,
            setup: Setup {
                timestamps,
                ..ten_segments().setup
            },
            dsack,
            stall_every: 100,
            // Longer than one RTO, and shorter than the next.
            stall_us: 400_000,
            ..Scenario::default()
        };
        let mut world = World::new(scenario);
        let mut cwnd = 0;
        while world.counts.rtos == 0 {
            cwnd = world.sender.congestion().cwnd();
            world.step();
        }
        world.calm();
        assert_eq!(world.sender.state(), CaState::Loss);
        while world.counts.undone == 0 {
            world.step();
        }
        assert_eq!(world.sender.state(), CaState::Open);
        assert!(world.sender.congestion().cwnd() >= cwnd);
        let counts = world.run();
        // What waited in the network was not sent again but for the first segment or two.
        assert!(counts.retransmitted <= 3, "{counts:?}");
        assert_eq!(counts.undone, 1);
    }
}

/// And one that was real is not.
#[test]
fn a_real_timeout_is_not_undone() {
    for timestamps in [true, false] {
        let mut world = World::new(Scenario {
            bytes: 100_000,
            setup: Setup {
                timestamps,
                ..ten_segments().setup
            },
            ..ten_segments()
        });
        world.lose = (0..12).collect();
        let counts = world.run();
        assert!(counts.rto >= 1);
        assert_eq!(counts.undone, 0);
    }
}

/// Reordering beyond what is waited for: what was sent again was needless, and DSACK tells
/// (RFC 3708), or the echo does (RFC 3522).
#[test]
fn a_spurious_recovery_is_undone() {
    for timestamps in [true, false] {
        let mut world = World::new(Scenario {
            bytes: 100_000,
            setup: Setup {
                timestamps,
                ..ten_segments().setup
            },
            ..ten_segments()
        });
        world.delay = vec![(3, 9000)];
        let counts = world.run();
        assert_eq!((counts.losses, counts.undone, counts.rto), (1, 1, 0));
    }
}

/// RFC 5681 §3.2, RFC 6582: without SACK a window with several holes is repaired, one a round trip.
#[test]
fn new_reno_repairs_several_holes() {
    let mut world = World::new(Scenario {
        bytes: 30_000,
        setup: Setup {
            sack: false,
            ..ten_segments().setup
        },
        ..ten_segments()
    });
    world.lose = vec![1, 3, 5];
    let counts = world.run();
    assert_eq!((counts.rto, counts.losses), (0, 1));
    assert_eq!(counts.retransmitted, 3);
}

/// RFC 3042: the first two duplicate ACKs release a new segment each, so that there is a third.
#[test]
fn limited_transmit_brings_the_third_duplicate() {
    for sack in [true, false] {
        let mut world = World::new(Scenario {
            bytes: 30_000,
            setup: Setup {
                sack,
                ..ten_segments().setup
            },
            ..ten_segments()
        });
        // Of ten segments the first and seven others are lost: two duplicates come.
        world.lose = vec![0, 3, 4, 5, 6, 7, 8, 9];
        while world.counts.losses == 0 {
            world.step();
        }
        assert_eq!((world.counts.rto, world.counts.tlp), (0, 0));
        world.run();
    }
}

/// RFC 2018 §8: the peer threw away what it had reported.
#[test]
fn reneging_is_survived() {
    let mut reneged = 0;
    for seed in 0..100 {
        let (_, world) = run(Scenario {
            seed,
            bytes: 50_000,
            loss: 50,
            renege: 300,
            ..Scenario::default()
        });
        reneged += world.reneged();
    }
    assert!(reneged > 50, "{reneged}");
}

/// Marks reduce the window once in a round trip, and nothing is sent again for them (RFC 3168).
#[test]
fn marks_are_no_losses() {
    let (counts, _) = run(Scenario {
        marks: 20,
        ..Scenario::default()
    });
    assert!(counts.ecn > 0);
    assert_eq!((counts.retransmitted, counts.losses), (0, 0));
}

/// One connection with all the losses of a bad path still gets its share through: no timeout where
/// ACKs come back.
#[test]
fn losses_cost_few_timeouts() {
    let (mut rto, mut lost) = (0, 0);
    for seed in 0..50 {
        let (counts, _) = run(Scenario {
            seed,
            bytes: 300_000,
            loss: 20,
            setup: ten_segments().setup,
            ..Scenario::default()
        });
        rto += counts.rto;
        lost += counts.lost;
    }
    assert!(lost > 300, "{lost}");
    assert!(rto * 50 < lost, "{rto} of {lost}");
}

/// Without records, segment by segment: that is slow, but a timer that backed off recovers.
#[test]
fn without_records_segments_go_one_by_one() {
    let scenario = Scenario {
        records: 0,
        bytes: 20_000,
        setup: Setup {
            timestamps: false,
            ..ten_segments().setup
        },
        ..ten_segments()
    };
    let (counts, world) = run(scenario.clone());
    assert_eq!((counts.retransmitted, counts.rto), (0, 0));
    assert_eq!(world.sender.rtt().min_us(), 10_000);
    let mut world = World::new(scenario);
    world.lose = (0..5).collect();
    let counts = world.run();
    assert_eq!((counts.retransmitted, counts.rto), (5, 5));
    assert_eq!(world.sender.rtt().rto_us(), 200_000);
}

/// RFC 8201 §5.4: what was too long is sent again at once, in pieces, and the window stays.
#[test]
fn a_smaller_mtu_costs_no_window() {
    let mut world = World::new(Scenario {
        bytes: 20_000,
        ..ten_segments()
    });
    world.lose = (0..10).collect();
    while world.sender.unacked() == 0 {
        world.step();
    }
    world.reduce_mss(500);
    let counts = world.run();
    assert_eq!(
        (counts.rtos, counts.losses, counts.retransmitted),
        (0, 0, 20)
    );
}
