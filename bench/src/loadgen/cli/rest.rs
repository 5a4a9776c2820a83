//! The command line of what is not one run: several, several machines' results, and a server.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::{LoadCommand, Output, PlanError};
use crate::loadgen::job::Job;
use crate::loadgen::merge::MergePlan;
use crate::loadgen::pacing::Rate;
use crate::loadgen::sweep::SweepPlan;
use crate::loadgen::tcp::serve::{Application, ServePlan};

/// `loadgen sweep`.
#[derive(Debug, Args)]
#[command(subcommand_value_name = "LOAD", subcommand_help_heading = "Loads")]
pub(super) struct Sweep {
    /// Rate of the first run, in requests a second; k and M are understood
    #[arg(long, value_name = "R", default_value = "1k")]
    from: Rate,
    /// Rate to end at, though the target keeps it up
    #[arg(long, value_name = "R", default_value = "10M")]
    to: Rate,
    /// What the rate is multiplied with from run to run
    #[arg(long, value_name = "F", default_value = "1.5", value_parser = factor)]
    factor: f64,
    /// Runs between the last rate that is kept up and the first that is not
    #[arg(long, value_name = "N", default_value = "4")]
    refine: u32,
    #[command(subcommand)]
    load: LoadCommand,
}

fn factor(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(factor) if (1.01..=100.0).contains(&factor) => Ok(factor),
        _ => Err("expected a factor from 1.01 to 100".into()),
    }
}

impl Sweep {
    pub(super) fn plan(self) -> Result<(Job, Output), PlanError> {
        let Self {
            from,
            to,
            factor,
            refine,
            load,
        } = self;
        let (load, output) = load.plan()?;
        if !load.asks() {
            return Err(PlanError::Usage(
                "a sweep is of requests: udp-rr, tcp-rr, tcp-crr or http".into(),
            ));
        }
        if load.rate().is_some() {
            return Err(PlanError::Usage(
                "a sweep sets the rate by itself: use its --from and --to".into(),
            ));
        }
        if output.hgrm.is_some() {
            return Err(PlanError::Usage(
                "a sweep has many distributions: they are in its --json".into(),
            ));
        }
        if from > to {
            return Err(PlanError::Usage(format!(
                "--from {from} is above --to {to}"
            )));
        }
        let plan = SweepPlan {
            load,
            from,
            to,
            factor,
            refine,
        };
        Ok((Job::Sweep(Box::new(plan)), output))
    }
}

/// `loadgen merge`.
#[derive(Debug, Args)]
pub(super) struct Merge {
    /// Results: JSON of --json, or distributions of --hgrm
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Write the result to FILE as JSON; with -, JSON is all that goes to standard output
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the latency distribution to FILE, in the form the HdrHistogram tools read
    #[arg(long, value_name = "FILE")]
    hgrm: Option<PathBuf>,
    /// Write the result to FILE as a page with plots
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl Merge {
    pub(super) fn plan(self) -> (Job, Output) {
        let Self {
            files,
            json,
            hgrm,
            html,
        } = self;
        let output = Output {
            json,
            hgrm,
            html,
            quiet: false,
        };
        (Job::Merge(MergePlan { files }), output)
    }
}

/// `loadgen serve`.
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Where to listen: ADDRESS:PORT; port 0 is any, and is said
    listen: SocketAddr,
    /// Connections at once, at most
    #[arg(long, value_name = "N", default_value = "10000")]
    connections: u32,
    /// What it does with them
    #[arg(long, value_enum, default_value_t)]
    application: Application,
}

impl Serve {
    pub(super) fn plan(self) -> Result<(Job, Output), PlanError> {
        let Self {
            listen,
            connections,
            application,
        } = self;
        let plan = ServePlan {
            listen,
            connections: connections as usize,
            application,
        };
        Ok((Job::Serve(plan), Output::default()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::job;
    use super::*;

    #[test]
    fn a_sweep_has_a_load() {
        let (Job::Sweep(plan), output) =
            job("sweep --from 2k --to 1M --factor 2 tcp-rr 127.0.0.1:7 -c 4 --json -").unwrap()
        else {
            panic!("not a sweep");
        };
        assert_eq!((plan.from, plan.factor), ("2k".parse().unwrap(), 2.0));
        assert_eq!(output.json, Some("-".into()));
        for (line, reason) in [
            ("sweep", "LOAD"),
            ("sweep tcp-stream 127.0.0.1:7", "of requests"),
            ("sweep udp-flood 127.0.0.1:7", "of requests"),
            ("sweep tcp-rr 127.0.0.1:7 --rate 5", "--from"),
            ("sweep tcp-rr 127.0.0.1:7 --hgrm x", "--json"),
            ("sweep --from 5k --to 1k tcp-rr 127.0.0.1:7", "above"),
            ("sweep --factor 1 tcp-rr 127.0.0.1:7", "1.01"),
        ] {
            let error = job(line).unwrap_err();
            assert!(error.contains(reason), "{line:?} says {error:?}");
        }
    }

    #[test]
    fn a_merge_has_files() {
        let (Job::Merge(plan), output) = job("merge a.json b.hgrm --hgrm c").unwrap() else {
            panic!("not a merge");
        };
        assert_eq!(plan.files, [PathBuf::from("a.json"), "b.hgrm".into()]);
        assert_eq!(output.hgrm, Some("c".into()));
        assert!(job("merge").unwrap_err().contains("FILE"));
    }
}
