//! What must hold between keys. Each check looks only at keys that are right by themselves, so that
//! one mistake is one error.

use crate::error::{Findings, Source};
use crate::schema::{
    Application, Config, Cores, Protocol, Queues, Rings, Service, ServiceWorkers, Steering, Workers,
};
use crate::value::Deny;
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};

/// Every relation that the file alone decides.
pub(crate) fn check(config: &Config, findings: &mut Findings) {
    rings(config, findings);
    lists(config, findings);
    workers_have_queues(config, findings);
    queues_hold_a_batch(config, findings);
    tcp_memory(config, findings);
    service_names(config, findings);
    service_protocols(config, findings);
    service_workers(config, findings);
    listeners(config, findings);
    own_addresses(config, findings);
    connections(config, findings);
    denied_ports(config, findings);
}

fn rings(config: &Config, findings: &mut Findings) {
    let Config {
        rings,
        workers: Workers { batch, .. },
        source,
        ..
    } = config;
    let Rings {
        rx,
        tx,
        fill,
        completion,
        frames,
        ..
    } = rings;
    if findings.sound(&["rings.rx", "rings.fill"]) && fill < rx {
        let place = source.place("rings.rx");
        let message = format!(
            "must be at least rings.rx = {rx} ({place}): the NIC cannot fill an RX ring it has \
             fewer empty frames for"
        );
        findings.add(source, "rings.fill", fill, message);
    }
    if findings.sound(&["rings.tx", "rings.completion"]) && completion < tx {
        let place = source.place("rings.tx");
        let message = format!(
            "must be at least rings.tx = {tx} ({place}): every packet sent comes back through it"
        );
        findings.add(source, "rings.completion", completion, message);
    }
    for (key, depth) in [("rings.rx", rx), ("rings.tx", tx)] {
        if findings.sound(&[key, "workers.batch"]) && batch > depth {
            let place = source.place(key);
            let message = format!(
                "must be at most {key} = {depth} ({place}): a batch is one turn of the ring"
            );
            findings.add(source, "workers.batch", batch, message);
        }
    }
    let needed = rings.frames_needed(*batch);
    let parts = [
        "rings.rx",
        "rings.tx",
        "rings.fill",
        "rings.completion",
        "rings.frames",
        "workers.batch",
    ];
    if findings.sound(&parts) && *frames < needed {
        let message = format!(
            "must be at least {needed}: rx {rx} + tx {tx} + fill {fill} + completion {completion} \
             + workers.batch {batch}, so that no ring starves another"
        );
        findings.add(source, "rings.frames", frames, message);
    }
}

/// Lengths, and elements that appear twice.
fn lists(config: &Config, findings: &mut Findings) {
    let Config {
        interface,
        workers,
        steering,
        source,
        ..
    } = config;
    if let Queues::List(queues) = &interface.queues {
        not_empty(
            source,
            findings,
            "interface.queues",
            queues,
            "\"all\" or one queue at least",
        );
        no_repeats(source, findings, "interface.queues", queues);
    }
    if interface.vlan.len() > 2 {
        let message = "must be at most two VLAN identifiers: more tags are not steered";
        findings.add(source, "interface.vlan", "", message);
    }
    if let Cores::List(cores) = &workers.cores {
        not_empty(
            source,
            findings,
            "workers.cores",
            cores,
            "\"auto\" or one core at least",
        );
        no_repeats(source, findings, "workers.cores", cores);
    }
    no_repeats(source, findings, "steering.deny", &steering.deny);
    if steering.deny.len() > Steering::DENY_MAX {
        let message = format!("must be at most {} ports", Steering::DENY_MAX);
        findings.add(source, "steering.deny", "", message);
    }
}

fn not_empty<T>(source: &Source, findings: &mut Findings, key: &str, list: &[T], allowed: &str) {
    if list.is_empty() && findings.sound(&[key]) {
        findings.add(source, key, "[]", format!("must be {allowed}"));
    }
}

fn no_repeats<T: Hash + Eq + fmt::Display>(
    source: &Source,
    findings: &mut Findings,
    key: &str,
    list: &[T],
) {
    let mut seen: HashMap<&T, usize> = HashMap::new();
    for (index, value) in list.iter().enumerate() {
        if let Some(first) = seen.get(value) {
            let key_of = |index| format!("{key}[{index}]");
            let place = source.place(&key_of(*first));
            let message = format!(
                "must appear once; it is {} already ({place})",
                key_of(*first)
            );
            findings.add(source, &key_of(index), value, message);
        } else {
            seen.insert(value, index);
        }
    }
}

/// A worker without a queue would never receive.
fn workers_have_queues(config: &Config, findings: &mut Findings) {
    let Config {
        interface,
        workers,
        source,
        ..
    } = config;
    let (Queues::List(queues), Cores::List(cores)) = (&interface.queues, &workers.cores) else {
        return;
    };
    if findings.sound(&["interface.queues", "workers.cores"]) && cores.len() > queues.len() {
        let place = source.place("interface.queues");
        let message = format!(
            "{} cores for {} of interface.queues ({place}): a worker without a queue would never \
             receive",
            cores.len(),
            queues.len(),
        );
        findings.add(source, "workers.cores", "", message);
    }
}

/// Whatever one batch can bring must have a place to wait.
fn queues_hold_a_batch(config: &Config, findings: &mut Findings) {
    let Config {
        workers,
        limits,
        services,
        source,
        ..
    } = config;
    let batch = workers.batch as usize;
    let key = "limits.egress_queue";
    if findings.sound(&[key, "workers.batch"]) && limits.egress_queue < batch {
        let place = source.place("workers.batch");
        let message = format!(
            "must be at least workers.batch = {batch} ({place}): the answers to one batch wait here"
        );
        findings.add(source, key, limits.egress_queue, message);
    }
    let sockets = [
        (Protocol::Udp, "limits.udp_sockets", limits.udp_sockets),
        (Protocol::Tcp, "limits.tcp_listeners", limits.tcp_listeners),
    ];
    for (protocol, key, limit) in sockets {
        let of = |service: &&Service| service.protocol == protocol;
        let services = services.iter().filter(of);
        let listeners: usize = services.map(|service| service.listen.len()).sum();
        if findings.sound(&[key]) && limit < listeners {
            let message = format!("must be at least {listeners}, the number of listeners below");
            findings.add(source, key, limit, message);
        }
    }
}

/// What one connection may hold there must be for all of them together.
fn tcp_memory(config: &Config, findings: &mut Findings) {
    let Config { limits, source, .. } = config;
    let relations: [(_, u64, _, u64, _); 3] = [
        (
            "limits.tcp_send_buffer",
            limits.tcp_send_buffer.into(),
            "limits.tcp_send_memory",
            limits.tcp_send_memory,
            "one connection cannot hold more than all have",
        ),
        (
            "limits.tcp_receive_buffer_max",
            limits.tcp_receive_buffer_max.into(),
            "limits.tcp_receive_memory",
            limits.tcp_receive_memory,
            "one connection cannot hold more than all have",
        ),
        (
            "limits.tcp_receive_buffer",
            limits.tcp_receive_buffer.into(),
            "limits.tcp_receive_buffer_max",
            limits.tcp_receive_buffer_max.into(),
            "it grows from the one to the other",
        ),
    ];
    for (key, value, bound_key, bound, why) in relations {
        if findings.sound(&[key, bound_key]) && value > bound {
            let place = source.place(bound_key);
            let message = format!("must be at most {bound_key} = {bound} ({place}): {why}");
            findings.add(source, key, value, message);
        }
    }
}

/// An application that its protocol cannot carry.
fn service_protocols(config: &Config, findings: &mut Findings) {
    let Config {
        services, source, ..
    } = config;
    for (index, service) in services.iter().enumerate() {
        let key = format!("service[{index}].application");
        let protocol = format!("service[{index}].protocol");
        let is_wrong =
            service.application == Application::Source && service.protocol == Protocol::Udp;
        if findings.sound(&[&key, &protocol]) && is_wrong {
            let place = source.place(&protocol);
            let message = format!(
                "needs protocol = \"tcp\" ({place}): over UDP nobody would tell it to stop"
            );
            findings.add(source, &key, service.application, message);
        }
    }
}

fn service_names(config: &Config, findings: &mut Findings) {
    let Config {
        services, source, ..
    } = config;
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for (index, service) in services.iter().enumerate() {
        let key = format!("service[{index}].name");
        if !findings.sound(&[&key]) {
            continue;
        }
        if let Some(first) = seen.get(service.name.as_str()) {
            let place = source.place(&format!("service[{first}].name"));
            let message = format!("must be a name of its own; another service has it ({place})");
            findings.add(source, &key, &service.name, message);
        } else {
            seen.insert(&service.name, index);
        }
    }
}

/// The workers a service names are workers there are.
fn service_workers(config: &Config, findings: &mut Findings) {
    let Config {
        workers,
        services,
        source,
        ..
    } = config;
    for (index, service) in services.iter().enumerate() {
        let ServiceWorkers::List(list) = &service.workers else {
            continue;
        };
        let key = format!("service[{index}].workers");
        not_empty(
            source,
            findings,
            &key,
            list,
            "\"all\" or one worker at least",
        );
        no_repeats(source, findings, &key, list);
        if let Cores::List(cores) = &workers.cores
            && findings.sound(&["workers.cores"])
        {
            let place = format!(
                "workers.cores has {} ({})",
                cores.len(),
                source.place("workers.cores")
            );
            worker_indices(source, findings, &key, list, cores.len(), &place);
        }
    }
}

/// Each of `list`, which is at `key`, is below `count`; `place` says where the count is from.
pub(crate) fn worker_indices(
    source: &Source,
    findings: &mut Findings,
    key: &str,
    list: &[usize],
    count: usize,
    place: &str,
) {
    for (position, worker) in list.iter().enumerate() {
        if *worker >= count {
            let message = match count.checked_sub(1) {
                Some(last) => format!("must be the index of a worker, from 0 to {last}: {place}"),
                None => format!("there is no worker: {place}"),
            };
            findings.add(source, &format!("{key}[{position}]"), worker, message);
        }
    }
}

/// Where a listener is: service, position in `listen`.
struct Listener<'a> {
    service: &'a Service,
    index: (usize, usize),
    address: SocketAddr,
}

impl Listener<'_> {
    fn key(&self) -> String {
        let (service, position) = self.index;
        format!("service[{service}].listen[{position}]")
    }

    /// Which IP version its wildcard stands for: none but its own, or (dual stack) both.
    fn takes(&self, address: IpAddr) -> bool {
        match self.address.ip() {
            IpAddr::V4(own) => address.is_ipv4() && (own.is_unspecified() || address == own),
            // RFC 3493 §5.3: [::] takes IPv4 too, unless IPV6_V6ONLY is set.
            IpAddr::V6(own) if own.is_unspecified() => address.is_ipv6() || !self.service.v6only,
            IpAddr::V6(own) => address == own,
        }
    }

    /// Whether one packet could be for both. As Linux sees it without SO_REUSEADDR, a wildcard
    /// overlaps every address of its version.
    fn overlaps(&self, other: &Self) -> bool {
        self.service.protocol == other.service.protocol
            && self.address.port() == other.address.port()
            && (self.takes(other.address.ip()) || other.takes(self.address.ip()))
    }
}

/// Every listener of every service, in the order of the file.
fn all_listeners(services: &[Service]) -> impl Iterator<Item = Listener<'_>> {
    services.iter().enumerate().flat_map(|(number, service)| {
        service
            .listen
            .iter()
            .enumerate()
            .map(move |(position, address)| Listener {
                service,
                index: (number, position),
                address: *address,
            })
    })
}

fn listeners(config: &Config, findings: &mut Findings) {
    let Config {
        services, source, ..
    } = config;
    for (index, service) in services.iter().enumerate() {
        let connect = format!("service[{index}].connect");
        if !service.connect.is_empty() || !findings.sound(&[&connect]) {
            continue;
        }
        let key = format!("service[{index}].listen");
        let allowed = match service.protocol {
            Protocol::Udp => "one address and port at least",
            Protocol::Tcp => "one address and port at least, or there must be some to connect to",
        };
        not_empty(source, findings, &key, &service.listen, allowed);
    }
    // By port, so that many services cost no more than the few on one port.
    let mut by_port: HashMap<u16, Vec<Listener<'_>>> = HashMap::new();
    for listener in all_listeners(services) {
        let same_port = by_port.entry(listener.address.port()).or_default();
        if let Some(earlier) = same_port.iter().find(|earlier| earlier.overlaps(&listener)) {
            let message = conflict(source, earlier, &listener);
            findings.add(source, &listener.key(), listener.address, message);
        }
        same_port.push(listener);
    }
}

/// What to say about two listeners one packet could be for.
fn conflict(source: &Source, earlier: &Listener<'_>, later: &Listener<'_>) -> String {
    let protocol = later.service.protocol;
    let whose = if earlier.index.0 == later.index.0 {
        "this service"
    } else {
        "another service"
    };
    let mut message = format!(
        "{whose} listens on {protocol} {} already ({} = \"{}\", {}): two listeners need two \
         addresses or two ports",
        later.address.port(),
        earlier.key(),
        earlier.address,
        source.place(&earlier.key()),
    );
    if earlier.address.is_ipv4() != later.address.is_ipv4() {
        message.push_str(
            "; \"[::]\" takes IPv4 as well unless v6only = true, so \"[::]\" alone serves both",
        );
    }
    message
}

fn own_addresses(config: &Config, findings: &mut Findings) {
    let Config {
        services, source, ..
    } = config;
    let mut seen: HashMap<IpAddr, String> = HashMap::new();
    for (number, service) in services.iter().enumerate() {
        for (position, own) in service.own_addresses.iter().enumerate() {
            let key = format!("service[{number}].own_addresses[{position}]");
            if let Some(first) = seen.get(&own.address) {
                let message = format!(
                    "an address has one owner, and {first} ({}) has it already",
                    source.place(first)
                );
                findings.add(source, &key, own, message);
            } else {
                seen.insert(own.address, key);
            }
        }
    }
}

/// Connections that services open.
fn connections(config: &Config, findings: &mut Findings) {
    let Config {
        services,
        steering,
        limits,
        tcp,
        source,
        ..
    } = config;
    let mut opened = [0u64; 2];
    for (number, service) in services.iter().enumerate() {
        let key = format!("service[{number}].connect");
        let protocol = format!("service[{number}].protocol");
        if service.connect.is_empty() || !findings.sound(&[&key, &protocol]) {
            continue;
        }
        if service.protocol == Protocol::Udp {
            let place = source.place(&protocol);
            let message = format!("needs protocol = \"tcp\" ({place}): UDP has no connections");
            findings.add(source, &key, "", message);
            continue;
        }
        no_repeats(source, findings, &key, &service.connect);
        for (position, to) in service.connect.iter().enumerate() {
            opened[usize::from(to.is_ipv6())] += u64::from(service.connections);
            let mut all = services.iter().flat_map(|service| &service.own_addresses);
            if all.any(|own| own.address == to.ip()) {
                let message = "a service owns this address: nothing comes back from a wire that goes \
                               to ourselves";
                findings.add(source, &format!("{key}[{position}]"), to, message);
            }
        }
        let key = format!("service[{number}].connections");
        if findings.sound(&[&key, "tcp.ports"]) && service.connections > tcp.ports.count() {
            let message = format!(
                "must be at most {}, the number of tcp.ports = \"{}\" ({}): each connection to an \
                 address has a port of its own",
                tcp.ports.count(),
                tcp.ports,
                source.place("tcp.ports"),
            );
            findings.add(source, &key, service.connections, message);
        }
    }
    let most = opened[0].max(opened[1]);
    let key = "limits.tcp_connections";
    if findings.sound(&[key]) && u64::from(limits.tcp_connections) < most {
        let message = format!("must be at least {most}, the connections that services open");
        findings.add(source, key, limits.tcp_connections, message);
    }
    if most == 0 || !findings.sound(&["tcp.ports", "steering.deny"]) {
        return;
    }
    // One address or all: what comes back to it would go to the kernel, which resets it.
    let hides = |deny: &Deny| deny.protocol.as_str() == "tcp" && tcp.ports.contains(deny.port);
    if let Some(position) = steering.deny.iter().position(hides) {
        let key = format!("steering.deny[{position}]");
        let message = format!(
            "{key} = \"{}\" ({}) leaves one of these ports to the kernel, but services connect from \
             them: choose a range without it",
            steering.deny[position],
            source.place(&key),
        );
        findings.add(source, "tcp.ports", tcp.ports, message);
    }
}

/// A port that always goes to the kernel cannot be a service's. Denying one address of a wildcard
/// listener is no contradiction: the service has the others.
fn denied_ports(config: &Config, findings: &mut Findings) {
    let Config {
        services,
        steering,
        source,
        ..
    } = config;
    for listener in all_listeners(services) {
        let hides = |deny: &Deny| {
            deny.protocol.as_str() == listener.service.protocol.as_str()
                && deny.port == listener.address.port()
                && deny
                    .address
                    .is_none_or(|address| address == listener.address.ip())
        };
        if let Some(position) = steering.deny.iter().position(hides) {
            let key = format!("steering.deny[{position}]");
            let message = format!(
                "{key} = \"{}\" ({}) leaves this port to the kernel: deny another port or listen \
                 on another",
                steering.deny[position],
                source.place(&key),
            );
            findings.add(source, &listener.key(), listener.address, message);
        }
    }
}
