//! Conversations with a TCP written down as text: inject a segment, expect a segment, at a time.
//! The manner is packetdrill's (Cardwell et al., 2013); the format is described in
//! `tests/scripts/README.md`.
//!
//! * [`parse`]: what can stand in a script
//! * [`text`]: segments in scripts, compared with segments on the wire
//! * [`number`]: numbers, variables and patterns
//! * [`mod@frame`]: segments as bytes
//! * [`host`]: what a script runs on
//! * [`run`]: how it runs

pub mod frame;
pub mod host;
pub mod number;
pub mod parse;
pub mod run;
pub mod text;

pub use host::{Congestion, Errno, Setup, SocketOption, TcpHost, WOULD_BLOCK};
pub use parse::{ParseError, Script, Version, parse, parse_with};
pub use run::{Failure, LOCAL_PORT, run};
