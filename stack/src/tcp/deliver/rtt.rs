//! The round-trip time and the retransmission timeout (RFC 6298).
//!
//! ```text
//!   first sample R:   SRTT = R, RTTVAR = R/2
//!   each later R:     RTTVAR = 3/4 RTTVAR + 1/4 |SRTT − R|      SRTT = 7/8 SRTT + 1/8 R
//!   RTO = max(floor, SRTT + max(G, 4 RTTVAR)), doubled for each time it expired, at most 60 s
//! ```
//!
//! SRTT is kept in eighths and RTTVAR in fourths of a microsecond, so that the means are taken by
//! shifts and lose nothing (RFC 6298 §2 with α = 1/8, β = 1/4).

use crate::time::{Duration, Instant};

/// Before anything was measured (RFC 6298 §2.1).
const RTO_INITIAL_US: u32 = 1_000_000;

/// Before anything was measured, when the SYN had to be retransmitted (RFC 6298 §5.7).
const RTO_AFTER_LOST_SYN_US: u32 = 3_000_000;

/// The longest timeout. RFC 6298 §2.5 allows a limit of 60 s or more; with the least of these a
/// connection whose path comes back finds out within a minute.
pub const RTO_MAX_US: u32 = 60_000_000;

/// The least RTO unless configured otherwise, in milliseconds. RFC 6298 §2.4 asks for a second;
/// Linux has used 200 ms for decades (`TCP_RTO_MIN`), which is above the delayed ACKs of all common
/// peers, and below what users take for a hang.
pub const RTO_MIN_DEFAULT_MS: u16 = 200;

/// G of RFC 6298, the clock's granularity: a bit more than the timer wheel's tick of 65.5 µs. Keeps
/// the RTO above SRTT where round trips do not vary.
const GRANULARITY_US: u32 = 100;

/// Round trips longer than this count as this long: more than any path has, and what keeps the
/// sums in 32 bits.
const SAMPLE_MAX_US: u32 = RTO_MAX_US;

/// How long the least round-trip time counts: a path may have become longer. Linux' window
/// (`net.ipv4.tcp_min_rtt_wlen`) is 300 s as well.
const MIN_WINDOW: u16 = 279;

/// The unit of [`MIN_WINDOW`]: 2³⁰ ns, so that time is converted by a shift.
const MIN_WINDOW_SHIFT: u32 = 30;

/// Never reached: 2¹⁶ doublings of any RTO are above the maximum long before.
const BACKOFF_MAX: u8 = 16;

/// Smoothed round-trip time, its variation, and the timeout made of them.
#[derive(Clone, Copy, Debug)]
pub struct Rtt {
    /// Eighths of a microsecond; 0 before the first sample.
    srtt_8: u32,
    /// Fourths of a microsecond.
    rttvar_4: u32,
    /// Microseconds, without back-off.
    rto_us: u32,
    min_us: u32,
    /// When `min_us` was measured, in units of 2³⁰ ns.
    min_at: u16,
    floor_us: u32,
    backoff: u8,
}

impl Rtt {
    /// `rto_min_ms`: the least RTO (1 ms if it is 0). `syn_retransmitted`: it took more than one
    /// SYN, or SYN-ACK, to get here.
    #[must_use]
    pub fn new(rto_min_ms: u16, syn_retransmitted: bool) -> Self {
        Self {
            srtt_8: 0,
            rttvar_4: 0,
            // RFC 6298 §5.7: at least 3 s if the handshake's timer expired before.
            rto_us: if syn_retransmitted {
                RTO_AFTER_LOST_SYN_US
            } else {
                RTO_INITIAL_US
            },
            min_us: u32::MAX,
            min_at: 0,
            floor_us: u32::from(rto_min_ms.max(1)) * 1000,
            backoff: 0,
        }
    }

    /// A round trip was measured, which took `sample_us`.
    #[inline(always)]
    pub fn sample(&mut self, sample_us: u32) {
        let sample = sample_us.clamp(1, SAMPLE_MAX_US);
        if self.srtt_8 == 0 {
            // RFC 6298 §2.2.
            self.srtt_8 = sample << 3;
            self.rttvar_4 = sample << 1;
        } else {
            // RFC 6298 §2.3: RTTVAR first, with the old SRTT.
            let error = sample.abs_diff(self.srtt_8 >> 3);
            self.rttvar_4 = self.rttvar_4 - (self.rttvar_4 >> 2) + error;
            self.srtt_8 = (self.srtt_8 - (self.srtt_8 >> 3) + sample).max(1);
        }
        // RFC 6298 §2.3, §2.4, §2.5. Four times RTTVAR is what is stored.
        let rto = (self.srtt_8 >> 3) + self.rttvar_4.max(GRANULARITY_US);
        self.rto_us = rto.max(self.floor_us).min(RTO_MAX_US);
        // RFC 6298 §5 with Karn's algorithm: a valid sample ends the back-off.
        self.backoff = 0;
    }

    /// Keeps the least round-trip time (RFC 8985 §6.2 step 1).
    #[inline]
    pub fn sample_min(&mut self, sample_us: u32, now: Instant) {
        let at = epoch(now);
        if sample_us <= self.min_us || at.wrapping_sub(self.min_at) > MIN_WINDOW {
            self.min_us = sample_us;
            self.min_at = at;
        }
    }

    /// The retransmission timer expired (RFC 6298 §5.5).
    pub fn back_off(&mut self) {
        self.backoff = (self.backoff + 1).min(BACKOFF_MAX);
    }

    /// The retransmissions that backed the timer off were spurious.
    pub fn reset_backoff(&mut self) {
        self.backoff = 0;
    }

    /// The retransmission timeout as it is now, backed off. At most [`RTO_MAX_US`].
    #[inline]
    #[must_use]
    pub fn rto_us(&self) -> u32 {
        if self.backoff == 0 {
            return self.rto_us;
        }
        let rto = u64::from(self.rto_us) << self.backoff;
        u32::try_from(rto).unwrap_or(RTO_MAX_US).min(RTO_MAX_US)
    }

    /// [`rto_us`](Self::rto_us) as a duration.
    #[inline]
    #[must_use]
    pub fn rto(&self) -> Duration {
        Duration::from_micros(u64::from(self.rto_us()))
    }

    /// Smoothed round-trip time in microseconds; 0 before the first sample.
    #[inline]
    #[must_use]
    pub fn srtt_us(&self) -> u32 {
        self.srtt_8 >> 3
    }

    /// Variation of the round-trip time in microseconds.
    #[inline]
    #[must_use]
    pub fn rttvar_us(&self) -> u32 {
        self.rttvar_4 >> 2
    }

    /// The least round-trip time of the last five minutes in microseconds; `u32::MAX` before the
    /// first sample.
    #[inline]
    #[must_use]
    pub fn min_us(&self) -> u32 {
        self.min_us
    }

    /// Whether anything was measured.
    #[inline]
    #[must_use]
    pub fn is_measured(&self) -> bool {
        self.srtt_8 != 0
    }
}

#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "wraps around after 19 hours; only differences of minutes are taken"
)]
fn epoch(now: Instant) -> u16 {
    (now.as_nanos() >> MIN_WINDOW_SHIFT) as u16
}

/// `us` microseconds after `at`.
#[inline]
pub(super) fn later(at: Instant, us: u32) -> Instant {
    Instant::from_nanos(at.as_nanos().saturating_add(u64::from(us) * 1000))
}

/// `us` microseconds before `at`.
#[inline]
pub(super) fn earlier(at: Instant, us: u32) -> Instant {
    Instant::from_nanos(at.as_nanos().saturating_sub(u64::from(us) * 1000))
}

/// Microseconds from `earlier` to `now`; at most about 71 minutes.
#[inline]
pub(super) fn us_between(earlier: Instant, now: Instant) -> u32 {
    let us = now.as_nanos().saturating_sub(earlier.as_nanos()) / 1000;
    u32::try_from(us).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn initial_timeouts_are_those_of_rfc_6298() {
        assert_eq!(Rtt::new(200, false).rto_us(), 1_000_000);
        assert_eq!(Rtt::new(200, true).rto_us(), 3_000_000);
        assert!(!Rtt::new(200, false).is_measured());
    }

    #[test]
    fn the_first_sample_sets_everything() {
        let mut rtt = Rtt::new(1, false);
        rtt.sample(100_000);
        assert_eq!((rtt.srtt_us(), rtt.rttvar_us()), (100_000, 50_000));
        assert_eq!(rtt.rto_us(), 300_000);
        rtt.sample(108_000);
        assert_eq!((rtt.srtt_us(), rtt.rttvar_us()), (101_000, 39_500));
        assert_eq!(rtt.rto_us(), 101_000 + 4 * 39_500);
    }

    #[test]
    fn the_floor_is_configured_down_to_a_millisecond() {
        for (floor_ms, rto_us) in [(200, 200_000), (1, 1000), (0, 1000)] {
            let mut rtt = Rtt::new(floor_ms, false);
            (0..200).for_each(|_| rtt.sample(50));
            assert_eq!(rtt.rto_us(), rto_us);
        }
    }

    #[test]
    fn backing_off_doubles_to_a_minute_and_a_sample_ends_it() {
        let mut rtt = Rtt::new(200, false);
        rtt.sample(10);
        for expected in [400_000, 800_000, 1_600_000] {
            rtt.back_off();
            assert_eq!(rtt.rto_us(), expected);
        }
        (0..300).for_each(|_| rtt.back_off());
        assert_eq!(rtt.rto_us(), RTO_MAX_US);
        rtt.sample(10);
        assert_eq!(rtt.rto_us(), 200_000);
    }

    #[test]
    fn the_least_round_trip_is_forgotten_after_five_minutes() {
        let at = |seconds: u64| Instant::from_nanos(seconds * 1_000_000_000);
        let mut rtt = Rtt::new(200, false);
        rtt.sample_min(50, at(0));
        rtt.sample_min(70, at(100));
        assert_eq!(rtt.min_us(), 50);
        rtt.sample_min(70, at(302));
        assert_eq!(rtt.min_us(), 70);
        rtt.sample_min(60, at(303));
        assert_eq!(rtt.min_us(), 60);
    }

    proptest! {
        /// The formulas of RFC 6298 in real numbers.
        #[test]
        fn shifts_agree_with_the_formulas(samples in prop::collection::vec(1u32..5_000_000, 1..100)) {
            let mut rtt = Rtt::new(1, false);
            let (mut srtt, mut rttvar) = (0.0_f64, 0.0_f64);
            for (index, &sample) in samples.iter().enumerate() {
                rtt.sample(sample);
                let sample = f64::from(sample);
                if index == 0 {
                    (srtt, rttvar) = (sample, sample / 2.0);
                } else {
                    rttvar = 0.75 * rttvar + 0.25 * (srtt - sample).abs();
                    srtt = 0.875 * srtt + 0.125 * sample;
                }
                prop_assert!((f64::from(rtt.srtt_us()) - srtt).abs() < 4.0);
                prop_assert!((f64::from(rtt.rttvar_us()) - rttvar).abs() < 8.0);
                prop_assert!(rtt.rto_us() >= rtt.srtt_us().max(1000) && rtt.rto_us() <= RTO_MAX_US);
            }
        }
    }
}
