//! The worker's loop over the in-memory driver: no privileges, every step visible.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

#[path = "../../stack/tests/support/mod.rs"]
mod support;

use dataplane::driver::{Driver, MemoryDriver, MemoryOptions, MemoryPeer};
use dataplane::handler::{Application, tcp, udp};
use dataplane::observe::latency::Stage;
use dataplane::observe::snapshot::{Collector, exchange};
use dataplane::worker::command::{Command, Commander, Request, ServiceBind, channel};
use dataplane::worker::handoff::Lanes;
use dataplane::worker::idle::Idle;
use dataplane::worker::{Options, Worker, WorkerCounters};
use stack::counters::{DropReason, Event};
use stack::link::NeighborUpdate;
use stack::socket::bind::Bind;
use stack::tcp::config::TcpConfig;
use stack::tcp::listener::{CongestionKind, ListenOptions};
use stack::tcp::options::OptionsOut;
use stack::tcp::segment::{self, Flags, Header};
use stack::tcp::seq::SeqNum;
use stack::wire::protocol;
use stack::{Config, Stack};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use support::*;

/// How long a worker of these tests may drain: none of those that have nothing in their way takes as
/// long.
const DRAIN: Duration = Duration::from_secs(2);

struct Node {
    worker: Worker<MemoryDriver>,
    peer: MemoryPeer,
    commander: Commander,
    collector: Collector<WorkerCounters>,
}

/// `count` workers on wires of their own; `served_by` lists the workers of the one service.
fn nodes(count: usize, served_by: &[usize]) -> Vec<Node> {
    nodes_asleep_for(Duration::from_millis(10), count, served_by)
}

/// The same, which sleep for so long when they have nothing to do.
fn nodes_asleep_for(sleep: Duration, count: usize, served_by: &[usize]) -> Vec<Node> {
    let mut drivers: Vec<_> = (0..count)
        .map(|_| MemoryDriver::with_peer(MemoryOptions::default()).unwrap())
        .collect();
    let homes: Vec<_> = drivers
        .iter_mut()
        .map(|(driver, _)| driver.frame_return())
        .collect();
    let wakers: Vec<_> = drivers.iter().map(|(driver, _)| driver.waker()).collect();
    let lanes = Lanes::new(count, 64, Arc::new(vec![served_by.to_vec()]));
    let node = |(index, (driver, peer)): (usize, (MemoryDriver, MemoryPeer))| {
        let notify = Arc::new(tokio::sync::Notify::new());
        let (commander, commands) = channel(driver.waker(), notify);
        let (collector, publisher, latency) = exchange(WorkerCounters::default(), 3).unwrap();
        let options = Options {
            batch: 64,
            idle: Idle::Adaptive {
                spin: Duration::ZERO,
                sleep,
            },
            latency: true,
            udp_queue: 128,
            tcp_connections: TcpConfig::default().connections,
            tcp_connections_new_reno: TcpConfig::default().connections_new_reno,
            drain: DRAIN,
        };
        let stack = Stack::new(Config {
            announce: false,
            worker: u16::try_from(index).unwrap(),
            workers: u16::try_from(count).unwrap(),
            ..Config::default()
        });
        let handoffs = lanes.ends(index, &homes, &wakers);
        let mut worker = Worker::new(
            driver,
            stack,
            handoffs,
            commands,
            (publisher, latency),
            options,
        );
        worker
            .bind(&ServiceBind {
                bind: Bind {
                    local: "[::]:7777".parse().unwrap(),
                    v6only: false,
                },
                service: 0,
                application: Application::Udp(udp::Application::Echo),
                here: served_by.contains(&index),
            })
            .unwrap();
        commander.send(Command::Link(Box::new(link()))).unwrap();
        for address in [PEER_V4.into(), PEER_V6.into()] {
            let known = NeighborUpdate::Set {
                address,
                mac: PEER_MAC,
            };
            commander.send(Command::Neighbor(known)).unwrap();
        }
        worker.turn();
        assert!(matches!(commander.next_request(), Some(Request::Drop(_))));
        Node {
            worker,
            peer,
            commander,
            collector,
        }
    };
    drivers.into_iter().enumerate().map(node).collect()
}

/// Lets the worker publish its counters.
fn counters(node: &mut Node) -> WorkerCounters {
    node.collector.ask();
    node.worker.turn();
    assert!(node.collector.take());
    node.collector.counters().clone()
}

fn endpoints() -> [(SocketAddr, SocketAddr); 2] {
    [
        (
            SocketAddr::new(PEER_V4.into(), 4000),
            SocketAddr::new(OUR_V4.into(), 7777),
        ),
        (
            SocketAddr::new(PEER_V6.into(), 4000),
            SocketAddr::new(OUR_V6.into(), 7777),
        ),
    ]
}

#[test]
fn a_turn_echoes_a_batch_and_times_every_stage() {
    let mut node = nodes(1, &[0]).remove(0);
    for (from, to) in endpoints() {
        for _ in 0..20 {
            assert!(node.peer.inject(&udp_packet(from, to, b"hello")));
        }
        assert!(node.worker.turn());
        for _ in 0..20 {
            let reply = node.peer.collect().unwrap();
            assert_eq!(read_udp(&reply), (to, from, b"hello".to_vec()));
        }
        assert_eq!(node.peer.collect(), None);
    }
    assert!(!node.worker.turn(), "nothing is left to do");
    let counters = counters(&mut node);
    assert_eq!(counters.events.get(Event::UdpTx), 40);
    assert_eq!(counters.turns.turns_with_packets, 2);
    let latency = node.collector.latency();
    // The in-memory driver has no XDP program: the journey begins at the ring.
    assert_eq!(latency.stage(Stage::ArrivalToTaken).len(), 0);
    for stage in [
        Stage::TakenToDelivered,
        Stage::DeliveredToAnswered,
        Stage::AnsweredToTransmitted,
        Stage::Whole,
    ] {
        assert_eq!(latency.stage(stage).len(), 40, "{stage:?}");
    }
}

#[test]
fn an_echo_does_not_answer_another_echo() {
    let mut node = nodes(1, &[0]).remove(0);
    for (port, answered) in [
        (7777, false),
        (7, false),
        (19, false),
        (53, true),
        (1024, true),
    ] {
        let from = SocketAddr::new(PEER_V4.into(), port);
        let to = SocketAddr::new(OUR_V4.into(), 7777);
        node.peer.inject(&udp_packet(from, to, b"forged"));
        node.worker.turn();
        assert_eq!(node.peer.collect().is_some(), answered, "from port {port}");
    }
    assert_eq!(counters(&mut node).drops.get(DropReason::UdpNoReply), 3);
}

#[test]
fn a_packet_on_the_wrong_workers_queue_reaches_the_right_one() {
    let mut nodes = nodes(3, &[1, 2]);
    let to = SocketAddr::new(OUR_V4.into(), 7777);
    for port in 0..50 {
        let from = SocketAddr::new(PEER_V4.into(), 4000 + port);
        nodes[0]
            .peer
            .inject(&udp_packet(from, to, &port.to_be_bytes()));
    }
    nodes[0].worker.turn();
    let mut answers = [0; 3];
    for (index, node) in nodes.iter_mut().enumerate() {
        node.worker.turn();
        while let Some(reply) = node.peer.collect() {
            let (_, remote, payload) = read_udp(&reply);
            assert_eq!(payload, (remote.port() - 4000).to_be_bytes());
            answers[index] += 1;
        }
    }
    assert_eq!(answers[0], 0);
    assert_eq!(answers[1] + answers[2], 50);
    assert!(
        answers[1] > 5 && answers[2] > 5,
        "flows are spread: {answers:?}"
    );
    assert_eq!(counters(&mut nodes[0]).events.get(Event::HandoffTx), 50);
    let taken_over: u64 = nodes[1..]
        .iter_mut()
        .map(|node| counters(node).events.get(Event::HandoffRx))
        .sum();
    assert_eq!(taken_over, 50);
}

#[test]
fn packets_of_one_flow_go_to_one_worker() {
    let mut nodes = nodes(3, &[1, 2]);
    let (from, to) = endpoints()[1];
    for _ in 0..30 {
        nodes[0].peer.inject(&udp_packet(from, to, b"flow"));
    }
    nodes[0].worker.turn();
    let taken_over = |node: &mut Node| {
        node.worker.turn();
        counters(node).events.get(Event::HandoffRx)
    };
    let mut counts = [taken_over(&mut nodes[1]), taken_over(&mut nodes[2])];
    counts.sort_unstable();
    assert_eq!(counts, [0, 30]);
}

#[test]
fn a_full_lane_drops_and_counts() {
    let mut nodes = nodes(2, &[1]);
    let (from, to) = endpoints()[0];
    for _ in 0..2 {
        for _ in 0..60 {
            nodes[0].peer.inject(&udp_packet(from, to, b"x"));
        }
        nodes[0].worker.turn();
    }
    let counters = counters(&mut nodes[0]);
    assert_eq!(counters.events.get(Event::HandoffTx), 64);
    assert_eq!(counters.drops.get(DropReason::HandoffFull), 56);
}

#[test]
fn a_worker_told_to_stop_ends_with_its_counters_and_every_frame_at_home() {
    let Node {
        worker,
        peer,
        commander,
        ..
    } = nodes(1, &[0]).remove(0);
    let (from, to) = endpoints()[0];
    peer.inject(&udp_packet(from, to, b"last"));
    let thread = std::thread::spawn(move || worker.run());
    while peer.collect().is_none() {
        std::thread::yield_now();
    }
    commander.stop();
    let (counters, latency) = thread.join().unwrap();
    assert_eq!(counters.events.get(Event::UdpTx), 1);
    assert_eq!(latency.stage(Stage::Whole).len(), 1);
}

/// A wire that nobody takes packets from holds as many as its lane, and the TX ring fills behind it.
#[test]
fn a_worker_with_a_stuck_wire_ends_all_the_same() {
    let Node {
        worker,
        peer,
        commander,
        ..
    } = nodes(1, &[0]).remove(0);
    let options = MemoryOptions::default();
    let (from, to) = endpoints()[0];
    let wire = options.lane + options.tx_ring;
    let thread = std::thread::spawn(move || worker.run());
    let mut injected = 0;
    // More than wire and ring hold; the rest waits in the stack.
    while injected < wire + 50 {
        injected += usize::from(peer.inject(&udp_packet(from, to, b"stuck")));
    }
    commander.drain();
    commander.stop();
    let begun = std::time::Instant::now();
    let (counters, _) = thread.join().unwrap();
    assert!(begun.elapsed() >= DRAIN / 2, "it gave the wire time");
    assert!(!commander.has_drained());
    let sent = counters.queues[0].tx_packets;
    assert_eq!(sent, wire as u64);
    assert_eq!(
        counters.drops.get(DropReason::TxQueueFull),
        injected as u64 - sent,
        "what did not leave is counted"
    );
}

/// The last packets of one worker are for another, which has had nothing to do for long.
#[test]
fn no_worker_ends_before_the_others_have_handed_over() {
    let mut nodes = nodes(2, &[1]);
    let (from, to) = endpoints()[0];
    let second = nodes.remove(1);
    let first = nodes.remove(0);
    let idle = std::thread::spawn(move || second.worker.run());
    second.commander.drain();
    while !second.commander.has_drained() {
        std::thread::yield_now();
    }
    // What was still in the first one's ring.
    assert!(first.peer.inject(&udp_packet(from, to, b"last")));
    let last = std::thread::spawn(move || first.worker.run());
    first.commander.drain();
    while !first.commander.has_drained() {
        std::thread::yield_now();
    }
    assert!(!idle.is_finished(), "drained, not ended");
    first.commander.stop();
    second.commander.stop();
    let (counters, _) = last.join().unwrap();
    assert_eq!(counters.events.get(Event::HandoffTx), 1);
    let (counters, _) = idle.join().unwrap();
    assert_eq!(counters.events.get(Event::HandoffRx), 1);
    let reply = second.peer.collect().expect("the answer");
    assert_eq!(read_udp(&reply), (to, from, b"last".to_vec()));
}

#[test]
fn unknown_neighbours_are_asked_of_the_control_plane() {
    let mut node = nodes(1, &[0]).remove(0);
    let from = SocketAddr::new("192.0.2.50".parse().unwrap(), 4000);
    node.peer.inject(&udp_packet(
        from,
        SocketAddr::new(OUR_V4.into(), 7777),
        b"x",
    ));
    node.worker.turn();
    match node.commander.next_request() {
        Some(Request::Neighbor(address)) => assert_eq!(address, from.ip()),
        other => panic!("{other:?}"),
    }
}

/// A SYN in a frame from the peer.
fn syn(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let header = Header {
        source_port: from.port(),
        destination_port: to.port(),
        seq: SeqNum::new(1000),
        ack: SeqNum::new(0),
        flags: Flags::SYN,
        window: 1000,
        urgent: 0,
    };
    let mut segment = [0; 60];
    let pseudo = |len| pseudo(from.ip(), to.ip(), protocol::TCP, len);
    let len = segment::emit(&mut segment, 0, &header, &OptionsOut::NONE, 0, pseudo).unwrap();
    ip_packet(from.ip(), to.ip(), protocol::TCP, &segment[..len])
}

fn serve_tcp(node: &mut Node) {
    let options = ListenOptions {
        backlog: 16,
        congestion: CongestionKind::Cubic,
        nodelay: true,
    };
    node.worker
        .bind(&ServiceBind {
            bind: Bind {
                local: "[::]:7777".parse().unwrap(),
                v6only: false,
            },
            service: 0,
            application: Application::Tcp(tcp::Application::Echo, options),
            here: true,
        })
        .unwrap();
}

/// Nobody answers the SYN,ACK: it is sent again after a second, by a worker that would have slept for an
/// hour.
#[test]
fn a_worker_asleep_wakes_for_the_timers_of_connections() {
    let mut node = nodes_asleep_for(Duration::from_secs(3600), 1, &[0]).remove(0);
    serve_tcp(&mut node);
    let (from, to) = endpoints()[0];
    assert!(node.peer.inject(&syn(from, to)));
    let running = std::thread::spawn(move || node.worker.run());
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    let mut syn_acks = 0;
    while syn_acks < 2 {
        assert!(std::time::Instant::now() < deadline, "{syn_acks} came");
        match node.peer.collect() {
            Some(_) => syn_acks += 1,
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    node.commander.stop();
    let (counters, _) = running.join().unwrap();
    assert!(counters.events.get(Event::TcpSynRetransmitted) >= 1);
    // It slept in between.
    assert!(counters.turns.turns < 10_000, "{:?}", counters.turns);
}

/// What nobody knows goes once around: from the first worker to the others, and there it ends.
#[test]
fn segments_that_nobody_knows_go_around_once() {
    let mut nodes = nodes(3, &[0]);
    serve_tcp(&mut nodes[2]);
    for (from, to) in endpoints() {
        // The third one listens; the second and the first pass it on.
        assert!(nodes[1].peer.inject(&syn(from, to)));
        let nobody = SocketAddr::new(to.ip(), 7778);
        assert!(nodes[1].peer.inject(&syn(from, nobody)));
        for _ in 0..2 {
            for index in [1, 2, 0] {
                nodes[index].worker.turn();
            }
        }
        assert!(nodes[2].peer.collect().is_some(), "a SYN,ACK");
    }
    for node in &mut nodes {
        assert_eq!(node.peer.collect(), None);
    }
    let [first, second, third] = [0, 1, 2].map(|index| counters(&mut nodes[index]));
    assert_eq!(second.events.get(Event::HandoffTx), 4);
    assert_eq!(third.events.get(Event::HandoffRx), 4);
    assert_eq!(third.events.get(Event::TcpSynRx), 2);
    assert_eq!(third.events.get(Event::HandoffTx), 2);
    assert_eq!(first.events.get(Event::HandoffRx), 2);
    assert_eq!(first.events.get(Event::HandoffTx), 0);
    assert_eq!(first.drops.get(DropReason::TcpNoSocket), 2);
}
