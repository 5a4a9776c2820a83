//! Group membership for IPv6 addresses that services own.
//!
//! Neighbour solicitations go to the solicited-node group of an address, which a node has to join
//! (RFC 4861 §7.2.1). The kernel does not know the address and has not joined; a socket's membership
//! makes it: for as long as the socket lives, the kernel has the NIC receive the group, reports it
//! by MLD and answers queries, without which switches that listen to MLD (RFC 4541 §3) would not
//! deliver solicitations. Solicitations for the address the kernel leaves unanswered all the same,
//! because a group is not an address.

use super::ServiceError;
use rustix::io::Errno;
use rustix::net::sockopt::set_ipv6_add_membership;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use stack::ip::address::solicited_node_multicast;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::OwnedFd;

/// Keeps the groups joined until it is dropped.
#[derive(Debug)]
pub(super) struct Memberships {
    _socket: Option<OwnedFd>,
}

impl Memberships {
    /// Joins the groups of all IPv6 addresses among `own` on the interface of this index. Addresses
    /// that end alike share a group.
    ///
    /// While IPv6 is disabled on the interface (`disable_ipv6`), the kernel sends no reports; it
    /// makes up for them when it is enabled. That is worth a warning, but no error: without a switch
    /// that listens to MLD, the addresses work.
    ///
    /// # Errors
    /// The kernel has no IPv6, on this interface or at all.
    pub(super) fn join(interface_index: u32, own: &[IpAddr]) -> Result<Self, ServiceError> {
        let groups: BTreeSet<Ipv6Addr> = own
            .iter()
            .filter_map(|address| match address {
                IpAddr::V4(_) => None,
                IpAddr::V6(address) => Some(solicited_node_multicast(*address)),
            })
            .collect();
        if groups.is_empty() {
            return Ok(Self { _socket: None });
        }
        // Without a port, the socket receives nothing.
        let socket = socket_with(
            AddressFamily::INET6,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(refused)?;
        for group in groups {
            set_ipv6_add_membership(&socket, &group, interface_index).map_err(refused)?;
        }
        if is_disabled(&socket, interface_index) {
            tracing::warn!(
                "IPv6 is disabled on the interface (net.ipv6.conf.*.disable_ipv6), so the kernel does \
                 not report the groups of own IPv6 addresses to switches that listen to MLD; behind \
                 such a switch nobody will reach them"
            );
        }
        Ok(Self {
            _socket: Some(socket),
        })
    }
}

/// What the kernel's refusal means.
fn refused(errno: Errno) -> ServiceError {
    match errno {
        Errno::AFNOSUPPORT => ServiceError::Lost(
            "own_addresses has IPv6 addresses, but this kernel has no IPv6: boot without \
             ipv6.disable=1, or remove the addresses"
                .into(),
        ),
        // `__ipv6_dev_mc_inc` in net/ipv6/mcast.c: the interface has no IPv6 part.
        Errno::INVAL => ServiceError::Lost(
            "own_addresses has IPv6 addresses, but the interface has no IPv6: it needs an MTU of at \
             least 1280 (RFC 8200 section 5)"
                .into(),
        ),
        errno => ServiceError::os("join the multicast groups of own addresses", errno.into()),
    }
}

/// Whether IPv6 is switched off on the interface. "No" where that cannot be read.
fn is_disabled(socket: &OwnedFd, interface_index: u32) -> bool {
    rustix::net::netdevice::index_to_name(socket, interface_index)
        .ok()
        .and_then(|name| {
            let path = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
            std::fs::read_to_string(path).ok()
        })
        .is_some_and(|value| value.trim() != "0")
}

#[cfg(test)]
#[allow(unsafe_code)] // unshare(2) is unsafe because it changes what the calling thread sees.
mod tests {
    use super::*;
    use rustix::net::netdevice;
    use rustix::thread::{UnshareFlags, unshare_unsafe};
    use std::process::Command;
    use std::thread;
    use std::time::{Duration, Instant};

    /// Runs `test` with the index of the interface `near`, one end of a veth pair, on a thread with a
    /// network namespace of its own, which dies with the thread.
    fn in_namespace(name: &str, test: impl FnOnce(u32) + Send + 'static) {
        if let Err(error) = crate::steering::preflight::check() {
            println!("skipped: {name}: needs root (CAP_NET_ADMIN): {error}");
            return;
        }
        let outcome = thread::spawn(|| {
            // SAFETY: descriptors stay shared; only this thread's view of the network changes.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
                .expect("root may make network namespaces");
            ip("link add near type veth peer name far");
            ip("link set near up");
            ip("link set far up");
            let socket = socket_with(
                AddressFamily::INET,
                SocketType::DGRAM,
                SocketFlags::CLOEXEC,
                None,
            )
            .expect("anybody can have one");
            test(netdevice::name_to_index(&socket, "near").expect("it is there"));
        })
        .join();
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    }

    /// `ip` in the namespace of the calling thread, and what it prints.
    fn ip(arguments: &str) -> String {
        let output = Command::new("ip")
            .args(arguments.split_whitespace())
            .output()
            .expect("iproute2 is installed");
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ip {arguments}: {message}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Which of the two groups of the tests below the kernel has, and whether the NIC receives them.
    fn groups() -> [(bool, bool); 2] {
        let all = ip("maddr show dev near");
        ["50", "51"].map(|end| {
            let joined = all.contains(&format!("inet6 ff02::1:ff00:{end}\n"));
            let heard = all.contains(&format!("link  33:33:ff:00:00:{end}\n"));
            (joined, heard)
        })
    }

    /// Waits for what the kernel does in its own time.
    fn until_groups_are(wanted: [(bool, bool); 2]) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while groups() != wanted {
            assert!(Instant::now() < deadline, "{:?}", groups());
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn own() -> Vec<IpAddr> {
        // The first two share a group.
        [
            "2001:db8::50",
            "2001:db8:1::50",
            "2001:db8::51",
            "192.0.2.50",
        ]
        .map(|text| text.parse().expect("an address"))
        .to_vec()
    }

    #[test]
    fn groups_are_the_kernels_for_as_long_as_they_are_kept() {
        in_namespace(
            "groups_are_the_kernels_for_as_long_as_they_are_kept",
            |index| {
                assert_eq!(groups(), [(false, false); 2]);
                let memberships = Memberships::join(index, &own()).expect("the kernel has IPv6");
                assert_eq!(groups(), [(true, true); 2]);
                // The carrier comes and goes.
                ip("link set near down");
                ip("link set near up");
                // IPv6 starts again when the kernel gets round to the carrier (linkwatch).
                until_groups_are([(true, true); 2]);
                drop(memberships);
                assert_eq!(groups(), [(false, false); 2]);
            },
        );
    }

    #[test]
    fn ipv4_needs_no_group() {
        // No interface has this index.
        Memberships::join(u32::MAX, &own()[3..]).expect("nothing is asked of the kernel");
    }

    #[test]
    fn a_group_is_joined_while_ipv6_is_disabled() {
        in_namespace("a_group_is_joined_while_ipv6_is_disabled", |index| {
            let setting = "/proc/sys/net/ipv6/conf/near/disable_ipv6";
            std::fs::write(setting, "1").expect("root may");
            let memberships = Memberships::join(index, &own()).expect("that is no error");
            let socket = memberships._socket.as_ref().expect("there are groups");
            assert!(is_disabled(socket, index));
            std::fs::write(setting, "0").expect("root may");
            assert!(!is_disabled(socket, index));
            assert_eq!(groups(), [(true, true); 2]);
        });
    }

    #[test]
    fn an_mtu_too_small_for_ipv6_is_named() {
        in_namespace("an_mtu_too_small_for_ipv6_is_named", |index| {
            ip("link set near mtu 1000");
            let error = Memberships::join(index, &own()).expect_err("the interface has no IPv6");
            assert!(error.to_string().contains("1280"), "{error}");
        });
    }
}
