//! What a worker does when there is nothing to do. Always bounded: even asleep, it looks at its
//! timers and its commands every so often.

use std::time::Duration;

/// The idle policy of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Look again at once: lowest latency, one core at 100 %.
    Spin,
    /// Look again at once for `spin`, then sleep in `poll` for at most `sleep`.
    Adaptive {
        /// How long to spin.
        spin: Duration,
        /// How long to sleep, at most.
        sleep: Duration,
    },
}

impl Idle {
    /// How long to sleep after `idle_ns` without anything to do; `None` means look again.
    #[inline]
    #[must_use]
    pub fn sleep(self, idle_ns: u64) -> Option<Duration> {
        match self {
            Self::Spin => None,
            Self::Adaptive { spin, sleep } => {
                (u128::from(idle_ns) >= spin.as_nanos()).then_some(sleep)
            }
        }
    }
}

impl From<&config::Workers> for Idle {
    fn from(workers: &config::Workers) -> Self {
        match workers.idle {
            config::IdlePolicy::Spin => Self::Spin,
            config::IdlePolicy::Adaptive => Self::Adaptive {
                spin: Duration::from_micros(workers.spin_us.into()),
                sleep: Duration::from_millis(workers.sleep_ms.into()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adaptive_spins_first_and_sleeps_for_a_bounded_time() {
        let idle = Idle::Adaptive {
            spin: Duration::from_micros(50),
            sleep: Duration::from_millis(10),
        };
        assert_eq!(idle.sleep(49_999), None);
        assert_eq!(idle.sleep(50_000), Some(Duration::from_millis(10)));
        assert_eq!(Idle::Spin.sleep(u64::MAX), None);
    }
}
