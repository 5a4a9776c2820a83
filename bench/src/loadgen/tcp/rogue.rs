//! Clients that mean no good, or are broken: what a server has to live with. They come on top of the
//! load and are counted apart, so that the load's own figures say what they cost the others.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::str::FromStr;

use super::tally::RogueTally;
use super::transport::{Ending, Hearing, Received, Transport};
use crate::clock::SECOND_NS;

/// What a client does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misbehavior {
    /// Sends SYNs and never hears the answer.
    SynOnly,
    /// Asks once, and then acknowledges nothing.
    NeverAck,
    /// Asks as fast as it can and reads no reply.
    NeverRead,
    /// Asks once, and stays when the server closes.
    NeverClose,
    /// Sends its requests one byte at a time, a hundred a second.
    ByteByByte,
}

impl Misbehavior {
    const ALL: [Self; 5] = [
        Self::SynOnly,
        Self::NeverAck,
        Self::NeverRead,
        Self::NeverClose,
        Self::ByteByByte,
    ];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SynOnly => "syn-only",
            Self::NeverAck => "never-ack",
            Self::NeverRead => "never-read",
            Self::NeverClose => "never-close",
            Self::ByteByByte => "byte-by-byte",
        }
    }
}

/// So many clients of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RogueSpec {
    /// What they do.
    pub misbehavior: Misbehavior,
    /// How many there are.
    pub count: u32,
}

/// Most misbehaving clients of a kind: more than there are ports for one address and target.
const COUNT_MAX: u32 = 1_000_000;

impl FromStr for RogueSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, count) = text.split_once('=').unwrap_or((text, "1"));
        let misbehavior = Misbehavior::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| {
                let names: Vec<_> = Misbehavior::ALL.iter().map(|kind| kind.name()).collect();
                format!("`{name}` is none of {}", names.join(", "))
            })?;
        match count.parse() {
            Ok(count @ 1..=COUNT_MAX) => Ok(Self { misbehavior, count }),
            _ => Err(format!("expected 1 to {COUNT_MAX} clients, not `{count}`")),
        }
    }
}

impl fmt::Display for RogueSpec {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}={}", self.misbehavior.name(), self.count)
    }
}

/// Time between two bytes of one that sends them one by one: as slow-request attacks do, and often enough
/// to keep most servers from giving up.
const BYTE_GAP_NS: u64 = SECOND_NS / 100;

/// How long one waits that the target has ended, before it comes again.
const REOPEN_NS: u64 = SECOND_NS;

/// Writes in a row of one that never reads, before the others get their turn.
const WRITES_PER_TURN: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Vacant,
    Opening,
    Open,
}

#[derive(Debug)]
struct Rogue {
    misbehavior: Misbehavior,
    phase: Phase,
    /// Bytes of the sample sent.
    at: usize,
}

/// The misbehaving clients of one thread, in the slots behind those of its load.
#[derive(Debug)]
pub(super) struct Rogues {
    first_slot: u32,
    rogues: Vec<Rogue>,
    /// What they ask, again and again; not empty.
    sample: Vec<u8>,
    /// When which is to open its connection, or to send its next byte.
    timers: BinaryHeap<Reverse<(u64, u32)>>,
    pub(super) tally: RogueTally,
}

impl Rogues {
    /// Those of `kinds`, each begun `interval_ns` behind the one before it, from `start_ns` on.
    pub(super) fn new(
        kinds: &[Misbehavior],
        first_slot: u32,
        sample: Vec<u8>,
        start_ns: u64,
        interval_ns: u64,
    ) -> Self {
        let rogue = |&misbehavior| Rogue {
            misbehavior,
            phase: Phase::Vacant,
            at: 0,
        };
        let timers = (0..kinds.len() as u64)
            .zip(first_slot..)
            .map(|(index, slot)| Reverse((start_ns.saturating_add(index * interval_ns), slot)))
            .collect();
        Self {
            first_slot,
            rogues: kinds.iter().map(rogue).collect(),
            sample,
            timers,
            tally: RogueTally::default(),
        }
    }

    /// Whether a slot is one of theirs.
    pub(super) fn own(&self, slot: u32) -> bool {
        slot >= self.first_slot
    }

    /// When something is to be done without news.
    pub(super) fn wake_at(&self) -> u64 {
        self.timers.peek().map_or(u64::MAX, |Reverse((at, _))| *at)
    }

    fn rogue(&mut self, slot: u32) -> Option<&mut Rogue> {
        self.rogues
            .get_mut(slot.checked_sub(self.first_slot)? as usize)
    }

    /// Does what is due.
    pub(super) fn expire<T: Transport>(&mut self, transport: &mut T, now: u64) {
        while self.wake_at() <= now {
            let Some(Reverse((_, slot))) = self.timers.pop() else {
                return;
            };
            let Some(rogue) = self.rogue(slot) else {
                continue;
            };
            match rogue.phase {
                Phase::Vacant => self.open(transport, slot, now),
                Phase::Opening => {}
                Phase::Open => self.send_byte(transport, slot, now),
            }
        }
    }

    fn open<T: Transport>(&mut self, transport: &mut T, slot: u32, now: u64) {
        self.tally.begun += 1;
        let Some(rogue) = self.rogue(slot) else {
            return;
        };
        rogue.phase = Phase::Opening;
        rogue.at = 0;
        let hearing = match rogue.misbehavior {
            Misbehavior::SynOnly => Hearing::Deaf,
            _ => Hearing::Normal,
        };
        if transport.open(slot, hearing).is_err() {
            self.ended(transport, slot, now);
        }
    }

    fn ended<T: Transport>(&mut self, transport: &mut T, slot: u32, now: u64) {
        transport.close(slot, Ending::Reset);
        self.tally.ended += 1;
        if let Some(rogue) = self.rogue(slot) {
            rogue.phase = Phase::Vacant;
        }
        self.timers.push(Reverse((now + REOPEN_NS, slot)));
    }

    /// There is news of a slot.
    pub(super) fn on_news<T: Transport>(&mut self, transport: &mut T, slot: u32, now: u64) {
        let Some(rogue) = self.rogue(slot) else {
            return;
        };
        let misbehavior = rogue.misbehavior;
        match rogue.phase {
            Phase::Vacant => {}
            Phase::Opening => match transport.is_open(slot) {
                Ok(false) => {}
                Ok(true) => {
                    rogue.phase = Phase::Open;
                    self.tally.established += 1;
                    self.begin(transport, slot, now);
                }
                Err(_) => self.ended(transport, slot, now),
            },
            Phase::Open => match misbehavior {
                Misbehavior::SynOnly | Misbehavior::NeverAck => {}
                Misbehavior::NeverRead => self.fill(transport, slot, now),
                Misbehavior::NeverClose => {
                    self.swallow(transport, slot, now);
                }
                Misbehavior::ByteByByte => {
                    if self.swallow(transport, slot, now) == Some(Received::End) {
                        self.ended(transport, slot, now);
                    }
                }
            },
        }
    }

    fn begin<T: Transport>(&mut self, transport: &mut T, slot: u32, now: u64) {
        let Some(rogue) = self.rogue(slot) else {
            return;
        };
        match rogue.misbehavior {
            Misbehavior::SynOnly => {}
            Misbehavior::NeverAck => {
                self.fill_once(transport, slot, now);
                transport.deafen(slot);
            }
            Misbehavior::NeverRead => self.fill(transport, slot, now),
            Misbehavior::NeverClose => {
                self.fill_once(transport, slot, now);
            }
            Misbehavior::ByteByByte => self.send_byte(transport, slot, now),
        }
    }

    /// Sends what is left of the sample. Says whether it was taken whole.
    fn fill_once<T: Transport>(&mut self, transport: &mut T, slot: u32, now: u64) -> bool {
        let Some(at) = self.rogue(slot).map(|rogue| rogue.at) else {
            return false;
        };
        let rest = &self.sample[at..];
        let len = rest.len();
        match transport.send(slot, rest) {
            Ok(sent) => {
                self.advance(slot, sent);
                sent == len
            }
            Err(_) => {
                self.ended(transport, slot, now);
                false
            }
        }
    }

    fn fill<T: Transport>(&mut self, transport: &mut T, slot: u32, now: u64) {
        for _ in 0..WRITES_PER_TURN {
            if !self.fill_once(transport, slot, now) {
                return;
            }
        }
        // There is room, and no news will say so. Not at once: the others are to have their turn.
        self.timers.push(Reverse((now + 1, slot)));
    }

    fn send_byte<T: Transport>(&mut self, transport: &mut T, slot: u32, now: u64) {
        let Some((misbehavior, at)) = self.rogue(slot).map(|rogue| (rogue.misbehavior, rogue.at))
        else {
            return;
        };
        match misbehavior {
            Misbehavior::NeverRead => return self.fill(transport, slot, now),
            Misbehavior::ByteByByte => {}
            _ => return,
        }
        match transport.send(slot, &self.sample[at..=at]) {
            Ok(sent) => {
                self.advance(slot, sent);
                self.timers.push(Reverse((now + BYTE_GAP_NS, slot)));
            }
            Err(_) => self.ended(transport, slot, now),
        }
    }

    fn advance(&mut self, slot: u32, sent: usize) {
        self.tally.sent_bytes += sent as u64;
        let len = self.sample.len();
        if let Some(rogue) = self.rogue(slot) {
            rogue.at = (rogue.at + sent) % len;
        }
    }

    /// Reads and forgets.
    fn swallow<T: Transport>(
        &mut self,
        transport: &mut T,
        slot: u32,
        now: u64,
    ) -> Option<Received> {
        loop {
            match transport.receive(slot, &mut |_| {}) {
                Ok(Received::Some) => {}
                Ok(received) => return Some(received),
                Err(_) => {
                    self.ended(transport, slot, now);
                    return None;
                }
            }
        }
    }

    /// Lets go of all.
    pub(super) fn close<T: Transport>(&mut self, transport: &mut T) {
        for (rogue, slot) in self.rogues.iter_mut().zip(self.first_slot..) {
            if rogue.phase != Phase::Vacant {
                transport.close(slot, Ending::Reset);
                rogue.phase = Phase::Vacant;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read() {
        let spec = |text: &str| text.parse::<RogueSpec>();
        assert_eq!(
            spec("syn-only=100"),
            Ok(RogueSpec {
                misbehavior: Misbehavior::SynOnly,
                count: 100
            })
        );
        assert_eq!(spec("never-read").unwrap().count, 1);
        for kind in Misbehavior::ALL {
            assert_eq!(spec(kind.name()).unwrap().misbehavior, kind);
        }
        assert!(spec("rude").unwrap_err().contains("byte-by-byte"));
        assert!(spec("never-ack=0").is_err());
    }
}
