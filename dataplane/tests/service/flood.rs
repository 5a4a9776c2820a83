//! A flood of SYNs whose senders do not exist (RFC 4987), beside peers that do.

use crate::driver_support::PacketSocket;
use crate::stack_support::{ip_packet, pseudo};
use crate::support::lab::{DEVICE, Lab, PEER, lab};
use crate::support::{PATIENCE, until};
use stack::tcp::options::{OptionsOut, Timestamps};
use stack::tcp::segment::{Flags, Header, emit};
use stack::tcp::seq::SeqNum;
use stack::wire::protocol;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long the flood lasts.
const FLOOD: Duration = Duration::from_secs(3);
/// SYNs at once, and the pause behind them: 32,000 a second at most, as many as a small machine has time
/// for beside the service and its honest peers.
const BURST: usize = 32;
const PAUSE: Duration = Duration::from_millis(1);
/// Honest connections that are opened meanwhile.
const HONEST: u64 = 20;

/// A SYN as Linux sends it, from an address of the range for benchmarks (RFC 2544), another one for each
/// `number`.
fn syn(lab: &Lab, to: SocketAddr, number: u32) -> Vec<u8> {
    let mixed = number.wrapping_mul(0x9e37_79b1);
    let from = Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(198, 18, 0, 0)) | (mixed & 0x1_ffff));
    let header = Header {
        source_port: 1024 + (mixed >> 17) as u16,
        destination_port: to.port(),
        seq: SeqNum::new(mixed),
        ack: SeqNum::new(0),
        flags: Flags::SYN,
        window: 64_240,
        urgent: 0,
    };
    let options = OptionsOut {
        mss: Some(1460),
        window_scale: Some(7),
        sack_permitted: true,
        timestamps: Some(Timestamps {
            value: number,
            echo: 0,
        }),
        ..OptionsOut::NONE
    };
    let mut segment = [0; 60];
    let source = IpAddr::V4(from);
    let pseudo = |len| pseudo(source, to.ip(), protocol::TCP, len);
    let len = emit(&mut segment, 0, &header, &options, 0, pseudo).expect("room");
    let mut frame = ip_packet(source, to.ip(), protocol::TCP, &segment[..len]);
    frame[..6].copy_from_slice(&lab.mac_bytes(DEVICE));
    frame
}

fn open(lab: &Lab, to: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = lab.peer.run(|| TcpStream::connect_timeout(&to, PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[track_caller]
fn echoes(stream: &mut TcpStream, number: u64) {
    stream
        .write_all(&number.to_be_bytes())
        .expect("it is taken");
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).expect("it comes back");
    assert_eq!(answer, number.to_be_bytes());
}

#[test]
fn a_flood_of_syns_disturbs_nobody() {
    let lab = lab!("a_flood_of_syns_disturbs_nobody", queues: 1);
    // What goes to those addresses goes to the peer, which routes nothing.
    lab.server.ip("route add default via 10.77.0.2");
    let service = lab.start(
        "\n[limits]\ntcp_half_open = 64\n[[service]]\nname = \"echo\"\napplication = \"echo\"\n\
         protocol = \"tcp\"\nlisten = [\"[::]:7\"]\nbacklog = 128\n",
    );
    let to = SocketAddr::from(([10, 77, 0, 1], 7));
    let mut established = open(&lab, to).expect("nobody is in the way yet");
    let rate = |stream: &mut TcpStream, end: &dyn Fn() -> bool| {
        let (begun, mut count) = (Instant::now(), 0);
        while !end() {
            echoes(stream, count);
            count += 1;
        }
        count as f64 / begun.elapsed().as_secs_f64()
    };
    let begun = Instant::now();
    let before = rate(&mut established, &|| {
        begun.elapsed() >= Duration::from_secs(1)
    });
    let socket = lab.peer.run(|| PacketSocket::open(PEER));
    let syns: Vec<_> = (0..4096).map(|number| syn(&lab, to, number)).collect();
    let (over, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let during = std::thread::scope(|scope| {
        scope.spawn(|| {
            let begun = Instant::now();
            let mut next = syns.iter().cycle();
            while begun.elapsed() < FLOOD {
                for syn in next.by_ref().take(BURST) {
                    socket.send(syn);
                }
                sent.fetch_add(BURST as u64, Ordering::Relaxed);
                std::thread::sleep(PAUSE);
            }
            over.store(true, Ordering::Relaxed);
        });
        let honest = scope.spawn(|| {
            until("the table of half-open connections is full", || {
                service.counter("event", "tcp_syn_cookie_tx") > 0
            });
            for number in 0..HONEST {
                let mut stream = open(&lab, to).expect("an honest connection");
                echoes(&mut stream, number);
            }
        });
        let during = rate(&mut established, &|| over.load(Ordering::Relaxed));
        honest.join().expect("honest connections get in");
        during
    });
    // Rates are for people: they say how much of one core the flood's own packets took.
    let sent = sent.into_inner();
    println!("{before:.0} echoes a second before, {during:.0} during {sent} SYNs in {FLOOD:?}");
    echoes(&mut established, 1);
    let event = |name| service.counter("event", name);
    assert_eq!(event("tcp_established"), 1 + HONEST);
    let (remembered, cookies) = (event("tcp_syn_rx"), event("tcp_syn_cookie_tx"));
    assert!(
        cookies > sent / 2,
        "{cookies} cookies, {remembered} remembered, {sent} sent"
    );
    assert!(service.counter("tcp", "tcp_half_open") <= 64);
    assert_eq!(service.counter("drop", "tcp_backlog_full"), 0);
    service.stop();
}
