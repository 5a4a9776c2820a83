//! A run from start to finish: sockets, threads, progress, and the counts of all threads together.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::closed::ClosedLoop;
use super::flood::Flood;
use super::kernel::{Idle, KernelEngine, open_flows};
use super::live::{Live, Snapshot};
use super::load::{Books, Load, Tally, Window};
use super::open::OpenLoop;
use super::pacing::{Arrivals, Rate, Schedule};
use super::probe::Prober;
use super::series::{Interval, Sampler};
use super::xdp::engine::{XdpCounts, XdpEngine};
use super::xdp::{Setup, XdpOptions, XdpReport};
use crate::clock::now_ns;
use crate::cpu::{CpuList, pin_current_thread};
use crate::socket::receive_drops;

/// Which kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Request and reply, one under way per flow.
    ClosedLoop,
    /// Requests at a rate.
    OpenLoop {
        /// Of all threads together.
        rate: Rate,
        /// How they are spread.
        arrivals: Arrivals,
    },
    /// Datagrams at a rate, or without one as fast as possible.
    Flood {
        /// Of all threads together.
        rate: Option<Rate>,
    },
}

/// What carries the load.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// Kernel sockets.
    #[default]
    Kernel,
    /// AF_XDP.
    Xdp(XdpOptions),
}

impl Engine {
    /// Its name on the command line and in JSON.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Xdp(_) => "xdp",
        }
    }
}

/// Everything a run needs to know.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The kind of load.
    pub kind: Kind,
    /// Where it goes.
    pub target: SocketAddr,
    /// Address to send from; the kernel's choice if none.
    pub source: Option<IpAddr>,
    /// Flows, each with its own source port; at least as many as threads.
    pub flows: usize,
    /// Threads; at least one.
    pub threads: usize,
    /// CPUs to pin the threads to, one each.
    pub cpus: Option<CpuList>,
    /// Bytes of UDP payload in a request.
    pub size: usize,
    /// Counted time.
    pub duration: Duration,
    /// Time before that.
    pub warmup: Duration,
    /// A reply later than this is lost.
    pub timeout: Duration,
    /// For arrivals and payload.
    pub seed: u64,
    /// What threads do while nothing is due.
    pub idle: Idle,
    /// What carries it.
    pub engine: Engine,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The counts of all threads.
    pub tally: Tally,
    /// Length of the counted time in seconds; shorter than planned after Ctrl-C.
    pub duration_s: f64,
    /// Replies the kernel dropped because our own socket buffers or rings were full, warm-up included.
    pub client_dropped: u64,
    /// What the xdp engine obtained and counted.
    pub xdp: Option<XdpOutcome>,
    /// How it went over time.
    pub series: Vec<Interval>,
    /// Whether the run ended early.
    pub interrupted: bool,
}

/// What the xdp engine has to say beside the load's counts.
#[derive(Clone, Debug, PartialEq)]
pub struct XdpOutcome {
    /// What was obtained.
    pub report: XdpReport,
    /// Counts of all threads.
    pub counts: XdpCounts,
    /// Share of the threads' counted time in which there was nothing to do, 0 to 1.
    pub idle_share: f64,
}

/// Time between the decision to start and the first request: threads are up by then.
pub(super) const START_DELAY_NS: u64 = 20_000_000;

/// Time between two lines of progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// Carries out a plan. `progress` is called once a second with the time since the first request and
/// all counts so far; setting `stop` ends the run early.
///
/// # Errors
/// A sentence that says what could not be set up: a socket, a CPU, a thread.
pub fn run(
    plan: &Plan,
    stop: &Arc<AtomicBool>,
    progress: impl FnMut(Duration, &Snapshot),
) -> Result<Outcome, String> {
    let shares = shares(plan.flows, plan.threads);
    // Held to the end: its program stays attached until all threads are done.
    let (carriers, setup) = carriers(plan, &shares)?;
    let start_ns = now_ns() + START_DELAY_NS;
    let measure_ns = start_ns.saturating_add(nanoseconds(plan.warmup));
    let window = Window {
        start_ns,
        measure_ns,
        stop_ns: measure_ns.saturating_add(nanoseconds(plan.duration)),
    };
    let run = run_number();

    let mut lives = Vec::new();
    let mut workers = Vec::new();
    let mut first_flow = 0;
    for (index, (flows, carrier)) in shares.into_iter().zip(carriers).enumerate() {
        let live = Arc::new(Live::default());
        lives.push(Arc::clone(&live));
        let worker = Worker {
            plan: plan.clone(),
            index,
            carrier,
            books: Books {
                prober: Prober::new(run, plan.size, plan.seed),
                window,
                timeout_ns: nanoseconds(plan.timeout),
                first_flow,
                tally: Tally::default(),
                live,
            },
            stop: Arc::clone(stop),
        };
        first_flow = first_flow.saturating_add(u32::try_from(flows).unwrap_or(u32::MAX));
        workers.push(spawn(worker)?);
    }

    let series = watch(&workers, &lives, &window, progress);
    let mut outcome = Outcome {
        tally: Tally::default(),
        duration_s: 0.0,
        client_dropped: 0,
        xdp: None,
        series,
        interrupted: false,
    };
    let mut counts = XdpCounts::default();
    for worker in workers {
        let Done {
            books,
            dropped,
            xdp,
        } = match worker.join() {
            Ok(result) => result?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        outcome.tally.add(&books.tally);
        outcome.duration_s = outcome.duration_s.max(books.window.measured_s());
        outcome.client_dropped += dropped;
        outcome.interrupted |= books.window.stop_ns < window.stop_ns;
        counts.add(&xdp);
    }
    outcome.xdp = setup.map(|Setup { report, .. }| XdpOutcome {
        report,
        counts,
        idle_share: idle_share(counts.idle_ns, outcome.duration_s, plan.threads),
    });
    Ok(outcome)
}

/// Waits for the end of all workers. Meanwhile `progress` is told once a second how far they are; what came
/// of each stretch of time is returned.
pub(super) fn watch<T>(
    workers: &[JoinHandle<T>],
    lives: &[Arc<Live>],
    window: &Window,
    mut progress: impl FnMut(Duration, &Snapshot),
) -> Vec<Interval> {
    let mut sampler = Sampler::new(window);
    let mut next = PROGRESS_EVERY;
    while !workers.iter().all(JoinHandle::is_finished) {
        // Short enough that the end of a run is not noticed late.
        thread::sleep(Duration::from_millis(20));
        let now = now_ns();
        sampler.sample(now, || Snapshot::of(lives));
        let elapsed = Duration::from_nanos(now.saturating_sub(window.start_ns));
        if elapsed >= next {
            next += PROGRESS_EVERY;
            progress(elapsed, &Snapshot::of(lives));
        }
    }
    sampler.finish()
}

pub(super) fn idle_share(idle_ns: u64, duration_s: f64, threads: usize) -> f64 {
    let whole_ns = duration_s * 1e9 * threads as f64;
    if whole_ns > 0.0 {
        (idle_ns as f64 / whole_ns).min(1.0)
    } else {
        0.0
    }
}

/// What carries one thread's share.
enum Carrier {
    Kernel(Vec<UdpSocket>),
    Xdp(Box<XdpEngine>),
}

/// A carrier for each share, and what has to be kept while they are in use.
fn carriers(plan: &Plan, shares: &[usize]) -> Result<(Vec<Carrier>, Option<Setup>), String> {
    match &plan.engine {
        Engine::Kernel => {
            let mut sockets = open_flows(plan.target, plan.source, plan.flows)?;
            let share = |&flows| Carrier::Kernel(sockets.drain(..flows).collect());
            Ok((shares.iter().map(share).collect(), None))
        }
        Engine::Xdp(options) => {
            let mut setup = Setup::open(options, plan.target, plan.source, shares, plan.size)?;
            let engines = std::mem::take(&mut setup.engines).into_iter();
            let carriers = engines.map(|engine| Carrier::Xdp(Box::new(engine)));
            Ok((carriers.collect(), Some(setup)))
        }
    }
}

/// `total` dealt out to `parts`, the first ones getting one more where it does not divide.
pub(super) fn shares(total: usize, parts: usize) -> Vec<usize> {
    (0..parts)
        .map(|part| total / parts + usize::from(part < total % parts))
        .collect()
}

pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A mark that tells this run's datagrams from those of another: the clock and the process.
pub(super) fn run_number() -> u32 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    now.subsec_nanos() ^ std::process::id().rotate_left(16)
}

/// One thread's part of a run.
struct Worker {
    plan: Plan,
    index: usize,
    carrier: Carrier,
    books: Books,
    stop: Arc<AtomicBool>,
}

/// What a thread leaves behind.
struct Done {
    books: Books,
    dropped: u64,
    xdp: XdpCounts,
}

type WorkerResult = Result<Done, String>;

fn spawn(worker: Worker) -> Result<JoinHandle<WorkerResult>, String> {
    thread::Builder::new()
        .name(format!("load-{}", worker.index))
        .spawn(move || worker.run())
        .map_err(|error| format!("cannot start a thread: {error}"))
}

impl Worker {
    fn run(self) -> WorkerResult {
        let Self {
            plan,
            index,
            mut carrier,
            books,
            stop,
        } = self;
        if let Some(cpus) = &plan.cpus
            && let Some(&cpu) = cpus.as_slice().get(index)
        {
            pin_current_thread(cpu)?;
        }
        let start_ns = books.window.start_ns;
        // Threads are at most as many as flows, which are at most 65,535.
        let thread = u32::try_from(index).unwrap_or(u32::MAX);
        let threads = u32::try_from(plan.threads).unwrap_or(u32::MAX);
        let schedule =
            |arrivals, rate| Schedule::new(arrivals, rate, start_ns, thread, threads, plan.seed);
        let flows = match &carrier {
            Carrier::Kernel(sockets) => sockets.len(),
            Carrier::Xdp(engine) => engine.flow_count(),
        };
        match plan.kind {
            Kind::ClosedLoop => carrier.drive(ClosedLoop::new(books, flows), &plan, &stop),
            Kind::OpenLoop { rate, arrivals } => {
                let per_second = rate.per_second() / plan.threads as f64;
                let schedule = schedule(arrivals, rate);
                let load = OpenLoop::new(books, flows, schedule, per_second);
                carrier.drive(load, &plan, &stop)
            }
            Kind::Flood { rate } => {
                let schedule = rate.map(|rate| schedule(Arrivals::Constant, rate));
                carrier.drive(Flood::new(books, flows, schedule), &plan, &stop)
            }
        }
    }
}

impl Carrier {
    fn drive<L: Load>(&mut self, mut load: L, plan: &Plan, stop: &AtomicBool) -> WorkerResult {
        match self {
            Self::Kernel(sockets) => {
                KernelEngine::new::<L>(sockets, plan.size, plan.idle)
                    .and_then(|mut engine| engine.drive(&mut load, stop))
                    .map_err(|error| format!("waiting for replies failed: {error}"))?;
                // A kernel too old to say counts as none (SO_MEMINFO is in Linux since 4.12).
                let drops = |socket: &UdpSocket| receive_drops(socket).unwrap_or(0);
                Ok(Done {
                    books: load.into_books(),
                    dropped: sockets.iter().map(drops).sum(),
                    xdp: XdpCounts::default(),
                })
            }
            Self::Xdp(engine) => {
                let xdp = engine.drive(&mut load, plan.idle, stop)?;
                Ok(Done {
                    books: load.into_books(),
                    dropped: xdp.dropped,
                    xdp,
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_differ_by_one_at_most() {
        assert_eq!(shares(7, 3), [3, 2, 2]);
        assert_eq!(shares(4, 4), [1, 1, 1, 1]);
        assert_eq!(shares(9, 1), [9]);
    }

    #[test]
    fn idle_time_is_a_share_of_all_threads_time() {
        assert_eq!(idle_share(500_000_000, 0.5, 2), 0.5);
        assert_eq!(idle_share(500_000_001, 0.5, 1), 1.0);
        assert_eq!(idle_share(5, 0.0, 1), 0.0);
    }
}
