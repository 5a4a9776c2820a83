//! Medians over all rounds, ratios against the targets, and what limited them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bench::stats::{Spread, median, paired_ratio};
use serde::Serialize;

use super::contestant::{Contestant, Cores, Lineup};
use super::measure::{Load, Run, SpareTime};

/// What the project promises of packets per second: ours against theirs.
const TARGETS: [(Opponent, f64); 2] = [(Opponent::Reflector, 0.9), (Opponent::BestKernel, 1.3)];

/// Whom the targets are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opponent {
    Reflector,
    /// In each round, the fastest of the kernel servers.
    BestKernel,
}

impl Opponent {
    fn name(self) -> &'static str {
        match self {
            Self::Reflector => "reflector",
            Self::BestKernel => "best kernel server",
        }
    }

    fn includes(self, contestant: &str) -> bool {
        match self {
            Self::Reflector => contestant == Contestant::Reflector.name(),
            Self::BestKernel => Contestant::KERNEL
                .iter()
                .any(|kernel| kernel.name() == contestant),
        }
    }
}

/// Whether a target was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Met {
    Yes,
    No,
    /// The client was the limit, and what it gave does not decide it.
    Undecided,
}

impl Met {
    /// Where the client was our limit, we could be faster than measured, and the ratio is the least it
    /// can be; where it was theirs, the most.
    fn judge(ratio: f64, target: f64, ours_limited: bool, theirs_limited: bool) -> Self {
        match (ratio >= target, ours_limited, theirs_limited) {
            (true, _, false) => Self::Yes,
            (false, false, _) => Self::No,
            _ => Self::Undecided,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Yes => "met",
            Self::No => "MISSED",
            Self::Undecided => "undecided: the client was the limit",
        }
    }
}

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
    placements: Vec<Placement>,
    notes: Vec<String>,
    runs: Vec<Run>,
}

/// Who does a contestant's receive work under `saturation`. Everywhere else it is the client's core.
#[derive(Debug, Serialize)]
struct Placement {
    contestant: &'static str,
    receive_work: &'static str,
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
    /// Share of the time in which the client had nothing to do, where it knows.
    client_idle: Option<f64>,
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
    ratio: Spread,
    target: f64,
    met: Met,
    /// Whether the client was our limit: the ratio is then a lower bound.
    our_client_limited: bool,
    /// Whether it was theirs: an upper bound.
    their_client_limited: bool,
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
        let ratios = ratios(&runs);
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
            placements: lineup
                .contestants()
                .iter()
                .map(|contestant| Placement {
                    contestant: contestant.name(),
                    receive_work: contestant.receive_work(),
                })
                .collect(),
            notes,
            runs,
        }
    }

    /// Whether a target is missed where packets per second are measured.
    pub(crate) fn misses_a_target(&self) -> bool {
        self.ratios
            .iter()
            .any(|ratio| ratio.load == Load::Saturation && ratio.met != Met::Yes)
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
                client_idle: runs
                    .iter()
                    .any(|run| run.report.client_idle.is_some())
                    .then(|| median(runs.iter().filter_map(|run| run.report.client_idle))),
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

fn ratios(runs: &[Run]) -> Vec<Ratio> {
    let mut ratios = Vec::new();
    for (theirs, target) in TARGETS {
        // One request at a time says nothing about packets per second, nor does a client that is the
        // limit of everybody.
        for load in [Load::Saturation, Load::Flood] {
            let pairs = pairs(runs, load, theirs);
            let rates = |pick: fn(&(&Run, &Run)) -> f64| pairs.iter().map(pick).collect::<Vec<_>>();
            let (our_rates, their_rates) = (
                rates(|(ours, _)| ours.report.rate_per_s),
                rates(|(_, theirs)| theirs.report.rate_per_s),
            );
            let Some(ratio) = paired_ratio(&our_rates, &their_rates) else {
                continue;
            };
            let limited = |pick: fn(&(&Run, &Run)) -> bool| {
                pairs.iter().filter(|pair| pick(pair)).count() * 2 >= pairs.len()
            };
            let our_client_limited = limited(|(ours, _)| ours.client_limited());
            let their_client_limited = limited(|(_, theirs)| theirs.client_limited());
            let met = Met::judge(
                ratio.median,
                target,
                our_client_limited,
                their_client_limited,
            );
            ratios.push(Ratio {
                theirs: theirs.name(),
                load,
                ratio,
                target,
                met,
                our_client_limited,
                their_client_limited,
            });
        }
    }
    ratios
}

/// Our run and theirs, for every round in which both ran.
fn pairs(runs: &[Run], load: Load, theirs: Opponent) -> Vec<(&Run, &Run)> {
    let ours = runs
        .iter()
        .filter(|run| run.load == load && run.contestant == Contestant::Dataplane.name());
    ours.filter_map(|ours| {
        let best = runs
            .iter()
            .filter(|run| {
                run.load == load && run.round == ours.round && theirs.includes(run.contestant)
            })
            .max_by(|one, other| one.report.rate_per_s.total_cmp(&other.report.rate_per_s))?;
        Some((ours, best))
    })
    .collect()
}

/// What a reader has to know to read the figures right.
fn notes(summaries: &[Summary], runs: &[Run]) -> Vec<String> {
    let mut notes = Vec::new();
    for summary in summaries.iter().filter(|summary| summary.client_limited) {
        notes.push(format!(
            "{}, {}: the client was the limit. The rate is the client's; the server could do more.",
            summary.contestant,
            summary.load.name(),
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
            "\nUDP echo over IPv{}, 64 bytes, veth, Linux {}, client on CPU {}, server on CPU {}; client\n\
             transmit checksums in software, GSO off. Medians.\n",
            self.ip_version, self.kernel, self.cores.client, self.cores.server
        )?;
        writeln!(
            out,
            "The client's receive work is on the server's core, as veth does it. The server's is on the\n\
             client's core likewise, and under saturation:"
        )?;
        for Placement {
            contestant,
            receive_work,
        } in &self.placements
        {
            writeln!(out, "  {contestant:<17} {receive_work}")?;
        }
        writeln!(
            out,
            "\n{:<24} {:<17} {:>10} {:>21} {:>14} {:>7} {:>7} {:>6} {:>9} {:>9} {:>9}",
            "load",
            "server",
            "replies/s",
            "min to max",
            "per server-CPU",
            "server",
            "client",
            "idle",
            "p50 µs",
            "p99 µs",
            "p99.9 µs"
        )?;
        for summary in &self.summaries {
            let rate = &summary.rate_per_s;
            write!(
                out,
                "{:<24} {:<17} {:>10.0} {:>21} {:>14.0} {:>5.0} % {:>5.0} %",
                summary.load.name(),
                summary.contestant,
                rate.median,
                format!("{:.0} to {:.0}", rate.min, rate.max),
                summary.replies_per_server_cpu_s.median,
                summary.server_busy * 100.0,
                summary.client_busy * 100.0
            )?;
            match summary.client_idle {
                Some(idle) => write!(out, " {:>4.0} %", idle * 100.0)?,
                None => write!(out, " {:>6}", "")?,
            }
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
        writeln!(out, "\ndataplane's replies/s against")?;
        for ratio in &self.ratios {
            let bound = match (ratio.our_client_limited, ratio.their_client_limited) {
                (true, false) => "at least ",
                (false, true) => "at most ",
                _ => "",
            };
            writeln!(
                out,
                "  {:<18} {:<10} {bound}{:.2}× ({:.2} to {:.2})  target {:.1}×  {}",
                ratio.theirs,
                ratio.load.name(),
                ratio.ratio.median,
                ratio.ratio.min,
                ratio.ratio.max,
                ratio.target,
                ratio.met.text(),
            )?;
        }
        for (theirs, _) in TARGETS {
            if !self
                .ratios
                .iter()
                .any(|ratio| ratio.theirs == theirs.name())
            {
                writeln!(out, "  {:<18} not measured", theirs.name())?;
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
        // A tenth of every flood is missing, and the client had time to spare: servers were the limit.
        for run in &mut runs {
            run.report.lost = 1;
            run.report.client_idle = Some(0.5);
        }
        runs
    }

    #[test]
    fn ratios_are_of_the_same_round_and_judged() {
        let runs = runs();
        let ratios = ratios(&runs);
        assert_eq!(ratios.len(), 4);
        for ratio in ratios {
            let (expected, met) = if ratio.theirs == "reflector" {
                (0.95, Met::Yes)
            } else {
                (1.1875, Met::No)
            };
            assert!((ratio.ratio.median - expected).abs() < 1e-9, "{ratio:?}");
            assert!(
                (ratio.ratio.max - ratio.ratio.min).abs() < 1e-9,
                "drift cancels: {ratio:?}"
            );
            assert_eq!(ratio.met, met);
            assert!(!ratio.our_client_limited && !ratio.their_client_limited);
        }
    }

    #[test]
    fn the_best_kernel_server_counts_round_by_round() {
        let mut runs = runs();
        let mut rps = run("kernel-rps", Load::Saturation, 1, 95_000.0, 1.0, 0.8);
        rps.report.client_idle = Some(0.5);
        runs.push(rps);
        let pairs = pairs(&runs, Load::Saturation, Opponent::BestKernel);
        let best: Vec<_> = pairs.iter().map(|(_, theirs)| theirs.contestant).collect();
        assert_eq!(best, ["kernel", "kernel-rps", "kernel"]);
    }

    #[test]
    fn a_round_without_one_side_is_left_out() {
        let mut runs = runs();
        runs.retain(|run| !(run.contestant == "kernel" && run.round == 2));
        assert_eq!(pairs(&runs, Load::Flood, Opponent::BestKernel).len(), 2);
        runs.retain(|run| run.contestant != "kernel");
        let none = |ratio: &Ratio| ratio.theirs != Opponent::BestKernel.name();
        assert!(ratios(&runs).iter().all(none));
    }

    #[test]
    fn a_client_at_its_limit_leaves_bounds() {
        let judge = |ratio, ours, theirs| Met::judge(ratio, 1.3, ours, theirs);
        assert_eq!(judge(1.4, false, false), Met::Yes);
        assert_eq!(judge(1.4, true, false), Met::Yes, "it is even more");
        assert_eq!(judge(1.4, false, true), Met::Undecided);
        assert_eq!(judge(1.2, false, false), Met::No);
        assert_eq!(judge(1.2, false, true), Met::No, "it is even less");
        assert_eq!(judge(1.2, true, false), Met::Undecided);
        assert_eq!(judge(1.2, true, true), Met::Undecided);

        let mut runs = runs();
        for run in &mut runs {
            if run.contestant == "kernel" && run.load == Load::Flood {
                run.report.lost = 0;
            }
        }
        let notes = notes(&summaries(&runs), &runs);
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(
            notes[0].contains("kernel, flood: the client was"),
            "{notes:?}"
        );
        for ratio in ratios(&runs) {
            let limited = ratio.theirs == "best kernel server" && ratio.load == Load::Flood;
            assert_eq!(ratio.their_client_limited, limited, "{ratio:?}");
        }
    }
}
