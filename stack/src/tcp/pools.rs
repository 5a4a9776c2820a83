//! The memory that all connections share: it is theirs only while something is under way.

use super::config::TcpConfig;
use super::deliver::SendPools;
use super::deliver::receive::ReceivePools;

/// All pools of a worker.
#[derive(Debug)]
pub struct Pools {
    /// What was not sent or not acknowledged yet.
    pub send: SendPools,
    /// What came and was not read yet.
    pub receive: ReceivePools,
}

impl Pools {
    /// Takes all memory now.
    #[must_use]
    pub fn new(config: &TcpConfig) -> Self {
        Self {
            send: SendPools::new(config.send_chunks, config.transmissions),
            receive: ReceivePools::new(config.receive_chunks, config.out_of_order),
        }
    }

    /// What of it is in use.
    #[must_use]
    pub fn memory_use(&self, config: &TcpConfig) -> MemoryUse {
        let used = |all: u32, free: u32| all.saturating_sub(free);
        MemoryUse {
            send_chunks: used(config.send_chunks, self.send.free_chunks()),
            transmissions: used(config.transmissions, self.send.free_records()),
            receive_chunks: used(config.receive_chunks, self.receive.free_chunks()),
            out_of_order: used(config.out_of_order, self.receive.free_ranges()),
        }
    }
}

/// What of the pools is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Chunks with bytes to be sent or acknowledged.
    pub send_chunks: u32,
    /// Transmissions remembered until they are acknowledged.
    pub transmissions: u32,
    /// Chunks with bytes to be read.
    pub receive_chunks: u32,
    /// Stretches of data out of order.
    pub out_of_order: u32,
}

impl MemoryUse {
    /// Whether all of it is free: 0.
    #[must_use]
    pub const fn used(&self) -> u32 {
        self.send_chunks + self.transmissions + self.receive_chunks + self.out_of_order
    }
}
