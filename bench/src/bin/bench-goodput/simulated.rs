//! The stack on both sides of a simulated link.

use std::net::SocketAddr;
use std::time::Duration;

use stack::Stack;
use stack::heap::HeapPool;
use stack::sim::host::v4;
use stack::sim::{
    Application, Direction, HostConfig, Impairment, Neighbors, Network, Port, Reordering,
};
use stack::socket::bind::Bind;
use stack::tcp::listener::{CongestionKind, ListenOptions};
use stack::tcp::{TcpId, TcpListenerId};
use stack::time::Instant;

use crate::{ANSWER_BYTES, DELAY, QUEUE_FRAMES, RATE_BITS_PER_S, Trouble};

const PORT: u16 = 7;
/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// One side: who connects reads, who listens writes.
enum Side {
    /// Reads, and remembers when how much was there.
    Reader {
        connection: Option<TcpId>,
        read: u64,
        last: Instant,
    },
    /// Writes so many bytes to whoever comes.
    Writer {
        listener: Option<TcpListenerId>,
        connection: Option<TcpId>,
        left: u64,
    },
}

impl Application for Side {
    fn poll(
        &mut self,
        stack: &mut Stack<HeapPool>,
        _: &mut HeapPool,
        now: Instant,
    ) -> Option<Instant> {
        while stack.tcp_next_ready().is_some() {}
        match self {
            Side::Reader {
                connection,
                read,
                last,
            } => {
                let id = *connection.get_or_insert_with(|| {
                    let (local, remote) = (SocketAddr::new(v4(1), 0), SocketAddr::new(v4(2), PORT));
                    let cubic = CongestionKind::Cubic;
                    stack
                        .tcp_connect(local, remote, cubic, false, now)
                        .expect("invariant: an empty stack has room")
                });
                let taken = stack.tcp_receive_with(id, now, |bytes| bytes.len());
                if let Ok(taken @ 1..) = taken {
                    *read += taken as u64;
                    *last = now;
                }
            }
            Side::Writer {
                listener,
                connection,
                left,
            } => {
                if connection.is_none() {
                    *connection = listener.and_then(|listener| stack.tcp_accept(listener));
                }
                let block = [0x5a; 16 << 10];
                while let Some(id) = *connection
                    && *left > 0
                {
                    let len = block
                        .len()
                        .min(usize::try_from(*left).unwrap_or(usize::MAX));
                    match stack.tcp_send(id, now, &block[..len]) {
                        Ok(sent) => *left -= sent as u64,
                        Err(_) => break,
                    }
                }
            }
        }
        None
    }
}

fn network(seed: u64, bytes: u64) -> (Network<Side>, Port, Port) {
    let mut network = Network::new("goodput", seed, Neighbors::Preset);
    let mut reader = HostConfig::new("reader", 1);
    let mut writer = HostConfig::new("writer", 2);
    for host in [&mut reader, &mut writer] {
        host.stack.tcp.connections = 16;
        host.stack.tcp.connections_new_reno = 0;
        host.stack.tcp.half_open = 16;
        host.stack.tcp.time_wait = 16;
    }
    let reader = network.add_host(
        reader,
        Side::Reader {
            connection: None,
            read: 0,
            last: Instant::ZERO,
        },
    );
    let writer = network.add_host(
        writer,
        Side::Writer {
            listener: None,
            connection: None,
            left: bytes,
        },
    );
    let host = network.host_mut(writer);
    let bind = Bind {
        local: SocketAddr::new(v4(2), PORT),
        v6only: false,
    };
    let options = ListenOptions {
        backlog: 4,
        congestion: CongestionKind::Cubic,
        nodelay: false,
    };
    let listening = host.stack.tcp_listen(bind, options);
    if let Side::Writer { listener, .. } = &mut host.application {
        *listener = listening.ok();
    }
    (network, reader, writer)
}

fn wire(trouble: &Trouble) -> Impairment {
    Impairment {
        loss: trouble.loss,
        reordering: trouble.reorder.map(|(share, by)| Reordering { share, by }),
        rate_bits_per_s: Some(RATE_BITS_PER_S),
        delay: DELAY,
        queue_frames: Some(QUEUE_FRAMES),
        ..Impairment::default()
    }
}

/// Mbit/s that an application reads in the first `time` of a connection.
pub(crate) fn goodput(trouble: &Trouble, seed: u64, time: Duration) -> f64 {
    let (mut network, reader, writer) = network(seed, u64::MAX);
    network.impair(writer, &wire(trouble));
    network.run_for(time);
    let Side::Reader { read, .. } = network.host(reader).application else {
        return 0.0;
    };
    read as f64 * 8.0 / time.as_secs_f64() / 1e6
}

/// From the SYN to the last byte of a short answer, in milliseconds.
pub(crate) fn answer_ms(drop_last: bool, seed: u64) -> f64 {
    let bytes = ANSWER_BYTES as u64;
    let (mut network, reader, writer) = network(seed, bytes);
    let trouble = Trouble {
        name: "",
        loss: 0.0,
        reorder: None,
    };
    network.impair(writer, &wire(&trouble));
    if drop_last {
        let full = ANSWER_BYTES / 1448;
        // Its tenth long frame is the last.
        network.drop_frames(writer, Direction::Outward, full as u64 - 1, 1, |frame| {
            frame.len() > 1000
        });
    }
    let start = network.now();
    let done = network.run_until_done(PATIENCE, |network| {
        matches!(network.host(reader).application, Side::Reader { read, .. } if read == bytes)
    });
    match network.host(reader).application {
        Side::Reader { last, .. } if done => (last - start).as_secs_f64() * 1e3,
        _ => f64::INFINITY,
    }
}
