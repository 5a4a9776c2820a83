//! SYN cookies (RFC 4987 §3.6): what a listener has to remember of a SYN, in the numbers of its
//! answer. It keeps nothing; the peer brings it all back with its ACK.
//!
//! ```text
//!  ISN    =  F(tuple)  +  period << 24  +  (MAC + MSS index) mod 2²⁴
//!  TSval  =  our clock, its low six bits replaced:  ECN │ SACK │ window scale (4)
//! ```
//!
//! `F` is that of RFC 6528, and a period is 2²⁴ of its clock's steps of 4 µs: 67.1 s. So a cookie is
//! an initial sequence number that moves with time as all others do, only that the lower 24 bits of
//! the clock are not what it shows. The MAC is over tuple, the peer's initial sequence number, period
//! and the bits in the timestamp.
//!
//! A cookie is accepted in its period and the next. Who has not seen one, and answers blindly, hits
//! one of the 16 that are good (8 sizes, 2 periods) of 2³²: one in 2²⁸ guesses.
//!
//! What does not fit is lost: the MSS is rounded down to one of eight, and without timestamps there
//! is neither window scaling nor SACK nor ECN.

use crate::ip::address::{Ip, IpAddress};
use crate::tcp::isn::{Purpose, Secret, Start, isn_ticks};
use crate::tcp::options::{SynOptions, Timestamps, TsClock, WINDOW_SCALE_MAX};
use crate::tcp::seq::SeqNum;
use crate::tcp::tuple::Tuple;
use crate::time::{Duration, Instant};

/// log₂ of the steps of the sequence number clock in a period.
const PERIOD_LOG2: u32 = 24;
const MAC_MASK: u32 = (1 << PERIOD_LOG2) - 1;
/// Periods a cookie is good for behind its own: with one, for between 67 and 134 s, longer than a
/// peer repeats an answer of ours that was lost; more would give those who guess more to hit.
const PERIODS_MORE: u8 = 1;

/// How long a cookie may be good at most: its period of 67.1 s and the one after it.
pub const LIFETIME_MAX: Duration =
    Duration::from_micros(4 * (1 << PERIOD_LOG2) * (1 + PERIODS_MORE as u64));

/// Payloads in one segment, in bytes, of which the peer's MSS is rounded down to one. 88 is the least
/// anybody is sent, as in Linux; 536 and 1220 are the defaults (RFC 9293 §3.7.1); 1360 passes through
/// most tunnels and mobile networks; 1432 and 1440 are IPv6 over PPPoE and Ethernet, the latter also
/// for IPv4 over PPPoE (1452); 1460 is IPv4 over Ethernet; 8940 are jumbo frames.
const MSS: [u16; 8] = [88, 536, 1220, 1360, 1432, 1440, 1460, 8940];

/// The lower bits of a timestamp that carry options.
const TS_BITS: u32 = 6;
const TS_MASK: u32 = (1 << TS_BITS) - 1;
/// The lowest four are the window scale, or this if there is none: no real one is so great.
const TS_NO_WINDOW_SCALE: u32 = 0b1111;
const TS_SACK: u32 = 1 << 4;
const TS_ECN: u32 = 1 << 5;
const _: () = assert!((WINDOW_SCALE_MAX as u32) < TS_NO_WINDOW_SCALE);

/// In the MAC, in place of these bits: the connection has no timestamps.
const NO_TIMESTAMPS: u8 = 0xff;

/// What the two ends agree on in a handshake with a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// What the peer's SYN said, as far as it is kept: `mss` is there and rounded down. In what
    /// [`check`] returns, the timestamps are those of the ACK.
    pub options: SynOptions,
    /// Both ends use ECN (RFC 3168 §6.1.1).
    pub ecn: bool,
}

/// The numbers of an answer to a SYN that is not remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// ISS: our initial sequence number.
    pub isn: SeqNum,
    /// `TSval` of the answer, if the peer has timestamps. Up to 64 ms behind our clock: its echo
    /// measures no round trip.
    pub ts_value: Option<u32>,
    /// What to answer with. Nothing else may be offered: nobody would know of it later.
    pub agreed: Agreed,
}

/// A connection whose cookie came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// What was agreed.
    pub agreed: Agreed,
    /// Our timestamp clock for it.
    pub clock: TsClock,
}

/// Makes the cookie for a SYN with sequence number `seq` and `options`; `ecn` says whether it asked
/// for ECN and we agree.
#[must_use]
pub fn make<A: IpAddress>(
    secret: &Secret,
    tuple: &Tuple<A>,
    seq: SeqNum,
    options: &SynOptions,
    ecn: bool,
    now: Instant,
) -> Cookie {
    // RFC 9293 §3.7.1 (MUST-15): the default if the peer does not say.
    let default = if A::Version::VERSION == 4 { 536 } else { 1220 };
    let wanted = options.mss.unwrap_or(default);
    let (mut mss_index, mut mss) = (0, MSS[0]);
    for (index, size) in (0..).zip(MSS) {
        if size <= wanted {
            (mss_index, mss) = (index, size);
        }
    }
    let bits = options.timestamps.map(|_| {
        let window_scale = options.window_scale.map_or(TS_NO_WINDOW_SCALE, |shift| {
            u32::from(shift.min(WINDOW_SCALE_MAX))
        });
        let sack = if options.sack_permitted { TS_SACK } else { 0 };
        window_scale | sack | if ecn { TS_ECN } else { 0 }
    });
    let start = secret.start(tuple, now);
    let period = isn_ticks(now) >> PERIOD_LOG2;
    let mac = mac(secret, tuple, seq, period, bits);
    Cookie {
        isn: first_of(&start, period) + (mac.wrapping_add(mss_index) & MAC_MASK),
        ts_value: bits.map(|bits| {
            let value = start.clock.value(now);
            let replaced = value & !TS_MASK | bits;
            // Never ahead of the clock, or what follows would look old to the peer (RFC 7323 §5.3).
            let ahead = bits > value & TS_MASK;
            replaced.wrapping_sub(if ahead { TS_MASK + 1 } else { 0 })
        }),
        agreed: agreed(mss, options.timestamps, bits),
    }
}

/// What was agreed with whoever sends an ACK for no connection, if it brings back a cookie of ours:
/// `seq` is the peer's initial sequence number, SEG.SEQ − 1, `isn` ours, SEG.ACK − 1, and
/// `timestamps` are those of the ACK. `None` if it is no cookie, not for this tuple, or too old.
#[must_use]
pub fn check<A: IpAddress>(
    secret: &Secret,
    tuple: &Tuple<A>,
    seq: SeqNum,
    isn: SeqNum,
    timestamps: Option<Timestamps>,
    now: Instant,
) -> Option<Accepted> {
    let start = secret.start(tuple, now);
    let value = isn.offset_from(first_of(&start, 0));
    let period_now = isn_ticks(now) >> PERIOD_LOG2;
    // The cookie has the lowest byte of its period; one from the future is 255 periods old.
    let behind = period_now.to_le_bytes()[0].wrapping_sub(value.to_be_bytes()[0]);
    if behind > PERIODS_MORE {
        return None;
    }
    let period = period_now.checked_sub(u64::from(behind))?;
    let bits = timestamps.map(|timestamps| timestamps.echo & TS_MASK);
    let mac = mac(secret, tuple, seq, period, bits);
    let mss_index = value.wrapping_sub(mac) & MAC_MASK;
    let &mss = MSS.get(usize::try_from(mss_index).ok()?)?;
    Some(Accepted {
        agreed: agreed(mss, timestamps, bits),
        clock: start.clock,
    })
}

/// Whether an acknowledgement of `isn` may be that of a cookie sent lately, as far as can be told without
/// the peer's initial sequence number: a segment behind the first one, which overtook it. Of all other
/// numbers one in a hundred looks like that.
#[must_use]
pub fn is_plausible<A: IpAddress>(
    secret: &Secret,
    tuple: &Tuple<A>,
    isn: SeqNum,
    now: Instant,
) -> bool {
    let start = secret.start(tuple, now);
    let value = isn.offset_from(first_of(&start, 0));
    let period_now = isn_ticks(now) >> PERIOD_LOG2;
    period_now.to_le_bytes()[0].wrapping_sub(value.to_be_bytes()[0]) <= PERIODS_MORE
}

/// The sequence number that the cookies of a period start at.
fn first_of(start: &Start, period: u64) -> SeqNum {
    let [lowest, ..] = period.to_le_bytes();
    SeqNum::new(start.isn_offset()) + (u32::from(lowest) << PERIOD_LOG2)
}

/// 24 bits that only we can compute.
fn mac<A: IpAddress>(
    secret: &Secret,
    tuple: &Tuple<A>,
    seq: SeqNum,
    period: u64,
    bits: Option<u32>,
) -> u32 {
    let [a, b, c, d] = seq.get().to_be_bytes();
    let [e, f, g, h, i, j, k, l] = period.to_be_bytes();
    let bits = bits.map_or(NO_TIMESTAMPS, |bits| bits.to_le_bytes()[0]);
    let more = [a, b, c, d, e, f, g, h, i, j, k, l, bits];
    let [a, b, c, ..] = secret.hash(Purpose::SynCookie, tuple, &more).to_le_bytes();
    u32::from_le_bytes([a, b, c, 0])
}

fn agreed(mss: u16, timestamps: Option<Timestamps>, bits: Option<u32>) -> Agreed {
    // Without timestamps nothing of all this could come back.
    let bits = bits.unwrap_or(TS_NO_WINDOW_SCALE);
    let window_scale = match bits & TS_NO_WINDOW_SCALE {
        TS_NO_WINDOW_SCALE => None,
        // What was not made by us does not get here: 14 at most.
        shift => Some(shift.to_le_bytes()[0]),
    };
    Agreed {
        options: SynOptions {
            mss: Some(mss),
            window_scale,
            sack_permitted: bits & TS_SACK != 0,
            timestamps,
            fast_open: false,
        },
        ecn: bits & TS_ECN != 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{Ipv4Addr, Ipv6Addr};
    use proptest::prelude::*;

    const SECRET: Secret = Secret::new([0x1234, 0x5678]);
    const PERIOD_NS: u64 = 4_000 << PERIOD_LOG2;

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    fn tuple() -> Tuple<Ipv6Addr> {
        Tuple {
            local: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
            remote: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2),
            local_port: 80,
            remote_port: 50_000,
        }
    }

    fn options() -> SynOptions {
        SynOptions {
            mss: Some(1440),
            window_scale: Some(7),
            sack_permitted: true,
            timestamps: Some(Timestamps { value: 9, echo: 0 }),
            fast_open: false,
        }
    }

    fn echo(cookie: &Cookie) -> Option<Timestamps> {
        cookie.ts_value.map(|echo| Timestamps { value: 10, echo })
    }

    #[test]
    fn sizes_are_rounded_down() {
        let mss = |mss| {
            let options = SynOptions { mss, ..options() };
            let cookie = make(&SECRET, &tuple(), SeqNum::new(1), &options, false, at(5));
            cookie.agreed.options.mss
        };
        for (said, kept) in [
            (0, 88),
            (87, 88),
            (535, 88),
            (536, 536),
            (1452, 1440),
            (1459, 1440),
            (1460, 1460),
            (8960, 8940),
            (65_535, 8940),
        ] {
            assert_eq!(mss(Some(said)), Some(kept), "{said}");
        }
        // RFC 9293 §3.7.1 (MUST-15).
        assert_eq!(mss(None), Some(1220));
        let v4 = Tuple {
            local: Ipv4Addr::LOCALHOST,
            remote: Ipv4Addr::BROADCAST,
            local_port: 1,
            remote_port: 2,
        };
        let none = SynOptions::default();
        let cookie = make(&SECRET, &v4, SeqNum::new(1), &none, true, at(5));
        assert_eq!(cookie.agreed.options.mss, Some(536));
        assert!(!cookie.agreed.ecn, "it could not come back");
    }

    #[test]
    fn it_is_good_in_its_period_and_the_next() {
        let start = 1000 * PERIOD_NS;
        for made in [start, start + PERIOD_NS / 2, start + PERIOD_NS - 1] {
            let cookie = make(
                &SECRET,
                &tuple(),
                SeqNum::new(7),
                &options(),
                true,
                at(made),
            );
            let good = |now| {
                let (seq, isn) = (SeqNum::new(7), cookie.isn);
                check(&SECRET, &tuple(), seq, isn, echo(&cookie), at(now)).is_some()
            };
            assert!(good(made) && good(start) && good(start + 2 * PERIOD_NS - 1));
            assert!(!good(start - 1), "from the future");
            assert!(!good(start + 2 * PERIOD_NS));
            // The lowest byte of the period comes round.
            assert!(!good(made + 256 * PERIOD_NS));
        }
    }

    #[test]
    fn the_first_period_has_none_before_it() {
        let cookie = make(&SECRET, &tuple(), SeqNum::new(7), &options(), true, at(0));
        let later = check(
            &SECRET,
            &tuple(),
            SeqNum::new(7),
            cookie.isn - (1 << PERIOD_LOG2),
            echo(&cookie),
            at(0),
        );
        assert_eq!(later, None);
    }

    #[test]
    fn cookies_move_with_time_as_other_initial_sequence_numbers_do() {
        for periods in 0..600 {
            let now = at(periods * PERIOD_NS + PERIOD_NS / 2);
            let cookie = make(&SECRET, &tuple(), SeqNum::new(7), &options(), true, now);
            let isn = SECRET.start(&tuple(), now).isn;
            let apart = cookie.isn.offset_from(isn).cast_signed().unsigned_abs();
            assert!(apart <= 1 << (PERIOD_LOG2 - 1), "{apart}");
        }
    }

    #[test]
    fn guessing_hits_as_seldom_as_it_should() {
        // Of 2³² numbers 16 are good: those of 2²⁴ around a good one that are near it, 8.
        let now = at(77 * PERIOD_NS);
        let cookie = make(&SECRET, &tuple(), SeqNum::new(7), &options(), true, now);
        let base = cookie.isn - 5000;
        let good = (0..10_000)
            .filter(|&step| {
                let isn = base + step;
                check(&SECRET, &tuple(), SeqNum::new(7), isn, echo(&cookie), now).is_some()
            })
            .count();
        assert_eq!(good, MSS.len());
    }

    proptest! {
        #[test]
        fn what_was_agreed_comes_back(
            seq: u32, mss: Option<u16>, window_scale in proptest::option::of(0u8..=14),
            sack_permitted: bool, ecn: bool, timestamps in proptest::option::of(any::<u32>()),
            now in 0..1u64 << 60, wait in 0..PERIOD_NS,
        ) {
            let timestamps = timestamps.map(|value| Timestamps { value, echo: 0 });
            let options = SynOptions { mss, window_scale, sack_permitted, timestamps, fast_open: true };
            let seq = SeqNum::new(seq);
            let cookie = make(&SECRET, &tuple(), seq, &options, ecn, at(now));
            if timestamps.is_some() {
                prop_assert_eq!(cookie.agreed.options.window_scale, window_scale);
                prop_assert_eq!(cookie.agreed.options.sack_permitted, sack_permitted);
                prop_assert_eq!(cookie.agreed.ecn, ecn);
            }
            if let Some(mss) = mss {
                prop_assert!(cookie.agreed.options.mss.is_some_and(|kept| kept <= mss.max(88)));
            }
            prop_assert_eq!(cookie.ts_value.is_some(), timestamps.is_some());
            let back = echo(&cookie);
            let accepted = check(&SECRET, &tuple(), seq, cookie.isn, back, at(now + wait));
            let accepted = accepted.expect("it is ours");
            let mut expected = cookie.agreed;
            expected.options.timestamps = back;
            prop_assert_eq!(accepted.agreed, expected);
            // RFC 7323 §5.3: our clock goes on from the value in the cookie.
            if let Some(value) = cookie.ts_value {
                let behind = accepted.clock.elapsed_ms(value, at(now));
                prop_assert!(behind.is_some_and(|behind| behind < 64), "{:?}", behind);
            }
        }

        /// Whatever is changed makes it somebody else's, or none. Some changes leave one chance in
        /// two million that it is good all the same; so two cookies of two secrets are changed alike,
        /// and one has to be refused.
        #[test]
        fn it_is_good_for_nothing_else(
            seq: u32, now in 0..1u64 << 60, address: u128, port: u16, other in 1u32..,
            step in 8u32..u32::MAX - 8, secret: [u64; 2],
        ) {
            let (seq, now) = (SeqNum::new(seq), at(now));
            let secrets = [SECRET, Secret::new([0x9abc, 0xdef0])];
            let cookies =
                secrets.map(|secret| make(&secret, &tuple(), seq, &options(), true, now));
            let good = |secrets: [Secret; 2], tuple: Tuple<_>, seq, step, flip: Option<u32>| {
                secrets.iter().zip(&cookies).all(|(secret, cookie)| {
                    let back = echo(cookie).zip(flip).map(|(Timestamps { value, echo }, flip)| {
                        Timestamps { value, echo: echo ^ flip }
                    });
                    check(secret, &tuple, seq, cookie.isn + step, back, now).is_some()
                })
            };
            prop_assert!(good(secrets, tuple(), seq, 0, Some(0)));
            let address = Ipv6Addr::from(address);
            let (local, remote) = (tuple().local, tuple().remote);
            prop_assume!(address != local && address != remote);
            prop_assume!(port != 80 && port != 50_000);
            for tuple in [
                Tuple { local: address, ..tuple() },
                Tuple { remote: address, ..tuple() },
                Tuple { local: remote, remote: local, ..tuple() },
                Tuple { local_port: port, ..tuple() },
                Tuple { remote_port: port, ..tuple() },
            ] {
                prop_assert!(!good(secrets, tuple, seq, 0, Some(0)));
            }
            let [a, b] = secret;
            let others = [Secret::new([a, b]), Secret::new([a, !b])];
            prop_assert!(!good(others, tuple(), seq, 0, Some(0)));
            prop_assert!(!good(secrets, tuple(), seq + other, 0, Some(0)));
            prop_assert!(!good(secrets, tuple(), seq, step, Some(0)));
            prop_assert!(!good(secrets, tuple(), seq, 0, None));
            prop_assert!(!good(secrets, tuple(), seq, 0, Some(1 << (other % TS_BITS))));
        }
    }
}
