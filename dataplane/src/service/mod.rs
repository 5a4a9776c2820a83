//! The service: brings everything up in the order that loses nothing, keeps it running, and takes
//! it down in the order that gives the interface back.
//!
//! ```text
//!  check ─► steering loaded, attached, off ─► sockets bound, fill rings full ─► workers running
//!        ─► rules, sockets into the map ─► steering on ─► control socket: ready
//!  …
//!        ─► steering off ─► rings drained ─► workers ended ─► detached ─► histograms
//! ```
//!
//! * [`error`]: why the service did not start or had to end, with the exit code
//! * [`doctor`]: looks at the machine before the service runs on it
//! * [`machine`]: cores, queues and addresses, for the configuration to be checked against
//! * `bring_up`: modes, drivers, workers
//! * `links`: what the kernel says of the link, with the addresses that services own; steering rules
//! * `operate`: the control thread's loop
//! * `observing`: everything known about the running service
//! * `reload`: taking over a changed configuration
//! * `ports`: local ports of connections that services open, reserved from the kernel
//! * `multicast`: group membership for addresses that services own

mod bring_up;
pub mod doctor;
pub mod error;
mod links;
pub mod machine;
mod multicast;
mod observing;
mod operate;
mod ports;
mod reload;

pub use error::ServiceError;

use config::Config;
use std::path::Path;

/// Runs the service until it is told to stop. Blocks the calling thread, which becomes the control
/// thread.
///
/// # Errors
/// Why it did not start, or had to end.
pub fn run(path: &Path) -> Result<(), ServiceError> {
    let config = load(path)?;
    init_log(&config.control.log)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| ServiceError::os("make the control plane's runtime", error))?;
    runtime.block_on(operate::operate(config, path))
}

/// Reads the configuration and checks it against this machine.
///
/// # Errors
/// Everything that is wrong with the file; and without the interface or the right to look at it,
/// that.
pub fn load(path: &Path) -> Result<Config, ServiceError> {
    let config = Config::load(path)?;
    let machine = machine::look(&config)?;
    config.check_against(&machine)?;
    Ok(config)
}

/// The log goes to standard error, one line an event, with the levels of `control.log`.
fn init_log(filter: &str) -> Result<(), ServiceError> {
    let filter = tracing_subscriber::EnvFilter::try_new(filter)
        .map_err(|error| ServiceError::Config(format!("control.log = {filter:?}: {error}")))?;
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    // A second call in one process, as tests make it, keeps the first log.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(is_terminal)
        .with_target(false)
        .try_init();
    Ok(())
}
