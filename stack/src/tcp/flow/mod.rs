//! Flow control: what the peer's window lets this end send, what this end's window lets the peer
//! send, and when it hears about it (RFC 9293 §3.8.6).
//!
//! ```text
//!   application                                                     application
//!     │ write                                                         ▲ read
//!     ▼                                                               │
//!   send buffer ── SendWindow: which segment, or wait ──► segments ──► receive buffer
//!        ▲         Persist: ask again when nothing may go                │
//!        │                                                               │
//!        └──────── AckPolicy: now or later ◄──── ReceiveWindow: how much room
//! ```
//!
//! * [`send_window`]: the peer's window, and the silly window avoidance of a sender
//! * [`persist`]: probing a window that is closed
//! * [`receive_window`]: our window, and the silly window avoidance of a receiver
//! * [`ack_policy`]: delayed acknowledgments
//!
//! Nothing here knows of losses or of congestion.

pub mod ack_policy;
pub mod persist;
pub mod receive_window;
pub mod send_window;

pub use ack_policy::{AckDelay, AckDue, AckPolicy, Arrival};
pub use persist::{Persist, Probe};
pub use receive_window::{ReceiveWindow, Space};
pub use send_window::{SendWindow, Unsent, Verdict, WindowUpdate};

/// The largest window there is: 2¹⁶−1 shifted by 14 (RFC 7323 §2.3), just under 2³⁰ bytes.
pub const WINDOW_MAX: u32 = (u16::MAX as u32) << WINDOW_SCALE_MAX;

/// The largest shift; one more could not be told from an old window (RFC 7323 §2.3).
pub const WINDOW_SCALE_MAX: u8 = 14;

// What an idle connection keeps of all this must leave room for the rest of its 512 bytes.
const _: () =
    assert!(size_of::<SendWindow>() + size_of::<ReceiveWindow>() + size_of::<AckPolicy>() <= 72);
