//! A stack under a script.

use stack::frame::{Frame as _, FramePool as _};
use stack::heap::{HeapFrame, HeapPool};
use stack::ip::route::{Route, RouteTable};
use stack::link::{AddressOwner, LinkState, LocalAddress, NeighborUpdate};
use stack::sim::script::{Congestion, Errno, Setup, SocketOption, TcpHost, WOULD_BLOCK};
use stack::socket::bind::{Bind, BindError};
use stack::tcp::config::{Ecn, SynCookies, TcpConfig};
use stack::tcp::connection::Misuse;
use stack::tcp::flow::AckDelay;
use stack::tcp::listener::{CongestionKind, ListenOptions};
use stack::tcp::manage::State;
use stack::tcp::manage::states::CloseReason;
use stack::tcp::socket_options::{SocketOption as Choice, SoftError};
use stack::tcp::{ConnectError, TcpId, TcpListenerId};
use stack::time::{Duration, Instant};
use stack::{Config, Origin, Stack};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Connections that may wait, unless the script says.
const BACKLOG: u32 = 16;

pub(crate) struct Host {
    stack: Stack<HeapPool>,
    pool: HeapPool,
    now: Instant,
    out: Vec<Vec<u8>>,
    congestion: CongestionKind,
    /// What the script wants for every socket.
    choices: Vec<Choice>,
}

/// An option of a script as the stack has it; none if it has no such thing for one socket.
fn choice(option: SocketOption) -> Option<Choice> {
    Some(match option {
        SocketOption::NoDelay(on) => Choice::NoDelay(on),
        SocketOption::KeepAlive(on) => Choice::KeepAlive(on),
        SocketOption::UserTimeout(time) => Choice::UserTimeout(Some(time)),
        SocketOption::Ttl(ttl) => Choice::HopLimit(Some(ttl)),
        SocketOption::Tos(tos) => Choice::TrafficClass(tos),
        SocketOption::Linger(time) => Choice::LingerZero(time == Duration::ZERO),
        _ => return None,
    })
}

/// What a script says of sockets, as far as it is a setting of the whole stack.
fn configure(setup: &Setup) -> Result<(Config, CongestionKind, Vec<Choice>), String> {
    let mut tcp = TcpConfig {
        connections: 16,
        connections_new_reno: 16,
        half_open: 16,
        time_wait: 16,
        send_chunks: 512,
        receive_chunks: 512,
        transmissions: 1024,
        out_of_order: 256,
        // A script says what a window is; it does not want to follow it as it grows.
        receive_buffer: 65_535,
        receive_buffer_max: 65_535,
        ..TcpConfig::default()
    };
    let mut config = Config {
        announce: false,
        ..Config::default()
    };
    let mut congestion = CongestionKind::default();
    let mut choices = Vec::new();
    let keepalive = &mut tcp.keepalive;
    for option in &setup.options {
        if let Some(choice) = choice(*option) {
            choices.push(choice);
            continue;
        }
        match *option {
            SocketOption::SendBuffer(bytes) => tcp.send_buffer = bytes,
            SocketOption::ReceiveBuffer(bytes) => {
                (tcp.receive_buffer, tcp.receive_buffer_max) = (bytes, bytes);
            }
            SocketOption::Congestion(Congestion::Cubic) => congestion = CongestionKind::Cubic,
            SocketOption::Congestion(Congestion::NewReno) => congestion = CongestionKind::NewReno,
            SocketOption::KeepAliveIdle(idle) => keepalive.idle = idle,
            SocketOption::KeepAliveInterval(interval) => keepalive.interval = interval,
            SocketOption::KeepAliveCount(count) => {
                keepalive.probes = u8::try_from(count).map_err(|error| error.to_string())?;
            }
            SocketOption::Ecn(on) => tcp.ecn = if on { Ecn::Offer } else { Ecn::Off },
            SocketOption::Sack(on) => tcp.sack = on,
            SocketOption::Timestamps(on) => tcp.timestamps = on,
            SocketOption::WindowScaling(on) => tcp.window_scaling = on,
            SocketOption::DelayedAck(delay) => {
                tcp.ack_delay = AckDelay::new(delay).ok_or("delayed_ack: out of range")?;
            }
            SocketOption::RtoMin(time) => {
                let millis = u16::try_from(time.as_millis());
                tcp.rto_min_ms = millis.map_err(|error| error.to_string())?;
            }
            _ => return Err(format!("there is no {option:?}")),
        }
    }
    for (name, value) in &setup.config {
        let nanos = u64::try_from(*value).map_err(|error| error.to_string())?;
        match name.as_str() {
            "time_wait" => tcp.time_wait_period = Duration::from_nanos(nanos),
            "fin_wait_2" => tcp.fin_wait_2 = Duration::from_nanos(nanos),
            "syn_cookies" => {
                tcp.syn_cookies = match value {
                    0 => SynCookies::Never,
                    _ => SynCookies::Always,
                }
            }
            _ => return Err(format!("there is no config {name}")),
        }
    }
    config.tcp = tcp;
    Ok((config, congestion, choices))
}

impl Host {
    pub(crate) fn new(setup: &Setup) -> Result<Self, String> {
        let (config, congestion, choices) = configure(setup)?;
        let own = setup.addresses.destination;
        let prefix_len = if own.is_ipv4() { 24 } else { 64 };
        let default = match own {
            IpAddr::V4(_) => "0.0.0.0",
            IpAddr::V6(_) => "::",
        };
        let everybody = Route {
            gateway: Some(setup.addresses.source),
            ..Route::on_link(default.parse().unwrap(), 0)
        };
        let routes = vec![Route::on_link(own, prefix_len), everybody];
        let link = LinkState {
            mac: setup.addresses.destination_mac,
            mtu: setup.mtu,
            up: true,
            addresses: vec![LocalAddress {
                address: own,
                prefix_len,
                broadcast: own.is_ipv4().then_some(Ipv4Addr::new(192, 0, 2, 255)),
                owner: AddressOwner::Stack,
            }],
            routes: RouteTable::new(routes, 4).map_err(|error| error.to_string())?,
        };
        let mut host = Self {
            stack: Stack::new(config),
            pool: HeapPool::new(512, 2048),
            now: setup.start,
            out: Vec::new(),
            congestion,
            choices,
        };
        host.stack.set_link(Box::new(link), setup.start);
        for &address in &setup.peers {
            let mac = setup.addresses.source_mac;
            let known = NeighborUpdate::Set { address, mac };
            host.stack.set_neighbor(&mut host.pool, known);
        }
        Ok(host)
    }

    /// How a connection ended.
    fn ended(reason: CloseReason) -> Result<usize, Errno> {
        match reason {
            CloseReason::Finished => Ok(0),
            CloseReason::Aborted => Err("ECONNABORTED"),
            CloseReason::Reset => Err("ECONNRESET"),
            CloseReason::Refused => Err("ECONNREFUSED"),
            CloseReason::TimedOut => Err("ETIMEDOUT"),
            CloseReason::Unreachable => Err("EHOSTUNREACH"),
        }
    }
}

fn misuse(misuse: Misuse) -> Errno {
    match misuse {
        Misuse::NoSuchConnection => "EBADF",
        Misuse::NotWritable => "EPIPE",
        Misuse::WouldBlock => WOULD_BLOCK,
        Misuse::Ended(reason) => Host::ended(reason).err().unwrap_or("EPIPE"),
    }
}

impl TcpHost for Host {
    type Socket = TcpId;
    type Listener = TcpListenerId;

    fn listen(
        &mut self,
        local: SocketAddr,
        backlog: Option<u32>,
        _: &[SocketOption],
    ) -> Result<TcpListenerId, Errno> {
        let bind = Bind {
            local,
            v6only: false,
        };
        let options = ListenOptions {
            backlog: backlog.unwrap_or(BACKLOG),
            congestion: self.congestion,
            nodelay: false,
        };
        let result = self.stack.tcp_listen(bind, options);
        let listener = result.map_err(|error| match error {
            BindError::AddressInUse => "EADDRINUSE",
            BindError::AddressInvalid | BindError::PortZero => "EINVAL",
            BindError::TooManySockets => "ENOBUFS",
        })?;
        for choice in &self.choices {
            let set = self.stack.tcp_listener_set_option(listener, *choice);
            set.map_err(misuse)?;
        }
        Ok(listener)
    }

    fn accept(&mut self, listener: TcpListenerId) -> Option<TcpId> {
        self.stack.tcp_accept(listener)
    }

    fn unlisten(&mut self, listener: TcpListenerId) {
        self.stack.tcp_unlisten(listener, self.now);
    }

    fn connect(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        _: &[SocketOption],
    ) -> Result<TcpId, Errno> {
        let (congestion, now) = (self.congestion, self.now);
        let result = self
            .stack
            .tcp_connect(local, remote, congestion, false, now);
        let socket = result.map_err(|error| match error {
            ConnectError::FamilyMismatch => "EAFNOSUPPORT",
            ConnectError::Invalid => "EINVAL",
            ConnectError::AddressNotAvailable | ConnectError::NoPort => "EADDRNOTAVAIL",
            ConnectError::AddressInUse => "EADDRINUSE",
            ConnectError::Unreachable => "ENETUNREACH",
            ConnectError::TooManyConnections => "ENOBUFS",
        })?;
        for choice in &self.choices {
            let set = self.stack.tcp_set_option(socket, *choice, now);
            set.map_err(misuse)?;
        }
        Ok(socket)
    }

    fn write(&mut self, socket: TcpId, bytes: &[u8]) -> Result<usize, Errno> {
        self.stack.tcp_send(socket, self.now, bytes).map_err(misuse)
    }

    fn read(&mut self, socket: TcpId, bytes: &mut [u8]) -> Result<usize, Errno> {
        let mut filled = 0;
        let taken = self.stack.tcp_receive_with(socket, self.now, |front| {
            let len = front.len().min(bytes.len() - filled);
            bytes[filled..filled + len].copy_from_slice(&front[..len]);
            filled += len;
            len
        });
        match taken.map_err(misuse)? {
            0 => match self.stack.tcp_state(socket) {
                Some(State::Closed(closed)) => Self::ended(closed.reason),
                _ if self.stack.tcp_is_at_end(socket) => Ok(0),
                _ => Err(WOULD_BLOCK),
            },
            taken => Ok(taken),
        }
    }

    fn shutdown(&mut self, socket: TcpId) -> Result<(), Errno> {
        self.stack.tcp_shutdown(socket, self.now).map_err(misuse)
    }

    fn close(&mut self, socket: TcpId) {
        self.stack.tcp_close(socket, self.now);
    }

    fn abort(&mut self, socket: TcpId) {
        self.stack.tcp_abort(socket, self.now);
    }

    fn set(&mut self, socket: TcpId, option: SocketOption) -> Result<(), Errno> {
        let choice = choice(option).ok_or("ENOPROTOOPT")?;
        let set = self.stack.tcp_set_option(socket, choice, self.now);
        set.map_err(misuse)
    }

    fn take_error(&mut self, socket: TcpId) -> Option<Errno> {
        Some(match self.stack.tcp_take_error(socket)? {
            SoftError::NetworkUnreachable => "ENETUNREACH",
            SoftError::HostUnreachable => "EHOSTUNREACH",
            SoftError::ProtocolUnreachable => "ENOPROTOOPT",
            SoftError::PortUnreachable => "ECONNREFUSED",
            SoftError::Prohibited => "EACCES",
            SoftError::ParameterProblem => "EPROTO",
            SoftError::Unanswered => "ETIMEDOUT",
        })
    }

    fn state(&mut self, local: SocketAddr, remote: SocketAddr) -> Option<&'static str> {
        Some(match self.stack.tcp_state_between(local, remote)? {
            "SYN-RECV" => "SYN-RECEIVED",
            "ESTAB" => "ESTABLISHED",
            "UNCONN" => "CLOSED",
            name => name,
        })
    }

    fn info(&mut self, _: SocketAddr, _: SocketAddr, _: &str) -> Option<u64> {
        None
    }

    fn counter(&self, name: &str) -> Option<u64> {
        let drops = self.stack.drops().iter();
        let mut drops = drops.map(|(reason, count)| (reason.name(), count));
        let events = self.stack.events().iter();
        let mut events = events.map(|(event, count)| (event.name(), count));
        let found = drops.find(|(it, _)| *it == name);
        found
            .or_else(|| events.find(|(it, _)| *it == name))
            .map(|(_, count)| count)
    }

    fn inject(&mut self, frame: &[u8]) {
        let frame = self.pool.receive(frame).expect("a free frame");
        self.stack
            .ingest(&mut self.pool, frame, Origin::Ring, self.now);
    }

    fn advance(&mut self, to: Instant) {
        self.now = to;
        self.stack.expire(&mut self.pool, to);
        while self.stack.tcp_next_ready().is_some() {}
        self.stack.tcp_transmit(&mut self.pool, to);
        let mut sent: Vec<HeapFrame> = Vec::new();
        self.stack.egress(|frame| {
            sent.push(frame);
            Ok(())
        });
        for frame in sent {
            self.out.push(frame.data().to_vec());
            self.pool.give(frame);
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        // What is not TCP's does not matter to a script.
        self.stack.tcp_next_deadline()
    }

    fn emitted(&mut self) -> Vec<Vec<u8>> {
        core::mem::take(&mut self.out)
    }

    fn finish(&mut self) -> Result<(), String> {
        match self.pool.in_use() {
            0 => Ok(()),
            frames => Err(format!("{frames} frames are lost")),
        }
    }
}
