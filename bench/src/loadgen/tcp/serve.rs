//! A server on kernel sockets, one thread, epoll: what a target has to be, for tests and as the other end
//! of `tcp-rr --reply-size`. It does what the service's applications of the same names do; an echo answers
//! requests for replies of some size besides.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use clap::ValueEnum;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, accept_with, bind, listen, recv,
    send, socket_with, sockopt,
};

use super::dialogue::{REPLY_SEED, SIZED_HEADER_BYTES, SIZED_HEADER_LEN, SIZED_MAGIC};
use super::pattern::{Pattern, RUN};
use crate::socket::allow_open_sockets;

/// What the server does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServePlan {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Connections at once, at most.
    pub connections: usize,
    /// What it does with them.
    pub application: Application,
}

/// What a server does with connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, ValueEnum)]
pub enum Application {
    /// Sends everything back (RFC 862); or replies of the size requests ask for
    #[default]
    Echo,
    /// Throws everything away (RFC 863)
    Discard,
    /// Sends characters without end (RFC 864)
    Source,
}

/// Connections that wait to be accepted: what Linux allows by default (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// News taken at once.
const EVENTS: usize = 256;

/// Longest sleep: bounds how long a signal goes unnoticed.
const SLEEP_NS: i64 = 50_000_000;

/// Reads and writes in a row on one connection, before the others get their turn.
const READS_PER_TURN: usize = 16;
const WRITES_PER_TURN: usize = 16;

/// The listener's number among the news; connections have those of their places.
const LISTENER: u64 = u64::MAX;

/// Serves until `stop` is set. `ready` is told where it listens.
///
/// # Errors
/// A sentence that says what could not be set up.
pub fn serve(
    plan: &ServePlan,
    stop: &AtomicBool,
    ready: impl FnOnce(SocketAddr),
) -> Result<(), String> {
    allow_open_sockets(plan.connections)?;
    let failed = |error: io::Error| format!("cannot listen on {}: {error}", plan.listen);
    let listener = open_listener(plan.listen).map_err(failed)?;
    ready(listener.local_addr().map_err(failed)?);
    let mut server = Server::new(listener, plan).map_err(failed)?;
    while !stop.load(Ordering::Relaxed) {
        server
            .turn()
            .map_err(|error| format!("waiting for sockets failed: {error}"))?;
    }
    Ok(())
}

/// A listening socket; on an IPv6 address it takes IPv4 peers as well, whatever `bindv6only` says.
fn open_listener(address: SocketAddr) -> io::Result<TcpListener> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

struct Server {
    listener: TcpListener,
    application: Application,
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    connections: Vec<Option<Connection>>,
    vacant: Vec<usize>,
    again: Vec<usize>,
    material: Material,
}

/// What all connections are served with.
struct Material {
    buffer: Vec<u8>,
    replies: Pattern,
    characters: Pattern,
}

impl Server {
    fn new(listener: TcpListener, plan: &ServePlan) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let data = epoll::EventData::new_u64(LISTENER);
        epoll::add(&epoll, &listener, data, epoll::EventFlags::IN)?;
        Ok(Self {
            listener,
            application: plan.application,
            epoll,
            events: Vec::with_capacity(EVENTS),
            connections: std::iter::repeat_with(|| None)
                .take(plan.connections)
                .collect(),
            vacant: (0..plan.connections).rev().collect(),
            again: Vec::new(),
            material: Material {
                buffer: vec![0; RUN],
                replies: Pattern::random(REPLY_SEED),
                characters: Pattern::chargen(),
            },
        })
    }

    fn turn(&mut self) -> io::Result<()> {
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: if self.again.is_empty() { SLEEP_NS } else { 0 },
        };
        self.events.clear();
        let room = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, room, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for index in std::mem::take(&mut self.again) {
            self.serve(index);
        }
        for event in std::mem::take(&mut self.events) {
            match event.data.u64() {
                LISTENER => self.accept(),
                index => self.serve(usize::try_from(index).unwrap_or(usize::MAX)),
            }
        }
        self.events.reserve(EVENTS);
        Ok(())
    }

    fn accept(&mut self) {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        // What finds no place waits in the backlog.
        while let Some(&index) = self.vacant.last() {
            let Ok(socket) = accept_with(&self.listener, flags) else {
                return;
            };
            let data = epoll::EventData::new_u64(index as u64);
            let flags = epoll::EventFlags::IN
                | epoll::EventFlags::OUT
                | epoll::EventFlags::RDHUP
                | epoll::EventFlags::ET;
            // A connection that cannot be set up is closed.
            if sockopt::set_tcp_nodelay(&socket, true).is_ok()
                && epoll::add(&self.epoll, &socket, data, flags).is_ok()
            {
                self.vacant.pop();
                self.connections[index] = Some(Connection::new(socket, self.application));
            }
        }
    }

    fn serve(&mut self, index: usize) {
        let Some(Some(connection)) = self.connections.get_mut(index) else {
            return;
        };
        match connection.serve(&mut self.material) {
            Served::Waits => {}
            Served::HasMore => self.again.push(index),
            Served::Gone => {
                self.connections[index] = None;
                self.vacant.push(index);
            }
        }
    }
}

enum Served {
    Waits,
    HasMore,
    Gone,
}

struct Connection {
    socket: OwnedFd,
    talk: Talk,
    /// Bytes to be sent back, and how many of them were.
    out: Vec<u8>,
    out_at: usize,
    /// Replies that were asked for: where each begins in the pattern, and its length.
    replies: VecDeque<(u64, u32)>,
    /// Characters sent.
    characters: u64,
}

enum Talk {
    /// An echo, or requests: the first bytes tell.
    Undecided(Vec<u8>),
    Echo,
    /// What came of a header, and the bytes behind it that are left to come.
    Sized(Vec<u8>, u32),
    Discard,
    Source,
}

impl Connection {
    fn new(socket: OwnedFd, application: Application) -> Self {
        Self {
            socket,
            talk: match application {
                Application::Echo => Talk::Undecided(Vec::new()),
                Application::Discard => Talk::Discard,
                Application::Source => Talk::Source,
            },
            out: Vec::new(),
            out_at: 0,
            replies: VecDeque::new(),
            characters: 0,
        }
    }

    fn serve(&mut self, material: &mut Material) -> Served {
        for _ in 0..READS_PER_TURN {
            match self.flush(material) {
                Served::Waits if !matches!(self.talk, Talk::Source) => return Served::Waits,
                Served::Waits => return self.drain(material, Served::Waits),
                Served::Gone => return Served::Gone,
                // Everything was sent, or of a source as much as is fair.
                Served::HasMore if matches!(self.talk, Talk::Source) => {
                    return self.drain(material, Served::HasMore);
                }
                Served::HasMore => {}
            }
            match recv(
                self.socket.as_fd(),
                material.buffer.as_mut_slice(),
                RecvFlags::empty(),
            ) {
                Ok((_, 0)) => return Served::Gone,
                Ok((_, len)) => {
                    let bytes = std::mem::take(&mut material.buffer);
                    let is_good = self.take(&bytes[..len]);
                    material.buffer = bytes;
                    if !is_good {
                        return Served::Gone;
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Served::Waits,
                Err(_) => return Served::Gone,
            }
        }
        Served::HasMore
    }

    /// Throws away what a source is sent.
    fn drain(&mut self, material: &mut Material, otherwise: Served) -> Served {
        loop {
            match recv(
                self.socket.as_fd(),
                material.buffer.as_mut_slice(),
                RecvFlags::empty(),
            ) {
                Ok((_, 0)) => return Served::Gone,
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return otherwise,
                Err(_) => return Served::Gone,
            }
        }
    }

    /// Sends what there is to send. `Waits` when there is no room for all of it.
    fn flush(&mut self, material: &Material) -> Served {
        let mut writes = 0;
        loop {
            let bytes = if self.out_at < self.out.len() {
                &self.out[self.out_at..]
            } else if let Some(&(start, left)) = self.replies.front() {
                &material.replies.at(start)[..RUN.min(left as usize)]
            } else if matches!(self.talk, Talk::Source) && writes < WRITES_PER_TURN {
                &material.characters.at(self.characters)[..RUN]
            } else {
                return Served::HasMore;
            };
            writes += 1;
            let sent = match send(self.socket.as_fd(), bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => sent,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Served::Waits,
                Err(_) => return Served::Gone,
            };
            if self.out_at < self.out.len() {
                self.out_at += sent;
                if self.out_at == self.out.len() {
                    self.out.clear();
                    self.out_at = 0;
                }
            } else if let Some((start, left)) = self.replies.front_mut() {
                *start += sent as u64;
                // No more was sent than was left.
                *left -= u32::try_from(sent).unwrap_or(*left);
                if *left == 0 {
                    self.replies.pop_front();
                }
            } else {
                self.characters += sent as u64;
            }
        }
    }

    /// Takes what came. False if it makes no sense.
    fn take(&mut self, mut bytes: &[u8]) -> bool {
        if let Talk::Undecided(first) = &mut self.talk {
            first.extend_from_slice(bytes);
            let is_request = first.starts_with(&SIZED_MAGIC);
            if !is_request && SIZED_MAGIC.starts_with(first) {
                return true;
            }
            let first = std::mem::take(first);
            if is_request {
                self.talk = Talk::Sized(Vec::new(), 0);
                return self.take_requests(&first);
            }
            self.talk = Talk::Echo;
            self.out.extend_from_slice(&first);
            bytes = &[];
        }
        match self.talk {
            Talk::Echo => self.out.extend_from_slice(bytes),
            Talk::Sized(..) => return self.take_requests(bytes),
            Talk::Discard | Talk::Source | Talk::Undecided(_) => {}
        }
        true
    }

    fn take_requests(&mut self, mut bytes: &[u8]) -> bool {
        let Talk::Sized(header, body_left) = &mut self.talk else {
            return false;
        };
        while !bytes.is_empty() {
            let body = bytes.len().min(*body_left as usize);
            bytes = &bytes[body..];
            *body_left -= u32::try_from(body).unwrap_or(*body_left);
            if *body_left > 0 {
                break;
            }
            let missing = bytes.len().min(SIZED_HEADER_LEN - header.len());
            header.extend_from_slice(&bytes[..missing]);
            bytes = &bytes[missing..];
            if header.len() < SIZED_HEADER_LEN {
                break;
            }
            let word = |at: usize| {
                u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
            };
            let (request, reply, start) = (word(4), word(8), word(12));
            if !header.starts_with(&SIZED_MAGIC) || (request as usize) < SIZED_HEADER_LEN {
                return false;
            }
            header.clear();
            *body_left = request - SIZED_HEADER_BYTES;
            if reply > 0 {
                self.replies.push_back((u64::from(start), reply));
            }
        }
        true
    }
}
