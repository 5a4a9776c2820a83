//! Neighbour discovery: solicitations and advertisements (RFC 4861 §4.3, §4.4).
//!
//! ```text
//! ├─ ICMPv6 header: type, code, checksum, flags ─┼─ target (16 bytes) ─┼─ options …
//!                                                   option: type ┼ length/8 ┼ Ethernet address
//! ```

use super::{array_at, chunk_at, chunk_at_mut, icmpv6, put};
use crate::counters::DropReason;
use crate::link::MacAddr;
use core::net::Ipv6Addr;
use core::ops::Range;

/// Messages are discarded unless their hop limit says that no router touched them
/// (RFC 4861 §7.1).
pub const HOP_LIMIT: u8 = 255;
/// Length of a message with one link-layer address option, ICMPv6 header included, in bytes.
pub const LEN_WITH_OPTION: usize = icmpv6::HEADER_LEN + 16 + 8;

const OPTION_SOURCE: u8 = 1;
const OPTION_TARGET: u8 = 2;
const FLAG_ROUTER: u8 = 0x80;
const FLAG_SOLICITED: u8 = 0x40;
const FLAG_OVERRIDE: u8 = 0x20;

/// The meaning of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repr {
    /// Who has `target`?
    Solicitation {
        /// The address asked for.
        target: Ipv6Addr,
        /// The asker's Ethernet address; absent in duplicate address detection.
        source_mac: Option<MacAddr>,
    },
    /// `target` is here.
    Advertisement {
        /// The address spoken of.
        target: Ipv6Addr,
        /// Where it is; may be absent in a reply to a unicast solicitation.
        target_mac: Option<MacAddr>,
        /// The sender is a router.
        router: bool,
        /// It answers a solicitation.
        solicited: bool,
        /// It replaces what was known.
        overrides: bool,
    },
}

impl Repr {
    /// Reads the body of an ICMPv6 message that came with `hop_limit` from `source` to
    /// `destination`; `None` for other message types.
    ///
    /// # Errors
    /// [`DropReason::NdpMalformed`] where RFC 4861 §7.1 tells to discard the message.
    pub fn parse(
        data: &[u8],
        message: &icmpv6::Packet<'_>,
        hop_limit: u8,
        source: Ipv6Addr,
        destination: Ipv6Addr,
    ) -> Result<Option<Self>, DropReason> {
        let kind = message.kind();
        let is_solicitation = kind == icmpv6::kind::NEIGHBOR_SOLICITATION;
        if !is_solicitation && kind != icmpv6::kind::NEIGHBOR_ADVERTISEMENT {
            return Ok(None);
        }
        let malformed = DropReason::NdpMalformed;
        if hop_limit != HOP_LIMIT || message.code() != 0 {
            return Err(malformed);
        }
        let Range { start, end } = message.body();
        let target: [u8; 16] = *chunk_at(data, start).ok_or(malformed)?;
        let target = Ipv6Addr::from(target);
        if target.is_multicast() || end < start + 16 {
            return Err(malformed);
        }
        let options = data.get(start + 16..end).ok_or(malformed)?;
        if is_solicitation {
            let source_mac = link_layer_option(options, OPTION_SOURCE)?;
            // RFC 4861 §7.1.1: from the unspecified address only to the solicited-node group, and
            // without a source link-layer address.
            let to_group = destination == solicited_node_multicast(target);
            if source.is_unspecified() && (source_mac.is_some() || !to_group) {
                return Err(malformed);
            }
            return Ok(Some(Self::Solicitation { target, source_mac }));
        }
        let flags = message.rest()[0];
        // RFC 4861 §7.1.2: an advertisement to a group answers nobody.
        if destination.is_multicast() && flags & FLAG_SOLICITED != 0 {
            return Err(malformed);
        }
        Ok(Some(Self::Advertisement {
            target,
            target_mac: link_layer_option(options, OPTION_TARGET)?,
            router: flags & FLAG_ROUTER != 0,
            solicited: flags & FLAG_SOLICITED != 0,
            overrides: flags & FLAG_OVERRIDE != 0,
        }))
    }

    /// Writes the whole ICMPv6 message at `offset` of `data`; `None` if there is no room.
    #[must_use]
    pub fn emit(
        &self,
        data: &mut [u8],
        offset: usize,
        source: Ipv6Addr,
        destination: Ipv6Addr,
    ) -> Option<usize> {
        let (kind, target, mac, option, flags) = match *self {
            Self::Solicitation { target, source_mac } => (
                icmpv6::kind::NEIGHBOR_SOLICITATION,
                target,
                source_mac,
                OPTION_SOURCE,
                0,
            ),
            Self::Advertisement {
                target,
                target_mac,
                router,
                solicited,
                overrides,
            } => {
                let flags = if router { FLAG_ROUTER } else { 0 }
                    | if solicited { FLAG_SOLICITED } else { 0 }
                    | if overrides { FLAG_OVERRIDE } else { 0 };
                (
                    icmpv6::kind::NEIGHBOR_ADVERTISEMENT,
                    target,
                    target_mac,
                    OPTION_TARGET,
                    flags,
                )
            }
        };
        let body = offset + icmpv6::HEADER_LEN;
        *chunk_at_mut(data, body)? = target.octets();
        let mut body_len = 16;
        if let Some(mac) = mac {
            let field: &mut [u8; 8] = chunk_at_mut(data, body + 16)?;
            put(field, 0, [option, 1]);
            put(field, 2, mac);
            body_len += 8;
        }
        icmpv6::emit(
            data,
            offset,
            (source, destination),
            (kind, 0),
            [flags, 0, 0, 0],
            body_len,
        )
    }
}

/// The group that a node with this address listens to for neighbour solicitations
/// (RFC 4291 §2.7.1): `ff02::1:ff00:0/104` and the address's low 24 bits.
#[inline]
#[must_use]
pub fn solicited_node_multicast(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::from_octets([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// The Ethernet address of an IPv6 group (RFC 2464 §7): its low 32 bits behind 33-33.
#[inline]
#[must_use]
pub fn multicast_mac(group: Ipv6Addr) -> MacAddr {
    let [.., a, b, c, d] = group.octets();
    [0x33, 0x33, a, b, c, d]
}

/// Walks the options and finds a link-layer address.
fn link_layer_option(mut options: &[u8], wanted: u8) -> Result<Option<MacAddr>, DropReason> {
    let mut found = None;
    while let [kind, units, ..] = *options {
        let len = usize::from(units) * 8;
        // RFC 4861 §7.1: an option of length zero discards the message.
        if len == 0 || len > options.len() {
            return Err(DropReason::NdpMalformed);
        }
        let (option, rest) = options.split_at(len);
        if kind == wanted && found.is_none() {
            let mac = option.first_chunk::<8>().map(|bytes| array_at(bytes, 2));
            found = mac.filter(|mac| !super::ethernet::is_group(*mac));
        }
        options = rest;
    }
    if options.is_empty() {
        Ok(found)
    } else {
        Err(DropReason::NdpMalformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    fn round_trip(repr: Repr, source: &str, destination: &str) -> Result<Option<Repr>, DropReason> {
        let (source, destination) = (addr(source), addr(destination));
        let mut data = [0; 4 + LEN_WITH_OPTION];
        let len = repr.emit(&mut data, 4, source, destination).unwrap();
        let message = icmpv6::Packet::new_checked(&data, 4..4 + len, source, destination).unwrap();
        Repr::parse(&data, &message, HOP_LIMIT, source, destination)
    }

    #[test]
    fn groups_and_their_ethernet_addresses() {
        // The example of RFC 4291 §2.7.1.
        let group = solicited_node_multicast("4037::1:800:200e:8c6c".parse().unwrap());
        assert_eq!(group, "ff02::1:ff0e:8c6c".parse::<Ipv6Addr>().unwrap());
        assert_eq!(multicast_mac(group), [0x33, 0x33, 0xff, 0x0e, 0x8c, 0x6c]);
    }

    #[test]
    fn what_is_written_is_read() {
        let mac = Some([2, 0, 0, 0, 0, 1]);
        let target = addr("2001:db8::1:2");
        let ask = Repr::Solicitation {
            target,
            source_mac: mac,
        };
        assert_eq!(round_trip(ask, "fe80::1", "ff02::1:ff01:2"), Ok(Some(ask)));
        let tell = Repr::Advertisement {
            target,
            target_mac: mac,
            router: false,
            solicited: true,
            overrides: true,
        };
        assert_eq!(round_trip(tell, "2001:db8::1:2", "fe80::1"), Ok(Some(tell)));
    }

    #[test]
    fn rfc_4861_section_7_1_is_obeyed() {
        let target = addr("2001:db8::1:2");
        let probe = Repr::Solicitation {
            target,
            source_mac: None,
        };
        assert_eq!(round_trip(probe, "::", "ff02::1:ff01:2"), Ok(Some(probe)));
        let malformed = Err(DropReason::NdpMalformed);
        assert_eq!(round_trip(probe, "::", "2001:db8::1:2"), malformed);
        let with_mac = Repr::Solicitation {
            target,
            source_mac: Some([2, 0, 0, 0, 0, 1]),
        };
        assert_eq!(round_trip(with_mac, "::", "ff02::1:ff01:2"), malformed);
        let group = Repr::Solicitation {
            target: addr("ff02::1"),
            source_mac: None,
        };
        assert_eq!(round_trip(group, "fe80::1", "ff02::1:ff01:2"), malformed);
        let shout = Repr::Advertisement {
            target,
            target_mac: None,
            router: false,
            solicited: true,
            overrides: false,
        };
        assert_eq!(round_trip(shout, "fe80::1", "ff02::1"), malformed);
    }

    #[test]
    fn impossible_options_are_refused() {
        assert_eq!(
            link_layer_option(&[1, 0, 0, 0, 0, 0, 0, 0], 1),
            Err(DropReason::NdpMalformed)
        );
        assert_eq!(
            link_layer_option(&[1, 2, 0, 0, 0, 0, 0, 0], 1),
            Err(DropReason::NdpMalformed)
        );
        assert_eq!(link_layer_option(&[1], 1), Err(DropReason::NdpMalformed));
        assert_eq!(
            link_layer_option(&[1, 1, 3, 0, 0, 0, 0, 0], 1),
            Ok(None),
            "a group address"
        );
    }
}
