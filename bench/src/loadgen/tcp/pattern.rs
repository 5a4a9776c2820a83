//! The bytes that are sent, and told again by where they are in the stream.
//!
//! ```text
//!   connection's stream   0 ──────────────────────────────────────►
//!   pattern               start … period-1, 0 … period-1, 0 …
//! ```
//!
//! A connection begins at a place of its own, so that bytes of another, or of the one before it on the same
//! port, do not pass for its own.

use dataplane::handler::tcp::PATTERN;

/// Bytes until a random pattern begins again: a prime, so that no regular length of messages brings
/// one back to where another began.
const PERIOD: usize = 65_521;

/// Bytes that lie together at every place: one system call sends them all. More would only take cache.
pub const RUN: usize = 64 << 10;

/// Bytes that repeat with a period.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// A period, and then at least [`RUN`] bytes more.
    bytes: Vec<u8>,
    period: usize,
}

impl Pattern {
    /// Random bytes, the same for the same seed.
    #[must_use]
    pub fn random(seed: u64) -> Self {
        let mut bytes = vec![0; PERIOD];
        fastrand::Rng::with_seed(seed).fill(&mut bytes);
        Self::repeat(bytes)
    }

    /// What a character generator sends (RFC 864): the service's `source` does.
    #[must_use]
    pub fn chargen() -> Self {
        Self::repeat(PATTERN.to_vec())
    }

    fn repeat(mut bytes: Vec<u8>) -> Self {
        let period = bytes.len();
        bytes.extend_from_within(..RUN.min(period));
        while bytes.len() < period + RUN {
            bytes.extend_from_within(period..(2 * period).min(bytes.len()));
        }
        Self { bytes, period }
    }

    /// What lies at `position` of the stream and behind it: at least [`RUN`] bytes.
    #[must_use]
    pub fn at(&self, position: u64) -> &[u8] {
        &self.bytes[self.place(position)..]
    }

    /// Whether `bytes` are those at `position`.
    #[must_use]
    pub fn matches(&self, mut position: u64, bytes: &[u8]) -> bool {
        bytes.chunks(RUN).all(|chunk| {
            let same = self.at(position).starts_with(chunk);
            position = position.wrapping_add(chunk.len() as u64);
            same
        })
    }

    #[allow(clippy::cast_possible_truncation)] // Below the period.
    fn place(&self, position: u64) -> usize {
        (position % self.period as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_generator_of_characters_is_known_again() {
        let pattern = Pattern::chargen();
        let mut stream = PATTERN.repeat(30);
        assert!(pattern.matches(0, &stream));
        stream[150_000] ^= 1;
        assert!(!pattern.matches(0, &stream));
    }

    proptest! {
        #[test]
        fn what_was_sent_in_pieces_is_known_in_others(
            seed: u64, start in 0u64..1 << 40, pieces in prop::collection::vec(1usize..RUN, 1..6),
            change: prop::sample::Index, shift in 1u64..PERIOD as u64,
        ) {
            let pattern = Pattern::random(seed);
            let mut stream = Vec::new();
            for piece in pieces {
                let from = pattern.at(start + stream.len() as u64);
                prop_assert!(from.len() >= RUN);
                stream.extend_from_slice(&from[..piece]);
            }
            prop_assert!(pattern.matches(start, &stream));
            // Two places of random bytes share a few by chance, and not sixteen.
            if stream.len() >= 16 {
                prop_assert!(!pattern.matches(start + shift, &stream));
            }
            let at = change.index(stream.len());
            stream[at] ^= 0x40;
            prop_assert!(!pattern.matches(start, &stream));
        }
    }
}
