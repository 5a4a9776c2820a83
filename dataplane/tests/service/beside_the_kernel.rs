//! What is not a service's stays the kernel's, on the same interface and at the same time.

use crate::support::kernel::{KERNEL, Server, tcp_echoes};
use crate::support::lab::{lab, serve};
use crate::support::load::Load;
use crate::support::until;

#[test]
fn kernel_services_answer_while_ours_do() {
    let lab = lab!("kernel_services_answer_while_ours_do", queues: 2, "ping");
    let _service = lab.start(&serve("echo", &["[::]:7"]));
    let _udp = Server::udp(&lab.server, "[::]:5000");
    let _tcp = Server::tcp(&lab.server, "[::]:5001");
    // TCP on our UDP port is not ours either.
    let _same_port = Server::tcp(&lab.server, "[::]:7");
    let loads = [
        Load::start(&lab, "10.77.0.1:7"),
        Load::start(&lab, "[fd77::1]:7"),
    ];
    for address in ["10.77.0.1", "[fd77::1]"] {
        let answer = lab.client(&format!("{address}:5000")).ask(b"udp");
        assert_eq!(answer, [KERNEL, b"udp"].concat());
        tcp_echoes(&lab.peer, &format!("{address}:5001"), b"tcp");
        tcp_echoes(&lab.peer, &format!("{address}:7"), b"tcp on port 7");
        // 2 s for an answer that takes microseconds.
        let bare = address.trim_matches(['[', ']']);
        lab.peer.sh(&format!("ping -c 3 -i 0.2 -W 2 {bare}"));
        assert!(lab.client(&format!("{address}:6000")).is_refused());
    }
    until("our service answered meanwhile", || {
        loads.iter().all(|load| load.by_service() > 100)
    });
    for load in &loads {
        assert_eq!((load.by_kernel(), load.lost()), (0, 0));
    }
}

#[test]
fn arp_and_ndp_of_shared_addresses_are_the_kernels() {
    let lab = lab!("arp_and_ndp_of_shared_addresses_are_the_kernels", queues: 1, "ping");
    let service = lab.start(&serve("echo", &["[::]:7"]));
    // A stack that answered as well would leave traces in these counters.
    for round in 0..3 {
        lab.peer.ip("neighbour flush dev peer0");
        lab.client("10.77.0.1:7").echoes(&[round]);
        lab.client("[fd77::1]:7").echoes(&[round]);
    }
    for counter in [
        "arp_replied",
        "ndp_replied",
        "icmp_echo_replied",
        "address_announced",
    ] {
        assert_eq!(service.counter("event", counter), 0, "{counter}");
    }
    assert_eq!(service.counter("event", "udp_tx"), 6);
}
