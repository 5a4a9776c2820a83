//! The timer wheel.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::timer::timer(data));
