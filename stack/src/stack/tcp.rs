//! TCP: from frames to segments and back, and the calls of applications.
//!
//! ```text
//!   frame ─► receive_tcp ─► Table::on_segment ─┐
//!                │ nobody knows it             ├─► transmit queue ─► tcp_transmit ─► frames
//!                ▼                             │
//!            listener ─► half-open, cookie ────┘
//! ```

use super::identification::Identifications;
use super::input::IpMeta;
use super::output::{Hop, HopCache, Request};
use super::version::{Header, IpStack};
use super::{Config, Disposition, Handoff, Origin, Stack};
use crate::counters::{DropCounters, DropReason, Event, EventCounters};
use crate::frame::{Frame, FramePool};
use crate::ip::address::{Ip, IpAddress, Ipv4, Ipv6};
use crate::link::{AddressOwner, LinkState};
use crate::queue::Queue;
use crate::socket::bind::{Bind, BindError};
use crate::socket::demux::Target;
use crate::tcp::config::{Ecn as EcnPolicy, SynCookies, TcpConfig};
use crate::tcp::connection::{
    Blocked, Connection, Context, Fate, Handshake, Misuse, Opening, Outgoing, Output,
};
use crate::tcp::isn::Secret;
use crate::tcp::listener::{self, CongestionKind, HalfOpen, ListenOptions, Listeners};
use crate::tcp::manage::State;
use crate::tcp::manage::challenge::{ChallengeLimiter, LastChallenge};
use crate::tcp::options::{OptionsOut, SynOptions, Timestamps};
use crate::tcp::pools::{MemoryUse, Pools};
use crate::tcp::port::PortSelector;
use crate::tcp::segment::{self, Ecn, Flags, Header as TcpHeader, Segment};
use crate::tcp::seq::SeqNum;
use crate::tcp::socket_options::{IcmpError, SocketOption, SocketOptions, SoftError};
use crate::tcp::syn_cookie;
use crate::tcp::table::{Answer, Outcome, Slot, Table, reset_for};
use crate::tcp::time_wait;
use crate::tcp::tuple::Tuple;
use crate::tcp::{ConnectError, TcpId, TcpListenerId};
use crate::time::Instant;
use crate::udp::Version;
use crate::wire::tcp::Verified;
use crate::wire::{ethernet, protocol, tcp as wire};
use core::net::{IpAddr, SocketAddr};
use core::ops::Range;

/// What both versions share.
pub(super) struct Tcp {
    pub(super) config: TcpConfig,
    pools: Pools,
    challenges: ChallengeLimiter,
    pub(super) listeners: Listeners,
    secret: Secret,
    ports: Option<PortSelector>,
    /// When a SYN cookie was sent last.
    cookie_sent: Option<Instant>,
}

impl Tcp {
    pub(super) fn new(config: &TcpConfig, key: crate::hash::HashKey) -> Self {
        let secret = Secret::new(config.secret);
        let (first, last) = config.ports;
        Self {
            pools: Pools::new(config),
            challenges: ChallengeLimiter::new(config.challenge_acks_per_s, key),
            listeners: Listeners::new(config.listeners.into()),
            secret,
            ports: PortSelector::new(secret, first..=last),
            cookie_sent: None,
            config: config.clone(),
        }
    }
}

/// The parts of a stack that sending takes, apart from each other.
pub(super) struct Parts<'a, I: IpStack, P: FramePool> {
    pub(super) table: &'a mut Table<I>,
    pub(super) hops: &'a HopCache<I>,
    pub(super) hop_generation: u32,
    pub(super) tcp: &'a mut Tcp,
    pub(super) events: &'a mut EventCounters,
    pub(super) drops: &'a mut DropCounters,
    pub(super) egress: &'a mut Queue<P::Frame>,
    pub(super) config: &'a Config,
    pub(super) link: &'a LinkState,
    pub(super) identifications: &'a mut Identifications,
}

impl Tcp {
    /// The memory of what is under way.
    #[inline]
    pub(super) fn pools_mut(&mut self) -> &mut Pools {
        &mut self.pools
    }

    fn context<'a>(&'a mut self, events: &'a mut EventCounters, now: Instant) -> Context<'a> {
        Context {
            config: &self.config,
            pools: &mut self.pools,
            challenges: &mut self.challenges,
            listeners: &mut self.listeners,
            events,
            now,
        }
    }
}

/// Does something with the connection of an id, whatever its type; `None` if there is none any more.
macro_rules! with_connection {
    ($stack:expr, $now:expr, $id:expr, |$it:ident, $cx:ident| $body:expr) => {{
        let Stack {
            v4,
            v6,
            tcp,
            events,
            ..
        } = &mut *$stack;
        #[allow(unused_mut, unused_variables)]
        let mut context = tcp.context(events, $now);
        #[allow(unused_variables)]
        let $cx = &mut context;
        let TcpId { version, id } = $id;
        match (version, id.kind) {
            (Version::V4, CongestionKind::Cubic) => v4.tcp.cubic_mut(id).map(|$it| $body),
            (Version::V4, CongestionKind::NewReno) => v4.tcp.new_reno_mut(id).map(|$it| $body),
            (Version::V6, CongestionKind::Cubic) => v6.tcp.cubic_mut(id).map(|$it| $body),
            (Version::V6, CongestionKind::NewReno) => v6.tcp.new_reno_mut(id).map(|$it| $body),
        }
    }};
}

impl<P: FramePool> Stack<P> {
    /// A TCP segment that lies in `payload` of the frame.
    #[inline]
    pub(super) fn receive_tcp<I: IpStack>(
        &mut self,
        frame: &P::Frame,
        meta: IpMeta<I>,
        payload: Range<usize>,
        origin: Origin,
        now: Instant,
    ) -> Result<Disposition, DropReason> {
        let data = frame.data();
        let packet = wire::Packet::new_checked(data, payload)?;
        let pseudo = |len| I::pseudo(meta.source, meta.destination, protocol::TCP, len);
        match packet.verify(pseudo)? {
            Verified::Incomplete if self.config.accept_incomplete_checksums => {
                self.events.count(Event::ChecksumIncompleteAccepted);
            }
            Verified::Incomplete => return Err(DropReason::TcpChecksumIncomplete),
            Verified::Right => {}
        }
        let tuple = Tuple {
            local: meta.destination,
            remote: meta.source,
            local_port: packet.destination_port(),
            remote_port: packet.source_port(),
        };
        if tuple.local_port == 0 || tuple.remote_port == 0 {
            return Err(DropReason::TcpPortZero);
        }
        let segment = Segment::new(&packet, Ecn::from_tos(meta.tos));
        let Parts {
            table, tcp, events, ..
        } = I::tcp_parts(self);
        let mut cx = tcp.context(events, now);
        match table.on_segment(&mut cx, &tuple, &segment) {
            Outcome::Taken => {
                let bytes = segment.payload.len() as u64;
                events.count(Event::TcpSegmentRx);
                events.add(Event::TcpRxBytes, bytes);
                Ok(Disposition::Done)
            }
            Outcome::Dropped(reason) => Err(reason),
            Outcome::Complete { slot } => self.complete_half_open::<I>(slot, &segment, now),
            Outcome::Unknown => self.receive_unknown::<I>(&tuple, &segment, None, origin, now),
            Outcome::Reopen { send_next } => {
                self.receive_unknown::<I>(&tuple, &segment, Some(send_next), origin, now)
            }
        }
    }

    /// RFC 9293 §3.10.7.1, §3.10.7.2: a segment of no connection.
    #[cold]
    fn receive_unknown<I: IpStack>(
        &mut self,
        tuple: &Tuple<I::Addr>,
        segment: &Segment<'_>,
        beyond: Option<SeqNum>,
        origin: Origin,
        now: Instant,
    ) -> Result<Disposition, DropReason> {
        let owner = self
            .owner_of(tuple.local.into())
            .ok_or(DropReason::IpNotLocal)?;
        let listener = I::state(self)
            .tcp_listeners
            .lookup(tuple.local, tuple.local_port);
        let flags = segment.flags;
        if let Some(Target::Socket(slot)) = listener
            && flags.intersection(SYN_ACK_RST_FIN) == Flags::SYN
        {
            return self.receive_syn::<I>(slot, tuple, segment, beyond, now);
        }
        if let Some(Target::Socket(slot)) = listener
            && flags.contains(Flags::ACK)
            && !flags.intersects(Flags::SYN.union(Flags::RST))
            && let Some(done) = self.receive_cookie::<I>(slot, tuple, segment, now)
        {
            return done;
        }
        // RSS put the packet into the queue of another worker than the connection's, perhaps: it goes
        // around, and the last one answers.
        let visited = match origin {
            Origin::Ring => 1,
            Origin::Handoff { visited } => visited + 1,
        };
        if visited < self.config.workers {
            return Ok(Disposition::Handoff(Handoff::Next { visited }));
        }
        if flags.contains(Flags::RST) {
            return Err(DropReason::TcpNoSocket);
        }
        // RFC 9293 §3.10.7.2, fourth: in LISTEN, what has neither SYN nor ACK is dropped.
        if listener.is_some() && !flags.intersects(Flags::SYN.union(Flags::ACK)) {
            return Err(DropReason::TcpNoSyn);
        }
        // The first segment behind a handshake with a cookie is the only one that can be checked. What
        // overtook it must not end the connection; it comes again.
        let cookies_out = self
            .tcp
            .cookie_sent
            .is_some_and(|sent| now.saturating_since(sent) <= syn_cookie::LIFETIME_MAX);
        if cookies_out
            && listener.is_some()
            && flags.contains(Flags::ACK)
            && syn_cookie::is_plausible(&self.tcp.secret, tuple, segment.ack - 1, now)
        {
            return Err(DropReason::TcpCookieOvertaken);
        }
        // Where the kernel shares the address and nobody listens here, the port may be the kernel's
        // again.
        if owner == AddressOwner::Stack || listener.is_some() {
            self.answer::<I>(reset_for(tuple, segment), now);
        }
        Err(DropReason::TcpNoSocket)
    }

    fn answer<I: IpStack>(&mut self, answer: Answer<I>, now: Instant) {
        let Parts {
            table, tcp, events, ..
        } = I::tcp_parts(self);
        table.answer(&mut tcp.context(events, now), answer);
    }

    /// A SYN for a listener. `beyond`: what our initial sequence number has to be beyond.
    fn receive_syn<I: IpStack>(
        &mut self,
        slot: u16,
        tuple: &Tuple<I::Addr>,
        segment: &Segment<'_>,
        beyond: Option<SeqNum>,
        now: Instant,
    ) -> Result<Disposition, DropReason> {
        let path_mtu = u16::try_from(self.route_mtu::<I>(tuple.remote)).unwrap_or(u16::MAX);
        let Parts {
            table, tcp, events, ..
        } = I::tcp_parts(self);
        let (Some(socket), Some(handle)) = (tcp.listeners.at(slot), tcp.listeners.handle(slot))
        else {
            return Err(DropReason::TcpNoSocket);
        };
        let ip = socket.socket.ip;
        // A queue of complete connections that nobody accepts is no place for more, cookie or not.
        if socket.is_accept_queue_full() {
            return Err(DropReason::TcpBacklogFull);
        }
        let full = socket.is_full() || !table.has_room_for_half_open();
        let agreed = listener::agree(segment.syn_options(), &tcp.config);
        // RFC 3168 §6.1.1: a SYN that asks for ECN has both, and comes in a packet without ECT.
        let both = Flags::ECE.union(Flags::CWR);
        let ecn = tcp.config.ecn != EcnPolicy::Off
            && segment.flags.contains(both)
            && segment.ecn == Ecn::NotEct;
        let window = listener::syn_window(&tcp.config);
        let use_cookie = match tcp.config.syn_cookies {
            SynCookies::Always => true,
            SynCookies::WhenFull => full,
            SynCookies::Never if full => return Err(DropReason::TcpBacklogFull),
            SynCookies::Never => false,
        };
        let window_scale = listener::window_scale(&tcp.config);
        if use_cookie {
            let cookie = syn_cookie::make(&tcp.secret, tuple, segment.seq, &agreed, ecn, now);
            let SynOptions {
                window_scale: scaled,
                sack_permitted,
                timestamps,
                ..
            } = cookie.agreed.options;
            let ecn = if cookie.agreed.ecn {
                Flags::ECE
            } else {
                Flags::NONE
            };
            let answer = Answer {
                tuple: *tuple,
                header: TcpHeader {
                    source_port: tuple.local_port,
                    destination_port: tuple.remote_port,
                    seq: cookie.isn,
                    ack: segment.seq + 1,
                    flags: Flags::SYN.union(Flags::ACK).union(ecn),
                    window,
                    urgent: 0,
                },
                options: OptionsOut {
                    mss: Some(listener::our_mss::<I>(path_mtu)),
                    window_scale: scaled.map(|_| window_scale),
                    sack_permitted,
                    timestamps: cookie.ts_value.map(|value| Timestamps {
                        value,
                        echo: timestamps.map_or(0, |theirs| theirs.value),
                    }),
                    ..OptionsOut::NONE
                },
                ip,
            };
            tcp.cookie_sent = Some(now);
            events.count(Event::TcpSynCookieTx);
            table.answer(&mut tcp.context(events, now), answer);
            return Ok(Disposition::Done);
        }
        let start = tcp.secret.start(tuple, now);
        let record = HalfOpen {
            tuple: *tuple,
            iss: beyond.map_or(start.isn, |used| time_wait::isn_beyond(start.isn, used)),
            irs: segment.seq,
            clock: start.clock,
            agreed,
            recent: agreed.timestamps.map_or(0, |theirs| theirs.value),
            ecn,
            window_scale,
            window,
            retransmissions: 0,
            begun: now,
            listener: handle,
            path_mtu,
            last_challenge: LastChallenge::default(),
            ip,
        };
        tcp.listeners.on_half_open(slot);
        events.count(Event::TcpSynRx);
        table.insert_half_open(&mut tcp.context(events, now), record);
        Ok(Disposition::Done)
    }

    /// The ACK of a SYN,ACK that carried a cookie, perhaps.
    fn receive_cookie<I: IpStack>(
        &mut self,
        slot: u16,
        tuple: &Tuple<I::Addr>,
        segment: &Segment<'_>,
        now: Instant,
    ) -> Option<Result<Disposition, DropReason>> {
        let path_mtu = u16::try_from(self.route_mtu::<I>(tuple.remote)).unwrap_or(u16::MAX);
        let Parts { tcp, events, .. } = I::tcp_parts(self);
        if tcp.config.syn_cookies == SynCookies::Never {
            return None;
        }
        let (irs, iss) = (segment.seq - 1, segment.ack - 1);
        let timestamps = segment.timestamps;
        let accepted = syn_cookie::check(&tcp.secret, tuple, irs, iss, timestamps, now)?;
        events.count(Event::TcpSynCookieRx);
        let listener = tcp.listeners.handle(slot)?;
        let ip = tcp.listeners.at(slot)?.socket.ip;
        let record = HalfOpen {
            tuple: *tuple,
            iss,
            irs,
            clock: accepted.clock,
            agreed: accepted.agreed.options,
            recent: timestamps.map_or(0, |theirs| theirs.value),
            ecn: accepted.agreed.ecn,
            window_scale: listener::window_scale(&tcp.config),
            window: listener::syn_window(&tcp.config),
            // Nobody knows when it was sent.
            retransmissions: 1,
            begun: now,
            listener,
            path_mtu,
            last_challenge: LastChallenge::default(),
            ip,
        };
        Some(self.establish::<I>(&record, segment, now))
    }

    /// The last segment of a handshake.
    #[cold]
    fn complete_half_open<I: IpStack>(
        &mut self,
        slot: u32,
        segment: &Segment<'_>,
        now: Instant,
    ) -> Result<Disposition, DropReason> {
        let Parts { table, tcp, .. } = I::tcp_parts(self);
        let Some(record) = table.half_open(slot).copied() else {
            return Err(DropReason::TcpNoSocket);
        };
        // The record stays where there is no room: the ACK will come again, with data or with the
        // SYN,ACK that is sent again.
        tcp.listeners.may_complete(record.listener)?;
        let done = self.establish_in_place_of::<I>(slot, &record, segment, now);
        if done.is_ok() {
            let Parts { tcp, .. } = I::tcp_parts(self);
            tcp.listeners.on_half_open_gone(record.listener);
        }
        done
    }

    fn establish_in_place_of<I: IpStack>(
        &mut self,
        slot: u32,
        record: &HalfOpen<I>,
        segment: &Segment<'_>,
        now: Instant,
    ) -> Result<Disposition, DropReason> {
        let Parts { table, tcp, .. } = I::tcp_parts(self);
        let (kind, _) = tcp.listeners.options(record.listener)?;
        if !table.has_room(kind) {
            return Err(DropReason::TcpConnectionsFull);
        }
        table.remove_half_open(slot);
        self.establish::<I>(record, segment, now)
    }

    /// A connection takes the place of its handshake, and the segment that completed it.
    fn establish<I: IpStack>(
        &mut self,
        record: &HalfOpen<I>,
        segment: &Segment<'_>,
        now: Instant,
    ) -> Result<Disposition, DropReason> {
        let Parts {
            table, tcp, events, ..
        } = I::tcp_parts(self);
        tcp.listeners.may_complete(record.listener)?;
        let (congestion, mut options) = tcp.listeners.options(record.listener)?;
        options.keepalive |= tcp.config.keepalive.always;
        let opening = Opening {
            tuple: record.tuple,
            iss: record.iss,
            clock: record.clock,
            path_mtu: record.path_mtu,
            options,
        };
        let us = now.saturating_since(record.begun).as_micros();
        let handshake = Handshake {
            irs: record.irs,
            agreed: record.agreed,
            ecn: record.ecn,
            recent: record.recent,
            ack: segment.ack,
            handshake_us: u32::try_from(us)
                .ok()
                .filter(|_| record.retransmissions == 0),
        };
        let mut cx = tcp.context(events, now);
        let id = match congestion {
            CongestionKind::Cubic => {
                table.insert_cubic(Connection::accept(&mut cx, opening, &handshake))
            }
            CongestionKind::NewReno => {
                table.insert_new_reno(Connection::accept(&mut cx, opening, &handshake))
            }
        };
        let id = id.ok_or(DropReason::TcpConnectionsFull)?;
        let outcome = table.on_connection(&mut cx, id.kind, id.handle.slot, segment);
        cx.listeners.on_complete(
            record.listener,
            TcpId {
                version: I::RUNTIME,
                id,
            },
        );
        match outcome {
            Outcome::Dropped(reason) => Err(reason),
            _ => Ok(Disposition::Done),
        }
    }

    /// Runs TCP's timers.
    #[inline]
    pub(super) fn expire_tcp(&mut self, now: Instant) {
        let Self {
            v4,
            v6,
            tcp,
            events,
            ..
        } = self;
        let mut cx = tcp.context(events, now);
        v4.tcp.expire(&mut cx);
        v6.tcp.expire(&mut cx);
        if v4.tcp.is_starved() || v6.tcp.is_starved() {
            let free = cx.pools.send.free_chunks();
            v4.tcp.feed(free.div_ceil(2));
            v6.tcp.feed(free.div_ceil(2));
        }
    }

    /// Sends what connections have to send. Call it after the applications have been served and
    /// before [`egress`](Self::egress).
    #[inline]
    pub fn tcp_transmit(&mut self, pool: &mut P, now: Instant) {
        if self.v4.tcp.has_output() {
            self.transmit_version::<Ipv4>(pool, now);
        }
        if self.v6.tcp.has_output() {
            self.transmit_version::<Ipv6>(pool, now);
        }
    }

    fn transmit_version<I: IpStack>(&mut self, pool: &mut P, now: Instant) {
        while let Some(answer) = I::state(self).tcp.next_answer() {
            self.send_segment::<I>(pool, &answer, now);
        }
        // Those that are blocked are queued again, for the next turn.
        for _ in 0..I::state(self).tcp.to_transmit_len() {
            if self.transmit_plainly::<I>(pool, now).is_none() {
                self.transmit_next::<I>(pool, now);
            }
        }
    }

    /// Sends what the first connection in the queue has to send.
    #[cold]
    fn transmit_next<I: IpStack>(&mut self, pool: &mut P, now: Instant) {
        let Some(to) = I::state(self).tcp.next_to_transmit() else {
            return;
        };
        let Tuple { local, remote, .. } = to.tuple;
        if to.black_hole {
            self.learn_black_hole::<I>(remote, now);
        }
        let (hop, way) = match self.next_hop::<I>(pool, remote, local, now) {
            Ok(hop) => (hop, Way::Out),
            Err(DropReason::TxNeighborUnresolved) => {
                let hop = self.hop_through::<I>([0; 6], remote);
                (hop, Way::Parked)
            }
            // What cannot leave is as good as lost; timers will see to it.
            Err(reason) => {
                let hop = self.hop_through::<I>([0; 6], remote);
                (hop, Way::Nowhere(reason))
            }
        };
        let Parts {
            table,
            tcp,
            events,
            drops,
            egress,
            config,
            link,
            identifications,
            ..
        } = I::tcp_parts(self);
        let mut out = FrameOutput::<I, P> {
            pool,
            egress,
            config,
            link,
            drops,
            identifications,
            hop,
            way,
            parked: None,
            version: core::marker::PhantomData,
        };
        table.transmit(&mut tcp.context(events, now), &to, hop.mtu, &mut out);
        if let Some(frame) = out.parked
            && let Ok(gateway) = self.gateway_of::<I>(remote)
            && let Err(reason) = self.park(pool, frame, gateway, local.into(), now)
        {
            self.drops.count(reason);
        }
    }

    fn send_segment<I: IpStack>(&mut self, pool: &mut P, answer: &Answer<I>, now: Instant) {
        let Answer {
            tuple,
            header,
            options,
            ip,
        } = answer;
        let mut bytes = [0; wire::HEADER_LEN_MAX];
        let pseudo = |len| I::pseudo(tuple.local, tuple.remote, protocol::TCP, len);
        let Some(len) = segment::emit(&mut bytes, 0, header, options, 0, pseudo) else {
            return;
        };
        let header_of_ip = Header::<I> {
            source: tuple.local,
            destination: tuple.remote,
            protocol: protocol::TCP,
            tos: ip.traffic_class(),
            ttl: ip.hop_limit(self.config.ttl),
            fragmentable: None,
            payload_len: u16::try_from(len).unwrap_or(0),
        };
        if header.flags.contains(Flags::RST) {
            self.events.count(Event::TcpResetTx);
        }
        let sent =
            self.send_transport(pool, header_of_ip, [&bytes[..len], &[]], Request::NONE, now);
        if let Err(reason) = sent {
            self.drops.count(reason);
        }
    }
}

const SYN_ACK_RST_FIN: Flags = Flags::SYN
    .union(Flags::ACK)
    .union(Flags::RST)
    .union(Flags::FIN);

/// What becomes of the frames of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// They leave.
    Out,
    /// The next hop is being looked for: one waits for it.
    Parked,
    /// There is no way.
    Nowhere(DropReason),
}

/// Makes segments into frames.
struct FrameOutput<'a, I: Ip, P: FramePool> {
    pool: &'a mut P,
    egress: &'a mut Queue<P::Frame>,
    config: &'a Config,
    link: &'a LinkState,
    drops: &'a mut DropCounters,
    identifications: &'a mut Identifications,
    hop: Hop,
    way: Way,
    parked: Option<P::Frame>,
    version: core::marker::PhantomData<I>,
}

impl<I: IpStack, P: FramePool> Output<I> for FrameOutput<'_, I, P> {
    #[inline]
    fn emit(&mut self, segment: &Outgoing<I>, fill: impl FnOnce(&mut [u8])) -> Result<(), Blocked> {
        match self.way {
            Way::Out if self.egress.has_room() => {}
            Way::Parked if self.parked.is_none() => {}
            Way::Nowhere(reason) => {
                self.drops.count(reason);
                return Ok(());
            }
            Way::Out => return Err(Blocked),
            // Only one packet waits for a neighbour; the others go when it is known.
            Way::Parked => {
                self.drops.count(DropReason::TxNeighborUnresolved);
                return Ok(());
            }
        }
        let Some(mut frame) = self.pool.take() else {
            return Err(Blocked);
        };
        if self.write(&mut frame, segment, fill).is_none() {
            self.pool.give(frame);
            self.drops.count(DropReason::TxTooLong);
            return Ok(());
        }
        if self.way == Way::Parked {
            self.parked = Some(frame);
        } else if let Err(frame) = self.egress.push(frame) {
            self.pool.give(frame);
        }
        Ok(())
    }
}

impl<I: IpStack, P: FramePool> FrameOutput<'_, I, P> {
    #[inline]
    fn write(
        &mut self,
        frame: &mut P::Frame,
        segment: &Outgoing<I>,
        fill: impl FnOnce(&mut [u8]),
    ) -> Option<()> {
        let Outgoing {
            tuple,
            header,
            options,
            payload_len,
            ecn,
            ip: fields,
        } = segment;
        let ip_offset = self.config.vlans.header_len();
        let header_len = segment::header_len(options);
        let len = ip_offset + I::HEADER_BYTES + header_len + payload_len;
        if len > frame.capacity() {
            return None;
        }
        frame.set_len(len);
        let data = frame.data_mut();
        let at = ethernet::Repr {
            destination: self.hop.mac(),
            source: self.link.mac,
            vlans: self.config.vlans,
            ether_type: I::ETHER_TYPE,
        }
        .emit(data)?;
        let (local, remote) = (tuple.local, tuple.remote);
        let fragmentable = self.hop.may_fragment().then(|| {
            #[expect(clippy::cast_possible_truncation, reason = "the field is that wide")]
            let identification = self.identifications.next(local.into(), remote.into()) as u16;
            identification
        });
        let ip = Header::<I> {
            source: local,
            destination: remote,
            protocol: protocol::TCP,
            tos: fields.traffic_class() | ecn.bits(),
            ttl: fields.hop_limit(self.config.ttl),
            fragmentable,
            payload_len: u16::try_from(header_len + payload_len).ok()?,
        };
        let at = at + I::emit(data, at, ip)?;
        fill(data.get_mut(at + header_len..)?.get_mut(..*payload_len)?);
        let pseudo = |len| I::pseudo(local, remote, protocol::TCP, len);
        segment::emit(data, at, header, options, *payload_len, pseudo)?;
        Some(())
    }
}

/// The calls of applications.
impl<P: FramePool> Stack<P> {
    /// Listens for connections.
    ///
    /// The address need not be ours yet; connections come once it is.
    ///
    /// # Errors
    /// [`BindError`], with the `errno` of the same call on Linux.
    pub fn tcp_listen(
        &mut self,
        bind: Bind,
        options: ListenOptions,
    ) -> Result<TcpListenerId, BindError> {
        let bind = bind.validate()?;
        let mut taken = self.tcp.listeners.binds().map(|(_, bind)| bind);
        if taken.any(|other| other.conflicts_with(&bind)) {
            return Err(BindError::AddressInUse);
        }
        drop(taken);
        let id = self
            .tcp
            .listeners
            .insert(bind, options)
            .ok_or(BindError::TooManySockets)?;
        self.rebuild_tcp_listeners();
        Ok(id)
    }

    /// Stops listening. What waited to be accepted is reset; what was accepted goes on.
    pub fn tcp_unlisten(&mut self, id: TcpListenerId, now: Instant) {
        let waiting = self.tcp.listeners.remove(id);
        self.rebuild_tcp_listeners();
        for id in waiting.into_iter().flatten() {
            self.tcp_abort(id, now);
        }
    }

    /// Writes the tables of listeners of both versions anew.
    pub(super) fn rebuild_tcp_listeners(&mut self) {
        let Self {
            v4, v6, tcp, link, ..
        } = self;
        let entries = tcp.listeners.binds().count() * link.addresses.len();
        v4.tcp_listeners.reset(entries);
        v6.tcp_listeners.reset(entries);
        for (slot, bind) in tcp.listeners.binds() {
            let target = Target::Socket(slot);
            let port = bind.local.port();
            for local in &link.addresses {
                match local.address {
                    address if !bind.covers(address) => {}
                    IpAddr::V4(address) => {
                        v4.tcp_listeners.insert(address, port, target);
                    }
                    IpAddr::V6(address) => {
                        v6.tcp_listeners.insert(address, port, target);
                    }
                }
            }
        }
    }

    /// The next connection that a listener's peers have opened.
    pub fn tcp_accept(&mut self, id: TcpListenerId) -> Option<TcpId> {
        while let Some(connection) = self.tcp.listeners.accept(id) {
            // Its peer may have reset it since, and then its name means nothing any more.
            if self.tcp_is_there(connection) {
                return Some(connection);
            }
        }
        None
    }

    /// Begins to open a connection from `local` (port 0: one is chosen, RFC 6056; unspecified address:
    /// the one that leads there, RFC 9293 §3.9.1.1, MUST-44) to `remote`. There will be news of it when it
    /// is there, or cannot be.
    ///
    /// # Errors
    /// [`ConnectError`], with the `errno` of the same call on Linux.
    pub fn tcp_connect(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        congestion: CongestionKind,
        nodelay: bool,
        now: Instant,
    ) -> Result<TcpId, ConnectError> {
        match (local.ip(), remote.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let ends = (from, local.port(), to, remote.port());
                self.connect_version::<Ipv4>(ends, congestion, nodelay, now)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let ends = (from, local.port(), to, remote.port());
                self.connect_version::<Ipv6>(ends, congestion, nodelay, now)
            }
            _ => Err(ConnectError::FamilyMismatch),
        }
    }

    fn connect_version<I: IpStack>(
        &mut self,
        (local, local_port, remote, remote_port): (I::Addr, u16, I::Addr, u16),
        congestion: CongestionKind,
        nodelay: bool,
        now: Instant,
    ) -> Result<TcpId, ConnectError> {
        if remote_port == 0 {
            return Err(ConnectError::Invalid);
        }
        // RFC 9293 §3.9.1.1 (MUST-46): no connections with groups.
        let gateway = self
            .gateway_of::<I>(remote)
            .map_err(|_| ConnectError::Unreachable)?;
        let local = if local == I::Addr::UNSPECIFIED {
            self.source_for::<I>(remote, gateway)
                .ok_or(ConnectError::AddressNotAvailable)?
        } else {
            self.owner_of(local.into())
                .ok_or(ConnectError::AddressNotAvailable)?;
            local
        };
        let path_mtu = u16::try_from(self.route_mtu::<I>(remote)).unwrap_or(u16::MAX);
        let Parts {
            table, tcp, events, ..
        } = I::tcp_parts(self);
        if !table.has_room(congestion) {
            return Err(ConnectError::TooManyConnections);
        }
        let tuple_of = |local_port| Tuple {
            local,
            remote,
            local_port,
            remote_port,
        };
        let tuple = if local_port == 0 {
            let ports = tcp.ports.as_mut().ok_or(ConnectError::NoPort)?;
            ports
                .candidates(local, remote, remote_port)
                .map(tuple_of)
                .find(|tuple| table.find(tuple).is_none())
                .ok_or(ConnectError::NoPort)?
        } else {
            let tuple = tuple_of(local_port);
            if table.find(&tuple).is_some() {
                return Err(ConnectError::AddressInUse);
            }
            tuple
        };
        let start = tcp.secret.start(&tuple, now);
        let opening = Opening {
            tuple,
            iss: start.isn,
            clock: start.clock,
            path_mtu,
            options: SocketOptions {
                nodelay,
                keepalive: tcp.config.keepalive.always,
                ..SocketOptions::default()
            },
        };
        let mut cx = tcp.context(events, now);
        let id = match congestion {
            CongestionKind::Cubic => table.insert_cubic(Connection::connect(&mut cx, opening)),
            CongestionKind::NewReno => table.insert_new_reno(Connection::connect(&mut cx, opening)),
        };
        let id = id.ok_or(ConnectError::TooManyConnections)?;
        table.touch(id.kind, id.handle.slot);
        Ok(TcpId {
            version: I::RUNTIME,
            id,
        })
    }

    /// The next connection with news: something to read, room to write, a change of state.
    #[inline]
    pub fn tcp_next_ready(&mut self) -> Option<TcpId> {
        if let Some(id) = self.v4.tcp.next_ready() {
            return Some(TcpId {
                version: Version::V4,
                id,
            });
        }
        let id = self.v6.tcp.next_ready()?;
        Some(TcpId {
            version: Version::V6,
            id,
        })
    }

    /// Whether the name still means a connection.
    #[must_use]
    pub fn tcp_is_there(&self, id: TcpId) -> bool {
        match id.version {
            Version::V4 => self.v4.tcp.is_there(id.id),
            Version::V6 => self.v6.tcp.is_there(id.id),
        }
    }

    /// Lets `read` look at the bytes that lie together at the front, until there are none or it takes
    /// fewer than there are. Returns how many it took.
    ///
    /// # Errors
    /// [`Misuse::NoSuchConnection`].
    #[inline]
    pub fn tcp_receive_with(
        &mut self,
        id: TcpId,
        now: Instant,
        read: impl FnMut(&[u8]) -> usize,
    ) -> Result<usize, Misuse> {
        let mut read = read;
        let taken = with_connection!(self, now, id, |it, cx| it.receive_with(cx, &mut read));
        let taken = taken.ok_or(Misuse::NoSuchConnection)?;
        if taken > 0 {
            self.touch_tcp(id);
        }
        Ok(taken)
    }

    /// Bytes that can be read now.
    #[must_use]
    pub fn tcp_readable(&mut self, id: TcpId) -> u32 {
        with_connection!(self, Instant::ZERO, id, |it, cx| it.readable()).unwrap_or(0)
    }

    /// Whether everything the peer has sent was read, and nothing more will come.
    #[must_use]
    pub fn tcp_is_at_end(&mut self, id: TcpId) -> bool {
        with_connection!(self, Instant::ZERO, id, |it, cx| it.is_at_end()).unwrap_or(true)
    }

    /// Bytes that can be written now.
    #[must_use]
    pub fn tcp_writable(&mut self, id: TcpId) -> u32 {
        with_connection!(self, Instant::ZERO, id, |it, cx| it.writable(cx)).unwrap_or(0)
    }

    /// Its state, or none if there is no such connection any more.
    #[must_use]
    pub fn tcp_state(&mut self, id: TcpId) -> Option<State> {
        with_connection!(self, Instant::ZERO, id, |it, cx| it.state())
    }

    /// Both ends: ours, the peer's.
    #[must_use]
    pub fn tcp_ends(&mut self, id: TcpId) -> Option<(SocketAddr, SocketAddr)> {
        with_connection!(self, Instant::ZERO, id, |it, cx| {
            (it.tuple().local(), it.tuple().remote())
        })
    }

    /// Takes bytes to be sent, as many as there is room for. Returns how many.
    ///
    /// # Errors
    /// [`Misuse`], with the `errno` of the same call on Linux.
    #[inline]
    pub fn tcp_send(&mut self, id: TcpId, now: Instant, bytes: &[u8]) -> Result<usize, Misuse> {
        let sent = with_connection!(self, now, id, |it, cx| it.send(cx, bytes));
        let sent = sent.ok_or(Misuse::NoSuchConnection)?;
        if sent != Ok(bytes.len()) && self.tcp.pools.send.free_chunks() == 0 {
            self.starve_tcp(id);
        }
        let sent = sent?;
        self.touch_tcp(id);
        Ok(sent)
    }

    /// Sends back what came, as much as there is room for, without copying it more than once. Returns how
    /// many bytes that was.
    ///
    /// # Errors
    /// [`Misuse`].
    #[inline]
    pub fn tcp_echo(&mut self, id: TcpId, now: Instant) -> Result<usize, Misuse> {
        let echoed = with_connection!(self, now, id, |it, cx| it.echo(cx));
        let echoed = echoed.ok_or(Misuse::NoSuchConnection)??;
        if self.tcp.pools.send.free_chunks() == 0 {
            self.starve_tcp(id);
        }
        self.touch_tcp(id);
        Ok(echoed)
    }

    /// Closes our direction: what was written goes out, and a FIN behind it (`shutdown(SHUT_WR)`).
    ///
    /// # Errors
    /// [`Misuse`].
    pub fn tcp_shutdown(&mut self, id: TcpId, now: Instant) -> Result<(), Misuse> {
        let fate = with_connection!(self, now, id, |it, cx| it.shutdown(cx));
        let fate = fate.ok_or(Misuse::NoSuchConnection)??;
        self.settle_tcp(id, fate, now);
        Ok(())
    }

    /// Lets go of a connection (`close`): what was written goes out, nothing is read any more. The name
    /// means nothing from here on.
    pub fn tcp_close(&mut self, id: TcpId, now: Instant) {
        if let Some(fate) = with_connection!(self, now, id, |it, cx| it.close(cx)) {
            self.settle_tcp(id, fate, now);
        }
    }

    /// Ends a connection at once, by a RST (RFC 9293 §3.10.5).
    pub fn tcp_abort(&mut self, id: TcpId, now: Instant) {
        if let Some(fate) = with_connection!(self, now, id, |it, cx| it.abort(cx)) {
            self.settle_tcp(id, fate, now);
        }
    }

    /// Takes a choice of the application for a connection. Of one that has just begun to open it is in
    /// the SYN as well.
    ///
    /// # Errors
    /// [`Misuse::NoSuchConnection`].
    pub fn tcp_set_option(
        &mut self,
        id: TcpId,
        option: SocketOption,
        now: Instant,
    ) -> Result<(), Misuse> {
        with_connection!(self, now, id, |it, cx| it.set_option(cx, option))
            .ok_or(Misuse::NoSuchConnection)?;
        self.touch_tcp(id);
        Ok(())
    }

    /// Takes a choice for the connections that a listener will have, their handshakes included.
    ///
    /// # Errors
    /// [`Misuse::NoSuchConnection`].
    pub fn tcp_listener_set_option(
        &mut self,
        id: TcpListenerId,
        option: SocketOption,
    ) -> Result<(), Misuse> {
        if self.tcp.listeners.set_option(id, option) {
            Ok(())
        } else {
            Err(Misuse::NoSuchConnection)
        }
    }

    /// The last error that did not end the connection; once (`SO_ERROR`). There is news of the connection
    /// when there is one (RFC 9293 §3.9.1.8); who does not want to know does not ask (SHLD-20).
    pub fn tcp_take_error(&mut self, id: TcpId) -> Option<SoftError> {
        with_connection!(self, Instant::ZERO, id, |it, cx| it.take_error()).flatten()
    }

    #[inline]
    fn touch_tcp(&mut self, id: TcpId) {
        match id.version {
            Version::V4 => self.v4.tcp.touch(id.id.kind, id.id.handle.slot),
            Version::V6 => self.v6.tcp.touch(id.id.kind, id.id.handle.slot),
        }
    }

    #[cold]
    fn starve_tcp(&mut self, id: TcpId) {
        match id.version {
            Version::V4 => self.v4.tcp.starve(id.id.kind, id.id.handle.slot),
            Version::V6 => self.v6.tcp.starve(id.id.kind, id.id.handle.slot),
        }
    }

    fn settle_tcp(&mut self, id: TcpId, fate: Fate, now: Instant) {
        if fate == Fate::Alive {
            return self.touch_tcp(id);
        }
        let Self {
            v4,
            v6,
            tcp,
            events,
            ..
        } = self;
        let cx = &mut tcp.context(events, now);
        let (kind, slot) = (id.id.kind, id.id.handle.slot);
        match id.version {
            Version::V4 => v4.tcp.retire(cx, kind, slot, fate),
            Version::V6 => v6.tcp.retire(cx, kind, slot, fate),
        }
    }

    /// An ICMP error quotes a segment of ours. RFC 5927 §4.1: it must be one that is under way.
    #[cold]
    pub(super) fn icmp_about_tcp<I: IpStack>(
        &mut self,
        tuple: &Tuple<I::Addr>,
        seq: SeqNum,
        error: Option<IcmpError>,
        now: Instant,
    ) -> bool {
        let Parts {
            table, tcp, events, ..
        } = I::tcp_parts(self);
        table.on_icmp(&mut tcp.context(events, now), tuple, seq, error)
    }

    /// The state of the connection between these ends, half-open and TIME-WAIT included, by the name
    /// that `ss` has for it; none if there is no such connection.
    #[must_use]
    pub fn tcp_state_between(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Option<&'static str> {
        let (version, slot) = match (local.ip(), remote.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let tuple = Tuple {
                    local: from,
                    remote: to,
                    local_port: local.port(),
                    remote_port: remote.port(),
                };
                (Version::V4, self.v4.tcp.find(&tuple)?)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let tuple = Tuple {
                    local: from,
                    remote: to,
                    local_port: local.port(),
                    remote_port: remote.port(),
                };
                (Version::V6, self.v6.tcp.find(&tuple)?)
            }
            _ => return None,
        };
        let (kind, slot) = match slot {
            Slot::HalfOpen(_) => return Some("SYN-RECV"),
            Slot::TimeWait(_) => return Some("TIME-WAIT"),
            Slot::Connection(kind, slot) => (kind, slot),
        };
        let id = match version {
            Version::V4 => self.v4.tcp.connection_id(kind, slot),
            Version::V6 => self.v6.tcp.connection_id(kind, slot),
        }?;
        self.tcp_state(TcpId { version, id }).map(State::name)
    }

    /// How many TCP records there are: connections, half-open, time-wait.
    #[must_use]
    pub fn tcp_census(&self) -> [usize; 3] {
        let (v4, v6) = (self.v4.tcp.census(), self.v6.tcp.census());
        [v4[0] + v6[0], v4[1] + v6[1], v4[2] + v6[2]]
    }

    /// How much of the memory of what is under way is in use.
    #[must_use]
    pub fn tcp_memory(&self) -> MemoryUse {
        self.tcp.pools.memory_use(&self.tcp.config)
    }

    /// A time before which no timer of TCP is due; `None` if none is set.
    #[must_use]
    pub fn tcp_next_deadline(&self) -> Option<Instant> {
        match (self.v4.tcp.next_deadline(), self.v6.tcp.next_deadline()) {
            (Some(v4), Some(v6)) => Some(v4.min(v6)),
            (v4, v6) => v4.or(v6),
        }
    }
}
