//! All connections of one IP version: found by their tuple, woken by their timers.
//!
//! ```text
//!   tuple ──hash──► Index ──id──► ┌ connections with CUBIC ┐
//!                                 │ connections with NewReno│ ──► transmit queue, ready queue
//!   time  ──wheel─────────id──►   │ half-open               │
//!                                 └ time-wait               ┘
//! ```
//!
//! Records of four kinds share one space of ids, so that one lookup finds whichever there is and one
//! wheel times them all. Every operation is O(1), and all memory is taken when the table is made.

mod walk;

use super::config::TcpConfig;
use super::congestion::{Cubic, NewReno};
use super::connection::{Connection, Context, Fate, Output, PlainSegment, Then, Transmitted};
use super::flow::AckDelay;
use super::id_queue::IdQueue;
use super::listener::{self, CongestionKind, HalfOpen};
use super::options::OptionsOut;
use super::pools::Pools;
use super::segment::{Flags, Header, Segment};
use super::seq::SeqNum;
use super::socket_options::{IcmpError, IpFields};
use super::time_wait::{self, TimeWait};
use super::tuple::Tuple;
use crate::counters::{DropReason, Event};
use crate::hash::HashKey;
use crate::ip::address::Ip;
use crate::slab::{Handle, Slab};
use crate::table::Index;
use crate::time::Instant;
use crate::timer::Wheel;
use alloc::collections::VecDeque;

/// Which record: a place in the common space of ids.
pub type Id = u32;

/// Names a connection for ever: an id that is used again has another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    pub(crate) kind: CongestionKind,
    pub(crate) handle: Handle,
}

/// What is found under an id: the slot of a record of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// A connection.
    Connection(CongestionKind, u32),
    /// A half-open one.
    HalfOpen(u32),
    /// What is left of a closed one.
    TimeWait(u32),
}

/// See the module.
#[derive(Debug)]
pub struct Table<I: Ip> {
    key: HashKey,
    index: Index,
    cubic: Slab<Connection<I, Cubic>>,
    new_reno: Slab<Connection<I, NewReno>>,
    half_open: Slab<HalfOpen<I>>,
    time_wait: Slab<TimeWait<I>>,
    /// First id of each kind but the first: cubic, new_reno, half_open, time_wait.
    bases: [u32; 3],
    wheel: Wheel,
    /// Connections that may have something to send; each at most once.
    transmit: IdQueue,
    /// Connections with news for the application; each at most once.
    ready: IdQueue,
    /// Connections whose applications wait for memory to write into; each at most once.
    starved: IdQueue,
    /// Records in TIME-WAIT from the oldest on, for the day the table is full.
    time_wait_order: VecDeque<Handle>,
    /// Segments that no connection sends.
    answers: VecDeque<Answer<I>>,
}

/// Answers that wait to be sent, at most: more than one batch of packets can cause. Those beyond are
/// not sent, and their peers will ask again.
const ANSWERS_MAX: usize = 512;

/// Calls a method of the connection in a slot, of whichever type.
macro_rules! connection {
    ($table:expr, $kind:expr, $slot:expr, $name:ident => $body:expr) => {
        match $kind {
            CongestionKind::Cubic => $table.cubic.at_mut($slot).map(|$name| $body),
            CongestionKind::NewReno => $table.new_reno.at_mut($slot).map(|$name| $body),
        }
    };
}

/// What came of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was taken.
    Taken,
    /// It was dropped, for this reason. Where the peer is to be told, an answer is queued.
    Dropped(DropReason),
    /// A half-open connection is complete: it is to become a connection of this listener, and the
    /// segment goes there.
    Complete {
        /// The half-open record.
        slot: u32,
    },
    /// Nobody knows this connection, or nobody does any more.
    Unknown,
    /// A SYN that follows a connection in TIME-WAIT, of which there is no record any more.
    Reopen {
        /// SND.NXT of the old connection: our initial sequence number has to be beyond it (RFC 9293 §3.6.1,
        /// MAY-2).
        send_next: SeqNum,
    },
}

/// A segment without text that no connection sends.
#[derive(Clone, Copy, Debug)]
pub struct Answer<I: Ip> {
    /// Both ends.
    pub tuple: Tuple<I::Addr>,
    /// Its header.
    pub header: Header,
    /// Its options.
    pub options: OptionsOut,
    /// What an application wants in its IP header.
    pub ip: IpFields,
}

/// A connection that may have something to send.
#[derive(Clone, Copy, Debug)]
pub struct ToTransmit<I: Ip> {
    pub(crate) kind: CongestionKind,
    pub(crate) slot: u32,
    /// Both ends.
    pub tuple: Tuple<I::Addr>,
    /// Its path is to be taken for narrower than it said.
    pub black_hole: bool,
}

impl<I: Ip> Table<I> {
    /// An empty table. Takes all its memory now.
    #[must_use]
    pub fn new(config: &TcpConfig, key: HashKey) -> Self {
        let TcpConfig {
            connections,
            connections_new_reno,
            half_open,
            time_wait,
            ..
        } = *config;
        let bases = [
            connections,
            connections.saturating_add(connections_new_reno),
            connections
                .saturating_add(connections_new_reno)
                .saturating_add(half_open),
        ];
        let ids = bases[2].saturating_add(time_wait) as usize;
        let all = (connections + connections_new_reno) as usize;
        Self {
            key,
            index: Index::new(ids),
            cubic: Slab::new(connections as usize),
            new_reno: Slab::new(connections_new_reno as usize),
            half_open: Slab::new(half_open as usize),
            time_wait: Slab::new(time_wait as usize),
            bases,
            wheel: Wheel::new(ids),
            transmit: IdQueue::new(all),
            ready: IdQueue::new(all),
            starved: IdQueue::new(all),
            time_wait_order: VecDeque::with_capacity(2 * time_wait as usize),
            answers: VecDeque::with_capacity(ANSWERS_MAX),
        }
    }

    #[inline]
    fn slot(&self, id: Id) -> Slot {
        let [new_reno, half_open, time_wait] = self.bases;
        if id < new_reno {
            Slot::Connection(CongestionKind::Cubic, id)
        } else if id < half_open {
            Slot::Connection(CongestionKind::NewReno, id - new_reno)
        } else if id < time_wait {
            Slot::HalfOpen(id - half_open)
        } else {
            Slot::TimeWait(id - time_wait)
        }
    }

    #[inline]
    fn id(&self, slot: Slot) -> Id {
        let [new_reno, half_open, time_wait] = self.bases;
        match slot {
            Slot::Connection(CongestionKind::Cubic, slot) => slot,
            Slot::Connection(CongestionKind::NewReno, slot) => new_reno + slot,
            Slot::HalfOpen(slot) => half_open + slot,
            Slot::TimeWait(slot) => time_wait + slot,
        }
    }

    #[inline]
    fn tuple(&self, slot: Slot) -> Option<&Tuple<I::Addr>> {
        match slot {
            Slot::Connection(CongestionKind::Cubic, slot) => {
                self.cubic.at(slot).map(Connection::tuple)
            }
            Slot::Connection(CongestionKind::NewReno, slot) => {
                self.new_reno.at(slot).map(Connection::tuple)
            }
            Slot::HalfOpen(slot) => self.half_open.at(slot).map(|record| &record.tuple),
            Slot::TimeWait(slot) => self.time_wait.at(slot).map(|record| &record.tuple),
        }
    }

    /// The record of a tuple.
    #[inline]
    #[must_use]
    pub fn find(&self, tuple: &Tuple<I::Addr>) -> Option<Slot> {
        let hash = tuple.hash(&self.key);
        self.index
            .find(hash, |id| self.tuple(self.slot(id)) == Some(tuple))
            .map(|id| self.slot(id))
    }

    /// The open connection that an ordinary segment may be for.
    #[inline(always)]
    pub(crate) fn find_open(&self, tuple: &Tuple<I::Addr>) -> Option<Id> {
        let hash = tuple.hash(&self.key);
        // Nearly all records are connections with CUBIC, and one look at those suffices. Another
        // record with the same tag is looked at more closely below.
        let is_key = |id| self.cubic.at(id).is_none_or(|it| it.tuple() == tuple);
        let id = self.index.find(hash, is_key)?;
        let open = match self.cubic.at(id) {
            Some(it) => it.is_open(),
            None => self.is_open_elsewhere(id, tuple),
        };
        open.then_some(id)
    }

    #[inline(never)]
    fn is_open_elsewhere(&self, id: Id, tuple: &Tuple<I::Addr>) -> bool {
        let Slot::Connection(CongestionKind::NewReno, slot) = self.slot(id) else {
            return false;
        };
        let connection = self.new_reno.at(slot);
        connection.is_some_and(|it| it.tuple() == tuple && it.is_open())
    }

    /// Takes an ordinary segment of the connection that [`find_open`](Self::find_open) found, by the
    /// short way. False: it is not for that, and nothing was changed.
    #[inline(always)]
    pub(crate) fn on_plain_segment(
        &mut self,
        pools: &mut Pools,
        ack_delay: AckDelay,
        now: Instant,
        id: Id,
        segment: &PlainSegment<'_>,
    ) -> bool {
        let taken = match self.cubic.at_mut(id) {
            Some(it) => it.on_plain_segment(pools, ack_delay, now, segment),
            None => self.on_plain_segment_elsewhere(pools, ack_delay, now, id, segment),
        };
        match taken {
            Then::LongWay => return false,
            Then::News => {
                self.transmit.push(id);
                self.ready.push(id);
            }
            Then::Touch => self.touch_id(id),
            Then::Schedule => {
                let deadline = self.cubic.at(id).and_then(Connection::deadline);
                self.schedule(id, deadline);
            }
        }
        true
    }

    /// The same where the record is not a connection with CUBIC.
    #[inline(never)]
    fn on_plain_segment_elsewhere(
        &mut self,
        pools: &mut Pools,
        ack_delay: AckDelay,
        now: Instant,
        id: Id,
        segment: &PlainSegment<'_>,
    ) -> Then {
        let Slot::Connection(CongestionKind::NewReno, slot) = self.slot(id) else {
            return Then::LongWay;
        };
        let Some(it) = self.new_reno.at_mut(slot) else {
            return Then::LongWay;
        };
        match it.on_plain_segment(pools, ack_delay, now, segment) {
            // When its timer is due it says when it transmits.
            Then::Schedule => Then::Touch,
            then => then,
        }
    }

    /// Takes a segment of a connection there is a record of.
    #[inline]
    pub fn on_segment(
        &mut self,
        cx: &mut Context<'_>,
        tuple: &Tuple<I::Addr>,
        segment: &Segment<'_>,
    ) -> Outcome {
        match self.find(tuple) {
            Some(Slot::Connection(kind, slot)) => self.on_connection(cx, kind, slot, segment),
            Some(Slot::HalfOpen(slot)) => self.on_half_open(cx, slot, segment),
            Some(Slot::TimeWait(slot)) => self.on_time_wait(cx, slot, segment),
            None => Outcome::Unknown,
        }
    }

    #[inline]
    pub(crate) fn on_connection(
        &mut self,
        cx: &mut Context<'_>,
        kind: CongestionKind,
        slot: u32,
        segment: &Segment<'_>,
    ) -> Outcome {
        let Some(processed) = connection!(self, kind, slot, it => it.on_segment(cx, segment))
        else {
            return Outcome::Unknown;
        };
        match processed {
            Ok(Fate::Alive) => {
                self.touch(kind, slot);
                Outcome::Taken
            }
            Ok(fate) => {
                self.retire(cx, kind, slot, fate);
                Outcome::Taken
            }
            Err(reason) => {
                if reason == DropReason::TcpAckUnacceptable {
                    self.reset_unacceptable(cx, kind, slot, segment);
                } else {
                    self.touch(kind, slot);
                }
                Outcome::Dropped(reason)
            }
        }
    }

    /// RFC 9293 §3.10.7.3, §3.10.7.4: `<SEQ=SEG.ACK><CTL=RST>`, and the connection goes on.
    #[cold]
    fn reset_unacceptable(
        &mut self,
        cx: &mut Context<'_>,
        kind: CongestionKind,
        slot: u32,
        segment: &Segment<'_>,
    ) {
        let found = connection!(self, kind, slot, it => (*it.tuple(), it.ip_fields()));
        if let Some((tuple, ip)) = found {
            let reset = reset_for(&tuple, segment);
            self.answer(cx, Answer { ip, ..reset });
        }
    }

    /// Queues a connection to transmit, and for the application if there is news.
    #[inline]
    pub(crate) fn touch(&mut self, kind: CongestionKind, slot: u32) {
        self.touch_id(self.id(Slot::Connection(kind, slot)));
    }

    /// The same by id.
    #[inline(always)]
    fn touch_id(&mut self, id: Id) {
        let [cubics, ..] = self.bases;
        let wanted = if id < cubics {
            self.cubic.at(id).map(Connection::is_wanted)
        } else {
            self.new_reno.at(id - cubics).map(Connection::is_wanted)
        };
        if let Some(wanted) = wanted {
            self.transmit.push(id);
            if wanted {
                self.ready.push(id);
            }
        }
    }

    /// An application found no memory to write into: it hears when there is some, which no
    /// acknowledgement would tell it if nothing of its own is under way.
    #[cold]
    pub(crate) fn starve(&mut self, kind: CongestionKind, slot: u32) {
        if connection!(self, kind, slot, it => it.wants_room()) == Some(true) {
            self.starved.push(self.id(Slot::Connection(kind, slot)));
        }
    }

    /// Whether somebody waits for memory.
    #[inline]
    #[must_use]
    pub fn is_starved(&self) -> bool {
        !self.starved.is_empty()
    }

    /// There is memory for `count` of those that wait for it.
    #[cold]
    pub(crate) fn feed(&mut self, count: u32) {
        for _ in 0..count {
            let Some(id) = self.starved.pop() else {
                break;
            };
            let Slot::Connection(kind, slot) = self.slot(id) else {
                continue;
            };
            if connection!(self, kind, slot, it => it.on_memory()).is_some() {
                self.touch(kind, slot);
            }
        }
    }

    /// Queues an answer; beyond the limit it is not sent.
    pub(crate) fn answer(&mut self, cx: &mut Context<'_>, answer: Answer<I>) {
        if self.answers.len() == ANSWERS_MAX {
            cx.events.count(Event::TcpAnswerDropped);
            return;
        }
        self.answers.push_back(answer);
    }

    /// The next answer to be sent.
    #[inline]
    pub fn next_answer(&mut self) -> Option<Answer<I>> {
        self.answers.pop_front()
    }

    /// The next connection that may have something to send.
    #[inline]
    pub fn next_to_transmit(&mut self) -> Option<ToTransmit<I>> {
        loop {
            let id = self.transmit.pop()?;
            let Slot::Connection(kind, slot) = self.slot(id) else {
                continue;
            };
            // It may have ended since, and another may be in its place, which has nothing to send then.
            let next = connection!(self, kind, slot, it => (*it.tuple(), it.take_black_hole()));
            if let Some((tuple, black_hole)) = next {
                return Some(ToTransmit {
                    kind,
                    slot,
                    tuple,
                    black_hole,
                });
            }
        }
    }

    /// How many connections may have something to send.
    #[must_use]
    pub fn to_transmit_len(&self) -> usize {
        self.transmit.len()
    }

    /// Lets a connection send, over a path that carries IP packets of `path_mtu` bytes. One that is
    /// blocked is queued again.
    #[inline]
    pub fn transmit(
        &mut self,
        cx: &mut Context<'_>,
        from: &ToTransmit<I>,
        path_mtu: u16,
        out: &mut impl Output<I>,
    ) -> Transmitted {
        let ToTransmit { kind, slot, .. } = *from;
        let id = self.id(Slot::Connection(kind, slot));
        let done = connection!(self, kind, slot, it => {
            it.set_path_mtu(cx, path_mtu);
            let transmitted = it.transmit(cx, out);
            (transmitted, it.deadline())
        });
        let Some((transmitted, deadline)) = done else {
            return Transmitted::Done;
        };
        self.schedule(id, deadline);
        if transmitted == Transmitted::Blocked {
            self.touch(kind, slot);
        }
        transmitted
    }

    /// Lets the first connection in the queue send by the short way, if it is one with CUBIC:
    /// `transmit` says whether all there is has left. `None`: the queue is empty, or its first one
    /// takes the long way, and is still in the queue.
    #[inline(always)]
    pub(crate) fn transmit_next(
        &mut self,
        transmit: impl FnOnce(&mut Connection<I, Cubic>) -> bool,
    ) -> Option<()> {
        let id = self.transmit.first()?;
        let connection = self.cubic.at_mut(id)?;
        if !transmit(connection) {
            return None;
        }
        let deadline = connection.deadline();
        self.transmit.pop();
        self.schedule(id, deadline);
        Some(())
    }

    /// Deadlines mostly move away, once with every ACK. The wheel is told only when one comes nearer;
    /// what fires too early finds nothing due, and says when it is.
    #[inline]
    fn schedule(&mut self, id: Id, deadline: Option<Instant>) {
        if let Some(at) = deadline {
            self.wheel.schedule_no_later(id, at);
        }
    }

    /// The next connection with news for the application.
    #[inline]
    pub fn next_ready(&mut self) -> Option<ConnectionId> {
        loop {
            let id = self.ready.pop()?;
            let Slot::Connection(kind, slot) = self.slot(id) else {
                continue;
            };
            if connection!(self, kind, slot, it => it.take_news()) == Some(true) {
                return self.connection_id(kind, slot);
            }
        }
    }

    /// The name of the connection in a slot.
    #[must_use]
    pub fn connection_id(&self, kind: CongestionKind, slot: u32) -> Option<ConnectionId> {
        let handle = match kind {
            CongestionKind::Cubic => self.cubic.handle(slot),
            CongestionKind::NewReno => self.new_reno.handle(slot),
        }?;
        Some(ConnectionId { kind, handle })
    }

    /// Whether a connection still has this name.
    #[inline]
    #[must_use]
    pub fn is_there(&self, id: ConnectionId) -> bool {
        match id.kind {
            CongestionKind::Cubic => self.cubic.get(id.handle).is_some(),
            CongestionKind::NewReno => self.new_reno.get(id.handle).is_some(),
        }
    }

    /// A connection with CUBIC.
    #[inline]
    pub(crate) fn cubic_mut(&mut self, id: ConnectionId) -> Option<&mut Connection<I, Cubic>> {
        self.cubic.get_mut(id.handle)
    }

    /// A connection with NewReno.
    #[inline]
    pub(crate) fn new_reno_mut(&mut self, id: ConnectionId) -> Option<&mut Connection<I, NewReno>> {
        self.new_reno.get_mut(id.handle)
    }

    /// A half-open connection.
    #[must_use]
    pub fn half_open(&self, slot: u32) -> Option<&HalfOpen<I>> {
        self.half_open.at(slot)
    }

    /// Whether there is anything to send, perhaps.
    #[inline]
    #[must_use]
    pub fn has_output(&self) -> bool {
        !self.transmit.is_empty() || !self.answers.is_empty()
    }

    /// An ICMP error quotes a segment with sequence number `seq` (RFC 5927 §4.1): false if there is no
    /// such connection, or it has nothing like that under way.
    pub(crate) fn on_icmp(
        &mut self,
        cx: &mut Context<'_>,
        tuple: &Tuple<I::Addr>,
        seq: SeqNum,
        error: Option<IcmpError>,
    ) -> bool {
        let Some(Slot::Connection(kind, slot)) = self.find(tuple) else {
            return false;
        };
        let fate = connection!(self, kind, slot, it => {
            it.has_under_way(seq).then(|| match error {
                Some(error) => it.on_icmp(cx, error),
                None => Fate::Alive,
            })
        });
        match fate.flatten() {
            None => return false,
            // What the path carries now is seen when it transmits.
            Some(Fate::Alive) => self.touch(kind, slot),
            Some(fate) => self.retire(cx, kind, slot, fate),
        }
        true
    }

    /// Adds a connection, if there is room.
    pub(crate) fn insert_cubic(
        &mut self,
        connection: Connection<I, Cubic>,
    ) -> Option<ConnectionId> {
        let tuple = *connection.tuple();
        let handle = self.cubic.insert(connection).ok()?;
        let kind = CongestionKind::Cubic;
        self.enter(&tuple, Slot::Connection(kind, handle.slot));
        Some(ConnectionId { kind, handle })
    }

    /// The same for NewReno.
    pub(crate) fn insert_new_reno(
        &mut self,
        connection: Connection<I, NewReno>,
    ) -> Option<ConnectionId> {
        let tuple = *connection.tuple();
        let handle = self.new_reno.insert(connection).ok()?;
        let kind = CongestionKind::NewReno;
        self.enter(&tuple, Slot::Connection(kind, handle.slot));
        Some(ConnectionId { kind, handle })
    }

    /// Whether there is room for another connection.
    #[must_use]
    pub fn has_room(&self, kind: CongestionKind) -> bool {
        match kind {
            CongestionKind::Cubic => !self.cubic.is_full(),
            CongestionKind::NewReno => !self.new_reno.is_full(),
        }
    }

    fn enter(&mut self, tuple: &Tuple<I::Addr>, slot: Slot) {
        let id = self.id(slot);
        self.index.insert(tuple.hash(&self.key), id);
    }

    fn leave(&mut self, tuple: &Tuple<I::Addr>, slot: Slot) {
        let id = self.id(slot);
        self.index.remove(tuple.hash(&self.key), id);
        self.wheel.cancel(id);
    }

    /// A connection is no more: its tuple is free, or what is left of it takes its place. The record
    /// stays until the application lets go of it.
    pub(crate) fn retire(
        &mut self,
        cx: &mut Context<'_>,
        kind: CongestionKind,
        slot: u32,
        fate: Fate,
    ) {
        let found = connection!(self, kind, slot, it => (*it.tuple(), it.retire(cx, fate)));
        let Some((tuple, retired)) = found else {
            return;
        };
        if retired.leaves {
            self.leave(&tuple, Slot::Connection(kind, slot));
        }
        if let Some(answer) = retired.answer {
            self.answer(cx, answer);
        }
        if let Some(record) = retired.time_wait {
            self.remember(cx, record);
        }
        if retired.remove {
            // Its tuple may have left before; its slot is somebody else's from here on.
            let id = self.id(Slot::Connection(kind, slot));
            self.wheel.cancel(id);
            connection!(self, kind, slot, it => it.clear(cx));
            match kind {
                CongestionKind::Cubic => drop(self.cubic.remove(slot)),
                CongestionKind::NewReno => drop(self.new_reno.remove(slot)),
            }
        } else {
            self.touch(kind, slot);
        }
    }

    /// Keeps what is left of a connection, in place of the oldest such record if there is no room.
    fn remember(&mut self, cx: &mut Context<'_>, record: TimeWait<I>) {
        if self.time_wait.is_full() {
            while let Some(oldest) = self.time_wait_order.pop_front() {
                if self.time_wait.get(oldest).is_some() {
                    self.forget_time_wait(oldest.slot);
                    cx.events.count(Event::TcpTimeWaitOverflow);
                    break;
                }
            }
        }
        let tuple = record.tuple;
        let Ok(handle) = self.time_wait.insert(record) else {
            return;
        };
        let slot = Slot::TimeWait(handle.slot);
        self.enter(&tuple, slot);
        let end = cx.now + cx.config.time_wait_period;
        self.wheel.schedule(self.id(slot), end);
        if self.time_wait_order.len() == self.time_wait_order.capacity() {
            let time_wait = &self.time_wait;
            self.time_wait_order
                .retain(|handle| time_wait.get(*handle).is_some());
        }
        self.time_wait_order.push_back(handle);
    }

    fn forget_time_wait(&mut self, slot: u32) {
        if let Some(record) = self.time_wait.remove(slot) {
            self.leave(&record.tuple, Slot::TimeWait(slot));
        }
    }

    #[cold]
    fn on_time_wait(&mut self, cx: &mut Context<'_>, slot: u32, segment: &Segment<'_>) -> Outcome {
        let Some(record) = self.time_wait.at(slot) else {
            return Outcome::Unknown;
        };
        let outcome = record.on_segment(segment);
        match outcome {
            time_wait::OnSegment::Drop => return Outcome::Dropped(DropReason::TcpTimeWait),
            time_wait::OnSegment::Reopen => {
                let send_next = record.send_next;
                self.forget_time_wait(slot);
                cx.events.count(Event::TcpTimeWaitReused);
                return Outcome::Reopen { send_next };
            }
            time_wait::OnSegment::Acknowledge => {}
            time_wait::OnSegment::AcknowledgeAndRestart => {
                let id = self.id(Slot::TimeWait(slot));
                self.wheel.schedule(id, cx.now + cx.config.time_wait_period);
            }
        }
        let answer = record.acknowledgement(cx.now);
        if let Some(record) = self.time_wait.at_mut(slot)
            && cx.challenges.allow(&mut record.last_challenge, cx.now)
        {
            self.answer(cx, answer);
        }
        Outcome::Dropped(DropReason::TcpTimeWait)
    }

    /// How many half-open connections there may still be.
    #[must_use]
    pub fn has_room_for_half_open(&self) -> bool {
        !self.half_open.is_full()
    }

    /// Keeps a half-open connection, whose SYN,ACK is sent now.
    pub(crate) fn insert_half_open(&mut self, cx: &mut Context<'_>, record: HalfOpen<I>) -> bool {
        let tuple = record.tuple;
        let (answer, timeout) = (record.syn_ack(cx.config, cx.now), record.timeout());
        let Ok(handle) = self.half_open.insert(record) else {
            return false;
        };
        let slot = Slot::HalfOpen(handle.slot);
        self.enter(&tuple, slot);
        self.wheel.schedule(self.id(slot), cx.now + timeout);
        self.answer(cx, answer);
        true
    }

    /// Takes out a half-open connection.
    pub(crate) fn remove_half_open(&mut self, slot: u32) -> Option<HalfOpen<I>> {
        let record = self.half_open.remove(slot)?;
        self.leave(&record.tuple, Slot::HalfOpen(slot));
        Some(record)
    }

    #[cold]
    fn on_half_open(&mut self, cx: &mut Context<'_>, slot: u32, segment: &Segment<'_>) -> Outcome {
        let Some(record) = self.half_open.at_mut(slot) else {
            return Outcome::Unknown;
        };
        let (answer, reason) = match record.on_segment(segment) {
            listener::OnSegment::Drop => return Outcome::Dropped(DropReason::TcpNoAck),
            listener::OnSegment::Establish => return Outcome::Complete { slot },
            listener::OnSegment::Forget => {
                cx.events.count(Event::TcpResetRx);
                self.forget_half_open(cx, slot);
                return Outcome::Taken;
            }
            listener::OnSegment::RepeatSynAck => {
                let answer = record.syn_ack(cx.config, cx.now);
                (answer, DropReason::TcpDuplicate)
            }
            listener::OnSegment::Acknowledge => {
                let answer = record.acknowledgement(cx.now);
                (answer, DropReason::TcpOutOfWindow)
            }
            listener::OnSegment::Reset => {
                let reset = reset_for(&record.tuple, segment);
                let answer = Answer {
                    ip: record.ip,
                    ..reset
                };
                (answer, DropReason::TcpAckUnacceptable)
            }
        };
        if cx.challenges.allow(&mut record.last_challenge, cx.now) {
            self.answer(cx, answer);
        }
        Outcome::Dropped(reason)
    }

    fn forget_half_open(&mut self, cx: &mut Context<'_>, slot: u32) {
        if let Some(record) = self.remove_half_open(slot) {
            cx.listeners.on_half_open_gone(record.listener);
        }
    }

    /// Runs every timer that is due.
    pub fn expire(&mut self, cx: &mut Context<'_>) {
        while let Some(id) = self.wheel.pop(cx.now) {
            match self.slot(id) {
                Slot::Connection(kind, slot) => {
                    let fate = connection!(self, kind, slot, it => it.on_timer(cx));
                    match fate {
                        None => {}
                        // Transmitting tells the wheel when to come again.
                        Some(Fate::Alive) => self.touch(kind, slot),
                        Some(fate) => self.retire(cx, kind, slot, fate),
                    }
                }
                Slot::TimeWait(slot) => self.forget_time_wait(slot),
                Slot::HalfOpen(slot) => self.expire_half_open(cx, slot),
            }
        }
    }

    /// RFC 6298 §5.5: the SYN,ACK again, ever more rarely.
    fn expire_half_open(&mut self, cx: &mut Context<'_>, slot: u32) {
        let Some(record) = self.half_open.at_mut(slot) else {
            return;
        };
        if record.retransmissions >= cx.config.syn_ack_retries {
            cx.events.count(Event::TcpHalfOpenTimeout);
            return self.forget_half_open(cx, slot);
        }
        record.retransmissions += 1;
        let (answer, timeout) = (record.syn_ack(cx.config, cx.now), record.timeout());
        cx.events.count(Event::TcpSynRetransmitted);
        let id = self.id(Slot::HalfOpen(slot));
        self.wheel.schedule(id, cx.now + timeout);
        self.answer(cx, answer);
    }

    /// A bound for how long nothing will be due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.wheel.next()
    }

    /// How many records of each kind there are: connections, half-open, time-wait.
    #[must_use]
    pub fn census(&self) -> [usize; 3] {
        let connections = self.cubic.len() + self.new_reno.len();
        [connections, self.half_open.len(), self.time_wait.len()]
    }
}

/// The RST that answers a segment nobody wants (RFC 9293 §3.10.7.1): where its sender is, or, if it says
/// nothing of that, behind what it sent.
#[must_use]
pub fn reset_for<I: Ip>(tuple: &Tuple<I::Addr>, segment: &Segment<'_>) -> Answer<I> {
    let (seq, ack, flags) = if segment.flags.contains(Flags::ACK) {
        (segment.ack, SeqNum::new(0), Flags::RST)
    } else {
        (SeqNum::new(0), segment.end(), Flags::RST.union(Flags::ACK))
    };
    Answer {
        tuple: *tuple,
        header: Header {
            source_port: tuple.local_port,
            destination_port: tuple.remote_port,
            seq,
            ack,
            flags,
            window: 0,
            urgent: 0,
        },
        options: OptionsOut::NONE,
        ip: IpFields::default(),
    }
}
