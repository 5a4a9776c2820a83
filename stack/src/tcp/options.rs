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
    /// see `tcp::isn`.
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
