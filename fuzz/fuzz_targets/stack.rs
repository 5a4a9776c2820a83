//! The whole stack, with everything around it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::world::World::run(data));
