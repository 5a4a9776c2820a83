//! What to send now: text, acknowledgements, probes; SYNs before, nothing after.

use super::super::buffer::CHUNK_BYTES;
use super::super::config::Ecn as EcnPolicy;
use super::super::congestion::CongestionControl;
use super::super::deliver::{Allowance, Plan};
use super::super::flow::receive_window::syn_field;
use super::super::flow::{Probe, Space, Unsent, Verdict};
use super::super::manage::State;
use super::super::options::{OptionsOut, Timestamps};
use super::super::pools::Pools;
use super::super::segment::{Ecn, Flags, Header};
use super::super::seq::SeqNum;
use super::super::socket_options::IpFields;
use super::super::tuple::Tuple;
use super::{Connection, Context};
use crate::counters::Event;
use crate::ip::address::Ip;

/// A segment that is to leave. Its text is written by whoever asks for room for it.
#[derive(Debug)]
pub struct Outgoing<I: Ip> {
    /// Both ends.
    pub tuple: Tuple<I::Addr>,
    /// Its header.
    pub header: Header,
    /// Its options.
    pub options: OptionsOut,
    /// Length of its text, in bytes.
    pub payload_len: usize,
    /// What the IP header says of congestion.
    pub ecn: Ecn,
    /// What else the application wants there.
    pub ip: IpFields,
}

/// Where segments go.
pub trait Output<I: Ip> {
    /// Sends a segment whose text `fill` writes into the room for it, all of it.
    ///
    /// # Errors
    /// [`Blocked`] if nothing can leave now; `fill` was not called then.
    fn emit(&mut self, segment: &Outgoing<I>, fill: impl FnOnce(&mut [u8])) -> Result<(), Blocked>;
}

/// There is no room to send now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocked;

/// What [`Connection::transmit`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transmitted {
    /// Everything that may leave now has.
    Done,
    /// There is more, once there is room.
    Blocked,
}

impl<I: Ip, C: CongestionControl> Connection<I, C> {
    /// Sends everything that may leave now.
    #[inline]
    pub fn transmit(&mut self, cx: &mut Context<'_>, out: &mut impl Output<I>) -> Transmitted {
        let sent = match self.state {
            State::SynSent(_) | State::SynReceived(_) => self.transmit_syn(cx, out),
            State::Closed(_) => Ok(()),
            _ => self.transmit_text(cx, out),
        };
        match sent {
            Ok(()) => Transmitted::Done,
            Err(Blocked) => Transmitted::Blocked,
        }
    }

    #[inline]
    fn transmit_text(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut impl Output<I>,
    ) -> Result<(), Blocked> {
        while let Some(plan) = self.plan(cx) {
            self.emit_text(cx, out, &plan)?;
        }
        if self.acks.is_due(cx.now) {
            self.emit_ack(cx, out, self.sender.nxt())?;
        }
        if self.application.take_keepalive() {
            // RFC 9293 §3.8.4: a sequence number the peer has acknowledged makes it answer.
            self.emit_ack(cx, out, self.sender.una() - 1)?;
        }
        Ok(())
    }

    /// The next text to leave, if any may. Where the peer's window is why there is none, the persist
    /// timer runs.
    #[inline]
    fn plan(&mut self, cx: &mut Context<'_>) -> Option<Plan> {
        let queued = self.sender.unsent();
        let nothing_new = queued == 0 && !self.sender.fin_unsent();
        if nothing_new && self.sender.unacked() == 0 {
            self.persist.stop();
            return None;
        }
        let probe = self.timer.take_window_probe();
        let (una, nxt) = (self.sender.una(), self.sender.nxt());
        let mss = self.room_for_text();
        let verdict = self.send_window.next_segment(&Unsent {
            queued,
            una,
            nxt,
            mss,
            nagle: !self.application.nodelay(),
            more: false,
            last: self.sender.is_closed(),
            overridden: probe == Some(Probe::Override),
        });
        let allowance = Allowance {
            segment: match verdict {
                Verdict::Send(len) => len,
                _ => 0,
            },
            window: self.send_window.room_from(nxt),
            mss,
            now: cx.now,
        };
        let plan = self.sender.plan(&cx.pools.send, &allowance);
        if plan.is_some() {
            return plan;
        }
        self.persist(cx, verdict);
        if probe == Some(Probe::ZeroWindow) && verdict == Verdict::Closed {
            cx.events.count(Event::TcpWindowProbeTx);
            return self.sender.plan_window_probe();
        }
        None
    }

    /// RFC 9293 §3.8.6.1: with nothing in flight, no ACK will ever say that there is room again.
    #[inline]
    fn persist(&mut self, cx: &Context<'_>, verdict: Verdict) {
        let idle = self.sender.unacked() == 0;
        match verdict {
            Verdict::Closed if idle => {
                let rto = self.sender.rtt().rto();
                self.persist.on_zero_window(rto, cx.now);
            }
            Verdict::Silly | Verdict::More if idle => self.persist.on_silly_window(cx.now),
            _ => self.persist.stop(),
        }
    }

    /// How much text a segment may have: what the peer takes and the path carries, less options
    /// (RFC 6691 §2).
    #[inline]
    fn room_for_text(&self) -> u16 {
        let mss = self.options.mss;
        if !self.receiver.has_sack() {
            return mss;
        }
        // As many blocks as there may be.
        mss.saturating_sub(if self.options.timestamps { 28 } else { 36 })
            .max(1)
    }

    /// How full our receive buffer is.
    #[inline]
    pub(super) fn space(&self, cx: &Context<'_>) -> Space {
        self.space_in(cx.pools)
    }

    /// The same, without a context.
    #[inline]
    pub(super) fn space_in(&self, pools: &Pools) -> Space {
        let chunks = pools.receive.free_chunks();
        Space {
            next: self.receiver.next(),
            buffered: self.receiver.readable(),
            #[expect(clippy::cast_possible_truncation, reason = "2048")]
            memory: chunks.saturating_mul(CHUNK_BYTES as u32),
            mss: self.our_mss(),
        }
    }

    fn emit_text(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut impl Output<I>,
        plan: &Plan,
    ) -> Result<(), Blocked> {
        let mut flags = Flags::ACK;
        if plan.fin {
            flags = flags.union(Flags::FIN);
        }
        if plan.push {
            flags = flags.union(Flags::PSH);
        }
        // RFC 3168 §6.1.2: only where ECN was agreed upon; the window falls for other reasons as well.
        if plan.cwr && self.options.ecn {
            flags = flags.union(Flags::CWR);
        }
        let fresh = !plan.retransmission && plan.len > 0 && !plan.is_window_probe();
        let tuple = self.tuple;
        let segment = Outgoing {
            tuple,
            header: self.header(cx, flags, plan.seq),
            options: self.options_out(cx),
            payload_len: usize::from(plan.len),
            // RFC 3168 §6.1.4 to §6.1.6: not on retransmissions, ACKs and window probes.
            ecn: if self.options.ecn && fresh {
                Ecn::Ect0
            } else {
                Ecn::NotEct
            },
            ip: self.application.ip(),
        };
        let (sender, pools) = (&mut self.sender, &mut *cx.pools);
        out.emit(&segment, |room| {
            sender.copy_out(&pools.send, plan, room);
        })?;
        let (ack, value) = (segment.header.ack, segment.options.timestamps);
        let value = value.map_or(0, |timestamps| timestamps.value);
        self.sender.on_sent(&mut cx.pools.send, plan, cx.now, value);
        let len = u32::from(plan.len);
        if fresh {
            self.send_window.on_sent(plan.end(), len, self.options.mss);
        }
        if plan.retransmission {
            cx.events.count(Event::TcpRetransmitted);
        }
        self.after_ack(ack, plan.len > 0);
        cx.events.count(Event::TcpSegmentTx);
        cx.events.add(Event::TcpTxBytes, len.into());
        Ok(())
    }

    fn emit_ack(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut impl Output<I>,
        seq: SeqNum,
    ) -> Result<(), Blocked> {
        let tuple = self.tuple;
        let segment = Outgoing {
            tuple,
            header: self.header(cx, Flags::ACK, seq),
            options: self.options_out(cx),
            payload_len: 0,
            ecn: Ecn::NotEct,
            ip: self.application.ip(),
        };
        out.emit(&segment, |_| {})?;
        self.after_ack(segment.header.ack, false);
        cx.events.count(Event::TcpAckTx);
        Ok(())
    }

    /// A segment with an acknowledgement has left.
    #[inline]
    pub(super) fn after_ack(&mut self, ack: SeqNum, with_data: bool) {
        self.options.last_ack_sent = ack;
        self.acks.on_ack_sent(with_data);
    }

    #[inline]
    fn header(&mut self, cx: &Context<'_>, flags: Flags, seq: SeqNum) -> Header {
        let flags = if self.options.echo_ce {
            flags.union(Flags::ECE)
        } else {
            flags
        };
        let space = self.space(cx);
        Header {
            source_port: self.tuple.local_port,
            destination_port: self.tuple.remote_port,
            seq,
            ack: space.next,
            flags,
            window: self.receive_window.advertise(&space),
            urgent: 0,
        }
    }

    #[inline]
    fn options_out(&mut self, cx: &Context<'_>) -> OptionsOut {
        let timestamps = self.options.timestamps.then(|| Timestamps {
            value: self.options.clock.value(cx.now),
            echo: self.options.recent,
        });
        let mut options = OptionsOut::timestamps(timestamps);
        if self.receiver.has_sack() && self.options.sack {
            let room = if self.options.timestamps { 3 } else { 4 };
            options.sack = self.receiver.sack_blocks(&cx.pools.receive, room);
        }
        options
    }

    /// The SYN, or the SYN,ACK of a simultaneous open.
    #[cold]
    fn transmit_syn(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut impl Output<I>,
    ) -> Result<(), Blocked> {
        if !self.acks.is_due(cx.now) {
            return Ok(());
        }
        if !self.timer.is_syn_due() {
            // RFC 9293 §3.10.7.4, first: `<SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>`.
            return self.emit_ack(cx, out, self.sender.nxt());
        }
        let config = cx.config;
        let (iss, retransmissions, flags) = match self.state {
            State::SynSent(state) => (state.iss, state.retransmissions, Flags::SYN),
            State::SynReceived(state) => {
                let flags = Flags::SYN.union(Flags::ACK);
                (state.iss, state.retransmissions, flags)
            }
            _ => return Ok(()),
        };
        let offers = flags == Flags::SYN;
        // RFC 3168 §6.1.1.1: a SYN sent again asks for nothing that may have been its end.
        let ecn = match (offers, config.ecn) {
            (true, EcnPolicy::Offer) if retransmissions == 0 => Flags::ECE.union(Flags::CWR),
            (false, _) if self.options.ecn => Flags::ECE,
            _ => Flags::NONE,
        };
        let timestamps = if offers {
            config.timestamps
        } else {
            self.options.timestamps
        };
        let scale = if offers {
            config.window_scaling
        } else {
            self.options.scaling
        };
        let options = OptionsOut {
            mss: Some(self.our_mss()),
            window_scale: scale.then(|| self.receive_window.scale()),
            sack_permitted: if offers {
                config.sack
            } else {
                self.options.sack
            },
            timestamps: timestamps.then(|| Timestamps {
                value: self.options.clock.value(cx.now),
                echo: self.options.recent,
            }),
            ..OptionsOut::NONE
        };
        let next = self.receiver.next();
        let header = Header {
            source_port: self.tuple.local_port,
            destination_port: self.tuple.remote_port,
            seq: iss,
            ack: if offers { SeqNum::new(0) } else { next },
            flags: flags.union(ecn),
            window: syn_field(self.receive_window.capacity()),
            urgent: 0,
        };
        let tuple = self.tuple;
        let segment = Outgoing {
            tuple,
            header,
            options,
            payload_len: 0,
            ecn: Ecn::NotEct,
            ip: self.application.ip(),
        };
        out.emit(&segment, |_| {})?;
        self.timer.on_syn_sent(retransmissions, cx.now);
        self.acks.on_ack_sent(false);
        cx.events.count(Event::TcpSynTx);
        Ok(())
    }
}
