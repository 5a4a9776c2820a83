//! The internet layer.

pub mod address;
pub mod neighbor;
pub mod path_mtu;
pub mod rate_limit;
pub mod reassembly;
pub mod route;
