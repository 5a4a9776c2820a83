//! A stack with TCP, peers that may do anything, and applications that may, too: a program of bytes
//! says who does what. Nothing panics, memory stays within its limits, every frame that leaves is
//! well-formed, and when everybody has gone silent everything is given back and no timer runs.
//!
//! * [`peer`]: the far ends, and the segments they make
//! * [`lead`]: how a connection is brought to each of the states of RFC 9293 §3.3.2
//! * [`steps`]: what a byte of the program means
//!
//! A world allocates nothing once it was made: `alloc_stack` holds the stack to that.
#![allow(dead_code, unreachable_pub, reason = "each user needs some of it")]

#[path = "../world/choices.rs"]
pub mod choices;
pub mod lead;
pub mod peer;
pub mod steps;

use choices::Choices;
use peer::{Bytes, OUR_MAC, OUR_V4, OUR_V6, PEER_MAC, PEER_V4, PEER_V6, Peer};
use stack::frame::{Frame, FramePool};
use stack::heap::{HeapFrame, HeapPool};
use stack::ip::route::{Route, RouteTable};
use stack::link::{AddressOwner, LinkState, LocalAddress, NeighborUpdate};
use stack::sim::packet;
use stack::socket::bind::Bind;
use stack::tcp::config::{Ecn, Keepalive, SynCookies, TcpConfig};
use stack::tcp::listener::{CongestionKind, ListenOptions};
use stack::tcp::{TcpId, TcpListenerId};
use stack::time::{Duration, Instant};
use stack::{Config, Origin, Stack};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Far ends at once.
pub const PEERS: usize = 8;
/// Handles an application keeps, at most.
const HANDLES_MAX: usize = 64;
/// Frames of the stack: less than the longest burst of a test, so that it runs out of them.
const FRAMES: usize = 96;
/// How many bytes of a program say how the world is set up.
pub const SETTINGS_BYTES: usize = 4;
/// Where the stack listens: with CUBIC, and with NewReno and no backlog to speak of.
pub const LISTENERS: [u16; 2] = [7, 8];
/// After everybody has gone silent, timers fire this often at most. A connection that was closed sends
/// again with back-off until its user timeout: a few dozen times, for each of those there can be.
const LAST_TIMERS_MAX: usize = 20_000;
/// And they are over after this time: the longest of all limits below is 2 minutes.
const LAST_TIMER: Duration = Duration::from_secs(10 * 60);

/// See the module.
pub struct World {
    pub stack: Stack<HeapPool>,
    pub pool: HeapPool,
    pub now: Instant,
    pub config: TcpConfig,
    pub peers: [Peer; PEERS],
    pub listeners: [TcpListenerId; LISTENERS.len()],
    /// What the applications hold.
    pub handles: Vec<TcpId>,
    /// Frames that somebody keeps from the stack.
    held: Vec<HeapFrame>,
    /// Nobody accepts.
    pub lazy: bool,
    /// How many frames the driver takes in a turn.
    pub room: usize,
    /// What the stack sent last.
    pub last_sent: Bytes,
    pub turns: u64,
    /// `CONVERSATION_TRACE` is set: every segment is printed.
    trace: bool,
}

fn tcp_config(settings: &mut Choices<'_>) -> TcpConfig {
    let (sizes, options) = (settings.byte(), settings.byte());
    let small = sizes & 1 != 0;
    TcpConfig {
        connections: if small { 6 } else { 24 },
        connections_new_reno: 4,
        half_open: if sizes & 2 != 0 { 2 } else { 8 },
        time_wait: if sizes & 4 != 0 { 1 } else { 8 },
        send_chunks: if small { 6 } else { 64 },
        receive_chunks: if small { 2 } else { 64 },
        transmissions: if sizes & 8 != 0 { 4 } else { 256 },
        out_of_order: if sizes & 16 != 0 { 3 } else { 256 },
        listeners: 2,
        send_buffer: if sizes & 32 != 0 { 3000 } else { 40_000 },
        receive_buffer: if sizes & 64 != 0 { 2500 } else { 30_000 },
        receive_buffer_max: if sizes & 128 != 0 { 2500 } else { 200_000 },
        rto_min_ms: 50,
        syn_retries: 3,
        syn_ack_retries: 2,
        user_timeout: Duration::from_secs(30),
        keepalive: Keepalive {
            always: options & 1 != 0,
            idle: Duration::from_secs(20),
            interval: Duration::from_secs(2),
            probes: 3,
        },
        time_wait_period: Duration::from_secs(20),
        fin_wait_2: Duration::from_secs(15),
        syn_cookies: match options >> 1 & 3 {
            0 => SynCookies::Never,
            1 => SynCookies::Always,
            _ => SynCookies::WhenFull,
        },
        challenge_acks_per_s: 20,
        sack: options & 8 == 0,
        timestamps: options & 16 == 0,
        window_scaling: options & 32 == 0,
        ecn: match options >> 6 {
            0 => Ecn::Off,
            1 => Ecn::Accept,
            _ => Ecn::Offer,
        },
        ..TcpConfig::default()
    }
}

fn link() -> LinkState {
    let local = |address: IpAddr, prefix_len| LocalAddress {
        address,
        prefix_len,
        broadcast: None,
        owner: AddressOwner::Stack,
    };
    let on_link = |network: &str, prefix_len| {
        Route::on_link(network.parse().expect("an address"), prefix_len)
    };
    let routes = vec![on_link("192.0.2.0", 24), on_link("2001:db8::", 64)];
    LinkState {
        mac: OUR_MAC,
        mtu: 1500,
        up: true,
        addresses: vec![local(OUR_V4.into(), 24), local(OUR_V6.into(), 64)],
        routes: RouteTable::new(routes, 4).expect("two prefixes"),
    }
}

impl World {
    /// Everything that is taken is taken here.
    pub fn new(settings: &[u8; SETTINGS_BYTES]) -> Self {
        let mut settings = Choices::new(settings);
        let config = tcp_config(&mut settings);
        let more = settings.byte();
        let mut pool = HeapPool::new(FRAMES, 2048);
        let mut stack = Stack::new(Config {
            tcp: config.clone(),
            announce: false,
            neighbors: 16,
            udp_sockets: 1,
            egress_queue: if more & 1 == 0 { 64 } else { 8 },
            reassembly_bytes: 0,
            accept_incomplete_checksums: more & 2 != 0,
            ..Config::default()
        });
        let now = Instant::from_nanos(1_000_000_000);
        stack.set_link(Box::new(link()), now);
        for address in [IpAddr::V4(PEER_V4), IpAddr::V6(PEER_V6)] {
            let mac = PEER_MAC;
            stack.set_neighbor(&mut pool, NeighborUpdate::Set { address, mac });
        }
        let mut listen = |port, backlog, congestion| {
            let bind = Bind {
                local: SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port),
                v6only: false,
            };
            let options = ListenOptions {
                backlog,
                congestion,
                nodelay: more & 4 != 0,
            };
            stack.tcp_listen(bind, options).expect("a free port")
        };
        let listeners = [
            listen(LISTENERS[0], 6, CongestionKind::Cubic),
            listen(LISTENERS[1], 1, CongestionKind::NewReno),
        ];
        let peer = |index| Peer::new(index, index % 2 == 1, LISTENERS[0]);
        Self {
            stack,
            pool,
            now,
            config,
            peers: std::array::from_fn(peer),
            listeners,
            handles: Vec::with_capacity(HANDLES_MAX),
            held: Vec::with_capacity(FRAMES),
            lazy: false,
            room: usize::MAX,
            last_sent: Bytes::EMPTY,
            turns: 0,
            trace: std::env::var_os("CONVERSATION_TRACE").is_some(),
        }
    }

    /// Runs a whole program: settings, the state that one connection is brought to, and steps.
    pub fn run(program: &[u8]) {
        let mut choices = Choices::new(program);
        let settings = std::array::from_fn(|_| choices.byte());
        let mut world = Self::new(&settings);
        let state = lead::State::ALL[choices.below(lead::State::ALL.len())];
        let how = choices.byte();
        world.bring(0, state, how);
        if world.pool.in_use() == 0 {
            let expected = world.expected(state);
            assert_eq!(world.state_of(0), expected, "{state:?}");
        }
        world.steps(&mut choices);
        world.finish();
    }

    /// A frame arrives.
    pub fn receive(&mut self, frame: &[u8]) {
        if self.trace {
            self.print(">", frame);
        }
        if let Some(frame) = self.pool.receive(frame) {
            self.stack
                .ingest(&mut self.pool, frame, Origin::Ring, self.now);
        }
    }

    /// The rest of a worker's turn: timers, acceptance, transmission, the driver.
    pub fn turn(&mut self) {
        self.turns += 1;
        let now = self.now;
        self.stack.expire(&mut self.pool, now);
        for listener in self.listeners {
            while !self.lazy
                && let Some(id) = self.stack.tcp_accept(listener)
            {
                self.keep(id);
            }
        }
        // Each connection has news once.
        let mut news = 0;
        while let Some(id) = self.stack.tcp_next_ready() {
            assert!(self.stack.tcp_is_there(id));
            news += 1;
            assert!(news <= 2 * (self.config.connections + self.config.connections_new_reno));
        }
        self.stack.tcp_transmit(&mut self.pool, now);
        let Self {
            stack,
            pool,
            peers,
            last_sent,
            room,
            trace,
            now,
            ..
        } = self;
        let mut room = *room;
        stack.egress(|frame| {
            if room == 0 {
                return Err(frame);
            }
            room -= 1;
            if *trace {
                print(*now, "<", frame.data());
            }
            look(frame.data(), peers, last_sent);
            pool.give(frame);
            Ok(())
        });
        while let Some((_, frame)) = stack.next_handoff() {
            pool.give(frame);
        }
        self.judge();
    }

    fn print(&self, direction: &str, frame: &[u8]) {
        print(self.now, direction, frame);
    }

    /// What holds after every turn.
    fn judge(&self) {
        let TcpConfig {
            connections,
            connections_new_reno,
            half_open,
            time_wait,
            ..
        } = self.config;
        let census = self.stack.tcp_census();
        let memory = self.stack.tcp_memory();
        assert!(census[0] <= 2 * (connections + connections_new_reno) as usize);
        assert!(census[1] <= 2 * half_open as usize && census[2] <= 2 * time_wait as usize);
        if census[0] == 0 {
            assert_eq!(memory.used(), 0, "nobody is there: {memory:?}");
        }
        if census == [0; 3] {
            assert_eq!(self.stack.tcp_next_deadline(), None, "a timer of nobody's");
        } else if census[1] + census[2] > 0 {
            assert!(
                self.stack.tcp_next_deadline().is_some(),
                "records without an end"
            );
        }
        // Whoever sleeps until then sleeps, unless the driver is what everybody waits for.
        let waits = self.stack.egress_len() > 0 || self.held.capacity() == self.held.len();
        assert!(waits || self.stack.next_deadline() > self.now, "no sleep");
    }

    /// An application gets a handle.
    pub fn keep(&mut self, id: TcpId) {
        if self.handles.len() == HANDLES_MAX {
            self.stack.tcp_abort(id, self.now);
        } else {
            self.handles.push(id);
        }
    }

    /// Somebody takes all frames, or gives them back.
    pub fn starve(&mut self, starve: bool) {
        if starve {
            while let Some(frame) = self.pool.take() {
                self.held.push(frame);
            }
        } else {
            for frame in self.held.drain(..) {
                self.pool.give(frame);
            }
        }
    }

    pub fn advance(&mut self, time: Duration) {
        self.now = self.now + time;
        let ms = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        for peer in &mut self.peers {
            peer.clock = peer.clock.wrapping_add(ms);
        }
        self.turn();
    }

    /// Applications let go, peers fall silent: everything ends.
    pub fn finish(&mut self) {
        self.starve(false);
        (self.lazy, self.room) = (false, usize::MAX);
        self.turn();
        // Some close as they should, with everything read; others do not care.
        while let Some(id) = self.handles.pop() {
            if self.handles.len() % 2 == 0 {
                let _ = self
                    .stack
                    .tcp_receive_with(id, self.now, |bytes| bytes.len());
            }
            self.stack.tcp_close(id, self.now);
        }
        let start = self.now;
        for _ in 0..LAST_TIMERS_MAX {
            self.turn();
            while let Some(id) = self.handles.pop() {
                self.stack.tcp_close(id, self.now);
            }
            if self.stack.tcp_census() == [0; 3] {
                break;
            }
            let next = self.stack.tcp_next_deadline().unwrap_or(self.now);
            // It is a lower bound: a wheel may have to turn more than once.
            self.now = next.max(self.now + Duration::from_micros(100));
        }
        self.turn();
        let stack = &self.stack;
        let (census, took) = (stack.tcp_census(), self.now - start);
        assert_eq!(
            census, [0; 3],
            "left after {took:?}: connections, half-open, TIME-WAIT"
        );
        assert!(took <= LAST_TIMER, "{took:?}");
        assert_eq!(stack.tcp_memory().used(), 0, "{:?}", stack.tcp_memory());
        assert_eq!(stack.tcp_next_deadline(), None);
        assert_eq!((self.pool.in_use(), stack.egress_len()), (0, 0), "frames");
    }
}

fn print(now: Instant, direction: &str, frame: &[u8]) {
    let at = now.as_nanos() / 1_000_000;
    match packet::tcp(frame) {
        Ok(Some((_, tcp))) => eprintln!(
            "{at:>8} {direction} {} {} flags {:03x} seq {} ack {} win {} options {:02x?} len {}",
            tcp.source_port,
            tcp.destination_port,
            tcp.flags,
            tcp.seq,
            tcp.ack,
            tcp.window,
            tcp.options,
            tcp.payload.len(),
        ),
        other => eprintln!("{at:>8} {direction} {other:?}"),
    }
}

/// Judges a frame that leaves, and tells the peer it is for.
fn look(frame: &[u8], peers: &mut [Peer; PEERS], last: &mut Bytes) {
    packet::check(frame).expect("well-formed");
    let Ok(Some((ip, tcp))) = packet::tcp(frame) else {
        return;
    };
    last.len = 0;
    last.push(&frame[14..]);
    let v6 = ip.destination.is_ipv6();
    for peer in peers {
        if peer.v6 == v6 && peer.port == tcp.destination_port {
            peer.local_port = tcp.source_port;
            peer.hear(&tcp);
        }
    }
}
