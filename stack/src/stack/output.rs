//! Where packets go next, and how they leave.

use super::Stack;
use super::version::{Header, IpStack};
use crate::counters::{DropReason, Event};
use crate::frame::{Frame, FramePool, Stamps};
use crate::ip::address::{Ip, IpAddress};
use crate::ip::route::RouteKind;
use crate::link::{AddressOwner, MacAddr};
use crate::time::{Duration, Instant};
use crate::udp::Version;
use crate::wire::{ethernet, ipv4, ipv6, protocol, udp};
use alloc::boxed::Box;
use core::net::IpAddr;

/// Where a packet goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hop {
    /// How an Ethernet header on the way there begins: the next hop's address, and ours.
    pub(super) ethernet: [u8; 12],
    /// The longest IP packet the path carries, in bytes, as far as we know.
    pub(super) mtu: u16,
    /// The longest that goes out whole, and as one that routers may not cut: as long as `mtu`; or 0,
    /// where an IPv4 path carries less than we care to cut packets into, and routers may.
    pub(super) uncut: u16,
}

impl Hop {
    /// Whether an IP packet of `len` bytes goes out whole, and as one that routers may not cut.
    #[inline]
    pub(super) const fn carries(&self, len: usize) -> bool {
        len <= self.uncut as usize
    }

    /// The next hop's Ethernet address.
    pub(super) const fn mac(&self) -> MacAddr {
        let [a, b, c, d, e, f, ..] = self.ethernet;
        [a, b, c, d, e, f]
    }

    /// Whether routers may cut packets that go this way.
    #[inline]
    pub(super) const fn may_fragment(&self) -> bool {
        self.uncut < self.mtu
    }
}

/// Remembers the outcome of route, neighbour and path MTU lookups by destination.
///
/// Direct-mapped: a destination has one place, and the latest wins it. An entry is good while
/// nothing it was made from has changed, and for a second at most, so that neighbours in use come
/// by the neighbour cache's own timers.
pub(super) struct HopCache<I: Ip> {
    entries: Box<[HopEntry<I::Addr>; HOPS]>,
}

/// Enough for 256 peers in a row without a miss; a miss costs some 200 instructions.
const HOPS: usize = 256;
/// See [`HopCache`].
const HOP_LIFETIME: Duration = Duration::from_secs(1);

#[derive(Clone, Copy)]
struct HopEntry<A> {
    destination: A,
    generation: u32,
    hop: Hop,
}

impl<I: Ip> HopCache<I> {
    pub(super) fn new() -> Self {
        let empty = HopEntry {
            destination: I::Addr::UNSPECIFIED,
            // No generation is 0: nothing is found in an empty cache.
            generation: 0,
            hop: Hop {
                ethernet: [0; 12],
                mtu: 0,
                uncut: 0,
            },
        };
        Self {
            entries: Box::new([empty; HOPS]),
        }
    }
}

impl<I: IpStack> HopCache<I> {
    /// The next hop to a destination, if it is remembered, and was so in this generation.
    #[inline]
    pub(super) fn known(&self, destination: I::Addr, generation: u32) -> Option<&Hop> {
        let entry = &self.entries[I::cache_index(destination) % HOPS];
        let good = entry.destination == destination && entry.generation == generation;
        good.then_some(&entry.hop)
    }

    /// Forgets one destination.
    pub(super) fn forget(&mut self, destination: I::Addr) {
        // No generation is 0.
        self.entries[I::cache_index(destination) % HOPS].generation = 0;
    }
}

/// What is known of the packet that one of ours answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    /// When it passed which point.
    pub(super) stamps: Stamps,
    /// Who handed it to us: the next hop of the answer while the real one is being looked for.
    pub(super) station: Option<MacAddr>,
}

impl Request {
    /// Nothing is answered.
    pub(super) const NONE: Self = Self {
        stamps: Stamps {
            arrival_ns: 0,
            taken_ns: 0,
        },
        station: None,
    };
}

/// What is known of a datagram before its headers are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct UdpHeader<I: Ip> {
    pub(super) local: I::Addr,
    pub(super) remote: I::Addr,
    pub(super) local_port: u16,
    pub(super) remote_port: u16,
    pub(super) tos: u8,
}

impl<P: FramePool> Stack<P> {
    /// Queues a frame for the driver. If the queue is full, the frame goes back to the pool, and what
    /// the caller meant to say with it is dropped for the reason returned, which is his to count.
    #[inline(always)] // See `fast_path`.
    pub(super) fn transmit(&mut self, pool: &mut P, frame: P::Frame) -> Result<(), DropReason> {
        self.egress.push(frame).map_err(|frame| {
            pool.give(frame);
            DropReason::TxQueueFull
        })
    }

    /// Makes every cached next hop invalid.
    pub(super) fn forget_next_hops(&mut self) {
        // Skipping 0, which marks empty entries. A cycle of 2^32 changes while an entry of the first
        // is still there does not happen: that is one a second for 136 years.
        self.hop_generation = self.hop_generation.checked_add(1).unwrap_or(1);
    }

    /// All at once: an entry is never used for longer than [`HOP_LIFETIME`], and none has to say when
    /// it was made.
    pub(super) fn expire_next_hops(&mut self, now: Instant) {
        if now >= self.next_hop_expiry {
            self.next_hop_expiry = now + HOP_LIFETIME;
            self.forget_next_hops();
        }
    }

    /// The next hop of packets from `local` to `remote`.
    #[inline]
    pub(super) fn next_hop<I: IpStack>(
        &mut self,
        pool: &mut P,
        remote: I::Addr,
        local: I::Addr,
        now: Instant,
    ) -> Result<Hop, DropReason> {
        match self.known_hop::<I>(remote) {
            Some(hop) => Ok(*hop),
            None => self.find_next_hop::<I>(pool, remote, local, now),
        }
    }

    /// The same, if it is remembered.
    #[inline]
    pub(super) fn known_hop<I: IpStack>(&self, remote: I::Addr) -> Option<&Hop> {
        let hops = &I::state_ref(self).hops;
        hops.known(remote, self.hop_generation)
    }

    #[cold]
    fn find_next_hop<I: IpStack>(
        &mut self,
        pool: &mut P,
        remote: I::Addr,
        local: I::Addr,
        now: Instant,
    ) -> Result<Hop, DropReason> {
        // RFC 1122 §3.2.1.3, §4.1.3.6: what we send comes from an address of ours, also when the
        // address went while a datagram for it waited.
        self.owner_of(local.into()).ok_or(DropReason::TxNoSource)?;
        let gateway = self.gateway_of::<I>(remote)?;
        let mac = self.resolve(pool, gateway, local.into(), now)?;
        let hop = self.hop_through::<I>(mac, remote);
        if self.owner_of(local.into()) == Some(AddressOwner::Kernel) {
            self.refresh_mirrored(gateway, now);
        }
        let entry = HopEntry {
            destination: remote,
            generation: self.hop_generation,
            hop,
        };
        I::state(self).hops.entries[I::cache_index(remote) % HOPS] = entry;
        Ok(hop)
    }

    /// The neighbour that packets for `remote` are handed to.
    pub(super) fn gateway_of<I: IpStack>(&self, remote: I::Addr) -> Result<IpAddr, DropReason> {
        let address: IpAddr = remote.into();
        // What may not come from anywhere may not go there either: groups, loopback, unspecified.
        let invalid = match address {
            IpAddr::V4(v4) => self.v4.is_broadcast(v4) || v4.is_invalid_source(),
            IpAddr::V6(v6) => v6.is_invalid_source(),
        };
        if invalid || self.owner_of(address).is_some() {
            return Err(DropReason::TxNoRoute);
        }
        let route = self
            .link
            .routes
            .lookup::<I>(remote)
            .ok_or(DropReason::TxNoRoute)?;
        match route.kind {
            RouteKind::Unicast => Ok(route.next_hop(address)),
            _ => Err(DropReason::TxNoRoute),
        }
    }

    /// The address of ours that packets to `remote` through `gateway` come from when nobody chose one
    /// (RFC 1122 §3.3.4.3): what the route prefers, else by RFC 6724 §5 of the same scope (rule 2), in the
    /// next hop's network (rule 5.5), with the longest common prefix (rule 8).
    #[cold]
    pub(super) fn source_for<I: IpStack>(
        &self,
        remote: I::Addr,
        gateway: IpAddr,
    ) -> Option<I::Addr> {
        let route = self.link.routes.lookup::<I>(remote);
        let preferred = route
            .and_then(|route| route.preferred_source)
            .filter(|source| self.owner_of(*source).is_some())
            .and_then(I::Addr::from_ip);
        if preferred.is_some() {
            return preferred;
        }
        let near = I::Addr::from_ip(gateway).unwrap_or(remote);
        let suits = |source: I::Addr, prefix_len: u8| {
            let common = (0..=I::ADDR_BITS)
                .rev()
                .find(|len| source.masked(*len) == remote.masked(*len));
            (
                is_link_local(source.into()) == is_link_local(remote.into()),
                source.masked(prefix_len) == near.masked(prefix_len),
                common,
            )
        };
        let ours = self.link.addresses.iter().rev();
        let ours = ours.filter_map(|local| {
            let source = I::Addr::from_ip(local.address)?;
            Some((source, suits(source, local.prefix_len)))
        });
        // Of equal ones the first.
        ours.max_by_key(|(_, suits)| *suits)
            .map(|(source, _)| source)
    }

    /// The longest packet that link and route to `remote` carry, in bytes.
    pub(super) fn route_mtu<I: IpStack>(&self, remote: I::Addr) -> u32 {
        let link = self.link.mtu;
        let route = self.link.routes.lookup::<I>(remote);
        route.map_or(link, |route| route.path_mtu(link))
    }

    /// The next hop at `mac` for packets to `remote`, with what is known of the path.
    pub(super) fn hop_through<I: IpStack>(&mut self, mac: MacAddr, remote: I::Addr) -> Hop {
        let route_mtu = self.route_mtu::<I>(remote);
        let learned = I::state(self).path_mtus.get(remote);
        let mtu = learned.map_or(route_mtu, |path| path.mtu.min(route_mtu));
        let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
        let may_fragment = learned.is_some_and(|path| path.may_fragment);
        Hop {
            ethernet: ethernet::addresses(mac, self.link.mac),
            mtu,
            uncut: if may_fragment { 0 } else { mtu },
        }
    }

    /// Sends a UDP datagram with a copy of `payload`.
    pub(super) fn send_udp<I: IpStack>(
        &mut self,
        pool: &mut P,
        to: UdpHeader<I>,
        payload: &[u8],
        request: Request,
        now: Instant,
    ) -> Result<(), DropReason> {
        let too_long = DropReason::TxTooLong;
        let len = u16::try_from(udp::HEADER_LEN + payload.len()).map_err(|_| too_long)?;
        let pseudo = I::pseudo(to.local, to.remote, protocol::UDP, len);
        let header = udp::header(to.local_port, to.remote_port, len, pseudo, payload);
        let ip = Header::<I> {
            source: to.local,
            destination: to.remote,
            protocol: protocol::UDP,
            tos: to.tos,
            ttl: self.config.ttl,
            fragmentable: None,
            payload_len: len,
        };
        self.send_transport(pool, ip, [&header, payload], request, now)
    }

    /// Sends a transport message that stands in two pieces, the first a multiple of 8 bytes long:
    /// whole if the path carries it, in fragments if not.
    pub(super) fn send_transport<I: IpStack>(
        &mut self,
        pool: &mut P,
        mut header: Header<I>,
        pieces: [&[u8]; 2],
        request: Request,
        now: Instant,
    ) -> Result<(), DropReason> {
        let (hop, parked_for) =
            match self.next_hop::<I>(pool, header.destination, header.source, now) {
                Ok(hop) => (hop, None),
                Err(reason) => match request.station.filter(|_| is_unknown_neighbor(reason)) {
                    Some(mac) => {
                        self.events.count(Event::NeighborFromPacket);
                        (self.hop_through::<I>(mac, header.destination), None)
                    }
                    None if reason == DropReason::TxNeighborUnresolved => {
                        let gateway = self.gateway_of::<I>(header.destination)?;
                        (
                            self.hop_through::<I>([0; 6], header.destination),
                            Some(gateway),
                        )
                    }
                    None => return Err(reason),
                },
            };
        let len = pieces[0].len() + pieces[1].len();
        // IPv4's total length counts the header (RFC 791 §3.1), IPv6's payload length does not.
        let limit = match I::RUNTIME {
            Version::V4 => usize::from(u16::MAX) - I::HEADER_BYTES,
            Version::V6 => usize::from(u16::MAX),
        };
        if len > limit {
            return Err(DropReason::TxTooLong);
        }
        let mut frame = pool.take().ok_or(DropReason::TxNoFrame)?;
        let ip_offset = self.config.vlans.header_len();
        let mtu = usize::from(hop.mtu).min(frame.capacity().saturating_sub(ip_offset));
        if I::HEADER_BYTES + len > mtu {
            pool.give(frame);
            // Only one packet waits for a neighbour: of several fragments all but one would be lost.
            if parked_for.is_some() {
                return Err(DropReason::TxNeighborUnresolved);
            }
            return self.send_fragments(pool, header, pieces, hop, mtu, request.stamps);
        }
        if hop.may_fragment() {
            let identification = self
                .identifications
                .next(header.source.into(), header.destination.into());
            #[expect(clippy::cast_possible_truncation, reason = "the field is that wide")]
            let identification = identification as u16;
            header.fragmentable = Some(identification);
        }
        frame.set_len(ip_offset + I::HEADER_BYTES + len);
        frame.set_stamps(request.stamps);
        let data = frame.data_mut();
        let written = self.emit_ethernet::<I>(data, hop.mac()).and_then(|at| {
            let at = at + I::emit(data, at, header)?;
            copy_pieces(data.get_mut(at..at + len)?, pieces, 0);
            Some(())
        });
        if written.is_none() {
            pool.give(frame);
            return Err(DropReason::TxTooLong);
        }
        match parked_for {
            None => self.transmit(pool, frame),
            Some(gateway) => self.park(pool, frame, gateway, header.source.into(), now),
        }
    }

    /// RFC 791 §3.2, RFC 8200 §4.5: cuts a transport message into fragments of equal length but for
    /// the last.
    fn send_fragments<I: IpStack>(
        &mut self,
        pool: &mut P,
        header: Header<I>,
        pieces: [&[u8]; 2],
        hop: Hop,
        mtu: usize,
        stamps: Stamps,
    ) -> Result<(), DropReason> {
        let extension = fragment_header_len::<I>();
        let room = mtu.saturating_sub(I::HEADER_BYTES + extension) & !7;
        if room == 0 {
            return Err(DropReason::TxTooLong);
        }
        let identification = self
            .identifications
            .next(header.source.into(), header.destination.into());
        let len = pieces[0].len() + pieces[1].len();
        let ip_offset = self.config.vlans.header_len();
        let mut offset = 0;
        while offset < len {
            let piece = room.min(len - offset);
            let more = offset + piece < len;
            let mut frame = pool.take().ok_or(DropReason::TxNoFrame)?;
            frame.set_len(ip_offset + I::HEADER_BYTES + extension + piece);
            // The journey ends with the last piece.
            if !more {
                frame.set_stamps(stamps);
            }
            let data = frame.data_mut();
            let written = self.emit_ethernet::<I>(data, hop.mac()).and_then(|at| {
                let at = emit_fragment(data, at, header, identification, offset, piece, more)?;
                copy_pieces(data.get_mut(at..at + piece)?, pieces, offset);
                Some(())
            });
            if written.is_none() {
                pool.give(frame);
                return Err(DropReason::TxTooLong);
            }
            // Without this piece those behind it are worth nothing.
            self.transmit(pool, frame)?;
            self.events.count(Event::FragmentTx);
            offset += piece;
        }
        Ok(())
    }

    /// Writes an Ethernet header with our VLAN tags; returns its length in bytes.
    pub(super) fn emit_ethernet<I: IpStack>(
        &self,
        data: &mut [u8],
        destination: MacAddr,
    ) -> Option<usize> {
        let source = self.link.mac;
        let vlans = self.config.vlans;
        ethernet::Repr {
            destination,
            source,
            vlans,
            ether_type: I::ETHER_TYPE,
        }
        .emit(data)
    }
}

/// Whether a packet found no next hop because nobody knows its Ethernet address: who answers can
/// still hand it to whom the request came from.
pub(super) const fn is_unknown_neighbor(reason: DropReason) -> bool {
    matches!(
        reason,
        DropReason::TxNeighborUnresolved | DropReason::TxNeighborTableFull
    )
}

/// Whether an address means something on its link alone (RFC 3927, RFC 4291 §2.5.6).
const fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// What a fragment has between its IP header and its payload, in bytes.
pub(super) const fn fragment_header_len<I: IpStack>() -> usize {
    match I::RUNTIME {
        Version::V4 => 0,
        Version::V6 => ipv6::FRAGMENT_HEADER_LEN,
    }
}

/// Writes the headers of a fragment; returns where its payload starts.
pub(super) fn emit_fragment<I: IpStack>(
    data: &mut [u8],
    at: usize,
    header: Header<I>,
    identification: u32,
    offset: usize,
    len: usize,
    more: bool,
) -> Option<usize> {
    let offset = u16::try_from(offset).ok()?;
    let (source, destination): (IpAddr, IpAddr) = (header.source.into(), header.destination.into());
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            // RFC 6864 §4: 16 bits identify the datagram among those of its (source, destination,
            // protocol).
            #[expect(clippy::cast_possible_truncation, reason = "the field is that wide")]
            let identification = identification as u16;
            let repr = ipv4::Repr {
                source,
                destination,
                protocol: header.protocol,
                tos: header.tos,
                ttl: header.ttl,
                payload_len: u16::try_from(len).ok()?,
                fragment: Some(ipv4::Fragment {
                    identification,
                    offset,
                    more,
                }),
            };
            Some(at + repr.emit(data, at)?)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let repr = ipv6::Repr {
                source,
                destination,
                next_header: protocol::FRAGMENT,
                traffic_class: header.tos,
                flow_label: 0,
                hop_limit: header.ttl,
                payload_len: u16::try_from(ipv6::FRAGMENT_HEADER_LEN + len).ok()?,
            };
            let at = at + repr.emit(data, at)?;
            let next = header.protocol;
            Some(at + ipv6::emit_fragment_header(data, at, next, identification, offset, more)?)
        }
        _ => None,
    }
}

/// Copies `out.len()` bytes of the two pieces, taken as one, from `offset` on.
fn copy_pieces(out: &mut [u8], [first, second]: [&[u8]; 2], offset: usize) {
    let head = first.get(offset..).unwrap_or(&[]);
    let head = &head[..head.len().min(out.len())];
    let (front, back) = out.split_at_mut(head.len());
    front.copy_from_slice(head);
    let start = (offset + head.len()).saturating_sub(first.len());
    let tail = second.get(start..).unwrap_or(&[]);
    let len = back.len().min(tail.len());
    back[..len].copy_from_slice(&tail[..len]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_copied_as_one() {
        let whole = b"abcdefgh0123456789";
        for offset in 0..whole.len() {
            for len in 0..=whole.len() - offset {
                let mut out = [0; 18];
                copy_pieces(&mut out[..len], [&whole[..8], &whole[8..]], offset);
                assert_eq!(&out[..len], &whole[offset..offset + len], "{offset} {len}");
            }
        }
    }
}
