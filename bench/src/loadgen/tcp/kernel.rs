//! Connections as kernel sockets, told of by epoll, edge-triggered: news comes once, and whatever there
//! is then is read or written until there is no more.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::num::NonZeroU64;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, bind, connect,
    getsockname, recv, send, shutdown, socket_with, sockopt,
};
use rustix::thread::set_current_timer_slack;

use super::failure::Failure;
use super::sources::Sources;
use super::transport::{Ending, Hearing, Received, Transport};
use crate::clock::{SECOND_NS, now_ns};

/// News taken at once.
const EVENTS: usize = 256;

/// Bytes read at once: one system call empties most receive buffers.
const READ_BYTES: usize = 64 << 10;

/// Full reads in a row on one connection, before the others get their turn.
const READS_PER_TURN: usize = 4;

/// Ports that are tried for one connection when they were given: those of others, and those of our own
/// that are still in TIME-WAIT, are passed over, but not for as long as it takes to try thousands.
const PORTS_TRIED_MAX: usize = 64;

/// One connection.
struct Connection {
    socket: OwnedFd,
    /// The handshake is over.
    open: bool,
    /// There may be something to read.
    readable: bool,
    /// The peer has closed or reset, behind whatever there is to read.
    ending: bool,
}

/// One thread's sockets.
#[allow(missing_debug_implementations)] // epoll's events have none.
pub struct KernelTransport {
    target: SocketAddr,
    sources: Sources,
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    buffer: Box<[u8]>,
    /// By slot. The number tells a connection from those that were in its place before.
    connections: Vec<(u32, Option<Connection>)>,
}

impl KernelTransport {
    /// For `slots` connections to `target` from `sources`.
    ///
    /// # Errors
    /// As epoll_create1(2).
    pub fn new(target: SocketAddr, sources: Sources, slots: usize) -> io::Result<Self> {
        // The default slack of 50 µs would be added to every sleep (prctl(2), PR_SET_TIMERSLACK).
        set_current_timer_slack(NonZeroU64::new(1))?;
        Ok(Self {
            target,
            sources,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(EVENTS),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            connections: std::iter::repeat_with(|| (0, None)).take(slots).collect(),
        })
    }

    fn connection(&mut self, slot: u32) -> Option<&mut Connection> {
        self.connections.get_mut(slot as usize)?.1.as_mut()
    }

    /// A socket on its way to the target.
    fn connect(&mut self, hearing: Hearing) -> Result<OwnedFd, Failure> {
        let tries = self.sources.pairs().min(PORTS_TRIED_MAX as u64);
        for _ in 0..tries {
            let (address, port) = self.sources.next().unwrap_or_default();
            match self.connect_from(address, port, hearing) {
                Err(Errno::ADDRINUSE | Errno::ADDRNOTAVAIL) => {}
                Err(error) => return Err(Failure::of_errno(error.raw_os_error())),
                Ok(socket) => return Ok(socket),
            }
        }
        Err(Failure::NoPort)
    }

    fn connect_from(
        &self,
        address: Option<IpAddr>,
        port: Option<u16>,
        hearing: Hearing,
    ) -> Result<OwnedFd, Errno> {
        let family = if self.target.is_ipv4() {
            AddressFamily::INET
        } else {
            AddressFamily::INET6
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(family, SocketType::STREAM, flags, None)?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        if address.is_some() || port.is_some() {
            // One that is in TIME-WAIT towards another target is no hindrance.
            sockopt::set_socket_reuseaddr(&socket, true)?;
            if port.is_none() {
                no_port_yet(&socket)?;
            }
            bind(&socket, &local(self.target, address, port))?;
        }
        if hearing == Hearing::Deaf {
            drop_everything(&socket)?;
        }
        match connect(&socket, &self.target) {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
            Err(error) => Err(error),
        }
    }

    /// Whether a socket is connected to itself: where nobody listens on a port of this host that is one of
    /// those for clients, a SYN may meet the very socket it came from (RFC 9293 §3.5, simultaneous open).
    fn is_its_own_peer(&self, socket: &OwnedFd) -> bool {
        self.target.ip().is_loopback()
            && getsockname(socket)
                .ok()
                .and_then(|address| SocketAddr::try_from(address).ok())
                == Some(self.target)
    }
}

fn local(target: SocketAddr, address: Option<IpAddr>, port: Option<u16>) -> SocketAddr {
    let port = port.unwrap_or(0);
    match (address, target) {
        (Some(IpAddr::V6(address)), SocketAddr::V6(target)) => {
            // A link-local source is on the target's link (RFC 4007 §6).
            let scope_id = if address.is_unicast_link_local() {
                target.scope_id()
            } else {
                0
            };
            SocketAddrV6::new(address, port, 0, scope_id).into()
        }
        (Some(address), _) => SocketAddr::new(address, port),
        (None, SocketAddr::V4(_)) => ([0, 0, 0, 0], port).into(),
        (None, SocketAddr::V6(_)) => ([0; 8], port).into(),
    }
}

/// Leaves the choice of a port to connect(2), which needs one that is free towards the target only; bind(2)
/// would want one that is free altogether (`IP_BIND_ADDRESS_NO_PORT`, ip(7)).
#[allow(unsafe_code)] // rustix has no function for this option.
fn no_port_yet(socket: &OwnedFd) -> Result<(), Errno> {
    let on: libc::c_int = 1;
    // SAFETY: the option's value is an int (ip(7)), read during the call; the descriptor is open for as long
    // as `socket` is borrowed.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            INT_LEN,
        )
    };
    checked(result)
}

/// `sizeof(int)`.
const INT_LEN: libc::socklen_t = 4;
const _: () = assert!(size_of::<libc::c_int>() == INT_LEN as usize);

/// `sizeof(struct sock_fprog)` on 64-bit Linux.
const PROGRAM_LEN: libc::socklen_t = 16;
const _: () = assert!(size_of::<libc::sock_fprog>() == PROGRAM_LEN as usize);

/// `BPF_RET | BPF_K` with 0: of every packet, keep no byte (linux/bpf_common.h).
const DROP: libc::sock_filter = libc::sock_filter {
    code: 0x06,
    jt: 0,
    jf: 0,
    k: 0,
};

/// Has the kernel drop whatever comes for the socket before TCP sees it (`SO_ATTACH_FILTER`, socket(7);
/// `tcp_filter` in net/ipv4/tcp_ipv4.c): nothing is acknowledged, and nothing is reset either.
#[allow(unsafe_code)] // rustix has no function for this option.
fn drop_everything(socket: &OwnedFd) -> Result<(), Errno> {
    let mut filter = [DROP];
    let program = libc::sock_fprog {
        len: 1,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the option's value is a sock_fprog whose filter has `len` instructions; the kernel copies both
    // during the call. The descriptor is open for as long as `socket` is borrowed.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            PROGRAM_LEN,
        )
    };
    checked(result)
}

fn checked(result: libc::c_int) -> Result<(), Errno> {
    if result == 0 {
        Ok(())
    } else {
        let error = io::Error::last_os_error();
        Err(Errno::from_io_error(&error).unwrap_or(Errno::INVAL))
    }
}

fn failure(error: Errno) -> Failure {
    match error {
        // Retransmissions, not a handshake: the connection is there.
        Errno::TIMEDOUT => Failure::Timeout,
        error => Failure::of_errno(error.raw_os_error()),
    }
}

impl Transport for KernelTransport {
    fn now(&self) -> u64 {
        now_ns()
    }

    fn open(&mut self, slot: u32, hearing: Hearing) -> Result<(), Failure> {
        let socket = self.connect(hearing)?;
        let Some((number, place)) = self.connections.get_mut(slot as usize) else {
            return Err(Failure::NoPort);
        };
        *number = number.wrapping_add(1);
        let data = epoll::EventData::new_u64(u64::from(*number) << 32 | u64::from(slot));
        let flags = epoll::EventFlags::IN
            | epoll::EventFlags::OUT
            | epoll::EventFlags::RDHUP
            | epoll::EventFlags::ET;
        epoll::add(&self.epoll, &socket, data, flags)
            .map_err(|error| Failure::of_errno(error.raw_os_error()))?;
        *place = Some(Connection {
            socket,
            open: false,
            readable: false,
            ending: false,
        });
        Ok(())
    }

    fn is_open(&mut self, slot: u32) -> Result<bool, Failure> {
        let Some(connection) = self.connection(slot) else {
            return Ok(false);
        };
        if connection.open {
            return Ok(true);
        }
        // There was news, and the first news of a socket that connects is how that ended.
        match sockopt::socket_error(&connection.socket) {
            Ok(Ok(())) => {}
            Ok(Err(error)) | Err(error) => {
                return Err(Failure::of_errno(error.raw_os_error()));
            }
        }
        connection.open = true;
        let connection = &self.connections[slot as usize].1;
        if connection
            .as_ref()
            .is_some_and(|connection| self.is_its_own_peer(&connection.socket))
        {
            return Err(Failure::Refused);
        }
        Ok(true)
    }

    fn send(&mut self, slot: u32, bytes: &[u8]) -> Result<usize, Failure> {
        let Some(connection) = self.connection(slot) else {
            return Ok(0);
        };
        loop {
            return match send(&connection.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => Ok(sent),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => Ok(0),
                Err(error) => Err(failure(error)),
            };
        }
    }

    fn receive(&mut self, slot: u32, sink: &mut impl FnMut(&[u8])) -> Result<Received, Failure> {
        let Self {
            connections,
            buffer,
            ..
        } = self;
        let connection = connections
            .get_mut(slot as usize)
            .and_then(|(_, connection)| connection.as_mut());
        let Some(connection) = connection.filter(|connection| connection.readable) else {
            return Ok(Received::All);
        };
        for _ in 0..READS_PER_TURN {
            match recv(&connection.socket, &mut **buffer, RecvFlags::empty()) {
                Ok((_, 0)) => {
                    connection.readable = false;
                    return Ok(Received::End);
                }
                Ok((_, len)) => {
                    sink(&buffer[..len]);
                    if len < buffer.len() && !connection.ending {
                        // Less than there was room for is all there was; what comes later is news
                        // (epoll(7)).
                        connection.readable = false;
                        return Ok(Received::All);
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    connection.readable = false;
                    return Ok(Received::All);
                }
                Err(error) => return Err(failure(error)),
            }
        }
        Ok(Received::Some)
    }

    fn finish(&mut self, slot: u32) {
        if let Some(connection) = self.connection(slot) {
            // One that is reset already says so when it is read.
            let _ = shutdown(&connection.socket, Shutdown::Write);
        }
    }

    fn close(&mut self, slot: u32, ending: Ending) {
        let place = self.connections.get_mut(slot as usize);
        if let Some(connection) = place.and_then(|(_, connection)| connection.take())
            && ending == Ending::Reset
        {
            // With no time to linger, close(2) throws away what is unsent and resets (socket(7)).
            let _ = sockopt::set_socket_linger(&connection.socket, Some(Duration::ZERO));
        }
        // Closing the only descriptor takes it out of epoll, too (epoll(7)).
    }

    fn deafen(&mut self, slot: u32) {
        if let Some(connection) = self.connection(slot) {
            // The only way to fail is to be out of memory; then it hears on.
            let _ = drop_everything(&connection.socket);
        }
    }

    fn poll(&mut self, wait_ns: u64, news: &mut Vec<u32>) -> Result<(), String> {
        // Below a second each, so neither conversion can fail.
        let timeout = Timespec {
            tv_sec: i64::try_from(wait_ns / SECOND_NS).unwrap_or(0),
            tv_nsec: i64::try_from(wait_ns % SECOND_NS).unwrap_or(0),
        };
        self.events.clear();
        let room = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, room, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(format!("epoll_wait failed: {error}")),
        }
        for event in &self.events {
            let data = event.data.u64();
            #[allow(clippy::cast_possible_truncation)] // Both halves are of 32 bits.
            let (slot, of) = (data as u32, (data >> 32) as u32);
            let Some((number, Some(connection))) = self.connections.get_mut(slot as usize) else {
                continue;
            };
            if *number != of {
                continue;
            }
            let ends = epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR;
            // The kernel's struct is packed: no reference to a field of it.
            let flags = event.flags;
            connection.ending |= flags.intersects(ends);
            connection.readable |= flags.intersects(ends | epoll::EventFlags::IN);
            news.push(slot);
        }
        Ok(())
    }
}
