//! Thousands of connections that come and go.

use crate::client::Client;
use crate::extent::sized;
use crate::setup::{ECHO, Setup, both, interop};
use crate::support::PATIENCE;
use std::net::{SocketAddr, TcpStream};

/// Client threads: one waits while another works.
const THREADS: u64 = 4;

/// A connection, one request of 64 bytes, its answer, and the end, again and again from several
/// threads, which are in the peer's namespace.
fn churn(interop: &crate::setup::Interop, each: u64, end: fn(Client)) {
    let one = |to: SocketAddr, number: u64| {
        let stream = TcpStream::connect_timeout(&to, PATIENCE)
            .unwrap_or_else(|error| panic!("connection {number} to {to}: {error}"));
        let mut client = Client::new(stream, to);
        client.begin_at(number * 64);
        client.send(64);
        client.expect(64);
        end(client);
    };
    let one = &one;
    interop.lab.peer.run(|| {
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                scope.spawn(move || {
                    for number in 0..each {
                        for to in both(ECHO) {
                            one(to, thread * each + number);
                        }
                    }
                });
            }
        });
    });
}

#[test]
fn thousands_of_connections_are_opened_served_and_closed() {
    let interop = interop!(
        "thousands_of_connections_are_opened_served_and_closed",
        Setup::default()
    );
    churn(&interop, sized(250, 2500), |mut client| {
        client.finish_sending();
        client.expect_end();
    });
    interop.until_quiet();
    interop.stop();
}

#[test]
fn thousands_of_connections_end_with_a_reset() {
    let interop = interop!(
        "thousands_of_connections_end_with_a_reset",
        Setup::default()
    );
    churn(&interop, sized(250, 2500), Client::reset);
    interop.until_quiet();
    interop.stop();
}

/// The kernel takes the same source port again while the service remembers the connection before
/// (RFC 6191): the new one must not fail.
#[test]
fn a_source_port_is_used_again_at_once() {
    let interop = interop!(
        "a_source_port_is_used_again_at_once",
        Setup {
            // Two ports, and both directions of closing.
            sysctls: vec![
                ("ipv4/ip_local_port_range", "50000 50003".into()),
                ("ipv4/tcp_tw_reuse", "1".into()),
            ],
            ..Setup::default()
        }
    );
    for number in 0..sized(100, 1000) {
        for to in both(ECHO) {
            let mut client = interop.connect(to);
            client.begin_at(number);
            client.send(64);
            client.expect(64);
            // Reset: nothing stays in TIME-WAIT on the client's side to hold the port.
            client.reset();
        }
    }
    interop.until_quiet();
    interop.stop();
}
