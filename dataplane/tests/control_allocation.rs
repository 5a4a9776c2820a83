//! What a worker does for the observers allocates nothing once it runs.
// The lint knows test functions, but not what helps them.
#![allow(clippy::unwrap_used)]

#[path = "../../stack/tests/support/allocator.rs"]
mod allocator;

use allocator::allocations;
use dataplane::observe::{
    latency::{HIGHEST_NS, Stage},
    snapshot::exchange,
};

#[test]
fn recording_and_publishing_allocate_nothing() {
    let (mut collector, mut publisher, mut latency) = exchange([0u64; 64], 3).unwrap();
    let counters = [7u64; 64];
    for round in 0..3 {
        let recorded = allocations(|| {
            let mut ns = 0;
            while ns < 2 * HIGHEST_NS {
                for &stage in Stage::ALL {
                    latency.record(stage, ns);
                    latency.record_n(stage, ns, 32);
                }
                ns = ns * 3 / 2 + 1;
            }
        });
        assert_eq!(recorded, 0, "round {round}");
        collector.ask();
        assert_eq!(
            allocations(|| assert!(publisher.publish(&counters, &mut latency))),
            0
        );
        assert_eq!(
            allocations(|| assert!(!publisher.publish(&counters, &mut latency))),
            0
        );
        assert!(collector.take());
        assert_eq!(collector.counters(), &counters);
    }
}
