//! The seal on the whole path: once a worker has warmed up, its turns allocate nothing: packets taken,
//! delivered, echoed, sent and timed, over IPv4 and IPv6, with the control plane asking for counters and
//! telling of neighbours meanwhile.

#[path = "../../stack/tests/support/allocator.rs"]
mod allocator;
#[path = "../../stack/tests/support/mod.rs"]
mod support;

use allocator::allocations;
use dataplane::driver::{Driver, MemoryDriver, MemoryOptions};
use dataplane::handler::{Application, udp};
use dataplane::observe::latency::Stage;
use dataplane::observe::snapshot::exchange;
use dataplane::worker::command::{Command, ServiceBind, channel};
use dataplane::worker::handoff::Handoffs;
use dataplane::worker::idle::Idle;
use dataplane::worker::{Options, Worker, WorkerCounters};
use stack::counters::Event;
use stack::link::NeighborUpdate;
use stack::socket::bind::Bind;
use stack::tcp::config::TcpConfig;
use stack::{Config, Stack};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use support::{OUR_V4, OUR_V6, PEER_MAC, PEER_V4, PEER_V6, link, udp_packet};

/// Datagrams of one round: two batches of the worker.
const ROUND: usize = 64;
const ROUNDS: usize = 200;

#[test]
fn a_worker_allocates_nothing_after_its_first_packets() {
    let (driver, peer) = MemoryDriver::with_peer(MemoryOptions::default()).unwrap();
    let notify = Arc::new(tokio::sync::Notify::new());
    let (commander, commands) = channel(driver.waker(), notify);
    let (mut collector, publisher, latency) = exchange(WorkerCounters::default(), 3).unwrap();
    let options = Options {
        batch: 32,
        idle: Idle::Spin,
        latency: true,
        udp_queue: 128,
        tcp_connections: TcpConfig::default().connections,
        tcp_connections_new_reno: TcpConfig::default().connections_new_reno,
        drain: Duration::from_secs(1),
    };
    let stack = Stack::new(Config {
        announce: false,
        ..Config::default()
    });
    let exchange = (publisher, latency);
    let mut worker = Worker::new(driver, stack, Handoffs::none(), commands, exchange, options);
    let bind = Bind {
        local: "[::]:7777".parse().unwrap(),
        v6only: false,
    };
    worker
        .bind(&ServiceBind {
            bind,
            service: 0,
            application: Application::Udp(udp::Application::Echo),
            here: true,
        })
        .unwrap();
    commander.send(Command::Link(Box::new(link()))).unwrap();
    worker.turn();
    let neighbors: [IpAddr; 2] = [PEER_V4.into(), PEER_V6.into()];
    let know = |address| {
        let mac = PEER_MAC;
        Command::Neighbor(NeighborUpdate::Set { address, mac })
    };

    let versions: [(IpAddr, IpAddr); 2] = [
        (PEER_V4.into(), OUR_V4.into()),
        (PEER_V6.into(), OUR_V6.into()),
    ];
    // Payloads from nothing to a full packet.
    let requests: Vec<Vec<u8>> = (0..ROUND)
        .map(|number| {
            let (from, to) = versions[number % 2];
            let port = 4000 + u16::try_from(number).unwrap();
            let (from, to) = (SocketAddr::new(from, port), SocketAddr::new(to, 7777));
            udp_packet(from, to, &vec![0x5a; number * 1452 / ROUND])
        })
        .collect();
    let mut answers = 0;
    let mut round = |answers: &mut usize| {
        for request in &requests {
            assert!(peer.inject(request));
        }
        for neighbor in neighbors {
            commander.send(know(neighbor)).unwrap();
        }
        collector.ask();
        while worker.turn() {}
        while peer.collect_with(<[u8]>::len).is_some() {
            *answers += 1;
        }
        assert!(collector.take());
    };
    round(&mut answers);
    let allocations = allocations(|| {
        for _ in 0..ROUNDS {
            round(&mut answers);
        }
    });
    assert_eq!(allocations, 0);
    let sent = (ROUNDS + 1) * ROUND;
    assert_eq!(answers, sent, "every turn moved packets");
    collector.ask();
    worker.turn();
    assert!(collector.take());
    assert_eq!(collector.counters().events.get(Event::UdpTx), sent as u64);
    for stage in [Stage::TakenToDelivered, Stage::Whole] {
        assert_eq!(collector.latency().stage(stage).len(), sent as u64);
    }
}
