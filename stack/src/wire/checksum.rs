//! The Internet checksum (RFC 1071): the one's complement of the one's complement sum of 16-bit
//! words. The sum does not care about byte order (§2 (B)), so words are added as the machine loads
//! them, eight bytes at a time, and the result is stored as it stands.

use core::net::{Ipv4Addr, Ipv6Addr};

/// A sum under way: one's complement, 64 bits wide, in the machine's byte order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// Nothing summed yet.
    pub const ZERO: Sum = Sum(0);

    /// Adds 64-bit words with end-around carry. The carry of each goes into the next, which is one
    /// instruction a word where the processor has an add with carry.
    #[inline]
    fn add_words<const N: usize>(self, words: [u64; N]) -> Sum {
        let (mut sum, mut carry) = (self.0, false);
        for word in words {
            (sum, carry) = sum.carrying_add(word, carry);
        }
        // A sum that has just carried is not all ones: the carry finds room.
        Sum(sum.wrapping_add(carry as u64))
    }

    /// Adds one 64-bit word with end-around carry.
    #[inline]
    const fn add_word(self, word: u64) -> Sum {
        let (sum, carry) = self.0.overflowing_add(word);
        Sum(sum + carry as u64)
    }

    /// Adds a field of network byte order.
    #[inline]
    #[must_use]
    pub const fn add_be16(self, value: u16) -> Sum {
        self.add_word(value.to_be() as u64)
    }

    /// Adds bytes that start at an even offset of what is summed. An odd last byte counts as if
    /// followed by zero (RFC 1071 §4.1), so only the last piece may be of odd length.
    // Always inlined: a call costs a quarter of what 64 bytes do.
    #[inline(always)]
    #[must_use]
    pub fn add_bytes(self, bytes: &[u8]) -> Sum {
        let (mut sum, mut rest) = (self, bytes);
        while let Some((block, after)) = rest.split_first_chunk::<64>() {
            sum = sum.add_chunk::<64, 8>(block);
            rest = after;
        }
        if rest.is_empty() {
            return sum;
        }
        // What is left is the sum of some of 32, 16, 8, 4, 2 and 1 bytes: no loop.
        if let Some((block, after)) = rest.split_first_chunk::<32>() {
            sum = sum.add_chunk::<32, 4>(block);
            rest = after;
        }
        if let Some((block, after)) = rest.split_first_chunk::<16>() {
            sum = sum.add_chunk::<16, 2>(block);
            rest = after;
        }
        if let Some((word, after)) = rest.split_first_chunk::<8>() {
            sum = sum.add_word(u64::from_ne_bytes(*word));
            rest = after;
        }
        sum.add_tail(rest)
    }

    /// Adds a block of 64-bit words.
    #[inline]
    pub(crate) fn add_chunk<const BYTES: usize, const WORDS: usize>(
        self,
        bytes: &[u8; BYTES],
    ) -> Sum {
        const { assert!(BYTES == WORDS * size_of::<u64>()) };
        let (words, _) = bytes.as_chunks::<8>();
        self.add_words(core::array::from_fn::<_, WORDS, _>(|i| {
            u64::from_ne_bytes(words[i])
        }))
    }

    /// Adds the last bytes, fewer than 8.
    #[inline(always)]
    fn add_tail(self, mut tail: &[u8]) -> Sum {
        let mut sum = self;
        if let Some((word, rest)) = tail.split_first_chunk::<4>() {
            sum = sum.add_word(u64::from(u32::from_ne_bytes(*word)));
            tail = rest;
        }
        if let Some((word, rest)) = tail.split_first_chunk::<2>() {
            sum = sum.add_word(u64::from(u16::from_ne_bytes(*word)));
            tail = rest;
        }
        if let [last] = tail {
            sum = sum.add_word(u64::from(u16::from_ne_bytes([*last, 0])));
        }
        sum
    }

    /// Of an IPv4 header without options.
    #[inline]
    #[must_use]
    pub fn header20(header: &[u8; 20]) -> Sum {
        let (words, rest) = header.as_chunks::<8>();
        let last = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]);
        Sum(u64::from(last)).add_words([words[0], words[1]].map(u64::from_ne_bytes))
    }

    /// The pseudo-header of UDP, TCP over IPv4 (RFC 768, RFC 9293 §3.1). `len` is that of the
    /// transport header and payload, in bytes.
    #[inline]
    #[must_use]
    pub const fn pseudo_v4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, len: u16) -> Sum {
        let source = u32::from_ne_bytes(source.octets()) as u64;
        let destination = u32::from_ne_bytes(destination.octets()) as u64;
        // Three values of at most 33 bits: no carry to take care of yet.
        let fields = ((protocol as u16).to_be() as u64) + (len.to_be() as u64);
        Sum(source + destination + fields)
    }

    /// The pseudo-header of UDP, TCP and ICMPv6 over IPv6 (RFC 8200 §8.1).
    #[inline]
    #[must_use]
    pub fn pseudo_v6(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, len: u16) -> Sum {
        let (source, destination) = (source.octets(), destination.octets());
        let [(source, _), (destination, _)] = [source.as_chunks(), destination.as_chunks()];
        let fields = u64::from(u16::from(protocol).to_be()) + u64::from(len.to_be());
        Sum(fields).add_words([
            u64::from_ne_bytes(source[0]),
            u64::from_ne_bytes(source[1]),
            u64::from_ne_bytes(destination[0]),
            u64::from_ne_bytes(destination[1]),
        ])
    }

    /// The 16-bit sum, in the machine's byte order.
    #[inline]
    #[must_use]
    pub const fn fold(self) -> u16 {
        // Adding the rotated value puts low + high into the upper half, with the carry of the
        // lower half added in: the end-around carry for free.
        let sum = (self.0.wrapping_add(self.0.rotate_left(32)) >> 32) as u32;
        (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16
    }

    /// Whether a message summed with its checksum in place is intact.
    #[inline]
    #[must_use]
    pub const fn is_valid(self) -> bool {
        // 2^16 is 1 modulo 0xffff, so a sum folds to all ones if it is a multiple of 0xffff other
        // than 0. Those are the numbers that give 1 to 2^64 / 0xffff when they are multiplied by the
        // inverse of 0xffff; and since (2^16 - 1) (2^48 + 2^32 + 2^16 + 1) is 2^64 - 1, that inverse
        // is the negative of the same quotient.
        const QUOTIENT_MAX: u64 = 0x0001_0001_0001_0001;
        let quotient = self.0.wrapping_mul(QUOTIENT_MAX.wrapping_neg());
        quotient.wrapping_sub(1) < QUOTIENT_MAX
    }

    /// The bytes of the checksum field for a message summed with zero in that field.
    #[inline]
    #[must_use]
    pub const fn checksum(self) -> [u8; 2] {
        (!self.fold()).to_ne_bytes()
    }

    /// The same for UDP, where zero means "no checksum" and is sent as all ones (RFC 768).
    #[inline]
    #[must_use]
    pub const fn checksum_udp(self) -> [u8; 2] {
        match !self.fold() {
            0 => [0xff, 0xff],
            sum => sum.to_ne_bytes(),
        }
    }

    /// The bytes a sender leaves in the checksum field when it expects its NIC to finish the
    /// checksum: the folded pseudo-header sum, not complemented (Linux `CHECKSUM_PARTIAL`,
    /// `Documentation/networking/checksum-offloads.rst`).
    #[inline]
    #[must_use]
    pub const fn incomplete(self) -> [u8; 2] {
        self.fold().to_ne_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    /// RFC 1071 §4.1, word by word.
    fn oracle(bytes: &[u8]) -> u16 {
        let mut sum: u32 = 0;
        for pair in bytes.chunks(2) {
            let word = u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]);
            sum += u32::from(word);
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::try_from(sum).unwrap()
    }

    #[test]
    fn the_example_of_rfc_1071() {
        let sum = Sum::ZERO.add_bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.fold().to_ne_bytes(), [0xdd, 0xf2]);
    }

    #[test]
    fn nothing_and_the_greatest_sum() {
        assert!(!Sum(0).is_valid());
        assert!(Sum(0xffff).is_valid());
        assert!(Sum(u64::MAX).is_valid());
        assert!(!Sum(u64::MAX - 1).is_valid());
    }

    #[test]
    fn carries_are_not_lost() {
        let ones = [0xffu8; 1501];
        for len in 0..ones.len() {
            let sum = Sum::ZERO.add_bytes(&ones[..len]);
            assert_eq!(
                sum.fold(),
                oracle(&ones[..len]).to_be(),
                "{len} bytes of ones"
            );
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_word_by_word_sum(bytes: Vec<u8>, split in 0usize..64) {
            let split = (split * 2).min(bytes.len() & !1);
            let sum = Sum::ZERO.add_bytes(&bytes[..split]).add_bytes(&bytes[split..]);
            prop_assert_eq!(sum.fold(), oracle(&bytes).to_be());
        }

        #[test]
        fn a_made_checksum_verifies(mut bytes in proptest::collection::vec(any::<u8>(), 2..200)) {
            bytes[0] = 0;
            bytes[1] = 0;
            let sum = Sum::ZERO.add_bytes(&bytes).checksum();
            bytes[..2].copy_from_slice(&sum);
            prop_assert!(Sum::ZERO.add_bytes(&bytes).is_valid());
        }

        #[test]
        fn valid_is_folded_to_all_ones(sum: u64, multiple in 0u64..=0x0001_0001_0001_0001) {
            for sum in [sum, sum / 0xffff * 0xffff, multiple * 0xffff] {
                prop_assert_eq!(Sum(sum).is_valid(), Sum(sum).fold() == 0xffff);
            }
        }

        #[test]
        fn a_header_is_its_bytes(header: [u8; 20]) {
            prop_assert_eq!(Sum::header20(&header).fold(), Sum::ZERO.add_bytes(&header).fold());
        }

        #[test]
        fn pseudo_headers_are_their_bytes(a: [u8; 16], b: [u8; 16], protocol: u8, len: u16) {
            let (a4, b4) = ([a[0], a[1], a[2], a[3]], [b[0], b[1], b[2], b[3]]);
            let mut v4 = Vec::new();
            v4.extend_from_slice(&a4);
            v4.extend_from_slice(&b4);
            v4.extend_from_slice(&[0, protocol]);
            v4.extend_from_slice(&len.to_be_bytes());
            prop_assert_eq!(
                Sum::pseudo_v4(a4.into(), b4.into(), protocol, len).fold(),
                oracle(&v4).to_be()
            );
            let mut v6 = Vec::new();
            v6.extend_from_slice(&a);
            v6.extend_from_slice(&b);
            v6.extend_from_slice(&u32::from(len).to_be_bytes());
            v6.extend_from_slice(&[0, 0, 0, protocol]);
            prop_assert_eq!(
                Sum::pseudo_v6(a.into(), b.into(), protocol, len).fold(),
                oracle(&v6).to_be()
            );
        }
    }
}
