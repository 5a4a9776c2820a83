//! What people type.
//!
//! * `common`: options of every load; `udp`, `tcp`: those of each kind; `rest`: what is not one run

mod common;
mod rest;
mod tcp;
mod udp;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use super::job::{Job, Load};
pub(crate) use common::time;

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
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  loadgen udp-rr 10.0.0.2:7                        latency of one request at a time
  loadgen udp-rr 10.0.0.2:7 --flows 64 --cpus 0    what 64 clients get together
  loadgen udp-rr '[fd00::2]:7' --rate 50k          latency at 50,000 requests a second
  loadgen udp-rr '[fe80::1%eth0]:7' --json -       JSON on standard output
  loadgen udp-flood 10.0.0.2:7 --duration 5        how many datagrams a second get through
  loadgen udp-flood 10.0.0.2:7 --engine xdp        the same from a client that costs less (root)
  loadgen tcp-rr 10.0.0.2:7 -c 10000 -t 2          10,000 connections, one request under way on each
  loadgen tcp-crr 10.0.0.2:7 --rate 5k             5,000 times a second: connect, ask, close
  loadgen tcp-stream 10.0.0.2:9 -c 4               bulk data to a service that discards it
  loadgen http http://10.0.0.2/ -c 64 --html r.html
  loadgen sweep --to 500k tcp-rr 10.0.0.2:7 -c 64  latency against throughput, up to the knee
  loadgen merge a.json b.json --html all.html      the runs of several machines as one

Exit code: 0 when replies came (or a flood was sent), 1 when nobody answered or something failed,
2 when the command line is wrong.";

/// The kinds of load, and what else there is to do.
#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Load(LoadCommand),
    /// One run after the other, at rising rates: latency against throughput, up to the knee
    ///
    /// Options of the sweep go before the kind of load, those of the load behind it. The rate rises by a
    /// factor from run to run until the target does not keep it up any more; then the knee is looked for
    /// between the last two rates.
    Sweep(rest::Sweep),
    /// Adds up the results of several machines, from their JSON or .hgrm files
    ///
    /// Counts and rates are sums, latencies those of all replies together. A .hgrm file holds only some
    /// hundred points of a distribution; what lies between two is taken as the upper one.
    Merge(rest::Merge),
    /// A TCP server for tests: echoes, or replies of the size that tcp-rr --reply-size asks for
    Serve(rest::Serve),
}

/// The kinds of load.
#[derive(Debug, Subcommand)]
enum LoadCommand {
    /// Requests and replies over UDP: latency and rate of an echo service
    ///
    /// Without --rate, a closed loop: each flow sends its next request when the reply to the last one
    /// is there. With --rate, an open loop: requests leave at that rate, whatever comes back.
    ///
    /// Every reply is compared with its request byte for byte. Latency is from send to reply, in the
    /// open loop from the intended send time to the reply.
    #[command(after_help = udp::RR_HELP)]
    UdpRr(udp::UdpRr),
    /// Datagrams over UDP as fast as possible, or at a rate
    ///
    /// Counts what was sent, and what came back if the target echoes. GSO is not used: every datagram
    /// passes the network stack by itself. Measures no latency: latency_us is null in the JSON.
    UdpFlood(udp::UdpFlood),
    /// Requests and replies over TCP connections that are kept: latency and rate of an echo service
    ///
    /// Without --rate, a closed loop: each connection sends its next request when the reply to the last
    /// one is there. With --rate, an open loop: requests are due at that rate and go to connections that
    /// are free; one that finds none waits, and that is part of its latency.
    ///
    /// Every byte of a reply is compared.
    #[command(after_help = tcp::RR_HELP)]
    TcpRr(tcp::TcpRr),
    /// Connect, request, reply, close, again and again
    ///
    /// Latency is from the SYN (in the open loop from when it was due) to the last byte of the reply. The
    /// client closes first, so TIME-WAIT is the client's: see --close and --ports.
    #[command(after_help = tcp::RR_HELP)]
    TcpCrr(tcp::TcpCrr),
    /// Bulk data over TCP
    ///
    /// Up goes to a service that discards what it gets, down comes from one that sends by itself (as
    /// RFC 864 has it), both goes to an echo.
    TcpStream(tcp::TcpStream),
    /// HTTP/1.1 requests over TCP
    ///
    /// Replies are read to their end by the rules of RFC 9112. A status other than 2xx and 3xx is a failure.
    Http(tcp::HttpLoad),
}

/// Where results go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// JSON file, `-` for standard output.
    pub json: Option<PathBuf>,
    /// Distribution file.
    pub hgrm: Option<PathBuf>,
    /// Page with plots.
    pub html: Option<PathBuf>,
    /// No progress, no heading.
    pub quiet: bool,
}

/// Why a command line leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanError {
    /// It contradicts itself: exit code 2.
    Usage(String),
    /// It is well-formed, but the target has no address, or a file cannot be read: exit code 1.
    Target(String),
}

impl Cli {
    /// Checks what clap cannot and says what is to be done.
    ///
    /// # Errors
    /// See [`PlanError`].
    pub fn plan(self) -> Result<(Job, Output), PlanError> {
        match self.command {
            Command::Load(load) => {
                let (load, output) = load.plan()?;
                Ok((Job::Load(load), output))
            }
            Command::Sweep(sweep) => sweep.plan(),
            Command::Merge(merge) => Ok(merge.plan()),
            Command::Serve(serve) => serve.plan(),
        }
    }
}

impl LoadCommand {
    fn plan(self) -> Result<(Load, Output), PlanError> {
        let udp = |(plan, output)| (Load::Udp(Box::new(plan)), output);
        let tcp = |(plan, output)| (Load::Tcp(Box::new(plan)), output);
        match self {
            Self::UdpRr(load) => load.plan().map(udp),
            Self::UdpFlood(load) => load.plan().map(udp),
            Self::TcpRr(load) => load.plan().map(tcp),
            Self::TcpCrr(load) => load.plan().map(tcp),
            Self::TcpStream(load) => load.plan().map(tcp),
            Self::Http(load) => load.plan().map(tcp),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    /// What a command line comes to.
    pub(super) fn job(line: &str) -> Result<(Job, Output), String> {
        let words = std::iter::once("loadgen").chain(line.split_ascii_whitespace());
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        cli.plan().map_err(|error| format!("{error:?}"))
    }

    #[test]
    fn the_command_is_well_formed() {
        Cli::command().debug_assert();
    }
}
