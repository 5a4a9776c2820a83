//! HyStart++ (RFC 9406): leaving slow start before it loses what it overshoots by.
//!
//! A queue that fills makes the round trip longer before it overflows. When the least round trip
//! of one round is clearly longer than that of the round before, growth slows down (conservative
//! slow start) for at most five rounds. If the round trip becomes short again meanwhile it was
//! jitter, and slow start goes on; if not, this is where congestion avoidance begins.
//!
//! ```text
//!               round trip grew                  five rounds
//!  slow start ────────────────► conservative ──────────────────► congestion avoidance
//!       ▲                       slow start
//!       └───────────────────────────┘
//!              it was jitter
//! ```

/// RFC 9406 §4.3: a round trip that is longer by less than this says nothing, in microseconds.
const MIN_RTT_THRESH_US: u32 = 4_000;
/// RFC 9406 §4.3: a round trip that is longer by this always says something, in microseconds.
const MAX_RTT_THRESH_US: u32 = 16_000;
/// RFC 9406 §4.3: between these, longer by an eighth.
const MIN_RTT_DIVISOR: u16 = 8;
/// RFC 9406 §4.3: a round with fewer samples says nothing.
const N_RTT_SAMPLE: u8 = 8;
/// RFC 9406 §4.3: how much slower conservative slow start is.
const CSS_GROWTH_DIVISOR: u32 = 4;
/// RFC 9406 §4.3: how many rounds conservative slow start lasts.
const CSS_ROUNDS: u8 = 5;
/// RFC 9406 §4.3: how many segments an ACK counts for at most, where sending is not paced.
pub const LIMIT_SEGMENTS: u32 = 8;

/// Round trips are kept in units of 64 µs, so that three of them take six bytes; the thresholds
/// are far above that. From 4.2 s on they all look the same, and slow start ends with a loss.
const UNIT_SHIFT: u32 = 6;
const INFINITY: u16 = u16::MAX;

/// What HyStart++ knows of the current slow start. 8 bytes.
#[derive(Clone, Debug)]
pub struct HyStart {
    /// `lastRoundMinRTT`.
    last_round_min: u16,
    /// `currentRoundMinRTT`.
    current_round_min: u16,
    /// `cssBaselineMinRtt`.
    css_baseline_min: u16,
    /// `rttSampleCount`. Saturates.
    samples: u8,
    /// Rounds of conservative slow start, the current one included; 0 in slow start.
    css_rounds: u8,
}

/// How the window grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Growth {
    /// As in slow start.
    SlowStart,
    /// As in conservative slow start.
    Conservative,
    /// No longer exponentially: congestion avoidance begins.
    Ends,
}

impl Default for HyStart {
    fn default() -> Self {
        Self::new()
    }
}

impl HyStart {
    /// At the start of the first round.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            last_round_min: INFINITY,
            current_round_min: INFINITY,
            css_baseline_min: INFINITY,
            samples: 0,
            css_rounds: 0,
        }
    }

    /// An ACK came in slow start. `rtt_us`: the round trip measured with it, in microseconds;
    /// `round_ended`: it covers what was next to be sent when the round began.
    #[inline]
    pub fn on_ack(&mut self, rtt_us: Option<u32>, round_ended: bool) -> Growth {
        if let Some(rtt_us) = rtt_us {
            self.on_sample(rtt_us);
        }
        if round_ended {
            return self.end_round();
        }
        self.growth()
    }

    /// As of now.
    const fn growth(&self) -> Growth {
        if self.css_rounds == 0 {
            Growth::SlowStart
        } else {
            Growth::Conservative
        }
    }

    fn on_sample(&mut self, rtt_us: u32) {
        let rtt = units(rtt_us);
        self.current_round_min = self.current_round_min.min(rtt);
        self.samples = self.samples.saturating_add(1);
        if self.samples < N_RTT_SAMPLE {
            return;
        }
        if self.css_rounds > 0 {
            // RFC 9406 §4.2: the round trip is shorter again; what made it longer was no queue.
            if self.current_round_min < self.css_baseline_min {
                self.css_baseline_min = INFINITY;
                self.css_rounds = 0;
            }
        } else if self.last_round_min != INFINITY {
            let threshold = (self.last_round_min / MIN_RTT_DIVISOR)
                .clamp(units(MIN_RTT_THRESH_US), units(MAX_RTT_THRESH_US));
            if self.current_round_min >= self.last_round_min.saturating_add(threshold) {
                self.css_baseline_min = self.current_round_min;
                // §4.2: the part of a round in which this begins counts as a round.
                self.css_rounds = 1;
            }
        }
    }

    fn end_round(&mut self) -> Growth {
        self.last_round_min = self.current_round_min;
        self.current_round_min = INFINITY;
        self.samples = 0;
        match self.css_rounds {
            0 => Growth::SlowStart,
            CSS_ROUNDS.. => Growth::Ends,
            _ => {
                self.css_rounds += 1;
                Growth::Conservative
            }
        }
    }
}

impl Growth {
    /// How many bytes the window grows by, for an ACK of `bytes` in segments of `mss`.
    #[inline]
    #[must_use]
    pub fn increment(self, bytes: u32, mss: u32) -> u32 {
        let counted = bytes.min(LIMIT_SEGMENTS * mss);
        match self {
            Self::SlowStart => counted,
            Self::Conservative => counted / CSS_GROWTH_DIVISOR,
            Self::Ends => 0,
        }
    }
}

/// Microseconds in units; what is too long for them is the longest, which is not infinity.
fn units(us: u32) -> u16 {
    u16::try_from(us >> UNIT_SHIFT).map_or(INFINITY - 1, |units| units.min(INFINITY - 1))
}

const _: () = assert!(size_of::<HyStart>() == 8);

#[cfg(test)]
mod tests {
    use super::*;

    /// A round of `acks` ACKs, each with this round trip.
    fn round(hystart: &mut HyStart, acks: u32, rtt_us: u32) -> Growth {
        let mut growth = hystart.growth();
        for ack in 1..=acks {
            growth = hystart.on_ack(Some(rtt_us), ack == acks);
        }
        growth
    }

    /// RFC 9406 §4.2: four rounds after the one in which the round trip grew, slow start is over.
    #[test]
    fn a_growing_queue_ends_slow_start() {
        let mut hystart = HyStart::new();
        for _ in 0..5 {
            assert_eq!(round(&mut hystart, 10, 50_000), Growth::SlowStart);
        }
        // 50 ms / 8 = 6.25 ms.
        for _ in 0..4 {
            assert_eq!(round(&mut hystart, 10, 57_000), Growth::Conservative);
        }
        assert_eq!(round(&mut hystart, 10, 58_000), Growth::Ends);
    }

    /// The threshold is an eighth, but between 4 and 16 ms.
    #[test]
    fn the_threshold_is_an_eighth_within_limits() {
        for (rtt_us, within_us, beyond_us) in [
            (100, 4_000, 4_200),
            (10_000, 13_900, 14_100),
            (64_000, 71_800, 72_100),
            (100_000, 112_300, 112_700),
            (400_000, 415_800, 416_100),
        ] {
            let mut hystart = HyStart::new();
            round(&mut hystart, 8, rtt_us);
            assert_eq!(round(&mut hystart, 8, within_us), Growth::SlowStart);
            let mut hystart = HyStart::new();
            round(&mut hystart, 8, rtt_us);
            assert_eq!(round(&mut hystart, 8, beyond_us), Growth::Conservative);
        }
    }

    /// RFC 9406 §4.2: jitter does not end slow start: when the round trip is short again it goes
    /// on, and can be slowed down again.
    #[test]
    fn jitter_resumes_slow_start() {
        let mut hystart = HyStart::new();
        round(&mut hystart, 10, 50_000);
        assert_eq!(round(&mut hystart, 10, 60_000), Growth::Conservative);
        assert_eq!(round(&mut hystart, 10, 60_000), Growth::Conservative);
        assert_eq!(round(&mut hystart, 10, 52_000), Growth::SlowStart);
        for _ in 0..20 {
            assert_eq!(round(&mut hystart, 10, 52_000), Growth::SlowStart);
        }
        for _ in 0..4 {
            assert_eq!(round(&mut hystart, 10, 62_000), Growth::Conservative);
        }
        assert_eq!(round(&mut hystart, 10, 62_000), Growth::Ends);
    }

    /// One short sample among long ones: the minimum counts.
    #[test]
    fn the_least_round_trip_of_a_round_counts() {
        let mut hystart = HyStart::new();
        round(&mut hystart, 10, 50_000);
        hystart.on_ack(Some(50_500), false);
        assert_eq!(round(&mut hystart, 20, 90_000), Growth::SlowStart);
    }

    /// RFC 9406 §4.2: fewer than eight samples say nothing; ACKs without a sample are none.
    #[test]
    fn few_samples_say_nothing() {
        let mut hystart = HyStart::new();
        round(&mut hystart, 10, 50_000);
        assert_eq!(round(&mut hystart, 7, 90_000), Growth::SlowStart);
        let mut hystart = HyStart::new();
        round(&mut hystart, 10, 50_000);
        for _ in 0..20 {
            assert_eq!(hystart.on_ack(None, false), Growth::SlowStart);
        }
    }

    /// RFC 9406 §4.2: cwnd grows by at most eight segments an ACK, and by a quarter of that.
    #[test]
    fn growth_is_limited() {
        assert_eq!(Growth::SlowStart.increment(3000, 1000), 3000);
        assert_eq!(Growth::SlowStart.increment(30_000, 1000), 8000);
        assert_eq!(Growth::Conservative.increment(2000, 1000), 500);
        assert_eq!(Growth::Conservative.increment(30_000, 1000), 2000);
        assert_eq!(Growth::Ends.increment(2000, 1000), 0);
    }

    /// Round trips beyond what the units hold are alike, and end nothing.
    #[test]
    fn very_long_round_trips_are_alike() {
        let mut hystart = HyStart::new();
        for rtt_us in [5_000_000, 6_000_000, 60_000_000, u32::MAX] {
            assert_eq!(round(&mut hystart, 10, rtt_us), Growth::SlowStart);
        }
    }
}
