//! The stack, with one dual-stack listener and an application that does the work.

use super::{Server, Work};
use crate::frame::{BenchFrame, BenchPool};
use crate::packet::{OUR_PORT, Peer as Host};
use crate::stack_echo::link;
use stack::link::NeighborUpdate;
use stack::socket::bind::Bind;
use stack::tcp::config::TcpConfig;
use stack::tcp::listener::{CongestionKind, ListenOptions};
use stack::tcp::{TcpId, TcpListenerId};
use stack::time::Instant;
use stack::{Config, Origin, Stack};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Bytes the application has at hand to send.
static SOURCE: [u8; 16 << 10] = [0x55; 16 << 10];

pub(crate) struct StackServer {
    stack: Stack<BenchPool>,
    listener: TcpListenerId,
    work: Work,
}

/// Bytes of the send buffer where throughput is measured: with smoltcp as with us.
pub(crate) const SEND_BUFFER: u32 = 46 * 1448;

/// A stack that listens, and knows so many hosts.
pub(crate) fn listening(tcp: TcpConfig, hosts: u8) -> (Stack<BenchPool>, TcpListenerId) {
    let config = Config {
        tcp,
        ..Config::default()
    };
    let mut stack = Stack::new(config);
    stack.set_link(Box::new(link()), Instant::ZERO);
    let mut pool = BenchPool::new(0, 0);
    for host in (0..hosts).map(Host) {
        let mac = host.mac();
        for address in [IpAddr::V4(host.v4()), IpAddr::V6(host.v6())] {
            stack.set_neighbor(&mut pool, NeighborUpdate::Set { address, mac });
        }
    }
    let bind = Bind {
        local: SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), OUR_PORT),
        v6only: false,
    };
    let options = ListenOptions {
        backlog: 1024,
        congestion: CongestionKind::Cubic,
        nodelay: true,
    };
    let listener = stack.tcp_listen(bind, options).expect("a free port");
    (stack, listener)
}

impl StackServer {
    pub(crate) fn new(work: Work, connections: u32) -> Self {
        let config = TcpConfig {
            connections: connections.max(64),
            send_buffer: SEND_BUFFER,
            ..TcpConfig::default()
        };
        let (stack, listener) = listening(config, 1);
        Self {
            stack,
            listener,
            work,
        }
    }

    /// What the application does with a connection there is news of.
    #[inline]
    fn serve(&mut self, id: TcpId, now: Instant) {
        match self.work {
            Work::Request | Work::Connect => match self.stack.tcp_echo(id, now) {
                Ok(0) if self.stack.tcp_is_at_end(id) => self.stack.tcp_close(id, now),
                // An answer that is not sent is missed by the harness.
                _ => {}
            },
            Work::Receive => {
                let _ = self.stack.tcp_receive_with(id, now, |bytes| bytes.len());
            }
            Work::Send => while let Ok(1..) = self.stack.tcp_send(id, now, &SOURCE) {},
        }
    }
}

impl Server for StackServer {
    #[inline(never)]
    fn turn(
        &mut self,
        pool: &mut BenchPool,
        received: &mut Vec<BenchFrame>,
        sent: &mut Vec<BenchFrame>,
        now: Instant,
        _indexes: &[u32],
    ) {
        for frame in received.drain(..) {
            self.stack.ingest(pool, frame, Origin::Ring, now);
        }
        self.stack.expire(pool, now);
        // The name is asked for again with the first news.
        while self.stack.tcp_accept(self.listener).is_some() {}
        while let Some(id) = self.stack.tcp_next_ready() {
            self.serve(id, now);
        }
        self.stack.tcp_transmit(pool, now);
        self.stack.egress(|frame| {
            sent.push(frame);
            Ok(())
        });
    }
}
