//! ICMP: errors about us, errors by us, and echo for addresses that we own.

use super::input::IpMeta;
use super::output::Request;
use super::version::{Header, IpStack};
use super::{Disposition, Handoff, Origin, Stack};
use crate::counters::{DropReason, Event};
use crate::frame::{Frame, FramePool};
use crate::ip::address::{IpAddress, Ipv4, Ipv6};
use crate::ip::path_mtu::{TooBig, TooBigOutcome};
use crate::link::AddressOwner;
use crate::socket::demux::Target;
use crate::tcp::seq::SeqNum;
use crate::tcp::socket_options::{IcmpError, SoftError as TcpSoftError};
use crate::tcp::tuple::Tuple;
use crate::time::Instant;
use crate::udp::{SoftError, Version};
use crate::wire::{ethernet, icmpv4, icmpv6, ipv4, ipv6, ndp, protocol, tcp, udp};
use core::net::SocketAddr;
use core::ops::Range;

/// An ICMP message of ours: (type, code, rest of header).
pub(super) type Message = (u8, u8, [u8; 4]);

impl<P: FramePool> Stack<P> {
    #[cold]
    pub(super) fn receive_icmpv4(
        &mut self,
        pool: &mut P,
        frame: &mut P::Frame,
        meta: IpMeta<Ipv4>,
        payload: Range<usize>,
        origin: Origin,
        now: Instant,
    ) -> Result<Disposition, DropReason> {
        let data = frame.data();
        let message = icmpv4::Packet::new_checked(data, payload.clone())?;
        let owner = self
            .owner_of(meta.destination.into())
            .ok_or(DropReason::IpNotLocal)?;
        match message.kind() {
            icmpv4::kind::ECHO_REQUEST if owner == AddressOwner::Stack => {
                let reply = (icmpv4::kind::ECHO_REPLY, 0, message.rest());
                self.echo(pool, frame, meta, payload, reply, now)
            }
            icmpv4::kind::ECHO_REQUEST | icmpv4::kind::ECHO_REPLY => Err(DropReason::IcmpNotForUs),
            icmpv4::kind::UNREACHABLE
            | icmpv4::kind::TIME_EXCEEDED
            | icmpv4::kind::PARAMETER_PROBLEM => {
                let needs_fragmentation = message.kind() == icmpv4::kind::UNREACHABLE
                    && message.code() == icmpv4::unreachable::FRAGMENTATION_NEEDED;
                let mtu = needs_fragmentation.then(|| u32::from(message.next_hop_mtu()));
                let at = message.body().start;
                let embedded =
                    ipv4::Packet::new_embedded(data, at).map_err(|_| DropReason::IcmpEmbedded)?;
                if embedded.fragment_offset() != 0 || !is_ours(embedded.protocol()) {
                    return Err(DropReason::IcmpNotForUs);
                }
                let error = Embedded::<Ipv4> {
                    local: embedded.source(),
                    remote: embedded.destination(),
                    protocol: embedded.protocol(),
                    ports_at: at + embedded.header_len(),
                    packet_len: embedded.total_len(),
                };
                self.soft_error(
                    data,
                    error,
                    (message.kind(), message.code()),
                    mtu,
                    origin,
                    now,
                )
            }
            // RFC 6633: source quench is discarded. Redirects are the kernel's, which owns the
            // routes (and refuses them, as any server should).
            _ => Err(DropReason::IcmpTypeUnknown),
        }
    }

    #[cold]
    pub(super) fn receive_icmpv6(
        &mut self,
        pool: &mut P,
        frame: &mut P::Frame,
        meta: IpMeta<Ipv6>,
        payload: Range<usize>,
        hop_limit: u8,
        origin: Origin,
        now: Instant,
    ) -> Result<Disposition, DropReason> {
        let data = frame.data();
        let IpMeta {
            source,
            destination,
            ..
        } = meta;
        let message = icmpv6::Packet::new_checked(data, payload.clone(), source, destination)?;
        let invalid = source.is_invalid_source();
        if let Some(repr) = ndp::Repr::parse(data, &message, hop_limit, source, destination)? {
            // RFC 4862 §5.4.2: who has no address yet asks from the unspecified one.
            if invalid && !source.is_unspecified() {
                return Err(DropReason::Ipv6SourceInvalid);
            }
            return self.receive_ndp(pool, frame, meta, repr, origin, now);
        }
        let owner = self
            .owner_of(destination.into())
            .ok_or(DropReason::IpNotLocal)?;
        if invalid {
            return Err(DropReason::Ipv6SourceInvalid);
        }
        match message.kind() {
            icmpv6::kind::ECHO_REQUEST if owner == AddressOwner::Stack => {
                let reply = (icmpv6::kind::ECHO_REPLY, 0, message.rest());
                self.echo(pool, frame, meta, payload, reply, now)
            }
            icmpv6::kind::ECHO_REQUEST | icmpv6::kind::ECHO_REPLY => Err(DropReason::IcmpNotForUs),
            kind @ (icmpv6::kind::UNREACHABLE
            | icmpv6::kind::PACKET_TOO_BIG
            | icmpv6::kind::TIME_EXCEEDED
            | icmpv6::kind::PARAMETER_PROBLEM) => {
                let mtu = (kind == icmpv6::kind::PACKET_TOO_BIG)
                    .then(|| u32::from_be_bytes(message.rest()));
                let at = message.body().start;
                let embedded =
                    ipv6::Packet::new_embedded(data, at).map_err(|_| DropReason::IcmpEmbedded)?;
                let later = embedded
                    .fragment()
                    .is_some_and(|fragment| fragment.offset != 0);
                if later || !is_ours(embedded.protocol()) {
                    return Err(DropReason::IcmpNotForUs);
                }
                let error = Embedded::<Ipv6> {
                    local: embedded.source(),
                    remote: embedded.destination(),
                    protocol: embedded.protocol(),
                    ports_at: at + embedded.header_len(),
                    packet_len: embedded.total_len(),
                };
                self.soft_error(data, error, (kind, message.code()), mtu, origin, now)
            }
            _ => Err(DropReason::IcmpTypeUnknown),
        }
    }

    /// An ICMP error about a datagram that we sent: path MTU, and a soft error for its socket.
    fn soft_error<I: IpStack>(
        &mut self,
        data: &[u8],
        embedded: Embedded<I>,
        (icmp_type, icmp_code): (u8, u8),
        mtu: Option<u32>,
        origin: Origin,
        now: Instant,
    ) -> Result<Disposition, DropReason> {
        let Embedded {
            local,
            remote,
            protocol,
            ports_at,
            packet_len,
        } = embedded;
        if protocol == protocol::TCP {
            let error = mtu
                .is_none()
                .then(|| tcp_meaning::<I>(icmp_type, icmp_code));
            return self.tcp_error(data, embedded, error, mtu, origin, now);
        }
        let (local_port, remote_port) =
            udp::embedded_ports(data, ports_at).ok_or(DropReason::IcmpEmbedded)?;
        // Only what a socket of ours may have sent is believed (RFC 8201 §6: forged messages).
        let target = I::state(self).demux.lookup(local, local_port);
        let target = target.ok_or(DropReason::IcmpNotForUs)?;
        self.events.count(Event::IcmpErrorRx);
        let outcome = mtu.map(|next_hop_mtu| {
            let packet_len = u32::try_from(packet_len).unwrap_or(u32::MAX);
            let message = TooBig {
                next_hop_mtu,
                packet_len,
            };
            self.learn_path_mtu::<I>(remote, message, now)
        });
        if let Some(TooBigOutcome::Absurd | TooBigOutcome::BelowMinimum) = outcome {
            // RFC 8201 §4: as if it had not come. The socket does not hear of it either.
            return Ok(Disposition::Done);
        }
        if let Target::Socket(index) = target
            && let Some(socket) = self.udp.at_mut(index)
        {
            let remote = SocketAddr::new(remote.into(), remote_port);
            socket.soft_error = Some(SoftError {
                remote,
                icmp_type,
                icmp_code,
            });
        }
        // RSS chose this worker by the router's address. The worker that serves the flow has to know.
        if let Some(TooBigOutcome::Lowered(_)) = outcome {
            return Ok(Self::tell_everyone(origin));
        }
        Ok(Disposition::Done)
    }

    /// An ICMP error about a segment that we sent, perhaps. RFC 5927 §4.1: only what is under way is
    /// believed.
    fn tcp_error<I: IpStack>(
        &mut self,
        data: &[u8],
        embedded: Embedded<I>,
        error: Option<IcmpError>,
        mtu: Option<u32>,
        origin: Origin,
        now: Instant,
    ) -> Result<Disposition, DropReason> {
        let Embedded {
            local,
            remote,
            ports_at,
            packet_len,
            ..
        } = embedded;
        let quoted = tcp::embedded(data, ports_at).ok_or(DropReason::IcmpEmbedded)?;
        let tuple = Tuple {
            local,
            remote,
            local_port: quoted.source_port,
            remote_port: quoted.destination_port,
        };
        let seq = SeqNum::new(quoted.seq);
        if !self.icmp_about_tcp::<I>(&tuple, seq, error, now) {
            // RSS chose this worker by the router's address: the connection may be another's.
            return match Self::tell_everyone(origin) {
                Disposition::Handoff(to) if self.config.workers > 1 => Ok(Disposition::Handoff(to)),
                _ => Err(DropReason::IcmpNotForUs),
            };
        }
        self.events.count(Event::IcmpErrorRx);
        if let Some(next_hop_mtu) = mtu {
            let packet_len = u32::try_from(packet_len).unwrap_or(u32::MAX);
            let message = TooBig {
                next_hop_mtu,
                packet_len,
            };
            // Seen by the connection when it transmits, which it does in this turn.
            self.learn_path_mtu::<I>(remote, message, now);
        }
        Ok(Disposition::Done)
    }

    /// Full-sized segments to `remote` vanish, and nobody says why: the next smaller size is taken for what
    /// the path carries, for as long as if a router had said so (RFC 4821 §7.7, RFC 8899 §4.3). Then the
    /// full size is tried again.
    #[cold]
    pub(super) fn learn_black_hole<I: IpStack>(&mut self, remote: I::Addr, now: Instant) {
        let current = u32::from(self.hop_through::<I>([0; 6], remote).mtu);
        let Some(next_hop_mtu) = BLACK_HOLE_MTUS
            .into_iter()
            .find(|mtu| *mtu < current && *mtu >= mtu_min::<I>())
        else {
            return;
        };
        let message = TooBig {
            next_hop_mtu,
            packet_len: current,
        };
        self.events.count(Event::PathMtuBlackHole);
        self.learn_path_mtu::<I>(remote, message, now);
    }

    fn learn_path_mtu<I: IpStack>(
        &mut self,
        remote: I::Addr,
        message: TooBig,
        now: Instant,
    ) -> TooBigOutcome {
        let first_hop_mtu = self.route_mtu::<I>(remote);
        let state = I::state(self);
        let outcome = state.path_mtus.too_big(remote, message, first_hop_mtu, now);
        match outcome {
            // Only this destination is forgotten: else forged messages would keep the cache empty.
            TooBigOutcome::Lowered(_) => {
                state.hops.forget(remote);
                self.events.count(Event::PathMtuLearned);
            }
            TooBigOutcome::NotLower | TooBigOutcome::Full => {}
            TooBigOutcome::Absurd | TooBigOutcome::BelowMinimum => {
                self.events.count(Event::PathMtuRefused);
            }
        }
        outcome
    }

    pub(super) fn expire_path_mtus(&mut self, now: Instant) {
        let generations = |stack: &Self| {
            (
                stack.v4.path_mtus.generation(),
                stack.v6.path_mtus.generation(),
            )
        };
        let before = generations(self);
        self.v4.path_mtus.expire(now);
        self.v6.path_mtus.expire(now);
        if generations(self) != before {
            self.forget_next_hops();
        }
    }

    /// Turns an echo request into its reply, in place (RFC 1122 §3.2.2.6, RFC 4443 §4.2): same data,
    /// from the address it was sent to.
    fn echo<I: IpStack>(
        &mut self,
        pool: &mut P,
        frame: &mut P::Frame,
        meta: IpMeta<I>,
        message: Range<usize>,
        reply: Message,
        now: Instant,
    ) -> Result<Disposition, DropReason> {
        let IpMeta {
            source,
            destination,
            offset,
            tos,
        } = meta;
        let data = frame.data();
        let hop = self
            .next_hop::<I>(pool, source, destination, now)
            .or_else(|reason| self.hop_of_packet::<I>(data, source, reason))?;
        let len = message.len();
        if !hop.carries(I::HEADER_BYTES + len) {
            return self.echo_in_pieces(pool, frame, meta, message, reply, now);
        }
        // Options and extension headers are not sent back: the message moves up behind a header
        // without them.
        let start = offset + I::HEADER_BYTES;
        let data = frame.data_mut();
        data.copy_within(message, start);
        let header = Header::<I> {
            source: destination,
            destination: source,
            protocol: I::ICMP,
            tos,
            ttl: self.config.ttl,
            fragmentable: None,
            payload_len: u16::try_from(len).map_err(|_| DropReason::IcmpTruncated)?,
        };
        ethernet::turn_round(data, hop.mac(), self.link.mac);
        I::emit(data, offset, header).ok_or(DropReason::IcmpTruncated)?;
        let body_len = len - icmpv4::HEADER_LEN;
        I::emit_icmp(data, start, (destination, source), reply, body_len)
            .ok_or(DropReason::IcmpTruncated)?;
        frame.set_len(start + len);
        Ok(Disposition::Transmit(Event::IcmpEchoReplied))
    }

    /// The same for a request that came whole and is longer than the path back carries.
    fn echo_in_pieces<I: IpStack>(
        &mut self,
        pool: &mut P,
        frame: &P::Frame,
        meta: IpMeta<I>,
        message: Range<usize>,
        reply: Message,
        now: Instant,
    ) -> Result<Disposition, DropReason> {
        let truncated = DropReason::IcmpTruncated;
        let data = frame.data();
        let body = data.get(message.start + icmpv4::HEADER_LEN..message.end);
        let body = body.ok_or(truncated)?;
        let addresses = (meta.destination, meta.source);
        let head = I::icmp_header(addresses, reply, body).ok_or(truncated)?;
        let header = Header::<I> {
            source: meta.destination,
            destination: meta.source,
            protocol: I::ICMP,
            tos: meta.tos,
            ttl: self.config.ttl,
            fragmentable: None,
            payload_len: u16::try_from(message.len()).map_err(|_| truncated)?,
        };
        let request = Request {
            stamps: frame.stamps(),
            station: self.station_of(data),
        };
        self.send_transport(pool, header, [&head, body], request, now)?;
        self.events.count(Event::IcmpEchoReplied);
        Ok(Disposition::Done)
    }

    /// The same for a request that came in fragments: the reply leaves in fragments.
    pub(super) fn echo_large<I: IpStack>(
        &mut self,
        pool: &mut P,
        meta: IpMeta<I>,
        buffer: &mut [u8],
        message: Range<usize>,
        request: Request,
        now: Instant,
    ) -> Result<Disposition, DropReason> {
        let (asked, replied) = match I::RUNTIME {
            Version::V4 => (icmpv4::kind::ECHO_REQUEST, icmpv4::kind::ECHO_REPLY),
            Version::V6 => (icmpv6::kind::ECHO_REQUEST, icmpv6::kind::ECHO_REPLY),
        };
        let (kind, rest) = I::read_icmp(buffer, message.clone(), meta.source, meta.destination)?;
        let owner = self.owner_of(meta.destination.into());
        if kind != asked || owner != Some(AddressOwner::Stack) {
            return Err(DropReason::IcmpNotForUs);
        }
        let body_len = message.len() - icmpv4::HEADER_LEN;
        let addresses = (meta.destination, meta.source);
        I::emit_icmp(
            buffer,
            message.start,
            addresses,
            (replied, 0, rest),
            body_len,
        )
        .ok_or(DropReason::IcmpTruncated)?;
        let header = Header::<I> {
            source: meta.destination,
            destination: meta.source,
            protocol: I::ICMP,
            tos: meta.tos,
            ttl: self.config.ttl,
            fragmentable: None,
            payload_len: u16::try_from(message.len()).map_err(|_| DropReason::TxTooLong)?,
        };
        let bytes = buffer.get(message).ok_or(DropReason::IcmpTruncated)?;
        let (head, tail) = bytes.split_at(icmpv4::HEADER_LEN.min(bytes.len()));
        self.send_transport(pool, header, [head, tail], request, now)?;
        self.events.count(Event::IcmpEchoReplied);
        Ok(Disposition::Done)
    }

    /// RFC 1122 §3.2.2.1, RFC 4443 §3.1: nobody listens on this port.
    pub(super) fn port_unreachable<I: IpStack>(
        &mut self,
        pool: &mut P,
        data: &[u8],
        meta: IpMeta<I>,
        now: Instant,
    ) {
        let message = match I::RUNTIME {
            Version::V4 => (icmpv4::kind::UNREACHABLE, icmpv4::unreachable::PORT, [0; 4]),
            Version::V6 => (icmpv6::kind::UNREACHABLE, icmpv6::PORT_UNREACHABLE, [0; 4]),
        };
        self.send_error(pool, data, meta, message, now);
    }

    /// RFC 1122 §3.2.2.1: nobody speaks this protocol.
    pub(super) fn protocol_unreachable(
        &mut self,
        pool: &mut P,
        data: &[u8],
        meta: IpMeta<Ipv4>,
        now: Instant,
    ) {
        let code = icmpv4::unreachable::PROTOCOL;
        self.send_error(
            pool,
            data,
            meta,
            (icmpv4::kind::UNREACHABLE, code, [0; 4]),
            now,
        );
    }

    /// RFC 4443 §3.4: something in the packet's headers makes it impossible to process.
    pub(super) fn parameter_problem(
        &mut self,
        pool: &mut P,
        data: &[u8],
        meta: IpMeta<Ipv6>,
        report: ipv6::Report,
        now: Instant,
    ) {
        let pointer = report.pointer.to_be_bytes();
        let message = (icmpv6::kind::PARAMETER_PROBLEM, report.code, pointer);
        self.send_error(pool, data, meta, message, now);
    }

    /// RFC 1122 §3.3.2, RFC 8200 §4.5: the rest of a datagram's fragments never came. `packet` is
    /// the first of them, from its IP header on.
    pub(super) fn reassembly_time_exceeded<I: IpStack>(
        &mut self,
        pool: &mut P,
        packet: &[u8],
        (source, destination): (I::Addr, I::Addr),
        now: Instant,
    ) {
        let message = match I::RUNTIME {
            Version::V4 => (
                icmpv4::kind::TIME_EXCEEDED,
                icmpv4::REASSEMBLY_TIME_EXCEEDED,
                [0; 4],
            ),
            Version::V6 => (
                icmpv6::kind::TIME_EXCEEDED,
                icmpv6::REASSEMBLY_TIME_EXCEEDED,
                [0; 4],
            ),
        };
        let meta = IpMeta::<I> {
            source,
            destination,
            offset: 0,
            tos: 0,
        };
        self.send_error(pool, packet, meta, message, now);
    }

    /// Sends an ICMP error about the packet at `meta.offset` of `data` to its source.
    ///
    /// The caller has made sure that the packet was sent by one host and to one address of ours alone
    /// (RFC 1122 §3.2.2, RFC 4443 §2.4 (e)): errors come only from the transports' paths and the
    /// header checks, which packets from or to groups and in frames for groups do not reach.
    #[cold]
    fn send_error<I: IpStack>(
        &mut self,
        pool: &mut P,
        data: &[u8],
        meta: IpMeta<I>,
        (kind, code, rest): Message,
        now: Instant,
    ) {
        // RFC 1122 §3.2.2, RFC 4443 §2.4 (e.1): no error about an error.
        if I::is_icmp_error(data, meta.offset) {
            return;
        }
        if !self.icmp.allow::<I>(meta.source, now) {
            self.drops.count(DropReason::IcmpRateLimited);
            return;
        }
        // RFC 1812 §4.3.2.3: as much of the packet as fits 576 bytes; RFC 4443 §2.4 (c): 1280.
        let limit = match I::RUNTIME {
            Version::V4 => ipv4::DATAGRAM_LEN_MIN,
            Version::V6 => ipv6::MTU_MIN,
        };
        // What pads the frame behind the packet is not part of it.
        let packet = data.get(meta.offset..).unwrap_or(&[]);
        let packet = &packet[..packet.len().min(I::packet_len(data, meta.offset))];
        let quoted = &packet[..packet
            .len()
            .min(limit - I::HEADER_BYTES - icmpv4::HEADER_LEN)];
        let addresses = (meta.destination, meta.source);
        let Some(header) = I::icmp_header(addresses, (kind, code, rest), quoted) else {
            return;
        };
        let ip = Header::<I> {
            source: meta.destination,
            destination: meta.source,
            protocol: I::ICMP,
            // RFC 1122 §3.2.2: ICMP errors have TOS 0.
            tos: 0,
            ttl: self.config.ttl,
            fragmentable: None,
            payload_len: u16::try_from(header.len() + quoted.len()).unwrap_or(u16::MAX),
        };
        // What was put together from pieces begins with its IP header and tells no station.
        let fallback = if meta.offset > 0 {
            self.station_of(data)
        } else {
            None
        };
        let pieces = [&header[..], quoted];
        let request = Request {
            station: fallback,
            ..Request::NONE
        };
        match self.send_transport(pool, ip, pieces, request, now) {
            Ok(()) => self.events.count(Event::IcmpErrorTx),
            Err(reason) => self.drops.count(reason),
        }
    }

    /// Hands what was learned from a frame to the other workers, once.
    pub(super) fn tell_everyone(origin: Origin) -> Disposition {
        match origin {
            Origin::Ring => Disposition::Handoff(Handoff::Everyone),
            Origin::Handoff { .. } => Disposition::Done,
        }
    }
}

/// What is tried where longer packets vanish, in bytes. 1280 is what every IPv6 path carries (RFC 8200
/// §5), and nearly every tunnel of IPv4; 576 is what every IPv4 host takes (RFC 791 §3.1), and few paths carry
/// less.
const BLACK_HOLE_MTUS: [u32; 2] = [1280, 576];

/// The shortest of them that a path of this version can be limited to.
const fn mtu_min<I: IpStack>() -> u32 {
    match I::RUNTIME {
        Version::V4 => 576,
        Version::V6 => 1280,
    }
}

/// Whether errors about packets of this protocol may concern us.
const fn is_ours(protocol: u8) -> bool {
    matches!(protocol, protocol::UDP | protocol::TCP)
}

/// What an ICMP error that is not about lengths means to TCP (RFC 9293 §3.9.2.2), and whether it is
/// hard: type 3 codes 2 and 3 of ICMP, type 1 codes 1 and 4 of ICMPv6 (SHLD-26). All others are soft
/// (MUST-56).
fn tcp_meaning<I: IpStack>(kind: u8, code: u8) -> IcmpError {
    let (error, hard) = match (I::RUNTIME, kind, code) {
        (Version::V4, icmpv4::kind::UNREACHABLE, 0 | 6 | 11) => {
            (TcpSoftError::NetworkUnreachable, false)
        }
        (Version::V4, icmpv4::kind::UNREACHABLE, icmpv4::unreachable::PROTOCOL) => {
            (TcpSoftError::ProtocolUnreachable, true)
        }
        (Version::V4, icmpv4::kind::UNREACHABLE, icmpv4::unreachable::PORT) => {
            (TcpSoftError::PortUnreachable, true)
        }
        // RFC 1812 §5.2.7.1: forbidden by administration; Linux says "host unreachable".
        (Version::V6, icmpv6::kind::UNREACHABLE, 0) => (TcpSoftError::NetworkUnreachable, false),
        (Version::V6, icmpv6::kind::UNREACHABLE, 1) => (TcpSoftError::Prohibited, true),
        (Version::V6, icmpv6::kind::UNREACHABLE, icmpv6::PORT_UNREACHABLE) => {
            (TcpSoftError::PortUnreachable, true)
        }
        // RFC 4443 §3.1: policy, or a route that rejects.
        (Version::V6, icmpv6::kind::UNREACHABLE, 5 | 6) => (TcpSoftError::Prohibited, false),
        (Version::V4, icmpv4::kind::PARAMETER_PROBLEM, _)
        | (Version::V6, icmpv6::kind::PARAMETER_PROBLEM, _) => {
            (TcpSoftError::ParameterProblem, false)
        }
        _ => (TcpSoftError::HostUnreachable, false),
    };
    IcmpError { error, hard }
}

/// A packet of ours quoted in an ICMP error.
struct Embedded<I: IpStack> {
    local: I::Addr,
    remote: I::Addr,
    protocol: u8,
    /// Where its ports stand, in bytes from the start of the frame.
    ports_at: usize,
    /// Its length as its header says, in bytes.
    packet_len: usize,
}
