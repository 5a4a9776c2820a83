//! Frames that cost what the service's driver's cost: as many bytes to move, and a length that needs
//! no check against the buffer's, because no `u16` is as large as the buffer.

use stack::frame::{Frame, FramePool, Stamps};

/// One more than a length can say.
const BUFFER_BYTES: usize = 1 << 16;

pub(crate) struct BenchFrame {
    buffer: Box<[u8; BUFFER_BYTES]>,
    stamps: Stamps,
    /// Wider than it need be, so that nothing of 16 bits has to be moved by itself.
    len: u32,
    capacity: u16,
    /// Which of the driver's queues it belongs to.
    _queue: u8,
}

// As `dataplane::driver::Frame` asserts of itself.
const _: () = assert!(size_of::<BenchFrame>() == 32);

impl BenchFrame {
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "never longer than `capacity`"
    )]
    fn len(&self) -> usize {
        usize::from(self.len as u16)
    }
}

impl Frame for BenchFrame {
    #[inline]
    fn data(&self) -> &[u8] {
        &self.buffer[..self.len()]
    }

    #[inline]
    fn data_mut(&mut self) -> &mut [u8] {
        let len = self.len();
        &mut self.buffer[..len]
    }

    #[inline]
    fn capacity(&self) -> usize {
        usize::from(self.capacity)
    }

    #[inline]
    fn set_len(&mut self, len: usize) {
        let len = u16::try_from(len).unwrap_or(u16::MAX);
        self.len = len.min(self.capacity).into();
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

pub(crate) struct BenchPool {
    free: Vec<BenchFrame>,
}

impl BenchPool {
    /// `frames` frames of `capacity` bytes.
    pub(crate) fn new(frames: usize, capacity: u16) -> Self {
        let frame = |_| BenchFrame {
            buffer: Box::new([0; BUFFER_BYTES]),
            stamps: Stamps::default(),
            len: 0,
            capacity,
            _queue: 0,
        };
        Self {
            free: (0..frames).map(frame).collect(),
        }
    }

    /// A frame that holds `packet`, as if received.
    #[inline]
    pub(crate) fn receive(&mut self, packet: &[u8]) -> Option<BenchFrame> {
        let mut frame = self.take()?;
        frame.set_len(packet.len());
        frame
            .data_mut()
            .get_mut(..packet.len())?
            .copy_from_slice(packet);
        Some(frame)
    }
}

impl FramePool for BenchPool {
    type Frame = BenchFrame;

    #[inline]
    fn take(&mut self) -> Option<BenchFrame> {
        self.free.pop()
    }

    #[inline]
    fn give(&mut self, mut frame: BenchFrame) {
        frame.len = 0;
        frame.stamps = Stamps::default();
        self.free.push(frame);
    }
}
