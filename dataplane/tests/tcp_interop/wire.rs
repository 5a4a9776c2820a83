//! tcpdump at the peer finds no fault with anything the service sends: no bad checksum, nothing
//! malformed.

use crate::setup::{DISCARD, ECHO, SOURCE, Setup, both, interop, v4, v6};
use crate::support::PATIENCE;
use crate::support::lab::DEVICE;
use crate::support::packets::Capture;
use bench::impair::decide::{Impairment, Probability};
use stack::wire::checksum::Sum;
use stack::wire::{ethernet, ipv4, ipv6, protocol};
use std::net::TcpStream;
use std::ops::Range;
use std::time::Duration;

/// Segments of the service by kind, each of which is right in its lengths and its checksum.
#[derive(Debug, Default)]
struct Segments {
    v4: usize,
    v6: usize,
    syn: usize,
    fin: usize,
    rst: usize,
    sack: usize,
}

impl Segments {
    #[track_caller]
    fn of(packets: &[Vec<u8>], mac: [u8; 6]) -> Self {
        let mut segments = Self::default();
        for packet in packets {
            let frame = ethernet::Packet::new_checked(packet).expect("an Ethernet header");
            if frame.source() != mac {
                continue;
            }
            let offset = frame.payload_offset();
            match frame.ether_type() {
                ethernet::TYPE_IPV4 => {
                    let ip = ipv4::Packet::new_checked(packet, offset).expect("an IPv4 packet");
                    if ip.protocol() == protocol::TCP {
                        let len = low_16_bits(ip.payload().len());
                        let pseudo =
                            Sum::pseudo_v4(ip.source(), ip.destination(), protocol::TCP, len);
                        segments.v4 += 1;
                        segments.check(packet, ip.payload(), pseudo);
                    }
                }
                ethernet::TYPE_IPV6 => {
                    let ip = ipv6::Packet::new_checked(packet, offset).expect("an IPv6 packet");
                    if ip.protocol() == protocol::TCP {
                        let len = low_16_bits(ip.payload().len());
                        let pseudo =
                            Sum::pseudo_v6(ip.source(), ip.destination(), protocol::TCP, len);
                        segments.v6 += 1;
                        segments.check(packet, ip.payload(), pseudo);
                    }
                }
                _ => {}
            }
        }
        segments
    }

    #[track_caller]
    fn check(&mut self, packet: &[u8], range: Range<usize>, pseudo: Sum) {
        let segment = &packet[range];
        assert!(pseudo.add_bytes(segment).is_valid(), "a checksum");
        // RFC 9293 §3.1: data offset in words, then reserved bits, which are zero, and flags.
        let header_len = usize::from(segment[12] >> 4) * 4;
        assert!((20..=segment.len()).contains(&header_len), "a data offset");
        // The lowest of the four is AccECN's AE (RFC 9768).
        assert_eq!(segment[12] & 0x0e, 0, "reserved bits");
        let flags = segment[13];
        for (bit, count) in [(1, &mut self.fin), (2, &mut self.syn), (4, &mut self.rst)] {
            *count += usize::from(flags & bit != 0);
        }
        self.options(&segment[20..header_len]);
    }

    /// Options are whole, and end at the end of the header.
    #[track_caller]
    fn options(&mut self, mut options: &[u8]) {
        while let [kind, rest @ ..] = options {
            options = match kind {
                // RFC 9293 §3.1: behind the end of the list is padding of zeroes.
                0 => {
                    assert!(rest.iter().all(|byte| *byte == 0), "padding");
                    &[]
                }
                1 => rest,
                _ => {
                    let len = usize::from(*rest.first().expect("a length"));
                    assert!((2..=options.len()).contains(&len), "option {kind}: {len}");
                    // RFC 2018 §3: SACK blocks.
                    self.sack += usize::from(*kind == 5);
                    &options[len..]
                }
            };
        }
    }
}

fn low_16_bits(len: usize) -> u16 {
    u16::try_from(len).expect("packets are short")
}

#[test]
fn tcpdump_finds_no_fault_with_tcp() {
    let interop = interop!(
        "tcpdump_finds_no_fault_with_tcp",
        Setup {
            // Enough losses for SACK blocks and retransmissions to be seen.
            impaired: Some((
                Impairment {
                    loss: Probability::new(0.02).expect("a share"),
                    delay: Duration::from_micros(300),
                    ..Impairment::default()
                },
                Impairment::default(),
                5,
            )),
            ..Setup::default()
        },
        "tcpdump"
    );
    // With offloads on, tcpdump would see the peer's own segments before they are finished. The
    // kernel's beside the service come from the same interface, and are finished on the way.
    interop.lab.peer.sh("ethtool -K peer0 tx off");
    let capture = Capture::start(&interop.lab);
    for to in both(ECHO) {
        interop.connect(to).echo_all(300_000);
        for len in [1, 2, 3, 1459, 1461] {
            interop.connect(to).echo_all(len);
        }
    }
    for to in both(DISCARD) {
        let mut client = interop.connect(to);
        client.send(300_000);
        client.finish_sending();
        client.expect_end();
    }
    for to in both(SOURCE) {
        let mut client = interop.connect(to);
        client.expect_source(100_000);
        client.reset();
    }
    for to in [v4(8), v6(8)] {
        let refused = interop
            .lab
            .peer
            .run(|| TcpStream::connect_timeout(&to, PATIENCE));
        assert!(refused.is_err());
    }
    interop.until_quiet();
    let packets = capture.finish(&interop.lab);
    let segments = Segments::of(&packets, interop.lab.mac_bytes(DEVICE));
    // A check of nothing would find no fault either.
    assert!(segments.v4 > 300 && segments.v6 > 300, "{segments:?}");
    assert!(segments.syn >= 16 && segments.fin >= 14, "{segments:?}");
    assert!(segments.sack > 0, "{segments:?}");
    assert!(segments.rst > 0, "{segments:?}");
    interop.stop();
}
