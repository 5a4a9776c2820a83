//! The steering decision beside the stack: what steering brings to us, the stack knows what to do with,
//! and what the stack would deliver, steering brings.

use crate::world::packets::*;
use stack::counters::{DropReason, Event};
use stack::heap::HeapPool;
use stack::ip::route::{Route, RouteTable};
use stack::link::{AddressOwner, LinkState, LocalAddress};
use stack::socket::bind::Bind;
use stack::time::Instant;
use stack::wire::ethernet::VlanIds;
use stack::{Config, Origin, Stack};
use std::net::IpAddr;
use steer::memory::MemoryTables;
use steer::tables::{LocalKey, flag, vlan_stack};
use steer::{Address, Verdict};

const UDP: u32 = 17;
/// What no packet may be dropped for that steering brought because of its port.
const NEVER: [DropReason; 8] = [
    DropReason::EthernetTruncated,
    DropReason::EthernetNotForUs,
    DropReason::VlanMismatch,
    DropReason::EtherTypeUnknown,
    DropReason::IpNotLocal,
    DropReason::IpProtocolUnknown,
    DropReason::UdpNoSocket,
    DropReason::UdpTruncated,
];

/// The same services for both: a dual-stack one on every address, two on one address each, and two
/// addresses that are ours whole.
fn both(vlans: &[u16]) -> (Stack<HeapPool>, MemoryTables) {
    let shared = [IpAddr::V4(SHARED_V4), IpAddr::V6(SHARED_V6)];
    let own = [IpAddr::V4(OWN_V4), IpAddr::V6(OWN_V6)];
    let mut tables = MemoryTables::default();
    tables.config.flags = flag::ENABLED;
    tables.config.vlan_stack = vlan_stack(vlans).expect("right identifiers");
    let key = |address: Address, port| LocalKey {
        address,
        port,
        protocol: UDP,
    };
    tables.ports.extend([
        key(Address::ANY_V4, 7),
        key(Address::ANY_V6, 7),
        key(IpAddr::V4(SHARED_V4).into(), 53),
        key(IpAddr::V6(OWN_V6).into(), 9),
    ]);
    tables.locals.extend(shared.map(Address::from));
    tables.locals.extend(own.map(Address::from));
    // IPv4 lengths count from bit 96.
    tables
        .prefixes
        .extend(own.map(|address| (Address::from(address), 128)));
    tables.deny.insert(LocalKey {
        port: 22,
        protocol: 6,
        ..LocalKey::default()
    });
    tables.sync_flags();

    let mut stack = Stack::new(Config {
        vlans: VlanIds::new(vlans).expect("right identifiers"),
        reassembly_bytes: 0,
        announce: false,
        ..Config::default()
    });
    let local = |owner| {
        move |address: IpAddr| LocalAddress {
            address,
            prefix_len: if address.is_ipv4() { 24 } else { 64 },
            broadcast: None,
            owner,
        }
    };
    let routes = ["0.0.0.0", "::"].map(|any| Route::on_link(any.parse().expect("an address"), 0));
    let link = LinkState {
        mac: OUR_MAC,
        mtu: 1500,
        up: true,
        addresses: shared
            .into_iter()
            .map(local(AddressOwner::Kernel))
            .chain(own.into_iter().map(local(AddressOwner::Stack)))
            .collect(),
        routes: RouteTable::new(routes.to_vec(), 2).expect("two right routes"),
    };
    stack.set_link(Box::new(link), Instant::ZERO);
    for local in ["[::]:7", "192.0.2.1:53", "[2001:db8::9]:9"] {
        let bind = Bind {
            local: local.parse().expect("a socket address"),
            v6only: false,
        };
        stack.udp_bind(bind, 64).expect("they do not overlap");
    }
    (stack, tables)
}

/// One byte chooses the VLAN, one what follows: a frame, or choices that make some.
pub fn steer(data: &[u8]) {
    let mut choices = Choices::new(data);
    let vlans: &[u16] = choices.of(&[&[][..], &[], &[5], &[100, 5]]);
    let frames = if choices.byte() & 1 == 0 {
        packets(&mut choices)
    } else {
        vec![choices.rest().to_vec()]
    };
    let (mut stack, tables) = both(vlans);
    let mut pool = HeapPool::new(64, 4096);
    let tags: Vec<[u8; 4]> = vlans
        .iter()
        .map(|id| [0x81, 0, id.to_be_bytes()[0], id.to_be_bytes()[1]])
        .collect();
    for mut frame in frames {
        tag_frame(&mut frame, &tags);
        // Which stations we listen to is the NIC's to decide, and comes before both.
        if frame.len() >= 12 {
            frame[..6].copy_from_slice(&OUR_MAC);
            frame[6..12].copy_from_slice(&PEER_MAC);
        }
        judge(&mut stack, &mut pool, &tables, &frame);
    }
    stack.release_all(&mut pool);
    assert_eq!(pool.in_use(), 0);
}

fn judge(stack: &mut Stack<HeapPool>, pool: &mut HeapPool, tables: &MemoryTables, frame: &[u8]) {
    let verdict = steer::steer(frame, tables);
    let Some(received) = pool.receive(frame) else {
        return;
    };
    let before = (stack.drops().clone(), stack.events().get(Event::UdpRx));
    stack.ingest(pool, received, Origin::Ring, Instant::ZERO);
    let grew = |reason| stack.drops().get(reason) > before.0.get(reason);
    let shown = || format!("{verdict:?}: {frame:02x?}");
    match verdict {
        Verdict::RedirectPort | Verdict::RedirectPortAny | Verdict::RedirectExact => {
            for reason in NEVER {
                assert!(!grew(reason), "{} for {}", reason.name(), shown());
            }
        }
        Verdict::RedirectIcmpError => {
            for reason in [DropReason::IpNotLocal, DropReason::IcmpNotForUs] {
                assert!(!grew(reason), "{} for {}", reason.name(), shown());
            }
        }
        Verdict::RedirectPrefix | Verdict::RedirectArp | Verdict::RedirectNeighbor => {
            for reason in [DropReason::IpNotLocal, DropReason::VlanMismatch] {
                assert!(!grew(reason), "{} for {}", reason.name(), shown());
            }
        }
        _ => {}
    }
    if stack.events().get(Event::UdpRx) > before.1 {
        // Steering follows fewer extension headers than the stack, and says so.
        let given_up = verdict == Verdict::PassExtensionHeaders;
        assert!(
            verdict.redirects() || given_up,
            "delivered, but {}",
            shown()
        );
    }
}
