//! The crowd over a made-up network, in made-up time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use super::*;
use crate::loadgen::live::Live;
use crate::loadgen::load::Window;
use crate::loadgen::pacing::{Arrivals, Schedule};
use crate::loadgen::tcp::dialogue::Exchange;
use crate::loadgen::tcp::rogue::{Misbehavior, Rogues};
use crate::loadgen::tcp::tally::Tally;

const MS: u64 = 1_000_000;
const HANDSHAKE_NS: u64 = MS / 10;
const REPLY_NS: u64 = MS / 5;
const SIZE: usize = 100;

/// What a server does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behavior {
    Echo,
    /// Answers nobody while the time is in this range, and everybody behind it.
    Stall(u64, u64),
    Refuse,
    /// Never answers the SYN.
    Ignore,
    Silent,
    /// Resets when it is asked.
    Reset,
    /// Closes when it is asked, having sent half.
    Half,
    Corrupt,
    /// Sends a byte too many.
    Chatty,
    /// Echoes, and closes behind it.
    OneReply,
    /// Resets when it is idle for a while.
    Impatient,
}

#[derive(Debug)]
enum Happening {
    Open,
    Refused,
    Bytes(Vec<u8>),
    End,
    Reset,
}

#[derive(Default)]
struct Peer {
    open: bool,
    refused: bool,
    inbox: Vec<u8>,
    ended: bool,
    reset: bool,
    asked: Vec<u8>,
    /// Bytes it took, less those that were read of its answers.
    owed: usize,
}

/// A network of one server, whose every delay is known.
struct Network {
    now: u64,
    /// By connection's number, what the server does with it.
    behavior: Box<dyn Fn(u32) -> Behavior>,
    opened: u32,
    /// Slot to number.
    numbers: HashMap<u32, u32>,
    peers: HashMap<u32, Peer>,
    events: BinaryHeap<Reverse<(u64, u32, u64)>>,
    happenings: HashMap<u64, Happening>,
    next_event: u64,
    most_open: usize,
    log: Vec<(u64, &'static str)>,
}

impl Network {
    fn new(behavior: impl Fn(u32) -> Behavior + 'static) -> Self {
        Self {
            now: 0,
            behavior: Box::new(behavior),
            opened: 0,
            numbers: HashMap::new(),
            peers: HashMap::new(),
            events: BinaryHeap::new(),
            happenings: HashMap::new(),
            next_event: 0,
            most_open: 0,
            log: Vec::new(),
        }
    }

    fn later(&mut self, at: u64, number: u32, happening: Happening) {
        self.next_event += 1;
        self.happenings.insert(self.next_event, happening);
        self.events.push(Reverse((at, number, self.next_event)));
    }

    fn peer(&mut self, slot: u32) -> Option<(u32, &mut Peer)> {
        let number = *self.numbers.get(&slot)?;
        Some((number, self.peers.get_mut(&number)?))
    }

    fn answer(&mut self, number: u32) {
        let behavior = (self.behavior)(number);
        let at = self.now + REPLY_NS;
        let Some(peer) = self.peers.get_mut(&number) else {
            return;
        };
        if peer.asked.len() < SIZE {
            return;
        }
        let mut reply = std::mem::take(&mut peer.asked);
        match behavior {
            Behavior::Echo => self.later(at, number, Happening::Bytes(reply)),
            Behavior::Stall(from, to) => {
                let at = if (from..to).contains(&self.now) {
                    to
                } else {
                    at
                };
                self.later(at, number, Happening::Bytes(reply));
            }
            Behavior::Refuse | Behavior::Ignore | Behavior::Silent => {}
            Behavior::Reset => self.later(at, number, Happening::Reset),
            Behavior::Half => {
                reply.truncate(reply.len() / 2);
                self.later(at, number, Happening::Bytes(reply));
                self.later(at, number, Happening::End);
            }
            Behavior::Corrupt => {
                reply[50] ^= 1;
                self.later(at, number, Happening::Bytes(reply));
            }
            Behavior::Chatty => {
                reply.push(0);
                self.later(at, number, Happening::Bytes(reply));
            }
            Behavior::OneReply => {
                self.later(at, number, Happening::Bytes(reply));
                self.later(at, number, Happening::End);
            }
            Behavior::Impatient => {
                self.later(at, number, Happening::Bytes(reply));
                self.later(at + MS, number, Happening::Reset);
            }
        }
    }
}

impl Transport for Network {
    fn now(&self) -> u64 {
        self.now
    }

    fn open(&mut self, slot: u32, hearing: Hearing) -> Result<(), Failure> {
        let number = self.opened;
        self.opened += 1;
        assert!(
            self.numbers.insert(slot, number).is_none(),
            "the slot was taken"
        );
        self.peers.insert(number, Peer::default());
        self.most_open = self.most_open.max(self.peers.len());
        let at = self.now + HANDSHAKE_NS;
        match (self.behavior)(number) {
            _ if hearing == Hearing::Deaf => {}
            Behavior::Refuse => self.later(at, number, Happening::Refused),
            Behavior::Ignore => {}
            _ => self.later(at, number, Happening::Open),
        }
        Ok(())
    }

    fn is_open(&mut self, slot: u32) -> Result<bool, Failure> {
        let (_, peer) = self.peer(slot).unwrap();
        if peer.refused {
            return Err(Failure::Refused);
        }
        Ok(peer.open)
    }

    fn send(&mut self, slot: u32, bytes: &[u8]) -> Result<usize, Failure> {
        let (number, peer) = self.peer(slot).unwrap();
        if peer.reset {
            return Err(Failure::Reset);
        }
        // Who reads nothing can send no more at some time.
        if peer.owed > 10 * SIZE {
            return Ok(0);
        }
        // A small buffer: half of a request at once.
        let sent = bytes.len().min(SIZE / 2);
        peer.owed += sent;
        peer.asked.extend_from_slice(&bytes[..sent]);
        if sent < bytes.len() {
            self.later(self.now, number, Happening::Bytes(Vec::new()));
        }
        self.answer(number);
        Ok(sent)
    }

    fn receive(&mut self, slot: u32, sink: &mut impl FnMut(&[u8])) -> Result<Received, Failure> {
        let (_, peer) = self.peer(slot).unwrap();
        let inbox = std::mem::take(&mut peer.inbox);
        peer.owed = peer.owed.saturating_sub(inbox.len());
        for piece in inbox.chunks(30) {
            sink(piece);
        }
        if peer.reset {
            return Err(Failure::Reset);
        }
        Ok(if peer.ended {
            Received::End
        } else {
            Received::All
        })
    }

    fn finish(&mut self, slot: u32) {
        let at = self.now + REPLY_NS;
        let (number, _) = self.peer(slot).unwrap();
        self.log.push((self.now, "finish"));
        self.later(at, number, Happening::End);
    }

    fn close(&mut self, slot: u32, ending: Ending) {
        if let Some(number) = self.numbers.remove(&slot) {
            self.peers.remove(&number);
            self.log.push((
                self.now,
                match ending {
                    Ending::Fin => "close",
                    Ending::Reset => "reset",
                },
            ));
        }
    }

    fn deafen(&mut self, _: u32) {}

    fn poll(&mut self, wait_ns: u64, news: &mut Vec<u32>) -> Result<(), String> {
        let until = self.now + wait_ns.max(1);
        match self.events.peek() {
            Some(&Reverse((at, ..))) if at <= until => self.now = self.now.max(at),
            _ => {
                self.now = until;
                return Ok(());
            }
        }
        while let Some(&Reverse((at, number, event))) = self.events.peek() {
            if at > self.now {
                break;
            }
            self.events.pop();
            let happening = self.happenings.remove(&event).unwrap();
            let Some(peer) = self.peers.get_mut(&number) else {
                continue;
            };
            match happening {
                Happening::Open => peer.open = true,
                Happening::Refused => peer.refused = true,
                Happening::Bytes(bytes) => peer.inbox.extend(bytes),
                Happening::End => peer.ended = true,
                Happening::Reset => peer.reset = true,
            }
            let slot = self.numbers.iter().find(|(_, of)| **of == number);
            news.push(*slot.unwrap().0);
        }
        Ok(())
    }
}

const WINDOW: Window = Window {
    start_ns: MS,
    measure_ns: 10 * MS,
    stop_ns: 110 * MS,
};

const MANNER: Manner = Manner {
    fresh: false,
    ending: Ending::Fin,
    timeout_ns: 20 * MS,
    ramp_interval_ns: MS / 100,
    idle: Idle::Sleep,
};

struct Run {
    manner: Manner,
    rate: Option<&'static str>,
    connections: u32,
    rogues: Vec<Misbehavior>,
}

const KEEP: Run = Run {
    manner: MANNER,
    rate: None,
    connections: 4,
    rogues: Vec::new(),
};

impl Run {
    fn fresh() -> Self {
        Self {
            manner: Manner {
                fresh: true,
                ..MANNER
            },
            ..KEEP
        }
    }

    fn against(self, behavior: impl Fn(u32) -> Behavior + 'static) -> (Tally, Network) {
        let Self {
            manner,
            rate,
            connections,
            rogues,
        } = self;
        let ledger = Ledger {
            window: WINDOW,
            tally: Tally::default(),
            live: Arc::new(Live::default()),
        };
        let schedule = rate.map(|rate| {
            Schedule::new(
                Arrivals::Constant,
                rate.parse().unwrap(),
                WINDOW.start_ns,
                0,
                1,
                1,
            )
        });
        let mut exchange = Exchange::new(SIZE.to_string().parse().unwrap(), None, 1);
        let rogues = Rogues::new(&rogues, connections, exchange.sample(), 0, 0);
        let crowd = Crowd::new(
            Network::new(behavior),
            exchange,
            ledger,
            manner,
            schedule,
            connections,
            rogues,
        );
        let (ledger, network) = crowd.run(&AtomicBool::new(false)).unwrap();
        let tally = ledger.tally;
        // Whatever happens, everything that was begun has ended, once.
        assert_eq!(tally.requests, tally.replies + tally.failures.total());
        let connections = &tally.connections;
        assert_eq!(
            connections.begun,
            connections.established + connections.failures.total()
        );
        assert_eq!(tally.latency.len(), tally.replies + tally.unsent);
        assert!(network.peers.is_empty(), "connections were left open");
        (tally, network)
    }
}

/// That every request failed this way.
fn all_fail(tally: &Tally, failure: Failure) {
    assert!(tally.requests > 0);
    assert_eq!(
        tally.failures.of(failure),
        tally.requests,
        "{:?}",
        tally.failures
    );
}

#[test]
fn a_closed_loop_asks_when_it_is_answered() {
    let (tally, network) = KEEP.against(|_| Behavior::Echo);
    // A request takes as long as its reply; each of four connections asks again at once.
    let each = 100 * MS / REPLY_NS;
    assert!(
        (4 * each - 4..=4 * each + 4).contains(&tally.requests),
        "{}",
        tally.requests
    );
    assert_eq!(tally.replies, tally.requests);
    assert!(tally.latency.min() >= REPLY_NS - REPLY_NS / 500);
    assert!(tally.latency.max() <= REPLY_NS + REPLY_NS / 500);
    assert_eq!(tally.connections.begun, 0, "all were opened in the ramp-up");
    assert_eq!(tally.connections.open_at_start, 4);
    assert_eq!(network.opened, 4);
    assert_eq!(tally.sent_bytes / SIZE as u64, tally.requests);
}

#[test]
fn a_connection_for_each_request_is_closed_at_both_ends() {
    let (tally, network) = Run::fresh().against(|_| Behavior::Echo);
    assert_eq!(tally.requests, tally.connections.begun);
    let latency = HANDSHAKE_NS + REPLY_NS;
    assert!(tally.latency.max().abs_diff(latency) < latency / 500);
    assert!(tally.connections.handshake.max().abs_diff(HANDSHAKE_NS) < HANDSHAKE_NS / 500);
    // Handshake, reply, and the peer's FIN.
    let each = 100 * MS / (HANDSHAKE_NS + 2 * REPLY_NS);
    assert!((4 * each - 8..=4 * each + 8).contains(&tally.requests));
    assert_eq!(network.most_open, 4);
    assert!(network.log.iter().all(|(_, what)| *what != "reset"));

    let manner = Manner {
        fresh: true,
        ending: Ending::Reset,
        ..MANNER
    };
    let (tally, network) = Run { manner, ..KEEP }.against(|_| Behavior::Echo);
    assert!(tally.replies > 0);
    assert!(network.log.iter().all(|(_, what)| *what == "reset"));
}

#[test]
fn an_open_loop_is_timed_from_when_requests_are_due() {
    for fresh in [false, true] {
        let run = Run {
            manner: Manner { fresh, ..MANNER },
            rate: Some("1000"),
            ..KEEP
        };
        // The server stalls for 15 ms; with four connections, the fifth request and those behind it wait for
        // one to become free.
        let (tally, _) = run.against(|_| Behavior::Stall(50 * MS, 65 * MS));
        assert_eq!(tally.requests + tally.unsent, 100);
        assert_eq!(tally.replies, 100);
        // The one that came first waited longest: for the whole stall.
        let longest = tally.latency.max();
        assert!((14 * MS..16 * MS).contains(&longest), "{longest}");
        // And each of those behind it by a millisecond less, though most of them were not even sent before
        // the stall was over.
        let late = tally.latency.len() - tally.latency.count_between(0, MS);
        assert!((15..=17).contains(&late), "{late}");
    }
}

#[test]
fn what_finds_no_connection_is_unsent_with_how_long_it_has_waited() {
    let run = Run {
        rate: Some("1000"),
        manner: Manner {
            timeout_ns: 500 * MS,
            ..MANNER
        },
        ..KEEP
    };
    let (tally, _) = run.against(|_| Behavior::Stall(60 * MS, 400 * MS));
    assert_eq!(tally.requests + tally.unsent, 100);
    // Due from 60 to 110 ms; four found a connection.
    assert!((45..=47).contains(&tally.unsent), "{}", tally.unsent);
    assert!(tally.latency.max() > 330 * MS, "of those that did");
}

#[test]
fn failures_are_told_apart_and_never_are_latencies() {
    for (behavior, failure) in [
        (Behavior::Silent, Failure::Timeout),
        (Behavior::Reset, Failure::Reset),
        (Behavior::Half, Failure::Closed),
        (Behavior::Corrupt, Failure::Corrupted),
        (Behavior::Chatty, Failure::Unexpected),
    ] {
        for run in [KEEP, Run::fresh()] {
            let (tally, _) = run.against(move |_| behavior);
            all_fail(&tally, failure);
            assert!(tally.latency.is_empty());
        }
    }
}

#[test]
fn connections_that_do_not_come_to_be() {
    for (behavior, failure) in [
        (Behavior::Refuse, Failure::Refused),
        (Behavior::Ignore, Failure::ConnectTimeout),
    ] {
        let (tally, _) = KEEP.against(move |_| behavior);
        assert_eq!(tally.requests, 0);
        assert!(tally.connections.begun > 0);
        assert_eq!(
            tally.connections.failures.of(failure),
            tally.connections.begun
        );
        let (tally, _) = Run::fresh().against(move |_| behavior);
        all_fail(&tally, failure);
    }
}

#[test]
fn a_target_that_refuses_is_not_flooded() {
    let (_, network) = KEEP.against(|_| Behavior::Refuse);
    // One attempt of each of four in 10 ms and a bit, for 110 ms.
    assert!(network.opened <= 4 * 11, "{}", network.opened);
}

#[test]
fn a_connection_that_ends_with_a_reply_is_replaced() {
    let (tally, network) = KEEP.against(|_| Behavior::OneReply);
    assert_eq!(tally.replies, tally.requests);
    assert!(tally.replies > 100);
    assert!(tally.connections.begun + 4 >= tally.replies);
    assert!(network.most_open <= 4);
}

#[test]
fn idle_connections_that_are_lost_are_counted_and_replaced() {
    let run = Run {
        rate: Some("200"),
        ..KEEP
    };
    let (tally, _) = run.against(|_| Behavior::Impatient);
    assert_eq!(tally.replies, tally.requests);
    // Every one is reset a millisecond after its reply, and no connection is asked again that soon.
    assert!(tally.connections.lost_idle >= tally.replies - 2);
}

#[test]
fn good_and_bad_connections_do_not_mix() {
    let (tally, _) = KEEP.against(|number| match number % 4 {
        0 => Behavior::Silent,
        1 => Behavior::Corrupt,
        _ => Behavior::Echo,
    });
    assert!(tally.replies > 0);
    assert!(tally.failures.of(Failure::Timeout) > 0);
    assert!(tally.failures.of(Failure::Corrupted) > 0);
    assert!(tally.latency.max() <= REPLY_NS + REPLY_NS / 500);
}

#[test]
fn misbehaving_clients_are_counted_apart() {
    let run = Run {
        rogues: vec![
            Misbehavior::SynOnly,
            Misbehavior::NeverAck,
            Misbehavior::NeverRead,
            Misbehavior::NeverClose,
            Misbehavior::ByteByByte,
        ],
        ..KEEP
    };
    let (tally, _) = run.against(|_| Behavior::Echo);
    assert_eq!(tally.replies, tally.requests);
    assert_eq!(tally.connections.begun, 0, "those of the load");
    let rogues = tally.rogues;
    assert_eq!((rogues.begun, rogues.established, rogues.ended), (5, 4, 0));
    assert!(
        rogues.sent_bytes > 5 * SIZE as u64,
        "the one that never reads asks on"
    );
}

#[test]
fn it_ends_soon_after_it_is_told_to() {
    let ledger = Ledger {
        window: WINDOW,
        tally: Tally::default(),
        live: Arc::new(Live::default()),
    };
    let mut exchange = Exchange::new("100".parse().unwrap(), None, 1);
    let rogues = Rogues::new(&[], 4, exchange.sample(), 0, 0);
    let network = Network::new(|_| Behavior::Echo);
    let crowd = Crowd::new(network, exchange, ledger, MANNER, None, 4, rogues);
    let (ledger, network) = crowd.run(&AtomicBool::new(true)).unwrap();
    assert!(network.now < 10 * MS);
    assert_eq!(ledger.window.measured_s(), 0.0);
}
