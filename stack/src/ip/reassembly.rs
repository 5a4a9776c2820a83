//! Reassembly of fragments (RFC 791 §3.2, RFC 815, RFC 8200 §4.5) in memory that is fixed when the
//! [`Reassembler`] is made.
//!
//! What it insists on:
//!
//! * Fragments that overlap end the whole datagram, those yet to come included (RFC 5722 §4,
//!   RFC 8200 §4.5), for IPv4 as well. A copy of a fragment, the same in place, length and bytes, is
//!   ignored: networks do duplicate packets.
//! * When memory or slots run out, the oldest datagram is given up. One source can only use up its
//!   own share of slots, where its own oldest datagram is given up.
//! * Only the first fragment's header is believed, and an error is only reported with it
//!   (RFC 1122 §3.3.2, RFC 8200 §4.5).
//!
//! Fragmentation is fragile (RFC 8900), and this is not the path to be fast on: a complete
//! datagram is copied together once.

use crate::hash::HashKey;
use crate::ip::address::{Ip, IpAddress};
use crate::table::{Index, TimeOrder};
use crate::time::{Duration, Instant};
use alloc::vec;
use alloc::vec::Vec;
use blocks::{BLOCK_BYTES, BlockMap, Blocks, Relation, UNIT_BYTES};

mod blocks;
#[cfg(test)]
mod tests;

/// The longest packet that IP can express: 16 bits of length.
const PACKET_BYTES_MAX: usize = 65_535;

/// Room for what stands before a first fragment's payload. IPv4 headers have at most 60 bytes; 256
/// leaves IPv6 200 bytes of extension headers before the fragment header, many times what is
/// seen in practice. Longer ones are refused.
pub const HEADER_BYTES_MAX: usize = 256;

/// Sizes and times of a [`Reassembler`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReassemblyConfig {
    /// Datagrams in reassembly at most.
    pub datagrams_max: usize,
    /// Of these, from one source at most.
    pub datagrams_per_source_max: usize,
    /// Memory for payload in bytes, rounded up to blocks of 1024; at most 2 GiB.
    pub payload_bytes_max: usize,
    /// How long the fragments of a datagram may take, from the first that arrives.
    pub timeout: Duration,
}

impl Default for ReassemblyConfig {
    fn default() -> Self {
        Self {
            datagrams_max: 256,
            // Leaves room for other sources, and is more than reordering mixes up: Linux allows 64
            // datagrams of disorder from a source (`ipfrag_max_dist`).
            datagrams_per_source_max: 64,
            // Linux has 4 MiB (`ipfrag_high_thresh`) for the whole machine.
            payload_bytes_max: 1 << 20,
            // As Linux (`ipfrag_time`). RFC 1122 §3.3.2 and RFC 8200 §4.5 ask for 60 s, from a time
            // when 16 bits of identification lasted that long (RFC 4963).
            timeout: Duration::from_secs(30),
        }
    }
}

/// Which datagram a fragment belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentKey<I: Ip> {
    /// Where it comes from.
    pub source: I::Addr,
    /// Where it goes.
    pub destination: I::Addr,
    /// The sender's number for it: 16 bits of IPv4, 32 bits of IPv6.
    pub identification: u32,
    /// The protocol for IPv4 (RFC 791 §3.2), zero for IPv6 (RFC 8200 §4.5), where fragments of one
    /// datagram may disagree about the next header.
    pub protocol: u8,
}

impl<I: Ip> FragmentKey<I> {
    fn hash(&self, key: &HashKey) -> u64 {
        let Self {
            source,
            destination,
            identification,
            protocol,
        } = *self;
        // Protocols share hashes, not datagrams: the comparison tells them apart.
        I::Addr::flow_hash(
            key,
            source,
            destination,
            identification ^ u32::from(protocol) << 24,
        )
    }
}

/// One fragment.
#[derive(Clone, Copy, Debug)]
pub struct Fragment<'a> {
    /// Where its payload belongs in the datagram's payload, in bytes; a multiple of 8.
    pub offset_bytes: usize,
    /// Whether more fragments follow behind it.
    pub more: bool,
    /// The two ECN bits of its header (RFC 3168 §5).
    pub ecn: u8,
    /// Everything of the packet before the payload, an IPv6 fragment header included. Kept if this
    /// is the first fragment.
    pub header: &'a [u8],
    /// The rest of the packet.
    pub payload: &'a [u8],
}

/// Why a fragment was not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FragmentDrop {
    /// Without payload.
    Empty,
    /// Its length or offset is not a multiple of 8, and it is not the last. For IPv6 a parameter
    /// problem pointing to the payload length field (RFC 8200 §4.5).
    Unaligned,
    /// The datagram would be longer than 65535 bytes. For IPv6 a parameter problem pointing to the
    /// fragment offset field (RFC 8200 §4.5).
    TooLong,
    /// The header before the payload is longer than [`HEADER_BYTES_MAX`].
    HeaderTooLong,
    /// The same fragment came before. The datagram goes on.
    Duplicate,
    /// It overlaps another fragment or contradicts where the datagram ends, or an earlier one did:
    /// the datagram is refused (RFC 5722 §4).
    Overlap,
    /// Some fragments say that their sender knows of ECN and others that it does not: the datagram
    /// is refused, as Linux refuses it (RFC 3168 §5.3 demands it where one of them met congestion, and
    /// leaves open what a broken path may have made of the others).
    EcnMismatch,
    /// No memory is left, also after older datagrams were given up.
    NoMemory,
}

/// What became of a fragment.
#[derive(Debug, PartialEq, Eq)]
pub enum FragmentOutcome<'a> {
    /// It waits for others.
    Queued,
    /// The datagram is complete.
    Complete(Reassembled<'a>),
    /// It was not kept.
    Dropped(FragmentDrop),
}

/// What became of a fragment, and of others.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub struct Insertion<'a> {
    /// What became of it.
    pub outcome: FragmentOutcome<'a>,
    /// How many other datagrams were given up to make room.
    pub evicted: u32,
}

/// A complete datagram. It is gone from the reassembler, whose next call overwrites these bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Reassembled<'a> {
    /// The first fragment's header, as it was (so the caller sets the length and clears the
    /// fragment fields, or takes out the IPv6 fragment header), and the whole payload behind it.
    pub packet: &'a mut [u8],
    /// Length of the header, in bytes.
    pub header_len: usize,
    /// Whether a fragment met congestion: the header's ECN bits then become 11 (RFC 3168 §5.3).
    pub congestion_experienced: bool,
}

/// A datagram whose fragments did not all come in time.
#[derive(Debug, PartialEq, Eq)]
pub struct Expired<'a, I: Ip> {
    /// Which.
    pub key: FragmentKey<I>,
    /// Its first fragment if that came, to be quoted in a "fragment reassembly time exceeded". If it
    /// did not come, nothing is sent (RFC 1122 §3.3.2, RFC 8200 §4.5).
    pub first: Option<FirstFragment<'a>>,
}

/// What is kept of a first fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstFragment<'a> {
    /// Its header.
    pub header: &'a [u8],
    /// Its payload, of which at most 1024 bytes.
    pub payload: &'a [u8],
}

/// A datagram in reassembly.
#[derive(Debug)]
struct Datagram<I: Ip> {
    key: FragmentKey<I>,
    state: DatagramState,
    /// The source it counts for, and its neighbours in that source's queue.
    source: u32,
    older: u32,
    newer: u32,
}

#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "slots exist from the start; a box would be allocated per packet"
)]
enum DatagramState {
    Collecting(Collecting),
    /// Fragments overlapped; those still to come are recognised until the time is over.
    Refused,
}

#[derive(Debug)]
struct Collecting {
    blocks: BlockMap,
    /// Payload that has come, in bytes.
    received: usize,
    /// Where the furthest fragment ends, in bytes.
    end: usize,
    /// Length of the whole payload, once the last fragment has come.
    total: Option<usize>,
    first: Option<First>,
    /// Bit n: a fragment had the ECN bits n.
    ecn_seen: u8,
}

/// The first fragment's header, and the length of its payload.
#[derive(Debug)]
struct First {
    header: [u8; HEADER_BYTES_MAX],
    header_len: usize,
    payload_len: usize,
}

/// A source with datagrams in reassembly, which queue by age.
#[derive(Debug)]
struct Source<A> {
    address: A,
    count: usize,
    oldest: u32,
    newest: u32,
}

/// No datagram.
const NONE: u32 = u32::MAX;

/// Reassembles the datagrams of one IP version.
#[derive(Debug)]
pub struct Reassembler<I: Ip> {
    config: ReassemblyConfig,
    key: HashKey,
    datagrams: Vec<Option<Datagram<I>>>,
    free: Vec<u32>,
    index: Index,
    /// When each datagram's time is over; so the first is also the oldest.
    deadlines: TimeOrder,
    sources: Vec<Option<Source<I::Addr>>>,
    free_sources: Vec<u32>,
    source_index: Index,
    blocks: Blocks,
    /// Where complete datagrams are put together.
    complete: Vec<u8>,
}

impl<I: Ip> Reassembler<I> {
    /// Allocates everything: the payload memory, about 750 bytes a datagram, and 64 KiB.
    #[must_use]
    pub fn new(config: ReassemblyConfig, key: HashKey) -> Self {
        let capacity = config.datagrams_max.min(1 << 20);
        // A datagram has up to 64 blocks; 2 GiB keep the block numbers far from their end.
        let blocks = config.payload_bytes_max.min(1 << 31).div_ceil(BLOCK_BYTES);
        let numbers = || {
            (0u32..)
                .take(capacity)
                .collect::<Vec<_>>()
                .into_iter()
                .rev()
                .collect()
        };
        Self {
            key,
            datagrams: empty(capacity),
            free: numbers(),
            index: Index::new(capacity),
            deadlines: TimeOrder::new(capacity),
            sources: empty(capacity),
            free_sources: numbers(),
            source_index: Index::new(capacity),
            blocks: Blocks::new(u32::try_from(blocks).unwrap_or(0)),
            complete: vec![0; HEADER_BYTES_MAX + PACKET_BYTES_MAX],
            config,
        }
    }

    /// Takes a fragment in. Packets that are not fragments (RFC 6946 calls those with a fragment
    /// header atomic) are the caller's to recognise: they need no reassembly and must not meet
    /// others here.
    pub fn insert(
        &mut self,
        key: FragmentKey<I>,
        fragment: &Fragment<'_>,
        now: Instant,
    ) -> Insertion<'_> {
        let mut evicted = 0;
        let outcome = match self.try_insert(key, fragment, now, &mut evicted) {
            Ok(None) => FragmentOutcome::Queued,
            Ok(Some(slot)) => self.finish(slot),
            Err(reason) => FragmentOutcome::Dropped(reason),
        };
        Insertion { outcome, evicted }
    }

    /// Gives up the datagrams whose time is over. Refused ones go without a word.
    pub fn expire(&mut self, now: Instant, mut act: impl FnMut(Expired<'_, I>)) {
        while let Some(slot) = self.deadlines.pop_due(now) {
            if let Some(Datagram {
                key,
                state: DatagramState::Collecting(parts),
                ..
            }) = &self.datagrams[slot as usize]
            {
                let first = parts.first.as_ref().map(|first| FirstFragment {
                    header: &first.header[..first.header_len],
                    payload: self.blocks.head(&parts.blocks, first.payload_len),
                });
                act(Expired { key: *key, first });
            }
            self.remove(slot);
        }
    }

    /// When [`expire`](Self::expire) has something to do next.
    #[inline]
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| at)
    }

    /// How many datagrams are in reassembly, refused ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Memory in use for payload, in bytes.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        (self.blocks.count() - self.blocks.free_count()) * BLOCK_BYTES
    }

    /// The slot of a datagram that is complete now, if it is.
    fn try_insert(
        &mut self,
        key: FragmentKey<I>,
        fragment: &Fragment<'_>,
        now: Instant,
        evicted: &mut u32,
    ) -> Result<Option<u32>, FragmentDrop> {
        check::<I>(fragment)?;
        let Fragment {
            offset_bytes: offset,
            more,
            ecn,
            header,
            payload,
        } = *fragment;
        let slot = match self.find(&key) {
            Some(slot) => slot,
            None => self.add(key, now, evicted)?,
        };
        let Some(parts) = self.parts(slot) else {
            return Err(FragmentDrop::Overlap);
        };

        let end = offset + payload.len();
        let last = !more;
        // A fragment with more behind it ends before the datagram does, and no fragment goes beyond
        // the last one.
        let contradicts = match (parts.total, last) {
            (Some(total), true) => end != total,
            (Some(total), false) => end >= total,
            (None, true) => end <= parts.end,
            (None, false) => false,
        };
        match self.blocks.relation(&parts.blocks, offset, payload, last) {
            // RFC 8200 §4.5, RFC 5722 §4.
            _ if contradicts => return Err(self.refuse(slot, FragmentDrop::Overlap)),
            Relation::Overlap => return Err(self.refuse(slot, FragmentDrop::Overlap)),
            // RFC 8200 §4.5 permits to tell copies apart from overlaps.
            Relation::Duplicate => return Err(FragmentDrop::Duplicate),
            Relation::New => {}
        }
        self.make_room(slot, offset, payload.len(), evicted)?;

        let Some(Datagram {
            state: DatagramState::Collecting(parts),
            ..
        }) = &mut self.datagrams[slot as usize]
        else {
            return Err(FragmentDrop::NoMemory);
        };
        if !self
            .blocks
            .provide(&mut parts.blocks, offset, payload.len())
        {
            return Err(FragmentDrop::NoMemory);
        }
        self.blocks.store(&parts.blocks, offset, payload);
        parts.received += payload.len();
        parts.end = parts.end.max(end);
        parts.ecn_seen |= 1 << (ecn & 0b11);
        if last {
            parts.total = Some(end);
        }
        if offset == 0 {
            let mut kept = [0; HEADER_BYTES_MAX];
            kept[..header.len()].copy_from_slice(header);
            parts.first = Some(First {
                header: kept,
                header_len: header.len(),
                payload_len: payload.len(),
            });
        }
        // Nothing overlaps, so as many bytes as there should be are all of them.
        if parts.total != Some(parts.received) {
            return Ok(None);
        }
        // RFC 3168 §5.3: congestion that a sender without ECN would never hear of is signalled by
        // dropping. And whoever made one datagram of both kinds is not to be believed.
        if parts.ecn_seen & 1 != 0 && parts.ecn_seen != 1 {
            return Err(self.refuse(slot, FragmentDrop::EcnMismatch));
        }
        let header_len = parts.first.as_ref().map_or(0, |first| first.header_len);
        if packet_len::<I>(header_len, parts.received) > PACKET_BYTES_MAX {
            return Err(self.refuse(slot, FragmentDrop::TooLong));
        }
        Ok(Some(slot))
    }

    /// Puts a complete datagram together and forgets it.
    fn finish(&mut self, slot: u32) -> FragmentOutcome<'_> {
        let Some(Datagram {
            state: DatagramState::Collecting(parts),
            ..
        }) = &self.datagrams[slot as usize]
        else {
            return FragmentOutcome::Dropped(FragmentDrop::NoMemory);
        };
        let header = match &parts.first {
            Some(first) => &first.header[..first.header_len],
            None => &[],
        };
        let header_len = header.len();
        let len = header_len + parts.received;
        self.complete[..header_len].copy_from_slice(header);
        self.blocks
            .copy_out(&parts.blocks, &mut self.complete[header_len..len]);
        let congestion_experienced = parts.ecn_seen & 0b1000 != 0;
        self.remove(slot);
        FragmentOutcome::Complete(Reassembled {
            packet: &mut self.complete[..len],
            header_len,
            congestion_experienced,
        })
    }

    #[inline]
    fn find(&self, key: &FragmentKey<I>) -> Option<u32> {
        self.index.find(key.hash(&self.key), |slot| {
            self.datagrams[slot as usize]
                .as_ref()
                .is_some_and(|datagram| datagram.key == *key)
        })
    }

    /// The parts of a datagram, unless it is refused.
    fn parts(&self, slot: u32) -> Option<&Collecting> {
        match self.datagrams[slot as usize].as_ref()?.state {
            DatagramState::Collecting(ref parts) => Some(parts),
            DatagramState::Refused => None,
        }
    }

    /// Begins a datagram, in place of an older one if there are too many.
    fn add(
        &mut self,
        key: FragmentKey<I>,
        now: Instant,
        evicted: &mut u32,
    ) -> Result<u32, FragmentDrop> {
        if self.config.datagrams_per_source_max == 0 {
            return Err(FragmentDrop::NoMemory);
        }
        if let Some(source) = self.find_source(key.source)
            && let Some(source) = &self.sources[source as usize]
            && source.count >= self.config.datagrams_per_source_max
        {
            let oldest = source.oldest;
            self.remove(oldest);
            *evicted += 1;
        }
        if self.free.is_empty() {
            let (_, oldest) = self.deadlines.first().ok_or(FragmentDrop::NoMemory)?;
            self.remove(oldest);
            *evicted += 1;
        }
        // There are as many sources as datagrams, so a free datagram means a free source.
        let slot = self.free.pop().ok_or(FragmentDrop::NoMemory)?;
        let (source, older) = self
            .enqueue(key.source, slot)
            .ok_or(FragmentDrop::NoMemory)?;
        let state = DatagramState::Collecting(Collecting {
            blocks: BlockMap::EMPTY,
            received: 0,
            end: 0,
            total: None,
            first: None,
            ecn_seen: 0,
        });
        self.datagrams[slot as usize] = Some(Datagram {
            key,
            state,
            source,
            older,
            newer: NONE,
        });
        self.index.insert(key.hash(&self.key), slot);
        self.deadlines.set(slot, now + self.config.timeout);
        Ok(slot)
    }

    /// Gives up the oldest datagrams until `slot` can have the blocks it lacks. If it is the oldest
    /// itself, it is given up.
    fn make_room(
        &mut self,
        slot: u32,
        offset: usize,
        len: usize,
        evicted: &mut u32,
    ) -> Result<(), FragmentDrop> {
        let lacking = match self.parts(slot) {
            Some(parts) => self.blocks.lacking(&parts.blocks, offset, len),
            None => return Err(FragmentDrop::Overlap),
        };
        while self.blocks.free_count() < lacking {
            let Some((_, oldest)) = self.deadlines.first() else {
                break;
            };
            self.remove(oldest);
            if oldest == slot {
                return Err(FragmentDrop::NoMemory);
            }
            *evicted += 1;
        }
        Ok(())
    }

    /// Refuses a datagram: its memory is free again, its key stays known until its time is over.
    fn refuse(&mut self, slot: u32, reason: FragmentDrop) -> FragmentDrop {
        if let Some(datagram) = &mut self.datagrams[slot as usize] {
            if let DatagramState::Collecting(parts) = &mut datagram.state {
                self.blocks.release(&mut parts.blocks);
            }
            datagram.state = DatagramState::Refused;
        }
        reason
    }

    /// Forgets a datagram.
    fn remove(&mut self, slot: u32) {
        let Some(mut datagram) = self.datagrams[slot as usize].take() else {
            return;
        };
        if let DatagramState::Collecting(parts) = &mut datagram.state {
            self.blocks.release(&mut parts.blocks);
        }
        self.index.remove(datagram.key.hash(&self.key), slot);
        self.deadlines.remove(slot);
        self.free.push(slot);
        self.dequeue(&datagram);
    }

    fn find_source(&self, address: I::Addr) -> Option<u32> {
        self.source_index
            .find(address.keyed_hash(&self.key), |source| {
                self.sources[source as usize]
                    .as_ref()
                    .is_some_and(|found| found.address == address)
            })
    }

    /// Puts a new datagram at the end of its source's queue. Returns the source, and the datagram
    /// before it.
    fn enqueue(&mut self, address: I::Addr, slot: u32) -> Option<(u32, u32)> {
        let number = match self.find_source(address) {
            Some(number) => number,
            None => {
                let number = self.free_sources.pop()?;
                self.sources[number as usize] = Some(Source {
                    address,
                    count: 0,
                    oldest: NONE,
                    newest: NONE,
                });
                self.source_index
                    .insert(address.keyed_hash(&self.key), number);
                number
            }
        };
        let source = self.sources[number as usize].as_mut()?;
        let older = source.newest;
        source.newest = slot;
        source.count += 1;
        if older == NONE {
            source.oldest = slot;
        } else if let Some(older) = &mut self.datagrams[older as usize] {
            older.newer = slot;
        }
        Some((number, older))
    }

    /// Takes a datagram out of its source's queue, and forgets the source with its last one.
    fn dequeue(&mut self, datagram: &Datagram<I>) {
        let &Datagram {
            source: number,
            older,
            newer,
            ..
        } = datagram;
        let Some(source) = &mut self.sources[number as usize] else {
            return;
        };
        match self
            .datagrams
            .get_mut(older as usize)
            .and_then(Option::as_mut)
        {
            Some(older) => older.newer = newer,
            None => source.oldest = newer,
        }
        match self
            .datagrams
            .get_mut(newer as usize)
            .and_then(Option::as_mut)
        {
            Some(newer) => newer.older = older,
            None => source.newest = older,
        }
        source.count -= 1;
        if source.count == 0 {
            self.source_index
                .remove(source.address.keyed_hash(&self.key), number);
            self.sources[number as usize] = None;
            self.free_sources.push(number);
        }
    }
}

/// Slots without entries.
fn empty<T>(count: usize) -> Vec<Option<T>> {
    core::iter::repeat_with(|| None).take(count).collect()
}

/// What can be said about a fragment without knowing the others.
fn check<I: Ip>(fragment: &Fragment<'_>) -> Result<(), FragmentDrop> {
    let &Fragment {
        offset_bytes: offset,
        more,
        ecn: _,
        header,
        payload,
    } = fragment;
    if payload.is_empty() {
        return Err(FragmentDrop::Empty);
    }
    // RFC 791 §3.2, RFC 8200 §4.5: all but the last are multiples of 8 bytes.
    if !offset.is_multiple_of(UNIT_BYTES) || (more && !payload.len().is_multiple_of(UNIT_BYTES)) {
        return Err(FragmentDrop::Unaligned);
    }
    let header_len = if offset == 0 { header.len() } else { 0 };
    if header_len > HEADER_BYTES_MAX {
        return Err(FragmentDrop::HeaderTooLong);
    }
    // RFC 8200 §4.5, and for IPv4 the "ping of death".
    let end = offset.saturating_add(payload.len());
    if end > PACKET_BYTES_MAX || packet_len::<I>(header_len, end) > PACKET_BYTES_MAX {
        return Err(FragmentDrop::TooLong);
    }
    Ok(())
}

/// What the reassembled header's length field would say, in bytes: all of an IPv4 packet; of an
/// IPv6 one neither the header nor the fragment header.
fn packet_len<I: Ip>(header_len: usize, payload_len: usize) -> usize {
    let not_counted = match I::VERSION {
        4 => 0,
        _ => I::HEADER_BYTES + 8,
    };
    header_len.saturating_sub(not_counted) + payload_len
}
