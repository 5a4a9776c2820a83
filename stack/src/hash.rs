//! Keyed hashing for tables that packets look things up in.
//!
//! # Why it resists flooding
//!
//! Whoever sends packets chooses the addresses and ports that end up as keys of our tables. With a
//! known hash they could choose a thousand keys for one bucket and turn every lookup into a walk.
//! Every function here therefore depends on 128 secret bits that the caller draws at start, and
//! the values never leave the machine, so a sender has neither the key nor an output to learn from.
//!
//! * [`HashKey::hash_bytes`] is SipHash-1-3 (Aumasson and Bernstein, 2012), a pseudo-random
//!   function: the safe choice wherever a few dozen nanoseconds do not matter.
//! * [`HashKey::hash_u32`], [`hash_u128`](HashKey::hash_u128),
//!   [`hash_flow_v4`](HashKey::hash_flow_v4) and [`hash_flow_v6`](HashKey::hash_flow_v6) are for the
//!   hot path: on x86-64 7, 9, 11 and 22 instructions, loads of the secret included. They multiply words that were masked with secret
//!   words to 128 bits and fold the halves together, twice. For keys chosen without knowledge of the
//!   secret, collisions are as rare as chance makes them; the tests below measure that on the
//!   structured keys an attacker would try. They are not a pseudo-random function: somebody who
//!   could *read* hash values could solve for the secret. So no value may be sent anywhere (not as a
//!   cookie, not as an identifier, not as an initial sequence number), and the tables are bounded
//!   and at most half full all the same ([`crate::table`]).

/// The secret of one stack's tables. Copies hash alike.
#[derive(Clone, Copy)]
pub struct HashKey {
    sip: [u64; 2],
    /// Masks for the multiply-and-fold functions, derived from `sip` with SipHash-1-3.
    masks: [u64; 6],
}

/// Keeps the secret out of logs.
impl core::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("HashKey(secret)")
    }
}

impl HashKey {
    /// From 128 secret bits. They must come from a cryptographic source at start (`getrandom` in
    /// the service) and may be fixed in tests and simulations, which then repeat exactly.
    #[must_use]
    pub fn new(secret: [u64; 2]) -> Self {
        // One distinct message for each mask; SipHash makes them independent of each other.
        let mask = |index: u8| siphash::<1, 3>(secret, &[index]);
        Self {
            sip: secret,
            masks: [mask(0), mask(1), mask(2), mask(3), mask(4), mask(5)],
        }
    }

    /// SipHash-1-3 of any bytes.
    #[must_use]
    pub fn hash_bytes(&self, bytes: &[u8]) -> u64 {
        siphash::<1, 3>(self.sip, bytes)
    }

    /// Of a short key such as an IPv4 address or a port. Every bit of the result is usable.
    #[inline]
    #[must_use]
    pub fn hash_u32(&self, value: u32) -> u64 {
        let [k0, k1, ..] = self.masks;
        self.finish(fold(u64::from(value) ^ k0, k1))
    }

    /// Of a key of one word. Every bit of the result is usable.
    #[inline]
    #[must_use]
    pub fn hash_u64(&self, value: u64) -> u64 {
        let [k0, k1, ..] = self.masks;
        self.finish(fold(value ^ k0, k1))
    }

    /// Of an IPv6 address. Every bit of the result is usable.
    #[inline]
    #[must_use]
    pub fn hash_u128(&self, value: u128) -> u64 {
        let [k0, k1, ..] = self.masks;
        let [low, high] = halves(value);
        self.finish(fold(low ^ k0, high ^ k1))
    }

    /// Of an IPv4 flow: two addresses, and in `ports` both ports (or whatever else of 32 bits).
    /// Directed: swapping the addresses gives another value.
    #[inline]
    #[must_use]
    pub fn hash_flow_v4(&self, local: u32, remote: u32, ports: u32) -> u64 {
        let [k0, k1, ..] = self.masks;
        let addresses = u64::from(local) | u64::from(remote) << 32;
        self.finish(fold(addresses ^ k0, u64::from(ports) ^ k1))
    }

    /// Of an IPv6 flow: two addresses, and in `ports` both ports (or whatever else of 32 bits).
    /// Directed: swapping the addresses gives another value.
    #[inline]
    #[must_use]
    pub fn hash_flow_v6(&self, local: u128, remote: u128, ports: u32) -> u64 {
        let [k0, k1, k2, k3, k4, k5] = self.masks;
        let [local_low, local_high] = halves(local);
        let [remote_low, remote_high] = halves(remote);
        let local = fold(local_low ^ k0, local_high ^ k1);
        let remote = fold(remote_low ^ k2, remote_high ^ k3);
        // Both sides multiplied once more: no separate finish is needed.
        fold(local ^ u64::from(ports) ^ k4, remote ^ k5)
    }

    /// A second multiplication. After only one, values in arithmetic progression (one subnet, one
    /// port range) stay one, and for a few in a hundred secrets bunch in some of the buckets.
    #[inline]
    fn finish(&self, folded: u64) -> u64 {
        let [_, _, k2, k3, ..] = self.masks;
        fold(folded ^ k2, k3)
    }
}

/// The 128-bit product, its halves folded together: every bit of both factors reaches every bit
/// of the result.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let (low, high) = a.carrying_mul(b, 0);
    low ^ high
}

/// Low and high word.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "takes the words apart")]
fn halves(value: u128) -> [u64; 2] {
    [value as u64, (value >> 64) as u64]
}

/// SipHash with `C` rounds for each word and `D` at the end.
pub(crate) fn siphash<const C: usize, const D: usize>([k0, k1]: [u64; 2], bytes: &[u8]) -> u64 {
    // The initial state spells "somepseudorandomlygeneratedbytes" (SipHash §2.1).
    let mut v = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    let mut absorb = |word: u64| {
        v[3] ^= word;
        (0..C).for_each(|_| sip_round(&mut v));
        v[0] ^= word;
    };
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        absorb(u64::from_le_bytes(*word));
    }
    // SipHash §2.2: the last word holds the remaining bytes and the length modulo 256.
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    last[7] = bytes.len().to_le_bytes()[0];
    absorb(u64::from_le_bytes(last));
    v[2] ^= 0xff;
    (0..D).for_each(|_| sip_round(&mut v));
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

#[inline]
fn sip_round([v0, v1, v2, v3]: &mut [u64; 4]) {
    *v0 = v0.wrapping_add(*v1);
    *v2 = v2.wrapping_add(*v3);
    *v1 = v1.rotate_left(13) ^ *v0;
    *v3 = v3.rotate_left(16) ^ *v2;
    *v0 = v0.rotate_left(32);
    *v2 = v2.wrapping_add(*v1);
    *v0 = v0.wrapping_add(*v3);
    *v1 = v1.rotate_left(17) ^ *v2;
    *v3 = v3.rotate_left(21) ^ *v0;
    *v2 = v2.rotate_left(32);
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use alloc::vec::Vec;
    use core::hash::Hasher;
    use proptest::prelude::*;

    const SECRET: [u64; 2] = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];

    #[test]
    fn siphash_2_4_matches_the_vectors_of_the_paper() {
        // SipHash, appendix A: the input is 00 01 .. 0e.
        let input: Vec<u8> = (0..15).collect();
        assert_eq!(siphash::<2, 4>(SECRET, &input), 0xa129_ca61_49be_45e5);
    }

    proptest! {
        #[test]
        fn siphash_matches_the_standard_library(secret: [u64; 2], bytes: Vec<u8>) {
            // `DefaultHasher::new` is SipHash-1-3 with a key of zeros; `SipHasher` is 2-4.
            let mut default = std::collections::hash_map::DefaultHasher::new();
            default.write(&bytes);
            prop_assert_eq!(siphash::<1, 3>([0, 0], &bytes), default.finish());
            #[allow(deprecated)]
            let mut keyed = core::hash::SipHasher::new_with_keys(secret[0], secret[1]);
            keyed.write(&bytes);
            prop_assert_eq!(siphash::<2, 4>(secret, &bytes), keyed.finish());
        }

        /// Keys an attacker would try differ in few places. Whatever the secret, no low-order
        /// bucket of 256 may hold far more than its share, and neither may any high-order one.
        #[test]
        fn structured_flows_spread_evenly(secret: [u64; 2], shift in 0u32..28, base: u32) {
            let key = HashKey::new(secret);
            let variants: [fn(&HashKey, u32, u32) -> u64; 8] = [
                |key, x, _| key.hash_u32(x),
                |key, x, base| key.hash_u128(u128::from(x) << 64 | u128::from(base)),
                |key, x, base| key.hash_u128(u128::from(x) | u128::from(base) << 64),
                |key, x, base| key.hash_flow_v4(x, base, 53),
                |key, x, base| key.hash_flow_v4(base, x, base),
                |key, x, base| key.hash_flow_v4(1, base, x),
                |key, x, base| key.hash_flow_v6(u128::from(x) << 17, u128::from(base), 1),
                |key, x, base| key.hash_flow_v6(u128::from(base), u128::from(x) << 64, x),
            ];
            for (index, hash) in variants.into_iter().enumerate() {
                let mut low = [0u32; 256];
                let mut high = [0u32; 256];
                for n in 0..4096u32 {
                    let value = hash(&key, base ^ n.rotate_left(shift), base);
                    low[usize::from(value.to_le_bytes()[0])] += 1;
                    high[usize::from(value.to_be_bytes()[0])] += 1;
                }
                // Mean 16, standard deviation 4: a good hash exceeds 64 less than once in 10^17.
                prop_assert!(low.iter().chain(&high).all(|&count| count < 64), "variant {}", index);
            }
        }

        #[test]
        fn hash_depends_on_every_bit_of_the_key_and_of_the_secret(
            secret: [u64; 2], local: u128, remote: u128, ports: u32, bit in 0u32..128,
        ) {
            let key = HashKey::new(secret);
            let mut other = secret;
            other[(bit / 64) as usize] ^= 1 << (bit % 64);
            let other = HashKey::new(other);
            let flip = 1u128 << bit;
            let hash = key.hash_flow_v6(local, remote, ports);
            prop_assert_ne!(hash, key.hash_flow_v6(local ^ flip, remote, ports));
            prop_assert_ne!(hash, key.hash_flow_v6(local, remote ^ flip, ports));
            prop_assert_ne!(hash, key.hash_flow_v6(local, remote, ports ^ 1 << (bit % 32)));
            prop_assert_ne!(hash, other.hash_flow_v6(local, remote, ports));
            prop_assert_ne!(key.hash_u128(local), key.hash_u128(local ^ flip));
            prop_assert_ne!(key.hash_u128(local), other.hash_u128(local));
            prop_assert_ne!(key.hash_u32(ports), other.hash_u32(ports));
        }
    }

    #[test]
    fn single_bit_changes_flip_half_of_the_result() {
        let key = HashKey::new(SECRET);
        let mut flipped = 0;
        for n in 0..1000u32 {
            let [local, remote] = [n.wrapping_mul(0x9e37_79b9), n << 8];
            let before = key.hash_flow_v4(local, remote, n);
            for bit in 0..32 {
                flipped += (before ^ key.hash_flow_v4(local ^ 1 << bit, remote, n)).count_ones();
                flipped += (before ^ key.hash_flow_v4(local, remote ^ 1 << bit, n)).count_ones();
                flipped += (before ^ key.hash_flow_v4(local, remote, n ^ 1 << bit)).count_ones();
            }
        }
        let mean = f64::from(flipped) / f64::from(1000 * 96);
        assert!((30.0..34.0).contains(&mean), "{mean} bits of 64");
    }

    #[test]
    fn direction_matters() {
        let key = HashKey::new(SECRET);
        assert_ne!(key.hash_flow_v4(1, 2, 3), key.hash_flow_v4(2, 1, 3));
        assert_ne!(key.hash_flow_v6(1, 2, 3), key.hash_flow_v6(2, 1, 3));
    }

    #[test]
    fn debug_does_not_print_the_secret() {
        assert_eq!(
            std::format!("{:?}", HashKey::new(SECRET)),
            "HashKey(secret)"
        );
    }
}
