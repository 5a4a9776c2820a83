//! The open loop: requests are due by a schedule, whatever became of the ones before.
//!
//! ```text
//!        tail                      head
//!   ──────┬──────────────────────────┬──────────────►  sequence numbers
//!         │ ✓   ·   ✓   ✓   ·   ·    │ due next         · under way   ✓ resolved
//!   ──────┴──────────────────────────┴──────────────
//!         └── window: sequence modulo its size ──┘
//! ```
//!
//! Latency runs from the *intended* time. A request is lost by its *actual* time, so that a sender
//! that fell behind shows as latency and not as loss.

use super::load::{Books, Burst, Load};
use super::pacing::Schedule;

/// Requests that are due at once go out together, up to this many; one system call for 32 costs a
/// third of 32 calls, and a larger burst would leave replies waiting unread for longer (32 sends
/// take about 20 µs).
const BURST_MAX: usize = 32;

/// Most requests under way on one thread: 100 MB of records. A rate × timeout above this makes
/// requests wait, and the waiting is in their latency.
const WINDOW_MAX: usize = 1 << 22;

/// Fewest: a sender that comes back from 10 ms off the CPU at a low rate still has room.
const WINDOW_MIN: usize = 1 << 12;

/// Requests at the times of a [`Schedule`], spread over flows in turn.
#[derive(Debug)]
pub struct OpenLoop {
    books: Books,
    schedule: Schedule,
    /// Ring of requests; its length is a power of two.
    window: Vec<Request>,
    /// Oldest request that may still be under way.
    tail: u64,
    /// Next request to send.
    head: u64,
    flows: usize,
    /// Flow of the next burst.
    next_flow: usize,
    /// Flows that were refused once send their requests one by one: within a burst the kernel
    /// reports the error of one request by not sending the next, and says no more.
    one_by_one: Vec<bool>,
    /// The schedule's remainder was counted as unsent.
    closed_books: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Request {
    intended_ns: u64,
    sent_ns: u64,
    flow: u32,
    under_way: bool,
}

impl OpenLoop {
    /// An open loop over `flows` flows at `schedule`'s times; `per_second` is this thread's rate and
    /// sizes the window.
    #[must_use]
    pub fn new(books: Books, flows: usize, schedule: Schedule, per_second: f64) -> Self {
        // Twice the mean number under way leaves room for bursts.
        let expected = per_second * books.timeout_ns as f64 / 1e9 * 2.0;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        // Not negative, and `as` saturates at the top, where the clamp takes over.
        let size = (expected as usize)
            .clamp(WINDOW_MIN, WINDOW_MAX)
            .next_power_of_two();
        Self {
            books,
            schedule,
            window: vec![Request::default(); size],
            tail: 0,
            head: 0,
            flows,
            next_flow: 0,
            one_by_one: vec![false; flows],
            closed_books: false,
        }
    }

    fn index(&self, sequence: u64) -> usize {
        // The mask is below the window's length, so no bits that matter are lost.
        #[allow(clippy::cast_possible_truncation)]
        let index = sequence as usize & (self.window.len() - 1);
        index
    }

    fn is_full(&self) -> bool {
        self.head - self.tail >= self.window.len() as u64
    }
}

impl Load for OpenLoop {
    const SEND_MAX: usize = BURST_MAX;
    const RECEIVE_MAX: usize = 64;

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
        if now >= self.books.window.stop_ns {
            return false;
        }
        let flow = self.next_flow;
        let most = if self.one_by_one[flow] { 1 } else { BURST_MAX };
        burst.begin(flow);
        while burst.sequences().len() < most
            && self.schedule.next_ns() <= now
            && self.schedule.next_ns() < self.books.window.stop_ns
            && !self.is_full()
        {
            let intended_ns = self.schedule.next_ns();
            self.schedule.advance();
            let index = self.index(self.head);
            // Flows are at most 65,535.
            let flow = u32::try_from(flow).unwrap_or(u32::MAX);
            self.window[index] = Request {
                intended_ns,
                sent_ns: now,
                flow,
                under_way: true,
            };
            burst.push(self.head);
            self.head += 1;
            self.books.count_request(intended_ns);
        }
        if burst.sequences().is_empty() {
            return false;
        }
        self.next_flow = (flow + 1) % self.flows;
        true
    }

    fn on_datagram(&mut self, flow: usize, datagram: &[u8], now: u64) {
        let Some(sequence) = self.books.screen(flow, datagram, now) else {
            return;
        };
        let index = self.index(sequence);
        let request = self.window[index];
        let known = (self.tail..self.head).contains(&sequence)
            && request.under_way
            && usize::try_from(request.flow) == Ok(flow);
        if !known {
            self.books.count_unexpected(now);
            return;
        }
        self.window[index].under_way = false;
        if now.saturating_sub(request.sent_ns) > self.books.timeout_ns {
            self.books.count_lost(request.intended_ns);
            self.books.count_unexpected(now);
        } else {
            self.books.count_reply(request.intended_ns, now);
        }
    }

    fn on_send_failed(&mut self, _flow: usize, sequence: u64, errno: i32, _now: u64) {
        let index = self.index(sequence);
        let request = &mut self.window[index];
        if request.under_way {
            request.under_way = false;
            let intended_ns = request.intended_ns;
            self.books.count_send_failed(intended_ns, errno);
        }
    }

    fn on_refused(&mut self, flow: usize, now: u64) {
        // Which request it was, the error does not say: it is lost when its time is over.
        self.books.count_refused(now);
        self.one_by_one[flow] = true;
    }

    fn expire(&mut self, now: u64) {
        while self.tail < self.head {
            let index = self.index(self.tail);
            let request = self.window[index];
            if request.under_way {
                if now.saturating_sub(request.sent_ns) <= self.books.timeout_ns {
                    break;
                }
                self.window[index].under_way = false;
                self.books.count_lost(request.intended_ns);
            }
            self.tail += 1;
        }
        if now >= self.books.window.stop_ns && !self.closed_books {
            self.closed_books = true;
            let Books { window, tally, .. } = &mut self.books;
            // They have waited since they were due, and would have waited longer. Left out, a stall
            // of the sender would take the longest latencies with it (coordinated omission).
            self.schedule.abandon(window, |intended_ns| {
                tally.unsent += 1;
                tally
                    .latency
                    .saturating_record(now.saturating_sub(intended_ns));
            });
        }
    }

    fn wake_at(&self) -> u64 {
        let expiry = if self.tail < self.head {
            let oldest = self.window[self.index(self.tail)];
            oldest
                .sent_ns
                .saturating_add(self.books.timeout_ns)
                .saturating_add(1)
        } else {
            u64::MAX
        };
        let due = self.schedule.next_ns();
        // A full window cannot send before its oldest request is resolved.
        let due = if due < self.books.window.stop_ns && !self.is_full() {
            due
        } else {
            u64::MAX
        };
        let end = if self.closed_books {
            u64::MAX
        } else {
            self.books.window.stop_ns
        };
        due.min(expiry).min(end)
    }

    fn finished(&self, now: u64) -> bool {
        now >= self.books.window.stop_ns && self.tail == self.head && self.closed_books
    }
}

#[cfg(test)]
mod tests {
    use super::super::load::tests::{books, reply};
    use super::super::pacing::Arrivals;
    use super::*;

    const STOP_NS: u64 = 1_000_000;
    const TIMEOUT_NS: u64 = 50_000;

    /// One request every microsecond from 1000 ns on; the first that counts is due at 2000.
    fn open(flows: usize) -> OpenLoop {
        let rate = "1M".parse().unwrap();
        let schedule = Schedule::new(Arrivals::Constant, rate, 1000, 0, 1, 1);
        OpenLoop::new(books(STOP_NS, TIMEOUT_NS), flows, schedule, 1e6)
    }

    fn send(load: &mut OpenLoop, now: u64) -> Option<(usize, Vec<u64>)> {
        let mut burst = Burst::with_capacity(OpenLoop::SEND_MAX);
        load.next_burst(now, &mut burst)
            .then(|| (burst.flow, burst.sequences().to_vec()))
    }

    fn echo(load: &mut OpenLoop, flow: usize, sequence: u64, now: u64) {
        let bytes = reply(load.books(), flow, sequence);
        load.on_datagram(flow, &bytes, now);
    }

    #[test]
    fn requests_are_due_by_the_schedule_and_not_before() {
        let mut load = open(2);
        assert_eq!(load.wake_at(), 1000);
        assert_eq!(send(&mut load, 999), None);
        assert_eq!(send(&mut load, 1000), Some((0, vec![0])));
        assert_eq!(send(&mut load, 1999), None);
        assert_eq!(load.wake_at(), 2000);
        // Two are due: they go out together, on the next flow.
        assert_eq!(send(&mut load, 3000), Some((1, vec![1, 2])));
        assert_eq!(send(&mut load, 4000), Some((0, vec![3])));
    }

    #[test]
    fn latency_runs_from_the_intended_time() {
        let mut load = open(1);
        send(&mut load, 1000);
        // The sender was away: requests 1..=20, due from 2000 on, leave at 21,000.
        assert_eq!(send(&mut load, 21_000).unwrap().1.len(), 20);
        echo(&mut load, 0, 1, 22_000);
        assert_eq!(
            load.books().tally.latency.max() / 100,
            200,
            "22,000 − 2,000 ns"
        );
    }

    #[test]
    fn falling_behind_is_latency_and_not_loss() {
        let mut load = open(1);
        // Ten timeouts late.
        let now = 1000 + 10 * TIMEOUT_NS;
        while send(&mut load, now).is_some() {}
        load.expire(now + TIMEOUT_NS);
        assert_eq!(load.books().tally.lost, 0);
        echo(&mut load, 0, 1, now + TIMEOUT_NS);
        assert_eq!(load.books().tally.replies, 1);
        assert!(load.books().tally.latency.max() > 10 * TIMEOUT_NS);
    }

    #[test]
    fn bursts_are_bounded() {
        let mut load = open(1);
        assert_eq!(send(&mut load, 900_000).unwrap().1.len(), BURST_MAX);
    }

    #[test]
    fn unanswered_requests_expire_in_order() {
        let mut load = open(1);
        for now in [3000, 4000, 5000] {
            send(&mut load, now);
        }
        echo(&mut load, 0, 2, 5500);
        assert_eq!(load.wake_at(), 6000);
        // Sequences 0, 1 and 2 left at 3000; of these 0 was warm-up and 2 was answered.
        load.expire(3000 + TIMEOUT_NS);
        assert_eq!(load.books().tally.lost, 0);
        load.expire(3001 + TIMEOUT_NS);
        assert_eq!(load.books().tally.lost, 1);
        echo(&mut load, 0, 1, 3002 + TIMEOUT_NS);
        assert_eq!(
            (load.books().tally.unexpected, load.books().tally.lost),
            (1, 1)
        );
        load.expire(5001 + TIMEOUT_NS);
        assert_eq!(load.books().tally.lost, 3);
    }

    #[test]
    fn wrong_flows_duplicates_and_unknown_sequences_are_unexpected() {
        let mut load = open(2);
        send(&mut load, 2000);
        let bytes = reply(load.books(), 0, 1);
        load.on_datagram(1, &bytes, 2500);
        echo(&mut load, 1, 1, 2500);
        echo(&mut load, 0, 999, 2500);
        assert_eq!(load.books().tally.unexpected, 3);
        echo(&mut load, 0, 1, 2600);
        echo(&mut load, 0, 1, 2700);
        assert_eq!(
            (load.books().tally.replies, load.books().tally.unexpected),
            (1, 4)
        );
    }

    #[test]
    fn a_full_window_makes_requests_wait_rather_than_forget_others() {
        let mut load = open(1);
        load.window.truncate(8);
        assert_eq!(
            send(&mut load, 20_000).unwrap().1,
            (0..8).collect::<Vec<_>>()
        );
        assert_eq!(send(&mut load, 20_000), None);
        assert!(load.wake_at() > 20_000, "or the engine would spin");
        for sequence in 0..8 {
            echo(&mut load, 0, sequence, 20_100);
        }
        load.expire(20_100);
        assert_eq!(
            send(&mut load, 20_100).unwrap().1,
            (8..16).collect::<Vec<_>>()
        );
        assert_eq!(load.books().tally.replies, 7, "sequence 0 was warm-up");
    }

    #[test]
    fn what_never_left_is_counted_at_the_end() {
        let mut load = open(1);
        send(&mut load, 10_000);
        assert_eq!(load.head, 10);
        // Ctrl-C at 40,000: what was due from 11,000 to 39,000 never left.
        load.books.stop(40_000);
        load.expire(40_000);
        assert_eq!(load.books().tally.unsent, 29);
        // Each has waited since it was due: that much its latency would be at least.
        let latency = &load.books().tally.latency;
        assert_eq!(latency.len(), 29);
        assert!(latency.equivalent(latency.max(), 29_000) && latency.min() <= 1000);
        assert!(!load.finished(40_000), "replies may still come");
        let end = 10_001 + TIMEOUT_NS;
        load.expire(end);
        assert!(load.finished(end));
        let tally = &load.books().tally;
        assert_eq!((tally.requests, tally.lost, tally.unsent), (9, 9, 29));
    }

    #[test]
    fn a_refused_flow_stops_bursting() {
        let mut load = open(1);
        send(&mut load, 5000);
        load.on_refused(0, 6000);
        assert_eq!(send(&mut load, 10_000).unwrap().1.len(), 1);
        assert_eq!(
            (load.books().tally.refused, load.books().tally.latency.len()),
            (1, 0)
        );
    }
}
