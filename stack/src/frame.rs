//! Packet buffers, as the stack needs them. The drivers implement both traits.
//!
//! ```text
//!        start()                 start() + data().len()        start() + capacity()
//!           │                            │                            │
//!  headroom │◄────────── data ──────────►│◄───────── tailroom ───────►│
//! ```

/// When a packet passed which point, in nanoseconds of `CLOCK_MONOTONIC`. Zero means unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamps {
    /// When the XDP program saw the packet, if the driver has room for that stamp.
    pub arrival_ns: u64,
    /// When the worker took the packet from its ring.
    pub taken_ns: u64,
}

/// A packet buffer with exactly one owner. Moving it moves the right to read, write and send it.
pub trait Frame {
    /// The packet, from its Ethernet header on.
    fn data(&self) -> &[u8];
    /// The packet, writable.
    fn data_mut(&mut self) -> &mut [u8];
    /// The longest packet this frame can hold from where its data starts, in bytes.
    fn capacity(&self) -> usize;
    /// Sets the packet's length in bytes, at most [`capacity`](Self::capacity) (longer is clamped).
    /// Bytes uncovered by growing hold whatever was there.
    fn set_len(&mut self, len: usize);
    /// When this packet, or the one it answers, passed which point.
    fn stamps(&self) -> Stamps;
    /// Carries the stamps of the packet that this one answers.
    fn set_stamps(&mut self, stamps: Stamps);
}

/// Where empty frames come from and where used ones return to. Fixed in size: nothing is allocated.
pub trait FramePool {
    /// The frames of this pool.
    type Frame: Frame;
    /// An empty frame (`data().len() == 0`, no stamps), or `None` when all are in use.
    fn take(&mut self) -> Option<Self::Frame>;
    /// Gives a frame back.
    fn give(&mut self, frame: Self::Frame);
}
