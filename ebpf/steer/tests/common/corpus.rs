//! Packets of every kind, each with the verdict it must get from [`tables`](super::tables).

use super::Extension::{Authentication, Destination, Fragment, HopByHop, Routing};
use super::*;
use steer::Verdict;

/// A packet and what must happen to it.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) frame: Vec<u8>,
    pub(crate) verdict: Verdict,
}

const PEER: &str = "10.0.0.9";
const HOST: &str = "10.0.0.1";
const OURS: &str = "10.1.0.5";
const PEER6: &str = "2001:db8::9";
const HOST6: &str = "2001:db8::1";
const OURS6: &str = "2001:db8:1::5";
const MORE: u16 = 0x2000;

fn case(name: &'static str, frame: Vec<u8>, verdict: Verdict) -> Case {
    Case {
        name,
        frame,
        verdict,
    }
}

fn udp4(to: &str, port: u16) -> Vec<u8> {
    ipv4(PEER, to, protocol::UDP, &V4::default(), &udp(5000, port))
}

fn tcp4(to: &str, port: u16) -> Vec<u8> {
    ipv4(PEER, to, protocol::TCP, &V4::default(), &tcp(5000, port))
}

fn udp6(to: &str, port: u16) -> Vec<u8> {
    ipv6(PEER6, to, &[], protocol::UDP, &udp(5000, port))
}

fn tcp6(to: &str, port: u16) -> Vec<u8> {
    ipv6(PEER6, to, &[], protocol::TCP, &tcp(5000, port))
}

fn chain(extensions: &[Extension]) -> Vec<u8> {
    ip_frame(&ipv6(
        PEER6,
        HOST6,
        extensions,
        protocol::UDP,
        &udp(5000, 7),
    ))
}

/// In an order that matters: later fragments come after the first.
pub(crate) fn corpus() -> Vec<Case> {
    let mut all = rules();
    all.extend(links());
    all.extend(headers());
    all.extend(fragments());
    all.extend(icmp_errors());
    all.extend(owned_addresses());
    all.extend(malformed());
    all
}

fn rules() -> Vec<Case> {
    use Verdict::*;
    let other = |packet: Vec<u8>| ip_frame(&packet);
    vec![
        case("exact, IPv4", ip_frame(&tcp4(HOST, 8080)), RedirectExact),
        case("exact, IPv6", ip_frame(&tcp6(HOST6, 8080)), RedirectExact),
        case(
            "another remote port is not the connection",
            ip_frame(&ipv4(
                PEER,
                HOST,
                protocol::TCP,
                &V4::default(),
                &tcp(5001, 8080),
            )),
            PassUnmatched,
        ),
        case(
            "another protocol is not the connection",
            ip_frame(&udp4(HOST, 8080)),
            PassUnmatched,
        ),
        case("port, IPv4", ip_frame(&udp4(HOST, 7)), RedirectPort),
        case("port, IPv6", ip_frame(&udp6(HOST6, 7)), RedirectPort),
        case(
            "port on another local address",
            ip_frame(&udp4("10.0.0.2", 7)),
            PassUnmatched,
        ),
        case(
            "port of another protocol",
            ip_frame(&tcp4(HOST, 7)),
            PassUnmatched,
        ),
        case(
            "any address, IPv4",
            ip_frame(&udp4("10.0.0.2", 9)),
            RedirectPortAny,
        ),
        case(
            "any address, IPv6",
            ip_frame(&udp6(HOST6, 9)),
            RedirectPortAny,
        ),
        case(
            "any address is local only",
            ip_frame(&udp4("10.0.0.77", 9)),
            PassUnmatched,
        ),
        case(
            "any address is local only, IPv6",
            ip_frame(&udp6(PEER6, 9)),
            PassUnmatched,
        ),
        case(
            "any IPv4 address, IPv4",
            ip_frame(&tcp4(HOST, 80)),
            RedirectPortAny,
        ),
        case(
            "any IPv4 address, IPv6",
            ip_frame(&tcp6(HOST6, 80)),
            PassUnmatched,
        ),
        case(
            "any IPv6 address, IPv4",
            ip_frame(&tcp4(HOST, 81)),
            PassUnmatched,
        ),
        case(
            "any IPv6 address, IPv6",
            ip_frame(&tcp6(HOST6, 81)),
            RedirectPortAny,
        ),
        case("prefix, IPv4", ip_frame(&udp4(OURS, 4444)), RedirectPrefix),
        case("prefix, IPv6", ip_frame(&udp6(OURS6, 4444)), RedirectPrefix),
        case(
            "beside the prefix, IPv4",
            ip_frame(&udp4("10.1.1.5", 4444)),
            PassUnmatched,
        ),
        case(
            "beside the prefix, IPv6",
            ip_frame(&udp6("2001:db8:2::5", 4444)),
            PassUnmatched,
        ),
        case(
            "denied although a port of ours",
            ip_frame(&tcp4(HOST, 22)),
            PassDenied,
        ),
        case("denied, IPv6", ip_frame(&tcp6(HOST6, 22)), PassDenied),
        case(
            "denied on any address",
            ip_frame(&tcp4(OURS, 22)),
            PassDenied,
        ),
        case(
            "denied on one address",
            ip_frame(&udp4(HOST, 53)),
            PassDenied,
        ),
        case(
            "denied on another address only",
            ip_frame(&udp4("10.0.0.2", 53)),
            PassUnmatched,
        ),
        case(
            "denied whole",
            ip_frame(&udp4("10.1.0.66", 4444)),
            PassDenied,
        ),
        case(
            "denied whole, IPv6",
            ip_frame(&udp6("2001:db8:1::66", 4444)),
            PassDenied,
        ),
        case(
            "the remote port is not the local one",
            other(ipv4(
                PEER,
                HOST,
                protocol::UDP,
                &V4::default(),
                &udp(7, 5000),
            )),
            PassUnmatched,
        ),
        case(
            "our own address as source",
            other(ipv4(
                HOST,
                PEER,
                protocol::UDP,
                &V4::default(),
                &udp(7, 5000),
            )),
            PassUnmatched,
        ),
        case(
            "broadcast",
            other(ipv4(
                PEER,
                "255.255.255.255",
                protocol::UDP,
                &V4::default(),
                &udp(68, 9),
            )),
            PassUnmatched,
        ),
    ]
}

fn links() -> Vec<Case> {
    use Verdict::*;
    let packet = udp4(HOST, 7);
    let tagged = |tags: &[(u16, u16)]| frame(tags, ethertype::IPV4, &packet);
    vec![
        case(
            "tagged, but no tag expected",
            tagged(&[(0x8100, 100)]),
            PassVlan,
        ),
        case(
            "service tag, but no tag expected",
            tagged(&[(0x88a8, 100)]),
            PassVlan,
        ),
        case(
            "two tags",
            tagged(&[(0x88a8, 100), (0x8100, 200)]),
            PassVlan,
        ),
        case(
            "three tags",
            tagged(&[(0x88a8, 0), (0x8100, 0), (0x8100, 0)]),
            PassVlan,
        ),
        case("priority tag", tagged(&[(0x8100, 0xe000)]), RedirectPort),
        case(
            "two priority tags",
            tagged(&[(0x8100, 0xe000), (0x8100, 0)]),
            RedirectPort,
        ),
        case("LLDP", frame(&[], 0x88cc, &[0; 46]), PassProtocol),
        case("802.3 length", frame(&[], 46, &[0; 46]), PassProtocol),
        case(
            "IPv4 in the type, IPv6 in the packet",
            frame(&[], ethertype::IPV4, &udp6(HOST6, 7)),
            PassMalformed,
        ),
        case(
            "IPv6 in the type, IPv4 in the packet",
            frame(&[], ethertype::IPV6, &udp4(HOST, 7)),
            PassMalformed,
        ),
    ]
}

fn headers() -> Vec<Case> {
    use Verdict::*;
    let optioned = |len: usize| {
        let header = V4 {
            options: vec![1; len],
            ..V4::default()
        };
        ip_frame(&ipv4(PEER, HOST, protocol::UDP, &header, &udp(5000, 7)))
    };
    let mut padded = ip_frame(&udp4(HOST, 7));
    padded.extend([0; 40]);
    let six = [
        HopByHop(0),
        Destination(1),
        Routing(0),
        Authentication(4),
        Destination(0),
        Destination(0),
    ];
    let seven = [
        HopByHop(0),
        Destination(1),
        Routing(0),
        Authentication(4),
        Destination(0),
        Destination(0),
        Destination(0),
    ];
    let mut ours = ipv6(PEER6, OURS6, &seven, protocol::UDP, &udp(5000, 7));
    ours[7] = 1;
    vec![
        case("one option word", optioned(4), RedirectPort),
        case("all option words", optioned(40), RedirectPort),
        case("padding behind the packet", padded, RedirectPort),
        case("hop-by-hop options", chain(&[HopByHop(0)]), RedirectPort),
        case(
            "long hop-by-hop options",
            chain(&[HopByHop(20)]),
            RedirectPort,
        ),
        case(
            "destination options",
            chain(&[Destination(3)]),
            RedirectPort,
        ),
        case(
            "routing header at its destination",
            chain(&[Routing(0)]),
            RedirectPort,
        ),
        case(
            "routing header on its way",
            chain(&[Routing(1)]),
            PassUnmatched,
        ),
        case(
            "authentication header",
            chain(&[Authentication(4)]),
            RedirectPort,
        ),
        case(
            "hop-by-hop options that are not first",
            chain(&[Destination(0), HopByHop(0)]),
            PassUnmatched,
        ),
        case("six extension headers", chain(&six), RedirectPort),
        case(
            "seven extension headers",
            chain(&seven),
            PassExtensionHeaders,
        ),
        case(
            "seven extension headers for an address of ours",
            ip_frame(&ours),
            RedirectPrefix,
        ),
        case(
            "no next header",
            ip_frame(&ipv6(PEER6, HOST6, &[], 59, &[])),
            PassUnmatched,
        ),
        case(
            "ESP",
            ip_frame(&ipv4(PEER, HOST, 50, &V4::default(), &[0; 40])),
            PassUnmatched,
        ),
        case(
            "ESP for an address of ours",
            ip_frame(&ipv4(PEER, OURS, 50, &V4::default(), &[0; 40])),
            RedirectPrefix,
        ),
    ]
}

fn fragments() -> Vec<Case> {
    use Verdict::*;
    let four = |to: &str, identification: u16, flags_offset: u16, payload: &[u8]| {
        let header = V4 {
            identification,
            flags_offset,
            ..V4::default()
        };
        ip_frame(&ipv4(PEER, to, protocol::UDP, &header, payload))
    };
    let six = |to: &str, fragment: Extension, payload: &[u8]| {
        ip_frame(&ipv6(
            PEER6,
            to,
            &[HopByHop(0), fragment],
            protocol::UDP,
            payload,
        ))
    };
    let ours = udp(5000, 7);
    let other = udp(5000, 70);
    let mut later_of_another_kind = six(HOST6, Fragment(4, false, 77), &[0; 16]);
    // RFC 8200 §4.5: only the first fragment's next header counts.
    later_of_another_kind[14 + 40 + 8] = protocol::TCP;
    vec![
        case(
            "later fragment that comes first",
            four(HOST, 1, 4, &[0; 16]),
            PassFragment,
        ),
        case("first fragment", four(HOST, 1, MORE, &ours), RedirectPort),
        case(
            "later fragment",
            four(HOST, 1, MORE | 4, &[0; 16]),
            RedirectFragment,
        ),
        case(
            "last fragment",
            four(HOST, 1, 8, &[0; 16]),
            RedirectFragment,
        ),
        case(
            "last fragment at the highest offset bit",
            four(HOST, 1, 0x1000, &[0; 16]),
            RedirectFragment,
        ),
        case(
            "later fragment of another packet",
            four(HOST, 2, 8, &[0; 16]),
            PassFragment,
        ),
        case(
            "first fragment, the kernel's, same identification",
            four(HOST, 1, MORE, &other),
            PassUnmatched,
        ),
        case(
            "its later fragment",
            four(HOST, 1, 4, &[0; 16]),
            PassFragment,
        ),
        case(
            "first fragment without all of its header",
            four(HOST, 3, MORE, &ours[..4]),
            PassFragment,
        ),
        case(
            "first fragment, denied",
            four(HOST, 4, MORE, &udp(5000, 53)),
            PassDenied,
        ),
        case(
            "don't fragment is no fragment",
            four(HOST, 5, 0x4000, &ours),
            RedirectPort,
        ),
        case(
            "later fragment for an address of ours",
            four(OURS, 6, 4, &[0; 16]),
            RedirectPrefix,
        ),
        case(
            "later fragment, denied whole",
            four("10.1.0.66", 6, 4, &[0; 16]),
            PassDenied,
        ),
        case(
            "later fragment that comes first, IPv6",
            six(HOST6, Fragment(4, false, 77), &[0; 16]),
            PassFragment,
        ),
        case(
            "first fragment, IPv6",
            six(HOST6, Fragment(0, true, 77), &ours),
            RedirectPort,
        ),
        case(
            "later fragment, IPv6",
            six(HOST6, Fragment(4, false, 77), &[0; 16]),
            RedirectFragment,
        ),
        case(
            "later fragment, IPv6, other next header",
            later_of_another_kind,
            RedirectFragment,
        ),
        case(
            "later fragment of another packet, IPv6",
            six(HOST6, Fragment(4, false, 78), &[0; 16]),
            PassFragment,
        ),
        case(
            "atomic fragment",
            six(HOST6, Fragment(0, false, 79), &ours),
            RedirectPort,
        ),
        case(
            "nothing was remembered of it",
            six(HOST6, Fragment(4, false, 79), &[0; 16]),
            PassFragment,
        ),
        case(
            "first fragment for an address of ours, IPv6",
            six(OURS6, Fragment(0, true, 80), &ours),
            RedirectPrefix,
        ),
        case(
            "later fragment for an address of ours, IPv6",
            six(OURS6, Fragment(4, false, 80), &[0; 16]),
            RedirectPrefix,
        ),
        case(
            "two fragment headers",
            chain(&[Fragment(0, true, 81), Fragment(0, true, 81)]),
            PassUnmatched,
        ),
    ]
}

fn icmp_errors() -> Vec<Case> {
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

fn owned_addresses() -> Vec<Case> {
    use Verdict::*;
    let plain = V4::default();
    let arp_frame = |target: &str| frame(&[], ethertype::ARP, &arp(target));
    let mut token_ring = arp(OURS);
    token_ring[1] = 6;
    let solicit = |to: &str, target: &str| {
        ip_frame(&ipv6(
            PEER6,
            to,
            &[],
            protocol::ICMPV6,
            &neighbor_solicitation(target),
        ))
    };
    let mut short = neighbor_solicitation(OURS6);
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
            "ARP of another link",
            frame(&[], ethertype::ARP, &token_ring),
            PassProtocol,
        ),
        case(
            "ARP cut off",
            frame(&[], ethertype::ARP, &arp(OURS)[..20]),
            PassMalformed,
        ),
        case(
            "solicitation for an address of ours",
            solicit("ff02::1:ff00:5", OURS6),
            RedirectNeighbor,
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
            ip_frame(&ipv6(
                PEER6,
                OURS6,
                &[],
                protocol::ICMPV6,
                &icmp(136, 0, &[0; 16]),
            )),
            RedirectPrefix,
        ),
        case(
            "advertisement to all nodes",
            ip_frame(&ipv6(
                PEER6,
                "ff02::1",
                &[],
                protocol::ICMPV6,
                &icmp(136, 0, &[0; 16]),
            )),
            PassUnmatched,
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

fn malformed() -> Vec<Case> {
    use Verdict::*;
    let plain = V4::default();
    let edited = |at: usize, value: u8| {
        let mut frame = ip_frame(&udp4(HOST, 7));
        frame[14 + at] = value;
        frame
    };
    let edited6 = |at: usize, value: u8| {
        let mut frame = chain(&[HopByHop(0)]);
        frame[14 + at] = value;
        frame
    };
    let mut tunnel = ip_frame(&ipv4(PEER, HOST, 50, &plain, &[0; 40]));
    tunnel[14 + 3] = 19;
    let mut tunnel6 = ip_frame(&ipv6(PEER6, HOST6, &[Destination(0)], 50, &[0; 40]));
    tunnel6[14 + 5] = 7;
    vec![
        case(
            "header length of four words",
            edited(0, 0x44),
            PassMalformed,
        ),
        case("version 5", edited(0, 0x55), PassMalformed),
        case(
            "header longer than the packet",
            edited(0, 0x4f),
            PassMalformed,
        ),
        case(
            "total length beyond the frame",
            edited(3, 200),
            PassMalformed,
        ),
        case(
            "total length within the header",
            edited(3, 19),
            PassMalformed,
        ),
        case("total length of zero", edited(3, 0), PassMalformed),
        case(
            "total length within the UDP header",
            edited(3, 27),
            PassMalformed,
        ),
        case(
            "total length within the header, of no ports",
            tunnel,
            PassMalformed,
        ),
        case(
            "extension header beyond the payload, of no ports",
            tunnel6,
            PassMalformed,
        ),
        case(
            "destination 0.0.0.0",
            ip_frame(&udp4("0.0.0.0", 9)),
            PassMalformed,
        ),
        case("version 4 in IPv6", edited6(0, 0x40), PassMalformed),
        case(
            "payload length beyond the frame",
            edited6(5, 200),
            PassMalformed,
        ),
        case(
            "payload length within the extension header",
            edited6(5, 7),
            PassMalformed,
        ),
        case(
            "extension header beyond the payload",
            edited6(41, 2),
            PassMalformed,
        ),
        case("destination ::", ip_frame(&udp6("::", 9)), PassMalformed),
        case(
            "IPv4-mapped destination in IPv6",
            ip_frame(&udp6("::ffff:10.0.0.1", 7)),
            PassMalformed,
        ),
        case(
            "IPv4-mapped source in IPv6",
            ip_frame(&ipv6(
                "::ffff:10.0.0.9",
                HOST6,
                &[],
                protocol::UDP,
                &udp(5000, 7),
            )),
            PassMalformed,
        ),
        case(
            "UDP header cut off",
            ip_frame(&ipv4(PEER, HOST, protocol::UDP, &plain, &udp(5000, 7)[..7])),
            PassMalformed,
        ),
        case(
            "TCP header cut off",
            ip_frame(&ipv4(
                PEER,
                HOST,
                protocol::TCP,
                &plain,
                &tcp(5000, 8080)[..19],
            )),
            PassMalformed,
        ),
        case(
            "ICMP header cut off",
            ip_frame(&ipv4(PEER, HOST, protocol::ICMP, &plain, &[3, 4, 0, 0, 0])),
            PassMalformed,
        ),
        case(
            "nothing behind the Ethernet header",
            frame(&[], ethertype::IPV4, &[]),
            PassMalformed,
        ),
        case(
            "nothing behind the tag",
            frame(&[(0x8100, 0)], ethertype::IPV6, &[]),
            PassMalformed,
        ),
    ]
}
