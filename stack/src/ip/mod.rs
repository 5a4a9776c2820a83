//! The internet layer.

pub mod address;
pub mod neighbor;
pub mod rate_limit;
pub mod reassembly;
pub mod route;
