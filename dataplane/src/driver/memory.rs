//! A driver over a wire made of memory: no NIC, no privileges, the same frames.
//!
//! ```text
//!   MemoryDriver                                           MemoryPeer, or another MemoryDriver
//!     tx() ─► TX ring ─ flush() ─► ┌──── lane ────┐ ─► collect() / rx()
//!     rx() ◄────────────────────── └──── lane ────┘ ◄─ inject()  / flush()
//! ```
//!
//! A lane carries copies of packets, as a wire does, in buffers that circulate between its two ends
//! and are made once. A full lane leaves packets in the sender's TX ring, and then `tx` hands frames
//! back, exactly as a slow NIC makes it.

use super::error::DriverError;
use super::frame::{FRAME_HEADROOM, FRAME_LEN_MIN, Filled, Frame};
use super::mode::ObtainedMode;
use super::umem::{FrameCensus, FrameReturn, Umem, UmemOptions};
use super::waker::Waker;
use super::{Batch, Driver, DriverReport, Link, QueueStatistics, Wakeup};
use config::HugePages;
use crossbeam::queue::ArrayQueue;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use stack::frame::{Frame as _, FramePool};
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Shape of a [`MemoryDriver`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryOptions {
    /// Frames in the pool.
    pub frames: u32,
    /// Bytes in a frame's chunk, 2048 or 4096; 256 of them are headroom.
    pub chunk_size: u32,
    /// Packets that wait to be sent, at most.
    pub tx_ring: usize,
    /// Packets on the wire, in each direction, at most.
    pub lane: usize,
}

impl Default for MemoryOptions {
    fn default() -> Self {
        Self {
            frames: 1024,
            chunk_size: 2048,
            tx_ring: 256,
            lane: 256,
        }
    }
}

/// One direction of a wire.
struct Lane {
    full: ArrayQueue<Vec<u8>>,
    empty: ArrayQueue<Vec<u8>>,
    /// Whoever listens at the far end, to be woken.
    listener: Option<Waker>,
    packet_len_max: usize,
}

impl Lane {
    fn new(packets: usize, packet_len_max: usize, listener: Option<Waker>) -> Self {
        let packets = packets.max(1);
        let empty = ArrayQueue::new(packets);
        for _ in 0..packets {
            let pushed = empty.push(Vec::with_capacity(packet_len_max));
            debug_assert!(pushed.is_ok(), "invariant: as many buffers as places");
        }
        Self {
            full: ArrayQueue::new(packets),
            empty,
            listener,
            packet_len_max,
        }
    }

    /// Puts a packet on the wire. False if the wire is full.
    fn send(&self, packet: &[u8]) -> bool {
        let Some(mut buffer) = self.empty.pop() else {
            return false;
        };
        buffer.clear();
        buffer.extend_from_slice(&packet[..packet.len().min(self.packet_len_max)]);
        let pushed = self.full.push(buffer);
        debug_assert!(pushed.is_ok(), "invariant: as many buffers as places");
        true
    }

    /// Takes a packet off the wire, if `accept` takes its bytes.
    fn receive<T>(&self, accept: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let buffer = self.full.pop()?;
        let accepted = accept(&buffer);
        let pushed = self.empty.push(buffer);
        debug_assert!(pushed.is_ok(), "invariant: as many buffers as places");
        Some(accepted)
    }

    fn wake_listener(&self) {
        if let Some(waker) = &self.listener {
            waker.wake();
        }
    }
}

/// The far end of a [`MemoryDriver`]'s wire, in bytes.
#[derive(Clone)]
pub struct MemoryPeer {
    to_driver: Arc<Lane>,
    from_driver: Arc<Lane>,
}

impl MemoryPeer {
    /// Sends a packet to the driver, from its Ethernet header on. False if the wire is full.
    /// Packets longer than a frame holds are cut.
    pub fn inject(&self, packet: &[u8]) -> bool {
        let sent = self.to_driver.send(packet);
        self.to_driver.wake_listener();
        sent
    }

    /// The next packet that the driver sent.
    #[must_use]
    pub fn collect(&self) -> Option<Vec<u8>> {
        self.collect_with(<[u8]>::to_vec)
    }

    /// Looks at the next packet that the driver sent, without copying it out.
    pub fn collect_with<T>(&self, look: impl FnOnce(&[u8]) -> T) -> Option<T> {
        self.from_driver.receive(look)
    }
}

impl fmt::Debug for MemoryPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryPeer")
            .field("to_driver", &self.to_driver.full.len())
            .field("from_driver", &self.from_driver.full.len())
            .finish()
    }
}

/// A driver whose wire is memory. One queue.
pub struct MemoryDriver {
    umem: Umem,
    tx_ring: VecDeque<Frame<Filled>>,
    inbound: Arc<Lane>,
    outbound: Arc<Lane>,
    waker: Waker,
    counts: QueueStatistics,
    report: DriverReport,
}

impl MemoryDriver {
    /// A driver, and the far end of its wire.
    ///
    /// # Errors
    ///
    /// Options that no driver could have, or too little memory.
    pub fn with_peer(options: MemoryOptions) -> Result<(Self, MemoryPeer), DriverError> {
        let waker = Waker::new()?;
        let to_driver = Arc::new(lane(options, Some(waker.clone())));
        let from_driver = Arc::new(lane(options, None));
        let peer = MemoryPeer {
            to_driver: Arc::clone(&to_driver),
            from_driver: Arc::clone(&from_driver),
        };
        Ok((Self::new(options, to_driver, from_driver, waker)?, peer))
    }

    /// Two drivers on one wire.
    ///
    /// # Errors
    ///
    /// Options that no driver could have, or too little memory.
    pub fn pair(options: MemoryOptions) -> Result<(Self, Self), DriverError> {
        let (left_waker, right_waker) = (Waker::new()?, Waker::new()?);
        let to_left = Arc::new(lane(options, Some(left_waker.clone())));
        let to_right = Arc::new(lane(options, Some(right_waker.clone())));
        Ok((
            Self::new(
                options,
                Arc::clone(&to_left),
                Arc::clone(&to_right),
                left_waker,
            )?,
            Self::new(options, to_right, to_left, right_waker)?,
        ))
    }

    fn new(
        options: MemoryOptions,
        inbound: Arc<Lane>,
        outbound: Arc<Lane>,
        waker: Waker,
    ) -> Result<Self, DriverError> {
        let MemoryOptions {
            frames,
            chunk_size,
            tx_ring,
            lane: _,
        } = options;
        if tx_ring == 0 {
            return Err(DriverError::InvalidOption(
                "a TX ring of no entries".to_owned(),
            ));
        }
        // Small and short-lived: not worth anybody's huge pages.
        let umem = Umem::new(UmemOptions {
            frames,
            chunk_size,
            huge_pages: HugePages::Never,
        })?;
        let tx_entries = u32::try_from(tx_ring).unwrap_or(u32::MAX);
        Ok(Self {
            umem,
            tx_ring: VecDeque::with_capacity(tx_ring),
            inbound,
            outbound,
            waker,
            counts: QueueStatistics::default(),
            report: simulated_report("memory", frames, chunk_size, tx_entries),
        })
    }
}

fn lane(options: MemoryOptions, listener: Option<Waker>) -> Lane {
    let packet_len_max = options.chunk_size.saturating_sub(FRAME_HEADROOM) as usize;
    Lane::new(options.lane, packet_len_max, listener)
}

/// The report of a driver without a NIC.
pub(super) fn simulated_report(
    name: &str,
    frames: u32,
    chunk_size: u32,
    tx_ring: u32,
) -> DriverReport {
    DriverReport {
        interface: name.to_owned(),
        driver: name.to_owned(),
        mode: ObtainedMode::Simulated,
        queues: vec![0],
        need_wakeup: false,
        busy_poll: false,
        huge_pages: false,
        frames,
        chunk_size,
        tx_reserve: 0,
        rx_ring: 0,
        tx_ring,
        fill_ring: 0,
        completion_ring: 0,
    }
}

/// Sleeps on a waker alone.
pub(super) fn sleep(waker: &Waker, timeout: Duration) -> Wakeup {
    if !waker.begin_sleep() {
        return Wakeup::Woken;
    }
    let timeout = Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(timeout.subsec_nanos()),
    };
    let mut descriptors = [PollFd::new(waker, PollFlags::IN)];
    let readable = poll(&mut descriptors, Some(&timeout)).is_ok_and(|ready| ready > 0);
    if waker.end_sleep(readable) {
        Wakeup::Woken
    } else {
        Wakeup::TimedOut
    }
}

impl FramePool for MemoryDriver {
    type Frame = Frame<Filled>;

    #[inline]
    fn take(&mut self) -> Option<Frame<Filled>> {
        self.umem.take()
    }

    #[inline]
    fn give(&mut self, frame: Frame<Filled>) {
        self.umem.give(frame);
    }
}

impl Driver for MemoryDriver {
    fn rx(&mut self, batch: &mut Batch, now_ns: u64) -> usize {
        let before = batch.len();
        while batch.room() > 0 {
            if self.inbound.full.is_empty() {
                break;
            }
            // Without a frame to put it in, a packet stays on the wire.
            let Some(mut frame) = self.umem.take() else {
                self.counts.fill_short += 1;
                break;
            };
            let received = self.inbound.receive(|packet| {
                frame.set_len(packet.len());
                let len = frame.data().len();
                frame.data_mut().copy_from_slice(&packet[..len]);
            });
            if received.is_none() {
                self.umem.give(frame);
                break;
            }
            frame.set_stamps(stack::frame::Stamps {
                arrival_ns: 0,
                taken_ns: now_ns,
            });
            self.counts.rx_packets += 1;
            let pushed = batch.push(frame);
            debug_assert!(pushed.is_ok(), "invariant: there was room");
        }
        batch.len() - before
    }

    fn tx(&mut self, frame: Frame<Filled>) -> Result<(), Frame<Filled>> {
        if frame.len() < FRAME_LEN_MIN || self.umem.address(&frame).is_none() {
            self.counts.tx_refused += 1;
            self.umem.give(frame);
            return Ok(());
        }
        if self.tx_ring.len() >= self.report.tx_ring as usize {
            self.counts.tx_ring_full += 1;
            return Err(frame);
        }
        self.counts.tx_packets += 1;
        self.tx_ring.push_back(frame);
        Ok(())
    }

    fn flush(&mut self) {
        self.umem.collect_returns();
        let mut sent = false;
        while let Some(frame) = self.tx_ring.pop_front() {
            if !self.outbound.send(frame.data()) {
                self.tx_ring.push_front(frame);
                break;
            }
            sent = true;
            self.counts.tx_completions += 1;
            self.umem.give(frame);
        }
        if sent {
            self.outbound.wake_listener();
        }
    }

    fn wait(&mut self, timeout: Duration) -> Wakeup {
        if !self.inbound.full.is_empty() {
            return Wakeup::Packets;
        }
        match sleep(&self.waker, timeout) {
            // The far end wakes us for its packets, too.
            Wakeup::Woken if !self.inbound.full.is_empty() => Wakeup::Packets,
            wakeup => wakeup,
        }
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn frame_return(&mut self) -> FrameReturn {
        self.umem.frame_return()
    }

    fn link(&self) -> Link {
        Link::Up
    }

    fn statistics(&self, into: &mut Vec<QueueStatistics>) {
        into.clear();
        into.push(self.counts);
    }

    fn report(&self) -> &DriverReport {
        &self.report
    }

    fn census(&self) -> FrameCensus {
        let mut census = self.umem.census();
        // Frames in the TX ring are held by us, and by nobody else.
        let in_rings = u32::try_from(self.tx_ring.len()).unwrap_or(u32::MAX);
        census.in_rings += in_rings;
        census.out -= in_rings;
        census
    }
}

impl Drop for MemoryDriver {
    fn drop(&mut self) {
        while let Some(frame) = self.tx_ring.pop_front() {
            self.umem.give(frame);
        }
    }
}

impl fmt::Debug for MemoryDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryDriver")
            .field("umem", &self.umem)
            .field("tx_ring", &self.tx_ring.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> MemoryOptions {
        MemoryOptions {
            frames: 16,
            chunk_size: 2048,
            tx_ring: 4,
            lane: 8,
        }
    }

    fn send(driver: &mut MemoryDriver, bytes: &[u8]) -> Result<(), Frame<Filled>> {
        let mut frame = driver.take().unwrap();
        frame.set_len(bytes.len());
        frame.data_mut().copy_from_slice(bytes);
        driver.tx(frame)
    }

    #[test]
    fn injected_packets_are_received_in_order_and_answers_collected() {
        let (mut driver, peer) = MemoryDriver::with_peer(options()).unwrap();
        let mut batch = Batch::with_capacity(3);
        for number in 0..5u8 {
            assert!(peer.inject(&[number; 60]));
        }
        assert_eq!(driver.rx(&mut batch, 42), 3, "as many as the batch holds");
        for frame in batch.drain() {
            assert_eq!(
                frame.stamps(),
                stack::frame::Stamps {
                    arrival_ns: 0,
                    taken_ns: 42
                }
            );
            driver.tx(frame).unwrap();
        }
        assert_eq!(peer.collect(), None, "nothing leaves before a flush");
        driver.flush();
        for number in 0..3u8 {
            assert_eq!(peer.collect().as_deref(), Some(&[number; 60][..]));
        }
        assert_eq!(driver.rx(&mut batch, 43), 2);
        batch.drain().for_each(|frame| driver.give(frame));
        assert_eq!(
            driver.census(),
            FrameCensus {
                total: 16,
                home: 16,
                in_rings: 0,
                out: 0
            }
        );
    }

    #[test]
    fn full_wire_fills_the_ring_and_a_full_ring_hands_the_frame_back() {
        let (mut driver, peer) = MemoryDriver::with_peer(options()).unwrap();
        let mut sent = 0u8;
        let back = loop {
            match send(&mut driver, &[sent; 60]) {
                Ok(()) => sent += 1,
                Err(frame) => break frame,
            }
            driver.flush();
        };
        // Eight on the wire, four in the ring.
        assert_eq!(sent, 12);
        assert_eq!(back.data(), [12; 60]);
        assert_eq!(
            driver.census(),
            FrameCensus {
                total: 16,
                home: 11,
                in_rings: 4,
                out: 1
            }
        );
        driver.give(back);
        let mut statistics = Vec::new();
        driver.statistics(&mut statistics);
        assert_eq!(statistics[0].tx_ring_full, 1);
        // Nothing is lost: it leaves as the far end takes.
        for number in 0..12u8 {
            assert_eq!(peer.collect().as_deref(), Some(&[number; 60][..]));
            driver.flush();
        }
    }

    #[test]
    fn packets_wait_on_the_wire_while_the_pool_is_empty() {
        let (mut driver, peer) = MemoryDriver::with_peer(options()).unwrap();
        let mut held: Vec<_> = std::iter::from_fn(|| driver.take()).collect();
        assert!(peer.inject(&[1; 60]));
        let mut batch = Batch::with_capacity(4);
        assert_eq!(driver.rx(&mut batch, 0), 0);
        driver.give(held.pop().unwrap());
        assert_eq!(driver.rx(&mut batch, 0), 1);
        batch.drain().for_each(|frame| driver.give(frame));
        held.into_iter().for_each(|frame| driver.give(frame));
    }

    #[test]
    fn packet_longer_than_a_frame_is_cut() {
        let (mut driver, peer) = MemoryDriver::with_peer(options()).unwrap();
        assert!(peer.inject(&[3; 5000]));
        let mut batch = Batch::with_capacity(4);
        driver.rx(&mut batch, 0);
        for frame in batch.drain() {
            assert_eq!(frame.data(), [3; 2048 - 256]);
            driver.give(frame);
        }
    }

    #[test]
    fn pair_carries_packets_both_ways_and_wakes_the_far_end() {
        let (mut left, mut right) = MemoryDriver::pair(options()).unwrap();
        let echo = std::thread::spawn(move || {
            let mut batch = Batch::with_capacity(4);
            let mut echoed = 0;
            while echoed < 100 {
                // Far longer than the test may take: only packets end it.
                right.wait(Duration::from_secs(30));
                right.rx(&mut batch, 0);
                for frame in batch.drain() {
                    right.tx(frame).unwrap();
                    echoed += 1;
                }
                right.flush();
            }
        });
        let mut batch = Batch::with_capacity(4);
        for number in 0..100u8 {
            send(&mut left, &[number; 60]).unwrap();
            left.flush();
            while left.rx(&mut batch, 0) == 0 {
                left.wait(Duration::from_secs(30));
            }
            for frame in batch.drain() {
                assert_eq!(frame.data(), [number; 60]);
                left.give(frame);
            }
        }
        echo.join().unwrap();
    }

    #[test]
    fn frame_of_another_driver_is_refused_and_counted() {
        let (mut left, mut right) = MemoryDriver::pair(options()).unwrap();
        let mut frame = left.take().unwrap();
        frame.set_len(60);
        right.tx(frame).unwrap();
        let mut statistics = Vec::new();
        right.statistics(&mut statistics);
        assert_eq!((statistics[0].tx_refused, statistics[0].tx_packets), (1, 0));
        assert_eq!(right.census().home, 16);
    }
}
