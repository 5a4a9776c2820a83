//! Addresses the kernel does not have: the stack answers ARP, neighbour discovery and ping for them.

use crate::driver_support::PacketSocket;
use crate::support::lab::{DEVICE, PEER, lab, serve_as};
use crate::support::{PATIENCE, assert_says, until};
use stack::link::MacAddr;
use stack::wire::arp;
use stack::wire::ethernet::{self, VlanIds};
use std::net::Ipv4Addr;

/// Echo at two addresses of the subnets that the kernel has, and one of a subnet of its own.
fn owner() -> String {
    serve_as(
        "echo",
        "echo",
        &["10.77.0.50:7", "[fd77::50]:7", "192.0.2.50:7"],
        "own_addresses = [\"10.77.0.50/24\", \"fd77::50/64\", \"192.0.2.50/32\"]",
    )
}

#[test]
fn own_addresses_are_found_and_answer() {
    let lab = lab!("own_addresses_are_found_and_answer", queues: 1);
    let service = lab.start(&owner());
    lab.peer.ip("route add 192.0.2.50/32 dev peer0");
    for to in ["10.77.0.50:7", "[fd77::50]:7", "192.0.2.50:7"] {
        let client = lab.client(to);
        for len in [0, 1, 1472, 3000, 20_000] {
            client.echoes(&vec![0x5a; len]);
        }
    }
    // What the peer's kernel found out with ARP and neighbour solicitations.
    let mac = lab.mac(DEVICE);
    for address in ["10.77.0.50", "fd77::50", "192.0.2.50"] {
        let neighbor = lab.peer.ip(&format!("neighbour show {address} dev {PEER}"));
        assert_says(&neighbor, &[&mac]);
    }
    assert!(service.counter("event", "arp_replied") >= 2);
    assert!(service.counter("event", "ndp_replied") >= 1);
    // RFC 5227 §1.1: only after nobody has objected to the probes.
    until("the addresses are announced", || {
        service.counter("event", "address_announced") >= 3
    });
    assert_eq!(service.counter("event", "address_conflict"), 0);
    // The kernel has none of them, and answers for none of them.
    assert!(!lab.server.ip("address show dev dp0").contains("50/"));
}

#[test]
fn closed_ports_of_own_addresses_are_refused_by_the_stack() {
    let lab = lab!("closed_ports_of_own_addresses_are_refused_by_the_stack", queues: 1);
    let service = lab.start(&owner());
    for to in ["10.77.0.50:8", "[fd77::50]:8"] {
        let client = lab.client(to);
        until("ICMP says that the port is closed", || client.is_refused());
    }
    assert!(service.counter("event", "icmp_error_tx") >= 2);
    // The service's port at an address of the kernel's is the kernel's: it refuses it.
    let sent = service.counter("event", "icmp_error_tx");
    until("the kernel refuses", || {
        lab.client("10.77.0.1:7").is_refused()
    });
    assert_eq!(service.counter("event", "icmp_error_tx"), sent);
}

#[test]
fn ping_finds_own_addresses_in_one_piece_and_in_fragments() {
    let lab = lab!("ping_finds_own_addresses_in_one_piece_and_in_fragments", queues: 1, "ping");
    let service = lab.start(&owner());
    let seconds = PATIENCE.as_secs();
    for address in ["10.77.0.50", "fd77::50"] {
        for size in [0, 56, 1452, 3000, 20_000] {
            let line = format!("ping -n -c 2 -i 0.2 -W {seconds} -s {size} {address}");
            let said = lab.peer.sh(&line);
            assert_says(&said, &["2 received"]);
            assert!(!said.contains("wrong data"), "{said}");
        }
    }
    assert_eq!(service.counter("event", "icmp_echo_replied"), 20);
}

#[test]
fn arping_is_answered_and_sees_the_address_in_use() {
    let test = "arping_is_answered_and_sees_the_address_in_use";
    let lab = lab!("arping_is_answered_and_sees_the_address_in_use", queues: 1, "arping");
    let _service = lab.start(&owner());
    let seconds = PATIENCE.as_secs();
    let arping = format!("arping -c 2 -w {seconds} -I {PEER} 10.77.0.50");
    let said = lab.peer.sh(&arping);
    assert!(said.to_lowercase().contains(&lab.mac(DEVICE)), "{said}");
    if !lab.peer.try_sh("arping -V").stdout.contains("iputils") {
        println!("\nskipped: {test} (-D): needs arping of iputils");
        return;
    }
    // RFC 5227 probe: somebody answers, so the address is taken.
    let probe = lab
        .peer
        .try_sh(&format!("arping -D -c 2 -w {seconds} -I {PEER} 10.77.0.50"));
    assert_eq!(probe.status.code(), Some(1), "{probe}");
    assert_says(&probe.stdout, &["reply from 10.77.0.50"]);
}

#[test]
fn a_peer_that_adds_an_own_address_finds_it_taken() {
    let lab = lab!("a_peer_that_adds_an_own_address_finds_it_taken", queues: 1);
    let _service = lab.start(&owner());
    lab.peer.sysctl("ipv6/conf/peer0/accept_dad", "1");
    lab.peer.ip(&format!("address add fd77::50/64 dev {PEER}"));
    until("duplicate address detection fails", || {
        let address = format!("-6 address show dev {PEER} to fd77::50");
        lab.peer.ip(&address).contains("dadfailed")
    });
    lab.peer.ip(&format!("address del fd77::50/64 dev {PEER}"));
    lab.client("[fd77::50]:7").echoes(b"still here");
}

#[test]
fn another_host_with_an_own_address_is_noticed() {
    let lab = lab!("another_host_with_an_own_address_is_noticed", queues: 1);
    let service = lab.start(&owner());
    let other: MacAddr = [2, 0, 0x5e, 0, 0x53, 0x77];
    let address = Ipv4Addr::new(10, 77, 0, 50);
    let announcement = arp::Repr {
        operation: arp::Operation::Request,
        sender_mac: other,
        sender: address,
        target_mac: [0; 6],
        target: address,
    };
    let mut frame = [0; ethernet::FRAME_LEN_MIN];
    let header = ethernet::Repr {
        destination: ethernet::BROADCAST,
        source: other,
        vlans: VlanIds::NONE,
        ether_type: ethernet::TYPE_ARP,
    };
    let at = header.emit(&mut frame).expect("there is room");
    announcement.emit(&mut frame, at).expect("there is room");
    lab.peer.run(|| PacketSocket::open(PEER).send(&frame));
    until("the conflict is counted", || {
        service.counter("event", "address_conflict") > 0
    });
    assert_says(&service.notes(), &["another host", "address"]);
    until("the conflict is logged", || {
        service.stderr().contains("another host")
    });
}

#[test]
fn an_own_address_that_another_host_has_is_noticed_at_once() {
    let lab = lab!("an_own_address_that_another_host_has_is_noticed_at_once", queues: 1);
    lab.peer
        .ip(&format!("address add fd77::50/64 dev {PEER} nodad"));
    lab.peer
        .ip(&format!("address add 10.77.0.50/24 dev {PEER}"));
    let service = lab.start(&owner());
    // Our probes are answered; nobody else has said a word.
    until("both conflicts are counted", || {
        service.counter("event", "address_conflict") >= 2
    });
    assert_says(&service.notes(), &["another host"]);
}
