//! The IPv4 header and its options.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::wire::ipv4(data));
