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

use crate::observe::{
    counters::Counters, observation::Info, report::LatencyReport, sockets::SocketsReport,
};
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
    /// TCP connections and listeners.
    Sockets(SocketQuery),
    /// Read the configuration again.
    Reload,
    /// Drain and end.
    Stop,
}

/// Which connections are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketQuery {
    /// Only those in this state; all if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<StateFilter>,
    /// As many at most, [`SOCKETS_MAX`] at most; how many were left off is told.
    #[serde(default = "default_limit")]
    pub limit: u32,
}

/// Connections in one answer, at most: at about 500 bytes each they are half of [`RESPONSE_BYTES_MAX`].
pub const SOCKETS_MAX: u32 = 16_384;

/// How many are told of if nobody says: some screens full.
pub const SOCKETS_DEFAULT: u32 = 1000;

const fn default_limit() -> u32 {
    SOCKETS_DEFAULT
}

/// A state by the name that `ss state` has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum StateFilter {
    /// LISTEN.
    Listening,
    /// SYN-SENT.
    SynSent,
    /// SYN-RECV.
    SynRecv,
    /// ESTAB.
    Established,
    /// FIN-WAIT-1.
    #[serde(rename = "fin-wait-1")]
    #[value(name = "fin-wait-1")]
    FinWait1,
    /// FIN-WAIT-2.
    #[serde(rename = "fin-wait-2")]
    #[value(name = "fin-wait-2")]
    FinWait2,
    /// CLOSE-WAIT.
    CloseWait,
    /// LAST-ACK.
    LastAck,
    /// CLOSING.
    Closing,
    /// TIME-WAIT.
    TimeWait,
    /// UNCONN: ended, and the application has not noticed yet.
    Closed,
}

impl StateFilter {
    /// The state as `ss` prints it.
    #[must_use]
    pub const fn printed(self) -> &'static str {
        match self {
            Self::Listening => "LISTEN",
            Self::SynSent => "SYN-SENT",
            Self::SynRecv => "SYN-RECV",
            Self::Established => "ESTAB",
            Self::FinWait1 => "FIN-WAIT-1",
            Self::FinWait2 => "FIN-WAIT-2",
            Self::CloseWait => "CLOSE-WAIT",
            Self::LastAck => "LAST-ACK",
            Self::Closing => "CLOSING",
            Self::TimeWait => "TIME-WAIT",
            Self::Closed => "UNCONN",
        }
    }
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
    /// To [`Request::Sockets`].
    Sockets(SocketsReport),
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
            (
                r#"{"command":"sockets","state":"fin-wait-1","limit":7}"#,
                Request::Sockets(SocketQuery {
                    state: Some(StateFilter::FinWait1),
                    limit: 7,
                }),
            ),
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
