//! Whether a segment may be looked at: RFC 9293 §3.10.7.4 with RFC 5961 and RFC 7323 §5.
//!
//! ```text
//!        before the window │ RCV.NXT                        RCV.NXT+RCV.WND │ beyond it
//!   ───────────────────────┼────────────────────────────────────────────────┼──────────
//!     data: acknowledged   │                data: taken                     │ data: acknowledged
//!     RST:  dropped        │ RST at RCV.NXT: reset; elsewhere: challenged   │ RST:  dropped
//! ```

use crate::tcp::seq::SeqNum;

/// What we are ready to receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiveSpace {
    /// RCV.NXT.
    pub next: SeqNum,
    /// RCV.WND in bytes, as the peer was last told.
    pub window: u32,
}

impl ReceiveSpace {
    /// RFC 9293 §3.10.7.4, first: whether any part of a segment of `len` sequence numbers (SEG.LEN,
    /// SYN and FIN included) is in the window. Where the window is closed, a segment without length
    /// is acceptable at RCV.NXT alone.
    #[inline]
    #[must_use]
    pub const fn accepts(&self, seq: SeqNum, len: u32) -> bool {
        let into = seq.offset_from(self.next);
        if len == 0 {
            return into < self.window || into == 0;
        }
        if self.window == 0 {
            return false;
        }
        // First or last byte inside, or the window within the segment.
        let last_into = (seq.get().wrapping_add(len - 1)).wrapping_sub(self.next.get());
        into < self.window || last_into < self.window || {
            let before = self.next.offset_from(seq);
            before < len
        }
    }

    /// The part of a segment's text that is new and fits.
    #[inline]
    #[must_use]
    pub const fn trim(&self, seq: SeqNum, len: u32) -> Trimmed {
        let skip = if seq.before(self.next) {
            self.next.offset_from(seq)
        } else {
            0
        };
        if skip >= len {
            return Trimmed {
                skip: len,
                len: 0,
                cut: 0,
            };
        }
        let offset = if skip > 0 {
            0
        } else {
            seq.offset_from(self.next)
        };
        let room = self.window.saturating_sub(offset);
        let rest = len - skip;
        let kept = if rest < room { rest } else { room };
        Trimmed {
            skip,
            len: kept,
            cut: rest - kept,
        }
    }
}

/// What [`ReceiveSpace::trim`] left of a segment's text, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trimmed {
    /// Bytes at the front that had been received before.
    pub skip: u32,
    /// Bytes to be taken.
    pub len: u32,
    /// Bytes at the end beyond the window. A FIN behind them is beyond it, too.
    pub cut: u32,
}

/// What becomes of a RST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnReset {
    /// It is the peer's: the connection ends.
    Reset,
    /// It may be forged: a challenge ACK lets the peer prove it.
    Challenge,
    /// Nothing.
    Drop,
}

/// RFC 5961 §3.2.
#[must_use]
pub fn on_reset(space: ReceiveSpace, seq: SeqNum) -> OnReset {
    if seq == space.next {
        OnReset::Reset
    } else if seq.offset_from(space.next) < space.window {
        OnReset::Challenge
    } else {
        OnReset::Drop
    }
}

/// What an acknowledgement number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnAck {
    /// Within what may be: it acknowledges something, or nothing new.
    Acceptable,
    /// Of something never sent: answered with an ACK and dropped (RFC 9293 §3.10.7.4, fifth).
    Unsent,
    /// Older than anything the peer can still have under way: answered with a challenge ACK and
    /// dropped (RFC 5961 §5.2).
    TooOld,
}

/// RFC 5961 §5.2: SND.UNA − MAX.SND.WND ≤ SEG.ACK ≤ SND.NXT.
#[inline]
#[must_use]
pub const fn on_ack(una: SeqNum, next: SeqNum, window_max: u32, ack: SeqNum) -> OnAck {
    if ack.after(next) {
        OnAck::Unsent
    } else if ack.before(una) && una.offset_from(ack) > window_max {
        OnAck::TooOld
    } else {
        OnAck::Acceptable
    }
}

/// RFC 7323 §5.3 R1: whether a timestamp says that a segment is an old duplicate. `idle_ms` is how long
/// ago `recent` was set: after [`PAWS_IDLE_MS`] it says nothing any more (§5.5).
#[inline]
#[must_use]
pub const fn is_old_duplicate(value: u32, recent: u32, idle_ms: u64) -> bool {
    value.wrapping_sub(recent).cast_signed() < 0 && idle_ms < PAWS_IDLE_MS
}

/// RFC 7323 §5.5: 24 days, in which a timestamp clock of 1 ms goes half around.
pub const PAWS_IDLE_MS: u64 = 24 * 24 * 3600 * 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn seq(number: u32) -> SeqNum {
        SeqNum::new(number)
    }

    proptest! {
        /// The table of RFC 9293 §3.10.7.4, byte by byte.
        #[test]
        fn acceptable_is_what_the_table_says(next: u32, window in 0_u32..300, into in -400_i32..400, len in 0_u32..200) {
            let space = ReceiveSpace { next: seq(next), window };
            let start = next.wrapping_add_signed(into);
            let inside = |number: u32| number.wrapping_sub(next) < window;
            let expected = match (len, window) {
                (0, 0) => into == 0,
                (0, _) => inside(start),
                (_, 0) => false,
                // The table looks at the first and the last number; one that holds the whole window
                // has new data as well.
                _ => (0..len).any(|step| inside(start.wrapping_add(step))),
            };
            prop_assert_eq!(space.accepts(seq(start), len), expected);
        }

        /// What is left is exactly what lies in the window.
        #[test]
        fn trimming_keeps_what_lies_in_the_window(next: u32, window in 0_u32..300, into in -400_i32..400, len in 0_u32..200) {
            let space = ReceiveSpace { next: seq(next), window };
            let start = next.wrapping_add_signed(into);
            let trimmed = space.trim(seq(start), len);
            prop_assert_eq!(trimmed.skip + trimmed.len + trimmed.cut, len);
            let kept: Vec<u32> = (0..len)
                .filter(|step| start.wrapping_add(*step).wrapping_sub(next) < window)
                .collect();
            prop_assert_eq!(trimmed.len as usize, kept.len());
            if let Some(first) = kept.first() {
                prop_assert_eq!(trimmed.skip, *first);
            }
        }

        /// RFC 5961 §3.2: a blind attacker has one chance in 2³².
        #[test]
        fn only_the_exact_reset_ends_a_connection(next: u32, window in 1_u32..1 << 30, at: u32) {
            let space = ReceiveSpace { next: seq(next), window };
            let outcome = on_reset(space, seq(at));
            let expected = match at.wrapping_sub(next) {
                0 => OnReset::Reset,
                into if into < window => OnReset::Challenge,
                _ => OnReset::Drop,
            };
            prop_assert_eq!(outcome, expected);
        }
    }

    #[test]
    fn a_closed_window_takes_a_reset_at_its_edge() {
        // RFC 9293 §3.10.7.4: RSTs are processed when the window is closed (MUST-66).
        let space = ReceiveSpace {
            next: seq(100),
            window: 0,
        };
        assert_eq!(on_reset(space, seq(100)), OnReset::Reset);
        assert_eq!(on_reset(space, seq(101)), OnReset::Drop);
    }

    #[test]
    fn acknowledgements_have_a_range() {
        let (una, next) = (seq(u32::MAX - 10), seq(50));
        let check = |number: u32| on_ack(una, next, 1000, seq(number));
        assert_eq!(check(50), OnAck::Acceptable);
        assert_eq!(check(51), OnAck::Unsent);
        assert_eq!(check(u32::MAX - 10), OnAck::Acceptable);
        assert_eq!(check(u32::MAX - 1010), OnAck::Acceptable);
        assert_eq!(check(u32::MAX - 1011), OnAck::TooOld);
    }

    #[test]
    fn timestamps_tell_old_duplicates_until_they_wrap() {
        assert!(is_old_duplicate(9, 10, 0));
        assert!(!is_old_duplicate(10, 10, 0));
        assert!(!is_old_duplicate(5, u32::MAX - 5, 0), "wrapped");
        assert!(!is_old_duplicate(9, 10, PAWS_IDLE_MS));
    }
}
