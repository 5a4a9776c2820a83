//! What a worker does for the observers allocates nothing once it runs.
// A global allocator that counts has to be one.
#![allow(unsafe_code)]
// The lint knows test functions, but not what helps them.
#![allow(clippy::unwrap_used)]

use dataplane::observe::{
    latency::{HIGHEST_NS, Stage},
    snapshot::exchange,
};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is passed on to the system's allocator as it is; counting touches only a
// thread-local number that needs no destructor and no allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How many allocations `work` makes on this thread.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.with(Cell::get);
    work();
    ALLOCATIONS.with(Cell::get) - before
}

#[test]
fn the_counter_counts() {
    assert_eq!(
        allocations(|| drop(std::hint::black_box(Box::new(1u64)))),
        1
    );
}

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
