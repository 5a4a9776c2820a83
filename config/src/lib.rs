//! The TOML schema of the service: text in, a checked [`Config`] or every error in it out.
//!
//! ```text
//!  text ──► document ──► read ──► relations ──► Config ──► check_against(&Machine)
//!           TOML tree    keys,    between       what the    cores, queues and
//!           with spans   types,   keys          service     addresses there are
//!                        ranges                 runs with
//! ```
//!
//! Every step keeps going after an error, so that one run shows them all, each with file, line, key,
//! value and what is allowed:
//!
//! ```text
//! /etc/dataplane.toml:12: rings.rx = 1000: must be a power of two from 64 to 32768
//! ```
#![forbid(unsafe_code)]

mod changes;
mod document;
mod error;
mod machine;
mod read;
mod relations;
mod schema;
mod suggest;
mod tcp;
mod value;

pub use changes::Changes;
pub use error::{ConfigError, ConfigErrors};
pub use machine::{InterfaceFacts, Machine};
pub use schema::{
    Application, BusyPoll, Checksums, Config, Control, Cores, HugePages, IdlePolicy, Interface, Ip,
    Latency, Limits, Mode, Protocol, Queues, Reassembly, Rings, Service, ServiceWorkers, Steering,
    Workers,
};
pub use tcp::{Congestion, Ecn, SynCookies, Tcp};
pub use value::{Cidr, Deny, DenyProtocol, PortRange};
