//! Reassembly beside a map of bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::reassembly::reassembly(data));
