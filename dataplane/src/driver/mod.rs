//! Frames, and the drivers that move them between a wire and a worker.
//!
//! * [`frame`], [`umem`]: one chunk of packet memory, one owner; and all of them, in one `mapping`
//! * [`af_xdp`]: the driver on the queues of a NIC, over `xsk` (one socket) and `ring` (its rings),
//!   `configured` as the file says
//! * [`memory`], [`replay`]: drivers without a NIC and without privileges: tests and captures
//! * [`mode`]: zero-copy, copy, generic: as asked for, and as obtained
//! * [`interface`]: what a NIC says of itself; [`error`]: why a driver could not be opened
//! * [`waker`]: ends a worker's sleep from another thread
//!
//! # Who owns a frame
//!
//! ```text
//!   the kernel's                         the pool's               in the stack's hands
//!
//!   ┌────────────┐       flush()      ┌─────────────┐    take()    ┌───────────────┐
//!   │ fill ring  │◄───────────────────┤ Frame<Free> ├─────────────►│ Frame<Filled> │
//!   └─────┬──────┘                    │             │◄─────────────┤               │
//!         ▼ a packet comes            └──────▲──────┘    give()    │               │
//!   ┌────────────┐                           │                     │               │
//!   │ RX ring    ├───────────────────────────┼───────── rx() ─────►│               │
//!   └────────────┘                           │                     │               │
//!   ┌────────────┐                           │                     │               │
//!   │ TX ring    │◄──────────────────────────┼───────── tx() ──────┤               │
//!   └─────┬──────┘                           │                     └───────────────┘
//!         ▼ a packet has left                │
//!   ┌────────────┐           flush()         │
//!   │ completion ├───────────────────────────┘
//!   └────────────┘
//! ```
//!
//! Every arrow moves the frame; nothing copies one. A ring holds addresses, not frames: the kernel
//! owns what is in it. [`Driver::census`] counts all the boxes, and they always add up.
//!
//! # Why the rings are our own
//!
//! There is a crate for AF_XDP sockets over libxdp, `xsk-rs`; these are the reasons it is not under
//! this driver. Its constructor binds, so that the fill ring cannot be full before the bind, which
//! several zero-copy drivers require. It neither asks `XDP_OPTIONS` for the mode obtained nor knows
//! preferred busy polling. Its descriptors are `Copy` and know no owner. And a descriptor costs
//! about three times as much through its foreign functions as through an inlined load and store.
//! What is left to do without it are four rings of shared memory (`ring`), and the system calls,
//! which `rustix` has in safe form.

pub mod af_xdp;
mod configured;
pub mod error;
pub mod frame;
pub mod interface;
mod mapping;
pub mod memory;
pub mod mode;
pub mod replay;
mod ring;
pub mod umem;
pub mod waker;
mod xsk;

pub use af_xdp::{AfXdp, AfXdpOptions};
pub use error::DriverError;
pub use frame::{Filled, Frame, Free};
pub use interface::Interface;
pub use memory::{MemoryDriver, MemoryOptions, MemoryPeer};
pub use mode::{AttachMode, Attempt, BindMode, ObtainedMode, attempts};
pub use replay::{PcapWriter, Replay};
pub use umem::{FrameCensus, FrameReturn};
pub use waker::Waker;
pub use xsk::BusyPoll;

use stack::frame::FramePool;
use std::time::Duration;

/// Moves frames between a wire and one worker. Made on any thread, then used by one.
///
/// Nothing here blocks but [`wait`](Self::wait), and `rx`, `tx`, `flush` and `wait` allocate
/// nothing.
pub trait Driver: FramePool<Frame = Frame<Filled>> {
    /// Moves received packets into `batch`, as many as it has room for, and returns how many.
    /// `now_ns` (`CLOCK_MONOTONIC`) becomes their `taken_ns`. Takes from all queues in turn: a busy
    /// queue cannot starve the others, because each call begins with the next one.
    fn rx(&mut self, batch: &mut Batch, now_ns: u64) -> usize;

    /// Sends a packet on the queue it belongs to (see [`Frame::queue`]). It leaves with the next
    /// [`flush`](Self::flush).
    ///
    /// # Errors
    ///
    /// A full ring hands the frame back. Flush and try again, or give it back to the pool.
    fn tx(&mut self, frame: Frame<Filled>) -> Result<(), Frame<Filled>>;

    /// Publishes what was sent, brings home what has left, and refills what receives. Makes a
    /// system call only where the kernel asks for one. Call it every turn, with or without packets.
    fn flush(&mut self);

    /// Sleeps until a packet arrives, [`Waker::wake`] is called, or `timeout` has passed. Flush
    /// first: what was not flushed is not on its way.
    fn wait(&mut self, timeout: Duration) -> Wakeup;

    /// A handle to end this driver's sleep from another thread.
    fn waker(&self) -> Waker;

    /// The way home for frames that are handed to other threads.
    fn frame_return(&mut self) -> FrameReturn;

    /// The state of the link as the last `flush` or `wait` met it.
    fn link(&self) -> Link;

    /// Counts of each queue since the driver was opened, into `into`, which is cleared first. Asks
    /// the kernel: once a second, not once a turn. Allocates only if `into` is too small.
    fn statistics(&self, into: &mut Vec<QueueStatistics>);

    /// What was obtained when the driver was opened.
    fn report(&self) -> &DriverReport;

    /// Where all frames are.
    fn census(&self) -> FrameCensus;
}

/// Why [`Driver::wait`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wakeup {
    /// Packets may be there.
    Packets,
    /// Another thread called [`Waker::wake`].
    Woken,
    /// Nothing happened for as long as asked, or a signal came.
    TimedOut,
}

/// The state of the link under a driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Link {
    /// Nothing is known against it.
    #[default]
    Up,
    /// The interface is down; the sockets stay bound, and go on when it comes back.
    Down,
    /// The interface is gone, or took its queues back: the driver has to be opened again.
    Gone,
}

/// Counts of one queue, since the driver was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueStatistics {
    /// The NIC's number of the queue.
    pub queue_id: u32,
    /// Packets taken from the RX ring.
    pub rx_packets: u64,
    /// Packets put into the TX ring.
    pub tx_packets: u64,
    /// Packets that came back through the completion ring.
    pub tx_completions: u64,
    /// Times `tx` handed a frame back because the ring was full.
    pub tx_ring_full: u64,
    /// Frames given to `tx` that no wire carries (shorter than an Ethernet header), and frames of
    /// another driver. Not sent.
    pub tx_refused: u64,
    /// Descriptors from the kernel that point nowhere.
    pub rx_refused: u64,
    /// System calls made to get packets sent.
    pub tx_kicks: u64,
    /// System calls made to get packets received (driver out of frames, or busy polling).
    pub rx_kicks: u64,
    /// Turns that left the fill ring less than full because the pool was down to its reserve.
    pub fill_short: u64,
    /// Kernel: packets dropped for other reasons than a full ring (`XDP_STATISTICS`).
    pub rx_dropped: u64,
    /// Kernel: fill-ring entries it could not use.
    pub rx_invalid_descs: u64,
    /// Kernel: TX-ring entries it could not use.
    pub tx_invalid_descs: u64,
    /// Kernel: packets dropped because the RX ring was full: the worker is too slow.
    pub rx_ring_full: u64,
    /// Kernel: times it found the fill ring empty: too few frames.
    pub rx_fill_ring_empty_descs: u64,
    /// Kernel: times it found the TX ring empty; normal.
    pub tx_ring_empty_descs: u64,
}

/// What a driver obtained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriverReport {
    /// The interface, or the name of what stands for one.
    pub interface: String,
    /// The interface's kernel driver.
    pub driver: String,
    /// The mode in force.
    pub mode: ObtainedMode,
    /// The NIC's numbers of the queues, in the order of [`Frame::queue`].
    pub queues: Vec<u32>,
    /// Whether the kernel says when it wants to be called; otherwise every flush with packets calls.
    pub need_wakeup: bool,
    /// Whether the sockets poll the NIC from the worker's core.
    pub busy_poll: bool,
    /// Whether packet memory is on huge pages.
    pub huge_pages: bool,
    /// Frames there are, over all queues.
    pub frames: u32,
    /// Bytes in a frame's chunk, 256 of them headroom.
    pub chunk_size: u32,
    /// Frames the fill rings leave for sending, over all queues.
    pub tx_reserve: u32,
    /// Entries in each queue's RX ring.
    pub rx_ring: u32,
    /// Entries in each queue's TX ring.
    pub tx_ring: u32,
    /// Entries in each queue's fill ring.
    pub fill_ring: u32,
    /// Entries in each queue's completion ring.
    pub completion_ring: u32,
}

/// Received packets, in order of arrival within each queue. Room is fixed when it is made.
#[derive(Debug)]
pub struct Batch {
    frames: Vec<Frame<Filled>>,
    capacity: usize,
}

impl Batch {
    /// An empty batch for up to `capacity` packets.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            frames: Vec::with_capacity(capacity),
            capacity,
        }
    }

    /// Packets that still fit.
    #[inline]
    #[must_use]
    pub fn room(&self) -> usize {
        self.capacity - self.frames.len()
    }

    /// Packets in it.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether there are none.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Adds a packet.
    ///
    /// # Errors
    ///
    /// A full batch hands the frame back.
    #[inline]
    pub fn push(&mut self, frame: Frame<Filled>) -> Result<(), Frame<Filled>> {
        if self.frames.len() == self.capacity {
            return Err(frame);
        }
        self.frames.push(frame);
        Ok(())
    }

    /// Moves all packets out, first come first. Go through to the end: frames that are left in the
    /// iterator when it is dropped do not return to their pool.
    #[inline]
    pub fn drain(&mut self) -> impl ExactSizeIterator<Item = Frame<Filled>> + '_ {
        self.frames.drain(..)
    }

    /// The packets, to look at.
    pub fn frames(&self) -> &[Frame<Filled>] {
        &self.frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_batch_hands_the_frame_back_and_drains_in_order() {
        let (mut driver, _peer) = MemoryDriver::with_peer(MemoryOptions::default()).unwrap();
        let mut batch = Batch::with_capacity(2);
        for queue in 0..2 {
            let mut frame = driver.take().unwrap();
            frame.set_queue(queue);
            batch.push(frame).unwrap();
        }
        assert_eq!((batch.room(), batch.len()), (0, 2));
        let frame = driver.take().unwrap();
        let back = batch.push(frame).unwrap_err();
        driver.give(back);
        assert_eq!(
            batch.drain().map(|frame| frame.queue()).collect::<Vec<_>>(),
            [0, 1]
        );
        assert!(batch.is_empty());
    }
}
