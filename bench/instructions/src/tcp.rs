//! How many instructions the server's side of TCP takes, in memory and without a driver.
//!
//! ```text
//!   echo-instructions tcp WORK SUBJECT VERSION CONNECTIONS COUNT
//!
//!   Peer: a script ──► [received] ── SUBJECT: stack and application ──► [sent] ──► give back
//!   └─ the harness ─────────────┘                                    └─ the harness ──────┘
//! ```
//!
//! | work | what is counted |
//! |---|---|
//! | `request` | 64 bytes come, and go back |
//! | `connect` | a connection is opened, 64 bytes come and go back, and it is closed, by the peer first |
//! | `receive` | a full segment comes in order, and is read |
//! | `send` | a full segment is written and sent, and acknowledged |
//!
//! A run writes how many it did to its output: `counted N`.

mod memory;
mod peer;
mod race;
mod smoltcp_server;
mod stack_server;

use crate::frame::{BenchFrame, BenchPool};
use crate::packet::{Peer as Host, Version};
use crate::{BATCH, FRAME_BYTES, TURN, give_back};
use peer::{Kind, Peer};
use smoltcp_server::SmoltcpServer;
use stack::frame::{Frame as _, FramePool as _};
use stack::time::Instant;
use stack::wire::checksum::Sum;
use stack_server::StackServer;

/// Bytes of a request and of its answer.
const REQUEST_BYTES: usize = 64;
/// Full segments that come in one turn: the receive window holds some more.
const SEGMENTS: usize = 32;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    Request,
    Connect,
    Receive,
    Send,
}

impl Work {
    fn payload_len(self, version: Version) -> usize {
        match self {
            Self::Request | Self::Connect => REQUEST_BYTES,
            Self::Receive | Self::Send => full_segment(version),
        }
    }
}

/// Payload of a segment with timestamps that fills a packet of 1500 bytes.
fn full_segment(version: Version) -> usize {
    1500 - version.header_len() - 20 - 12
}

/// A stack and the application on it.
trait Server {
    /// Whether it is one: connections can be opened.
    const IS_SERVER: bool = true;

    /// Takes what is in `received`, and moves what it has to send to `sent`. The segments are of the
    /// connections in `indexes`.
    fn turn(
        &mut self,
        pool: &mut BenchPool,
        received: &mut Vec<BenchFrame>,
        sent: &mut Vec<BenchFrame>,
        now: Instant,
        indexes: &[u32],
    );

    /// A connection is going to be opened, outside of what is measured.
    fn before_opening(&mut self, _index: u32) {}

    /// It is open.
    fn after_opening(&mut self, _index: u32) {}
}

/// Moves frames, and does nothing else: what the harness costs.
struct Harness;

impl Server for Harness {
    const IS_SERVER: bool = false;

    #[inline(never)]
    fn turn(
        &mut self,
        _pool: &mut BenchPool,
        received: &mut Vec<BenchFrame>,
        sent: &mut Vec<BenchFrame>,
        _now: Instant,
        _indexes: &[u32],
    ) {
        for frame in received.drain(..) {
            sent.push(frame);
        }
    }
}

/// Copies and sums each segment once: what cannot be saved.
struct CopyAndChecksum {
    transport_at: usize,
    to: Vec<u8>,
}

impl Server for CopyAndChecksum {
    const IS_SERVER: bool = false;

    #[inline(never)]
    fn turn(
        &mut self,
        _pool: &mut BenchPool,
        received: &mut Vec<BenchFrame>,
        sent: &mut Vec<BenchFrame>,
        _now: Instant,
        _indexes: &[u32],
    ) {
        for frame in received.drain(..) {
            let segment = &frame.data()[self.transport_at..];
            std::hint::black_box(Sum::ZERO.add_bytes(segment).is_valid());
            let payload = &segment[32..];
            self.to[..payload.len()].copy_from_slice(payload);
            std::hint::black_box(&mut self.to);
            sent.push(frame);
        }
    }
}

/// Sends frames that it does not write: the harness of `send`.
struct Blank {
    len: usize,
}

impl Server for Blank {
    const IS_SERVER: bool = false;

    #[inline(never)]
    fn turn(
        &mut self,
        pool: &mut BenchPool,
        received: &mut Vec<BenchFrame>,
        sent: &mut Vec<BenchFrame>,
        _now: Instant,
        _indexes: &[u32],
    ) {
        for frame in received.drain(..) {
            pool.give(frame);
        }
        for _ in 0..SEGMENTS {
            let mut frame = pool.take().expect("the pool has a frame for every segment");
            frame.set_len(self.len);
            sent.push(frame);
        }
    }
}

/// The harness of all kinds of work.
struct Bench<S> {
    server: S,
    peer: Peer,
    pool: BenchPool,
    received: Vec<BenchFrame>,
    sent: Vec<BenchFrame>,
    now: Instant,
}

impl<S: Server> Bench<S> {
    fn new(server: S, peer: Peer) -> Self {
        Self {
            server,
            peer,
            pool: BenchPool::new(8 * BATCH, FRAME_BYTES),
            received: Vec::with_capacity(4 * BATCH),
            sent: Vec::with_capacity(4 * BATCH),
            now: Instant::from_nanos(1_000_000_000),
        }
    }

    fn turn(&mut self, indexes: &[u32]) {
        self.now = self.now + TURN;
        let Self {
            server,
            peer: _,
            pool,
            received,
            sent,
            now,
        } = self;
        server.turn(pool, received, sent, *now, indexes);
    }

    #[inline(never)]
    fn push(&mut self, kind: Kind, indexes: &[u32]) {
        for &index in indexes {
            let frame = self.peer.segment(kind, index, self.now, &mut self.pool);
            self.received.push(frame);
        }
    }

    #[inline(never)]
    fn push_syns(&mut self, indexes: &[u32]) {
        for &index in indexes {
            let frame = self.peer.syn(index, self.now, &mut self.pool);
            self.received.push(frame);
        }
    }

    #[inline(never)]
    fn take_syn_acks(&mut self, indexes: &[u32]) {
        if S::IS_SERVER {
            assert_eq!(self.sent.len(), indexes.len(), "every SYN has its SYN,ACK");
        }
        for frame in &self.sent {
            let index = if S::IS_SERVER {
                self.peer.index_of(frame)
            } else {
                0
            };
            self.peer.take_syn_ack(index, self.now, frame);
        }
        give_back(&mut self.pool, &mut self.sent);
    }

    /// Opens a connection, outside of what is measured.
    fn open(&mut self, index: u32) {
        if !S::IS_SERVER {
            return;
        }
        self.server.before_opening(index);
        self.push_syns(&[index]);
        self.turn(&[index]);
        self.take_syn_acks(&[index]);
        self.push(Kind::Ack, &[index]);
        self.turn(&[index]);
        self.server.after_opening(index);
        give_back(&mut self.pool, &mut self.sent);
    }

    /// Takes the answers: `expected` of them, each with so many numbers.
    #[inline(never)]
    fn take_answers(&mut self, indexes: &[u32], numbers: u32, check: bool) {
        if S::IS_SERVER {
            assert_eq!(
                self.sent.len(),
                indexes.len(),
                "every request has its answer"
            );
        }
        for &index in indexes {
            self.peer.expect(index, numbers, self.now);
        }
        if check && S::IS_SERVER {
            for frame in &self.sent {
                let index = self.peer.index_of(frame);
                self.peer.check(index, frame, numbers as usize);
            }
        }
        give_back(&mut self.pool, &mut self.sent);
    }

    /// Requests and answers on open connections, all in turn.
    fn request(&mut self, connections: u32, count: usize) -> usize {
        for index in 0..connections {
            self.open(index);
        }
        let all: Vec<u32> = (0..connections).collect();
        let mut done = 0;
        while done < count {
            for indexes in all.chunks(BATCH) {
                self.push(Kind::Data, indexes);
                self.turn(indexes);
                let check = done < connections as usize;
                self.take_answers(indexes, 64, check);
                done += indexes.len();
                if done >= count {
                    break;
                }
            }
        }
        done
    }

    /// Connections that are opened, asked once, and closed, so many at the same time.
    fn connect(&mut self, at_once: u32, count: usize) -> usize {
        let all: Vec<u32> = (0..at_once).collect();
        let mut done = 0;
        while done < count {
            for indexes in all.chunks(BATCH) {
                self.push_syns(indexes);
                self.turn(indexes);
                self.take_syn_acks(indexes);
                self.push(Kind::Ack, indexes);
                self.turn(indexes);
                give_back(&mut self.pool, &mut self.sent);
                self.push(Kind::Data, indexes);
                self.turn(indexes);
                self.take_answers(indexes, 64, done == 0);
                self.push(Kind::Fin, indexes);
                self.turn(indexes);
                self.take_fins(indexes);
                self.push(Kind::Ack, indexes);
                self.turn(indexes);
                self.take_answers(if S::IS_SERVER { &[] } else { indexes }, 0, false);
                done += indexes.len();
            }
        }
        done
    }

    /// A FIN for each, with the ACK of the peer's or behind it.
    #[inline(never)]
    fn take_fins(&mut self, indexes: &[u32]) {
        if S::IS_SERVER {
            let is_fin = |frame: &&BenchFrame| self.peer.is_fin(frame);
            let fins = self.sent.iter().filter(is_fin).count();
            assert_eq!(fins, indexes.len(), "every FIN is answered by one");
        }
        for &index in indexes {
            self.peer.expect(index, 1, self.now);
        }
        give_back(&mut self.pool, &mut self.sent);
    }

    /// Full segments in order.
    fn receive(&mut self, count: usize) -> usize {
        self.open(0);
        let indexes = [0; SEGMENTS];
        let mut done = 0;
        while done < count {
            self.push(Kind::Data, &indexes);
            self.turn(&indexes[..1]);
            if S::IS_SERVER {
                let last = self.sent.last().expect("what comes is acknowledged");
                if done < 10 * SEGMENTS {
                    self.peer.check(0, last, 0);
                }
            }
            self.peer.expect(0, 0, self.now);
            give_back(&mut self.pool, &mut self.sent);
            done += SEGMENTS;
        }
        done
    }

    /// Full segments that are acknowledged, every second of them by an ACK of its own.
    fn send(&mut self, segment_bytes: usize, headers_bytes: usize, count: usize) -> usize {
        self.open(0);
        // What was sent before the peer was asked.
        let mut done = 0;
        self.turn(&[0]);
        while done < count {
            done += self.acknowledge(segment_bytes, headers_bytes);
            self.turn(&[0]);
        }
        done
    }

    /// Acknowledges what is in `sent`; returns how many full segments that were.
    #[inline(never)]
    fn acknowledge(&mut self, segment_bytes: usize, headers_bytes: usize) -> usize {
        let mut full = 0;
        let mut pending = 0;
        let Self {
            server: _,
            peer,
            pool,
            received,
            sent,
            now,
        } = self;
        for frame in sent.drain(..) {
            let bytes = frame.data().len() - headers_bytes;
            pool.give(frame);
            if bytes == 0 {
                continue;
            }
            full += usize::from(bytes == segment_bytes);
            peer.expect(0, u32::try_from(bytes).expect("short"), *now);
            pending += 1;
            if pending == 2 {
                received.push(peer.segment(Kind::Ack, 0, *now, pool));
                pending = 0;
            }
        }
        if pending > 0 {
            received.push(peer.segment(Kind::Ack, 0, *now, pool));
        }
        full
    }
}

fn run(server: impl Server, work: Work, version: Version, connections: u32, count: usize) -> usize {
    let payload_len = work.payload_len(version);
    let peer = Peer::new(version, Host(0), connections, payload_len);
    let mut bench = Bench::new(server, peer);
    match work {
        Work::Request => bench.request(connections, count),
        Work::Connect => bench.connect(connections, count),
        Work::Receive => bench.receive(count),
        Work::Send => bench.send(payload_len, 14 + 1500 - payload_len, count),
    }
}

pub(crate) const USAGE: &str = "       echo-instructions tcp request|connect|receive|send \
    harness|copy-and-checksum|stack|smoltcp ipv4|ipv6 CONNECTIONS COUNT\n       \
    echo-instructions tcp memory ipv4|ipv6|both CONNECTIONS\n       \
    echo-instructions tcp race ipv4|ipv6";

/// Does what the arguments say; `None` if they say nothing that can be done.
pub(crate) fn main(arguments: &[&str]) -> Option<()> {
    if let ["memory", versions, connections] = arguments {
        return memory::main(versions, connections.parse().ok()?);
    }
    if let ["race", version] = arguments {
        race::main(Version::parse(version)?);
        return Some(());
    }
    let [work, subject, version, connections, count] = *arguments else {
        return None;
    };
    let work = match work {
        "request" => Work::Request,
        "connect" => Work::Connect,
        "receive" => Work::Receive,
        "send" => Work::Send,
        _ => return None,
    };
    let version = Version::parse(version)?;
    let connections = connections.parse().ok()?;
    if !(1..=peer::CONNECTIONS_MAX).contains(&connections) {
        return None;
    }
    let count = count.parse().ok()?;
    let counted = match (subject, work) {
        ("harness", Work::Send) => {
            let blank = Blank { len: 14 + 1500 };
            run(blank, work, version, connections, count)
        }
        ("harness", _) => run(Harness, work, version, connections, count),
        ("copy-and-checksum", Work::Receive) => {
            let server = CopyAndChecksum {
                transport_at: 14 + version.header_len(),
                to: vec![0; usize::from(FRAME_BYTES)],
            };
            run(server, work, version, connections, count)
        }
        ("stack", _) => {
            let server = StackServer::new(work, connections);
            run(server, work, version, connections, count)
        }
        ("smoltcp", _) => {
            let server = SmoltcpServer::new(work, connections);
            run(server, work, version, connections, count)
        }
        _ => return None,
    };
    println!("counted {counted}");
    Some(())
}
