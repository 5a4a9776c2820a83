//! TCP (RFC 9293): a connection is the sum of four parts, each in a room of its own.
//!
//! * [`manage`]: connection management: states, and which segments may be looked at
//! * [`deliver`]: reliable delivery in order: what waits to be read or acknowledged
//! * [`flow`]: windows, silly window avoidance, delayed acknowledgments, zero-window probes
//! * [`congestion`]: how much may be in flight
//! * [`segment`], [`options`]: what comes and goes on the wire
//! * [`buffer`]: bytes that wait, in pooled chunks
//! * [`Tuple`](tuple::Tuple): the name of a connection; [`isn`], [`syn_cookie`], [`port`]: numbers
//!   that nobody else can guess
//! * [`seq`]: sequence numbers

pub mod buffer;
pub mod congestion;
pub mod deliver;
pub mod flow;
pub mod isn;
pub mod manage;
pub mod options;
pub mod port;
pub mod segment;
pub mod seq;
pub mod syn_cookie;
pub mod tuple;
