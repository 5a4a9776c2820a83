//! Datagram sockets: what waits in them, and what an application holds of a datagram.

use crate::frame::{Frame, Stamps};
use crate::link::MacAddr;
use crate::queue::Queue;
use crate::socket::bind::Bind;
use crate::wire::{array_at, chunk_at, ethernet, ipv4, ipv6, udp};
use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use core::ops::Range;

/// A handle to a UDP socket. One whose socket was closed finds nothing: the generation differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UdpSocketId {
    pub(crate) index: u16,
    pub(crate) generation: u16,
}

/// What is known of a datagram in its frame: where its parts lie, and its checksum.
///
/// ```text
///  0          ip_offset        payload_offset     payload_offset + payload_len
/// ├─ Ethernet ┼─ IP ── UDP ────┼──── payload ─────┼─ padding, not ours …
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parts {
    pub(crate) payload_len: u16,
    pub(crate) payload_offset: u16,
    pub(crate) ip_offset: u16,
    /// The checksum has been verified, and nobody has written to the payload since.
    pub(crate) checksum_stands: bool,
    pub(crate) headers: Headers,
}

/// What stands in front of a payload. Plain is Ethernet without tags, IP without options or extension
/// headers, and UDP with a port to answer to: every offset is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Headers {
    PlainV4,
    PlainV6,
    OtherV4,
    OtherV6,
}

impl Headers {
    /// IP version 4, or 6.
    pub(crate) const fn version(self) -> Version {
        match self {
            Self::PlainV4 | Self::OtherV4 => Version::V4,
            Self::PlainV6 | Self::OtherV6 => Version::V6,
        }
    }

    /// Of a datagram that cannot be answered: not plain, so that its reply does not take the short
    /// way, which does not look.
    pub(crate) const fn without_reply(self) -> Self {
        match self.version() {
            Version::V4 => Self::OtherV4,
            Version::V6 => Self::OtherV6,
        }
    }
}

impl Parts {
    /// Of the datagram `packet` in the IP packet that starts at `ip_offset`.
    ///
    /// Every offset lies in a frame, and no frame is longer than 65,535 bytes; a datagram that was
    /// reassembled has no parts.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "offsets within a frame")]
    pub(crate) fn new(
        version: Version,
        ip_offset: usize,
        packet: &udp::Packet<'_>,
        checksum_stands: bool,
    ) -> Self {
        let payload_offset = packet.payload().start;
        let untagged = ip_offset == ethernet::HEADER_LEN;
        let headers = match (version, payload_offset - ip_offset) {
            (Version::V4, V4_HEADERS_LEN) if untagged => Headers::PlainV4,
            (Version::V6, V6_HEADERS_LEN) if untagged => Headers::PlainV6,
            (Version::V4, _) => Headers::OtherV4,
            (Version::V6, _) => Headers::OtherV6,
        };
        Self {
            payload_len: packet.payload_len() as u16,
            payload_offset: payload_offset as u16,
            ip_offset: ip_offset as u16,
            checksum_stands,
            headers,
        }
    }

    /// Whether nothing stands between an IP header of `ip_header_len` bytes and the UDP header.
    #[inline]
    pub(crate) const fn has_plain_ip(&self, ip_header_len: usize) -> bool {
        self.payload_offset as usize == self.ip_offset as usize + ip_header_len + udp::HEADER_LEN
    }

    /// What the UDP header says: its own length and the payload's, in bytes. A frame holds fewer than
    /// 65,528 bytes of payload.
    #[inline]
    pub(crate) const fn udp_len(&self) -> u16 {
        const HEADER: u16 = 8;
        const _: () = assert!(HEADER as usize == udp::HEADER_LEN);
        self.payload_len.wrapping_add(HEADER)
    }
}

/// Headers of IPv4 without options and UDP, in bytes.
const V4_HEADERS_LEN: usize = ipv4::HEADER_LEN + udp::HEADER_LEN;
/// Headers of IPv6 without extensions and UDP, in bytes.
const V6_HEADERS_LEN: usize = ipv6::HEADER_LEN + udp::HEADER_LEN;

/// IP versions at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Version {
    V4,
    V6,
}

/// A datagram too long for one frame, put together from fragments. The stack makes them at start.
#[derive(Debug)]
pub(crate) struct Large {
    pub(crate) buffer: Box<[u8]>,
    pub(crate) payload: Range<usize>,
    pub(crate) remote: SocketAddr,
    pub(crate) local: SocketAddr,
    pub(crate) tos: u8,
    pub(crate) stamps: Stamps,
    /// Who handed us its last piece.
    pub(crate) station: Option<MacAddr>,
}

impl Large {
    /// An empty one with room for `bytes` bytes.
    pub(crate) fn new(bytes: usize) -> Self {
        let nobody = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);
        Self {
            buffer: alloc::vec![0; bytes].into_boxed_slice(),
            payload: 0..0,
            remote: nobody,
            local: nobody,
            tos: 0,
            stamps: Stamps::default(),
            station: None,
        }
    }
}

#[derive(Debug)]
pub(crate) enum Storage<F> {
    Frame {
        frame: F,
        parts: Parts,
    },
    /// Boxed, or each of the many small datagrams would move as many bytes as the rare large one.
    Large(Box<Large>),
}

/// A received datagram, in the frame it came in: reading it copies nothing, and a reply can go out
/// in the same frame. Give it back with [`Stack::udp_release`](crate::Stack::udp_release) or send it
/// back with [`Stack::udp_reply`](crate::Stack::udp_reply).
#[derive(Debug)]
#[must_use = "a datagram holds a frame; reply to it or release it"]
pub struct Datagram<F>(pub(crate) Storage<F>);

impl<F: Frame> Datagram<F> {
    /// The payload.
    #[inline]
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        match &self.0 {
            Storage::Frame { frame, parts } => {
                let start = usize::from(parts.payload_offset);
                frame
                    .data()
                    .get(start..start + usize::from(parts.payload_len))
                    .unwrap_or(&[])
            }
            Storage::Large(large) => large.buffer.get(large.payload.clone()).unwrap_or(&[]),
        }
    }

    /// The payload, to be changed in place before a reply.
    #[inline]
    pub fn payload_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Storage::Frame { frame, parts } => {
                parts.checksum_stands = false;
                let start = usize::from(parts.payload_offset);
                let end = start + usize::from(parts.payload_len);
                frame.data_mut().get_mut(start..end).unwrap_or(&mut [])
            }
            Storage::Large(large) => large
                .buffer
                .get_mut(large.payload.clone())
                .unwrap_or(&mut []),
        }
    }

    /// Changes the payload's length before a reply, in bytes. What it grows by holds whatever was
    /// there. Returns the length in force: no more than the buffer has room for.
    pub fn set_payload_len(&mut self, len: usize) -> usize {
        match &mut self.0 {
            Storage::Frame { frame, parts } => {
                parts.checksum_stands = false;
                let start = usize::from(parts.payload_offset);
                let room = frame.capacity().saturating_sub(start);
                let len = len.min(room).min(usize::from(u16::MAX) - udp::HEADER_LEN);
                frame.set_len(start + len);
                parts.payload_len = u16::try_from(len).unwrap_or(0);
                len
            }
            Storage::Large(large) => {
                let start = large.payload.start;
                let end = start.saturating_add(len).min(large.buffer.len());
                large.payload = start..end;
                end - start
            }
        }
    }

    /// Who sent it.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.endpoints().0
    }

    /// What address and port of ours it was for (RFC 1122 §4.1.3.5: the application learns the
    /// specific destination).
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.endpoints().1
    }

    /// The ports alone: (remote, local).
    #[inline]
    #[must_use]
    pub fn ports(&self) -> (u16, u16) {
        match &self.0 {
            Storage::Frame { frame, parts } => {
                let data = frame.data();
                // The same three times, but for offsets that are constants.
                match parts.headers {
                    Headers::PlainV4 => ports(data, ethernet::HEADER_LEN + ipv4::HEADER_LEN),
                    Headers::PlainV6 => ports(data, ethernet::HEADER_LEN + ipv6::HEADER_LEN),
                    _ => ports(data, usize::from(parts.payload_offset) - udp::HEADER_LEN),
                }
            }
            Storage::Large(large) => (large.remote.port(), large.local.port()),
        }
    }

    /// (remote, local).
    fn endpoints(&self) -> (SocketAddr, SocketAddr) {
        match &self.0 {
            Storage::Frame { frame, parts } => read_endpoints(frame.data(), parts),
            Storage::Large(large) => (large.remote, large.local),
        }
    }

    /// The type of service (IPv4) or traffic class (IPv6) it came with: DSCP and ECN.
    #[must_use]
    pub fn tos(&self) -> u8 {
        match &self.0 {
            Storage::Frame { frame, parts } => {
                let Some([first, second]) = chunk_at(frame.data(), usize::from(parts.ip_offset))
                else {
                    return 0;
                };
                match parts.headers.version() {
                    Version::V4 => *second,
                    Version::V6 => first << 4 | second >> 4,
                }
            }
            Storage::Large(large) => large.tos,
        }
    }

    /// When it passed which point.
    #[must_use]
    pub fn stamps(&self) -> Stamps {
        match &self.0 {
            Storage::Frame { frame, .. } => frame.stamps(),
            Storage::Large(large) => large.stamps,
        }
    }
}

#[inline]
fn ports(data: &[u8], udp_offset: usize) -> (u16, u16) {
    udp::embedded_ports(data, udp_offset).unwrap_or((0, 0))
}

fn read_endpoints(data: &[u8], parts: &Parts) -> (SocketAddr, SocketAddr) {
    let ip = usize::from(parts.ip_offset);
    let udp = usize::from(parts.payload_offset).saturating_sub(udp::HEADER_LEN);
    let (remote_port, local_port) = udp::embedded_ports(data, udp).unwrap_or((0, 0));
    let (remote, local): (IpAddr, IpAddr) = match parts.headers.version() {
        Version::V4 => {
            let addresses: [u8; 8] = chunk_at(data, ip + 12).copied().unwrap_or([0; 8]);
            (
                array_at::<8, 4>(&addresses, 0).into(),
                array_at::<8, 4>(&addresses, 4).into(),
            )
        }
        Version::V6 => {
            let addresses: [u8; 32] = chunk_at(data, ip + 8).copied().unwrap_or([0; 32]);
            (
                Ipv6Addr::from_octets(array_at(&addresses, 0)).into(),
                Ipv6Addr::from_octets(array_at(&addresses, 16)).into(),
            )
        }
    };
    (
        SocketAddr::new(remote, remote_port),
        SocketAddr::new(local, local_port),
    )
}

/// An ICMP error about something a socket sent (RFC 1122 §4.1.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SoftError {
    /// Where the datagram was going.
    pub remote: SocketAddr,
    /// ICMP type, of the version of `remote`.
    pub icmp_type: u8,
    /// ICMP code.
    pub icmp_code: u8,
}

/// One socket: where it is bound and what waits in it. Its place stays when it is closed; nothing
/// can wait in it then.
#[derive(Debug)]
pub(crate) struct UdpSocket<F> {
    generation: u16,
    /// `None` where no socket is open.
    pub(crate) bind: Option<Bind>,
    pub(crate) queue: Queue<Datagram<F>>,
    pub(crate) soft_error: Option<SoftError>,
}

impl<F> UdpSocket<F> {
    const fn closed(generation: u16) -> Self {
        Self {
            generation,
            bind: None,
            queue: Queue::NONE,
            soft_error: None,
        }
    }
}

/// All UDP sockets of a stack, in a slab of fixed size with generations.
#[derive(Debug)]
pub(crate) struct UdpSockets<F> {
    slots: Box<[UdpSocket<F>]>,
    /// Places without an open socket; the next to be taken is the last.
    free: Vec<u16>,
    /// Port and place of each open socket, so that those in the way of another are found at once.
    ports: BTreeSet<(u16, u16)>,
}

impl<F> UdpSockets<F> {
    pub(crate) fn new(limit: u16) -> Self {
        Self {
            slots: (0..limit).map(|_| UdpSocket::closed(0)).collect(),
            free: (0..limit).rev().collect(),
            ports: BTreeSet::new(),
        }
    }

    /// Takes a free slot; `None` when all are in use.
    pub(crate) fn insert(&mut self, bind: Bind, limit: usize) -> Option<UdpSocketId> {
        let index = self.free.pop()?;
        let socket = &mut self.slots[usize::from(index)];
        socket.bind = Some(bind);
        socket.queue = Queue::new(limit);
        self.ports.insert((bind.local.port(), index));
        Some(UdpSocketId {
            index,
            generation: socket.generation,
        })
    }

    /// Closes a socket; what waited in it is in what comes back.
    pub(crate) fn remove(&mut self, id: UdpSocketId) -> Option<UdpSocket<F>> {
        let socket = self.get_mut(id)?;
        let bind = socket.bind?;
        let closed = UdpSocket::closed(socket.generation.wrapping_add(1));
        let open = core::mem::replace(socket, closed);
        self.ports.remove(&(bind.local.port(), id.index));
        self.free.push(id.index);
        Some(open)
    }

    /// What the open sockets on this port are bound to.
    pub(crate) fn on_port(&self, port: u16) -> impl Iterator<Item = &Bind> {
        self.ports
            .range((port, 0)..=(port, u16::MAX))
            .filter_map(|(_, index)| self.slots.get(usize::from(*index))?.bind.as_ref())
    }

    /// The socket of this handle, unless it was closed.
    #[inline]
    pub(crate) fn get_mut(&mut self, id: UdpSocketId) -> Option<&mut UdpSocket<F>> {
        let socket = self.slots.get_mut(usize::from(id.index))?;
        (socket.generation == id.generation).then_some(socket)
    }

    /// The socket in this place, open or closed.
    #[inline]
    pub(crate) fn at_mut(&mut self, index: u16) -> Option<&mut UdpSocket<F>> {
        self.slots.get_mut(usize::from(index))
    }

    /// Whether the socket in this place was bound to an address of IPv6, mapped ones included.
    pub(crate) fn is_v6(&self, index: u16) -> bool {
        let socket = self.slots.get(usize::from(index));
        let bind = socket.and_then(|socket| socket.bind);
        bind.is_some_and(|bind| bind.local.is_ipv6())
    }

    /// All open sockets: where each stands, and what it is bound to.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u16, &Bind)> {
        (0..)
            .zip(&self.slots)
            .filter_map(|(index, socket)| Some((index, socket.bind.as_ref()?)))
    }

    /// All datagrams that wait, taken out.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Datagram<F>> {
        self.slots
            .iter_mut()
            .flat_map(|socket| core::iter::from_fn(|| socket.queue.pop()))
    }
}
