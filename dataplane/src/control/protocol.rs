//! What the control socket speaks: one JSON object a line, a request up, a response down, as often
//! as wanted.
//!
//! ```text
//!   → {"command":"stop"}
//!   ← {"done":"draining"}
//!   → {"command":"dance"}
//!   ← {"error":"not a request: unknown variant `dance`, expected one of …"}
//! ```
//!
//! A command is added here, in [`calls`](super::calls) if the service must be asked something new,
//! and in [`client`](super::client).

use crate::observe::{counters::Counters, observation::Info, report::LatencyReport};
use serde::{Deserialize, Serialize};

/// Longest request, in bytes, with its end of line. The longest today has 21; this leaves room for
/// filters and file names, and is nothing an unfriendly client can fill memory with.
pub const REQUEST_BYTES_MAX: usize = 4096;

/// Longest response, in bytes. A hundred workers with a hundred counters each take about a tenth.
pub const RESPONSE_BYTES_MAX: usize = 16 << 20;

/// A question or an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Request {
    /// What runs, where and how.
    Info,
    /// Every counter and gauge.
    Stats,
    /// Every latency distribution.
    Latency,
    /// Read the configuration again.
    Reload,
    /// Drain and end.
    Stop,
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// To [`Request::Info`].
    Info(Box<Info>),
    /// To [`Request::Stats`].
    Stats(Counters),
    /// To [`Request::Latency`].
    Latency(LatencyReport),
    /// An order was taken; what happens now.
    Done(String),
    /// It was not; why.
    Error(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_read_as_documented() {
        for (text, request) in [
            (r#"{"command":"info"}"#, Request::Info),
            (r#"{"command":"stats"}"#, Request::Stats),
            (r#"{"command":"latency"}"#, Request::Latency),
            (r#"{"command":"reload"}"#, Request::Reload),
            (r#"{"command":"stop"}"#, Request::Stop),
        ] {
            assert_eq!(serde_json::to_string(&request).unwrap(), text);
            assert_eq!(serde_json::from_str::<Request>(text).unwrap(), request);
            assert!(text.len() < REQUEST_BYTES_MAX);
        }
        let error = serde_json::from_str::<Request>(r#"{"command":"dance"}"#).unwrap_err();
        assert!(error.to_string().contains("dance"), "{error}");
    }

    #[test]
    fn responses_say_what_they_are() {
        let text = serde_json::to_string(&Response::Done("draining".into())).unwrap();
        assert_eq!(text, r#"{"done":"draining"}"#);
        let text = serde_json::to_string(&Response::Error("no".into())).unwrap();
        assert_eq!(text, r#"{"error":"no"}"#);
    }
}
