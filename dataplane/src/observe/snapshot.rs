//! How a worker hands its numbers to the control plane: no lock, no allocation, no copy of a
//! histogram. One buffer exists for each worker beside the one it records into; the two change
//! places.
//!
//! ```text
//!   control plane                                  worker
//!   Collector ── empty buffer ──► [1-slot queue] ──► Publisher
//!       ▲                                              │ counters copied,
//!       │ merged into the totals, emptied              │ histograms swapped
//!       └────────────── [1-slot queue] ◄── full buffer ┘
//! ```
//!
//! Swapping instead of copying keeps a scrape off the worker's latency: a worker's histograms are
//! about a megabyte at three digits, and copying that costs more than a hundred packets.

use crate::observe::latency::WorkerLatency;
use crossbeam::queue::ArrayQueue;
use hdrhistogram::CreationError;
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// How often the control plane looks whether a worker has answered. Workers answer within a turn,
/// which is microseconds when busy; when asleep, within their idle policy's longest sleep.
const POLL_INTERVAL: Duration = Duration::from_micros(200);

/// One worker's numbers. `C` is the worker's counters: plain data whose `clone_from` does not
/// allocate, such as a struct of counter tables.
#[derive(Clone, Debug)]
struct Snapshot<C> {
    counters: C,
    latency: WorkerLatency,
}

#[derive(Debug)]
struct Shared<C> {
    empty: ArrayQueue<Box<Snapshot<C>>>,
    full: ArrayQueue<Box<Snapshot<C>>>,
}

/// Makes the two ends of one worker's exchange, and the histograms the worker records into.
/// `counters` is the value the counters start with.
///
/// # Errors
/// `significant_digits` is above 5.
pub fn exchange<C: Clone>(
    counters: C,
    significant_digits: u8,
) -> Result<(Collector<C>, Publisher<C>, WorkerLatency), CreationError> {
    let latency = WorkerLatency::new(significant_digits)?;
    let shared = Arc::new(Shared {
        empty: ArrayQueue::new(1),
        full: ArrayQueue::new(1),
    });
    let collector = Collector {
        shared: Arc::clone(&shared),
        spare: Some(Box::new(Snapshot {
            counters: counters.clone(),
            latency: latency.clone(),
        })),
        counters,
        latency: latency.clone(),
    };
    Ok((collector, Publisher { shared }, latency))
}

/// The worker's end.
#[derive(Debug)]
pub struct Publisher<C> {
    shared: Arc<Shared<C>>,
}

impl<C: Clone> Publisher<C> {
    /// Whether the control plane has asked: time to bring the counters up to date.
    #[inline]
    #[must_use]
    pub fn is_asked(&self) -> bool {
        !self.shared.empty.is_empty()
    }

    /// Hands `counters` and `latency` over if the control plane has asked, and says whether it had.
    /// To be called once a turn: unasked, it is one look at a queue. `latency` is empty afterwards,
    /// the control plane keeps the totals; `counters` stay as they are and must only ever grow.
    #[inline]
    pub fn publish(&mut self, counters: &C, latency: &mut WorkerLatency) -> bool {
        let Some(mut buffer) = self.shared.empty.pop() else {
            return false;
        };
        buffer.counters.clone_from(counters);
        std::mem::swap(&mut buffer.latency, latency);
        // There is one buffer and the queue holds one, so it has room.
        self.shared.full.push(buffer).is_ok()
    }
}

/// The control plane's end: keeps the totals of one worker.
#[derive(Debug)]
pub struct Collector<C> {
    shared: Arc<Shared<C>>,
    /// The buffer while it is here; `None` while the worker has it.
    spare: Option<Box<Snapshot<C>>>,
    counters: C,
    latency: WorkerLatency,
}

impl<C: Clone> Collector<C> {
    /// Asks the worker for its numbers, unless an earlier question is still open.
    pub fn ask(&mut self) {
        if let Some(buffer) = self.spare.take() {
            self.spare = self.shared.empty.push(buffer).err();
        }
    }

    /// Takes the worker's answer in, if it is there; says whether it was.
    pub fn take(&mut self) -> bool {
        let Some(mut buffer) = self.shared.full.pop() else {
            return false;
        };
        self.counters.clone_from(&buffer.counters);
        self.latency.merge(&buffer.latency);
        buffer.latency.reset();
        self.spare = Some(buffer);
        true
    }

    /// Asks for an answer that is fresh: one that came too late last time belongs into the totals, and
    /// is taken in first. [`answers`] waits for it.
    pub fn ask_again(&mut self) {
        self.take();
        self.ask();
    }

    /// Takes in what a worker left when it ended.
    pub fn finish(&mut self, counters: &C, latency: &WorkerLatency) {
        self.take();
        self.counters.clone_from(counters);
        self.latency.merge(latency);
    }

    /// The counters at the last answer.
    pub fn counters(&self) -> &C {
        &self.counters
    }

    /// Everything recorded up to the last answer.
    pub fn latency(&self) -> &WorkerLatency {
        &self.latency
    }
}

/// Waits for the answers of all these workers, which were asked, at most `patience` for all of them
/// together. Says of each whether it came: if not, the totals are those of its last answer, and a
/// late one is taken in next time.
pub async fn answers<C: Clone>(
    collectors: &mut [&mut Collector<C>],
    patience: Duration,
) -> Vec<bool> {
    let mut answered = vec![false; collectors.len()];
    let deadline = Instant::now() + patience;
    loop {
        for (collector, answered) in collectors.iter_mut().zip(&mut answered) {
            *answered = *answered || collector.take();
        }
        if answered.iter().all(|answered| *answered) || Instant::now() >= deadline {
            return answered;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::latency::Stage;

    #[test]
    fn totals_grow_over_answers() {
        let (mut collector, mut publisher, mut latency) = exchange([0u64; 4], 2).unwrap();
        assert!(!publisher.publish(&[9; 4], &mut latency), "nobody asked");

        latency.record(Stage::Whole, 100);
        collector.ask();
        collector.ask();
        assert!(!collector.take(), "not answered yet");
        assert!(publisher.publish(&[1; 4], &mut latency));
        assert!(
            latency.is_empty(),
            "the worker goes on with the empty buffer"
        );
        assert!(
            !publisher.publish(&[1; 4], &mut latency),
            "asked once, answered once"
        );
        assert!(collector.take());
        assert_eq!(collector.counters(), &[1; 4]);

        latency.record(Stage::Whole, 200);
        collector.ask();
        assert!(publisher.publish(&[2; 4], &mut latency));
        assert!(collector.take());
        assert_eq!(collector.counters(), &[2; 4]);
        assert_eq!(collector.latency().stage(Stage::Whole).len(), 2);

        latency.record(Stage::Whole, 300);
        collector.finish(&[3; 4], &latency);
        assert_eq!(collector.counters(), &[3; 4]);
        assert_eq!(collector.latency().stage(Stage::Whole).len(), 3);
        assert_eq!(
            collector.latency().stage(Stage::Whole).max(),
            301,
            "300 in two digits"
        );
    }

    async fn refresh<C: Clone>(collector: &mut Collector<C>, patience: Duration) -> bool {
        collector.ask_again();
        answers(&mut [collector], patience).await[0]
    }

    /// However many are silent, they are waited for once.
    #[tokio::test(start_paused = true)]
    async fn silent_workers_cost_patience_once_all_together() {
        let mut ends: Vec<_> = (0..50).map(|_| exchange(0u64, 2).unwrap()).collect();
        for (collector, ..) in &mut ends {
            collector.ask_again();
        }
        let (_, publisher, latency) = &mut ends[7];
        assert!(publisher.publish(&1, latency));
        let mut collectors: Vec<_> = ends.iter_mut().map(|(collector, ..)| collector).collect();
        let patience = Duration::from_millis(100);
        let begun = Instant::now();
        let answered = answers(&mut collectors, patience).await;
        // Simulated time: nothing but the waiting takes any.
        assert!((patience..2 * patience).contains(&begun.elapsed()));
        let those: Vec<_> = (0..50).filter(|index| answered[*index]).collect();
        assert_eq!(those, [7]);
    }

    #[tokio::test]
    async fn a_silent_worker_costs_patience_and_loses_nothing() {
        let (mut collector, mut publisher, mut latency) = exchange(0u64, 2).unwrap();
        latency.record(Stage::Whole, 1);
        assert!(!refresh(&mut collector, Duration::from_millis(2)).await);
        // The answer comes late, and more happens after it.
        assert!(publisher.publish(&7, &mut latency));
        latency.record(Stage::Whole, 2);
        assert!(!refresh(&mut collector, Duration::from_millis(2)).await);
        assert_eq!(*collector.counters(), 7);
        assert!(publisher.publish(&8, &mut latency));
        assert!(collector.take());
        assert_eq!(collector.latency().stage(Stage::Whole).len(), 2);
    }

    #[tokio::test]
    async fn refresh_meets_a_worker_on_another_thread() {
        let (mut collector, mut publisher, mut latency) = exchange(0u64, 3).unwrap();
        let worker = std::thread::spawn(move || {
            let (mut turns, mut answers) = (0u64, 0);
            while answers < 20 {
                turns += 1;
                latency.record(Stage::Whole, turns);
                answers += u64::from(publisher.publish(&turns, &mut latency));
                std::thread::yield_now();
            }
            turns
        });
        for _ in 0..20 {
            assert!(refresh(&mut collector, Duration::from_secs(20)).await);
            // Counter and histogram were taken in the same turn.
            assert_eq!(
                collector.latency().stage(Stage::Whole).len(),
                *collector.counters()
            );
        }
        assert_eq!(worker.join().unwrap(), *collector.counters());
    }
}
