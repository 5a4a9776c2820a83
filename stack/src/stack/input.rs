//! From the Ethernet header to a socket's queue.

use super::version::IpStack;
use super::{Disposition, Handoff, Origin, Stack};
use crate::counters::{DropReason, Event};
use crate::frame::{Frame, FramePool};
use crate::ip::address::{IpAddress, Ipv4, Ipv6};
use crate::link::AddressOwner;
use crate::socket::demux::Target;
use crate::time::Instant;
use crate::udp::{Datagram, Parts, Storage, Version};
use crate::wire::udp::Verified;
use crate::wire::{ethernet, ipv4, ipv6, protocol, udp};
use core::net::IpAddr;
use core::ops::Range;

/// What the transport layer needs to know of an IP header.
#[derive(Clone, Copy, Debug)]
pub(super) struct IpMeta<I: IpStack> {
    pub(super) source: I::Addr,
    pub(super) destination: I::Addr,
    /// Where the IP header starts, in bytes from the start of the frame.
    pub(super) offset: usize,
    pub(super) tos: u8,
}

impl<P: FramePool> Stack<P> {
    /// Looks at a frame from its first byte to its last header.
    #[inline]
    pub(super) fn receive(
        &mut self,
        pool: &mut P,
        frame: &mut P::Frame,
        origin: Origin,
        now: Instant,
    ) -> Result<Disposition, DropReason> {
        let data = frame.data();
        let ethernet = ethernet::Packet::new_checked(data)?;
        let offset = ethernet.payload_offset();
        let to_us = ethernet.destination() == self.link.mac;
        if !to_us && !ethernet::is_group(ethernet.destination()) {
            return Err(DropReason::EthernetNotForUs);
        }
        if ethernet.vlans() != self.config.vlans {
            return Err(DropReason::VlanMismatch);
        }
        match ethernet.ether_type() {
            ethernet::TYPE_IPV4 => self.receive_ipv4(pool, frame, offset, to_us, origin, now),
            ethernet::TYPE_IPV6 => self.receive_ipv6(pool, frame, offset, to_us, origin, now),
            ethernet::TYPE_ARP => self.receive_arp(pool, frame, offset, origin, now),
            _ => Err(DropReason::EtherTypeUnknown),
        }
    }

    #[inline]
    fn receive_ipv4(
        &mut self,
        pool: &mut P,
        frame: &mut P::Frame,
        offset: usize,
        to_us: bool,
        origin: Origin,
        now: Instant,
    ) -> Result<Disposition, DropReason> {
        let data = frame.data();
        let packet = ipv4::Packet::new_checked(data, offset)?;
        let meta = IpMeta::<Ipv4> {
            source: packet.source(),
            destination: packet.destination(),
            offset,
            tos: packet.tos(),
        };
        // RFC 1122 §3.2.1.3: discard silently what claims a source no host may have.
        if meta.source.is_invalid_source() || self.v4.is_broadcast(meta.source) {
            return Err(DropReason::Ipv4SourceInvalid);
        }
        if !to_us {
            return Err(self.in_group_frame(meta.destination.into()));
        }
        if packet.is_fragment() {
            return self.receive_fragment_v4(pool, frame, meta, origin, now);
        }
        match packet.protocol() {
            protocol::UDP => self.receive_udp(pool, frame, meta, packet.payload(), origin, now),
            protocol::TCP => self.receive_tcp(frame, meta, packet.payload(), origin, now),
            protocol::ICMPV4 => {
                let payload = packet.payload();
                self.receive_icmpv4(pool, frame, meta, payload, origin, now)
            }
            _ => Err(self.refuse_protocol(pool, frame.data(), meta, now)),
        }
    }

    #[inline]
    fn receive_ipv6(
        &mut self,
        pool: &mut P,
        frame: &mut P::Frame,
        offset: usize,
        to_us: bool,
        origin: Origin,
        now: Instant,
    ) -> Result<Disposition, DropReason> {
        let data = frame.data();
        let packet = match ipv6::Packet::new_checked(data, offset) {
            Ok(packet) => packet,
            Err(problem) => return self.report_problem(pool, data, offset, to_us, problem, now),
        };
        let meta = IpMeta::<Ipv6> {
            source: packet.source(),
            destination: packet.destination(),
            offset,
            tos: packet.traffic_class(),
        };
        let (protocol, payload) = (packet.protocol(), packet.payload());
        // Neighbour solicitations and advertisements do come for groups. What else does finds that
        // no group is an address of ours.
        if !to_us && !meta.destination.is_multicast() {
            return Err(self.in_group_frame(meta.destination.into()));
        }
        if protocol == protocol::ICMPV6 && packet.fragment().is_none() {
            let hop_limit = packet.hop_limit();
            return self.receive_icmpv6(pool, frame, meta, payload, hop_limit, origin, now);
        }
        if meta.source.is_invalid_source() {
            return Err(DropReason::Ipv6SourceInvalid);
        }
        if !to_us {
            return Err(DropReason::IpNotLocal);
        }
        match packet.fragment() {
            // RFC 6946: a "fragment" that is the whole datagram is processed as one.
            None
            | Some(ipv6::Fragment {
                offset: 0,
                more: false,
                ..
            }) => {}
            Some(fragment) => {
                return self.receive_fragment_v6(pool, frame, meta, payload, fragment, origin, now);
            }
        }
        match protocol {
            protocol::UDP => self.receive_udp(pool, frame, meta, payload, origin, now),
            protocol::TCP => self.receive_tcp(frame, meta, payload, origin, now),
            // RFC 6980 §5: neighbour discovery never comes behind a fragment header; hop limit 0
            // makes it malformed.
            protocol::ICMPV6 => self.receive_icmpv6(pool, frame, meta, payload, 0, origin, now),
            _ => Err(self.refuse_next_header(pool, data, meta, &packet, now)),
        }
    }

    /// Why a packet to `destination` is dropped that came in a frame for a group of stations.
    #[cold]
    fn in_group_frame(&self, destination: IpAddr) -> DropReason {
        // RFC 1122 §3.3.6: a frame sent to everybody must hold a datagram for everybody; and we take
        // none of those.
        match self.owner_of(destination) {
            Some(_) => DropReason::IpInGroupFrame,
            None => DropReason::IpNotLocal,
        }
    }

    /// A UDP datagram that lies in `payload` of the frame.
    #[inline]
    fn receive_udp<I: IpStack>(
        &mut self,
        pool: &mut P,
        frame: &P::Frame,
        meta: IpMeta<I>,
        payload: Range<usize>,
        origin: Origin,
        now: Instant,
    ) -> Result<Disposition, DropReason> {
        let data = frame.data();
        let packet = udp::Packet::new_checked(data, payload)?;
        let port = packet.destination_port();
        let Some(target) = I::state(self).demux.lookup(meta.destination, port) else {
            return Err(self.refuse_port(pool, data, meta, &packet, now));
        };
        let verified = self.check_udp(&packet, meta)?;
        match target {
            Target::Socket(socket) => {
                let stands = verified == Verified::Right;
                let mut parts = Parts::new(I::RUNTIME, meta.offset, &packet, stands);
                if packet.source_port() == 0 {
                    parts.headers = parts.headers.without_reply();
                }
                Ok(Disposition::Deliver { socket, parts })
            }
            Target::Elsewhere(tag) => {
                let to = self.other_worker(tag, meta, &packet, origin)?;
                Ok(Disposition::Handoff(to))
            }
        }
    }

    /// Which of the workers that serve a service a datagram is for.
    pub(super) fn other_worker<I: IpStack>(
        &self,
        tag: u16,
        meta: IpMeta<I>,
        packet: &udp::Packet<'_>,
        origin: Origin,
    ) -> Result<Handoff, DropReason> {
        // Two workers that each take the other for the one who serves it would never end.
        if origin != Origin::Ring {
            return Err(DropReason::UdpNoSocket);
        }
        let ports = u32::from(packet.source_port()) << 16 | u32::from(packet.destination_port());
        let flow = I::Addr::flow_hash(&self.key, meta.destination, meta.source, ports);
        Ok(Handoff::Service { tag, flow })
    }

    /// RFC 1122 §4.1.3.4: a datagram with a wrong checksum is discarded silently.
    pub(super) fn check_udp<I: IpStack>(
        &mut self,
        packet: &udp::Packet<'_>,
        meta: IpMeta<I>,
    ) -> Result<Verified, DropReason> {
        let pseudo = |len| I::pseudo(meta.source, meta.destination, protocol::UDP, len);
        let verified = packet.verify(pseudo)?;
        match verified {
            Verified::Right => {}
            // RFC 8200 §8.1: over IPv6 the checksum is not optional.
            Verified::Absent if I::RUNTIME == Version::V6 => {
                return Err(DropReason::UdpChecksumMissing);
            }
            Verified::Absent => {}
            Verified::Incomplete if self.config.accept_incomplete_checksums => {
                self.events.count(Event::ChecksumIncompleteAccepted);
            }
            Verified::Incomplete => return Err(DropReason::UdpChecksumIncomplete),
        }
        Ok(verified)
    }

    /// Puts a datagram into its socket's queue.
    #[inline(always)]
    pub(super) fn enqueue_datagram(
        &mut self,
        pool: &mut P,
        socket: u16,
        frame: P::Frame,
        parts: Parts,
    ) {
        let Some(socket) = self.udp.at_mut(socket) else {
            return self.discard(pool, frame, DropReason::UdpNoSocket);
        };
        match socket.queue.push(Datagram(Storage::Frame { frame, parts })) {
            Ok(()) => {
                self.events.count(Event::UdpRx);
                self.events
                    .add(Event::UdpRxBytes, u64::from(parts.payload_len));
            }
            Err(datagram) => self.udp_discard(pool, datagram, DropReason::UdpQueueFull),
        }
    }

    /// RFC 1122 §4.1.3.1: a datagram for a port where nobody listens is answered with an ICMP
    /// error.
    #[cold]
    pub(super) fn refuse_port<I: IpStack>(
        &mut self,
        pool: &mut P,
        data: &[u8],
        meta: IpMeta<I>,
        packet: &udp::Packet<'_>,
        now: Instant,
    ) -> DropReason {
        let Some(owner) = self.owner_of(meta.destination.into()) else {
            return DropReason::IpNotLocal;
        };
        if let Err(reason) = self.check_udp(packet, meta) {
            return reason;
        }
        // On an address shared with the kernel the port may be the kernel's again: a packet that
        // was on its way to us when a service ended is no reason to turn its sender away.
        if owner == AddressOwner::Stack {
            self.port_unreachable(pool, data, meta, now);
        }
        DropReason::UdpNoSocket
    }

    /// A transport protocol we do not speak (RFC 1122 §3.2.2.1: code 2), IPv4.
    #[cold]
    pub(super) fn refuse_protocol(
        &mut self,
        pool: &mut P,
        data: &[u8],
        meta: IpMeta<Ipv4>,
        now: Instant,
    ) -> DropReason {
        match self.owner_of(IpAddr::V4(meta.destination)) {
            None => return DropReason::IpNotLocal,
            // The kernel speaks it; that it came to us is a matter of steering, not of the sender.
            Some(AddressOwner::Kernel) => {}
            Some(AddressOwner::Stack) => self.protocol_unreachable(pool, data, meta, now),
        }
        DropReason::IpProtocolUnknown
    }

    /// The same for IPv6 (RFC 8200 §4: parameter problem, code 1).
    #[cold]
    pub(super) fn refuse_next_header(
        &mut self,
        pool: &mut P,
        data: &[u8],
        meta: IpMeta<Ipv6>,
        packet: &ipv6::Packet<'_>,
        now: Instant,
    ) -> DropReason {
        // RFC 8200 §4.7: nothing to process, and nothing to report.
        if packet.protocol() == protocol::NO_NEXT_HEADER {
            return DropReason::IpProtocolUnknown;
        }
        match self.owner_of(IpAddr::V6(meta.destination)) {
            None => return DropReason::IpNotLocal,
            Some(AddressOwner::Kernel) => {}
            Some(AddressOwner::Stack) => {
                let report = packet.unknown_protocol();
                self.parameter_problem(pool, data, meta, report, now);
            }
        }
        DropReason::IpProtocolUnknown
    }

    /// An IPv6 header that cannot be processed: reported where RFC 8200 §4.2 asks for it.
    #[cold]
    fn report_problem(
        &mut self,
        pool: &mut P,
        data: &[u8],
        offset: usize,
        to_us: bool,
        problem: ipv6::Problem,
        now: Instant,
    ) -> Result<Disposition, DropReason> {
        if let (Some(report), Ok(header)) = (problem.report, ipv6::Packet::new_fixed(data, offset))
        {
            let meta = IpMeta::<Ipv6> {
                source: header.source(),
                destination: header.destination(),
                offset,
                tos: 0,
            };
            let ours = self.owner_of(IpAddr::V6(meta.destination));
            if to_us && ours.is_some() && !meta.source.is_invalid_source() {
                self.parameter_problem(pool, data, meta, report, now);
            }
        }
        Err(problem.reason)
    }
}
