//! Sizes of requests and replies: one, or a distribution.

use std::fmt;
use std::str::FromStr;

/// The largest size, in bytes: a gibibyte, far beyond any request, and small enough for 32 bits.
pub const BYTES_MAX: u32 = 1 << 30;

/// How many bytes messages have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sizes {
    /// All the same.
    Fixed(u32),
    /// Every size from the first to the second is as likely as any other.
    Uniform(u32, u32),
    /// Many small ones and few large ones: exponential with this mean, at most 16 times as long (one in
    /// nine million would be longer).
    Exponential(u32),
    /// These sizes with these weights.
    Mix(Vec<(u32, u32)>),
}

/// What an exponential distribution is cut at, in means.
const EXPONENTIAL_MEANS_MAX: u32 = 16;

impl Sizes {
    /// The next size.
    #[must_use]
    pub fn draw(&self, random: &mut fastrand::Rng) -> u32 {
        match self {
            Self::Fixed(size) => *size,
            Self::Uniform(min, max) => random.u32(min..=max),
            Self::Exponential(mean) => {
                // 1 − u is in (0, 1]: its logarithm is finite.
                let drawn = -(1.0 - random.f64()).ln() * f64::from(*mean);
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                // Not negative, and `as` saturates.
                let drawn = drawn.round() as u32;
                drawn.clamp(1, self.max())
            }
            Self::Mix(parts) => {
                let mut at = random.u64(..weight(parts));
                for &(size, weight) in parts {
                    match at.checked_sub(u64::from(weight)) {
                        None => return size,
                        Some(rest) => at = rest,
                    }
                }
                unreachable!("invariant: what is drawn is below the sum of the weights")
            }
        }
    }

    /// The smallest, in bytes.
    #[must_use]
    pub fn min(&self) -> u32 {
        match self {
            Self::Fixed(size) => *size,
            Self::Uniform(min, _) => *min,
            Self::Exponential(_) => 1,
            Self::Mix(parts) => parts.iter().map(|&(size, _)| size).min().unwrap_or(1),
        }
    }

    /// The largest, in bytes.
    #[must_use]
    pub fn max(&self) -> u32 {
        match self {
            Self::Fixed(size) => *size,
            Self::Uniform(_, max) => *max,
            Self::Exponential(mean) => mean.saturating_mul(EXPONENTIAL_MEANS_MAX).min(BYTES_MAX),
            Self::Mix(parts) => parts.iter().map(|&(size, _)| size).max().unwrap_or(1),
        }
    }

    /// The mean, in bytes; of an exponential one before it is cut and rounded.
    #[must_use]
    pub fn mean(&self) -> f64 {
        match self {
            Self::Fixed(size) | Self::Exponential(size) => f64::from(*size),
            Self::Uniform(min, max) => f64::midpoint(f64::from(*min), f64::from(*max)),
            Self::Mix(parts) => {
                let part = |&(size, weight): &(u32, u32)| f64::from(size) * f64::from(weight);
                parts.iter().map(part).sum::<f64>() / weight(parts) as f64
            }
        }
    }
}

fn weight(parts: &[(u32, u32)]) -> u64 {
    parts.iter().map(|&(_, weight)| u64::from(weight)).sum()
}

impl fmt::Display for Sizes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(size) => write!(out, "{size}"),
            Self::Uniform(min, max) => write!(out, "uniform:{min}-{max}"),
            Self::Exponential(mean) => write!(out, "exp:{mean}"),
            Self::Mix(parts) => {
                let parts: Vec<_> = parts
                    .iter()
                    .map(|(size, weight)| format!("{size}={weight}"))
                    .collect();
                write!(out, "mix:{}", parts.join(","))
            }
        }
    }
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, rest) = text.split_once(':').unwrap_or(("", text));
        match kind {
            "" => Ok(Self::Fixed(bytes(rest)?)),
            "uniform" => {
                let (min, max) = rest
                    .split_once('-')
                    .ok_or("expected uniform:MIN-MAX, like uniform:64-1400")?;
                let (min, max) = (bytes(min)?, bytes(max)?);
                if min > max {
                    return Err(format!("`{rest}` counts down: write {max}-{min}"));
                }
                Ok(Self::Uniform(min, max))
            }
            "exp" => Ok(Self::Exponential(bytes(rest)?)),
            "mix" => {
                let part = |part: &str| {
                    let (size, weight) = part.split_once('=').unwrap_or((part, "1"));
                    match weight.parse() {
                        Ok(weight @ 1..) => Ok((bytes(size)?, weight)),
                        _ => Err(format!("`{weight}` is not a weight: use 1 or more")),
                    }
                };
                Ok(Self::Mix(
                    rest.split(',').map(part).collect::<Result<_, _>>()?,
                ))
            }
            _ => Err(format!(
                "`{kind}` is not a distribution: use BYTES, uniform:MIN-MAX, exp:MEAN or \
                 mix:SIZE=WEIGHT,…"
            )),
        }
    }
}

/// A size: bytes, or with k or M in units of 1024 and 1024², as iperf3 has them.
fn bytes(text: &str) -> Result<u32, String> {
    let (number, shift) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 20),
        _ => (text, 0),
    };
    let number: u32 = number
        .parse()
        .map_err(|_| format!("`{text}` is not a size in bytes, like 64, 16k or 1M"))?;
    match number.checked_mul(1 << shift) {
        Some(bytes @ 1..=BYTES_MAX) => Ok(bytes),
        _ => Err(format!("a size is 1 to {BYTES_MAX} bytes, not {text}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_read() {
        for (text, sizes) in [
            ("64", Sizes::Fixed(64)),
            ("16k", Sizes::Fixed(16 << 10)),
            ("uniform:64-1400", Sizes::Uniform(64, 1400)),
            ("exp:512", Sizes::Exponential(512)),
            (
                "mix:64=7,576=4,1500",
                Sizes::Mix(vec![(64, 7), (576, 4), (1500, 1)]),
            ),
        ] {
            assert_eq!(text.parse(), Ok(sizes));
        }
    }

    #[test]
    fn what_is_not_a_size() {
        for text in [
            "",
            "0",
            "-1",
            "2G",
            "4096M",
            "uniform:5",
            "uniform:9-3",
            "mix:64=0",
            "mix:",
            "exp:0",
            "normal:5",
            "uniform:0-5",
        ] {
            assert!(text.parse::<Sizes>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn means_are_kept() {
        for text in ["700", "uniform:100-1300", "exp:700", "mix:100=1,900=3"] {
            let sizes: Sizes = text.parse().unwrap();
            let mut random = fastrand::Rng::with_seed(7);
            let count = 100_000;
            let sum: u64 = (0..count).map(|_| u64::from(sizes.draw(&mut random))).sum();
            let mean = sum as f64 / f64::from(count);
            // The seed is fixed: this either always passes or never.
            assert!((mean / sizes.mean() - 1.0).abs() < 0.01, "{text}: {mean}");
            assert!((sizes.mean() - 700.0).abs() < 0.01, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_drawn_is_in_range_and_prints_as_it_parses(
            a in 1..=BYTES_MAX, b in 1..=BYTES_MAX, weight in 1u32.., seed: u64,
        ) {
            let (min, max) = (a.min(b), a.max(b));
            let mut random = fastrand::Rng::with_seed(seed);
            for sizes in [
                Sizes::Fixed(a),
                Sizes::Uniform(min, max),
                Sizes::Exponential(a),
                Sizes::Mix(vec![(a, weight), (b, weight)]),
            ] {
                prop_assert_eq!(sizes.to_string().parse(), Ok(sizes.clone()));
                for _ in 0..20 {
                    let drawn = sizes.draw(&mut random);
                    prop_assert!((sizes.min()..=sizes.max()).contains(&drawn));
                }
            }
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = text.parse::<Sizes>();
        }
    }
}
