//! Why the service did not start or had to end: one sentence each, with what to do.

use crate::control::netlink::MirrorError;
use crate::control::server::SocketError;
use crate::driver::DriverError;
use crate::steering::SteeringError;
use std::fmt;

/// Why the service did not start, or had to end.
#[derive(Debug)]
pub enum ServiceError {
    /// The configuration is wrong.
    Config(String),
    /// No steering.
    Steering(SteeringError),
    /// No driver.
    Driver(DriverError),
    /// The kernel's tables cannot be read.
    Mirror(MirrorError),
    /// No control socket.
    Socket(SocketError),
    /// While the service ran, something it cannot go on without was lost.
    Lost(String),
    /// A system call failed in a way that has no better explanation.
    Os {
        /// What was tried, as an infinitive.
        doing: String,
        /// What the kernel said.
        error: std::io::Error,
    },
}

impl ServiceError {
    pub(crate) fn os(doing: impl Into<String>, error: std::io::Error) -> Self {
        Self::Os {
            doing: doing.into(),
            error,
        }
    }

    /// The process's exit code: 2 for what is wrong with the configuration, else 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 2,
            _ => 1,
        }
    }
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(errors) => f.write_str(errors.trim_end()),
            Self::Steering(error) => error.fmt(f),
            Self::Driver(error) => error.fmt(f),
            Self::Mirror(error) => error.fmt(f),
            Self::Socket(error) => error.fmt(f),
            Self::Lost(sentence) => f.write_str(sentence),
            Self::Os { doing, error } => write!(f, "cannot {doing}: {error}"),
        }
    }
}

impl std::error::Error for ServiceError {}

impl From<config::ConfigErrors> for ServiceError {
    fn from(errors: config::ConfigErrors) -> Self {
        Self::Config(errors.to_string())
    }
}

impl From<SteeringError> for ServiceError {
    fn from(error: SteeringError) -> Self {
        Self::Steering(error)
    }
}

impl From<DriverError> for ServiceError {
    fn from(error: DriverError) -> Self {
        Self::Driver(error)
    }
}

impl From<MirrorError> for ServiceError {
    fn from(error: MirrorError) -> Self {
        Self::Mirror(error)
    }
}

impl From<SocketError> for ServiceError {
    fn from(error: SocketError) -> Self {
        Self::Socket(error)
    }
}
