//! The service and its library: everything that does I/O. In the order a packet meets it:
//!
//! * [`steering`]: loads and fills the eBPF program that brings flows to us
//! * [`driver`]: frames, and the drivers that move them (AF_XDP, in-memory, pcap replay)
//! * [`worker`]: the one loop, pinned to a core
//! * [`handler`]: the built-in applications
//! * [`control`]: netlink mirror, control socket, signals; never on a worker's core
//! * [`service`]: brings all of these up, keeps them running, takes them down
//! * [`observe`]: counters, latency histograms and their exports
pub mod control;
pub mod driver;
pub mod handler;
pub mod observe;
pub mod service;
pub mod steering;
pub mod worker;
