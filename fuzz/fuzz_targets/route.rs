//! The route table beside a linear scan.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::route::route(data));
