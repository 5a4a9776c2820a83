//! The steering decision.
#![no_std]
#![forbid(unsafe_code)]
