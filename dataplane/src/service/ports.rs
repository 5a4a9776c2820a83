//! The local ports of connections that services open: reserved from the kernel, and not in use there.
//!
//! The kernel must give none of them to a connection of its own (`ip_local_reserved_ports`, see
//! Documentation/networking/ip-sysctl.rst): its packets would come to us. What this service adds to the list
//! it takes back at its end; after `kill -9` it stays there, where it does no harm but to the kernel's choice.

use super::ServiceError;
use config::PortRange;
use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Where the list is. `/proc/sys/net` is that of the network namespace of whoever opens it.
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";
/// The same as `sysctl` calls it.
const SYSCTL: &str = "net.ipv4.ip_local_reserved_ports";

/// Some of the ports from 0 to 65535.
#[derive(Clone, PartialEq, Eq)]
struct PortSet(Box<[bool]>);

impl PortSet {
    fn new() -> Self {
        Self(vec![false; 1 << 16].into_boxed_slice())
    }

    /// From the kernel's list: `8080,61000-65535`, or nothing at all.
    fn parse(list: &str) -> Option<Self> {
        let mut set = Self::new();
        let list = list.trim();
        for part in list.split(',').filter(|_| !list.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?);
            for port in first..=last {
                set.0[usize::from(port)] = true;
            }
        }
        Some(set)
    }

    fn has(&self, port: u16) -> bool {
        self.0[usize::from(port)]
    }

    fn set(&mut self, port: u16, has: bool) {
        self.0[usize::from(port)] = has;
    }
}

/// As the kernel takes it.
impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        let mut port = 0;
        while let Some(first) = self.0[port..].iter().position(|has| *has) {
            let first = port + first;
            let len = self.0[first..].iter().take_while(|has| **has).count();
            match len {
                1 => write!(f, "{comma}{first}")?,
                _ => write!(f, "{comma}{first}-{}", first + len - 1)?,
            }
            comma = ",";
            port = first + len;
        }
        Ok(())
    }
}

/// Ports that the kernel gives to nobody for as long as this lives.
#[derive(Debug)]
pub(super) struct Reservation {
    /// Those that were not reserved before.
    added: Vec<u16>,
}

impl Reservation {
    /// Reserves them. Where all of them are reserved already, nothing is written.
    ///
    /// # Errors
    /// The list cannot be read or written, with what to do.
    pub(super) fn take(range: PortRange) -> Result<Self, ServiceError> {
        let mut set = read().map_err(|error| refused(range, &error))?;
        let added: Vec<u16> = (range.first..=range.last)
            .filter(|port| !set.has(*port))
            .collect();
        if !added.is_empty() {
            added.iter().for_each(|port| set.set(*port, true));
            write(&set).map_err(|error| refused(range, &error))?;
        }
        Ok(Self { added })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.added.is_empty() {
            return;
        }
        // Others may have changed the list since.
        let given_back = read().and_then(|mut set| {
            self.added.iter().for_each(|port| set.set(*port, false));
            write(&set)
        });
        if let Err(error) = given_back {
            tracing::warn!("ports stay reserved in {SYSCTL}: {error}");
        }
    }
}

fn read() -> std::io::Result<PortSet> {
    let list = fs::read_to_string(RESERVED)?;
    PortSet::parse(&list)
        .ok_or_else(|| std::io::Error::other(format!("not a list of ports: {list}")))
}

fn write(set: &PortSet) -> std::io::Result<()> {
    // An empty write would change nothing: a line without ports clears the list.
    fs::write(RESERVED, format!("{set}\n"))
}

fn refused(range: PortRange, error: &std::io::Error) -> ServiceError {
    ServiceError::Lost(format!(
        "tcp.ports = \"{range}\" cannot be reserved from the kernel in {SYSCTL}: {error}; services connect \
         from them, so make {RESERVED} writable for the service, or reserve them yourself where it is \
         (`sysctl -w {SYSCTL}={range}`): then it is left alone"
    ))
}

/// Whether the ports are reserved, or could be, for `dataplane doctor`. Changes nothing.
pub(super) fn look(range: PortRange) -> Result<String, ServiceError> {
    let set = read().map_err(|error| refused(range, &error))?;
    if (range.first..=range.last).all(|port| set.has(port)) {
        return Ok(format!("{range} are reserved from the kernel already"));
    }
    fs::OpenOptions::new()
        .write(true)
        .open(RESERVED)
        .map_err(|error| refused(range, &error))?;
    Ok(format!("{range} will be reserved from the kernel"))
}

/// Refuses ports that a TCP socket of the kernel has on one of these addresses, or on any: its packets would
/// come to us.
///
/// # Errors
/// There are some; which, and what to do.
pub(super) fn check_unused(range: PortRange, addresses: &[IpAddr]) -> Result<(), ServiceError> {
    let mut found = Vec::new();
    for file in ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"] {
        // A kernel without IPv6 has no second file.
        let Ok(table) = fs::read_to_string(file) else {
            continue;
        };
        found.extend(table.lines().skip(1).filter_map(socket).filter(|socket| {
            let ip = socket.local.ip().to_canonical();
            range.contains(socket.local.port())
                && socket.state != TIME_WAIT
                && (ip.is_unspecified() || addresses.contains(&ip))
        }));
    }
    if found.is_empty() {
        return Ok(());
    }
    let shown: Vec<String> = found.iter().take(SHOWN).map(Socket::to_string).collect();
    let more = match found.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Err(ServiceError::Lost(format!(
        "services connect from tcp.ports = \"{range}\", but sockets of the kernel have some of these ports: \
         {}{more}; end their programs (`ss -tanp \"sport >= :{} and sport <= :{}\"` shows them) or choose \
         another range",
        shown.join(", "),
        range.first,
        range.last,
    )))
}

/// Sockets named in the error.
const SHOWN: usize = 5;
/// TCP_TIME_WAIT (include/net/tcp_states.h): what still comes for it needs no answer.
const TIME_WAIT: u8 = 6;

/// A line of /proc/net/tcp.
struct Socket {
    local: SocketAddr,
    state: u8,
}

impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // include/net/tcp_states.h, from 1 on, by the names of ss(8).
        const NAMES: [&str; 12] = [
            "ESTAB",
            "SYN-SENT",
            "SYN-RECV",
            "FIN-WAIT-1",
            "FIN-WAIT-2",
            "TIME-WAIT",
            "UNCONN",
            "CLOSE-WAIT",
            "LAST-ACK",
            "LISTEN",
            "CLOSING",
            "SYN-RECV",
        ];
        let name = usize::from(self.state).checked_sub(1);
        let name = name.and_then(|index| NAMES.get(index)).unwrap_or(&"?");
        write!(f, "{} ({name})", self.local)
    }
}

/// `  0: 0100007F:1F90 00000000:0000 0A …` (proc(5)): addresses are words of the machine's byte order.
fn socket(line: &str) -> Option<Socket> {
    let mut fields = line.split_whitespace().skip(1);
    let (address, port) = fields.next()?.split_once(':')?;
    let state = u8::from_str_radix(fields.nth(1)?, 16).ok()?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |index: usize| {
        let digits = address.get(index * 8..index * 8 + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    let ip: IpAddr = match address.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let mut bytes = [0; 16];
            for (index, four) in bytes.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(index)?);
            }
            Ipv6Addr::from(bytes).into()
        }
        _ => return None,
    };
    Some(Socket {
        local: SocketAddr::new(ip, port),
        state,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_read_as_the_kernel_writes_them() {
        for list in ["", "8080", "1-3,5", "0,2-65535", "61000-65535"] {
            let set = PortSet::parse(list).expect("a list");
            assert_eq!(set.to_string(), list);
        }
        assert_eq!(PortSet::parse("\n").expect("empty").to_string(), "");
        let overlapping = PortSet::parse("5,1-3,3-4\n").expect("a list");
        assert_eq!(overlapping.to_string(), "1-5");
        for wrong in ["x", "1-", "65536", "1,,2"] {
            assert!(PortSet::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn lines_of_proc_name_their_sockets() {
        let line =
            "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0";
        if cfg!(target_endian = "little") {
            let shown = socket(line).map(|socket| socket.to_string());
            assert_eq!(shown.as_deref(), Some("127.0.0.1:8080 (LISTEN)"));
            let line = "   1: B80D0120000000000000000001000000:EE48 0:0 01 00000000:00000000";
            let shown = socket(line).map(|socket| socket.to_string());
            assert_eq!(shown.as_deref(), Some("[2001:db8::1]:61000 (ESTAB)"));
        }
        assert!(socket("  sl  local_address rem_address   st").is_none());
        assert!(socket("").is_none());
    }
}
