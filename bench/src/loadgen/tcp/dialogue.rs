//! What is said on a connection: requests and their replies ([`Exchange`]), or bytes without end
//! ([`Bulk`]); HTTP is in [`http`](super::http). A dialogue knows neither sockets nor clocks.

use super::failure::Failure;
use super::pattern::{Pattern, RUN};
use crate::loadgen::size::Sizes;

/// What is said on each connection. `Talk` is what is kept of one.
pub trait Dialogue {
    /// The state of one connection's talk.
    type Talk: Default;
    /// Whether there are requests with replies, which are counted and timed; or bytes alone.
    const ASKS: bool;

    /// A connection is open.
    fn begin(&mut self, talk: &mut Self::Talk);
    /// The next request is to be sent.
    fn ask(&mut self, talk: &mut Self::Talk);
    /// What is to be sent now; nothing if all of it is.
    fn outgoing<'a>(&'a self, talk: &'a Self::Talk) -> &'a [u8];
    /// That many bytes of [`outgoing`](Self::outgoing) were taken.
    fn sent(&mut self, talk: &mut Self::Talk, bytes: usize);
    /// Bytes came.
    fn incoming(&mut self, talk: &mut Self::Talk, bytes: &[u8]) -> Progress;
    /// The peer will send nothing more.
    fn ended(&mut self, talk: &mut Self::Talk) -> Progress {
        let _ = talk;
        Progress::Failed(Failure::Closed)
    }
    /// A request as clients send it that mean no good, to be repeated without end.
    fn sample(&mut self) -> Vec<u8>;
}

/// How far a reply is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is more to come.
    More,
    /// It is there.
    Done(Reply),
    /// It will not come, or is not what it should be.
    Failed(Failure),
}

/// A whole reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// What is wrong with it; the connection is as good as before.
    pub failure: Option<Failure>,
    /// Whether the connection takes no other request.
    pub closing: bool,
}

impl Reply {
    /// As it should be.
    pub const GOOD: Self = Self {
        failure: None,
        closing: false,
    };
}

/// Requests of some size, and replies: echoes, or of a size the request asks for.
///
/// ```text
///   echo        │ pattern, request bytes │            ──►   the same
///
///   sized       0        4         8         12            16
///   (16 bytes   ├────────┼─────────┼─────────┼─────────────┼───────────┐
///   at least)   │ "lgRQ" │ request │  reply  │ reply start │ pattern … │  ──►   │ pattern, reply bytes │
///               └────────┴─────────┴─────────┴─────────────┴───────────┘
/// ```
///
/// Big-endian. `loadgen serve` answers the sized ones: with the bytes of the pattern from `reply start`
/// on, which [`REPLY_SEED`] makes.
#[derive(Debug)]
pub struct Exchange {
    pattern: Pattern,
    replies: Pattern,
    request_sizes: Sizes,
    reply_sizes: Option<Sizes>,
    random: fastrand::Rng,
}

/// Bytes in front of a sized request's pattern.
pub const SIZED_HEADER_LEN: usize = 16;

/// The same, as sizes are told.
pub const SIZED_HEADER_BYTES: u32 = 16;
const _: () = assert!(SIZED_HEADER_BYTES as usize == SIZED_HEADER_LEN);

/// First bytes of a sized request.
pub const SIZED_MAGIC: [u8; 4] = *b"lgRQ";

/// Seed of the pattern of sized replies: both ends have to know it.
pub const REPLY_SEED: u64 = 0x6C67_5251;

/// An [`Exchange`] on one connection.
#[derive(Debug, Default)]
pub struct ExchangeTalk {
    /// Where its part of the pattern begins.
    start: u64,
    /// Bytes of the pattern sent.
    sent: u64,
    /// Bytes of the pattern that came back.
    received: u64,
    /// Of the sized request, the header and how much of it was sent.
    header: [u8; SIZED_HEADER_LEN],
    header_sent: usize,
    /// Of the request, bytes of the pattern still to be sent.
    to_send: u32,
    /// Of the reply, bytes still to come.
    to_receive: u32,
}

impl Exchange {
    /// Requests of `request_sizes`, answered by their echo, or by replies of `reply_sizes`; sizes and
    /// patterns are drawn from `seed`.
    #[must_use]
    pub fn new(request_sizes: Sizes, reply_sizes: Option<Sizes>, seed: u64) -> Self {
        Self {
            pattern: Pattern::random(seed),
            replies: Pattern::random(REPLY_SEED),
            request_sizes,
            reply_sizes,
            random: fastrand::Rng::with_seed(seed),
        }
    }
}

impl Dialogue for Exchange {
    type Talk = ExchangeTalk;
    const ASKS: bool = true;

    fn begin(&mut self, talk: &mut ExchangeTalk) {
        *talk = ExchangeTalk {
            start: u64::from(self.random.u32(..)),
            header_sent: SIZED_HEADER_LEN,
            ..ExchangeTalk::default()
        };
    }

    fn ask(&mut self, talk: &mut ExchangeTalk) {
        let request = self.request_sizes.draw(&mut self.random);
        let Some(sizes) = &self.reply_sizes else {
            talk.to_send = request;
            talk.to_receive = request;
            return;
        };
        let reply = sizes.draw(&mut self.random);
        talk.start = u64::from(self.random.u32(..));
        talk.received = 0;
        talk.header_sent = 0;
        // The command line admits no smaller request.
        talk.to_send = request.saturating_sub(SIZED_HEADER_BYTES);
        talk.to_receive = reply;
        let start = u32::try_from(talk.start).unwrap_or(0);
        talk.header[..4].copy_from_slice(&SIZED_MAGIC);
        for (at, number) in [(4, request), (8, reply), (12, start)] {
            talk.header[at..at + 4].copy_from_slice(&number.to_be_bytes());
        }
    }

    fn outgoing<'a>(&'a self, talk: &'a ExchangeTalk) -> &'a [u8] {
        if talk.header_sent < SIZED_HEADER_LEN {
            return &talk.header[talk.header_sent..];
        }
        let bytes = self.pattern.at(talk.start.wrapping_add(talk.sent));
        &bytes[..RUN.min(talk.to_send as usize)]
    }

    fn sent(&mut self, talk: &mut ExchangeTalk, bytes: usize) {
        if talk.header_sent < SIZED_HEADER_LEN {
            talk.header_sent += bytes;
            return;
        }
        talk.sent += bytes as u64;
        talk.to_send -= u32::try_from(bytes).expect("invariant: no more was sent than was to be");
    }

    fn incoming(&mut self, talk: &mut ExchangeTalk, bytes: &[u8]) -> Progress {
        let Some(left) = u32::try_from(bytes.len())
            .ok()
            .and_then(|len| talk.to_receive.checked_sub(len))
        else {
            return Progress::Failed(Failure::Unexpected);
        };
        let expected = if self.reply_sizes.is_some() {
            &self.replies
        } else {
            // An echo cannot be ahead of what it echoes.
            if talk.received + bytes.len() as u64 > talk.sent {
                return Progress::Failed(Failure::Corrupted);
            }
            &self.pattern
        };
        if !expected.matches(talk.start.wrapping_add(talk.received), bytes) {
            return Progress::Failed(Failure::Corrupted);
        }
        talk.received += bytes.len() as u64;
        talk.to_receive = left;
        if left > 0 {
            Progress::More
        } else {
            Progress::Done(Reply::GOOD)
        }
    }

    fn sample(&mut self) -> Vec<u8> {
        let mut talk = ExchangeTalk::default();
        self.begin(&mut talk);
        self.ask(&mut talk);
        let mut request = Vec::new();
        // Enough for a client that means no good, whatever the sizes are.
        while request.len() < RUN && !self.outgoing(&talk).is_empty() {
            let bytes = self.outgoing(&talk).to_vec();
            self.sent(&mut talk, bytes.len());
            request.extend(bytes);
        }
        request
    }
}

/// Which way bytes flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Direction {
    /// To the target, which throws them away.
    #[default]
    Up,
    /// From the target, which sends by itself.
    Down,
    /// Both ways at once.
    Both,
}

impl Direction {
    /// Its name on the command line and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Both => "both",
        }
    }
}

/// Bytes without end.
#[derive(Debug)]
pub struct Bulk {
    pattern: Pattern,
    direction: Direction,
    /// What is compared with what came; nothing if anything will do.
    expected: Option<Pattern>,
    /// Most bytes of one write.
    write: usize,
    random: fastrand::Rng,
}

/// [`Bulk`] on one connection.
#[derive(Debug, Default)]
pub struct BulkTalk {
    start: u64,
    sent: u64,
    received: u64,
}

impl Bulk {
    /// Bytes in `direction`, `write` of them at once. With `verify`, what comes has to be the characters of
    /// RFC 864 (down), or what was sent (both).
    #[must_use]
    pub fn new(direction: Direction, write: u32, verify: bool, seed: u64) -> Self {
        let pattern = Pattern::random(seed);
        let expected = match direction {
            Direction::Down if verify => Some(Pattern::chargen()),
            Direction::Both if verify => Some(pattern.clone()),
            _ => None,
        };
        Self {
            pattern,
            direction,
            expected,
            write: RUN.min(write as usize),
            random: fastrand::Rng::with_seed(seed),
        }
    }
}

impl Dialogue for Bulk {
    type Talk = BulkTalk;
    const ASKS: bool = false;

    fn begin(&mut self, talk: &mut BulkTalk) {
        *talk = BulkTalk {
            start: match self.direction {
                // A generator of characters begins at its beginning.
                Direction::Down => 0,
                Direction::Up | Direction::Both => u64::from(self.random.u32(..)),
            },
            sent: 0,
            received: 0,
        };
    }

    fn ask(&mut self, _: &mut BulkTalk) {}

    fn outgoing<'a>(&'a self, talk: &'a BulkTalk) -> &'a [u8] {
        match self.direction {
            Direction::Down => &[],
            Direction::Up | Direction::Both => {
                &self.pattern.at(talk.start.wrapping_add(talk.sent))[..self.write]
            }
        }
    }

    fn sent(&mut self, talk: &mut BulkTalk, bytes: usize) {
        talk.sent += bytes as u64;
    }

    fn incoming(&mut self, talk: &mut BulkTalk, bytes: &[u8]) -> Progress {
        let at = talk.start.wrapping_add(talk.received);
        talk.received += bytes.len() as u64;
        let ahead = self.direction == Direction::Both && talk.received > talk.sent;
        match &self.expected {
            Some(expected) if ahead || !expected.matches(at, bytes) => {
                Progress::Failed(Failure::Corrupted)
            }
            _ => Progress::More,
        }
    }

    fn sample(&mut self) -> Vec<u8> {
        self.pattern.at(0)[..self.write].to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Sends the request that was begun, in pieces of `piece` bytes at most.
    fn drain<D: Dialogue>(dialogue: &mut D, talk: &mut D::Talk, piece: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while !dialogue.outgoing(talk).is_empty() {
            let out = dialogue.outgoing(talk);
            let out = out[..piece.min(out.len())].to_vec();
            dialogue.sent(talk, out.len());
            all.extend(out);
        }
        all
    }

    fn echo(sizes: &str) -> (Exchange, ExchangeTalk) {
        let mut echo = Exchange::new(sizes.parse().unwrap(), None, 1);
        let mut talk = ExchangeTalk::default();
        echo.begin(&mut talk);
        (echo, talk)
    }

    #[test]
    fn what_nobody_asked_for_is_no_reply() {
        let (mut echo, mut talk) = echo("10");
        assert_eq!(
            echo.incoming(&mut talk, b"x"),
            Progress::Failed(Failure::Unexpected)
        );
        echo.ask(&mut talk);
        let mut request = drain(&mut echo, &mut talk, 10);
        request.push(0);
        assert_eq!(
            echo.incoming(&mut talk, &request),
            Progress::Failed(Failure::Unexpected)
        );
    }

    #[test]
    fn the_last_reply_again_and_a_reply_too_early_are_corrupted() {
        let (mut echo, mut talk) = echo("10");
        echo.ask(&mut talk);
        let request = drain(&mut echo, &mut talk, 10);
        assert_eq!(
            echo.incoming(&mut talk, &request),
            Progress::Done(Reply::GOOD)
        );
        echo.ask(&mut talk);
        let next = echo.outgoing(&talk).to_vec();
        assert_eq!(
            echo.incoming(&mut talk, &next),
            Progress::Failed(Failure::Corrupted),
            "nothing was sent yet"
        );
        drain(&mut echo, &mut talk, 10);
        assert_eq!(
            echo.incoming(&mut talk, &request),
            Progress::Failed(Failure::Corrupted)
        );
    }

    #[test]
    fn a_sized_request_says_what_it_wants() {
        let sizes = |text: &str| text.parse().unwrap();
        let mut exchange = Exchange::new(sizes("20"), Some(sizes("100000")), 1);
        let mut talk = ExchangeTalk::default();
        exchange.begin(&mut talk);
        for _ in 0..3 {
            exchange.ask(&mut talk);
            let request = drain(&mut exchange, &mut talk, 7);
            assert_eq!(request.len(), 20);
            assert_eq!(request[..4], SIZED_MAGIC);
            assert_eq!(request[4..8], 20u32.to_be_bytes());
            assert_eq!(request[8..12], 100_000u32.to_be_bytes());
            let start = u32::from_be_bytes(request[12..16].try_into().unwrap());
            let replies = Pattern::random(REPLY_SEED);
            let start = u64::from(start);
            assert_eq!(
                exchange.incoming(&mut talk, &replies.at(start)[..60_000]),
                Progress::More
            );
            assert_eq!(
                exchange.incoming(&mut talk, &replies.at(start + 60_000)[..40_000]),
                Progress::Done(Reply::GOOD)
            );
        }
        assert!(!exchange.sample().is_empty());
    }

    #[test]
    fn bulk_knows_what_comes() {
        let mut down = Bulk::new(Direction::Down, 1000, true, 1);
        let mut talk = BulkTalk::default();
        down.begin(&mut talk);
        assert!(down.outgoing(&talk).is_empty());
        let chargen = dataplane::handler::tcp::PATTERN;
        assert_eq!(down.incoming(&mut talk, &chargen[..100]), Progress::More);
        assert_eq!(down.incoming(&mut talk, &chargen[100..]), Progress::More);
        assert_eq!(
            down.incoming(&mut talk, &chargen[1..]),
            Progress::Failed(Failure::Corrupted)
        );

        let mut both = Bulk::new(Direction::Both, 1000, true, 1);
        both.begin(&mut talk);
        let out = both.outgoing(&talk).to_vec();
        assert_eq!(out.len(), 1000);
        both.sent(&mut talk, 600);
        assert_eq!(both.incoming(&mut talk, &out[..600]), Progress::More);
        assert_eq!(
            both.incoming(&mut talk, &out[600..]),
            Progress::Failed(Failure::Corrupted)
        );
    }

    proptest! {
        #[test]
        fn an_echo_in_any_pieces_is_a_reply(
            size in 1u32..200_000, out in 1usize..70_000, back in 1usize..70_000, rounds in 1..4,
            damage: Option<prop::sample::Index>,
        ) {
            let (mut echo, mut talk) = echo(&size.to_string());
            for _ in 0..rounds {
                echo.ask(&mut talk);
                let mut request = drain(&mut echo, &mut talk, out);
                prop_assert_eq!(request.len(), size as usize);
                if let Some(damage) = &damage {
                    request[damage.index(size as usize)] ^= 1;
                }
                let results: Vec<_> = request
                    .chunks(back)
                    .map(|piece| echo.incoming(&mut talk, piece))
                    .collect();
                if damage.is_some() {
                    prop_assert!(results.contains(&Progress::Failed(Failure::Corrupted)));
                    return Ok(());
                }
                let (last, before) = results.split_last().unwrap();
                prop_assert_eq!(*last, Progress::Done(Reply::GOOD));
                prop_assert!(before.iter().all(|one| *one == Progress::More));
            }
        }
    }
}
