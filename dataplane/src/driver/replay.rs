//! A driver that receives what a capture file holds, and writes what is sent to another.
//!
//! Packets come as fast as they are taken, not at the pace they were captured: a replay is for
//! finding out *what* a stack answers. Reading is `pcap-parser`'s, which knows both formats, any
//! byte order and damaged files. Writing is ours: two fixed headers and no allocation.

use super::error::DriverError;
use super::frame::{FRAME_LEN_MIN, Filled, Frame};
use super::memory::{simulated_report, sleep};
use super::umem::{FrameCensus, FrameReturn, Umem, UmemOptions};
use super::waker::Waker;
use super::{Batch, Driver, DriverReport, Link, QueueStatistics, Wakeup};
use config::HugePages;
use pcap_parser::traits::{PcapNGPacketBlock as _, PcapReaderIterator};
use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};
use stack::frame::{Frame as _, FramePool, Stamps};
use std::fmt;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Duration;

/// Bytes of a capture file in memory at a time: four times the longest packet that tcpdump keeps
/// (262144 bytes). A block that does not fit ends the replay with an error.
const READ_BYTES: usize = 1 << 20;

/// Longest packet we claim to write, as tcpdump does (`MAXIMUM_SNAPLEN`).
const SNAPLEN_BYTES: u32 = 262_144;

/// `LINKTYPE_ETHERNET`.
const LINKTYPE_ETHERNET: u32 = 1;

/// Writes packets to a capture file that tcpdump and Wireshark read: classic pcap with nanoseconds,
/// host byte order.
pub struct PcapWriter {
    file: BufWriter<File>,
    path: String,
}

impl PcapWriter {
    /// Makes the file, or empties it, and writes its header.
    ///
    /// # Errors
    ///
    /// The file cannot be made or written.
    pub fn create(path: &Path) -> Result<Self, DriverError> {
        let shown = path.display().to_string();
        let file = File::create(path).map_err(|error| cannot("create", &shown, &error))?;
        let mut writer = Self {
            file: BufWriter::new(file),
            path: shown,
        };
        // draft-ietf-opsawg-pcap §4: magic (nanoseconds), version 2.4, two reserved words.
        let header: [u32; 6] = [
            0xa1b2_3c4d,
            version(2, 4),
            0,
            0,
            SNAPLEN_BYTES,
            LINKTYPE_ETHERNET,
        ];
        writer.write_words(&header)?;
        Ok(writer)
    }

    /// Writes one packet, from its Ethernet header on. `time_ns` is since 1970 for tools to show it
    /// as a date; any other clock is shown as one, too.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn write(&mut self, packet: &[u8], time_ns: u64) -> Result<(), DriverError> {
        const NANOS: u64 = 1_000_000_000;
        // Until 2106, as the format has it.
        let seconds = u32::try_from(time_ns / NANOS).unwrap_or(u32::MAX);
        let nanos = u32::try_from(time_ns % NANOS).unwrap_or(0);
        let original = u32::try_from(packet.len()).unwrap_or(u32::MAX);
        let captured = original.min(SNAPLEN_BYTES);
        // §5: when, how much is here, how much there was.
        self.write_words(&[seconds, nanos, captured, original])?;
        let captured = &packet[..captured as usize];
        self.file
            .write_all(captured)
            .map_err(|error| cannot("write", &self.path, &error))
    }

    /// Writes out what is buffered. Dropping does so, too, but cannot say that it failed.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn finish(mut self) -> Result<(), DriverError> {
        self.flush()
    }

    fn flush(&mut self) -> Result<(), DriverError> {
        self.file
            .flush()
            .map_err(|error| cannot("write", &self.path, &error))
    }

    fn write_words(&mut self, words: &[u32]) -> Result<(), DriverError> {
        for word in words {
            self.file
                .write_all(&word.to_ne_bytes())
                .map_err(|error| cannot("write", &self.path, &error))?;
        }
        Ok(())
    }
}

/// Two 16-bit fields in a word of the host's order.
fn version(major: u16, minor: u16) -> u32 {
    let [a, b] = major.to_ne_bytes();
    let [c, d] = minor.to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d])
}

fn cannot(verb: &str, path: &str, error: &std::io::Error) -> DriverError {
    DriverError::Capture(format!("cannot {verb} capture file {path}: {error}"))
}

impl fmt::Debug for PcapWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PcapWriter")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// The driver over capture files. One queue.
pub struct Replay {
    umem: Umem,
    reader: Box<dyn PcapReaderIterator + Send>,
    path: String,
    /// Of each interface of a pcapng section, whether it is Ethernet.
    ethernet: Vec<bool>,
    finished: bool,
    failure: Option<DriverError>,
    writer: Option<PcapWriter>,
    waker: Waker,
    now_ns: u64,
    counts: QueueStatistics,
    report: DriverReport,
}

/// What became of one step through the file.
enum Step {
    /// A packet is in the frame.
    Packet,
    /// Something else was passed over.
    Other,
    /// That was the end.
    End,
}

impl Replay {
    /// Receives the packets of `input` (pcap or pcapng, Ethernet), and writes what is sent to
    /// `output`, if there is one.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or made, is no capture, or holds no Ethernet packets.
    pub fn open(
        input: &Path,
        output: Option<&Path>,
        options: UmemOptions,
    ) -> Result<Self, DriverError> {
        let path = input.display().to_string();
        let file = File::open(input).map_err(|error| cannot("read", &path, &error))?;
        let reader = create_reader(READ_BYTES, file).map_err(|_| {
            DriverError::Capture(format!("{path} is neither a pcap nor a pcapng file"))
        })?;
        let UmemOptions {
            frames,
            chunk_size,
            huge_pages: _,
        } = options;
        let umem = Umem::new(UmemOptions {
            huge_pages: HugePages::Never,
            ..options
        })?;
        let mut replay = Self {
            umem,
            reader,
            report: simulated_report(&path, frames, chunk_size, 0),
            path,
            ethernet: Vec::new(),
            finished: false,
            failure: None,
            writer: output.map(PcapWriter::create).transpose()?,
            waker: Waker::new()?,
            now_ns: 0,
            counts: QueueStatistics::default(),
        };
        replay.report.driver = "replay".to_owned();
        replay.read_header()?;
        Ok(replay)
    }

    /// Whether every packet of the file has been received, or an error ended it.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Why reading or writing ended early, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<&DriverError> {
        self.failure.as_ref()
    }

    /// Writes out what is buffered.
    ///
    /// # Errors
    ///
    /// The output cannot be written, or something went wrong before.
    pub fn finish(mut self) -> Result<(), DriverError> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        self.writer.take().map_or(Ok(()), PcapWriter::finish)
    }

    /// The first block of a classic file says what its packets are.
    fn read_header(&mut self) -> Result<(), DriverError> {
        let Ok((consumed, block)) = self.reader.next() else {
            return Ok(());
        };
        if let PcapBlockOwned::LegacyHeader(header) = block {
            if header.network != Linktype::ETHERNET {
                return Err(DriverError::Capture(format!(
                    "{} holds no Ethernet packets: its link type is {}",
                    self.path, header.network.0
                )));
            }
            self.reader.consume(consumed);
        }
        Ok(())
    }

    /// Goes one block on. `frame` holds a packet afterwards if it was one.
    fn step(&mut self, frame: &mut Frame<Filled>) -> Step {
        let failure = match self.reader.next() {
            Ok((consumed, block)) => {
                let packet = packet_of(&block, &mut self.ethernet);
                let step = match packet {
                    None => Step::Other,
                    Some(packet) if packet.len() > frame.capacity() => {
                        self.counts.rx_dropped += 1;
                        Step::Other
                    }
                    Some(packet) => {
                        frame.set_len(packet.len());
                        frame.data_mut().copy_from_slice(packet);
                        Step::Packet
                    }
                };
                self.reader.consume(consumed);
                return step;
            }
            Err(PcapError::Eof) => None,
            Err(PcapError::Incomplete(_)) => match self.reader.refill() {
                Ok(()) => return Step::Other,
                Err(_) => Some("it cannot be read on"),
            },
            Err(PcapError::UnexpectedEof) => Some("its last packet is cut off"),
            Err(PcapError::BufferTooSmall) => Some("it holds a block of more than a megabyte"),
            Err(_) => Some("it is damaged"),
        };
        self.finished = true;
        if let Some(why) = failure {
            let sentence = format!("replay of {} ended early: {why}", self.path);
            tracing::warn!("{sentence}");
            self.failure = Some(DriverError::Capture(sentence));
        }
        Step::End
    }
}

/// The Ethernet packet in a block, if it is one. Notes the interfaces of pcapng as they come.
fn packet_of<'a>(block: &'a PcapBlockOwned<'_>, ethernet: &mut Vec<bool>) -> Option<&'a [u8]> {
    let (interface, packet) = match block {
        PcapBlockOwned::LegacyHeader(_) => return None,
        PcapBlockOwned::Legacy(packet) => return Some(packet.data),
        PcapBlockOwned::NG(Block::SectionHeader(_)) => {
            ethernet.clear();
            return None;
        }
        PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
            ethernet.push(interface.linktype == Linktype::ETHERNET);
            return None;
        }
        PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => (packet.if_id, packet.packet_data()),
        // draft-ietf-opsawg-pcapng §4.4: a simple packet is of the first interface.
        PcapBlockOwned::NG(Block::SimplePacket(packet)) => (0, packet.packet_data()),
        PcapBlockOwned::NG(_) => return None,
    };
    let is_ethernet = usize::try_from(interface)
        .ok()
        .and_then(|index| ethernet.get(index));
    (is_ethernet == Some(&true)).then_some(packet)
}

impl FramePool for Replay {
    type Frame = Frame<Filled>;

    fn take(&mut self) -> Option<Frame<Filled>> {
        self.umem.take()
    }

    fn give(&mut self, frame: Frame<Filled>) {
        self.umem.give(frame);
    }
}

impl Driver for Replay {
    fn rx(&mut self, batch: &mut Batch, now_ns: u64) -> usize {
        let before = batch.len();
        self.now_ns = now_ns;
        while batch.room() > 0 && !self.finished {
            let Some(mut frame) = self.umem.take() else {
                self.counts.fill_short += 1;
                break;
            };
            let packet = loop {
                match self.step(&mut frame) {
                    Step::Packet => break true,
                    Step::Other => {}
                    Step::End => break false,
                }
            };
            if !packet {
                self.umem.give(frame);
                break;
            }
            frame.set_stamps(Stamps {
                arrival_ns: 0,
                taken_ns: now_ns,
            });
            self.counts.rx_packets += 1;
            let pushed = batch.push(frame);
            debug_assert!(pushed.is_ok(), "invariant: there was room");
        }
        batch.len() - before
    }

    /// Never full: a file takes everything.
    fn tx(&mut self, frame: Frame<Filled>) -> Result<(), Frame<Filled>> {
        if frame.len() < FRAME_LEN_MIN {
            self.counts.tx_refused += 1;
        } else {
            self.counts.tx_packets += 1;
            self.counts.tx_completions += 1;
            let written = match &mut self.writer {
                Some(writer) => writer.write(frame.data(), self.now_ns),
                None => Ok(()),
            };
            if let Err(failure) = written {
                tracing::warn!("{failure}");
                self.writer = None;
                self.failure.get_or_insert(failure);
            }
        }
        self.umem.give(frame);
        Ok(())
    }

    fn flush(&mut self) {
        self.umem.collect_returns();
    }

    fn wait(&mut self, timeout: Duration) -> Wakeup {
        if self.finished {
            sleep(&self.waker, timeout)
        } else {
            Wakeup::Packets
        }
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn frame_return(&mut self) -> FrameReturn {
        self.umem.frame_return()
    }

    fn link(&self) -> Link {
        Link::Up
    }

    fn statistics(&self, into: &mut Vec<QueueStatistics>) {
        into.clear();
        into.push(self.counts);
    }

    fn report(&self) -> &DriverReport {
        &self.report
    }

    fn census(&self) -> FrameCensus {
        self.umem.census()
    }
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay")
            .field("path", &self.path)
            .field("finished", &self.finished)
            .field("umem", &self.umem)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A file of this test's own, removed with it.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("dataplane-replay-{}-{number}.pcap", std::process::id());
            Self(std::env::temp_dir().join(name))
        }

        fn holding(bytes: &[u8]) -> Self {
            let scratch = Self::new();
            std::fs::write(&scratch.0, bytes).unwrap();
            scratch
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn open(input: &Scratch, output: Option<&Scratch>) -> Result<Replay, DriverError> {
        let options = UmemOptions {
            frames: 8,
            ..UmemOptions::default()
        };
        Replay::open(&input.0, output.map(|scratch| scratch.0.as_path()), options)
    }

    /// Receives everything, and sends it back.
    fn receive_all(replay: &mut Replay) -> Vec<Vec<u8>> {
        let mut batch = Batch::with_capacity(3);
        let mut packets = Vec::new();
        let mut now_ns = 1_700_000_000_123_456_789;
        while !replay.is_finished() {
            assert_eq!(replay.wait(Duration::ZERO), Wakeup::Packets);
            replay.rx(&mut batch, now_ns);
            now_ns += 1;
            for frame in batch.drain() {
                packets.push(frame.data().to_vec());
                replay.tx(frame).unwrap();
            }
            replay.flush();
        }
        let census = replay.census();
        assert_eq!(census.home, census.total);
        packets
    }

    fn packets() -> Vec<Vec<u8>> {
        (0..10u8)
            .map(|number| vec![number; 60 + usize::from(number) * 100])
            .collect()
    }

    #[test]
    fn what_the_writer_writes_the_replay_receives_and_writes_again() {
        let (first, second) = (Scratch::new(), Scratch::new());
        let mut writer = PcapWriter::create(&first.0).unwrap();
        for packet in packets() {
            writer.write(&packet, 1_700_000_000_000_000_000).unwrap();
        }
        writer.finish().unwrap();
        let mut replay = open(&first, Some(&second)).unwrap();
        assert_eq!(receive_all(&mut replay), packets());
        replay.finish().unwrap();
        let mut again = open(&second, None).unwrap();
        assert_eq!(receive_all(&mut again), packets());
        assert_eq!(again.failure(), None);
    }

    #[test]
    fn written_file_is_what_the_format_says() {
        let scratch = Scratch::new();
        let mut writer = PcapWriter::create(&scratch.0).unwrap();
        writer.write(&[1, 2, 3], 1_700_000_000_123_456_789).unwrap();
        writer.finish().unwrap();
        let words = |words: &[u32]| {
            words
                .iter()
                .flat_map(|w| w.to_ne_bytes())
                .collect::<Vec<_>>()
        };
        let mut expected = words(&[0xa1b2_3c4d]);
        expected.extend([2u16, 4].iter().flat_map(|half| half.to_ne_bytes()));
        expected.extend(words(&[0, 0, 262_144, 1, 1_700_000_000, 123_456_789, 3, 3]));
        expected.extend([1, 2, 3]);
        assert_eq!(std::fs::read(&scratch.0).unwrap(), expected);
    }

    /// A pcapng block: type, length, body, length.
    fn block(kind: u32, body: &[u8]) -> Vec<u8> {
        let len = u32::try_from(12 + body.len().next_multiple_of(4)).unwrap();
        let mut block = [kind.to_be_bytes(), len.to_be_bytes()].concat();
        block.extend(body);
        block.resize(len as usize - 4, 0);
        block.extend(len.to_be_bytes());
        block
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    fn enhanced(interface: u32, packet: &[u8]) -> Vec<u8> {
        let len = u32::try_from(packet.len()).unwrap();
        block(
            6,
            &[words(&[interface, 0, 0, len, len]), packet.to_vec()].concat(),
        )
    }

    #[test]
    fn pcapng_of_the_other_byte_order_is_read_and_other_links_passed_over() {
        let file = [
            block(
                0x0a0d_0d0a,
                &words(&[0x1a2b_3c4d, 0x0001_0000, u32::MAX, u32::MAX]),
            ),
            block(1, &words(&[1 << 16, 0])), // interface 0: Ethernet
            block(1, &words(&[101 << 16, 0])), // interface 1: raw IP
            enhanced(0, &[1; 61]),
            enhanced(1, &[2; 62]),
            enhanced(7, &[3; 63]),        // no such interface
            block(5, &words(&[0, 0, 0])), // statistics
            enhanced(0, &[4; 64]),
            block(3, &[words(&[65]), vec![5; 65]].concat()), // simple packet
        ]
        .concat();
        let mut replay = open(&Scratch::holding(&file), None).unwrap();
        assert_eq!(
            receive_all(&mut replay),
            [vec![1; 61], vec![4; 64], vec![5; 65]]
        );
        assert_eq!(replay.failure(), None);
    }

    #[test]
    fn packet_longer_than_a_frame_is_counted_and_passed_over() {
        let scratch = Scratch::new();
        let mut writer = PcapWriter::create(&scratch.0).unwrap();
        for len in [60, 1793, 1792] {
            writer.write(&vec![9; len], 0).unwrap();
        }
        writer.finish().unwrap();
        let mut replay = open(&scratch, None).unwrap();
        let lengths: Vec<_> = receive_all(&mut replay).iter().map(Vec::len).collect();
        assert_eq!(lengths, [60, 1792]);
        let mut statistics = Vec::new();
        replay.statistics(&mut statistics);
        assert_eq!(statistics[0].rx_dropped, 1);
    }

    #[test]
    fn file_that_is_no_capture_of_ethernet_is_an_error() {
        for (bytes, expected) in [
            (&b""[..], "neither a pcap nor a pcapng"),
            (
                b"hello, this is a text of more than twenty-four bytes",
                "neither a pcap nor a pcapng",
            ),
            (
                &[&words(&[0xa1b2_c3d4, 0x0002_0004, 0, 0, 65535, 101])[..]].concat(),
                "its link type is 101",
            ),
        ] {
            let sentence = open(&Scratch::holding(bytes), None)
                .unwrap_err()
                .to_string();
            assert!(sentence.contains(expected), "{sentence}");
        }
        let missing = Scratch::new();
        let sentence = open(&missing, None).unwrap_err().to_string();
        assert!(sentence.contains("cannot read capture file"), "{sentence}");
    }

    #[test]
    fn file_that_ends_in_a_packet_is_replayed_up_to_there_and_says_so() {
        let whole = Scratch::new();
        let mut writer = PcapWriter::create(&whole.0).unwrap();
        for packet in packets() {
            writer.write(&packet, 0).unwrap();
        }
        writer.finish().unwrap();
        let mut bytes = std::fs::read(&whole.0).unwrap();
        bytes.truncate(bytes.len() - 1);
        let mut replay = open(&Scratch::holding(&bytes), None).unwrap();
        assert_eq!(receive_all(&mut replay), packets()[..9]);
        let sentence = replay.failure().unwrap().to_string();
        assert!(
            sentence.contains("its last packet is cut off"),
            "{sentence}"
        );
        assert_eq!(replay.wait(Duration::ZERO), Wakeup::TimedOut);
        assert!(replay.finish().is_err());
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig {
            cases: 64,
            failure_persistence: None,
            ..Default::default()
        })]

        /// Damage anywhere ends a replay, early or not, and never a process.
        #[test]
        fn damaged_file_never_panics(
            damage in proptest::collection::vec((0..600usize, proptest::prelude::any::<u8>()), 1..20),
            next_generation in proptest::prelude::any::<bool>(),
        ) {
            let mut file = if next_generation {
                [
                    block(0x0a0d_0d0a, &words(&[0x1a2b_3c4d, 0x0001_0000, u32::MAX, u32::MAX])),
                    block(1, &words(&[1 << 16, 0])),
                    enhanced(0, &[1; 61]),
                    block(3, &[words(&[65]), vec![5; 65]].concat()),
                    enhanced(0, &[4; 64]),
                ]
                .concat()
            } else {
                let mut file = words(&[0xa1b2_c3d4, 0x0002_0004, 0, 0, 65535, 1]);
                for len in [60u32, 70, 80, 90] {
                    file.extend(words(&[0, 0, len, len]));
                    file.resize(file.len() + len as usize, 7);
                }
                file
            };
            for (at, byte) in damage {
                let at = at % file.len();
                file[at] = byte;
            }
            if let Ok(mut replay) = open(&Scratch::holding(&file), None) {
                receive_all(&mut replay);
            }
        }
    }
}
