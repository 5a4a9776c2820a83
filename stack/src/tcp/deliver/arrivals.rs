//! What one ACK tells: which segments arrived, and what the SACK option says.

use super::rack::Rack;
use super::records::Record;
use super::rtt::{Rtt, us_between};
use super::scoreboard::OnDelivered;
use crate::tcp::options::{SACK_BLOCKS_MAX, SackBlock, SackBlocks};
use crate::tcp::seq::SeqNum;
use crate::time::Instant;

/// What one ACK says to have arrived, seen segment by segment.
pub(super) struct Arrivals<'a> {
    rack: &'a mut Rack,
    min_us: u32,
    now: Instant,
    /// How long ago what is echoed was sent, at least, in microseconds; 0 if nobody knows.
    pub(super) echo_age_us: u32,
    /// Something is SACKed, or is about to be, so that order tells something.
    pub(super) gaps: bool,
    pub(super) point: Option<SeqNum>,
    oldest: Option<Instant>,
    newest: Option<Instant>,
    pub(super) retransmitted_acked: bool,
    pub(super) original_arrived: bool,
}

impl<'a> Arrivals<'a> {
    #[inline]
    pub(super) fn new(rack: &'a mut Rack, rtt: &Rtt, now: Instant) -> Self {
        Self {
            rack,
            min_us: rtt.min_us(),
            now,
            echo_age_us: 0,
            gaps: false,
            point: None,
            oldest: None,
            newest: None,
            retransmitted_acked: false,
            original_arrived: false,
        }
    }

    /// When the first sent was sent, of segments sent once; None if Karn's algorithm forbids to
    /// measure.
    #[inline]
    pub(super) fn oldest(&self) -> Option<Instant> {
        if self.retransmitted_acked {
            return None;
        }
        self.oldest
    }

    /// When the last sent was sent, likewise.
    #[inline]
    pub(super) fn newest(&self) -> Option<Instant> {
        self.newest
    }

    /// What was outstanding without a record, and sent once at `sent`, arrived.
    pub(super) fn on_bare(&mut self, sent: Instant) {
        (self.oldest, self.newest) = (Some(sent), Some(sent));
    }

    /// RFC 8985 §6.2 step 2: of a segment sent more than once it is not known which transmission
    /// arrived, unless the echo or the time tells that it was not the last. What comes out of order
    /// is not echoed (RFC 7323 §4.3), so the echo tells nothing of what is SACKed.
    fn on_ambiguous(&mut self, record: &Record, selectively: bool) {
        let us = us_between(record.sent, self.now);
        if us < self.min_us || !selectively && us < self.echo_age_us {
            return;
        }
        self.rack.on_arrival(record.sent, record.end, us);
    }
}

impl OnDelivered for Arrivals<'_> {
    #[inline]
    fn on_segment(&mut self, record: &Record, selectively: bool) {
        if record.retransmitted {
            // Karn's algorithm (RFC 6298 §3). That no hole is filled by what is SACKed now, and
            // nothing waited for it.
            self.retransmitted_acked |= !selectively;
            self.on_ambiguous(record, selectively);
        } else {
            let sent = record.sent;
            self.oldest = Some(self.oldest.map_or(sent, |oldest| oldest.min(sent)));
            self.newest = Some(self.newest.map_or(sent, |newest| newest.max(sent)));
            let us = us_between(sent, self.now);
            self.rack.on_arrival(sent, record.end, us);
            if let Some(point) = self.point {
                self.original_arrived |= record.end.at_or_before(point);
            }
        }
        if self.gaps {
            self.rack
                .on_arrival_order(record.end, record.retransmitted, selectively);
        }
    }
}

/// The SACK option, sorted out.
pub(super) struct Sacked {
    /// What the peer got twice (RFC 2883).
    pub(super) dsack: Option<SackBlock>,
    /// Blocks within SND.UNA to SND.NXT, from left to right.
    blocks: [SackBlock; SACK_BLOCKS_MAX],
    pub(super) len: usize,
}

impl Sacked {
    pub(super) const NONE: Self = Self {
        dsack: None,
        blocks: [SackBlock {
            left: SeqNum::new(0),
            right: SeqNum::new(0),
        }; SACK_BLOCKS_MAX],
        len: 0,
    };

    /// Blocks outside of what is outstanding say nothing, whoever made them up.
    pub(super) fn new(sack: &SackBlocks, ack: SeqNum, una: SeqNum, nxt: SeqNum) -> Self {
        let mut sorted = Self::NONE;
        let all = sack.as_slice();
        let mut rest = all;
        if let [first, others @ ..] = all
            && first.right.at_or_before(nxt)
        {
            // RFC 2883 §4: the first block is a D-SACK if it is below the ACK, or part of the
            // second one.
            let below = first.left.before(ack);
            let inside = others.first().is_some_and(|second| {
                first.left.at_or_after(second.left) && first.right.at_or_before(second.right)
            });
            if below || inside {
                sorted.dsack = Some(SackBlock {
                    left: first.left,
                    right: if below {
                        first.right.earlier(ack)
                    } else {
                        first.right
                    },
                });
                rest = others;
            }
        }
        for &SackBlock { left, right } in rest {
            if right.at_or_before(una) || right.after(nxt) {
                continue;
            }
            let block = SackBlock {
                left: left.later(una),
                right,
            };
            let place = sorted.blocks[..sorted.len]
                .iter()
                .position(|other| block.left.before(other.left))
                .unwrap_or(sorted.len);
            sorted.blocks.copy_within(place..sorted.len, place + 1);
            sorted.blocks[place] = block;
            sorted.len += 1;
        }
        sorted
    }

    pub(super) fn blocks(&self) -> &[SackBlock] {
        &self.blocks[..self.len]
    }
}
