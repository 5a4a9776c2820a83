//! Longest-prefix routes.
//!
//! A table is built once by the control plane and then only read. Building flattens the nested
//! prefixes into ranges, each with the one route that wins there, so that a lookup is a single
//! binary search, whatever the prefixes look like:
//!
//! ```text
//!  10.0.0.0/8        ├──────────────── A ────────────────┤
//!  10.1.0.0/16             ├──── B ────┤
//!  10.1.2.0/24                ├─ C ─┤
//!  0.0.0.0/0     ├──────────────────── D ──────────────────────┤
//!
//!  starts        0   10.0  10.1  10.1.2  10.1.3  10.2       11
//!  winners       D   A     B     C       B       A          D
//! ```
//!
//! n routes make at most 2n + 1 ranges of 8 bytes (IPv4) or 20 bytes (IPv6).

use crate::ip::address::{Ip, IpAddress};
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;

/// What happens to packets that a route matches (`ip-route(8)`, "Route types").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RouteKind {
    /// They leave through this interface.
    #[default]
    Unicast,
    /// They vanish silently.
    Blackhole,
    /// They are refused with "host unreachable".
    Unreachable,
    /// They are refused with "communication administratively prohibited".
    Prohibit,
    /// They would leave through an interface that is not ours: the kernel's business.
    ElsewhereInterface,
}

/// One route.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// The first address of the destination's prefix; no bit behind the prefix may be set.
    pub destination: IpAddr,
    /// Length of the prefix, in bits.
    pub prefix_len: u8,
    /// The next hop; `None` if destinations are neighbours themselves. An IPv4 route may go through
    /// an IPv6 gateway (RFC 5549), not the other way round.
    pub gateway: Option<IpAddr>,
    /// The source address of what we send this way, when nobody chose one.
    pub preferred_source: Option<IpAddr>,
    /// Largest IP packet this way carries, in bytes; `None`, like 0 in netlink, if only the link
    /// limits it.
    pub mtu: Option<u32>,
    /// Among routes of the same prefix the lowest metric wins.
    pub metric: u32,
    /// What happens to the packets.
    pub kind: RouteKind,
}

impl Route {
    /// A unicast route for `destination/prefix_len`, without gateway and with metric 0. Bits of the
    /// address behind the prefix are cleared, as for the route that comes with an address.
    #[must_use]
    pub fn on_link(destination: IpAddr, prefix_len: u8) -> Self {
        let destination = match destination {
            IpAddr::V4(address) => IpAddr::V4(address.masked(prefix_len)),
            IpAddr::V6(address) => IpAddr::V6(address.masked(prefix_len)),
        };
        Self {
            destination,
            prefix_len,
            gateway: None,
            preferred_source: None,
            mtu: None,
            metric: 0,
            kind: RouteKind::Unicast,
        }
    }

    /// Who the packet for `destination` is handed to: the gateway, or the destination itself.
    #[inline]
    #[must_use]
    pub fn next_hop(&self, destination: IpAddr) -> IpAddr {
        self.gateway.unwrap_or(destination)
    }

    /// Largest IP packet this way carries over a link of `link_mtu`, in bytes. A route's own MTU
    /// never raises the link's, and is not believed below what its IP version guarantees.
    #[inline]
    #[must_use]
    pub fn path_mtu(&self, link_mtu: u32) -> u32 {
        let minimum = match self.destination {
            IpAddr::V4(_) => crate::ip::address::Ipv4::MIN_MTU,
            IpAddr::V6(_) => crate::ip::address::Ipv6::MIN_MTU,
        };
        match self.mtu {
            None | Some(0) => link_mtu,
            Some(mtu) => mtu.max(minimum).min(link_mtu),
        }
    }

    /// What `RouteTable::new` asks of every route.
    fn check(&self) -> Result<(), RouteError> {
        let (bits, masked) = match self.destination {
            IpAddr::V4(address) => (32, IpAddr::V4(address.masked(self.prefix_len))),
            IpAddr::V6(address) => (128, IpAddr::V6(address.masked(self.prefix_len))),
        };
        if self.prefix_len > bits {
            return Err(RouteError::PrefixTooLong { bits });
        }
        if masked != self.destination {
            return Err(RouteError::HostBitsSet { network: masked });
        }
        if let Some(gateway) = self.gateway {
            if self.destination.is_ipv6() && gateway.is_ipv4() {
                return Err(RouteError::GatewayOfOtherVersion);
            }
            if !is_unicast(gateway) {
                return Err(RouteError::GatewayNotUnicast);
            }
        }
        if let Some(source) = self.preferred_source {
            if self.destination.is_ipv4() != source.is_ipv4() {
                return Err(RouteError::SourceOfOtherVersion);
            }
            if !is_unicast(source) {
                return Err(RouteError::SourceNotUnicast);
            }
        }
        Ok(())
    }
}

/// As `ip route` writes it.
impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            RouteKind::Unicast => {}
            RouteKind::Blackhole => f.write_str("blackhole ")?,
            RouteKind::Unreachable => f.write_str("unreachable ")?,
            RouteKind::Prohibit => f.write_str("prohibit ")?,
            RouteKind::ElsewhereInterface => f.write_str("elsewhere ")?,
        }
        write!(f, "{}/{}", self.destination, self.prefix_len)?;
        match self.gateway {
            Some(IpAddr::V6(gateway)) if self.destination.is_ipv4() => {
                write!(f, " via inet6 {gateway}")?;
            }
            Some(gateway) => write!(f, " via {gateway}")?,
            None => {}
        }
        if let Some(source) = self.preferred_source {
            write!(f, " src {source}")?;
        }
        if self.metric != 0 {
            write!(f, " metric {}", self.metric)?;
        }
        if let Some(mtu) = self.mtu {
            write!(f, " mtu {mtu}")?;
        }
        Ok(())
    }
}

fn is_unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_single_host(),
        IpAddr::V6(address) => address.is_single_host(),
    }
}

/// What is wrong with a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteError {
    /// The prefix is longer than the address.
    PrefixTooLong {
        /// Length of the address, in bits.
        bits: u8,
    },
    /// The destination has bits set behind its prefix.
    HostBitsSet {
        /// The destination without them.
        network: IpAddr,
    },
    /// An IPv6 route cannot go through an IPv4 gateway.
    GatewayOfOtherVersion,
    /// The gateway is unspecified, a group or a broadcast.
    GatewayNotUnicast,
    /// The preferred source belongs to another IP version than the destination.
    SourceOfOtherVersion,
    /// The preferred source is unspecified, a group or a broadcast.
    SourceNotUnicast,
}

/// Why a table could not be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteTableError {
    /// More routes than the limit allows.
    TooMany {
        /// How many were given.
        count: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// A route makes no sense.
    Invalid {
        /// Which.
        route: Route,
        /// Why.
        error: RouteError,
    },
}

impl fmt::Display for RouteTableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany { count, limit } => write!(f, "{count} routes, but only {limit} allowed"),
            Self::Invalid { route, error } => {
                write!(f, "route {route}: ")?;
                match error {
                    RouteError::PrefixTooLong { bits } => {
                        write!(f, "the prefix may have at most {bits} bits")
                    }
                    RouteError::HostBitsSet { network } => write!(
                        f,
                        "bits behind the prefix are set; the network is {network}/{}",
                        route.prefix_len
                    ),
                    RouteError::GatewayOfOtherVersion => {
                        f.write_str("an IPv6 route needs an IPv6 gateway")
                    }
                    RouteError::GatewayNotUnicast => {
                        f.write_str("the gateway must be the address of one host")
                    }
                    RouteError::SourceOfOtherVersion => {
                        f.write_str("the source must be of the destination's IP version")
                    }
                    RouteError::SourceNotUnicast => {
                        f.write_str("the source must be the address of one host")
                    }
                }
            }
        }
    }
}

impl core::error::Error for RouteTableError {}

/// Routes by longest prefix, then lowest metric. Immutable; the default has no routes.
#[derive(Clone, Debug, Default)]
pub struct RouteTable {
    routes: Vec<Route>,
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

impl RouteTable {
    /// A table of these routes. Of routes with the same prefix and metric the first counts.
    ///
    /// # Errors
    ///
    /// More than `limit` routes, or a route that makes no sense.
    pub fn new(routes: Vec<Route>, limit: usize) -> Result<Self, RouteTableError> {
        if routes.len() > limit || u32::try_from(routes.len()).is_err() {
            return Err(RouteTableError::TooMany {
                count: routes.len(),
                limit,
            });
        }
        for route in &routes {
            route.check().map_err(|error| RouteTableError::Invalid {
                route: route.clone(),
                error,
            })?;
        }
        let prefixes = |version_4: bool| {
            (0u32..)
                .zip(&routes)
                .filter(move |(_, route)| route.destination.is_ipv4() == version_4)
        };
        let v4 = prefixes(true).filter_map(|(index, route)| match route.destination {
            IpAddr::V4(first) => Some(Prefix {
                first: first.to_bits(),
                last: first.to_bits() | u32::MAX.checked_shr(route.prefix_len.into()).unwrap_or(0),
                metric: route.metric,
                index,
            }),
            IpAddr::V6(_) => None,
        });
        let v6 = prefixes(false).filter_map(|(index, route)| match route.destination {
            IpAddr::V4(_) => None,
            IpAddr::V6(first) => Some(Prefix {
                first: first.to_bits(),
                last: first.to_bits() | u128::MAX.checked_shr(route.prefix_len.into()).unwrap_or(0),
                metric: route.metric,
                index,
            }),
        });
        let (v4, v6) = (Ranges::new(v4.collect()), Ranges::new(v6.collect()));
        Ok(Self { routes, v4, v6 })
    }

    /// The route to `destination`: of those that match, the one with the longest prefix, and of
    /// several with that prefix the one with the lowest metric. O(log n).
    #[inline]
    #[must_use]
    pub fn lookup<I: Ip>(&self, destination: I::Addr) -> Option<&Route> {
        // The version is known at compile time: one arm remains.
        self.lookup_ip(destination.into())
    }

    /// [`lookup`](Self::lookup) for an address whose version is only known at run time.
    #[inline]
    #[must_use]
    pub fn lookup_ip(&self, destination: IpAddr) -> Option<&Route> {
        let index = match destination {
            IpAddr::V4(address) => self.v4.winner(address.to_bits()),
            IpAddr::V6(address) => self.v6.winner(address.to_bits()),
        };
        self.routes.get(index as usize)
    }

    /// All routes, in the order they were given.
    #[must_use]
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }
}

/// The winner where no route matches; never an index, as no `Vec` of routes is that long.
const NO_ROUTE: u32 = u32::MAX;

/// A route on its way into [`Ranges`].
struct Prefix<B> {
    first: B,
    last: B,
    metric: u32,
    /// Of the route in its table.
    index: u32,
}

/// The address space cut into ranges, in order, and the winning route of each. Empty, or the first
/// range starts at 0. `starts` are by themselves so that a search touches few cache lines.
#[derive(Clone, Debug, Default)]
struct Ranges<B> {
    starts: Vec<B>,
    winners: Vec<u32>,
}

impl<B: Bits> Ranges<B> {
    /// Walks over the prefixes from left to right. Prefixes nest or are disjoint, so those around
    /// the current address form a stack, the longest on top.
    fn new(mut prefixes: Vec<Prefix<B>>) -> Self {
        // Outer prefixes first; of equal ones the winner first.
        prefixes.sort_by_key(|p| (p.first, core::cmp::Reverse(p.last), p.metric, p.index));
        prefixes.dedup_by_key(|p| (p.first, p.last));
        let mut ranges = Self {
            starts: Vec::new(),
            winners: Vec::new(),
        };
        if prefixes.is_empty() {
            return ranges;
        }
        ranges.push(B::ZERO, NO_ROUTE);
        let mut around: Vec<(B, u32)> = Vec::new();
        for prefix in prefixes {
            ranges.close(&mut around, |last| last < prefix.first);
            ranges.push(prefix.first, prefix.index);
            around.push((prefix.last, prefix.index));
        }
        ranges.close(&mut around, |_| true);
        ranges
    }

    /// Ends the innermost prefixes for whose last address `ended` holds; behind each, the prefix
    /// around it continues.
    fn close(&mut self, around: &mut Vec<(B, u32)>, ended: impl Fn(B) -> bool) {
        while let Some((last, _)) = around.pop_if(|&mut (last, _)| ended(last)) {
            if let Some(start) = last.next() {
                self.push(start, around.last().map_or(NO_ROUTE, |&(_, index)| index));
            }
        }
    }

    /// From `start` on, `winner` wins. Starts never decrease; the latest word counts.
    fn push(&mut self, start: B, winner: u32) {
        if self.starts.last() == Some(&start) {
            self.starts.pop();
            self.winners.pop();
        }
        if self.winners.last() != Some(&winner) {
            self.starts.push(start);
            self.winners.push(winner);
        }
    }

    #[inline]
    fn winner(&self, address: B) -> u32 {
        let behind = self.starts.partition_point(|&start| start <= address);
        match behind
            .checked_sub(1)
            .and_then(|index| self.winners.get(index))
        {
            Some(&winner) => winner,
            None => NO_ROUTE,
        }
    }
}

/// An address as a number.
trait Bits: Copy + Ord {
    const ZERO: Self;
    /// The next number; `None` at the end.
    fn next(self) -> Option<Self>;
}

impl Bits for u32 {
    const ZERO: Self = 0;
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

impl Bits for u128 {
    const ZERO: Self = 0;
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ip::address::{Ipv4, Ipv6, Subnet};
    use alloc::string::ToString;
    use alloc::vec;
    use core::net::{Ipv4Addr, Ipv6Addr};
    use proptest::prelude::*;

    fn route(destination: &str, prefix_len: u8, metric: u32) -> Route {
        Route {
            destination: destination.parse().unwrap(),
            metric,
            ..Route::on_link(destination.parse().unwrap(), prefix_len)
        }
    }

    fn error(route: Route) -> RouteError {
        match RouteTable::new(vec![route], 10) {
            Err(RouteTableError::Invalid { error, .. }) => error,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn empty_table_has_no_route() {
        let table = RouteTable::default();
        assert_eq!(table.lookup::<Ipv4>(Ipv4Addr::UNSPECIFIED), None);
        assert_eq!(table.lookup::<Ipv6>(Ipv6Addr::from_bits(u128::MAX)), None);
        assert_eq!(table.lookup::<Ipv4>(Ipv4Addr::BROADCAST), None);
    }

    #[test]
    fn longest_prefix_then_lowest_metric_then_first() {
        let routes = vec![
            route("0.0.0.0", 0, 5),
            route("10.0.0.0", 8, 1),
            route("10.1.0.0", 16, 9),
            route("10.1.0.0", 16, 3),
            route("10.1.0.0", 16, 3),
            route("255.255.255.255", 32, 0),
            route("2001:db8::", 32, 0),
        ];
        let table = RouteTable::new(routes, 7).unwrap();
        let found = |address: &str| {
            let route = table.lookup_ip(address.parse().unwrap())?;
            table.routes().iter().position(|r| core::ptr::eq(r, route))
        };
        assert_eq!(found("9.255.255.255"), Some(0));
        assert_eq!(found("10.0.0.0"), Some(1));
        assert_eq!(found("10.1.0.0"), Some(3));
        assert_eq!(found("10.1.255.255"), Some(3));
        assert_eq!(found("10.2.0.0"), Some(1));
        assert_eq!(found("11.0.0.0"), Some(0));
        assert_eq!(found("255.255.255.254"), Some(0));
        assert_eq!(found("255.255.255.255"), Some(5));
        assert_eq!(found("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"), Some(6));
        assert_eq!(found("2001:db9::"), None);
        assert_eq!(found("::"), None);
    }

    #[test]
    fn senseless_routes_are_refused() {
        assert_eq!(
            error(route("10.0.0.0", 33, 0)),
            RouteError::PrefixTooLong { bits: 32 }
        );
        assert_eq!(
            error(route("fe80::", 129, 0)),
            RouteError::PrefixTooLong { bits: 128 }
        );
        let network = "10.0.0.0".parse().unwrap();
        assert_eq!(
            error(route("10.0.0.1", 24, 0)),
            RouteError::HostBitsSet { network }
        );
        let via = |destination: &str, gateway: &str| Route {
            gateway: Some(gateway.parse().unwrap()),
            ..route(destination, 0, 0)
        };
        assert_eq!(
            error(via("::", "10.0.0.1")),
            RouteError::GatewayOfOtherVersion
        );
        assert_eq!(
            error(via("0.0.0.0", "0.0.0.0")),
            RouteError::GatewayNotUnicast
        );
        assert_eq!(error(via("::", "ff02::1")), RouteError::GatewayNotUnicast);
        let from = |destination: &str, source: &str| Route {
            preferred_source: Some(source.parse().unwrap()),
            ..route(destination, 0, 0)
        };
        assert_eq!(
            error(from("::", "10.0.0.1")),
            RouteError::SourceOfOtherVersion
        );
        assert_eq!(
            error(from("0.0.0.0", "fe80::1")),
            RouteError::SourceOfOtherVersion
        );
        assert_eq!(
            error(from("0.0.0.0", "224.0.0.1")),
            RouteError::SourceNotUnicast
        );
        let two = vec![route("10.0.0.0", 8, 0), route("11.0.0.0", 8, 0)];
        let error = RouteTable::new(two, 1).unwrap_err();
        assert_eq!(error, RouteTableError::TooMany { count: 2, limit: 1 });
        assert_eq!(error.to_string(), "2 routes, but only 1 allowed");
    }

    #[test]
    fn errors_say_what_to_write_instead() {
        let error = RouteTable::new(vec![route("10.1.2.3", 24, 7)], 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "route 10.1.2.3/24 metric 7: bits behind the prefix are set; the network is 10.1.2.0/24"
        );
    }

    #[test]
    fn ipv4_through_an_ipv6_gateway() {
        let gateway = "fe80::1".parse().unwrap();
        let route = Route {
            gateway: Some(gateway),
            ..route("0.0.0.0", 0, 0)
        };
        assert_eq!(route.to_string(), "0.0.0.0/0 via inet6 fe80::1");
        let table = RouteTable::new(vec![route], 1).unwrap();
        let destination = Ipv4Addr::new(192, 0, 2, 1);
        let found = table.lookup::<Ipv4>(destination).unwrap();
        assert_eq!(found.next_hop(destination.into()), gateway);
    }

    #[test]
    fn a_routes_mtu_never_raises_the_links() {
        let with_mtu = |text: &str, mtu| Route {
            mtu,
            ..route(text, 0, 0)
        };
        assert_eq!(with_mtu("0.0.0.0", None).path_mtu(1500), 1500);
        assert_eq!(with_mtu("0.0.0.0", Some(0)).path_mtu(1500), 1500);
        assert_eq!(with_mtu("0.0.0.0", Some(9000)).path_mtu(1500), 1500);
        assert_eq!(with_mtu("0.0.0.0", Some(1400)).path_mtu(1500), 1400);
        assert_eq!(with_mtu("0.0.0.0", Some(1)).path_mtu(1500), 68);
        assert_eq!(with_mtu("::", Some(1000)).path_mtu(1500), 1280);
    }

    /// A linear scan.
    fn oracle<A: IpAddress>(routes: &[Route], address: A) -> Option<&Route> {
        let mut best: Option<&Route> = None;
        for route in routes {
            let Some(network) = A::from_ip(route.destination) else {
                continue;
            };
            if !Subnet::new(network, route.prefix_len)
                .unwrap()
                .contains(address)
            {
                continue;
            }
            let better = best.is_none_or(|best| {
                route.prefix_len > best.prefix_len
                    || (route.prefix_len == best.prefix_len && route.metric < best.metric)
            });
            if better {
                best = Some(route);
            }
        }
        best
    }

    /// Prefixes around few places, so that they nest, touch and coincide.
    fn arbitrary_route() -> impl Strategy<Value = Route> {
        let place = prop_oneof![
            Just(0u128),
            Just(u128::MAX),
            Just(0x0a01 << 112),
            any::<u128>()
        ];
        (place, any::<bool>(), 0u8..=128, 0u8..4, 0u32..3).prop_map(
            |(bits, version_4, prefix_len, stray, metric)| {
                let bits = bits ^ u128::from(stray) << 127u8.saturating_sub(prefix_len);
                let route = if version_4 {
                    let [a, b, c, d, ..] = bits.to_be_bytes();
                    Route::on_link(Ipv4Addr::new(a, b, c, d).into(), prefix_len % 33)
                } else {
                    Route::on_link(Ipv6Addr::from_bits(bits).into(), prefix_len)
                };
                Route { metric, ..route }
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn lookups_agree_with_a_linear_scan(
            routes in prop::collection::vec(arbitrary_route(), 0..40), random: u128,
        ) {
            let table = RouteTable::new(routes.clone(), 40).unwrap();
            // The places where winners change, their neighbours, and anywhere.
            let mut v4 = vec![Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST];
            let mut v6 = vec![Ipv6Addr::UNSPECIFIED, Ipv6Addr::from_bits(u128::MAX)];
            v6.push(Ipv6Addr::from_bits(random));
            for route in &routes {
                match route.destination {
                    IpAddr::V4(first) => {
                        let size = 1u32.checked_shl(32 - u32::from(route.prefix_len));
                        let end = first.to_bits().wrapping_add(size.unwrap_or(0));
                        v4.extend([first, Ipv4Addr::from_bits(first.to_bits().wrapping_sub(1))]);
                        v4.extend([end, end.wrapping_sub(1)].map(Ipv4Addr::from_bits));
                    }
                    IpAddr::V6(first) => {
                        let size = 1u128.checked_shl(128 - u32::from(route.prefix_len));
                        let end = first.to_bits().wrapping_add(size.unwrap_or(0));
                        v6.extend([first, Ipv6Addr::from_bits(first.to_bits().wrapping_sub(1))]);
                        v6.extend([end, end.wrapping_sub(1)].map(Ipv6Addr::from_bits));
                    }
                }
            }
            for address in v4 {
                prop_assert_eq!(table.lookup::<Ipv4>(address), oracle(&routes, address));
            }
            for address in v6 {
                prop_assert_eq!(table.lookup::<Ipv6>(address), oracle(&routes, address));
            }
            prop_assert!(table.v4.starts.len() <= 2 * routes.len() + 1);
            prop_assert!(table.v6.starts.len() <= 2 * routes.len() + 1);
        }
    }
}
