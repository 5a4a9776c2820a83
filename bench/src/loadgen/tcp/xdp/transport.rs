//! One thread's queues, stack and connections.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Duration as StdDuration;

use dataplane::driver::{AfXdp, Batch, Driver, Link, QueueStatistics, Waker};
use stack::counters::Event;
use stack::frame::{Frame as _, FramePool as _};
use stack::link::{LinkState, MacAddr, NeighborUpdate};
use stack::tcp::listener::CongestionKind;
use stack::tcp::manage::State;
use stack::tcp::manage::states::CloseReason;
use stack::tcp::{ConnectError, TcpId};
use stack::time::Instant;
use stack::{Config, Origin, Stack};

use crate::clock::now_ns;
use crate::loadgen::load::Window;
use crate::loadgen::tcp::failure::Failure;
use crate::loadgen::tcp::transport::{Ending, Hearing, Received, Transport};
use crate::loadgen::xdp::engine::{Unfinished, XdpCounts};

/// Frames taken from the rings in one turn: enough that system calls do not show, few enough that a
/// reply does not wait long for its clock reading.
const BATCH: usize = 64;

/// Ports that are tried for one connection: those of connections that still rest are passed over.
const PORTS_TRIED_MAX: usize = 256;

/// How long a connection waits that found no memory in the pools of all: an acknowledgement of another one
/// frees some, and no news tells.
const RETRY_NS: u64 = 1_000_000;

/// Sleep of a thread that only receives for others any more: short beside any timeout.
const COURTESY_NS: u64 = 200_000;

/// Longest wait for peers to close what we have closed: a few round trips. What is left behind would be in
/// the way of the next run that begins with the same ports.
const CLOSING_NS_MAX: u64 = 300_000_000;

/// A frame on its way to the thread whose connection it is of, and the way.
pub(super) type Stray = Box<[u8]>;
type Way = (SyncSender<Stray>, Waker);

/// The other threads. RSS chooses the queue a frame comes to, and so the thread.
#[derive(Debug)]
pub(super) struct Others {
    pub(super) thread: usize,
    /// The thread of each port; `usize::MAX` for those of nobody.
    pub(super) owner_of: Option<Arc<[usize]>>,
    pub(super) ways: Vec<Way>,
    pub(super) receiver: Receiver<Stray>,
    /// Until its load is finished.
    pub(super) unfinished: Option<Unfinished>,
}

#[derive(Clone, Copy, Debug)]
struct Connection {
    id: TcpId,
    local: SocketAddr,
}

/// One thread's part of the engine.
#[allow(missing_debug_implementations)] // The stack has none.
pub struct XdpTransport {
    driver: AfXdp,
    stack: Stack<AfXdp>,
    batch: Batch,
    target: SocketAddr,
    neighbor: (IpAddr, MacAddr),
    /// Local ends that connections may have, and the next to be tried; the first is any of them, so that one run
    /// does not meet what the one before it has left in the target.
    pairs: Vec<(IpAddr, u16)>,
    next_pair: usize,
    /// By slot.
    connections: Vec<Option<Connection>>,
    /// By the place that the stack has a connection in: its slot.
    slots: Vec<Option<(TcpId, u32)>>,
    /// Local ends for which nothing is heard.
    deaf: HashSet<SocketAddr>,
    /// Slots that found no memory, and when they try again.
    starved: Vec<u32>,
    retry_ns: u64,
    others: Others,
    window: Window,
    idle_since: Option<u64>,
    counts: XdpCounts,
}

impl XdpTransport {
    pub(super) fn new(
        mut driver: AfXdp,
        config: Config,
        link: Box<LinkState>,
        neighbor: (IpAddr, MacAddr),
        target: SocketAddr,
        pairs: Vec<(IpAddr, u16)>,
        others: Others,
        slots: usize,
    ) -> Self {
        let places = config.tcp.connections as usize;
        let mut stack = Stack::new(config);
        // There was none before.
        drop(stack.set_link(link, Instant::from_nanos(now_ns())));
        let (address, mac) = neighbor;
        stack.set_neighbor(&mut driver, NeighborUpdate::Set { address, mac });
        Self {
            driver,
            stack,
            batch: Batch::with_capacity(BATCH),
            target,
            neighbor,
            next_pair: fastrand::usize(..pairs.len().max(1)),
            pairs,
            connections: vec![None; slots],
            slots: vec![None; places],
            deaf: HashSet::new(),
            starved: Vec::new(),
            retry_ns: 0,
            others,
            window: Window {
                start_ns: 0,
                measure_ns: 0,
                stop_ns: u64::MAX,
            },
            idle_since: None,
            counts: XdpCounts::default(),
        }
    }

    /// Goes on until all threads are through, for what comes for another may come to this one's queues (and
    /// would go to the kernel, which would reset it), sends what is left to send, and returns what was counted.
    pub(in crate::loadgen::tcp) fn finish(mut self) -> XdpCounts {
        let (mut all_finished, mut news) = (false, Vec::new());
        let unfinished = self.others.unfinished.take();
        let ask = unfinished.map(Unfinished::finish);
        while !all_finished {
            all_finished = ask.as_ref().is_none_or(|ask| ask());
            if self.poll(COURTESY_NS, &mut news).is_err() {
                break;
            }
            news.clear();
        }
        let until = now_ns() + CLOSING_NS_MAX;
        loop {
            let failed = self.poll(COURTESY_NS, &mut news).is_err();
            news.clear();
            let closing = self.stack.tcp_census()[0] > 0 || self.stack.egress_len() > 0;
            if failed || !closing || now_ns() > until {
                break;
            }
        }
        self.stack.release_all(&mut self.driver);
        let mut statistics: Vec<QueueStatistics> = Vec::new();
        self.driver.statistics(&mut statistics);
        for queue in &statistics {
            self.counts.dropped +=
                queue.rx_ring_full + queue.rx_dropped + queue.rx_fill_ring_empty_descs;
        }
        self.counts.checksums_incomplete =
            self.stack.events().get(Event::ChecksumIncompleteAccepted);
        self.counts
    }

    fn connection(&self, slot: u32) -> Option<Connection> {
        self.connections.get(slot as usize).copied().flatten()
    }

    /// Sends what the stack has to send. Returns how many frames.
    fn transmit(&mut self, now: u64) -> usize {
        let Self { driver, stack, .. } = self;
        stack.tcp_transmit(driver, Instant::from_nanos(now));
        let sent = stack.egress(|frame| driver.tx(frame));
        driver.flush();
        sent
    }

    /// Takes what arrived. Returns how many frames.
    fn take(&mut self, now: u64) -> usize {
        let Self {
            driver,
            stack,
            batch,
            deaf,
            others,
            counts,
            ..
        } = self;
        let at = Instant::from_nanos(now);
        let mut received = driver.rx(batch, now);
        for frame in batch.drain() {
            if let Some(owner_of) = &others.owner_of
                && let Some((_, port)) = local_end(frame.data())
            {
                let owner = owner_of[usize::from(port)];
                if owner != others.thread && owner < others.ways.len() {
                    counts.strays += 1;
                    let (way, waker) = &others.ways[owner];
                    match way.try_send(frame.data().into()) {
                        Ok(()) => waker.wake(),
                        // It is busy beyond its means, or has finished.
                        Err(_) => counts.dropped += 1,
                    }
                    driver.give(frame);
                    continue;
                }
            }
            if !deaf.is_empty() && is_deaf(deaf, frame.data()) {
                driver.give(frame);
                continue;
            }
            stack.ingest(driver, frame, Origin::Ring, at);
        }
        if others.owner_of.is_some() {
            for bytes in others.receiver.try_iter().take(BATCH) {
                received += 1;
                if !deaf.is_empty() && is_deaf(deaf, &bytes) {
                    continue;
                }
                let Some(mut frame) = driver.take() else {
                    counts.dropped += 1;
                    continue;
                };
                frame.set_len(bytes.len());
                if frame.data().len() == bytes.len() {
                    frame.data_mut().copy_from_slice(&bytes);
                    stack.ingest(driver, frame, Origin::Ring, at);
                } else {
                    driver.give(frame);
                }
            }
        }
        // The neighbour is known once and for all; what the stack asks the kernel about, it knows already.
        while stack.next_wanted_neighbor().is_some() {
            let (address, mac) = self.neighbor;
            stack.set_neighbor(driver, NeighborUpdate::Set { address, mac });
        }
        received
    }

    /// Adds the slots that the stack has news of.
    fn collect(&mut self, now: u64, news: &mut Vec<u32>) {
        while let Some(id) = self.stack.tcp_next_ready() {
            let (_, place) = id.place();
            match self.slots.get(place as usize) {
                Some(Some((of, slot))) if *of == id => news.push(*slot),
                _ => {}
            }
        }
        if !self.starved.is_empty() && now >= self.retry_ns {
            news.append(&mut self.starved);
        }
    }

    /// How a connection that is no more has ended.
    fn failure(&mut self, id: TcpId) -> Option<Failure> {
        match self.stack.tcp_state(id) {
            Some(State::Closed(closed)) => match closed.reason {
                CloseReason::Finished => None,
                CloseReason::Refused => Some(Failure::Refused),
                CloseReason::Reset | CloseReason::Aborted => Some(Failure::Reset),
                CloseReason::TimedOut => Some(Failure::ConnectTimeout),
                CloseReason::Unreachable => Some(Failure::Unreachable),
            },
            Some(_) => None,
            None => Some(Failure::Reset),
        }
    }
}

/// Address and port that a TCP segment is for; none of what is no segment, has a VLAN tag or extension
/// headers: then the stack of the thread it came to looks at it.
fn local_end(data: &[u8]) -> Option<(IpAddr, u16)> {
    const TCP: u8 = 6;
    let word = |at: usize| Some(u16::from_be_bytes([*data.get(at)?, *data.get(at + 1)?]));
    match word(12)? {
        0x0800 => {
            let header_len = usize::from(data.get(14)? & 0x0f) * 4;
            if *data.get(23)? != TCP {
                return None;
            }
            let address: [u8; 4] = data.get(30..34)?.try_into().ok()?;
            Some((address.into(), word(14 + header_len + 2)?))
        }
        0x86dd => {
            if *data.get(20)? != TCP {
                return None;
            }
            let address: [u8; 16] = data.get(38..54)?.try_into().ok()?;
            Some((address.into(), word(54 + 2)?))
        }
        _ => None,
    }
}

fn is_deaf(deaf: &HashSet<SocketAddr>, data: &[u8]) -> bool {
    local_end(data).is_some_and(|(address, port)| deaf.contains(&SocketAddr::new(address, port)))
}

impl Transport for XdpTransport {
    fn now(&self) -> u64 {
        now_ns()
    }

    fn begin(&mut self, window: &Window) {
        self.window = *window;
    }

    fn open(&mut self, slot: u32, hearing: Hearing) -> Result<(), Failure> {
        let now = Instant::from_nanos(now_ns());
        for _ in 0..self.pairs.len().min(PORTS_TRIED_MAX) {
            let (address, port) = self.pairs[self.next_pair];
            self.next_pair = (self.next_pair + 1) % self.pairs.len();
            let local = SocketAddr::new(address, port);
            let opened =
                self.stack
                    .tcp_connect(local, self.target, CongestionKind::Cubic, true, now);
            let id = match opened {
                Ok(id) => id,
                // Of a connection before it, that is not gone yet.
                Err(ConnectError::AddressInUse) => continue,
                Err(ConnectError::Unreachable) => return Err(Failure::Unreachable),
                Err(ConnectError::TooManyConnections) => {
                    return Err(Failure::Other(libc::ENOBUFS));
                }
                Err(_) => return Err(Failure::NoPort),
            };
            if hearing == Hearing::Deaf {
                self.deaf.insert(local);
            }
            let (_, place) = id.place();
            if let Some(entry) = self.slots.get_mut(place as usize) {
                *entry = Some((id, slot));
            }
            if let Some(connection) = self.connections.get_mut(slot as usize) {
                *connection = Some(Connection { id, local });
            }
            return Ok(());
        }
        Err(Failure::NoPort)
    }

    fn is_open(&mut self, slot: u32) -> Result<bool, Failure> {
        let Some(Connection { id, .. }) = self.connection(slot) else {
            return Ok(false);
        };
        match self.stack.tcp_state(id) {
            Some(State::SynSent(_) | State::SynReceived(_)) => Ok(false),
            None | Some(State::Closed(_)) => {
                Err(self.failure(id).unwrap_or(Failure::ConnectTimeout))
            }
            Some(_) => Ok(true),
        }
    }

    fn send(&mut self, slot: u32, bytes: &[u8]) -> Result<usize, Failure> {
        let Some(Connection { id, .. }) = self.connection(slot) else {
            return Ok(0);
        };
        let now = now_ns();
        let sent = self.stack.tcp_send(id, Instant::from_nanos(now), bytes);
        let sent = sent.unwrap_or(0);
        if sent < bytes.len() {
            if let Some(failure) = self.failure(id) {
                return Err(match failure {
                    // The handshake is over: it is the data that was not acknowledged.
                    Failure::ConnectTimeout => Failure::Timeout,
                    other => other,
                });
            }
            // There is news when a connection that is full has room again; not when all of them together
            // are.
            if self.stack.tcp_writable(id) > 0 {
                if self.starved.is_empty() {
                    self.retry_ns = now + RETRY_NS;
                }
                self.starved.push(slot);
            }
        }
        Ok(sent)
    }

    fn receive(&mut self, slot: u32, sink: &mut impl FnMut(&[u8])) -> Result<Received, Failure> {
        let Some(Connection { id, .. }) = self.connection(slot) else {
            return Ok(Received::All);
        };
        let now = Instant::from_nanos(now_ns());
        let read = self.stack.tcp_receive_with(id, now, |bytes| {
            sink(bytes);
            bytes.len()
        });
        if let Some(failure) = self.failure(id) {
            return Err(match failure {
                Failure::ConnectTimeout => Failure::Timeout,
                other => other,
            });
        }
        if read.is_err() || self.stack.tcp_is_at_end(id) {
            return Ok(Received::End);
        }
        Ok(Received::All)
    }

    fn finish(&mut self, slot: u32) {
        if let Some(Connection { id, .. }) = self.connection(slot) {
            // One that is reset already says so when it is read.
            let _ = self.stack.tcp_shutdown(id, Instant::from_nanos(now_ns()));
        }
    }

    fn close(&mut self, slot: u32, ending: Ending) {
        let place = self.connections.get_mut(slot as usize);
        let Some(Connection { id, local }) = place.and_then(Option::take) else {
            return;
        };
        let now = Instant::from_nanos(now_ns());
        match ending {
            Ending::Fin => self.stack.tcp_close(id, now),
            Ending::Reset => self.stack.tcp_abort(id, now),
        }
        let (_, place) = id.place();
        if let Some(entry) = self.slots.get_mut(place as usize)
            && entry.is_some_and(|(of, _)| of == id)
        {
            *entry = None;
        }
        if !self.deaf.is_empty() {
            self.deaf.remove(&local);
        }
    }

    fn deafen(&mut self, slot: u32) {
        if let Some(Connection { local, .. }) = self.connection(slot) {
            self.deaf.insert(local);
        }
    }

    fn poll(&mut self, wait_ns: u64, news: &mut Vec<u32>) -> Result<(), String> {
        let now = now_ns();
        if let Some(since) = self.idle_since.take()
            && self.window.measures(since)
        {
            self.counts.idle_ns += now.saturating_sub(since);
        }
        let already = news.len();
        let sent = self.transmit(now);
        let received = self.take(now);
        let at = Instant::from_nanos(now);
        self.stack.expire(&mut self.driver, at);
        self.collect(now, news);
        if received + sent > 0 || news.len() > already {
            return Ok(());
        }
        self.idle_since = Some(now);
        if self.driver.link() == Link::Gone {
            return Err(format!("{} is gone", self.driver.report().interface));
        }
        let mut wait_ns = wait_ns;
        if let Some(deadline) = self.stack.tcp_next_deadline() {
            wait_ns = wait_ns.min(deadline.as_nanos().saturating_sub(now));
        }
        if !self.starved.is_empty() {
            wait_ns = wait_ns.min(self.retry_ns.saturating_sub(now));
        }
        if wait_ns > 0 && news.is_empty() && self.stack.egress_len() == 0 {
            self.driver.wait(StdDuration::from_nanos(wait_ns));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn segments_say_whose_they_are() {
        let mut v4 = vec![0; 60];
        v4[12..14].copy_from_slice(&[0x08, 0x00]);
        v4[14] = 0x46; // one word of options
        v4[23] = 6;
        v4[30..34].copy_from_slice(&[10, 0, 0, 1]);
        v4[40..42].copy_from_slice(&5000u16.to_be_bytes());
        assert_eq!(local_end(&v4), Some(([10, 0, 0, 1].into(), 5000)));
        v4[23] = 17;
        assert_eq!(local_end(&v4), None);
        let mut v6 = vec![0; 80];
        v6[12..14].copy_from_slice(&[0x86, 0xdd]);
        v6[20] = 6;
        v6[53] = 1;
        v6[56..58].copy_from_slice(&5000u16.to_be_bytes());
        let address: IpAddr = "::1".parse().unwrap();
        assert_eq!(local_end(&v6), Some((address, 5000)));
        let deaf = HashSet::from([SocketAddr::new(address, 5000)]);
        assert!(is_deaf(&deaf, &v6) && !is_deaf(&deaf, &v4));
    }

    proptest! {
        #[test]
        fn no_frame_panics(bytes: Vec<u8>) {
            let _ = local_end(&bytes);
        }
    }
}
