//! ARP for IPv4 over Ethernet (RFC 826).

use super::{array_at, be16, chunk_at, put};
use crate::counters::DropReason;
use crate::link::MacAddr;
use core::net::Ipv4Addr;

/// Length of an IPv4-over-Ethernet packet, in bytes.
pub const LEN: usize = 28;

/// Hardware type Ethernet, protocol type IPv4, their address lengths.
const PREAMBLE: [u8; 6] = [0, 1, 0x08, 0, 6, 4];

/// What the packet wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Who has the target address?
    Request,
    /// The sender has the sender address.
    Reply,
}

/// The meaning of an ARP packet.
///
/// ```text
///  0       2        4    5    6         8            14          18            24          28
/// ├─ htype ┼─ ptype ┼hlen┼plen┼─ oper ──┼─ sender MAC ┼ sender IP ┼─ target MAC ┼ target IP ┤
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// Request or reply.
    pub operation: Operation,
    /// The sender's Ethernet address.
    pub sender_mac: MacAddr,
    /// The sender's IPv4 address; unspecified in a probe (RFC 5227 §1.1).
    pub sender: Ipv4Addr,
    /// The target's Ethernet address; ignored in requests.
    pub target_mac: MacAddr,
    /// The target's IPv4 address.
    pub target: Ipv4Addr,
}

impl Repr {
    /// Reads the packet that starts at `offset` of `data`.
    ///
    /// # Errors
    /// [`DropReason::ArpMalformed`] if it is truncated, not IPv4 over Ethernet, of an unknown
    /// operation, or names a group as its sender.
    pub fn parse(data: &[u8], offset: usize) -> Result<Self, DropReason> {
        let packet: &[u8; LEN] = chunk_at(data, offset).ok_or(DropReason::ArpMalformed)?;
        let operation = match be16(packet, 6) {
            1 => Operation::Request,
            2 => Operation::Reply,
            _ => return Err(DropReason::ArpMalformed),
        };
        let sender_mac: MacAddr = array_at(packet, 8);
        if packet[..6] != PREAMBLE || super::ethernet::is_group(sender_mac) {
            return Err(DropReason::ArpMalformed);
        }
        Ok(Self {
            operation,
            sender_mac,
            sender: array_at(packet, 14).into(),
            target_mac: array_at(packet, 18),
            target: array_at(packet, 24).into(),
        })
    }

    /// Writes the packet at `offset` of `data`; `None` if it does not fit.
    #[must_use]
    pub fn emit(&self, data: &mut [u8], offset: usize) -> Option<usize> {
        let packet: &mut [u8; LEN] = super::chunk_at_mut(data, offset)?;
        put(packet, 0, PREAMBLE);
        let operation: u16 = match self.operation {
            Operation::Request => 1,
            Operation::Reply => 2,
        };
        put(packet, 6, operation.to_be_bytes());
        put(packet, 8, self.sender_mac);
        put(packet, 14, self.sender.octets());
        put(packet, 18, self.target_mac);
        put(packet, 24, self.target.octets());
        Some(LEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let repr = Repr {
            operation: Operation::Reply,
            sender_mac: [2, 0, 0, 0, 0, 1],
            sender: Ipv4Addr::new(192, 0, 2, 1),
            target_mac: [2, 0, 0, 0, 0, 2],
            target: Ipv4Addr::new(192, 0, 2, 2),
        };
        let mut data = [0; 14 + LEN];
        assert_eq!(repr.emit(&mut data, 14), Some(LEN));
        assert_eq!(Repr::parse(&data, 14), Ok(repr));
        assert_eq!(
            Repr::parse(&data[..data.len() - 1], 14),
            Err(DropReason::ArpMalformed)
        );
        for byte in 0..8 {
            let mut bad = data;
            bad[14 + byte] ^= 0x80;
            assert_eq!(
                Repr::parse(&bad, 14),
                Err(DropReason::ArpMalformed),
                "byte {byte}"
            );
        }
    }
}
