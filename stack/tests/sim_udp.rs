//! The simulator's own tests, with UDP: what it loses it counts, what it says happens, and the same
//! seed gives the same network.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

use stack::counters::Event;
use stack::heap::HeapPool;
use stack::sim::host::{v4, v6};
use stack::sim::packet;
use stack::sim::{
    Application, Direction, GilbertElliott, HostConfig, Impairment, Neighbors, Network, Port,
    Random, Reordering, for_each_seed,
};
use stack::socket::bind::Bind;
use stack::time::{Duration, Instant};
use stack::udp::UdpSocketId;
use stack::wire::ethernet;
use stack::{SendTo, Stack};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

const PORT: u16 = 7;
const INTERVAL: Duration = Duration::from_millis(2);

/// Answers every datagram with itself.
struct Echo {
    socket: UdpSocketId,
}

/// Sends numbered datagrams at a pace, and notes what comes back.
struct Client {
    socket: UdpSocketId,
    local: SocketAddr,
    remote: SocketAddr,
    to_send: u32,
    sent: u32,
    next_at: Instant,
    payload_len: usize,
    tos: u8,
    received: Vec<u32>,
}

enum App {
    Idle,
    Echo(Echo),
    Client(Client),
}

impl Application for App {
    fn poll(
        &mut self,
        stack: &mut Stack<HeapPool>,
        pool: &mut HeapPool,
        now: Instant,
    ) -> Option<Instant> {
        match self {
            App::Idle => None,
            App::Echo(echo) => {
                while let Some(datagram) = stack.udp_recv(echo.socket) {
                    // What cannot be sent is counted by the stack.
                    let _ = stack.udp_reply(pool, datagram, now);
                }
                None
            }
            App::Client(client) => client.poll(stack, pool, now),
        }
    }
}

impl Client {
    fn poll(
        &mut self,
        stack: &mut Stack<HeapPool>,
        pool: &mut HeapPool,
        now: Instant,
    ) -> Option<Instant> {
        while let Some(datagram) = stack.udp_recv(self.socket) {
            let payload = datagram.payload();
            assert_eq!(payload.len(), self.payload_len);
            let number = u32::from_be_bytes(*payload.first_chunk().unwrap());
            assert_eq!(payload, self.payload(number), "content of {number}");
            self.received.push(number);
            stack.udp_release(pool, datagram);
        }
        if self.sent < self.to_send && now >= self.next_at {
            let to = SendTo {
                local: self.local,
                remote: self.remote,
                tos: self.tos,
            };
            let payload = self.payload(self.sent);
            let _ = stack.udp_send(pool, to, &payload, now);
            self.sent += 1;
            self.next_at = now + INTERVAL;
        }
        (self.sent < self.to_send).then_some(self.next_at)
    }

    fn payload(&self, number: u32) -> Vec<u8> {
        let mut payload = number.to_be_bytes().to_vec();
        payload.resize(self.payload_len, number.to_le_bytes()[0]);
        payload
    }
}

fn bind(network: &mut Network<App>, port: Port, local: SocketAddr) -> UdpSocketId {
    let bind = Bind {
        local,
        v6only: false,
    };
    network.host_mut(port).stack.udp_bind(bind, 256).unwrap()
}

struct Scenario {
    network: Network<App>,
    client: Port,
    server: Port,
}

impl Scenario {
    fn new(name: &str, seed: u64, neighbors: Neighbors, is_v6: bool, to_send: u32) -> Self {
        let address: fn(u8) -> IpAddr = if is_v6 { v6 } else { v4 };
        let mut network = Network::new(name, seed, neighbors);
        let client = network.add_host(HostConfig::new("client", 1), App::Idle);
        let server = network.add_host(HostConfig::new("server", 2), App::Idle);
        let (local, remote) = (
            SocketAddr::new(address(1), 5000),
            SocketAddr::new(address(2), PORT),
        );
        let socket = bind(&mut network, server, remote);
        network.host_mut(server).application = App::Echo(Echo { socket });
        let socket = bind(&mut network, client, local);
        let next_at = network.now();
        network.host_mut(client).application = App::Client(Client {
            socket,
            local,
            remote,
            to_send,
            sent: 0,
            next_at,
            payload_len: 100,
            tos: 0,
            received: Vec::new(),
        });
        Self {
            network,
            client,
            server,
        }
    }

    fn client(&mut self) -> &mut Client {
        match &mut self.network.host_mut(self.client).application {
            App::Client(client) => client,
            _ => panic!("no client"),
        }
    }

    fn run(&mut self) {
        let client = self.client;
        let done = self
            .network
            .run_until_done(Duration::from_secs(60), |network| {
                matches!(&network.host(client).application, App::Client(c) if c.sent == c.to_send)
            });
        assert!(done, "the client is stuck");
        self.network.run_for(Duration::from_secs(2));
        assert_eq!(self.network.under_way(), 0);
        for port in [self.client, self.server] {
            let host = self.network.host(port);
            assert_eq!((host.pool.in_use(), host.frames_missed), (0, 0));
        }
    }
}

/// Every kind of trouble at once, drawn from the seed.
fn trouble(random: &mut Random) -> Impairment {
    let chance = |random: &mut Random, max: u64| random.below(max) as f64 / 1000.0;
    Impairment {
        loss: chance(random, 200),
        burst_loss: (random.below(2) == 0).then(|| GilbertElliott {
            worsen: chance(random, 50),
            recover: 0.1 + chance(random, 500),
            loss_good: 0.0,
            loss_bad: 0.9,
        }),
        reordering: (random.below(2) == 0).then(|| Reordering {
            share: chance(random, 200),
            by: Duration::from_millis(random.between(1, 30)),
        }),
        duplicate: chance(random, 100),
        corrupt: chance(random, 100),
        rate_bits_per_s: (random.below(2) == 0).then(|| random.between(200_000, 10_000_000)),
        delay: Duration::from_micros(random.below(50_000)),
        jitter: Duration::from_micros(random.below(5_000)),
        queue_bytes: Some(4_000),
        ..Impairment::default()
    }
}

#[test]
fn over_a_lossy_link_the_counts_add_up() {
    for_each_seed(60, |seed| {
        let is_v6 = seed % 2 == 1;
        let mut scenario = Scenario::new("udp-lossy", seed, Neighbors::Preset, is_v6, 200);
        let mut random = scenario.network.random();
        for port in [scenario.client, scenario.server] {
            for direction in [Direction::Outward, Direction::Inward] {
                *scenario.network.impairment_mut(port, direction) = trouble(&mut random);
            }
        }
        scenario.run();
        let Scenario {
            network,
            client,
            server,
        } = &scenario;
        for port in [*client, *server] {
            for direction in [Direction::Outward, Direction::Inward] {
                let link = network.link_counters(port, direction);
                assert_eq!(
                    link.offered + link.duplicated + link.fragments,
                    link.delivered + link.lost()
                );
            }
            // Nothing is between the link and the stack, or between the stack and the link.
            let events = network.host(port).stack.events();
            let inward = network.link_counters(port, Direction::Inward);
            let outward = network.link_counters(port, Direction::Outward);
            assert_eq!(events.get(Event::FrameRx), inward.delivered);
            assert_eq!(events.get(Event::FrameTx), outward.offered);
            // Every frame ended in a socket or as a named drop.
            let drops: u64 = network
                .host(port)
                .stack
                .drops()
                .iter()
                .map(|(_, n)| n)
                .sum();
            assert_eq!(events.get(Event::UdpRx) + drops, inward.delivered);
        }
        // Frames cross the client's outward and the server's inward link.
        let (sent, arrived) = (
            network.link_counters(*client, Direction::Outward),
            network.link_counters(*server, Direction::Inward),
        );
        let udp_tx = network.host(*client).stack.events().get(Event::UdpTx);
        assert_eq!(udp_tx, 200);
        // More than that are ICMP errors about what was corrupted.
        assert!(sent.offered >= 200);
        // A corrupted Ethernet address may be the client's own: the switch does not send back.
        assert!(sent.delivered - arrived.offered <= sent.corrupted);
        let server_rx = network.host(*server).stack.events().get(Event::UdpRx);
        assert!(server_rx > 0, "not one datagram got through");
        let client_rx = network.host(*client).stack.events().get(Event::UdpRx);
        let received = scenario.client().received.clone();
        assert_eq!(received.len() as u64, client_rx);
        let different: BTreeSet<u32> = received.iter().copied().collect();
        assert!(different.len() <= 200 && different.iter().all(|number| *number < 200));
    });
}

#[test]
fn a_perfect_link_brings_everything_back_in_order_both_ways_of_finding_neighbours() {
    for neighbors in [Neighbors::Preset, Neighbors::Resolved] {
        for is_v6 in [false, true] {
            let mut scenario = Scenario::new("udp-perfect", 1, neighbors, is_v6, 50);
            let delay = Duration::from_millis(3);
            let link = Impairment {
                delay,
                ..Impairment::default()
            };
            scenario.network.impair(scenario.client, &link);
            scenario.run();
            let received = &scenario.client().received;
            // While the first neighbour is looked for, only the latest datagram waits.
            let first = received[0];
            match neighbors {
                Neighbors::Preset => assert_eq!(first, 0),
                Neighbors::Resolved => assert!(first <= 4, "resolved only after {first}"),
            }
            assert_eq!(*received, (first..50).collect::<Vec<u32>>());
            let solicited = |port| {
                let events = scenario.network.host(port).stack.events();
                events.get(Event::NeighborSolicited)
            };
            let resolved = neighbors == Neighbors::Resolved;
            assert_eq!(solicited(scenario.client) > 0, resolved);
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_capture() {
    let capture = |seed| {
        let mut scenario = Scenario::new("udp-same", seed, Neighbors::Resolved, seed % 2 == 0, 100);
        let mut random = scenario.network.random();
        let link = trouble(&mut random);
        scenario.network.impair(scenario.server, &link);
        scenario.run();
        scenario.network.pcapng()
    };
    for seed in 0..10 {
        let first = capture(seed);
        assert!(first.len() > 1_000);
        assert!(first == capture(seed), "seed {seed} gave two captures");
        assert!(first != capture(seed + 100));
    }
}

#[test]
fn round_trips_take_what_the_links_take() {
    let mut scenario = Scenario::new("udp-time", 1, Neighbors::Preset, false, 1);
    let link = Impairment {
        delay: Duration::from_millis(10),
        rate_bits_per_s: Some(1_000_000),
        ..Impairment::default()
    };
    scenario.network.impair(scenario.client, &link);
    let times = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&times);
    scenario.network.on_frame(move |sighting| {
        seen.borrow_mut().push((sighting.at, sighting.port));
        Ok(())
    });
    scenario.run();
    let times = times.borrow();
    let (client, server) = (scenario.client, scenario.server);
    let ports: Vec<Port> = times.iter().map(|(_, port)| *port).collect();
    assert_eq!(ports, [client, server, server, client]);
    // 142 bytes at 1 Mbit/s and 10 ms, twice.
    let frame = Duration::from_micros(142 * 8) + Duration::from_millis(10);
    assert_eq!(times[1].0 - times[0].0, frame);
    assert_eq!(times[3].0 - times[2].0, frame);
    assert_eq!(times[2].0, times[1].0, "the server answers at once");
}

#[test]
fn what_is_too_big_is_reported_and_the_stack_learns_it() {
    for is_v6 in [false, true] {
        let mut scenario = Scenario::new("udp-mtu", 1, Neighbors::Preset, is_v6, 20);
        scenario.client().payload_len = 1400;
        let narrow = Impairment {
            mtu: Some(1300),
            ..Impairment::default()
        };
        scenario.network.impair(scenario.server, &narrow);
        scenario.run();
        let events = scenario.network.host(scenario.client).stack.events();
        assert_eq!(events.get(Event::PathMtuLearned), 1, "v6: {is_v6}");
        let received = &scenario.client().received;
        // One was lost on the way there, one on the way back at most.
        assert!(received.len() >= 18, "v6: {is_v6}: {received:?}");
    }
}

#[test]
fn a_black_hole_says_nothing() {
    let mut scenario = Scenario::new("udp-hole", 1, Neighbors::Preset, true, 5);
    scenario.client().payload_len = 1400;
    let hole = Impairment {
        mtu: Some(1300),
        is_black_hole: true,
        ..Impairment::default()
    };
    scenario.network.impair(scenario.server, &hole);
    scenario.run();
    assert!(scenario.client().received.is_empty());
    let link = scenario
        .network
        .link_counters(scenario.server, Direction::Inward);
    assert_eq!(link.lost_too_big, 5);
    let events = scenario.network.host(scenario.client).stack.events();
    assert_eq!(events.get(Event::IcmpErrorRx), 0);
}

#[test]
fn a_long_queue_marks_those_who_know_of_ecn() {
    for (tos, expected) in [(2, true), (0, false)] {
        let mut scenario = Scenario::new("udp-ecn", 1, Neighbors::Preset, tos == 2, 100);
        scenario.client().tos = tos;
        let slow = Impairment {
            mark_bytes: Some(1_000),
            // Slower than the client: the queue grows.
            ..Impairment::bottleneck(400_000, Duration::ZERO, 1 << 20)
        };
        *scenario
            .network
            .impairment_mut(scenario.server, Direction::Inward) = slow;
        let marks = Rc::new(RefCell::new(0));
        let (count, server) = (Rc::clone(&marks), scenario.server);
        scenario.network.on_frame(move |sighting| {
            if sighting.port == server && sighting.direction == Direction::Inward {
                let ip = packet::ip(sighting.frame)?.ok_or("no IP")?;
                *count.borrow_mut() += u32::from(ip.tos & 3 == 3);
            }
            Ok(())
        });
        scenario.run();
        assert_eq!(*marks.borrow() > 50, expected, "{} marks", marks.borrow());
    }
}

#[test]
fn the_script_loses_the_third_datagram_and_a_cut_cable_all() {
    let mut scenario = Scenario::new("udp-script", 1, Neighbors::Preset, false, 10);
    let is_udp = |frame: &[u8]| matches!(packet::ip(frame), Ok(Some(ip)) if ip.protocol == 17);
    let client = scenario.client;
    scenario
        .network
        .drop_frames(client, Direction::Outward, 2, 1, is_udp);
    scenario.run();
    assert_eq!(scenario.client().received, [0, 1, 3, 4, 5, 6, 7, 8, 9]);

    let mut scenario = Scenario::new("udp-cut", 1, Neighbors::Preset, false, 10);
    let link = scenario.network.impairment_mut(client, Direction::Inward);
    link.is_cut = true;
    scenario.run();
    assert!(scenario.client().received.is_empty());
}

#[test]
fn a_star_of_hosts_and_a_tap() {
    let mut network: Network = Network::new("star", 3, Neighbors::Resolved);
    let hosts: Vec<Port> = (1..=3)
        .map(|number| network.add_host(HostConfig::new("host", number), ()))
        .collect();
    let mac = [2, 0, 0, 0, 0, 99];
    let tap = network.add_tap("tap", mac, vec![v4(99)]);
    // Who has 192.0.2.2? Everybody hears it, host 2 answers to the tap alone.
    let mut request = vec![0xff; 6];
    request.extend_from_slice(&mac);
    request.extend_from_slice(&ethernet::TYPE_ARP.to_be_bytes());
    request.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
    request.extend_from_slice(&mac);
    request.extend_from_slice(&[192, 0, 2, 99, 0, 0, 0, 0, 0, 0, 192, 0, 2, 2]);
    network.send(tap, request);
    network.run_for(Duration::from_millis(10));
    for host in &hosts {
        let heard = network.link_counters(*host, Direction::Inward).delivered;
        assert_eq!(heard, 1);
    }
    let answers = network.received(tap);
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].1[6..12], [2, 0, 0, 0, 0, 2]);
    assert!(network.received(tap).is_empty());
}

#[test]
#[should_panic(expected = "Outward at port 0: enough")]
fn a_watcher_that_sees_something_wrong_fails_the_test() {
    let mut network: Network = Network::new("watched", 1, Neighbors::Preset);
    let host = network.add_host(HostConfig::new("host", 1), ());
    network.on_frame(|_| Err("enough".into()));
    network.send(host, vec![0; 60]);
}

#[test]
fn a_failure_leaves_a_capture() {
    let seed = 4711;
    let panicked = std::thread::spawn(move || {
        let mut scenario = Scenario::new("udp-fails", seed, Neighbors::Preset, false, 5);
        scenario.run();
        panic!("on purpose");
    })
    .join();
    assert!(panicked.is_err());
    let path = stack::sim::report::directory().join("udp-fails-4711.pcapng");
    let file = std::fs::read(&path).unwrap();
    assert_eq!(file[..4], [0x0a, 0x0d, 0x0d, 0x0a]);
    assert!(file.len() > 1000);
    std::fs::remove_file(path).unwrap();
}
