//! The one clock every measurement here uses.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds in a second.
pub const SECOND_NS: u64 = 1_000_000_000;

/// `CLOCK_MONOTONIC` in nanoseconds. It starts at boot and never steps back, and reading it does
/// not enter the kernel where the time source is the TSC (about 20 ns).
#[must_use]
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // Both fields are non-negative: the clock counts up from boot (clock_gettime(2)).
    now.tv_sec.unsigned_abs() * SECOND_NS + now.tv_nsec.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_real_time() {
        let before = now_ns();
        std::thread::sleep(std::time::Duration::from_millis(2));
        let passed = now_ns() - before;
        assert!(
            passed >= 2_000_000,
            "slept 2 ms, the clock says {passed} ns"
        );
    }
}
