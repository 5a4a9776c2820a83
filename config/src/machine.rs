//! What only the machine can tell: whether the cores, queues and addresses of a configuration exist.

use crate::error::{ConfigErrors, Findings};
use crate::relations::worker_indices;
use crate::schema::{Config, Cores, Queues, ServiceWorkers};
use crate::value::Cidr;
use std::fmt;
use std::net::IpAddr;

/// What the caller has found out about the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The cores a thread of ours may be pinned to: online, and in this process's affinity mask.
    pub cores: Vec<usize>,
    /// The interface named by `interface.name`; `None` where it is not known (then nothing about
    /// it is checked: that it does not exist is for the driver to say).
    pub interface: Option<InterfaceFacts>,
}

/// What the caller has found out about one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceFacts {
    /// Its name.
    pub name: String,
    /// How many receive queues AF_XDP can bind; they are numbered from 0.
    pub queues: u32,
    /// The addresses the kernel has on it, and on its VLAN devices where `interface.vlan` is set.
    pub addresses: Vec<Cidr>,
    /// Its MTU in bytes: the longest IP packet.
    pub mtu: u32,
}

/// XDP_PACKET_HEADROOM (linux/bpf.h): bytes the kernel keeps free in front of a received packet.
const XDP_PACKET_HEADROOM: u32 = 256;
/// Ethernet header.
const ETHERNET_HEADER_LEN: u32 = 14;
/// Two 802.1Q tags: what steering may let through.
const VLAN_TAGS_LEN: u32 = 2 * 4;

/// Longest IP packet that fits a frame of `frame_size` bytes.
const fn mtu_max(frame_size: u32) -> u32 {
    frame_size - XDP_PACKET_HEADROOM - ETHERNET_HEADER_LEN - VLAN_TAGS_LEN
}

const _: () = assert!(
    mtu_max(2048) >= 1500,
    "the common MTU must fit the smaller frame"
);

impl Config {
    /// Checks what only the machine can tell: that cores, queues and addresses exist, that no
    /// address we own is the kernel's, that packets fit frames.
    ///
    /// # Errors
    /// Everything that does not fit `machine`, with the lines of the file.
    pub fn check_against(&self, machine: &Machine) -> Result<(), ConfigErrors> {
        let mut findings = Findings::default();
        self.check_cores(machine, &mut findings);
        if let Some(interface) = &machine.interface {
            self.check_queues(machine, interface, &mut findings);
            self.check_addresses(interface, &mut findings);
            self.check_mtu(interface, &mut findings);
        }
        self.check_service_workers(machine, &mut findings);
        self.check_ports(machine, &mut findings);
        findings.into_result(())
    }

    /// The queues to bind on an interface that has `queues` of them, in the order of the file.
    #[must_use]
    pub fn queue_ids(&self, queues: u32) -> Vec<u32> {
        match &self.interface.queues {
            Queues::All => (0..queues).collect(),
            Queues::List(list) => list.clone(),
        }
    }

    /// The core of each worker on `machine`; worker N runs on the Nth.
    ///
    /// `"auto"` is one worker for each queue, as far as there are cores. The lowest core is left to
    /// the kernel, the control plane and everything else, unless it is the only one.
    #[must_use]
    pub fn worker_cores(&self, machine: &Machine) -> Vec<usize> {
        match &self.workers.cores {
            Cores::List(list) => list.clone(),
            Cores::Auto => {
                let mut cores = machine.cores.clone();
                cores.sort_unstable();
                cores.dedup();
                let spare = usize::from(cores.len() > 1);
                let queues = match (&self.interface.queues, &machine.interface) {
                    (Queues::List(list), _) => list.len(),
                    (Queues::All, Some(interface)) => interface.queues as usize,
                    (Queues::All, None) => 1,
                };
                cores.into_iter().skip(spare).take(queues.max(1)).collect()
            }
        }
    }

    fn check_cores(&self, machine: &Machine, findings: &mut Findings) {
        let Cores::List(cores) = &self.workers.cores else {
            return;
        };
        for (position, core) in cores.iter().enumerate() {
            if !machine.cores.contains(core) {
                let message = format!(
                    "no such core: this process may run on {}",
                    ranges(&machine.cores)
                );
                let key = format!("workers.cores[{position}]");
                findings.add(&self.source, &key, core, message);
            }
        }
    }

    fn check_queues(&self, machine: &Machine, interface: &InterfaceFacts, findings: &mut Findings) {
        let InterfaceFacts {
            name,
            queues: count,
            ..
        } = interface;
        if let Queues::List(queues) = &self.interface.queues {
            for (position, queue) in queues.iter().enumerate() {
                if queue >= count {
                    let message = match count.checked_sub(1) {
                        Some(last) => format!("no such queue: {name} has queues 0 to {last}"),
                        None => format!("no such queue: {name} has none"),
                    };
                    let key = format!("interface.queues[{position}]");
                    findings.add(&self.source, &key, queue, message);
                }
            }
            // The relation between the two lists was checked when the file was read.
            return;
        }
        let workers = self.worker_cores(machine).len();
        if workers > *count as usize {
            let message = format!(
                "{workers} cores for the {count} queues of {name}: a worker without a queue would \
                 never receive"
            );
            findings.add(&self.source, "workers.cores", &self.workers.cores, message);
        }
    }

    fn check_addresses(&self, interface: &InterfaceFacts, findings: &mut Findings) {
        let name = &interface.name;
        let kernel_has = |address: IpAddr| {
            interface
                .addresses
                .iter()
                .any(|kernel| kernel.address == address)
        };
        let own = || {
            self.services
                .iter()
                .flat_map(|service| &service.own_addresses)
        };
        for (number, service) in self.services.iter().enumerate() {
            for (position, cidr) in service.own_addresses.iter().enumerate() {
                if kernel_has(cidr.address) {
                    let message = format!(
                        "the kernel has this address on {name}: remove it there \
                         (ip address del {cidr} dev {name}), or here and only listen on it"
                    );
                    let key = format!("service[{number}].own_addresses[{position}]");
                    findings.add(&self.source, &key, cidr, message);
                }
            }
            for (position, to) in service.connect.iter().enumerate() {
                if kernel_has(to.ip()) {
                    let message = format!(
                        "{name} has this address itself: nothing comes back from a wire that goes to \
                         ourselves"
                    );
                    let key = format!("service[{number}].connect[{position}]");
                    findings.add(&self.source, &key, to, message);
                }
            }
            for (position, listener) in service.listen.iter().enumerate() {
                let address = listener.ip();
                let known = address.is_unspecified()
                    || kernel_has(address)
                    || own().any(|cidr| cidr.address == address);
                if !known {
                    let message = format!(
                        "{name} does not have this address, and no own_addresses do; there are {}",
                        any_of(
                            interface
                                .addresses
                                .iter()
                                .chain(own())
                                .map(|cidr| cidr.address)
                        )
                    );
                    let key = format!("service[{number}].listen[{position}]");
                    findings.add(&self.source, &key, listener, message);
                }
            }
        }
    }

    /// Workers that open connections have ports of their own.
    fn check_ports(&self, machine: &Machine, findings: &mut Findings) {
        let workers = self.worker_cores(machine).len();
        let ports = self.tcp.ports;
        if self.opens_connections() && (ports.count() as usize) < workers {
            let message = format!(
                "must be {workers} ports at least, one for each worker, since services open connections"
            );
            findings.add(&self.source, "tcp.ports", ports, message);
        }
    }

    fn check_mtu(&self, interface: &InterfaceFacts, findings: &mut Findings) {
        let InterfaceFacts { name, mtu, .. } = interface;
        let frame_size = self.rings.frame_size;
        if *mtu > mtu_max(frame_size) {
            let way_out = if *mtu <= mtu_max(4096) {
                "set it to 4096".into()
            } else {
                format!(
                    "no frame is that large: ip link set {name} mtu {}",
                    mtu_max(4096)
                )
            };
            let message = format!(
                "the MTU of {name} is {mtu}, and a frame holds packets of {} bytes: {way_out}",
                mtu_max(frame_size)
            );
            findings.add(&self.source, "rings.frame_size", frame_size, message);
        }
    }

    /// With `cores = "auto"` the number of workers is known only here.
    fn check_service_workers(&self, machine: &Machine, findings: &mut Findings) {
        let knows_queues = machine.interface.is_some() || self.interface.queues != Queues::All;
        if self.workers.cores != Cores::Auto || !knows_queues {
            return;
        }
        let count = self.worker_cores(machine).len();
        let place = format!("workers.cores = \"auto\" gives {count} on this machine");
        for (number, service) in self.services.iter().enumerate() {
            if let ServiceWorkers::List(list) = &service.workers {
                let key = format!("service[{number}].workers");
                worker_indices(&self.source, findings, &key, list, count, &place);
            }
        }
    }
}

/// `0-3,5`, as the kernel writes lists of cores.
fn ranges(cores: &[usize]) -> String {
    let mut cores = cores.to_vec();
    cores.sort_unstable();
    cores.dedup();
    let runs = cores.chunk_by(|a, b| a + 1 == *b).map(|run| match run {
        [one] => one.to_string(),
        [first, .., last] => format!("{first}-{last}"),
        [] => String::new(),
    });
    any_of(runs)
}

/// A list for a message; `none` where it is empty.
fn any_of<T: fmt::Display>(items: impl Iterator<Item = T>) -> String {
    let list: Vec<String> = items.map(|item| item.to_string()).collect();
    if list.is_empty() {
        "none".into()
    } else {
        list.join(", ")
    }
}
