//! A slow, lenient reader of packets that shares no code with the stack.

use super::packets::{Ends, FRAGMENT, ICMPV4, ICMPV6};
use std::ops::Range;

/// Where in its datagram a piece belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub offset: usize,
    pub more: bool,
    pub number: u32,
}

impl Piece {
    /// RFC 6946: a "fragment" that is the whole datagram.
    pub fn is_whole(self) -> bool {
        self.offset == 0 && !self.more
    }
}

/// What a reader sees who believes every length as far as there are bytes.
#[derive(Clone, Debug)]
pub struct View {
    /// VLAN identifiers other than 0, outermost first.
    pub vlans: Vec<u16>,
    pub ends: Ends,
    /// Where the IP header starts.
    pub at: usize,
    /// Behind all extension headers.
    pub protocol: u8,
    /// What lies behind them.
    pub transport: Range<usize>,
    pub piece: Option<Piece>,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// Length of the packet as its header says, in bytes.
    pub len: usize,
}

impl View {
    /// Of a frame.
    pub fn of(frame: &[u8]) -> Option<Self> {
        let (at, ether_type, vlans) = payload_of(frame)?;
        let view = Self::of_packet(frame, at)?;
        let version = if ether_type == 0x0800 { 4 } else { 6 };
        let right = matches!(ether_type, 0x0800 | 0x86dd) && frame[at] >> 4 == version;
        right.then_some(Self { vlans, ..view })
    }

    /// Of the IP packet that starts at `at`.
    pub fn of_packet(bytes: &[u8], at: usize) -> Option<Self> {
        match bytes.get(at)? >> 4 {
            4 => Self::of_v4(bytes, at),
            6 => Self::of_v6(bytes, at),
            _ => None,
        }
    }

    fn of_v4(bytes: &[u8], at: usize) -> Option<Self> {
        let header: [u8; 20] = bytes.get(at..at + 20)?.try_into().ok()?;
        let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let start = at + usize::from(header[0] & 15) * 4;
        let flags = u16::from_be_bytes([header[6], header[7]]);
        let piece = Piece {
            offset: usize::from(flags & 0x1fff) * 8,
            more: flags & 0x2000 != 0,
            number: u16::from_be_bytes([header[4], header[5]]).into(),
        };
        let address = |at: usize| <[u8; 4]>::try_from(&header[at..at + 4]).expect("four bytes");
        Some(Self {
            vlans: Vec::new(),
            ends: Ends::new(address(12), address(16)),
            at,
            protocol: header[9],
            transport: start.min(bytes.len())
                ..(at + len).clamp(start.min(bytes.len()), bytes.len()),
            piece: (!piece.is_whole()).then_some(piece),
            ttl: header[8],
            len,
        })
    }

    fn of_v6(bytes: &[u8], at: usize) -> Option<Self> {
        let header: [u8; 40] = bytes.get(at..at + 40)?.try_into().ok()?;
        let len = 40 + usize::from(u16::from_be_bytes([header[4], header[5]]));
        let end = (at + len).min(bytes.len());
        let (mut protocol, mut start) = (header[6], at + 40);
        let mut piece = None;
        // RFC 8883 §3.1: nobody has to read further than so many extension headers.
        for _ in 0..8 {
            let (0 | 43 | 44 | 51 | 60, Some(first)) = (protocol, bytes.get(start..start + 8))
            else {
                break;
            };
            // RFC 8200 §4.1: hop-by-hop options that are not first are an unknown header, and a
            // datagram is cut up once.
            let again = protocol == FRAGMENT && piece.is_some();
            if again || (protocol == 0 && start != at + 40) {
                break;
            }
            let units = usize::from(first[1]);
            let extension = match protocol {
                44 => 8,
                51 => (units + 2) * 4,
                _ => (units + 1) * 8,
            };
            if start + extension > end {
                break;
            }
            if protocol == FRAGMENT {
                let word = u16::from_be_bytes([first[2], first[3]]);
                piece = Some(Piece {
                    offset: usize::from(word & 0xfff8),
                    more: word & 1 != 0,
                    number: u32::from_be_bytes([first[4], first[5], first[6], first[7]]),
                });
            }
            protocol = first[0];
            start += extension;
            // What follows is read when the pieces are together.
            if piece.is_some_and(|piece| !piece.is_whole()) {
                break;
            }
        }
        let address = |at: usize| <[u8; 16]>::try_from(&header[at..at + 16]).expect("16 bytes");
        Some(Self {
            vlans: Vec::new(),
            ends: Ends::new(address(8), address(24)),
            at,
            protocol,
            transport: start.min(end)..end,
            piece,
            ttl: header[7],
            len,
        })
    }

    /// Whether it is an ICMP error, which nobody may answer with another (RFC 1122 §3.2.2,
    /// RFC 4443 §2.4 (e.1)).
    pub fn is_icmp_error(&self, bytes: &[u8]) -> bool {
        let first_piece = self.piece.is_none_or(|piece| piece.offset == 0);
        let Some(&kind) = bytes.get(self.transport.start).filter(|_| first_piece) else {
            return false;
        };
        match (self.ends.is_v4(), self.protocol) {
            (true, ICMPV4) => matches!(kind, 3 | 4 | 5 | 11 | 12),
            (false, ICMPV6) => kind < 128,
            _ => false,
        }
    }
}

/// Where a frame's payload starts, its EtherType behind at most two tags, and its VLANs.
pub fn payload_of(frame: &[u8]) -> Option<(usize, u16, Vec<u16>)> {
    let word = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
    let (mut at, mut vlans) = (12, Vec::new());
    while let (0x8100 | 0x88a8, true) = (word(at)?, at < 20) {
        vlans.push(word(at + 2)? & 0xfff);
        at += 4;
    }
    vlans.retain(|id| *id != 0);
    Some((at + 2, word(at)?, vlans))
}
