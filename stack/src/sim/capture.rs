//! What passed which point when, as a pcapng file (draft-ietf-opsawg-pcapng): Wireshark and tshark
//! show each host's two directions as an interface, and what the link did to a frame as its comment.

use crate::time::Instant;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

/// Frames kept, in bytes: enough for the last 20,000 full-sized ones. Older ones are forgotten, so
/// that a soak test of hours does not fill the memory.
const BYTES_MAX: usize = 32 << 20;

/// Which way a frame went, seen from the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It left the host.
    Outward,
    /// It reached the host.
    Inward,
}

#[derive(Clone, Debug)]
struct Record {
    at: Instant,
    port: usize,
    direction: Direction,
    comment: String,
    frame: Vec<u8>,
}

/// The frames of all links of a network.
#[derive(Clone, Debug, Default)]
pub struct Capture {
    /// Of each port.
    names: Vec<String>,
    records: VecDeque<Record>,
    bytes: usize,
    forgotten: u64,
}

impl Capture {
    /// Names the next port.
    pub fn add_port(&mut self, name: &str) {
        self.names.push(name.into());
    }

    /// Notes a frame; `comment` may be empty.
    pub fn record(
        &mut self,
        at: Instant,
        port: usize,
        direction: Direction,
        frame: &[u8],
        comment: String,
    ) {
        self.bytes += frame.len();
        self.records.push_back(Record {
            at,
            port,
            direction,
            comment,
            frame: frame.to_vec(),
        });
        while self.bytes > BYTES_MAX
            && let Some(oldest) = self.records.pop_front()
        {
            self.bytes -= oldest.frame.len();
            self.forgotten += 1;
        }
    }

    /// Frames kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether no frame is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The file; `comment` describes all of it.
    #[must_use]
    pub fn to_pcapng(&self, comment: &str) -> Vec<u8> {
        let mut comment = String::from(comment);
        if self.forgotten > 0 {
            comment.push_str(&alloc::format!(
                "; {} earlier frames forgotten",
                self.forgotten
            ));
        }
        let mut file = Vec::with_capacity(self.bytes + self.records.len() * 64);
        // §4.1: byte-order magic, version 1.0, a section of unknown length. Little-endian on every
        // machine, so that the same seed gives the same bytes.
        let mut section = Vec::new();
        section.extend_from_slice(&0x1a2b_3c4d_u32.to_le_bytes());
        section.extend_from_slice(&1_u16.to_le_bytes());
        section.extend_from_slice(&0_u16.to_le_bytes());
        section.extend_from_slice(&u64::MAX.to_le_bytes());
        option(&mut section, COMMENT, comment.as_bytes());
        block(&mut file, 0x0a0d_0d0a, section);
        for name in &self.names {
            // §4.2: Ethernet, no limit to the length, times in units of 10⁻⁹ s.
            let mut interface = Vec::new();
            interface.extend_from_slice(&1_u16.to_le_bytes());
            interface.extend_from_slice(&[0; 6]);
            option(&mut interface, 2, name.as_bytes());
            option(&mut interface, 9, &[9]);
            block(&mut file, 1, interface);
        }
        for record in &self.records {
            // §4.3: interface, time (high, low), captured and original length, the frame.
            let nanos = record.at.as_nanos();
            let (high, low) = (nanos >> 32, nanos & 0xffff_ffff);
            let len = record.frame.len() as u64;
            let mut packet = Vec::with_capacity(record.frame.len() + 64);
            for word in [record.port as u64, high, low, len, len] {
                // Every one of them fits by construction.
                let word = u32::try_from(word).unwrap_or(u32::MAX);
                packet.extend_from_slice(&word.to_le_bytes());
            }
            packet.extend_from_slice(&record.frame);
            pad(&mut packet);
            // §4.3.1: the low two bits are the direction.
            let flags: u32 = match record.direction {
                Direction::Inward => 1,
                Direction::Outward => 2,
            };
            option(&mut packet, 2, &flags.to_le_bytes());
            if !record.comment.is_empty() {
                option(&mut packet, COMMENT, record.comment.as_bytes());
            }
            block(&mut file, 6, packet);
        }
        file
    }
}

/// `opt_comment`.
const COMMENT: u16 = 1;

/// Fills up to a multiple of 32 bits.
fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// Appends an option (§3.5).
fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    body.extend_from_slice(&code.to_le_bytes());
    let len = u16::try_from(value.len()).expect("invariant: cut above");
    body.extend_from_slice(&len.to_le_bytes());
    body.extend_from_slice(value);
    pad(body);
}

/// Appends a block (§3.1): its type, its length, its body that ends in options, its length again.
fn block(file: &mut Vec<u8>, kind: u32, mut body: Vec<u8>) {
    // §3.5: `opt_endofopt`.
    body.extend_from_slice(&[0; 4]);
    let len = u32::try_from(body.len() + 12).unwrap_or(u32::MAX);
    file.extend_from_slice(&kind.to_le_bytes());
    file.extend_from_slice(&len.to_le_bytes());
    file.extend_from_slice(&body);
    file.extend_from_slice(&len.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use pcap_parser::Block;
    use pcap_parser::pcapng::parse_block_le;
    use pcap_parser::traits::PcapNGPacketBlock as _;

    /// Somebody else's reader finds what was written.
    #[test]
    fn a_reader_of_pcapng_finds_everything() {
        let mut capture = Capture::default();
        capture.add_port("a");
        capture.add_port("b");
        let at = Instant::from_nanos(5_000_000_007);
        capture.record(at, 0, Direction::Outward, &[1, 2, 3], "lost".into());
        capture.record(at, 1, Direction::Inward, &[4; 64], String::new());
        let file = capture.to_pcapng("seed 1");
        let (mut rest, mut seen) = (&file[..], Vec::new());
        while !rest.is_empty() {
            let (after, block) = parse_block_le(rest).unwrap();
            match block {
                Block::SectionHeader(section) => {
                    assert_eq!(section.options[0].as_bytes().unwrap(), b"seed 1");
                }
                Block::InterfaceDescription(interface) => {
                    assert_eq!(interface.if_tsresol, 9);
                }
                Block::EnhancedPacket(packet) => {
                    let nanos = (u64::from(packet.ts_high) << 32) | u64::from(packet.ts_low);
                    seen.push((packet.if_id, nanos, packet.packet_data().to_vec()));
                }
                other => panic!("{other:?}"),
            }
            rest = after;
        }
        let at = at.as_nanos();
        assert_eq!(seen, [(0, at, [1, 2, 3].into()), (1, at, [4; 64].into())]);
    }

    #[test]
    fn old_frames_are_forgotten() {
        let mut capture = Capture::default();
        capture.add_port("a");
        for _ in 0..9 {
            let frame = alloc::vec![0; 4 << 20];
            capture.record(Instant::ZERO, 0, Direction::Inward, &frame, String::new());
        }
        assert_eq!((capture.len(), capture.forgotten), (8, 1));
    }
}
