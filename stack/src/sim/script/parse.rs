//! Scripts: what can stand in one, and how it is read. `tests/scripts/README.md` describes the
//! format.

mod names;

use super::frame::Addresses;
use super::host::{Congestion, SocketOption};
use super::number::{Pattern, Variables, evaluate};
use super::run::LOCAL_PORT;
use super::text::SegmentText;
use crate::time::Duration;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;
use names::{ICMP, duration, seconds, state};

/// The connection of lines that name none.
pub const DEFAULT_LABEL: &str = "a";

/// Which IP a script runs over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// Where a script cannot be read, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Counted from 1.
    pub line: usize,
    /// One sentence.
    pub why: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

/// When something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Between these times, counted from the start of the script.
    At(Duration, Duration),
    /// Between these times, counted from the line before.
    After(Duration, Duration),
    /// Whenever.
    Any,
}

/// What a verb is expected to lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It works.
    Done,
    /// It fails with this `errno`; any for `*`.
    Error(String),
}

/// What `read` is expected to find.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Exactly so many bytes, of the right content.
    Bytes(usize),
    /// The peer has closed.
    End,
    /// Nothing yet.
    Nothing,
    /// This error; any for `*`.
    Error(String),
}

/// An ICMP error about something the host sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IcmpText {
    /// Type and code.
    pub kind: (u8, u8),
    /// The last word of its header: the MTU of "too big".
    pub rest: u32,
    /// Sequence number of the segment it is about.
    pub seq: Pattern,
    /// Bytes of the quoted TCP segment.
    pub quote: usize,
}

/// What happens in a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// `< SEGMENT`: the peer sends.
    Inject(SegmentText),
    /// `< icmp …`: a router or the peer reports an error.
    InjectIcmp(IcmpText),
    /// `> SEGMENT`: the host sends.
    Expect(SegmentText),
    /// `listen [port N] [backlog N]`
    Listen {
        /// The port.
        port: u16,
        /// Connections that may wait, if the script says.
        backlog: Option<u32>,
        /// How it ends.
        outcome: Outcome,
    },
    /// `unlisten`
    Unlisten,
    /// `connect [to ADDRESS] [from PORT] [unbound]`
    Connect {
        /// Another address than the peer's.
        to: Option<IpAddr>,
        /// The local port; 0 for one that the host chooses.
        from: u16,
        /// The host chooses the local address, too.
        unbound: bool,
        /// How it ends.
        outcome: Outcome,
    },
    /// `accept`, `accept none`
    Accept {
        /// Whether there is one.
        is_expected: bool,
    },
    /// `write N [takes M]`
    Write {
        /// How many.
        bytes: usize,
        /// How many are taken; all by default.
        takes: Option<usize>,
        /// How it ends.
        outcome: Outcome,
    },
    /// `read …`
    Read(Reading),
    /// `shutdown`
    Shutdown(Outcome),
    /// `close`
    Close,
    /// `abort`
    Abort,
    /// `set NAME VALUE`
    Set(SocketOption),
    /// `expect state NAME`
    ExpectState(String),
    /// `expect info NAME N`
    ExpectInfo(String, Pattern),
    /// `expect drop NAME N`, `expect event NAME N`: since the start of the script.
    ExpectCounter(String, Pattern),
    /// `expect error NAME`, `expect error none`
    ExpectError(Option<String>),
    /// `expect count N`: segments sent that no line has looked at; they are passed over.
    ExpectCount(Pattern),
    /// `skip`: passes over them, however many.
    Skip,
    /// `wait`
    Wait,
}

/// A line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Counted from 1.
    pub number: usize,
    /// As it is written.
    pub text: String,
    /// When it happens.
    pub when: When,
    /// Which connection or listener it is about.
    pub label: String,
    /// What happens.
    pub action: Action,
}

/// Ports and address of a connection, where a script does not want the usual ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerText {
    /// `port N`
    pub port: Option<u16>,
    /// `local N`
    pub local_port: Option<u16>,
    /// `address A`
    pub address: Option<IpAddr>,
    /// `isn N`
    pub isn: Option<u32>,
}

/// A script, for one version of IP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// The version.
    pub version: Version,
    /// MTU of the link, in bytes.
    pub mtu: u32,
    /// Initial sequence number of peers.
    pub isn: u32,
    /// How much earlier or later than written something may be sent.
    pub tolerance: Duration,
    /// For all sockets.
    pub options: Vec<SocketOption>,
    /// For the stack.
    pub config: Vec<(String, i64)>,
    /// Unusual peers, by label.
    pub peers: Vec<(String, PeerText)>,
    /// What happens.
    pub lines: Vec<Line>,
}

/// How much earlier or later than written something may be sent: the granularity of timers and of
/// the runner's own steps, with room.
const TOLERANCE: Duration = Duration::from_millis(5);
/// Initial sequence number of peers: near the wrap, so that every script crosses it.
const ISN: u32 = u32::MAX - 500;
/// Lines that a `repeat` may make.
const LINES_MAX: usize = 100_000;

/// Reads a script: once for each version of IP that it is for.
///
/// # Errors
/// The first line that cannot be read.
pub fn parse(text: &str) -> Result<Vec<Script>, ParseError> {
    parse_with(text, |_| None)
}

/// The same for a script with `include NAME`: `included` finds the text of a name. Its lines count as
/// those of the line that includes them.
///
/// # Errors
/// The first line that cannot be read.
pub fn parse_with(
    text: &str,
    included: impl Fn(&str) -> Option<String>,
) -> Result<Vec<Script>, ParseError> {
    let mut lines = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        match content(line).strip_prefix("include ") {
            None => lines.push((number, content(line).to_string())),
            Some(name) => {
                let text = included(name.trim()).ok_or_else(|| ParseError {
                    line: number,
                    why: format!("there is no `{}` to include", name.trim()),
                })?;
                lines.extend(text.lines().map(|line| (number, content(line).to_string())));
            }
        }
    }
    let versions = versions(&lines)?;
    versions
        .iter()
        .map(|version| Reader::new(*version).read(&lines))
        .collect()
}

/// A line without its comment.
fn content(line: &str) -> &str {
    line.split('#').next().unwrap_or("").trim()
}

fn versions(lines: &[(usize, String)]) -> Result<&'static [Version], ParseError> {
    for (number, line) in lines {
        if let Some(which) = line.strip_prefix("ip ") {
            return match which.trim() {
                "v4" => Ok(&[Version::V4]),
                "v6" => Ok(&[Version::V6]),
                "both" => Ok(&[Version::V4, Version::V6]),
                other => Err(ParseError {
                    line: *number,
                    why: format!("`ip {other}`: expected v4, v6 or both"),
                }),
            };
        }
    }
    Ok(&[Version::V4, Version::V6])
}

struct Reader {
    script: Script,
    variables: Variables,
}

/// The words of a line, taken one by one.
struct Words<'a> {
    rest: &'a str,
}

impl<'a> Words<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.rest.split_whitespace().next()
    }

    fn next(&mut self) -> Option<&'a str> {
        let word = self.peek()?;
        let rest = self.rest.trim_start();
        self.rest = rest[word.len()..].trim_start();
        Some(word)
    }

    fn expect(&mut self, what: &str) -> Result<&'a str, String> {
        self.next().ok_or_else(|| format!("expected {what}"))
    }

    /// Takes the next word if it is `word`.
    fn take(&mut self, word: &str) -> bool {
        let found = self.peek() == Some(word);
        if found {
            self.next();
        }
        found
    }

    fn end(&self) -> Result<(), String> {
        match self.rest.trim() {
            "" => Ok(()),
            rest => Err(format!("`{rest}`: expected nothing more")),
        }
    }
}

impl Reader {
    fn new(version: Version) -> Self {
        let mut this = Self {
            script: Script {
                version,
                mtu: 0,
                isn: ISN,
                tolerance: TOLERANCE,
                options: Vec::new(),
                config: Vec::new(),
                peers: Vec::new(),
                lines: Vec::new(),
            },
            variables: Variables::new(),
        };
        this.set_mtu(1500);
        // RFC 9293 MUST-15: without an MSS option.
        let default_mss = this.per_version(536, 1220);
        this.variables.insert("DEFAULT_MSS".into(), default_mss);
        this
    }

    fn per_version<T>(&self, v4: T, v6: T) -> T {
        match self.script.version {
            Version::V4 => v4,
            Version::V6 => v6,
        }
    }

    fn set_mtu(&mut self, mtu: u32) {
        self.script.mtu = mtu;
        let headers = self.per_version(40, 60);
        self.variables.insert("MTU".into(), mtu.into());
        self.variables
            .insert("MSS".into(), i64::from(mtu) - headers);
    }

    fn read(mut self, lines: &[(usize, String)]) -> Result<Script, ParseError> {
        // Where a `repeat` begins: its line, the times, and the first of its lines.
        let mut repeat: Option<(usize, usize, usize)> = None;
        for (number, words) in lines {
            let number = *number;
            let fail = |why| ParseError { line: number, why };
            let words = words.as_str();
            if words.is_empty() {
                continue;
            }
            if let Some(times) = words.strip_prefix("repeat ") {
                let times = self.number(times.trim()).map_err(fail)?;
                if repeat.is_some() {
                    return Err(fail("`repeat` within `repeat`".into()));
                }
                repeat = Some((number, times, self.script.lines.len()));
            } else if words == "end" {
                let (_, times, first) = repeat
                    .take()
                    .ok_or_else(|| fail("`end` without `repeat`".into()))?;
                let block = self.script.lines.split_off(first);
                if block.len().saturating_mul(times) > LINES_MAX {
                    return Err(fail(format!("more than {LINES_MAX} lines")));
                }
                for _ in 0..times {
                    self.script.lines.extend_from_slice(&block);
                }
            } else if words.starts_with(|c: char| c.is_ascii_digit() || c == '+' || c == '*') {
                let line = self.line(number, words).map_err(fail)?;
                self.script.lines.push(line);
            } else if self.script.lines.is_empty() {
                self.header(words).map_err(fail)?;
            } else {
                return Err(fail(format!("`{words}`: expected a time, repeat or end")));
            }
        }
        if let Some((line, ..)) = repeat {
            let why = "`repeat` without `end`".into();
            return Err(ParseError { line, why });
        }
        Ok(self.script)
    }

    fn number<T: TryFrom<i64>>(&self, text: &str) -> Result<T, String> {
        let value = evaluate(text, &self.variables)?;
        T::try_from(value).map_err(|_| format!("`{text}`: {value} does not fit here"))
    }

    fn pattern(&self, text: &str) -> Result<Pattern, String> {
        Pattern::parse(text, &self.variables)
    }

    fn address(&self, text: &str) -> Result<IpAddr, String> {
        let address: IpAddr = text
            .parse()
            .map_err(|_| format!("`{text}` is no address"))?;
        let expected = self.per_version(true, false);
        if address.is_ipv4() != expected {
            return Err(format!("{text} in a script for {}", self.script.version));
        }
        Ok(address)
    }

    /// A line in front of the first that has a time.
    fn header(&mut self, text: &str) -> Result<(), String> {
        let mut words = Words { rest: text };
        match words.expect("a word")? {
            "ip" => {
                words.next();
            }
            "mtu" => {
                let mtu = self.number(words.expect("a number of bytes")?)?;
                self.set_mtu(mtu);
            }
            "isn" => self.script.isn = self.number(words.expect("a sequence number")?)?,
            "tolerance" => self.script.tolerance = duration(words.expect("a time")?)?,
            "option" => {
                let option = self.option(&mut words)?;
                self.script.options.push(option);
            }
            "config" => {
                let name = words.expect("a name")?;
                let value = words.expect("a value")?;
                let value = match value {
                    "on" => 1,
                    "off" => 0,
                    value => match duration(value) {
                        Ok(time) if value.ends_with('s') => {
                            i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
                        }
                        _ => self.number(value)?,
                    },
                };
                self.script.config.push((name.into(), value));
            }
            "let" => {
                let name = words.expect("a name")?;
                let v4 = words.expect("a value")?;
                let v6 = words.next().unwrap_or(v4);
                let value = self.number(self.per_version(v4, v6))?;
                self.variables.insert(name.into(), value);
            }
            "peer" => self.peer(&mut words)?,
            other => {
                return Err(format!(
                    "`{other}`: expected a time, or ip, mtu, isn, tolerance, option, config, let, peer, repeat or end"
                ));
            }
        }
        words.end()
    }

    fn peer(&mut self, words: &mut Words<'_>) -> Result<(), String> {
        let label = words.expect("a label")?;
        let mut peer = PeerText::default();
        while let Some(word) = words.next() {
            let value = words.expect("a value")?;
            match word {
                "port" => peer.port = Some(self.number(value)?),
                "local" => peer.local_port = Some(self.number(value)?),
                "isn" => peer.isn = Some(self.number(value)?),
                "address4" | "address6" => {
                    let address = value
                        .parse()
                        .map_err(|_| format!("`{value}` is no address"))?;
                    if word == self.per_version("address4", "address6") {
                        peer.address = Some(address);
                    }
                }
                _ => {
                    return Err(format!(
                        "`{word}`: expected port, local, isn, address4 or address6"
                    ));
                }
            }
        }
        self.script.peers.push((label.into(), peer));
        Ok(())
    }

    fn option(&self, words: &mut Words<'_>) -> Result<SocketOption, String> {
        let name = words.expect("the name of an option")?;
        let value = words.expect("a value")?;
        let on = || match value {
            "on" => Ok(true),
            "off" => Ok(false),
            _ => Err(format!("`{value}`: expected on or off")),
        };
        let time = || duration(value);
        Ok(match name {
            "nodelay" => SocketOption::NoDelay(on()?),
            "send_buffer" => SocketOption::SendBuffer(self.number(value)?),
            "receive_buffer" => SocketOption::ReceiveBuffer(self.number(value)?),
            "congestion" => SocketOption::Congestion(match value {
                "newreno" => Congestion::NewReno,
                "cubic" => Congestion::Cubic,
                _ => return Err(format!("`{value}`: expected newreno or cubic")),
            }),
            "mss" => SocketOption::Mss(self.number(value)?),
            "keepalive" => SocketOption::KeepAlive(on()?),
            "keepalive_idle" => SocketOption::KeepAliveIdle(time()?),
            "keepalive_interval" => SocketOption::KeepAliveInterval(time()?),
            "keepalive_count" => SocketOption::KeepAliveCount(self.number(value)?),
            "user_timeout" => SocketOption::UserTimeout(time()?),
            "ttl" => SocketOption::Ttl(self.number(value)?),
            "tos" => SocketOption::Tos(self.number(value)?),
            "ecn" => SocketOption::Ecn(on()?),
            "sack" => SocketOption::Sack(on()?),
            "timestamps" => SocketOption::Timestamps(on()?),
            "window_scaling" => SocketOption::WindowScaling(on()?),
            "delayed_ack" => SocketOption::DelayedAck(time()?),
            "quick_ack" => SocketOption::QuickAck(self.number(value)?),
            "rto_min" => SocketOption::RtoMin(time()?),
            "linger" => SocketOption::Linger(time()?),
            _ => return Err(format!("there is no option `{name}`")),
        })
    }

    fn line(&self, number: usize, text: &str) -> Result<Line, String> {
        let mut words = Words { rest: text };
        let when = self.when(words.expect("a time")?)?;
        let verb = words.expect("what happens")?;
        let label = match words.peek() {
            Some(word) if word.starts_with('[') => {
                words.next();
                let inside = word
                    .strip_prefix('[')
                    .and_then(|rest| rest.strip_suffix(']'));
                inside.ok_or_else(|| format!("`{word}`: expected [label]"))?
            }
            _ => DEFAULT_LABEL,
        };
        let action = self.action(verb, &mut words)?;
        words.end()?;
        let waits = matches!(action, Action::Expect(_));
        if !waits && (when == When::Any || !when.is_instant()) {
            return Err("only `>` may wait: everything else happens at one time".into());
        }
        Ok(Line {
            number,
            text: text.into(),
            when,
            label: label.into(),
            action,
        })
    }

    /// `0.100`, `+0.1`, `*`, `0.1..0.3`, `+0.1..0.3`.
    fn when(&self, text: &str) -> Result<When, String> {
        if text == "*" {
            return Ok(When::Any);
        }
        let (is_relative, times) = match text.strip_prefix('+') {
            Some(times) => (true, times),
            None => (false, text),
        };
        let (low, high) = times.split_once("..").unwrap_or((times, times));
        let (low, high) = (seconds(low)?, seconds(high)?);
        if low > high {
            return Err(format!("`{text}` ends before it begins"));
        }
        Ok(if is_relative {
            When::After(low, high)
        } else {
            When::At(low, high)
        })
    }

    fn outcome(&self, words: &mut Words<'_>) -> Result<Outcome, String> {
        if words.take("error") {
            return Ok(Outcome::Error(words.expect("the name of an error")?.into()));
        }
        Ok(Outcome::Done)
    }

    /// A segment takes the rest of the line.
    fn segment(&self, words: &mut Words<'_>) -> Result<SegmentText, String> {
        let text = core::mem::take(&mut words.rest);
        SegmentText::parse(text, &self.variables)
    }

    fn action(&self, verb: &str, words: &mut Words<'_>) -> Result<Action, String> {
        Ok(match verb {
            "<" if words.take("icmp") => Action::InjectIcmp(self.icmp(words)?),
            "<" => {
                let segment = self.segment(words)?;
                if segment.flags.is_none() {
                    return Err("`*` cannot be sent".into());
                }
                Action::Inject(segment)
            }
            ">" => Action::Expect(self.segment(words)?),
            "listen" => {
                let mut port = LOCAL_PORT;
                let mut backlog = None;
                while let Some(word @ ("port" | "backlog")) = words.peek() {
                    words.next();
                    let value = words.expect("a number")?;
                    match word {
                        "port" => port = self.number(value)?,
                        _ => backlog = Some(self.number(value)?),
                    }
                }
                let outcome = self.outcome(words)?;
                Action::Listen {
                    port,
                    backlog,
                    outcome,
                }
            }
            "unlisten" => Action::Unlisten,
            "connect" => {
                let (mut to, mut from) = (None, 0);
                while let Some(word @ ("to" | "from")) = words.peek() {
                    words.next();
                    match word {
                        "to" => to = Some(self.address(words.expect("an address")?)?),
                        _ => from = self.number(words.expect("a port")?)?,
                    }
                }
                let unbound = words.take("unbound");
                let outcome = self.outcome(words)?;
                Action::Connect {
                    to,
                    from,
                    unbound,
                    outcome,
                }
            }
            "accept" => Action::Accept {
                is_expected: !words.take("none"),
            },
            "write" => {
                let bytes = self.number(words.expect("a number of bytes")?)?;
                let takes = match words.take("takes") {
                    true => Some(self.number(words.expect("a number of bytes")?)?),
                    false => None,
                };
                let outcome = self.outcome(words)?;
                Action::Write {
                    bytes,
                    takes,
                    outcome,
                }
            }
            "read" => Action::Read(match words.expect("a number of bytes, eof or none")? {
                "eof" => Reading::End,
                "none" => Reading::Nothing,
                "error" => Reading::Error(words.expect("the name of an error")?.into()),
                number => Reading::Bytes(self.number(number)?),
            }),
            "shutdown" => Action::Shutdown(self.outcome(words)?),
            "close" => Action::Close,
            "abort" => Action::Abort,
            "set" => Action::Set(self.option(words)?),
            "expect" => self.expectation(words)?,
            "skip" => Action::Skip,
            "wait" => Action::Wait,
            other => {
                return Err(format!(
                    "`{other}`: expected <, >, listen, unlisten, connect, accept, write, read, shutdown, close, abort, set, expect, skip or wait"
                ));
            }
        })
    }

    fn expectation(&self, words: &mut Words<'_>) -> Result<Action, String> {
        let what = words.expect("state, info, drop, event, error, none or count")?;
        Ok(match what {
            "none" => Action::ExpectCount(Pattern::exactly(0)),
            "count" => Action::ExpectCount(self.pattern(words.expect("a number")?)?),
            "state" => Action::ExpectState(state(words.expect("a state")?)?.into()),
            "error" => {
                Action::ExpectError(match words.expect("the name of an error, or none")? {
                    "none" => None,
                    name => Some(name.into()),
                })
            }
            "info" | "drop" | "event" => {
                let name = words.expect("a name")?.to_string();
                let number = self.pattern(words.expect("a number")?)?;
                match what {
                    "info" => Action::ExpectInfo(name, number),
                    _ => Action::ExpectCounter(name, number),
                }
            }
            other => {
                return Err(format!(
                    "`{other}`: expected state, info, drop, event, error, none or count"
                ));
            }
        })
    }

    /// `icmp NAME [mtu N] [seq N] [quote N]`
    fn icmp(&self, words: &mut Words<'_>) -> Result<IcmpText, String> {
        let name = words.expect("the name of an ICMP error")?;
        let known = ICMP.iter().find(|(known, ..)| *known == name);
        let (_, v4, v6) = known.ok_or_else(|| {
            let names: Vec<&str> = ICMP.iter().map(|(name, ..)| *name).collect();
            format!("`{name}`: expected {}", names.join(", "))
        })?;
        let kind = self.per_version(*v4, *v6);
        let kind = kind.ok_or_else(|| format!("`{name}` is not for {}", self.script.version))?;
        let mut icmp = IcmpText {
            kind,
            rest: 0,
            seq: Pattern::exactly(1),
            // RFC 5927 §2: what every router returns, and what a host may rely on.
            quote: 8,
        };
        while let Some(word) = words.next() {
            let value = words.expect("a number")?;
            match word {
                "mtu" => icmp.rest = self.number(value)?,
                "seq" => icmp.seq = self.pattern(value)?,
                "quote" => icmp.quote = self.number(value)?,
                _ => return Err(format!("`{word}`: expected mtu, seq or quote")),
            }
        }
        if icmp.seq.number().is_none() {
            return Err(format!("seq {}: expected one number", icmp.seq));
        }
        Ok(icmp)
    }
}

impl When {
    /// Whether it names one point in time.
    fn is_instant(self) -> bool {
        match self {
            Self::At(low, high) | Self::After(low, high) => low == high,
            Self::Any => false,
        }
    }
}

impl Script {
    /// From the peer to the host.
    #[must_use]
    pub const fn addresses(&self) -> Addresses {
        match self.version {
            Version::V4 => Addresses::V4,
            Version::V6 => Addresses::V6,
        }
    }
}

#[cfg(test)]
#[path = "parse/tests.rs"]
mod tests;
