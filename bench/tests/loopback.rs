//! The programs as people run them, over the loopback interface.
#![allow(clippy::unwrap_used)] // A test that panics is a test that fails.

use std::net::UdpSocket;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bench::loadgen::report::Report;
use bench::netns::Process;

const LOADGEN: &str = env!("CARGO_BIN_EXE_loadgen");
const KERNEL_UDP_ECHO: &str = env!("CARGO_BIN_EXE_kernel-udp-echo");

fn loadgen(line: &str) -> Output {
    Command::new(LOADGEN)
        .args(line.split_ascii_whitespace())
        .output()
        .unwrap()
}

/// Runs loadgen with `--json -` and returns its report; the exit code must be `code`.
fn report(line: &str, code: i32) -> Report {
    let output = loadgen(&format!("{line} --json -"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{line}: {said}");
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{line}: {error} in {:?}: {said}", output.stdout))
}

/// A kernel-udp-echo on a free port of `address`, and that port.
fn echo_server(address: &str, options: &[&str]) -> (Process, u16) {
    // The port is free now; nothing else here asks for this one in the instant until it is taken.
    let port = UdpSocket::bind(format!("{address}:0"))
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let mut command = Command::new(KERNEL_UDP_ECHO);
    command
        .args(["--listen", &format!("{address}:{port}")])
        .args(options);
    (
        Process::start(&mut command, Duration::from_secs(10)).unwrap(),
        port,
    )
}

/// A server in this process that does to each datagram, by its index, whatever a test wants.
struct Server {
    port: u16,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn new(mut answer: impl FnMut(usize, &mut [u8], &dyn Fn(&[u8])) + Send + 'static) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let port = socket.local_addr().unwrap().port();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut buffer = [0; 2048];
            let mut index = 0;
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                    let send = |bytes: &[u8]| {
                        // The client may be gone already.
                        let _ = socket.send_to(bytes, peer);
                    };
                    answer(index, &mut buffer[..length], &send);
                    index += 1;
                }
            }
        });
        Self {
            port,
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn closed_loop_over_ipv4_and_ipv6() {
    for address in ["127.0.0.1", "[::1]"] {
        let (mut server, port) = echo_server(address, &[]);
        let report = report(
            &format!("udp-rr {address}:{port} --flows 8 --duration 0.3 --warmup 0.1 --quiet"),
            0,
        );
        assert_eq!(
            (report.mode.as_str(), report.loop_kind.as_str()),
            ("udp-rr", "closed")
        );
        assert!(report.replies > 100, "{report:?}");
        assert_eq!(report.requests, report.replies);
        assert_eq!(
            (report.lost, report.unexpected, report.corrupted),
            (0, 0, 0)
        );
        let latency = report.latency_us.unwrap();
        assert!(latency.min > 0.0 && latency.min <= latency.p50 && latency.p50 <= latency.p99);
        assert!(latency.p9999 <= latency.max);
        let (status, said) = server.stop();
        assert_eq!(status.and_then(|status| status.code()), Some(0), "{said}");
        assert!(said.contains("echoed"), "{said}");
    }
}

#[test]
fn a_dual_stack_server_answers_ipv4_too() {
    let (_server, port) = echo_server("[::]", &["--busy-poll", "50"]);
    let run = |target: &str| {
        report(
            &format!("udp-rr {target}:{port} --duration 0.2 --warmup 0 -q"),
            0,
        )
    };
    assert!(run("127.0.0.1").replies > 0);
    assert!(run("[::1]").replies > 0);
    assert!(run("localhost").replies > 0);
}

#[test]
fn open_loop_offers_the_rate_it_was_asked_for() {
    let (_server, port) = echo_server("127.0.0.1", &[]);
    for extra in ["", "--arrivals poisson", "--threads 2", "--idle sleep"] {
        let report = report(
            &format!(
                "udp-rr 127.0.0.1:{port} --rate 2k --flows 4 --duration 0.5 --warmup 0 --quiet {extra}"
            ),
            0,
        );
        assert_eq!(
            (report.loop_kind.as_str(), report.offered_rate),
            ("open", Some(2000.0))
        );
        // Requests that were due but could not be sent on a busy machine are named as such.
        let due = report.requests + report.unsent;
        let expected = if extra.contains("poisson") {
            850..=1150
        } else {
            1000..=1000
        };
        assert!(
            expected.contains(&due),
            "{due} requests were due with {extra:?}"
        );
        assert_eq!(report.requests, report.replies + report.lost);
    }
}

#[test]
fn large_and_small_requests() {
    let (_server, port) = echo_server("127.0.0.1", &["--max-size", "65535"]);
    for size in [24, 1472, 9000, 65_507] {
        let line = format!("udp-rr 127.0.0.1:{port} --size {size} --duration 0.1 --warmup 0 -q");
        let report = report(&line, 0);
        assert!(report.replies > 0 && report.corrupted == 0, "{report:?}");
    }
}

#[test]
fn a_datagram_the_server_has_no_room_for_is_lost_and_not_cut() {
    let (_server, port) = echo_server("127.0.0.1", &["--max-size", "100"]);
    let line =
        format!("udp-rr 127.0.0.1:{port} --size 101 --duration 0.1 --warmup 0 --timeout 20 -q");
    let report = report(&line, 1);
    assert!(
        report.lost > 0 && report.replies == 0 && report.corrupted == 0,
        "{report:?}"
    );
}

#[test]
fn loss_is_counted_exactly() {
    let server = Server::new(|index, bytes, send| {
        if index % 4 != 3 {
            send(bytes);
        }
    });
    let line = |rest| {
        format!(
            "udp-rr 127.0.0.1:{} --warmup 0 --timeout 100 --quiet {rest}",
            server.port
        )
    };
    let open = report(&line("--rate 400 --duration 0.5"), 0);
    assert_eq!(open.requests + open.unsent, 200);
    assert_eq!(open.requests, open.replies + open.lost);
    assert_eq!(open.lost, open.requests / 4);
    let closed = report(&line("--duration 0.5"), 0);
    assert!(
        closed.lost > 0 && closed.requests == closed.replies + closed.lost,
        "{closed:?}"
    );
}

#[test]
fn duplicates_late_and_foreign_datagrams_are_unexpected() {
    let mut held: Option<Vec<u8>> = None;
    let server = Server::new(move |index, bytes, send| match index % 4 {
        0 => {
            send(bytes);
            send(bytes);
        }
        1 => {
            send(bytes);
            send(b"not a reply at all, though long enough");
        }
        // Held back until the timeout is long over.
        2 => held = Some(bytes.to_vec()),
        _ => {
            thread::sleep(Duration::from_millis(80));
            if let Some(late) = held.take() {
                send(&late);
            }
            send(bytes);
        }
    });
    let line = format!(
        "udp-rr 127.0.0.1:{} --duration 1 --warmup 0 --rate 20 -q",
        server.port
    );
    let report = report(&line, 0);
    // Late is not too late here: 50 ms to the next request and 80 ms of sleep are below a second.
    assert_eq!(report.requests + report.unsent, 20);
    assert!(report.unexpected >= 8 && report.lost == 0, "{report:?}");
    let short = format!(
        "udp-rr 127.0.0.1:{} --duration 1 --warmup 0 --timeout 100 --rate 20 -q",
        server.port
    );
    let short = self::report(&short, 0);
    assert!(short.lost > 0 && short.unexpected > short.lost, "{short:?}");
}

#[test]
fn changed_bytes_are_corrupted_and_no_latency() {
    let server = Server::new(|_, bytes, send| {
        bytes[60] ^= 0x10;
        send(bytes);
    });
    let line = format!(
        "udp-rr 127.0.0.1:{} --duration 0.2 --warmup 0 --timeout 20 -q",
        server.port
    );
    let report = report(&line, 1);
    assert!(report.corrupted > 0 && report.replies == 0, "{report:?}");
    assert_eq!(report.latency_us.unwrap().max, 0.0);
}

#[test]
fn nobody_listening_is_refused() {
    let port = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    for extra in ["", "--rate 1k", "--flows 3"] {
        let line =
            format!("udp-rr 127.0.0.1:{port} --duration 0.2 --warmup 0 --timeout 50 -q {extra}");
        let report = report(&line, 1);
        assert!(
            report.refused > 0 && report.replies == 0,
            "{extra}: {report:?}"
        );
        assert_eq!(report.lost, report.requests, "{extra}");
        assert_eq!(report.latency_us.unwrap().max, 0.0);
    }
    let output = loadgen(&format!(
        "udp-rr 127.0.0.1:{port} --duration 0.1 --warmup 0 --timeout 50"
    ));
    let (table, said) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        table.contains("refused") && said.contains("nothing listens"),
        "{table}{said}"
    );
}

#[test]
fn nobody_answering_is_said() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let output = loadgen(&format!(
        "udp-rr 127.0.0.1:{port} --duration 0.1 --warmup 0 --timeout 50 -q"
    ));
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("nobody answered"));
}

#[test]
fn a_flood_counts_what_comes_back() {
    let (_server, port) = echo_server("127.0.0.1", &[]);
    let rate = report(
        &format!("udp-flood 127.0.0.1:{port} --rate 10k --duration 0.3 --quiet"),
        0,
    );
    assert_eq!(
        (rate.mode.as_str(), rate.requests + rate.unsent),
        ("udp-flood", 3000)
    );
    assert_eq!(rate.lost, 0, "{rate:?}");
    assert!(rate.latency_us.is_none() && rate.received_bits_per_s > 0.0);
    let most = report(
        &format!("udp-flood 127.0.0.1:{port} --flows 4 --duration 0.3 --quiet"),
        0,
    );
    assert!(
        most.requests > most.replies / 2 && most.replies > 0,
        "{most:?}"
    );
    assert_eq!(most.requests, most.replies + most.lost);
}

#[test]
fn a_flood_into_a_sink_is_no_failure_and_into_nothing_is() {
    let sink = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = sink.local_addr().unwrap().port();
    let line = format!("udp-flood 127.0.0.1:{port} --rate 1k --duration 0.2 -q");
    assert_eq!(report(&line, 0).replies, 0);
    drop(sink);
    assert!(report(&line, 1).refused > 0);
}

#[test]
fn results_go_to_files() {
    let (_server, port) = echo_server("127.0.0.1", &[]);
    let folder = std::env::temp_dir().join(format!("loadgen-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (json, hgrm) = (folder.join("run.json"), folder.join("run.hgrm"));
    let output = loadgen(&format!(
        "udp-rr 127.0.0.1:{port} --duration 0.2 --warmup 0 --json {} --hgrm {}",
        json.display(),
        hgrm.display()
    ));
    assert!(output.status.success());
    let report: Report = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let distribution = std::fs::read_to_string(&hgrm).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("p99.99"));
    assert!(distribution.contains(&format!("Total count    = {:>12}]", report.replies)));
}

#[test]
fn a_signal_ends_a_run_with_what_was_measured() {
    use rustix::process::{Pid, Signal, kill_process};
    let (_server, port) = echo_server("127.0.0.1", &[]);
    let child = Command::new(LOADGEN)
        .args([
            "udp-rr",
            &format!("127.0.0.1:{port}"),
            "--duration",
            "60",
            "--warmup",
            "0",
            "--json",
            "-",
        ])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    thread::sleep(Duration::from_millis(600));
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let report: Report = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report.interrupted && report.replies > 0);
    assert!(
        report.duration_s > 0.0 && report.duration_s < 30.0,
        "{}",
        report.duration_s
    );
}

#[test]
fn exit_codes_tell_bad_command_lines_from_failures() {
    for (line, code) in [
        ("", 2),
        ("udp-rr", 2),
        ("udp-rr nonsense", 2),
        ("udp-rr 127.0.0.1:9 --size 1", 2),
        ("udp-rr 127.0.0.1:9 --threads 4", 2),
        ("tcp-teleport 127.0.0.1:9", 2),
        ("udp-rr no-such-host.invalid:9", 1),
        ("udp-rr 127.0.0.1:9 --source 192.0.2.1", 1),
        ("udp-rr 127.0.0.1:9 --cpus 1000", 1),
        ("--version", 0),
        ("udp-rr --help", 0),
    ] {
        let output = loadgen(line);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{line:?}: {said}");
        assert!(!said.contains("panicked"), "{line:?}: {said}");
    }
}
