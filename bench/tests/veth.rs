//! The servers `make bench` compares, each over a veth pair between two namespaces: every reply intact
//! over IPv4 and IPv6, and the interface the kernel's again afterwards. What needs root is skipped by
//! name without it.
#![allow(clippy::unwrap_used)] // A test that panics is a test that fails.

use std::fs;
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
