//! A run over time: rates and latencies of short stretches.

use serde::{Deserialize, Serialize};

use super::live::Snapshot;
use super::load::Window;
use crate::clock::SECOND_NS;

/// Stretches a run is cut into: enough for a plot, and few enough for a table.
const STRETCHES: u64 = 100;

/// Shortest and longest stretch: shorter ones would have too few replies each, and longer ones hide
/// stalls.
const STRETCH_NS_MIN: u64 = SECOND_NS / 20;
const STRETCH_NS_MAX: u64 = SECOND_NS;

/// One stretch of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Its end, in seconds since the measured time began; negative in the warm-up.
    pub at_s: f64,
    /// Requests a second.
    pub requests_per_s: f64,
    /// Replies a second.
    pub replies_per_s: f64,
    /// Requests that were lost or failed.
    pub failed: u64,
    /// Payload sent over connections, in bits a second.
    pub sent_bits_per_s: f64,
    /// Payload received over connections, in bits a second.
    pub received_bits_per_s: f64,
    /// Connections open at its end.
    pub open: u64,
    /// Half of the measured replies took no longer, in microseconds; null without any.
    pub p50_us: Option<f64>,
    /// 99 % took no longer.
    pub p99_us: Option<f64>,
}

/// Cuts a run into stretches.
#[derive(Debug)]
pub(super) struct Sampler {
    measure_ns: u64,
    stop_ns: u64,
    stretch_ns: u64,
    last_ns: u64,
    last: Snapshot,
    intervals: Vec<Interval>,
}

impl Sampler {
    pub(super) fn new(window: &Window) -> Self {
        let Window {
            start_ns,
            measure_ns,
            stop_ns,
        } = *window;
        let whole_ns = stop_ns.saturating_sub(start_ns);
        Self {
            measure_ns,
            stop_ns,
            stretch_ns: (whole_ns / STRETCHES).clamp(STRETCH_NS_MIN, STRETCH_NS_MAX),
            last_ns: start_ns,
            last: Snapshot::default(),
            intervals: Vec::new(),
        }
    }

    /// Takes a look if a stretch is over; what comes after the end of the run belongs to none.
    pub(super) fn sample(&mut self, now: u64, look: impl FnOnce() -> Snapshot) {
        let Some(span_ns) = now.checked_sub(self.last_ns) else {
            return;
        };
        if span_ns < self.stretch_ns || self.last_ns >= self.stop_ns {
            return;
        }
        let snapshot = look();
        let new = snapshot.since(&self.last);
        let per_s = |count: u64| count as f64 * 1e9 / span_ns as f64;
        // Times since boot are below 2⁵³ ns for a hundred days, and off by a nanosecond after that.
        let at_s = (now as f64 - self.measure_ns as f64) / 1e9;
        self.intervals.push(Interval {
            at_s,
            requests_per_s: per_s(new.requests),
            replies_per_s: per_s(new.replies),
            failed: new.lost,
            sent_bits_per_s: per_s(new.sent_bytes) * 8.0,
            received_bits_per_s: per_s(new.received_bytes) * 8.0,
            open: new.open,
            p50_us: new.latency_us(0.5),
            p99_us: new.latency_us(0.99),
        });
        self.last = snapshot;
        self.last_ns = now;
    }

    pub(super) fn finish(self) -> Vec<Interval> {
        self.intervals
    }
}

#[cfg(test)]
mod tests {
    use super::super::live::Live;
    use super::*;
    use std::sync::Arc;

    #[test]
    fn rates_are_those_of_each_stretch() {
        let window = Window {
            start_ns: SECOND_NS,
            measure_ns: 2 * SECOND_NS,
            stop_ns: 11 * SECOND_NS,
        };
        let lives = [Arc::new(Live::default())];
        let mut sampler = Sampler::new(&window);
        assert_eq!(sampler.stretch_ns, SECOND_NS / 10);
        let mut at = |seconds_tenth: u64, replies: u64| {
            for _ in 0..replies {
                lives[0].reply();
                lives[0].latency.record(1_000_000);
            }
            sampler.sample(seconds_tenth * SECOND_NS / 10, || Snapshot::of(&lives));
        };
        at(0, 0); // before the start
        at(11, 10); // 1.1 s
        at(21, 20); // late by nine stretches
        at(22, 0);
        at(112, 5);
        at(113, 5); // after the end
        let series = sampler.finish();
        let rates: Vec<_> = series.iter().map(|one| one.replies_per_s.round()).collect();
        assert_eq!(rates, [100.0, 20.0, 0.0, 1.0]);
        assert!((series[0].at_s + 0.9).abs() < 1e-9);
        assert!(series[1].p99_us.is_some() && series[2].p99_us.is_none());
    }
}
