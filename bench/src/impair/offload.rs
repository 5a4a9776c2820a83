//! Frames as they are on a wire, from what a packet socket delivers.
//!
//! A kernel saves work that a NIC can do: it hands on TCP segments of up to 64 KiB that are to be cut
//! (GSO), checksums that are to be finished, and VLAN tags beside the frame. Between virtual
//! interfaces nobody does that work; so it is done here, before a frame is counted, dropped or
//! damaged. The socket says what is to be done by a header before the frame (PACKET_VNET_HDR,
//! packet(7); include/uapi/linux/virtio_net.h) and a control message (PACKET_AUXDATA).
//!
//! ```text
//!  struct virtio_net_hdr                     what it says
//!  0  u8  flags                              NEEDS_CSUM: finish the checksum
//!  1  u8  gso_type                           cut: TCPV4, TCPV6, UDP_L4; ECN beside them
//!  2  u16 hdr_len                            (a hint, not used)
//!  4  u16 gso_size                           payload bytes of each frame
//!  6  u16 csum_start                         where the transport header begins
//!  8  u16 csum_offset                        where in it the checksum is
//! ```

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use stack::wire::checksum::Sum;

/// Bytes of the header before a frame.
pub const HEADER_LEN: usize = 10;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
const FLAG_NEEDS_CSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_*`.
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
/// Set beside a type: the sender reduced its window (CWR), which only the first segment may say.
const GSO_ECN: u8 = 0x80;

const ETHERNET_LEN: usize = 14;
const IPV4_MIN_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const UDP_LEN: usize = 8;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
/// Where the checksum is in a header of UDP and of TCP.
const UDP_CHECKSUM_AT: usize = 6;
const TCP_CHECKSUM_AT: usize = 16;
/// Where TCP's flags are, and three of them.
const TCP_FLAGS_AT: usize = 13;
const TCP_FIN: u8 = 1;
const TCP_PSH: u8 = 8;
const TCP_CWR: u8 = 0x80;
/// Length of the two Ethernet addresses, after which a tag goes.
const TAG_AT: usize = 12;

/// The header before a frame: what is left to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    needs_checksum: bool,
    gso_type: u8,
    gso_size: usize,
    checksum_start: usize,
    checksum_offset: usize,
}

impl Offload {
    /// Reads the header. It is in the machine's byte order.
    #[must_use]
    pub fn parse(header: &[u8; HEADER_LEN]) -> Self {
        let u16_at = |at: usize| usize::from(u16::from_ne_bytes([header[at], header[at + 1]]));
        Self {
            needs_checksum: header[0] & FLAG_NEEDS_CSUM != 0,
            gso_type: header[1] & !GSO_ECN,
            gso_size: u16_at(4),
            checksum_start: u16_at(6),
            checksum_offset: u16_at(8),
        }
    }
}

/// A VLAN tag that the kernel took out of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// EtherType of the tag: 0x8100 or 0x88a8.
    pub protocol: u16,
    /// Priority, drop eligibility and VLAN identifier (IEEE 802.1Q §9.6).
    pub control: u16,
}

/// A frame that is not what its header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contradiction;

impl fmt::Display for Contradiction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the frame is not what its virtio_net_hdr says")
    }
}

/// Gives `emit` the frames that `frame` stands for, in order. `scratch` is memory to build them in.
///
/// # Errors
/// When the header contradicts the frame; then no frame was given.
pub fn on_the_wire(
    offload: &Offload,
    tag: Option<Tag>,
    frame: &mut [u8],
    scratch: &mut Vec<u8>,
    mut emit: impl FnMut(&[u8]),
) -> Result<(), Contradiction> {
    if frame.len() < ETHERNET_LEN {
        return Err(Contradiction);
    }
    if offload.gso_type != GSO_NONE {
        let split = Split::new(offload, frame).ok_or(Contradiction)?;
        for at in (0..split.payload_len()).step_by(offload.gso_size) {
            split.build(at, tag, scratch);
            emit(scratch);
        }
        return Ok(());
    }
    if offload.needs_checksum {
        finish_checksum(offload, frame).ok_or(Contradiction)?;
    }
    let Some(tag) = tag else {
        emit(frame);
        return Ok(());
    };
    scratch.clear();
    push_tagged(scratch, frame, Some(tag));
    emit(scratch);
    Ok(())
}

/// The checksum field holds the sum of the pseudo-header; the rest is to be added.
fn finish_checksum(offload: &Offload, frame: &mut [u8]) -> Option<()> {
    let summed = frame.get_mut(offload.checksum_start..)?;
    let sum = Sum::default().add_bytes(summed);
    let field = summed.get_mut(offload.checksum_offset..offload.checksum_offset + 2)?;
    // Which protocol it is does not matter here, but in UDP zero means that there is no checksum;
    // in others all ones are the same as zero (RFC 1624 §3).
    let finished = match offload.checksum_offset {
        UDP_CHECKSUM_AT => sum.checksum_udp(),
        _ => sum.checksum(),
    };
    field.copy_from_slice(&finished);
    Some(())
}

fn push_tagged(out: &mut Vec<u8>, frame: &[u8], tag: Option<Tag>) {
    let (addresses, rest) = frame.split_at(TAG_AT);
    out.extend_from_slice(addresses);
    if let Some(Tag { protocol, control }) = tag {
        out.extend_from_slice(&protocol.to_be_bytes());
        out.extend_from_slice(&control.to_be_bytes());
    }
    out.extend_from_slice(rest);
}

/// A large send, taken apart.
///
/// ```text
///   0          ip            transport      headers_len
///   ├ Ethernet ┼ IPv4 / IPv6 ┼ TCP / UDP ───┼ payload: gso_size, gso_size, …, rest
/// ```
struct Split<'a> {
    frame: &'a [u8],
    gso_size: usize,
    is_ipv4: bool,
    is_tcp: bool,
    ip: usize,
    transport: usize,
    headers_len: usize,
}

impl<'a> Split<'a> {
    fn new(offload: &Offload, frame: &'a [u8]) -> Option<Self> {
        let byte = |at: usize| frame.get(at).copied();
        let (mut ip, transport) = (ETHERNET_LEN, offload.checksum_start);
        // An inner VLAN tag is still in the frame.
        while matches!([byte(ip - 2)?, byte(ip - 1)?], [0x81, 0x00] | [0x88, 0xa8]) {
            ip += 4;
        }
        let is_ipv4 = match byte(ip)? >> 4 {
            4 => transport == ip + usize::from(byte(ip)? & 0x0f) * 4,
            6 => false,
            _ => return None,
        };
        let ip_len = if is_ipv4 { IPV4_MIN_LEN } else { IPV6_LEN };
        let (is_tcp, matches_version) = match offload.gso_type {
            GSO_TCPV4 => (true, is_ipv4),
            GSO_TCPV6 => (true, byte(ip)? >> 4 == 6),
            GSO_UDP_L4 => (false, is_ipv4 || byte(ip)? >> 4 == 6),
            _ => return None,
        };
        let headers_len = match is_tcp {
            true => transport + usize::from(byte(transport + 12)? >> 4) * 4,
            false => transport + UDP_LEN,
        };
        let is_sound = matches_version
            && offload.needs_checksum
            && offload.gso_size > 0
            && transport >= ip + ip_len
            && headers_len >= transport + if is_tcp { 20 } else { UDP_LEN }
            && headers_len < frame.len()
            // A frame's lengths have 16 bits.
            && headers_len - ip + offload.gso_size <= usize::from(u16::MAX);
        is_sound.then_some(Self {
            frame,
            gso_size: offload.gso_size,
            is_ipv4,
            is_tcp,
            ip,
            transport,
            headers_len,
        })
    }

    fn payload_len(&self) -> usize {
        self.frame.len() - self.headers_len
    }

    /// Builds the frame whose payload begins at `at`, a multiple of the size.
    fn build(&self, at: usize, tag: Option<Tag>, out: &mut Vec<u8>) {
        let number = at / self.gso_size;
        let payload = &self.frame[self.headers_len + at..];
        let is_last = payload.len() <= self.gso_size;
        let payload = &payload[..payload.len().min(self.gso_size)];
        out.clear();
        push_tagged(out, &self.frame[..self.headers_len], tag);
        let tag_len = out.len() - self.headers_len;
        out.extend_from_slice(payload);
        let (ip, transport) = out[tag_len + self.ip..].split_at_mut(self.transport - self.ip);
        let lengths = (ip.len() + transport.len(), transport.len());
        let [packet_len, segment_len] = [lengths.0, lengths.1].map(low_16_bits);

        if self.is_ipv4 {
            ip[2..4].copy_from_slice(&packet_len.to_be_bytes());
            // Every packet has an identification of its own, as from a kernel that cuts by itself.
            let id = u16::from_be_bytes([ip[4], ip[5]]).wrapping_add(low_16_bits(number));
            ip[4..6].copy_from_slice(&id.to_be_bytes());
            ip[10..12].fill(0);
            let checksum = Sum::default().add_bytes(ip).checksum();
            ip[10..12].copy_from_slice(&checksum);
        } else {
            let payload_len = low_16_bits(lengths.0 - IPV6_LEN);
            ip[4..6].copy_from_slice(&payload_len.to_be_bytes());
        }

        let checksum_at = if self.is_tcp {
            let seq = u32::from_be_bytes([transport[4], transport[5], transport[6], transport[7]]);
            let offset = u32::try_from(at).expect("invariant: within a frame");
            transport[4..8].copy_from_slice(&seq.wrapping_add(offset).to_be_bytes());
            if !is_last {
                transport[TCP_FLAGS_AT] &= !(TCP_FIN | TCP_PSH);
            }
            if number > 0 {
                // RFC 3168 §6.1.2: CWR is set in the first new segment.
                transport[TCP_FLAGS_AT] &= !TCP_CWR;
            }
            TCP_CHECKSUM_AT
        } else {
            transport[4..6].copy_from_slice(&segment_len.to_be_bytes());
            UDP_CHECKSUM_AT
        };
        transport[checksum_at..checksum_at + 2].fill(0);
        let sum = self.pseudo_header(ip, segment_len).add_bytes(transport);
        let checksum = match self.is_tcp {
            true => sum.checksum(),
            false => sum.checksum_udp(),
        };
        transport[checksum_at..checksum_at + 2].copy_from_slice(&checksum);
    }

    fn pseudo_header(&self, ip: &[u8], segment_len: u16) -> Sum {
        let protocol = match self.is_tcp {
            true => PROTOCOL_TCP,
            false => PROTOCOL_UDP,
        };
        if self.is_ipv4 {
            let address = |at: usize| Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]);
            Sum::pseudo_v4(address(12), address(16), protocol, segment_len)
        } else {
            let address = |at: usize| {
                let bytes: [u8; 16] = ip[at..at + 16]
                    .try_into()
                    .expect("invariant: a header has both addresses");
                Ipv6Addr::from(bytes)
            };
            Sum::pseudo_v6(address(8), address(24), protocol, segment_len)
        }
    }
}

/// For lengths and numbers that were checked to fit, or are to wrap.
fn low_16_bits(number: usize) -> u16 {
    u16::try_from(number & 0xffff).expect("invariant: masked")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);
    const DESTINATION_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2);
    const SOURCE_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
    const DESTINATION_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
    const SEQ: u32 = 0xffff_f000;
    const ID: u16 = 0xfffe;

    fn payload(len: usize) -> Vec<u8> {
        (0..len)
            .map(|at| (at * 31 + at / 251).to_le_bytes()[0])
            .collect()
    }

    /// A frame as a kernel hands it to a NIC that finishes checksums: the field holds the folded sum
    /// of the pseudo-header.
    fn incomplete(is_ipv4: bool, is_tcp: bool, payload: &[u8]) -> Vec<u8> {
        let mut transport = if is_tcp {
            let mut header = vec![0; 32];
            header[4..8].copy_from_slice(&SEQ.to_be_bytes());
            header[12] = 8 << 4;
            header[13] = TCP_FIN | TCP_PSH | TCP_CWR | 0x10;
            header
        } else {
            vec![0; UDP_LEN]
        };
        transport[0..2].copy_from_slice(&40_000_u16.to_be_bytes());
        transport[2..4].copy_from_slice(&7_u16.to_be_bytes());
        transport.extend(payload);
        let len = low_16_bits(transport.len());
        let protocol = if is_tcp { PROTOCOL_TCP } else { PROTOCOL_UDP };
        let mut frame = vec![2; 12];
        let pseudo = if is_ipv4 {
            frame.extend([8, 0, 0x45, 0]);
            frame.extend((len + 20).to_be_bytes());
            frame.extend(ID.to_be_bytes());
            frame.extend([0x40, 0, 64, protocol, 0, 0]);
            frame.extend(SOURCE_V4.octets());
            frame.extend(DESTINATION_V4.octets());
            let checksum = Sum::default().add_bytes(&frame[14..]).checksum();
            frame[24..26].copy_from_slice(&checksum);
            Sum::pseudo_v4(SOURCE_V4, DESTINATION_V4, protocol, len)
        } else {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(len.to_be_bytes());
            frame.extend([protocol, 64]);
            frame.extend(SOURCE_V6.octets());
            frame.extend(DESTINATION_V6.octets());
            Sum::pseudo_v6(SOURCE_V6, DESTINATION_V6, protocol, len)
        };
        if !is_tcp {
            transport[4..6].copy_from_slice(&len.to_be_bytes());
        }
        let at = if is_tcp {
            TCP_CHECKSUM_AT
        } else {
            UDP_CHECKSUM_AT
        };
        transport[at..at + 2].copy_from_slice(&pseudo.incomplete());
        frame.extend(transport);
        frame
    }

    fn offload(is_ipv4: bool, is_tcp: bool, gso_size: usize) -> Offload {
        Offload {
            needs_checksum: true,
            gso_type: match (gso_size, is_tcp, is_ipv4) {
                (0, ..) => GSO_NONE,
                (_, false, _) => GSO_UDP_L4,
                (_, true, true) => GSO_TCPV4,
                (_, true, false) => GSO_TCPV6,
            },
            gso_size,
            checksum_start: if is_ipv4 { 34 } else { 54 },
            checksum_offset: if is_tcp { 16 } else { 6 },
        }
    }

    fn frames(offload: &Offload, tag: Option<Tag>, frame: &[u8]) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        on_the_wire(
            offload,
            tag,
            &mut frame.to_vec(),
            &mut Vec::new(),
            |frame| frames.push(frame.to_vec()),
        )
        .unwrap();
        frames
    }

    /// The transport header and payload of a frame that is right in every length and checksum.
    fn checked(frame: &[u8], is_ipv4: bool, is_tcp: bool) -> &[u8] {
        let packet = &frame[14..];
        let protocol = if is_tcp { PROTOCOL_TCP } else { PROTOCOL_UDP };
        let (pseudo, transport) = if is_ipv4 {
            assert!(Sum::default().add_bytes(&packet[..20]).is_valid());
            assert_eq!(packet[2..4], low_16_bits(packet.len()).to_be_bytes());
            let len = low_16_bits(packet.len() - 20);
            let pseudo = Sum::pseudo_v4(SOURCE_V4, DESTINATION_V4, protocol, len);
            (pseudo, &packet[20..])
        } else {
            assert_eq!(packet[4..6], low_16_bits(packet.len() - 40).to_be_bytes());
            let len = low_16_bits(packet.len() - 40);
            let pseudo = Sum::pseudo_v6(SOURCE_V6, DESTINATION_V6, protocol, len);
            (pseudo, &packet[40..])
        };
        assert!(pseudo.add_bytes(transport).is_valid(), "checksum");
        if !is_tcp {
            assert_eq!(transport[4..6], low_16_bits(transport.len()).to_be_bytes());
        }
        transport
    }

    #[test]
    fn incomplete_checksums_are_finished() {
        for (is_ipv4, is_tcp) in [(true, true), (true, false), (false, true), (false, false)] {
            for len in [0, 1, 2, 63, 1400] {
                let frame = incomplete(is_ipv4, is_tcp, &payload(len));
                let offload = offload(is_ipv4, is_tcp, 0);
                let [finished] = &frames(&offload, None, &frame)[..] else {
                    panic!("one frame");
                };
                let transport = checked(finished, is_ipv4, is_tcp);
                let header = if is_tcp { 32 } else { 8 };
                assert_eq!(transport[header..], payload(len));
            }
        }
    }

    #[test]
    fn frames_that_need_nothing_are_left_alone() {
        let frame = payload(300);
        assert_eq!(frames(&Offload::default(), None, &frame), [frame]);
    }

    #[test]
    fn large_sends_become_frames() {
        for (is_ipv4, is_tcp) in [(true, true), (true, false), (false, true), (false, false)] {
            for len in [1, 999, 1000, 1001, 5000, 60_001] {
                let bytes = payload(len);
                let frame = incomplete(is_ipv4, is_tcp, &bytes);
                let offload = offload(is_ipv4, is_tcp, 1000);
                let cut = frames(&offload, None, &frame);
                assert_eq!(cut.len(), len.div_ceil(1000));
                let mut joined: Vec<u8> = Vec::new();
                for (number, frame) in cut.iter().enumerate() {
                    let transport = checked(frame, is_ipv4, is_tcp);
                    if is_ipv4 {
                        let id = ID.wrapping_add(low_16_bits(number));
                        assert_eq!(frame[18..20], id.to_be_bytes());
                    }
                    if is_tcp {
                        let seq = SEQ.wrapping_add(u32::try_from(joined.len()).unwrap());
                        assert_eq!(transport[4..8], seq.to_be_bytes());
                        let (first, last) = (number == 0, number + 1 == cut.len());
                        let mut flags = 0x10;
                        flags |= if first { TCP_CWR } else { 0 };
                        flags |= if last { TCP_FIN | TCP_PSH } else { 0 };
                        assert_eq!(transport[13], flags);
                        joined.extend(&transport[32..]);
                    } else {
                        joined.extend(&transport[8..]);
                    }
                }
                assert!(joined == bytes, "{len} bytes in their order");
            }
        }
    }

    #[test]
    fn tags_are_put_back() {
        let tag = Tag {
            protocol: 0x8100,
            control: 0x2005,
        };
        let whole = incomplete(true, true, &payload(2500));
        for gso_size in [0, 1000] {
            let offload = offload(true, true, gso_size);
            let plain = frames(&offload, None, &whole);
            let tagged = frames(&offload, Some(tag), &whole);
            assert_eq!(plain.len(), tagged.len());
            for (plain, tagged) in plain.iter().zip(&tagged) {
                let expected = [&plain[..12], &[0x81, 0, 0x20, 5], &plain[12..]].concat();
                assert_eq!(*tagged, expected);
            }
        }
    }

    #[test]
    fn an_inner_tag_is_stepped_over() {
        let mut whole = incomplete(false, true, &payload(2500));
        whole.splice(12..12, [0x81, 0, 0, 9]);
        let offload = Offload {
            checksum_start: 58,
            ..offload(false, true, 1000)
        };
        for mut frame in frames(&offload, None, &whole) {
            assert_eq!(frame[12..16], [0x81, 0, 0, 9]);
            frame.drain(12..16);
            checked(&frame, false, true);
        }
    }

    #[test]
    fn contradictions_are_refused_and_nothing_panics() {
        let whole = incomplete(true, true, &payload(3000));
        let sound = offload(true, true, 1000);
        let mut scratch = Vec::new();
        let mut is_refused = |offload: Offload, frame: &[u8]| {
            let frame = &mut frame.to_vec();
            on_the_wire(&offload, None, frame, &mut scratch, |_| {}).is_err()
        };
        for wrong in [
            Offload {
                gso_size: 0,
                ..sound
            },
            Offload {
                gso_size: 65_535,
                ..sound
            },
            Offload {
                gso_type: GSO_TCPV6,
                ..sound
            },
            Offload {
                gso_type: 3,
                ..sound
            },
            Offload {
                checksum_start: 33,
                ..sound
            },
            Offload {
                checksum_start: 60_000,
                ..sound
            },
            Offload {
                needs_checksum: false,
                ..sound
            },
        ] {
            assert!(is_refused(wrong, &whole), "{wrong:?}");
        }
        // Cut anywhere: refused or not, it ends.
        for len in 0..whole.len().min(120) {
            is_refused(sound, &whole[..len]);
            if len <= 66 {
                assert!(is_refused(sound, &whole[..len]), "{len} bytes");
            }
        }
        let far = Offload {
            gso_type: GSO_NONE,
            checksum_start: 3000,
            checksum_offset: 65_535,
            ..sound
        };
        assert!(is_refused(far, &whole));
    }

    #[test]
    fn the_header_is_read() {
        let mut header = [1, GSO_TCPV6 | GSO_ECN, 0, 0, 0, 0, 0, 0, 0, 0];
        header[4..6].copy_from_slice(&1440_u16.to_ne_bytes());
        header[6..8].copy_from_slice(&54_u16.to_ne_bytes());
        header[8..10].copy_from_slice(&16_u16.to_ne_bytes());
        assert_eq!(Offload::parse(&header), offload(false, true, 1440));
    }
}
