//! What the application does in a script, and what it expects to find.

use super::{Emitted, Runner, host_byte, peer_byte};
use crate::sim::script::host::{Errno, TcpHost, WOULD_BLOCK};
use crate::sim::script::number::Pattern;
use crate::sim::script::parse::{Action, Outcome, Reading};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Compares how a verb ended with how it was expected to.
fn judge(outcome: &Outcome, result: Result<(), Errno>) -> Result<(), String> {
    match (outcome, result) {
        (Outcome::Done, Ok(())) => Ok(()),
        (Outcome::Done, Err(errno)) => Err(format!("it failed with {errno}")),
        (Outcome::Error(wanted), Err(errno)) if wanted == "*" || wanted == errno => Ok(()),
        (Outcome::Error(wanted), Err(errno)) => {
            Err(format!("it failed with {errno}, not with {wanted}"))
        }
        (Outcome::Error(wanted), Ok(())) => Err(format!("it worked, instead of {wanted}")),
    }
}

impl<H: TcpHost> Runner<'_, H> {
    fn socket(&mut self, label: &str) -> Result<H::Socket, String> {
        let socket = self.connection(label).socket;
        socket.ok_or_else(|| format!("[{label}] was neither accepted nor connected"))
    }

    pub(super) fn verb(&mut self, label: &str, action: &Action) -> Result<(), String> {
        match action {
            Action::Inject(_) | Action::InjectIcmp(_) | Action::Expect(_) | Action::Wait => Ok(()),
            Action::Listen {
                port,
                backlog,
                outcome,
            } => {
                let address = self.script.addresses().destination;
                let local = SocketAddr::new(address, *port);
                let result = self.host.listen(local, *backlog, &self.script.options);
                if let Ok(listener) = result {
                    self.listeners.insert(label.into(), listener);
                }
                judge(outcome, result.map(|_| ()))
            }
            Action::Unlisten => {
                let listener = self.listeners.remove(label);
                let listener = listener.ok_or_else(|| format!("[{label}] does not listen"))?;
                self.host.unlisten(listener);
                Ok(())
            }
            Action::Connect {
                to,
                from,
                unbound,
                outcome,
            } => self.connect(label, *to, (*from, *unbound), outcome),
            Action::Accept { is_expected } => self.accept(label, *is_expected),
            Action::Write {
                bytes,
                takes,
                outcome,
            } => self.write(label, *bytes, *takes, outcome),
            Action::Read(reading) => self.read(label, reading),
            Action::Shutdown(outcome) => {
                let socket = self.socket(label)?;
                judge(outcome, self.host.shutdown(socket))
            }
            Action::Close => {
                let socket = self.socket(label)?;
                self.host.close(socket);
                Ok(())
            }
            Action::Abort => {
                let socket = self.socket(label)?;
                self.host.abort(socket);
                Ok(())
            }
            Action::Set(option) => {
                let socket = self.socket(label)?;
                judge(&Outcome::Done, self.host.set(socket, *option))
            }
            Action::ExpectState(wanted) => {
                let (local, peer) = self.ends(label);
                let state = self.host.state(local, peer).unwrap_or("CLOSED");
                match state == wanted {
                    true => Ok(()),
                    false => Err(format!("the state is {state}")),
                }
            }
            Action::ExpectInfo(name, wanted) => {
                let (local, peer) = self.ends(label);
                let value = self.host.info(local, peer, name);
                let value = value.ok_or_else(|| format!("there is no `{name}` to be known"))?;
                within(name, value, *wanted)
            }
            Action::ExpectCounter(name, wanted) => {
                let value = self.host.counter(name).unwrap_or(0);
                let before = self.counters.get(name).copied().unwrap_or(0);
                within(name, value.wrapping_sub(before), *wanted)
            }
            Action::ExpectError(wanted) => {
                let socket = self.socket(label)?;
                let error = self.host.take_error(socket);
                let is_so = match (wanted.as_deref(), error) {
                    (None, None) | (Some("*"), Some(_)) => true,
                    (wanted, error) => wanted == error,
                };
                match is_so {
                    true => Ok(()),
                    false => Err(format!("the error is {}", error.unwrap_or("none"))),
                }
            }
            Action::ExpectCount(wanted) => {
                let sent: Vec<Emitted> = self.queue.drain(..).collect();
                within("what was sent", sent.len() as u64, *wanted)
            }
            Action::Skip => {
                self.queue.clear();
                Ok(())
            }
        }
    }

    fn ends(&mut self, label: &str) -> (SocketAddr, SocketAddr) {
        let connection = self.connection(label);
        (connection.local, connection.peer)
    }

    fn connect(
        &mut self,
        label: &str,
        to: Option<IpAddr>,
        (from, unbound): (u16, bool),
        outcome: &Outcome,
    ) -> Result<(), String> {
        let options = &self.script.options;
        let address = self.script.addresses().destination;
        let unspecified = match address {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let connection = self.connection(label);
        if let Some(to) = to {
            connection.peer.set_ip(to);
        }
        connection.local = SocketAddr::new(address, from);
        let remote = connection.peer;
        let local = SocketAddr::new(if unbound { unspecified } else { address }, from);
        let result = self.host.connect(local, remote, options);
        if let Ok(socket) = result {
            self.connection(label).socket = Some(socket);
        }
        judge(outcome, result.map(|_| ()))
    }

    fn accept(&mut self, label: &str, is_expected: bool) -> Result<(), String> {
        // Of several listeners the one of the connection's port is meant; with one, that one.
        let listener = match self.listeners.get(label) {
            Some(listener) => *listener,
            None => *self.listeners.values().next().ok_or("nobody listens")?,
        };
        match (self.host.accept(listener), is_expected) {
            (Some(socket), true) => {
                self.connection(label).socket = Some(socket);
                Ok(())
            }
            (None, false) => Ok(()),
            (None, true) => Err("there is no connection to be accepted".into()),
            (Some(_), false) => Err("a connection was there to be accepted".into()),
        }
    }

    fn write(
        &mut self,
        label: &str,
        bytes: usize,
        takes: Option<usize>,
        outcome: &Outcome,
    ) -> Result<(), String> {
        let socket = self.socket(label)?;
        let written = self.connection(label).written;
        let len = i64::try_from(bytes).unwrap_or(i64::MAX);
        let content: Vec<u8> = (written + 1..=written + len).map(host_byte).collect();
        let result = self.host.write(socket, &content);
        if let Ok(taken) = result {
            self.connection(label).written += i64::try_from(taken).unwrap_or(i64::MAX);
            let wanted = takes.unwrap_or(bytes);
            if *outcome == Outcome::Done && taken != wanted {
                return Err(format!("{taken} bytes were taken, not {wanted}"));
            }
        }
        judge(outcome, result.map(|_| ()))
    }

    fn read(&mut self, label: &str, wanted: &Reading) -> Result<(), String> {
        let socket = self.socket(label)?;
        let bytes = match wanted {
            Reading::Bytes(bytes) => *bytes,
            Reading::End | Reading::Nothing | Reading::Error(_) => 1,
        };
        let mut buffer = alloc::vec![0; bytes];
        let (mut filled, mut error) = (0, None);
        while filled < bytes && error.is_none() {
            match self.host.read(socket, &mut buffer[filled..]) {
                Ok(0) => error = Some("the end"),
                Ok(read) => filled += read,
                Err(errno) => error = Some(errno),
            }
        }
        let connection = self.connection(label);
        let first = connection.read + 1;
        let content = (first..).zip(&buffer[..filled]);
        let wrong = content
            .clone()
            .find(|(seq, byte)| peer_byte(*seq) != **byte);
        connection.read += i64::try_from(filled).unwrap_or(i64::MAX);
        if let Some((seq, byte)) = wrong {
            return Err(format!("byte {seq} is {byte:#04x}, not what the peer sent"));
        }
        let is_so = match (wanted, error) {
            (Reading::Bytes(bytes), _) => filled == *bytes,
            (Reading::End, Some("the end")) => filled == 0,
            (Reading::Nothing, Some(errno)) => filled == 0 && errno == WOULD_BLOCK,
            (Reading::Error(wanted), Some(errno)) => {
                filled == 0
                    && errno != "the end"
                    && errno != WOULD_BLOCK
                    && (wanted == "*" || wanted == errno)
            }
            _ => false,
        };
        match (is_so, error) {
            (true, _) => Ok(()),
            (false, None) => Err(format!("{filled} bytes could be read")),
            (false, Some(errno)) => Err(format!("{filled} bytes could be read, then {errno}")),
        }
    }
}

fn within(name: &str, value: u64, wanted: Pattern) -> Result<(), String> {
    let number = i64::try_from(value).unwrap_or(i64::MAX);
    match wanted.matches(number) {
        true => Ok(()),
        false => Err(format!("{name}: {value}, not {wanted}")),
    }
}
