//! TCP segments, their options, and SYN cookies.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::segment::segment(data));
