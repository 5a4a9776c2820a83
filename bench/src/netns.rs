//! Network namespaces and veth pairs for benchmarks and tests, and the programs that run in them.
//!
//! ```text
//!   namespace dp-<label>-<pid>-<n>-c          namespace dp-<label>-<pid>-<n>-s
//!   ┌──────────────────────────────┐          ┌──────────────────────────────┐
//!   │ client program               │          │ server program               │
//!   │ veth0  10.77.0.1  fd00:77::1 ├──────────┤ veth0  10.77.0.2  fd00:77::2 │
//!   └──────────────────────────────┘  queues  └──────────────────────────────┘
//! ```
//!
//! Everything is undone on drop, also when a test panics. Nothing is ever created in the namespace
//! the program runs in, and nothing is removed that this process did not create.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};

/// Whether this process can make namespaces and veth pairs here.
///
/// # Errors
/// A sentence that says what is missing, to be printed beside what is skipped.
pub fn available() -> Result<(), String> {
    if !geteuid().is_root() {
        return Err("network namespaces need root".into());
    }
    for program in ["ip", "ethtool", "nsenter"] {
        if Command::new(program)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_err()
        {
            return Err(format!("`{program}` is not installed"));
        }
    }
    // A container may be root and still not be allowed to.
    Netns::new("probe")
        .map(drop)
        .map_err(|error| error.to_string())
}

/// A network namespace, removed on drop.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes a namespace with its loopback up. Its name is `dp-<label>-<pid>-<n>`.
    ///
    /// # Errors
    /// What `ip netns add` says.
    pub fn new(label: &str) -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("dp-{label}-{}-{number}", std::process::id());
        ip(["netns", "add", &name])?;
        // From here on drop removes it, whatever fails.
        let netns = Self { name };
        netns.ip(["link", "set", "lo", "up"])?;
        Ok(netns)
    }

    /// The namespace's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// A command that runs `program` in the namespace. Unlike `ip netns exec` it keeps the mounts, so
    /// that a bpffs stays visible; and it is the same process, so its id is the program's.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        let mut net = OsString::from("--net=");
        net.push(self.path());
        command.arg(net).arg("--").arg(program);
        command
    }

    /// Runs `ip` in the namespace and returns what it printed.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn ip<const N: usize>(&self, arguments: [&str; N]) -> io::Result<String> {
        finish(Command::new("ip").args(["-n", &self.name]).args(arguments))
    }

    /// Runs a program in the namespace to its end and returns what it printed.
    ///
    /// # Errors
    /// What the program said on its standard error, when it failed.
    pub fn run<const N: usize>(&self, program: &str, arguments: [&str; N]) -> io::Result<String> {
        finish(self.command(program).args(arguments))
    }

    /// Sets a sysctl of the namespace, like `net.ipv4.ip_forward`.
    ///
    /// # Errors
    /// What `sysctl` says.
    pub fn sysctl(&self, name: &str, value: &str) -> io::Result<()> {
        self.run("sysctl", ["-qw", &format!("{name}={value}")])
            .map(drop)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if let Err(error) = ip(["netns", "del", &self.name]) {
            eprintln!("cannot remove the namespace {}: {error}", self.name);
        }
    }
}

fn ip<const N: usize>(arguments: [&str; N]) -> io::Result<String> {
    finish(Command::new("ip").args(arguments))
}

/// Runs a command to its end; on failure its standard error is the error.
fn finish(command: &mut Command) -> io::Result<String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| {
        io::Error::new(error.kind(), format!("cannot run {command:?}: {error}"))
    })?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let said = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(format!(
            "{command:?}: {}: {}",
            output.status,
            said.trim()
        )))
    }
}

/// Name of the interface at both ends: the namespaces keep them apart.
pub const INTERFACE: &str = "veth0";
/// Client's IPv4 address; the prefix is /24.
pub const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Server's IPv4 address; the prefix is /24.
pub const SERVER_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// Client's IPv6 address; the prefix is /64.
pub const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 1);
/// Server's IPv6 address; the prefix is /64.
pub const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 2);

/// Two namespaces joined by a veth pair, with addresses, up, and both removed on drop.
#[derive(Debug)]
pub struct Veth {
    /// Where the load comes from.
    pub client: Netns,
    /// Where the service runs.
    pub server: Netns,
}

impl Veth {
    /// Makes a pair with `queues` receive and transmit queues at each end.
    ///
    /// The client's transmit checksum offload is turned off: with it veth would carry packets whose
    /// checksum was never computed (CHECKSUM_PARTIAL), which a stack outside the kernel sees as wrong.
    /// The server's is left on, so that a kernel server need not compute checksums, as behind a NIC
    /// that does.
    ///
    /// # Errors
    /// What `ip` or `ethtool` says.
    pub fn new(label: &str, queues: u32) -> io::Result<Self> {
        let pair = Self {
            client: Netns::new(&format!("{label}-c"))?,
            server: Netns::new(&format!("{label}-s"))?,
        };
        let queues = queues.to_string();
        // The pair is made inside the namespaces: no other program on this machine ever sees it.
        pair.client.ip([
            "link",
            "add",
            INTERFACE,
            "numtxqueues",
            &queues,
            "numrxqueues",
            &queues,
            "type",
            "veth",
            "peer",
            "name",
            INTERFACE,
            "netns",
            pair.server.name(),
            "numtxqueues",
            &queues,
            "numrxqueues",
            &queues,
        ])?;
        for (netns, v4, v6) in [
            (&pair.client, CLIENT_V4, CLIENT_V6),
            (&pair.server, SERVER_V4, SERVER_V6),
        ] {
            netns.ip(["addr", "add", &format!("{v4}/24"), "dev", INTERFACE])?;
            // nodad: the address is usable at once.
            netns.ip([
                "addr",
                "add",
                &format!("{v6}/64"),
                "dev",
                INTERFACE,
                "nodad",
            ])?;
        }
        pair.client.run("ethtool", ["-K", INTERFACE, "tx", "off"])?;
        pair.client.ip(["link", "set", INTERFACE, "up"])?;
        pair.server.ip(["link", "set", INTERFACE, "up"])?;
        pair.wait_until_up()?;
        Ok(pair)
    }

    /// Carrier is announced a moment after both ends are up (the kernel's linkwatch runs at most once
    /// a second); what is sent before is lost.
    fn wait_until_up(&self) -> io::Result<()> {
        let deadline = Instant::now() + LINK_UP_WAIT;
        for netns in [&self.client, &self.server] {
            while !netns
                .ip(["-o", "link", "show", "dev", INTERFACE])?
                .contains("state UP")
            {
                if Instant::now() > deadline {
                    let text = format!("{INTERFACE} in {} does not come up", netns.name());
                    return Err(io::Error::new(io::ErrorKind::TimedOut, text));
                }
                thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(())
    }
}

/// Longest wait for a link: a few times what linkwatch takes.
const LINK_UP_WAIT: Duration = Duration::from_secs(5);

/// How long a program may take to end after SIGTERM before it is killed: a service may have
/// connections to drain.
const TERMINATE_WAIT: Duration = Duration::from_secs(5);

/// A program that runs in the background and never outlives this value.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// What it printed on standard error after it was ready.
    said: Option<thread::JoinHandle<String>>,
}

impl Process {
    /// Starts a server and waits until it prints a line with `ready` in it, on standard output or
    /// standard error.
    ///
    /// # Errors
    /// What the program printed, when it ends or `patience` runs out first.
    pub fn start(command: &mut Command, patience: Duration) -> io::Result<Self> {
        // One pipe for both streams: they are read in the order they were written.
        let (reader, writer) = io::pipe()?;
        let spawned = command
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .spawn();
        // The command keeps copies of the pipe's writing end; without them the reader sees the end
        // of the stream when the program ends.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = spawned.map_err(|error| {
            io::Error::new(error.kind(), format!("cannot start {command:?}: {error}"))
        })?;
        let (ready, is_ready) = mpsc::channel();
        let said = thread::spawn(move || {
            let mut text = String::new();
            let mut reader = BufReader::new(reader);
            while reader.read_line(&mut text).is_ok_and(|length| length > 0) {
                if text
                    .lines()
                    .next_back()
                    .is_some_and(|line| line.contains("ready"))
                {
                    // Nobody waits for a second one.
                    let _ = ready.send(());
                }
            }
            text
        });
        let mut process = Self {
            child,
            said: Some(said),
        };
        match is_ready.recv_timeout(patience) {
            Ok(()) => Ok(process),
            Err(reason) => {
                let (_, said) = process.stop();
                let what = match reason {
                    mpsc::RecvTimeoutError::Timeout => "was not ready in time",
                    mpsc::RecvTimeoutError::Disconnected => "ended before it was ready",
                };
                Err(io::Error::other(format!(
                    "{command:?} {what}: {}",
                    said.trim()
                )))
            }
        }
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends the program with SIGTERM, or SIGKILL if it does not end in time, and returns how it ended
    /// and all it printed.
    pub fn stop(&mut self) -> (Option<ExitStatus>, String) {
        let status = self.end();
        let said = self
            .said
            .take()
            .and_then(|reader| reader.join().ok())
            .unwrap_or_default();
        (status, said)
    }

    fn end(&mut self) -> Option<ExitStatus> {
        if let Ok(Some(status)) = self.child.try_wait() {
            return Some(status);
        }
        // Not reaped yet, so the number is still this child's.
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + TERMINATE_WAIT;
        while Instant::now() < deadline {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        self.child.wait().ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    /// Says which test does not run here, and why.
    fn skipped(test: &str) -> bool {
        match available() {
            Ok(()) => false,
            Err(reason) => {
                eprintln!("skipped: {test}: {reason}");
                true
            }
        }
    }

    #[test]
    fn a_pair_carries_both_versions_and_leaves_nothing() {
        if skipped("a_pair_carries_both_versions_and_leaves_nothing") {
            return;
        }
        let pair = Veth::new("test", 2).unwrap();
        let paths = [pair.client.path(), pair.server.path()];
        for address in [IpAddr::from(SERVER_V4), IpAddr::from(SERVER_V6)] {
            // The neighbour's answer proves the link; ping may not be installed.
            let route = pair
                .client
                .ip(["route", "get", &address.to_string()])
                .unwrap();
            assert!(route.contains(INTERFACE), "{route}");
        }
        let offloads = pair.client.run("ethtool", ["-k", INTERFACE]).unwrap();
        assert!(offloads.contains("tx-checksumming: off"), "{offloads}");
        let queues = pair
            .server
            .ip(["-d", "link", "show", "dev", INTERFACE])
            .unwrap();
        assert!(
            queues.contains("numtxqueues 2") && queues.contains("numrxqueues 2"),
            "{queues}"
        );
        assert!(paths.iter().all(|path| path.exists()));
        drop(pair);
        assert!(!paths.iter().any(|path| path.exists()));
    }

    #[test]
    fn a_panic_cleans_up_too() {
        if skipped("a_panic_cleans_up_too") {
            return;
        }
        let (send, receive) = mpsc::channel();
        let panicked = thread::spawn(move || {
            let netns = Netns::new("panic").unwrap();
            send.send(netns.path()).unwrap();
            assert!(!netns.path().exists(), "this panic is part of the test");
        })
        .join();
        assert!(panicked.is_err());
        assert!(!receive.recv().unwrap().exists());
    }

    #[test]
    fn errors_carry_what_the_program_said() {
        let error = finish(Command::new("ip").args(["link", "show", "no-such-if"])).unwrap_err();
        assert!(error.to_string().contains("no-such-if"), "{error}");
    }

    #[test]
    fn a_server_is_ready_when_it_says_so_and_ends_when_told() {
        let script = "trap 'echo bye; exit 3' TERM; echo starting; sleep 0.05; echo ready >&2; \
                      while :; do sleep 0.02; done";
        let mut command = Command::new("sh");
        let mut process =
            Process::start(command.args(["-c", script]), Duration::from_secs(10)).unwrap();
        let (status, said) = process.stop();
        assert_eq!(status.and_then(|status| status.code()), Some(3));
        assert_eq!(
            said.lines().collect::<Vec<_>>(),
            ["starting", "ready", "bye"]
        );
    }

    #[test]
    fn a_server_that_fails_to_start_is_quoted() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such device >&2; exit 1"]);
        let error = Process::start(&mut command, Duration::from_secs(10))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("no such device") && error.contains("before it was ready"),
            "{error}"
        );
    }

    #[test]
    fn a_silent_server_is_not_waited_for_for_ever() {
        let mut command = Command::new("sleep");
        let started = Process::start(command.arg("30"), Duration::from_millis(50));
        assert!(
            started
                .unwrap_err()
                .to_string()
                .contains("not ready in time")
        );
    }
}
