//! What the stack keeps once for IPv4 and once for IPv6, and how generic code finds it.

use super::icmp::Message;
use super::input::IpMeta;
use super::output::HopCache;
use super::tcp::Parts;
use super::{Config, Stack};
use crate::counters::DropReason;
use crate::frame::FramePool;
use crate::hash::HashKey;
use crate::ip::address::{Ip, IpAddress, Ipv4, Ipv6, Subnet};
use crate::ip::neighbor::{NeighborAction, NeighborCache, NeighborConfig};
use crate::ip::path_mtu::PathMtuCache;
use crate::ip::reassembly::{Reassembler, ReassemblyConfig};
use crate::link::LocalAddress;
use crate::socket::demux::{Demux, DemuxKey};
use crate::tcp::table::Table;
use crate::time::Instant;
use crate::udp::Version;
use crate::wire::checksum::Sum;
use crate::wire::{ethernet, icmpv4, icmpv6, ipv4, ipv6, protocol};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::ops::Range;

/// The state of one version. `F` is a frame that waits for its next hop.
pub(super) struct VersionState<I: DemuxKey, F> {
    pub(super) demux: Demux<I>,
    pub(super) tcp: Table<I>,
    pub(super) tcp_listeners: Demux<I>,
    pub(super) hops: HopCache<I>,
    pub(super) neighbors: NeighborCache<I, F>,
    /// Room for one action of each neighbour.
    pub(super) neighbor_actions: Vec<NeighborAction<I::Addr, F>>,
    pub(super) path_mtus: PathMtuCache<I>,
    pub(super) reassembler: Option<Reassembler<I>>,
    /// The broadcast addresses of our subnets.
    broadcasts: Vec<Ipv4Addr>,
    /// What they end in, see [`ending`].
    broadcast_endings: u64,
}

impl<I: DemuxKey, F> VersionState<I, F> {
    pub(super) fn new(config: &Config, key: HashKey) -> Self {
        let neighbors = NeighborConfig {
            capacity: config.neighbors,
            ..Default::default()
        };
        let reassembly = ReassemblyConfig {
            datagrams_max: config.reassembly_datagrams,
            payload_bytes_max: config.reassembly_bytes,
            timeout: config.reassembly_timeout,
            // Room for others, whatever one source sends.
            datagrams_per_source_max: (config.reassembly_datagrams / 4).max(1),
        };
        let reassembler = (config.reassembly_bytes > 0).then(|| Reassembler::new(reassembly, key));
        Self {
            demux: Demux::new(4),
            tcp: Table::new(&config.tcp, key),
            tcp_listeners: Demux::new(4),
            hops: HopCache::new(),
            neighbors: NeighborCache::new(neighbors, key),
            neighbor_actions: Vec::with_capacity(config.neighbors),
            path_mtus: PathMtuCache::new(config.neighbors, key),
            reassembler,
            broadcasts: Vec::new(),
            broadcast_endings: 0,
        }
    }

    pub(super) fn set_addresses(&mut self, addresses: &[LocalAddress]) {
        self.broadcasts.clear();
        for local in addresses {
            self.broadcasts.extend(local.broadcast);
            // The kernel takes both forms for broadcasts (`fib_add_ifaddr`), whether `ip address`
            // was told of one or not.
            if let IpAddr::V4(address) = local.address
                && let Some(subnet) = Subnet::new(address, local.prefix_len)
                && let Some(broadcast) = subnet.broadcast()
            {
                self.broadcasts.push(broadcast);
                self.broadcasts.push(subnet.network());
            }
        }
        let endings = self.broadcasts.iter().map(ending);
        self.broadcast_endings = endings.fold(0, |all, ending| all | ending);
    }
}

/// One of 64 bits, chosen by the last six of an address.
#[inline]
const fn ending(address: &Ipv4Addr) -> u64 {
    let [.., last] = address.octets();
    1 << (last & 63)
}

impl<F> VersionState<Ipv4, F> {
    /// Whether it is the broadcast address of a subnet of ours.
    #[inline]
    pub(super) fn is_broadcast(&self, address: Ipv4Addr) -> bool {
        // Most addresses end in something else.
        self.broadcast_endings & ending(&address) != 0 && self.broadcasts.contains(&address)
    }
}

/// An IP version as the stack's generic code sees it.
pub(super) trait IpStack: DemuxKey {
    /// The version at run time.
    const RUNTIME: Version;
    /// Its EtherType.
    const ETHER_TYPE: u16;
    /// Its ICMP.
    const ICMP: u8;

    /// Its state.
    fn state<P: FramePool>(stack: &mut Stack<P>) -> &mut VersionState<Self, P::Frame>;

    /// The same, to be looked at.
    fn state_ref<P: FramePool>(stack: &Stack<P>) -> &VersionState<Self, P::Frame>;

    /// The parts that sending TCP takes.
    fn tcp_parts<P: FramePool>(stack: &mut Stack<P>) -> Parts<'_, Self, P>;

    /// The sum of a pseudo-header; `len` in bytes.
    fn pseudo(source: Self::Addr, destination: Self::Addr, protocol: u8, len: u16) -> Sum;

    /// Answers a datagram put together from pieces, whose protocol nobody here speaks, and says
    /// why it is dropped. It begins with `data`.
    fn refuse_reassembled<P: FramePool>(
        stack: &mut Stack<P>,
        pool: &mut P,
        data: &[u8],
        meta: IpMeta<Self>,
        now: Instant,
    ) -> DropReason;

    /// A cheap index, below 256, for small caches whose entries are checked anyway.
    fn cache_index(address: Self::Addr) -> usize;

    /// Source and destination of a packet at `offset` of a frame.
    fn addresses(data: &[u8], offset: usize) -> Option<(Self::Addr, Self::Addr)>;

    /// Type of service or traffic class of the packet at `offset` of a frame: DSCP and ECN.
    fn tos(data: &[u8], offset: usize) -> u8;

    /// Length of the packet at `offset` of a frame as its header says, in bytes.
    fn packet_len(data: &[u8], offset: usize) -> usize;

    /// Whether the packet at `offset` of a frame is an ICMP error, as far as can be seen.
    fn is_icmp_error(data: &[u8], offset: usize) -> bool;

    /// Writes the header of a whole packet; returns its length in bytes.
    fn emit(data: &mut [u8], offset: usize, header: Header<Self>) -> Option<usize>;

    /// Writes the header of an ICMP message from and to `addresses`, in front of `body_len` bytes
    /// that are there already.
    fn emit_icmp(
        data: &mut [u8],
        offset: usize,
        addresses: (Self::Addr, Self::Addr),
        message: Message,
        body_len: usize,
    ) -> Option<usize>;

    /// The header of an ICMP message in front of a body that stands elsewhere.
    fn icmp_header(
        addresses: (Self::Addr, Self::Addr),
        message: Message,
        body: &[u8],
    ) -> Option<[u8; icmpv4::HEADER_LEN]>;

    /// Type and rest of header of the ICMP message in `range`, checksum verified.
    fn read_icmp(
        data: &[u8],
        range: Range<usize>,
        source: Self::Addr,
        destination: Self::Addr,
    ) -> Result<(u8, [u8; 4]), DropReason>;
}

/// The header of a packet that we send, of either version.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header<I: Ip> {
    pub(super) source: I::Addr,
    pub(super) destination: I::Addr,
    pub(super) protocol: u8,
    pub(super) tos: u8,
    pub(super) ttl: u8,
    /// IPv4: routers may cut the packet, and this identifies the pieces. Else DF is set.
    pub(super) fragmentable: Option<u16>,
    /// Length of what follows, in bytes.
    pub(super) payload_len: u16,
}

impl IpStack for Ipv4 {
    const RUNTIME: Version = Version::V4;
    const ETHER_TYPE: u16 = ethernet::TYPE_IPV4;
    const ICMP: u8 = protocol::ICMPV4;

    #[inline]
    fn state<P: FramePool>(stack: &mut Stack<P>) -> &mut VersionState<Self, P::Frame> {
        &mut stack.v4
    }

    #[inline]
    fn tcp_parts<P: FramePool>(stack: &mut Stack<P>) -> Parts<'_, Self, P> {
        let Stack {
            v4,
            tcp,
            events,
            drops,
            egress,
            config,
            link,
            identifications,
            hop_generation,
            ..
        } = stack;
        Parts {
            table: &mut v4.tcp,
            hops: &v4.hops,
            hop_generation: *hop_generation,
            tcp,
            events,
            drops,
            egress,
            config,
            link,
            identifications,
        }
    }

    #[inline]
    fn state_ref<P: FramePool>(stack: &Stack<P>) -> &VersionState<Self, P::Frame> {
        &stack.v4
    }

    #[inline]
    fn pseudo(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, len: u16) -> Sum {
        Sum::pseudo_v4(source, destination, protocol, len)
    }

    fn refuse_reassembled<P: FramePool>(
        stack: &mut Stack<P>,
        pool: &mut P,
        data: &[u8],
        meta: IpMeta<Self>,
        now: Instant,
    ) -> DropReason {
        stack.refuse_protocol(pool, data, meta, now)
    }

    #[inline]
    fn cache_index(address: Ipv4Addr) -> usize {
        // Multiplied by 2^32 divided by the golden ratio, neighbouring addresses are far apart.
        let bits = u32::from_ne_bytes(address.octets()).wrapping_mul(0x9e37_79b1);
        (bits >> 24) as usize
    }

    #[inline]
    fn addresses(data: &[u8], offset: usize) -> Option<(Ipv4Addr, Ipv4Addr)> {
        let bytes: &[u8; 8] = crate::wire::chunk_at(data, offset + 12)?;
        let source: [u8; 4] = crate::wire::array_at(bytes, 0);
        let destination: [u8; 4] = crate::wire::array_at(bytes, 4);
        Some((source.into(), destination.into()))
    }

    fn tos(data: &[u8], offset: usize) -> u8 {
        data.get(offset + 1).copied().unwrap_or(0)
    }

    fn packet_len(data: &[u8], offset: usize) -> usize {
        let field: Option<&[u8; 2]> = crate::wire::chunk_at(data, offset + 2);
        field.map_or(0, |field| u16::from_be_bytes(*field).into())
    }

    fn is_icmp_error(data: &[u8], offset: usize) -> bool {
        use icmpv4::kind::{
            PARAMETER_PROBLEM, REDIRECT, SOURCE_QUENCH, TIME_EXCEEDED, UNREACHABLE,
        };
        let errors = [
            UNREACHABLE,
            SOURCE_QUENCH,
            REDIRECT,
            TIME_EXCEEDED,
            PARAMETER_PROBLEM,
        ];
        ipv4::Packet::new_embedded(data, offset).is_ok_and(|packet| {
            let kind = data.get(packet.payload().start);
            packet.protocol() == protocol::ICMPV4
                && packet.fragment_offset() == 0
                && kind.is_some_and(|kind| errors.contains(kind))
        })
    }

    #[inline]
    fn emit(data: &mut [u8], offset: usize, header: Header<Self>) -> Option<usize> {
        let Header {
            source,
            destination,
            protocol,
            tos,
            ttl,
            fragmentable,
            payload_len,
        } = header;
        let whole = |identification| ipv4::Fragment {
            identification,
            offset: 0,
            more: false,
        };
        let fragment = fragmentable.map(whole);
        ipv4::Repr {
            source,
            destination,
            protocol,
            tos,
            ttl,
            payload_len,
            fragment,
        }
        .emit(data, offset)
    }

    fn emit_icmp(
        data: &mut [u8],
        offset: usize,
        _addresses: (Ipv4Addr, Ipv4Addr),
        (kind, code, rest): Message,
        body_len: usize,
    ) -> Option<usize> {
        icmpv4::emit(data, offset, kind, code, rest, body_len)
    }

    fn icmp_header(
        _addresses: (Ipv4Addr, Ipv4Addr),
        (kind, code, rest): Message,
        body: &[u8],
    ) -> Option<[u8; icmpv4::HEADER_LEN]> {
        Some(icmpv4::header(kind, code, rest, body))
    }

    fn read_icmp(
        data: &[u8],
        range: Range<usize>,
        _source: Ipv4Addr,
        _destination: Ipv4Addr,
    ) -> Result<(u8, [u8; 4]), DropReason> {
        let packet = icmpv4::Packet::new_checked(data, range)?;
        Ok((packet.kind(), packet.rest()))
    }
}

impl IpStack for Ipv6 {
    const RUNTIME: Version = Version::V6;
    const ETHER_TYPE: u16 = ethernet::TYPE_IPV6;
    const ICMP: u8 = protocol::ICMPV6;

    #[inline]
    fn state<P: FramePool>(stack: &mut Stack<P>) -> &mut VersionState<Self, P::Frame> {
        &mut stack.v6
    }

    #[inline]
    fn tcp_parts<P: FramePool>(stack: &mut Stack<P>) -> Parts<'_, Self, P> {
        let Stack {
            v6,
            tcp,
            events,
            drops,
            egress,
            config,
            link,
            identifications,
            hop_generation,
            ..
        } = stack;
        Parts {
            table: &mut v6.tcp,
            hops: &v6.hops,
            hop_generation: *hop_generation,
            tcp,
            events,
            drops,
            egress,
            config,
            link,
            identifications,
        }
    }

    #[inline]
    fn state_ref<P: FramePool>(stack: &Stack<P>) -> &VersionState<Self, P::Frame> {
        &stack.v6
    }

    #[inline]
    fn pseudo(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, len: u16) -> Sum {
        Sum::pseudo_v6(source, destination, protocol, len)
    }

    fn refuse_reassembled<P: FramePool>(
        stack: &mut Stack<P>,
        pool: &mut P,
        data: &[u8],
        meta: IpMeta<Self>,
        now: Instant,
    ) -> DropReason {
        match ipv6::Packet::new_checked(data, meta.offset) {
            Ok(packet) => stack.refuse_next_header(pool, data, meta, &packet, now),
            Err(problem) => problem.reason,
        }
    }

    #[inline]
    fn cache_index(address: Ipv6Addr) -> usize {
        let octets = address.octets();
        let (words, _) = octets.as_chunks::<8>();
        let [high, low] = [words[0], words[1]].map(u64::from_ne_bytes);
        ((high ^ low).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize
    }

    #[inline]
    fn addresses(data: &[u8], offset: usize) -> Option<(Ipv6Addr, Ipv6Addr)> {
        let bytes: &[u8; 32] = crate::wire::chunk_at(data, offset + 8)?;
        let source: [u8; 16] = crate::wire::array_at(bytes, 0);
        let destination: [u8; 16] = crate::wire::array_at(bytes, 16);
        Some((source.into(), destination.into()))
    }

    fn tos(data: &[u8], offset: usize) -> u8 {
        let start: Option<&[u8; 2]> = crate::wire::chunk_at(data, offset);
        start.map_or(0, |[first, second]| first << 4 | second >> 4)
    }

    fn packet_len(data: &[u8], offset: usize) -> usize {
        let field: Option<&[u8; 2]> = crate::wire::chunk_at(data, offset + 4);
        field.map_or(0, |field| {
            ipv6::HEADER_LEN + usize::from(u16::from_be_bytes(*field))
        })
    }

    fn is_icmp_error(data: &[u8], offset: usize) -> bool {
        ipv6::Packet::new_embedded(data, offset).is_ok_and(|packet| {
            let kind = data.get(packet.payload().start);
            packet.protocol() == protocol::ICMPV6
                && packet.fragment().is_none_or(|piece| piece.offset == 0)
                && kind.is_some_and(|&kind| kind < icmpv6::kind::FIRST_INFORMATIONAL)
        })
    }

    #[inline]
    fn emit(data: &mut [u8], offset: usize, header: Header<Self>) -> Option<usize> {
        let Header {
            source,
            destination,
            protocol,
            tos,
            ttl,
            fragmentable: _,
            payload_len,
        } = header;
        ipv6::Repr {
            source,
            destination,
            next_header: protocol,
            traffic_class: tos,
            // RFC 6437 §3: a flow label of zero where packets are not labelled.
            flow_label: 0,
            hop_limit: ttl,
            payload_len,
        }
        .emit(data, offset)
    }

    fn emit_icmp(
        data: &mut [u8],
        offset: usize,
        addresses: (Ipv6Addr, Ipv6Addr),
        (kind, code, rest): Message,
        body_len: usize,
    ) -> Option<usize> {
        icmpv6::emit(data, offset, addresses, (kind, code), rest, body_len)
    }

    fn icmp_header(
        addresses: (Ipv6Addr, Ipv6Addr),
        (kind, code, rest): Message,
        body: &[u8],
    ) -> Option<[u8; icmpv4::HEADER_LEN]> {
        icmpv6::header(addresses, (kind, code), rest, body)
    }

    fn read_icmp(
        data: &[u8],
        range: Range<usize>,
        source: Ipv6Addr,
        destination: Ipv6Addr,
    ) -> Result<(u8, [u8; 4]), DropReason> {
        let packet = icmpv6::Packet::new_checked(data, range, source, destination)?;
        Ok((packet.kind(), packet.rest()))
    }
}

/// The address, if it is of version `I`.
pub(super) fn of_version<I: Ip>(address: core::net::IpAddr) -> Option<I::Addr> {
    <I::Addr as IpAddress>::from_ip(address)
}
