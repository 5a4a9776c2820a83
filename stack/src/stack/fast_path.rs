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
use crate::udp::{Headers, Parts};
use crate::wire::udp::Verified;
use crate::wire::{ethernet, ipv4, ipv6, protocol, udp};
use core::ops::Range;

impl<P: FramePool> Stack<P> {
    /// The socket that a plain datagram in an untagged frame is for.
    #[inline]
    pub(super) fn plain_datagram(&mut self, data: &[u8]) -> Option<(u16, Parts)> {
        // One look at the length for all headers.
        if data.len() < ethernet::HEADER_LEN + ipv4::HEADER_LEN + udp::HEADER_LEN {
            return None;
        }
        let ethernet = ethernet::Packet::new_untagged(data).ok()?;
        if ethernet.destination_word() != self.plain_destination {
            return None;
        }
        if ethernet.has_type(ethernet::TYPE_IPV4) {
            self.plain_ipv4(data, ethernet::HEADER_LEN)
        } else if ethernet.has_type(ethernet::TYPE_IPV6) {
            self.plain_ipv6(data, ethernet::HEADER_LEN)
        } else {
            None
        }
    }

    /// The same behind 802.1Q tags. What both use is compiled into each of them, so that the offsets
    /// in untagged packets are constants.
    #[cold]
    pub(super) fn plain_tagged_datagram(&mut self, data: &[u8]) -> Option<(u16, Parts)> {
        let ethernet = ethernet::Packet::new_checked(data).ok()?;
        if ethernet.destination() != self.link.mac || ethernet.vlans() != self.config.vlans {
            return None;
        }
        match ethernet.ether_type() {
            ethernet::TYPE_IPV4 => self.plain_ipv4(data, ethernet.payload_offset()),
            ethernet::TYPE_IPV6 => self.plain_ipv6(data, ethernet.payload_offset()),
            _ => None,
        }
    }

    #[inline(always)]
    fn plain_ipv4(&mut self, data: &[u8], offset: usize) -> Option<(u16, Parts)> {
        let packet = ipv4::Packet::new_plain(data, offset)?;
        let (source, destination) = (packet.source(), packet.destination());
        if packet.protocol() != protocol::UDP
            || source.is_invalid_source()
            || self.v4.is_broadcast(source)
        {
            return None;
        }
        self.plain_udp::<Ipv4>(data, offset, (source, destination), packet.payload())
    }

    #[inline(always)]
    fn plain_ipv6(&mut self, data: &[u8], offset: usize) -> Option<(u16, Parts)> {
        let packet = ipv6::Packet::new_plain(data, offset)?;
        let (source, destination) = (packet.source(), packet.destination());
        if packet.protocol() != protocol::UDP || source.is_invalid_source() {
            return None;
        }
        self.plain_udp::<Ipv6>(data, offset, (source, destination), packet.payload())
    }

    #[inline(always)]
    fn plain_udp<I: IpStack>(
        &mut self,
        data: &[u8],
        offset: usize,
        (source, destination): (I::Addr, I::Addr),
        payload: Range<usize>,
    ) -> Option<(u16, Parts)> {
        let packet = udp::Packet::new_checked(data, payload).ok()?;
        let port = packet.destination_port();
        let socket = I::state(self).demux.lookup_socket(destination, port)?;
        let pseudo = |len| I::pseudo(source, destination, protocol::UDP, len);
        if packet.verify(pseudo) != Ok(Verified::Right) || packet.source_port() == 0 {
            return None;
        }
        Some((socket, Parts::new(I::RUNTIME, offset, &packet, true)))
    }

    /// Makes a datagram in an untagged frame its own reply, if its next hop is known and nothing else
    /// stands in the way; says whether it did.
    #[inline]
    pub(super) fn turn_plain_round(&mut self, frame: &mut P::Frame, parts: &Parts) -> bool {
        let turned = if parts.headers == Headers::PlainV4 {
            self.turn_round_to_known_hop::<Ipv4>(frame, parts)
        } else if parts.headers == Headers::PlainV6 {
            self.turn_round_to_known_hop::<Ipv6>(frame, parts)
        } else {
            None
        };
        if turned.is_some() {
            self.count_sent(parts);
        }
        turned.is_some()
    }

    #[inline]
    fn turn_round_to_known_hop<I: IpStack>(
        &self,
        frame: &mut P::Frame,
        parts: &Parts,
    ) -> Option<()> {
        const IP: usize = ethernet::HEADER_LEN;
        let headers = frame.data().get(..IP + I::HEADER_BYTES + udp::HEADER_LEN)?;
        let (remote, _) = I::addresses(headers, IP)?;
        let hop = self.known_hop::<I>(remote)?;
        self.write_reply::<I>(frame, IP, parts, hop)
    }

    /// Writes the reply's headers over the request's. `None`, and nothing written, if that cannot
    /// be: the request had options or extension headers, or the path does not carry the reply whole.
    #[cold]
    pub(super) fn turn_round<I: IpStack>(
        &mut self,
        frame: &mut P::Frame,
        parts: &Parts,
        hop: &Hop,
    ) -> Option<()> {
        if !parts.has_plain_ip(I::HEADER_BYTES) {
            return None;
        }
        self.write_reply::<I>(frame, usize::from(parts.ip_offset), parts, hop)?;
        self.count_sent(parts);
        Some(())
    }

    #[inline]
    fn count_sent(&mut self, parts: &Parts) {
        self.events.count(Event::UdpTx);
        self.events
            .add(Event::UdpTxBytes, u64::from(parts.payload_len));
    }

    /// The same for headers without options or extensions that start at `ip_offset`.
    #[inline(always)]
    fn write_reply<I: IpStack>(
        &self,
        frame: &mut P::Frame,
        ip_offset: usize,
        parts: &Parts,
        hop: &Hop,
    ) -> Option<()> {
        let udp_offset = ip_offset + I::HEADER_BYTES;
        let len = I::HEADER_BYTES + udp::HEADER_LEN + usize::from(parts.payload_len);
        if !hop.carries(len) {
            return None;
        }
        // Ethernet padding is not sent back.
        if frame.data().len() != ip_offset + len {
            frame.set_len(ip_offset + len);
        }
        let data = frame.data_mut();
        let headers = data.get_mut(..udp_offset + udp::HEADER_LEN)?;
        let (remote, local) = I::addresses(headers, ip_offset)?;
        let header = Header::<I> {
            source: local,
            destination: remote,
            protocol: protocol::UDP,
            tos: 0,
            ttl: self.config.ttl,
            fragmentable: None,
            payload_len: parts.udp_len(),
        };
        *headers.first_chunk_mut()? = hop.ethernet;
        I::emit(headers, ip_offset, header)?;
        if parts.checksum_stands {
            return udp::turn_round(headers, udp_offset);
        }
        let pseudo = I::pseudo(local, remote, protocol::UDP, parts.udp_len());
        udp::turn_round_rewritten(data, udp_offset, parts.udp_len(), pseudo)
    }
}
