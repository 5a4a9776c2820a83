//! Percentile distributions in the text format that HdrHistogram's own tools write and plot
//! (`HistogramLogProcessor`, the plotter at hdrhistogram.github.io):
//!
//! ```text
//!        Value     Percentile TotalCount 1/(1-Percentile)
//!
//!        1.027 0.000000000000          3           1.00
//!        …
//!       48.127 1.000000000000      10000
//! #[Mean    =        2.310, StdDeviation   =        1.201]
//! #[Max     =       48.127, Total count    =        10000]
//! #[Buckets =           26, SubBuckets     =         2048]
//! ```
//!
//! Values are in microseconds with three decimals, so that a nanosecond shows.

use crate::observe::{
    observation::{Observation, WorkerHistograms},
    report::{NS_PER_US, us},
};
use hdrhistogram::Histogram;
use std::{
    fmt, fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Lines for each halving of the distance to 100 %: what HdrHistogram's tools use. More make
/// smoother plots and longer files.
const TICKS_PER_HALF_DISTANCE: u32 = 5;

/// A histogram in nanoseconds, displayed as a percentile distribution in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct PercentileDistribution<'a>(pub &'a Histogram<u64>);

impl fmt::Display for PercentileDistribution<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(histogram) = *self;
        writeln!(
            f,
            "{:>12} {:>14} {:>10} {:>14}\n",
            "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
        )?;
        let mut total = 0;
        for tick in histogram.iter_quantiles(TICKS_PER_HALF_DISTANCE) {
            total += tick.count_since_last_iteration();
            let value = us(histogram.highest_equivalent(tick.value_iterated_to()));
            let percentile = tick.quantile_iterated_to();
            write!(f, "{value:12.3} {percentile:2.12} {total:10}")?;
            // The last line is 100 %: there is no distance left to divide by.
            if percentile < 1.0 {
                write!(f, " {:14.2}", 1.0 / (1.0 - percentile))?;
            }
            writeln!(f)?;
        }
        let (mean, stdev) = if histogram.is_empty() {
            (0.0, 0.0)
        } else {
            (histogram.mean() / NS_PER_US, histogram.stdev() / NS_PER_US)
        };
        writeln!(f, "#[Mean    = {mean:12.3}, StdDeviation   = {stdev:12.3}]")?;
        let (max, count) = (us(histogram.max()), histogram.len());
        writeln!(f, "#[Max     = {max:12.3}, Total count    = {count:12}]")?;
        let (buckets, sub_buckets) = (histogram.buckets(), sub_buckets(histogram.sigfig()));
        writeln!(
            f,
            "#[Buckets = {buckets:12}, SubBuckets     = {sub_buckets:12}]"
        )
    }
}

/// How many sub-buckets HdrHistogram needs for `digits` significant digits: twice ten to their
/// power, rounded up to a power of two.
fn sub_buckets(digits: u8) -> u64 {
    (2 * 10u64.pow(u32::from(digits))).next_power_of_two()
}

/// Writes `<worker>-<stage>.hgrm` for every worker and `all-<stage>.hgrm` for all of them into
/// `directory`, which is created if it is missing. Stages nobody passed get no file. Each file
/// appears whole or not at all. Returns what was written.
///
/// # Errors
/// The directory or a file cannot be written; the error names it.
pub fn write_all(directory: &Path, observation: &Observation) -> io::Result<Vec<PathBuf>> {
    fs::create_dir_all(directory).map_err(|error| named(&error, directory))?;
    let all = observation.latency_of_all();
    let all = all.as_ref().map(|latency| ("all".to_owned(), latency));
    let each = observation
        .latency
        .iter()
        .map(|WorkerHistograms { worker, latency }| (worker.to_string(), latency));
    let mut written = Vec::new();
    for (worker, latency) in all.into_iter().chain(each) {
        for (stage, histogram) in latency
            .iter()
            .filter(|(_, histogram)| !histogram.is_empty())
        {
            let path = directory.join(format!("{worker}-{}.hgrm", stage.name()));
            let text = PercentileDistribution(histogram).to_string();
            write_atomically(&path, text.as_bytes()).map_err(|error| named(&error, &path))?;
            written.push(path);
        }
    }
    Ok(written)
}

/// Writes `path` through a temporary file beside it, so that a reader sees the old file or the new
/// one, never half of it.
///
/// # Errors
/// The temporary file cannot be written or renamed; then it is removed.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not the name of a file"))?
        .to_owned();
    // The process number keeps two services that write to one directory apart.
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let result = fs::File::create(&temporary)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&temporary, path));
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result
}

fn named(error: &io::Error, path: &Path) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("cannot write {}: {error}", path.display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::latency::{Stage, WorkerLatency};
    use proptest::prelude::*;

    /// Value, percentile, total count, 1/(1-percentile).
    type Tick = (f64, f64, u64, Option<f64>);

    /// What a plotter reads back: lines of value, percentile, count and 1/(1-percentile), then the
    /// three footers as numbers.
    fn parse(text: &str) -> (Vec<Tick>, Vec<f64>) {
        let mut lines = text.lines();
        let header: Vec<_> = lines.next().unwrap().split_whitespace().collect();
        assert_eq!(
            header,
            ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
        );
        assert_eq!(lines.next(), Some(""));
        let (mut rows, mut footer) = (Vec::new(), Vec::new());
        for line in lines {
            if let Some(line) = line.strip_prefix("#[") {
                for part in line.strip_suffix(']').unwrap().split(',') {
                    footer.push(part.split_once('=').unwrap().1.trim().parse().unwrap());
                }
            } else {
                let words: Vec<_> = line.split_whitespace().collect();
                let inverse = words.get(3).map(|word| word.parse().unwrap());
                rows.push((
                    words[0].parse().unwrap(),
                    words[1].parse().unwrap(),
                    words[2].parse().unwrap(),
                    inverse,
                ));
            }
        }
        (rows, footer)
    }

    proptest! {
        #[test]
        fn parses_back(values in prop::collection::vec(0u64..10_000_000_000, 1..300)) {
            let mut histogram = Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap();
            for &value in &values {
                histogram.record(value).unwrap();
            }
            let (rows, footer) = parse(&PercentileDistribution(&histogram).to_string());
            for (index, &(value, percentile, count, inverse)) in rows.iter().enumerate() {
                // At least this share of the values is at most this one: checked on the values
                // themselves. A rounded microsecond is half a nanosecond wide on each side.
                let below = values.iter().filter(|&&v| us(v) <= value + 0.0005).count();
                prop_assert_eq!(below as u64, count);
                prop_assert!(count as f64 + 1e-6 >= percentile * values.len() as f64);
                match inverse {
                    Some(inverse) => {
                        // The percentile has 12 decimals in the file, so its distance to 1 is
                        // only that exact.
                        prop_assert!((inverse * (1.0 - percentile) - 1.0).abs() < 0.01);
                    }
                    None => prop_assert_eq!(index + 1, rows.len()),
                }
            }
            let last = rows.last().unwrap();
            prop_assert_eq!((last.1, last.2, last.3), (1.0, values.len() as u64, None));
            prop_assert!((footer[2] - us(histogram.max())).abs() < 0.001);
            prop_assert_eq!(footer[3], values.len() as f64);
            prop_assert_eq!(footer[5], 2048.0);
        }
    }

    #[test]
    fn empty_is_still_a_file_tools_read() {
        let histogram = Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap();
        let (rows, footer) = parse(&PercentileDistribution(&histogram).to_string());
        assert!(rows.is_empty());
        assert_eq!(footer, [0.0, 0.0, 0.0, 0.0, 26.0, 2048.0]);
    }

    #[test]
    fn columns_stand_where_the_original_puts_them() {
        let mut histogram = Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap();
        histogram.record_n(1_500, 3).unwrap();
        let text = PercentileDistribution(&histogram).to_string();
        assert_eq!(
            text,
            "       Value     Percentile TotalCount 1/(1-Percentile)\n\
             \n\
             \x20      1.500 0.000000000000          3           1.00\n\
             \x20      1.500 1.000000000000          3\n\
             #[Mean    =        1.500, StdDeviation   =        0.000]\n\
             #[Max     =        1.500, Total count    =            3]\n\
             #[Buckets =           26, SubBuckets     =         2048]\n"
        );
    }

    #[test]
    fn writes_what_was_recorded_and_leaves_nothing_else() {
        let directory = std::env::temp_dir().join(format!("dataplane-hgrm-{}", std::process::id()));
        let mut latency = WorkerLatency::new(3).unwrap();
        latency.record(Stage::Whole, 1000);
        let observation = Observation {
            latency: vec![
                WorkerHistograms { worker: 0, latency },
                WorkerHistograms {
                    worker: 1,
                    latency: WorkerLatency::new(3).unwrap(),
                },
            ],
            ..Observation::default()
        };
        let nested = directory.join("a/b");
        let written = write_all(&nested, &observation).unwrap();
        // A second time replaces the files.
        assert_eq!(write_all(&nested, &observation).unwrap(), written);
        let mut names: Vec<_> = fs::read_dir(&nested)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["0-whole.hgrm", "all-whole.hgrm"]);
        let text = fs::read_to_string(nested.join("0-whole.hgrm")).unwrap();
        assert_eq!(parse(&text).1[3], 1.0);

        fs::write(directory.join("file"), "").unwrap();
        let error = write_all(&directory.join("file"), &observation).unwrap_err();
        assert!(error.to_string().contains("file"), "{error}");
        fs::remove_dir_all(&directory).unwrap();
    }
}
