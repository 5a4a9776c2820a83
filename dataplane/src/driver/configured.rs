//! A driver as a configuration asks for it.

use super::{AfXdpOptions, Attempt, BusyPoll};
use config::Config;

impl AfXdpOptions {
    /// What `config` says of rings and busy polling, for these queues of its interface.
    #[must_use]
    pub fn configured(config: &Config, queues: Vec<u32>, attempt: Attempt) -> Self {
        let config::Rings {
            rx,
            tx,
            fill,
            completion,
            frames,
            frame_size,
            huge_pages,
            need_wakeup,
        } = config.rings;
        let config::BusyPoll {
            enabled,
            usecs,
            budget,
        } = config.busy_poll;
        Self {
            interface: config.interface.name.clone(),
            queues,
            attempt,
            need_wakeup,
            busy_poll: enabled.then_some(BusyPoll { usecs, budget }),
            rx_ring: rx,
            tx_ring: tx,
            fill_ring: fill,
            completion_ring: completion,
            frames,
            chunk_size: frame_size,
            huge_pages,
        }
    }
}
