//! TCP (RFC 9293): a connection is the sum of four parts, each in a room of its own.
//!
//! * [`manage`]: connection management: states, and which segments may be looked at
//! * [`deliver`]: reliable delivery in order: what waits to be read or acknowledged
//! * [`flow`]: windows, silly window avoidance, delayed acknowledgments, zero-window probes
//! * [`congestion`]: how much may be in flight
//! * [`segment`], [`options`]: what comes and goes on the wire
//! * [`buffer`]: bytes that wait, in pooled chunks
//! * [`seq`]: sequence numbers

pub mod buffer;
pub mod congestion;
pub mod deliver;
pub mod flow;
pub mod manage;
pub mod options;
pub mod segment;
pub mod seq;
