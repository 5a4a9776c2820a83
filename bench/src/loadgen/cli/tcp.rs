//! The command line of loads over TCP.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::common::{Common, Place, milliseconds, seconds};
use super::{Output, PlanError};
use crate::loadgen::pacing::{Arrivals, Rate};
use crate::loadgen::size::Sizes;
use crate::loadgen::target::Target;
use crate::loadgen::tcp::dialogue::{Direction, SIZED_HEADER_LEN};
use crate::loadgen::tcp::http::Request;
use crate::loadgen::tcp::rogue::RogueSpec;
use crate::loadgen::tcp::run::{Mode, TcpPlan};
use crate::loadgen::tcp::sources::{Ports, SourceAddresses, Sources};
use crate::loadgen::tcp::transport::Ending;

/// Most connections of a run: twice as many as anybody has asked for.
const CONNECTIONS_MAX: i64 = 2_000_000;

pub(super) const RR_HELP: &str = "\
Sizes:  64, 16k, uniform:64-1400, exp:512, mix:64=7,576=4,1500=1

How requests fail; none of these is ever a latency:
  refused          a RST answered the SYN: nobody listens
  connect_timeout  no answer to the SYN within --timeout
  no_port          no source port was free
  unreachable      no way to the target, says the network
  reset, closed    the target ended the connection before the reply was whole
  timeout          no whole reply within --timeout
  corrupted        the reply's bytes are not those there should be
  unexpected       bytes nobody asked for
  malformed        http: not HTTP;   status: neither 2xx nor 3xx
Every request is a reply or one of these. Besides, in the open loop:
  unsent           due, but no connection was free; their latency is the time they had waited, a lower
                   bound (latency_lower_bounds in the JSON)

Misbehaving clients (--misbehave, besides the load):
  syn-only         a SYN, and deaf to the answer
  never-ack        a request, and not one acknowledgement after that
  never-read       requests without end, and no reply is read
  never-close      a request, and the connection stays when the target closes
  byte-by-byte     requests one byte at a time, a hundred bytes a second";

/// Options of every load over TCP.
#[derive(Debug, Args)]
struct Tcp {
    #[command(flatten)]
    common: Common,
    /// Connections, of all threads together; with a connection for each request, how many at once
    #[arg(
        short, long, alias = "flows", value_name = "N", default_value = "1",
        value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX)
    )]
    connections: u32,
    /// How many of them are opened a second in the ramp-up before the warm-up
    #[arg(long, value_name = "R", default_value = "10k")]
    connect_rate: Rate,
    /// Connect from these addresses, in turn: ADDR, ADDR-ADDR, or several with commas
    #[arg(long, value_name = "LIST")]
    source: Option<SourceAddresses>,
    /// Connect from these ports of each address, like 1024-65535 [default: the kernel's choice]
    #[arg(long, value_name = "RANGE")]
    ports: Option<Ports>,
    /// Time before measuring starts, when all connections are open, in seconds (or with a unit: 500ms)
    #[arg(long, value_name = "S", default_value = "1", value_parser = seconds)]
    warmup: Duration,
    /// Longest time a handshake, and a reply, may take, in milliseconds (or with a unit: 2s)
    #[arg(long, value_name = "MS", default_value = "5000", value_parser = milliseconds)]
    timeout: Duration,
    /// Besides the load, N clients that mean no good; may be given several times
    #[arg(long, value_name = "KIND=N")]
    misbehave: Vec<RogueSpec>,
}

/// Options of loads with requests.
#[derive(Debug, Args)]
struct Requests {
    /// Open loop: requests per second over all connections and threads; k and M are understood
    #[arg(long, value_name = "R")]
    rate: Option<Rate>,
    /// How the open loop's requests are spread over time
    #[arg(long, value_enum, default_value_t, requires = "rate")]
    arrivals: Arrivals,
    /// Write the latency distribution to FILE, in the form the HdrHistogram tools read
    #[arg(long, value_name = "FILE")]
    hgrm: Option<PathBuf>,
}

/// Options of requests and replies.
#[derive(Debug, Args)]
struct Exchange {
    /// Where to connect. (The brackets of the help text would be links here.)
    #[arg(help = "Where to connect: HOST:PORT, [IPV6]:PORT or [IPV6%INTERFACE]:PORT")]
    target: Target,
    /// Bytes of a request: one size or a distribution, see below
    #[arg(short, long, value_name = "SIZES", default_value = "64")]
    size: Sizes,
    /// Bytes of a reply, likewise; the target has to be `loadgen serve` [default: requests are echoed]
    #[arg(long, value_name = "SIZES")]
    reply_size: Option<Sizes>,
    #[command(flatten)]
    requests: Requests,
    #[command(flatten)]
    tcp: Tcp,
}

/// How a connection of one request is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, ValueEnum)]
enum Close {
    /// FIN, and wait for the target's: the port is in TIME-WAIT then
    #[default]
    Fin,
    /// RST: the port is free at once; the target sees an error
    Rst,
}

/// `loadgen tcp-rr`.
#[derive(Debug, Args)]
pub(super) struct TcpRr {
    #[command(flatten)]
    exchange: Exchange,
}

/// `loadgen tcp-crr`.
#[derive(Debug, Args)]
pub(super) struct TcpCrr {
    #[command(flatten)]
    exchange: Exchange,
    /// How connections are ended
    #[arg(long, value_enum, default_value_t)]
    close: Close,
}

/// `loadgen tcp-stream`.
#[derive(Debug, Args)]
pub(super) struct TcpStream {
    /// Where to connect. (The brackets of the help text would be links here.)
    #[arg(help = "Where to connect: HOST:PORT, [IPV6]:PORT or [IPV6%INTERFACE]:PORT")]
    target: Target,
    /// Which way the bytes go
    #[arg(long, value_enum, default_value_t)]
    direction: Direction,
    /// The same as --direction down
    #[arg(short = 'R', long, conflicts_with_all = ["direction", "bidir"])]
    reverse: bool,
    /// The same as --direction both
    #[arg(long, conflicts_with = "direction")]
    bidir: bool,
    /// Bytes of one write, at most 64k
    #[arg(short, long, value_name = "BYTES", default_value = "64k", value_parser = write_size)]
    size: u32,
    /// Take whatever comes for what should come
    #[arg(long)]
    no_verify: bool,
    #[command(flatten)]
    tcp: Tcp,
}

/// `loadgen http`.
#[derive(Debug, Args)]
pub(super) struct HttpLoad {
    /// What to get: http://HOST:PORT/PATH; scheme, port (80) and path (/) may be left out
    #[arg(value_name = "URL")]
    url: Url,
    /// The request's method
    #[arg(short = 'X', long, default_value = "GET")]
    method: String,
    /// A header field, `Name: value`; may be given several times
    #[arg(short = 'H', long, value_name = "FIELD")]
    header: Vec<String>,
    /// Send FILE as the request's body
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// Every reply's body has to be FILE, byte for byte
    #[arg(long, value_name = "FILE")]
    expect_body: Option<PathBuf>,
    /// A connection for each request
    #[arg(long)]
    no_keepalive: bool,
    #[command(flatten)]
    requests: Requests,
    #[command(flatten)]
    tcp: Tcp,
}

/// A URL, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Url {
    host: String,
    target: Target,
    path: String,
}

impl std::str::FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = match text.split_once("://") {
            Some(("http", rest)) => rest,
            Some((scheme, _)) => {
                return Err(format!("`{scheme}` is not spoken here, only http"));
            }
            None => text,
        };
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (host, path) = rest.split_at(at);
        // RFC 9112 §3.2.1: an empty path is sent as `/`.
        let path = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/{path}")
        };
        let path = path.split('#').next().unwrap_or("/").to_owned();
        if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("`{path}` has characters that have to be %-encoded"));
        }
        // The brackets of an IPv6 address hold colons, too.
        let has_port = host
            .rsplit_once(':')
            .is_some_and(|(_, port)| !port.contains(']'));
        let target = if has_port {
            host.parse()?
        } else {
            format!("{host}:80").parse()?
        };
        Ok(Self {
            host: host.to_owned(),
            target,
            path,
        })
    }
}

fn write_size(text: &str) -> Result<u32, String> {
    match text.parse()? {
        Sizes::Fixed(size @ 1..=65_536) => Ok(size),
        _ => Err("expected 1 to 65536 bytes, like 1400 or 64k".into()),
    }
}

type Planned = Result<(TcpPlan, Output), PlanError>;

impl TcpRr {
    pub(super) fn plan(self) -> Planned {
        self.exchange.plan(false, Ending::Fin)
    }
}

impl TcpCrr {
    pub(super) fn plan(self) -> Planned {
        let ending = match self.close {
            Close::Fin => Ending::Fin,
            Close::Rst => Ending::Reset,
        };
        self.exchange.plan(true, ending)
    }
}

impl Exchange {
    fn plan(self, fresh: bool, ending: Ending) -> Planned {
        let Self {
            target,
            size,
            reply_size,
            requests,
            tcp,
        } = self;
        if reply_size.is_some() && (size.min() as usize) < SIZED_HEADER_LEN {
            return Err(PlanError::Usage(format!(
                "--size {size} leaves no room to ask for --reply-size: {SIZED_HEADER_LEN} bytes at least"
            )));
        }
        let mode = Mode::Exchange {
            sizes: size,
            reply_sizes: reply_size,
            fresh,
        };
        let Requests {
            rate,
            arrivals,
            hgrm,
        } = requests;
        let pace = rate.map(|rate| (rate, arrivals));
        let (plan, output) = tcp.plan(target, mode, pace, ending)?;
        Ok((plan, Output { hgrm, ..output }))
    }
}

impl TcpStream {
    pub(super) fn plan(self) -> Planned {
        let Self {
            target,
            direction,
            reverse,
            bidir,
            size,
            no_verify,
            tcp,
        } = self;
        let direction = match (reverse, bidir) {
            (true, _) => Direction::Down,
            (_, true) => Direction::Both,
            _ => direction,
        };
        let mode = Mode::Stream {
            direction,
            write: size,
            verify: !no_verify,
        };
        tcp.plan(target, mode, None, Ending::Fin)
    }
}

impl HttpLoad {
    pub(super) fn plan(self) -> Planned {
        let Self {
            url,
            method,
            header,
            body,
            expect_body,
            no_keepalive,
            requests,
            tcp,
        } = self;
        // RFC 9110 §5.6.2: a token.
        let is_token = |text: &str| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
        };
        if !is_token(&method) {
            return Err(PlanError::Usage(format!("`{method}` is not a method")));
        }
        for field in &header {
            let is_field = field
                .split_once(':')
                .is_some_and(|(name, value)| is_token(name) && !value.contains(['\r', '\n', '\0']));
            if !is_field {
                return Err(PlanError::Usage(format!(
                    "`{field}` is not a header field, like `Accept: text/html`"
                )));
            }
        }
        let read = |path: PathBuf| {
            fs::read(&path).map_err(|error| {
                PlanError::Target(format!("cannot read {}: {error}", path.display()))
            })
        };
        let Url { host, target, path } = url;
        let request = Request {
            method,
            path,
            host,
            headers: header,
            body: body.map(read).transpose()?.unwrap_or_default(),
            keep_alive: !no_keepalive,
            expected: expect_body.map(read).transpose()?,
        };
        let Requests {
            rate,
            arrivals,
            hgrm,
        } = requests;
        let pace = rate.map(|rate| (rate, arrivals));
        let mode = Mode::Http(Box::new(request));
        let (plan, output) = tcp.plan(target, mode, pace, Ending::Fin)?;
        Ok((plan, Output { hgrm, ..output }))
    }
}

impl Tcp {
    fn plan(
        self,
        target: Target,
        mode: Mode,
        pace: Option<(Rate, Arrivals)>,
        ending: Ending,
    ) -> Planned {
        let Self {
            common,
            connections,
            connect_rate,
            source,
            ports,
            warmup,
            timeout,
            misbehave,
        } = self;
        let (place, output) = common.place(connections, "--connections", "connection")?;
        let Place {
            engine,
            duration,
            threads,
            cpus,
            idle,
            family,
            seed,
        } = place;
        let addresses = source.map_or_else(Vec::new, |source| source.as_slice().to_vec());
        let family = family.narrowed_to(addresses.first().copied());
        let target = target.resolve(family).map_err(PlanError::Target)?;
        if let Some(address) = addresses.first()
            && address.is_ipv4() != target.is_ipv4()
        {
            return Err(PlanError::Usage(format!(
                "--source {address} and target {} are of different IP versions",
                target.ip()
            )));
        }
        let plan = TcpPlan {
            mode,
            pace,
            target,
            addresses,
            ports,
            connections,
            connect_rate,
            ending,
            rogues: misbehave,
            threads,
            cpus,
            duration,
            warmup,
            timeout,
            seed,
            idle,
            engine,
        };
        let all = u64::from(plan.connections) + u64::from(plan.rogue_count());
        if let Some(ports) = &plan.ports {
            let count = Sources::new(&plan.addresses, Some(ports.clone())).pairs();
            if count < all {
                return Err(PlanError::Usage(format!(
                    "--ports {ports} of {} are fewer than the {all} connections: use more --ports or \
                     --source addresses",
                    match plan.addresses.len() {
                        0 | 1 => "one address".to_owned(),
                        more => format!("{more} addresses"),
                    }
                )));
            }
        }
        Ok((plan, output))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::job;
    use super::*;
    use crate::loadgen::job::{Job, Load};
    use crate::loadgen::tcp::rogue::Misbehavior;

    fn plan(line: &str) -> Result<(TcpPlan, Output), String> {
        match job(line)? {
            (Job::Load(Load::Tcp(plan)), output) => Ok((*plan, output)),
            (other, _) => panic!("{line} is {other:?}"),
        }
    }

    #[test]
    fn defaults() {
        let (plan, output) = plan("tcp-rr 127.0.0.1:7").unwrap();
        assert_eq!(plan.mode.name(), "tcp-rr");
        assert_eq!((plan.connections, plan.threads, plan.pace), (1, 1, None));
        assert_eq!(plan.timeout, Duration::from_secs(5));
        assert!(plan.addresses.is_empty() && plan.ports.is_none());
        assert_eq!(output, Output::default());
    }

    #[test]
    fn every_option() {
        let (plan, output) = plan(
            "tcp-crr [::1]:7 -c 8 -d 500ms --warmup 0.25 --rate 20k --arrivals poisson \
             --size uniform:64-1400 --reply-size exp:2k --timeout 20 --source ::1-::2 --ports 5000-6000 \
             --connect-rate 4 --close rst --misbehave never-ack=3 --misbehave syn-only --html h",
        )
        .unwrap();
        assert_eq!(
            plan.mode,
            Mode::Exchange {
                sizes: Sizes::Uniform(64, 1400),
                reply_sizes: Some(Sizes::Exponential(2048)),
                fresh: true
            }
        );
        assert_eq!(plan.pace, Some(("20k".parse().unwrap(), Arrivals::Poisson)));
        assert_eq!(plan.addresses.len(), 2);
        assert_eq!(plan.ending, Ending::Reset);
        assert_eq!(plan.rogue_count(), 4);
        assert_eq!(plan.rogues[0].misbehavior, Misbehavior::NeverAck);
        assert_eq!(plan.ramp(), Duration::ZERO, "requests open connections");
        assert_eq!(output.html, Some("h".into()));
    }

    #[test]
    fn ramps_take_their_time() {
        let (plan, _) = plan("tcp-rr 127.0.0.1:7 -c 100 --connect-rate 50").unwrap();
        assert_eq!(plan.ramp(), Duration::from_secs(2));
    }

    #[test]
    fn streams() {
        let direction = |line: &str| match plan(line).unwrap().0.mode {
            Mode::Stream { direction, .. } => direction,
            other => panic!("{other:?}"),
        };
        assert_eq!(direction("tcp-stream 127.0.0.1:9"), Direction::Up);
        assert_eq!(direction("tcp-stream 127.0.0.1:19 -R"), Direction::Down);
        assert_eq!(direction("tcp-stream 127.0.0.1:7 --bidir"), Direction::Both);
        assert_eq!(
            direction("tcp-stream 127.0.0.1:7 --direction both"),
            Direction::Both
        );
    }

    #[test]
    fn urls() {
        for (url, target, host, path) in [
            (
                "http://127.0.0.1:8080/a/b?c=d#e",
                "127.0.0.1:8080",
                "127.0.0.1:8080",
                "/a/b?c=d",
            ),
            ("127.0.0.1", "127.0.0.1:80", "127.0.0.1", "/"),
            ("http://[::1]/x", "[::1]:80", "[::1]", "/x"),
            ("http://[::1]:81?q", "[::1]:81", "[::1]:81", "/?q"),
        ] {
            let (plan, _) = plan(&format!("http {url}")).unwrap();
            assert_eq!(plan.target.to_string(), target);
            let Mode::Http(request) = plan.mode else {
                panic!("not HTTP");
            };
            assert_eq!((request.host.as_str(), request.path.as_str()), (host, path));
        }
    }

    #[test]
    fn what_is_refused_and_why() {
        for (line, reason) in [
            ("tcp-rr", "TARGET"),
            ("tcp-rr 127.0.0.1:7 --size 0", "a size is"),
            ("tcp-rr 127.0.0.1:7 --size uniform:9", "MIN-MAX"),
            (
                "tcp-rr 127.0.0.1:7 --size 8 --reply-size 64",
                "16 bytes at least",
            ),
            ("tcp-rr 127.0.0.1:7 -c 0", "1..=2000000"),
            (
                "tcp-rr 127.0.0.1:7 -c 100 --ports 5000-5050",
                "fewer than the 100",
            ),
            ("tcp-rr 127.0.0.1:7 --ports 9-5", "range of ports"),
            ("tcp-rr 127.0.0.1:7 --source ::1", "not an IPv6"),
            (
                "tcp-rr 127.0.0.1:7 --threads 2",
                "every thread needs a connection",
            ),
            ("tcp-rr 127.0.0.1:7 --misbehave rude=4", "never-read"),
            ("tcp-rr 127.0.0.1:7 --close rst", "--close"),
            ("tcp-stream 127.0.0.1:7 --rate 5", "--rate"),
            ("tcp-stream 127.0.0.1:7 -R --bidir", "cannot be used with"),
            ("tcp-stream 127.0.0.1:7 --size 65k", "65536"),
            ("http https://127.0.0.1/", "only http"),
            ("http http://127.0.0.1/ä", "encoded"),
            ("http 127.0.0.1 -X G=T", "not a method"),
            ("http 127.0.0.1 -H nonsense", "header field"),
            ("http 127.0.0.1 --body /no/such/file", "/no/such/file"),
        ] {
            let error = plan(line).unwrap_err();
            assert!(
                error.contains(reason),
                "{line:?} says {error:?}, not {reason:?}"
            );
        }
    }
}
