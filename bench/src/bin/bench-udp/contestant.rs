//! Who takes part, how each is started, and how the veth pair is set up for it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bench::netns::{INTERFACE, Netns, Process, SERVER_V4, SERVER_V6, Veth};
use clap::ValueEnum;
use clap::builder::PossibleValuesParser;
use serde::Serialize;

/// Queues at each end of the veth pair.
pub(crate) const QUEUES: u32 = 2;

/// Port of the echo service: the one of RFC 862.
pub(crate) const PORT: u16 = 7;

/// How long a server may take until it says it is ready: loading the steering program and binding
/// sockets may have to be tried again for a second or two while the kernel releases the last ones.
const READY_WAIT: Duration = Duration::from_secs(20);

/// Busy polling of the kernel server, in microseconds: about as long as the client takes for a burst,
/// so that the server does not sleep between two.
const KERNEL_BUSY_POLL_USECS: u32 = 50;

/// The cores of both sides.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Cores {
    pub(crate) client: usize,
    pub(crate) server: usize,
}

/// Where each side's receive work is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Placement {
    /// On its own core, as if the two were different machines: packets are steered to the receiver's
    /// core (RPS), and AF_XDP servers poll the device from theirs
    #[default]
    Split,
    /// Where veth does it: on the core of whoever sends
    Natural,
}

/// A server that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Contestant {
    /// Ours: driver, steering, stack and echo handler.
    Dataplane,
    /// The same driver and steering with a swap of addresses for a stack.
    Reflector,
    /// recvmmsg and sendmmsg on one core.
    Kernel,
    /// The same, polling.
    KernelBusyPoll,
}

impl Contestant {
    const ALL: [Self; 4] = [
        Self::Dataplane,
        Self::Reflector,
        Self::Kernel,
        Self::KernelBusyPoll,
    ];

    /// Its name in tables and JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Dataplane => "dataplane",
            Self::Reflector => "reflector",
            Self::Kernel => "kernel",
            Self::KernelBusyPoll => "kernel-busy-poll",
        }
    }

    fn program(self) -> &'static str {
        match self {
            Self::Dataplane => "dataplane",
            Self::Reflector => "reflector",
            Self::Kernel | Self::KernelBusyPoll => "kernel-udp-echo",
        }
    }

    /// Whether it polls, so that its core is busy whether or not there is work.
    pub(crate) fn polls(self) -> bool {
        match self {
            Self::Dataplane | Self::Reflector | Self::KernelBusyPoll => true,
            Self::Kernel => false,
        }
    }

    fn uses_af_xdp(self) -> bool {
        match self {
            Self::Dataplane | Self::Reflector => true,
            Self::Kernel | Self::KernelBusyPoll => false,
        }
    }
}

/// The names `--only` takes.
pub(crate) fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(Contestant::ALL.map(Contestant::name))
}

/// All contestants of a run, with what starting them takes.
#[derive(Debug)]
pub(crate) struct Lineup {
    contestants: Vec<Contestant>,
    absent: Vec<(&'static str, String)>,
    binaries: PathBuf,
    /// Configuration of the dataplane and the reflector; its folder is removed on drop.
    config: PathBuf,
    folder: PathBuf,
    pub(crate) cores: Cores,
    pub(crate) placement: Placement,
}

impl Lineup {
    /// The contestants whose programs are in `binaries`; of those only the ones named in `only`, if
    /// any are.
    pub(crate) fn new(
        binaries: PathBuf,
        cores: Cores,
        placement: Placement,
        only: &[String],
    ) -> io::Result<Self> {
        let folder = std::env::temp_dir().join(format!("bench-udp-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let mut lineup = Self {
            contestants: Vec::new(),
            absent: Vec::new(),
            config: folder.join("dataplane.toml"),
            binaries,
            folder,
            cores,
            placement,
        };
        fs::write(
            &lineup.config,
            configuration(&lineup.folder, cores, placement),
        )?;
        for contestant in Contestant::ALL {
            let name = contestant.name();
            if !only.is_empty() && !only.iter().any(|wanted| wanted == name) {
                continue;
            }
            let program = lineup.program(contestant.program());
            if program.exists() {
                lineup.contestants.push(contestant);
            } else {
                lineup
                    .absent
                    .push((name, format!("{} is not built", program.display())));
            }
        }
        Ok(lineup)
    }

    pub(crate) fn contestants(&self) -> &[Contestant] {
        &self.contestants
    }

    /// Who was wanted and is not there, and why.
    pub(crate) fn absent(&self) -> &[(&'static str, String)] {
        &self.absent
    }

    /// The path of one of this project's programs.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.binaries.join(name)
    }

    /// Sets the pair up for a contestant and starts it.
    pub(crate) fn start(&self, contestant: Contestant, veth: &Veth) -> io::Result<Process> {
        self.place(contestant, veth)?;
        let mut command = veth.server.command(self.program(contestant.program()));
        self.arguments(contestant, &mut command);
        Process::start(&mut command, READY_WAIT)
    }

    fn arguments(&self, contestant: Contestant, command: &mut Command) {
        match contestant {
            Contestant::Dataplane => {
                command.arg("run").arg("--config").arg(&self.config);
            }
            Contestant::Reflector => {
                command.arg("--config").arg(&self.config);
                command.args(["--address", &SERVER_V4.to_string()]);
                command.args(["--address", &SERVER_V6.to_string()]);
            }
            Contestant::Kernel | Contestant::KernelBusyPoll => {
                command.args(["--listen", &format!("[::]:{PORT}")]);
                command.args(["--cpu", &self.cores.server.to_string()]);
            }
        }
        if contestant == Contestant::KernelBusyPoll {
            command.args(["--busy-poll", &KERNEL_BUSY_POLL_USECS.to_string()]);
        }
    }

    /// Puts each side's receive work where the placement wants it.
    fn place(&self, contestant: Contestant, veth: &Veth) -> io::Result<()> {
        let (client, server) = match self.placement {
            Placement::Natural => ("0".to_owned(), "0".to_owned()),
            Placement::Split => (cpu_mask(self.cores.client), cpu_mask(self.cores.server)),
        };
        receive_on(&veth.client, &client)?;
        receive_on(&veth.server, &server)?;
        // With these the device waits to be polled while someone polls it, and for 200 µs after.
        let polled = contestant.uses_af_xdp() && self.placement == Placement::Split;
        let (defer, flush_ns) = if polled { ("2", "200000") } else { ("0", "0") };
        veth.server
            .write_sys_class_net(&format!("{INTERFACE}/napi_defer_hard_irqs"), defer)?;
        veth.server
            .write_sys_class_net(&format!("{INTERFACE}/gro_flush_timeout"), flush_ns)
    }
}

impl Drop for Lineup {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            eprintln!("cannot remove {}: {error}", self.folder.display());
        }
    }
}

/// Receive packet steering: which CPUs process what the interface receives, as a mask; "0" for the one
/// it arrived on (Documentation/networking/scaling.rst).
fn receive_on(netns: &Netns, mask: &str) -> io::Result<()> {
    for queue in 0..QUEUES {
        netns.write_sys_class_net(&format!("{INTERFACE}/queues/rx-{queue}/rps_cpus"), mask)?;
    }
    Ok(())
}

/// A CPU mask as sysfs takes it: hexadecimal, in groups of 32 bits, the highest first.
fn cpu_mask(cpu: usize) -> String {
    let mut mask = format!("{:x}", 1_u32 << (cpu % 32));
    for _ in 0..cpu / 32 {
        mask += ",00000000";
    }
    mask
}

/// What the dataplane and the reflector run with: one worker on the server's core for both queues.
fn configuration(folder: &Path, cores: Cores, placement: Placement) -> String {
    let busy_poll = placement == Placement::Split;
    format!(
        "[interface]\n\
         name = \"{INTERFACE}\"\n\
         mode = \"copy\"\n\
         \n\
         [busy_poll]\n\
         enabled = {busy_poll}\n\
         \n\
         [workers]\n\
         cores = [{server}]\n\
         idle = \"spin\"\n\
         \n\
         [control]\n\
         socket = \"{folder}/control.sock\"\n\
         \n\
         [[service]]\n\
         name = \"echo\"\n\
         application = \"echo\"\n\
         protocol = \"udp\"\n\
         listen = [\"[::]:{PORT}\"]\n",
        server = cores.server,
        folder = folder.display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks() {
        assert_eq!(cpu_mask(0), "1");
        assert_eq!(cpu_mask(1), "2");
        assert_eq!(cpu_mask(31), "80000000");
        assert_eq!(cpu_mask(32), "1,00000000");
        assert_eq!(cpu_mask(69), "20,00000000,00000000");
    }

    #[test]
    fn a_lineup_names_who_is_missing_and_cleans_up() {
        let cores = Cores {
            client: 0,
            server: 1,
        };
        let only = ["kernel".to_owned(), "reflector".to_owned()];
        let nowhere = PathBuf::from("/nonexistent");
        let lineup = Lineup::new(nowhere, cores, Placement::Split, &only).unwrap();
        assert!(lineup.contestants().is_empty());
        let absent: Vec<_> = lineup.absent().iter().map(|(name, _)| *name).collect();
        assert_eq!(absent, ["reflector", "kernel"]);
        let folder = lineup.folder.clone();
        assert!(folder.exists());
        drop(lineup);
        assert!(!folder.exists());
    }
}
