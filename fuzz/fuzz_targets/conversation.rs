//! TCP in every state, with peers and applications that may do anything.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::conversation::World::run(data));
