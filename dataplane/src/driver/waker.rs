//! Waking a worker that sleeps, from another thread.

use super::error::DriverError;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Wakes the worker whose driver made it. Cheap to clone, and cheap to call on a worker that is
/// awake: the system call is made only when one sleeps.
///
/// ```text
///   worker                               waker
///   asleep = true                        pending = true
///   pending? ─ yes ─► do not sleep       asleep? ─ yes ─► write the eventfd
///   poll(sockets, eventfd)
///   asleep = false
/// ```
///
/// Each side writes its own flag before it reads the other's, both in one total order
/// (sequentially consistent), so at least one of the two sees the other: no wake-up is lost.
#[derive(Clone, Debug)]
pub struct Waker(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    eventfd: OwnedFd,
    asleep: AtomicBool,
    pending: AtomicBool,
}

impl Waker {
    pub(super) fn new() -> Result<Self, DriverError> {
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| DriverError::os("make an eventfd", errno))?;
        Ok(Self(Arc::new(Shared {
            eventfd,
            asleep: AtomicBool::new(false),
            pending: AtomicBool::new(false),
        })))
    }

    /// Ends the worker's present sleep, or its next.
    pub fn wake(&self) {
        // An earlier call that is still unanswered has done, or is doing, what is below.
        if self.0.pending.swap(true, Ordering::SeqCst) {
            return;
        }
        if self.0.asleep.load(Ordering::SeqCst) {
            // Fails only when the counter would overflow, and then it is readable anyway.
            let _ = rustix::io::write(&self.0.eventfd, &1u64.to_ne_bytes());
        }
    }

    /// Announces that the worker is about to sleep. False if somebody woke it already.
    pub(super) fn begin_sleep(&self) -> bool {
        self.0.asleep.store(true, Ordering::SeqCst);
        if self.0.pending.load(Ordering::SeqCst) {
            self.end_sleep(false);
            return false;
        }
        true
    }

    /// The worker is awake; `readable` is what poll said of the eventfd. True if somebody woke it
    /// since it last slept.
    pub(super) fn end_sleep(&self, readable: bool) -> bool {
        self.0.asleep.store(false, Ordering::SeqCst);
        let woken = self.0.pending.swap(false, Ordering::SeqCst);
        // Readable without pending: a waker wrote after the sleep it meant to end had ended.
        if woken || readable {
            let mut count = [0; 8];
            let _ = rustix::io::read(&self.0.eventfd, &mut count);
        }
        woken
    }
}

impl AsFd for Waker {
    /// Readable while a wake-up waits.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.eventfd.as_fd()
    }
}
