//! The Internet checksum beside the sum word by word.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::wire::checksum(data));
