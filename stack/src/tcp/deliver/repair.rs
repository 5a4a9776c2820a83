//! What is sent again: what is lost, and probes for the tail.

use super::SendPools;
use super::interface::{Allowance, CaState, Plan, Purpose, Timer};
use super::records::NONE;
use super::rtt::later;
use super::sender::{Flags, Sender};
use super::undo::Frto;
use crate::tcp::congestion::CongestionControl;
use crate::tcp::seq::SeqNum;
use crate::time::Instant;

impl<C: CongestionControl> Sender<C> {
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
            self.rto_at = later(now, self.rtt.rto_us());
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
            self.rto_at = later(now, self.rtt.rto_us());
        }
    }

    /// Whether `ack` is of the byte that was sent to probe a closed window.
    #[must_use]
    pub fn is_of_window_probe(&self, ack: SeqNum) -> bool {
        self.flags.has(Flags::WINDOW_PROBED) && ack == self.nxt + 1
    }

    /// Length of the oldest segment outstanding, in bytes, FIN included; of what has no records all that
    /// is outstanding. 0 if nothing is.
    #[must_use]
    pub fn first_len(&self, pools: &SendPools) -> u32 {
        match self.board.first() {
            NONE => self.unacked(),
            first => pools.records.get(first).len(),
        }
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
            self.rto_at = later(now, self.rtt.rto_us());
            self.arm(now);
        }
    }

    /// Segments carry at most `mss` bytes from now on. 0 counts as 1.
    pub fn set_mss(&mut self, mss: u16) {
        self.mss = mss.max(1);
        self.cc.set_mss(self.mss);
    }
}
