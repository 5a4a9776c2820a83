//! Connections of our own stack over AF_XDP: the client costs a fraction of what kernel sockets cost, so
//! that the server is the limit.
//!
//! * [`transport`]: one thread, with queues, a stack and connections of its own
//!
//! ```text
//!                     ┌───────────────────────── this program ─────────────────────────┐
//!   NIC ─► XDP program┼─► ring ─► stack ─► crowd, dialogue ─► stack ─► ring ─► one call ┼─► NIC
//!             │       └─────────────────────────────────────────────────────────────────┘
//!             └─► kernel: whatever is not of a connection of ours
//! ```
//!
//! Source addresses are the kernel's or our own. Of the kernel's, ports are held by kernel sockets that
//! never connect, so that the kernel gives them to nobody else, and single connections are steered. An
//! address the kernel does not have is ours whole: the stack answers ARP and neighbour discovery for it,
//! all of its ports are free, and nothing has to be held. A hundred thousand connections take a few of
//! those (`--source`).
//!
//! The port says whose connection it is: every thread has its own part of the range.

pub mod transport;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use dataplane::driver::{AfXdp, AfXdpOptions, Driver, Interface};
use dataplane::steering::{ExactRule, Prefix, Protocol, RuleSet, Steering};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
use rustix::rand::{GetRandomFlags, getrandom};
use stack::Config;
use stack::ip::route::{Route, RouteTable};
use stack::link::{AddressOwner, LinkState, LocalAddress};
use stack::tcp::config::TcpConfig;
use stack::time::Duration;

use super::run::TcpPlan;
use super::sources::Ports;
use crate::loadgen::xdp::engine::Unfinished;
use crate::loadgen::xdp::path;
use crate::loadgen::xdp::{CHUNK_SIZES, HEADROOM, XdpOptions, XdpReport, deal, report, steer};
use crate::queues::Queues;
use crate::socket::allow_open_sockets;
use transport::{Others, XdpTransport};

/// Ports for connections if none are given: those that Linux uses (`net.ipv4.ip_local_port_range`).
const PORTS_DEFAULT: &str = "32768-60999";

/// Single connections that steering has room for (`Capacity::default`).
const EXACT_MAX: usize = 65_536;

/// Ports for each connection that is kept: one to use, and another quarter for those that were lost and
/// whose port has to rest.
const SPARE_PORTS_DIVISOR: u64 = 4;
const SPARE_PORTS_MIN: u64 = 64;

/// Arrivals that may wait for the thread they are for. One that is so far behind has lost them anyway.
const STRAYS_MAX: usize = 4096;

/// How long a port rests when its connection was closed. A minute (RFC 9293 §3.6.1) would end every fast
/// run for want of ports; a second is what Linux lets it be with `net.ipv4.tcp_tw_reuse`, since timestamps
/// tell old segments from new ones (RFC 6191).
const TIME_WAIT: Duration = Duration::from_secs(1);

/// Everything set up, and everything undone when it is dropped.
#[derive(Debug)]
pub struct XdpSetup {
    /// What was obtained.
    pub report: XdpReport,
    /// Detaches the program.
    _steering: Steering,
    /// Hold ports of the kernel's addresses.
    _ports: Vec<OwnedFd>,
}

/// Source addresses, and who has them.
struct Addresses {
    kernel: Vec<IpAddr>,
    own: Vec<IpAddr>,
}

impl Addresses {
    /// `listed` are those that were asked for, `default` is what the kernel would take.
    fn new(listed: &[IpAddr], default: IpAddr) -> Self {
        if listed.is_empty() {
            return Self {
                kernel: vec![default],
                own: Vec::new(),
            };
        }
        // An address that can be bound is one the kernel has.
        let (kernel, own) = listed
            .iter()
            .partition(|&&address| UdpSocket::bind(SocketAddr::new(address, 0)).is_ok());
        Self { kernel, own }
    }
}

impl XdpSetup {
    /// Opens all queues of the interface for as many threads as `slots` has entries, each with room for that
    /// many connections.
    ///
    /// # Errors
    /// A sentence that says what is wrong and what to do.
    pub fn open(
        options: &XdpOptions,
        plan: &TcpPlan,
        slots: &[usize],
    ) -> Result<(Vec<XdpTransport>, Self), String> {
        // The way may not depend on an address that the kernel does not have.
        let way = path::find(plan.target, None, options.interface.as_deref())?;
        let addresses = Addresses::new(&plan.addresses, way.source);
        let interface = Interface::by_name(&way.interface).map_err(|error| error.to_string())?;
        let chunk_size = chunk_size(interface.mtu);
        let queues = deal(interface.queues(), slots.len(), &interface.name)?;
        let (pairs, held) = ports(plan, &addresses, slots)?;
        let rules = rules(plan.target, &addresses, &pairs);
        let name = &interface.name;
        let driver_options = |attempt| {
            let options = |queues: &Vec<u32>| AfXdpOptions {
                chunk_size,
                ..AfXdpOptions::new(name, queues.clone(), attempt)
            };
            queues.iter().map(options).collect()
        };
        let Queues {
            drivers,
            mut steering,
            refusals,
        } = crate::queues::open(name, options.mode, &[], driver_options)?;
        let report = report(&drivers, refusals);
        steer(&mut steering, &interface, &addresses.kernel, &rules)
            .map_err(|error| error.to_string())?;
        let secret = secret()?;
        let others = others(&drivers, &pairs);
        let transports = drivers
            .into_iter()
            .zip(pairs)
            .zip(others)
            .zip(slots)
            .zip(0u16..)
            .map(|((((driver, pairs), others), &slots), worker)| {
                let link = link(&interface, chunk_size, plan.target, &addresses);
                let config = stack_config(slots, plan.mode.is_fresh(), worker, secret);
                let neighbor = (plan.target.ip(), way.next_hop_mac);
                XdpTransport::new(
                    driver,
                    config,
                    link,
                    neighbor,
                    plan.target,
                    pairs,
                    others,
                    slots,
                )
            })
            .collect();
        let setup = Self {
            report,
            _steering: steering,
            _ports: held,
        };
        Ok((transports, setup))
    }
}

/// The smallest chunk that packets of the interface fit; larger packets than fit any are not sent.
fn chunk_size(mtu: u32) -> u32 {
    let fits = |chunk: &u32| mtu + ETHERNET_LEN + HEADROOM_BYTES <= *chunk;
    CHUNK_SIZES.into_iter().find(fits).unwrap_or(CHUNK_SIZES[1])
}

/// What the driver keeps free in front of a packet, in bytes.
const HEADROOM_BYTES: u32 = 256;
const _: () = assert!(HEADROOM_BYTES as usize == HEADROOM);

/// An Ethernet header, in bytes.
const ETHERNET_LEN: u32 = 14;
const _: () = assert!(ETHERNET_LEN as usize == stack::wire::ethernet::HEADER_LEN);

/// Local ends of connections, for each thread; and sockets that hold those of the kernel's addresses.
type Pairs = Vec<Vec<(IpAddr, u16)>>;

fn ports(
    plan: &TcpPlan,
    addresses: &Addresses,
    slots: &[usize],
) -> Result<(Pairs, Vec<OwnedFd>), String> {
    let range: Ports = match &plan.ports {
        Some(ports) => ports.clone(),
        None => PORTS_DEFAULT
            .parse()
            .expect("invariant: the default is a range of ports"),
    };
    let all = slots.iter().sum::<usize>() as u64;
    let wanted = if plan.mode.is_fresh() {
        u64::MAX
    } else {
        all + (all / SPARE_PORTS_DIVISOR).max(SPARE_PORTS_MIN)
    };
    let each = wanted.div_ceil((addresses.kernel.len() + addresses.own.len()) as u64);
    let each = u32::try_from(each).map_or(range.count(), |each| each.min(range.count()));
    let each = holdable(addresses.kernel.len(), each, all)?;
    let mut held = Vec::new();
    let mut pairs: Pairs = Vec::new();
    let threads = u32::try_from(slots.len()).unwrap_or(u32::MAX);
    for (thread, &slots) in (0..).zip(slots) {
        let share = range.share(thread, threads);
        let (first, last) = share.map_or((1, 0), |share| share.ends());
        let most = each.div_ceil(threads) as usize;
        let mut mine = Vec::new();
        for &address in &addresses.own {
            mine.extend((first..=last).take(most).map(|port| (address, port)));
        }
        for &address in &addresses.kernel {
            let free = (first..=last).filter_map(|port| {
                let socket = hold(address, port, plan.target)?;
                held.push(socket);
                Some((address, port))
            });
            mine.extend(free.take(most));
        }
        if mine.len() < slots {
            return Err(format!(
                "{} source ports are free for a thread's {slots} connections: use more --ports or \
                 --source addresses (one that the kernel does not have needs no sockets)",
                mine.len()
            ));
        }
        pairs.push(mine);
    }
    if held.len() > EXACT_MAX {
        return Err(format!(
            "{} ports of the kernel's addresses are more than the {EXACT_MAX} that can be steered: use \
             fewer --ports, or --source addresses that the kernel does not have",
            held.len()
        ));
    }
    Ok((pairs, held))
}

/// How many ports of each of the kernel's addresses can be held: all that are wanted, or as many as there
/// may be open sockets, if those do.
fn holdable(kernel_addresses: usize, wanted: u32, connections: u64) -> Result<u32, String> {
    let mut each = wanted;
    loop {
        match allow_open_sockets(kernel_addresses * each as usize) {
            Ok(()) => return Ok(each),
            Err(error) if u64::from(each / 2) < connections => return Err(error),
            Err(_) => each /= 2,
        }
    }
}

/// A socket that keeps the kernel from using a port; none if it does already.
fn hold(address: IpAddr, port: u16, target: SocketAddr) -> Option<OwnedFd> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None).ok()?;
    let mut local = SocketAddr::new(address, port);
    if let (SocketAddr::V6(local), SocketAddr::V6(target)) = (&mut local, target)
        && local.ip().is_unicast_link_local()
    {
        local.set_scope_id(target.scope_id());
    }
    bind(&socket, &local).ok()?;
    Some(socket)
}

/// Segments of our connections and nothing else; and whatever is for addresses that are ours whole.
fn rules(target: SocketAddr, addresses: &Addresses, pairs: &Pairs) -> RuleSet {
    let remote = SocketAddr::new(target.ip(), target.port());
    let exact = pairs
        .iter()
        .flatten()
        .filter(|(address, _)| addresses.kernel.contains(address))
        .map(|&(address, port)| ExactRule {
            protocol: Protocol::Tcp,
            local: SocketAddr::new(address, port),
            remote,
        })
        .collect();
    let prefixes = addresses
        .own
        .iter()
        .map(|&address| Prefix {
            address,
            len: host_bits(address),
        })
        .collect();
    RuleSet {
        exact,
        prefixes,
        ..RuleSet::default()
    }
}

const fn host_bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// The link as a stack sees it: its addresses, and one route, to the target. The next hop's Ethernet address
/// is told to it as the target's own.
fn link(
    interface: &Interface,
    chunk_size: u32,
    target: SocketAddr,
    addresses: &Addresses,
) -> Box<LinkState> {
    let local = |owner| {
        move |&address: &IpAddr| LocalAddress {
            address,
            prefix_len: host_bits(address),
            broadcast: None,
            owner,
        }
    };
    let kernel = addresses.kernel.iter().map(local(AddressOwner::Kernel));
    let own = addresses.own.iter().map(local(AddressOwner::Stack));
    let route = Route::on_link(target.ip(), host_bits(target.ip()));
    Box::new(LinkState {
        mac: interface.mac,
        mtu: interface
            .mtu
            .min(chunk_size - HEADROOM_BYTES - ETHERNET_LEN),
        up: true,
        addresses: kernel.chain(own).collect(),
        routes: RouteTable::new(vec![route], 1)
            .expect("invariant: a route to one host makes sense"),
    })
}

/// A stack that opens connections, as many at once as there are slots.
fn stack_config(slots: usize, fresh: bool, worker: u16, secret: [[u64; 2]; 2]) -> Config {
    // What was let go of has its place until the peer has acknowledged it.
    let slots = u32::try_from(slots).unwrap_or(u32::MAX);
    let connections = slots.saturating_mul(2).saturating_add(1024);
    Config {
        // Checksums of a kernel at the other end of a veth are never computed; they are counted.
        accept_incomplete_checksums: true,
        udp_sockets: 1,
        reassembly_bytes: 0,
        worker,
        // No stack hands segments to another here: the port says whose they are.
        workers: 1,
        announce: worker == 0,
        tcp: TcpConfig {
            connections,
            // As many as a second of connections leaves behind, at most.
            time_wait: if fresh { 65_536 } else { connections },
            time_wait_period: TIME_WAIT,
            // A request of each connection, and for bulk 32 MiB each way.
            send_chunks: connections.saturating_add(16_384),
            receive_chunks: (connections / 4).saturating_add(16_384),
            transmissions: connections.saturating_mul(2).saturating_add(65_536),
            out_of_order: 4096,
            secret: secret[1],
            ..TcpConfig::none()
        },
        secret: secret[0],
        ..Config::default()
    }
}

/// Random bits that nobody can guess, for hashes, and for sequence numbers.
fn secret() -> Result<[[u64; 2]; 2], String> {
    let mut bytes = [0; 32];
    match getrandom(&mut bytes, GetRandomFlags::empty()) {
        Ok(32) => {}
        Ok(_) => return Err("cannot draw random numbers".into()),
        Err(error) => return Err(format!("cannot draw random numbers: {error}")),
    }
    let (words, _) = bytes.as_chunks::<8>();
    let word = |index: usize| u64::from_ne_bytes(words[index]);
    Ok([[word(0), word(1)], [word(2), word(3)]])
}

/// For each thread the way to the others, and what they send it.
fn others(drivers: &[AfXdp], pairs: &Pairs) -> Vec<Others> {
    let mut ways = Vec::new();
    let mut receivers = Vec::new();
    for driver in drivers {
        let (strays, receiver) = sync_channel(STRAYS_MAX);
        ways.push((strays, driver.waker()));
        receivers.push(receiver);
    }
    let mut owners = BTreeMap::new();
    for (thread, pairs) in pairs.iter().enumerate() {
        for &(_, port) in pairs {
            owners.insert(port, thread);
        }
    }
    let mut owner_of = vec![usize::MAX; usize::from(u16::MAX) + 1];
    for (port, thread) in owners {
        owner_of[usize::from(port)] = thread;
    }
    let owner_of: Arc<[usize]> = owner_of.into();
    receivers
        .into_iter()
        .zip(Unfinished::all(drivers.len()))
        .enumerate()
        .map(|(thread, (receiver, unfinished))| Others {
            thread,
            // One thread has no others, and need not look whose a frame is.
            owner_of: (ways.len() > 1).then(|| Arc::clone(&owner_of)),
            ways: ways.clone(),
            receiver,
            unfinished: Some(unfinished),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_fit_their_chunks() {
        assert_eq!(chunk_size(1500), 2048);
        assert_eq!(chunk_size(1778), 2048);
        assert_eq!(chunk_size(1779), 4096);
        assert_eq!(chunk_size(9000), 4096);
    }

    #[test]
    fn only_our_connections_are_taken() {
        let addresses = Addresses {
            kernel: vec!["fd00::1".parse().unwrap()],
            own: vec!["fd00::99".parse().unwrap()],
        };
        let pairs = vec![
            vec![
                ("fd00::1".parse().unwrap(), 5),
                ("fd00::99".parse().unwrap(), 5),
            ],
            vec![("fd00::1".parse().unwrap(), 6)],
        ];
        let rules = rules("[fe80::2%4]:7".parse().unwrap(), &addresses, &pairs);
        assert_eq!(rules.exact.len(), 2);
        assert_eq!(rules.exact[1].local, "[fd00::1]:6".parse().unwrap());
        assert_eq!(rules.exact[1].remote, "[fe80::2]:7".parse().unwrap());
        assert_eq!(rules.prefixes.len(), 1);
        assert_eq!(rules.prefixes[0].len, 128);
        assert!(rules.ports.is_empty() && rules.deny.is_empty());
    }

    #[test]
    fn addresses_of_this_host_are_the_kernels() {
        let listed = ["127.0.0.1".parse().unwrap(), "192.0.2.77".parse().unwrap()];
        let Addresses { kernel, own } = Addresses::new(&listed, listed[0]);
        assert_eq!(
            (kernel.as_slice(), own.as_slice()),
            (&listed[..1], &listed[1..])
        );
    }
}
