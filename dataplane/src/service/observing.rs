//! Gathers everything there is to know about the running service.

use super::bring_up;
use super::operate::Service;
use crate::control::protocol::SocketQuery;
use crate::observe::counters::{Counters, Group, WorkerCounters as WorkerGroups};
use crate::observe::observation::{
    Info, InterfaceInfo, ModeInfo, Observation, ServiceInfo, WorkerHistograms, WorkerInfo,
};
use crate::observe::report::plural;
use crate::observe::snapshot;
use crate::observe::sockets::{Listing, SocketRow, SocketsReport};
use crate::steering::{AttachMode, ProgramCost, RunStats, Steering};
use crate::worker::WorkerCounters;
use crate::worker::command::Command;
use stack::socket::bind::Bind;
use stack::tcp::buffer::CHUNK_BYTES;
use stack::tcp::pools::MemoryUse;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

/// How long a worker may take to answer. It answers within a turn, or within its longest sleep.
const PATIENCE: Duration = Duration::from_millis(1200);

impl Service {
    /// Everything, fresh from the workers.
    pub(super) async fn observe(&mut self) -> Observation {
        let answered = self.ask_all(PATIENCE).await;
        for (worker, answered) in self.workers.iter().zip(answered) {
            if !answered {
                tracing::warn!("worker {} did not answer in time", worker.index);
            }
        }
        self.observed()
    }

    /// Waits until every worker has carried out what it was told so far.
    pub(super) async fn settle(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let unsettled = || self.workers.iter().filter(|worker| !worker.has_settled());
            if unsettled().next().is_none() {
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                for worker in unsettled() {
                    tracing::warn!("worker {} is slow to obey", worker.index);
                }
                return;
            }
            for worker in &mut self.workers {
                worker.flush_backlog();
            }
            self.ask_all(left).await;
        }
    }

    /// Asks all workers at once and waits for their answers, at most `patience` for all of them. Says
    /// which have answered.
    async fn ask_all(&mut self, patience: Duration) -> Vec<bool> {
        for worker in &mut self.workers {
            worker.collector.ask_again();
            worker.commander.wake();
        }
        let collectors = self.workers.iter_mut().map(|worker| &mut worker.collector);
        snapshot::answers(&mut collectors.collect::<Vec<_>>(), patience).await
    }

    /// Lists connections and listeners. Workers answer over some turns, all of them at once.
    pub(super) async fn sockets(&mut self, query: SocketQuery) -> SocketsReport {
        let mut answers = Vec::with_capacity(self.workers.len());
        for worker in &mut self.workers {
            let (listing, answer) = Listing::new(worker.index, query);
            worker.tell(Command::Sockets(Box::new(listing)));
            answers.push(answer);
        }
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let mut report = SocketsReport::new(query);
        for (worker, answer) in self.workers.iter().zip(answers) {
            match tokio::time::timeout_at(deadline, answer).await {
                Ok(Ok(listed)) => report.add(listed, |row| self.service_of(row)),
                _ => tracing::warn!("worker {} did not list its sockets in time", worker.index),
            }
        }
        report
    }

    /// The service that a connection between these ends, or a listener, belongs to.
    fn service_of(&self, row: &SocketRow) -> Option<String> {
        let tcp = |service: &&config::Service| service.protocol == config::Protocol::Tcp;
        let mut services = self.config.services.iter().filter(tcp);
        let listens = |service: &config::Service| {
            let bind = |local: &SocketAddr| Bind {
                local: *local,
                v6only: service.v6only,
            };
            service.listen.iter().any(|local| {
                local.port() == row.local.port()
                    && (*local == row.local || bind(local).covers(row.local.ip()))
            })
        };
        let mut all = services.clone();
        let found = all.find(|service| listens(service)).or_else(|| {
            let is_ours = self.config.tcp.ports.contains(row.local.port());
            services.find(|service| is_ours && service.connect.contains(&row.remote))
        });
        found.map(|service| service.name.clone())
    }

    /// Everything as it was last told.
    pub(super) fn observed(&self) -> Observation {
        let latency = self.workers.iter().map(|worker| WorkerHistograms {
            worker: worker.index,
            latency: worker.collector.latency().clone(),
        });
        Observation {
            info: self.info(),
            counters: self.counters(),
            latency: if self.config.latency.enabled {
                latency.collect()
            } else {
                Vec::new()
            },
        }
    }

    fn counters(&self) -> Counters {
        let workers = self.workers.iter().map(|worker| WorkerGroups {
            worker: worker.index,
            groups: groups(worker.collector.counters()),
        });
        let mut shared = Vec::new();
        if let Ok(verdicts) = self.steering.counters() {
            let rows = verdicts
                .iter()
                .map(|(verdict, n)| (verdict.name(), verdict.help(), n));
            shared.push(Group::counters("steering", rows));
        }
        if let Some(ns) = self.cost.ns_per_packet {
            let help = "What the steering program takes for a packet, in nanoseconds, as sampled.";
            shared.push(Group::gauges(
                "steering_cost",
                [("steering_packet_ns", help, ns)],
            ));
        }
        Counters {
            workers: workers.collect(),
            shared,
        }
    }

    fn info(&self) -> Info {
        let report = &self.workers[0].report;
        let since_epoch = self.started_at.duration_since(SystemTime::UNIX_EPOCH);
        let mut notes = self.notes.clone();
        notes.extend(self.explanations());
        Info {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            started_unix_s: since_epoch.map_or(0, |since| since.as_secs()),
            uptime_s: self.started.elapsed().as_secs_f64(),
            config: Some(self.path.clone()),
            interface: InterfaceInfo {
                name: self.interface.name.clone(),
                index: self.interface.index,
                driver: Some(self.interface.driver.clone()),
                vlans: self.config.interface.vlan.clone(),
                mac: mac(self.link.mac),
                mtu: self.link.mtu,
                up: self.link.up,
                addresses: self
                    .link
                    .addresses
                    .iter()
                    .map(|local| format!("{}/{}", local.address, local.prefix_len))
                    .collect(),
                routes: self.link.routes.routes().len(),
                neighbors: self.neighbors.len(),
            },
            mode: ModeInfo {
                requested: self.config.interface.mode.to_string(),
                obtained: report.mode.to_string(),
                attached: match self.attached {
                    AttachMode::Native => "native".into(),
                    AttachMode::Generic => "generic".into(),
                },
            },
            workers: self
                .workers
                .iter()
                .map(|worker| WorkerInfo {
                    worker: worker.index,
                    core: Some(worker.core),
                    queues: worker.report.queues.clone(),
                    huge_pages: worker.report.huge_pages,
                    need_wakeup: worker.report.need_wakeup,
                    busy_poll: worker.report.busy_poll,
                    alive: worker
                        .thread
                        .as_ref()
                        .is_some_and(|thread| !thread.is_finished()),
                })
                .collect(),
            services: self.services(),
            notes,
        }
    }

    fn services(&self) -> Vec<ServiceInfo> {
        let served_by = bring_up::served_by(&self.config, self.workers.len());
        let mut services = Vec::new();
        for (service, workers) in self.config.services.iter().zip(served_by) {
            services.extend(service.listen.iter().map(|local| ServiceInfo {
                name: service.name.clone(),
                protocol: service.protocol.to_string(),
                address: local.ip(),
                port: local.port(),
                application: service.application.to_string(),
                connections: None,
                workers: workers.clone(),
            }));
            services.extend(service.connect.iter().map(|remote| ServiceInfo {
                name: service.name.clone(),
                protocol: service.protocol.to_string(),
                address: remote.ip(),
                port: remote.port(),
                application: service.application.to_string(),
                connections: Some(service.connections),
                workers: workers.clone(),
            }));
        }
        services
    }

    /// What the counters mean for the operator, where they mean that something is to be done.
    pub(super) fn explanations(&self) -> Vec<String> {
        use stack::counters::{DropReason, Event};
        let total = |reason: DropReason| -> u64 {
            let counters = self
                .workers
                .iter()
                .map(|worker| worker.collector.counters());
            counters.map(|counters| counters.drops.get(reason)).sum()
        };
        let happened = |event: Event| -> u64 {
            let counters = self
                .workers
                .iter()
                .map(|worker| worker.collector.counters());
            counters.map(|counters| counters.events.get(event)).sum()
        };
        let mut explanations = Vec::new();
        let incomplete = total(DropReason::UdpChecksumIncomplete);
        if incomplete > 0 {
            explanations.push(format!(
                "{incomplete} packets came with an incomplete checksum and were dropped: their \
                 sender left it to a NIC that they never crossed, as on a veth pair or from a \
                 virtual machine's host. Run `ethtool -K DEVICE tx off` at the sender, or set \
                 checksums.accept_incomplete = true"
            ));
        }
        explanations.extend(conflict(happened(Event::AddressConflict)));
        explanations
    }

    /// Logs that another host uses an address of a service, soon after it is seen.
    pub(super) fn look_for_conflicts(&mut self) {
        let mut services = self.config.services.iter();
        let owns = services.any(|service| !service.own_addresses.is_empty());
        if !owns || !self.conflicts.is_time() {
            return;
        }
        let mut seen = 0;
        for worker in &mut self.workers {
            // The answer to this question is looked at when the next one is asked.
            worker.collector.ask_again();
            let counters = worker.collector.counters();
            seen += counters.events.get(stack::counters::Event::AddressConflict);
        }
        if self.conflicts.are_news(seen)
            && let Some(sentence) = conflict(seen)
        {
            tracing::warn!("{sentence}");
        }
    }
}

/// What `count` packets of another host with an address of ours mean.
fn conflict(count: u64) -> Option<String> {
    let packets = plural(usize::try_from(count).unwrap_or(usize::MAX), "packet");
    (count > 0).then(|| {
        format!(
            "{packets} showed another host using an address that a service owns: give one of the \
             two another address"
        )
    })
}

/// Ticks of 100 ms from one look for address conflicts to the next: workers are asked for their
/// numbers once a second, which is too seldom to cost anything.
const CONFLICT_TICKS: u32 = 10;
/// Looks from one log line to the next, at least: one line a minute while a conflict lasts.
const CONFLICT_LOOKS: u32 = 60;

/// What was told of address conflicts.
#[derive(Default)]
pub(super) struct Conflicts {
    ticks: u32,
    /// Packets of the last line of the log.
    told: u64,
    /// Looks until the next line.
    quiet: u32,
}

impl Conflicts {
    /// Once every 100 ms: whether to look.
    fn is_time(&mut self) -> bool {
        self.ticks = (self.ticks + 1) % CONFLICT_TICKS;
        self.ticks == 0
    }

    /// Whether `seen` packets are worth a line.
    fn are_news(&mut self, seen: u64) -> bool {
        self.quiet = self.quiet.saturating_sub(1);
        if seen <= self.told || self.quiet > 0 {
            return false;
        }
        (self.told, self.quiet) = (seen, CONFLICT_LOOKS);
        true
    }
}

/// A worker's numbers, in groups.
fn groups(counters: &WorkerCounters) -> Vec<Group> {
    let WorkerCounters {
        drops,
        events,
        turns,
        tcp,
        queues,
    } = counters;
    let crate::worker::TurnCounters {
        turns,
        turns_with_packets,
        sleeps,
        commands,
    } = *turns;
    let mut groups = vec![
        Group::counters(
            "drop",
            drops
                .iter()
                .map(|(which, n)| (which.name(), which.help(), n)),
        ),
        Group::counters(
            "event",
            events
                .iter()
                .map(|(which, n)| (which.name(), which.help(), n)),
        ),
        Group::counters(
            "worker",
            [
                ("turns", "Turns of the worker's loop.", turns),
                (
                    "turns_with_packets",
                    "Turns that found a packet.",
                    turns_with_packets,
                ),
                ("sleeps", "Sleeps because there was nothing to do.", sleeps),
                (
                    "commands",
                    "Commands of the control plane carried out.",
                    commands,
                ),
            ],
        ),
    ];
    groups.push(tcp_group(tcp));
    groups.extend(queues.iter().map(queue_group));
    groups
}

fn tcp_group(tcp: &crate::worker::TcpGauges) -> Group {
    let crate::worker::TcpGauges {
        connections,
        half_open,
        time_wait,
        memory,
    } = *tcp;
    let MemoryUse {
        send_chunks,
        transmissions,
        receive_chunks,
        out_of_order,
    } = memory;
    let chunk = CHUNK_BYTES as u64;
    let rows = [
        (
            "tcp_connections",
            "TCP connections there are (limits.tcp_connections, of each IP version).",
            connections,
        ),
        (
            "tcp_half_open",
            "TCP handshakes that peers have begun (limits.tcp_half_open, likewise).",
            half_open,
        ),
        (
            "tcp_time_wait",
            "TCP connections in TIME-WAIT (limits.tcp_time_wait, likewise).",
            time_wait,
        ),
        (
            "tcp_send_memory_bytes",
            "Memory with data to be sent or acknowledged (limits.tcp_send_memory).",
            u64::from(send_chunks) * chunk,
        ),
        (
            "tcp_receive_memory_bytes",
            "Memory with data to be read (limits.tcp_receive_memory).",
            u64::from(receive_chunks) * chunk,
        ),
        (
            "tcp_transmissions",
            "Segments under way (limits.tcp_transmissions).",
            transmissions.into(),
        ),
        (
            "tcp_out_of_order",
            "Pieces of data out of order (limits.tcp_out_of_order).",
            out_of_order.into(),
        ),
    ];
    Group::gauges("tcp", rows)
}

fn queue_group(queue: &crate::driver::QueueStatistics) -> Group {
    let crate::driver::QueueStatistics {
        queue_id,
        rx_packets,
        tx_packets,
        tx_completions,
        tx_ring_full,
        tx_refused,
        rx_refused,
        tx_kicks,
        rx_kicks,
        fill_short,
        rx_dropped,
        rx_invalid_descs,
        tx_invalid_descs,
        rx_ring_full,
        rx_fill_ring_empty_descs,
        tx_ring_empty_descs,
    } = *queue;
    let rows = [
        ("rx_packets", "Packets taken from the RX ring.", rx_packets),
        ("tx_packets", "Packets put into the TX ring.", tx_packets),
        (
            "tx_completions",
            "Packets the NIC has sent.",
            tx_completions,
        ),
        (
            "tx_ring_full",
            "Times the TX ring had no room.",
            tx_ring_full,
        ),
        ("tx_refused", "Packets no wire carries.", tx_refused),
        (
            "rx_refused",
            "Descriptors from the kernel that point nowhere.",
            rx_refused,
        ),
        ("tx_kicks", "System calls to get packets sent.", tx_kicks),
        (
            "rx_kicks",
            "System calls to get packets received.",
            rx_kicks,
        ),
        (
            "fill_short",
            "Turns that left the fill ring less than full.",
            fill_short,
        ),
        (
            "rx_dropped",
            "Kernel: packets dropped before the ring.",
            rx_dropped,
        ),
        (
            "rx_invalid_descs",
            "Kernel: fill-ring entries it refused.",
            rx_invalid_descs,
        ),
        (
            "tx_invalid_descs",
            "Kernel: TX-ring entries it refused.",
            tx_invalid_descs,
        ),
        (
            "rx_ring_full",
            "Kernel: dropped, RX ring full: the worker is too slow.",
            rx_ring_full,
        ),
        (
            "rx_fill_ring_empty_descs",
            "Kernel: found no empty frame: raise rings.fill.",
            rx_fill_ring_empty_descs,
        ),
        (
            "tx_ring_empty_descs",
            "Kernel: found the TX ring empty; normal.",
            tx_ring_empty_descs,
        ),
    ];
    Group::counters("queue", rows).of_queue(queue_id)
}

fn mac(mac: stack::link::MacAddr) -> String {
    let bytes: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(":")
}

/// What the steering program costs a packet, sampled: measuring itself costs two clock reads a
/// packet, so it is on for 100 ms in every 10 s.
#[derive(Default)]
pub(super) struct Cost {
    ticks: u32,
    program_id: Option<u32>,
    sample: Option<(RunStats, ProgramCost)>,
    /// The latest sample, in nanoseconds.
    pub(super) ns_per_packet: Option<u64>,
}

/// Ticks of 100 ms from one sample to the next.
const SAMPLE_TICKS: u32 = 100;

impl Cost {
    /// Once every 100 ms.
    pub(super) fn tick(&mut self, steering: &mut Steering) {
        if let Some((stats, before)) = self.sample.take() {
            let id = self.program_id.unwrap_or_default();
            let cost = ProgramCost::of(id).ok().map(|now| now.since(before));
            drop(stats);
            #[expect(clippy::cast_possible_truncation, reason = "nanoseconds of one packet")]
            #[expect(clippy::cast_sign_loss, reason = "never negative")]
            if let Some(ns) = cost.and_then(ProgramCost::ns_per_packet) {
                self.ns_per_packet = Some(ns.round() as u64);
            }
        }
        self.ticks += 1;
        if self.ticks % SAMPLE_TICKS != 10 {
            return;
        }
        if self.program_id.is_none() {
            self.program_id = steering.program_id().ok();
        }
        // A kernel or a container that forbids it: then there is no figure, which is no harm.
        let Some(id) = self.program_id else { return };
        self.sample = RunStats::enable().ok().zip(ProgramCost::of(id).ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conflict_is_logged_when_it_is_seen_and_then_once_a_minute() {
        let mut conflicts = Conflicts::default();
        let looks = (0..100).filter(|_| conflicts.is_time()).count();
        assert_eq!(looks, 10, "once a second");
        assert!(!conflicts.are_news(0));
        assert!(conflicts.are_news(2));
        // It goes on all the time.
        let lines = (3..243).filter(|seen| conflicts.are_news(*seen)).count();
        assert_eq!(lines, 4, "in four minutes");
        assert!(!conflicts.are_news(242), "nothing new");
    }
}
