//! Who takes part, and how each is started.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bench::netns::{INTERFACE, Process, SERVER_V4, SERVER_V6, Veth};
use clap::builder::PossibleValuesParser;
use serde::Serialize;

use super::placement;

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
    /// recvmmsg and sendmmsg on one core; the receive work of its interface stays with the sender.
    Kernel,
    /// The same, with that work steered to the server's core (RPS).
    KernelRps,
    /// The same, with that work in NAPI threads on the server's core, as for dataplane and reflector.
    KernelNapi,
    /// The same, polling, which does that work too.
    KernelBusyPoll,
}

impl Contestant {
    const ALL: [Self; 6] = [
        Self::Dataplane,
        Self::Reflector,
        Self::Kernel,
        Self::KernelRps,
        Self::KernelNapi,
        Self::KernelBusyPoll,
    ];

    /// The kernel servers.
    pub(crate) const KERNEL: [Self; 4] = [
        Self::Kernel,
        Self::KernelRps,
        Self::KernelNapi,
        Self::KernelBusyPoll,
    ];

    /// Its name in tables and JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Dataplane => "dataplane",
            Self::Reflector => "reflector",
            Self::Kernel => "kernel",
            Self::KernelRps => "kernel-rps",
            Self::KernelNapi => "kernel-napi",
            Self::KernelBusyPoll => "kernel-busy-poll",
        }
    }

    fn program(self) -> &'static str {
        match self {
            Self::Dataplane => "dataplane",
            Self::Reflector => "reflector",
            Self::Kernel | Self::KernelRps | Self::KernelNapi | Self::KernelBusyPoll => {
                "kernel-udp-echo"
            }
        }
    }

    /// Whether it polls, so that its core is busy whether or not there is work.
    pub(crate) fn polls(self) -> bool {
        match self {
            Self::Dataplane | Self::Reflector | Self::KernelBusyPoll => true,
            Self::Kernel | Self::KernelRps | Self::KernelNapi => false,
        }
    }

    /// What does the receive work of the server's interface under [`Load::Saturation`], and where.
    ///
    /// [`Load::Saturation`]: super::measure::Load::Saturation
    pub(crate) fn receive_work(self) -> &'static str {
        match self {
            Self::Dataplane | Self::Reflector => {
                "server's core: NAPI threads run the XDP program and fill the RX rings"
            }
            Self::Kernel => "client's core, up to the socket's buffer: whoever sends does it",
            Self::KernelRps => "server's core, by receive packet steering",
            Self::KernelNapi => "server's core: NAPI threads, up to the socket's buffer",
            Self::KernelBusyPoll => "server's core: the server itself polls, interrupts deferred",
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

    /// Starts a contestant at the server's end of a fresh pair.
    pub(crate) fn start(
        &self,
        contestant: Contestant,
        ipv6: bool,
        veth: &Veth,
    ) -> io::Result<Process> {
        match contestant {
            Contestant::KernelRps => {
                placement::receive_packet_steering(&veth.server, QUEUES, self.cores.server)?;
            }
            Contestant::KernelNapi => placement::gro(&veth.server)?,
            Contestant::Dataplane
            | Contestant::Reflector
            | Contestant::Kernel
            | Contestant::KernelBusyPoll => {}
        }
        let mut command = veth.server.command(self.program(contestant.program()));
        self.arguments(contestant, ipv6, &mut command);
        Process::start(&mut command, READY_WAIT)
    }

    /// Gives the server's core all of the server's work, where a contestant that runs can have it so.
    pub(crate) fn place(&self, contestant: Contestant, veth: &Veth) -> io::Result<()> {
        match contestant {
            Contestant::Dataplane | Contestant::Reflector | Contestant::KernelNapi => {
                placement::napi_threads(&veth.server, self.cores.server)
            }
            // Only now: with deferred interrupts one request at a time takes twice as long.
            Contestant::KernelBusyPoll => placement::busy_polled(&veth.server),
            Contestant::Kernel | Contestant::KernelRps => Ok(()),
        }
    }

    fn arguments(&self, contestant: Contestant, ipv6: bool, command: &mut Command) {
        match contestant {
            Contestant::Dataplane => {
                command.arg("run").arg("--config").arg(&self.config);
            }
            Contestant::Reflector => {
                command.arg("--config").arg(&self.config);
                command.args(["--address", &SERVER_V4.to_string()]);
                command.args(["--address", &SERVER_V6.to_string()]);
            }
            Contestant::Kernel
            | Contestant::KernelRps
            | Contestant::KernelNapi
            | Contestant::KernelBusyPoll => {
                // A socket of its own IP version: an IPv6 socket would pay for mapped addresses.
                let any = if ipv6 { "[::]" } else { "0.0.0.0" };
                command.args(["--listen", &format!("{any}:{PORT}")]);
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
/// spinning. Busy polling is off: a veth tells its AF_XDP sockets no NAPI to poll (`xsk_bind` finds no
/// `napi_id`), so that packets would only wait for the timer of deferred interrupts.
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
