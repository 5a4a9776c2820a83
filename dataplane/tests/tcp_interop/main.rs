//! TCP between the running service and a Linux kernel: the service in one network namespace, the
//! kernel's sockets and ordinary tools in another, a veth pair between them, and for some tests a
//! forwarder in it that loses, reorders, duplicates and damages frames.
//!
//! ```text
//!   namespace `server`             namespace of the wire               namespace `peer`
//!   dataplane ── dp0 ═══ veth ═══ right ── impair ── left ═══ veth ═══ peer0 ── kernel, nc, socat, …
//!                dp0 ═══════════════════ veth ════════════════════════ peer0
//! ```
//!
//! | file | what it shows |
//! |---|---|
//! | `bulk` | much data, either way and both, every byte checked |
//! | `short` | thousands of connections that come and go |
//! | `endings` | half-close, resets, windows that close for seconds |
//! | `options` | the kernel's sysctls in all combinations, MTUs |
//! | `impaired` | the same through a bad network |
//! | `tools` | nc, socat, curl |
//! | `wire` | tcpdump finds no fault |
//!
//! All of them need root, and are skipped by name without it.
//!
//! Two variables of the environment:
//! `INTEROP=full` (`make interop`): all sizes and combinations, minutes instead of seconds;
//! `INTEROP=reference`: a Linux kernel in the place of the service. What fails there too is a fault
//! of the test.

#[path = "../driver_support/mod.rs"]
mod driver_support;
#[path = "../service/support/mod.rs"]
#[allow(dead_code, unused_imports, unused_macros)] // Other tests use all of it.
mod support;

mod client;
mod extent;
mod reference;
mod setup;

mod bulk;
mod endings;
mod impaired;
mod options;
mod short;
mod tools;
mod wire;
