//! Ordinary programs against the service.

use crate::client::fill;
use crate::setup::{DISCARD, ECHO, Setup, both, interop};
use crate::support::process::{Finished, Process};
use std::net::SocketAddr;

/// Runs a program of the peer with `input` to its end, which must come.
#[track_caller]
fn run(interop: &crate::setup::Interop, line: &str, input: &[u8]) -> (Finished, Vec<u8>) {
    let mut words = line.split_whitespace();
    let mut command = interop.lab.peer.command(words.next().expect("a program"));
    command.args(words);
    let mut process = Process::start_with_input(command, line, input);
    let ended = process.wait_for(crate::support::PATIENCE);
    assert!(ended.is_some(), "{line} does not end");
    let output = process.stdout_bytes();
    (process.finish(), output)
}

fn content(len: usize) -> Vec<u8> {
    let mut content = vec![0; len];
    fill(0, &mut content);
    content
}

/// `[address]` for IPv6, as URLs and socat have it.
fn in_brackets(to: SocketAddr) -> String {
    match to {
        SocketAddr::V4(to) => to.ip().to_string(),
        SocketAddr::V6(to) => format!("[{}]", to.ip()),
    }
}

#[test]
fn nc_sends_a_file_and_has_it_back() {
    let interop = interop!("nc_sends_a_file_and_has_it_back", Setup::default(), "nc");
    let content = content(1 << 20);
    for to in both(ECHO) {
        // -N: half-close at the end of the input.
        let line = format!("nc -N -w 30 {} {}", to.ip(), to.port());
        let (done, output) = run(&interop, &line, &content);
        assert!(done.status.success(), "{line}: {}", done.stderr);
        assert!(
            output == content,
            "{line}: {} bytes, or others",
            output.len()
        );
    }
    for to in both(DISCARD) {
        let line = format!("nc -N -w 30 {} {}", to.ip(), to.port());
        let (done, output) = run(&interop, &line, &content);
        assert!(done.status.success(), "{line}: {}", done.stderr);
        assert!(output.is_empty(), "{line}");
        // Only a connection that is made and closed.
        let line = format!("nc -z -v -w 30 {} {}", to.ip(), to.port());
        let (done, _) = run(&interop, &line, &[]);
        assert!(done.status.success(), "{line}: {}", done.stderr);
    }
    interop.until_quiet();
    interop.stop();
}

#[test]
fn socat_sends_a_file_and_has_it_back() {
    let interop = interop!(
        "socat_sends_a_file_and_has_it_back",
        Setup::default(),
        "socat"
    );
    let content = content(1 << 20);
    for (to, kind) in both(ECHO).into_iter().zip(["TCP4", "TCP6"]) {
        for options in [
            "",
            ",nodelay",
            ",keepalive,keepidle=1,keepintvl=1",
            ",cork",
            ",mss=600",
        ] {
            let host = in_brackets(to);
            let line = format!("socat -t 30 - {kind}:{host}:{}{options}", to.port());
            let (done, output) = run(&interop, &line, &content);
            assert!(done.status.success(), "{line}: {}", done.stderr);
            assert!(
                output == content,
                "{line}: {} bytes, or others",
                output.len()
            );
        }
    }
    interop.until_quiet();
    interop.stop();
}

/// curl speaks no protocol of ours: that it connects, and is echoed its request, is enough. With
/// TCP Fast Open it puts a cookie request into its SYN, which is declined (RFC 7413 §4.1.1).
#[test]
fn curl_connects() {
    let interop = interop!("curl_connects", Setup::default(), "curl");
    for to in both(ECHO) {
        for option in ["", "--tcp-fastopen", "--tcp-nodelay"] {
            let host = in_brackets(to);
            let line = format!(
                "curl -s -g --http0.9 --noproxy * -m 1 {option} -w :%{{num_connects}}: \
                 http://{host}:{}/",
                to.port()
            );
            let (done, _) = run(&interop, &line, &[]);
            // It waits for more until -m ends it (28: a time-out).
            assert_eq!(done.status.code(), Some(28), "{line}: {}", done.stderr);
            assert!(
                done.stdout.contains("GET / HTTP/1.1"),
                "{line}: {}",
                done.stdout
            );
            assert!(done.stdout.ends_with(":1:"), "{line}: {}", done.stdout);
        }
    }
    interop.until_quiet();
    interop.stop();
}
