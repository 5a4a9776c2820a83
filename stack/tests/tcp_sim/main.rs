//! Whole connections over impaired links: every byte arrives once and in order, both sides close, and
//! nothing is left behind. Every scenario follows from its seed.
//!
//! * [`talker`]: what the hosts say to each other
//! * [`goodput`]: what a link carries at least
//! * [`hostile`]: floods, storms, forgeries, peers that never answer
//! * [`scenario`]: hosts, links and conversations, drawn from a seed
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod goodput;
mod hostile;
mod scenario;
mod talker;

use scenario::{Kind, Scenario};
use stack::sim::for_each_seed_at_once;

#[test]
fn perfect_links() {
    for_each_seed_at_once(1000, |seed| Scenario::new(seed, Kind::Perfect).run());
}

#[test]
fn impaired_links() {
    for_each_seed_at_once(4000, |seed| Scenario::new(seed, Kind::Impaired).run());
}

#[test]
fn small_pools() {
    for_each_seed_at_once(2000, |seed| Scenario::new(seed, Kind::SmallPools).run());
}

#[test]
fn many_conversations() {
    for_each_seed_at_once(1000, |seed| Scenario::new(seed, Kind::Many).run());
}

#[test]
fn a_path_whose_mtu_shrinks() {
    for_each_seed_at_once(1000, |seed| Scenario::new(seed, Kind::MtuChanges).run());
}

#[test]
fn outages() {
    for_each_seed_at_once(1000, |seed| Scenario::new(seed, Kind::Outage).run());
}
