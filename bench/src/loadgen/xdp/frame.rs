//! Requests as frames, and what a received frame is.
//!
//! ```text
//!   ├─ Ethernet ─┼─ IPv4 or IPv6 ─┼─ UDP ─┼─ request of `probe` ─┤
//!   └ the same in every frame ────┘└ made for each ──────────────┘
//! ```

use std::net::{IpAddr, SocketAddr};

use stack::link::MacAddr;
use stack::wire::checksum::Sum;
use stack::wire::{ethernet, icmpv4, icmpv6, ipv4, ipv6, protocol, udp};

use crate::loadgen::probe::Prober;

/// Hops a request may take: the Internet's usual number (RFC 1700, "IP time to live").
const HOP_LIMIT: u8 = 64;

/// A port no flow has.
const NO_FLOW: u32 = u32::MAX;

/// Between whom the frames of a run go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Our Ethernet address.
    pub mac: MacAddr,
    /// The next hop's.
    pub next_hop_mac: MacAddr,
    /// Our IP address.
    pub source: IpAddr,
    /// Where requests go, and replies must come from.
    pub target: SocketAddr,
}

/// Writes the requests of all flows, and tells what received frames are.
#[derive(Clone, Debug)]
pub struct Frames {
    ends: Ends,
    /// Ethernet and IP header of every request.
    headers: Vec<u8>,
    /// Pseudo-header of every request, and of every reply of the same length: the sum does not
    /// depend on the order of the addresses (RFC 1071 §2 (A)).
    pseudo: Sum,
    /// UDP payload of a request, in bytes.
    size: usize,
    /// Source port of each flow.
    ports: Vec<u16>,
    /// And back: the flow of each port.
    flows: Vec<u32>,
}

/// What a received frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival<'a> {
    /// A datagram from the target to one of our flows, every header and checksum in order.
    Datagram {
        /// The flow its destination port belongs to.
        flow: usize,
        /// Its UDP payload.
        payload: &'a [u8],
        /// Whether its UDP checksum was never computed: its sender left that to a NIC, and there
        /// was none on the way (`CHECKSUM_PARTIAL` over veth).
        incomplete: bool,
    },
    /// An ICMP port unreachable about a request of ours.
    Refused {
        /// The flow that sent the request.
        flow: usize,
    },
    /// Another ICMP error about a request of ours, as the errno the kernel has for it.
    Unreachable {
        /// Such as `EHOSTUNREACH`.
        errno: i32,
    },
    /// Between our ends, but with a wrong length or checksum.
    Corrupted,
    /// Anything else.
    Foreign,
}

/// Length of the headers in front of a request's payload, in bytes.
#[must_use]
pub const fn headers_len(ipv6: bool) -> usize {
    let ip = if ipv6 {
        ipv6::HEADER_LEN
    } else {
        ipv4::HEADER_LEN
    };
    ethernet::HEADER_LEN + ip + udp::HEADER_LEN
}

impl Frames {
    /// Frames of requests with `size` bytes of payload, from one of `ports` for each flow.
    ///
    /// # Errors
    /// A sentence, when the ends are of different IP versions, or `size` fits no datagram.
    pub fn new(ends: Ends, ports: Vec<u16>, size: usize) -> Result<Self, String> {
        let too_long = || format!("{size} bytes fit no datagram");
        let udp_len = u16::try_from(size + udp::HEADER_LEN).map_err(|_| too_long())?;
        let mut headers = vec![0; headers_len(ends.source.is_ipv6()) - udp::HEADER_LEN];
        let ether_type = match ends.source {
            IpAddr::V4(_) => ethernet::TYPE_IPV4,
            IpAddr::V6(_) => ethernet::TYPE_IPV6,
        };
        let link = ethernet::Repr {
            destination: ends.next_hop_mac,
            source: ends.mac,
            vlans: ethernet::VlanIds::NONE,
            ether_type,
        };
        let room = "invariant: the headers have room";
        let at = link.emit(&mut headers).expect(room);
        let pseudo = match (ends.source, ends.target.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                if usize::from(udp_len) + ipv4::HEADER_LEN > usize::from(u16::MAX) {
                    return Err(too_long());
                }
                let repr = ipv4::Repr {
                    source,
                    destination,
                    protocol: protocol::UDP,
                    tos: 0,
                    ttl: HOP_LIMIT,
                    payload_len: udp_len,
                    fragment: None,
                };
                repr.emit(&mut headers, at).expect(room);
                Sum::pseudo_v4(source, destination, protocol::UDP, udp_len)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let repr = ipv6::Repr {
                    source,
                    destination,
                    next_header: protocol::UDP,
                    traffic_class: 0,
                    flow_label: 0,
                    hop_limit: HOP_LIMIT,
                    payload_len: udp_len,
                };
                repr.emit(&mut headers, at).expect(room);
                Sum::pseudo_v6(source, destination, protocol::UDP, udp_len)
            }
            (source, target) => {
                return Err(format!(
                    "source {source} and target {target} are of different IP versions"
                ));
            }
        };
        let mut flows = vec![NO_FLOW; usize::from(u16::MAX) + 1];
        for (flow, &port) in ports.iter().enumerate() {
            // Ports are distinct, so flows are at most 65,536.
            flows[usize::from(port)] = u32::try_from(flow).unwrap_or(NO_FLOW);
        }
        Ok(Self {
            ends,
            headers,
            pseudo,
            size,
            ports,
            flows,
        })
    }

    /// Length of every request's frame, in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.headers.len() + udp::HEADER_LEN + self.size
    }

    /// Whether frames are empty: never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Writes request `sequence` of `flow` into `frame`, which is [`len`](Self::len) bytes long.
    ///
    /// # Panics
    /// When it is not, when there is no such flow, or when the prober's requests have another size.
    #[inline]
    pub fn write(
        &self,
        prober: &Prober,
        flow: usize,
        number: u32,
        sequence: u64,
        frame: &mut [u8],
    ) {
        let (headers, datagram) = frame.split_at_mut(self.headers.len());
        headers.copy_from_slice(&self.headers);
        let (header, payload) = datagram.split_at_mut(udp::HEADER_LEN);
        prober.write(number, sequence, payload);
        // At most 65,535, as checked in `new`.
        #[allow(clippy::cast_possible_truncation)]
        let udp_len = (udp::HEADER_LEN + self.size) as u16;
        header.copy_from_slice(&udp::header(
            self.ports[flow],
            self.ends.target.port(),
            udp_len,
            self.pseudo,
            payload,
        ));
    }

    /// Says what the received `frame` is.
    #[inline]
    #[must_use]
    pub fn read<'a>(&self, frame: &'a [u8]) -> Arrival<'a> {
        let Ok(link) = ethernet::Packet::new_untagged(frame) else {
            return Arrival::Foreign;
        };
        if link.destination() != self.ends.mac {
            return Arrival::Foreign;
        }
        let at = link.payload_offset();
        match (self.ends.source, self.ends.target.ip()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) if link.has_type(ethernet::TYPE_IPV4) => {
                let Ok(ip) = ipv4::Packet::new_checked(frame, at) else {
                    return Arrival::Corrupted;
                };
                if ip.destination() != ours || ip.is_fragment() {
                    return Arrival::Foreign;
                }
                match ip.protocol() {
                    protocol::UDP if ip.source() == theirs => self.datagram(
                        frame,
                        ip.payload(),
                        |len| Sum::pseudo_v4(theirs, ours, protocol::UDP, len),
                        true,
                    ),
                    protocol::ICMPV4 => self.icmpv4(frame, &ip),
                    _ => Arrival::Foreign,
                }
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) if link.has_type(ethernet::TYPE_IPV6) => {
                let Ok(ip) = ipv6::Packet::new_checked(frame, at) else {
                    return Arrival::Corrupted;
                };
                if ip.destination() != ours || ip.fragment().is_some() {
                    return Arrival::Foreign;
                }
                match ip.protocol() {
                    protocol::UDP if ip.source() == theirs => self.datagram(
                        frame,
                        ip.payload(),
                        |len| Sum::pseudo_v6(theirs, ours, protocol::UDP, len),
                        // RFC 8200 §8.1: over IPv6 a UDP checksum is not optional.
                        false,
                    ),
                    protocol::ICMPV6 => self.icmpv6(frame, &ip),
                    _ => Arrival::Foreign,
                }
            }
            _ => Arrival::Foreign,
        }
    }

    #[inline]
    fn datagram<'a>(
        &self,
        frame: &'a [u8],
        range: std::ops::Range<usize>,
        pseudo: impl FnOnce(u16) -> Sum,
        may_lack_checksum: bool,
    ) -> Arrival<'a> {
        let Ok(packet) = udp::Packet::new_checked(frame, range) else {
            return Arrival::Corrupted;
        };
        let incomplete = match packet.verify(pseudo) {
            Ok(udp::Verified::Right) => false,
            Ok(udp::Verified::Absent) if may_lack_checksum => false,
            Ok(udp::Verified::Incomplete) => true,
            Ok(udp::Verified::Absent) | Err(_) => return Arrival::Corrupted,
        };
        match self.flow_of(packet.destination_port()) {
            Some(flow) if packet.source_port() == self.ends.target.port() => Arrival::Datagram {
                flow,
                payload: &frame[packet.payload()],
                incomplete,
            },
            _ => Arrival::Foreign,
        }
    }

    fn flow_of(&self, port: u16) -> Option<usize> {
        match self.flows[usize::from(port)] {
            NO_FLOW => None,
            flow => Some(flow as usize),
        }
    }

    /// Errors come from the target or any router on the way; what they quote says whom they concern.
    #[cold]
    fn icmpv4(&self, frame: &[u8], ip: &ipv4::Packet<'_>) -> Arrival<'static> {
        let Ok(icmp) = icmpv4::Packet::new_checked(frame, ip.payload()) else {
            return Arrival::Corrupted;
        };
        let Ok(quoted) = ipv4::Packet::new_embedded(frame, icmp.body().start) else {
            return Arrival::Foreign;
        };
        let ends = (quoted.source().into(), quoted.destination().into());
        let Some(flow) = self.quoted(frame, ends, quoted.protocol(), quoted.payload().start) else {
            return Arrival::Foreign;
        };
        use icmpv4::{kind, unreachable};
        // The errnos of `icmp_err_convert` (net/ipv4/icmp.c), which a kernel socket would return.
        let errno = match (icmp.kind(), icmp.code()) {
            (kind::UNREACHABLE, unreachable::PORT) => return Arrival::Refused { flow },
            (kind::UNREACHABLE, unreachable::NET) => libc::ENETUNREACH,
            (kind::UNREACHABLE, unreachable::PROTOCOL) => libc::ENOPROTOOPT,
            (kind::UNREACHABLE, unreachable::FRAGMENTATION_NEEDED) => libc::EMSGSIZE,
            (kind::UNREACHABLE | kind::TIME_EXCEEDED, _) => libc::EHOSTUNREACH,
            (kind::PARAMETER_PROBLEM, _) => libc::EPROTO,
            _ => return Arrival::Foreign,
        };
        Arrival::Unreachable { errno }
    }

    #[cold]
    fn icmpv6(&self, frame: &[u8], ip: &ipv6::Packet<'_>) -> Arrival<'static> {
        let ends = (ip.source(), ip.destination());
        let Ok(icmp) = icmpv6::Packet::new_checked(frame, ip.payload(), ends.0, ends.1) else {
            return Arrival::Corrupted;
        };
        let Ok(quoted) = ipv6::Packet::new_embedded(frame, icmp.body().start) else {
            return Arrival::Foreign;
        };
        let ends = (quoted.source().into(), quoted.destination().into());
        let Some(flow) = self.quoted(frame, ends, quoted.protocol(), quoted.payload().start) else {
            return Arrival::Foreign;
        };
        use icmpv6::{PORT_UNREACHABLE, kind};
        // The errnos of `icmpv6_err_convert` (net/ipv6/icmp.c). RFC 4443 §3.1: code 0 is "no route",
        // 1 "prohibited".
        let errno = match (icmp.kind(), icmp.code()) {
            (kind::UNREACHABLE, PORT_UNREACHABLE) => return Arrival::Refused { flow },
            (kind::UNREACHABLE, 0) => libc::ENETUNREACH,
            (kind::UNREACHABLE, 1) => libc::EACCES,
            (kind::PACKET_TOO_BIG, _) => libc::EMSGSIZE,
            (kind::UNREACHABLE | kind::TIME_EXCEEDED, _) => libc::EHOSTUNREACH,
            (kind::PARAMETER_PROBLEM, _) => libc::EPROTO,
            _ => return Arrival::Foreign,
        };
        Arrival::Unreachable { errno }
    }

    /// The flow whose request an ICMP error quotes.
    fn quoted(
        &self,
        frame: &[u8],
        ends: (IpAddr, IpAddr),
        protocol: u8,
        offset: usize,
    ) -> Option<usize> {
        if protocol != protocol::UDP || ends != (self.ends.source, self.ends.target.ip()) {
            return None;
        }
        let (source, destination) = udp::embedded_ports(frame, offset)?;
        (destination == self.ends.target.port())
            .then(|| self.flow_of(source))
            .flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loadgen::probe::{HEADER_LEN, Verdict};
    use proptest::prelude::*;

    const OURS: MacAddr = [2, 0, 0, 0, 0, 1];
    const THEIRS: MacAddr = [2, 0, 0, 0, 0, 2];

    fn ends(ipv6: bool) -> Ends {
        let (source, target) = if ipv6 {
            ("fd00::1", "[fd00::2]:7")
        } else {
            ("192.0.2.1", "192.0.2.2:7")
        };
        Ends {
            mac: OURS,
            next_hop_mac: THEIRS,
            source: source.parse().unwrap(),
            target: target.parse().unwrap(),
        }
    }

    fn frames(ipv6: bool, size: usize) -> Frames {
        Frames::new(ends(ipv6), vec![40_000, 65_535, 1024], size).unwrap()
    }

    fn request(frames: &Frames, prober: &Prober, flow: usize, sequence: u64) -> Vec<u8> {
        let mut frame = vec![0xAA; frames.len()];
        frames.write(
            prober,
            flow,
            u32::try_from(flow).unwrap() + 10,
            sequence,
            &mut frame,
        );
        frame
    }

    /// What a perfect echo makes of a request: everything turned round, all sums unchanged.
    fn echo(request: &[u8], ipv6: bool) -> Vec<u8> {
        let mut reply = request.to_vec();
        let mut swap = |at: usize, width: usize| {
            let (first, second) = reply[at..at + 2 * width].split_at_mut(width);
            first.swap_with_slice(second);
        };
        swap(0, 6);
        let (addresses, width) = if ipv6 { (22, 16) } else { (26, 4) };
        swap(addresses, width);
        swap(headers_len(ipv6) - 8, 2);
        reply
    }

    proptest! {
        /// The stack's own parsers are the oracle of what is written.
        #[test]
        fn requests_are_what_the_stack_reads(
            ipv6: bool, flow in 0..3_usize, sequence: u64, size in HEADER_LEN..1400_usize,
        ) {
            let frames = frames(ipv6, size);
            let prober = Prober::new(1, size, 1);
            let frame = request(&frames, &prober, flow, sequence);
            let link = ethernet::Packet::new_checked(&frame).unwrap();
            prop_assert_eq!((link.destination(), link.source()), (THEIRS, OURS));
            let at = link.payload_offset();
            let (range, sum) = if ipv6 {
                prop_assert!(link.has_type(ethernet::TYPE_IPV6));
                let ip = ipv6::Packet::new_checked(&frame, at).unwrap();
                let len = u16::try_from(ip.payload().len()).unwrap();
                (ip.payload(), Sum::pseudo_v6(ip.source(), ip.destination(), ip.protocol(), len))
            } else {
                prop_assert!(link.has_type(ethernet::TYPE_IPV4));
                let ip = ipv4::Packet::new_checked(&frame, at).unwrap();
                let len = u16::try_from(ip.payload().len()).unwrap();
                (ip.payload(), Sum::pseudo_v4(ip.source(), ip.destination(), ip.protocol(), len))
            };
            prop_assert_eq!(range.end, frame.len());
            let udp = udp::Packet::new_checked(&frame, range).unwrap();
            prop_assert_eq!(udp.verify(|_| sum), Ok(udp::Verified::Right));
            prop_assert_eq!(udp.source_port(), [40_000, 65_535, 1024][flow]);
            prop_assert_eq!(udp.destination_port(), 7);
            let number = u32::try_from(flow).unwrap() + 10;
            let verdict = prober.read(&frame[udp.payload()]);
            prop_assert_eq!(verdict, Verdict::Intact { flow: number, sequence });
        }

        #[test]
        fn echoes_are_read_and_no_changed_bit_passes(
            ipv6: bool, sequence: u64, size in HEADER_LEN..200_usize, at: prop::sample::Index,
        ) {
            let frames = frames(ipv6, size);
            let prober = Prober::new(1, size, 1);
            let mut reply = echo(&request(&frames, &prober, 1, sequence), ipv6);
            let Arrival::Datagram { flow, payload, incomplete } = frames.read(&reply) else {
                return Err(TestCaseError::fail("not a datagram"));
            };
            let intact = Verdict::Intact { flow: 11, sequence };
            prop_assert_eq!((flow, incomplete, prober.read(payload)), (1, false, intact));

            let bit = at.index(reply.len() * 8);
            reply[bit / 8] ^= 1 << (bit % 8);
            let read = frames.read(&reply);
            // Who sent the frame on the link is not covered, nor what IPv6 lets a router change: traffic
            // class (behind the four bits of the version), flow label, hop limit.
            let uncovered = match bit / 8 {
                6..12 => true,
                14 => ipv6 && bit % 8 < 4,
                15..18 | 21 => ipv6,
                _ => false,
            };
            // A bit may turn the checksum into none, or one that was never finished.
            let at = headers_len(ipv6) - 2;
            let checksum = [reply[at], reply[at + 1]];
            prop_assume!(checksum != [0; 2] && checksum != frames.pseudo.incomplete());
            prop_assert_eq!(matches!(read, Arrival::Datagram { .. }), uncovered, "{:?}", read);
        }

        #[test]
        fn no_frame_panics(ipv6: bool, mut bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let frames = frames(ipv6, 64);
            let _ = frames.read(&bytes);
            // As far as the IP header.
            let good = echo(&request(&frames, &Prober::new(1, 64, 1), 0, 0), ipv6);
            for len in [14, headers_len(ipv6) - 8] {
                let len = len.min(bytes.len());
                bytes[..len].copy_from_slice(&good[..len]);
                let _ = frames.read(&bytes);
            }
        }
    }

    #[test]
    fn checksums_that_were_left_to_a_nic() {
        for ipv6 in [false, true] {
            let frames = frames(ipv6, 64);
            let mut reply = echo(&request(&frames, &Prober::new(1, 64, 1), 0, 0), ipv6);
            let at = headers_len(ipv6) - 2;
            reply[at..at + 2].copy_from_slice(&frames.pseudo.incomplete());
            assert!(
                matches!(
                    frames.read(&reply),
                    Arrival::Datagram {
                        incomplete: true,
                        ..
                    }
                ),
                "{ipv6}"
            );
            reply[at..at + 2].fill(0);
            let absent = matches!(
                frames.read(&reply),
                Arrival::Datagram {
                    incomplete: false,
                    ..
                }
            );
            assert_eq!(absent, !ipv6, "RFC 8200 §8.1");
        }
    }

    #[test]
    fn foreign_frames() {
        let frames = frames(false, 64);
        let good = echo(&request(&frames, &Prober::new(1, 64, 1), 0, 0), false);
        let edited = |at: usize, bytes: &[u8]| {
            let mut frame = good.clone();
            frame[at..at + bytes.len()].copy_from_slice(bytes);
            // Checksums made right again, so that only the content is what is wrong.
            frame[24..26].fill(0);
            let sum = Sum::ZERO.add_bytes(&frame[14..34]).checksum();
            frame[24..26].copy_from_slice(&sum);
            frame[40..42].fill(0);
            frame
        };
        assert!(matches!(
            frames.read(&edited(0, &[])),
            Arrival::Datagram { .. }
        ));
        for (what, frame) in [
            ("another station", edited(0, &THEIRS)),
            ("another sender", edited(26, &[192, 0, 2, 9])),
            ("another receiver", edited(30, &[192, 0, 2, 9])),
            ("another service", edited(34, &[0, 8])),
            ("no port of ours", edited(36, &[0x9C, 0x41])),
            ("TCP", edited(23, &[6])),
            ("a fragment", edited(20, &[0x20, 0])),
            ("ARP", edited(12, &[8, 6])),
            ("nothing", Vec::new()),
        ] {
            assert_eq!(frames.read(&frame), Arrival::Foreign, "{what}");
        }
    }

    #[test]
    fn icmp_errors_find_their_flow() {
        use icmpv4::{kind, unreachable};
        let frames = frames(false, 64);
        let sent = request(&frames, &Prober::new(1, 64, 1), 2, 5);
        // A router quotes the IP header and eight bytes (RFC 792).
        let quote = &sent[14..42];
        let error = |kind, code, quote: &[u8]| {
            let mut frame = vec![0; 14 + 20 + 8 + quote.len()];
            frame[42..].copy_from_slice(quote);
            let len = icmpv4::emit(&mut frame, 34, kind, code, [0; 4], quote.len()).unwrap();
            let ip = ipv4::Repr {
                source: "198.51.100.1".parse().unwrap(),
                destination: "192.0.2.1".parse().unwrap(),
                protocol: protocol::ICMPV4,
                tos: 0,
                ttl: 64,
                payload_len: u16::try_from(len).unwrap(),
                fragment: None,
            };
            ip.emit(&mut frame, 14).unwrap();
            let link = ethernet::Repr {
                destination: OURS,
                source: THEIRS,
                vlans: ethernet::VlanIds::NONE,
                ether_type: ethernet::TYPE_IPV4,
            };
            link.emit(&mut frame).unwrap();
            frame
        };
        let read = |kind, code, quote: &[u8]| {
            let frame = error(kind, code, quote);
            match frames.read(&frame) {
                Arrival::Refused { flow } => Ok(flow),
                Arrival::Unreachable { errno } => Err(Some(errno)),
                _ => Err(None),
            }
        };
        assert_eq!(read(kind::UNREACHABLE, unreachable::PORT, quote), Ok(2));
        let host = read(kind::UNREACHABLE, unreachable::HOST, quote);
        assert_eq!(host, Err(Some(libc::EHOSTUNREACH)));
        // Somebody else's request, half a quote, no error at all.
        let mut other = quote.to_vec();
        other[22..24].copy_from_slice(&[0, 9]);
        assert_eq!(
            read(kind::UNREACHABLE, unreachable::PORT, &other),
            Err(None)
        );
        let half = &quote[..22];
        assert_eq!(read(kind::UNREACHABLE, unreachable::PORT, half), Err(None));
        assert_eq!(read(kind::ECHO_REPLY, 0, quote), Err(None));
        let mut changed = error(kind::UNREACHABLE, unreachable::PORT, quote);
        changed[40] ^= 1;
        assert_eq!(frames.read(&changed), Arrival::Corrupted);
    }

    #[test]
    fn what_cannot_be_framed() {
        let mixed = Ends {
            source: "fd00::1".parse().unwrap(),
            ..ends(false)
        };
        assert!(
            Frames::new(mixed, vec![1], 64)
                .unwrap_err()
                .contains("IP versions")
        );
        for (ipv6, size) in [(false, 65_508), (true, 65_528)] {
            assert!(Frames::new(ends(ipv6), vec![1], size).is_err());
            assert!(Frames::new(ends(ipv6), vec![1], size - 1).is_ok());
        }
    }
}
