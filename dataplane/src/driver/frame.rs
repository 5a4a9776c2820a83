//! One packet buffer, one owner.
//!
//! A frame is one chunk of a [`Umem`]. It is a value that moves: whoever holds
//! it may read, write and send that chunk, and nobody else can.
//!
//! ```text
//!   chunk (2048 or 4096 bytes, aligned to its size)
//!   ┌──────────────────────────┬───────────────────────────┬──────────────────┐
//!   │ headroom, 256            │ data()                    │ tailroom         │
//!   └──────────────────────────┴───────────────────────────┴──────────────────┘
//!              arrival stamp ─►│◄───────── capacity() ────────────────────────►│
//!                       start ─┘
//! ```
//!
//! # Why this is sound
//!
//! * Frames are made by the UMEM alone, one per chunk, when it is mapped. There is no `Clone` and
//!   no `Copy`, so no two frames ever name the same chunk.
//! * A frame that goes into a ring is consumed and becomes a number; the number becomes a frame
//!   again when the kernel returns it. In between the memory is the kernel's.
//! * The mapping lives until every frame is home or in a ring. If one is still out when the UMEM is
//!   dropped, the mapping is leaked, and that is logged: a frame can outlive its driver on another
//!   thread, and never dangles.
#![allow(unsafe_code)] // A frame is a pointer into shared memory; the argument is above.

use super::umem::Umem;
use stack::frame::Stamps;
use std::fmt;
use std::mem::size_of;
use std::ptr::NonNull;

/// Where a frame's data starts, in bytes from the start of its chunk.
///
/// The kernel puts received packets here (`XDP_PACKET_HEADROOM`, `include/uapi/linux/bpf.h`), and
/// frames made for sending start here too, so that both kinds are alike. Less would not survive a
/// zero-copy driver; more only costs capacity.
pub const FRAME_HEADROOM: u32 = 256;

/// Shortest frame that is sent, in bytes: an Ethernet header. The kernel takes no empty descriptor,
/// and would never return its frame.
pub(super) const FRAME_LEN_MIN: u16 = 14;

/// A frame with nothing in it: at home in the pool, or on its way into a fill ring.
#[derive(Debug)]
pub struct Free(());

/// A frame that somebody works on: received, or being made to be sent.
pub struct Filled {
    stamps: Stamps,
    /// At most `capacity`. Wider than it need be: frames move often, and then nothing of 16 bits has
    /// to be moved by itself (19 instructions a packet, bench/BASELINE.md).
    len: u32,
    capacity: u16,
    queue: u8,
}

/// What a frame can be: [`Free`] or [`Filled`].
pub trait State: sealed::Sealed {}
impl State for Free {}
impl State for Filled {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Free {}
    impl Sealed for super::Filled {}
}

/// A packet buffer. See the [module](self) for who may hold one.
#[must_use = "a frame that is dropped never returns to its pool: give it back or send it"]
pub struct Frame<S: State> {
    /// Free: the chunk's first byte. Filled: the packet's first byte.
    start: NonNull<u8>,
    state: S,
}

// A batch of 64 fits in half of a first-level cache's page.
const _: () = assert!(size_of::<Frame<Filled>>() == 32);
// A full ring's `Result` needs no room for its tag.
const _: () = assert!(size_of::<Result<(), Frame<Filled>>>() == 32);

// SAFETY: a frame is the only way to its chunk (module documentation), so moving it to another
// thread moves all access, and sharing `&Frame` shares reads only.
unsafe impl<S: State> Send for Frame<S> {}
// SAFETY: as above.
unsafe impl<S: State> Sync for Frame<S> {}

impl Frame<Free> {
    /// Makes the frame of the chunk at `start`.
    ///
    /// # Safety
    ///
    /// The chunk is mapped for as long as any frame of it exists, and no other frame of it does.
    #[inline]
    pub(super) unsafe fn new(start: NonNull<u8>) -> Self {
        Self {
            start,
            state: Free(()),
        }
    }

    /// The chunk's first byte.
    #[inline]
    pub(super) fn chunk(&self) -> NonNull<u8> {
        self.start
    }

    /// The chunk's first byte, giving up the frame.
    #[inline]
    pub(super) fn into_chunk(self) -> NonNull<u8> {
        self.start
    }

    /// Begins a packet: empty, `headroom` bytes into a chunk of `chunk_size` bytes.
    ///
    /// # Safety
    ///
    /// `headroom + capacity` is at most the chunk's size, and `len` at most `capacity`.
    #[inline]
    pub(super) unsafe fn fill(
        self,
        headroom: u32,
        capacity: u16,
        len: u16,
        queue: u8,
        stamps: Stamps,
    ) -> Frame<Filled> {
        // SAFETY: within the chunk, by the caller's promise.
        let start = unsafe { self.start.add(headroom as usize) };
        Frame {
            start,
            state: Filled {
                stamps,
                len: len.into(),
                capacity,
                queue,
            },
        }
    }
}

impl Frame<Filled> {
    /// The packet's first byte.
    #[inline]
    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// The packet's first byte, giving up the frame.
    #[inline]
    pub(super) fn into_start(self) -> NonNull<u8> {
        self.start
    }

    /// The packet's length in bytes.
    #[inline]
    #[must_use]
    #[expect(
        clippy::len_without_is_empty,
        reason = "a packet's length, not a collection's"
    )]
    #[expect(clippy::cast_possible_truncation, reason = "at most `capacity`")]
    pub fn len(&self) -> u16 {
        self.state.len as u16
    }

    /// Which of the driver's queues this frame came from and will be sent on: an index into
    /// [`DriverReport::queues`](super::DriverReport), not the NIC's queue number. Frames that were
    /// taken from the pool belong to queue 0 until told otherwise.
    #[inline]
    #[must_use]
    pub fn queue(&self) -> u8 {
        self.state.queue
    }

    /// Chooses the queue this frame is sent on. One that the driver lacks means the last it has.
    #[inline]
    pub fn set_queue(&mut self, queue: u8) {
        self.state.queue = queue;
    }

    /// Forgets the packet.
    #[inline]
    pub(super) fn clear(self, umem: &Umem) -> Frame<Free> {
        Frame {
            start: umem.chunk_of(self.start),
            state: Free(()),
        }
    }
}

impl stack::frame::Frame for Frame<Filled> {
    #[inline]
    fn data(&self) -> &[u8] {
        // SAFETY: `len <= capacity` bytes from `start` are in this frame's chunk (`fill`,
        // `set_len`), and the frame is the only way to them.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), usize::from(self.len())) }
    }

    #[inline]
    fn data_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `data`, and `&mut self` is the only borrow of the only way.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), usize::from(self.len())) }
    }

    #[inline]
    fn capacity(&self) -> usize {
        usize::from(self.state.capacity)
    }

    #[inline]
    fn set_len(&mut self, len: usize) {
        // Everything in the chunk is initialised: the mapping began as zeros.
        let len = u16::try_from(len).unwrap_or(u16::MAX);
        self.state.len = len.min(self.state.capacity).into();
    }

    #[inline]
    fn stamps(&self) -> Stamps {
        self.state.stamps
    }

    #[inline]
    fn set_stamps(&mut self, stamps: Stamps) {
        self.state.stamps = stamps;
    }
}

impl fmt::Debug for Frame<Free> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Frame<Free>").field(&self.start).finish()
    }
}

impl fmt::Debug for Frame<Filled> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            start,
            state:
                Filled {
                    stamps,
                    len,
                    capacity,
                    queue,
                },
        } = self;
        f.debug_struct("Frame<Filled>")
            .field("start", start)
            .field("len", len)
            .field("capacity", capacity)
            .field("queue", queue)
            .field("stamps", stamps)
            .finish()
    }
}
