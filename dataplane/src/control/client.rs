//! The command line's end of the control socket. Blocking: it has nothing else to do.

use super::protocol::{RESPONSE_BYTES_MAX, Request, Response, SocketQuery};
use crate::observe::{
    counters::Counters, observation::Info, report::LatencyReport, sockets::SocketsReport,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::process::{PidfdFlags, pidfd_open};
use std::{
    fmt,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::{fs::FileTypeExt, net::UnixStream},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How long to wait for an answer: longer than the server waits for its service, so that the server
/// can say what is wrong.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug)]
pub enum ClientError {
    /// There is no socket.
    NotRunning {
        /// Where it should be.
        path: PathBuf,
    },
    /// There is a socket, but nobody listens.
    NobodyListens {
        /// Its path.
        path: PathBuf,
    },
    /// Something else is in its place.
    NotASocket {
        /// Its path.
        path: PathBuf,
    },
    /// The socket is not for us.
    NotAllowed {
        /// Its path.
        path: PathBuf,
    },
    /// The service was asked, and did not answer in time.
    Silent,
    /// The service ended before it answered.
    Closed,
    /// The service was told to end and still runs.
    StillRuns {
        /// How long it was waited for.
        patience: Duration,
    },
    /// What came is no answer to this question: another version speaks there.
    Unintelligible {
        /// What is wrong with it.
        why: String,
    },
    /// The service refused; its own sentence.
    Refused(String),
    /// The connection broke.
    Io {
        /// The socket's path.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRunning { path } => write!(
                f,
                "no dataplane runs with the control socket {}: it does not exist; name another \
                 with --socket or --config",
                path.display()
            ),
            Self::NobodyListens { path } => write!(
                f,
                "no dataplane runs with the control socket {}: the one that made it has died; the \
                 next one takes it over",
                path.display()
            ),
            Self::NotASocket { path } => write!(
                f,
                "{} is not a socket; name the control socket with --socket or --config",
                path.display()
            ),
            Self::NotAllowed { path } => write!(
                f,
                "{} belongs to whoever runs the dataplane; try again as that user, or as root",
                path.display()
            ),
            Self::Silent => {
                write!(
                    f,
                    "the dataplane did not answer within {} s",
                    PATIENCE.as_secs()
                )
            }
            Self::Closed => f.write_str("the dataplane ended before it answered"),
            Self::StillRuns { patience } => write!(
                f,
                "the dataplane was told to end and still runs after {} s; its log says what it \
                 waits for",
                patience.as_secs_f64()
            ),
            Self::Unintelligible { why } => {
                write!(
                    f,
                    "the dataplane's answer is not understood, is it another version? {why}"
                )
            }
            Self::Refused(why) => f.write_str(why),
            Self::Io { path, error } => write!(f, "control socket {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for ClientError {}

/// A connection to a running service.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    path: PathBuf,
}

impl Client {
    /// Connects to the service whose control socket is at `path`.
    ///
    /// # Errors
    /// Nobody listens there, or we may not ask.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let path = path.to_owned();
        let stream = UnixStream::connect(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ClientError::NotRunning { path: path.clone() },
            // The kernel's answer for files of every other kind as well (unix_find_bsd).
            io::ErrorKind::ConnectionRefused if !is_socket(&path) => {
                ClientError::NotASocket { path: path.clone() }
            }
            io::ErrorKind::ConnectionRefused => ClientError::NobodyListens { path: path.clone() },
            io::ErrorKind::PermissionDenied => ClientError::NotAllowed { path: path.clone() },
            _ => ClientError::Io {
                path: path.clone(),
                error,
            },
        })?;
        let patient = stream
            .set_read_timeout(Some(PATIENCE))
            .and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
        patient.map_err(|error| ClientError::Io {
            path: path.clone(),
            error,
        })?;
        Ok(Self {
            stream: BufReader::new(stream),
            path,
        })
    }

    /// What runs, where and how.
    ///
    /// # Errors
    /// There is no answer.
    pub fn info(&mut self) -> Result<Info, ClientError> {
        match self.call(&Request::Info)? {
            Response::Info(info) => Ok(*info),
            other => Err(unexpected(&other)),
        }
    }

    /// Every counter and gauge.
    ///
    /// # Errors
    /// There is no answer.
    pub fn stats(&mut self) -> Result<Counters, ClientError> {
        match self.call(&Request::Stats)? {
            Response::Stats(counters) => Ok(counters),
            other => Err(unexpected(&other)),
        }
    }

    /// Every latency distribution.
    ///
    /// # Errors
    /// There is no answer.
    pub fn latency(&mut self) -> Result<LatencyReport, ClientError> {
        match self.call(&Request::Latency)? {
            Response::Latency(report) => Ok(report),
            other => Err(unexpected(&other)),
        }
    }

    /// TCP connections and listeners.
    ///
    /// # Errors
    /// There is no answer.
    pub fn sockets(&mut self, query: SocketQuery) -> Result<SocketsReport, ClientError> {
        match self.call(&Request::Sockets(query))? {
            Response::Sockets(report) => Ok(report),
            other => Err(unexpected(&other)),
        }
    }

    /// Has the configuration read again; the answer says what changed.
    ///
    /// # Errors
    /// There is no answer, or the new configuration was refused.
    pub fn reload(&mut self) -> Result<String, ClientError> {
        self.order(&Request::Reload)
    }

    /// Has the service drain and end; the answer comes before that. [`end`](Self::end) waits.
    ///
    /// # Errors
    /// There is no answer.
    pub fn stop(&mut self) -> Result<String, ClientError> {
        self.order(&Request::Stop)
    }

    /// Has the service drain and end, and waits until its process is gone, at most `patience`: then
    /// its interface is the kernel's and its ports are free.
    ///
    /// # Errors
    /// There is no answer, or the service still runs.
    pub fn end(mut self, patience: Duration) -> Result<(), ClientError> {
        // Before it is told: its process number cannot be another's while it lives.
        let process = self.process();
        self.stop()?;
        let deadline = Instant::now() + patience;
        let ended = match &process {
            Some(process) => becomes_readable(process, deadline),
            None => self.hangs_up(deadline),
        };
        match ended {
            Ok(true) => Ok(()),
            Ok(false) => Err(ClientError::StillRuns { patience }),
            Err(error) => Err(self.broken(error)),
        }
    }

    /// The service's process; `None` where it cannot be told, as from another container.
    fn process(&self) -> Option<OwnedFd> {
        let peer = rustix::net::sockopt::socket_peercred(self.stream.get_ref()).ok()?;
        pidfd_open(peer.pid, PidfdFlags::empty()).ok()
    }

    /// Waits until the service closes the connection, the last thing it does but for ending.
    fn hangs_up(&mut self, deadline: Instant) -> io::Result<bool> {
        if !becomes_readable(self.stream.get_ref(), deadline)? {
            return Ok(false);
        }
        match self.stream.get_mut().read(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(true),
            read => read.map(|bytes| bytes == 0),
        }
    }

    fn order(&mut self, request: &Request) -> Result<String, ClientError> {
        match self.call(request)? {
            Response::Done(what) => Ok(what),
            other => Err(unexpected(&other)),
        }
    }

    /// Sends a request and waits for its response.
    ///
    /// # Errors
    /// There is no answer, or it is an error.
    pub fn call(&mut self, request: &Request) -> Result<Response, ClientError> {
        let mut line =
            serde_json::to_string(request).map_err(|error| ClientError::Unintelligible {
                why: error.to_string(),
            })?;
        line.push('\n');
        self.exchange(line.as_bytes())
    }

    fn exchange(&mut self, line: &[u8]) -> Result<Response, ClientError> {
        self.stream
            .get_mut()
            .write_all(line)
            .map_err(|error| self.broken(error))?;
        let mut answer = Vec::new();
        let mut limited = (&mut self.stream).take(RESPONSE_BYTES_MAX as u64);
        let read = limited.read_until(b'\n', &mut answer);
        read.map_err(|error| self.broken(error))?;
        if answer.is_empty() {
            return Err(ClientError::Closed);
        }
        match serde_json::from_slice(&answer) {
            Ok(Response::Error(why)) => Err(ClientError::Refused(why)),
            Ok(response) => Ok(response),
            Err(error) => Err(ClientError::Unintelligible {
                why: error.to_string(),
            }),
        }
    }

    fn broken(&self, error: io::Error) -> ClientError {
        match error.kind() {
            // What a timeout is called depends on the system call.
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ClientError::Silent,
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => ClientError::Closed,
            _ => ClientError::Io {
                path: self.path.clone(),
                error,
            },
        }
    }
}

fn is_socket(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

/// Waits until `descriptor` is readable (a process: has ended), at most until `deadline`.
fn becomes_readable(descriptor: &impl AsFd, deadline: Instant) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let mut descriptors = [PollFd::new(descriptor, PollFlags::IN)];
        match poll(&mut descriptors, Some(&timeout)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn unexpected(response: &Response) -> ClientError {
    let kind = match response {
        Response::Info(_) => "info",
        Response::Stats(_) => "stats",
        Response::Latency(_) => "latency",
        Response::Sockets(_) => "sockets",
        Response::Done(_) => "done",
        Response::Error(_) => "error",
    };
    ClientError::Unintelligible {
        why: format!("it answered with {kind}"),
    }
}
