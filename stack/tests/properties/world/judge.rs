//! Looks at every frame that leaves, and knows what may leave. It shares no code with the stack.

use super::packets::*;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// A datagram: who sends it, who gets it, what is in it.
pub type Message = (SocketAddr, SocketAddr, Vec<u8>);

/// What may at times be ours.
const ADDRESSES_OF_OURS: [IpAddr; 4] = [
    IpAddr::V4(SHARED_V4),
    IpAddr::V4(OWN_V4),
    IpAddr::V6(SHARED_V6),
    IpAddr::V6(OWN_V6),
];

/// What was heard, what was promised, and what is allowed.
pub struct Judge {
    /// The longest IP packet, in bytes.
    pub mtu: usize,
    pub vlans: Vec<u16>,
    pub ttl: u8,
    /// Addresses that were ours all the time.
    pub ours: Vec<IpAddr>,
    /// Frames the stack was given: what it may quote.
    heard: Vec<Vec<u8>>,
    /// Datagrams the stack accepted for sending.
    promised: Vec<Message>,
    /// Pings it may answer: our address, the peer's, what it carried.
    pinged: Vec<(IpAddr, IpAddr, Vec<u8>)>,
    /// Pings that came in pieces, whose content is not known here.
    pinged_in_pieces: u64,
    /// Pieces sent, by datagram.
    pieces: BTreeMap<(IpAddr, IpAddr, u32, u8), Vec<u8>>,
}

/// Says which frame a panic is about.
pub struct ShownOnPanic<'a>(pub &'static str, pub &'a [u8]);

impl Drop for ShownOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self(what, frame) = self;
            eprintln!("{what}, {} bytes: {frame:02x?}", frame.len());
        }
    }
}

impl Judge {
    pub fn new(mtu: usize, vlans: &[u16], ttl: u8) -> Self {
        Self {
            mtu,
            vlans: vlans.to_vec(),
            ttl,
            ours: ADDRESSES_OF_OURS.to_vec(),
            heard: Vec::new(),
            promised: Vec::new(),
            pinged: Vec::new(),
            pinged_in_pieces: 0,
            pieces: BTreeMap::new(),
        }
    }

    pub fn hear(&mut self, frame: &[u8]) {
        self.heard.push(frame.to_vec());
    }

    pub fn expect_datagram(&mut self, message: Message) {
        self.promised.push(message);
    }

    /// The stack says that it answered the ping in `frame`.
    pub fn expect_echo(&mut self, frame: &[u8]) {
        let view = View::of(frame).expect("an answered ping can be read");
        if view.piece.is_some_and(|piece| !piece.is_whole()) {
            self.pinged_in_pieces += 1;
            return;
        }
        let message = &frame[view.transport.clone()];
        let Ends {
            source,
            destination,
        } = view.ends;
        self.pinged
            .push((destination, source, message[4..].to_vec()));
    }

    /// Everything there is to say about a frame that leaves.
    pub fn look(&mut self, frame: &[u8]) {
        let _shown = ShownOnPanic("sent", frame);
        let (at, ether_type, vlans) = payload_of(frame).expect("an Ethernet header");
        assert_eq!(frame[6..12], OUR_MAC, "sent from our address");
        assert_ne!(frame[..6], OUR_MAC, "not to ourselves");
        assert_eq!(vlans, self.vlans, "in our VLAN");
        if ether_type == 0x0806 {
            return Self::look_at_arp(frame, at);
        }
        let parsed = etherparse::SlicedPacket::from_ethernet(frame);
        assert!(parsed.is_ok(), "{parsed:?}");
        let view = View::of(frame).expect("an IP packet");
        assert_eq!(
            at + view.len,
            frame.len(),
            "the frame ends where the packet does"
        );
        self.look_at_addresses(frame, &view);
        let is_discovery = self.look_at_discovery(frame, &view);
        if !is_discovery {
            assert!(
                view.len <= self.mtu,
                "{} bytes over an MTU of {}",
                view.len,
                self.mtu
            );
            assert_eq!(frame[0] & 1, 0, "to one station");
            assert_eq!(view.ttl, self.ttl);
        }
        if view.ends.source.is_ipv4() {
            let header = &frame[at..view.transport.start];
            assert_eq!(header.len(), 20, "no options");
            assert_eq!(checksum(&[header]), 0, "the header's checksum");
        }
        self.look_at_message(frame, &view);
    }

    fn look_at_arp(frame: &[u8], at: usize) {
        let arp = &frame[at..];
        assert!(arp.len() >= 28 && frame.len() <= 60 + 8, "an ARP packet");
        assert_eq!(arp[..6], [0, 1, 8, 0, 6, 4]);
        assert_eq!(arp[8..14], OUR_MAC, "the sender is where it says");
        match arp[7] {
            1 => {}
            2 => assert_eq!(frame[0] & 1, 0, "a reply goes to one station"),
            other => panic!("ARP operation {other}"),
        }
        let to_group = frame[0] & 1 != 0;
        assert!(!to_group || frame[..6] == [0xff; 6]);
    }

    fn look_at_addresses(&self, frame: &[u8], view: &View) {
        let Ends {
            source,
            destination,
        } = view.ends;
        let probe = source == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
            && view.protocol == 58
            && frame[view.transport.start] == 135;
        assert!(
            ADDRESSES_OF_OURS.contains(&source) || probe,
            "from {source}"
        );
        assert!(!self.ours.contains(&destination), "to ourselves");
        assert!(!destination.is_unspecified() && !destination.is_loopback());
        match destination {
            IpAddr::V4(to) => {
                let last = to.octets() == [192, 0, 2, 255];
                assert!(!to.is_broadcast() && !to.is_multicast() && !last, "to {to}");
                assert!(to.octets()[0] != 0 && to.octets()[0] < 240, "to {to}");
            }
            IpAddr::V6(to) => {
                assert_eq!(to.to_ipv4_mapped(), None, "mapped addresses stay at home");
            }
        }
    }

    /// A solicitation or advertisement goes to its group or to one station (RFC 4861 §7).
    fn look_at_discovery(&self, frame: &[u8], view: &View) -> bool {
        let IpAddr::V6(destination) = view.ends.destination else {
            return false;
        };
        let message = &frame[view.transport.clone()];
        let is_discovery =
            view.protocol == 58 && view.piece.is_none() && matches!(message[0], 135 | 136);
        if !is_discovery {
            assert!(!destination.is_multicast());
            return false;
        }
        assert_eq!(view.ttl, 255);
        let target: [u8; 16] = message[8..24].try_into().expect("16 bytes");
        if destination.is_multicast() {
            let group = destination.octets();
            assert_eq!(frame[..2], [0x33; 2]);
            assert_eq!(frame[2..6], group[12..]);
            if message[0] == 135 {
                assert_eq!(group[13..], target[13..], "the solicited-node group");
                assert_eq!(group[..13], [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff]);
            } else {
                assert_eq!(destination, ADDRESSES_V6[9], "all nodes");
                assert_eq!(message[4] & 0x40, 0, "nobody asked");
            }
        } else {
            assert_eq!(frame[0] & 1, 0, "to one station");
        }
        true
    }

    /// The transport message, put together if it leaves in pieces.
    fn look_at_message(&mut self, frame: &[u8], view: &View) {
        let bytes = &frame[view.transport.clone()];
        let Ends {
            source,
            destination,
        } = view.ends;
        let Some(piece) = view.piece else {
            return self.look_at_whole(view.ends, view.protocol, bytes);
        };
        assert!(!bytes.is_empty());
        assert!(!piece.more || bytes.len().is_multiple_of(8));
        let key = (source, destination, piece.number, view.protocol);
        if piece.offset == 0 {
            self.pieces.insert(key, Vec::new());
        }
        let Some(sent) = self.pieces.get_mut(&key) else {
            // The first piece was dropped on its way out, which was counted.
            return;
        };
        if sent.len() != piece.offset {
            self.pieces.remove(&key);
            return;
        }
        sent.extend(bytes);
        if !piece.more {
            let whole = self.pieces.remove(&key).expect("it was there");
            self.look_at_whole(view.ends, view.protocol, &whole);
        }
    }

    fn look_at_whole(&mut self, ends: Ends, protocol: u8, message: &[u8]) {
        match (ends.source.is_ipv4(), protocol) {
            (_, 17) => self.look_at_udp(ends, message),
            (true, 1) | (false, 58) => {
                let pseudo = icmp_pseudo(ends, message.len());
                assert_eq!(checksum(&[&pseudo, message]), 0, "the ICMP checksum");
                self.look_at_icmp(ends, message);
            }
            _ => panic!("protocol {protocol} from nowhere"),
        }
    }

    fn look_at_udp(&mut self, ends: Ends, message: &[u8]) {
        let pseudo = pseudo_header(ends, 17, message.len());
        assert_eq!(
            usize::from(u16::from_be_bytes([message[4], message[5]])),
            message.len()
        );
        assert_ne!(message[6..8], [0, 0], "a checksum");
        assert_eq!(checksum(&[&pseudo, message]), 0, "the UDP checksum");
        let port = |at: usize| u16::from_be_bytes([message[at], message[at + 1]]);
        assert!(port(0) != 0 && port(2) != 0, "from and to somebody");
        let found = self.promised.iter().position(|(from, to, payload)| {
            *from == SocketAddr::new(ends.source, port(0))
                && *to == SocketAddr::new(ends.destination, port(2))
                && *payload == message[8..]
        });
        let found = found.expect("somebody sent this datagram");
        self.promised.swap_remove(found);
    }

    fn look_at_icmp(&mut self, ends: Ends, message: &[u8]) {
        let v4 = ends.source.is_ipv4();
        let (kind, code) = (message[0], message[1]);
        match (v4, kind, code) {
            (true, 0, 0) | (false, 129, 0) => self.look_at_echo(ends, message),
            (true, 3, 2 | 3)
            | (true, 11, 1)
            | (false, 1, 4)
            | (false, 3, 1)
            | (false, 4, 0..=2) => {
                self.look_at_error(ends, message);
            }
            (false, 135 | 136, 0) => {}
            _ => panic!("ICMP type {kind} code {code}"),
        }
    }

    fn look_at_echo(&mut self, ends: Ends, message: &[u8]) {
        let found = self.pinged.iter().position(|(ours, theirs, body)| {
            (*ours, *theirs) == (ends.source, ends.destination) && *body == message[4..]
        });
        match found {
            Some(index) => {
                self.pinged.swap_remove(index);
            }
            None => {
                assert!(self.pinged_in_pieces > 0, "an answer to no ping");
                self.pinged_in_pieces -= 1;
            }
        }
    }

    /// RFC 1122 §3.2.2 and RFC 4443 §2.4: which packets may be answered with an error, and what the
    /// error quotes.
    fn look_at_error(&self, ends: Ends, message: &[u8]) {
        let quoted = &message[8..];
        let view = View::of_packet(quoted, 0).expect("an error quotes a packet");
        assert_eq!(view.ends.source, ends.destination, "to the quoted source");
        assert_eq!(view.ends.destination, ends.source, "from who was meant");
        assert!(quoted.len() <= view.len, "what pads a frame is not quoted");
        assert!(
            !view.is_icmp_error(quoted),
            "an error answered with an error"
        );
        // IPv6 may complain of options in front of any piece.
        let about_header = ends.source.is_ipv6() && message[0] == 4;
        let first = about_header || view.piece.is_none_or(|piece| piece.offset == 0);
        assert!(first, "an error about a piece other than the first");
        // What was put together from pieces is quoted as the datagram that it is.
        let whole_of_pieces = matches!(
            (ends.source.is_ipv4(), message[0]),
            (true, 3) | (false, 1 | 4)
        ) && self
            .heard
            .iter()
            .filter_map(|frame| View::of(frame))
            .any(|heard| heard.piece.is_some() && heard.ends.source == view.ends.source);
        let heard = |frame: &Vec<u8>| {
            View::of(frame)
                .is_some_and(|heard| frame[heard.at..].starts_with(quoted) && frame[0] & 1 == 0)
        };
        assert!(
            whole_of_pieces || self.heard.iter().any(heard),
            "a quote of something never heard"
        );
    }
}
