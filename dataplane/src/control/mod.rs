//! The control plane: everything that talks to the kernel's tables, to operators and to other
//! tools. It runs on its own thread, never on a worker's core.
//!
//! ```text
//!   dataplane stats ──► client ──► [Unix socket] ──► server ─┐
//!   Prometheus ───────────────────► [TCP] ──► metrics ───────┼─► calls ──► the service
//!   kill -USR1, -HUP, -TERM ──────────────► signals ─────────┼───────────►
//!   the kernel's tables ──────────────────► netlink ─────────┘───────────►
//! ```
//!
//! * [`netlink`]: mirrors link, addresses, routes and neighbours
//! * [`signals`]: what the process is told by signals
//! * [`calls`]: how everything here asks the service
//! * [`protocol`]: what the control socket speaks
//! * [`server`], [`client`]: the two ends of the control socket
//! * [`metrics`]: what Prometheus reads

pub mod calls;
pub mod client;
pub mod metrics;
pub mod netlink;
pub mod protocol;
pub mod server;
pub mod signals;
