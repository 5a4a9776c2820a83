//! Flows that rules claim or deny, and the link layer beneath them.

use super::*;

pub(super) fn rules() -> Vec<Case> {
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
            "port on an address that moved away, IPv4",
            ip_frame(&udp4("10.0.0.77", 7)),
            PassUnmatched,
        ),
        case(
            "port on an address that moved away, IPv6",
            ip_frame(&udp6("2001:db8::77", 7)),
            PassUnmatched,
        ),
        case(
            "exact, of an address that moved away, IPv4",
            ip_frame(&tcp4("10.0.0.77", 8080)),
            PassUnmatched,
        ),
        case(
            "exact, of an address that moved away, IPv6",
            ip_frame(&tcp6("2001:db8::77", 8080)),
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

pub(super) fn links() -> Vec<Case> {
    use Verdict::*;
    let packet = udp4(HOST, 7);
    let tagged = |tags: &[(u16, u16)]| frame(tags, ethertype::IPV4, &packet);
    let to = |mac: [u8; 6], packet: &[u8]| {
        let mut frame = ip_frame(packet);
        frame[..6].copy_from_slice(&mac);
        frame
    };
    vec![
        case(
            "to another station",
            to([2, 0, 0, 0, 0, 3], &packet),
            PassNotOurMac,
        ),
        case(
            "to another station whose address ends alike",
            to([2, 0, 1, 0, 0, 1], &packet),
            PassNotOurMac,
        ),
        case(
            "to another station, an address of ours",
            to([2, 0, 0, 0, 0, 3], &udp4(OURS, 7)),
            PassNotOurMac,
        ),
        case("to all stations", to([0xff; 6], &packet), RedirectPort),
        case(
            "to a group of stations",
            to([0x33, 0x33, 0xff, 0, 0, 5], &packet),
            RedirectPort,
        ),
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
