//! CUBIC (RFC 9438): after a reduction the window grows along a cubic function of time: fast at
//! first, slowly about where it was before, then faster and faster, however long the round trip.
//!
//! ```text
//!  cwnd                                              .'
//!       │  loss                                     /
//!  W_max│ ─ ┐─ ─ ─ ─ ─ ─ ─ ─ .─────────────────── ─' ─ ─
//!       │   │           .─'        │           convex
//!       │   │ 0.7   .-'   concave  │
//!       │   └──────'               │
//!       └───┬──────────────────────┬──────────────────► t
//!           0                      K
//!
//!  W_cubic(t) = C (t − K)³ + W_max,   K = ∛((W_max − cwnd at t = 0) / C)
//! ```
//!
//! Where Reno would have the larger window (short round trips, small windows), that is used.
//!
//! Windows are in bytes here, time in *ticks* of 2²⁰ ns, 1.05 ms: a shift away from the clock, and
//! fine enough, as the curve moves by seconds.

use super::window::{CWND_MAX, Reduction, Window};
use super::{AckInfo, CongestionControl, Signal};
use crate::time::Instant;

/// The base-two logarithm of a tick in nanoseconds.
const TICK_SHIFT: u32 = 20;

/// C = 0.4 segments/s³ (RFC 9438 §5.1), in segments/tick³, times 2⁶⁴:
/// 0.4 · (2²⁰/10⁹)³ · 2⁶⁴ = 2¹²⁶ / 10²⁸.
const C_SCALED: u128 = (1 << 126) / 10_u128.pow(28);

/// 1/C in tick³/segment: 10²⁸ / 2⁶².
#[expect(clippy::cast_possible_truncation, reason = "2_168_404_344")]
const C_INVERSE: u64 = (10_u128.pow(28) >> 62) as u64;

/// Further from K the curve is above [`CWND_MAX`] even for segments of one byte; 73 minutes.
const TICKS_MAX: u32 = 1 << 22;

/// Windows grow by quarters of a segment or more. Finer steps divide more often, and round more
/// away; in coarser ones the window lags a segment behind its curve.
const STEPS_PER_SEGMENT: u64 = 4;

/// A curve that has not begun. One that begins in this very tick of 2³² does so with the next ACK.
const NOT_BEGUN: u32 = u32::MAX;

/// β (RFC 9438 §4.6): what is left of a window. `bytes` · 0.7.
fn beta(bytes: u32) -> u32 {
    multiply(bytes, 7, 10)
}

/// `bytes` · `numerator` / `denominator`, rounded down. Constants, so no division.
#[inline]
fn multiply(bytes: u32, numerator: u64, denominator: u64) -> u32 {
    u32::try_from(u64::from(bytes) * numerator / denominator).unwrap_or(u32::MAX)
}

/// CUBIC's state. 72 bytes.
#[derive(Clone, Debug)]
pub struct Cubic {
    window: Window,
    curve: Curve,
    /// The curve before the last reduction, for an undo.
    prior: Curve,
    /// Bytes acknowledged since cwnd last grew along the curve. Saturates.
    acked: u32,
    /// Bytes acknowledged since W_est last grew. Saturates.
    acked_est: u32,
    /// When an ACK in congestion avoidance last found the window in full use, in ticks.
    used_at: u32,
}

/// What one stage of congestion avoidance follows.
#[derive(Clone, Debug)]
struct Curve {
    /// W_max in bytes: the window before the last reduction, or a little less; 0: not known, the
    /// curve begins at its plateau.
    w_max: u32,
    /// K in ticks.
    k: u32,
    /// t_epoch: when it began, in ticks; [`NOT_BEGUN`].
    epoch: u32,
    /// W_est in bytes: the window Reno would have.
    w_est: u32,
}

impl Curve {
    const fn new() -> Self {
        Self {
            w_max: 0,
            k: 0,
            epoch: NOT_BEGUN,
            w_est: 0,
        }
    }

    const fn has_begun(&self) -> bool {
        self.epoch != NOT_BEGUN
    }

    /// RFC 9438 §4.2: a stage of congestion avoidance begins with this window.
    fn begin(&mut self, cwnd: u32, mss: u32, now: u32) {
        self.epoch = now;
        self.w_est = cwnd;
        if cwnd < self.w_max {
            // At most 2³⁰ · 2³²: the product fits.
            let cubed = u64::from(self.w_max - cwnd) * C_INVERSE / u64::from(mss);
            self.k = cube_root(cubed);
        } else {
            // §4.8, §4.10: after a timeout, or a slow start that ended without a loss.
            self.w_max = cwnd;
            self.k = 0;
        }
    }

    /// W_cubic in bytes, `t` ticks after the beginning: 0 to [`CWND_MAX`].
    fn window_at(&self, t: u32, mss: u32) -> u32 {
        let from_k = u128::from(t.abs_diff(self.k).min(TICKS_MAX));
        // At most 2⁶⁶ · 2¹⁶ · 2³³.
        let height = (from_k.pow(3) * u128::from(mss) * C_SCALED) >> 64;
        let height = u32::try_from(height).unwrap_or(u32::MAX);
        if t < self.k {
            self.w_max.saturating_sub(height)
        } else {
            self.w_max.saturating_add(height).min(CWND_MAX)
        }
    }

    /// RFC 9438 §4.7: the window was reduced from `cwnd`.
    fn on_congestion(&mut self, cwnd: u32) {
        self.w_max = if cwnd < self.w_max {
            // Fast convergence: there is less for this flow than there was; leave room for the
            // others. (1 + β) / 2 = 0.85.
            multiply(cwnd, 17, 20)
        } else {
            cwnd
        };
        self.epoch = NOT_BEGUN;
    }
}

impl Cubic {
    /// The window was in full use: it grows.
    fn grow(&mut self, ack: &AckInfo) {
        if self.window.in_slow_start() {
            self.window.slow_start(ack);
        } else {
            self.avoid_congestion(ack);
        }
    }

    fn avoid_congestion(&mut self, ack: &AckInfo) {
        let (cwnd, mss) = (self.window.cwnd(), self.window.mss());
        let now = ticks(ack.now);
        let was_unused = self.window.take_unused();
        if !self.curve.has_begun() {
            self.curve.begin(cwnd, mss, now);
            self.acked = 0;
            self.acked_est = 0;
        } else if was_unused {
            // RFC 9438 §4.2: t does not include the time in which the application left the window
            // unused; the curve is the same, only later.
            let unused = now.wrapping_sub(self.used_at);
            self.curve.epoch = self.curve.epoch.wrapping_add(unused);
        }
        self.used_at = now;

        let t = now.wrapping_sub(self.curve.epoch);
        self.grow_estimate(ack.bytes_acked, cwnd, mss);
        if self.curve.window_at(t, mss) < self.curve.w_est {
            // §4.3: the Reno-friendly region.
            self.acked = 0;
            self.window.grow_to(self.curve.w_est);
            return;
        }

        // §4.4, §4.5: towards where the curve is one round trip from now, but at most half as
        // much again.
        let ahead = t.saturating_add(rtt_ticks(ack.srtt_us));
        let target = self.curve.window_at(ahead, mss);
        let target = target.clamp(cwnd, multiply(cwnd, 3, 2));
        // (target - cwnd) / cwnd segments for every segment acknowledged, as soon as that comes to
        // a step: so that next to nothing is lost in rounding, and divisions are rare.
        self.acked = self.acked.saturating_add(ack.bytes_acked);
        let gained = u64::from(self.acked) * u64::from(target - cwnd);
        if gained * STEPS_PER_SEGMENT >= u64::from(cwnd) * u64::from(mss) {
            let grown = u32::try_from(gained / u64::from(cwnd)).unwrap_or(u32::MAX);
            self.window.grow_to(cwnd + grown.min(target - cwnd));
            self.acked = 0;
        }
    }

    /// RFC 9438 §4.3: W_est grows by α segments for every cwnd acknowledged.
    fn grow_estimate(&mut self, bytes_acked: u32, cwnd: u32, mss: u32) {
        // α = 3 (1 - β) / (1 + β) = 9/17 makes up for the smaller reduction; once the window is
        // what it was before that, Reno's own 1.
        let (numerator, denominator) = if self.curve.w_est < self.window.prior_cwnd() {
            (9, 17)
        } else {
            (1, 1)
        };
        self.acked_est = self.acked_est.saturating_add(bytes_acked);
        let gained = u64::from(self.acked_est) * numerator;
        let needed = u64::from(cwnd) * denominator;
        if gained * STEPS_PER_SEGMENT >= needed {
            let grown = gained * u64::from(mss) / needed;
            let grown = u32::try_from(grown).unwrap_or(u32::MAX);
            self.curve.w_est = self.curve.w_est.saturating_add(grown).min(CWND_MAX);
            self.acked_est = 0;
        }
    }
}

impl CongestionControl for Cubic {
    const NAME: &'static str = "cubic";

    fn new(mss: u16, _now: Instant) -> Self {
        Self {
            window: Window::new(mss),
            curve: Curve::new(),
            prior: Curve::new(),
            acked: 0,
            acked_est: 0,
            used_at: 0,
        }
    }

    #[inline]
    fn on_ack(&mut self, ack: &AckInfo) {
        if ack.app_limited || ack.in_recovery {
            // RFC 9438 §5.8: it does not grow, and the curve waits.
            self.window.note_unused();
        } else {
            self.grow(ack);
        }
    }

    fn on_signal(&mut self, signal: Signal, _now: Instant) {
        let cwnd = self.window.cwnd();
        match signal {
            Signal::Loss { flight_size } => {
                let ssthresh = beta(self.window.reducible(flight_size));
                if self.window.on_loss(ssthresh) == Reduction::First {
                    self.prior = self.curve.clone();
                }
                self.curve.on_congestion(cwnd);
            }
            Signal::Rto { flight_size, first } => {
                let ssthresh = beta(self.window.reducible(flight_size));
                if self.window.on_rto(ssthresh, first) == Reduction::First {
                    self.prior = self.curve.clone();
                }
                // §4.8: the next stage begins at its plateau, wherever slow start ends.
                self.curve = Curve::new();
            }
            Signal::Ecn { flight_size } => {
                self.window.on_ecn(beta(self.window.reducible(flight_size)));
                self.curve.on_congestion(cwnd);
            }
            Signal::Undo => {
                // §4.9: as if nothing had happened.
                if self.window.undo() {
                    self.curve = self.prior.clone();
                }
            }
            Signal::RecoveryExit => self.window.exit_recovery(),
            Signal::SynLost => self.window.on_syn_lost(),
        }
    }

    fn after_idle(&mut self, _now: Instant) {
        if self.window.after_idle() {
            // Another window than the curve's: it begins anew once slow start is over.
            self.curve.epoch = NOT_BEGUN;
        } else {
            self.window.note_unused();
        }
    }

    #[inline]
    fn cwnd(&self) -> u32 {
        self.window.cwnd()
    }

    #[inline]
    fn ssthresh(&self) -> u32 {
        self.window.ssthresh()
    }

    fn set_mss(&mut self, mss: u16) {
        self.window.set_mss(mss);
        // The curve's height counts segments: it begins anew with the new ones.
        self.curve.epoch = NOT_BEGUN;
    }
}

/// `now` in ticks. They wrap after 52 days; a stage that lasts that long is at [`CWND_MAX`] by then,
/// and no ACK makes a window smaller.
#[expect(
    clippy::cast_possible_truncation,
    reason = "differences are taken modulo 2³²"
)]
const fn ticks(now: Instant) -> u32 {
    (now.as_nanos() >> TICK_SHIFT) as u32
}

/// A round-trip time in ticks.
#[expect(clippy::cast_possible_truncation, reason = "2³² · 1000 / 2²⁰ is 2²²")]
const fn rtt_ticks(us: u32) -> u32 {
    ((us as u64 * 1000) >> TICK_SHIFT) as u32
}

/// The cube root, rounded down, bit by bit from the top: no division, 22 steps.
fn cube_root(of: u64) -> u32 {
    let mut rest = of;
    let mut root = 0_u64;
    for shift in (0..=63).rev().step_by(3) {
        root *= 2;
        // (root + 1)³ - root³
        let step = 3 * root * (root + 1) + 1;
        if rest >> shift >= step {
            rest -= step << shift;
            root += 1;
        }
    }
    u32::try_from(root).expect("invariant: the cube root of 64 bits has 22")
}

const _: () = assert!(size_of::<Cubic>() <= 72);

#[cfg(test)]
mod tests;
