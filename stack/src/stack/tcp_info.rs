//! What there is to tell of all connections and listeners.

use super::Stack;
use crate::frame::FramePool;
use crate::tcp::info::{TcpCursor, TcpInfo};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

impl<P: FramePool> Stack<P> {
    /// Tells `each` of the next connections of a walk over all, of IPv4 first, those half-open and in TIME-WAIT
    /// behind the others. Looks at `budget` places at most, so that a worker with many does it bit by bit.
    /// A connection that the application has not let go of after its end is `UNCONN`.
    pub fn tcp_walk(&self, cursor: &mut TcpCursor, budget: u32, mut each: impl FnMut(TcpInfo)) {
        let mut left = budget;
        while left > 0 && !cursor.is_at_end() {
            let TcpCursor { kind, slot } = *cursor;
            let next = if kind < 4 {
                self.v4.tcp.walk(kind, slot, left, &mut each)
            } else {
                self.v6.tcp.walk(kind - 4, slot, left, &mut each)
            };
            *cursor = match next {
                Some(slot) => TcpCursor { kind, slot },
                None => TcpCursor {
                    kind: kind + 1,
                    slot: 0,
                },
            };
            left = match next {
                Some(_) => 0,
                // A kind takes a part of the budget even if it has no records, so that this ends.
                None => left.saturating_sub(1),
            };
        }
    }

    /// Tells `each` of all listeners.
    pub fn tcp_walk_listeners(&self, mut each: impl FnMut(TcpInfo)) {
        for (_, listener) in self.tcp.listeners.iter() {
            let local = listener.bind.local;
            let any: IpAddr = match local {
                SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            each(TcpInfo {
                state: "LISTEN",
                local,
                remote: SocketAddr::new(any, 0),
                recv_q: u32::try_from(listener.waiting()).unwrap_or(u32::MAX),
                send_q: listener.options.backlog,
                detail: None,
            });
        }
    }
}
