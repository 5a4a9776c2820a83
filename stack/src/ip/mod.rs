//! The internet layer.

pub mod address;
pub mod route;
