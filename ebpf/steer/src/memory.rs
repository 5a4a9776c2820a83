//! The tables as ordinary collections: for tests, fuzzing and the comparison with the kernel.

use crate::tables::{Address, Config, ExactKey, FragmentKey, LocalKey, Tables, flag};
use alloc::collections::BTreeSet;
use core::cell::RefCell;
use core::net::IpAddr;

/// Tables in memory. Fill the sets, then call [`sync_flags`](Self::sync_flags).
#[derive(Clone, Debug, Default)]
pub struct MemoryTables {
    /// Switch, VLAN tags and the flags of tables with entries.
    pub config: Config,
    /// The deny list.
    pub deny: BTreeSet<LocalKey>,
    /// Connections.
    pub exact: BTreeSet<ExactKey>,
    /// Ports.
    pub ports: BTreeSet<LocalKey>,
    /// Addresses of this host.
    pub locals: BTreeSet<Address>,
    /// Address and prefix length in bits of what is ours whole. IPv4 lengths count from bit 96.
    pub prefixes: BTreeSet<(Address, u32)>,
    /// First fragments that were ours. Unlike the kernel's map it never forgets the oldest.
    pub fragments: RefCell<BTreeSet<FragmentKey>>,
}

impl MemoryTables {
    /// Sets the flags and shapes of the configuration to what the tables hold.
    pub fn sync_flags(&mut self) {
        let mut flags = self.config.flags & flag::ENABLED;
        if !self.exact.is_empty() {
            flags |= flag::EXACT;
        }
        for key in &self.ports {
            flags |= if key.address == key.address.any() {
                flag::PORTS_ANY
            } else {
                flag::PORTS
            };
        }
        if !self.prefixes.is_empty() {
            flags |= flag::PREFIXES;
        }
        self.config.flags = flags;
        self.config.deny_shapes = self
            .deny
            .iter()
            .fold(0, |shapes, key| shapes | (1 << key.deny_shape()));
    }
}

fn bits(address: Address) -> u128 {
    match IpAddr::from(address) {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

impl Tables for MemoryTables {
    fn flags(&self) -> u32 {
        self.config.flags
    }

    fn deny_shapes(&self) -> u32 {
        self.config.deny_shapes
    }

    fn vlan_stack(&self) -> u32 {
        self.config.vlan_stack
    }

    fn mac(&self) -> [u32; 2] {
        self.config.mac
    }

    fn deny(&self, key: &LocalKey) -> bool {
        self.deny.contains(key)
    }

    fn exact(&self, key: &ExactKey) -> bool {
        self.exact.contains(key)
    }

    fn port(&self, key: &LocalKey) -> bool {
        self.ports.contains(key)
    }

    fn local(&self, address: &Address) -> bool {
        self.locals.contains(address)
    }

    fn prefix(&self, address: &Address) -> bool {
        self.prefixes.iter().any(|(prefix, len)| {
            // A shift by 128 (length zero) leaves nothing to compare.
            let differing = bits(*prefix) ^ bits(*address);
            differing.checked_shr(128 - (*len).min(128)).unwrap_or(0) == 0
        })
    }

    fn fragment(&self, key: &FragmentKey) -> bool {
        self.fragments.borrow().contains(key)
    }

    fn remember_fragment(&self, key: &FragmentKey) {
        self.fragments.borrow_mut().insert(*key);
    }

    fn forget_fragment(&self, key: &FragmentKey) {
        self.fragments.borrow_mut().remove(key);
    }
}
