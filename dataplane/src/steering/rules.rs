//! What is ours and what stays with the kernel, as the control plane says it.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use steer::Address;
use steer::tables::{ExactKey, LocalKey, flag};

/// A protocol whose ports steering knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// Its IP protocol number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => steer::parse::protocol::TCP,
            Self::Udp => steer::parse::protocol::UDP,
        }
    }
}

/// The local address of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// This one, while this host has it.
    Address(IpAddr),
    /// Any IPv4 address of this host. A dual-stack socket needs this and [`AnyV6`](Self::AnyV6).
    AnyV4,
    /// Any IPv6 address of this host.
    AnyV6,
}

impl Scope {
    /// `0.0.0.0` and `::` mean any address of the family, as in a socket address.
    fn address(self) -> Address {
        match self {
            Self::Address(address) => address.into(),
            Self::AnyV4 => Address::ANY_V4,
            Self::AnyV6 => Address::ANY_V6,
        }
    }
}

/// Reserves traffic for the kernel, whatever the other rules say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DenyRule {
    /// The IP protocol number; `None`: any, and ARP too where there is no port.
    pub protocol: Option<u8>,
    /// The local address; `None`: any, of both families.
    pub address: Option<IpAddr>,
    /// The local port; `None`: any, and packets without one.
    pub port: Option<u16>,
}

/// A port that is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortRule {
    /// The protocol.
    pub protocol: Protocol,
    /// The local address.
    pub scope: Scope,
    /// The local port.
    pub port: u16,
}

/// A connection that is ours. Both addresses are of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExactRule {
    /// The protocol.
    pub protocol: Protocol,
    /// Our end; the rule holds while this host has the address.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
}

/// Addresses that are ours whole: every packet for them, and ARP and neighbour discovery about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    /// An address of the prefix; bits beyond its length do not matter.
    pub address: IpAddr,
    /// How many leading bits count: at most 32 for IPv4, 128 for IPv6 (more is clamped).
    pub len: u8,
}

/// All rules. Their order means nothing; duplicates do no harm.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleSet {
    /// What always stays with the kernel.
    pub deny: Vec<DenyRule>,
    /// Connections.
    pub exact: Vec<ExactRule>,
    /// Ports.
    pub ports: Vec<PortRule>,
    /// Addresses that are ours whole.
    pub prefixes: Vec<Prefix>,
}

/// The key of a prefix: its length in bits of a 16-byte address, and that address.
pub(super) type PrefixKey = (u32, [u8; 16]);

impl RuleSet {
    pub(super) fn deny_keys(&self) -> BTreeSet<[u8; 24]> {
        self.deny_entries().map(|key| key.to_bytes()).collect()
    }

    /// Bits of [`Config::deny_shapes`](steer::Config::deny_shapes).
    pub(super) fn deny_shapes(&self) -> u32 {
        self.deny_entries()
            .fold(0, |shapes, key| shapes | (1 << key.deny_shape()))
    }

    fn deny_entries(&self) -> impl Iterator<Item = LocalKey> + '_ {
        self.deny.iter().flat_map(|rule| {
            let DenyRule {
                protocol,
                address,
                port,
            } = *rule;
            let addresses = match address {
                Some(address) => [Some(address.into()), None],
                None => [Some(Address::ANY_V4), Some(Address::ANY_V6)],
            };
            addresses
                .into_iter()
                .flatten()
                .map(move |address| LocalKey {
                    address,
                    port: port.unwrap_or(0).into(),
                    protocol: protocol.unwrap_or(0).into(),
                })
        })
    }

    pub(super) fn exact_keys(&self) -> BTreeSet<[u8; 40]> {
        let key = |rule: &ExactRule| {
            let ExactRule {
                protocol,
                local,
                remote,
            } = rule;
            let key = ExactKey {
                local: local.ip().into(),
                remote: remote.ip().into(),
                local_port: local.port(),
                remote_port: remote.port(),
                protocol: protocol.number().into(),
            };
            key.to_bytes()
        };
        self.exact.iter().map(key).collect()
    }

    pub(super) fn port_keys(&self) -> BTreeSet<[u8; 24]> {
        let key = |rule: &PortRule| {
            let PortRule {
                protocol,
                scope,
                port,
            } = *rule;
            let key = LocalKey {
                address: scope.address(),
                port: port.into(),
                protocol: protocol.number().into(),
            };
            key.to_bytes()
        };
        self.ports.iter().map(key).collect()
    }

    pub(super) fn prefix_keys(&self) -> BTreeSet<PrefixKey> {
        let key = |prefix: &Prefix| {
            let Prefix { address, len } = *prefix;
            let len = match address {
                IpAddr::V4(_) => 96 + u32::from(len.min(32)),
                IpAddr::V6(_) => u32::from(len.min(128)),
            };
            (len, masked(Address::from(address).to_bytes(), len))
        };
        self.prefixes.iter().map(key).collect()
    }

    /// Bits of [`Config::flags`](steer::Config::flags) for the tables that have entries.
    pub(super) fn flags(&self) -> u32 {
        let mut flags = 0;
        if !self.exact.is_empty() {
            flags |= flag::EXACT;
        }
        if !self.prefixes.is_empty() {
            flags |= flag::PREFIXES;
        }
        for rule in &self.ports {
            let address = rule.scope.address();
            flags |= if address == address.any() {
                flag::PORTS_ANY
            } else {
                flag::PORTS
            };
        }
        flags
    }
}

/// Keeps the first `len` bits: the kernel's trie treats 10.0.0.1/8 and 10.0.0.0/8 as one entry, so
/// the comparison of old and new rules must, too.
fn masked(address: [u8; 16], len: u32) -> [u8; 16] {
    let mask = u128::MAX.checked_shl(128 - len).unwrap_or(0);
    (u128::from_be_bytes(address) & mask).to_be_bytes()
}
