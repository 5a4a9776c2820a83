//! Progress while a run lasts: counters the measuring threads write and the main thread reads, with
//! no lock between them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Each power of two of latency is split into this many steps: the progress line is off by 3 %.
const STEPS: usize = 32;
const STEPS_LOG2: u32 = 5;
const _: () = assert!(1 << STEPS_LOG2 == STEPS);

/// Powers of two up to 2⁶⁴ ns, less the first five, which share one linear group.
const GROUPS: usize = 64 - STEPS_LOG2 as usize + 1;

/// One thread's counters. Only that thread writes them, so adding is a load and a store and no
/// locked instruction.
#[derive(Debug, Default)]
pub struct Live {
    requests: AtomicU64,
    replies: AtomicU64,
    lost: AtomicU64,
    refused: AtomicU64,
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
    opened: AtomicU64,
    closed: AtomicU64,
    /// Latencies of measured replies, coarsely.
    pub latency: LiveHistogram,
}

fn bump(counter: &AtomicU64) {
    add(counter, 1);
}

fn add(counter: &AtomicU64, more: u64) {
    counter.store(
        counter.load(Ordering::Relaxed).wrapping_add(more),
        Ordering::Relaxed,
    );
}

impl Live {
    /// A request was sent.
    pub fn request(&self) {
        bump(&self.requests);
    }

    /// The last request was not sent after all.
    pub fn unrequest(&self) {
        self.requests.store(
            self.requests.load(Ordering::Relaxed).saturating_sub(1),
            Ordering::Relaxed,
        );
    }

    /// A reply came.
    pub fn reply(&self) {
        bump(&self.replies);
    }

    /// A request was given up.
    pub fn lost(&self) {
        bump(&self.lost);
    }

    /// An ICMP port unreachable came.
    pub fn refused(&self) {
        bump(&self.refused);
    }

    /// Bytes were sent on a connection.
    pub fn sent(&self, bytes: u64) {
        add(&self.sent_bytes, bytes);
    }

    /// Bytes came on a connection.
    pub fn received(&self, bytes: u64) {
        add(&self.received_bytes, bytes);
    }

    /// A connection was opened.
    pub fn opened(&self) {
        bump(&self.opened);
    }

    /// A connection that was open is no more.
    pub fn closed(&self) {
        bump(&self.closed);
    }
}

/// A histogram with 32 linear steps in each power of two.
#[derive(Debug)]
pub struct LiveHistogram(Box<[AtomicU64]>);

impl Default for LiveHistogram {
    fn default() -> Self {
        Self((0..GROUPS * STEPS).map(|_| AtomicU64::new(0)).collect())
    }
}

impl LiveHistogram {
    /// Records a latency in nanoseconds.
    pub fn record(&self, latency_ns: u64) {
        bump(&self.0[bucket(latency_ns)]);
    }
}

/// Group 0 is 0..32 in steps of 1, and group g ≥ 1 is 2^(g+4)..2^(g+5) in 32 steps.
fn bucket(latency_ns: u64) -> usize {
    let bits = u64::BITS - latency_ns.leading_zeros();
    let group = bits.saturating_sub(STEPS_LOG2);
    let step = latency_ns >> group.saturating_sub(1);
    // In group 0 the step is the value; in the others its top bit is set and masked away.
    #[allow(clippy::cast_possible_truncation)] // At most 63 after the shift.
    let step = step as usize % STEPS;
    group as usize * STEPS + step
}

/// The smallest latency of a bucket.
fn bucket_floor(bucket: usize) -> u64 {
    let (group, step) = (bucket / STEPS, (bucket % STEPS) as u64);
    if group == 0 {
        step
    } else {
        (step + STEPS as u64) << (group - 1)
    }
}

/// All threads' counters, read together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Requests sent, the warm-up's included.
    pub requests: u64,
    /// Replies, the warm-up's included.
    pub replies: u64,
    /// Requests given up.
    pub lost: u64,
    /// ICMP port unreachables.
    pub refused: u64,
    /// Bytes sent on connections.
    pub sent_bytes: u64,
    /// Bytes received on connections.
    pub received_bytes: u64,
    /// Connections open now.
    pub open: u64,
    latency: Vec<u64>,
}

impl Snapshot {
    /// Reads all threads' counters.
    #[must_use]
    pub fn of(threads: &[Arc<Live>]) -> Self {
        let mut sum = Self {
            latency: vec![0; GROUPS * STEPS],
            ..Self::default()
        };
        for thread in threads {
            let Live {
                requests,
                replies,
                lost,
                refused,
                sent_bytes,
                received_bytes,
                opened,
                closed,
                latency,
            } = &**thread;
            sum.requests += requests.load(Ordering::Relaxed);
            sum.replies += replies.load(Ordering::Relaxed);
            sum.lost += lost.load(Ordering::Relaxed);
            sum.refused += refused.load(Ordering::Relaxed);
            sum.sent_bytes += sent_bytes.load(Ordering::Relaxed);
            sum.received_bytes += received_bytes.load(Ordering::Relaxed);
            // In this order: one that opens and closes in between is not counted as less than none.
            let closed = closed.load(Ordering::Relaxed);
            sum.open += opened.load(Ordering::Relaxed).saturating_sub(closed);
            for (total, count) in sum.latency.iter_mut().zip(&latency.0) {
                *total += count.load(Ordering::Relaxed);
            }
        }
        sum
    }

    /// What was counted since `earlier`; what is open is open now.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let less = |now: u64, then: u64| now.saturating_sub(then);
        let then = earlier.latency.iter().chain(std::iter::repeat(&0));
        Self {
            requests: less(self.requests, earlier.requests),
            replies: less(self.replies, earlier.replies),
            lost: less(self.lost, earlier.lost),
            refused: less(self.refused, earlier.refused),
            sent_bytes: less(self.sent_bytes, earlier.sent_bytes),
            received_bytes: less(self.received_bytes, earlier.received_bytes),
            open: self.open,
            latency: self
                .latency
                .iter()
                .zip(then)
                .map(|(&now, &then)| less(now, then))
                .collect(),
        }
    }

    /// The latency below which `quantile` (0 to 1) of the measured replies lie, in microseconds;
    /// `None` before the first.
    #[must_use]
    pub fn latency_us(&self, quantile: f64) -> Option<f64> {
        let total: u64 = self.latency.iter().sum();
        let wanted = (total as f64 * quantile).ceil().max(1.0);
        let mut seen = 0;
        for (bucket, count) in self.latency.iter().enumerate() {
            seen += count;
            if seen > 0 && seen as f64 >= wanted {
                return Some(bucket_floor(bucket) as f64 / 1000.0);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn buckets_follow_one_another() {
        for index in 0..GROUPS * STEPS {
            assert_eq!(bucket(bucket_floor(index)), index);
        }
        assert_eq!(bucket(u64::MAX), GROUPS * STEPS - 1);
    }

    #[test]
    fn snapshots_add_threads_up() {
        let threads = [Arc::new(Live::default()), Arc::new(Live::default())];
        assert_eq!(Snapshot::of(&threads).latency_us(0.5), None);
        for (thread, latency_ns) in [(0, 1000), (0, 2000), (1, 3000), (1, 400_000)] {
            threads[thread].request();
            threads[thread].reply();
            threads[thread].latency.record(latency_ns);
        }
        threads[1].request();
        threads[1].lost();
        threads[0].request();
        threads[0].unrequest();
        let sum = Snapshot::of(&threads);
        assert_eq!(
            (sum.requests, sum.replies, sum.lost, sum.refused),
            (5, 4, 1, 0)
        );
        assert!((sum.latency_us(0.5).unwrap() / 2.0 - 1.0).abs() < 0.04);
        assert!((sum.latency_us(0.99).unwrap() / 400.0 - 1.0).abs() < 0.04);
    }

    #[test]
    fn what_happened_in_between() {
        let threads = [Arc::new(Live::default())];
        let live = &threads[0];
        let before = Snapshot::of(&threads);
        live.opened();
        live.opened();
        live.reply();
        live.latency.record(500);
        let first = Snapshot::of(&threads);
        live.closed();
        live.sent(10);
        live.latency.record(9000);
        let second = Snapshot::of(&threads).since(&first);
        assert_eq!((second.replies, second.sent_bytes, second.open), (0, 10, 1));
        assert!(second.latency_us(0.5).unwrap() > 8.0);
        assert_eq!(first.since(&Snapshot::default()), first.since(&before));
    }

    proptest! {
        #[test]
        fn a_bucket_is_off_by_a_thirty_second_at_most(latency_ns: u64) {
            let floor = bucket_floor(bucket(latency_ns));
            prop_assert!(floor <= latency_ns);
            prop_assert!(latency_ns - floor <= latency_ns / STEPS as u64);
        }
    }
}
