//! How long the same work takes, here and with smoltcp: one after the other, again and again, so that
//! what the machine does meanwhile hits both.

use super::smoltcp_server::SmoltcpServer;
use super::stack_server::StackServer;
use super::{Blank, Harness, Work, run};
use crate::packet::Version;
use std::time::Instant;

/// How often each takes its turn: one of five is hardly disturbed.
const ROUNDS: usize = 5;

/// Work, its name, connections, and how much of it each does in a turn: a tenth of a second or so.
/// smoltcp looks at all its connections for every packet, so it does less where there are many.
const RACES: [(Work, &str, u32, usize, usize); 6] = [
    (Work::Request, "request", 1, 200_000, 100_000),
    (Work::Request, "request", 64, 200_000, 100_000),
    (Work::Request, "request", 1024, 200_000, 20_000),
    (Work::Connect, "connect", 64, 40_000, 20_000),
    (Work::Receive, "receive", 1, 200_000, 100_000),
    (Work::Send, "send", 1, 200_000, 100_000),
];

/// How long runs took, the fastest of each length: what the machine does meanwhile only ever adds.
struct Times {
    /// Of a tenth of the work, and of all of it: seconds, and how much was done.
    short: (f64, usize),
    long: (f64, usize),
}

impl Times {
    const NONE: Self = Self {
        short: (f64::INFINITY, 0),
        long: (f64::INFINITY, 0),
    };

    fn add(&mut self, count: usize, work: impl Fn(usize) -> usize) {
        for (fastest, count) in [(&mut self.short, count / 10), (&mut self.long, count)] {
            let begin = Instant::now();
            let done = work(count);
            let took = begin.elapsed().as_secs_f64();
            if took < fastest.0 {
                *fastest = (took, done);
            }
        }
    }

    /// Nanoseconds for each: what the long run took longer, so that making the stack and opening its
    /// connections is not in it.
    #[expect(clippy::cast_precision_loss, reason = "a million")]
    fn each(&self) -> f64 {
        let done = self.long.1 - self.short.1;
        (self.long.0 - self.short.0) * 1e9 / done as f64
    }
}

/// Prints a line for each kind of work: nanoseconds for each with either stack, those of the harness
/// subtracted, and how many times as long smoltcp takes.
pub(super) fn main(version: Version) {
    for (work, name, connections, count, smoltcp_count) in RACES {
        let mut times = [Times::NONE, Times::NONE, Times::NONE];
        for _ in 0..ROUNDS {
            let [ours, theirs, harness] = &mut times;
            ours.add(count, |count| {
                let server = StackServer::new(work, connections);
                run(server, work, version, connections, count)
            });
            theirs.add(smoltcp_count, |count| {
                let server = SmoltcpServer::new(work, connections);
                run(server, work, version, connections, count)
            });
            harness.add(count, |count| match work {
                Work::Send => {
                    let blank = Blank { len: 14 + 1500 };
                    run(blank, work, version, connections, count)
                }
                _ => run(Harness, work, version, connections, count),
            });
        }
        let [ours, theirs, harness] = times.map(|times| times.each());
        let (ours, theirs) = (ours - harness, theirs - harness);
        let ratio = theirs / ours;
        println!("{name} {connections} {ours:.0} {theirs:.0} {ratio:.1}");
    }
}
