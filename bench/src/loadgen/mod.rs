//! The load generator, from its command line to its report.
//!
//! * [`cli`]: what people type; [`job`]: what that comes to; [`target`]: `HOST:PORT` and how it becomes an address
//! * [`probe`]: what a request looks like on the wire, and how a reply is verified
//! * [`pacing`]: when requests of an open loop are due
//! * [`load`]: the kinds of load, as state machines without sockets or clocks: [`closed`],
//!   [`open`], [`flood`]
//! * [`kernel`]: the engine that drives a load over kernel sockets; [`xdp`]: the one over AF_XDP
//! * [`tcp`]: loads over connections: modes, engines and counting of their own
//! * [`run`]: threads, start to finish; [`live`]: progress while they run; [`series`]: rates over time
//! * [`report`]: the result; [`html`]: the same as a page with plots
//! * [`sweep`]: one run after the other, at rising rates; [`merge`]: several machines' results as one
//! * [`size`]: distributions of sizes
//!
//! ```text
//!             now, datagrams                      system calls
//!   ┌──────┐ ────────────────► ┌────────┐ ────────────────────────► network
//!   │ load │                   │ engine │
//!   └──────┘ ◄──────────────── └────────┘ ◄────────────────────────
//!             what to send, on which flow, when to wake
//! ```
//!
//! A load never reads a clock or touches a socket, so every rule of counting is tested with made-up
//! time, and the second engine needs no second set of rules.
pub mod cli;
pub mod closed;
pub mod flood;
pub mod html;
pub mod job;
pub mod kernel;
pub mod live;
pub mod load;
pub mod merge;
pub mod open;
pub mod pacing;
pub mod probe;
pub mod report;
pub mod run;
pub mod series;
pub mod size;
pub mod sweep;
pub mod target;
pub mod tcp;
pub mod xdp;
