//! Child processes with a bounded life, whose output goes to files so that no pipe can fill up.

use super::{PATIENCE, POLL};
use rustix::process::{Pid, Signal, kill_process};
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A running process; killed and reaped when dropped.
pub(crate) struct Process {
    child: Child,
    what: String,
    stdout: File,
    stderr: File,
}

/// A process that ended.
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            status,
            stdout,
            stderr,
        } = self;
        write!(f, "{status}\n-- stdout:\n{stdout}\n-- stderr:\n{stderr}")
    }
}

impl Process {
    /// Starts it with nothing on standard input.
    #[track_caller]
    pub(crate) fn start(command: Command, what: &str) -> Self {
        Self::start_with_input(command, what, &[])
    }

    /// The same with this as its standard output, which then only its reader sees.
    #[track_caller]
    pub(crate) fn start_with_stdout(command: Command, what: &str, stdout: Stdio) -> Self {
        Self::spawn(command, what, &[], Some(stdout))
    }

    /// Starts it with `input` on standard input, and then the end of the file.
    #[track_caller]
    pub(crate) fn start_with_input(command: Command, what: &str, input: &[u8]) -> Self {
        Self::spawn(command, what, input, None)
    }

    #[track_caller]
    fn spawn(mut command: Command, what: &str, input: &[u8], given: Option<Stdio>) -> Self {
        let (mut stdin, stdout, stderr) = (file(), file(), file());
        stdin.write_all(input).expect("room for the input");
        stdin.rewind().expect("a file can be rewound");
        let hand = |file: &File| Stdio::from(file.try_clone().expect("a descriptor"));
        let child = command
            .stdin(hand(&stdin))
            .stdout(given.unwrap_or_else(|| hand(&stdout)))
            .stderr(hand(&stderr))
            .spawn()
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        Self {
            child,
            what: what.to_owned(),
            stdout,
            stderr,
        }
    }

    /// What it has written to standard output so far.
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout_bytes()).into_owned()
    }

    /// The same, byte by byte.
    pub(crate) fn stdout_bytes(&self) -> Vec<u8> {
        contents(&self.stdout)
    }

    /// What it has written to standard error so far.
    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&contents(&self.stderr)).into_owned()
    }

    /// Its number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal. It cannot be another process: its number is ours until it is reaped.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process number"), signal)
            .unwrap_or_else(|error| panic!("signal {}: {error}", self.what));
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is ours to wait for")
    }

    /// Waits for its end, at most `patience`. `None` when it still runs then.
    pub(crate) fn wait_for(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            std::thread::sleep(POLL / 2);
        }
    }

    /// Waits for its end, which must come.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Finished {
        let status = self.wait_for(PATIENCE);
        let (stdout, stderr) = (self.stdout(), self.stderr());
        let Some(status) = status else {
            panic!(
                "{} did not end within {} s\n-- stdout:\n{stdout}\n-- stderr:\n{stderr}",
                self.what,
                PATIENCE.as_secs()
            );
        };
        Finished {
            status,
            stdout,
            stderr,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for a process that has ended and been reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let (what, out, err) = (&self.what, self.stdout(), self.stderr());
            println!("-- {what} said:\n{out}{err}");
        }
    }
}

/// A file without a name.
fn file() -> File {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    File::from(rustix::fs::memfd_create("process", flags).expect("memory for a file"))
}

/// All of a file that a process has as its output. The descriptor shares its position with the
/// process, so reading must not move it.
fn contents(file: &File) -> Vec<u8> {
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file));
    let mut bytes = Vec::new();
    let mut again = File::open(path).expect("it can be opened again");
    again
        .seek(SeekFrom::Start(0))
        .expect("a file can be rewound");
    again.read_to_end(&mut bytes).expect("it can be read");
    bytes
}
