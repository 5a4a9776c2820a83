//! A flag that SIGINT and SIGTERM raise.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Exit code of a process ended by a second Ctrl-C: 128 + SIGINT, as shells report it.
const EXIT_INTERRUPTED: i32 = 130;

/// Returns a flag that the first SIGINT or SIGTERM sets, so that the program can finish and report
/// what it has. A second one ends the process at once.
///
/// # Errors
/// When the handlers cannot be installed (sigaction(2)).
pub fn stop_flag() -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // The order matters: handlers run in order of registration, so the first signal finds the
        // flag still unset and only the second one ends the process.
        flag::register_conditional_shutdown(signal, EXIT_INTERRUPTED, Arc::clone(&stop))?;
        flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}
