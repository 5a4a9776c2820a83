//! `loadgen`: loads a network service and reports how it answers. See [`bench::loadgen`].

mod progress;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bench::histogram;
use bench::loadgen::cli::{Cli, Output, PlanError};
use bench::loadgen::job::{Job, Load};
use bench::loadgen::merge::{Merged, merge};
use bench::loadgen::sweep::{self, SweepPlan};
use bench::loadgen::tcp::serve::{ServePlan, serve};
use bench::signal::stop_flag;
use clap::{CommandFactory, Parser, error::ErrorKind};
use dataplane::observe::hgrm::PercentileDistribution;
use dataplane::observe::report::LatencyUs;
use hdrhistogram::Histogram;
use progress::Progress;
use serde::Serialize;

fn main() -> ExitCode {
    let (job, output) = match Cli::parse().plan() {
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
    let done = match job {
        Job::Load(load) => run(&load, &output, &stop),
        Job::Sweep(plan) => run_sweep(&plan, &output, &stop),
        Job::Merge(plan) => merge(&plan).and_then(|merged| write_merged(&merged, &output)),
        Job::Serve(plan) => run_server(&plan, &stop),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => fail(&reason),
    }
}

fn fail(reason: &str) -> ExitCode {
    eprintln!("loadgen: {reason}");
    ExitCode::FAILURE
}

fn run(load: &Load, output: &Output, stop: &Arc<AtomicBool>) -> Result<(), String> {
    if !output.quiet {
        eprintln!("{}", load.headline());
    }
    let mut progress = Progress::new(output.quiet, load);
    let report = load.run(stop, |elapsed, counts| progress.show(elapsed, counts));
    progress.clear();
    let report = report?;
    let latency = histogram::of_counts(report.latency_counts.iter().copied());
    write_results(&report, &report.to_string(), output)?;
    write_html(output, || report.to_html())?;
    write_hgrm(output, &latency)?;
    report.failure().map_or(Ok(()), Err)
}

fn run_sweep(plan: &SweepPlan, output: &Output, stop: &Arc<AtomicBool>) -> Result<(), String> {
    let progress = std::cell::RefCell::new(Progress::new(output.quiet, &plan.load));
    let report = sweep::run(
        plan,
        stop,
        |load| {
            if !output.quiet {
                eprintln!("{}", load.headline());
            }
            progress.replace(Progress::new(output.quiet, load));
        },
        |elapsed, counts| progress.borrow_mut().show(elapsed, counts),
        |_| progress.borrow().clear(),
    );
    progress.borrow().clear();
    let report = report?;
    write_results(&report, &report.to_string(), output)?;
    write_html(output, || report.to_html())?;
    report.failure().map_or(Ok(()), Err)
}

fn run_server(plan: &ServePlan, stop: &AtomicBool) -> Result<(), String> {
    serve(plan, stop, |address| {
        eprintln!("ready: {:?} on {address}", plan.application);
    })
}

fn write_merged(merged: &Merged, output: &Output) -> Result<(), String> {
    let latency = merged.latency();
    match merged {
        Merged::Report(report) => {
            write_results(report, &report.to_string(), output)?;
            write_html(output, || report.to_html())?;
        }
        Merged::Distribution(_) => {
            if output.html.is_some() {
                return Err("--html needs results in JSON, not distributions alone".into());
            }
            let latency_us = LatencyUs::of(&latency);
            let table = PercentileDistribution(&latency).to_string();
            write_results(&latency_us, &table, output)?;
        }
    }
    write_hgrm(output, &latency)
}

fn write_results(report: &impl Serialize, table: &str, output: &Output) -> Result<(), String> {
    let json_on_stdout = output.json.as_deref() == Some(Path::new("-"));
    // Scripts that read the JSON want nothing else there; people still want the table.
    let shown = if json_on_stdout {
        write!(io::stderr(), "{table}")
    } else {
        write!(io::stdout(), "{table}")
    };
    shown.map_err(|error| format!("cannot write the result: {error}"))?;
    if let Some(path) = &output.json {
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
    Ok(())
}

fn write_html(output: &Output, page: impl FnOnce() -> String) -> Result<(), String> {
    let Some(path) = &output.html else {
        return Ok(());
    };
    std::fs::write(path, page())
        .map_err(|error| format!("cannot write {}: {error}", path.display()))
}

fn write_hgrm(output: &Output, latency: &Histogram<u64>) -> Result<(), String> {
    let Some(path) = &output.hgrm else {
        return Ok(());
    };
    let written = File::create(path).and_then(|file| {
        let mut out = BufWriter::new(file);
        write!(out, "{}", PercentileDistribution(latency))?;
        out.flush()
    });
    written.map_err(|error| format!("cannot write {}: {error}", path.display()))
}
