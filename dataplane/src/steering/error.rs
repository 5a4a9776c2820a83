//! Why steering is not possible: one sentence that says what is wrong and what to do.

use super::attached::{self, Attached};
use super::preflight::KERNEL_MIN;
use crate::driver::AttachMode;
use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;
use aya::programs::xdp::XdpError;
use std::error::Error;
use std::fmt;
use std::io;
use steer::tables::QUEUE_COUNT_MAX;

/// Why steering is not possible.
#[derive(Debug)]
#[non_exhaustive]
pub enum SteeringError {
    /// The process lacks capabilities.
    NotPermitted {
        /// Their names; empty where the kernel refused without saying which.
        missing: Vec<&'static str>,
    },
    /// The kernel is older than 5.15.
    KernelTooOld {
        /// Its release, as `uname -r` says it.
        release: String,
    },
    /// The kernel was built without BPF, or without its type information.
    NoBpf {
        /// What it lacks.
        lacks: &'static str,
    },
    /// The kernel's verifier refused the program.
    Verifier {
        /// The last line of what it said.
        reason: String,
    },
    /// There is no such interface here.
    NoSuchInterface {
        /// The name asked for.
        interface: String,
    },
    /// Another XDP program is attached.
    Foreign {
        /// The interface.
        interface: String,
        /// What is attached to it.
        other: Attached,
    },
    /// The driver has no native XDP.
    NoNativeXdp {
        /// The interface.
        interface: String,
    },
    /// The driver has native XDP, but not for the interface as it is configured now.
    InterfaceSettings {
        /// The interface.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel gave no BPF link, which goes with the process, and anything else would stay behind.
    NoLink,
    /// This program is attached already.
    AlreadyAttached,
    /// No slot for this queue.
    Queue {
        /// The queue.
        queue: u32,
    },
    /// These are no VLAN identifiers.
    Vlan {
        /// What was asked for.
        vlan: Vec<u16>,
    },
    /// A table has no room.
    TableFull {
        /// The table.
        table: &'static str,
        /// How many entries it holds.
        capacity: u32,
    },
    /// A system call failed in a way that has no better explanation.
    Os {
        /// What was tried, as an infinitive.
        action: String,
        /// What came of it.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl SteeringError {
    /// Why the mode could not be had, if that is what is wrong: without advice to ask for another,
    /// for where another is tried anyway.
    #[must_use]
    pub fn mode_refusal(&self) -> Option<String> {
        match self {
            Self::NoNativeXdp { interface } => {
                Some(format!("the driver of {interface} has no native XDP"))
            }
            Self::InterfaceSettings { interface, source } => Some(format!(
                "the driver of {interface} refuses native XDP as the interface is configured now ({source}); \
                 lower its MTU to 3498 or less and switch LRO off with `ethtool -K {interface} lro off`"
            )),
            _ => None,
        }
    }
}

impl fmt::Display for SteeringError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign { interface, other } if other.is_ours() => write!(
                f,
                "{interface} already has an XDP program: {other}, that of another dataplane; stop it with \
                 `dataplane stop`"
            ),
            Self::NotPermitted { missing } if missing.is_empty() => write!(
                f,
                "the kernel does not permit this process to load BPF programs; run it as root and \
                 outside containers that forbid bpf(2)"
            ),
            Self::NotPermitted { missing } => write!(
                f,
                "loading the steering program needs {}; run as root, or grant the capability with \
                 `setcap` or systemd's AmbientCapabilities",
                missing.join(" and ")
            ),
            Self::KernelTooOld { release } => {
                let (major, minor) = KERNEL_MIN;
                write!(
                    f,
                    "the kernel is {release}, but steering needs Linux {major}.{minor} or newer; upgrade the kernel"
                )
            }
            Self::NoBpf { lacks } => write!(
                f,
                "this kernel was built without {lacks}; use a distribution's kernel or rebuild it with that option"
            ),
            Self::Verifier { reason } => write!(
                f,
                "the kernel's verifier refused the steering program ({reason}); please report this with the output of `uname -a`"
            ),
            Self::NoSuchInterface { interface } => write!(
                f,
                "there is no interface {interface:?} in this network namespace; `ip link` lists those there are"
            ),
            Self::Foreign { interface, other } => write!(
                f,
                "{interface} already has an XDP program: {other}; stop the service it belongs to, or detach it \
                 with `ip link set dev {interface} {} off`",
                other.mode.ip_link_keyword()
            ),
            Self::NoNativeXdp { .. } | Self::InterfaceSettings { .. } => {
                let refusal = self.mode_refusal().unwrap_or_default();
                write!(f, "{refusal}, or use mode \"generic\"")
            }
            Self::NoLink => write!(
                f,
                "the kernel refused a BPF link for the interface, without which the program could outlive this \
                 process; upgrade the kernel"
            ),
            Self::AlreadyAttached => write!(
                f,
                "the steering program is attached already; detach it first"
            ),
            Self::Queue { queue } => write!(
                f,
                "queue {queue} has no slot: steering reaches queues 0 to {}; use fewer queues (`ethtool -L`)",
                QUEUE_COUNT_MAX - 1
            ),
            Self::Vlan { vlan } => write!(
                f,
                "VLAN tags {vlan:?} are not possible: give at most two identifiers from 1 to 4094, outermost first"
            ),
            Self::TableFull { table, capacity } => write!(
                f,
                "the steering table {table} holds {capacity} entries and there are more; use fewer rules or raise its capacity"
            ),
            Self::Os { action, source } => write!(f, "cannot {action}: {source}"),
        }
    }
}

impl Error for SteeringError {}

impl SteeringError {
    pub(super) fn os(
        action: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self::Os {
            action: action.into(),
            source: source.into(),
        }
    }

    pub(super) fn map(action: &str, map: &str, error: MapError) -> Self {
        match errno_of_map(&error) {
            Some(libc::EPERM | libc::EACCES) => Self::NotPermitted {
                missing: Vec::new(),
            },
            _ => Self::os(format!("{action} the map {map}"), error),
        }
    }

    /// From a failure to load the object.
    pub(super) fn from_load(error: EbpfError) -> Self {
        match &error {
            EbpfError::BtfError(_) | EbpfError::NoBTF => {
                return Self::NoBpf {
                    lacks: "BPF type information (CONFIG_DEBUG_INFO_BTF)",
                };
            }
            EbpfError::ProgramError(ProgramError::LoadError {
                io_error,
                verifier_log,
            }) => {
                // Without a log, the verifier did not get as far as refusing.
                let log = verifier_log.to_string();
                let last = |line: &&str| {
                    let line = line.trim();
                    !line.is_empty()
                        && !line.starts_with("processed ")
                        && !line.starts_with("stack depth")
                        && !line.starts_with("verification time")
                };
                match (io_error.raw_os_error(), log.lines().rev().find(last)) {
                    (Some(libc::EPERM), _) | (Some(libc::EACCES), None) => {
                        return Self::NotPermitted {
                            missing: Vec::new(),
                        };
                    }
                    (_, Some(reason)) => {
                        return Self::Verifier {
                            reason: reason.trim().to_owned(),
                        };
                    }
                    _ => {}
                }
            }
            _ => {}
        }
        match errno_of_load(&error) {
            Some(libc::EPERM | libc::EACCES) => Self::NotPermitted {
                missing: Vec::new(),
            },
            Some(libc::ENOSYS) => Self::NoBpf {
                lacks: "BPF (CONFIG_BPF_SYSCALL)",
            },
            _ => Self::os("load the steering program", error),
        }
    }

    /// From a failure to attach the program to `interface`.
    pub(super) fn from_attach(
        interface: &str,
        index: u32,
        mode: AttachMode,
        error: ProgramError,
    ) -> Self {
        let interface = interface.to_owned();
        match errno_of_attach(&error) {
            Some(libc::EPERM | libc::EACCES) => Self::NotPermitted {
                missing: Vec::new(),
            },
            Some(libc::ENODEV | libc::ENXIO) => Self::NoSuchInterface { interface },
            // EBUSY: a program in this mode; EEXIST: one in the other (dev_xdp_attach).
            Some(libc::EBUSY | libc::EEXIST) => match attached::query(index) {
                Ok(Some(other)) => Self::Foreign { interface, other },
                _ => Self::os(format!("attach to {interface}"), error),
            },
            Some(libc::EOPNOTSUPP) if mode == AttachMode::Native => Self::NoNativeXdp { interface },
            Some(errno @ (libc::EINVAL | libc::ERANGE | libc::E2BIG | libc::EFBIG))
                if mode == AttachMode::Native =>
            {
                Self::InterfaceSettings {
                    interface,
                    source: io::Error::from_raw_os_error(errno),
                }
            }
            _ => Self::os(format!("attach to {interface}"), error),
        }
    }
}

fn errno_of_map(error: &MapError) -> Option<i32> {
    match error {
        MapError::SyscallError(error) => error.io_error.raw_os_error(),
        MapError::CreateError { io_error, .. } | MapError::IoError(io_error) => {
            io_error.raw_os_error()
        }
        _ => None,
    }
}

fn errno_of_load(error: &EbpfError) -> Option<i32> {
    match error {
        EbpfError::MapError(error) => errno_of_map(error),
        EbpfError::ProgramError(ProgramError::LoadError { io_error, .. }) => {
            io_error.raw_os_error()
        }
        EbpfError::ProgramError(ProgramError::SyscallError(error)) => error.io_error.raw_os_error(),
        _ => None,
    }
}

fn errno_of_attach(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        ProgramError::XdpError(XdpError::NetlinkError(error)) => error.raw_os_error(),
        _ => None,
    }
}
