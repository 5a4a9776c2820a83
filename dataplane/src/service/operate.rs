//! The control thread's loop: everything that is not a packet.

use super::bring_up::{Opened, WorkerHandle};
use super::multicast::Memberships;
use super::ports::{self, Reservation};
use super::{ServiceError, bring_up, doctor, links, machine, observing};
use crate::control::calls::{Call, calls};
use crate::control::metrics::MetricsServer;
use crate::control::netlink::{Mirror, MirrorEvent, MirrorHandle};
use crate::control::server::Server;
use crate::control::signals::{SignalEvent, Signals};
use crate::driver::{AttachMode, Interface};
use crate::observe::hgrm;
use crate::observe::observation::Observation;
use crate::observe::report::{LatencyReport, plural};
use crate::steering::{Capacity, RuleSet, Steering, SteeringConfig, SteeringError};
use crate::worker::command::{Command, Request};
use config::Config;
use stack::link::{LinkState, NeighborUpdate};
use std::collections::HashSet;
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{Notify, mpsc};

/// The service while it runs.
pub(super) struct Service {
    pub(super) config: Config,
    pub(super) path: PathBuf,
    pub(super) interface: Interface,
    pub(super) steering: Steering,
    /// The rules in force.
    pub(super) rules: RuleSet,
    pub(super) workers: Vec<WorkerHandle>,
    pub(super) mirror: MirrorHandle,
    pub(super) link: LinkState,
    pub(super) neighbors: HashSet<IpAddr>,
    pub(super) notes: Vec<String>,
    pub(super) attached: AttachMode,
    pub(super) started: Instant,
    pub(super) started_at: SystemTime,
    pub(super) cost: observing::Cost,
    pub(super) conflicts: observing::Conflicts,
    /// Packets were ours at some time: there is something to report.
    served: bool,
    /// The ports of connections that services open, while one of them does.
    pub(super) reservation: Option<Reservation>,
    _memberships: Memberships,
}

/// Changes of link and neighbours that may wait for the control thread.
const MIRROR_QUEUE: usize = 256;
/// How often the control thread looks after what nobody tells it: workers that died, full queues.
const TICK: Duration = Duration::from_millis(100);
/// How long packets that are already in the rings have to get through after steering is off. A
/// full ring of 2048 packets takes 2 ms at a million a second.
const DRAIN: Duration = Duration::from_millis(20);
/// How long a worker may take from its last turn to its end: it frees its memory and closes its
/// sockets, for which the kernel waits until no packet is on its way to them (`synchronize_net`:
/// some 10 ms, hundreds on a loaded machine). One that takes longer is left behind, and goes with
/// the process.
const ENDING: Duration = Duration::from_secs(2);
/// How long a report may take to be printed and written. It takes milliseconds where there is a
/// reader and a disk.
const PRINTING: Duration = Duration::from_secs(2);

/// Brings the service up, runs it, takes it down.
pub(super) async fn operate(config: Config, path: &Path) -> Result<(), ServiceError> {
    let mut signals = Signals::new().map_err(|error| ServiceError::os("take signals", error))?;
    let mut steering = Steering::load(&SteeringConfig {
        vlan: config.interface.vlan.clone(),
        capacity: capacity(&config),
    })?;
    let interface = tokio::select! {
        interface = machine::wait_for_carrier(&config) => interface?,
        _ = signals.next() => return Ok(()),
    };
    if let Some(finding) = doctor::stripped_vlan_tags(&config, &interface) {
        return Err(ServiceError::Lost(finding));
    }
    let machine = machine::look(&config)?;
    let (mirror, mirror_handle) = Mirror::open(machine::mirror_config(&config)).await?;
    let (opened, refusals) = Opened::open(&config, &machine, &mut steering)?;
    for refusal in &refusals {
        tracing::info!("{refusal}");
    }
    let own: Vec<IpAddr> = config
        .services
        .iter()
        .flat_map(|service| service.own_addresses.iter().map(|own| own.address))
        .collect();
    let memberships = Memberships::join(interface.index, &own)?;
    opened.register(&mut steering)?;
    let attached = opened.attempt.attach;
    let reservation = config
        .opens_connections()
        .then(|| Reservation::take(config.tcp.ports))
        .transpose()?;
    let notify = Arc::new(Notify::new());
    let workers = opened.start(&config, mirror.outer_tag_type(), &notify)?;
    leave_cores_to(&workers);

    let (events_in, mut events) = mpsc::channel(MIRROR_QUEUE);
    let follow = mirror.run(events_in);
    tokio::pin!(follow);

    let mut service = Service {
        config,
        path: path.to_owned(),
        interface,
        steering,
        rules: RuleSet::default(),
        workers,
        mirror: mirror_handle,
        link: LinkState::default(),
        neighbors: HashSet::new(),
        notes: refusals,
        attached,
        started: Instant::now(),
        started_at: SystemTime::now(),
        cost: observing::Cost::default(),
        conflicts: observing::Conflicts::default(),
        served: false,
        reservation,
        _memberships: memberships,
    };

    let outcome = tokio::select! {
        outcome = service.serve(&mut events, &notify, &mut signals) => outcome,
        ended = &mut follow => Err(mirror_ended(ended)),
    };
    service.shut_down(&mut signals).await;
    outcome
}

/// Rules that people write fit the default. The ports of connections that services open are two rules each,
/// IPv4 and IPv6; a reload may bring the first of them.
fn capacity(config: &Config) -> Capacity {
    let default = Capacity::default();
    Capacity {
        ports: default.ports + 2 * config.tcp.ports.count(),
        ..default
    }
}

fn mirror_ended(ended: Result<(), crate::control::netlink::MirrorError>) -> ServiceError {
    match ended {
        Ok(()) => ServiceError::Lost("the netlink mirror ended".into()),
        Err(error) => error.into(),
    }
}

/// Moves the control thread off the workers' cores, where there are others.
fn leave_cores_to(workers: &[WorkerHandle]) {
    let taken = |core: &usize| workers.iter().any(|worker| worker.core == *core);
    let others: Vec<usize> = machine::cores()
        .into_iter()
        .filter(|core| !taken(core))
        .collect();
    if others.is_empty() {
        return;
    }
    let mut set = rustix::thread::CpuSet::new();
    others.iter().for_each(|core| set.set(*core));
    if let Err(errno) = rustix::thread::sched_setaffinity(None, &set) {
        tracing::warn!("the control thread stays on the workers' cores: {errno}");
    }
}

impl Service {
    /// Takes over the interface and serves until told to stop.
    async fn serve(
        &mut self,
        events: &mut mpsc::Receiver<MirrorEvent>,
        notify: &Notify,
        signals: &mut Signals,
    ) -> Result<(), ServiceError> {
        // The link has to be known, and sockets bound, before the first packet comes.
        let event = events.recv().await;
        self.mirrored(event)?;
        self.settle().await;
        // Whatever can fail fails before the first packet is taken from the kernel.
        self.check_ports(&self.config)?;
        let (handle, mut asked) = calls();
        // A task of its own, which ends with the runtime: `stop` is answered while the service drains.
        tokio::spawn(Server::bind(&self.config.control.socket)?.serve(handle.clone()));
        let metrics = self.metrics(handle).await?;
        tokio::pin!(metrics);
        self.steering.set_enabled(true)?;
        self.served = true;
        // Only now does what comes back come here.
        self.dial();
        self.announce_ready();

        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    SignalEvent::Drain | SignalEvent::Abort => return Ok(()),
                    SignalEvent::Report => self.report().await,
                    SignalEvent::Reload => self.reload_and_log().await,
                },
                event = events.recv() => self.mirrored(event)?,
                () = notify.notified() => self.hear_workers()?,
                Some(call) = asked.recv() => match call {
                    Call::Observe(answer) => {
                        let observation = self.observe().await;
                        let _ = answer.send(observation);
                    }
                    Call::Sockets(query, answer) => {
                        let report = self.sockets(query).await;
                        let _ = answer.send(report);
                    }
                    Call::Reload(answer) => {
                        let _ = answer.send(self.reload().await);
                    }
                    Call::Stop(answer) => {
                        let _ = answer.send(());
                        return Ok(());
                    }
                },
                _ = tick.tick() => self.look_after()?,
                () = &mut metrics => {}
            }
        }
    }

    /// Refuses ports for connections of services that the kernel's sockets have.
    pub(super) fn check_ports(&self, config: &Config) -> Result<(), ServiceError> {
        if !config.opens_connections() {
            return Ok(());
        }
        ports::check_unused(config.tcp.ports, &links::shared(&self.link))
    }

    /// Has the workers open the connections of the configuration, and no others.
    pub(super) fn dial(&mut self) {
        let count = self.workers.len();
        for worker in &mut self.workers {
            let dials = bring_up::dials(&self.config, worker.index, count);
            worker.tell(Command::Connect(dials));
        }
    }

    /// Takes over new rules, if they are new.
    pub(super) fn steer(&mut self, rules: RuleSet) -> Result<(), SteeringError> {
        if rules != self.rules {
            self.steering.set_rules(&rules)?;
            self.rules = rules;
        }
        Ok(())
    }

    fn announce_ready(&self) {
        let report = &self.workers[0].report;
        for worker in &self.workers {
            tracing::info!(
                "worker {} on core {}: queues {:?}",
                worker.index,
                worker.core,
                worker.report.queues
            );
        }
        for service in &self.config.services {
            let (name, application, protocol) =
                (&service.name, service.application, service.protocol);
            for local in &service.listen {
                tracing::info!("service {name}: {application} on {protocol} {local}");
            }
            for remote in &service.connect {
                let connections = plural(service.connections as usize, "connection");
                tracing::info!(
                    "service {name}: {application} to {protocol} {remote}, {connections}"
                );
            }
        }
        tracing::info!(
            "ready: {} ({}) in {} mode, huge pages {}, {}",
            self.interface.name,
            self.interface.driver,
            report.mode,
            if report.huge_pages { "on" } else { "off" },
            plural(self.config.services.len(), "service"),
        );
    }

    /// Serves metrics until dropped; without an address, waits for ever.
    async fn metrics(
        &self,
        handle: crate::control::calls::ControlHandle,
    ) -> Result<impl Future<Output = ()> + use<>, ServiceError> {
        let server = match self.config.control.metrics {
            None => None,
            Some(address) => Some(
                MetricsServer::bind(address)
                    .await
                    .map_err(|error| ServiceError::os("serve metrics", error))?,
            ),
        };
        Ok(async move {
            match server {
                None => std::future::pending().await,
                Some(server) => server.serve(handle).await,
            }
        })
    }

    /// Takes in what the kernel's tables say.
    fn mirrored(&mut self, event: Option<MirrorEvent>) -> Result<(), ServiceError> {
        match event {
            // The mirror ends for a reason that it gives elsewhere.
            None => Ok(()),
            Some(MirrorEvent::Link(link)) => {
                self.link = links::with_own_addresses(link, &self.config);
                self.steering.set_mac(self.link.mac)?;
                self.steering.set_locals(&links::locals(&self.link))?;
                self.steer(links::rules(&self.config, &self.link))?;
                for worker in &mut self.workers {
                    worker.tell(Command::Link(Box::new(self.link.clone())));
                }
                Ok(())
            }
            Some(MirrorEvent::Neighbor(update)) => {
                match update {
                    NeighborUpdate::Set { address, mac: _ } => self.neighbors.insert(address),
                    NeighborUpdate::Remove { address } => self.neighbors.remove(&address),
                };
                for worker in &mut self.workers {
                    worker.tell(Command::Neighbor(update));
                }
                Ok(())
            }
            Some(MirrorEvent::Gone) => Err(self.gone()),
        }
    }

    fn gone(&self) -> ServiceError {
        ServiceError::Lost(format!(
            "the interface {} is gone; start again when it is back",
            self.interface.name
        ))
    }

    /// What the workers ask for.
    fn hear_workers(&mut self) -> Result<(), ServiceError> {
        for worker in &self.workers {
            while let Some(request) = worker.commander.next_request() {
                match request {
                    // Full only when the kernel is slow; the stack asks again in a second.
                    Request::Neighbor(address) => {
                        self.mirror.request_neighbor(address);
                    }
                    Request::Drop(old) => drop(old),
                    Request::DriverGone => return Err(self.gone()),
                }
            }
        }
        Ok(())
    }

    /// What nobody tells.
    fn look_after(&mut self) -> Result<(), ServiceError> {
        for worker in &mut self.workers {
            worker.flush_backlog();
            if worker.thread.as_ref().is_some_and(JoinHandle::is_finished) {
                return Err(ServiceError::Lost(format!(
                    "worker {} died; its queues went back to the kernel, and so does the rest",
                    worker.index
                )));
            }
        }
        self.cost.tick(&mut self.steering);
        self.look_for_conflicts();
        Ok(())
    }

    /// Prints the latency report, and writes its files.
    async fn report(&mut self) {
        let observation = self.observe().await;
        self.print(observation).await;
    }

    /// Prints and writes on a thread of its own: neither a pipe that nobody reads nor a file system
    /// that hangs keeps the service from going on, or from ending.
    async fn print(&self, observation: Observation) {
        let latency = &self.config.latency;
        let (enabled, directory) = (latency.enabled, latency.directory.clone());
        let print = move || print(&observation, enabled, directory.as_deref());
        let printing = match std::thread::Builder::new()
            .name("report".into())
            .spawn(print)
        {
            Ok(printing) => printing,
            Err(error) => {
                tracing::error!("the report could not be printed: {error}");
                return;
            }
        };
        let deadline = tokio::time::Instant::now() + PRINTING;
        wait_until(deadline, || printing.is_finished()).await;
        if !printing.is_finished() {
            tracing::warn!("nobody takes the report: it is not waited for");
        }
    }

    async fn reload_and_log(&mut self) {
        match self.reload().await {
            Ok(changed) => tracing::info!("reload: {changed}"),
            Err(error) => tracing::error!("reload refused, nothing changed: {error}"),
        }
    }

    /// Gives the interface back and ends the workers; what is in the rings gets through first,
    /// unless a second signal says that there is no time for that.
    ///
    /// Every wait in here has an end: for workers in `end_workers`, for whoever reads the report in
    /// `print`. Threads are joined only once they have ended, and what is left are system calls that
    /// wait for nobody outside the kernel (a map is written, a link is detached, sockets are closed).
    async fn shut_down(mut self, signals: &mut Signals) {
        tracing::info!("draining");
        tokio::select! {
            () = self.close_connections() => {}
            () = aborted(signals) => {
                tracing::warn!("told to end at once");
                self.steering.detach();
                return;
            }
        }
        if let Err(error) = self.steering.set_enabled(false) {
            tracing::error!("steering could not be switched off: {error}");
            self.steering.detach();
        }
        tokio::select! {
            () = self.end_workers() => {}
            () = aborted(signals) => {
                tracing::warn!("told to end at once");
                self.steering.detach();
                return;
            }
        }
        self.steering.detach();
        if self.served {
            self.print(self.observed()).await;
        }
    }

    /// Closes the connections there are, while their segments still come to us. Takes no longer than
    /// `workers.drain_ms`; those that are left are reset when the workers drain.
    async fn close_connections(&mut self) {
        for worker in &self.workers {
            worker.commander.close();
        }
        let patience = Duration::from_millis(self.config.workers.drain_ms.into());
        let deadline = tokio::time::Instant::now() + patience;
        wait_until(deadline, || {
            self.workers
                .iter()
                .all(|worker| worker.commander.has_closed() || worker.has_ended())
        })
        .await;
    }

    /// Ends the workers in two steps: all are idle before any ends, so that none is gone while
    /// another still has packets for it. Takes no longer than `workers.drain_ms` and [`ENDING`].
    async fn end_workers(&mut self) {
        tokio::time::sleep(DRAIN).await;
        for worker in &self.workers {
            worker.commander.drain();
        }
        // Workers count their own time from when they hear of it; then they end, drained or not.
        let patience = Duration::from_millis(self.config.workers.drain_ms.into());
        let deadline = tokio::time::Instant::now() + patience;
        wait_until(deadline, || {
            self.workers
                .iter()
                .all(|worker| worker.commander.has_drained() || worker.has_ended())
        })
        .await;
        for worker in &self.workers {
            worker.commander.stop();
        }
        let ended = || self.workers.iter().all(WorkerHandle::has_ended);
        wait_until(deadline + ENDING, ended).await;
        for worker in &mut self.workers {
            worker.join();
        }
    }
}

/// Prints the report, and writes its files into `directory`.
fn print(observation: &Observation, latency: bool, directory: Option<&Path>) {
    let report = LatencyReport::new(observation);
    let counters = observation.counters.table(false);
    let text = if latency {
        format!("{}\n{counters}\n", report.table())
    } else {
        format!("{counters}\n")
    };
    // Whoever read our output may have gone; that is no reason to go, too.
    let mut stdout = std::io::stdout().lock();
    if let Err(error) = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        tracing::warn!("the report could not be printed: {error}");
    }
    drop(stdout);
    let Some(directory) = directory.filter(|_| latency) else {
        return;
    };
    let written = hgrm::write_all(directory, observation).and_then(|_| {
        let json = serde_json::to_vec_pretty(&report)?;
        hgrm::write_atomically(&directory.join("latency.json"), &json)
    });
    match written {
        Ok(()) => tracing::info!("latency reports are in {}", directory.display()),
        Err(error) => tracing::error!("latency reports could not be written: {error}"),
    }
}

/// Whether `later` makes `earlier` pointless.
fn replaces(later: &Command, earlier: &Command) -> bool {
    match (later, earlier) {
        (Command::Link(_), Command::Link(_))
        | (Command::Services { .. }, Command::Services { .. })
        | (Command::Connect(_), Command::Connect(_))
        | (Command::Sockets(_), Command::Sockets(_)) => true,
        (Command::Neighbor(later), Command::Neighbor(earlier)) => {
            later.address() == earlier.address()
        }
        _ => false,
    }
}

/// Looks every millisecond whether `condition` holds, until `deadline`.
async fn wait_until(deadline: tokio::time::Instant, condition: impl Fn() -> bool) {
    while !condition() && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Ends when a second SIGINT or SIGTERM comes.
async fn aborted(signals: &mut Signals) {
    while !matches!(signals.next().await, SignalEvent::Abort) {}
}

impl WorkerHandle {
    /// Sends a command, now or when there is room; commands stay in order.
    pub(super) fn tell(&mut self, command: Command) {
        // Only the latest word on a thing matters, so the backlog is no longer than there are things.
        self.backlog.retain(|waiting| !replaces(&command, waiting));
        self.backlog.push_back(command);
        self.flush_backlog();
    }

    pub(super) fn flush_backlog(&mut self) {
        while let Some(command) = self.backlog.pop_front() {
            if let Err(command) = self.commander.send(command) {
                self.backlog.push_front(command);
                return;
            }
            self.sent += 1;
        }
    }

    /// Whether its thread is no more.
    fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Takes in what it left when it ended. Never waits: a thread that still runs keeps it.
    fn join(&mut self) {
        if !self.has_ended() {
            tracing::error!(
                "worker {} does not end: left behind, with what it counted last",
                self.index
            );
            return;
        }
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok((counters, latency))) => self.collector.finish(&counters, &latency),
            Some(Err(_)) => tracing::error!("worker {} panicked", self.index),
            None => {}
        }
    }

    /// Whether it has carried out everything it was told, as far as it has said.
    pub(super) fn has_settled(&self) -> bool {
        self.backlog.is_empty() && self.collector.counters().turns.commands >= self.sent
    }
}
