//! How long the same work takes, here and with smoltcp: one after the other, again and again, so that
//! what the machine does meanwhile hits both.

use super::smoltcp_server::SmoltcpServer;
use super::stack_server::StackServer;
use super::{Blank, Harness, Work, run};
use crate::packet::Version;
use std::time::Instant;

/// How often each takes its turn. The median of five is not moved by two that were disturbed.
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

/// Nanoseconds for each: what a long run takes longer than one of a tenth, so that making the stack and
/// opening its connections is in neither.
fn time(count: usize, work: impl Fn(usize) -> usize) -> f64 {
    let run = |count| {
        let begin = Instant::now();
        let done = work(count);
        #[expect(clippy::cast_precision_loss, reason = "a million")]
        let done = done as f64;
        (begin.elapsed().as_secs_f64() * 1e9, done)
    };
    let ((short, few), (long, many)) = (run(count / 10), run(count));
    (long - short) / (many - few)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Prints a line for each kind of work: nanoseconds for each with either stack, those of the harness
/// subtracted, and how many times as long smoltcp takes.
pub(super) fn main(version: Version) {
    for (work, name, connections, count, smoltcp_count) in RACES {
        let mut times = [const { Vec::new() }; 3];
        for _ in 0..ROUNDS {
            let [ours, theirs, harness] = &mut times;
            ours.push(time(count, |count| {
                let server = StackServer::new(work, connections);
                run(server, work, version, connections, count)
            }));
            theirs.push(time(smoltcp_count, |count| {
                let server = SmoltcpServer::new(work, connections);
                run(server, work, version, connections, count)
            }));
            harness.push(time(count, |count| match work {
                Work::Send => {
                    let blank = Blank { len: 14 + 1500 };
                    run(blank, work, version, connections, count)
                }
                _ => run(Harness, work, version, connections, count),
            }));
        }
        let [ours, theirs, harness] = times.map(median);
        let (ours, theirs) = (ours - harness, theirs - harness);
        let ratio = theirs / ours;
        println!("{name} {connections} {ours:.0} {theirs:.0} {ratio:.1}");
    }
}
