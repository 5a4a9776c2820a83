//! Connection management (RFC 9293 §3.3.2, §3.10): the only place where a connection's state changes.
//!
//! * [`states`]: one struct for each state; a transition consumes the old one and returns the next
//! * [`acceptance`]: whether a segment may be looked at at all: sequence numbers, RST, SYN, ACK
//!   (RFC 9293 §3.10.7, RFC 5961), old duplicates by their timestamps (RFC 7323 §5)
//! * [`challenge`]: how many challenge ACKs may leave (RFC 5961 §7)
//!
//! ```text
//!                 connect │                                 listener, last ACK of the handshake
//!                         ▼           SYN                        │
//!                    ┌──────────┐ ──────────► ┌──────────────┐   │
//!                    │ SYN-SENT │             │ SYN-RECEIVED │   │
//!                    └──────────┘             └──────────────┘   │
//!                     SYN,ACK │                      │ ACK       │
//!                             ▼                      ▼           ▼
//!            close    ┌────────────────────────────────────────────┐   FIN
//!          ┌───────── │                ESTABLISHED                 │ ────────┐
//!          ▼          └────────────────────────────────────────────┘         ▼
//!    ┌────────────┐   FIN   ┌─────────┐                             ┌────────────┐
//!    │ FIN-WAIT-1 │ ──────► │ CLOSING │                             │ CLOSE-WAIT │
//!    └────────────┘         └─────────┘                             └────────────┘
//!          │ ACK of FIN          │ ACK of FIN                              │ close
//!          ▼                     ▼                                         ▼
//!    ┌────────────┐   FIN   ╔═══════════╗                            ┌──────────┐  ACK of FIN
//!    │ FIN-WAIT-2 │ ──────► ║ TIME-WAIT ║                            │ LAST-ACK │ ───────────► closed
//!    └────────────┘         ╚═══════════╝                            └──────────┘
//! ```
//!
//! LISTEN, SYN-RECEIVED of a passive open and TIME-WAIT are not among these states: they have records
//! of their own, in `listener` and `time_wait`, of a fraction of the size.

pub mod acceptance;
pub mod challenge;
pub mod states;

pub use states::State;
