//! What every load is told.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{Output, PlanError};
use crate::cpu::CpuList;
use crate::loadgen::kernel::Idle;
use crate::loadgen::run;
use crate::loadgen::target::Family;
use crate::loadgen::xdp::XdpOptions;

/// Longest duration accepted, in seconds: eleven days, so that sums of times cannot overflow.
const DURATION_S_MAX: f64 = 1e6;

/// Most threads: more than any machine has cores.
const THREADS_MAX: i64 = 65_535;

/// Options of every kind of load.
#[derive(Debug, Args)]
pub(super) struct Common {
    /// What carries the load
    #[arg(long, value_enum, default_value_t)]
    engine: Engine,
    /// xdp engine: the interface to use [default: the one the kernel's route to the target takes]
    #[arg(long, value_name = "IFACE")]
    interface: Option<String>,
    /// xdp engine: the mode to obtain; what was obtained is in the result [default: auto]
    #[arg(long, value_enum, value_name = "MODE")]
    xdp_mode: Option<XdpMode>,
    /// Measured time, in seconds (or with a unit: 500ms, 2m)
    #[arg(short, long, value_name = "S", default_value = "10", value_parser = duration)]
    duration: Duration,
    /// Threads; the load is shared out among them [default: one for each of --cpus, or 1]
    #[arg(
        short, long, value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=THREADS_MAX)
    )]
    threads: Option<u32>,
    /// Pin one thread to each of these CPUs, like 0 or 0,2 or 4-7
    #[arg(long, value_name = "LIST")]
    cpus: Option<CpuList>,
    /// What a thread does while nothing is due
    #[arg(long, value_enum, default_value_t)]
    idle: Idle,
    /// Use only IPv4 addresses of a name
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    ipv4: bool,
    /// Use only IPv6 addresses of a name
    #[arg(short = '6', long)]
    ipv6: bool,
    /// Seed of random arrivals, sizes and payload: the same seed repeats them
    #[arg(long, default_value = "1")]
    seed: u64,
    /// Write the result to FILE as JSON; with -, JSON is all that goes to standard output
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the result to FILE as a page with plots of latency and of rates over time
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// No progress and no heading, only the result
    #[arg(short, long)]
    quiet: bool,
}

/// What [`Common`] comes to.
pub(super) struct Place {
    pub(super) engine: run::Engine,
    pub(super) duration: Duration,
    pub(super) threads: usize,
    pub(super) cpus: Option<CpuList>,
    pub(super) idle: Idle,
    pub(super) family: Family,
    pub(super) seed: u64,
}

/// What carries the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, ValueEnum)]
enum Engine {
    /// Kernel sockets.
    #[default]
    Kernel,
    /// AF_XDP on all queues of the interface: a fraction of the CPU time. Needs root; only replies to
    /// its own requests are taken from the kernel
    Xdp,
}

/// How the xdp engine gets at packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum XdpMode {
    /// The best there is.
    Auto,
    /// The NIC reads and writes this program's memory.
    ZeroCopy,
    /// In the driver, with a copy.
    Copy,
    /// In the network stack: works on every interface.
    Generic,
}

impl From<XdpMode> for config::Mode {
    fn from(mode: XdpMode) -> Self {
        match mode {
            XdpMode::Auto => Self::Auto,
            XdpMode::ZeroCopy => Self::ZeroCopy,
            XdpMode::Copy => Self::Copy,
            XdpMode::Generic => Self::Generic,
        }
    }
}

impl Common {
    /// Checks it, for a load of `count` things that `option` says the number of.
    pub(super) fn place(
        self,
        count: u32,
        option: &str,
        thing: &str,
    ) -> Result<(Place, Output), PlanError> {
        let Self {
            engine,
            interface,
            xdp_mode,
            duration,
            threads,
            cpus,
            idle,
            ipv4,
            ipv6,
            seed,
            json,
            html,
            quiet,
        } = self;
        let engine = match engine {
            Engine::Xdp => run::Engine::Xdp(XdpOptions {
                interface,
                mode: xdp_mode.map_or(config::Mode::Auto, Into::into),
            }),
            Engine::Kernel if interface.is_some() => {
                return Err(PlanError::Usage("--interface needs --engine xdp".into()));
            }
            Engine::Kernel if xdp_mode.is_some() => {
                return Err(PlanError::Usage("--xdp-mode needs --engine xdp".into()));
            }
            Engine::Kernel => run::Engine::Kernel,
        };
        let threads = threads.map(|threads| threads as usize);
        let threads = match (threads, &cpus) {
            (Some(threads), Some(cpus)) if threads != cpus.as_slice().len() => {
                return Err(PlanError::Usage(format!(
                    "--threads {threads} does not match --cpus {cpus}: one thread goes to each CPU"
                )));
            }
            (Some(threads), _) => threads,
            (None, Some(cpus)) => cpus.as_slice().len(),
            (None, None) => 1,
        };
        if (count as usize) < threads {
            return Err(PlanError::Usage(format!(
                "{option} {count} is less than the {threads} threads: every thread needs a {thing}"
            )));
        }
        let family = match (ipv4, ipv6) {
            (true, _) => Family::V4,
            (_, true) => Family::V6,
            _ => Family::Any,
        };
        let place = Place {
            engine,
            duration,
            threads,
            cpus,
            idle,
            family,
            seed,
        };
        let output = Output {
            json,
            hgrm: None,
            html,
            quiet,
        };
        Ok((place, output))
    }
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    match seconds(text)? {
        Duration::ZERO => Err("the duration must be longer than nothing".into()),
        duration => Ok(duration),
    }
}

pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    time(text, 1.0)
}

pub(super) fn milliseconds(text: &str) -> Result<Duration, String> {
    match time(text, 1e-3)? {
        Duration::ZERO => Err("the timeout must be longer than nothing".into()),
        timeout => Ok(timeout),
    }
}

/// A time: a number of `unit_s` seconds, or a number with a unit of its own.
pub(crate) fn time(text: &str, unit_s: f64) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit_s = match &text[digits.len()..] {
        "" => unit_s,
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        unit => {
            return Err(format!(
                "`{unit}` is not a unit of time: use us, ms, s, m or h"
            ));
        }
    };
    match digits.parse::<f64>() {
        Ok(number) if (0.0..=DURATION_S_MAX).contains(&(number * unit_s)) => {
            Ok(Duration::from_secs_f64(number * unit_s))
        }
        Ok(_) => Err(format!("expected 0 to {DURATION_S_MAX} seconds")),
        Err(_) => Err(format!("`{text}` is not a time, like 10, 0.5, 500ms or 2m")),
    }
}
