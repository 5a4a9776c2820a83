//! `impair`: forwards frames between two interfaces and impairs them. See [`bench::impair`].

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use bench::impair::cli::Cli;
use bench::impair::forward::{Forwarder, Plan};
use bench::impair::report::Report;
use bench::signal::stop_flag;
use clap::Parser;

fn main() -> ExitCode {
    let (plan, json) = Cli::parse().plan();
    match run(&plan, json.as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("impair: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn run(plan: &Plan, json: Option<&Path>) -> Result<(), String> {
    let stop = stop_flag().map_err(|error| format!("cannot handle Ctrl-C: {error}"))?;
    let forwarder = Forwarder::open(plan)?;
    let [a, b] = &plan.interfaces;
    eprintln!("ready: {a} <-> {b}, seed {}", plan.seed);
    let report = forwarder.run(&stop)?;
    write_report(&report, json)
}

fn write_report(report: &Report, json: Option<&Path>) -> Result<(), String> {
    let is_stdout = json == Some(Path::new("-"));
    if !is_stdout {
        write!(io::stdout(), "{report}")
            .map_err(|error| format!("cannot write the counters: {error}"))?;
    }
    let Some(path) = json else {
        return Ok(());
    };
    serde_json::to_string_pretty(report)
        .map_err(io::Error::from)
        .and_then(|text| match is_stdout {
            true => writeln!(io::stdout(), "{text}"),
            false => std::fs::write(path, text + "\n"),
        })
        .map_err(|error| format!("cannot write {}: {error}", path.display()))
}
