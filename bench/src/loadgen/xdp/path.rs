//! The way to the target, as the kernel would go: interface, source address, next hop and its
//! Ethernet address. Asked with rtnetlink, so that policy rules, metrics and VRFs count as they do for
//! the kernel's own packets.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteType, RouteVia,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{Handle, new_connection};
use rustix::net::{SocketType, netdevice, socket};
use stack::link::MacAddr;
use tokio::time::{Instant, sleep};

/// How long a neighbour may take to answer. The kernel asks three times, a second apart, before it
/// gives up (`mcast_solicit`, `retrans_time_ms`; RFC 4861 §10 has the same numbers).
const NEIGHBOR_WAIT: Duration = Duration::from_secs(4);

/// Pause between two looks at the neighbour table: an answer takes about this long on a LAN.
const NEIGHBOR_POLL: Duration = Duration::from_millis(2);

/// How requests reach the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::loadgen) struct Path {
    /// Name of the interface they leave through.
    pub(in crate::loadgen) interface: String,
    /// The address the kernel sends from.
    pub(in crate::loadgen) source: IpAddr,
    /// Ethernet address of the next hop.
    pub(in crate::loadgen) next_hop_mac: MacAddr,
}

/// Finds the way to `target`, from `source` and through `interface` where they are given, and has the
/// kernel resolve the next hop.
///
/// # Errors
/// A sentence: no such interface, no route, a target on this host, a neighbour that does not answer.
pub(in crate::loadgen) fn find(
    target: SocketAddr,
    source: Option<IpAddr>,
    interface: Option<&str>,
) -> Result<Path, String> {
    let index = match (interface, target) {
        (Some(name), _) => Some(index_of(name)?),
        (None, SocketAddr::V6(target)) if target.scope_id() != 0 => Some(target.scope_id()),
        (None, _) => None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| netlink_failed(&error))?;
    runtime.block_on(async {
        let (connection, handle, _) = new_connection().map_err(|error| netlink_failed(&error))?;
        let connection = tokio::spawn(connection);
        let found = ask(&handle, target.ip(), source, index).await;
        connection.abort();
        found
    })
}

fn netlink_failed(error: &io::Error) -> String {
    format!("cannot ask the kernel for routes: {error}")
}

async fn ask(
    handle: &Handle,
    target: IpAddr,
    source: Option<IpAddr>,
    index: Option<u32>,
) -> Result<Path, String> {
    let hop = route(handle, target, source, index).await?;
    let interface = name_of(hop.index)?;
    let source = source.or(hop.source).ok_or_else(|| {
        format!("{interface} has no address to send from: give it one, or --source")
    })?;
    let next_hop_mac = resolve(handle, &interface, hop.index, hop.next_hop).await?;
    Ok(Path {
        interface,
        source,
        next_hop_mac,
    })
}

/// What a route says of one destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hop {
    index: u32,
    /// The gateway, or the target itself.
    next_hop: IpAddr,
    source: Option<IpAddr>,
}

async fn route(
    handle: &Handle,
    target: IpAddr,
    source: Option<IpAddr>,
    index: Option<u32>,
) -> Result<Hop, String> {
    let (family, bits) = family(target);
    let mut question = RouteMessage::default();
    question.header.address_family = family;
    question.header.destination_prefix_length = bits;
    question
        .attributes
        .push(RouteAttribute::Destination(target.into()));
    if let Some(source) = source {
        question.header.source_prefix_length = bits;
        question
            .attributes
            .push(RouteAttribute::Source(source.into()));
    }
    question.attributes.extend(index.map(RouteAttribute::Oif));
    let question = RouteNetlinkMessage::GetRoute(question);
    let answers =
        ask_netlink(handle, question, NLM_F_REQUEST)
            .await
            .map_err(|error| match source {
                Some(source) => format!("there is no route to {target} from {source}: {error}"),
                None => format!("there is no route to {target}: {error}"),
            })?;
    let answer = answers.into_iter().find_map(|answer| match answer {
        RouteNetlinkMessage::NewRoute(route) => Some(route),
        _ => None,
    });
    hop(
        target,
        &answer.ok_or_else(|| format!("there is no route to {target}"))?,
    )
}

/// Reads the kernel's answer.
fn hop(target: IpAddr, route: &RouteMessage) -> Result<Hop, String> {
    if route.header.kind != RouteType::Unicast {
        return Err(if route.header.kind == RouteType::Local {
            format!(
                "{target} is an address of this host, and what goes to it meets no interface: use \
                 --engine kernel"
            )
        } else {
            format!(
                "{target} cannot be reached: its route is {:?}",
                route.header.kind
            )
        });
    }
    let (mut index, mut next_hop, mut source) = (None, target, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(number) => index = Some(*number),
            RouteAttribute::Gateway(gateway) => next_hop = address(gateway).unwrap_or(target),
            // RFC 5549: an IPv4 route by way of an IPv6 neighbour.
            RouteAttribute::Via(RouteVia::Inet6(gateway)) => next_hop = (*gateway).into(),
            RouteAttribute::Via(RouteVia::Inet(gateway)) => next_hop = (*gateway).into(),
            RouteAttribute::PrefSource(preferred) => source = address(preferred),
            _ => {}
        }
    }
    Ok(Hop {
        index: index.ok_or_else(|| format!("the route to {target} names no interface"))?,
        next_hop,
        source,
    })
}

fn address(of: &RouteAddress) -> Option<IpAddr> {
    match of {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

fn family(address: IpAddr) -> (AddressFamily, u8) {
    match address {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    }
}

/// Has the kernel resolve a neighbour, without a packet of ours: `NTF_USE` (`neigh_add` in
/// net/core/neighbour.c) does what a packet for it would.
async fn resolve(
    handle: &Handle,
    interface: &str,
    index: u32,
    next_hop: IpAddr,
) -> Result<MacAddr, String> {
    let failed = |error: io::Error| {
        format!("the kernel does not resolve {next_hop} on {interface}: {error}")
    };
    let mut request = NeighbourMessage::default();
    request.header.family = family(next_hop).0;
    request.header.ifindex = index;
    request.header.state = NeighbourState::None;
    request.header.flags = NeighbourFlags::Use;
    request
        .attributes
        .push(NeighbourAttribute::Destination(next_hop.into()));
    let request = RouteNetlinkMessage::NewNeighbour(request);
    let flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_ACK;
    ask_netlink(handle, request, flags).await.map_err(failed)?;
    let deadline = Instant::now() + NEIGHBOR_WAIT;
    loop {
        match neighbor(handle, index, next_hop).await.map_err(failed)? {
            Neighbor::At(mac) => return Ok(mac),
            Neighbor::Asked if Instant::now() < deadline => sleep(NEIGHBOR_POLL).await,
            Neighbor::Asked | Neighbor::Silent => {
                return Err(format!(
                    "nobody on {interface} answers for {next_hop} (ARP or neighbour discovery): is \
                     the address right, and its host up?"
                ));
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Neighbor {
    At(MacAddr),
    Asked,
    Silent,
}

async fn neighbor(handle: &Handle, index: u32, address: IpAddr) -> io::Result<Neighbor> {
    let mut question = NeighbourMessage::default();
    question.header.family = family(address).0;
    let question = RouteNetlinkMessage::GetNeighbour(question);
    let answers = ask_netlink(handle, question, NLM_F_REQUEST | NLM_F_DUMP).await?;
    let state = answers.iter().find_map(|answer| match answer {
        RouteNetlinkMessage::NewNeighbour(message) if message.header.ifindex == index => {
            state(message, address)
        }
        _ => None,
    });
    Ok(state.unwrap_or(Neighbor::Asked))
}

/// What `message` says of `wanted`; `None` if it is about another.
fn state(message: &NeighbourMessage, wanted: IpAddr) -> Option<Neighbor> {
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
    (address == Some(wanted)).then_some(match (message.header.state, mac) {
        (NeighbourState::Failed, _) => Neighbor::Silent,
        (NeighbourState::Incomplete | NeighbourState::None, _) | (_, None) => Neighbor::Asked,
        (_, Some(mac)) => Neighbor::At(mac),
    })
}

/// Puts a question and collects the answers.
async fn ask_netlink(
    handle: &Handle,
    question: RouteNetlinkMessage,
    flags: u16,
) -> io::Result<Vec<RouteNetlinkMessage>> {
    let mut message = NetlinkMessage::from(question);
    message.header.flags = flags;
    let mut answers = handle
        .clone()
        .request(message)
        .map_err(|error| io::Error::other(error.to_string()))?;
    let mut all = Vec::new();
    while let Some(answer) = answers.next().await {
        match answer.payload {
            NetlinkPayload::InnerMessage(inner) => all.push(inner),
            // An acknowledgement is an error of number 0 (netlink(7)).
            NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
            _ => {}
        }
    }
    Ok(all)
}

fn index_of(name: &str) -> Result<u32, String> {
    socket(rustix::net::AddressFamily::INET, SocketType::DGRAM, None)
        .and_then(|any| netdevice::name_to_index(&any, name))
        .map_err(|_| format!("there is no interface {name}; `ip link` lists those there are"))
}

fn name_of(index: u32) -> Result<String, String> {
    socket(rustix::net::AddressFamily::INET, SocketType::DGRAM, None)
        .and_then(|any| netdevice::index_to_name(&any, index))
        .map_err(|error| format!("cannot find the name of interface {index}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_route_says() {
        let target: IpAddr = "192.0.2.9".parse().unwrap();
        let gateway: IpAddr = "192.0.2.1".parse().unwrap();
        let mut route = RouteMessage::default();
        route.header.kind = RouteType::Unicast;
        assert!(
            hop(target, &route)
                .unwrap_err()
                .contains("names no interface")
        );
        route.attributes.push(RouteAttribute::Oif(3));
        let on_link = Hop {
            index: 3,
            next_hop: target,
            source: None,
        };
        assert_eq!(hop(target, &route), Ok(on_link));
        route
            .attributes
            .push(RouteAttribute::Gateway(gateway.into()));
        route
            .attributes
            .push(RouteAttribute::PrefSource(gateway.into()));
        let routed = Hop {
            index: 3,
            next_hop: gateway,
            source: Some(gateway),
        };
        assert_eq!(hop(target, &route), Ok(routed));
        route.header.kind = RouteType::Local;
        assert!(hop(target, &route).unwrap_err().contains("--engine kernel"));
        route.header.kind = RouteType::BlackHole;
        assert!(
            hop(target, &route)
                .unwrap_err()
                .contains("cannot be reached")
        );
    }

    #[test]
    fn what_the_neighbour_table_says() {
        let wanted: IpAddr = "fd00::2".parse().unwrap();
        let mut message = NeighbourMessage::default();
        let destination = NeighbourAddress::from(wanted);
        message
            .attributes
            .push(NeighbourAttribute::Destination(destination));
        message.header.state = NeighbourState::Incomplete;
        assert_eq!(state(&message, wanted), Some(Neighbor::Asked));
        assert_eq!(state(&message, "fd00::3".parse().unwrap()), None);
        message.header.state = NeighbourState::Stale;
        assert_eq!(
            state(&message, wanted),
            Some(Neighbor::Asked),
            "no address yet"
        );
        let mac = NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, 1]);
        message.attributes.push(mac);
        assert_eq!(
            state(&message, wanted),
            Some(Neighbor::At([2, 0, 0, 0, 0, 1]))
        );
        message.header.state = NeighbourState::Failed;
        assert_eq!(state(&message, wanted), Some(Neighbor::Silent));
    }

    #[test]
    fn this_host_is_no_way() {
        let error = find("127.0.0.1:7".parse().unwrap(), None, None).unwrap_err();
        assert!(error.contains("--engine kernel"), "{error}");
        let error = find("127.0.0.1:7".parse().unwrap(), None, Some("no-such-if")).unwrap_err();
        assert!(error.contains("no-such-if"), "{error}");
    }
}
