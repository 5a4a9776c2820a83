//! When the requests of an open loop are due.
//!
//! The schedule is fixed before the run: a request's intended time depends on the rate, the seed and
//! its index, never on when the one before it could really be sent. Latency counted from it includes
//! the time a request waited because an earlier one was slow, which is what coordinated omission hides.

use std::fmt;
use std::str::FromStr;

use super::load::Window;
use crate::clock::SECOND_NS;

/// Requests per second, to a thousandth: from 0.001 to 1,000,000,000 (one per nanosecond).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate {
    per_second_milli: u64,
}

impl Rate {
    /// The rate in requests per second.
    #[must_use]
    pub fn per_second(self) -> f64 {
        self.per_second_milli as f64 / 1000.0
    }
}

impl Rate {
    /// Of that many requests a second.
    ///
    /// # Errors
    /// A sentence, outside the range.
    pub fn of(per_second: f64) -> Result<Self, String> {
        if (0.001..=1e9).contains(&per_second) {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            // Between 1 and 10¹² by the check above.
            let per_second_milli = (per_second * 1000.0).round() as u64;
            Ok(Self { per_second_milli })
        } else {
            Err("a rate is 0.001 to 1000000000 requests per second".into())
        }
    }
}

impl FromStr for Rate {
    type Err = String;

    /// Reads `250`, `0.5`, `100k`, `1.5M`, as iperf3 and wrk2 do.
    fn from_str(text: &str) -> Result<Self, String> {
        let (number, factor) = match text.as_bytes().last() {
            Some(b'k' | b'K') => (&text[..text.len() - 1], 1e3),
            Some(b'm' | b'M') => (&text[..text.len() - 1], 1e6),
            _ => (text, 1.0),
        };
        let per_second = match number.parse::<f64>() {
            Ok(number) if number.is_finite() => number * factor,
            _ => return Err("expected requests per second, like 500, 20k or 1.5M".into()),
        };
        Self::of(per_second)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.per_second())
    }
}

/// How requests are spread over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Arrivals {
    /// Evenly spaced.
    #[default]
    Constant,
    /// Independent of one another: exponential gaps, as from many unrelated clients.
    Poisson,
}

/// The intended times of one thread's requests, in order.
#[derive(Clone, Debug)]
pub struct Schedule {
    next_ns: u64,
    gaps: Gaps,
}

#[derive(Clone, Debug)]
enum Gaps {
    /// Every gap is `whole_ns` + `part / parts` nanoseconds; `carried` adds the parts up, so that
    /// the millionth request is not a million roundings late.
    Constant {
        whole_ns: u64,
        part: u64,
        parts: u64,
        carried: u64,
    },
    Poisson {
        mean_ns: f64,
        random: fastrand::Rng,
    },
}

impl Schedule {
    /// The share of thread `thread` of `threads` in `rate` requests per second from `start_ns` on.
    ///
    /// Constant arrivals are dealt out in turn, so that all threads together are evenly spaced; of
    /// Poisson arrivals each thread gets its own process of `rate / threads`, and their sum is one
    /// of `rate`.
    ///
    /// # Panics
    /// When `thread` is not below `threads`.
    #[must_use]
    pub fn new(
        arrivals: Arrivals,
        rate: Rate,
        start_ns: u64,
        thread: u32,
        threads: u32,
        seed: u64,
    ) -> Self {
        assert!(thread < threads, "thread {thread} of {threads}");
        // Between two requests of the whole run lie unit / parts nanoseconds.
        let unit = SECOND_NS * 1000;
        let parts = rate.per_second_milli;
        match arrivals {
            Arrivals::Constant => {
                let gap = unit.saturating_mul(threads.into());
                // Thread t's first request is the t-th of the whole run.
                let offset = unit.saturating_mul(thread.into());
                Self {
                    next_ns: start_ns.saturating_add(offset / parts),
                    gaps: Gaps::Constant {
                        whole_ns: gap / parts,
                        part: gap % parts,
                        parts,
                        carried: offset % parts,
                    },
                }
            }
            Arrivals::Poisson => {
                // Threads must not repeat one another's gaps: each draws from its own stream.
                let random = fastrand::Rng::with_seed(seed ^ u64::from(thread).rotate_right(16));
                let mean_ns = unit as f64 * f64::from(threads) / parts as f64;
                let mut schedule = Self {
                    next_ns: start_ns,
                    gaps: Gaps::Poisson { mean_ns, random },
                };
                schedule.advance();
                schedule
            }
        }
    }

    /// The intended time of the next request, in nanoseconds on the clock of `start_ns`.
    #[must_use]
    pub fn next_ns(&self) -> u64 {
        self.next_ns
    }

    /// Moves past everything due before `stop_ns` and calls `missed` with the intended time of each
    /// that `window` measures: what was due and is not sent any more.
    pub fn abandon(&mut self, window: &Window, mut missed: impl FnMut(u64)) {
        while self.next_ns < window.stop_ns {
            if window.measures(self.next_ns) {
                missed(self.next_ns);
            }
            self.advance();
        }
    }

    /// Moves on to the request after that.
    pub fn advance(&mut self) {
        let gap_ns = match &mut self.gaps {
            Gaps::Constant {
                whole_ns,
                part,
                parts,
                carried,
            } => {
                *carried += *part;
                if *carried >= *parts {
                    *carried -= *parts;
                    *whole_ns + 1
                } else {
                    *whole_ns
                }
            }
            Gaps::Poisson { mean_ns, random } => {
                // Inverse of the exponential distribution; 1 − u is in (0, 1], so its logarithm is
                // finite.
                let gap = -(1.0 - random.f64()).ln() * *mean_ns;
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                // Not negative, and `as` saturates at the top.
                let gap = gap.round() as u64;
                gap
            }
        };
        self.next_ns = self.next_ns.saturating_add(gap_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn times(mut schedule: Schedule, count: usize) -> Vec<u64> {
        (0..count)
            .map(|_| {
                let at = schedule.next_ns();
                schedule.advance();
                at
            })
            .collect()
    }

    fn constant(rate: &str, thread: u32, threads: u32) -> Schedule {
        Schedule::new(
            Arrivals::Constant,
            rate.parse().unwrap(),
            1000,
            thread,
            threads,
            1,
        )
    }

    #[test]
    fn rates() {
        let parse = |text: &str| text.parse::<Rate>().map(Rate::per_second);
        assert_eq!(parse("250"), Ok(250.0));
        assert_eq!(parse("0.5"), Ok(0.5));
        assert_eq!(parse("100k"), Ok(100_000.0));
        assert_eq!(parse("1.5M"), Ok(1_500_000.0));
        for bad in [
            "", "k", "0", "-1", "1e10", "nan", "inf", "0.0001", "10G", "1 k", "max",
        ] {
            assert!(parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn constant_gaps_do_not_drift() {
        // A third of a second is not a whole number of nanoseconds, yet every third is exact.
        let times = times(constant("3", 0, 1), 3001);
        assert_eq!(times[..4], [1000, 333_334_333, 666_667_666, 1_000_001_000]);
        assert_eq!(times[3000], 1000 + 1000 * SECOND_NS);
    }

    #[test]
    fn threads_take_turns() {
        let whole = times(constant("700k", 0, 1), 300);
        let mut shares: Vec<u64> = (0..3)
            .flat_map(|thread| times(constant("700k", thread, 3), 100))
            .collect();
        shares.sort_unstable();
        assert_eq!(shares, whole);
    }

    #[test]
    fn poisson_gaps_have_the_mean_and_spread_of_an_exponential() {
        let rate: Rate = "10k".parse().unwrap();
        let times = times(Schedule::new(Arrivals::Poisson, rate, 0, 0, 1, 42), 100_001);
        let gaps: Vec<f64> = times
            .windows(2)
            .map(|pair| (pair[1] - pair[0]) as f64)
            .collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // Of an exponential distribution mean and standard deviation are equal. The seed is fixed:
        // this either always passes or never.
        assert!((mean / 100_000.0 - 1.0).abs() < 0.02, "mean {mean}");
        assert!(
            (variance.sqrt() / mean - 1.0).abs() < 0.02,
            "deviation {}",
            variance.sqrt()
        );
    }

    #[test]
    fn a_seed_repeats_and_threads_differ() {
        let schedule = |thread, seed| {
            let rate = "1k".parse().unwrap();
            times(
                Schedule::new(Arrivals::Poisson, rate, 0, thread, 2, seed),
                10,
            )
        };
        assert_eq!(schedule(0, 5), schedule(0, 5));
        assert_ne!(schedule(0, 5), schedule(0, 6));
        assert_ne!(schedule(0, 5), schedule(1, 5));
    }

    proptest! {
        #[test]
        fn the_nth_constant_request_is_where_division_puts_it(
            milli in 1..1_000_000_000_000_u64, count in 1..200_usize,
        ) {
            let rate = Rate { per_second_milli: milli };
            let times = times(Schedule::new(Arrivals::Constant, rate, 0, 0, 1, 0), count);
            for (index, at) in times.into_iter().enumerate() {
                let exact = index as u128 * 1_000_000_000_000 / u128::from(milli);
                prop_assert_eq!(u128::from(at), exact);
            }
        }
    }
}
