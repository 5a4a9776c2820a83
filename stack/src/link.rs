//! What the control plane tells a stack about the interface it lives on. The control plane builds
//! these away from the workers; a worker swaps them in whole.

use crate::ip::route::RouteTable;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};

/// An Ethernet address.
pub type MacAddr = [u8; 6];

/// Who answers ARP, neighbour discovery and ping for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressOwner {
    /// The kernel has the address too, and answers for it; the default.
    Kernel,
    /// A service owns the address: the kernel does not know it, and the stack answers for it.
    Stack,
}

/// One address of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalAddress {
    /// The address.
    pub address: IpAddr,
    /// Length of its on-link prefix, in bits.
    pub prefix_len: u8,
    /// The IPv4 broadcast address of its subnet, where it has one.
    pub broadcast: Option<Ipv4Addr>,
    /// Who answers for it.
    pub owner: AddressOwner,
}

/// The interface, its addresses and the routes that leave through it. Replaced whole.
#[derive(Clone, Debug, Default)]
pub struct LinkState {
    /// Our Ethernet address.
    pub mac: MacAddr,
    /// Largest IP packet the link carries, in bytes.
    pub mtu: u32,
    /// Whether the link has a carrier.
    pub up: bool,
    /// Every address packets may be for.
    pub addresses: Vec<LocalAddress>,
    /// Where packets go next.
    pub routes: RouteTable,
}

/// A change of one neighbour, mirrored from the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeighborUpdate {
    /// `address` is at `mac`.
    Set {
        /// The neighbour.
        address: IpAddr,
        /// Where it is.
        mac: MacAddr,
    },
    /// `address` is gone or does not answer.
    Remove {
        /// The neighbour.
        address: IpAddr,
    },
}

impl NeighborUpdate {
    /// The neighbour.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        match *self {
            Self::Set { address, mac: _ } | Self::Remove { address } => address,
        }
    }
}
