//! Tagged packets. The kernels that tests run on may lack 802.1Q sub-interfaces, so frames are made by
//! hand.

use crate::driver_support::PacketSocket;
use crate::operating::assert_fails;
use crate::stack_support::{
    OUR_MAC, OWN_V4, OWN_V6, PEER_MAC, PEER_V4, PEER_V6, ip_packet, read_ip, read_udp, udp_packet,
};
use crate::support::lab::{Lab, PEER, lab, serve, serve_as};
use crate::support::{POLL, eventually};
use stack::wire::ethernet::{self, BROADCAST, TYPE_ARP, TYPE_SERVICE_VLAN, TYPE_VLAN, VlanIds};
use stack::wire::{arp, icmpv4, icmpv6, protocol};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

/// Echo at addresses of its own alone: no sub-interface is needed.
fn owner(vlans: &str) -> String {
    let service = serve_as(
        "own",
        "echo",
        &["192.0.2.9:7", "[2001:db8::9]:7"],
        "own_addresses = [\"192.0.2.9/24\", \"2001:db8::9/64\"]",
    );
    format!("vlan = {vlans}\n{service}")
}

/// A cable whose ends leave tags where they are, with the Ethernet addresses of the packets below.
fn prepare(lab: &Lab) {
    lab.server.sh("ethtool -K dp0 rxvlan off txvlan off");
    for (namespace, device, address) in [
        (&lab.server, "dp0", "02:00:00:00:00:01"),
        (&lab.peer, PEER, "02:00:00:00:00:02"),
    ] {
        namespace.ip(&format!("link set {device} address {address}"));
    }
}

/// The peer's end of a VLAN.
struct Vlan<'a> {
    socket: &'a PacketSocket,
    /// EtherType and identifier of each tag, outermost first.
    tags: &'a [(u16, u16)],
}

impl Vlan<'_> {
    fn tagged(&self, untagged: &[u8]) -> Vec<u8> {
        let mut frame = untagged[..12].to_vec();
        for (tag_type, id) in self.tags {
            frame.extend(tag_type.to_be_bytes());
            frame.extend(id.to_be_bytes());
        }
        frame.extend(&untagged[12..]);
        frame
    }

    /// Sends a frame, with our tags, until one comes back with the same tags that `read` takes for
    /// its answer; without padding.
    #[track_caller]
    fn ask<T>(&self, what: &str, untagged: &[u8], read: impl Fn(&[u8]) -> Option<T>) -> T {
        let request = self.tagged(untagged);
        let tags = &request[12..12 + 4 * self.tags.len()];
        eventually(what, || {
            self.socket.send(&request);
            let deadline = Instant::now() + 10 * POLL;
            while Instant::now() < deadline {
                let answer = self.socket.receive();
                let Some(answer) = answer.filter(|answer| answer[12..].starts_with(tags)) else {
                    std::thread::yield_now();
                    continue;
                };
                let untagged = [&answer[..12], &answer[12 + tags.len()..]].concat();
                if let Some(found) = read(&untagged) {
                    return Some(found);
                }
            }
            None
        })
    }

    fn arp_finds_the_address(&self) {
        let request = arp::Repr {
            operation: arp::Operation::Request,
            sender_mac: PEER_MAC,
            sender: PEER_V4,
            target_mac: [0; 6],
            target: OWN_V4,
        };
        let header = ethernet::Repr {
            destination: BROADCAST,
            source: PEER_MAC,
            vlans: VlanIds::NONE,
            ether_type: TYPE_ARP,
        };
        let mut frame = [0; ethernet::FRAME_LEN_MIN];
        let at = header.emit(&mut frame).expect("there is room");
        request.emit(&mut frame, at).expect("there is room");
        let reply = self.ask("an ARP reply", &frame, |frame| {
            let ethernet = ethernet::Packet::new_checked(frame).ok()?;
            (ethernet.ether_type() == TYPE_ARP && ethernet.destination() == PEER_MAC)
                .then(|| arp::Repr::parse(frame, ethernet.payload_offset()).expect("whole"))
        });
        assert_eq!((reply.sender_mac, reply.sender), (OUR_MAC, OWN_V4));
        assert_eq!(reply.operation, arp::Operation::Reply);
    }

    fn echoes(&self, from: IpAddr, to: IpAddr) {
        let (from, to) = (SocketAddr::new(from, 4000), SocketAddr::new(to, 7));
        let answer = self.ask("a UDP echo", &udp_packet(from, to, b"tagged"), |frame| {
            is_ip(frame, protocol::UDP).then(|| read_udp(frame))
        });
        assert_eq!(answer, (to, from, b"tagged".to_vec()));
    }

    fn pings(&self, from: IpAddr, to: IpAddr) {
        const BODY: &[u8] = b"ping";
        const ID: [u8; 4] = [0, 1, 0, 2];
        let (number, header, reply) = match (from, to) {
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let kind = (icmpv6::kind::ECHO_REQUEST, 0);
                let header = icmpv6::header((from, to), kind, ID, BODY).expect("short");
                (protocol::ICMPV6, header, icmpv6::kind::ECHO_REPLY)
            }
            _ => {
                let header = icmpv4::header(icmpv4::kind::ECHO_REQUEST, 0, ID, BODY);
                (protocol::ICMPV4, header, icmpv4::kind::ECHO_REPLY)
            }
        };
        let frame = ip_packet(from, to, number, &[&header, BODY].concat());
        let answer = self.ask("an echo reply", &frame, |frame| {
            let message = is_ip(frame, number).then(|| read_ip(frame).3)?;
            (message[0] == reply).then_some(message)
        });
        assert_eq!(answer[4..], [&ID, BODY].concat());
    }
}

/// Whether a frame without tags is one to the peer with this protocol right behind its IP header.
fn is_ip(frame: &[u8], number: u8) -> bool {
    match u16::from_be_bytes([frame[12], frame[13]]) {
        ethernet::TYPE_IPV4 => frame[14 + 9] == number,
        ethernet::TYPE_IPV6 => frame[14 + 6] == number,
        _ => false,
    }
}

#[test]
fn one_tag_is_answered_with_one() {
    let lab = lab!("one_tag_is_answered_with_one", queues: 1);
    prepare(&lab);
    let service = lab.start(&owner("[100]"));
    let socket = lab.peer.run(|| PacketSocket::open(PEER));
    let vlan = |tags| Vlan {
        socket: &socket,
        tags,
    };
    answers(&vlan(&[(TYPE_VLAN, 100)]));
    // Another VLAN, no VLAN, and ours within another are not ours.
    let (from, to) = (
        SocketAddr::new(PEER_V4.into(), 4000),
        SocketAddr::new(OWN_V4.into(), 7),
    );
    let before = service.counter("event", "udp_rx");
    for tags in [
        &[(TYPE_VLAN, 101)][..],
        &[],
        &[(TYPE_SERVICE_VLAN, 200), (TYPE_VLAN, 100)],
    ] {
        socket.send(&vlan(tags).tagged(&udp_packet(from, to, b"other")));
    }
    vlan(&[(TYPE_VLAN, 100)]).pings(PEER_V4.into(), OWN_V4.into());
    assert_eq!(service.counter("event", "udp_rx"), before);
    let info = service.ask_json("info");
    assert_eq!(info["interface"]["mac"], "02:00:00:00:00:01");
    assert_eq!(info["interface"]["mtu"], 1500);
}

#[test]
fn two_tags_are_answered_with_two() {
    let lab = lab!("two_tags_are_answered_with_two", queues: 1);
    prepare(&lab);
    let _service = lab.start(&owner("[200, 100]"));
    let socket = lab.peer.run(|| PacketSocket::open(PEER));
    answers(&Vlan {
        socket: &socket,
        tags: &[(TYPE_SERVICE_VLAN, 200), (TYPE_VLAN, 100)],
    });
}

#[track_caller]
fn answers(vlan: &Vlan<'_>) {
    vlan.arp_finds_the_address();
    let versions: [(IpAddr, IpAddr); 2] = [
        (PEER_V4.into(), OWN_V4.into()),
        (PEER_V6.into(), OWN_V6.into()),
    ];
    for (from, to) in versions {
        vlan.echoes(from, to);
        vlan.pings(from, to);
    }
}

#[test]
fn addresses_of_the_kernels_need_a_sub_interface() {
    let lab = lab!("addresses_of_the_kernels_need_a_sub_interface", queues: 1);
    prepare(&lab);
    let config = format!("vlan = [100]\n{}", serve("echo", &["[::]:7"]));
    assert_fails(
        &lab.start_in_vain(&config),
        1,
        &["VLAN", "id 100", "ip link add"],
    );
}

#[test]
fn a_driver_that_takes_tags_out_is_refused() {
    let lab = lab!("a_driver_that_takes_tags_out_is_refused", queues: 1);
    let refused = lab.start_in_vain(&owner("[100]"));
    let said: Vec<&str> = refused
        .stderr
        .lines()
        .filter(|line| line.starts_with("dataplane: "))
        .collect();
    assert_eq!(refused.status.code(), Some(1), "{refused}");
    assert!(
        said.len() == 1 && said[0].contains("ethtool -K dp0 rxvlan off"),
        "{refused}"
    );
}
