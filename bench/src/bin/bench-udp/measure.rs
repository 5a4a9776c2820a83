//! One measurement: a load, its report, and how busy both cores were meanwhile.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use bench::cpu::{CoreTime, process_time};
use bench::loadgen::report::Report;
use bench::netns::{INTERFACE, SERVER_V4, SERVER_V6, Veth};
use serde::Serialize;

use super::contestant::{Contestant, Cores, Lineup, PORT};

/// Bytes of UDP payload in every request.
const SIZE: usize = 64;

/// Flows of the closed loop: as many requests are under way at once. Enough that the server always
/// finds a full batch waiting, few enough that the client's sockets stay in its cache.
const CLOSED_FLOWS: usize = 128;

/// Share of the counted time that the AF_XDP client has to have had nothing to do for the server to
/// have been the limit of a closed loop: what a client at its limit finds idle by chance is less.
const CLIENT_IDLE_MIN: f64 = 0.05;

/// Flows of the flood: enough that both queues get their share of hashes.
const FLOOD_FLOWS: usize = 16;

/// Time before a measurement counts, in which caches, neighbour tables and the server's idle policy
/// settle.
const WARM_UP: Duration = Duration::from_millis(300);

/// Both cores are read this long after the counted part begins, and before it ends: loadgen starts
/// within it.
const MARGIN: Duration = Duration::from_millis(100);

/// The ways a contestant is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Load {
    /// One request at a time, over kernel sockets.
    Latency,
    /// Many requests under way, each flow waiting for its reply, over kernel sockets: what the client
    /// can bear, for comparison.
    SaturationKernelClient,
    /// As many datagrams as the client can send, over AF_XDP. The receive work is where veth leaves
    /// it, on the client's core: a server whose receive work has the upper hand of itself would only
    /// be flooded to a standstill.
    Flood,
    /// Many requests under way over AF_XDP, with all of the server's work on the server's core: the
    /// measure of packets per second.
    Saturation,
}

impl Load {
    /// In the order they are run: the last one moves the receive work to the server's core.
    pub(crate) const ALL: [Self; 4] = [
        Self::Latency,
        Self::SaturationKernelClient,
        Self::Flood,
        Self::Saturation,
    ];

    /// Its name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::SaturationKernelClient => "saturation-kernel-client",
            Self::Saturation => "saturation",
            Self::Flood => "flood",
        }
    }

    /// Whether the server's receive work has to be on the server's core.
    pub(crate) fn is_placed(self) -> bool {
        self == Self::Saturation
    }

    fn arguments(self) -> Vec<String> {
        let (mode, flows, engine) = match self {
            Self::Latency => ("udp-rr", 1, "kernel"),
            Self::SaturationKernelClient => ("udp-rr", CLOSED_FLOWS, "kernel"),
            Self::Saturation => ("udp-rr", CLOSED_FLOWS, "xdp"),
            Self::Flood => ("udp-flood", FLOOD_FLOWS, "xdp"),
        };
        let flows = flows.to_string();
        let mut arguments = vec![mode, "--flows", &flows, "--engine", engine];
        if engine == "xdp" {
            // A veth has no zero-copy; a client that sleeps would be slow to wake.
            arguments.extend([
                "--xdp-mode",
                "copy",
                "--idle",
                "spin",
                "--interface",
                INTERFACE,
            ]);
        }
        arguments.into_iter().map(str::to_owned).collect()
    }
}

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Run {
    pub(crate) contestant: &'static str,
    pub(crate) load: Load,
    pub(crate) round: u32,
    /// Whether the server polls: then `server_busy` is 1 whether or not there is work.
    pub(crate) polls: bool,
    /// What loadgen reported.
    pub(crate) report: Report,
    /// How busy the server's core was, 0 to 1, with all the kernel did there.
    pub(crate) server_busy: f64,
    /// CPU time of the server's process alone, as a share of one core: what of `server_busy` was not
    /// interrupts or others.
    pub(crate) server_process_busy: f64,
    /// How busy the client's core was, 0 to 1.
    pub(crate) client_busy: f64,
    /// Share of both cores' time the hypervisor gave to others, 0 to 1.
    pub(crate) steal: f64,
}

impl Run {
    /// Replies for each second the server's core worked: comparable even where the client was the
    /// limit.
    pub(crate) fn replies_per_server_cpu_s(&self) -> f64 {
        if self.server_busy > 0.0 {
            self.report.rate_per_s / self.server_busy
        } else {
            0.0
        }
    }

    /// Whether the client may have been the limit, so that the rate is the client's and the server
    /// could do more: of a closed loop over AF_XDP, where the client found work all the time; of a
    /// flood, where all of it was answered. A closed loop over kernel sockets cannot tell for a server
    /// that polls, and is counted as limited where the client's core is full.
    pub(crate) fn client_limited(&self) -> bool {
        match self.load {
            Load::Latency => false,
            Load::SaturationKernelClient => self.client_busy > 0.97,
            Load::Saturation => {
                let idle = self.report.client_idle;
                idle.is_none_or(|idle| idle < CLIENT_IDLE_MIN)
            }
            Load::Flood => {
                let lost = self.report.lost as f64 / self.report.requests.max(1) as f64;
                lost < FLOOD_LOSS_NONE
            }
        }
    }
}

/// A flood of which less than this share is missing was answered whole: what was under way when it
/// ended is always missing.
const FLOOD_LOSS_NONE: f64 = 0.01;

impl fmt::Display for Run {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "round {} {:<16} {:<24} {:>9.0} replies/s",
            self.round + 1,
            self.contestant,
            self.load.name(),
            self.report.rate_per_s
        )?;
        if let Some(latency) = &self.report.latency_us {
            write!(
                out,
                "  p50 {:>7.1} µs  p99 {:>7.1} µs",
                latency.p50, latency.p99
            )?;
        } else {
            write!(out, "  of {:>9.0} sent/s          ", self.report.sent_per_s)?;
        }
        write!(
            out,
            "  server {:>3.0} %  client {:>3.0} %",
            self.server_busy * 100.0,
            self.client_busy * 100.0
        )?;
        match self.report.client_idle {
            Some(idle) => write!(out, ", idle {:>2.0} %", idle * 100.0),
            None => Ok(()),
        }
    }
}

/// What all measurements of a run have in common.
#[derive(Debug)]
pub(crate) struct Course<'a> {
    pub(crate) lineup: &'a Lineup,
    pub(crate) ipv6: bool,
    pub(crate) duration: Duration,
}

impl Course<'_> {
    /// Loads a contestant that is running as process `server` at the pair's end.
    pub(crate) fn measure(
        &self,
        contestant: Contestant,
        veth: &Veth,
        server: u32,
        load: Load,
        round: u32,
    ) -> io::Result<Run> {
        let address = if self.ipv6 {
            IpAddr::from(SERVER_V6)
        } else {
            IpAddr::from(SERVER_V4)
        };
        let cores = self.lineup.cores;
        let seconds = |time: Duration| time.as_secs_f64().to_string();
        let mut loadgen = veth.client.command(self.lineup.program("loadgen"));
        loadgen
            .args(load.arguments())
            .arg(SocketAddr::new(address, PORT).to_string())
            .args([
                "--duration",
                &seconds(self.duration),
                "--warmup",
                &seconds(WARM_UP),
            ])
            .args([
                "--size",
                &SIZE.to_string(),
                "--cpus",
                &cores.client.to_string(),
            ])
            .args(["--json", "-", "--quiet"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = loadgen.spawn()?;
        // Only the inner part of the counted time is taken of the cores, without start and end.
        thread::sleep(WARM_UP + MARGIN);
        let (before, process_before) = (both(cores)?, process_time(server)?);
        let started = Instant::now();
        thread::sleep(self.duration.saturating_sub(2 * MARGIN));
        let (after, process_after) = (both(cores)?, process_time(server)?);
        let elapsed = started.elapsed();
        let output = child.wait_with_output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(io::Error::other(format!("loadgen: {}", said.trim())));
        }
        let report = serde_json::from_slice(&output.stdout)?;
        let process = process_after.saturating_sub(process_before);
        let [client, server] = [after[0].since(&before[0]), after[1].since(&before[1])];
        Ok(Run {
            contestant: contestant.name(),
            polls: contestant.polls(),
            load,
            round,
            report,
            server_busy: server.busy_share(),
            server_process_busy: process.as_secs_f64() / elapsed.as_secs_f64(),
            client_busy: client.busy_share(),
            steal: f64::midpoint(client.steal_share(), server.steal_share()),
        })
    }
}

/// The client's and the server's core.
fn both(cores: Cores) -> io::Result<[CoreTime; 2]> {
    Ok([CoreTime::of(cores.client)?, CoreTime::of(cores.server)?])
}

/// How busy the two cores are before anything is measured.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct SpareTime {
    client_busy_before: f64,
    server_busy_before: f64,
}

impl SpareTime {
    /// What to say when others use the cores.
    pub(crate) fn warning(&self) -> Option<String> {
        let Self {
            client_busy_before,
            server_busy_before,
        } = *self;
        (client_busy_before.max(server_busy_before) > 0.1).then(|| {
            format!(
                "Others use these cores: the client's is {:.0} % busy and the server's {:.0} % before \
                 anything runs. Ratios will be noisy, absolute numbers low.",
                client_busy_before * 100.0,
                server_busy_before * 100.0
            )
        })
    }
}

/// Looks at both cores for half a second.
pub(crate) fn spare_time(cores: Cores) -> io::Result<SpareTime> {
    let before = both(cores)?;
    thread::sleep(Duration::from_millis(500));
    let after = both(cores)?;
    Ok(SpareTime {
        client_busy_before: after[0].since(&before[0]).busy_share(),
        server_busy_before: after[1].since(&before[1]).busy_share(),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A run with these figures, for tests.
    pub(crate) fn run(
        contestant: &'static str,
        load: Load,
        round: u32,
        rate_per_s: f64,
        server_busy: f64,
        client_busy: f64,
    ) -> Run {
        let report = serde_json::json!({
            "mode": "udp-rr", "engine": "kernel", "target": "10.77.0.2:7", "version": "0",
            "loop": "closed", "flows": 1, "threads": 1, "size": 64, "seed": 1, "duration_s": 1.0,
            "warmup_s": 0.0, "timeout_ms": 1000.0, "interrupted": false, "requests": 10,
            "replies": 10, "lost": 0, "refused": 0, "unexpected": 0, "corrupted": 0, "unsent": 0,
            "client_dropped": 0, "errors": {}, "offered_rate": null, "sent_per_s": rate_per_s,
            "rate_per_s": rate_per_s, "sent_bits_per_s": 0.0, "received_bits_per_s": 0.0,
            "latency_us": {"p50": 20.0, "p90": 30.0, "p99": 40.0, "p999": 50.0, "p9999": 60.0,
                           "max": 70.0, "min": 10.0, "mean": 25.0}, "client_idle": 0.5,
        });
        let report = serde_json::from_value(report).unwrap();
        Run {
            contestant,
            polls: !contestant.starts_with("kernel"),
            load,
            round,
            report,
            server_busy,
            server_process_busy: server_busy,
            client_busy,
            steal: 0.0,
        }
    }

    #[test]
    fn replies_per_second_of_the_server() {
        let half = run("kernel", Load::Saturation, 0, 300_000.0, 0.5, 1.0);
        assert_eq!(half.replies_per_server_cpu_s(), 600_000.0);
        let none = run("kernel", Load::Latency, 0, 1.0, 0.0, 0.0);
        assert_eq!(none.replies_per_server_cpu_s(), 0.0);
    }

    #[test]
    fn who_was_the_limit() {
        let mut closed = run("dataplane", Load::Saturation, 0, 300_000.0, 1.0, 1.0);
        closed.report.client_idle = Some(0.3);
        assert!(!closed.client_limited());
        closed.report.client_idle = Some(0.01);
        assert!(closed.client_limited());
        closed.report.client_idle = None;
        assert!(closed.client_limited(), "nobody knows");

        let mut flood = run("dataplane", Load::Flood, 0, 300_000.0, 1.0, 1.0);
        assert!(flood.client_limited(), "all of it was answered");
        flood.report.lost = 1;
        assert!(!flood.client_limited(), "a tenth is missing");

        let kernel_client = Load::SaturationKernelClient;
        assert!(run("kernel", kernel_client, 0, 1.0, 0.5, 1.0).client_limited());
        assert!(!run("kernel", kernel_client, 0, 1.0, 1.0, 0.9).client_limited());
        assert!(!run("kernel", Load::Latency, 0, 1.0, 0.5, 1.0).client_limited());
    }
}
