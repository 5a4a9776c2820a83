//! Congestion control: how much may be in flight.
//!
//! The sender (loss detection, retransmission) tells an algorithm what happened in two small verbs
//! ([`on_ack`](CongestionControl::on_ack), [`on_signal`](CongestionControl::on_signal)) and reads
//! [`cwnd`](CongestionControl::cwnd). What a loss is, when a recovery ends, and how much is sent
//! *during* one (PRR, RFC 9937) the sender decides; how far the window falls and how it grows
//! again is decided here.
//!
//! ```text
//!   cwnd                        Loss, Ecn            Rto
//!    │        slow start ─┐        │                  │
//!    │                    ▼      . ▼                  ▼
//!    │ ssthresh ─ ─ ─ ─ ─ ─ ─.-'   |      .───'│
//!    │                   /         '──.──'      │  ssthresh ─ ─ ─ ─ ─.─
//!    │                 .'  congestion            │                  /
//!    │ IW ────────────'    avoidance              '──────────────.-'
//!    └──────────────────────────────────────────────────────────────► time
//! ```
//!
//! * [`NewReno`] (RFC 5681, RFC 6582, byte counting after RFC 3465)
//! * [`Cubic`] (RFC 9438)
//! * [`hystart`]: HyStart++ (RFC 9406), with which both leave the first slow start
//! * [`window`]: what every loss-based algorithm does with cwnd and ssthresh

use crate::time::Instant;
use core::fmt::Debug;

pub mod cubic;
pub mod hystart;
pub mod new_reno;
pub mod window;

pub use cubic::Cubic;
pub use new_reno::NewReno;

/// A congestion control algorithm. All windows are in bytes.
///
/// Generic and not `dyn`: one algorithm a connection type, inlined where the ACK arrives.
pub trait CongestionControl: Clone + Debug {
    /// Its name as `ss -i` prints it.
    const NAME: &'static str;

    /// For a connection whose segments carry at most `mss` bytes (options not counted), with the
    /// initial window of RFC 6928 and an ssthresh without limit (RFC 5681 §3.1).
    fn new(mss: u16, now: Instant) -> Self;

    /// An ACK covered new data. Costs next to nothing when [`AckInfo::app_limited`] is set.
    fn on_ack(&mut self, ack: &AckInfo);

    /// Something happened that the window must answer.
    fn on_signal(&mut self, signal: Signal, now: Instant);

    /// Before the first segment that is sent after nothing was sent for longer than the RTO, with
    /// nothing in flight (RFC 5681 §4.1).
    fn after_idle(&mut self, now: Instant);

    /// The congestion window: how many bytes may be in flight. Never zero. While the sender is in
    /// fast recovery this is the window recovery will end with.
    fn cwnd(&self) -> u32;

    /// The slow start threshold; `u32::MAX` before anything set it.
    fn ssthresh(&self) -> u32;

    /// Segments now carry at most `mss` bytes (the peer's MSS option, a change of the path MTU).
    fn set_mss(&mut self, mss: u16);

    /// Whether the window grows exponentially (RFC 5681 §3.1).
    #[inline]
    fn in_slow_start(&self) -> bool {
        self.cwnd() < self.ssthresh()
    }

    /// How fast to send, in bytes per second, if the algorithm wants sending spread over time.
    /// `srtt_us`: smoothed round-trip time in microseconds.
    #[inline]
    fn pacing_rate(&self, srtt_us: u32) -> Option<u64> {
        let _ = srtt_us;
        None
    }
}

/// What an ACK that covers new data tells.
#[derive(Clone, Copy, Debug)]
pub struct AckInfo {
    /// Bytes it acknowledges for the first time, cumulatively.
    pub bytes_acked: u32,
    /// Bytes that were in flight before it arrived.
    pub in_flight: u32,
    /// The round-trip time measured with it, in microseconds. None where Karn's algorithm forbids
    /// a sample.
    pub rtt_us: Option<u32>,
    /// Smoothed round-trip time in microseconds (RFC 6298); 0 before the first sample.
    pub srtt_us: u32,
    /// The least round-trip time seen lately, in microseconds; `u32::MAX` before the first sample.
    pub min_rtt_us: u32,
    /// Whether not cwnd but the application or the peer's window limited what was in flight, so
    /// that cwnd was not put to the test and must not grow (RFC 7661 §4.1, RFC 9438 §5.8). In slow
    /// start a window used by more than a half counts as used: it doubles in a round trip.
    pub app_limited: bool,
    /// Whether the sender is in fast recovery, or in the round trip after a congestion mark, in
    /// which the window does not grow. Not set in the slow start after a retransmission timeout.
    pub in_recovery: bool,
    /// Whether a round trip is complete: the ACK covers the byte that was next to be sent when
    /// the previous round ended (RFC 9406 §4.2, `windowEnd`).
    pub round_ended: bool,
    /// When it arrived.
    pub now: Instant,
}

/// What the window must answer at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Loss was detected and fast recovery begins. Once per recovery.
    Loss {
        /// Bytes sent and not yet cumulatively acknowledged: FlightSize of RFC 5681.
        flight_size: u32,
    },
    /// The retransmission timer expired.
    Rto {
        /// FlightSize, as it was before everything outstanding was taken for lost.
        flight_size: u32,
        /// Whether the segment at the left edge was not retransmitted by this timer before: only
        /// then does ssthresh fall (RFC 5681 §3.1).
        first: bool,
    },
    /// The peer echoed a congestion mark. The caller signals it once in a window of data, and not
    /// in a window that a loss has already reduced (RFC 3168 §6.1.2).
    Ecn {
        /// FlightSize.
        flight_size: u32,
    },
    /// What the last `Loss` or `Rto` reported was not lost after all (RFC 4015, RFC 9438 §4.9).
    Undo,
    /// Everything outstanding when `Loss` or `Rto` was signalled has been acknowledged.
    RecoveryExit,
    /// The connection was established, but only after its SYN or SYN-ACK had to be retransmitted
    /// (RFC 5681 §3.1, RFC 6928 §2).
    SynLost,
}
