//! Random numbers that are the same everywhere for the same seed: xoshiro256** (Blackman and Vigna,
//! 2018), seeded by SplitMix64 as its authors advise. Not for secrets.

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub struct Random([u64; 4]);

/// SplitMix64: turns a counter into numbers that look random.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Random {
    /// The stream of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut state = seed;
        Self(core::array::from_fn(|_| split_mix(&mut state)))
    }

    /// One of many independent streams of a seed: what is drawn from one does not change another.
    #[must_use]
    pub fn stream(seed: u64, which: u64) -> Self {
        let mut state = which;
        Self::new(seed ^ split_mix(&mut state))
    }

    /// Any number.
    pub fn next_u64(&mut self) -> u64 {
        let Self([a, b, c, d]) = self;
        let result = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// A number below `limit`; 0 if there is none.
    pub fn below(&mut self, limit: u64) -> u64 {
        // The high half of a product: a bias of limit / 2⁶⁴, which no simulation sees.
        let product = u128::from(self.next_u64()) * u128::from(limit);
        u64::try_from(product >> 64).expect("invariant: the high half of 128 bits")
    }

    /// A number in `first..=last`; `first` if they are the wrong way round.
    pub fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.below(last.saturating_sub(first).saturating_add(1))
    }

    /// An index below `len`; 0 if there is none.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("invariant: below a usize")
    }

    /// Whether something of this probability (0 to 1) happens. Draws a number in any case, so that
    /// a probability may be changed and later numbers stay the same.
    pub fn chance(&mut self, probability: f64) -> bool {
        // 53 bits: every number is a float.
        const UNIT: f64 = 1.0 / (1_u64 << 53) as f64;
        ((self.next_u64() >> 11) as f64) * UNIT < probability
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_sequence() {
        // From the authors' C code with the state 1, 2, 3, 4.
        let mut random = Random([1, 2, 3, 4]);
        let first: [u64; 4] = core::array::from_fn(|_| random.next_u64());
        assert_eq!(first, [11520, 0, 1_509_978_240, 1_215_971_899_390_074_240]);
    }

    #[test]
    fn shares_are_kept_and_limits_hold() {
        let mut random = Random::new(7);
        let hits = (0..100_000).filter(|_| random.chance(0.1)).count();
        assert!((9_500..10_500).contains(&hits), "{hits} of 100000 at 0.1");
        assert!(!random.chance(0.0) && random.chance(1.0));
        let mut seen = [false; 6];
        for _ in 0..1000 {
            seen[random.index(6)] = true;
            assert!((3..=9).contains(&random.between(3, 9)));
        }
        assert_eq!(seen, [true; 6]);
        assert_eq!((random.below(0), random.below(1)), (0, 0));
    }

    #[test]
    fn streams_differ() {
        let first = |seed, which| Random::stream(seed, which).next_u64();
        assert_ne!(first(1, 0), first(1, 1));
        assert_ne!(first(1, 0), first(2, 0));
        assert_eq!(first(1, 1), first(1, 1));
    }
}
