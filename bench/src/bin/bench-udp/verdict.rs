//! Medians over all rounds, ratios against the targets, and what limited them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bench::stats::{Spread, median, paired_ratio};
use serde::Serialize;

use super::contestant::{Contestant, Cores, Lineup};
use super::measure::{Load, Run, SpareTime};

/// What the project promises of packets per second: ours against theirs.
const TARGETS: [(Contestant, f64); 2] = [(Contestant::Reflector, 0.9), (Contestant::Kernel, 1.3)];

/// A figure of a run.
type Figure = fn(&Run) -> f64;

/// Everything that came out, as the JSON file has it.
#[derive(Debug, Serialize)]
pub(crate) struct Verdict {
    kernel: String,
    cores: Cores,
    ip_version: u8,
    duration_s: f64,
    spare_time: SpareTime,
    absent: Vec<Absent>,
    summaries: Vec<Summary>,
    ratios: Vec<Ratio>,
    notes: Vec<String>,
    runs: Vec<Run>,
}

#[derive(Debug, Serialize)]
struct Absent {
    contestant: &'static str,
    reason: String,
}

/// One contestant under one load, over all rounds.
#[derive(Debug, Serialize)]
struct Summary {
    contestant: &'static str,
    load: Load,
    rate_per_s: Spread,
    replies_per_server_cpu_s: Spread,
    server_busy: f64,
    client_busy: f64,
    /// Medians of the percentiles, in microseconds; not of a flood.
    latency_us: Option<Percentiles>,
    /// Whether the client was the limit in at least half of the rounds.
    client_limited: bool,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Percentiles {
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
}

/// Ours against theirs, round by round.
#[derive(Debug, Serialize)]
struct Ratio {
    theirs: &'static str,
    load: Load,
    /// `rate_per_s` or `replies_per_server_cpu_s`.
    measure: &'static str,
    ratio: Spread,
    target: f64,
    met: bool,
    /// Whether the client was the limit of either side, so that a ratio of rates says little.
    client_limited: bool,
}

impl Verdict {
    /// Draws the conclusions from all runs.
    pub(crate) fn new(
        lineup: &Lineup,
        ipv6: bool,
        duration: Duration,
        spare_time: SpareTime,
        runs: Vec<Run>,
    ) -> Self {
        let summaries = summaries(&runs);
        let ratios = ratios(&runs, &summaries);
        let notes = notes(&summaries, &runs);
        Self {
            kernel: kernel_release(),
            cores: lineup.cores,
            ip_version: if ipv6 { 6 } else { 4 },
            duration_s: duration.as_secs_f64(),
            spare_time,
            absent: lineup
                .absent()
                .iter()
                .map(|(contestant, reason)| Absent {
                    contestant,
                    reason: reason.clone(),
                })
                .collect(),
            summaries,
            ratios,
            notes,
            runs,
        }
    }

    /// Whether a ratio is below its target.
    pub(crate) fn misses_a_target(&self) -> bool {
        self.ratios.iter().any(|ratio| !ratio.met)
    }

    /// Whether a comparison the targets ask for could not be made.
    pub(crate) fn is_incomplete(&self) -> bool {
        TARGETS.iter().any(|(theirs, _)| {
            !self
                .ratios
                .iter()
                .any(|ratio| ratio.theirs == theirs.name())
        })
    }
}

fn summaries(runs: &[Run]) -> Vec<Summary> {
    let mut groups: BTreeMap<(Load, &'static str), Vec<&Run>> = BTreeMap::new();
    for run in runs {
        groups
            .entry((run.load, run.contestant))
            .or_default()
            .push(run);
    }
    groups
        .into_iter()
        .filter_map(|((load, contestant), runs)| {
            let percentile =
                |pick: fn(&Run) -> Option<f64>| median(runs.iter().filter_map(|run| pick(run)));
            let measured = runs.iter().any(|run| run.report.latency_us.is_some());
            let limited = runs.iter().filter(|run| run.client_limited()).count();
            Some(Summary {
                contestant,
                load,
                rate_per_s: Spread::of(runs.iter().map(|run| run.report.rate_per_s))?,
                replies_per_server_cpu_s: Spread::of(
                    runs.iter().map(|run| run.replies_per_server_cpu_s()),
                )?,
                server_busy: median(runs.iter().map(|run| run.server_busy)),
                client_busy: median(runs.iter().map(|run| run.client_busy)),
                latency_us: measured.then(|| Percentiles {
                    p50: percentile(|run| Some(run.report.latency_us?.p50)),
                    p90: percentile(|run| Some(run.report.latency_us?.p90)),
                    p99: percentile(|run| Some(run.report.latency_us?.p99)),
                    p999: percentile(|run| Some(run.report.latency_us?.p999)),
                }),
                client_limited: limited * 2 >= runs.len(),
            })
        })
        .collect()
}

fn ratios(runs: &[Run], summaries: &[Summary]) -> Vec<Ratio> {
    let mut ratios = Vec::new();
    for (theirs, target) in TARGETS {
        // One request at a time says nothing about packets per second.
        for load in [Load::Saturation, Load::Flood] {
            let limited = |contestant: Contestant| {
                summaries.iter().any(|summary| {
                    summary.load == load
                        && summary.contestant == contestant.name()
                        && summary.client_limited
                })
            };
            let client_limited = limited(Contestant::Dataplane) || limited(theirs);
            let measures: [(&'static str, Figure); 2] = [
                ("rate_per_s", |run| run.report.rate_per_s),
                ("replies_per_server_cpu_s", Run::replies_per_server_cpu_s),
            ];
            for (measure, pick) in measures {
                let (our_values, their_values) = pairs(runs, load, theirs, pick);
                let Some(ratio) = paired_ratio(&our_values, &their_values) else {
                    continue;
                };
                let met = ratio.median >= target;
                ratios.push(Ratio {
                    theirs: theirs.name(),
                    load,
                    measure,
                    ratio,
                    target,
                    met,
                    client_limited,
                });
            }
        }
    }
    ratios
}

/// A figure of ours and of theirs for every round in which both ran.
fn pairs(runs: &[Run], load: Load, theirs: Contestant, pick: Figure) -> (Vec<f64>, Vec<f64>) {
    let find = |contestant: Contestant, round| {
        runs.iter()
            .find(|run| {
                run.load == load && run.contestant == contestant.name() && run.round == round
            })
            .map(pick)
    };
    let rounds = runs
        .iter()
        .map(|run| run.round)
        .max()
        .map_or(0, |last| last + 1);
    (0..rounds)
        .filter_map(|round| Some((find(Contestant::Dataplane, round)?, find(theirs, round)?)))
        .unzip()
}

/// What a reader has to know to read the figures right.
fn notes(summaries: &[Summary], runs: &[Run]) -> Vec<String> {
    let mut notes = Vec::new();
    for summary in summaries.iter().filter(|summary| summary.client_limited) {
        notes.push(format!(
            "{}, {}: the client was the limit ({:.0} % busy). The rate is the client's; the server \
             could do more.",
            summary.contestant,
            summary.load.name(),
            summary.client_busy * 100.0,
        ));
    }
    if runs.iter().any(|run| run.polls) {
        notes.push(
            "dataplane, reflector and kernel-busy-poll poll: their core is busy whether or not there \
             is work, so their replies per server-CPU are a lower bound where the client was the limit."
                .into(),
        );
    }
    let steal = median(runs.iter().map(|run| run.steal));
    if steal > 0.03 {
        notes.push(format!(
            "The hypervisor took {:.0} % of both cores' time: absolute figures are low.",
            steal * 100.0
        ));
    }
    let dropped: u64 = runs.iter().map(|run| run.report.client_dropped).sum();
    if dropped > 0 {
        notes.push(format!(
            "{dropped} replies were dropped at the client's own sockets: the client could not take \
             what the server sent."
        ));
    }
    notes
}

fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map(|text| text.trim().to_owned())
        .unwrap_or_else(|_| "unknown".into())
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "\nUDP echo over IPv{}, 64 bytes, veth, Linux {}, client on CPU {}, server on CPU {},\n\
             each side's receive work on the core of the other, who sends, as veth does it; client\n\
             transmit checksums in software, GSO off. Medians.\n",
            self.ip_version, self.kernel, self.cores.client, self.cores.server
        )?;
        writeln!(
            out,
            "{:<11} {:<17} {:>10} {:>14} {:>7} {:>7} {:>9} {:>9} {:>9}",
            "load",
            "server",
            "replies/s",
            "per server-CPU",
            "server",
            "client",
            "p50 µs",
            "p99 µs",
            "p99.9 µs"
        )?;
        for summary in &self.summaries {
            write!(
                out,
                "{:<11} {:<17} {:>10.0} {:>14.0} {:>5.0} % {:>5.0} %",
                summary.load.name(),
                summary.contestant,
                summary.rate_per_s.median,
                summary.replies_per_server_cpu_s.median,
                summary.server_busy * 100.0,
                summary.client_busy * 100.0
            )?;
            match &summary.latency_us {
                Some(Percentiles {
                    p50,
                    p90: _,
                    p99,
                    p999,
                }) => {
                    writeln!(out, " {p50:>9.1} {p99:>9.1} {p999:>9.1}")?;
                }
                None => writeln!(out)?,
            }
        }
        writeln!(out, "\ndataplane against")?;
        for ratio in &self.ratios {
            let measure = if ratio.measure == "rate_per_s" {
                "replies/s"
            } else {
                "replies per server-CPU"
            };
            writeln!(
                out,
                "  {:<10} {:<10} {:<23} {:>5.2}× ({:.2} to {:.2})  target {:.1}×  {}{}",
                ratio.theirs,
                ratio.load.name(),
                measure,
                ratio.ratio.median,
                ratio.ratio.min,
                ratio.ratio.max,
                ratio.target,
                if ratio.met { "met" } else { "MISSED" },
                if ratio.client_limited && ratio.measure == "rate_per_s" {
                    ", but the client was the limit"
                } else {
                    ""
                }
            )?;
        }
        for (theirs, _) in TARGETS {
            if !self
                .ratios
                .iter()
                .any(|ratio| ratio.theirs == theirs.name())
            {
                writeln!(out, "  {:<10} not measured", theirs.name())?;
            }
        }
        for Absent { contestant, reason } in &self.absent {
            writeln!(out, "{contestant} did not take part: {reason}")?;
        }
        for note in &self.notes {
            writeln!(out, "note: {note}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::measure::tests::run;
    use super::*;

    /// Three rounds; the machine got slower by half in the second, for everyone.
    fn runs() -> Vec<Run> {
        let mut runs = Vec::new();
        for (round, speed) in [(0, 1.0), (1, 0.5), (2, 1.0)] {
            for load in [Load::Saturation, Load::Flood] {
                runs.push(run("dataplane", load, round, 190_000.0 * speed, 1.0, 1.0));
                runs.push(run("reflector", load, round, 200_000.0 * speed, 1.0, 1.0));
                runs.push(run("kernel", load, round, 160_000.0 * speed, 1.0, 0.8));
            }
        }
        // A tenth of every flood is missing: polling servers were at their limit.
        for run in &mut runs {
            run.report.lost = 1;
        }
        runs
    }

    #[test]
    fn ratios_are_of_the_same_round_and_judged() {
        let runs = runs();
        let ratios = ratios(&runs, &summaries(&runs));
        assert_eq!(ratios.len(), 8);
        for ratio in ratios {
            let (expected, met) = if ratio.theirs == "reflector" {
                (0.95, true)
            } else {
                (1.1875, false)
            };
            assert!((ratio.ratio.median - expected).abs() < 1e-9, "{ratio:?}");
            assert!(
                (ratio.ratio.max - ratio.ratio.min).abs() < 1e-9,
                "drift cancels: {ratio:?}"
            );
            assert_eq!(ratio.met, met);
            assert!(!ratio.client_limited);
        }
    }

    #[test]
    fn a_round_without_one_side_is_left_out() {
        let mut runs = runs();
        runs.retain(|run| !(run.contestant == "kernel" && run.round == 2));
        let (ours, theirs) = pairs(&runs, Load::Flood, Contestant::Kernel, |run| {
            run.server_busy
        });
        assert_eq!((ours.len(), theirs.len()), (2, 2));
        runs.retain(|run| run.contestant != "kernel");
        assert!(
            !ratios(&runs, &summaries(&runs))
                .iter()
                .any(|ratio| ratio.theirs == "kernel")
        );
    }

    #[test]
    fn a_client_at_its_limit_is_said() {
        let mut runs = runs();
        for run in &mut runs {
            if run.contestant == "kernel" && run.load == Load::Flood {
                run.server_busy = 0.6;
                run.client_busy = 1.0;
            }
        }
        let summaries = summaries(&runs);
        let notes = notes(&summaries, &runs);
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(
            notes[0].contains("kernel, flood: the client was"),
            "{notes:?}"
        );
        for ratio in ratios(&runs, &summaries) {
            let limited = ratio.theirs == "kernel" && ratio.load == Load::Flood;
            assert_eq!(ratio.client_limited, limited, "{ratio:?}");
        }
    }
}
