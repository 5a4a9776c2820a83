//! How many challenge ACKs may leave (RFC 5961 §7): a few a second for each connection, and not many
//! more for all together, or a flood of forged segments would have us send a flood of answers.
//!
//! The common limit must not be a number that an attacker can count against (CVE-2016-5696: exhaust
//! it, then see whether a guess used one up), so it is drawn anew for each second.

use crate::hash::HashKey;
use crate::time::Instant;

/// The common limit.
#[derive(Clone, Debug)]
pub struct ChallengeLimiter {
    key: HashKey,
    per_second: u32,
    second: u64,
    left: u32,
}

/// When a connection last sent a challenge ACK: in units of 1/64 s, so that a wrap takes 2 years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LastChallenge(u32);

/// Linux' `tcp_invalid_ratelimit`: two a second for one connection. Two ends that each take the other's
/// ACKs for invalid would else answer each other for ever.
const PER_CONNECTION_UNITS: u32 = 32;

impl ChallengeLimiter {
    /// At most about `per_second` a second; 0 means none.
    #[must_use]
    pub fn new(per_second: u32, key: HashKey) -> Self {
        Self {
            key,
            per_second,
            second: 0,
            left: 0,
        }
    }

    /// Whether one may leave now, and if so, one is taken.
    pub fn allow(&mut self, last: &mut LastChallenge, now: Instant) -> bool {
        let nanos = now.as_nanos();
        if !last.may(now) {
            return false;
        }
        let second = nanos / 1_000_000_000 + 1;
        if second != self.second {
            self.second = second;
            // Half of the limit is sure, the other half is drawn.
            let half = u64::from(self.per_second / 2);
            let drawn = self.key.hash_bytes(&second.to_le_bytes())
                % (u64::from(self.per_second) - half + 1);
            self.left = u32::try_from(half + drawn).unwrap_or(u32::MAX);
        }
        let Some(left) = self.left.checked_sub(1) else {
            return false;
        };
        self.left = left;
        last.0 = LastChallenge::unit(now);
        true
    }
}

impl LastChallenge {
    /// Whether this connection may send an answer now, whatever others do; if so, it has.
    pub fn allow(&mut self, now: Instant) -> bool {
        let may = self.may(now);
        if may {
            self.0 = Self::unit(now);
        }
        may
    }

    fn may(self, now: Instant) -> bool {
        self.0 == 0 || Self::unit(now).wrapping_sub(self.0) >= PER_CONNECTION_UNITS
    }

    #[expect(clippy::cast_possible_truncation, reason = "it wraps, as said")]
    fn unit(now: Instant) -> u32 {
        ((now.as_nanos() / 15_625_000) as u32).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;
    use alloc::vec::Vec;

    #[test]
    fn one_connection_sends_two_a_second() {
        let mut limiter = ChallengeLimiter::new(1000, HashKey::new([1, 2]));
        let mut last = LastChallenge::default();
        let sent = (0..10_000)
            .filter(|step| {
                let now = Instant::from_nanos(5_000_000_000) + Duration::from_millis(*step);
                limiter.allow(&mut last, now)
            })
            .count();
        assert_eq!(sent, 20);
    }

    #[test]
    fn who_exhausts_the_common_limit_does_not_silence_others() {
        let mut limiter = ChallengeLimiter::new(10, HashKey::new([1, 2]));
        let now = Instant::from_nanos(5_000_000_000);
        while limiter.allow(&mut LastChallenge::default(), now) {}
        let mut last = LastChallenge::default();
        assert!(last.allow(now), "an answer");
        assert!(!last.allow(now + Duration::from_millis(499)));
        assert!(last.allow(now + Duration::from_millis(501)));
    }

    #[test]
    fn all_together_send_an_unknown_number_below_the_limit() {
        let mut limiter = ChallengeLimiter::new(1000, HashKey::new([1, 2]));
        let counts: Vec<usize> = (0..20)
            .map(|second| {
                let now = Instant::from_nanos(second * 1_000_000_000);
                let allowed = |_: &i32| limiter.allow(&mut LastChallenge::default(), now);
                (0..5000).filter(allowed).count()
            })
            .collect();
        assert!(counts.iter().all(|count| (500..=1000).contains(count)));
        assert!(counts.iter().any(|count| *count != counts[0]), "{counts:?}");
    }

    #[test]
    fn a_limit_of_zero_is_none() {
        let mut limiter = ChallengeLimiter::new(0, HashKey::new([1, 2]));
        assert!(!limiter.allow(&mut LastChallenge::default(), Instant::ZERO));
    }
}
