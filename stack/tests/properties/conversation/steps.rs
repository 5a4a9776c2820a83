//! What a byte of a program means.

use super::choices::Choices;
use super::lead::State;
use super::peer::{Bytes, Oddity, Peer, Segment};
use super::{PEERS, World};
use stack::sim::packet::flag::{ACK, CWR, ECE, FIN, PSH, RST, SYN, URG};
use stack::tcp::listener::CongestionKind;
use stack::time::Duration;
use std::net::SocketAddr;

/// Steps of one program, at most: a fuzzer that finds out that more is more goes on for ever.
const STEPS_MAX: usize = 400;

/// What applications write, at most at once.
static TEXT: [u8; 8192] = [0x5a; 8192];

impl World {
    /// Runs steps until the bytes end.
    pub fn steps(&mut self, choices: &mut Choices<'_>) {
        for _ in 0..STEPS_MAX {
            if choices.is_empty() {
                break;
            }
            self.step(choices);
        }
    }

    /// One step.
    pub fn step(&mut self, choices: &mut Choices<'_>) {
        let what = choices.byte();
        let index = choices.below(PEERS);
        match what {
            0..=39 => self.right_segment(index, choices),
            40..=119 => {
                let segment = wrong_segment(&self.peers[index], choices);
                let frame = self.peers[index].frame(&segment);
                self.receive(frame.as_slice());
                self.turn();
            }
            120..=189 => self.application(choices),
            190..=219 => self.time(choices),
            220..=234 => {
                let state = State::ALL[choices.below(State::ALL.len())];
                let how = choices.byte();
                self.bring(index, state, how);
            }
            235..=239 => self.icmp(index, choices),
            240..=243 => self.burst(index, choices),
            244..=246 => self.flip(index, choices),
            247 if index == 0 => self.come_and_go(choices),
            247 => self.lazy = !self.lazy,
            248 => {
                self.starve(true);
                self.turn();
            }
            249 => self.starve(false),
            250 => self.room = choices.below(4),
            _ => self.room = usize::MAX,
        }
    }

    /// What a peer that keeps to the rules might send.
    fn right_segment(&mut self, index: usize, choices: &mut Choices<'_>) {
        let flags = choices.of(&[
            ACK,
            ACK | PSH,
            ACK,
            ACK | PSH,
            FIN | ACK,
            RST | ACK,
            SYN,
            SYN | ACK,
        ]);
        let len = match flags & (SYN | RST) {
            0 => choices.of(&[0, 0, 1, 100, 1400]),
            _ => 0,
        };
        let mut segment = self.peers[index].segment(flags, len);
        segment.window = choices.of(&[0x1000, 0xffff, 0, 1, 64, 0x1000]);
        self.peers[index].advance(&segment);
        let frame = self.peers[index].frame(&segment);
        self.receive(frame.as_slice());
        self.turn();
    }

    /// Many segments before the stack has its turn.
    fn burst(&mut self, index: usize, choices: &mut Choices<'_>) {
        let count = usize::from(choices.byte()) * 4;
        let mut segment = wrong_segment(&self.peers[index], choices);
        let step = u32::try_from(choices.of(&[0, 1, 700, 1400, 3000])).expect("short");
        let mut peer = self.peers[index];
        let ports = choices.byte() & 1 != 0;
        for number in 0..count {
            if ports {
                peer.port = 10_000 + u16::try_from(number).expect("at most 1,020");
            }
            let frame = peer.frame(&segment);
            self.receive(frame.as_slice());
            segment.seq = segment.seq.wrapping_add(step);
        }
        self.turn();
    }

    /// A right segment, some of whose bits are not: those of the frame, whatever the checksums say.
    fn flip(&mut self, index: usize, choices: &mut Choices<'_>) {
        let segment = self.peers[index].segment(ACK | PSH, choices.below(64));
        let mut frame = self.peers[index].frame(&segment);
        for _ in 0..1 + choices.below(3) {
            let at = usize::from(choices.byte()) % frame.len;
            frame.bytes[at] ^= choices.byte();
        }
        frame.len -= choices.of(&[0, 0, 0, 1, 20]).min(frame.len);
        self.receive(frame.as_slice());
        self.turn();
    }

    /// Routers say things about what the stack sent.
    fn icmp(&mut self, index: usize, choices: &mut Choices<'_>) {
        let kind = choices.byte();
        let mtu = choices.of(&[1400, 1280, 576, 68, 0, 1499, 9000]);
        let mut quoted: Bytes = self.last_sent;
        quoted.len = quoted.len.min(choices.of(&[576, 576, 48, 28, 60]));
        // What the quoted packet was: the error comes over the same version.
        let mut peer = self.peers[index];
        peer.v6 = quoted.bytes[0] >> 4 == 6;
        let (kind, rest) = match (peer.v6, kind & 3) {
            (true, 0) => ((1, 0), 0),
            (true, _) => ((2, 0), mtu),
            (false, 0) => ((3, 1), 0),
            (false, 1) => ((3, 3), 0),
            (false, _) => ((3, 4), mtu),
        };
        if kind.0 == 3 && choices.byte() & 7 == 0 {
            // Of a segment that was never sent.
            quoted.bytes[24] ^= 0x40;
        }
        let frame = peer.icmp(kind, rest, quoted.as_slice());
        self.receive(frame.as_slice());
        self.turn();
    }

    fn application(&mut self, choices: &mut Choices<'_>) {
        let verb = choices.below(16);
        if self.handles.is_empty() {
            let how = choices.byte();
            return self.connect(choices.below(PEERS), how);
        }
        let which = choices.below(self.handles.len());
        let (id, now) = (self.handles[which], self.now);
        let stack = &mut self.stack;
        let len = choices.of(&[1, 64, 1000, 8192]);
        match verb {
            0..=3 => {
                if let Ok(sent) = stack.tcp_send(id, now, &TEXT[..len]) {
                    assert!(sent <= len);
                }
            }
            4..=6 => {
                let _ = stack.tcp_receive_with(id, now, |bytes| bytes.len());
            }
            7 => {
                let mut calls = 0;
                let read = stack.tcp_receive_with(id, now, |bytes| {
                    calls += 1;
                    len.min(bytes.len())
                });
                assert!(read.unwrap_or(0) <= len * calls.max(1));
            }
            8 => {
                let _ = stack.tcp_echo(id, now);
            }
            9 => {
                let _ = stack.tcp_shutdown(id, now);
            }
            10 => {
                self.handles.swap_remove(which);
                stack.tcp_close(id, now);
            }
            11 => {
                self.handles.swap_remove(which);
                stack.tcp_abort(id, now);
            }
            12 => {
                let (readable, writable) = (stack.tcp_readable(id), stack.tcp_writable(id));
                assert!(writable <= self.config.send_buffer);
                assert!(!stack.tcp_is_at_end(id) || readable == 0);
            }
            // A name that means nothing any more, perhaps.
            13 => stack.tcp_close(id, now),
            _ => {
                let how = choices.byte();
                return self.connect(choices.below(PEERS), how);
            }
        }
        self.turn();
    }

    /// An application opens connections and gives them up before the stack has its turn.
    fn come_and_go(&mut self, choices: &mut Choices<'_>) {
        let (count, how) = (choices.byte(), choices.byte());
        let index = choices.below(PEERS);
        for number in 0..count {
            let (_, mut remote) = self.ends(index);
            remote.set_port(20_000 + u16::from(number));
            let local = SocketAddr::new(self.ends(index).0.ip(), 0);
            let congestion = CongestionKind::Cubic;
            let now = self.now;
            let id = self.stack.tcp_connect(local, remote, congestion, true, now);
            let Ok(id) = id else {
                continue;
            };
            if number & how == 0 {
                self.keep(id);
            } else {
                self.stack.tcp_abort(id, now);
            }
        }
        self.turn();
    }

    fn time(&mut self, choices: &mut Choices<'_>) {
        let ms = match choices.below(12) {
            0 => 0,
            1 => 1,
            2 => 10,
            3 => 45,
            4 => 200,
            5 => 1000,
            6 => 7000,
            7 => 31_000,
            8 => 70_000,
            // From timer to timer.
            _ => {
                for _ in 0..choices.below(8) {
                    let next = self.stack.tcp_next_deadline().unwrap_or(self.now);
                    self.advance(next.saturating_since(self.now));
                }
                return;
            }
        };
        self.advance(Duration::from_millis(ms));
    }
}

/// Near the places that matter in sequence space: where the peer is, where the stack is, the edges of
/// windows, and the other side of the world.
fn number(peer: &Peer, choices: &mut Choices<'_>) -> u32 {
    let base = choices.of(&[peer.seq, peer.ack, peer.una, peer.seq, peer.ack, 0]);
    let offset = match choices.byte() {
        0..=79 => 0,
        80..=119 => u32::from(choices.byte() % 4),
        120..=149 => u32::from(choices.byte() % 4).wrapping_neg(),
        150..=179 => u32::from(choices.word() % 4000),
        180..=209 => u32::from(choices.word() % 4000).wrapping_neg(),
        210..=229 => u32::from(choices.word()),
        230..=239 => 1 << 31,
        _ => u32::from(choices.word()) << 16 | u32::from(choices.word()),
    };
    base.wrapping_add(offset)
}

/// A segment of any kind: flags, numbers, window, options, lengths, checksum.
fn wrong_segment(peer: &Peer, choices: &mut Choices<'_>) -> Segment {
    let flags = match choices.byte() {
        0..=99 => ACK,
        100..=129 => choices.of(&[FIN | ACK, RST, SYN, SYN | ACK, RST | ACK, ACK | URG, 0, FIN]),
        130..=159 => choices.of(&[ACK | ECE, ACK | CWR, ACK | ECE | CWR, SYN | ECE | CWR]),
        _ => choices.word() & 0x1ff,
    };
    let len = choices.of(&[0, 0, 1, 17, 500, 1400]);
    let mut segment = peer.segment(flags, len);
    if choices.chance(150) {
        segment.seq = number(peer, choices);
    }
    if choices.chance(150) {
        segment.ack = number(peer, choices);
    }
    segment.window = choices.of(&[0x1000, 0xffff, 0, 1, 100, 0x4000]);
    if flags & URG != 0 {
        segment.urgent = choices.word();
    }
    segment.tos = choices.of(&[0, 0, 2, 3, 1, 0xff]);
    options(&mut segment, peer, choices);
    segment.oddity = match choices.byte() {
        0..=219 => Oddity::None,
        220..=225 => Oddity::Checksum(choices.word() | 1),
        226..=231 => Oddity::Incomplete,
        232..=239 => Oddity::DataOffset(choices.byte()),
        240..=247 => Oddity::Cut(choices.below(64)),
        _ => Oddity::PortZero,
    };
    segment
}

/// Mostly those that belong there; or none, too many, old ones, SACK of anything, nonsense.
fn options(segment: &mut Segment, peer: &Peer, choices: &mut Choices<'_>) {
    match choices.byte() {
        0..=119 => {}
        120..=149 => segment.no_options(),
        150..=169 => {
            segment.no_options();
            let (value, echo) = (number(peer, choices), number(peer, choices));
            segment.timestamps(value, echo);
        }
        170..=184 => {
            segment.no_options();
            let age = choices.word();
            let value = peer.clock.wrapping_sub(age.into());
            segment.timestamps(value, peer.echo.unwrap_or(0));
        }
        185..=219 => {
            if segment.options_len > 12 {
                segment.no_options();
            }
            for _ in 0..1 + choices.below(3) {
                let left = number(peer, choices);
                let right = left.wrapping_add(choices.of(&[1, 100, 1400, 3000, 0]));
                segment.sack(left, right);
            }
        }
        220..=234 => {
            segment.no_options();
            let mss = choices.of(&[[0, 0], [0, 1], [2, 0x18], [0xff, 0xff], [0, 48]]);
            segment.option(&[2, 4, mss[0], mss[1]]);
            segment.option(&[3, 3, choices.byte(), 1]);
            segment.option(&[4, 2, 34, 2]);
        }
        _ => {
            segment.no_options();
            for _ in 0..choices.below(40) {
                let byte = choices.of(&[0, 1, 2, 3, 4, 5, 8, 10, 34, 255]);
                segment.option(&[byte]);
            }
        }
    }
}
