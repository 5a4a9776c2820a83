//! smoltcp with a socket for each connection, Nagle's algorithm off and timestamps on, as the stack has
//! them. Its congestion control is compiled out, as by default.

use super::stack_server::SEND_BUFFER;
use super::{Server, Work};
use crate::frame::{BenchFrame, BenchPool};
use crate::packet::OUR_PORT;
use crate::smoltcp_echo::{Rings, interface, smoltcp_time};
use smoltcp::iface::{Interface, PollIngressSingleResult, PollResult, SocketHandle, SocketSet};
use smoltcp::socket::{Socket, tcp};
use stack::frame::FramePool as _;
use stack::time::Instant;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// What its timestamps show: milliseconds, as the stack's.
static CLOCK: AtomicU32 = AtomicU32::new(0);
/// Bytes the application has at hand to send.
static SOURCE: [u8; 16 << 10] = [0x55; 16 << 10];

pub(crate) struct SmoltcpServer {
    interface: Interface,
    /// All connections.
    sockets: SocketSet<'static>,
    handles: Vec<SocketHandle>,
    /// The one that is being opened: by itself, because each would have to look at all others.
    opening: Option<SocketSet<'static>>,
    read: Vec<BenchFrame>,
    work: Work,
}

fn socket(work: Work) -> tcp::Socket<'static> {
    let (receive, send) = match work {
        Work::Request | Work::Connect => (2048, 2048),
        Work::Receive | Work::Send => (1 << 16, SEND_BUFFER as usize),
    };
    let mut socket = tcp::Socket::new(
        tcp::SocketBuffer::new(vec![0; receive]),
        tcp::SocketBuffer::new(vec![0; send]),
    );
    socket.set_nagle_enabled(false);
    socket.set_tsval_generator(Some(|| CLOCK.load(Relaxed)));
    socket.listen(OUR_PORT).expect("a fresh socket");
    socket
}

impl SmoltcpServer {
    pub(crate) fn new(work: Work, connections: u32) -> Self {
        let mut sockets = SocketSet::new(vec![]);
        let mut handles = Vec::new();
        if work == Work::Connect {
            // Each listens until somebody comes, and listens again once it is closed.
            handles.extend((0..connections).map(|_| sockets.add(socket(work))));
        }
        Self {
            interface: interface(),
            sockets,
            handles,
            opening: None,
            read: Vec::with_capacity(256),
            work,
        }
    }

    /// What the application does with a connection.
    #[inline]
    fn serve(work: Work, socket: &mut tcp::Socket<'_>) {
        match work {
            Work::Request | Work::Connect => {
                if socket.can_recv() {
                    let mut bytes = [0; 1500];
                    if let Ok(len) = socket.recv_slice(&mut bytes) {
                        // An answer that is not sent is missed by the harness.
                        let _ = socket.send_slice(&bytes[..len]);
                    }
                }
                if work == Work::Connect {
                    if !socket.is_open() {
                        socket.listen(OUR_PORT).expect("a closed socket");
                    } else if socket.may_send() && !socket.may_recv() {
                        socket.close();
                    }
                }
            }
            Work::Receive => while let Ok(1..) = socket.recv(|bytes| (bytes.len(), bytes.len())) {},
            Work::Send => while let Ok(1..) = socket.send_slice(&SOURCE) {},
        }
    }
}

impl Server for SmoltcpServer {
    fn before_opening(&mut self, _index: u32) {
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        sockets.add(socket(self.work));
        self.opening = Some(sockets);
    }

    fn after_opening(&mut self, index: u32) {
        let mut sockets = self.opening.take().expect("it was opened");
        let handle = sockets.iter().next().expect("the one").0;
        let Socket::Tcp(socket) = sockets.remove(handle) else {
            unreachable!("there is no other");
        };
        assert_eq!(index as usize, self.handles.len());
        assert_eq!(socket.state(), tcp::State::Established);
        self.handles.push(self.sockets.add(socket));
    }

    #[inline(never)]
    #[expect(clippy::cast_possible_truncation, reason = "the clock wraps around")]
    fn turn(
        &mut self,
        pool: &mut BenchPool,
        received: &mut Vec<BenchFrame>,
        sent: &mut Vec<BenchFrame>,
        now: Instant,
        indexes: &[u32],
    ) {
        let Self {
            interface,
            sockets,
            handles,
            opening,
            read,
            work,
        } = self;
        let sockets = opening.as_mut().unwrap_or(sockets);
        CLOCK.store((now.as_nanos() / 1_000_000) as u32, Relaxed);
        let now = smoltcp_time(now);
        let mut rings = Rings {
            pool,
            received: received.drain(..),
            read,
            sent,
        };
        interface.poll_maintenance(now);
        while interface.poll_ingress_single(now, &mut rings, sockets)
            != PollIngressSingleResult::None
        {}
        // It need not look for those that something came for: it is told.
        for index in indexes {
            if let Some(handle) = handles.get(*index as usize) {
                Self::serve(*work, sockets.get_mut(*handle));
            }
        }
        while interface.poll_egress(now, &mut rings, sockets) != PollResult::None {}
        drop(rings);
        for frame in read.drain(..) {
            pool.give(frame);
        }
    }
}
