//! The short way of the packets that come by the million: a whole UDP datagram without IP options or
//! extension headers, for a socket of ours, its checksum right; and its reply, in the same frame, to
//! a next hop that is known.
//!
//! Whatever is not exactly that takes the long way, through `input` and `datagram`, from its first
//! byte on. Until it is sure, the short way changes, counts and drops nothing, and it need not tell
//! reasons apart: that is why it is short. A test below holds it against the long way.
//!
//! All of it, and what leads to it, is compiled into the loops of its callers: left to judge by
//! itself, the compiler makes calls of it as soon as there are two callers, and passing a frame in
//! memory costs more than many a step on the way. The long way is never compiled in.

use super::Stack;
use super::output::Hop;
use super::version::{Header, IpStack};
use crate::counters::Event;
use crate::frame::{Frame, FramePool};
use crate::ip::address::{IpAddress, Ipv4, Ipv6};
use crate::time::Instant;
use crate::udp::{Headers, Parts};
use crate::wire::udp::Verified;
use crate::wire::{ethernet, ipv4, ipv6, protocol, udp};
use core::ops::Range;

impl<P: FramePool> Stack<P> {
    /// The socket that a plain datagram in an untagged frame is for.
    #[inline(always)]
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

    /// Takes a plain segment in an untagged frame; says whether it did. Apart from
    /// [`plain_datagram`](Self::plain_datagram), although the headers are looked at once more: a call in
    /// there would cost every datagram some registers.
    #[inline(always)]
    pub(super) fn takes_plain_segment(&mut self, data: &[u8], now: Instant) -> bool {
        let Ok(ethernet) = ethernet::Packet::new_untagged(data) else {
            return false;
        };
        if ethernet.destination_word() != self.plain_destination {
            return false;
        }
        if ethernet.has_type(ethernet::TYPE_IPV4) {
            self.plain_ipv4_packet(data, ethernet::HEADER_LEN)
                .filter(|packet| packet.protocol() == protocol::TCP)
                .is_some_and(|packet| {
                    let ends = (packet.source(), packet.destination());
                    self.plain_segment::<Ipv4>(data, ends, packet.payload(), now)
                })
        } else if ethernet.has_type(ethernet::TYPE_IPV6) {
            self.plain_ipv6_packet(data, ethernet::HEADER_LEN)
                .filter(|packet| packet.protocol() == protocol::TCP)
                .is_some_and(|packet| {
                    let ends = (packet.source(), packet.destination());
                    self.plain_segment::<Ipv6>(data, ends, packet.payload(), now)
                })
        } else {
            false
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
        let packet = self.plain_ipv4_packet(data, offset)?;
        if packet.protocol() != protocol::UDP {
            return None;
        }
        let ends = (packet.source(), packet.destination());
        self.plain_udp::<Ipv4>(data, offset, ends, packet.payload())
    }

    #[inline(always)]
    fn plain_ipv6(&mut self, data: &[u8], offset: usize) -> Option<(u16, Parts)> {
        let packet = self.plain_ipv6_packet(data, offset)?;
        if packet.protocol() != protocol::UDP {
            return None;
        }
        let ends = (packet.source(), packet.destination());
        self.plain_udp::<Ipv6>(data, offset, ends, packet.payload())
    }

    #[inline(always)]
    fn plain_ipv4_packet<'a>(&self, data: &'a [u8], offset: usize) -> Option<ipv4::Packet<'a>> {
        let packet = ipv4::Packet::new_plain(data, offset)?;
        let source = packet.source();
        let valid = !source.is_invalid_source() && !self.v4.is_broadcast(source);
        valid.then_some(packet)
    }

    #[inline(always)]
    fn plain_ipv6_packet<'a>(&self, data: &'a [u8], offset: usize) -> Option<ipv6::Packet<'a>> {
        let packet = ipv6::Packet::new_plain(data, offset)?;
        (!packet.source().is_invalid_source()).then_some(packet)
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
    #[inline(always)]
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

    #[inline(always)]
    pub(super) fn count_sent(&mut self, parts: &Parts) {
        self.events.count(Event::UdpTx);
        self.events
            .add(Event::UdpTxBytes, u64::from(parts.payload_len));
    }

    #[inline(always)]
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
        self.write_reply::<I>(frame, usize::from(parts.ip_offset), parts, hop)
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
        udp::turn_round_rewritten(data, udp_offset, parts.payload_len, pseudo)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap::HeapPool;
    use crate::link::{AddressOwner, LinkState, LocalAddress, MacAddr};
    use crate::socket::bind::Bind;
    use crate::stack::{Config, Disposition, Origin};
    use crate::tcp::config::TcpConfig;
    use crate::wire::checksum::Sum;
    use alloc::boxed::Box;
    use alloc::vec;
    use alloc::vec::Vec;
    use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use proptest::prelude::*;
    use proptest::sample::select;

    const OUR_MAC: MacAddr = [2, 0, 0, 0, 0, 1];
    const OURS: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 9)];
    const OURS_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

    /// Two addresses of IPv4 and one of IPv6, and sockets on ports 7 and 9 of all of them.
    fn stack(vlans: ethernet::VlanIds) -> Stack<HeapPool> {
        let mut stack = Stack::new(Config {
            vlans,
            neighbors: 1,
            egress_queue: 1,
            reassembly_bytes: 0,
            tcp: TcpConfig::none(),
            ..Config::default()
        });
        let local = |address: IpAddr| LocalAddress {
            address,
            prefix_len: 24,
            broadcast: address.is_ipv4().then_some(Ipv4Addr::new(192, 0, 2, 255)),
            owner: AddressOwner::Stack,
        };
        let link = LinkState {
            mac: OUR_MAC,
            mtu: 1500,
            up: true,
            addresses: vec![
                local(OURS[0].into()),
                local(OURS_V6.into()),
                local(OURS[1].into()),
            ],
            ..LinkState::default()
        };
        stack.set_link(Box::new(link), Instant::ZERO);
        for port in [7, 9] {
            let local = core::net::SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
            let bind = Bind {
                local,
                v6only: false,
            };
            stack.udp_bind(bind, 4).unwrap();
        }
        stack
    }

    /// What a packet says.
    #[derive(Clone, Debug)]
    struct Said {
        mac: MacAddr,
        vlans: ethernet::VlanIds,
        v6: bool,
        source: u128,
        destination: u8,
        ports: (u16, u16),
        payload_len: usize,
        /// How much longer than it is the UDP header says that the datagram is.
        udp_len_off: i16,
        ip_len_off: i16,
        /// Identification, flags and fragment offset.
        fragment: [u8; 4],
        protocol: u8,
        options: usize,
        padding: usize,
        /// No checksum, the pseudo-header's alone, or the right one.
        checksum: u8,
        /// A byte to change, once all is said.
        damage: Option<(u16, u8)>,
    }

    /// A plain datagram with at most three peculiarities.
    fn said() -> impl Strategy<Value = Said> {
        let usual = (
            any::<bool>(),
            0u8..2,
            select(vec![0usize, 1, 8, 64, 65, 1400]),
        );
        let peculiar = proptest::collection::vec((0u8..14, any::<u16>(), 1u8..), 0..4);
        (usual, peculiar).prop_map(|((v6, destination, payload_len), peculiar)| {
            let mut said = Said {
                mac: OUR_MAC,
                vlans: ethernet::VlanIds::NONE,
                v6,
                source: 0x2001_0db8_0000_0000_0000_0000_c000_0202,
                destination,
                ports: (4000, 7),
                payload_len,
                udp_len_off: 0,
                ip_len_off: 0,
                fragment: [0, 0, 0x40, 0],
                protocol: protocol::UDP,
                options: 0,
                padding: 0,
                checksum: 2,
                damage: None,
            };
            for (which, value, small) in peculiar {
                let of = |choices: &[u128]| choices[usize::from(value) % choices.len()];
                let small_off = i16::from(small.cast_signed());
                match which {
                    0 => said.mac = [2, 0, 0, 0, 0, small],
                    1 => said.mac = [0xff; 6],
                    2 => {
                        said.vlans = ethernet::VlanIds::new(
                            &[[5, 6], [5, 7]][usize::from(value % 2)][..usize::from(small % 3)],
                        )
                        .unwrap()
                    }
                    3 => {
                        said.source = of(&[
                            0,
                            1,
                            0x7f00_0001,
                            0xe000_0001,
                            0xc000_02ff,
                            0xffff << 32,
                            u128::MAX,
                        ])
                    }
                    4 => said.destination = 3,
                    5 => said.ports.0 = if small % 2 == 0 { 0 } else { value },
                    6 => said.ports.1 = u16::from(small % 11),
                    7 => said.udp_len_off = small_off,
                    8 => said.ip_len_off = small_off,
                    9 => {
                        said.fragment = [
                            small,
                            0,
                            [0x20, 0, 0x80, 0x40][usize::from(value % 4)],
                            small % 2,
                        ]
                    }
                    10 => said.protocol = [1, 6, 44, 58, 60, small][usize::from(value % 6)],
                    11 => said.options = 4 * usize::from(small % 10),
                    12 => said.checksum = small % 3,
                    _ => said.damage = Some((value % 80, small)),
                }
                said.padding = usize::from(small % 4);
            }
            said
        })
    }

    /// Says it, with checksums that are right for what is said.
    fn packet(said: &Said) -> Vec<u8> {
        let mut bytes = vec![0; said.vlans.header_len()];
        let ether_type = if said.v6 {
            ethernet::TYPE_IPV6
        } else {
            ethernet::TYPE_IPV4
        };
        let header = ethernet::Repr {
            destination: said.mac,
            source: [2, 0, 0, 0, 0, 2],
            vlans: said.vlans,
            ether_type,
        };
        header.emit(&mut bytes).unwrap();
        let options = if said.v6 { 0 } else { said.options };
        let udp_len = udp::HEADER_LEN + said.payload_len;
        let off = |len: usize, off: i16| u16::try_from(len).unwrap().wrapping_add_signed(off);
        let mut ip = if said.v6 {
            let destination = OURS_V6.to_bits() + u128::from(said.destination == 3);
            let mut ip = vec![0x60, 0, 0, 0];
            ip.extend(off(udp_len, said.ip_len_off).to_be_bytes());
            ip.extend([said.protocol, 64]);
            ip.extend(said.source.to_be_bytes());
            ip.extend(destination.to_be_bytes());
            ip
        } else {
            let destination = OURS[usize::from(said.destination % 2)].octets();
            let destination = if said.destination == 3 {
                [192, 0, 2, 77]
            } else {
                destination
            };
            let mut ip = vec![0x45 + u8::try_from(options / 4).unwrap(), 0];
            ip.extend(off(20 + options + udp_len, said.ip_len_off).to_be_bytes());
            ip.extend(said.fragment);
            ip.extend([64, said.protocol, 0, 0]);
            ip.extend(&said.source.to_be_bytes()[12..]);
            ip.extend(destination);
            ip.extend(vec![1; options]);
            let sum = Sum::ZERO.add_bytes(&ip).checksum();
            ip[10..12].copy_from_slice(&sum);
            ip
        };
        let mut udp = Vec::new();
        udp.extend(said.ports.0.to_be_bytes());
        udp.extend(said.ports.1.to_be_bytes());
        udp.extend(off(udp_len, said.udp_len_off).to_be_bytes());
        udp.extend([0, 0]);
        udp.extend((0..said.payload_len).map(|n| u8::try_from(n % 251).unwrap()));
        let addresses = if said.v6 { &ip[8..40] } else { &ip[12..20] };
        let pseudo = Sum::ZERO
            .add_bytes(addresses)
            .add_be16(protocol::UDP.into())
            .add_be16(off(udp_len, said.udp_len_off));
        let covered = usize::from(off(udp_len, said.udp_len_off)).min(udp.len());
        let checksum = match said.checksum {
            0 => [0; 2],
            1 => pseudo.incomplete(),
            _ => pseudo.add_bytes(&udp[..covered]).checksum_udp(),
        };
        udp[6..8].copy_from_slice(&checksum);
        bytes.append(&mut ip);
        bytes.append(&mut udp);
        bytes.extend(vec![0xee; said.padding]);
        if let Some((at, change)) = said.damage
            && let Some(byte) = bytes.get_mut(usize::from(at))
        {
            *byte ^= change;
        }
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        /// What the short way takes, the long way takes for the same socket, and the short way takes
        /// all that is plain.
        #[test]
        fn both_ways_lead_to_the_same_place(said in said(), vlans in select(vec![&[][..], &[], &[5]])) {
            let bytes = packet(&said);
            let vlans = ethernet::VlanIds::new(vlans).unwrap();
            let [mut short, mut long] = [stack(vlans), stack(vlans)];
            let untouched = (short.drops().clone(), short.events().clone());
            // A second time, what was found last is known.
            for _ in 0..2 {
                let taken = short.plain_datagram(&bytes);
                let taken = taken.or_else(|| short.plain_tagged_datagram(&bytes));
                let mut pool = HeapPool::new(2, 2048);
                let mut frame = pool.receive(&bytes).unwrap();
                let result = long.receive(&mut pool, &mut frame, Origin::Ring, Instant::ZERO);
                match result {
                    Ok(Disposition::Deliver { socket, parts }) => {
                        let headers = if said.v6 { ipv6::HEADER_LEN } else { ipv4::HEADER_LEN };
                        let at = usize::from(parts.payload_offset) - udp::HEADER_LEN;
                        let from_nobody = udp::embedded_ports(&bytes, at).unwrap().0 == 0;
                        let plain = parts.checksum_stands && parts.has_plain_ip(headers) && !from_nobody;
                        prop_assert_eq!(taken, plain.then_some((socket, parts)));
                    }
                    _ => prop_assert_eq!(taken, None),
                }
            }
            prop_assert_eq!(untouched, (short.drops().clone(), short.events().clone()));
        }
    }

    #[test]
    fn the_packets_of_the_test_take_both_ways() {
        use proptest::strategy::ValueTree;
        use proptest::test_runner::TestRunner;
        let mut runner = TestRunner::deterministic();
        let vlans = ethernet::VlanIds::NONE;
        let taken = |said: Said| stack(vlans).plain_datagram(&packet(&said)).is_some();
        let taken = (0..500)
            .filter(|_| taken(said().new_tree(&mut runner).unwrap().current()))
            .count();
        assert!((25..475).contains(&taken), "{taken} of 500");
    }
}
