//! Packets and tables for tests, here and on the real kernel (dataplane/tests/steering_kernel.rs).
#![allow(dead_code, reason = "each test uses a part")]

pub(crate) mod corpus;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use steer::memory::MemoryTables;
use steer::parse::{ethertype, protocol};
use steer::tables::{Address, ExactKey, LocalKey, flag, mac_words};

/// The MAC address of the interface.
pub(crate) const MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 1];

/// An Ethernet frame with these (TPID, TCI) tags, outermost first.
pub(crate) fn frame(tags: &[(u16, u16)], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = MAC.to_vec();
    frame.extend([0x02, 0, 0, 0, 0, 2]);
    for (tpid, tci) in tags {
        frame.extend(tpid.to_be_bytes());
        frame.extend(tci.to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An untagged frame with an IP packet of whichever version.
pub(crate) fn ip_frame(packet: &[u8]) -> Vec<u8> {
    let is_v4 = packet[0] >> 4 == 4;
    frame(
        &[],
        if is_v4 {
            ethertype::IPV4
        } else {
            ethertype::IPV6
        },
        packet,
    )
}

pub(crate) fn v4(text: &str) -> Ipv4Addr {
    text.parse().expect("a test writes addresses")
}

pub(crate) fn v6(text: &str) -> Ipv6Addr {
    text.parse().expect("a test writes addresses")
}

pub(crate) fn address(text: &str) -> Address {
    text.parse::<IpAddr>()
        .expect("a test writes addresses")
        .into()
}

/// The variable parts of an IPv4 header.
#[derive(Clone, Default)]
pub(crate) struct V4 {
    pub(crate) options: Vec<u8>,
    pub(crate) identification: u16,
    pub(crate) flags_offset: u16,
}

/// An IPv4 packet. `options` must be a multiple of four bytes.
pub(crate) fn ipv4(from: &str, to: &str, protocol: u8, header: &V4, payload: &[u8]) -> Vec<u8> {
    let V4 {
        options,
        identification,
        flags_offset,
    } = header;
    let header_len = 20 + options.len();
    let mut packet = vec![0x40 | u8::try_from(header_len / 4).expect("options fit"), 0];
    packet.extend(
        u16::try_from(header_len + payload.len())
            .expect("it fits")
            .to_be_bytes(),
    );
    packet.extend(identification.to_be_bytes());
    packet.extend(flags_offset.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(v4(from).octets());
    packet.extend(v4(to).octets());
    packet.extend(options);
    packet.extend(payload);
    packet
}

/// An IPv6 extension header.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Extension {
    /// Length in 8-byte units beyond the first.
    HopByHop(u8),
    /// Length in 8-byte units beyond the first.
    Destination(u8),
    /// Segments left.
    Routing(u8),
    /// Offset in 8-byte units, more to come, identification.
    Fragment(u16, bool, u32),
    /// Length in 4-byte units, minus 2.
    Authentication(u8),
}

impl Extension {
    fn number(self) -> u8 {
        match self {
            Self::HopByHop(_) => protocol::HOP_BY_HOP,
            Self::Destination(_) => protocol::DESTINATION_OPTIONS,
            Self::Routing(_) => protocol::ROUTING,
            Self::Fragment(..) => protocol::FRAGMENT,
            Self::Authentication(_) => protocol::AUTHENTICATION,
        }
    }

    fn bytes(self, next: u8) -> Vec<u8> {
        let zeros = |len: usize| vec![0; len];
        let mut bytes = vec![next];
        match self {
            Self::HopByHop(units) | Self::Destination(units) => {
                bytes.push(units);
                bytes.extend(zeros(6 + 8 * usize::from(units)));
            }
            Self::Routing(segments_left) => {
                bytes.extend([2, 4, segments_left]);
                bytes.extend(zeros(4 + 16));
            }
            Self::Fragment(offset, more, identification) => {
                bytes.push(0);
                bytes.extend(((offset << 3) | u16::from(more)).to_be_bytes());
                bytes.extend(identification.to_be_bytes());
            }
            Self::Authentication(words) => {
                bytes.push(words);
                bytes.extend(zeros(6 + 4 * usize::from(words)));
            }
        }
        bytes
    }
}

/// An IPv6 packet.
pub(crate) fn ipv6(
    from: &str,
    to: &str,
    extensions: &[Extension],
    protocol: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut chain = Vec::new();
    for (index, extension) in extensions.iter().enumerate() {
        let next = extensions
            .get(index + 1)
            .map_or(protocol, |next| next.number());
        chain.extend(extension.bytes(next));
    }
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(
        u16::try_from(chain.len() + payload.len())
            .expect("it fits")
            .to_be_bytes(),
    );
    packet.extend([
        extensions.first().map_or(protocol, |first| first.number()),
        64,
    ]);
    packet.extend(v6(from).octets());
    packet.extend(v6(to).octets());
    packet.extend(chain);
    packet.extend(payload);
    packet
}

pub(crate) fn udp(from: u16, to: u16) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(from.to_be_bytes());
    segment.extend(to.to_be_bytes());
    segment.extend([0, 12, 0, 0]);
    segment.extend(*b"data");
    segment
}

pub(crate) fn tcp(from: u16, to: u16) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(from.to_be_bytes());
    segment.extend(to.to_be_bytes());
    segment.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    segment
}

/// An ICMP message of either version: eight bytes and what follows.
pub(crate) fn icmp(kind: u8, code: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0, 0, 0, 5, 0];
    message.extend(body);
    message
}

/// A request (1) or a reply (2) for Ethernet and IPv4.
pub(crate) fn arp(operation: u8, sender: &str, target: &str) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, operation];
    packet.extend([0x02, 0, 0, 0, 0, 2]);
    packet.extend(v4(sender).octets());
    packet.extend([0; 6]);
    packet.extend(v4(target).octets());
    packet
}

/// A neighbour solicitation (135) for `target`, or an advertisement (136) of it, with the option
/// that has the sender's link-layer address.
pub(crate) fn neighbor(kind: u8, target: &str) -> Vec<u8> {
    let mut body = v6(target).octets().to_vec();
    // Source link-layer address (1) or target link-layer address (2).
    body.extend([kind - 134, 1, 2, 0, 0, 0, 0, 2]);
    let mut message = icmp(kind, 0, &body);
    message[4..8].fill(0);
    message
}

/// The tables that the corpus is decided by.
pub(crate) fn tables() -> MemoryTables {
    let mut tables = MemoryTables::default();
    tables.config.flags = flag::ENABLED;
    tables.config.mac = mac_words(MAC);
    tables
        .locals
        .extend(["10.0.0.1", "10.0.0.2", "2001:db8::1"].map(address));
    let local = |at: &str, port: u32, protocol: u8| LocalKey {
        address: address(at),
        port,
        protocol: protocol.into(),
    };
    tables.deny.extend([
        local("0.0.0.0", 22, protocol::TCP),
        local("::", 22, protocol::TCP),
        local("10.0.0.1", 53, protocol::UDP),
        // All of one address in a prefix of ours.
        local("10.1.0.66", 0, 0),
        local("2001:db8:1::66", 0, 0),
    ]);
    tables.ports.extend([
        local("10.0.0.1", 7, protocol::UDP),
        local("2001:db8::1", 7, protocol::UDP),
        local("10.0.0.1", 53, protocol::UDP),
        local("10.0.0.1", 22, protocol::TCP),
        local("0.0.0.0", 9, protocol::UDP),
        local("::", 9, protocol::UDP),
        local("0.0.0.0", 80, protocol::TCP),
        local("::", 81, protocol::TCP),
        // On addresses that this host had once.
        local("10.0.0.77", 7, protocol::UDP),
        local("2001:db8::77", 7, protocol::UDP),
    ]);
    for (at, from) in [
        ("10.0.0.1", "10.0.0.9"),
        ("10.0.0.77", "10.0.0.9"),
        ("2001:db8::1", "2001:db8::9"),
        ("2001:db8::77", "2001:db8::9"),
    ] {
        tables.exact.insert(ExactKey {
            local: address(at),
            remote: address(from),
            local_port: 8080,
            remote_port: 5000,
            protocol: protocol::TCP.into(),
        });
    }
    tables.prefixes.insert((address("10.1.0.0"), 96 + 24));
    tables.prefixes.insert((address("2001:db8:1::"), 64));
    tables.sync_flags();
    tables
}
