//! The states of a neighbour, and what comes of what is asked and heard about it.

use crate::link::{AddressOwner, MacAddr};
use crate::time::Instant;

/// The states as `ip neigh` names them, and [`Mirrored`](Self::Mirrored).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeighborState {
    /// Asked for, no answer yet.
    Incomplete,
    /// Confirmed recently.
    Reachable,
    /// Known, but not confirmed for a while; nobody uses it.
    Stale,
    /// In use again, waiting for a confirmation from above.
    Delay,
    /// In use and asked for a confirmation.
    Probe,
    /// Known to the kernel, which looks after it.
    Mirrored,
}

/// Whom to ask for a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Nobody: somebody was asked already.
    Nobody,
    /// The neighbour: send an ARP request to everybody, or a neighbour solicitation to the
    /// solicited-node group.
    Neighbor,
    /// The kernel, by way of the control plane.
    Kernel,
}

/// What became of a packet to a neighbour that [`NeighborCache::lookup`](super::NeighborCache::lookup) did not know.
#[must_use = "it may hold a packet"]
#[derive(Debug, PartialEq, Eq)]
pub enum Resolve<P> {
    /// The neighbour is known: the packet can be sent.
    Resolved(MacAddr, P),
    /// The packet waits.
    Waiting {
        /// Whom to ask.
        ask: Ask,
        /// A packet that had to make room: an older one to the same neighbour (RFC 1122
        /// §2.3.2.2: keep the latest), or the oldest to another, or this one itself if none may
        /// wait. It is dropped.
        displaced: Option<P>,
    },
    /// The cache is full of mirrored neighbours. The packet is dropped.
    Full(P),
}

/// What a change of a neighbour released.
#[must_use = "it may hold packets"]
#[derive(Debug, PartialEq, Eq)]
pub struct Update<P> {
    /// A packet that waited for this neighbour and can be sent to it now.
    pub ready: Option<P>,
    /// A packet to a neighbour that was given up to make room. It is dropped.
    pub evicted: Option<P>,
    /// Whether the neighbour was left out because the cache is full of mirrored ones.
    pub full: bool,
}

impl<P> Update<P> {
    pub(super) const NOTHING: Self = Self {
        ready: None,
        evicted: None,
        full: false,
    };
}

/// What is to be done because time has passed.
#[must_use = "it may hold a packet"]
#[derive(Debug, PartialEq, Eq)]
pub enum NeighborAction<A, P> {
    /// Ask everybody: an ARP request to the broadcast address, or a neighbour solicitation to the
    /// solicited-node group (RFC 4861 §7.2.2).
    SolicitMulticast {
        /// Who is looked for.
        address: A,
    },
    /// Ask the neighbour itself whether it is still there (RFC 4861 §7.3.3, RFC 1122 §2.3.2.1 (2)).
    SolicitUnicast {
        /// Who is asked.
        address: A,
        /// Where it was last.
        mac: MacAddr,
    },
    /// The neighbour does not answer and is forgotten.
    Failed {
        /// Who.
        address: A,
        /// A packet that waited for it; its sender is told "host unreachable" (RFC 4861 §7.2.2).
        waiting: Option<P>,
    },
}

/// What is known about one neighbour.
#[derive(Debug)]
pub(super) struct Entry<A, P> {
    pub(super) address: A,
    pub(super) state: State<P>,
}

#[derive(Debug)]
pub(super) enum State<P> {
    Incomplete {
        resolver: AddressOwner,
        /// Solicitations sent.
        solicits: u8,
        /// When the resolver was asked last.
        asked_at: Option<Instant>,
        waiting: Option<P>,
    },
    Reachable {
        mac: MacAddr,
        confirmed_at: Instant,
    },
    Stale {
        mac: MacAddr,
    },
    Delay {
        mac: MacAddr,
    },
    Probe {
        mac: MacAddr,
        /// Solicitations sent.
        solicits: u8,
    },
    Mirrored {
        mac: MacAddr,
        /// When the kernel is to be asked to look after it, once it is in use.
        refresh_at: Option<Instant>,
    },
}

impl<P> State<P> {
    #[inline]
    pub(super) fn mac(&self) -> Option<MacAddr> {
        match *self {
            Self::Incomplete { .. } => None,
            Self::Reachable { mac, .. }
            | Self::Stale { mac }
            | Self::Delay { mac }
            | Self::Probe { mac, .. }
            | Self::Mirrored { mac, .. } => Some(mac),
        }
    }

    pub(super) fn public(&self) -> NeighborState {
        match self {
            Self::Incomplete { .. } => NeighborState::Incomplete,
            Self::Reachable { .. } => NeighborState::Reachable,
            Self::Stale { .. } => NeighborState::Stale,
            Self::Delay { .. } => NeighborState::Delay,
            Self::Probe { .. } => NeighborState::Probe,
            Self::Mirrored { .. } => NeighborState::Mirrored,
        }
    }
}
