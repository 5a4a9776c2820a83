//! The Linux kernel on both sides of `impair`.
//!
//! ```text
//!   reader: veth0 10.77.0.1 ═══ left [ middle: impair ] right ═══ veth0 10.77.0.2: writer
//! ```

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use bench::netns::{CLIENT_V4, INTERFACE, Netns, Process, SERVER_V4};
use rustix::net::sockopt::set_tcp_congestion;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{ANSWER_BYTES, DELAY, QUEUE_FRAMES, RATE_BITS_PER_S, Trouble};

const PORT: u16 = 7000;
/// Longest wait for a program to start, or an answer to come.
const PATIENCE: Duration = Duration::from_secs(30);

struct Lab {
    reader: Netns,
    writer: Netns,
    _middle: Netns,
    _impair: Process,
}

impl Lab {
    fn new(impair: &Path, options: &[String]) -> Result<Self, String> {
        Self::build(impair, options).map_err(|error| format!("cannot set up the link: {error}"))
    }

    fn build(impair: &Path, options: &[String]) -> std::io::Result<Self> {
        let reader = Netns::new("goodput-r")?;
        let writer = Netns::new("goodput-w")?;
        let middle = Netns::new("goodput-m")?;
        // The middle is a wire: its kernel must not talk. And the ends talk of nothing else, so that
        // frames can be numbered.
        for netns in [&reader, &writer, &middle] {
            for what in ["default", "all"] {
                netns.sysctl(&format!("net.ipv6.conf.{what}.disable_ipv6"), "1")?;
            }
        }
        // The ends learn nothing of one connection for the next.
        for netns in [&reader, &writer] {
            netns.sysctl("net.ipv4.tcp_no_metrics_save", "1")?;
        }
        let ends = [
            (&reader, "left", "02:00:00:00:00:01", CLIENT_V4),
            (&writer, "right", "02:00:00:00:00:02", SERVER_V4),
        ];
        for (host, near, mac, address) in ends {
            let far = host.name();
            middle.ip([
                "link", "add", near, "type", "veth", "peer", "name", INTERFACE, "address", mac,
                "netns", far,
            ])?;
            middle.ip(["link", "set", near, "up"])?;
            let address = format!("{address}/24");
            host.ip(["addr", "add", &address, "dev", INTERFACE])?;
            host.ip(["link", "set", INTERFACE, "up"])?;
        }
        for (host, (_, _, mac, address)) in [(&reader, ends[1]), (&writer, ends[0])] {
            let address = address.to_string();
            host.ip([
                "neigh",
                "replace",
                &address,
                "lladdr",
                mac,
                "dev",
                INTERFACE,
                "nud",
                "permanent",
            ])?;
        }
        let mut command = middle.command(impair);
        command.args(["left", "right"]).args(options);
        let impair = Process::start(&mut command, PATIENCE)?;
        Ok(Self {
            reader,
            writer,
            _middle: middle,
            _impair: impair,
        })
    }
}

fn options(trouble: &Trouble, seed: u64) -> Vec<String> {
    let mut options = vec![
        format!("--seed={seed}"),
        format!("--rate={RATE_BITS_PER_S}"),
        format!("--delay={}ms", DELAY.as_millis()),
        format!("--queue={QUEUE_FRAMES}"),
        format!("--loss={}", trouble.loss),
    ];
    if let Some((share, by)) = trouble.reorder {
        options.push(format!("--reorder={share}:{}ms", by.as_millis()));
    }
    options
}

/// Does something on a thread of its own in a namespace: sockets stay in the one they were made in.
fn within<T: Send>(
    netns: &Netns,
    work: impl FnOnce() -> std::io::Result<T> + Send,
) -> Result<T, String> {
    let path = netns.path();
    let enter = || {
        let namespace = std::fs::File::open(path)?;
        let network = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), network)?;
        work()
    };
    let done = thread::scope(|scope| scope.spawn(enter).join());
    done.map_err(|_| "a thread panicked".to_owned())?
        .map_err(|error| error.to_string())
}

/// Listens, and writes `bytes` to the first who comes; until then the receiver gets the socket's end.
fn writer(netns: &Netns) -> Result<TcpListener, String> {
    within(netns, || {
        let listener = TcpListener::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, PORT))?;
        // Accepted sockets inherit it.
        set_tcp_congestion(&listener, "cubic")?;
        Ok(listener)
    })
}

fn connect(netns: &Netns) -> Result<(TcpStream, Instant), String> {
    within(netns, || {
        let start = Instant::now();
        let target = SocketAddr::from((SERVER_V4, PORT));
        let stream = TcpStream::connect_timeout(&target, PATIENCE)?;
        stream.set_read_timeout(Some(Duration::from_millis(20)))?;
        Ok((stream, start))
    })
}

/// Writes to the first who comes, at most `bytes`, until `stop` says something.
fn write_to_first(listener: &TcpListener, mut bytes: u64, stop: &mpsc::Receiver<()>) {
    let Ok((mut stream, _)) = listener.accept() else {
        return;
    };
    let block = [0x5a; 64 << 10];
    let _ = stream.set_write_timeout(Some(Duration::from_millis(100)));
    while stop.try_recv() == Err(mpsc::TryRecvError::Empty) {
        let len = block
            .len()
            .min(usize::try_from(bytes).unwrap_or(usize::MAX));
        if len == 0 {
            thread::sleep(Duration::from_millis(1));
            continue;
        }
        match stream.write(&block[..len]) {
            Ok(written) => bytes -= written as u64,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// Runs one connection; `until` says when enough was read. Returns the bytes and the time from the
/// SYN to the last of them.
fn converse(
    lab: &Lab,
    bytes: u64,
    until: impl Fn(u64, Duration) -> bool,
) -> Result<(u64, Duration), String> {
    let listener = writer(&lab.writer)?;
    thread::scope(|scope| {
        let (stop, stopped) = mpsc::channel();
        scope.spawn(move || write_to_first(&listener, bytes, &stopped));
        let result = connect(&lab.reader).and_then(|(mut stream, start)| {
            let mut block = [0; 64 << 10];
            let (mut read, mut last) = (0, Duration::ZERO);
            while !until(read, start.elapsed()) {
                match stream.read(&mut block) {
                    Ok(0) => return Err("the writer has closed".into()),
                    Ok(taken) => {
                        read += taken as u64;
                        last = start.elapsed();
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error.to_string()),
                }
            }
            Ok((read, last))
        });
        let _ = stop.send(());
        result
    })
}

/// Mbit/s that an application reads in the first `time` of a connection.
pub(crate) fn goodput(
    impair: &Path,
    trouble: &Trouble,
    seed: u64,
    time: Duration,
) -> Result<f64, String> {
    let lab = Lab::new(impair, &options(trouble, seed))?;
    let (bytes, _) = converse(&lab, u64::MAX, |_, elapsed| elapsed >= time)?;
    Ok(bytes as f64 * 8.0 / time.as_secs_f64() / 1e6)
}

/// From the SYN to the last byte of a short answer, in milliseconds.
pub(crate) fn answer_ms(impair: &Path, drop_last: bool, seed: u64) -> Result<f64, String> {
    let trouble = Trouble {
        name: "",
        loss: 0.0,
        reorder: None,
    };
    let mut options = options(&trouble, seed);
    if drop_last {
        // Frames to the writer are fewer than that, and to the reader the first is the SYN,ACK.
        options.push(format!("--drop-index={}", 1 + ANSWER_BYTES / 1448));
    }
    let lab = Lab::new(impair, &options)?;
    let bytes = ANSWER_BYTES as u64;
    let (_, last) = converse(&lab, bytes, |read, elapsed| {
        read == bytes || elapsed > PATIENCE
    })?;
    Ok(last.as_secs_f64() * 1e3)
}
