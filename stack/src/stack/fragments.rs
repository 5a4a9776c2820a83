//! Datagrams that came in pieces.

use super::input::IpMeta;
use super::version::IpStack;
use super::{Disposition, Stack};
use crate::counters::{DropReason, Event};
use crate::frame::{Frame, FramePool};
use crate::ip::address::{Ipv4, Ipv6};
use crate::ip::reassembly::{
    Fragment, FragmentDrop, FragmentKey, FragmentOutcome, HEADER_BYTES_MAX, Reassembled,
    Reassembler,
};
use crate::time::Instant;
use crate::udp::Large;
use crate::wire::{ipv4, ipv6};
use alloc::boxed::Box;
use core::ops::Range;

/// A datagram put together: its bytes from the IP header on, and where its payload lies in them.
struct Whole {
    large: Box<Large>,
    header_len: usize,
    len: usize,
    /// The first piece's, with ECN as it is for all of them.
    tos: u8,
}

/// Room for the longest datagram: 65,535 bytes of payload behind the longest headers kept.
pub(super) const LARGE_BYTES: usize = 65_536 + HEADER_BYTES_MAX;

/// ECN "congestion experienced" (RFC 3168 §5).
const ECN_CE: u8 = 0b11;

impl<P: FramePool> Stack<P> {
    #[cold]
    pub(super) fn receive_fragment_v4(
        &mut self,
        pool: &mut P,
        frame: &P::Frame,
        meta: IpMeta<Ipv4>,
        now: Instant,
    ) -> Result<Disposition, DropReason> {
        let data = frame.data();
        let packet = ipv4::Packet::new_checked(data, meta.offset)?;
        let key = FragmentKey {
            source: meta.source,
            destination: meta.destination,
            identification: packet.identification().into(),
            protocol: packet.protocol(),
        };
        let (offset, more) = (packet.fragment_offset(), packet.more_fragments());
        let Some(whole) = self.collect(data, meta, key, offset, more, packet.payload(), now)?
        else {
            return Ok(Disposition::Done);
        };
        let meta = IpMeta {
            tos: whole.tos,
            ..meta
        };
        let payload = whole.header_len..whole.len;
        self.receive_reassembled(
            pool,
            frame,
            meta,
            packet.protocol(),
            whole.large,
            payload,
            now,
        )
    }

    #[cold]
    pub(super) fn receive_fragment_v6(
        &mut self,
        pool: &mut P,
        frame: &P::Frame,
        meta: IpMeta<Ipv6>,
        payload: Range<usize>,
        piece: ipv6::Fragment,
        now: Instant,
    ) -> Result<Disposition, DropReason> {
        let data = frame.data();
        let key = FragmentKey {
            source: meta.source,
            destination: meta.destination,
            identification: piece.identification,
            // RFC 8200 §4.5: the next headers of the pieces may differ; the first one's counts.
            protocol: 0,
        };
        let offset = usize::from(piece.offset);
        let Some(mut whole) = self.collect(data, meta, key, offset, piece.more, payload, now)?
        else {
            return Ok(Disposition::Done);
        };
        let meta = IpMeta {
            tos: whole.tos,
            ..meta
        };
        match whole.without_fragment_header() {
            Some((protocol, payload)) => {
                self.receive_reassembled(pool, frame, meta, protocol, whole.large, payload, now)
            }
            None => {
                self.large.push(whole.large);
                Err(DropReason::Ipv6ExtensionHeader)
            }
        }
    }

    /// Adds a piece; gives back the datagram if it was the last one missing.
    fn collect<I: IpStack>(
        &mut self,
        data: &[u8],
        meta: IpMeta<I>,
        key: FragmentKey<I>,
        offset_bytes: usize,
        more: bool,
        payload: Range<usize>,
        now: Instant,
    ) -> Result<Option<Whole>, DropReason> {
        self.events.count(Event::FragmentRx);
        // What is not for us takes no memory.
        if self.owner_of(meta.destination.into()).is_none() {
            return Err(DropReason::IpNotLocal);
        }
        let malformed = DropReason::FragmentMalformed;
        let fragment = Fragment {
            offset_bytes,
            more,
            ecn: meta.tos & ECN_CE,
            header: data.get(meta.offset..payload.start).ok_or(malformed)?,
            payload: data.get(payload).ok_or(malformed)?,
        };
        let mut large = self.large.pop();
        let reassembler = I::state(self).reassembler.as_mut();
        let insertion = reassembler
            .ok_or(DropReason::ReassemblyDisabled)?
            .insert(key, &fragment, now);
        let evicted = insertion.evicted;
        let result = match insertion.outcome {
            FragmentOutcome::Queued => Ok(None),
            FragmentOutcome::Dropped(reason) => Err(reason_of(reason)),
            FragmentOutcome::Complete(reassembled) => match large.take() {
                Some(large) => Ok(Some(Whole::new::<I>(reassembled, large))),
                None => Err(DropReason::FragmentLimit),
            },
        };
        self.large.extend(large);
        self.drops.add(DropReason::FragmentLimit, evicted.into());
        result
    }

    pub(super) fn expire_fragments(&mut self, pool: &mut P, now: Instant) {
        self.expire_fragments_of::<Ipv4>(pool, now);
        self.expire_fragments_of::<Ipv6>(pool, now);
    }

    /// RFC 1122 §3.3.2, RFC 8200 §4.5: tells the sender, if the first piece has come.
    fn expire_fragments_of<I: IpStack>(&mut self, pool: &mut P, now: Instant) {
        let is_due = |reassembler: &Reassembler<I>| {
            reassembler
                .next_deadline()
                .is_some_and(|deadline| deadline <= now)
        };
        if !I::state(self).reassembler.as_ref().is_some_and(is_due) {
            return;
        }
        // Taken out for the while, so that errors can be sent from within.
        let Some(mut reassembler) = I::state(self).reassembler.take() else {
            return;
        };
        reassembler.expire(now, |expired| {
            self.drops.count(DropReason::FragmentTimeout);
            let Some(first) = expired.first else { return };
            // An error quotes at most a minimal packet: header and first payload are enough.
            let mut quoted = [0; ipv6::MTU_MIN];
            let header = first.header.len().min(quoted.len());
            let payload = first.payload.len().min(quoted.len() - header);
            quoted[..header].copy_from_slice(&first.header[..header]);
            quoted[header..header + payload].copy_from_slice(&first.payload[..payload]);
            let addresses = (expired.key.source, expired.key.destination);
            self.reassembly_time_exceeded::<I>(pool, &quoted[..header + payload], addresses, now);
        });
        I::state(self).reassembler = Some(reassembler);
    }
}

impl Whole {
    fn new<I: IpStack>(reassembled: Reassembled<'_>, mut large: Box<Large>) -> Self {
        let Reassembled {
            packet,
            header_len,
            congestion_experienced,
        } = reassembled;
        let len = packet.len().min(large.buffer.len());
        large.buffer[..len].copy_from_slice(&packet[..len]);
        // RFC 3168 §5.3: congestion that one piece met, the datagram met.
        let ecn = if congestion_experienced { ECN_CE } else { 0 };
        Self {
            header_len,
            len,
            tos: I::tos(&large.buffer, 0) | ecn,
            large,
        }
    }

    /// Takes the fragment header out of an IPv6 datagram and reads what headers are left (RFC 8200
    /// §4.5): the protocol and where its message lies.
    fn without_fragment_header(&mut self) -> Option<(u8, Range<usize>)> {
        let bytes = self.large.buffer.get_mut(..self.len)?;
        // The payload length of a single piece was right for that piece alone.
        let first = ipv6::Packet::new_embedded(bytes, 0).ok()?.fragment()?;
        let start = self.header_len.checked_sub(ipv6::FRAGMENT_HEADER_LEN)?;
        bytes.copy_within(self.header_len.., start);
        self.len -= ipv6::FRAGMENT_HEADER_LEN;
        *bytes.get_mut(usize::from(first.named_at))? = first.next_header;
        let payload_len = u16::try_from(self.len.checked_sub(ipv6::HEADER_LEN)?).ok()?;
        bytes
            .get_mut(4..6)?
            .copy_from_slice(&payload_len.to_be_bytes());
        let packet = ipv6::Packet::new_checked(bytes.get(..self.len)?, 0).ok()?;
        // Fragments of fragments are nobody's (Linux discards them, too).
        if packet.fragment().is_some() {
            return None;
        }
        Some((packet.protocol(), packet.payload()))
    }
}

fn reason_of(drop: FragmentDrop) -> DropReason {
    match drop {
        FragmentDrop::Duplicate => DropReason::FragmentDuplicate,
        FragmentDrop::Overlap => DropReason::FragmentOverlap,
        FragmentDrop::NoMemory => DropReason::FragmentLimit,
        FragmentDrop::EcnMismatch => DropReason::FragmentEcn,
        FragmentDrop::Empty
        | FragmentDrop::Unaligned
        | FragmentDrop::TooLong
        | FragmentDrop::HeaderTooLong => DropReason::FragmentMalformed,
    }
}
