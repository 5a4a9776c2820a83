//! The engine on AF_XDP: the load's frames go straight to the queues of an interface and come straight
//! from them, over the dataplane's own driver and behind its own steering. It takes a fraction of the
//! CPU time of kernel sockets, so that the server is the limit and not the client.
//!
//! * `path`: interface, addresses and next hop, as the kernel would choose them
//! * [`frame`]: requests as frames, and what a received frame is
//! * [`engine`]: the loop, one thread with queues of its own
//!
//! ```text
//!                        ┌───────────────────────────── this program ──────────────────────────────┐
//!   NIC ─► XDP program ──┼─► ring ─► frame::read ─► load ─► frame::write ─► ring ─► one system call ┼─► NIC
//!             │          └──────────────────────────────────────────────────────────────────────────┘
//!             └─► kernel: whatever is not a reply to one of our flows
//! ```
//!
//! Each flow's source port is held by a kernel socket that never sends: so the kernel gives the port
//! to nobody else, and refuses nothing that arrives before steering is on or after it is off. The
//! program is attached by a link that goes with this process, so nothing stays behind.
pub mod engine;
pub mod frame;
pub(super) mod path;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use config::Mode;
use dataplane::driver::{AfXdp, AfXdpOptions, Driver, DriverReport, Interface};
use dataplane::steering::{ExactRule, Protocol, RuleSet, Steering, SteeringError};

use super::kernel::open_flows;
use crate::queues::Queues;
use engine::{Neighbor, STRAYS_MAX, Unfinished, XdpEngine};
use frame::{Ends, Frames, headers_len};

/// What the engine may be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XdpOptions {
    /// Interface to use; if none, that of the kernel's route to the target.
    pub interface: Option<String>,
    /// Mode to obtain.
    pub mode: Mode,
}

/// What was obtained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XdpReport {
    /// The interface.
    pub interface: String,
    /// Its kernel driver.
    pub driver: String,
    /// `zero-copy`, `copy` or `generic`.
    pub mode: String,
    /// Queues in use, over all threads.
    pub queues: usize,
    /// Modes that were tried before and could not be had, with the reasons.
    pub refusals: Vec<String>,
}

/// Everything set up, and everything undone when it is dropped.
#[derive(Debug)]
pub struct Setup {
    /// An engine for each thread, to be taken out and driven.
    pub engines: Vec<XdpEngine>,
    /// What was obtained.
    pub report: XdpReport,
    /// Detaches the program; before the sockets of the engines close, if those are still here.
    _steering: Steering,
    /// Hold the flows' ports.
    _ports: Vec<UdpSocket>,
}

/// Chunks of packet memory that the kernel takes, less what a packet cannot use of them
/// (`FRAME_HEADROOM` of the driver).
pub(super) const CHUNK_SIZES: [u32; 2] = [2048, 4096];
pub(super) const HEADROOM: usize = 256;

impl Setup {
    /// Opens all queues of the interface, dealt out to as many threads as `shares` has entries, each
    /// with that many flows of requests of `size` bytes to `target`.
    ///
    /// # Errors
    /// A sentence that says what is wrong and what to do.
    pub fn open(
        options: &XdpOptions,
        target: SocketAddr,
        source: Option<IpAddr>,
        shares: &[usize],
        size: usize,
    ) -> Result<Self, String> {
        let path = path::find(target, source, options.interface.as_deref())?;
        let interface = Interface::by_name(&path.interface).map_err(|error| error.to_string())?;
        let chunk_size = chunk_size(&interface, target.is_ipv6(), size)?;
        let queues = deal(interface.queues(), shares.len(), &interface.name)?;
        let ports = open_flows(target, Some(path.source), shares.iter().sum())?;
        let port_of = |socket: &UdpSocket| socket.local_addr().map(|address| address.port());
        let numbers: Vec<u16> = ports
            .iter()
            .map(port_of)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("cannot read a socket's port: {error}"))?;
        let ends = Ends {
            mac: interface.mac,
            next_hop_mac: path.next_hop_mac,
            source: path.source,
            target,
        };
        let rules = rules(&ends, &numbers);
        let frames = Arc::new(Frames::new(ends, numbers, size)?);
        let name = &interface.name;
        let driver_options = |attempt| {
            let options = |queues: &Vec<u32>| AfXdpOptions {
                chunk_size,
                ..AfXdpOptions::new(name, queues.clone(), attempt)
            };
            queues.iter().map(options).collect()
        };
        let opened = crate::queues::open(name, options.mode, &[], driver_options)?;
        let Queues {
            drivers,
            mut steering,
            refusals,
        } = opened;
        let report = report(&drivers, refusals);
        steer(&mut steering, &interface, &[path.source], &rules)
            .map_err(|error| error.to_string())?;
        Ok(Self {
            engines: engines(drivers, &frames, shares),
            report,
            _steering: steering,
            _ports: ports,
        })
    }
}

/// The smallest chunks that requests of `size` bytes fit.
fn chunk_size(interface: &Interface, ipv6: bool, size: usize) -> Result<u32, String> {
    // The interface's MTU is a number of 32 bits.
    let headers = headers_len(ipv6) - stack::wire::ethernet::HEADER_LEN;
    let size_max = (interface.mtu as usize).saturating_sub(headers);
    let fits = |chunk: &u32| headers_len(ipv6) + size <= *chunk as usize - HEADROOM;
    match CHUNK_SIZES.into_iter().find(fits) {
        Some(chunk) if size <= size_max => Ok(chunk),
        _ => {
            let frame_max = CHUNK_SIZES[1] as usize - HEADROOM - headers_len(ipv6);
            Err(format!(
                "--size {size} does not fit a packet of {} (MTU {}): at most {}; the xdp engine does \
                 not fragment",
                interface.name,
                interface.mtu,
                size_max.min(frame_max)
            ))
        }
    }
}

/// Queues `0..count`, dealt out to `threads`.
pub(super) fn deal(count: u32, threads: usize, interface: &str) -> Result<Vec<Vec<u32>>, String> {
    if threads > count as usize {
        return Err(format!(
            "{threads} threads are more than the {count} queues of {interface}: each thread of the xdp \
             engine needs a queue of its own (`ethtool -L {interface} combined {threads}` makes more \
             where the driver can)"
        ));
    }
    Ok((0..threads)
        .map(|thread| (0..count).skip(thread).step_by(threads).collect())
        .collect())
}

/// Replies to our flows and nothing else.
fn rules(ends: &Ends, ports: &[u16]) -> RuleSet {
    let exact = ports
        .iter()
        .map(|&port| ExactRule {
            protocol: Protocol::Udp,
            local: SocketAddr::new(ends.source, port),
            remote: SocketAddr::new(ends.target.ip(), ends.target.port()),
        })
        .collect();
    RuleSet {
        exact,
        ..RuleSet::default()
    }
}

pub(super) fn steer(
    steering: &mut Steering,
    interface: &Interface,
    locals: &[IpAddr],
    rules: &RuleSet,
) -> Result<(), SteeringError> {
    steering.set_mac(interface.mac)?;
    steering.set_locals(locals)?;
    steering.set_rules(rules)?;
    steering.set_enabled(true)
}

pub(super) fn report(drivers: &[AfXdp], refusals: Vec<String>) -> XdpReport {
    let of: &DriverReport = drivers
        .first()
        .expect("invariant: there is a thread, and so a driver")
        .report();
    XdpReport {
        interface: of.interface.clone(),
        driver: of.driver.clone(),
        mode: of.mode.to_string(),
        queues: drivers
            .iter()
            .map(|driver| driver.report().queues.len())
            .sum(),
        refusals,
    }
}

/// An engine for each driver, each with its share of the flows and a way to all others.
fn engines(drivers: Vec<AfXdp>, frames: &Arc<Frames>, shares: &[usize]) -> Vec<XdpEngine> {
    let mut first = 0;
    let mut ways = Vec::new();
    let mut receivers = Vec::new();
    for (driver, &share) in drivers.iter().zip(shares) {
        let (strays, receiver) = sync_channel(STRAYS_MAX);
        ways.push(Neighbor {
            flows: first..first + share,
            strays,
            waker: driver.waker(),
        });
        receivers.push(receiver);
        first += share;
    }
    let others = |mine: usize| {
        let others = ways.iter().enumerate().filter(|(index, _)| *index != mine);
        others.map(|(_, way)| way.clone()).collect()
    };
    drivers
        .into_iter()
        .zip(receivers)
        .zip(Unfinished::all(shares.len()))
        .enumerate()
        .map(|(index, ((driver, strays), unfinished))| {
            let flows = ways[index].flows.clone();
            let frames = Arc::clone(frames);
            XdpEngine::new(driver, frames, flows, others(index), strays, unfinished)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(mtu: u32) -> Interface {
        Interface {
            name: "eth0".into(),
            index: 2,
            driver: "veth".into(),
            mac: [2, 0, 0, 0, 0, 1],
            mtu,
            up: true,
            carrier: true,
            rx_queues: 4,
            tx_queues: 4,
            strips_vlan_tags: false,
        }
    }

    #[test]
    fn sizes_fit_the_packet_and_the_chunk() {
        assert_eq!(chunk_size(&interface(1500), false, 1472), Ok(2048));
        let error = chunk_size(&interface(1500), false, 1473).unwrap_err();
        assert!(error.contains("at most 1472"), "{error}");
        assert!(
            chunk_size(&interface(1500), true, 1472)
                .unwrap_err()
                .contains("1452")
        );
        assert_eq!(chunk_size(&interface(9000), false, 3798), Ok(4096));
        let error = chunk_size(&interface(9000), false, 3799).unwrap_err();
        assert!(error.contains("at most 3798"), "{error}");
    }

    #[test]
    fn every_queue_has_one_thread() {
        assert_eq!(deal(4, 2, "eth0"), Ok(vec![vec![0, 2], vec![1, 3]]));
        assert_eq!(deal(3, 1, "eth0"), Ok(vec![vec![0, 1, 2]]));
        let error = deal(1, 2, "eth0").unwrap_err();
        assert!(error.contains("combined 2"), "{error}");
    }

    #[test]
    fn only_replies_are_taken() {
        let ends = Ends {
            mac: [0; 6],
            next_hop_mac: [0; 6],
            source: "fe80::1".parse().unwrap(),
            target: "[fe80::2%4]:7".parse().unwrap(),
        };
        let rules = rules(&ends, &[5, 6]);
        assert_eq!(rules.exact.len(), 2);
        assert_eq!(rules.exact[1].local, "[fe80::1]:6".parse().unwrap());
        assert_eq!(rules.exact[1].remote, "[fe80::2]:7".parse().unwrap());
        assert!(rules.ports.is_empty() && rules.prefixes.is_empty() && rules.deny.is_empty());
    }
}
