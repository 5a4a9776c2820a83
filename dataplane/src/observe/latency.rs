//! Latency, stage by stage, in histograms of fixed size.

use hdrhistogram::{CreationError, Histogram};
use serde::{Deserialize, Serialize};

/// Shortest latency told apart, in nanoseconds: the resolution of `CLOCK_MONOTONIC`.
pub const LOWEST_NS: u64 = 1;

/// Longest latency told apart, in nanoseconds: 60 s. Anything longer is counted as this. It is far
/// beyond any retransmission back-off a healthy peer waits for; raising it tenfold costs three to
/// four more buckets a histogram, lowering it would hide how long a stall was.
pub const HIGHEST_NS: u64 = 60_000_000_000;

/// A part of a packet's journey through a worker.
///
/// ```text
///  XDP hook ──► taken from ──► delivered ──► answered by ──► handed to
///               the RX ring    to a socket   the handler     the TX ring
///      │             │              │              │              │
///      └ArrivalToTaken┘              │              │              │
///                    └TakenToDelivered┘             │              │
///                                   └DeliveredToAnswered┘          │
///                                                  └AnsweredToTransmitted┘
///      └───────────────────────────── Whole ──────────────────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Stage {
    /// From the time stamp the XDP program left to the worker's turn that took the frame. Missing
    /// where the driver has no room for the stamp.
    ArrivalToTaken,
    /// From the worker's turn to the socket's receive queue.
    TakenToDelivered,
    /// From the socket's receive queue to the handler's answer.
    DeliveredToAnswered,
    /// From the handler's answer to the TX ring.
    AnsweredToTransmitted,
    /// From the first known stamp to the TX ring.
    Whole,
}

impl Stage {
    /// All of them, in the order a packet passes them.
    pub const ALL: &'static [Stage] = &[
        Stage::ArrivalToTaken,
        Stage::TakenToDelivered,
        Stage::DeliveredToAnswered,
        Stage::AnsweredToTransmitted,
        Stage::Whole,
    ];

    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The name in metrics, JSON and file names.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Stage::ArrivalToTaken => "arrival_to_taken",
            Stage::TakenToDelivered => "taken_to_delivered",
            Stage::DeliveredToAnswered => "delivered_to_answered",
            Stage::AnsweredToTransmitted => "answered_to_transmitted",
            Stage::Whole => "whole",
        }
    }

    /// One sentence for people.
    #[must_use]
    pub const fn help(self) -> &'static str {
        match self {
            Stage::ArrivalToTaken => {
                "from the XDP hook until a worker took the frame from the ring"
            }
            Stage::TakenToDelivered => "from the ring until the datagram was in its socket's queue",
            Stage::DeliveredToAnswered => "from the socket's queue until the handler had answered",
            Stage::AnsweredToTransmitted => "from the answer until its frame was in the TX ring",
            Stage::Whole => "from the first known time stamp until the answer was in the TX ring",
        }
    }
}

/// One worker's histograms, one for each [`Stage`], in nanoseconds. Their size is fixed when they
/// are made, so recording never allocates.
///
/// With three significant digits a histogram takes about 220 KiB, with two about 30 KiB; a worker
/// touches only the few cache lines its latencies fall into.
#[derive(Clone, Debug)]
pub struct WorkerLatency([Histogram<u64>; Stage::COUNT]);

impl WorkerLatency {
    /// Empty histograms that keep `significant_digits` decimal digits of every value (1 to 5).
    ///
    /// # Errors
    /// `significant_digits` is above 5.
    pub fn new(significant_digits: u8) -> Result<Self, CreationError> {
        let one = Histogram::new_with_bounds(LOWEST_NS, HIGHEST_NS, significant_digits)?;
        Ok(Self(std::array::from_fn(|_| one.clone())))
    }

    /// Counts one passage of `stage` that took `ns` nanoseconds; more than [`HIGHEST_NS`] counts as
    /// the highest value there is.
    #[inline]
    pub fn record(&mut self, stage: Stage, ns: u64) {
        self.0[stage as usize].saturating_record(ns);
    }

    /// Counts `count` passages of `stage` that took `ns` nanoseconds each, as when a whole batch
    /// shares its stamps.
    #[inline]
    pub fn record_n(&mut self, stage: Stage, ns: u64, count: u64) {
        if count != 0 {
            self.0[stage as usize].saturating_record_n(ns, count);
        }
    }

    /// The histogram of `stage`, in nanoseconds.
    #[must_use]
    pub fn stage(&self, stage: Stage) -> &Histogram<u64> {
        &self.0[stage as usize]
    }

    /// Every stage with its histogram, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Stage, &Histogram<u64>)> {
        Stage::ALL.iter().map(|&stage| (stage, self.stage(stage)))
    }

    /// Whether nothing was recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Histogram::is_empty)
    }

    /// How many significant digits are kept.
    #[must_use]
    pub fn significant_digits(&self) -> u8 {
        self.0[0].sigfig()
    }

    /// Adds another worker's passages to these.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            mine.add(theirs)
                .expect("invariant: every histogram here covers LOWEST_NS to HIGHEST_NS");
        }
    }

    /// Forgets everything recorded; keeps the memory.
    pub fn reset(&mut self) {
        for histogram in &mut self.0 {
            histogram.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_in_order() {
        for (index, &stage) in Stage::ALL.iter().enumerate() {
            assert_eq!(stage as usize, index);
            assert!(!stage.help().is_empty());
            for &other in &Stage::ALL[index + 1..] {
                assert_ne!(stage.name(), other.name());
            }
            // JSON and metrics must agree on the name.
            assert_eq!(
                serde_json::to_value(stage).unwrap(),
                serde_json::Value::from(stage.name())
            );
        }
    }

    #[test]
    fn records_only_the_stage_named() {
        let mut latency = WorkerLatency::new(3).unwrap();
        assert!(latency.is_empty());
        latency.record(Stage::Whole, 1_500);
        latency.record_n(Stage::TakenToDelivered, 70, 32);
        latency.record_n(Stage::ArrivalToTaken, 70, 0);
        assert_eq!(latency.stage(Stage::Whole).len(), 1);
        assert_eq!(latency.stage(Stage::Whole).max(), 1_500);
        assert_eq!(latency.stage(Stage::TakenToDelivered).len(), 32);
        assert_eq!(
            latency
                .stage(Stage::TakenToDelivered)
                .value_at_quantile(0.5),
            70
        );
        assert!(latency.stage(Stage::ArrivalToTaken).is_empty());
        latency.reset();
        assert!(latency.is_empty());
    }

    #[test]
    fn too_long_counts_as_the_longest() {
        let mut latency = WorkerLatency::new(3).unwrap();
        for ns in [0, HIGHEST_NS, u64::MAX] {
            latency.record(Stage::Whole, ns);
            latency.record_n(Stage::Whole, ns, 2);
        }
        let whole = latency.stage(Stage::Whole);
        assert_eq!(whole.len(), 9);
        assert!(whole.max() >= HIGHEST_NS);
        assert!(whole.max() < 2 * HIGHEST_NS);
    }

    /// Merging must not fail whatever the digits: both cover the same range.
    #[test]
    fn merges_any_precision_and_any_value() {
        for mine in 1..=5 {
            for theirs in 1..=5 {
                let mut a = WorkerLatency::new(mine).unwrap();
                let mut b = WorkerLatency::new(theirs).unwrap();
                for ns in [0, 1, 999, 1_000_000, HIGHEST_NS, u64::MAX] {
                    a.record(Stage::Whole, ns);
                    b.record(Stage::Whole, ns);
                }
                a.merge(&b);
                assert_eq!(
                    a.stage(Stage::Whole).len(),
                    12,
                    "{mine} digits with {theirs}"
                );
            }
        }
    }

    #[test]
    fn refuses_impossible_precision() {
        assert!(WorkerLatency::new(6).is_err());
        assert_eq!(WorkerLatency::new(2).unwrap().significant_digits(), 2);
    }
}
