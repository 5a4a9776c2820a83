//! What XDP program is attached to an interface, and what our program costs a packet.

use super::error::SteeringError;
use crate::driver::AttachMode;
use aya::sys::{Stats, enable_stats};
use libbpf_rs::libbpf_sys::{XDP_ATTACHED_DRV, XDP_ATTACHED_HW, XDP_ATTACHED_SKB};
use libbpf_rs::query::{ProgInfoIter, ProgramInfo};
use libbpf_rs::{Xdp, XdpFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};
use std::fmt;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use steer::tables::PROGRAM_NAME;

/// Where an attached program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachedMode {
    /// In the driver.
    Native,
    /// In the network stack.
    Generic,
    /// On the NIC.
    Offloaded,
    /// In several of these places.
    Several,
}

impl AttachedMode {
    /// The word `ip link set dev NAME` wants before `off`.
    #[must_use]
    pub const fn ip_link_keyword(self) -> &'static str {
        match self {
            Self::Native => "xdpdrv",
            Self::Generic => "xdpgeneric",
            Self::Offloaded => "xdpoffload",
            Self::Several => "xdp",
        }
    }
}

impl fmt::Display for AttachedMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Offloaded => "offloaded",
            Self::Several => "several modes",
        })
    }
}

/// An XDP program attached to an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The kernel's identifier of the program, as `bpftool prog` shows it.
    pub program_id: u32,
    /// Its name, of at most 15 bytes; empty if it has none or the kernel will not tell.
    pub name: String,
    /// Where it runs.
    pub mode: AttachedMode,
}

impl Attached {
    /// Whether it is the steering program, of this process or of another.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.name == PROGRAM_NAME
    }
}

impl fmt::Display for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            program_id,
            name,
            mode,
        } = self;
        let name = if name.is_empty() { "unnamed" } else { name };
        write!(f, "{name} (id {program_id}, {mode})")
    }
}

/// What XDP program is attached to the interface with this index in this thread's network namespace.
///
/// # Errors
///
/// The kernel does not answer.
pub fn query(interface_index: u32) -> Result<Option<Attached>, SteeringError> {
    let failed = |error| SteeringError::os("ask what XDP program is attached", error);
    let index = i32::try_from(interface_index)
        .map_err(|error| SteeringError::os("ask what XDP program is attached", error))?;
    // The library wants a program to ask with, and does not use it.
    let unused =
        File::open("/dev/null").map_err(|error| SteeringError::os("open /dev/null", error))?;
    let answer = Xdp::new(unused.as_fd())
        .query(index, XdpFlags::NONE)
        .map_err(failed)?;
    let native = (answer.drv_prog_id, AttachedMode::Native);
    let generic = (answer.skb_prog_id, AttachedMode::Generic);
    let offloaded = (answer.hw_prog_id, AttachedMode::Offloaded);
    // For a single program the kernel gives its id alone, without one per mode.
    let single = match u32::from(answer.attach_mode) {
        XDP_ATTACHED_DRV => (answer.prog_id, AttachedMode::Native),
        XDP_ATTACHED_SKB => (answer.prog_id, AttachedMode::Generic),
        XDP_ATTACHED_HW => (answer.prog_id, AttachedMode::Offloaded),
        _ => (answer.prog_id, AttachedMode::Several),
    };
    let found = [single, native, generic, offloaded]
        .into_iter()
        .find(|(id, _)| *id != 0);
    Ok(found.map(|(program_id, mode)| Attached {
        program_id,
        name: info(program_id)
            .map(|info| info.name.to_string_lossy().into_owned())
            .unwrap_or_default(),
        mode,
    }))
}

/// The index of the interface named `interface` in this thread's network namespace.
///
/// # Errors
///
/// There is none.
pub fn interface_index(interface: &str) -> Result<u32, SteeringError> {
    let missing = || SteeringError::NoSuchInterface {
        interface: interface.to_owned(),
    };
    // The kernel keeps 15 bytes of a name; a longer one would be cut and match another.
    if interface.is_empty() || interface.len() >= libc::IFNAMSIZ {
        return Err(missing());
    }
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|error| SteeringError::os("open a socket", error))?;
    netdevice::name_to_index(socket, interface).map_err(|_| missing())
}

/// Detaches whatever netlink attached in this mode, as well as that goes.
pub(super) fn detach_netlink(interface_index: u32, mode: AttachMode) {
    let flags = match mode {
        AttachMode::Native => XdpFlags::DRV_MODE,
        AttachMode::Generic => XdpFlags::SKB_MODE,
    };
    if let (Ok(unused), Ok(index)) = (File::open("/dev/null"), i32::try_from(interface_index)) {
        // There is nobody left to tell if this fails, and the caller fails anyway.
        let _ = Xdp::new(unused.as_fd()).detach(index, flags);
    }
}

/// What the kernel knows of a loaded program.
fn info(program_id: u32) -> Option<ProgramInfo> {
    ProgInfoIter::default().find(|info| info.id == program_id)
}

/// Has the kernel measure the run time of BPF programs for as long as this lives. Costs every
/// program on the machine two clock reads per run.
#[derive(Debug)]
pub struct RunStats {
    _enabled: OwnedFd,
}

impl RunStats {
    /// Starts measuring.
    ///
    /// # Errors
    ///
    /// The kernel refuses: it takes CAP_SYS_ADMIN.
    pub fn enable() -> Result<Self, SteeringError> {
        match enable_stats(Stats::RunTime) {
            Ok(enabled) => Ok(Self { _enabled: enabled }),
            Err(error) if error.io_error.raw_os_error() == Some(libc::EPERM) => {
                Err(SteeringError::NotPermitted {
                    missing: vec!["CAP_SYS_ADMIN"],
                })
            }
            Err(error) => Err(SteeringError::os(
                "measure the run time of BPF programs",
                error,
            )),
        }
    }
}

/// What a program has cost while the kernel was measuring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgramCost {
    /// Runs, one per packet.
    pub runs: u64,
    /// Their time, in nanoseconds.
    pub run_time_ns: u64,
}

impl ProgramCost {
    /// The cost of the program with this identifier since it was loaded. Grows only while a
    /// [`RunStats`] lives; subtract two readings with [`since`](Self::since).
    ///
    /// # Errors
    ///
    /// There is no such program, or the kernel will not tell.
    pub fn of(program_id: u32) -> Result<Self, SteeringError> {
        let info = info(program_id).ok_or_else(|| {
            SteeringError::os(
                "read the cost of the program",
                format!("no program with id {program_id}"),
            )
        })?;
        Ok(Self {
            runs: info.run_cnt,
            run_time_ns: info.run_time_ns,
        })
    }

    /// The cost since an earlier reading.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            runs: self.runs.saturating_sub(earlier.runs),
            run_time_ns: self.run_time_ns.saturating_sub(earlier.run_time_ns),
        }
    }

    /// Nanoseconds per packet; `None` without packets.
    #[must_use]
    pub fn ns_per_packet(self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "a report, not an account")]
        (self.runs != 0).then(|| self.run_time_ns as f64 / self.runs as f64)
    }
}
