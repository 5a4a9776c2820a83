//! One worker: one thread, one core, one loop.
//!
//! * `turn` below is the loop's body: a packet's journey in six lines
//! * [`handoff`]: the queues between workers, for packets that came in on the wrong one
//! * [`command`]: what the control plane tells a worker, and what a worker asks of it
//! * [`idle`]: what a worker does when there is nothing to do
//! * [`clock`]: the one clock

pub mod clock;
pub mod command;
pub mod handoff;
pub mod idle;

use crate::driver::{Batch, Driver, Filled, Frame, Link};
use crate::handler::{Application, tcp, udp};
use crate::observe::latency::{Stage, WorkerLatency};
use crate::observe::snapshot::Publisher;
use crate::observe::sockets::Listing;
use command::{Command, Commands, Phase, Request, ServiceBind};
use handoff::Handoffs;
use idle::Idle;
use stack::counters::{DropCounters, DropReason, Event, EventCounters};
use stack::frame::{Frame as _, Stamps};
use stack::socket::bind::Bind;
use stack::tcp::pools::MemoryUse;
use stack::time::Instant;
use stack::udp::UdpSocketId;
use stack::{Origin, Stack};
use std::time::Duration;

/// What a worker counts, as the control plane sees it.
#[derive(Debug, Default)]
pub struct WorkerCounters {
    /// Why packets were dropped.
    pub drops: DropCounters,
    /// What else happened.
    pub events: EventCounters,
    /// What the loop did.
    pub turns: TurnCounters,
    /// How much of TCP there is now.
    pub tcp: TcpGauges,
    /// What the driver's queues say, as of the last question.
    pub queues: Vec<crate::driver::QueueStatistics>,
}

impl Clone for WorkerCounters {
    fn clone(&self) -> Self {
        let mut clone = Self::default();
        clone.clone_from(self);
        clone
    }

    /// Allocates only if `source` has more queues than there was ever room for: workers publish
    /// into a buffer that is used again and again.
    fn clone_from(&mut self, source: &Self) {
        let Self {
            drops,
            events,
            turns,
            tcp,
            queues,
        } = source;
        self.drops.clone_from(drops);
        self.events.clone_from(events);
        self.turns = *turns;
        self.tcp = *tcp;
        self.queues.clone_from(queues);
    }
}

/// How much of TCP there is now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpGauges {
    /// Connections beyond their handshake, or opened by us.
    pub connections: u64,
    /// Connections whose handshake a peer has begun.
    pub half_open: u64,
    /// Connections in TIME-WAIT.
    pub time_wait: u64,
    /// What is in use of the memory that they share.
    pub memory: MemoryUse,
}

/// What the loop did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TurnCounters {
    /// Turns of the loop.
    pub turns: u64,
    /// Turns that found a packet.
    pub turns_with_packets: u64,
    /// Sleeps in `poll`.
    pub sleeps: u64,
    /// Commands of the control plane carried out.
    pub commands: u64,
}

/// How a worker is set up.
#[derive(Debug)]
pub struct Options {
    /// Packets taken from the rings in one turn, at most.
    pub batch: usize,
    /// What to do when there is nothing to do.
    pub idle: Idle,
    /// Whether stages are timed.
    pub latency: bool,
    /// Datagrams that wait in a socket, at most.
    pub udp_queue: usize,
    /// TCP connections of each IP version, at most, as the stack was told.
    pub tcp_connections: u32,
    /// The same with NewReno.
    pub tcp_connections_new_reno: u32,
    /// How long a worker that is to end goes on with what it has, at most. What has not left by then,
    /// on a link that is down for one, is dropped and counted.
    pub drain: Duration,
}

/// One worker. Made on the control plane's thread, then run on its own.
pub struct Worker<D: Driver> {
    driver: D,
    stack: Stack<D>,
    listeners: Vec<Listener>,
    connections: tcp::Services,
    batch: Batch,
    handoffs: Handoffs,
    commands: Commands,
    publisher: Publisher<WorkerCounters>,
    latency: WorkerLatency,
    /// When the packets now being answered began their journey; see [`Worker::egress`].
    journeys: Vec<u64>,
    counters: WorkerCounters,
    /// Connections are being listed.
    listing: Option<Box<Listing>>,
    options: Options,
}

/// A socket of ours, what it was bound for, and what answers in it.
struct Listener {
    socket: UdpSocketId,
    bind: Bind,
    application: udp::Application,
}

/// Longest sleep of a worker that closes its connections: the last of them may be gone with no event.
const CLOSE_SLEEP_MAX: Duration = Duration::from_millis(1);
/// Longest sleep of a worker that drains: only the NIC's acknowledgements are waited for, of which no
/// socket tells.
const DRAIN_SLEEP_MAX: Duration = Duration::from_millis(1);
/// Commands carried out in one turn, at most: the data path comes first.
const COMMANDS_PER_TURN: usize = 16;

/// Times of one turn, in nanoseconds of `CLOCK_MONOTONIC`.
#[derive(Clone, Copy)]
struct Clocked {
    taken: u64,
    delivered: u64,
    answered: u64,
}

impl<D: Driver> Worker<D> {
    /// A worker without sockets.
    #[must_use]
    pub fn new(
        driver: D,
        stack: Stack<D>,
        handoffs: Handoffs,
        commands: Commands,
        (publisher, latency): (Publisher<WorkerCounters>, WorkerLatency),
        options: Options,
    ) -> Self {
        Self {
            batch: Batch::with_capacity(options.batch),
            // Everything that leaves in one turn came in one batch, or waited for room.
            journeys: Vec::with_capacity(JOURNEYS_MAX),
            listeners: Vec::new(),
            connections: tcp::Services::new(
                options.tcp_connections,
                options.tcp_connections_new_reno,
            ),
            counters: WorkerCounters::default(),
            listing: None,
            driver,
            stack,
            handoffs,
            commands,
            publisher,
            latency,
            options,
        }
    }

    /// Binds a service's listener here, or notes that other workers serve it.
    ///
    /// # Errors
    /// [`stack::socket::bind::BindError`].
    pub fn bind(&mut self, bind: &ServiceBind) -> Result<(), stack::socket::bind::BindError> {
        match bind.application {
            Application::Udp(application) if bind.here => {
                let socket = self.stack.udp_bind(bind.bind, self.options.udp_queue)?;
                self.listeners.push(Listener {
                    socket,
                    bind: bind.bind,
                    application,
                });
            }
            Application::Udp(_) => self.stack.udp_bind_elsewhere(bind.bind, bind.service)?,
            Application::Tcp(..) => {
                if let Some(spec) = tcp::ListenerSpec::of(bind) {
                    self.connections.listen(&mut self.stack, spec)?;
                }
            }
        }
        Ok(())
    }

    /// Runs until told to stop, and gives back what there is to report. The driver goes with it.
    /// Once it is told to drain or to stop, this returns within `options.drain`.
    #[must_use]
    pub fn run(mut self) -> (WorkerCounters, WorkerLatency) {
        let mut idle_since = None;
        let mut end_by = None;
        let mut entered = Phase::Serve;
        loop {
            // Asked before the turn: packets may have come while it looked elsewhere, and only a turn
            // that began when no more could come tells that there are none.
            let phase = self.commands.phase();
            if phase > entered {
                entered = phase;
                self.enter(phase);
            }
            let busy = self.turn();
            if phase == Phase::Close && self.stack.tcp_census()[0] == 0 {
                self.commands.report_closed();
            }
            if phase > Phase::Close && self.is_over(phase, busy, &mut end_by) {
                break;
            }
            if busy {
                idle_since = None;
                continue;
            }
            let now = clock::now_ns();
            let since = *idle_since.get_or_insert(now);
            let timeout = self.options.idle.sleep(now.saturating_sub(since));
            if let Some(timeout) = timeout.and_then(|timeout| self.until_timers(timeout, now)) {
                self.sleep(match phase {
                    Phase::Serve => timeout,
                    Phase::Close => timeout.min(CLOSE_SLEEP_MAX),
                    Phase::Drain | Phase::End => timeout.min(DRAIN_SLEEP_MAX),
                });
            }
        }
        self.stack.release_all(&mut self.driver);
        self.handoffs.close(&mut self.driver);
        self.update_counters();
        (self.counters, self.latency)
    }

    /// What begins with a phase.
    #[cold]
    fn enter(&mut self, phase: Phase) {
        let now = Instant::from_nanos(clock::now_ns());
        match phase {
            Phase::Serve => {}
            Phase::Close => self.connections.close(&mut self.stack, now),
            Phase::Drain | Phase::End => self.connections.end(&mut self.stack, now),
        }
    }

    /// How long to sleep so that no timer is late, `timeout` at most; none if one is due.
    #[inline]
    fn until_timers(&self, timeout: Duration, now_ns: u64) -> Option<Duration> {
        let now = Instant::from_nanos(now_ns);
        let timers = [
            self.stack.tcp_next_deadline(),
            self.connections.next_deadline(),
        ];
        let Some(next) = timers.into_iter().flatten().min() else {
            return Some(timeout);
        };
        let left = next.saturating_since(now);
        (!left.is_zero()).then_some(timeout.min(left))
    }

    /// Whether to end after a turn that began in `phase`. What is in the rings gets through, but
    /// nobody can keep us from ending: `end_by` is set when this is first asked.
    #[cold]
    fn is_over(&mut self, phase: Phase, busy: bool, end_by: &mut Option<u64>) -> bool {
        let now = clock::now_ns();
        let drain_ns = u64::try_from(self.options.drain.as_nanos()).unwrap_or(u64::MAX);
        let end_by = *end_by.get_or_insert(now.saturating_add(drain_ns));
        let done = !busy && self.stack.egress_len() == 0 && self.has_sent_everything();
        if done {
            self.commands.report_drained();
        }
        (done && phase == Phase::End) || now >= end_by
    }

    /// Whether the wire has everything that was put into the TX rings: closing a socket drops what
    /// is still in its ring.
    fn has_sent_everything(&mut self) -> bool {
        self.driver.statistics(&mut self.counters.queues);
        let mut queues = self.counters.queues.iter();
        queues.all(|queue| queue.tx_completions >= queue.tx_packets)
    }

    /// One turn of the loop; says whether there was anything to do.
    #[inline]
    pub fn turn(&mut self) -> bool {
        let begun = clock::now_ns();
        let now = Instant::from_nanos(begun);
        let carried = self.stack.egress_len(); // what found no room in the last turn
        let delivered_before = self.deliveries();
        let received = self.driver.rx(&mut self.batch, begun); // frames leave the RX rings
        let taken = self.clock_if(received > 0, begun);
        let handed = self.ingest(now, taken); // parse, demultiplex, UDP and TCP
        self.stack.expire(&mut self.driver, now); // timers that are due
        let delivered = self.clock_if(received + handed > 0, taken);
        let answers = self.serve(now); // the applications
        let answered = self.clock_if(answers > 0, delivered);
        let deliveries = self.deliveries() - delivered_before;
        self.record_input(
            deliveries,
            answers,
            Clocked {
                taken,
                delivered,
                answered,
            },
        );
        self.stack.tcp_transmit(&mut self.driver, now); // segments of connections
        let sent = self.egress(carried, answered); // packets into TX frames
        self.driver.flush(); // one kick, and only if the kernel asks for it
        let told = self.talk(now); // the control plane and the other workers
        self.counters.turns.turns += 1;
        self.counters.turns.turns_with_packets += u64::from(received > 0);
        received + handed + sent + told > 0
    }

    /// Datagrams that reached a socket, and segments that reached a connection, so far.
    #[inline]
    fn deliveries(&self) -> u64 {
        let events = self.stack.events();
        events.get(Event::UdpRx) + events.get(Event::TcpSegmentRx)
    }

    /// Gives the stack what was received here and what other workers handed over. Returns how many
    /// the latter were.
    #[inline]
    fn ingest(&mut self, now: Instant, taken: u64) -> usize {
        let Self {
            driver,
            stack,
            batch,
            latency,
            options,
            ..
        } = self;
        for mut frame in batch.drain() {
            if options.latency {
                // The driver knows when the turn began. Where it polls the NIC itself, packets came
                // after that.
                let arrival_ns = frame.stamps().arrival_ns;
                frame.set_stamps(Stamps {
                    arrival_ns,
                    taken_ns: taken,
                });
                if arrival_ns != 0 {
                    latency.record(Stage::ArrivalToTaken, taken.saturating_sub(arrival_ns));
                }
            }
            stack.ingest(driver, frame, Origin::Ring, now);
        }
        self.handoffs
            .receive(&mut self.stack, &mut self.driver, now)
    }

    #[inline]
    fn serve(&mut self, now: Instant) -> u64 {
        let Self {
            driver,
            stack,
            listeners,
            connections,
            ..
        } = self;
        let datagrams: u64 = listeners
            .iter()
            .map(|listener| {
                listener
                    .application
                    .serve(stack, driver, listener.socket, now)
            })
            .sum();
        datagrams + connections.serve(stack, now)
    }

    /// Hands what the stack has to send to the driver. The TX ring is where a packet's journey ends
    /// as far as we time it. The first `carried` were answered in an earlier turn: their last stage
    /// cannot be told from here, their whole journey can.
    #[inline]
    fn egress(&mut self, carried: usize, answered: u64) -> usize {
        let Self {
            driver,
            stack,
            latency,
            journeys,
            options,
            ..
        } = self;
        if !options.latency {
            return stack.egress(|frame| driver.tx(frame));
        }
        let sent = stack.egress(|frame: Frame<Filled>| {
            let Stamps {
                arrival_ns,
                taken_ns,
            } = frame.stamps();
            let begun = if arrival_ns == 0 {
                taken_ns
            } else {
                arrival_ns
            };
            driver.tx(frame)?;
            if begun != 0 && journeys.len() < JOURNEYS_MAX {
                journeys.push(begun);
            }
            Ok(())
        });
        if !journeys.is_empty() {
            let now = clock::now_ns();
            let count = journeys.len().saturating_sub(carried) as u64;
            if count > 0 {
                let ns = now.saturating_sub(answered);
                latency.record_n(Stage::AnsweredToTransmitted, ns, count);
            }
            for begun in journeys.drain(..) {
                latency.record(Stage::Whole, now.saturating_sub(begun));
            }
        }
        sent
    }

    /// Reads the clock if stages are timed and `worth` it; else `otherwise`.
    #[inline]
    fn clock_if(&self, worth: bool, otherwise: u64) -> u64 {
        if worth && self.options.latency {
            clock::now_ns()
        } else {
            otherwise
        }
    }

    /// The stages that a batch passes as one.
    #[inline]
    fn record_input(&mut self, deliveries: u64, answers: u64, clocked: Clocked) {
        if !self.options.latency {
            return;
        }
        let Clocked {
            taken,
            delivered,
            answered,
        } = clocked;
        if deliveries > 0 {
            let ns = delivered.saturating_sub(taken);
            self.latency
                .record_n(Stage::TakenToDelivered, ns, deliveries);
        }
        if answers > 0 {
            let ns = answered.saturating_sub(delivered);
            self.latency
                .record_n(Stage::DeliveredToAnswered, ns, answers);
        }
    }

    /// Everything that is not a packet of ours. Returns how much there was of it.
    #[inline]
    fn talk(&mut self, now: Instant) -> usize {
        let mut told = self.handoffs.send(&mut self.stack, &mut self.driver);
        while let Some(neighbor) = self.stack.next_wanted_neighbor() {
            self.commands.request(Request::Neighbor(neighbor));
        }
        for _ in 0..COMMANDS_PER_TURN {
            let Some(command) = self.commands.next() else {
                break;
            };
            self.obey(command, now);
            self.counters.turns.commands += 1;
            told += 1;
        }
        if let Some(listing) = self.listing.take() {
            self.listing = listing.go_on(&self.stack);
            told += 1;
        }
        if self.publisher.is_asked() {
            self.update_counters();
            self.publisher.publish(&self.counters, &mut self.latency);
        }
        told
    }

    #[cold]
    fn obey(&mut self, command: Command, now: Instant) {
        match command {
            Command::Link(link) => {
                let old = self.stack.set_link(link, now);
                self.commands.request(Request::Drop(old));
            }
            Command::Neighbor(update) => self.stack.set_neighbor(&mut self.driver, update),
            Command::Services { binds, served_by } => {
                self.handoffs.set_services(served_by);
                self.rebind(&binds, now);
            }
            // One that was under way is given up: who asked will hear that.
            Command::Sockets(listing) => self.listing = Some(listing),
            Command::Connect(dials) => self.connections.redial(&mut self.stack, &dials, now),
        }
    }

    /// Closes listeners that are not among `binds` and binds those that are new.
    fn rebind(&mut self, binds: &[ServiceBind], now: Instant) {
        let Self {
            driver,
            stack,
            listeners,
            connections,
            ..
        } = self;
        // A service's number changes when others come and go; that is no reason to close it.
        let same = |listener: &Listener, bind: &ServiceBind| {
            let application = Application::Udp(listener.application);
            bind.here && listener.bind == bind.bind && application == bind.application
        };
        listeners.retain(|listener| {
            let stays = binds.iter().any(|bind| same(listener, bind));
            if !stays {
                stack.udp_close(driver, listener.socket);
            }
            stays
        });
        let specs: Vec<_> = binds.iter().filter_map(tcp::ListenerSpec::of).collect();
        for (spec, error) in connections.relisten(stack, &specs, now) {
            tracing::error!("cannot listen on {}: {error}", spec.bind.local);
        }
        self.stack.udp_unbind_elsewhere();
        for bind in binds {
            let known = self.listeners.iter().any(|listener| same(listener, bind));
            if known || matches!(bind.application, Application::Tcp(..)) {
                continue;
            }
            // The configuration was checked for conflicts; only limits.udp_sockets is left.
            if let Err(error) = self.bind(bind) {
                tracing::error!("cannot listen on {}: {error}", bind.bind.local);
            }
        }
    }

    #[cold]
    fn update_counters(&mut self) {
        self.counters.drops.clone_from(self.stack.drops());
        self.counters.events.clone_from(self.stack.events());
        let [connections, half_open, time_wait] = self.stack.tcp_census().map(|n| n as u64);
        self.counters.tcp = TcpGauges {
            connections,
            half_open,
            time_wait,
            memory: self.stack.tcp_memory(),
        };
        self.driver.statistics(&mut self.counters.queues);
    }

    #[cold]
    fn sleep(&mut self, timeout: Duration) {
        self.counters.turns.sleeps += 1;
        self.driver.wait(timeout);
        if self.driver.link() == Link::Gone {
            self.commands.request(Request::DriverGone);
        }
    }
}

/// Packets of one turn whose whole journey is timed, at most. A turn sends one batch, and more only
/// when the TX ring had been full.
const JOURNEYS_MAX: usize = 4096;

/// A packet dropped by the worker itself, on the stack's account.
fn count_drop<D: Driver>(stack: &mut Stack<D>, reason: DropReason) {
    stack.drops_mut().count(reason);
}

/// Something the worker did, on the stack's account.
fn count_event<D: Driver>(stack: &mut Stack<D>, event: Event) {
    stack.events_mut().count(event);
}
