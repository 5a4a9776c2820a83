//! Through a bad network, the same bad one in every run: everything arrives all the same.

use crate::extent::{MIB, is_full, sized};
use crate::setup::{DISCARD, ECHO, Interop, SOURCE, Setup, both, may_run, say};
use bench::impair::decide::{Burst, Impairment, Probability, Reorder};
use std::time::Duration;

fn probability(percent: f64) -> Probability {
    Probability::new(percent / 100.0).expect("a percentage")
}

fn loss(percent: f64) -> Impairment {
    Impairment {
        loss: probability(percent),
        ..near()
    }
}

/// Half a millisecond each way, so that there is something under way to lose.
fn near() -> Impairment {
    Impairment {
        delay: Duration::from_micros(500),
        ..Impairment::default()
    }
}

fn bursts() -> Impairment {
    Impairment {
        burst: Some(Burst {
            frames: 8,
            begins: probability(0.2),
        }),
        ..near()
    }
}

fn reordering() -> Impairment {
    Impairment {
        reorder: Some(Reorder {
            share: probability(5.0),
            by: Duration::from_millis(2),
        }),
        jitter: Duration::from_micros(300),
        ..near()
    }
}

fn duplicates() -> Impairment {
    Impairment {
        duplicate: probability(5.0),
        ..near()
    }
}

fn corruption() -> Impairment {
    Impairment {
        corrupt: probability(1.0),
        ..near()
    }
}

fn everything() -> Impairment {
    Impairment {
        loss: probability(0.5),
        duplicate: probability(2.0),
        corrupt: probability(0.5),
        ..reordering()
    }
}

fn bottleneck() -> Impairment {
    Impairment {
        rate_bits_per_s: Some(200_000_000),
        queue_frames: 50,
        delay: Duration::from_millis(5),
        ..Impairment::default()
    }
}

/// Echo, discard and source over both versions, through this network both ways.
#[track_caller]
fn survives(test: &str, what: &str, impairment: &Impairment, bytes: u64, sysctls: &[&'static str]) {
    if !may_run(test, &[]) {
        return;
    }
    let sysctls = sysctls.iter().map(|key| (*key, "0".to_owned())).collect();
    let interop = Interop::start(&Setup {
        impaired: Some((impairment.clone(), impairment.clone(), 20_260_101)),
        sysctls,
        ..Setup::default()
    });
    let began = std::time::Instant::now();
    std::thread::scope(|scope| {
        for to in both(ECHO) {
            let client = interop.connect(to);
            scope.spawn(move || client.echo_all(bytes));
        }
        for to in both(DISCARD) {
            let mut client = interop.connect(to);
            scope.spawn(move || {
                client.send(bytes);
                client.finish_sending();
                client.expect_end();
            });
        }
        for to in both(SOURCE) {
            let mut client = interop.connect(to);
            scope.spawn(move || client.expect_source(bytes));
        }
    });
    let took = began.elapsed();
    interop.until_quiet();
    let report = interop.stop().expect("there was a bad network");
    for direction in &report.directions {
        // A network that was kinder than it was meant to be shows nothing.
        let counters = direction.counters;
        assert_eq!(direction.unusable, 0, "{report}");
        if impairment.loss > Probability::default() {
            assert!(counters.lost_single > 0, "{report}");
        }
        if impairment.burst.is_some() {
            assert!(counters.lost_burst > 0, "{report}");
        }
        if impairment.reorder.is_some() {
            assert!(counters.held_back > 0, "{report}");
        }
        if impairment.duplicate > Probability::default() {
            assert!(counters.duplicated > 0, "{report}");
        }
        if impairment.corrupt > Probability::default() {
            assert!(counters.corrupted > 0, "{report}");
        }
    }
    say(&format!(
        "{what}, {bytes} bytes six times: {:.1} s; {report}",
        took.as_secs_f64()
    ));
}

#[test]
fn single_losses() {
    let shares = if is_full() {
        &[0.1, 1.0, 3.0, 5.0][..]
    } else {
        &[1.0]
    };
    for percent in shares {
        let bytes = sized(MIB, 8 * MIB);
        survives(
            "single_losses",
            &format!("{percent} % lost"),
            &loss(*percent),
            bytes,
            &[],
        );
    }
}

#[test]
fn many_losses() {
    let bytes = sized(MIB / 8, 2 * MIB);
    survives("many_losses", "5 % lost", &loss(5.0), bytes, &[]);
}

#[test]
fn losses_without_sack_and_timestamps() {
    let bytes = sized(MIB / 4, 4 * MIB);
    let cases: &[&[&'static str]] = if is_full() {
        &[
            &["ipv4/tcp_sack"],
            &["ipv4/tcp_timestamps"],
            &["ipv4/tcp_window_scaling"],
            &["ipv4/tcp_sack", "ipv4/tcp_timestamps"],
        ]
    } else {
        &[&["ipv4/tcp_sack", "ipv4/tcp_timestamps"]]
    };
    for off in cases {
        let what = format!("1 % lost, without {off:?}");
        survives(
            "losses_without_sack_and_timestamps",
            &what,
            &loss(1.0),
            bytes,
            off,
        );
    }
}

#[test]
fn losses_in_bursts() {
    let bytes = sized(MIB, 8 * MIB);
    survives("losses_in_bursts", "bursts", &bursts(), bytes, &[]);
}

#[test]
fn reordered_frames() {
    let bytes = sized(MIB, 8 * MIB);
    survives("reordered_frames", "reordered", &reordering(), bytes, &[]);
}

#[test]
fn duplicated_frames() {
    let bytes = sized(MIB, 8 * MIB);
    survives("duplicated_frames", "duplicated", &duplicates(), bytes, &[]);
}

#[test]
fn damaged_frames() {
    let bytes = sized(MIB, 8 * MIB);
    survives("damaged_frames", "damaged", &corruption(), bytes, &[]);
}

#[test]
fn all_of_it_together() {
    let bytes = sized(MIB / 2, 8 * MIB);
    survives(
        "all_of_it_together",
        "everything",
        &everything(),
        bytes,
        &[],
    );
}

#[test]
fn a_bottleneck_with_a_short_queue() {
    let bytes = sized(MIB, 16 * MIB);
    survives(
        "a_bottleneck_with_a_short_queue",
        "200 Mb/s, 50 frames",
        &bottleneck(),
        bytes,
        &[],
    );
}

/// The frames that matter most: those that open and close a connection, one after the other.
#[test]
fn any_single_frame_may_be_lost() {
    if !may_run("any_single_frame_may_be_lost", &[]) {
        return;
    }
    // ARP's two and one; SYN, ACK, request, ACKs and FINs: fewer than ten each way. The full run
    // tries each alone, the sample all of the odd ones.
    let lists: Vec<Vec<u64>> = if is_full() {
        (1..=10).map(|index| vec![index]).collect()
    } else {
        vec![vec![1, 3, 5, 7], vec![2, 4, 6]]
    };
    for list in lists {
        let impairment = Impairment {
            drop_index: list.iter().map(|index| *index..=*index).collect(),
            ..near()
        };
        for (to_server, to_peer) in [(impairment.clone(), near()), (near(), impairment.clone())] {
            say(&format!("frames {list:?} lost"));
            let interop = Interop::start(&Setup {
                impaired: Some((to_server, to_peer, 1)),
                ..Setup::default()
            });
            for to in both(ECHO) {
                let mut client = interop.connect(to);
                client.send(100);
                client.expect(100);
                client.send(5000);
                client.finish_sending();
                client.expect(5000);
                client.expect_end();
            }
            interop.until_quiet();
            interop.stop();
        }
    }
}
