//! What every kind of load shares: the trait the engines drive, the measured window, the counting.

use std::collections::BTreeMap;
use std::sync::Arc;

use hdrhistogram::Histogram;

use super::live::Live;
use super::probe::{Prober, Verdict};
use crate::histogram::{latency_histogram, merge};

/// A kind of load, as a state machine: it is told the time and what arrived, and says what to send,
/// on which flow, and when it next has something to do. Times are nanoseconds on one monotonic
/// clock; flows are indices into the thread's own flows.
pub trait Load {
    /// Most requests in one burst: one system call sends them all.
    const SEND_MAX: usize;
    /// Most datagrams to take from a flow in one system call.
    const RECEIVE_MAX: usize;

    /// What all loads share.
    fn books(&self) -> &Books;
    /// What all loads share, to count in.
    fn books_mut(&mut self) -> &mut Books;
    /// The counts, once the load is finished.
    fn into_books(self) -> Books;

    /// Fills `burst` with requests that are due, all on one flow, and returns true; or returns
    /// false when none is due at `now`. The requests count as sent at `now`.
    fn next_burst(&mut self, now: u64, burst: &mut Burst) -> bool;
    /// A datagram arrived on `flow`.
    fn on_datagram(&mut self, flow: usize, datagram: &[u8], now: u64);
    /// The kernel refused to send a request of the last burst, for a reason other than a full
    /// buffer.
    fn on_send_failed(&mut self, flow: usize, sequence: u64, errno: i32, now: u64);
    /// An ICMP port unreachable answered something `flow` sent.
    fn on_refused(&mut self, flow: usize, now: u64);
    /// Gives up requests whose time is over.
    fn expire(&mut self, now: u64);
    /// When the load next has something to do by itself: send or expire.
    fn wake_at(&self) -> u64;
    /// Whether nothing is left to send or to wait for.
    fn finished(&self, now: u64) -> bool;
}

/// The time of a run: requests sent in `start..measure` warm the path up and are not counted, those
/// in `measure..stop` are, and after `stop` only replies are awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First request.
    pub start_ns: u64,
    /// First counted request.
    pub measure_ns: u64,
    /// No request is due at or after this.
    pub stop_ns: u64,
}

impl Window {
    /// Whether a request of time `at` counts.
    #[must_use]
    pub fn measures(&self, at: u64) -> bool {
        (self.measure_ns..self.stop_ns).contains(&at)
    }

    /// Length of the measured part in seconds.
    #[must_use]
    pub fn measured_s(&self) -> f64 {
        self.stop_ns.saturating_sub(self.measure_ns) as f64 / 1e9
    }
}

/// Requests that leave together on one flow.
#[derive(Debug)]
pub struct Burst {
    /// The flow they leave on.
    pub flow: usize,
    sequences: Vec<u64>,
}

impl Burst {
    /// An empty burst with room for `capacity` requests.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            flow: 0,
            sequences: Vec::with_capacity(capacity),
        }
    }

    /// Empties the burst and gives it to `flow`.
    pub fn begin(&mut self, flow: usize) {
        self.flow = flow;
        self.sequences.clear();
    }

    /// Adds a request.
    pub fn push(&mut self, sequence: u64) {
        self.sequences.push(sequence);
    }

    /// The requests, in order.
    #[must_use]
    pub fn sequences(&self) -> &[u64] {
        &self.sequences
    }
}

/// What one thread knows whatever its kind of load: the shape of requests, the time, the counts.
#[derive(Debug)]
pub struct Books {
    /// Writes and verifies requests.
    pub prober: Prober,
    /// When requests are sent and counted.
    pub window: Window,
    /// A reply later than this after its request was sent is lost.
    pub timeout_ns: u64,
    /// Number of this thread's first flow among all flows of the run.
    pub first_flow: u32,
    /// The counts.
    pub tally: Tally,
    /// The counts as the progress line sees them.
    pub live: Arc<Live>,
}

impl Books {
    /// The run's number of this thread's flow `flow`, which is what its requests carry.
    #[must_use]
    pub fn flow_number(&self, flow: usize) -> u32 {
        // Flows are at most 65,535 (the command line's limit), so the conversion cannot fail.
        self.first_flow
            .saturating_add(u32::try_from(flow).unwrap_or(u32::MAX))
    }

    /// Ends the run at `now` unless it ends sooner.
    pub fn stop(&mut self, now: u64) {
        let Window {
            start_ns: _,
            measure_ns: _,
            stop_ns,
        } = &mut self.window;
        *stop_ns = now.min(*stop_ns);
    }

    /// Reads a datagram: the sequence number if it is an intact reply on the right flow. Anything
    /// else is counted here.
    pub fn screen(&mut self, flow: usize, datagram: &[u8], now: u64) -> Option<u64> {
        match self.prober.read(datagram) {
            Verdict::Intact {
                flow: number,
                sequence,
            } if number == self.flow_number(flow) => {
                return Some(sequence);
            }
            Verdict::Intact { .. } | Verdict::Foreign => self.count_unexpected(now),
            Verdict::Corrupted => self.count_corrupted(now),
        }
        None
    }

    /// Counts a reply that was changed on the way.
    pub fn count_corrupted(&mut self, now: u64) {
        if self.warm(now) {
            self.tally.corrupted += 1;
        }
    }

    /// Counts a request whose time, intended or actual, is `at`.
    pub fn count_request(&mut self, at: u64) {
        self.live.request();
        if self.window.measures(at) {
            self.tally.requests += 1;
        }
    }

    /// Takes back a request that [`Self::count_request`] counted and the kernel did not send.
    pub fn count_send_failed(&mut self, at: u64, errno: i32) {
        self.live.unrequest();
        if self.window.measures(at) {
            self.tally.requests = self.tally.requests.saturating_sub(1);
            self.tally.errors.count(errno);
        }
    }

    /// Counts the reply that came at `now` to the request of time `at`; the latency runs from one
    /// to the other.
    pub fn count_reply(&mut self, at: u64, now: u64) {
        let latency_ns = now.saturating_sub(at);
        self.live.reply();
        if self.window.measures(at) {
            self.tally.replies += 1;
            self.tally.latency.saturating_record(latency_ns);
            self.live.latency.record(latency_ns);
        }
    }

    /// Counts the request of time `at` as lost.
    pub fn count_lost(&mut self, at: u64) {
        if self.window.measures(at) {
            self.tally.lost += 1;
            self.live.lost();
        }
    }

    /// Counts a reply nobody waited for: wrong, duplicate, late, or not ours.
    pub fn count_unexpected(&mut self, now: u64) {
        if self.warm(now) {
            self.tally.unexpected += 1;
        }
    }

    /// Counts an ICMP port unreachable.
    pub fn count_refused(&mut self, now: u64) {
        self.live.refused();
        if self.warm(now) {
            self.tally.refused += 1;
        }
    }

    /// Counts an error of the receiving side that is not a refusal.
    pub fn count_receive_error(&mut self, errno: i32, now: u64) {
        if self.warm(now) {
            self.tally.errors.count(errno);
        }
    }

    fn warm(&self, now: u64) -> bool {
        now >= self.window.measure_ns
    }
}

/// The counts of one thread, or of all of them.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Requests the kernel took.
    pub requests: u64,
    /// Intact replies in time.
    pub replies: u64,
    /// Of a flood: replies that came while it was still being sent. Their rate is what the target
    /// keeps up with; what trickles in afterwards says how long its queue was.
    pub replies_during: u64,
    /// Requests without an intact reply in time.
    pub lost: u64,
    /// ICMP port unreachables. The requests they answer are lost as well.
    pub refused: u64,
    /// Datagrams nobody waited for.
    pub unexpected: u64,
    /// Replies whose bytes are not those of the request.
    pub corrupted: u64,
    /// Of an open loop: requests that were due and never left, because the sender was behind.
    pub unsent: u64,
    /// Errors of system calls, by errno.
    pub errors: ErrorCounts,
    /// Latency of the replies, in nanoseconds; and of an open loop how long those that never left had
    /// waited when the time was over.
    pub latency: Histogram<u64>,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            requests: 0,
            replies: 0,
            replies_during: 0,
            lost: 0,
            refused: 0,
            unexpected: 0,
            corrupted: 0,
            unsent: 0,
            errors: ErrorCounts::default(),
            latency: latency_histogram(),
        }
    }
}

impl Tally {
    /// Adds another thread's counts.
    pub fn add(&mut self, other: &Self) {
        let Self {
            requests,
            replies,
            replies_during,
            lost,
            refused,
            unexpected,
            corrupted,
            unsent,
            errors,
            latency,
        } = other;
        self.requests += requests;
        self.replies += replies;
        self.replies_during += replies_during;
        self.lost += lost;
        self.refused += refused;
        self.unexpected += unexpected;
        self.corrupted += corrupted;
        self.unsent += unsent;
        self.errors.add(errors);
        merge(&mut self.latency, latency);
    }
}

/// How often each errno was returned. Errors are few and of few kinds, so a short list does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorCounts(Vec<(i32, u64)>);

impl ErrorCounts {
    /// Counts one error.
    pub fn count(&mut self, errno: i32) {
        self.count_n(errno, 1);
    }

    fn count_n(&mut self, errno: i32, times: u64) {
        match self.0.iter_mut().find(|(kind, _)| *kind == errno) {
            Some((_, count)) => *count += times,
            None => self.0.push((errno, times)),
        }
    }

    /// Adds another thread's.
    pub fn add(&mut self, other: &Self) {
        for &(errno, count) in &other.0 {
            self.count_n(errno, count);
        }
    }

    /// Counts by the kernel's name for the error, in alphabetical order.
    #[must_use]
    pub fn by_name(&self) -> BTreeMap<String, u64> {
        self.0
            .iter()
            .map(|&(errno, count)| (errno_name(errno), count))
            .collect()
    }
}

/// The name of an errno as errno(3) has it, for those a UDP socket returns.
fn errno_name(errno: i32) -> String {
    let name = match errno {
        libc::EACCES => "EACCES",
        libc::EAGAIN => "EAGAIN",
        libc::EADDRNOTAVAIL => "EADDRNOTAVAIL",
        libc::ECONNREFUSED => "ECONNREFUSED",
        libc::EHOSTUNREACH => "EHOSTUNREACH",
        libc::EINVAL => "EINVAL",
        libc::EMSGSIZE => "EMSGSIZE",
        libc::ENETDOWN => "ENETDOWN",
        libc::ENETUNREACH => "ENETUNREACH",
        libc::ENOBUFS => "ENOBUFS",
        libc::ENODEV => "ENODEV",
        libc::ENOMEM => "ENOMEM",
        libc::ENOPROTOOPT => "ENOPROTOOPT",
        libc::EPERM => "EPERM",
        libc::EPROTO => "EPROTO",
        other => return format!("errno {other}"),
    };
    name.to_owned()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Books for tests: 64-byte requests, start at 1000 ns, warm-up to 2000, stop at `stop_ns`.
    pub(crate) fn books(stop_ns: u64, timeout_ns: u64) -> Books {
        Books {
            prober: Prober::new(1, 64, 1),
            window: Window {
                start_ns: 1000,
                measure_ns: 2000,
                stop_ns,
            },
            timeout_ns,
            first_flow: 10,
            tally: Tally::default(),
            live: Arc::new(Live::default()),
        }
    }

    /// The reply a perfect echo gives to request `sequence` of flow `flow`.
    pub(crate) fn reply(books: &Books, flow: usize, sequence: u64) -> Vec<u8> {
        let mut bytes = vec![0; books.prober.size()];
        books
            .prober
            .write(books.flow_number(flow), sequence, &mut bytes);
        bytes
    }

    #[test]
    fn screening_counts_what_is_not_a_reply() {
        let mut books = books(100_000, 1000);
        let good = reply(&books, 3, 7);
        assert_eq!(books.screen(3, &good, 5000), Some(7));
        // A reply to another flow's request is intact but came to the wrong socket.
        assert_eq!(books.screen(4, &good, 5000), None);
        assert_eq!(books.screen(3, b"hello", 5000), None);
        let mut bad = good.clone();
        bad[40] ^= 1;
        assert_eq!(books.screen(3, &bad, 5000), None);
        // During the warm-up nothing is counted.
        assert_eq!(books.screen(3, &bad, 1500), None);
        assert_eq!(books.screen(3, b"hello", 1500), None);
        assert_eq!((books.tally.unexpected, books.tally.corrupted), (2, 1));
    }

    #[test]
    fn tallies_add_up() {
        let mut one = Tally {
            requests: 1,
            replies: 2,
            lost: 3,
            refused: 4,
            ..Tally::default()
        };
        one.errors.count(libc::ENOBUFS);
        one.latency.record(1000).unwrap();
        let mut total = Tally {
            unexpected: 5,
            corrupted: 6,
            unsent: 7,
            ..one.clone()
        };
        total.errors.count(libc::EPERM);
        total.add(&one);
        assert_eq!(
            (total.requests, total.replies, total.lost, total.refused),
            (2, 4, 6, 8)
        );
        assert_eq!((total.unexpected, total.corrupted, total.unsent), (5, 6, 7));
        assert_eq!(total.latency.len(), 2);
        let errors: Vec<_> = total.errors.by_name().into_iter().collect();
        assert_eq!(errors, [("ENOBUFS".to_owned(), 2), ("EPERM".to_owned(), 1)]);
    }

    #[test]
    fn stopping_never_lengthens_a_run() {
        let mut books = books(100_000, 1000);
        books.stop(50_000);
        books.stop(70_000);
        assert_eq!(books.window.stop_ns, 50_000);
        // Stopped during the warm-up: nothing was measured, for no time.
        books.stop(1500);
        assert_eq!(books.window.measured_s(), 0.0);
        assert!(!books.window.measures(2000));
    }
}
