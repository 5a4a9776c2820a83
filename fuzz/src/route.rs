//! The route table beside a linear scan.

use crate::world::packets::Choices;
use stack::ip::route::{Route, RouteTable};
use std::net::IpAddr;

/// Routes of eleven bytes each, then addresses to look up: those of the routes, their neighbours,
/// and what is left of the input.
pub fn route(data: &[u8]) {
    let mut choices = Choices::new(data);
    let count = choices.below(40);
    let routes: Vec<Route> = (0..count).map(|_| one(&mut choices)).collect();
    let mut probes: Vec<IpAddr> = Vec::new();
    for route in &routes {
        let step = |by: i8| match route.destination {
            IpAddr::V4(v4) => IpAddr::V4(v4.to_bits().wrapping_add_signed(by.into()).into()),
            IpAddr::V6(v6) => IpAddr::V6(v6.to_bits().wrapping_add_signed(by.into()).into()),
        };
        let last = match route.destination {
            IpAddr::V4(v4) => {
                let host = u32::MAX.checked_shr(route.prefix_len.into()).unwrap_or(0);
                IpAddr::V4((v4.to_bits() | host).into())
            }
            IpAddr::V6(v6) => {
                let host = u128::MAX.checked_shr(route.prefix_len.into()).unwrap_or(0);
                IpAddr::V6((v6.to_bits() | host).into())
            }
        };
        probes.extend([step(0), step(-1), step(1), last]);
    }
    for bytes in choices.rest().chunks_exact(4).take(32) {
        let octets = [bytes[0], bytes[1], bytes[2], bytes[3]];
        probes.push(IpAddr::V4(octets.into()));
    }
    let limit = routes.len();
    let table = match RouteTable::new(routes.clone(), limit) {
        Ok(table) => table,
        // Gateways may be any address: what is no gateway is refused, and said in words.
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    assert!(limit == 0 || RouteTable::new(routes.clone(), limit - 1).is_err());
    for probe in probes {
        let found = table.lookup_ip(probe);
        assert_eq!(found, scan(&routes, probe), "{probe}");
    }
}

/// Prefixes crowd around few addresses, so that they nest.
fn one(choices: &mut Choices<'_>) -> Route {
    let what = choices.byte();
    let prefix_len = choices.byte();
    let (a, b, c, d) = (
        choices.byte(),
        choices.byte(),
        choices.byte(),
        choices.byte(),
    );
    let (destination, prefix_len): (IpAddr, u8) = if what & 1 == 0 {
        ([10 | a & 1, b & 3, c, d].into(), prefix_len % 33)
    } else {
        let segments = [
            0x2001,
            0xdb8 | u16::from(a & 1),
            u16::from(b & 3),
            0,
            0,
            0,
            0,
            c.into(),
        ];
        (segments.into(), prefix_len % 129)
    };
    let gateway: [u8; 4] = [choices.byte(), 0, 0, 1];
    Route {
        gateway: (what & 2 != 0).then_some(gateway.into()),
        metric: u32::from(choices.byte() & 3),
        mtu: (what & 4 != 0).then(|| choices.word().into()),
        ..Route::on_link(destination, prefix_len)
    }
}

/// RFC 1812 §5.2.4.3: the longest prefix; then the lowest metric; then the first.
fn scan(routes: &[Route], address: IpAddr) -> Option<&Route> {
    let covers = |route: &&Route| match (route.destination, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let differing = network.to_bits() ^ address.to_bits();
            differing
                .checked_shr(32 - u32::from(route.prefix_len))
                .unwrap_or(0)
                == 0
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let differing = network.to_bits() ^ address.to_bits();
            differing
                .checked_shr(128 - u32::from(route.prefix_len))
                .unwrap_or(0)
                == 0
        }
        _ => false,
    };
    routes
        .iter()
        .filter(covers)
        .min_by_key(|route| (u8::MAX - route.prefix_len, route.metric))
}
