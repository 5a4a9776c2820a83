//! Sizes and times of a neighbour cache.

use crate::time::Duration;

/// Sizes and times of a [`NeighborCache`](super::NeighborCache).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighborConfig {
    /// Neighbours at most. Linux's `gc_thresh3` is 1024.
    pub capacity: usize,
    /// Packets at most that wait for resolution, over all neighbours; each neighbour keeps the
    /// latest one. They occupy frames, and anybody on the link can make us wait for inventions.
    pub waiting_max: usize,
    /// How long a confirmed neighbour counts as reachable (RFC 4861 §10: 30 s, which §6.3.2 asks
    /// to multiply with a random factor between 0.5 and 1.5; the caller does).
    pub reachable_time: Duration,
    /// Between two solicitations (RFC 4861 §10, `RETRANS_TIMER`: 1 s).
    pub retransmit_time: Duration,
    /// How long a used stale neighbour may confirm itself before it is probed (RFC 4861 §10,
    /// `DELAY_FIRST_PROBE_TIME`: 5 s).
    pub delay_time: Duration,
    /// Solicitations to everybody before giving up (RFC 4861 §10, `MAX_MULTICAST_SOLICIT`: 3).
    pub multicast_solicits_max: u8,
    /// Solicitations to a neighbour before giving up (RFC 4861 §10, `MAX_UNICAST_SOLICIT`: 3).
    pub unicast_solicits_max: u8,
    /// Solicitations and questions to the control plane over all neighbours, per second: a scan
    /// of our subnet must not become a flood of broadcasts (RFC 1122 §2.3.2.1, RFC 6583 §6).
    pub solicits_per_s: u32,
    /// The same, at once.
    pub solicits_burst: u32,
}

impl Default for NeighborConfig {
    fn default() -> Self {
        Self {
            capacity: 1024,
            waiting_max: 64,
            reachable_time: Duration::from_secs(30),
            retransmit_time: Duration::from_secs(1),
            delay_time: Duration::from_secs(5),
            multicast_solicits_max: 3,
            unicast_solicits_max: 3,
            // A cold start with a full table is over in a second; a scan of a /16 takes a minute.
            solicits_per_s: 1000,
            solicits_burst: 100,
        }
    }
}
