//! Programs that run in a namespace.

pub(crate) use crate::driver_support::namespace::Namespace;

use super::process::{Finished, Process};

impl Namespace {
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
}
