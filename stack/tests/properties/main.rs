//! Over many programs, packets and lies: no input panics, every frame is accounted for, and nothing
//! wrong leaves. `fuzz/` does the same without an end.
//!
//! * [`world`]: a stack with everything around it, and a judge who looks at what leaves
//! * [`conversation`]: a stack with TCP, and peers that may do anything; [`conversations`] with them
//! * [`parsers`]: our parsers beside those of others
//! * [`regressions`]: what was found once
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod conversation;
mod conversations;
mod parsers;
mod regressions;
mod world;

use proptest::prelude::*;
use world::{SETTINGS_BYTES, World, program};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Steps of all kinds, each with enough bytes to be odd in every respect.
    #[test]
    fn whatever_happens_every_frame_is_accounted_for(
        settings: [u8; SETTINGS_BYTES],
        steps in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..48), 0..32),
    ) {
        World::run(&program(settings, &steps));
    }
}
