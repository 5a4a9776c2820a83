//! The small values that appear as strings in the file, each with its one textual form.

use serde::{Serialize, Serializer};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// An address and the length of its on-link prefix, written `192.0.2.50/24` as `ip address` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    /// The address itself, host bits included.
    pub address: IpAddr,
    /// Length of the on-link prefix in bits: 0 to 32 for IPv4, 0 to 128 for IPv6.
    pub prefix_len: u8,
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_len)
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((address, prefix_len)) = text.split_once('/') else {
            return Err(
                "must be an address with its prefix length, such as \"192.0.2.50/24\"".into(),
            );
        };
        let address: IpAddr = address
            .parse()
            .map_err(|_| format!("\"{address}\" is not an IPv4 or IPv6 address"))?;
        let longest: u8 = if address.is_ipv4() { 32 } else { 128 };
        match decimal::<u8>(prefix_len) {
            Some(prefix_len) if prefix_len <= longest => Ok(Self {
                address,
                prefix_len,
            }),
            _ => Err(format!(
                "the prefix length after \"/\" must be from 0 to {longest}"
            )),
        }
    }
}

impl Serialize for Cidr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The transport protocol a [`Deny`] entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DenyProtocol {
    /// TCP, protocol number 6.
    Tcp,
    /// UDP, protocol number 17.
    Udp,
}

impl DenyProtocol {
    /// The word in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl fmt::Display for DenyProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A port that always stays the kernel's, written `tcp/22` or, for one local address only,
/// `udp/53@192.0.2.1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deny {
    /// The transport protocol.
    pub protocol: DenyProtocol,
    /// The local (destination) port, 1 to 65535.
    pub port: u16,
    /// The local (destination) address; `None` means every address.
    pub address: Option<IpAddr>,
}

impl fmt::Display for Deny {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            protocol,
            port,
            address,
        } = self;
        write!(f, "{protocol}/{port}")?;
        match address {
            Some(address) => write!(f, "@{address}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Deny {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (port, address) = match text.split_once('@') {
            Some((port, address)) => (port, Some(address)),
            None => (text, None),
        };
        let Some((protocol, port)) = port.split_once('/') else {
            return Err(
                "must be a protocol and a port, such as \"tcp/22\", or with one local \
                        address \"udp/53@192.0.2.1\""
                    .into(),
            );
        };
        let protocol = match protocol {
            "tcp" => DenyProtocol::Tcp,
            "udp" => DenyProtocol::Udp,
            _ => return Err("the protocol before \"/\" must be \"tcp\" or \"udp\"".into()),
        };
        let port = decimal::<u16>(port)
            .filter(|port| *port != 0)
            .ok_or("the port after \"/\" must be a number from 1 to 65535")?;
        let address = match address {
            None => None,
            Some(address) => Some(
                address
                    .parse()
                    .map_err(|_| format!("\"{address}\" is not an IPv4 or IPv6 address"))?,
            ),
        };
        Ok(Self {
            protocol,
            port,
            address,
        })
    }
}

impl Serialize for Deny {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Ports from one to another, both included, written `61000-65535`, as in
/// `net.ipv4.ip_local_reserved_ports`; one port alone is `61000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// The lowest, 1 to 65535.
    pub first: u16,
    /// The highest, `first` to 65535.
    pub last: u16,
}

impl PortRange {
    /// How many there are, 1 to 65535.
    #[must_use]
    pub const fn count(self) -> u32 {
        self.last as u32 - self.first as u32 + 1
    }

    /// Whether `port` is one of them.
    #[must_use]
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// The share of the worker with this index of `workers`: each port is one worker's, so that no two
    /// open the same connection. None where there are more workers than ports.
    #[must_use]
    pub fn share(self, index: usize, workers: usize) -> Option<Self> {
        let (count, workers) = (self.count() as usize, workers.max(1));
        let begin = |index: usize| usize::from(self.first) + index * count / workers;
        let (first, behind) = (begin(index), begin(index + 1));
        let first = u16::try_from(first).ok()?;
        let last = u16::try_from(behind.checked_sub(1)?).ok()?;
        (first <= last && last <= self.last).then_some(Self { first, last })
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, last } = self;
        if first == last {
            write!(f, "{first}")
        } else {
            write!(f, "{first}-{last}")
        }
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (decimal::<u16>(first), decimal::<u16>(last)) {
            (Some(first), Some(last)) if 0 < first && first <= last => Ok(Self { first, last }),
            _ => Err(
                "must be a range of ports such as \"61000-65535\", the lower one first, from 1 to \
                 65535"
                    .into(),
            ),
        }
    }
}

impl Serialize for PortRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A decimal number without sign; `u16::from_str` alone would also take `+22`.
fn decimal<T: FromStr>(text: &str) -> Option<T> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

/// An address and port a service may listen on.
pub(crate) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    const ALLOWED: &str = "must be an address and port such as \"0.0.0.0:7\" or \"[::]:7\"";
    const SCOPED: &str = "must be without a scope: the interface is the one of [interface]";
    let address: SocketAddr = text.parse().map_err(|_| {
        if let Some(port) = text.strip_prefix("*:").or(text.strip_prefix(':'))
            && decimal::<u16>(port).is_some()
        {
            return format!("{ALLOWED}; for every address write \"[::]:{port}\"");
        }
        if text.parse::<IpAddr>().is_ok() {
            return format!("{ALLOWED}; here the port is missing");
        }
        // RFC 4007 §11.2: `%` and a zone, here with the name of an interface.
        if let Some((address, rest)) = text.split_once('%')
            && let Some((_, port)) = rest.split_once("]:")
            && let Ok(address) = format!("{address}]:{port}").parse::<SocketAddr>()
        {
            return format!("{SCOPED}: write \"{address}\"");
        }
        match text.rsplit_once(':') {
            Some((address, port)) if address.parse::<Ipv6Addr>().is_ok() => {
                format!("{ALLOWED}; an IPv6 address goes in brackets: \"[{address}]:{port}\"")
            }
            _ => format!("{ALLOWED}; the port is from 1 to 65535"),
        }
    })?;
    if address.port() == 0 {
        return Err("port 0 is none: the port must be from 1 to 65535".into());
    }
    if let SocketAddr::V6(v6) = address
        && v6.scope_id() != 0
    {
        let address = SocketAddr::new(address.ip(), address.port());
        return Err(format!("{SCOPED}: write \"{address}\""));
    }
    match address.ip() {
        ip if ip.is_unspecified() => Ok(address),
        ip => unicast(ip).map(|_| address),
    }
}

/// An address and port a service may connect to.
pub(crate) fn connect_address(text: &str) -> Result<SocketAddr, String> {
    let address = listen_address(text)?;
    if address.ip().is_unspecified() {
        return Err("must be the address of a host: nobody is at the unspecified one".into());
    }
    Ok(address)
}

/// An address the stack may own.
pub(crate) fn own_address(text: &str) -> Result<Cidr, String> {
    let cidr: Cidr = text.parse()?;
    if cidr.address.is_unspecified() {
        return Err("must be one address: nobody can own the unspecified one".into());
    }
    unicast(cidr.address)?;
    if cidr.prefix_len == 0 {
        return Err(
            "the prefix length must not be 0: that would put the whole Internet on the \
                    link"
                .into(),
        );
    }
    // RFC 3021: in a /31, and a /32 has no subnet, both ends are hosts.
    if let (IpAddr::V4(v4), prefix_len @ ..=30) = (cidr.address, cidr.prefix_len) {
        let host_mask = u32::MAX >> prefix_len;
        match v4.to_bits() & host_mask {
            0 => return Err("must be a host: this is the address of the subnet itself".into()),
            host if host == host_mask => {
                return Err("must be a host: this is the broadcast address of the subnet".into());
            }
            _ => {}
        }
    }
    Ok(cidr)
}

/// Whether packets of an ordinary link may be for `address`.
fn unicast(address: IpAddr) -> Result<IpAddr, String> {
    let kind = match address {
        _ if address.is_multicast() => "a multicast address",
        _ if address.is_loopback() => "a loopback address, which no packet on a link carries",
        IpAddr::V4(Ipv4Addr::BROADCAST) => "the broadcast address",
        // RFC 1122 §3.2.1.3 (a), (b): "this network" is no destination.
        IpAddr::V4(v4) if v4.octets()[0] == 0 => "an address of \"this network\"",
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => {
                return Err(format!(
                    "must be unicast: write the IPv4 address {v4} as such"
                ));
            }
            None => return Ok(address),
        },
        IpAddr::V4(_) => return Ok(address),
    };
    Err(format!("must be a unicast address; {address} is {kind}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_a_range_are_all_of_it_once() {
        for (text, workers) in [("61000-65535", 3), ("1-65535", 7), ("9-11", 3), ("5", 1)] {
            let range: PortRange = text.parse().expect("a range");
            let shares = (0..workers).map(|index| range.share(index, workers));
            let ports: Vec<u16> = shares
                .flatten()
                .flat_map(|share| share.first..=share.last)
                .collect();
            assert!(ports.iter().copied().eq(range.first..=range.last), "{text}");
        }
        let two: PortRange = "9-10".parse().expect("a range");
        let shares: Vec<_> = (0..3).map(|index| two.share(index, 3)).collect();
        assert_eq!(shares.iter().flatten().count(), 2, "{shares:?}");
    }

    #[test]
    fn a_range_reads_as_it_is_written() {
        for text in ["61000-65535", "7", "1-65535"] {
            let range: PortRange = text.parse().expect("a range");
            assert_eq!(range.to_string(), text);
        }
        for text in ["", "0-7", "7-6", "1-65536", "+1-2", "1-2-3", "1 - 2", "-"] {
            assert!(text.parse::<PortRange>().is_err(), "{text}");
        }
    }
}
