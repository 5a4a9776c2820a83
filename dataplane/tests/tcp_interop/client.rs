//! A TCP connection of the peer's kernel, and what it sends and expects. Every wait is bounded.

use crate::support::namespace::Namespace;
use crate::support::{PATIENCE, POLL};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Instant;

/// How much is read and written at once.
const PIECE: usize = 1 << 16;

/// A connection to the service.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    to: SocketAddr,
    /// Where in its pattern the next byte to send, and the next to expect, is.
    sent: u64,
    received: u64,
}

impl Client {
    /// Connects from inside `namespace`, within [`PATIENCE`].
    #[track_caller]
    pub(crate) fn connect(namespace: &Namespace, to: SocketAddr) -> Self {
        let stream = namespace
            .run(|| TcpStream::connect_timeout(&to, PATIENCE))
            .unwrap_or_else(|error| panic!("connecting to {to}: {error}"));
        Self::new(stream, to)
    }

    /// Around a stream that is connected to `to`.
    pub(crate) fn new(stream: TcpStream, to: SocketAddr) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("an option");
        stream.set_write_timeout(Some(PATIENCE)).expect("an option");
        Self {
            stream,
            to,
            sent: 0,
            received: 0,
        }
    }

    /// Lets this connection begin at another byte of the pattern.
    pub(crate) fn begin_at(&mut self, offset: u64) {
        (self.sent, self.received) = (offset, offset);
    }

    /// Sends the next `len` bytes of the pattern.
    #[track_caller]
    pub(crate) fn send(&mut self, len: u64) {
        let (mut left, mut piece) = (len, vec![0; PIECE]);
        while left > 0 {
            let len = left.min(PIECE as u64);
            let piece = &mut piece[..usize::try_from(len).expect("a piece")];
            fill(self.sent, piece);
            if let Err(error) = self.stream.write_all(piece) {
                panic!(
                    "sending to {} at byte {} or later: {error}",
                    self.to, self.sent
                );
            }
            self.sent += len;
            left -= len;
        }
    }

    /// Sends as much of the pattern as goes without waiting longer than `patience` for room.
    pub(crate) fn send_until_full(&mut self, patience: std::time::Duration) -> u64 {
        let before = self.sent;
        let stream = &mut self.stream;
        stream.set_write_timeout(Some(patience)).expect("an option");
        let mut piece = vec![0; PIECE];
        loop {
            fill(self.sent, &mut piece);
            match stream.write(&piece) {
                Ok(len) => self.sent += len as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("sending to {}: {error}", self.to),
            }
        }
        stream.set_write_timeout(Some(PATIENCE)).expect("an option");
        self.sent - before
    }

    /// Expects the next `len` bytes of the pattern back.
    #[track_caller]
    pub(crate) fn expect(&mut self, len: u64) {
        let at = self.received;
        self.expect_of(len, |expected| {
            fill(at + expected.0, expected.1);
        });
    }

    /// Expects `len` bytes of the text that the source application sends, from its beginning.
    #[track_caller]
    pub(crate) fn expect_source(&mut self, len: u64) {
        let mut text = SourceText::at(self.received);
        self.expect_of(len, |expected| text.fill(expected.1));
    }

    /// Reads `len` bytes and compares them with what `generate` gives for (offset, length).
    #[track_caller]
    fn expect_of(&mut self, len: u64, mut generate: impl FnMut((u64, &mut [u8]))) {
        let (mut done, mut piece, mut wanted) = (0, vec![0; PIECE], vec![0; PIECE]);
        while done < len {
            let most = usize::try_from(len - done).map_or(PIECE, |left| left.min(PIECE));
            let got = match self.stream.read(&mut piece[..most]) {
                Ok(0) => panic!("{} ended after {} bytes", self.to, self.received),
                Ok(got) => got,
                Err(error) => panic!(
                    "receiving from {} after {} bytes: {error}",
                    self.to, self.received
                ),
            };
            let wanted = &mut wanted[..got];
            generate((done, wanted));
            if piece[..got] != *wanted {
                let pairs = piece[..got].iter().zip(wanted.iter());
                let differs = pairs.take_while(|(one, two)| one == two).count();
                panic!(
                    "{}: byte {} is wrong",
                    self.to,
                    self.received + differs as u64
                );
            }
            done += got as u64;
            self.received += got as u64;
        }
    }

    /// Says that nothing more will be sent.
    #[track_caller]
    pub(crate) fn finish_sending(&mut self) {
        if let Err(error) = self.stream.shutdown(Shutdown::Write) {
            panic!("half-closing to {}: {error}", self.to);
        }
    }

    /// Expects the end of what the service sends, and nothing before it.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        let mut more = [0; 16];
        match self.stream.read(&mut more) {
            Ok(0) => {}
            Ok(len) => panic!("{}: {len} bytes too many: {more:?}", self.to),
            Err(error) => panic!("waiting for the end of {}: {error}", self.to),
        }
    }

    /// Sends `len` bytes and expects them back meanwhile; then both sides close.
    #[track_caller]
    pub(crate) fn echo_all(mut self, len: u64) {
        let sender = self.stream.try_clone().expect("a descriptor");
        let mut sender = Self {
            stream: sender,
            to: self.to,
            sent: self.sent,
            received: 0,
        };
        std::thread::scope(|scope| {
            let sending = scope.spawn(move || {
                sender.send(len);
                sender.finish_sending();
            });
            self.expect(len);
            sending.join().unwrap_or_else(|panic| {
                std::panic::resume_unwind(panic);
            });
        });
        self.expect_end();
    }

    /// Closes with a reset: what is not sent yet is thrown away.
    pub(crate) fn reset(self) {
        rustix::net::sockopt::set_socket_linger(&self.stream, Some(std::time::Duration::ZERO))
            .expect("an option");
    }
}

/// Waits until `namespace` has no connection that is open, half-open or closing; TIME-WAIT does not
/// count.
#[track_caller]
pub(crate) fn until_no_connection(namespace: &Namespace) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = namespace.run(open_connections);
        if left.is_empty() {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "connections that do not end:\n{}",
            left.join("\n")
        );
        std::thread::sleep(POLL);
    }
}

/// Lines of /proc/net/tcp and tcp6 of connections in any state but TIME-WAIT and LISTEN.
fn open_connections() -> Vec<String> {
    /// States by number (include/net/tcp_states.h).
    const TIME_WAIT: &str = "06";
    const LISTEN: &str = "0A";
    let mut open = Vec::new();
    for file in ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"] {
        let text = std::fs::read_to_string(file).expect("procfs");
        for line in text.lines().skip(1) {
            let state = line.split_whitespace().nth(3).expect("a state");
            if ![TIME_WAIT, LISTEN].contains(&state) {
                open.push(line.to_owned());
            }
        }
    }
    open
}

/// The bytes of the pattern from `offset` on: words that look random, each from its place, so that
/// no piece looks like another.
pub(crate) fn fill(offset: u64, out: &mut [u8]) {
    let word = |at: u64| {
        let mut z = at.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        (z ^ (z >> 32)).to_le_bytes()
    };
    let (mut at, mut out) = (offset, out);
    while !out.is_empty() {
        let skip = usize::try_from(at % 8).expect("below 8");
        let bytes = &word(at / 8)[skip..];
        let len = bytes.len().min(out.len());
        let (now, later) = out.split_at_mut(len);
        now.copy_from_slice(&bytes[..len]);
        (at, out) = (at + len as u64, later);
    }
}

/// What the source application sends: the lines of RFC 864, "ring of printable characters": 72
/// characters and CR LF, each line beginning one character further in a ring of 95.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SourceText {
    at: u64,
}

impl SourceText {
    /// From a byte of it on.
    pub(crate) fn at(at: u64) -> Self {
        Self { at }
    }

    /// The next bytes of it.
    pub(crate) fn fill(&mut self, out: &mut [u8]) {
        const LINE: u64 = 74;
        const RING: u64 = 95;
        for byte in out {
            let (line, column) = (self.at / LINE, self.at % LINE);
            *byte = match column {
                72 => b'\r',
                73 => b'\n',
                _ => b' ' + u8::try_from((line + column) % RING).expect("below 95"),
            };
            self.at += 1;
        }
    }
}
