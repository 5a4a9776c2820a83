//! How connections end, and windows that close for seconds.

use crate::extent::{MIB, sized};
use crate::setup::{DISCARD, ECHO, SOURCE, Setup, both, interop, v4, v6};
use crate::support::{PATIENCE, until};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long a stalled client stalls: several probes of a zero window.
const STALL: Duration = Duration::from_secs(3);

#[test]
fn a_half_closed_connection_goes_on_the_other_way() {
    let interop = interop!(
        "a_half_closed_connection_goes_on_the_other_way",
        Setup::default()
    );
    for to in both(ECHO) {
        // The client has said that it ends before it reads anything: all of it still comes.
        let mut client = interop.connect(to);
        client.send(200_000);
        client.finish_sending();
        client.expect(200_000);
        client.expect_end();
        // And a connection without a byte.
        let mut client = interop.connect(to);
        client.finish_sending();
        client.expect_end();
    }
    interop.until_quiet();
    interop.stop();
}

#[test]
fn resets_in_the_middle_harm_nobody_else() {
    let interop = interop!("resets_in_the_middle_harm_nobody_else", Setup::default());
    for to in both(ECHO) {
        let mut witness = interop.connect(to);
        for round in 0..sized(10, 100) {
            let mut victim = interop.connect(to);
            victim.send(100_000 + round);
            victim.expect(10_000);
            victim.reset();
            let source = SocketAddr::new(to.ip(), SOURCE);
            let mut victim = interop.connect(source);
            victim.expect_source(10_000);
            victim.reset();
            witness.send(1000);
            witness.expect(1000);
        }
        witness.finish_sending();
        witness.expect_end();
    }
    interop.until_quiet();
    interop.stop();
}

#[test]
fn closing_without_reading_ends_the_connection() {
    let interop = interop!(
        "closing_without_reading_ends_the_connection",
        Setup::default()
    );
    for to in both(SOURCE) {
        let client = interop.connect(to);
        // Something is in the socket's buffer, so that closing it sends a reset (RFC 2525 §2.17).
        until("something to read has come", || {
            client.stream.peek(&mut [0; 16]).is_ok_and(|len| len == 16)
        });
        drop(client);
    }
    interop.until_quiet();
    interop.stop();
}

#[test]
fn a_port_without_a_service_refuses() {
    let interop = interop!("a_port_without_a_service_refuses", Setup::default());
    for to in [v4(8), v6(8)] {
        let refused = interop
            .lab
            .peer
            .run(|| TcpStream::connect_timeout(&to, PATIENCE))
            .map(drop);
        assert_eq!(
            refused.map_err(|error| error.kind()),
            Err(ErrorKind::ConnectionRefused),
            "{to}"
        );
    }
    interop.stop();
}

/// The kernel stops reading: the service sends until the window is closed, probes it, and goes on
/// when it opens. Nothing may be lost or sent twice.
#[test]
fn a_reader_that_stalls_gets_everything_later() {
    let interop = interop!(
        "a_reader_that_stalls_gets_everything_later",
        Setup::default()
    );
    let mut clients = both(SOURCE).map(|to| interop.connect(to));
    for client in &mut clients {
        client.expect_source(1000);
    }
    std::thread::sleep(STALL);
    for client in clients {
        let mut client = client;
        client.expect_source(sized(8, 32) * MIB);
        drop(client);
    }
    interop.until_quiet();
    interop.stop();
}

/// The client only writes: first the service's answers find no reader and its sends stop, then its
/// own window closes and the kernel probes. After a stall the client reads, and everything moves.
#[test]
fn windows_closed_both_ways_open_again() {
    let interop = interop!("windows_closed_both_ways_open_again", Setup::default());
    let mut clients = both(ECHO).map(|to| interop.connect(to));
    let sent = clients.each_mut().map(|client| {
        let sent = client.send_until_full(Duration::from_millis(700));
        assert!(sent > 100_000, "{sent} bytes until both windows closed");
        sent
    });
    std::thread::sleep(STALL);
    for (mut client, sent) in clients.into_iter().zip(sent) {
        client.finish_sending();
        client.expect(sent);
        client.expect_end();
    }
    interop.until_quiet();
    interop.stop();
}

/// A receive buffer as small as the kernel has: windows of a segment or two, closed again and again.
#[test]
fn a_tiny_window_moves_everything_in_the_end() {
    let interop = interop!(
        "a_tiny_window_moves_everything_in_the_end",
        Setup {
            sysctls: vec![("ipv4/tcp_rmem", "4096 4096 4096".into())],
            ..Setup::default()
        }
    );
    for to in both(ECHO) {
        interop.connect(to).echo_all(sized(MIB / 4, 4 * MIB));
    }
    for to in both(SOURCE) {
        let mut client = interop.connect(to);
        for _ in 0..sized(20, 200) {
            client.expect_source(3000);
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    interop.until_quiet();
    interop.stop();
}

/// Urgent data is data (RFC 6093 §5): what is sent with MSG_OOB comes back in its place.
#[test]
fn urgent_data_stays_in_line() {
    let interop = interop!("urgent_data_stays_in_line", Setup::default());
    for to in both(ECHO) {
        let mut client = interop.connect(to);
        client.stream.write_all(b"before").expect("room");
        let sent = rustix::net::send(&client.stream, b"!", rustix::net::SendFlags::OOB);
        assert_eq!(sent, Ok(1));
        client.stream.write_all(b"after").expect("room");
        let mut answer = [0; 12];
        client.stream.read_exact(&mut answer).expect("the echo");
        assert_eq!(&answer, b"before!after");
        client.finish_sending();
        client.expect_end();
    }
    interop.until_quiet();
    interop.stop();
}

/// Nobody is connected for ever to a service that ends.
#[test]
fn a_service_that_ends_leaves_no_client_waiting() {
    let interop = interop!(
        "a_service_that_ends_leaves_no_client_waiting",
        Setup::default()
    );
    if interop.service().is_none() {
        return;
    }
    let mut clients: Vec<_> = [ECHO, DISCARD, SOURCE]
        .into_iter()
        .flat_map(both)
        .map(|to| interop.connect(to))
        .collect();
    for client in &mut clients {
        client.send(1000);
    }
    let lab = interop.stop_server();
    for mut client in clients {
        // What was under way, and then the end or a reset: the kernel behind the interface answers
        // what the client sends next.
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            client
                .stream
                .set_read_timeout(Some(Duration::from_millis(100)))
                .expect("an option");
            match client.stream.read(&mut [0; 1 << 16]) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    // Somebody who waits for an answer asks again in the end.
                    let _ = client.stream.write(b"still there?");
                }
                Err(_) => break,
            }
            assert!(std::time::Instant::now() < deadline, "it waits for ever");
        }
    }
    drop(lab);
}
