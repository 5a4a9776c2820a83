//! The other end of the connections: a script, as cheap as it can be made and still right. Frames lie
//! ready but for ports, numbers, timestamps and checksum; what comes back is not parsed, because it is
//! known beforehand, but for a first round that is checked.

use crate::frame::{BenchFrame, BenchPool};
use crate::packet::{OUR_MAC, OUR_PORT, OUR_V4, OUR_V6, Peer as Host, Version};
use stack::frame::Frame as _;
use stack::tcp::options::{Timestamps, timestamps};
use stack::time::Instant;
use stack::wire::checksum::Sum;
use stack::wire::tcp::{self, Flags};
use stack::wire::{ethernet, ipv4, ipv6, protocol};

/// Connections of one host, at most: one for each port from [`FIRST_PORT`] on.
pub(crate) const CONNECTIONS_MAX: u32 = 60_000;
const FIRST_PORT: u16 = 1024;

/// What a SYN offers, as Linux lays it out: MSS 1460, SACK, timestamps, and a window scale of 7.
const SYN_OPTIONS: [u8; 20] = [
    2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 1, 3, 3, 7,
];
/// Timestamps alone.
const OPTIONS: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0];
/// The window it announces: with a scale of 7, 8 MiB.
const WINDOW: u16 = u16::MAX;
/// Ticks of a millisecond that its clock is ahead of the time.
const CLOCK: u32 = 0x1000_0000;

/// Segments it sends.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Syn,
    Ack,
    /// ACK with payload.
    Data,
    /// ACK and FIN.
    Fin,
}

/// A frame that lacks port, numbers and timestamps; its checksum field is zero.
struct Template {
    bytes: Vec<u8>,
    /// Of all that is covered by the checksum, as it stands here.
    sum: Sum,
    /// Where its timestamps stand.
    timestamps_at: usize,
}

/// What the script knows of a connection.
#[derive(Clone, Copy, Default)]
struct Connection {
    /// Its SND.NXT.
    next: u32,
    /// Its RCV.NXT.
    expected: u32,
    /// What the server's clock is ahead of the time, in milliseconds.
    clock: u32,
    /// When it got the last answer, in milliseconds.
    heard_ms: u32,
}

pub(crate) struct Peer {
    version: Version,
    host: Host,
    transport_at: usize,
    payload_len: u32,
    templates: [Template; 4],
    connections: Vec<Connection>,
}

#[expect(clippy::cast_possible_truncation, reason = "the clock wraps around")]
fn milliseconds(now: Instant) -> u32 {
    (now.as_nanos() / 1_000_000) as u32
}

impl Peer {
    /// A host with so many connections, that sends so many bytes of payload at once.
    pub(crate) fn new(version: Version, host: Host, connections: u32, payload_len: usize) -> Self {
        assert!(connections <= CONNECTIONS_MAX, "a port for each");
        let template = |flags: Flags, options: &[u8], payload_len| {
            Template::new(version, host, flags, options, payload_len)
        };
        let transport_at = ethernet::HEADER_LEN + version.header_len();
        Self {
            version,
            host,
            transport_at,
            payload_len: u32::try_from(payload_len).expect("a segment is short"),
            templates: [
                template(Flags::SYN, &SYN_OPTIONS, 0),
                template(Flags::ACK, &OPTIONS, 0),
                template(Flags::ACK | Flags::PSH, &OPTIONS, payload_len),
                template(Flags::ACK | Flags::FIN, &OPTIONS, 0),
            ],
            connections: vec![Connection::default(); connections as usize],
        }
    }

    /// Begins a connection with its SYN.
    #[inline]
    pub(crate) fn syn(&mut self, index: u32, now: Instant, pool: &mut BenchPool) -> BenchFrame {
        self.connections[index as usize] = Connection {
            next: index
                .wrapping_mul(0x0100_0193)
                .wrapping_add(milliseconds(now) << 8),
            ..Connection::default()
        };
        let frame = self.frame(Kind::Syn, index, now, pool);
        self.connections[index as usize].next =
            self.connections[index as usize].next.wrapping_add(1);
        frame
    }

    /// Takes the SYN,ACK.
    #[inline]
    pub(crate) fn take_syn_ack(&mut self, index: u32, now: Instant, frame: &BenchFrame) {
        let header = frame.data().get(self.transport_at..).expect("a segment");
        let field = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().expect("4 bytes"));
        let iss = field(4);
        // Where it stands in a SYN,ACK of either stack: behind MSS and SACK-permitted, or alone.
        let options = &header[20..usize::from(header[12] >> 4) * 4];
        let value = timestamps(options).map_or(0, |Timestamps { value, .. }| value);
        let now_ms = milliseconds(now);
        let connection = &mut self.connections[index as usize];
        connection.expected = iss.wrapping_add(1);
        connection.clock = value.wrapping_sub(now_ms);
        connection.heard_ms = now_ms;
    }

    /// Makes a segment of a connection, and counts what it sends as sent.
    #[inline]
    pub(crate) fn segment(
        &mut self,
        kind: Kind,
        index: u32,
        now: Instant,
        pool: &mut BenchPool,
    ) -> BenchFrame {
        let frame = self.frame(kind, index, now, pool);
        let sent = match kind {
            Kind::Data => self.payload_len,
            Kind::Syn | Kind::Fin => 1,
            Kind::Ack => 0,
        };
        let connection = &mut self.connections[index as usize];
        connection.next = connection.next.wrapping_add(sent);
        frame
    }

    /// The server has sent `count` numbers more.
    #[inline]
    pub(crate) fn expect(&mut self, index: u32, count: u32, now: Instant) {
        let connection = &mut self.connections[index as usize];
        connection.expected = connection.expected.wrapping_add(count);
        connection.heard_ms = milliseconds(now);
    }

    #[inline]
    fn frame(&self, kind: Kind, index: u32, now: Instant, pool: &mut BenchPool) -> BenchFrame {
        let Connection {
            next,
            expected,
            clock,
            heard_ms,
        } = self.connections[index as usize];
        let Template {
            bytes,
            sum,
            timestamps_at,
        } = &self.templates[kind as usize];
        let mut frame = pool.receive(bytes).expect("a frame for every segment");
        let port = port(index);
        let mut numbers = [0; 8];
        numbers[..4].copy_from_slice(&next.to_be_bytes());
        let mut stamps = [0; 8];
        stamps[..4].copy_from_slice(&milliseconds(now).wrapping_add(CLOCK).to_be_bytes());
        if !matches!(kind, Kind::Syn) {
            numbers[4..].copy_from_slice(&expected.to_be_bytes());
            stamps[4..].copy_from_slice(&clock.wrapping_add(heard_ms).to_be_bytes());
        }
        let checksum = sum
            .add_be16(port)
            .add_bytes(&numbers)
            .add_bytes(&stamps)
            .checksum();
        let segment = &mut frame.data_mut()[self.transport_at..];
        segment[..2].copy_from_slice(&port.to_be_bytes());
        segment[4..12].copy_from_slice(&numbers);
        segment[16..18].copy_from_slice(&checksum);
        segment[*timestamps_at..timestamps_at + 8].copy_from_slice(&stamps);
        frame
    }

    /// Panics unless `frame` is to connection `index` with right checksums, acknowledges all that was
    /// sent there, and has `payload_len` bytes of payload that end where the script thinks.
    pub(crate) fn check(&self, index: u32, frame: &BenchFrame, payload_len: usize) {
        let data = frame.data();
        let packet = segment_of(self.version, data);
        let Connection { next, expected, .. } = self.connections[index as usize];
        assert_eq!(data[..6], self.host.mac(), "to the peer");
        assert_eq!(packet.destination_port(), port(index), "to this connection");
        assert_eq!(packet.ack(), next, "everything is acknowledged");
        let end = packet
            .seq()
            .wrapping_add(u32::try_from(payload_len).expect("short"));
        assert_eq!((packet.payload_bytes().len(), end), (payload_len, expected));
        let clock = timestamps(packet.options()).expect("timestamps").value;
        let late = clock.wrapping_sub(self.connections[index as usize].clock);
        assert!(
            late.wrapping_sub(self.connections[index as usize].heard_ms) < 2,
            "a clock of milliseconds"
        );
    }

    /// Whether a frame from the server has FIN.
    pub(crate) fn is_fin(&self, frame: &BenchFrame) -> bool {
        frame.data()[self.transport_at + 13] & 1 != 0
    }

    /// Which connection a frame from the server is for.
    pub(crate) fn index_of(&self, frame: &BenchFrame) -> u32 {
        let at = self.transport_at + 2;
        let bytes = &frame.data()[at..at + 2];
        u32::from(u16::from_be_bytes([bytes[0], bytes[1]])) - u32::from(FIRST_PORT)
    }
}

/// The client's port of a connection.
#[expect(clippy::cast_possible_truncation, reason = "at most CONNECTIONS_MAX")]
fn port(index: u32) -> u16 {
    FIRST_PORT + index as u16
}

/// The segment in a frame from the server; both checksums are right.
fn segment_of(version: Version, data: &[u8]) -> tcp::Packet<'_> {
    let at = ethernet::HEADER_LEN;
    let (packet, verified) = match version {
        Version::V4 => {
            let ip = ipv4::Packet::new_checked(data, at).expect("an IPv4 packet");
            let packet = tcp::Packet::new_checked(data, ip.payload()).expect("a segment");
            let pseudo = |len| Sum::pseudo_v4(ip.source(), ip.destination(), protocol::TCP, len);
            (packet, packet.verify(pseudo))
        }
        Version::V6 => {
            let ip = ipv6::Packet::new_checked(data, at).expect("an IPv6 packet");
            let packet = tcp::Packet::new_checked(data, ip.payload()).expect("a segment");
            let pseudo = |len| Sum::pseudo_v6(ip.source(), ip.destination(), protocol::TCP, len);
            (packet, packet.verify(pseudo))
        }
    };
    assert_eq!(verified, Ok(tcp::Verified::Right));
    packet
}

impl Template {
    fn new(version: Version, host: Host, flags: Flags, options: &[u8], payload_len: usize) -> Self {
        let transport_at = ethernet::HEADER_LEN + version.header_len();
        let headers_len = transport_at + tcp::HEADER_LEN + options.len();
        let mut bytes = vec![0; headers_len + payload_len];
        for (byte, value) in bytes[headers_len..].iter_mut().zip((1..=251).cycle()) {
            *byte = value;
        }
        let segment_len = u16::try_from(bytes.len() - transport_at).expect("a segment is short");
        write_headers(version, host, &mut bytes, segment_len).expect("room was made for them");
        let header = tcp::Header {
            source_port: 0,
            destination_port: OUR_PORT,
            seq: 0,
            ack: 0,
            flags,
            window: WINDOW,
            urgent: 0,
        };
        let pseudo = |len| match version {
            Version::V4 => Sum::pseudo_v4(host.v4(), OUR_V4, protocol::TCP, len),
            Version::V6 => Sum::pseudo_v6(host.v6(), OUR_V6, protocol::TCP, len),
        };
        tcp::emit(
            &mut bytes,
            transport_at,
            &header,
            options,
            payload_len,
            pseudo,
        )
        .expect("room was made for it");
        bytes[transport_at + 16..transport_at + 18].fill(0);
        let sum = pseudo(segment_len).add_bytes(&bytes[transport_at..]);
        let timestamps_at =
            tcp::HEADER_LEN + options.len() - if options.len() == 20 { 12 } else { 8 };
        Self {
            bytes,
            sum,
            timestamps_at,
        }
    }
}

fn write_headers(version: Version, host: Host, data: &mut [u8], payload_len: u16) -> Option<()> {
    let ether_type = match version {
        Version::V4 => ethernet::TYPE_IPV4,
        Version::V6 => ethernet::TYPE_IPV6,
    };
    let at = ethernet::Repr {
        destination: OUR_MAC,
        source: host.mac(),
        vlans: ethernet::VlanIds::NONE,
        ether_type,
    }
    .emit(data)?;
    match version {
        Version::V4 => ipv4::Repr {
            source: host.v4(),
            destination: OUR_V4,
            protocol: protocol::TCP,
            tos: 0,
            ttl: 64,
            payload_len,
            fragment: None,
        }
        .emit(data, at)?,
        Version::V6 => ipv6::Repr {
            source: host.v6(),
            destination: OUR_V6,
            next_header: protocol::TCP,
            traffic_class: 0,
            flow_label: 0,
            hop_limit: 64,
            payload_len,
        }
        .emit(data, at)?,
    };
    Some(())
}
