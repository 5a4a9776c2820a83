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
