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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::Wakeup;
    use crate::driver::memory::sleep;
    use std::sync::atomic::AtomicU64;
    use std::time::Duration;

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn wake_before_sleep_ends_the_next_sleep_and_only_that() {
        let waker = Waker::new().unwrap();
        waker.wake();
        waker.wake();
        assert_eq!(sleep(&waker, LONG), Wakeup::Woken);
        assert_eq!(sleep(&waker, Duration::ZERO), Wakeup::TimedOut);
    }

    #[test]
    fn wake_that_comes_too_late_for_its_sleep_does_not_stay_readable() {
        let waker = Waker::new().unwrap();
        // A waker that saw a sleeper, and writes after the sleeper has gone on by itself.
        rustix::io::write(&waker.0.eventfd, &1u64.to_ne_bytes()).unwrap();
        assert_eq!(sleep(&waker, LONG), Wakeup::TimedOut);
        assert_eq!(sleep(&waker, Duration::from_millis(1)), Wakeup::TimedOut);
        let mut count = [0; 8];
        assert!(
            rustix::io::read(&waker.0.eventfd, &mut count).is_err(),
            "still readable"
        );
    }

    #[test]
    fn no_wake_up_is_lost_between_threads() {
        // A queue of one number: the consumer sleeps whenever it has caught up. A lost wake-up
        // leaves it asleep for LONG, and the producer waiting for it.
        const TOTAL: u64 = 20_000;
        let waker = Waker::new().unwrap();
        let (produced, consumed) = (AtomicU64::new(0), AtomicU64::new(0));
        let started = std::time::Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while consumed.load(Ordering::SeqCst) < TOTAL {
                    if produced.load(Ordering::SeqCst) > consumed.load(Ordering::SeqCst) {
                        consumed.fetch_add(1, Ordering::SeqCst);
                    } else {
                        sleep(&waker, LONG);
                    }
                }
            });
            for number in 0..TOTAL {
                while consumed.load(Ordering::SeqCst) < number {
                    std::hint::spin_loop();
                    std::thread::yield_now();
                }
                produced.store(number + 1, Ordering::SeqCst);
                waker.wake();
            }
        });
        assert!(started.elapsed() < LONG, "a sleep ran its whole length");
    }
}
