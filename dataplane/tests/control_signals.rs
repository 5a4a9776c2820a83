//! Signals, sent to this very process: alone in their file, since a process has one disposition for
//! each signal.
// The lint knows test functions, but not what helps them.
#![allow(clippy::unwrap_used)]

use dataplane::control::signals::{SignalEvent, Signals};
use std::process::Command;

fn send(signal: &str) {
    let pid = std::process::id().to_string();
    assert!(
        Command::new("kill")
            .args([signal, &pid])
            .status()
            .unwrap()
            .success()
    );
}

#[tokio::test]
async fn every_signal_has_its_meaning() {
    let mut signals = Signals::new().unwrap();
    for (signal, event) in [
        ("-USR1", SignalEvent::Report),
        ("-HUP", SignalEvent::Reload),
        ("-USR1", SignalEvent::Report),
        ("-TERM", SignalEvent::Drain),
        ("-HUP", SignalEvent::Reload),
        ("-INT", SignalEvent::Abort),
        ("-TERM", SignalEvent::Abort),
    ] {
        send(signal);
        assert_eq!(signals.next().await, event, "{signal}");
    }
}
