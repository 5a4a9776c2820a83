//! The result of a run: as a table, as JSON, as a histogram.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};

use super::pacing::Arrivals;
use super::run::{Engine, Kind, Outcome, Plan, XdpOutcome};
use super::series::Interval;
use super::tcp::report::Tcp;
use super::xdp::XdpReport;
use super::xdp::engine::XdpCounts;
use crate::histogram;
use dataplane::observe::report::{LatencyUs, plural};

/// One run, as `--json` writes it. Fields are only ever added.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// `udp-rr`, `udp-flood`, `tcp-rr`, `tcp-crr`, `tcp-stream` or `http`.
    pub mode: String,
    /// What carried the load: `kernel` for kernel sockets, `xdp` for AF_XDP.
    pub engine: String,
    /// The address it went to.
    pub target: String,
    /// Version of this program.
    pub version: String,
    /// `closed` or `open`; a flood is open.
    #[serde(rename = "loop")]
    pub loop_kind: String,
    /// How an open loop's requests were spread: `constant` or `poisson`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arrivals: Option<String>,
    /// Flows, each with its own source port; or connections.
    pub flows: usize,
    /// Threads that sent and received.
    pub threads: usize,
    /// Bytes of UDP payload in a request; over connections the mean (`tcp` has the distribution).
    pub size: usize,
    /// Seed of arrivals and payload.
    pub seed: u64,
    /// Length of the counted time, in seconds.
    pub duration_s: f64,
    /// Length of the warm-up before it, in seconds.
    pub warmup_s: f64,
    /// A reply later than this is lost, in milliseconds.
    pub timeout_ms: f64,
    /// Whether the run was ended early.
    pub interrupted: bool,
    /// Requests sent.
    pub requests: u64,
    /// Intact replies in time.
    pub replies: u64,
    /// Requests without one; over connections those that no reply came to in time.
    pub lost: u64,
    /// ICMP port unreachables; the requests they answer are lost as well.
    pub refused: u64,
    /// Wrong, duplicate and late replies, and datagrams that are none.
    pub unexpected: u64,
    /// Replies with changed bytes.
    pub corrupted: u64,
    /// Requests that were due and never sent, because the sender was behind.
    pub unsent: u64,
    /// Replies dropped at this program's own sockets or rings because they were full.
    pub client_dropped: u64,
    /// Errors of system calls, by name.
    pub errors: BTreeMap<String, u64>,
    /// The rate asked for, in requests per second; null for as fast as possible.
    pub offered_rate: Option<f64>,
    /// Requests sent per second.
    pub sent_per_s: f64,
    /// Replies per second.
    pub rate_per_s: f64,
    /// Payload sent, in bits per second.
    pub sent_bits_per_s: f64,
    /// Payload received, in bits per second.
    pub received_bits_per_s: f64,
    /// Latency of the replies, in microseconds, and lower bounds of what never left (see
    /// `latency_lower_bounds`); null for a flood, which does not measure it.
    pub latency_us: Option<LatencyUs>,
    /// How many of the latencies are lower bounds: an open loop's `unsent` requests, with the time
    /// from when each was due to the end of the run.
    #[serde(default)]
    pub latency_lower_bounds: u64,
    /// Share of the counted time in which this program had nothing to do, 0 to 1: what the client
    /// could have done more. Null where it is not known (kernel sockets).
    #[serde(default)]
    pub client_idle: Option<f64>,
    /// What the xdp engine obtained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xdp: Option<Xdp>,
    /// What there is to say of connections, of loads that have some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<Tcp>,
    /// How it went over time.
    #[serde(default)]
    pub series: Vec<Interval>,
    /// The whole distribution of latency: nanoseconds, and how many replies took that long to within
    /// 0.1 %. What `loadgen merge` adds up.
    #[serde(default)]
    pub latency_counts: Vec<(u64, u64)>,
    /// How many results were merged into this one; 0 for a result of one run.
    #[serde(default)]
    pub merged: usize,
}

/// The xdp engine's part of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Xdp {
    /// The interface.
    pub interface: String,
    /// Its kernel driver.
    pub driver: String,
    /// The mode in force: `zero-copy`, `copy` or `generic`.
    pub mode: String,
    /// Queues in use.
    pub queues: usize,
    /// Modes that could not be had before this one, and why.
    pub refusals: Vec<String>,
    /// Replies whose UDP checksum was left to a NIC that was not there; everything else about them
    /// was verified.
    pub checksums_incomplete: u64,
    /// Frames that arrived on another thread's queue.
    pub strays: u64,
}

impl Xdp {
    pub(super) fn new(outcome: &XdpOutcome) -> Self {
        let XdpOutcome {
            report:
                XdpReport {
                    interface,
                    driver,
                    mode,
                    queues,
                    refusals,
                },
            counts:
                XdpCounts {
                    idle_ns: _,
                    checksums_incomplete,
                    strays,
                    dropped: _,
                },
            idle_share: _,
        } = outcome;
        Self {
            interface: interface.clone(),
            driver: driver.clone(),
            mode: mode.clone(),
            queues: *queues,
            refusals: refusals.clone(),
            checksums_incomplete: *checksums_incomplete,
            strays: *strays,
        }
    }
}

impl Report {
    /// The report of what `plan` came to.
    #[must_use]
    pub fn new(plan: &Plan, outcome: &Outcome) -> Self {
        let tally = &outcome.tally;
        let per_second = |count: u64| {
            if outcome.duration_s > 0.0 {
                count as f64 / outcome.duration_s
            } else {
                0.0
            }
        };
        let (mode, loop_kind, arrivals, offered) = match plan.kind {
            Kind::ClosedLoop => ("udp-rr", "closed", None, None),
            Kind::OpenLoop { rate, arrivals } => ("udp-rr", "open", Some(arrivals), Some(rate)),
            Kind::Flood { rate } => ("udp-flood", "open", None, rate),
        };
        let is_flood = matches!(plan.kind, Kind::Flood { .. });
        // A flood's echoes were only counted, so what is missing is the difference.
        let lost = if is_flood {
            tally.requests.saturating_sub(tally.replies)
        } else {
            tally.lost
        };
        let sent_per_s = per_second(tally.requests);
        let rate_per_s = per_second(if is_flood {
            tally.replies_during
        } else {
            tally.replies
        });
        let bits = plan.size as f64 * 8.0;
        Self {
            mode: mode.into(),
            engine: plan.engine.name().into(),
            target: plan.target.to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
            loop_kind: loop_kind.into(),
            arrivals: arrivals.map(|arrivals| match arrivals {
                Arrivals::Constant => "constant".into(),
                Arrivals::Poisson => "poisson".into(),
            }),
            flows: plan.flows,
            threads: plan.threads,
            size: plan.size,
            seed: plan.seed,
            duration_s: outcome.duration_s,
            warmup_s: plan.warmup.as_secs_f64(),
            timeout_ms: plan.timeout.as_secs_f64() * 1000.0,
            interrupted: outcome.interrupted,
            requests: tally.requests,
            replies: tally.replies,
            lost,
            refused: tally.refused,
            unexpected: tally.unexpected,
            corrupted: tally.corrupted,
            unsent: tally.unsent,
            client_dropped: outcome.client_dropped,
            errors: tally.errors.by_name(),
            offered_rate: offered.map(|rate| rate.per_second()),
            sent_per_s,
            rate_per_s,
            sent_bits_per_s: sent_per_s * bits,
            received_bits_per_s: rate_per_s * bits,
            latency_us: (!is_flood).then(|| LatencyUs::of(&tally.latency)),
            latency_lower_bounds: if is_flood { 0 } else { tally.unsent },
            client_idle: outcome.xdp.as_ref().map(|xdp| xdp.idle_share),
            xdp: outcome.xdp.as_ref().map(Xdp::new),
            tcp: None,
            series: outcome.series.clone(),
            latency_counts: histogram::counts(&tally.latency),
            merged: 0,
        }
    }

    fn is_flood(&self) -> bool {
        self.latency_us.is_none()
    }

    /// Why the run failed, if it did: nothing came back although something should have, or nothing
    /// could be sent.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        if let Some(tcp) = &self.tcp {
            return tcp.failure(self);
        }
        let target = &self.target;
        if self.requests == 0 && self.refused == 0 {
            return Some(if self.errors.is_empty() && self.interrupted {
                "ended before anything was measured".into()
            } else if self.errors.is_empty() {
                "no request was due in the time given: use a higher rate or a longer duration"
                    .into()
            } else {
                format!(
                    "nothing could be sent to {target}: {}",
                    errors_text(&self.errors)
                )
            });
        }
        if self.replies > 0 {
            return None;
        }
        if self.refused > 0 {
            return Some(format!(
                "{target} refused: nothing listens on that port (ICMP port unreachable)"
            ));
        }
        if self.corrupted > 0 {
            return Some(format!(
                "{target} answers, but never with the bytes it was sent"
            ));
        }
        // A flood may well go to something that does not answer.
        (!self.is_flood()).then(|| {
            format!("nobody answered at {target}: wrong address, no echo service, or a firewall")
        })
    }
}

pub(super) fn errors_text(errors: &BTreeMap<String, u64>) -> String {
    errors
        .iter()
        .map(|(name, count)| format!("{name} × {count}"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// What a run is about to do, in one line.
#[must_use]
pub fn headline(plan: &Plan) -> String {
    let Plan {
        kind,
        target,
        flows,
        threads,
        size,
        engine,
        ..
    } = plan;
    let carrier = match engine {
        Engine::Kernel => "kernel sockets",
        Engine::Xdp(_) => "AF_XDP",
    };
    let what = match kind {
        Kind::ClosedLoop => "udp-rr, closed loop".to_owned(),
        Kind::OpenLoop {
            rate,
            arrivals: Arrivals::Constant,
        } => {
            format!("udp-rr, open loop, {rate} requests/s")
        }
        Kind::OpenLoop {
            rate,
            arrivals: Arrivals::Poisson,
        } => {
            format!("udp-rr, open loop, {rate} requests/s, poisson arrivals")
        }
        Kind::Flood { rate: Some(rate) } => format!("udp-flood, {rate} datagrams/s"),
        Kind::Flood { rate: None } => "udp-flood, as fast as possible".to_owned(),
    };
    format!(
        "{what} to {target} over {carrier}: {size} bytes, {}, {}, {:.1} s after {:.1} s of \
         warm-up",
        plural(*flows, "flow"),
        plural(*threads, "thread"),
        plan.duration.as_secs_f64(),
        plan.warmup.as_secs_f64(),
    )
}

/// The table a run ends with.
impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows: Vec<Row> = Vec::new();
        if self.merged > 0 {
            rows.push(("merged", plural(self.merged, "result")));
        }
        if let Some(latency) = &self.latency_us
            && self.replies + self.latency_lower_bounds > 0
        {
            let micros = |value: f64| format!("{value:.1} µs");
            rows.extend([
                ("p50", micros(latency.p50)),
                ("p90", micros(latency.p90)),
                ("p99", micros(latency.p99)),
                ("p99.9", micros(latency.p999)),
                ("p99.99", micros(latency.p9999)),
                ("max", micros(latency.max)),
                ("mean", micros(latency.mean)),
            ]);
        }
        match &self.tcp {
            Some(tcp) => tcp.rows(self, &mut rows),
            None => self.udp_rows(&mut rows),
        }
        if let Some(xdp) = &self.xdp {
            xdp.rows(&mut rows);
        }
        if let Some(idle) = self.client_idle {
            rows.push(("idle here", format!("{:.1} % of the time", idle * 100.0)));
        }
        let mut table = String::new();
        if self.interrupted {
            writeln!(
                table,
                "ended early, after {:.1} s of {}",
                self.duration_s, self.mode
            )?;
        }
        for (name, value) in rows {
            writeln!(table, "  {name:<14} {value}")?;
        }
        out.write_str(&table)
    }
}

/// A line of the table.
pub(super) type Row = (&'static str, String);

impl Report {
    fn udp_rows(&self, rows: &mut Vec<Row>) {
        let (sent, back) = if self.is_flood() {
            ("sent", "received")
        } else {
            ("requests", "replies")
        };
        let missing = if self.is_flood() {
            "not echoed"
        } else {
            "lost"
        };
        rows.push((sent, self.requests.to_string()));
        rows.push((back, self.replies.to_string()));
        rows.push((missing, with_share(self.lost, self.requests)));
        rows.push(("unexpected", self.unexpected.to_string()));
        if let Some(offered) = self.offered_rate {
            rows.push(("offered rate", format!("{offered:.1} /s")));
        }
        if self.is_flood() {
            rows.push((
                "sent rate",
                rate_text(self.sent_per_s, self.sent_bits_per_s),
            ));
            rows.push((
                "received rate",
                rate_text(self.rate_per_s, self.received_bits_per_s),
            ));
        } else {
            rows.push(("rate", format!("{:.1} replies/s", self.rate_per_s)));
        }
        // What is normally zero is only shown when it is not, so that it is seen.
        let remarks = [
            ("refused", self.refused, "ICMP port unreachable"),
            ("corrupted", self.corrupted, "replies with changed bytes"),
            (
                "unsent",
                self.unsent,
                if self.is_flood() {
                    "due, but the sender could not keep the rate"
                } else {
                    "due, but the sender could not keep the rate; above with how long they had \
                     waited, a lower bound"
                },
            ),
            (
                "dropped here",
                self.client_dropped,
                "this program's socket buffers or rings were full",
            ),
        ];
        for (name, count, meaning) in remarks {
            if count > 0 {
                rows.push((name, format!("{count} ({meaning})")));
            }
        }
        if !self.errors.is_empty() {
            rows.push(("errors", errors_text(&self.errors)));
        }
    }
}

impl Xdp {
    fn rows(&self, rows: &mut Vec<Row>) {
        let Self {
            interface,
            driver,
            mode,
            queues,
            refusals,
            checksums_incomplete,
            strays,
        } = self;
        let queues = plural(*queues, "queue");
        rows.push((
            "AF_XDP",
            format!("{mode} on {queues} of {interface} ({driver})"),
        ));
        rows.extend(refusals.iter().map(|refusal| ("", refusal.clone())));
        if *checksums_incomplete > 0 {
            let what = "replies without a finished checksum, as a veth's kernel end sends them";
            rows.push(("", format!("{checksums_incomplete} {what}")));
        }
        if *strays > 0 {
            rows.push((
                "",
                format!("{strays} frames came to another thread's queue"),
            ));
        }
    }
}

pub(super) fn with_share(count: u64, of: u64) -> String {
    if count == 0 || of == 0 {
        count.to_string()
    } else {
        format!("{count} ({:.3} %)", count as f64 / of as f64 * 100.0)
    }
}

fn rate_text(per_s: f64, bits_per_s: f64) -> String {
    format!(
        "{per_s:.0} datagrams/s, {:.2} Mbit/s of payload",
        bits_per_s / 1e6
    )
}

#[cfg(test)]
mod tests {
    use super::super::load::Tally;
    use super::*;
    use std::time::Duration;

    fn plan(kind: Kind) -> Plan {
        Plan {
            kind,
            target: "10.0.0.2:7".parse().unwrap(),
            source: None,
            flows: 4,
            threads: 2,
            cpus: None,
            size: 64,
            duration: Duration::from_secs(2),
            warmup: Duration::from_secs(1),
            timeout: Duration::from_millis(500),
            seed: 9,
            idle: Default::default(),
            engine: Engine::Kernel,
        }
    }

    fn outcome() -> Outcome {
        let mut tally = Tally {
            requests: 1000,
            replies: 990,
            lost: 10,
            unexpected: 3,
            ..Tally::default()
        };
        tally.latency.record(50_000).unwrap();
        tally.errors.count(libc::ENOBUFS);
        Outcome {
            tally,
            duration_s: 2.0,
            client_dropped: 0,
            xdp: None,
            series: Vec::new(),
            interrupted: false,
        }
    }

    #[test]
    fn the_json_has_what_scripts_rely_on() {
        let report = Report::new(&plan(Kind::ClosedLoop), &outcome());
        let json = serde_json::to_value(&report).unwrap();
        for (key, value) in [
            ("mode", serde_json::json!("udp-rr")),
            ("engine", serde_json::json!("kernel")),
            ("target", serde_json::json!("10.0.0.2:7")),
            ("loop", serde_json::json!("closed")),
            ("duration_s", serde_json::json!(2.0)),
            ("requests", serde_json::json!(1000)),
            ("replies", serde_json::json!(990)),
            ("lost", serde_json::json!(10)),
            ("unexpected", serde_json::json!(3)),
            ("refused", serde_json::json!(0)),
            ("corrupted", serde_json::json!(0)),
            ("rate_per_s", serde_json::json!(495.0)),
            ("offered_rate", serde_json::Value::Null),
            ("flows", serde_json::json!(4)),
            ("threads", serde_json::json!(2)),
            ("size", serde_json::json!(64)),
            ("errors", serde_json::json!({"ENOBUFS": 1})),
            ("version", serde_json::json!(env!("CARGO_PKG_VERSION"))),
        ] {
            assert_eq!(json[key], value, "{key}");
        }
        for key in ["p50", "p90", "p99", "p999", "p9999", "max", "mean"] {
            let value = json["latency_us"][key].as_f64().unwrap();
            assert!((value - 50.0).abs() < 0.1, "{key}: {value}");
        }
        assert_eq!(serde_json::from_value::<Report>(json).unwrap(), report);
    }

    #[test]
    fn the_xdp_engine_says_what_it_obtained() {
        let mut plan = plan(Kind::ClosedLoop);
        plan.engine = Engine::Xdp(crate::loadgen::xdp::XdpOptions {
            interface: None,
            mode: config::Mode::Auto,
        });
        let mut outcome = outcome();
        outcome.xdp = Some(XdpOutcome {
            report: XdpReport {
                interface: "eth0".into(),
                driver: "veth".into(),
                mode: "copy".into(),
                queues: 2,
                refusals: vec!["zero-copy is not to be had: no".into()],
            },
            counts: XdpCounts {
                checksums_incomplete: 5,
                ..XdpCounts::default()
            },
            idle_share: 0.25,
        });
        let report = Report::new(&plan, &outcome);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["engine"], "xdp");
        assert_eq!(json["client_idle"], 0.25);
        assert_eq!(
            (&json["xdp"]["mode"], &json["xdp"]["queues"]),
            (&"copy".into(), &2.into())
        );
        let text = report.to_string();
        for part in [
            "copy on 2 queues of eth0 (veth)",
            "zero-copy is not",
            "5 replies",
            "25.0 %",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(headline(&plan).contains("over AF_XDP"));
    }

    #[test]
    fn an_open_loop_says_what_was_offered() {
        let kind = Kind::OpenLoop {
            rate: "1k".parse().unwrap(),
            arrivals: Arrivals::Poisson,
        };
        let json = serde_json::to_value(Report::new(&plan(kind), &outcome())).unwrap();
        assert_eq!(json["loop"], "open");
        assert_eq!(json["arrivals"], "poisson");
        assert_eq!(json["offered_rate"], 1000.0);
        assert_eq!(json["latency_lower_bounds"], 0);

        let mut behind = outcome();
        behind.tally.unsent = 7;
        let report = Report::new(&plan(kind), &behind);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["latency_lower_bounds"], 7);
        assert!(report.to_string().contains("a lower bound"), "{report}");
    }

    #[test]
    fn a_flood_counts_the_difference_and_shows_no_latency() {
        let mut outcome = outcome();
        outcome.tally.replies_during = 900;
        outcome.tally.lost = 0;
        let report = Report::new(&plan(Kind::Flood { rate: None }), &outcome);
        assert_eq!(
            (report.lost, report.rate_per_s, report.sent_per_s),
            (10, 450.0, 500.0)
        );
        assert_eq!(report.sent_bits_per_s, 500.0 * 64.0 * 8.0);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json.get("latency_us"), Some(&serde_json::Value::Null));
        assert_eq!(serde_json::from_value::<Report>(json).unwrap(), report);
        assert!(!report.to_string().contains("p50"));
    }

    #[test]
    fn the_table_has_every_row_and_hides_what_is_zero() {
        let text = Report::new(&plan(Kind::ClosedLoop), &outcome()).to_string();
        for name in [
            "p50",
            "p90",
            "p99",
            "p99.9",
            "p99.99",
            "max",
            "mean",
            "requests",
            "replies",
            "lost",
            "unexpected",
            "rate",
            "errors",
        ] {
            let found = text
                .lines()
                .any(|line| line.split_ascii_whitespace().next() == Some(name));
            assert!(found, "no row {name} in\n{text}");
        }
        assert!(
            !text.contains("refused") && !text.contains("unsent"),
            "{text}"
        );
        assert!(
            text.contains("10 (1.000 %)") && text.contains("ENOBUFS × 1"),
            "{text}"
        );
    }

    #[test]
    fn failures() {
        let failure = |kind, edit: fn(&mut Outcome)| {
            let mut outcome = outcome();
            edit(&mut outcome);
            Report::new(&plan(kind), &outcome).failure()
        };
        let flood = Kind::Flood { rate: None };
        assert_eq!(failure(Kind::ClosedLoop, |_| ()), None);
        let silent: fn(&mut Outcome) = |outcome| outcome.tally.replies = 0;
        assert!(
            failure(Kind::ClosedLoop, silent)
                .unwrap()
                .contains("nobody answered")
        );
        assert_eq!(failure(flood, silent), None, "a flood may go to a sink");
        let refused: fn(&mut Outcome) = |outcome| {
            outcome.tally.replies = 0;
            outcome.tally.refused = 5;
        };
        assert!(
            failure(Kind::ClosedLoop, refused)
                .unwrap()
                .contains("refused")
        );
        assert!(failure(flood, refused).unwrap().contains("refused"));
        let unsent: fn(&mut Outcome) = |outcome| {
            outcome.tally.requests = 0;
            outcome.tally.replies = 0;
        };
        assert!(failure(flood, unsent).unwrap().contains("ENOBUFS × 1"));
        let early: fn(&mut Outcome) = |outcome| {
            outcome.tally = Tally::default();
            outcome.interrupted = true;
        };
        assert!(
            failure(Kind::ClosedLoop, early)
                .unwrap()
                .contains("before anything")
        );
    }
}
