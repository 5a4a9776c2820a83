//! The closed loop: every flow has one request under way and sends the next when the reply is there.
//!
//! ```text
//!             next_burst                reply, or timeout
//!   ready ───────────────► waiting ─────────────────────────► ready
//!     ▲                       │
//!     │  10 ms                │ refused, or the kernel did not send it
//!     └───────── resting ◄────┘
//! ```

use std::collections::VecDeque;

use super::load::{Books, Burst, Load};

/// How long a flow rests after its request was refused or could not be sent: long enough not to turn
/// an ICMP error into a busy loop between two hosts, short enough that a server which is just
/// starting is found at once.
const REST_NS: u64 = 10_000_000;

/// Expired requests are looked for this many times in one timeout. A reply is judged by its own
/// time; this only says how soon a silent flow sends again, here at most 1/16 late.
const SWEEPS_PER_TIMEOUT: u64 = 16;

/// One outstanding request per flow.
#[derive(Debug)]
pub struct ClosedLoop {
    books: Books,
    flows: Vec<Flow>,
    /// Flows that may send now, the longest-waiting first.
    ready: VecDeque<usize>,
    /// Flows that may send at a time, the earliest first: every rest is equally long.
    resting: VecDeque<(u64, usize)>,
    /// How many flows wait for a reply.
    waiting: usize,
    sweep_at_ns: u64,
    sweep_every_ns: u64,
}

#[derive(Clone, Debug, Default)]
struct Flow {
    /// Sequence number of the request under way, or of the next one.
    sequence: u64,
    /// When the request under way was sent.
    sent_ns: Option<u64>,
}

impl ClosedLoop {
    /// A closed loop over `flows` flows.
    #[must_use]
    pub fn new(books: Books, flows: usize) -> Self {
        let sweep_every_ns = (books.timeout_ns / SWEEPS_PER_TIMEOUT).max(1);
        Self {
            sweep_at_ns: books.window.start_ns.saturating_add(sweep_every_ns),
            sweep_every_ns,
            books,
            flows: vec![Flow::default(); flows],
            ready: (0..flows).collect(),
            resting: VecDeque::with_capacity(flows),
            waiting: 0,
        }
    }

    /// Ends the request under way on `flow` and returns when it was sent.
    fn resolve(&mut self, flow: usize) -> Option<u64> {
        let state = &mut self.flows[flow];
        let sent_ns = state.sent_ns.take()?;
        state.sequence += 1;
        self.waiting -= 1;
        Some(sent_ns)
    }

    fn rest(&mut self, flow: usize, now: u64) {
        self.resting.push_back((now.saturating_add(REST_NS), flow));
    }
}

impl Load for ClosedLoop {
    // One outstanding request per flow: there is never more to send or to receive on one.
    const SEND_MAX: usize = 1;
    const RECEIVE_MAX: usize = 1;

    fn books(&self) -> &Books {
        &self.books
    }

    fn books_mut(&mut self) -> &mut Books {
        &mut self.books
    }

    fn into_books(self) -> Books {
        self.books
    }

    fn next_burst(&mut self, now: u64, burst: &mut Burst) -> bool {
        if now < self.books.window.start_ns || now >= self.books.window.stop_ns {
            return false;
        }
        while let Some(&(at, flow)) = self.resting.front()
            && at <= now
        {
            self.resting.pop_front();
            self.ready.push_back(flow);
        }
        let Some(flow) = self.ready.pop_front() else {
            return false;
        };
        self.flows[flow].sent_ns = Some(now);
        self.waiting += 1;
        burst.begin(flow);
        burst.push(self.flows[flow].sequence);
        self.books.count_request(now);
        true
    }

    fn on_datagram(&mut self, flow: usize, datagram: &[u8], now: u64) {
        let Some(sequence) = self.books.screen(flow, datagram, now) else {
            return;
        };
        let Flow {
            sequence: awaited,
            sent_ns,
        } = self.flows[flow];
        let Some(sent_ns) = sent_ns.filter(|_| sequence == awaited) else {
            // A duplicate, or the late reply to a request that was given up.
            self.books.count_unexpected(now);
            return;
        };
        if now.saturating_sub(sent_ns) > self.books.timeout_ns {
            self.books.count_lost(sent_ns);
            self.books.count_unexpected(now);
        } else {
            self.books.count_reply(sent_ns, now);
        }
        self.resolve(flow);
        self.ready.push_back(flow);
    }

    fn on_send_failed(&mut self, flow: usize, _sequence: u64, errno: i32, now: u64) {
        if let Some(sent_ns) = self.resolve(flow) {
            self.books.count_send_failed(sent_ns, errno);
            self.rest(flow, now);
        }
    }

    fn on_refused(&mut self, flow: usize, now: u64) {
        self.books.count_refused(now);
        if let Some(sent_ns) = self.resolve(flow) {
            self.books.count_lost(sent_ns);
            self.rest(flow, now);
        }
    }

    fn expire(&mut self, now: u64) {
        if now < self.sweep_at_ns {
            return;
        }
        self.sweep_at_ns = now.saturating_add(self.sweep_every_ns);
        for flow in 0..self.flows.len() {
            let sent_ns = self.flows[flow].sent_ns;
            if let Some(sent_ns) = sent_ns
                && now.saturating_sub(sent_ns) > self.books.timeout_ns
            {
                self.books.count_lost(sent_ns);
                self.resolve(flow);
                self.ready.push_back(flow);
            }
        }
    }

    fn wake_at(&self) -> u64 {
        let sending = if self.ready.is_empty() {
            self.resting.front().map_or(u64::MAX, |&(at, _)| at)
        } else {
            self.books.window.start_ns
        };
        // After the end nothing is sent: a ready flow is no reason to wake.
        let sending = if sending < self.books.window.stop_ns {
            sending
        } else {
            u64::MAX
        };
        sending.min(self.sweep_at_ns)
    }

    fn finished(&self, now: u64) -> bool {
        now >= self.books.window.stop_ns && self.waiting == 0
    }
}

#[cfg(test)]
mod tests {
    use super::super::load::tests::{books, reply};
    use super::*;

    const STOP_NS: u64 = 1_000_000_000;
    const TIMEOUT_NS: u64 = 1_000_000;

    fn closed(flows: usize) -> ClosedLoop {
        ClosedLoop::new(books(STOP_NS, TIMEOUT_NS), flows)
    }

    /// Takes the next burst, if any: its flow and its one sequence number.
    fn send(load: &mut ClosedLoop, now: u64) -> Option<(usize, u64)> {
        let mut burst = Burst::with_capacity(ClosedLoop::SEND_MAX);
        load.next_burst(now, &mut burst).then(|| {
            assert_eq!(burst.sequences().len(), 1);
            (burst.flow, burst.sequences()[0])
        })
    }

    fn echo(load: &mut ClosedLoop, flow: usize, sequence: u64, now: u64) {
        let bytes = reply(load.books(), flow, sequence);
        load.on_datagram(flow, &bytes, now);
    }

    #[test]
    fn each_flow_has_one_request_under_way() {
        let mut load = closed(2);
        assert_eq!(send(&mut load, 999), None, "before the start");
        assert_eq!(send(&mut load, 5000), Some((0, 0)));
        assert_eq!(send(&mut load, 5001), Some((1, 0)));
        assert_eq!(send(&mut load, 5002), None);
        echo(&mut load, 1, 0, 5500);
        assert_eq!(send(&mut load, 5600), Some((1, 1)));
        let tally = &load.books().tally;
        assert_eq!(
            (tally.requests, tally.replies, tally.latency.max()),
            (3, 1, 499)
        );
    }

    #[test]
    fn warm_up_is_not_counted() {
        let mut load = closed(1);
        send(&mut load, 1999);
        echo(&mut load, 0, 0, 2500);
        assert_eq!(
            (load.books().tally.requests, load.books().tally.replies),
            (0, 0)
        );
        send(&mut load, 2500);
        echo(&mut load, 0, 1, 2600);
        assert_eq!(
            (load.books().tally.requests, load.books().tally.replies),
            (1, 1)
        );
    }

    #[test]
    fn a_request_without_reply_is_lost_and_its_late_reply_unexpected() {
        let mut load = closed(1);
        send(&mut load, 5000);
        load.expire(5000 + TIMEOUT_NS);
        assert_eq!(load.books().tally.lost, 0, "in time to the nanosecond");
        let late = 5000 + TIMEOUT_NS + TIMEOUT_NS / SWEEPS_PER_TIMEOUT + 1;
        load.expire(late);
        assert_eq!(load.books().tally.lost, 1);
        assert_eq!(send(&mut load, late), Some((0, 1)));
        echo(&mut load, 0, 0, late + 1);
        let tally = &load.books().tally;
        assert_eq!((tally.unexpected, tally.replies), (1, 0));
        echo(&mut load, 0, 1, late + 2);
        assert_eq!(load.books().tally.replies, 1);
    }

    #[test]
    fn a_reply_after_the_timeout_is_late_even_before_the_sweep() {
        let mut load = closed(1);
        send(&mut load, 5000);
        echo(&mut load, 0, 0, 5000 + TIMEOUT_NS + 1);
        let tally = &load.books().tally;
        assert_eq!((tally.lost, tally.unexpected, tally.replies), (1, 1, 0));
        assert!(send(&mut load, 5000 + TIMEOUT_NS + 2).is_some());
    }

    #[test]
    fn a_duplicate_is_unexpected() {
        let mut load = closed(1);
        send(&mut load, 5000);
        echo(&mut load, 0, 0, 5100);
        echo(&mut load, 0, 0, 5200);
        send(&mut load, 5300);
        echo(&mut load, 0, 0, 5400);
        let tally = &load.books().tally;
        assert_eq!((tally.replies, tally.unexpected), (1, 2));
    }

    #[test]
    fn a_refused_flow_rests_and_is_no_latency() {
        let mut load = closed(1);
        send(&mut load, 5000);
        load.on_refused(0, 6000);
        let tally = &load.books().tally;
        assert_eq!((tally.refused, tally.lost, tally.latency.len()), (1, 1, 0));
        assert_eq!(send(&mut load, 6000 + REST_NS - 1), None);
        assert_eq!(load.wake_at().min(6000 + REST_NS), load.wake_at());
        assert_eq!(send(&mut load, 6000 + REST_NS), Some((0, 1)));
        // An error for a request that is no longer under way resolves nothing twice.
        load.on_refused(0, 6000 + REST_NS + 1);
        load.on_refused(0, 6000 + REST_NS + 2);
        assert_eq!(
            (load.books().tally.refused, load.books().tally.lost),
            (3, 2)
        );
        assert_eq!(load.resting.len(), 1);
    }

    #[test]
    fn a_request_that_was_not_sent_is_an_error_and_not_a_loss() {
        let mut load = closed(1);
        send(&mut load, 5000);
        load.on_send_failed(0, 0, libc::EPERM, 5001);
        let tally = &load.books().tally;
        assert_eq!(
            (tally.requests, tally.lost, tally.errors.by_name()["EPERM"]),
            (0, 0, 1)
        );
    }

    #[test]
    fn ends_when_the_last_reply_is_there_or_given_up() {
        let mut load = closed(2);
        send(&mut load, STOP_NS - 10);
        send(&mut load, STOP_NS - 10);
        assert!(!load.finished(STOP_NS));
        echo(&mut load, 0, 0, STOP_NS);
        assert_eq!(send(&mut load, STOP_NS), None);
        assert!(!load.finished(STOP_NS));
        let end = load.wake_at().max(STOP_NS + TIMEOUT_NS);
        load.expire(end);
        assert!(load.finished(end));
        let tally = &load.books().tally;
        assert_eq!((tally.requests, tally.replies, tally.lost), (2, 1, 1));
    }
}
