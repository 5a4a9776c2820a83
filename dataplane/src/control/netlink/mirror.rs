//! Reading the whole, and following changes.

use super::{
    MirrorConfig, MirrorError, MirrorEvent,
    dump::{Dumper, TABLE_LOCAL, TABLE_MAIN, table_of},
    interface::{self, Interface},
    neighbors::{self, Neighbors, RequestLimit},
    routes,
};
use futures_util::{Stream, StreamExt};
use rtnetlink::{
    MulticastGroup, new_multicast_connection,
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        neighbour::NeighbourMessage,
        route::{RouteFlags, RouteMessage},
    },
    sys::{AsyncSocket, SocketAddr},
};
use rustix::net::sockopt;
use stack::{
    ip::route::{Route, RouteKind, RouteTable, RouteTableError},
    link::{LinkState, LocalAddress, NeighborUpdate},
};
use std::{
    io,
    net::IpAddr,
    pin::Pin,
    time::{Duration, Instant},
};
use tokio::{sync::mpsc, task::JoinHandle};

/// How long the mirror waits after the first notification before it reads the whole, so that a
/// burst (`ip addr add` makes five to ten messages) is read once. Too low: intermediate states are
/// published; too high: packets follow the old state for that long.
const DEBOUNCE: Duration = Duration::from_millis(5);

/// Share of its time the mirror spends reading when routes never stop changing: one part in this
/// many. A full internet table takes about a second to read, and is then read every ten.
const READ_SHARE: u32 = 10;

/// How long the mirror waits after the kernel could not answer (out of memory).
const RETRY: Duration = Duration::from_secs(1);

/// Receive buffer of the notification socket, in bytes. The kernel charges about 1 KiB for a
/// message, so this is a burst of some thousand; a longer one costs a full read.
const EVENT_BUFFER_BYTES: usize = 4 << 20;

/// Neighbour requests that may wait for the mirror. They are drained at once; one that finds no
/// room is repeated by the stack, which asks again for every packet that needs it.
const REQUEST_QUEUE: usize = 1024;

/// What the kernel announces. Rules are missing on purpose: they are not mirrored.
const GROUPS: [MulticastGroup; 6] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Neigh,
];

type Event = NetlinkMessage<RouteNetlinkMessage>;

/// A subscription to everything in [`GROUPS`].
struct Events {
    messages: Pin<Box<dyn Stream<Item = (Event, SocketAddr)> + Send>>,
    connection: JoinHandle<()>,
}

impl Events {
    fn subscribe() -> Result<Self, MirrorError> {
        let (mut connection, _, messages) =
            new_multicast_connection(&GROUPS).map_err(MirrorError::Socket)?;
        let socket = connection.socket_mut().socket_mut();
        // Beyond net.core.rmem_max only with CAP_NET_ADMIN; without, as much as there is.
        let enlarged = sockopt::set_socket_recv_buffer_size_force(&*socket, EVENT_BUFFER_BYTES)
            .or_else(|_| sockopt::set_socket_recv_buffer_size(&*socket, EVENT_BUFFER_BYTES));
        if let Err(error) = enlarged {
            tracing::debug!(%error, "the netlink buffer keeps its size: bursts cost full reads");
        }
        Ok(Self {
            messages: Box::pin(messages),
            connection: tokio::spawn(connection),
        })
    }

    async fn next(&mut self) -> Option<NetlinkPayload<RouteNetlinkMessage>> {
        self.messages
            .next()
            .await
            .map(|(message, _)| message.payload)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// What was read at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) interface: Interface,
    addresses: Vec<LocalAddress>,
    /// Longest prefixes first.
    routes: Vec<Route>,
}

/// Reads the addresses and routes of `interface`.
pub(super) async fn read(dumper: &Dumper, interface: Interface) -> Result<Read, MirrorError> {
    let Some(index) = interface.index else {
        return Ok(Read {
            interface,
            addresses: Vec::new(),
            routes: Vec::new(),
        });
    };
    let addresses = interface::addresses(&dumper.addresses(index).await?);
    let routes = routes::routes(&dumper.routes().await?, index);
    Ok(Read {
        interface,
        addresses,
        routes,
    })
}

impl Read {
    pub(super) fn link_state(&self, config: &MirrorConfig) -> LinkState {
        let Self {
            interface:
                Interface {
                    parent: _,
                    index: _,
                    outer_tag_type: _,
                    mac,
                    mtu,
                    up,
                },
            addresses,
            routes,
        } = self;
        LinkState {
            mac: *mac,
            mtu: *mtu,
            up: *up,
            addresses: addresses.clone(),
            routes: route_table(routes.clone(), config),
        }
    }
}

/// The table of these routes, longest prefixes first. Whatever had to be left out, no packet leaves
/// where the kernel would not send it.
fn route_table(mut routes: Vec<Route>, config: &MirrorConfig) -> RouteTable {
    let MirrorConfig {
        interface,
        vlans: _,
        vlan_optional: _,
        route_limit,
    } = config;
    if routes.len() > *route_limit {
        tracing::error!(
            interface,
            routes = routes.len(),
            limit = route_limit,
            "more routes than the limit allows: those with the shortest prefixes are left out, \
             the default route first; raise limits.routes"
        );
        routes.truncate(*route_limit);
    }
    loop {
        match RouteTable::new(routes.clone(), *route_limit) {
            Ok(table) => return table,
            Err(RouteTableError::Invalid { route, error: _ }) => {
                // Leaving it out would let its packets follow the route around it.
                tracing::warn!(interface, %route, "a route of the kernel that we cannot follow");
                for have in routes.iter_mut().filter(|have| **have == route) {
                    *have = Route {
                        gateway: None,
                        preferred_source: None,
                        kind: RouteKind::ElsewhereInterface,
                        ..route.clone()
                    };
                }
            }
            Err(error @ RouteTableError::TooMany { .. }) => {
                tracing::error!(interface, %error, "no routes");
                return RouteTable::default();
            }
        }
    }
}

/// Asks the mirror for neighbours, from any thread.
#[derive(Clone, Debug)]
pub struct MirrorHandle(mpsc::Sender<IpAddr>);

impl MirrorHandle {
    /// Asks the kernel to resolve or refresh a neighbour; the answer is a `Neighbor` event. If the
    /// mirror knows the neighbour, it says so at once and lets the kernel check. The kernel is
    /// asked at most once a second for each address, and for at most 512 addresses a second.
    ///
    /// Never blocks. `false` if too many requests are waiting, or the mirror has ended.
    pub fn request_neighbor(&self, address: IpAddr) -> bool {
        self.0.try_send(address).is_ok()
    }
}

/// The mirror. [`open`](Self::open) reads the first state, [`run`](Self::run) follows changes.
pub struct Mirror {
    config: MirrorConfig,
    dumper: Dumper,
    events: Events,
    requests: mpsc::Receiver<IpAddr>,
    /// What was last published; `None` while there is no interface.
    current: Option<Read>,
    neighbors: Neighbors,
    request_limit: RequestLimit,
    /// When the whole is read next, if anything has changed.
    read_at: Option<Instant>,
    /// Reading earlier than this would take too large a share of the time.
    rest_until: Instant,
    /// Whether notifications were lost.
    lost: bool,
}

impl std::fmt::Debug for Mirror {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mirror")
            .field("config", &self.config)
            .field("current", &self.current)
            .field("neighbors", &self.neighbors)
            .finish_non_exhaustive()
    }
}

impl Mirror {
    /// Subscribes to changes and reads the first state. Must be called within a tokio runtime, in
    /// the network namespace of the interface.
    ///
    /// # Errors
    /// There is no such interface, no such VLAN sub-interface, it is not Ethernet, or netlink fails.
    pub async fn open(config: MirrorConfig) -> Result<(Self, MirrorHandle), MirrorError> {
        // Subscribe first: what changes while the tables are read is then announced as well.
        let events = Events::subscribe()?;
        let (sender, requests) = mpsc::channel(REQUEST_QUEUE);
        let dumper = Dumper::open()?;
        let interface = Interface::find(&dumper.links().await?, &config, None)?;
        let current = read(&dumper, interface).await?;
        let mut mirror = Self {
            config,
            dumper,
            events,
            requests,
            current: Some(current),
            neighbors: Neighbors::default(),
            request_limit: RequestLimit::default(),
            read_at: None,
            rest_until: Instant::now(),
            lost: false,
        };
        mirror.read_neighbors().await?;
        Ok((mirror, MirrorHandle(sender)))
    }

    /// The link as last read; `None` while there is no interface.
    #[must_use]
    pub fn link_state(&self) -> Option<LinkState> {
        self.current
            .as_ref()
            .map(|read| read.link_state(&self.config))
    }

    /// Index of the interface whose queues we use; `None` while there is none.
    #[must_use]
    pub fn interface_index(&self) -> Option<u32> {
        self.current.as_ref().map(|read| read.interface.parent)
    }

    /// EtherType of the outer VLAN tag of the sub-interface's frames; `None` where there is none.
    #[must_use]
    pub fn outer_tag_type(&self) -> Option<u16> {
        self.current
            .as_ref()
            .and_then(|read| read.interface.outer_tag_type)
    }

    /// How many neighbours are known.
    #[must_use]
    pub fn neighbors(&self) -> usize {
        self.neighbors.len()
    }

    /// Publishes the first state, `Link` and then every neighbour, and after that every change,
    /// until nobody receives events any more.
    ///
    /// # Errors
    /// The netlink socket broke.
    pub async fn run(mut self, out: mpsc::Sender<MirrorEvent>) -> Result<(), MirrorError> {
        match self.follow(&out).await {
            Err(Stop::NobodyListens) => Ok(()),
            Err(Stop::Broken(error)) => Err(error),
        }
    }

    async fn follow(&mut self, out: &mpsc::Sender<MirrorEvent>) -> Result<Never, Stop> {
        if let Some(state) = self.link_state() {
            out.send(MirrorEvent::Link(state)).await?;
        }
        for update in self.neighbors.iter() {
            out.send(MirrorEvent::Neighbor(update)).await?;
        }
        let mut requests_open = true;
        loop {
            let read_at = self.read_at;
            let due = async {
                match read_at {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = out.closed() => return Err(Stop::NobodyListens),
                event = self.events.next() => match event {
                    Some(payload) => self.on_event(payload, out).await?,
                    None => return Err(Stop::Broken(MirrorError::closed())),
                },
                request = self.requests.recv(), if requests_open => match request {
                    Some(address) => self.on_request(address, out).await?,
                    None => requests_open = false,
                },
                () = due => self.read_again(out).await?,
            }
        }
    }

    async fn on_event(
        &mut self,
        payload: NetlinkPayload<RouteNetlinkMessage>,
        out: &mpsc::Sender<MirrorEvent>,
    ) -> Result<(), Stop> {
        use RouteNetlinkMessage::{
            DelAddress, DelLink, DelNeighbour, DelRoute, NewAddress, NewLink, NewNeighbour,
            NewRoute,
        };
        match payload {
            NetlinkPayload::Overrun(_) => {
                tracing::info!(
                    interface = self.config.interface,
                    "the kernel announced more than fits: everything is read again"
                );
                self.lost = true;
                self.schedule(DEBOUNCE);
            }
            NetlinkPayload::InnerMessage(NewNeighbour(message)) => {
                self.on_neighbor(&message, false, out).await?;
            }
            NetlinkPayload::InnerMessage(DelNeighbour(message)) => {
                self.on_neighbor(&message, true, out).await?;
            }
            NetlinkPayload::InnerMessage(NewRoute(route) | DelRoute(route))
                if is_mirrored(&route) =>
            {
                self.schedule(DEBOUNCE);
            }
            // Another link may carry ours, and another interface's address is one we must not send
            // to: whichever changes, the whole may.
            NetlinkPayload::InnerMessage(
                NewLink(_) | DelLink(_) | NewAddress(_) | DelAddress(_),
            ) => self.schedule(DEBOUNCE),
            _ => {}
        }
        Ok(())
    }

    async fn on_neighbor(
        &mut self,
        message: &NeighbourMessage,
        deleted: bool,
        out: &mpsc::Sender<MirrorEvent>,
    ) -> Result<(), Stop> {
        let ours = self
            .current
            .as_ref()
            .is_some_and(|r| r.interface.index == Some(message.header.ifindex));
        let news = ours.then(|| neighbors::news(message, deleted)).flatten();
        let update = news.and_then(|(address, news)| self.neighbors.apply(address, news));
        if let Some(update) = update {
            out.send(MirrorEvent::Neighbor(update)).await?;
        }
        Ok(())
    }

    async fn on_request(
        &mut self,
        address: IpAddr,
        out: &mpsc::Sender<MirrorEvent>,
    ) -> Result<(), Stop> {
        let Some(index) = self.current.as_ref().and_then(|read| read.interface.index) else {
            return Ok(());
        };
        if !neighbors::can_be_neighbor(address) {
            return Ok(());
        }
        if let Some(mac) = self.neighbors.get(address) {
            out.send(MirrorEvent::Neighbor(NeighborUpdate::Set { address, mac }))
                .await?;
        }
        if self.request_limit.admit(address, Instant::now()) {
            self.dumper.use_neighbor(index, address)?;
        }
        Ok(())
    }

    fn schedule(&mut self, delay: Duration) {
        let at = (Instant::now() + delay).max(self.rest_until);
        self.read_at = Some(self.read_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// Reads the whole and publishes what differs.
    async fn read_again(&mut self, out: &mpsc::Sender<MirrorEvent>) -> Result<(), Stop> {
        self.read_at = None;
        let start = Instant::now();
        let result = self.publish_differences(out).await;
        let end = Instant::now();
        self.rest_until = end + (end - start) * (READ_SHARE - 1);
        match result {
            Err(Stop::Broken(MirrorError::Refused { what, error })) => {
                // ENODEV: the interface went between two questions; the next reading sees that.
                let gone = error.raw_os_error() == Some(libc::ENODEV);
                if !gone {
                    tracing::warn!(%error, "the kernel did not list {what}; asking again");
                }
                self.schedule(if gone { DEBOUNCE } else { RETRY });
                Ok(())
            }
            Err(Stop::Broken(error @ MirrorError::Unsteady { .. })) => {
                tracing::warn!(%error, "reading again");
                self.schedule(DEBOUNCE);
                Ok(())
            }
            other => other,
        }
    }

    async fn publish_differences(&mut self, out: &mpsc::Sender<MirrorEvent>) -> Result<(), Stop> {
        if self.lost {
            // What still waits in the old subscription is older than what is about to be read, and
            // would never be corrected: what came after it is lost.
            self.events = Events::subscribe()?;
        }
        let known = self.current.as_ref().map(|read| read.interface.parent);
        let links = self.dumper.links().await?;
        let found = match Interface::find(&links, &self.config, known) {
            Ok(interface) => Some(interface),
            Err(
                MirrorError::NoInterface { .. }
                | MirrorError::NoVlan { .. }
                | MirrorError::NotEthernet { .. },
            ) => None,
            Err(error) => return Err(error.into()),
        };
        let same = |interface: &Interface, read: &Read| {
            let (new, old) = (interface, &read.interface);
            // A sub-interface that comes where none was needed adds to what there is, one that goes
            // takes away; but frames are made with tags of the type they had at the start.
            let comes_or_goes = new.index.is_some() != old.index.is_some();
            let same_tags =
                new.outer_tag_type.is_none() || new.outer_tag_type == old.outer_tag_type;
            new.parent == old.parent && (new.index == old.index || (comes_or_goes && same_tags))
        };
        let other = match (&found, &self.current) {
            (Some(interface), Some(read)) => !same(interface, read),
            (None, Some(_)) => true,
            (_, None) => false,
        };
        if other {
            self.current = None;
            for update in self.neighbors.replace(&[]) {
                out.send(MirrorEvent::Neighbor(update)).await?;
            }
            out.send(MirrorEvent::Gone).await?;
        }
        let Some(interface) = found else {
            return Ok(());
        };
        let read = read(&self.dumper, interface).await?;
        let known = self.current.as_ref().map(|known| known.interface.index);
        let is_new = known != Some(read.interface.index);
        if self.current.as_ref() != Some(&read) {
            let state = read.link_state(&self.config);
            self.current = Some(read);
            out.send(MirrorEvent::Link(state)).await?;
        }
        // Until this has succeeded, nothing is known about the neighbours.
        self.lost |= is_new;
        if self.lost {
            let changes = self.read_neighbors().await?;
            self.lost = false;
            for update in changes {
                out.send(MirrorEvent::Neighbor(update)).await?;
            }
        }
        Ok(())
    }

    /// Reads all neighbours; returns what differs from what was known.
    async fn read_neighbors(&mut self) -> Result<Vec<NeighborUpdate>, MirrorError> {
        let Some(index) = self.current.as_ref().and_then(|read| read.interface.index) else {
            return Ok(self.neighbors.replace(&[]));
        };
        let table = self.dumper.neighbors(index).await?;
        let table: Vec<_> = table
            .iter()
            .filter_map(|message| neighbors::news(message, false))
            .collect();
        Ok(self.neighbors.replace(&table))
    }
}

/// Whether a route is in a table we mirror. Learned exceptions are announced too, and often.
fn is_mirrored(route: &RouteMessage) -> bool {
    let table = table_of(route);
    let mirrored = table == u32::from(TABLE_MAIN) || table == u32::from(TABLE_LOCAL);
    mirrored && !route.header.flags.contains(RouteFlags::Cloned)
}

/// What following never ends with.
enum Never {}

/// What following ends with.
enum Stop {
    /// The receiver of events is gone: this is how a mirror is stopped.
    NobodyListens,
    /// It cannot go on.
    Broken(MirrorError),
}

impl From<mpsc::error::SendError<MirrorEvent>> for Stop {
    fn from(_: mpsc::error::SendError<MirrorEvent>) -> Self {
        Self::NobodyListens
    }
}

impl From<MirrorError> for Stop {
    fn from(error: MirrorError) -> Self {
        Self::Broken(error)
    }
}

impl MirrorError {
    pub(super) fn closed() -> Self {
        Self::Socket(io::Error::new(
            io::ErrorKind::BrokenPipe,
            "closed by the kernel",
        ))
    }
}
