//! Runs a script on a host: injects, turns the clock, compares.

mod verbs;

use super::frame::{Addresses, Segment};
use super::host::{Setup, TcpHost};
use super::number::{Pattern, absolute, relative};
use super::parse::{Action, IcmpText, Line, Script, When};
use super::text::{self, Attribute, Bases, SegmentText};
use crate::sim::capture::{Capture, Direction};
use crate::sim::packet::{self, flag};
use crate::sim::report;
use crate::time::{Duration, Instant};
use crate::wire::ethernet;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, SocketAddr};

/// The port that scripts listen on, unless they say otherwise.
pub const LOCAL_PORT: u16 = 8080;
/// The port of the first peer; others follow.
const PEER_PORT: u16 = 40_000;
/// The host's clock when a script starts. Not zero: timestamps and timers have a past.
const START: Instant = Instant::from_nanos(10_000_000_000);
/// How far `*` waits: longer than any timer of TCP, keep-alive included.
const WAIT_MAX: Duration = Duration::from_secs(4 * 3600);
/// Segments shown when a script fails.
const TRANSCRIPT_MAX: usize = 40;
/// Segments of the host remembered, to be quoted in ICMP errors.
const SENT_MAX: usize = 256;
/// Segments that may wait to be looked at: more than the largest window holds in a script.
const QUEUE_MAX: usize = 10_000;
/// Timers that may run out while one line waits: far more than any script needs. Beyond it the host
/// asks for time without end, and does nothing with it.
const STEPS_MAX: u32 = 2_000_000;
/// A host whose deadline has passed is asked again after this.
const GRAIN: Duration = Duration::from_millis(1);

/// How a script failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The line, counted from 1; the one behind the last if it failed at the end.
    pub line: usize,
    /// The line as it is written.
    pub text: String,
    /// When, since the start of the script.
    pub at: Duration,
    /// One or more sentences.
    pub why: String,
    /// The last segments, both ways.
    pub transcript: Vec<String>,
    /// The capture, if it could be written.
    pub capture: Option<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            line,
            text,
            at,
            why,
            transcript,
            capture,
        } = self;
        writeln!(f, "line {line} at {:.6}: {why}", at.as_secs_f64())?;
        writeln!(f, "    {text}")?;
        writeln!(f, "what was said:")?;
        for segment in transcript {
            writeln!(f, "    {segment}")?;
        }
        match capture {
            Some(path) => write!(f, "all frames: {path}"),
            None => Ok(()),
        }
    }
}

/// A byte of what the host's application writes, by its sequence number.
fn host_byte(seq: i64) -> u8 {
    (seq.wrapping_mul(31) ^ (seq >> 8) ^ 0x5a).to_le_bytes()[0]
}

/// A byte of what the peer sends, by its sequence number.
fn peer_byte(seq: i64) -> u8 {
    (seq.wrapping_mul(37) ^ (seq >> 7) ^ 0xa5).to_le_bytes()[0]
}

/// One conversation.
struct Connection<S> {
    peer: SocketAddr,
    local: SocketAddr,
    socket: Option<S>,
    peer_isn: u32,
    /// Known from the host's SYN on.
    host_isn: Option<u32>,
    /// The host's first timestamp and its latest.
    host_timestamps: Option<(u32, u32)>,
    written: i64,
    read: i64,
}

impl<S> Connection<S> {
    fn bases_of_host(&self) -> Bases {
        Bases {
            seq: self.host_isn.unwrap_or(0),
            ack: self.peer_isn,
            ts_value: self.host_timestamps.map_or(0, |(first, _)| first),
            ts_echo: 0,
        }
    }

    fn bases_of_peer(&self) -> Bases {
        let host = self.bases_of_host();
        Bases {
            seq: host.ack,
            ack: host.seq,
            ts_value: host.ts_echo,
            ts_echo: host.ts_value,
        }
    }
}

/// A segment that the host sent.
struct Emitted {
    at: Instant,
    frame: Vec<u8>,
}

struct Runner<'a, H: TcpHost> {
    name: &'a str,
    script: &'a Script,
    host: H,
    now: Instant,
    /// When the line before happened.
    previous: Instant,
    /// Something was injected, and the host had no turn since.
    is_due: bool,
    connections: Vec<(String, Connection<H::Socket>)>,
    listeners: BTreeMap<String, H::Listener>,
    /// What was sent and no line has looked at.
    queue: VecDeque<Emitted>,
    /// What was sent last, looked at or not.
    sent: VecDeque<Vec<u8>>,
    /// Steps since the line began.
    steps: u32,
    counters: BTreeMap<String, u64>,
    transcript: VecDeque<String>,
    capture: Capture,
}

/// The capture of a host that panics is wanted too.
impl<H: TcpHost> Drop for Runner<'_, H> {
    fn drop(&mut self) {
        let version = self.script.version as u64;
        report::on_panic(self.name, version, || self.capture.to_pcapng(self.name));
    }
}

/// Runs a script. `make` makes the host that it runs on; `name` is that of the capture of a failure.
///
/// # Errors
/// The first thing that was not as the script says.
pub fn run<H: TcpHost>(
    name: &str,
    script: &Script,
    make: impl FnOnce(&Setup) -> Result<H, String>,
) -> Result<(), Failure> {
    let unset = |why| Failure {
        line: 0,
        text: String::new(),
        at: Duration::ZERO,
        why,
        transcript: Vec::new(),
        capture: None,
    };
    let host = make(&setup(script)).map_err(|why| unset(format!("no host: {why}")))?;
    let mut capture = Capture::default();
    capture.add_port("host");
    let mut runner = Runner {
        name,
        script,
        host,
        now: START,
        previous: START,
        is_due: false,
        connections: Vec::new(),
        listeners: BTreeMap::new(),
        queue: VecDeque::new(),
        sent: VecDeque::new(),
        steps: 0,
        counters: BTreeMap::new(),
        transcript: VecDeque::new(),
        capture,
    };
    let mut result = runner.remember_counters();
    let mut place = (0, String::new());
    if result.is_ok() {
        for line in &script.lines {
            place = (line.number, line.text.clone());
            result = runner.line(line);
            if result.is_err() {
                break;
            }
        }
    }
    if result.is_ok() {
        result = runner.finish();
        if result.is_err() {
            place = (place.0 + 1, "(end of the script)".into());
        }
    }
    result.map_err(|why| {
        let bytes = runner.capture.to_pcapng(name);
        let path = report::write_capture(name, script.version as u64, &bytes).ok();
        Failure {
            line: place.0,
            text: place.1,
            at: runner.now - START,
            why,
            transcript: runner.transcript.drain(..).collect(),
            capture: path.map(|path| path.display().to_string()),
        }
    })
}

/// What the host is to be like.
fn setup(script: &Script) -> Setup {
    let addresses = script.addresses();
    let mut peers = alloc::vec![addresses.source];
    peers.extend(script.peers.iter().filter_map(|(_, peer)| peer.address));
    for line in &script.lines {
        match &line.action {
            Action::Connect { to, .. } => peers.extend(to),
            Action::Inject(segment) => {
                peers.extend(segment.attributes.iter().filter_map(|it| match it {
                    Attribute::Source(address) => Some(*address),
                    _ => None,
                }));
            }
            _ => {}
        }
    }
    // Nobody is at the addresses that nobody can have.
    peers.retain(|address| match address {
        IpAddr::V4(v4) => {
            !v4.is_multicast() && !v4.is_broadcast() && !v4.is_loopback() && v4.octets()[0] != 0
        }
        IpAddr::V6(v6) => !v6.is_multicast() && !v6.is_loopback() && !v6.is_unspecified(),
    });
    peers.retain(|address| *address != addresses.destination);
    peers.sort_unstable();
    peers.dedup();
    Setup {
        addresses,
        peers,
        mtu: script.mtu,
        options: script.options.clone(),
        config: script.config.clone(),
        start: START,
    }
}

impl<H: TcpHost> Runner<'_, H> {
    fn remember_counters(&mut self) -> Result<(), String> {
        self.host.advance(self.now);
        self.collect()?;
        for line in &self.script.lines {
            if let Action::ExpectCounter(name, _) = &line.action {
                let value = self.host.counter(name);
                let value = value.ok_or_else(|| format!("there is no counter `{name}`"))?;
                self.counters.insert(name.clone(), value);
            }
        }
        Ok(())
    }

    fn line(&mut self, line: &Line) -> Result<(), String> {
        self.steps = 0;
        let (from, to) = match line.when {
            When::At(from, to) => (START + from, START + to),
            When::After(from, to) => (self.previous + from, self.previous + to),
            When::Any => (Instant::ZERO, self.now + WAIT_MAX),
        };
        if let Action::Expect(wanted) = &line.action {
            self.previous = self.expect(&line.label, wanted, from, to)?;
            return Ok(());
        }
        if from + self.script.tolerance < self.now {
            let at = (self.now - START).as_secs_f64();
            return Err(format!("it is {at:.6} already"));
        }
        self.advance_to(from)?;
        self.previous = self.now;
        match &line.action {
            Action::Inject(segment) => self.inject(&line.label, segment),
            Action::InjectIcmp(icmp) => self.inject_icmp(&line.label, icmp),
            action => {
                self.flush()?;
                self.verb(&line.label, action)?;
                // The application's turn.
                self.is_due = true;
                self.flush()
            }
        }
    }

    fn finish(&mut self) -> Result<(), String> {
        self.flush()?;
        if let Some(emitted) = self.queue.pop_front() {
            let shown = self.show(&emitted.frame);
            return Err(format!("nobody expected\n  > {shown}"));
        }
        self.host.finish()
    }

    // Time.

    /// Gives the host a turn if something arrived since its last.
    fn flush(&mut self) -> Result<(), String> {
        if self.is_due {
            self.is_due = false;
            self.host.advance(self.now);
            self.collect()?;
        }
        Ok(())
    }

    /// Goes to the host's next timer, but not beyond `limit`.
    fn step(&mut self, limit: Instant) -> Result<(), String> {
        self.flush()?;
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err(format!(
                "{STEPS_MAX} timers ran out, and nothing came of it"
            ));
        }
        let next = match self.host.next_deadline() {
            Some(deadline) if deadline > self.now => deadline,
            Some(_) => self.now + GRAIN,
            None => limit,
        };
        self.now = next.min(limit);
        self.host.advance(self.now);
        self.collect()
    }

    fn advance_to(&mut self, time: Instant) -> Result<(), String> {
        while self.now < time {
            self.step(time)?;
        }
        Ok(())
    }

    // Segments.

    /// Takes what the host sent, and judges what holds for every frame.
    fn collect(&mut self) -> Result<(), String> {
        for frame in self.host.emitted() {
            self.capture
                .record(self.now, 0, Direction::Outward, &frame, String::new());
            if let Err(fault) = packet::check(&frame) {
                return Err(format!(
                    "the host sent a wrong frame: {fault}: {frame:02x?}"
                ));
            }
            self.learn(&frame)?;
            if matches!(packet::tcp(&frame), Ok(Some(_))) {
                let line = format!("> {}", self.show(&frame));
                self.note(&line);
                if self.sent.len() == SENT_MAX {
                    self.sent.pop_front();
                }
                self.sent.push_back(frame.clone());
                self.queue.push_back(Emitted {
                    at: self.now,
                    frame,
                });
                if self.queue.len() > QUEUE_MAX {
                    return Err("the host sends without end".into());
                }
            }
        }
        Ok(())
    }

    /// Learns initial numbers from what the host sent, and checks its payload.
    fn learn(&mut self, frame: &[u8]) -> Result<(), String> {
        let Some((ip, tcp)) = packet::tcp(frame)? else {
            return Ok(());
        };
        let peer = SocketAddr::new(ip.destination, tcp.destination_port);
        let Some(connection) = self.find_peer(peer) else {
            return Ok(());
        };
        let is_syn = tcp.flags & flag::SYN != 0;
        if is_syn && connection.host_isn != Some(tcp.seq) {
            connection.host_isn = Some(tcp.seq);
            connection.host_timestamps = None;
            (connection.written, connection.read) = (0, 0);
            if tcp.flags & flag::ACK == 0 {
                connection.local = SocketAddr::new(ip.source, tcp.source_port);
            }
        }
        if let Some((value, _)) = text::timestamps(&tcp) {
            let first = connection.host_timestamps.map_or(value, |(first, _)| first);
            connection.host_timestamps = Some((first, value));
        }
        let first = relative(tcp.seq, connection.host_isn.unwrap_or(0)) + i64::from(is_syn);
        if first < 1 || tcp.payload.is_empty() {
            return Ok(());
        }
        let end = first + i64::try_from(tcp.payload.len()).unwrap_or(0);
        if end > connection.written + 1 {
            let written = connection.written;
            return Err(format!(
                "the host sent bytes {first}:{end}, but only {written} were written"
            ));
        }
        match (first..)
            .zip(tcp.payload)
            .find(|(seq, byte)| host_byte(*seq) != **byte)
        {
            Some((seq, _)) => Err(format!("the host sent a wrong byte at {seq}")),
            None => Ok(()),
        }
    }

    fn find_peer(&mut self, peer: SocketAddr) -> Option<&mut Connection<H::Socket>> {
        let mut connections = self.connections.iter_mut();
        let found = connections.find(|(_, connection)| connection.peer == peer);
        found.map(|(_, connection)| connection)
    }

    /// The connection of a label; made when first mentioned.
    fn connection(&mut self, label: &str) -> &mut Connection<H::Socket> {
        let known = self.connections.iter().position(|(name, _)| name == label);
        let index = known.unwrap_or_else(|| {
            let fresh = self.new_connection(label);
            self.connections.push((label.into(), fresh));
            self.connections.len() - 1
        });
        &mut self.connections[index].1
    }

    fn new_connection(&self, label: &str) -> Connection<H::Socket> {
        let peers = &self.script.peers;
        let wish = peers.iter().find(|(name, _)| name == label);
        let wish = wish.map(|(_, peer)| peer.clone()).unwrap_or_default();
        let number = u16::try_from(self.connections.len()).unwrap_or(u16::MAX);
        let addresses = self.script.addresses();
        let port = wish.port.unwrap_or(PEER_PORT.saturating_add(number));
        let local_port = wish.local_port.unwrap_or(LOCAL_PORT);
        Connection {
            peer: SocketAddr::new(wish.address.unwrap_or(addresses.source), port),
            local: SocketAddr::new(addresses.destination, local_port),
            socket: None,
            peer_isn: wish.isn.unwrap_or(self.script.isn),
            host_isn: None,
            host_timestamps: None,
            written: 0,
            read: 0,
        }
    }

    /// A frame of the host in the notation of scripts.
    fn show(&mut self, frame: &[u8]) -> String {
        let Ok(Some((ip, tcp))) = packet::tcp(frame) else {
            return format!("{frame:02x?}");
        };
        let peer = SocketAddr::new(ip.destination, tcp.destination_port);
        let known = self.connections.iter().find(|(_, it)| it.peer == peer);
        match known {
            Some((label, connection)) => {
                let shown = text::show(&ip, &tcp, &connection.bases_of_host());
                format!("[{label}] {shown}")
            }
            None => format!("to {peer}: {}", text::show(&ip, &tcp, &Bases::default())),
        }
    }

    fn note(&mut self, what: &str) {
        if self.transcript.len() == TRANSCRIPT_MAX {
            self.transcript.pop_front();
        }
        let at = (self.now - START).as_secs_f64();
        self.transcript.push_back(format!("{at:.6} {what}"));
    }

    /// Waits for the host's next segment, and compares it. Says when it was sent.
    fn expect(
        &mut self,
        label: &str,
        wanted: &SegmentText,
        from: Instant,
        to: Instant,
    ) -> Result<Instant, String> {
        let tolerance = self.script.tolerance;
        self.flush()?;
        while self.queue.is_empty() && self.now < to + tolerance {
            self.step(to + tolerance)?;
        }
        let Some(emitted) = self.queue.pop_front() else {
            return Err("the host sent nothing".into());
        };
        let Emitted { at, frame } = &emitted;
        let shown = self.show(frame);
        let fail = |why: String| Err(format!("{why}\n  > {shown}"));
        if *at + tolerance < from {
            let early = (from - *at).as_secs_f64();
            return fail(format!("it was sent {early:.6} s too early"));
        }
        if *at > to + tolerance {
            let late = (*at - to).as_secs_f64();
            return fail(format!("it was sent {late:.6} s too late"));
        }
        let Some((ip, tcp)) = packet::tcp(frame)? else {
            return fail("it is no segment".into());
        };
        let connection = self.connection(label);
        let destination = SocketAddr::new(ip.destination, tcp.destination_port);
        if destination != connection.peer {
            let peer = connection.peer;
            return fail(format!("it is for {destination}, not for [{label}] {peer}"));
        }
        let names_port = |it: &Attribute| matches!(it, Attribute::SourcePort(_));
        if tcp.source_port != connection.local.port() && !wanted.attributes.iter().any(names_port) {
            let (sent, local) = (tcp.source_port, connection.local);
            return fail(format!("it comes from port {sent}, not from {local}"));
        }
        match wanted.difference(&ip, &tcp, &connection.bases_of_host()) {
            Some(difference) => fail(difference),
            None => Ok(*at),
        }
    }

    fn inject(&mut self, label: &str, wanted: &SegmentText) -> Result<(), String> {
        let mut addresses = self.script.addresses();
        let connection = self.connection(label);
        addresses.source = connection.peer.ip();
        addresses.destination = connection.local.ip();
        let segment = made_segment(connection, wanted, &mut addresses)?;
        let shown = {
            let sane = Segment {
                oddities: super::frame::Oddities::default(),
                ..segment.clone()
            };
            let frame = sane.frame(&addresses).ok_or("it cannot be written down")?;
            let (ip, tcp) = packet::tcp(&frame)?.ok_or("it is no segment")?;
            text::show(&ip, &tcp, &connection.bases_of_peer())
        };
        let frame = segment
            .frame(&addresses)
            .ok_or("it cannot be written down")?;
        self.note(&format!("< [{label}] {shown}"));
        self.arrive(&frame);
        Ok(())
    }

    fn inject_icmp(&mut self, label: &str, wanted: &IcmpText) -> Result<(), String> {
        let base = self.script.addresses();
        let connection = self.connection(label);
        let (local, peer) = (connection.local, connection.peer);
        let seq = absolute(wanted.seq, connection.host_isn.unwrap_or(0)).ok_or("seq of what?")?;
        let ack = connection.peer_isn;
        // What the host sent, or, for an error nobody has a reason for, what it might have sent.
        let was_sent = self.sent.iter().rev().find(|frame| {
            packet::tcp(frame).is_ok_and(|it| {
                it.is_some_and(|(ip, tcp)| {
                    ip.destination == peer.ip()
                        && tcp.destination_port == peer.port()
                        && tcp.seq == seq
                })
            })
        });
        let quoted = match was_sent {
            Some(frame) => frame.clone(),
            None => {
                let addresses = Addresses {
                    source: local.ip(),
                    destination: peer.ip(),
                    ..base.reversed()
                };
                let segment = Segment {
                    source_port: local.port(),
                    destination_port: peer.port(),
                    seq,
                    ack,
                    flags: flag::ACK,
                    ..Segment::default()
                };
                segment
                    .frame(&addresses)
                    .ok_or("it cannot be written down")?
            }
        };
        let header_len = quoted.len()
            - ethernet::HEADER_LEN
            - packet::ip(&quoted)?.map_or(0, |ip| ip.payload.len());
        let packet = &quoted[ethernet::HEADER_LEN..];
        let packet = &packet[..packet.len().min(header_len + wanted.quote)];
        let frame = crate::sim::router::icmp_error(packet, local.ip(), wanted.kind, wanted.rest);
        let mut frame = frame.ok_or("it cannot be written down")?;
        frame[..6].copy_from_slice(&base.destination_mac);
        let IcmpText { kind, rest, .. } = wanted;
        self.note(&format!("< [{label}] icmp {kind:?} {rest}"));
        self.arrive(&frame);
        Ok(())
    }

    fn arrive(&mut self, frame: &[u8]) {
        let comment = String::new();
        self.capture
            .record(self.now, 0, Direction::Inward, frame, comment);
        self.host.inject(frame);
        self.is_due = true;
    }
}

/// The segment that a line wants sent; its attributes may change the addresses.
fn made_segment<S>(
    connection: &Connection<S>,
    wanted: &SegmentText,
    addresses: &mut Addresses,
) -> Result<Segment, String> {
    let bases = connection.bases_of_peer();
    let number = |what: &str, pattern: Option<Pattern>| -> Result<u16, String> {
        let Some(pattern) = pattern else {
            return Ok(0);
        };
        let number = pattern.number().and_then(|it| u16::try_from(it).ok());
        number.ok_or_else(|| format!("{what} {pattern} cannot be sent"))
    };
    let flags = wanted.flags.unwrap_or(0);
    let seq = absolute(wanted.first, bases.seq).ok_or("seq * cannot be sent")?;
    let len = wanted
        .len
        .number()
        .and_then(|len| usize::try_from(len).ok());
    let len = len.ok_or_else(|| format!("length {} cannot be sent", wanted.len))?;
    let ack = match wanted.ack {
        // A field that does not count is zero.
        None => Some(0),
        Some(ack) => absolute(ack, bases.ack),
    };
    let mut fill = None;
    let mut segment = Segment {
        source_port: connection.peer.port(),
        destination_port: connection.local.port(),
        seq,
        ack: ack.ok_or("ack * cannot be sent")?,
        flags,
        // Large enough to be out of the way.
        window: match wanted.window {
            None => 65_535,
            window => number("win", window)?,
        },
        urgent: number("urg", wanted.urgent)?,
        options: text::option_bytes(
            wanted.options.as_deref().unwrap_or(&[]),
            &bases,
            connection.host_timestamps.map_or(0, |(_, latest)| latest),
        )?,
        ..Segment::default()
    };
    for attribute in &wanted.attributes {
        match attribute {
            Attribute::Source(address) => addresses.source = *address,
            Attribute::Destination(address) => addresses.destination = *address,
            Attribute::SourcePort(port) => segment.source_port = *port,
            Attribute::DestinationPort(port) => segment.destination_port = *port,
            Attribute::Tos(tos) => segment.tos = *tos,
            Attribute::Ttl(ttl) => segment.ttl = Some(*ttl),
            Attribute::Ecn(ecn) => segment.tos = segment.tos & !3 | ecn & 3,
            Attribute::BadChecksum => segment.oddities.bad_checksum = true,
            Attribute::Reserved(bits) => segment.oddities.reserved = *bits,
            Attribute::DataOffset(words) => segment.oddities.data_offset = Some(*words),
            Attribute::IpOptions(options) => segment.oddities.ip_options.clone_from(options),
            Attribute::Fill(byte) => fill = Some(*byte),
            Attribute::Cut(bytes) => segment.oddities.cut = Some(*bytes),
            Attribute::Group => addresses.destination_mac = ethernet::BROADCAST,
        }
    }
    // The byte behind a SYN is the stream's first.
    let first = relative(seq, bases.seq) + i64::from(flags & flag::SYN != 0);
    let content = (first..).take(len);
    segment.payload = content
        .map(|seq| fill.unwrap_or_else(|| peer_byte(seq)))
        .collect();
    Ok(segment)
}

#[cfg(test)]
#[path = "run/tests.rs"]
mod tests;
