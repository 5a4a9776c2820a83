//! What is counted of requests and connections.
//!
//! Every request that was begun in the measured time ends as a reply or as a failure of one kind, so that
//! `requests == replies + failures.total()`; every connection as established or failed, so that
//! `connections.begun == connections.established + connections.failures.total()`.

use std::sync::Arc;

use hdrhistogram::Histogram;

use super::failure::{Failure, FailureCounts};
use crate::histogram::{latency_histogram, merge};
use crate::loadgen::live::Live;
use crate::loadgen::load::Window;

/// The counts of one thread, or of all of them.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Requests begun.
    pub requests: u64,
    /// Whole replies, as they should be, in time.
    pub replies: u64,
    /// Requests without one.
    pub failures: FailureCounts,
    /// Of an open loop: requests that were due and never begun, because no connection was free.
    pub unsent: u64,
    /// Bytes sent in the measured time.
    pub sent_bytes: u64,
    /// Bytes received in the measured time.
    pub received_bytes: u64,
    /// Time to the replies, in nanoseconds; and of an open loop how long those never begun had waited
    /// when the time was over.
    pub latency: Histogram<u64>,
    /// Connections.
    pub connections: ConnectionTally,
    /// Clients that mean no good.
    pub rogues: RogueTally,
}

/// Of connections.
#[derive(Clone, Debug)]
pub struct ConnectionTally {
    /// Begun in the measured time.
    pub begun: u64,
    /// Of those, the ones whose handshake was completed.
    pub established: u64,
    /// And those whose was not.
    pub failures: FailureCounts,
    /// How long handshakes took, in nanoseconds.
    pub handshake: Histogram<u64>,
    /// Open when the measured time began.
    pub open_at_start: u64,
    /// Idle ones that the peer closed or reset in the measured time.
    pub lost_idle: u64,
    /// Those whose peer did not close its direction in time after we had closed ours.
    pub unclosed: u64,
}

/// Of misbehaving clients, warm-up included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RogueTally {
    /// Connections begun.
    pub begun: u64,
    /// Those whose handshake was completed.
    pub established: u64,
    /// Those that the target ended, or that could not be had.
    pub ended: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            requests: 0,
            replies: 0,
            failures: FailureCounts::default(),
            unsent: 0,
            sent_bytes: 0,
            received_bytes: 0,
            latency: latency_histogram(),
            connections: ConnectionTally {
                begun: 0,
                established: 0,
                failures: FailureCounts::default(),
                handshake: latency_histogram(),
                open_at_start: 0,
                lost_idle: 0,
                unclosed: 0,
            },
            rogues: RogueTally::default(),
        }
    }
}

impl Tally {
    /// Adds another thread's.
    pub fn add(&mut self, other: &Self) {
        let Self {
            requests,
            replies,
            failures,
            unsent,
            sent_bytes,
            received_bytes,
            latency,
            connections,
            rogues,
        } = other;
        self.requests += requests;
        self.replies += replies;
        self.failures.add(failures);
        self.unsent += unsent;
        self.sent_bytes += sent_bytes;
        self.received_bytes += received_bytes;
        merge(&mut self.latency, latency);
        self.connections.add(connections);
        self.rogues.add(*rogues);
    }
}

impl ConnectionTally {
    fn add(&mut self, other: &Self) {
        let Self {
            begun,
            established,
            failures,
            handshake,
            open_at_start,
            lost_idle,
            unclosed,
        } = other;
        self.begun += begun;
        self.established += established;
        self.failures.add(failures);
        merge(&mut self.handshake, handshake);
        self.open_at_start += open_at_start;
        self.lost_idle += lost_idle;
        self.unclosed += unclosed;
    }
}

impl RogueTally {
    fn add(&mut self, other: Self) {
        let Self {
            begun,
            established,
            ended,
            sent_bytes,
        } = other;
        self.begun += begun;
        self.established += established;
        self.ended += ended;
        self.sent_bytes += sent_bytes;
    }
}

/// One thread's counting: what counts is what began in the measured time.
#[derive(Debug)]
pub struct Ledger {
    /// When requests are begun and counted.
    pub window: Window,
    /// The counts.
    pub tally: Tally,
    /// The counts as the progress line sees them.
    pub live: Arc<Live>,
}

impl Ledger {
    /// Ends the run at `now` unless it ends sooner.
    pub fn stop(&mut self, now: u64) {
        self.window.stop_ns = self.window.stop_ns.min(now);
    }

    /// A request of time `at`, intended or actual, is begun.
    pub fn request(&mut self, at: u64) {
        self.live.request();
        if self.window.measures(at) {
            self.tally.requests += 1;
        }
    }

    /// The reply to the request of time `at` is whole at `now`.
    pub fn reply(&mut self, at: u64, now: u64) {
        self.live.reply();
        if self.window.measures(at) {
            let latency_ns = now.saturating_sub(at);
            self.tally.replies += 1;
            self.tally.latency.saturating_record(latency_ns);
            self.live.latency.record(latency_ns);
        }
    }

    /// The request of time `at` has no reply.
    pub fn failed(&mut self, at: u64, failure: Failure) {
        self.live.lost();
        if self.window.measures(at) {
            self.tally.failures.count(failure);
        }
    }

    /// A request was due at `at` and is not begun any more at `now`.
    pub fn unsent(&mut self, at: u64, now: u64) {
        self.tally.unsent += 1;
        self.tally.latency.saturating_record(now.saturating_sub(at));
    }

    /// A connection is begun at `at`.
    pub fn connect(&mut self, at: u64) {
        if self.window.measures(at) {
            self.tally.connections.begun += 1;
        }
    }

    /// The connection begun at `at` is open at `now`.
    pub fn established(&mut self, at: u64, now: u64) {
        self.live.opened();
        if self.window.measures(at) {
            let handshake_ns = now.saturating_sub(at);
            self.tally.connections.established += 1;
            self.tally
                .connections
                .handshake
                .saturating_record(handshake_ns);
        }
    }

    /// The connection begun at `at` did not come to be.
    pub fn connect_failed(&mut self, at: u64, failure: Failure) {
        if self.window.measures(at) {
            self.tally.connections.failures.count(failure);
        }
    }

    /// Bytes were sent.
    pub fn sent(&mut self, bytes: usize, now: u64) {
        self.live.sent(bytes as u64);
        if self.window.measures(now) {
            self.tally.sent_bytes += bytes as u64;
        }
    }

    /// Bytes came.
    pub fn received(&mut self, bytes: usize, now: u64) {
        self.live.received(bytes as u64);
        if self.window.measures(now) {
            self.tally.received_bytes += bytes as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_add_up() {
        let mut one = Ledger {
            window: Window {
                start_ns: 0,
                measure_ns: 10,
                stop_ns: 100,
            },
            tally: Tally::default(),
            live: Arc::new(Live::default()),
        };
        for at in [5, 20, 30, 40] {
            one.connect(at);
            one.request(at);
        }
        one.reply(5, 8);
        one.reply(20, 1020);
        one.failed(30, Failure::Reset);
        one.unsent(50, 100);
        one.established(20, 25);
        one.connect_failed(30, Failure::Refused);
        one.sent(7, 9);
        one.sent(7, 11);
        one.received(3, 99);
        one.received(3, 100);
        let mut total = one.tally.clone();
        total.add(&one.tally);
        assert_eq!((total.requests, total.replies, total.unsent), (6, 2, 2));
        assert_eq!(total.failures.of(Failure::Reset), 2);
        assert_eq!((total.sent_bytes, total.received_bytes), (14, 6));
        assert_eq!(total.latency.len(), 4);
        let connections = &total.connections;
        assert_eq!((connections.begun, connections.established), (6, 2));
        assert_eq!(connections.failures.of(Failure::Refused), 2);
        assert_eq!(connections.handshake.max(), 5);
    }
}
