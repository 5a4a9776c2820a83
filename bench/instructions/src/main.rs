//! How many instructions a UDP echo takes, in memory and without a driver; and what TCP takes: see
//! `tcp`.
//!
//! ```text
//!   echo-instructions SUBJECT VERSION PAYLOAD PACKETS      echo-instructions stack ipv4 64 12800
//!
//!   receive ──► [received: 64 frames] ── SUBJECT turns them round ──► [sent: 64 frames] ──► give back
//!   └─ the harness: the same for all subjects ─┘                 └─ the harness ──────────────────┘
//! ```
//!
//! Run under callgrind by `scripts/bench-instructions.sh`, which subtracts the harness; the table is
//! `bench/BASELINE.md`. A run by itself checks that the subject works and says nothing.

mod allocator;
mod frame;
mod packet;
mod reflector;
mod smoltcp_echo;
mod stack_echo;
mod tcp;

use crate::frame::{BenchFrame, BenchPool};
use packet::{OTHER_PORT, OUR_PORT, Peer, Request, Version};
use stack::time::{Duration, Instant};
use stack_echo::StackEcho;
use std::process::ExitCode;

/// Packets of one turn: what the service takes from its rings at once.
const BATCH: usize = 64;
/// Length of one turn: at 64 packets each, 1.28 million packets a second. Timers that are due every
/// 10 ms then run once in 200 turns, and their cost is in the figure.
const TURN: Duration = Duration::from_micros(50);
/// Bytes of one frame: the smaller of the two sizes AF_XDP has.
const FRAME_BYTES: u16 = 2048;

/// Something that answers requests.
trait Subject {
    /// Answers what is in `received`, and moves the answers to `sent`.
    fn turn(
        &mut self,
        pool: &mut BenchPool,
        received: &mut Vec<BenchFrame>,
        sent: &mut Vec<BenchFrame>,
        now: Instant,
    );
}

/// Does nothing: what receiving and giving back cost.
struct Harness;

impl Subject for Harness {
    #[inline(never)]
    fn turn(
        &mut self,
        _pool: &mut BenchPool,
        received: &mut Vec<BenchFrame>,
        sent: &mut Vec<BenchFrame>,
        _now: Instant,
    ) {
        for frame in received.drain(..) {
            sent.push(frame);
        }
    }
}

/// The frames a driver took from its ring.
#[inline(never)]
fn receive(pool: &mut BenchPool, requests: &[Request], received: &mut Vec<BenchFrame>) {
    for request in requests {
        received.extend(pool.receive(&request.bytes));
    }
}

/// The frames a driver got back once they were sent.
#[inline(never)]
fn give_back(pool: &mut BenchPool, sent: &mut Vec<BenchFrame>) {
    use stack::frame::FramePool as _;
    for frame in sent.drain(..) {
        pool.give(frame);
    }
}

/// Sends `packets` requests (rounded down to whole batches) and looks at the first answers.
fn run(mut subject: impl Subject, requests: &[Request], packets: usize, answers: bool) {
    let mut pool = BenchPool::new(4 * BATCH, FRAME_BYTES);
    let mut received = Vec::with_capacity(BATCH);
    let mut sent = Vec::with_capacity(BATCH);
    let mut now = Instant::from_nanos(1_000_000_000);
    for turn in 0..packets / BATCH {
        now = now + TURN;
        receive(&mut pool, requests, &mut received);
        subject.turn(&mut pool, &mut received, &mut sent, now);
        assert_eq!(sent.len(), BATCH, "every request has its answer");
        if turn == 0 && answers {
            // Two ports are served one after the other: the first answers the first either way.
            requests[0].check_answer(&sent[0]);
        }
        give_back(&mut pool, &mut sent);
    }
}

const USAGE: &str = "usage: echo-instructions \
    harness|reflector|stack|stack-rewritten|stack-scattered|smoltcp ipv4|ipv6 PAYLOAD PACKETS";

fn parse(arguments: &[String]) -> Option<(&str, Version, usize, usize)> {
    let [subject, version, payload, packets] = arguments else {
        return None;
    };
    let version = Version::parse(version)?;
    let payload = payload
        .parse()
        .ok()
        .filter(|len| (1..=1400).contains(len))?;
    Some((subject, version, payload, packets.parse().ok()?))
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some((first, rest)) = arguments.split_first()
        && first == "tcp"
    {
        let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
        if tcp::main(&rest).is_some() {
            return ExitCode::SUCCESS;
        }
        eprintln!("{USAGE}\n{}", tcp::USAGE);
        return ExitCode::from(2);
    }
    let Some((subject, version, payload, packets)) = parse(&arguments) else {
        eprintln!("{USAGE}\n{}", tcp::USAGE);
        return ExitCode::from(2);
    };
    let scattered = subject == "stack-scattered";
    let requests: Vec<_> = (0..BATCH)
        .map(|index| match (scattered, index % 2) {
            (false, _) => (0, OUR_PORT),
            (true, 0) => (index, OUR_PORT),
            (true, _) => (index, OTHER_PORT),
        })
        .map(|(peer, port)| {
            let peer = Peer(u8::try_from(peer).expect("a batch is small"));
            Request::new(version, payload, peer, port)
        })
        .collect();
    match subject {
        "harness" => run(Harness, &requests, packets, false),
        "reflector" => run(reflector::Reflector, &requests, packets, true),
        "stack" => run(
            StackEcho::<false>::new(&[OUR_PORT], 1),
            &requests,
            packets,
            true,
        ),
        "stack-rewritten" => run(
            StackEcho::<true>::new(&[OUR_PORT], 1),
            &requests,
            packets,
            true,
        ),
        "stack-scattered" => {
            let subject = StackEcho::<false>::new(&[OUR_PORT, OTHER_PORT], BATCH);
            run(subject, &requests, packets, true);
        }
        "smoltcp" => run(smoltcp_echo::SmoltcpEcho::new(), &requests, packets, true),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}
