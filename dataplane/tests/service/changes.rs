//! Links, addresses and neighbours that change while the service runs.

use crate::support::lab::{Lab, SERVER_V4, lab, serve};
use crate::support::load::Load;
use crate::support::service::Service;
use crate::support::{assert_says, until};

const ECHO: [&str; 2] = ["10.77.0.1:7", "[fd77::1]:7"];

fn start(lab: &Lab) -> Service {
    // A link that goes down would lose its IPv6 addresses, unlike those of IPv4.
    for namespace in [&lab.server, &lab.peer] {
        namespace.sysctl("ipv6/conf/all/keep_addr_on_down", "1");
    }
    lab.start(&serve("echo", &["[::]:7"]))
}

/// Packets may be lost around a change, so these ask until they are answered.
#[track_caller]
fn both_answer(lab: &Lab) {
    for to in ECHO {
        assert_eq!(lab.client(to).ask(to.as_bytes()), to.as_bytes());
    }
}

#[test]
fn echo_works_again_after_the_link_was_down() {
    let lab = lab!("echo_works_again_after_the_link_was_down", queues: 1);
    let service = start(&lab);
    let loads = ECHO.map(|to| Load::start_lossy(&lab, to));
    both_answer(&lab);
    for (namespace, device) in [(&lab.server, "dp0"), (&lab.peer, "peer0")] {
        namespace.ip(&format!("link set {device} down"));
        until("the service sees it", || {
            service.ask_json("info")["interface"]["up"] == false
        });
        namespace.ip(&format!("link set {device} up"));
        until("the service sees it", || {
            service.ask_json("info")["interface"]["up"] == true
        });
        both_answer(&lab);
    }
    // And the flows that ran all the time go on.
    for load in &loads {
        let before = load.by_service();
        until("the load goes on", || load.by_service() > before + 10);
    }
    service.stop();
}

#[test]
fn a_service_that_starts_without_carrier_works_once_there_is_one() {
    let lab = lab!("a_service_that_starts_without_carrier_works_once_there_is_one", queues: 1);
    lab.server.sysctl("ipv6/conf/all/keep_addr_on_down", "1");
    lab.peer.sysctl("ipv6/conf/all/keep_addr_on_down", "1");
    lab.peer.ip("link set peer0 down");
    // The kernel takes up to a second to say so.
    until("there is no carrier", || {
        !lab.server.ip("-o link show dev dp0").contains("state UP")
    });
    let service = lab.start(&format!("link_wait_s = 0\n{}", serve("echo", &["[::]:7"])));
    assert_says(&service.stderr(), &["no carrier"]);
    lab.peer.ip("link set peer0 up");
    both_answer(&lab);
}

#[test]
fn addresses_that_come_and_go_are_followed() {
    let lab = lab!("addresses_that_come_and_go_are_followed", queues: 1);
    let service = start(&lab);
    lab.server.ip("address add 10.77.0.9/24 dev dp0");
    lab.server.ip("address add fd77::9/64 dev dp0 nodad");
    for to in ["10.77.0.9:7", "[fd77::9]:7"] {
        assert_eq!(lab.client(to).ask(b"new"), b"new");
    }
    let addresses =
        |service: &Service| service.ask_json("info")["interface"]["addresses"].to_string();
    assert_says(&addresses(&service), &["10.77.0.9/24", "fd77::9/64"]);
    lab.server.ip("address del 10.77.0.9/24 dev dp0");
    lab.server.ip("address del fd77::9/64 dev dp0");
    until("they are gone", || {
        let left = addresses(&service);
        !left.contains("10.77.0.9") && !left.contains("fd77::9")
    });
    both_answer(&lab);
}

#[test]
fn routes_that_come_and_go_are_followed() {
    let lab = lab!("routes_that_come_and_go_are_followed", queues: 1);
    let service = start(&lab);
    // A network behind the peer: answers go through it.
    lab.peer.ip("address add 198.51.100.1/32 dev lo");
    let client = || {
        let (local, to) = ("198.51.100.1:0", format!("{SERVER_V4}:7"));
        let address = |text: &str| text.parse().expect("an address");
        crate::support::kernel::Udp::connect(&lab.peer, address(local), address(&to))
    };
    client().send(b"no way back");
    until("there is no route for the answer", || {
        service.counter("drop", "tx_no_route") > 0
    });
    lab.server.ip("route add 198.51.100.0/24 via 10.77.0.2");
    assert_eq!(client().ask(b"there is"), b"there is");
    lab.server.ip("route del 198.51.100.0/24");
    let before = service.counter("drop", "tx_no_route");
    until("the route is gone again", || {
        client().send(b"no way back");
        service.counter("drop", "tx_no_route") > before
    });
}

#[test]
fn a_peer_with_a_new_ethernet_address_is_answered() {
    let lab = lab!("a_peer_with_a_new_ethernet_address_is_answered", queues: 1);
    let _service = start(&lab);
    both_answer(&lab);
    lab.peer.ip("link set peer0 address 02:00:5e:00:53:99");
    both_answer(&lab);
}

#[test]
fn neighbours_that_the_kernel_forgets_cost_no_answer() {
    let lab = lab!("neighbours_that_the_kernel_forgets_cost_no_answer", queues: 1);
    let _service = start(&lab);
    both_answer(&lab);
    for round in 0..5 {
        lab.server.ip("neighbour flush dev dp0");
        for to in ECHO {
            lab.client(to).echoes(&[round]);
        }
    }
}

#[test]
fn a_smaller_mtu_makes_smaller_fragments() {
    let lab = lab!("a_smaller_mtu_makes_smaller_fragments", queues: 1);
    let service = start(&lab);
    lab.client(ECHO[0]).echoes(&[1; 1472]);
    assert_eq!(service.counter("event", "fragment_tx"), 0);
    lab.server.ip("link set dp0 mtu 1400");
    lab.peer.ip("link set peer0 mtu 1400");
    until("the service sees it", || {
        service.ask_json("info")["interface"]["mtu"] == 1400
    });
    for to in ECHO {
        lab.client(to).echoes(&[2; 1472]);
    }
    assert_eq!(service.counter("event", "fragment_tx"), 4);
}
