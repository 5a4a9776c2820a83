//! A closed loop of requests in the background.

use super::kernel::{KERNEL, Udp};
use super::lab::Lab;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// What came of the requests of a [`Load`].
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Answered by the service.
    pub(crate) by_service: AtomicU64,
    /// Answered by a [`Server`](super::kernel::Server) of the kernel.
    pub(crate) by_kernel: AtomicU64,
    /// Not answered, or by something else.
    pub(crate) lost: AtomicU64,
}

/// One flow that sends its next request when the last was answered or given up.
pub(crate) struct Load {
    end: Arc<AtomicBool>,
    tally: Arc<Tally>,
    thread: Option<JoinHandle<()>>,
}

/// When a request is given up where none may be lost: far above what an answer takes, even on a
/// machine that stands still for some seconds.
const GIVE_UP: Duration = Duration::from_secs(15);
/// When a request is given up where some are lost.
const GIVE_UP_SOON: Duration = Duration::from_millis(200);

impl Load {
    /// Starts one whose requests must all be answered.
    #[track_caller]
    pub(crate) fn start(lab: &Lab, to: &str) -> Self {
        Self::start_with(lab, to, GIVE_UP)
    }

    /// Starts one whose requests may be lost.
    #[track_caller]
    pub(crate) fn start_lossy(lab: &Lab, to: &str) -> Self {
        Self::start_with(lab, to, GIVE_UP_SOON)
    }

    #[track_caller]
    fn start_with(lab: &Lab, to: &str, give_up: Duration) -> Self {
        let client = lab.client(to);
        let end = Arc::new(AtomicBool::new(false));
        let tally = Arc::new(Tally::default());
        let (told, counts) = (Arc::clone(&end), Arc::clone(&tally));
        let thread = std::thread::spawn(move || {
            let mut number = 0u64;
            while !told.load(Ordering::Relaxed) {
                number += 1;
                let request = number.to_be_bytes();
                let outcome = exchange(&client, &request, &counts, give_up);
                outcome.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self {
            end,
            tally,
            thread: Some(thread),
        }
    }

    pub(crate) fn by_service(&self) -> u64 {
        self.tally.by_service.load(Ordering::Relaxed)
    }

    pub(crate) fn by_kernel(&self) -> u64 {
        self.tally.by_kernel.load(Ordering::Relaxed)
    }

    pub(crate) fn lost(&self) -> u64 {
        self.tally.lost.load(Ordering::Relaxed)
    }
}

fn exchange<'a>(
    client: &Udp,
    request: &[u8],
    tally: &'a Tally,
    give_up: Duration,
) -> &'a AtomicU64 {
    client.send(request);
    loop {
        match client.receive(give_up) {
            Some(answer) if answer == request => return &tally.by_service,
            Some(answer) if answer.strip_prefix(KERNEL) == Some(request) => {
                return &tally.by_kernel;
            }
            // The answer to a request that was given up.
            Some(_) => {}
            None => return &tally.lost,
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
