//! After its start a load allocates nothing: not per request, not per reply, not per loss.
#![allow(clippy::unwrap_used)] // A test that panics is a test that fails.

#[path = "../../stack/tests/support/allocator.rs"]
mod allocator;

use std::ops::Range;
use std::sync::Arc;

use bench::loadgen::closed::ClosedLoop;
use bench::loadgen::flood::Flood;
use bench::loadgen::live::Live;
use bench::loadgen::load::{Books, Burst, Load, Tally, Window};
use bench::loadgen::open::OpenLoop;
use bench::loadgen::pacing::{Arrivals, Schedule};
use bench::loadgen::probe::Prober;

const FLOWS: usize = 16;
const TURN_NS: u64 = 2_000;
const TIMEOUT_NS: u64 = 100_000;

fn books() -> Books {
    Books {
        prober: Prober::new(1, 64, 1),
        window: Window {
            start_ns: 0,
            measure_ns: 0,
            stop_ns: u64::MAX,
        },
        timeout_ns: TIMEOUT_NS,
        first_flow: 0,
        tally: Tally::default(),
        live: Arc::new(Live::default()),
    }
}

/// Runs a load for 50,000 turns against a peer that loses every 7th request, answers every 11th twice
/// and refuses every 101st; returns how often the second half allocated, and the counts.
fn allocations<L: Load>(mut load: L) -> (u64, Tally) {
    let mut burst = Burst::with_capacity(L::SEND_MAX);
    let mut datagram = vec![0; 64];
    run(&mut load, 0..25_000, &mut burst, &mut datagram);
    let allocations =
        allocator::allocations(|| run(&mut load, 25_000..50_000, &mut burst, &mut datagram));
    (allocations, load.into_books().tally)
}

fn run<L: Load>(load: &mut L, turns: Range<u64>, burst: &mut Burst, datagram: &mut [u8]) {
    for turn in turns {
        let now = turn * TURN_NS;
        load.expire(now);
        if !load.next_burst(now, burst) {
            continue;
        }
        for &sequence in burst.sequences() {
            if turn % 101 == 0 {
                load.on_refused(burst.flow, now + 500);
                continue;
            }
            let number = load.books().flow_number(burst.flow);
            load.books().prober.write(number, sequence, datagram);
            if turn % 7 != 0 {
                load.on_datagram(burst.flow, datagram, now + 1000);
            }
            if turn % 11 == 0 {
                load.on_datagram(burst.flow, datagram, now + 1100);
            }
        }
    }
}

fn schedule(rate: &str) -> Schedule {
    Schedule::new(Arrivals::Poisson, rate.parse().unwrap(), 0, 0, 1, 1)
}

#[test]
fn the_closed_loop_allocates_nothing() {
    let (allocations, tally) = allocations(ClosedLoop::new(books(), FLOWS));
    assert_eq!(allocations, 0);
    assert!(
        tally.replies > 10_000 && tally.lost > 100 && tally.unexpected > 100 && tally.refused > 10
    );
}

#[test]
fn the_open_loop_allocates_nothing() {
    let load = OpenLoop::new(books(), FLOWS, schedule("1M"), 1e6);
    let (allocations, tally) = allocations(load);
    assert_eq!(allocations, 0);
    assert!(tally.replies > 10_000 && tally.lost > 100 && tally.unexpected > 100);
}

#[test]
fn the_flood_allocates_nothing() {
    for schedule in [None, Some(schedule("5M"))] {
        let (allocations, tally) = allocations(Flood::new(books(), FLOWS, schedule));
        assert_eq!(allocations, 0);
        assert!(tally.replies > 100_000);
    }
}
