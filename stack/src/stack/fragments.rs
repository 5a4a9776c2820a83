//! Datagrams that came in pieces.
//!
//! Only a whole datagram tells for sure which socket it is for. If that is another worker's, it goes
//! there in pieces again, which that worker puts together in its own memory:
//!
//! ```text
//!   pieces ─► collect ─► Whole ─► receive_reassembled ─► socket
//!                                        │
//!                                        └─► hand_off_in_pieces ─► the other worker's collect
//! ```

use super::input::IpMeta;
use super::output::{Request, emit_fragment, fragment_header_len};
use super::version::Header;
use super::version::IpStack;
use super::{Disposition, HANDOFFS_MAX, Handoff, Origin, Stack};
use crate::counters::{DropReason, Event};
use crate::frame::{Frame, FramePool};
use crate::ip::address::{Ipv4, Ipv6};
use crate::ip::reassembly::{
    Fragment, FragmentDrop, FragmentKey, FragmentOutcome, HEADER_BYTES_MAX, Reassembled,
    Reassembler,
};
use crate::socket::demux::Target;
use crate::time::Instant;
use crate::udp::{Datagram, Large, Storage};
use crate::wire::{ipv4, ipv6, protocol, udp};
use alloc::boxed::Box;
use core::net::SocketAddr;
use core::ops::Range;

/// A datagram put together: its bytes from the IP header on, and where its payload lies in them.
struct Whole {
    large: Box<Large>,
    header_len: usize,
    len: usize,
    /// The first piece's, with ECN as it is for all of them.
    tos: u8,
}

/// What is known of the message in a datagram put together.
struct Message {
    protocol: u8,
    /// The sender's number for the datagram.
    identification: u32,
    /// Where it lies in the buffer.
    transport: Range<usize>,
    /// Where its last piece came from.
    origin: Origin,
}

/// What is to be done with a UDP datagram put together.
enum Destination {
    /// Queue its payload in a socket.
    Socket {
        socket: u16,
        payload: Range<usize>,
        remote_port: u16,
        local_port: u16,
    },
    /// Another worker's.
    Elsewhere(Handoff),
    /// It is settled.
    Settled(Disposition),
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
        origin: Origin,
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
        let reassembled = Message {
            protocol: packet.protocol(),
            identification: key.identification,
            transport: whole.header_len..whole.len,
            origin,
        };
        self.receive_reassembled(pool, frame, meta, whole.large, reassembled, now)
    }

    #[cold]
    pub(super) fn receive_fragment_v6(
        &mut self,
        pool: &mut P,
        frame: &P::Frame,
        meta: IpMeta<Ipv6>,
        payload: Range<usize>,
        piece: ipv6::Fragment,
        origin: Origin,
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
            Some((protocol, transport)) => {
                let reassembled = Message {
                    protocol,
                    identification: key.identification,
                    transport,
                    origin,
                };
                self.receive_reassembled(pool, frame, meta, whole.large, reassembled, now)
            }
            None => {
                self.large.push(whole.large);
                Err(DropReason::Ipv6ExtensionHeader)
            }
        }
    }

    /// A datagram put together from fragments: headers and payload in the buffer of `large`.
    fn receive_reassembled<I: IpStack>(
        &mut self,
        pool: &mut P,
        frame: &P::Frame,
        meta: IpMeta<I>,
        mut large: Box<Large>,
        message: Message,
        now: Instant,
    ) -> Result<Disposition, DropReason> {
        self.events.count(Event::DatagramReassembled);
        let buffer = &mut large.buffer;
        let result = match self.find_destination(pool, frame, meta, buffer, &message, now) {
            Ok(Destination::Socket {
                socket,
                payload,
                remote_port,
                local_port,
            }) => {
                large.payload = payload;
                large.remote = SocketAddr::new(meta.source.into(), remote_port);
                large.local = SocketAddr::new(meta.destination.into(), local_port);
                large.tos = meta.tos;
                large.stamps = frame.stamps();
                large.station = self.station_of(frame.data());
                return self.enqueue_large(pool, socket, large);
            }
            Ok(Destination::Elsewhere(to)) => {
                self.hand_off_in_pieces(pool, frame, meta, buffer, &message, to)
            }
            Ok(Destination::Settled(disposition)) => Ok(disposition),
            Err(reason) => Err(reason),
        };
        self.large.push(large);
        result
    }

    fn enqueue_large(
        &mut self,
        pool: &mut P,
        socket: u16,
        large: Box<Large>,
    ) -> Result<Disposition, DropReason> {
        let len = large.payload.len() as u64;
        let datagram = Datagram(Storage::Large(large));
        let queued = match self.udp.at_mut(socket) {
            Some(socket) => socket.queue.push(datagram),
            None => Err(datagram),
        };
        match queued {
            Ok(()) => {
                self.events.count(Event::UdpRx);
                self.events.add(Event::UdpRxBytes, len);
                Ok(Disposition::Done)
            }
            Err(datagram) => {
                self.udp_release(pool, datagram);
                Err(DropReason::UdpQueueFull)
            }
        }
    }

    /// Finds the socket of a reassembled datagram, or answers it.
    fn find_destination<I: IpStack>(
        &mut self,
        pool: &mut P,
        frame: &P::Frame,
        meta: IpMeta<I>,
        buffer: &mut [u8],
        message: &Message,
        now: Instant,
    ) -> Result<Destination, DropReason> {
        let transport = message.transport.clone();
        match message.protocol {
            protocol::UDP => {
                let packet = udp::Packet::new_checked(buffer, transport)?;
                let port = packet.destination_port();
                let Some(target) = I::state(self).demux.lookup(meta.destination, port) else {
                    // The sender knows its datagram by the first piece, not by the one that came last.
                    let whole = buffer.get(..message.transport.end).unwrap_or(&[]);
                    let meta = IpMeta { offset: 0, ..meta };
                    return Err(self.refuse_port(pool, whole, meta, &packet, now));
                };
                self.check_udp(&packet, meta)?;
                match target {
                    Target::Socket(socket) => Ok(Destination::Socket {
                        socket,
                        payload: packet.payload(),
                        remote_port: packet.source_port(),
                        local_port: port,
                    }),
                    Target::Elsewhere(tag) => {
                        let to = self.other_worker(tag, meta, &packet, message.origin)?;
                        Ok(Destination::Elsewhere(to))
                    }
                }
            }
            protocol if protocol == I::ICMP => {
                let request = Request {
                    stamps: frame.stamps(),
                    station: self.station_of(frame.data()),
                };
                let settled = self.echo_large(pool, meta, buffer, transport, request, now)?;
                Ok(Destination::Settled(settled))
            }
            _ => {
                let whole = buffer.get(..transport.end).unwrap_or(&[]);
                let meta = IpMeta { offset: 0, ..meta };
                Err(I::refuse_reassembled(self, pool, whole, meta, now))
            }
        }
    }

    /// Cuts a reassembled datagram into pieces again, as they would come from the station that sent
    /// the last one, for another worker: either all of them are on their way, or none is.
    fn hand_off_in_pieces<I: IpStack>(
        &mut self,
        pool: &mut P,
        frame: &P::Frame,
        meta: IpMeta<I>,
        buffer: &[u8],
        message: &Message,
        to: Handoff,
    ) -> Result<Disposition, DropReason> {
        let malformed = DropReason::FragmentMalformed;
        let bytes = buffer.get(message.transport.clone()).ok_or(malformed)?;
        let before = self.handoffs.len();
        let mut offset = 0;
        while offset < bytes.len() {
            match self.cut_piece(pool, frame, meta, message, bytes, offset) {
                Ok((piece, len)) => {
                    self.handoffs.push_back((to, piece));
                    offset += len;
                }
                Err(reason) => {
                    for (_, piece) in self.handoffs.drain(before..) {
                        pool.give(piece);
                    }
                    return Err(reason);
                }
            }
        }
        Ok(Disposition::Done)
    }

    /// The piece from `offset` on, as long as a frame has room for, and how many of `bytes` it has.
    fn cut_piece<I: IpStack>(
        &self,
        pool: &mut P,
        frame: &P::Frame,
        meta: IpMeta<I>,
        message: &Message,
        bytes: &[u8],
        offset: usize,
    ) -> Result<(P::Frame, usize), DropReason> {
        if self.handoffs.len() >= HANDOFFS_MAX {
            return Err(DropReason::HandoffFull);
        }
        let mut piece = pool.take().ok_or(DropReason::TxNoFrame)?;
        let headers = meta.offset + I::HEADER_BYTES + fragment_header_len::<I>();
        // RFC 791 §3.2, RFC 8200 §4.5: all but the last are multiples of 8 bytes.
        let room = piece.capacity().saturating_sub(headers) & !7;
        let len = room.min(bytes.len() - offset);
        let more = offset + len < bytes.len();
        piece.set_len(headers + len);
        piece.set_stamps(frame.stamps());
        let header = Header::<I> {
            source: meta.source,
            destination: meta.destination,
            protocol: message.protocol,
            tos: meta.tos,
            // Only neighbour discovery looks at it, and that never comes in pieces (RFC 6980).
            ttl: self.config.ttl,
            fragmentable: None,
            payload_len: 0,
        };
        let number = message.identification;
        let write = |data: &mut [u8]| {
            data.get_mut(..meta.offset)?
                .copy_from_slice(frame.data().get(..meta.offset)?);
            let at = emit_fragment(data, meta.offset, header, number, offset, len, more)?;
            data.get_mut(at..at + len)?
                .copy_from_slice(bytes.get(offset..offset + len)?);
            Some(())
        };
        if len == 0 || write(piece.data_mut()).is_none() {
            pool.give(piece);
            return Err(DropReason::FrameTooLong);
        }
        Ok((piece, len))
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
