//! The short way of TCP segments, as [`fast_path`](super::fast_path) has it for datagrams: from the
//! frame to its connection, and from a connection to a frame.
//!
//! A segment takes it in whose IP header is plain, which has timestamps at most among its options and
//! ACK and perhaps PSH as its flags, whose checksum is right, and which its connection takes as it is
//! ([`Connection::on_plain_segment`]). A segment takes it out that has the same form, to a next hop
//! that is known. Whatever is not exactly that takes the long way, through `input` and `tcp`, from its
//! first byte on; until it is sure, the short way changes, counts and drops nothing. A test below
//! holds it against the long way.
//!
//! [`Connection::on_plain_segment`]: crate::tcp::connection::Connection::on_plain_segment

use super::Stack;
use super::output::Hop;
use super::tcp::Parts;
use super::version::{Header, IpStack};
use crate::counters::{Event, EventCounters};
use crate::frame::{Frame, FramePool};
use crate::queue::Queue;
use crate::tcp::congestion::CongestionControl;
use crate::tcp::connection::{Connection, Next, PlainOutput, PlainSegment};
use crate::tcp::options::OptionsOut;
use crate::tcp::pools::Pools;
use crate::tcp::segment::Flags;
use crate::tcp::seq::SeqNum;
use crate::tcp::tuple::Tuple;
use crate::time::Instant;
use crate::wire::ethernet::VlanIds;
use crate::wire::tcp::Verified;
use crate::wire::{ethernet, protocol, tcp as wire};
use core::ops::Range;

impl<P: FramePool> Stack<P> {
    /// Takes a plain segment that lies in `payload` of an untagged frame, behind a plain IP header;
    /// says whether it did.
    #[inline(always)]
    pub(super) fn plain_segment<I: IpStack>(
        &mut self,
        data: &[u8],
        (source, destination): (I::Addr, I::Addr),
        payload: Range<usize>,
        now: Instant,
    ) -> bool {
        let Ok(packet) = wire::Packet::new_checked(data, payload) else {
            return false;
        };
        let plain = packet.flags().without(Flags::PSH) == Flags::ACK;
        let Some(timestamps) = crate::tcp::options::plain(packet.options()) else {
            return false;
        };
        if !plain {
            return false;
        }
        let pseudo = |len| I::pseudo(source, destination, protocol::TCP, len);
        if packet.verify(pseudo) != Ok(Verified::Right) {
            return false;
        }
        // What names a connection is no port 0, and no address that may not be.
        let tuple = Tuple {
            local: destination,
            remote: source,
            local_port: packet.destination_port(),
            remote_port: packet.source_port(),
        };
        let Parts {
            table, tcp, events, ..
        } = I::tcp_parts(self);
        let Some(id) = table.find_open(&tuple) else {
            return false;
        };
        let segment = PlainSegment {
            seq: SeqNum::new(packet.seq()),
            ack: SeqNum::new(packet.ack()),
            window: packet.window(),
            timestamps,
            payload: packet.payload_bytes(),
        };
        let ack_delay = tcp.config.ack_delay;
        let pools = tcp.pools_mut();
        if !table.on_plain_segment(pools, ack_delay, now, id, &segment) {
            return false;
        }
        events.count(Event::TcpSegmentRx);
        events.add(Event::TcpRxBytes, segment.payload.len() as u64);
        true
    }

    /// Sends what the first connection in the queue has to send, if that are plain segments to a next
    /// hop that is known. `None`: they are not, or not all of them.
    #[inline(always)]
    pub(super) fn transmit_plainly<I: IpStack>(
        &mut self,
        pool: &mut P,
        now: Instant,
    ) -> Option<()> {
        let Parts {
            table,
            hops,
            hop_generation,
            tcp,
            events,
            egress,
            config,
            ..
        } = I::tcp_parts(self);
        // Frames with tags, and packets that routers may cut, are the long way's.
        if config.vlans != VlanIds::NONE {
            return None;
        }
        table.transmit_next(|connection| {
            let Some(hop) = hops.known(connection.tuple().remote, hop_generation) else {
                return false;
            };
            let way = PlainWay {
                pools: tcp.pools_mut(),
                pool,
                egress,
                events,
                ttl: config.ttl,
                hop,
                now,
            };
            !hop.may_fragment() && way.transmit(connection)
        })
    }
}

/// What a plain segment is made of and with, beside its connection.
struct PlainWay<'a, P: FramePool> {
    pools: &'a mut Pools,
    pool: &'a mut P,
    egress: &'a mut Queue<P::Frame>,
    events: &'a mut EventCounters,
    ttl: u8,
    hop: &'a Hop,
    now: Instant,
}

impl<P: FramePool> PlainWay<'_, P> {
    /// Whether all there is has left.
    #[inline(always)]
    fn transmit<I: IpStack, C: CongestionControl>(self, connection: &mut Connection<I, C>) -> bool {
        let Self {
            pools,
            pool,
            egress,
            events,
            ttl,
            hop,
            now,
        } = self;
        if !connection.leaves_plainly(hop.mtu) {
            return false;
        }
        loop {
            let len = match connection.next_plain(pools, now) {
                Next::Text(len) => len,
                Next::Ack => 0,
                Next::Done => return true,
                Next::LongWay => return false,
            };
            if !egress.has_room() {
                return false;
            }
            let Some(mut frame) = pool.take() else {
                return false;
            };
            let output = connection.plain_output(pools, len, now);
            let written = match output.timestamps {
                Some(timestamps) => {
                    let options = OptionsOut::timestamps_bytes(timestamps);
                    write(&mut frame, connection, pools, &output, &options, hop, ttl)
                }
                None => write(&mut frame, connection, pools, &output, &[], hop, ttl),
            };
            if written.is_none() {
                pool.give(frame);
                return false;
            }
            if let Err(frame) = egress.push(frame) {
                pool.give(frame);
                return false;
            }
            connection.on_plain_sent(pools, &output, now);
            if len == 0 {
                events.count(Event::TcpAckTx);
            } else {
                events.count(Event::TcpSegmentTx);
                events.add(Event::TcpTxBytes, len.into());
            }
        }
    }
}

/// Writes all of it; `None` if the frame is too short.
#[inline(always)]
fn write<I: IpStack, C: CongestionControl>(
    frame: &mut impl Frame,
    connection: &mut Connection<I, C>,
    pools: &Pools,
    output: &PlainOutput,
    options: &[u8],
    hop: &Hop,
    ttl: u8,
) -> Option<()> {
    let header_len = wire::HEADER_LEN + options.len();
    let headers_len = ethernet::HEADER_LEN + I::HEADER_BYTES + header_len;
    let payload_len = usize::from(output.len);
    if headers_len + payload_len > frame.capacity() {
        return None;
    }
    frame.set_len(headers_len + payload_len);
    let (headers, payload) = frame.data_mut().split_at_mut_checked(headers_len)?;
    connection.copy_plain(pools, payload);
    let Tuple {
        local,
        remote,
        local_port,
        remote_port,
    } = *connection.tuple();
    *headers.first_chunk_mut()? = hop.ethernet;
    ethernet::put_type(headers, I::ETHER_TYPE)?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "shorter than the path's MTU"
    )]
    let len = header_len as u16 + output.len;
    let fields = connection.ip_fields();
    let ip = Header::<I> {
        source: local,
        destination: remote,
        protocol: protocol::TCP,
        tos: fields.traffic_class(),
        ttl: fields.hop_limit(ttl),
        fragmentable: None,
        payload_len: len,
    };
    I::emit(headers, ethernet::HEADER_LEN, ip)?;
    let header = wire::Header {
        source_port: local_port,
        destination_port: remote_port,
        seq: output.seq.get(),
        ack: output.ack.get(),
        flags: if output.len > 0 && output.push {
            Flags::ACK.union(Flags::PSH)
        } else {
            Flags::ACK
        },
        window: output.window,
        urgent: 0,
    };
    let sum = I::pseudo(local, remote, protocol::TCP, len).add_bytes(payload);
    let at = ethernet::HEADER_LEN + I::HEADER_BYTES;
    wire::emit_with_sum(headers, at, &header, options, sum)
}

#[cfg(test)]
mod tests;
