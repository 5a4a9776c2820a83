//! Conversations of a stack with peers and applications that may do anything: `fuzz/` does the same
//! without an end.

use crate::conversation::World;
use crate::conversation::lead::State;
use proptest::prelude::*;

/// Every state, by every way there: options or none, either version, either end, either control.
#[test]
fn every_state_is_reached_and_left_behind() {
    for options in 0..=255_u8 {
        for (number, _) in (0_u8..).zip(State::ALL) {
            for how in 0..64 {
                // A fifth of them, and none of the dimensions left out.
                if (how ^ options ^ number) % 5 == 0 {
                    World::run(&[0, options, 0, 0, number, how]);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Steps of all kinds, from every state.
    #[test]
    fn whatever_is_said_everything_is_given_back(
        start in prop::collection::vec(any::<u8>(), 6..7),
        steps in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        World::run(&[start, steps].concat());
    }
}
