//! TCP (RFC 9293): a connection is the sum of four parts, each in a room of its own.
//!
//! * [`manage`]: connection management: states, and which segments may be looked at
//! * [`seq`]: sequence numbers

pub mod manage;
pub mod seq;
