//! Whole connections over impaired links: every byte arrives once and in order, both sides close, and
//! nothing is left behind. Every scenario follows from its seed.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

use stack::Stack;
use stack::heap::HeapPool;
use stack::sim::host::{v4, v6};
use stack::sim::{
    Application, GilbertElliott, HostConfig, Impairment, Neighbors, Network, Port, Random,
    Reordering, for_each_seed,
};
use stack::socket::bind::Bind;
use stack::tcp::config::{Ecn, SynCookies, TcpConfig};
use stack::tcp::connection::Misuse;
use stack::tcp::listener::{CongestionKind, ListenOptions};
use stack::tcp::{TcpId, TcpListenerId};
use stack::time::{Duration, Instant};
use std::net::SocketAddr;

const PORT: u16 = 7;

/// Byte `index` of a stream: any mistake of place shows.
fn byte(index: u64) -> u8 {
    let mixed = index.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as u8 ^ (index >> 8) as u8
}

/// Sends back what it gets, and closes when the peer does.
struct Server {
    listener: Option<TcpListenerId>,
    connections: Vec<TcpId>,
    served: usize,
}

/// Sends so many bytes, checks that they come back, and closes.
struct Client {
    local: SocketAddr,
    remote: SocketAddr,
    congestion: CongestionKind,
    connection: Option<TcpId>,
    total: u64,
    written: u64,
    read: u64,
    write_at_most: usize,
    shut: bool,
    done: bool,
}

enum App {
    Server(Server),
    Client(Client),
}

impl Application for App {
    fn poll(
        &mut self,
        stack: &mut Stack<HeapPool>,
        _: &mut HeapPool,
        now: Instant,
    ) -> Option<Instant> {
        match self {
            App::Server(server) => server.poll(stack, now),
            App::Client(client) => client.poll(stack, now),
        }
        None
    }
}

impl Server {
    fn poll(&mut self, stack: &mut Stack<HeapPool>, now: Instant) {
        while stack.tcp_next_ready().is_some() {}
        let Some(listener) = self.listener else {
            return;
        };
        while let Some(id) = stack.tcp_accept(listener) {
            self.connections.push(id);
        }
        self.connections.retain(|&id| {
            match stack.tcp_echo(id, now) {
                Ok(_) | Err(Misuse::WouldBlock) => {}
                Err(error) => panic!("the server's connection broke: {error:?}"),
            }
            if stack.tcp_is_at_end(id) {
                stack.tcp_close(id, now);
                self.served += 1;
                return false;
            }
            true
        });
    }
}

impl Client {
    fn poll(&mut self, stack: &mut Stack<HeapPool>, now: Instant) {
        if self.done {
            return;
        }
        let id = *self.connection.get_or_insert_with(|| {
            stack
                .tcp_connect(self.local, self.remote, self.congestion, false, now)
                .unwrap()
        });
        while stack.tcp_next_ready().is_some() {}
        while self.written < self.total {
            let len = (self.total - self.written).min(self.write_at_most as u64);
            let bytes: Vec<u8> = (self.written..self.written + len).map(byte).collect();
            match stack.tcp_send(id, now, &bytes) {
                Ok(sent) => self.written += sent as u64,
                Err(Misuse::WouldBlock) => break,
                Err(error) => panic!("the client's connection broke: {error:?}"),
            }
        }
        let open = stack
            .tcp_state(id)
            .is_some_and(|state| state.is_synchronized());
        if self.written == self.total && !self.shut && open {
            stack.tcp_shutdown(id, now).unwrap();
            self.shut = true;
        }
        let mut read = self.read;
        stack
            .tcp_receive_with(id, now, |bytes| {
                for &got in bytes {
                    assert_eq!(got, byte(read), "byte {read}");
                    read += 1;
                }
                bytes.len()
            })
            .unwrap();
        self.read = read;
        if stack.tcp_is_at_end(id) {
            assert_eq!(self.read, self.total, "the peer closed early");
            stack.tcp_close(id, now);
            self.done = true;
        }
    }
}

fn config(random: &mut Random) -> TcpConfig {
    TcpConfig {
        connections: 8,
        connections_new_reno: 8,
        half_open: 8,
        time_wait: 8,
        send_chunks: 256,
        receive_chunks: 256,
        transmissions: 1024,
        out_of_order: 256,
        listeners: 2,
        send_buffer: 1 << (12 + random.below(7)),
        receive_buffer: 1 << (12 + random.below(6)),
        receive_buffer_max: 1 << 18,
        time_wait_period: Duration::from_millis(200),
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

struct Scenario {
    network: Network<App>,
    client: Port,
    server: Port,
}

impl Scenario {
    fn new(seed: u64, impaired: bool) -> Self {
        let mut network = Network::new("tcp", seed, Neighbors::Preset);
        let mut random = network.random();
        let ipv6 = random.below(2) == 0;
        let address = |number| if ipv6 { v6(number) } else { v4(number) };
        let mut client = HostConfig::new("client", 1);
        client.stack.tcp = config(&mut random);
        let mut server = HostConfig::new("server", 2);
        server.stack.tcp = config(&mut random);
        let congestion = |random: &mut Random| match random.below(2) {
            0 => CongestionKind::Cubic,
            _ => CongestionKind::NewReno,
        };
        let total = match random.below(4) {
            0 => random.below(3),
            1 => random.below(3000),
            _ => random.below(200_000),
        };
        let app = App::Client(Client {
            local: SocketAddr::new(address(1), 0),
            remote: SocketAddr::new(address(2), PORT),
            congestion: congestion(&mut random),
            connection: None,
            total,
            written: 0,
            read: 0,
            write_at_most: 1 + random.below(10_000) as usize,
            shut: false,
            done: false,
        });
        let client = network.add_host(client, app);
        let placeholder = App::Server(Server {
            listener: None,
            connections: Vec::new(),
            served: 0,
        });
        let server = network.add_host(server, placeholder);
        let host = network.host_mut(server);
        let bind = Bind {
            local: SocketAddr::new("::".parse().unwrap(), PORT),
            v6only: false,
        };
        let options = ListenOptions {
            backlog: 4,
            congestion: congestion(&mut random),
            nodelay: random.below(2) == 0,
        };
        // The addresses come after the socket, as in a service that starts.
        let link = host.stack.set_link(Box::default(), Instant::ZERO);
        let listener = host.stack.tcp_listen(bind, options).unwrap();
        host.stack.set_link(link, Instant::ZERO);
        host.application = App::Server(Server {
            listener: Some(listener),
            connections: Vec::new(),
            served: 0,
        });
        if impaired {
            for port in [client, server] {
                let impairment = trouble(&mut random);
                network.impair(port, &impairment);
            }
        }
        Self {
            network,
            client,
            server,
        }
    }

    fn run(mut self) {
        let (client, server) = (self.client, self.server);
        let done = self.network.run_until_done(Duration::from_secs(600), |network| {
            matches!(&network.host(client).application, App::Client(it) if it.done)
                && matches!(&network.host(server).application, App::Server(it) if it.served == 1)
        });
        if !done {
            for port in [client, server] {
                let host = self.network.host(port);
                let drops: Vec<_> = host.stack.drops().iter().filter(|it| it.1 > 0).collect();
                eprintln!("{}: {drops:?} {:?}", host.name, host.stack.tcp_memory());
                let events: Vec<_> = host.stack.events().iter().filter(|it| it.1 > 0).collect();
                eprintln!("{}: {events:?}", host.name);
            }
            let App::Client(it) = &self.network.host(client).application else {
                unreachable!()
            };
            panic!(
                "stuck: {} written, {} read, of {}",
                it.written, it.read, it.total
            );
        }
        // Every timer runs out, and nothing is left.
        let quiet = self
            .network
            .run_until_done(Duration::from_secs(300), |network| {
                [client, server]
                    .iter()
                    .all(|port| network.host(*port).stack.tcp_census() == [0; 3])
            });
        for port in [client, server] {
            let host = self.network.host(port);
            assert!(quiet, "{}: left: {:?}", host.name, host.stack.tcp_census());
            assert_eq!(host.pool.in_use(), 0, "{}: frames", host.name);
            let free = host.stack.tcp_memory();
            assert_eq!(free.used(), 0, "{}: {free:?}", host.name);
        }
    }
}

#[test]
fn a_perfect_link() {
    for_each_seed(200, |seed| Scenario::new(seed, false).run());
}

#[test]
fn impaired_links() {
    for_each_seed(500, |seed| Scenario::new(seed, true).run());
}
