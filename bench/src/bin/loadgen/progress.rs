//! The line that says how a run goes: rewritten in place on a terminal, a new one each second elsewhere.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use bench::loadgen::job::Load;
use bench::loadgen::live::Snapshot;

/// What the line needs to know of what was before.
pub(crate) struct Progress {
    quiet: bool,
    terminal: bool,
    /// Time before the counted time.
    lead: Duration,
    /// Over connections, and whether bytes are counted, for want of requests.
    tcp: bool,
    stream: bool,
    last: (Duration, Snapshot),
}

impl Progress {
    /// Of a run of `load`.
    pub(crate) fn new(quiet: bool, load: &Load) -> Self {
        Self {
            quiet,
            terminal: io::stderr().is_terminal(),
            lead: load.lead(),
            tcp: matches!(load, Load::Tcp(_)),
            stream: load.is_stream(),
            last: (Duration::ZERO, Snapshot::default()),
        }
    }

    /// Shows all counts as they are `elapsed` after the start.
    pub(crate) fn show(&mut self, elapsed: Duration, counts: &Snapshot) {
        if self.quiet {
            return;
        }
        let (last_elapsed, last) = &self.last;
        let seconds = (elapsed - *last_elapsed)
            .as_secs_f64()
            .max(f64::MIN_POSITIVE);
        let new = counts.since(last);
        let per_s = |count: u64| count as f64 / seconds;

        let mut line = format!("{:>5.0} s", elapsed.as_secs_f64());
        if self.stream {
            let mbit_per_s = |bytes| per_s(bytes) * 8.0 / 1e6;
            line += &format!(
                "  {:>9.1} Mbit/s up  {:>9.1} Mbit/s down",
                mbit_per_s(new.sent_bytes),
                mbit_per_s(new.received_bytes)
            );
        } else {
            line += &format!("  {:>9.0} replies/s", per_s(new.replies));
        }
        if let (Some(p50), Some(p99)) = (counts.latency_us(0.5), counts.latency_us(0.99)) {
            line += &format!("  p50 {p50:.1} µs  p99 {p99:.1} µs");
        }
        if self.tcp {
            line += &format!("  open {}  failed {}", counts.open, counts.lost);
        } else {
            line += &format!("  lost {}", counts.lost);
        }
        if counts.refused > 0 {
            line += &format!("  refused {}", counts.refused);
        }
        if elapsed <= self.lead {
            line += "  (warm-up)";
        }
        self.last = (elapsed, counts.clone());
        // Progress nobody can see is no reason to end a run.
        let _ = if self.terminal {
            write!(io::stderr(), "\r\x1b[K{line}")
        } else {
            writeln!(io::stderr(), "{line}")
        };
    }

    /// Leaves the line empty.
    pub(crate) fn clear(&self) {
        if self.terminal && !self.quiet {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
