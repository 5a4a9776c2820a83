//! Connections that services open, to servers of the peer's kernel.

use crate::support::lab::{Lab, PEER_V4, PEER_V6, lab};
use crate::support::service::Service;
use crate::support::{PATIENCE, assert_says, until};
use crate::workers::{TWO, has_two_cores};
use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::RangeInclusive;
use std::time::Instant;

/// The default of `tcp.ports`.
const PORTS: RangeInclusive<u16> = 61_000..=65_535;

/// The list of ports that the kernel gives to nobody.
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// A `[[service]]` that connects there.
fn connect_to(application: &str, to: &[&str], more: &str) -> String {
    let to: Vec<String> = to.iter().map(|remote| format!("\"{remote}\"")).collect();
    format!(
        "\n[[service]]\nname = \"out-{application}\"\napplication = \"{application}\"\nprotocol = \"tcp\"\n\
         connect = [{}]\n{more}\n",
        to.join(", ")
    )
}

/// A listening socket of the peer's kernel.
#[track_caller]
fn listen(lab: &Lab, local: &str) -> TcpListener {
    let listener = lab
        .peer
        .run(|| TcpListener::bind(local))
        .unwrap_or_else(|error| panic!("{local}: {error}"));
    listener.set_nonblocking(true).expect("an option");
    listener
}

/// The next connection to it, which must come.
#[track_caller]
fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Ok((stream, from)) = listener.accept() {
            stream.set_nonblocking(false).expect("an option");
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
            return (stream, from);
        }
        assert!(Instant::now() < deadline, "nobody connects");
        std::thread::sleep(crate::support::POLL);
    }
}

#[track_caller]
fn is_echoed(mut stream: &TcpStream, payload: &[u8]) {
    stream.write_all(payload).expect("it is taken");
    let mut answer = vec![0; payload.len()];
    stream.read_exact(&mut answer).expect("it comes back");
    assert!(answer == payload, "the echo differs");
}

/// Expects the peer's end.
#[track_caller]
fn ends(mut stream: &TcpStream) {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("an orderly end");
    assert_eq!(rest, b"");
}

fn reserved(lab: &Lab) -> String {
    let list = lab.server.run(|| std::fs::read_to_string(RESERVED));
    list.expect("procfs").trim().to_owned()
}

#[test]
fn connections_are_opened_served_and_opened_again() {
    let lab = lab!("connections_are_opened_served_and_opened_again", queues: 1);
    let listeners = [
        listen(&lab, &format!("{PEER_V4}:7007")),
        listen(&lab, &format!("[{PEER_V6}]:7007")),
    ];
    let to = [format!("{PEER_V4}:7007"), format!("[{PEER_V6}]:7007")];
    let to = to.each_ref().map(String::as_str);
    let service = lab.start(&connect_to("echo", &to, "connections = 3"));
    for listener in &listeners {
        let all: Vec<_> = (0..3).map(|_| accept(listener)).collect();
        let ports: HashSet<u16> = all.iter().map(|(_, from)| from.port()).collect();
        assert!(ports.iter().all(|port| PORTS.contains(port)), "{ports:?}");
        assert_eq!(ports.len(), 3);
        let payload: Vec<u8> = (0..1_000_000u32).map(|at| (at % 251) as u8).collect();
        for (stream, _) in &all {
            is_echoed(stream, &payload[..10_000]);
        }
        std::thread::scope(|scope| {
            let stream = &all[0].0;
            scope.spawn(|| (&*stream).write_all(&payload).expect("it is taken"));
            let mut answer = vec![0; payload.len()];
            (&*stream).read_exact(&mut answer).expect("it comes back");
            assert!(answer == payload, "the echo differs");
        });
        // One is closed in order, two are reset.
        all[0].0.shutdown(Shutdown::Write).expect("a FIN");
        ends(&all[0].0);
        is_echoed(&all[1].0, b"not disturbed");
        for (stream, _) in &all[1..] {
            let abrupt = Some(std::time::Duration::ZERO);
            rustix::net::sockopt::set_socket_linger(stream, abrupt).expect("an option");
        }
    }
    for listener in &listeners {
        for _ in 0..3 {
            let (stream, _) = accept(listener);
            is_echoed(&stream, b"again");
        }
    }
    assert_eq!(service.counter("event", "tcp_connect_failed"), 0);
    let info = service.ask("info").stdout;
    assert_says(&info, &["to tcp 10.77.0.2:7007, 3 connections"]);
    service.stop();
}

#[test]
fn a_peer_that_is_not_there_is_asked_again_ever_more_seldom() {
    let lab = lab!("a_peer_that_is_not_there_is_asked_again_ever_more_seldom", queues: 1);
    let to = format!("{PEER_V4}:7007");
    let service = lab.start(&connect_to("discard", &[&to], ""));
    let begun = Instant::now();
    until("it was refused three times", || {
        service.counter("event", "tcp_connect_failed") >= 3
    });
    // At once, after about 1 s, after about 2 s more.
    assert!(
        begun.elapsed().as_millis() >= 2_200,
        "{:?}",
        begun.elapsed()
    );
    let listener = listen(&lab, &to);
    let (mut stream, _) = accept(&listener);
    stream.write_all(b"there you are").expect("it is taken");
    stream.shutdown(Shutdown::Write).expect("a FIN");
    ends(&stream);
    service.stop();
}

#[test]
fn ports_are_reserved_from_the_kernel_while_the_service_runs() {
    let lab = lab!("ports_are_reserved_from_the_kernel_while_the_service_runs", queues: 1);
    lab.server
        .sysctl("ipv4/ip_local_reserved_ports", "80,61500,65000-65535");
    let listener = listen(&lab, &format!("{PEER_V4}:7007"));
    let to = format!("{PEER_V4}:7007");
    let service = lab.start(&connect_to("echo", &[&to], ""));
    assert_eq!(reserved(&lab), "80,61000-65535");
    is_echoed(&accept(&listener).0, b"from a port of its own");
    service.stop();
    assert_eq!(reserved(&lab), "80,61500,65000-65535");
    // No service connects: nothing is reserved, and the ports are the kernel's.
    let without = connect_to("echo", &[], "listen = [\"[::]:7\"]");
    let service = lab.start(&without);
    assert_eq!(reserved(&lab), "80,61500,65000-65535");
    let kernel = lab.server.run(|| TcpListener::bind("0.0.0.0:61000"));
    let kernel = kernel.expect("the port is free");
    let done = lab
        .peer
        .run(|| TcpStream::connect_timeout(&SocketAddr::from(([10, 77, 0, 1], 61_000)), PATIENCE));
    done.expect("the kernel listens there");
    // A reload that would take the ports is refused as long as the kernel has one of them, and nothing
    // changes.
    lab.write_config(&connect_to("echo", &[&to], ""));
    let refused = service.ask("reload");
    assert_says(&refused.stderr, &["0.0.0.0:61000 (LISTEN)", "ss -tanp"]);
    assert_eq!(reserved(&lab), "80,61500,65000-65535");
    drop(kernel);
    let done = service.ask("reload");
    assert!(done.status.success(), "{done}");
    assert_eq!(reserved(&lab), "80,61000-65535");
    let (kept, _) = accept(&listener);
    is_echoed(&kept, b"after a reload");
    // Another application for another address; the connection to the first ends.
    let other = listen(&lab, &format!("[{PEER_V6}]:7008"));
    lab.write_config(&connect_to("source", &[&format!("[{PEER_V6}]:7008")], ""));
    let done = service.ask("reload");
    assert!(done.status.success(), "{done}");
    let (mut stream, _) = accept(&other);
    let mut text = [0; 1000];
    stream.read_exact(&mut text).expect("characters");
    assert!(text.starts_with(b" !\"#$%&"), "{text:?}");
    let end = (&kept).read(&mut [0; 16]).map_err(|error| error.kind());
    assert_eq!(end, Err(std::io::ErrorKind::ConnectionReset));
    // And none at all.
    lab.write_config(&without);
    let done = service.ask("reload");
    assert!(done.status.success(), "{done}");
    assert_eq!(reserved(&lab), "80,61500,65000-65535");
    service.stop();
}

#[test]
fn a_reload_keeps_connections_that_are_still_wanted() {
    let lab = lab!("a_reload_keeps_connections_that_are_still_wanted", queues: 1);
    let to = format!("{PEER_V4}:7007");
    let listener = listen(&lab, &to);
    let service = lab.start(&connect_to("echo", &[&to], "connections = 2"));
    let kept = [accept(&listener).0, accept(&listener).0];
    lab.write_config(&connect_to(
        "echo",
        &[&to],
        "connections = 3\nnodelay = false",
    ));
    let done = service.ask("reload");
    assert!(done.status.success(), "{done}");
    let (third, _) = accept(&listener);
    for stream in kept.iter().chain([&third]) {
        is_echoed(stream, b"all three");
    }
    assert_eq!(service.counter("event", "tcp_established"), 3);
    service.stop();
}

#[test]
fn a_kernel_socket_on_one_of_the_ports_is_named() {
    let lab = lab!("a_kernel_socket_on_one_of_the_ports_is_named", queues: 1);
    let to = format!("{PEER_V4}:7007");
    let config = connect_to("echo", &[&to], "");
    let taken = lab.server.run(|| TcpListener::bind("10.77.0.1:61234"));
    let taken = taken.expect("the port is free");
    let done = lab.start_in_vain(&config);
    assert_eq!(done.status.code(), Some(1), "{done}");
    assert_says(&done.stderr, &["10.77.0.1:61234 (LISTEN)", "tcp.ports"]);
    let doctor = lab
        .dataplane()
        .args(["doctor", "--config"])
        .arg(lab.path("service.toml"))
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert_says(&said, &["FAIL  ports", "10.77.0.1:61234 (LISTEN)"]);
    drop(taken);
    // On an address that nothing is steered for, a kernel socket is in nobody's way.
    let harmless = lab.server.run(|| TcpListener::bind("127.0.0.1:61234"));
    let _harmless = harmless.expect("the port is free");
    lab.start(&config).stop();
}

#[test]
fn two_workers_share_connections_and_never_a_port() {
    let test = "two_workers_share_connections_and_never_a_port";
    let lab = lab!("two_workers_share_connections_and_never_a_port", queues: 2);
    if !has_two_cores(test) {
        return;
    }
    let (v4, v6) = (format!("{PEER_V4}:7007"), format!("[{PEER_V6}]:7007"));
    let listeners = [listen(&lab, &v4), listen(&lab, &v6)];
    let service: Service = lab.start(&format!(
        "{TWO}{}",
        connect_to("echo", &[&v4, &v6], "connections = 32")
    ));
    for listener in &listeners {
        let all: Vec<_> = (0..32).map(|_| accept(listener)).collect();
        let ports: HashSet<u16> = all.iter().map(|(_, from)| from.port()).collect();
        assert_eq!(ports.len(), 32, "{ports:?}");
        let middle = 61_000 + 4536 / 2;
        let lower = ports.iter().filter(|port| **port < middle).count();
        assert_eq!(lower, 16, "half are worker 0's: {ports:?}");
        // What comes to the other worker's queue goes around.
        let payload = vec![7; 50_000];
        for (stream, _) in &all {
            is_echoed(stream, &payload);
        }
    }
    let established = service.counters_by_worker("event", "tcp_established");
    // Those to IPv4 have ended, and perhaps been opened again.
    assert!(
        established[0] >= 32 && established[1] >= 32,
        "{established:?}"
    );
    let handed = service.counters_by_worker("event", "handoff_rx");
    assert!(handed.iter().all(|count| *count > 0), "{handed:?}");
    service.stop();
}
