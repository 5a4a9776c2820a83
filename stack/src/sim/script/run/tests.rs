//! A host that replays what it was given, under scripts that are right and wrong about it.

use super::*;
use crate::sim::script::host::{Errno, SocketOption, WOULD_BLOCK};
use crate::sim::script::parse::parse;
use alloc::rc::Rc;
use alloc::vec;
use core::cell::RefCell;

/// What the fake host's verbs answer, and what it saw.
#[derive(Default)]
struct Fake {
    now: Instant,
    /// Sent once the time has come, or at the next turn if it has no time.
    to_send: VecDeque<(Option<Instant>, Vec<u8>)>,
    out: Vec<Vec<u8>>,
    seen: Rc<RefCell<Vec<String>>>,
    readable: Vec<u8>,
    counter: u64,
}

impl Fake {
    fn saw(&self, what: String) {
        self.seen.borrow_mut().push(what);
    }
}

impl TcpHost for Fake {
    type Socket = u8;
    type Listener = u8;

    fn listen(
        &mut self,
        local: SocketAddr,
        backlog: Option<u32>,
        options: &[SocketOption],
    ) -> Result<u8, Errno> {
        self.saw(format!("listen {local} {backlog:?} {options:?}"));
        Ok(1)
    }

    fn accept(&mut self, _: u8) -> Option<u8> {
        Some(2)
    }

    fn unlisten(&mut self, _: u8) {}

    fn connect(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        _: &[SocketOption],
    ) -> Result<u8, Errno> {
        self.saw(format!("connect {local} {remote}"));
        match remote.ip().is_multicast() {
            true => Err("ENETUNREACH"),
            false => Ok(3),
        }
    }

    fn write(&mut self, _: u8, bytes: &[u8]) -> Result<usize, Errno> {
        self.saw(format!("write {}", bytes.len()));
        Ok(bytes.len().min(100))
    }

    fn read(&mut self, _: u8, bytes: &mut [u8]) -> Result<usize, Errno> {
        let len = bytes.len().min(self.readable.len());
        if len == 0 {
            return Err(WOULD_BLOCK);
        }
        bytes[..len].copy_from_slice(&self.readable[..len]);
        self.readable.drain(..len);
        Ok(len)
    }

    fn shutdown(&mut self, _: u8) -> Result<(), Errno> {
        Err("ENOTCONN")
    }

    fn close(&mut self, _: u8) {}

    fn abort(&mut self, _: u8) {}

    fn set(&mut self, _: u8, option: SocketOption) -> Result<(), Errno> {
        self.saw(format!("set {option:?}"));
        Ok(())
    }

    fn take_error(&mut self, _: u8) -> Option<Errno> {
        None
    }

    fn state(&mut self, _: SocketAddr, _: SocketAddr) -> Option<&'static str> {
        Some("ESTABLISHED")
    }

    fn info(&mut self, _: SocketAddr, _: SocketAddr, name: &str) -> Option<u64> {
        (name == "cwnd").then_some(10)
    }

    fn counter(&self, name: &str) -> Option<u64> {
        (name == "tcp_checksum").then_some(self.counter)
    }

    fn inject(&mut self, frame: &[u8]) {
        match packet::tcp(frame) {
            Ok(Some((_, tcp))) => {
                self.saw(format!("segment {} {}", tcp.seq, tcp.payload.len()));
                self.readable.extend_from_slice(tcp.payload);
            }
            other => {
                self.counter += 1;
                self.saw(format!("frame {other:?}"));
            }
        }
    }

    fn advance(&mut self, to: Instant) {
        assert!(to >= self.now, "time goes on");
        self.now = to;
        while let Some((at, _)) = self.to_send.front()
            && at.is_none_or(|at| at <= to)
        {
            self.out.extend(self.to_send.pop_front().map(|it| it.1));
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.to_send.front().and_then(|it| it.0)
    }

    fn emitted(&mut self) -> Vec<Vec<u8>> {
        core::mem::take(&mut self.out)
    }
}

const HOST_ISN: u32 = 4_000_000_000;
const PEER_ISN: u32 = 7;

/// A segment of the host; numbers as they are in the header.
fn sent(flags: u16, seq: u32, ack: u32, options: &[u8], payload: usize) -> Vec<u8> {
    let first = relative(seq, HOST_ISN);
    let segment = Segment {
        source_port: LOCAL_PORT,
        destination_port: PEER_PORT,
        seq,
        ack,
        flags,
        window: 1000,
        options: options.into(),
        payload: (first..).take(payload).map(host_byte).collect(),
        ..Segment::default()
    };
    segment.frame(&Addresses::V4.reversed()).unwrap()
}

/// SYN-ACK at the first turn, 100 bytes at 0.25.
fn fake() -> Fake {
    let syn_ack = sent(
        flag::SYN | flag::ACK,
        HOST_ISN,
        PEER_ISN + 1,
        &[2, 4, 5, 180, 8, 10, 0, 0, 1, 0, 0, 0, 0, 9],
        0,
    );
    let later = START + Duration::from_millis(250);
    let data = sent(
        flag::ACK | flag::PSH,
        HOST_ISN + 1,
        PEER_ISN + 1,
        &[1, 1, 8, 10, 0, 0, 1, 250, 0, 0, 0, 9],
        100,
    );
    Fake {
        to_send: [(None, syn_ack), (Some(later), data)].into(),
        ..Fake::default()
    }
}

/// Runs the lines, with the fake's first turn after the first of them.
fn try_script(host: Fake, lines: &str) -> Result<(), Failure> {
    let text = format!("ip v4\nisn {PEER_ISN}\ntolerance 1ms\n{lines}");
    let script = parse(&text).unwrap().remove(0);
    let waits = host.to_send;
    let mut host = Fake {
        to_send: VecDeque::new(),
        ..host
    };
    run("fake", &script, |setup| {
        host.now = setup.start;
        // `remember_counters` is a turn too: what has no time is sent a little later.
        let soon = setup.start + Duration::from_micros(10);
        host.to_send = waits
            .into_iter()
            .map(|(at, frame)| (at.or(Some(soon)), frame))
            .collect();
        Ok(host)
    })
}

fn why(host: Fake, lines: &str) -> String {
    let failure = try_script(host, lines).unwrap_err();
    failure.to_string()
}

#[test]
fn a_script_that_is_right_passes() {
    let host = fake();
    let seen = Rc::clone(&host.seen);
    let result = try_script(
        host,
        "option nodelay on
         0     listen backlog 3
         0     < S 0:0(0) win 65535 <mss 1460,TS val 9 ecr 0>
         +0    > S. 0:0(0) ack 1 <mss 1460,TS val 0 ecr 9>
         +0.1  < . 1:11(10) ack 1 <TS val 10 ecr *>
         +0    < . 11:31(20) ack 1 <TS val 10 ecr 0>
         +0    accept
         +0    read 30
         +0    read none
         +0    write 100
         0.250 > P. 1:101(100) ack 1 <TS val 250 ecr 9>
         +0    write 300 takes 100
         +0    shutdown error ENOTCONN
         +0    set ttl 5
         +0    connect [b] to 224.0.0.1 error ENETUNREACH
         +0    expect state ESTABLISHED
         +0    expect info cwnd 10
         +0    expect drop tcp_checksum 0
         +0    < . 31:32(1) ack 1 {checksum bad}
         +0    expect drop tcp_checksum 1
         +1    expect none",
    );
    result.unwrap_or_else(|failure| panic!("{failure}"));
    let seen = seen.borrow();
    assert_eq!(seen[0], "listen 192.0.2.1:8080 Some(3) [NoDelay(true)]");
    assert_eq!(seen[1], "segment 7 0");
    assert_eq!(seen[2..4], ["segment 8 10", "segment 18 20"]);
    let expected = vec!["write 100", "write 300", "set Ttl(5)"];
    assert_eq!(seen[4..7], expected);
    assert_eq!(seen[7], "connect 192.0.2.1:0 224.0.0.1:40001");
    assert!(seen[8].contains("wrong TCP checksum"));
}

#[test]
fn every_mistake_is_explained() {
    let opening = "0 listen\n0 < S 0:0(0) <mss 1460>\n";
    for (lines, expected) in [
        ("+0 > S. 0:0(0) ack 2", "ack is 1 (=8), not 2"),
        ("+0 > S. 0:0(0) ack 1 <mss 1400,*>", "among its options"),
        ("+0.1 > S. *", "s too early"),
        ("+0 > S. *\n+0.1 > P. *", "the host sent nothing"),
        ("+0 > S. *\n+0 > [b] P. *", "the host sent nothing"),
        (
            "+0 > [b] S. *",
            "it is for 192.0.2.2:40000, not for [b] 192.0.2.2:40001",
        ),
        ("+0.1 expect none", "what was sent: 1, not 0"),
        ("+0.1 wait", "nobody expected"),
        ("+0 > S. *\n+1 wait", "only 0 were written"),
        (
            "+0 > S. *\n+0 accept\n+0 read 1",
            "0 bytes could be read, then EAGAIN",
        ),
        (
            "+0 > S. *\n+0 read 1",
            "[a] was neither accepted nor connected",
        ),
        (
            "+0 > S. *\n+0 < . 1:2(1) {fill 0}\n+0 accept\n+0 read 1",
            "byte 1 is 0x00",
        ),
        (
            "+0 > S. *\n+0 expect state CLOSED",
            "the state is ESTABLISHED",
        ),
        ("+0 > S. *\n+0 expect info rto 1", "there is no `rto`"),
        (
            "+0 > S. *\n+0 expect drop nothing 1",
            "there is no counter `nothing`",
        ),
        ("+0 > S. *\n+0 expect info cwnd ..9", "cwnd: 10, not ..9"),
        (
            "+0 > S. *\n+0 connect [b] error EPERM",
            "it worked, instead of EPERM",
        ),
        (
            "+0 > S. *\n+0 accept\n+0 write 101",
            "100 bytes were taken, not 101",
        ),
        ("+0 > S. *\n0.1 wait\n0 wait", "it is 0.100000 already"),
    ] {
        let why = why(fake(), &format!("{opening}{lines}"));
        assert!(why.contains(expected), "{lines}:\n{why}");
    }
}

#[test]
fn a_failure_shows_what_was_said() {
    let why = why(
        fake(),
        "0 listen\n0 < S 0:0(0) win 9 <mss 1460>\n+0 > R 0:0(0)",
    );
    for expected in [
        "line 6 at 0.000010: the flags differ",
        "  > [a] S. 0:0(0) ack 1 win 1000 <mss 1460,TS val 0 ecr 9",
        "    +0 > R 0:0(0)",
        "    0.000000 < [a] S 0:0(0) win 9 <mss 1460>",
        "    0.000010 > [a] S. 0:0(0) ack 1",
        "all frames: ",
    ] {
        assert!(why.contains(expected), "{expected} is not in\n{why}");
    }
}

#[test]
fn a_wrong_frame_fails_whatever_the_script_says() {
    let mut host = fake();
    let (_, frame) = host.to_send.front_mut().unwrap();
    *frame.last_mut().unwrap() ^= 1;
    let why = why(host, "0 listen\n+1 skip");
    assert!(why.contains("wrong TCP checksum"), "{why}");
}

#[test]
fn wrong_content_is_seen() {
    let mut host = fake();
    let (_, frame) = host.to_send.back_mut().unwrap();
    let segment = sent(flag::ACK, HOST_ISN + 2, PEER_ISN + 1, &[], 10);
    *frame = segment;
    let right = "0 listen\n0 < S 0:0(0)\n+0 > S. *\n+0 accept\n+0 write 100\n0.25 > . 2:12(10)";
    try_script(host, right).unwrap();
    let mut host = fake();
    let (_, frame) = host.to_send.back_mut().unwrap();
    let mut bad = Segment {
        source_port: LOCAL_PORT,
        destination_port: PEER_PORT,
        seq: HOST_ISN + 2,
        ack: PEER_ISN + 1,
        flags: flag::ACK,
        ..Segment::default()
    };
    bad.payload = vec![host_byte(2), host_byte(3) ^ 1];
    *frame = bad.frame(&Addresses::V4.reversed()).unwrap();
    let why = why(host, right);
    assert!(why.contains("a wrong byte at 3"), "{why}");
}

#[test]
fn icmp_quotes_what_the_host_sent() {
    let host = fake();
    let seen = Rc::clone(&host.seen);
    let lines = "0 listen\n0 < S 0:0(0)\n+0 > S. *\n+0 < icmp too_big mtu 1300 seq 1\n+0 wait";
    try_script(host, lines).unwrap();
    // An ICMP error is no segment: the fake counts it as another frame.
    assert!(seen.borrow().last().unwrap().starts_with("frame Ok(None)"));
}
