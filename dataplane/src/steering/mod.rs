//! Loads, attaches and fills the XDP program that brings flows to us.
//!
//! * [`rules`]: what is ours and what stays with the kernel, as the control plane says it
//! * [`preflight`]: privileges and kernel version, before the kernel is asked for anything
//! * [`attached`]: what is attached to an interface now, and what the program costs a packet
//! * [`error`]: why steering is not possible, in one sentence with what to do
//! * `maps`: how a change of rules reaches the kernel without losing a packet
//!
//! ```text
//!   load ── attach ── register_socket × queues ── set_mac ── set_locals ── set_rules ── set_enabled
//!              │
//!              └─ the link is a file descriptor of this process: however the process ends, the
//!                 interface is the kernel's again
//! ```
//!
//! Memory of maps is charged to the control group since Linux 5.11, not to `RLIMIT_MEMLOCK`; the
//! oldest kernel supported is 5.15, so no limit has to be raised for the steering.

pub mod attached;
pub mod error;
mod maps;
pub mod preflight;
pub mod rules;

pub use crate::driver::AttachMode;
pub use attached::{Attached, ProgramCost, RunStats};
pub use error::SteeringError;
pub use rules::{DenyRule, ExactRule, PortRule, Prefix, Protocol, RuleSet, Scope};
pub use steer::Verdict;

use aya::maps::{Array, Map, MapData, PerCpuArray, XskMap};
use aya::programs::links::FdLink;
use aya::programs::xdp::XdpMode;
use aya::programs::{ProgramError, Xdp};
use aya::{Ebpf, EbpfError, EbpfLoader};
use maps::{Plan, Rules};
use rustix::thread::{MembarrierCommand, membarrier};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use steer::tables::{
    CONFIG_WORDS, Config, PROGRAM_NAME, QUEUE_COUNT_MAX, flag, mac_words, map, vlan_stack,
};

/// The program, as `make ebpf` built it.
const OBJECT: &[u8] = aya::include_bytes_aligned!("../../../ebpf/steering.bpf.o");

/// What is fixed for the life of a [`Steering`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SteeringConfig {
    /// The VLAN identifiers (1 to 4094) a packet of ours is tagged with, outermost first; at most two.
    /// Packets tagged otherwise are the kernel's. A NIC that takes tags off hides them from XDP, and
    /// then a tagged packet looks untagged: `ethtool -K NAME rxvlan off`.
    pub vlan: Vec<u16>,
    /// How many entries each table can hold.
    pub capacity: Capacity,
}

impl Default for SteeringConfig {
    /// Untagged packets, default capacities.
    fn default() -> Self {
        Self {
            vlan: Vec::new(),
            capacity: Capacity::default(),
        }
    }
}

/// How many entries each table can hold. Only entries that exist take memory, about 100 bytes each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Deny list.
    pub deny: u32,
    /// Single connections.
    pub exact: u32,
    /// Ports.
    pub ports: u32,
    /// Addresses of this host.
    pub locals: u32,
    /// Prefixes that are ours whole.
    pub prefixes: u32,
}

impl Default for Capacity {
    /// Room for 65,536 connections, and far more rules than people write by hand.
    fn default() -> Self {
        Self {
            deny: 4096,
            exact: 65_536,
            ports: 8192,
            locals: 4096,
            prefixes: 4096,
        }
    }
}

/// The loaded program and its maps. Dropping it detaches the program.
#[derive(Debug)]
pub struct Steering {
    ebpf: Ebpf,
    /// Detaches when dropped.
    link: Option<FdLink>,
    rules: Rules,
    /// As the kernel has it.
    config: Config,
}

impl Steering {
    /// Loads the program, switched off, with empty tables.
    ///
    /// # Errors
    ///
    /// Missing privileges, a kernel that is too old, VLAN identifiers that are none.
    pub fn load(config: &SteeringConfig) -> Result<Self, SteeringError> {
        let SteeringConfig { vlan, capacity } = config;
        let vlan_stack =
            vlan_stack(vlan).ok_or_else(|| SteeringError::Vlan { vlan: vlan.clone() })?;
        preflight::check()?;
        let mut loader = EbpfLoader::new();
        loader
            .map_max_entries(map::DENY, capacity.deny)
            .map_max_entries(map::EXACT, capacity.exact)
            .map_max_entries(map::PORTS, capacity.ports)
            .map_max_entries(map::LOCALS, capacity.locals)
            .map_max_entries(map::PREFIXES, capacity.prefixes);
        let mut ebpf = loader.load(OBJECT).map_err(SteeringError::from_load)?;
        program(&mut ebpf)
            .load()
            .map_err(|error| SteeringError::from_load(EbpfError::ProgramError(error)))?;
        let rules = Rules::take_from(&mut ebpf, *capacity);
        let config = Config {
            vlan_stack,
            ..Config::default()
        };
        let mut steering = Self {
            ebpf,
            link: None,
            rules,
            // What a new map holds.
            config: Config::default(),
        };
        steering.write_config(config)?;
        Ok(steering)
    }

    /// Attaches the program to the interface named `interface` in this thread's network namespace, in
    /// this mode and no other.
    ///
    /// # Errors
    ///
    /// No such interface, a driver without native XDP, another XDP program on the interface, or this
    /// one attached already.
    pub fn attach(&mut self, interface: &str, mode: AttachMode) -> Result<(), SteeringError> {
        if self.link.is_some() {
            return Err(SteeringError::AlreadyAttached);
        }
        let index = attached::interface_index(interface)?;
        if let Some(other) = attached::query(index)? {
            return Err(SteeringError::Foreign {
                interface: interface.to_owned(),
                other,
            });
        }
        let xdp_mode = match mode {
            AttachMode::Native => XdpMode::Driver,
            AttachMode::Generic => XdpMode::Skb,
        };
        let program = program(&mut self.ebpf);
        let link = program
            .attach_to_if_index(index, xdp_mode)
            .and_then(|id| program.take_link(id))
            .map_err(|error| SteeringError::from_attach(interface, index, mode, error))?;
        let Ok(link) = FdLink::try_from(link) else {
            // The library falls back to a netlink attachment, which would outlive this process.
            attached::detach_netlink(index, mode);
            return Err(SteeringError::NoLink);
        };
        self.link = Some(link);
        Ok(())
    }

    /// Gives the interface back to the kernel. Does nothing if the program is not attached.
    pub fn detach(&mut self) {
        self.link = None;
    }

    /// Directs packets of `queue` to the AF_XDP socket `socket`, which must be bound to that queue:
    /// the kernel drops what reaches a socket of another.
    ///
    /// # Errors
    ///
    /// No such slot, or not an AF_XDP socket.
    pub fn register_socket(
        &mut self,
        queue: u32,
        socket: BorrowedFd<'_>,
    ) -> Result<(), SteeringError> {
        slot(queue)?;
        self.sockets()
            .set(queue, socket, 0)
            .map_err(|error| SteeringError::map("add a socket to", map::SOCKETS, error))
    }

    /// Lets packets of `queue` pass to the kernel. Does nothing if the queue has no socket.
    ///
    /// # Errors
    ///
    /// No such slot.
    pub fn unregister_socket(&mut self, queue: u32) -> Result<(), SteeringError> {
        slot(queue)?;
        match self.sockets().unset(queue) {
            Err(error) if !maps::is_missing(&error) => Err(SteeringError::map(
                "remove a socket from",
                map::SOCKETS,
                error,
            )),
            _ => Ok(()),
        }
    }

    /// Replaces the rules. What both sets have keeps working throughout, because additions come
    /// before removals; and what the new set denies is never taken by a rule that is new with it.
    ///
    /// Where the deny list grows, this waits some milliseconds for packets that are under way.
    ///
    /// # Errors
    ///
    /// A table without room. Then the old rules stay as they were.
    pub fn set_rules(&mut self, rules: &RuleSet) -> Result<(), SteeringError> {
        let plan = self.rules.plan(rules)?;
        let old = self.config;
        let new = Config {
            flags: (old.flags & flag::ENABLED) | rules.flags(),
            deny_shapes: rules.deny_shapes(),
            ..old
        };
        if let Err(error) = self.add(&plan, new) {
            self.take_back(&plan, old)?;
            return Err(error);
        }
        self.rules.remove(&plan)?;
        self.write_config(new)
    }

    /// Adds what is new, so that at each moment the deny list holds for all that is ours.
    fn add(&mut self, plan: &Plan, new: Config) -> Result<(), SteeringError> {
        self.rules.add_deny(plan)?;
        // Only now is the deny list asked for entries of a shape that it did not have.
        self.write_config(Config {
            deny_shapes: self.config.deny_shapes | new.deny_shapes,
            ..self.config
        })?;
        if plan.denies_more() {
            await_runs_under_way();
        }
        self.rules.add_claims(plan)?;
        // And now are tables looked into that were empty.
        self.write_config(Config {
            flags: self.config.flags | new.flags,
            ..self.config
        })
    }

    /// The way back from anywhere in [`add`](Self::add), in the opposite order.
    fn take_back(&mut self, plan: &Plan, old: Config) -> Result<(), SteeringError> {
        self.rules.undo_claims(plan)?;
        self.write_config(old)?;
        self.rules.undo_deny(plan)
    }

    /// Replaces the addresses of this host: where rules for ports and connections hold. Prefixes hold
    /// everywhere.
    ///
    /// # Errors
    ///
    /// More addresses than the table holds. Then the old ones stay.
    pub fn set_locals(&mut self, addresses: &[IpAddr]) -> Result<(), SteeringError> {
        self.rules.set_locals(addresses)
    }

    /// Sets the interface's MAC address: frames to other stations are the kernel's, which a bridge, a
    /// macvlan interface or promiscuous mode lets in. Until it is set, and set to zero, steering does
    /// not look at MAC addresses.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn set_mac(&mut self, mac: [u8; 6]) -> Result<(), SteeringError> {
        self.write_config(Config {
            mac: mac_words(mac),
            ..self.config
        })
    }

    /// Switches steering on or off. Off, every packet is the kernel's, and the rules are kept.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn set_enabled(&mut self, enabled: bool) -> Result<(), SteeringError> {
        let flags = self.config.flags & !flag::ENABLED;
        let flags = if enabled {
            flags | flag::ENABLED
        } else {
            flags
        };
        self.write_config(Config {
            flags,
            ..self.config
        })
    }

    /// Whether steering is on.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.config.flags & flag::ENABLED != 0
    }

    /// How often each verdict was given since the program was loaded, on all CPUs together.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn counters(&self) -> Result<VerdictCounts, SteeringError> {
        let counters = self
            .ebpf
            .map(map::COUNTERS)
            .expect("invariant: the object has this map");
        let counters = PerCpuArray::<_, u64>::try_from(counters)
            .expect("invariant: counters are a per-CPU array of u64");
        let mut counts = VerdictCounts::default();
        for verdict in Verdict::ALL {
            let per_cpu = counters
                .get(&(*verdict as u32), 0)
                .map_err(|error| SteeringError::map("read", map::COUNTERS, error))?;
            counts.0[*verdict as usize] = per_cpu.iter().fold(0, |sum, n| sum.wrapping_add(*n));
        }
        Ok(counts)
    }

    /// The kernel's identifier of the program, as `bpftool prog` and `ip link` show it.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn program_id(&mut self) -> Result<u32, SteeringError> {
        let info = program(&mut self.ebpf)
            .info()
            .map_err(|error| SteeringError::os("ask for the program's identifier", error))?;
        Ok(info.id())
    }

    /// The loaded program, for `BPF_PROG_TEST_RUN`.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn program_fd(&mut self) -> Result<OwnedFd, SteeringError> {
        let program = program(&mut self.ebpf);
        let failed = |error| SteeringError::os("duplicate the program's descriptor", error);
        program
            .fd()
            .and_then(|fd| {
                fd.as_fd()
                    .try_clone_to_owned()
                    .map_err(ProgramError::IOError)
            })
            .map_err(failed)
    }

    fn sockets(&mut self) -> XskMap<&mut MapData> {
        let map: &mut Map = self
            .ebpf
            .map_mut(map::SOCKETS)
            .expect("invariant: the object has this map");
        XskMap::try_from(map).expect("invariant: sockets are in an XSKMAP")
    }

    /// Does nothing if the kernel has this configuration already.
    fn write_config(&mut self, config: Config) -> Result<(), SteeringError> {
        if config == self.config {
            return Ok(());
        }
        let map = self
            .ebpf
            .map_mut(map::CONFIG)
            .expect("invariant: the object has this map");
        let mut map = Array::<_, [u32; CONFIG_WORDS]>::try_from(map)
            .expect("invariant: the configuration is an array of these words");
        map.set(0, config.to_words(), 0)
            .map_err(|error| SteeringError::map("write", map::CONFIG, error))?;
        self.config = config;
        Ok(())
    }
}

/// Returns once every packet that the program has begun to judge is judged, so that whatever it judges
/// from now on, it judges by the maps as they are now.
///
/// The kernel runs XDP programs inside RCU read-side critical sections, and this command waits for a
/// grace period (`synchronize_rcu` in kernel/sched/membarrier.c). Kernels with `nohz_full` CPUs
/// refuse it; there a packet may be judged by old and new maps at once, if several system calls pass
/// while it is.
fn await_runs_under_way() {
    let _ = membarrier(MembarrierCommand::Global);
}

/// The program within the object.
fn program(ebpf: &mut Ebpf) -> &mut Xdp {
    ebpf.program_mut(PROGRAM_NAME)
        .and_then(|program| program.try_into().ok())
        .expect("invariant: the object has this XDP program")
}

/// Refuses queues beyond the last slot.
fn slot(queue: u32) -> Result<(), SteeringError> {
    if queue < QUEUE_COUNT_MAX {
        Ok(())
    } else {
        Err(SteeringError::Queue { queue })
    }
}

/// A count for each [`Verdict`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerdictCounts([u64; Verdict::ALL.len()]);

impl VerdictCounts {
    /// How many packets got this verdict.
    #[must_use]
    pub fn get(&self, verdict: Verdict) -> u64 {
        self.0[verdict as usize]
    }

    /// All verdicts with their counts, zeros included.
    pub fn iter(&self) -> impl Iterator<Item = (Verdict, u64)> + '_ {
        Verdict::ALL
            .iter()
            .map(|&verdict| (verdict, self.get(verdict)))
    }
}
