//! The result of a load over connections: its part of the report.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::failure::Failure;
use super::run::{Mode, TcpOutcome, TcpPlan};
use super::tally::{ConnectionTally, RogueTally};
use super::transport::Ending;
use crate::histogram;
use crate::loadgen::pacing::Arrivals;
use crate::loadgen::report::{Report, Row, Xdp, errors_text, with_share};
use crate::loadgen::run::Engine;
use dataplane::observe::report::{LatencyUs, plural};

/// What a report says of connections, beside what it says of every load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tcp {
    /// Bytes of requests, as typed: one size or a distribution; of a stream, bytes of one write.
    pub request_sizes: String,
    /// Bytes of replies that requests asked for; null where they are echoes, or the target's affair.
    pub reply_sizes: Option<String>,
    /// Of a stream: `up`, `down` or `both`.
    pub direction: Option<String>,
    /// Of HTTP: method and path.
    pub request: Option<String>,
    /// Whether every request had a connection of its own.
    pub fresh: bool,
    /// Whether such a connection was ended by a RST.
    pub reset: bool,
    /// Time in which all connections were opened for the first time, before the warm-up, in seconds.
    pub ramp_s: f64,
    /// Requests that failed, by kind; of a stream, connections that ended. None of them is a latency.
    pub failures: BTreeMap<String, u64>,
    /// Connections begun in the counted time: those of that time's requests, and those that took the place
    /// of others.
    pub begun: u64,
    /// Of those, the ones whose handshake was completed.
    pub established: u64,
    /// And those that came to nothing, by kind.
    pub connect_failures: BTreeMap<String, u64>,
    /// How long handshakes took, in microseconds; null if there were none.
    pub handshake_us: Option<LatencyUs>,
    /// The whole distribution of that, as `latency_counts` is.
    #[serde(default)]
    pub handshake_counts: Vec<(u64, u64)>,
    /// Connections open when the counted time began.
    pub open_at_start: u64,
    /// Idle connections that the target closed or reset.
    pub lost_idle: u64,
    /// Connections whose target did not close its direction in time.
    pub unclosed: u64,
    /// Bytes of payload sent in the counted time.
    pub sent_bytes: u64,
    /// Bytes of payload received in the counted time.
    pub received_bytes: u64,
    /// Clients that meant no good.
    pub misbehaving: Option<Misbehaving>,
}

/// What became of clients that meant no good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Misbehaving {
    /// Kinds and numbers, as typed.
    pub clients: Vec<String>,
    /// Connections they began, before the counted time too.
    pub begun: u64,
    /// Those whose handshake was completed.
    pub established: u64,
    /// Those the target ended, or that came to nothing.
    pub ended: u64,
    /// Bytes they sent.
    pub sent_bytes: u64,
}

impl Misbehaving {
    fn new(plan: &TcpPlan, tally: RogueTally) -> Option<Self> {
        let RogueTally {
            begun,
            established,
            ended,
            sent_bytes,
        } = tally;
        (!plan.rogues.is_empty()).then(|| Self {
            clients: plan.rogues.iter().map(ToString::to_string).collect(),
            begun,
            established,
            ended,
            sent_bytes,
        })
    }
}

impl Tcp {
    fn new(plan: &TcpPlan, outcome: &TcpOutcome) -> Self {
        let tally = &outcome.tally;
        let ConnectionTally {
            begun,
            established,
            failures: connect_failures,
            handshake,
            open_at_start,
            lost_idle,
            unclosed,
        } = &tally.connections;
        let (request_sizes, reply_sizes, direction, request) = match &plan.mode {
            Mode::Exchange {
                sizes, reply_sizes, ..
            } => {
                let replies = reply_sizes.as_ref().map(ToString::to_string);
                (sizes.to_string(), replies, None, None)
            }
            Mode::Stream {
                direction, write, ..
            } => {
                let direction = direction.name().to_owned();
                (write.to_string(), None, Some(direction), None)
            }
            Mode::Http(request) => {
                let line = format!("{} {}", request.method, request.path);
                (request.body.len().to_string(), None, None, Some(line))
            }
        };
        Self {
            request_sizes,
            reply_sizes,
            direction,
            request,
            fresh: plan.mode.is_fresh(),
            reset: plan.ending == Ending::Reset,
            ramp_s: plan.ramp().as_secs_f64(),
            failures: tally.failures.by_name(),
            begun: *begun,
            established: *established,
            connect_failures: connect_failures.by_name(),
            handshake_us: (!handshake.is_empty()).then(|| LatencyUs::of(handshake)),
            handshake_counts: histogram::counts(handshake),
            open_at_start: *open_at_start,
            lost_idle: *lost_idle,
            unclosed: *unclosed,
            sent_bytes: tally.sent_bytes,
            received_bytes: tally.received_bytes,
            misbehaving: Misbehaving::new(plan, tally.rogues),
        }
    }

    fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    fn is_stream(&self) -> bool {
        self.direction.is_some()
    }

    /// Why the run failed, if it did: nothing came back, or nothing went out.
    pub(in crate::loadgen) fn failure(&self, report: &Report) -> Option<String> {
        let target = &report.target;
        let bytes = match self.direction.as_deref() {
            Some("up") => self.sent_bytes,
            Some(_) => self.received_bytes,
            None => report.replies,
        };
        if bytes > 0 {
            return None;
        }
        let most = self
            .failures
            .iter()
            .chain(&self.connect_failures)
            .max_by_key(|&(_, count)| count);
        let Some((kind, _)) = most else {
            return Some(if report.interrupted {
                "ended before anything was measured".into()
            } else if self.is_stream() {
                format!("no bytes came from {target}: is it a service that sends by itself?")
            } else {
                "no request was due in the time given: use a higher rate or a longer duration"
                    .into()
            });
        };
        Some(match kind.as_str() {
            "refused" => format!("{target} refused: nothing listens on that port"),
            "connect_timeout" => {
                format!("{target} does not answer: wrong address, a full backlog, or a firewall")
            }
            "no_port" => {
                "no source port was free: give --ports or more --source addresses, end connections \
                 with --close rst, or set net.ipv4.tcp_tw_reuse=1"
                    .into()
            }
            "unreachable" => format!("there is no way to {target}"),
            "reset" => format!("{target} resets every connection"),
            "closed" => format!("{target} closes connections without a reply"),
            "timeout" => format!(
                "{target} takes connections and does not reply: is it the right kind of service?"
            ),
            "corrupted" if self.is_stream() => {
                format!("{target} does not send what it should: --no-verify takes anything")
            }
            "corrupted" => format!("{target} answers, but never with the bytes it should"),
            "malformed" => format!("{target} does not speak HTTP"),
            "status" => format!("{target} answers with errors only (HTTP status)"),
            "unexpected" => format!("{target} sends what nobody asked for"),
            other => format!("every request to {target} failed: {other}"),
        })
    }

    /// Its lines of the table.
    pub(in crate::loadgen) fn rows(&self, report: &Report, rows: &mut Vec<Row>) {
        let failed = self.failed();
        if self.is_stream() {
            rows.push(("sent", bytes_text(self.sent_bytes, report.sent_bits_per_s)));
            rows.push((
                "received",
                bytes_text(self.received_bytes, report.received_bits_per_s),
            ));
            if failed > 0 {
                rows.push(("broken", failed.to_string()));
            }
        } else {
            rows.push(("requests", report.requests.to_string()));
            rows.push(("replies", report.replies.to_string()));
            rows.push(("failed", with_share(failed, report.requests)));
        }
        rows.extend(
            self.failures
                .iter()
                .map(|(kind, count)| ("", format!("{count} {}", kind.replace('_', " ")))),
        );
        if let Some(offered) = report.offered_rate {
            rows.push(("offered rate", format!("{offered:.1} /s")));
        }
        if !self.is_stream() {
            let bits = (report.sent_bits_per_s + report.received_bits_per_s) / 1e6;
            rows.push((
                "rate",
                format!(
                    "{:.1} replies/s, {bits:.2} Mbit/s of payload both ways",
                    report.rate_per_s
                ),
            ));
        }
        if report.unsent > 0 {
            rows.push((
                "unsent",
                format!(
                    "{} (due, but no connection was free; above with how long they had waited, a \
                     lower bound)",
                    report.unsent
                ),
            ));
        }
        self.connection_rows(report, rows);
    }

    fn connection_rows(&self, report: &Report, rows: &mut Vec<Row>) {
        if self.begun > 0 {
            let per_s = if report.duration_s > 0.0 {
                self.established as f64 / report.duration_s
            } else {
                0.0
            };
            rows.push((
                "connections",
                format!(
                    "{} begun, {} established, {per_s:.1}/s",
                    self.begun, self.established
                ),
            ));
        }
        if !self.connect_failures.is_empty() {
            rows.push((
                "not connected",
                errors_text(&self.connect_failures).replace('_', " "),
            ));
        }
        if let Some(handshake) = &self.handshake_us {
            rows.push((
                "handshake",
                format!("p50 {:.1} µs, p99 {:.1} µs", handshake.p50, handshake.p99),
            ));
        }
        if !self.fresh {
            rows.push(("open at start", self.open_at_start.to_string()));
        }
        for (name, count, meaning) in [
            (
                "lost idle",
                self.lost_idle,
                "ended by the target while idle",
            ),
            (
                "unclosed",
                self.unclosed,
                "the target did not close in time",
            ),
        ] {
            if count > 0 {
                rows.push((name, format!("{count} ({meaning})")));
            }
        }
        if let Some(misbehaving) = &self.misbehaving {
            let Misbehaving {
                clients,
                begun,
                established,
                ended,
                sent_bytes,
            } = misbehaving;
            rows.push((
                "misbehaving",
                format!(
                    "{}: {begun} begun, {established} established, {ended} ended, {sent_bytes} bytes \
                     sent",
                    clients.join(", ")
                ),
            ));
        }
    }
}

fn bytes_text(bytes: u64, bits_per_s: f64) -> String {
    format!("{bytes} bytes, {:.2} Mbit/s", bits_per_s / 1e6)
}

impl Report {
    /// The report of what `plan` came to.
    #[must_use]
    pub fn of_tcp(plan: &TcpPlan, outcome: &TcpOutcome) -> Self {
        let tally = &outcome.tally;
        let per_second = |count: u64| {
            if outcome.duration_s > 0.0 {
                count as f64 / outcome.duration_s
            } else {
                0.0
            }
        };
        let is_stream = matches!(plan.mode, Mode::Stream { .. });
        let failures = &tally.failures;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        // A mean of sizes of 30 bits.
        let size = match &plan.mode {
            Mode::Exchange { sizes, .. } => sizes.mean().round() as usize,
            Mode::Stream { write, .. } => *write as usize,
            Mode::Http(request) => request.body.len(),
        };
        Self {
            mode: plan.mode.name().into(),
            engine: plan.engine.name().into(),
            target: plan.target.to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
            loop_kind: if plan.pace.is_some() {
                "open"
            } else {
                "closed"
            }
            .into(),
            arrivals: plan.pace.map(|(_, arrivals)| match arrivals {
                Arrivals::Constant => "constant".into(),
                Arrivals::Poisson => "poisson".into(),
            }),
            flows: plan.connections as usize,
            threads: plan.threads,
            size,
            seed: plan.seed,
            duration_s: outcome.duration_s,
            warmup_s: plan.warmup.as_secs_f64(),
            timeout_ms: plan.timeout.as_secs_f64() * 1000.0,
            interrupted: outcome.interrupted,
            requests: tally.requests,
            replies: tally.replies,
            lost: failures.of(Failure::Timeout) + failures.of(Failure::ConnectTimeout),
            refused: failures.of(Failure::Refused),
            unexpected: failures.of(Failure::Unexpected),
            corrupted: failures.of(Failure::Corrupted),
            unsent: tally.unsent,
            client_dropped: outcome.xdp.as_ref().map_or(0, |xdp| xdp.counts.dropped),
            errors: BTreeMap::new(),
            offered_rate: plan.pace.map(|(rate, _)| rate.per_second()),
            sent_per_s: per_second(tally.requests),
            rate_per_s: per_second(tally.replies),
            sent_bits_per_s: per_second(tally.sent_bytes) * 8.0,
            received_bits_per_s: per_second(tally.received_bytes) * 8.0,
            latency_us: (!is_stream).then(|| LatencyUs::of(&tally.latency)),
            latency_lower_bounds: tally.unsent,
            client_idle: outcome.xdp.as_ref().map(|xdp| xdp.idle_share),
            xdp: outcome.xdp.as_ref().map(Xdp::new),
            tcp: Some(Tcp::new(plan, outcome)),
            series: outcome.series.clone(),
            latency_counts: histogram::counts(&tally.latency),
            merged: 0,
        }
    }
}

/// What a run is about to do, in one line.
#[must_use]
pub fn headline(plan: &TcpPlan) -> String {
    let what = match &plan.mode {
        Mode::Exchange {
            sizes, reply_sizes, ..
        } => match reply_sizes {
            None => format!("{sizes} bytes"),
            Some(replies) => format!("{sizes} bytes for {replies}"),
        },
        Mode::Stream { direction, .. } => format!(
            "bytes {}",
            match direction.name() {
                "both" => "both ways",
                way => way,
            }
        ),
        Mode::Http(request) => format!("{} {}", request.method, request.path),
    };
    let pace = match plan.pace {
        None if matches!(plan.mode, Mode::Stream { .. }) => String::new(),
        None => ", closed loop".into(),
        Some((rate, Arrivals::Constant)) => format!(", open loop, {rate} requests/s"),
        Some((rate, Arrivals::Poisson)) => {
            format!(", open loop, {rate} requests/s, poisson arrivals")
        }
    };
    let carrier = match plan.engine {
        Engine::Kernel => "kernel sockets",
        Engine::Xdp(_) => "AF_XDP",
    };
    let rogues: String = plan
        .rogues
        .iter()
        .map(|spec| format!(", misbehaving {spec}"))
        .collect();
    format!(
        "{}{pace} to {} over {carrier}: {what}, {}, {}{rogues}, {:.1} s after {:.1} s of ramp-up and \
         {:.1} s of warm-up",
        plan.mode.name(),
        plan.target,
        plural(plan.connections as usize, "connection"),
        plural(plan.threads, "thread"),
        plan.duration.as_secs_f64(),
        plan.ramp().as_secs_f64(),
        plan.warmup.as_secs_f64(),
    )
}
