//! Applications of datagrams.

use stack::Stack;
use stack::counters::DropReason;
use stack::frame::FramePool;
use stack::time::Instant;
use stack::udp::UdpSocketId;

/// What a service does with datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Application {
    /// Sends every datagram back to its sender (RFC 862).
    Echo,
    /// Throws every datagram away (RFC 863).
    Discard,
}

/// Ports of services that answer whatever they receive: echo, discard, daytime, quote of the day,
/// chargen, time. An echo to one of them would come back for ever once a forged packet had started
/// it (CERT CA-1996-01).
const ANSWERING_PORTS: [u16; 6] = [7, 9, 13, 17, 19, 37];

impl Application {
    /// Serves everything that waits in `socket`. Returns how many answers it queued.
    #[inline]
    pub fn serve<P: FramePool>(
        self,
        stack: &mut Stack<P>,
        pool: &mut P,
        socket: UdpSocketId,
        now: Instant,
    ) -> u64 {
        match self {
            Self::Echo => echo(stack, pool, socket, now),
            Self::Discard => {
                stack.udp_serve(socket, |stack, datagram| stack.udp_release(pool, datagram));
                0
            }
        }
    }
}

#[inline]
fn echo<P: FramePool>(
    stack: &mut Stack<P>,
    pool: &mut P,
    socket: UdpSocketId,
    now: Instant,
) -> u64 {
    let mut answers = 0;
    stack.udp_serve(socket, |stack, datagram| {
        let (remote, local) = datagram.ports();
        if remote == local || (remote < 64 && ANSWERING_PORTS.contains(&remote)) {
            return stack.udp_discard(pool, datagram, DropReason::UdpNoReply);
        }
        // A reply that cannot be sent has been counted; there is nobody to tell.
        if stack.udp_reply(pool, datagram, now).is_ok() {
            answers += 1;
        }
    });
    answers
}
