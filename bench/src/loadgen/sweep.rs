//! One run after the other, at rising rates, until the target does not keep up: latency against
//! throughput, and where the knee is.
//!
//! ```text
//!   kept up      1k   1.5k   2.3k   3.4k   5.1k  ✗7.6k          each rate is the one before, times a factor
//!   between                                    6.2k  ✗6.9k  6.5k …   halving what lies between
//! ```

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::html;
use super::job::Load;
use super::live::Snapshot;
use super::pacing::Rate;
use super::report::Report;
use crate::plot::{Axis, Mark, Plot, Scale, Series};

/// Share of the requests that were due that has to be answered: less means that a queue has grown for as
/// long as the run lasted, and what waits at the end of one that keeps up is far less.
const KEPT_UP: f64 = 0.99;

/// Share of requests that may fail at a rate that is kept up.
const FAILED_MAX: f64 = 0.001;

/// A sweep.
#[derive(Clone, Debug)]
pub struct SweepPlan {
    /// What is run.
    pub load: Load,
    /// The first rate.
    pub from: Rate,
    /// The last, if the target keeps it up.
    pub to: Rate,
    /// From rate to rate, above 1.
    pub factor: f64,
    /// Runs between the last rate that is kept up and the first that is not.
    pub refine: u32,
}

/// What came of a sweep, as `--json` writes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SweepReport {
    /// The highest rate offered that was kept up, in requests a second; null if none was.
    pub knee_per_s: Option<f64>,
    /// The lowest that was not; null if all were.
    pub missed_per_s: Option<f64>,
    /// Whether it was ended early.
    pub interrupted: bool,
    /// The runs, by offered rate.
    pub runs: Vec<Report>,
}

/// Whether the target kept a run's rate up.
#[must_use]
pub fn kept_up(report: &Report) -> bool {
    let due = (report.requests + report.unsent) as f64;
    due > 0.0 && report.replies as f64 >= due * KEPT_UP && failed(report) as f64 <= due * FAILED_MAX
}

fn failed(report: &Report) -> u64 {
    report.requests.saturating_sub(report.replies)
}

/// Which rate comes next; none at the end.
#[derive(Clone, Copy, Debug)]
struct Search {
    next: f64,
    to: f64,
    factor: f64,
    kept: Option<f64>,
    missed: Option<f64>,
    refinements: u32,
}

impl Search {
    /// Takes what came of the run at `self.next`. Returns whether there is another.
    fn advance(&mut self, kept: bool) -> bool {
        if kept {
            self.kept = Some(self.next);
        } else {
            self.missed = Some(self.next);
        }
        match (self.kept, self.missed) {
            (Some(kept), Some(missed)) if self.refinements > 0 => {
                self.refinements -= 1;
                self.next = f64::midpoint(kept, missed);
                true
            }
            (_, Some(_)) => false,
            (_, None) if self.next >= self.to => false,
            (_, None) => {
                self.next = (self.next * self.factor).min(self.to);
                true
            }
        }
    }
}

/// Carries a sweep out. `begin` is told of each run before it, `progress` during it, `end` its result.
///
/// # Errors
/// A sentence, when a run could not be set up.
pub fn run(
    plan: &SweepPlan,
    stop: &Arc<AtomicBool>,
    mut begin: impl FnMut(&Load),
    mut progress: impl FnMut(Duration, &Snapshot),
    mut end: impl FnMut(&Report),
) -> Result<SweepReport, String> {
    let mut search = Search {
        next: plan.from.per_second(),
        to: plan.to.per_second(),
        factor: plan.factor,
        kept: None,
        missed: None,
        refinements: plan.refine,
    };
    let mut runs: Vec<Report> = Vec::new();
    let mut interrupted = false;
    loop {
        // Rates are told to a thousandth, and never below the smallest there is.
        let rate = Rate::of(search.next)?;
        let load = plan.load.at_rate(rate);
        begin(&load);
        let report = load.run(stop, &mut progress)?;
        end(&report);
        if stop.load(Ordering::Relaxed) {
            interrupted = true;
            break;
        }
        let kept = kept_up(&report);
        runs.push(report);
        if !search.advance(kept) {
            break;
        }
    }
    runs.sort_by(|one, other| {
        one.offered_rate
            .unwrap_or(0.0)
            .total_cmp(&other.offered_rate.unwrap_or(0.0))
    });
    Ok(SweepReport {
        knee_per_s: search.kept,
        missed_per_s: search.missed,
        interrupted,
        runs,
    })
}

/// One line for each run.
impl fmt::Display for SweepReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "  {:>12} {:>12} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}",
            "offered /s",
            "replies /s",
            "p50 µs",
            "p90 µs",
            "p99 µs",
            "p99.9 µs",
            "failed",
            "unsent"
        )?;
        for run in &self.runs {
            let latency = run.latency_us.unwrap_or_default();
            writeln!(
                out,
                "  {:>12.0} {:>12.0} {:>10.1} {:>10.1} {:>10.1} {:>10.1} {:>10} {:>10}{}",
                run.offered_rate.unwrap_or(0.0),
                run.rate_per_s,
                latency.p50,
                latency.p90,
                latency.p99,
                latency.p999,
                failed(run),
                run.unsent,
                if kept_up(run) { "" } else { "  not kept up" }
            )?;
        }
        match (self.knee_per_s, self.missed_per_s) {
            (Some(knee), Some(missed)) => writeln!(
                out,
                "  knee: {knee:.0} requests/s are kept up, {missed:.0} are not"
            ),
            (Some(knee), None) => {
                writeln!(out, "  no knee: all is kept up, up to {knee:.0} requests/s")
            }
            (None, _) => writeln!(out, "  no rate was kept up: begin lower, with --from"),
        }
    }
}

impl SweepReport {
    /// Why it failed, if it did: nobody answered at any rate.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        if self.runs.iter().any(|run| run.replies > 0) {
            return None;
        }
        let first = self.runs.first().and_then(Report::failure);
        Some(first.unwrap_or_else(|| "ended before anything was measured".into()))
    }

    /// The page with latency against throughput, and the distributions of all runs.
    #[must_use]
    pub fn to_html(&self) -> String {
        let line = |name: &str, of: &dyn Fn(&Report) -> Option<f64>| Series {
            name: name.to_owned(),
            points: self
                .runs
                .iter()
                .filter(|run| run.replies > 0)
                .filter_map(|run| Some((run.rate_per_s, of(run)?)))
                .collect(),
            dots: true,
        };
        let knee = self.knee_per_s.map(|x| Mark {
            x,
            label: "knee".into(),
        });
        let against = Plot {
            title: "Latency against throughput".into(),
            x: Axis {
                label: "replies a second".into(),
                scale: Scale::Linear,
            },
            y: Axis {
                label: "µs".into(),
                scale: Scale::Log,
            },
            series: vec![
                line("p50", &|run| Some(run.latency_us.as_ref()?.p50)),
                line("p99", &|run| Some(run.latency_us.as_ref()?.p99)),
                line("p99.9", &|run| Some(run.latency_us.as_ref()?.p999)),
            ],
            marks: knee.into_iter().collect(),
        };
        let mut plots = vec![against];
        let answered: Vec<&Report> = self.runs.iter().filter(|run| run.replies > 0).collect();
        // As many as there are colours for, from the lowest rate to the highest.
        let step = answered.len().div_ceil(DISTRIBUTIONS_MAX).max(1);
        let distributions: Vec<(String, &[(u64, u64)])> = answered
            .iter()
            .rev()
            .step_by(step)
            .map(|run| {
                let rate = crate::plot::number(run.offered_rate.unwrap_or(0.0).round());
                (format!("{rate} /s"), run.latency_counts.as_slice())
            })
            .collect();
        if !distributions.is_empty() {
            plots.push(html::percentiles(
                "Latency by percentile, at some of the rates",
                &distributions,
            ));
        }
        let (title, about) = match self.runs.first() {
            Some(run) => (
                format!("loadgen sweep: {} to {}", run.mode, run.target),
                format!(
                    "open loop over {}, {} flows, {} threads, {:.1} s at each rate",
                    run.engine, run.flows, run.threads, run.duration_s
                ),
            ),
            None => ("loadgen sweep".into(), "nothing was measured".into()),
        };
        html::page(&title, &about, &self.to_string(), &plots)
    }
}

/// Lines in a plot that can be told apart.
const DISTRIBUTIONS_MAX: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    /// The rates a search tries with a target that keeps up to `limit`.
    fn rates(to: f64, refine: u32, limit: f64) -> (Vec<f64>, Search) {
        let mut search = Search {
            next: 1000.0,
            to,
            factor: 2.0,
            kept: None,
            missed: None,
            refinements: refine,
        };
        let mut rates = Vec::new();
        loop {
            rates.push(search.next);
            if !search.advance(search.next <= limit) {
                return (rates, search);
            }
        }
    }

    #[test]
    fn the_knee_is_found() {
        let (tried, search) = rates(1e6, 3, 5500.0);
        assert_eq!(tried, [1e3, 2e3, 4e3, 8e3, 6e3, 5e3, 5.5e3]);
        assert_eq!((search.kept, search.missed), (Some(5500.0), Some(6000.0)));
    }

    #[test]
    fn it_ends_at_the_end_and_at_the_beginning() {
        let (tried, search) = rates(3000.0, 3, 1e9);
        assert_eq!(tried, [1e3, 2e3, 3e3]);
        assert_eq!((search.kept, search.missed), (Some(3000.0), None));
        let (tried, search) = rates(3000.0, 3, 10.0);
        assert_eq!(tried, [1e3]);
        assert_eq!(search.kept, None);
    }
}
