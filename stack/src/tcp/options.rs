//! TCP options (RFC 9293 §3.2): what segments carry beside their header.
//!
//! Reading is total: whatever the bytes are, there is an answer. Options we do not know are passed
//! over (RFC 9293 §3.1, MUST-6). A length that cannot be ends the list, and the segment is processed
//! without the rest (MUST-7: cope with it; resetting the connection, as suggested there, would let a
//! blind sender end it). Options need not be aligned (MUST-64). Of an option that occurs twice the
//! first counts.
//!
//! | kind | option | source |
//! |--:|---|---|
//! | 0 | end of list | RFC 9293 §3.2 |
//! | 1 | no operation | RFC 9293 §3.2 |
//! | 2 | maximum segment size | RFC 9293 §3.2 |
//! | 3 | window scale | RFC 7323 §2.2 |
//! | 4 | SACK permitted | RFC 2018 §2 |
//! | 5 | SACK | RFC 2018 §3 |
//! | 8 | timestamps | RFC 7323 §3.2 |
//! | 34 | fast open cookie | RFC 7413 §4.1.1 |

use crate::tcp::seq::SeqNum;
use crate::time::Instant;
use crate::wire::tcp::OPTIONS_LEN_MAX;

const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;
const FAST_OPEN: u8 = 34;

/// Length of the timestamps option, in bytes.
const TIMESTAMPS_LEN: u8 = 10;
/// What nearly every segment's options start with: two bytes of padding, so that the two timestamps
/// are aligned (RFC 7323 appendix A).
const NOP_NOP_TIMESTAMPS: [u8; 4] = [NOP, NOP, TIMESTAMPS, TIMESTAMPS_LEN];

/// The greatest window scale: with it a window of 2³⁰ bytes can be announced, and more would not
/// leave old segments and new ones apart (RFC 7323 §2.3).
pub const WINDOW_SCALE_MAX: u8 = 14;

/// Most SACK blocks that fit into one header (RFC 2018 §3).
pub const SACK_BLOCKS_MAX: usize = 4;

/// The timestamps option (RFC 7323 §3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timestamps {
    /// `TSval`: the sender's clock, in ticks of its own.
    pub value: u32,
    /// `TSecr`: the last value the sender got; means something with ACK only.
    pub echo: u32,
}

/// One range of bytes that arrived out of order (RFC 2018 §3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SackBlock {
    /// The first sequence number that arrived.
    pub left: SeqNum,
    /// The one behind the last that arrived.
    pub right: SeqNum,
}

/// The SACK option (RFC 2018): up to four blocks, in the order they have there. Every block's right
/// edge is after its left one.
#[derive(Clone, Copy, Debug, Default)]
pub struct SackBlocks {
    blocks: [SackBlock; SACK_BLOCKS_MAX],
    len: u8,
}

impl SackBlocks {
    /// No block.
    pub const EMPTY: SackBlocks = SackBlocks {
        blocks: [SackBlock {
            left: SeqNum::new(0),
            right: SeqNum::new(0),
        }; SACK_BLOCKS_MAX],
        len: 0,
    };

    /// Adds a block at the end; whether it was taken: there is no room for a fifth, and none for one
    /// whose right edge is not after its left one.
    #[inline]
    pub fn push(&mut self, left: SeqNum, right: SeqNum) -> bool {
        if !right.after(left) {
            return false;
        }
        match self.blocks.get_mut(usize::from(self.len)) {
            Some(block) => {
                *block = SackBlock { left, right };
                self.len += 1;
                true
            }
            None => false,
        }
    }

    /// How many there are, 0 to 4.
    #[inline]
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there is none.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All of them.
    #[inline]
    #[must_use]
    pub fn as_slice(&self) -> &[SackBlock] {
        // `push` keeps the length within bounds.
        self.blocks.get(..self.len()).unwrap_or(&self.blocks)
    }

    /// One after the other, in their order.
    #[inline]
    pub fn iter(&self) -> core::iter::Copied<core::slice::Iter<'_, SackBlock>> {
        self.as_slice().iter().copied()
    }
}

impl PartialEq for SackBlocks {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for SackBlocks {}

impl<'a> IntoIterator for &'a SackBlocks {
    type Item = SackBlock;
    type IntoIter = core::iter::Copied<core::slice::Iter<'a, SackBlock>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The options that mean something in a segment with SYN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SynOptions {
    /// Payload the sender takes in one segment, in bytes, as it says: it may be absurd.
    pub mss: Option<u16>,
    /// How far its window fields are to be shifted left, 0 to 14.
    pub window_scale: Option<u8>,
    /// It understands SACK.
    pub sack_permitted: bool,
    /// It has a timestamp clock.
    pub timestamps: Option<Timestamps>,
    /// It asks for TCP Fast Open, which we decline by leaving the option out of the answer
    /// (RFC 7413 §4.1.2).
    pub fast_open: bool,
}

/// An option as it stands in the list: kind, and the bytes behind the length.
struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match *self.0 {
                // RFC 9293 §3.2: nothing behind the end of the list is an option.
                [] | [END, ..] => return None,
                [NOP, ref rest @ ..] => self.0 = rest,
                // RFC 9293 §3.1 (MUST-68): all others have a length, which counts kind and length.
                [kind, len, ..] if len >= 2 && usize::from(len) <= self.0.len() => {
                    let (option, rest) = self.0.split_at(usize::from(len));
                    self.0 = rest;
                    return Some((kind, &option[2..]));
                }
                // RFC 9293 §3.1 (MUST-7): an illegal length; where the next option would start
                // nobody knows.
                _ => {
                    self.0 = &[];
                    return None;
                }
            }
        }
    }
}

#[inline]
fn timestamps_of(value: &[u8]) -> Option<Timestamps> {
    match *value {
        [a, b, c, d, e, f, g, h] => Some(Timestamps {
            value: u32::from_be_bytes([a, b, c, d]),
            echo: u32::from_be_bytes([e, f, g, h]),
        }),
        _ => None,
    }
}

/// The timestamps among `options`.
#[inline]
#[must_use]
pub fn timestamps(options: &[u8]) -> Option<Timestamps> {
    if let Some(&[a, b, c, d, value @ ..]) = options.first_chunk::<12>()
        && [a, b, c, d] == NOP_NOP_TIMESTAMPS
    {
        return timestamps_of(&value);
    }
    if options.is_empty() {
        return None;
    }
    search_timestamps(options)
}

/// The timestamps of a segment that has no other option, if it has those, in the form everybody sends
/// them in; `None` if its options are anything else.
#[inline]
#[must_use]
pub(crate) fn plain(options: &[u8]) -> Option<Option<Timestamps>> {
    match options {
        [] => Some(None),
        &[a, b, c, d, e, f, g, h, i, j, k, l] if [a, b, c, d] == NOP_NOP_TIMESTAMPS => {
            Some(timestamps_of(&[e, f, g, h, i, j, k, l]))
        }
        _ => None,
    }
}

#[cold]
fn search_timestamps(options: &[u8]) -> Option<Timestamps> {
    Options(options)
        .filter(|&(kind, _)| kind == TIMESTAMPS)
        .find_map(|(_, value)| timestamps_of(value))
}

/// The SACK blocks among `options`; those that cannot be are left out (RFC 2018 §3: the right edge
/// is behind the left one).
#[inline]
#[must_use]
pub fn sack_blocks(options: &[u8]) -> SackBlocks {
    if is_plain(options) {
        return SackBlocks::EMPTY;
    }
    search_sack_blocks(options)
}

/// Whether there is nothing among `options` but, perhaps, timestamps, in the form everybody sends
/// them in.
#[inline]
#[must_use]
pub fn is_plain(options: &[u8]) -> bool {
    options.is_empty() || options.len() == 12 && options.first_chunk() == Some(&NOP_NOP_TIMESTAMPS)
}

#[cold]
fn search_sack_blocks(options: &[u8]) -> SackBlocks {
    let mut found = SackBlocks::EMPTY;
    let blocks = Options(options)
        .filter(|&(kind, _)| kind == SACK)
        .map(|(_, value)| value.as_chunks::<8>())
        .find(|(blocks, rest)| !blocks.is_empty() && rest.is_empty());
    for &[a, b, c, d, e, f, g, h] in blocks.unwrap_or_default().0 {
        let left = SeqNum::new(u32::from_be_bytes([a, b, c, d]));
        let right = SeqNum::new(u32::from_be_bytes([e, f, g, h]));
        found.push(left, right);
    }
    found
}

/// What `options` of a segment with SYN say.
#[must_use]
pub fn syn_options(options: &[u8]) -> SynOptions {
    let mut found = SynOptions::default();
    for (kind, value) in Options(options) {
        match (kind, value) {
            (MSS, &[high, low]) => {
                found.mss.get_or_insert(u16::from_be_bytes([high, low]));
            }
            // RFC 7323 §2.3: a greater shift counts as 14.
            (WINDOW_SCALE, &[shift]) => {
                found
                    .window_scale
                    .get_or_insert(shift.min(WINDOW_SCALE_MAX));
            }
            (SACK_PERMITTED, []) => found.sack_permitted = true,
            (TIMESTAMPS, value) if found.timestamps.is_none() => {
                found.timestamps = timestamps_of(value);
            }
            (FAST_OPEN, _) => found.fast_open = true,
            _ => {}
        }
    }
    found
}

/// The options of a segment we send. Laid out as Linux does, so that we look like everybody and
/// those who parse only what they know find it:
///
/// ```text
/// SYN    MSS(4)  SACK-permitted(2) timestamps(10)  NOP window scale(3)
/// else   NOP NOP timestamps(10)  NOP NOP SACK(2 + 8 for each block)
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OptionsOut {
    /// Payload we take in one segment, in bytes. For SYN only (RFC 9293 §3.2, MUST-65).
    pub mss: Option<u16>,
    /// How far our window fields are shifted, 0 to 14. For SYN only (RFC 7323 §2.2).
    pub window_scale: Option<u8>,
    /// We understand SACK. For SYN only (RFC 2018 §2).
    pub sack_permitted: bool,
    /// Our clock, and the peer's.
    pub timestamps: Option<Timestamps>,
    /// What arrived out of order. As many blocks are sent, from the first, as there is room for:
    /// 4, and 3 beside timestamps.
    pub sack: SackBlocks,
}

/// The bytes of options: length and content. Only the first so many are options.
pub(crate) type OptionBytes = ([u8; OPTIONS_LEN_MAX], usize);

impl OptionsOut {
    /// No option.
    pub const NONE: OptionsOut = OptionsOut {
        mss: None,
        window_scale: None,
        sack_permitted: false,
        timestamps: None,
        sack: SackBlocks::EMPTY,
    };

    /// Timestamps alone: what most segments have.
    #[inline]
    #[must_use]
    pub const fn timestamps(timestamps: Option<Timestamps>) -> Self {
        Self {
            timestamps,
            ..Self::NONE
        }
    }

    /// Whether there is nothing but, perhaps, timestamps.
    #[inline]
    pub(crate) const fn is_plain(&self) -> bool {
        let Self {
            mss,
            window_scale,
            sack_permitted,
            timestamps: _,
            sack,
        } = self;
        mss.is_none() && window_scale.is_none() && !*sack_permitted && sack.is_empty()
    }

    /// Length of all but SACK blocks, in bytes.
    #[inline]
    const fn len_without_sack(&self) -> usize {
        let timestamps = if self.timestamps.is_some() { 12 } else { 0 };
        let mss = if self.mss.is_some() { 4 } else { 0 };
        let window_scale = if self.window_scale.is_some() { 4 } else { 0 };
        // Beside timestamps it takes the place of their padding.
        let alone = self.sack_permitted && self.timestamps.is_none();
        let sack_permitted = if alone { 4 } else { 0 };
        timestamps + mss + window_scale + sack_permitted
    }

    /// How many SACK blocks there is room for.
    #[inline]
    const fn sack_blocks_sent(&self) -> usize {
        // At most 24 bytes are taken, and NOP NOP, kind and length take 4: no underflow.
        let room = (OPTIONS_LEN_MAX - 4 - self.len_without_sack()) / 8;
        if self.sack.len() < room {
            self.sack.len()
        } else {
            room
        }
    }

    /// Length of them all as they are sent, in bytes: a multiple of 4, at most 40.
    #[inline]
    #[must_use]
    pub const fn len(&self) -> usize {
        let without_sack = self.len_without_sack();
        match self.sack_blocks_sent() {
            0 => without_sack,
            blocks => without_sack + 4 + 8 * blocks,
        }
    }

    /// Whether there is none.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of timestamps alone.
    #[inline]
    pub(crate) fn timestamps_bytes(timestamps: Timestamps) -> [u8; 12] {
        let Timestamps { value, echo } = timestamps;
        let [a, b, c, d] = value.to_be_bytes();
        let [e, f, g, h] = echo.to_be_bytes();
        let [i, j, k, l] = NOP_NOP_TIMESTAMPS;
        [i, j, k, l, a, b, c, d, e, f, g, h]
    }

    /// The bytes of them all.
    #[must_use]
    pub(crate) fn bytes(&self) -> OptionBytes {
        let mut bytes = [0; OPTIONS_LEN_MAX];
        let mut len = 0;
        let mut put = |option: &[u8]| {
            bytes[len..len + option.len()].copy_from_slice(option);
            len += option.len();
        };
        if let Some(mss) = self.mss {
            let [high, low] = mss.to_be_bytes();
            put(&[MSS, 4, high, low]);
        }
        if let Some(timestamps) = self.timestamps {
            let mut option = Self::timestamps_bytes(timestamps);
            if self.sack_permitted {
                option[..2].copy_from_slice(&[SACK_PERMITTED, 2]);
            }
            put(&option);
        } else if self.sack_permitted {
            put(&[NOP, NOP, SACK_PERMITTED, 2]);
        }
        if let Some(shift) = self.window_scale {
            put(&[NOP, WINDOW_SCALE, 3, shift.min(WINDOW_SCALE_MAX)]);
        }
        let blocks = self.sack.iter().take(self.sack_blocks_sent());
        let len_field = [0, 10, 18, 26, 34][blocks.len()];
        if len_field != 0 {
            put(&[NOP, NOP, SACK, len_field]);
        }
        for SackBlock { left, right } in blocks {
            put(&left.get().to_be_bytes());
            put(&right.get().to_be_bytes());
        }
        (bytes, len)
    }
}

/// A connection's timestamp clock (RFC 7323 §5.4): one tick a millisecond, starting somewhere only
/// we know, so that nobody learns from it how long the machine is up (§7.1).
///
/// A millisecond, because RFC 7323 §5.4 wants between 1 ms and 1 s a tick: at 1 ms the sign of a
/// difference wraps after 24.8 days, and no segment lives that long. Round trips shorter than that
/// are measured by the times of transmission (RFC 8985), not by the echo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TsClock {
    offset: u32,
}

impl TsClock {
    /// Nanoseconds a tick.
    pub const TICK_NS: u64 = 1_000_000;

    /// A clock that shows `offset` at the zero of the stack's clock. It should be the same for all
    /// incarnations of one connection, so that RFC 6191 can tell them apart by their timestamps:
    /// see [`Secret::start`](crate::tcp::isn::Secret::start).
    #[must_use]
    pub const fn new(offset: u32) -> Self {
        Self { offset }
    }

    /// What it shows: `TSval` of a segment sent now.
    #[inline]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the clock wraps around")]
    pub const fn value(self, now: Instant) -> u32 {
        ((now.as_nanos() / Self::TICK_NS) as u32).wrapping_add(self.offset)
    }

    /// Milliseconds since the clock showed `echo`; nothing if it never did in the last 24 days.
    #[inline]
    #[must_use]
    pub const fn elapsed_ms(self, echo: u32, now: Instant) -> Option<u32> {
        let elapsed = self.value(now).wrapping_sub(echo);
        if elapsed.cast_signed() < 0 {
            None
        } else {
            Some(elapsed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const TIMES: Timestamps = Timestamps {
        value: 0x0102_0304,
        echo: 0xa0b0_c0d0,
    };

    fn blocks(edges: &[(u32, u32)]) -> SackBlocks {
        let mut blocks = SackBlocks::EMPTY;
        for &(left, right) in edges {
            assert!(blocks.push(SeqNum::new(left), SeqNum::new(right)));
        }
        blocks
    }

    fn bytes(options: &OptionsOut) -> Vec<u8> {
        let (bytes, len) = options.bytes();
        bytes[..len].to_vec()
    }

    #[test]
    fn a_syn_looks_like_that_of_linux() {
        let all = OptionsOut {
            mss: Some(1460),
            window_scale: Some(7),
            sack_permitted: true,
            timestamps: Some(TIMES),
            sack: SackBlocks::EMPTY,
        };
        // The form captured on the loopback of Linux 6.18:
        // <mss 1460,sackOK,TS val . ecr .,nop,wscale 7>.
        let expected = [
            2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0xa0, 0xb0, 0xc0, 0xd0, 1, 3, 3, 7,
        ];
        assert_eq!(bytes(&all), expected);
        let without = OptionsOut {
            timestamps: None,
            ..all
        };
        // <mss 1460,nop,nop,sackOK,nop,wscale 7>.
        let expected = [2, 4, 5, 0xb4, 1, 1, 4, 2, 1, 3, 3, 7];
        assert_eq!(bytes(&without), expected);
    }

    #[test]
    fn others_are_padded_to_words() {
        let times = OptionsOut::timestamps(Some(TIMES));
        let head = [1, 1, 8, 10, 1, 2, 3, 4, 0xa0, 0xb0, 0xc0, 0xd0];
        assert_eq!(bytes(&times), head);
        assert!(times.is_plain() && OptionsOut::NONE.is_plain());
        let sack = OptionsOut {
            sack: blocks(&[(1, 2)]),
            ..times
        };
        assert_eq!(bytes(&sack)[..12], head);
        assert_eq!(bytes(&sack)[12..], [1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
        assert!(OptionsOut::NONE.is_empty() && bytes(&OptionsOut::NONE).is_empty());
    }

    #[test]
    fn the_first_blocks_are_sent_if_not_all_fit() {
        let all = [(10, 20), (30, 40), (50, 60), (70, 80)];
        let sack = blocks(&all);
        let alone = OptionsOut {
            sack,
            ..OptionsOut::NONE
        };
        assert_eq!((alone.len(), sack_blocks(&bytes(&alone))), (36, sack));
        let beside = OptionsOut {
            sack,
            ..OptionsOut::timestamps(Some(TIMES))
        };
        assert_eq!(beside.len(), 40);
        assert_eq!(sack_blocks(&bytes(&beside)), blocks(&all[..3]));
    }

    #[test]
    fn a_block_is_not_empty_nor_backwards() {
        let mut sack = SackBlocks::EMPTY;
        assert!(!sack.push(SeqNum::new(5), SeqNum::new(5)));
        assert!(!sack.push(SeqNum::new(5), SeqNum::new(4)));
        assert!(sack.push(SeqNum::new(u32::MAX), SeqNum::new(0)));
        assert_eq!(sack.len(), 1);
        let edge = |number: u32| number.to_be_bytes();
        let option = [&[5, 18][..], &edge(9), &edge(8), &edge(1), &edge(2)].concat();
        assert_eq!(sack_blocks(&option), blocks(&[(1, 2)]));
        let mut four = blocks(&[(1, 2), (1, 2), (1, 2), (1, 2)]);
        assert!(!four.push(SeqNum::new(1), SeqNum::new(2)));
    }

    #[test]
    fn options_stand_at_any_place() {
        // RFC 9293 §3.2 (MUST-64): no alignment. MUST-6: what is unknown is passed over.
        let odd = [
            &[1, 254, 3, 0, 8, 10][..],
            &[0, 0, 0, 1, 0, 0, 0, 2],
            &[4, 2],
        ]
        .concat();
        let found = syn_options(&odd);
        assert_eq!(timestamps(&odd), Some(Timestamps { value: 1, echo: 2 }));
        assert_eq!(found.timestamps, timestamps(&odd));
        assert!(found.sack_permitted);
    }

    #[test]
    fn an_illegal_length_ends_the_list() {
        // RFC 9293 §3.1 (MUST-7).
        for illegal in [&[99, 0][..], &[99, 1], &[99, 200], &[99], &[2, 20]] {
            let list = [&[3, 3, 5], illegal].concat();
            assert_eq!(syn_options(&list).window_scale, Some(5));
            let list = [illegal, &[3, 3, 5]].concat();
            assert_eq!(syn_options(&list), SynOptions::default(), "{list:?}");
        }
    }

    #[test]
    fn nothing_follows_the_end_of_the_list() {
        assert_eq!(syn_options(&[0, 4, 2, 0]), SynOptions::default());
        assert_eq!(timestamps(&[0, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]), None);
    }

    #[test]
    fn a_known_option_of_a_wrong_length_means_nothing() {
        let wrong = [2, 3, 1, 3, 2, 4, 3, 0, 8, 9, 0, 0, 0, 0, 0, 0, 0, 34, 2];
        let expected = SynOptions {
            fast_open: true,
            ..SynOptions::default()
        };
        assert_eq!(syn_options(&wrong), expected);
        assert_eq!(sack_blocks(&[5, 2, 1, 1]), SackBlocks::EMPTY);
        assert_eq!(sack_blocks(&[5, 9, 1, 1, 1, 1, 2, 2, 2]), SackBlocks::EMPTY);
    }

    #[test]
    fn the_first_of_two_counts() {
        let twice = [2, 4, 1, 0, 2, 4, 2, 0, 3, 3, 1, 3, 3, 2];
        let found = syn_options(&twice);
        assert_eq!((found.mss, found.window_scale), (Some(256), Some(1)));
    }

    #[test]
    fn a_window_scale_beyond_14_is_14() {
        assert_eq!(syn_options(&[3, 3, 15]).window_scale, Some(14));
        assert_eq!(syn_options(&[3, 3, 255]).window_scale, Some(14));
        let out = OptionsOut {
            window_scale: Some(20),
            ..OptionsOut::NONE
        };
        assert_eq!(bytes(&out), [1, 3, 3, 14]);
    }

    #[test]
    fn the_clock_ticks_every_millisecond_and_wraps_around() {
        let clock = TsClock::new(u32::MAX);
        let at = Instant::from_nanos;
        assert_eq!(clock.value(at(999_999)), u32::MAX);
        assert_eq!(clock.value(at(1_000_000)), 0);
        assert_eq!(clock.elapsed_ms(u32::MAX, at(5_000_000)), Some(5));
        assert_eq!(clock.elapsed_ms(5, at(5_000_000)), None);
    }

    fn any_blocks() -> impl Strategy<Value = SackBlocks> {
        proptest::collection::vec((any::<u32>(), 1u32..1 << 30), 0..=4).prop_map(|edges| {
            let mut blocks = SackBlocks::EMPTY;
            for (left, len) in edges {
                blocks.push(SeqNum::new(left), SeqNum::new(left) + len);
            }
            blocks
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            mss: Option<u16>, window_scale in proptest::option::of(0u8..=14), sack_permitted: bool,
            times: Option<(u32, u32)>, sack in any_blocks(),
        ) {
            let times = times.map(|(value, echo)| Timestamps { value, echo });
            let out = OptionsOut { mss, window_scale, sack_permitted, timestamps: times, sack };
            let bytes = bytes(&out);
            prop_assert_eq!(bytes.len(), out.len());
            prop_assert!(bytes.len().is_multiple_of(4) && bytes.len() <= OPTIONS_LEN_MAX);
            prop_assert_eq!(timestamps(&bytes), times);
            let fast_open = false;
            let expected =
                SynOptions { mss, window_scale, sack_permitted, timestamps: times, fast_open };
            prop_assert_eq!(syn_options(&bytes), expected);
            let read = sack_blocks(&bytes);
            prop_assert!(sack.as_slice().starts_with(read.as_slice()));
            prop_assert!(read.len() == sack.len() || bytes.len() + 8 > OPTIONS_LEN_MAX);
            prop_assert_eq!(out.is_plain(), is_plain(&bytes));
            // Another reader agrees.
            use etherparse::TcpOptionElement as Element;
            for element in etherparse::TcpOptions::try_from_slice(&bytes).unwrap().elements_iter() {
                match element.unwrap() {
                    Element::Noop => {}
                    Element::MaximumSegmentSize(size) => prop_assert_eq!(Some(size), mss),
                    Element::WindowScale(shift) => prop_assert_eq!(Some(shift), window_scale),
                    Element::SelectiveAcknowledgementPermitted => prop_assert!(sack_permitted),
                    Element::Timestamp(value, echo) => {
                        prop_assert_eq!(Some(Timestamps { value, echo }), times);
                    }
                    Element::SelectiveAcknowledgement(first, more) => {
                        let edges = core::iter::once(first).chain(more.into_iter().flatten());
                        let theirs: Vec<_> = edges.collect();
                        let ours: Vec<_> =
                            read.iter().map(|block| (block.left.get(), block.right.get())).collect();
                        prop_assert_eq!(theirs, ours);
                    }
                }
            }
        }

        /// Any bytes: nothing panics, and the quick ways say what the walk says.
        #[test]
        fn every_reader_sees_the_same(
            pieces in proptest::collection::vec(
                prop_oneof![
                    proptest::collection::vec(any::<u8>(), 0..4),
                    Just(Vec::from([1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8])),
                    Just(Vec::from([8, 10, 9, 9, 9, 9, 9, 9, 9, 9])),
                    Just(Vec::from([1])),
                    Just(Vec::from([5, 10, 0, 0, 0, 1, 0, 0, 0, 3])),
                ],
                0..5,
            ),
        ) {
            let mut list = pieces.concat();
            list.truncate(OPTIONS_LEN_MAX);
            prop_assert_eq!(timestamps(&list), search_timestamps(&list));
            prop_assert_eq!(timestamps(&list), syn_options(&list).timestamps);
            prop_assert_eq!(sack_blocks(&list), search_sack_blocks(&list));
            if is_plain(&list) {
                prop_assert_eq!(list.is_empty(), timestamps(&list).is_none());
            }
        }
    }
}
