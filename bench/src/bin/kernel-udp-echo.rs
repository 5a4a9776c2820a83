//! `kernel-udp-echo`: what a UDP echo service on kernel sockets can do on one core. The benchmarks
//! measure the dataplane against it, so it does what makes such a server fast: batches of 64 for one
//! system call each way, replies sent from the buffers they arrived in, one pinned thread, a large
//! receive buffer, and busy polling where it is asked for.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bench::batch::{MessageBatch, Peers, Wait};
use bench::clock::now_ns;
use bench::cpu::pin_current_thread;
use bench::signal::stop_flag;
use bench::socket::{RECEIVE_BUFFER_BYTES, busy_poll, raise_receive_buffer};
use clap::Parser;
use rustix::net::{AddressFamily, SocketType, bind, socket, sockopt};

/// Echoes UDP datagrams over kernel sockets, in batches, on one core.
///
/// The reply to a datagram leaves from the address the kernel chooses: on a host with several
/// addresses, listen on one of them.
#[derive(Debug, Parser)]
#[command(name = "kernel-udp-echo", version)]
struct Arguments {
    /// Address to listen on. (The brackets of the help text would be a link here.)
    #[arg(
        long,
        help = "Address to listen on; [::] takes IPv4 as well",
        value_name = "ADDR:PORT",
        default_value = "[::]:7"
    )]
    listen: SocketAddr,
    /// Pin to this CPU
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,
    /// Poll for this long before sleeping: in the program, and in the device's queue (SO_BUSY_POLL)
    #[arg(long, value_name = "USECS")]
    busy_poll: Option<u32>,
    /// Datagrams per system call
    #[arg(long, value_name = "N", default_value = "64", value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch: u16,
    /// Longest datagram that is echoed, in bytes; longer ones are counted and dropped
    #[arg(long, value_name = "BYTES", default_value = "2048", value_parser = clap::value_parser!(u32).range(1..=65_535))]
    max_size: u32,
    /// Receive buffer, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = RECEIVE_BUFFER_BYTES)]
    receive_buffer: usize,
}

/// Longest a blocking receive lasts, which bounds how long SIGTERM goes unnoticed.
const RECEIVE_TIMEOUT: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    match Arguments::parse().serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("kernel-udp-echo: {reason}");
            ExitCode::FAILURE
        }
    }
}

impl Arguments {
    fn serve(&self) -> Result<(), String> {
        let stop = stop_flag().map_err(|error| format!("cannot handle signals: {error}"))?;
        if let Some(cpu) = self.cpu {
            pin_current_thread(cpu)?;
        }
        let socket = listen(self.listen)
            .map_err(|error| format!("cannot listen on {}: {error}", self.listen))?;
        let setup = |error| format!("cannot set up the socket: {error}");
        let buffer = raise_receive_buffer(&socket, self.receive_buffer).map_err(setup)?;
        socket
            .set_read_timeout(Some(RECEIVE_TIMEOUT))
            .map_err(setup)?;
        if let Some(microseconds) = self.busy_poll {
            busy_poll(&socket, microseconds)
                .map_err(|error| format!("cannot busy-poll (needs CAP_NET_ADMIN): {error}"))?;
        }
        let address = socket.local_addr().map_err(setup)?;
        eprintln!("ready: echoing on {address}, receive buffer {buffer} bytes");
        let counts = self
            .echo(&socket, &stop)
            .map_err(|error| format!("receiving: {error}"))?;
        let Counts {
            received,
            batches,
            sent,
            oversized,
            unsent,
        } = counts;
        eprintln!(
            "received {received} datagrams in {batches} batches, echoed {sent}; \
             {oversized} were too long, {unsent} could not be sent"
        );
        Ok(())
    }

    fn echo(&self, socket: &UdpSocket, stop: &AtomicBool) -> io::Result<Counts> {
        let capacity = usize::from(self.batch);
        let mut batch = MessageBatch::new(capacity, self.max_size as usize, Peers::Recorded);
        let spin_ns = u64::from(self.busy_poll.unwrap_or(0)) * 1000;
        let mut spin_until_ns = 0;
        let mut counts = Counts::default();
        while !stop.load(Ordering::Relaxed) {
            let wait = if spin_ns > 0 && now_ns() < spin_until_ns {
                Wait::Never
            } else {
                Wait::ForOne
            };
            match batch.receive(socket.as_fd(), capacity, wait) {
                Ok(count) => {
                    counts.received += count as u64;
                    counts.batches += 1;
                    reply(&mut batch, socket, count, &mut counts);
                    if spin_ns > 0 {
                        spin_until_ns = now_ns().saturating_add(spin_ns);
                    }
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => {}
                    _ => return Err(error),
                },
            }
        }
        Ok(counts)
    }
}

#[derive(Debug, Default)]
struct Counts {
    received: u64,
    batches: u64,
    sent: u64,
    oversized: u64,
    unsent: u64,
}

/// Sends a received batch back, in one call unless something in it cannot be sent.
fn reply(batch: &mut MessageBatch, socket: &UdpSocket, count: usize, counts: &mut Counts) {
    let mut next = 0;
    while next < count {
        if batch.truncated(next) {
            counts.oversized += 1;
            next += 1;
            continue;
        }
        let end = (next..count)
            .find(|&index| batch.truncated(index))
            .unwrap_or(count);
        match batch.send_back(socket.as_fd(), next..end) {
            Ok(taken) => {
                counts.sent += taken as u64;
                next += taken;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The send buffer is full, or the peer is unreachable: UDP promises nothing, and to wait
            // would make the others wait.
            Err(_) => {
                counts.unsent += 1;
                next += 1;
            }
        }
    }
}

/// A bound socket; on an IPv6 address it takes IPv4 peers as well, whatever `bindv6only` says.
fn listen(address: SocketAddr) -> io::Result<UdpSocket> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = socket(family, SocketType::DGRAM, None)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    bind(&socket, &address)?;
    Ok(socket.into())
}
