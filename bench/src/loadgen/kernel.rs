//! The engine on kernel sockets: one connected, non-blocking UDP socket per flow, so that each flow
//! has a source port of its own and the kernel reports ICMP errors per flow.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{Timespec, epoll};
use rustix::thread::set_current_timer_slack;

use super::load::{Burst, Load};
use crate::batch::{MessageBatch, Peers, Wait};
use crate::clock::{SECOND_NS, now_ns};
use crate::socket::{RECEIVE_BUFFER_BYTES, allow_open_sockets, raise_receive_buffer};

/// What a thread does while nothing is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Idle {
    /// Sleep until shortly before the next request is due, then spin; sleep while only replies are
    /// awaited.
    #[default]
    Adaptive,
    /// Never sleep: the steadiest timing, and a CPU at 100 %.
    Spin,
    /// Sleep until the next request is due: uses least CPU; requests leave some 50 µs late, which
    /// counts as latency.
    Sleep,
}

/// How long before a request is due the adaptive policy stops sleeping. Waking up from epoll_wait
/// takes 5 to 50 µs on a machine that was idle; with less margin requests leave late, with more the
/// CPU spins for nothing.
pub(super) const WAKE_MARGIN_NS: u64 = 60_000;

/// Longest sleep: bounds how long Ctrl-C goes unnoticed.
const SLEEP_NS_MAX: u64 = 50_000_000;

/// Bursts sent before replies are looked at: few, for a reply that waits is latency of our own making.
const BURSTS_PER_TURN: usize = 4;

/// Full receive batches taken from one flow before the others get their turn.
const RECEIVES_PER_FLOW: usize = 16;

/// Readiness events taken at once.
const EVENTS: usize = 64;

/// Opens `flows` sockets connected to `target`.
///
/// # Errors
/// A sentence that says which step failed and for which address.
pub fn open_flows(
    target: SocketAddr,
    source: Option<IpAddr>,
    flows: usize,
) -> Result<Vec<UdpSocket>, String> {
    allow_open_sockets(flows)?;
    let local = local_address(target, source)?;
    (0..flows)
        .map(|_| {
            let socket = UdpSocket::bind(local)
                .map_err(|error| format!("cannot bind a socket to {local}: {error}"))?;
            socket
                .connect(target)
                .map_err(|error| format!("cannot reach {target}: {error}"))?;
            socket
                .set_nonblocking(true)
                .map_err(|error| format!("cannot set up a socket: {error}"))?;
            raise_receive_buffer(&socket, RECEIVE_BUFFER_BYTES)
                .map_err(|error| format!("cannot raise a socket's receive buffer: {error}"))?;
            Ok(socket)
        })
        .collect()
}

fn local_address(target: SocketAddr, source: Option<IpAddr>) -> Result<SocketAddr, String> {
    let address = match (target, source) {
        (SocketAddr::V4(_), None) => Ipv4Addr::UNSPECIFIED.into(),
        (SocketAddr::V6(_), None) => Ipv6Addr::UNSPECIFIED.into(),
        (SocketAddr::V4(_), Some(source @ IpAddr::V4(_))) => source,
        (SocketAddr::V6(target), Some(IpAddr::V6(source))) => {
            // A link-local source is on the target's link (RFC 4007 §6).
            let scope_id = if source.is_unicast_link_local() {
                target.scope_id()
            } else {
                0
            };
            return Ok(SocketAddrV6::new(source, 0, 0, scope_id).into());
        }
        (target, Some(source)) => {
            return Err(format!(
                "source {source} and target {} are of different IP versions",
                target.ip()
            ));
        }
    };
    Ok(SocketAddr::new(address, 0))
}

/// Drives one thread's load over its sockets.
#[allow(missing_debug_implementations)] // epoll's events have none.
pub struct KernelEngine<'a> {
    sockets: &'a [UdpSocket],
    epoll: OwnedFd,
    events: [epoll::Event; EVENTS],
    received: MessageBatch,
    outgoing: MessageBatch,
    burst: Burst,
    /// Requests `..sent` of the burst are with the kernel; the rest waits for room.
    sent: usize,
    idle: Idle,
}

impl<'a> KernelEngine<'a> {
    /// An engine for loads of kind `L` with requests of `size` bytes. Everything a run needs is
    /// allocated here.
    ///
    /// # Errors
    /// As epoll_create1(2) and epoll_ctl(2).
    pub fn new<L: Load>(sockets: &'a [UdpSocket], size: usize, idle: Idle) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (flow, socket) in sockets.iter().enumerate() {
            let data = epoll::EventData::new_u64(flow as u64);
            epoll::add(&epoll, socket, data, epoll::EventFlags::IN)?;
        }
        // The default slack of 50 µs would be added to every sleep (prctl(2), PR_SET_TIMERSLACK).
        set_current_timer_slack(NonZeroU64::new(1))?;
        let no_event = epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        };
        Ok(Self {
            sockets,
            epoll,
            events: [no_event; EVENTS],
            // One byte more than a reply has: a longer datagram is seen to be longer.
            received: MessageBatch::new(L::RECEIVE_MAX, size + 1, Peers::Connected),
            outgoing: MessageBatch::new(L::SEND_MAX, size, Peers::Connected),
            burst: Burst::with_capacity(L::SEND_MAX),
            sent: 0,
            idle,
        })
    }

    /// Runs the load until it is finished, or soon after `stop` is set.
    ///
    /// # Errors
    /// As epoll_wait(2). What goes wrong with a single datagram is counted and not an error.
    pub fn drive<L: Load>(&mut self, load: &mut L, stop: &AtomicBool) -> io::Result<()> {
        loop {
            let now = now_ns();
            if stop.load(Ordering::Relaxed) {
                load.books_mut().stop(now);
            }
            load.expire(now);
            if load.finished(now) {
                return Ok(());
            }
            for _ in 0..BURSTS_PER_TURN {
                if !self.send(load) {
                    break;
                }
            }
            let wait_ns = self.wait_ns(load);
            if wait_ns == 0
                && let [_] = self.sockets
            {
                // One flow and no time to sleep: asking epoll first would only cost a system call.
                self.receive(load, 0);
                continue;
            }
            for index in 0..self.wait(wait_ns)? {
                let event = self.events[index];
                // The data is an index into `sockets`, put there by `new`.
                let flow = usize::try_from(event.data.u64()).unwrap_or(usize::MAX);
                self.receive(load, flow);
                // A reply that frees a flow of a closed loop is answered before the next is read.
                self.send(load);
            }
        }
    }

    /// Sends a burst, or the rest of the last one. Returns whether another may follow.
    fn send<L: Load>(&mut self, load: &mut L) -> bool {
        if self.sent == self.burst.sequences().len() {
            self.burst.begin(0);
            self.sent = 0;
            if !load.next_burst(now_ns(), &mut self.burst) {
                return false;
            }
            let books = load.books();
            let flow = books.flow_number(self.burst.flow);
            for (index, &sequence) in self.burst.sequences().iter().enumerate() {
                books
                    .prober
                    .write(flow, sequence, self.outgoing.payload_mut(index));
            }
        }
        let flow = self.burst.flow;
        let count = self.burst.sequences().len();
        let socket = self.sockets[flow].as_fd();
        while self.sent < count {
            match self.outgoing.send(socket, self.sent..count) {
                Ok(taken) => self.sent += taken,
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    // The send buffer is full: replies first, then again.
                    io::ErrorKind::WouldBlock => return false,
                    // The error is an earlier request's; this one was not tried yet (udp(7)).
                    io::ErrorKind::ConnectionRefused => {
                        load.books_mut().count_refused(now_ns());
                        return false;
                    }
                    _ => {
                        let sequence = self.burst.sequences()[self.sent];
                        let errno = error.raw_os_error().unwrap_or(0);
                        load.on_send_failed(flow, sequence, errno, now_ns());
                        self.sent += 1;
                    }
                },
            }
        }
        true
    }

    /// Takes what `flow` received.
    fn receive<L: Load>(&mut self, load: &mut L, flow: usize) {
        let Some(socket) = self.sockets.get(flow) else {
            return;
        };
        for _ in 0..RECEIVES_PER_FLOW {
            match self
                .received
                .receive(socket.as_fd(), L::RECEIVE_MAX, Wait::Never)
            {
                Ok(count) => {
                    let now = now_ns();
                    for index in 0..count {
                        load.on_datagram(flow, self.received.message(index), now);
                    }
                    if count < L::RECEIVE_MAX || L::RECEIVE_MAX == 1 {
                        return;
                    }
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return,
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::ConnectionRefused => {
                        load.on_refused(flow, now_ns());
                        return;
                    }
                    _ => {
                        let errno = error.raw_os_error().unwrap_or(0);
                        load.books_mut().count_receive_error(errno, now_ns());
                        return;
                    }
                },
            }
        }
    }

    /// How long the thread may sleep, in nanoseconds.
    fn wait_ns<L: Load>(&self, load: &L) -> u64 {
        if self.idle == Idle::Spin || self.sent < self.burst.sequences().len() {
            return 0;
        }
        let until = load.wake_at().saturating_sub(now_ns()).min(SLEEP_NS_MAX);
        match self.idle {
            Idle::Adaptive => until.saturating_sub(WAKE_MARGIN_NS),
            Idle::Sleep | Idle::Spin => until,
        }
    }

    /// Waits for readable flows and returns how many there are.
    fn wait(&mut self, wait_ns: u64) -> io::Result<usize> {
        // Below a second each, so neither conversion can fail.
        let timeout = Timespec {
            tv_sec: i64::try_from(wait_ns / SECOND_NS).unwrap_or(0),
            tv_nsec: i64::try_from(wait_ns % SECOND_NS).unwrap_or(0),
        };
        match epoll::wait(&self.epoll, &mut self.events, Some(&timeout)) {
            Ok(count) => Ok(count),
            Err(rustix::io::Errno::INTR) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_match_their_targets() {
        let v4: SocketAddr = "10.0.0.2:7".parse().unwrap();
        let v6: SocketAddr = "[fe80::1%3]:7".parse().unwrap();
        let local = |target, source: &str| local_address(target, Some(source.parse().unwrap()));
        assert_eq!(local_address(v4, None), Ok("0.0.0.0:0".parse().unwrap()));
        assert_eq!(local_address(v6, None), Ok("[::]:0".parse().unwrap()));
        assert_eq!(local(v4, "10.0.0.1"), Ok("10.0.0.1:0".parse().unwrap()));
        assert_eq!(local(v6, "fe80::2"), Ok("[fe80::2%3]:0".parse().unwrap()));
        assert_eq!(local(v6, "fd00::2"), Ok("[fd00::2]:0".parse().unwrap()));
        assert!(local(v4, "::1").is_err());
        assert!(local(v6, "127.0.0.1").is_err());
    }

    #[test]
    fn a_source_that_is_not_ours_is_named() {
        // TEST-NET-1 (RFC 5737): nobody has this address.
        let error = open_flows(
            "127.0.0.1:9".parse().unwrap(),
            Some("192.0.2.1".parse().unwrap()),
            1,
        )
        .unwrap_err();
        assert!(error.contains("192.0.2.1"), "{error}");
    }
}
