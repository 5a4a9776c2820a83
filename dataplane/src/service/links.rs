//! What the kernel says of the link, together with the addresses that services own; and the rules
//! for steering that follow from the configuration.

use crate::steering::{DenyRule, PortRule, Prefix, Protocol, RuleSet, Scope};
use config::{Cidr, Config, DenyProtocol};
use stack::ip::route::{Route, RouteTable};
use stack::link::{AddressOwner, LinkState, LocalAddress};
use std::collections::HashSet;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Adds the addresses that services own, and routes to their subnets, to what the kernel has.
pub(super) fn with_own_addresses(mut link: LinkState, config: &Config) -> LinkState {
    let own: Vec<&Cidr> = config
        .services
        .iter()
        .flat_map(|s| &s.own_addresses)
        .collect();
    if own.is_empty() {
        return link;
    }
    let mut routes = link.routes.routes().to_vec();
    for Cidr {
        address,
        prefix_len,
    } in own
    {
        if link.addresses.iter().any(|local| local.address == *address) {
            tracing::warn!(
                "{address} is to be owned by a service, but the kernel has it now: left to the \
                 kernel; remove it with `ip address del` or from own_addresses"
            );
            continue;
        }
        link.addresses.push(LocalAddress {
            address: *address,
            prefix_len: *prefix_len,
            broadcast: broadcast(*address, *prefix_len),
            owner: AddressOwner::Stack,
        });
        let on_link = Route::on_link(*address, *prefix_len);
        let known = |route: &Route| {
            route.destination == on_link.destination && route.prefix_len == on_link.prefix_len
        };
        if !routes.iter().any(known) {
            routes.push(on_link);
        }
    }
    match RouteTable::new(routes, usize::MAX) {
        Ok(routes) => link.routes = routes,
        Err(error) => tracing::error!("routes to the addresses services own were refused: {error}"),
    }
    link
}

/// The broadcast address of an IPv4 subnet that has one (RFC 3021: those of 31 and 32 bits do not).
fn broadcast(address: IpAddr, prefix_len: u8) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) if prefix_len < 31 => {
            let host = u32::MAX.checked_shr(prefix_len.into()).unwrap_or(0);
            Some(Ipv4Addr::from_bits(address.to_bits() | host))
        }
        _ => None,
    }
}

/// Everything that is ours, and what stays with the kernel. An address that a service should own but
/// the kernel has is the kernel's.
pub(super) fn rules(config: &Config, link: &LinkState) -> RuleSet {
    let deny = config.steering.deny.iter().map(|deny| DenyRule {
        protocol: Some(match deny.protocol {
            DenyProtocol::Tcp => Protocol::Tcp.number(),
            DenyProtocol::Udp => Protocol::Udp.number(),
        }),
        address: deny.address,
        port: Some(deny.port),
    });
    let ports = config.services.iter().flat_map(|service| {
        let protocol = match service.protocol {
            config::Protocol::Udp => Protocol::Udp,
            config::Protocol::Tcp => Protocol::Tcp,
        };
        let rule = move |(scope, port)| PortRule {
            protocol,
            scope,
            port,
        };
        let listen = service.listen.iter();
        listen
            .flat_map(|local| scopes(*local, service.v6only))
            .map(rule)
    });
    let owned = link
        .addresses
        .iter()
        .filter(|local| local.owner == AddressOwner::Stack);
    let whole = |own: &LocalAddress| Prefix {
        address: own.address,
        len: if own.address.is_ipv4() { 32 } else { 128 },
    };
    RuleSet {
        deny: deny.collect(),
        exact: Vec::new(),
        ports: ports.chain(connected_ports(config)).collect(),
        prefixes: owned.map(whole).collect(),
    }
}

/// The ports of connections that services open, in the IP versions they open them in.
fn connected_ports(config: &Config) -> impl Iterator<Item = PortRule> {
    let connects_to = |is_v6: bool| {
        let mut services = config.services.iter();
        services.any(|service| service.connect.iter().any(|to| to.is_ipv6() == is_v6))
    };
    let scopes = [(Scope::AnyV4, false), (Scope::AnyV6, true)];
    let scopes = scopes.into_iter().filter(move |it| connects_to(it.1));
    let ports = config.tcp.ports;
    scopes.flat_map(move |(scope, _)| {
        (ports.first..=ports.last).map(move |port| PortRule {
            protocol: Protocol::Tcp,
            scope,
            port,
        })
    })
}

/// What a listener covers: `[::]` without `v6only` is IPv4 too (RFC 3493 §3.7).
fn scopes(local: SocketAddr, v6only: bool) -> Vec<(Scope, u16)> {
    let port = local.port();
    let scopes = match stack::ip::address::unmapped(local.ip()) {
        IpAddr::V4(address) if address.is_unspecified() => vec![Scope::AnyV4],
        IpAddr::V6(address) if address.is_unspecified() && v6only => vec![Scope::AnyV6],
        IpAddr::V6(address) if address.is_unspecified() => vec![Scope::AnyV4, Scope::AnyV6],
        address => vec![Scope::Address(address)],
    };
    scopes.into_iter().map(|scope| (scope, port)).collect()
}

/// What both sets take: safe while listeners of the one are closed and of the other not bound yet.
/// What either leaves to the kernel stays there.
pub(super) fn common(old: &RuleSet, new: &RuleSet) -> RuleSet {
    fn both<T: Copy + Eq + Hash>(old: &[T], new: &[T]) -> Vec<T> {
        let new: HashSet<T> = new.iter().copied().collect();
        let common = old.iter().filter(|rule| new.contains(rule));
        common.copied().collect()
    }
    RuleSet {
        deny: old.deny.iter().chain(&new.deny).copied().collect(),
        exact: both(&old.exact, &new.exact),
        ports: both(&old.ports, &new.ports),
        prefixes: both(&old.prefixes, &new.prefixes),
    }
}

/// The addresses that we share with the kernel.
pub(super) fn shared(link: &LinkState) -> Vec<IpAddr> {
    let shared = |local: &&LocalAddress| local.owner == AddressOwner::Kernel;
    let addresses = link.addresses.iter().filter(shared);
    addresses.map(|local| local.address).collect()
}

/// The addresses for which rules for any address hold.
pub(super) fn locals(link: &LinkState) -> Vec<IpAddr> {
    link.addresses.iter().map(|local| local.address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(services: &str) -> Config {
        let text = format!("[interface]\nname = \"eth9\"\n{services}");
        Config::parse(&text, "test.toml").expect("a valid configuration")
    }

    #[test]
    fn a_dual_stack_listener_is_two_rules() {
        let config = config(
            "[[service]]\nname = \"a\"\napplication = \"echo\"\nprotocol = \"udp\"\n\
             listen = [\"[::]:7\"]\n\
             [[service]]\nname = \"b\"\napplication = \"discard\"\nprotocol = \"udp\"\n\
             listen = [\"[::]:9\", \"0.0.0.0:9\"]\nv6only = true\n",
        );
        let rules = rules(&config, &LinkState::default());
        let ports: Vec<_> = rules
            .ports
            .iter()
            .map(|rule| (rule.scope, rule.port))
            .collect();
        assert_eq!(
            ports,
            [
                (Scope::AnyV4, 7),
                (Scope::AnyV6, 7),
                (Scope::AnyV6, 9),
                (Scope::AnyV4, 9)
            ]
        );
        assert_eq!(rules.deny.len(), 1, "SSH, by default");
    }

    #[test]
    fn ports_are_taken_for_connections_and_only_in_their_version() {
        let service = "[tcp]\nports = \"61000-61002\"\n[[service]]\nname = \"a\"\napplication = \"echo\"\n\
                       protocol = \"tcp\"\n";
        let ports = |keys: &str| {
            let rules = rules(&config(&format!("{service}{keys}")), &LinkState::default());
            let ports = rules.ports.iter();
            ports
                .map(|rule| (rule.scope, rule.port))
                .collect::<Vec<_>>()
        };
        assert_eq!(ports("listen = [\"0.0.0.0:7\"]"), [(Scope::AnyV4, 7)]);
        let three = [61_000, 61_001, 61_002];
        assert_eq!(
            ports("connect = [\"192.0.2.1:7\"]"),
            three.map(|port| (Scope::AnyV4, port))
        );
        assert_eq!(
            ports("connect = [\"[2001:db8::1]:7\"]"),
            three.map(|port| (Scope::AnyV6, port))
        );
    }

    #[test]
    fn own_addresses_join_the_link_with_their_subnets() {
        let config = config(
            "[[service]]\nname = \"a\"\napplication = \"echo\"\nprotocol = \"udp\"\n\
             listen = [\"192.0.2.50:7\"]\nown_addresses = [\"192.0.2.50/24\", \"2001:db8::50/64\"]\n",
        );
        let link = with_own_addresses(LinkState::default(), &config);
        let own: Vec<_> = link
            .addresses
            .iter()
            .map(|local| local.address.to_string())
            .collect();
        assert_eq!(own, ["192.0.2.50", "2001:db8::50"]);
        assert_eq!(
            link.addresses[0].broadcast,
            Some(Ipv4Addr::new(192, 0, 2, 255))
        );
        assert!(
            link.routes
                .lookup_ip("192.0.2.1".parse().expect("an address"))
                .is_some()
        );
        assert!(
            link.routes
                .lookup_ip("2001:db8::1".parse().expect("an address"))
                .is_some()
        );
        let prefixes: Vec<_> = rules(&config, &link)
            .prefixes
            .iter()
            .map(|prefix| prefix.len)
            .collect();
        assert_eq!(prefixes, [32, 128]);
    }
}
