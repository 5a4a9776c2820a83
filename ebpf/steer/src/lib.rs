//! The steering decision: which packets are ours, and which stay with the kernel.
//!
//! One pure function, [`steer`], is compiled twice: for the BPF target, where the XDP program calls
//! it for every packet, and natively, where tests and fuzzers do. In the order of a decision:
//!
//! * [`packet`]: bounded access to the bytes of a packet
//! * [`tables`]: the layouts shared with user space, and the look-ups a decision needs
//! * [`parse`]: Ethernet, VLAN tags, IPv4 and IPv6 down to where the transport header starts
//! * [`decide`]: the decision itself
//! * [`verdict`]: its outcomes, one counter each
//! * [`stamp`]: the arrival time that travels in front of a redirected packet
//! * [`memory`]: the tables as ordinary collections (native builds only)
//!
//! ```text
//!  frame ─► kill switch ─► VLAN tags ─► ARP ──────────────► deny ─► prefix ─┬─► ours
//!                              │                                           └─► kernel
//!                              └─► IPv4, IPv6 ─► deny ─► exact ─► port ─► any ─► prefix ─┬─► ours
//!                                      │                                                └─► kernel
//!                                      └─ ICMP error: the tuple of the packet it complains about
//! ```
#![no_std]
#![forbid(unsafe_code)]

#[cfg(not(target_arch = "bpf"))]
extern crate alloc;

pub mod decide;
#[cfg(not(target_arch = "bpf"))]
pub mod memory;
pub mod packet;
pub mod parse;
pub mod stamp;
pub mod tables;
pub mod verdict;

pub use decide::steer;
pub use tables::{Address, Config, Tables};
pub use verdict::Verdict;
