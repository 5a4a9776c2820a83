//! ARP and neighbour discovery: finding neighbours, being found, and noticing who else claims an
//! address of ours.
//!
//! For addresses shared with the kernel the kernel does all of it, and we mirror what it knows. For
//! addresses that the stack owns, it is done here.

use super::input::IpMeta;
use super::version::IpStack;
use super::{Disposition, Origin, Stack, WANTED_MAX};
use crate::counters::{DropReason, Event};
use crate::frame::{Frame, FramePool};
use crate::ip::address::{IpAddress, Ipv4, Ipv6};
use crate::ip::neighbor::{Ask, NeighborAction, Resolve, Update};
use crate::link::{AddressOwner, LocalAddress, MacAddr, NeighborUpdate};
use crate::time::{Duration, Instant};
use crate::wire::ndp::{multicast_mac, solicited_node_multicast};
use crate::wire::{arp, ethernet, ipv6, ndp, protocol};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// All nodes on the link (RFC 4291 §2.7.1).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

impl<P: FramePool> Stack<P> {
    /// The Ethernet address of a neighbour; if it is not known, it is being asked for.
    pub(super) fn resolve(
        &mut self,
        pool: &mut P,
        neighbor: IpAddr,
        local: IpAddr,
        now: Instant,
    ) -> Result<MacAddr, DropReason> {
        match neighbor {
            IpAddr::V4(address) => self.resolve_version::<Ipv4>(pool, address, local, now),
            IpAddr::V6(address) => self.resolve_version::<Ipv6>(pool, address, local, now),
        }
    }

    fn resolve_version<I: IpStack>(
        &mut self,
        pool: &mut P,
        address: I::Addr,
        local: IpAddr,
        now: Instant,
    ) -> Result<MacAddr, DropReason> {
        if let Some(mac) = I::state(self).neighbors.lookup(address, now) {
            return Ok(mac);
        }
        let owner = self.owner_of(local).unwrap_or(AddressOwner::Kernel);
        let (ask, evicted) = I::state(self)
            .neighbors
            .inquire(address, owner, now)
            .ok_or(DropReason::TxNeighborTableFull)?;
        if let Some(frame) = evicted {
            self.discard(pool, frame, DropReason::TxNeighborUnresolved);
        }
        self.ask(pool, ask, address.into(), local);
        Err(DropReason::TxNeighborUnresolved)
    }

    /// Asks the kernel to look after a neighbour in use that we mirror, if it is time.
    pub(super) fn refresh_mirrored(&mut self, neighbor: IpAddr, now: Instant) {
        // Without room for the question it is asked later.
        let due = self.wanted.len() < WANTED_MAX
            && match neighbor {
                IpAddr::V4(address) => self.v4.neighbors.refresh_due(address, now),
                IpAddr::V6(address) => self.v6.neighbors.refresh_due(address, now),
            };
        if due {
            self.want_neighbor(neighbor);
        }
    }

    fn ask(&mut self, pool: &mut P, ask: Ask, neighbor: IpAddr, local: IpAddr) {
        match ask {
            Ask::Nobody => {}
            Ask::Kernel => self.want_neighbor(neighbor),
            Ask::Neighbor => self.solicit(pool, neighbor, Some(local), None),
        }
    }

    /// Lets a frame, whole but for its Ethernet destination, wait for its next hop. If it cannot, it
    /// goes back to the pool, for the reason returned.
    pub(super) fn park(
        &mut self,
        pool: &mut P,
        frame: P::Frame,
        neighbor: IpAddr,
        local: IpAddr,
        now: Instant,
    ) -> Result<(), DropReason> {
        match neighbor {
            IpAddr::V4(address) => self.park_version::<Ipv4>(pool, frame, address, local, now),
            IpAddr::V6(address) => self.park_version::<Ipv6>(pool, frame, address, local, now),
        }
    }

    fn park_version<I: IpStack>(
        &mut self,
        pool: &mut P,
        frame: P::Frame,
        address: I::Addr,
        local: IpAddr,
        now: Instant,
    ) -> Result<(), DropReason> {
        let owner = self.owner_of(local).unwrap_or(AddressOwner::Kernel);
        match I::state(self).neighbors.resolve(address, owner, frame, now) {
            Resolve::Resolved(mac, frame) => self.address_and_transmit(pool, frame, mac),
            Resolve::Waiting { ask, displaced } => {
                if let Some(frame) = displaced {
                    self.discard(pool, frame, DropReason::TxNeighborUnresolved);
                }
                self.ask(pool, ask, address.into(), local);
                Ok(())
            }
            Resolve::Full(frame) => {
                pool.give(frame);
                Err(DropReason::TxNeighborTableFull)
            }
        }
    }

    /// Sends a frame that was whole but for its Ethernet destination.
    fn address_and_transmit(
        &mut self,
        pool: &mut P,
        mut frame: P::Frame,
        mac: MacAddr,
    ) -> Result<(), DropReason> {
        let source = self.link.mac;
        ethernet::turn_round(frame.data_mut(), mac, source);
        self.transmit(pool, frame)
    }

    /// Sends a frame that waited for its next hop. Whoever sent it has gone on since.
    fn send_parked(&mut self, pool: &mut P, frame: P::Frame, mac: MacAddr) {
        if let Err(reason) = self.address_and_transmit(pool, frame, mac) {
            self.drops.count(reason);
        }
    }

    fn apply_update(&mut self, pool: &mut P, update: Update<P::Frame>, mac: MacAddr) {
        let Update {
            ready,
            evicted,
            full: _,
        } = update;
        if let Some(frame) = ready {
            self.send_parked(pool, frame, mac);
        }
        if let Some(frame) = evicted {
            self.discard(pool, frame, DropReason::TxNeighborUnresolved);
        }
        self.forget_moved_neighbors();
    }

    /// Makes cached next hops invalid if any neighbour's answer has changed since last time: what
    /// strangers say about themselves again and again must not empty the cache.
    fn forget_moved_neighbors(&mut self) {
        let generations = (
            self.v4.neighbors.generation(),
            self.v6.neighbors.generation(),
        );
        if self.neighbor_generations != generations {
            self.neighbor_generations = generations;
            self.forget_next_hops();
        }
    }

    pub(super) fn mirror_neighbor(&mut self, pool: &mut P, update: NeighborUpdate) {
        match update {
            NeighborUpdate::Set {
                address: IpAddr::V4(address),
                mac,
            } => {
                let update = self.v4.neighbors.mirror(address, mac);
                self.apply_update(pool, update, mac);
            }
            NeighborUpdate::Set {
                address: IpAddr::V6(address),
                mac,
            } => {
                let update = self.v6.neighbors.mirror(address, mac);
                self.apply_update(pool, update, mac);
            }
            NeighborUpdate::Remove { address } => {
                let waiting = match address {
                    IpAddr::V4(address) => self.v4.neighbors.unmirror(address),
                    IpAddr::V6(address) => self.v6.neighbors.unmirror(address),
                };
                if let Some(frame) = waiting {
                    self.discard(pool, frame, DropReason::TxNeighborFailed);
                }
                self.forget_next_hops();
            }
        }
    }

    /// An ARP packet.
    #[cold]
    pub(super) fn receive_arp(
        &mut self,
        pool: &mut P,
        frame: &mut P::Frame,
        offset: usize,
        origin: Origin,
        now: Instant,
    ) -> Result<Disposition, DropReason> {
        let arp = arp::Repr::parse(frame.data(), offset)?;
        let our_mac = self.link.mac;
        if arp.sender_mac == our_mac {
            // Our own announcement, come back through a bridge.
            return Err(DropReason::ArpNotForUs);
        }
        if self.owner_of(arp.sender.into()) == Some(AddressOwner::Stack) {
            return Ok(self.conflict(pool, arp.sender.into(), origin, now));
        }
        let for_us = self.owner_of(arp.target.into()) == Some(AddressOwner::Stack);
        if !for_us {
            return Err(DropReason::ArpNotForUs);
        }
        self.events.count(Event::ArpRx);
        let probe = arp.sender.is_unspecified();
        match arp.operation {
            arp::Operation::Request => {
                // RFC 826: whoever asks for us will be answered soon. A probe has no address yet.
                if !probe {
                    let update = self.v4.neighbors.learn(arp.sender, arp.sender_mac, now);
                    self.apply_update(pool, update, arp.sender_mac);
                }
                let reply = arp::Repr {
                    operation: arp::Operation::Reply,
                    sender_mac: our_mac,
                    sender: arp.target,
                    target_mac: arp.sender_mac,
                    target: arp.sender,
                };
                let data = frame.data_mut();
                ethernet::turn_round(data, arp.sender_mac, our_mac);
                reply.emit(data, offset).ok_or(DropReason::ArpMalformed)?;
                frame.set_len(offset + arp::LEN);
                Ok(Disposition::Transmit(Event::ArpReplied))
            }
            arp::Operation::Reply if probe => Err(DropReason::ArpMalformed),
            arp::Operation::Reply => {
                let neighbors = &mut self.v4.neighbors;
                let ready = neighbors.advertise(arp.sender, Some(arp.sender_mac), true, true, now);
                self.neighbor_answered(pool, ready, arp.sender_mac);
                Ok(Self::tell_everyone(origin))
            }
        }
    }

    fn neighbor_answered(&mut self, pool: &mut P, ready: Option<P::Frame>, mac: MacAddr) {
        if let Some(frame) = ready {
            self.send_parked(pool, frame, mac);
        }
        self.forget_moved_neighbors();
    }

    /// A neighbour solicitation or advertisement.
    pub(super) fn receive_ndp(
        &mut self,
        pool: &mut P,
        frame: &mut P::Frame,
        meta: IpMeta<Ipv6>,
        repr: ndp::Repr,
        origin: Origin,
        now: Instant,
    ) -> Result<Disposition, DropReason> {
        match repr {
            ndp::Repr::Solicitation { target, source_mac } => {
                if self.owner_of(target.into()) != Some(AddressOwner::Stack) {
                    return Err(DropReason::IcmpNotForUs);
                }
                if source_mac == Some(self.link.mac) {
                    // Our own solicitation, come back through a bridge.
                    return Err(DropReason::IcmpNotForUs);
                }
                let invalid = DropReason::EthernetSourceInvalid;
                let asker = self.station_of(frame.data()).ok_or(invalid)?;
                match self.owner_of(meta.source.into()) {
                    // RFC 4862 §5.4.4: somebody else asks from our address.
                    Some(AddressOwner::Stack) => {
                        return Ok(self.conflict(pool, meta.source.into(), origin, now));
                    }
                    Some(AddressOwner::Kernel) => return Err(DropReason::Ipv6SourceInvalid),
                    None => {}
                }
                let macs = (asker, source_mac);
                self.answer_solicitation(pool, frame, meta, target, macs, now)
            }
            ndp::Repr::Advertisement {
                target,
                target_mac,
                solicited,
                overrides,
                router: _,
            } => {
                if target_mac == Some(self.link.mac) {
                    // Our own advertisement, come back through a bridge; or a lie.
                    return Err(DropReason::IcmpNotForUs);
                }
                if self.owner_of(target.into()) == Some(AddressOwner::Stack) {
                    // RFC 4862 §5.4.4: somebody else has our address.
                    return Ok(self.conflict(pool, target.into(), origin, now));
                }
                let neighbors = &mut self.v6.neighbors;
                let ready = neighbors.advertise(target, target_mac, solicited, overrides, now);
                match target_mac {
                    Some(mac) => self.neighbor_answered(pool, ready, mac),
                    None => debug_assert!(ready.is_none(), "invariant: no address, no release"),
                }
                Ok(Self::tell_everyone(origin))
            }
        }
    }

    /// RFC 4861 §7.2.4.
    fn answer_solicitation(
        &mut self,
        pool: &mut P,
        frame: &mut P::Frame,
        meta: IpMeta<Ipv6>,
        target: Ipv6Addr,
        (asker, source_mac): (MacAddr, Option<MacAddr>),
        now: Instant,
    ) -> Result<Disposition, DropReason> {
        // RFC 4862 §5.4.3: a solicitation from the unspecified address asks whether the address is
        // free. It is not: the answer goes to everybody.
        let (destination, mac, solicited) = if meta.source.is_unspecified() {
            (ALL_NODES, multicast_mac(ALL_NODES), false)
        } else {
            (meta.source, source_mac.unwrap_or(asker), true)
        };
        if solicited && let Some(source_mac) = source_mac {
            let update = self.v6.neighbors.learn(meta.source, source_mac, now);
            self.apply_update(pool, update, source_mac);
        }
        let our_mac = self.link.mac;
        let reply = ndp::Repr::Advertisement {
            target,
            target_mac: Some(our_mac),
            router: false,
            solicited,
            overrides: true,
        };
        frame.set_len(meta.offset + ipv6::HEADER_LEN + ndp::LEN_WITH_OPTION);
        let data = frame.data_mut();
        ethernet::turn_round(data, mac, our_mac);
        emit_ndp(data, meta.offset, reply, target, destination).ok_or(DropReason::NdpMalformed)?;
        Ok(Disposition::Transmit(Event::NdpReplied))
    }

    /// Somebody else uses an address of ours: RFC 5227 §2.4 (b): say once that it is ours, and not
    /// again for ten seconds. One worker speaks for all, and hears of it from the others.
    fn conflict(
        &mut self,
        pool: &mut P,
        address: IpAddr,
        origin: Origin,
        now: Instant,
    ) -> Disposition {
        self.events.count(Event::AddressConflict);
        if !self.config.announce {
            return Self::tell_everyone(origin);
        }
        if self.announcements.may_defend(address, now) {
            self.announce(pool, address);
        }
        Disposition::Done
    }

    /// Asks for a neighbour: everybody, or, where `at` says where it was, itself. `local` is the
    /// address to ask from; without one, any address of ours that the answer can reach.
    fn solicit(
        &mut self,
        pool: &mut P,
        neighbor: IpAddr,
        local: Option<IpAddr>,
        at: Option<MacAddr>,
    ) {
        let local = local.filter(|local| local.is_ipv4() == neighbor.is_ipv4());
        let Some(local) = local.or_else(|| self.own_address_for(neighbor)) else {
            return;
        };
        let source_mac = self.link.mac;
        let sent = match (neighbor, local) {
            (IpAddr::V4(target), IpAddr::V4(sender)) => {
                let request = arp::Repr {
                    operation: arp::Operation::Request,
                    sender_mac: source_mac,
                    sender,
                    target_mac: [0; 6],
                    target,
                };
                self.send_arp(pool, request, at.unwrap_or(ethernet::BROADCAST))
            }
            (IpAddr::V6(target), IpAddr::V6(source)) => {
                let group = solicited_node_multicast(target);
                let (destination, mac) = match at {
                    Some(mac) => (target, mac),
                    None => (group, multicast_mac(group)),
                };
                let ask = ndp::Repr::Solicitation {
                    target,
                    source_mac: Some(source_mac),
                };
                self.send_ndp(pool, ask, source, destination, mac)
            }
            _ => false,
        };
        if sent {
            self.events.count(Event::NeighborSolicited);
        }
    }

    /// An address that the stack owns, of the version of `neighbor`, from which to ask for it: one
    /// on the same subnet if there is one.
    fn own_address_for(&self, neighbor: IpAddr) -> Option<IpAddr> {
        let mut own = self.link.addresses.iter().filter(|local| {
            local.owner == AddressOwner::Stack && local.address.is_ipv4() == neighbor.is_ipv4()
        });
        let first = own.clone().next()?;
        let near = own.find(|local| same_subnet(local, neighbor));
        Some(near.unwrap_or(first).address)
    }

    fn send_arp(&mut self, pool: &mut P, arp: arp::Repr, to: MacAddr) -> bool {
        let header = ethernet::Repr {
            destination: to,
            source: self.link.mac,
            vlans: self.config.vlans,
            ether_type: ethernet::TYPE_ARP,
        };
        let len = header.vlans.header_len() + arp::LEN;
        self.send_frame(pool, len, |data| {
            let at = header.emit(data)?;
            arp.emit(data, at)
        })
    }

    fn send_ndp(
        &mut self,
        pool: &mut P,
        ndp: ndp::Repr,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        to: MacAddr,
    ) -> bool {
        let header = ethernet::Repr {
            destination: to,
            source: self.link.mac,
            vlans: self.config.vlans,
            ether_type: ethernet::TYPE_IPV6,
        };
        let option = match ndp {
            // Duplicate address detection: the message is 8 bytes shorter.
            ndp::Repr::Solicitation {
                source_mac: None, ..
            } => 0,
            _ => 8,
        };
        let len = ipv6::HEADER_LEN + ndp::LEN_WITH_OPTION - 8 + option;
        self.send_frame(pool, header.vlans.header_len() + len, |data| {
            let at = header.emit(data)?;
            emit_ndp(data, at, ndp, source, destination)
        })
    }

    /// Fills a new frame of `len` bytes and queues it.
    fn send_frame(
        &mut self,
        pool: &mut P,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> bool {
        let Some(mut frame) = pool.take() else {
            self.drops.count(DropReason::TxNoFrame);
            return false;
        };
        frame.set_len(len);
        if fill(frame.data_mut()).is_none() {
            self.discard(pool, frame, DropReason::FrameTooLong);
            return false;
        }
        match self.transmit(pool, frame) {
            Ok(()) => true,
            Err(reason) => {
                self.drops.count(reason);
                false
            }
        }
    }

    pub(super) fn expire_neighbors(&mut self, pool: &mut P, now: Instant) {
        self.expire_neighbors_of::<Ipv4>(pool, now);
        self.expire_neighbors_of::<Ipv6>(pool, now);
    }

    fn expire_neighbors_of<I: IpStack>(&mut self, pool: &mut P, now: Instant) {
        let state = I::state(self);
        // Borrowed for the while, so that nothing is allocated here.
        let mut actions = core::mem::take(&mut state.neighbor_actions);
        let room = actions.capacity();
        let generation = state.neighbors.generation();
        state.neighbors.expire(now, |action| {
            debug_assert!(actions.len() < room, "invariant: one action a neighbour");
            actions.push(action);
        });
        let changed = state.neighbors.generation() != generation;
        for action in actions.drain(..) {
            match action {
                NeighborAction::SolicitMulticast { address } => {
                    self.solicit(pool, address.into(), None, None);
                }
                NeighborAction::SolicitUnicast { address, mac } => {
                    self.solicit(pool, address.into(), None, Some(mac));
                }
                NeighborAction::Failed {
                    address: _,
                    waiting,
                } => {
                    if let Some(frame) = waiting {
                        self.discard(pool, frame, DropReason::TxNeighborFailed);
                    }
                }
            }
        }
        I::state(self).neighbor_actions = actions;
        if changed {
            self.forget_next_hops();
        }
    }

    /// Gives back every frame that waits for a neighbour.
    pub(super) fn release_waiting(&mut self, pool: &mut P) {
        self.v4.neighbors.clear(|frame| pool.give(frame));
        self.v6.neighbors.clear(|frame| pool.give(frame));
    }

    /// Sends what announcements are due.
    pub(super) fn announce_addresses(&mut self, pool: &mut P, now: Instant) {
        while let Some((address, step)) = self.announcements.next_due(now) {
            match step {
                Step::Probe => self.probe(pool, address),
                Step::Announce => self.announce(pool, address),
            }
        }
    }

    /// Asks whether anybody has the address (RFC 5227 §2.1.1, RFC 4862 §5.4.2).
    fn probe(&mut self, pool: &mut P, address: IpAddr) {
        match address {
            IpAddr::V4(target) => {
                let request = arp::Repr {
                    operation: arp::Operation::Request,
                    sender_mac: self.link.mac,
                    sender: Ipv4Addr::UNSPECIFIED,
                    target_mac: [0; 6],
                    target,
                };
                self.send_arp(pool, request, ethernet::BROADCAST);
            }
            IpAddr::V6(target) => {
                let group = solicited_node_multicast(target);
                let ask = ndp::Repr::Solicitation {
                    target,
                    source_mac: None,
                };
                self.send_ndp(
                    pool,
                    ask,
                    Ipv6Addr::UNSPECIFIED,
                    group,
                    multicast_mac(group),
                );
            }
        }
    }

    /// Tells everybody that the address is ours (RFC 5227 §2.3, RFC 4861 §7.2.6).
    fn announce(&mut self, pool: &mut P, address: IpAddr) {
        let mac = self.link.mac;
        let sent = match address {
            IpAddr::V4(address) => {
                let announcement = arp::Repr {
                    operation: arp::Operation::Request,
                    sender_mac: mac,
                    sender: address,
                    target_mac: [0; 6],
                    target: address,
                };
                self.send_arp(pool, announcement, ethernet::BROADCAST)
            }
            IpAddr::V6(target) => {
                let advertisement = ndp::Repr::Advertisement {
                    target,
                    target_mac: Some(mac),
                    router: false,
                    solicited: false,
                    overrides: true,
                };
                let to = multicast_mac(ALL_NODES);
                self.send_ndp(pool, advertisement, target, ALL_NODES, to)
            }
        };
        if sent {
            self.events.count(Event::AddressAnnounced);
        }
    }
}

/// Writes an IPv6 header and a neighbour discovery message; returns their length in bytes.
fn emit_ndp(
    data: &mut [u8],
    at: usize,
    message: ndp::Repr,
    source: Ipv6Addr,
    destination: Ipv6Addr,
) -> Option<usize> {
    let len = message.emit(data, at + ipv6::HEADER_LEN, source, destination)?;
    let header = ipv6::Repr {
        source,
        destination,
        next_header: protocol::ICMPV6,
        traffic_class: 0,
        flow_label: 0,
        hop_limit: ndp::HOP_LIMIT,
        payload_len: u16::try_from(len).ok()?,
    };
    Some(header.emit(data, at)? + len)
}

fn same_subnet(local: &LocalAddress, address: IpAddr) -> bool {
    match (local.address, address) {
        (IpAddr::V4(mine), IpAddr::V4(other)) => {
            mine.masked(local.prefix_len) == other.masked(local.prefix_len)
        }
        (IpAddr::V6(mine), IpAddr::V6(other)) => {
            mine.masked(local.prefix_len) == other.masked(local.prefix_len)
        }
        _ => false,
    }
}

/// Addresses that the stack owns, and what is still to be said about them.
///
/// ```text
///  ── 200 ms ──► probe ── 1 s ──► announce ── 2 s ──► announce ──► nothing more
/// ```
///
/// The address is answered for from the start: it was configured by somebody who gave it to this
/// service. A probe still shows a mistake, because its holder answers it, and that is counted and
/// reported as a conflict.
#[derive(Debug, Default)]
pub(super) struct Announcements {
    addresses: Vec<Announcement>,
}

#[derive(Debug)]
struct Announcement {
    address: IpAddr,
    /// Steps done.
    done: u8,
    /// When the next one is due.
    due: Instant,
    defended: Option<Instant>,
}

/// What is to be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Probe,
    Announce,
}

/// RFC 5227 §2.1.1, RFC 4862 §5.4.2: a probe waits for up to a second after its interface has come
/// up. Long enough for whoever gives us packets to be ready for the answer.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// RFC 5227 §1.1: DEFEND_INTERVAL.
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);
/// RFC 5227 §1.1: ANNOUNCE_WAIT is 2 s from probe to announcement; RFC 4862's RETRANS_TIMER is 1 s.
const PROBE_WAIT: Duration = Duration::from_secs(1);
/// RFC 5227 §1.1: ANNOUNCE_INTERVAL.
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(2);
/// A probe and two announcements (RFC 5227 §1.1: ANNOUNCE_NUM).
const STEPS: u8 = 3;

impl Announcements {
    /// Takes over the addresses that the stack owns now; new ones are announced.
    pub(super) fn set_addresses(&mut self, addresses: &[LocalAddress], now: Instant) {
        let own = |address: IpAddr| {
            let mut own = addresses
                .iter()
                .filter(|local| local.owner == AddressOwner::Stack);
            own.any(|local| local.address == address)
        };
        self.addresses.retain(|known| own(known.address));
        for local in addresses
            .iter()
            .filter(|local| local.owner == AddressOwner::Stack)
        {
            if !self
                .addresses
                .iter()
                .any(|known| known.address == local.address)
            {
                let address = local.address;
                self.addresses.push(Announcement {
                    address,
                    done: 0,
                    due: now + FIRST_WAIT,
                    defended: None,
                });
            }
        }
    }

    fn next_due(&mut self, now: Instant) -> Option<(IpAddr, Step)> {
        let next = self
            .addresses
            .iter_mut()
            .find(|next| next.done < STEPS && next.due <= now)?;
        let step = if next.done == 0 {
            Step::Probe
        } else {
            Step::Announce
        };
        next.due = now
            + if next.done == 0 {
                PROBE_WAIT
            } else {
                ANNOUNCE_INTERVAL
            };
        next.done += 1;
        Some((next.address, step))
    }

    fn may_defend(&mut self, address: IpAddr, now: Instant) -> bool {
        let Some(known) = self
            .addresses
            .iter_mut()
            .find(|known| known.address == address)
        else {
            return false;
        };
        let recently = known
            .defended
            .is_some_and(|at| now.saturating_since(at) < DEFEND_INTERVAL);
        if !recently {
            known.defended = Some(now);
        }
        !recently
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_probed_once_and_announced_twice() {
        let local = LocalAddress {
            address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9)),
            prefix_len: 24,
            broadcast: None,
            owner: AddressOwner::Stack,
        };
        let at = |s: u64| Instant::from_nanos(s * 1_000_000_000);
        let mut announcements = Announcements::default();
        announcements.set_addresses(&[local], at(5));
        let mut said = Vec::new();
        for second in 5..20 {
            // A second mirror update of the same addresses starts nothing anew.
            announcements.set_addresses(&[local], at(second));
            while let Some((_, step)) = announcements.next_due(at(second)) {
                said.push((second, step));
            }
        }
        assert_eq!(
            said,
            [(6, Step::Probe), (7, Step::Announce), (9, Step::Announce)]
        );
        assert!(announcements.may_defend(local.address, at(30)));
        assert!(!announcements.may_defend(local.address, at(39)));
        assert!(announcements.may_defend(local.address, at(40)));
    }
}
