//! What a request looks like, and how its reply is told from anything else.
//!
//! ```text
//!   0       4       8       12              20      24                     size
//!   ├───────┼───────┼───────┼───────────────┼───────┼──────────────────────┤
//!   │ magic │  run  │ flow  │   sequence    │ check │ pattern …            │
//!   └───────┴───────┴───────┴───────────────┴───────┴──────────────────────┘
//! ```
//!
//! Big-endian. `run` tells replies to this run from those to an earlier one on the same port. `check`
//! covers run, flow and sequence; the pattern is random bytes that start at a place which depends on
//! the sequence, so that a reply put together from two requests does not pass.

/// Bytes before the pattern: the smallest possible request.
pub const HEADER_LEN: usize = 24;

/// The largest UDP payload IPv4 carries: 65,535 − 20 (IPv4) − 8 (UDP).
pub const SIZE_MAX: usize = 65_507;

/// `dpLG`.
const MAGIC: u32 = 0x6470_4C47;

/// How many different places the pattern starts at. A prime, so that no regular spacing of
/// sequence numbers keeps meeting the same one.
const PATTERN_STARTS: usize = 251;

/// Writes requests and reads replies of one run.
#[derive(Clone, Debug)]
pub struct Prober {
    run: u32,
    size: usize,
    pattern: Vec<u8>,
}

/// What a received datagram is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// One of this run's requests, byte for byte.
    Intact {
        /// The flow the request was sent on.
        flow: u32,
        /// Its sequence number.
        sequence: u64,
    },
    /// It bears this run's mark but not what was sent: another length, or changed bytes.
    Corrupted,
    /// Not of this run.
    Foreign,
}

impl Prober {
    /// Makes requests of `size` bytes, marked `run`, with a pattern drawn from `seed`. `size` is
    /// taken up to [`HEADER_LEN`] or down to [`SIZE_MAX`] if it lies outside.
    #[must_use]
    pub fn new(run: u32, size: usize, seed: u64) -> Self {
        let size = size.clamp(HEADER_LEN, SIZE_MAX);
        let mut random = fastrand::Rng::with_seed(seed);
        let mut pattern = vec![0; size - HEADER_LEN + PATTERN_STARTS];
        random.fill(&mut pattern);
        Self { run, size, pattern }
    }

    /// Bytes in each request.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Writes a request into `out`, which must be [`Self::size`] bytes long.
    ///
    /// # Panics
    /// When it is not.
    pub fn write(&self, flow: u32, sequence: u64, out: &mut [u8]) {
        let (header, body) = out.split_at_mut(HEADER_LEN);
        header[0..4].copy_from_slice(&MAGIC.to_be_bytes());
        header[4..8].copy_from_slice(&self.run.to_be_bytes());
        header[8..12].copy_from_slice(&flow.to_be_bytes());
        header[12..20].copy_from_slice(&sequence.to_be_bytes());
        header[20..24].copy_from_slice(&check(self.run, flow, sequence).to_be_bytes());
        body.copy_from_slice(self.body(sequence));
    }

    /// Says what `datagram` is.
    #[must_use]
    pub fn read(&self, datagram: &[u8]) -> Verdict {
        let Some((header, body)) = datagram.split_first_chunk::<HEADER_LEN>() else {
            return Verdict::Foreign;
        };
        let word = |at: usize| {
            u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        if word(0) != MAGIC || word(4) != self.run {
            return Verdict::Foreign;
        }
        let flow = word(8);
        let sequence = u64::from(word(12)) << 32 | u64::from(word(16));
        if word(20) == check(self.run, flow, sequence) && body == self.body(sequence) {
            Verdict::Intact { flow, sequence }
        } else {
            Verdict::Corrupted
        }
    }

    fn body(&self, sequence: u64) -> &[u8] {
        #[allow(clippy::cast_possible_truncation)] // The remainder is below 251.
        let start = (sequence % PATTERN_STARTS as u64) as usize;
        &self.pattern[start..][..self.size - HEADER_LEN]
    }
}

/// A 32-bit hash of the header: multiply by an odd constant (2⁶⁴ over the golden ratio, whose bits
/// show no pattern) and fold, so that any changed bit changes about half of the result.
#[allow(clippy::cast_possible_truncation)] // Folding keeps the low half on purpose.
fn check(run: u32, flow: u32, sequence: u64) -> u32 {
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut hash = (u64::from(run) << 32 | u64::from(flow)).wrapping_mul(GOLDEN);
    hash = (hash ^ hash >> 32 ^ sequence).wrapping_mul(GOLDEN);
    (hash ^ hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(prober: &Prober, flow: u32, sequence: u64) -> Vec<u8> {
        let mut bytes = vec![0; prober.size()];
        prober.write(flow, sequence, &mut bytes);
        bytes
    }

    #[test]
    fn sizes_are_kept_in_range() {
        assert_eq!(Prober::new(1, 0, 1).size(), HEADER_LEN);
        assert_eq!(Prober::new(1, usize::MAX, 1).size(), SIZE_MAX);
    }

    #[test]
    fn other_lengths_are_corrupted_and_other_runs_foreign() {
        let prober = Prober::new(7, 64, 1);
        let bytes = request(&prober, 3, 9);
        assert_eq!(
            prober.read(&bytes),
            Verdict::Intact {
                flow: 3,
                sequence: 9
            }
        );
        assert_eq!(prober.read(&bytes[..63]), Verdict::Corrupted);
        assert_eq!(
            prober.read(&[bytes.as_slice(), &[0]].concat()),
            Verdict::Corrupted
        );
        assert_eq!(prober.read(&bytes[..HEADER_LEN - 1]), Verdict::Foreign);
        assert_eq!(prober.read(&[]), Verdict::Foreign);
        assert_eq!(Prober::new(8, 64, 1).read(&bytes), Verdict::Foreign);
    }

    #[test]
    fn the_body_of_another_request_is_corrupted() {
        let prober = Prober::new(7, 64, 1);
        let mut mixed = request(&prober, 3, 9);
        mixed[HEADER_LEN..].copy_from_slice(&request(&prober, 3, 10)[HEADER_LEN..]);
        assert_eq!(prober.read(&mixed), Verdict::Corrupted);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            run: u32, flow: u32, sequence: u64, size in HEADER_LEN..2000_usize, seed: u64,
        ) {
            let prober = Prober::new(run, size, seed);
            prop_assert_eq!(
                prober.read(&request(&prober, flow, sequence)),
                Verdict::Intact { flow, sequence }
            );
        }

        #[test]
        fn no_flipped_bit_passes(
            run: u32, flow: u32, sequence: u64, size in HEADER_LEN..200_usize, at: prop::sample::Index,
        ) {
            let prober = Prober::new(run, size, 1);
            let mut bytes = request(&prober, flow, sequence);
            let bit = at.index(size * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!matches!(prober.read(&bytes), Verdict::Intact { .. }), "bit {} passed", bit);
        }

        #[test]
        fn no_datagram_panics(bytes: Vec<u8>) {
            let _ = Prober::new(1, 64, 1).read(&bytes);
        }
    }
}
