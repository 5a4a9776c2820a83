//! What the fuzz targets check. Each target is one function that takes any bytes and panics when
//! something is wrong; the files in `fuzz_targets/` hand them to libFuzzer.
//!
//! * [`wire`]: one header at a time, beside the readers of others
//! * [`segment`]: TCP segments, options and SYN cookies
//! * [`reassembly`], [`neighbor`], [`route`], [`timer`]: one part of the stack beside a slow model
//! * [`world`]: the whole stack, shared with the property tests
//! * [`conversation`]: the whole of TCP, in every state, likewise shared
//! * [`steering`]: the steering decision beside the stack
//! * [`configuration`]: any text
//! * [`seeds`]: right inputs to start from
#![forbid(unsafe_code)]

pub mod configuration;
#[path = "../../stack/tests/properties/conversation/mod.rs"]
#[expect(missing_docs, reason = "written for a test")]
pub mod conversation;
pub mod neighbor;
pub mod reassembly;
pub mod route;
pub mod seeds;
pub mod segment;
pub mod steering;
pub mod timer;
pub mod wire;
#[path = "../../stack/tests/properties/world/mod.rs"]
#[expect(missing_docs, reason = "written for a test")]
pub mod world;

/// A function that judges any bytes, under the name of its target.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 18] = [
    ("ethernet", wire::ethernet),
    ("arp", wire::arp),
    ("ipv4", wire::ipv4),
    ("ipv6", wire::ipv6),
    ("icmpv4", wire::icmpv4),
    ("icmpv6", wire::icmpv6),
    ("ndp", wire::ndp),
    ("udp", wire::udp),
    ("checksum", wire::checksum),
    ("segment", segment::segment),
    ("reassembly", reassembly::reassembly),
    ("neighbor", neighbor::neighbor),
    ("route", route::route),
    ("timer", timer::timer),
    ("stack", world::World::run),
    ("conversation", conversation::World::run),
    ("config", configuration::config),
    ("steer", steering::steer),
];
