//! `bench-udp`: the UDP echo of the dataplane against a bare reflector on the same driver and against
//! kernel servers, in one run on one machine.
//!
//! * [`contestant`]: who takes part, and how each is started
//! * [`placement`]: which core does which work
//! * [`measure`]: one measurement: a load, its report, and how busy both cores were meanwhile
//! * [`verdict`]: medians over all rounds, ratios against the targets, and what limited them

mod contestant;
mod measure;
mod placement;
mod verdict;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bench::netns::{self, Veth};
use bench::signal::stop_flag;
use bench::stats::rotated;
use clap::Parser;

use contestant::{Contestant, Cores, Lineup};
use measure::{Course, Load, Run, spare_time};
use verdict::Verdict;

/// Measures the dataplane's UDP echo against a bare reflector on the same driver and against kernel
/// servers, over a veth pair between two network namespaces: the client on one core, the server on
/// another, 64-byte payload. The client of the rates is loadgen's AF_XDP engine, so that the server is
/// the limit. The contestants run in turn, in rotating order, and ratios are of runs of
/// the same round.
///
/// Needs root. Leaves nothing behind but the JSON file.
#[derive(Debug, Parser)]
#[command(name = "bench-udp", version)]
struct Arguments {
    /// Rounds; every contestant runs once in each
    #[arg(long, value_name = "N", default_value = "5", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Length of each measurement, in seconds
    #[arg(long, value_name = "S", default_value = "1.5")]
    duration: f64,
    /// Core of the client
    #[arg(long, value_name = "CPU", default_value = "0")]
    client_cpu: usize,
    /// Core of the server
    #[arg(long, value_name = "CPU", default_value = "1")]
    server_cpu: usize,
    /// Load over IPv6 instead of IPv4
    #[arg(long, short = '6')]
    ipv6: bool,
    /// Only these contestants
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = contestant::names())]
    only: Vec<String>,
    /// Folder of the programs [default: where this one is]
    #[arg(long, value_name = "DIR")]
    binaries: Option<PathBuf>,
    /// Where the results go as JSON
    #[arg(long, value_name = "FILE", default_value = "target/bench/udp.json")]
    json: PathBuf,
    /// End with exit code 1 when a target is missed
    #[arg(long)]
    strict: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(code) => code,
        Err(reason) => {
            eprintln!("bench-udp: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode, String> {
    let duration = Duration::try_from_secs_f64(arguments.duration)
        .ok()
        .filter(|duration| (0.5..=60.0).contains(&duration.as_secs_f64()))
        .ok_or("--duration must be 0.5 to 60 seconds")?;
    if arguments.client_cpu == arguments.server_cpu {
        return Err("client and server need a core each: --client-cpu and --server-cpu".into());
    }
    netns::available()?;
    let stop = stop_flag().map_err(|error| format!("cannot handle Ctrl-C: {error}"))?;
    let binaries = match &arguments.binaries {
        Some(folder) => folder.clone(),
        None => own_folder().map_err(|error| format!("cannot find the programs: {error}"))?,
    };
    let cores = Cores {
        client: arguments.client_cpu,
        server: arguments.server_cpu,
    };
    let lineup = Lineup::new(binaries, cores, &arguments.only)
        .map_err(|error| format!("cannot write configurations: {error}"))?;
    for (name, reason) in lineup.absent() {
        println!("{name} does not take part: {reason}");
    }
    if lineup.contestants().is_empty() {
        return Err("nobody takes part".into());
    }
    let spare = spare_time(cores).map_err(|error| format!("cannot read /proc/stat: {error}"))?;
    if let Some(warning) = spare.warning() {
        println!("{warning}");
    }

    let runs = rounds(arguments, &lineup, duration, &stop)?;
    let verdict = Verdict::new(&lineup, arguments.ipv6, duration, spare, runs);
    print!("{verdict}");
    write_json(&arguments.json, &verdict)
        .map_err(|error| format!("cannot write {}: {error}", arguments.json.display()))?;
    println!("\nAll runs: {}", arguments.json.display());
    let missed = verdict.is_incomplete() || verdict.misses_a_target();
    Ok(if arguments.strict && missed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// All rounds, or those until Ctrl-C.
fn rounds(
    arguments: &Arguments,
    lineup: &Lineup,
    duration: Duration,
    stop: &AtomicBool,
) -> Result<Vec<Run>, String> {
    let course = Course {
        lineup,
        ipv6: arguments.ipv6,
        duration,
    };
    let mut runs = Vec::new();
    let contestants = lineup.contestants();
    for round in 0..arguments.rounds {
        for index in rotated(contestants.len(), round as usize) {
            if stop.load(Ordering::Relaxed) {
                println!(
                    "ended early, in round {} of {}",
                    round + 1,
                    arguments.rounds
                );
                return Ok(runs);
            }
            match one_turn(&course, contestants[index], round) {
                Ok(turn) => runs.extend(turn),
                // Ctrl-C reaches the programs as well: that one ended early is no failure.
                Err(_) if stop.load(Ordering::Relaxed) => {}
                Err(reason) => return Err(reason),
            }
        }
    }
    Ok(runs)
}

/// One contestant in one round: started, loaded in every way, stopped.
fn one_turn(course: &Course<'_>, contestant: Contestant, round: u32) -> Result<Vec<Run>, String> {
    let name = contestant.name();
    // A fresh pair: nothing is left of what the last contestant had set up.
    let veth = Veth::new("bench", contestant::QUEUES)
        .map_err(|error| format!("cannot make a veth pair: {error}"))?;
    let mut server = course
        .lineup
        .start(contestant, course.ipv6, &veth)
        .map_err(|error| format!("{name} does not start: {error}"))?;
    let mut runs = Vec::new();
    for load in Load::ALL {
        let placed = if load.is_placed() {
            course.lineup.place(contestant, &veth)
        } else {
            Ok(())
        };
        let measured =
            placed.and_then(|()| course.measure(contestant, &veth, server.id(), load, round));
        let run = measured.map_err(|error| {
            let (_, said) = server.stop();
            format!("{name}, {}: {error}\n{}", load.name(), said.trim())
        })?;
        println!("{run}");
        // Nobody reads along if this fails, which is no reason to end.
        let _ = io::stdout().flush();
        runs.push(run);
    }
    let (status, said) = server.stop();
    if !status.is_some_and(|status| status.success()) {
        return Err(format!("{name} ended badly ({status:?}): {}", said.trim()));
    }
    Ok(runs)
}

fn own_folder() -> io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    Ok(program.parent().map(Path::to_path_buf).unwrap_or_default())
}

fn write_json(path: &Path, verdict: &Verdict) -> io::Result<()> {
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        fs::create_dir_all(folder)?;
    }
    let text = serde_json::to_string_pretty(verdict).map_err(io::Error::from)?;
    fs::write(path, text + "\n")
}
