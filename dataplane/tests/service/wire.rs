//! tcpdump at the peer finds no fault with anything we send, and neither do the stack's own parsers.

use crate::support::lab::{DEVICE, PEER, lab, serve_as};
use crate::support::packets::{Capture, Census};
use crate::support::{PATIENCE, until};

#[test]
fn tcpdump_finds_no_fault() {
    let lab = lab!("tcpdump_finds_no_fault", queues: 1, "tcpdump", "ping");
    // The kernel's packets cross the same cable, and would come without checksums.
    lab.server.sh(&format!("ethtool -K {DEVICE} tx off"));
    let _service = lab.start(&serve_as(
        "echo",
        "echo",
        &["[::]:7"],
        "own_addresses = [\"10.77.0.50/24\", \"fd77::50/64\"]",
    ));
    let capture = Capture::start(&lab);
    let seconds = PATIENCE.as_secs();
    for host in ["10.77.0.1", "[fd77::1]", "10.77.0.50", "[fd77::50]"] {
        let client = lab.client(&format!("{host}:7"));
        for len in [0, 1, 2, 17, 18, 1471, 1472, 3000, 20_000] {
            client.echoes(&vec![0xa5; len]);
        }
        let closed = lab.client(&format!("{host}:8"));
        until("ICMP says that the port is closed", || closed.is_refused());
        let bare = host.trim_matches(['[', ']']);
        lab.peer.ip(&format!("neighbour flush dev {PEER}"));
        lab.peer.sh(&format!("ping -n -c 1 -W {seconds} {bare}"));
        lab.peer
            .sh(&format!("ping -n -c 1 -W {seconds} -s 3000 {bare}"));
    }
    let packets = capture.finish(&lab);
    let census = Census::of(&packets, lab.mac_bytes(DEVICE));
    // A check of nothing would find no fault either.
    for (kind, at_least) in [
        ("UDP over IPv4", 14),
        ("UDP over IPv6", 12),
        ("IPv4 fragment", 2 * (3 + 14)),
        ("IPv6 fragment", 2 * (3 + 14)),
        ("datagram in fragments", 8),
        ("ICMP echo reply", 2),
        ("ICMPv6 echo reply", 2),
        ("ICMP unreachable", 2),
        ("ICMPv6 unreachable", 2),
        ("ARP", 4),
        ("NDP", 4),
    ] {
        assert!(census.get(kind) >= at_least, "{kind}: {census:?}");
    }
}
