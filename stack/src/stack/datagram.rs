//! What applications do with UDP sockets.

use super::Stack;
use super::output::{Hop, Request, is_unknown_neighbor};
use super::version::{IpStack, of_version};
use crate::counters::{DropReason, Event};
use crate::frame::{Frame, FramePool};
use crate::ip::address::{Ipv4, Ipv6, unmapped};
use crate::link::MacAddr;
use crate::queue::Queue;
use crate::socket::demux::Target;
use crate::time::Instant;
use crate::udp::{Datagram, Large, Parts, Storage, UdpSocketId, Version};
use crate::wire::{ethernet, udp};
use alloc::boxed::Box;
use core::net::{IpAddr, SocketAddr};

/// Where a datagram goes, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendTo {
    /// One of our addresses, and the port the answer should come to.
    pub local: SocketAddr,
    /// The receiver, of the same version; [`Stack::udp_send`] knows about mapped addresses.
    pub remote: SocketAddr,
    /// Type of service or traffic class: DSCP and ECN.
    pub tos: u8,
}

/// Why a datagram was not sent. It is counted as a drop under the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendError(pub DropReason);

impl core::fmt::Display for SendError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.0.help())
    }
}

impl core::error::Error for SendError {}

impl<P: FramePool> Stack<P> {
    /// Hands all datagrams that wait in a socket to `serve`, oldest first; says how many. Cheaper than
    /// [`udp_recv`](Self::udp_recv), datagram by datagram.
    ///
    /// While it runs, the socket's queue is in its hands: nothing else comes in or can be taken out.
    #[inline(always)] // See `fast_path`.
    pub fn udp_serve(
        &mut self,
        id: UdpSocketId,
        mut serve: impl FnMut(&mut Self, Datagram<P::Frame>),
    ) -> usize {
        let Some(socket) = self.udp.get_mut(id) else {
            return 0;
        };
        let mut queue = core::mem::replace(&mut socket.queue, Queue::NONE);
        let served = queue.len();
        queue.take_all(|datagram| {
            serve(self, datagram);
            Ok(())
        });
        // It may have been closed meanwhile.
        if let Some(socket) = self.udp.get_mut(id) {
            socket.queue = queue;
        }
        served
    }

    /// Takes the oldest datagram out of a socket's queue.
    pub fn udp_recv(&mut self, id: UdpSocketId) -> Option<Datagram<P::Frame>> {
        self.udp.get_mut(id)?.queue.pop()
    }

    /// Datagrams waiting in a socket's queue.
    #[must_use]
    pub fn udp_recv_len(&mut self, id: UdpSocketId) -> usize {
        self.udp.get_mut(id).map_or(0, |socket| socket.queue.len())
    }

    /// Gives a datagram's buffer back.
    #[inline]
    pub fn udp_release(&mut self, pool: &mut P, datagram: Datagram<P::Frame>) {
        match datagram.0 {
            Storage::Frame { frame, .. } => pool.give(frame),
            Storage::Large(large) => self.large.push(large),
        }
    }

    /// Drops a datagram for a reason of the application's.
    #[inline]
    pub fn udp_discard(&mut self, pool: &mut P, datagram: Datagram<P::Frame>, reason: DropReason) {
        self.drops.count(reason);
        self.udp_release(pool, datagram);
    }

    /// Sends a datagram's payload back to where it came from, in the frame it came in. It leaves
    /// from the address it was sent to (RFC 1122 §4.1.3.5).
    ///
    /// # Errors
    /// [`SendError`]; the datagram's buffer has been given back.
    #[inline(always)] // See `fast_path`.
    pub fn udp_reply(
        &mut self,
        pool: &mut P,
        mut datagram: Datagram<P::Frame>,
        now: Instant,
    ) -> Result<(), SendError> {
        let turned = match &mut datagram.0 {
            // Without room for it, the long way refuses it.
            Storage::Frame { frame, parts } if self.egress.has_room() => {
                self.turn_plain_round(frame, parts)
            }
            _ => false,
        };
        if turned && let Storage::Frame { frame, .. } = datagram.0 {
            // It has been counted: afterwards that would have to be kept while the frame moves.
            let queued = self.transmit(pool, frame);
            debug_assert!(queued.is_ok(), "invariant: there is room");
            return Ok(());
        }
        self.aside_reply = Some(datagram);
        self.reply_the_long_way(pool, now)
    }

    fn transmit_reply(
        &mut self,
        pool: &mut P,
        frame: P::Frame,
        parts: Parts,
    ) -> Result<(), SendError> {
        match self.transmit(pool, frame) {
            Ok(()) => {
                self.count_sent(&parts);
                Ok(())
            }
            Err(reason) => {
                self.drops.count(reason);
                Err(SendError(reason))
            }
        }
    }

    /// A reply whose next hop has to be found, or that cannot go out in its request's frame: the
    /// request had options, or the reply is longer than the path carries.
    #[cold]
    fn reply_the_long_way(&mut self, pool: &mut P, now: Instant) -> Result<(), SendError> {
        let (mut frame, parts) = match self.aside_reply.take() {
            Some(Datagram(Storage::Frame { frame, parts })) => (frame, parts),
            Some(Datagram(Storage::Large(large))) => return self.reply_large(pool, large, now),
            None => return Ok(()),
        };
        let udp_offset = usize::from(parts.payload_offset).saturating_sub(udp::HEADER_LEN);
        // RFC 768: a sender without a port expects no reply.
        if let None | Some((0, _)) = udp::embedded_ports(frame.data(), udp_offset) {
            self.discard(pool, frame, DropReason::UdpPortZero);
            return Err(SendError(DropReason::UdpPortZero));
        }
        let turned = match parts.headers.version() {
            Version::V4 => self.find_hop_and_turn_round::<Ipv4>(pool, &mut frame, parts, now),
            Version::V6 => self.find_hop_and_turn_round::<Ipv6>(pool, &mut frame, parts, now),
        };
        match turned {
            Ok(Some(())) => self.transmit_reply(pool, frame, parts),
            Ok(None) => {
                let datagram = Datagram(Storage::Frame { frame, parts });
                let to = SendTo {
                    local: datagram.local(),
                    remote: datagram.remote(),
                    tos: 0,
                };
                let Storage::Frame { frame, .. } = &datagram.0 else {
                    return Ok(());
                };
                let request = Request {
                    stamps: frame.stamps(),
                    station: self.station_of(frame.data()),
                };
                let result = self.send_answer(pool, to, datagram.payload(), request, now);
                self.udp_release(pool, datagram);
                result
            }
            Err(reason) => {
                self.discard(pool, frame, reason);
                Err(SendError(reason))
            }
        }
    }

    /// `None` if the frame cannot hold its own reply.
    fn find_hop_and_turn_round<I: IpStack>(
        &mut self,
        pool: &mut P,
        frame: &mut P::Frame,
        parts: Parts,
        now: Instant,
    ) -> Result<Option<()>, DropReason> {
        if !parts.has_plain_ip(I::HEADER_BYTES) {
            return Ok(None);
        }
        let data = frame.data();
        let (remote, local) =
            I::addresses(data, usize::from(parts.ip_offset)).ok_or(DropReason::FrameTooLong)?;
        let hop = self
            .next_hop::<I>(pool, remote, local, now)
            .or_else(|reason| {
                // The neighbour is being looked for: meanwhile the sender's own router or the sender
                // itself, who handed us this packet, will do for its answer.
                self.hop_of_packet::<I>(data, remote, reason)
            })?;
        Ok(self.turn_round::<I>(frame, &parts, &hop))
    }

    #[cold]
    fn reply_large(
        &mut self,
        pool: &mut P,
        large: Box<Large>,
        now: Instant,
    ) -> Result<(), SendError> {
        let to = SendTo {
            local: large.local,
            remote: large.remote,
            tos: 0,
        };
        let payload = large.buffer.get(large.payload.clone()).unwrap_or(&[]);
        let request = Request {
            stamps: large.stamps,
            station: large.station,
        };
        let result = self.send_answer(pool, to, payload, request, now);
        self.large.push(large);
        result
    }

    /// Sends a datagram, copying `payload` (at most 65,507 bytes over IPv4, 65,527 over IPv6). One
    /// longer than the path carries goes out in fragments.
    ///
    /// Mapped addresses (`::ffff:a.b.c.d`) are for dual-stack sockets, whose datagrams then go out over
    /// IPv4 (RFC 3493 §3.7).
    ///
    /// # Errors
    /// [`SendError`]: no route, no frame, queue full, too long, versions that differ, a mapped address
    /// where no dual-stack socket is bound to `to.local`.
    pub fn udp_send(
        &mut self,
        pool: &mut P,
        to: SendTo,
        payload: &[u8],
        now: Instant,
    ) -> Result<(), SendError> {
        match self.without_mapping(to) {
            Ok(to) => self.send_answer(pool, to, payload, Request::NONE, now),
            Err(reason) => {
                self.drops.count(reason);
                Err(SendError(reason))
            }
        }
    }

    /// The same ends without mapped addresses: those are for a socket of IPv6 that takes IPv4. For one
    /// of IPv6 alone there is no way there, as on Linux (`ENETUNREACH`).
    fn without_mapping(&self, to: SendTo) -> Result<SendTo, DropReason> {
        let (local, remote) = (unmapped(to.local.ip()), unmapped(to.remote.ip()));
        if (local, remote) == (to.local.ip(), to.remote.ip()) {
            return Ok(to);
        }
        let port = to.local.port();
        let target = match local {
            IpAddr::V4(local) => self.v4.demux.lookup(local, port),
            IpAddr::V6(_) => None,
        };
        match target {
            Some(Target::Socket(index)) if self.udp.is_v6(index) => Ok(SendTo {
                local: SocketAddr::new(local, port),
                remote: SocketAddr::new(remote, to.remote.port()),
                ..to
            }),
            _ => Err(DropReason::TxNoRoute),
        }
    }

    fn send_answer(
        &mut self,
        pool: &mut P,
        to: SendTo,
        payload: &[u8],
        request: Request,
        now: Instant,
    ) -> Result<(), SendError> {
        let result = match to.remote {
            SocketAddr::V4(_) => self.send_version::<Ipv4>(pool, to, payload, request, now),
            SocketAddr::V6(_) => self.send_version::<Ipv6>(pool, to, payload, request, now),
        };
        match result {
            Ok(()) => {
                self.events.count(Event::UdpTx);
                self.events.add(Event::UdpTxBytes, payload.len() as u64);
                Ok(())
            }
            Err(reason) => {
                self.drops.count(reason);
                Err(SendError(reason))
            }
        }
    }

    fn send_version<I: IpStack>(
        &mut self,
        pool: &mut P,
        to: SendTo,
        payload: &[u8],
        request: Request,
        now: Instant,
    ) -> Result<(), DropReason> {
        let no_route = DropReason::TxNoRoute;
        let local = of_version::<I>(to.local.ip()).ok_or(no_route)?;
        let remote = of_version::<I>(to.remote.ip()).ok_or(no_route)?;
        if to.remote.port() == 0 {
            return Err(DropReason::UdpPortZero);
        }
        let header = super::output::UdpHeader::<I> {
            local,
            remote,
            local_port: to.local.port(),
            remote_port: to.remote.port(),
            tos: to.tos,
        };
        self.send_udp(pool, header, payload, request, now)
    }

    /// The Ethernet source of a received frame as the next hop of its answer.
    #[cold]
    pub(super) fn hop_of_packet<I: IpStack>(
        &mut self,
        data: &[u8],
        remote: I::Addr,
        reason: DropReason,
    ) -> Result<Hop, DropReason> {
        if !is_unknown_neighbor(reason) {
            return Err(reason);
        }
        let mac = self
            .station_of(data)
            .ok_or(DropReason::EthernetSourceInvalid)?;
        self.events.count(Event::NeighborFromPacket);
        Ok(self.hop_through::<I>(mac, remote))
    }

    /// The station that a received frame comes from: its Ethernet source, unless that is a group,
    /// nobody or ourselves.
    #[cold]
    pub(super) fn station_of(&self, data: &[u8]) -> Option<MacAddr> {
        let source = ethernet::Packet::new_checked(data).ok()?.source();
        let refused = ethernet::is_group(source) || source == [0; 6] || source == self.link.mac;
        (!refused).then_some(source)
    }
}
