//! What an idle connection takes, of memory that was asked for and of memory that was touched, in a
//! process with very many of them.

use super::peer::{CONNECTIONS_MAX, Kind, Peer};
use super::stack_server::listening;
use crate::frame::{BenchFrame, BenchPool};
use crate::packet::{Peer as Host, Version};
use crate::{BATCH, FRAME_BYTES, TURN, allocator};
use stack::frame::FramePool as _;
use stack::tcp::TcpListenerId;
use stack::tcp::config::TcpConfig;
use stack::time::Instant;
use stack::{Origin, Stack};

/// Memory of the process that is resident, in bytes.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}

/// Limits with room for so many connections of each version, and little else: the buffers' pool, which
/// is apart from connections, is as small as answers need it.
fn config(connections: u32) -> TcpConfig {
    TcpConfig {
        connections,
        connections_new_reno: 1,
        half_open: 1024,
        time_wait: 1,
        send_chunks: 256,
        receive_chunks: 256,
        transmissions: 256,
        out_of_order: 16,
        ..TcpConfig::default()
    }
}

struct Memory {
    stack: Stack<BenchPool>,
    listener: TcpListenerId,
    pool: BenchPool,
    sent: Vec<BenchFrame>,
    now: Instant,
}

impl Memory {
    fn turn(&mut self, received: Vec<BenchFrame>, echo: bool) {
        let Self {
            stack,
            listener,
            pool,
            sent,
            now,
        } = self;
        *now = *now + TURN;
        for frame in received {
            stack.ingest(pool, frame, Origin::Ring, *now);
        }
        stack.expire(pool, *now);
        while stack.tcp_accept(*listener).is_some() {}
        while let Some(id) = stack.tcp_next_ready() {
            if echo {
                stack.tcp_echo(id, *now).expect("an open connection");
            }
        }
        stack.tcp_transmit(pool, *now);
        stack.egress(|frame| {
            sent.push(frame);
            Ok(())
        });
    }

    /// Segments of one kind from connections of a host, and what comes back for each of them.
    fn exchange(&mut self, peer: &mut Peer, kind: Kind, indexes: &[u32]) {
        let (now, pool) = (self.now, &mut self.pool);
        let received = indexes.iter().map(|&index| match kind {
            Kind::Syn => peer.syn(index, now, pool),
            _ => peer.segment(kind, index, now, pool),
        });
        let received = received.collect();
        self.turn(received, true);
        let now = self.now;
        for frame in self.sent.drain(..) {
            let index = peer.index_of(&frame);
            match kind {
                Kind::Syn => peer.take_syn_ack(index, now, &frame),
                _ => {
                    let len = u32::try_from(super::REQUEST_BYTES).expect("few");
                    peer.expect(index, len, now);
                    peer.check(index, &frame, super::REQUEST_BYTES);
                }
            }
            self.pool.give(frame);
        }
    }
}

/// Opens so many connections, sends a request on each, has its answer acknowledged, and says what that
/// took. With both versions, each has half of the connections.
pub(crate) fn main(versions: &str, connections: u32) -> Option<()> {
    let versions: &[Version] = match versions {
        "ipv4" => &[Version::V4],
        "ipv6" => &[Version::V6],
        "both" => &[Version::V4, Version::V6],
        _ => return None,
    };
    let hosts = u8::try_from(connections.div_ceil(CONNECTIONS_MAX))
        .ok()
        .filter(|hosts| (1..=100).contains(hosts))?;
    let of_each = connections / u32::try_from(versions.len()).ok()?;

    let without = {
        let before = allocator::allocated();
        let stack = listening(config(1), hosts);
        let taken = allocator::allocated() - before;
        drop(stack);
        taken
    };
    let (allocated_before, resident_before) = (allocator::allocated(), resident()?);
    let (stack, listener) = listening(config(of_each), hosts);
    let allocated = allocator::allocated() - allocated_before;
    let empty = resident()?;
    let mut memory = Memory {
        stack,
        listener,
        pool: BenchPool::new(4 * BATCH, FRAME_BYTES),
        sent: Vec::with_capacity(4 * BATCH),
        now: Instant::from_nanos(1_000_000_000),
    };
    for &version in versions {
        for host in 0..hosts {
            let before = u32::from(host) * CONNECTIONS_MAX;
            let count = of_each.saturating_sub(before).min(CONNECTIONS_MAX);
            let mut peer = Peer::new(version, Host(host), count, super::REQUEST_BYTES);
            let all: Vec<u32> = (0..count).collect();
            for indexes in all.chunks(BATCH) {
                for kind in [Kind::Syn, Kind::Ack, Kind::Data, Kind::Ack] {
                    memory.exchange(&mut peer, kind, indexes);
                }
            }
        }
    }
    let [open, half_open, time_wait] = memory.stack.tcp_census();
    assert_eq!(
        [open, half_open, time_wait],
        [(of_each as usize) * versions.len(), 0, 0]
    );
    assert_eq!(
        memory.stack.tcp_memory().used(),
        0,
        "idle connections hold no buffers"
    );
    let touched = resident()? - resident_before;
    let open = open as u64;
    println!("connections                {open}");
    println!(
        "allocated, bytes each      {}",
        (allocated - without) / open
    );
    println!("resident, bytes each       {}", touched / open);
    if versions.len() == 1 {
        // Each version has a table of its own, and both have room for as many connections. Empty, index
        // and timers are what of a table was touched, and they are as large in both.
        let other = (empty - resident_before).saturating_sub(without) / 2 / open;
        println!("of that for the other      {other}");
    }
    println!("resident when empty, bytes {}", empty - resident_before);
    println!("allocated besides, bytes   {without}");
    Some(())
}
