//! Sequence numbers (RFC 9293 §3.4): 32 bits that wrap around.
//!
//! Of two sequence numbers one is before the other if it takes fewer steps to get from it to the
//! other than back. There is no order over all of them, hence no [`Ord`]; a comparison means
//! something only for numbers less than 2³¹ apart, and a window is at most 2³⁰ bytes
//! (RFC 7323 §2.3).

use core::fmt;
use core::ops::{Add, AddAssign, Sub};

/// A sequence number.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct SeqNum(u32);

impl SeqNum {
    /// From its number in the header.
    #[inline]
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Its number in the header.
    #[inline]
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// How many steps it is from `earlier` to here, 0 to 2³²−1.
    #[inline]
    #[must_use]
    pub const fn offset_from(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }

    /// `self < other`.
    #[inline]
    #[must_use]
    pub const fn before(self, other: Self) -> bool {
        self.0.wrapping_sub(other.0).cast_signed() < 0
    }

    /// `self <= other`.
    #[inline]
    #[must_use]
    pub const fn at_or_before(self, other: Self) -> bool {
        self.0.wrapping_sub(other.0).cast_signed() <= 0
    }

    /// `self > other`.
    #[inline]
    #[must_use]
    pub const fn after(self, other: Self) -> bool {
        other.before(self)
    }

    /// `self >= other`.
    #[inline]
    #[must_use]
    pub const fn at_or_after(self, other: Self) -> bool {
        other.at_or_before(self)
    }

    /// The later of the two.
    #[inline]
    #[must_use]
    pub const fn later(self, other: Self) -> Self {
        if self.before(other) { other } else { self }
    }

    /// The earlier of the two.
    #[inline]
    #[must_use]
    pub const fn earlier(self, other: Self) -> Self {
        if self.before(other) { self } else { other }
    }
}

impl Add<u32> for SeqNum {
    type Output = Self;

    #[inline]
    fn add(self, steps: u32) -> Self {
        Self(self.0.wrapping_add(steps))
    }
}

impl AddAssign<u32> for SeqNum {
    #[inline]
    fn add_assign(&mut self, steps: u32) {
        *self = *self + steps;
    }
}

impl Sub<u32> for SeqNum {
    type Output = Self;

    #[inline]
    fn sub(self, steps: u32) -> Self {
        Self(self.0.wrapping_sub(steps))
    }
}

impl fmt::Debug for SeqNum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Wherever the numbers wrap, comparing is comparing the distance.
        #[test]
        fn comparisons_survive_the_wrap(base: u32, steps in 1_u32..1 << 31) {
            let earlier = SeqNum::new(base);
            let later = earlier + steps;
            prop_assert!(earlier.before(later) && earlier.at_or_before(later));
            prop_assert!(later.after(earlier) && later.at_or_after(earlier));
            prop_assert!(!later.before(earlier) && !earlier.after(later));
            prop_assert!(earlier.at_or_before(earlier) && !earlier.before(earlier));
            prop_assert_eq!(later.offset_from(earlier), steps);
            prop_assert_eq!(later - steps, earlier);
            prop_assert_eq!(earlier.later(later), later);
            prop_assert_eq!(earlier.earlier(later), earlier);
        }
    }
}
