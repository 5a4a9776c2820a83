//! What happens to a frame: drawn from the seed, the direction and the frame's number, and from
//! nothing else.
//!
//! Every decision about a frame has a random number of its own. So a run repeats for the same
//! sequence of frames, and changing one probability leaves all other decisions as they were.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

/// A probability, 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Probability(f64);

impl Probability {
    /// `None` outside of 0 to 1.
    #[must_use]
    pub fn new(value: f64) -> Option<Self> {
        (0.0..=1.0).contains(&value).then_some(Self(value))
    }

    /// The probability, 0 to 1.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }

    /// Whether something of this probability happens, given a uniformly distributed `draw`.
    fn happens(self, draw: u64) -> bool {
        /// Floats between 0 and 1 that are evenly spaced have 53 bits.
        const UNIT: f64 = 1.0 / (1_u64 << 53) as f64;
        ((draw >> 11) as f64) * UNIT < self.0
    }
}

impl FromStr for Probability {
    type Err = String;

    /// Reads `0.01` or `1%`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (number, scale) = match text.strip_suffix('%') {
            Some(number) => (number, 0.01),
            None => (text, 1.0),
        };
        let value = number.trim_end().parse::<f64>().ok();
        value
            .and_then(|value| Self::new(value * scale))
            .ok_or_else(|| {
                format!("`{text}` is not a probability: 0 to 1, or with a % sign 0 to 100")
            })
    }
}

impl fmt::Display for Probability {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} %", self.0 * 100.0)
    }
}

/// Losses in bursts, beside those that come one by one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Burst {
    /// Frames a burst takes, the first one included.
    pub frames: u32,
    /// Probability that a burst begins with a frame that no burst has taken.
    pub begins: Probability,
}

/// Frames that are held back until later ones have passed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Reorder {
    /// Share of the frames.
    pub share: Probability,
    /// How much longer than the others they take.
    #[serde(serialize_with = "as_microseconds", rename = "by_us")]
    pub by: Duration,
}

/// What one direction does to its frames. The default is a perfect wire.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Impairment {
    /// Probability that a frame is lost, each one by itself.
    pub loss: Probability,
    /// Losses in bursts.
    pub burst: Option<Burst>,
    /// Frames that are overtaken.
    pub reorder: Option<Reorder>,
    /// Probability that a frame arrives twice.
    pub duplicate: Probability,
    /// Probability that one bit of an IP packet is flipped. One, because an Internet checksum is sure
    /// to notice that. What is not IP has no checksum beside Ethernet's and is spared: a wrong ARP
    /// packet would poison a cache, which no wire does.
    pub corrupt: Probability,
    /// How long every frame takes.
    #[serde(serialize_with = "as_microseconds", rename = "delay_us")]
    pub delay: Duration,
    /// Up to this much more, evenly distributed. Frames keep their order.
    #[serde(serialize_with = "as_microseconds", rename = "jitter_us")]
    pub jitter: Duration,
    /// Bits a second, counting frames from the Ethernet header to the end of the payload.
    pub rate_bits_per_s: Option<u64>,
    /// Frames that wait for the rate, at most; the one being sent counts. Later ones are dropped.
    pub queue_frames: usize,
    /// Numbers of frames to drop, the first of the direction being 1.
    #[serde(serialize_with = "as_text")]
    pub drop_index: Vec<RangeInclusive<u64>>,
}

/// Frames that wait for the rate unless the user says otherwise: the `txqueuelen` of a Linux
/// interface, and the limit of tc-netem.
pub const QUEUE_FRAMES_DEFAULT: usize = 1000;

impl Default for Impairment {
    fn default() -> Self {
        Self {
            loss: Probability::default(),
            burst: None,
            reorder: None,
            duplicate: Probability::default(),
            corrupt: Probability::default(),
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            rate_bits_per_s: None,
            queue_frames: QUEUE_FRAMES_DEFAULT,
            drop_index: Vec::new(),
        }
    }
}

fn as_microseconds<S: serde::Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(time.as_secs_f64() * 1e6)
}

fn as_text<S: serde::Serializer>(list: &[RangeInclusive<u64>], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(list.iter().map(|range| match (range.start(), range.end()) {
        (start, end) if start == end => start.to_string(),
        (start, end) => format!("{start}-{end}"),
    }))
}

/// Why a frame does not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Its number was on the list.
    Listed,
    /// A burst took it.
    Burst,
    /// By itself.
    Single,
}

/// What becomes of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fate {
    /// Its number in its direction; the first frame is 1.
    pub index: u64,
    /// Why it does not arrive, if so. What else is decided below then has no effect.
    pub lost: Option<Loss>,
    /// It arrives twice.
    pub is_duplicated: bool,
    /// One bit is flipped: this number, modulo the bits that may be, says which.
    pub corrupt: Option<u64>,
    /// How much longer it is held back than the others, if it is.
    pub held_back: Option<Duration>,
    /// Its share of the jitter.
    pub jitter: Duration,
}

/// The two directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// In at the first interface, out at the second.
    AToB,
    /// The other way.
    BToA,
}

impl fmt::Display for Direction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::AToB => "a-to-b",
            Self::BToA => "b-to-a",
        })
    }
}

/// What a random number is for. The values are part of what a seed means: they must not change.
#[derive(Clone, Copy)]
enum Purpose {
    Loss = 0,
    Burst = 1,
    Reorder = 2,
    Duplicate = 3,
    Corrupt = 4,
    CorruptBit = 5,
    Jitter = 6,
}

/// Purposes a frame has room for: a power of two above the last of them.
const PURPOSES: u64 = 8;

/// SplitMix64's output function (Steele, Lea and Flood, 2014): a bijection that turns counters into
/// numbers that look random.
fn scramble(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Decides for one direction, frame after frame.
#[derive(Clone, Debug)]
pub struct Decider {
    impairment: Impairment,
    /// The seed and the direction, scrambled.
    stream: u64,
    /// Number of the last frame; 0 before the first.
    index: u64,
    /// Frames that the burst under way still takes.
    burst_left: u32,
}

impl Decider {
    /// The decisions of a seed in a direction.
    #[must_use]
    pub fn new(impairment: Impairment, seed: u64, direction: Direction) -> Self {
        let direction = match direction {
            Direction::AToB => 0,
            Direction::BToA => 1,
        };
        Self {
            impairment,
            // Twice, so that neighbouring seeds do not share streams: the second seed's first
            // direction must not be the first one's second.
            stream: scramble(scramble(seed) ^ direction),
            index: 0,
            burst_left: 0,
        }
    }

    /// What was asked for.
    #[must_use]
    pub fn impairment(&self) -> &Impairment {
        &self.impairment
    }

    /// What becomes of the next frame.
    pub fn decide(&mut self) -> Fate {
        self.index += 1;
        let Impairment {
            loss,
            burst: _,
            reorder,
            duplicate,
            corrupt,
            delay: _,
            jitter,
            rate_bits_per_s: _,
            queue_frames: _,
            ref drop_index,
        } = self.impairment;
        let is_listed = drop_index.iter().any(|range| range.contains(&self.index));
        // Bursts go on whatever else befalls their frames.
        let is_in_burst = self.is_in_burst();
        let lost = if is_listed {
            Some(Loss::Listed)
        } else if is_in_burst {
            Some(Loss::Burst)
        } else {
            self.happens(loss, Purpose::Loss).then_some(Loss::Single)
        };
        let held_back = reorder
            .filter(|reorder| self.happens(reorder.share, Purpose::Reorder))
            .map(|reorder| reorder.by);
        Fate {
            index: self.index,
            lost,
            is_duplicated: self.happens(duplicate, Purpose::Duplicate),
            corrupt: self
                .happens(corrupt, Purpose::Corrupt)
                .then(|| self.draw(Purpose::CorruptBit)),
            held_back,
            jitter: self.share_of(jitter),
        }
    }

    fn is_in_burst(&mut self) -> bool {
        let Some(burst) = self.impairment.burst else {
            return false;
        };
        if self.burst_left == 0 && self.happens(burst.begins, Purpose::Burst) {
            self.burst_left = burst.frames;
        }
        let is_taken = self.burst_left > 0;
        self.burst_left = self.burst_left.saturating_sub(1);
        is_taken
    }

    /// The random number of the present frame for this purpose.
    fn draw(&self, purpose: Purpose) -> u64 {
        let counter = self
            .index
            .wrapping_mul(PURPOSES)
            .wrapping_add(purpose as u64);
        // The stream goes in twice: added alone, two streams would be the same numbers, shifted.
        scramble(scramble(counter.wrapping_add(self.stream)) ^ self.stream)
    }

    fn happens(&self, probability: Probability, purpose: Purpose) -> bool {
        // Nobody's run gets slower by what it does not ask for.
        probability.0 > 0.0 && probability.happens(self.draw(purpose))
    }

    /// Somewhere between nothing and all of `most`.
    fn share_of(&self, most: Duration) -> Duration {
        if most.is_zero() {
            return most;
        }
        let most_ns = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
        let product = u128::from(self.draw(Purpose::Jitter)) * (u128::from(most_ns) + 1);
        let share_ns = u64::try_from(product >> 64).expect("invariant: at most most_ns");
        Duration::from_nanos(share_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FRAMES: usize = 100_000;

    fn probability(value: f64) -> Probability {
        Probability::new(value).unwrap()
    }

    fn fates(impairment: &Impairment, seed: u64, direction: Direction) -> Vec<Fate> {
        let mut decider = Decider::new(impairment.clone(), seed, direction);
        (0..FRAMES).map(|_| decider.decide()).collect()
    }

    fn everything(share: f64) -> Impairment {
        Impairment {
            loss: probability(share),
            reorder: Some(Reorder {
                share: probability(share),
                by: Duration::from_millis(1),
            }),
            duplicate: probability(share),
            corrupt: probability(share),
            jitter: Duration::from_millis(3),
            ..Impairment::default()
        }
    }

    /// Six standard deviations of a binomial distribution around its mean: by chance outside of it
    /// once in half a billion seeds, and these seeds are fixed.
    fn assert_share(count: usize, share: f64, what: &str) {
        let frames = FRAMES as f64;
        let tolerance = 6.0 * (frames * share * (1.0 - share)).sqrt();
        let off = (count as f64 - frames * share).abs();
        assert!(
            off <= tolerance,
            "{what}: {count} of {frames} at {share}, {tolerance} tolerated"
        );
    }

    #[test]
    fn probabilities_are_read_and_refused() {
        for (text, value) in [("0", 0.0), ("1", 1.0), ("0.05", 0.05), ("5%", 0.05)] {
            let read: Probability = text.parse().unwrap();
            assert!((read.get() - value).abs() < 1e-12, "{text}: {read:?}");
        }
        for text in ["", "%", "1.1", "-0.1", "101%", "NaN", "inf", "often"] {
            assert!(text.parse::<Probability>().is_err(), "{text}");
        }
    }

    #[test]
    fn shares_are_what_was_asked_for() {
        for share in [0.001, 0.01, 0.05, 0.5, 0.999] {
            let fates = fates(&everything(share), 1, Direction::AToB);
            let count = |is: fn(&Fate) -> bool| fates.iter().filter(|fate| is(fate)).count();
            assert_share(count(|fate| fate.lost.is_some()), share, "lost");
            assert_share(count(|fate| fate.is_duplicated), share, "duplicated");
            assert_share(count(|fate| fate.corrupt.is_some()), share, "corrupted");
            assert_share(count(|fate| fate.held_back.is_some()), share, "held back");
            // Independent of one another: both happen as often as the product says.
            let both = count(|fate| fate.is_duplicated && fate.lost.is_some());
            assert_share(both, share * share, "lost and duplicated");
        }
    }

    #[test]
    fn losses_do_not_come_in_runs() {
        let fates = fates(&everything(0.1), 3, Direction::BToA);
        let pairs = fates.windows(2);
        let in_a_row = pairs.filter(|pair| pair.iter().all(|fate| fate.lost.is_some()));
        assert_share(in_a_row.count(), 0.01, "two in a row");
    }

    #[test]
    fn certain_and_impossible_are_exact() {
        let never = fates(&everything(0.0), 9, Direction::AToB);
        assert!(never.iter().all(|fate| fate.lost.is_none()
            && !fate.is_duplicated
            && fate.corrupt.is_none()
            && fate.held_back.is_none()));
        let always = fates(&everything(1.0), 9, Direction::AToB);
        assert!(always.iter().all(|fate| fate.lost == Some(Loss::Single)
            && fate.is_duplicated
            && fate.corrupt.is_some()
            && fate.held_back == Some(Duration::from_millis(1))));
    }

    #[test]
    fn jitter_is_spread_evenly() {
        let most = Duration::from_millis(3);
        let fates = fates(&everything(0.0), 5, Direction::AToB);
        assert!(fates.iter().all(|fate| fate.jitter <= most));
        for fifth in 0..5 {
            let range = most * fifth / 5..most * (fifth + 1) / 5;
            let count = fates.iter().filter(|fate| range.contains(&fate.jitter));
            assert_share(count.count(), 0.2, "a fifth");
        }
    }

    #[test]
    fn bursts_take_as_many_frames_as_they_are_long() {
        let impairment = Impairment {
            burst: Some(Burst {
                frames: 7,
                begins: probability(0.001),
            }),
            ..Impairment::default()
        };
        let fates = fates(&impairment, 11, Direction::AToB);
        let mut runs = Vec::new();
        for fate in &fates[..] {
            match (fate.lost, runs.last_mut()) {
                (Some(Loss::Burst), Some((last, length))) if *last + 1 == fate.index => {
                    (*last, *length) = (fate.index, *length + 1);
                }
                (Some(Loss::Burst), _) => runs.push((fate.index, 1)),
                (lost, _) => assert_eq!(lost, None),
            }
        }
        // One that begins where another ended makes a run of 14; the last may be cut by the end.
        let whole = &runs[..runs.len() - 1];
        assert!(whole.iter().all(|(_, length)| length % 7 == 0), "{whole:?}");
        let lost = fates.iter().filter(|fate| fate.lost.is_some()).count();
        // A burst begins every 1000 frames that no burst has taken.
        assert_share(lost / 7, 1.0 / 1006.0, "bursts");
    }

    #[test]
    fn listed_frames_are_lost_and_no_others() {
        let impairment = Impairment {
            drop_index: vec![5..=5, 17..=19],
            ..Impairment::default()
        };
        let lost: Vec<u64> = fates(&impairment, 1, Direction::AToB)
            .iter()
            .filter(|fate| fate.lost == Some(Loss::Listed))
            .map(|fate| fate.index)
            .collect();
        assert_eq!(lost, [5, 17, 18, 19]);
    }

    #[test]
    fn seeds_and_directions_differ() {
        let lost = |seed, direction| -> Vec<bool> {
            let fates = fates(&everything(0.5), seed, direction);
            fates.iter().map(|fate| fate.lost.is_some()).collect()
        };
        let first = lost(1, Direction::AToB);
        for other in [
            lost(2, Direction::AToB),
            lost(1, Direction::BToA),
            lost(2, Direction::BToA),
        ] {
            let same = first.iter().zip(&other).filter(|(one, two)| one == two);
            assert_share(same.count(), 0.5, "the same fate");
        }
    }

    proptest! {
        #[test]
        fn the_same_seed_repeats(seed: u64, share in 0.0..=1.0_f64) {
            let impairment = everything(share);
            let mut first = Decider::new(impairment.clone(), seed, Direction::BToA);
            let mut second = Decider::new(impairment, seed, Direction::BToA);
            for _ in 0..100 {
                prop_assert_eq!(first.decide(), second.decide());
            }
        }

        #[test]
        fn one_probability_leaves_the_others_decisions(seed: u64, share in 0.0..=1.0_f64) {
            let impairment = everything(0.3);
            let other = Impairment {
                loss: probability(share),
                burst: Some(Burst { frames: 3, begins: probability(share) }),
                ..impairment.clone()
            };
            let mut one = Decider::new(impairment, seed, Direction::AToB);
            let mut two = Decider::new(other, seed, Direction::AToB);
            for _ in 0..100 {
                let (one, two) = (one.decide(), two.decide());
                prop_assert_eq!(Fate { lost: None, ..one }, Fate { lost: None, ..two });
            }
        }
    }
}
