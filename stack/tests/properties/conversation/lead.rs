//! How a connection is brought to each state of RFC 9293 §3.3.2.

use super::peer::Peer;
use super::{LISTENERS, World};
use stack::sim::packet::flag::{ACK, FIN, RST, SYN};
use stack::tcp::TcpId;
use stack::tcp::config::SynCookies;
use stack::tcp::listener::CongestionKind;
use std::net::SocketAddr;

/// The states, and where a connection in SYN-RECEIVED came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Listen,
    SynSent,
    HalfOpen,
    SynReceived,
    Established,
    FinWait1,
    FinWait2,
    CloseWait,
    Closing,
    LastAck,
    TimeWait,
    /// The peer reset it, and the application has not let go of it.
    Closed,
}

impl State {
    pub const ALL: [Self; 12] = [
        Self::Listen,
        Self::SynSent,
        Self::HalfOpen,
        Self::SynReceived,
        Self::Established,
        Self::FinWait1,
        Self::FinWait2,
        Self::CloseWait,
        Self::Closing,
        Self::LastAck,
        Self::TimeWait,
        Self::Closed,
    ];
}

/// The stack opens the connection, where both ways lead to a state.
const ACTIVE: u8 = 1;
/// NewReno.
const NEW_RENO: u8 = 2;
/// IPv6.
const V6: u8 = 4;
/// The peer has none of the options.
const PLAIN: u8 = 8;
/// It asks for ECN.
const ECN: u8 = 16;
/// The application closes by `close`, and keeps no handle.
const CLOSE: u8 = 32;

impl World {
    /// Brings the connection of a peer to a state, if nothing is in the way.
    pub fn bring(&mut self, index: usize, state: State, how: u8) {
        let port = LISTENERS[usize::from(how & NEW_RENO != 0)];
        self.peers[index] = Peer {
            clock: self.peers[index].clock,
            ..Peer::new(index, how & V6 != 0, port)
        };
        // Not the numbers of a connection before.
        let turns = u32::try_from(self.turns & 0xffff).expect("masked");
        let seq = &mut self.peers[index].seq;
        *seq = seq.wrapping_add(turns << 8);
        match state {
            State::Listen => return,
            State::SynSent => return self.connect(index, how),
            State::HalfOpen => return self.send_syn(index, how, SYN),
            State::SynReceived => {
                self.connect(index, how);
                return self.send_syn(index, how, SYN);
            }
            _ => {}
        }
        if how & ACTIVE != 0 {
            self.connect(index, how);
            self.send_syn(index, how, SYN | ACK);
        } else {
            self.send_syn(index, how, SYN);
            self.send(index, ACK, 0);
        }
        let handle = self.handles.last().copied();
        match state {
            State::FinWait1 | State::Closing => self.shut(handle, how),
            State::FinWait2 | State::TimeWait => {
                self.shut(handle, how);
                self.send(index, ACK, 0);
            }
            State::CloseWait | State::LastAck => self.send(index, FIN | ACK, 0),
            State::Closed => self.send(index, RST | ACK, 0),
            _ => {}
        }
        match state {
            State::Closing => {
                let peer = &mut self.peers[index];
                let mut fin = peer.segment(FIN | ACK, 0);
                fin.ack = fin.ack.wrapping_sub(1);
                peer.advance(&fin);
                let frame = peer.frame(&fin);
                self.receive(frame.as_slice());
                self.turn();
            }
            State::LastAck => self.shut(handle, how),
            State::TimeWait => self.send(index, FIN | ACK, 0),
            _ => {}
        }
    }

    /// What [`state_of`](Self::state_of) says where nothing was in the way.
    pub fn expected(&self, state: State) -> Option<&'static str> {
        let cookies = self.config.syn_cookies == SynCookies::Always;
        match state {
            State::Listen => None,
            State::SynSent => Some("SYN-SENT"),
            State::HalfOpen if cookies => None,
            State::HalfOpen | State::SynReceived => Some("SYN-RECV"),
            State::Established => Some("ESTAB"),
            State::FinWait1 => Some("FIN-WAIT-1"),
            State::FinWait2 => Some("FIN-WAIT-2"),
            State::CloseWait => Some("CLOSE-WAIT"),
            State::Closing => Some("CLOSING"),
            State::LastAck => Some("LAST-ACK"),
            State::TimeWait => Some("TIME-WAIT"),
            State::Closed => None,
        }
    }

    /// The state of a peer's connection.
    pub fn state_of(&mut self, index: usize) -> Option<&'static str> {
        let (local, remote) = self.ends(index);
        self.stack.tcp_state_between(local, remote)
    }

    /// Both ends of a peer's connection: the stack's, the peer's.
    pub fn ends(&self, index: usize) -> (SocketAddr, SocketAddr) {
        let peer = &self.peers[index];
        let (theirs, ours) = peer.addresses();
        let local = SocketAddr::new(ours, peer.local_port);
        (local, SocketAddr::new(theirs, peer.port))
    }

    /// The stack opens a connection to a peer.
    pub fn connect(&mut self, index: usize, how: u8) {
        let congestion = if how & NEW_RENO == 0 {
            CongestionKind::Cubic
        } else {
            CongestionKind::NewReno
        };
        let (mut local, remote) = self.ends(index);
        local.set_port(0);
        let nodelay = how & V6 == 0;
        let now = self.now;
        if let Ok(id) = self
            .stack
            .tcp_connect(local, remote, congestion, nodelay, now)
        {
            if let Some((local, _)) = self.stack.tcp_ends(id) {
                self.peers[index].local_port = local.port();
            }
            self.keep(id);
        }
        self.turn();
    }

    fn send_syn(&mut self, index: usize, how: u8, flags: u16) {
        const ECE_CWR: u16 = 0xc0;
        let ecn = match (how & ECN, flags & ACK) {
            (0, _) => 0,
            (_, 0) => ECE_CWR,
            _ => ECE_CWR & 0x40,
        };
        let peer = &mut self.peers[index];
        let mut syn = peer.segment(flags | ecn, 0);
        if how & PLAIN != 0 {
            syn.no_options();
        }
        peer.advance(&syn);
        let frame = peer.frame(&syn);
        self.receive(frame.as_slice());
        self.turn();
        if how & PLAIN != 0 {
            self.peers[index].echo = None;
        }
    }

    /// The peer sends a right segment, and the stack has a turn.
    pub fn send(&mut self, index: usize, flags: u16, payload_len: usize) {
        let peer = &mut self.peers[index];
        let segment = peer.segment(flags, payload_len);
        peer.advance(&segment);
        let frame = peer.frame(&segment);
        self.receive(frame.as_slice());
        self.turn();
    }

    fn shut(&mut self, handle: Option<TcpId>, how: u8) {
        let Some(id) = handle else {
            return;
        };
        if how & CLOSE == 0 {
            let _ = self.stack.tcp_shutdown(id, self.now);
        } else {
            self.handles.retain(|&other| other != id);
            self.stack.tcp_close(id, self.now);
        }
        self.turn();
    }
}
