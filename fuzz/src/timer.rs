//! The timer wheel beside a sorted map.

use crate::world::packets::Choices;
use stack::time::Instant;
use stack::timer::{TICK_NS, Wheel};
use std::collections::BTreeMap;

const IDS: u32 = 16;

/// Operations of four bytes: which, on which timer, and a time of any magnitude.
pub fn timer(data: &[u8]) {
    let mut choices = Choices::new(data);
    let mut wheel = Wheel::new(IDS as usize);
    let mut now = u64::from(choices.word()) << choices.below(40);
    // For each timer the tick it fires at, and the time it was set to.
    let mut set: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    let mut seen = 0;
    for step in choices.rest().chunks(4).take(512) {
        let mut choices = Choices::new(step);
        let what = choices.byte();
        let id = u32::from(what >> 4);
        let time = now.saturating_add(u64::from(choices.word()) << (choices.byte() % 40));
        let tick = time.div_ceil(TICK_NS).max(seen + 1);
        match what % 6 {
            0 | 1 => {
                wheel.schedule(id, Instant::from_nanos(time));
                set.insert(id, (tick, time));
            }
            2 => {
                wheel.schedule_no_later(id, Instant::from_nanos(time));
                if set.get(&id).is_none_or(|&(earlier, _)| tick < earlier) {
                    set.insert(id, (tick, time));
                }
            }
            3 => {
                wheel.cancel(id);
                set.remove(&id);
            }
            4 => now = time,
            _ => {
                let next = wheel.next().map(Instant::as_nanos);
                assert_eq!(next.is_some(), !set.is_empty());
                if let (Some(next), Some((first, _))) = (next, set.values().min()) {
                    assert!(next <= first.saturating_mul(TICK_NS), "sleeps too long");
                    now = now.max(next);
                }
            }
        }
        assert_eq!(wheel.is_scheduled(id), set.contains_key(&id));
        if what % 6 < 4 {
            continue;
        }
        seen = now / TICK_NS;
        let mut last = 0;
        while let Some(id) = wheel.pop(Instant::from_nanos(now)) {
            let (tick, time) = set.remove(&id).expect("it was set");
            assert!(time <= now, "early");
            assert!(last <= tick && tick <= seen, "out of order");
            assert!(!wheel.is_scheduled(id));
            last = tick;
        }
        assert!(set.values().all(|&(tick, _)| tick > seen), "forgotten");
        assert_eq!(wheel.scheduled(), set.len());
    }
}
