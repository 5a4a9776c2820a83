//! What went in and out, for Wireshark and tcpdump: a capture file in the form of pcapng
//! (draft-ietf-opsawg-pcapng).
//!
//! The file has both interfaces. A frame is in it when it comes in, and again when it goes out. One
//! that was lost or damaged says so in its comment, together with its number.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::decide::{Direction, Loss};
use super::line::{Full, Outcome};
use crate::clock::now_ns;

/// Block types (§4 of the draft).
const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
/// What a reader learns the byte order from (§4.1).
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
/// Ethernet (LINKTYPE_ETHERNET).
const LINK_TYPE: u16 = 1;
/// Options (§3.5, §4.2, §4.3).
const OPTION_END: u16 = 0;
const OPTION_COMMENT: u16 = 1;
const OPTION_NAME: u16 = 2;
const OPTION_FLAGS: u16 = 2;
const OPTION_RESOLUTION: u16 = 9;
/// Times in nanoseconds: ten to the minus this (`if_tsresol`).
const RESOLUTION: u8 = 9;
/// Lowest two bits of a packet's flags (`epb_flags`).
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// A capture file that is being written.
#[derive(Debug)]
pub struct Capture<W: Write = BufWriter<File>> {
    out: W,
    /// What to add to the clock of this program to have the time of day, in nanoseconds.
    epoch_ns: u64,
    block: Vec<u8>,
}

impl Capture {
    /// Begins a file that describes these two interfaces.
    ///
    /// # Errors
    /// As creating and writing a file.
    pub fn create(path: &Path, interfaces: [&str; 2]) -> io::Result<Self> {
        let file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        let since_epoch_ns = since_epoch.map_or(0, |time| time.as_nanos());
        let since_epoch_ns = u64::try_from(since_epoch_ns).unwrap_or(0);
        Capture::begin(file, interfaces, since_epoch_ns.saturating_sub(now_ns()))
    }
}

impl<W: Write> Capture<W> {
    fn begin(out: W, interfaces: [&str; 2], epoch_ns: u64) -> io::Result<Self> {
        let mut capture = Self {
            out,
            epoch_ns,
            block: Vec::new(),
        };
        capture.write_block(SECTION_HEADER, |block| {
            block.extend(BYTE_ORDER_MAGIC.to_ne_bytes());
            // Version 1.0, and a section of unknown length.
            block.extend(1_u16.to_ne_bytes());
            block.extend(0_u16.to_ne_bytes());
            block.extend(u64::MAX.to_ne_bytes());
        })?;
        for name in interfaces {
            capture.write_block(INTERFACE_DESCRIPTION, |block| {
                block.extend(LINK_TYPE.to_ne_bytes());
                block.extend([0; 2]);
                // No limit on the captured length.
                block.extend(0_u32.to_ne_bytes());
                push_option(block, OPTION_NAME, name.as_bytes());
                push_option(block, OPTION_RESOLUTION, &[RESOLUTION]);
                push_option(block, OPTION_END, &[]);
            })?;
        }
        Ok(capture)
    }

    /// A frame that came in.
    ///
    /// # Errors
    /// As writing a file.
    pub fn received(
        &mut self,
        direction: Direction,
        time_ns: u64,
        frame: &[u8],
        outcome: &Outcome,
    ) -> io::Result<()> {
        let interface = match direction {
            Direction::AToB => 0,
            Direction::BToA => 1,
        };
        let comment = describe(outcome);
        self.packet(interface, INBOUND, time_ns, frame, Some(&comment))
    }

    /// A frame that went out.
    ///
    /// # Errors
    /// As writing a file.
    pub fn sent(&mut self, direction: Direction, time_ns: u64, frame: &[u8]) -> io::Result<()> {
        let interface = match direction {
            Direction::AToB => 1,
            Direction::BToA => 0,
        };
        self.packet(interface, OUTBOUND, time_ns, frame, None)
    }

    /// Writes what is still in memory.
    ///
    /// # Errors
    /// As writing a file.
    pub fn finish(mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn packet(
        &mut self,
        interface: u32,
        flags: u32,
        time_ns: u64,
        frame: &[u8],
        comment: Option<&str>,
    ) -> io::Result<()> {
        let time = self.epoch_ns.saturating_add(time_ns).to_ne_bytes();
        // The upper half comes first in either byte order (§4.3).
        let (one, two) = time.split_at(4);
        let [upper, lower] = match cfg!(target_endian = "big") {
            true => [one, two],
            false => [two, one],
        };
        let len = u32::try_from(frame.len()).expect("invariant: frames are short");
        self.write_block(ENHANCED_PACKET, |block| {
            block.extend(interface.to_ne_bytes());
            block.extend(upper);
            block.extend(lower);
            // All of it was captured.
            block.extend(len.to_ne_bytes());
            block.extend(len.to_ne_bytes());
            block.extend(frame);
            pad(block);
            if let Some(comment) = comment {
                push_option(block, OPTION_COMMENT, comment.as_bytes());
            }
            push_option(block, OPTION_FLAGS, &flags.to_ne_bytes());
            push_option(block, OPTION_END, &[]);
        })
    }

    /// A block is its type, its length, what it holds, and its length once more (§3.1).
    fn write_block(&mut self, kind: u32, fill: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let block = &mut self.block;
        block.clear();
        block.extend(kind.to_ne_bytes());
        block.extend([0; 4]);
        fill(block);
        let len = u32::try_from(block.len() + 4).expect("invariant: a frame and its options");
        block[4..8].copy_from_slice(&len.to_ne_bytes());
        block.extend(len.to_ne_bytes());
        self.out.write_all(block)
    }
}

/// Everything in a block begins at a multiple of four bytes.
fn pad(block: &mut Vec<u8>) {
    block.resize(block.len().next_multiple_of(4), 0);
}

fn push_option(block: &mut Vec<u8>, code: u16, value: &[u8]) {
    let len = u16::try_from(value.len()).expect("invariant: names and comments are short");
    block.extend(code.to_ne_bytes());
    block.extend(len.to_ne_bytes());
    block.extend(value);
    pad(block);
}

fn describe(outcome: &Outcome) -> String {
    let Outcome { fate, dropped } = outcome;
    let mut text = format!("frame {}", fate.index);
    let lost = match (dropped, fate.lost) {
        (Some(Full::Queue), _) => ", dropped: queue full",
        (Some(Full::Memory), _) => ", dropped: memory full",
        (None, Some(Loss::Listed)) => ", lost: listed",
        (None, Some(Loss::Burst)) => ", lost in a burst",
        (None, Some(Loss::Single)) => ", lost",
        (None, None) => "",
    };
    text += lost;
    if lost.is_empty() {
        for (is_so, what) in [
            (fate.corrupt.is_some(), ", corrupted"),
            (fate.held_back.is_some(), ", held back"),
            (fate.is_duplicated, ", duplicated"),
        ] {
            text += if is_so { what } else { "" };
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::decide::Fate;
    use super::*;
    use pcap_parser::pcapng::parse_block_le;
    use pcap_parser::{Block, PcapNGOption};
    use std::time::Duration;

    fn outcome() -> Outcome {
        Outcome {
            fate: Fate {
                index: 3,
                lost: None,
                is_duplicated: true,
                corrupt: None,
                held_back: Some(Duration::ZERO),
                jitter: Duration::ZERO,
            },
            dropped: None,
        }
    }

    fn option<'a>(options: &'a [PcapNGOption<'_>], code: u16) -> Option<&'a [u8]> {
        let mut options = options.iter();
        options
            .find(|option| option.code.0 == code)
            .map(|option| &option.value()[..usize::from(option.len)])
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn readers_find_what_was_written() {
        let mut file = Vec::new();
        let mut capture = Capture::begin(&mut file, ["left", "right"], 7_000_000_000).unwrap();
        let frames: Vec<Vec<u8>> = (60..64).map(|len| vec![0x5a; len]).collect();
        let lost = Outcome {
            dropped: Some(Full::Queue),
            ..outcome()
        };
        let to_b = Direction::AToB;
        capture.received(to_b, 1, &frames[0], &outcome()).unwrap();
        capture.sent(to_b, 2, &frames[1]).unwrap();
        let to_a = Direction::BToA;
        capture.received(to_a, 3, &frames[2], &lost).unwrap();
        capture.sent(to_a, 1 << 33, &frames[3]).unwrap();
        capture.finish().unwrap();

        let (mut rest, mut names, mut packets) = (&file[..], Vec::new(), Vec::new());
        while !rest.is_empty() {
            let (after, block) = parse_block_le(rest).unwrap();
            rest = after;
            match block {
                Block::SectionHeader(header) => assert_eq!(header.major_version, 1),
                Block::InterfaceDescription(interface) => {
                    assert_eq!((interface.snaplen, interface.if_tsresol), (0, 9));
                    let name = option(&interface.options, OPTION_NAME).unwrap();
                    names.push(String::from_utf8(name.to_vec()).unwrap());
                }
                Block::EnhancedPacket(packet) => {
                    assert_eq!(packet.caplen, packet.origlen);
                    let time_ns = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                    let bytes = &packet.data[..packet.caplen as usize];
                    let comment = option(&packet.options, OPTION_COMMENT)
                        .map(|text| String::from_utf8(text.to_vec()).unwrap());
                    let flags = option(&packet.options, OPTION_FLAGS).unwrap();
                    packets.push((
                        packet.if_id,
                        flags[0],
                        time_ns - 7_000_000_000,
                        bytes.to_vec(),
                        comment.unwrap_or_default(),
                    ));
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(names, ["left", "right"]);
        let [one, two, three, four] = <[Vec<u8>; 4]>::try_from(frames).unwrap();
        let expected = [
            (0, 1, 1, one, "frame 3, held back, duplicated".to_owned()),
            (1, 2, 2, two, String::new()),
            (1, 1, 3, three, "frame 3, dropped: queue full".to_owned()),
            (0, 2, 1 << 33, four, String::new()),
        ];
        assert_eq!(packets, expected);
    }
}
