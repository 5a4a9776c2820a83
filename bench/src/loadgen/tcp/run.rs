//! A run from start to finish: threads, connections, and the counts of all threads together.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::crowd::{Crowd, Manner};
use super::dialogue::{Bulk, Dialogue, Direction, Exchange};
use super::http::{Http, Request};
use super::kernel::KernelTransport;
use super::rogue::{Misbehavior, RogueSpec, Rogues};
use super::sources::{Ports, Sources};
use super::tally::{Ledger, Tally};
use super::transport::{Ending, Transport};
use super::xdp::XdpSetup;
use super::xdp::transport::XdpTransport;
use crate::clock::now_ns;
use crate::cpu::{CpuList, pin_current_thread};
use crate::loadgen::kernel::Idle;
use crate::loadgen::live::{Live, Snapshot};
use crate::loadgen::load::Window;
use crate::loadgen::pacing::{Arrivals, Rate, Schedule};
use crate::loadgen::run::{
    Engine, START_DELAY_NS, XdpOutcome, idle_share, nanoseconds, run_number, shares, watch,
};
use crate::loadgen::size::Sizes;
use crate::loadgen::xdp::engine::XdpCounts;
use crate::socket::allow_open_sockets;

/// What is done over the connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Requests and replies.
    Exchange {
        /// Bytes of a request.
        sizes: Sizes,
        /// Bytes of a reply, to be asked of `loadgen serve`; echoes, if none.
        reply_sizes: Option<Sizes>,
        /// A connection for each (`tcp-crr`), or kept (`tcp-rr`).
        fresh: bool,
    },
    /// Bytes without end.
    Stream {
        /// Which way.
        direction: Direction,
        /// Bytes of one write.
        write: u32,
        /// Whether what comes is compared.
        verify: bool,
    },
    /// HTTP.
    Http(Box<Request>),
}

impl Mode {
    /// Its name on the command line and in JSON.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Exchange { fresh: false, .. } => "tcp-rr",
            Self::Exchange { fresh: true, .. } => "tcp-crr",
            Self::Stream { .. } => "tcp-stream",
            Self::Http(_) => "http",
        }
    }

    /// Whether every request has a connection of its own.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        match self {
            Self::Exchange { fresh, .. } => *fresh,
            Self::Stream { .. } => false,
            Self::Http(request) => !request.keep_alive,
        }
    }
}

/// Everything a run needs to know.
#[derive(Clone, Debug)]
pub struct TcpPlan {
    /// What is done.
    pub mode: Mode,
    /// Of an open loop: the rate of all threads together, and how requests are spread.
    pub pace: Option<(Rate, Arrivals)>,
    /// Where it goes.
    pub target: SocketAddr,
    /// Addresses to connect from; the kernel's choice if none.
    pub addresses: Vec<IpAddr>,
    /// Ports to connect from; the kernel's choice if none.
    pub ports: Option<Ports>,
    /// Connections, of all threads together; at least one for each. With a connection for each request:
    /// how many there are at once.
    pub connections: u32,
    /// First openings a second, of all threads together.
    pub connect_rate: Rate,
    /// How connections of one request are ended.
    pub ending: Ending,
    /// Clients that mean no good.
    pub rogues: Vec<RogueSpec>,
    /// Threads; at least one.
    pub threads: usize,
    /// CPUs to pin the threads to, one each.
    pub cpus: Option<CpuList>,
    /// Counted time.
    pub duration: Duration,
    /// Time between the last first opening and that.
    pub warmup: Duration,
    /// Longest time a handshake and a reply may take.
    pub timeout: Duration,
    /// For sizes, patterns and arrivals.
    pub seed: u64,
    /// What threads do while nothing is due.
    pub idle: Idle,
    /// What carries it.
    pub engine: Engine,
}

impl TcpPlan {
    /// How long it takes to open all connections.
    #[must_use]
    pub fn ramp(&self) -> Duration {
        if self.mode.is_fresh() && self.pace.is_some() {
            // Connections are opened when requests are due.
            return Duration::ZERO;
        }
        Duration::from_secs_f64(f64::from(self.connections) / self.connect_rate.per_second())
    }

    /// Misbehaving clients, of all kinds.
    #[must_use]
    pub fn rogue_count(&self) -> u32 {
        let counts = self.rogues.iter().map(|spec| spec.count);
        counts.fold(0, u32::saturating_add)
    }
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct TcpOutcome {
    /// The counts of all threads.
    pub tally: Tally,
    /// Length of the counted time in seconds; shorter than planned after Ctrl-C.
    pub duration_s: f64,
    /// What the xdp engine obtained and counted.
    pub xdp: Option<XdpOutcome>,
    /// How it went over time.
    pub series: Vec<crate::loadgen::series::Interval>,
    /// Whether the run ended early.
    pub interrupted: bool,
}

/// Carries out a plan. `progress` is called once a second with the time since the first connection and all
/// counts so far; setting `stop` ends the run early.
///
/// # Errors
/// A sentence that says what could not be set up, or what made it impossible to go on.
pub fn run(
    plan: &TcpPlan,
    stop: &Arc<AtomicBool>,
    progress: impl FnMut(Duration, &Snapshot),
) -> Result<TcpOutcome, String> {
    let parts = parts(plan);
    let (carriers, setup) = carriers(plan, &parts)?;
    let start_ns = now_ns() + START_DELAY_NS;
    let ramp_ns = nanoseconds(plan.ramp());
    let measure_ns = start_ns
        .saturating_add(ramp_ns)
        .saturating_add(nanoseconds(plan.warmup));
    let window = Window {
        start_ns,
        measure_ns,
        stop_ns: measure_ns.saturating_add(nanoseconds(plan.duration)),
    };
    let run = u64::from(run_number());
    let mut lives = Vec::new();
    let mut workers = Vec::new();
    for (index, (part, carrier)) in parts.into_iter().zip(carriers).enumerate() {
        let live = Arc::new(Live::default());
        lives.push(Arc::clone(&live));
        let worker = Worker {
            plan: plan.clone(),
            index,
            part,
            ledger: Ledger {
                window,
                tally: Tally::default(),
                live,
            },
            requests_from_ns: start_ns.saturating_add(ramp_ns),
            seed: plan.seed ^ run.rotate_left(24) ^ (index as u64).rotate_right(16),
            stop: Arc::clone(stop),
        };
        workers.push(spawn(worker, carrier)?);
    }
    let series = watch(&workers, &lives, &window, progress);
    let mut outcome = TcpOutcome {
        tally: Tally::default(),
        duration_s: 0.0,
        xdp: None,
        series,
        interrupted: false,
    };
    let mut counts = XdpCounts::default();
    for worker in workers {
        let (ledger, xdp) = match worker.join() {
            Ok(result) => result?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        outcome.tally.add(&ledger.tally);
        outcome.duration_s = outcome.duration_s.max(ledger.window.measured_s());
        outcome.interrupted |= ledger.window.stop_ns < window.stop_ns;
        counts.add(&xdp);
    }
    outcome.xdp = setup.map(|setup| XdpOutcome {
        report: setup.report.clone(),
        counts,
        idle_share: idle_share(counts.idle_ns, outcome.duration_s, plan.threads),
    });
    Ok(outcome)
}

/// One thread's share of the plan.
pub(super) struct Part {
    pub(super) connections: u32,
    rogues: Vec<Misbehavior>,
}

impl Part {
    /// Slots its transport has.
    pub(super) fn slots(&self) -> usize {
        self.connections as usize + self.rogues.len()
    }
}

fn parts(plan: &TcpPlan) -> Vec<Part> {
    let rogues: Vec<Misbehavior> = plan
        .rogues
        .iter()
        .flat_map(|spec| std::iter::repeat_n(spec.misbehavior, spec.count as usize))
        .collect();
    shares(plan.connections as usize, plan.threads)
        .into_iter()
        .enumerate()
        .map(|(thread, connections)| Part {
            // A share of a number of 32 bits.
            connections: u32::try_from(connections).unwrap_or(u32::MAX),
            rogues: rogues
                .iter()
                .skip(thread)
                .step_by(plan.threads)
                .copied()
                .collect(),
        })
        .collect()
}

enum Carrier {
    /// Where its connections come from; sockets are the thread's own affair.
    Kernel(Sources),
    Xdp(Box<XdpTransport>),
}

/// A transport for each part, and what has to be kept while they are in use.
fn carriers(plan: &TcpPlan, parts: &[Part]) -> Result<(Vec<Carrier>, Option<XdpSetup>), String> {
    let slots: Vec<usize> = parts.iter().map(Part::slots).collect();
    match &plan.engine {
        Engine::Kernel => {
            allow_open_sockets(slots.iter().sum())?;
            let threads = u32::try_from(parts.len()).unwrap_or(u32::MAX);
            let carrier = |thread: u32| {
                let ports = match &plan.ports {
                    Some(ports) => Some(ports.share(thread, threads).ok_or_else(|| {
                        format!("--ports {ports} are fewer than the {threads} threads")
                    })?),
                    None => None,
                };
                Ok(Carrier::Kernel(Sources::new(&plan.addresses, ports)))
            };
            let carriers = (0..threads).map(carrier).collect::<Result<_, String>>()?;
            Ok((carriers, None))
        }
        Engine::Xdp(options) => {
            let (transports, setup) = XdpSetup::open(options, plan, &slots)?;
            let carriers = transports
                .into_iter()
                .map(|transport| Carrier::Xdp(Box::new(transport)));
            Ok((carriers.collect(), Some(setup)))
        }
    }
}

/// One thread's part of a run.
struct Worker {
    plan: TcpPlan,
    index: usize,
    part: Part,
    ledger: Ledger,
    /// When the first request of an open loop is due.
    requests_from_ns: u64,
    seed: u64,
    stop: Arc<AtomicBool>,
}

type WorkerResult = Result<(Ledger, XdpCounts), String>;

fn spawn(worker: Worker, carrier: Carrier) -> Result<JoinHandle<WorkerResult>, String> {
    thread::Builder::new()
        .name(format!("load-{}", worker.index))
        .spawn(move || match carrier {
            Carrier::Kernel(sources) => {
                let slots = worker.part.slots();
                let transport = KernelTransport::new(worker.plan.target, sources, slots)
                    .map_err(|error| format!("cannot wait for sockets: {error}"))?;
                let (ledger, _) = worker.run(transport)?;
                Ok((ledger, XdpCounts::default()))
            }
            Carrier::Xdp(transport) => {
                let (ledger, transport) = worker.run(*transport)?;
                Ok((ledger, transport.finish()))
            }
        })
        .map_err(|error| format!("cannot start a thread: {error}"))
}

impl Worker {
    fn run<T: Transport>(self, transport: T) -> Result<(Ledger, T), String> {
        if let Some(cpus) = &self.plan.cpus
            && let Some(&cpu) = cpus.as_slice().get(self.index)
        {
            pin_current_thread(cpu)?;
        }
        let seed = self.seed;
        match self.plan.mode.clone() {
            Mode::Exchange {
                sizes, reply_sizes, ..
            } => self.drive(transport, Exchange::new(sizes, reply_sizes, seed)),
            Mode::Stream {
                direction,
                write,
                verify,
            } => self.drive(transport, Bulk::new(direction, write, verify, seed)),
            Mode::Http(request) => self.drive(transport, Http::new(&request)),
        }
    }

    fn drive<T: Transport, D: Dialogue>(
        self,
        transport: T,
        mut dialogue: D,
    ) -> Result<(Ledger, T), String> {
        let Self {
            plan,
            index,
            part,
            ledger,
            requests_from_ns,
            seed: _,
            stop,
        } = self;
        // Threads are at most as many as connections.
        let thread = u32::try_from(index).unwrap_or(u32::MAX);
        let threads = u32::try_from(plan.threads).unwrap_or(u32::MAX);
        let schedule = plan.pace.map(|(rate, arrivals)| {
            Schedule::new(arrivals, rate, requests_from_ns, thread, threads, plan.seed)
        });
        let ramp_interval_ns = nanoseconds(Duration::from_secs_f64(
            plan.threads as f64 / plan.connect_rate.per_second(),
        ));
        let manner = Manner {
            fresh: plan.mode.is_fresh(),
            ending: plan.ending,
            timeout_ns: nanoseconds(plan.timeout),
            ramp_interval_ns,
            idle: plan.idle,
        };
        let rogues = Rogues::new(
            &part.rogues,
            part.connections,
            dialogue.sample(),
            ledger.window.start_ns,
            ramp_interval_ns,
        );
        let crowd = Crowd::new(
            transport,
            dialogue,
            ledger,
            manner,
            schedule,
            part.connections,
            rogues,
        );
        crowd.run(&stop)
    }
}
