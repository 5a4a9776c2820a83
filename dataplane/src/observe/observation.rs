//! Everything the service knows about itself at one moment. The control socket, the reports and the
//! metrics are all made from this and from nothing else.

use crate::observe::{counters::Counters, latency::WorkerLatency, report::plural};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

/// What runs, where and how: everything that is not a count.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Info {
    /// Version of the service.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When it started, in seconds since the Unix epoch.
    pub started_unix_s: u64,
    /// How long it has run, in seconds.
    pub uptime_s: f64,
    /// The file its configuration came from.
    pub config: Option<PathBuf>,
    /// The interface as it stands.
    pub interface: InterfaceInfo,
    /// What was asked for and what was obtained.
    pub mode: ModeInfo,
    /// The workers, in order.
    pub workers: Vec<WorkerInfo>,
    /// What listens, in the configuration's order.
    pub services: Vec<ServiceInfo>,
    /// What the operator ought to know, in whole sentences: a fallback taken, an offload that
    /// hurts.
    pub notes: Vec<String>,
}

/// The interface, as the netlink mirror sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InterfaceInfo {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Its kernel driver, if the kernel tells.
    pub driver: Option<String>,
    /// VLAN identifiers of its frames, outermost first.
    pub vlans: Vec<u16>,
    /// Its Ethernet address, as `02:00:5e:00:53:01`.
    pub mac: String,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// Whether it has a carrier.
    pub up: bool,
    /// Its addresses with their prefix lengths, as `192.0.2.1/24`.
    pub addresses: Vec<String>,
    /// How many routes are mirrored.
    pub routes: usize,
    /// How many neighbours are mirrored.
    pub neighbors: usize,
}

/// How packets get to the service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ModeInfo {
    /// What the configuration asks for: `zero-copy`, `copy`, `generic` or `auto`.
    pub requested: String,
    /// What the kernel says is in force: `zero-copy`, `copy` or `generic`.
    pub obtained: String,
    /// How the XDP program is attached: `native` or `generic`.
    pub attached: String,
}

/// One worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// Which, counted from 0.
    pub worker: usize,
    /// The core it is pinned to, if it is.
    pub core: Option<usize>,
    /// The queues it serves.
    pub queues: Vec<u32>,
    /// Whether its packet memory is on huge pages.
    pub huge_pages: bool,
    /// Whether the kernel says when it must be woken (`XDP_USE_NEED_WAKEUP`).
    pub need_wakeup: bool,
    /// Whether it runs the NIC's receive work itself (`SO_PREFER_BUSY_POLL`).
    pub busy_poll: bool,
    /// Whether it is running.
    pub alive: bool,
}

/// One listener, or one address to which a service opens connections.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceInfo {
    /// Its name in the configuration.
    pub name: String,
    /// `udp` or `tcp`.
    pub protocol: String,
    /// The address it listens on, unspecified for any; or the one it connects to.
    pub address: IpAddr,
    /// The port of that address.
    pub port: u16,
    /// What it does: `echo`, `discard`, `source`.
    pub application: String,
    /// Connections that it opens to the address; none where it listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    /// The workers that serve it.
    pub workers: Vec<usize>,
}

/// One worker's histograms since it started.
#[derive(Clone, Debug)]
pub struct WorkerHistograms {
    /// Which worker, counted from 0.
    pub worker: usize,
    /// Its histograms.
    pub latency: WorkerLatency,
}

/// Everything at one moment.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    /// What runs.
    pub info: Info,
    /// What was counted.
    pub counters: Counters,
    /// How long packets took, worker by worker.
    pub latency: Vec<WorkerHistograms>,
}

impl Observation {
    /// The histograms of all workers together; `None` if there is no worker.
    #[must_use]
    pub fn latency_of_all(&self) -> Option<WorkerLatency> {
        let (first, rest) = self.latency.split_first()?;
        let mut all = first.latency.clone();
        for WorkerHistograms { worker: _, latency } in rest {
            all.merge(latency);
        }
        Some(all)
    }
}

/// For people; `Serialize` is for machines.
impl fmt::Display for Info {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            version,
            pid,
            started_unix_s: _,
            uptime_s,
            config,
            interface,
            mode,
            workers,
            services,
            notes,
        } = self;
        let config = config
            .as_ref()
            .map_or("-".into(), |path| path.display().to_string());
        writeln!(
            f,
            "dataplane {version}, pid {pid}, up {uptime_s:.0} s, {config}"
        )?;
        let InterfaceInfo {
            name,
            index,
            driver,
            vlans,
            mac,
            mtu,
            up,
            addresses,
            routes,
            neighbors,
        } = interface;
        let driver = driver.as_deref().unwrap_or("unknown");
        let carrier = if *up { "up" } else { "down" };
        writeln!(
            f,
            "interface  {name} (index {index}, {driver}), {carrier}, {mac}, MTU {mtu}"
        )?;
        if !vlans.is_empty() {
            writeln!(f, "vlans      {vlans:?}")?;
        }
        writeln!(f, "addresses  {}", addresses.join(" "))?;
        let (routes, neighbors) = (plural(*routes, "route"), plural(*neighbors, "neighbour"));
        writeln!(f, "tables     {routes}, {neighbors}")?;
        let ModeInfo {
            requested,
            obtained,
            attached,
        } = mode;
        writeln!(
            f,
            "mode       {obtained} (asked for {requested}), program attached {attached}"
        )?;
        for WorkerInfo {
            worker,
            core,
            queues,
            huge_pages,
            need_wakeup,
            busy_poll,
            alive,
        } in workers
        {
            let on = |on: &bool| if *on { "on" } else { "off" };
            let core = core.map_or("any core".into(), |core| format!("core {core}"));
            let state = if *alive { "" } else { ", dead" };
            writeln!(
                f,
                "worker {worker}   {core}, queues {queues:?}, huge pages {}, need_wakeup {}, \
                 busy polling {}{state}",
                on(huge_pages),
                on(need_wakeup),
                on(busy_poll)
            )?;
        }
        for service in services {
            let ServiceInfo {
                name,
                protocol,
                address,
                port,
                application,
                connections,
                workers,
            } = service;
            let end = SocketAddr::new(*address, *port);
            write!(f, "service    {name}: {application} ")?;
            match connections {
                None => write!(f, "on {protocol} {end}")?,
                Some(connections) => {
                    let connections = plural(*connections as usize, "connection");
                    write!(f, "to {protocol} {end}, {connections}")?;
                }
            }
            writeln!(f, ", workers {workers:?}")?;
        }
        for note in notes {
            writeln!(f, "note       {note}")?;
        }
        Ok(())
    }
}
