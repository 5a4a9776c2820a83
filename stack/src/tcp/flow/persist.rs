//! Asking again: a window update may get lost, and then both ends would wait for ever
//! (RFC 9293 §3.8.6.1).

use super::send_window::OVERRIDE_TIMEOUT;
use crate::time::{Duration, Instant};

/// The longest interval between two probes: as that of the retransmission timer (RFC 6298 (2.5)).
/// A peer that opens its window and whose update is lost waits this long at worst.
pub const INTERVAL_MAX: Duration = Duration::from_secs(60);

/// The timer that runs while there is something to send, nothing in flight, and no window for it.
#[derive(Clone, Debug)]
pub struct Persist {
    /// When it expires, while it runs.
    at: Instant,
    state: State,
    /// Probes sent since the window closed: the interval is 2^backoff retransmission timeouts.
    backoff: u8,
    /// Probes sent since an ACK came.
    unanswered: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Stopped,
    ZeroWindow,
    SillyWindow,
}

/// What to do now that the timer has expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Send a probe: a byte of the data that waits, although the window is closed.
    ZeroWindow,
    /// Send what the window takes although it is little
    /// ([`Unsent::overridden`](super::Unsent::overridden)).
    Override,
}

impl Default for Persist {
    fn default() -> Self {
        Self::new()
    }
}

impl Persist {
    /// Stopped.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            at: Instant::ZERO,
            state: State::Stopped,
            backoff: 0,
            unanswered: 0,
        }
    }

    /// The window is closed, there is something to send, and nothing is in flight. Goes on if it
    /// runs for this reason already. `rto`: the retransmission timeout.
    pub fn on_zero_window(&mut self, rto: Duration, now: Instant) {
        if self.state != State::ZeroWindow {
            self.state = State::ZeroWindow;
            self.backoff = 0;
            self.unanswered = 0;
            // SHLD-29: the first probe once the window was closed for the retransmission timeout.
            self.at = now + rto.min(INTERVAL_MAX);
        }
    }

    /// The window is open, but so little that silly window avoidance waits, and nothing is in
    /// flight. Goes on if it runs for this reason already.
    pub fn on_silly_window(&mut self, now: Instant) {
        if self.state != State::SillyWindow {
            self.state = State::SillyWindow;
            self.backoff = 0;
            self.unanswered = 0;
            self.at = now + OVERRIDE_TIMEOUT;
        }
    }

    /// There is nothing to wait for any more: the window is open, or nothing is left to send.
    #[inline]
    pub fn stop(&mut self) {
        self.state = State::Stopped;
    }

    /// An ACK came: the peer is there, however long its window stays closed (MUST-37). The
    /// intervals do not become shorter by it.
    #[inline]
    pub fn on_ack(&mut self) {
        self.unanswered = 0;
    }

    /// Probes since the last ACK, at most 255: what a user timeout may judge (MUST-37). As long as
    /// it is below what was configured the connection stays.
    #[must_use]
    pub const fn unanswered(&self) -> u8 {
        self.unanswered
    }

    /// Whether no probe was sent yet since the window closed.
    #[must_use]
    pub const fn is_first(&self) -> bool {
        self.backoff == 0
    }

    /// Whether it runs because of a closed window.
    #[inline]
    #[must_use]
    pub fn is_probing(&self) -> bool {
        self.state == State::ZeroWindow
    }

    /// Whether it runs, for whatever reason.
    #[inline]
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.state != State::Stopped
    }

    /// When it expires, if it runs.
    #[inline]
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        (self.state != State::Stopped).then_some(self.at)
    }

    /// The timer expired, perhaps: None if it is not due. After a probe it runs on. `rto`: the
    /// retransmission timeout.
    pub fn on_timer(&mut self, rto: Duration, now: Instant) -> Option<Probe> {
        if self.deadline().is_none_or(|at| now < at) {
            return None;
        }
        match self.state {
            State::Stopped => None,
            State::ZeroWindow => {
                // SHLD-30: exponentially, and without an end (MUST-37, MAY-8).
                self.backoff = self.backoff.saturating_add(1);
                self.unanswered = self.unanswered.saturating_add(1);
                self.at = now + interval(rto, self.backoff);
                Some(Probe::ZeroWindow)
            }
            State::SillyWindow => {
                self.state = State::Stopped;
                Some(Probe::Override)
            }
        }
    }
}

/// 2^backoff retransmission timeouts, at most [`INTERVAL_MAX`].
fn interval(rto: Duration, backoff: u8) -> Duration {
    // Two to the 16th of even a millisecond is above the limit.
    rto.saturating_mul(1 << backoff.min(16)).min(INTERVAL_MAX)
}

const _: () = assert!(size_of::<Persist>() <= 16);

#[cfg(test)]
mod tests {
    use super::*;

    const RTO: Duration = Duration::from_millis(300);

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    /// MUST-36 with SHLD-29 and SHLD-30: the first probe after the retransmission timeout, then
    /// twice as long each time, up to the limit.
    #[test]
    fn must_36_probes_back_off() {
        let mut persist = Persist::new();
        assert_eq!(persist.deadline(), None);
        persist.on_zero_window(RTO, at(0));
        assert_eq!(persist.on_timer(RTO, at(299)), None, "not due yet");
        let mut last = at(0);
        let mut intervals_ms = alloc::vec::Vec::new();
        for _ in 0..11 {
            let due = persist.deadline().unwrap();
            intervals_ms.push(due.saturating_since(last).as_millis());
            assert_eq!(persist.on_timer(RTO, due), Some(Probe::ZeroWindow));
            last = due;
        }
        assert_eq!(
            intervals_ms,
            [
                300, 600, 1200, 2400, 4800, 9600, 19_200, 38_400, 60_000, 60_000, 60_000
            ]
        );
        // Hearing of the closed window again does not start over.
        let due = persist.deadline();
        persist.on_zero_window(RTO, last);
        assert_eq!(persist.deadline(), due);
    }

    /// MUST-37: as long as ACKs come the window may stay closed for ever.
    #[test]
    fn must_37_a_window_may_stay_closed_while_acks_come() {
        let mut persist = Persist::new();
        persist.on_zero_window(RTO, at(0));
        for _ in 0..1000 {
            let due = persist.deadline().unwrap();
            assert_eq!(persist.on_timer(RTO, due), Some(Probe::ZeroWindow));
            assert_eq!(persist.unanswered(), 1);
            persist.on_ack();
            assert_eq!(persist.unanswered(), 0);
        }
        for expected in 1..=300_u32 {
            let due = persist.deadline().unwrap();
            assert_eq!(persist.on_timer(RTO, due), Some(Probe::ZeroWindow));
            assert_eq!(u32::from(persist.unanswered()), expected.min(255));
        }
    }

    /// A window that opened and closed again starts over.
    #[test]
    fn a_window_that_opens_ends_the_probing() {
        let mut persist = Persist::new();
        persist.on_zero_window(RTO, at(0));
        persist.on_timer(RTO, at(300));
        assert!(persist.is_probing());
        persist.stop();
        assert_eq!(persist.deadline(), None);
        assert_eq!(persist.on_timer(RTO, at(100_000)), None);
        persist.on_zero_window(RTO, at(1000));
        assert_eq!(persist.deadline(), Some(at(1300)));
    }

    /// RFC 9293 §3.8.6.2.1 (4): the override timeout is between 0.1 and 1 s, and a window that
    /// closes meanwhile is probed instead.
    #[test]
    fn a_silly_window_is_overridden_once() {
        let mut persist = Persist::new();
        persist.on_silly_window(at(0));
        let due = persist.deadline().unwrap();
        assert!(due >= at(100) && due <= at(1000));
        persist.on_silly_window(at(50));
        assert_eq!(persist.deadline(), Some(due), "it does not start over");
        assert_eq!(persist.on_timer(RTO, due), Some(Probe::Override));
        assert_eq!(persist.deadline(), None);
        persist.on_silly_window(at(500));
        persist.on_zero_window(RTO, at(600));
        assert_eq!(persist.deadline(), Some(at(900)));
        assert_eq!(persist.on_timer(RTO, at(900)), Some(Probe::ZeroWindow));
    }
}
