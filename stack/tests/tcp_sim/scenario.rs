//! Two hosts, a link between them, and conversations: everything drawn from a seed.

use crate::talker::{Behaviour, Call, End, Plan, Plans, Talkers};
use stack::counters::DropReason;
use stack::sim::host::{v4, v6};
use stack::sim::{
    Direction, GilbertElliott, HostConfig, Impairment, Neighbors, Network, Port, Random, Reordering,
};
use stack::socket::bind::Bind;
use stack::tcp::config::{Ecn, Keepalive, SynCookies, TcpConfig};
use stack::tcp::listener::{CongestionKind, ListenOptions};
use stack::time::{Duration, Instant};
use std::net::{IpAddr, SocketAddr};

pub const PORT: u16 = 7;
/// No conversation takes longer, however bad its link: what does is stuck.
const LIMIT: Duration = Duration::from_secs(1200);
/// And then all timers are over.
const QUIET_LIMIT: Duration = Duration::from_secs(1200);
/// An end whose FIN is acknowledged has nothing to send: it learns of an abort whose RST was lost by
/// asking. More patient than any outage is long.
const KEEPALIVE: Keepalive = Keepalive {
    always: true,
    idle: Duration::from_secs(20),
    interval: Duration::from_secs(6),
    probes: 9,
};

/// What a scenario is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Links that do nothing but take time.
    Perfect,
    /// Links that do everything wrong.
    Impaired,
    /// The same for hosts with little memory.
    SmallPools,
    /// Many conversations at once.
    Many,
    /// The path's MTU changes.
    MtuChanges,
    /// A cable is cut for a while, or an application does nothing.
    Outage,
}

pub struct Scenario {
    pub network: Network<Talkers>,
    pub client: Port,
    pub server: Port,
    /// When the path's MTU changes, to what.
    mtu: Option<(Duration, u32)>,
    /// When a cable is cut, and for how long.
    cut: Option<(Duration, Duration)>,
    conversations: usize,
    corrupts: bool,
}

/// The address of a host.
pub fn address(number: u8, ipv6: bool) -> IpAddr {
    if ipv6 { v6(number) } else { v4(number) }
}

pub fn congestion(random: &mut Random) -> CongestionKind {
    match random.below(2) {
        0 => CongestionKind::Cubic,
        _ => CongestionKind::NewReno,
    }
}

/// A number of bits below `bits`, and then a number of so many bits: small ones as likely as large.
fn spread(random: &mut Random, bits: u64) -> u64 {
    let bits = random.below(bits + 1);
    random.below(1 << bits)
}

pub fn config(random: &mut Random, kind: Kind) -> TcpConfig {
    let small = kind == Kind::SmallPools;
    let mut size = |normal: u32, least: u64| {
        if small {
            u32::try_from(random.between(least, least * 6)).expect("small")
        } else {
            normal
        }
    };
    let (send_chunks, receive_chunks) = (size(256, 3), size(256, 4));
    let (transmissions, out_of_order) = (size(1024, 1), size(256, 1));
    TcpConfig {
        connections: 16,
        connections_new_reno: 16,
        half_open: 16,
        time_wait: 16,
        send_chunks,
        receive_chunks,
        transmissions,
        out_of_order,
        listeners: 2,
        send_buffer: 1 << (11 + random.below(8)),
        receive_buffer: 1 << (11 + random.below(7)),
        receive_buffer_max: 1 << 18,
        keepalive: KEEPALIVE,
        sack: random.below(4) > 0,
        timestamps: random.below(4) > 0,
        window_scaling: random.below(4) > 0,
        ecn: match random.below(3) {
            0 => Ecn::Off,
            1 => Ecn::Accept,
            _ => Ecn::Offer,
        },
        syn_cookies: match random.below(4) {
            0 => SynCookies::Always,
            1 => SynCookies::Never,
            _ => SynCookies::WhenFull,
        },
        rto_min_ms: if random.below(2) == 0 { 200 } else { 10 },
        ..TcpConfig::default()
    }
}

fn trouble(random: &mut Random) -> Impairment {
    let mut chance = |max: u64| random.below(max) as f64 / 1000.0;
    let (loss, duplicate, corrupt) = (chance(50), chance(30), chance(20));
    let share = chance(200);
    Impairment {
        loss,
        burst_loss: (random.below(3) == 0).then(|| GilbertElliott {
            worsen: 0.005,
            recover: 0.3,
            loss_good: 0.0,
            loss_bad: 0.7,
        }),
        reordering: (random.below(2) == 0).then(|| Reordering {
            share,
            by: Duration::from_micros(random.below(20_000)),
        }),
        duplicate,
        corrupt,
        rate_bits_per_s: (random.below(2) == 0).then(|| 1_000_000 + random.below(100_000_000)),
        delay: Duration::from_micros(random.below(40_000)),
        jitter: Duration::from_micros(random.below(2000)),
        queue_frames: Some(16 + random.below(200) as usize),
        mark_bytes: (random.below(2) == 0).then_some(20_000),
        ..Impairment::default()
    }
}

fn behaviour(random: &mut Random, bits: u64, end: End) -> Behaviour {
    let total = spread(random, bits);
    Behaviour {
        total,
        write_at_most: 1 + spread(random, 14) as usize,
        read_at_most: match random.below(4) {
            0 => 200 + random.below(5000) as usize,
            _ => usize::MAX,
        },
        stall: (random.below(6) == 0).then(|| {
            let long = Duration::from_millis(spread(random, 14));
            (random.below(total.max(1)), long)
        }),
        end,
    }
}

/// Who closes when: at least one of both does so by itself, and whoever may be the only one to know
/// that there is a connection says something.
fn plan(random: &mut Random, number: u64, bits: u64) -> Plan {
    let (client, server) = match random.below(8) {
        0..=2 => (End::AtOnce, End::AfterPeer),
        3 | 4 => (End::AtOnce, End::AtOnce),
        5 | 6 => (End::AfterPeer, End::AtOnce),
        _ if random.below(2) == 0 => (End::Abort(random.below(1 << bits)), End::AtOnce),
        _ => (End::AtOnce, End::Abort(random.below(1 << bits))),
    };
    let mut plan = Plan {
        number,
        client: behaviour(random, bits, client),
        server: behaviour(random, bits, server),
    };
    if client != End::AtOnce {
        // The ACK of a SYN cookie may be lost, and nobody sends the SYN,ACK again.
        plan.client.total = plan.client.total.max(1);
    }
    if let End::Abort(at) = client {
        plan.client.end = End::Abort(at.max(1));
    }
    plan
}

impl Scenario {
    pub fn new(seed: u64, kind: Kind) -> Self {
        let mut network = Network::new("tcp", seed, Neighbors::Preset);
        let mut random = network.random();
        let plans = Plans::default();
        let mut add = |name, number, tcp: &TcpConfig| {
            let mut host = HostConfig::new(name, number);
            host.frames = 256;
            host.stack.neighbors = 16;
            host.stack.udp_sockets = 1;
            host.stack.reassembly_bytes = 16 << 10;
            host.stack.reassembly_datagrams = 4;
            host.stack.tcp = tcp.clone();
            network.add_host(host, Talkers::new(&plans))
        };
        let client = add("client", 1, &config(&mut random, kind));
        let server_config = config(&mut random, kind);
        let server = add("server", 2, &server_config);
        let start = network.now();
        let calls = match kind {
            Kind::Many => 2 + random.below(11),
            Kind::SmallPools => 1 + random.below(3),
            _ => 1 + random.below(8) / 7,
        };
        let bits = if calls > 3 { 13 } else { 16 };
        let cookies = server_config.syn_cookies;
        let host = network.host_mut(server);
        let bind = Bind {
            local: SocketAddr::new("::".parse().expect("an address"), PORT),
            v6only: false,
        };
        let options = ListenOptions {
            // Without cookies a SYN that finds no room is dropped, and six more may be as well.
            backlog: if cookies == SynCookies::Never {
                16
            } else {
                1 + u32::try_from(random.below(8)).expect("small")
            },
            congestion: congestion(&mut random),
            nodelay: random.below(2) == 0,
        };
        // The addresses come after the socket, as in a service that starts.
        let link = host.stack.set_link(Box::default(), start);
        let listener = host.stack.tcp_listen(bind, options);
        host.stack.set_link(link, start);
        host.application.listener = Some(listener.expect("a free port"));
        for number in 0..calls {
            let ipv6 = random.below(2) == 0;
            let call = Call {
                at: start + Duration::from_micros(spread(&mut random, 18)),
                local: SocketAddr::new(address(1, ipv6), 0),
                remote: SocketAddr::new(address(2, ipv6), PORT),
                congestion: congestion(&mut random),
                nodelay: random.below(2) == 0,
                plan: plan(&mut random, number, bits),
            };
            network.host_mut(client).application.calls.push(call);
        }
        let mut corrupts = false;
        for port in [client, server] {
            let impairment = if kind == Kind::Perfect {
                Impairment {
                    rate_bits_per_s: (random.below(2) == 0).then_some(50_000_000),
                    delay: Duration::from_micros(spread(&mut random, 15)),
                    ..Impairment::default()
                }
            } else {
                trouble(&mut random)
            };
            corrupts |= impairment.corrupt > 0.0;
            network.impair(port, &impairment);
            // Two bits flipped on one way may make up for each other in an Internet checksum.
            network.impairment_mut(port, Direction::Inward).corrupt = 0.0;
        }
        let early = |random: &mut Random| Duration::from_micros(random.below(300_000));
        let mtu = (kind == Kind::MtuChanges).then(|| {
            let mtu = 1280 + random.below(220);
            (early(&mut random), u32::try_from(mtu).expect("small"))
        });
        let (mut cut, outage) = (None, kind == Kind::Outage);
        if outage && random.below(2) == 0 {
            let long = Duration::from_millis(spread(&mut random, 15));
            cut = Some((early(&mut random), long));
        } else if outage {
            let from = start + early(&mut random);
            let until = from + Duration::from_millis(spread(&mut random, 15));
            let who = if random.below(2) == 0 { client } else { server };
            network.host_mut(who).application.pause = Some((from, until));
        }
        Self {
            network,
            client,
            server,
            mtu,
            cut,
            conversations: usize::try_from(calls).expect("few"),
            corrupts,
        }
    }

    fn both(&self) -> [Port; 2] {
        [self.client, self.server]
    }

    /// Does what the scenario has in store for the links.
    fn disturb(&mut self) {
        if let Some((at, mtu)) = self.mtu {
            self.network.run_for(at);
            let server = self.server;
            for direction in [Direction::Inward, Direction::Outward] {
                self.network.impairment_mut(server, direction).mtu = Some(mtu);
            }
        }
        if let Some((at, long)) = self.cut {
            self.network.run_for(at);
            let server = self.server;
            for (is_cut, time) in [(true, long), (false, Duration::ZERO)] {
                for direction in [Direction::Inward, Direction::Outward] {
                    self.network.impairment_mut(server, direction).is_cut = is_cut;
                }
                self.network.run_for(time);
            }
        }
    }

    /// Until all is said, and then until all is quiet.
    pub fn run(mut self) {
        self.disturb();
        let ports = self.both();
        let count = self.conversations;
        let over = |network: &Network<Talkers>, port| {
            let Talkers {
                finished,
                calls,
                talkers,
                ..
            } = &network.host(port).application;
            // One that the client aborted at once may never have been accepted.
            calls.is_empty() && talkers.is_empty() && (*finished == count || port == ports[1])
        };
        let done = self.network.run_until_done(LIMIT, |network| {
            ports.iter().all(|port| over(network, *port))
        });
        assert!(done, "stuck");
        let quiet = self.network.run_until_done(QUIET_LIMIT, |network| {
            let census = |port: &Port| network.host(*port).stack.tcp_census();
            network.under_way() == 0 && ports.iter().all(|port| census(port) == [0; 3])
        });
        assert!(quiet, "not quiet");
        for port in ports {
            self.nothing_is_left(port);
        }
    }

    fn nothing_is_left(&self, port: Port) {
        let host = self.network.host(port);
        let name = &host.name;
        assert_eq!(host.pool.in_use(), 0, "{name}: frames");
        assert_eq!(host.stack.tcp_census(), [0; 3], "{name}");
        assert_eq!(host.stack.tcp_next_deadline(), None, "{name}: a timer");
        let memory = host.stack.tcp_memory();
        assert_eq!(memory.used(), 0, "{name}: {memory:?}");
        assert!(host.application.talkers.is_empty(), "{name}");
        if self.corrupts {
            return;
        }
        for reason in [
            DropReason::EthernetTruncated,
            DropReason::Ipv4Checksum,
            DropReason::Ipv4TotalLength,
            DropReason::Ipv6PayloadLength,
            DropReason::TcpTruncated,
            DropReason::TcpDataOffset,
            DropReason::TcpChecksum,
            DropReason::TcpTimestampMissing,
            DropReason::TcpNoAck,
            DropReason::TcpPortZero,
        ] {
            assert_eq!(host.stack.drops().get(reason), 0, "{name}: {reason:?}");
        }
    }

    /// Everything that helps to see why.
    pub fn report(&self) {
        for port in self.both() {
            let host = self.network.host(port);
            let name = &host.name;
            let drops: Vec<_> = host.stack.drops().iter().filter(|it| it.1 > 0).collect();
            let events: Vec<_> = host.stack.events().iter().filter(|it| it.1 > 0).collect();
            eprintln!("{name}: {:?}", host.stack.tcp_memory());
            eprintln!("{name}: census {:?}", host.stack.tcp_census());
            eprintln!("{name}: {drops:?}");
            eprintln!("{name}: {events:?}");
            for talker in &host.application.talkers {
                eprintln!("{name}: {talker:?}");
            }
            for direction in [Direction::Outward, Direction::Inward] {
                let counters = self.network.link_counters(port, direction);
                eprintln!("{name}: {direction:?}: {counters:?}");
            }
        }
        eprintln!("now: {:?}", self.network.elapsed());
    }

    /// When the last conversation was over.
    pub fn last_end(&self) -> Instant {
        let end = |port| self.network.host(port).application.last_end;
        end(self.client).max(end(self.server))
    }
}

impl Drop for Scenario {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.report();
        }
    }
}
