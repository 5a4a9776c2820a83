//! The applications on kernel sockets: what the tests are checked against.

use crate::client::SourceText;
use crate::support::PATIENCE;
use crate::support::namespace::Namespace;
use rustix::net::sockopt;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Echo, discard and source on their ports; end when dropped.
pub(crate) struct Reference {
    end: Arc<AtomicBool>,
}

impl Reference {
    pub(crate) fn start(namespace: &Namespace) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        for (port, application) in [(7, echo as fn(TcpStream)), (9, discard), (19, source)] {
            let listener = namespace
                .run(|| TcpListener::bind(("::", port)))
                .unwrap_or_else(|error| panic!("port {port}: {error}"));
            listener.set_nonblocking(true).expect("an option");
            let told = Arc::clone(&end);
            std::thread::spawn(move || {
                while !told.load(Ordering::Relaxed) {
                    match listener.accept() {
                        Ok((connection, _)) => {
                            std::thread::spawn(move || serve(connection, application));
                        }
                        Err(_) => std::thread::sleep(Duration::from_millis(1)),
                    }
                }
            });
        }
        Self { end }
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
    }
}

fn serve(connection: TcpStream, application: fn(TcpStream)) {
    // Nothing waits for ever: not even threads nobody waits for.
    let is_bounded = connection
        .set_nonblocking(false)
        .and_then(|()| connection.set_read_timeout(Some(PATIENCE)))
        .and_then(|()| connection.set_write_timeout(Some(PATIENCE)))
        // RFC 6093 §5: urgent data stays in line.
        .and_then(|()| Ok(sockopt::set_socket_oobinline(&connection, true)?));
    if is_bounded.is_ok() {
        application(connection);
    }
}

fn echo(mut connection: TcpStream) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match connection.read(&mut buffer) {
            Ok(0) => return,
            Ok(len) if connection.write_all(&buffer[..len]).is_ok() => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            _ => return,
        }
    }
}

fn discard(mut connection: TcpStream) {
    let mut buffer = vec![0; 1 << 16];
    while connection.read(&mut buffer).is_ok_and(|len| len > 0) {}
}

fn source(mut connection: TcpStream) {
    let (mut text, mut buffer) = (SourceText::default(), vec![0; 1 << 16]);
    loop {
        text.fill(&mut buffer);
        if connection.write_all(&buffer).is_err() {
            return;
        }
    }
}
