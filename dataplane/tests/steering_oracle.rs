//! The steering function against an oracle: the stack's own parsers, and rules looked up in plain
//! lists. Where the stack accepts a packet, steering must have understood it the same way.

#[path = "../../ebpf/steer/tests/common/mod.rs"]
mod common;

use common::corpus::corpus;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use stack::wire::{checksum::Sum, ethernet, ipv4, ipv6, udp};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use steer::memory::MemoryTables;
use steer::parse::{EXTENSION_HEADER_COUNT_MAX, protocol};
use steer::{Verdict, steer};

/// An IP packet as the stack's parsers see it.
struct Parsed {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    payload: std::ops::Range<usize>,
    first_fragment: bool,
    later_fragment: bool,
}

/// `None` where the stack refuses the packet.
fn parse(data: &[u8], at: usize, is_v4: bool, quoted: bool) -> Option<Parsed> {
    if is_v4 {
        let packet = if quoted {
            ipv4::Packet::new_embedded(data, at).ok()?
        } else {
            ipv4::Packet::new_checked(data, at).ok()?
        };
        return Some(Parsed {
            source: packet.source().into(),
            destination: packet.destination().into(),
            protocol: packet.protocol(),
            payload: packet.payload(),
            first_fragment: packet.is_fragment() && packet.fragment_offset() == 0,
            later_fragment: packet.fragment_offset() != 0,
        });
    }
    let packet = if quoted {
        ipv6::Packet::new_embedded(data, at).ok()?
    } else {
        ipv6::Packet::new_checked(data, at).ok()?
    };
    let fragment = packet.fragment();
    Some(Parsed {
        source: packet.source().into(),
        destination: packet.destination().into(),
        protocol: packet.protocol(),
        payload: packet.payload(),
        first_fragment: fragment.is_some_and(|piece| piece.offset == 0 && piece.more),
        later_fragment: fragment.is_some_and(|piece| piece.offset != 0),
    })
}

/// How many IPv6 extension headers there are: steering follows fewer than the stack.
fn extension_count(data: &[u8], at: usize) -> usize {
    extensions(data, at).len()
}

/// Whether a routing header of this IPv6 packet names nodes that it has yet to visit.
fn is_en_route(data: &[u8], at: usize) -> bool {
    extensions(data, at)
        .iter()
        .any(|&(kind, at)| kind == protocol::ROUTING && data[at + 3] != 0)
}

/// The kinds of an IPv6 packet's extension headers, and where each starts.
fn extensions(data: &[u8], mut at: usize) -> Vec<(u8, usize)> {
    let mut next = data[at + 6];
    at += 40;
    let mut found = Vec::new();
    while matches!(next, 0 | 43 | 44 | 51 | 60) && at + 8 <= data.len() {
        let units = usize::from(data[at + 1]);
        let len = match next {
            44 => 8,
            51 => (units + 2) * 4,
            _ => (units + 1) * 8,
        };
        found.push((next, at));
        next = data[at];
        at += len;
    }
    found
}

/// The rules as lists of what people would write.
struct Oracle<'a>(&'a MemoryTables);

impl Oracle<'_> {
    fn denied(&self, number: u8, local: IpAddr, port: Option<u16>) -> bool {
        self.0.deny.iter().any(|rule| {
            let address = IpAddr::from(rule.address);
            let same_address = address == local
                || (address.is_unspecified() && address.is_ipv4() == local.is_ipv4());
            let same_port = rule.port == 0 || port.map(u32::from) == Some(rule.port);
            let same_protocol = rule.protocol == 0 || rule.protocol == u32::from(number);
            same_address && same_port && same_protocol
        })
    }

    fn flow(&self, number: u8, local: (IpAddr, u16), remote: (IpAddr, u16)) -> Option<Verdict> {
        let tables = self.0;
        let is_local = tables
            .locals
            .iter()
            .any(|&address| IpAddr::from(address) == local.0);
        if !is_local {
            return None;
        }
        if tables.exact.iter().any(|rule| {
            (IpAddr::from(rule.local), rule.local_port) == local
                && (IpAddr::from(rule.remote), rule.remote_port) == remote
                && rule.protocol == u32::from(number)
        }) {
            return Some(Verdict::RedirectExact);
        }
        let on = |address: IpAddr| {
            tables.ports.iter().any(|rule| {
                IpAddr::from(rule.address) == address
                    && rule.port == u32::from(local.1)
                    && rule.protocol == u32::from(number)
            })
        };
        if on(local.0) {
            return Some(Verdict::RedirectPort);
        }
        let any = if local.0.is_ipv4() {
            IpAddr::from([0_u8; 4])
        } else {
            IpAddr::from([0_u8; 16])
        };
        on(any).then_some(Verdict::RedirectPortAny)
    }

    fn owned(&self, address: IpAddr) -> bool {
        self.0
            .prefixes
            .iter()
            .any(|&(prefix, len)| match (IpAddr::from(prefix), address) {
                (IpAddr::V4(prefix), IpAddr::V4(address)) => {
                    let len = len - 96;
                    prefix.to_bits() >> (32 - len) == address.to_bits() >> (32 - len)
                }
                (IpAddr::V6(prefix), IpAddr::V6(address)) => {
                    prefix.to_bits() >> (128 - len) == address.to_bits() >> (128 - len)
                }
                _ => false,
            })
    }

    /// What steering must say; `None` where the stack refuses the packet, about which it says nothing.
    fn verdict(&self, data: &[u8]) -> Option<Verdict> {
        let Ok(link) = ethernet::Packet::new_checked(data) else {
            return Some(Verdict::PassMalformed);
        };
        let destination = &data[..6];
        if destination[0] & 1 == 0 && destination != common::MAC {
            return Some(Verdict::PassNotOurMac);
        }
        let is_tag = matches!(
            link.ether_type(),
            ethernet::TYPE_VLAN | ethernet::TYPE_SERVICE_VLAN
        );
        if !link.vlans().as_slice().is_empty() || is_tag {
            return Some(Verdict::PassVlan);
        }
        let is_v4 = match link.ether_type() {
            ethernet::TYPE_IPV4 => true,
            ethernet::TYPE_IPV6 => false,
            ethernet::TYPE_ARP => return None,
            _ => return Some(Verdict::PassProtocol),
        };
        let at = link.payload_offset();
        let packet = parse(data, at, is_v4, false)?;
        let mapped =
            |address: IpAddr| matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
        if packet.destination.is_unspecified()
            || mapped(packet.source)
            || mapped(packet.destination)
        {
            return Some(Verdict::PassMalformed);
        }
        let open = match self.by_flow(data, at, is_v4, &packet)? {
            decided if decided.redirects() || decided == Verdict::PassDenied => {
                return Some(decided);
            }
            open => open,
        };
        Some(if self.owned(packet.destination) {
            Verdict::RedirectPrefix
        } else {
            open
        })
    }

    fn by_flow(&self, data: &[u8], at: usize, is_v4: bool, packet: &Parsed) -> Option<Verdict> {
        if !packet.later_fragment && self.denied(packet.protocol, packet.destination, None) {
            return Some(Verdict::PassDenied);
        }
        if packet.later_fragment {
            // IPv6: steering sees the fragment header where the stack sees what it names.
            let number = if is_v4 {
                packet.protocol
            } else {
                protocol::FRAGMENT
            };
            let denied = self.denied(number, packet.destination, None);
            return Some(if denied {
                Verdict::PassDenied
            } else {
                Verdict::PassFragment
            });
        }
        if !is_v4 && extension_count(data, at) > EXTENSION_HEADER_COUNT_MAX as usize {
            return Some(Verdict::PassExtensionHeaders);
        }
        let payload = data.get(packet.payload.clone())?;
        let short = if packet.first_fragment {
            Verdict::PassFragment
        } else {
            Verdict::PassMalformed
        };
        let (source, destination) = match packet.protocol {
            protocol::UDP if payload.len() < udp::HEADER_LEN => return Some(short),
            // The whole length of a fragmented datagram is not in its first fragment.
            protocol::UDP if packet.first_fragment => udp::embedded_ports(payload, 0)?,
            protocol::UDP => {
                let datagram = udp::Packet::new_checked(data, packet.payload.clone()).ok()?;
                (datagram.source_port(), datagram.destination_port())
            }
            protocol::TCP if payload.len() < 20 => return Some(short),
            protocol::TCP => udp::embedded_ports(payload, 0)?,
            protocol::ICMP if is_v4 => return self.icmp(data, is_v4, packet, short),
            protocol::ICMPV6 if !is_v4 => return self.icmp(data, is_v4, packet, short),
            // Extension headers behind that of a first fragment are read after reassembly.
            0 | 43 | 44 | 51 | 60 if !is_v4 => return None,
            _ => return Some(Verdict::PassUnmatched),
        };
        let (local, remote) = ((packet.destination, destination), (packet.source, source));
        if self.denied(packet.protocol, local.0, Some(local.1)) {
            return Some(Verdict::PassDenied);
        }
        Some(
            self.flow(packet.protocol, local, remote)
                .unwrap_or(Verdict::PassUnmatched),
        )
    }

    fn icmp(&self, data: &[u8], is_v4: bool, packet: &Parsed, short: Verdict) -> Option<Verdict> {
        let data = &data[..packet.payload.end];
        let at = packet.payload.start;
        if packet.payload.len() < 8 {
            return Some(short);
        }
        match data[at] {
            3 | 11 | 12 if is_v4 => {}
            0..128 if !is_v4 => {}
            kind @ (135 | 136) if !is_v4 => {
                return Some(self.discovery(kind, data, at, packet, short));
            }
            _ => return Some(Verdict::PassUnmatched),
        }
        let quoted = parse(data, at + 8, is_v4, true)?;
        if !is_v4 && extension_count(data, at + 8) > EXTENSION_HEADER_COUNT_MAX as usize {
            return Some(Verdict::PassUnmatched);
        }
        // A quoted packet on its way through others is none that we sent: we send no routing headers.
        // The stack does not mind.
        let en_route = !is_v4 && is_en_route(data, at + 8);
        if quoted.source != packet.destination || quoted.later_fragment || en_route {
            return Some(Verdict::PassUnmatched);
        }
        if !matches!(quoted.protocol, protocol::UDP | protocol::TCP) {
            // Some of what steering stops at, the stack goes past in a quoted packet.
            return None;
        }
        let Some((ours, theirs)) = udp::embedded_ports(data, quoted.payload.start) else {
            return Some(Verdict::PassMalformed);
        };
        if self.denied(quoted.protocol, quoted.source, Some(ours)) {
            return Some(Verdict::PassDenied);
        }
        let local = (quoted.source, ours);
        let ours = self
            .flow(quoted.protocol, local, (quoted.destination, theirs))
            .is_some();
        Some(if ours {
            Verdict::RedirectIcmpError
        } else {
            Verdict::PassUnmatched
        })
    }

    /// Neighbour solicitations (135) and advertisements (136).
    fn discovery(
        &self,
        kind: u8,
        data: &[u8],
        at: usize,
        packet: &Parsed,
        short: Verdict,
    ) -> Verdict {
        // RFC 6980 §5.
        if packet.first_fragment {
            return Verdict::PassUnmatched;
        }
        let Some(target) = data.get(at + 8..at + 24) else {
            return short;
        };
        let octets: [u8; 16] = target.try_into().expect("sixteen bytes");
        let target = IpAddr::from(octets);
        let mut group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0).octets();
        group[13..].copy_from_slice(&octets[13..]);
        if kind == 136 {
            group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).octets();
        }
        if packet.destination != IpAddr::from(group) {
            Verdict::PassUnmatched
        } else if self.denied(protocol::ICMPV6, target, None) {
            Verdict::PassDenied
        } else if self.owned(target) {
            Verdict::RedirectNeighbor
        } else {
            Verdict::PassUnmatched
        }
    }
}

/// Makes the IPv4 header checksum right again: the stack refuses a packet for a wrong one, and
/// steering does not look at it.
fn repair(frame: &mut [u8]) {
    let header = 14..34;
    if frame.get(12..14) == Some(&[8, 0]) && frame.len() >= header.end {
        let len = usize::from(frame[14] & 0x0f) * 4;
        let end = (14 + len).clamp(header.end, frame.len());
        frame[24..26].fill(0);
        let mut sum: u32 = frame[14..end]
            .chunks(2)
            .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
            .sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        let checksum = !u16::try_from(sum).expect("folded");
        frame[24..26].copy_from_slice(&checksum.to_be_bytes());
        assert!(Sum::ZERO.add_bytes(&frame[14..end]).is_valid());
    }
}

/// What headers are made of, so that mutations reach branches and not only arbitrary fields.
const TELLING: [u8; 25] = [
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 17, 20, 22, 43, 44, 0x45, 0x46, 51, 53, 58, 60, 135, 136,
];

fn frames() -> impl Strategy<Value = Vec<u8>> {
    let frames: Vec<_> = corpus().into_iter().map(|case| case.frame).collect();
    let value = prop_oneof![prop::sample::select(&TELLING[..]), any::<u8>()];
    let edits = prop::collection::vec((0..100_usize, value), 0..4);
    let cut = prop::option::weighted(0.2, any::<prop::sample::Index>());
    (any::<prop::sample::Index>(), edits, cut).prop_map(move |(which, edits, cut)| {
        let mut frame = which.get(&frames).clone();
        for (at, value) in edits {
            // Not the Ethernet type: that would lose most packets.
            if let Some(byte) = frame.get_mut(14 + at) {
                *byte = value;
            }
        }
        if let Some(cut) = cut {
            frame.truncate(cut.index(frame.len() + 1));
        }
        repair(&mut frame);
        frame
    })
}

#[test]
fn steering_understands_packets_as_the_stack_does() {
    let tables = common::tables();
    let agreed = Cell::new(0);
    let by_verdict = std::cell::RefCell::new(BTreeMap::<Verdict, u32>::new());
    let cases = 30_000;
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    });
    let outcome = runner.run(&frames(), |frame| {
        tables.fragments.borrow_mut().clear();
        if let Some(expected) = Oracle(&tables).verdict(&frame) {
            prop_assert_eq!(steer(&frame[..], &tables), expected);
            agreed.set(agreed.get() + 1);
            *by_verdict.borrow_mut().entry(expected).or_default() += 1;
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    // An oracle that has nothing to say, or always the same, proves nothing.
    assert!(
        agreed.get() > cases / 2,
        "the oracle judged only {} packets",
        agreed.get()
    );
    let by_verdict = by_verdict.into_inner();
    for verdict in Verdict::ALL {
        let elsewhere = matches!(
            verdict,
            // ARP has no IP packet to compare; the rest are not decisions about one packet alone.
            Verdict::RedirectArp
                | Verdict::RedirectFragment
                | Verdict::PassDisabled
                | Verdict::PassNoWorker
        );
        assert!(
            elsewhere || by_verdict.contains_key(verdict),
            "{} never came up",
            verdict.name()
        );
    }
}
