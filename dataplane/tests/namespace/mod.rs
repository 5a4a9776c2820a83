//! Network namespaces without names, for all tests on the real kernel: they go with the descriptors
//! that hold them, however a test ends.
#![allow(unsafe_code)] // unshare(2), and what runs between fork and exec.
#![allow(dead_code)] // Each test binary uses its own part.

use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

/// A network namespace, held by a descriptor.
#[derive(Clone, Debug)]
pub(crate) struct Namespace(Arc<File>);

impl Namespace {
    /// Makes one, with its loopback up. `None` without the privilege (CAP_SYS_ADMIN).
    pub(crate) fn new() -> Option<Self> {
        // A thread can leave its namespace but not un-share it: the thread ends, the descriptor stays.
        let made = std::thread::spawn(|| {
            // SAFETY: moves this thread, which has nothing open, and nobody else.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.ok()?;
            File::open("/proc/thread-self/ns/net").ok()
        });
        let namespace = Self(Arc::new(made.join().expect("the thread does not panic")?));
        namespace.ip("link set lo up");
        Some(namespace)
    }

    /// Where `ip link … netns` finds it.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Runs `job` on a thread inside. Sockets it returns stay inside; so do threads it starts.
    pub(crate) fn run<T: Send>(&self, job: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter().expect("root may enter");
                job()
            });
            match inside.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Moves the calling thread inside, for good.
    pub(crate) fn enter(&self) -> rustix::io::Result<()> {
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
    }

    /// A command that will run inside, and be killed when the calling thread dies.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let namespace = self.clone();
        let enter = move || {
            namespace.enter()?;
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            Ok(())
        };
        // SAFETY: the closure makes two system calls, and neither allocates nor locks.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// Runs `ip` inside, which must succeed. Returns what it printed.
    #[track_caller]
    pub(crate) fn ip(&self, arguments: &str) -> String {
        run_ip(self.command("ip"), arguments)
    }

    /// Writes a file under /proc/sys/net, which shows the namespace of whoever opens it.
    pub(crate) fn sysctl(&self, key: &str, value: &str) {
        let path = format!("/proc/sys/net/{key}");
        self.run(|| std::fs::write(&path, value))
            .unwrap_or_else(|error| panic!("{path}: {error}"));
    }
}

/// Runs `ip` in the calling thread's namespace, which must succeed. Returns what it printed.
#[track_caller]
pub(crate) fn ip(arguments: &str) -> String {
    run_ip(Command::new("ip"), arguments)
}

#[track_caller]
fn run_ip(mut ip: Command, arguments: &str) -> String {
    let output = ip
        .args(arguments.split_whitespace())
        .output()
        .expect("ip runs (package iproute2)");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
