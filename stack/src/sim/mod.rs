//! A simulated network: whole stacks, links with faults, virtual time. Feature `sim`; tests only.
//!
//! * [`network`]: hosts on a segment, and the clock they share
//! * [`host`]: a stack with its frames and its application
//! * [`link`]: what happens to frames on their way
//! * [`router`]: what is too big for a link
//! * [`packet`]: reads frames, and judges what hosts send
//! * [`capture`]: what passed when, as pcapng
//! * [`report`]: seeds, and what a failure leaves behind
//! * [`random`]: numbers from a seed
//! * [`script`]: conversations written down as text: inject, expect, at a time
//!
//! ```
//! use stack::sim::{Direction, HostConfig, Impairment, Neighbors, Network};
//! use stack::time::Duration;
//!
//! let mut network: Network = Network::new("example", 1, Neighbors::Resolved);
//! let a = network.add_host(HostConfig::new("a", 1), ());
//! let b = network.add_host(HostConfig::new("b", 2), ());
//! network.impair(b, &Impairment { loss: 0.01, ..Impairment::default() });
//! network.run_for(Duration::from_secs(1));
//! assert_eq!(network.link_counters(a, Direction::Outward).lost(), 0);
//! ```

pub mod capture;
pub mod host;
pub mod link;
pub mod network;
pub mod packet;
pub mod random;
pub mod report;
pub mod router;
pub mod script;

pub use capture::Direction;
pub use host::{Application, Host, HostConfig, Neighbors};
pub use link::{Fate, GilbertElliott, Impairment, LinkCounters, Loss, Reordering};
pub use network::{Network, Port, Sighting};
pub use random::Random;
pub use report::{for_each_seed, for_each_seed_at_once};
