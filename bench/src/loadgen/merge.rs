//! Adds up the results of several machines.

use std::fs;
use std::path::{Path, PathBuf};

use hdrhistogram::Histogram;

use super::report::Report;
use super::tcp::report::{Misbehaving, Tcp};
use crate::histogram::{self, latency_histogram};
use dataplane::observe::report::LatencyUs;

/// What is merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergePlan {
    /// JSON or .hgrm files.
    pub files: Vec<PathBuf>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub enum Merged {
    /// All were JSON.
    Report(Box<Report>),
    /// Some were distributions alone.
    Distribution(Histogram<u64>),
}

impl Merged {
    /// All latencies together, in nanoseconds.
    #[must_use]
    pub fn latency(&self) -> Histogram<u64> {
        match self {
            Self::Report(report) => histogram::of_counts(report.latency_counts.iter().copied()),
            Self::Distribution(histogram) => histogram.clone(),
        }
    }
}

/// Reads the files and adds them up.
///
/// # Errors
/// A sentence that names the file.
pub fn merge(plan: &MergePlan) -> Result<Merged, String> {
    let parts: Vec<Merged> = plan
        .files
        .iter()
        .map(|path| read(path))
        .collect::<Result<_, _>>()?;
    let reports: Option<Vec<Report>> = parts
        .iter()
        .map(|part| match part {
            Merged::Report(report) => Some((**report).clone()),
            Merged::Distribution(_) => None,
        })
        .collect();
    if let Some(reports) = reports {
        return sum(reports).map(|report| Merged::Report(Box::new(report)));
    }
    let mut all = latency_histogram();
    for part in &parts {
        histogram::merge(&mut all, &part.latency());
    }
    Ok(Merged::Distribution(all))
}

fn read(path: &Path) -> Result<Merged, String> {
    let name = path.display();
    let text = fs::read_to_string(path).map_err(|error| format!("cannot read {name}: {error}"))?;
    if text.trim_start().starts_with('{') {
        let report: Report =
            serde_json::from_str(&text).map_err(|error| format!("{name} is no result: {error}"))?;
        if report.replies > 0 && report.latency_us.is_some() && report.latency_counts.is_empty() {
            return Err(format!("{name} has no whole distribution (latency_counts)"));
        }
        return Ok(Merged::Report(Box::new(report)));
    }
    let histogram = distribution(&text).map_err(|line| {
        format!("line {line} of {name} is not of a percentile distribution (.hgrm)")
    })?;
    Ok(Merged::Distribution(histogram))
}

/// A `.hgrm` file's distribution: what is counted between two of its points is taken as the upper one. The
/// error is the number of the line that makes no sense.
fn distribution(text: &str) -> Result<Histogram<u64>, usize> {
    let mut histogram = latency_histogram();
    let (mut seen, mut lines) = (0, 0);
    for (number, line) in (1..).zip(text.lines()) {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (value, count) = match fields.as_slice() {
            [] | ["Value", ..] => continue,
            [comment, ..] if comment.starts_with('#') => continue,
            [value, _, count, ..] => (value.parse::<f64>(), count.parse::<u64>()),
            _ => return Err(number),
        };
        let (Ok(us @ 0.0..=1e12), Ok(count)) = (value, count) else {
            return Err(number);
        };
        let more = count.checked_sub(seen).ok_or(number)?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        // Between 0 and 10¹⁵ by the pattern above.
        let ns = (us * 1000.0).round() as u64;
        histogram.saturating_record_n(ns, more);
        seen = count;
        lines += 1;
    }
    if lines == 0 { Err(1) } else { Ok(histogram) }
}

/// The sum of results of one mode.
fn sum(reports: Vec<Report>) -> Result<Report, String> {
    let mut reports = reports.into_iter();
    let Some(mut all) = reports.next() else {
        return Err("nothing to merge".into());
    };
    let mut latency = histogram::of_counts(all.latency_counts.iter().copied());
    all.merged = all.merged.max(1);
    // Machines were not started in the same instant: their times do not fit together.
    all.series.clear();
    for report in reports {
        if report.mode != all.mode {
            return Err(format!(
                "results of {} and of {} do not add up",
                all.mode, report.mode
            ));
        }
        all.add(&report);
        let more = histogram::of_counts(report.latency_counts.iter().copied());
        histogram::merge(&mut latency, &more);
    }
    all.latency_us = all.latency_us.is_some().then(|| LatencyUs::of(&latency));
    all.latency_counts = histogram::counts(&latency);
    Ok(all)
}

/// Joins two descriptions if they differ.
fn join(all: &mut String, other: &str) {
    if all.split(", ").all(|part| part != other) {
        *all = format!("{all}, {other}");
    }
}

impl Report {
    /// Adds another's counts and rates.
    fn add(&mut self, other: &Self) {
        let Self {
            mode: _,
            engine,
            target,
            version,
            loop_kind,
            arrivals,
            flows,
            threads,
            size: _,
            seed: _,
            duration_s,
            warmup_s,
            timeout_ms,
            interrupted,
            requests,
            replies,
            lost,
            refused,
            unexpected,
            corrupted,
            unsent,
            client_dropped,
            errors,
            offered_rate,
            sent_per_s,
            rate_per_s,
            sent_bits_per_s,
            received_bits_per_s,
            latency_us,
            latency_lower_bounds,
            client_idle,
            xdp: _,
            tcp,
            series: _,
            latency_counts: _,
            merged,
        } = other;
        join(&mut self.engine, engine);
        join(&mut self.target, target);
        join(&mut self.version, version);
        join(&mut self.loop_kind, loop_kind);
        if let (Some(all), Some(one)) = (&mut self.arrivals, arrivals) {
            join(all, one);
        }
        self.flows += flows;
        self.threads += threads;
        self.duration_s = self.duration_s.max(*duration_s);
        self.warmup_s = self.warmup_s.max(*warmup_s);
        self.timeout_ms = self.timeout_ms.max(*timeout_ms);
        self.interrupted |= interrupted;
        self.requests += requests;
        self.replies += replies;
        self.lost += lost;
        self.refused += refused;
        self.unexpected += unexpected;
        self.corrupted += corrupted;
        self.unsent += unsent;
        self.client_dropped += client_dropped;
        for (kind, count) in errors {
            *self.errors.entry(kind.clone()).or_default() += count;
        }
        self.offered_rate = match (self.offered_rate, offered_rate) {
            (Some(all), Some(one)) => Some(all + one),
            _ => None,
        };
        self.sent_per_s += sent_per_s;
        self.rate_per_s += rate_per_s;
        self.sent_bits_per_s += sent_bits_per_s;
        self.received_bits_per_s += received_bits_per_s;
        if self.latency_us.is_none() {
            self.latency_us.clone_from(latency_us);
        }
        self.latency_lower_bounds += latency_lower_bounds;
        // The busiest machine's is what matters.
        self.client_idle = match (self.client_idle, client_idle) {
            (Some(all), Some(one)) => Some(all.min(*one)),
            _ => None,
        };
        self.xdp = None;
        if let (Some(all), Some(one)) = (&mut self.tcp, tcp) {
            all.add(one);
        }
        self.merged += merged.max(&1);
    }
}

impl Tcp {
    fn add(&mut self, other: &Self) {
        let Self {
            request_sizes,
            reply_sizes: _,
            direction: _,
            request: _,
            fresh: _,
            reset: _,
            ramp_s,
            failures,
            begun,
            established,
            connect_failures,
            handshake_us: _,
            handshake_counts,
            open_at_start,
            lost_idle,
            unclosed,
            sent_bytes,
            received_bytes,
            misbehaving,
        } = other;
        join(&mut self.request_sizes, request_sizes);
        self.ramp_s = self.ramp_s.max(*ramp_s);
        for (kind, count) in failures {
            *self.failures.entry(kind.clone()).or_default() += count;
        }
        self.begun += begun;
        self.established += established;
        for (kind, count) in connect_failures {
            *self.connect_failures.entry(kind.clone()).or_default() += count;
        }
        let mut handshake = histogram::of_counts(self.handshake_counts.iter().copied());
        histogram::merge(
            &mut handshake,
            &histogram::of_counts(handshake_counts.iter().copied()),
        );
        self.handshake_us = (!handshake.is_empty()).then(|| LatencyUs::of(&handshake));
        self.handshake_counts = histogram::counts(&handshake);
        self.open_at_start += open_at_start;
        self.lost_idle += lost_idle;
        self.unclosed += unclosed;
        self.sent_bytes += sent_bytes;
        self.received_bytes += received_bytes;
        self.misbehaving = match (self.misbehaving.take(), misbehaving) {
            (Some(mut all), Some(one)) => {
                all.add(one);
                Some(all)
            }
            (all, one) => all.or_else(|| one.clone()),
        };
    }
}

impl Misbehaving {
    fn add(&mut self, other: &Self) {
        let Self {
            clients,
            begun,
            established,
            ended,
            sent_bytes,
        } = other;
        self.clients.extend(clients.iter().cloned());
        self.begun += begun;
        self.established += established;
        self.ended += ended;
        self.sent_bytes += sent_bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::observe::hgrm::PercentileDistribution;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_distribution() {
        for (text, line) in [
            ("", 1),
            ("hello", 1),
            ("Value Percentile TotalCount\n\n1.0 0.0 5\n2.0 0.5 4\n", 4),
            ("1.0 0.0 -5", 1),
            ("nan 0.0 5", 1),
        ] {
            assert_eq!(distribution(text).map(|_| ()), Err(line), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_distribution_reads_back_to_its_points(
            values in prop::collection::vec(1000u64..10_000_000_000, 1..300),
        ) {
            let mut histogram = latency_histogram();
            for value in values {
                histogram.record(value).unwrap();
            }
            let read = distribution(&PercentileDistribution(&histogram).to_string()).unwrap();
            prop_assert_eq!(read.len(), histogram.len());
            prop_assert_eq!(read.max(), histogram.max());
            // Points of the file are kept to within the histogram's own precision.
            for quantile in [0.5, 0.75, 0.875, 1.0] {
                let (is, was) = (read.value_at_quantile(quantile), histogram.value_at_quantile(quantile));
                prop_assert!(is >= was || was - is <= was / 500, "{quantile}: {is} was {was}");
            }
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = distribution(&text);
        }
    }
}
