//! Reliable ordered delivery: what is sent arrives, and what arrives is in order.
//!
//! The receiving half is [`receive`]: what came, in order and out of order, and what SACK says of it.
//!
//! The sending half, [`Sender`], knows nothing of frames: it is told what was written, what was
//! acknowledged and what time it is, and plans which bytes go out next.
//!
//! ```text
//!            write, close                                     plan ─► segment ─► on_sent
//!                 │                                             ▲
//!                 ▼                                             │ what is lost, or else what is new
//!   ┌──────────────────────────────────────────────────────────────────────────────┐
//!   │ acknowledged │  records: in flight, lost │ SACKed (a gap) │     not sent     │FIN
//!   └──────────────┴───────────────────────────┴────────────────┴──────────────────┴─►
//!               SND.UNA                                      SND.NXT       sequence space
//!                  ▲                 ▲
//!      on_ack ─────┴─ cumulative     └─ SACK ─► RACK ─► lost        on_timer: RTO, TLP, reordering
//! ```
//!
//! * [`interface`]: what goes in and out of it
//! * [`sender`]: the send buffer, what is new, and the short way of an ACK
//! * `recovery`: the long way of an ACK, with `arrivals`, what it tells, and `prr`, how much is sent
//! * `repair`: what is sent again; `timers`: when nothing is heard
//! * `undo`: recoveries that were not needed
//! * `rack`: which segments are lost
//! * `scoreboard`: which segments are in flight, over `records`
//! * [`rtt`]: the round-trip time and the retransmission timeout

use crate::tcp::buffer::ChunkPool;

mod arrivals;
pub mod interface;
mod prr;
mod rack;
pub mod receive;
mod records;
mod recovery;
mod repair;
pub mod rtt;
mod scoreboard;
pub mod sender;
mod timers;
mod undo;

pub use interface::{
    AckInput, Acked, Acknowledged, Allowance, CaState, Expired, Plan, Setup, Timer,
};
use records::RecordPool;
pub use rtt::Rtt;
pub use sender::Sender;

/// The memory all senders of a worker share.
#[derive(Debug)]
pub struct SendPools {
    /// Bytes that wait to be sent or acknowledged.
    chunks: ChunkPool,
    /// Segments under way.
    records: RecordPool,
}

impl SendPools {
    /// `chunks`: of [`CHUNK_BYTES`](crate::tcp::buffer::CHUNK_BYTES) each. `records`: segments that
    /// may be under way at a time, over all connections, 32 bytes each.
    #[must_use]
    pub fn new(chunks: u32, records: u32) -> Self {
        Self {
            chunks: ChunkPool::new(chunks),
            records: RecordPool::new(records),
        }
    }

    /// Chunks that are free.
    #[must_use]
    pub fn free_chunks(&self) -> u32 {
        self.chunks.free()
    }

    /// Records that are free.
    #[must_use]
    pub fn free_records(&self) -> u32 {
        self.records.free()
    }
}

#[cfg(test)]
mod tests;
