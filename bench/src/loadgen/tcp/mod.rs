//! Loads over TCP connections: requests and replies (on kept connections or on a new one each), bytes
//! without end, HTTP. Modes and engines know nothing of each other:
//!
//! ```text
//!   what is said: dialogue, http                        what carries it: transport
//!   ┌─────────────────────┐                             ┌─────────────────────────┐
//!   │ Exchange │ Bulk │ … │ ◄──── crowd: the loop ────► │ kernel: sockets, epoll  │
//!   └─────────────────────┘       that opens, asks,     │ xdp: our own stack      │
//!                                 waits and counts      └─────────────────────────┘
//!                                 (tally, failure)
//! ```
//!
//! * [`dialogue`], [`http`]: requests, replies, and whether they are right; [`pattern`]: the bytes
//! * [`crowd`]: connections and their requests; `rogue`: clients that mean no good
//! * [`transport`]: what both engines do; [`kernel`], [`xdp`]; [`sources`]: addresses and ports
//! * [`tally`], [`failure`]: what is counted
//! * [`run`]: threads, from start to finish; [`report`]: the result
//! * [`serve`]: a server for what the service's own echo cannot do: replies of other sizes
pub mod crowd;
pub mod dialogue;
pub mod failure;
pub mod http;
pub mod kernel;
pub mod pattern;
pub mod report;
pub mod rogue;
pub mod run;
pub mod serve;
pub mod sources;
pub mod tally;
pub mod transport;
pub mod xdp;
