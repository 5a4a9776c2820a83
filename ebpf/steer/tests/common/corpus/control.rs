//! ICMP errors, and what addresses that are ours whole bring: ARP and neighbour discovery.

use super::Extension::{Destination, Fragment, HopByHop, Routing};
use super::*;

pub(super) fn icmp_errors() -> Vec<Case> {
    use Verdict::*;
    let plain = V4::default();
    let four = |kind: u8, code: u8, to: &str, quoted: &[u8]| {
        ip_frame(&ipv4(
            "10.0.0.254",
            to,
            protocol::ICMP,
            &plain,
            &icmp(kind, code, quoted),
        ))
    };
    let six = |kind: u8, to: &str, quoted: &[u8]| {
        ip_frame(&ipv6(
            "2001:db8::fe",
            to,
            &[],
            protocol::ICMPV6,
            &icmp(kind, 0, quoted),
        ))
    };
    // What we sent: our end is the source.
    let sent =
        |protocol: u8, header: &V4, transport: &[u8]| ipv4(HOST, PEER, protocol, header, transport);
    let sent6 = |extensions: &[Extension], protocol: u8, transport: &[u8]| {
        ipv6(HOST6, PEER6, extensions, protocol, transport)
    };
    let reply = sent(protocol::UDP, &plain, &udp(7, 5000));
    let options = V4 {
        options: vec![1; 12],
        ..V4::default()
    };
    let later = V4 {
        flags_offset: 4,
        ..V4::default()
    };
    let first = V4 {
        flags_offset: MORE,
        ..V4::default()
    };
    let mut cut_but_padded = four(3, 4, HOST, &reply[..22]);
    cut_but_padded.extend([0; 40]);
    vec![
        case(
            "fragmentation needed",
            four(3, 4, HOST, &reply),
            RedirectIcmpError,
        ),
        case(
            "time exceeded",
            four(11, 0, HOST, &reply),
            RedirectIcmpError,
        ),
        case(
            "parameter problem",
            four(12, 0, HOST, &reply),
            RedirectIcmpError,
        ),
        case("redirect", four(5, 0, HOST, &reply), PassUnmatched),
        case("source quench", four(4, 0, HOST, &reply), PassUnmatched),
        case("echo request", four(8, 0, HOST, &reply), PassUnmatched),
        case(
            "error, eight bytes quoted",
            four(3, 3, HOST, &reply[..28]),
            RedirectIcmpError,
        ),
        case(
            "error, ports cut off",
            four(3, 3, HOST, &reply[..22]),
            PassMalformed,
        ),
        case(
            "error, ports cut off, padded",
            cut_but_padded,
            PassMalformed,
        ),
        case(
            "error, header cut off",
            four(3, 3, HOST, &reply[..16]),
            PassMalformed,
        ),
        case(
            "error, nothing quoted",
            four(3, 3, HOST, &[]),
            PassMalformed,
        ),
        case(
            "error, quoted options",
            four(3, 4, HOST, &sent(protocol::UDP, &options, &udp(7, 5000))),
            RedirectIcmpError,
        ),
        case(
            "error about a connection",
            four(3, 4, HOST, &sent(protocol::TCP, &plain, &tcp(8080, 5000))),
            RedirectIcmpError,
        ),
        case(
            "error about another connection",
            four(3, 4, HOST, &sent(protocol::TCP, &plain, &tcp(8080, 5001))),
            PassUnmatched,
        ),
        case(
            "error about the kernel's",
            four(3, 4, HOST, &sent(protocol::UDP, &plain, &udp(70, 5000))),
            PassUnmatched,
        ),
        case(
            "error about what is denied",
            four(3, 4, HOST, &sent(protocol::TCP, &plain, &tcp(22, 5000))),
            PassDenied,
        ),
        case(
            "error about a later fragment",
            four(3, 4, HOST, &sent(protocol::UDP, &later, &udp(7, 5000))),
            PassUnmatched,
        ),
        case(
            "error about a first fragment",
            four(3, 4, HOST, &sent(protocol::UDP, &first, &udp(7, 5000))),
            RedirectIcmpError,
        ),
        case(
            "error about our ICMP",
            four(3, 4, HOST, &sent(protocol::ICMP, &plain, &icmp(8, 0, &[]))),
            PassUnmatched,
        ),
        case(
            "error in transit",
            four(3, 4, "10.0.0.77", &reply),
            PassUnmatched,
        ),
        case(
            "error for an address that moved away",
            four(
                3,
                4,
                "10.0.0.77",
                &ipv4("10.0.0.77", PEER, protocol::UDP, &plain, &udp(7, 5000)),
            ),
            PassUnmatched,
        ),
        case(
            "error about what we received",
            four(3, 4, HOST, &udp4(HOST, 7)),
            PassUnmatched,
        ),
        case(
            "error for an address of ours",
            four(
                3,
                4,
                OURS,
                &ipv4(OURS, PEER, protocol::UDP, &plain, &udp(70, 5000)),
            ),
            RedirectPrefix,
        ),
        case(
            "ICMPv6 in IPv4",
            ip_frame(&ipv4(
                PEER,
                HOST,
                protocol::ICMPV6,
                &plain,
                &icmp(2, 0, &reply),
            )),
            PassUnmatched,
        ),
        case(
            "packet too big",
            six(2, HOST6, &sent6(&[], protocol::UDP, &udp(7, 5000))),
            RedirectIcmpError,
        ),
        case(
            "unreachable, IPv6",
            six(1, HOST6, &sent6(&[], protocol::UDP, &udp(7, 5000))),
            RedirectIcmpError,
        ),
        case(
            "error of an unknown type, IPv6",
            six(100, HOST6, &sent6(&[], protocol::UDP, &udp(7, 5000))),
            RedirectIcmpError,
        ),
        case(
            "error, quoted extension headers",
            six(
                2,
                HOST6,
                &sent6(
                    &[HopByHop(0), Destination(2), Fragment(0, true, 9)],
                    protocol::UDP,
                    &udp(7, 5000),
                ),
            ),
            RedirectIcmpError,
        ),
        case(
            "error, quoted routing header on its way",
            six(
                2,
                HOST6,
                &sent6(&[Routing(1)], protocol::UDP, &udp(7, 5000)),
            ),
            PassUnmatched,
        ),
        case(
            "error about a later fragment, IPv6",
            six(
                2,
                HOST6,
                &sent6(&[Fragment(8, true, 9)], protocol::UDP, &udp(7, 5000)),
            ),
            PassUnmatched,
        ),
        case(
            "error about any address, IPv6",
            six(2, HOST6, &sent6(&[], protocol::TCP, &tcp(81, 5000))),
            RedirectIcmpError,
        ),
        case(
            "error about the kernel's, IPv6",
            six(2, HOST6, &sent6(&[], protocol::UDP, &udp(70, 5000))),
            PassUnmatched,
        ),
        case(
            "echo request, IPv6",
            six(128, HOST6, &sent6(&[], protocol::UDP, &udp(7, 5000))),
            PassUnmatched,
        ),
        case(
            "ICMP in IPv6",
            ip_frame(&ipv6(
                PEER6,
                HOST6,
                &[],
                protocol::ICMP,
                &icmp(3, 4, &reply),
            )),
            PassUnmatched,
        ),
    ]
}

pub(super) fn owned_addresses() -> Vec<Case> {
    use Verdict::*;
    let plain = V4::default();
    let arp_of = |operation: u8, sender: &str, target: &str| {
        frame(&[], ethertype::ARP, &arp(operation, sender, target))
    };
    let arp_frame = |target: &str| arp_of(1, PEER, target);
    let mut token_ring = arp(1, PEER, OURS);
    token_ring[1] = 6;
    let solicit = |to: &str, target: &str| {
        ip_frame(&ipv6(
            PEER6,
            to,
            &[],
            protocol::ICMPV6,
            &neighbor(135, target),
        ))
    };
    let advertise = |to: &str, target: &str| {
        ip_frame(&ipv6(
            PEER6,
            to,
            &[],
            protocol::ICMPV6,
            &neighbor(136, target),
        ))
    };
    let first_piece = |kind: u8, to: &str| {
        let more = [Fragment(0, true, 78)];
        let message = neighbor(kind, OURS6);
        ip_frame(&ipv6(PEER6, to, &more, protocol::ICMPV6, &message))
    };
    let mut short = neighbor(135, OURS6);
    short.truncate(20);
    vec![
        case("ARP for an address of ours", arp_frame(OURS), RedirectArp),
        case(
            "ARP for an address of the kernel's",
            arp_frame(HOST),
            PassProtocol,
        ),
        case(
            "ARP for a denied address",
            arp_frame("10.1.0.66"),
            PassDenied,
        ),
        case(
            "ARP reply to a probe for an address of ours",
            arp_of(2, OURS, "0.0.0.0"),
            RedirectArp,
        ),
        case(
            "ARP announcement of an address of ours",
            arp_of(1, OURS, OURS),
            RedirectArp,
        ),
        case(
            "ARP request in the name of an address of ours",
            arp_of(1, OURS, HOST),
            RedirectArp,
        ),
        case(
            "ARP announcement of an address of the kernel's",
            arp_of(1, HOST, HOST),
            PassProtocol,
        ),
        case(
            "ARP reply to a probe of the kernel's",
            arp_of(2, HOST, "0.0.0.0"),
            PassProtocol,
        ),
        case(
            "ARP reply about a denied address",
            arp_of(2, "10.1.0.66", "0.0.0.0"),
            PassDenied,
        ),
        case(
            "ARP for a denied address in the name of one of ours",
            arp_of(1, OURS, "10.1.0.66"),
            PassDenied,
        ),
        case(
            "ARP of another link",
            frame(&[], ethertype::ARP, &token_ring),
            PassProtocol,
        ),
        case(
            "ARP cut off",
            frame(&[], ethertype::ARP, &arp(1, PEER, OURS)[..20]),
            PassMalformed,
        ),
        case(
            "solicitation for an address of ours",
            solicit("ff02::1:ff00:5", OURS6),
            RedirectNeighbor,
        ),
        case(
            "solicitation in pieces",
            first_piece(135, "ff02::1:ff00:5"),
            PassUnmatched,
        ),
        case(
            "advertisement in pieces",
            first_piece(136, "ff02::1"),
            PassUnmatched,
        ),
        case(
            "solicitation for an address of the kernel's",
            solicit("ff02::1:ff00:1", HOST6),
            PassUnmatched,
        ),
        case(
            "solicitation for a denied address",
            solicit("ff02::1:ff00:66", "2001:db8:1::66"),
            PassDenied,
        ),
        case(
            "solicitation sent to the address itself",
            solicit(OURS6, OURS6),
            RedirectPrefix,
        ),
        case(
            "solicitation sent elsewhere",
            solicit("ff02::1", OURS6),
            PassUnmatched,
        ),
        case(
            "solicitation sent to another's group",
            solicit("ff02::1:ff00:6", OURS6),
            PassUnmatched,
        ),
        case(
            "solicitation cut off",
            ip_frame(&ipv6(
                PEER6,
                "ff02::1:ff00:5",
                &[],
                protocol::ICMPV6,
                &short,
            )),
            PassMalformed,
        ),
        case(
            "advertisement sent to an address of ours",
            advertise(OURS6, PEER6),
            RedirectPrefix,
        ),
        case(
            "advertisement of an address of ours to all nodes",
            advertise("ff02::1", OURS6),
            RedirectNeighbor,
        ),
        case(
            "advertisement of an address of ours to its group",
            advertise("ff02::1:ff00:5", OURS6),
            PassUnmatched,
        ),
        case(
            "advertisement of an address of the kernel's to all nodes",
            advertise("ff02::1", HOST6),
            PassUnmatched,
        ),
        case(
            "advertisement of a denied address to all nodes",
            advertise("ff02::1", "2001:db8:1::66"),
            PassDenied,
        ),
        case(
            "advertisement to all nodes cut off",
            ip_frame(&ipv6(
                PEER6,
                "ff02::1",
                &[],
                protocol::ICMPV6,
                &neighbor(136, OURS6)[..20],
            )),
            PassMalformed,
        ),
        case(
            "ping of an address of ours",
            ip_frame(&ipv4(
                PEER,
                OURS,
                protocol::ICMP,
                &plain,
                &icmp(8, 0, b"ping"),
            )),
            RedirectPrefix,
        ),
        case(
            "ping of an address of ours, IPv6",
            ip_frame(&ipv6(
                PEER6,
                OURS6,
                &[],
                protocol::ICMPV6,
                &icmp(128, 0, b"ping"),
            )),
            RedirectPrefix,
        ),
        case(
            "short UDP for an address of ours",
            ip_frame(&ipv4(PEER, OURS, protocol::UDP, &plain, &[0; 3])),
            RedirectPrefix,
        ),
    ]
}
