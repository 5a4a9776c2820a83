//! What is on the cable: captures, checked by tcpdump and by the stack's own parsers.

use super::lab::{Lab, PEER};
use super::process::Process;
use super::until;
use rustix::process::Signal;
use stack::wire::checksum::Sum;
use stack::wire::{arp, ethernet, icmpv4, icmpv6, ipv4, ipv6, ndp, protocol, udp};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

/// tcpdump on the peer's end of the cable.
pub(crate) struct Capture {
    process: Process,
    file: PathBuf,
}

/// Words that tcpdump uses for packets it finds fault with. A checksum of 0x6bad is none of them.
const FAULTS: [&str; 12] = [
    " bad ",
    "[bad ",
    "(bad ",
    "bad-",
    "incorrect",
    "invalid",
    "truncated",
    "[|",
    "wrong",
    "bogus",
    "malformed",
    "missing",
];

impl Capture {
    #[track_caller]
    pub(crate) fn start(lab: &Lab) -> Self {
        let file = lab.path("wire.pcap");
        let mut command = lab.peer.command("tcpdump");
        // As root: another user might not write to our directory.
        command.args([
            "-i",
            PEER,
            "-U",
            "--immediate-mode",
            // Immediately means in slots of the greatest length, of which 64 KiB is the longest packet there
            // is: a thousand, so that nothing is dropped while others have the core.
            "-s",
            "65600",
            "-B",
            "65536",
            "-Z",
            "root",
            "-w",
        ]);
        command.arg(&file);
        let process = Process::start(command, "tcpdump");
        until("tcpdump listens", || {
            process.stderr().contains("listening on")
        });
        Self { process, file }
    }

    /// Ends the capture. Returns its packets, after tcpdump has found no fault with them.
    #[track_caller]
    pub(crate) fn finish(self, lab: &Lab) -> Vec<Vec<u8>> {
        self.process.signal(Signal::INT);
        let done = self.process.finish();
        assert!(
            done.stderr.contains("0 packets dropped by kernel"),
            "{done}"
        );
        let shown = lab
            .peer
            .sh(&format!("tcpdump -n -e -vvv -r {}", self.file.display()));
        let faults: Vec<&str> = shown
            .lines()
            .filter(|line| FAULTS.iter().any(|word| line.contains(word)))
            .collect();
        assert!(faults.is_empty(), "tcpdump says:\n{}", faults.join("\n"));
        let bytes = std::fs::read(&self.file).expect("tcpdump wrote it");
        packets(&bytes)
    }
}

/// The packets of a classic capture file in this machine's byte order
/// (draft-ietf-opsawg-pcap §4, §5).
#[track_caller]
fn packets(mut file: &[u8]) -> Vec<Vec<u8>> {
    let mut take = |len: usize| {
        let (taken, rest) = file.split_at_checked(len)?;
        file = rest;
        Some(taken)
    };
    let word = |bytes: &[u8], at: usize| {
        u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize
    };
    let header = take(24).expect("a capture file has a header");
    assert_eq!(word(header, 0), 0xa1b2_c3d4, "a classic capture file");
    let mut packets = Vec::new();
    while let Some(record) = take(16) {
        let (captured, original) = (word(record, 8), word(record, 12));
        assert_eq!(captured, original, "tcpdump keeps whole packets");
        packets.push(take(captured).expect("the packet follows").to_vec());
    }
    packets
}

/// What a capture held, by kind.
#[derive(Debug, Default)]
pub(crate) struct Census(BTreeMap<&'static str, usize>);

impl Census {
    /// Of the packets that `mac` sent, each of which must be right in every field that we can check:
    /// lengths, header checksums, checksums of UDP and ICMP also across fragments.
    #[track_caller]
    pub(crate) fn of(packets: &[Vec<u8>], mac: [u8; 6]) -> Self {
        let mut census = Self::default();
        let mut pieces = Pieces::new();
        for packet in packets {
            let frame = ethernet::Packet::new_checked(packet).expect("an Ethernet header");
            if frame.source() == mac {
                census.check(packet, &frame, &mut pieces);
            }
        }
        for ((source, destination, protocol, _), mut parts) in pieces {
            parts.sort_by_key(|part| part.offset);
            let mut whole = Vec::new();
            for part in &parts {
                assert_eq!(part.offset, whole.len(), "fragments follow each other");
                whole.extend(&part.bytes);
            }
            assert!(
                !parts.last().expect("one at least").more,
                "the last piece is there"
            );
            census.transport(&whole, 0..whole.len(), protocol, (source, destination, 255));
            census.count("datagram in fragments");
        }
        census
    }

    /// How many there were of a kind.
    pub(crate) fn get(&self, kind: &str) -> usize {
        self.0.get(kind).copied().unwrap_or(0)
    }

    fn count(&mut self, kind: &'static str) {
        *self.0.entry(kind).or_default() += 1;
    }

    #[track_caller]
    fn check(&mut self, packet: &[u8], frame: &ethernet::Packet<'_>, pieces: &mut Pieces) {
        let offset = frame.payload_offset();
        match frame.ether_type() {
            ethernet::TYPE_ARP => {
                arp::Repr::parse(packet, offset).expect("an ARP packet");
                self.count("ARP");
            }
            ethernet::TYPE_IPV4 => {
                let ip = ipv4::Packet::new_checked(packet, offset).expect("an IPv4 packet");
                // Only Ethernet's padding to 60 bytes may follow.
                assert!(packet.len() == ip.payload().end || packet.len() <= 60);
                let between = (ip.source().into(), ip.destination().into());
                if ip.is_fragment() {
                    let id = u32::from(ip.identification());
                    let part = Part {
                        offset: ip.fragment_offset(),
                        more: ip.more_fragments(),
                        bytes: packet[ip.payload()].to_vec(),
                    };
                    let key = (between.0, between.1, ip.protocol(), id);
                    pieces.entry(key).or_default().push(part);
                    self.count("IPv4 fragment");
                    return;
                }
                let (source, destination) = between;
                let around = (source, destination, ip.ttl());
                self.transport(packet, ip.payload(), ip.protocol(), around);
            }
            ethernet::TYPE_IPV6 => {
                let ip = ipv6::Packet::new_checked(packet, offset).expect("an IPv6 packet");
                assert!(packet.len() == ip.payload().end || packet.len() <= 60);
                let between: (IpAddr, IpAddr) = (ip.source().into(), ip.destination().into());
                if let Some(piece) = ip.fragment() {
                    let part = Part {
                        offset: usize::from(piece.offset),
                        more: piece.more,
                        bytes: packet[ip.payload()].to_vec(),
                    };
                    let key = (between.0, between.1, ip.protocol(), piece.identification);
                    pieces.entry(key).or_default().push(part);
                    self.count("IPv6 fragment");
                    return;
                }
                let around = (between.0, between.1, ip.hop_limit());
                self.transport(packet, ip.payload(), ip.protocol(), around);
            }
            other => panic!("nothing of ours has EtherType {other:#06x}"),
        }
    }

    #[track_caller]
    fn transport(
        &mut self,
        data: &[u8],
        range: std::ops::Range<usize>,
        which: u8,
        (source, destination, hop_limit): (IpAddr, IpAddr, u8),
    ) {
        match (which, source, destination) {
            (protocol::UDP, ..) => {
                let len = range.len();
                let datagram = udp::Packet::new_checked(data, range).expect("a UDP header");
                assert_eq!(
                    datagram.payload_len() + udp::HEADER_LEN,
                    len,
                    "UDP's length"
                );
                let verified = datagram.verify(|len| match (source, destination) {
                    (IpAddr::V4(source), IpAddr::V4(destination)) => {
                        Sum::pseudo_v4(source, destination, protocol::UDP, len)
                    }
                    (IpAddr::V6(source), IpAddr::V6(destination)) => {
                        Sum::pseudo_v6(source, destination, protocol::UDP, len)
                    }
                    _ => unreachable!("both are of the packet's version"),
                });
                assert_eq!(
                    verified,
                    Ok(udp::Verified::Right),
                    "{source} to {destination}"
                );
                self.count(if source.is_ipv4() {
                    "UDP over IPv4"
                } else {
                    "UDP over IPv6"
                });
            }
            (protocol::ICMPV4, ..) => {
                let message = icmpv4::Packet::new_checked(data, range).expect("an ICMP message");
                self.count(match message.kind() {
                    icmpv4::kind::ECHO_REPLY => "ICMP echo reply",
                    icmpv4::kind::UNREACHABLE => "ICMP unreachable",
                    _ => "other ICMP",
                });
            }
            (protocol::ICMPV6, IpAddr::V6(source), IpAddr::V6(destination)) => {
                let message = icmpv6::Packet::new_checked(data, range, source, destination)
                    .expect("an ICMPv6 message");
                let neighbor = ndp::Repr::parse(data, &message, hop_limit, source, destination)
                    .expect("neighbour discovery as RFC 4861 has it");
                self.count(match (message.kind(), neighbor) {
                    (_, Some(_)) => "NDP",
                    (icmpv6::kind::ECHO_REPLY, _) => "ICMPv6 echo reply",
                    (icmpv6::kind::UNREACHABLE, _) => "ICMPv6 unreachable",
                    _ => "other ICMPv6",
                });
            }
            // The kernel's own, such as multicast listener reports behind a hop-by-hop header.
            _ => self.count("other"),
        }
    }
}

/// Source, destination, protocol, identification.
type Pieces = BTreeMap<(IpAddr, IpAddr, u8, u32), Vec<Part>>;

struct Part {
    offset: usize,
    more: bool,
    bytes: Vec<u8>,
}
