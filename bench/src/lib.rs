//! `loadgen`, `impair`, the benchmarks, and what they share.
//!
//! * [`loadgen`]: the load generator, from command line to report
//! * [`impair`]: a bad network between two interfaces
//! * [`histogram`], [`stats`]: latency histograms and their exports; medians and ratios of runs
//! * [`plot`]: plots as SVG
//! * [`cpu`]: which CPUs a thread may use, and how busy they were
//! * [`netns`]: network namespaces and veth pairs that clean up after themselves
//! * [`queues`]: an interface's queues and the steering program in front of them
//! * [`batch`], [`socket`]: many datagrams per system call; socket options; signals and the clock
//!   are in [`signal`] and [`clock`]
pub mod batch;
pub mod clock;
pub mod cpu;
pub mod histogram;
pub mod impair;
pub mod loadgen;
pub mod netns;
pub mod plot;
pub mod queues;
pub mod signal;
pub mod socket;
pub mod stats;
