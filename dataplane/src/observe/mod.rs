//! What the service knows about itself, and how it says it. Nothing here runs on a worker but
//! [`latency::WorkerLatency::record`] and [`snapshot::Publisher::publish`]; neither allocates.
//!
//! In the order a number travels:
//!
//! * [`latency`]: stages of a packet's journey, and a histogram for each
//! * [`counters`]: named counters and gauges of one worker, and of what all workers share
//! * [`snapshot`]: how a worker hands both to the control plane without stopping
//! * [`observation`]: everything known at one moment; what all exports are made from
//! * [`sockets`]: TCP listeners and connections, listed when somebody asks
//! * [`report`], [`hgrm`], [`prometheus`]: tables for people, JSON, percentile files, metrics

pub mod counters;
pub mod hgrm;
pub mod latency;
pub mod observation;
pub mod prometheus;
pub mod report;
pub mod snapshot;
pub mod sockets;
