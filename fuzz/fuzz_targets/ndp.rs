//! Neighbour discovery and its options.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::wire::ndp(data));
