//! The command line of loads over UDP.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::common::{Common, Place, milliseconds, seconds};
use super::{Output, PlanError};
use crate::loadgen::pacing::{Arrivals, Rate};
use crate::loadgen::probe::{HEADER_LEN, SIZE_MAX};
use crate::loadgen::run::{Kind, Plan};
use crate::loadgen::target::Target;

/// Most flows of a run: every flow takes a source port, and there are 65,535.
const FLOWS_MAX: u32 = 65_535;

pub(super) const RR_HELP: &str = "\
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
pub(super) struct UdpRr {
    #[command(flatten)]
    flows: Flows,
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
pub(super) struct UdpFlood {
    #[command(flatten)]
    flows: Flows,
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

/// Where datagrams go, and how.
#[derive(Debug, Args)]
struct Flows {
    /// Where to send. (The brackets of the help text would be links here.)
    #[arg(help = "Where to send: HOST:PORT, [IPV6]:PORT or [IPV6%INTERFACE]:PORT")]
    target: Target,
    /// Flows, each with a socket and so a source port of its own
    #[arg(
        short, long, value_name = "N", default_value = "1",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(FLOWS_MAX))
    )]
    flows: u32,
    /// UDP payload of a request in bytes, 24 to 65507
    #[arg(
        short, long, value_name = "BYTES", default_value = "64",
        value_parser = clap::value_parser!(u32).range(HEADER_LEN as i64..=SIZE_MAX as i64)
    )]
    size: u32,
    /// Send from this address
    #[arg(long, value_name = "ADDR")]
    source: Option<IpAddr>,
}

impl UdpRr {
    pub(super) fn plan(self) -> Result<(Plan, Output), PlanError> {
        let Self {
            flows,
            common,
            rate,
            arrivals,
            warmup,
            timeout,
            hgrm,
        } = self;
        let kind = match rate {
            Some(rate) => Kind::OpenLoop { rate, arrivals },
            None => Kind::ClosedLoop,
        };
        let (plan, output) = flows.plan(common, kind, warmup, timeout)?;
        Ok((plan, Output { hgrm, ..output }))
    }
}

impl UdpFlood {
    pub(super) fn plan(self) -> Result<(Plan, Output), PlanError> {
        let Self {
            flows,
            common,
            rate: FloodRate(rate),
            warmup,
        } = self;
        // A flood waits for no reply; this only bounds how long it collects the last echoes.
        flows.plan(common, Kind::Flood { rate }, warmup, Duration::from_secs(1))
    }
}

impl Flows {
    fn plan(
        self,
        common: Common,
        kind: Kind,
        warmup: Duration,
        timeout: Duration,
    ) -> Result<(Plan, Output), PlanError> {
        let Self {
            target,
            flows,
            size,
            source,
        } = self;
        let (place, output) = common.place(flows, "--flows", "flow")?;
        let Place {
            engine,
            duration,
            threads,
            cpus,
            idle,
            family,
            seed,
        } = place;
        let target = target
            .resolve(family.narrowed_to(source))
            .map_err(PlanError::Target)?;
        // Both are 32 bits or less, and so is usize at its smallest on Linux.
        let [flows, size] = [flows, size].map(|value| value as usize);
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
        Ok((plan, output))
    }
}

fn flood_rate(text: &str) -> Result<FloodRate, String> {
    if text == "max" {
        Ok(FloodRate(None))
    } else {
        text.parse().map(|rate| FloodRate(Some(rate)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::job;
    use super::*;
    use crate::loadgen::job::{Job, Load};
    use crate::loadgen::kernel::Idle;
    use crate::loadgen::run;
    use crate::loadgen::xdp::XdpOptions;

    fn plan(line: &str) -> Result<(Plan, Output), String> {
        match job(line)? {
            (Job::Load(Load::Udp(plan)), output) => Ok((*plan, output)),
            (other, _) => panic!("{line} is {other:?}"),
        }
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
