//! The Ethernet header and its tags.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::wire::ethernet(data));
