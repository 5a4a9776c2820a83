//! Our interface among the kernel's links, and its addresses.

use super::{MirrorConfig, MirrorError};
use rtnetlink::packet_route::{
    address::{AddressAttribute, AddressFlags, AddressMessage},
    link::{
        InfoData, InfoKind, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType,
        LinkMessage, VlanProtocol,
    },
};
use stack::link::{AddressOwner, LocalAddress, MacAddr};
use stack::wire::ethernet::{TYPE_SERVICE_VLAN, TYPE_VLAN};
use std::net::IpAddr;

/// Our interface: where frames go through, and what the IP configuration belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    /// Index of the interface whose queues we use.
    pub(super) parent: u32,
    /// Index of the interface that has the addresses: the VLAN sub-interface, or the parent. `None`
    /// where our VLAN has no sub-interface and needs none.
    pub(super) index: Option<u32>,
    /// EtherType of the outer tag of the sub-interface's frames.
    pub(super) outer_tag_type: Option<u16>,
    /// Source address of our frames.
    pub(super) mac: MacAddr,
    /// Largest IP packet, in bytes.
    pub(super) mtu: u32,
    /// Whether all interfaces from the addresses down to the wire are up and have a carrier.
    pub(super) up: bool,
}

impl Interface {
    /// Finds the interface among `links`: by the index it had before if it still exists, since it
    /// may have been renamed, otherwise by its name.
    pub(super) fn find(
        links: &[LinkMessage],
        config: &MirrorConfig,
        known_parent: Option<u32>,
    ) -> Result<Self, MirrorError> {
        let parent = known_parent
            .and_then(|index| links.iter().find(|link| link.header.index == index))
            .or_else(|| {
                links
                    .iter()
                    .find(|link| name(link) == Some(config.interface.as_str()))
            })
            .ok_or_else(|| MirrorError::NoInterface {
                interface: config.interface.clone(),
            })?;
        if parent.header.link_layer_type != LinkLayerType::Ether {
            return Err(MirrorError::NotEthernet {
                interface: config.interface.clone(),
            });
        }
        let mut link = parent;
        let mut up = is_up(parent);
        let mut outer_tag_type = None;
        let mut has_all = true;
        for &vlan in &config.vlans {
            let below = link.header.index;
            let child = links.iter().find_map(|link| match vlan_over(link)? {
                (over, id, tag_type) if (over, id) == (below, vlan) => Some((link, tag_type)),
                _ => None,
            });
            let Some((child, tag_type)) = child else {
                if config.vlan_optional {
                    has_all = false;
                    break;
                }
                return Err(MirrorError::NoVlan {
                    parent: name(link).unwrap_or(&config.interface).to_owned(),
                    vlan,
                });
            };
            link = child;
            outer_tag_type = outer_tag_type.or(tag_type);
            up &= is_up(link);
        }
        let not_ethernet = || MirrorError::NotEthernet {
            interface: config.interface.clone(),
        };
        Ok(Self {
            parent: parent.header.index,
            index: has_all.then_some(link.header.index),
            outer_tag_type,
            mac: mac(link).ok_or_else(not_ethernet)?,
            mtu: mtu(link).ok_or_else(not_ethernet)?,
            up,
        })
    }
}

/// `IFF_UP`: an administrator wants it; `IFF_LOWER_UP`: the wire is there.
fn is_up(link: &LinkMessage) -> bool {
    link.header
        .flags
        .contains(LinkFlags::Up | LinkFlags::LowerUp)
}

fn name(link: &LinkMessage) -> Option<&str> {
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.as_str()),
            _ => None,
        })
}

fn mac(link: &LinkMessage) -> Option<MacAddr> {
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::Address(mac) => mac.as_slice().try_into().ok(),
            _ => None,
        })
}

fn mtu(link: &LinkMessage) -> Option<u32> {
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Some(*mtu),
            _ => None,
        })
}

/// The interface below a VLAN sub-interface, its VLAN identifier and the EtherType of its tag, if the
/// kernel tells; `None` for other links, and for one whose lower interface is in another namespace,
/// where the index means another one.
fn vlan_over(link: &LinkMessage) -> Option<(u32, u16, Option<u16>)> {
    let (mut below, mut id, mut tag_type, mut is_vlan) = (None, None, None, false);
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Link(index) => below = Some(*index),
            LinkAttribute::LinkNetNsId(_) => return None,
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(kind) => is_vlan = *kind == InfoKind::Vlan,
                        LinkInfo::Data(InfoData::Vlan(data)) => {
                            for data in data {
                                match data {
                                    InfoVlan::Id(vlan) => id = Some(*vlan),
                                    InfoVlan::Protocol(VlanProtocol::Ieee8021Q) => {
                                        tag_type = Some(TYPE_VLAN);
                                    }
                                    InfoVlan::Protocol(VlanProtocol::Ieee8021Ad) => {
                                        tag_type = Some(TYPE_SERVICE_VLAN);
                                    }
                                    _ => {}
                                }
                            }
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    is_vlan.then_some((below?, id?, tag_type))
}

/// The addresses packets may be for. One that duplicate address detection has not passed is not
/// ours yet, and one that failed it never will be (RFC 4862 §5.4); an optimistic one is (RFC 4429).
pub(super) fn addresses(messages: &[AddressMessage]) -> Vec<LocalAddress> {
    let mut all: Vec<LocalAddress> = messages.iter().filter_map(address).collect();
    // The kernel lists in the order of its hash tables; sorted, equal states look equal.
    all.sort_by_key(|local| (local.address, local.prefix_len));
    all
}

fn address(message: &AddressMessage) -> Option<LocalAddress> {
    let (mut local, mut address, mut broadcast) = (None, None, None);
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            AddressAttribute::Broadcast(ip) => broadcast = Some(*ip),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    let unproven =
        flags.contains(AddressFlags::Tentative) && !flags.contains(AddressFlags::Optimistic);
    if unproven || flags.contains(AddressFlags::Dadfailed) {
        return None;
    }
    // `IFA_ADDRESS` is the peer's on a point-to-point address; `IFA_LOCAL`, where there is one, is
    // always ours (`linux/if_addr.h`).
    let address: IpAddr = local.or(address)?;
    let broadcast = broadcast.filter(|_| address.is_ipv4());
    Some(LocalAddress {
        address,
        prefix_len: message.header.prefix_len,
        broadcast,
        owner: AddressOwner::Kernel,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtnetlink::packet_route::AddressFamily;

    fn ethernet(index: u32, name: &str, mac: u8) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.link_layer_type = LinkLayerType::Ether;
        link.header.flags = LinkFlags::Up | LinkFlags::LowerUp;
        link.attributes = vec![
            LinkAttribute::IfName(name.into()),
            LinkAttribute::Address(vec![2, 0, 0, 0, 0, mac]),
            LinkAttribute::Mtu(1500),
        ];
        link
    }

    fn vlan(index: u32, name: &str, below: u32, id: u16) -> LinkMessage {
        let mut link = ethernet(index, name, u8::try_from(index).unwrap());
        link.attributes.push(LinkAttribute::Link(below));
        link.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Vlan),
            LinkInfo::Data(InfoData::Vlan(vec![InfoVlan::Id(id)])),
        ]));
        link
    }

    fn config(interface: &str, vlans: &[u16]) -> MirrorConfig {
        MirrorConfig {
            interface: interface.into(),
            vlans: vlans.into(),
            vlan_optional: false,
            route_limit: 10,
        }
    }

    #[test]
    fn vlan_chain_is_followed_in_order() {
        let links = [
            vlan(12, "eth0.7.9", 11, 9),
            vlan(13, "eth0.9", 10, 9),
            vlan(14, "eth1.7", 20, 7),
            vlan(11, "eth0.7", 10, 7),
            ethernet(10, "eth0", 1),
            ethernet(20, "eth1", 2),
        ];
        let find = |vlans: &[u16]| Interface::find(&links, &config("eth0", vlans), None);
        let index = |vlans: &[u16]| {
            find(vlans)
                .map(|found| (found.parent, found.index.unwrap()))
                .unwrap()
        };
        assert_eq!(index(&[]), (10, 10));
        assert_eq!(index(&[7]), (10, 11));
        assert_eq!(index(&[9]), (10, 13));
        assert_eq!(index(&[7, 9]), (10, 12));
        assert_eq!(find(&[7, 9]).unwrap().mac, [2, 0, 0, 0, 0, 12]);
        let error = find(&[9, 7]).unwrap_err();
        assert!(
            matches!(&error, MirrorError::NoVlan { parent, vlan: 7 } if parent == "eth0.9"),
            "{error}"
        );
        assert!(
            error.to_string().contains("ip link add link eth0.9"),
            "{error}"
        );
    }

    /// Where services own all their addresses, the kernel need not know the VLAN.
    #[test]
    fn a_vlan_without_sub_interface_may_do() {
        let optional = |vlans: &[u16]| MirrorConfig {
            vlan_optional: true,
            ..config("eth0", vlans)
        };
        let links = [ethernet(10, "eth0", 1), vlan(11, "eth0.7", 10, 7)];
        let find = |vlans: &[u16]| Interface::find(&links, &optional(vlans), None).unwrap();
        assert_eq!((find(&[9]).parent, find(&[9]).index), (10, None));
        assert_eq!(find(&[9]).mac, [2, 0, 0, 0, 0, 1], "the parent's");
        // What there is of the way is followed.
        assert_eq!(find(&[7]).index, Some(11));
        assert_eq!((find(&[7, 9]).index, find(&[7, 9]).mac[5]), (None, 11));
    }

    #[test]
    fn the_type_of_the_outer_tag_is_taken_over() {
        let tag = |mut link: LinkMessage, protocol| {
            let data = InfoData::Vlan(vec![InfoVlan::Id(7), InfoVlan::Protocol(protocol)]);
            let infos = vec![LinkInfo::Kind(InfoKind::Vlan), LinkInfo::Data(data)];
            link.attributes.push(LinkAttribute::LinkInfo(infos));
            link.attributes.push(LinkAttribute::Link(10));
            link
        };
        for (protocol, tag_type) in [
            (VlanProtocol::Ieee8021Q, TYPE_VLAN),
            (VlanProtocol::Ieee8021Ad, TYPE_SERVICE_VLAN),
        ] {
            let outer = tag(ethernet(11, "outer", 2), protocol);
            let links = [ethernet(10, "eth0", 1), outer, vlan(12, "inner", 11, 9)];
            for vlans in [&[7][..], &[7, 9]] {
                let found = Interface::find(&links, &config("eth0", vlans), None).unwrap();
                assert_eq!(found.outer_tag_type, Some(tag_type), "{vlans:?}");
            }
        }
    }

    #[test]
    fn every_link_of_the_chain_must_be_up() {
        for down in 0..3 {
            let mut links = [
                ethernet(10, "eth0", 1),
                vlan(11, "outer", 10, 7),
                vlan(12, "inner", 11, 9),
            ];
            let up = |links: &[LinkMessage]| {
                Interface::find(links, &config("eth0", &[7, 9]), None)
                    .unwrap()
                    .up
            };
            assert!(up(&links));
            links[down].header.flags.remove(LinkFlags::LowerUp);
            assert!(!up(&links));
            links[down].header.flags = LinkFlags::LowerUp;
            assert!(!up(&links));
        }
    }

    #[test]
    fn a_vlan_over_another_namespace_is_not_ours() {
        let mut foreign = vlan(11, "eth0.7", 10, 7);
        foreign.attributes.push(LinkAttribute::LinkNetNsId(0));
        let links = [ethernet(10, "eth0", 1), foreign];
        assert!(Interface::find(&links, &config("eth0", &[7]), None).is_err());
    }

    #[test]
    fn a_renamed_interface_is_known_by_its_index() {
        let links = [ethernet(10, "new", 1), ethernet(20, "eth0", 2)];
        let parent = |known| {
            Interface::find(&links, &config("eth0", &[]), known)
                .unwrap()
                .parent
        };
        assert_eq!(parent(Some(10)), 10);
        assert_eq!(parent(None), 20);
        // The one we knew is gone: its name is all there is.
        assert_eq!(parent(Some(30)), 20);
    }

    #[test]
    fn only_ethernet_will_do() {
        let mut tunnel = ethernet(10, "tun0", 1);
        tunnel.header.link_layer_type = LinkLayerType::Tunnel;
        let error = Interface::find(&[tunnel], &config("tun0", &[]), None).unwrap_err();
        assert!(matches!(error, MirrorError::NotEthernet { .. }));
        // InfiniBand addresses have 20 octets.
        let mut long = ethernet(10, "ib0", 1);
        long.attributes[1] = LinkAttribute::Address(vec![0; 20]);
        let error = Interface::find(&[long], &config("ib0", &[]), None).unwrap_err();
        assert!(matches!(error, MirrorError::NotEthernet { .. }));
    }

    fn address_message(attributes: Vec<AddressAttribute>) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = 24;
        message.attributes = attributes;
        message
    }

    #[test]
    fn addresses_under_detection_are_not_ours_yet() {
        let with = |flags| {
            let ip = AddressAttribute::Address("2001:db8::1".parse().unwrap());
            addresses(&[address_message(vec![ip, AddressAttribute::Flags(flags)])]).len()
        };
        assert_eq!(with(AddressFlags::Permanent), 1);
        assert_eq!(with(AddressFlags::Tentative), 0);
        assert_eq!(with(AddressFlags::Tentative | AddressFlags::Optimistic), 1);
        assert_eq!(with(AddressFlags::Dadfailed | AddressFlags::Permanent), 0);
        assert_eq!(with(AddressFlags::Deprecated), 1);
    }

    #[test]
    fn the_local_end_of_a_point_to_point_address_is_ours() {
        let (peer, ours) = ("192.0.2.2".parse().unwrap(), "192.0.2.1".parse().unwrap());
        let message = address_message(vec![
            AddressAttribute::Address(peer),
            AddressAttribute::Local(ours),
            AddressAttribute::Broadcast("192.0.2.255".parse().unwrap()),
        ]);
        let all = addresses(&[message, address_message(vec![])]);
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].address, ours);
        assert_eq!(all[0].broadcast, Some("192.0.2.255".parse().unwrap()));
    }
}
