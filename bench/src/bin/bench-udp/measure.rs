//! One measurement: a load, its report, and how busy both cores were meanwhile.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use bench::cpu::{CoreTime, process_time};
use bench::loadgen::report::Report;
use bench::netns::{SERVER_V4, SERVER_V6, Veth};
use serde::Serialize;

use super::contestant::{Contestant, Cores, Lineup, PORT};

/// Bytes of UDP payload in every request.
const SIZE: usize = 64;

/// Flows of the closed loop: as many requests are under way at once. Enough that the server always
/// finds a full batch waiting, few enough that the client's sockets stay in its cache.
const CLOSED_FLOWS: usize = 128;

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
    /// One request at a time.
    Latency,
    /// Many requests under way, each flow waiting for its reply.
    Saturation,
    /// As many datagrams as the client can send.
    Flood,
}

impl Load {
    pub(crate) const ALL: [Self; 3] = [Self::Latency, Self::Saturation, Self::Flood];

    /// Its name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Saturation => "saturation",
            Self::Flood => "flood",
        }
    }

    fn arguments(self) -> [String; 3] {
        let (mode, flows) = match self {
            Self::Latency => ("udp-rr", 1),
            Self::Saturation => ("udp-rr", CLOSED_FLOWS),
            Self::Flood => ("udp-flood", FLOOD_FLOWS),
        };
        [mode.to_owned(), "--flows".to_owned(), flows.to_string()]
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

    /// Whether the client had nothing more to give while the server had: the rate is then the
    /// client's, not the server's. Of a polling server, which is always busy, only a flood tells: it
    /// had time left if it answered all of it.
    pub(crate) fn client_limited(&self) -> bool {
        let lost = self.report.lost as f64 / self.report.requests.max(1) as f64;
        let server_has_time = if self.polls {
            self.load == Load::Flood && lost < FLOOD_LOSS_NONE
        } else {
            self.server_busy < 0.90
        };
        self.client_busy > 0.97 && server_has_time
    }
}

/// A flood of which less than this share is missing was answered whole: what was under way when it
/// ended is always missing.
const FLOOD_LOSS_NONE: f64 = 0.01;

impl fmt::Display for Run {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "round {} {:<16} {:<10} {:>9.0} replies/s",
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
        )
    }
}

/// What all measurements of a run have in common.
#[derive(Debug)]
pub(crate) struct Course<'a> {
    pub(crate) lineup: &'a Lineup,
    pub(crate) veth: &'a Veth,
    pub(crate) ipv6: bool,
    pub(crate) duration: Duration,
}

impl Course<'_> {
    /// Loads a contestant that is running as process `server`.
    pub(crate) fn measure(
        &self,
        contestant: Contestant,
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
        let mut loadgen = self.veth.client.command(self.lineup.program("loadgen"));
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
                           "max": 70.0, "min": 10.0, "mean": 25.0},
        });
        let report = serde_json::from_value(report).unwrap();
        Run {
            contestant,
            polls: contestant != "kernel",
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
    fn cpu_seconds_and_limits() {
        let full = run("kernel", Load::Flood, 0, 300_000.0, 1.0, 1.0);
        assert_eq!(full.replies_per_server_cpu_s(), 300_000.0);
        assert!(!full.client_limited());
        let half = run("kernel", Load::Flood, 0, 300_000.0, 0.5, 1.0);
        assert_eq!(half.replies_per_server_cpu_s(), 600_000.0);
        assert!(half.client_limited());
        // A polling server that answered the whole flood had time left; one that did not, had none.
        let mut polling = run("dataplane", Load::Flood, 0, 300_000.0, 1.0, 1.0);
        assert!(polling.client_limited());
        polling.report.lost = 1;
        assert!(!polling.client_limited(), "a tenth is missing");
        polling.load = Load::Saturation;
        polling.report.lost = 0;
        assert!(!polling.client_limited(), "a closed loop cannot tell");
        // Neither is at its limit: latency is.
        assert!(!run("kernel", Load::Latency, 0, 1.0, 0.5, 0.5).client_limited());
        assert_eq!(
            run("kernel", Load::Latency, 0, 1.0, 0.0, 0.0).replies_per_server_cpu_s(),
            0.0
        );
    }
}
