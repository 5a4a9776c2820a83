//! A result as one page: what a browser shows without anything from elsewhere.

use std::fmt::Write as _;

use super::report::Report;
use super::series::Interval;
use crate::histogram;
use crate::plot::{Axis, Mark, Plot, Scale, Series, escaped};

/// Points of a distribution for each halving of the distance to 100 %: more are not told apart in a plot.
const POINTS_PER_HALF_DISTANCE: u32 = 5;

/// Above this ratio between the longest and the shortest latency they are drawn on a logarithmic scale.
const LOG_ABOVE: f64 = 20.0;

impl Report {
    /// The page.
    #[must_use]
    pub fn to_html(&self) -> String {
        let mut plots = Vec::new();
        if !self.latency_counts.is_empty() {
            let name = "replies".to_owned();
            let mut series = vec![(name, self.latency_counts.as_slice())];
            if let Some(tcp) = &self.tcp
                && !tcp.handshake_counts.is_empty()
            {
                series.push(("handshakes".to_owned(), tcp.handshake_counts.as_slice()));
            }
            plots.push(percentiles("Latency by percentile", &series));
        }
        if !self.series.is_empty() {
            plots.extend(self.over_time());
        }
        let title = format!("loadgen {} to {}", self.mode, self.target);
        let mut about = format!(
            "{} loop over {}, {} flows, {} threads, {:.1} s after {:.1} s of warm-up",
            self.loop_kind, self.engine, self.flows, self.threads, self.duration_s, self.warmup_s
        );
        if let Some(rate) = self.offered_rate {
            let _ = write!(about, ", {rate} requests/s offered");
        }
        page(&title, &about, &self.to_string(), &plots)
    }

    fn over_time(&self) -> Vec<Plot> {
        let line = |name: &str, value: &dyn Fn(&Interval) -> Option<f64>| Series {
            name: name.to_owned(),
            points: self
                .series
                .iter()
                .filter_map(|interval| Some((interval.at_s, value(interval)?)))
                .collect(),
            dots: false,
        };
        let over_time = |title: &str, unit: &str, scale, series| Plot {
            title: title.to_owned(),
            x: Axis {
                label: "seconds".into(),
                scale: Scale::Linear,
            },
            y: Axis {
                label: unit.to_owned(),
                scale,
            },
            series,
            marks: vec![Mark {
                x: 0.0,
                label: "warm-up".into(),
            }],
        };
        if self.latency_us.is_none() && self.tcp.is_some() {
            let series = vec![
                line("sent", &|one| Some(one.sent_bits_per_s / 1e6)),
                line("received", &|one| Some(one.received_bits_per_s / 1e6)),
            ];
            return vec![over_time(
                "Throughput over time",
                "Mbit/s",
                Scale::Linear,
                series,
            )];
        }
        let mut rates = vec![
            line("requests", &|one| Some(one.requests_per_s)),
            line("replies", &|one| Some(one.replies_per_s)),
        ];
        if self.series.iter().any(|one| one.failed > 0) {
            rates.push(line("failed", &|one| Some(one.failed as f64)));
        }
        let latencies = vec![
            line("p50", &|one| one.p50_us),
            line("p99", &|one| one.p99_us),
        ];
        let scale = scale_of(latencies.iter().flat_map(|series| &series.points));
        let mut plots = vec![over_time(
            "Rate over time",
            "a second",
            Scale::Linear,
            rates,
        )];
        if latencies.iter().any(|series| !series.points.is_empty()) {
            plots.push(over_time("Latency over time", "µs", scale, latencies));
        }
        plots
    }
}

fn scale_of<'a>(points: impl Iterator<Item = &'a (f64, f64)>) -> Scale {
    let (low, high) = points.fold((f64::INFINITY, 0.0_f64), |(low, high), &(_, y)| {
        (low.min(y), high.max(y))
    });
    if high > low * LOG_ABOVE {
        Scale::Log
    } else {
        Scale::Linear
    }
}

/// Distributions, as counts of nanoseconds, by percentile.
pub(super) fn percentiles(title: &str, distributions: &[(String, &[(u64, u64)])]) -> Plot {
    let series: Vec<Series> = distributions
        .iter()
        .map(|(name, counts)| Series {
            name: name.clone(),
            points: histogram::of_counts(counts.iter().copied())
                .iter_quantiles(POINTS_PER_HALF_DISTANCE)
                .map(|step| {
                    let us = step.value_iterated_to() as f64 / 1000.0;
                    (step.quantile_iterated_to(), us)
                })
                .collect(),
            dots: false,
        })
        .collect();
    let scale = scale_of(series.iter().flat_map(|series| &series.points));
    Plot {
        title: title.to_owned(),
        x: Axis {
            label: "percentile".into(),
            scale: Scale::Nines,
        },
        y: Axis {
            label: "µs".into(),
            scale,
        },
        series,
        marks: Vec::new(),
    }
}

/// A page with plots and a table of text.
pub(super) fn page(title: &str, about: &str, table: &str, plots: &[Plot]) -> String {
    let plots: String = plots
        .iter()
        .map(|plot| format!("<figure>\n{}</figure>\n", plot.to_svg()))
        .collect();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n<style>\n\
         body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 800px; margin: 2em auto; padding: 0 1em }}\n\
         figure {{ margin: 1.5em 0 }}\n\
         pre {{ font: 13px/1.5 ui-monospace, monospace; background: #f6f6f6; padding: 1em; overflow-x: auto }}\n\
         </style>\n</head>\n<body>\n<h1>{title}</h1>\n<p>{about}</p>\n<pre>{table}</pre>\n{plots}\
         <p>loadgen {version}</p>\n</body>\n</html>\n",
        title = escaped(title),
        about = escaped(about),
        table = escaped(table),
        version = env!("CARGO_PKG_VERSION"),
    )
}
