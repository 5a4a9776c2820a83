//! The running service on the real kernel: it in one network namespace, its peer in another, a veth
//! pair between them. Every test makes its own and leaves nothing behind.
//!
//! | file | what it shows |
//! |---|---|
//! | `answers` | echo and discard of datagrams to every kind of client and listener |
//! | `beside_the_kernel` | what is not a service's stays the kernel's |
//! | `own_addresses` | addresses the kernel does not have: ARP, NDP, ping, fragments |
//! | `workers` | two workers on two queues, and packets on the wrong one |
//! | `changes` | links, addresses and neighbours that change while it runs |
//! | `life` | restarts, `kill -9`, SIGTERM |
//! | `tcp` | echo, discard and source on connections |
//! | `wire` | tcpdump finds no fault |
//! | `operating` | signals, reload, `dataplane info`, `stats`, `latency`, `stop` |
//! | `connect` | connections that services open, their ports |
//! | `flood` | SYNs from nobody, beside honest peers |
//! | `offloads` | incomplete checksums, modes |
//! | `refusals` | bad configurations, missing privileges, queues and programs of others |
//! | `vlan` | tagged packets |
//!
//! All of them need root, and are skipped by name without it.

#[path = "../driver_support/mod.rs"]
mod driver_support;
#[path = "../../../stack/tests/support/mod.rs"]
mod stack_support;
mod support;

mod answers;
mod beside_the_kernel;
mod changes;
mod connect;
mod flood;
mod life;
mod offloads;
mod operating;
mod own_addresses;
mod refusals;
mod tcp;
mod vlan;
mod wire;
mod workers;
