//! The servers `make bench` compares and the engines of `loadgen`, over a veth pair between two
//! namespaces: every reply intact over IPv4 and IPv6, and the interface the kernel's again afterwards.
//! What needs root is skipped by name without it.
#![allow(clippy::unwrap_used)] // A test that panics is a test that fails.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use bench::loadgen::report::Report;
use bench::netns::{INTERFACE, Process, SERVER_V4, SERVER_V6, Veth, available};

const LOADGEN: &str = env!("CARGO_BIN_EXE_loadgen");
const KERNEL_UDP_ECHO: &str = env!("CARGO_BIN_EXE_kernel-udp-echo");
const REFLECTOR: &str = env!("CARGO_BIN_EXE_reflector");

/// Long enough for the steering program to load and for a queue just released to be bound again.
const READY_WAIT: Duration = Duration::from_secs(20);

/// A pair of namespaces, or `None` with a line that says why `test` is skipped.
fn pair(test: &str) -> Option<Veth> {
    match available() {
        Ok(()) => Some(Veth::new("bench-test", 2).unwrap()),
        Err(reason) => {
            eprintln!("skipped: {test}: {reason}");
            None
        }
    }
}

/// Loads port 7 of `address` from the client's end.
fn load(veth: &Veth, address: IpAddr) -> Report {
    let output = veth
        .client
        .command(LOADGEN)
        .args(["udp-rr", &SocketAddr::new(address, 7).to_string()])
        .args(["--flows", "8", "--duration", "0.5", "--warmup", "0.2"])
        .args(["--quiet", "--json", "-"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{address}: {said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn answers_over_both_versions(veth: &Veth, server: &mut Command) {
    let mut server = Process::start(server, READY_WAIT).unwrap();
    for address in [IpAddr::from(SERVER_V4), IpAddr::from(SERVER_V6)] {
        let report = load(veth, address);
        assert!(report.replies > 100, "{address}: {report:?}");
        let wrong = (report.corrupted, report.unexpected, report.refused);
        assert_eq!(wrong, (0, 0, 0), "{address}");
    }
    let (status, said) = server.stop();
    assert!(status.is_some_and(|status| status.success()), "{said}");
}

#[test]
fn the_kernel_server_answers_over_both_versions() {
    let Some(veth) = pair("the_kernel_server_answers_over_both_versions") else {
        return;
    };
    let mut command = veth.server.command(KERNEL_UDP_ECHO);
    answers_over_both_versions(&veth, command.args(["--listen", "[::]:7"]));
}

/// A configuration file that goes when the test ends.
struct Configuration(PathBuf);

impl Configuration {
    fn new(name: &str, busy_poll: bool) -> Self {
        let path = std::env::temp_dir().join(format!("{name}-{}.toml", std::process::id()));
        let text = format!(
            "[interface]\nname = \"{INTERFACE}\"\nmode = \"copy\"\n\
             [busy_poll]\nenabled = {busy_poll}\n\
             [workers]\ncores = [0]\n\
             [[service]]\nname = \"echo\"\napplication = \"echo\"\nprotocol = \"udp\"\n\
             listen = [\"[::]:7\"]\n"
        );
        fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for Configuration {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn the_reflector_answers_over_both_versions_and_gives_the_port_back() {
    let Some(veth) = pair("the_reflector_answers_over_both_versions_and_gives_the_port_back")
    else {
        return;
    };
    for busy_poll in [false, true] {
        let configuration = Configuration::new("reflector-test", busy_poll);
        let mut command = veth.server.command(REFLECTOR);
        command.arg("--config").arg(&configuration.0);
        command.args([
            "--address",
            &SERVER_V4.to_string(),
            "--address",
            &SERVER_V6.to_string(),
        ]);
        answers_over_both_versions(&veth, &mut command);
    }
    // Now the kernel has the port again.
    let mut command = veth.server.command(KERNEL_UDP_ECHO);
    answers_over_both_versions(&veth, command.args(["--listen", "[::]:7"]));
}

#[test]
fn the_reflector_says_what_is_wrong() {
    let Some(veth) = pair("the_reflector_says_what_is_wrong") else {
        return;
    };
    veth.server.ip(["link", "del", INTERFACE]).unwrap();
    let configuration = Configuration::new("reflector-gone", false);
    let mut command = veth.server.command(REFLECTOR);
    command
        .arg("--config")
        .arg(&configuration.0)
        .args(["--address", "10.77.0.2"]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains(INTERFACE) && !said.contains("panicked"),
        "{said}"
    );
}

/// Loads the server's port 7 over AF_XDP, with these arguments besides.
fn load_over_xdp(veth: &Veth, address: IpAddr, arguments: &[&str]) -> std::process::Output {
    veth.client
        .command(LOADGEN)
        .args(["udp-rr", &SocketAddr::new(address, 7).to_string()])
        .args(["--engine", "xdp", "--duration", "0.5", "--warmup", "0"])
        // A machine that is busy elsewhere answers late, which is not what is tested.
        .args(["--timeout", "5s"])
        .args(["--quiet", "--json", "-"])
        .args(arguments)
        .output()
        .unwrap()
}

fn said(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What is attached to the client's interface.
fn attached(veth: &Veth) -> bool {
    let link = veth.client.ip(["link", "show", "dev", INTERFACE]);
    link.unwrap().contains("xdp")
}

#[test]
fn the_xdp_engine_loads_a_kernel_server_over_both_versions_and_leaves_nothing() {
    let Some(veth) =
        pair("the_xdp_engine_loads_a_kernel_server_over_both_versions_and_leaves_nothing")
    else {
        return;
    };
    let mut command = veth.server.command(KERNEL_UDP_ECHO);
    let mut server = Process::start(command.args(["--listen", "[::]:7"]), READY_WAIT).unwrap();
    for address in [IpAddr::from(SERVER_V4), IpAddr::from(SERVER_V6)] {
        // Closed loop; open loop; two threads, where replies come to either's queue.
        for (arguments, mode) in [
            (["--flows", "16", "--xdp-mode", "auto"].as_slice(), "copy"),
            (&["--rate", "2k", "--xdp-mode", "generic"], "generic"),
            (
                &["--flows", "16", "--threads", "2", "--interface", INTERFACE],
                "copy",
            ),
        ] {
            let output = load_over_xdp(&veth, address, arguments);
            assert!(output.status.success(), "{arguments:?}: {}", said(&output));
            let report: Report = serde_json::from_slice(&output.stdout).unwrap();
            assert!(report.replies > 100, "{arguments:?}: {report:?}");
            let wrong = (report.corrupted, report.unexpected, report.refused);
            assert_eq!(wrong, (0, 0, 0), "{arguments:?}: {report:?}");
            // A machine that is busy elsewhere may overrun a queue on the way.
            assert!(report.lost * 100 <= report.requests, "{report:?}");
            assert_eq!(report.engine, "xdp");
            assert!(
                report
                    .client_idle
                    .is_some_and(|share| (0.0..=1.0).contains(&share))
            );
            let xdp = report.xdp.unwrap();
            assert_eq!((xdp.mode.as_str(), xdp.queues), (mode, 2));
            // The server's end leaves checksums to a NIC, and veth is none.
            assert!(xdp.checksums_incomplete > 100, "{xdp:?}");
            assert!(!attached(&veth), "{arguments:?}");
        }
    }
    // And the kernel's own sockets have the interface as before.
    assert!(load(&veth, SERVER_V4.into()).replies > 100);
    server.stop();
}

#[test]
fn the_xdp_engine_counts_refusals() {
    let Some(veth) = pair("the_xdp_engine_counts_refusals") else {
        return;
    };
    for address in [IpAddr::from(SERVER_V4), IpAddr::from(SERVER_V6)] {
        // Nobody listens: ICMP port unreachable, which quotes the request. The kernel sends a few,
        // then one a second.
        let output = load_over_xdp(&veth, address, &["--rate", "1k"]);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains("refused"), "{}", said(&output));
        let report: Report = serde_json::from_slice(&output.stdout).unwrap();
        assert!(report.refused > 0 && report.replies == 0, "{report:?}");
        assert_eq!(report.unexpected, 0, "{report:?}");
    }
}

#[test]
fn the_xdp_engine_says_what_is_wrong() {
    let Some(veth) = pair("the_xdp_engine_says_what_is_wrong") else {
        return;
    };
    let missing = IpAddr::from([10, 77, 0, 99]);
    for (address, arguments, reason) in [
        (
            SERVER_V4.into(),
            ["--interface", "no-such-if"].as_slice(),
            "no interface no-such-if",
        ),
        (SERVER_V4.into(), &["--size", "1473"], "at most 1472"),
        (
            SERVER_V4.into(),
            &["--threads", "3", "--flows", "3"],
            "more than the 2 queues",
        ),
        (
            SERVER_V4.into(),
            &["--xdp-mode", "zero-copy"],
            "refuses zero-copy",
        ),
        (SERVER_V4.into(), &["--source", "10.77.0.7"], "10.77.0.7"),
        (missing, &[], "answers for 10.77.0.99"),
        ([192, 0, 2, 1].into(), &[], "no route to 192.0.2.1"),
        ([127, 0, 0, 1].into(), &[], "--engine kernel"),
    ] {
        let output = load_over_xdp(&veth, address, arguments);
        let said = said(&output);
        assert_eq!(
            output.status.code(),
            Some(1),
            "{address} {arguments:?}: {said}"
        );
        assert!(said.contains(reason), "{address} {arguments:?}: {said}");
        assert_eq!(said.trim().lines().count(), 1, "one sentence: {said}");
        assert!(!attached(&veth));
    }
}

#[test]
fn the_xdp_engine_ends_when_asked_to() {
    let Some(veth) = pair("the_xdp_engine_ends_when_asked_to") else {
        return;
    };
    let mut command = veth.server.command(KERNEL_UDP_ECHO);
    let _server = Process::start(command.args(["--listen", "[::]:7"]), READY_WAIT).unwrap();
    let mut child = veth
        .client
        .command(LOADGEN)
        .args([
            "udp-flood",
            &SocketAddr::new(SERVER_V4.into(), 7).to_string(),
        ])
        .args(["--engine", "xdp", "--duration", "60", "--json", "-"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // The first line of progress says that it is under way, and was attached.
    let mut progress = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("replies/s") {
        line.clear();
        assert!(progress.read_line(&mut line).unwrap() > 0, "it ended");
    }
    assert!(attached(&veth));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let mut rest = String::new();
    progress.read_to_string(&mut rest).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{rest}");
    let report: Report = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report.interrupted && report.replies > 0, "{report:?}");
    assert!(!attached(&veth));
}

/// Runs a load over TCP on the xdp engine against `target`'s port 7, for half a second.
fn tcp_over_xdp(veth: &Veth, load: &str, address: IpAddr, arguments: &str) -> Report {
    let output = veth
        .client
        .command(LOADGEN)
        .args([load, &SocketAddr::new(address, 7).to_string()])
        .args(["--engine", "xdp", "--duration", "0.5", "--warmup", "0.2"])
        .args(["--quiet", "--json", "-"])
        .args(arguments.split_ascii_whitespace())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{load} {arguments}: {}",
        said(&output)
    );
    assert!(!attached(veth), "{load} {arguments}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_xdp_engine_opens_connections_of_its_own_stack() {
    let Some(veth) = pair("the_xdp_engine_opens_connections_of_its_own_stack") else {
        return;
    };
    let mut command = veth.server.command(LOADGEN);
    command.args(["serve", "[::]:7", "--connections", "1000"]);
    let mut server = Process::start(&mut command, READY_WAIT).unwrap();
    for (address, own) in [
        (IpAddr::from(SERVER_V4), "10.77.0.100-10.77.0.101"),
        (IpAddr::from(SERVER_V6), "fd00:77::100-fd00:77::101"),
    ] {
        for (load, arguments) in [
            ("tcp-rr", "-c 16".to_owned()),
            (
                "tcp-rr",
                "-c 8 --rate 500 --size uniform:16-4000 --reply-size exp:3000".to_owned(),
            ),
            // Replies come to either thread's queue.
            ("tcp-rr", "-c 16 -t 2 --size 5000".to_owned()),
            // Addresses that the kernel does not have.
            ("tcp-rr", format!("-c 16 --source {own}")),
            ("tcp-crr", format!("-c 4 --source {own}")),
            ("tcp-crr", "-c 2 --rate 200 --ports 40000-41000".to_owned()),
        ] {
            let report = tcp_over_xdp(&veth, load, address, &arguments);
            let tcp = report.tcp.clone().unwrap();
            assert!(report.replies > 20, "{load} {arguments}: {report:?}");
            assert_eq!(
                report.requests, report.replies,
                "{arguments}: {:?}",
                tcp.failures
            );
            assert_eq!(tcp.begun, tcp.established, "{arguments}: {tcp:?}");
            assert!(
                report
                    .client_idle
                    .is_some_and(|share| (0.0..=1.0).contains(&share))
            );
        }
        let report = tcp_over_xdp(&veth, "tcp-stream", address, "--bidir -c 2");
        let tcp = report.tcp.unwrap();
        assert!(
            tcp.received_bytes > 100_000 && tcp.failures.is_empty(),
            "{tcp:?}"
        );
    }
    // Clients that mean no good, each of which our stack has to be kept from doing well.
    let rogues = "syn-only never-ack never-read never-close byte-by-byte"
        .split(' ')
        .map(|kind| format!(" --misbehave {kind}=2"))
        .collect::<String>();
    let arguments = format!("-c 2 --rate 100{rogues}");
    let report = tcp_over_xdp(&veth, "tcp-rr", SERVER_V4.into(), &arguments);
    let bad = report.tcp.unwrap().misbehaving.unwrap();
    assert_eq!((bad.begun, bad.established), (10, 8), "{bad:?}");
    let (status, said) = server.stop();
    assert!(status.is_some_and(|status| status.success()), "{said}");
    // Nobody listens any more.
    let output = veth
        .client
        .command(LOADGEN)
        .args([
            "tcp-rr",
            "10.77.0.2:7",
            "--engine",
            "xdp",
            "--duration",
            "0.3",
            "--warmup",
            "0",
        ])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        self::said(&output).contains("nothing listens"),
        "{}",
        self::said(&output)
    );
}
