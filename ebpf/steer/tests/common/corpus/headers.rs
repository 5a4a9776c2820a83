//! Options, extension headers and fragments, and packets that contradict themselves.

use super::Extension::{Authentication, Destination, Fragment, HopByHop, Routing};
use super::*;

pub(super) fn headers() -> Vec<Case> {
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

pub(super) fn fragments() -> Vec<Case> {
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

pub(super) fn malformed() -> Vec<Case> {
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
