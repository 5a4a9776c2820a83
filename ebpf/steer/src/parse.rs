//! From the Ethernet header down to where the transport header starts.
//!
//! Steering does not validate what the stack validates anyway; it looks at what it needs to find
//! the addresses and ports, and at the lengths that keep it inside the packet.

use crate::packet::{Header, Packet};
use crate::tables::Address;
use crate::verdict::Verdict;

/// Values of the Ethernet type field (IEEE 802 Numbers, IANA).
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// An 802.1Q tag.
    pub const VLAN: u16 = 0x8100;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// An 802.1ad service tag.
    pub const SERVICE_VLAN: u16 = 0x88a8;
}

/// IP protocol and next header numbers (Assigned Internet Protocol Numbers, IANA).
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// Authentication header.
    pub const AUTHENTICATION: u8 = 51;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: u8 = 60;
}

/// Extension headers followed per packet. RFC 8200 §4.1 recommends an order in which seven occur,
/// two of them security headers seldom seen together; each costs the verifier a round of a loop.
pub const EXTENSION_HEADER_COUNT_MAX: u32 = 6;

/// What the Ethernet header and its VLAN tags say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The destination, as in [`Config::mac`](crate::Config::mac).
    pub destination: [u32; 2],
    /// The type behind the tags. Still a tag's type if there are more than two.
    pub ethertype: u16,
    /// The tags, as in [`Config::vlan_stack`](crate::Config::vlan_stack).
    pub vlan_stack: u32,
    /// Where the payload starts, in bytes from the start of the packet.
    pub at: u32,
}

impl Link {
    /// Whether it is sent to many stations: the lowest bit of the first byte (IEEE 802-2014 §8.2.2).
    #[inline(always)]
    #[must_use]
    pub const fn is_group(&self) -> bool {
        self.destination[0] & 0x0100_0000 != 0
    }
}

/// The Ethernet header and up to two VLAN tags.
#[inline(always)]
pub fn link<P: Packet + ?Sized>(packet: &P) -> Result<Link, Verdict> {
    let ethernet = packet.header::<14>(0).ok_or(Verdict::PassMalformed)?;
    let mut link = Link {
        destination: [ethernet.u32::<0>(), u32::from(ethernet.u16::<4>())],
        ethertype: ethernet.u16::<12>(),
        vlan_stack: 0,
        at: 14,
    };
    for _ in 0..2 {
        if !matches!(link.ethertype, ethertype::VLAN | ethertype::SERVICE_VLAN) {
            break;
        }
        let tag = packet.header::<4>(link.at).ok_or(Verdict::PassMalformed)?;
        let vid = u32::from(tag.u16::<0>() & 0x0fff);
        if vid != 0 {
            link.vlan_stack = (link.vlan_stack << 16) | vid;
        }
        link.ethertype = tag.u16::<2>();
        link.at += 4;
    }
    Ok(link)
}

/// Which part of a packet this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// All of it.
    Whole,
    /// Its start, which has the transport header; with the identification.
    First(u32),
    /// A later part, which has no transport header; with the identification.
    Later(u32),
}

/// What an IP header and its extension headers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// What starts at `at`: the transport protocol, or the header at which the search for it ended.
    pub protocol: u8,
    /// Where that starts, in bytes from the start of the packet.
    pub at: u32,
    /// Where the IP payload ends, in bytes from the start of the packet.
    pub end: u32,
    /// Which part of a packet this is.
    pub fragment: Fragment,
    /// Why the transport header could not be looked for. The addresses are good all the same.
    pub obstacle: Option<Verdict>,
}

/// Where an IP header is found, which decides whether all that it announces must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a frame: the packet is complete.
    Frame,
    /// Quoted by an ICMP error, which may cut it short (RFC 792, RFC 4443 §3).
    Quoted,
}

/// The IPv4 header at `at` (RFC 791 §3.1).
///
/// # Errors
///
/// [`Verdict::PassMalformed`] if it is truncated or contradicts itself.
#[inline(always)]
pub fn ipv4<P: Packet + ?Sized>(packet: &P, at: u32, place: Place) -> Result<Datagram, Verdict> {
    let header = packet.header::<20>(at).ok_or(Verdict::PassMalformed)?;
    let version_ihl = header.u8::<0>();
    let header_len = u32::from(version_ihl & 0x0f) * 4;
    let total_len = u32::from(header.u16::<2>());
    if version_ihl >> 4 != 4 || header_len < 20 || total_len < header_len {
        return Err(Verdict::PassMalformed);
    }
    let end = at + total_len;
    if place == Place::Frame && !packet.has_len(end) {
        return Err(Verdict::PassMalformed);
    }
    let destination = header.u32::<16>();
    if destination == 0 {
        // RFC 1122 §3.2.1.3 (a): 0.0.0.0 MUST NOT be used as a destination. Here it would be
        // taken for the "any address" of the port table.
        return Err(Verdict::PassMalformed);
    }
    let identification = u32::from(header.u16::<4>());
    let flags_offset = header.u16::<6>();
    let fragment = if flags_offset & 0x1fff != 0 {
        Fragment::Later(identification)
    } else if flags_offset & 0x2000 != 0 {
        Fragment::First(identification)
    } else {
        Fragment::Whole
    };
    Ok(Datagram {
        source: Address::from_v4_word(header.u32::<12>()),
        destination: Address::from_v4_word(destination),
        protocol: header.u8::<9>(),
        at: at + header_len,
        end,
        fragment,
        obstacle: None,
    })
}

/// The IPv6 header at `at` (RFC 8200 §3) and its extension headers.
///
/// The search for the transport header ends, without an error, at a header that the stack or the
/// kernel must judge: an unknown one, hop-by-hop options that are not first (RFC 8200 §4.1), a
/// routing header that has not yet reached its destination, a second fragment header.
///
/// # Errors
///
/// [`Verdict::PassMalformed`] if the IPv6 header is truncated or contradicts itself.
#[inline(always)]
pub fn ipv6<P: Packet + ?Sized>(packet: &P, at: u32, place: Place) -> Result<Datagram, Verdict> {
    let header = packet.header::<40>(at).ok_or(Verdict::PassMalformed)?;
    let start = at + 40;
    let end = start + u32::from(header.u16::<4>());
    if header.u8::<0>() >> 4 != 6 || (place == Place::Frame && !packet.has_len(end)) {
        return Err(Verdict::PassMalformed);
    }
    let (source, destination) = (address(&header, false), address(&header, true));
    // IPv4-mapped addresses never appear on the wire (RFC 4291 §2.5.5.2 gives them to nodes, Linux
    // `ip6_rcv_core` drops them); here they would be taken for IPv4. The unspecified address MUST NOT
    // be a destination (RFC 4291 §2.5.2); here it would be taken for "any".
    if source.is_v4() || destination.is_v4() || destination == Address::ANY_V6 {
        return Err(Verdict::PassMalformed);
    }
    let mut chain = Chain {
        protocol: header.u8::<6>(),
        at: start,
        fragment: Fragment::Whole,
    };
    let mut obstacle = Some(Verdict::PassExtensionHeaders);
    for _ in 0..=EXTENSION_HEADER_COUNT_MAX {
        match chain.step(packet, start, end) {
            Step::Next(next) => chain = packet.settle(next),
            Step::Done(done) => {
                chain = done;
                obstacle = None;
                break;
            }
            Step::Malformed => {
                obstacle = Some(Verdict::PassMalformed);
                break;
            }
        }
    }
    let Chain {
        protocol,
        at,
        fragment,
    } = chain;
    Ok(Datagram {
        source,
        destination,
        protocol,
        at,
        end,
        fragment,
        obstacle,
    })
}

/// A place in a chain of extension headers.
#[derive(Clone, Copy)]
struct Chain {
    /// What starts at `at`.
    protocol: u8,
    at: u32,
    fragment: Fragment,
}

enum Step {
    /// Past an extension header.
    Next(Chain),
    /// The chain ends here.
    Done(Chain),
    /// The extension header here is truncated.
    Malformed,
}

impl Chain {
    /// Steps over the extension header at this place, if it is one.
    #[inline(always)]
    fn step<P: Packet + ?Sized>(self, packet: &P, start: u32, end: u32) -> Step {
        let Chain {
            protocol: kind,
            at,
            mut fragment,
        } = self;
        if !is_extension(kind) || (kind == protocol::HOP_BY_HOP && at != start) {
            return Step::Done(self);
        }
        // All of them have at least eight bytes (RFC 8200 §4.3 to §4.6, RFC 4302 §2.2).
        let Some(header) = packet.header::<8>(at) else {
            return Step::Malformed;
        };
        let units = u32::from(header.u8::<1>());
        let len = match kind {
            protocol::FRAGMENT => {
                if fragment != Fragment::Whole {
                    return Step::Done(self);
                }
                let offset_flags = header.u16::<2>();
                let identification = header.u32::<4>();
                if offset_flags & 0xfff8 != 0 {
                    return Step::Done(Chain {
                        fragment: Fragment::Later(identification),
                        ..self
                    });
                }
                // RFC 6946: offset zero and nothing more to come is a whole packet.
                if offset_flags & 1 != 0 {
                    fragment = Fragment::First(identification);
                }
                8
            }
            // RFC 4302 §2.2: 32-bit words, minus 2.
            protocol::AUTHENTICATION => (units + 2) * 4,
            // RFC 8200 §4.4: with segments left, this is not the final destination.
            protocol::ROUTING if header.u8::<3>() != 0 => return Step::Done(self),
            // RFC 8200 §4.3, §4.4, §4.6: 8-byte units, not counting the first.
            _ => (units + 1) * 8,
        };
        if at + len > end {
            return Step::Malformed;
        }
        Step::Next(Chain {
            protocol: header.u8::<0>(),
            at: at + len,
            fragment,
        })
    }
}

#[inline(always)]
fn is_extension(next_header: u8) -> bool {
    matches!(
        next_header,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::AUTHENTICATION
            | protocol::DESTINATION_OPTIONS
    )
}

/// The source or the destination of an IPv6 header.
#[inline(always)]
fn address<H: Header>(header: &H, destination: bool) -> Address {
    Address::from_v6_words(if destination {
        [
            header.u32::<24>(),
            header.u32::<28>(),
            header.u32::<32>(),
            header.u32::<36>(),
        ]
    } else {
        [
            header.u32::<8>(),
            header.u32::<12>(),
            header.u32::<16>(),
            header.u32::<20>(),
        ]
    })
}
