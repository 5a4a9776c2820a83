//! Loads over TCP as people run them, against kernel sockets on the loopback interface: everything that
//! was begun is counted once, what is wrong is told, and time runs from when a request was due.
#![allow(clippy::unwrap_used)] // A test that panics is a test that fails.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use bench::loadgen::report::Report;
use bench::loadgen::sweep::SweepReport;
use bench::loadgen::tcp::report::Tcp;
use bench::netns::Process;

const LOADGEN: &str = env!("CARGO_BIN_EXE_loadgen");

fn loadgen(line: &str) -> Output {
    Command::new(LOADGEN)
        .args(line.split_ascii_whitespace())
        .output()
        .unwrap()
}

/// Runs loadgen with `--json -` and returns its report; the exit code must be `code`. Whatever happened,
/// the sums have to be right.
fn report(line: &str, code: i32) -> (Report, Tcp) {
    let output = loadgen(&format!("{line} --json - --quiet"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{line}: {said}");
    let report: Report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{line}: {error}: {said}"));
    let tcp = report.tcp.clone().unwrap();
    if tcp.direction.is_none() {
        let failed: u64 = tcp.failures.values().sum();
        assert_eq!(report.requests, report.replies + failed, "{line}: {said}");
        let timed: u64 = report.latency_counts.iter().map(|(_, count)| count).sum();
        assert_eq!(timed, report.replies + report.unsent, "{line}: {said}");
    }
    let not_connected: u64 = tcp.connect_failures.values().sum();
    assert_eq!(tcp.begun, tcp.established + not_connected, "{line}: {said}");
    (report, tcp)
}

/// A `loadgen serve` on a free port of `address`, and that port.
fn server(address: &str, application: &str) -> (Process, u16) {
    // The port is free now; nothing else here asks for this one in the instant until it is taken.
    let listener = TcpListener::bind(format!("{address}:0")).unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let mut command = Command::new(LOADGEN);
    command
        .args([
            "serve",
            &format!("{address}:{port}"),
            "--connections",
            "1000",
        ])
        .args(["--application", application]);
    let process = Process::start(&mut command, Duration::from_secs(20)).unwrap();
    (process, port)
}

/// A server in this process, with a thread for each connection; it ends with the process. `serve` is told
/// the connection and how many there were before.
fn peer(serve: impl Fn(TcpStream, u64) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for (number, stream) in (0..).zip(listener.incoming()) {
            let serve = Arc::clone(&serve);
            thread::spawn(move || serve(stream.unwrap(), number));
        }
    });
    port
}

/// Echoes messages of 64 bytes for as long as `each`, told how many there were before on all connections,
/// says so.
fn echo(each: impl Fn(u64, &mut [u8; 64]) -> bool + Send + Sync + 'static) -> u16 {
    let count = AtomicU64::new(0);
    peer(move |mut stream, _| {
        stream.set_nodelay(true).unwrap();
        let mut message = [0; 64];
        while stream.read_exact(&mut message).is_ok() {
            if !each(count.fetch_add(1, Ordering::Relaxed), &mut message)
                || stream.write_all(&message).is_err()
            {
                return;
            }
        }
    })
}

const SHORT: &str = "--duration 0.4 --warmup 0.1";

#[test]
fn requests_and_replies_over_both_versions() {
    for address in ["127.0.0.1", "[::1]"] {
        let (_server, port) = server(address, "echo");
        for (options, mode) in [
            ("tcp-rr -c 8", "tcp-rr"),
            ("tcp-rr -c 9 -t 3 --size uniform:1-100000", "tcp-rr"),
            (
                "tcp-rr -c 4 --size exp:100 --rate 300 --arrivals poisson",
                "tcp-rr",
            ),
            (
                "tcp-rr -c 4 --size 16 --reply-size mix:1=3,70000=1",
                "tcp-rr",
            ),
            ("tcp-crr -c 4", "tcp-crr"),
            ("tcp-crr -c 4 --close rst --rate 200", "tcp-crr"),
        ] {
            let (load, rest) = options.split_once(' ').unwrap();
            let line = format!("{load} {address}:{port} {rest} {SHORT}");
            let (report, tcp) = report(&line, 0);
            assert_eq!(report.mode, mode);
            assert!(report.replies > 20, "{line}: {report:?}");
            assert!(tcp.failures.is_empty(), "{line}: {tcp:?}");
            if mode == "tcp-crr" {
                if report.offered_rate.is_none() {
                    assert_eq!(tcp.established, report.requests, "{line}");
                }
                assert!(tcp.handshake_us.unwrap().p50 > 0.0);
            } else {
                assert_eq!((tcp.begun, tcp.lost_idle), (0, 0), "{line}");
                assert_eq!(tcp.open_at_start, report.flows as u64);
            }
            if let Some(offered) = report.offered_rate {
                let due = (report.requests + report.unsent) as f64;
                assert!((due / (offered * 0.4) - 1.0).abs() < 0.5, "{line}: {due}");
            }
        }
    }
}

#[test]
fn streams_go_up_and_down() {
    for (application, options, up, down) in [
        ("discard", "", true, false),
        ("source", "-R -c 2", false, true),
        ("echo", "--bidir --size 1000", true, true),
    ] {
        let (_server, port) = server("127.0.0.1", application);
        let (report, tcp) = report(&format!("tcp-stream 127.0.0.1:{port} {options} {SHORT}"), 0);
        assert_eq!(
            (tcp.sent_bytes > 100_000, tcp.received_bytes > 100_000),
            (up, down),
            "{tcp:?}"
        );
        assert!(tcp.failures.is_empty() && report.latency_us.is_none());
    }
    // What comes is not what RFC 864 has.
    let port = peer(|mut stream, _| while stream.write_all(&[7; 1000]).is_ok() {});
    let (_, tcp) = report(&format!("tcp-stream 127.0.0.1:{port} -R {SHORT}"), 0);
    assert!(tcp.failures["corrupted"] > 0);
    let (_, tcp) = report(
        &format!("tcp-stream 127.0.0.1:{port} -R --no-verify {SHORT}"),
        0,
    );
    assert!(tcp.failures.is_empty());
}

#[test]
fn a_stall_is_in_the_latency_of_everything_that_was_due() {
    let port = echo(|number, _| {
        if number == 600 {
            thread::sleep(Duration::from_millis(500));
        }
        true
    });
    // One connection: nothing else can be sent during the stall.
    let line = format!("tcp-rr 127.0.0.1:{port} --rate 1000 --duration 1.5 --warmup 0.1");
    let (report, tcp) = report(&line, 0);
    assert!(tcp.failures.is_empty());
    let latency = report.latency_us.unwrap();
    assert!(latency.max > 490_000.0, "{latency:?}");
    // Of 1,500 requests 500 were due during the stall, and each waited for what was left of it.
    let late: u64 = report
        .latency_counts
        .iter()
        .filter(|(ns, _)| *ns > 100_000_000)
        .map(|(_, count)| count)
        .sum();
    assert!(late >= 390, "{late} of {}", report.replies);
}

#[test]
fn what_goes_wrong_is_counted_by_kind_and_exactly() {
    // Every hundredth reply is changed.
    let wrong = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&wrong);
    let port = echo(move |number, message| {
        if number % 100 == 99 {
            counted.fetch_add(1, Ordering::Relaxed);
            message[63] ^= 0x80;
        }
        true
    });
    let (report_, tcp) = report(
        &format!("tcp-rr 127.0.0.1:{port} -c 2 --duration 0.5 --warmup 0"),
        0,
    );
    assert_eq!(report_.corrupted, wrong.load(Ordering::Relaxed));
    assert!(report_.corrupted > 0 && tcp.failures.len() == 1, "{tcp:?}");
    // Each one is replaced, but for those that end with the run; the first two may be late for the ramp-up.
    assert!(report_.corrupted.abs_diff(tcp.begun) <= 2, "{tcp:?}");

    // Every connection is closed behind its tenth reply, unasked for the eleventh.
    let port = peer(|mut stream, _| {
        let mut message = [0; 64];
        for _ in 0..10 {
            if stream.read_exact(&mut message).is_err() || stream.write_all(&message).is_err() {
                return;
            }
        }
        // Without reading it: close(2) answers what comes with a RST, or has it already.
        let _ = stream.read(&mut message[..1]);
    });
    let (_, tcp) = report(&format!("tcp-rr 127.0.0.1:{port} {SHORT}"), 0);
    let kinds: Vec<&str> = tcp.failures.keys().map(String::as_str).collect();
    assert!(
        !kinds.is_empty() && kinds.iter().all(|kind| ["closed", "reset"].contains(kind)),
        "{tcp:?}"
    );

    // Nobody answers.
    let port = peer(|mut stream, _| {
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let (report_, tcp) = report(
        &format!("tcp-rr 127.0.0.1:{port} -c 2 --timeout 100 {SHORT}"),
        1,
    );
    assert_eq!(tcp.failures["timeout"], report_.requests);
    assert!(report_.lost > 0 && report_.latency_counts.is_empty());

    // Something else answers.
    let port = peer(|mut stream, _| {
        let _ = stream.write_all(b"220 mail.example.org ESMTP\r\n");
        thread::sleep(Duration::from_secs(1));
    });
    let (_, tcp) = report(&format!("tcp-rr 127.0.0.1:{port} {SHORT}"), 1);
    assert!(tcp.failures.contains_key("corrupted") || tcp.failures.contains_key("unexpected"));
}

#[test]
fn nobody_listens() {
    // In the range of ports for clients, too, where a socket may meet itself.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let (report_, tcp) = report(&format!("tcp-crr 127.0.0.1:{port} {SHORT}"), 1);
    assert_eq!(report_.refused, report_.requests);
    assert_eq!(tcp.connect_failures["refused"], tcp.begun);
    let said = loadgen(&format!("tcp-rr 127.0.0.1:{port} {SHORT} -q"));
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("nothing listens"), "{said}");
    // An address of nobody (RFC 5737), from where there is no way to it.
    let (_, tcp) = report(
        &format!("tcp-rr 192.0.2.1:7 --source 127.0.0.1 --timeout 200 {SHORT}"),
        1,
    );
    assert_eq!(tcp.established, 0);
}

#[test]
fn source_addresses_and_ports_are_used() {
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let port = peer(move |mut stream, _| {
        noted.lock().unwrap().push(stream.peer_addr().unwrap());
        let mut writer = stream.try_clone().unwrap();
        let _ = std::io::copy(&mut stream, &mut writer);
    });
    // Below the range that the kernel gives to others.
    let line = format!(
        "tcp-rr 127.0.0.1:{port} -c 12 -t 2 --source 127.0.0.2-127.0.0.4 --ports 20000-20007 {SHORT}"
    );
    let (report, _) = report(&line, 0);
    assert!(report.replies > 0);
    let mut seen = seen.lock().unwrap().clone();
    assert_eq!(seen.len(), 12);
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 12, "{seen:?}");
    assert!(
        seen.iter()
            .all(|peer| (20_000..=20_007).contains(&peer.port()))
    );
    for address in ["127.0.0.2", "127.0.0.3", "127.0.0.4"] {
        assert!(seen.iter().any(|peer| peer.ip().to_string() == address));
    }
}

/// Answers `/` with `body`, and anything else with 404; closes if it is asked to.
fn http(body: &'static str) -> u16 {
    peer(move |mut stream, _| {
        stream.set_nodelay(true).unwrap();
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let Some(end) = bytes.windows(4).position(|part| part == b"\r\n\r\n") else {
                match stream.read(&mut buffer) {
                    Ok(len @ 1..) => bytes.extend_from_slice(&buffer[..len]),
                    _ => return,
                }
                continue;
            };
            let request = String::from_utf8(bytes.drain(..end + 4).collect()).unwrap();
            let status = if request.starts_with("GET / ") {
                "200 OK"
            } else {
                "404 Not Found"
            };
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            if stream.write_all((head + body).as_bytes()).is_err()
                || request.contains("Connection: close")
            {
                return;
            }
        }
    })
}

/// A file that goes when the test ends.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let name = format!("loadgen-test-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> std::path::Display<'_> {
        self.0.display()
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.0).unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn http_replies_are_read_and_compared() {
    let port = http("hello");
    let (report_, tcp) = report(&format!("http http://127.0.0.1:{port}/ -c 4 {SHORT}"), 0);
    assert!(report_.replies > 20 && tcp.failures.is_empty() && !tcp.fresh);
    let (report_, tcp) = report(&format!("http 127.0.0.1:{port} --no-keepalive {SHORT}"), 0);
    assert!(tcp.failures.is_empty() && tcp.fresh);
    assert_eq!(tcp.established, report_.requests);
    let (report_, tcp) = report(&format!("http 127.0.0.1:{port}/none {SHORT}"), 1);
    assert_eq!(tcp.failures["status"], report_.requests);
    assert_eq!(tcp.begun, 0, "the connection is as good as before");
    for (text, code) in [("hello", 0), ("hallo", 1)] {
        let expected = File::new(text, text);
        let line = format!(
            "http 127.0.0.1:{port} --expect-body {} {SHORT}",
            expected.path()
        );
        let (report_, _) = report(&line, code);
        assert_eq!(report_.corrupted > 0, code == 1, "{text}");
    }
}

#[test]
fn results_are_files_and_can_be_merged() {
    let (_server, port) = server("127.0.0.1", "echo");
    let [one, two, sum, hgrm, html] = ["one.json", "two.json", "sum.json", "one.hgrm", "one.html"]
        .map(|name| File::new(name, ""));
    let line = format!("tcp-rr 127.0.0.1:{port} -c 4 --duration 0.6 --warmup 0.1 --quiet");
    let first = format!(
        "{line} --json {} --hgrm {} --html {}",
        one.path(),
        hgrm.path(),
        html.path()
    );
    assert!(loadgen(&first).status.success());
    assert!(
        loadgen(&format!("{line} --json {}", two.path()))
            .status
            .success()
    );
    let page = html.text();
    assert!(page.contains("Latency by percentile") && page.contains("Rate over time"));
    assert_eq!(
        page.matches("<svg").count(),
        3,
        "percentiles, rate, latency"
    );
    assert!(
        !page.contains("http://")
            || page.matches("http://").count()
                == page.matches("http://www.w3.org/2000/svg").count()
    );

    let merged = loadgen(&format!(
        "merge {} {} --json {}",
        one.path(),
        two.path(),
        sum.path()
    ));
    assert!(
        merged.status.success(),
        "{}",
        String::from_utf8_lossy(&merged.stderr)
    );
    let read = |file: &File| serde_json::from_str::<Report>(&file.text()).unwrap();
    let (a, b, all) = (read(&one), read(&two), read(&sum));
    assert!(!a.series.is_empty());
    assert_eq!(all.requests, a.requests + b.requests);
    assert_eq!((all.flows, all.merged), (8, 2));
    let latency = |report: &Report| report.latency_us.unwrap();
    assert_eq!(latency(&all).max, latency(&a).max.max(latency(&b).max));
    let (low, high) = (
        latency(&a).p50.min(latency(&b).p50),
        latency(&a).p50.max(latency(&b).p50),
    );
    assert!((low..=high).contains(&latency(&all).p50));

    let merged = loadgen(&format!("merge {} {} --json -", hgrm.path(), two.path()));
    let count = String::from_utf8_lossy(&merged.stderr).into_owned();
    assert!(
        count.contains(&format!("Total count    = {:12}", a.replies + b.replies)),
        "{count}"
    );
    let failed = loadgen(&format!("merge {} {}", one.path(), html.path()));
    assert_eq!(failed.status.code(), Some(1));
}

#[test]
fn a_sweep_finds_where_a_server_does_not_keep_up() {
    // A reply takes two milliseconds, one after the other on each connection: 500 a second is the most that
    // one connection can have, whatever the machine can do.
    let port = echo(|_, _| {
        thread::sleep(Duration::from_millis(2));
        true
    });
    let html = File::new("sweep.html", "");
    let line = format!(
        "sweep --from 20 --to 5k --factor 5 --refine 1 tcp-rr 127.0.0.1:{port} --duration 0.6 --warmup 0.2 \
         --quiet --json - --html {}",
        html.path()
    );
    let output = loadgen(&line);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let report: SweepReport = serde_json::from_slice(&output.stdout).unwrap();
    let missed = report.missed_per_s.unwrap();
    assert!(missed <= 2500.0, "{said}");
    assert!(report.knee_per_s.is_none_or(|knee| knee < 500.0), "{said}");
    let rates: Vec<f64> = report
        .runs
        .iter()
        .filter_map(|run| run.offered_rate)
        .collect();
    assert!(rates.is_sorted() && rates.len() >= 2, "{said}");
    assert!(html.text().contains("Latency against throughput"));
}

#[test]
fn misbehaving_clients_do_what_they_are_for() {
    let (_server, port) = server("127.0.0.1", "echo");
    let line = format!(
        "tcp-rr 127.0.0.1:{port} -c 2 --rate 100 --misbehave syn-only=2 --misbehave never-ack=2 --misbehave \
         never-read=1 --misbehave never-close=2 --misbehave byte-by-byte=2 {SHORT}"
    );
    let (report_, tcp) = report(&line, 0);
    assert!(report_.replies > 0 && tcp.failures.is_empty());
    assert_eq!(tcp.begun, 0, "they are counted apart");
    let bad = tcp.misbehaving.unwrap();
    assert_eq!(
        (bad.begun, bad.established, bad.ended),
        (9, 7, 0),
        "{bad:?}"
    );
    assert!(bad.sent_bytes > 10_000, "one asks without end: {bad:?}");
}
