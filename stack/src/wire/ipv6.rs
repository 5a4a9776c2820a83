//! IPv6 headers and extension headers (RFC 8200).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! ├ version ┼─ traffic class ─┼──────────── flow label ────────────┤
//! ├────────── payload length ───────┼─ next header ─┼─ hop limit ──┤
//! ├──────────────────────── source (16 bytes) ─────────────────────┤
//! ├────────────────────── destination (16 bytes) ──────────────────┤
//! ```

use super::{array_at, be16, chunk_at, chunk_at_mut, protocol, put};
use crate::counters::DropReason;
use core::net::Ipv6Addr;
use core::ops::Range;

/// Length of the fixed header, in bytes.
pub const HEADER_LEN: usize = 40;
/// Length of a fragment header, in bytes.
pub const FRAGMENT_HEADER_LEN: usize = 8;
/// Every IPv6 link carries packets of this many bytes (RFC 8200 §5).
pub const MTU_MIN: usize = 1280;
/// More extension headers than this are refused. Real traffic has at most three; an unbounded walk
/// is a gift to attackers (RFC 8883 §3.1 lets a host limit them).
pub const EXTENSION_HEADERS_MAX: usize = 8;

/// What an option or header we do not know asks of us (RFC 8200 §4.2), and where the offending
/// byte is, for the parameter problem message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Why the packet is dropped.
    pub reason: DropReason,
    /// The ICMPv6 parameter problem to report, if any.
    pub report: Option<Report>,
}

/// A parameter problem worth reporting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The ICMPv6 code: 0 erroneous field, 1 unrecognised next header, 2 unrecognised option.
    pub code: u8,
    /// Offset of the offending byte from the start of the packet.
    pub pointer: u32,
    /// Whether to report it even when the packet was for a multicast address.
    pub even_multicast: bool,
}

impl From<DropReason> for Problem {
    fn from(reason: DropReason) -> Self {
        Self {
            reason,
            report: None,
        }
    }
}

/// Which piece of a datagram a fragment header says this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// The datagram's number.
    pub identification: u32,
    /// Where the piece starts in the fragmentable part, in bytes; a multiple of 8.
    pub offset: u16,
    /// Whether more follow.
    pub more: bool,
    /// What the fragmentable part begins with.
    pub next_header: u8,
    /// Offset, from the start of the packet, of the byte that says that a fragment header follows.
    pub named_at: u16,
}

/// A packet whose header is whole and whose extension headers have been walked.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    header: &'a [u8; HEADER_LEN],
    offset: usize,
    /// From the start of the frame.
    payload_offset: usize,
    end: usize,
    protocol: u8,
    /// Offset from the start of the packet of the byte that named `protocol`.
    protocol_offset: usize,
    fragment: Option<Fragment>,
}

impl<'a> Packet<'a> {
    /// Reads the packet that starts at `offset` of `data`, up to its transport header or, in a
    /// fragment, up to what follows the fragment header.
    ///
    /// # Errors
    /// The first [`Problem`] found.
    #[inline]
    pub fn new_checked(data: &'a [u8], offset: usize) -> Result<Self, Problem> {
        let (header, payload_len) = Self::fixed_header(data, offset)?;
        // Jumbograms (RFC 2675) have length 0 and are not for Ethernet.
        if data.len() - offset - HEADER_LEN < payload_len {
            return Err(DropReason::Ipv6PayloadLength.into());
        }
        let mut this = Self::at(header, offset, payload_len);
        if is_extension(this.protocol) {
            this.walk(data, false)?;
        }
        Ok(this)
    }

    /// The same for a packet without extension headers; `None` for all others.
    #[inline]
    #[must_use]
    pub fn new_plain(data: &'a [u8], offset: usize) -> Option<Self> {
        let (header, payload_len) = Self::fixed_header(data, offset).ok()?;
        let fits = data.len() - offset - HEADER_LEN >= payload_len;
        (fits && !is_extension(header[6])).then(|| Self::at(header, offset, payload_len))
    }

    /// Reads a header quoted in an ICMP error: the packet may be cut short.
    ///
    /// # Errors
    /// The reason it cannot be read.
    pub fn new_embedded(data: &'a [u8], offset: usize) -> Result<Self, DropReason> {
        let (header, payload_len) = Self::fixed_header(data, offset)?;
        let mut this = Self::at(header, offset, payload_len);
        this.end = this.end.min(data.len());
        if is_extension(this.protocol) {
            this.walk(data, true).map_err(|problem| problem.reason)?;
        }
        Ok(this)
    }

    /// Reads the fixed header alone, of a packet whose extension headers could not be read.
    ///
    /// # Errors
    /// The reason it cannot be read either.
    pub fn new_fixed(data: &'a [u8], offset: usize) -> Result<Self, DropReason> {
        let (header, payload_len) = Self::fixed_header(data, offset)?;
        Ok(Self::at(header, offset, payload_len))
    }

    #[inline]
    fn fixed_header(
        data: &'a [u8],
        offset: usize,
    ) -> Result<(&'a [u8; HEADER_LEN], usize), DropReason> {
        let header: &[u8; HEADER_LEN] = chunk_at(data, offset).ok_or(DropReason::Ipv6Truncated)?;
        if header[0] >> 4 != 6 {
            return Err(DropReason::Ipv6Version);
        }
        Ok((header, usize::from(be16(header, 4))))
    }

    #[inline]
    const fn at(header: &'a [u8; HEADER_LEN], offset: usize, payload_len: usize) -> Self {
        Self {
            header,
            offset,
            payload_offset: offset + HEADER_LEN,
            end: offset + HEADER_LEN + payload_len,
            protocol: header[6],
            protocol_offset: 6,
            fragment: None,
        }
    }

    /// Walks the extension headers.
    #[cold]
    fn walk(&mut self, data: &[u8], embedded: bool) -> Result<(), Problem> {
        let data = data.get(..self.end).unwrap_or(data);
        for index in 0.. {
            if !is_extension(self.protocol) {
                return Ok(());
            }
            if index == EXTENSION_HEADERS_MAX {
                return Err(DropReason::Ipv6ExtensionHeader.into());
            }
            let at = self.payload_offset;
            let first: &[u8; 8] = chunk_at(data, at).ok_or(DropReason::Ipv6ExtensionHeader)?;
            let len = match self.protocol {
                protocol::FRAGMENT => FRAGMENT_HEADER_LEN,
                protocol::AUTHENTICATION => (usize::from(first[1]) + 2) * 4,
                _ => (usize::from(first[1]) + 1) * 8,
            };
            let header = data
                .get(at..at + len)
                .ok_or(DropReason::Ipv6ExtensionHeader)?;
            match self.protocol {
                // RFC 8200 §4.1: hop-by-hop options stand directly behind the IPv6 header; anywhere
                // else "0" is an unrecognised next header.
                protocol::HOP_BY_HOP if index > 0 => {
                    return Err(Problem {
                        reason: DropReason::Ipv6ExtensionHeader,
                        report: Some(self.report(1, self.protocol_offset)),
                    });
                }
                protocol::HOP_BY_HOP | protocol::DESTINATION_OPTIONS if !embedded => {
                    check_options(header, at - self.offset)?;
                }
                // RFC 4302 §2.2: twelve bytes at least, in units of four, of which two do not count.
                protocol::AUTHENTICATION if first[1] == 0 => {
                    return Err(DropReason::Ipv6ExtensionHeader.into());
                }
                // RFC 8200 §4.4, RFC 5095: we know no routing type, so segments left must be 0.
                protocol::ROUTING if !embedded && first[3] != 0 => {
                    return Err(Problem {
                        reason: DropReason::Ipv6RoutingHeader,
                        report: Some(self.report(0, at - self.offset + 2)),
                    });
                }
                protocol::FRAGMENT if self.fragment.is_some() => {
                    return Err(DropReason::Ipv6ExtensionHeader.into());
                }
                protocol::FRAGMENT => {
                    let word = be16(first, 2);
                    self.fragment = Some(Fragment {
                        identification: u32::from_be_bytes(array_at(first, 4)),
                        offset: word & 0xfff8,
                        more: word & 1 != 0,
                        next_header: first[0],
                        named_at: u16::try_from(self.protocol_offset)
                            .map_err(|_| DropReason::Ipv6ExtensionHeader)?,
                    });
                }
                _ => {}
            }
            self.protocol_offset = at - self.offset;
            self.protocol = first[0];
            self.payload_offset = at + len;
            // What follows belongs to the datagram that the pieces make, and is read there. Only a
            // "fragment" that is the whole datagram (RFC 6946), and a quoted one, go on from here.
            let in_pieces = self
                .fragment
                .is_some_and(|piece| piece.offset > 0 || (piece.more && !embedded));
            if in_pieces {
                return Ok(());
            }
        }
        Ok(())
    }

    fn report(&self, code: u8, pointer: usize) -> Report {
        Report {
            code,
            pointer: u32::try_from(pointer).unwrap_or(u32::MAX),
            even_multicast: false,
        }
    }

    /// The report for a payload protocol that nobody here speaks (RFC 8200 §4).
    #[must_use]
    pub fn unknown_protocol(&self) -> Report {
        self.report(1, self.protocol_offset)
    }

    /// Where the packet starts, in bytes from the start of the frame.
    #[inline]
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.offset
    }

    /// Length of the fixed and extension headers, in bytes.
    #[inline]
    #[must_use]
    pub const fn header_len(&self) -> usize {
        self.payload_offset - self.offset
    }

    /// Length of the whole packet as its header says, in bytes; a quoted one may be cut short.
    #[inline]
    #[must_use]
    pub const fn total_len(&self) -> usize {
        HEADER_LEN + be16(self.header, 4) as usize
    }

    /// Where the transport header and payload lie, in bytes from the start of the frame.
    #[inline]
    #[must_use]
    pub const fn payload(&self) -> Range<usize> {
        self.payload_offset..self.end
    }

    /// Traffic class: DSCP and ECN.
    #[inline]
    #[must_use]
    pub const fn traffic_class(&self) -> u8 {
        self.header[0] << 4 | self.header[1] >> 4
    }

    /// Hop limit.
    #[inline]
    #[must_use]
    pub const fn hop_limit(&self) -> u8 {
        self.header[7]
    }

    /// The protocol behind the extension headers.
    #[inline]
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        self.protocol
    }

    /// The piece this is, if the packet has a fragment header.
    #[inline]
    #[must_use]
    pub const fn fragment(&self) -> Option<Fragment> {
        self.fragment
    }

    /// Who sent it.
    #[inline]
    #[must_use]
    pub const fn source(&self) -> Ipv6Addr {
        Ipv6Addr::from_octets(array_at(self.header, 8))
    }

    /// Who it is for.
    #[inline]
    #[must_use]
    pub const fn destination(&self) -> Ipv6Addr {
        Ipv6Addr::from_octets(array_at(self.header, 24))
    }
}

/// Whether a next-header value names an extension header that we walk.
#[inline]
const fn is_extension(next_header: u8) -> bool {
    matches!(
        next_header,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::AUTHENTICATION
            | protocol::DESTINATION_OPTIONS
    )
}

/// Walks the options of a hop-by-hop or destination options header that starts `start` bytes into
/// the packet (RFC 8200 §4.2).
fn check_options(header: &[u8], start: usize) -> Result<(), Problem> {
    const PAD1: u8 = 0;
    const PADN: u8 = 1;
    const ROUTER_ALERT: u8 = 5;
    let mut at = 2;
    while at < header.len() {
        if header[at] == PAD1 {
            at += 1;
            continue;
        }
        let (Some(&kind), Some(&len)) = (header.get(at), header.get(at + 1)) else {
            return Err(DropReason::Ipv6ExtensionHeader.into());
        };
        let end = at + 2 + usize::from(len);
        if end > header.len() {
            return Err(DropReason::Ipv6ExtensionHeader.into());
        }
        // RFC 8200 §4.2: the two highest bits say what to do with an option we do not know.
        if kind != PADN && kind != ROUTER_ALERT && kind >> 6 != 0 {
            let report = Report {
                code: 2,
                pointer: u32::try_from(start + at).unwrap_or(u32::MAX),
                even_multicast: kind >> 6 == 2,
            };
            let report = (kind >> 6 != 1).then_some(report);
            return Err(Problem {
                reason: DropReason::Ipv6Option,
                report,
            });
        }
        at = end;
    }
    Ok(())
}

/// The meaning of a header that we send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// Our address.
    pub source: Ipv6Addr,
    /// The receiver's.
    pub destination: Ipv6Addr,
    /// What follows.
    pub next_header: u8,
    /// Traffic class: DSCP and ECN.
    pub traffic_class: u8,
    /// Flow label, 20 bits (RFC 6437).
    pub flow_label: u32,
    /// Hops.
    pub hop_limit: u8,
    /// Length of all that follows, in bytes.
    pub payload_len: u16,
}

impl Repr {
    /// Writes the header at `offset` of `data`; `None` if there is no room.
    #[inline]
    #[must_use]
    pub fn emit(&self, data: &mut [u8], offset: usize) -> Option<usize> {
        let header: &mut [u8; HEADER_LEN] = chunk_at_mut(data, offset)?;
        let word = 6 << 28 | u32::from(self.traffic_class) << 20 | (self.flow_label & 0x000f_ffff);
        put(header, 0, word.to_be_bytes());
        put(header, 4, self.payload_len.to_be_bytes());
        put(header, 6, [self.next_header, self.hop_limit]);
        put(header, 8, self.source.octets());
        put(header, 24, self.destination.octets());
        Some(HEADER_LEN)
    }
}

/// Writes a fragment header at `offset` of `data`; `None` if there is no room.
#[must_use]
pub fn emit_fragment_header(
    data: &mut [u8],
    offset: usize,
    next_header: u8,
    identification: u32,
    piece_offset: u16,
    more: bool,
) -> Option<usize> {
    let header: &mut [u8; FRAGMENT_HEADER_LEN] = chunk_at_mut(data, offset)?;
    put(header, 0, [next_header, 0]);
    put(
        header,
        2,
        ((piece_offset & 0xfff8) | u16::from(more)).to_be_bytes(),
    );
    put(header, 4, identification.to_be_bytes());
    Some(FRAGMENT_HEADER_LEN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn packet(next_header: u8, payload: &[u8]) -> Vec<u8> {
        let repr = Repr {
            source: "2001:db8::1".parse().unwrap(),
            destination: "2001:db8::2".parse().unwrap(),
            next_header,
            traffic_class: 0xb8,
            flow_label: 0xabcde,
            hop_limit: 64,
            payload_len: u16::try_from(payload.len()).unwrap(),
        };
        let mut data = alloc::vec![0; 3 + HEADER_LEN];
        repr.emit(&mut data, 3).unwrap();
        data.extend_from_slice(payload);
        data
    }

    fn problem(next_header: u8, payload: &[u8]) -> Problem {
        Packet::new_checked(&packet(next_header, payload), 3)
            .map(|_| ())
            .unwrap_err()
    }

    #[test]
    fn what_is_written_is_read() {
        let data = packet(protocol::UDP, &[7; 9]);
        let packet = Packet::new_checked(&data, 3).unwrap();
        assert_eq!(packet.payload(), 43..52);
        assert_eq!((packet.protocol(), packet.hop_limit()), (protocol::UDP, 64));
        assert_eq!(packet.traffic_class(), 0xb8);
        assert_eq!(packet.source(), "2001:db8::1".parse::<Ipv6Addr>().unwrap());
        assert_eq!(
            packet.destination(),
            "2001:db8::2".parse::<Ipv6Addr>().unwrap()
        );
        assert!(packet.fragment().is_none());
    }

    #[test]
    fn plain_is_without_extension_headers() {
        for next_header in 0..=255 {
            let good = packet(next_header, &[next_header; 16]);
            for len in 0..=good.len() {
                let data = &good[..len];
                let checked = Packet::new_checked(data, 3);
                let plain = checked.is_ok_and(|ip| ip.header_len() == HEADER_LEN);
                assert_eq!(Packet::new_plain(data, 3).is_some(), plain);
            }
            let mut wrong_version = good.clone();
            wrong_version[3] = 0x45;
            assert!(Packet::new_plain(&wrong_version, 3).is_none());
        }
        let mut too_long = packet(protocol::UDP, &[7; 9]);
        too_long[3 + 5] += 1;
        assert!(Packet::new_plain(&too_long, 3).is_none());
    }

    #[test]
    fn extension_headers_are_walked() {
        let mut payload = Vec::new();
        payload.extend_from_slice(&[60, 0, 5, 2, 0, 0, 1, 0]); // hop-by-hop: router alert, PadN
        payload.extend_from_slice(&[43, 0, 0x1e, 4, 0, 0, 0, 0]); // an option to be skipped
        payload.extend_from_slice(&[51, 0, 4, 0, 0, 0, 0, 0]); // routing, no segments left
        payload.extend_from_slice(&[17, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // AH of 12 bytes
        payload.extend_from_slice(&[9; 8]);
        let data = packet(protocol::HOP_BY_HOP, &payload);
        let packet = Packet::new_checked(&data, 3).unwrap();
        assert_eq!(packet.protocol(), protocol::UDP);
        assert_eq!(packet.payload().len(), 8);
        assert_eq!(packet.unknown_protocol().pointer, 40 + 24);
    }

    #[test]
    fn fragment_headers_stop_the_walk() {
        let mut payload = alloc::vec![0u8, 0, 0x05, 0xa9, 1, 2, 3, 4];
        payload.extend_from_slice(&[0xff; 8]);
        let data = packet(protocol::FRAGMENT, &payload);
        let packet = Packet::new_checked(&data, 3).unwrap();
        let fragment = packet.fragment().unwrap();
        assert_eq!((fragment.offset, fragment.more), (0x05a8, true));
        assert_eq!(fragment.identification, 0x0102_0304);
        assert_eq!((fragment.named_at, fragment.next_header), (6, 0));
        assert_eq!(packet.payload().len(), 8);
    }

    #[test]
    fn every_lie_has_its_reason() {
        let good = packet(protocol::UDP, &[0; 8]);
        for (len, reason) in [
            (42, DropReason::Ipv6Truncated),
            (50, DropReason::Ipv6PayloadLength),
        ] {
            let short = Packet::new_checked(&good[..len], 3)
                .map(|_| ())
                .unwrap_err();
            assert_eq!(short.reason, reason);
        }
        let mut bad = good;
        bad[3] = 0x45;
        assert_eq!(
            Packet::new_checked(&bad, 3).unwrap_err().reason,
            DropReason::Ipv6Version
        );

        assert_eq!(
            problem(0, &[17, 1, 0, 0, 0, 0, 0, 0]).reason,
            DropReason::Ipv6ExtensionHeader
        );
        assert_eq!(
            problem(60, &[17, 0, 9, 9, 0, 0, 0, 0]).reason,
            DropReason::Ipv6ExtensionHeader
        );
        let misplaced = problem(60, &[0, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0]);
        assert_eq!(
            misplaced.report.map(|report| (report.code, report.pointer)),
            Some((1, 40))
        );
        let routed = problem(43, &[17, 0, 0, 1, 0, 0, 0, 0]);
        assert_eq!(routed.reason, DropReason::Ipv6RoutingHeader);
        assert_eq!(
            routed.report.map(|report| (report.code, report.pointer)),
            Some((0, 42))
        );
        let endless: Vec<u8> = [60, 0, 1, 4, 0, 0, 0, 0].repeat(EXTENSION_HEADERS_MAX + 1);
        assert_eq!(
            problem(60, &endless).reason,
            DropReason::Ipv6ExtensionHeader
        );
    }

    #[test]
    fn unknown_options_say_what_to_do() {
        let with = |kind: u8| packet(60, &[17, 0, 1, 0, kind, 2, 0, 0]);
        assert!(Packet::new_checked(&with(0x1f), 3).is_ok());
        for (kind, report) in [
            (0x5f, None),
            (0x9f, Some((2, 44, true))),
            (0xdf, Some((2, 44, false))),
        ] {
            let problem = Packet::new_checked(&with(kind), 3).map(|_| ()).unwrap_err();
            assert_eq!(problem.reason, DropReason::Ipv6Option);
            assert_eq!(
                problem
                    .report
                    .map(|r| (r.code, r.pointer, r.even_multicast)),
                report
            );
        }
    }
}
