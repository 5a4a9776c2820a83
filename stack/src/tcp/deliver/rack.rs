//! RACK: what was sent before something that arrived, and not arrived itself for as long as a
//! round trip and some reordering takes, is lost (RFC 8985 §6).
//!
//! ```text
//!   time ──►   A     B     C     D         ACK of C          A.sent + RTT + reo_wnd
//!            sent  sent  sent  sent      (RTT = now − C.sent)          │
//!                                         A, B are suspects ──────► A is lost, unless it arrives
//! ```

use super::records::{NONE, RecordPool};
use super::rtt::{Rtt, later, us_between};
use super::scoreboard::Scoreboard;
use crate::tcp::seq::SeqNum;
use crate::time::Instant;

/// As many segments SACKed behind a hole make it a loss at once if the path was never seen to
/// reorder (RFC 8985 §6.2 step 4; the three duplicate ACKs of RFC 5681 §3.2).
const DUP_THRESH: u8 = 3;

/// In how many recoveries without a DSACK a grown reordering window shrinks again
/// (RFC 8985 §6.2 step 4).
const REO_WND_PERSIST: u8 = 16;

/// What RACK knows of a connection (RFC 8985 §5.2).
#[derive(Clone, Debug)]
pub(super) struct Rack {
    /// `RACK.xmit_ts`: when the segment that was sent last, of all that arrived, was sent.
    sent: Instant,
    /// `RACK.end_seq`: where it ended.
    end: SeqNum,
    /// `RACK.rtt`: how long it took.
    rtt_us: u32,
    /// `RACK.fack`: the highest sequence number that arrived. Means something while anything is
    /// SACKed.
    fack: SeqNum,
    /// `RACK.dsack_round`: until this is acknowledged a DSACK changes nothing more.
    dsack_round: SeqNum,
    in_dsack_round: bool,
    /// In fourths of the least round-trip time.
    reo_wnd_mult: u8,
    reo_wnd_persist: u8,
    reordering_seen: bool,
    /// Segments SACKed and not acknowledged, as far as it matters.
    segs_sacked: u8,
}

/// What looking for losses found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Detected {
    /// Bytes newly taken for lost.
    pub(super) bytes: u32,
    /// When the last suspect will be taken for lost.
    pub(super) deadline: Option<Instant>,
}

impl Rack {
    pub(super) fn new(una: SeqNum) -> Self {
        Self {
            sent: Instant::ZERO,
            end: una,
            rtt_us: 0,
            fack: una,
            dsack_round: una,
            in_dsack_round: false,
            reo_wnd_mult: 1,
            reo_wnd_persist: 0,
            reordering_seen: false,
            segs_sacked: 0,
        }
    }

    /// RFC 8985 §6.2 step 2: a segment arrived that was sent at `sent` and took `rtt_us`.
    #[inline]
    pub(super) fn on_arrival(&mut self, sent: Instant, end: SeqNum, rtt_us: u32) {
        if sent > self.sent || sent == self.sent && end.after(self.end) {
            (self.sent, self.end, self.rtt_us) = (sent, end, rtt_us);
        }
    }

    /// RFC 8985 §6.2 step 2 where nothing else is outstanding: what was sent at `sent` took
    /// `rtt_us`.
    #[inline]
    pub(super) fn on_only_arrival(&mut self, sent: Instant, end: SeqNum, rtt_us: u32) {
        (self.sent, self.end, self.rtt_us) = (sent, end, rtt_us);
    }

    /// What arrived was the original of something sent again, and not, as it seemed, that.
    pub(super) fn forget_arrivals(&mut self) {
        self.sent = Instant::ZERO;
    }

    /// RFC 8985 §6.2 step 3: a segment that ends at `end` arrived. Of several that one ACK reports,
    /// the lower ones first.
    pub(super) fn on_arrival_order(&mut self, end: SeqNum, retransmitted: bool, sacked: bool) {
        if end.after(self.fack) {
            self.fack = end;
        } else if end.before(self.fack) && !retransmitted {
            self.reordering_seen = true;
        }
        if sacked {
            self.segs_sacked = self.segs_sacked.saturating_add(1);
        }
    }

    /// Nothing is SACKed: `una` is the highest number that arrived.
    pub(super) fn on_nothing_sacked(&mut self, una: SeqNum) {
        self.fack = una;
        self.segs_sacked = 0;
    }

    /// SND.UNA moved on, and `sacked` bytes beyond it are SACKed. How many segments those were
    /// nobody wrote down: not more than this, unless they were short.
    pub(super) fn on_advance(&mut self, una: SeqNum, sacked: u32, mss: u16) {
        if sacked == 0 {
            return self.on_nothing_sacked(una);
        }
        let segments = sacked.div_ceil(u32::from(mss.max(1)));
        self.segs_sacked = self
            .segs_sacked
            .min(u8::try_from(segments).unwrap_or(u8::MAX));
    }

    /// RFC 8985 §6.2 step 4: the peer got something twice, so we were too quick. The window grows
    /// once in a round trip.
    pub(super) fn on_dsack(&mut self, una: SeqNum, next: SeqNum) {
        if self.in_dsack_round && una.at_or_after(self.dsack_round) {
            self.in_dsack_round = false;
        }
        if !self.in_dsack_round {
            self.in_dsack_round = true;
            self.dsack_round = next;
            self.reo_wnd_mult = self.reo_wnd_mult.saturating_add(1);
            self.reo_wnd_persist = REO_WND_PERSIST;
        }
    }

    /// A recovery ended.
    pub(super) fn on_recovery_exit(&mut self) {
        self.reo_wnd_persist = self.reo_wnd_persist.saturating_sub(1);
        if self.reo_wnd_persist == 0 {
            self.reo_wnd_mult = 1;
        }
    }

    /// A fast recovery turned out to have been needless: what was taken for lost came later than
    /// what was sent after it. That it was sent again meanwhile hides this from
    /// [`on_arrival_order`](Self::on_arrival_order).
    pub(super) fn on_needless_recovery(&mut self) {
        self.reordering_seen = true;
    }

    /// Whether the path was seen to reorder.
    pub(super) fn reordering_seen(&self) -> bool {
        self.reordering_seen
    }

    /// How long a suspect is waited for beyond a round trip, in microseconds (RFC 8985 §6.2 step 4).
    pub(super) fn reo_wnd_us(&self, rtt: &Rtt, in_recovery: bool) -> u32 {
        if !self.reordering_seen && (in_recovery || self.segs_sacked >= DUP_THRESH) {
            return 0;
        }
        if rtt.min_us() == u32::MAX {
            return 0;
        }
        let wanted = u64::from(self.reo_wnd_mult) * u64::from(rtt.min_us()) / 4;
        u32::try_from(wanted).unwrap_or(u32::MAX).min(rtt.srtt_us())
    }

    /// RFC 8985 §6.2 step 5: marks what is lost. Looks at the transmissions in order of time, up to
    /// the first that was sent after the one that arrived.
    pub(super) fn detect(
        &self,
        board: &mut Scoreboard,
        pool: &mut RecordPool,
        reo_wnd_us: u32,
        now: Instant,
    ) -> Detected {
        let mut found = Detected::default();
        let wait_us = self.rtt_us.saturating_add(reo_wnd_us);
        let mut id = board.oldest();
        while id != NONE {
            let record = *pool.get(id);
            if record.sent > self.sent {
                break;
            }
            let next = board.later(pool, id);
            if record.sent < self.sent || record.end.before(self.end) {
                let deadline = later(record.sent, wait_us);
                if deadline <= now {
                    board.mark_lost(pool, id);
                    found.bytes += record.len();
                } else {
                    found.deadline = Some(found.deadline.map_or(deadline, |at| at.max(deadline)));
                }
            }
            id = next;
        }
        found
    }

    /// RFC 8985 §6.3: the retransmission timer expired. Lost is the segment at the left edge, and
    /// what was sent at least a round trip ago.
    pub(super) fn mark_on_rto(
        &self,
        board: &mut Scoreboard,
        pool: &mut RecordPool,
        reo_wnd_us: u32,
        now: Instant,
    ) {
        let wait_us = self.rtt_us.saturating_add(reo_wnd_us);
        let first = board.first();
        if first != NONE && !pool.get(first).lost {
            board.mark_lost(pool, first);
        }
        let mut id = board.oldest();
        while id != NONE && us_between(pool.get(id).sent, now) >= wait_us {
            let next = board.later(pool, id);
            board.mark_lost(pool, id);
            id = next;
        }
    }
}
