//! What was done because of a loss that was none is undone: by the echo of a timestamp (Eifel,
//! RFC 3522), by duplicates the peer reports (RFC 3708), or by what arrives after a timeout though
//! it was not sent again (F-RTO, RFC 5682).

use super::SendPools;
use super::interface::CaState;
use super::sender::{Flags, Sender};
use crate::tcp::congestion::{CongestionControl, Signal};
use crate::tcp::options::SackBlock;
use crate::tcp::seq::SeqNum;
use crate::time::Instant;

/// For how many round trips after a recovery's end a DSACK can undo it: the retransmission that
/// turns out to have been needless arrives within one, and its DSACK a bit later if ACKs are
/// delayed or lost. What comes still later more likely reports something else.
const ROUNDS: u8 = 3;

/// What is kept of a recovery to find out whether it was needed.
#[derive(Clone, Debug)]
pub(super) struct Undo {
    /// SND.UNA when it began: DSACKs before it are about something else.
    marker: SeqNum,
    /// Bytes sent again that the peer has not reported to have twice.
    retransmitted: u32,
    /// `RetransmitTS` of RFC 3522: the timestamp on the first retransmission.
    stamp: u32,
    has_stamp: bool,
    /// It was the retransmission timer that began it.
    by_timeout: bool,
    /// Round trips to go; 0: there is nothing to undo.
    rounds: u8,
    /// Where F-RTO is.
    pub(super) frto: Frto,
}

/// F-RTO with SACK (RFC 5682 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frto {
    /// Not in use, or it was decided that the timeout was real.
    Off,
    /// The segment at the left edge was sent again: the next ACK decides whether to go on (step 2).
    Retransmitted,
    /// That was acknowledged, others are not: new data is sent, and the next ACK decides (step 3).
    NewData,
}

impl Undo {
    pub(super) fn new(una: SeqNum) -> Self {
        Self {
            marker: una,
            retransmitted: 0,
            stamp: 0,
            has_stamp: false,
            by_timeout: false,
            rounds: 0,
            frto: Frto::Off,
        }
    }

    /// Whether there is a recovery that might be undone.
    pub(super) fn is_possible(&self) -> bool {
        self.rounds != 0
    }

    /// A recovery begins, by a timeout or not.
    pub(super) fn begin(&mut self, una: SeqNum, by_timeout: bool) {
        *self = Self {
            by_timeout,
            rounds: ROUNDS,
            ..Self::new(una)
        };
    }

    /// It cannot be undone any more.
    pub(super) fn forget(&mut self) {
        *self = Self::new(self.marker);
    }

    /// A round trip passed outside of recovery.
    pub(super) fn on_round(&mut self) {
        self.rounds = self.rounds.saturating_sub(1);
    }

    /// `len` bytes were sent again, with the timestamp `stamp` if the connection has timestamps.
    pub(super) fn on_retransmit(&mut self, len: u32, stamp: Option<u32>) {
        self.retransmitted = self.retransmitted.saturating_add(len);
        if !self.has_stamp
            && let Some(stamp) = stamp
        {
            (self.stamp, self.has_stamp) = (stamp, true);
        }
    }

    /// RFC 3522 §3.2 step 4: whether an ACK of retransmitted data was caused by what was sent
    /// before any of it was sent again.
    pub(super) fn is_refuted_by_echo(&self, echo: Option<u32>) -> bool {
        self.is_possible()
            && self.has_stamp
            && echo.is_some_and(|echo| echo.wrapping_sub(self.stamp).cast_signed() < 0)
    }

    /// RFC 3708 §2: the peer got `block` twice; whether that is now true of everything that was
    /// sent again.
    pub(super) fn is_refuted_by_dsack(&mut self, block: SackBlock, una: SeqNum) -> bool {
        if !self.is_possible()
            || self.retransmitted == 0
            || !block.right.after(self.marker)
            || block.right.after(una)
        {
            return false;
        }
        let left = block.left.later(self.marker);
        self.retransmitted = self
            .retransmitted
            .saturating_sub(block.right.offset_from(left));
        self.retransmitted == 0
    }
}

/// What an ACK told that matters here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Proof {
    /// It acknowledges new data cumulatively.
    pub(super) advanced: bool,
    /// Something was selectively acknowledged, or the ACK is a duplicate.
    pub(super) duplicate: bool,
    /// It acknowledges, cumulatively, something that was sent again.
    pub(super) retransmitted_acked: bool,
    /// Something arrived that was outstanding when recovery began and was never sent again.
    pub(super) original_arrived: bool,
    /// The timestamp it echoes.
    pub(super) echo: Option<u32>,
    /// What the peer got twice.
    pub(super) dsack: Option<SackBlock>,
}

impl<C: CongestionControl> Sender<C> {
    /// Undoes the present or last recovery if `proof` shows that nothing was lost; whether it did.
    pub(super) fn undo_if_refuted(
        &mut self,
        pools: &mut SendPools,
        proof: &Proof,
        now: Instant,
    ) -> bool {
        let by_dsack = proof
            .dsack
            .is_some_and(|block| self.undo.is_refuted_by_dsack(block, self.una));
        let by_echo =
            proof.advanced && proof.retransmitted_acked && self.undo.is_refuted_by_echo(proof.echo);
        let by_frto = self.state == CaState::Loss && self.step_frto(proof);
        let refuted = by_dsack || by_echo || by_frto;
        if refuted {
            self.undo(pools, now);
        }
        refuted
    }

    /// RFC 5682 §3.1: whether `proof` shows the timeout to have been spurious.
    fn step_frto(&mut self, proof: &Proof) -> bool {
        match self.undo.frto {
            Frto::Off => false,
            Frto::Retransmitted => {
                if proof.advanced {
                    // Step 2: if it acknowledges everything, nothing can be learned (2a); else
                    // new data is to be sent (2b).
                    self.undo.frto = if self.una.before(self.point) {
                        Frto::NewData
                    } else {
                        Frto::Off
                    };
                } else if proof.duplicate {
                    self.undo.frto = Frto::Off;
                }
                false
            }
            Frto::NewData => {
                if proof.original_arrived {
                    // Step 3b: not everything was lost, and the timer thought so.
                    return self.undo.is_possible();
                }
                if proof.advanced || proof.duplicate {
                    // Step 3a.
                    self.undo.frto = Frto::Off;
                }
                false
            }
        }
    }

    /// RFC 4015 §3.2: the window is what it was, and what was taken for lost is in flight.
    fn undo(&mut self, pools: &mut SendPools, now: Instant) {
        self.board.unmark_lost(&mut pools.records);
        self.cc.on_signal(Signal::Undo, now);
        if self.state == CaState::Loss {
            self.rtt.reset_backoff();
        }
        if self.state != CaState::Open {
            self.rack.on_recovery_exit();
        }
        self.rack.forget_arrivals();
        if !self.undo.by_timeout {
            self.rack.on_needless_recovery();
        }
        self.undo.forget();
        self.flags.remove(Flags::SEND_FIRST);
        self.set_state(CaState::Open);
    }
}
