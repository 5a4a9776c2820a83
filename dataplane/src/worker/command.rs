//! What the control plane tells a worker, and what a worker asks of it. Bounded queues both ways,
//! no locks; whoever puts something in wakes the other side.

use crate::driver::Waker;
use crate::handler::Application;
use crate::handler::dial::DialSpec;
use crate::observe::sockets::Listing;
use crossbeam::queue::ArrayQueue;
use stack::link::{LinkState, NeighborUpdate};
use stack::socket::bind::Bind;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// A listener of a service, as one worker sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceBind {
    /// Where it listens.
    pub bind: Bind,
    /// Which service of the configuration it belongs to, counted from 0.
    pub service: u16,
    /// What answers.
    pub application: Application,
    /// Whether it answers here; else other workers serve it.
    pub here: bool,
}

/// What the control plane tells a worker.
#[derive(Debug)]
pub enum Command {
    /// The link, its addresses and routes are now these.
    Link(Box<LinkState>),
    /// A neighbour changed.
    Neighbor(NeighborUpdate),
    /// These are the listeners now: new ones are bound, and those that are gone are closed. What
    /// did not change keeps what waits in it.
    Services {
        /// As this worker sees them.
        binds: Vec<ServiceBind>,
        /// For each service, the workers that serve it.
        served_by: Arc<Vec<Vec<usize>>>,
    },
    /// These are the connections to open now. What did not change keeps its connections. Send it only while
    /// what comes back is steered here: the kernel would reset it.
    Connect(Vec<DialSpec>),
    /// List connections, some in each turn; the listing goes back through its own sender.
    Sockets(Box<Listing>),
}

/// What a worker asks of the control plane.
#[derive(Debug)]
pub enum Request {
    /// Find this neighbour.
    Neighbor(IpAddr),
    /// Drop this where freeing memory delays no packet.
    Drop(Box<LinkState>),
    /// The interface is gone.
    DriverGone,
}

/// Commands that wait, at most. A neighbour table of the default size fits.
const COMMANDS_MAX: usize = 2048;
/// Requests that wait, at most. What does not fit is asked again: neighbours a second later.
const REQUESTS_MAX: usize = 256;

#[derive(Debug)]
struct Shared {
    commands: ArrayQueue<Command>,
    requests: ArrayQueue<Request>,
    /// A [`Phase`].
    phase: AtomicU8,
    closed: AtomicBool,
    drained: AtomicBool,
}

/// Where a worker is in its life. Workers end step by step, so that connections close while their
/// segments still come, and none is gone while another still has packets for it:
///
/// ```text
///   Serve ── close() ──► Close: a FIN for every connection, says when none is left
///         ── drain() ──► Drain: a RST for those that are; empties its rings, says so
///         ── stop()  ──► End
/// ```
///
/// The next step is taken once every worker has said so, or its time is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Packets come.
    Serve,
    /// No more connections are taken, and those there are get closed; packets come as ever.
    Close,
    /// No more packets come from the wire: what is there gets through.
    Drain,
    /// No more packets come from other workers either: end when there are none left.
    End,
}

impl Phase {
    const fn from_u8(byte: u8) -> Self {
        match byte {
            0 => Self::Serve,
            1 => Self::Close,
            2 => Self::Drain,
            _ => Self::End,
        }
    }
}

/// Makes the two ends. `notify` is called by the worker when it has asked for something.
#[must_use]
pub fn channel(waker: Waker, notify: Arc<tokio::sync::Notify>) -> (Commander, Commands) {
    let shared = Arc::new(Shared {
        commands: ArrayQueue::new(COMMANDS_MAX),
        requests: ArrayQueue::new(REQUESTS_MAX),
        phase: AtomicU8::new(Phase::Serve as u8),
        closed: AtomicBool::new(false),
        drained: AtomicBool::new(false),
    });
    (
        Commander {
            shared: Arc::clone(&shared),
            waker,
        },
        Commands { shared, notify },
    )
}

/// The control plane's end.
#[derive(Clone, Debug)]
pub struct Commander {
    shared: Arc<Shared>,
    waker: Waker,
}

impl Commander {
    /// Tells the worker something.
    ///
    /// # Errors
    /// The queue is full; the command comes back, to be sent again later.
    pub fn send(&self, command: Command) -> Result<(), Command> {
        self.shared.commands.push(command)?;
        self.waker.wake();
        Ok(())
    }

    /// Wakes the worker, for what it looks at in every turn.
    pub fn wake(&self) {
        self.waker.wake();
    }

    /// Tells the worker to take no more connections, and to close those there are.
    pub fn close(&self) {
        self.enter(Phase::Close);
    }

    /// Whether the worker has had no connection left since [`close`](Self::close).
    #[must_use]
    pub fn has_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }

    /// Tells the worker that nothing comes from the wire any more: to finish what it has.
    pub fn drain(&self) {
        self.enter(Phase::Drain);
    }

    /// Whether the worker has had nothing left to do since [`drain`](Self::drain).
    #[must_use]
    pub fn has_drained(&self) -> bool {
        self.shared.drained.load(Ordering::Acquire)
    }

    /// Tells the worker to finish what it has and end. If others may still hand packets to it,
    /// [`drain`](Self::drain) all of them first.
    pub fn stop(&self) {
        self.enter(Phase::End);
    }

    fn enter(&self, phase: Phase) {
        // Never back: a worker that is to end does not serve again.
        self.shared.phase.fetch_max(phase as u8, Ordering::Release);
        self.waker.wake();
    }

    /// The next thing the worker asks for.
    #[must_use]
    pub fn next_request(&self) -> Option<Request> {
        self.shared.requests.pop()
    }
}

/// The worker's end.
#[derive(Debug)]
pub struct Commands {
    shared: Arc<Shared>,
    notify: Arc<tokio::sync::Notify>,
}

impl Commands {
    /// The next command.
    #[inline]
    #[must_use]
    pub fn next(&self) -> Option<Command> {
        self.shared.commands.pop()
    }

    /// What is wanted of the worker.
    #[inline]
    #[must_use]
    pub fn phase(&self) -> Phase {
        Phase::from_u8(self.shared.phase.load(Ordering::Acquire))
    }

    /// Tells the control plane that no connection is left.
    #[cold]
    pub fn report_closed(&self) {
        self.shared.closed.store(true, Ordering::Release);
    }

    /// Tells the control plane that nothing is left to do.
    #[cold]
    pub fn report_drained(&self) {
        self.shared.drained.store(true, Ordering::Release);
    }

    /// Asks for something. What does not fit is dropped here: every request is repeated while its
    /// cause lasts.
    #[cold]
    pub fn request(&self, request: Request) {
        let _ = self.shared.requests.push(request);
        self.notify.notify_one();
    }
}
