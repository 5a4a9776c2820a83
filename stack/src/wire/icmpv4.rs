//! ICMP for IPv4 (RFC 792, RFC 1122 §3.2.2).
//!
//! ```text
//! ├─ type ─┼─ code ─┼── checksum ──┼─ rest of header: 4 bytes by type ─┼─ body …
//! ```

use super::checksum::Sum;
use super::{array_at, be16, put};
use crate::counters::DropReason;
use core::ops::Range;

/// Length of the header, in bytes.
pub const HEADER_LEN: usize = 8;

/// Message types (IANA "ICMP Type Numbers").
pub mod kind {
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 3;
    /// Source quench: deprecated, discarded (RFC 6633).
    pub const SOURCE_QUENCH: u8 = 4;
    /// Redirect.
    pub const REDIRECT: u8 = 5;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 8;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 12;
}

/// Codes of "destination unreachable".
pub mod unreachable {
    /// Network unreachable.
    pub const NET: u8 = 0;
    /// Host unreachable.
    pub const HOST: u8 = 1;
    /// Protocol unreachable.
    pub const PROTOCOL: u8 = 2;
    /// Port unreachable.
    pub const PORT: u8 = 3;
    /// Fragmentation needed and DF set.
    pub const FRAGMENTATION_NEEDED: u8 = 4;
}

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
    /// Reads the message that lies in `range` of `data`.
    ///
    /// # Errors
    /// [`DropReason::IcmpTruncated`], [`DropReason::IcmpChecksum`].
    pub fn new_checked(data: &'a [u8], range: Range<usize>) -> Result<Self, DropReason> {
        let offset = range.start;
        let bytes = data.get(range).ok_or(DropReason::IcmpTruncated)?;
        let header: &[u8; HEADER_LEN] = bytes.first_chunk().ok_or(DropReason::IcmpTruncated)?;
        if !Sum::ZERO.add_bytes(bytes).is_valid() {
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

    /// The next hop's MTU of a "fragmentation needed", in bytes; 0 from routers older than
    /// RFC 1191.
    #[must_use]
    pub const fn next_hop_mtu(&self) -> u16 {
        be16(self.header, 6)
    }

    /// Where the body lies in what was given to [`new_checked`](Self::new_checked).
    #[must_use]
    pub const fn body(&self) -> Range<usize> {
        self.offset + HEADER_LEN..self.offset + self.len
    }
}

/// The bytes of a header, checksum included, in front of a body that stands elsewhere.
#[must_use]
pub fn header(kind: u8, code: u8, rest: [u8; 4], body: &[u8]) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    put(&mut header, 0, [kind, code]);
    put(&mut header, 4, rest);
    let checksum = Sum::ZERO.add_bytes(&header).add_bytes(body).checksum();
    put(&mut header, 2, checksum);
    header
}

/// Writes a header and the checksum over it and `body_len` bytes that are there already; `None` if
/// there is no room. Returns the length of the message.
#[must_use]
pub fn emit(
    data: &mut [u8],
    offset: usize,
    kind: u8,
    code: u8,
    rest: [u8; 4],
    body_len: usize,
) -> Option<usize> {
    let len = HEADER_LEN + body_len;
    let bytes = data.get_mut(offset..offset + len)?;
    let (field, body) = bytes.split_first_chunk_mut::<HEADER_LEN>()?;
    *field = header(kind, code, rest, body);
    Some(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_every_flipped_bit_is_seen() {
        let mut data = *b"..........body.";
        assert_eq!(
            emit(&mut data, 2, kind::UNREACHABLE, 4, [0, 0, 5, 0xdc], 5),
            Some(13)
        );
        let packet = Packet::new_checked(&data, 2..15).unwrap();
        assert_eq!(
            (packet.kind(), packet.code(), packet.next_hop_mtu()),
            (3, 4, 1500)
        );
        assert_eq!(packet.body(), 10..15);
        for byte in 2..15 {
            for bit in 0..8 {
                let mut bad = data;
                bad[byte] ^= 1 << bit;
                let reason = Packet::new_checked(&bad, 2..15).map(|_| ()).unwrap_err();
                assert_eq!(reason, DropReason::IcmpChecksum);
            }
        }
        let short = Packet::new_checked(&data, 2..9).map(|_| ()).unwrap_err();
        assert_eq!(short, DropReason::IcmpTruncated);
    }
}
