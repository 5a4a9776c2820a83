//! What the driver has to know of a network interface before it opens queues on it.
//!
//! Asked with ioctls on a socket rather than read from `/sys`: the socket belongs to the network
//! namespace of the calling thread, while `/sys/class/net` shows the namespace it was mounted in.
#![allow(unsafe_code)] // ioctl(2) takes a pointer to a structure that it fills.

use super::error::DriverError;
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};
use std::ffi::c_ulong;

/// `SIOCETHTOOL` (`include/uapi/linux/sockios.h`).
const SIOCETHTOOL: c_ulong = 0x8946;
/// `ETHTOOL_GDRVINFO` (`include/uapi/linux/ethtool.h`).
const ETHTOOL_GDRVINFO: u32 = 0x03;
/// `ETHTOOL_GCHANNELS`.
const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// `ETHTOOL_GFLAGS`, and the flag that says that the NIC takes VLAN tags out of packets.
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETH_FLAG_RXVLAN: u32 = 1 << 8;

/// Facts about an interface, as they were when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Its kernel driver, or "unknown".
    pub driver: String,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// Whether it is administratively up (`IFF_UP`).
    pub up: bool,
    /// Whether it has a carrier (`IFF_RUNNING`).
    pub carrier: bool,
    /// Queues that receive.
    pub rx_queues: u32,
    /// Queues that send.
    pub tx_queues: u32,
    /// Whether it takes VLAN tags out of received packets (`rxvlan`): then neither the XDP program
    /// nor we see them.
    pub strips_vlan_tags: bool,
}

impl Interface {
    /// Looks at the interface `name` of this thread's network namespace.
    ///
    /// # Errors
    ///
    /// No such interface, or one that is no Ethernet device.
    pub fn by_name(name: &str) -> Result<Self, DriverError> {
        let missing = || DriverError::NoSuchInterface {
            interface: name.to_owned(),
        };
        // The kernel's names are at most 15 bytes; a longer one would be cut and match another.
        if name.is_empty() || name.len() >= libc::IFNAMSIZ {
            return Err(missing());
        }
        let socket = socket_with(
            AddressFamily::INET,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|errno| DriverError::os("open a socket to ask about interfaces", errno))?;
        let index = netdevice::name_to_index(&socket, name).map_err(|_| missing())?;
        let ask = Ask {
            socket: &socket,
            name,
        };

        let flags = ask.flags()?;
        let (rx_queues, tx_queues) = ask
            .queues()
            .or_else(|| queues_in_sysfs(name, index))
            .unwrap_or((1, 1));
        Ok(Self {
            name: name.to_owned(),
            index,
            driver: ask.driver().unwrap_or_else(|| "unknown".to_owned()),
            mac: ask.mac()?,
            mtu: ask.mtu()?,
            up: flags & libc::IFF_UP != 0,
            carrier: flags & libc::IFF_RUNNING != 0,
            rx_queues,
            tx_queues,
            strips_vlan_tags: ask.offload_flags().unwrap_or(0) & ETH_FLAG_RXVLAN != 0,
        })
    }

    /// Queues an AF_XDP socket can be bound to: `bind` refuses only numbers at or above both
    /// counts, but a socket that cannot receive or cannot send is of no use here.
    #[must_use]
    pub fn queues(&self) -> u32 {
        self.rx_queues.min(self.tx_queues)
    }
}

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Default)]
struct EthtoolChannels {
    cmd: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    cmd: u32,
    data: u32,
}

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct EthtoolDrvinfo {
    cmd: u32,
    driver: [u8; 32],
    version: [u8; 32],
    fw_version: [u8; 32],
    bus_info: [u8; 32],
    erom_version: [u8; 32],
    reserved: [u8; 12],
    n_priv_flags: u32,
    n_stats: u32,
    testinfo_len: u32,
    eedump_len: u32,
    regdump_len: u32,
}

struct Ask<'a> {
    socket: &'a OwnedFd,
    name: &'a str,
}

impl Ask<'_> {
    fn request(&self) -> libc::ifreq {
        // SAFETY: `ifreq` is integers, pointers and a union of such; all zeros is a value of it.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        // Shorter than the field (checked in `by_name`), so a terminating zero remains.
        for (to, from) in request.ifr_name.iter_mut().zip(self.name.bytes()) {
            *to = from.cast_signed();
        }
        request
    }

    fn ioctl(&self, which: c_ulong, request: &mut libc::ifreq) -> Result<(), Errno> {
        // SAFETY: every request used here reads or writes an `ifreq`; where that holds a pointer,
        // it leads to the structure that the command in it asks for, alive in the caller.
        let result = unsafe {
            // The type of an ioctl's number differs between C libraries.
            libc::ioctl(
                self.socket.as_raw_fd(),
                which as _,
                std::ptr::from_mut(request),
            )
        };
        if result < 0 {
            let errno = std::io::Error::last_os_error();
            return Err(Errno::from_io_error(&errno).unwrap_or(Errno::IO));
        }
        Ok(())
    }

    fn flags(&self) -> Result<i32, DriverError> {
        let mut request = self.request();
        self.ioctl(libc::SIOCGIFFLAGS as c_ulong, &mut request)
            .map_err(|errno| DriverError::os(format!("read the flags of {}", self.name), errno))?;
        // SAFETY: SIOCGIFFLAGS filled this member.
        Ok(i32::from(unsafe { request.ifr_ifru.ifru_flags }))
    }

    fn mtu(&self) -> Result<u32, DriverError> {
        let mut request = self.request();
        self.ioctl(libc::SIOCGIFMTU as c_ulong, &mut request)
            .map_err(|errno| DriverError::os(format!("read the MTU of {}", self.name), errno))?;
        // SAFETY: SIOCGIFMTU filled this member.
        Ok(u32::try_from(unsafe { request.ifr_ifru.ifru_mtu }).unwrap_or(0))
    }

    fn mac(&self) -> Result<[u8; 6], DriverError> {
        let mut request = self.request();
        self.ioctl(libc::SIOCGIFHWADDR as c_ulong, &mut request)
            .map_err(|errno| {
                DriverError::os(format!("read the Ethernet address of {}", self.name), errno)
            })?;
        // SAFETY: SIOCGIFHWADDR filled this member.
        let address = unsafe { request.ifr_ifru.ifru_hwaddr };
        if address.sa_family != libc::ARPHRD_ETHER {
            return Err(DriverError::InvalidOption(format!(
                "{} is not an Ethernet interface; packets are taken from Ethernet only",
                self.name
            )));
        }
        let mut mac = [0; 6];
        for (to, from) in mac.iter_mut().zip(address.sa_data) {
            *to = from.cast_unsigned();
        }
        Ok(mac)
    }

    /// Queues in use, to receive and to send, from drivers that can say.
    fn queues(&self) -> Option<(u32, u32)> {
        let mut channels = EthtoolChannels {
            cmd: ETHTOOL_GCHANNELS,
            ..Default::default()
        };
        let mut request = self.request();
        request.ifr_ifru.ifru_data = std::ptr::from_mut(&mut channels).cast();
        self.ioctl(SIOCETHTOOL, &mut request).ok()?;
        let EthtoolChannels {
            rx, tx, combined, ..
        } = channels;
        Some((
            rx.saturating_add(combined).max(1),
            tx.saturating_add(combined).max(1),
        ))
    }

    /// Offloads that have a flag of old.
    fn offload_flags(&self) -> Option<u32> {
        let mut value = EthtoolValue {
            cmd: ETHTOOL_GFLAGS,
            data: 0,
        };
        let mut request = self.request();
        request.ifr_ifru.ifru_data = std::ptr::from_mut(&mut value).cast();
        self.ioctl(SIOCETHTOOL, &mut request).ok()?;
        Some(value.data)
    }

    fn driver(&self) -> Option<String> {
        // SAFETY: integers and arrays of them; all zeros is a value.
        let mut info: EthtoolDrvinfo = unsafe { std::mem::zeroed() };
        info.cmd = ETHTOOL_GDRVINFO;
        let mut request = self.request();
        request.ifr_ifru.ifru_data = std::ptr::from_mut(&mut info).cast();
        self.ioctl(SIOCETHTOOL, &mut request).ok()?;
        let name = info.driver.split(|&byte| byte == 0).next()?;
        let name = std::str::from_utf8(name).ok()?;
        (!name.is_empty()).then(|| name.to_owned())
    }
}

/// Counts the queues in `/sys`, if the interface it shows under that name is ours.
fn queues_in_sysfs(name: &str, index: u32) -> Option<(u32, u32)> {
    let folder = std::path::Path::new("/sys/class/net").join(name);
    let shown = std::fs::read_to_string(folder.join("ifindex")).ok()?;
    if shown.trim().parse() != Ok(index) {
        return None;
    }
    let (mut rx, mut tx) = (0, 0);
    for entry in std::fs::read_dir(folder.join("queues")).ok()?.flatten() {
        match entry.file_name().to_str()?.split_once('-')? {
            ("rx", _) => rx += 1,
            ("tx", _) => tx += 1,
            _ => {}
        }
    }
    (rx > 0 && tx > 0).then_some((rx, tx))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_that_does_not_exist_is_named_in_the_error() {
        for name in ["no-such-if0", "", "a-name-longer-than-the-kernel-has"] {
            let error = Interface::by_name(name).unwrap_err();
            assert_eq!(
                error,
                DriverError::NoSuchInterface {
                    interface: name.to_owned()
                }
            );
        }
    }

    #[test]
    fn interface_without_ethernet_is_refused() {
        // Every network namespace has a loopback device.
        let error = Interface::by_name("lo").unwrap_err().to_string();
        assert!(error.contains("lo is not an Ethernet interface"), "{error}");
    }
}
