//! Limits on how often something happens: token buckets, alone and in a table.

use crate::hash::HashKey;
use crate::ip::address::{Ip, IpAddress};
use crate::time::Instant;
use alloc::vec;
use alloc::vec::Vec;

/// A token is a thousand million parts; a bucket of rate r gains r parts a nanosecond. So rates
/// are exact in integers, and no rounding adds up.
const TOKEN: i64 = 1_000_000_000;

/// A token bucket (RFC 4443 §2.4 (f)): `rate_per_s` on average, `burst` at once.
///
/// ```text
///            rate_per_s
///               │
///           │   ▼   │ ─┐
///           │       │  │ burst
///           │▒▒▒▒▒▒▒│  │
///           │▒▒▒▒▒▒▒│ ─┘
///           └───┬───┘
///               ▼  one token for each event that is allowed
/// ```
#[derive(Clone, Debug)]
pub struct TokenBucket {
    /// In parts of a token: at most `burst` tokens, and below zero by what was taken in advance.
    level: i64,
    /// When the level was right.
    at: Instant,
    rate_per_s: u32,
    burst: u32,
}

impl TokenBucket {
    /// A full bucket. A rate of 0 never refills it; a burst of 0 allows nothing.
    #[must_use]
    pub const fn new(rate_per_s: u32, burst: u32) -> Self {
        Self {
            level: burst as i64 * TOKEN,
            at: Instant::ZERO,
            rate_per_s,
            burst,
        }
    }

    /// Whether one more event is allowed, which is then taken into account. Time that runs
    /// backwards counts as standing still.
    pub fn allow(&mut self, now: Instant) -> bool {
        let allowed = self.has_token(now);
        if allowed {
            self.take(1);
        }
        allowed
    }

    /// Whether [`allow`](Self::allow) would allow an event.
    pub fn has_token(&mut self, now: Instant) -> bool {
        let elapsed_ns = now.as_nanos().saturating_sub(self.at.as_nanos());
        if elapsed_ns > 0 {
            let gained = elapsed_ns.saturating_mul(self.rate_per_s.into());
            let gained = i64::try_from(gained).unwrap_or(i64::MAX);
            let full = i64::from(self.burst) * TOKEN;
            self.level = self.level.saturating_add(gained).min(full);
            self.at = now;
        }
        self.level >= TOKEN
    }

    /// Takes tokens, in advance if there are too few.
    fn take(&mut self, tokens: u32) {
        self.level = self.level.saturating_sub(i64::from(tokens) * TOKEN);
    }
}

/// What an [`IcmpErrorLimiter`] allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpErrorLimits {
    /// All messages together, per second.
    pub rate_per_s: u32,
    /// All messages together, at once.
    pub burst: u32,
    /// Messages to one prefix (24 bits of IPv4, 64 bits of IPv6), per second.
    pub prefix_rate_per_s: u32,
    /// Messages to one prefix, at once.
    pub prefix_burst: u32,
}

impl Default for IcmpErrorLimits {
    /// As Linux does it: `icmp_msgs_per_sec` 1000 and `icmp_msgs_burst` 50 for all; for each peer 1
    /// a second (`icmp_ratelimit`) and 6 at once (`XRLIM_BURST_FACTOR`), made 10 for a prefix,
    /// which is also what RFC 4443 §2.4 (f) proposes. Lower starves traceroute and path MTU
    /// discovery; higher makes us a better reflector.
    fn default() -> Self {
        Self {
            rate_per_s: 1000,
            burst: 50,
            prefix_rate_per_s: 10,
            prefix_burst: 10,
        }
    }
}

/// Limits the ICMP errors we send (RFC 4443 §2.4 (f), RFC 1812 §4.3.2.8): all together, and to each
/// prefix.
///
/// Prefixes share a fixed number of buckets by keyed hash. Two that share one limit each other; who
/// shares with whom only the secret knows. None is ever forgotten, so no flood of other
/// destinations gives a victim's prefix a fresh bucket.
#[derive(Clone, Debug)]
pub struct IcmpErrorLimiter {
    all: TokenBucket,
    /// A power of two of them.
    prefixes: Vec<TokenBucket>,
    key: HashKey,
    /// Counts grants, to make each one's cost unpredictable.
    granted: u64,
}

impl IcmpErrorLimiter {
    /// With about `prefixes` buckets of 24 bytes (rounded up to a power of two, at most 65536).
    #[must_use]
    pub fn new(limits: IcmpErrorLimits, prefixes: usize, key: HashKey) -> Self {
        let IcmpErrorLimits {
            rate_per_s,
            burst,
            prefix_rate_per_s,
            prefix_burst,
        } = limits;
        let prefixes = prefixes.clamp(1, 1 << 16).next_power_of_two();
        Self {
            all: TokenBucket::new(rate_per_s, burst),
            prefixes: vec![TokenBucket::new(prefix_rate_per_s, prefix_burst); prefixes],
            key,
            granted: 0,
        }
    }

    /// Whether an ICMP error may be sent to `destination` now, which is then taken into account.
    /// What is refused costs nothing.
    pub fn allow<I: Ip>(&mut self, destination: I::Addr, now: Instant) -> bool {
        let prefix_len = match I::VERSION {
            4 => 24,
            _ => 64,
        };
        let hash = destination.masked(prefix_len).keyed_hash(&self.key);
        let mask = self.prefixes.len() - 1;
        let bucket = &mut self.prefixes[usize::try_from(hash).unwrap_or(0) & mask];
        // Nothing is taken unless both allow it: what a prefix refuses must not show in the limit
        // for all, where others could observe it.
        if !bucket.has_token(now) || !self.all.has_token(now) {
            return false;
        }
        bucket.take(1);
        // CVE-2020-25705: when every grant costs one, whoever counts our answers learns which of
        // their spoofed probes met an open port. Linux's remedy (`icmp_global_allow`): a cost of
        // 0, 1 or 2 at random, 1 on average. (Linux forgives the second token to an empty bucket,
        // and so allows half as much again; here it is taken in advance.)
        let random = self.key.hash_bytes(&self.granted.to_le_bytes());
        self.all.take(u32::try_from(random % 3).unwrap_or(1));
        self.granted = self.granted.wrapping_add(1);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ip::address::{Ipv4, Ipv6};
    use crate::time::Duration;
    use core::net::{Ipv4Addr, Ipv6Addr};
    use proptest::prelude::*;

    const KEY: [u64; 2] = [1, 2];
    const SECOND: u64 = 1_000_000_000;

    fn at(ns: u64) -> Instant {
        Instant::from_nanos(ns)
    }

    #[test]
    fn burst_then_rate() {
        let mut bucket = TokenBucket::new(10, 3);
        let now = at(5);
        assert_eq!(
            [(); 5].map(|()| bucket.allow(now)),
            [true, true, true, false, false]
        );
        // One token every 100 ms, not a nanosecond earlier.
        assert!(!bucket.allow(at(5 + 99_999_999)));
        assert!(bucket.allow(at(5 + 100_000_000)));
        assert!(!bucket.allow(at(5 + 100_000_000)));
        // A long pause fills the bucket, and no more than that.
        let later = now + Duration::from_secs(3600);
        assert_eq!(
            [(); 4].map(|()| bucket.allow(later)),
            [true, true, true, false]
        );
    }

    #[test]
    fn extremes() {
        assert!(!TokenBucket::new(u32::MAX, 0).allow(at(u64::MAX)));
        let mut once = TokenBucket::new(0, 1);
        assert!(once.allow(at(0)));
        assert!(!once.allow(at(u64::MAX)));
        let mut fastest = TokenBucket::new(u32::MAX, u32::MAX);
        assert!(fastest.allow(at(u64::MAX)));
        assert!(fastest.allow(at(0)));
    }

    #[test]
    fn time_that_runs_backwards_gives_nothing() {
        let mut bucket = TokenBucket::new(1, 1);
        assert!(bucket.allow(at(10 * SECOND)));
        assert!(!bucket.allow(at(0)));
        assert!(!bucket.allow(at(10 * SECOND + SECOND / 2)));
        assert!(bucket.allow(at(11 * SECOND)));
    }

    proptest! {
        /// However often it is asked, it allows exactly what rate and burst give: no drift.
        #[test]
        fn allows_exactly_the_rate(
            rate in 1u32..1_000_000, burst in 1u32..100,
            steps in prop::collection::vec(1u64..10_000_000, 1..300),
        ) {
            let mut bucket = TokenBucket::new(rate, burst);
            let start = SECOND;
            while bucket.allow(at(start)) {}
            let (mut now, mut allowed, mut lost) = (start, 0u128, false);
            for step in steps {
                // Asked before it can overflow, it must give every token of the elapsed time. What was
                // left behind is less than one.
                lost |= u64::from(rate) * step + SECOND > u64::from(burst) * SECOND;
                now += step;
                while bucket.allow(at(now)) {
                    allowed += 1;
                }
                let gained = u128::from(now - start) * u128::from(rate) / u128::from(SECOND);
                prop_assert!(allowed <= gained);
                if !lost {
                    prop_assert_eq!(allowed, gained);
                }
            }
        }
    }

    #[test]
    fn one_prefix_does_not_starve_another() {
        let limits = IcmpErrorLimits {
            prefix_burst: 4,
            ..IcmpErrorLimits::default()
        };
        let mut limiter = IcmpErrorLimiter::new(limits, 256, HashKey::new(KEY));
        let flooded =
            (0..=255).filter(|&host| limiter.allow::<Ipv4>(Ipv4Addr::new(192, 0, 2, host), at(1)));
        assert_eq!(flooded.count(), 4);
        assert!(limiter.allow::<Ipv4>(Ipv4Addr::new(198, 51, 100, 1), at(1)));
        let v6 = |host: u128| Ipv6Addr::from_bits(0x2001_0db8 << 96 | host);
        let flooded = (0..256).filter(|&host| limiter.allow::<Ipv6>(v6(host << 32), at(1)));
        assert_eq!(flooded.count(), 4);
        assert!(limiter.allow::<Ipv6>(v6(1 << 64), at(1)));
    }

    #[test]
    fn all_together_stay_within_the_burst_and_cost_varies() {
        let limits = IcmpErrorLimits::default();
        let mut limiter = IcmpErrorLimiter::new(limits, 1 << 12, HashKey::new(KEY));
        let sent = (0..4096u32).filter(|&net| {
            limiter.allow::<Ipv4>(Ipv4Addr::from_bits(0x0a00_0000 | net << 8), at(1))
        });
        // A cost of 0, 1 or 2 each: near the burst of 50, and hardly ever exactly there.
        let sent = sent.count();
        assert!((26..100).contains(&sent), "{sent}");
        let costs = (0..300u64).map(|n: u64| HashKey::new(KEY).hash_bytes(&n.to_le_bytes()) % 3);
        let total: u64 = costs.sum();
        assert!((250..350).contains(&total), "{total}");
    }

    #[test]
    fn the_limit_for_all_holds_over_time() {
        let mut limiter =
            IcmpErrorLimiter::new(IcmpErrorLimits::default(), 1 << 12, HashKey::new(KEY));
        let mut sent = 0u32;
        for ms in 0..10_000u32 {
            for net in 0..4u32 {
                let destination = Ipv4Addr::from_bits((ms * 4 + net) << 8);
                let now = at(u64::from(ms) * 1_000_000);
                sent += u32::from(limiter.allow::<Ipv4>(destination, now));
            }
        }
        // 1000 a second for ten seconds, the costs 1 on average.
        assert!((9_700..10_300).contains(&sent), "{sent}");
    }
}
