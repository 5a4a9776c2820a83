//! The service's end of the control socket.
//!
//! The socket belongs to whoever runs the service and nobody else may connect (mode 0600). Its path
//! is taken over from a service that died without removing it, but never from one that lives.

use super::{
    calls::ControlHandle,
    protocol::{REQUEST_BYTES_MAX, Request, Response},
};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::{
    fmt, fs, io,
    os::unix::{
        fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixStream as StdUnixStream,
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    task::JoinSet,
};

/// Connections at one time; more wait. An operator and a few scripts need a handful.
const CONNECTIONS_MAX: usize = 16;

/// How long a connection may be silent before it is closed, so that forgotten ones do not use up
/// [`CONNECTIONS_MAX`]. Somebody typing into `socat` needs no longer.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Connections the kernel keeps waiting.
const BACKLOG: i32 = 16;

/// How long another process may hold the directory's lock, which it needs for microseconds while it
/// takes a path over.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// Why there is no control socket. Each names the path.
#[derive(Debug)]
pub enum SocketError {
    /// A service that lives has it.
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// Something else is in its place.
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The kernel takes no path this long for a socket.
    PathTooLong {
        /// The path.
        path: PathBuf,
    },
    /// Another process holds the lock on the directory.
    Locked {
        /// The directory.
        directory: PathBuf,
    },
    /// Something was refused.
    Io {
        /// What.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl fmt::Display for SocketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse { path } => write!(
                f,
                "another dataplane runs with this control socket: {}; stop it with `dataplane \
                 stop`, or set control.socket to another path",
                path.display()
            ),
            Self::NotASocket { path } => write!(
                f,
                "{} exists and is not a socket; remove it, or set control.socket to another path",
                path.display()
            ),
            Self::PathTooLong { path } => write!(
                f,
                "the path of the control socket has {} bytes, but the kernel takes 107: {}",
                path.as_os_str().len(),
                path.display()
            ),
            Self::Locked { directory } => {
                write!(
                    f,
                    "another process holds the lock on {}",
                    directory.display()
                )
            }
            Self::Io { what, path, error } => {
                write!(
                    f,
                    "control socket: cannot {what} {}: {error}",
                    path.display()
                )
            }
        }
    }
}

impl std::error::Error for SocketError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { error, .. } => Some(error),
            Self::InUse { .. }
            | Self::NotASocket { .. }
            | Self::PathTooLong { .. }
            | Self::Locked { .. } => None,
        }
    }
}

/// The listening socket. Its path goes with it.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the path when it was made: only then is it ours to remove.
    identity: (u64, u64),
}

impl Drop for Server {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Server {
    /// Listens at `path`. Missing directories are made (mode 0755). Must be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// A living service has the path, something that is no socket is there, or the kernel refuses.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let io = |what, path: &Path| {
            let path = path.to_owned();
            move |error: io::Error| SocketError::Io { what, path, error }
        };
        let address = SocketAddrUnix::new(path).map_err(|_| SocketError::PathTooLong {
            path: path.to_owned(),
        })?;
        let directory = match path.parent() {
            Some(directory) if !directory.as_os_str().is_empty() => directory,
            _ => Path::new("."),
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)
            .map_err(io("make the directory", directory))?;
        // Two services that start at once must not both find the old socket dead, and one remove
        // what the other has just made.
        let lock = lock(directory)?;
        remove_if_dead(path)?;
        let kind = (AddressFamily::UNIX, SocketType::STREAM);
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(kind.0, kind.1, flags, None)
            .map_err(|errno| io("make", path)(errno.into()))?;
        rustix::net::bind(&socket, &address).map_err(|errno| io("bind", path)(errno.into()))?;
        // Nobody can connect before `listen`, so there is no moment at which the mode is wider.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
            .map_err(io("set the mode of", path))?;
        rustix::net::listen(&socket, BACKLOG)
            .map_err(|errno| io("listen at", path)(errno.into()))?;
        drop(lock);
        let listener = UnixListener::from_std(socket.into()).map_err(io("listen at", path))?;
        let identity = identity(path).map_err(io("look at", path))?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            identity,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Answers requests until it is dropped, together with its connections. Finished connections
    /// are forgotten as new ones come.
    pub async fn serve(self, handle: ControlHandle) {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            let permit = Arc::clone(&room).acquire_owned().await;
            while connections.try_join_next().is_some() {}
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let handle = handle.clone();
                    connections.spawn(async move {
                        if let Err(error) = converse(stream, &handle).await {
                            tracing::debug!(%error, "a control connection broke");
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    // Out of file descriptors: that does not pass by asking again at once.
                    tracing::warn!(%error, "cannot accept a control connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// Answers one connection until it closes or falls silent.
async fn converse(stream: UnixStream, handle: &ControlHandle) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        // One byte more than allowed tells a request that is too long from one that just fits.
        let mut limited = (&mut reader).take(REQUEST_BYTES_MAX as u64 + 1);
        let read = limited.read_until(b'\n', &mut line);
        let Ok(read) = tokio::time::timeout(IDLE_MAX, read).await else {
            return Ok(());
        };
        if read? == 0 {
            return Ok(());
        }
        let too_long = line.len() > REQUEST_BYTES_MAX;
        let response = if too_long {
            Response::Error(format!("a request has at most {REQUEST_BYTES_MAX} bytes"))
        } else {
            match serde_json::from_slice::<Request>(&line) {
                Ok(request) => handle.answer(request).await,
                Err(error) => Response::Error(format!("not a request: {error}")),
            }
        };
        let mut text = serde_json::to_vec(&response)?;
        text.push(b'\n');
        let written = tokio::time::timeout(IDLE_MAX, writer.write_all(&text)).await;
        match written {
            Ok(result) => result?,
            // It does not read what it asked for.
            Err(_) => return Ok(()),
        }
        if too_long {
            return Ok(());
        }
    }
}

/// The lock on a directory, held until the file is dropped. It leaves nothing behind.
fn lock(directory: &Path) -> Result<fs::File, SocketError> {
    let io = |error| SocketError::Io {
        what: "lock",
        path: directory.to_owned(),
        error,
    };
    let file = fs::File::open(directory).map_err(io)?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(fs::TryLockError::WouldBlock) => {
                return Err(SocketError::Locked {
                    directory: directory.to_owned(),
                });
            }
            Err(fs::TryLockError::Error(error)) => return Err(io(error)),
        }
    }
}

/// Makes room at `path` if what is there is a socket nobody listens at.
fn remove_if_dead(path: &Path) -> Result<(), SocketError> {
    let io = |what, error| SocketError::Io {
        what,
        path: path.to_owned(),
        error,
    };
    match fs::symlink_metadata(path) {
        Ok(there) if there.file_type().is_socket() => {}
        Ok(_) => {
            return Err(SocketError::NotASocket {
                path: path.to_owned(),
            });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io("look at", error)),
    }
    match StdUnixStream::connect(path) {
        Ok(_) => Err(SocketError::InUse {
            path: path.to_owned(),
        }),
        // Nobody listens: its service is dead.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|error| io("remove the old", error))
        }
        Err(error) => Err(io("find out who listens at", error)),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}
