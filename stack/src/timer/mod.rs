//! Timers in a hierarchical wheel: setting, moving and stopping one takes the same few steps however
//! many there are (Varghese and Lauck, 1987, scheme 7).
//!
//! ```text
//!  level    a slot is         a turn is
//!    0      1 tick, 65.5 µs   4.2 ms      │0│1│2│…│63│
//!    1      4.2 ms            268 ms      │0│1│2│…│63│   each slot is a doubly linked list
//!    2      268 ms            17.2 s      │0│1│2│…│63│   through the nodes, and has a bit in
//!    3      17.2 s            18.3 min    │0│1│2│…│63│   its level's map if it is not empty
//!    4      18.3 min          19.5 h      │0│1│2│…│63│
//!  later    whatever is beyond the turn of level 4
//! ```
//!
//! A timer's place follows from the tick it is due at and from the current tick: the level is that of
//! the highest six bits in which they differ, the slot is these bits of the due tick. So all that is
//! in a level lies ahead of its hand, and in the turn under way. When the hand of a level comes to a
//! slot, the slot's timers move down to where they then belong; those of level 0 are due.

use crate::time::Instant;
use alloc::boxed::Box;
use alloc::vec;

/// log₂ of the length of a tick in nanoseconds: 65.5 µs.
///
/// Longer, and the shortest timeouts (1 ms, the lowest RTO that can be configured) would be
/// inexact by a tenth; shorter, and five levels would not reach a day, and hands move more often.
const TICK_LOG2: u32 = 16;
/// Length of a tick, in nanoseconds.
pub const TICK_NS: u64 = 1 << TICK_LOG2;

/// log₂ of the slots of a level: as many as a map of 64 bits has.
const SLOT_BITS: u32 = 6;
const SLOTS: u32 = 1 << SLOT_BITS;
/// Five levels reach 19.5 hours ahead: longer than any timeout anybody sets for TCP, keep-alive after
/// two hours included. What is set further ahead waits apart and costs more once in 19.5 hours.
const LEVELS: u32 = 5;
const WHEEL_BITS: u32 = SLOT_BITS * LEVELS;

/// Number of the list of what is beyond the wheel.
const LATER: u32 = SLOTS * LEVELS;
const LISTS: usize = LATER as usize + 1;

/// No node.
const NONE: u32 = u32::MAX;
/// In [`Node::prev`]: the rest of the bits are the number of the list whose first node it is.
const FIRST_OF: u32 = 1 << 31;

/// Where a timer is.
#[derive(Clone, Copy, Debug)]
struct Node {
    /// When it is due, in ticks.
    tick: u64,
    next: u32,
    /// [`NONE`] if it is not scheduled.
    prev: u32,
}

const _: () = assert!(size_of::<Node>() <= 16);

impl Node {
    const IDLE: Node = Node {
        tick: u64::MAX,
        next: NONE,
        prev: NONE,
    };
}

/// Timers with the numbers 0 to `ids` − 1, each either stopped or due at some time.
#[derive(Clone, Debug)]
pub struct Wheel {
    nodes: Box<[Node]>,
    /// The first node of each slot, level by level, then that of [`LATER`].
    first: [u32; LISTS],
    /// Which slots are not empty.
    occupied: [u64; LEVELS as usize],
    /// Where the hands are: all that was due before has been returned, and what is due at this tick
    /// is in its slot of level 0.
    current: u64,
    /// The latest tick [`pop`](Self::pop) was asked about.
    seen: u64,
}

impl Wheel {
    /// With all timers stopped. Takes 16 bytes a timer.
    ///
    /// # Panics
    /// If `ids` is more than 2³¹.
    #[must_use]
    pub fn new(ids: usize) -> Self {
        assert!(
            ids <= FIRST_OF as usize,
            "invariant: a timer's number has 31 bits"
        );
        Self {
            nodes: vec![Node::IDLE; ids].into_boxed_slice(),
            first: [NONE; LISTS],
            occupied: [0; LEVELS as usize],
            current: 0,
            seen: 0,
        }
    }

    /// Sets timer `id` to `at`, wherever it was before. It fires not before `at` and less than a tick
    /// after it; if `at` is over already, with the next tick; at the end of time, never.
    ///
    /// # Panics
    /// If there is no such timer.
    #[inline]
    pub fn schedule(&mut self, id: u32, at: Instant) {
        self.set(id, self.nodes[id as usize], self.tick_of(at));
    }

    /// Makes sure that timer `id` fires at `at` or earlier: what is set already for an earlier time
    /// stays. For timeouts that mostly move away before they are reached: let the timer fire, and set
    /// it anew then.
    ///
    /// # Panics
    /// If there is no such timer.
    #[inline]
    pub fn schedule_no_later(&mut self, id: u32, at: Instant) {
        let (node, tick) = (self.nodes[id as usize], self.tick_of(at));
        // One that is stopped is set to the end of time.
        if tick < node.tick {
            self.set(id, node, tick);
        }
    }

    /// Stops timer `id`; nothing happens if it is stopped already.
    ///
    /// # Panics
    /// If there is no such timer.
    #[inline]
    pub fn cancel(&mut self, id: u32) {
        let node = self.nodes[id as usize];
        if node.prev != NONE {
            self.unlink(node);
            self.nodes[id as usize] = Node::IDLE;
        }
    }

    /// Whether timer `id` will fire.
    ///
    /// # Panics
    /// If there is no such timer.
    #[inline]
    #[must_use]
    pub fn is_scheduled(&self, id: u32) -> bool {
        self.nodes[id as usize].prev != NONE
    }

    /// How many timers there are, stopped or not.
    #[must_use]
    pub fn ids(&self) -> usize {
        self.nodes.len()
    }

    /// How many will fire. Counts them one by one: for tests and reports.
    #[must_use]
    pub fn scheduled(&self) -> usize {
        self.nodes.iter().filter(|node| node.prev != NONE).count()
    }

    /// Stops a timer that is due at `now` and returns its number; ticks in ascending order, the
    /// timers of one tick in any. `None` when none is left. Whatever is scheduled between two calls
    /// with the same `now` is not due at that `now`, so that a loop over them ends.
    #[inline]
    pub fn pop(&mut self, now: Instant) -> Option<u32> {
        let target = now.as_nanos() >> TICK_LOG2;
        let due = self.occupied[0] >> (target % u64::from(SLOTS)) & 1;
        // Whoever asks often finds the hands where they were; and nothing can be set for them since.
        if target == self.current && due == 0 {
            return None;
        }
        self.pop_until(target)
    }

    /// Calls `due` with the number of each timer that is due at `now`, as [`pop`](Self::pop) does.
    pub fn expire(&mut self, now: Instant, mut due: impl FnMut(u32)) {
        while let Some(id) = self.pop(now) {
            due(id);
        }
    }

    /// A time before which no timer is due: whoever sleeps until then misses none. It may be earlier
    /// than the first timer, when some have to move to a lower level first. `None` if none is set.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        if self.first[slot(self.current, 0) as usize] != NONE {
            return Some(instant(self.current));
        }
        self.next_tick().map(|(tick, _)| instant(tick))
    }

    /// The first tick that ends at or after `at` and has not been asked about.
    #[inline]
    fn tick_of(&self, at: Instant) -> u64 {
        at.as_nanos().div_ceil(TICK_NS).max(self.seen + 1)
    }

    #[inline(never)]
    fn pop_until(&mut self, target: u64) -> Option<u32> {
        if target < self.current {
            return None;
        }
        self.seen = self.seen.max(target);
        loop {
            let id = self.first[slot(self.current, 0) as usize];
            if id != NONE {
                self.cancel(id);
                return Some(id);
            }
            match self.next_tick() {
                Some((tick, level)) if tick <= target => self.turn(tick, level, target),
                // Nothing has to move on the way.
                _ => {
                    self.current = target;
                    return None;
                }
            }
        }
    }

    /// The next tick when a hand comes to a slot that is not empty, and that hand's level, which is
    /// [`LEVELS`] for what is beyond the wheel.
    fn next_tick(&self) -> Option<(u64, u32)> {
        for (level, occupied) in (0..).zip(self.occupied) {
            let shift = level * SLOT_BITS;
            let hand = self.current >> shift;
            // The slots ahead of the hand: there are none at or behind it.
            let ahead = occupied & (!1 << (hand % u64::from(SLOTS)));
            if ahead != 0 {
                let turn = hand & !(u64::from(SLOTS) - 1);
                return Some(((turn | u64::from(ahead.trailing_zeros())) << shift, level));
            }
        }
        let turn = self.current >> WHEEL_BITS;
        (self.first[LATER as usize] != NONE).then(|| ((turn + 1) << WHEEL_BITS, LEVELS))
    }

    /// Moves the hands to `tick`, and what is in the slot of `level` there to where it now belongs.
    fn turn(&mut self, tick: u64, level: u32, target: u64) {
        self.current = tick;
        // At level 0 it is there already.
        if level == 0 {
            return;
        }
        let list = if level < LEVELS {
            let list = slot(tick, level);
            self.occupied[level as usize] &= !(1 << (list % SLOTS));
            list
        } else {
            // If even the first of them is turns away, the turns between are empty.
            let turn = self.first_later().min(target) >> WHEEL_BITS;
            self.current = tick.max(turn << WHEEL_BITS);
            LATER
        };
        let mut id = core::mem::replace(&mut self.first[list as usize], NONE);
        while id != NONE {
            let Node { tick, next, .. } = self.nodes[id as usize];
            self.link(id, tick);
            id = next;
        }
    }

    /// The first tick at which something beyond the wheel is due.
    fn first_later(&self) -> u64 {
        let (mut id, mut first) = (self.first[LATER as usize], u64::MAX);
        while id != NONE {
            let Node { tick, next, .. } = self.nodes[id as usize];
            first = first.min(tick);
            id = next;
        }
        first
    }

    /// Moves timer `id`, whose node is `node`, to `tick`.
    #[inline]
    fn set(&mut self, id: u32, node: Node, tick: u64) {
        if node.tick == tick {
            return;
        }
        if node.prev != NONE {
            self.unlink(node);
        }
        self.link(id, tick);
    }

    /// Puts a node that is in no list where `tick`, which is not over, belongs.
    #[inline]
    fn link(&mut self, id: u32, tick: u64) {
        // The lowest bits do not decide between levels; with them there is always a highest bit.
        let differing = (tick ^ self.current) | (u64::from(SLOTS) - 1);
        let level = differing.ilog2() / SLOT_BITS;
        let list = match self.occupied.get_mut(level as usize) {
            Some(occupied) => {
                let list = slot(tick, level);
                *occupied |= 1 << (list % SLOTS);
                list
            }
            None => LATER,
        };
        let next = core::mem::replace(&mut self.first[list as usize], id);
        if next != NONE {
            self.nodes[next as usize].prev = id;
        }
        let prev = FIRST_OF | list;
        self.nodes[id as usize] = Node { tick, next, prev };
    }

    /// Takes a node out of its list; what it says of its place is void then.
    #[inline]
    fn unlink(&mut self, node: Node) {
        let Node {
            tick: _,
            next,
            prev,
        } = node;
        if next != NONE {
            self.nodes[next as usize].prev = prev;
        }
        if prev & FIRST_OF == 0 {
            self.nodes[prev as usize].next = next;
            return;
        }
        let list = prev & !FIRST_OF;
        self.first[list as usize] = next;
        if next == NONE
            && let Some(occupied) = self.occupied.get_mut((list / SLOTS) as usize)
        {
            *occupied &= !(1 << (list % SLOTS));
        }
    }
}

/// Number of the list that `tick` belongs to at `level`.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "six bits are left of the tick"
)]
const fn slot(tick: u64, level: u32) -> u32 {
    level * SLOTS + (tick >> (level * SLOT_BITS)) as u32 % SLOTS
}

/// When `tick` starts; the last one starts with the end of time.
const fn instant(tick: u64) -> Instant {
    Instant::from_nanos(tick.saturating_mul(TICK_NS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    /// The same, slowly: each timer's time as it was asked for, and when it was set.
    struct Oracle {
        set: BTreeMap<u32, Instant>,
        seen: u64,
    }

    impl Oracle {
        /// The tick that timers set to `at` now fire at.
        fn tick(&self, at: Instant) -> u64 {
            let whole = at.as_nanos() / TICK_NS;
            let up = u64::from(!at.as_nanos().is_multiple_of(TICK_NS));
            (whole + up).max(self.seen + 1)
        }
    }

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    fn due(wheel: &mut Wheel, nanos: u64) -> Vec<u32> {
        let mut ids = Vec::new();
        wheel.expire(at(nanos), |id| ids.push(id));
        ids.sort_unstable();
        ids
    }

    #[test]
    fn a_node_has_16_bytes() {
        assert_eq!(size_of::<Node>(), 16);
    }

    #[test]
    fn nothing_fires_early_and_nothing_a_tick_late() {
        for level in 0..=LEVELS + 1 {
            let wanted = (1 << (TICK_LOG2 + SLOT_BITS * level)) + 5;
            let mut wheel = Wheel::new(1);
            wheel.schedule(0, at(wanted));
            assert_eq!(due(&mut wheel, wanted - 1), []);
            assert!(wheel.is_scheduled(0));
            assert_eq!(due(&mut wheel, wanted + TICK_NS), [0], "level {level}");
            assert!(!wheel.is_scheduled(0));
        }
    }

    #[test]
    fn a_time_on_a_tick_fires_with_it() {
        let mut wheel = Wheel::new(1);
        wheel.schedule(0, at(TICK_NS * 70));
        assert_eq!(due(&mut wheel, TICK_NS * 70 - 1), []);
        assert_eq!(due(&mut wheel, TICK_NS * 70), [0]);
    }

    #[test]
    fn what_is_over_fires_with_the_next_tick_and_not_again_now() {
        let mut wheel = Wheel::new(2);
        let now = 1_000_000_000;
        assert_eq!(due(&mut wheel, now), []);
        wheel.schedule(0, at(5));
        wheel.schedule(1, at(now));
        assert_eq!(due(&mut wheel, now), []);
        assert_eq!(due(&mut wheel, now + TICK_NS), [0, 1]);
        // Whoever sets a timer to now whenever it fires does not loop for ever.
        wheel.schedule(0, at(now));
        let later = now + 1000 * TICK_NS;
        let mut times = 0;
        while let Some(id) = wheel.pop(at(later)) {
            wheel.schedule(id, at(now));
            times += 1;
        }
        assert_eq!(times, 1);
    }

    #[test]
    fn ticks_come_in_order() {
        let mut wheel = Wheel::new(300);
        for id in 0..300 {
            wheel.schedule(id, at(u64::from(id * 7919 % 300) * 1_000_000));
        }
        let (mut order, mut last) = (Vec::new(), 0);
        wheel.expire(at(400_000_000), |id| order.push(id * 7919 % 300));
        for place in order {
            assert!(place >= last, "{place} after {last}");
            last = place;
        }
        assert_eq!(last, 299);
    }

    #[test]
    fn a_timer_moves_and_stops() {
        let mut wheel = Wheel::new(3);
        for id in 0..3 {
            wheel.schedule(id, at(1_000_000));
        }
        wheel.schedule(1, at(9_000_000));
        wheel.cancel(2);
        wheel.cancel(2);
        assert_eq!(wheel.scheduled(), 2);
        assert_eq!(due(&mut wheel, 2_000_000), [0]);
        assert_eq!(due(&mut wheel, 10_000_000), [1]);
        assert_eq!((wheel.scheduled(), wheel.next()), (0, None));
    }

    #[test]
    fn no_later_only_moves_forward() {
        let mut wheel = Wheel::new(1);
        wheel.schedule_no_later(0, at(5_000_000));
        wheel.schedule_no_later(0, at(9_000_000));
        assert_eq!(due(&mut wheel, 6_000_000), [0]);
        wheel.schedule_no_later(0, at(9_000_000));
        wheel.schedule_no_later(0, at(7_000_000));
        assert_eq!(due(&mut wheel, 8_000_000), [0]);
    }

    #[test]
    fn the_ends_of_time() {
        let mut wheel = Wheel::new(2);
        wheel.schedule(0, at(u64::MAX));
        wheel.schedule(1, at(u64::MAX - (1 << 50)));
        assert_eq!(due(&mut wheel, u64::MAX - (1 << 51)), []);
        assert_eq!(due(&mut wheel, u64::MAX - (1 << 49)), [1]);
        assert_eq!(due(&mut wheel, u64::MAX - (1 << 49)), []);
        // Nothing comes after the end of time: what is set to it never fires.
        assert_eq!(due(&mut wheel, u64::MAX), []);
        assert_eq!(wheel.next(), Some(at(u64::MAX)));
        assert_eq!(due(&mut Wheel::new(0), u64::MAX), []);
    }

    #[test]
    fn a_clock_that_goes_back_fires_nothing() {
        let mut wheel = Wheel::new(1);
        assert_eq!(due(&mut wheel, 1 << 40), []);
        wheel.schedule(0, at(1 << 30));
        assert_eq!(due(&mut wheel, 1 << 39), []);
        assert_eq!(due(&mut wheel, (1 << 40) + TICK_NS), [0]);
    }

    /// Whoever sleeps until [`Wheel::next`] wakes once for each level at most, and in time.
    #[test]
    fn sleeping_until_next_reaches_the_timer() {
        for log2 in 0..63 {
            let wanted = (1_u64 << log2) + 12_345;
            let mut wheel = Wheel::new(1);
            assert_eq!(due(&mut wheel, 777_777), []);
            wheel.schedule(0, at(wanted));
            let mut wakes = 0;
            loop {
                let next = wheel.next().expect("it is set");
                wakes += 1;
                if wheel.pop(next).is_some() {
                    assert!(next >= at(wanted) && next.as_nanos() < wanted.max(777_777) + TICK_NS);
                    break;
                }
                assert!(wakes <= LEVELS + 1 + (1 << (log2.max(46) - 46)), "{log2}");
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Schedule(u32, u64),
        NoLater(u32, u64),
        Cancel(u32),
        Advance(u64),
        Sleep,
    }

    /// Times of every magnitude, so that every level is used.
    fn delay() -> impl Strategy<Value = u64> {
        (0u32..50, any::<u64>()).prop_map(|(bits, value)| value & ((1 << bits) - 1))
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u32..32, delay()).prop_map(|(id, delay)| Step::Schedule(id, delay)),
            1 => (0u32..32, delay()).prop_map(|(id, delay)| Step::NoLater(id, delay)),
            1 => (0u32..32).prop_map(Step::Cancel),
            2 => delay().prop_map(Step::Advance),
            2 => Just(Step::Sleep),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]
        #[test]
        fn fires_what_a_sorted_map_does(
            start in delay(), steps in proptest::collection::vec(step(), 0..60),
        ) {
            let mut wheel = Wheel::new(32);
            let mut oracle = Oracle { set: BTreeMap::new(), seen: 0 };
            let mut now = at(start);
            // id -> (tick it fires at, time it was set to)
            let mut ticks: BTreeMap<u32, u64> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Schedule(id, delay) => {
                        let time = at(now.as_nanos() + delay);
                        wheel.schedule(id, time);
                        oracle.set.insert(id, time);
                        ticks.insert(id, oracle.tick(time));
                        continue;
                    }
                    Step::NoLater(id, delay) => {
                        let time = at(now.as_nanos() + delay);
                        wheel.schedule_no_later(id, time);
                        let tick = oracle.tick(time);
                        if ticks.get(&id).is_none_or(|&set| tick < set) {
                            oracle.set.insert(id, time);
                            ticks.insert(id, tick);
                        }
                        continue;
                    }
                    Step::Cancel(id) => {
                        wheel.cancel(id);
                        oracle.set.remove(&id);
                        ticks.remove(&id);
                        continue;
                    }
                    Step::Advance(delay) => now = at(now.as_nanos() + delay),
                    Step::Sleep => {
                        let next = wheel.next();
                        prop_assert_eq!(next.is_some(), !ticks.is_empty());
                        if let (Some(next), Some(&first)) = (next, ticks.values().min()) {
                            prop_assert!(next.as_nanos() <= first * TICK_NS, "sleeps too long");
                            now = now.max(next);
                        }
                    }
                }
                let target = now.as_nanos() / TICK_NS;
                oracle.seen = oracle.seen.max(target);
                let mut last = 0;
                while let Some(id) = wheel.pop(now) {
                    let tick = ticks.remove(&id);
                    prop_assert!(tick.is_some_and(|tick| last <= tick && tick <= target));
                    prop_assert!(oracle.set.remove(&id).unwrap() <= now, "early");
                    last = tick.unwrap_or(last);
                    prop_assert!(!wheel.is_scheduled(id));
                }
                prop_assert!(ticks.values().all(|&tick| tick > target), "forgotten");
                prop_assert_eq!(wheel.scheduled(), ticks.len());
            }
        }
    }
}
