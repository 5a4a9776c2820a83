//! The built-in applications: what answers on a service's sockets.
//!
//! An application runs on the worker whose queue a packet came in on, between the stack's ingest
//! and egress, and never waits.
//!
//! * [`udp`]: echo and discard of datagrams
//! * [`tcp`]: echo, discard and source on connections
//! * [`dial`]: connections that are opened from here, and opened again

pub mod dial;
pub mod tcp;
pub mod udp;

use config::Protocol;
use stack::tcp::listener::{CongestionKind, ListenOptions};

/// What a service does, and over which protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Application {
    /// With datagrams.
    Udp(udp::Application),
    /// With connections, which are to be like this.
    Tcp(tcp::Application, ListenOptions),
}

impl Application {
    /// What a service of the configuration does.
    ///
    /// # Panics
    /// For a source of datagrams, which no checked configuration has.
    #[must_use]
    pub fn of(service: &config::Service) -> Self {
        match service.protocol {
            Protocol::Udp => Self::Udp(match service.application {
                config::Application::Echo => udp::Application::Echo,
                config::Application::Discard => udp::Application::Discard,
                config::Application::Source => {
                    unreachable!("invariant: the configuration was checked")
                }
            }),
            Protocol::Tcp => Self::Tcp(
                match service.application {
                    config::Application::Echo => tcp::Application::Echo,
                    config::Application::Discard => tcp::Application::Discard,
                    config::Application::Source => tcp::Application::Source,
                },
                ListenOptions {
                    backlog: service.backlog,
                    congestion: match service.congestion {
                        config::Congestion::Cubic => CongestionKind::Cubic,
                        config::Congestion::NewReno => CongestionKind::NewReno,
                    },
                    nodelay: service.nodelay,
                },
            ),
        }
    }
}
