//! TCP services: echo, discard and source beside the kernel, on one worker and two, and how their
//! connections end with the service. What TCP itself does is in `tcp_interop`.

use crate::support::kernel::{Server, tcp_echoes};
use crate::support::lab::{Lab, lab, serve};
use crate::support::service::Service;
use crate::support::{PATIENCE, until};
use crate::workers::{TWO, has_two_cores};
use dataplane::handler::tcp::PATTERN;
use rustix::process::Signal;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// A TCP `[[service]]` of this application that listens there.
fn serve_tcp(application: &str, listen: &[&str]) -> String {
    serve_tcp_as(application, application, listen, "")
}

/// The same with a name of its own and more keys.
fn serve_tcp_as(name: &str, application: &str, listen: &[&str], more: &str) -> String {
    let listen: Vec<String> = listen.iter().map(|local| format!("\"{local}\"")).collect();
    format!(
        "\n[[service]]\nname = \"tcp-{name}\"\napplication = \"{application}\"\n\
         protocol = \"tcp\"\nlisten = [{}]\n{more}\n",
        listen.join(", ")
    )
}

/// Connects from the peer.
#[track_caller]
fn connect(lab: &Lab, to: &str) -> TcpStream {
    let to: SocketAddr = to.parse().expect("an address");
    let opened = lab.peer.run(|| TcpStream::connect_timeout(&to, PATIENCE));
    let connection = opened.unwrap_or_else(|error| panic!("connect to {to}: {error}"));
    let patience = Some(PATIENCE);
    connection.set_read_timeout(patience).expect("a timeout");
    connection.set_write_timeout(patience).expect("a timeout");
    connection.set_nodelay(true).expect("an option");
    connection
}

/// Byte `index` of a stream: any mistake of place shows.
fn byte(index: usize) -> u8 {
    let mixed = (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let ([.., top], [_, second, ..]) = (mixed.to_le_bytes(), index.to_le_bytes());
    top ^ second
}

#[track_caller]
fn echoes(connection: &mut TcpStream, payload: &[u8]) {
    connection.write_all(payload).expect("it is taken");
    let mut answer = vec![0; payload.len()];
    connection.read_exact(&mut answer).expect("it comes back");
    assert!(answer == payload, "the echo differs");
}

/// Reads until the peer has closed.
#[track_caller]
fn rest(connection: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    connection.read_to_end(&mut rest).expect("an orderly end");
    rest
}

/// Sends `len` bytes while it reads them back, closes its direction, and expects the other closed
/// behind the last byte.
fn bulk_echo(mut connection: TcpStream, len: usize) {
    let mut writer = connection.try_clone().expect("another handle");
    let writing = std::thread::spawn(move || {
        let bytes: Vec<u8> = (0..len).map(byte).collect();
        writer.write_all(&bytes).expect("it is taken");
        writer.shutdown(Shutdown::Write).expect("a FIN");
    });
    let got = rest(&mut connection);
    writing.join().expect("it was written");
    assert_eq!(got.len(), len);
    let wrong = got.iter().enumerate().find(|(at, got)| **got != byte(*at));
    assert_eq!(wrong, None, "(index, byte)");
}

const BULK: usize = 16 << 20;

#[test]
fn bulk_is_echoed_over_both_versions_and_the_service_forgets_it() {
    let lab = lab!("bulk_is_echoed_over_both_versions_and_the_service_forgets_it", queues: 1);
    let service = lab.start(&serve_tcp("echo", &["[::]:7"]));
    for to in ["10.77.0.1:7", "[fd77::1]:7"] {
        bulk_echo(connect(&lab, to), BULK);
    }
    assert_eq!(service.counter("event", "tcp_established"), 2);
    assert!(service.counter("event", "tcp_rx_bytes") >= 2 * BULK as u64);
    assert_eq!(service.counter("event", "tcp_reset_tx"), 0);
}

#[test]
fn new_reno_and_nagle_are_a_services_choice() {
    let lab = lab!("new_reno_and_nagle_are_a_services_choice", queues: 1);
    let options = "congestion = \"new_reno\"\nnodelay = false\nbacklog = 1";
    let service = lab.start(&format!(
        "{}{}",
        serve_tcp_as("reno", "echo", &["[::]:7"], options),
        serve_tcp_as("cubic", "echo", &["[::]:8"], ""),
    ));
    for to in ["10.77.0.1:7", "[fd77::1]:7", "[fd77::1]:8"] {
        bulk_echo(connect(&lab, to), 1 << 20);
    }
    assert_eq!(service.counter("event", "tcp_established"), 3);
}

#[test]
fn a_thousand_connections_come_and_go() {
    let lab = lab!("a_thousand_connections_come_and_go", queues: 1);
    // Fewer records than connections: they are used again, those in TIME-WAIT too.
    let limits = "\n[limits]\ntcp_connections = 100\ntcp_time_wait = 100\n";
    let service = lab.start(&format!("{limits}{}", serve_tcp("echo", &["[::]:7"])));
    for round in 0..500usize {
        for to in ["10.77.0.1:7", "[fd77::1]:7"] {
            let mut connection = connect(&lab, to);
            echoes(&mut connection, &round.to_be_bytes());
            // Half of them are closed by each side first, as TIME-WAIT is the first one's.
            connection.shutdown(Shutdown::Write).expect("a FIN");
            assert_eq!(rest(&mut connection), b"");
        }
    }
    assert_eq!(service.counter("event", "tcp_established"), 1000);
    assert_eq!(service.counter("drop", "tcp_connections_full"), 0);
}

#[test]
fn discard_takes_everything_and_closes_after_its_peer() {
    let lab = lab!("discard_takes_everything_and_closes_after_its_peer", queues: 1);
    let service = lab.start(&serve_tcp("discard", &["[::]:9"]));
    for to in ["10.77.0.1:9", "[fd77::1]:9"] {
        let mut connection = connect(&lab, to);
        connection.write_all(&vec![1; BULK]).expect("it is taken");
        connection.shutdown(Shutdown::Write).expect("a FIN");
        assert_eq!(rest(&mut connection), b"");
    }
    until("every byte was counted", || {
        service.counter("event", "tcp_rx_bytes") >= 2 * BULK as u64
    });
    assert_eq!(service.counter("event", "tcp_tx_bytes"), 0);
}

#[test]
fn a_source_sends_its_pattern_until_its_peer_closes() {
    let lab = lab!("a_source_sends_its_pattern_until_its_peer_closes", queues: 1);
    let service = lab.start(&serve_tcp("source", &["[::]:19"]));
    for to in ["10.77.0.1:19", "[fd77::1]:19"] {
        let mut connection = connect(&lab, to);
        let mut got = vec![0; BULK];
        connection.read_exact(&mut got).expect("characters");
        // What comes meanwhile is thrown away.
        connection.write_all(b"enough").expect("it is taken");
        connection.shutdown(Shutdown::Write).expect("a FIN");
        got.extend(rest(&mut connection));
        let mut expected = PATTERN.iter().cycle();
        assert!(got.iter().all(|byte| Some(byte) == expected.next()));
    }
    // Half a connection does not stay behind.
    let mut connection = connect(&lab, "10.77.0.1:19");
    connection.read_exact(&mut [0; 1000]).expect("characters");
    drop(connection);
    until("the kernel has reset it", || {
        service.counter("event", "tcp_reset_rx") == 1
    });
}

#[test]
fn a_peer_that_does_not_read_holds_up_nobody_else() {
    let lab = lab!("a_peer_that_does_not_read_holds_up_nobody_else", queues: 1);
    // Memory for one full send buffer in all.
    let limits = "\n[limits]\ntcp_send_memory = 1048576\ntcp_send_buffer = 1048576\n";
    let service = lab.start(&format!(
        "{limits}{}{}",
        serve_tcp("source", &["[::]:19"]),
        serve_tcp("echo", &["[::]:7"]),
    ));
    // It takes all there is.
    let greedy = connect(&lab, "10.77.0.1:19");
    until("it has taken what it can", || {
        let before = service.counter("event", "tcp_tx_bytes");
        std::thread::sleep(Duration::from_millis(100));
        before > 0 && service.counter("event", "tcp_tx_bytes") == before
    });
    let mut other = connect(&lab, "10.77.0.1:7");
    other.write_all(b"patience").expect("it is taken");
    // The worker waits; it does not spin.
    let turns = |service: &Service| service.counter("worker", "turns");
    let (begun, before) = (Instant::now(), turns(&service));
    std::thread::sleep(Duration::from_millis(200));
    let (took, turned) = (begun.elapsed(), turns(&service) - before);
    let most = 100 * u64::try_from(took.as_millis()).expect("milliseconds");
    assert!(turned < most, "{turned} turns in {took:?}");
    // When there is memory again, it is served, though nothing of its own has happened.
    drop(greedy);
    let mut answer = [0; 8];
    other.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"patience");
}

#[test]
fn udp_and_tcp_services_share_a_port_and_the_kernel_keeps_the_others() {
    let lab = lab!("udp_and_tcp_services_share_a_port_and_the_kernel_keeps_the_others", queues: 1);
    let service = lab.start(&format!(
        "{}{}{}",
        serve("echo", &["[::]:7"]),
        serve_tcp("discard", &["[::]:7"]),
        serve_tcp_as("v6", "echo", &["[::]:8"], "v6only = true"),
    ));
    let _kernel = [
        Server::tcp(&lab.server, "[::]:5001"),
        Server::tcp(&lab.server, "0.0.0.0:8"),
    ];
    for host in ["10.77.0.1", "[fd77::1]"] {
        lab.client(&format!("{host}:7")).echoes(b"udp");
        let mut connection = connect(&lab, &format!("{host}:7"));
        connection.write_all(b"tcp").expect("it is taken");
        connection.shutdown(Shutdown::Write).expect("a FIN");
        assert_eq!(rest(&mut connection), b"");
        tcp_echoes(&lab.peer, &format!("{host}:5001"), b"the kernel's");
        tcp_echoes(&lab.peer, &format!("{host}:8"), b"one each");
    }
    // Over IPv4, port 8 is the kernel's.
    assert_eq!(service.counter("event", "tcp_established"), 3);
    // Nobody listens there: the kernel says so.
    let to: SocketAddr = "10.77.0.1:6000".parse().expect("an address");
    let refused = lab.peer.run(|| TcpStream::connect_timeout(&to, PATIENCE));
    let kind = refused.expect_err("nobody listens").kind();
    assert_eq!(kind, ErrorKind::ConnectionRefused);
}

#[test]
fn connections_spread_over_two_workers() {
    let test = "connections_spread_over_two_workers";
    let lab = lab!("connections_spread_over_two_workers", queues: 2);
    if !has_two_cores(test) {
        return;
    }
    let service = lab.start(&format!("{TWO}{}", serve_tcp("echo", &["[::]:7"])));
    for round in 0..64usize {
        for to in ["10.77.0.1:7", "[fd77::1]:7"] {
            echoes(&mut connect(&lab, to), &round.to_be_bytes());
        }
    }
    let established = service.counters_by_worker("event", "tcp_established");
    assert_eq!(established.iter().sum::<u64>(), 128);
    assert!(
        established.iter().all(|count| *count > 0),
        "{established:?}"
    );
}

/// The service is worker 1's alone: what comes to worker 0 goes around.
#[test]
fn segments_on_the_wrong_queue_reach_the_worker_of_their_connection() {
    let test = "segments_on_the_wrong_queue_reach_the_worker_of_their_connection";
    let lab = lab!("segments_on_the_wrong_queue_reach_the_worker_of_their_connection", queues: 2);
    if !has_two_cores(test) {
        return;
    }
    let only_one = serve_tcp_as("echo", "echo", &["[::]:7"], "workers = [1]");
    let service = lab.start(&format!("{TWO}{only_one}"));
    for _ in 0..16 {
        for to in ["10.77.0.1:7", "[fd77::1]:7"] {
            bulk_echo(connect(&lab, to), 100_000);
        }
    }
    let counted = |name| service.counters_by_worker("event", name);
    assert_eq!(counted("tcp_established"), [0, 32]);
    let (tx, rx) = (counted("handoff_tx"), counted("handoff_rx"));
    // All 32 connections on the one queue would be a coincidence of 2^-31.
    assert!(tx[0] > 0 && rx[1] == tx[0], "{tx:?} {rx:?}");
    assert_eq!(service.counter("drop", "handoff_full"), 0);
    // Nobody's goes around once, and the last worker answers. On a busy machine a FIN is sent twice, and the
    // second ACK of it finds the connection gone: RFC 9293 §3.10.7.1 wants a RST then, and nothing else.
    let resent = counted("tcp_retransmitted")[1] + counted("tcp_tail_loss_probe")[1];
    let resets = counted("tcp_reset_tx");
    assert!(
        resets[0] == 0 && resets[1] <= resent,
        "{resets:?}, {resent} resent"
    );
}

#[test]
fn sigterm_closes_connections_in_order() {
    let lab = lab!("sigterm_closes_connections_in_order", queues: 1);
    let service = lab.start(&serve_tcp("echo", &["[::]:7"]));
    let mut connections: Vec<_> = ["10.77.0.1:7", "[fd77::1]:7"]
        .into_iter()
        .cycle()
        .take(20)
        .map(|to| connect(&lab, to))
        .collect();
    for connection in &mut connections {
        echoes(connection, b"before the end");
    }
    let begun = Instant::now();
    service.signal(Signal::TERM);
    for mut connection in connections {
        // A FIN, no RST; then they close, too.
        assert_eq!(rest(&mut connection), b"");
    }
    let done = service.finish();
    assert!(done.status.success(), "{done}");
    // The last one closed: there was nothing to wait for. drain_ms is 1000, twice.
    assert!(begun.elapsed() < PATIENCE, "it ended");
    lab.until_no_program();
}

#[test]
fn sigterm_resets_those_that_do_not_close() {
    let lab = lab!("sigterm_resets_those_that_do_not_close", queues: 1);
    let short = "\n[workers]\ndrain_ms = 200\n";
    let service = lab.start(&format!("{short}{}", serve_tcp("echo", &["[::]:7"])));
    let mut connection = connect(&lab, "10.77.0.1:7");
    echoes(&mut connection, b"before the end");
    let done = service.stop();
    assert!(done.stdout.contains("tcp_reset_tx"), "{done}");
    // First the end, in order; then, as this side goes on, the reset. Linux's error for one that comes behind
    // a FIN is EPIPE (tcp_reset in net/ipv4/tcp_input.c), and without a reset it would take what is
    // written.
    assert_eq!(rest(&mut connection), b"");
    let written = connection.write(b"still here").map_err(|it| it.kind());
    assert_eq!(written, Err(ErrorKind::BrokenPipe));
    lab.until_no_program();
}

#[test]
fn a_new_service_answers_where_the_old_one_was_killed() {
    let lab = lab!("a_new_service_answers_where_the_old_one_was_killed", queues: 1);
    let config = serve_tcp("echo", &["[::]:7"]);
    let service = lab.start(&config);
    let mut old = connect(&lab, "10.77.0.1:7");
    echoes(&mut old, b"old");
    service.kill();
    let service = lab.start(&config);
    // It knows nothing of the connection, and says so.
    old.write_all(b"who are you").expect("it is taken");
    let end = old.read(&mut [0; 16]).map_err(|error| error.kind());
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
    echoes(&mut connect(&lab, "10.77.0.1:7"), b"new");
    service.stop();
}

#[test]
fn a_reload_keeps_connections_of_services_that_stay() {
    let lab = lab!("a_reload_keeps_connections_of_services_that_stay", queues: 1);
    let going = serve_tcp_as("going", "echo", &["[::]:8"], "");
    let staying = |more| serve_tcp_as("staying", "echo", &["[::]:7"], more);
    let service = lab.start(&format!("{going}{}", staying("")));
    let mut kept = connect(&lab, "10.77.0.1:7");
    let mut lost = connect(&lab, "10.77.0.1:8");
    for connection in [&mut kept, &mut lost] {
        echoes(connection, b"before");
    }
    let coming = serve_tcp_as("coming", "echo", &["[::]:9"], "");
    // Its options change; what is there stays as it is.
    lab.write_config(&format!(
        "{}{coming}",
        staying("backlog = 10\nnodelay = false")
    ));
    let done = service.ask("reload");
    assert!(done.status.success(), "{done}");
    echoes(&mut kept, b"after");
    let end = lost.read(&mut [0; 16]).map_err(|error| error.kind());
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
    echoes(&mut connect(&lab, "10.77.0.1:9"), b"come");
    // Its connections still belong to a listener: they go when that goes.
    lab.write_config(&coming);
    let done = service.ask("reload");
    assert!(done.status.success(), "{done}");
    let end = kept.read(&mut [0; 16]).map_err(|error| error.kind());
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
    // Memory for NewReno is taken at start.
    let reno = "congestion = \"new_reno\"";
    lab.write_config(&serve_tcp_as("coming", "echo", &["[::]:9"], reno));
    let refused = service.ask("reload");
    assert!(!refused.status.success(), "{refused}");
    assert!(refused.stderr.contains("needs a restart"), "{refused}");
}

#[test]
fn sockets_are_shown_as_ss_shows_them() {
    let lab = lab!("sockets_are_shown_as_ss_shows_them", queues: 1);
    let options = "congestion = \"new_reno\"\nbacklog = 77";
    let service = lab.start(&format!(
        "{}{}",
        serve_tcp("echo", &["[::]:7"]),
        serve_tcp_as("reno", "discard", &["10.77.0.1:9"], options),
    ));
    let to = ["10.77.0.1:7", "[fd77::1]:7", "10.77.0.1:9"];
    let mut open = to.map(|to| connect(&lab, to));
    echoes(&mut open[0], b"something to measure");
    echoes(&mut open[1], b"something to measure");
    // The service closes behind the peer, and the connection is the peer's to remember.
    let mut closed = connect(&lab, to[0]);
    closed.shutdown(Shutdown::Write).expect("a FIN");
    assert_eq!(rest(&mut closed), b"");
    until("the closed one is gone", || {
        service.counter("tcp", "tcp_connections") == 3
    });
    let shown = service.ask_json("sockets");
    assert_eq!(
        shown["by_state"],
        serde_json::json!({"LISTEN": 2, "ESTAB": 3})
    );
    assert_eq!(shown["left_off"], 0);
    let rows = shown["sockets"].as_array().expect("a list");
    let row = |remote: SocketAddr| {
        let remote = remote.to_string();
        let mut rows = rows.iter();
        let found = rows.find(|row| row["remote"] == remote.as_str());
        found.unwrap_or_else(|| panic!("{remote} is not in {shown}"))
    };
    for (connection, to) in open.iter().zip(to) {
        let row = row(connection.local_addr().expect("an address"));
        assert_eq!(row["local"], to);
        assert_eq!(row["state"], "ESTAB");
        assert_eq!((&row["recv_q"], &row["send_q"]), (&0.into(), &0.into()));
        let is_reno = to == "10.77.0.1:9";
        let service = if is_reno { "tcp-reno" } else { "tcp-echo" };
        assert_eq!(row["service"], service);
        let info = &row["info"];
        assert_eq!(info["congestion"], if is_reno { "reno" } else { "cubic" });
        // RFC 6928: ten segments at first; the MTU is 1500, and timestamps take 12 bytes.
        let mss = if to.starts_with('[') { 1428 } else { 1448 };
        assert_eq!(info["mss"], mss, "{row}");
        let cwnd = info["cwnd_bytes"].as_u64().expect("a number");
        assert!(cwnd >= 10 * mss, "{row}");
        assert!(info["rtt_us"].as_u64() > Some(0), "{row}");
        assert!(info["rto_us"].as_u64() >= Some(200_000), "{row}");
        assert_eq!((&info["ts"], &info["sack"]), (&true.into(), &true.into()));
    }
    let text = service.ask("sockets --state established -n 2").stdout;
    assert_eq!(text.matches("ESTAB  ").count(), 2, "{text}");
    assert!(text.contains("1 socket left off"), "{text}");
    let text = service.ask("sockets --state listening").stdout;
    assert!(text.contains("10.77.0.1:9 "), "{text}");
    assert!(
        text.contains("0.0.0.0:*") && text.contains(" 77 "),
        "{text}"
    );
    assert!(!text.contains("ESTAB  "), "{text}");
    // The kernel's own view agrees on who is connected.
    let kernel = lab.peer.sh("ss -Htn state established");
    assert_eq!(kernel.lines().count(), 3, "{kernel}");
}
