//! The four rings of an AF_XDP socket: single producer, single consumer, one side of each is ours
//! and the other the kernel's (`include/uapi/linux/if_xdp.h`, `net/xdp/xsk_queue.h`).
//!
//! ```text
//!   entry    0    1    2    3    4    5    6    7        size: a power of two
//!          ┌────┬────┬────┬────┬────┬────┬────┬────┐
//!          │    │    │ ██ │ ██ │ ██ │ ▒▒ │    │    │
//!          └────┴────┴────┴────┴────┴────┴────┴────┘
//!                      ▲              ▲    ▲
//!                      │              │    └─ written: our own, unpublished index
//!                      │              └────── producer (shared): readable up to here
//!                      └───────────────────── consumer (shared): writable from here, one lap on
//! ```
//!
//! Both shared indices run freely through 2³² and are masked on use, so `producer - consumer` is
//! the number of full entries without a wasted slot. Each side keeps a private copy of the other's
//! index and reads the shared one, a cache line that bounces between cores, only when the copy no
//! longer suffices. Publishing is one release store for a whole batch, which is why writing and
//! publishing are two calls.
//!
//! The same code runs over the kernel's mapping and over ordinary memory, where tests hold both
//! ends. Miri runs those, and the ones of `umem`, two of which leak memory because that is what they
//! test:
//!
//! ```text
//! MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-ignore-leaks" \
//!     cargo +nightly miri test -p dataplane --lib -- driver::ring driver::umem
//! ```
#![allow(unsafe_code)] // Shared memory with the kernel can only be reached through pointers.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Bit in a ring's flags word by which the kernel asks to be called (`XDP_RING_NEED_WAKEUP`).
const NEED_WAKEUP: u32 = 1;

/// What a ring's memory is made of. Dropped with the last ring that points into it.
pub(crate) trait RingMemory: Send + Sync {}

/// Where one ring lies. Whoever builds it promises what [`RingLayout::new`] asks for.
pub(crate) struct RingLayout<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    size: u32,
    _memory: Arc<dyn RingMemory>,
}

impl<T: Copy> RingLayout<T> {
    /// Describes a ring of `size` entries inside `memory`.
    ///
    /// # Safety
    ///
    /// All four pointers are aligned, valid for reads and writes (`entries` for `size` of them),
    /// and stay so for as long as `memory` lives. `size` is a power of two. Nobody but the one
    /// party on the other side of the ring, following the ring's protocol, writes there.
    pub(crate) unsafe fn new(
        producer: NonNull<AtomicU32>,
        consumer: NonNull<AtomicU32>,
        flags: NonNull<AtomicU32>,
        entries: NonNull<T>,
        size: u32,
        memory: Arc<dyn RingMemory>,
    ) -> Self {
        debug_assert!(size.is_power_of_two());
        Self {
            producer,
            consumer,
            flags,
            entries,
            size,
            _memory: memory,
        }
    }

    #[inline]
    fn producer(&self) -> &AtomicU32 {
        // SAFETY: valid for as long as `_memory`, by the promise made to `new`.
        unsafe { self.producer.as_ref() }
    }

    #[inline]
    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: valid for as long as `_memory`, by the promise made to `new`.
        unsafe { self.consumer.as_ref() }
    }

    #[inline]
    fn needs_wakeup(&self) -> bool {
        // SAFETY: valid for as long as `_memory`, by the promise made to `new`.
        let flags = unsafe { self.flags.as_ref() };
        // A hint: a value read too early is read again on the next turn (see `AfXdp::flush`).
        flags.load(Ordering::Relaxed) & NEED_WAKEUP != 0
    }

    /// The entry that a free-running `index` falls on.
    #[inline]
    fn entry(&self, index: u32) -> NonNull<T> {
        // SAFETY: masked to below `size`, and `entries` has `size` of them.
        unsafe { self.entries.add((index & (self.size - 1)) as usize) }
    }
}

/// The side of a ring that writes: fill and TX.
pub(crate) struct ProducerRing<T> {
    layout: RingLayout<T>,
    /// Entries written so far, published or not.
    written: u32,
    /// The consumer's index when last looked at.
    consumer_seen: u32,
}

// SAFETY: the pointers lead into memory that `_memory` (Send + Sync) keeps alive, and everything
// reached through `&self` is atomic; entries are written through `&mut self` only.
unsafe impl<T: Send> Send for ProducerRing<T> {}

impl<T: Copy> ProducerRing<T> {
    /// Takes the writing side.
    pub(crate) fn new(layout: RingLayout<T>) -> Self {
        let written = layout.producer().load(Ordering::Relaxed);
        let consumer_seen = layout.consumer().load(Ordering::Acquire);
        Self {
            layout,
            written,
            consumer_seen,
        }
    }

    /// Entries in the ring.
    pub(crate) fn size(&self) -> u32 {
        self.layout.size
    }

    /// How many of `wanted` entries can be written now: `wanted`, or less when the ring is fuller.
    #[inline]
    pub(crate) fn reserve(&mut self, wanted: u32) -> u32 {
        let mut room = self.room_seen();
        if room < wanted {
            // Acquire: the reader has finished with the entries it gave back.
            self.consumer_seen = self.layout.consumer().load(Ordering::Acquire);
            room = self.room_seen();
        }
        room.min(wanted)
    }

    #[inline]
    fn room_seen(&self) -> u32 {
        // Saturating: a reader that claims more than was written leaves no room, never a huge one.
        self.layout
            .size
            .saturating_sub(self.written.wrapping_sub(self.consumer_seen))
    }

    /// Writes the next entry without publishing it; a full ring hands it back.
    #[inline]
    pub(crate) fn write(&mut self, entry: T) -> Result<(), T> {
        if self.reserve(1) == 0 {
            return Err(entry);
        }
        // SAFETY: `reserve` saw that the reader is done with this entry, and it will not look at
        // it again before `submit` publishes it.
        unsafe { self.layout.entry(self.written).write(entry) };
        self.written = self.written.wrapping_add(1);
        Ok(())
    }

    /// Publishes everything written so far.
    #[inline]
    pub(crate) fn submit(&mut self) {
        // Release: the entries are in memory before the index that shows them.
        self.layout
            .producer()
            .store(self.written, Ordering::Release);
    }

    /// Entries written, published or not, that the reader has not taken yet. Reads the shared index.
    #[inline]
    pub(crate) fn backlog(&mut self) -> u32 {
        self.consumer_seen = self.layout.consumer().load(Ordering::Acquire);
        self.written.wrapping_sub(self.consumer_seen)
    }

    /// Whether nothing was written since the reader was last seen to have taken everything. Never
    /// true too early, and free: no shared memory is read.
    #[inline]
    pub(crate) fn known_empty(&self) -> bool {
        self.written == self.consumer_seen
    }

    /// Whether the kernel asks to be woken for this ring.
    #[inline]
    pub(crate) fn needs_wakeup(&self) -> bool {
        self.layout.needs_wakeup()
    }
}

/// The side of a ring that reads: RX and completion.
pub(crate) struct ConsumerRing<T> {
    layout: RingLayout<T>,
    /// Entries read so far, given back or not.
    read: u32,
    /// The producer's index when last looked at.
    producer_seen: u32,
}

// SAFETY: as for `ProducerRing`; entries are read through `&mut self` only.
unsafe impl<T: Send> Send for ConsumerRing<T> {}

impl<T: Copy> ConsumerRing<T> {
    /// Takes the reading side.
    pub(crate) fn new(layout: RingLayout<T>) -> Self {
        let read = layout.consumer().load(Ordering::Relaxed);
        let producer_seen = layout.producer().load(Ordering::Acquire);
        Self {
            layout,
            read,
            producer_seen,
        }
    }

    /// How many of `wanted` entries can be read now.
    #[inline]
    pub(crate) fn peek(&mut self, wanted: u32) -> u32 {
        let mut ready = self.producer_seen.wrapping_sub(self.read);
        if ready < wanted {
            // Acquire: the entries are in memory before the index that showed them.
            self.producer_seen = self.layout.producer().load(Ordering::Acquire);
            ready = self.producer_seen.wrapping_sub(self.read);
        }
        // A writer that claims more than the ring holds is believed up to one lap.
        ready.min(self.layout.size).min(wanted)
    }

    /// Reads the next entry of those the last [`peek`](Self::peek) saw. The writer cannot reuse
    /// it before [`release`](Self::release).
    #[inline]
    pub(crate) fn read(&mut self) -> Option<T> {
        if self.producer_seen == self.read {
            return None;
        }
        // SAFETY: published by the writer (acquired in `peek`), and not given back yet.
        let entry = unsafe { self.layout.entry(self.read).read() };
        self.read = self.read.wrapping_add(1);
        Some(entry)
    }

    /// Gives everything read so far back to the writer.
    #[inline]
    pub(crate) fn release(&mut self) {
        // Release: the entries are copied out before the index that lets them be overwritten.
        self.layout.consumer().store(self.read, Ordering::Release);
    }
}

#[cfg(test)]
pub(crate) mod ordinary {
    //! A ring over ordinary memory, both ends in hand.
    use super::*;
    use std::cell::UnsafeCell;

    struct Heap<T> {
        producer: AtomicU32,
        consumer: AtomicU32,
        flags: AtomicU32,
        entries: Box<[UnsafeCell<T>]>,
    }

    // SAFETY: the entries are only touched through the ring protocol.
    unsafe impl<T: Send> Sync for Heap<T> {}
    impl<T: Send> RingMemory for Heap<T> {}

    /// Both ends of a ring whose indices start at `start`.
    pub(crate) fn ring<T: Copy + Default + Send + 'static>(
        size: u32,
        start: u32,
    ) -> (ProducerRing<T>, ConsumerRing<T>) {
        let heap = Arc::new(Heap {
            producer: AtomicU32::new(start),
            consumer: AtomicU32::new(start),
            flags: AtomicU32::new(0),
            entries: (0..size).map(|_| UnsafeCell::new(T::default())).collect(),
        });
        let layout = || {
            // SAFETY: the pointers lead into `heap`, kept alive by the clone passed along; the one
            // producer and the one consumer below are the only parties. `UnsafeCell<T>` has the
            // layout of `T`, and permits writing behind a shared reference.
            unsafe {
                RingLayout::new(
                    NonNull::from(&heap.producer),
                    NonNull::from(&heap.consumer),
                    NonNull::from(&heap.flags),
                    NonNull::from(&*heap.entries).cast::<T>(),
                    size,
                    heap.clone(),
                )
            }
        };
        (ProducerRing::new(layout()), ConsumerRing::new(layout()))
    }
}

#[cfg(test)]
mod tests {
    use super::ordinary::ring;
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Reserve(u32),
        Write(u16),
        Submit,
        Peek(u32),
        Read(u16),
        Release,
        Backlog,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..20u32).prop_map(Step::Reserve),
            (1..12u16).prop_map(Step::Write),
            Just(Step::Submit),
            (0..20u32).prop_map(Step::Peek),
            (1..12u16).prop_map(Step::Read),
            Just(Step::Release),
            Just(Step::Backlog),
        ]
    }

    /// The oracle: what was written, published, read and given back, as plain queues.
    #[derive(Default)]
    struct Fifo {
        unpublished: VecDeque<u64>,
        published: VecDeque<u64>,
        read_unreleased: u32,
    }

    impl Fifo {
        fn in_ring(&self) -> u32 {
            u32::try_from(self.unpublished.len() + self.published.len()).unwrap()
                + self.read_unreleased
        }
    }

    fn check_against_fifo(size: u32, start: u32, steps: Vec<Step>) {
        let (mut producer, mut consumer) = ring::<u64>(size, start);
        let mut oracle = Fifo::default();
        // What the last peek saw: only those may be read.
        let mut seen = 0;
        let mut next = 0u64;
        for step in steps {
            match step {
                Step::Reserve(wanted) => {
                    let room = size - oracle.in_ring();
                    assert_eq!(producer.reserve(wanted), room.min(wanted));
                }
                Step::Write(count) => {
                    for _ in 0..count {
                        next += 1;
                        let full = oracle.in_ring() == size;
                        match producer.write(next) {
                            Ok(()) => {
                                assert!(!full, "wrote into a full ring");
                                oracle.unpublished.push_back(next);
                            }
                            Err(back) => {
                                assert!(full, "refused with room left");
                                assert_eq!(back, next);
                            }
                        }
                    }
                }
                Step::Submit => {
                    producer.submit();
                    oracle.published.append(&mut oracle.unpublished);
                }
                Step::Peek(wanted) => {
                    let ready = u32::try_from(oracle.published.len()).unwrap();
                    let peeked = consumer.peek(wanted);
                    assert_eq!(peeked, ready.min(wanted));
                    // A peek that its private copy satisfies does not look again.
                    seen = if seen >= wanted { seen } else { ready };
                }
                Step::Read(count) => {
                    for _ in 0..count {
                        let entry = consumer.read();
                        if seen == 0 {
                            assert_eq!(entry, None);
                        } else {
                            assert_eq!(entry, oracle.published.pop_front());
                            oracle.read_unreleased += 1;
                            seen -= 1;
                        }
                    }
                }
                Step::Release => {
                    consumer.release();
                    oracle.read_unreleased = 0;
                }
                // Not after every step: it refreshes the private copy that `reserve` relies on.
                Step::Backlog => assert_eq!(producer.backlog(), oracle.in_ring()),
            }
            assert!(!producer.known_empty() || oracle.in_ring() == 0);
        }
    }

    // Miri runs the same cases, fewer of them: each is some ten thousand times slower there.
    const CASES: u32 = if cfg!(miri) { 2 } else { 512 };
    const STEPS_MAX: usize = if cfg!(miri) { 40 } else { 200 };

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: CASES,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn ring_behaves_as_a_bounded_fifo(
            size_log2 in 0..5u32,
            start in prop_oneof![Just(0u32), Just(u32::MAX - 5), any::<u32>()],
            steps in prop::collection::vec(step(), 1..STEPS_MAX),
        ) {
            check_against_fifo(1 << size_log2, start, steps);
        }
    }

    #[test]
    fn ring_carries_everything_between_two_threads_in_order() {
        let total: u64 = if cfg!(miri) { 200 } else { 20_000 };
        let (mut producer, mut consumer) = ring::<u64>(16, u32::MAX - 100);
        let writer = std::thread::spawn(move || {
            let mut next = 0;
            while next < total {
                while next < total && producer.write(next).is_ok() {
                    next += 1;
                }
                producer.submit();
                std::thread::yield_now();
            }
        });
        let mut expected = 0;
        while expected < total {
            for _ in 0..consumer.peek(8) {
                assert_eq!(consumer.read(), Some(expected));
                expected += 1;
            }
            consumer.release();
            std::thread::yield_now();
        }
        writer.join().unwrap();
        assert_eq!(consumer.peek(1), 0);
    }

    #[test]
    fn ring_with_a_reader_ahead_of_the_writer_has_no_room_rather_than_too_much() {
        let (mut producer, consumer) = ring::<u64>(8, 0);
        consumer.layout.consumer().store(5, Ordering::Release);
        // More than its private copy promises, so that it looks at the shared index.
        assert_eq!(producer.reserve(9), 0);
        // Its refusal is not permanent: sense in the index brings the room back.
        consumer.layout.consumer().store(0, Ordering::Release);
        assert_eq!(producer.reserve(100), 8);
    }

    #[test]
    fn ring_with_a_writer_too_far_ahead_is_read_one_lap_at_most() {
        let (producer, mut consumer) = ring::<u64>(8, 0);
        producer.layout.producer().store(1000, Ordering::Release);
        assert_eq!(consumer.peek(u32::MAX), 8);
    }
}
