//! The sending half of a connection: the send buffer, what is sent when, and the short way of an
//! ACK.

use super::SendPools;
use super::arrivals::Arrivals;
use super::interface::{
    AckInput, Acked, Acknowledged, Allowance, CaState, Plan, Purpose, Setup, Timer,
};
use super::prr::Prr;
use super::rack::Rack;
use super::records::NONE;
use super::rtt::{Rtt, later, us_between};
use super::scoreboard::Scoreboard;
use super::undo::{Frto, Undo};
use crate::tcp::buffer::{ByteQueue, Cursor};
use crate::tcp::congestion::{AckInfo, CongestionControl, Signal};
use crate::tcp::seq::SeqNum;
use crate::time::Instant;

/// Bits. Those of [`Flags::LONG_WAY`] are out of the ordinary: an ACK that meets one takes the long
/// way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flags(u16);

impl Flags {
    /// [`CaState`] is not `Open`.
    pub(super) const NOT_OPEN: Self = Self(1);
    /// A tail loss probe is to be sent.
    pub(super) const TAIL_PROBE_DUE: Self = Self(1 << 1);
    /// A tail loss probe was sent and is not answered: `TLP.end_seq` is set.
    pub(super) const TAIL_PROBE_SENT: Self = Self(1 << 2);
    /// That probe was a retransmission: `TLP.is_retrans`.
    pub(super) const TAIL_PROBE_REPEATED: Self = Self(1 << 3);
    /// The first segment that is lost is sent again whatever cwnd says.
    pub(super) const SEND_FIRST: Self = Self(1 << 4);
    /// The byte at SND.NXT was sent to probe a closed window.
    pub(super) const WINDOW_PROBED: Self = Self(1 << 5);
    /// FIN was sent and is not acknowledged.
    pub(super) const FIN_SENT: Self = Self(1 << 6);
    /// There is a recovery that might be undone.
    pub(super) const UNDO_POSSIBLE: Self = Self(1 << 7);
    /// Duplicate ACKs were counted (without SACK).
    pub(super) const DUPLICATES: Self = Self(1 << 8);
    /// What takes the long way.
    pub(super) const LONG_WAY: Self = Self(0x1ff);

    /// FIN is to be sent, or was.
    pub(super) const CLOSED: Self = Self(1 << 9);
    /// FIN was acknowledged.
    pub(super) const FIN_ACKED: Self = Self(1 << 10);
    /// cwnd kept something from being sent, in this round trip.
    pub(super) const CWND_LIMITED: Self = Self(1 << 11);
    /// And in the last one.
    pub(super) const WAS_CWND_LIMITED: Self = Self(1 << 12);
    /// The next new segment has CWR.
    pub(super) const CWR_DUE: Self = Self(1 << 13);
    /// [`Setup::sack`].
    pub(super) const SACK: Self = Self(1 << 14);
    /// [`Setup::timestamps`].
    pub(super) const TIMESTAMPS: Self = Self(1 << 15);

    #[inline]
    pub(super) const fn has(self, any: Self) -> bool {
        self.0 & any.0 != 0
    }

    #[inline]
    pub(super) fn insert(&mut self, flags: Self) {
        self.0 |= flags.0;
    }

    #[inline]
    pub(super) fn remove(&mut self, flags: Self) {
        self.0 &= !flags.0;
    }

    #[inline]
    pub(super) fn set(&mut self, flags: Self, on: bool) {
        if on {
            self.insert(flags);
        } else {
            self.remove(flags);
        }
    }

    #[inline]
    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The sending half of a connection. FIN is one more sequence number behind the last byte; SYN was
/// dealt with before.
///
/// After each [`on_ack`](Self::on_ack) and [`on_timer`](Self::on_timer) the caller asks
/// [`plan`](Self::plan) for segments until there is none, tells of each with
/// [`on_sent`](Self::on_sent), and then looks at [`deadline`](Self::deadline).
#[derive(Debug)]
pub struct Sender<C> {
    /// Bytes from SND.UNA on.
    pub(super) queue: ByteQueue,
    cursor: Cursor,
    /// SND.UNA: the oldest byte not acknowledged.
    pub(super) una: SeqNum,
    /// SND.NXT: the next to be sent for the first time.
    pub(super) nxt: SeqNum,
    pub(super) board: Scoreboard,
    /// When the retransmission timer expires, if it is waited for. With nothing outstanding, an
    /// RTO after the last ACK: when the connection counts as idle.
    pub(super) rto_at: Instant,
    pub(super) deadline: Instant,
    pub(super) rtt: Rtt,
    pub(super) rack: Rack,
    pub(super) prr: Prr,
    pub(super) undo: Undo,
    /// SND.NXT when the round trip began that goes on now.
    pub(super) round_end: SeqNum,
    /// `TLP.end_seq`.
    pub(super) probe_end: SeqNum,
    /// SND.NXT when the last recovery began: `RecoveryPoint` of RFC 6675, `recover` of RFC 6582.
    pub(super) point: SeqNum,
    pub(super) mss: u16,
    /// Duplicate ACKs without SACK: as many segments left the network.
    pub(super) duplicates: u16,
    pub(super) flags: Flags,
    pub(super) state: CaState,
    pub(super) timer: Timer,
    /// Timeouts in a row.
    pub(super) timeouts: u8,
    pub(super) cc: C,
}

impl<C: CongestionControl> Sender<C> {
    /// For a connection whose first byte of data is `first`: ISS + 1.
    #[must_use]
    pub fn new(first: SeqNum, setup: &Setup, now: Instant) -> Self {
        let Setup {
            mss,
            sack,
            timestamps,
            rto_min_ms,
            syn_retransmitted,
            handshake_us,
        } = *setup;
        let mss = mss.max(1);
        let mut flags = Flags(0);
        flags.set(Flags::SACK, sack);
        flags.set(Flags::TIMESTAMPS, timestamps);
        let mut rtt = Rtt::new(rto_min_ms, syn_retransmitted);
        if let Some(us) = handshake_us.filter(|_| !syn_retransmitted) {
            rtt.sample(us);
            rtt.sample_min(us, now);
        }
        let mut cc = C::new(mss, now);
        if syn_retransmitted {
            cc.on_signal(Signal::SynLost, now);
        }
        Self {
            queue: ByteQueue::EMPTY,
            cursor: Cursor::default(),
            una: first,
            nxt: first,
            board: Scoreboard::EMPTY,
            rto_at: later(now, rtt.rto_us()),
            deadline: now,
            rtt,
            rack: Rack::new(first),
            prr: Prr::default(),
            undo: Undo::new(first),
            round_end: first,
            probe_end: first,
            // RFC 6582 §3.2 step 1: before everything.
            point: first - 1,
            mss,
            duplicates: 0,
            flags,
            state: CaState::Open,
            timer: Timer::None,
            timeouts: 0,
            cc,
        }
    }

    /// SND.UNA.
    #[inline]
    #[must_use]
    pub fn una(&self) -> SeqNum {
        self.una
    }

    /// SND.NXT.
    #[inline]
    #[must_use]
    pub fn nxt(&self) -> SeqNum {
        self.nxt
    }

    /// Bytes, FIN included, that were sent and are not acknowledged: FlightSize of RFC 5681.
    #[inline]
    #[must_use]
    pub fn unacked(&self) -> u32 {
        self.nxt.offset_from(self.una)
    }

    /// Bytes of data in the send buffer: those sent and not acknowledged, and those not sent.
    #[inline]
    #[must_use]
    pub fn buffered(&self) -> u32 {
        self.queue.len()
    }

    /// Bytes of data that were not sent yet.
    #[inline]
    #[must_use]
    pub fn unsent(&self) -> u32 {
        // With FIN sent this is 0, and SND.NXT one behind the data.
        self.queue.len().saturating_sub(self.unacked())
    }

    /// Whether FIN is to be sent, or was.
    #[inline]
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.flags.has(Flags::CLOSED)
    }

    /// Whether FIN waits to be sent.
    #[inline]
    #[must_use]
    pub fn fin_unsent(&self) -> bool {
        self.flags.has(Flags::CLOSED) && !self.flags.has(Flags::FIN_SENT.and(Flags::FIN_ACKED))
    }

    /// Bytes estimated to be in the network: `pipe` of RFC 6675 §4, `inflight` of RFC 9937.
    #[inline]
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        let in_flight = self.board.in_flight();
        if self.duplicates == 0 {
            return in_flight;
        }
        // Without SACK every duplicate ACK stands for a segment that left the network.
        in_flight.saturating_sub(u32::from(self.duplicates) * u32::from(self.mss))
    }

    /// Bytes taken for lost that were not sent again yet.
    #[inline]
    #[must_use]
    pub fn lost(&self) -> u32 {
        self.board.lost()
    }

    /// Bytes beyond SND.UNA that the peer has, as it says.
    #[inline]
    #[must_use]
    pub fn sacked(&self) -> u32 {
        self.unacked() - self.board.in_flight() - self.board.lost()
    }

    /// What is being done about losses.
    #[inline]
    #[must_use]
    pub fn state(&self) -> CaState {
        self.state
    }

    /// The round-trip time and the timeout.
    #[inline]
    #[must_use]
    pub fn rtt(&self) -> &Rtt {
        &self.rtt
    }

    /// Congestion control.
    #[inline]
    #[must_use]
    pub fn congestion(&self) -> &C {
        &self.cc
    }

    /// Retransmission timeouts in a row, with nothing acknowledged; stays at 255.
    #[inline]
    #[must_use]
    pub fn timeouts(&self) -> u8 {
        self.timeouts
    }

    /// Whether the path was seen to reorder segments.
    #[must_use]
    pub fn reordering_seen(&self) -> bool {
        self.rack.reordering_seen()
    }

    /// When [`on_timer`](Self::on_timer) is to be called.
    #[inline]
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        match self.timer {
            Timer::None => None,
            Timer::Rto | Timer::Tlp | Timer::Reordering => Some(self.deadline),
        }
    }

    /// Which timer that is.
    #[inline]
    #[must_use]
    pub fn timer(&self) -> Timer {
        self.timer
    }

    /// Takes `bytes` into the send buffer, as many as there is memory for; returns how many. None
    /// after [`close`](Self::close).
    #[inline]
    pub fn write(&mut self, pools: &mut SendPools, bytes: &[u8]) -> usize {
        if self.flags.has(Flags::CLOSED) {
            return 0;
        }
        self.queue.push_back(&mut pools.chunks, bytes)
    }

    /// There is nothing more to come: FIN goes behind the last byte.
    #[inline]
    pub fn close(&mut self) {
        self.flags.insert(Flags::CLOSED);
    }

    /// Gives all memory back. Nothing is sent any more.
    pub fn release(&mut self, pools: &mut SendPools) {
        self.queue.clear(&mut pools.chunks);
        self.cursor = Cursor::default();
        self.board.clear(&mut pools.records);
        self.una = self.nxt;
        self.timer = Timer::None;
        self.set_state(CaState::Open);
        self.undo.forget();
        self.duplicates = 0;
        self.flags.remove(Flags::LONG_WAY);
        self.flags.insert(Flags::CLOSED.and(Flags::FIN_ACKED));
    }

    /// Copies the payload of `plan` to `out`, which has as many bytes as that.
    #[inline]
    pub fn copy_out(&mut self, pools: &SendPools, plan: &Plan, out: &mut [u8]) -> usize {
        let offset = plan.seq.offset_from(self.una);
        let len = out.len().min(usize::from(plan.len));
        self.queue
            .copy_out(&pools.chunks, &mut self.cursor, offset, &mut out[..len])
    }

    /// The next segment to send, if there is one. It counts as sent only after
    /// [`on_sent`](Self::on_sent), before which nothing else may happen.
    #[inline]
    pub fn plan(&mut self, pools: &SendPools, allowance: &Allowance) -> Option<Plan> {
        if self.board.lost() != 0 || self.flags.has(Flags::TAIL_PROBE_DUE) {
            return self.plan_repair(pools, allowance);
        }
        let plan = self.plan_new(pools, allowance)?;
        self.is_allowed(&plan).then_some(plan)
    }

    /// The next segment of new data, if the peer's window, Nagle and the pool allow it.
    #[inline]
    pub(super) fn plan_new(&mut self, pools: &SendPools, allowance: &Allowance) -> Option<Plan> {
        let Allowance {
            segment,
            window,
            mss,
            now,
        } = *allowance;
        let unacked = self.unacked();
        let unsent = self.queue.len().saturating_sub(unacked);
        let len = segment.min(unsent).min(u32::from(mss));
        let last = len == unsent;
        let mut fin = false;
        if self.flags.has(Flags::CLOSED) {
            fin = last && window > len && self.fin_unsent();
        }
        if len == 0 && !fin {
            return None;
        }
        if unacked == 0 {
            // RFC 5681 §4.1: an RTO after the last ACK the ACK clock has stopped.
            if now > self.rto_at {
                self.cc.after_idle(now);
            }
        } else if !pools.records.has_room() || self.board.bare() {
            return None;
        }
        Some(Plan {
            seq: self.nxt,
            len: u16::try_from(len).unwrap_or(mss),
            fin,
            push: last,
            cwr: self.flags.has(Flags::CWR_DUE),
            retransmission: false,
            purpose: Purpose::Data,
            record: NONE,
        })
    }

    /// Whether cwnd, or in fast recovery PRR, allows `plan`. FIN alone does not count.
    #[inline]
    pub(super) fn is_allowed(&mut self, plan: &Plan) -> bool {
        let in_flight = self.in_flight();
        let len = u32::from(plan.len);
        let allowed = if self.state == CaState::Recovery {
            len <= self.prr.budget()
        } else {
            in_flight + len <= self.cc.cwnd()
        };
        // Whatever the window, one segment may be in flight: without it no ACK would ever come.
        let allowed = allowed || in_flight == 0;
        if !allowed {
            self.flags.insert(Flags::CWND_LIMITED);
        }
        allowed
    }

    /// One byte of new data (or FIN) for a closed window (RFC 9293 §3.8.6.1). It leaves SND.NXT as
    /// it is and arms no timer; when to send it is the caller's decision. None if nothing waits.
    #[must_use]
    pub fn plan_window_probe(&self) -> Option<Plan> {
        let data = self.unsent() != 0;
        if !data && !self.fin_unsent() {
            return None;
        }
        Some(Plan {
            seq: self.nxt,
            len: u16::from(data),
            fin: !data,
            push: false,
            cwr: false,
            retransmission: false,
            purpose: Purpose::WindowProbe,
            record: NONE,
        })
    }

    /// `plan` was sent, with timestamp `ts_value` if the connection has timestamps.
    #[inline]
    pub fn on_sent(&mut self, pools: &mut SendPools, plan: &Plan, now: Instant, ts_value: u32) {
        if plan.retransmission || plan.purpose != Purpose::Data || self.state == CaState::Recovery {
            return self.on_sent_in_repair(pools, plan, now, ts_value);
        }
        self.on_sent_new(pools, plan, now);
        if self.timer != Timer::Reordering {
            self.arm(now);
        }
    }

    /// New data was sent: SND.NXT moves on.
    #[inline]
    pub(super) fn on_sent_new(&mut self, pools: &mut SendPools, plan: &Plan, now: Instant) {
        debug_assert_eq!(plan.seq, self.nxt, "invariant: sent as planned");
        let end = plan.end();
        if self.nxt == self.una {
            // RFC 6298 §5.1.
            self.rto_at = later(now, self.rtt.rto_us());
        }
        self.board.push(&mut pools.records, self.nxt, end, now);
        self.nxt = end;
        if plan.fin {
            self.flags.insert(Flags::FIN_SENT);
        }
        self.flags.remove(Flags::CWR_DUE.and(Flags::WINDOW_PROBED));
    }

    /// An acceptable segment with ACK arrived.
    #[inline]
    pub fn on_ack(&mut self, pools: &mut SendPools, input: &AckInput<'_>) -> Acked {
        let unacked = self.unacked();
        let ack = input.ack;
        let bytes = ack.offset_from(self.una);
        // In order: it is in SND.UNA < SEG.ACK =< SND.NXT, and everything outstanding is in flight.
        if bytes.wrapping_sub(1) < unacked
            && self.board.in_flight() == unacked
            && !self.flags.has(Flags::LONG_WAY)
            && input.sack.is_none()
            && !input.ece
            && self.board.first() != NONE
        {
            let first = pools.records.get(self.board.first());
            if first.end == ack && ack == self.nxt && !first.retransmitted {
                let sent = first.sent;
                self.on_ack_of_only(pools, bytes, sent, input.now);
            } else {
                self.on_ack_in_order(pools, ack, bytes, unacked, input.now);
            }
            return Acked {
                kind: Acknowledged::New,
                bytes,
                fin: false,
                undone: false,
            };
        }
        // The last ACK of a connection: the one segment outstanding has FIN, with or without data.
        if bytes == unacked
            && self.is_only_fin_peculiar()
            && input.sack.is_none()
            && !input.ece
            && self.board.first() != NONE
            && bytes != 0
        {
            let first = pools.records.get(self.board.first());
            if first.end == ack && first.seq == self.una && !first.retransmitted {
                let sent = first.sent;
                self.on_ack_of_only(pools, bytes, sent, input.now);
                self.flags.remove(Flags::FIN_SENT);
                self.flags.insert(Flags::FIN_ACKED);
                return Acked {
                    kind: Acknowledged::New,
                    bytes: bytes - 1,
                    fin: true,
                    undone: false,
                };
            }
        }
        // The ACK of a handshake, and requests in a row: nothing is outstanding, so it tells nothing.
        if bytes | unacked == 0
            && !self.flags.has(Flags::LONG_WAY)
            && input.sack.is_none()
            && !input.ece
        {
            return Acked {
                kind: Acknowledged::Current,
                bytes: 0,
                fin: false,
                undone: false,
            };
        }
        self.on_ack_long_way(pools, input)
    }

    /// [`on_ack`](Self::on_ack) of a segment without SACK, window update or ECE, if it is in order:
    /// returns how many bytes it acknowledges. `None`: it is not, and nothing was changed.
    #[inline(always)]
    pub fn on_plain_ack(
        &mut self,
        pools: &mut SendPools,
        ack: SeqNum,
        has_data: bool,
        now: Instant,
    ) -> Option<u32> {
        let unacked = self.unacked();
        let bytes = ack.offset_from(self.una);
        if bytes == 0 {
            // With data it is no duplicate, and with SACK nothing else can be learnt from it.
            let idle = unacked == 0 && !self.flags.has(Flags::LONG_WAY);
            return (has_data && idle).then_some(0);
        }
        if bytes > unacked
            || self.board.in_flight() != unacked
            || self.flags.has(Flags::LONG_WAY)
            || self.board.first() == NONE
        {
            return None;
        }
        let first = pools.records.get(self.board.first());
        if first.end == ack && ack == self.nxt && !first.retransmitted {
            let sent = first.sent;
            self.on_ack_of_only(pools, bytes, sent, now);
        } else {
            self.on_ack_in_order(pools, ack, bytes, unacked, now);
        }
        Some(bytes)
    }

    /// Whether a FIN under way is all that is out of the ordinary.
    #[inline]
    fn is_only_fin_peculiar(&self) -> bool {
        let Flags(flags) = self.flags;
        flags & Flags::LONG_WAY.0 == Flags::FIN_SENT.0 && self.board.in_flight() == self.unacked()
    }

    /// Whether new data is all that may be to be sent: nothing to repair, no FIN, nothing to tell of
    /// congestion.
    #[inline]
    #[must_use]
    pub fn is_plain(&self) -> bool {
        const PECULIAR: Flags = Flags::LONG_WAY.and(Flags::CLOSED).and(Flags::CWR_DUE);
        !self.flags.has(PECULIAR) && self.board.lost() == 0 && self.timer != Timer::Reordering
    }

    /// Whether cwnd allows `len` bytes of new data, and there is a record for them, where
    /// [`is_plain`](Self::is_plain) holds.
    #[inline]
    #[must_use]
    pub fn may_send_plain(&self, pools: &SendPools, len: u32) -> bool {
        let in_flight = self.board.in_flight();
        pools.records.has_room()
            && !self.board.bare()
            && (in_flight == 0 || in_flight + len <= self.cc.cwnd())
    }

    /// Something is going to be sent, with nothing in flight.
    #[inline]
    pub fn resume(&mut self, now: Instant) {
        // RFC 5681 §4.1: an RTO after the last ACK the ACK clock has stopped.
        if now > self.rto_at {
            self.cc.after_idle(now);
        }
    }

    /// Copies the next new data to `out`.
    #[inline]
    pub fn copy_next(&mut self, pools: &SendPools, out: &mut [u8]) {
        let offset = self.unacked();
        // The usual case of a response: it is all there is, at the front.
        if offset == 0
            && let Some(piece) = self.queue.front(&pools.chunks).get(..out.len())
        {
            return out.copy_from_slice(piece);
        }
        self.queue
            .copy_out(&pools.chunks, &mut self.cursor, offset, out);
    }

    /// `len` bytes of new data were sent, as [`may_send_plain`](Self::may_send_plain) allowed.
    #[inline(always)]
    pub fn on_plain_sent(&mut self, pools: &mut SendPools, len: u32, now: Instant) {
        if self.nxt == self.una {
            // RFC 6298 §5.1.
            self.rto_at = later(now, self.rtt.rto_us());
        }
        let end = self.nxt + len;
        self.board.push(&mut pools.records, self.nxt, end, now);
        self.nxt = end;
        self.arm(now);
    }

    /// The usual case of a request and its response: one segment was outstanding, sent once at
    /// `sent`, and it is acknowledged.
    #[inline(always)]
    fn on_ack_of_only(&mut self, pools: &mut SendPools, bytes: u32, sent: Instant, now: Instant) {
        self.board.acknowledge_only(&mut pools.records);
        self.una = self.nxt;
        self.consume(pools, bytes);
        self.timeouts = 0;
        let us = us_between(sent, now);
        self.rack.on_only_arrival(sent, self.nxt, us);
        self.rtt.sample(us);
        self.rtt.sample_min(us, now);
        // All that was sent is acknowledged, so a round trip is complete.
        self.tell_congestion(bytes, bytes, Some(us), true, now);
        self.begin_round();
        self.rto_at = later(now, self.rtt.rto_us());
        self.timer = Timer::None;
    }

    /// Everything outstanding is in flight, and the first `bytes` of it are acknowledged.
    fn on_ack_in_order(
        &mut self,
        pools: &mut SendPools,
        ack: SeqNum,
        bytes: u32,
        in_flight: u32,
        now: Instant,
    ) {
        let mut arrivals = Arrivals::new(&mut self.rack, &self.rtt, now);
        self.board
            .acknowledge(&mut pools.records, ack, &mut arrivals);
        let (oldest, newest) = (arrivals.oldest(), arrivals.newest());
        self.una = ack;
        self.consume(pools, bytes);
        self.timeouts = 0;
        let round_ended = ack.at_or_after(self.round_end);
        let rtt_us = self.on_samples(oldest, newest, round_ended, now);
        self.tell_congestion(bytes, in_flight, rtt_us, round_ended, now);
        if round_ended {
            self.begin_round();
        }
        self.rto_at = later(now, self.rtt.rto_us());
        if self.una == self.nxt {
            self.timer = Timer::None;
        } else {
            self.arm(now);
            if let Some(rtt_us) = rtt_us
                && bytes <= u32::from(self.mss)
            {
                self.expect_prompt_ack(rtt_us, now);
            }
        }
    }

    /// Segments sent once arrived, of which the first was sent at `oldest` and the last at
    /// `newest`. Returns the time the last one took, in microseconds.
    ///
    /// SRTT takes one sample in a round trip, as RFC 6298 wants it, so that its memory is some round
    /// trips and not some ACKs (RFC 7323 appendix G); of the first segment of those an ACK covers,
    /// which includes the peer's delay in acknowledging. All else wants the path's time: the last.
    #[inline]
    pub(super) fn on_samples(
        &mut self,
        oldest: Option<Instant>,
        newest: Option<Instant>,
        round_ended: bool,
        now: Instant,
    ) -> Option<u32> {
        let (Some(oldest), Some(newest)) = (oldest, newest) else {
            return None;
        };
        let newest_us = us_between(newest, now);
        if round_ended || !self.rtt.is_measured() {
            let oldest_us = if oldest == newest {
                newest_us
            } else {
                us_between(oldest, now)
            };
            self.rtt.sample(oldest_us);
        }
        self.rtt.sample_min(newest_us, now);
        Some(newest_us)
    }

    /// New data was acknowledged: the window may grow.
    #[inline(always)]
    pub(super) fn tell_congestion(
        &mut self,
        bytes_acked: u32,
        in_flight: u32,
        rtt_us: Option<u32>,
        round_ended: bool,
        now: Instant,
    ) {
        let limited = self
            .flags
            .has(Flags::CWND_LIMITED.and(Flags::WAS_CWND_LIMITED))
            || self.cc.in_slow_start() && in_flight > self.cc.cwnd() / 2;
        self.cc.on_ack(&AckInfo {
            bytes_acked,
            in_flight,
            rtt_us,
            srtt_us: self.rtt.srtt_us(),
            min_rtt_us: self.rtt.min_us(),
            app_limited: !limited,
            in_recovery: matches!(self.state, CaState::Recovery | CaState::Cwr),
            round_ended,
            now,
        });
    }

    /// A round trip ended with the present ACK.
    #[inline]
    pub(super) fn begin_round(&mut self) {
        self.round_end = self.nxt;
        if self
            .flags
            .has(Flags::CWND_LIMITED.and(Flags::WAS_CWND_LIMITED))
        {
            let limited = self.flags.has(Flags::CWND_LIMITED);
            self.flags.set(Flags::WAS_CWND_LIMITED, limited);
            self.flags.remove(Flags::CWND_LIMITED);
        }
        // Without SACK it is looked at outside of recovery, where it means "before SND.UNA", and
        // must not be left so far behind that it comes round.
        if !self.flags.has(Flags::SACK) && self.state == CaState::Open && self.una.after(self.point)
        {
            self.point = self.una - 1;
        }
    }

    pub(super) fn set_state(&mut self, state: CaState) {
        self.state = state;
        self.flags.set(Flags::NOT_OPEN, state != CaState::Open);
        if state != CaState::Loss {
            self.undo.frto = Frto::Off;
        }
        self.flags
            .set(Flags::UNDO_POSSIBLE, self.undo.is_possible());
    }

    /// `count` bytes of data were acknowledged.
    #[inline]
    pub(super) fn consume(&mut self, pools: &mut SendPools, count: u32) -> u32 {
        let consumed = self.queue.consume(&mut pools.chunks, count);
        self.cursor.on_consumed(consumed);
        consumed
    }
}
