//! Hosts on one segment, and the virtual time they share.
//!
//! ```text
//!            outward link                 inward link
//!  host a ─────────────────►┐          ┌─────────────────► host b
//!         ◄─────────────────┤  switch  ├◄─────────────────
//!            inward link    └────┬─────┘   outward link
//!                                │ ▲
//!                                ▼ │
//!                               tap c     (no stack: a test speaks and listens)
//! ```
//!
//! The switch takes no time. Each port has a link of its own in each direction with its own
//! [`Impairment`]; between two hosts a frame crosses the sender's outward and the receiver's inward
//! link. A bottleneck that several clients share is the server's inward link.

use super::capture::{Capture, Direction};
use super::host::{Application, Host, HostConfig, Neighbors};
use super::link::{Impairment, Link, LinkCounters};
use super::packet;
use super::random::Random;
use super::report;
use super::router;
use crate::Config;
use crate::link::{MacAddr, NeighborUpdate};
use crate::time::{Duration, Instant};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::net::IpAddr;

/// A place at the switch: the number of a host or tap, in the order they were added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(pub usize);

/// A frame at one end of a link, for [`Network::on_frame`].
#[derive(Clone, Copy, Debug)]
pub struct Sighting<'a> {
    /// When.
    pub at: Instant,
    /// Whose link.
    pub port: Port,
    /// Whether it left the host or reached it.
    pub direction: Direction,
    /// The frame.
    pub frame: &'a [u8],
}

type Watcher = Box<dyn FnMut(&Sighting<'_>) -> Result<(), String>>;

/// A port without a stack.
#[derive(Default)]
struct Tap {
    addresses: Vec<IpAddr>,
    received: Vec<(Instant, Vec<u8>)>,
}

enum Node<A> {
    Host(Box<Host<A>>),
    Tap(Tap),
}

struct Place<A> {
    node: Node<A>,
    mac: MacAddr,
    outward: Link,
    inward: Link,
    /// What reached it at this instant.
    arrivals: Vec<Vec<u8>>,
}

/// Where a frame under way is next.
enum Event {
    AtSwitch(Port),
    AtHost(Port),
}

/// When the simulation starts: not at zero, so that a stack which takes zero for "never" is found out.
const START: Instant = Instant::from_nanos(1_000_000_000);
/// Turns at one instant after which two hosts are taken to talk without end on links without delay.
const TURNS_AT_ONCE_MAX: u64 = 100_000;

/// Hosts, links and virtual time.
///
/// Everything that happens follows from the seed. When a test panics, the network says the seed and
/// leaves a capture of all links: see [`report`].
pub struct Network<A: Application = ()> {
    name: String,
    seed: u64,
    now: Instant,
    neighbors: Neighbors,
    places: Vec<Place<A>>,
    /// By time, and in the order they were made.
    events: BTreeMap<(Instant, u64), (Event, Vec<u8>)>,
    events_made: u64,
    turns_at_once: u64,
    capture: Capture,
    watchers: Vec<Watcher>,
}

impl<A: Application> Network<A> {
    /// An empty segment. `name` is that of its captures.
    #[must_use]
    pub fn new(name: &str, seed: u64, neighbors: Neighbors) -> Self {
        Self {
            name: name.into(),
            seed,
            now: START,
            neighbors,
            places: Vec::new(),
            events: BTreeMap::new(),
            events_made: 0,
            turns_at_once: 0,
            capture: Capture::default(),
            watchers: Vec::new(),
        }
    }

    /// Adds a host, whose links do nothing to frames yet.
    pub fn add_host(&mut self, mut config: HostConfig, application: A) -> Port {
        let port = Port(self.places.len());
        if config.stack.secret == Config::default().secret {
            let mut random = Random::stream(self.seed, self.stream_of(port, 2));
            config.stack.secret = [random.next_u64(), random.next_u64()];
        }
        self.capture.add_port(&config.name);
        let mac = config.mac;
        let host = Box::new(Host::new(config, application, self.now));
        self.add_place(Node::Host(host), mac)
    }

    /// Adds a port without a stack, with addresses that other hosts know it by.
    pub fn add_tap(&mut self, name: &str, mac: MacAddr, addresses: Vec<IpAddr>) -> Port {
        self.capture.add_port(name);
        let received = Vec::new();
        self.add_place(
            Node::Tap(Tap {
                addresses,
                received,
            }),
            mac,
        )
    }

    /// Which stream of random numbers something of a port draws from.
    fn stream_of(&self, port: Port, which: u64) -> u64 {
        port.0 as u64 * 4 + which
    }

    fn add_place(&mut self, node: Node<A>, mac: MacAddr) -> Port {
        let port = Port(self.places.len());
        let link = |which| {
            let random = Random::stream(self.seed, self.stream_of(port, which));
            Link::new(Impairment::default(), random)
        };
        let place = Place {
            outward: link(0),
            inward: link(1),
            node,
            mac,
            arrivals: Vec::new(),
        };
        self.places.push(place);
        if self.neighbors == Neighbors::Preset {
            self.introduce(port);
        }
        port
    }

    /// Tells every host of the newest one, and it of every other.
    fn introduce(&mut self, newest: Port) {
        let known: Vec<(Port, MacAddr, Vec<IpAddr>)> = self
            .places
            .iter()
            .enumerate()
            .map(|(i, place)| {
                let addresses = match &place.node {
                    Node::Host(host) => &host.addresses,
                    Node::Tap(tap) => &tap.addresses,
                };
                (Port(i), place.mac, addresses.clone())
            })
            .collect();
        for (i, place) in self.places.iter_mut().enumerate() {
            let Node::Host(host) = &mut place.node else {
                continue;
            };
            for (port, mac, addresses) in &known {
                if (*port == newest) == (Port(i) == newest) {
                    continue;
                }
                for &address in addresses {
                    let update = NeighborUpdate::Set { address, mac: *mac };
                    host.stack.set_neighbor(&mut host.pool, update);
                }
            }
        }
    }

    /// The virtual time.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Since the simulation started.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.now - START
    }

    /// The seed.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// A stream of random numbers for the test itself, independent of what links draw.
    #[must_use]
    pub fn random(&self) -> Random {
        Random::stream(self.seed, u64::MAX)
    }

    /// The host at `port`.
    ///
    /// # Panics
    /// If it is a tap.
    #[must_use]
    pub fn host(&self, port: Port) -> &Host<A> {
        match &self.places[port.0].node {
            Node::Host(host) => host,
            Node::Tap(_) => panic!("port {} is a tap", port.0),
        }
    }

    /// The same, to be changed. It gets a turn before time goes on.
    ///
    /// # Panics
    /// If it is a tap.
    pub fn host_mut(&mut self, port: Port) -> &mut Host<A> {
        match &mut self.places[port.0].node {
            Node::Host(host) => {
                host.wake = Some(self.now);
                host
            }
            Node::Tap(_) => panic!("port {} is a tap", port.0),
        }
    }

    fn link_mut(&mut self, port: Port, direction: Direction) -> &mut Link {
        let place = &mut self.places[port.0];
        match direction {
            Direction::Outward => &mut place.outward,
            Direction::Inward => &mut place.inward,
        }
    }

    /// What the link of `port` does from now on, in one direction; frames under way are not touched.
    pub fn impairment_mut(&mut self, port: Port, direction: Direction) -> &mut Impairment {
        &mut self.link_mut(port, direction).impairment
    }

    /// What it does in both directions.
    pub fn impair(&mut self, port: Port, impairment: &Impairment) {
        for direction in [Direction::Outward, Direction::Inward] {
            self.impairment_mut(port, direction).clone_from(impairment);
        }
    }

    /// What it did so far.
    #[must_use]
    pub fn link_counters(&self, port: Port, direction: Direction) -> LinkCounters {
        let place = &self.places[port.0];
        match direction {
            Direction::Outward => place.outward.counters,
            Direction::Inward => place.inward.counters,
        }
    }

    /// Drops `drop` of the frames for which `matches` says yes, after `skip` of them.
    pub fn drop_frames(
        &mut self,
        port: Port,
        direction: Direction,
        skip: u64,
        drop: u64,
        matches: impl FnMut(&[u8]) -> bool + 'static,
    ) {
        self.link_mut(port, direction)
            .script_drop(skip, drop, Box::new(matches));
    }

    /// Shows every frame to `watch`: those that leave hosts before their link touches them, and
    /// those that arrive after it. An error fails the test. (That every frame which leaves a host is
    /// well-formed is checked anyway.)
    pub fn on_frame(&mut self, watch: impl FnMut(&Sighting<'_>) -> Result<(), String> + 'static) {
        self.watchers.push(Box::new(watch));
    }

    /// Sends a frame from a tap, or in the name of a host, whatever it holds.
    pub fn send(&mut self, port: Port, frame: Vec<u8>) {
        self.leave(port, frame);
    }

    /// What arrived at a tap since the last call.
    ///
    /// # Panics
    /// If it is a host.
    pub fn received(&mut self, port: Port) -> Vec<(Instant, Vec<u8>)> {
        match &mut self.places[port.0].node {
            Node::Tap(tap) => core::mem::take(&mut tap.received),
            Node::Host(_) => panic!("port {} is a host", port.0),
        }
    }

    /// Frames on links.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.events.len()
    }

    /// The capture of all links as pcapng.
    #[must_use]
    pub fn pcapng(&self) -> Vec<u8> {
        let comment = alloc::format!("{}, seed {}", self.name, self.seed);
        self.capture.to_pcapng(&comment)
    }

    /// When something happens next; `None` if nothing ever will.
    #[must_use]
    pub fn next_event(&self) -> Option<Instant> {
        let wakes = self.places.iter().filter_map(|place| match &place.node {
            Node::Host(host) => host.wake,
            Node::Tap(_) => None,
        });
        let arrival = self.events.first_key_value().map(|((at, _), _)| *at);
        wakes.chain(arrival).min()
    }

    /// Jumps to the next event: moves the frames that are there, and gives a turn to every host that
    /// got one or whose timer is due. Says whether there was an event.
    ///
    /// # Panics
    /// If a host sent what no host may send, or time does not advance any more.
    pub fn step(&mut self) -> bool {
        let Some(next) = self.next_event() else {
            return false;
        };
        if next > self.now {
            self.now = next;
            self.turns_at_once = 0;
        }
        self.turns_at_once += 1;
        assert!(
            self.turns_at_once < TURNS_AT_ONCE_MAX,
            "time stands still: {TURNS_AT_ONCE_MAX} turns at one instant"
        );
        self.deliver_due();
        for port in (0..self.places.len()).map(Port) {
            let place = &mut self.places[port.0];
            let sent = match &mut place.node {
                Node::Tap(tap) => {
                    let arrivals = place.arrivals.drain(..);
                    tap.received.extend(arrivals.map(|frame| (self.now, frame)));
                    continue;
                }
                Node::Host(host) => {
                    let is_due = host.wake.is_some_and(|wake| wake <= self.now);
                    if place.arrivals.is_empty() && !is_due {
                        continue;
                    }
                    host.turn(&mut place.arrivals, self.now)
                }
            };
            for frame in sent {
                if let Err(fault) = packet::check(&frame) {
                    let comment = alloc::format!("WRONG: {fault}");
                    self.capture
                        .record(self.now, port.0, Direction::Outward, &frame, comment);
                    let name = &self.host(port).name;
                    panic!("{name} sent a wrong frame: {fault}: {frame:02x?}");
                }
                self.leave(port, frame);
            }
        }
        true
    }

    /// Steps until nothing is left to happen before `time`, and sets the clock to it.
    pub fn run_until(&mut self, time: Instant) {
        while self.next_event().is_some_and(|next| next <= time) {
            self.step();
        }
        self.now = self.now.max(time);
    }

    /// The same for a length of time.
    pub fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    /// Steps until `is_done` says yes, for at most `limit`. Says whether it did.
    pub fn run_until_done(
        &mut self,
        limit: Duration,
        mut is_done: impl FnMut(&Self) -> bool,
    ) -> bool {
        let end = self.now + limit;
        while !is_done(self) {
            if self.next_event().is_none_or(|next| next > end) {
                self.now = self.now.max(end);
                return is_done(self);
            }
            self.step();
        }
        true
    }

    /// Moves everything that has arrived somewhere by now.
    fn deliver_due(&mut self) {
        while let Some(entry) = self.events.first_entry()
            && entry.key().0 <= self.now
        {
            match entry.remove() {
                (Event::AtSwitch(from), frame) => self.switch(from, frame),
                (Event::AtHost(port), frame) => {
                    self.sight(port, Direction::Inward, &frame);
                    self.capture
                        .record(self.now, port.0, Direction::Inward, &frame, String::new());
                    self.places[port.0].arrivals.push(frame);
                }
            }
        }
    }

    fn sight(&mut self, port: Port, direction: Direction, frame: &[u8]) {
        let sighting = Sighting {
            at: self.now,
            port,
            direction,
            frame,
        };
        for watch in &mut self.watchers {
            if let Err(fault) = watch(&sighting) {
                panic!("{direction:?} at port {}: {fault}: {frame:02x?}", port.0);
            }
        }
    }

    fn schedule(&mut self, at: Instant, event: Event, frame: Vec<u8>) {
        self.events.insert((at, self.events_made), (event, frame));
        self.events_made += 1;
    }

    /// A frame enters the outward link of a port.
    fn leave(&mut self, port: Port, frame: Vec<u8>) {
        self.sight(port, Direction::Outward, &frame);
        let now = self.now;
        let offered = self
            .link_mut(port, Direction::Outward)
            .offer(frame.clone(), now);
        let fate = offered.fate.to_string();
        self.capture
            .record(now, port.0, Direction::Outward, &frame, fate);
        for (at, frame) in offered.arrivals {
            self.schedule(at, Event::AtSwitch(port), frame);
        }
        if let Some((at, answer)) = offered.answer {
            self.schedule(at, Event::AtHost(port), answer);
        }
    }

    /// A frame enters the inward links of those it is for: the port of its Ethernet address, or all
    /// others if it is for a group or nobody known.
    fn switch(&mut self, from: Port, frame: Vec<u8>) {
        let destination = frame.first_chunk::<6>().copied().unwrap_or_default();
        let known = self
            .places
            .iter()
            .position(|place| place.mac == destination);
        let ports = match known {
            Some(port) => port..port + 1,
            None if destination == router::MAC => return,
            None => 0..self.places.len(),
        };
        for port in ports.map(Port).filter(|port| *port != from) {
            let now = self.now;
            let offered = self
                .link_mut(port, Direction::Inward)
                .offer(frame.clone(), now);
            if offered.arrivals.is_empty() {
                let fate = alloc::format!("never arrived: {}", offered.fate);
                self.capture
                    .record(now, port.0, Direction::Inward, &frame, fate);
            }
            for (at, frame) in offered.arrivals {
                self.schedule(at, Event::AtHost(port), frame);
            }
            if let Some((at, answer)) = offered.answer {
                self.schedule(at, Event::AtHost(from), answer);
            }
        }
    }
}

impl<A: Application> Drop for Network<A> {
    fn drop(&mut self) {
        report::on_panic(&self.name, self.seed, || self.pcapng());
    }
}
