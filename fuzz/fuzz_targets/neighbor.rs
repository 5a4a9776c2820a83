//! The neighbour cache: no packet lost, no mirrored neighbour forgotten.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::neighbor::neighbor(data));
