//! Packets that came in on the wrong worker's queue.
//!
//! ```text
//!   worker A                                            worker B
//!   stack ── frame of A ──► [A→B, bounded] ── copied into a frame of B ──► stack
//!     ▲                                                      │
//!     └──────────────── FrameReturn of A ◄───────────────────┘
//! ```
//!
//! The frame itself crosses, not its bytes: it is copied once, by the worker that needs it, and goes
//! straight home. Nothing is allocated.

use super::{count_drop, count_event};
use crate::driver::{Driver, Filled, Frame, FrameReturn, Waker};
use crossbeam::queue::ArrayQueue;
use stack::counters::{DropReason, Event};
use stack::frame::{Frame as _, FramePool};
use stack::time::Instant;
use stack::{Handoff, Origin, Stack};
use std::sync::Arc;

/// Frames on their way from one worker to another.
type Lane = Arc<ArrayQueue<Handed>>;

/// A frame on its way.
#[derive(Debug)]
struct Handed {
    frame: Frame<Filled>,
    /// How many workers have seen it, that are not the one it is for.
    visited: u16,
}

/// Lanes between all pairs of workers.
#[derive(Debug)]
pub struct Lanes {
    /// `lanes[from][to]`.
    lanes: Vec<Vec<Lane>>,
    /// For each service, the workers that serve it.
    services: Arc<Vec<Vec<usize>>>,
}

impl Lanes {
    /// Lanes of `depth` frames between `workers` workers; `services` lists, for each service, the
    /// workers that serve it.
    #[must_use]
    pub fn new(workers: usize, depth: usize, services: Arc<Vec<Vec<usize>>>) -> Self {
        let lane = |_| Arc::new(ArrayQueue::new(depth.max(1)));
        let lanes = (0..workers)
            .map(|_| (0..workers).map(lane).collect())
            .collect();
        Self { lanes, services }
    }

    /// The ends of worker `index`. `homes` and `wakers` are those of all workers, in order.
    #[must_use]
    pub fn ends(&self, index: usize, homes: &[FrameReturn], wakers: &[Waker]) -> Handoffs {
        let others = |other: &usize| *other != index;
        let workers = || (0..self.lanes.len()).filter(others);
        Handoffs {
            index,
            outgoing: workers()
                .map(|to| Outgoing {
                    worker: to,
                    lane: Arc::clone(&self.lanes[index][to]),
                    waker: wakers[to].clone(),
                    used: false,
                })
                .collect(),
            incoming: workers()
                .map(|from| (Arc::clone(&self.lanes[from][index]), homes[from].clone()))
                .collect(),
            services: Arc::clone(&self.services),
        }
    }
}

#[derive(Debug)]
struct Outgoing {
    worker: usize,
    lane: Lane,
    waker: Waker,
    /// Something was put in this turn.
    used: bool,
}

/// One worker's ends of all lanes.
#[derive(Debug)]
pub struct Handoffs {
    index: usize,
    outgoing: Vec<Outgoing>,
    incoming: Vec<(Lane, FrameReturn)>,
    services: Arc<Vec<Vec<usize>>>,
}

/// Frames taken from one lane in one turn, at most.
const PER_TURN: usize = 64;

impl Handoffs {
    /// A worker that is alone.
    #[must_use]
    pub fn none() -> Self {
        Self {
            index: 0,
            outgoing: Vec::new(),
            incoming: Vec::new(),
            services: Arc::default(),
        }
    }

    /// Replaces the lists of workers that serve each service.
    pub fn set_services(&mut self, services: Arc<Vec<Vec<usize>>>) {
        self.services = services;
    }

    /// Takes over what other workers received for us. Returns how many frames that was.
    #[inline]
    pub fn receive<D: Driver>(
        &mut self,
        stack: &mut Stack<D>,
        driver: &mut D,
        now: Instant,
    ) -> usize {
        let mut count = 0;
        for (lane, home) in &self.incoming {
            for _ in 0..PER_TURN {
                let Some(Handed {
                    frame: theirs,
                    visited,
                }) = lane.pop()
                else {
                    break;
                };
                count += 1;
                match copy(driver, &theirs) {
                    Ok(frame) => {
                        count_event(stack, Event::HandoffRx);
                        stack.ingest(driver, frame, Origin::Handoff { visited }, now);
                    }
                    Err(reason) => count_drop(stack, reason),
                }
                home.give(theirs);
            }
        }
        count
    }

    /// Hands over what the stack says is another worker's. Returns how many frames that was.
    #[inline]
    pub fn send<D: Driver>(&mut self, stack: &mut Stack<D>, driver: &mut D) -> usize {
        let mut count = 0;
        while let Some((to, frame)) = stack.next_handoff() {
            count += 1;
            match to {
                Handoff::Service { tag, flow } => {
                    self.send_to_service(stack, driver, tag, flow, frame)
                }
                Handoff::Everyone => self.send_to_everyone(stack, driver, frame),
                Handoff::Next { visited } => self.send_to_next(stack, driver, frame, visited),
            }
        }
        if count > 0 {
            for to in self.outgoing.iter_mut().filter(|to| to.used) {
                to.used = false;
                to.waker.wake();
            }
        }
        count
    }

    fn send_to_service<D: Driver>(
        &mut self,
        stack: &mut Stack<D>,
        driver: &mut D,
        tag: u16,
        flow: u64,
        frame: Frame<Filled>,
    ) {
        let workers = self
            .services
            .get(usize::from(tag))
            .map_or(&[][..], Vec::as_slice);
        // The high half: the low bits choose buckets elsewhere.
        let choice = usize::try_from(flow >> 32)
            .unwrap_or(0)
            .checked_rem(workers.len());
        let worker = choice.and_then(|choice| workers.get(choice).copied());
        debug_assert_ne!(worker, Some(self.index), "invariant: we do not serve it");
        let to = self
            .outgoing
            .iter_mut()
            .find(|to| Some(to.worker) == worker);
        let pushed = match to {
            Some(to) => to.push(frame, 1),
            None => Err(frame),
        };
        match pushed {
            Ok(()) => count_event(stack, Event::HandoffTx),
            Err(frame) => {
                count_drop(stack, DropReason::HandoffFull);
                driver.give(frame);
            }
        }
    }

    /// To the worker after this one, in a circle: one of them may know what it is about.
    fn send_to_next<D: Driver>(
        &mut self,
        stack: &mut Stack<D>,
        driver: &mut D,
        frame: Frame<Filled>,
        visited: u16,
    ) {
        // Those behind us come first, in order; the last is followed by the first.
        let index = self.index;
        let place = self.outgoing.iter().position(|to| to.worker > index);
        let pushed = match self.outgoing.get_mut(place.unwrap_or(0)) {
            Some(to) => to.push(frame, visited),
            None => Err(frame),
        };
        match pushed {
            Ok(()) => count_event(stack, Event::HandoffTx),
            Err(frame) => {
                count_drop(stack, DropReason::HandoffFull);
                driver.give(frame);
            }
        }
    }

    /// Copies for all; the frame itself goes home.
    fn send_to_everyone<D: Driver>(
        &mut self,
        stack: &mut Stack<D>,
        driver: &mut D,
        frame: Frame<Filled>,
    ) {
        for to in &mut self.outgoing {
            match copy(driver, &frame).map(|copy| to.push(copy, 1)) {
                Ok(Ok(())) => count_event(stack, Event::HandoffTx),
                Ok(Err(copy)) => {
                    count_drop(stack, DropReason::HandoffFull);
                    driver.give(copy);
                }
                Err(reason) => count_drop(stack, reason),
            }
        }
        driver.give(frame);
    }

    /// Sends home what is still on its way to us.
    pub fn close<D: Driver>(&mut self, driver: &mut D) {
        for (lane, home) in &self.incoming {
            while let Some(handed) = lane.pop() {
                home.give(handed.frame);
            }
        }
        driver.flush();
    }
}

impl Outgoing {
    fn push(&mut self, frame: Frame<Filled>, visited: u16) -> Result<(), Frame<Filled>> {
        let handed = Handed { frame, visited };
        self.lane.push(handed).map_err(|handed| handed.frame)?;
        self.used = true;
        Ok(())
    }
}

/// A copy of `theirs` in a frame of `pool`.
fn copy<P: FramePool>(pool: &mut P, theirs: &Frame<Filled>) -> Result<P::Frame, DropReason> {
    let data = theirs.data();
    let mut frame = pool.take().ok_or(DropReason::TxNoFrame)?;
    if frame.capacity() < data.len() {
        pool.give(frame);
        return Err(DropReason::FrameTooLong);
    }
    frame.set_len(data.len());
    frame.data_mut().copy_from_slice(data);
    frame.set_stamps(theirs.stamps());
    Ok(frame)
}
