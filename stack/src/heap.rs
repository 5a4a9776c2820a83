//! Frames in ordinary memory: for tests, simulations and benchmarks, where there is no driver.

use crate::frame::{Frame, FramePool, Stamps};
use alloc::boxed::Box;
use alloc::vec::Vec;

/// The longest frame, in bytes: what the longest chunk of an AF_XDP driver holds.
pub const CAPACITY_MAX: usize = 4096;

/// A frame in ordinary memory. As long as a driver's (32 bytes), so that moving one costs the same.
#[derive(Debug)]
pub struct HeapFrame {
    bytes: Box<[u8; CAPACITY_MAX]>,
    stamps: Stamps,
    len: u32,
    capacity: u32,
}

const _: () = assert!(size_of::<HeapFrame>() == 32);

impl Frame for HeapFrame {
    #[inline]
    fn data(&self) -> &[u8] {
        &self.bytes[..self.len as usize]
    }

    #[inline]
    fn data_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len as usize]
    }

    #[inline]
    fn capacity(&self) -> usize {
        self.capacity as usize
    }

    #[inline]
    fn set_len(&mut self, len: usize) {
        self.len = u32::try_from(len).unwrap_or(u32::MAX).min(self.capacity);
    }

    #[inline]
    fn stamps(&self) -> Stamps {
        self.stamps
    }

    #[inline]
    fn set_stamps(&mut self, stamps: Stamps) {
        self.stamps = stamps;
    }
}

/// A fixed number of frames, all allocated at the start.
#[derive(Debug)]
pub struct HeapPool {
    free: Vec<HeapFrame>,
    frames: usize,
}

impl HeapPool {
    /// `frames` frames of `capacity` bytes each, at most [`CAPACITY_MAX`].
    #[must_use]
    pub fn new(frames: usize, capacity: usize) -> Self {
        let capacity = u32::try_from(capacity.min(CAPACITY_MAX)).expect("invariant: 4096 at most");
        let frame = || HeapFrame {
            bytes: Box::new([0; CAPACITY_MAX]),
            stamps: Stamps::default(),
            len: 0,
            capacity,
        };
        Self {
            free: (0..frames).map(|_| frame()).collect(),
            frames,
        }
    }

    /// A frame that holds `packet`, as if received; `None` when no frame is free or it is too long.
    pub fn receive(&mut self, packet: &[u8]) -> Option<HeapFrame> {
        let mut frame = self.take()?;
        if packet.len() > frame.capacity() {
            self.give(frame);
            return None;
        }
        frame.set_len(packet.len());
        frame.data_mut().copy_from_slice(packet);
        Some(frame)
    }

    /// Frames that are not in the pool.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.frames - self.free.len()
    }
}

impl FramePool for HeapPool {
    type Frame = HeapFrame;

    #[inline]
    fn take(&mut self) -> Option<HeapFrame> {
        self.free.pop()
    }

    #[inline]
    fn give(&mut self, mut frame: HeapFrame) {
        frame.len = 0;
        frame.stamps = Stamps::default();
        self.free.push(frame);
    }
}
