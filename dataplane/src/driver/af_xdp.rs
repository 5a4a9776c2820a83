//! The driver on one or more queues of a NIC.
//!
//! All queues of one worker share one UMEM, so that a packet which came in on one can leave on
//! another, and idle queues lend their frames to busy ones. Each queue has its own four rings.

use super::error::DriverError;
use super::frame::{FRAME_LEN_MIN, Filled, Frame};
use super::interface::Interface;
use super::mode::{Attempt, BindMode};
use super::umem::{FrameCensus, FrameReturn, Umem, UmemOptions};
use super::waker::Waker;
use super::xsk::{BusyPoll, XskOptions, XskSocket};
use super::{Batch, Driver, DriverReport, Link, QueueStatistics, Wakeup};
use config::HugePages;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::net::xdp::{XdpDesc, XdpDescOptions};
use stack::frame::FramePool;
use std::fmt;
use std::time::Duration;

/// Most queues of one worker. [`Frame::queue`] is a byte, and a core that has to look at more than
/// this many rings each turn has been given too many.
pub const QUEUES_MAX: usize = 64;

/// Rings are powers of two within these bounds: fewer than 64 entries lose packets to every pause of
/// the worker; more than 32768 are 64 MiB of packets that wait.
const RING_MIN: u32 = 64;
const RING_MAX: u32 = 1 << 15;

/// Most calls to send in one flush of one queue. Copy mode sends 32 packets a call where the kernel
/// has no larger budget, so this is a full ring of 2048; more would let sending starve receiving.
const TX_KICKS_MAX: u32 = 64;

/// Longest sleep while packets wait in a TX ring: the kernel, out of buffers a moment ago, may take
/// them now, and does not tell.
const BACKLOG_RETRY: Duration = Duration::from_micros(500);

/// What to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AfXdpOptions {
    /// Name of the interface, in the network namespace of the calling thread.
    pub interface: String,
    /// The NIC's numbers of the queues, each once, at most [`QUEUES_MAX`].
    pub queues: Vec<u32>,
    /// How the program is (or will be) attached, and how to bind.
    pub attempt: Attempt,
    /// Ask the kernel to say when it wants to be called. Costs nothing; saves most calls of
    /// zero-copy drivers.
    pub need_wakeup: bool,
    /// Preferred busy polling, or none.
    pub busy_poll: Option<BusyPoll>,
    /// Entries of each RX ring: a power of two from 64 to 32768, as all the rings.
    pub rx_ring: u32,
    /// Entries of each TX ring.
    pub tx_ring: u32,
    /// Entries of each fill ring. Twice the RX ring lets a zero-copy NIC keep its own ring full too.
    pub fill_ring: u32,
    /// Entries of each completion ring, at least those of the TX ring.
    pub completion_ring: u32,
    /// Frames for each queue: more than the fill ring holds, since sending needs some as well.
    pub frames: u32,
    /// Bytes in a frame's chunk, 2048 or 4096; 256 of them are headroom.
    pub chunk_size: u32,
    /// Whether packet memory goes on huge pages.
    pub huge_pages: HugePages,
}

impl AfXdpOptions {
    /// The usual sizes, on `queues` of `interface`.
    #[must_use]
    pub fn new(interface: &str, queues: Vec<u32>, attempt: Attempt) -> Self {
        Self {
            interface: interface.to_owned(),
            queues,
            attempt,
            need_wakeup: true,
            busy_poll: None,
            rx_ring: 2048,
            tx_ring: 2048,
            fill_ring: 4096,
            completion_ring: 2048,
            frames: 12288,
            chunk_size: 2048,
            huge_pages: HugePages::Auto,
        }
    }

    fn check(&self, interface: &Interface) -> Result<(), DriverError> {
        let Self {
            queues,
            rx_ring,
            tx_ring,
            fill_ring,
            completion_ring,
            frames,
            ..
        } = self;
        let invalid = |sentence: String| Err(DriverError::InvalidOption(sentence));
        if queues.is_empty() || queues.len() > QUEUES_MAX {
            return invalid(format!(
                "{} queues is outside 1 to {QUEUES_MAX}",
                queues.len()
            ));
        }
        for (position, &queue_id) in queues.iter().enumerate() {
            if queue_id >= interface.queues() {
                return Err(DriverError::NoSuchQueue {
                    interface: interface.name.clone(),
                    queue_id,
                    queues: interface.queues(),
                });
            }
            if queues
                .iter()
                .take(position)
                .any(|&earlier| earlier == queue_id)
            {
                return invalid(format!("queue {queue_id} is listed twice"));
            }
        }
        for (name, size) in [
            ("RX", *rx_ring),
            ("TX", *tx_ring),
            ("fill", *fill_ring),
            ("completion", *completion_ring),
        ] {
            if !size.is_power_of_two() || !(RING_MIN..=RING_MAX).contains(&size) {
                return invalid(format!(
                    "{name} ring of {size} entries is no power of two from {RING_MIN} to {RING_MAX}"
                ));
            }
        }
        if completion_ring < tx_ring {
            return invalid(format!(
                "completion ring of {completion_ring} entries is smaller than the TX ring of \
                 {tx_ring}: packets could not be acknowledged"
            ));
        }
        if frames <= fill_ring {
            return invalid(format!(
                "{frames} frames a queue leave none to send with beside a fill ring of {fill_ring}"
            ));
        }
        Ok(())
    }
}

/// One queue: its socket and its counts.
struct Queue {
    socket: XskSocket,
    /// Our own counts; the kernel's are read when asked for.
    counts: QueueStatistics,
    /// Frames in the TX ring or on their way back through the completion ring.
    in_flight: u32,
    /// Whether the fill ring may have room.
    fill_due: bool,
}

/// The driver on queues of a NIC, with one UMEM for all of them.
pub struct AfXdp {
    // Before the UMEM: closing the sockets ends the kernel's use of it.
    queues: Vec<Queue>,
    umem: Umem,
    /// The queue that the next `rx` begins with.
    next: usize,
    tx_reserve: u32,
    link: Link,
    waker: Waker,
    report: DriverReport,
}

impl AfXdp {
    /// Opens the queues. The program has to be attached first where the driver wants it so (gve);
    /// no packet arrives before the sockets are in its map: see [`sockets`](Self::sockets).
    ///
    /// # Errors
    ///
    /// Every way this can fail is a [`DriverError`] that says what to do. After one that
    /// is a [mode refusal](DriverError::mode_refusal), another mode may work.
    pub fn open(options: &AfXdpOptions) -> Result<Self, DriverError> {
        let interface = Interface::by_name(&options.interface)?;
        options.check(&interface)?;
        // At most QUEUES_MAX.
        #[expect(clippy::cast_possible_truncation)]
        let queue_count = options.queues.len() as u32;
        let mut umem = Umem::new(UmemOptions {
            frames: options.frames.saturating_mul(queue_count),
            chunk_size: options.chunk_size,
            huge_pages: options.huge_pages,
        })?;
        let waker = Waker::new()?;

        let mut queues: Vec<Queue> = Vec::with_capacity(options.queues.len());
        for &queue_id in &options.queues {
            let first = queues.first().map(|queue| queue.socket.as_fd());
            let socket = XskSocket::open(
                &XskOptions {
                    interface: &interface,
                    queue_id,
                    rx_ring: options.rx_ring,
                    tx_ring: options.tx_ring,
                    fill_ring: options.fill_ring,
                    completion_ring: options.completion_ring,
                    bind: options.attempt.bind,
                    need_wakeup: options.need_wakeup,
                    busy_poll: options.busy_poll,
                    shares_umem_of: first,
                },
                &mut umem,
            )?;
            queues.push(Queue {
                socket,
                counts: QueueStatistics {
                    queue_id,
                    ..QueueStatistics::default()
                },
                in_flight: 0,
                // A zero-copy NIC has taken some already.
                fill_due: true,
            });
        }

        let zero_copy = queues.iter().all(|queue| queue.socket.zero_copy);
        let obtained = Attempt {
            attach: options.attempt.attach,
            bind: if zero_copy {
                BindMode::ZeroCopy
            } else {
                BindMode::Copy
            },
        };
        // Half of what the full fill rings leave. The other half is what the RX rings may hold
        // beyond the fill rings' own before refilling has to wait.
        let tx_reserve = (umem.home() / 2).max(1);
        let report = DriverReport {
            interface: interface.name,
            driver: interface.driver,
            mode: obtained.obtains(),
            queues: options.queues.clone(),
            need_wakeup: options.need_wakeup,
            busy_poll: options.busy_poll.is_some(),
            huge_pages: umem.is_huge(),
            frames: umem.census().total,
            chunk_size: options.chunk_size,
            tx_reserve,
            rx_ring: options.rx_ring,
            tx_ring: options.tx_ring,
            fill_ring: options.fill_ring,
            completion_ring: options.completion_ring,
        };
        Ok(Self {
            queues,
            umem,
            next: 0,
            tx_reserve,
            link: Link::Up,
            waker,
            report,
        })
    }

    /// The sockets with the NIC's numbers of their queues, to be put into the steering program's
    /// map: each into the slot of its own number, or its packets are dropped without a word.
    pub fn sockets(&self) -> impl ExactSizeIterator<Item = (u32, BorrowedFd<'_>)> {
        self.queues
            .iter()
            .map(|queue| (queue.counts.queue_id, queue.socket.as_fd()))
    }

    /// Frames of other drivers that were given to this one and are lost: a defect of the caller.
    #[must_use]
    pub fn foreign_frames(&self) -> u64 {
        self.umem.foreign()
    }
}

impl Queue {
    /// Brings home the frames that were sent.
    #[inline]
    fn reap(&mut self, umem: &mut Umem) {
        if self.in_flight == 0 {
            return;
        }
        let done = self.socket.completion.peek(self.in_flight);
        if done == 0 {
            return;
        }
        for _ in 0..done {
            if let Some(address) = self.socket.completion.read()
                && !umem.reclaim(address)
            {
                self.counts.rx_refused += 1;
            }
        }
        self.socket.completion.release();
        self.in_flight -= done;
        self.counts.tx_completions += u64::from(done);
    }

    /// Fills the fill ring, as far as the pool goes without touching what is kept for sending.
    #[inline]
    fn refill(&mut self, umem: &mut Umem, tx_reserve: u32) {
        if self.fill_due {
            let room = self.socket.fill.reserve(self.socket.fill.size());
            let spare = umem.home().saturating_sub(tx_reserve);
            for _ in 0..room.min(spare) {
                let Some(address) = umem.lend_free() else {
                    break;
                };
                let written = self.socket.fill.write(address);
                debug_assert!(written.is_ok(), "invariant: `reserve` saw the room");
            }
            self.socket.fill.submit();
            self.fill_due = room > spare;
            if self.fill_due {
                self.counts.fill_short += 1;
            }
        }
        // Only zero-copy drivers ask: they ran out of frames, and look again when told to. In copy
        // mode the kernel takes frames as packets come.
        if self.socket.zero_copy && self.socket.fill.needs_wakeup() && !self.fill_due {
            self.counts.rx_kicks += 1;
            // What a kick cannot do now, the next one will.
            let _ = self.socket.kick_rx();
        }
    }

    /// Publishes the TX ring and gets the kernel to take it. Returns what became of the link, if
    /// anything was learnt.
    #[inline]
    fn transmit(&mut self, umem: &mut Umem, need_wakeup: bool) -> Option<Link> {
        if self.socket.tx.known_empty() {
            return None;
        }
        self.socket.tx.submit();
        self.kick_until_taken(umem, need_wakeup)
    }

    fn kick_until_taken(&mut self, umem: &mut Umem, need_wakeup: bool) -> Option<Link> {
        let mut learnt = None;
        let mut backlog = self.socket.tx.backlog();
        for _ in 0..TX_KICKS_MAX {
            // A flag that is not set yet although the kernel has stopped looking is met on the next
            // turn: this runs for as long as anything is in the ring.
            if backlog == 0 || (need_wakeup && !self.socket.tx.needs_wakeup()) {
                break;
            }
            self.counts.tx_kicks += 1;
            match self.socket.kick_tx() {
                // Everything taken, or (EAGAIN) a budget's worth: more is to come.
                Ok(()) | Err(Errno::AGAIN) => learnt = Some(Link::Up),
                // Short of buffers: later.
                Err(Errno::BUSY | Errno::NOBUFS | Errno::INTR) => {
                    learnt = Some(Link::Up);
                    break;
                }
                Err(Errno::NETDOWN) => return Some(Link::Down),
                // xsk_sendmsg on an unbound socket: the device was unregistered.
                Err(Errno::NXIO | Errno::NODEV) => return Some(Link::Gone),
                Err(_) => break,
            }
            if self.socket.zero_copy {
                // The NIC sends on its own from here.
                break;
            }
            // The kernel sends only what it can also acknowledge.
            self.reap(umem);
            let left = self.socket.tx.backlog();
            if left == backlog {
                break;
            }
            backlog = left;
        }
        learnt
    }
}

impl FramePool for AfXdp {
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

impl Driver for AfXdp {
    #[inline]
    fn rx(&mut self, batch: &mut Batch, now_ns: u64) -> usize {
        let before = batch.len();
        let count = self.queues.len();
        let first = self.next;
        self.next = if first + 1 == count { 0 } else { first + 1 };
        for step in 0..count {
            let index = if first + step < count {
                first + step
            } else {
                first + step - count
            };
            let room = u32::try_from(batch.room()).unwrap_or(u32::MAX);
            if room == 0 {
                break;
            }
            let queue = &mut self.queues[index];
            let mut ready = queue.socket.rx.peek(room);
            if ready == 0 && self.report.busy_poll {
                // With interrupts off, packets come when somebody polls; that is us.
                queue.counts.rx_kicks += 1;
                let _ = queue.socket.kick_rx();
                ready = queue.socket.rx.peek(room);
            }
            if ready == 0 {
                continue;
            }
            // Below QUEUES_MAX.
            #[expect(clippy::cast_possible_truncation)]
            let number = index as u8;
            for _ in 0..ready {
                let Some(XdpDesc {
                    addr,
                    len,
                    options: _,
                }) = queue.socket.rx.read()
                else {
                    break;
                };
                match self.umem.receive(addr, len, number, now_ns) {
                    Some(frame) => {
                        let pushed = batch.push(frame);
                        debug_assert!(pushed.is_ok(), "invariant: `peek` was bounded by the room");
                    }
                    None => queue.counts.rx_refused += 1,
                }
            }
            queue.socket.rx.release();
            queue.fill_due = true;
            queue.counts.rx_packets += u64::from(ready);
            self.link = Link::Up;
        }
        batch.len() - before
    }

    #[inline]
    fn tx(&mut self, frame: Frame<Filled>) -> Result<(), Frame<Filled>> {
        let last = self.queues.len() - 1;
        let queue = &mut self.queues[usize::from(frame.queue()).min(last)];
        let Some(addr) = self
            .umem
            .address(&frame)
            .filter(|_| frame.len() >= FRAME_LEN_MIN)
        else {
            queue.counts.tx_refused += 1;
            self.umem.give(frame);
            return Ok(());
        };
        let descriptor = XdpDesc {
            addr,
            len: u32::from(frame.len()),
            options: XdpDescOptions::empty(),
        };
        if queue.socket.tx.write(descriptor).is_err() {
            queue.counts.tx_ring_full += 1;
            return Err(frame);
        }
        queue.counts.tx_packets += 1;
        queue.in_flight += 1;
        self.umem.lend(frame);
        Ok(())
    }

    #[inline]
    fn flush(&mut self) {
        let Self {
            queues,
            umem,
            next: _,
            tx_reserve,
            link,
            waker: _,
            report,
        } = self;
        umem.collect_returns();
        for queue in queues {
            // Sending first: replies wait for it. Then what has left is free to receive with.
            if let Some(learnt) = queue.transmit(umem, report.need_wakeup) {
                *link = learnt;
            }
            queue.reap(umem);
            queue.refill(umem, *tx_reserve);
        }
    }

    fn wait(&mut self, timeout: Duration) -> Wakeup {
        if self
            .queues
            .iter_mut()
            .any(|queue| queue.socket.rx.peek(1) > 0)
        {
            return Wakeup::Packets;
        }
        if !self.waker.begin_sleep() {
            return Wakeup::Woken;
        }
        let waiting = self
            .queues
            .iter()
            .any(|queue| !queue.socket.tx.known_empty());
        let timeout = if waiting {
            timeout.min(BACKLOG_RETRY)
        } else {
            timeout
        };
        // Sockets that lost their device are always "ready", and would turn sleep into a spin.
        let gone = self.link == Link::Gone;
        let mut descriptors: [PollFd<'_>; QUEUES_MAX + 1] =
            std::array::from_fn(|_| PollFd::new(&self.waker, PollFlags::IN));
        let mut used = 1;
        for queue in self.queues.iter().filter(|_| !gone) {
            descriptors[used] = PollFd::new(&queue.socket, PollFlags::IN);
            used += 1;
        }
        let timeout = Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        };
        // poll(2) is also what tells a zero-copy driver to look at its rings (xsk_poll).
        let ready = poll(&mut descriptors[..used], Some(&timeout)).unwrap_or(0);
        let readable = ready > 0 && descriptors[0].revents().contains(PollFlags::IN);
        let sockets = || descriptors[1..used].iter().map(PollFd::revents);
        let packets = ready > 0 && sockets().any(|revents| revents.contains(PollFlags::IN));
        if !packets && !gone {
            // A device that is unregistered leaves its word in SO_ERROR (xsk_notifier), and poll
            // says nothing of it. Nobody is in a hurry here: ask.
            let errors = PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL;
            let lost = |queue: &Queue| !matches!(sockopt::socket_error(&queue.socket), Ok(Ok(())));
            if sockets().any(|revents| revents.intersects(errors)) || self.queues.iter().any(lost) {
                self.link = Link::Gone;
            }
        }
        if self.waker.end_sleep(readable) {
            Wakeup::Woken
        } else if packets {
            Wakeup::Packets
        } else {
            Wakeup::TimedOut
        }
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn frame_return(&mut self) -> FrameReturn {
        self.umem.frame_return()
    }

    fn link(&self) -> Link {
        self.link
    }

    fn statistics(&self, into: &mut Vec<QueueStatistics>) {
        into.clear();
        into.extend(self.queues.iter().map(|queue| {
            // A socket that lost its device still answers; one that does not has nothing to add.
            match queue.socket.statistics() {
                Err(_) => queue.counts,
                Ok(kernel) => QueueStatistics {
                    rx_dropped: kernel.rx_dropped,
                    rx_invalid_descs: kernel.rx_invalid_descs,
                    tx_invalid_descs: kernel.tx_invalid_descs,
                    rx_ring_full: kernel.rx_ring_full.unwrap_or(0),
                    rx_fill_ring_empty_descs: kernel.rx_fill_ring_empty_descs.unwrap_or(0),
                    tx_ring_empty_descs: kernel.tx_ring_empty_descs.unwrap_or(0),
                    ..queue.counts
                },
            }
        }));
    }

    fn report(&self) -> &DriverReport {
        &self.report
    }

    fn census(&self) -> FrameCensus {
        self.umem.census()
    }
}

impl fmt::Debug for AfXdp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AfXdp")
            .field("report", &self.report)
            .field("link", &self.link)
            .field("umem", &self.umem)
            .finish_non_exhaustive()
    }
}
