//! The long way of an ACK, and what timers do: losses are found, repaired, and answered by
//! congestion control once in a window.
//!
//! ```text
//!              first loss: cwnd falls once             RecoveryPoint acknowledged
//!      ┌──────┐  RACK, or 3 duplicate ACKs  ┌──────────┐            ┌──────┐
//!      │ Open ├────────────────────────────►│ Recovery ├───────────►│ Open │
//!      │ Cwr  │                             └────┬─────┘            └──▲───┘
//!      └──┬───┘          RTO expires             │                     │
//!         │   ┌──────────────────────────────────┘                     │
//!         │   ▼   RTO expires                                          │
//!         │ ┌──────┐      everything outstanding then acknowledged, or  │
//!         └►│ Loss ├─────────────────────────────────────────────────────┘
//!           └──────┘      shown to have been spurious (see `undo`)
//! ```

use super::SendPools;
use super::rack::Rack;
use super::records::{NONE, Record};
use super::rtt::{Rtt, us_between};
use super::scoreboard::OnDelivered;
use super::sender::{
    AckInput, Acked, Acknowledged, Allowance, CaState, Expired, Flags, Plan, Purpose, Sender, Timer,
};
use super::undo::{Frto, Proof};
use crate::tcp::congestion::{CongestionControl, Signal};
use crate::tcp::options::{SACK_BLOCKS_MAX, SackBlock, SackBlocks};
use crate::tcp::seq::SeqNum;
use crate::time::Instant;

/// As many duplicate ACKs tell of a loss on connections without SACK (RFC 5681 §3.2).
const DUP_THRESH: u16 = 3;

/// Proportional Rate Reduction (RFC 9937): how much is sent during fast recovery, so that at its
/// end as much is in flight as congestion control wants. All in bytes.
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

    fn begin(&mut self, flight: u32) {
        *self = Self {
            flight: flight.max(1),
            ..Self::default()
        };
    }

    /// An ACK reported `delivered` bytes to have arrived, and `in_flight` are still under way.
    /// `safe`: SND.UNA moved on and nothing more was found lost (SafeACK of RFC 9937 §6.2).
    fn on_ack(&mut self, delivered: u32, in_flight: u32, ssthresh: u32, mss: u16, safe: bool) {
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

    fn on_sent(&mut self, len: u32) {
        self.out = self.out.saturating_add(len);
        self.budget = self.budget.saturating_sub(len);
    }
}

/// What one ACK says to have arrived, seen segment by segment.
pub(super) struct Arrivals<'a> {
    rack: &'a mut Rack,
    min_us: u32,
    now: Instant,
    /// How long ago what is echoed was sent, at least, in microseconds; 0 if nobody knows.
    echo_age_us: u32,
    /// Something is SACKed, or is about to be, so that order tells something.
    gaps: bool,
    point: Option<SeqNum>,
    oldest: Option<Instant>,
    newest: Option<Instant>,
    retransmitted_acked: bool,
    original_arrived: bool,
}

impl<'a> Arrivals<'a> {
    #[inline]
    pub(super) fn new(rack: &'a mut Rack, rtt: &Rtt, input: &AckInput<'_>) -> Self {
        Self {
            rack,
            min_us: rtt.min_us(),
            now: input.now,
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

    /// RFC 8985 §6.2 step 2: of a segment sent more than once it is not known which transmission
    /// arrived, unless the echo or the time tells that it was not the last.
    fn on_ambiguous(&mut self, record: &Record) {
        let us = us_between(record.sent, self.now);
        if us < self.min_us || us < self.echo_age_us {
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
            self.on_ambiguous(record);
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
struct Sacked {
    /// What the peer got twice (RFC 2883).
    dsack: Option<SackBlock>,
    /// Blocks within SND.UNA to SND.NXT, from left to right.
    blocks: [SackBlock; SACK_BLOCKS_MAX],
    len: usize,
}

impl Sacked {
    const NONE: Self = Self {
        dsack: None,
        blocks: [SackBlock {
            left: SeqNum::new(0),
            right: SeqNum::new(0),
        }; SACK_BLOCKS_MAX],
        len: 0,
    };

    /// Blocks outside of what is outstanding say nothing, whoever made them up.
    fn new(sack: &SackBlocks, ack: SeqNum, una: SeqNum, nxt: SeqNum) -> Self {
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

    fn blocks(&self) -> &[SackBlock] {
        &self.blocks[..self.len]
    }
}

impl<C: CongestionControl> Sender<C> {
    /// An ACK that is not just the next one in order.
    #[cold]
    #[inline(never)]
    pub(super) fn on_ack_long_way(&mut self, pools: &mut SendPools, input: &AckInput<'_>) -> Acked {
        let AckInput {
            ack,
            window_changed,
            has_data,
            sack,
            ts_echo,
            ts_now,
            ece,
            now,
        } = *input;
        if ack.after(self.nxt) && !self.accept_window_probe(pools, ack, now) {
            return Acked {
                kind: Acknowledged::NeverSent,
                bytes: 0,
                fin: false,
                undone: false,
            };
        }
        let una_before = self.una;
        let in_flight_before = self.in_flight();
        let outstanding = self.board.in_flight() + self.board.lost();
        if outstanding == self.unacked() {
            self.rack.on_nothing_sacked(self.una);
        }
        let advanced = ack.after(self.una);
        let una = self.una.later(ack);
        let sacked = match sack {
            Some(sack) if self.flags.has(Flags::SACK) => Sacked::new(sack, ack, una, self.nxt),
            _ => Sacked::NONE,
        };

        // What arrived: the lowest first.
        let mut arrivals = Arrivals::new(&mut self.rack, &self.rtt, input);
        arrivals.gaps = true;
        arrivals.point = Some(self.point);
        if let Some(echo) = ts_echo {
            // A tick less, because both ends of the interval are rounded down.
            let age_ms = ts_now.wrapping_sub(echo);
            if age_ms.cast_signed() > 1 {
                arrivals.echo_age_us = (age_ms - 1).saturating_mul(1000);
            }
        }
        if advanced && self.board.bare() {
            arrivals.retransmitted_acked = true;
            self.board.acknowledge_bare(self.nxt.offset_from(ack));
        } else if advanced {
            self.board
                .acknowledge(&mut pools.records, ack, &mut arrivals);
        }
        let mut newly_sacked = 0;
        for block in sacked.blocks() {
            newly_sacked +=
                self.board
                    .sack(&mut pools.records, block.left, block.right, &mut arrivals);
        }
        let (oldest, newest) = (arrivals.oldest(), arrivals.newest());
        let (retransmitted_acked, original_arrived) =
            (arrivals.retransmitted_acked, arrivals.original_arrived);
        let mut delivered = outstanding - (self.board.in_flight() + self.board.lost());
        let (bytes, fin) = if advanced {
            self.advance(pools, ack)
        } else {
            (0, false)
        };

        // Round-trip time.
        let round_ended = advanced && ack.at_or_after(self.round_end);
        let mut rtt_us = None;
        if oldest.is_some() {
            rtt_us = self.on_samples(oldest, newest, round_ended, now);
        } else if advanced && let Some(echo) = ts_echo {
            // RFC 7323 §4.1: the echo tells even where Karn's algorithm forbids to measure.
            let age_ms = ts_now.wrapping_sub(echo);
            if age_ms.cast_signed() >= 0 {
                self.rtt.sample(age_ms.max(1).saturating_mul(1000));
            }
        }

        // Without SACK duplicate ACKs are all there is.
        let duplicate = if self.flags.has(Flags::SACK) {
            newly_sacked != 0
        } else {
            // RFC 5681 §2.
            ack == una_before && !advanced && self.una != self.nxt && !has_data && !window_changed
        };
        if !self.flags.has(Flags::SACK) {
            delivered = self.count_duplicates(advanced, duplicate, delivered);
        }

        let probe_dsack = self.on_probe_answer(ack, advanced, duplicate, &sacked, now);
        if advanced {
            let sacked_bytes = self.sacked();
            self.rack.on_advance(self.una, sacked_bytes, self.mss);
        }
        if sacked.dsack.is_some() && !probe_dsack {
            self.rack.on_dsack(self.una, self.nxt);
        }
        let undone = self.undo_if_refuted(
            pools,
            &Proof {
                advanced,
                duplicate,
                retransmitted_acked,
                original_arrived,
                echo: ts_echo,
                dsack: sacked.dsack.filter(|_| !probe_dsack),
            },
            now,
        );
        if self.state != CaState::Open && self.una.at_or_after(self.point) {
            self.exit_recovery(now);
        }

        // What is lost, and what that means.
        let lost_before = self.board.lost();
        let suspects = self.detect_losses(pools, advanced, now);
        let newly_lost = self.board.lost() > lost_before;
        if newly_lost && matches!(self.state, CaState::Open | CaState::Cwr) {
            self.enter_recovery(outstanding, now);
        }
        if ece && self.state == CaState::Open && self.una != self.nxt {
            self.enter_cwr(now);
        }
        if self.state == CaState::Recovery {
            // While in recovery cwnd is what it will end with.
            let (in_flight, ssthresh) = (self.in_flight(), self.cc.cwnd());
            let safe = advanced && !newly_lost;
            self.prr
                .on_ack(delivered, in_flight, ssthresh, self.mss, safe);
        }
        if advanced {
            let advance = self.una.offset_from(una_before);
            self.tell_congestion(advance, in_flight_before, rtt_us, round_ended, now);
        }
        if round_ended {
            self.begin_round();
            if self.state == CaState::Open && self.undo.is_possible() {
                self.undo.on_round();
                self.set_state(CaState::Open);
            }
        }

        self.set_timer(
            advanced,
            delivered != 0 || newly_lost || undone,
            suspects,
            now,
        );
        Acked {
            kind: if advanced {
                Acknowledged::New
            } else if duplicate {
                Acknowledged::Duplicate
            } else if ack == una_before {
                Acknowledged::Current
            } else {
                Acknowledged::Old
            },
            bytes,
            fin,
            undone,
        }
    }

    /// RFC 9293 §3.8.6.1: whether `ack` is for the byte that was sent to probe a closed window,
    /// which the peer had room for after all. It then counts as sent.
    fn accept_window_probe(&mut self, pools: &mut SendPools, ack: SeqNum, now: Instant) -> bool {
        if !self.flags.has(Flags::WINDOW_PROBED) || ack != self.nxt + 1 {
            return false;
        }
        self.flags.remove(Flags::WINDOW_PROBED);
        if self.unsent() == 0 {
            self.flags.insert(Flags::FIN_SENT);
        }
        // As sent twice: when, nobody knows.
        let end = self.nxt + 1;
        self.board.push(&mut pools.records, self.nxt, end, now);
        let last = self.board.last();
        if last != NONE {
            pools.records.get_mut(last).retransmitted = true;
        }
        self.nxt = end;
        true
    }

    /// SND.UNA becomes `ack`. Returns how many bytes of data that were, and whether FIN was behind
    /// them.
    fn advance(&mut self, pools: &mut SendPools, ack: SeqNum) -> (u32, bool) {
        let count = ack.offset_from(self.una);
        let bytes = self.consume(pools, count);
        let fin = bytes < count;
        if fin {
            self.flags.remove(Flags::FIN_SENT);
            self.flags.insert(Flags::FIN_ACKED);
        }
        self.una = ack;
        self.timeouts = 0;
        if self.una == self.nxt {
            self.board.clear(&mut pools.records);
        }
        (bytes, fin)
    }

    /// Without SACK: a duplicate ACK says that a segment left the network, and what is acknowledged
    /// says which. Returns how many bytes this ACK tells to have arrived.
    fn count_duplicates(&mut self, advanced: bool, duplicate: bool, acked: u32) -> u32 {
        let mss = u32::from(self.mss);
        let mut delivered = acked;
        if advanced {
            let known = u32::from(self.duplicates) * mss;
            delivered = acked.saturating_sub(known).max(mss.min(acked));
            let segments = acked.div_ceil(mss);
            self.duplicates = self
                .duplicates
                .saturating_sub(u16::try_from(segments.saturating_sub(1)).unwrap_or(u16::MAX));
            if self.una.at_or_after(self.point) {
                self.duplicates = 0;
            }
        } else if duplicate && self.state != CaState::Loss {
            // Of what is outstanding one segment is missing; who sends more duplicates makes them
            // up (RFC 5681 §3.2: limit the artificial inflation).
            let limit = (self.unacked() / mss).saturating_sub(1);
            if u32::from(self.duplicates) < limit.max(u32::from(DUP_THRESH)) {
                self.duplicates = self.duplicates.saturating_add(1);
                delivered = mss;
            }
        }
        self.flags.set(Flags::DUPLICATES, self.duplicates != 0);
        delivered
    }

    /// RFC 8985 §7.4.2: what an ACK tells of a tail loss probe. Whether it is the report that the
    /// probe arrived twice.
    fn on_probe_answer(
        &mut self,
        ack: SeqNum,
        advanced: bool,
        duplicate: bool,
        sacked: &Sacked,
        now: Instant,
    ) -> bool {
        if advanced || duplicate {
            self.flags.remove(Flags::TAIL_PROBE_DUE);
        }
        if !self.flags.has(Flags::TAIL_PROBE_SENT) || ack.before(self.probe_end) {
            return false;
        }
        let mut reported_twice = false;
        if self.flags.has(Flags::TAIL_PROBE_REPEATED) {
            reported_twice = sacked
                .dsack
                .is_some_and(|block| block.right == self.probe_end);
            let pure_duplicate = !advanced && sacked.dsack.is_none() && sacked.len == 0;
            if reported_twice || pure_duplicate {
                // Cases 1 and 2: both arrived, nothing was lost.
            } else if ack.after(self.probe_end) {
                // Case 3: no second ACK for what was sent twice, so the probe repaired a loss,
                // which has to be answered as any other.
                self.repaired_by_probe(now);
            } else {
                return false;
            }
        }
        self.flags
            .remove(Flags::TAIL_PROBE_SENT.and(Flags::TAIL_PROBE_REPEATED));
        reported_twice
    }

    fn repaired_by_probe(&mut self, now: Instant) {
        if self.state == CaState::Open {
            self.cc.on_signal(
                Signal::Loss {
                    flight_size: self.unacked(),
                },
                now,
            );
            self.cc.on_signal(Signal::RecoveryExit, now);
            self.undo.forget();
            self.set_state(CaState::Open);
            self.flags.insert(Flags::CWR_DUE);
        }
    }

    /// Marks what is lost. Returns when more may be.
    fn detect_losses(
        &mut self,
        pools: &mut SendPools,
        advanced: bool,
        now: Instant,
    ) -> Option<Instant> {
        if self.una == self.nxt {
            return None;
        }
        if self.flags.has(Flags::SACK) {
            let in_recovery = matches!(self.state, CaState::Recovery | CaState::Loss);
            let reo_wnd_us = self.rack.reo_wnd_us(&self.rtt, in_recovery);
            return self
                .rack
                .detect(&mut self.board, &mut pools.records, reo_wnd_us, now)
                .deadline;
        }
        let lost = match self.state {
            // RFC 6582 §3.2 step 2: not because of what was sent again before.
            CaState::Open | CaState::Cwr => {
                self.duplicates >= DUP_THRESH && self.una.after(self.point)
            }
            // RFC 6582 §3.2 step 3: a partial ACK shows the next hole.
            CaState::Recovery => advanced,
            CaState::Loss => false,
        };
        if lost {
            self.mark_first_lost(pools);
        }
        None
    }

    fn mark_first_lost(&mut self, pools: &mut SendPools) {
        let first = self.board.first();
        if first == NONE {
            self.board.mark_bare_lost();
        } else if !pools.records.get(first).lost {
            self.board.mark_lost(&mut pools.records, first);
        }
    }

    /// RFC 6675 §5: the first loss in a window. `outstanding` bytes were not known to have arrived
    /// before the ACK that told.
    fn enter_recovery(&mut self, outstanding: u32, now: Instant) {
        // In a window that a mark reduced already, a loss does not reduce it again
        // (RFC 3168 §6.1.2).
        if self.state == CaState::Open {
            self.cc.on_signal(
                Signal::Loss {
                    flight_size: self.unacked(),
                },
                now,
            );
            self.undo.begin(self.una);
        } else {
            self.undo.forget();
        }
        self.point = self.nxt;
        self.prr.begin(outstanding);
        self.set_state(CaState::Recovery);
        self.flags.insert(Flags::CWR_DUE);
        self.flags.remove(
            Flags::TAIL_PROBE_SENT
                .and(Flags::TAIL_PROBE_DUE)
                .and(Flags::TAIL_PROBE_REPEATED),
        );
    }

    /// RFC 3168 §6.1.2: the peer echoes a congestion mark.
    fn enter_cwr(&mut self, now: Instant) {
        self.cc.on_signal(
            Signal::Ecn {
                flight_size: self.unacked(),
            },
            now,
        );
        self.point = self.nxt;
        self.undo.forget();
        self.set_state(CaState::Cwr);
        self.flags.insert(Flags::CWR_DUE);
    }

    /// Everything that was outstanding when it began is acknowledged.
    fn exit_recovery(&mut self, now: Instant) {
        if self.state != CaState::Cwr {
            self.cc.on_signal(Signal::RecoveryExit, now);
            self.rack.on_recovery_exit();
        }
        self.duplicates = 0;
        self.flags.remove(Flags::DUPLICATES.and(Flags::SEND_FIRST));
        self.set_state(CaState::Open);
    }

    /// After an ACK. `told`: it told of arrivals or losses.
    fn set_timer(&mut self, advanced: bool, told: bool, suspects: Option<Instant>, now: Instant) {
        if advanced {
            // RFC 6298 §5.3.
            self.rto_at = now + self.rtt.rto();
        }
        if self.una == self.nxt {
            // RFC 6298 §5.2.
            self.timer = Timer::None;
            return;
        }
        if advanced || told || self.timer == Timer::Reordering {
            self.arm(now);
        }
        self.wait_for_suspects(suspects);
    }

    fn wait_for_suspects(&mut self, suspects: Option<Instant>) {
        if let Some(at) = suspects
            && at < self.rto_at
        {
            self.timer = Timer::Reordering;
            self.deadline = at;
        }
    }

    /// What is lost, or a probe.
    #[cold]
    #[inline(never)]
    pub(super) fn plan_repair(&mut self, pools: &SendPools, allowance: &Allowance) -> Option<Plan> {
        if self.flags.has(Flags::TAIL_PROBE_DUE) {
            return self.plan_tail_probe(pools, allowance);
        }
        if self.undo.frto == Frto::NewData {
            if let Some(plan) = self.plan_new(pools, allowance)
                && self.is_allowed(&plan)
            {
                return Some(plan);
            }
            if self.nxt.after(self.point) {
                return None;
            }
            // RFC 5682 §3.1 step 2b: without new data there is nothing to learn.
            self.undo.frto = Frto::Off;
        }
        let mut id = self.board.first_lost();
        let mut range = (self.una, self.nxt);
        let first = self.board.first();
        if first != NONE {
            if self.flags.has(Flags::SEND_FIRST) && pools.records.get(first).lost {
                id = first;
            }
            let record = pools.records.get(id);
            range = (record.seq, record.end);
        }
        let plan = self.plan_again(range, id, Purpose::Data, allowance.mss);
        (self.flags.has(Flags::SEND_FIRST) || self.is_allowed(&plan)).then_some(plan)
    }

    /// As much of the sequence numbers in `range`, from the first on, as a segment takes.
    fn plan_again(&self, range: (SeqNum, SeqNum), record: u32, purpose: Purpose, mss: u16) -> Plan {
        let (seq, end) = range;
        let data_end = self.una + self.queue.len();
        let data = end.earlier(data_end).offset_from(seq);
        let len = data.min(u32::from(mss));
        Plan {
            seq,
            len: u16::try_from(len).unwrap_or(mss),
            fin: end.after(data_end) && len == data,
            push: seq + len == data_end,
            cwr: false,
            retransmission: true,
            purpose,
            record,
        }
    }

    /// RFC 8985 §7.3: new data if there is some and the peer has room for it, else the last segment
    /// again. cwnd does not count.
    fn plan_tail_probe(&mut self, pools: &SendPools, allowance: &Allowance) -> Option<Plan> {
        if let Some(plan) = self.plan_new(pools, allowance) {
            return Some(Plan {
                purpose: Purpose::TailProbe,
                ..plan
            });
        }
        let last = self.board.last();
        if last == NONE {
            self.flags.remove(Flags::TAIL_PROBE_DUE);
            return None;
        }
        let record = *pools.records.get(last);
        let data_end = self.una + self.queue.len();
        // Of a segment that was longer than they may be now, the end.
        let end = record.end.earlier(data_end);
        let seq = if end.offset_from(record.seq) > u32::from(allowance.mss) && end.after(record.seq)
        {
            end - u32::from(allowance.mss)
        } else {
            record.seq
        };
        Some(self.plan_again((seq, record.end), last, Purpose::TailProbe, allowance.mss))
    }

    /// [`on_sent`](Self::on_sent) of what is not new data in ordinary times.
    #[cold]
    #[inline(never)]
    pub(super) fn on_sent_in_repair(
        &mut self,
        pools: &mut SendPools,
        plan: &Plan,
        now: Instant,
        ts_value: u32,
    ) {
        if plan.purpose == Purpose::WindowProbe {
            self.flags.insert(Flags::WINDOW_PROBED);
            return;
        }
        let len = plan.end().offset_from(plan.seq);
        if plan.retransmission {
            self.on_retransmitted(pools, plan, now, ts_value);
        } else {
            self.on_sent_new(pools, plan, now);
        }
        if self.state == CaState::Recovery {
            self.prr.on_sent(len);
        }
        if plan.purpose == Purpose::TailProbe {
            self.flags.remove(Flags::TAIL_PROBE_DUE);
            self.flags.insert(Flags::TAIL_PROBE_SENT);
            self.flags
                .set(Flags::TAIL_PROBE_REPEATED, plan.retransmission);
            self.probe_end = self.nxt;
            // RFC 8985 §7.3: then the retransmission timer, from now on.
            self.rto_at = now + self.rtt.rto();
        }
        if self.timer != Timer::Reordering {
            self.arm(now);
        }
    }

    fn on_retransmitted(
        &mut self,
        pools: &mut SendPools,
        plan: &Plan,
        now: Instant,
        ts_value: u32,
    ) {
        self.flags.remove(Flags::SEND_FIRST);
        let (seq, end) = (plan.seq, plan.end());
        if plan.record == NONE {
            self.board.retransmit_bare();
        } else {
            self.board
                .retransmit(&mut pools.records, plan.record, seq, end, now);
        }
        if matches!(self.state, CaState::Recovery | CaState::Loss) {
            let stamp = self.flags.has(Flags::TIMESTAMPS).then_some(ts_value);
            self.undo.on_retransmit(end.offset_from(seq), stamp);
        }
        if seq == self.una {
            self.rto_at = now + self.rtt.rto();
        }
    }

    /// Time has come to `now`.
    pub fn on_timer(&mut self, pools: &mut SendPools, now: Instant) -> Expired {
        if self.timer == Timer::None || now < self.deadline {
            return Expired::Nothing;
        }
        if self.una == self.nxt {
            self.timer = Timer::None;
            return Expired::Nothing;
        }
        match self.timer {
            Timer::None => Expired::Nothing,
            Timer::Tlp => {
                self.flags.insert(Flags::TAIL_PROBE_DUE);
                // Should the probe not get out, this remains.
                self.rto_at = now + self.rtt.rto();
                self.arm(now);
                Expired::Tlp
            }
            Timer::Reordering => {
                self.on_reordering_timer(pools, now);
                Expired::Reordering
            }
            Timer::Rto => {
                self.on_rto(pools, now);
                Expired::Rto {
                    count: self.timeouts,
                }
            }
        }
    }

    fn on_reordering_timer(&mut self, pools: &mut SendPools, now: Instant) {
        let outstanding = self.board.in_flight() + self.board.lost();
        let lost_before = self.board.lost();
        let suspects = self.detect_losses(pools, false, now);
        if self.board.lost() > lost_before {
            if matches!(self.state, CaState::Open | CaState::Cwr) {
                self.enter_recovery(outstanding, now);
            }
            if self.state == CaState::Recovery {
                // No ACK comes with it, but what is lost is out of the network.
                let (in_flight, ssthresh) = (self.in_flight(), self.cc.cwnd());
                self.prr.on_ack(0, in_flight, ssthresh, self.mss, false);
            }
        }
        self.arm(now);
        self.wait_for_suspects(suspects);
    }

    /// RFC 6298 §5.4 to §5.6, RFC 8985 §6.3, RFC 5682 §3.1 step 1.
    fn on_rto(&mut self, pools: &mut SendPools, now: Instant) {
        let anew = matches!(self.state, CaState::Open | CaState::Cwr);
        let again = self.timeouts != 0;
        self.cc.on_signal(
            Signal::Rto {
                flight_size: self.unacked(),
                // Of losses in one window the window falls once.
                first: !again && self.state != CaState::Recovery,
            },
            now,
        );
        if anew {
            self.undo.begin(self.una);
        }
        let sack = self.flags.has(Flags::SACK);
        let reneged = sack && self.board.is_reneged(&pools.records, self.una);
        if reneged {
            // RFC 2018 §8: what was SACKed at the left edge is not there any more.
            self.board.renege(&mut pools.records, self.una, self.nxt);
            self.rack.on_nothing_sacked(self.una);
        } else if self.board.bare() {
            self.board.mark_bare_lost();
        } else if sack {
            let reo_wnd_us = self.rack.reo_wnd_us(&self.rtt, true);
            self.rack
                .mark_on_rto(&mut self.board, &mut pools.records, reo_wnd_us, now);
        } else {
            self.board.mark_all_lost(&mut pools.records);
        }
        self.point = self.nxt;
        self.set_state(CaState::Loss);
        self.undo.frto = if sack && anew && !reneged && !again {
            Frto::Retransmitted
        } else {
            Frto::Off
        };
        self.timeouts = self.timeouts.saturating_add(1);
        self.rtt.back_off();
        self.duplicates = 0;
        self.flags.insert(Flags::SEND_FIRST.and(Flags::CWR_DUE));
        self.flags.remove(
            Flags::TAIL_PROBE_SENT
                .and(Flags::TAIL_PROBE_DUE)
                .and(Flags::TAIL_PROBE_REPEATED)
                .and(Flags::DUPLICATES),
        );
        self.rto_at = now + self.rtt.rto();
        self.arm(now);
    }

    /// Segments carry at most `mss` bytes from now on, because the path takes no longer packets:
    /// those under way that are longer are lost, and sent again at once in pieces. The window stays
    /// as it is: that says nothing about congestion (RFC 1191 §6.5, RFC 8201 §5.4).
    pub fn on_mtu_reduced(&mut self, pools: &mut SendPools, mss: u16, now: Instant) {
        let mss = mss.max(1);
        self.set_mss(mss);
        let mut id = self.board.first();
        let mut any = false;
        while id != NONE {
            let record = *pools.records.get(id);
            // FIN takes no room.
            if !record.lost && record.len() > u32::from(mss) + 1 {
                self.board.mark_lost(&mut pools.records, id);
                any = true;
            }
            id = record.next;
        }
        if self.board.bare() && self.board.in_flight() > u32::from(mss) + 1 {
            self.board.mark_bare_lost();
            any = true;
        }
        if any {
            self.flags.insert(Flags::SEND_FIRST);
            self.rto_at = now + self.rtt.rto();
            self.arm(now);
        }
    }

    /// Segments carry at most `mss` bytes from now on. 0 counts as 1.
    pub fn set_mss(&mut self, mss: u16) {
        self.mss = mss.max(1);
        self.cc.set_mss(self.mss);
    }
}
