//! The glue: frames in, outcomes and frames out. A worker's turn calls, in this order,
//! [`Stack::ingest`] for each frame of a batch, [`Stack::expire`], the application's calls, and
//! [`Stack::egress`].
//!
//! * `fast_path`: the short way of plain datagrams and their replies
//! * `input`: from the Ethernet header to a socket's queue
//! * `datagram`: what applications do with UDP sockets
//! * `fragments`: datagrams that came in pieces
//! * `output`: routes, next hops, fragments, the egress queue
//! * `icmp`: errors about us, errors by us, echo
//! * `resolve`: ARP and neighbour discovery
//! * `tcp`: segments, and the calls of applications

mod datagram;
mod fast_path;
mod fragments;
mod icmp;
mod identification;
mod input;
mod output;
mod plain_segment;
mod resolve;
mod tcp;
mod tcp_info;
mod version;

pub use datagram::{SendError, SendTo};

use crate::counters::{DropCounters, DropReason, Event, EventCounters};
use crate::frame::{Frame, FramePool};
use crate::hash::HashKey;
use crate::ip::address::{Ipv4, Ipv6};
use crate::ip::rate_limit::{IcmpErrorLimiter, IcmpErrorLimits};
use crate::link::{AddressOwner, LinkState, LocalAddress, NeighborUpdate};
use crate::queue::Queue;
use crate::socket::bind::{Bind, BindError};
use crate::socket::demux::Target;
use crate::tcp::config::TcpConfig;
use crate::time::{Duration, Instant};
use crate::udp::{Datagram, Large, SoftError, Storage, UdpSocketId, UdpSockets};
use crate::wire::ethernet::{AddressWord, VlanIds};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::IpAddr;
use fragments::LARGE_BYTES;
use identification::Identifications;
use resolve::Announcements;
use version::VersionState;

/// Everything a stack is told at start. Every limit is memory taken at start or a bound kept.
#[derive(Clone, Debug)]
pub struct Config {
    /// The VLANs we live in, outermost first.
    pub vlans: VlanIds,
    /// Time to live and hop limit of what we send, 1 to 255.
    pub ttl: u8,
    /// Accept a UDP checksum that covers the pseudo-header alone, as packets from the other end of
    /// a veth carry them. Data corrupted on the way is then not noticed.
    pub accept_incomplete_checksums: bool,
    /// ICMP errors a second, at most.
    pub icmp_rate_per_s: u32,
    /// ICMP errors at once, at most.
    pub icmp_burst: u32,
    /// Neighbours remembered, of each version.
    pub neighbors: usize,
    /// UDP sockets.
    pub udp_sockets: u16,
    /// Frames waiting for the driver.
    pub egress_queue: usize,
    /// Memory for fragments of each version, in bytes; 0 switches reassembly off.
    pub reassembly_bytes: usize,
    /// Datagrams under reassembly at once, of each version.
    pub reassembly_datagrams: usize,
    /// How long fragments wait for the rest of their datagram.
    pub reassembly_timeout: Duration,
    /// Which of a service's stacks this is, counted from 0: they must not give two datagrams of one
    /// pair of hosts the same identification.
    pub worker: u16,
    /// How many stacks there are.
    pub workers: u16,
    /// Announce addresses that the stack owns, and watch for others using them. One stack of a
    /// service does it for all.
    pub announce: bool,
    /// What TCP is told.
    pub tcp: TcpConfig,
    /// 128 secret bits for hashes and identifications, from a cryptographic source.
    pub secret: [u64; 2],
}

impl Default for Config {
    /// The defaults of the service's configuration. The secret is fixed: for tests only.
    fn default() -> Self {
        Self {
            vlans: VlanIds::NONE,
            ttl: 64,
            accept_incomplete_checksums: false,
            icmp_rate_per_s: 1000,
            icmp_burst: 50,
            neighbors: 1024,
            udp_sockets: 64,
            egress_queue: 4096,
            reassembly_bytes: 1 << 20,
            reassembly_datagrams: 64,
            reassembly_timeout: Duration::from_secs(30),
            worker: 0,
            workers: 1,
            announce: true,
            tcp: TcpConfig::default(),
            secret: [1, 2],
        }
    }
}

/// Where a frame came from: a packet that another worker handed over is not handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A ring of this worker.
    Ring,
    /// Another worker.
    Handoff {
        /// How many workers have seen it, that are not the one it is for.
        visited: u16,
    },
}

/// Who a frame is to be handed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handoff {
    /// One of the workers that serve the service of this tag; `flow` says which, so that packets
    /// of one flow stay in order.
    Service {
        /// As given to [`Stack::udp_bind_elsewhere`].
        tag: u16,
        /// A hash of the flow.
        flow: u64,
    },
    /// All other workers: what it says about a neighbour concerns everyone.
    Everyone,
    /// The worker after this one: a segment of a connection that one of the others may know.
    Next {
        /// How many workers have seen it, this one included.
        visited: u16,
    },
}

/// What is to be done with a frame that was looked at.
enum Disposition {
    /// Queue it in a socket.
    Deliver {
        socket: u16,
        parts: crate::udp::Parts,
    },
    /// It holds our answer now, which counts as this once it is on its way.
    Transmit(Event),
    /// There is nothing left to do with it.
    Done,
    /// Another worker's.
    Handoff(Handoff),
}

/// The protocol core of one worker.
pub struct Stack<P: FramePool> {
    config: Config,
    key: HashKey,
    link: Box<LinkState>,
    /// What plain packets for us begin with.
    plain_destination: AddressWord,
    v4: VersionState<Ipv4, P::Frame>,
    v6: VersionState<Ipv6, P::Frame>,
    udp: UdpSockets<P::Frame>,
    tcp: tcp::Tcp,
    /// What other workers serve, and its tag, by port.
    elsewhere: Vec<(Bind, u16)>,
    egress: Queue<P::Frame>,
    /// A frame that leaves the short way, for the function that takes it on. As an argument it would
    /// have to be in memory wherever that function might be called, and so for every packet.
    aside: Option<P::Frame>,
    /// The same for a reply.
    aside_reply: Option<Datagram<P::Frame>>,
    handoffs: VecDeque<(Handoff, P::Frame)>,
    /// Neighbours the kernel is to be asked about.
    wanted: VecDeque<IpAddr>,
    /// Buffers for datagrams put together from fragments.
    #[expect(
        clippy::vec_box,
        reason = "they move in their boxes, from here to sockets and back"
    )]
    large: Vec<Box<Large>>,
    icmp: IcmpErrorLimiter,
    announcements: Announcements,
    drops: DropCounters,
    events: EventCounters,
    /// Grows whenever a cached next hop may be wrong.
    hop_generation: u32,
    identifications: Identifications,
    /// Of the neighbour caches, when the cached next hops were last right.
    neighbor_generations: (u64, u64),
    next_expiry: Instant,
    next_hop_expiry: Instant,
}

/// Frames that wait for another worker, at most; one batch.
const HANDOFFS_MAX: usize = 256;
/// Questions for the kernel that wait, at most. More are asked again a second later.
const WANTED_MAX: usize = 64;
/// Datagrams longer than a frame that applications hold at once, at most: 16 × 64 KiB = 1 MiB.
const LARGE_MAX: usize = 16;
/// Buckets of the ICMP error limiter, 24 bytes each: see [`IcmpErrorLimiter`].
const ICMP_PREFIXES: usize = 1024;
/// Timers are looked at this often, at most: none of them is finer than 1 s.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(10);

impl<P: FramePool> Stack<P> {
    /// A stack without addresses or sockets. Takes all its memory now.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let key = HashKey::new(config.secret);
        let icmp = IcmpErrorLimits {
            rate_per_s: config.icmp_rate_per_s,
            burst: config.icmp_burst,
            ..Default::default()
        };
        let large = if config.reassembly_bytes == 0 {
            0
        } else {
            LARGE_MAX
        };
        Self {
            key,
            link: Box::default(),
            plain_destination: AddressWord::NONE,
            v4: VersionState::new(&config, key),
            v6: VersionState::new(&config, key),
            udp: UdpSockets::new(config.udp_sockets),
            tcp: tcp::Tcp::new(&config.tcp, key),
            elsewhere: Vec::new(),
            egress: Queue::new(config.egress_queue),
            aside: None,
            aside_reply: None,
            handoffs: VecDeque::with_capacity(HANDOFFS_MAX),
            wanted: VecDeque::with_capacity(WANTED_MAX),
            large: (0..large)
                .map(|_| Box::new(Large::new(LARGE_BYTES)))
                .collect(),
            icmp: IcmpErrorLimiter::new(icmp, ICMP_PREFIXES, key),
            announcements: Announcements::default(),
            drops: DropCounters::default(),
            events: EventCounters::default(),
            hop_generation: 1,
            identifications: Identifications::new(&config, key),
            neighbor_generations: (0, 0),
            next_expiry: Instant::ZERO,
            next_hop_expiry: Instant::ZERO,
            config,
        }
    }

    /// Takes one frame: parses it, finds its socket, answers what the stack itself answers.
    #[inline(always)] // See `fast_path`.
    pub fn ingest(&mut self, pool: &mut P, frame: P::Frame, origin: Origin, now: Instant) {
        let data = frame.data();
        self.events.count(Event::FrameRx);
        self.events.add(Event::FrameRxBytes, data.len() as u64);
        match self.plain_datagram(data) {
            Some((socket, parts)) => self.enqueue_datagram(pool, socket, frame, parts),
            None => {
                self.aside = Some(frame);
                self.ingest_aside(pool, origin, now);
            }
        }
    }

    /// Whatever is not a plain datagram in an untagged frame for one of our sockets: a plain segment,
    /// perhaps.
    #[inline(never)]
    fn ingest_aside(&mut self, pool: &mut P, origin: Origin, now: Instant) {
        let Some(frame) = self.aside.take() else {
            return;
        };
        if self.takes_plain_segment(frame.data(), now) {
            return pool.give(frame);
        }
        self.aside = Some(frame);
        self.ingest_the_long_way(pool, origin, now);
    }

    /// Whatever is not plain.
    #[cold]
    fn ingest_the_long_way(&mut self, pool: &mut P, origin: Origin, now: Instant) {
        let Some(mut frame) = self.aside.take() else {
            return;
        };
        if self.plain_destination == AddressWord::NONE
            && let Some((socket, parts)) = self.plain_tagged_datagram(frame.data())
        {
            return self.enqueue_datagram(pool, socket, frame, parts);
        }
        match self.receive(pool, &mut frame, origin, now) {
            Ok(Disposition::Deliver { socket, parts }) => {
                self.enqueue_datagram(pool, socket, frame, parts);
            }
            Ok(Disposition::Transmit(answer)) => match self.transmit(pool, frame) {
                Ok(()) => self.events.count(answer),
                Err(reason) => self.drops.count(reason),
            },
            Ok(Disposition::Done) => pool.give(frame),
            Ok(Disposition::Handoff(to)) => self.hand_off(pool, to, frame),
            Err(reason) => self.discard(pool, frame, reason),
        }
    }

    /// Runs every timer that is due. Cheap when none is.
    #[inline]
    pub fn expire(&mut self, pool: &mut P, now: Instant) {
        self.expire_tcp(now);
        if now >= self.next_expiry {
            self.next_expiry = now + EXPIRY_INTERVAL;
            self.expire_next_hops(now);
            self.expire_neighbors(pool, now);
            self.expire_path_mtus(now);
            self.expire_fragments(pool, now);
            self.announce_addresses(pool, now);
        }
    }

    /// When [`expire`](Self::expire) has to be called next, at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Instant {
        let tcp = self.tcp_next_deadline();
        tcp.map_or(self.next_expiry, |tcp| tcp.min(self.next_expiry))
    }

    /// Gives frames to the driver until none is left or `send` hands one back. Returns how many
    /// went.
    #[inline(always)] // See `fast_path`.
    pub fn egress(&mut self, mut send: impl FnMut(P::Frame) -> Result<(), P::Frame>) -> usize {
        let (mut sent, mut bytes) = (0, 0);
        self.egress.take_all(|frame| {
            let len = frame.data().len();
            send(frame)?;
            sent += 1;
            bytes += len;
            Ok(())
        });
        self.events.add(Event::FrameTx, sent as u64);
        self.events.add(Event::FrameTxBytes, bytes as u64);
        sent
    }

    /// Frames waiting for [`egress`](Self::egress).
    #[must_use]
    pub fn egress_len(&self) -> usize {
        self.egress.len()
    }

    /// The next frame that belongs to another worker.
    #[inline]
    pub fn next_handoff(&mut self) -> Option<(Handoff, P::Frame)> {
        self.handoffs.pop_front()
    }

    /// The next neighbour the kernel is to be asked about.
    #[inline]
    pub fn next_wanted_neighbor(&mut self) -> Option<IpAddr> {
        self.wanted.pop_front()
    }

    /// Swaps in a new state of the link; the old one comes back, to be dropped elsewhere.
    pub fn set_link(&mut self, link: Box<LinkState>, now: Instant) -> Box<LinkState> {
        let old = core::mem::replace(&mut self.link, link);
        self.plain_destination = if self.config.vlans == VlanIds::NONE {
            AddressWord::new(self.link.mac)
        } else {
            AddressWord::NONE
        };
        self.v4.set_addresses(&self.link.addresses);
        self.v6.set_addresses(&self.link.addresses);
        self.forget_next_hops();
        self.rebuild_demux();
        self.rebuild_tcp_listeners();
        if self.config.announce {
            // RFC 5227 §2.1, RFC 4861 §7.2.6: a link that came back may be another, and an address
            // that moved to another NIC is to be found there.
            let is_new = old.mac != self.link.mac || (self.link.up && !old.up);
            if is_new {
                self.announcements = Announcements::default();
            }
            if self.link.up {
                self.announcements.set_addresses(&self.link.addresses, now);
            }
        }
        old
    }

    /// Follows a change of one neighbour that the kernel told us.
    pub fn set_neighbor(&mut self, pool: &mut P, update: NeighborUpdate) {
        self.mirror_neighbor(pool, update);
    }

    /// The link as the stack knows it.
    #[must_use]
    pub fn link(&self) -> &LinkState {
        &self.link
    }

    /// Binds a UDP socket whose queue holds at most `queue` datagrams.
    ///
    /// The address need not be ours yet; packets come once it is.
    ///
    /// # Errors
    /// [`BindError`], with the `errno` of the same call on Linux.
    pub fn udp_bind(&mut self, bind: Bind, queue: usize) -> Result<UdpSocketId, BindError> {
        let bind = self.free_to_bind(bind)?;
        let id = self
            .udp
            .insert(bind, queue.max(1))
            .ok_or(BindError::TooManySockets)?;
        self.add_to_demux(&bind, Target::Socket(id.index));
        Ok(id)
    }

    /// Says that packets for `bind` are served by other workers, under a tag of the caller's.
    ///
    /// # Errors
    /// As [`udp_bind`](Self::udp_bind).
    pub fn udp_bind_elsewhere(&mut self, bind: Bind, tag: u16) -> Result<(), BindError> {
        let bind = self.free_to_bind(bind)?;
        let behind = self.elsewhere_behind(bind.local.port());
        self.elsewhere.insert(behind, (bind, tag));
        self.add_to_demux(&bind, Target::Elsewhere(tag));
        Ok(())
    }

    /// Forgets everything said with [`udp_bind_elsewhere`](Self::udp_bind_elsewhere).
    pub fn udp_unbind_elsewhere(&mut self) {
        self.elsewhere.clear();
        self.rebuild_demux();
    }

    fn free_to_bind(&self, bind: Bind) -> Result<Bind, BindError> {
        let bind = bind.validate()?;
        let port = bind.local.port();
        let others = self.elsewhere[..self.elsewhere_behind(port)].iter().rev();
        let others = others.map(|(other, _)| other);
        let mut taken = self
            .udp
            .on_port(port)
            .chain(others.take_while(|other| other.local.port() == port));
        if taken.any(|other| other.conflicts_with(&bind)) {
            return Err(BindError::AddressInUse);
        }
        Ok(bind)
    }

    /// Closes a socket; what waits in it is dropped.
    pub fn udp_close(&mut self, pool: &mut P, id: UdpSocketId) {
        let Some(mut socket) = self.udp.remove(id) else {
            return;
        };
        while let Some(datagram) = socket.queue.pop() {
            self.udp_discard(pool, datagram, DropReason::UdpSocketClosed);
        }
        if let Some(bind) = socket.bind {
            self.remove_from_demux(&bind);
        }
    }

    /// The last ICMP error about something the socket sent, once.
    pub fn udp_take_error(&mut self, id: UdpSocketId) -> Option<SoftError> {
        self.udp.get_mut(id)?.soft_error.take()
    }

    /// Where in `elsewhere` those behind this port begin.
    fn elsewhere_behind(&self, port: u16) -> usize {
        self.elsewhere
            .partition_point(|(other, _)| other.local.port() <= port)
    }

    /// Gives a socket its entries: one for each address it covers. Whoever binds many pays for each
    /// of them alone: the tables are written anew only when they have to grow, to twice the size.
    fn add_to_demux(&mut self, bind: &Bind, target: Target) {
        let Self { v4, v6, link, .. } = self;
        let entries = link.addresses.len();
        if !v4.demux.has_room(entries) || !v6.demux.has_room(entries) {
            return self.rebuild_demux();
        }
        let port = bind.local.port();
        for LocalAddress { address, .. } in &link.addresses {
            match *address {
                address if !bind.covers(address) => false,
                IpAddr::V4(address) => v4.demux.insert(address, port, target),
                IpAddr::V6(address) => v6.demux.insert(address, port, target),
            };
        }
    }

    /// Takes the entries of a socket away. Nobody else has entries for what it covers.
    fn remove_from_demux(&mut self, bind: &Bind) {
        let Self { v4, v6, link, .. } = self;
        let port = bind.local.port();
        for LocalAddress { address, .. } in &link.addresses {
            match *address {
                address if !bind.covers(address) => false,
                IpAddr::V4(address) => v4.demux.remove(address, port),
                IpAddr::V6(address) => v6.demux.remove(address, port),
            };
        }
    }

    /// Writes the tables of both versions anew: each socket gets an entry for each address it
    /// covers.
    fn rebuild_demux(&mut self) {
        let Self {
            v4,
            v6,
            udp,
            elsewhere,
            link,
            ..
        } = self;
        let sockets = udp
            .iter()
            .map(|(index, bind)| (bind, Target::Socket(index)));
        let others = elsewhere
            .iter()
            .map(|(bind, tag)| (bind, Target::Elsewhere(*tag)));
        let binds: Vec<_> = sockets.chain(others).collect();
        let entries = binds.len() * link.addresses.len();
        v4.demux.reset(entries);
        v6.demux.reset(entries);
        for LocalAddress { address, .. } in &link.addresses {
            for (bind, target) in binds.iter().filter(|(bind, _)| bind.covers(*address)) {
                let port = bind.local.port();
                match *address {
                    IpAddr::V4(address) => v4.demux.insert(address, port, *target),
                    IpAddr::V6(address) => v6.demux.insert(address, port, *target),
                };
            }
        }
    }

    /// Whose address it is, if it is one of ours.
    fn owner_of(&self, address: IpAddr) -> Option<AddressOwner> {
        let local = self
            .link
            .addresses
            .iter()
            .find(|local| local.address == address)?;
        Some(local.owner)
    }

    /// Counts a drop and gives the frame back.
    #[inline(always)] // See `aside`.
    fn discard(&mut self, pool: &mut P, frame: P::Frame, reason: DropReason) {
        self.drops.count(reason);
        pool.give(frame);
    }

    fn hand_off(&mut self, pool: &mut P, to: Handoff, frame: P::Frame) {
        if self.handoffs.len() >= HANDOFFS_MAX {
            return self.discard(pool, frame, DropReason::HandoffFull);
        }
        self.handoffs.push_back((to, frame));
    }

    /// Queues a question for the kernel.
    fn want_neighbor(&mut self, address: IpAddr) {
        if self.wanted.len() < WANTED_MAX && !self.wanted.contains(&address) {
            self.events.count(Event::NeighborAsked);
            self.wanted.push_back(address);
        }
    }

    /// What was dropped, by reason.
    #[must_use]
    pub fn drops(&self) -> &DropCounters {
        &self.drops
    }

    /// The same, for what the caller drops on the stack's behalf.
    pub fn drops_mut(&mut self) -> &mut DropCounters {
        &mut self.drops
    }

    /// What happened.
    #[must_use]
    pub fn events(&self) -> &EventCounters {
        &self.events
    }

    /// The same, for what the caller does on the stack's behalf.
    pub fn events_mut(&mut self) -> &mut EventCounters {
        &mut self.events
    }

    /// Gives back every frame the stack holds, before the pool goes.
    pub fn release_all(&mut self, pool: &mut P) {
        while let Some(frame) = self.egress.pop() {
            self.drops.count(DropReason::TxQueueFull);
            pool.give(frame);
        }
        for (_, frame) in self.handoffs.drain(..) {
            self.drops.count(DropReason::HandoffFull);
            pool.give(frame);
        }
        for datagram in self.udp.drain() {
            self.drops.count(DropReason::UdpSocketClosed);
            match datagram.0 {
                Storage::Frame { frame, .. } => pool.give(frame),
                Storage::Large(large) => self.large.push(large),
            }
        }
        self.release_waiting(pool);
    }
}
