//! The stack with one dual-stack socket, and an application that answers as the service's `echo`
//! does.

use super::packet::{OUR_MAC, OUR_V4, OUR_V6, Peer};
use super::{BATCH, Subject};
use crate::frame::{BenchFrame, BenchPool};
use stack::counters::DropReason;
use stack::ip::route::{Route, RouteTable};
use stack::link::{AddressOwner, LinkState, LocalAddress, NeighborUpdate};
use stack::socket::bind::Bind;
use stack::time::Instant;
use stack::udp::UdpSocketId;
use stack::{Config, Origin, Stack};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A stack, its sockets and the application on them. With `REWRITE`, the application writes to the
/// payload, so that its checksum has to be made anew; otherwise it answers with what it got.
pub(crate) struct StackEcho<const REWRITE: bool> {
    stack: Stack<BenchPool>,
    sockets: Vec<UdpSocketId>,
}

/// Ports that answer whatever they receive, as in the service's echo.
const ANSWERING_PORTS: [u16; 6] = [7, 9, 13, 17, 19, 37];

impl<const REWRITE: bool> StackEcho<REWRITE> {
    /// With a dual-stack socket on each of `ports`, and so many peers known.
    pub(crate) fn new(ports: &[u16], peers: usize) -> Self {
        let mut stack = Stack::new(Config::default());
        let now = Instant::ZERO;
        stack.set_link(Box::new(link()), now);
        // Nobody waits for a frame yet, so none comes back to this pool.
        let mut pool = BenchPool::new(0, 0);
        for peer in (0..=u8::MAX).take(peers).map(Peer) {
            let mac = peer.mac();
            for address in [IpAddr::V4(peer.v4()), IpAddr::V6(peer.v6())] {
                stack.set_neighbor(&mut pool, NeighborUpdate::Set { address, mac });
            }
        }
        let mut bind = |port: &u16| {
            let bind = Bind {
                local: SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), *port),
                v6only: false,
            };
            stack.udp_bind(bind, 2 * BATCH).expect("a free port")
        };
        let sockets = ports.iter().map(&mut bind).collect();
        Self { stack, sockets }
    }
}

pub(crate) fn link() -> LinkState {
    let local = |address: IpAddr, prefix_len, broadcast| LocalAddress {
        address,
        prefix_len,
        broadcast,
        owner: AddressOwner::Kernel,
    };
    let on_link = vec![
        Route::on_link(Ipv4Addr::new(192, 0, 2, 0).into(), 24),
        Route::on_link(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0).into(), 64),
    ];
    LinkState {
        mac: OUR_MAC,
        mtu: 1500,
        up: true,
        addresses: vec![
            local(OUR_V4.into(), 24, Some(Ipv4Addr::new(192, 0, 2, 255))),
            local(OUR_V6.into(), 64, None),
        ],
        routes: RouteTable::new(on_link, 16).expect("two routes"),
    }
}

impl<const REWRITE: bool> Subject for StackEcho<REWRITE> {
    #[inline(never)]
    fn turn(
        &mut self,
        pool: &mut BenchPool,
        received: &mut Vec<BenchFrame>,
        sent: &mut Vec<BenchFrame>,
        now: Instant,
    ) {
        let Self { stack, sockets } = self;
        for frame in received.drain(..) {
            stack.ingest(pool, frame, Origin::Ring, now);
        }
        stack.expire(pool, now);
        for socket in sockets {
            stack.udp_serve(*socket, |stack, mut datagram| {
                let (remote, local) = datagram.ports();
                if remote == local || (remote < 64 && ANSWERING_PORTS.contains(&remote)) {
                    return stack.udp_discard(pool, datagram, DropReason::UdpNoReply);
                }
                if REWRITE && let Some(first) = datagram.payload_mut().first_mut() {
                    *first = first.wrapping_add(1);
                }
                // A reply that is not sent is missed by the harness.
                let _ = stack.udp_reply(pool, datagram, now);
            });
        }
        stack.egress(|frame| {
            sent.push(frame);
            Ok(())
        });
    }
}
