//! The IPv6 header and its extension headers.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::wire::ipv6(data));
