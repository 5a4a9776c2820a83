//! Questions to the kernel's tables.

use super::MirrorError;
use futures_util::StreamExt;
use rtnetlink::{
    Handle, new_connection_with_strict_check,
    packet_core::{
        NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
    },
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::AddressMessage,
        link::LinkMessage,
        neighbour::{
            NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
        },
        route::{RouteAttribute, RouteMessage},
    },
};
use std::{io, net::IpAddr};
use tokio::task::JoinHandle;

/// `NLM_F_DUMP_INTR` of `linux/netlink.h`: the table changed while it was read, and what was read
/// may miss entries that were there before and after.
const NLM_F_DUMP_INTR: u16 = 0x10;

/// How often a table that changes while it is read is read again. A dump of an ordinary table takes
/// under a millisecond, so even one of these rarely fails twice.
const DUMP_ATTEMPTS: usize = 10;

/// Both IP versions, each with its own tables in the kernel.
const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet, AddressFamily::Inet6];

/// `RT_TABLE_MAIN` of `linux/rtnetlink.h`.
pub(super) const TABLE_MAIN: u8 = 254;

/// `RT_TABLE_LOCAL` of `linux/rtnetlink.h`.
pub(super) const TABLE_LOCAL: u8 = 255;

/// A netlink socket for questions. It checks strictly (`NETLINK_GET_STRICT_CHK`): only so does the
/// kernel filter dumps by table and interface, instead of sending everything.
#[derive(Debug)]
pub(super) struct Dumper {
    handle: Handle,
    connection: JoinHandle<()>,
}

impl Drop for Dumper {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Dumper {
    /// Must be called within a tokio runtime.
    pub(super) fn open() -> Result<Self, MirrorError> {
        let (connection, handle, _) =
            new_connection_with_strict_check().map_err(MirrorError::Socket)?;
        Ok(Self {
            handle,
            connection: tokio::spawn(connection),
        })
    }

    /// Every link.
    pub(super) async fn links(&self) -> Result<Vec<LinkMessage>, MirrorError> {
        let question = RouteNetlinkMessage::GetLink(LinkMessage::default());
        self.dump("links", question, |answer| match answer {
            RouteNetlinkMessage::NewLink(link) => Some(link),
            _ => None,
        })
        .await
    }

    /// Every address of an interface.
    pub(super) async fn addresses(&self, index: u32) -> Result<Vec<AddressMessage>, MirrorError> {
        let mut all = Vec::new();
        for family in FAMILIES {
            let mut question = AddressMessage::default();
            question.header.family = family;
            question.header.index = index;
            let question = RouteNetlinkMessage::GetAddress(question);
            all.extend(
                self.dump("addresses", question, |answer| match answer {
                    RouteNetlinkMessage::NewAddress(address) => Some(address),
                    _ => None,
                })
                .await?,
            );
        }
        // A kernel that filters answers only this; the check costs nothing.
        all.retain(|address| address.header.index == index);
        Ok(all)
    }

    /// Every route of the tables `local` and `main`, in this order.
    pub(super) async fn routes(&self) -> Result<Vec<RouteMessage>, MirrorError> {
        let mut all = Vec::new();
        for table in [TABLE_LOCAL, TABLE_MAIN] {
            for family in FAMILIES {
                let mut question = RouteMessage::default();
                question.header.address_family = family;
                question.header.table = table;
                let question = RouteNetlinkMessage::GetRoute(question);
                all.extend(
                    self.dump("routes", question, |answer| match answer {
                        RouteNetlinkMessage::NewRoute(route)
                            if table_of(&route) == u32::from(table) =>
                        {
                            Some(route)
                        }
                        _ => None,
                    })
                    .await?,
                );
            }
        }
        Ok(all)
    }

    /// Every neighbour of an interface, whatever its state.
    pub(super) async fn neighbors(&self, index: u32) -> Result<Vec<NeighbourMessage>, MirrorError> {
        let mut all = Vec::new();
        for family in FAMILIES {
            let mut question = NeighbourMessage::default();
            question.header.family = family;
            question.attributes.push(NeighbourAttribute::IfIndex(index));
            let question = RouteNetlinkMessage::GetNeighbour(question);
            all.extend(
                self.dump("neighbours", question, |answer| match answer {
                    RouteNetlinkMessage::NewNeighbour(neighbor) => Some(neighbor),
                    _ => None,
                })
                .await?,
            );
        }
        all.retain(|neighbor| neighbor.header.ifindex == index);
        Ok(all)
    }

    /// Asks the kernel to use `address` on the interface, as if it had a packet for it: it makes an
    /// entry if there is none, probes if that is due, and announces what becomes of it
    /// (`NTF_USE`, `neigh_add` in `net/core/neighbour.c`).
    ///
    /// Returns without waiting for the kernel's answer.
    pub(super) fn use_neighbor(&self, index: u32, address: IpAddr) -> Result<(), MirrorError> {
        let mut request = NeighbourMessage::default();
        request.header.family = match address {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        request.header.ifindex = index;
        request.header.state = NeighbourState::None;
        request.header.flags = NeighbourFlags::Use;
        let destination = NeighbourAddress::from(address);
        request
            .attributes
            .push(NeighbourAttribute::Destination(destination));
        let mut message = NetlinkMessage::from(RouteNetlinkMessage::NewNeighbour(request));
        message.header.flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_ACK;
        let mut handle = self.handle.clone();
        let mut answers = handle.request(message).map_err(|_| MirrorError::closed())?;
        tokio::spawn(async move {
            while let Some(answer) = answers.next().await {
                if let NetlinkPayload::Error(error) = answer.payload {
                    let error = error.to_io();
                    tracing::debug!(%address, %error, "the kernel does not resolve a neighbour");
                }
            }
        });
        Ok(())
    }

    /// Reads a table until it did not change meanwhile.
    async fn dump<T>(
        &self,
        what: &'static str,
        question: RouteNetlinkMessage,
        pick: impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>, MirrorError> {
        for _ in 0..DUMP_ATTEMPTS {
            if let Some(all) = self.dump_once(what, question.clone(), &pick).await? {
                return Ok(all);
            }
        }
        Err(MirrorError::Unsteady { what })
    }

    /// `None` if the table changed while it was read.
    async fn dump_once<T>(
        &self,
        what: &'static str,
        question: RouteNetlinkMessage,
        pick: impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Option<Vec<T>>, MirrorError> {
        let mut message = NetlinkMessage::from(question);
        message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let mut handle = self.handle.clone();
        let mut answers = handle.request(message).map_err(|_| MirrorError::closed())?;
        let (mut all, mut steady) = (Vec::new(), true);
        while let Some(answer) = answers.next().await {
            steady &= answer.header.flags & NLM_F_DUMP_INTR == 0;
            match answer.payload {
                NetlinkPayload::InnerMessage(inner) => all.extend(pick(inner)),
                // `inet_dump_fib`: a table nobody has put a route into does not exist.
                NetlinkPayload::Error(error) if error.to_io().kind() == io::ErrorKind::NotFound => {
                }
                NetlinkPayload::Error(error) => {
                    return Err(MirrorError::Refused {
                        what,
                        error: error.to_io(),
                    });
                }
                NetlinkPayload::Overrun(_) => steady = false,
                _ => {}
            }
        }
        if self.connection.is_finished() {
            return Err(MirrorError::closed());
        }
        Ok(steady.then_some(all))
    }
}

/// The table a route is in: `RTA_TABLE`, or the header's octet where the kernel is that old.
pub(super) fn table_of(route: &RouteMessage) -> u32 {
    let attribute = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Table(table) => Some(*table),
            _ => None,
        });
    attribute.unwrap_or(route.header.table.into())
}
