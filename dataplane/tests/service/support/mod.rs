//! What the tests of the running service need: two network namespaces with a cable between them, the
//! service in one of them, kernel sockets and ordinary tools in both.
//!
//! ```text
//!   namespace `server`                       namespace `peer`
//!   dataplane ── dp0 (N queues) ═══ veth ═══ peer0 (N queues) ── kernel sockets, ping, nc, …
//!                10.77.0.1/24                10.77.0.2/24
//!                fd77::1/64                  fd77::2/64
//! ```
//!
//! The namespaces have no names: they go with the descriptors that hold them, however a test ends.
//! Processes are killed when their handles are dropped, and by the kernel when the test dies.

pub(crate) mod kernel;
pub(crate) mod lab;
pub(crate) mod load;
pub(crate) mod namespace;
pub(crate) mod packets;
pub(crate) mod process;
pub(crate) mod service;

use std::time::{Duration, Instant};

/// How long a test waits for what must come before it fails: generous, for a loaded machine with two
/// cores. Never reached when all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How often something is looked at that does not announce itself.
pub(crate) const POLL: Duration = Duration::from_millis(10);

/// Looks until `look` finds something, at most [`PATIENCE`].
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "gave up after {} s waiting for: {what}",
            PATIENCE.as_secs()
        );
        std::thread::sleep(POLL);
    }
}

/// Looks until `holds`, at most [`PATIENCE`].
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    eventually(what, || holds().then_some(()));
}

/// Asserts that `text` contains all of `words`, and shows it where it does not.
#[track_caller]
pub(crate) fn assert_says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in:\n{text}");
    }
}
