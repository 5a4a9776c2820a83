//! Reliable delivery in order.
//!
//! * [`receive`]: what came, in order and out of order, and what SACK says of it

pub mod receive;
