//! `bench-goodput`: what TCP carries over a bad link, the dataplane's stack beside the Linux kernel.
//!
//! Both meet a link of the same rate, delay and queue that loses and reorders the same shares of
//! frames: the stack in the simulator, in virtual time; the kernel between two namespaces, through
//! `impair`, in real time. Both sides of a connection are of one kind, and both use CUBIC.
#![forbid(unsafe_code)]

mod kernel;
mod simulated;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bench::stats::Spread;
use clap::Parser;

/// Compares goodput over impaired links, and the latency of an answer whose last segment is lost,
/// with the kernel's.
#[derive(Debug, Parser)]
#[command(name = "bench-goodput", version, max_term_width = 100)]
struct Cli {
    /// Seeds for each row: medians are over these
    #[arg(long, value_name = "N", default_value = "5", value_parser = clap::value_parser!(u64).range(1..=100))]
    seeds: u64,
    /// How long each connection sends, in seconds
    #[arg(long, value_name = "S", default_value = "5", value_parser = clap::value_parser!(u64).range(1..=60))]
    duration: u64,
    /// The stack alone: needs neither root nor time
    #[arg(long)]
    simulated_only: bool,
    /// The `impair` program; by default the one beside this
    #[arg(long, value_name = "FILE")]
    impair: Option<PathBuf>,
}

/// Bits a second each way: what a kernel on two shared cores keeps up with through a forwarder in
/// user space.
pub(crate) const RATE_BITS_PER_S: u64 = 50_000_000;
/// Propagation delay each way.
pub(crate) const DELAY: Duration = Duration::from_millis(10);
/// Frames in front of the rate, each way: as much as the rate and the round trip hold.
pub(crate) const QUEUE_FRAMES: usize = 84;
/// Bytes of the short answer: ten full segments with timestamps, the initial window (RFC 6928).
pub(crate) const ANSWER_BYTES: usize = 10 * 1448;

/// What a link does to frames, beside rate, delay and queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trouble {
    pub(crate) name: &'static str,
    /// Share of the frames lost, each way, 0 to 1.
    pub(crate) loss: f64,
    /// Share of the frames held back, and for how long.
    pub(crate) reorder: Option<(f64, Duration)>,
}

const fn lossy(name: &'static str, loss: f64) -> Trouble {
    Trouble {
        name,
        loss,
        reorder: None,
    }
}

const fn reordered(name: &'static str, share: f64, ms: u64) -> Trouble {
    Trouble {
        name,
        loss: 0.0,
        reorder: Some((share, Duration::from_millis(ms))),
    }
}

const TROUBLES: [Trouble; 7] = [
    lossy("no loss", 0.0),
    lossy("loss 0.1 %", 0.001),
    lossy("loss 1 %", 0.01),
    lossy("loss 3 %", 0.03),
    reordered("2 % held back 2 ms", 0.02, 2),
    reordered("2 % held back 8 ms", 0.02, 8),
    Trouble {
        name: "loss 1 %, 2 % held back 4 ms",
        loss: 0.01,
        reorder: Some((0.02, Duration::from_millis(4))),
    },
];

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("bench-goodput: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<(), String> {
    let time = Duration::from_secs(cli.duration);
    let beside = || {
        let program = std::env::current_exe().ok()?;
        Some(program.with_file_name("impair"))
    };
    let impair = cli.impair.clone().or_else(beside);
    let impair = impair.ok_or("no path to `impair`: give one with --impair")?;
    let kernel = !cli.simulated_only;
    if kernel {
        bench::netns::available()?;
    }
    println!(
        "{} Mbit/s, {} ms round trip, a queue of {QUEUE_FRAMES} frames, IPv4, CUBIC both; medians over {} seeds \
         (least, most), Mbit/s in the first {} s",
        RATE_BITS_PER_S / 1_000_000,
        2 * DELAY.as_millis(),
        cli.seeds,
        cli.duration,
    );
    println!();
    println!(
        "| link | the stack, simulated | Linux {} | ratio |",
        release()
    );
    println!("|---|---:|---:|---:|");
    for trouble in &TROUBLES {
        let ours = (1..=cli.seeds).map(|seed| simulated::goodput(trouble, seed, time));
        let ours: Vec<f64> = ours.collect();
        let mut theirs = Vec::new();
        for seed in (1..=cli.seeds).filter(|_| kernel) {
            theirs.push(kernel::goodput(&impair, trouble, seed, time)?);
        }
        row(trouble.name, &ours, &theirs, 1);
    }
    println!();
    println!(
        "An answer of {ANSWER_BYTES} bytes, from SYN to its last byte, in ms (a ratio below 1 is better):"
    );
    println!();
    println!(
        "| link | the stack, simulated | Linux {} | ratio |",
        release()
    );
    println!("|---|---:|---:|---:|");
    for (name, drop_last) in [("nothing lost", false), ("its last segment lost", true)] {
        let ours = (1..=cli.seeds).map(|seed| simulated::answer_ms(drop_last, seed));
        let ours: Vec<f64> = ours.collect();
        let mut theirs = Vec::new();
        for seed in (1..=cli.seeds).filter(|_| kernel) {
            theirs.push(kernel::answer_ms(&impair, drop_last, seed)?);
        }
        row(name, &ours, &theirs, 1);
    }
    Ok(())
}

/// The kernel's version, like 6.18.0.
fn release() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let number = release.split(['-', '\n']).next().unwrap_or_default();
    number.to_owned()
}

fn row(name: &str, ours: &[f64], theirs: &[f64], digits: usize) {
    let spread = |values: &[f64]| Spread::of(values.iter().copied());
    let cell = |values: &[f64]| match spread(values) {
        None => "not measured".to_owned(),
        Some(Spread { median, min, max }) => {
            format!("{median:.digits$} ({min:.digits$}, {max:.digits$})")
        }
    };
    let ratio = match (spread(ours), spread(theirs)) {
        (Some(ours), Some(theirs)) if theirs.median > 0.0 => {
            format!("{:.2}", ours.median / theirs.median)
        }
        _ => String::new(),
    };
    println!("| {name} | {} | {} | {ratio} |", cell(ours), cell(theirs));
}
