//! The memory that packets live in: one `mapping`, cut into chunks, each chunk one [`Frame`].
//!
//! ```text
//!   base                                                                     base + len
//!    │ chunk 0 │ chunk 1 │ chunk 2 │ chunk 3 │ …                    │ chunk n-1 │ (rest) │
//!    └─────────┴─────────┴─────────┴─────────┴──────────────────────┴───────────┴────────┘
//!      home      in ring   home      out       every chunk is in exactly one place
//! ```
//!
//! *Home* is the pool kept here, *in a ring* means the kernel has it (or a ring of ours that it
//! reads), *out* means that somebody holds its [`Frame`]. [`FrameCensus`] counts the three; a sum
//! that does not come to the whole is a leak.
#![allow(unsafe_code)] // Turns the kernel's addresses back into frames.

use super::error::DriverError;
use super::frame::{FRAME_HEADROOM, Filled, Frame, Free};
use super::mapping::Mapping;
use config::HugePages;
use crossbeam::queue::ArrayQueue;
use stack::frame::Stamps;
use std::fmt;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::Arc;

/// Most frames in one UMEM: 8 GiB of them at 2048 bytes. Beyond it a typing error is likelier.
const FRAMES_MAX: u32 = 1 << 22;

/// Where all the frames of a driver are. The four parts add up to [`total`](Self::total).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameCensus {
    /// Frames there are.
    pub total: u32,
    /// Frames in the pool.
    pub home: u32,
    /// Frames the kernel has, or will read: in fill, RX, TX and completion rings.
    pub in_rings: u32,
    /// Frames that somebody holds.
    pub out: u32,
}

/// Shape of a [`Umem`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UmemOptions {
    /// Chunks, 1 to 2²².
    pub frames: u32,
    /// Bytes in a chunk: 2048 or 4096, all that `xdp_umem_reg` takes aligned with pages of 4 KiB.
    pub chunk_size: u32,
    /// Huge pages or ordinary ones. A mapping on huge pages is rounded up to whole ones.
    pub huge_pages: HugePages,
}

impl Default for UmemOptions {
    /// 4096 frames of 2048 bytes: 8 MiB, four huge pages; enough for one queue's default rings.
    fn default() -> Self {
        Self {
            frames: 4096,
            chunk_size: 2048,
            huge_pages: HugePages::Auto,
        }
    }
}

/// All the frames of one driver, and the pool of those at home.
pub struct Umem {
    mapping: ManuallyDrop<Mapping>,
    chunk_size: u32,
    frames: u32,
    /// Last in, first out: the frame used last is the one still in the cache.
    free: Vec<Frame<Free>>,
    in_rings: u32,
    /// Frames of another UMEM that somebody gave to this one, and that are lost.
    foreign: u64,
    returns: Option<Arc<ArrayQueue<Frame<Filled>>>>,
    ledger: Ledger,
}

// SAFETY: the mapping is plain memory, reached through `&mut self` or through frames, which are
// `Send` themselves.
unsafe impl Send for Umem {}

impl Umem {
    /// Maps and populates the memory, and makes its frames.
    ///
    /// # Errors
    ///
    /// A shape that AF_XDP cannot have, too little memory, or huge pages required and not there.
    pub fn new(options: UmemOptions) -> Result<Self, DriverError> {
        let UmemOptions {
            frames,
            chunk_size,
            huge_pages,
        } = options;
        // net/xdp/xdp_umem.c: aligned chunks are powers of two from 2048 to a page.
        if chunk_size != 2048 && chunk_size != 4096 {
            return Err(DriverError::InvalidOption(format!(
                "chunk size {chunk_size} is neither 2048 nor 4096 bytes"
            )));
        }
        if frames == 0 || frames > FRAMES_MAX {
            return Err(DriverError::InvalidOption(format!(
                "{frames} frames is outside 1 to {FRAMES_MAX}"
            )));
        }
        let mapping = Mapping::new(frames as usize * chunk_size as usize, huge_pages)?;
        let mut free = Vec::with_capacity(frames as usize);
        // Backwards, so that the lowest chunks leave first.
        for index in (0..frames as usize).rev() {
            // SAFETY: chunk `index` lies within the mapping, gets this one frame, and `Drop` leaks
            // the mapping rather than pull it from under a frame.
            free.push(unsafe { Frame::new(mapping.base.add(index * chunk_size as usize)) });
        }
        Ok(Self {
            mapping: ManuallyDrop::new(mapping),
            chunk_size,
            frames,
            free,
            in_rings: 0,
            foreign: 0,
            returns: None,
            ledger: Ledger::new(frames),
        })
    }

    /// The mapping's first byte and its length, as `XDP_UMEM_REG` wants them.
    pub(super) fn region(&self) -> (NonNull<u8>, usize) {
        (self.mapping.base, self.mapping.len)
    }

    /// Bytes in a chunk.
    #[must_use]
    pub fn chunk_size(&self) -> u32 {
        self.chunk_size
    }

    /// Whether the memory is on huge pages.
    #[must_use]
    pub fn is_huge(&self) -> bool {
        self.mapping.huge
    }

    /// Frames in the pool.
    #[inline]
    #[must_use]
    pub fn home(&self) -> u32 {
        // `free` never holds more than `frames`, a u32.
        #[expect(clippy::cast_possible_truncation)]
        let home = self.free.len() as u32;
        home
    }

    /// Where all frames are.
    #[must_use]
    pub fn census(&self) -> FrameCensus {
        let home = self.home();
        FrameCensus {
            total: self.frames,
            home,
            in_rings: self.in_rings,
            out: self
                .frames
                .saturating_sub(home)
                .saturating_sub(self.in_rings),
        }
    }

    /// Frames of other UMEMs that were given to this one, and are lost to both.
    #[must_use]
    pub fn foreign(&self) -> u64 {
        self.foreign
    }

    /// An empty frame for queue 0, or `None` when none is at home.
    #[inline]
    pub fn take(&mut self) -> Option<Frame<Filled>> {
        let frame = self.free.pop()?;
        self.note(frame.chunk(), Place::Home, Place::Out);
        // SAFETY: headroom + capacity is the chunk.
        Some(unsafe {
            frame.fill(
                FRAME_HEADROOM,
                self.capacity_from(FRAME_HEADROOM),
                0,
                0,
                Stamps::default(),
            )
        })
    }

    /// Takes a frame back into the pool. A frame of another UMEM is counted and lost: it cannot
    /// come home from here, and its own UMEM will not unmap.
    #[inline]
    pub fn give(&mut self, frame: Frame<Filled>) {
        if self.offset_of(frame.start()).is_none() {
            return self.lose(frame);
        }
        let frame = frame.clear(self);
        self.note(frame.chunk(), Place::Out, Place::Home);
        self.free.push(frame);
    }

    #[cold]
    fn lose(&mut self, frame: Frame<Filled>) {
        self.foreign += 1;
        let _ = frame.into_start();
    }

    /// An empty frame on its way into a fill ring, as the address the kernel knows it by.
    #[inline]
    pub(super) fn lend_free(&mut self) -> Option<u64> {
        let chunk = self.free.pop()?.into_chunk();
        self.note(chunk, Place::Home, Place::Ring);
        self.in_rings += 1;
        self.offset_of(chunk)
    }

    /// Where a filled frame lies, as the address the kernel knows it by; `None` if it is not ours.
    #[inline]
    pub(super) fn address(&self, frame: &Frame<Filled>) -> Option<u64> {
        self.offset_of(frame.start())
    }

    /// A frame went into a TX ring under its [`address`](Self::address).
    #[inline]
    pub(super) fn lend(&mut self, frame: Frame<Filled>) {
        let start = frame.into_start();
        self.note(start, Place::Out, Place::Ring);
        self.in_rings += 1;
    }

    /// A frame comes home from a ring; any address in its chunk will do. Returns false for an
    /// address outside the UMEM, which only a broken driver could produce.
    #[inline]
    pub(super) fn reclaim(&mut self, address: u64) -> bool {
        let Some(chunk) = self.chunk_at(address) else {
            return false;
        };
        self.note(chunk, Place::Ring, Place::Home);
        self.in_rings = self.in_rings.saturating_sub(1);
        // SAFETY: the frame of this chunk was consumed by `lend` or `lend_free`, and the kernel
        // returns each address once.
        self.free.push(unsafe { Frame::new(chunk) });
        true
    }

    /// A received packet leaves an RX ring. `None` if the kernel's descriptor points outside its
    /// chunk; the chunk, if there is one, is home then.
    #[inline]
    pub(super) fn receive(
        &mut self,
        address: u64,
        len: u32,
        queue: u8,
        taken_ns: u64,
    ) -> Option<Frame<Filled>> {
        let chunk = self.chunk_at(address)?;
        // Below chunk_size.
        #[expect(clippy::cast_possible_truncation)]
        let headroom = address as u32 & (self.chunk_size - 1);
        let capacity = self.capacity_from(headroom);
        let len = match u16::try_from(len) {
            Ok(len) if len <= capacity => len,
            _ => {
                self.reclaim(address);
                return None;
            }
        };
        self.note(chunk, Place::Ring, Place::Out);
        self.in_rings = self.in_rings.saturating_sub(1);
        // SAFETY: the bytes before the packet are in its own chunk, which is ours from here on.
        let room = unsafe { std::slice::from_raw_parts_mut(chunk.as_ptr(), headroom as usize) };
        let arrival_ns = steer::stamp::take(room).unwrap_or(0);
        let stamps = Stamps {
            arrival_ns,
            taken_ns,
        };
        // SAFETY: the frame of this chunk was consumed by `lend_free`, and the kernel returns each
        // address once.
        let frame = unsafe { Frame::new(chunk) };
        // SAFETY: headroom + capacity is the chunk, and len was checked against capacity.
        Some(unsafe { frame.fill(headroom, capacity, len, queue, stamps) })
    }

    /// Where other threads return frames of this UMEM that were handed to them.
    pub(super) fn frame_return(&mut self) -> FrameReturn {
        let frames = self.frames as usize;
        // As many places as frames: returning one can never find the queue full.
        let queue = self
            .returns
            .get_or_insert_with(|| Arc::new(ArrayQueue::new(frames)));
        FrameReturn(Arc::clone(queue))
    }

    /// Brings home what other threads returned.
    #[inline]
    pub(super) fn collect_returns(&mut self) {
        if self.returns.as_ref().is_some_and(|queue| !queue.is_empty()) {
            self.collect_returned_frames();
        }
    }

    #[cold]
    fn collect_returned_frames(&mut self) {
        let Some(queue) = self.returns.clone() else {
            return;
        };
        while let Some(frame) = queue.pop() {
            self.give(frame);
        }
    }

    /// The chunk a pointer into the UMEM belongs to.
    #[inline]
    pub(super) fn chunk_of(&self, start: NonNull<u8>) -> NonNull<u8> {
        let within = start.addr().get() & (self.chunk_size as usize - 1);
        // SAFETY: chunks are aligned to their size, so this steps back to the chunk's first byte.
        unsafe { start.sub(within) }
    }

    #[inline]
    fn capacity_from(&self, headroom: u32) -> u16 {
        // At most 4096.
        #[expect(clippy::cast_possible_truncation)]
        let capacity = (self.chunk_size - headroom) as u16;
        capacity
    }

    #[inline]
    fn chunk_at(&self, address: u64) -> Option<NonNull<u8>> {
        let chunk = address & !u64::from(self.chunk_size - 1);
        if chunk >= u64::from(self.frames) * u64::from(self.chunk_size) {
            return None;
        }
        // SAFETY: a whole number of chunks into the mapping, below its last; fits usize as such.
        #[expect(clippy::cast_possible_truncation)]
        Some(unsafe { self.mapping.base.add(chunk as usize) })
    }

    #[inline]
    fn offset_of(&self, start: NonNull<u8>) -> Option<u64> {
        let offset = start
            .addr()
            .get()
            .wrapping_sub(self.mapping.base.addr().get());
        (offset < self.mapping.len).then_some(offset as u64)
    }

    /// Notes in the ledger that a chunk went from one place to another.
    #[inline]
    fn note(&mut self, chunk: NonNull<u8>, from: Place, to: Place) {
        if cfg!(debug_assertions) {
            let offset = chunk.addr().get() - self.mapping.base.addr().get();
            self.ledger
                .moved(offset / self.chunk_size as usize, from, to);
        }
    }
}

impl Drop for Umem {
    fn drop(&mut self) {
        self.collect_returns();
        let census = self.census();
        if census.out == 0 {
            // SAFETY: dropped once, here; nothing of the mapping is reachable any more.
            unsafe { ManuallyDrop::drop(&mut self.mapping) };
        } else {
            // Unmapping now would leave those frames pointing nowhere.
            tracing::warn!(
                frames = census.out,
                bytes = self.mapping.len,
                "packet memory is left mapped: some of its frames never came home"
            );
        }
    }
}

impl fmt::Debug for Umem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Umem")
            .field("base", &self.mapping.base)
            .field("len", &self.mapping.len)
            .field("huge", &self.mapping.huge)
            .field("chunk_size", &self.chunk_size)
            .field("census", &self.census())
            .finish_non_exhaustive()
    }
}

/// The way home for frames that were handed to another thread: it cannot put them into the
/// owner's pool, and must not put them into its own. The owner collects them when it flushes.
#[derive(Clone, Debug)]
pub struct FrameReturn(Arc<ArrayQueue<Frame<Filled>>>);

impl FrameReturn {
    /// Sends a frame home. Never blocks; there is room for every frame of the owner.
    pub fn give(&self, frame: Frame<Filled>) {
        if let Err(frame) = self.0.push(frame) {
            // Only possible when frames of several owners were mixed up.
            tracing::error!("a frame was returned to a driver it does not belong to");
            let _ = frame.into_start();
        }
    }
}

/// Where a chunk is, as far as [`Ledger`] cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Home,
    Out,
    Ring,
}

/// In debug builds, the place of every chunk, so that a chunk that is in two places is caught where
/// it happens. Empty, and never looked at, in release builds.
struct Ledger {
    places: Vec<Place>,
}

impl Ledger {
    fn new(frames: u32) -> Self {
        let places = if cfg!(debug_assertions) {
            frames as usize
        } else {
            0
        };
        Self {
            places: vec![Place::Home; places],
        }
    }

    fn moved(&mut self, index: usize, from: Place, to: Place) {
        assert_eq!(
            self.places[index], from,
            "chunk {index} is not where it was left"
        );
        self.places[index] = to;
    }
}

#[cfg(test)]
mod tests {
    use super::super::mapping::HUGE_PAGE_BYTES;
    use super::*;
    use proptest::prelude::*;
    use stack::frame::Frame as _;

    fn umem(frames: u32, chunk_size: u32) -> Umem {
        Umem::new(UmemOptions {
            frames,
            chunk_size,
            huge_pages: HugePages::Never,
        })
        .unwrap()
    }

    #[test]
    fn umem_of_an_impossible_shape_is_refused() {
        for (frames, chunk_size, expected) in [
            (16, 1024, "chunk size 1024"),
            (16, 3000, "chunk size 3000"),
            (16, 8192, "chunk size 8192"),
            (0, 2048, "0 frames"),
            (FRAMES_MAX + 1, 2048, "frames is outside"),
        ] {
            let options = UmemOptions {
                frames,
                chunk_size,
                huge_pages: HugePages::Never,
            };
            let sentence = Umem::new(options).unwrap_err().to_string();
            assert!(sentence.contains(expected), "{sentence}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no huge pages")]
    fn huge_pages_that_are_not_there_are_an_error_only_when_required() {
        // More than any machine that runs this test has reserved: 8 GiB.
        let options = |huge_pages| UmemOptions {
            frames: FRAMES_MAX,
            chunk_size: 2048,
            huge_pages,
        };
        let error = Umem::new(options(HugePages::Require)).unwrap_err();
        assert!(
            matches!(error, DriverError::HugePages { pages: 4096, .. }),
            "{error:?}"
        );
        assert!(
            error.to_string().contains("vm.nr_hugepages=4096"),
            "{error}"
        );

        let options = UmemOptions {
            frames: 8,
            chunk_size: 2048,
            huge_pages: HugePages::Auto,
        };
        let umem = Umem::new(options).unwrap();
        let (_, len) = umem.region();
        assert_eq!(
            len,
            if umem.is_huge() {
                HUGE_PAGE_BYTES
            } else {
                8 * 2048
            }
        );
    }

    #[test]
    fn taken_frame_is_empty_and_holds_what_its_chunk_has_beyond_the_headroom() {
        for chunk_size in [2048, 4096] {
            let mut umem = umem(2, chunk_size);
            let mut frame = umem.take().unwrap();
            assert!(frame.data().is_empty());
            assert_eq!(frame.stamps(), Stamps::default());
            assert_eq!(frame.queue(), 0);
            assert_eq!(frame.capacity(), chunk_size as usize - 256);
            // Longer is clamped.
            frame.set_len(1 << 20);
            assert_eq!(frame.data().len(), frame.capacity());
            frame.data_mut().fill(0xaa);
            // Its neighbour is untouched.
            let mut other = umem.take().unwrap();
            other.set_len(1 << 20);
            assert!(other.data().iter().all(|&byte| byte == 0));
            umem.give(frame);
            umem.give(other);
        }
    }

    #[test]
    fn received_stamp_is_read_once() {
        let mut umem = umem(1, 2048);
        for expected in [77, 0] {
            let address = umem.lend_free().unwrap() + 256;
            if expected != 0 {
                // The XDP program's part.
                let (base, _) = umem.region();
                let stamp = [steer::stamp::STAMP_MAGIC.to_ne_bytes(), 77u64.to_ne_bytes()].concat();
                // SAFETY: inside the only chunk, which no frame has at the moment.
                unsafe { base.add(240).copy_from(NonNull::from(&*stamp).cast(), 16) };
            }
            let frame = umem.receive(address, 60, 3, 99).unwrap();
            assert_eq!(
                frame.stamps(),
                Stamps {
                    arrival_ns: expected,
                    taken_ns: 99
                }
            );
            assert_eq!((frame.data().len(), frame.queue()), (60, 3));
            umem.give(frame);
        }
    }

    #[test]
    fn descriptor_that_points_nowhere_is_no_frame_and_loses_none() {
        let mut umem = umem(2, 2048);
        let address = umem.lend_free().unwrap();
        // Beyond the last chunk, and far beyond.
        assert!(umem.receive(2 * 2048, 60, 0, 0).is_none());
        assert!(umem.receive(u64::MAX - 100, 60, 0, 0).is_none());
        assert!(!umem.reclaim(2 * 2048));
        // Longer than its chunk has room for: the packet is lost, the frame is not.
        assert!(umem.receive(address + 256, 1793, 0, 0).is_none());
        assert_eq!(
            umem.census(),
            FrameCensus {
                total: 2,
                home: 2,
                in_rings: 0,
                out: 0
            }
        );
        // The longest that fits; and one that starts so early that no stamp can be before it.
        let address = umem.lend_free().unwrap();
        let frame = umem.receive(address + 256, 1792, 0, 0).unwrap();
        umem.give(frame);
        let address = umem.lend_free().unwrap();
        let frame = umem.receive(address, 2048, 0, 0).unwrap();
        umem.give(frame);
    }

    #[test]
    fn frame_of_another_umem_is_counted_and_neither_umem_takes_it() {
        let (mut ours, mut theirs) = (umem(4, 2048), umem(4, 2048));
        let mut frame = theirs.take().unwrap();
        frame.set_len(60);
        assert_eq!(ours.address(&frame), None);
        ours.give(frame);
        assert_eq!(ours.foreign(), 1);
        assert_eq!(ours.census().home, 4);
        assert_eq!(theirs.census().out, 1);
    }

    #[test]
    fn memory_outlives_its_umem_while_a_frame_is_out() {
        let mut umem = umem(4, 2048);
        let mut frame = umem.take().unwrap();
        drop(umem);
        frame.set_len(100);
        frame.data_mut().fill(5);
        assert_eq!(frame.data(), [5; 100]);
    }

    #[test]
    fn frame_comes_home_through_its_return_at_the_latest_when_the_umem_goes() {
        let mut umem = umem(2, 2048);
        let home = umem.frame_return();
        let (first, second) = (umem.take().unwrap(), umem.take().unwrap());
        assert!(umem.take().is_none());
        std::thread::scope(|scope| scope.spawn(|| home.give(first)).join().unwrap());
        umem.collect_returns();
        assert_eq!(umem.census().home, 1);
        umem.frame_return().give(second);
        // Drop collects it, and finds everything at home: nothing is left mapped.
        drop(umem);
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Take,
        Give,
        LendFree,
        Lend,
        Receive(u16),
        Reclaim(u16),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Take),
            Just(Step::Give),
            Just(Step::LendFree),
            Just(Step::Lend),
            (0..1900u16).prop_map(Step::Receive),
            (0..2048u16).prop_map(Step::Reclaim),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 2 } else { 256 },
            failure_persistence: None,
            ..Default::default()
        })]

        /// However frames move, each is in one place, the census says how many are where, and what
        /// was written into one is there until its owner changes it.
        #[test]
        fn every_frame_is_in_exactly_one_place(steps in prop::collection::vec(step(), 1..if cfg!(miri) { 30 } else { 300 })) {
            const FRAMES: u32 = 8;
            let mut umem = umem(FRAMES, 2048);
            // The oracle: frames held, each with the byte it was filled with, and addresses lent.
            let mut held: Vec<(Frame<Filled>, u8)> = Vec::new();
            let mut lent: Vec<u64> = Vec::new();
            let mut mark = 0u8;
            for step in steps {
                mark = mark.wrapping_add(1);
                let home = FRAMES as usize - held.len() - lent.len();
                match step {
                    Step::Take => match umem.take() {
                        Some(mut frame) => {
                            frame.set_len(1000);
                            frame.data_mut().fill(mark);
                            held.push((frame, mark));
                        }
                        None => prop_assert_eq!(home, 0),
                    },
                    Step::Give => if let Some((frame, _)) = held.pop() {
                        umem.give(frame);
                    },
                    Step::LendFree => match umem.lend_free() {
                        Some(address) => {
                            prop_assert!(!lent.contains(&address));
                            lent.push(address);
                        }
                        None => prop_assert_eq!(home, 0),
                    },
                    Step::Lend => if !held.is_empty() {
                        let (frame, _) = held.remove(0);
                        let address = umem.address(&frame).unwrap();
                        umem.lend(frame);
                        lent.push(address & !2047);
                    },
                    Step::Receive(len) => if !lent.is_empty() {
                        let address = lent.remove(0);
                        match umem.receive(address + 256, u32::from(len), 0, 0) {
                            Some(mut frame) => {
                                prop_assert_eq!(frame.data().len(), usize::from(len));
                                frame.data_mut().fill(mark);
                                held.push((frame, mark));
                            }
                            None => prop_assert!(len > 1792),
                        }
                    },
                    Step::Reclaim(offset) => if let Some(address) = lent.pop() {
                        prop_assert!(umem.reclaim(address + u64::from(offset)));
                    },
                }
                for (frame, mark) in &held {
                    prop_assert!(frame.data().iter().all(|byte| byte == mark));
                }
                let census = umem.census();
                prop_assert_eq!(census.out as usize, held.len());
                prop_assert_eq!(census.in_rings as usize, lent.len());
                prop_assert_eq!(census.home + census.in_rings + census.out, census.total);
            }
            for (frame, _) in held {
                umem.give(frame);
            }
        }
    }
}
