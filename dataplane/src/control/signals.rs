//! What the process is told by signals.

use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A signal's meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalEvent {
    /// The first SIGINT or SIGTERM: take nothing new, finish what is under way, end.
    Drain,
    /// Another SIGINT or SIGTERM: end now.
    Abort,
    /// SIGUSR1: print the latency report and write its files.
    Report,
    /// SIGHUP: read the configuration again.
    Reload,
}

/// The signals the service takes, from when this is made until the process ends: dropping it does
/// not give a signal its default meaning back.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    report: Signal,
    reload: Signal,
    draining: bool,
}

impl Signals {
    /// Takes the signals. Must be called within a tokio runtime, before anything that must be
    /// cleaned up exists.
    ///
    /// # Errors
    /// The kernel refuses a handler.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            report: signal(SignalKind::user_defined1())?,
            reload: signal(SignalKind::hangup())?,
            draining: false,
        })
    }

    /// The next signal's meaning. Nothing is lost if the future is dropped; several signals of one
    /// kind that come at once count as one, as everywhere.
    pub async fn next(&mut self) -> SignalEvent {
        tokio::select! {
            _ = self.interrupt.recv() => self.end(),
            _ = self.terminate.recv() => self.end(),
            _ = self.report.recv() => SignalEvent::Report,
            _ = self.reload.recv() => SignalEvent::Reload,
        }
    }

    fn end(&mut self) -> SignalEvent {
        if std::mem::replace(&mut self.draining, true) {
            SignalEvent::Abort
        } else {
            SignalEvent::Drain
        }
    }
}
