//! The kernel's neighbours, and asking it for more.

use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use stack::link::{MacAddr, NeighborUpdate};
use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    time::{Duration, Instant},
};

/// Shortest time between two requests for one address. RFC 1122 §2.3.2.1 recommends at most one a
/// second for each destination, and the kernel's own probes (RFC 4861 §10, RETRANS_TIMER) are that
/// far apart: asking more often changes nothing.
pub(super) const REQUEST_INTERVAL: Duration = Duration::from_secs(1);

/// How many addresses may be asked for within [`REQUEST_INTERVAL`]. Each may become an entry of the
/// kernel's table, whose default limit is 1024 (`gc_thresh3`): somebody who makes us answer to
/// invented neighbours must not be able to flood it in one go. Too low: a server whose whole
/// subnet wakes up at once waits seconds for the last.
pub(super) const REQUESTS_MAX: usize = 512;

/// What a kernel message says about a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// It is at this Ethernet address.
    At(MacAddr),
    /// Nothing is known about it: it was deleted, or is only being asked for.
    Unknown,
    /// It was asked for and does not answer.
    Failed,
}

/// Which neighbour a kernel message is about, and what it says; `None` if it is about something
/// else: a proxy entry, or a group, which the kernel lists too but whose Ethernet address follows
/// from its own.
pub(super) fn news(message: &NeighbourMessage, deleted: bool) -> Option<(IpAddr, News)> {
    if message.header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => {
                address = Some(IpAddr::from(*ip));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => {
                address = Some(IpAddr::from(*ip));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = MacAddr::try_from(bytes.as_slice()).ok();
            }
            _ => {}
        }
    }
    let address = address.filter(|&address| can_be_neighbor(address))?;
    let news = match message.header.state {
        _ if deleted => News::Unknown,
        NeighbourState::Failed => News::Failed,
        // `NUD_VALID` of `include/net/neighbour.h`: states in which the kernel itself sends to the
        // address it has.
        NeighbourState::Reachable
        | NeighbourState::Stale
        | NeighbourState::Delay
        | NeighbourState::Probe
        | NeighbourState::Permanent
        | NeighbourState::Noarp => mac.map_or(News::Unknown, News::At),
        // Being asked for, or a state to come that is not known to be usable.
        _ => News::Unknown,
    };
    Some((address, news))
}

/// The neighbours as last announced.
#[derive(Debug, Default)]
pub(super) struct Neighbors(HashMap<IpAddr, MacAddr>);

impl Neighbors {
    /// Takes news in; returns what somebody should hear of it. That a neighbour is somewhere is
    /// always told: whoever dropped it for want of room may be waiting for it. So is that it does
    /// not answer: packets may be waiting. That nothing is known about it is told only if something
    /// was.
    pub(super) fn apply(&mut self, address: IpAddr, news: News) -> Option<NeighborUpdate> {
        match news {
            News::At(mac) => {
                self.0.insert(address, mac);
                Some(NeighborUpdate::Set { address, mac })
            }
            News::Failed => {
                self.0.remove(&address);
                Some(NeighborUpdate::Remove { address })
            }
            News::Unknown => self
                .0
                .remove(&address)
                .map(|_| NeighborUpdate::Remove { address }),
        }
    }

    /// Takes a whole table in; returns what differs.
    pub(super) fn replace(&mut self, table: &[(IpAddr, News)]) -> Vec<NeighborUpdate> {
        let mut changes = Vec::new();
        let mut present = HashSet::new();
        for &(address, news) in table {
            if let News::At(mac) = news {
                present.insert(address);
                if self.0.insert(address, mac) != Some(mac) {
                    changes.push(NeighborUpdate::Set { address, mac });
                }
            }
        }
        let gone = self.0.extract_if(|address, _| !present.contains(address));
        changes.extend(gone.map(|(address, _)| NeighborUpdate::Remove { address }));
        changes
    }

    pub(super) fn get(&self, address: IpAddr) -> Option<MacAddr> {
        self.0.get(&address).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = NeighborUpdate> {
        self.0
            .iter()
            .map(|(&address, &mac)| NeighborUpdate::Set { address, mac })
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Which neighbours were asked for lately.
#[derive(Debug, Default)]
pub(super) struct RequestLimit(HashMap<IpAddr, Instant>);

impl RequestLimit {
    /// Whether `address` may be asked for at `now`; if so, this counts as asking.
    pub(super) fn admit(&mut self, address: IpAddr, now: Instant) -> bool {
        let recent = |asked: &Instant| now.saturating_duration_since(*asked) < REQUEST_INTERVAL;
        if self.0.get(&address).is_some_and(recent) {
            return false;
        }
        if self.0.len() >= REQUESTS_MAX {
            self.0.retain(|_, asked| recent(asked));
        }
        let room = self.0.len() < REQUESTS_MAX;
        if room {
            self.0.insert(address, now);
        }
        room
    }
}

/// Whether an address can be a neighbour at all: one host, not ourselves, not a group.
pub(super) fn can_be_neighbor(address: IpAddr) -> bool {
    let limited_broadcast = address == IpAddr::V4(std::net::Ipv4Addr::BROADCAST);
    !(address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || limited_broadcast)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtnetlink::packet_route::AddressFamily;

    const MAC: MacAddr = [2, 0, 0, 0, 0, 9];

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn message(address: &str, state: NeighbourState, lladdr: Option<&[u8]>) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.family = match ip(address) {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        message.header.state = state;
        message
            .attributes
            .push(NeighbourAttribute::Destination(ip(address).into()));
        if let Some(lladdr) = lladdr {
            message
                .attributes
                .push(NeighbourAttribute::LinkLayerAddress(lladdr.to_vec()));
        }
        message
    }

    #[test]
    fn only_usable_states_have_an_address() {
        use NeighbourState::{
            Delay, Failed, Incomplete, Noarp, Other, Permanent, Probe, Reachable, Stale,
        };
        for address in ["192.0.2.9", "2001:db8::9"] {
            let is = |news| Some((ip(address), news));
            for state in [Reachable, Stale, Delay, Probe, Permanent, Noarp] {
                let usable = message(address, state, Some(&MAC));
                assert_eq!(news(&usable, false), is(News::At(MAC)));
                assert_eq!(news(&usable, true), is(News::Unknown), "deleted");
            }
            for state in [Incomplete, NeighbourState::None, Other(0x300)] {
                assert_eq!(
                    news(&message(address, state, Some(&MAC)), false),
                    is(News::Unknown)
                );
            }
            assert_eq!(
                news(&message(address, Failed, Some(&MAC)), false),
                is(News::Failed)
            );
            assert_eq!(
                news(&message(address, Failed, None), true),
                is(News::Unknown)
            );
            assert_eq!(
                news(&message(address, Reachable, None), false),
                is(News::Unknown)
            );
            let long = message(address, Reachable, Some(&[1; 20]));
            assert_eq!(news(&long, false), is(News::Unknown));
        }
    }

    #[test]
    fn proxies_and_groups_are_no_neighbors() {
        let mut proxy = message("192.0.2.9", NeighbourState::Permanent, Some(&MAC));
        proxy.header.flags = NeighbourFlags::Proxy;
        assert_eq!(news(&proxy, false), None);
        for group in ["224.0.0.1", "ff02::16", "255.255.255.255"] {
            assert_eq!(
                news(&message(group, NeighbourState::Noarp, Some(&MAC)), false),
                None
            );
        }
        assert_eq!(news(&NeighbourMessage::default(), false), None);
    }

    #[test]
    fn news_are_told_to_whom_they_matter() {
        let host = |host: u8| IpAddr::from([192, 0, 2, host]);
        let at = |n: u8, mac: u8| (host(n), News::At([mac; 6]));
        let set = |n: u8, mac: u8| NeighborUpdate::Set {
            address: host(n),
            mac: [mac; 6],
        };
        let gone = |n: u8| NeighborUpdate::Remove { address: host(n) };
        let mut neighbors = Neighbors::default();
        let unknown = (host(9), News::Unknown);
        assert_eq!(
            neighbors.replace(&[at(1, 1), at(2, 2), unknown]),
            [set(1, 1), set(2, 2)]
        );
        assert_eq!(neighbors.replace(&[at(1, 1), at(2, 3)]), [set(2, 3)]);
        assert_eq!(
            neighbors.replace(&[at(2, 3), (host(1), News::Failed)]),
            [gone(1)]
        );
        assert_eq!(neighbors.len(), 1);
        // One by one: where it is, and that it does not answer, is told again; that it is not
        // known is not.
        assert_eq!(neighbors.apply(host(2), News::At([3; 6])), Some(set(2, 3)));
        assert_eq!(neighbors.apply(host(2), News::Unknown), Some(gone(2)));
        assert_eq!(neighbors.apply(host(2), News::Unknown), None);
        assert_eq!(neighbors.apply(host(2), News::Failed), Some(gone(2)));
        assert_eq!(neighbors.apply(host(2), News::Failed), Some(gone(2)));
    }

    #[test]
    fn requests_are_limited_by_address_and_in_all() {
        let mut limit = RequestLimit::default();
        let start = Instant::now();
        let host = |n: usize| IpAddr::from(u32::try_from(n).unwrap().to_be_bytes());
        assert!(limit.admit(host(0), start));
        assert!(!limit.admit(host(0), start + REQUEST_INTERVAL / 2));
        for n in 1..REQUESTS_MAX {
            assert!(limit.admit(host(n), start), "{n}");
        }
        assert!(!limit.admit(host(REQUESTS_MAX), start + REQUEST_INTERVAL / 2));
        assert!(limit.admit(host(REQUESTS_MAX), start + REQUEST_INTERVAL));
        assert!(limit.admit(host(0), start + REQUEST_INTERVAL));
    }
}
