//! `impair`: a bad network between two interfaces, the same bad one for the same seed.
//!
//! ```text
//!   host ── veth ── A ┌──────────────────────────────────┐ B ── veth ── host
//!                     │ port ─► offload ─► line ─► port  │
//!                     │ port ◄─ line ◄─ offload ◄─ port  │
//!                     └──────────────────────────────────┘
//! ```
//!
//! * [`cli`]: what people type
//! * [`forward`]: the loop
//! * [`port`]: an interface, by packet sockets
//! * [`offload`]: large sends, unfinished checksums and VLAN tags become frames of a wire
//! * [`line`](mod@line): one direction: rate, queue, losses, delays, what is held
//! * [`decide`]: what happens to a frame
//! * [`capture`], [`report`]: what was seen and counted
pub mod capture;
pub mod cli;
pub mod decide;
pub mod forward;
pub mod line;
pub mod offload;
pub mod port;
pub mod report;
