//! ICMPv6 and the packets it quotes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::wire::icmpv6(data));
