//! What people type.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::kernel::Idle;
use super::pacing::{Arrivals, Rate};
use super::probe::{HEADER_LEN, SIZE_MAX};
use super::run::{self, Kind, Plan};
use super::target::{Family, Target};
use super::xdp::XdpOptions;
use crate::cpu::CpuList;

/// Most flows of a run: every flow takes a source port, and there are 65,535.
const FLOWS_MAX: u32 = 65_535;

/// Longest duration accepted, in seconds: eleven days, so that sums of times cannot overflow.
const DURATION_S_MAX: f64 = 1e6;

/// Loads a network service and reports how it answers.
///
/// Latency is measured per request and reported as percentiles. In the open loop (--rate) it runs from
/// the time a request was due, not from when it could be sent, so that a stall of the service, the
/// network or this program shows in full (no coordinated omission).
///
/// The result goes to standard output, progress and errors to standard error.
#[derive(Debug, Parser)]
#[command(name = "loadgen", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  loadgen udp-rr 10.0.0.2:7                        latency of one request at a time
  loadgen udp-rr 10.0.0.2:7 --flows 64 --cpus 0    what 64 clients get together
  loadgen udp-rr '[fd00::2]:7' --rate 50k          latency at 50,000 requests a second
  loadgen udp-rr '[fe80::1%eth0]:7' --json -       JSON on standard output
  loadgen udp-flood 10.0.0.2:7 --duration 5        how many datagrams a second get through
  loadgen udp-flood 10.0.0.2:7 --engine xdp        the same from a client that costs less (root)

Exit code: 0 when replies came (or a flood was sent), 1 when nobody answered or something failed,
2 when the command line is wrong.";

/// The kinds of load.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Requests and replies over UDP: latency and rate of an echo service
    ///
    /// Without --rate, a closed loop: each flow sends its next request when the reply to the last one
    /// is there. With --rate, an open loop: requests leave at that rate, whatever comes back.
    ///
    /// Every reply is compared with its request byte for byte. Latency is from send to reply, in the
    /// open loop from the intended send time to the reply.
    #[command(after_help = RR_HELP)]
    UdpRr(UdpRr),
    /// Datagrams over UDP as fast as possible, or at a rate
    ///
    /// Counts what was sent, and what came back if the target echoes. GSO is not used: every datagram
    /// passes the network stack by itself. Measures no latency: latency_us is null in the JSON.
    UdpFlood(UdpFlood),
}

const RR_HELP: &str = "\
What is counted:
  lost         no intact reply within --timeout
  unexpected   duplicate, late or foreign datagrams
  corrupted    replies whose bytes are not those of the request
  refused      ICMP port unreachable; the request is lost as well, and never a latency
  unsent       open loop: due, but this program could not keep the rate; their latency is the time
               they had waited, a lower bound (latency_lower_bounds in the JSON)
  dropped here replies dropped because this program's own socket buffer was full";

/// `loadgen udp-rr`.
#[derive(Debug, Args)]
pub struct UdpRr {
    #[command(flatten)]
    common: Common,
    /// Open loop: requests per second over all flows and threads; k and M are understood
    #[arg(long, value_name = "R")]
    rate: Option<Rate>,
    /// How the open loop's requests are spread over time
    #[arg(long, value_enum, default_value_t, requires = "rate")]
    arrivals: Arrivals,
    /// Time before measuring starts, in seconds (or with a unit: 500ms)
    #[arg(long, value_name = "S", default_value = "1", value_parser = seconds)]
    warmup: Duration,
    /// A reply later than this is lost, in milliseconds (or with a unit: 2s)
    #[arg(long, value_name = "MS", default_value = "1000", value_parser = milliseconds)]
    timeout: Duration,
    /// Write the latency distribution to FILE, in the form the HdrHistogram tools read
    #[arg(long, value_name = "FILE")]
    hgrm: Option<PathBuf>,
}

/// `loadgen udp-flood`.
#[derive(Debug, Args)]
pub struct UdpFlood {
    #[command(flatten)]
    common: Common,
    /// Datagrams per second over all flows and threads (k and M are understood), or `max`
    #[arg(long, value_name = "R", default_value = "max", value_parser = flood_rate)]
    rate: FloodRate,
    /// Time before counting starts, in seconds (or with a unit: 500ms)
    #[arg(long, value_name = "S", default_value = "0", value_parser = seconds)]
    warmup: Duration,
}

/// `--rate` of a flood.
#[derive(Clone, Copy, Debug)]
struct FloodRate(Option<Rate>);

/// Options of every kind of load.
#[derive(Debug, Args)]
struct Common {
    /// Where to send. (The brackets of the help text would be links here.)
    #[arg(help = "Where to send: HOST:PORT, [IPV6]:PORT or [IPV6%INTERFACE]:PORT")]
    target: Target,
    /// What carries the load
    #[arg(long, value_enum, default_value_t)]
    engine: Engine,
    /// xdp engine: the interface to use [default: the one the kernel's route to the target takes]
    #[arg(long, value_name = "IFACE")]
    interface: Option<String>,
    /// xdp engine: the mode to obtain; what was obtained is in the result [default: auto]
    #[arg(long, value_enum, value_name = "MODE")]
    xdp_mode: Option<XdpMode>,
    /// Flows, each with a socket and so a source port of its own
    #[arg(
        short, long, value_name = "N", default_value = "1",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(FLOWS_MAX))
    )]
    flows: u32,
    /// Measured time, in seconds (or with a unit: 500ms, 2m)
    #[arg(short, long, value_name = "S", default_value = "10", value_parser = duration)]
    duration: Duration,
    /// UDP payload of a request in bytes, 24 to 65507
    #[arg(
        short, long, value_name = "BYTES", default_value = "64",
        value_parser = clap::value_parser!(u32).range(HEADER_LEN as i64..=SIZE_MAX as i64)
    )]
    size: u32,
    /// Threads; the flows are shared out among them [default: one for each of --cpus, or 1]
    #[arg(
        short, long, value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(FLOWS_MAX))
    )]
    threads: Option<u32>,
    /// Pin one thread to each of these CPUs, like 0 or 0,2 or 4-7
    #[arg(long, value_name = "LIST")]
    cpus: Option<CpuList>,
    /// What a thread does while nothing is due
    #[arg(long, value_enum, default_value_t)]
    idle: Idle,
    /// Send from this address
    #[arg(long, value_name = "ADDR")]
    source: Option<IpAddr>,
    /// Use only IPv4 addresses of a name
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    ipv4: bool,
    /// Use only IPv6 addresses of a name
    #[arg(short = '6', long)]
    ipv6: bool,
    /// Seed of random arrivals and payload: the same seed repeats them
    #[arg(long, default_value = "1")]
    seed: u64,
    /// Write the result to FILE as JSON; with -, JSON is all that goes to standard output
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// No progress and no heading, only the result
    #[arg(short, long)]
    quiet: bool,
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

/// Where results go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// JSON file, `-` for standard output.
    pub json: Option<PathBuf>,
    /// Distribution file.
    pub hgrm: Option<PathBuf>,
    /// No progress, no heading.
    pub quiet: bool,
}

/// Why a command line leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanError {
    /// It contradicts itself: exit code 2.
    Usage(String),
    /// It is well-formed, but the target has no address: exit code 1.
    Target(String),
}

impl Cli {
    /// Checks what clap cannot and makes a plan.
    ///
    /// # Errors
    /// See [`PlanError`].
    pub fn plan(self) -> Result<(Plan, Output), PlanError> {
        match self.command {
            Command::UdpRr(UdpRr {
                common,
                rate,
                arrivals,
                warmup,
                timeout,
                hgrm,
            }) => {
                let kind = match rate {
                    Some(rate) => Kind::OpenLoop { rate, arrivals },
                    None => Kind::ClosedLoop,
                };
                let (plan, output) = common.plan(kind, warmup, timeout)?;
                Ok((plan, Output { hgrm, ..output }))
            }
            Command::UdpFlood(UdpFlood {
                common,
                rate: FloodRate(rate),
                warmup,
            }) => {
                // A flood waits for no reply; this only bounds how long it collects the last echoes.
                common.plan(Kind::Flood { rate }, warmup, Duration::from_secs(1))
            }
        }
    }
}

impl Common {
    fn plan(
        self,
        kind: Kind,
        warmup: Duration,
        timeout: Duration,
    ) -> Result<(Plan, Output), PlanError> {
        let Self {
            target,
            engine,
            interface,
            xdp_mode,
            flows,
            duration,
            size,
            threads,
            cpus,
            idle,
            source,
            ipv4,
            ipv6,
            seed,
            json,
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
        // All of these are 32 bits or less, and so is usize at its smallest on Linux.
        let [flows, size] = [flows, size].map(|value| value as usize);
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
        if flows < threads {
            return Err(PlanError::Usage(format!(
                "--flows {flows} is less than the {threads} threads: every thread needs a flow"
            )));
        }
        let family = match (ipv4, ipv6, source) {
            (true, _, _) => Family::V4,
            (_, true, _) => Family::V6,
            (_, _, Some(IpAddr::V4(_))) => Family::V4,
            (_, _, Some(IpAddr::V6(_))) => Family::V6,
            (_, _, None) => Family::Any,
        };
        let target = target.resolve(family).map_err(PlanError::Target)?;
        let plan = Plan {
            kind,
            target,
            source,
            flows,
            threads,
            cpus,
            size,
            duration,
            warmup,
            timeout,
            seed,
            idle,
            engine,
        };
        Ok((
            plan,
            Output {
                json,
                hgrm: None,
                quiet,
            },
        ))
    }
}

fn flood_rate(text: &str) -> Result<FloodRate, String> {
    if text == "max" {
        Ok(FloodRate(None))
    } else {
        text.parse().map(|rate| FloodRate(Some(rate)))
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    match seconds(text)? {
        Duration::ZERO => Err("the duration must be longer than nothing".into()),
        duration => Ok(duration),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    time(text, 1.0)
}

fn milliseconds(text: &str) -> Result<Duration, String> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn plan(line: &str) -> Result<(Plan, Output), String> {
        let words = std::iter::once("loadgen").chain(line.split_ascii_whitespace());
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        cli.plan().map_err(|error| format!("{error:?}"))
    }

    #[test]
    fn the_command_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn defaults() {
        let (plan, output) = plan("udp-rr 127.0.0.1:7").unwrap();
        assert_eq!(plan.kind, Kind::ClosedLoop);
        assert_eq!((plan.flows, plan.threads, plan.size), (1, 1, 64));
        assert_eq!(plan.duration, Duration::from_secs(10));
        assert_eq!(plan.warmup, Duration::from_secs(1));
        assert_eq!(plan.timeout, Duration::from_secs(1));
        assert_eq!(output, Output::default());
    }

    #[test]
    fn every_option() {
        let (plan, output) = plan(
            "udp-rr [::1]:7 --flows 8 --duration 500ms --warmup 0.25 --rate 20k --arrivals poisson \
             --size 24 --timeout 20 --threads 2 --cpus 0,1 --source ::1 --seed 5 --json - --hgrm h \
             --quiet --engine kernel --idle spin",
        )
        .unwrap();
        let rate = "20k".parse().unwrap();
        assert_eq!(
            plan.kind,
            Kind::OpenLoop {
                rate,
                arrivals: Arrivals::Poisson
            }
        );
        assert_eq!(
            (plan.flows, plan.threads, plan.size, plan.seed),
            (8, 2, 24, 5)
        );
        assert_eq!(plan.duration, Duration::from_millis(500));
        assert_eq!(plan.warmup, Duration::from_millis(250));
        assert_eq!(plan.timeout, Duration::from_millis(20));
        assert_eq!(plan.idle, Idle::Spin);
        assert_eq!(output.json, Some("-".into()));
        assert!(output.hgrm == Some("h".into()) && output.quiet);
    }

    #[test]
    fn engines() {
        let engine = |line: &str| plan(line).unwrap().0.engine;
        assert_eq!(engine("udp-rr 127.0.0.1:7"), run::Engine::Kernel);
        let auto = XdpOptions {
            interface: None,
            mode: config::Mode::Auto,
        };
        assert_eq!(
            engine("udp-rr 127.0.0.1:7 --engine xdp"),
            run::Engine::Xdp(auto)
        );
        let generic = XdpOptions {
            interface: Some("eth0".into()),
            mode: config::Mode::Generic,
        };
        let line = "udp-flood [::1]:7 --engine xdp --interface eth0 --xdp-mode generic";
        assert_eq!(engine(line), run::Engine::Xdp(generic));
    }

    #[test]
    fn floods() {
        assert_eq!(
            plan("udp-flood 127.0.0.1:7").unwrap().0.kind,
            Kind::Flood { rate: None }
        );
        assert_eq!(
            plan("udp-flood 127.0.0.1:7 --rate max").unwrap().0.kind,
            Kind::Flood { rate: None }
        );
        let rate = Some("1M".parse().unwrap());
        assert_eq!(
            plan("udp-flood 127.0.0.1:7 --rate 1M").unwrap().0.kind,
            Kind::Flood { rate }
        );
    }

    #[test]
    fn threads_follow_cpus() {
        assert_eq!(
            plan("udp-rr 127.0.0.1:7 --flows 4 --cpus 0-2")
                .unwrap()
                .0
                .threads,
            3
        );
    }

    #[test]
    fn what_is_refused_and_why() {
        for (line, reason) in [
            ("udp-rr", "TARGET"),
            ("udp-rr 127.0.0.1", "port is missing"),
            ("udp-rr 127.0.0.1:7 --size 23", "24..=65507"),
            ("udp-rr 127.0.0.1:7 --size 65508", "24..=65507"),
            ("udp-rr 127.0.0.1:7 --flows 0", "1..=65535"),
            ("udp-rr 127.0.0.1:7 --flows 65536", "1..=65535"),
            ("udp-rr 127.0.0.1:7 --rate 0", "a rate is"),
            ("udp-rr 127.0.0.1:7 --rate max", "requests per second"),
            ("udp-rr 127.0.0.1:7 --arrivals poisson", "--rate"),
            ("udp-rr 127.0.0.1:7 --duration 0", "longer than nothing"),
            ("udp-rr 127.0.0.1:7 --timeout 0", "longer than nothing"),
            ("udp-rr 127.0.0.1:7 --duration 5d", "unit of time"),
            ("udp-rr 127.0.0.1:7 --duration nan", "not a unit"),
            ("udp-rr 127.0.0.1:7 --duration 1.2.3", "not a time"),
            ("udp-rr 127.0.0.1:7 --duration 1e300", "seconds"),
            ("udp-rr 127.0.0.1:7 --warmup -1", "-1"),
            ("udp-rr 127.0.0.1:7 --engine dpdk", "kernel"),
            ("udp-rr 127.0.0.1:7 --interface eth0", "--engine xdp"),
            ("udp-rr 127.0.0.1:7 --xdp-mode copy", "--engine xdp"),
            (
                "udp-rr 127.0.0.1:7 --engine xdp --xdp-mode fast",
                "zero-copy",
            ),
            (
                "udp-rr 127.0.0.1:7 --threads 2",
                "every thread needs a flow",
            ),
            (
                "udp-rr 127.0.0.1:7 --flows 4 --threads 2 --cpus 0",
                "does not match",
            ),
            ("udp-rr 127.0.0.1:7 -4 -6", "cannot be used with"),
            ("udp-rr [::1]:7 --source 127.0.0.1", "IPv4"),
            ("udp-flood 127.0.0.1:7 --rate fast", "requests per second"),
            ("udp-flood 127.0.0.1:7 --hgrm f", "--hgrm"),
        ] {
            let error = plan(line).unwrap_err();
            assert!(
                error.contains(reason),
                "{line:?} says {error:?}, not {reason:?}"
            );
        }
    }
}
