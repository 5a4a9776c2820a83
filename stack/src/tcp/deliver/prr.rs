//! Proportional Rate Reduction (RFC 9937): how much is sent during fast recovery.

/// Sees to it that at the end of fast recovery as much is in flight as congestion control wants,
/// without a pause or a burst on the way. All in bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Prr {
    /// `RecoverFS`: what was outstanding and not SACKed when recovery began.
    pub(super) flight: u32,
    /// `prr_delivered`: what arrived since.
    pub(super) delivered: u32,
    /// `prr_out`: what was sent since.
    pub(super) out: u32,
    /// `sndcnt`: what may still be sent on the last ACK.
    budget: u32,
}

impl Prr {
    pub(super) fn budget(&self) -> u32 {
        self.budget
    }

    pub(super) fn begin(&mut self, flight: u32) {
        *self = Self {
            flight: flight.max(1),
            ..Self::default()
        };
    }

    /// An ACK reported `delivered` bytes to have arrived, and `in_flight` are still under way.
    /// `safe`: SND.UNA moved on and nothing more was found lost (SafeACK of RFC 9937 §6.2).
    pub(super) fn on_ack(
        &mut self,
        delivered: u32,
        in_flight: u32,
        ssthresh: u32,
        mss: u16,
        safe: bool,
    ) {
        let mss = u32::from(mss);
        self.delivered = self.delivered.saturating_add(delivered);
        self.budget = if in_flight > ssthresh {
            // Proportional rate reduction: ssthresh/RecoverFS of what arrives is sent.
            let share =
                (u64::from(self.delivered) * u64::from(ssthresh)).div_ceil(u64::from(self.flight));
            u32::try_from(share)
                .unwrap_or(u32::MAX)
                .saturating_sub(self.out)
        } else {
            // At least as much as arrives (conservative reduction bound), and a segment more if
            // things go well (slow start reduction bound), up to ssthresh.
            let conserve = self.delivered.saturating_sub(self.out).max(delivered);
            let limit = if safe { conserve + mss } else { conserve };
            limit.min(ssthresh - in_flight)
        };
        if self.out == 0 {
            // The first retransmission goes out at once.
            self.budget = self.budget.max(mss);
        }
    }

    pub(super) fn on_sent(&mut self, len: u32) {
        self.out = self.out.saturating_add(len);
        self.budget = self.budget.saturating_sub(len);
    }
}
