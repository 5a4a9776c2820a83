//! Where connections come from: addresses and ports of this host. One address has at most 64,511 ports
//! for one target, and 28,232 by default on Linux (`net.ipv4.ip_local_port_range`): more connections take
//! more addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Most addresses in a list: with 64,511 ports each, far more connections than fit any memory.
const ADDRESSES_MAX: usize = 65_536;

/// Addresses as they were typed: `10.0.0.1`, `10.0.0.1-10.0.0.9`, or several of these with commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceAddresses(Vec<IpAddr>);

impl SourceAddresses {
    /// The addresses, all of one IP version; never empty.
    #[must_use]
    pub fn as_slice(&self) -> &[IpAddr] {
        &self.0
    }
}

impl FromStr for SourceAddresses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut all = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let address = |text: &str| {
                text.parse::<IpAddr>().map_err(|_| {
                    format!("`{text}` is not an address, like 10.0.0.1 or 10.0.0.1-10.0.0.9")
                })
            };
            let (first, last) = (address(first)?, address(last)?);
            let range: Vec<IpAddr> = match (first, last) {
                (IpAddr::V4(first), IpAddr::V4(last)) => (first.to_bits()..=last.to_bits())
                    .take(ADDRESSES_MAX + 1)
                    .map(|bits| Ipv4Addr::from_bits(bits).into())
                    .collect(),
                (IpAddr::V6(first), IpAddr::V6(last)) => (first.to_bits()..=last.to_bits())
                    .take(ADDRESSES_MAX + 1)
                    .map(|bits| Ipv6Addr::from_bits(bits).into())
                    .collect(),
                _ => return Err(format!("`{part}` mixes IPv4 and IPv6")),
            };
            if range.is_empty() {
                return Err(format!("`{part}` counts down: write {last}-{first}"));
            }
            all.extend(range);
        }
        if all.len() > ADDRESSES_MAX {
            return Err(format!("more than {ADDRESSES_MAX} addresses"));
        }
        if all.iter().any(|one| one.is_ipv4() != all[0].is_ipv4()) {
            return Err("IPv4 and IPv6 addresses in one list: use those of the target's".into());
        }
        Ok(Self(all))
    }
}

/// A range of ports as it was typed: `1024-65535`, or one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports(RangeInclusive<u16>);

impl Ports {
    /// First and last.
    #[must_use]
    pub fn ends(&self) -> (u16, u16) {
        (*self.0.start(), *self.0.end())
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::from(*self.0.end() - *self.0.start()) + 1
    }

    /// The part of thread `thread` of `threads`: parts lie side by side and differ by one port at most.
    /// None if there are more threads than ports.
    #[must_use]
    pub fn share(&self, thread: u32, threads: u32) -> Option<Self> {
        let count = self.count();
        let cut = |part: u32| {
            // Below 65,536 by the division.
            let offset = u64::from(count) * u64::from(part) / u64::from(threads);
            u32::from(*self.0.start()) + u32::try_from(offset).unwrap_or(count)
        };
        let (first, end) = (cut(thread), cut(thread + 1));
        if first == end {
            return None;
        }
        let port = |port| u16::try_from(port).ok();
        Some(Self(port(first)?..=port(end - 1)?))
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}-{}", self.0.start(), self.0.end())
    }
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.parse(), last.parse()) {
            (Ok(first @ 1..), Ok(last)) if first <= last => Ok(Self(first..=last)),
            _ => Err(format!("`{text}` is not a range of ports, like 1024-65535")),
        }
    }
}

/// Deals out the addresses, and the ports if they were given, in turn.
#[derive(Clone, Debug)]
pub struct Sources {
    addresses: Vec<IpAddr>,
    ports: Option<Ports>,
    next: u64,
}

impl Sources {
    /// Of these addresses (the kernel's choice if there are none) and ports (likewise).
    #[must_use]
    pub fn new(addresses: &[IpAddr], ports: Option<Ports>) -> Self {
        Self {
            addresses: addresses.to_vec(),
            ports,
            next: 0,
        }
    }

    /// Pairs of address and port until one comes again.
    #[must_use]
    pub fn pairs(&self) -> u64 {
        let ports = self.ports.as_ref().map_or(1, Ports::count);
        self.addresses.len().max(1) as u64 * u64::from(ports)
    }
}

/// Every address in turn, and the next port when all had theirs.
impl Iterator for Sources {
    type Item = (Option<IpAddr>, Option<u16>);

    fn next(&mut self) -> Option<Self::Item> {
        let number = self.next;
        self.next = (number + 1) % self.pairs();
        let addresses = self.addresses.len().max(1) as u64;
        let index = usize::try_from(number % addresses).ok()?;
        let address = self.addresses.get(index).copied();
        let port = self.ports.as_ref().and_then(|ports| {
            let offset = u16::try_from(number / addresses).ok()?;
            ports.0.start().checked_add(offset)
        });
        Some((address, port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn lists_and_ranges() {
        let list = |text: &str| text.parse::<SourceAddresses>();
        assert_eq!(list("10.0.0.1").unwrap().as_slice().len(), 1);
        let some = list("10.0.0.254-10.0.1.1,10.0.9.9").unwrap();
        let expected = [
            "10.0.0.254",
            "10.0.0.255",
            "10.0.1.0",
            "10.0.1.1",
            "10.0.9.9",
        ];
        assert_eq!(
            some.as_slice(),
            expected.map(|one| one.parse::<IpAddr>().unwrap())
        );
        assert_eq!(list("fd00::1-fd00::ff").unwrap().as_slice().len(), 255);
        for bad in [
            "",
            "x",
            "10.0.0.9-10.0.0.1",
            "10.0.0.1-fd00::1",
            "10.0.0.1,::1",
            "::-ffff::",
        ] {
            assert!(list(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn every_pair_comes_once() {
        let addresses: SourceAddresses = "10.0.0.1-10.0.0.3".parse().unwrap();
        let sources = Sources::new(addresses.as_slice(), Some("5-9".parse().unwrap()));
        assert_eq!(sources.pairs(), 15);
        let pairs: Vec<_> = sources.take(30).collect();
        assert_eq!(pairs[..15].iter().collect::<BTreeSet<_>>().len(), 15);
        assert_eq!(pairs[..15], pairs[15..]);
        assert_ne!(pairs[0].0, pairs[1].0);
        assert_eq!(Sources::new(&[], None).next(), Some((None, None)));
    }

    proptest! {
        #[test]
        fn shares_are_all_ports_and_none_twice(a in 1..=u16::MAX, b in 1..=u16::MAX, threads in 1u32..70) {
            let ports = Ports(a.min(b)..=a.max(b));
            prop_assert_eq!(ports.to_string().parse(), Ok(ports.clone()));
            let mut next = u32::from(a.min(b));
            for thread in 0..threads {
                if let Some(Ports(share)) = ports.share(thread, threads) {
                    prop_assert_eq!(u32::from(*share.start()), next);
                    next = u32::from(*share.end()) + 1;
                }
            }
            prop_assert_eq!(next, u32::from(a.max(b)) + 1);
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = text.parse::<SourceAddresses>();
            let _ = text.parse::<Ports>();
        }
    }
}
