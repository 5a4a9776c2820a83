//! ICMPv6 (RFC 4443).
//!
//! ```text
//! ├─ type ─┼─ code ─┼── checksum ──┼─ rest of header: 4 bytes by type ─┼─ body …
//! ```

use super::checksum::Sum;
use super::{array_at, protocol, put};
use crate::counters::DropReason;
use core::net::Ipv6Addr;
use core::ops::Range;

/// Length of the header, in bytes.
pub const HEADER_LEN: usize = 8;

/// Message types (IANA "ICMPv6 type Numbers").
pub mod kind {
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 1;
    /// Packet too big.
    pub const PACKET_TOO_BIG: u8 = 2;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 3;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 4;
    /// Types below this are errors (RFC 4443 §2.1).
    pub const FIRST_INFORMATIONAL: u8 = 128;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 128;
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 129;
    /// Neighbour solicitation (RFC 4861 §4.3).
    pub const NEIGHBOR_SOLICITATION: u8 = 135;
    /// Neighbour advertisement (RFC 4861 §4.4).
    pub const NEIGHBOR_ADVERTISEMENT: u8 = 136;
}

/// Code of "destination unreachable": port unreachable.
pub const PORT_UNREACHABLE: u8 = 4;
/// Code of "time exceeded": reassembly took too long.
pub const REASSEMBLY_TIME_EXCEEDED: u8 = 1;

/// A message whose header is whole and whose checksum is right.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    header: &'a [u8; HEADER_LEN],
    offset: usize,
    len: usize,
}

impl<'a> Packet<'a> {
    /// Reads the message that lies in `range` of `data`, between two addresses.
    ///
    /// # Errors
    /// [`DropReason::IcmpTruncated`], [`DropReason::IcmpChecksum`].
    pub fn new_checked(
        data: &'a [u8],
        range: Range<usize>,
        source: Ipv6Addr,
        destination: Ipv6Addr,
    ) -> Result<Self, DropReason> {
        let offset = range.start;
        let bytes = data.get(range).ok_or(DropReason::IcmpTruncated)?;
        let header: &[u8; HEADER_LEN] = bytes.first_chunk().ok_or(DropReason::IcmpTruncated)?;
        let len = u16::try_from(bytes.len()).map_err(|_| DropReason::IcmpTruncated)?;
        let sum = Sum::pseudo_v6(source, destination, protocol::ICMPV6, len).add_bytes(bytes);
        if !sum.is_valid() {
            return Err(DropReason::IcmpChecksum);
        }
        Ok(Self {
            header,
            offset,
            len: bytes.len(),
        })
    }

    /// One of [`kind`].
    #[must_use]
    pub const fn kind(&self) -> u8 {
        self.header[0]
    }

    /// The code, by type.
    #[must_use]
    pub const fn code(&self) -> u8 {
        self.header[1]
    }

    /// The rest of the header, by type.
    #[must_use]
    pub const fn rest(&self) -> [u8; 4] {
        array_at(self.header, 4)
    }

    /// Where the body lies in what was given to [`new_checked`](Self::new_checked).
    #[must_use]
    pub const fn body(&self) -> Range<usize> {
        self.offset + HEADER_LEN..self.offset + self.len
    }
}

/// The bytes of a header, checksum included, in front of a body that stands elsewhere; `None` if the
/// message is longer than 65,535 bytes.
#[must_use]
pub fn header(
    (source, destination): (Ipv6Addr, Ipv6Addr),
    (kind, code): (u8, u8),
    rest: [u8; 4],
    body: &[u8],
) -> Option<[u8; HEADER_LEN]> {
    let len = u16::try_from(HEADER_LEN + body.len()).ok()?;
    let mut header = [0; HEADER_LEN];
    put(&mut header, 0, [kind, code]);
    put(&mut header, 4, rest);
    let pseudo = Sum::pseudo_v6(source, destination, protocol::ICMPV6, len);
    let checksum = pseudo.add_bytes(&header).add_bytes(body).checksum();
    put(&mut header, 2, checksum);
    Some(header)
}

/// Writes a header and the checksum over it and `body_len` bytes that are there already; `None` if
/// there is no room. Returns the length of the message.
#[must_use]
pub fn emit(
    data: &mut [u8],
    offset: usize,
    addresses: (Ipv6Addr, Ipv6Addr),
    message: (u8, u8),
    rest: [u8; 4],
    body_len: usize,
) -> Option<usize> {
    let len = HEADER_LEN + body_len;
    let bytes = data.get_mut(offset..offset + len)?;
    let (field, body) = bytes.split_first_chunk_mut::<HEADER_LEN>()?;
    *field = header(addresses, message, rest, body)?;
    Some(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_every_flipped_bit_is_seen() {
        let source: Ipv6Addr = "2001:db8::1".parse().unwrap();
        let destination: Ipv6Addr = "2001:db8::2".parse().unwrap();
        let mut data = *b"..........body.";
        let addresses = (source, destination);
        assert_eq!(
            emit(&mut data, 2, addresses, (2, 0), [0, 0, 5, 0], 5),
            Some(13)
        );
        let packet = Packet::new_checked(&data, 2..15, source, destination).unwrap();
        assert_eq!(
            (packet.kind(), packet.code(), packet.rest()),
            (2, 0, [0, 0, 5, 0])
        );
        assert_eq!(packet.body(), 10..15);
        for byte in 2..15 {
            for bit in 0..8 {
                let mut bad = data;
                bad[byte] ^= 1 << bit;
                let result = Packet::new_checked(&bad, 2..15, source, destination);
                assert_eq!(result.map(|_| ()).unwrap_err(), DropReason::IcmpChecksum);
            }
        }
        let other = Packet::new_checked(&data, 2..15, source, "2001:db8::3".parse().unwrap());
        assert!(other.is_err());
    }
}
