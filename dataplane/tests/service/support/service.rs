//! The service as a child process.

use super::lab::Lab;
use super::namespace::Namespace;
use super::process::{Finished, Process};
use super::{PATIENCE, until};
use dataplane::control::client::Client;
use rustix::process::Signal;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The program under test: where the environment says, as for a copy of these tests, else where it was
/// built.
pub(crate) fn program() -> String {
    let told = std::env::var("CARGO_BIN_EXE_dataplane");
    told.unwrap_or_else(|_| env!("CARGO_BIN_EXE_dataplane").into())
}

/// The running service; killed when it is dropped.
pub(crate) struct Service {
    /// `None` once it is waited for.
    process: Option<Process>,
    namespace: Namespace,
    socket: PathBuf,
}

impl Service {
    /// Starts it without waiting for anything.
    #[track_caller]
    pub(crate) fn launch(namespace: &Namespace, config: &Path) -> Process {
        Process::start(run(namespace, config), "dataplane run")
    }

    /// Starts it and waits until it answers on its control socket: then packets are its, too.
    #[track_caller]
    pub(crate) fn start(namespace: &Namespace, config: &Path, socket: &Path) -> Self {
        Self::until_ready(Self::launch(namespace, config), namespace, socket)
    }

    /// The same with this as its standard output.
    #[track_caller]
    pub(crate) fn start_with_stdout(
        namespace: &Namespace,
        config: &Path,
        socket: &Path,
        stdout: Stdio,
    ) -> Self {
        let command = run(namespace, config);
        let process = Process::start_with_stdout(command, "dataplane run", stdout);
        Self::until_ready(process, namespace, socket)
    }

    #[track_caller]
    fn until_ready(mut process: Process, namespace: &Namespace, socket: &Path) -> Self {
        let deadline = Instant::now() + PATIENCE;
        let answers = || Client::connect(socket).and_then(|mut client| client.info());
        while answers().is_err() {
            if let Some(status) = process.ended() {
                panic!("the service ended instead of starting: {status}");
            }
            assert!(
                Instant::now() < deadline,
                "the service was not ready in time"
            );
            std::thread::sleep(super::POLL);
        }
        Self {
            process: Some(process),
            namespace: namespace.clone(),
            socket: socket.to_owned(),
        }
    }

    fn process(&self) -> &Process {
        self.process.as_ref().expect("it is not waited for yet")
    }

    /// What it has written to standard output so far.
    pub(crate) fn stdout(&self) -> String {
        self.process().stdout()
    }

    /// What it has logged so far.
    pub(crate) fn stderr(&self) -> String {
        self.process().stderr()
    }

    /// Its process number.
    pub(crate) fn pid(&self) -> u32 {
        self.process().pid()
    }

    /// Whether its process has ended, though nobody has waited for it yet.
    pub(crate) fn has_ended(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()));
        // proc(5): the state follows the name, which is in parentheses.
        stat.is_ok_and(|stat| stat.contains(") Z "))
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        self.process().signal(signal);
    }

    /// Runs one of the commands that ask a running service.
    #[track_caller]
    pub(crate) fn ask(&self, command_line: &str) -> Finished {
        let mut command = self.namespace.command(&program());
        command.args(command_line.split_whitespace());
        command.arg("--socket").arg(&self.socket);
        Process::start(command, &format!("dataplane {command_line}")).finish()
    }

    /// Runs one of the commands that ask a running service, which must succeed, and reads the JSON
    /// it prints.
    #[track_caller]
    pub(crate) fn ask_json(&self, command: &str) -> Value {
        let done = self.ask(&format!("{command} --json"));
        assert!(done.status.success(), "dataplane {command}: {done}");
        serde_json::from_str(&done.stdout)
            .unwrap_or_else(|error| panic!("dataplane {command}: {error}: {done}"))
    }

    /// A counter, summed over the workers: `group` and `name` as `dataplane stats` shows them.
    #[track_caller]
    pub(crate) fn counter(&self, group: &str, name: &str) -> u64 {
        let stats = self.ask_json("stats");
        number(&stats["total"][group][name], group, name)
    }

    /// A counter of each worker.
    #[track_caller]
    pub(crate) fn counters_by_worker(&self, group: &str, name: &str) -> Vec<u64> {
        let stats = self.ask_json("stats");
        let workers = stats["workers"].as_array().expect("a list of workers");
        workers
            .iter()
            .map(|worker| number(&worker["counters"][group][name], group, name))
            .collect()
    }

    /// What the service wants its operator to know.
    #[track_caller]
    pub(crate) fn notes(&self) -> String {
        let info = self.ask_json("info");
        let notes = info["notes"].as_array().expect("a list of notes");
        let notes = notes.iter().map(|note| note.as_str().expect("text"));
        notes.collect::<Vec<_>>().join("\n")
    }

    /// SIGHUP, and the line of the log that says what came of it.
    #[track_caller]
    pub(crate) fn reload_by_signal(&self) -> String {
        let lines = |text: String| -> Vec<String> {
            let reload = text.lines().filter(|line| line.contains("reload"));
            reload.map(str::to_owned).collect()
        };
        let before = lines(self.stderr()).len();
        self.signal(Signal::HUP);
        let mut after = Vec::new();
        until("the reload is logged", || {
            after = lines(self.stderr());
            after.len() > before
        });
        after.pop().expect("there is one more")
    }

    /// Waits for its end, which must come.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Finished {
        let process = self.process.take();
        process.expect("it is taken once").finish()
    }

    /// SIGTERM; the service must end well. Returns everything it said.
    #[track_caller]
    pub(crate) fn stop(self) -> Finished {
        self.signal(Signal::TERM);
        let done = self.finish();
        assert!(done.status.success(), "{done}");
        done
    }

    /// SIGKILL.
    #[track_caller]
    pub(crate) fn kill(self) {
        self.signal(Signal::KILL);
        let _ = self.finish();
    }
}

/// A test that fails shows what the service knew and counted.
impl Drop for Service {
    fn drop(&mut self) {
        if !std::thread::panicking() || self.process.is_none() {
            return;
        }
        for what in ["info", "stats"] {
            let mut command = self.namespace.command(&program());
            command.arg(what).arg("--socket").arg(&self.socket);
            // What it says is printed when it is dropped.
            let mut asked = Process::start(command, &format!("dataplane {what}"));
            let _ = asked.wait_for(Duration::from_secs(5));
        }
    }
}

fn run(namespace: &Namespace, config: &Path) -> Command {
    let mut command = namespace.command(&program());
    command.arg("run").arg("--config").arg(config);
    command
}

#[track_caller]
fn number(value: &Value, group: &str, name: &str) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("there is no counter {group} {name}"))
}

impl Lab {
    /// Waits until no XDP program is attached to the service's interface.
    #[track_caller]
    pub(crate) fn until_no_program(&self) {
        until("no XDP program is attached", || {
            !self.server.ip("-d link show dev dp0").contains("prog/xdp")
        });
    }
}
