//! The far ends of connections: what each knows of the stack, and the segments it makes.

use stack::sim::packet::{self, flag};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub const OUR_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
pub const PEER_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub const OUR_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);
pub const PEER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

const TCP: u8 = 6;
/// Longest frame a peer makes.
pub const FRAME_MAX: usize = 1514;

/// One far end. It keeps to no rule by itself: whatever it sends is decided for it.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    pub v6: bool,
    /// Its port.
    pub port: u16,
    /// The stack's.
    pub local_port: u16,
    /// SND.NXT.
    pub seq: u32,
    /// Behind the last sequence number of the stack's that it has seen.
    pub ack: u32,
    /// The last acknowledgment it has seen.
    pub una: u32,
    /// The stack's last timestamp, where there are any.
    pub echo: Option<u32>,
    /// Its own timestamp clock, in milliseconds.
    pub clock: u32,
    /// The stack has said something since it was made.
    pub heard: bool,
}

/// Bytes of a frame in a buffer of fixed size.
#[derive(Clone, Copy)]
pub struct Bytes {
    pub bytes: [u8; FRAME_MAX],
    pub len: usize,
}

impl Bytes {
    pub const EMPTY: Self = Self {
        bytes: [0; FRAME_MAX],
        len: 0,
    };

    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub fn push(&mut self, bytes: &[u8]) {
        let room = &mut self.bytes[self.len..];
        let len = bytes.len().min(room.len());
        room[..len].copy_from_slice(&bytes[..len]);
        self.len += len;
    }

    fn push_zeros(&mut self, len: usize) {
        self.len = (self.len + len).min(FRAME_MAX);
    }
}

/// What a peer sends.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    pub seq: u32,
    pub ack: u32,
    pub flags: u16,
    pub window: u16,
    pub urgent: u16,
    /// Raw options, and how many bytes of them.
    pub options: [u8; 40],
    pub options_len: usize,
    pub payload_len: usize,
    /// What is wrong with it.
    pub oddity: Oddity,
    /// Type of service: the low bits are those of ECN.
    pub tos: u8,
}

/// What can be wrong with a segment besides its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oddity {
    None,
    /// The checksum is off by this.
    Checksum(u16),
    /// The checksum covers the pseudo-header alone.
    Incomplete,
    /// The data offset says so.
    DataOffset(u8),
    /// The IP packet ends after so many bytes of the segment.
    Cut(usize),
    /// From or to port 0.
    PortZero,
}

impl Peer {
    pub fn new(index: usize, v6: bool, local_port: u16) -> Self {
        let number = u32::try_from(index).expect("few");
        Self {
            v6,
            port: 4000 + u16::try_from(index).expect("few"),
            local_port,
            // Two of them wrap soon.
            seq: 0xffff_fc00_u32.wrapping_add(number.wrapping_mul(0x3000_0100)),
            ack: 0,
            una: 0,
            echo: None,
            clock: 0xffff_ff00,
            heard: false,
        }
    }

    /// Its address and the stack's.
    pub fn addresses(&self) -> (IpAddr, IpAddr) {
        if self.v6 {
            (PEER_V6.into(), OUR_V6.into())
        } else {
            (PEER_V4.into(), OUR_V4.into())
        }
    }

    /// Looks at a segment that the stack sent to it.
    pub fn hear(&mut self, tcp: &packet::Tcp<'_>) {
        let text = u32::try_from(tcp.payload.len()).expect("an IP packet");
        let mut len = text;
        for control in [flag::SYN, flag::FIN] {
            len += u32::from(tcp.flags & control != 0);
        }
        let end = tcp.seq.wrapping_add(len);
        if !self.heard || tcp.flags & flag::SYN != 0 || end.wrapping_sub(self.ack) < 1 << 31 {
            self.ack = end;
        }
        if tcp.flags & flag::ACK != 0 {
            self.una = tcp.ack;
        }
        self.heard = true;
        if let Some(value) = timestamp(tcp.options) {
            self.echo = Some(value);
        } else if tcp.flags & flag::SYN != 0 {
            self.echo = None;
        }
    }

    /// A segment at the place where it is, with what it knows.
    pub fn segment(&self, flags: u16, payload_len: usize) -> Segment {
        let mut segment = Segment {
            seq: self.seq,
            ack: if flags & flag::ACK == 0 { 0 } else { self.ack },
            flags,
            window: 0x1000,
            urgent: 0,
            options: [0; 40],
            options_len: 0,
            payload_len,
            oddity: Oddity::None,
            tos: 0,
        };
        if flags & flag::SYN != 0 {
            segment.option(&[2, 4, 0x05, 0xb4, 4, 2]);
            segment.option(&[3, 3, 7, 1]);
        }
        if self.echo.is_some() || flags & (flag::SYN | flag::ACK) == flag::SYN {
            segment.timestamps(self.clock, self.echo.unwrap_or(0));
        }
        segment
    }

    /// What it sent counts as sent.
    pub fn advance(&mut self, segment: &Segment) {
        let mut len = u32::try_from(segment.payload_len).expect("short");
        for control in [flag::SYN, flag::FIN] {
            len += u32::from(segment.flags & control != 0);
        }
        self.seq = segment.seq.wrapping_add(len);
    }

    /// The segment in a frame.
    pub fn frame(&self, segment: &Segment) -> Bytes {
        let mut text = Bytes::EMPTY;
        let (mut from, mut to) = (self.port, self.local_port);
        if segment.oddity == Oddity::PortZero {
            *if segment.seq & 1 == 0 {
                &mut from
            } else {
                &mut to
            } = 0;
        }
        text.push(&from.to_be_bytes());
        text.push(&to.to_be_bytes());
        text.push(&segment.seq.to_be_bytes());
        text.push(&segment.ack.to_be_bytes());
        let words = 5 + segment.options_len.div_ceil(4);
        let words = match segment.oddity {
            Oddity::DataOffset(words) => usize::from(words & 15),
            _ => words,
        };
        let flags = segment.flags & 0xfff | u16::try_from(words).expect("15 at most") << 12;
        text.push(&flags.to_be_bytes());
        text.push(&segment.window.to_be_bytes());
        text.push(&[0, 0]);
        text.push(&segment.urgent.to_be_bytes());
        text.push(&segment.options[..segment.options_len.next_multiple_of(4)]);
        text.push_zeros(segment.payload_len.min(1400));
        if let Oddity::Cut(len) = segment.oddity {
            text.len = text.len.min(len);
        }
        let (source, destination) = self.addresses();
        let pseudo = packet::pseudo_header(source, destination, TCP, text.len);
        let sum = packet::checksum(&[&pseudo, text.as_slice()]);
        let sum = match segment.oddity {
            Oddity::Checksum(off) => sum ^ off,
            // What the NIC would add to: the sum itself, not its complement.
            Oddity::Incomplete => !packet::checksum(&[&pseudo]),
            _ => sum,
        };
        if text.len >= 18 {
            text.bytes[16..18].copy_from_slice(&sum.to_be_bytes());
        }
        self.packet(TCP, segment.tos, text.as_slice())
    }

    /// An ICMP error about what the stack sent: `quoted` is an IP packet of its.
    pub fn icmp(&self, (kind, code): (u8, u8), rest: u32, quoted: &[u8]) -> Bytes {
        let mut message = Bytes::EMPTY;
        message.push(&[kind, code, 0, 0]);
        message.push(&rest.to_be_bytes());
        message.push(quoted);
        let (source, destination) = self.addresses();
        let protocol = if self.v6 { 58 } else { 1 };
        let pseudo = packet::pseudo_header(source, destination, protocol, message.len);
        let covered = if self.v6 { &pseudo[..] } else { &[] };
        let sum = packet::checksum(&[covered, message.as_slice()]);
        message.bytes[2..4].copy_from_slice(&sum.to_be_bytes());
        self.packet(protocol, 0, message.as_slice())
    }

    fn packet(&self, protocol: u8, tos: u8, message: &[u8]) -> Bytes {
        let mut frame = Bytes::EMPTY;
        frame.push(&OUR_MAC);
        frame.push(&PEER_MAC);
        let len = u16::try_from(message.len()).expect("an IP packet");
        if self.v6 {
            frame.push(&[0x86, 0xdd, 0x60 | tos >> 4, tos << 4, 0, 0]);
            frame.push(&len.to_be_bytes());
            frame.push(&[protocol, 64]);
            frame.push(&PEER_V6.octets());
            frame.push(&OUR_V6.octets());
        } else {
            let mut header = [
                0x45, tos, 0, 0, 0, 1, 0x40, 0, 64, protocol, 0, 0, 0, 0, 0, 0,
            ];
            header[2..4].copy_from_slice(&(20 + len).to_be_bytes());
            header[12..16].copy_from_slice(&PEER_V4.octets());
            let ours = OUR_V4.octets();
            let sum = packet::checksum(&[&header, &ours]);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            frame.push(&[0x08, 0x00]);
            frame.push(&header);
            frame.push(&ours);
        }
        frame.push(message);
        frame
    }
}

impl Segment {
    /// Adds raw options, as far as there is room.
    pub fn option(&mut self, bytes: &[u8]) {
        if let Some(room) = self.options[self.options_len..].get_mut(..bytes.len()) {
            room.copy_from_slice(bytes);
            self.options_len += bytes.len();
        }
    }

    pub fn timestamps(&mut self, value: u32, echo: u32) {
        self.option(&[1, 1, 8, 10]);
        self.option(&value.to_be_bytes());
        self.option(&echo.to_be_bytes());
    }

    pub fn no_options(&mut self) {
        self.options = [0; 40];
        self.options_len = 0;
    }

    pub fn sack(&mut self, left: u32, right: u32) {
        self.option(&[1, 1, 5, 10]);
        self.option(&left.to_be_bytes());
        self.option(&right.to_be_bytes());
    }
}

/// The value of a timestamps option.
fn timestamp(mut options: &[u8]) -> Option<u32> {
    loop {
        options = match options {
            [1, rest @ ..] => rest,
            [8, 10, a, b, c, d, ..] => return Some(u32::from_be_bytes([*a, *b, *c, *d])),
            [0, ..] => return None,
            [_, len, ..] => options.get(usize::from(*len).max(2)..)?,
            _ => return None,
        };
    }
}
