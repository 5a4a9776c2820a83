//! The kernel's routes, reduced to what decides whether and where a packet of ours leaves.

use super::dump::{TABLE_LOCAL, table_of};
use rtnetlink::packet_route::{
    AddressFamily,
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteNextHop,
        RouteNextHopFlags, RouteType, RouteVia,
    },
};
use stack::ip::route::{Route, RouteKind};
use std::{
    cmp::Reverse,
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// The routes of the tables `local` and `main` as seen from interface `index`, longest prefixes
/// first. `messages` are in the order the kernel looks at the tables: `local` first.
pub(super) fn routes(messages: &[RouteMessage], index: u32) -> Vec<Route> {
    let (local, main): (Vec<_>, Vec<_>) = messages
        .iter()
        .partition(|message| table_of(message) == u32::from(TABLE_LOCAL));
    let local = winners(
        local
            .into_iter()
            .filter_map(|message| route(message, index)),
    );
    let main = winners(main.into_iter().filter_map(|message| route(message, index)));
    // Rule 0 asks `local` before rule 32766 asks `main`: what the first answers, the second is not
    // asked for, however long its prefix.
    let local_prefixes = Prefixes::of(&local);
    let main = main
        .into_iter()
        .filter(|route| !local_prefixes.cover(route));
    prune(local.iter().cloned().chain(main).collect())
}

/// Of routes with one prefix the one the kernel takes: the lowest metric, then the first listed.
fn winners(routes: impl Iterator<Item = Route>) -> Vec<Route> {
    let mut best: HashMap<(IpAddr, u8), Route> = HashMap::new();
    for route in routes {
        let have = best
            .entry((route.destination, route.prefix_len))
            .or_insert_with(|| route.clone());
        if route.metric < have.metric {
            *have = route;
        }
    }
    best.into_values().collect()
}

/// Leaves out what changes nothing: a route that leaves elsewhere matters only where it cuts into
/// one that does not. On a router with a full table on another port, that is nearly everything.
fn prune(mut routes: Vec<Route>) -> Vec<Route> {
    // Outer prefixes first, so that what is around a route has been decided before it.
    routes.sort_by_key(|route| (route.prefix_len, route.destination));
    let mut kept = Prefixes::of(&[]);
    let mut all = Vec::with_capacity(routes.len());
    for route in routes {
        let around = kept.innermost(&route);
        let elsewhere = route.kind == RouteKind::ElsewhereInterface;
        if elsewhere && around.is_none_or(|kind| kind == RouteKind::ElsewhereInterface) {
            continue;
        }
        kept.insert(&route);
        all.push(route);
    }
    all.sort_by_key(|route| (Reverse(route.prefix_len), route.destination));
    all
}

/// A set of prefixes, asked by trying every length that occurs: a few dozen at most.
struct Prefixes {
    /// Which lengths occur, in either IP version.
    lengths: [bool; 129],
    kinds: HashMap<(IpAddr, u8), RouteKind>,
}

impl Prefixes {
    fn of(routes: &[Route]) -> Self {
        let mut all = Self {
            lengths: [false; 129],
            kinds: HashMap::new(),
        };
        for route in routes {
            all.insert(route);
        }
        all
    }

    fn insert(&mut self, route: &Route) {
        self.lengths[usize::from(route.prefix_len)] = true;
        self.kinds
            .insert((route.destination, route.prefix_len), route.kind);
    }

    /// What happens in the longest of these prefixes that contains the route's.
    fn innermost(&self, route: &Route) -> Option<RouteKind> {
        (0..=route.prefix_len)
            .rev()
            .filter(|&len| self.lengths[usize::from(len)])
            .find_map(|len| {
                self.kinds
                    .get(&(masked(route.destination, len), len))
                    .copied()
            })
    }

    fn cover(&self, route: &Route) -> bool {
        self.innermost(route).is_some()
    }
}

/// The address with only its first `len` bits.
fn masked(address: IpAddr, len: u8) -> IpAddr {
    match address {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() & mask))
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & mask))
        }
    }
}

/// What one route of the kernel means for packets of ours; `None` if nothing.
fn route(message: &RouteMessage, index: u32) -> Option<Route> {
    let header = &message.header;
    let (unspecified, bits) = match header.address_family {
        AddressFamily::Inet => (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 32),
        AddressFamily::Inet6 => (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 128),
        _ => return None,
    };
    // Exceptions such as a learned path MTU (the stack learns its own), routes for one type of
    // service (ours is 0), and IPv6 routes for certain sources are not part of the ordinary lookup.
    let special = header.flags.contains(RouteFlags::Cloned)
        || header.tos != 0
        || header.source_prefix_length != 0;
    if special || header.destination_prefix_length > bits {
        return None;
    }
    let parts = Parts::of(message);
    let destination = masked(
        parts.destination.unwrap_or(unspecified),
        header.destination_prefix_length,
    );
    let refused = |kind| Some((kind, None));
    let (kind, gateway) = match header.kind {
        RouteType::Unicast => unicast(header.flags, &parts, index),
        // To a local address the kernel delivers by itself, over no link at all.
        RouteType::Local => refused(RouteKind::ElsewhereInterface),
        // A broadcast is known by its address (`LocalAddress::broadcast`), not by its route, and
        // goes where the route around it goes. Another interface's is not ours to send.
        RouteType::Broadcast if parts.oif == Some(index) => None,
        RouteType::Multicast if parts.oif == Some(index) => Some((RouteKind::Unicast, None)),
        RouteType::Broadcast | RouteType::Multicast | RouteType::Anycast => {
            refused(RouteKind::ElsewhereInterface)
        }
        RouteType::BlackHole => refused(RouteKind::Blackhole),
        RouteType::Unreachable => refused(RouteKind::Unreachable),
        RouteType::Prohibit => refused(RouteKind::Prohibit),
        // `throw` ends the lookup in `main`, and there is no table behind it that we mirror.
        RouteType::Throw => refused(RouteKind::Unreachable),
        _ => None,
    }?;
    // Link-local addresses and groups exist once for each link: another link's route to them, even
    // its own address, says nothing about ours (RFC 4007 §5). IPv4 routing in Linux knows no such
    // zones.
    if kind == RouteKind::ElsewhereInterface && has_zone(destination) && parts.oif != Some(index) {
        return None;
    }
    Some(Route {
        destination,
        prefix_len: header.destination_prefix_length,
        gateway,
        preferred_source: parts
            .source
            .filter(|source| source.is_ipv4() == destination.is_ipv4()),
        mtu: parts.mtu,
        metric: parts.metric,
        kind,
    })
}

fn has_zone(destination: IpAddr) -> bool {
    match destination {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_multicast(),
    }
}

/// Whether a unicast route leaves through our interface, and through which gateway; `None` if it is
/// dead.
fn unicast(
    flags: RouteFlags,
    parts: &Parts<'_>,
    index: u32,
) -> Option<(RouteKind, Option<IpAddr>)> {
    let elsewhere = Some((RouteKind::ElsewhereInterface, None));
    if let Some(hops) = parts.multipath {
        let alive = |hop: &&RouteNextHop| !hop.flags.contains(RouteNextHopFlags::Dead);
        let mut alive = hops.iter().filter(alive).peekable();
        alive.peek()?;
        return match alive.find(|hop| hop.interface_index == index) {
            Some(hop) => leaving(&hop.attributes, elsewhere),
            None => elsewhere,
        };
    }
    // `fib_table_lookup` and `find_rr_leaf` pass over a dead nexthop and go on.
    if flags.contains(RouteFlags::Dead) {
        return None;
    }
    // No interface is named where the kernel only gives a nexthop object's number
    // (net.ipv4.nexthop_compat_mode=0): then it is not known to be ours.
    if parts.oif != Some(index) {
        return elsewhere;
    }
    leaving(parts.attributes, elsewhere)
}

/// The way out through our interface that these attributes describe.
fn leaving(
    attributes: &[RouteAttribute],
    elsewhere: Option<(RouteKind, Option<IpAddr>)>,
) -> Option<(RouteKind, Option<IpAddr>)> {
    let mut gateway = None;
    for attribute in attributes {
        match attribute {
            RouteAttribute::Gateway(address) => gateway = ip(address),
            // RFC 5549: an IPv4 route through an IPv6 gateway.
            RouteAttribute::Via(RouteVia::Inet(address)) => gateway = Some((*address).into()),
            RouteAttribute::Via(RouteVia::Inet6(address)) => gateway = Some((*address).into()),
            // Packets that the kernel would wrap into a tunnel must not leave bare.
            RouteAttribute::Via(_) | RouteAttribute::EncapType(_) => return elsewhere,
            _ => {}
        }
    }
    Some((
        RouteKind::Unicast,
        gateway.filter(|gateway| !gateway.is_unspecified()),
    ))
}

/// A route's attributes that matter.
struct Parts<'a> {
    destination: Option<IpAddr>,
    source: Option<IpAddr>,
    oif: Option<u32>,
    metric: u32,
    mtu: Option<u32>,
    multipath: Option<&'a [RouteNextHop]>,
    attributes: &'a [RouteAttribute],
}

impl<'a> Parts<'a> {
    fn of(message: &'a RouteMessage) -> Self {
        let mut parts = Self {
            destination: None,
            source: None,
            oif: None,
            metric: 0,
            mtu: None,
            multipath: None,
            attributes: &message.attributes,
        };
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(address) => parts.destination = ip(address),
                RouteAttribute::PrefSource(address) => parts.source = ip(address),
                RouteAttribute::Oif(index) => parts.oif = Some(*index),
                RouteAttribute::Priority(metric) => parts.metric = *metric,
                RouteAttribute::MultiPath(hops) => parts.multipath = Some(hops),
                RouteAttribute::Metrics(metrics) => {
                    parts.mtu = metrics.iter().find_map(|metric| match metric {
                        RouteMetric::Mtu(mtu) if *mtu != 0 => Some(*mtu),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        parts
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rtnetlink::packet_route::route::{RouteHeader, RouteLwEnCapType};
    use stack::ip::route::RouteTable;

    const OURS: u32 = 3;
    const OTHER: u32 = 4;
    const MAIN: u8 = RouteHeader::RT_TABLE_MAIN;

    fn message(table: u8, destination: &str, attributes: Vec<RouteAttribute>) -> RouteMessage {
        let (address, len) = destination.split_once('/').unwrap();
        let address: IpAddr = address.parse().unwrap();
        let mut message = RouteMessage::default();
        message.header.address_family = match address {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        message.header.destination_prefix_length = len.parse().unwrap();
        message.header.table = table;
        message.header.kind = RouteType::Unicast;
        if message.header.destination_prefix_length > 0 {
            message
                .attributes
                .push(RouteAttribute::Destination(address.into()));
        }
        message.attributes.extend(attributes);
        message
    }

    fn oif(index: u32) -> RouteAttribute {
        RouteAttribute::Oif(index)
    }

    fn via(gateway: &str) -> RouteAttribute {
        RouteAttribute::Gateway(gateway.parse::<IpAddr>().unwrap().into())
    }

    fn of_kind(mut message: RouteMessage, kind: RouteType) -> RouteMessage {
        message.header.kind = kind;
        message
    }

    fn only(message: RouteMessage) -> Option<Route> {
        // A default route of ours, so that routes elsewhere are worth keeping.
        let default = match message.header.address_family {
            AddressFamily::Inet => "0.0.0.0/0",
            _ => "::/0",
        };
        let around = message_around(default);
        routes(&[message, around], OURS)
            .into_iter()
            .find(|route| route.metric != AROUND)
    }

    /// Marks the route around the one under test.
    const AROUND: u32 = 99_999;

    fn message_around(default: &str) -> RouteMessage {
        message(
            MAIN,
            default,
            vec![oif(OURS), RouteAttribute::Priority(AROUND)],
        )
    }

    fn hop(index: u32, gateway: &str, flags: RouteNextHopFlags) -> RouteNextHop {
        let mut hop = RouteNextHop::default();
        hop.interface_index = index;
        hop.flags = flags;
        hop.attributes.push(via(gateway));
        hop
    }

    #[test]
    fn dead_ways_are_passed_over() {
        let mut dead = message(MAIN, "10.0.0.0/8", vec![oif(OURS), via("192.0.2.1")]);
        dead.header.flags = RouteFlags::Dead;
        assert_eq!(only(dead), None);

        let hops = |first, second| {
            let hops = vec![
                hop(OURS, "192.0.2.1", first),
                hop(OURS, "192.0.2.2", second),
            ];
            only(message(
                MAIN,
                "10.0.0.0/8",
                vec![RouteAttribute::MultiPath(hops)],
            ))
        };
        let (alive, dead) = (RouteNextHopFlags::empty(), RouteNextHopFlags::Dead);
        let gateway = |route: Option<Route>| route.unwrap().gateway.unwrap().to_string();
        assert_eq!(gateway(hops(alive, alive)), "192.0.2.1");
        assert_eq!(gateway(hops(dead, alive)), "192.0.2.2");
        assert_eq!(hops(dead, dead), None);

        let hops = vec![hop(OTHER, "192.0.2.1", alive), hop(OURS, "192.0.2.2", dead)];
        let elsewhere = only(message(
            MAIN,
            "10.0.0.0/8",
            vec![RouteAttribute::MultiPath(hops)],
        ));
        assert_eq!(elsewhere.unwrap().kind, RouteKind::ElsewhereInterface);
    }

    #[test]
    fn what_we_cannot_do_is_left_to_the_kernel() {
        for (what, attributes) in [
            (
                "a tunnel",
                vec![oif(OURS), RouteAttribute::EncapType(RouteLwEnCapType::Mpls)],
            ),
            (
                "a nexthop object without its interface",
                vec![RouteAttribute::NhId(7)],
            ),
            ("another interface", vec![oif(OTHER)]),
        ] {
            let route = only(message(MAIN, "10.0.0.0/8", attributes)).unwrap();
            assert_eq!(route.kind, RouteKind::ElsewhereInterface, "{what}");
            assert_eq!(route.gateway, None, "{what}");
        }
    }

    #[test]
    fn special_lookups_are_not_ordinary_routes() {
        let plain = message(MAIN, "2001:db8::/32", vec![oif(OURS)]);
        assert!(only(plain.clone()).is_some());
        let mut learned = plain.clone();
        learned.header.flags = RouteFlags::Cloned;
        let mut by_source = plain.clone();
        by_source.header.source_prefix_length = 64;
        let mut by_service = plain.clone();
        by_service.header.tos = 8;
        let mut too_long = plain.clone();
        too_long.header.destination_prefix_length = 129;
        for message in [learned, by_source, by_service, too_long] {
            assert_eq!(only(message), None);
        }
        let mut other_table = plain;
        other_table.header.table = 77;
        assert!(
            only(other_table).is_some(),
            "the caller asks for the tables it wants"
        );
    }

    #[test]
    fn kinds() {
        let kind = |kind, index| {
            let message = message(MAIN, "10.0.0.0/8", vec![oif(index)]);
            only(of_kind(message, kind)).map(|route| route.kind)
        };
        assert_eq!(kind(RouteType::BlackHole, 0), Some(RouteKind::Blackhole));
        assert_eq!(
            kind(RouteType::Unreachable, 0),
            Some(RouteKind::Unreachable)
        );
        assert_eq!(kind(RouteType::Prohibit, 0), Some(RouteKind::Prohibit));
        assert_eq!(kind(RouteType::Throw, 0), Some(RouteKind::Unreachable));
        assert_eq!(
            kind(RouteType::Local, OURS),
            Some(RouteKind::ElsewhereInterface)
        );
        assert_eq!(kind(RouteType::Broadcast, OURS), None);
        assert_eq!(
            kind(RouteType::Broadcast, OTHER),
            Some(RouteKind::ElsewhereInterface)
        );
        assert_eq!(kind(RouteType::Nat, OURS), None);
    }

    /// `fe80::1` on another link is another host than `fe80::1` on ours.
    #[test]
    fn zones_of_other_links_do_not_count() {
        let of = |destination: &str, kind, index| {
            only(of_kind(
                message(TABLE_LOCAL, destination, vec![oif(index)]),
                kind,
            ))
        };
        assert!(of("fe80::/64", RouteType::Unicast, OURS).is_some());
        assert_eq!(of("fe80::/64", RouteType::Unicast, OTHER), None);
        assert_eq!(of("fe80::1/128", RouteType::Local, OTHER), None);
        assert!(of("fe80::1/128", RouteType::Local, OURS).is_some());
        assert_eq!(of("ff00::/8", RouteType::Multicast, OTHER), None);
        assert_eq!(
            of("ff00::/8", RouteType::Multicast, OURS).unwrap().kind,
            RouteKind::Unicast
        );
        // Linux routes 169.254.0.0/16 like any other prefix.
        assert!(of("169.254.169.254/32", RouteType::Unicast, OTHER).is_some());
    }

    #[test]
    fn local_is_asked_first() {
        let local = of_kind(
            message(TABLE_LOCAL, "10.0.0.0/8", vec![oif(1)]),
            RouteType::Local,
        );
        let main = message(MAIN, "10.1.0.0/16", vec![oif(OURS)]);
        let around = message_around("0.0.0.0/0");
        let all = routes(&[local, main, around], OURS);
        let table = RouteTable::new(all, 100).unwrap();
        let kind = |ip: &str| table.lookup_ip(ip.parse().unwrap()).unwrap().kind;
        assert_eq!(kind("10.1.2.3"), RouteKind::ElsewhereInterface);
        assert_eq!(kind("11.1.2.3"), RouteKind::Unicast);
    }

    #[test]
    fn lowest_metric_wins_then_the_first() {
        let with = |gateway, metric| {
            let metric = RouteAttribute::Priority(metric);
            message(MAIN, "10.0.0.0/8", vec![oif(OURS), via(gateway), metric])
        };
        let all = [
            with("192.0.2.3", 30),
            with("192.0.2.1", 10),
            with("192.0.2.2", 10),
        ];
        let all = routes(&all, OURS);
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].gateway.unwrap().to_string(), "192.0.2.1");
    }

    #[test]
    fn masks() {
        let check = |address: &str, len, want: &str| {
            assert_eq!(masked(address.parse().unwrap(), len).to_string(), want);
        };
        check("255.255.255.255", 0, "0.0.0.0");
        check("255.255.255.255", 9, "255.128.0.0");
        check("255.255.255.255", 32, "255.255.255.255");
        check("ffff::ffff", 0, "::");
        check("ffff::ffff", 127, "ffff::fffe");
        check("ffff::ffff", 128, "ffff::ffff");
    }

    fn any_route() -> impl Strategy<Value = Route> {
        let kind = prop_oneof![
            2 => Just(RouteKind::Unicast),
            3 => Just(RouteKind::ElsewhereInterface),
            1 => Just(RouteKind::Blackhole),
        ];
        // Few bits, so that prefixes nest.
        (0u32..16, 0u8..=4, kind, any::<bool>()).prop_map(|(bits, prefix_len, kind, v6)| {
            let address = if v6 {
                IpAddr::V6(Ipv6Addr::from_bits(u128::from(bits) << 124))
            } else {
                IpAddr::V4(Ipv4Addr::from_bits(bits << 28))
            };
            Route {
                kind,
                ..Route::on_link(address, prefix_len)
            }
        })
    }

    proptest! {
        /// What is left out changes no decision: "leaves elsewhere" and "no route" both mean that
        /// it does not leave through us.
        #[test]
        fn pruning_changes_no_decision(all in prop::collection::vec(any_route(), 0..40)) {
            let all = winners(all.into_iter());
            let pruned = prune(all.clone());
            prop_assert!(pruned.len() <= all.len());
            let full = RouteTable::new(all, 100).unwrap();
            let less = RouteTable::new(pruned, 100).unwrap();
            let decision = |table: &RouteTable, ip| {
                let kind = table.lookup_ip(ip).map(|route| route.kind);
                kind.filter(|kind| *kind != RouteKind::ElsewhereInterface)
            };
            for bits in 0u32..16 {
                let v4 = IpAddr::V4(Ipv4Addr::from_bits(bits << 28 | 5));
                let v6 = IpAddr::V6(Ipv6Addr::from_bits(u128::from(bits) << 124 | 5));
                for ip in [v4, v6] {
                    prop_assert_eq!(decision(&full, ip), decision(&less, ip), "{}", ip);
                }
            }
        }

        /// Cut to any length, the table may lose a way but never gains a wrong one.
        #[test]
        fn the_longest_prefixes_are_the_safe_ones(
            all in prop::collection::vec(any_route(), 0..40),
            limit in 0usize..20,
        ) {
            let all = prune(winners(all.into_iter()));
            let full = RouteTable::new(all.clone(), 100).unwrap();
            let cut = RouteTable::new(all.into_iter().take(limit).collect(), 100).unwrap();
            for bits in 0u32..16 {
                let ip = IpAddr::V4(Ipv4Addr::from_bits(bits << 28 | 5));
                if let Some(route) = cut.lookup_ip(ip) {
                    prop_assert_eq!(Some(route), full.lookup_ip(ip));
                }
            }
        }
    }
}
