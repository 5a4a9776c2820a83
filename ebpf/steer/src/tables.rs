//! What a decision looks up: the layouts of keys and values, shared by the XDP program and user
//! space, and the [`Tables`] trait through which [`steer`](crate::steer) asks.
//!
//! Every layout is `repr(C)` and has no padding the compiler chose: the kernel hashes all bytes of
//! a key, so a byte nobody set would make equal keys differ.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Names of the maps in the object file.
pub mod map {
    /// [`Config`](super::Config), one entry.
    pub const CONFIG: &str = "CONFIG";
    /// What always stays with the kernel, by [`LocalKey`](super::LocalKey).
    pub const DENY: &str = "DENY";
    /// Connections, by [`ExactKey`](super::ExactKey).
    pub const EXACT: &str = "EXACT";
    /// Ports, by [`LocalKey`](super::LocalKey).
    pub const PORTS: &str = "PORTS";
    /// The addresses of this host, by [`Address`](super::Address).
    pub const LOCALS: &str = "LOCALS";
    /// Addresses that are ours whole, longest prefix first.
    pub const PREFIXES: &str = "PREFIXES";
    /// First fragments that were ours, by [`FragmentKey`](super::FragmentKey).
    pub const FRAGMENTS: &str = "FRAGMENTS";
    /// One `u64` per [`Verdict`](crate::Verdict) and CPU.
    pub const COUNTERS: &str = "COUNTERS";
    /// AF_XDP sockets, by queue.
    pub const SOCKETS: &str = "XSKS";
}

/// Name of the XDP program, as `ip link` and `bpftool` show it. The kernel keeps 15 bytes of it
/// (`BPF_OBJ_NAME_LEN`), and this is exactly 15.
pub const PROGRAM_NAME: &str = "dataplane_steer";

/// Queues with a slot for a socket. Most NICs have at most 128 queues, a few 256; a slot is one
/// pointer (2 KiB in all), and a queue beyond the last slot could not be steered.
pub const QUEUE_COUNT_MAX: u32 = 256;

/// Fragmented packets remembered at once, the least recently used leaves first. A packet is
/// complete or given up within 30 s (Linux `ipfrag_time`), but its fragments usually arrive
/// together: 8192 outlast a burst. Too low, and later fragments go to the kernel and are lost; an
/// entry costs about 100 bytes.
pub const FRAGMENT_COUNT_MAX: u32 = 8192;

/// An IP address in network byte order; IPv4 as `::ffff:a.b.c.d`. Words, not bytes, and aligned for
/// the largest load, so that copying or comparing one takes two instructions and not sixteen.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// The four words, each with its bytes in network order in memory.
    pub words: [u32; 4],
}

impl Address {
    /// "Any IPv4 address": `::ffff:0.0.0.0`, the unspecified address of the family.
    pub const ANY_V4: Address = Address::from_v4_word(0);
    /// "Any IPv6 address": `::`, the unspecified address of the family.
    pub const ANY_V6: Address = Address { words: [0; 4] };

    /// From the 32 bits of an IPv4 address in host byte order.
    #[inline]
    #[must_use]
    pub const fn from_v4_word(word: u32) -> Self {
        // RFC 4291 §2.5.5.2: 80 zero bits, 16 one bits, the IPv4 address.
        Self {
            words: [0, 0, 0xffff_u32.to_be(), word.to_be()],
        }
    }

    /// From the 128 bits of an IPv6 address, as four words in host byte order.
    #[inline]
    #[must_use]
    pub const fn from_v6_words(words: [u32; 4]) -> Self {
        let [a, b, c, d] = words;
        Self {
            words: [a.to_be(), b.to_be(), c.to_be(), d.to_be()],
        }
    }

    /// Whether it stands for an IPv4 address.
    #[inline]
    #[must_use]
    pub const fn is_v4(&self) -> bool {
        let [a, b, c, _] = self.words;
        (a | b) == 0 && c == 0xffff_u32.to_be()
    }

    /// The "any" address of its family.
    #[inline]
    #[must_use]
    pub const fn any(&self) -> Self {
        let [_, _, mapped, _] = Self::ANY_V4.words;
        Self {
            words: [0, 0, if self.is_v4() { mapped } else { 0 }, 0],
        }
    }
}

impl Address {
    /// The address's bytes, in network order.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 16] {
        bytes_of(&[&self.words])
    }
}

/// Words one after the other, as a `repr(C)` structure of them lies in memory.
fn bytes_of<const N: usize>(groups: &[&[u32]]) -> [u8; N] {
    let mut bytes = [0; N];
    let words = groups.iter().flat_map(|group| group.iter());
    for (slot, word) in bytes.chunks_exact_mut(4).zip(words) {
        slot.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::from_v4_word(v4.to_bits()),
            IpAddr::V6(v6) => {
                let [a, b, c, d, e, f, g, h] = v6.segments();
                let word = |high: u16, low: u16| (u32::from(high) << 16) | u32::from(low);
                Self::from_v6_words([word(a, b), word(c, d), word(e, f), word(g, h)])
            }
        }
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> Self {
        let [a, b, c, d] = address.words.map(u32::from_be);
        if address.is_v4() {
            IpAddr::V4(Ipv4Addr::from_bits(d))
        } else {
            let high = (u128::from(a) << 32) | u128::from(b);
            let low = (u128::from(c) << 32) | u128::from(d);
            IpAddr::V6(Ipv6Addr::from_bits((high << 64) | low))
        }
    }
}

/// A local endpoint: the key of the deny list and of the port table.
///
/// In the port table, an address of [`Address::any`] means "any local address of that family". In
/// the deny list, zero for the protocol or the port, or [`Address::any`], means "any".
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LocalKey {
    /// Local address.
    pub address: Address,
    /// Local port, in host byte order.
    pub port: u32,
    /// IP protocol number.
    pub protocol: u32,
}

impl LocalKey {
    /// The key's bytes, as the map holds them.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 24] {
        let Self {
            address,
            port,
            protocol,
        } = *self;
        bytes_of(&[&address.words, &[port, protocol]])
    }

    /// The [`shape`] of this entry of the deny list.
    #[must_use]
    pub fn deny_shape(&self) -> u32 {
        let mut shape = 0;
        if self.protocol == 0 {
            shape |= shape::ANY_PROTOCOL;
        }
        if self.address == self.address.any() {
            shape |= shape::ANY_ADDRESS;
        }
        if self.port == 0 {
            shape |= shape::ANY_PORT;
        }
        shape
    }
}

/// Both endpoints of a connection: the key of the exact table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExactKey {
    /// Local address.
    pub local: Address,
    /// Remote address.
    pub remote: Address,
    /// Local port, in host byte order.
    pub local_port: u16,
    /// Remote port, in host byte order.
    pub remote_port: u16,
    /// IP protocol number.
    pub protocol: u32,
}

impl ExactKey {
    /// The key's bytes, as the map holds them.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 40] {
        let Self {
            local,
            remote,
            local_port,
            remote_port,
            protocol,
        } = *self;
        let mut bytes = bytes_of(&[&local.words, &remote.words, &[0, protocol]]);
        let (ports, _) = bytes[32..].split_at_mut(4);
        ports[..2].copy_from_slice(&local_port.to_ne_bytes());
        ports[2..].copy_from_slice(&remote_port.to_ne_bytes());
        bytes
    }
}

/// What the fragments of one packet have in common (RFC 791 §3.2, RFC 8200 §4.5).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FragmentKey {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Identification, in host byte order; 16 bits of it in IPv4.
    pub identification: u32,
    /// IPv4: the protocol. IPv6: 44, because RFC 8200 §4.5 lets the fragments of one packet name
    /// different next headers.
    pub protocol: u32,
}

/// Bits of [`Config::flags`]. A table whose bit is clear is empty and is not looked into, so that
/// a packet that is not ours costs little.
pub mod flag {
    /// Steering is on. Clear: every packet goes to the kernel (the kill switch).
    pub const ENABLED: u32 = 1;
    /// The exact table has entries.
    pub const EXACT: u32 = 1 << 1;
    /// The port table has entries with an address.
    pub const PORTS: u32 = 1 << 2;
    /// The port table has entries for any local address.
    pub const PORTS_ANY: u32 = 1 << 3;
    /// The prefix table has entries.
    pub const PREFIXES: u32 = 1 << 4;

    /// Tables that claim single flows: without any of these, no fragment is ever remembered.
    pub const FLOWS: u32 = EXACT | PORTS | PORTS_ANY;
}

/// Which parts of a deny entry mean "any": the entry's *shape*. [`Config::deny_shapes`] says which
/// shapes there are, so that a deny list of one shape costs one look-up.
pub mod shape {
    /// Any protocol.
    pub const ANY_PROTOCOL: u32 = 1;
    /// Any local address of the family.
    pub const ANY_ADDRESS: u32 = 2;
    /// Any local port, and packets without one.
    pub const ANY_PORT: u32 = 4;
    /// How many shapes there are.
    pub const COUNT: u32 = 8;
    /// The set of shapes with [`ANY_PORT`]: bits 4 to 7.
    pub const WITHOUT_PORT: u32 = 0xf0;
}

/// What user space tells the program, in one map entry.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Bits of [`flag`].
    pub flags: u32,
    /// Bit `n` is set if the deny list has an entry of [`shape`] `n`.
    pub deny_shapes: u32,
    /// The VLAN tags a packet must have, see [`vlan_stack`].
    pub vlan_stack: u32,
    /// The interface's MAC address, see [`mac_words`]. Zero: unknown, and any will do.
    pub mac: [u32; 2],
}

impl Config {
    /// The configuration's words, as the map holds them.
    #[must_use]
    pub const fn to_words(&self) -> [u32; CONFIG_WORDS] {
        let Self {
            flags,
            deny_shapes,
            vlan_stack,
            mac: [high, low],
        } = *self;
        [flags, deny_shapes, vlan_stack, high, low]
    }
}

/// How many words a [`Config`] has.
pub const CONFIG_WORDS: usize = 5;

/// A MAC address as [`Config::mac`] holds it: its first four bytes as a number, and its last two.
#[inline]
#[must_use]
pub const fn mac_words(mac: [u8; 6]) -> [u32; 2] {
    let [a, b, c, d, e, f] = mac;
    [
        u32::from_be_bytes([a, b, c, d]),
        u32::from_be_bytes([0, 0, e, f]),
    ]
}

/// VLAN identifiers as [`Config::vlan_stack`] holds them: outermost first, 16 bits each, and zero for
/// "no tag". VID 0 is a priority tag and counts as no tag (IEEE 802.1Q-2022 table 9-2). `None` if a
/// VID is not 1 to 4094 or there are more than two.
#[must_use]
pub fn vlan_stack(vids: &[u16]) -> Option<u32> {
    let valid = |vid: &u16| (1..=4094).contains(vid);
    match vids {
        [] => Some(0),
        [vid] if valid(vid) => Some(u32::from(*vid)),
        [outer, inner] if valid(outer) && valid(inner) => {
            Some((u32::from(*outer) << 16) | u32::from(*inner))
        }
        _ => None,
    }
}

/// The look-ups of a decision: maps in the kernel, collections natively.
pub trait Tables {
    /// [`Config::flags`]. Read anew each time: to the verifier, what is read twice from memory is two
    /// values, and the paths on which tests of the same value agree would multiply.
    fn flags(&self) -> u32;
    /// [`Config::deny_shapes`], read anew each time.
    fn deny_shapes(&self) -> u32;
    /// [`Config::vlan_stack`], read anew each time.
    fn vlan_stack(&self) -> u32;
    /// [`Config::mac`], read anew each time.
    fn mac(&self) -> [u32; 2];
    /// Whether the deny list has this entry.
    fn deny(&self, key: &LocalKey) -> bool;
    /// Whether the exact table has this connection.
    fn exact(&self, key: &ExactKey) -> bool;
    /// Whether the port table has this entry.
    fn port(&self, key: &LocalKey) -> bool;
    /// Whether this host has the address.
    fn local(&self, address: &Address) -> bool;
    /// Whether a prefix that is ours whole covers the address.
    fn prefix(&self, address: &Address) -> bool;
    /// Whether the first fragment of this packet was ours.
    fn fragment(&self, key: &FragmentKey) -> bool;
    /// Remembers that the first fragment of this packet was ours.
    fn remember_fragment(&self, key: &FragmentKey);
    /// Forgets this packet: a first fragment with the same key was not ours.
    fn forget_fragment(&self, key: &FragmentKey);
}

const _: () = {
    assert!(size_of::<Address>() == 16);
    assert!(size_of::<LocalKey>() == 16 + 2 * 4);
    assert!(size_of::<ExactKey>() == 2 * 16 + 2 * 2 + 4);
    assert!(size_of::<FragmentKey>() == 2 * 16 + 2 * 4);
    assert!(size_of::<Config>() == 4 * CONFIG_WORDS);
};
