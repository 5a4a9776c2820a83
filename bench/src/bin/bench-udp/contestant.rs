//! Who takes part, and how each is started.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bench::netns::{INTERFACE, Process, SERVER_V4, SERVER_V6, Veth};
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
}

impl Lineup {
    /// The contestants whose programs are in `binaries`; of those only the ones named in `only`, if
    /// any are.
    pub(crate) fn new(binaries: PathBuf, cores: Cores, only: &[String]) -> io::Result<Self> {
        let folder = std::env::temp_dir().join(format!("bench-udp-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let mut lineup = Self {
            contestants: Vec::new(),
            absent: Vec::new(),
            config: folder.join("dataplane.toml"),
            binaries,
            folder,
            cores,
        };
        fs::write(&lineup.config, configuration(&lineup.folder, cores))?;
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

    /// Starts a contestant at the server's end.
    pub(crate) fn start(&self, contestant: Contestant, veth: &Veth) -> io::Result<Process> {
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
}

impl Drop for Lineup {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            eprintln!("cannot remove {}: {error}", self.folder.display());
        }
    }
}

/// What the dataplane and the reflector run with: one worker on the server's core for both queues,
/// spinning. Busy polling is off: over veth it moved no receive work to the worker's core here (no poll
/// of the device's NAPI came from it), and with interrupts deferred packets waited for the timer.
fn configuration(folder: &Path, cores: Cores) -> String {
    format!(
        "[interface]\n\
         name = \"{INTERFACE}\"\n\
         mode = \"copy\"\n\
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
    fn a_lineup_names_who_is_missing_and_cleans_up() {
        let cores = Cores {
            client: 0,
            server: 1,
        };
        let only = ["kernel".to_owned(), "reflector".to_owned()];
        let nowhere = PathBuf::from("/nonexistent");
        let lineup = Lineup::new(nowhere, cores, &only).unwrap();
        assert!(lineup.contestants().is_empty());
        let absent: Vec<_> = lineup.absent().iter().map(|(name, _)| *name).collect();
        assert_eq!(absent, ["reflector", "kernel"]);
        let folder = lineup.folder.clone();
        assert!(folder.exists());
        drop(lineup);
        assert!(!folder.exists());
    }
}
