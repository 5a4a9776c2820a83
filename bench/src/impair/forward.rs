//! The loop: what comes in at one port goes through its direction's line and out at the other.

use std::io;
use std::mem;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::capture::Capture;
use super::decide::{Decider, Direction, Impairment};
use super::line::Line;
use super::offload::on_the_wire;
use super::port::{Arrival, BATCH, Port};
use super::report::{DirectionReport, Report};
use crate::clock::{SECOND_NS, now_ns};

/// Longest sleep: how late the flag that ends the program may be noticed when another thread raises
/// it. A signal ends the sleep at once.
const SLEEP_NS_MAX: u64 = 50_000_000;

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The interfaces, A and B.
    pub interfaces: [String; 2],
    /// What every decision is drawn from.
    pub seed: u64,
    /// What happens to frames from A to B.
    pub a_to_b: Impairment,
    /// What happens to frames from B to A.
    pub b_to_a: Impairment,
    /// Where to write what went in and out.
    pub capture: Option<PathBuf>,
    /// When to end by itself.
    pub duration: Option<Duration>,
}

impl Plan {
    /// Both directions alike.
    #[must_use]
    pub fn new(interfaces: [&str; 2], seed: u64, impairment: &Impairment) -> Self {
        Self {
            interfaces: interfaces.map(str::to_owned),
            seed,
            a_to_b: impairment.clone(),
            b_to_a: impairment.clone(),
            capture: None,
            duration: None,
        }
    }
}

/// A forwarder whose interfaces are open: from here on no frame is missed.
#[derive(Debug)]
pub struct Forwarder {
    ports: [Port; 2],
    lines: [OneWay; 2],
    capture: Option<Capture>,
    /// Why the capture ended before the program.
    capture_error: Option<io::Error>,
    /// Memory for frames that are built.
    scratch: Vec<u8>,
    seed: u64,
    duration: Option<Duration>,
}

/// One direction with what is counted beside its line.
#[derive(Debug)]
struct OneWay {
    direction: Direction,
    line: Line,
    /// Frames on their way out: empty between calls, kept for its memory.
    leaving: Vec<Vec<u8>>,
    /// Frames longer than any that can be, and those that contradicted what was said of them.
    unusable: u64,
    /// Times the interface they come from was found down.
    link_down: u64,
}

impl OneWay {
    fn new(impairment: Impairment, seed: u64, direction: Direction) -> Self {
        Self {
            direction,
            line: Line::new(Decider::new(impairment, seed, direction)),
            leaving: Vec::with_capacity(BATCH),
            unusable: 0,
            link_down: 0,
        }
    }
}

impl Forwarder {
    /// Opens the interfaces, in the namespace of the calling thread, and the capture file.
    ///
    /// # Errors
    /// A sentence that says what failed.
    pub fn open(plan: &Plan) -> Result<Self, String> {
        let [a, b] = [&plan.interfaces[0], &plan.interfaces[1]];
        if a == b {
            return Err(format!(
                "{a} is named twice: a forwarder needs two interfaces"
            ));
        }
        let ports = [Port::open(a)?, Port::open(b)?];
        let capture = match &plan.capture {
            None => None,
            Some(path) => Some(
                Capture::create(path, [a, b])
                    .map_err(|error| format!("{}: {error}", path.display()))?,
            ),
        };
        Ok(Self {
            ports,
            lines: [
                OneWay::new(plan.a_to_b.clone(), plan.seed, Direction::AToB),
                OneWay::new(plan.b_to_a.clone(), plan.seed, Direction::BToA),
            ],
            capture,
            capture_error: None,
            scratch: Vec::new(),
            seed: plan.seed,
            duration: plan.duration,
        })
    }

    /// Forwards until `stop`, or until the time is over, and reports.
    ///
    /// # Errors
    /// A sentence that says what failed: an interface was removed.
    pub fn run(mut self, stop: &AtomicBool) -> Result<Report, String> {
        let began_ns = now_ns();
        let ends_ns = match self.duration {
            Some(duration) => {
                began_ns.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
            }
            None => u64::MAX,
        };
        while !stop.load(Ordering::Relaxed) {
            let now_ns = now_ns();
            if now_ns >= ends_ns {
                break;
            }
            let mut is_idle = true;
            for side in [0, 1] {
                is_idle &= self.receive(side)? == 0;
                is_idle &= self.send_due(side)? == 0;
            }
            if is_idle {
                self.sleep(ends_ns)?;
            }
        }
        self.report(began_ns)
    }

    /// Takes in what has come at this side. Returns how much that was.
    fn receive(&mut self, side: usize) -> Result<usize, String> {
        let Self {
            ports,
            lines,
            capture,
            capture_error,
            scratch,
            seed: _,
            duration: _,
        } = self;
        let OneWay {
            direction,
            line,
            leaving: _,
            unusable,
            link_down,
        } = &mut lines[side];
        let now_ns = now_ns();
        let mut into_line = |frame: &[u8]| {
            let outcome = line.offer(frame, now_ns);
            if let Some(file) = capture
                && let Err(error) = file.received(*direction, now_ns, frame, &outcome)
            {
                *capture_error = Some(error);
                *capture = None;
            }
        };
        let taken = ports[side].receive(|arrival| {
            let Arrival {
                offload,
                tag,
                bytes,
            } = arrival;
            let is_usable = bytes.is_some_and(|bytes| {
                on_the_wire(&offload, tag, bytes, scratch, &mut into_line).is_ok()
            });
            if !is_usable {
                *unusable += 1;
            }
        });
        match taken {
            Ok(count) => Ok(count),
            Err(error) if error.kind() == io::ErrorKind::NetworkDown => {
                if !ports[side].exists() {
                    return Err(format!("interface {} was removed", ports[side].name()));
                }
                *link_down += 1;
                Ok(0)
            }
            // A frame with an offload that the header before it has no word for (packet(7) fails so
            // with EINVAL, and has dropped it).
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                *unusable += 1;
                Ok(1)
            }
            Err(error) => Err(format!(
                "cannot receive from {}: {error}",
                ports[side].name()
            )),
        }
    }

    /// Sends what came in at this side and is due. Returns how much that was.
    fn send_due(&mut self, side: usize) -> Result<usize, String> {
        let OneWay {
            direction,
            line,
            leaving,
            ..
        } = &mut self.lines[side];
        let out = &self.ports[1 - side];
        let now_ns = now_ns();
        line.take_due(now_ns, BATCH, leaving);
        if leaving.is_empty() {
            return Ok(0);
        }
        if let Some(file) = &mut self.capture {
            for frame in leaving.iter() {
                if let Err(error) = file.sent(*direction, now_ns, frame) {
                    self.capture_error = Some(error);
                    self.capture = None;
                    break;
                }
            }
        }
        let refused = out
            .send(leaving)
            .map_err(|error| format!("cannot send to {}: {error}", out.name()))?;
        let count = leaving.len();
        line.sent(leaving.drain(..), refused);
        Ok(count)
    }

    /// Sleeps until something comes or is due.
    fn sleep(&self, ends_ns: u64) -> Result<(), String> {
        let due_ns = self.lines.iter().filter_map(|way| way.line.next_due_ns());
        let wakes_ns = due_ns.min().unwrap_or(u64::MAX).min(ends_ns);
        let sleep_ns = wakes_ns.saturating_sub(now_ns()).min(SLEEP_NS_MAX);
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: i64::try_from(sleep_ns.min(SECOND_NS - 1))
                .expect("invariant: less than a second"),
        };
        let [a, b] = &self.ports;
        let mut ports = [PollFd::new(a, PollFlags::IN), PollFd::new(b, PollFlags::IN)];
        match poll(&mut ports, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(format!("cannot wait: {error}")),
        }
    }

    fn report(mut self, began_ns: u64) -> Result<Report, String> {
        if let Some(capture) = mem::take(&mut self.capture) {
            self.capture_error = capture.finish().err();
        }
        if let Some(error) = self.capture_error {
            eprintln!("impair: the capture is incomplete: {error}");
        }
        let mut directions = Vec::new();
        for (way, port) in self.lines.iter().zip(&mut self.ports) {
            let missed = port
                .missed()
                .map_err(|error| format!("interface {}: {error}", port.name()))?;
            directions.push(DirectionReport {
                direction: way.direction,
                from: port.name().to_owned(),
                impairment: way.line.impairment().clone(),
                counters: way.line.counters(),
                missed,
                unusable: way.unusable,
                link_down: way.link_down,
            });
        }
        Ok(Report {
            seed: self.seed,
            elapsed_ms: (now_ns() - began_ns) / 1_000_000,
            directions,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_interface_is_not_two() {
        let plan = Plan::new(["lo", "lo"], 1, &Impairment::default());
        let error = Forwarder::open(&plan).unwrap_err();
        assert!(error.contains("two interfaces"), "{error}");
    }
}
