//! The short way of the packets that come by the million: a whole UDP datagram without IP options or
//! extension headers, for a socket of ours, its checksum right; and its reply, in the same frame, to
//! a next hop that is known.
//!
//! Whatever is not exactly that takes the long way, through `input` and `datagram`, from its first
//! byte on. Until it is sure, the short way changes, counts and drops nothing, and it need not tell
//! reasons apart: that is why it is short. A test below holds it against the long way.

use super::Stack;
use super::input::SourceCheck;
use super::output::Hop;
use super::version::{Header, IpStack};
use crate::counters::Event;
use crate::frame::{Frame, FramePool};
use crate::ip::address::{Ipv4, Ipv6};
use crate::socket::demux::Target;
use crate::time::Instant;
use crate::udp::{Parts, Version};
use crate::wire::udp::Verified;
use crate::wire::{ethernet, ipv4, ipv6, protocol, udp};
use core::ops::Range;

impl<P: FramePool> Stack<P> {
    /// The socket that a plain datagram is for.
    #[inline]
    pub(super) fn plain_datagram(&self, data: &[u8]) -> Option<(u16, Parts)> {
        let ethernet = ethernet::Packet::new_untagged(data).ok()?;
        if ethernet.destination() != self.link.mac {
            return None;
        }
        let untagged = self.config.vlans == ethernet::VlanIds::NONE;
        match ethernet.ether_type() {
            ethernet::TYPE_IPV4 if untagged => self.plain_ipv4(data, ethernet::HEADER_LEN),
            ethernet::TYPE_IPV6 if untagged => self.plain_ipv6(data, ethernet::HEADER_LEN),
            ethernet::TYPE_VLAN | ethernet::TYPE_SERVICE_VLAN => self.plain_tagged(data),
            _ => None,
        }
    }

    /// The same behind 802.1Q tags. What both use is compiled into each of them, so that the offsets
    /// in untagged packets are constants.
    #[cold]
    fn plain_tagged(&self, data: &[u8]) -> Option<(u16, Parts)> {
        let ethernet = ethernet::Packet::new_checked(data).ok()?;
        let offset = ethernet.payload_offset();
        if ethernet.vlans() != self.config.vlans {
            return None;
        }
        match ethernet.ether_type() {
            ethernet::TYPE_IPV4 => self.plain_ipv4(data, offset),
            ethernet::TYPE_IPV6 => self.plain_ipv6(data, offset),
            _ => None,
        }
    }

    #[inline(always)]
    fn plain_ipv4(&self, data: &[u8], offset: usize) -> Option<(u16, Parts)> {
        let packet = ipv4::Packet::new_checked(data, offset).ok()?;
        let (source, destination) = (packet.source(), packet.destination());
        let plain = packet.header_len() == ipv4::HEADER_LEN
            && packet.protocol() == protocol::UDP
            && !packet.is_fragment();
        if !plain || source.is_invalid_source() || self.v4.is_broadcast(source) {
            return None;
        }
        self.plain_udp::<Ipv4>(data, offset, (source, destination), packet.payload())
    }

    #[inline(always)]
    fn plain_ipv6(&self, data: &[u8], offset: usize) -> Option<(u16, Parts)> {
        let packet = ipv6::Packet::new_checked(data, offset).ok()?;
        let (source, destination) = (packet.source(), packet.destination());
        let plain = packet.header_len() == ipv6::HEADER_LEN && packet.protocol() == protocol::UDP;
        if !plain || source.is_invalid_source() {
            return None;
        }
        self.plain_udp::<Ipv6>(data, offset, (source, destination), packet.payload())
    }

    #[inline(always)]
    fn plain_udp<I: IpStack>(
        &self,
        data: &[u8],
        offset: usize,
        (source, destination): (I::Addr, I::Addr),
        payload: Range<usize>,
    ) -> Option<(u16, Parts)> {
        let packet = udp::Packet::new_checked(data, payload).ok()?;
        let port = packet.destination_port();
        let Target::Socket(socket) = I::state_ref(self).demux.lookup(destination, port)? else {
            return None;
        };
        let pseudo = |len| I::pseudo(source, destination, protocol::UDP, len);
        if packet.verify(pseudo) != Ok(Verified::Right) || packet.source_port() == 0 {
            return None;
        }
        Some((socket, Parts::new(I::RUNTIME, offset, &packet, true)))
    }

    /// Makes a datagram its own reply, if there is nothing to it; says whether it did.
    #[inline]
    pub(super) fn turn_plain_round(
        &mut self,
        frame: &mut P::Frame,
        parts: Parts,
        now: Instant,
    ) -> bool {
        let turned = match parts.version {
            Version::V4 => self.turn_round_to_known_hop::<Ipv4>(frame, parts, now),
            Version::V6 => self.turn_round_to_known_hop::<Ipv6>(frame, parts, now),
        };
        turned.is_some()
    }

    #[inline]
    fn turn_round_to_known_hop<I: IpStack>(
        &mut self,
        frame: &mut P::Frame,
        parts: Parts,
        now: Instant,
    ) -> Option<()> {
        let ip_offset = usize::from(parts.ip_offset);
        let (remote, _) = I::addresses(frame.data(), ip_offset)?;
        let hop = self.known_hop::<I>(remote, now)?;
        if ip_offset == ethernet::HEADER_LEN {
            self.turn_round_at::<I>(frame, ethernet::HEADER_LEN, parts, hop)
        } else {
            self.turn_round::<I>(frame, parts, hop)
        }
    }

    /// Writes the reply's headers over the request's. `None`, and nothing written, if that cannot
    /// be: the request had options or extension headers, or the path does not carry the reply whole.
    #[cold]
    pub(super) fn turn_round<I: IpStack>(
        &mut self,
        frame: &mut P::Frame,
        parts: Parts,
        hop: Hop,
    ) -> Option<()> {
        self.turn_round_at::<I>(frame, usize::from(parts.ip_offset), parts, hop)
    }

    #[inline(always)]
    fn turn_round_at<I: IpStack>(
        &mut self,
        frame: &mut P::Frame,
        ip_offset: usize,
        parts: Parts,
        hop: Hop,
    ) -> Option<()> {
        let udp_offset = ip_offset + I::HEADER_BYTES;
        let payload_offset = udp_offset + udp::HEADER_LEN;
        let len = I::HEADER_BYTES + udp::HEADER_LEN + usize::from(parts.payload_len);
        if usize::from(parts.payload_offset) != payload_offset || !hop.carries(len) {
            return None;
        }
        // Ethernet padding is not sent back.
        frame.set_len(ip_offset + len);
        let our_mac = self.link.mac;
        let data = frame.data_mut();
        let headers = data.get_mut(..payload_offset)?;
        let (remote, local) = I::addresses(headers, ip_offset)?;
        let (remote_port, local_port) = udp::embedded_ports(headers, udp_offset)?;
        let header = Header::<I> {
            source: local,
            destination: remote,
            protocol: protocol::UDP,
            tos: 0,
            ttl: self.config.ttl,
            fragmentable: None,
            payload_len: parts.udp_len(),
        };
        ethernet::turn_round(headers, hop.mac, our_mac);
        I::emit(headers, ip_offset, header)?;
        if parts.checksum_stands {
            udp::turn_round(headers, udp_offset)?;
        } else {
            let pseudo = |len| I::pseudo(local, remote, protocol::UDP, len);
            let payload_len = usize::from(parts.payload_len);
            udp::emit(
                data,
                udp_offset,
                local_port,
                remote_port,
                payload_len,
                pseudo,
            )?;
        }
        self.events.count(Event::UdpTx);
        self.events
            .add(Event::UdpTxBytes, u64::from(parts.payload_len));
        Some(())
    }
}
