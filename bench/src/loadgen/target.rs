//! Where the load goes: `HOST:PORT`, `[v6]:PORT`, `[v6%zone]:PORT`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs};
use std::str::FromStr;

use rustix::net::{AddressFamily, SocketType, netdevice, socket};

/// A target as it was typed; [`Target::resolve`] makes it an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    host: Host,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    V4(Ipv4Addr),
    /// With its zone (RFC 4007 §11): an interface by name or by number.
    V6(Ipv6Addr, Option<String>),
    Name(String),
}

/// Which addresses of a name may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Family {
    /// Whatever the resolver lists first.
    #[default]
    Any,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
}

impl Family {
    /// The same, or if there is a choice, the family of what is to be sent from.
    #[must_use]
    pub fn narrowed_to(self, source: Option<IpAddr>) -> Self {
        match (self, source) {
            (Self::Any, Some(IpAddr::V4(_))) => Self::V4,
            (Self::Any, Some(IpAddr::V6(_))) => Self::V6,
            (family, _) => family,
        }
    }

    fn admits(self, address: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Any => "IPv4 or IPv6",
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORMS: &str = "expected HOST:PORT, like 10.0.0.2:7, [fd00::2]:7, [fe80::1%eth0]:7 or \
                             server.example:7";
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (inside, port) = rest
                .split_once("]:")
                .ok_or_else(|| format!("no `]:PORT` in it; {FORMS}"))?;
            let (address, zone) = match inside.split_once('%') {
                Some((_, "")) => return Err(format!("the zone after % is empty; {FORMS}")),
                Some((address, zone)) => (address, Some(zone.to_owned())),
                None => (inside, None),
            };
            let address = address
                .parse()
                .map_err(|_| format!("`{address}` is not an IPv6 address; {FORMS}"))?;
            (Host::V6(address, zone), port)
        } else {
            let (host, port) = text
                .rsplit_once(':')
                .ok_or_else(|| format!("the port is missing; {FORMS}"))?;
            if host.contains(':') {
                return Err(format!("an IPv6 address goes in brackets; {FORMS}"));
            }
            if host.is_empty() {
                return Err(format!("the host is missing; {FORMS}"));
            }
            let host = match host.parse() {
                Ok(address) => Host::V4(address),
                Err(_) => Host::Name(host.to_owned()),
            };
            (host, port)
        };
        match port.parse() {
            Ok(0) => Err("port 0 cannot be a target: ports are 1 to 65535".into()),
            Ok(port) => Ok(Self { host, port }),
            Err(_) => Err(format!(
                "`{port}` is not a port: ports are 1 to 65535; {FORMS}"
            )),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.port;
        match &self.host {
            Host::V4(address) => write!(formatter, "{address}:{port}"),
            Host::V6(address, None) => write!(formatter, "[{address}]:{port}"),
            Host::V6(address, Some(zone)) => write!(formatter, "[{address}%{zone}]:{port}"),
            Host::Name(name) => write!(formatter, "{name}:{port}"),
        }
    }
}

impl Target {
    /// The address to send to: the first one of `family` that the system's resolver gives.
    ///
    /// # Errors
    /// A sentence that says what could not be resolved: a name, or the interface of a zone.
    pub fn resolve(&self, family: Family) -> Result<SocketAddr, String> {
        let address = match &self.host {
            Host::V4(address) => SocketAddr::new((*address).into(), self.port),
            Host::V6(address, zone) => {
                let scope_id = zone.as_deref().map_or(Ok(0), zone_index)?;
                // RFC 4007 §6: a link-local address means nothing without its zone.
                if address.is_unicast_link_local() && scope_id == 0 {
                    return Err(format!(
                        "{address} is link-local: say through which interface, like [{address}%eth0]:{}",
                        self.port
                    ));
                }
                SocketAddrV6::new(*address, self.port, 0, scope_id).into()
            }
            Host::Name(name) => (name.as_str(), self.port)
                .to_socket_addrs()
                .map_err(|error| format!("cannot resolve {name}: {error}"))?
                .find(|address| family.admits(address.ip()))
                .ok_or_else(|| format!("{name} has no {family} address"))?,
        };
        if family.admits(address.ip()) {
            Ok(address)
        } else {
            Err(format!("{} is not an {family} address", address.ip()))
        }
    }
}

/// RFC 4007 §11.2: a zone is the interface's number or, as an implementation may allow, its name.
fn zone_index(zone: &str) -> Result<u32, String> {
    if let Ok(index) = zone.parse() {
        return Ok(index);
    }
    // The ioctl needs a socket, any socket.
    socket(AddressFamily::INET6, SocketType::DGRAM, None)
        .and_then(|any| netdevice::name_to_index(&any, zone))
        .map_err(|error| format!("there is no interface {zone}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn resolve(text: &str) -> Result<SocketAddr, String> {
        text.parse::<Target>()?.resolve(Family::Any)
    }

    #[test]
    fn literal_addresses() {
        assert_eq!(resolve("10.0.0.2:7"), Ok("10.0.0.2:7".parse().unwrap()));
        assert_eq!(
            resolve("[fd00::2]:65535"),
            Ok("[fd00::2]:65535".parse().unwrap())
        );
        assert_eq!(
            resolve("[::ffff:10.0.0.2]:7"),
            Ok("[::ffff:10.0.0.2]:7".parse().unwrap())
        );
    }

    #[test]
    fn zones_by_name_and_number() {
        let expected = SocketAddrV6::new("fe80::1".parse().unwrap(), 7, 0, 1);
        // The loopback interface is number 1 in every namespace.
        assert_eq!(resolve("[fe80::1%lo]:7"), Ok(expected.into()));
        assert_eq!(resolve("[fe80::1%1]:7"), Ok(expected.into()));
        assert!(resolve("[fe80::1]:7").unwrap_err().contains("link-local"));
        assert!(
            resolve("[fe80::1%no-such-if]:7")
                .unwrap_err()
                .contains("no-such-if")
        );
    }

    #[test]
    fn names() {
        let address = resolve("localhost:9").unwrap();
        assert!(address.ip().is_loopback() && address.port() == 9);
        let target: Target = "localhost:9".parse().unwrap();
        assert!(target.resolve(Family::V4).unwrap().is_ipv4());
        assert!(
            resolve("no-such-host.invalid:9")
                .unwrap_err()
                .contains("no-such-host.invalid")
        );
    }

    #[test]
    fn a_literal_of_the_other_family_is_refused() {
        assert!(
            "10.0.0.2:7"
                .parse::<Target>()
                .unwrap()
                .resolve(Family::V6)
                .is_err()
        );
        assert!(
            "[::1]:7"
                .parse::<Target>()
                .unwrap()
                .resolve(Family::V4)
                .is_err()
        );
    }

    #[test]
    fn what_is_not_a_target() {
        for bad in [
            "",
            ":",
            "host",
            "host:",
            ":7",
            "host:0",
            "host:65536",
            "host:-1",
            "::1:7",
            "[::1]",
            "[::1]7",
            "[::1]:",
            "[::1",
            "[1.2.3.4]:7",
            "[fe80::1%]:7",
            "[nonsense]:7",
        ] {
            assert!(bad.parse::<Target>().is_err(), "{bad:?} was accepted");
        }
    }

    proptest! {
        #[test]
        fn any_address_prints_as_it_parses(address: IpAddr, port in 1..=u16::MAX) {
            let text = SocketAddr::new(address, port).to_string();
            let target: Target = text.parse().unwrap();
            prop_assert_eq!(target.to_string(), text);
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = text.parse::<Target>();
        }
    }
}
