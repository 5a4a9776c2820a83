//! Many connections at once: opens them, asks, waits, counts. One loop for every mode and every engine:
//! what is said is the [`Dialogue`]'s, what carries it the [`Transport`]'s.
//!
//! ```text
//!                                  keep: for the next request
//!                               ┌──────────────────────────────┐
//!                open           ▼      ask            reply     │
//!   Vacant ──────────► Opening ──► Idle ────► Asking ──────────┤
//!     ▲                   │                     │               │ fresh: a connection for each request
//!     │     10 ms         │ failed              │ failed        ▼
//!     ├───── Resting ◄────┴─────────────────────┘            Closing
//!     └─────────────────────────────────────────────────────────┘ the peer has closed, too
//! ```
//!
//! In a closed loop a connection asks as soon as it can. In an open loop requests are due by a
//! [`Schedule`] and go to connections that are free; one that finds none waits, and is timed from when it
//! was due all the same.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

use super::dialogue::{Dialogue, Progress, Reply};
use super::failure::Failure;
use super::rogue::Rogues;
use super::tally::Ledger;
use super::transport::{Ending, Hearing, Received, Transport};
use crate::loadgen::kernel::{Idle, WAKE_MARGIN_NS};
use crate::loadgen::pacing::Schedule;

/// How long a connection rests that failed, so that a target that refuses is not flooded with attempts: a
/// hundred a second for each.
const REST_NS: u64 = 10_000_000;

/// Longest sleep: bounds how long Ctrl-C goes unnoticed.
const SLEEP_NS_MAX: u64 = 50_000_000;

/// Writes in a row on one connection, before the others get their turn.
const WRITES_PER_TURN: usize = 4;

/// How connections are used.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// A connection for each request, rather than one for all of them.
    pub fresh: bool,
    /// How a connection of one request is ended.
    pub ending: Ending,
    /// Longest time a handshake, a reply, and the peer's closing may take, each, in nanoseconds.
    pub timeout_ns: u64,
    /// Time between the first openings of two connections, in nanoseconds.
    pub ramp_interval_ns: u64,
    /// What the thread does while nothing is due.
    pub idle: Idle,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No connection.
    Vacant,
    /// No connection, and none for a while.
    Resting,
    /// The handshake is under way.
    Opening,
    /// Nothing is asked.
    Idle,
    /// A reply is awaited.
    Asking,
    /// We have closed, the peer has not.
    Closing,
    /// Bytes without end.
    Flowing,
}

impl Phase {
    /// Whether it ends by itself, or else when the timeout is over.
    const fn is_busy(self) -> bool {
        matches!(self, Self::Opening | Self::Asking | Self::Closing)
    }
}

/// One connection, and those that were in its place before.
struct Slot<Talk> {
    phase: Phase,
    /// Changes with every change of phase, so that earlier deadlines mean nothing.
    epoch: u32,
    /// Which connection it is.
    incarnation: u32,
    /// It is in the queue of those that are free.
    queued: bool,
    /// The handshake was completed.
    open: bool,
    opened_ns: u64,
    /// When the request that is not answered was due, or sent.
    asked_ns: Option<u64>,
    talk: Talk,
}

/// One thread's connections.
#[allow(missing_debug_implementations)] // Neither transports nor talks need any.
pub struct Crowd<T: Transport, D: Dialogue> {
    transport: T,
    dialogue: D,
    ledger: Ledger,
    manner: Manner,
    /// Of an open loop.
    schedule: Option<Schedule>,
    slots: Vec<Slot<D::Talk>>,
    /// How many those are.
    connections: u32,
    /// Slots that were opened once.
    ramped: u32,
    /// Of an open loop: slots that may take a request.
    free: VecDeque<u32>,
    /// Slot and epoch by deadline; all have the same time, so they are in order.
    deadlines: VecDeque<(u64, u32, u32)>,
    resting: VecDeque<(u64, u32)>,
    /// Slots that have to be served without news.
    again: Vec<u32>,
    news: Vec<u32>,
    busy: usize,
    open: u64,
    rogues: Rogues,
    /// The measured time has begun.
    measuring: bool,
    /// The schedule's remainder was counted as unsent.
    closed_books: bool,
}

impl<T: Transport, D: Dialogue> Crowd<T, D> {
    /// `connections` of them, with requests as soon as each is free, or by `schedule`.
    pub(super) fn new(
        transport: T,
        dialogue: D,
        ledger: Ledger,
        manner: Manner,
        schedule: Option<Schedule>,
        connections: u32,
        rogues: Rogues,
    ) -> Self {
        let slot = || Slot {
            phase: Phase::Vacant,
            epoch: 0,
            incarnation: 0,
            queued: false,
            open: false,
            opened_ns: 0,
            asked_ns: None,
            talk: D::Talk::default(),
        };
        let mut crowd = Self {
            transport,
            dialogue,
            ledger,
            manner,
            schedule,
            slots: std::iter::repeat_with(slot)
                .take(connections as usize)
                .collect(),
            connections,
            ramped: 0,
            free: VecDeque::new(),
            deadlines: VecDeque::new(),
            resting: VecDeque::new(),
            again: Vec::new(),
            news: Vec::new(),
            busy: 0,
            open: 0,
            rogues,
            measuring: false,
            closed_books: false,
        };
        if crowd.manner.fresh && crowd.schedule.is_some() {
            // A request opens its own.
            crowd.ramped = connections;
            for slot in 0..connections {
                crowd.set_free(slot);
            }
        }
        crowd
    }

    /// Runs until everything begun has ended, or soon after `stop` is set, and returns the counts and the
    /// end of the measured time.
    ///
    /// # Errors
    /// A sentence, when nothing can go on.
    pub(super) fn run(mut self, stop: &AtomicBool) -> Result<(Ledger, T), String> {
        self.transport.begin(&self.ledger.window);
        loop {
            let now = self.transport.now();
            if stop.load(Ordering::Relaxed) {
                self.ledger.stop(now);
            }
            self.expire(now);
            if self.finished(now) {
                break;
            }
            self.ramp(now);
            self.start_due(now);
            let wait_ns = self.wait_ns(self.transport.now());
            let mut news = std::mem::take(&mut self.news);
            news.append(&mut self.again);
            let wait_ns = if news.is_empty() { wait_ns } else { 0 };
            self.transport.poll(wait_ns, &mut news)?;
            for slot in news.drain(..) {
                self.on_news(slot);
                // What is due is not to wait for a whole round of news.
                self.start_due(self.transport.now());
            }
            self.news = news;
        }
        for slot in 0..self.connections {
            if !matches!(self.slot(slot).phase, Phase::Vacant | Phase::Resting) {
                self.release(slot, Ending::Fin);
            }
        }
        self.rogues.close(&mut self.transport);
        self.ledger.tally.rogues = self.rogues.tally;
        // What closing has to say still has to leave.
        self.transport.poll(0, &mut Vec::new())?;
        Ok((self.ledger, self.transport))
    }

    fn slot(&mut self, slot: u32) -> &mut Slot<D::Talk> {
        &mut self.slots[slot as usize]
    }

    fn is_over(&self, now: u64) -> bool {
        now >= self.ledger.window.stop_ns
    }

    fn finished(&self, now: u64) -> bool {
        self.is_over(now) && self.busy == 0
    }

    /// Every change of phase goes through here.
    fn enter(&mut self, slot: u32, phase: Phase, now: u64) {
        let deadline = now.saturating_add(self.manner.timeout_ns);
        let entry = self.slot(slot);
        let was_busy = entry.phase.is_busy();
        entry.phase = phase;
        entry.epoch = entry.epoch.wrapping_add(1);
        let epoch = entry.epoch;
        self.busy -= usize::from(was_busy);
        if phase.is_busy() {
            self.busy += 1;
            self.deadlines.push_back((deadline, slot, epoch));
        }
    }

    /// Opens connections for the first time, one after the other.
    fn ramp(&mut self, now: u64) {
        while self.ramp_due() <= now && !self.is_over(now) {
            let slot = self.ramped;
            self.ramped += 1;
            self.renew(slot, now);
        }
    }

    fn ramp_due(&self) -> u64 {
        if self.ramped == self.connections {
            return u64::MAX;
        }
        let offset = u64::from(self.ramped).saturating_mul(self.manner.ramp_interval_ns);
        self.ledger.window.start_ns.saturating_add(offset)
    }

    /// Begins the requests of an open loop that are due and find a connection.
    fn start_due(&mut self, now: u64) {
        let stop_ns = self.ledger.window.stop_ns;
        while let Some(schedule) = &mut self.schedule {
            let due = schedule.next_ns();
            if due > now || due >= stop_ns {
                return;
            }
            let Some(slot) = self.next_free() else {
                return;
            };
            if let Some(schedule) = &mut self.schedule {
                schedule.advance();
            }
            if self.manner.fresh {
                self.open_and_ask(slot, due, now);
            } else {
                self.ask(slot, due, now);
                self.write(slot);
            }
        }
    }

    fn next_free(&mut self) -> Option<u32> {
        while let Some(slot) = self.free.pop_front() {
            self.slot(slot).queued = false;
            if self.is_free(slot) {
                return Some(slot);
            }
        }
        None
    }

    fn is_free(&mut self, slot: u32) -> bool {
        let wanted = if self.manner.fresh {
            Phase::Vacant
        } else {
            Phase::Idle
        };
        self.slot(slot).phase == wanted
    }

    fn set_free(&mut self, slot: u32) {
        if !std::mem::replace(&mut self.slot(slot).queued, true) {
            self.free.push_back(slot);
        }
    }

    /// A slot without connection gets one, when there is a use for it.
    fn renew(&mut self, slot: u32, now: u64) {
        if self.is_over(now) {
            return;
        }
        match (self.manner.fresh, &self.schedule) {
            (true, None) => self.open_and_ask(slot, now, now),
            (true, Some(_)) => self.set_free(slot),
            (false, _) => self.open(slot, now),
        }
    }

    fn open_and_ask(&mut self, slot: u32, at: u64, now: u64) {
        self.slot(slot).asked_ns = Some(at);
        self.ledger.request(at);
        self.open(slot, now);
    }

    fn open(&mut self, slot: u32, now: u64) {
        self.enter(slot, Phase::Opening, now);
        let entry = self.slot(slot);
        entry.opened_ns = now;
        entry.incarnation = entry.incarnation.wrapping_add(1);
        self.ledger.connect(now);
        if let Err(failure) = self.transport.open(slot, Hearing::Normal) {
            self.open_failed(slot, failure, now);
        }
    }

    fn opened(&mut self, slot: u32, now: u64) {
        let Self {
            dialogue,
            slots,
            ledger,
            open,
            ..
        } = self;
        let entry = &mut slots[slot as usize];
        ledger.established(entry.opened_ns, now);
        entry.open = true;
        *open += 1;
        dialogue.begin(&mut entry.talk);
        if !D::ASKS {
            self.enter(slot, Phase::Flowing, now);
        } else if self.slot(slot).asked_ns.is_some() {
            self.enter(slot, Phase::Asking, now);
            self.dialogue.ask(&mut self.slots[slot as usize].talk);
        } else {
            self.rest_from_asking(slot, now);
        }
    }

    /// An open connection may be asked for the next reply.
    fn rest_from_asking(&mut self, slot: u32, now: u64) {
        self.enter(slot, Phase::Idle, now);
        if self.schedule.is_some() {
            self.set_free(slot);
        } else if !self.is_over(now) {
            self.ask(slot, now, now);
        }
    }

    fn ask(&mut self, slot: u32, at: u64, now: u64) {
        self.enter(slot, Phase::Asking, now);
        self.slot(slot).asked_ns = Some(at);
        self.ledger.request(at);
        self.dialogue.ask(&mut self.slots[slot as usize].talk);
    }

    fn open_failed(&mut self, slot: u32, failure: Failure, now: u64) {
        let opened_ns = self.slot(slot).opened_ns;
        self.ledger.connect_failed(opened_ns, failure);
        self.fail(slot, failure, now);
    }

    /// The request under way, if there is one, has no reply, and the connection is of no use any more.
    fn fail(&mut self, slot: u32, failure: Failure, now: u64) {
        if let Some(at) = self.slot(slot).asked_ns.take() {
            self.ledger.failed(at, failure);
        }
        self.release(slot, Ending::Reset);
        self.rest(slot, now);
    }

    fn release(&mut self, slot: u32, ending: Ending) {
        self.transport.close(slot, ending);
        if std::mem::take(&mut self.slot(slot).open) {
            self.ledger.live.closed();
            self.open -= 1;
        }
        self.enter(slot, Phase::Vacant, 0);
    }

    fn rest(&mut self, slot: u32, now: u64) {
        self.enter(slot, Phase::Resting, now);
        self.resting.push_back((now.saturating_add(REST_NS), slot));
    }

    fn on_news(&mut self, slot: u32) {
        if self.rogues.own(slot) {
            let now = self.transport.now();
            return self.rogues.on_news(&mut self.transport, slot, now);
        }
        if self.slot(slot).phase == Phase::Opening {
            match self.transport.is_open(slot) {
                Ok(false) => return,
                Ok(true) => {
                    let now = self.transport.now();
                    self.opened(slot, now);
                }
                Err(failure) => {
                    let now = self.transport.now();
                    return self.open_failed(slot, failure, now);
                }
            }
        }
        if matches!(
            self.slot(slot).phase,
            Phase::Idle | Phase::Asking | Phase::Closing | Phase::Flowing
        ) {
            self.read(slot);
        }
        if matches!(self.slot(slot).phase, Phase::Asking | Phase::Flowing) {
            self.write(slot);
        }
    }

    /// Reads what came, and does what follows from it.
    fn read(&mut self, slot: u32) {
        let Self {
            transport,
            dialogue,
            slots,
            ..
        } = self;
        let entry = &mut slots[slot as usize];
        let incarnation = entry.incarnation;
        let (mut progress, mut bytes) = (Progress::More, 0);
        let received = transport.receive(slot, &mut |chunk| {
            bytes += chunk.len();
            progress = match progress {
                Progress::More => dialogue.incoming(&mut entry.talk, chunk),
                Progress::Done(_) => Progress::Failed(Failure::Unexpected),
                failed @ Progress::Failed(_) => failed,
            };
        });
        let now = self.transport.now();
        if bytes > 0 {
            self.ledger.received(bytes, now);
        }
        let ends = matches!(received, Ok(Received::End) | Err(_));
        match progress {
            Progress::More => {}
            Progress::Done(reply) => self.replied(slot, reply, ends, now),
            Progress::Failed(failure) => self.broken(slot, failure, now),
        }
        if self.slot(slot).incarnation != incarnation {
            return;
        }
        match received {
            Ok(Received::All) => {}
            Ok(Received::Some) => self.again.push(slot),
            Ok(Received::End) => self.ended(slot, now),
            Err(failure) => self.broken(slot, failure, now),
        }
    }

    fn replied(&mut self, slot: u32, reply: Reply, ends: bool, now: u64) {
        let Reply { failure, closing } = reply;
        let Some(at) = self.slot(slot).asked_ns.take() else {
            // Not asked: dialogues answer so to what nobody asked for, too.
            return self.broken(slot, Failure::Unexpected, now);
        };
        match failure {
            None => self.ledger.reply(at, now),
            Some(failure) => self.ledger.failed(at, failure),
        }
        if self.manner.fresh {
            if self.manner.ending == Ending::Reset {
                self.release(slot, Ending::Reset);
                self.renew(slot, now);
            } else {
                self.transport.finish(slot);
                self.enter(slot, Phase::Closing, now);
            }
        } else if closing || ends {
            self.release(slot, Ending::Fin);
            self.renew(slot, now);
        } else {
            self.rest_from_asking(slot, now);
        }
    }

    /// The peer has closed its direction.
    fn ended(&mut self, slot: u32, now: u64) {
        match self.slot(slot).phase {
            Phase::Asking => {
                let talk = &mut self.slots[slot as usize].talk;
                match self.dialogue.ended(talk) {
                    Progress::Done(reply) => self.replied(slot, reply, true, now),
                    Progress::Failed(failure) => self.broken(slot, failure, now),
                    Progress::More => self.broken(slot, Failure::Closed, now),
                }
                // A connection of one request is closed at both ends now.
                if self.slot(slot).phase == Phase::Closing {
                    self.ended(slot, now);
                }
            }
            Phase::Closing => {
                self.release(slot, Ending::Fin);
                self.renew(slot, now);
            }
            _ => self.broken(slot, Failure::Closed, now),
        }
    }

    /// The connection is no more, or no good.
    fn broken(&mut self, slot: u32, failure: Failure, now: u64) {
        match self.slot(slot).phase {
            Phase::Asking => self.fail(slot, failure, now),
            Phase::Flowing => {
                if !self.is_over(now) {
                    self.ledger.failed(now, failure);
                }
                self.fail(slot, failure, now);
            }
            Phase::Idle => {
                if self.ledger.window.measures(now) {
                    self.ledger.tally.connections.lost_idle += 1;
                }
                self.fail(slot, failure, now);
            }
            Phase::Closing => {
                self.release(slot, Ending::Reset);
                self.renew(slot, now);
            }
            Phase::Vacant | Phase::Resting | Phase::Opening => {}
        }
    }

    fn write(&mut self, slot: u32) {
        let Self {
            transport,
            dialogue,
            slots,
            ..
        } = self;
        let talk = &mut slots[slot as usize].talk;
        let mut bytes = 0;
        let mut result = Ok(());
        for write in 0.. {
            let out = dialogue.outgoing(talk);
            let len = out.len();
            if len == 0 {
                break;
            }
            if write == WRITES_PER_TURN {
                self.again.push(slot);
                break;
            }
            match transport.send(slot, out) {
                Ok(sent) => {
                    dialogue.sent(talk, sent);
                    bytes += sent;
                    if sent < len {
                        break;
                    }
                }
                Err(failure) => {
                    result = Err(failure);
                    break;
                }
            }
        }
        if bytes > 0 {
            let now = self.transport.now();
            self.ledger.sent(bytes, now);
        }
        if let Err(failure) = result {
            let now = self.transport.now();
            self.broken(slot, failure, now);
        }
    }

    /// Does what the clock asks for.
    fn expire(&mut self, now: u64) {
        if !self.measuring && now >= self.ledger.window.measure_ns {
            self.measuring = true;
            self.ledger.tally.connections.open_at_start = self.open;
        }
        while let Some(&(deadline, slot, epoch)) = self.deadlines.front() {
            let current = self.slot(slot).epoch == epoch;
            if current && deadline > now {
                break;
            }
            self.deadlines.pop_front();
            if current {
                self.timed_out(slot, now);
            }
        }
        while let Some(&(until, slot)) = self.resting.front() {
            if until > now {
                break;
            }
            self.resting.pop_front();
            self.enter(slot, Phase::Vacant, now);
            self.renew(slot, now);
        }
        self.rogues.expire(&mut self.transport, now);
        if self.is_over(now) && !self.closed_books {
            self.closed_books = true;
            let Self {
                schedule, ledger, ..
            } = self;
            if let Some(schedule) = schedule {
                let window = ledger.window;
                // They have waited since they were due, and would have waited longer. Left out, a stall
                // would take the longest latencies with it (coordinated omission).
                schedule.abandon(&window, |at| ledger.unsent(at, now));
            }
        }
    }

    fn timed_out(&mut self, slot: u32, now: u64) {
        match self.slot(slot).phase {
            Phase::Opening => self.open_failed(slot, Failure::ConnectTimeout, now),
            Phase::Asking => self.fail(slot, Failure::Timeout, now),
            Phase::Closing => {
                if self
                    .ledger
                    .window
                    .measures(self.slots[slot as usize].opened_ns)
                {
                    self.ledger.tally.connections.unclosed += 1;
                }
                self.release(slot, Ending::Reset);
                self.renew(slot, now);
            }
            Phase::Vacant | Phase::Resting | Phase::Idle | Phase::Flowing => {}
        }
    }

    /// How long the thread may sleep, in nanoseconds.
    fn wait_ns(&mut self, now: u64) -> u64 {
        let window = self.ledger.window;
        let mut wake = self.rogues.wake_at();
        if !self.is_over(now) {
            wake = wake.min(self.ramp_due());
        }
        if let Some(&(deadline, ..)) = self.deadlines.front() {
            wake = wake.min(deadline);
        }
        if let Some(&(until, _)) = self.resting.front() {
            wake = wake.min(until);
        }
        for boundary in [window.measure_ns, window.stop_ns] {
            if boundary > now {
                wake = wake.min(boundary);
            }
        }
        if let Some(schedule) = &self.schedule
            && schedule.next_ns() < window.stop_ns
            && !self.free.is_empty()
        {
            wake = wake.min(schedule.next_ns());
        }
        let until = wake.saturating_sub(now).min(SLEEP_NS_MAX);
        match self.manner.idle {
            Idle::Adaptive => until.saturating_sub(WAKE_MARGIN_NS),
            Idle::Sleep => until,
            Idle::Spin => 0,
        }
    }
}

#[cfg(test)]
#[path = "crowd_tests.rs"]
mod tests;
