//! UDP (RFC 768).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! ├────────── source port ──────────┼──────── destination port ────┤
//! ├──────────── length ─────────────┼─────────── checksum ─────────┤
//! ```

use super::{be16, chunk_at, chunk_at_mut, put};
use crate::counters::DropReason;
use crate::wire::checksum::Sum;
use core::ops::Range;

/// Length of the header, in bytes.
pub const HEADER_LEN: usize = 8;
const HEADER_LEN16: u16 = 8;
const _: () = assert!(HEADER_LEN16 as usize == HEADER_LEN);

/// A datagram whose header is whole and whose length fits; its checksum is a matter of policy, see
/// [`Packet::verify`].
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    header: &'a [u8; HEADER_LEN],
    payload: &'a [u8],
    offset: usize,
}

/// What became of a checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verified {
    /// It is right.
    Right,
    /// There is none (IPv4 only).
    Absent,
    /// It covers the pseudo-header alone: the sender's NIC was to finish it, but there was none.
    Incomplete,
}

impl<'a> Packet<'a> {
    /// Reads the datagram that lies in `range` of `data`.
    ///
    /// # Errors
    /// [`DropReason::UdpTruncated`], [`DropReason::UdpLength`].
    #[inline]
    pub fn new_checked(data: &'a [u8], range: Range<usize>) -> Result<Self, DropReason> {
        let offset = range.start;
        let header: &[u8; HEADER_LEN] = chunk_at(data, offset).ok_or(DropReason::UdpTruncated)?;
        let len = usize::from(be16(header, 4));
        // RFC 768 lets a datagram be shorter than its IP payload; the rest is not ours to read.
        let end = offset + len;
        if range.end <= data.len()
            && end <= range.end
            && let Some(payload) = data.get(offset + HEADER_LEN..end)
        {
            return Ok(Self {
                header,
                payload,
                offset,
            });
        }
        if range.len() < HEADER_LEN || data.len() < range.end {
            Err(DropReason::UdpTruncated)
        } else {
            Err(DropReason::UdpLength)
        }
    }

    /// Checks the checksum against a pseudo-header sum that `pseudo` makes for the given length.
    ///
    /// # Errors
    /// [`DropReason::UdpChecksum`].
    #[inline(always)]
    pub fn verify(&self, pseudo: impl FnOnce(u16) -> Sum) -> Result<Verified, DropReason> {
        if self.header[6] == 0 && self.header[7] == 0 {
            return Ok(Verified::Absent);
        }
        let pseudo = pseudo(be16(self.header, 4));
        let header = pseudo.add_chunk::<HEADER_LEN, 1>(self.header);
        if header.add_bytes(self.payload).is_valid() {
            return Ok(Verified::Right);
        }
        if pseudo.incomplete() == [self.header[6], self.header[7]] {
            return Ok(Verified::Incomplete);
        }
        Err(DropReason::UdpChecksum)
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

    /// Length of the payload, in bytes.
    #[inline]
    #[must_use]
    pub const fn payload_len(&self) -> usize {
        self.payload.len()
    }

    /// Where the payload lies in what was given to [`new_checked`](Self::new_checked).
    #[inline]
    #[must_use]
    pub const fn payload(&self) -> Range<usize> {
        self.offset + HEADER_LEN..self.offset + HEADER_LEN + self.payload.len()
    }
}

/// The two ports of a datagram cut short inside an ICMP error: (source, destination).
#[must_use]
pub fn embedded_ports(data: &[u8], offset: usize) -> Option<(u16, u16)> {
    let ports: &[u8; 4] = chunk_at(data, offset)?;
    Some((be16(ports, 0), be16(ports, 2)))
}

/// Swaps the ports of the header at `offset`; `None` if it is not there.
///
/// The checksum stands, if source and destination address change places too: the same words are
/// summed, in another order (RFC 1071 §2 (A): the sum is commutative).
#[inline]
#[must_use]
pub fn turn_round(data: &mut [u8], offset: usize) -> Option<()> {
    let ports: &mut [u8; 4] = chunk_at_mut(data, offset)?;
    let [a, b, c, d] = *ports;
    *ports = [c, d, a, b];
    Some(())
}

/// The same for a payload that has changed: it is `payload_len` bytes long now, at most 65,527, and
/// `pseudo` is the sum of the pseudo-header that says so.
#[inline(always)]
#[must_use]
pub fn turn_round_rewritten(
    data: &mut [u8],
    offset: usize,
    payload_len: u16,
    pseudo: Sum,
) -> Option<()> {
    let bytes = data.get_mut(offset..)?;
    let (header, payload) = bytes.split_first_chunk_mut::<HEADER_LEN>()?;
    let payload = payload.get(..usize::from(payload_len))?;
    let [a, b, c, d, ..] = *header;
    put(header, 0, [c, d, a, b]);
    put(
        header,
        4,
        payload_len.wrapping_add(HEADER_LEN16).to_be_bytes(),
    );
    put(header, 6, [0, 0]);
    let sum = pseudo.add_chunk::<HEADER_LEN, 1>(header);
    put(header, 6, sum.add_bytes(payload).checksum_udp());
    Some(())
}

/// The bytes of a header, checksum included, in front of a payload that stands elsewhere. `len` is
/// that of header and payload, in bytes, and `pseudo` the pseudo-header's sum for it.
#[inline]
#[must_use]
pub fn header(
    source_port: u16,
    destination_port: u16,
    len: u16,
    pseudo: Sum,
    payload: &[u8],
) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    put(&mut header, 0, source_port.to_be_bytes());
    put(&mut header, 2, destination_port.to_be_bytes());
    put(&mut header, 4, len.to_be_bytes());
    let sum = pseudo
        .add_be16(source_port)
        .add_be16(destination_port)
        .add_be16(len);
    put(&mut header, 6, sum.add_bytes(payload).checksum_udp());
    header
}

/// Writes header and checksum at `offset` of `data`, in front of `payload_len` bytes that are there
/// already. `pseudo` makes the pseudo-header sum for a length; `None` if the datagram does not fit.
#[inline]
#[must_use]
pub fn emit(
    data: &mut [u8],
    offset: usize,
    source_port: u16,
    destination_port: u16,
    payload_len: usize,
    pseudo: impl FnOnce(u16) -> Sum,
) -> Option<usize> {
    let len = HEADER_LEN + payload_len;
    let len16 = u16::try_from(len).ok()?;
    let bytes = data.get_mut(offset..offset + len)?;
    let (field, payload) = bytes.split_first_chunk_mut::<HEADER_LEN>()?;
    *field = header(source_port, destination_port, len16, pseudo(len16), payload);
    Some(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;

    fn pseudo(len: u16) -> Sum {
        Sum::pseudo_v4(
            Ipv4Addr::new(192, 0, 2, 1),
            Ipv4Addr::new(192, 0, 2, 2),
            17,
            len,
        )
    }

    fn datagram() -> [u8; 2 + 8 + 5 + 3] {
        let mut data = *b"..........hello...";
        assert_eq!(emit(&mut data, 2, 1000, 7, 5, pseudo), Some(13));
        data
    }

    #[test]
    fn what_is_written_is_read() {
        let data = datagram();
        let packet = Packet::new_checked(&data, 2..data.len()).unwrap();
        assert_eq!((packet.source_port(), packet.destination_port()), (1000, 7));
        assert_eq!(&data[packet.payload()], b"hello");
        assert_eq!(packet.verify(pseudo), Ok(Verified::Right));
        assert_eq!(embedded_ports(&data, 2), Some((1000, 7)));
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let good = datagram();
        for byte in 2..15 {
            for bit in 0..8 {
                let mut data = good;
                data[byte] ^= 1 << bit;
                let result = Packet::new_checked(&data, 2..data.len())
                    .and_then(|packet| packet.verify(pseudo));
                assert!(result.is_err(), "byte {byte} bit {bit}: {result:?}");
            }
        }
    }

    #[test]
    fn incomplete_and_absent_checksums_are_told_apart() {
        let mut data = datagram();
        data[8..10].copy_from_slice(&pseudo(13).incomplete());
        let verify = |data: &[u8]| {
            Packet::new_checked(data, 2..data.len()).and_then(|packet| packet.verify(pseudo))
        };
        assert_eq!(verify(&data), Ok(Verified::Incomplete));
        data[8..10].fill(0);
        assert_eq!(verify(&data), Ok(Verified::Absent));
    }

    #[test]
    fn lying_lengths_have_their_reasons() {
        let good = datagram();
        let reason = |len: u8, range: Range<usize>| {
            let mut data = good;
            data[7] = len;
            Packet::new_checked(&data, range).map(|_| ()).unwrap_err()
        };
        assert_eq!(reason(7, 2..18), DropReason::UdpLength);
        assert_eq!(reason(17, 2..18), DropReason::UdpLength);
        assert_eq!(reason(13, 2..9), DropReason::UdpTruncated);
        assert_eq!(reason(13, 2..99), DropReason::UdpTruncated);
    }

    #[test]
    fn a_zero_checksum_is_sent_as_ones() {
        // RFC 768: search a payload whose checksum would be zero.
        let found = (0..=u16::MAX).any(|word| {
            let mut data = [0; 10];
            data[8..].copy_from_slice(&word.to_be_bytes());
            assert!(emit(&mut data, 0, 1, 2, 2, pseudo).is_some());
            assert_ne!(data[6..8], [0, 0]);
            data[6..8] == [0xff, 0xff]
        });
        assert!(found);
    }
}
