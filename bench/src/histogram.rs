//! Latency histograms: one scale for all of them. Their summary and their `.hgrm` export are the
//! dataplane's ([`LatencyUs`](dataplane::observe::report::LatencyUs),
//! [`PercentileDistribution`](dataplane::observe::hgrm::PercentileDistribution)).

use hdrhistogram::Histogram;

/// Longest latency that keeps its resolution: one hour, in nanoseconds. Longer ones are recorded
/// as this.
pub const LATENCY_NS_MAX: u64 = 3_600_000_000_000;

/// Significant decimal digits of a recorded latency: a value is off by 0.1 % at most. A digit more
/// would make each histogram ten times larger than the half megabyte it is, and push the counters
/// out of the L2 cache.
const SIGNIFICANT_DIGITS: u8 = 3;

/// An empty histogram for latencies in nanoseconds. It never grows: recording allocates nothing.
#[must_use]
pub fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, SIGNIFICANT_DIGITS)
        .expect("invariant: 1 ns to one hour at three digits is a valid scale")
}

/// Adds all of `source` to `total`. Both must come from [`latency_histogram`].
pub fn merge(total: &mut Histogram<u64>, source: &Histogram<u64>) {
    total
        .add(source)
        .expect("invariant: histograms of one scale can always be added");
}

/// What a histogram holds, as pairs of a value and how many there are of it.
#[must_use]
pub fn counts(histogram: &Histogram<u64>) -> Vec<(u64, u64)> {
    histogram
        .iter_recorded()
        .map(|step| (step.value_iterated_to(), step.count_at_value()))
        .collect()
}

/// The histogram of pairs of a value and how many there are of it; values beyond the scale are taken as its
/// ends.
#[must_use]
pub fn of_counts(counts: impl IntoIterator<Item = (u64, u64)>) -> Histogram<u64> {
    let mut histogram = latency_histogram();
    for (value, count) in counts {
        histogram.saturating_record_n(value, count);
    }
    histogram
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn counts_hold_everything(values in prop::collection::vec(1..LATENCY_NS_MAX, 0..50)) {
            let mut histogram = latency_histogram();
            for value in values {
                histogram.record(value).unwrap();
            }
            prop_assert_eq!(of_counts(counts(&histogram)), histogram);
        }
    }

    #[test]
    fn latencies_above_an_hour_saturate() {
        let mut histogram = latency_histogram();
        histogram.saturating_record(u64::MAX);
        assert!(histogram.max() >= LATENCY_NS_MAX);
    }
}
