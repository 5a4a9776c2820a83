//! Connections that a service opens: to whom, how many, and when again.
//!
//! ```text
//!   due ──► open ──► up ──► ended ──► waits 1 s, 2 s, 4 s, … 30 s ──► due
//!              │                        ▲
//!              └── refused, timed out ──┘
//! ```

use super::tcp::Application;
use stack::tcp::TcpId;
use stack::tcp::listener::CongestionKind;
use stack::time::{Duration, Instant};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::SocketAddr;

/// Connections of a service to one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DialSpec {
    /// The peer.
    pub remote: SocketAddr,
    /// What serves them.
    pub application: Application,
    /// Their congestion control.
    pub congestion: CongestionKind,
    /// Small segments are not held back (RFC 9293 §3.7.4).
    pub nodelay: bool,
    /// How many.
    pub connections: u32,
}

impl DialSpec {
    /// Whether a connection of the one may go on under the other.
    fn serves_alike(&self, other: &Self) -> bool {
        self.remote == other.remote && self.application == other.application
    }
}

/// What both want: connections that may go on while the one takes over from the other.
#[must_use]
pub fn common(old: &[DialSpec], new: &[DialSpec]) -> Vec<DialSpec> {
    let both = |spec: &DialSpec| {
        let before = old.iter().find(|old| old.serves_alike(spec))?;
        Some(DialSpec {
            connections: spec.connections.min(before.connections),
            ..*spec
        })
    };
    new.iter().filter_map(both).collect()
}

/// One connection that is to be open.
#[derive(Clone, Copy, Debug)]
struct Dial {
    spec: DialSpec,
    state: State,
    /// Ends and failures since it last held.
    failures: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It is opened then.
    Waits(Instant),
    /// It was said to be due, and whoever was told opens it.
    Due,
    /// It is being opened, or open since then.
    Open(TcpId, Option<Instant>),
}

/// Wait before a connection is opened again for the first time: long enough for a peer that starts again,
/// short enough that nobody notices much. Doubled with each failure.
const WAIT_MIN: Duration = Duration::from_secs(1);
/// Longest wait: after an outage, all is as before within half a minute. A connection that has held for as long
/// was no failure.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Connections opened in one turn, at most: packets come first.
pub(super) const PER_TURN: usize = 16;

/// All of them.
#[derive(Debug)]
pub(super) struct Dials {
    /// By index, which a connection keeps for as long as it is wanted.
    dials: Vec<Option<Dial>>,
    /// When the next are due; entries whose dial says otherwise mean nothing.
    due: BinaryHeap<Reverse<(Instant, u32)>>,
    jitter: Jitter,
}

impl Dials {
    pub(super) fn new() -> Self {
        Self {
            dials: Vec::new(),
            due: BinaryHeap::new(),
            jitter: Jitter(RandomState::new().build_hasher().finish() | 1),
        }
    }

    /// Wants those of `specs` and no others from here on. Those that stay keep their connections;
    /// what is returned is to be ended.
    pub(super) fn set(&mut self, specs: &[DialSpec], now: Instant) -> Vec<TcpId> {
        let mut wanted = specs.to_vec();
        let mut ended = Vec::new();
        for entry in &mut self.dials {
            let Some(dial) = entry else { continue };
            let mut alike = wanted
                .iter_mut()
                .filter(|spec| spec.connections > 0 && spec.serves_alike(&dial.spec));
            if let Some(spec) = alike.next() {
                dial.spec = *spec;
                spec.connections -= 1;
                continue;
            }
            if let State::Open(id, _) = dial.state {
                ended.push(id);
            }
            *entry = None;
        }
        for spec in wanted {
            for _ in 0..spec.connections {
                let dial = Dial {
                    spec,
                    state: State::Waits(now),
                    failures: 0,
                };
                match self.dials.iter_mut().find(|entry| entry.is_none()) {
                    Some(free) => *free = Some(dial),
                    None => self.dials.push(Some(dial)),
                }
            }
        }
        // Room for all, so that nothing is allocated while packets flow.
        self.due.clear();
        self.due.reserve(self.dials.len());
        for (index, dial) in (0u32..).zip(&self.dials) {
            if let Some(Dial {
                state: State::Waits(at),
                ..
            }) = dial
            {
                self.due.push(Reverse((*at, index)));
            }
        }
        ended
    }

    /// Wants none.
    pub(super) fn clear(&mut self) {
        self.dials.clear();
        self.due.clear();
    }

    /// When the next one is due.
    #[inline]
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.due.peek().map(|Reverse((at, _))| *at)
    }

    /// The next one that is due, to be opened now: then it is [`open`](Self::open), or it
    /// [`ended`](Self::ended).
    pub(super) fn next_due(&mut self, now: Instant) -> Option<(u32, DialSpec)> {
        loop {
            let Reverse((at, _)) = self.due.peek()?;
            if *at > now {
                return None;
            }
            let Reverse((at, index)) = self.due.pop()?;
            if let Some(dial) = self.get(index)
                && dial.state == State::Waits(at)
            {
                dial.state = State::Due;
                return Some((index, dial.spec));
            }
        }
    }

    fn get(&mut self, index: u32) -> Option<&mut Dial> {
        self.dials.get_mut(index as usize)?.as_mut()
    }

    /// It is being opened.
    pub(super) fn open(&mut self, index: u32, id: TcpId) {
        if let Some(dial) = self.get(index) {
            dial.state = State::Open(id, None);
        }
    }

    /// Its handshake is complete.
    pub(super) fn up(&mut self, index: u32, now: Instant) {
        if let Some(dial) = self.get(index)
            && let State::Open(_, since) = &mut dial.state
        {
            *since = Some(now);
        }
    }

    /// It has ended, or could not be opened: it waits.
    pub(super) fn ended(&mut self, index: u32, now: Instant) {
        let jitter = &mut self.jitter;
        let Some(Some(dial)) = self.dials.get_mut(index as usize) else {
            return;
        };
        if let State::Open(_, Some(since)) = dial.state
            && now.saturating_since(since) >= WAIT_MAX
        {
            dial.failures = 0;
        }
        let at = now + jitter.around(wait(dial.failures));
        dial.failures = dial.failures.saturating_add(1);
        dial.state = State::Waits(at);
        self.due.push(Reverse((at, index)));
    }
}

/// The wait after so many failures before this one.
fn wait(failures: u32) -> Duration {
    // 2^5 seconds are longer than WAIT_MAX already.
    WAIT_MIN.saturating_mul(1 << failures.min(5)).min(WAIT_MAX)
}

/// Spreads waits, so that connections which ended together are not opened together (xorshift64).
#[derive(Debug)]
struct Jitter(u64);

impl Jitter {
    /// A quarter more or less.
    fn around(&mut self, wait: Duration) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let part = u32::try_from(self.0 >> 54).unwrap_or(0); // 0 to 1023
        wait * 3 / 4 + wait / 2 * part / 1024
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(port: u16, connections: u32) -> DialSpec {
        DialSpec {
            remote: SocketAddr::from(([192, 0, 2, 1], port)),
            application: Application::Echo,
            congestion: CongestionKind::Cubic,
            nodelay: true,
            connections,
        }
    }

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn all_due(dials: &mut Dials, now: Instant) -> Vec<(u32, u16)> {
        std::iter::from_fn(|| dials.next_due(now))
            .map(|(index, spec)| (index, spec.remote.port()))
            .collect()
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let seconds: Vec<u64> = (0..8).map(|failures| wait(failures).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(wait(u32::MAX), WAIT_MAX);
    }

    #[test]
    fn jitter_is_a_quarter_at_most_and_not_always_the_same() {
        let mut jitter = Jitter(7);
        let all: Vec<Duration> = (0..1000).map(|_| jitter.around(WAIT_MIN)).collect();
        let (least, most) = (Duration::from_millis(750), Duration::from_millis(1250));
        assert!(all.iter().all(|wait| (least..most).contains(wait)));
        let early = all.iter().filter(|wait| **wait < WAIT_MIN).count();
        assert!((300..700).contains(&early), "{early}");
    }

    #[test]
    fn each_is_due_once_and_waits_longer_each_time() {
        let mut dials = Dials::new();
        assert!(dials.set(&[spec(7, 2), spec(8, 1)], at(0)).is_empty());
        assert_eq!(all_due(&mut dials, at(0)), [(0, 7), (1, 7), (2, 8)]);
        assert_eq!(all_due(&mut dials, at(60_000)), []);
        let mut now = at(0);
        for failures in 0..10 {
            dials.ended(1, now);
            let next = dials.next_deadline().expect("it waits");
            let waited = next.saturating_since(now);
            let wait = wait(failures);
            assert!(
                waited >= wait * 3 / 4 && waited <= wait * 5 / 4,
                "{waited:?}"
            );
            assert_eq!(all_due(&mut dials, now), []);
            assert_eq!(all_due(&mut dials, next), [(1, 7)]);
            now = next;
        }
    }

    #[test]
    fn those_that_stay_are_not_due_again_and_others_are_gone() {
        let mut dials = Dials::new();
        dials.set(&[spec(7, 2), spec(8, 1)], at(0));
        assert_eq!(all_due(&mut dials, at(0)).len(), 3);
        dials.ended(1, at(0));
        let other = DialSpec {
            nodelay: false,
            ..spec(7, 3)
        };
        dials.set(&[other], at(1));
        // Two go on, one waits and one is new, in the place of the one that went.
        assert_eq!(all_due(&mut dials, at(1)), [(2, 7)]);
        assert_eq!(all_due(&mut dials, at(2000)), [(1, 7)]);
        dials.clear();
        dials.ended(1, at(0));
        assert_eq!(dials.next_deadline(), None);
    }
}
