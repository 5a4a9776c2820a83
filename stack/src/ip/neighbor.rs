//! Neighbours: which Ethernet address a next hop has.
//!
//! Two sources fill one table. The control plane mirrors what the kernel knows; such entries hold
//! until they are removed. For addresses the kernel does not have, the stack resolves by itself,
//! with the states of RFC 4861 §7.3, which serve ARP just as well (RFC 1122 §2.3.2.1 asks for
//! their equivalents):
//!
//! ```text
//!                resolve()                    retransmit, 3 times
//!    (none) ───────────────► Incomplete ─────────────────────────────► failed, (none)
//!      │                      │      │
//!      │ learn()       learn()│      │advertise(solicited)
//!      ▼                      ▼      ▼        30 s
//!    Stale ◄──────────────────┘  Reachable ──────────► Stale
//!      │ lookup()                    ▲
//!      ▼          5 s                │ advertise(solicited), confirm()
//!    Delay ────────────► Probe ──────┤
//!                          │         │
//!                          └─────────┴──► failed, (none)    retransmit, 3 times
//!
//!    mirror() ──► Mirrored ──► unmirror() ──► (none)
//! ```
//!
//! Memory is fixed when the cache is made. A full cache gives up the oldest unresolved entry, then
//! the resolved one that was not used for longest, and a mirrored one never: whoever invents
//! addresses on our link can only push out other inventions as long as there are any.

use crate::hash::HashKey;
use crate::ip::address::{Ip, IpAddress};
use crate::ip::rate_limit::TokenBucket;
use crate::link::{AddressOwner, MacAddr};
use crate::table::{Index, SLOTS_MAX, TimeOrder};
use crate::time::{Duration, Instant};
use alloc::vec::Vec;

mod config;
mod state;
#[cfg(test)]
mod tests;

pub use config::NeighborConfig;
pub use state::{Ask, NeighborAction, NeighborState, Resolve, Update};
use state::{Entry, State};

/// How often at most the control plane is asked for the same neighbour, and how exactly "last used"
/// is known. RFC 1122 §2.3.2.1 recommends one request per second and destination.
const ONCE_A: Duration = Duration::from_secs(1);

/// Half of Linux's default time until a neighbour becomes stale (`base_reachable_time_ms`, 30 s).
const MIRRORED_REFRESH_INTERVAL: Duration = Duration::from_secs(15);

/// The neighbours of one interface, for one IP version. `P` is what waits for resolution.
#[derive(Debug)]
pub struct NeighborCache<I: Ip, P> {
    config: NeighborConfig,
    key: HashKey,
    slots: Vec<Option<Entry<I::Addr, P>>>,
    free: Vec<u32>,
    index: Index,
    /// When an entry's state is to be looked at again.
    timers: TimeOrder,
    /// Incomplete entries by age.
    unresolved: TimeOrder,
    /// Resolved entries of our own by when they were last used.
    resolved: TimeOrder,
    /// Entries with a waiting packet, by when it came.
    waiting: TimeOrder,
    solicits: TokenBucket,
    generation: u64,
}

impl<I: Ip, P> NeighborCache<I, P> {
    /// An empty cache. All its memory, about 170 bytes a neighbour and what `P` takes, is
    /// allocated here.
    #[must_use]
    pub fn new(config: NeighborConfig, key: HashKey) -> Self {
        let capacity = config.capacity.min(SLOTS_MAX);
        let mut slots = Vec::new();
        slots.resize_with(capacity, || None);
        Self {
            key,
            slots,
            // The lowest slots are taken first: they share cache lines.
            free: (0u32..)
                .take(capacity)
                .collect::<Vec<_>>()
                .into_iter()
                .rev()
                .collect(),
            index: Index::new(capacity),
            timers: TimeOrder::new(capacity),
            unresolved: TimeOrder::new(capacity),
            resolved: TimeOrder::new(capacity),
            waiting: TimeOrder::new(capacity),
            solicits: TokenBucket::new(config.solicits_per_s, config.solicits_burst),
            generation: 0,
            config,
        }
    }

    /// Where a packet to `address` goes. Counts as use of the neighbour: a stale one will be asked
    /// for a confirmation (RFC 4861 §7.3.3).
    #[inline]
    pub fn lookup(&mut self, address: I::Addr, now: Instant) -> Option<MacAddr> {
        let slot = self.find(address)?;
        match self.slots[slot as usize].as_ref()?.state {
            State::Mirrored { mac, .. } => Some(mac),
            State::Incomplete { .. } => None,
            _ => self.use_own(slot, now),
        }
    }

    /// Changes whenever an answer of [`lookup`](Self::lookup) may change, and when a neighbour
    /// becomes stale, so that its next use is noticed. While it stays the same, callers may keep
    /// answers and need not ask again. (What they then use does not count as used; a full cache may
    /// evict it, and the generation tells.)
    #[inline]
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Lets a packet wait for a neighbour that [`lookup`](Self::lookup) does not know, and says whom
    /// to ask. `owner` is the owner of the address we send from: the stack asks by itself only for
    /// its own addresses, since answers to the kernel's addresses go to the kernel.
    pub fn resolve(
        &mut self,
        address: I::Addr,
        owner: AddressOwner,
        packet: P,
        now: Instant,
    ) -> Resolve<P> {
        let Some((slot, evicted)) = self.find_or_start(address, owner, now) else {
            return Resolve::Full(packet);
        };
        if let Some(mac) = self.entry(slot).state.mac() {
            return Resolve::Resolved(mac, packet);
        }
        let ask = self.ask(slot, owner, now);
        // An evicted packet left room for this one: at most one of the two exists.
        let displaced = self.wait(slot, packet, now).or(evicted);
        Resolve::Waiting { ask, displaced }
    }

    /// As [`resolve`](Self::resolve), for a packet that need not wait because it has another way:
    /// whom to ask, and a packet to another neighbour that was given up to make room. `None` if the
    /// cache is full of mirrored neighbours.
    pub fn inquire(
        &mut self,
        address: I::Addr,
        owner: AddressOwner,
        now: Instant,
    ) -> Option<(Ask, Option<P>)> {
        let (slot, evicted) = self.find_or_start(address, owner, now)?;
        let ask = match self.entry(slot).state.mac() {
            None => self.ask(slot, owner, now),
            Some(_) => Ask::Nobody,
        };
        Some((ask, evicted))
    }

    /// The entry of a neighbour, incomplete if it is new, and a packet that had to make room for
    /// it. `None` if the cache is full of mirrored neighbours.
    fn find_or_start(
        &mut self,
        address: I::Addr,
        resolver: AddressOwner,
        now: Instant,
    ) -> Option<(u32, Option<P>)> {
        if let Some(slot) = self.find(address) {
            return Some((slot, None));
        }
        let state = State::Incomplete {
            resolver,
            solicits: 0,
            asked_at: None,
            waiting: None,
        };
        let (slot, evicted) = self.add(address, state)?;
        self.unresolved.set(slot, now);
        self.timers.set(slot, now + self.give_up_time());
        Some((slot, evicted))
    }

    /// Somebody told us where it is, without being asked: the sender of an ARP request to us, or
    /// the source link-layer address option of a solicitation, router advertisement or redirect
    /// (RFC 4861 §7.2.3). A new neighbour is remembered, but not yet believed reachable.
    pub fn learn(&mut self, address: I::Addr, mac: MacAddr, now: Instant) -> Update<P> {
        // RFC 1812 §3.3.2: no host has a group's Ethernet address.
        if !address.is_single_host() || !is_station(mac) {
            return Update::NOTHING;
        }
        if self.find(address).is_some() {
            return self.refresh(address, mac, now);
        }
        match self.add(address, State::Stale { mac }) {
            Some((slot, evicted)) => {
                self.resolved.set(slot, now);
                self.generation += 1;
                Update {
                    ready: None,
                    evicted,
                    full: false,
                }
            }
            None => Update {
                full: true,
                ..Update::NOTHING
            },
        }
    }

    /// As [`learn`](Self::learn), but only about neighbours that are in the cache already: a
    /// gratuitous ARP, or an ARP request to somebody else (RFC 826, "Packet Reception").
    pub fn refresh(&mut self, address: I::Addr, mac: MacAddr, now: Instant) -> Update<P> {
        let Some(slot) = self.find(address) else {
            return Update::NOTHING;
        };
        let ready = match self.entry(slot).state {
            _ if !is_station(mac) => None,
            State::Mirrored { .. } => None,
            // RFC 4861 §7.2.3: the same address says nothing about reachability.
            ref state if state.mac() == Some(mac) => None,
            _ => self.become_resolved(slot, State::Stale { mac }, now),
        };
        Update {
            ready,
            ..Update::NOTHING
        }
    }

    /// A neighbour advertisement (RFC 4861 §7.2.5), with its target link-layer address option if it
    /// has one, and its S and O flags. An ARP reply to us is one with both flags. Returns a packet
    /// that waited for the neighbour and can be sent now.
    pub fn advertise(
        &mut self,
        address: I::Addr,
        mac: Option<MacAddr>,
        solicited: bool,
        override_: bool,
        now: Instant,
    ) -> Option<P> {
        // RFC 4861 §7.2.5: no entry, no interest.
        let slot = self.find(address)?;
        if mac.is_some_and(|mac| !is_station(mac)) {
            return None;
        }
        let fresh = |mac| match solicited {
            true => State::Reachable {
                mac,
                confirmed_at: now,
            },
            false => State::Stale { mac },
        };
        match (&self.entry(slot).state, mac) {
            (State::Mirrored { .. }, _) => None,
            // §7.2.5: an Ethernet neighbour without an Ethernet address is no answer.
            (State::Incomplete { .. }, None) => None,
            (State::Incomplete { .. }, Some(mac)) => self.become_resolved(slot, fresh(mac), now),
            (state, advertised) => {
                let known = state.mac()?;
                let reachable = matches!(state, State::Reachable { .. });
                let mac = advertised.unwrap_or(known);
                if mac != known && !override_ {
                    // §7.2.5 I.: doubt what we know, but do not take over what was said.
                    return match reachable {
                        true => self.become_resolved(slot, State::Stale { mac: known }, now),
                        false => None,
                    };
                }
                // §7.2.5 II.
                match solicited || mac != known {
                    true => self.become_resolved(slot, fresh(mac), now),
                    false => None,
                }
            }
        }
    }

    /// A layer above made progress with this neighbour, so packets do arrive there (RFC 4861
    /// §7.3.1). Cheap enough to be called for every acknowledgement.
    #[inline]
    pub fn confirm(&mut self, address: I::Addr, now: Instant) {
        let Some(slot) = self.find(address) else {
            return;
        };
        match self.entry(slot).state {
            State::Incomplete { .. } | State::Mirrored { .. } => {}
            State::Reachable { confirmed_at, .. }
                if now.saturating_since(confirmed_at) < ONCE_A => {}
            State::Reachable { mac, .. }
            | State::Stale { mac }
            | State::Delay { mac }
            | State::Probe { mac, .. } => {
                let none = self.become_resolved(
                    slot,
                    State::Reachable {
                        mac,
                        confirmed_at: now,
                    },
                    now,
                );
                debug_assert!(none.is_none(), "invariant: packets wait in Incomplete only");
            }
        }
    }

    /// The kernel knows the neighbour; its word holds until [`unmirror`](Self::unmirror).
    pub fn mirror(&mut self, address: I::Addr, mac: MacAddr) -> Update<P> {
        // The kernel lists broadcast and multicast addresses as neighbours, too: those are none.
        if !is_station(mac) {
            return Update::NOTHING;
        }
        let Some(slot) = self.find(address) else {
            let state = State::Mirrored {
                mac,
                refresh_at: None,
            };
            return match self.add(address, state) {
                Some((_, evicted)) => {
                    self.generation += 1;
                    Update {
                        ready: None,
                        evicted,
                        full: false,
                    }
                }
                None => Update {
                    full: true,
                    ..Update::NOTHING
                },
            };
        };
        // That the kernel looked after it once more does not tell when it will be stale again.
        let refresh_at = match self.entry(slot).state {
            State::Mirrored { refresh_at, .. } => refresh_at,
            _ => None,
        };
        let ready = self.replace(slot, State::Mirrored { mac, refresh_at });
        self.timers.remove(slot);
        self.resolved.remove(slot);
        Update {
            ready,
            ..Update::NOTHING
        }
    }

    /// Whether the kernel is to be asked now to look after a mirrored neighbour, which is in use: it
    /// does not see our packets, so the neighbour goes stale there. True once every 15 seconds.
    pub fn refresh_due(&mut self, address: I::Addr, now: Instant) -> bool {
        let Some(slot) = self.find(address) else {
            return false;
        };
        let State::Mirrored { refresh_at, .. } = &mut self.entry(slot).state else {
            return false;
        };
        let due = refresh_at.is_some_and(|at| now >= at);
        if due || refresh_at.is_none() {
            *refresh_at = Some(now + MIRRORED_REFRESH_INTERVAL);
        }
        due
    }

    /// The kernel gave the neighbour up. What the stack resolved by itself stays. Returns a packet
    /// that waited for the kernel's answer; it is dropped.
    pub fn unmirror(&mut self, address: I::Addr) -> Option<P> {
        let slot = self.find(address)?;
        match self.entry(slot).state {
            State::Mirrored { .. }
            | State::Incomplete {
                resolver: AddressOwner::Kernel,
                ..
            } => self.remove(slot),
            _ => None,
        }
    }

    /// Does what is due: hands out solicitations to send and neighbours that failed.
    pub fn expire(&mut self, now: Instant, mut act: impl FnMut(NeighborAction<I::Addr, P>)) {
        // Each entry at most about once, also when `now` is the end of time.
        for _ in 0..self.timers.len() {
            let Some(slot) = self.timers.pop_due(now) else {
                return;
            };
            if let Some(action) = self.due(slot, now) {
                act(action);
            }
        }
    }

    /// When [`expire`](Self::expire) has something to do next.
    #[inline]
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| at)
    }

    /// Forgets everything, for instance when the link went away. Hands out the waiting packets.
    pub fn clear(&mut self, mut drop_packet: impl FnMut(P)) {
        for slot in (0u32..).take(self.slots.len()) {
            if self.slots[slot as usize].is_some()
                && let Some(packet) = self.remove(slot)
            {
                drop_packet(packet);
            }
        }
        self.generation += 1;
    }

    /// All neighbours, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (I::Addr, Option<MacAddr>, NeighborState)> + '_ {
        let entries = self.slots.iter().flatten();
        entries.map(|entry| (entry.address, entry.state.mac(), entry.state.public()))
    }

    /// How many neighbours there are, resolved or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }
}

/// The steps behind the verbs.
impl<I: Ip, P> NeighborCache<I, P> {
    #[inline]
    fn find(&self, address: I::Addr) -> Option<u32> {
        self.index.find(address.keyed_hash(&self.key), |slot| {
            self.slots[slot as usize]
                .as_ref()
                .is_some_and(|entry| entry.address == address)
        })
    }

    fn entry(&mut self, slot: u32) -> &mut Entry<I::Addr, P> {
        self.slots[slot as usize]
            .as_mut()
            .expect("invariant: the index names used slots only")
    }

    /// A use of a neighbour that we look after ourselves.
    fn use_own(&mut self, slot: u32, now: Instant) -> Option<MacAddr> {
        let entry = self.slots[slot as usize].as_mut()?;
        let mac = entry.state.mac()?;
        if let State::Stale { .. } = entry.state {
            // RFC 4861 §7.3.3: the first packet to a stale neighbour starts the delay.
            entry.state = State::Delay { mac };
            self.timers.set(slot, now + self.config.delay_time);
        }
        let used_at = self.resolved.get(slot).unwrap_or(Instant::ZERO);
        if now.saturating_since(used_at) >= ONCE_A {
            self.resolved.set(slot, now);
        }
        Some(mac)
    }

    /// How long the kernel has for an answer: as long as we would take ourselves.
    fn give_up_time(&self) -> Duration {
        self.config.retransmit_time * u32::from(self.config.multicast_solicits_max)
    }

    /// Whom to ask for an incomplete neighbour now.
    fn ask(&mut self, slot: u32, owner: AddressOwner, now: Instant) -> Ask {
        let retransmit_at = now + self.config.retransmit_time;
        let entry = self.slots[slot as usize].as_mut();
        let Some(State::Incomplete {
            resolver,
            solicits,
            asked_at,
            ..
        }) = entry.map(|entry| &mut entry.state)
        else {
            return Ask::Nobody;
        };
        if owner == AddressOwner::Stack && *resolver == AddressOwner::Kernel {
            // Somebody may ask the neighbour directly: better than to wait for the kernel.
            *resolver = AddressOwner::Stack;
            *asked_at = None;
        }
        match *resolver {
            AddressOwner::Stack => {
                if asked_at.is_some() {
                    // Further solicitations are the timer's.
                    return Ask::Nobody;
                }
                self.timers.set(slot, retransmit_at);
                if !self.solicits.allow(now) {
                    return Ask::Nobody;
                }
                *asked_at = Some(now);
                *solicits = 1;
                Ask::Neighbor
            }
            AddressOwner::Kernel => {
                let recent = asked_at.is_some_and(|at| now.saturating_since(at) < ONCE_A);
                if recent || !self.solicits.allow(now) {
                    return Ask::Nobody;
                }
                *asked_at = Some(now);
                Ask::Kernel
            }
        }
    }

    /// Lets a packet wait at an incomplete neighbour. Returns one that must go.
    fn wait(&mut self, slot: u32, packet: P, now: Instant) -> Option<P> {
        if self.config.waiting_max == 0 {
            return Some(packet);
        }
        let displaced = self.take_waiting(slot).or_else(|| {
            let (_, oldest) = self
                .waiting
                .first()
                .filter(|_| self.waiting.len() >= self.config.waiting_max)?;
            self.take_waiting(oldest)
        });
        if let State::Incomplete { waiting, .. } = &mut self.entry(slot).state {
            *waiting = Some(packet);
            self.waiting.set(slot, now);
        }
        displaced
    }

    fn take_waiting(&mut self, slot: u32) -> Option<P> {
        self.waiting.remove(slot);
        match &mut self.entry(slot).state {
            State::Incomplete { waiting, .. } => waiting.take(),
            _ => None,
        }
    }

    /// The timer of an entry went off.
    fn due(&mut self, slot: u32, now: Instant) -> Option<NeighborAction<I::Addr, P>> {
        let retransmit_at = now + self.config.retransmit_time;
        let config = self.config;
        let Entry { address, state } = self.entry(slot);
        let address = *address;
        match state {
            State::Incomplete {
                resolver: AddressOwner::Kernel,
                ..
            } => {
                let waiting = self.remove(slot);
                Some(NeighborAction::Failed { address, waiting })
            }
            State::Incomplete { solicits, .. } if *solicits >= config.multicast_solicits_max => {
                // RFC 4861 §7.2.2: MAX_MULTICAST_SOLICIT unanswered, address resolution failed.
                let waiting = self.remove(slot);
                Some(NeighborAction::Failed { address, waiting })
            }
            State::Incomplete { .. } => {
                self.timers.set(slot, retransmit_at);
                if !self.solicits.allow(now) {
                    return None;
                }
                if let State::Incomplete {
                    solicits, asked_at, ..
                } = &mut self.entry(slot).state
                {
                    *solicits += 1;
                    *asked_at = Some(now);
                }
                Some(NeighborAction::SolicitMulticast { address })
            }
            State::Reachable { mac, .. } => {
                // RFC 4861 §7.3.3: nothing is sent until the neighbour is used again.
                *state = State::Stale { mac: *mac };
                self.generation += 1;
                None
            }
            State::Delay { mac } => {
                *state = State::Probe {
                    mac: *mac,
                    solicits: 0,
                };
                self.probe(slot, now)
            }
            State::Probe { solicits, .. } if *solicits >= config.unicast_solicits_max => {
                // RFC 4861 §7.3.3: the entry is deleted; the next packet resolves it anew.
                let waiting = self.remove(slot);
                Some(NeighborAction::Failed { address, waiting })
            }
            State::Probe { .. } => self.probe(slot, now),
            State::Stale { .. } | State::Mirrored { .. } => None,
        }
    }

    /// Sends a solicitation to a neighbour in `Probe`, now or at the next attempt.
    fn probe(&mut self, slot: u32, now: Instant) -> Option<NeighborAction<I::Addr, P>> {
        self.timers.set(slot, now + self.config.retransmit_time);
        if !self.solicits.allow(now) {
            return None;
        }
        let Entry {
            address,
            state: State::Probe { mac, solicits },
        } = self.entry(slot)
        else {
            return None;
        };
        *solicits += 1;
        Some(NeighborAction::SolicitUnicast {
            address: *address,
            mac: *mac,
        })
    }

    /// Gives an entry of our own another resolved state. Returns the packet that waited.
    fn become_resolved(&mut self, slot: u32, state: State<P>, now: Instant) -> Option<P> {
        match state {
            State::Reachable { .. } => self.timers.set(slot, now + self.config.reachable_time),
            _ => {
                self.timers.remove(slot);
                // Cached answers must come back to see that the neighbour is stale.
                self.generation += 1;
            }
        }
        if self.resolved.get(slot).is_none() {
            self.resolved.set(slot, now);
        }
        self.replace(slot, state)
    }

    /// Changes the state of an entry to a resolved one. Returns the packet that waited.
    fn replace(&mut self, slot: u32, state: State<P>) -> Option<P> {
        let ready = self.take_waiting(slot);
        self.unresolved.remove(slot);
        let entry = self.entry(slot);
        let changed = entry.state.mac() != state.mac();
        entry.state = state;
        self.generation += u64::from(changed);
        ready
    }

    /// Adds an entry that is not there yet, if need be in place of another, whose waiting packet is
    /// returned. `None` if there is no room.
    fn add(&mut self, address: I::Addr, state: State<P>) -> Option<(u32, Option<P>)> {
        let mut evicted = None;
        if self.free.is_empty() {
            let (_, victim) = self.unresolved.first().or_else(|| self.resolved.first())?;
            evicted = self.remove(victim);
        }
        let slot = self.free.pop()?;
        self.slots[slot as usize] = Some(Entry { address, state });
        self.index.insert(address.keyed_hash(&self.key), slot);
        Some((slot, evicted))
    }

    /// Forgets an entry. Returns the packet that waited.
    fn remove(&mut self, slot: u32) -> Option<P> {
        let Entry { address, state } = self.slots[slot as usize].take()?;
        self.index.remove(address.keyed_hash(&self.key), slot);
        for order in [
            &mut self.timers,
            &mut self.unresolved,
            &mut self.resolved,
            &mut self.waiting,
        ] {
            order.remove(slot);
        }
        self.free.push(slot);
        self.generation += u64::from(state.mac().is_some());
        match state {
            State::Incomplete { waiting, .. } => waiting,
            _ => None,
        }
    }
}

/// Whether an Ethernet address can be a single station's: not zero, no group (IEEE 802.3 §3.2.3).
fn is_station(mac: MacAddr) -> bool {
    mac[0] & 1 == 0 && mac != [0; 6]
}
