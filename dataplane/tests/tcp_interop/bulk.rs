//! Much data, one way, the other and both, every byte checked.

use crate::extent::{MIB, sized};
use crate::setup::{DISCARD, ECHO, SOURCE, Setup, both, interop};

#[test]
fn echo_returns_every_byte_in_its_place() {
    let interop = interop!("echo_returns_every_byte_in_its_place", Setup::default());
    for to in both(ECHO) {
        interop.connect(to).echo_all(sized(8, 64) * MIB);
    }
    interop.until_quiet();
    interop.stop();
}

#[test]
fn discard_takes_everything_and_then_closes() {
    let interop = interop!("discard_takes_everything_and_then_closes", Setup::default());
    for to in both(DISCARD) {
        let mut client = interop.connect(to);
        client.send(sized(16, 64) * MIB);
        client.finish_sending();
        // It closes when it has read everything: before that the kernel has not been told.
        client.expect_end();
    }
    interop.until_quiet();
    interop.stop();
}

#[test]
fn source_sends_its_text_for_as_long_as_somebody_reads() {
    let interop = interop!(
        "source_sends_its_text_for_as_long_as_somebody_reads",
        Setup::default()
    );
    for to in both(SOURCE) {
        let mut client = interop.connect(to);
        client.expect_source(sized(8, 64) * MIB);
        // What else is under way is answered with a reset.
        drop(client);
    }
    interop.until_quiet();
    interop.stop();
}

#[test]
fn many_connections_at_once_do_not_mix() {
    let interop = interop!("many_connections_at_once_do_not_mix", Setup::default());
    let connections = sized(32, 256);
    std::thread::scope(|scope| {
        for number in 0..connections {
            let to = both(ECHO)[number % 2];
            let mut client = interop.connect(to);
            scope.spawn(move || {
                // Each begins elsewhere in the pattern: bytes of another one are wrong.
                client.begin_at(number as u64 * 1_000_003);
                client.echo_all(MIB / 8);
            });
        }
    });
    interop.until_quiet();
    interop.stop();
}

/// Sizes around those of segments, and writes that do not end where segments do.
#[test]
fn sizes_at_the_edges_come_back() {
    let interop = interop!("sizes_at_the_edges_come_back", Setup::default());
    for to in both(ECHO) {
        let mut client = interop.connect(to);
        for len in [
            1, 2, 535, 1427, 1428, 1429, 1447, 1448, 1449, 1460, 4095, 65_535,
        ] {
            client.send(len);
            client.expect(len);
        }
        client.finish_sending();
        client.expect_end();
    }
    interop.until_quiet();
    interop.stop();
}
