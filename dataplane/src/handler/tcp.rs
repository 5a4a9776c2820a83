//! Applications of connections.
//!
//! ```text
//!   listener ── accept ──► record of the connection ◄── news: data, room, an end ── stack
//!   dial ────── connect ──►      │
//!                                ▼
//!                     echo │ discard │ source ──► stack ──► segments
//!                                │
//!                                └─ no memory to write into: starved, tried again a little later
//! ```
//!
//! A connection costs one record here, in the slot it has in the stack; all of them are reserved at
//! start. Nobody looks at a connection without news.

use super::dial::{DialSpec, Dials, PER_TURN};
use crate::worker::command::ServiceBind;
use stack::Stack;
use stack::counters::Event;
use stack::frame::FramePool;
use stack::socket::bind::{Bind, BindError};
use stack::tcp::listener::ListenOptions;
use stack::tcp::manage::State;
use stack::tcp::{TcpId, TcpListenerId};
use stack::time::{Duration, Instant};
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What a service does with connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Application {
    /// Sends everything back, and closes when the peer has (RFC 862).
    Echo,
    /// Throws everything away, and closes when the peer has (RFC 863).
    Discard,
    /// Sends characters for as long as the peer has not closed, and throws away what comes (RFC 864).
    Source,
}

/// A listener of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerSpec {
    /// Where it listens.
    pub bind: Bind,
    /// What serves its connections.
    pub application: Application,
    /// What its connections are like.
    pub options: ListenOptions,
}

impl ListenerSpec {
    /// That of a TCP listener which this worker serves. Segments for those of other workers go around.
    #[must_use]
    pub fn of(bind: &ServiceBind) -> Option<Self> {
        match bind.application {
            super::Application::Tcp(application, options) if bind.here => Some(Self {
                bind: bind.bind,
                application,
                options,
            }),
            _ => None,
        }
    }

    /// Whether the connections of one may go on under the other.
    fn serves_alike(&self, other: &Self) -> bool {
        self.bind == other.bind && self.application == other.application
    }
}

#[derive(Debug)]
struct Listener {
    id: TcpListenerId,
    spec: ListenerSpec,
    /// Its name in the records of its connections.
    number: u32,
}

/// A connection of ours.
#[derive(Clone, Copy, Debug)]
struct Record {
    id: TcpId,
    origin: Origin,
    /// The byte of [`PATTERN`] that a source sends next.
    at: u16,
    application: Application,
    phase: Phase,
    /// It is in the queue of those that found no memory.
    starved: bool,
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// The listener with this number.
    Listener(u32),
    /// The dial with this index.
    Dial(u32),
}

/// How far a connection is with its beginning and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// We open it, and its handshake is not complete.
    Opening,
    /// Both directions are open, as far as we are concerned.
    Open,
    /// Our direction is to be closed behind what waits to be answered.
    Closing,
    /// Our direction is closed: what still comes is thrown away.
    Shut,
}

/// What came of serving a connection once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Served {
    /// It has news for us another time.
    Open { wrote: bool },
    /// There was no memory for what is to be written, and nothing says when there is.
    Starved { wrote: bool },
    /// We have let go of it.
    Gone { wrote: bool },
}

/// The TCP services of one worker: listeners, whom to connect to, and the connections that came from both.
#[derive(Debug)]
pub struct Services {
    listeners: Vec<Listener>,
    dials: Dials,
    /// No more connections are opened.
    is_closing: bool,
    /// By kind and slot, as [`TcpId::place`] has them. Room for all is reserved, and touched as far as it was used.
    tables: [Vec<Option<Record>>; 4],
    open: usize,
    /// Connections that could not write because the memory of all was used up.
    starved: VecDeque<TcpId>,
    /// When they try again.
    retry_at: Instant,
    next_number: u32,
}

/// How long a connection that found no memory waits: an acknowledgement of another one frees some,
/// and they come at about this pace on a LAN. Shorter would spin, longer would idle with memory free.
const RETRY: Duration = Duration::from_millis(1);

impl Services {
    /// Without listeners, for as many connections of each IP version as the stack has room for.
    #[must_use]
    pub fn new(connections: u32, connections_new_reno: u32) -> Self {
        let (cubic, new_reno) = (connections as usize, connections_new_reno as usize);
        Self {
            listeners: Vec::new(),
            dials: Dials::new(),
            is_closing: false,
            tables: [cubic, new_reno, cubic, new_reno].map(Vec::with_capacity),
            open: 0,
            starved: VecDeque::with_capacity(2 * (cubic + new_reno)),
            retry_at: Instant::ZERO,
            next_number: 0,
        }
    }

    /// Listens.
    ///
    /// # Errors
    /// [`BindError`], as [`Stack::tcp_listen`].
    pub fn listen<P: FramePool>(
        &mut self,
        stack: &mut Stack<P>,
        spec: ListenerSpec,
    ) -> Result<(), BindError> {
        let id = stack.tcp_listen(spec.bind, spec.options)?;
        let number = self.next_number;
        self.next_number += 1;
        self.listeners.push(Listener { id, spec, number });
        Ok(())
    }

    /// Listens as `specs` say and no longer otherwise. Connections of listeners that are no more are
    /// reset: their segments go to the kernel from here on, which would do the same.
    ///
    /// # Errors
    /// Those that cannot be had, with the reason; the others are there.
    pub fn relisten<P: FramePool>(
        &mut self,
        stack: &mut Stack<P>,
        specs: &[ListenerSpec],
        now: Instant,
    ) -> Vec<(ListenerSpec, BindError)> {
        // What waits is not to be lost with a listener that only changes its options.
        self.accept(stack, now);
        let mut gone = Vec::new();
        let mut kept = Vec::new();
        for listener in std::mem::take(&mut self.listeners) {
            if specs.contains(&listener.spec) {
                self.listeners.push(listener);
                continue;
            }
            stack.tcp_unlisten(listener.id, now);
            if specs.iter().any(|spec| spec.serves_alike(&listener.spec)) {
                kept.push((listener.spec, listener.number));
            } else {
                gone.push(listener.number);
            }
        }
        self.abort(stack, now, |record| match record.origin {
            Origin::Listener(number) => gone.contains(&number),
            Origin::Dial(_) => false,
        });
        let mut errors = Vec::new();
        for spec in specs {
            if self.listeners.iter().any(|listener| listener.spec == *spec) {
                continue;
            }
            if let Err(error) = self.listen(stack, *spec) {
                errors.push((*spec, error));
                continue;
            }
            // Its connections go on under its old name.
            let old = kept.iter().find(|(old, _)| old.serves_alike(spec));
            if let (Some((_, number)), Some(listener)) = (old, self.listeners.last_mut()) {
                listener.number = *number;
            }
        }
        errors
    }

    /// Opens connections as `specs` say and no others. What was opened and is to be no more is reset; what
    /// stays goes on.
    pub fn redial<P: FramePool>(&mut self, stack: &mut Stack<P>, specs: &[DialSpec], now: Instant) {
        if self.is_closing {
            return;
        }
        let ended = self.dials.set(specs, now);
        for id in ended {
            let (table, slot) = place(id);
            if self.record(id).is_some() {
                self.tables[table][slot] = None;
                self.open -= 1;
            }
            stack.tcp_abort(id, now);
        }
    }

    /// Takes and opens no more connections, and closes our direction of those there are.
    pub fn close<P: FramePool>(&mut self, stack: &mut Stack<P>, now: Instant) {
        self.stop_dialling();
        self.accept(stack, now);
        // There is nobody to say anything to.
        self.abort(stack, now, |record| record.phase == Phase::Opening);
        for listener in self.listeners.drain(..) {
            stack.tcp_unlisten(listener.id, now);
        }
        for table in 0..self.tables.len() {
            for slot in 0..self.tables[table].len() {
                if let Some(record) = &mut self.tables[table][slot] {
                    if record.phase == Phase::Open {
                        record.phase = Phase::Closing;
                    }
                    let id = record.id;
                    self.serve_one(stack, id, now);
                }
            }
        }
    }

    fn stop_dialling(&mut self) {
        self.is_closing = true;
        self.dials.clear();
    }

    /// Takes and opens no more connections, and resets those there are.
    pub fn end<P: FramePool>(&mut self, stack: &mut Stack<P>, now: Instant) {
        self.stop_dialling();
        for listener in self.listeners.drain(..) {
            stack.tcp_unlisten(listener.id, now);
        }
        self.abort(stack, now, |_| true);
    }

    fn abort<P: FramePool>(
        &mut self,
        stack: &mut Stack<P>,
        now: Instant,
        which: impl Fn(&Record) -> bool,
    ) {
        for entry in self.tables.iter_mut().flatten() {
            if let Some(record) = entry.take_if(|record| which(record)) {
                stack.tcp_abort(record.id, now);
                self.open -= 1;
            }
        }
    }

    /// Connections that we have not let go of.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open
    }

    /// When [`serve`](Self::serve) has something to do though no segment comes, if ever.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let retry = (!self.starved.is_empty()).then_some(self.retry_at);
        retry.into_iter().chain(self.dials.next_deadline()).min()
    }

    /// Accepts connections and serves those with news. Returns how many of them wrote something.
    #[inline]
    pub fn serve<P: FramePool>(&mut self, stack: &mut Stack<P>, now: Instant) -> u64 {
        let mut answers = self.accept(stack, now);
        while let Some(id) = stack.tcp_next_ready() {
            answers += u64::from(self.serve_one(stack, id, now));
        }
        if !self.starved.is_empty() && now >= self.retry_at {
            answers += self.retry(stack, now);
        }
        if self.dials.next_deadline().is_some_and(|at| at <= now) {
            self.dial(stack, now);
        }
        answers
    }

    /// Opens connections that are due.
    #[cold]
    fn dial<P: FramePool>(&mut self, stack: &mut Stack<P>, now: Instant) {
        for _ in 0..PER_TURN {
            let Some((index, spec)) = self.dials.next_due(now) else {
                break;
            };
            let DialSpec {
                remote,
                application,
                congestion,
                nodelay,
                connections: _,
            } = spec;
            let any: IpAddr = match remote {
                SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            let local = SocketAddr::new(any, 0);
            match stack.tcp_connect(local, remote, congestion, nodelay, now) {
                Ok(id) => {
                    self.dials.open(index, id);
                    let record = Record {
                        id,
                        origin: Origin::Dial(index),
                        at: 0,
                        application,
                        phase: Phase::Opening,
                        starved: false,
                    };
                    self.enter(record, now);
                }
                // No address or route yet, no port or memory left: all of that may change.
                Err(_) => {
                    stack.events_mut().count(Event::TcpConnectFailed);
                    self.dials.ended(index, now);
                }
            }
        }
    }

    /// News of a connection that we open. Says whether it is there.
    #[cold]
    fn serve_opening<P: FramePool>(
        &mut self,
        stack: &mut Stack<P>,
        id: TcpId,
        now: Instant,
    ) -> bool {
        match stack.tcp_state(id) {
            Some(State::SynSent(_) | State::SynReceived(_)) => false,
            None | Some(State::Closed(_)) => {
                stack.tcp_close(id, now);
                stack.events_mut().count(Event::TcpConnectFailed);
                self.forget(id, now);
                false
            }
            Some(_) => {
                if let Some(record) = self.record(id) {
                    record.phase = Phase::Open;
                    if let Origin::Dial(index) = record.origin {
                        self.dials.up(index, now);
                    }
                }
                true
            }
        }
    }

    #[inline]
    fn accept<P: FramePool>(&mut self, stack: &mut Stack<P>, now: Instant) -> u64 {
        let mut answers = 0;
        for index in 0..self.listeners.len() {
            let Listener { id, spec, number } = self.listeners[index];
            while let Some(connection) = stack.tcp_accept(id) {
                let record = Record {
                    id: connection,
                    origin: Origin::Listener(number),
                    at: 0,
                    application: spec.application,
                    phase: Phase::Open,
                    starved: false,
                };
                self.enter(record, now);
                // What came with the handshake is no news any more.
                answers += u64::from(self.serve_one(stack, connection, now));
            }
        }
        answers
    }

    /// Whatever was in the slot before is gone: the stack gave it to somebody else.
    fn enter(&mut self, record: Record, now: Instant) {
        let (table, slot) = place(record.id);
        let table = &mut self.tables[table];
        if table.len() <= slot {
            table.resize(slot + 1, None);
        }
        match table[slot].replace(record) {
            None => self.open += 1,
            Some(Record {
                origin: Origin::Dial(index),
                ..
            }) => self.dials.ended(index, now),
            Some(_) => {}
        }
    }

    /// We have let go of it.
    fn forget(&mut self, id: TcpId, now: Instant) {
        let (table, slot) = place(id);
        if let Some(record) = self.tables[table].get_mut(slot).and_then(Option::take) {
            self.open -= 1;
            if let Origin::Dial(index) = record.origin {
                self.dials.ended(index, now);
            }
        }
    }

    #[inline]
    fn record(&mut self, id: TcpId) -> Option<&mut Record> {
        let (table, slot) = place(id);
        let record = self.tables[table].get_mut(slot)?.as_mut();
        record.filter(|record| record.id == id)
    }

    /// Serves one connection. Says whether something was written.
    #[inline]
    fn serve_one<P: FramePool>(&mut self, stack: &mut Stack<P>, id: TcpId, now: Instant) -> bool {
        // One that waits to be accepted has no record yet, and is served when it is.
        let Some(record) = self.record(id) else {
            return false;
        };
        if record.phase == Phase::Opening {
            return self.serve_opening(stack, id, now) && self.serve_one(stack, id, now);
        }
        match record.serve(stack, now) {
            Served::Open { wrote } => wrote,
            Served::Starved { wrote } => {
                if !record.starved {
                    record.starved = true;
                    if self.starved.is_empty() {
                        self.retry_at = now + RETRY;
                    }
                    self.starved.push_back(id);
                }
                wrote
            }
            Served::Gone { wrote } => {
                self.forget(id, now);
                wrote
            }
        }
    }

    /// The oldest first, each once.
    #[cold]
    fn retry<P: FramePool>(&mut self, stack: &mut Stack<P>, now: Instant) -> u64 {
        self.retry_at = now + RETRY;
        let mut answers = 0;
        for _ in 0..self.starved.len() {
            let Some(id) = self.starved.pop_front() else {
                break;
            };
            if let Some(record) = self.record(id) {
                record.starved = false;
                answers += u64::from(self.serve_one(stack, id, now));
            }
        }
        answers
    }
}

/// Which table a connection's record is in, and where.
#[inline]
fn place(id: TcpId) -> (usize, usize) {
    let (kind, slot) = id.place();
    (kind, slot as usize)
}

impl Record {
    #[inline]
    fn serve<P: FramePool>(&mut self, stack: &mut Stack<P>, now: Instant) -> Served {
        let id = self.id;
        let application = match self.phase {
            Phase::Opening | Phase::Open | Phase::Closing => self.application,
            Phase::Shut => Application::Discard,
        };
        let wrote = match application {
            Application::Echo => stack.tcp_echo(id, now).is_ok_and(|bytes| bytes > 0),
            Application::Discard => {
                discard(stack, id, now);
                false
            }
            Application::Source => {
                discard(stack, id, now);
                self.phase == Phase::Open && self.fill(stack, now)
            }
        };
        match stack.tcp_state(id) {
            // Most of the time.
            Some(State::Established(_)) if self.phase == Phase::Open => {}
            None => return Served::Gone { wrote },
            // Reset, or timed out: what was not read is of no use.
            Some(State::Closed(_)) => {
                stack.tcp_close(id, now);
                return Served::Gone { wrote };
            }
            Some(_) if stack.tcp_is_at_end(id) => {
                stack.tcp_close(id, now);
                return Served::Gone { wrote };
            }
            Some(_) => self.shut(stack, now),
        }
        let waits = match self.application {
            _ if self.phase == Phase::Shut => false,
            Application::Echo => stack.tcp_readable(id) > 0,
            Application::Discard => false,
            Application::Source => self.phase == Phase::Open,
        };
        // There is news when a connection that is full has room again; not when all of them together are.
        if waits && stack.tcp_writable(id) > 0 {
            return Served::Starved { wrote };
        }
        Served::Open { wrote }
    }

    /// Closes our direction if it is to be closed and nothing waits to be answered.
    #[cold]
    fn shut<P: FramePool>(&mut self, stack: &mut Stack<P>, now: Instant) {
        if self.phase == Phase::Closing && stack.tcp_readable(self.id) == 0 {
            // Whether it was open does not matter: it is closed now.
            let _ = stack.tcp_shutdown(self.id, now);
            self.phase = Phase::Shut;
        }
    }

    /// Writes for as long as there is room. Says whether there was any.
    fn fill<P: FramePool>(&mut self, stack: &mut Stack<P>, now: Instant) -> bool {
        let mut wrote = false;
        loop {
            let rest = &PATTERN[usize::from(self.at)..];
            match stack.tcp_send(self.id, now, rest) {
                Ok(sent) => {
                    wrote |= sent > 0;
                    let is_short = sent < rest.len();
                    self.at = u16::try_from((usize::from(self.at) + sent) % PATTERN.len())
                        .unwrap_or_default();
                    if is_short {
                        return wrote;
                    }
                }
                // Full, or at its end, which its state tells.
                Err(_) => return wrote,
            }
        }
    }
}

#[inline]
fn discard<P: FramePool>(stack: &mut Stack<P>, id: TcpId, now: Instant) {
    // A connection that is no more is noticed by its state.
    let _ = stack.tcp_receive_with(id, now, <[u8]>::len);
}

/// Printable ASCII characters, from the space on.
const PRINTABLE: usize = 95;
/// Characters of a line, the line's end not counted (RFC 864).
const LINE: usize = 72;

/// What a source sends, again and again: lines of 72 characters, each beginning one character further
/// in the ASCII table (RFC 864, "one popular pattern"), 95 of them until the first comes again.
pub const PATTERN: [u8; PRINTABLE * (LINE + 2)] = pattern();

const fn pattern() -> [u8; PRINTABLE * (LINE + 2)] {
    let mut bytes = [0; PRINTABLE * (LINE + 2)];
    let mut line = 0;
    while line < PRINTABLE {
        let start = line * (LINE + 2);
        let mut column = 0;
        while column < LINE {
            #[expect(clippy::cast_possible_truncation, reason = "less than 95")]
            let character = ((line + column) % PRINTABLE) as u8;
            bytes[start + column] = b' ' + character;
            column += 1;
        }
        bytes[start + LINE] = b'\r';
        bytes[start + LINE + 1] = b'\n';
        line += 1;
    }
    bytes
}

const _: () = assert!(PATTERN.len() <= u16::MAX as usize, "Record::at is a u16");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_is_that_of_rfc_864() {
        let text = str::from_utf8(&PATTERN).expect("ASCII");
        let lines: Vec<&str> = text.split_terminator("\r\n").collect();
        assert_eq!(lines.len(), 95);
        assert_eq!(
            lines[1],
            "!\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefgh"
        );
        // The examples of RFC 864, page 2: the table begins again behind its end.
        assert!(lines[24].starts_with("89:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`"));
        assert!(lines.iter().all(|line| line.len() == 72));
    }
}
