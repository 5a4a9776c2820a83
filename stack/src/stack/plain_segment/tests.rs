//! The short way of segments, held against the long way.

use super::*;
use crate::heap::HeapPool;
use crate::ip::route::{Route, RouteTable};
use crate::link::{AddressOwner, LinkState, LocalAddress, NeighborUpdate};
use crate::socket::bind::Bind;
use crate::stack::{Config, Origin};
use crate::tcp::TcpId;
use crate::tcp::listener::{CongestionKind, ListenOptions};
use crate::tcp::options::{OptionsOut, Timestamps};
use crate::tcp::{TcpListenerId, segment};
use crate::time::Duration;
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::net::{Ipv6Addr, SocketAddr};
use proptest::prelude::*;

const OURS: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const PEER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];
const PORT: u16 = 7;

/// A host that listens, whose frames have the tags that `vlans` says: with any, everything takes the
/// long way.
struct Host {
    stack: Stack<HeapPool>,
    pool: HeapPool,
    vlans: VlanIds,
    listener: TcpListenerId,
    id: Option<TcpId>,
    /// What it sent: its segments from the IP header on.
    sent: Vec<Vec<u8>>,
}

impl Host {
    fn new(vlans: &[u16], settings: &Settings) -> Self {
        let vlans = VlanIds::new(vlans).unwrap();
        let mut config = Config {
            vlans,
            neighbors: 4,
            reassembly_bytes: 0,
            ..Config::default()
        };
        config.tcp.connections = 4;
        config.tcp.connections_new_reno = 4;
        config.tcp.send_chunks = settings.chunks;
        config.tcp.receive_chunks = settings.chunks;
        config.tcp.transmissions = settings.chunks * 2;
        let mut stack = Stack::new(config);
        let local = LocalAddress {
            address: OURS.into(),
            prefix_len: 64,
            broadcast: None,
            owner: AddressOwner::Kernel,
        };
        let link = LinkState {
            mac: MACS[0],
            mtu: 1500,
            up: true,
            addresses: vec![local],
            routes: RouteTable::new(vec![Route::on_link(OURS.into(), 64)], 4).unwrap(),
        };
        stack.set_link(Box::new(link), Instant::ZERO);
        let mut pool = HeapPool::new(256, 2048);
        let peer = NeighborUpdate::Set {
            address: PEER.into(),
            mac: MACS[1],
        };
        stack.set_neighbor(&mut pool, peer);
        let bind = Bind {
            local: SocketAddr::new(OURS.into(), PORT),
            v6only: false,
        };
        let options = ListenOptions {
            backlog: 4,
            congestion: settings.congestion,
            nodelay: settings.nodelay,
        };
        let listener = stack.tcp_listen(bind, options).unwrap();
        Self {
            stack,
            pool,
            vlans,
            listener,
            id: None,
            sent: Vec::new(),
        }
    }

    /// A segment of the peer's, in a frame.
    fn frame(&self, header: &segment::Header, options: &OptionsOut, len: usize) -> Vec<u8> {
        let ip_at = self.vlans.header_len();
        let tcp_at = ip_at + 40;
        let segment_len = segment::header_len(options) + len;
        let mut data = vec![0x5a; tcp_at + segment_len];
        let ethernet = ethernet::Repr {
            destination: MACS[0],
            source: MACS[1],
            vlans: self.vlans,
            ether_type: ethernet::TYPE_IPV6,
        };
        ethernet.emit(&mut data).unwrap();
        let ip = Header::<crate::ip::address::Ipv6> {
            source: PEER,
            destination: OURS,
            protocol: protocol::TCP,
            tos: 0,
            ttl: 64,
            fragmentable: None,
            payload_len: u16::try_from(segment_len).unwrap(),
        };
        crate::ip::address::Ipv6::emit(&mut data, ip_at, ip).unwrap();
        let pseudo = |len| crate::ip::address::Ipv6::pseudo(PEER, OURS, protocol::TCP, len);
        segment::emit(&mut data, tcp_at, header, options, len, pseudo).unwrap();
        data
    }

    fn receive(
        &mut self,
        header: &segment::Header,
        options: &OptionsOut,
        len: usize,
        now: Instant,
    ) {
        let data = self.frame(header, options, len);
        let frame = self.pool.receive(&data).unwrap();
        self.stack.ingest(&mut self.pool, frame, Origin::Ring, now);
    }

    /// The end of a turn: what it sends is kept.
    fn transmit(&mut self, now: Instant) {
        self.stack.expire(&mut self.pool, now);
        if self.id.is_none() {
            self.id = self.stack.tcp_accept(self.listener);
        }
        while self.stack.tcp_next_ready().is_some() {}
        self.stack.tcp_transmit(&mut self.pool, now);
        let Self {
            stack,
            pool,
            vlans,
            sent,
            ..
        } = self;
        stack.egress(|frame| {
            sent.push(frame.data()[vlans.header_len()..].to_vec());
            pool.give(frame);
            Ok(())
        });
    }

    /// What can be seen of it, and counted.
    fn seen(&mut self) -> impl PartialEq + core::fmt::Debug {
        let id = self.id;
        let state = id.and_then(|id| self.stack.tcp_state(id));
        let [readable, writable] = id.map_or([0; 2], |id| {
            [self.stack.tcp_readable(id), self.stack.tcp_writable(id)]
        });
        let of_frames = [Event::FrameRxBytes, Event::FrameTxBytes];
        let events = self.stack.events().iter();
        let events: Vec<_> = events
            .filter(|(event, _)| !of_frames.contains(event))
            .collect();
        let drops = self.stack.drops().clone();
        let sent = core::mem::take(&mut self.sent);
        (
            sent,
            state,
            readable,
            writable,
            events,
            drops,
            self.stack.tcp_memory(),
        )
    }
}

#[derive(Clone, Debug)]
struct Settings {
    congestion: CongestionKind,
    nodelay: bool,
    chunks: u32,
    timestamps: bool,
    sack: bool,
    window: u16,
}

fn settings() -> impl Strategy<Value = Settings> {
    let congestion = prop_oneof![Just(CongestionKind::Cubic), Just(CongestionKind::NewReno)];
    let chunks = prop_oneof![Just(2), Just(64)];
    let options = (
        any::<bool>(),
        prop_oneof![3 => Just(true), 1 => Just(false)],
        any::<bool>(),
    );
    let window = prop_oneof![Just(0u16), Just(900), Just(60_000)];
    (congestion, chunks, options, window).prop_map(
        |(congestion, chunks, (nodelay, timestamps, sack), window)| Settings {
            congestion,
            nodelay,
            chunks,
            timestamps,
            sack,
            window,
        },
    )
}

#[derive(Clone, Debug)]
enum Step {
    /// A segment: how far SEG.SEQ and SEG.ACK are from what is right, its length, flags beside ACK,
    /// and how far its timestamp is from the last.
    Segment {
        seq: i32,
        unacked: u32,
        len: usize,
        flags: Flags,
        age: i32,
        window: bool,
    },
    Echo,
    Send(usize),
    Read,
    Close,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let mostly =
        |others: Vec<i32>| prop_oneof![9 => Just(0), 1 => proptest::sample::select(others)];
    let flags = prop_oneof![
        12 => Just(Flags::NONE), 8 => Just(Flags::PSH), 1 => Just(Flags::FIN), 1 => Just(Flags::URG),
        1 => Just(Flags::ECE)
    ];
    let segment = (
        mostly(vec![-100, -1, 1, 500]),
        prop_oneof![6 => Just(0), 1 => 1u32..4000],
        prop_oneof![2 => Just(0usize), 3 => Just(64), 2 => Just(1428), 1 => Just(1)],
        flags,
        mostly(vec![-5, 7]),
        prop_oneof![9 => Just(false), 1 => Just(true)],
    );
    prop_oneof![
        12 => segment.prop_map(|(seq, unacked, len, flags, age, window)| Step::Segment {
            seq, unacked, len, flags, age, window
        }),
        6 => Just(Step::Echo),
        2 => prop_oneof![Just(1usize), Just(3000), Just(20_000)].prop_map(Step::Send),
        2 => Just(Step::Read),
        4 => prop_oneof![Just(1u64), Just(45), Just(250), Just(1500)].prop_map(Step::Wait),
        1 => Just(Step::Close),
    ]
}

/// SEG.SEQ + SEG.LEN of what was sent last, and how many bytes that was.
fn end_of(packet: &[u8]) -> u32 {
    let packet = wire::Packet::new_checked(packet, 40..packet.len()).unwrap();
    let fin = packet.flags().intersection(Flags::FIN.union(Flags::SYN)) != Flags::NONE;
    let len = u32::try_from(packet.payload_bytes().len()).unwrap();
    packet.seq().wrapping_add(len).wrapping_add(fin.into())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    /// Whatever is said, the short way and the long way answer with the same segments and count the
    /// same.
    #[test]
    fn both_ways_are_one(settings in settings(), steps in proptest::collection::vec(step(), 1..60)) {
        let mut hosts = [Host::new(&[], &settings), Host::new(&[5], &settings)];
        let mut now = Instant::from_nanos(5_000_000_000);
        let (mut seq, mut our_next) = (1000u32, 0u32);
        let mut time = 77u32;
        let header = |seq: u32, ack: u32, flags: Flags, window: u16| segment::Header {
            source_port: 4000,
            destination_port: PORT,
            seq: SeqNum::new(seq),
            ack: SeqNum::new(ack),
            flags,
            window,
            urgent: 0,
        };
        let timestamps = |value| settings.timestamps.then_some(Timestamps { value, echo: 0 });
        let say = |hosts: &mut [Host; 2], header, options: &OptionsOut, len, now| {
            for host in hosts {
                host.receive(&header, options, len, now);
            }
        };
        let offer = OptionsOut {
            mss: Some(1440),
            window_scale: Some(0),
            sack_permitted: settings.sack,
            timestamps: timestamps(time),
            ..OptionsOut::NONE
        };
        say(&mut hosts, header(seq, 0, Flags::SYN, 60_000), &offer, 0, now);
        seq += 1;
        for host in &mut hosts {
            host.transmit(now);
            our_next = end_of(host.sent.last().unwrap());
        }
        let plain = OptionsOut::timestamps(timestamps(time));
        say(&mut hosts, header(seq, our_next, Flags::ACK, settings.window), &plain, 0, now);
        let mut window = settings.window;
        for step in steps {
            now = now + Duration::from_micros(50);
            match step {
                Step::Segment { seq: off, unacked, len, flags, age, window: changes } => {
                    time = time.wrapping_add_signed(age.max(0));
                    if changes {
                        window = 60_900 - window;
                    }
                    let value = time.wrapping_add_signed(age.min(0));
                    let options = OptionsOut::timestamps(timestamps(value));
                    let ack = our_next.wrapping_sub(unacked);
                    let flags = flags.union(Flags::ACK);
                    let header = header(seq.wrapping_add_signed(off), ack, flags, window);
                    say(&mut hosts, header, &options, len, now);
                    if off == 0 {
                        seq = seq.wrapping_add(u32::try_from(len).unwrap());
                    }
                }
                Step::Wait(ms) => now = now + Duration::from_millis(ms),
                Step::Echo | Step::Send(_) | Step::Read | Step::Close => {}
            }
            for host in &mut hosts {
                let Some(id) = host.id else { continue };
                match step {
                    Step::Echo => {
                        let _ = host.stack.tcp_echo(id, now);
                    }
                    Step::Send(len) => {
                        let _ = host.stack.tcp_send(id, now, &vec![7; len]);
                    }
                    Step::Read => {
                        let _ = host.stack.tcp_receive_with(id, now, |bytes| bytes.len());
                    }
                    Step::Close => {
                        let _ = host.stack.tcp_shutdown(id, now);
                    }
                    Step::Segment { .. } | Step::Wait(_) => {}
                }
            }
            for host in &mut hosts {
                host.transmit(now);
            }
            // What the peer acknowledges is what it has seen.
            if let Some(packet) = hosts[0].sent.last() {
                our_next = end_of(packet);
            }
            let [short, long] = &mut hosts;
            prop_assert_eq!(short.seen(), long.seen());
        }
    }
}

/// The other test tells something: what it says on an open connection takes the short way with one of
/// the two hosts, and the long way with the other.
#[test]
fn the_two_hosts_take_two_ways() {
    let settings = Settings {
        congestion: CongestionKind::Cubic,
        nodelay: true,
        chunks: 64,
        timestamps: true,
        sack: true,
        window: 60_000,
    };
    let now = Instant::from_nanos(5_000_000_000);
    let header = |seq, ack, flags| segment::Header {
        source_port: 4000,
        destination_port: PORT,
        seq: SeqNum::new(seq),
        ack: SeqNum::new(ack),
        flags,
        window: 60_000,
        urgent: 0,
    };
    let plain = OptionsOut::timestamps(Some(Timestamps { value: 1, echo: 0 }));
    for (vlans, short) in [(&[][..], true), (&[5], false)] {
        let mut host = Host::new(vlans, &settings);
        host.receive(&header(1000, 0, Flags::SYN), &plain, 0, now);
        host.transmit(now);
        let ack = end_of(host.sent.last().unwrap());
        host.receive(&header(1001, ack, Flags::ACK), &plain, 0, now);
        host.transmit(now);
        let request = host.frame(&header(1001, ack, Flags::ACK), &plain, 64);
        let taken = host.stack.takes_plain_segment(&request, now);
        assert_eq!(taken, short);
        let id = host.id.unwrap();
        assert_eq!(host.stack.tcp_readable(id), if short { 64 } else { 0 });
        let sent = host.stack.tcp_send(id, now, &[1; 64]);
        assert_eq!(sent, Ok(64));
        let done = host
            .stack
            .transmit_plainly::<crate::ip::address::Ipv6>(&mut host.pool, now);
        assert_eq!(done.is_some(), short);
    }
}
