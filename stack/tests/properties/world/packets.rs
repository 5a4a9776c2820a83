//! Packets, right ones and wrong ones, made from bytes of choice.

pub use super::view::{View, payload_of};
pub use crate::conversation::choices::Choices;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

pub const PEER_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub const PEER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
/// Shared with the kernel.
pub const SHARED_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const SHARED_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// The stack's own.
pub const OWN_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
pub const OWN_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);
/// Where routes lead that are not on the link.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xfe);

/// One of each kind: neighbours, strangers, far ones, ours, and what no packet may come from or go to.
pub const ADDRESSES_V4: [Ipv4Addr; 18] = [
    PEER_V4,
    SHARED_V4,
    OWN_V4,
    Ipv4Addr::new(192, 0, 2, 50),
    Ipv4Addr::new(192, 0, 2, 51),
    Ipv4Addr::new(198, 51, 100, 7),
    Ipv4Addr::new(198, 18, 0, 1),
    Ipv4Addr::new(100, 64, 0, 1),
    Ipv4Addr::new(203, 0, 113, 9),
    GATEWAY_V4,
    Ipv4Addr::new(192, 0, 2, 255),
    Ipv4Addr::BROADCAST,
    Ipv4Addr::new(224, 0, 0, 1),
    Ipv4Addr::LOCALHOST,
    Ipv4Addr::UNSPECIFIED,
    Ipv4Addr::new(0, 1, 2, 3),
    Ipv4Addr::new(240, 0, 0, 1),
    Ipv4Addr::new(192, 0, 2, 0),
];
pub const ADDRESSES_V6: [Ipv6Addr; 17] = [
    PEER_V6,
    SHARED_V6,
    OWN_V6,
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x50),
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x51),
    Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 7),
    Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 7),
    Ipv6Addr::new(0x2001, 0xdb8, 0xdead, 0, 0, 0, 0, 7),
    GATEWAY_V6,
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 9),
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 1),
    Ipv6Addr::LOCALHOST,
    Ipv6Addr::UNSPECIFIED,
    Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0xc000, 0x202),
    Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0xc000, 0x201),
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1),
];
/// Ports that are often bound, and others.
pub const PORTS: [u16; 6] = [7, 9, 4000, 53, 0, 65_535];

const UDP: u8 = 17;
pub const ICMPV4: u8 = 1;
pub const ICMPV6: u8 = 58;
pub const FRAGMENT: u8 = 44;

/// Source and destination of one IP version.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    pub source: IpAddr,
    pub destination: IpAddr,
}

impl Ends {
    /// Mostly from somebody who may, to an address of ours.
    fn choose(choices: &mut Choices<'_>) -> Self {
        let how = choices.byte();
        let v6 = how & 1 != 0;
        let usual = how < 200;
        let (senders, receivers) = match (v6, usual) {
            (false, true) => (
                ADDRESSES_V4[..8].to_vec(),
                vec![SHARED_V4, OWN_V4, SHARED_V4, OWN_V4],
            ),
            (false, false) => (ADDRESSES_V4.to_vec(), ADDRESSES_V4.to_vec()),
            (true, _) => {
                let usual_v6 = |count| ADDRESSES_V6[..count].to_vec();
                let senders = usual_v6(if usual { 7 } else { ADDRESSES_V6.len() });
                let receivers = if usual {
                    vec![SHARED_V6, OWN_V6]
                } else {
                    ADDRESSES_V6.to_vec()
                };
                return Self {
                    source: choices.of(&senders).into(),
                    destination: choices.of(&receivers).into(),
                };
            }
        };
        Self {
            source: choices.of(&senders).into(),
            destination: choices.of(&receivers).into(),
        }
    }

    pub fn new(source: impl Into<IpAddr>, destination: impl Into<IpAddr>) -> Self {
        Self {
            source: source.into(),
            destination: destination.into(),
        }
    }

    pub fn is_v4(self) -> bool {
        self.source.is_ipv4()
    }
}

/// The frames of one decision: several only if it is a datagram in pieces.
pub fn packets(choices: &mut Choices<'_>) -> Vec<Vec<u8>> {
    let mut frames = match choices.below(12) {
        0..=2 => vec![datagram(choices)],
        3 => fragments(choices),
        4 => vec![echo_request(choices)],
        5 | 6 => vec![icmp_error(choices)],
        7 => vec![arp(choices)],
        8 | 9 => vec![neighbor_discovery(choices)],
        10 => {
            let ends = Ends::choose(choices);
            let protocol = choices.of(&[6, 132, 59, 41, 58, 1, 0, 255]);
            let message = vec![0; choices.below(64)];
            vec![ip_frame(ends, protocol, &message, choices)]
        }
        _ => vec![choices.rest().to_vec()],
    };
    if choices.chance(110) {
        let which = choices.below(frames.len());
        mutate(&mut frames[which], choices);
    }
    frames
}

fn datagram(choices: &mut Choices<'_>) -> Vec<u8> {
    let ends = Ends::choose(choices);
    let (from, to) = (choices.of(&[4000, 7, 1, 0, 53]), choices.of(&PORTS));
    let len = choices.of(&[0, 1, 5, 64, 500, 1200, 1432, 1452, 1472, 1480, 2000]);
    let message = udp(ends, from, to, &counting(len, choices.byte()));
    let mut frame = ip_frame(ends, UDP, &message, choices);
    match choices.byte() {
        // No checksum at all, or one that the sender left to its NIC.
        240..=247 => patch_udp_checksum(&mut frame, |_| [0, 0]),
        248.. => patch_udp_checksum(&mut frame, |pseudo| (!checksum(&[pseudo])).to_be_bytes()),
        _ => {}
    }
    if choices.chance(40) {
        // Padding, as Ethernet has it behind short packets.
        let longer = frame.len() + choices.below(60);
        frame.resize(longer, 0xee);
    }
    frame
}

fn patch_udp_checksum(frame: &mut [u8], make: impl Fn(&[u8]) -> [u8; 2]) {
    if let Some(view) = View::of(frame)
        && view.protocol == UDP
        && let Some(field) = frame.get_mut(view.transport.start + 6..view.transport.start + 8)
    {
        let pseudo = pseudo_header(view.ends, UDP, view.transport.len());
        field.copy_from_slice(&make(&pseudo));
    }
}

/// The pieces of a datagram or ping, some of them perhaps missing, twice or backwards.
fn fragments(choices: &mut Choices<'_>) -> Vec<Vec<u8>> {
    let ends = Ends::choose(choices);
    let len = choices.of(&[9, 100, 3000, 8000, 20_000]);
    let fill = choices.byte();
    let (protocol, message) = if choices.chance(60) {
        echo(ends, &counting(len, fill))
    } else {
        let port = choices.of(&PORTS);
        (UDP, udp(ends, 4000, port, &counting(len, fill)))
    };
    // A message of 20,000 bytes in pieces of 8 would be most of what a run does.
    let room = choices.of(&[8, 512, 1400]).max((len / 32) & !7);
    let (number, present) = (choices.word(), choices.word());
    let mut frames = pieces(ends, protocol, &message, room, number);
    let mut index = 0;
    frames.retain(|_| {
        index += 1;
        present >> (index % 16) & 1 == 0
    });
    if choices.chance(80) {
        frames.reverse();
    }
    if choices.chance(40)
        && let Some(again) = frames.first().cloned()
    {
        frames.push(again);
    }
    if frames.is_empty() {
        frames.push(Vec::new());
    }
    frames
}

/// All pieces of a message, `room` bytes each but for the last.
pub fn pieces(ends: Ends, protocol: u8, message: &[u8], room: usize, number: u16) -> Vec<Vec<u8>> {
    let count = message.len().div_ceil(room);
    let piece = |(index, bytes): (usize, &[u8])| {
        let units = u16::try_from(index * room / 8).expect("a datagram's offset");
        let more = u16::from(index + 1 < count);
        if ends.is_v4() {
            let mut frame = ip_frame(ends, protocol, bytes, &mut Choices::new(&[]));
            frame[18..20].copy_from_slice(&number.to_be_bytes());
            frame[20..22].copy_from_slice(&(more << 13 | units).to_be_bytes());
            repair(&mut frame);
            frame
        } else {
            let mut body = vec![protocol, 0];
            body.extend((units << 3 | more).to_be_bytes());
            body.extend(u32::from(number).to_be_bytes());
            body.extend(bytes);
            ip_frame(ends, FRAGMENT, &body, &mut Choices::new(&[]))
        }
    };
    message.chunks(room).enumerate().map(piece).collect()
}

fn echo_request(choices: &mut Choices<'_>) -> Vec<u8> {
    let ends = Ends::choose(choices);
    let len = choices.of(&[56, 0, 1, 500, 1232, 1452, 1472, 1900]);
    let (protocol, mut message) = echo(ends, &counting(len, choices.byte()));
    if choices.chance(20) {
        // A reply that nobody asked for.
        message[0] = if ends.is_v4() { 0 } else { 129 };
    }
    let mut frame = ip_frame(ends, protocol, &message, choices);
    repair(&mut frame);
    frame
}

fn echo(ends: Ends, data: &[u8]) -> (u8, Vec<u8>) {
    let (protocol, kind) = if ends.is_v4() {
        (ICMPV4, 8)
    } else {
        (ICMPV6, 128)
    };
    let mut message = vec![kind, 0, 0, 0, 0x12, 0x34, 0, 7];
    message.extend(data);
    let pseudo = icmp_pseudo(ends, message.len());
    let sum = checksum(&[&pseudo, &message]).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    (protocol, message)
}

fn icmp_error(choices: &mut Choices<'_>) -> Vec<u8> {
    let ends = Ends::choose(choices);
    // What we would have sent, mostly.
    let mut quoted = Ends {
        source: ends.destination,
        destination: ends.source,
    };
    if choices.chance(60) {
        let other = Ends::choose(choices);
        if other.is_v4() == ends.is_v4() {
            quoted = other;
        }
    }
    let (from, to) = (choices.of(&PORTS), choices.of(&[4000, 7, 0]));
    let len = choices.of(&[0, 64, 1200, 1472]);
    let (protocol, message) = match choices.below(4) {
        0 => echo(quoted, &counting(len, 1)),
        _ => (UDP, udp(quoted, from, to, &counting(len, 1))),
    };
    let mut inner = ip_frame(quoted, protocol, &message, choices).split_off(14);
    if choices.chance(60) {
        inner.truncate(choices.below(80));
    } else {
        inner.truncate(540);
    }
    let mtu = choices.of(&[1000, 1280, 1300, 0, 552, 68, 1, 1499, 65_535]);
    let (kind, code) = if ends.is_v4() {
        choices.of(&[(3, 4), (3, 4), (3, 3), (3, 1), (11, 0), (11, 1), (12, 0)])
    } else {
        choices.of(&[(2, 0), (2, 0), (1, 4), (1, 0), (3, 0), (4, 1), (100, 0)])
    };
    let mut body = vec![kind, code, 0, 0, 0, 0];
    body.extend(u16::to_be_bytes(mtu));
    body.extend(inner);
    let protocol = if ends.is_v4() { ICMPV4 } else { ICMPV6 };
    let mut frame = ip_frame(ends, protocol, &body, choices);
    repair(&mut frame);
    frame
}

fn arp(choices: &mut Choices<'_>) -> Vec<u8> {
    let mut frame = ethernet(0x0806, choices);
    frame.extend([0, 1, 8, 0, 6, 4, 0, choices.of(&[1, 1, 2, 3])]);
    frame.extend(mac(choices));
    frame.extend(choices.of(&ADDRESSES_V4).octets());
    frame.extend(choices.of(&[[0; 6], OUR_MAC, [0xff; 6]]));
    frame.extend(
        choices
            .of(&[OWN_V4, SHARED_V4, PEER_V4, Ipv4Addr::new(192, 0, 2, 50)])
            .octets(),
    );
    let padding = choices.of(&[0, 18, 1000]);
    frame.resize(frame.len() + padding, 0xee);
    frame
}

fn neighbor_discovery(choices: &mut Choices<'_>) -> Vec<u8> {
    let target = choices.of(&[
        OWN_V6,
        ADDRESSES_V6[3],
        SHARED_V6,
        PEER_V6,
        GATEWAY_V6,
        ADDRESSES_V6[9],
    ]);
    let source = choices.of(&[
        PEER_V6,
        ADDRESSES_V6[3],
        Ipv6Addr::UNSPECIFIED,
        OWN_V6,
        GATEWAY_V6,
        ADDRESSES_V6[14],
    ]);
    let destination = choices.of(&[
        ADDRESSES_V6[10],
        OWN_V6,
        SHARED_V6,
        ADDRESSES_V6[9],
        ADDRESSES_V6[11],
    ]);
    let solicitation = choices.byte() & 1 == 0;
    let flags = if solicitation { 0 } else { choices.byte() };
    let kind = if solicitation { 135 } else { 136 };
    let mut message = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    message.extend(target.octets());
    for _ in 0..choices.of(&[1, 1, 1, 0, 2, 3]) {
        let kind = choices.of(&[if solicitation { 1 } else { 2 }, 1, 2, 14]);
        message.extend([kind, choices.of(&[1, 1, 1, 1, 1, 0, 2, 255])]);
        message.extend(mac(choices));
    }
    let ends = Ends::new(source, destination);
    let mut frame = ip_frame(ends, ICMPV6, &message, choices);
    frame[21] = choices.of(&[255, 255, 255, 255, 255, 254, 64]);
    if destination.is_multicast() {
        frame[..2].copy_from_slice(&[0x33; 2]);
        frame[2..6].copy_from_slice(&destination.octets()[12..]);
    }
    repair(&mut frame);
    frame
}

/// Mostly the peer's.
fn mac(choices: &mut Choices<'_>) -> [u8; 6] {
    choices.of(&[
        PEER_MAC,
        PEER_MAC,
        PEER_MAC,
        [2, 0, 0, 0, 0, 50],
        OUR_MAC,
        [0; 6],
        [0xff; 6],
        [3; 6],
    ])
}

fn ethernet(ether_type: u16, choices: &mut Choices<'_>) -> Vec<u8> {
    let usual = choices.byte() < 236;
    let (destination, source) = if usual {
        (OUR_MAC, PEER_MAC)
    } else {
        let all = [OUR_MAC, [0xff; 6], [0x33; 6], [9; 6], [8; 6]];
        (choices.of(&all), mac(choices))
    };
    let mut frame = destination.to_vec();
    frame.extend(source);
    frame.extend(ether_type.to_be_bytes());
    frame
}

/// An IP packet in a frame, with options or extension headers now and then, its checksums right
/// where `message` has its own right.
pub fn ip_frame(ends: Ends, protocol: u8, message: &[u8], choices: &mut Choices<'_>) -> Vec<u8> {
    match (ends.source, ends.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut frame = ethernet(0x0800, choices);
            let options: &[u8] = if choices.chance(50) {
                choices.of(&[
                    &[1, 1, 1, 1][..],
                    &[148, 4, 0, 0],
                    &[7, 7, 4, 0, 0, 0, 0, 0],
                    &[0, 255, 255, 255],
                    &[131, 7, 4, 192, 0, 2, 99, 0],
                    &[137, 3, 4, 1],
                    &[68, 0, 1, 1],
                    &[68, 40, 1, 1],
                    &[1; 40],
                ])
            } else {
                &[]
            };
            let words = u8::try_from(5 + options.len() / 4).expect("at most 40 bytes");
            let total = u16::try_from(20 + options.len() + message.len()).unwrap_or(u16::MAX);
            let tos = choices.of(&[0, 0, 0, 1, 2, 3, 0xb8]);
            frame.extend([0x40 | words, tos]);
            frame.extend(total.to_be_bytes());
            frame.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
            frame.extend(options);
            let sum = checksum(&[&frame[14..]]).to_be_bytes();
            frame[24..26].copy_from_slice(&sum);
            frame.extend(message);
            frame
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut frame = ethernet(0x86dd, choices);
            let (next_header, extensions) = if choices.chance(70) {
                extensions(protocol, choices)
            } else {
                (protocol, Vec::new())
            };
            let len = u16::try_from(extensions.len() + message.len()).unwrap_or(u16::MAX);
            frame.extend([0x60, choices.of(&[0, 0, 0, 0x10, 0x20, 0x30]), 0, 0]);
            frame.extend(len.to_be_bytes());
            frame.extend([next_header, 64]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
            frame.extend(extensions);
            frame.extend(message);
            frame
        }
        _ => unreachable!("both ends are of one version"),
    }
}

/// One to nine extension headers in front of `protocol`.
fn extensions(protocol: u8, choices: &mut Choices<'_>) -> (u8, Vec<u8>) {
    const OPTIONS: [[u8; 6]; 7] = [
        [1, 4, 0, 0, 0, 0],
        [0; 6],
        [5, 2, 0, 0, 1, 0],
        [0x1e, 4, 0, 0, 0, 0],
        [0x5e, 4, 0, 0, 0, 0],
        [0x9e, 4, 0, 0, 0, 0],
        [0xde, 40, 0, 0, 0, 0],
    ];
    let count = choices.of(&[1, 1, 1, 2, 2, 3, 7, 8, 9]);
    let kinds: Vec<u8> = (0..count)
        .map(|index| match index {
            0 => choices.of(&[60, 0, 43, 44, 51]),
            _ => choices.of(&[60, 60, 43, 44, 51, 0]),
        })
        .collect();
    let mut bytes = Vec::new();
    for (index, kind) in kinds.iter().enumerate() {
        let next = kinds.get(index + 1).copied().unwrap_or(protocol);
        match kind {
            43 => bytes.extend([next, 0, 4, choices.of(&[0, 0, 1]), 0, 0, 0, 0]),
            // A "fragment" that is the whole datagram, a first and a later one.
            44 => bytes.extend([next, 0, 0, choices.of(&[0, 0, 1, 8]), 0, 0, 0, 5]),
            51 => bytes.extend([next, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2]),
            _ => {
                bytes.extend([next, 0]);
                let usual = choices.byte() < 160;
                bytes.extend(if usual {
                    OPTIONS[0]
                } else {
                    choices.of(&OPTIONS)
                });
            }
        }
    }
    (kinds[0], bytes)
}

pub fn udp(ends: Ends, from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + payload.len()).unwrap_or(u16::MAX);
    let mut message = Vec::with_capacity(8 + payload.len());
    message.extend(from.to_be_bytes());
    message.extend(to.to_be_bytes());
    message.extend(len.to_be_bytes());
    message.extend([0, 0]);
    message.extend(payload);
    let sum = checksum(&[&pseudo_header(ends, UDP, message.len()), &message]);
    // RFC 768: a computed zero is sent as all ones.
    let sum = if sum == 0 { 0xffff } else { sum };
    message[6..8].copy_from_slice(&sum.to_be_bytes());
    message
}

pub fn counting(len: usize, first: u8) -> Vec<u8> {
    let mut next = first;
    let mut bytes = vec![0; len];
    for byte in &mut bytes {
        *byte = next;
        next = next.wrapping_add(1);
    }
    bytes
}

/// A few lies, and perhaps checksums that cover them up.
fn mutate(frame: &mut Vec<u8>, choices: &mut Choices<'_>) {
    for _ in 0..=choices.below(3) {
        let at = usize::from(choices.byte());
        let at = if frame.is_empty() {
            0
        } else {
            at % frame.len().min(128)
        };
        match choices.below(7) {
            0 => {
                let value = choices.byte();
                frame.iter_mut().skip(at).take(1).for_each(|b| *b = value);
            }
            1 => {
                let bit = 1 << choices.below(8);
                frame.iter_mut().skip(at).take(1).for_each(|b| *b ^= bit);
            }
            2 => frame.truncate(at),
            3 => frame.resize(frame.len() + choices.below(256), 0xee),
            4 => {
                let tag = choices.of(&[[0x81, 0, 0, 0], [0x81, 0, 0, 5], [0x88, 0xa8, 0, 100]]);
                tag_frame(frame, &[tag]);
            }
            5 => {
                let all = [0u16, 1, 7, 8, 19, 20, 21, 39, 40, 48, 1280, 0x7fff, 0xffff];
                let word = choices.of(&all).to_be_bytes();
                let bytes = frame.iter_mut().skip(at).take(2);
                bytes.zip(word).for_each(|(b, value)| *b = value);
            }
            _ => {
                let end = (at + choices.below(16)).min(frame.len());
                frame.drain(at..end);
            }
        }
    }
    if choices.byte() & 1 == 0 {
        repair(frame);
    }
}

/// Puts 802.1Q tags, outermost first, into an untagged frame.
pub fn tag_frame(frame: &mut Vec<u8>, tags: &[[u8; 4]]) {
    if frame.len() >= 12 {
        frame.splice(12..12, tags.concat());
    }
}

/// Makes the checksums right, as far as the packet can be read.
pub fn repair(frame: &mut [u8]) {
    let Some((at, ether_type, _)) = payload_of(frame) else {
        return;
    };
    if ether_type == 0x0800 && frame.len() >= at + 20 {
        let end = at + usize::from(frame[at] & 15) * 4;
        if let Some(header) = frame.get(at..end.max(at + 20)) {
            let mut header = header.to_vec();
            header[10..12].fill(0);
            let sum = checksum(&[&header]).to_be_bytes();
            frame[at + 10..at + 12].copy_from_slice(&sum);
        }
    }
    let Some(view) = View::of(frame) else { return };
    if view.piece.is_some_and(|piece| !piece.is_whole()) {
        return;
    }
    let mut transport = view.transport.clone();
    let (field, pseudo) = match view.protocol {
        UDP => {
            if let Some(bytes) = frame.get(transport.start + 4..transport.start + 6) {
                let len = usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
                transport.end = transport.end.min(transport.start + len);
            }
            (6, pseudo_header(view.ends, UDP, transport.len()))
        }
        ICMPV4 | ICMPV6 => (2, icmp_pseudo(view.ends, transport.len())),
        _ => return,
    };
    if transport.len() < 8 {
        return;
    }
    let at = transport.start + field;
    frame[at..at + 2].fill(0);
    let sum = checksum(&[&pseudo, &frame[transport]]);
    let sum = if view.protocol == UDP && sum == 0 {
        0xffff
    } else {
        sum
    };
    frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// RFC 1071 §4.1, word by word. Only the last part may be of odd length.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for part in parts {
        for pair in part.chunks(2) {
            let word = u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]);
            sum += u32::from(word);
            sum = (sum & 0xffff) + (sum >> 16);
        }
    }
    !u16::try_from(sum).expect("the carry was added")
}

/// RFC 768, RFC 8200 §8.1.
pub fn pseudo_header(ends: Ends, protocol: u8, len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for end in [ends.source, ends.destination] {
        match end {
            IpAddr::V4(address) => bytes.extend(address.octets()),
            IpAddr::V6(address) => bytes.extend(address.octets()),
        }
    }
    if ends.is_v4() {
        bytes.extend([0, protocol]);
        bytes.extend(u16::try_from(len).unwrap_or(0).to_be_bytes());
    } else {
        bytes.extend(u32::try_from(len).unwrap_or(0).to_be_bytes());
        bytes.extend([0, 0, 0, protocol]);
    }
    bytes
}

/// ICMP has a pseudo-header over IPv6 only (RFC 792, RFC 4443 §2.3).
pub fn icmp_pseudo(ends: Ends, len: usize) -> Vec<u8> {
    if ends.is_v4() {
        Vec::new()
    } else {
        pseudo_header(ends, ICMPV6, len)
    }
}
