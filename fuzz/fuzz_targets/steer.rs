//! The steering decision beside the stack's own parser.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::steering::steer(data));
