//! Statistics of repeated runs: medians, spreads and ratios.

use serde::Serialize;

/// The middle of some measurements and how far they lay apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The median; the mean of the two middle values when their number is even.
    pub median: f64,
    /// The smallest value.
    pub min: f64,
    /// The largest value.
    pub max: f64,
}

impl Spread {
    /// The spread of `values`, or `None` when there are none.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (&min, &max) = (values.first()?, values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self { median, min, max })
    }
}

/// The median of `values`; 0 when there are none.
#[must_use]
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    Spread::of(values).map_or(0.0, |spread| spread.median)
}

/// The spread of the ratios of paired measurements: `ours[i] / theirs[i]`, where both were taken in
/// the same round. Drift of the machine between rounds cancels out of each pair, so this is steadier
/// than the ratio of the medians. Pairs with a zero or missing divisor are left out.
#[must_use]
pub fn paired_ratio(ours: &[f64], theirs: &[f64]) -> Option<Spread> {
    Spread::of(
        ours.iter()
            .zip(theirs)
            .filter(|(_, theirs)| **theirs > 0.0)
            .map(|(ours, theirs)| ours / theirs),
    )
}

/// The order in which `count` contestants run in round `round`: each round starts one further on,
/// so that none always follows the same neighbour's warm caches or hot core from the first place.
#[must_use]
pub fn rotated(count: usize, round: usize) -> Vec<usize> {
    (0..count).map(|index| (index + round) % count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median([]), 0.0);
        assert_eq!(median([3.0]), 3.0);
        assert_eq!(median([9.0, 1.0, 5.0]), 5.0);
        assert_eq!(median([4.0, 1.0, 2.0, 100.0]), 3.0);
        assert_eq!(
            Spread::of([2.0, 1.0, 3.0]),
            Some(Spread {
                median: 2.0,
                min: 1.0,
                max: 3.0
            })
        );
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn ratios_pair_the_runs_of_one_round() {
        // The machine got twice as slow after the first round; the ratio did not change.
        let ratio = paired_ratio(&[200.0, 100.0, 102.0], &[100.0, 50.0, 51.0]).unwrap();
        assert_eq!(
            ratio,
            Spread {
                median: 2.0,
                min: 2.0,
                max: 2.0
            }
        );
        assert_eq!(paired_ratio(&[1.0, 3.0], &[0.0, 2.0]).unwrap().median, 1.5);
        assert_eq!(paired_ratio(&[1.0], &[0.0]), None);
    }

    #[test]
    fn every_contestant_starts_once() {
        let firsts: Vec<usize> = (0..3).map(|round| rotated(3, round)[0]).collect();
        assert_eq!(firsts, [0, 1, 2]);
        assert_eq!(rotated(3, 4), [1, 2, 0]);
    }
}
