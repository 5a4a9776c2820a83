//! Where the numbers of a connection start: initial sequence number (RFC 6528) and timestamp clock
//! (RFC 7323 §7.1). Both run with time, from an offset that is secret and different for each tuple:
//! nobody can tell from his own connections where those of others are, and yet a connection between
//! the same ports as one before starts behind that one's numbers.

use crate::hash::siphash;
use crate::ip::address::IpAddress;
use crate::tcp::options::TsClock;
use crate::tcp::seq::SeqNum;
use crate::tcp::tuple::Tuple;
use crate::time::Instant;
use core::fmt;
use core::net::IpAddr;

/// A step of the sequence number clock, in nanoseconds: 4 µs, so that it wraps around in 4.77 hours
/// (RFC 9293 §3.4.1, MUST-8; RFC 6528 §3).
const ISN_TICK_NS: u64 = 4_000;

/// What values that leave the machine are computed with. Unlike
/// [`HashKey`](crate::hash::HashKey) it stands for SipHash-2-4 alone, a pseudo-random function: who
/// sees values cannot compute others.
#[derive(Clone, Copy)]
pub struct Secret([u64; 2]);

/// Keeps the secret out of logs.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(secret)")
    }
}

/// What a hash is for; each purpose has a function of its own.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(crate) enum Purpose {
    Start = 1,
    SynCookie = 2,
    Port = 3,
    PortTable = 4,
}

/// Longest message that is hashed, in bytes: purpose, two IPv6 addresses, two ports, and what a SYN
/// cookie adds.
const MESSAGE_LEN_MAX: usize = 1 + 2 * 16 + 2 * 2 + MORE_LEN_MAX;
const MORE_LEN_MAX: usize = 13;

impl Secret {
    /// From 128 secret bits. They must come from a cryptographic source at start, and from another
    /// draw than those of [`HashKey`](crate::hash::HashKey); the same in all workers that
    /// answer for one address, or a SYN cookie of one is nothing to the other.
    #[must_use]
    pub const fn new(secret: [u64; 2]) -> Self {
        Self(secret)
    }

    /// A pseudo-random function of everything given; `more` is at most 13 bytes.
    pub(crate) fn hash<A: IpAddress>(
        &self,
        purpose: Purpose,
        tuple: &Tuple<A>,
        more: &[u8],
    ) -> u64 {
        let mut message = [0; MESSAGE_LEN_MAX];
        let mut len = 0;
        let mut put = |bytes: &[u8]| {
            message[len..len + bytes.len()].copy_from_slice(bytes);
            len += bytes.len();
        };
        let Tuple {
            local,
            remote,
            local_port,
            remote_port,
        } = *tuple;
        // Ports first: for IPv4 and IPv6 the lengths differ, so no two messages are equal.
        put(&[purpose as u8]);
        put(&local_port.to_be_bytes());
        put(&remote_port.to_be_bytes());
        for address in [local, remote] {
            match address.into() {
                IpAddr::V4(address) => put(&address.octets()),
                IpAddr::V6(address) => put(&address.octets()),
            }
        }
        put(more);
        siphash::<2, 4>(self.0, &message[..len])
    }

    /// Where a connection named `tuple` starts if it starts now.
    #[must_use]
    pub fn start<A: IpAddress>(&self, tuple: &Tuple<A>, now: Instant) -> Start {
        let offset = self.hash(Purpose::Start, tuple, &[]);
        // The halves of a pseudo-random function's value have nothing to do with each other.
        let [a, b, c, d, e, f, g, h] = offset.to_le_bytes();
        let isn_offset = u32::from_le_bytes([a, b, c, d]);
        Start {
            isn: isn(isn_offset, now),
            isn_offset,
            clock: TsClock::new(u32::from_le_bytes([e, f, g, h])),
        }
    }
}

/// Where a connection starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// ISS: our initial sequence number.
    pub isn: SeqNum,
    /// Our timestamp clock.
    pub clock: TsClock,
    /// F() of RFC 6528 §3.
    isn_offset: u32,
}

impl Start {
    /// The initial sequence number without its clock, F() of RFC 6528 §3: a SYN cookie has a clock of
    /// its own.
    pub(crate) const fn isn_offset(&self) -> u32 {
        self.isn_offset
    }
}

/// The clock of sequence numbers, not wrapped around: steps of 4 µs.
pub(crate) const fn isn_ticks(now: Instant) -> u64 {
    now.as_nanos() / ISN_TICK_NS
}

/// RFC 6528 §3: ISN = M + F(tuple, secret).
#[expect(clippy::cast_possible_truncation, reason = "the clock wraps around")]
fn isn(offset: u32, now: Instant) -> SeqNum {
    SeqNum::new(offset) + isn_ticks(now) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{Ipv4Addr, Ipv6Addr};
    use proptest::prelude::*;

    fn tuple(local_port: u16) -> Tuple<Ipv4Addr> {
        Tuple {
            local: Ipv4Addr::new(192, 0, 2, 1),
            remote: Ipv4Addr::new(198, 51, 100, 7),
            local_port,
            remote_port: 443,
        }
    }

    #[test]
    fn the_clock_ticks_every_four_microseconds() {
        let secret = Secret::new([1, 2]);
        let isn = |nanos| secret.start(&tuple(1), Instant::from_nanos(nanos)).isn;
        assert_eq!(isn(3_999), isn(0));
        assert_eq!(isn(4_000), isn(0) + 1);
        // RFC 6528 §3: it comes round after about 4.77 hours.
        assert_eq!(isn(4_000 << 32), isn(0));
    }

    /// RFC 6528 §3, RFC 9293 §3.4.1 (MUST-9): what one port's numbers are says nothing of the next.
    #[test]
    fn offsets_of_neighbours_share_half_of_their_bits() {
        let secret = Secret::new([3, 4]);
        let starts = |port| {
            let start = secret.start(&tuple(port), Instant::ZERO);
            (start.isn.get(), start.clock.value(Instant::ZERO))
        };
        let (mut isn_bits, mut clock_bits, mut both_bits) = (0, 0, 0);
        for port in 0..1000 {
            let (a, b) = (starts(port), starts(port + 1));
            isn_bits += (a.0 ^ b.0).count_ones();
            clock_bits += (a.1 ^ b.1).count_ones();
            both_bits += (a.0 ^ a.1).count_ones();
        }
        for bits in [isn_bits, clock_bits, both_bits] {
            assert!((15_500..16_500).contains(&bits), "{bits} of 32,000");
        }
    }

    #[test]
    fn a_later_incarnation_starts_behind_the_earlier() {
        let secret = Secret::new([5, 6]);
        let (early, late) = (Instant::from_nanos(1 << 40), Instant::from_nanos(1 << 41));
        let (first, second) = (
            secret.start(&tuple(9), early),
            secret.start(&tuple(9), late),
        );
        assert!(second.isn.after(first.isn));
        assert_eq!(first.clock, second.clock);
    }

    #[test]
    fn debug_does_not_print_the_secret() {
        assert_eq!(
            alloc::format!("{:?}", Secret::new([7, 8])),
            "Secret(secret)"
        );
    }

    proptest! {
        #[test]
        fn everything_given_matters(
            secret: [u64; 2], local: u128, remote: u128, local_port: u16, remote_port: u16,
            more: [u8; 13], bit in 0u32..128,
        ) {
            let hash = |secret, local: u128, remote: u128, local_port, remote_port, more: [u8; 13]| {
                let (local, remote) = (Ipv6Addr::from(local), Ipv6Addr::from(remote));
                let tuple = Tuple { local, remote, local_port, remote_port };
                Secret::new(secret).hash(Purpose::SynCookie, &tuple, &more)
            };
            let all = hash(secret, local, remote, local_port, remote_port, more);
            let flip = 1 << bit;
            let port = 1 << (bit % 16);
            let other = [secret[0] ^ (1 << (bit % 64)), secret[1]];
            let mut other_more = more;
            other_more[bit as usize % 13] ^= 1;
            prop_assert_ne!(all, hash(other, local, remote, local_port, remote_port, more));
            prop_assert_ne!(all, hash(secret, local ^ flip, remote, local_port, remote_port, more));
            prop_assert_ne!(all, hash(secret, local, remote ^ flip, local_port, remote_port, more));
            prop_assert_ne!(all, hash(secret, local, remote, local_port ^ port, remote_port, more));
            prop_assert_ne!(all, hash(secret, local, remote, local_port, remote_port ^ port, more));
            prop_assert_ne!(all, hash(secret, local, remote, local_port, remote_port, other_more));
        }
    }
}
