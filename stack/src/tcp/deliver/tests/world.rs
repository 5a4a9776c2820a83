//! A sender, a network that loses, doubles, delays and reorders, and a peer that keeps what
//! arrived: all of it from one seed, in virtual time. There are no frames and no headers.

use crate::tcp::congestion::{AckInfo, CongestionControl, NewReno, Signal};
use crate::tcp::deliver::interface::Purpose;
use crate::tcp::deliver::sender::Flags;
use crate::tcp::deliver::{
    AckInput, Acked, Acknowledged, Allowance, CaState, Expired, Plan, SendPools, Sender, Setup,
    Timer,
};
use crate::tcp::options::SackBlocks;
use crate::tcp::seq::SeqNum;
use crate::time::{Duration, Instant};
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

pub(super) const MS: u64 = 1_000_000;

/// Xorshift64*: repeatable, and good enough to throw dice.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        n != 0 && self.below(n) == 0
    }

    /// True in `permille` of 1000.
    pub(super) fn permille(&mut self, permille: u64) -> bool {
        self.below(1000) < permille
    }
}

/// [`NewReno`] that remembers what it was told.
#[derive(Clone, Debug)]
pub(super) struct Recording {
    inner: NewReno,
    pub(super) signals: Vec<Signal>,
}

impl CongestionControl for Recording {
    const NAME: &'static str = "recording";

    fn new(mss: u16, now: Instant) -> Self {
        Self {
            inner: NewReno::new(mss, now),
            signals: Vec::new(),
        }
    }

    fn on_ack(&mut self, ack: &AckInfo) {
        self.inner.on_ack(ack);
    }

    fn on_signal(&mut self, signal: Signal, now: Instant) {
        self.signals.push(signal);
        self.inner.on_signal(signal, now);
    }

    fn after_idle(&mut self, now: Instant) {
        self.inner.after_idle(now);
    }

    fn cwnd(&self) -> u32 {
        self.inner.cwnd()
    }

    fn ssthresh(&self) -> u32 {
        self.inner.ssthresh()
    }

    fn set_mss(&mut self, mss: u16) {
        self.inner.set_mss(mss);
    }
}

/// What the network does, and who the two ends are.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) seed: u64,
    pub(super) setup: Setup,
    pub(super) bytes: u32,
    /// The most bytes in one write, and how long the application pauses between them.
    pub(super) write_max: u32,
    pub(super) pause_us: u64,
    /// One way.
    pub(super) delay_us: u64,
    /// Added at random to every packet, which reorders them.
    pub(super) jitter_us: u64,
    /// In thousandths.
    pub(super) loss: u64,
    pub(super) ack_loss: u64,
    pub(super) duplication: u64,
    /// So many packets are late by `late_us`.
    pub(super) late: u64,
    pub(super) late_us: u64,
    /// After a packet was lost the next ones are too, with so much probability.
    pub(super) burst: u64,
    /// Every so many packets the path stands still for `stall_us`.
    pub(super) stall_every: u64,
    pub(super) stall_us: u64,
    /// The peer acknowledges every second segment, the others after 40 ms.
    pub(super) delayed_ack: bool,
    pub(super) dsack: bool,
    /// The peer throws away what is out of order so often.
    pub(super) renege: u64,
    /// Nonsense arrives so often.
    pub(super) lies: u64,
    pub(super) window: u32,
    pub(super) records: u32,
    /// The path marks instead of loses, so often.
    pub(super) marks: u64,
    /// The path takes smaller packets all of a sudden, so often.
    pub(super) mtu_falls: u64,
    /// Everything is written before anything is sent.
    pub(super) at_once: bool,
    /// FIN, and a byte before it, come so much later; 0: with the rest.
    pub(super) more_after_us: u64,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            seed: 1,
            setup: Setup {
                mss: 1000,
                ..Setup::default()
            },
            bytes: 200_000,
            write_max: 20_000,
            pause_us: 0,
            delay_us: 5000,
            jitter_us: 0,
            loss: 0,
            ack_loss: 0,
            duplication: 0,
            late: 0,
            late_us: 0,
            burst: 0,
            stall_every: 0,
            stall_us: 0,
            delayed_ack: false,
            dsack: true,
            renege: 0,
            lies: 0,
            window: 1 << 20,
            records: 4096,
            marks: 0,
            mtu_falls: 0,
            at_once: false,
            more_after_us: 0,
        }
    }
}

#[derive(Clone, Debug)]
struct Data {
    seq: SeqNum,
    payload: Vec<u8>,
    fin: bool,
    ts: u32,
    ce: bool,
    cwr: bool,
}

#[derive(Clone, Debug)]
struct Ack {
    ack: SeqNum,
    sack: SackBlocks,
    echo: u32,
    window: u32,
    ece: bool,
}

#[derive(Clone, Debug)]
enum Event {
    ToPeer(Data),
    ToUs(Ack),
    PeerTimer,
    Write,
}

/// The receiving half, as simple as it can be: a map of what arrived.
struct Peer {
    next: SeqNum,
    /// Ranges out of order, by offset from the first byte.
    ranges: BTreeMap<u32, u32>,
    /// The ranges' starts, the last that changed first.
    recent: Vec<u32>,
    last_ack_sent: SeqNum,
    ts_recent: u32,
    unacked_segments: u32,
    timer: bool,
    ece: bool,
    received: Vec<u8>,
    finished: bool,
    got_twice: u32,
    reneged: u32,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) sent: u32,
    pub(super) retransmitted: u32,
    pub(super) lost: u32,
    pub(super) rto: u32,
    pub(super) tlp: u32,
    pub(super) reordering_timer: u32,
    pub(super) losses: u32,
    pub(super) rtos: u32,
    pub(super) undone: u32,
    pub(super) ecn: u32,
}

pub(super) struct World {
    pub(super) scenario: Scenario,
    pub(super) now: Instant,
    pub(super) sender: Sender<Recording>,
    pub(super) pools: SendPools,
    peer: Peer,
    first: SeqNum,
    dice: Dice,
    events: BTreeMap<(Instant, u64), Event>,
    serial: u64,
    written: u32,
    bursting: bool,
    stalled_until: Instant,
    stalls: bool,
    to_peer: u64,
    window: u32,
    last_window: u32,
    persist_at: Option<Instant>,
    pub(super) counts: Counts,
    /// SND.NXT when the window was last reduced.
    reduced_at: Option<SeqNum>,
    /// Packets to lose, by their number.
    pub(super) lose: Vec<u32>,
    /// Packets to delay, by their number, by so many microseconds.
    pub(super) delay: Vec<(u32, u64)>,
    /// So many retransmissions are lost, the first ones.
    pub(super) lose_retransmissions: u32,
    mss: u16,
    pub(super) start: Instant,
    pub(super) finish: Instant,
}

fn pattern(offset: u32) -> u8 {
    (offset.wrapping_mul(0x9e37_79b1) >> 24).to_le_bytes()[0]
}

impl World {
    pub(super) fn new(scenario: Scenario) -> Self {
        let mut dice = Dice::new(scenario.seed);
        let first = SeqNum::new(u32::try_from(dice.next() & 0xffff_ffff).unwrap());
        // Not the clock's zero, and wrapping timestamps on the way.
        let now = Instant::from_nanos(1_000_000 * MS + dice.below(1000) * 1000);
        let mut world = Self {
            sender: Sender::new(first, &scenario.setup, now),
            pools: SendPools::new(1024, scenario.records),
            peer: Peer {
                next: first,
                ranges: BTreeMap::new(),
                recent: Vec::new(),
                last_ack_sent: first,
                ts_recent: 0,
                unacked_segments: 0,
                timer: false,
                ece: false,
                received: Vec::new(),
                finished: false,
                got_twice: 0,
                reneged: 0,
            },
            now,
            first,
            dice,
            events: BTreeMap::new(),
            serial: 0,
            written: 0,
            bursting: false,
            stalled_until: now,
            stalls: true,
            to_peer: 0,
            window: scenario.window,
            last_window: scenario.window,
            persist_at: None,
            counts: Counts::default(),
            reduced_at: None,
            lose: Vec::new(),
            delay: Vec::new(),
            lose_retransmissions: 0,
            mss: scenario.setup.mss,
            start: now,
            finish: now,
            scenario,
        };
        world.at(0, Event::Write);
        world
    }

    fn at(&mut self, after_us: u64, event: Event) {
        self.serial += 1;
        let at = self.now + Duration::from_micros(after_us);
        self.events.insert((at, self.serial), event);
    }

    fn ts(&self) -> u32 {
        u32::try_from((self.now.as_nanos() / MS) & 0xffff_ffff)
            .unwrap()
            .wrapping_add(0xfff0_0000)
    }

    /// Until all arrived and is acknowledged. Panics if that never happens.
    pub(super) fn run(&mut self) -> Counts {
        for _ in 0..2_000_000 {
            if self.peer.finished && !self.sender.is_closed() {
                unreachable!();
            }
            if self.sender.una() == self.end() {
                self.finish = self.now;
                self.check_end();
                return self.counts;
            }
            self.step();
        }
        panic!("no end: {:?} {:?}", self.sender, self.scenario);
    }

    fn end(&self) -> SeqNum {
        self.first + self.scenario.bytes + 1
    }

    pub(super) fn step(&mut self) {
        let event = self.events.first_key_value().map(|(&key, _)| key);
        let timer = self.sender.deadline();
        let mut next: Option<Instant> = event.map(|(at, _)| at);
        for at in [timer, self.persist_at].into_iter().flatten() {
            next = Some(next.map_or(at, |next| next.min(at)));
        }
        let Some(next) = next else {
            panic!("nothing will ever happen: {:?}", self.sender);
        };
        self.now = self.now.max(next);
        assert!(
            self.now.as_nanos() < 40_000_000 * MS,
            "too long: {:?} {:?}",
            self.sender,
            self.scenario
        );
        if let Some(key @ (at, _)) = event
            && at <= self.now
        {
            let event = self.events.remove(&key).unwrap();
            self.happen(event);
        } else if timer.is_some_and(|at| at <= self.now) {
            let timer = self.sender.timer();
            match self.sender.on_timer(&mut self.pools, self.now) {
                Expired::Nothing => panic!("due, and not: {:?}", self.sender),
                Expired::Rto { count } => {
                    assert_eq!(timer, Timer::Rto);
                    assert_eq!(count, self.sender.timeouts());
                    self.counts.rto += 1;
                }
                Expired::Tlp => self.counts.tlp += 1,
                Expired::Reordering => self.counts.reordering_timer += 1,
            }
            if let Some(at) = self.sender.deadline() {
                assert!(
                    at > self.now,
                    "a timer that is due at once: {:?}",
                    self.sender
                );
            }
        } else {
            self.persist_at = None;
            self.probe_window();
        }
        self.check();
        self.transmit();
        self.check();
        if self.dice.permille(self.scenario.mtu_falls) && self.mss > 200 {
            let mss = self.mss - self.mss / 4;
            self.reduce_mss(mss);
            self.check();
        }
        if self.scenario.lies != 0 && self.dice.one_in(self.scenario.lies) {
            self.lie();
            self.check();
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Write => self.write(),
            Event::ToPeer(data) => self.arrive(data),
            Event::PeerTimer => {
                if self.peer.timer {
                    self.acknowledge(None);
                }
            }
            Event::ToUs(ack) => {
                let has_data = false;
                let input = AckInput {
                    ack: ack.ack,
                    window_changed: ack.window != self.last_window,
                    has_data,
                    sack: (!ack.sack.is_empty()).then_some(&ack.sack),
                    ts_echo: self.scenario.setup.timestamps.then_some(ack.echo),
                    ts_now: self.ts(),
                    ece: ack.ece,
                    now: self.now,
                };
                let una = self.sender.una();
                let acked = self.on_ack(&input);
                assert_ne!(acked.kind, Acknowledged::NeverSent);
                assert_eq!(
                    self.sender.una().offset_from(una),
                    acked.bytes + u32::from(acked.fin)
                );
                self.last_window = ack.window;
                if !ack.ack.before(una) {
                    self.window = ack.window;
                }
            }
        }
    }

    pub(super) fn on_ack(&mut self, input: &AckInput<'_>) -> Acked {
        let acked = self.sender.on_ack(&mut self.pools, input);
        self.counts.undone += u32::from(acked.undone);
        if acked.undone {
            self.reduced_at = None;
        }
        acked
    }

    fn write(&mut self) {
        let left = self.scenario.bytes - self.written;
        let most = u32::try_from(self.dice.below(u64::from(self.scenario.write_max)) + 1).unwrap();
        let mut count = if self.scenario.at_once {
            left
        } else {
            left.min(most)
        };
        let later = self.scenario.more_after_us;
        if later != 0 && left > 1 {
            count = left - 1;
        }
        let bytes: Vec<u8> = (self.written..self.written + count).map(pattern).collect();
        let taken = self.sender.write(&mut self.pools, &bytes);
        self.written += u32::try_from(taken).unwrap();
        if self.written == self.scenario.bytes {
            self.sender.close();
            assert_eq!(self.sender.write(&mut self.pools, &[1]), 0);
        } else {
            let pause = self.dice.below(self.scenario.pause_us * 2 + 1) + 1 + later;
            self.at(pause, Event::Write);
        }
    }

    fn allowance(&self) -> Allowance {
        let mss = self.mss;
        let window = self.window.saturating_sub(self.sender.unacked());
        let unsent = self.sender.unsent();
        let segment = unsent.min(window).min(u32::from(mss));
        let worth = segment == u32::from(mss) || segment == unsent || self.sender.unacked() == 0;
        Allowance {
            segment: if worth { segment } else { 0 },
            window,
            mss,
            now: self.now,
        }
    }

    pub(super) fn transmit(&mut self) {
        let ssthresh = self.sender.congestion().cwnd();
        let in_flight_at_first = self.sender.in_flight();
        loop {
            let allowance = self.allowance();
            let in_flight = self.sender.in_flight();
            let forced = self.sender.flags.has(Flags::SEND_FIRST);
            let Some(plan) = self.sender.plan(&self.pools, &allowance) else {
                break;
            };
            assert!(plan.end().after(plan.seq), "not empty");
            assert!(u32::from(plan.len) <= u32::from(allowance.mss));
            assert!(!plan.retransmission || plan.end().at_or_before(self.sender.nxt()));
            if plan.purpose == Purpose::Data && !forced && in_flight != 0 {
                let after = in_flight + u32::from(plan.len);
                match self.sender.state() {
                    // RFC 9937: what is sent is a share of what arrived, or does not raise what is
                    // in flight beyond ssthresh; but for the first retransmission.
                    CaState::Recovery => {
                        let prr = &self.sender.prr;
                        let share = u64::from(prr.delivered) * u64::from(ssthresh);
                        let out = u64::from(prr.out + u32::from(plan.len));
                        assert!(
                            out <= u64::from(allowance.mss)
                                || after <= ssthresh
                                || in_flight_at_first > ssthresh
                                    && out <= share.div_ceil(u64::from(prr.flight)),
                            "{:?} {:?}",
                            self.sender,
                            self.scenario
                        );
                    }
                    CaState::Open | CaState::Cwr | CaState::Loss => {
                        assert!(after <= self.sender.congestion().cwnd());
                    }
                }
            }
            self.send(&plan);
        }
        // A closed window is looked at again.
        let waits = self.sender.unsent() != 0 || self.sender.fin_unsent();
        if waits && self.sender.unacked() == 0 && self.allowance().window == 0 {
            self.persist_at
                .get_or_insert(self.now + Duration::from_millis(200));
        } else {
            self.persist_at = None;
        }
    }

    fn probe_window(&mut self) {
        if let Some(plan) = self.sender.plan_window_probe() {
            assert!(plan.is_window_probe());
            self.send(&plan);
        }
    }

    fn send(&mut self, plan: &Plan) {
        let mut payload = vec![0; usize::from(plan.len)];
        let copied = self.sender.copy_out(&self.pools, plan, &mut payload);
        assert_eq!(copied, payload.len());
        let ts = self.ts();
        self.sender.on_sent(&mut self.pools, plan, self.now, ts);
        let number = self.counts.sent;
        self.counts.sent += 1;
        self.counts.retransmitted += u32::from(plan.retransmission);
        let data = Data {
            seq: plan.seq,
            payload,
            fin: plan.fin,
            ts,
            ce: self.dice.permille(self.scenario.marks),
            cwr: plan.cwr,
        };
        self.to_peer += 1;
        if self.stalls
            && self.scenario.stall_every != 0
            && self.to_peer.is_multiple_of(self.scenario.stall_every)
        {
            self.stalled_until = self.now + Duration::from_micros(self.scenario.stall_us);
        }
        self.bursting = if self.bursting {
            self.dice.permille(self.scenario.burst)
        } else {
            self.dice.permille(self.scenario.loss)
        };
        let unlucky = plan.retransmission && self.lose_retransmissions != 0;
        if unlucky {
            self.lose_retransmissions -= 1;
        }
        if self.bursting || unlucky || self.lose.contains(&number) {
            self.counts.lost += 1;
            return;
        }
        let copies = 1 + u32::from(self.dice.permille(self.scenario.duplication));
        for _ in 0..copies {
            let mut delay = self.transit();
            for &(late, by_us) in &self.delay {
                if late == number {
                    delay += by_us;
                }
            }
            self.at(delay, Event::ToPeer(data.clone()));
        }
    }

    fn transit(&mut self) -> u64 {
        let Scenario {
            delay_us,
            jitter_us,
            late,
            late_us,
            ..
        } = self.scenario;
        let mut us = delay_us + self.dice.below(jitter_us + 1);
        if self.dice.permille(late) {
            us += late_us;
        }
        let stall = (self.stalled_until - self.now).as_micros();
        us + u64::try_from(stall).unwrap()
    }

    fn arrive(&mut self, data: Data) {
        let peer = &mut self.peer;
        let len = u32::try_from(data.payload.len()).unwrap() + u32::from(data.fin);
        let offset = data.seq.offset_from(self.first);
        for (at, &byte) in (offset..).zip(&data.payload) {
            assert_eq!(byte, pattern(at), "what was sent is what was written");
        }
        // RFC 7323 §4.3.
        if data.seq.at_or_before(peer.last_ack_sent)
            && data.ts.wrapping_sub(peer.ts_recent).cast_signed() >= 0
            || peer.ts_recent == 0
        {
            peer.ts_recent = data.ts;
        }
        if data.cwr {
            peer.ece = false;
        }
        peer.ece |= data.ce;
        let next = peer.next.offset_from(self.first);
        let (left, right) = (offset, offset + len);
        let covered = |ranges: &BTreeMap<u32, u32>| {
            ranges
                .range(..=left)
                .next_back()
                .is_some_and(|(_, &end)| end >= right)
        };
        let mut duplicate = None;
        let in_order = left <= next && right > next;
        if right <= next || covered(&peer.ranges) {
            duplicate = Some((left, right));
            peer.got_twice += 1;
        } else {
            // One range of all that touch.
            let (mut start, mut end) = (left, right);
            while let Some((&other, &other_end)) = peer.ranges.range(..=end).next_back() {
                if other_end < start {
                    break;
                }
                start = start.min(other);
                end = end.max(other_end);
                peer.ranges.remove(&other);
                peer.recent.retain(|&recent| recent != other);
            }
            if start <= next {
                peer.next = self.first + end;
            } else {
                peer.ranges.insert(start, end);
                peer.recent.insert(0, start);
            }
        }
        if peer.next == self.first + self.scenario.bytes + 1 {
            peer.finished = true;
        }
        peer.received.clear();
        if !peer.ranges.is_empty() && self.dice.permille(self.scenario.renege) {
            peer.ranges.clear();
            peer.recent.clear();
            peer.reneged += 1;
        }
        let peer = &mut self.peer;
        peer.unacked_segments += 1;
        let at_once = !self.scenario.delayed_ack
            || peer.unacked_segments >= 2
            || !in_order
            || !peer.ranges.is_empty()
            || peer.ece;
        if at_once {
            self.acknowledge(duplicate);
        } else if !peer.timer {
            peer.timer = true;
            self.at(40_000, Event::PeerTimer);
        }
    }

    fn acknowledge(&mut self, duplicate: Option<(u32, u32)>) {
        let first = self.first;
        let peer = &mut self.peer;
        peer.unacked_segments = 0;
        peer.timer = false;
        peer.last_ack_sent = peer.next;
        let mut sack = SackBlocks::EMPTY;
        if self.scenario.setup.sack {
            if let Some((left, right)) = duplicate
                && self.scenario.dsack
            {
                sack.push(first + left, first + right);
            }
            for start in &peer.recent {
                if sack.len() == 3 {
                    break;
                }
                sack.push(first + *start, first + peer.ranges[start]);
            }
        }
        let window = self.scenario.window;
        let window = if self.dice.one_in(50) && window < 1 << 20 {
            0
        } else {
            window
        };
        let peer = &self.peer;
        let ack = Ack {
            ack: peer.next,
            sack,
            echo: peer.ts_recent,
            window,
            ece: peer.ece,
        };
        if window == 0 {
            // It opens again, unasked.
            let reopened = Ack {
                window: self.scenario.window,
                ..ack.clone()
            };
            self.at(700_000, Event::ToUs(reopened));
        }
        if !self.dice.permille(self.scenario.ack_loss) {
            let delay = self.transit();
            self.at(delay, Event::ToUs(ack));
        }
    }

    /// An ACK the peer never sent.
    fn lie(&mut self) {
        let (una, nxt) = (self.sender.una(), self.sender.nxt());
        let somewhere = |dice: &mut Dice| {
            let wild = SeqNum::new(u32::try_from(dice.next() & 0xffff_ffff).unwrap());
            let around = nxt.offset_from(una) * 2 + 3000;
            let near = una - 1500 + u32::try_from(dice.below(u64::from(around))).unwrap();
            if dice.one_in(4) { wild } else { near }
        };
        let mut sack = SackBlocks::EMPTY;
        for _ in 0..self.dice.below(5) {
            let (left, right) = (somewhere(&mut self.dice), somewhere(&mut self.dice));
            sack.push(left, right);
        }
        // What it acknowledges cumulatively it has; who lies about that deceives himself.
        let ack = match self.dice.below(4) {
            0 => nxt + 1 + u32::try_from(self.dice.below(1 << 20)).unwrap(),
            1 => una - u32::try_from(self.dice.below(1 << 20)).unwrap(),
            _ => una,
        };
        let dare = self.sender.flags.has(Flags::WINDOW_PROBED) && ack == nxt + 1;
        if dare {
            return;
        }
        let input = AckInput {
            ack,
            window_changed: self.dice.one_in(2),
            has_data: self.dice.one_in(2),
            sack: (!sack.is_empty()).then_some(&sack),
            ts_echo: self.scenario.setup.timestamps.then_some(self.ts()),
            ts_now: self.ts(),
            ece: false,
            now: self.now,
        };
        let acked = self.on_ack(&input);
        assert_eq!((acked.bytes, acked.fin), (0, false));
        assert_eq!(
            acked.kind == Acknowledged::NeverSent,
            ack.after(nxt),
            "{ack:?} {nxt:?}"
        );
        assert_eq!(self.sender.una(), una);
    }

    /// What holds at any time.
    fn check(&mut self) {
        let sender = &self.sender;
        sender
            .board
            .check(&self.pools.records, sender.una(), sender.nxt());
        assert!(sender.una().at_or_before(sender.nxt()));
        assert!(sender.board.in_flight() + sender.lost() <= sender.unacked());
        // A timer runs exactly while something is outstanding.
        assert_eq!(
            sender.deadline().is_some(),
            sender.unacked() != 0,
            "{sender:?}"
        );
        if sender.state() == CaState::Open {
            assert!(!sender.flags.has(Flags::NOT_OPEN));
        } else {
            assert!(sender.flags.has(Flags::NOT_OPEN) && sender.una().before(sender.point));
        }
        let signals = core::mem::take(&mut self.sender.cc.signals);
        for signal in signals {
            match signal {
                Signal::Loss { .. } => {
                    self.counts.losses += 1;
                    if let Some(point) = self.reduced_at {
                        assert!(
                            self.sender.una().at_or_after(point),
                            "reduced twice in a window: {:?} {:?}",
                            self.sender,
                            self.scenario
                        );
                    }
                    self.reduced_at = Some(self.sender.nxt());
                }
                Signal::Rto { .. } => {
                    self.counts.rtos += 1;
                    self.reduced_at = Some(self.sender.nxt());
                }
                Signal::Ecn { .. } => {
                    self.counts.ecn += 1;
                    if let Some(point) = self.reduced_at {
                        assert!(self.sender.una().at_or_after(point));
                    }
                    self.reduced_at = Some(self.sender.nxt());
                }
                Signal::Undo => self.reduced_at = None,
                Signal::RecoveryExit | Signal::SynLost => {}
            }
        }
    }

    fn check_end(&self) {
        assert!(self.peer.finished, "the peer has everything");
        let sender = &self.sender;
        assert_eq!((sender.buffered(), sender.unacked()), (0, 0));
        assert_eq!((sender.in_flight(), sender.lost()), (0, 0));
        assert_eq!(sender.timer(), Timer::None);
        assert_eq!(self.pools.free_records(), self.scenario.records);
        assert_eq!(self.pools.free_chunks(), 1024);
    }

    /// The path takes smaller packets from now on.
    pub(super) fn reduce_mss(&mut self, mss: u16) {
        self.mss = mss;
        self.sender.on_mtu_reduced(&mut self.pools, mss, self.now);
        self.transmit();
    }

    /// Bytes acknowledged so far.
    pub(super) fn acknowledged(&self) -> u32 {
        self.sender.una().offset_from(self.first)
    }

    /// Segments the peer got though it had them.
    pub(super) fn got_twice(&self) -> u32 {
        self.peer.got_twice
    }

    /// How often the peer threw away what it had reported.
    pub(super) fn reneged(&self) -> u32 {
        self.peer.reneged
    }

    /// Nothing stalls any more.
    pub(super) fn calm(&mut self) {
        self.stalls = false;
    }
}
