//! The flood: as many datagrams as fit, or a steady rate of them, in full bursts; echoes are counted
//! and not waited for.

use super::load::{Books, Burst, Load};
use super::pacing::Schedule;

/// Datagrams in one sendmmsg: beyond 64 the cost of the call itself no longer shows.
const BURST_MAX: usize = 64;

/// How long echoes are collected after the last datagram was sent, or the timeout if that is
/// shorter: a full socket buffer drains in this time.
const DRAIN_NS: u64 = 200_000_000;

/// Datagrams without regard to replies.
#[derive(Debug)]
pub struct Flood {
    books: Books,
    /// Without a schedule, as fast as possible.
    schedule: Option<Schedule>,
    sequence: u64,
    /// Sequence number of the first datagram that counts.
    first_measured: Option<u64>,
    flows: usize,
    next_flow: usize,
    /// Sending is over, and what the schedule still held was counted as unsent.
    ended: bool,
}

impl Flood {
    /// A flood over `flows` flows, at `schedule`'s times or as fast as possible.
    #[must_use]
    pub fn new(books: Books, flows: usize, schedule: Option<Schedule>) -> Self {
        Self {
            books,
            schedule,
            sequence: 0,
            first_measured: None,
            flows,
            next_flow: 0,
            ended: false,
        }
    }

    fn drained_at(&self) -> u64 {
        self.books
            .window
            .stop_ns
            .saturating_add(DRAIN_NS.min(self.books.timeout_ns))
    }
}

impl Load for Flood {
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
        if now < self.books.window.start_ns || now >= self.books.window.stop_ns {
            return false;
        }
        burst.begin(self.next_flow);
        while burst.sequences().len() < BURST_MAX {
            if let Some(schedule) = &mut self.schedule {
                if schedule.next_ns() > now {
                    break;
                }
                schedule.advance();
            }
            burst.push(self.sequence);
            self.sequence += 1;
            self.books.count_request(now);
        }
        let Some(&first) = burst.sequences().first() else {
            return false;
        };
        if self.books.window.measures(now) {
            self.first_measured.get_or_insert(first);
        }
        self.next_flow = (self.next_flow + 1) % self.flows;
        true
    }

    fn on_datagram(&mut self, flow: usize, datagram: &[u8], now: u64) {
        let Some(sequence) = self.books.screen(flow, datagram, now) else {
            return;
        };
        self.books.live.reply();
        // What comes back during the window is the rate the target keeps up with, whenever it was
        // sent; which datagrams came back is asked of those sent during the window.
        if self.books.window.measures(now) {
            self.books.tally.replies_during += 1;
        }
        if self.first_measured.is_some_and(|first| sequence >= first) {
            self.books.tally.replies += 1;
        }
    }

    fn on_send_failed(&mut self, _flow: usize, _sequence: u64, errno: i32, now: u64) {
        self.books.count_send_failed(now, errno);
    }

    fn on_refused(&mut self, _flow: usize, now: u64) {
        self.books.count_refused(now);
    }

    fn expire(&mut self, now: u64) {
        if now >= self.books.window.stop_ns && !self.ended {
            self.ended = true;
            if let Some(schedule) = &mut self.schedule {
                let Books { window, tally, .. } = &mut self.books;
                schedule.abandon(window, |_| tally.unsent += 1);
            }
        }
    }

    fn wake_at(&self) -> u64 {
        let due = match &self.schedule {
            Some(schedule) => schedule.next_ns(),
            None => self.books.window.start_ns,
        };
        if due < self.books.window.stop_ns {
            due
        } else {
            self.drained_at()
        }
    }

    fn finished(&self, now: u64) -> bool {
        now >= self.drained_at()
    }
}

#[cfg(test)]
mod tests {
    use super::super::load::tests::{books, reply};
    use super::super::pacing::Arrivals;
    use super::*;

    const STOP_NS: u64 = 1_000_000;

    fn send(load: &mut Flood, now: u64) -> Option<(usize, Vec<u64>)> {
        let mut burst = Burst::with_capacity(Flood::SEND_MAX);
        load.next_burst(now, &mut burst)
            .then(|| (burst.flow, burst.sequences().to_vec()))
    }

    #[test]
    fn full_bursts_on_every_flow_in_turn() {
        let mut load = Flood::new(books(STOP_NS, 1000), 2, None);
        assert_eq!(send(&mut load, 999), None);
        assert_eq!(send(&mut load, 2000), Some((0, (0..64).collect())));
        assert_eq!(send(&mut load, 2000), Some((1, (64..128).collect())));
        assert_eq!(send(&mut load, 2000).unwrap().0, 0);
        assert_eq!(send(&mut load, STOP_NS), None);
    }

    #[test]
    fn a_rate_holds_on_average_and_catches_up() {
        let schedule = Schedule::new(Arrivals::Constant, "1M".parse().unwrap(), 1000, 0, 1, 1);
        let mut load = Flood::new(books(STOP_NS, 1000), 1, Some(schedule));
        assert_eq!(send(&mut load, 3000).unwrap().1.len(), 3);
        assert_eq!(send(&mut load, 3999), None);
        assert_eq!(load.wake_at(), 4000);
        assert_eq!(send(&mut load, 103_000).unwrap().1.len(), 64);
        assert_eq!(send(&mut load, 103_000).unwrap().1.len(), 36);
        assert_eq!(send(&mut load, 103_000), None);
    }

    #[test]
    fn what_never_left_is_counted() {
        let schedule = Schedule::new(Arrivals::Constant, "1M".parse().unwrap(), 1000, 0, 1, 1);
        let mut load = Flood::new(books(STOP_NS, 1000), 1, Some(schedule));
        assert_eq!(send(&mut load, 11_000).unwrap().1.len(), 11);
        load.expire(STOP_NS);
        load.expire(STOP_NS + 1);
        // Due from 12,000 to 999,000.
        assert_eq!(load.books().tally.unsent, 988);
        assert!(load.wake_at() > STOP_NS, "or the engine would spin");
    }

    #[test]
    fn echoes_are_counted_by_when_they_left_and_by_when_they_came() {
        let mut load = Flood::new(books(STOP_NS, 1000), 1, None);
        send(&mut load, 1500);
        send(&mut load, 2500);
        for (sequence, now) in [(0, 1600), (1, 2600), (64, 2600), (65, STOP_NS + 5)] {
            let bytes = reply(load.books(), 0, sequence);
            load.on_datagram(0, &bytes, now);
        }
        let tally = &load.books().tally;
        assert_eq!(
            (tally.requests, tally.replies, tally.replies_during),
            (64, 2, 2)
        );
    }

    #[test]
    fn waits_for_echoes_and_no_longer() {
        let load = Flood::new(books(STOP_NS, 1000), 1, None);
        assert!(!load.finished(STOP_NS + 999));
        assert!(load.finished(STOP_NS + 1000));
    }
}
