//! The decision.

use crate::packet::{Header, Packet};
use crate::parse::{self, Datagram, Fragment, Place, ethertype, protocol};
use crate::tables::{Address, ExactKey, FragmentKey, LocalKey, Tables, flag, shape};
use crate::verdict::Verdict;

/// Whether a packet, from its Ethernet header on, is ours.
///
/// In this order: the kill switch, the MAC address, the VLAN tags, and then for the packet's local and remote
/// endpoint the deny list, the exact table, the port table with the packet's address and with "any
/// address", the prefixes; single flows only while this host has their address. Whatever no table claims, and whatever cannot be understood, is the
/// kernel's.
#[inline(always)]
pub fn steer<P: Packet + ?Sized, T: Tables + ?Sized>(packet: &P, tables: &T) -> Verdict {
    let decision = Decision { packet, tables };
    if !decision.has(flag::ENABLED) {
        return Verdict::PassDisabled;
    }
    if !decision.has(flag::FLOWS | flag::PREFIXES) {
        return Verdict::PassUnmatched;
    }
    let link = match parse::link(packet) {
        Ok(link) => link,
        Err(verdict) => return verdict,
    };
    // What a bridge, a macvlan interface or promiscuous mode lets in belongs to others.
    let mac = tables.mac();
    if !link.is_group() && mac != [0; 2] && link.destination != mac {
        return Verdict::PassNotOurMac;
    }
    if link.vlan_stack != tables.vlan_stack()
        || matches!(link.ethertype, ethertype::VLAN | ethertype::SERVICE_VLAN)
    {
        return Verdict::PassVlan;
    }
    let datagram = match link.ethertype {
        ethertype::IPV4 => parse::ipv4(packet, link.at, Place::Frame),
        ethertype::IPV6 => parse::ipv6(packet, link.at, Place::Frame),
        ethertype::ARP => return decision.arp(link.at),
        _ => return Verdict::PassProtocol,
    };
    match datagram {
        Ok(datagram) => decision.datagram(&packet.settle(datagram)),
        Err(verdict) => verdict,
    }
}

/// The two ends of a flow as this host sees them.
#[derive(Clone, Copy)]
struct Flow {
    local: Address,
    remote: Address,
    local_port: u16,
    remote_port: u16,
    protocol: u32,
    /// Taken from a packet that an ICMP error quotes.
    quoted: bool,
}

/// Whose an address is where it is resolved.
#[derive(Clone, Copy)]
enum Resolution {
    /// A prefix of ours covers it.
    Ours,
    /// The deny list reserves it for the kernel.
    Denied,
    /// Nothing says that it is ours.
    NotOurs,
}

struct Decision<'a, P: ?Sized, T: ?Sized> {
    packet: &'a P,
    tables: &'a T,
}

impl<P: Packet + ?Sized, T: Tables + ?Sized> Decision<'_, P, T> {
    /// Whether any of these flags is set.
    #[inline(always)]
    fn has(&self, flags: u32) -> bool {
        self.tables.flags() & flags != 0
    }

    /// ARP belongs to us where the address asked for does (RFC 826), and where the sender's does:
    /// somebody else uses an address of ours, which replies to our probes, too, show only there
    /// (RFC 5227 §2.1.1, §2.4).
    #[inline(always)]
    fn arp(&self, at: u32) -> Verdict {
        if !self.has(flag::PREFIXES) {
            return Verdict::PassProtocol;
        }
        let Some(arp) = self.packet.header::<28>(at) else {
            return Verdict::PassMalformed;
        };
        // Hardware type Ethernet (1), protocol type IPv4, addresses of 6 and 4 bytes.
        if arp.u32::<0>() != 0x0001_0800 || arp.u16::<4>() != 0x0604 {
            return Verdict::PassProtocol;
        }
        let target = Address::from_v4_word(arp.u32::<24>());
        let sender = Address::from_v4_word(arp.u32::<14>());
        // Protocol 0: only entries for any protocol hold for what is not IP.
        match self.packet.settle(self.resolution(0, &target)) {
            Resolution::Ours => Verdict::RedirectArp,
            Resolution::Denied => Verdict::PassDenied,
            Resolution::NotOurs => match self.resolution(0, &sender) {
                Resolution::Ours => Verdict::RedirectArp,
                Resolution::Denied => Verdict::PassDenied,
                Resolution::NotOurs => Verdict::PassProtocol,
            },
        }
    }

    /// Whose it is to resolve `address` to a link-layer address, and to defend it.
    #[inline(always)]
    fn resolution(&self, protocol: u32, address: &Address) -> Resolution {
        let shapes = self.tables.deny_shapes() & shape::WITHOUT_PORT;
        if self.denied(shapes, protocol, address, 0) {
            Resolution::Denied
        } else if self.tables.prefix(address) {
            Resolution::Ours
        } else {
            Resolution::NotOurs
        }
    }

    /// First by the flow it belongs to, then by its destination address.
    #[inline(always)]
    fn datagram(&self, datagram: &Datagram) -> Verdict {
        let verdict = self.packet.settle(self.by_flow(datagram));
        if verdict.redirects() || verdict == Verdict::PassDenied {
            return verdict;
        }
        if self.has(flag::PREFIXES) && self.tables.prefix(&datagram.destination) {
            return Verdict::RedirectPrefix;
        }
        verdict
    }

    #[inline(always)]
    fn by_flow(&self, datagram: &Datagram) -> Verdict {
        // Entries for any port hold for packets without ports, too.
        let shapes = self.tables.deny_shapes() & shape::WITHOUT_PORT;
        if self.denied(
            shapes,
            u32::from(datagram.protocol),
            &datagram.destination,
            0,
        ) {
            return Verdict::PassDenied;
        }
        if let Fragment::Later(identification) = datagram.fragment {
            return self.later_fragment(&fragment_key(datagram, identification));
        }
        let verdict = match self.flow(datagram) {
            Ok(flow) => self.claimed(&self.packet.settle(flow)),
            Err(verdict) => verdict,
        };
        if let Fragment::First(identification) = datagram.fragment {
            self.note_first_fragment(&fragment_key(datagram, identification), verdict);
        }
        verdict
    }

    /// The flow that a packet, or the first fragment of one, belongs to.
    #[inline(always)]
    fn flow(&self, datagram: &Datagram) -> Result<Flow, Verdict> {
        if let Some(obstacle) = datagram.obstacle {
            return Err(obstacle);
        }
        // RFC 768: 8 bytes. RFC 9293 §3.1: at least 20.
        let header_len = match datagram.protocol {
            protocol::UDP => 8,
            protocol::TCP => 20,
            _ => return self.flow_of_icmp(datagram),
        };
        let ports = self.header::<4>(datagram, 0, header_len)?;
        Ok(Flow {
            local: datagram.destination,
            remote: datagram.source,
            local_port: ports.u16::<2>(),
            remote_port: ports.u16::<0>(),
            protocol: u32::from(datagram.protocol),
            quoted: false,
        })
    }

    /// `N` bytes from `at` on of a transport header of which `len` bytes must be inside the IP
    /// payload: what pads a frame is not part of the packet.
    #[inline(always)]
    fn header<const N: usize>(
        &self,
        datagram: &Datagram,
        at: u32,
        len: u32,
    ) -> Result<P::Header<N>, Verdict> {
        if datagram.at + len <= datagram.end
            && let Some(header) = self.packet.header::<N>(datagram.at + at)
        {
            return Ok(header);
        }
        Err(match datagram.fragment {
            Fragment::Whole => Verdict::PassMalformed,
            Fragment::First(_) | Fragment::Later(_) => Verdict::PassFragment,
        })
    }

    /// ICMP errors belong to the flow of the packet that they quote. Everything else without ports
    /// belongs to none.
    #[inline(always)]
    fn flow_of_icmp(&self, datagram: &Datagram) -> Result<Flow, Verdict> {
        let is_v4 = datagram.destination.is_v4();
        if datagram.protocol
            != (if is_v4 {
                protocol::ICMP
            } else {
                protocol::ICMPV6
            })
        {
            return Err(Verdict::PassUnmatched);
        }
        // RFC 792 and RFC 4443 §3: type, code, checksum, four bytes whose meaning varies.
        let icmp = self.header::<8>(datagram, 0, 8)?;
        let quoted = match (is_v4, icmp.u8::<0>()) {
            // RFC 792: destination unreachable, time exceeded, parameter problem. A redirect (5) is
            // about routes, which are the kernel's; source quench (4) is obsolete (RFC 6633).
            (true, 3 | 11 | 12) => parse::ipv4(self.packet, datagram.at + 8, Place::Quoted)?,
            // RFC 4443 §2.1: types below 128 are errors.
            (false, 0..128) => parse::ipv6(self.packet, datagram.at + 8, Place::Quoted)?,
            (false, kind @ (NEIGHBOR_SOLICITATION | NEIGHBOR_ADVERTISEMENT)) => {
                return Err(self.neighbor_discovery(datagram, kind));
            }
            _ => return Err(Verdict::PassUnmatched),
        };
        let quoted = self.packet.settle(quoted);
        // Errors go to the source of the packet that caused them (RFC 1122 §3.2.2, RFC 4443 §2.2);
        // one that is addressed to somebody else is in transit.
        if quoted.source != datagram.destination
            || matches!(quoted.fragment, Fragment::Later(_))
            || !matches!(quoted.protocol, protocol::UDP | protocol::TCP)
        {
            return Err(Verdict::PassUnmatched);
        }
        // RFC 792 promises 8 bytes of the quoted transport header; the ports are the first four.
        if quoted.at + 4 > datagram.end {
            return Err(Verdict::PassMalformed);
        }
        let ports = self
            .packet
            .header::<4>(quoted.at)
            .ok_or(Verdict::PassMalformed)?;
        // We sent the quoted packet: its source is our end.
        Ok(Flow {
            local: quoted.source,
            remote: quoted.destination,
            local_port: ports.u16::<0>(),
            remote_port: ports.u16::<2>(),
            protocol: u32::from(quoted.protocol),
            quoted: true,
        })
    }

    /// A neighbour solicitation for an address of ours, sent to its solicited-node multicast
    /// address (RFC 4861 §4.3); or an advertisement of one, sent to all nodes, which is how somebody
    /// who uses it already answers our probe (§7.2.4, RFC 4862 §5.4.4). What is sent to the address
    /// itself falls under its prefix. One in pieces is nobody's (RFC 6980 §5), and does not become ours.
    #[inline(always)]
    fn neighbor_discovery(&self, datagram: &Datagram, kind: u8) -> Verdict {
        if !self.has(flag::PREFIXES) {
            return Verdict::PassUnmatched;
        }
        if datagram.fragment != Fragment::Whole {
            return Verdict::PassUnmatched;
        }
        // The target has the same place in both (RFC 4861 §4.3, §4.4).
        let target = match self.header::<16>(datagram, 8, 24) {
            Ok(target) => target,
            Err(verdict) => return verdict,
        };
        let target = Address::from_v6_words([
            target.u32::<0>(),
            target.u32::<4>(),
            target.u32::<8>(),
            target.u32::<12>(),
        ]);
        let last = if kind == NEIGHBOR_SOLICITATION {
            // RFC 4291 §2.7.1: ff02::1:ff00:0/104 with the last 24 bits of the address.
            [
                1_u32.to_be(),
                0xff00_0000_u32.to_be() | (target.words[3] & 0x00ff_ffff_u32.to_be()),
            ]
        } else {
            // RFC 4291 §2.7.1: all nodes, ff02::1.
            [0, 1_u32.to_be()]
        };
        let group = Address {
            words: [0xff02_0000_u32.to_be(), 0, last[0], last[1]],
        };
        if datagram.destination != group || target.is_v4() {
            return Verdict::PassUnmatched;
        }
        match self.resolution(u32::from(protocol::ICMPV6), &target) {
            Resolution::Ours => Verdict::RedirectNeighbor,
            Resolution::Denied => Verdict::PassDenied,
            Resolution::NotOurs => Verdict::PassUnmatched,
        }
    }

    /// A fragment without a transport header goes where the first one went.
    #[inline(always)]
    fn later_fragment(&self, key: &FragmentKey) -> Verdict {
        if self.has(flag::FLOWS) && self.tables.fragment(key) {
            Verdict::RedirectFragment
        } else {
            Verdict::PassFragment
        }
    }

    /// Remembers a first fragment for those that follow. One that is the kernel's erases what an
    /// earlier packet of ours with the same identification left behind.
    #[inline(always)]
    fn note_first_fragment(&self, key: &FragmentKey, verdict: Verdict) {
        if !self.has(flag::FLOWS) {
            return;
        }
        if verdict.redirects() {
            self.tables.remember_fragment(key);
        } else {
            self.tables.forget_fragment(key);
        }
    }

    /// Whether an entry of the deny list that has one of these [`shape`]s reserves a local endpoint
    /// for the kernel.
    #[inline(always)]
    fn denied(&self, shapes: u32, protocol: u32, address: &Address, port: u32) -> bool {
        let any_address = address.any();
        for kind in 0..shape::COUNT {
            if shapes & (1 << kind) == 0 {
                continue;
            }
            let key = LocalKey {
                address: if kind & shape::ANY_ADDRESS != 0 {
                    any_address
                } else {
                    *address
                },
                port: if kind & shape::ANY_PORT != 0 { 0 } else { port },
                protocol: if kind & shape::ANY_PROTOCOL != 0 {
                    0
                } else {
                    protocol
                },
            };
            if self.tables.deny(&key) {
                return true;
            }
        }
        false
    }

    /// Whether a table of single flows claims this one.
    #[inline(always)]
    fn claimed(&self, flow: &Flow) -> Verdict {
        let Flow {
            local,
            remote,
            local_port,
            remote_port,
            protocol,
            quoted,
        } = *flow;
        if self.denied(
            self.tables.deny_shapes(),
            protocol,
            &local,
            u32::from(local_port),
        ) {
            return Verdict::PassDenied;
        }
        let verdict = self.table_of(&ExactKey {
            local,
            remote,
            local_port,
            remote_port,
            protocol,
        });
        if quoted && verdict.redirects() {
            Verdict::RedirectIcmpError
        } else {
            verdict
        }
    }

    /// The first table that has this flow, while this host has its local address: an address that
    /// moved to another host leaves its rules behind, and where this host routes to it, the flow is
    /// in transit. The address is asked for only where a rule fits.
    #[inline(always)]
    fn table_of(&self, flow: &ExactKey) -> Verdict {
        let verdict = self.packet.settle(self.rule_of(flow));
        if verdict.redirects() && !self.tables.local(&flow.local) {
            return Verdict::PassUnmatched;
        }
        verdict
    }

    /// The first table that has a rule for this flow.
    #[inline(always)]
    fn rule_of(&self, flow: &ExactKey) -> Verdict {
        if self.has(flag::EXACT) && self.tables.exact(flow) {
            return Verdict::RedirectExact;
        }
        let mut key = LocalKey {
            address: flow.local,
            port: u32::from(flow.local_port),
            protocol: flow.protocol,
        };
        if self.has(flag::PORTS) && self.tables.port(&key) {
            return Verdict::RedirectPort;
        }
        if self.has(flag::PORTS_ANY) {
            key.address = flow.local.any();
            if self.tables.port(&key) {
                return Verdict::RedirectPortAny;
            }
        }
        Verdict::PassUnmatched
    }
}

/// RFC 4861 §4.3.
const NEIGHBOR_SOLICITATION: u8 = 135;
/// RFC 4861 §4.4.
const NEIGHBOR_ADVERTISEMENT: u8 = 136;

#[inline(always)]
fn fragment_key(datagram: &Datagram, identification: u32) -> FragmentKey {
    FragmentKey {
        source: datagram.source,
        destination: datagram.destination,
        identification,
        protocol: u32::from(if datagram.destination.is_v4() {
            datagram.protocol
        } else {
            protocol::FRAGMENT
        }),
    }
}
