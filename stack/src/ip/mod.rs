//! The internet layer.

pub mod route;
