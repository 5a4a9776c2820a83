//! What loss-based algorithms share: cwnd and ssthresh, how they fall, and how a fall is undone.

use super::AckInfo;
use super::hystart::{Growth, HyStart};

/// No window is larger: more than a window of 2¹⁶−1 shifted by 14 (RFC 7323 §2.3) can never be in
/// flight, and twice this still fits 32 bits.
pub const CWND_MAX: u32 = 1 << 30;

/// RFC 3465 §2.2: an ACK in slow start counts for at most two segments, so that a stretch ACK
/// does not release a burst of many.
pub const ABC_LIMIT_SEGMENTS: u32 = 2;

/// RFC 3465 §2.3: in the slow start that follows a retransmission timeout an ACK may cover what
/// arrived long ago; one segment, as RFC 5681 has it.
pub const ABC_LIMIT_SEGMENTS_AFTER_RTO: u32 = 1;

/// The initial window in bytes: ten segments, or 14600 bytes where segments are larger, and never
/// fewer than two segments (RFC 6928 §2).
#[must_use]
pub const fn initial_window(mss: u16) -> u32 {
    let mss = mss as u32;
    let most = if 2 * mss > 14_600 { 2 * mss } else { 14_600 };
    if 10 * mss < most { 10 * mss } else { most }
}

/// cwnd, ssthresh, and what they were before the last reduction. 28 bytes.
#[derive(Clone, Debug)]
pub struct Window {
    cwnd: u32,
    /// `u32::MAX`: nothing has limited the window yet.
    ssthresh: u32,
    /// cwnd before the last reduction; 0 before the first.
    prior_cwnd: u32,
    /// ssthresh before the last reduction; 0 if that cannot be undone.
    prior_ssthresh: u32,
    hystart: HyStart,
    mss: u16,
    phase: Phase,
    /// The window was not in full use when the last ACK came.
    app_limited: bool,
}

/// What became of the last reduction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Everything that was outstanding then is acknowledged.
    Open,
    /// In fast recovery.
    Recovery,
    /// The retransmission timer expired; what was outstanding then still is.
    TimedOut,
    /// That is acknowledged, and slow start goes on.
    SlowStartAfterRto,
}

/// What came before in this recovery decides what a reduction overwrites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// The first one: what was before it is what an undo restores.
    First,
    /// A further one of the same recovery.
    Further,
}

impl Window {
    /// The initial window. An `mss` of 0 counts as 1.
    #[must_use]
    pub fn new(mss: u16) -> Self {
        let mss = mss.max(1);
        Self {
            cwnd: initial_window(mss),
            ssthresh: u32::MAX,
            prior_cwnd: 0,
            prior_ssthresh: 0,
            hystart: HyStart::new(),
            mss,
            phase: Phase::Open,
            app_limited: false,
        }
    }

    /// Bytes that may be in flight.
    #[inline]
    #[must_use]
    pub const fn cwnd(&self) -> u32 {
        self.cwnd
    }

    /// Slow start threshold in bytes.
    #[inline]
    #[must_use]
    pub const fn ssthresh(&self) -> u32 {
        self.ssthresh
    }

    /// Bytes a segment carries at most: SMSS.
    #[inline]
    #[must_use]
    pub const fn mss(&self) -> u32 {
        self.mss as u32
    }

    /// cwnd before the last reduction; 0 before the first.
    #[inline]
    #[must_use]
    pub const fn prior_cwnd(&self) -> u32 {
        self.prior_cwnd
    }

    /// RFC 5681 §3.1: slow start while cwnd is below ssthresh.
    #[inline]
    #[must_use]
    pub const fn in_slow_start(&self) -> bool {
        self.cwnd < self.ssthresh
    }

    /// Whether this is the first slow start: nothing has set ssthresh yet.
    #[inline]
    #[must_use]
    pub const fn in_initial_slow_start(&self) -> bool {
        self.ssthresh == u32::MAX
    }

    /// Slow start, up to ssthresh (RFC 5681 §3.1).
    #[inline]
    pub fn slow_start(&mut self, ack: &AckInfo) {
        let mss = self.mss();
        // RFC 9406 §4.3: HyStart++ is for the first one; a later one has an ssthresh to stop at.
        if self.in_initial_slow_start() {
            let growth = self.hystart.on_ack(ack.rtt_us, ack.round_ended);
            self.grow_to(self.cwnd + growth.increment(ack.bytes_acked, mss));
            if growth == Growth::Ends {
                self.end_slow_start();
            }
            return;
        }
        let segments = match self.phase {
            Phase::Open | Phase::Recovery => ABC_LIMIT_SEGMENTS,
            Phase::TimedOut | Phase::SlowStartAfterRto => ABC_LIMIT_SEGMENTS_AFTER_RTO,
        };
        self.grow_to(self.cwnd + ack.bytes_acked.min(segments * mss));
    }

    /// Sets cwnd to `cwnd` bytes, at most [`CWND_MAX`]; in slow start at most ssthresh.
    #[inline]
    pub fn grow_to(&mut self, cwnd: u32) {
        let most = if self.in_slow_start() {
            self.ssthresh.min(CWND_MAX)
        } else {
            CWND_MAX
        };
        self.cwnd = cwnd.min(most).max(self.cwnd);
    }

    /// RFC 9406 §4.2: slow start ends without a loss.
    fn end_slow_start(&mut self) {
        self.ssthresh = self.cwnd;
        self.prior_cwnd = self.cwnd;
        self.prior_ssthresh = 0;
    }

    /// An ACK came while the window was not in full use, or did not grow for another reason.
    #[inline]
    pub fn note_unused(&mut self) {
        self.app_limited = true;
    }

    /// Whether [`note_unused`](Self::note_unused) was called since the last time.
    #[inline]
    pub fn take_unused(&mut self) -> bool {
        core::mem::take(&mut self.app_limited)
    }

    /// Remembers the window as it is, for an undo, unless this recovery has done so already.
    fn remember(&mut self) -> Reduction {
        match self.phase {
            // A timeout in fast recovery, or a timer backing off: one undo restores what was
            // before all of them.
            Phase::Recovery | Phase::TimedOut => Reduction::Further,
            Phase::Open | Phase::SlowStartAfterRto => {
                self.prior_cwnd = self.cwnd;
                self.prior_ssthresh = self.ssthresh;
                Reduction::First
            }
        }
    }

    /// What a reduction is a fraction of: FlightSize, and not cwnd, which may not have been used
    /// (RFC 5681 §3.1). Not more than cwnd: what limited transmit sent does not count (§3.2).
    #[must_use]
    pub fn reducible(&self, flight_size: u32) -> u32 {
        flight_size.min(self.cwnd)
    }

    /// A loss: ssthresh becomes `ssthresh` bytes, at least two segments (RFC 5681 §3.1 (4)), and
    /// cwnd with it.
    pub fn on_loss(&mut self, ssthresh: u32) -> Reduction {
        let reduction = self.remember();
        self.ssthresh = ssthresh.max(2 * self.mss());
        self.cwnd = self.ssthresh;
        self.phase = Phase::Recovery;
        reduction
    }

    /// A congestion mark (RFC 3168 §6.1.2): as a loss, but it did happen and cannot be undone, and
    /// the window may fall to one segment (RFC 9438 §4.6).
    pub fn on_ecn(&mut self, ssthresh: u32) {
        self.prior_cwnd = self.cwnd;
        self.prior_ssthresh = 0;
        self.ssthresh = ssthresh.max(2 * self.mss());
        self.cwnd = ssthresh.max(self.mss());
        if self.phase == Phase::SlowStartAfterRto {
            self.phase = Phase::Open;
        }
    }

    /// A retransmission timeout: one segment (RFC 5681 §3.1, the loss window). `first`: the
    /// segment was not retransmitted by the timer before; otherwise ssthresh stays.
    pub fn on_rto(&mut self, ssthresh: u32, first: bool) -> Reduction {
        let reduction = self.remember();
        if first {
            self.ssthresh = ssthresh.max(2 * self.mss());
        }
        self.cwnd = self.mss();
        self.phase = Phase::TimedOut;
        reduction
    }

    /// RFC 4015 §3.2, RFC 9438 §4.9: the reduction was a mistake. False if there is none that can
    /// be undone, or if the window has grown past its old size meanwhile: then what it has learned
    /// since stays.
    pub fn undo(&mut self) -> bool {
        if self.prior_ssthresh == 0 {
            return false;
        }
        let ssthresh = core::mem::take(&mut self.prior_ssthresh);
        self.phase = Phase::Open;
        if self.cwnd >= self.prior_cwnd {
            return false;
        }
        self.cwnd = self.prior_cwnd;
        self.ssthresh = ssthresh;
        self.app_limited = false;
        true
    }

    /// Everything that was outstanding at the reduction is acknowledged.
    pub fn exit_recovery(&mut self) {
        self.phase = match self.phase {
            Phase::Open | Phase::Recovery => Phase::Open,
            Phase::TimedOut | Phase::SlowStartAfterRto => Phase::SlowStartAfterRto,
        };
    }

    /// The SYN had to be repeated: one segment (RFC 5681 §3.1). ssthresh stays: nothing was
    /// learned about it.
    pub fn on_syn_lost(&mut self) {
        self.cwnd = self.mss();
    }

    /// RFC 5681 §4.1: after an idle period the ACK clock is gone; the restart window is the
    /// initial window, or cwnd if that is less. Whether cwnd has changed.
    pub fn after_idle(&mut self) -> bool {
        let restart = self.cwnd.min(initial_window(self.mss));
        let changed = restart != self.cwnd;
        self.cwnd = restart;
        self.prior_ssthresh = 0;
        self.phase = Phase::Open;
        self.hystart = HyStart::new();
        changed
    }

    /// Segments now carry at most `mss` bytes; 0 counts as 1. cwnd counts bytes and stays, except
    /// that a window nothing has used yet becomes the initial window of the new size, and that one
    /// segment always fits.
    pub fn set_mss(&mut self, mss: u16) {
        let mss = mss.max(1);
        let unused = self.in_initial_slow_start() && self.cwnd == initial_window(self.mss);
        self.mss = mss;
        if unused {
            self.cwnd = initial_window(mss);
        }
        self.cwnd = self.cwnd.max(self.mss());
    }
}

const _: () = assert!(size_of::<Window>() <= 28);

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6928 §2's formula at its corners.
    #[test]
    fn initial_windows_are_those_of_rfc_6928() {
        for (mss, window) in [
            (1460, 14_600),
            (1448, 14_480),
            (536, 5_360),
            (1220, 12_200),
            (4000, 14_600),
            (8960, 17_920),
            (u16::MAX, 131_070),
        ] {
            assert_eq!(initial_window(mss), window, "MSS {mss}");
        }
    }
}
