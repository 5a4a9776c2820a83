//! Modes, drivers, workers: from a checked configuration to threads that run.

use super::ServiceError;
use crate::driver::{AfXdp, AfXdpOptions, Attempt, Driver, DriverReport, attempts};
use crate::handler::Application;
use crate::handler::dial::DialSpec;
use crate::observe::latency::WorkerLatency;
use crate::observe::snapshot::{Collector, exchange};
use crate::steering::{Steering, SteeringError};
use crate::worker::command::{Command, Commander, ServiceBind, channel};
use crate::worker::handoff::Lanes;
use crate::worker::idle::Idle;
use crate::worker::{Options, Worker, WorkerCounters};
use config::{Config, Machine, ServiceWorkers};
use stack::Stack;
use stack::socket::bind::Bind;
use stack::tcp::buffer::CHUNK_BYTES;
use stack::tcp::config::{Ecn, Keepalive, SynCookies, TcpConfig};
use stack::tcp::flow::AckDelay;
use stack::wire::ethernet::VlanIds;
use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::Notify;

/// A worker as the control thread sees it.
pub(super) struct WorkerHandle {
    pub(super) index: usize,
    pub(super) core: usize,
    pub(super) commander: Commander,
    pub(super) collector: Collector<WorkerCounters>,
    pub(super) report: DriverReport,
    /// `None` once it has been joined.
    pub(super) thread: Option<JoinHandle<(WorkerCounters, WorkerLatency)>>,
    /// Commands that did not fit its queue yet, in order.
    pub(super) backlog: VecDeque<Command>,
    /// Commands it was sent.
    pub(super) sent: u64,
}

/// Everything that is opened but does not run yet.
pub(super) struct Opened {
    pub(super) attempt: Attempt,
    drivers: Vec<AfXdp>,
    cores: Vec<usize>,
}

/// What is to be said of a mode that could not be had.
pub(super) type Refusal = String;

impl Opened {
    /// Attaches the program and opens the drivers in the first mode that works. Modes that were
    /// tried before it are told, with the reason.
    pub(super) fn open(
        config: &Config,
        machine: &Machine,
        steering: &mut Steering,
    ) -> Result<(Self, Vec<Refusal>), ServiceError> {
        let queues = machine
            .interface
            .as_ref()
            .map_or(1, |interface| interface.queues);
        let queues = config.queue_ids(queues);
        let mut cores = config.worker_cores(machine);
        cores.truncate(queues.len());
        let shares = deal(&queues, cores.len());
        let mut refusals = Vec::new();
        let attempts = attempts(config.interface.mode);
        for (position, attempt) in attempts.iter().enumerate() {
            let last = position + 1 == attempts.len();
            match Self::try_mode(config, &shares, steering, *attempt) {
                Ok(drivers) => {
                    let opened = Self {
                        attempt: *attempt,
                        drivers,
                        cores,
                    };
                    return Ok((opened, refusals));
                }
                Err(error) => match mode_refusal(&error) {
                    Some(refusal) if !last => {
                        let mode = attempt.obtains();
                        refusals.push(format!("{mode} is not to be had: {refusal}"));
                        steering.detach();
                    }
                    _ => return Err(error),
                },
            }
        }
        unreachable!("invariant: every mode has an attempt, and the last one returns")
    }

    fn try_mode(
        config: &Config,
        shares: &[Vec<u32>],
        steering: &mut Steering,
        attempt: Attempt,
    ) -> Result<Vec<AfXdp>, ServiceError> {
        steering.attach(&config.interface.name, attempt.attach)?;
        let open = |queues: &Vec<u32>| {
            AfXdp::open(&AfXdpOptions::configured(config, queues.clone(), attempt))
        };
        let drivers: Result<Vec<_>, _> = shares.iter().map(open).collect();
        Ok(drivers?)
    }

    /// The sockets, for the steering program's map: (queue, socket).
    pub(super) fn register(&self, steering: &mut Steering) -> Result<(), SteeringError> {
        let sockets = self.drivers.iter().flat_map(AfXdp::sockets);
        sockets
            .into_iter()
            .try_for_each(|(queue, socket)| steering.register_socket(queue, socket))
    }

    /// Starts a thread for each driver. Frames go out with an outer VLAN tag of `outer_tag_type`, if
    /// the kernel's have one.
    pub(super) fn start(
        self,
        config: &Config,
        outer_tag_type: Option<u16>,
        notify: &Arc<Notify>,
    ) -> Result<Vec<WorkerHandle>, ServiceError> {
        let Self {
            attempt: _,
            mut drivers,
            cores,
        } = self;
        let workers = drivers.len();
        let homes: Vec<_> = drivers.iter_mut().map(Driver::frame_return).collect();
        let wakers: Vec<_> = drivers.iter().map(Driver::waker).collect();
        let depth = config.workers.handoff_queue as usize;
        let lanes = Lanes::new(workers, depth, Arc::new(served_by(config, workers)));
        // What one use shows to others must not help against the other.
        let secrets = (secret()?, secret()?);
        let mut handles = Vec::with_capacity(workers);
        for (index, (driver, core)) in drivers.into_iter().zip(cores).enumerate() {
            let (commander, commands) = channel(wakers[index].clone(), Arc::clone(notify));
            let digits = config.latency.significant_digits;
            let (collector, publisher, latency) = exchange(WorkerCounters::default(), digits)
                .map_err(|error| {
                    ServiceError::Config(format!("latency.significant_digits = {digits}: {error}"))
                })?;
            let report = driver.report().clone();
            let mut stack_config = stack_config(config, index, workers, secrets);
            if let Some(tag_type) = outer_tag_type {
                stack_config.vlans = stack_config.vlans.with_outer_type(tag_type);
            }
            let stack = Stack::new(stack_config);
            let handoffs = lanes.ends(index, &homes, &wakers);
            let exchange = (publisher, latency);
            let options = options(config);
            let mut worker = Worker::new(driver, stack, handoffs, commands, exchange, options);
            for bind in binds(config, index, workers) {
                worker.bind(&bind).map_err(|error| {
                    let service = &config.services[usize::from(bind.service)].name;
                    ServiceError::Config(format!("service {service}: {}: {error}", bind.bind.local))
                })?;
            }
            let thread = std::thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || {
                    if !core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
                        tracing::warn!("worker {index} could not be pinned to core {core}");
                    }
                    worker.run()
                })
                .map_err(|error| ServiceError::os(format!("start worker {index}"), error))?;
            handles.push(WorkerHandle {
                index,
                core,
                commander,
                collector,
                report,
                thread: Some(thread),
                backlog: VecDeque::new(),
                sent: 0,
            });
        }
        Ok(handles)
    }
}

/// Queues dealt to workers in turn.
fn deal(queues: &[u32], workers: usize) -> Vec<Vec<u32>> {
    let workers = workers.max(1);
    let share = |worker| {
        queues
            .iter()
            .skip(worker)
            .step_by(workers)
            .copied()
            .collect()
    };
    (0..workers).map(share).collect()
}

/// Why another mode may work where this one did not.
fn mode_refusal(error: &ServiceError) -> Option<String> {
    match error {
        ServiceError::Driver(error) => error.mode_refusal(),
        ServiceError::Steering(error) => error.mode_refusal(),
        _ => None,
    }
}

fn options(config: &Config) -> Options {
    Options {
        batch: config.workers.batch as usize,
        idle: Idle::from(&config.workers),
        latency: config.latency.enabled,
        udp_queue: config.limits.udp_queue,
        tcp_connections: config.limits.tcp_connections,
        tcp_connections_new_reno: connections_new_reno(config),
        drain: Duration::from_millis(config.workers.drain_ms.into()),
    }
}

fn stack_config(
    config: &Config,
    worker: usize,
    workers: usize,
    (secret, tcp_secret): ([u64; 2], [u64; 2]),
) -> stack::Config {
    stack::Config {
        vlans: VlanIds::new(&config.interface.vlan)
            .expect("invariant: the configuration has at most two, each 1 to 4094"),
        ttl: config.ip.ttl,
        accept_incomplete_checksums: config.checksums.accept_incomplete,
        icmp_rate_per_s: config.ip.icmp_rate_per_s,
        // A rate of 0 means none at all, not even the first burst.
        icmp_burst: match config.ip.icmp_rate_per_s {
            0 => 0,
            _ => config.ip.icmp_burst,
        },
        neighbors: config.limits.neighbors,
        udp_sockets: u16::try_from(config.limits.udp_sockets).unwrap_or(u16::MAX),
        egress_queue: config.limits.egress_queue,
        reassembly_bytes: config.reassembly.memory_bytes,
        reassembly_datagrams: config.reassembly.datagrams,
        reassembly_timeout: Duration::from_secs(config.reassembly.timeout_s.into()),
        worker: u16::try_from(worker).unwrap_or(u16::MAX),
        workers: u16::try_from(workers).unwrap_or(u16::MAX),
        // One worker announces for all.
        announce: worker == 0,
        tcp: TcpConfig {
            // Each worker chooses from ports of its own: no two open the same connection.
            ports: config
                .tcp
                .ports
                .share(worker, workers)
                .map_or((0, 0), |share| (share.first, share.last)),
            ..tcp_config(config, tcp_secret)
        },
        secret,
    }
}

/// Services say who has NewReno; where none does, it takes no memory.
fn connections_new_reno(config: &Config) -> u32 {
    if config.uses_new_reno() {
        config.limits.tcp_connections
    } else {
        0
    }
}

fn tcp_config(config: &Config, secret: [u64; 2]) -> TcpConfig {
    let Config { tcp, limits, .. } = config;
    let seconds = |s: u32| Duration::from_secs(s.into());
    let chunks = |bytes: u64| {
        let chunks = bytes.div_ceil(CHUNK_BYTES as u64);
        u32::try_from(chunks).unwrap_or(u32::MAX)
    };
    TcpConfig {
        connections: limits.tcp_connections,
        connections_new_reno: connections_new_reno(config),
        half_open: limits.tcp_half_open,
        time_wait: limits.tcp_time_wait,
        send_chunks: chunks(limits.tcp_send_memory),
        receive_chunks: chunks(limits.tcp_receive_memory),
        transmissions: limits.tcp_transmissions,
        out_of_order: limits.tcp_out_of_order,
        listeners: u16::try_from(limits.tcp_listeners).unwrap_or(u16::MAX),
        send_buffer: limits.tcp_send_buffer,
        receive_buffer: limits.tcp_receive_buffer,
        receive_buffer_max: limits.tcp_receive_buffer_max,
        rto_min_ms: tcp.rto_min_ms,
        ack_delay: AckDelay::new(Duration::from_millis(tcp.ack_delay_ms.into()))
            .expect("invariant: the configuration has at most 450 ms"),
        syn_retries: tcp.syn_retries,
        syn_ack_retries: tcp.syn_ack_retries,
        user_timeout: seconds(tcp.user_timeout_s),
        keepalive: Keepalive {
            always: tcp.keepalive_idle_s > 0,
            idle: match tcp.keepalive_idle_s {
                0 => Keepalive::DEFAULT.idle,
                idle_s => seconds(idle_s),
            },
            interval: seconds(tcp.keepalive_interval_s),
            probes: tcp.keepalive_probes,
        },
        time_wait_period: seconds(tcp.time_wait_s),
        fin_wait_2: seconds(tcp.fin_wait_2_s),
        syn_cookies: match tcp.syn_cookies {
            config::SynCookies::Never => SynCookies::Never,
            config::SynCookies::WhenFull => SynCookies::WhenFull,
            config::SynCookies::Always => SynCookies::Always,
        },
        challenge_acks_per_s: tcp.challenge_acks_per_s,
        sack: tcp.sack,
        timestamps: tcp.timestamps,
        window_scaling: tcp.window_scaling,
        ecn: match tcp.ecn {
            config::Ecn::Off => Ecn::Off,
            config::Ecn::Accept => Ecn::Accept,
            config::Ecn::Offer => Ecn::Offer,
        },
        // See `stack_config`.
        ports: (0, 0),
        secret,
    }
}

/// 128 secret bits, the same for all workers of this run: they agree on flow hashes, and one takes the
/// SYN cookies of another.
fn secret() -> Result<[u64; 2], ServiceError> {
    let mut bytes = [0; 16];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|errno| ServiceError::os("draw random numbers", errno.into()))?;
    if filled != bytes.len() {
        let error = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        return Err(ServiceError::os("draw random numbers", error));
    }
    let (words, _) = bytes.as_chunks::<8>();
    Ok([u64::from_ne_bytes(words[0]), u64::from_ne_bytes(words[1])])
}

/// For each service, the workers that serve it.
pub(super) fn served_by(config: &Config, workers: usize) -> Vec<Vec<usize>> {
    let of = |service: &config::Service| match &service.workers {
        ServiceWorkers::All => (0..workers).collect(),
        ServiceWorkers::List(list) => list.clone(),
    };
    config.services.iter().map(of).collect()
}

/// The listeners of all services as worker `index` sees them.
pub(super) fn binds(config: &Config, index: usize, workers: usize) -> Vec<ServiceBind> {
    let served_by = served_by(config, workers);
    let mut binds = Vec::new();
    for ((number, service), workers) in (0u16..).zip(&config.services).zip(&served_by) {
        let here = workers.contains(&index);
        binds.extend(service.listen.iter().map(|local| ServiceBind {
            bind: Bind {
                local: *local,
                v6only: service.v6only,
            },
            service: number,
            application: Application::of(service),
            here,
        }));
    }
    binds
}

/// The connections that services open from worker `index`: those to each address are dealt out to the workers
/// of the service in turn, beginning with another one for each address.
pub(super) fn dials(config: &Config, index: usize, workers: usize) -> Vec<DialSpec> {
    let served_by = served_by(config, workers);
    let mut dials = Vec::new();
    for (service, workers) in config.services.iter().zip(&served_by) {
        let Some(place) = workers.iter().position(|worker| *worker == index) else {
            continue;
        };
        let Application::Tcp(application, options) = Application::of(service) else {
            continue;
        };
        for (turn, remote) in service.connect.iter().enumerate() {
            let connections = share(service.connections, place + turn, workers.len());
            if connections > 0 {
                dials.push(DialSpec {
                    remote: *remote,
                    application,
                    congestion: options.congestion,
                    nodelay: options.nodelay,
                    connections,
                });
            }
        }
    }
    dials
}

/// How many of `count` the one at `place` gets of `places`, dealt in turn.
fn share(count: u32, place: usize, places: usize) -> u32 {
    let places = u32::try_from(places).unwrap_or(u32::MAX).max(1);
    let place = u32::try_from(place).unwrap_or(0) % places;
    count / places + u32::from(place < count % places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_dealt_to_the_workers_of_their_service() {
        let config = Config::parse(
            "[interface]\nname = \"eth9\"\n[[service]]\nname = \"a\"\napplication = \"echo\"\n\
             protocol = \"tcp\"\nconnect = [\"192.0.2.1:7\", \"192.0.2.1:8\"]\nconnections = 5\n\
             [[service]]\nname = \"b\"\napplication = \"echo\"\nprotocol = \"tcp\"\n\
             connect = [\"[2001:db8::1]:9\"]\nworkers = [1]\n",
            "t",
        )
        .expect("a valid configuration");
        let of = |index| -> Vec<(u16, u32)> {
            let dials = dials(&config, index, 2);
            let dials = dials.iter();
            dials
                .map(|dial| (dial.remote.port(), dial.connections))
                .collect()
        };
        assert_eq!(of(0), [(7, 3), (8, 2)]);
        assert_eq!(of(1), [(7, 2), (8, 3), (9, 1)]);
    }

    #[test]
    fn queues_are_dealt_in_turn() {
        assert_eq!(deal(&[0, 1, 2, 3, 4], 2), [vec![0, 2, 4], vec![1, 3]]);
        assert_eq!(deal(&[7], 1), [vec![7]]);
    }

    #[test]
    fn secrets_differ() {
        let draw = || secret().expect("random numbers");
        assert_ne!(draw(), draw());
    }
}
