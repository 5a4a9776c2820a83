//! Why a driver could not be opened: each in one sentence that says what to do.

use rustix::io::Errno;
use std::fmt;

/// A driver could not be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DriverError {
    /// An option is outside what the driver or the kernel accepts; the sentence says which.
    InvalidOption(String),
    /// No interface of that name in this network namespace.
    NoSuchInterface {
        /// The name asked for.
        interface: String,
    },
    /// The interface has no such queue.
    NoSuchQueue {
        /// The interface.
        interface: String,
        /// The queue asked for.
        queue_id: u32,
        /// How many queues it has.
        queues: u32,
    },
    /// The process may not open AF_XDP sockets.
    NotPermitted,
    /// The kernel has no AF_XDP, or lacks something of it that 5.15 has.
    KernelTooOld {
        /// What it lacks.
        lacks: &'static str,
    },
    /// Another AF_XDP socket has the queue, and kept it for as long as we tried.
    QueueBusy {
        /// The interface.
        interface: String,
        /// The queue.
        queue_id: u32,
    },
    /// The interface's driver does not do zero-copy on this queue.
    ZeroCopyRefused {
        /// The interface.
        interface: String,
        /// Its driver.
        driver: String,
        /// The queue.
        queue_id: u32,
        /// What `bind` said.
        errno: Errno,
    },
    /// Huge pages were required and there are not enough of them.
    HugePages {
        /// Pages of 2 MiB that were needed.
        pages: usize,
        /// What `mmap` said.
        errno: Errno,
    },
    /// The kernel refuses to pin that much memory for this user.
    MemoryLocked,
    /// The socket refuses preferred busy polling.
    BusyPollRefused {
        /// What `setsockopt` said.
        errno: Errno,
    },
    /// A capture file cannot be replayed, or written.
    Capture(String),
    /// A system call failed in a way that has no better explanation here.
    Os {
        /// What we were doing, as an infinitive.
        doing: String,
        /// What the kernel said.
        errno: Errno,
    },
}

impl DriverError {
    pub(crate) fn os(doing: impl Into<String>, errno: Errno) -> Self {
        Self::Os {
            doing: doing.into(),
            errno,
        }
    }

    /// Why the mode could not be had, if that is what is wrong: without advice to ask for another,
    /// for where another is tried anyway.
    #[must_use]
    pub fn mode_refusal(&self) -> Option<String> {
        match self {
            Self::ZeroCopyRefused {
                interface,
                driver,
                queue_id,
                errno,
            } => Some(format!(
                "{interface} (driver {driver}) refuses zero-copy on queue {queue_id}: {errno}"
            )),
            _ => None,
        }
    }
}

impl fmt::Display for DriverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidOption(sentence) | Self::Capture(sentence) => f.write_str(sentence),
            Self::NoSuchInterface { interface } => write!(
                f,
                "there is no interface {interface} in this network namespace; \
                 `ip link` lists those there are"
            ),
            Self::NoSuchQueue {
                interface,
                queue_id,
                queues,
            } => write!(
                f,
                "{interface} has no queue {queue_id}: it has {queues}, numbered from 0; \
                 `ethtool -l {interface}` shows them, `ethtool -L {interface} combined N` sets them"
            ),
            Self::NotPermitted => f.write_str(
                "this process may not open AF_XDP sockets; run it as root, \
                 or with CAP_NET_RAW, CAP_NET_ADMIN and CAP_BPF",
            ),
            Self::KernelTooOld { lacks } => write!(
                f,
                "this kernel has no {lacks}; Linux 5.15 or later with CONFIG_XDP_SOCKETS is needed"
            ),
            Self::QueueBusy {
                interface,
                queue_id,
            } => write!(
                f,
                "queue {queue_id} of {interface} is taken by another AF_XDP socket; \
                 stop the program that has it, or choose other queues"
            ),
            Self::ZeroCopyRefused { .. } => {
                let refusal = self.mode_refusal().unwrap_or_default();
                write!(f, "{refusal}; ask for mode copy, generic or auto")
            }
            Self::HugePages { pages, errno } => write!(
                f,
                "{pages} huge pages of 2 MiB are required and cannot be had: {errno}; \
                 reserve them with `sysctl vm.nr_hugepages={pages}` or more, \
                 or set huge pages to auto"
            ),
            Self::MemoryLocked => f.write_str(
                "the kernel refuses to lock the packet memory; run as root, with CAP_IPC_LOCK, \
                 or with a higher `ulimit -l`",
            ),
            Self::BusyPollRefused { errno } => write!(
                f,
                "the kernel refuses preferred busy polling: {errno}; \
                 turn it off, or run Linux 5.11 or later with CAP_NET_ADMIN"
            ),
            Self::Os { doing, errno } => write!(f, "cannot {doing}: {errno}"),
        }
    }
}

impl std::error::Error for DriverError {}
