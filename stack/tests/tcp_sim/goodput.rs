//! Goodput that does not collapse: what a link of this rate, delay and loss carries at least.

use crate::scenario::{PORT, address, congestion};
use crate::talker::{Behaviour, Call, End, Plan, Plans, Talkers};
use stack::counters::Event;
use stack::sim::{HostConfig, Impairment, Neighbors, Network, Reordering, for_each_seed_at_once};
use stack::socket::bind::Bind;
use stack::tcp::listener::ListenOptions;
use stack::time::Duration;
use std::net::SocketAddr;

const BYTES: u64 = 400_000;

/// A megabit to 50 megabits, 1 to 40 ms each way, up to 3 % lost, one in fifty overtaken.
fn one_way(seed: u64) {
    let mut network = Network::new("tcp-goodput", seed, Neighbors::Preset);
    let mut random = network.random();
    let plans = Plans::default();
    let mut add = |name, number| {
        let mut host = HostConfig::new(name, number);
        let tcp = &mut host.stack.tcp;
        (tcp.connections, tcp.connections_new_reno) = (4, 4);
        (tcp.half_open, tcp.time_wait) = (4, 4);
        (tcp.send_chunks, tcp.receive_chunks) = (1024, 2048);
        (tcp.transmissions, tcp.out_of_order) = (2048, 256);
        network.add_host(host, Talkers::new(&plans))
    };
    let (client, server) = (add("client", 1), add("server", 2));
    let host = network.host_mut(server);
    let bind = Bind {
        local: SocketAddr::new("::".parse().expect("an address"), PORT),
        v6only: false,
    };
    let options = ListenOptions {
        backlog: 4,
        congestion: congestion(&mut random),
        nodelay: false,
    };
    let listener = host.stack.tcp_listen(bind, options);
    host.application.listener = Some(listener.expect("a free port"));
    let behaviour = |total, end| Behaviour {
        total,
        write_at_most: 16_000,
        read_at_most: usize::MAX,
        stall: None,
        end,
    };
    let ipv6 = random.below(2) == 0;
    let call = Call {
        at: network.now(),
        local: SocketAddr::new(address(1, ipv6), 0),
        remote: SocketAddr::new(address(2, ipv6), PORT),
        congestion: congestion(&mut random),
        nodelay: false,
        plan: Plan {
            number: 0,
            client: behaviour(BYTES, End::AtOnce),
            server: behaviour(0, End::AfterPeer),
        },
    };
    network.host_mut(client).application.calls.push(call);
    let rate = 1_000_000 * (1 + random.below(50));
    let delay = Duration::from_micros(1000 + random.below(39_000));
    let loss = random.below(31) as f64 / 1000.0;
    let round_trip_s = 2.0 * delay.as_secs_f64();
    // Half of what the path holds, and never less than a few segments.
    let queue = (rate as f64 * round_trip_s / 8.0 / 1500.0 / 2.0).max(16.0);
    let impairment = Impairment {
        loss,
        reordering: (random.below(2) == 0).then(|| Reordering {
            share: 0.02,
            by: delay / 4,
        }),
        rate_bits_per_s: Some(rate),
        delay,
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "small"
        )]
        queue_frames: Some(queue as usize),
        ..Impairment::default()
    };
    network.impair(server, &impairment);
    let done = network.run_until_done(Duration::from_secs(300), |network| {
        [client, server]
            .iter()
            .all(|port| network.host(*port).application.finished == 1)
    });
    assert!(done, "stuck");
    let end = network.host(server).application.last_end;
    let took_s = (end - stack::time::Instant::from_nanos(1_000_000_000)).as_secs_f64();
    // Mathis et al. (1997): MSS / RTT · 1.22 / √p; at least one segment a round trip for each two lost.
    let mathis = 1400.0 * 8.0 / round_trip_s * 1.22 / loss.max(1e-6).sqrt();
    let expected_s = BYTES as f64 * 8.0 / mathis.min(rate as f64);
    // The time of slow start, the handshake and a few timeouts (the first one after a second) come on
    // top: they do not grow with what is sent.
    let limit_s = 5.0 + 3.0 * expected_s;
    assert!(
        took_s <= limit_s,
        "{took_s:.2} s, where {expected_s:.2} s are expected: {rate} bit/s, {delay:?}, loss {loss}"
    );
    // RFC 9293 §3.8.6.3 (SHLD-19): an ACK for at least every second full segment, whatever was lost
    // before. The last may be smaller.
    let events = network.host(server).stack.events();
    let (acks, segments) = (events.get(Event::TcpAckTx), events.get(Event::TcpSegmentRx));
    assert!(
        acks * 2 + 4 >= segments,
        "{acks} ACKs of {segments} segments"
    );
}

#[test]
fn goodput_does_not_collapse() {
    for_each_seed_at_once(600, one_way);
}
