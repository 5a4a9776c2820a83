//! `impair` between two kernels: what it carries arrives, and what it loses is what the seed says.
//! What needs root is skipped by name without it.
//!
//! ```text
//!   left: veth0 10.77.0.1 ═══ left [ middle: impair ] right ═══ veth0 10.77.0.2: right
//! ```
#![allow(clippy::unwrap_used)] // A test that panics is a test that fails.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use bench::impair::decide::{Decider, Direction, Impairment, Probability};
use bench::impair::offload::on_the_wire;
use bench::impair::port::Port;
use bench::netns::{
    CLIENT_V4, CLIENT_V6, INTERFACE, Netns, Process, SERVER_V4, SERVER_V6, available,
};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

const IMPAIR: &str = env!("CARGO_BIN_EXE_impair");

/// Longest wait for anything: generous, for a loaded machine. Never reached when all is well.
const PATIENCE: Duration = Duration::from_secs(30);

/// Two hosts and what is between them.
struct Lab {
    left: Netns,
    middle: Netns,
    right: Netns,
    json: PathBuf,
}

/// A lab, or `None` with a line that says why `test` is skipped.
fn lab(test: &str) -> Option<Lab> {
    match available() {
        Ok(()) => Some(Lab::new(test)),
        Err(reason) => {
            eprintln!("skipped: {test}: {reason}");
            None
        }
    }
}

impl Lab {
    fn new(test: &str) -> Self {
        let json = std::env::temp_dir().join(format!("{test}-{}.json", std::process::id()));
        let lab = Self {
            left: Netns::new("impair-l").unwrap(),
            middle: Netns::new("impair-m").unwrap(),
            right: Netns::new("impair-r").unwrap(),
            json,
        };
        // The middle is a wire: its kernel must not talk. The ends are quiet unless they are asked,
        // so that frames can be numbered.
        for netns in [&lab.left, &lab.middle, &lab.right] {
            for what in ["default", "all"] {
                netns
                    .sysctl(&format!("net.ipv6.conf.{what}.disable_ipv6"), "1")
                    .unwrap();
            }
        }
        for (host, near, mac, address) in [
            (&lab.left, "left", "02:00:00:00:00:01", CLIENT_V4),
            (&lab.right, "right", "02:00:00:00:00:02", SERVER_V4),
        ] {
            let far = host.name();
            lab.middle
                .ip([
                    "link", "add", near, "type", "veth", "peer", "name", INTERFACE, "address", mac,
                    "netns", far,
                ])
                .unwrap();
            lab.middle.ip(["link", "set", near, "up"]).unwrap();
            let address = format!("{address}/24");
            host.ip(["addr", "add", &address, "dev", INTERFACE])
                .unwrap();
            host.ip(["link", "set", INTERFACE, "up"]).unwrap();
        }
        for (host, address, mac) in [
            (&lab.left, SERVER_V4, "02:00:00:00:00:02"),
            (&lab.right, CLIENT_V4, "02:00:00:00:00:01"),
        ] {
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
            ])
            .unwrap();
        }
        lab
    }

    fn with_ipv6(self) -> Self {
        for (host, address) in [(&self.left, CLIENT_V6), (&self.right, SERVER_V6)] {
            host.sysctl(&format!("net.ipv6.conf.{INTERFACE}.disable_ipv6"), "0")
                .unwrap();
            let address = format!("{address}/64");
            host.ip(["addr", "add", &address, "dev", INTERFACE, "nodad"])
                .unwrap();
        }
        self
    }

    fn impair(&self, options: &str) -> Process {
        let mut command = self.middle.command(IMPAIR);
        command
            .args(["left", "right"])
            .args(options.split_whitespace());
        command.arg("--json").arg(&self.json);
        Process::start(&mut command, PATIENCE).unwrap()
    }

    /// Ends it and reads what it counted, a direction each.
    fn finish(&self, mut impair: Process) -> [Value; 2] {
        let (status, said) = impair.stop();
        assert!(status.is_some_and(|status| status.success()), "{said}");
        let json: Value = serde_json::from_slice(&fs::read(&self.json).unwrap()).unwrap();
        let [one, two] = json["directions"].as_array().unwrap().as_slice() else {
            panic!("two directions: {json}");
        };
        for direction in [one, two] {
            // Accidents would make every other number meaningless.
            for count in ["missed", "unusable", "refused", "dropped_memory_full"] {
                assert_eq!(direction[count], 0, "{count}: {direction}");
            }
        }
        [one.clone(), two.clone()]
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.json);
    }
}

/// Runs `job` on a thread in the namespace; sockets it returns stay inside.
fn inside<T: Send>(netns: &Netns, job: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let namespace = File::open(netns.path()).unwrap();
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            job()
        });
        thread.join().unwrap()
    })
}

fn udp(netns: &Netns, local: impl Into<IpAddr> + Send, port: u16) -> UdpSocket {
    let local = SocketAddr::new(local.into(), port);
    let socket = inside(netns, || UdpSocket::bind(local)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    socket
}

fn count(direction: &Value, what: &str) -> u64 {
    direction[what].as_u64().unwrap()
}

#[test]
fn everything_arrives_through_a_perfect_wire() {
    let Some(lab) = lab("everything_arrives_through_a_perfect_wire") else {
        return;
    };
    let lab = lab.with_ipv6();
    let impair = lab.impair("");
    for target in [SERVER_V4.to_string(), SERVER_V6.to_string()] {
        for size in ["0", "56", "1400", "9000"] {
            lab.left
                .run(
                    "ping",
                    [
                        "-n", "-c", "3", "-i", "0.01", "-W", "10", "-s", size, &target,
                    ],
                )
                .unwrap();
        }
    }
    let [to_right, to_left] = lab.finish(impair);
    for direction in [to_right, to_left] {
        // Six pings of each size, the largest in seven fragments.
        assert!(
            count(&direction, "received") >= 3 * 6 + 6 * 7,
            "{direction}"
        );
        assert_eq!(direction["received"], direction["sent"], "{direction}");
    }
}

/// The kernel hands over segments of up to 64 KiB without checksums, as it does to a NIC: they must
/// arrive as frames that its peer takes.
#[test]
fn large_sends_arrive_as_frames() {
    let Some(lab) = lab("large_sends_arrive_as_frames") else {
        return;
    };
    const BYTES: usize = 8 << 20;
    let lab = lab.with_ipv6();
    let content: Vec<u8> = (0..BYTES)
        .map(|at| (at * 31 + at / 251).to_le_bytes()[0])
        .collect();
    for address in [IpAddr::from(SERVER_V4), IpAddr::from(SERVER_V6)] {
        let impair = lab.impair("");
        let to = SocketAddr::new(address, 5001);
        let listener = inside(&lab.right, || std::net::TcpListener::bind(to)).unwrap();
        let input = std::env::temp_dir().join(format!("impair-nc-{}", std::process::id()));
        fs::write(&input, &content).unwrap();
        let mut nc = lab.left.command("nc");
        nc.args(["-N", "-w", "20", &address.to_string(), "5001"])
            .stdin(Stdio::from(File::open(&input).unwrap()))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let Ok(mut nc) = nc.spawn() else {
            eprintln!("skipped: large_sends_arrive_as_frames: needs nc (package netcat-openbsd)");
            return;
        };
        let (mut connection, _) = accept(&listener);
        let mut received = Vec::new();
        std::io::Read::read_to_end(&mut connection, &mut received).unwrap();
        drop(connection);
        nc.wait().unwrap();
        fs::remove_file(&input).unwrap();
        assert!(
            received == content,
            "{} bytes of {BYTES}, or others",
            received.len()
        );
        let [to_right, _] = lab.finish(impair);
        let (frames, bytes) = (
            count(&to_right, "received"),
            count(&to_right, "received_bytes"),
        );
        assert!(bytes > BYTES as u64, "{to_right}");
        // 1448 bytes each at most; and more than that on average would be no frames of a wire.
        assert!(frames >= BYTES as u64 / 1448, "{to_right}");
        assert!(bytes / frames <= 1514, "{to_right}");
    }
}

fn accept(listener: &std::net::TcpListener) -> (std::net::TcpStream, SocketAddr) {
    listener.set_nonblocking(true).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        match listener.accept() {
            Ok((stream, from)) => {
                stream.set_nonblocking(false).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                return (stream, from);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(5));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn what_is_lost_is_what_the_seed_says() {
    let Some(lab) = lab("what_is_lost_is_what_the_seed_says") else {
        return;
    };
    const FRAMES: u16 = 2000;
    let impairment = Impairment {
        loss: Probability::new(0.1).unwrap(),
        duplicate: Probability::new(0.05).unwrap(),
        drop_index: vec![3..=3],
        ..Impairment::default()
    };
    let mut decider = Decider::new(impairment, 77, Direction::AToB);
    let expected: Vec<u16> = (0..FRAMES)
        .flat_map(|number| {
            let fate = decider.decide();
            let copies = match (fate.lost, fate.is_duplicated) {
                (Some(_), _) => 0,
                (None, is_duplicated) => 1 + usize::from(is_duplicated),
            };
            std::iter::repeat_n(number, copies)
        })
        .collect();
    let sender = udp(&lab.left, CLIENT_V4, 4000);
    let receiver = udp(&lab.right, SERVER_V4, 4000);
    for _ in 0..2 {
        let impair =
            lab.impair("--seed 77 --loss 10% --duplicate 5% --drop-index 3 --direction a-to-b");
        let mut received = Vec::new();
        let mut buffer = [0; 8];
        for number in 0..FRAMES {
            sender
                .send_to(&number.to_be_bytes(), (SERVER_V4, 4000))
                .unwrap();
            // A few at a time: the receiver's buffer must not be what loses.
            if number % 100 == 99 || number + 1 == FRAMES {
                let sent = expected.iter().take_while(|other| **other <= number);
                let until = sent.count();
                while received.len() < until && receiver.recv(&mut buffer).is_ok() {
                    received.push(u16::from_be_bytes([buffer[0], buffer[1]]));
                }
            }
        }
        assert_eq!(received, expected);
        // The other direction is unharmed.
        for _ in 0..50 {
            receiver.send_to(b"back", (CLIENT_V4, 4000)).unwrap();
            assert_eq!(sender.recv(&mut buffer).unwrap(), 4);
        }
        let [to_right, to_left] = lab.finish(impair);
        assert_eq!(count(&to_right, "received"), u64::from(FRAMES));
        assert_eq!(count(&to_right, "lost_listed"), 1);
        assert_eq!(count(&to_right, "sent"), expected.len() as u64);
        assert_eq!(count(&to_left, "sent"), 50);
    }
}

/// A flipped bit is seen by the kernel's checksums, which drops the packet: nothing wrong arrives.
#[test]
fn damaged_packets_do_not_arrive() {
    let Some(lab) = lab("damaged_packets_do_not_arrive") else {
        return;
    };
    let impair = lab.impair("--corrupt 100% --direction a-to-b");
    let sender = udp(&lab.left, CLIENT_V4, 4000);
    let receiver = udp(&lab.right, SERVER_V4, 4000);
    for _ in 0..200 {
        sender.send_to(&[0x55; 100], (SERVER_V4, 4000)).unwrap();
    }
    assert!(receiver.recv(&mut [0; 200]).is_err());
    let [to_right, _] = lab.finish(impair);
    assert_eq!(count(&to_right, "corrupted"), 200);
    assert_eq!(count(&to_right, "sent"), 200);
}

#[test]
fn delay_is_what_ping_sees() {
    let Some(lab) = lab("delay_is_what_ping_sees") else {
        return;
    };
    let impair = lab.impair("--delay 20 --jitter 5");
    let shown = lab
        .left
        .run(
            "ping",
            [
                "-n",
                "-c",
                "10",
                "-i",
                "0.05",
                "-W",
                "10",
                &SERVER_V4.to_string(),
            ],
        )
        .unwrap();
    lab.finish(impair);
    // rtt min/avg/max/mdev = 40.123/…
    let (_, rtt) = shown.split_once("mdev = ").unwrap();
    let least: f64 = rtt.split('/').next().unwrap().parse().unwrap();
    assert!(least >= 40.0, "{shown}");
}

#[test]
fn ctrl_c_ends_it_with_its_counters_and_its_capture() {
    let Some(lab) = lab("ctrl_c_ends_it_with_its_counters_and_its_capture") else {
        return;
    };
    let capture = lab.json.with_extension("pcapng");
    let mut impair = lab.impair(&format!("--pcap {}", capture.display()));
    let to = SERVER_V4.to_string();
    lab.left
        .run("ping", ["-n", "-c", "2", "-i", "0.01", "-W", "10", &to])
        .unwrap();
    let pid = Pid::from_raw(i32::try_from(impair.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    wait_for_end(pid);
    let (status, said) = impair.stop();
    assert!(status.is_some_and(|status| status.success()), "{said}");
    for says in ["a-to-b: 2 frames", "b-to-a: 2 frames", " 2 out, 0 lost"] {
        assert!(said.contains(says), "{said}");
    }
    // Four frames in, four out.
    let mut tcpdump = Command::new("tcpdump");
    match tcpdump.arg("-n").arg("-r").arg(&capture).output() {
        Ok(shown) => {
            let text = String::from_utf8_lossy(&shown.stdout);
            assert_eq!(text.matches("ICMP echo request").count(), 4, "{text}");
            assert_eq!(text.matches("ICMP echo reply").count(), 4, "{text}");
        }
        Err(_) => eprintln!(
            "skipped: ctrl_c_ends_it_with_its_counters_and_its_capture: needs tcpdump (package \
             tcpdump) to read the capture"
        ),
    }
    fs::remove_file(&capture).unwrap();
}

#[test]
fn it_ends_by_itself_and_when_an_interface_goes() {
    let Some(lab) = lab("it_ends_by_itself_and_when_an_interface_goes") else {
        return;
    };
    let ended = lab
        .middle
        .run(IMPAIR, ["left", "right", "--duration", "0.1"])
        .unwrap();
    assert!(ended.contains("a-to-b: 0 frames"), "{ended}");
    let refused = lab.middle.run(IMPAIR, ["left", "elsewhere"]).unwrap_err();
    assert!(
        refused.to_string().contains("interface elsewhere"),
        "{refused}"
    );
    let mut impair = lab.impair("");
    lab.middle.ip(["link", "del", "left"]).unwrap();
    let pid = Pid::from_raw(i32::try_from(impair.id()).unwrap()).unwrap();
    wait_for_end(pid);
    let (status, said) = impair.stop();
    assert_eq!(status.and_then(|status| status.code()), Some(1), "{said}");
    assert!(said.contains("left was removed"), "{said}");
}

/// Waits for the end of a child, which must come by itself: nobody signals it, nobody reaps it.
#[track_caller]
fn wait_for_end(pid: Pid) {
    let path = format!("/proc/{}/stat", pid.as_raw_nonzero());
    let has_ended = || fs::read_to_string(&path).map_or(true, |stat| stat.contains(") Z "));
    let deadline = Instant::now() + PATIENCE;
    while !has_ended() {
        assert!(Instant::now() < deadline, "it goes on");
        thread::sleep(Duration::from_millis(10));
    }
}

/// The kernel keeps the outer tag of a frame beside it; both tags must be in it again when it leaves.
#[test]
fn tagged_frames_keep_their_tags() {
    let Some(lab) = lab("tagged_frames_keep_their_tags") else {
        return;
    };
    let impair = lab.impair("");
    let mut frames = Vec::new();
    for tags in [
        &[0x81, 0, 0x20, 7][..],
        &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 7][..],
    ] {
        let mut frame = vec![2; 12];
        frame.extend(tags);
        // A type for experiments, and what no kernel answers.
        frame.extend([0x88, 0xb5]);
        frame.extend((0..100).map(|byte: u8| byte));
        frames.push(frame);
    }
    let sender = inside(&lab.left, || Port::open(INTERFACE)).unwrap();
    let mut receiver = inside(&lab.right, || Port::open(INTERFACE)).unwrap();
    assert_eq!(sender.send(&frames).unwrap(), 0);
    let (mut received, mut scratch) = (Vec::new(), Vec::new());
    let deadline = Instant::now() + PATIENCE;
    while received.len() < frames.len() {
        assert!(Instant::now() < deadline, "{} arrived", received.len());
        receiver
            .receive(|arrival| {
                let bytes = arrival.bytes.unwrap();
                assert!(arrival.tag.is_some() && bytes.len() <= frames[1].len() - 4);
                on_the_wire(
                    &arrival.offload,
                    arrival.tag,
                    bytes,
                    &mut scratch,
                    |frame| {
                        received.push(frame.to_vec());
                    },
                )
                .unwrap();
            })
            .unwrap();
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(received, frames);
    let [to_right, _] = lab.finish(impair);
    let bytes: usize = frames.iter().map(Vec::len).sum();
    assert_eq!(count(&to_right, "received_bytes"), bytes as u64);
}
