//! TCP (RFC 9293): a connection is the sum of four parts, each in a room of its own.
//!
//! * [`seq`]: sequence numbers

pub mod seq;
