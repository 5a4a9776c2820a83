//! Network namespaces without names.
#![allow(unsafe_code)] // unshare(2), and what runs between fork and exec.

use super::process::{Finished, Process};
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
    /// Makes one. `None` without the privilege (CAP_SYS_ADMIN).
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
                move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("root may enter");
                job()
            });
            match inside.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// A command that will run inside, and be killed when the calling thread dies.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let namespace = Arc::clone(&self.0);
        let enter = move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            Ok(())
        };
        // SAFETY: the closure makes two system calls, and neither allocates nor locks.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// Runs a command line, split at spaces, to its end; whether it succeeds is for the caller.
    #[track_caller]
    pub(crate) fn try_sh(&self, line: &str) -> Finished {
        let mut words = line.split_whitespace();
        let mut command = self.command(words.next().expect("a program"));
        command.args(words);
        Process::start(command, line).finish()
    }

    /// Runs a command line, split at spaces, which must succeed. Returns its standard output.
    #[track_caller]
    pub(crate) fn sh(&self, line: &str) -> String {
        let done = self.try_sh(line);
        assert!(done.status.success(), "{line}: {done}");
        done.stdout
    }

    /// Runs `ip`, which must succeed.
    #[track_caller]
    pub(crate) fn ip(&self, arguments: &str) -> String {
        self.sh(&format!("ip {arguments}"))
    }

    /// Writes a file under /proc/sys/net, which shows the namespace of whoever opens it.
    pub(crate) fn sysctl(&self, key: &str, value: &str) {
        let path = format!("/proc/sys/net/{key}");
        self.run(|| std::fs::write(&path, value))
            .unwrap_or_else(|error| panic!("{path}: {error}"));
    }
}
