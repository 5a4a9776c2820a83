//! Drives one thread's load over queues of its own.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Duration;

use dataplane::driver::{AfXdp, Batch, Driver, Link, QueueStatistics, Waker};
use stack::frame::{Frame as _, FramePool as _};

use super::frame::{Arrival, Frames};
use crate::clock::now_ns;
use crate::loadgen::kernel::{Idle, WAKE_MARGIN_NS};
use crate::loadgen::load::{Burst, Load};

/// Frames taken from the rings, and requests put into them, in one turn: enough that the system call
/// which sends them no longer shows, few enough that a reply does not wait long for its clock reading.
const BATCH: usize = 64;

/// Longest sleep: bounds how long Ctrl-C goes unnoticed.
const SLEEP_NS_MAX: u64 = 50_000_000;

/// Arrivals that may wait for the thread they are for. One that is so far behind has lost them anyway.
pub(super) const STRAYS_MAX: usize = 4096;

/// What arrived on one thread's queues for a flow of another's: RSS chooses the queue.
#[derive(Debug)]
pub(super) struct Stray {
    flow: usize,
    now: u64,
    /// A reply's payload; without one, a refusal.
    payload: Option<Box<[u8]>>,
}

/// The way to another thread.
#[derive(Clone, Debug)]
pub(super) struct Neighbor {
    pub(super) flows: Range<usize>,
    pub(super) strays: SyncSender<Stray>,
    pub(super) waker: Waker,
}

/// Sleep of a thread that only receives for others any more: short beside any timeout.
const COURTESY_SLEEP: Duration = Duration::from_micros(200);

/// One of the engines whose loads are not finished. While there are any, all engines receive: the
/// reply a thread waits for may come to the queue of another that has all of its own.
#[derive(Debug)]
pub(in crate::loadgen) struct Unfinished(Arc<AtomicUsize>);

impl Unfinished {
    /// As many as there are engines.
    pub(in crate::loadgen) fn all(engines: usize) -> impl Iterator<Item = Self> {
        let count = Arc::new(AtomicUsize::new(engines));
        std::iter::repeat_with(move || Self(Arc::clone(&count))).take(engines)
    }

    /// This one has finished. Returns what tells whether all have.
    pub(in crate::loadgen) fn finish(self) -> impl Fn() -> bool {
        let count = Arc::clone(&self.0);
        drop(self);
        move || count.load(Ordering::Relaxed) == 0
    }
}

impl Drop for Unfinished {
    /// Also for an engine that fails, or is never driven.
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What an engine saw besides the load's own counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XdpCounts {
    /// Time of the measured window in which a turn neither received nor sent anything, in
    /// nanoseconds: what the client has to spare.
    pub idle_ns: u64,
    /// Replies whose UDP checksum their sender had left to a NIC that was not there.
    pub checksums_incomplete: u64,
    /// Frames that reached a thread other than their flow's.
    pub strays: u64,
    /// Received frames that were dropped for want of room: in the rings, or on the way between
    /// threads.
    pub dropped: u64,
}

impl XdpCounts {
    /// Adds another thread's.
    pub fn add(&mut self, other: &Self) {
        let Self {
            idle_ns,
            checksums_incomplete,
            strays,
            dropped,
        } = other;
        self.idle_ns += idle_ns;
        self.checksums_incomplete += checksums_incomplete;
        self.strays += strays;
        self.dropped += dropped;
    }
}

/// One thread's queues and flows.
#[derive(Debug)]
pub struct XdpEngine {
    pub(super) driver: AfXdp,
    pub(super) frames: Arc<Frames>,
    /// Of all flows of the run, those of this thread.
    pub(super) flows: Range<usize>,
    pub(super) neighbors: Vec<Neighbor>,
    pub(super) strays: Receiver<Stray>,
    /// Until its load is finished.
    pub(super) unfinished: Option<Unfinished>,
    pub(super) batch: Batch,
    /// Queues of the driver: flows are dealt out to them.
    pub(super) queues: usize,
    pub(super) counts: XdpCounts,
}

impl XdpEngine {
    pub(super) fn new(
        driver: AfXdp,
        frames: Arc<Frames>,
        flows: Range<usize>,
        neighbors: Vec<Neighbor>,
        strays: Receiver<Stray>,
        unfinished: Unfinished,
    ) -> Self {
        let queues = driver.report().queues.len();
        Self {
            driver,
            frames,
            flows,
            neighbors,
            strays,
            unfinished: Some(unfinished),
            batch: Batch::with_capacity(BATCH),
            queues,
            counts: XdpCounts::default(),
        }
    }

    /// Flows of this thread.
    #[must_use]
    pub fn flow_count(&self) -> usize {
        self.flows.len()
    }

    /// Runs the load until it is finished, or soon after `stop` is set, and returns what the engine
    /// counted.
    ///
    /// # Errors
    /// A sentence, when the interface goes away.
    pub fn drive<L: Load>(
        &mut self,
        load: &mut L,
        idle: Idle,
        stop: &AtomicBool,
    ) -> Result<XdpCounts, String> {
        let mut burst = Burst::with_capacity(L::SEND_MAX);
        let mut sent = 0;
        let mut idle_since = None;
        loop {
            let now = now_ns();
            if let Some(since) = idle_since.take()
                && load.books().window.measures(since)
            {
                self.counts.idle_ns += now.saturating_sub(since);
            }
            if stop.load(Ordering::Relaxed) {
                load.books_mut().stop(now);
            }
            load.expire(now);
            if load.finished(now) {
                break;
            }
            let received = self.receive(load, now);
            // What a batch of replies took to read is not the next requests' latency.
            let now = if received > 0 { now_ns() } else { now };
            let put = self.send(load, &mut burst, &mut sent, now);
            self.driver.flush();
            if received + put > 0 {
                continue;
            }
            idle_since = Some(now);
            if self.driver.link() == Link::Gone {
                return Err(format!("{} is gone", self.driver.report().interface));
            }
            let pending = sent < burst.sequences().len();
            let wait_ns = if pending { 0 } else { wait_ns(load, idle, now) };
            if wait_ns > 0 {
                self.driver.wait(Duration::from_nanos(wait_ns));
            }
        }
        self.receive_for_others(load);
        let mut statistics: Vec<QueueStatistics> = Vec::with_capacity(self.queues);
        self.driver.statistics(&mut statistics);
        for queue in &statistics {
            self.counts.dropped +=
                queue.rx_ring_full + queue.rx_dropped + queue.rx_fill_ring_empty_descs;
        }
        Ok(self.counts)
    }

    /// Goes on receiving until the loads of all threads are finished.
    fn receive_for_others<L: Load>(&mut self, load: &mut L) {
        let Some(all_finished) = self.unfinished.take().map(Unfinished::finish) else {
            return;
        };
        while !all_finished() && self.driver.link() != Link::Gone {
            if self.receive(load, now_ns()) == 0 {
                self.driver.wait(COURTESY_SLEEP);
            }
            self.driver.flush();
        }
    }

    /// Takes what arrived; returns how much.
    #[inline]
    fn receive<L: Load>(&mut self, load: &mut L, now: u64) -> usize {
        let Self {
            driver,
            frames,
            flows,
            neighbors,
            strays,
            unfinished: _,
            batch,
            queues: _,
            counts,
        } = self;
        let mut received = driver.rx(batch, now);
        for frame in batch.drain() {
            match frames.read(frame.data()) {
                Arrival::Datagram {
                    flow,
                    payload,
                    incomplete,
                } => {
                    counts.checksums_incomplete += u64::from(incomplete);
                    if flows.contains(&flow) {
                        load.on_datagram(flow - flows.start, payload, now);
                    } else {
                        let payload = Some(Box::from(payload));
                        hand_over(neighbors, counts, Stray { flow, now, payload });
                    }
                }
                Arrival::Refused { flow } if flows.contains(&flow) => {
                    load.on_refused(flow - flows.start, now);
                }
                Arrival::Refused { flow } => {
                    let payload = None;
                    hand_over(neighbors, counts, Stray { flow, now, payload });
                }
                Arrival::Unreachable { errno } => load.books_mut().count_receive_error(errno, now),
                Arrival::Corrupted => load.books_mut().count_corrupted(now),
                Arrival::Foreign => load.books_mut().count_unexpected(now),
            }
            driver.give(frame);
        }
        if !neighbors.is_empty() {
            for Stray { flow, now, payload } in strays.try_iter().take(BATCH) {
                received += 1;
                match payload {
                    Some(payload) => load.on_datagram(flow - flows.start, &payload, now),
                    None => load.on_refused(flow - flows.start, now),
                }
            }
        }
        received
    }

    /// Puts requests that are due into the rings; returns how many.
    #[inline]
    fn send<L: Load>(
        &mut self,
        load: &mut L,
        burst: &mut Burst,
        sent: &mut usize,
        now: u64,
    ) -> usize {
        let mut put = 0;
        while put < BATCH {
            if *sent == burst.sequences().len() {
                burst.begin(0);
                *sent = 0;
                if !load.next_burst(now, burst) {
                    break;
                }
            }
            let books = load.books();
            let number = books.flow_number(burst.flow);
            // The same queue for all requests of a flow keeps them in order.
            #[allow(clippy::cast_possible_truncation)] // Below QUEUES_MAX, 64.
            let queue = (burst.flow % self.queues) as u8;
            while let Some(&sequence) = burst.sequences().get(*sent) {
                let Some(mut frame) = self.driver.take() else {
                    return put;
                };
                frame.set_len(self.frames.len());
                frame.set_queue(queue);
                let flow = self.flows.start + burst.flow;
                self.frames
                    .write(&books.prober, flow, number, sequence, frame.data_mut());
                if let Err(frame) = self.driver.tx(frame) {
                    // The ring is full: replies first, then again.
                    self.driver.give(frame);
                    return put;
                }
                *sent += 1;
                put += 1;
            }
        }
        put
    }
}

/// Gives an arrival to the thread its flow belongs to.
#[cold]
fn hand_over(neighbors: &[Neighbor], counts: &mut XdpCounts, stray: Stray) {
    counts.strays += 1;
    let owner = neighbors
        .iter()
        .find(|neighbor| neighbor.flows.contains(&stray.flow));
    match owner.map(|owner| (owner.strays.try_send(stray), owner)) {
        Some((Ok(()), owner)) => owner.waker.wake(),
        // It is busy beyond its means, or has finished.
        Some((Err(_), _)) | None => counts.dropped += 1,
    }
}

/// How long the thread may sleep, in nanoseconds.
fn wait_ns<L: Load>(load: &L, idle: Idle, now: u64) -> u64 {
    let until = load.wake_at().saturating_sub(now).min(SLEEP_NS_MAX);
    match idle {
        Idle::Adaptive => until.saturating_sub(WAKE_MARGIN_NS),
        Idle::Sleep => until,
        Idle::Spin => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_have_finished_when_the_last_has_or_failed() {
        let mut all = Unfinished::all(3);
        let [first, second, third] = [(); 3].map(|()| all.next().unwrap());
        assert!(all.next().is_none());
        let all_finished = first.finish();
        assert!(!all_finished());
        drop(second);
        assert!(!all_finished());
        assert!(third.finish()() && all_finished());
    }
}
