//! Latency as a table for people and as JSON.

use crate::observe::{
    latency::{Stage, WorkerLatency},
    observation::Observation,
};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// Nanoseconds in a microsecond, the unit of every report: wide enough for a tail, fine enough for
/// a stage.
pub const NS_PER_US: f64 = 1_000.0;

/// A distribution in numbers, in microseconds. All zero if nothing was recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LatencyUs {
    /// Shortest.
    pub min: f64,
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub stdev: f64,
    /// Half are at most this.
    pub p50: f64,
    /// 90 % are at most this.
    pub p90: f64,
    /// 99 % are at most this.
    pub p99: f64,
    /// 99.9 % are at most this.
    pub p999: f64,
    /// 99.99 % are at most this.
    pub p9999: f64,
    /// Longest.
    pub max: f64,
}

impl LatencyUs {
    /// Of a histogram in nanoseconds.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let quantile = |q| us(histogram.value_at_quantile(q));
        Self {
            min: us(histogram.min()),
            mean: histogram.mean() / NS_PER_US,
            stdev: histogram.stdev() / NS_PER_US,
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            p999: quantile(0.999),
            p9999: quantile(0.9999),
            max: us(histogram.max()),
        }
    }
}

/// Nanoseconds as microseconds. Latencies end at 60 s, far below where `f64` loses a nanosecond.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn us(ns: u64) -> f64 {
    ns as f64 / NS_PER_US
}

/// A count with its noun: `1 service`, `2 services`.
#[must_use]
pub fn plural(count: usize, noun: &str) -> String {
    if count == 1 {
        format!("1 {noun}")
    } else {
        format!("{count} {noun}s")
    }
}

/// One stage's distribution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageReport {
    /// Which stage.
    pub stage: Stage,
    /// How many passages.
    pub count: u64,
    /// How long they took.
    pub latency_us: LatencyUs,
}

/// The stages of one worker, or of all of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerReport {
    /// The worker's number as text, or `all`.
    pub worker: String,
    /// Its stages, in order, empty ones included.
    pub stages: Vec<StageReport>,
}

impl WorkerReport {
    fn new(worker: String, latency: &WorkerLatency) -> Self {
        let stages = latency
            .iter()
            .map(|(stage, histogram)| StageReport {
                stage,
                count: histogram.len(),
                latency_us: LatencyUs::of(histogram),
            })
            .collect();
        Self { worker, stages }
    }
}

/// Every distribution there is: first `all` workers together, then each one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LatencyReport {
    /// `all` first, then worker by worker; empty if there is no worker.
    pub workers: Vec<WorkerReport>,
}

impl LatencyReport {
    /// Of everything observed.
    #[must_use]
    pub fn new(observation: &Observation) -> Self {
        let all = observation
            .latency_of_all()
            .map(|all| WorkerReport::new("all".into(), &all));
        let each = observation
            .latency
            .iter()
            .map(|one| WorkerReport::new(one.worker.to_string(), &one.latency));
        Self {
            workers: all.into_iter().chain(each).collect(),
        }
    }

    /// A table of all workers together, and one for each worker if there are several. Stages nobody
    /// passed have a count of 0 and no numbers.
    #[must_use]
    pub fn table(&self) -> String {
        let mut out = String::new();
        // With one worker, `all` says everything.
        let shown = if self.workers.len() == 2 {
            &self.workers[..1]
        } else {
            &self.workers[..]
        };
        for (index, report) in shown.iter().enumerate() {
            if index > 0 {
                out.push('\n');
            }
            self.write_worker(&mut out, report)
                .expect("invariant: a String takes all text");
        }
        if out.is_empty() {
            out.push_str("no worker has recorded anything\n");
        }
        out
    }

    fn write_worker(&self, out: &mut String, report: &WorkerReport) -> std::fmt::Result {
        let title = match report.worker.as_str() {
            "all" => "latency (µs)".to_owned(),
            worker => format!("worker {worker} (µs)"),
        };
        write!(out, "{title:<24}")?;
        for column in ["p50", "p90", "p99", "p99.9", "p99.99", "max"] {
            write!(out, " {column:>9}")?;
        }
        writeln!(out, " {:>12}", "count")?;
        for StageReport {
            stage,
            count,
            latency_us,
        } in &report.stages
        {
            write!(out, "{:<24}", stage.name())?;
            let LatencyUs {
                min: _,
                mean: _,
                stdev: _,
                p50,
                p90,
                p99,
                p999,
                p9999,
                max,
            } = *latency_us;
            for value in [p50, p90, p99, p999, p9999, max] {
                let cell = if *count == 0 {
                    "-".to_owned()
                } else {
                    digits(value)
                };
                write!(out, " {cell:>9}")?;
            }
            writeln!(out, " {count:>12}")?;
        }
        Ok(())
    }
}

/// As many decimals as tell something: three below 10 µs, where a nanosecond shows, none from
/// 1000 µs on.
fn digits(us: f64) -> String {
    let decimals = match us {
        us if us < 10.0 => 3,
        us if us < 100.0 => 2,
        us if us < 1000.0 => 1,
        _ => 0,
    };
    format!("{us:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::observation::WorkerHistograms;

    fn observation(workers: usize) -> Observation {
        let latency = (0..workers)
            .map(|worker| {
                let mut latency = WorkerLatency::new(3).unwrap();
                for us in 1..=1000 {
                    latency.record(Stage::Whole, us * 1000);
                }
                WorkerHistograms { worker, latency }
            })
            .collect();
        Observation {
            latency,
            ..Observation::default()
        }
    }

    /// An independent computation over the sorted values, to the histogram's three digits.
    #[test]
    fn quantiles_agree_with_sorted_values() {
        let report = LatencyReport::new(&observation(2));
        let all = &report.workers[0];
        assert_eq!(all.worker, "all");
        let whole = &all.stages[Stage::Whole as usize];
        assert_eq!(whole.stage, Stage::Whole);
        assert_eq!(whole.count, 2000);
        let near = |got: f64, want: f64| assert!((got / want - 1.0).abs() < 1e-3, "{got} {want}");
        let LatencyUs {
            min,
            mean,
            stdev,
            p50,
            p90,
            p99,
            p999,
            p9999,
            max,
        } = whole.latency_us;
        near(min, 1.0);
        near(mean, 500.5);
        near(stdev, 288.675);
        near(p50, 500.0);
        near(p90, 900.0);
        near(p99, 990.0);
        near(p999, 999.0);
        near(p9999, 1000.0);
        near(max, 1000.0);
        assert_eq!(
            all.stages[Stage::ArrivalToTaken as usize].latency_us,
            LatencyUs::default()
        );
    }

    #[test]
    fn json_has_the_names_other_tools_read() {
        let json = serde_json::to_value(LatencyReport::new(&observation(1))).unwrap();
        let whole = &json["workers"][0]["stages"][Stage::Whole as usize];
        assert_eq!(whole["stage"], "whole");
        assert_eq!(whole["count"], 1000);
        for key in [
            "min", "mean", "stdev", "p50", "p90", "p99", "p999", "p9999", "max",
        ] {
            assert!(whole["latency_us"][key].as_f64().unwrap() > 0.0, "{key}");
        }
        let back: LatencyReport = serde_json::from_value(json).unwrap();
        assert_eq!(back.workers.len(), 2);
    }

    #[test]
    fn table_shows_each_worker_only_if_there_are_several() {
        let one = LatencyReport::new(&observation(1)).table();
        assert!(!one.contains("worker 0"));
        let row = one.lines().find(|line| line.starts_with("whole")).unwrap();
        let words: Vec<_> = row.split_whitespace().collect();
        // 500 µs has three digits in the histogram: its bucket ends at 500.223.
        assert_eq!(
            words,
            [
                "whole", "500.2", "900.1", "990.2", "999.4", "1000", "1000", "1000"
            ]
        );
        let empty = one
            .lines()
            .find(|line| line.starts_with("arrival_to_taken"))
            .unwrap();
        assert_eq!(empty.split_whitespace().last(), Some("0"));
        assert_eq!(empty.matches('-').count(), 6);

        let two = LatencyReport::new(&observation(2)).table();
        assert!(two.contains("worker 0") && two.contains("worker 1"));
        assert_eq!(
            LatencyReport::default().table(),
            "no worker has recorded anything\n"
        );
    }

    #[test]
    fn columns_line_up() {
        let table = LatencyReport::new(&observation(2)).table();
        let width = table.lines().next().unwrap().chars().count();
        assert!(
            table
                .lines()
                .all(|line| line.is_empty() || line.chars().count() == width)
        );
    }

    #[test]
    fn one_is_not_many() {
        let said = [0, 1, 2].map(|count| plural(count, "route"));
        assert_eq!(said, ["0 routes", "1 route", "2 routes"]);
    }

    #[test]
    fn digits_follow_size() {
        assert_eq!(digits(0.047), "0.047");
        assert_eq!(digits(12.345), "12.35");
        assert_eq!(digits(345.67), "345.7");
        assert_eq!(digits(60_000_000.0), "60000000");
    }
}
