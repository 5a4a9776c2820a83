//! Kernel sockets: what the service is tested from, and what it must leave alone.

use super::namespace::Namespace;
use super::{PATIENCE, POLL};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A connected UDP socket of a kernel. Datagrams of other senders do not reach it, so that whatever
/// it receives came from the address it asked.
pub(crate) struct Udp(UdpSocket);

/// How long a request waits before it is sent again, by [`Udp::ask`].
const RESEND: Duration = Duration::from_millis(200);

impl Udp {
    #[track_caller]
    pub(crate) fn connect(namespace: &Namespace, local: SocketAddr, to: SocketAddr) -> Self {
        let open = || {
            let socket = UdpSocket::bind(local)?;
            socket.connect(to)?;
            Ok::<_, std::io::Error>(socket)
        };
        match namespace.run(open) {
            Ok(socket) => Self(socket),
            Err(error) => panic!("a socket from {local} to {to}: {error}"),
        }
    }

    /// Sends; what the kernel says of earlier datagrams (ICMP errors) is not this one's failure.
    pub(crate) fn send(&self, payload: &[u8]) {
        for _ in 0..3 {
            match self.0.send(payload) {
                Ok(_) => return,
                Err(error) if is_report(error.kind()) => {}
                Err(_) => return,
            }
        }
    }

    /// The next datagram, if one comes within `patience`.
    pub(crate) fn receive(&self, patience: Duration) -> Option<Vec<u8>> {
        let deadline = Instant::now() + patience;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = left.max(Duration::from_millis(1));
            self.0.set_read_timeout(Some(left)).expect("a timeout");
            match self.0.recv(&mut buffer) {
                Ok(len) => {
                    buffer.truncate(len);
                    return Some(buffer);
                }
                Err(_) if Instant::now() < deadline => {}
                Err(_) => return None,
            }
        }
    }

    /// Sends `payload` once and expects it back, unchanged: nothing may be lost.
    #[track_caller]
    pub(crate) fn echoes(&self, payload: &[u8]) {
        self.send(payload);
        let answer = self.receive(PATIENCE);
        let answer = answer.unwrap_or_else(|| panic!("{} bytes were not echoed", payload.len()));
        assert_eq!(answer.len(), payload.len(), "the echo's length");
        assert!(
            answer == payload,
            "the echo of {} bytes differs",
            payload.len()
        );
    }

    /// Sends `payload` again and again until something comes back, which must come. For when
    /// packets may be lost, as around changes of the link.
    #[track_caller]
    pub(crate) fn ask(&self, payload: &[u8]) -> Vec<u8> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            self.send(payload);
            if let Some(answer) = self.receive(RESEND) {
                // Late answers must not be taken for those of the next request.
                while self.receive(POLL).is_some() {}
                return answer;
            }
        }
        panic!("no answer from {:?}", self.0.peer_addr());
    }

    /// Whether the kernel over there says that nobody listens (ICMP port unreachable). Answers that
    /// are still under way are thrown away.
    pub(crate) fn is_refused(&self) -> bool {
        let _ = self.0.send(b"anybody?");
        self.0.set_read_timeout(Some(RESEND)).expect("a timeout");
        let mut buffer = [0; 64];
        matches!(self.0.recv(&mut buffer), Err(error) if error.kind() == ErrorKind::ConnectionRefused)
    }
}

fn is_report(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable
    )
}

/// How often a server's thread looks whether to end.
const LOOK: Duration = Duration::from_millis(20);

/// A server on a kernel socket, in a thread of its own; ends when it is dropped.
pub(crate) struct Server {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What [`Server::udp`] puts before the payload it sends back: an answer that begins so came from the
/// kernel, not from the service.
pub(crate) const KERNEL: &[u8] = b"kernel:";

impl Server {
    /// Answers every datagram with [`KERNEL`] and the datagram.
    #[track_caller]
    pub(crate) fn udp(namespace: &Namespace, local: &str) -> Self {
        let socket = namespace
            .run(|| UdpSocket::bind(local))
            .unwrap_or_else(|error| panic!("{local}: {error}"));
        socket.set_read_timeout(Some(LOOK)).expect("a timeout");
        let mut buffer = vec![0; 1 << 16];
        Self::serve(move || {
            // Nobody asked within LOOK, or ICMP said that somebody has gone.
            let Ok((len, from)) = socket.recv_from(&mut buffer) else {
                return;
            };
            // Whoever waits for it will notice.
            let _ = socket.send_to(&[KERNEL, &buffer[..len]].concat(), from);
        })
    }

    /// Sends back what it receives on each connection, up to the first pause.
    #[track_caller]
    pub(crate) fn tcp(namespace: &Namespace, local: &str) -> Self {
        let listener = namespace
            .run(|| TcpListener::bind(local))
            .unwrap_or_else(|error| panic!("{local}: {error}"));
        listener.set_nonblocking(true).expect("an option");
        let echo = |mut connection: TcpStream| {
            connection.set_nonblocking(false)?;
            connection.set_read_timeout(Some(PATIENCE))?;
            let mut buffer = [0; 4096];
            let len = connection.read(&mut buffer)?;
            connection.write_all(&buffer[..len])
        };
        Self::serve(move || match listener.accept() {
            // Whoever waits for it will notice.
            Ok((connection, _)) => drop(echo(connection)),
            Err(_) => std::thread::sleep(LOOK),
        })
    }

    fn serve(mut one: impl FnMut() + Send + 'static) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&end);
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                one();
            }
        });
        Self {
            end,
            thread: Some(thread),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Sends `payload` over TCP from `namespace` and expects it back.
#[track_caller]
pub(crate) fn tcp_echoes(namespace: &Namespace, to: &str, payload: &[u8]) {
    let to: SocketAddr = to.parse().expect("an address");
    let exchange = || {
        let mut connection = TcpStream::connect_timeout(&to, PATIENCE)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        connection.write_all(payload)?;
        let mut answer = vec![0; payload.len()];
        connection.read_exact(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    };
    match namespace.run(exchange) {
        Ok(answer) => assert_eq!(answer, payload),
        Err(error) => panic!("TCP to {to}: {error}"),
    }
}
