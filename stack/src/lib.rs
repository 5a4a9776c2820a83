//! The protocol core. Sans-IO: it takes frames and the time, and returns frames and outcomes.
//! It reads no clock, owns no socket, starts no thread, and contains no `unsafe`.
//!
//! In the order a packet meets them:
//!
//! * [`frame`]: what a packet buffer is, and where empty ones come from
//! * [`link`]: what the control plane tells the stack about the interface
//! * [`wire`]: one file per header, a checked view and its meaning; checksums
//! * [`ip`]: addresses, routes, neighbours, path MTUs, rate limits, reassembly
//! * [`socket`]: where sockets are bound, and how a packet finds its socket
//! * [`udp`]: datagram sockets; [`tcp`]: connections
//! * [`Stack`]: the glue of all these
//! * `sim` (feature): hosts, links and virtual time, for tests
//! * [`counters`], [`hash`], [`table`], [`time`], [`timer`]: what everything above uses; [`heap`]: frames for tests
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod counters;
pub mod frame;
pub mod hash;
pub mod heap;
pub mod ip;
pub mod link;
mod queue;
#[cfg(feature = "sim")]
pub mod sim;
pub mod slab;
pub mod socket;
mod stack;
pub mod table;
pub mod tcp;
pub mod time;
pub mod timer;
pub mod udp;
pub mod wire;

pub use crate::stack::{Config, Handoff, Origin, SendError, SendTo, Stack};
