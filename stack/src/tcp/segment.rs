//! A segment as the connection sees it: checked, its numbers typed, its options at hand.

use crate::tcp::options::{self, OptionsOut, SackBlocks, SynOptions, Timestamps};
use crate::tcp::seq::SeqNum;
use crate::wire::checksum::Sum;
use crate::wire::tcp as wire;
pub use crate::wire::tcp::Flags;

/// The ECN field of an IP header (RFC 3168 §5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Ecn {
    /// The sender does not know of ECN.
    #[default]
    NotEct = 0b00,
    /// The sender knows of ECN, and of L4S (RFC 9331 §4.1).
    Ect1 = 0b01,
    /// The sender knows of ECN.
    Ect0 = 0b10,
    /// Congestion experienced.
    Ce = 0b11,
}

impl Ecn {
    /// Of a type of service (IPv4) or traffic class (IPv6).
    #[inline]
    #[must_use]
    pub const fn from_tos(tos: u8) -> Self {
        match tos & 0b11 {
            0b00 => Self::NotEct,
            0b01 => Self::Ect1,
            0b10 => Self::Ect0,
            _ => Self::Ce,
        }
    }

    /// Its two bits, as they stand in type of service or traffic class.
    #[inline]
    #[must_use]
    pub const fn bits(self) -> u8 {
        self as u8
    }
}

/// A segment that came in, its header and checksum being right.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// SEG.SEQ: the sequence number of SYN, or else of the first byte of payload.
    pub seq: SeqNum,
    /// SEG.ACK; means something with ACK only.
    pub ack: SeqNum,
    /// Control bits.
    pub flags: Flags,
    /// SEG.WND as the field has it, not scaled.
    pub window: u16,
    /// SEG.UP; means something with URG only.
    pub urgent: u16,
    /// The timestamps option.
    pub timestamps: Option<Timestamps>,
    /// The other options, read when somebody asks; the timestamps are among them.
    pub options: &'a [u8],
    /// The bytes of the stream.
    pub payload: &'a [u8],
    /// What the IP header said about congestion.
    pub ecn: Ecn,
}

impl<'a> Segment<'a> {
    /// Of a packet whose checksum was checked, and the ECN field of its IP header.
    #[inline]
    #[must_use]
    pub fn new(packet: &wire::Packet<'a>, ecn: Ecn) -> Self {
        let options = packet.options();
        Self {
            seq: SeqNum::new(packet.seq()),
            ack: SeqNum::new(packet.ack()),
            flags: packet.flags(),
            window: packet.window(),
            urgent: packet.urgent(),
            timestamps: options::timestamps(options),
            options,
            payload: packet.payload_bytes(),
            ecn,
        }
    }

    /// SEG.LEN: how many sequence numbers it occupies: payload, SYN and FIN (RFC 9293 §3.4).
    #[inline]
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "an IP packet has at most 65,535 bytes"
    )]
    #[expect(clippy::len_without_is_empty, reason = "a length in sequence space")]
    pub const fn len(&self) -> u32 {
        let flags = self.flags.bits() as u32;
        // FIN is bit 0, SYN is bit 1.
        const { assert!(Flags::FIN.bits() == 1 && Flags::SYN.bits() == 2) };
        self.payload.len() as u32 + (flags & 1) + (flags >> 1 & 1)
    }

    /// The sequence number behind it: SEG.SEQ + SEG.LEN.
    #[inline]
    #[must_use]
    pub fn end(&self) -> SeqNum {
        self.seq + self.len()
    }

    /// What its options say if it has SYN.
    #[must_use]
    pub fn syn_options(&self) -> SynOptions {
        options::syn_options(self.options)
    }

    /// Whether its options are none but, perhaps, timestamps: no SACK block, in particular.
    #[inline]
    #[must_use]
    pub fn has_plain_options(&self) -> bool {
        options::is_plain(self.options)
    }

    /// Its SACK blocks.
    #[inline]
    #[must_use]
    pub fn sack_blocks(&self) -> SackBlocks {
        options::sack_blocks(self.options)
    }
}

/// The header of a segment we send, apart from its options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Our port.
    pub source_port: u16,
    /// The peer's port.
    pub destination_port: u16,
    /// SEG.SEQ.
    pub seq: SeqNum,
    /// SEG.ACK: what we expect next; zero without ACK.
    pub ack: SeqNum,
    /// Control bits.
    pub flags: Flags,
    /// SEG.WND as the field has it: already scaled.
    pub window: u16,
    /// SEG.UP; zero without URG.
    pub urgent: u16,
}

/// Length of header and options, in bytes: where the payload has to stand, from the start of the
/// segment.
#[inline]
#[must_use]
pub const fn header_len(options: &OptionsOut) -> usize {
    wire::HEADER_LEN + options.len()
}

/// Writes header, options and checksum at `offset` of `data`, in front of `payload_len` bytes that
/// are there already, [`header_len`] bytes further. `pseudo` makes the pseudo-header sum for a
/// length. Returns the length of the whole segment, in bytes; `None` if it does not fit into `data`
/// or is longer than 65,535 bytes.
#[inline]
#[must_use]
pub fn emit(
    data: &mut [u8],
    offset: usize,
    header: &Header,
    options: &OptionsOut,
    payload_len: usize,
    pseudo: impl FnOnce(u16) -> Sum,
) -> Option<usize> {
    let Header {
        source_port,
        destination_port,
        seq,
        ack,
        flags,
        window,
        urgent,
    } = *header;
    let header = wire::Header {
        source_port,
        destination_port,
        seq: seq.get(),
        ack: ack.get(),
        flags,
        window,
        urgent,
    };
    match options.timestamps {
        // The two forms of nearly all segments have lengths that the compiler knows.
        Some(timestamps) if options.is_plain() => {
            let options = OptionsOut::timestamps_bytes(timestamps);
            wire::emit(data, offset, &header, &options, payload_len, pseudo)
        }
        None if options.is_plain() => wire::emit(data, offset, &header, &[], payload_len, pseudo),
        _ => emit_any(data, offset, &header, options, payload_len, pseudo),
    }
}

/// The same for options of every form, apart from the code that most segments run through.
#[cold]
#[inline(never)]
fn emit_any(
    data: &mut [u8],
    offset: usize,
    header: &wire::Header,
    options: &OptionsOut,
    payload_len: usize,
    pseudo: impl FnOnce(u16) -> Sum,
) -> Option<usize> {
    let (options, len) = options.bytes();
    wire::emit(
        data,
        offset,
        header,
        options.get(..len)?,
        payload_len,
        pseudo,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use core::net::Ipv6Addr;
    use proptest::prelude::*;

    fn pseudo(len: u16) -> Sum {
        Sum::pseudo_v6(Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED, 6, len)
    }

    fn header(flags: Flags) -> Header {
        Header {
            source_port: 1,
            destination_port: 2,
            seq: SeqNum::new(0xffff_fff0),
            ack: SeqNum::new(77),
            flags,
            window: 500,
            urgent: 3,
        }
    }

    #[test]
    fn syn_and_fin_have_sequence_numbers() {
        let len = |flags| {
            let mut data = [0; 20 + 32];
            let written = emit(&mut data, 0, &header(flags), &OptionsOut::NONE, 32, pseudo);
            assert_eq!(written, Some(52));
            let packet = wire::Packet::new_checked(&data, 0..52).unwrap();
            let segment = Segment::new(&packet, Ecn::NotEct);
            (segment.len(), segment.end().get())
        };
        // The other bits have none, whichever are set.
        let others = Flags::from_bits(!0).without(Flags::SYN | Flags::FIN);
        for others in [Flags::NONE, others] {
            assert_eq!(len(others), (32, 16));
            assert_eq!(len(others | Flags::SYN), (33, 17));
            assert_eq!(len(others | Flags::FIN), (33, 17));
            assert_eq!(len(others | Flags::SYN | Flags::FIN), (34, 18));
        }
    }

    #[test]
    fn ecn_is_the_lowest_two_bits() {
        for tos in 0..=255 {
            assert_eq!(Ecn::from_tos(tos).bits(), tos & 3);
        }
        // RFC 3168 §5: ECT(0) is 10, ECT(1) is 01.
        assert_eq!((Ecn::Ect0.bits(), Ecn::Ect1.bits()), (0b10, 0b01));
    }

    proptest! {
        /// All three forms of options.
        #[test]
        fn what_is_sent_comes_in(
            bits in 0u16..0x200, mss: Option<u16>, times: Option<(u32, u32)>, block: Option<u32>,
            payload in proptest::collection::vec(any::<u8>(), 0..100), offset in 0usize..4,
        ) {
            let mut sack = SackBlocks::EMPTY;
            if let Some(left) = block {
                sack.push(SeqNum::new(left), SeqNum::new(left) + 9);
            }
            let timestamps = times.map(|(value, echo)| Timestamps { value, echo });
            let options = OptionsOut { mss, timestamps, sack, ..OptionsOut::NONE };
            let at = offset + header_len(&options);
            let mut data = vec![0xee; at + payload.len()];
            data[at..].copy_from_slice(&payload);
            let header = header(Flags::from_bits(bits));
            let len = emit(&mut data, offset, &header, &options, payload.len(), pseudo);
            prop_assert_eq!(len, Some(data.len() - offset));
            let packet = wire::Packet::new_checked(&data, offset..data.len()).unwrap();
            prop_assert_eq!(packet.verify(pseudo), Ok(wire::Verified::Right));
            let segment = Segment::new(&packet, Ecn::Ce);
            prop_assert_eq!((segment.seq, segment.ack), (header.seq, header.ack));
            prop_assert_eq!((segment.flags, segment.window), (header.flags, header.window));
            prop_assert_eq!((segment.urgent, segment.ecn), (header.urgent, Ecn::Ce));
            prop_assert_eq!(segment.payload, &payload);
            prop_assert_eq!(segment.timestamps, timestamps);
            prop_assert_eq!(segment.sack_blocks(), sack);
            prop_assert_eq!(segment.syn_options().mss, mss);
            prop_assert_eq!(segment.has_plain_options(), mss.is_none() && sack.is_empty());
        }
    }
}
