//! A mirror of what the kernel knows about our interface: link, addresses, routes, neighbours.
//!
//! ```text
//!   kernel ── multicast groups ──► [events] ──► Mirror ──► MirrorEvent::{Link, Neighbor, Gone}
//!     ▲                                          │  ▲
//!     └───────── dumps, neighbour requests ──────┘  └── MirrorHandle::request_neighbor
//! ```
//!
//! A notification about a link, an address or a route only says *that* something changed: a few
//! milliseconds later the mirror asks for the whole and publishes it if it differs. The kernel does
//! not announce everything (IPv4 routes vanish silently with their link, `fib_sync_down_dev` in
//! `net/ipv4/fib_semantics.c`), so adding up notifications would drift. Neighbours change too often
//! for that and are followed one by one; when the kernel says that notifications were lost
//! (`ENOBUFS`), all of them are read again.
//!
//! What is mirrored, and what is not:
//!
//! * the tables `local` and `main`; policy rules and VRFs are not looked at
//! * of a multipath route the first live nexthop on our interface, so flows the kernel would spread
//!   over several interfaces all leave through ours
//! * routes that leave elsewhere, where they cut into ours ([`RouteKind::ElsewhereInterface`])
//!
//! [`RouteKind::ElsewhereInterface`]: stack::ip::route::RouteKind::ElsewhereInterface

mod dump;
mod interface;
mod mirror;
mod neighbors;
mod routes;

pub use mirror::{Mirror, MirrorHandle};

use dump::Dumper;
use interface::Interface;
use stack::link::{LinkState, NeighborUpdate};
use std::{fmt, io};

/// What to mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorConfig {
    /// The interface whose queues we use, by name.
    pub interface: String,
    /// VLAN identifiers of our frames, outermost first; empty for untagged ones. With any, the
    /// addresses, routes and neighbours are those of the kernel's VLAN sub-interface with the same
    /// identifiers; frames still go through `interface`.
    pub vlans: Vec<u16>,
    /// Whether there may be no such sub-interface. Then there are no addresses, routes and
    /// neighbours either; Ethernet address and MTU are those of the interface.
    pub vlan_optional: bool,
    /// How many routes are taken over at most. If the kernel has more, those with the longest
    /// prefixes are taken and the rest is logged: a packet may then find no route, but never a
    /// wrong one.
    pub route_limit: usize,
}

/// What changed.
#[derive(Clone, Debug)]
pub enum MirrorEvent {
    /// The link, an address or a route: all of them as they now are.
    Link(LinkState),
    /// One neighbour. A `Remove` may be about one that was never set: it was asked for and does not
    /// answer.
    Neighbor(NeighborUpdate),
    /// The interface, or its VLAN sub-interface, was removed; all its neighbours were removed just
    /// before. If it returns under the same name,
    /// the next event is `Link`; its index is then another, so AF_XDP sockets must be made anew.
    Gone,
}

/// Why there is no mirror.
#[derive(Debug)]
pub enum MirrorError {
    /// There is no such interface.
    NoInterface {
        /// Its name.
        interface: String,
    },
    /// There is no VLAN sub-interface with these identifiers.
    NoVlan {
        /// The interface it should be over.
        parent: String,
        /// The first identifier that is missing.
        vlan: u16,
    },
    /// It is not an Ethernet interface.
    NotEthernet {
        /// Its name.
        interface: String,
    },
    /// The kernel refused a question.
    Refused {
        /// What was asked for.
        what: &'static str,
        /// What it answered.
        error: io::Error,
    },
    /// Tables kept changing while they were read.
    Unsteady {
        /// What was asked for.
        what: &'static str,
    },
    /// The netlink socket could not be made, or broke.
    Socket(io::Error),
}

impl fmt::Display for MirrorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoInterface { interface } => {
                write!(
                    f,
                    "there is no interface {interface}; `ip link` lists those there are"
                )
            }
            Self::NoVlan { parent, vlan } => write!(
                f,
                "there is no VLAN sub-interface with id {vlan} over {parent}; make one with \
                 `ip link add link {parent} name {parent}.{vlan} type vlan id {vlan}` and give it \
                 the addresses"
            ),
            Self::NotEthernet { interface } => {
                write!(f, "{interface} is not an Ethernet interface")
            }
            Self::Refused { what, error } => write!(f, "the kernel did not list {what}: {error}"),
            Self::Unsteady { what } => {
                write!(
                    f,
                    "the kernel's {what} changed faster than they could be read"
                )
            }
            Self::Socket(error) => write!(f, "netlink socket: {error}"),
        }
    }
}

impl std::error::Error for MirrorError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Refused { error, .. } | Self::Socket(error) => Some(error),
            Self::NoInterface { .. }
            | Self::NoVlan { .. }
            | Self::NotEthernet { .. }
            | Self::Unsteady { .. } => None,
        }
    }
}

/// The interface as it is now, without following it. Blocks for a few milliseconds; not to be
/// called from within a tokio runtime.
///
/// # Errors
/// As [`Mirror::open`].
pub fn snapshot(config: &MirrorConfig) -> Result<LinkState, MirrorError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(MirrorError::Socket)?;
    runtime.block_on(async {
        let dumper = Dumper::open()?;
        let interface = Interface::find(&dumper.links().await?, config, None)?;
        let read = mirror::read(&dumper, interface).await?;
        Ok(read.link_state(config))
    })
}
