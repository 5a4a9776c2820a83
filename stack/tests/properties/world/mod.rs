//! A stack with everything around it, driven by a few bytes: packets from a peer, changes of the link,
//! applications, time. After each step it checks that every frame is accounted for, and
//! that what leaves is right. The fuzz target `stack` and the tests beside it drive the same world.
//!
//! ```text
//!   program = settings (8 bytes), then steps: length (1 byte), that many bytes
//!
//!   step ─► packets ─► Stack::ingest ─► counters: one outcome a frame
//!                            │
//!                            └─► Stack::egress ─► judge: nothing wrong leaves
//! ```
//!
//! A step that is shorter than what it wants to read reads zeros, so every program means something.
#![allow(clippy::unwrap_used, reason = "what panics here is the finding")]
#![allow(dead_code, unreachable_pub, reason = "each user uses some of it")]

pub mod judge;
pub mod packets;
pub mod readers;
pub mod view;

use judge::{Judge, Message, ShownOnPanic};
use packets::*;
use stack::counters::{DropCounters, DropReason, Event, EventCounters};
use stack::frame::{Frame, FramePool, Stamps};
use stack::heap::{HeapFrame, HeapPool};
use stack::ip::route::{Route, RouteKind, RouteTable};
use stack::link::{AddressOwner, LinkState, LocalAddress, NeighborUpdate};
use stack::socket::bind::Bind;
use stack::time::{Duration, Instant};
use stack::udp::{Datagram, UdpSocketId};
use stack::wire::ethernet::VlanIds;
use stack::{Config, Handoff, Origin, SendTo, Stack};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Bytes of a program in front of its steps.
pub const SETTINGS_BYTES: usize = 8;
/// The port of the datagram that shows that the stack still works.
const LAST_PORT: u16 = 9999;

/// Drops that may also happen to packets other than the one just received: to what we send, or to
/// what had to make room.
const SIDE_EFFECTS: [DropReason; 11] = [
    DropReason::FragmentLimit,
    DropReason::IcmpRateLimited,
    DropReason::TxNoRoute,
    DropReason::TxNeighborUnresolved,
    DropReason::TxNeighborTableFull,
    DropReason::TxNeighborFailed,
    DropReason::TxNoFrame,
    DropReason::TxQueueFull,
    DropReason::TxTooLong,
    DropReason::HandoffFull,
    DropReason::FrameTooLong,
];

/// Makes a program of its parts.
pub fn program(settings: [u8; SETTINGS_BYTES], steps: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = settings.to_vec();
    for step in steps {
        let len = u8::try_from(step.len()).expect("a step has at most 255 bytes");
        bytes.push(len);
        bytes.extend(step);
    }
    bytes
}

pub struct World {
    stack: Stack<HeapPool>,
    pool: HeapPool,
    now: Instant,
    judge: Judge,
    config: Config,
    link: LinkState,
    sockets: Vec<UdpSocketId>,
    /// Datagrams that applications keep for a while.
    held: Vec<Datagram<HeapFrame>>,
    /// What the frames delivered so far contained and no application has read yet.
    inbox: Vec<Message>,
    /// Whether frames leave after each step, or only when a step says so.
    lazy: bool,
    given: u64,
    sent: u64,
    sent_bytes: u64,
}

impl World {
    /// Runs a program, and then checks that the stack has kept nothing and still works.
    pub fn run(program: &[u8]) {
        let (settings, mut steps) = program.split_at(SETTINGS_BYTES.min(program.len()));
        let mut world = Self::new(&mut Choices::new(settings));
        // More shows nothing new, and would only be slow.
        for _ in 0..64 {
            let Some((&len, rest)) = steps.split_first() else {
                break;
            };
            let (step, rest) = rest.split_at(usize::from(len).min(rest.len()));
            world.step(&mut Choices::new(step));
            steps = rest;
        }
        world.finish();
    }

    /// A link with an MTU of 1500 bytes, untagged, with default limits.
    pub fn usual() -> Self {
        Self::new(&mut Choices::new(&[]))
    }

    /// Gives frames to the stack, lets what it sends leave, and says why it dropped what.
    pub fn tell(&mut self, packets: &[Vec<u8>]) -> Vec<&'static str> {
        let before = self.counted();
        for packet in packets {
            self.receive(packet, Origin::Ring);
            self.leave(usize::MAX);
        }
        let after = self.counted();
        let all = DropReason::ALL.iter();
        all.filter(|reason| after.0.get(**reason) > before.0.get(**reason))
            .map(|reason| reason.name())
            .collect()
    }

    /// Sends a datagram from the address shared with the kernel.
    pub fn send_to(&mut self, remote: SocketAddr) {
        let local = SocketAddr::new(SHARED_V4.into(), 7);
        let to = SendTo {
            local,
            remote,
            tos: 0,
        };
        let before = self.counted();
        let result = self.stack.udp_send(&mut self.pool, to, b"hello", self.now);
        self.check_sent(&before, (local, remote, b"hello".to_vec()), result);
    }

    pub fn sent(&self) -> u64 {
        self.sent
    }

    fn new(settings: &mut Choices<'_>) -> Self {
        let vlans: &[u16] = settings.of(&[&[][..], &[], &[], &[5], &[100, 5]]);
        let mtu = settings.of(&[1500, 1500, 1280, 576, 9000, 68, 65_535, 70_000, 0, 20]);
        let limits = settings.byte();
        let small = limits & 1 != 0;
        let config = Config {
            vlans: VlanIds::new(vlans).unwrap(),
            accept_incomplete_checksums: limits & 2 != 0,
            icmp_burst: if limits & 4 != 0 { 2 } else { 1000 },
            icmp_rate_per_s: if limits & 4 != 0 { 1 } else { 100_000 },
            announce: limits & 8 != 0,
            reassembly_bytes: settings.of(&[1 << 20, 1 << 16, 4096, 0]),
            reassembly_datagrams: if small { 2 } else { 64 },
            neighbors: if small { 3 } else { 64 },
            egress_queue: if limits & 16 != 0 { 4 } else { 256 },
            udp_sockets: 6,
            ..Config::default()
        };
        let pool = HeapPool::new(
            settings.of(&[64, 64, 64, 6]),
            settings.of(&[2048, 2048, 2048, 4096, 600, 128]),
        );
        let judge = Judge::new(usize::try_from(mtu).unwrap(), vlans, config.ttl);
        let mut world = Self {
            stack: Stack::new(config.clone()),
            pool,
            now: Instant::from_nanos(1_000_000_000),
            judge,
            config,
            link: LinkState::default(),
            sockets: Vec::new(),
            held: Vec::new(),
            inbox: Vec::new(),
            lazy: settings.chance(80),
            given: 0,
            sent: 0,
            sent_bytes: 0,
        };
        world.set_link(0, mtu);
        for address in [IpAddr::V4(PEER_V4), IpAddr::V6(PEER_V6)] {
            let known = NeighborUpdate::Set {
                address,
                mac: PEER_MAC,
            };
            world.stack.set_neighbor(&mut world.pool, known);
        }
        world.bind("[::]:7", false, 4);
        world.bind("192.0.2.9:9", false, 2);
        world
    }

    fn bind(&mut self, local: &str, v6only: bool, queue: usize) {
        let bind = Bind {
            local: local.parse().unwrap(),
            v6only,
        };
        if let Ok(id) = self.stack.udp_bind(bind, queue) {
            self.sockets.push(id);
        }
    }

    /// Says that another worker serves a port.
    pub fn bind_elsewhere(&mut self, local: &str) {
        let bind = Bind {
            local: local.parse().unwrap(),
            v6only: false,
        };
        self.stack.udp_bind_elsewhere(bind, 3).unwrap();
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        match choices.below(16) {
            0..=7 => {
                let origin = if choices.chance(20) {
                    Origin::Handoff { visited: 1 }
                } else {
                    Origin::Ring
                };
                for packet in packets(choices) {
                    self.receive_tagged(packet, origin);
                }
            }
            8 => {
                let ms = choices.of(&[10, 1000, 1, 100, 5000, 31_000, 601_000]);
                self.pass(ms + u64::from(choices.byte()));
            }
            9 | 10 => self.read(choices),
            11 => self.send(choices),
            12 => {
                let room = choices.below(8);
                self.leave(room);
            }
            13 => self.change_neighbor(choices),
            14 => {
                let mtu = choices.of(&[0, 0, 0, 1500, 1280, 600]);
                let mtu = if mtu == 0 { self.link.mtu } else { mtu };
                self.set_link(choices.below(6), mtu);
            }
            _ => self.change_sockets(choices),
        }
        while let Some(wanted) = self.stack.next_wanted_neighbor() {
            assert!(!wanted.is_unspecified() && !wanted.is_multicast());
        }
        if !self.lazy {
            self.leave(usize::MAX);
        }
    }

    fn receive_tagged(&mut self, mut packet: Vec<u8>, origin: Origin) {
        let ids = self.config.vlans.as_slice().iter();
        let tags: Vec<[u8; 4]> = ids
            .map(|id| [0x81, 0, id.to_be_bytes()[0], id.to_be_bytes()[1]])
            .collect();
        tag_frame(&mut packet, &tags);
        self.receive(&packet, origin);
    }

    /// Gives a frame to the stack and checks what became of it.
    pub fn receive(&mut self, packet: &[u8], origin: Origin) {
        let Some(mut frame) = self.pool.receive(packet) else {
            return;
        };
        frame.set_stamps(Stamps {
            arrival_ns: 1,
            taken_ns: 2,
        });
        let _shown = ShownOnPanic("received", packet);
        self.judge.hear(packet);
        self.given += 1;
        let before = self.counted();
        self.stack.ingest(&mut self.pool, frame, origin, self.now);
        let after = self.counted();
        let mut handed = Vec::new();
        while let Some((to, frame)) = self.stack.next_handoff() {
            if is_piece(packet) {
                // Put together, and cut as suits the other worker.
                assert_eq!(frame.data()[..12], packet[..12]);
            } else {
                assert_eq!(frame.data(), packet, "handed on as it came");
            }
            assert_eq!(origin, Origin::Ring, "handed on a second time");
            handed.push(to);
            self.pool.give(frame);
        }
        if is_piece(packet) {
            // One datagram for one worker.
            handed.dedup();
        }
        self.check_outcome(packet, origin, &before, &after, &handed);
        if handed.contains(&Handoff::Everyone) {
            self.receive(packet, Origin::Handoff { visited: 1 });
        }
    }

    fn counted(&self) -> (DropCounters, EventCounters) {
        (self.stack.drops().clone(), self.stack.events().clone())
    }

    /// A frame is delivered, answered, handed on, done with, or dropped for one reason.
    fn check_outcome(
        &mut self,
        packet: &[u8],
        origin: Origin,
        before: &(DropCounters, EventCounters),
        after: &(DropCounters, EventCounters),
        handed: &[Handoff],
    ) {
        let events = |event| after.1.get(event) - before.1.get(event);
        let (mut reasons, mut side_effects) = (Vec::new(), 0);
        for &reason in DropReason::ALL {
            let count = after.0.get(reason) - before.0.get(reason);
            if SIDE_EFFECTS.contains(&reason) {
                side_effects += count;
            } else {
                reasons.extend((0..count).map(|_| reason.name()));
            }
        }
        assert_eq!(events(Event::FrameRx), 1);
        assert_eq!(events(Event::FrameRxBytes), packet.len() as u64);
        let delivered = events(Event::UdpRx);
        let answered =
            events(Event::IcmpEchoReplied) + events(Event::ArpReplied) + events(Event::NdpReplied);
        let understood = events(Event::IcmpErrorRx) + events(Event::AddressConflict);
        // What was understood may concern the other workers as well.
        let kept = delivered + answered + understood.max(handed.len() as u64);
        let kept_piece = events(Event::FragmentRx) == 1;
        // What another worker learned about a neighbour ends here.
        let told = origin != Origin::Ring && is_neighbor_news(packet);
        let what = || format!("{kept} outcomes, {reasons:?} and {side_effects} side effects");
        assert!(kept <= 1 && reasons.len() <= 1, "{}", what());
        if kept == 1 {
            assert!(reasons.is_empty(), "{}", what());
        } else if !kept_piece && !told {
            assert!(
                reasons.len() == 1 || side_effects > 0,
                "{}: {packet:02x?}",
                what()
            );
        }
        if delivered == 1 {
            self.check_delivery(packet, events(Event::UdpRxBytes));
        }
        if events(Event::IcmpEchoReplied) == 1 {
            self.judge.expect_echo(packet);
        }
    }

    /// Reads a delivered datagram a second time, slowly.
    fn check_delivery(&mut self, packet: &[u8], payload_len: u64) {
        let view = View::of(packet).expect("a delivered frame can be read");
        assert_eq!(packet[..6], OUR_MAC, "for our station");
        assert_eq!(view.vlans, self.config.vlans.as_slice());
        if is_piece(packet) {
            return;
        }
        assert_eq!(view.protocol, 17);
        let Ends {
            source,
            destination,
        } = view.ends;
        let ours = |local: &LocalAddress| local.address == destination;
        assert!(
            self.link.addresses.iter().any(ours),
            "for an address of ours"
        );
        let bytes = &packet[view.transport.clone()];
        let len = usize::from(u16::from_be_bytes([bytes[4], bytes[5]]));
        let message = &bytes[..len];
        let pseudo = pseudo_header(view.ends, 17, len);
        let partial = (!checksum(&[&pseudo])).to_be_bytes();
        let right = checksum(&[&pseudo, message]) == 0;
        let absent = message[6..8] == [0, 0] && source.is_ipv4();
        let accepted = self.config.accept_incomplete_checksums && message[6..8] == partial;
        assert!(right || absent || accepted, "the checksum");
        let port = |at: usize| u16::from_be_bytes([message[at], message[at + 1]]);
        assert_ne!(port(2), 0);
        assert_eq!(payload_len, len as u64 - 8);
        self.inbox.push((
            SocketAddr::new(source, port(0)),
            SocketAddr::new(destination, port(2)),
            message[8..].to_vec(),
        ));
    }

    /// An application takes a datagram and does something with it.
    fn read(&mut self, choices: &mut Choices<'_>) {
        if self.sockets.is_empty() {
            return;
        }
        let socket = choices.of(&self.sockets);
        let waiting = self.stack.udp_recv_len(socket);
        let Some(mut datagram) = self.stack.udp_recv(socket) else {
            assert_eq!(waiting, 0);
            return;
        };
        assert_eq!(self.stack.udp_recv_len(socket), waiting - 1);
        self.check_read(&datagram);
        match choices.below(8) {
            0..=3 => {}
            4 => {
                let len = choices.of(&[0, 1, 100, 1400, 3000, 65_507, 65_600, usize::MAX]);
                let len = datagram.set_payload_len(len);
                assert_eq!(datagram.payload().len(), len);
                datagram.payload_mut().fill(choices.byte());
            }
            5 => return self.stack.udp_release(&mut self.pool, datagram),
            6 => {
                let reason = DropReason::UdpNoReply;
                return self.stack.udp_discard(&mut self.pool, datagram, reason);
            }
            _ if self.held.len() < 3 => {
                self.held.push(datagram);
                return;
            }
            _ => {}
        }
        self.reply(datagram);
    }

    fn check_read(&mut self, datagram: &Datagram<HeapFrame>) {
        let (remote, local) = (datagram.remote(), datagram.local());
        assert_eq!(datagram.ports(), (remote.port(), local.port()));
        assert_eq!(datagram.stamps().taken_ns, 2);
        let found = self.inbox.iter().position(|(from, to, payload)| {
            (*from, *to) == (remote, local) && payload == datagram.payload()
        });
        match found {
            Some(index) => {
                self.inbox.swap_remove(index);
            }
            // Put together from pieces, which may have been lies; but between ends that exist.
            None => assert_eq!(remote.is_ipv4(), local.is_ipv4()),
        }
    }

    fn reply(&mut self, datagram: Datagram<HeapFrame>) -> bool {
        let promise = (
            datagram.local(),
            datagram.remote(),
            datagram.payload().to_vec(),
        );
        let before = self.counted();
        let result = self.stack.udp_reply(&mut self.pool, datagram, self.now);
        self.check_sent(&before, promise, result)
    }

    fn send(&mut self, choices: &mut Choices<'_>) {
        let v6 = choices.byte() & 1 != 0;
        let (local, remote): (IpAddr, IpAddr) = if v6 {
            let local = choices.of(&[SHARED_V6, OWN_V6]);
            (local.into(), choices.of(&ADDRESSES_V6).into())
        } else {
            let local = choices.of(&[SHARED_V4, OWN_V4]);
            (local.into(), choices.of(&ADDRESSES_V4).into())
        };
        let tos = choices.byte();
        let plain = SendTo {
            local: SocketAddr::new(local, choices.of(&[7, 9])),
            remote: SocketAddr::new(remote, choices.of(&[4000, 7, 0])),
            tos,
        };
        let mapped = |end: SocketAddr, is_mapped: bool| match end.ip() {
            IpAddr::V4(address) if is_mapped => {
                SocketAddr::new(address.to_ipv6_mapped().into(), end.port())
            }
            _ => end,
        };
        let len = choices.of(&[5, 0, 1400, 1472, 1473, 3000, 9000, 65_507, 65_527, 65_528]);
        let payload = counting(len, choices.byte());
        let before = self.counted();
        let to = SendTo {
            local: mapped(plain.local, choices.chance(40)),
            remote: mapped(plain.remote, choices.chance(40)),
            tos,
        };
        let result = self.stack.udp_send(&mut self.pool, to, &payload, self.now);
        self.check_sent(&before, (plain.local, plain.remote, payload), result);
    }

    /// A datagram that was not sent was counted under the reason that its sender was told.
    fn check_sent(
        &mut self,
        before: &(DropCounters, EventCounters),
        message: Message,
        result: Result<(), stack::SendError>,
    ) -> bool {
        let after = self.counted();
        let grew = after.1.get(Event::UdpTx) - before.1.get(Event::UdpTx);
        match result {
            Ok(()) => {
                assert_eq!(grew, 1);
                self.judge.expect_datagram(message);
            }
            Err(stack::SendError(reason)) => {
                assert_eq!(grew, 0);
                assert!(after.0.get(reason) > before.0.get(reason));
            }
        }
        result.is_ok()
    }

    pub fn pass(&mut self, ms: u64) {
        self.now = self.now + Duration::from_millis(ms);
        self.stack.expire(&mut self.pool, self.now);
    }

    /// Lets at most `room` frames leave.
    fn leave(&mut self, room: usize) {
        let (waiting, mut frames) = (self.stack.egress_len(), Vec::new());
        let count = self.stack.egress(|frame| {
            if frames.len() == room {
                return Err(frame);
            }
            frames.push(frame);
            Ok(())
        });
        assert_eq!(count, frames.len());
        assert_eq!(count, waiting.min(room));
        assert_eq!(self.stack.egress_len(), waiting - count);
        for frame in frames {
            self.sent += 1;
            self.sent_bytes += frame.data().len() as u64;
            self.judge.look(frame.data());
            self.pool.give(frame);
        }
        let events = self.stack.events();
        assert_eq!(events.get(Event::FrameTx), self.sent);
        assert_eq!(events.get(Event::FrameTxBytes), self.sent_bytes);
    }

    fn change_neighbor(&mut self, choices: &mut Choices<'_>) {
        let address = if choices.byte() & 1 == 0 {
            IpAddr::V4(choices.of(&ADDRESSES_V4[..10]))
        } else {
            IpAddr::V6(choices.of(&ADDRESSES_V6[..9]))
        };
        let update = if choices.byte() & 1 == 0 {
            let mac = [2, 0, 0, 0, 1, choices.byte()];
            NeighborUpdate::Set { address, mac }
        } else {
            NeighborUpdate::Remove { address }
        };
        self.stack.set_neighbor(&mut self.pool, update);
    }

    fn change_sockets(&mut self, choices: &mut Choices<'_>) {
        let locals = [
            "[::]:7",
            "0.0.0.0:7",
            "0.0.0.0:53",
            "192.0.2.1:53",
            "[2001:db8::9]:53",
            "[2001:db8::1]:4000",
            "[::ffff:192.0.2.9]:4000",
            "[::]:65535",
        ];
        let what = choices.byte();
        let (local, v6only) = (choices.of(&locals), choices.byte() & 1 != 0);
        match what % 4 {
            0 | 1 => self.bind(local, v6only, choices.of(&[1, 4, 0])),
            2 if !self.sockets.is_empty() => {
                let index = choices.below(self.sockets.len());
                let id = self.sockets.swap_remove(index);
                self.stack.udp_close(&mut self.pool, id);
                assert!(self.stack.udp_recv(id).is_none());
            }
            _ => {
                let bind = Bind {
                    local: local.parse().unwrap(),
                    v6only,
                };
                let _ = self.stack.udp_bind_elsewhere(bind, 3);
            }
        }
        for id in &self.sockets {
            let _ = self.stack.udp_take_error(*id);
        }
    }

    fn set_link(&mut self, variant: usize, mtu: u32) {
        // Frames on their way out were made for what was before.
        if mtu < self.link.mtu {
            self.leave(usize::MAX);
        }
        self.judge.mtu = self.judge.mtu.max(usize::try_from(mtu).unwrap());
        self.link = link(variant, mtu);
        let Self { judge, link, .. } = self;
        let has = |address: &IpAddr| link.addresses.iter().any(|local| local.address == *address);
        judge.ours.retain(has);
        self.stack.set_link(Box::new(self.link.clone()), self.now);
    }

    /// Time heals everything: frames come back, memory is free, datagrams are echoed.
    pub fn finish(mut self) {
        for datagram in std::mem::take(&mut self.held) {
            self.reply(datagram);
            self.leave(usize::MAX);
        }
        for id in std::mem::take(&mut self.sockets) {
            self.stack.udp_close(&mut self.pool, id);
        }
        self.leave(usize::MAX);
        for _ in 0..10 {
            self.pass(61_000);
            self.leave(usize::MAX);
        }
        let mtu = self.link.mtu;
        self.set_link(0, mtu);
        // Nothing waits for an answer that long, and everything else has been read or closed.
        assert_eq!(self.pool.in_use(), 0, "frames kept for ever");
        self.check_still_works();
        self.leave(usize::MAX);
        assert_eq!(self.stack.events().get(Event::FrameRx), self.given);
        self.stack.release_all(&mut self.pool);
        assert_eq!(self.pool.in_use(), 0, "frames lost");
    }

    fn check_still_works(&mut self) {
        let local = format!("[::]:{LAST_PORT}");
        self.bind(&local, false, 4);
        let &[socket] = &self.sockets[..] else {
            panic!("closed sockets can be bound again");
        };
        let peers = [
            Ends::new(PEER_V4, SHARED_V4),
            Ends::new(PEER_V6, SHARED_V6),
            Ends::new(PEER_V4, OWN_V4),
        ];
        // Frames too small for a datagram, or a link that carries none, echo nothing.
        let room = self.config.vlans.header_len() + 48 + 16;
        let small = self.link.mtu < 64 || self.pool_frame_bytes() < room;
        for ends in peers {
            let message = udp(ends, 4000, LAST_PORT, b"still there?");
            let frame = ip_frame(ends, 17, &message, &mut Choices::new(&[]));
            self.receive_tagged(frame, Origin::Ring);
            if self.config.reassembly_bytes > 0 {
                for piece in pieces(ends, 17, &message, 16, 999) {
                    self.receive_tagged(piece, Origin::Ring);
                }
            }
            let expected = if self.config.reassembly_bytes > 0 {
                2
            } else {
                1
            };
            for _ in 0..expected {
                let datagram = self.stack.udp_recv(socket);
                if datagram.is_none() && small {
                    continue;
                }
                let datagram = datagram.expect("a datagram is delivered");
                assert_eq!(datagram.payload(), b"still there?");
                let sent = self.reply(datagram);
                assert!(sent || small, "a datagram is echoed");
                self.leave(usize::MAX);
            }
        }
    }

    fn pool_frame_bytes(&mut self) -> usize {
        let Some(frame) = self.pool.take() else {
            return 0;
        };
        let bytes = frame.capacity();
        self.pool.give(frame);
        bytes
    }
}

/// A fragment that is not the whole datagram.
fn is_piece(packet: &[u8]) -> bool {
    let piece = View::of(packet).and_then(|view| view.piece);
    piece.is_some_and(|piece| !piece.is_whole())
}

/// An ARP reply or a neighbour advertisement.
fn is_neighbor_news(packet: &[u8]) -> bool {
    match payload_of(packet) {
        Some((at, 0x0806, _)) => packet.get(at + 7) == Some(&2),
        _ => View::of(packet).is_some_and(|view| {
            view.protocol == 58 && packet.get(view.transport.start) == Some(&136)
        }),
    }
}

/// Links as the control plane may describe them, from usual to bare.
fn link(variant: usize, mtu: u32) -> LinkState {
    let local = |address: IpAddr, owner| LocalAddress {
        address,
        prefix_len: if address.is_ipv4() { 24 } else { 64 },
        broadcast: None,
        owner,
    };
    let own = if variant == 4 {
        AddressOwner::Kernel
    } else {
        AddressOwner::Stack
    };
    let mut addresses = vec![
        LocalAddress {
            broadcast: Some(Ipv4Addr::new(192, 0, 2, 255)),
            ..local(SHARED_V4.into(), AddressOwner::Kernel)
        },
        local(SHARED_V6.into(), AddressOwner::Kernel),
        local(OWN_V4.into(), own),
        local(OWN_V6.into(), own),
    ];
    match variant {
        1 => addresses.truncate(2),
        2 => addresses.retain(|local| local.address.is_ipv6()),
        3 => addresses.clear(),
        _ => {}
    }
    let route = |network: &str, prefix_len| Route::on_link(network.parse().unwrap(), prefix_len);
    let via = |route: Route, gateway: IpAddr| Route {
        gateway: Some(gateway),
        ..route
    };
    let mut routes = vec![
        route("192.0.2.0", 24),
        route("2001:db8::", 64),
        route("fe80::", 64),
        via(route("0.0.0.0", 0), GATEWAY_V4.into()),
        via(route("::", 0), GATEWAY_V6.into()),
        via(route("198.18.0.0", 15), GATEWAY_V6.into()),
        Route {
            mtu: Some(700),
            ..via(route("100.64.0.0", 10), GATEWAY_V4.into())
        },
        Route {
            mtu: Some(1300),
            ..via(route("2001:db8:2::", 48), GATEWAY_V6.into())
        },
        Route {
            kind: RouteKind::Blackhole,
            ..route("203.0.113.0", 24)
        },
        Route {
            kind: RouteKind::Unreachable,
            ..route("2001:db8:dead::", 48)
        },
    ];
    if variant == 5 {
        routes.truncate(2);
    }
    LinkState {
        mac: OUR_MAC,
        mtu,
        up: variant != 3,
        addresses,
        routes: RouteTable::new(routes, 16).unwrap(),
    }
}
