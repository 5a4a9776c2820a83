//! Echo and discard, to every kind of client and listener.

use crate::support::kernel::{KERNEL, Server};
use crate::support::lab::{DEVICE, Lab, PEER, lab, serve, serve_as};
use crate::support::namespace::Namespace;
use crate::support::process::Process;
use crate::support::{PATIENCE, eventually, until};
use std::time::Duration;

/// Payloads at the edges: none, one byte, odd and even, the longest that fits an IPv4 and an IPv6
/// packet of 1500 bytes, and what the kernel has to send in two and in fourteen fragments.
const SIZES: [usize; 9] = [0, 1, 2, 63, 1451, 1452, 1472, 3000, 20_000];

fn payload(len: usize) -> Vec<u8> {
    // Not periodic in anything that a mistake in offsets would hide.
    (0..len)
        .map(|at| (at * 31 + at / 251).to_le_bytes()[0])
        .collect()
}

#[test]
fn echo_returns_every_payload_over_both_versions() {
    let lab = lab!("echo_returns_every_payload_over_both_versions", queues: 1);
    let service = lab.start(&serve("echo", &["[::]:7"]));
    for to in ["10.77.0.1:7", "[fd77::1]:7"] {
        let client = lab.client(to);
        for len in SIZES {
            client.echoes(&payload(len));
        }
    }
    assert_eq!(service.counter("event", "udp_tx"), 2 * SIZES.len() as u64);
    // In pieces came, and left, what is longer than 1472 bytes over IPv4 and 1452 over IPv6.
    assert_eq!(service.counter("event", "datagram_reassembled"), 2 + 3);
}

#[test]
fn discard_takes_everything_and_answers_nothing() {
    let lab = lab!("discard_takes_everything_and_answers_nothing", queues: 1);
    let service = lab.start(&serve("discard", &["[::]:9"]));
    let clients = [lab.client("10.77.0.1:9"), lab.client("[fd77::1]:9")];
    for client in &clients {
        for len in SIZES {
            client.send(&payload(len));
        }
    }
    until("every datagram was taken", || {
        service.counter("event", "udp_rx") == 2 * SIZES.len() as u64
    });
    for client in &clients {
        // An answer would have been queued before the counter was read.
        assert_eq!(client.receive(Duration::from_millis(50)), None);
    }
    assert_eq!(service.counter("event", "udp_tx"), 0);
    assert_eq!(service.counter("event", "icmp_error_tx"), 0);
}

#[test]
fn v6only_leaves_ipv4_to_another_service() {
    let lab = lab!("v6only_leaves_ipv4_to_another_service", queues: 1);
    let service = lab.start(&format!(
        "{}{}",
        serve_as("six", "echo", &["[::]:7"], "v6only = true"),
        serve_as("four", "discard", &["0.0.0.0:7"], ""),
    ));
    lab.client("[fd77::1]:7").echoes(b"six");
    let four = lab.client("10.77.0.1:7");
    four.send(b"four");
    until("both were received", || {
        service.counter("event", "udp_rx") == 2
    });
    assert_eq!(four.receive(Duration::from_millis(50)), None);
}

#[test]
fn v6only_alone_leaves_ipv4_to_the_kernel() {
    let lab = lab!("v6only_alone_leaves_ipv4_to_the_kernel", queues: 1);
    let _service = lab.start(&serve_as("six", "echo", &["[::]:7"], "v6only = true"));
    let _kernel = Server::udp(&lab.server, "0.0.0.0:7");
    lab.client("[fd77::1]:7").echoes(b"six");
    assert_eq!(
        lab.client("10.77.0.1:7").ask(b"four"),
        [KERNEL, b"four"].concat()
    );
}

#[test]
fn a_listener_on_one_address_leaves_the_others_to_the_kernel() {
    let lab = lab!("a_listener_on_one_address_leaves_the_others_to_the_kernel", queues: 1);
    lab.server.ip("address add 10.77.0.3/24 dev dp0");
    lab.server.ip("address add fd77::3/64 dev dp0 nodad");
    let _service = lab.start(&serve("echo", &["10.77.0.3:7", "[fd77::3]:7"]));
    let others = ["10.77.0.1:7", "[fd77::1]:7"];
    let _kernel = others.map(|local| Server::udp(&lab.server, local));
    for to in ["10.77.0.3:7", "[fd77::3]:7"] {
        lab.client(to).echoes(b"ours");
    }
    for to in others {
        assert_eq!(
            lab.client(to).ask(b"theirs"),
            [KERNEL, b"theirs"].concat(),
            "{to}"
        );
    }
}

/// Runs a client that reads `input` and must print it as it comes back. Tools send once: nothing
/// may be lost.
#[track_caller]
fn tool_echoes(lab: &Lab, line: &str, input: &str) {
    let mut words = line.split_whitespace();
    let mut command = lab.peer.command(words.next().expect("a program"));
    command.args(words);
    let mut process = Process::start_with_input(command, line, input.as_bytes());
    until(&format!("{line} prints what it sent"), || {
        let ended = process.ended();
        let is_printed = process.stdout() == input;
        assert!(is_printed || ended.is_none(), "{line} ended: {ended:?}");
        is_printed
    });
}

#[test]
fn nc_socat_and_ping_are_answered() {
    let lab = lab!("nc_socat_and_ping_are_answered", queues: 1, "nc", "socat", "ping");
    let _service = lab.start(&serve("echo", &["[::]:7"]));
    let seconds = PATIENCE.as_secs();
    // Any address of the interface: the link-local one, too.
    let local = link_local(&lab.server, DEVICE);
    link_local(&lab.peer, PEER);
    for address in ["10.77.0.1", "fd77::1", &format!("{local}%peer0")] {
        tool_echoes(
            &lab,
            &format!("nc -u -w {seconds} {address} 7"),
            "from nc\n",
        );
        lab.peer
            .sh(&format!("ping -c 2 -i 0.2 -W {seconds} {address}"));
    }
    for target in ["UDP4:10.77.0.1:7", "UDP6:[fd77::1]:7", "UDP:[fd77::1]:7"] {
        tool_echoes(
            &lab,
            &format!("socat -t {seconds} - {target}"),
            "from socat\n",
        );
    }
}

/// The link-local address of an interface, which the kernel makes some time after its carrier came.
fn link_local(namespace: &Namespace, device: &str) -> String {
    eventually("the kernel makes a link-local address", || {
        let shown = namespace.ip(&format!("-o -6 address show dev {device} scope link"));
        let mut words = shown.split_whitespace().skip_while(|word| *word != "inet6");
        let cidr = words.nth(1).filter(|_| !shown.contains("tentative"))?;
        cidr.split('/').next().map(str::to_owned)
    })
}
