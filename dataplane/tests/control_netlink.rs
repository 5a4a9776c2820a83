//! The netlink mirror against the running kernel, in network namespaces of its own.
// The lint knows test functions, but not what helps them.
#![allow(clippy::unwrap_used)]

mod namespace;

use dataplane::control::netlink::{
    Mirror, MirrorConfig, MirrorError, MirrorEvent, MirrorHandle, snapshot,
};
use namespace::Namespace;
use stack::{
    ip::route::{Route, RouteKind},
    link::{AddressOwner, LinkState, LocalAddress, NeighborUpdate},
};
use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    process::Command,
    sync::mpsc as std_mpsc,
    thread,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// How long a test waits for the kernel before it fails. Never reached when all is well.
const PATIENCE: Duration = Duration::from_secs(20);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Skips by name where the test cannot run.
fn allowed(test: &str) -> bool {
    let allowed = Namespace::new().is_some();
    if !allowed {
        eprintln!("skipped: {test}: needs root (CAP_NET_ADMIN)");
    }
    allowed
}

type Job = Box<dyn FnOnce() + Send>;

/// A mirror in its own thread, and what it has told so far.
struct Following {
    events: std_mpsc::Receiver<MirrorEvent>,
    handle: MirrorHandle,
    /// Runs something on the mirror's own thread, so that the mirror stands still meanwhile.
    pause: mpsc::Sender<Job>,
    link: Option<LinkState>,
    links_seen: usize,
    neighbors: HashMap<IpAddr, [u8; 6]>,
    /// Every neighbour ever removed.
    removed: HashSet<IpAddr>,
    gone: usize,
}

impl Following {
    fn start(namespace: &Namespace, config: MirrorConfig) -> Self {
        let (to_test, events) = std_mpsc::channel();
        let (ready, started) = std_mpsc::channel();
        let (pause, mut pauses) = mpsc::channel::<Job>(1);
        let namespace = namespace.clone();
        thread::spawn(move || {
            namespace.enter().unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let (mirror, handle) = Mirror::open(config).await.unwrap();
                assert!(mirror.interface_index().is_some());
                ready.send(handle).unwrap();
                let (out, mut received) = mpsc::channel(16);
                let running = tokio::spawn(mirror.run(out));
                loop {
                    tokio::select! {
                        event = received.recv() => match event {
                            Some(event) => if to_test.send(event).is_err() { break },
                            None => break,
                        },
                        Some(job) = pauses.recv() => job(),
                    }
                }
                drop(received);
                // Dropping the receiver is how a mirror is stopped.
                running.await.unwrap().unwrap();
            });
        });
        let handle = started
            .recv_timeout(PATIENCE)
            .expect("the mirror did not open");
        let mut following = Self {
            events,
            handle,
            pause,
            link: None,
            links_seen: 0,
            neighbors: HashMap::new(),
            removed: HashSet::new(),
            gone: 0,
        };
        following.until("the first state", |f| f.link.is_some());
        following
    }

    fn take_in(&mut self, event: MirrorEvent) {
        match event {
            MirrorEvent::Link(state) => {
                self.link = Some(state);
                self.links_seen += 1;
            }
            MirrorEvent::Neighbor(NeighborUpdate::Set { address, mac }) => {
                self.neighbors.insert(address, mac);
            }
            MirrorEvent::Neighbor(NeighborUpdate::Remove { address }) => {
                self.neighbors.remove(&address);
                self.removed.insert(address);
            }
            MirrorEvent::Gone => {
                assert!(
                    self.neighbors.is_empty(),
                    "neighbours of nothing: {:?}",
                    self.neighbors
                );
                self.link = None;
                self.gone += 1;
            }
        }
    }

    /// Takes events in until `condition` holds.
    fn until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(self) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(event) => self.take_in(event),
                Err(_) => panic!(
                    "{what} did not come; link {:?}, neighbours {:?}, gone {}",
                    self.link, self.neighbors, self.gone
                ),
            }
        }
    }

    /// Asks for a neighbour again and again, as the stack does while it has packets for it, until
    /// `condition` holds.
    fn ask_until(&mut self, address: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(self) {
            assert!(Instant::now() < deadline, "{address}: {:?}", self.neighbors);
            assert!(self.handle.request_neighbor(ip(address)));
            while let Ok(event) = self.events.recv_timeout(Duration::from_millis(250)) {
                self.take_in(event);
                if condition(self) {
                    return;
                }
            }
        }
    }

    /// Takes in what comes until nothing has come for a while.
    fn settle(&mut self) {
        while let Ok(event) = self.events.recv_timeout(Duration::from_millis(300)) {
            self.take_in(event);
        }
    }

    fn link(&self) -> &LinkState {
        self.link.as_ref().expect("the interface is gone")
    }

    fn has_address(&self, address: &str) -> bool {
        self.link
            .as_ref()
            .is_some_and(|l| l.addresses.iter().any(|a| a.address == ip(address)))
    }

    fn route(&self, destination: &str) -> Option<Route> {
        self.link
            .as_ref()?
            .routes
            .lookup_ip(ip(destination))
            .cloned()
    }

    fn kind(&self, destination: &str) -> Option<RouteKind> {
        self.route(destination).map(|route| route.kind)
    }
}

fn config(interface: &str) -> MirrorConfig {
    MirrorConfig {
        interface: interface.into(),
        vlans: Vec::new(),
        vlan_optional: false,
        route_limit: 1024,
    }
}

/// Two namespaces joined by a link: ours with `left`, 192.0.2.1 and 2001:db8::1; the peer's with
/// `right`, 192.0.2.2 and 2001:db8::2.
fn pair() -> (Namespace, Namespace) {
    let (ours, peers) = (Namespace::new().unwrap(), Namespace::new().unwrap());
    for namespace in [&ours, &peers] {
        // Addresses are usable at once, and nothing but the test makes routes.
        namespace.sysctl("ipv6/conf/default/accept_dad", "0");
        namespace.sysctl("ipv6/conf/default/accept_ra", "0");
    }
    ours.ip(&format!(
        "link add left type veth peer name right netns {}",
        peers.path()
    ));
    for (namespace, name, host) in [(&ours, "left", 1), (&peers, "right", 2)] {
        namespace.ip(&format!(
            "addr add 192.0.2.{host}/24 brd 192.0.2.255 dev {name}"
        ));
        namespace.ip(&format!("addr add 2001:db8::{host}/64 dev {name} nodad"));
        namespace.ip(&format!("link set {name} up"));
    }
    (ours, peers)
}

#[test]
fn first_state_is_whole() {
    if !allowed("first_state_is_whole") {
        return;
    }
    let (ours, _peers) = pair();
    ours.ip("link set left address 02:00:5e:00:53:01 mtu 1400");
    ours.ip("route add default via 192.0.2.254 metric 7");
    ours.ip("route add 203.0.113.0/24 via inet6 2001:db8::fe dev left");
    ours.ip("route add 198.51.100.0/24 via 192.0.2.253 src 192.0.2.1 mtu 1300");
    ours.ip("route add blackhole 10.66.0.0/16");
    ours.ip("route add unreachable 10.67.0.0/16");
    ours.ip("route add prohibit 10.68.0.0/16");
    ours.ip("neigh add 192.0.2.77 lladdr 02:00:5e:00:53:77 dev left nud permanent");
    let mut following = Following::start(&ours, config("left"));
    following.until("the neighbour", |f| {
        f.neighbors.contains_key(&ip("192.0.2.77"))
    });
    following.until("the carrier", |f| {
        f.link().up && f.kind("fe80::9").is_some()
    });
    following.settle();

    let link = following.link().clone();
    assert_eq!(link.mac, [0x02, 0, 0x5e, 0, 0x53, 0x01]);
    assert_eq!(link.mtu, 1400);
    assert!(link.addresses.contains(&LocalAddress {
        address: ip("192.0.2.1"),
        prefix_len: 24,
        broadcast: Some("192.0.2.255".parse().unwrap()),
        owner: AddressOwner::Kernel,
    }));
    assert!(link.addresses.contains(&LocalAddress {
        address: ip("2001:db8::1"),
        prefix_len: 64,
        broadcast: None,
        owner: AddressOwner::Kernel,
    }));
    let route = |destination| following.route(destination).unwrap();
    assert_eq!(route("192.0.2.9").kind, RouteKind::Unicast);
    assert_eq!(route("192.0.2.9").gateway, None);
    assert_eq!(route("192.0.2.9").preferred_source, Some(ip("192.0.2.1")));
    assert_eq!(route("8.8.8.8").gateway, Some(ip("192.0.2.254")));
    assert_eq!(route("8.8.8.8").metric, 7);
    assert_eq!(route("203.0.113.1").gateway, Some(ip("2001:db8::fe")));
    assert_eq!(route("198.51.100.1").mtu, Some(1300));
    assert_eq!(
        route("198.51.100.1").preferred_source,
        Some(ip("192.0.2.1"))
    );
    assert_eq!(route("10.66.1.1").kind, RouteKind::Blackhole);
    assert_eq!(route("10.67.1.1").kind, RouteKind::Unreachable);
    assert_eq!(route("10.68.1.1").kind, RouteKind::Prohibit);
    assert_eq!(route("2001:db8::9").kind, RouteKind::Unicast);
    assert_eq!(route("fe80::9").kind, RouteKind::Unicast);
    assert_eq!(route("ff02::1").kind, RouteKind::Unicast);
    // What is local never leaves.
    for local in ["127.0.0.1", "192.0.2.1", "2001:db8::1"] {
        assert_eq!(route(local).kind, RouteKind::ElsewhereInterface, "{local}");
    }

    let once = ours.run(|| snapshot(&config("left"))).unwrap();
    assert_eq!(format!("{once:?}"), format!("{link:?}"));
}

#[test]
fn addresses_come_and_go() {
    if !allowed("addresses_come_and_go") {
        return;
    }
    let (ours, _peers) = pair();
    let mut following = Following::start(&ours, config("left"));
    ours.ip("addr add 198.51.100.7/25 dev left");
    following.until("the address", |f| f.has_address("198.51.100.7"));
    assert_eq!(
        following.kind("198.51.100.8"),
        Some(RouteKind::Unicast),
        "and its route"
    );
    ours.ip("addr del 198.51.100.7/25 dev left");
    following.until("its removal", |f| !f.has_address("198.51.100.7"));
    assert_eq!(following.kind("198.51.100.8"), None);
    // One that duplicate address detection still looks at is not ours yet.
    ours.sysctl("ipv6/conf/left/accept_dad", "1");
    ours.ip("addr add 2001:db8:1::7/64 dev left");
    following.until("the address", |f| f.has_address("2001:db8:1::7"));
    ours.ip("addr del 2001:db8:1::7/64 dev left");
    following.until("its removal", |f| !f.has_address("2001:db8:1::7"));
}

#[test]
fn routes_come_change_and_go() {
    if !allowed("routes_come_change_and_go") {
        return;
    }
    let (ours, _peers) = pair();
    let mut following = Following::start(&ours, config("left"));
    for (destination, host, gateways) in [
        (
            "198.51.100.0/24",
            "198.51.100.1",
            ["192.0.2.250", "192.0.2.251"],
        ),
        (
            "2001:db8:5::/48",
            "2001:db8:5::1",
            ["2001:db8::250", "2001:db8::251"],
        ),
    ] {
        for (action, gateway) in [("add", gateways[0]), ("replace", gateways[1])] {
            ours.ip(&format!(
                "route {action} {destination} via {gateway} dev left"
            ));
            following.until("the route", |f| {
                f.route(host)
                    .is_some_and(|route| route.gateway == Some(ip(gateway)))
            });
        }
        // A better one takes over, and gives back.
        ours.ip(&format!(
            "route add {destination} via {} dev left metric 1",
            gateways[0]
        ));
        ours.ip("route add 192.0.2.128/25 dev left metric 3");
        following.until("the second change", |f| {
            f.route("192.0.2.129").unwrap().metric == 3
        });
        let metric_1_wins = ip(host).is_ipv6();
        let gateway = following.route(host).unwrap().gateway;
        // IPv4 routes have metric 0 unless told, IPv6 ones 1024.
        assert_eq!(gateway, Some(ip(gateways[usize::from(!metric_1_wins)])));
        ours.ip("route del 192.0.2.128/25");
        ours.ip(&format!("route del {destination} metric 1"));
        ours.ip(&format!("route del {destination}"));
        following.until("its removal", |f| f.route(host).is_none());
    }
    // Other tables are none of our business.
    following.settle();
    let seen = following.links_seen;
    ours.ip("route add 198.51.100.0/24 via 192.0.2.250 table 77");
    following.settle();
    assert_eq!(following.links_seen, seen);
}

#[test]
fn routes_that_leave_elsewhere_are_not_ours() {
    if !allowed("routes_that_leave_elsewhere_are_not_ours") {
        return;
    }
    let (ours, _peers) = pair();
    ours.ip("link add other type veth peer name other-peer");
    ours.ip("link set other up");
    ours.ip("link set other-peer up");
    ours.ip("addr add 172.16.0.1/16 dev other");
    ours.ip("addr add 2001:db8:f::1/64 dev other nodad");
    ours.ip("route add default via 192.0.2.254");
    let mut following = Following::start(&ours, config("left"));
    assert_eq!(following.kind("9.9.9.9"), Some(RouteKind::Unicast));
    assert_eq!(
        following.kind("172.16.3.4"),
        Some(RouteKind::ElsewhereInterface)
    );
    assert_eq!(following.kind("172.17.3.4"), Some(RouteKind::Unicast));

    ours.ip("route add 198.51.100.128/25 dev other");
    ours.ip("route add 198.51.100.192/26 via 192.0.2.253");
    following.until("the inner routes", |f| {
        f.kind("198.51.100.129") == Some(RouteKind::ElsewhereInterface)
            && f.route("198.51.100.193").and_then(|r| r.gateway) == Some(ip("192.0.2.253"))
    });
    assert_eq!(following.kind("198.51.100.1"), Some(RouteKind::Unicast));
    // Another link's link-local prefix is not ours, and ours is not another's.
    // It comes with the carrier.
    following.until("our own", |f| {
        f.kind("fe80::1234") == Some(RouteKind::Unicast)
    });

    // A multipath route is ours if one nexthop is.
    ours.ip("route add 100.64.0.0/10 nexthop dev other nexthop via 192.0.2.252 dev left");
    ours.ip(
        "-6 route add 2001:db8:7::/48 nexthop via 2001:db8:f::2 dev other \
         nexthop via 2001:db8::252 dev left",
    );
    following.until("the multipath routes", |f| {
        f.route("100.64.0.1").and_then(|r| r.gateway) == Some(ip("192.0.2.252"))
            && f.route("2001:db8:7::1").and_then(|r| r.gateway) == Some(ip("2001:db8::252"))
    });
    ours.ip("route replace 100.64.0.0/10 nexthop dev other weight 1 nexthop dev other weight 2");
    following.until("the other multipath", |f| {
        f.kind("100.64.0.1") == Some(RouteKind::ElsewhereInterface)
    });

    // A better default elsewhere: then we have none.
    ours.ip("route add 0.0.0.0/1 dev other");
    following.until("half the world elsewhere", |f| {
        f.kind("9.9.9.9") == Some(RouteKind::ElsewhereInterface)
    });
    assert_eq!(following.kind("200.9.9.9"), Some(RouteKind::Unicast));
    ours.ip("route del 0.0.0.0/1");
    following.until("it back", |f| f.kind("9.9.9.9") == Some(RouteKind::Unicast));
}

#[test]
fn too_many_routes_lose_the_shortest_prefixes() {
    if !allowed("too_many_routes_lose_the_shortest_prefixes") {
        return;
    }
    let (ours, _peers) = pair();
    ours.ip("route add default via 192.0.2.254");
    let all = ours.run(|| snapshot(&config("left"))).unwrap();
    assert_eq!(
        all.routes.lookup_ip(ip("9.9.9.9")).unwrap().kind,
        RouteKind::Unicast
    );
    let limit = all.routes.routes().len() - 1;
    let some = ours.run(move || {
        snapshot(&MirrorConfig {
            route_limit: limit,
            ..config("left")
        })
    });
    let some = some.unwrap();
    assert_eq!(some.routes.routes().len(), limit);
    assert!(some.routes.lookup_ip(ip("9.9.9.9")).is_none());
    assert!(some.routes.lookup_ip(ip("192.0.2.9")).is_some());
}

#[test]
fn neighbors_are_learned_and_lost() {
    if !allowed("neighbors_are_learned_and_lost") {
        return;
    }
    let (ours, peers) = pair();
    peers.ip("link set right address 02:00:5e:00:53:02");
    let mac = [0x02, 0, 0x5e, 0, 0x53, 0x02];
    // Fail after one second, not three.
    for key in [
        "ipv4/neigh/left/mcast_solicit",
        "ipv6/neigh/left/mcast_solicit",
    ] {
        ours.sysctl(key, "1");
    }
    let mut following = Following::start(&ours, config("left"));
    following.until("the carrier", |f| f.link().up);
    for address in ["192.0.2.2", "2001:db8::2"] {
        following.ask_until(address, |f| f.neighbors.get(&ip(address)) == Some(&mac));
        // Asked again, the mirror repeats what it knows.
        following.neighbors.remove(&ip(address));
        assert!(following.handle.request_neighbor(ip(address)));
        following.until("the repetition", |f| {
            f.neighbors.get(&ip(address)) == Some(&mac)
        });
    }
    // Nobody there: that is told, though it was never known.
    following.ask_until("192.0.2.99", |f| f.removed.contains(&ip("192.0.2.99")));
    following.ask_until("2001:db8::99", |f| f.removed.contains(&ip("2001:db8::99")));
    // A group and nobody are no neighbours; nothing happens.
    assert!(following.handle.request_neighbor(ip("224.0.0.1")));
    assert!(following.handle.request_neighbor(ip("0.0.0.0")));

    ours.ip("neigh replace 192.0.2.2 lladdr 02:00:5e:00:53:03 dev left nud reachable");
    following.until("its move", |f| {
        f.neighbors[&ip("192.0.2.2")] == [0x02, 0, 0x5e, 0, 0x53, 0x03]
    });
    ours.ip("neigh del 192.0.2.2 dev left");
    following.until("its removal", |f| {
        !f.neighbors.contains_key(&ip("192.0.2.2"))
    });

    // A peer that answers no more fails, and is removed.
    peers.ip("addr del 192.0.2.2/24 dev right");
    for key in [
        "ipv4/neigh/left/ucast_solicit",
        "ipv4/neigh/left/delay_first_probe_time",
    ] {
        ours.sysctl(key, "1");
    }
    ours.ip("neigh replace 192.0.2.2 lladdr 02:00:5e:00:53:02 dev left nud stale");
    following.until("the stale neighbour", |f| {
        f.neighbors.get(&ip("192.0.2.2")) == Some(&mac)
    });
    following.ask_until("192.0.2.2", |f| !f.neighbors.contains_key(&ip("192.0.2.2")));
    assert!(!following.neighbors.contains_key(&ip("192.0.2.99")));
    assert!(!following.neighbors.contains_key(&ip("224.0.0.1")));
}

#[test]
fn link_follows_mtu_address_carrier_and_admin() {
    if !allowed("link_follows_mtu_address_carrier_and_admin") {
        return;
    }
    let (ours, peers) = pair();
    let mut following = Following::start(&ours, config("left"));
    following.until("the carrier", |f| f.link().up);
    ours.ip("link set left mtu 1300");
    following.until("the MTU", |f| f.link().mtu == 1300);
    ours.ip("link set left address 02:00:5e:00:53:99");
    following.until("the address", |f| {
        f.link().mac == [0x02, 0, 0x5e, 0, 0x53, 0x99]
    });
    peers.ip("link set right down");
    following.until("the lost carrier", |f| !f.link().up);
    peers.ip("link set right up");
    following.until("the carrier back", |f| f.link().up);
    ours.ip("link set left down");
    // The kernel announces the link, but not the IPv4 routes that went with it.
    following.until("the link down", |f| {
        !f.link().up && f.route("192.0.2.9").is_none()
    });
    ours.ip("link set left up");
    following.until("the link up", |f| {
        f.link().up && f.route("192.0.2.9").is_some()
    });
    // Renamed, it is still the same interface.
    ours.ip("link set left down");
    ours.ip("link set left name wire");
    ours.ip("link set wire mtu 1200 up");
    following.until("the renamed link", |f| f.link().mtu == 1200 && f.link().up);
    assert_eq!(following.gone, 0);
}

#[test]
fn vlan_sub_interface_has_the_addresses() {
    if !allowed("vlan_sub_interface_has_the_addresses") {
        return;
    }
    let (ours, _peers) = pair();
    let supported = ours.run(|| {
        let command = "link add link left name probe type vlan id 1".split(' ');
        Command::new("ip")
            .args(command)
            .output()
            .unwrap()
            .status
            .success()
    });
    if !supported {
        eprintln!("skipped: vlan_sub_interface_has_the_addresses: the kernel lacks 8021q");
        return;
    }
    let vlan = |vlans: &[u16]| MirrorConfig {
        vlans: vlans.to_vec(),
        ..config("left")
    };
    let missing = vlan(&[7]);
    let error = ours.run(move || snapshot(&missing)).unwrap_err();
    assert!(matches!(&error, MirrorError::NoVlan { parent, vlan: 7 } if parent == "left"));

    ours.ip("link add link left name outer type vlan id 7");
    ours.ip("link add link outer name inner type vlan id 9 ");
    // Not ours: the same identifiers in another order, and over another interface.
    ours.ip("link add other type veth peer name other-peer");
    ours.ip("link add link other name decoy type vlan id 7");
    ours.ip("link set outer up mtu 1496");
    ours.ip("link set inner up mtu 1492 address 02:00:5e:00:53:09");
    ours.ip("addr add 10.9.0.1/24 dev inner");
    let mut following = Following::start(&ours, vlan(&[7, 9]));
    following.until("the carrier", |f| f.link().up);
    assert_eq!(following.link().mtu, 1492);
    assert_eq!(following.link().mac, [0x02, 0, 0x5e, 0, 0x53, 0x09]);
    assert!(following.has_address("10.9.0.1") && !following.has_address("192.0.2.1"));
    assert_eq!(following.kind("10.9.0.9"), Some(RouteKind::Unicast));
    assert_eq!(
        following.kind("192.0.2.9"),
        None,
        "the parent's subnet is not ours"
    );
    ours.ip("neigh add 10.9.0.2 lladdr 02:00:5e:00:53:0a dev inner nud permanent");
    following.until("the neighbour", |f| {
        f.neighbors.contains_key(&ip("10.9.0.2"))
    });
    ours.ip("neigh add 192.0.2.77 lladdr 02:00:5e:00:53:77 dev left nud permanent");

    // The outer one down takes the inner one's carrier.
    ours.ip("link set outer down");
    following.until("the link down", |f| !f.link().up);
    ours.ip("link set outer up");
    ours.ip("link set inner up");
    following.until("the link up", |f| f.link().up);
    assert!(
        !following.neighbors.contains_key(&ip("192.0.2.77")),
        "the parent's neighbour"
    );
    ours.ip("link del inner");
    following.until("the removal", |f| f.gone == 1);
}

#[test]
fn removal_is_told_and_return_is_noticed() {
    if !allowed("removal_is_told_and_return_is_noticed") {
        return;
    }
    let (ours, peers) = pair();
    ours.ip("neigh add 192.0.2.77 lladdr 02:00:5e:00:53:77 dev left nud permanent");
    let mut following = Following::start(&ours, config("left"));
    following.until("the neighbour", |f| !f.neighbors.is_empty());
    ours.ip("link del left");
    following.until("the removal", |f| f.gone == 1);
    // Requests for nothing do no harm.
    assert!(following.handle.request_neighbor(ip("192.0.2.2")));
    ours.ip(&format!(
        "link add left type veth peer name right netns {}",
        peers.path()
    ));
    ours.ip("addr add 10.1.1.1/24 dev left");
    following.until("the return", |f| f.has_address("10.1.1.1"));
    ours.ip("neigh add 10.1.1.2 lladdr 02:00:5e:00:53:78 dev left nud permanent");
    following.until("a neighbour", |f| f.neighbors.contains_key(&ip("10.1.1.2")));
    assert_eq!(following.gone, 1);
}

/// The mirror's thread stands still while the kernel announces more than the socket's buffer holds.
#[test]
fn an_overrun_is_made_good() {
    /// The octet that tells the last of the rounds below: 399 modulo 256.
    const LAST_ROUND: u8 = 143;

    if !allowed("an_overrun_is_made_good") {
        return;
    }
    let (ours, _peers) = pair();
    ours.ip("neigh add 192.0.2.200 lladdr 02:00:5e:00:53:c8 dev left nud permanent");
    let mut following = Following::start(&ours, config("left"));
    following.until("the first neighbour", |f| f.neighbors.len() == 1);
    let (paused, is_paused) = std_mpsc::channel();
    let (resume, wait) = std_mpsc::channel::<()>();
    let job: Job = Box::new(move || {
        paused.send(()).unwrap();
        let _ = wait.recv_timeout(PATIENCE);
    });
    following.pause.blocking_send(job).unwrap();
    is_paused.recv_timeout(PATIENCE).unwrap();
    // Over and over the same neighbours: some ten thousand announcements, but few entries.
    let mut batch = String::new();
    for round in 0..=399 {
        for host in 10..60 {
            let mac = format!("02:00:5e:00:{:02x}:{host:02x}", round % 256);
            batch += &format!("neigh replace 192.0.2.{host} lladdr {mac} dev left nud permanent\n");
        }
    }
    batch += "neigh del 192.0.2.200 dev left\n";
    batch += "addr add 10.77.0.1/24 dev left\n";
    ours.run(move || {
        let file = std::env::temp_dir().join(format!("control-batch-{}", std::process::id()));
        std::fs::write(&file, batch).unwrap();
        let status = Command::new("ip")
            .arg("-batch")
            .arg(&file)
            .status()
            .unwrap();
        std::fs::remove_file(&file).unwrap();
        assert!(status.success());
    });
    resume.send(()).unwrap();
    following.until("everything", |f| {
        f.neighbors.len() == 50
            && f.neighbors.iter().all(|(address, mac)| match address {
                IpAddr::V4(address) => mac[4] == LAST_ROUND && mac[5] == address.octets()[3],
                IpAddr::V6(_) => false,
            })
            && f.has_address("10.77.0.1")
    });
}

#[test]
fn what_is_missing_is_named() {
    if !allowed("what_is_missing_is_named") {
        return;
    }
    let ours = Namespace::new().unwrap();
    let error = ours.run(|| snapshot(&config("nosuch0"))).unwrap_err();
    assert!(matches!(&error, MirrorError::NoInterface { interface } if interface == "nosuch0"));
    assert!(error.to_string().contains("nosuch0"), "{error}");
    let error = ours.run(|| snapshot(&config("lo"))).unwrap_err();
    assert!(matches!(error, MirrorError::NotEthernet { .. }), "{error}");
}

/// Listing needs no privileges, so this one runs for everybody.
#[test]
fn snapshot_needs_no_privileges() {
    let error = snapshot(&config("no-such-if")).unwrap_err();
    assert!(error.to_string().contains("no-such-if"), "{error}");
}
