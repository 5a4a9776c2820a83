//! What the control plane tells a worker, and what a worker asks of it. Bounded queues both ways,
//! no locks; whoever puts something in wakes the other side.

use crate::driver::Waker;
use crate::handler::Application;
use crossbeam::queue::ArrayQueue;
use stack::link::{LinkState, NeighborUpdate};
use stack::socket::bind::Bind;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A listener of a service, as one worker sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceBind {
    /// Where it listens.
    pub bind: Bind,
    /// Which service of the configuration it belongs to, counted from 0.
    pub service: u16,
    /// What answers here; `None` if other workers serve it.
    pub application: Option<Application>,
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
    stop: AtomicBool,
}

/// Makes the two ends. `notify` is called by the worker when it has asked for something.
#[must_use]
pub fn channel(waker: Waker, notify: Arc<tokio::sync::Notify>) -> (Commander, Commands) {
    let shared = Arc::new(Shared {
        commands: ArrayQueue::new(COMMANDS_MAX),
        requests: ArrayQueue::new(REQUESTS_MAX),
        stop: AtomicBool::new(false),
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

    /// Tells the worker to finish what it has and end.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
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

    /// Whether to end.
    #[inline]
    #[must_use]
    pub fn stopping(&self) -> bool {
        self.shared.stop.load(Ordering::Acquire)
    }

    /// Asks for something. What does not fit is dropped here: every request is repeated while its
    /// cause lasts.
    #[cold]
    pub fn request(&self, request: Request) {
        let _ = self.shared.requests.push(request);
        self.notify.notify_one();
    }
}
