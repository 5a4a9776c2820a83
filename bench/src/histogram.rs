//! Latency histograms: one scale for all of them, their summary, and the `.hgrm` export.

use std::io::{self, Write};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

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

/// The percentiles every report shows, in microseconds. All are 0 when nothing was recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LatencySummary {
    /// Half of the replies came within this time.
    pub p50: f64,
    /// 90 % did.
    pub p90: f64,
    /// 99 % did.
    pub p99: f64,
    /// 99.9 % did.
    pub p999: f64,
    /// 99.99 % did.
    pub p9999: f64,
    /// The slowest reply.
    pub max: f64,
    /// The fastest reply.
    pub min: f64,
    /// Arithmetic mean.
    pub mean: f64,
}

impl LatencySummary {
    /// Summarises a histogram of nanoseconds.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let quantile = |quantile| microseconds(histogram.value_at_quantile(quantile));
        Self {
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            p999: quantile(0.999),
            p9999: quantile(0.9999),
            max: microseconds(histogram.max()),
            min: microseconds(histogram.min()),
            mean: histogram.mean() / 1000.0,
        }
    }
}

/// Nanoseconds as microseconds.
#[must_use]
pub fn microseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1000.0
}

/// Rows between one halving of the distance to 100 % and the next in an exported distribution;
/// what the HdrHistogram tools use unless told otherwise.
const TICKS_PER_HALF_DISTANCE: u32 = 5;

/// Writes the percentile distribution in the text form the HdrHistogram tools and plotters read
/// (`.hgrm`), values in microseconds.
///
/// # Errors
/// Whatever `out` returns.
pub fn write_hgrm(histogram: &Histogram<u64>, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "{:>12} {:>14} {:>10} {:>14}",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    )?;
    writeln!(out)?;
    let mut total = 0;
    for step in histogram.iter_quantiles(TICKS_PER_HALF_DISTANCE) {
        total += step.count_since_last_iteration();
        let value = microseconds(histogram.highest_equivalent(step.value_iterated_to()));
        let quantile = step.quantile_iterated_to();
        write!(out, "{value:>12.3} {quantile:>14.12} {total:>10}")?;
        if quantile < 1.0 {
            writeln!(out, " {:>14.2}", 1.0 / (1.0 - quantile))?;
        } else {
            // The last row has no fourth column: 1/(1-1) is infinite.
            writeln!(out)?;
        }
    }
    writeln!(
        out,
        "#[Mean    = {:>12.3}, StdDeviation   = {:>12.3}]",
        histogram.mean() / 1000.0,
        histogram.stdev() / 1000.0
    )?;
    writeln!(
        out,
        "#[Max     = {:>12.3}, Total count    = {:>12}]",
        microseconds(histogram.max()),
        histogram.len()
    )?;
    writeln!(
        out,
        "#[Buckets = {:>12}, SubBuckets     = {:>12}]",
        histogram.buckets(),
        sub_buckets()
    )
}

/// Linear steps in each power of two: the smallest power of two that holds twice 10³ steps.
fn sub_buckets() -> u32 {
    (2 * 10_u32.pow(SIGNIFICANT_DIGITS.into())).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_of_known_values() {
        let mut histogram = latency_histogram();
        for microsecond in 1..=10_000 {
            histogram.record(microsecond * 1000).unwrap();
        }
        let summary = LatencySummary::of(&histogram);
        for (got, want) in [
            (summary.p50, 5_000.0),
            (summary.p90, 9_000.0),
            (summary.p99, 9_900.0),
            (summary.p999, 9_990.0),
            (summary.p9999, 9_999.0),
            (summary.max, 10_000.0),
            (summary.min, 1.0),
            (summary.mean, 5_000.5),
        ] {
            assert!(
                (got / want - 1.0_f64).abs() <= 0.001,
                "{got} is not {want} ± 0.1 %"
            );
        }
    }

    #[test]
    fn an_empty_histogram_is_all_zero() {
        assert_eq!(
            LatencySummary::of(&latency_histogram()),
            LatencySummary::default()
        );
        let mut text = Vec::new();
        write_hgrm(&latency_histogram(), &mut text).unwrap();
        assert!(
            String::from_utf8(text)
                .unwrap()
                .contains("Total count    =            0]")
        );
    }

    #[test]
    fn latencies_above_an_hour_saturate() {
        let mut histogram = latency_histogram();
        histogram.saturating_record(u64::MAX);
        assert!(histogram.max() >= LATENCY_NS_MAX);
    }

    /// Reads an export back as a plotter does: rows of value, quantile, count, and the footer.
    #[test]
    fn the_export_reads_back() {
        let mut histogram = latency_histogram();
        for microsecond in 1..=1000 {
            histogram.record(microsecond * 1000).unwrap();
        }
        let mut text = Vec::new();
        write_hgrm(&histogram, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let mut rows = Vec::new();
        for line in text.lines().skip(2).filter(|line| !line.starts_with('#')) {
            let fields: Vec<f64> = line
                .split_ascii_whitespace()
                .map(|field| field.parse().unwrap())
                .collect();
            rows.push((fields[0], fields[1], fields[2]));
            assert_eq!(fields.len(), if fields[1] < 1.0 { 4 } else { 3 }, "{line}");
        }
        assert!(rows.is_sorted(), "values, quantiles and counts only grow");
        let last = rows.last().unwrap();
        assert_eq!((last.1, last.2), (1.0, 1000.0));
        let median = rows.iter().find(|row| row.1 >= 0.5).unwrap();
        assert!((median.0 - 500.0).abs() < 1.0, "{median:?}");
        assert!(
            text.contains("#[Max     =     1000.")
                && text.contains("Total count    =         1000]")
        );
    }
}
