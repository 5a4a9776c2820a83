//! Floods, storms, forgeries, and peers that never answer: what is honest goes on, what is hostile is
//! counted and bounded.

use crate::scenario::{PORT, address};
use crate::talker::{Behaviour, Call, End, Plan, Plans, Talkers};
use stack::counters::{DropReason, Event};
use stack::sim::packet::flag::{ACK, FIN, PSH, RST, SYN};
use stack::sim::script::frame::{Addresses, Segment};
use stack::sim::{Direction, HostConfig, Impairment, Neighbors, Network, Port, Random};
use stack::socket::bind::Bind;
use stack::tcp::config::{SynCookies, TcpConfig};
use stack::tcp::isn::Secret;
use stack::tcp::listener::{CongestionKind, ListenOptions};
use stack::tcp::tuple::Tuple;
use stack::time::{Duration, Instant};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// What a flood or storm may be made of in a millisecond: 50,000 a second, 24 Mbit/s.
const PER_MS: u64 = 50;
const MS: Duration = Duration::from_millis(1);
const LIMIT: Duration = Duration::from_secs(120);

struct Lab {
    network: Network<Talkers>,
    client: Port,
    server: Port,
    attacker: Port,
    random: Random,
}

fn plan(number: u64, up: u64, down: u64) -> Plan {
    let behaviour = |total, end| Behaviour {
        total,
        write_at_most: 4000,
        read_at_most: usize::MAX,
        stall: None,
        end,
    };
    Plan {
        number,
        client: behaviour(up, End::AtOnce),
        server: behaviour(down, End::AfterPeer),
    }
}

impl Lab {
    /// A client whose link carries 20 Mbit/s, a server whose link carries 100, and somebody else.
    fn new(seed: u64, tcp: &TcpConfig) -> Self {
        let mut network = Network::new("tcp-hostile", seed, Neighbors::Preset);
        let random = network.random();
        let plans = Plans::default();
        let mut add = |name, number| {
            let mut host = HostConfig::new(name, number);
            host.stack.tcp = tcp.clone();
            network.add_host(host, Talkers::new(&plans))
        };
        let (client, server) = (add("client", 1), add("server", 2));
        let attacker = network.add_tap("attacker", [2, 0, 0, 0, 0, 3], Vec::new());
        let link = |rate| Impairment::bottleneck(rate, Duration::from_millis(2), 100_000);
        network.impair(client, &link(20_000_000));
        network.impair(server, &link(100_000_000));
        let host = network.host_mut(server);
        let bind = Bind {
            local: SocketAddr::new("::".parse().expect("an address"), PORT),
            v6only: false,
        };
        let options = ListenOptions {
            backlog: 64,
            congestion: CongestionKind::Cubic,
            nodelay: false,
        };
        let listener = host.stack.tcp_listen(bind, options);
        host.application.listener = Some(listener.expect("a free port"));
        Self {
            network,
            client,
            server,
            attacker,
            random,
        }
    }

    fn call(&mut self, after: Duration, local_port: u16, plan: Plan) {
        let at = self.network.now() + after;
        let call = Call {
            at,
            local: SocketAddr::new(address(1, false), local_port),
            remote: SocketAddr::new(address(2, false), PORT),
            congestion: CongestionKind::Cubic,
            nodelay: false,
            plan,
        };
        let host = self.network.host_mut(self.client);
        host.application.calls.push(call);
    }

    /// A segment for the server in the name of `from`.
    fn forge(&mut self, from: SocketAddr, segment: Segment) {
        let addresses = Addresses {
            source_mac: [2, 0, 0, 0, 0, 3],
            destination_mac: [2, 0, 0, 0, 0, 2],
            source: from.ip(),
            destination: address(2, false),
        };
        let segment = Segment {
            source_port: from.port(),
            destination_port: PORT,
            window: 0xffff,
            ..segment
        };
        let frame = segment.frame(&addresses).expect("a segment");
        self.network.send(self.attacker, frame);
    }

    fn number(&mut self) -> u32 {
        u32::try_from(self.random.below(1 << 32)).expect("32 bits")
    }

    /// Attacks until both sides have finished so many conversations. Returns how long that took, and how many
    /// segments were sent.
    fn until_finished(
        &mut self,
        count: usize,
        mut attack: impl FnMut(&mut Self),
    ) -> (Duration, u64) {
        let start = self.network.now();
        let mut sent = 0;
        let end = loop {
            let ends = [self.client, self.server].map(|port| {
                let application = &self.network.host(port).application;
                (application.finished, application.last_end)
            });
            if ends.iter().all(|(finished, _)| *finished == count) {
                break ends[0].1.max(ends[1].1);
            }
            assert!(self.network.now() - start < LIMIT, "stuck: {ends:?}");
            for _ in 0..PER_MS {
                attack(self);
                sent += 1;
            }
            self.network.run_for(MS);
        };
        (end - start, sent)
    }

    fn count(&self, event: Event) -> u64 {
        self.network.host(self.server).stack.events().get(event)
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.network.host(self.server).stack.drops().get(reason)
    }
}

fn config(syn_cookies: SynCookies) -> TcpConfig {
    TcpConfig {
        connections: 64,
        connections_new_reno: 0,
        half_open: 128,
        time_wait: 64,
        send_chunks: 512,
        receive_chunks: 512,
        transmissions: 1024,
        out_of_order: 256,
        syn_cookies,
        ..TcpConfig::default()
    }
}

/// RFC 4987: a flood of SYNs from everywhere. The connection that is there keeps at least 90 % of
/// its throughput, and every new honest one gets in.
#[test]
fn a_syn_flood_costs_the_honest_little() {
    const BYTES: u64 = 2_000_000;
    for cookies in [SynCookies::WhenFull, SynCookies::Always] {
        let measure = |flood: bool| {
            let mut lab = Lab::new(1, &config(cookies));
            lab.call(Duration::ZERO, 0, plan(0, BYTES, 1000));
            for number in 1..=10 {
                let after = Duration::from_millis(50 * number);
                lab.call(after, 0, plan(number, 500, 2000));
            }
            let (took, sent) = lab.until_finished(11, |lab| {
                if flood {
                    let host = lab.number();
                    let from = Ipv4Addr::new(192, 0, 2, 10 + host.to_le_bytes()[0] % 200);
                    let port = 1024 + u16::try_from(lab.random.below(60_000)).expect("16 bits");
                    let seq = lab.number();
                    let syn = Segment {
                        flags: SYN,
                        seq,
                        options: vec![2, 4, 5, 0xb4],
                        ..Segment::default()
                    };
                    lab.forge(SocketAddr::new(from.into(), port), syn);
                }
            });
            let census = lab.network.host(lab.server).stack.tcp_census();
            assert!(census[1] <= 128, "{census:?}");
            if flood {
                // Each SYN costs one answer at most, and is counted.
                let server = lab.network.host(lab.server).stack.events().clone();
                assert!(sent > 10_000);
                assert!(server.get(Event::FrameTx) <= server.get(Event::FrameRx) + 2000);
                let seen = lab.count(Event::TcpSynRx) + lab.count(Event::TcpSynCookieTx);
                assert!(seen >= sent * 9 / 10, "{seen} of {sent}");
            }
            took
        };
        let (calm, flooded) = (measure(false), measure(true));
        assert!(
            flooded.as_secs_f64() * 0.9 <= calm.as_secs_f64(),
            "{cookies:?}: {calm:?} without, {flooded:?} with"
        );
    }
}

/// RFC 5961: somebody who knows the addresses and ports, but not the numbers, can neither end a
/// connection nor put anything into it, and is answered rarely.
#[test]
fn blind_injections_do_nothing() {
    let mut lab = Lab::new(2, &config(SynCookies::WhenFull));
    lab.call(Duration::ZERO, 40_000, plan(0, 3_000_000, 100_000));
    let from = SocketAddr::new(address(1, false), 40_000);
    // Whoever forges the SYN of a connection that is not there yet opens one, and the true client ends
    // it by a RST: that is how it should be.
    lab.network.run_for(50 * MS);
    let mut kind = 0;
    let (took, sent) = lab.until_finished(1, |lab| {
        kind += 1;
        let flags = [RST, RST | ACK, SYN, SYN | ACK, FIN | ACK, ACK, ACK | PSH][kind % 7];
        let (seq, ack) = (lab.number(), lab.number());
        let forged = Segment {
            flags,
            seq,
            ack,
            payload: vec![0xee; if flags & PSH == 0 { 0 } else { 100 }],
            ..Segment::default()
        };
        lab.forge(from, forged);
    });
    assert!(sent > 20_000, "{sent}");
    assert_eq!(lab.count(Event::TcpResetRx), 0);
    // Two a second for one connection, and what happened to be in the window.
    let answers = lab.count(Event::TcpChallengeAckTx);
    assert!(answers <= 4 + 3 * took.as_secs(), "{answers} in {took:?}");
    assert!(lab.dropped(DropReason::TcpResetOutOfWindow) > sent / 7);
}

/// Segments of no connection: each is counted, and answered by a RST at most, in frames that are no
/// longer than its own.
#[test]
fn storms_are_answered_by_no_more_than_they_are() {
    for flags in [ACK, RST, FIN, FIN | ACK, SYN | ACK, RST | ACK] {
        let mut lab = Lab::new(3, &config(SynCookies::WhenFull));
        lab.call(Duration::ZERO, 0, plan(0, 1_000_000, 1000));
        let (_, sent) = lab.until_finished(1, |lab| {
            let port = 1024 + u16::try_from(lab.random.below(60_000)).expect("16 bits");
            let from = IpAddr::from(Ipv4Addr::new(192, 0, 2, 77));
            let (seq, ack) = (lab.number(), lab.number());
            let segment = Segment {
                flags,
                seq,
                ack,
                ..Segment::default()
            };
            lab.forge(SocketAddr::new(from, port), segment);
        });
        // Those on their way when the last byte was read are not counted yet.
        let drops = lab.network.host(lab.server).stack.drops();
        let unknown: u64 = drops.iter().map(|(_, count)| count).sum();
        assert!(
            sent > 5000 && unknown >= sent - 20 * PER_MS,
            "{unknown} of {sent}"
        );
        let resets = lab.count(Event::TcpResetTx);
        // RFC 9293 §3.10.7.2: a listener resets what acknowledges something, and nothing else.
        if flags & (RST | ACK) == ACK {
            assert!(resets <= unknown && resets > 0, "{resets} of {unknown}");
        } else {
            assert_eq!(resets, 0);
        }
        // The last FIN was under way.
        lab.network.run_for(100 * MS);
        let memory = lab.network.host(lab.server).stack.tcp_memory();
        assert_eq!(memory.used(), 0, "{memory:?}");
    }
}

/// Both directions pass 2³² in the middle of their data.
#[test]
fn sequence_numbers_wrap() {
    const PORT_OF_CLIENT: u16 = 40_000;
    let (IpAddr::V4(client), IpAddr::V4(server)) = (address(1, false), address(2, false)) else {
        unreachable!("IPv4 was asked for")
    };
    // Initial sequence numbers are what nobody can foretell, but whoever knows the secret.
    let before_wrap = |tuple: Tuple<Ipv4Addr>| {
        let near = |secret: &u64| {
            let start = Secret::new([*secret, 7]).start(&tuple, Instant::from_nanos(1_010_000_000));
            start.isn.get() > u32::MAX - 100_000
        };
        let secret = (0..10_000_000).find(near).expect("one of 43,000");
        [secret, 7]
    };
    let ours = Tuple {
        local: client,
        remote: server,
        local_port: PORT_OF_CLIENT,
        remote_port: PORT,
    };
    let theirs = Tuple {
        local: server,
        remote: client,
        local_port: PORT,
        remote_port: PORT_OF_CLIENT,
    };
    for (secret, up, down) in [
        (before_wrap(ours), 400_000, 1000),
        (before_wrap(theirs), 1000, 400_000),
    ] {
        let tcp = TcpConfig {
            secret,
            ..config(SynCookies::Never)
        };
        let mut lab = Lab::new(4, &tcp);
        lab.network.on_frame({
            let mut highest = 0;
            move |sighting| {
                let Ok(Some((_, tcp))) = stack::sim::packet::tcp(sighting.frame) else {
                    return Ok(());
                };
                if tcp.payload.len() > 1000 && sighting.direction == Direction::Outward {
                    highest = highest.max(tcp.seq);
                    if tcp.flags & FIN != 0 && highest < u32::MAX - 2000 {
                        return Err("it never came near".into());
                    }
                }
                Ok(())
            }
        });
        lab.network
            .impairment_mut(lab.server, Direction::Inward)
            .loss = 0.02;
        lab.network
            .impairment_mut(lab.server, Direction::Outward)
            .loss = 0.02;
        lab.call(Duration::ZERO, PORT_OF_CLIENT, plan(0, up, down));
        let (both, limit) = ([lab.client, lab.server], LIMIT);
        let done = lab.network.run_until_done(limit, |network| {
            both.iter()
                .all(|port| network.host(*port).application.finished == 1)
        });
        assert!(done, "stuck");
    }
}

/// A peer that is gone, in every way: whoever waits for it gives up in the time that the
/// configuration says, and gives everything back.
#[test]
fn peers_that_never_answer_are_given_up() {
    let tcp = TcpConfig {
        user_timeout: Duration::from_secs(60),
        fin_wait_2: Duration::from_secs(30),
        ..config(SynCookies::WhenFull)
    };
    // What is under way when the cable is cut: data, and so much that the window is full; nothing
    // but a FIN; nothing at all.
    for (seed, up, after) in [(5, 10_000_000, 300), (6, 100, 7), (7, 20_000, 20)] {
        let mut lab = Lab::new(seed, &tcp);
        lab.call(Duration::ZERO, 0, plan(0, up, 10_000_000));
        lab.network.run_for(Duration::from_millis(after));
        for direction in [Direction::Inward, Direction::Outward] {
            lab.network.impairment_mut(lab.server, direction).is_cut = true;
        }
        let client = lab.client;
        let host = lab.network.host_mut(client);
        // It lets go of whatever it has.
        let ids: Vec<_> = host
            .application
            .talkers
            .drain(..)
            .map(|it| it.id())
            .collect();
        assert_eq!(ids.len(), 1);
        for id in ids {
            host.stack.tcp_close(id, Instant::from_nanos(2_000_000_000));
        }
        let over = lab
            .network
            .run_until_done(Duration::from_secs(200), |network| {
                network.host(client).stack.tcp_census() == [0; 3]
            });
        let stack = &lab.network.host(client).stack;
        assert!(over, "left: {:?}", stack.tcp_census());
        assert_eq!(stack.tcp_memory().used(), 0);
        assert_eq!(stack.tcp_next_deadline(), None);
    }
}

/// A peer that acknowledges but never reads: what it is owed waits, bounded, and is asked for ever
/// more rarely; the others are served.
#[test]
fn a_peer_that_never_reads_holds_what_its_buffers_hold() {
    let tcp = TcpConfig {
        // More than one connection may hold.
        send_chunks: 1024,
        ..config(SynCookies::WhenFull)
    };
    let mut lab = Lab::new(8, &tcp);
    let mut stalled = plan(0, 10_000_000, 0);
    stalled.server.stall = Some((1000, Duration::from_secs(100_000)));
    lab.call(Duration::ZERO, 0, stalled);
    lab.network.run_for(Duration::from_secs(600));
    let memory = lab.network.host(lab.client).stack.tcp_memory();
    let bytes = u64::from(memory.send_chunks) * 2048;
    // A chunk more for each that is partly full at either end, and some for small writes.
    assert!(bytes <= (1 << 20) + (1 << 15), "{memory:?}");
    let probes = lab.network.host(lab.client).stack.events();
    let probes = probes.get(Event::TcpWindowProbeTx);
    assert!((5..40).contains(&probes), "{probes} in ten minutes");
    // And somebody else is served meanwhile.
    lab.call(Duration::ZERO, 0, plan(1, 200_000, 200_000));
    lab.network.run_for(Duration::from_secs(5));
    assert_eq!(lab.network.host(lab.client).application.finished, 1);
}
