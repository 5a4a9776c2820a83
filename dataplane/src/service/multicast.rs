//! Group membership for IPv6 addresses that services own.
//!
//! Neighbour solicitations go to the solicited-node group of an address. The kernel, which does not
//! know the address, has not told the NIC to receive that group; a packet socket's membership does,
//! for as long as the socket lives (`packet(7)`, PACKET_ADD_MEMBERSHIP).

// `setsockopt` with a `packet_mreq` has no safe wrapper in the crates we use.
#![allow(unsafe_code)]

use super::ServiceError;
use stack::ip::address::solicited_node_multicast;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Keeps the groups joined until it is dropped.
#[derive(Debug)]
pub(super) struct Memberships {
    _socket: Option<OwnedFd>,
}

impl Memberships {
    /// Joins the groups of all IPv6 addresses among `own` on the interface of this index.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn join(interface_index: u32, own: &[IpAddr]) -> Result<Self, ServiceError> {
        let groups: Vec<Ipv6Addr> = own
            .iter()
            .filter_map(|address| match address {
                IpAddr::V4(_) => None,
                IpAddr::V6(address) => Some(solicited_node_multicast(*address)),
            })
            .collect();
        if groups.is_empty() {
            return Ok(Self { _socket: None });
        }
        let failed = |error| ServiceError::os("join the groups of own addresses", error);
        // Protocol 0: the socket receives nothing.
        // SAFETY: plain system call without pointers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(failed(io::Error::last_os_error()));
        }
        // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        for group in groups {
            join(&socket, interface_index, group).map_err(failed)?;
        }
        Ok(Self {
            _socket: Some(socket),
        })
    }
}

fn join(socket: &OwnedFd, interface_index: u32, group: Ipv6Addr) -> io::Result<()> {
    // RFC 2464 §7.
    let [.., a, b, c, d] = group.octets();
    let request = libc::packet_mreq {
        mr_ifindex: i32::try_from(interface_index).map_err(io::Error::other)?,
        #[expect(clippy::cast_possible_truncation, reason = "the constant is 0")]
        mr_type: libc::PACKET_MR_MULTICAST as u16,
        mr_alen: 6,
        mr_address: [0x33, 0x33, a, b, c, d, 0, 0],
    };
    // SAFETY: pointer and length describe `request`, which outlives the call; the kernel copies it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_ADD_MEMBERSHIP,
            (&raw const request).cast(),
            #[expect(clippy::cast_possible_truncation, reason = "16 bytes")]
            {
                size_of::<libc::packet_mreq>() as libc::socklen_t
            },
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
