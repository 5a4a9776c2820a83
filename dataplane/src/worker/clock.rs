//! The clock of the data path.

/// `CLOCK_MONOTONIC` in nanoseconds: the clock that the XDP program stamps packets with
/// (`bpf_ktime_get_ns`), so that the two can be subtracted. Read through the vDSO, some 25 ns.
///
/// A clock made from the CPU's time stamp counter would be three times as fast, but it drifts
/// against the kernel's, and the difference between the two is what the first stage measures.
#[inline]
#[must_use]
pub fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    // Neither is ever negative on this clock.
    #[expect(clippy::cast_sign_loss, reason = "the monotonic clock starts at zero")]
    let ns = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
    ns
}
