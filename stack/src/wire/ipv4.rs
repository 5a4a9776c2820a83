//! IPv4 headers and options (RFC 791, RFC 1122 §3.2.1).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! ├ version ┼─ IHL ─┼──── TOS ──────┼─────────── total length ─────┤
//! ├────────── identification ───────┼ 0 DF MF ┼─ fragment offset ──┤
//! ├──── TTL ────────┼── protocol ───┼────────── checksum ──────────┤
//! ├──────────────────────────── source ────────────────────────────┤
//! ├────────────────────────── destination ─────────────────────────┤
//! ```

use super::checksum::Sum;
use super::{array_at, be16, chunk_at, chunk_at_mut, put};
use crate::counters::DropReason;
use core::net::Ipv4Addr;
use core::ops::Range;

/// Length of a header without options, in bytes.
pub const HEADER_LEN: usize = 20;
/// Every IPv4 host receives datagrams of at least this many bytes (RFC 791 §3.1).
pub const DATAGRAM_LEN_MIN: usize = 576;

/// Version 4, and a header length of five words of 32 bits: no options.
const VERSION_AND_LENGTH: u8 = 0x45;

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;

const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_LOOSE_SOURCE_ROUTE: u8 = 131;
const OPTION_STRICT_SOURCE_ROUTE: u8 = 137;

/// A packet whose header is whole, whose checksum is right, whose lengths fit and whose options can
/// be walked.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    header: &'a [u8; HEADER_LEN],
    offset: usize,
    header_len: usize,
    total_len: usize,
}

impl<'a> Packet<'a> {
    /// Reads the packet that starts at `offset` of `data`. Bytes after its total length are
    /// Ethernet padding and do not belong to it.
    ///
    /// # Errors
    /// The [`DropReason`] of the first check that fails.
    #[inline]
    pub fn new_checked(data: &'a [u8], offset: usize) -> Result<Self, DropReason> {
        let header: &[u8; HEADER_LEN] = chunk_at(data, offset).ok_or(DropReason::Ipv4Truncated)?;
        if header[0] == VERSION_AND_LENGTH {
            return Self::without_options(data, offset, header);
        }
        let this = Self::new_embedded(data, offset)?;
        if data.len() - offset < this.total_len {
            return Err(DropReason::Ipv4TotalLength);
        }
        // RFC 1122 §3.2.1.2: verify the checksum of every datagram, discard silently.
        if !this.check_options(data)?.is_valid() {
            return Err(DropReason::Ipv4Checksum);
        }
        Ok(this)
    }

    /// The same for a whole datagram without options; `None` for all others.
    #[inline]
    #[must_use]
    pub fn new_plain(data: &'a [u8], offset: usize) -> Option<Self> {
        // Version, length, and of flags and fragment offset all but DF, in one comparison.
        const MASK: u64 = u64::from_ne_bytes([0xff, 0, 0, 0, 0, 0, 0x3f, 0xff]);
        const PLAIN: u64 = u64::from_ne_bytes([VERSION_AND_LENGTH, 0, 0, 0, 0, 0, 0, 0]);
        let header: &[u8; HEADER_LEN] = chunk_at(data, offset)?;
        if u64::from_ne_bytes(array_at(header, 0)) & MASK != PLAIN {
            return None;
        }
        Self::without_options(data, offset, header).ok()
    }

    #[inline]
    fn without_options(
        data: &'a [u8],
        offset: usize,
        header: &'a [u8; HEADER_LEN],
    ) -> Result<Self, DropReason> {
        let total_len = usize::from(be16(header, 2));
        if total_len < HEADER_LEN || data.len() - offset < total_len {
            return Err(DropReason::Ipv4TotalLength);
        }
        // RFC 1122 §3.2.1.2, as above.
        if !Sum::header20(header).is_valid() {
            return Err(DropReason::Ipv4Checksum);
        }
        Ok(Self {
            header,
            offset,
            header_len: HEADER_LEN,
            total_len,
        })
    }

    /// Reads a header quoted in an ICMP error: the packet may be cut short behind its header, and
    /// its checksum may have been changed on the way.
    ///
    /// # Errors
    /// The [`DropReason`] of the first check that fails.
    #[inline]
    pub fn new_embedded(data: &'a [u8], offset: usize) -> Result<Self, DropReason> {
        let header: &[u8; HEADER_LEN] = chunk_at(data, offset).ok_or(DropReason::Ipv4Truncated)?;
        let header_len = usize::from(header[0] & 0x0f) * 4;
        if header[0] != VERSION_AND_LENGTH {
            // RFC 1122 §3.2.1.1: silently discard a version other than 4.
            if header[0] >> 4 != 4 {
                return Err(DropReason::Ipv4Version);
            }
            if header_len < HEADER_LEN || data.len() - offset < header_len {
                return Err(DropReason::Ipv4HeaderLength);
            }
        }
        let total_len = usize::from(be16(header, 2));
        if total_len < header_len {
            return Err(DropReason::Ipv4TotalLength);
        }
        Ok(Self {
            header,
            offset,
            header_len,
            total_len,
        })
    }

    /// Walks the options; returns the sum of the whole header.
    #[cold]
    fn check_options(&self, data: &[u8]) -> Result<Sum, DropReason> {
        let bytes = data
            .get(self.offset..self.offset + self.header_len)
            .ok_or(DropReason::Ipv4HeaderLength)?;
        let mut options = &bytes[HEADER_LEN..];
        loop {
            match *options {
                [] | [OPTION_END, ..] => break,
                [OPTION_NOP, ref rest @ ..] => options = rest,
                // A source route would let a stranger send our answers where he likes. RFC 1122
                // §3.2.1.8(c) wants it reversed; RFC 7126 §4.3, 4.4 advises to drop it.
                [OPTION_LOOSE_SOURCE_ROUTE | OPTION_STRICT_SOURCE_ROUTE, ..] => {
                    return Err(DropReason::Ipv4SourceRoute);
                }
                // RFC 1122 §3.2.1.8: options we do not know are ignored.
                [_, len, ..] if len >= 2 && usize::from(len) <= options.len() => {
                    options = &options[usize::from(len)..];
                }
                _ => return Err(DropReason::Ipv4Options),
            }
        }
        Ok(Sum::ZERO.add_bytes(bytes))
    }

    /// Where the packet starts, in bytes from the start of the frame.
    #[inline]
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.offset
    }

    /// Length of the header with its options, in bytes.
    #[inline]
    #[must_use]
    pub const fn header_len(&self) -> usize {
        self.header_len
    }

    /// Length of header and payload, in bytes.
    #[inline]
    #[must_use]
    pub const fn total_len(&self) -> usize {
        self.total_len
    }

    /// Where the payload lies, in bytes from the start of the frame.
    #[inline]
    #[must_use]
    pub const fn payload(&self) -> Range<usize> {
        self.offset + self.header_len..self.offset + self.total_len
    }

    /// Type of service: DSCP and ECN.
    #[inline]
    #[must_use]
    pub const fn tos(&self) -> u8 {
        self.header[1]
    }

    /// Identification, for reassembly.
    #[inline]
    #[must_use]
    pub const fn identification(&self) -> u16 {
        be16(self.header, 4)
    }

    /// Whether it may not be fragmented.
    #[inline]
    #[must_use]
    pub const fn dont_fragment(&self) -> bool {
        be16(self.header, 6) & DONT_FRAGMENT != 0
    }

    /// Whether it is a piece of a datagram.
    #[inline]
    #[must_use]
    pub const fn is_fragment(&self) -> bool {
        be16(self.header, 6) & (MORE_FRAGMENTS | OFFSET_MASK) != 0
    }

    /// Whether more pieces follow.
    #[inline]
    #[must_use]
    pub const fn more_fragments(&self) -> bool {
        be16(self.header, 6) & MORE_FRAGMENTS != 0
    }

    /// Where in the datagram this piece belongs, in bytes; a multiple of 8.
    #[inline]
    #[must_use]
    pub const fn fragment_offset(&self) -> usize {
        (be16(self.header, 6) & OFFSET_MASK) as usize * 8
    }

    /// Time to live.
    #[inline]
    #[must_use]
    pub const fn ttl(&self) -> u8 {
        self.header[8]
    }

    /// The protocol of the payload.
    #[inline]
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        self.header[9]
    }

    /// Who sent it.
    #[inline]
    #[must_use]
    pub const fn source(&self) -> Ipv4Addr {
        let [a, b, c, d] = array_at(self.header, 12);
        Ipv4Addr::new(a, b, c, d)
    }

    /// Who it is for.
    #[inline]
    #[must_use]
    pub const fn destination(&self) -> Ipv4Addr {
        let [a, b, c, d] = array_at(self.header, 16);
        Ipv4Addr::new(a, b, c, d)
    }
}

/// The meaning of a header that we send: no options, and a fragment only where `fragment` says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// Our address.
    pub source: Ipv4Addr,
    /// The receiver's.
    pub destination: Ipv4Addr,
    /// What the payload is.
    pub protocol: u8,
    /// Type of service: DSCP and ECN.
    pub tos: u8,
    /// Time to live, hops; never 0 (RFC 1122 §3.2.1.7).
    pub ttl: u8,
    /// Length of the payload, in bytes, at most 65,515.
    pub payload_len: u16,
    /// Which piece of which datagram, or a whole one that routers may not cut.
    pub fragment: Option<Fragment>,
}

/// Where a piece belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// The datagram's number, unique per (source, destination, protocol) while its pieces may live.
    pub identification: u16,
    /// Where the piece starts, in bytes; a multiple of 8.
    pub offset: u16,
    /// Whether more follow.
    pub more: bool,
}

impl Repr {
    /// Writes header and checksum at `offset` of `data`; `None` if there is no room.
    ///
    /// A whole datagram goes out with DF set, so that path MTU discovery works (RFC 1191 §3), and
    /// then its identification carries no meaning (RFC 6864 §4.1) and is 0.
    #[inline]
    #[must_use]
    pub fn emit(&self, data: &mut [u8], offset: usize) -> Option<usize> {
        let header: &mut [u8; HEADER_LEN] = chunk_at_mut(data, offset)?;
        let (identification, flags) = match self.fragment {
            None => (0, DONT_FRAGMENT),
            Some(piece) => {
                let more = if piece.more { MORE_FRAGMENTS } else { 0 };
                (piece.identification, more | (piece.offset / 8))
            }
        };
        const HEADER: u16 = 20;
        const _: () = assert!(HEADER as usize == HEADER_LEN);
        debug_assert!(
            self.payload_len <= u16::MAX - HEADER,
            "invariant: a length IPv4 can say"
        );
        let total_len = self.payload_len.wrapping_add(HEADER);
        // Summed from the fields: reading back what was just written is slower.
        let sum = Sum::pseudo_v4(self.source, self.destination, 0, total_len)
            .add_be16(u16::from_be_bytes([VERSION_AND_LENGTH, self.tos]))
            .add_be16(identification)
            .add_be16(flags)
            .add_be16(u16::from_be_bytes([self.ttl, self.protocol]));
        put(header, 0, [VERSION_AND_LENGTH, self.tos]);
        put(header, 2, total_len.to_be_bytes());
        put(header, 4, identification.to_be_bytes());
        put(header, 6, flags.to_be_bytes());
        put(header, 8, [self.ttl, self.protocol]);
        put(header, 10, sum.checksum());
        put(header, 12, self.source.octets());
        put(header, 16, self.destination.octets());
        Some(HEADER_LEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn repr() -> Repr {
        Repr {
            source: Ipv4Addr::new(192, 0, 2, 1),
            destination: Ipv4Addr::new(198, 51, 100, 7),
            protocol: 17,
            tos: 0x2e << 2,
            ttl: 64,
            payload_len: 12,
            fragment: None,
        }
    }

    fn packet(repr: &Repr) -> Vec<u8> {
        let mut data = alloc::vec![0; 4 + HEADER_LEN + usize::from(repr.payload_len) + 9];
        repr.emit(&mut data, 4).unwrap();
        data
    }

    /// Puts options behind the header and makes lengths and checksum right.
    fn with_options(options: &[u8]) -> Vec<u8> {
        let mut data = packet(&repr());
        data.splice(24..24, options.iter().copied());
        data[4] = 0x45 + u8::try_from(options.len() / 4).unwrap();
        data[7] += u8::try_from(options.len()).unwrap();
        data[14..16].fill(0);
        let end = 24 + options.len();
        let sum = Sum::ZERO.add_bytes(&data[4..end]).checksum();
        data[14..16].copy_from_slice(&sum);
        data
    }

    #[test]
    fn what_is_written_is_read() {
        let data = packet(&repr());
        let packet = Packet::new_checked(&data, 4).unwrap();
        assert_eq!(packet.payload(), 24..36);
        assert_eq!(
            (packet.source(), packet.destination()),
            (repr().source, repr().destination)
        );
        assert_eq!(
            (packet.ttl(), packet.protocol(), packet.tos()),
            (64, 17, 0x2e << 2)
        );
        assert!(packet.dont_fragment() && !packet.is_fragment());
    }

    #[test]
    fn fragments_say_where_they_belong() {
        let piece = Fragment {
            identification: 77,
            offset: 1480,
            more: true,
        };
        let data = packet(&Repr {
            fragment: Some(piece),
            ..repr()
        });
        let packet = Packet::new_checked(&data, 4).unwrap();
        assert!(packet.is_fragment() && packet.more_fragments() && !packet.dont_fragment());
        assert_eq!(
            (packet.identification(), packet.fragment_offset()),
            (77, 1480)
        );
    }

    #[test]
    fn every_lie_has_its_reason() {
        let good = packet(&repr());
        let reason = |change: fn(&mut Vec<u8>)| {
            let mut data = good.clone();
            change(&mut data);
            Packet::new_checked(&data, 4).map(|_| ()).unwrap_err()
        };
        assert_eq!(reason(|data| data.truncate(23)), DropReason::Ipv4Truncated);
        assert_eq!(reason(|data| data[4] = 0x65), DropReason::Ipv4Version);
        assert_eq!(reason(|data| data[4] = 0x44), DropReason::Ipv4HeaderLength);
        assert_eq!(reason(|data| data[4] = 0x4f), DropReason::Ipv4HeaderLength);
        assert_eq!(reason(|data| data[7] = 19), DropReason::Ipv4TotalLength);
        assert_eq!(reason(|data| data[6] = 1), DropReason::Ipv4TotalLength);
        assert_eq!(reason(|data| data[12] ^= 1), DropReason::Ipv4Checksum);
        assert_eq!(reason(|data| data[14] ^= 1), DropReason::Ipv4Checksum);
    }

    #[test]
    fn plain_is_whole_and_without_options() {
        let plain = |data: &[u8]| {
            let checked = Packet::new_checked(data, 4);
            let plain = checked.is_ok_and(|ip| ip.header_len() == HEADER_LEN && !ip.is_fragment());
            assert_eq!(Packet::new_plain(data, 4).is_some(), plain);
            plain
        };
        assert!(plain(&packet(&repr())));
        assert!(!plain(&with_options(&[1, 1, 1, 1])));
        for (offset, more) in [(0, true), (8, false), (65_528, false)] {
            let fragment = Some(Fragment {
                identification: 1,
                offset,
                more,
            });
            assert!(!plain(&packet(&Repr { fragment, ..repr() })));
        }
        let good = packet(&repr());
        for len in 0..good.len() {
            plain(&good[..len]);
        }
        for byte in 4..24 {
            for bit in 0..8 {
                let mut data = good.clone();
                data[byte] ^= 1 << bit;
                // With a checksum that is right for the change, too.
                plain(&data);
                data[14..16].fill(0);
                let sum = Sum::ZERO.add_bytes(&data[4..24]).checksum();
                data[14..16].copy_from_slice(&sum);
                plain(&data);
            }
        }
    }

    #[test]
    fn options_are_walked_and_ignored() {
        // Router alert, NOP, an unknown option, end.
        let data = with_options(&[148, 4, 0, 0, 1, 30, 5, 1, 2, 3, 0, 99]);
        let packet = Packet::new_checked(&data, 4).unwrap();
        assert_eq!(packet.header_len(), 32);
        assert_eq!(packet.payload().len(), 12);
    }

    #[test]
    fn impossible_options_and_source_routes_are_refused() {
        for (options, reason) in [
            (&[30, 0, 0, 0][..], DropReason::Ipv4Options),
            (&[30, 1, 0, 0], DropReason::Ipv4Options),
            (&[30, 5, 0, 0], DropReason::Ipv4Options),
            (&[1, 1, 1, 30], DropReason::Ipv4Options),
            (&[131, 3, 4, 0], DropReason::Ipv4SourceRoute),
            (&[1, 137, 3, 4], DropReason::Ipv4SourceRoute),
        ] {
            let data = with_options(options);
            assert_eq!(
                Packet::new_checked(&data, 4).unwrap_err(),
                reason,
                "{options:?}"
            );
        }
    }
}
