//! TCP headers (RFC 9293 §3.1).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! ├────────── source port ──────────┼──────── destination port ────┤
//! ├──────────────────────── sequence number ───────────────────────┤
//! ├───────────────────── acknowledgment number ────────────────────┤
//! ├ offset┼─ 0 ─┼A C E U A P R S F ─┼──────────── window ──────────┤
//! │       │     │E W C R C S S Y I  │                              │
//! │       │     │  R E G K H T N N  │                              │
//! ├─────────── checksum ────────────┼──────── urgent pointer ──────┤
//! ├──────────────────────── options: 0 to 40 bytes ────────────────┤
//! ```
//!
//! What the options mean is told by [`crate::tcp::options`].

use super::{be16, put};
use crate::counters::DropReason;
use crate::wire::checksum::Sum;
use core::fmt;
use core::ops::{BitOr, BitOrAssign, Range};

/// Length of a header without options, in bytes.
pub const HEADER_LEN: usize = 20;
/// Length of the longest header, in bytes: the data offset counts at most 15 words of 32 bits.
pub const HEADER_LEN_MAX: usize = 60;
/// Room for options in a header, in bytes.
pub const OPTIONS_LEN_MAX: usize = HEADER_LEN_MAX - HEADER_LEN;

/// The control bits of a segment, as a set.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Flags(u16);

impl Flags {
    /// None of them.
    pub const NONE: Flags = Flags(0);
    /// No more data from the sender.
    pub const FIN: Flags = Flags(0x001);
    /// Synchronizes sequence numbers.
    pub const SYN: Flags = Flags(0x002);
    /// Resets the connection.
    pub const RST: Flags = Flags(0x004);
    /// The receiver shall pass what it has to the application.
    pub const PSH: Flags = Flags(0x008);
    /// The acknowledgment number means something.
    pub const ACK: Flags = Flags(0x010);
    /// The urgent pointer means something.
    pub const URG: Flags = Flags(0x020);
    /// Congestion was experienced on the way here (RFC 3168 §6.1).
    pub const ECE: Flags = Flags(0x040);
    /// The congestion window was reduced (RFC 3168 §6.1).
    pub const CWR: Flags = Flags(0x080);
    /// Accurate ECN, before it the nonce sum (RFC 3540, RFC 9768 §3.1).
    pub const AE: Flags = Flags(0x100);

    /// All that have a name. The three reserved bits are no flags.
    const MASK: u16 = 0x1ff;

    /// From the bits in their places in the header; all others are ignored.
    #[inline]
    #[must_use]
    pub const fn from_bits(bits: u16) -> Self {
        // RFC 9293 §3.1: reserved bits are ignored in received segments, and zero in sent ones.
        Self(bits & Self::MASK)
    }

    /// The bits in their places in the header.
    #[inline]
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// Whether all of `other` are set.
    #[inline]
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of `other` is set.
    #[inline]
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Those that are in `other` too.
    #[inline]
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// All of both.
    #[inline]
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that are not in `other`.
    #[inline]
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl BitOr for Flags {
    type Output = Self;

    #[inline]
    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

impl BitOrAssign for Flags {
    #[inline]
    fn bitor_assign(&mut self, other: Self) {
        *self = self.union(other);
    }
}

/// Their names, `|` between them: `SYN|ACK`.
impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(Flags, &str); 9] = [
            (Flags::FIN, "FIN"),
            (Flags::SYN, "SYN"),
            (Flags::RST, "RST"),
            (Flags::PSH, "PSH"),
            (Flags::ACK, "ACK"),
            (Flags::URG, "URG"),
            (Flags::ECE, "ECE"),
            (Flags::CWR, "CWR"),
            (Flags::AE, "AE"),
        ];
        let mut separator = "";
        for (flag, name) in NAMES {
            if self.contains(flag) {
                write!(f, "{separator}{name}")?;
                separator = "|";
            }
        }
        if *self == Self::NONE {
            f.write_str("-")?;
        }
        Ok(())
    }
}

/// What a header says, apart from its options: what is written into one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The sender's port.
    pub source_port: u16,
    /// The receiver's port.
    pub destination_port: u16,
    /// Sequence number of the first byte of payload, or of SYN.
    pub seq: u32,
    /// The next sequence number the sender expects; zero without ACK.
    pub ack: u32,
    /// Control bits.
    pub flags: Flags,
    /// The receive window as the field has it: bytes, shifted right by the window scale.
    pub window: u16,
    /// Urgent pointer: bytes from `seq`; zero without URG.
    pub urgent: u16,
}

impl Header {
    /// The bytes, with a checksum of zero, in front of `options_len` bytes of options.
    #[inline]
    fn bytes(&self, options_len: usize) -> [u8; HEADER_LEN] {
        let Self {
            source_port,
            destination_port,
            seq,
            ack,
            flags,
            window,
            urgent,
        } = *self;
        let [high, low] = flags.bits().to_be_bytes();
        // The data offset counts words of 4 bytes, in the upper 4 bits of its byte: at most
        // 60 bytes make 0xf0.
        let words = u8::try_from((HEADER_LEN + options_len) << 2).unwrap_or(0);
        let mut bytes = [0; HEADER_LEN];
        put(&mut bytes, 0, source_port.to_be_bytes());
        put(&mut bytes, 2, destination_port.to_be_bytes());
        put(&mut bytes, 4, seq.to_be_bytes());
        put(&mut bytes, 8, ack.to_be_bytes());
        put(&mut bytes, 12, [words & 0xf0 | high, low]);
        put(&mut bytes, 14, window.to_be_bytes());
        put(&mut bytes, 18, urgent.to_be_bytes());
        bytes
    }
}

/// A segment whose header is whole; its checksum is a matter of policy, see [`Packet::verify`].
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Header, options and payload.
    segment: &'a [u8],
    header: &'a [u8; HEADER_LEN],
    options: &'a [u8],
    payload: &'a [u8],
    offset: usize,
}

/// What became of a checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verified {
    /// It is right.
    Right,
    /// It covers the pseudo-header alone: the sender's NIC was to finish it, but there was none.
    Incomplete,
}

impl<'a> Packet<'a> {
    /// Reads the segment that lies in `range` of `data`. TCP has no length of its own: the segment
    /// is as long as the payload of its IP packet.
    ///
    /// # Errors
    /// [`DropReason::TcpTruncated`], [`DropReason::TcpDataOffset`].
    #[inline]
    pub fn new_checked(data: &'a [u8], range: Range<usize>) -> Result<Self, DropReason> {
        let offset = range.start;
        let segment = data.get(range).ok_or(DropReason::TcpTruncated)?;
        let (header, rest) = segment
            .split_first_chunk::<HEADER_LEN>()
            .ok_or(DropReason::TcpTruncated)?;
        // RFC 9293 §3.1: the data offset is where the data begins, in words of 32 bits. One below
        // the header's own five wraps around to a length no segment has.
        let header_len = usize::from(header[12] >> 4) * 4;
        let (options, payload) = rest
            .split_at_checked(header_len.wrapping_sub(HEADER_LEN))
            .ok_or(DropReason::TcpDataOffset)?;
        Ok(Self {
            segment,
            header,
            options,
            payload,
            offset,
        })
    }

    /// Checks the checksum against a pseudo-header sum that `pseudo` makes for the given length.
    ///
    /// # Errors
    /// [`DropReason::TcpChecksum`].
    #[inline(always)]
    pub fn verify(&self, pseudo: impl FnOnce(u16) -> Sum) -> Result<Verified, DropReason> {
        // What came in an IP packet is not longer than 65,535 bytes.
        let len = u16::try_from(self.segment.len()).map_err(|_| DropReason::TcpChecksum)?;
        let pseudo = pseudo(len);
        // RFC 9293 §3.1 (MUST-3): the receiver checks it.
        if pseudo.add_bytes(self.segment).is_valid() {
            return Ok(Verified::Right);
        }
        if pseudo.incomplete() == [self.header[16], self.header[17]] {
            return Ok(Verified::Incomplete);
        }
        Err(DropReason::TcpChecksum)
    }

    /// The sender's port.
    #[inline]
    #[must_use]
    pub const fn source_port(&self) -> u16 {
        be16(self.header, 0)
    }

    /// The receiver's port.
    #[inline]
    #[must_use]
    pub const fn destination_port(&self) -> u16 {
        be16(self.header, 2)
    }

    /// Sequence number of the first byte of payload, or of SYN.
    #[inline]
    #[must_use]
    pub const fn seq(&self) -> u32 {
        be32(self.header, 4)
    }

    /// The next sequence number the sender expects; means something with ACK only.
    #[inline]
    #[must_use]
    pub const fn ack(&self) -> u32 {
        be32(self.header, 8)
    }

    /// Control bits.
    #[inline]
    #[must_use]
    pub const fn flags(&self) -> Flags {
        Flags::from_bits(be16(self.header, 12))
    }

    /// The window field: bytes, shifted right by the window scale.
    #[inline]
    #[must_use]
    pub const fn window(&self) -> u16 {
        be16(self.header, 14)
    }

    /// Urgent pointer; means something with URG only.
    #[inline]
    #[must_use]
    pub const fn urgent(&self) -> u16 {
        be16(self.header, 18)
    }

    /// All of the above.
    #[must_use]
    pub const fn header(&self) -> Header {
        Header {
            source_port: self.source_port(),
            destination_port: self.destination_port(),
            seq: self.seq(),
            ack: self.ack(),
            flags: self.flags(),
            window: self.window(),
            urgent: self.urgent(),
        }
    }

    /// The bytes of the options: 0 to 40, padding included.
    #[inline]
    #[must_use]
    pub const fn options(&self) -> &'a [u8] {
        self.options
    }

    /// The bytes behind header and options.
    #[inline]
    #[must_use]
    pub const fn payload_bytes(&self) -> &'a [u8] {
        self.payload
    }

    /// Where the payload lies in what was given to [`new_checked`](Self::new_checked).
    #[inline]
    #[must_use]
    pub const fn payload(&self) -> Range<usize> {
        let end = self.offset + self.segment.len();
        end - self.payload.len()..end
    }
}

/// A big-endian `u32` at `offset` of a header whose length was checked at compile time.
#[inline]
const fn be32<const N: usize>(bytes: &[u8; N], offset: usize) -> u32 {
    u32::from_be_bytes(super::array_at(bytes, offset))
}

/// The part of a header quoted in an ICMP error that says whose it is: every error quotes at least
/// 8 bytes (RFC 792), so flags and acknowledgment may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Embedded {
    /// Our port: it was our segment.
    pub source_port: u16,
    /// The peer's port.
    pub destination_port: u16,
    /// Sequence number of the segment the error is about (RFC 5927 §4.1 checks it).
    pub seq: u32,
}

/// Reads what an ICMP error quotes of a segment, at `offset` of `data`.
#[must_use]
pub fn embedded(data: &[u8], offset: usize) -> Option<Embedded> {
    let header: &[u8; 8] = super::chunk_at(data, offset)?;
    Some(Embedded {
        source_port: be16(header, 0),
        destination_port: be16(header, 2),
        seq: be32(header, 4),
    })
}

/// Writes header, options and checksum at `offset` of `data`. `sum`: of pseudo-header and payload.
/// `options` as for [`emit`]. `None` if there is no room.
#[inline(always)]
#[must_use]
pub(crate) fn emit_with_sum(
    data: &mut [u8],
    offset: usize,
    header: &Header,
    options: &[u8],
    sum: Sum,
) -> Option<()> {
    let bytes = data.get_mut(offset..)?;
    let (field, rest) = bytes.split_first_chunk_mut::<HEADER_LEN>()?;
    let options_field = rest.get_mut(..options.len())?;
    let mut header = header.bytes(options.len());
    let sum = sum.add_bytes(&header).add_bytes(options);
    put(&mut header, 16, sum.checksum());
    *field = header;
    options_field.copy_from_slice(options);
    Some(())
}

/// Writes header, options and checksum at `offset` of `data`, in front of `payload_len` bytes that
/// are there already, behind the room for the options. `options` are at most 40 bytes, a multiple
/// of 4; `pseudo` makes the pseudo-header sum for a length. Returns the length of the whole
/// segment; `None` if it does not fit or the options have no such length.
#[inline(always)]
#[must_use]
pub fn emit(
    data: &mut [u8],
    offset: usize,
    header: &Header,
    options: &[u8],
    payload_len: usize,
    pseudo: impl FnOnce(u16) -> Sum,
) -> Option<usize> {
    if options.len() > OPTIONS_LEN_MAX || !options.len().is_multiple_of(4) {
        return None;
    }
    let header_len = HEADER_LEN + options.len();
    let len = header_len + payload_len;
    let pseudo = pseudo(u16::try_from(len).ok()?);
    let bytes = data.get_mut(offset..)?.get_mut(..len)?;
    let (field, rest) = bytes.split_first_chunk_mut::<HEADER_LEN>()?;
    let (options_field, payload) = rest.split_at_mut_checked(options.len())?;
    let mut header = header.bytes(options.len());
    // RFC 9293 §3.1 (MUST-2): the sender makes it.
    let sum = pseudo.add_bytes(&header).add_bytes(options);
    put(&mut header, 16, sum.add_bytes(payload).checksum());
    *field = header;
    options_field.copy_from_slice(options);
    Some(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;
    use core::net::Ipv4Addr;
    use proptest::prelude::*;

    fn pseudo(len: u16) -> Sum {
        Sum::pseudo_v4(
            Ipv4Addr::new(192, 0, 2, 1),
            Ipv4Addr::new(192, 0, 2, 2),
            6,
            len,
        )
    }

    const HEADER: Header = Header {
        source_port: 0x1234,
        destination_port: 7,
        seq: 0x0102_0304,
        ack: 0xf1f2_f3f4,
        flags: Flags(0x118),
        window: 0xabcd,
        urgent: 0x5678,
    };

    /// `payload` behind `options`, two bytes from the start.
    fn segment(header: &Header, options: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut data = vec![0xee; 2 + HEADER_LEN + options.len()];
        data.extend_from_slice(payload);
        let len = emit(&mut data, 2, header, options, payload.len(), pseudo);
        assert_eq!(len, Some(data.len() - 2));
        data
    }

    fn verify(data: &[u8]) -> Result<Verified, DropReason> {
        Packet::new_checked(data, 2..data.len())?.verify(pseudo)
    }

    #[test]
    fn fields_have_the_places_of_the_rfc() {
        let data = segment(&HEADER, &[1, 1, 1, 0], b"hello");
        let expected = [
            0x12, 0x34, 0, 7, 1, 2, 3, 4, 0xf1, 0xf2, 0xf3, 0xf4, 0x61, 0x18, 0xab, 0xcd,
        ];
        assert_eq!(data[2..18], expected);
        assert_eq!(data[20..26], [0x56, 0x78, 1, 1, 1, 0]);
        assert_eq!(data[26..], *b"hello");
    }

    #[test]
    fn another_reader_agrees() {
        let mut data = segment(&HEADER, &[2, 4, 5, 0xb4], b"payload");
        let other = etherparse::TcpSlice::from_slice(&data[2..]).unwrap();
        let header = other.to_header();
        assert_eq!(
            (header.source_port, header.destination_port),
            (HEADER.source_port, HEADER.destination_port)
        );
        assert_eq!(
            (header.sequence_number, header.acknowledgment_number),
            (HEADER.seq, HEADER.ack)
        );
        assert_eq!(
            (header.window_size, header.urgent_pointer),
            (HEADER.window, HEADER.urgent)
        );
        assert!(header.psh && header.ack && header.ns && !header.syn && !header.urg);
        assert_eq!(other.payload(), b"payload");
        let checksum = other
            .calc_checksum_ipv4([192, 0, 2, 1], [192, 0, 2, 2])
            .unwrap();
        assert_eq!(data[18..20], checksum.to_be_bytes());
        data[18] ^= 1;
        assert_eq!(verify(&data), Err(DropReason::TcpChecksum));
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let good = segment(&HEADER, &[1, 1, 1, 0], b"hello");
        for byte in 2..good.len() {
            for bit in 0..8 {
                let mut data = good.clone();
                data[byte] ^= 1 << bit;
                assert!(verify(&data).is_err(), "byte {byte} bit {bit}");
            }
        }
    }

    #[test]
    fn an_incomplete_checksum_is_told_apart() {
        let mut data = segment(&HEADER, &[], b"hello");
        assert_eq!(verify(&data), Ok(Verified::Right));
        data[18..20].copy_from_slice(&pseudo(25).incomplete());
        assert_eq!(verify(&data), Ok(Verified::Incomplete));
        data[18..20].copy_from_slice(&pseudo(24).incomplete());
        assert_eq!(verify(&data), Err(DropReason::TcpChecksum));
    }

    #[test]
    fn lying_lengths_have_their_reasons() {
        let good = segment(&HEADER, &[], b"hello");
        let reason = |words: u8, range: Range<usize>| {
            let mut data = good.clone();
            data[14] = words << 4;
            Packet::new_checked(&data, range)
                .map(|packet| packet.payload())
                .map_err(|reason| (words, reason))
        };
        for words in 0..5 {
            assert_eq!(
                reason(words, 2..27),
                Err((words, DropReason::TcpDataOffset))
            );
        }
        assert_eq!(reason(5, 2..27), Ok(22..27));
        assert_eq!(reason(6, 2..27), Ok(26..27));
        assert_eq!(reason(6, 2..26), Ok(26..26));
        assert_eq!(reason(7, 2..27), Err((7, DropReason::TcpDataOffset)));
        assert_eq!(reason(5, 2..22), Ok(22..22));
        assert_eq!(reason(5, 2..21), Err((5, DropReason::TcpTruncated)));
        assert_eq!(reason(5, 2..28), Err((5, DropReason::TcpTruncated)));
        assert_eq!(reason(5, 28..28), Err((5, DropReason::TcpTruncated)));
    }

    #[test]
    fn reserved_bits_are_ignored() {
        let mut data = segment(&HEADER, &[], b"");
        data[14] |= 0x0e;
        let packet = Packet::new_checked(&data, 2..data.len()).unwrap();
        assert_eq!(packet.flags(), Flags::PSH | Flags::ACK | Flags::AE);
    }

    #[test]
    fn what_does_not_fit_is_not_written() {
        let mut data = [0xee; 24];
        let mut try_emit = |offset, options: &[u8], payload_len| {
            emit(&mut data, offset, &HEADER, options, payload_len, pseudo)
        };
        assert_eq!(try_emit(5, &[], 0), None);
        assert_eq!(try_emit(25, &[], 0), None);
        assert_eq!(try_emit(0, &[1; 4], 1), None);
        assert_eq!(try_emit(0, &[1; 3], 0), None);
        assert_eq!(try_emit(0, &[1; 44], 0), None);
        assert_eq!(try_emit(0, &[], 65_536), None);
        assert_eq!(data, [0xee; 24]);
    }

    #[test]
    fn flags_print_their_names() {
        assert_eq!(alloc::format!("{:?}", Flags::SYN | Flags::ACK), "SYN|ACK");
        assert_eq!(alloc::format!("{:?}", Flags::NONE), "-");
    }

    #[test]
    fn an_icmp_error_need_not_quote_more_than_eight_bytes() {
        let data = segment(&HEADER, &[], b"");
        let quoted = embedded(&data[..10], 2).unwrap();
        assert_eq!((quoted.source_port, quoted.destination_port), (0x1234, 7));
        assert_eq!(quoted.seq, HEADER.seq);
        assert_eq!(embedded(&data[..9], 2), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            ports: [u16; 2], seq: u32, ack: u32, bits in 0u16..0x200, window: u16, urgent: u16,
            words in 0usize..=10, fill: u8, payload in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let [source_port, destination_port] = ports;
            let flags = Flags::from_bits(bits);
            let header = Header { source_port, destination_port, seq, ack, flags, window, urgent };
            let options = vec![fill; words * 4];
            let data = segment(&header, &options, &payload);
            let packet = Packet::new_checked(&data, 2..data.len()).unwrap();
            prop_assert_eq!(packet.header(), header);
            prop_assert_eq!(packet.options(), &options);
            prop_assert_eq!(packet.payload_bytes(), &payload);
            prop_assert_eq!(&data[packet.payload()], &payload);
            prop_assert_eq!(packet.verify(pseudo), Ok(Verified::Right));
        }

        #[test]
        fn no_bytes_panic(data: Vec<u8>, start in 0usize..80, len in 0usize..80, words in 5u8..8) {
            let mut data = data;
            if let Some(byte) = data.get_mut(start + 12) {
                *byte = words << 4 | *byte & 0xf;
            }
            if let Ok(packet) = Packet::new_checked(&data, start..start + len) {
                prop_assert_eq!(packet.payload().end, start + len);
                prop_assert_eq!(
                    HEADER_LEN + packet.options().len() + packet.payload_bytes().len(), len
                );
                let _ = packet.verify(pseudo);
            }
            let _ = embedded(&data, start);
        }
    }
}
