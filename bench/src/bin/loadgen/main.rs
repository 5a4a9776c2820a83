//! `loadgen`: loads a network service and reports how it answers. See [`bench::loadgen`].

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use bench::loadgen::cli::{Cli, Output, PlanError};
use bench::loadgen::live::Snapshot;
use bench::loadgen::report::{Report, headline};
use bench::loadgen::run::{Outcome, run};
use bench::signal::stop_flag;
use clap::{CommandFactory, Parser, error::ErrorKind};
use dataplane::observe::hgrm::PercentileDistribution;

fn main() -> ExitCode {
    let (plan, output) = match Cli::parse().plan() {
        Ok(planned) => planned,
        // clap prints the usage with it and exits with 2.
        Err(PlanError::Usage(reason)) => Cli::command()
            .error(ErrorKind::ValueValidation, reason)
            .exit(),
        Err(PlanError::Target(reason)) => return fail(&reason),
    };
    let stop = match stop_flag() {
        Ok(stop) => stop,
        Err(error) => return fail(&format!("cannot handle Ctrl-C: {error}")),
    };
    if !output.quiet {
        eprintln!("{}", headline(&plan));
    }
    let mut progress = Progress::new(output.quiet, plan.warmup);
    let outcome = run(&plan, &stop, |elapsed, counts| {
        progress.show(elapsed, counts)
    });
    progress.clear();
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(reason) => return fail(&reason),
    };
    let report = Report::new(&plan, &outcome);
    if let Err(reason) = write_results(&report, &outcome, &output) {
        return fail(&reason);
    }
    match report.failure() {
        Some(reason) => fail(&reason),
        None => ExitCode::SUCCESS,
    }
}

fn fail(reason: &str) -> ExitCode {
    eprintln!("loadgen: {reason}");
    ExitCode::FAILURE
}

fn write_results(report: &Report, outcome: &Outcome, output: &Output) -> Result<(), String> {
    let Output {
        json,
        hgrm,
        quiet: _,
    } = output;
    let json_on_stdout = json.as_deref() == Some(Path::new("-"));
    // Scripts that read the JSON want nothing else there; people still want the table.
    let shown = if json_on_stdout {
        write!(io::stderr(), "{report}")
    } else {
        write!(io::stdout(), "{report}")
    };
    shown.map_err(|error| format!("cannot write the result: {error}"))?;
    if let Some(path) = json {
        let written = serde_json::to_string_pretty(report)
            .map_err(io::Error::from)
            .and_then(|text| {
                if json_on_stdout {
                    writeln!(io::stdout(), "{text}")
                } else {
                    std::fs::write(path, text + "\n")
                }
            });
        written.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    if let Some(path) = hgrm {
        let written = File::create(path).and_then(|file| {
            let mut out = BufWriter::new(file);
            write!(out, "{}", PercentileDistribution(&outcome.tally.latency))?;
            out.flush()
        });
        written.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(())
}

/// The line that says how a run goes: rewritten in place on a terminal, a new one each second
/// elsewhere.
struct Progress {
    quiet: bool,
    terminal: bool,
    warmup: Duration,
    last: (Duration, u64),
}

impl Progress {
    fn new(quiet: bool, warmup: Duration) -> Self {
        Self {
            quiet,
            terminal: io::stderr().is_terminal(),
            warmup,
            last: (Duration::ZERO, 0),
        }
    }

    fn show(&mut self, elapsed: Duration, counts: &Snapshot) {
        if self.quiet {
            return;
        }
        let (last_elapsed, last_replies) = self.last;
        let seconds = (elapsed - last_elapsed)
            .as_secs_f64()
            .max(f64::MIN_POSITIVE);
        let rate = counts.replies.saturating_sub(last_replies) as f64 / seconds;
        self.last = (elapsed, counts.replies);

        let mut line = format!("{:>5.0} s  {rate:>9.0} replies/s", elapsed.as_secs_f64());
        if let (Some(p50), Some(p99)) = (counts.latency_us(0.5), counts.latency_us(0.99)) {
            line += &format!("  p50 {p50:.1} µs  p99 {p99:.1} µs");
        }
        line += &format!("  lost {}", counts.lost);
        if counts.refused > 0 {
            line += &format!("  refused {}", counts.refused);
        }
        if elapsed <= self.warmup {
            line += "  (warm-up)";
        }
        // Progress nobody can see is no reason to end a run.
        let _ = if self.terminal {
            write!(io::stderr(), "\r\x1b[K{line}")
        } else {
            writeln!(io::stderr(), "{line}")
        };
    }

    fn clear(&self) {
        if self.terminal && !self.quiet {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
