//! The control plane: everything that talks to the kernel's tables, to operators and to other
//! tools. It runs on its own thread, never on a worker's core.
pub mod netlink;
